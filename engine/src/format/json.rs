//! JSON objects to columns, guided by the schema.
//!
//! 1. Records of one stream have the same keys in the same order, nearly always: the keys of the last record are kept with
//!    the column each belongs to, and the next record's key is compared with the one expected there.
//! 2. A value is parsed only when its column is needed, and straight into the column; others are skipped, but checked:
//!    what is not JSON is a bad record whichever fields a query reads.
//! 3. Strings are searched eight bytes at a time for a quote, a backslash or a control character; only those with a
//!    backslash are unescaped.
//!
//! NUL and unpaired surrogates, which Postgres text cannot carry, become U+FFFD. Of a repeated key the last value counts.

use std::borrow::Cow;

use arrow::array::ArrayRef;

use super::column::{Column, Values};
use super::value::{self, EpochUnit};
use super::{BadRecord, DecodedField, Decoder, RECORD_BYTES_MAX, Utf8};
use crate::Result;

/// Containers within containers, at most.
const DEPTH_MAX: u32 = 128;

/// Keys remembered of the last record, at most.
const KEYS_MAX: usize = 256;

pub(super) struct JsonDecoder {
    fields: Vec<DecodedField>,
    columns: Vec<Column>,
    /// For each column the record that last had its field.
    seen: Vec<u64>,
    record: u64,
    rows: usize,
    epoch: EpochUnit,
    expected: Vec<ExpectedKey>,
    scratch: Vec<u8>,
}

struct ExpectedKey {
    /// `"key":` as it stood in the record before.
    text: Vec<u8>,
    column: Option<usize>,
}

impl JsonDecoder {
    pub(super) fn new(fields: Vec<DecodedField>, epoch: EpochUnit) -> Result<Self> {
        let columns = fields.iter().map(|field| Column::new(&field.field)).collect::<Result<Vec<_>>>()?;
        let seen = vec![0; fields.len()];
        Ok(JsonDecoder { fields, columns, seen, record: 0, rows: 0, epoch, expected: Vec::new(), scratch: Vec::new() })
    }

    fn object(&mut self, record: &[u8]) -> Result<(), BadRecord> {
        let mut scanner = Scanner { bytes: record, at: 0 };
        self.record += 1;
        let mut missing = self.columns.len();
        scanner.space();
        if !scanner.take(b'{') {
            return Err(scanner.fault("a JSON object"));
        }
        scanner.space();
        let mut turn = 0;
        if !scanner.take(b'}') {
            loop {
                let column = self.key(&mut scanner, turn)?;
                turn += 1;
                scanner.space();
                match column {
                    Some(column) => {
                        if self.seen[column] == self.record {
                            self.columns[column].truncate(self.rows);
                        } else {
                            self.seen[column] = self.record;
                            missing -= 1;
                        }
                        append_value(&mut self.columns[column], &mut scanner, self.epoch, &mut self.scratch)
                            .map_err(|bad| bad.in_field(&self.fields[column].name))?;
                    }
                    None => scanner.skip_value()?,
                }
                scanner.space();
                if scanner.take(b',') {
                    scanner.space();
                } else if scanner.take(b'}') {
                    break;
                } else {
                    return Err(scanner.fault("\",\" or \"}\""));
                }
            }
        }
        scanner.space();
        if scanner.at < record.len() {
            return Err(scanner.fault("the end of the record"));
        }
        if missing > 0 {
            for (index, column) in self.columns.iter_mut().enumerate() {
                if self.seen[index] != self.record {
                    column.append_null().map_err(|bad| bad.in_field(&self.fields[index].name))?;
                }
            }
        }
        Ok(())
    }

    /// Reads a key and its colon; the column it belongs to.
    fn key(&mut self, scanner: &mut Scanner<'_>, turn: usize) -> Result<Option<usize>, BadRecord> {
        let rest = &scanner.bytes[scanner.at..];
        if let Some(expected) = self.expected.get(turn)
            && rest.starts_with(&expected.text)
        {
            scanner.at += expected.text.len();
            return Ok(expected.column);
        }
        let start = scanner.at;
        if !scanner.take(b'"') {
            return Err(scanner.fault("a key in double quotes"));
        }
        let key = scanner.string()?;
        let text = key.text(&mut self.scratch);
        let column = self.fields.iter().position(|field| field.name.as_bytes() == text);
        scanner.space();
        if !scanner.take(b':') {
            return Err(scanner.fault("\":\""));
        }
        if turn < KEYS_MAX {
            let expected = ExpectedKey { text: scanner.bytes[start..scanner.at].to_vec(), column };
            match self.expected.get_mut(turn) {
                Some(slot) => *slot = expected,
                None => self.expected.push(expected),
            }
        }
        Ok(column)
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, record: &[u8], utf8: Utf8) -> Result<(), BadRecord> {
        check_record(record, utf8)?;
        let decoded = self.object(record);
        match decoded {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        decoded
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns.iter_mut().map(Column::finish).collect()
    }
}

/// What every text format asks of a record: a bounded size and UTF-8.
pub(super) fn check_record(record: &[u8], utf8: Utf8) -> Result<(), BadRecord> {
    if record.len() > RECORD_BYTES_MAX {
        let reason = format!("the record has {} bytes; at most {RECORD_BYTES_MAX} are read", record.len());
        return Err(BadRecord::new("54000", reason));
    }
    if utf8 == Utf8::Unknown
        && let Err(error) = simdutf8::compat::from_utf8(record)
    {
        return Err(BadRecord::new("22021", format!("invalid UTF-8 at byte {}", error.valid_up_to())));
    }
    Ok(())
}

/// Parses the value the scanner stands at into the column.
fn append_value(
    column: &mut Column,
    scanner: &mut Scanner<'_>,
    epoch: EpochUnit,
    scratch: &mut Vec<u8>,
) -> Result<(), BadRecord> {
    match scanner.peek() {
        Some(b'"') => {
            scanner.at += 1;
            let start = scanner.at - 1;
            let string = scanner.string()?;
            match &mut column.values {
                Values::Text(spans) => {
                    match string.escaped {
                        false => spans.data.extend_from_slice(string.raw),
                        true => unescape(string.raw, &mut spans.data),
                    }
                    spans.end()?;
                }
                Values::Json(spans) => {
                    spans.data.extend_from_slice(&sanitize(&scanner.bytes[start..scanner.at]));
                    spans.end()?;
                }
                _ => return column.append_text(string.text(scratch)),
            }
            column.mark_valid();
            Ok(())
        }
        Some(b'-' | b'0'..=b'9') => {
            let number = scanner.number()?;
            match (&mut column.values, number.small) {
                (Values::Int64(values), Some(small)) => values.push(small),
                _ => return column.append_number(number.raw, epoch),
            }
            column.mark_valid();
            Ok(())
        }
        Some(b'n') => {
            scanner.literal(b"null")?;
            column.append_null()
        }
        Some(first @ (b't' | b'f')) => {
            let value = first == b't';
            let literal: &[u8] = if value { b"true" } else { b"false" };
            scanner.literal(literal)?;
            match &mut column.values {
                Values::Bool(values) => values.push(value),
                Values::Text(spans) | Values::Json(spans) => {
                    spans.data.extend_from_slice(literal);
                    spans.end()?;
                }
                _ => return Err(BadRecord::syntax("a truth value where the column has another type")),
            }
            column.mark_valid();
            Ok(())
        }
        Some(b'[') if matches!(column.values, Values::List { .. }) => append_list(column, scanner, epoch, scratch),
        Some(b'{' | b'[') => {
            let start = scanner.at;
            scanner.skip_value()?;
            let raw = &scanner.bytes[start..scanner.at];
            match &mut column.values {
                Values::Json(spans) | Values::Text(spans) => {
                    spans.data.extend_from_slice(&sanitize(raw));
                    spans.end()?;
                }
                _ => return Err(value::invalid("a scalar", raw)),
            }
            column.mark_valid();
            Ok(())
        }
        _ => Err(scanner.fault("a value")),
    }
}

fn append_list(column: &mut Column, scanner: &mut Scanner<'_>, epoch: EpochUnit, scratch: &mut Vec<u8>) -> Result<(), BadRecord> {
    let Values::List { ends, items, .. } = &mut column.values else { return Err(scanner.fault("a list column")) };
    scanner.at += 1;
    scanner.space();
    if !scanner.take(b']') {
        loop {
            scanner.space();
            append_value(items, scanner, epoch, scratch)?;
            scanner.space();
            if scanner.take(b']') {
                break;
            }
            if !scanner.take(b',') {
                return Err(scanner.fault("\",\" or \"]\""));
            }
        }
    }
    ends.push(i32::try_from(items.rows()).map_err(|_| BadRecord::new("54000", "too many list items in one batch"))?);
    column.mark_valid();
    Ok(())
}

/// A place in a JSON text. Every method leaves it behind what it read.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string's content between its quotes.
struct Str<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Str<'a> {
    fn text<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        unescape(self.raw, scratch);
        scratch
    }
}

struct Num<'a> {
    raw: &'a [u8],
    /// The value, when it is a whole number of at most 18 digits.
    small: Option<i64>,
}

impl<'a> Scanner<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn fault(&self, expected: &str) -> BadRecord {
        match self.peek() {
            None => BadRecord::syntax(format!("invalid JSON: the record ends where {expected} should stand")),
            Some(_) => BadRecord::syntax(format!("invalid JSON at byte {}: expected {expected}", self.at)),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), BadRecord> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.fault("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The rest of a string whose opening quote is read.
    #[inline]
    fn string(&mut self) -> Result<Str<'a>, BadRecord> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = special(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Str { raw: &self.bytes[start..self.at - 1], escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    match self.bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                        Some(b'u') if hex4(self.bytes, self.at + 2).is_some() => self.at += 6,
                        _ => return Err(self.fault("an escape sequence")),
                    }
                }
                Some(_) => return Err(self.fault("no control character in a string")),
                None => return Err(self.fault("a closing quote")),
            }
        }
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> Result<Num<'a>, BadRecord> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        let mut magnitude = 0i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            magnitude = magnitude.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || digits > 1 && self.bytes[first] == b'0' {
            self.at = first;
            return Err(self.fault("a number"));
        }
        let mut whole = digits <= 18;
        if self.take(b'.') {
            whole = false;
            if self.digits() == 0 {
                return Err(self.fault("a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            let _ = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(self.fault("a digit"));
            }
        }
        let small = whole.then(|| if negative { -magnitude } else { magnitude });
        Ok(Num { raw: &self.bytes[start..self.at], small })
    }

    /// Reads past one value of any kind, checking that it is JSON.
    fn skip_value(&mut self) -> Result<(), BadRecord> {
        // One bit for each open container, the innermost lowest: set for an object.
        let (mut open, mut depth) = (0u128, 0u32);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return Err(BadRecord::new("54001", format!("JSON nested deeper than {DEPTH_MAX}")));
                    }
                    self.at += 1;
                    self.space();
                    let object = bracket == b'{';
                    open = open << 1 | u128::from(object);
                    depth += 1;
                    if !self.take(if object { b'}' } else { b']' }) {
                        if object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                    open >>= 1;
                    depth -= 1;
                }
                _ => return Err(self.fault("a value")),
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.space();
                let object = open & 1 == 1;
                if self.take(b',') {
                    self.space();
                    if object {
                        self.skip_key()?;
                    }
                    break;
                }
                if !self.take(if object { b'}' } else { b']' }) {
                    return Err(self.fault(if object { "\",\" or \"}\"" } else { "\",\" or \"]\"" }));
                }
                open >>= 1;
                depth -= 1;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), BadRecord> {
        if !self.take(b'"') {
            return Err(self.fault("a key in double quotes"));
        }
        self.string()?;
        self.space();
        if !self.take(b':') {
            return Err(self.fault("\":\""));
        }
        self.space();
        Ok(())
    }
}

/// The first quote, backslash or control character at or behind `from`; the length when there is none.
#[inline]
fn special(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        // The classic test for a zero byte: exact for the lowest byte that it finds, which is the one asked for.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let quote = zero(word ^ (ONES * b'"' as u64));
        let backslash = zero(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | backslash | control) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, byte| Some(value * 16 + (*byte as char).to_digit(16)?))
}

/// The character of the `\u` escape at `at` and its length; U+FFFD for NUL and for an unpaired surrogate.
fn unicode_escape(raw: &[u8], at: usize) -> (char, usize) {
    const REPLACED: char = char::REPLACEMENT_CHARACTER;
    let Some(unit) = hex4(raw, at + 2) else { return (REPLACED, 6) };
    match unit {
        0 => (REPLACED, 6),
        0xd800..=0xdbff => {
            let low = if raw.get(at + 6..at + 8) == Some(b"\\u") { hex4(raw, at + 8) } else { None };
            match low {
                Some(low @ 0xdc00..=0xdfff) => {
                    let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    (char::from_u32(code).unwrap_or(REPLACED), 12)
                }
                _ => (REPLACED, 6),
            }
        }
        _ => (char::from_u32(unit).unwrap_or(REPLACED), 6),
    }
}

/// The text of a string's content, whose escapes have been checked.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + found]);
        at += found;
        let mut length = 2;
        match raw.get(at + 1) {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'u') => {
                let (character, escape) = unicode_escape(raw, at);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                length = escape;
            }
            Some(other) => out.push(*other),
            None => {}
        }
        at = (at + length).min(raw.len());
    }
    out.extend_from_slice(&raw[at..]);
}

/// Valid JSON text in which no string holds NUL or an unpaired surrogate: their escapes become `\ufffd`.
pub fn sanitize(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut cleaned: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = memchr::memchr(b'\\', &raw[at..]) {
        at += found;
        if raw.get(at + 1) != Some(&b'u') {
            at = (at + 2).min(raw.len());
            continue;
        }
        let (character, length) = unicode_escape(raw, at);
        let end = (at + length).min(raw.len());
        if character == char::REPLACEMENT_CHARACTER {
            let out = cleaned.get_or_insert_with(|| Vec::with_capacity(raw.len()));
            out.extend_from_slice(&raw[copied..at]);
            out.extend_from_slice(b"\\ufffd");
            copied = end;
        }
        at = end;
    }
    match cleaned {
        None => Cow::Borrowed(raw),
        Some(mut out) => {
            out.extend_from_slice(&raw[copied..]);
            Cow::Owned(out)
        }
    }
}
