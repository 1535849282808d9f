//! Streaming tables: what CREATE STREAMING TABLE says, as a source of the engine.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use catalog::{Definition, ObjectId};
use engine::plan::{ColumnOrigin, ConnectorSpec, SourceColumn, SourceNode, WatermarkSpec};

use super::{errors, types};
use crate::parser::nearest;
use crate::{CreateStreamingTable, Error, Include, Result, Statement, interval};

/// Options of every streaming table that the engine's connectors do not see.
const IDLE_TIMEOUT: [&str; 2] = ["idle_timeout", "idle.timeout"];
const MAX_FUTURE: [&str; 2] = ["max_future", "max.future"];
/// How long a stored streaming table keeps its rows.
pub(crate) const RETENTION: &str = "retention";

/// A source with all its columns, options checked.
pub(crate) fn source(id: ObjectId, name: String, create: &CreateStreamingTable) -> Result<SourceNode> {
    let mut options = create.options.clone();
    let connector = options.remove("connector").ok_or_else(|| {
        let hint = match nearest("connector", create.options.keys().map(String::as_str)) {
            Some(near) => format!("Perhaps \"{near}\" should be \"connector\"."),
            None => "Connectors are jetstream, kafka, files, nexmark and bluesky.".to_owned(),
        };
        Error::new("22023", "option \"connector\" is missing").hint(hint)
    })?;
    let mut take = |names: &[&str]| -> Result<Option<i64>> {
        let mut value = None;
        for name in names {
            value = options.remove(*name).or(value);
        }
        value.map(|value| length(names[0], &value)).transpose()
    };
    let idle_timeout_us = take(&IDLE_TIMEOUT)?;
    let max_future_us = take(&MAX_FUTURE)?;
    // Whether and for how long rows are stored is the server's: here it is only a length of time, or none.
    if let Some(retention) = options.remove(RETENTION).filter(|text| !text.trim().eq_ignore_ascii_case("none")) {
        length(RETENTION, &retention)?;
    }
    let connector = ConnectorSpec {
        connector: connector.to_lowercase(),
        options,
        format: create.format.clone().unwrap_or_else(|| "PLAIN".to_owned()),
        encode: create.encode.clone().unwrap_or_else(|| "JSON".to_owned()),
        encode_options: create.encode_options.clone(),
    };
    engine::source::check_options(&connector).map_err(errors::of_engine).map_err(|error| with_own_options(error, &connector))?;
    let columns = columns(create, &connector)?;
    let schema = Arc::new(Schema::new(columns.iter().map(|column| Arc::clone(&column.field)).collect::<Vec<_>>()));
    let watermark = match &create.watermark {
        Some((column, delay_us)) => {
            Some(WatermarkSpec { column: time_column(&schema, column)?, delay_us: *delay_us, idle_timeout_us, max_future_us })
        }
        None => None,
    };
    Ok(SourceNode { table: id, name, connector, projection: (0..columns.len()).collect(), columns, schema, watermark })
}

/// An option that no connector knows may be a misspelling of one of ours.
fn with_own_options(error: Error, connector: &ConnectorSpec) -> Error {
    let own = [IDLE_TIMEOUT[0], MAX_FUTURE[0], RETENTION];
    let near =
        connector.options.keys().filter(|key| error.message.contains(&format!("\"{key}\""))).find_map(|key| nearest(key, own));
    match near {
        Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
        None => error,
    }
}

/// The value of an option that is a length of time.
pub(crate) fn length(option: &str, value: &str) -> Result<i64> {
    interval::duration(value).map_err(|error| {
        let hint = error.hint.clone().unwrap_or_default();
        Error::new("22023", format!("option \"{option}\" must be a length of time, not \"{value}\"")).hint(hint)
    })
}

fn columns(create: &CreateStreamingTable, connector: &ConnectorSpec) -> Result<Vec<SourceColumn>> {
    let mut columns: Vec<SourceColumn> = Vec::new();
    if create.own_columns {
        columns = engine::source::own_columns(connector).ok_or_else(|| {
            Error::new("42601", format!("connector \"{}\" has no columns of its own here", connector.connector))
                .hint("Name the columns: CREATE STREAMING TABLE t (id BIGINT, …).")
        })?;
    }
    for declared in &create.columns {
        let field = types::column(declared)?;
        let origin = ColumnOrigin::Field(field.name().clone());
        match columns.iter_mut().find(|column| column.field.name() == field.name()) {
            // Beside `*` a declaration only changes the type.
            Some(own) => own.field = Arc::new(field),
            None => columns.push(SourceColumn { field: Arc::new(field), origin }),
        }
    }
    for include in &create.include {
        if columns.iter().any(|column| *column.field.name() == include.column) {
            return Err(Error::new("42701", format!("column \"{}\" specified more than once", include.column))
                .hint("Name it: INCLUDE … AS another_name."));
        }
        columns.push(included(include));
    }
    if columns.is_empty() {
        return Err(Error::new("42P16", "a streaming table needs at least one column"));
    }
    Ok(columns)
}

fn included(include: &Include) -> SourceColumn {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let (data_type, origin) = match (include.what.as_str(), &include.header) {
        ("header", Some(header)) => (DataType::Utf8, ColumnOrigin::Header(header.clone())),
        ("partition", _) => (DataType::Int32, ColumnOrigin::Metadata(include.what.clone())),
        ("offset", _) => (DataType::Int64, ColumnOrigin::Metadata(include.what.clone())),
        ("timestamp", _) => (time, ColumnOrigin::Metadata(include.what.clone())),
        _ => (DataType::Utf8, ColumnOrigin::Metadata(include.what.clone())),
    };
    let mut field = Field::new(&include.column, data_type, true);
    if include.what == "headers" {
        field = field.with_metadata([(types::TYPE_KEY.to_owned(), "jsonb".to_owned())].into());
    }
    SourceColumn { field: Arc::new(field), origin }
}

/// The column that event time is read from.
fn time_column(schema: &Schema, column: &str) -> Result<usize> {
    let Some((at, field)) = schema.column_with_name(column) else {
        let error = Error::new("42703", format!("column \"{column}\" named in WATERMARK does not exist"));
        return Err(match nearest(column, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
            None => error,
        });
    };
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(at),
        _ => {
            Err(Error::new("42804", format!("a watermark needs a time, but column \"{column}\" has type {}", types::name(field)))
                .hint("Declare the column as TIMESTAMP or TIMESTAMPTZ."))
        }
    }
}

/// The source that a definition stands for.
pub(crate) fn of_definition(definition: &Definition) -> Result<SourceNode> {
    match crate::parser::parse_one(&definition.sql)?.statement {
        Statement::CreateStreamingTable(create) => source(definition.id, definition.name.to_string(), &create),
        _ => Err(Error::new("XX001", format!("the definition of {} is damaged", definition.name))),
    }
}

/// A source with only these of its columns, the watermark's among them if it has one.
pub(crate) fn projected(source: SourceNode, projection: &[usize]) -> Result<SourceNode> {
    let fields: Vec<_> = projection.iter().map(|at| Arc::clone(&source.columns[*at].field)).collect();
    let watermark = match source.watermark {
        Some(watermark) => {
            let column = projection.iter().position(|at| *at == watermark.column);
            column.map(|column| WatermarkSpec { column, ..watermark })
        }
        None => None,
    };
    Ok(SourceNode { projection: projection.to_vec(), schema: Arc::new(Schema::new(fields)), watermark, ..source })
}
