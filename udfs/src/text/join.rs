//! `concat`, `concat_ws` and `format`: values of any type put into one text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use datafusion::common::Result;

use super::show::Shown;
use super::strings::{quote_identifier, quote_text};
use crate::error::Error;
use crate::function::Args;

/// The arguments from `first` on, each ready to be shown.
struct Values<'a> {
    shown: Vec<(Shown<'a>, &'a ArrayRef, bool)>,
}

impl<'a> Values<'a> {
    fn new(args: &'a Args, first: usize) -> Result<Self> {
        let shown = (first..args.len()).map(|at| Ok((Shown::new(args.array(at))?, args.array(at), args.is_constant(at))));
        Ok(Values { shown: shown.collect::<Result<_>>()? })
    }

    /// Writes an argument; false for NULL.
    fn write(&self, argument: usize, row: usize, out: &mut String) -> Result<bool> {
        let (shown, array, constant) = &self.shown[argument];
        let row = if *constant { 0 } else { row };
        if array.is_null(row) || *array.data_type() == arrow::datatypes::DataType::Null {
            return Ok(false);
        }
        shown.write(row, out)?;
        Ok(true)
    }
}

pub(crate) fn concat(args: &Args) -> Result<ArrayRef> {
    let values = Values::new(args, 0)?;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    let mut buffer = String::new();
    for row in 0..args.rows() {
        buffer.clear();
        for argument in 0..values.shown.len() {
            values.write(argument, row, &mut buffer)?;
        }
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

pub(crate) fn concat_ws(args: &Args) -> Result<ArrayRef> {
    let separators = args.text(0)?;
    let values = Values::new(args, 1)?;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    let mut buffer = String::new();
    for row in 0..args.rows() {
        let Some(separator) = separators.get(row) else {
            builder.append_null();
            continue;
        };
        buffer.clear();
        let mut first = true;
        for argument in 0..values.shown.len() {
            let before = buffer.len();
            if !first {
                buffer.push_str(separator);
            }
            if values.write(argument, row, &mut buffer)? {
                first = false;
            } else {
                buffer.truncate(before);
            }
        }
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

/// `format('%s %I %L %2$s %-10s %%', …)`.
pub(crate) fn format(args: &Args) -> Result<ArrayRef> {
    let formats = args.text(0)?;
    let values = Values::new(args, 1)?;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    let mut buffer = String::new();
    for row in 0..args.rows() {
        let Some(format) = formats.get(row) else {
            builder.append_null();
            continue;
        };
        buffer.clear();
        write_format(format, &values, row, &mut buffer)?;
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

fn write_format(format: &str, values: &Values, row: usize, out: &mut String) -> Result<()> {
    let unterminated = || Error::invalid("unterminated format() type specifier").with_hint("For a single \"%\" use \"%%\".");
    let too_few = || Error::invalid("too few arguments for format()");
    let mut next = 0;
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (number, after) = digits(rest);
        if let (Some(number), Some(after)) = (number, after.strip_prefix('$')) {
            next = number
                .checked_sub(1)
                .ok_or_else(|| Error::invalid("format specifies argument 0, but arguments are numbered from 1"))?;
            rest = after;
        }
        let mut left = rest.starts_with('-');
        rest = rest.strip_prefix('-').unwrap_or(rest);
        let (mut width, after) = digits(rest);
        rest = after;
        if let Some(after) = rest.strip_prefix('*') {
            let mut text = String::new();
            if next >= values.shown.len() {
                return Err(too_few().into());
            }
            values.write(next, row, &mut text)?;
            next += 1;
            let value: i64 = text.parse().unwrap_or(0);
            left |= value < 0;
            width = Some(value.unsigned_abs() as usize);
            rest = after;
        }
        let kind = rest.chars().next().ok_or_else(unterminated)?;
        rest = &rest[kind.len_utf8()..];
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(Error::invalid(format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\".")
                .into());
        }
        if next >= values.shown.len() {
            return Err(too_few().into());
        }
        let mut value = String::new();
        let present = values.write(next, row, &mut value)?;
        next += 1;
        let mut shown = String::new();
        match (kind, present) {
            ('I', false) => return Err(Error::new("22004", "null values cannot be formatted as an SQL identifier").into()),
            ('I', true) => quote_identifier(&value, &mut shown),
            ('L', false) => shown.push_str("NULL"),
            ('L', true) => quote_text(&value, &mut shown),
            _ => shown = value,
        }
        let missing = width.unwrap_or(0).min(1 << 20).saturating_sub(shown.chars().count());
        if !left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
        out.push_str(&shown);
        if left {
            out.extend(std::iter::repeat_n(' ', missing));
        }
    }
    out.push_str(rest);
    Ok(())
}

fn digits(text: &str) -> (Option<usize>, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    (text[..end].parse().ok(), &text[end..])
}
