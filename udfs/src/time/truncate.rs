//! Times rounded down: `date_trunc`, `date_bin`, `time_bucket`.

use std::sync::Arc;

use arrow::array::{ArrayRef, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use datafusion::common::Result;

use crate::error::Error;
use crate::function::Args;
use crate::time::calendar::{DAY, Date, HOUR, MINUTE, SECOND, Zone, iso_weekday};
use crate::time::field::Unit;
use crate::time::interval::Interval;
use crate::time::{instants, session_zone};

fn truncate(unit: Unit, local: i64) -> Result<i64, Error> {
    let to = |step: i64| local - local.rem_euclid(step);
    let date = || Date::from_days(local.div_euclid(DAY));
    let year_of = |years: i64| {
        // Decades begin with a round year, centuries and millennia one year later; 1 BC is year 0.
        let year = date().year;
        let first = if years == 10 { year.div_euclid(10) * 10 } else { (year - 1).div_euclid(years) * years + 1 };
        Date { year: first, month: 1, day: 1 }.days() * DAY
    };
    Ok(match unit {
        Unit::Microseconds => local,
        Unit::Milliseconds => to(1000),
        Unit::Second => to(SECOND),
        Unit::Minute => to(MINUTE),
        Unit::Hour => to(HOUR),
        Unit::Day => to(DAY),
        Unit::Week => to(DAY) - (iso_weekday(local.div_euclid(DAY)) - 1) * DAY,
        Unit::Month => Date { day: 1, ..date() }.days() * DAY,
        Unit::Quarter => Date { day: 1, month: (date().month - 1) / 3 * 3 + 1, ..date() }.days() * DAY,
        Unit::Year => Date { day: 1, month: 1, ..date() }.days() * DAY,
        Unit::Decade => year_of(10),
        Unit::Century => year_of(100),
        Unit::Millennium => year_of(1000),
        _ => return Err(Error::new("0A000", format!("unit \"{unit:?}\" not supported for date_trunc"))),
    })
}

/// A unit given per row, parsed again only where it changes.
#[derive(Default)]
struct UnitCache<'a>(Option<(&'a str, Unit)>);

impl<'a> UnitCache<'a> {
    fn get(&mut self, name: &'a str) -> Result<Unit, Error> {
        match self.0 {
            Some((known, unit)) if known == name => Ok(unit),
            _ => Ok(self.0.insert((name, Unit::parse(name)?)).1),
        }
    }
}

pub(crate) fn timestamp(args: &Args) -> Result<ArrayRef> {
    let (units, times) = (args.text(0)?, args.timestamp(1)?);
    let mut cache = UnitCache::default();
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match (units.get(row), times.get(row)) {
            (Some(unit), Some(time)) => Some(truncate(cache.get(unit)?, time)?),
            _ => None,
        });
    }
    Ok(Arc::new(TimestampMicrosecondArray::from(result)))
}

pub(crate) fn timestamptz(args: &Args) -> Result<ArrayRef> {
    let (units, times) = (args.text(0)?, args.timestamp(1)?);
    let zone = match args.constant_text(2)? {
        Some(name) => Zone::parse(name)?,
        None => session_zone(args)?,
    };
    let mut cache = UnitCache::default();
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match (units.get(row), times.get(row)) {
            (Some(unit), Some(time)) => Some(zone.to_instant(truncate(cache.get(unit)?, zone.to_local(time))?)),
            _ => None,
        });
    }
    Ok(instants(result))
}

pub(crate) fn interval(args: &Args) -> Result<ArrayRef> {
    let (units, intervals) = (args.text(0)?, args.interval(1)?);
    let mut cache = UnitCache::default();
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match (units.get(row), intervals.get(row)) {
            (Some(unit), Some(interval)) => Some(truncate_interval(cache.get(unit)?, interval)?.to_arrow()?),
            _ => None,
        });
    }
    Ok(Arc::new(IntervalMonthDayNanoArray::from(result)))
}

/// Intervals are rounded towards zero.
fn truncate_interval(unit: Unit, interval: Interval) -> Result<Interval, Error> {
    let Interval { months, days, micros } = interval;
    let of_micros = |step: i64| Interval { months, days, micros: micros - micros % step };
    let of_months = |step: i64| Interval { months: months - months % step, days: 0, micros: 0 };
    Ok(match unit {
        Unit::Microseconds => interval,
        Unit::Milliseconds => of_micros(1000),
        Unit::Second => of_micros(SECOND),
        Unit::Minute => of_micros(MINUTE),
        Unit::Hour => of_micros(HOUR),
        Unit::Day => Interval { months, days, micros: 0 },
        Unit::Month => of_months(1),
        Unit::Quarter => of_months(3),
        Unit::Year => of_months(12),
        Unit::Decade => of_months(120),
        Unit::Century => of_months(1200),
        Unit::Millennium => of_months(12_000),
        Unit::Week => {
            return Err(Error::new("0A000", "unit \"week\" not supported for type interval")
                .with_hint("Months usually have fractional weeks."));
        }
        _ => return Err(Error::new("0A000", format!("unit \"{unit:?}\" not supported for type interval"))),
    })
}

/// The start of the bin of `stride` microseconds that `time` lies in, bins counted from `origin`.
fn bin(stride: i64, time: i64, origin: i64) -> Result<i64, Error> {
    let past = time.checked_sub(origin).ok_or_else(|| Error::out_of_range("interval"))?;
    origin.checked_add(past - past.rem_euclid(stride)).ok_or_else(|| Error::bad_time("timestamp out of range"))
}

pub(crate) fn date_bin(args: &Args) -> Result<ArrayRef> {
    let (strides, times, origins) = (args.interval(0)?, args.timestamp(1)?, args.timestamp(2)?);
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        let (Some(stride), Some(time), Some(origin)) = (strides.get(row), times.get(row), origins.get(row)) else {
            result.push(None);
            continue;
        };
        if stride.months != 0 {
            return Err(Error::new("0A000", "timestamps cannot be binned into intervals containing months or years").into());
        }
        let step = stride.fixed_micros().filter(|&step| step > 0);
        result.push(Some(bin(step.ok_or_else(|| Error::bad_time("stride must be greater than zero"))?, time, origin)?));
    }
    Ok(like_time_argument(args, result))
}

/// Bins as TimescaleDB's: counted from Monday 2000-01-03, those of months from 2000-01-01.
pub(crate) fn time_bucket(args: &Args) -> Result<ArrayRef> {
    let monday = Date { year: 2000, month: 1, day: 3 }.days() * DAY;
    let (strides, times) = (args.interval(0)?, args.timestamp(1)?);
    let origins = if args.len() > 2 { Some(args.timestamp(2)?) } else { None };
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        let origin = origins.as_ref().map(|origins| origins.get(row));
        let (Some(stride), Some(time), false) = (strides.get(row), times.get(row), origin == Some(None)) else {
            result.push(None);
            continue;
        };
        let origin = origin.flatten();
        let bucket = if stride.months > 0 && stride.days == 0 && stride.micros == 0 {
            let from = Date::from_days(origin.unwrap_or(Date { year: 2000, month: 1, day: 1 }.days() * DAY).div_euclid(DAY));
            let at = Date::from_days(time.div_euclid(DAY));
            let months = |date: Date| date.year * 12 + i64::from(date.month) - 1;
            let past = months(at) - months(from);
            let start = Date { day: 1, ..from }.plus_months(past - past.rem_euclid(stride.months));
            start.days() * DAY
        } else {
            let step = stride.fixed_micros().filter(|&step| step > 0 && stride.months == 0);
            let step =
                step.ok_or_else(|| Error::invalid("bucket width must be greater than zero, in months or in days and times"))?;
            bin(step, time, origin.unwrap_or(monday))?
        };
        result.push(Some(bucket));
    }
    Ok(like_time_argument(args, result))
}

/// The result has the type of the second argument.
fn like_time_argument(args: &Args, values: Vec<Option<i64>>) -> ArrayRef {
    match args.return_field.data_type() {
        arrow::datatypes::DataType::Timestamp(_, Some(_)) => instants(values),
        _ => Arc::new(TimestampMicrosecondArray::from(values)),
    }
}
