//! Records that are one value: TEXT and BYTES.

use arrow::array::ArrayRef;

use super::column::{Column, Values, push_clean_text};
use super::json::check_record;
use super::{BadRecord, DecodedField, Decoder, Utf8};
use crate::{Error, Result};

/// The whole record is the value of the one column.
pub(super) struct TextDecoder {
    column: Option<(String, Column)>,
    rows: usize,
}

impl TextDecoder {
    pub(super) fn new(mut fields: Vec<DecodedField>) -> Result<Self> {
        if fields.len() > 1 {
            return Err(Error::Option {
                message: format!("ENCODE TEXT and BYTES have one column, {} are declared", fields.len()),
                hint: Some("Keep one TEXT or BYTEA column, or use ENCODE CSV or JSON.".into()),
            });
        }
        let column = match fields.pop() {
            Some(field) => Some((field.name, Column::new(&field.field)?)),
            None => None,
        };
        Ok(TextDecoder { column, rows: 0 })
    }
}

fn append(column: &mut Column, record: &[u8], utf8: Utf8) -> Result<(), BadRecord> {
    if let Values::Bytes(spans) = &mut column.values {
        spans.data.extend_from_slice(record);
        spans.end()?;
        column.mark_valid();
        return Ok(());
    }
    check_record(record, utf8)?;
    if let Values::Text(spans) = &mut column.values {
        push_clean_text(record, &mut spans.data);
        spans.end()?;
        column.mark_valid();
        return Ok(());
    }
    column.append_text(record)
}

impl Decoder for TextDecoder {
    fn decode(&mut self, record: &[u8], utf8: Utf8) -> Result<(), BadRecord> {
        if let Some((name, column)) = &mut self.column {
            let appended = append(column, record, utf8);
            if let Err(bad) = appended {
                column.truncate(self.rows);
                return Err(bad.in_field(name));
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.column.iter_mut().map(|(_, column)| column.finish()).collect()
    }
}
