//! Formats: bytes of records become Arrow columns, of the needed fields only.
//!
//! A [`Decoder`] is fed one record after another and keeps whole columns; a record that does not parse leaves no trace
//! in them and comes back as a [`BadRecord`], so that its neighbours are not lost. No object is made for a record.

pub(crate) mod column;
mod csv;
mod json;
mod text;
mod value;

#[cfg(test)]
mod tests;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};

pub use json::sanitize as sanitize_json;
pub use value::EpochUnit;

use crate::plan::ConnectorSpec;
use crate::source::options::{Options, choice};
use crate::{Error, Result};

/// A longer record is set aside whole.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// Of a record that is set aside, at most so many bytes are kept.
pub const BAD_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Why one record was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Five letters: 22P02 (syntax), 22003 (range), 22007 and 22008 (time), 22021 (bytes), 23502 (missing), 54000 (size).
    pub sqlstate: &'static str,
    /// In words, naming the field.
    pub reason: String,
}

impl BadRecord {
    pub(crate) fn new(sqlstate: &'static str, reason: impl Into<String>) -> Self {
        BadRecord { sqlstate, reason: reason.into() }
    }

    pub(crate) fn syntax(reason: impl Into<String>) -> Self {
        BadRecord::new("22P02", reason)
    }

    /// The same, saying in which field.
    fn in_field(mut self, name: &str) -> Self {
        self.reason = format!("field \"{name}\": {}", self.reason);
        self
    }
}

/// Whether a record's bytes are known to be UTF-8. A whole block is checked faster than its records one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Utf8 {
    /// They are.
    Checked,
    /// To be checked by the decoder.
    Unknown,
}

impl Utf8 {
    /// Checks a block that holds whole records.
    pub fn of_block(block: &[u8]) -> Utf8 {
        if simdutf8::basic::from_utf8(block).is_ok() { Utf8::Checked } else { Utf8::Unknown }
    }
}

/// Turns records into columns.
pub trait Decoder: Send {
    /// Adds a row, or nothing when the record is bad.
    fn decode(&mut self, record: &[u8], utf8: Utf8) -> Result<(), BadRecord>;

    /// Rows since the last [`Decoder::finish`].
    fn rows(&self) -> usize;

    /// The columns, in the order of the fields the decoder was made for; starts anew.
    fn finish(&mut self) -> Result<Vec<ArrayRef>>;

    /// The first line of a file when the format has a heading; says which field is where.
    fn heading(&mut self, line: &[u8]) -> Result<()> {
        let _ = line;
        Ok(())
    }
}

/// How records stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One in a line.
    Lines,
    /// One in a line, but a line feed within double quotes does not end it.
    QuotedLines,
    /// The format has its own structure and no byte stream of records.
    Columnar,
}

/// A field the decoder looks for: its name in the record and the column it becomes.
#[derive(Debug, Clone)]
pub struct DecodedField {
    /// Name in the record.
    pub name: String,
    /// The column.
    pub field: FieldRef,
}

/// What `ENCODE … (…)` says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoding {
    /// One JSON object per record.
    Json {
        /// What a bare number means in a timestamp column.
        epoch: EpochUnit,
    },
    /// Comma separated values.
    Csv {
        /// Between fields.
        delimiter: u8,
        /// The first line of each file names the fields.
        heading: bool,
    },
    /// Parquet files.
    Parquet,
    /// The record is one text.
    Text,
    /// The record is one byte string.
    Bytes,
}

impl Encoding {
    /// Reads the format part of a definition.
    /// # Errors
    /// [`Error::Option`] for unknown names and values.
    pub fn of(spec: &ConnectorSpec) -> Result<Encoding> {
        choice("FORMAT", &spec.format, &["PLAIN"])?;
        choice("ENCODE", &spec.encode, &["JSON", "CSV", "PARQUET", "TEXT", "BYTES"])?;
        let what = format!("ENCODE {}", spec.encode);
        let known: &[&str] = match spec.encode.as_str() {
            "JSON" => &["timestamp.unit"],
            "CSV" => &["header", "delimiter"],
            _ => &[],
        };
        let options = Options::new(&what, &spec.encode_options);
        options.check_known(known, &[])?;
        Ok(match spec.encode.as_str() {
            "JSON" => Encoding::Json {
                epoch: match options.choice("timestamp.unit", &["ms", "s", "us"])? {
                    "s" => EpochUnit::Second,
                    "us" => EpochUnit::Microsecond,
                    _ => EpochUnit::Millisecond,
                },
            },
            "CSV" => {
                let delimiter = match options.text("delimiter").unwrap_or(",") {
                    "\\t" | "tab" => b'\t',
                    one if one.len() == 1 && !matches!(one.as_bytes()[0], b'"' | b'\n' | b'\r') => one.as_bytes()[0],
                    other => {
                        return Err(Error::Option {
                            message: format!("invalid value for option \"delimiter\": \"{other}\""),
                            hint: Some("The delimiter is one byte, such as ',' or ';' or 'tab'.".into()),
                        });
                    }
                };
                Encoding::Csv { delimiter, heading: options.boolean("header", true)? }
            }
            "PARQUET" => Encoding::Parquet,
            "TEXT" => Encoding::Text,
            _ => Encoding::Bytes,
        })
    }

    /// How records of this encoding stand in a file.
    pub fn framing(&self) -> Framing {
        match self {
            Encoding::Csv { .. } => Framing::QuotedLines,
            Encoding::Parquet => Framing::Columnar,
            Encoding::Json { .. } | Encoding::Text | Encoding::Bytes => Framing::Lines,
        }
    }

    /// Whether the first line of a file is a heading.
    pub fn has_heading(&self) -> bool {
        matches!(self, Encoding::Csv { heading: true, .. })
    }

    /// A decoder for the fields. `declared` are the names of all fields in order, for formats that know them by place.
    /// # Errors
    /// [`Error::Unsupported`] for a column type the format cannot fill.
    pub fn decoder(&self, fields: Vec<DecodedField>, declared: &[String]) -> Result<Box<dyn Decoder>> {
        for field in &fields {
            check_type(&field.name, field.field.data_type())?;
        }
        Ok(match self {
            Encoding::Json { epoch } => Box::new(json::JsonDecoder::new(fields, *epoch)?),
            Encoding::Csv { delimiter, heading } => {
                let places = if *heading { Vec::new() } else { declared.to_vec() };
                Box::new(csv::CsvDecoder::new(fields, *delimiter, places)?)
            }
            Encoding::Text | Encoding::Bytes => Box::new(text::TextDecoder::new(fields)?),
            Encoding::Parquet => {
                return Err(Error::Option {
                    message: "ENCODE PARQUET is for files only".into(),
                    hint: Some("Use connector = 'files', or ENCODE JSON, CSV, TEXT or BYTES.".into()),
                });
            }
        })
    }
}

/// Types that records can be decoded into.
fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Date32
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(TimeUnit::Microsecond, _)
        | DataType::Utf8
        | DataType::Binary => Ok(()),
        DataType::List(item) if !matches!(item.data_type(), DataType::List(_)) => check_type(name, item.data_type()),
        other => Err(Error::Unsupported {
            message: format!("column \"{name}\" has type {other}, which a record cannot be decoded into"),
            hint: Some("Declare a nested field as JSONB and take it apart in the query.".into()),
        }),
    }
}

/// Microseconds since 1970 UTC of an RFC 3339 time.
/// # Errors
/// 22007 and 22008.
pub fn parse_timestamp(text: &[u8]) -> Result<i64, BadRecord> {
    value::timestamp(text)
}

/// At most [`BAD_PAYLOAD_BYTES_MAX`] bytes of a bad record, for the error table.
pub fn bad_payload(record: &[u8]) -> Vec<u8> {
    record[..record.len().min(BAD_PAYLOAD_BYTES_MAX)].to_vec()
}

/// The end of the next record in `bytes` (after its line feed), looking from `from`.
pub fn record_end(framing: Framing, bytes: &[u8], from: usize) -> Option<usize> {
    match framing {
        Framing::QuotedLines => {
            let mut quoted = false;
            let mut at = from;
            while let Some(found) = memchr::memchr2(b'"', b'\n', &bytes[at..]) {
                at += found + 1;
                if bytes[at - 1] == b'"' {
                    quoted = !quoted;
                } else if !quoted {
                    return Some(at);
                }
            }
            None
        }
        Framing::Lines | Framing::Columnar => memchr::memchr(b'\n', &bytes[from..]).map(|found| from + found + 1),
    }
}
