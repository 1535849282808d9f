//! Lengths of time, as they are written.

use sqlparser::ast::{DateTimeField, Expr, Interval, Value};

use crate::{Error, Result};

const SECOND: i64 = 1_000_000;

/// Microseconds of one unit; months and years have no fixed length.
fn unit(name: &str) -> Option<i64> {
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => 1,
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => 86_400 * SECOND,
        "w" | "week" | "weeks" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

/// A number of units in microseconds; exact for up to six decimals of a second.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let mut value = i128::from(whole) * i128::from(unit);
    let mut place = i128::from(unit);
    for digit in fraction.chars() {
        // Beyond this the digits are worth less than a microsecond, as far as a sum of rounded-down parts can tell.
        place = if place % 10 == 0 { place / 10 } else { return None };
        value += i128::from(digit.to_digit(10)?) * place;
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// `10 minutes`, `1 hour 30 minutes`, `500ms`, `00:01:30`, `1.5 s` in microseconds.
pub(crate) fn duration(text: &str) -> Result<i64> {
    parse(text).ok_or_else(|| {
        let hint = if text.contains("mon") || text.contains("year") {
            "Months and years have no fixed length; use days or weeks."
        } else {
            "Write for example '10 seconds', '1 hour 30 minutes' or '00:01:30'."
        };
        Error::new("22007", format!("invalid length of time: \"{text}\"")).hint(hint)
    })
}

fn parse(text: &str) -> Option<i64> {
    let mut total = 0i64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | ':'))).unwrap_or(rest.len());
        let number = &rest[..end];
        rest = rest[end..].trim_start();
        let part = if number.contains(':') {
            clock(number)?
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let name = &rest[..end];
            rest = rest[end..].trim_start();
            // As in Postgres, a bare number is seconds.
            scaled(number, if name.is_empty() { SECOND } else { unit(name)? })?
        };
        total = total.checked_add(part)?;
    }
    Some(total)
}

/// `hh:mm[:ss[.ffffff]]`.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let hours = scaled(parts.next()?, unit("h")?)?;
    let minutes = scaled(parts.next()?, unit("m")?)?;
    let seconds = parts.next().map_or(Some(0), |seconds| scaled(seconds, SECOND))?;
    if parts.next().is_some() {
        return None;
    }
    hours.checked_add(minutes)?.checked_add(seconds)
}

/// `INTERVAL '10' SECOND`, `INTERVAL '10 seconds'` in microseconds.
pub(crate) fn interval(interval: &Interval) -> Result<i64> {
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
            other => other.to_string(),
        },
        other => other.to_string(),
    };
    match (&interval.leading_field, &interval.last_field) {
        (None, _) => duration(&text),
        (Some(field), None) => duration(&format!("{text} {}", field_name(field))),
        (Some(_), Some(_)) => duration(&text),
    }
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().to_ascii_lowercase()
}

/// A length of time written as an expression: an INTERVAL, or its text alone.
pub(crate) fn of_expr(expr: &Expr) -> Result<i64> {
    match expr {
        Expr::Interval(written) => interval(written),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => duration(text),
            _ => Err(Error::new("42804", format!("expected an interval, found {expr}")).hint("Write INTERVAL '10 seconds'.")),
        },
        Expr::Cast { expr, .. } | Expr::Nested(expr) => of_expr(expr),
        _ => Err(Error::new("42804", format!("expected an interval, found {expr}")).hint("Write INTERVAL '10 seconds'.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, expected) in [
            ("10 seconds", Some(10_000_000)),
            ("10", Some(10_000_000)),
            ("1 hour 30 minutes", Some(5_400_000_000)),
            ("00:01:30", Some(90_000_000)),
            ("00:00:00.25", Some(250_000)),
            ("500ms", Some(500_000)),
            ("1.5 s", Some(1_500_000)),
            ("-2 days", Some(-172_800_000_000)),
            ("7d", Some(604_800_000_000)),
            ("1 us", Some(1)),
            ("1 month", None),
            ("1.0000001 s", None),
            ("ten seconds", None),
            ("", None),
            ("99999999999999999999 s", None),
            ("99999999999999 weeks", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
