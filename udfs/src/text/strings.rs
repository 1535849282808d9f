//! Texts cut, joined, padded and searched; positions and lengths count characters.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int32Array, ListBuilder, StringBuilder};
use datafusion::common::Result;
use memchr::memmem::Finder;

use crate::error::Error;
use crate::function::Args;

/// A text that a function makes longer may not become longer than this.
const LONGEST_TEXT: usize = 256 << 20;

/// Makes a text per row; `None` is NULL.
fn texts<'a>(args: &Args, mut make: impl FnMut(usize) -> Result<Option<&'a str>>) -> Result<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    for row in 0..args.rows() {
        builder.append_option(make(row)?);
    }
    Ok(Arc::new(builder.finish()))
}

/// Writes a text per row into a buffer that is used again; `None` is NULL.
fn written(args: &Args, mut write: impl FnMut(usize, &mut String) -> Result<Option<()>>) -> Result<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    let mut buffer = String::new();
    for row in 0..args.rows() {
        buffer.clear();
        match write(row, &mut buffer)? {
            Some(()) => builder.append_value(&buffer),
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn ints(args: &Args, make: impl FnMut(usize) -> Option<i32>) -> Result<ArrayRef> {
    Ok(Arc::new((0..args.rows()).map(make).collect::<Int32Array>()))
}

fn characters(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// Byte position behind the first `count` characters.
fn byte_after(text: &str, count: usize) -> usize {
    if text.is_ascii() {
        return count.min(text.len());
    }
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

pub(crate) fn char_length(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    ints(args, |row| column.get(row).map(|text| characters(text) as i32))
}

pub(crate) fn octet_length(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    ints(args, |row| column.get(row).map(|text| text.len() as i32))
}

pub(crate) fn bit_length(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    ints(args, |row| column.get(row).map(|text| text.len() as i32 * 8))
}

pub(crate) fn byte_length(args: &Args) -> Result<ArrayRef> {
    let column = args.bytes(0)?;
    ints(args, |row| column.get(row).map(|bytes| bytes.len() as i32))
}

/// The `n`th field between delimiters; from the end where `n` is negative.
pub(crate) fn split_part(args: &Args) -> Result<ArrayRef> {
    let (column, delimiters, numbers) = (args.text(0)?, args.text(1)?, args.int(2)?);
    let mut cache: Option<(&str, Finder)> = None;
    texts(args, |row| {
        let (Some(text), Some(delimiter), Some(number)) = (column.get(row), delimiters.get(row), numbers.get(row)) else {
            return Ok(None);
        };
        if number == 0 {
            return Err(Error::invalid("field position must not be zero").into());
        }
        if delimiter.is_empty() {
            return Ok(Some(if number == 1 || number == -1 { text } else { "" }));
        }
        if number > 0 && delimiter.len() == 1 {
            return Ok(Some(field_by_byte(text, delimiter.as_bytes()[0], number)));
        }
        let finder = match &mut cache {
            Some((known, finder)) if *known == delimiter => &*finder,
            slot => &slot.insert((delimiter, Finder::new(delimiter))).1,
        };
        let wanted = if number > 0 {
            number - 1
        } else {
            // Fields are counted from the left, so that overlapping delimiters split the same way in both directions.
            finder.find_iter(text.as_bytes()).count() as i64 + 1 + number
        };
        if wanted < 0 {
            return Ok(Some(""));
        }
        let mut from = 0;
        let mut ends = finder.find_iter(text.as_bytes());
        for _ in 0..wanted {
            match ends.next() {
                Some(at) => from = at + delimiter.len(),
                None => return Ok(Some("")),
            }
        }
        Ok(Some(&text[from..ends.next().unwrap_or(text.len())]))
    })
}

fn field_by_byte(text: &str, delimiter: u8, number: i64) -> &str {
    let mut ends = memchr::memchr_iter(delimiter, text.as_bytes());
    let from = match number {
        1 => 0,
        _ => match usize::try_from(number - 2).ok().and_then(|skip| ends.nth(skip)) {
            Some(at) => at + 1,
            None => return "",
        },
    };
    &text[from..ends.next().unwrap_or(text.len())]
}

pub(crate) fn replace(args: &Args) -> Result<ArrayRef> {
    let (column, froms, tos) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let mut cache: Option<(&str, Finder)> = None;
    written(args, |row, out| {
        let (Some(text), Some(from), Some(to)) = (column.get(row), froms.get(row), tos.get(row)) else { return Ok(None) };
        if from.is_empty() {
            out.push_str(text);
            return Ok(Some(()));
        }
        let finder = match &mut cache {
            Some((known, finder)) if *known == from => &*finder,
            slot => &slot.insert((from, Finder::new(from))).1,
        };
        let mut at = 0;
        for found in finder.find_iter(text.as_bytes()) {
            out.push_str(&text[at..found]);
            out.push_str(to);
            at = found + from.len();
        }
        out.push_str(&text[at..]);
        Ok(Some(()))
    })
}

/// The first characters; all but the last ones where the number is negative.
pub(crate) fn left(args: &Args) -> Result<ArrayRef> {
    let (column, numbers) = (args.text(0)?, args.int(1)?);
    texts(args, |row| {
        let (Some(text), Some(number)) = (column.get(row), numbers.get(row)) else { return Ok(None) };
        let count = if number >= 0 { number } else { (characters(text) as i64).saturating_add(number).max(0) };
        Ok(Some(&text[..byte_after(text, count as usize)]))
    })
}

/// The last characters; all but the first ones where the number is negative.
pub(crate) fn right(args: &Args) -> Result<ArrayRef> {
    let (column, numbers) = (args.text(0)?, args.int(1)?);
    texts(args, |row| {
        let (Some(text), Some(number)) = (column.get(row), numbers.get(row)) else { return Ok(None) };
        let skip = if number >= 0 { (characters(text) as i64 - number).max(0) } else { number.saturating_neg() };
        Ok(Some(&text[byte_after(text, skip as usize)..]))
    })
}

/// Characters from `start`, which counts from one and may lie before the text.
pub(crate) fn substr(args: &Args) -> Result<ArrayRef> {
    let (column, starts) = (args.text(0)?, args.int(1)?);
    let lengths = if args.len() > 2 { Some(args.int(2)?) } else { None };
    texts(args, |row| {
        let (Some(text), Some(start)) = (column.get(row), starts.get(row)) else { return Ok(None) };
        let first = (start - 1).max(0) as usize;
        let from = byte_after(text, first);
        let Some(lengths) = &lengths else { return Ok(Some(&text[from..])) };
        let Some(length) = lengths.get(row) else { return Ok(None) };
        if length < 0 {
            return Err(Error::new("22011", "negative substring length not allowed").into());
        }
        let end = start.saturating_add(length).saturating_sub(1).max(0) as usize;
        let count = end.saturating_sub(first);
        Ok(Some(&text[from..from + byte_after(&text[from..], count)]))
    })
}

/// Bytes `from..to` of a text, as AT Protocol facets count; NULL where they cut a character or lie outside.
pub(crate) fn utf8_substr(args: &Args) -> Result<ArrayRef> {
    let (column, starts, ends) = (args.text(0)?, args.int(1)?, args.int(2)?);
    texts(args, |row| {
        let (Some(text), Some(start), Some(end)) = (column.get(row), starts.get(row), ends.get(row)) else { return Ok(None) };
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        Ok(range.and_then(|(start, end)| text.get(start..end)))
    })
}

fn pad(args: &Args, left: bool) -> Result<ArrayRef> {
    let (column, lengths) = (args.text(0)?, args.int(1)?);
    let fills = if args.len() > 2 { Some(args.text(2)?) } else { None };
    written(args, |row, out| {
        let (Some(text), Some(length)) = (column.get(row), lengths.get(row)) else { return Ok(None) };
        let Some(fill) = fills.as_ref().map_or(Some(" "), |fills| fills.get(row)) else { return Ok(None) };
        let length = length.max(0) as usize;
        let missing = length.saturating_sub(characters(text));
        if missing.saturating_mul(4) > LONGEST_TEXT {
            return Err(Error::new("54000", "requested length too large").into());
        }
        let padding = fill.chars().cycle().take(if fill.is_empty() { 0 } else { missing });
        if left {
            out.extend(padding);
            out.push_str(&text[..byte_after(text, length)]);
        } else {
            out.push_str(&text[..byte_after(text, length)]);
            out.extend(padding);
        }
        Ok(Some(()))
    })
}

pub(crate) fn lpad(args: &Args) -> Result<ArrayRef> {
    pad(args, true)
}

pub(crate) fn rpad(args: &Args) -> Result<ArrayRef> {
    pad(args, false)
}

pub(crate) fn repeat(args: &Args) -> Result<ArrayRef> {
    let (column, counts) = (args.text(0)?, args.int(1)?);
    written(args, |row, out| {
        let (Some(text), Some(count)) = (column.get(row), counts.get(row)) else { return Ok(None) };
        let count = count.max(0) as usize;
        if text.len().saturating_mul(count) > LONGEST_TEXT {
            return Err(Error::new("54000", "requested length too large").into());
        }
        (0..count).for_each(|_| out.push_str(text));
        Ok(Some(()))
    })
}

pub(crate) fn reverse(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| {
        let Some(text) = column.get(row) else { return Ok(None) };
        out.extend(text.chars().rev());
        Ok(Some(()))
    })
}

pub(crate) fn initcap(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| {
        let Some(text) = column.get(row) else { return Ok(None) };
        let mut inside_word = false;
        for char in text.chars() {
            if inside_word {
                out.extend(char.to_lowercase());
            } else {
                out.extend(char.to_uppercase());
            }
            inside_word = char.is_alphanumeric();
        }
        Ok(Some(()))
    })
}

fn cased(args: &Args, ascii: fn(&u8) -> u8, convert: fn(&str) -> String) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| {
        let Some(text) = column.get(row) else { return Ok(None) };
        if text.is_ascii() {
            out.extend(text.as_bytes().iter().map(|byte| ascii(byte) as char));
        } else {
            out.push_str(&convert(text));
        }
        Ok(Some(()))
    })
}

pub(crate) fn lower(args: &Args) -> Result<ArrayRef> {
    cased(args, u8::to_ascii_lowercase, str::to_lowercase)
}

pub(crate) fn upper(args: &Args) -> Result<ArrayRef> {
    cased(args, u8::to_ascii_uppercase, str::to_uppercase)
}

pub(crate) fn translate(args: &Args) -> Result<ArrayRef> {
    let (column, froms, tos) = (args.text(0)?, args.text(1)?, args.text(2)?);
    written(args, |row, out| {
        let (Some(text), Some(from), Some(to)) = (column.get(row), froms.get(row), tos.get(row)) else { return Ok(None) };
        for char in text.chars() {
            match from.chars().position(|candidate| candidate == char) {
                None => out.push(char),
                Some(index) => out.extend(to.chars().nth(index)),
            }
        }
        Ok(Some(()))
    })
}

/// `overlay(text PLACING other FROM start [FOR length])`.
pub(crate) fn overlay(args: &Args) -> Result<ArrayRef> {
    let (column, others, starts) = (args.text(0)?, args.text(1)?, args.int(2)?);
    let lengths = if args.len() > 3 { Some(args.int(3)?) } else { None };
    written(args, |row, out| {
        let (Some(text), Some(other), Some(start)) = (column.get(row), others.get(row), starts.get(row)) else { return Ok(None) };
        let default = characters(other) as i64;
        let Some(length) = lengths.as_ref().map_or(Some(default), |lengths| lengths.get(row)) else { return Ok(None) };
        if start <= 0 {
            return Err(Error::new("22011", "negative substring length not allowed").into());
        }
        out.push_str(&text[..byte_after(text, start as usize - 1)]);
        out.push_str(other);
        let behind = (start - 1).saturating_add(length).max(0);
        out.push_str(&text[byte_after(text, behind as usize)..]);
        Ok(Some(()))
    })
}

/// The place of the second text in the first, counted from one; zero where it is not there.
pub(crate) fn strpos(args: &Args) -> Result<ArrayRef> {
    position_of(args, 0, 1)
}

fn position_of(args: &Args, text: usize, wanted: usize) -> Result<ArrayRef> {
    let (column, wanted) = (args.text(text)?, args.text(wanted)?);
    ints(args, |row| {
        let (text, wanted) = (column.get(row)?, wanted.get(row)?);
        let at = memchr::memmem::find(text.as_bytes(), wanted.as_bytes());
        Some(at.map_or(0, |at| characters(&text[..at]) as i32 + 1))
    })
}

pub(crate) fn starts_with(args: &Args) -> Result<ArrayRef> {
    let (column, starts) = (args.text(0)?, args.text(1)?);
    let result = (0..args.rows()).map(|row| Some(column.get(row)?.starts_with(starts.get(row)?)));
    Ok(Arc::new(result.collect::<BooleanArray>()))
}

fn trimmed(args: &Args, trim: for<'a> fn(&'a str, &dyn Fn(char) -> bool) -> &'a str) -> Result<ArrayRef> {
    let column = args.text(0)?;
    let sets = if args.len() > 1 { Some(args.text(1)?) } else { None };
    texts(args, |row| {
        let (Some(text), Some(set)) = (column.get(row), sets.as_ref().map_or(Some(" "), |sets| sets.get(row))) else {
            return Ok(None);
        };
        Ok(Some(trim(text, &|char| set.contains(char))))
    })
}

pub(crate) fn btrim(args: &Args) -> Result<ArrayRef> {
    trimmed(args, |text, inside| text.trim_matches(inside))
}

pub(crate) fn ltrim(args: &Args) -> Result<ArrayRef> {
    trimmed(args, |text, inside| text.trim_start_matches(inside))
}

pub(crate) fn rtrim(args: &Args) -> Result<ArrayRef> {
    trimmed(args, |text, inside| text.trim_end_matches(inside))
}

pub(crate) fn ascii(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    ints(args, |row| column.get(row).map(|text| text.chars().next().map_or(0, |char| u32::from(char) as i32)))
}

pub(crate) fn chr(args: &Args) -> Result<ArrayRef> {
    let column = args.int(0)?;
    written(args, |row, out| {
        let Some(code) = column.get(row) else { return Ok(None) };
        let char = u32::try_from(code).ok().filter(|&code| code != 0).and_then(char::from_u32);
        out.push(char.ok_or_else(|| Error::new("54000", format!("requested character not valid for encoding: {code}")))?);
        Ok(Some(()))
    })
}

pub(crate) fn to_hex(args: &Args) -> Result<ArrayRef> {
    use std::fmt::Write;
    let column = args.int(0)?;
    // Postgres's int4 version shows 32 bits, which only negative numbers tell.
    let narrow = matches!(args.fields[0].data_type(), arrow::datatypes::DataType::Int32 | arrow::datatypes::DataType::Int16);
    written(args, |row, out| {
        let Some(value) = column.get(row) else { return Ok(None) };
        let written = if narrow { write!(out, "{:x}", value as i32) } else { write!(out, "{value:x}") };
        Ok(written.ok())
    })
}

/// An identifier as it must be written: quoted only where it has to be.
pub(crate) fn quote_identifier(name: &str, out: &mut String) {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && !KEYWORDS.contains(&name);
    if plain {
        out.push_str(name);
        return;
    }
    out.push('"');
    for char in name.chars() {
        if char == '"' {
            out.push('"');
        }
        out.push(char);
    }
    out.push('"');
}

/// Postgres's keywords that cannot stand as a column name without quotes.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

pub(crate) fn quote_text(text: &str, out: &mut String) {
    if text.contains('\\') {
        out.push('E');
    }
    out.push('\'');
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            out.push(char);
        }
        out.push(char);
    }
    out.push('\'');
}

pub(crate) fn quote_ident(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| Ok(column.get(row).map(|name| quote_identifier(name, out))))
}

pub(crate) fn quote_literal(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| Ok(column.get(row).map(|text| quote_text(text, out))))
}

pub(crate) fn quote_nullable(args: &Args) -> Result<ArrayRef> {
    let column = args.text(0)?;
    written(args, |row, out| {
        match column.get(row) {
            Some(text) => quote_text(text, out),
            None => out.push_str("NULL"),
        }
        Ok(Some(()))
    })
}

/// `string_to_array(text, delimiter[, null])`; a NULL delimiter splits into characters.
pub(crate) fn string_to_array(args: &Args) -> Result<ArrayRef> {
    let (column, delimiters) = (args.text(0)?, args.text(1)?);
    let nulls = if args.len() > 2 { Some(args.text(2)?) } else { None };
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows() {
        let Some(text) = column.get(row) else {
            builder.append_null();
            continue;
        };
        let null = nulls.as_ref().and_then(|nulls| nulls.get(row));
        let mut push = |item: &str| builder.values().append_option(Some(item).filter(|&item| null != Some(item)));
        match delimiters.get(row) {
            _ if text.is_empty() => {}
            None => text.char_indices().for_each(|(at, char)| push(&text[at..at + char.len_utf8()])),
            Some("") => push(text),
            Some(delimiter) => text.split(delimiter).for_each(push),
        }
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

/// `array_to_string(array, delimiter[, null])`; NULL items are left out without a text for them.
pub(crate) fn array_to_string(args: &Args) -> Result<ArrayRef> {
    let (lists, delimiters) = (args.list(0)?, args.text(1)?);
    let nulls = if args.len() > 2 { Some(args.text(2)?) } else { None };
    written(args, |row, out| {
        let (Some(items), Some(delimiter)) = (lists.get(row), delimiters.get(row)) else { return Ok(None) };
        let null = nulls.as_ref().and_then(|nulls| nulls.get(row));
        let mut first = true;
        let shown = super::show::Shown::new(&items)?;
        for item in 0..items.len() {
            let is_null = items.is_null(item);
            if is_null && null.is_none() {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push_str(delimiter);
            }
            match null {
                Some(null) if is_null => out.push_str(null),
                _ => shown.write(item, out)?,
            }
        }
        Ok(Some(()))
    })
}
