//! A Parquet file: needed columns by name, cast to what is declared.

use std::fs::File;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use ::parquet::errors::ParquetError;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use catalog::ErrorRecord;
use serde_json::json;

use super::store::FileStore;
use super::{Step, number_at};
use crate::format::BadRecord;
use crate::plan::{ColumnOrigin, SourceColumn, SourceNode};
use crate::source::Offset;
use crate::source::rows::{BATCH_ROWS_MAX, decode_error};
use crate::{Error, Result};

pub(super) struct ParquetSplit {
    path: String,
    row: u64,
    rows_total: u64,
    reader: Option<ParquetRecordBatchReader>,
    done: bool,
}

/// A local file is read in place, an object is fetched whole.
fn open_file(
    store: &FileStore,
    path: &str,
    node: Option<&SourceNode>,
    row: u64,
) -> Result<(ParquetRecordBatchReader, SchemaRef, u64)> {
    let broken = |error: ParquetError| Error::Unreachable { message: format!("could not read {path}: {error}"), hint: None };
    match store.open_file(path)? {
        super::store::Handle::Local(file) => build::<File>(file, node, row).map_err(broken),
        super::store::Handle::Remote(_) => build(store.fetch(path)?, node, row).map_err(broken),
    }
}

fn build<R: ::parquet::file::reader::ChunkReader + 'static>(
    input: R,
    node: Option<&SourceNode>,
    row: u64,
) -> std::result::Result<(ParquetRecordBatchReader, SchemaRef, u64), ParquetError> {
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(input)?.with_batch_size(BATCH_ROWS_MAX);
    let metadata = Arc::clone(builder.metadata());
    let schema = Arc::clone(builder.schema());
    // Row groups before the offset are not opened at all.
    let (mut first_group, mut before) = (0, 0u64);
    for group in metadata.row_groups() {
        if before + group.num_rows() as u64 > row {
            break;
        }
        before += group.num_rows() as u64;
        first_group += 1;
    }
    builder =
        builder.with_row_groups((first_group..metadata.num_row_groups()).collect()).with_offset((row - before.min(row)) as usize);
    if let Some(node) = node {
        let needed = node.projection.iter().filter_map(|index| match &node.columns[*index].origin {
            ColumnOrigin::Field(name) => schema.index_of(name).ok(),
            _ => None,
        });
        let mask = ProjectionMask::roots(builder.parquet_schema(), needed.collect::<Vec<_>>());
        builder = builder.with_projection(mask);
    }
    let total = metadata.file_metadata().num_rows().max(0) as u64;
    Ok((builder.build()?, schema, total))
}

/// The file's columns as types that tables hold.
pub(super) fn columns(store: &FileStore, path: &str) -> Result<Vec<SourceColumn>> {
    let (_, schema, _) = open_file(store, path, None, 0)?;
    let columns = schema.fields().iter().map(|field| {
        let data_type = table_type(field.data_type());
        let own = Field::new(field.name(), data_type, true);
        SourceColumn { field: Arc::new(own), origin: ColumnOrigin::Field(field.name().clone()) }
    });
    Ok(columns.collect())
}

/// The nearest type of ours.
fn table_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => DataType::Int16,
        DataType::UInt16 | DataType::Int32 => DataType::Int32,
        DataType::UInt32 | DataType::Int64 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Dictionary(_, value) => table_type(value),
        other => other.clone(),
    }
}

impl ParquetSplit {
    pub(super) fn open(path: &str, offset: Option<&Offset>) -> Result<Self> {
        Ok(ParquetSplit { path: path.to_owned(), row: number_at(offset, "row", path)?, rows_total: 0, reader: None, done: false })
    }

    pub(super) fn step(&mut self, node: &SourceNode, store: &FileStore, watch: bool) -> Result<Step> {
        if self.done {
            return Ok(Step::End);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let (reader, _, total) = match open_file(store, &self.path, Some(node), self.row) {
                    Ok(opened) => opened,
                    // A watched file may still be in the making: its footer comes last.
                    Err(_) if watch => return Ok(Step::End),
                    Err(error) => return Err(error),
                };
                if total < self.row {
                    let message = format!("{} has {total} rows, it was read up to row {}", self.path, self.row);
                    return Err(Error::OffsetLost { message });
                }
                self.rows_total = total;
                self.reader.insert(reader)
            }
        };
        let Some(batch) = reader.next() else {
            self.done = true;
            self.reader = None;
            return Ok(Step::End);
        };
        let batch = batch
            .map_err(|error| Error::Unreachable { message: format!("could not read {}: {error}", self.path), hint: None })?;
        let (rows, errors) = declared(node, &self.path, self.row, &batch)?;
        self.row += batch.num_rows() as u64;
        let mut offset = json!({ "row": self.row });
        if self.row == self.rows_total {
            offset["end"] = json!(true);
        }
        Ok(Step::Rows { rows, errors, bytes: batch.get_array_memory_size() as u64, offset })
    }

    /// Whether a watched file that could not be opened yet may be tried again.
    pub(super) fn is_unread(&self) -> bool {
        !self.done && self.reader.is_none()
    }
}

/// The batch in the node's schema; rows with a value that does not fit its column are set aside.
fn declared(node: &SourceNode, path: &str, first_row: u64, batch: &RecordBatch) -> Result<(RecordBatch, Vec<ErrorRecord>)> {
    let rows = batch.num_rows();
    let mut bad: Vec<Option<BadRecord>> = vec![None; rows];
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(node.projection.len());
    for column in node.projection.iter().map(|index| &node.columns[*index]) {
        let wanted = column.field.data_type();
        let array: ArrayRef = match &column.origin {
            ColumnOrigin::Field(name) => match batch.column_by_name(name) {
                Some(array) => {
                    let cast = cast_with_options(array, wanted, &CastOptions { safe: true, ..CastOptions::default() })?;
                    if cast.null_count() > array.logical_null_count() {
                        for (_, bad) in bad.iter_mut().enumerate().filter(|(row, _)| cast.is_null(*row) && array.is_valid(*row)) {
                            *bad =
                                Some(BadRecord::new("22003", format!("field \"{name}\": the value does not fit type {wanted}")));
                        }
                    }
                    cast
                }
                None => new_null_array(wanted, rows),
            },
            ColumnOrigin::Metadata(name) if name == "path" => Arc::new(StringArray::from(vec![path; rows])),
            ColumnOrigin::Metadata(_) | ColumnOrigin::Header(_) => new_null_array(wanted, rows),
        };
        if !column.field.is_nullable() && array.null_count() > 0 {
            for (_, bad) in bad.iter_mut().enumerate().filter(|(row, bad)| array.is_null(*row) && bad.is_none()) {
                let reason = format!("field \"{}\": null or missing, and the column is NOT NULL", column.field.name());
                *bad = Some(BadRecord::new("23502", reason));
            }
        }
        columns.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    if bad.iter().all(Option::is_none) {
        return Ok((RecordBatch::try_new_with_options(Arc::clone(&node.schema), columns, &options)?, Vec::new()));
    }
    let keep = BooleanArray::from(bad.iter().map(Option::is_none).collect::<Vec<_>>());
    // Nulls that are about to go would be refused by the schema, so the rows are filtered under a nullable one.
    let loose: Vec<Field> = node.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let loose = RecordBatch::try_new_with_options(Arc::new(arrow::datatypes::Schema::new(loose)), columns, &options)?;
    let kept = filter_record_batch(&loose, &keep)?;
    let options = RecordBatchOptions::new().with_row_count(Some(keep.true_count()));
    let kept = RecordBatch::try_new_with_options(Arc::clone(&node.schema), kept.columns().to_vec(), &options)?;
    let errors = bad.into_iter().enumerate().filter_map(|(row, bad)| {
        let row_number = first_row + row as u64;
        bad.map(|bad| decode_error(&node.name, path, row_number.to_string(), bad, row_json(batch, row).as_bytes()))
    });
    Ok((kept, errors.collect()))
}

/// The row as JSON: Parquet has no bytes of a record to keep.
fn row_json(batch: &RecordBatch, row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default();
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let text =
            arrow::util::display::ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string());
        (field.name().clone(), serde_json::Value::String(text.unwrap_or_default()))
    });
    serde_json::Value::Object(fields.collect()).to_string()
}
