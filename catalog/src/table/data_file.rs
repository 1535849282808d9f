//! Parquet files: writing rows, reading them back for a compaction.
//!
//! What is written stays inside what every Paimon reader understands: data page v1, no DELTA encodings, zstd,
//! timestamps in the unit that the schema declares. Bounds for the manifest come from the writer's own statistics.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::binary_row::Slot;
use super::schema::{ROW_DELETE, ROW_UPDATE_BEFORE};
use super::{BinaryRow, ColumnStats, DataFile, FileOrigin, TableSchema, corrupt};
use crate::{Error, Result, Storage};

/// A file is closed when it has grown to about this.
pub(crate) const FILE_BYTES_TARGET: u64 = 128 << 20;
/// Rows that are encoded together; what a reader can skip or give to another thread.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// An upload goes in parts of this size.
const UPLOAD_PART_BYTES: usize = 8 << 20;
/// Rows looked at to tell whether a dictionary pays.
const DICTIONARY_SAMPLE_ROWS: usize = 2048;

/// Writes rows to as many files as their size needs. Runs on a blocking thread and waits for the store there.
pub(crate) struct FileWriter<'a> {
    storage: &'a Storage,
    schema: &'a TableSchema,
    file_schema: SchemaRef,
    runtime: Handle,
    level: i32,
    origin: FileOrigin,
    now_us: i64,
    bytes_target: u64,
    /// Part of all names this writer gives: a job that is run again never overwrites a file.
    unique: Uuid,
    open: Option<OpenFile>,
    finished: Vec<DataFile>,
}

struct OpenFile {
    name: String,
    path: Path,
    arrow: ArrowWriter<Vec<u8>>,
    upload: BufWriter,
    uploaded: u64,
    checksum: crc32fast::Hasher,
    rows: u64,
    delete_rows: u64,
    sequence: Option<(i64, i64)>,
    min_key: BinaryRow,
    max_key: BinaryRow,
}

impl<'a> FileWriter<'a> {
    /// A writer of files for `level`. Must be made on a thread of a runtime.
    pub(crate) fn new(
        storage: &'a Storage,
        schema: &'a TableSchema,
        level: i32,
        origin: FileOrigin,
        now_us: i64,
    ) -> FileWriter<'a> {
        FileWriter {
            storage,
            schema,
            file_schema: schema.file_schema(),
            runtime: Handle::current(),
            level,
            origin,
            now_us,
            bytes_target: FILE_BYTES_TARGET,
            unique: Uuid::new_v4(),
            open: None,
            finished: Vec::new(),
        }
    }

    /// Adds rows: the columns of [`TableSchema::file_schema`]; with a key in its order and each key once over all calls.
    pub(crate) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let Some(rows) = columns.first().map(|column| column.len()).filter(|rows| *rows > 0) else { return Ok(()) };
        let columns = columns.into_iter().zip(self.file_schema.fields());
        let columns =
            columns.map(
                |(column, field)| {
                    if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
                },
            );
        let batch = RecordBatch::try_new(self.file_schema.clone(), columns.collect::<Result<_, _>>()?)?;
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                let name = format!("data-{}-{}.parquet", self.unique, self.finished.len());
                none.insert(OpenFile::create(self.storage, self.schema, name, &batch)?)
            }
        };
        file.arrow.write(&batch)?;
        file.rows += rows as u64;
        let keys = self.schema.key.len();
        if keys > 0 {
            if file.min_key == BinaryRow::default() {
                file.min_key = key_row(&batch.columns()[..keys], 0)?;
            }
            file.max_key = key_row(&batch.columns()[..keys], rows - 1)?;
            let sequence = batch.column(keys).as_primitive::<Int64Type>();
            let low = arrow::compute::min(sequence).unwrap_or(0);
            let high = arrow::compute::max(sequence).unwrap_or(0);
            file.sequence = Some(file.sequence.map_or((low, high), |(min, max)| (min.min(low), max.max(high))));
            let kinds = batch.column(keys + 1).as_primitive::<Int8Type>();
            file.delete_rows +=
                kinds.values().iter().filter(|kind| **kind == ROW_UPDATE_BEFORE || **kind == ROW_DELETE).count() as u64;
        }
        self.runtime.block_on(file.upload_encoded())?;
        if file.uploaded + file.arrow.in_progress_size() as u64 >= self.bytes_target {
            self.close_file()?;
        }
        Ok(())
    }

    /// Completes the last file. All files are durable when this returns.
    pub(crate) fn finish(mut self) -> Result<Vec<DataFile>> {
        self.close_file()?;
        Ok(self.finished)
    }

    fn close_file(&mut self) -> Result<()> {
        let Some(mut file) = self.open.take() else { return Ok(()) };
        let metadata = file.arrow.finish()?;
        self.runtime.block_on(async {
            file.upload_encoded().await?;
            file.upload.shutdown().await.map_err(|error| upload_error(&file.path, error))
        })?;
        let (min_sequence, max_sequence) = file.sequence.unwrap_or((0, file.rows as i64 - 1));
        self.finished.push(DataFile {
            name: file.name,
            size: file.uploaded,
            rows: file.rows,
            level: self.level,
            min_key: file.min_key,
            max_key: file.max_key,
            min_sequence,
            max_sequence,
            delete_rows: file.delete_rows,
            schema_id: 0,
            creation_us: self.now_us,
            origin: self.origin,
            stats: column_stats(self.schema, &metadata),
            checksum: Some(file.checksum.finalize()),
        });
        Ok(())
    }
}

impl OpenFile {
    fn create(storage: &Storage, schema: &TableSchema, name: String, first: &RecordBatch) -> Result<OpenFile> {
        let path = schema.data_file(&name);
        let arrow = ArrowWriter::try_new(Vec::new(), first.schema(), Some(writer_properties(schema, first)))?;
        let upload = BufWriter::with_capacity(storage.store.clone(), path.clone(), UPLOAD_PART_BYTES).with_max_concurrency(2);
        Ok(OpenFile {
            name,
            path,
            arrow,
            upload,
            uploaded: 0,
            checksum: crc32fast::Hasher::new(),
            rows: 0,
            delete_rows: 0,
            sequence: None,
            min_key: BinaryRow::default(),
            max_key: BinaryRow::default(),
        })
    }

    /// Hands over what the encoder has finished, so that no more than a row group stays in memory.
    async fn upload_encoded(&mut self) -> Result<()> {
        let encoded = std::mem::take(self.arrow.inner_mut());
        if !encoded.is_empty() {
            self.uploaded += encoded.len() as u64;
            self.checksum.update(&encoded);
            self.upload.put(encoded.into()).await.map_err(|source| Error::Store {
                action: "write",
                path: self.path.to_string(),
                source,
            })?;
        }
        Ok(())
    }
}

fn writer_properties(schema: &TableSchema, first: &RecordBatch) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_coerce_types(true)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_dictionary_enabled(true);
    for (column, field) in first.columns().iter().zip(first.schema().fields()) {
        let path = ColumnPath::from(field.name().as_str());
        if !field.data_type().is_nested() && !dictionary_pays(column) {
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    for field in schema.key_fields() {
        // Files are sorted by key: bounds of pages let a look-up read one page.
        properties = properties.set_column_statistics_enabled(ColumnPath::from(field.name().as_str()), EnabledStatistics::Page);
    }
    properties.build()
}

/// Whether few distinct values stand in a sample. A dictionary makes such columns small and, because zstd then has less to do,
/// fast; on all others its hash table costs more than the rest of the encoding.
fn dictionary_pays(column: &ArrayRef) -> bool {
    if matches!(column.data_type(), DataType::Boolean) {
        return false;
    }
    let sample = column.slice(0, column.len().min(DICTIONARY_SAMPLE_ROWS));
    let encoded = RowConverter::new(vec![SortField::new(sample.data_type().clone())])
        .and_then(|converter| converter.convert_columns(&[sample]));
    let Ok(encoded) = encoded else { return true };
    let distinct: std::collections::HashSet<_> = encoded.iter().map(|row| row.data()).collect();
    distinct.len() * 4 <= encoded.num_rows() || distinct.len() <= 1
}

fn upload_error(path: &Path, error: std::io::Error) -> Error {
    let source = object_store::Error::Generic { store: "upload", source: Box::new(error) };
    Error::Store { action: "write", path: path.to_string(), source }
}

/// Rows of a data file according to its footer.
pub(crate) async fn row_count(storage: &Storage, schema: &TableSchema, file: &DataFile) -> Result<u64> {
    Ok(open(storage, schema, file).await?.metadata().file_metadata().num_rows() as u64)
}

/// The batches of a data file, in the columns of [`TableSchema::file_schema`].
pub(crate) async fn read(
    storage: &Storage,
    schema: &TableSchema,
    file: &DataFile,
    batch_rows: usize,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let stream = open(storage, schema, file).await?.with_batch_size(batch_rows).build()?;
    Ok(stream.map(|batch| Ok(batch?)).boxed())
}

async fn open(storage: &Storage, schema: &TableSchema, file: &DataFile) -> Result<ParquetRecordBatchStreamBuilder<FileReader>> {
    let reader = FileReader { store: storage.store.clone(), path: schema.data_file(&file.name), size: file.size };
    Ok(ParquetRecordBatchStreamBuilder::new(reader).await?)
}

/// Reads ranges of one object.
struct FileReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let read = async move { self.store.get_ranges(&self.path, &ranges).await };
        read.map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        ParquetMetaDataReader::new().load_and_finish(self, size).map_ok(Arc::new).boxed()
    }
}

/// The key of a row: `columns` are the key columns.
fn key_row(columns: &[ArrayRef], row: usize) -> Result<BinaryRow> {
    let slots: Vec<Slot> = columns.iter().map(|column| slot(column, row)).collect::<Result<_>>()?;
    Ok(BinaryRow::of(&slots))
}

fn slot(column: &ArrayRef, row: usize) -> Result<Slot> {
    let null = column.is_null(row);
    let slot = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Slot::Micros((!null).then(|| column.as_primitive::<TimestampMicrosecondType>().value(row)))
        }
        DataType::Decimal128(precision, _) if *precision > 18 => {
            Slot::WideDecimal((!null).then(|| column.as_primitive::<Decimal128Type>().value(row)))
        }
        _ if null => Slot::Null,
        DataType::Boolean => Slot::integer([u8::from(column.as_boolean().value(row))]),
        DataType::Int8 => Slot::integer(column.as_primitive::<Int8Type>().value(row).to_le_bytes()),
        DataType::Int16 => Slot::integer(column.as_primitive::<Int16Type>().value(row).to_le_bytes()),
        DataType::Int32 => Slot::integer(column.as_primitive::<Int32Type>().value(row).to_le_bytes()),
        DataType::Date32 => Slot::integer(column.as_primitive::<Date32Type>().value(row).to_le_bytes()),
        DataType::Int64 => Slot::integer(column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Float32 => Slot::integer(column.as_primitive::<Float32Type>().value(row).to_le_bytes()),
        DataType::Float64 => Slot::integer(column.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Decimal128(..) => Slot::integer((column.as_primitive::<Decimal128Type>().value(row) as i64).to_le_bytes()),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Slot::integer(column.as_primitive::<TimestampMillisecondType>().value(row).to_le_bytes())
        }
        DataType::Utf8 => Slot::Bytes(column.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Slot::Bytes(column.as_string::<i64>().value(row).into()),
        DataType::Utf8View => Slot::Bytes(column.as_string_view().value(row).into()),
        DataType::Binary => Slot::Bytes(column.as_binary::<i32>().value(row).into()),
        DataType::LargeBinary => Slot::Bytes(column.as_binary::<i64>().value(row).into()),
        DataType::BinaryView => Slot::Bytes(column.as_binary_view().value(row).into()),
        other => return Err(corrupt("key", format!("a key column of type {other}"))),
    };
    Ok(slot)
}

/// Lowest and highest value of a column of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Number(i128),
    Text(Vec<u8>),
}

/// What Paimon's manifests say of each declared column, from what the Parquet footer says.
fn column_stats(schema: &TableSchema, metadata: &ParquetMetaData) -> ColumnStats {
    let parquet = metadata.file_metadata().schema_descr();
    let leaf_of: HashMap<&str, usize> = parquet
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, leaf)| leaf.path().parts().len() == 1)
        .map(|(leaf, column)| (column.name(), leaf))
        .collect();
    let (mut min, mut max, mut null_counts) = (Vec::new(), Vec::new(), Vec::new());
    for field in schema.schema.fields() {
        let groups = leaf_of.get(field.name().as_str()).map(|leaf| {
            let groups = metadata.row_groups().iter();
            groups.map(|group| (group.num_rows(), group.column(*leaf).statistics())).collect::<Vec<_>>()
        });
        let nulls = groups.as_ref().and_then(|groups| {
            groups
                .iter()
                .map(|(_, statistics)| statistics.and_then(|statistics| statistics.null_count_opt()))
                .sum::<Option<u64>>()
        });
        let bounds = groups.as_ref().and_then(|groups| bounds(field.data_type(), groups));
        let (low, high) = bounds.map_or((None, None), |(low, high)| (Some(low), Some(high)));
        min.push(bound_slot(field.data_type(), low.and_then(truncate_down)));
        max.push(bound_slot(field.data_type(), high.and_then(truncate_up)));
        null_counts.push(nulls.map(|nulls| nulls as i64));
    }
    ColumnStats { min: BinaryRow::of(&min), max: BinaryRow::of(&max), null_counts }
}

/// Bounds over all row groups; `None` when one of them does not tell.
fn bounds(data_type: &DataType, groups: &[(i64, Option<&Statistics>)]) -> Option<(Bound, Bound)> {
    let mut whole: Option<(Bound, Bound)> = None;
    for (rows, statistics) in groups {
        let statistics = (*statistics)?;
        if statistics.null_count_opt() == Some(*rows as u64) {
            continue;
        }
        let (low, high) = group_bounds(data_type, statistics)?;
        whole = Some(match whole {
            None => (low, high),
            Some((min, max)) => (min.min(low), max.max(high)),
        });
    }
    whole
}

/// Floats are left out because Paimon orders NaN and Parquet does not, binary because Paimon keeps no bounds of it.
fn group_bounds(data_type: &DataType, statistics: &Statistics) -> Option<(Bound, Bound)> {
    let number = |low: i128, high: i128| Some((Bound::Number(low), Bound::Number(high)));
    match (data_type, statistics) {
        (DataType::Boolean, Statistics::Boolean(values)) => {
            number(i128::from(*values.min_opt()?), i128::from(*values.max_opt()?))
        }
        (_, Statistics::Int32(values)) => number(i128::from(*values.min_opt()?), i128::from(*values.max_opt()?)),
        (_, Statistics::Int64(values)) => number(i128::from(*values.min_opt()?), i128::from(*values.max_opt()?)),
        (DataType::Decimal128(..), Statistics::FixedLenByteArray(_)) => {
            number(signed_big_endian(statistics.min_bytes_opt()?)?, signed_big_endian(statistics.max_bytes_opt()?)?)
        }
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Statistics::ByteArray(_)) => {
            Some((Bound::Text(statistics.min_bytes_opt()?.to_vec()), Bound::Text(statistics.max_bytes_opt()?.to_vec())))
        }
        _ => None,
    }
}

fn signed_big_endian(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let mut value = [if negative { 0xff } else { 0 }; 16];
    value.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(value))
}

/// Characters of a text bound that are kept.
const BOUND_CHARACTERS: usize = 16;

fn truncate_down(bound: Bound) -> Option<Bound> {
    let Bound::Text(bytes) = bound else { return Some(bound) };
    let text = std::str::from_utf8(&bytes).ok()?;
    Some(Bound::Text(text.chars().take(BOUND_CHARACTERS).collect::<String>().into_bytes()))
}

/// A cut upper bound ends in the character after the one that stood there, so that it lies above all that it stands for.
fn truncate_up(bound: Bound) -> Option<Bound> {
    let Bound::Text(bytes) = bound else { return Some(bound) };
    let text = std::str::from_utf8(&bytes).ok()?;
    let mut kept: Vec<char> = text.chars().take(BOUND_CHARACTERS).collect();
    if kept.len() == text.chars().count() {
        return Some(Bound::Text(bytes));
    }
    while let Some(last) = kept.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            kept.push(next);
            return Some(Bound::Text(kept.into_iter().collect::<String>().into_bytes()));
        }
    }
    None
}

fn bound_slot(data_type: &DataType, bound: Option<Bound>) -> Slot {
    let number = match bound {
        Some(Bound::Text(bytes)) => return Slot::Bytes(bytes),
        Some(Bound::Number(number)) => Some(number),
        None => None,
    };
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Slot::Micros(number.map(|number| number as i64)),
        DataType::Decimal128(precision, _) if *precision > 18 => Slot::WideDecimal(number),
        _ => number.map_or(Slot::Null, |number| match data_type {
            DataType::Boolean | DataType::Int8 => Slot::integer((number as i8).to_le_bytes()),
            DataType::Int16 => Slot::integer((number as i16).to_le_bytes()),
            DataType::Int32 | DataType::Date32 => Slot::integer((number as i32).to_le_bytes()),
            _ => Slot::integer((number as i64).to_le_bytes()),
        }),
    }
}
