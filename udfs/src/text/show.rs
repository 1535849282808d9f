//! Any value as the text Postgres prints for it.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;

use crate::time::calendar::{DAY, Date, HOUR, MINUTE, SECOND};
use crate::time::interval::Interval;

/// A column ready to be shown item by item.
pub(crate) struct Shown<'a> {
    array: &'a ArrayRef,
    fallback: Option<ArrayFormatter<'a>>,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(array: &'a ArrayRef) -> Result<Self> {
        const PLAIN: FormatOptions = FormatOptions::new();
        let fallback = if known(array.data_type()) { None } else { Some(ArrayFormatter::try_new(array.as_ref(), &PLAIN)?) };
        Ok(Shown { array, fallback })
    }

    /// Appends the item; NULL shows nothing.
    pub(crate) fn write(&self, row: usize, out: &mut String) -> Result<()> {
        let array = self.array;
        if array.is_null(row) {
            return Ok(());
        }
        if let Some(fallback) = &self.fallback {
            return Ok(write!(out, "{}", fallback.value(row)).map_err(|e| arrow::error::ArrowError::CastError(e.to_string()))?);
        }
        // Writing to a String cannot fail.
        let _ = match array.data_type() {
            DataType::Utf8 => out.write_str(array.as_string::<i32>().value(row)),
            DataType::Int8 => write!(out, "{}", array.as_primitive::<Int8Type>().value(row)),
            DataType::Int16 => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => {
                float(array.as_primitive::<Float64Type>().value(row), 15, out);
                Ok(())
            }
            DataType::Float32 => {
                float4(array.as_primitive::<Float32Type>().value(row), out);
                Ok(())
            }
            DataType::Decimal128(..) => out.write_str(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
            DataType::Boolean => out.write_str(if array.as_boolean().value(row) { "t" } else { "f" }),
            DataType::Date32 => {
                date(array.as_primitive::<Date32Type>().value(row).into(), out);
                Ok(())
            }
            DataType::Timestamp(_, zone) => {
                timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), zone.is_some(), out);
                Ok(())
            }
            DataType::Interval(_) => {
                write!(out, "{}", Interval::from_arrow(array.as_primitive::<IntervalMonthDayNanoType>().value(row)))
            }
            DataType::Duration(_) => {
                write!(out, "{}", Interval::from_difference(array.as_primitive::<DurationMicrosecondType>().value(row)))
            }
            DataType::Binary => {
                out.push_str("\\x");
                array.as_binary::<i32>().value(row).iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
            DataType::List(_) => return list(&array.as_list::<i32>().value(row), out),
            _ => Ok(()),
        };
        Ok(())
    }
}

fn known(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Utf8 | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..) | Boolean | Date32 | Binary => true,
        Timestamp(TimeUnit::Microsecond, _) | Duration(TimeUnit::Microsecond) | Interval(IntervalUnit::MonthDayNano) => true,
        List(item) => known(item.data_type()),
        _ => false,
    }
}

fn list(items: &ArrayRef, out: &mut String) -> Result<()> {
    let shown = Shown::new(items)?;
    let mut item_text = String::new();
    out.push('{');
    for item in 0..items.len() {
        if item > 0 {
            out.push(',');
        }
        if items.is_null(item) {
            out.push_str("NULL");
            continue;
        }
        item_text.clear();
        shown.write(item, &mut item_text)?;
        let nested = matches!(items.data_type(), DataType::List(_));
        let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
        if nested || !(item_text.is_empty() || item_text.eq_ignore_ascii_case("null") || item_text.contains(special)) {
            out.push_str(&item_text);
            continue;
        }
        out.push('"');
        for char in item_text.chars() {
            if matches!(char, '"' | '\\') {
                out.push('\\');
            }
            out.push(char);
        }
        out.push('"');
    }
    out.push('}');
    Ok(())
}

fn date(days: i64, out: &mut String) {
    let date = Date::from_days(days);
    let year = if date.year > 0 { date.year } else { 1 - date.year };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month, date.day);
    if date.year <= 0 {
        out.push_str(" BC");
    }
}

fn timestamp(micros: i64, utc: bool, out: &mut String) {
    let time = micros.rem_euclid(DAY);
    let date = Date::from_days(micros.div_euclid(DAY));
    let year = if date.year > 0 { date.year } else { 1 - date.year };
    let _ = write!(
        out,
        "{year:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.month,
        date.day,
        time / HOUR,
        time / MINUTE % 60,
        time / SECOND % 60
    );
    if time % SECOND != 0 {
        let _ = write!(out, ".{}", format!("{:06}", time % SECOND).trim_end_matches('0'));
    }
    if utc {
        out.push_str("+00");
    }
    if date.year <= 0 {
        out.push_str(" BC");
    }
}

fn float4(value: f32, out: &mut String) {
    shortest(&format!("{value:e}"), value.is_nan(), value.is_infinite(), 6, out);
}

/// The shortest digits that read back as the same double; with an exponent from 1e15 on and below 1e-4.
pub(crate) fn float(value: f64, digits: i32, out: &mut String) {
    shortest(&format!("{value:e}"), value.is_nan(), value.is_infinite(), digits, out);
}

fn shortest(scientific: &str, nan: bool, infinite: bool, digits: i32, out: &mut String) {
    if nan {
        return out.push_str("NaN");
    }
    let (sign, rest) = scientific.strip_prefix('-').map_or(("", scientific), |rest| ("-", rest));
    out.push_str(sign);
    if infinite {
        return out.push_str("Infinity");
    }
    let (mantissa, exponent) = rest.split_once('e').unwrap_or((rest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..digits).contains(&exponent) {
        let _ = write!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        return;
    }
    let figures: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        (1..-exponent).for_each(|_| out.push('0'));
        out.push_str(&figures);
        return;
    }
    let whole = exponent as usize + 1;
    for index in 0..whole {
        out.push_str(figures.get(index..index + 1).unwrap_or("0"));
    }
    if figures.len() > whole {
        out.push('.');
        out.push_str(&figures[whole..]);
    }
}
