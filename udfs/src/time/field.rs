//! `extract` and `date_part`: one number out of a date, time or interval.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ReturnFieldArgs;

use crate::error::Error;
use crate::function::Args;
use crate::time::calendar::{
    DAY, Date, HOUR, MINUTE, SECOND, Zone, century, decade, display_year, iso_weekday, julian_day, millennium,
};
use crate::time::interval::Interval;
use crate::time::session_zone;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    IsoYear,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Julian,
    Epoch,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

impl Unit {
    pub(crate) fn parse(name: &str) -> Result<Unit, Error> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "microseconds" | "microsecond" | "us" | "usec" | "usecs" | "useconds" => Unit::Microseconds,
            "milliseconds" | "millisecond" | "ms" | "msec" | "msecs" | "mseconds" => Unit::Milliseconds,
            "second" | "seconds" | "s" | "sec" | "secs" => Unit::Second,
            "minute" | "minutes" | "m" | "min" | "mins" => Unit::Minute,
            "hour" | "hours" | "h" | "hr" | "hrs" => Unit::Hour,
            "day" | "days" | "d" => Unit::Day,
            "week" | "weeks" | "w" => Unit::Week,
            "month" | "months" | "mon" | "mons" => Unit::Month,
            "quarter" | "qtr" => Unit::Quarter,
            "year" | "years" | "y" | "yr" | "yrs" => Unit::Year,
            "decade" | "decades" | "dec" | "decs" => Unit::Decade,
            "century" | "centuries" | "c" | "cent" => Unit::Century,
            "millennium" | "millennia" | "mil" | "mils" => Unit::Millennium,
            "isoyear" => Unit::IsoYear,
            "dow" => Unit::DayOfWeek,
            "isodow" => Unit::IsoDayOfWeek,
            "doy" => Unit::DayOfYear,
            "julian" => Unit::Julian,
            "epoch" => Unit::Epoch,
            "timezone" => Unit::Timezone,
            "timezone_hour" | "timezone_h" => Unit::TimezoneHour,
            "timezone_minute" | "timezone_m" => Unit::TimezoneMinute,
            _ => return Err(Error::invalid(format!("unit \"{name}\" not recognized"))),
        })
    }

    /// Digits behind the point that `extract` shows.
    fn scale(self) -> i8 {
        match self {
            Unit::Second | Unit::Epoch => 6,
            Unit::Milliseconds => 3,
            Unit::Julian => 20,
            _ => 0,
        }
    }

    /// The type of `extract`: exact, with the digits Postgres shows, and cheap to compare with integers.
    fn numeric(self) -> DataType {
        DataType::Decimal128(if self == Unit::Julian { 38 } else { 20 }, self.scale())
    }
}

/// `unit` of a local time, times ten to the power of the unit's scale.
#[inline]
fn of_timestamp(unit: Unit, local: i64, offset: i64) -> i128 {
    let time = || local.rem_euclid(DAY);
    let days = || local.div_euclid(DAY);
    let date = || Date::from_days(days());
    let value = match unit {
        Unit::Microseconds | Unit::Milliseconds | Unit::Second => time() % MINUTE,
        Unit::Minute => time() / MINUTE % 60,
        Unit::Hour => time() / HOUR,
        Unit::Day => date().day.into(),
        Unit::Week => date().iso_week().1,
        Unit::Month => date().month.into(),
        Unit::Quarter => date().quarter(),
        Unit::Year => display_year(date().year),
        Unit::Decade => decade(date().year),
        Unit::Century => century(date().year),
        Unit::Millennium => millennium(date().year),
        Unit::IsoYear => display_year(date().iso_week().0),
        Unit::DayOfWeek => iso_weekday(days()) % 7,
        Unit::IsoDayOfWeek => iso_weekday(days()),
        Unit::DayOfYear => date().day_of_year(),
        Unit::Epoch => local - offset,
        Unit::Timezone => offset / SECOND,
        Unit::TimezoneHour => offset / HOUR,
        Unit::TimezoneMinute => offset / MINUTE % 60,
        Unit::Julian => {
            let unit = 10_i128.pow(20);
            // Microseconds of a day do not divide a power of ten: the quotient is rounded as Postgres rounds it.
            let day = i128::from(DAY);
            return i128::from(julian_day(days())) * unit + (i128::from(time()) * unit + day / 2) / day;
        }
    };
    value.into()
}

fn of_interval(unit: Unit, interval: Interval) -> Result<i128, Error> {
    let year = interval.months / 12;
    let month = interval.months % 12;
    let value = match unit {
        Unit::Microseconds | Unit::Milliseconds | Unit::Second => interval.micros % MINUTE,
        Unit::Minute => interval.micros / MINUTE % 60,
        Unit::Hour => interval.micros / HOUR,
        Unit::Day => interval.days,
        Unit::Month => month,
        Unit::Quarter => month / 3 + 1,
        Unit::Year => year,
        Unit::Decade => year / 10,
        Unit::Century => year / 100,
        Unit::Millennium => year / 1000,
        Unit::Epoch => {
            // A year has 365.25 days here, a month outside of a year 30.
            let days = i128::from(year) * 36_525 + i128::from(month) * 3_000 + i128::from(interval.days) * 100;
            return Ok(days * i128::from(DAY / 100) + i128::from(interval.micros));
        }
        _ => return Err(Error::new("0A000", format!("unit \"{unit:?}\" not supported for type interval"))),
    };
    Ok(value.into())
}

pub(crate) fn numeric_type(args: &ReturnFieldArgs) -> Result<DataType> {
    Ok(match args.scalar_arguments.first() {
        Some(Some(ScalarValue::Utf8(Some(name)))) => Unit::parse(name)?.numeric(),
        _ => Unit::Second.numeric(),
    })
}

/// The scaled value of each row, and the digits behind the point it carries.
fn values(args: &Args) -> Result<(Vec<Option<i128>>, i8)> {
    let units = args.text(0)?;
    if !args.is_constant(0) {
        return Err(Error::new("0A000", "the field to extract must be a constant").into());
    }
    let Some(name) = units.get(0) else { return Ok((vec![None; args.rows()], 0)) };
    let unit = Unit::parse(name)?;
    let rows = 0..args.rows();
    let values = match args.array(1).data_type() {
        DataType::Interval(_) | DataType::Duration(_) => {
            let intervals = args.interval(1)?;
            rows.map(|row| intervals.get(row).map(|interval| of_interval(unit, interval)).transpose())
                .collect::<Result<_, _>>()?
        }
        DataType::Timestamp(_, Some(_)) => {
            let times = args.timestamp(1)?;
            let zone = session_zone(args)?;
            let of = |instant| match &zone {
                Zone::Utc => of_timestamp(unit, instant, 0),
                zone => {
                    let (offset, _) = zone.offset_at(instant);
                    of_timestamp(unit, instant + offset, offset)
                }
            };
            rows.map(|row| times.get(row).map(of)).collect()
        }
        _ => {
            if matches!(unit, Unit::Timezone | Unit::TimezoneHour | Unit::TimezoneMinute) {
                return Err(
                    Error::new("0A000", format!("unit \"{name}\" not supported for type timestamp without time zone")).into()
                );
            }
            let times = args.timestamp(1)?;
            rows.map(|row| times.get(row).map(|local| of_timestamp(unit, local, 0))).collect()
        }
    };
    Ok((values, unit.scale()))
}

pub(crate) fn extract(args: &Args) -> Result<ArrayRef> {
    let (values, _) = values(args)?;
    Ok(Arc::new(Decimal128Array::from(values).with_data_type(args.return_field.data_type().clone())))
}

pub(crate) fn date_part(args: &Args) -> Result<ArrayRef> {
    let (values, scale) = values(args)?;
    // Whole part and rest apart: the sum is then the nearest double.
    let unit = 10_i128.pow(scale as u32);
    let to_float = |value: i128| (value / unit) as f64 + (value % unit) as f64 / unit as f64;
    Ok(Arc::new(values.into_iter().map(|value| value.map(to_float)).collect::<Float64Array>()))
}
