//! Rows in a log object: an Arrow IPC stream, lz4, the kinds as a last column when there are any.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int8Type, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::{Buf, Bytes};

use super::RowsSection;
use crate::{Changes, Error, ObjectId, Result};

/// Name of the column with the kinds; it is found by its place, the name is for people.
const KINDS: &str = "_kind";

/// Writes the rows of one table.
pub(crate) fn encode(table: ObjectId, changes: &Changes) -> Result<RowsSection> {
    let batch = match &changes.kinds {
        None => changes.rows.clone(),
        Some(kinds) => {
            let schema = changes.rows.schema();
            let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(KINDS, DataType::Int8, false)));
            let mut columns = changes.rows.columns().to_vec();
            columns.push(Arc::new(kinds.clone()) as ArrayRef);
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?
        }
    };
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options)?;
    writer.write(&batch)?;
    let ipc = Bytes::from(writer.into_inner()?);
    Ok(RowsSection { table, kinds: changes.kinds.is_some(), rows: changes.len() as u64, ipc })
}

/// Reads the rows of one section of the object at `path`.
pub(crate) fn decode(path: &str, section: &RowsSection) -> Result<Vec<Changes>> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    let failed = |error: arrow::error::ArrowError| corrupt(format!("rows of table {}: {error}", section.table.0));
    let mut all = Vec::new();
    for batch in StreamReader::try_new(section.ipc.clone().reader(), None).map_err(failed)? {
        let batch = batch.map_err(failed)?;
        if !section.kinds {
            all.push(Changes::append(batch));
            continue;
        }
        let data = batch.num_columns().checked_sub(1).ok_or_else(|| corrupt("rows without a column of kinds".to_owned()))?;
        let kinds = batch
            .column(data)
            .as_primitive_opt::<Int8Type>()
            .filter(|kinds| kinds.null_count() == 0)
            .ok_or_else(|| corrupt("the column of kinds is not one".to_owned()))?
            .clone();
        let rows = batch.project(&(0..data).collect::<Vec<_>>()).map_err(failed)?;
        all.push(Changes { rows, kinds: Some(kinds) });
    }
    Ok(all)
}
