//! Dates, times and intervals, with Postgres's fields, patterns and calendar.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use datafusion::common::Result;

use crate::function::{Args, Definition};
use calendar::Zone;

pub(crate) use format::ordinal_ending;

mod arithmetic;
pub(crate) mod calendar;
mod field;
mod format;
pub(crate) mod interval;
mod parse;
pub(crate) mod pattern;
mod tid;
mod truncate;

pub(crate) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "to_char",
        "timestamp, text",
        "text",
        "Writes a time by a pattern such as `YYYY-MM-DD HH24:MI:SS`.",
        format::timestamp,
    ),
    Definition::new("to_char", "timestamptz, text", "text", "The same in the session's time zone.", format::timestamptz),
    Definition::new("to_char", "interval, text", "text", "Writes an interval by a pattern such as `HH24:MI`.", format::interval),
    Definition::new(
        "to_timestamp",
        "text, text",
        "timestamptz",
        "Reads a time by a pattern, in the session's time zone.",
        parse::to_timestamp,
    ),
    Definition::new(
        "to_timestamp",
        "double precision",
        "timestamptz",
        "The instant so many seconds after 1970-01-01 00:00 UTC.",
        arithmetic::from_epoch,
    ),
    Definition::new("to_date", "text, text", "date", "Reads a date by a pattern.", parse::to_date),
    Definition::new("extract", "text, timestamp", "numeric", "A field of a time, exact: `extract(hour FROM t)`.", field::extract)
        .returning(field::numeric_type),
    Definition::new(
        "extract",
        "text, timestamptz",
        "numeric",
        "A field of an instant in the session's time zone.",
        field::extract,
    )
    .returning(field::numeric_type),
    Definition::new(
        "extract",
        "text, interval",
        "numeric",
        "A field of an interval; `epoch` is its length in seconds.",
        field::extract,
    )
    .returning(field::numeric_type),
    Definition::new("date_part|datepart", "text, timestamp", "double precision", "As `extract`, as a double.", field::date_part),
    Definition::new(
        "date_part|datepart",
        "text, timestamptz",
        "double precision",
        "As `extract`, as a double.",
        field::date_part,
    ),
    Definition::new("date_part|datepart", "text, interval", "double precision", "As `extract`, as a double.", field::date_part),
    Definition::new("date_trunc|datetrunc", "text, timestamp", "timestamp", "Rounds a time down to a unit.", truncate::timestamp),
    Definition::new(
        "date_trunc|datetrunc",
        "text, timestamptz, text?",
        "timestamptz",
        "Rounds an instant down to a unit of the session's or the given time zone.",
        truncate::timestamptz,
    ),
    Definition::new("date_trunc|datetrunc", "text, interval", "interval", "Rounds an interval towards zero.", truncate::interval),
    Definition::new(
        "date_bin",
        "interval, timestamp, timestamp",
        "timestamp",
        "The start of the bin of that width, counted from an origin.",
        truncate::date_bin,
    ),
    Definition::new(
        "date_bin",
        "interval, timestamptz, timestamptz",
        "timestamptz",
        "The start of the bin of that width, counted from an origin.",
        truncate::date_bin,
    ),
    Definition::new(
        "time_bucket",
        "interval, timestamp, timestamp?",
        "timestamp",
        "As `date_bin` from a Monday; also for months.",
        truncate::time_bucket,
    ),
    Definition::new(
        "time_bucket",
        "interval, timestamptz, timestamptz?",
        "timestamptz",
        "As `date_bin` from a Monday; also for months.",
        truncate::time_bucket,
    ),
    Definition::new(
        "age",
        "timestamp, timestamp",
        "interval",
        "The years, months, days and time between two times.",
        arithmetic::age,
    ),
    Definition::new(
        "age",
        "timestamptz, timestamptz",
        "interval",
        "The years, months, days and time between two instants.",
        arithmetic::age,
    ),
    Definition::new("justify_hours", "interval", "interval", "Turns each 24 hours into a day.", arithmetic::justify_hours),
    Definition::new("justify_days", "interval", "interval", "Turns each 30 days into a month.", arithmetic::justify_days),
    Definition::new("justify_interval", "interval", "interval", "Both, with one sign throughout.", arithmetic::justify_interval),
    Definition::new(
        "make_timestamp",
        "int, int, int, int, int, double precision",
        "timestamp",
        "A time from year, month, day, hour, minute, second.",
        arithmetic::make_timestamp,
    ),
    Definition::new(
        "make_timestamptz",
        "int, int, int, int, int, double precision, text?",
        "timestamptz",
        "The same in the session's or the given time zone.",
        arithmetic::make_timestamptz,
    ),
    Definition::new("make_date", "int, int, int", "date", "A date from year, month, day.", arithmetic::make_date),
    Definition::new(
        "make_interval",
        "int?, int?, int?, int?, int?, int?, double precision?",
        "interval",
        "An interval from years, months, weeks, days, hours, minutes, seconds.",
        arithmetic::make_interval,
    ),
    Definition::new(
        "timezone",
        "text, timestamp",
        "timestamptz",
        "`t AT TIME ZONE zone`: the instant at which clocks there show t.",
        arithmetic::at_zone,
    ),
    Definition::new(
        "timezone",
        "text, timestamptz",
        "timestamp",
        "`t AT TIME ZONE zone`: what clocks there show at t.",
        arithmetic::in_zone,
    ),
    Definition::new(
        "tid_time",
        "text",
        "timestamptz",
        "The instant inside an AT Protocol record key; NULL for other keys.",
        tid::tid_time,
    ),
];

/// The time zone of the session that asks.
pub(crate) fn session_zone(args: &Args) -> Result<Zone> {
    args.config.execution.time_zone.as_deref().map_or(Ok(Zone::Utc), Zone::parse)
}

/// A column of timestamptz.
pub(crate) fn instants(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}
