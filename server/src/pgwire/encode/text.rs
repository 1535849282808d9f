//! Values as text, letter for letter what PostgreSQL prints with `DateStyle = ISO`, `IntervalStyle = postgres`,
//! `extra_float_digits = 1`, `bytea_output = hex`.

use std::str::FromStr;

use arrow::array::timezone::Tz;
use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Offset, TimeZone};

use super::calendar::civil;
use super::number::{Digits, FloatDigits, write_decimal, write_float, write_integer, write_padded};
use super::{Cells, ColumnEncoder};
use crate::pgwire::types::{PgType, Scalar};

const DAY_US: i64 = 86_400_000_000;

/// The time zone of a session; UTC for a name that is none, which SET has refused already.
pub(crate) fn zone(name: &str) -> Tz {
    Tz::from_str(name).unwrap_or_else(|_| Tz::from_str("+00:00").expect("an offset that is a time zone"))
}

impl ColumnEncoder {
    /// Writes a value that is not NULL.
    pub(crate) fn write_text(&self, row: usize, out: &mut BytesMut) {
        match &self.cells {
            Cells::Null => {}
            Cells::Bool(a) => out.put_u8(if a.value(row) { b't' } else { b'f' }),
            Cells::Int16(a) => write_integer(i64::from(a.value(row)), out),
            Cells::Int32(a) => write_integer(i64::from(a.value(row)), out),
            Cells::Int64(a) => write_integer(a.value(row), out),
            Cells::Float32(a) => {
                let value = a.value(row);
                write_float(value, value.classify(), value.is_sign_negative(), FloatDigits::Single, out);
            }
            Cells::Float64(a) => {
                let value = a.value(row);
                write_float(value, value.classify(), value.is_sign_negative(), FloatDigits::Double, out);
            }
            Cells::Decimal128(a, scale) => write_decimal(Digits::of(a.value(row)).as_bytes(), *scale, out),
            Cells::Decimal256(a, scale) => write_decimal(Digits::of(a.value(row)).as_bytes(), *scale, out),
            Cells::Text(a) => out.put_slice(a.value(row).as_bytes()),
            Cells::LargeText(a) => out.put_slice(a.value(row).as_bytes()),
            Cells::TextView(a) => out.put_slice(a.value(row).as_bytes()),
            Cells::Binary(a) => write_hex(a.value(row), out),
            Cells::Date(a) => write_date(a.value(row), out),
            Cells::Time(a) => write_time(a.value(row), out),
            Cells::Timestamp(a) => write_timestamp(a.value(row), None, out),
            Cells::Timestamptz(a) => write_timestamp(a.value(row), Some(self.zone), out),
            Cells::Interval(a) => write_interval(a.value(row), out),
            Cells::List(list, elements) => {
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                if matches!(self.kind, PgType::One(Scalar::Int2Vector | Scalar::OidVector)) {
                    for index in start..end {
                        if index > start {
                            out.put_u8(b' ');
                        }
                        elements.write_text(index, out);
                    }
                    return;
                }
                out.put_u8(b'{');
                for index in start..end {
                    if index > start {
                        out.put_u8(b',');
                    }
                    if elements.is_null(index) {
                        out.put_slice(b"NULL");
                    } else {
                        let before = out.len();
                        elements.write_text(index, out);
                        if !matches!(elements.cells, Cells::List(..)) {
                            quote_array_element(before, out);
                        }
                    }
                }
                out.put_u8(b'}');
            }
            Cells::Record(_, fields) => {
                out.put_u8(b'(');
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(b',');
                    }
                    if !field.is_null(row) {
                        let before = out.len();
                        field.write_text(row, out);
                        quote_record_field(before, out);
                    }
                }
                out.put_u8(b')');
            }
        }
    }
}

/// Puts what was written since `before` into quotes where an array literal needs them.
fn quote_array_element(before: usize, out: &mut BytesMut) {
    let text = &out[before..];
    let special = |byte: &u8| matches!(byte, b'{' | b'}' | b',' | b'"' | b'\\') || is_space(*byte);
    if text.is_empty() || text.eq_ignore_ascii_case(b"null") || text.iter().any(special) {
        quote(before, out, |byte, out| {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(b'\\');
            }
        });
    }
}

/// Puts what was written since `before` into quotes where a record literal needs them.
fn quote_record_field(before: usize, out: &mut BytesMut) {
    let text = &out[before..];
    let special = |byte: &u8| matches!(byte, b'(' | b')' | b',' | b'"' | b'\\') || is_space(*byte);
    if text.is_empty() || text.iter().any(special) {
        quote(before, out, |byte, out| {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(byte);
            }
        });
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn quote(before: usize, out: &mut BytesMut, escape: impl Fn(u8, &mut BytesMut)) {
    let text = out.split_off(before);
    out.put_u8(b'"');
    for byte in text {
        escape(byte, out);
        out.put_u8(byte);
    }
    out.put_u8(b'"');
}

fn write_hex(bytes: &[u8], out: &mut BytesMut) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + bytes.len() * 2);
    out.put_slice(b"\\x");
    for byte in bytes {
        out.put_u8(HEX[usize::from(byte >> 4)]);
        out.put_u8(HEX[usize::from(byte & 15)]);
    }
}

fn write_date(days: i32, out: &mut BytesMut) {
    match days {
        i32::MAX => out.put_slice(b"infinity"),
        i32::MIN => out.put_slice(b"-infinity"),
        _ => {
            if write_day(i64::from(days), out) {
                out.put_slice(b" BC");
            }
        }
    }
}

/// Writes the day; true when its year is before Christ, which is written last.
fn write_day(days: i64, out: &mut BytesMut) -> bool {
    let day = civil(days);
    let before_christ = day.year <= 0;
    write_padded(if before_christ { 1 - day.year } else { day.year }, 4, out);
    out.put_u8(b'-');
    write_padded(day.month, 2, out);
    out.put_u8(b'-');
    write_padded(day.day, 2, out);
    before_christ
}

fn write_time(microseconds: i64, out: &mut BytesMut) {
    let seconds = microseconds / 1_000_000;
    write_padded(seconds / 3_600, 2, out);
    out.put_u8(b':');
    write_padded(seconds / 60 % 60, 2, out);
    out.put_u8(b':');
    write_padded(seconds % 60, 2, out);
    write_fraction(microseconds % 1_000_000, out);
}

/// Microseconds after the point, without zeros at the end.
fn write_fraction(microseconds: i64, out: &mut BytesMut) {
    if microseconds == 0 {
        return;
    }
    out.put_u8(b'.');
    write_padded(microseconds, 6, out);
    while out.last() == Some(&b'0') {
        out.truncate(out.len() - 1);
    }
}

fn write_timestamp(microseconds: i64, zone: Option<Tz>, out: &mut BytesMut) {
    match microseconds {
        i64::MAX => return out.put_slice(b"infinity"),
        i64::MIN => return out.put_slice(b"-infinity"),
        _ => {}
    }
    let offset = zone.map(|zone| offset_seconds(zone, microseconds));
    let local = microseconds.saturating_add(i64::from(offset.unwrap_or(0)) * 1_000_000);
    let before_christ = write_day(local.div_euclid(DAY_US), out);
    out.put_u8(b' ');
    write_time(local.rem_euclid(DAY_US), out);
    if let Some(offset) = offset {
        out.put_u8(if offset < 0 { b'-' } else { b'+' });
        let offset = i64::from(offset.abs());
        write_padded(offset / 3_600, 2, out);
        if offset % 3_600 != 0 {
            out.put_u8(b':');
            write_padded(offset / 60 % 60, 2, out);
        }
        if offset % 60 != 0 {
            out.put_u8(b':');
            write_padded(offset % 60, 2, out);
        }
    }
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// Seconds east of UTC at an instant; 0 beyond the years that time zones are known for.
fn offset_seconds(zone: Tz, microseconds: i64) -> i32 {
    let instant = DateTime::from_timestamp_micros(microseconds);
    instant.map_or(0, |instant| zone.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc())
}

fn write_interval(value: IntervalMonthDayNano, out: &mut BytesMut) {
    let start = out.len();
    let mut after_negative = false;
    let parts = [(value.months / 12, "year"), (value.months % 12, "mon"), (value.days, "day")];
    for (amount, unit) in parts {
        if amount == 0 {
            continue;
        }
        if out.len() > start {
            out.put_u8(b' ');
        }
        if after_negative && amount > 0 {
            out.put_u8(b'+');
        }
        write_integer(i64::from(amount), out);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if amount != 1 {
            out.put_u8(b's');
        }
        after_negative = amount < 0;
    }
    let microseconds = value.nanoseconds / 1_000;
    if microseconds != 0 || out.len() == start {
        if out.len() > start {
            out.put_u8(b' ');
        }
        if microseconds < 0 {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_time(microseconds.abs(), out);
    }
}
