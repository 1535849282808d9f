//! Comma separated values, RFC 4180: quotes around a field, doubled within. As in Postgres an empty field without quotes
//! is null.

use arrow::array::ArrayRef;

use super::column::Column;
use super::json::check_record;
use super::{BadRecord, DecodedField, Decoder, Utf8};
use crate::{Error, Result};

pub(super) struct CsvDecoder {
    fields: Vec<DecodedField>,
    columns: Vec<Column>,
    delimiter: u8,
    /// For each place in a line the column it becomes.
    places: Vec<Option<usize>>,
    rows: usize,
    scratch: Vec<u8>,
}

impl CsvDecoder {
    /// `names` says which field stands where; empty when a heading will.
    pub(super) fn new(fields: Vec<DecodedField>, delimiter: u8, names: Vec<String>) -> Result<Self> {
        let columns = fields.iter().map(|field| Column::new(&field.field)).collect::<Result<Vec<_>>>()?;
        let mut decoder = CsvDecoder { fields, columns, delimiter, places: Vec::new(), rows: 0, scratch: Vec::new() };
        decoder.places = names.iter().map(|name| decoder.column_of(name)).collect();
        Ok(decoder)
    }

    fn column_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    fn line(&mut self, record: &[u8]) -> Result<(), BadRecord> {
        let (mut at, mut place) = (0, 0);
        loop {
            let field = next_field(record, &mut at, self.delimiter, &mut self.scratch)?;
            match self.places.get(place) {
                Some(Some(column)) => {
                    let (name, column) = (&self.fields[*column].name, &mut self.columns[*column]);
                    let appended = match field {
                        Field::Plain([]) => column.append_null(),
                        Field::Plain(text) => column.append_text(text),
                        Field::Quoted => column.append_text(&self.scratch),
                    };
                    appended.map_err(|bad| bad.in_field(name))?;
                }
                Some(None) => {}
                None => {
                    let reason = format!("the line has more than {} fields", self.places.len());
                    return Err(BadRecord::syntax(reason));
                }
            }
            place += 1;
            if at > record.len() {
                break;
            }
        }
        if place < self.places.len() {
            return Err(BadRecord::syntax(format!("the line has {place} fields, {} are expected", self.places.len())));
        }
        for (field, column) in self.fields.iter().zip(&mut self.columns) {
            if column.rows() == self.rows {
                column.append_null().map_err(|bad| bad.in_field(&field.name))?;
            }
        }
        Ok(())
    }
}

enum Field<'a> {
    Plain(&'a [u8]),
    /// Its content is in the scratch buffer.
    Quoted,
}

/// Reads the field at `at` and its delimiter; behind the last one `at` is one beyond the end.
fn next_field<'a>(record: &'a [u8], at: &mut usize, delimiter: u8, scratch: &mut Vec<u8>) -> Result<Field<'a>, BadRecord> {
    if record.get(*at) != Some(&b'"') {
        let rest = &record[*at..];
        let end = memchr::memchr(delimiter, rest).unwrap_or(rest.len());
        *at += end + 1;
        return Ok(Field::Plain(&rest[..end]));
    }
    scratch.clear();
    let mut from = *at + 1;
    loop {
        let Some(quote) = memchr::memchr(b'"', &record[from..]) else {
            return Err(BadRecord::syntax("unterminated CSV quoted field"));
        };
        scratch.extend_from_slice(&record[from..from + quote]);
        from += quote + 1;
        match record.get(from) {
            Some(b'"') => {
                scratch.push(b'"');
                from += 1;
            }
            Some(byte) if *byte != delimiter => return Err(BadRecord::syntax("text behind the closing quote of a CSV field")),
            _ => {
                *at = from + 1;
                return Ok(Field::Quoted);
            }
        }
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, record: &[u8], utf8: Utf8) -> Result<(), BadRecord> {
        check_record(record, utf8)?;
        let decoded = self.line(record);
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

    fn heading(&mut self, line: &[u8]) -> Result<()> {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        let mut names = Vec::new();
        let mut at = 0;
        while at <= line.len() {
            let field = next_field(line, &mut at, self.delimiter, &mut self.scratch).map_err(|bad| Error::Option {
                message: format!("the heading of the file is not CSV: {}", bad.reason),
                hint: None,
            })?;
            let name = match field {
                Field::Plain(text) => text,
                Field::Quoted => &self.scratch,
            };
            names.push(String::from_utf8_lossy(name).trim().to_owned());
        }
        self.places = names.iter().map(|name| self.column_of(name)).collect();
        if !self.fields.is_empty() && self.places.iter().all(Option::is_none) {
            return Err(Error::Option {
                message: format!("no declared column is in the heading of the file: {}", names.join(", ")),
                hint: Some("If the files have no heading, write ENCODE CSV (header = 'false').".into()),
            });
        }
        Ok(())
    }
}
