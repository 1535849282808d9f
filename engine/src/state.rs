//! How operators write their state: named sections, each one Arrow record batch.
//!
//! ```text
//!  payload = { name length u16 | name | length u32 | Arrow IPC stream }*      little endian
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;
use catalog::StateKind;

use crate::{Error, Result};

/// Sections under way.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    payload: Vec<u8>,
}

impl Writer {
    /// Adds a section, unless it has no rows.
    pub(crate) fn section(&mut self, name: &str, columns: Vec<ArrayRef>) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        if rows == 0 {
            return Ok(());
        }
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        self.payload.extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.payload.extend_from_slice(name.as_bytes());
        let length_at = self.payload.len();
        self.payload.extend_from_slice(&[0; 4]);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut stream = StreamWriter::try_new_with_options(&mut self.payload, &schema, options)?;
        stream.write(&batch)?;
        stream.finish()?;
        drop(stream);
        let length = u32::try_from(self.payload.len() - length_at - 4)
            .map_err(|_| damaged(format!("state section \"{name}\" is larger than 4 GiB")))?;
        self.payload[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// The payload. A delta of nothing is not worth a word; an image of nothing says that all is gone.
    pub(crate) fn finish(self, kind: StateKind) -> Option<Bytes> {
        (!self.payload.is_empty() || kind == StateKind::Image).then(|| self.payload.into())
    }
}

/// The sections of a payload, in order.
pub(crate) fn read(payload: &[u8]) -> Result<Vec<(String, Vec<ArrayRef>)>> {
    let mut sections = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let name_length = u16::from_le_bytes(split(&mut rest, 2)?.try_into().expect("two bytes"));
        let name = String::from_utf8_lossy(split(&mut rest, usize::from(name_length))?).into_owned();
        let length = u32::from_le_bytes(split(&mut rest, 4)?.try_into().expect("four bytes"));
        for batch in StreamReader::try_new(split(&mut rest, length as usize)?, None)? {
            sections.push((name.clone(), batch?.columns().to_vec()));
        }
    }
    Ok(sections)
}

/// State that cannot be what an operator wrote.
pub(crate) fn damaged(reason: impl Into<String>) -> Error {
    Error::Catalog(catalog::Error::Corrupt { path: "state of a dataflow".into(), reason: reason.into() })
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| damaged("a section is cut short"))?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    #[test]
    fn sections_come_back_as_they_were() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let mut writer = Writer::default();
        writer.section("groups", vec![Arc::clone(&numbers), Arc::clone(&texts)]).expect("writes");
        writer.section("nothing", vec![numbers.slice(0, 0)]).expect("writes");
        writer.section("pairs", vec![texts.slice(1, 1)]).expect("writes");
        let payload = writer.finish(StateKind::Delta).expect("has sections");
        let sections = read(&payload).expect("reads");
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0], ("groups".to_owned(), vec![numbers, Arc::clone(&texts)]));
        assert_eq!(sections[1], ("pairs".to_owned(), vec![texts.slice(1, 1)]));
        assert!(read(&payload[..payload.len() - 1]).is_err());
    }
}
