//! Values of parameters, as clients send them, text or binary.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use bytes::{Buf, Bytes};
use datafusion::common::ScalarValue;
use sql::{Error, Result};

use crate::pgwire::types::{PgType, Scalar};

/// How a value travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterFormat {
    Text,
    Binary,
}

/// 2000-01-01, where Postgres counts from, in days and microseconds since 1970.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 946_684_800_000_000;
/// Nesting and elements of an array parameter are bounded by the message they come in; its dimensions by this.
const DIMENSIONS_MAX: i32 = 1;

/// The value a client sent for a parameter of type `kind`.
pub(crate) fn parameter(kind: PgType, format: ParameterFormat, value: Option<&Bytes>, time_zone: &str) -> Result<ScalarValue> {
    let Some(bytes) = value else {
        return ScalarValue::try_from(&kind.arrow()).map_err(sql::translate);
    };
    match format {
        ParameterFormat::Text => {
            let text =
                std::str::from_utf8(bytes).map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
            text_value(kind, text, time_zone)
        }
        ParameterFormat::Binary => binary_value(kind, bytes.clone()),
    }
}

/// A value from its text form.
pub(crate) fn text_value(kind: PgType, text: &str, time_zone: &str) -> Result<ScalarValue> {
    let column = text_column(kind, &StringArray::from(vec![text]), time_zone).map_err(|refused| refused.error)?;
    ScalarValue::try_from_array(&column, 0).map_err(sql::translate)
}

/// A text that is no value of its type, and where it stood.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) row: usize,
    pub(crate) error: Error,
}

/// A column of values from their text forms; NULL stays NULL.
pub(crate) fn text_column(kind: PgType, texts: &StringArray, time_zone: &str) -> std::result::Result<ArrayRef, Refused> {
    text_column_as(kind, &kind.arrow(), texts, time_zone)
}

/// A column of values of a type that is stored as `data_type`.
pub(crate) fn text_column_as(
    kind: PgType,
    data_type: &DataType,
    texts: &StringArray,
    time_zone: &str,
) -> std::result::Result<ArrayRef, Refused> {
    let whole = |error: arrow::error::ArrowError| Refused { row: 0, error: Error::new("XX000", error.to_string()) };
    let scalar = match kind {
        PgType::Array(scalar) => return array_column(scalar, data_type, texts, time_zone),
        PgType::One(scalar) => scalar,
    };
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let converted: ArrayRef = match (scalar, data_type) {
        (_, DataType::Utf8) => {
            if let Some(row) = first(texts, |text| !is_valid_text(scalar, text)) {
                return Err(Refused { row, error: invalid(scalar, texts.value(row)) });
            }
            return Ok(Arc::new(texts.clone()));
        }
        (Scalar::Bool, _) => {
            let booleans: arrow::array::BooleanArray = texts.iter().map(|text| super::settings::boolean(text?)).collect();
            Arc::new(booleans)
        }
        (Scalar::Bytea, _) => {
            let bytes: arrow::array::BinaryArray = texts.iter().map(|text| bytea(text?)).collect();
            Arc::new(bytes)
        }
        (Scalar::Timestamptz, _) => {
            // What names no zone is in the session's.
            let local = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(time_zone.into()));
            let instants = cast_with_options(&trimmed(texts), &local, &options).map_err(whole)?;
            cast_with_options(&instants, data_type, &options).map_err(whole)?
        }
        _ => cast_with_options(&trimmed(texts), data_type, &options).map_err(whole)?,
    };
    match (0..texts.len()).find(|row| converted.is_null(*row) && !texts.is_null(*row)) {
        None => Ok(converted),
        Some(row) => Err(Refused { row, error: refusal(scalar, texts.value(row)) }),
    }
}

fn first(texts: &StringArray, wrong: impl Fn(&str) -> bool) -> Option<usize> {
    texts.iter().position(|text| text.is_some_and(&wrong))
}

fn is_valid_text(scalar: Scalar, text: &str) -> bool {
    match scalar {
        Scalar::Uuid => {
            let digits = text.trim_matches(['{', '}']).bytes().filter(|byte| *byte != b'-');
            digits.clone().count() == 32 && digits.into_iter().all(|byte| byte.is_ascii_hexdigit())
        }
        Scalar::Json | Scalar::Jsonb => serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
        _ => !text.contains('\0'),
    }
}

fn trimmed(texts: &StringArray) -> StringArray {
    texts.iter().map(|text| text.map(str::trim)).collect()
}

fn invalid(scalar: Scalar, text: &str) -> Error {
    let name = scalar.row().sql_name;
    Error::new("22P02", format!("invalid input syntax for type {name}: \"{text}\""))
}

/// Why a text is no value: out of range for a number that looks like one.
fn refusal(scalar: Scalar, text: &str) -> Error {
    let name = scalar.row().sql_name;
    let number = text.trim();
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match scalar {
        Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Oid if is_integer => {
            Error::new("22003", format!("value \"{text}\" is out of range for type {name}"))
        }
        Scalar::Numeric if number.parse::<f64>().is_ok_and(f64::is_finite) => Error::new("22003", "numeric field overflow"),
        Scalar::Date | Scalar::Time | Scalar::Timestamp | Scalar::Timestamptz | Scalar::Interval => {
            Error::new("22007", format!("invalid input syntax for type {name}: \"{text}\""))
        }
        _ => invalid(scalar, text),
    }
}

/// `\x` and hexadecimal digits, or bytes with backslash escapes.
fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| char::from(byte).to_digit(16));
        let digits: Vec<u8> = digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        return Some(pairs.iter().map(|[high, low]| high << 4 | low).collect());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next()? {
            b'\\' => bytes.push(b'\\'),
            high @ b'0'..=b'3' => {
                let digits = [high, rest.next()?, rest.next()?];
                let octal = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(octal, 8).ok()?);
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Arrays of one dimension: `{1,2,NULL,"a b"}`.
fn array_column(
    scalar: Scalar,
    data_type: &DataType,
    texts: &StringArray,
    time_zone: &str,
) -> std::result::Result<ArrayRef, Refused> {
    let mut elements: Vec<Option<String>> = Vec::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        let before = elements.len();
        if let Some(text) = text {
            let error = || Error::new("22P02", format!("malformed array literal: \"{text}\""));
            array_elements(text.trim(), &mut elements).ok_or_else(|| Refused { row, error: error() })?;
        }
        lengths.push(elements.len().saturating_sub(before));
    }
    let values = StringArray::from(elements);
    let element_type = match data_type {
        DataType::List(field) => field.data_type().clone(),
        _ => PgType::One(scalar).arrow(),
    };
    let values = text_column_as(PgType::One(scalar), &element_type, &values, time_zone)
        .map_err(|refused| Refused { row: row_of(&lengths, refused.row), error: refused.error })?;
    let offsets = arrow::buffer::OffsetBuffer::<i32>::from_lengths(lengths);
    let field = match data_type {
        DataType::List(field) => Arc::clone(field),
        _ => Arc::new(arrow::datatypes::Field::new_list_field(element_type, true)),
    };
    let list = arrow::array::ListArray::try_new(field, offsets, values, texts.nulls().cloned());
    list.map(|list| Arc::new(list) as ArrayRef).map_err(|error| Refused { row: 0, error: Error::new("22P02", error.to_string()) })
}

fn row_of(lengths: &[usize], element: usize) -> usize {
    let mut end = 0usize;
    let row = lengths.iter().position(|length| {
        end = end.saturating_add(*length);
        element < end
    });
    row.unwrap_or(0)
}

fn array_elements(text: &str, elements: &mut Vec<Option<String>>) -> Option<()> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut letters = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(());
    }
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut element = String::new();
        if letters.next_if_eq(&'"').is_some() {
            loop {
                match letters.next()? {
                    '"' => break,
                    '\\' => element.push(letters.next()?),
                    letter => element.push(letter),
                }
            }
            while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
            elements.push(Some(element));
        } else {
            while let Some(letter) = letters.next_if(|letter| !matches!(letter, ',' | '{' | '}' | '"')) {
                element.push(if letter == '\\' { letters.next()? } else { letter });
            }
            let element = element.trim_end();
            if element.is_empty() {
                return None;
            }
            elements.push((!element.eq_ignore_ascii_case("null")).then(|| element.to_owned()));
        }
        match letters.next() {
            None => return Some(()),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

fn malformed() -> Error {
    Error::new("22P03", "incorrect binary data format in bind parameter")
}

fn short(_: bytes::TryGetError) -> Error {
    Error::new("08P01", "insufficient data left in message")
}

/// A value from its binary form.
fn binary_value(kind: PgType, mut bytes: Bytes) -> Result<ScalarValue> {
    let scalar = match kind {
        PgType::Array(scalar) => return binary_array(scalar, bytes),
        PgType::One(scalar) => scalar,
    };
    let value = match scalar {
        Scalar::Bool => ScalarValue::Boolean(Some(bytes.try_get_u8().map_err(short)? != 0)),
        Scalar::Int2 => ScalarValue::Int16(Some(bytes.try_get_i16().map_err(short)?)),
        Scalar::Int4 => ScalarValue::Int32(Some(bytes.try_get_i32().map_err(short)?)),
        Scalar::Int8 => ScalarValue::Int64(Some(bytes.try_get_i64().map_err(short)?)),
        Scalar::Oid | Scalar::Xid | Scalar::Regproc | Scalar::Regclass | Scalar::Regtype => {
            ScalarValue::Int64(Some(i64::from(bytes.try_get_u32().map_err(short)?)))
        }
        Scalar::Float4 => ScalarValue::Float32(Some(bytes.try_get_f32().map_err(short)?)),
        Scalar::Float8 => ScalarValue::Float64(Some(bytes.try_get_f64().map_err(short)?)),
        Scalar::Date => {
            let days = bytes.try_get_i32().map_err(short)?;
            let infinite = matches!(days, i32::MAX | i32::MIN);
            ScalarValue::Date32(Some(if infinite { days } else { days.checked_add(EPOCH_DAYS).ok_or_else(malformed)? }))
        }
        Scalar::Time => ScalarValue::Time64Microsecond(Some(bytes.try_get_i64().map_err(short)?)),
        Scalar::Timestamp | Scalar::Timestamptz => {
            let microseconds = bytes.try_get_i64().map_err(short)?;
            let infinite = matches!(microseconds, i64::MAX | i64::MIN);
            let microseconds = if infinite { microseconds } else { microseconds.checked_add(EPOCH_US).ok_or_else(malformed)? };
            ScalarValue::TimestampMicrosecond(Some(microseconds), (scalar == Scalar::Timestamptz).then(|| "UTC".into()))
        }
        Scalar::Interval => {
            let microseconds = bytes.try_get_i64().map_err(short)?;
            let days = bytes.try_get_i32().map_err(short)?;
            let months = bytes.try_get_i32().map_err(short)?;
            let nanoseconds = microseconds.checked_mul(1_000).ok_or_else(|| Error::new("22008", "interval out of range"))?;
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        }
        Scalar::Numeric => return numeric(bytes),
        Scalar::Bytea => return Ok(ScalarValue::Binary(Some(bytes.to_vec()))),
        Scalar::Uuid => {
            let [a, b, c, d] = [
                bytes.try_get_u32().map_err(short)?,
                bytes.try_get_u32().map_err(short)?,
                bytes.try_get_u32().map_err(short)?,
                bytes.try_get_u32().map_err(short)?,
            ];
            let text = format!("{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}", b >> 16, b & 0xffff, c >> 16, c & 0xffff);
            ScalarValue::Utf8(Some(text))
        }
        Scalar::Jsonb => {
            if bytes.try_get_u8().map_err(short)? != 1 {
                return Err(malformed());
            }
            return utf8(bytes);
        }
        Scalar::Char | Scalar::Name | Scalar::Text | Scalar::Json | Scalar::Bpchar | Scalar::Varchar | Scalar::Unknown => {
            return utf8(bytes);
        }
        Scalar::Int2Vector | Scalar::OidVector | Scalar::Record | Scalar::Void => {
            return Err(Error::new("0A000", format!("parameters of type {} are not supported", scalar.row().sql_name)));
        }
    };
    if bytes.has_remaining() { Err(malformed()) } else { Ok(value) }
}

fn utf8(bytes: Bytes) -> Result<ScalarValue> {
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains('\0') => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        _ => Err(Error::new("22021", "invalid byte sequence for encoding \"UTF8\"")),
    }
}

/// NUMERIC: groups of four decimal digits, weight of the first, sign, digits after the point.
fn numeric(mut bytes: Bytes) -> Result<ScalarValue> {
    let groups = bytes.try_get_u16().map_err(short)?;
    let weight = i32::from(bytes.try_get_i16().map_err(short)?);
    let sign = bytes.try_get_u16().map_err(short)?;
    let scale = i32::from(bytes.try_get_u16().map_err(short)?);
    let overflow = || Error::new("22003", "numeric field overflow");
    let negative = match sign {
        0 => false,
        0x4000 => true,
        _ => return Err(Error::new("22003", "NaN and infinity are not values of type numeric here")),
    };
    // The value times 10^scale, by adding each group where it belongs.
    let mut value: i128 = 0;
    for index in 0..i32::from(groups) {
        let group = bytes.try_get_u16().map_err(short)?;
        if group > 9_999 {
            return Err(malformed());
        }
        let exponent = weight.saturating_sub(index).saturating_mul(4).saturating_add(scale);
        let group = i128::from(group);
        let part = match u32::try_from(exponent) {
            Ok(exponent) if group != 0 => {
                10i128.checked_pow(exponent).and_then(|power| power.checked_mul(group)).ok_or_else(overflow)?
            }
            Ok(_) => 0,
            Err(_) => group.checked_div(10i128.checked_pow(exponent.unsigned_abs()).unwrap_or(i128::MAX)).unwrap_or(0),
        };
        value = value.checked_add(part).ok_or_else(overflow)?;
    }
    if bytes.has_remaining() {
        return Err(malformed());
    }
    let scale = i8::try_from(scale).ok().filter(|scale| *scale <= 38).ok_or_else(overflow)?;
    let value = if negative { value.checked_neg().ok_or_else(overflow)? } else { value };
    Ok(ScalarValue::Decimal128(Some(value), 38, scale))
}

fn binary_array(scalar: Scalar, mut bytes: Bytes) -> Result<ScalarValue> {
    let dimensions = bytes.try_get_i32().map_err(short)?;
    let _has_null = bytes.try_get_i32().map_err(short)?;
    let element = PgType::from_oid(bytes.try_get_u32().map_err(short)?).unwrap_or(PgType::One(scalar));
    let mut values = Vec::new();
    match dimensions {
        0 => {}
        1 => {
            let count = bytes.try_get_i32().map_err(short)?;
            let _lower_bound = bytes.try_get_i32().map_err(short)?;
            for _ in 0..count {
                let length = bytes.try_get_i32().map_err(short)?;
                values.push(match usize::try_from(length) {
                    Ok(length) if length <= bytes.remaining() => binary_value(element, bytes.split_to(length))?,
                    Ok(_) => return Err(malformed()),
                    Err(_) => ScalarValue::try_from(&element.arrow()).map_err(sql::translate)?,
                });
            }
        }
        _ => return Err(Error::new("0A000", format!("array parameters have at most {DIMENSIONS_MAX} dimension"))),
    }
    let element_type = PgType::One(scalar).arrow();
    let values = values.into_iter().map(|value| value.cast_to(&element_type).map_err(sql::translate));
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, &element_type)))
}
