//! COPY's options, and reading rows out of pieces of text that end anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{Field, Schema};
use catalog::Definition;
use sql::{CopyDirection, Error, Result};

use super::parameters::text_column_as;
use super::settings::boolean;
use crate::pgwire::types::PgType;

/// Rows that are converted at once.
const BATCH_ROWS: usize = 8_192;
/// Bytes of rows one COPY may hold before its commit.
const COPY_BYTES_MAX: usize = 1 << 30;

/// TEXT, CSV or BINARY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// COPY … WITH (…).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    pub(crate) format: CopyFormat,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
    pub(crate) header: bool,
    pub(crate) quote: u8,
    pub(crate) escape: u8,
    /// Columns of CSV that are always quoted; `*` for all.
    pub(crate) force_quote: Vec<String>,
}

impl CopyOptions {
    /// Checks what the statement says.
    pub(crate) fn new(options: &BTreeMap<String, String>, direction: CopyDirection) -> Result<CopyOptions> {
        let format = match options.get("format").map(String::as_str) {
            None | Some("text") => CopyFormat::Text,
            Some("csv") => CopyFormat::Csv,
            Some("binary") if direction == CopyDirection::Out => CopyFormat::Binary,
            Some("binary") => {
                return Err(Error::new("0A000", "COPY FROM in binary format is not supported").hint("Use csv or text."));
            }
            Some(other) => return Err(Error::new("22023", format!("COPY format \"{other}\" not recognized"))),
        };
        let csv = format == CopyFormat::Csv;
        let byte = |name: &str, default: u8| match options.get(name).map(String::as_bytes) {
            None => Ok(default),
            Some([byte]) if !matches!(byte, b'\n' | b'\r' | 0) => Ok(*byte),
            Some(_) => Err(Error::new("0A000", format!("COPY {name} must be a single one-byte character"))),
        };
        let only_csv = |name: &str| match options.contains_key(name) && !csv {
            true => Err(Error::new("0A000", format!("COPY {name} available only in CSV mode"))),
            false => Ok(()),
        };
        ["quote", "escape", "force_quote", "force_null", "force_not_null"].into_iter().try_for_each(only_csv)?;
        let known = ["format", "delimiter", "null", "header", "quote", "escape", "force_quote", "encoding", "freeze"];
        if let Some(name) = options.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::new("0A000", format!("COPY option \"{name}\" is not supported")));
        }
        if let Some(encoding) = options.get("encoding")
            && !matches!(encoding.to_ascii_uppercase().replace('-', "").as_str(), "UTF8" | "UNICODE")
        {
            return Err(
                Error::new("22023", "argument to option \"encoding\" must be a valid encoding name").hint("UTF8 is supported.")
            );
        }
        let header = match options.get("header").map(String::as_str) {
            None => false,
            Some("match") if direction == CopyDirection::In => true,
            Some(value) => boolean(value).ok_or_else(|| Error::new("42601", "header requires a Boolean value or \"match\""))?,
        };
        let quote = byte("quote", b'"')?;
        let delimiter = byte("delimiter", if csv { b',' } else { b'\t' })?;
        if csv && quote == delimiter {
            return Err(Error::new("0A000", "COPY delimiter and quote must be different"));
        }
        if !csv && b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&delimiter) {
            return Err(Error::new("22023", format!("COPY delimiter cannot be \"{}\"", char::from(delimiter))));
        }
        Ok(CopyOptions {
            format,
            delimiter,
            null: options.get("null").cloned().unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() }),
            header,
            quote,
            escape: byte("escape", quote)?,
            force_quote: options.get("force_quote").map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        })
    }
}

/// A COPY … FROM STDIN that is under way.
#[derive(Debug)]
pub(crate) struct CopyIn {
    table: Arc<Definition>,
    columns: Vec<usize>,
    fields: Vec<Arc<Field>>,
    options: CopyOptions,
    time_zone: String,
    /// What came after the last whole line.
    input: Vec<u8>,
    /// How far `input` has been looked through for the end of a line, and whether that place lies within quotes.
    scanned: usize,
    quoted: bool,
    /// Number of the line that is read, from 1.
    line: u64,
    /// `\.` was read: the rest is ignored.
    ended: bool,
    builders: Vec<StringBuilder>,
    /// Line numbers of the rows in `builders`.
    lines: Vec<u64>,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

/// An error with where it stands in the input, as `CONTEXT` of the message.
#[derive(Debug)]
pub(crate) struct CopyError {
    pub(crate) error: Error,
    pub(crate) context: Option<String>,
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        CopyError { error, context: None }
    }
}

impl CopyIn {
    pub(super) fn new(table: Arc<Definition>, names: &[String], options: CopyOptions, time_zone: &str) -> Result<CopyIn> {
        let all = table.schema.fields();
        let number = |name: &String| {
            let missing = || Error::new("42703", format!("column \"{name}\" of relation \"{}\" does not exist", table.name.name));
            all.iter().position(|field| field.name() == name).ok_or_else(missing)
        };
        let columns: Vec<usize> = match names {
            [] => (0..all.len()).collect(),
            names => names.iter().map(number).collect::<Result<_>>()?,
        };
        if let Some((_, twice)) = columns.iter().enumerate().find(|(index, column)| columns[..*index].contains(column)) {
            return Err(Error::new("42701", format!("column \"{}\" specified more than once", all[*twice].name())));
        }
        let fields: Vec<_> = columns.iter().map(|column| Arc::clone(&all[*column])).collect();
        let builders = fields.iter().map(|_| StringBuilder::new()).collect();
        Ok(CopyIn {
            table,
            columns,
            fields,
            options,
            time_zone: time_zone.to_owned(),
            input: Vec::new(),
            scanned: 0,
            quoted: false,
            line: 1,
            ended: false,
            builders,
            lines: Vec::new(),
            batches: Vec::new(),
            bytes: 0,
        })
    }

    /// Number of columns, for `CopyInResponse`.
    pub(crate) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Takes a piece of input, which may end within a line.
    pub(crate) fn push(&mut self, piece: &[u8]) -> std::result::Result<(), CopyError> {
        self.input.extend_from_slice(piece);
        if self.input.len().saturating_add(self.bytes) > COPY_BYTES_MAX {
            return Err(Error::new("53200", format!("COPY holds at most {} MiB before its end", COPY_BYTES_MAX >> 20))
                .hint("Split the input into several COPY statements.")
                .into());
        }
        let mut start = 0;
        while let Some(end) = self.end_of_line() {
            let line = self.input[start..end].to_vec();
            start = end + 1;
            self.scanned = start;
            self.row(&line)?;
        }
        self.input.drain(..start);
        self.scanned -= start;
        Ok(())
    }

    /// The end of input: the rows.
    pub(super) fn finish(mut self) -> Result<(Arc<Definition>, Vec<usize>, Vec<RecordBatch>)> {
        Ok((self.table, self.columns, std::mem::take(&mut self.batches)))
    }

    /// The last line may have no end.
    pub(crate) fn end(&mut self) -> std::result::Result<(), CopyError> {
        if !self.input.is_empty() {
            if self.quoted {
                return Err(self.at_line(Error::new("22P04", "unterminated CSV quoted field")));
            }
            let line = std::mem::take(&mut self.input);
            self.row(&line)?;
        }
        self.convert()
    }

    /// Where the line ends that is looked at; a line of CSV goes on after a line break within quotes.
    fn end_of_line(&mut self) -> Option<usize> {
        let csv = self.options.format == CopyFormat::Csv;
        while let Some(byte) = self.input.get(self.scanned) {
            match *byte {
                b'\n' if !self.quoted => return Some(self.scanned),
                byte if csv && byte == self.options.quote => self.quoted = !self.quoted,
                // An escape that is not the quote itself takes the next byte's meaning away.
                byte if csv && self.quoted && byte == self.options.escape => {
                    if self.scanned + 1 == self.input.len() {
                        return None;
                    }
                    self.scanned += 1;
                }
                _ => {}
            }
            self.scanned += 1;
        }
        None
    }

    fn row(&mut self, line: &[u8]) -> std::result::Result<(), CopyError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let number = self.line;
        let breaks = if self.options.format == CopyFormat::Csv { memchr::memchr_iter(b'\n', line).count() } else { 0 };
        if self.ended {
            return Ok(());
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        if self.options.header && number == 1 {
            self.line += 1 + breaks as u64;
            return Ok(());
        }
        let text = std::str::from_utf8(line)
            .map_err(|_| self.at_line(Error::new("22021", "invalid byte sequence for encoding \"UTF8\"")))?;
        if text.contains('\0') {
            return Err(self.at_line(Error::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00")));
        }
        let values = match self.options.format {
            CopyFormat::Csv => csv_values(text, &self.options),
            _ => text_values(text, &self.options),
        };
        let values = values.map_err(|error| self.at_line(error))?;
        if values.len() < self.fields.len() && !(values.len() == 1 && self.fields.is_empty()) {
            let missing = self.fields.get(values.len()).map(|field| field.name().clone()).unwrap_or_default();
            return Err(self.at_line(Error::new("22P04", format!("missing data for column \"{missing}\""))));
        }
        if values.len() > self.fields.len() && !self.fields.is_empty() {
            return Err(self.at_line(Error::new("22P04", "extra data after last expected column")));
        }
        for (builder, value) in self.builders.iter_mut().zip(&values) {
            builder.append_option(value.as_deref());
        }
        self.lines.push(number);
        self.line += 1 + breaks as u64;
        if self.lines.len() >= BATCH_ROWS { self.convert() } else { Ok(()) }
    }

    /// Makes a batch of the rows read so far.
    fn convert(&mut self) -> std::result::Result<(), CopyError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.lines);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.fields.len());
        for (builder, field) in self.builders.iter_mut().zip(&self.fields) {
            let texts: StringArray = builder.finish();
            let array = text_column_as(PgType::of(field), field.data_type(), &texts, &self.time_zone).map_err(|refused| {
                let line = lines.get(refused.row).copied().unwrap_or(0);
                let value = if refused.row < texts.len() { texts.value(refused.row) } else { "" };
                let context =
                    format!("COPY {}, line {line}, column {}: \"{}\"", self.table.name.name, field.name(), shortened(value));
                CopyError { error: refused.error, context: Some(context) }
            })?;
            arrays.push(array);
        }
        // Whether a column may be NULL is for the table to say, with its own words.
        let fields: Vec<_> = self.fields.iter().map(|field| Field::clone(field).with_nullable(true)).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(lines.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| Error::new("XX000", error.to_string()))?;
        self.bytes = self.bytes.saturating_add(batch.get_array_memory_size());
        self.batches.push(batch);
        Ok(())
    }

    fn at_line(&self, error: Error) -> CopyError {
        CopyError { error, context: Some(format!("COPY {}, line {}", self.table.name.name, self.line)) }
    }
}

fn shortened(value: &str) -> String {
    match value.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// Fields of a line of the text format.
fn text_values(line: &str, options: &CopyOptions) -> Result<Vec<Option<String>>> {
    let mut values = Vec::new();
    let bytes = line.as_bytes();
    let mut start = 0;
    let mut index = 0;
    loop {
        match bytes.get(index) {
            Some(b'\\') => index += 2,
            Some(byte) if *byte != options.delimiter => index += 1,
            end => {
                let raw = &line[start..index.min(line.len())];
                values.push(if raw == options.null { None } else { Some(unescaped(raw)?) });
                if end.is_none() {
                    return Ok(values);
                }
                index += 1;
                start = index;
            }
        }
    }
}

/// A field of the text format without its backslashes.
fn unescaped(raw: &str) -> Result<String> {
    if !raw.contains('\\') {
        return Ok(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            None => bytes.push(b'\\'),
            Some(b'b') => bytes.push(8),
            Some(b'f') => bytes.push(12),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'v') => bytes.push(11),
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(digit) = rest.next_if(|digit| matches!(digit, b'0'..=b'7')) {
                        value = value * 8 + u32::from(digit - b'0');
                    }
                }
                bytes.push(value.to_le_bytes()[0]);
            }
            Some(b'x') if rest.peek().is_some_and(u8::is_ascii_hexdigit) => {
                let mut value = 0;
                for _ in 0..2 {
                    if let Some(digit) = rest.next_if(u8::is_ascii_hexdigit) {
                        value = value * 16 + char::from(digit).to_digit(16).unwrap_or(0);
                    }
                }
                bytes.push(value.to_le_bytes()[0]);
            }
            Some(other) => bytes.push(other),
        }
    }
    let wrong = || Error::new("22021", "invalid byte sequence for encoding \"UTF8\"");
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(wrong)
}

/// Fields of a line of CSV. A quoted field is never NULL.
fn csv_values(line: &str, options: &CopyOptions) -> Result<Vec<Option<String>>> {
    let mut values = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        let mut field = Vec::new();
        let mut was_quoted = false;
        let mut quoted = false;
        let mut ended = true;
        while let Some(byte) = bytes.next() {
            if quoted {
                if byte == options.escape && bytes.peek().is_some_and(|next| *next == options.quote || *next == options.escape) {
                    field.extend(bytes.next());
                } else if byte == options.quote {
                    quoted = false;
                } else {
                    field.push(byte);
                }
            } else if byte == options.quote {
                (quoted, was_quoted) = (true, true);
            } else if byte == options.delimiter {
                ended = false;
                break;
            } else {
                field.push(byte);
            }
        }
        if quoted {
            return Err(Error::new("22P04", "unterminated CSV quoted field"));
        }
        let text = String::from_utf8(field).map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
        values.push(if !was_quoted && text == options.null { None } else { Some(text) });
        if ended {
            return Ok(values);
        }
    }
}
