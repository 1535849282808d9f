//! `freshet.wait('v', INTERVAL '30 seconds')`: v's row of `freshet.jobs` once it is finished or has caught up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use catalog::{ObjectId, ObjectName};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use sql::{Error, Result};

use super::table::SystemTable;
use super::{jobs, relations};
use crate::error::from_engine;
use crate::session::Backend;
use crate::{Database, config};

const LIMIT_DEFAULT: Duration = Duration::from_secs(30);

/// The relation; waiting begins when it is scanned and ends when the query is cancelled.
pub(super) fn table(database: Weak<Database>, arguments: &[ScalarValue]) -> Result<Arc<dyn TableProvider>> {
    let (name, limit) = parse(arguments)?;
    let schema = relations::jobs(&[]).schema();
    let rows = move || -> futures::future::BoxFuture<'static, datafusion::error::Result<_>> {
        let (database, name) = (Weak::clone(&database), name.clone());
        Box::pin(async move {
            let database = database.upgrade().ok_or_else(|| external(Error::new("57P01", "the server is shutting down")))?;
            let id = job(&database, &name).map_err(external)?;
            database.engine().wait(id, limit).await.map_err(|error| external(from_engine(error)))?;
            let found: Vec<_> = jobs(&database).into_iter().filter(|job| job.id == id).collect();
            Ok(relations::jobs(&found))
        })
    };
    Ok(SystemTable::provider("wait", schema, Box::new(rows)))
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn job(database: &Database, name: &ObjectName) -> Result<ObjectId> {
    let version = database.catalog().version();
    match version.object(name) {
        Some(definition) if definition.kind.has_dataflow() => Ok(definition.id),
        Some(definition) => {
            let error = Error::new("42809", format!("nothing runs for \"{}\"", definition.name.name));
            Err(error.hint("freshet.wait takes a streaming view, a sink or a stored streaming table."))
        }
        None => Err(Error::new("42P01", format!("relation \"{}\" does not exist", name.name))),
    }
}

fn parse(arguments: &[ScalarValue]) -> Result<(ObjectName, Duration)> {
    let usage =
        || Error::new("42883", "wrong arguments of freshet.wait").hint("Write freshet.wait('view', INTERVAL '30 seconds').");
    let text = |value: &ScalarValue| match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            Some(text.clone())
        }
        _ => None,
    };
    let (name, limit) = match arguments {
        [name] => (text(name), Some(LIMIT_DEFAULT)),
        [name, limit] => (text(name), text(limit).map_or_else(|| interval(limit), |text| config::parse_duration(&text))),
        _ => (None, None),
    };
    let name = name.ok_or_else(usage)?;
    let name = match name.split_once('.') {
        Some((schema, name)) => ObjectName { schema: schema.to_owned(), name: name.to_owned() },
        None => ObjectName { schema: "public".to_owned(), name },
    };
    Ok((name, limit.ok_or_else(usage)?))
}

fn interval(value: &ScalarValue) -> Option<Duration> {
    const DAY: u64 = 86_400;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let days = Duration::from_secs(u64::try_from(interval.days).ok()? * DAY);
            days.checked_add(Duration::from_nanos(u64::try_from(interval.nanoseconds).ok()?))
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            let days = Duration::from_secs(u64::try_from(interval.days).ok()? * DAY);
            days.checked_add(Duration::from_millis(u64::try_from(interval.milliseconds).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn arguments() {
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        let seconds =
            |seconds: i64| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, seconds * 1_000_000_000)));
        let (name, limit) = parse(&[text("v"), seconds(5)]).expect("valid");
        assert_eq!((name.to_string().as_str(), limit), ("public.v", Duration::from_secs(5)));
        let (name, limit) = parse(&[text("lab.v")]).expect("valid");
        assert_eq!((name.to_string().as_str(), limit), ("lab.v", LIMIT_DEFAULT));
        assert_eq!(parse(&[text("v"), text("250ms")]).expect("valid").1, Duration::from_millis(250));
        for wrong in [vec![], vec![seconds(1)], vec![text("v"), seconds(-1)], vec![text("v"), text("soon")]] {
            assert_eq!(parse(&wrong).expect_err("wrong").sqlstate, "42883", "{wrong:?}");
        }
    }
}
