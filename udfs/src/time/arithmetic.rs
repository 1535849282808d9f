//! Times and intervals made, compared and brought into shape.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use datafusion::common::Result;

use crate::error::Error;
use crate::function::Args;
use crate::time::calendar::{DAY, Date, HOUR, MINUTE, SECOND, Zone};
use crate::time::interval::Interval;
use crate::time::{instants, session_zone};

fn intervals(values: Vec<Option<Interval>>) -> Result<ArrayRef> {
    let values = values.into_iter().map(|value| value.map(Interval::to_arrow).transpose()).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(IntervalMonthDayNanoArray::from(values)))
}

pub(crate) fn age(args: &Args) -> Result<ArrayRef> {
    let (later, earlier) = (args.timestamp(0)?, args.timestamp(1)?);
    let zone = match args.array(0).data_type() {
        arrow::datatypes::DataType::Timestamp(_, Some(_)) => session_zone(args)?,
        _ => Zone::Utc,
    };
    let between = |row| Some(Interval::age(zone.to_local(later.get(row)?), zone.to_local(earlier.get(row)?)));
    intervals((0..args.rows()).map(between).collect())
}

fn justified(args: &Args, justify: fn(Interval) -> Interval) -> Result<ArrayRef> {
    let column = args.interval(0)?;
    intervals((0..args.rows()).map(|row| column.get(row).map(justify)).collect())
}

pub(crate) fn justify_hours(args: &Args) -> Result<ArrayRef> {
    justified(args, Interval::justify_hours)
}

pub(crate) fn justify_days(args: &Args) -> Result<ArrayRef> {
    justified(args, Interval::justify_days)
}

pub(crate) fn justify_interval(args: &Args) -> Result<ArrayRef> {
    justified(args, Interval::justify)
}

/// A date of which a negative year is BC; there is no year 0.
fn date_of(year: i64, month: i64, day: i64) -> Result<Date, Error> {
    let astronomical = if year < 0 { year + 1 } else { year };
    Date::valid(astronomical, month, day)
        .filter(|_| year != 0)
        .ok_or_else(|| Error::bad_time(format!("date field value out of range: {year}-{month:02}-{day:02}")))
}

fn local_time(args: &Args, row: usize, columns: &[crate::function::Column<'_, arrow::array::Int64Array>]) -> Result<Option<i64>> {
    let mut fields = [0; 5];
    for (field, column) in fields.iter_mut().zip(columns) {
        let Some(value) = column.get(row) else { return Ok(None) };
        *field = value;
    }
    let Some(seconds) = args.float(5)?.get(row) else { return Ok(None) };
    let [year, month, day, hour, minute] = fields;
    let date = date_of(year, month, day)?;
    let micros = (seconds * 1e6).round();
    let midnight = hour == 24 && minute == 0 && micros == 0.0;
    if !(midnight || ((0..24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60e6).contains(&micros))) {
        return Err(Error::bad_time(format!("time field value out of range: {hour}:{minute:02}:{seconds:02}")).into());
    }
    Ok(Some(date.days() * DAY + hour * HOUR + minute * MINUTE + micros as i64))
}

fn local_times(args: &Args) -> Result<Vec<Option<i64>>> {
    let columns = (0..5).map(|position| args.int(position)).collect::<Result<Vec<_>>>()?;
    (0..args.rows()).map(|row| local_time(args, row, &columns)).collect()
}

pub(crate) fn make_timestamp(args: &Args) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMicrosecondArray::from(local_times(args)?)))
}

pub(crate) fn make_timestamptz(args: &Args) -> Result<ArrayRef> {
    let zone = match args.constant_text(6)? {
        Some(name) => Zone::parse(name)?,
        None => session_zone(args)?,
    };
    Ok(instants(local_times(args)?.into_iter().map(|time| time.map(|local| zone.to_instant(local))).collect()))
}

pub(crate) fn make_date(args: &Args) -> Result<ArrayRef> {
    let columns = [args.int(0)?, args.int(1)?, args.int(2)?];
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match (columns[0].get(row), columns[1].get(row), columns[2].get(row)) {
            (Some(year), Some(month), Some(day)) => Some(date_of(year, month, day)?.days() as i32),
            _ => None,
        });
    }
    Ok(Arc::new(Date32Array::from(result)))
}

pub(crate) fn make_interval(args: &Args) -> Result<ArrayRef> {
    let columns = (0..args.len().min(6)).map(|position| args.int(position)).collect::<Result<Vec<_>>>()?;
    let seconds = if args.len() > 6 { Some(args.float(6)?) } else { None };
    let mut result = Vec::with_capacity(args.rows());
    'rows: for row in 0..args.rows() {
        let mut fields = [0_i64; 6];
        for (field, column) in fields.iter_mut().zip(&columns) {
            let Some(value) = column.get(row) else {
                result.push(None);
                continue 'rows;
            };
            *field = value;
        }
        let Some(seconds) = seconds.as_ref().map_or(Some(0.0), |seconds| seconds.get(row)) else {
            result.push(None);
            continue;
        };
        let [years, months, weeks, days, hours, minutes] = fields;
        let sum = || {
            Some(Interval {
                months: years.checked_mul(12)?.checked_add(months)?,
                days: weeks.checked_mul(7)?.checked_add(days)?,
                micros: hours
                    .checked_mul(HOUR)?
                    .checked_add(minutes.checked_mul(MINUTE)?)?
                    .checked_add((seconds * 1e6).round() as i64)?,
            })
        };
        result.push(Some(sum().ok_or_else(|| Error::out_of_range("interval"))?));
    }
    intervals(result)
}

pub(crate) fn from_epoch(args: &Args) -> Result<ArrayRef> {
    let seconds = args.float(0)?;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match seconds.get(row) {
            None => None,
            Some(seconds) => {
                // Whole seconds apart from the fraction: a double holds microseconds of today only just.
                let micros = seconds.floor() * 1e6 + ((seconds - seconds.floor()) * 1e6).round();
                if !(-210_866_803_200e6..9.2e18).contains(&micros) {
                    return Err(Error::bad_time(format!("timestamp out of range: \"{seconds}\"")).into());
                }
                Some(seconds.floor() as i64 * SECOND + ((seconds - seconds.floor()) * 1e6).round() as i64)
            }
        });
    }
    Ok(instants(result))
}

/// `timestamp AT TIME ZONE zone`: the instant at which clocks there show this time.
pub(crate) fn at_zone(args: &Args) -> Result<ArrayRef> {
    shift(args, Zone::to_instant).map(instants)
}

/// `timestamptz AT TIME ZONE zone`: what clocks there show at this instant.
pub(crate) fn in_zone(args: &Args) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMicrosecondArray::from(shift(args, Zone::to_local)?)))
}

fn shift(args: &Args, convert: fn(&Zone, i64) -> i64) -> Result<Vec<Option<i64>>> {
    let (zones, times) = (args.text(0)?, args.timestamp(1)?);
    let mut cache: Option<(&str, Zone)> = None;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        let (Some(name), Some(time)) = (zones.get(row), times.get(row)) else {
            result.push(None);
            continue;
        };
        let zone = match &mut cache {
            Some((known, zone)) if *known == name => zone,
            slot => &mut slot.insert((name, Zone::parse(name)?)).1,
        };
        result.push(Some(convert(zone, time)));
    }
    Ok(result)
}
