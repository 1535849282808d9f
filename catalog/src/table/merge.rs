//! Rows of one key in several places: which of them is the newest.
//!
//! Keys are compared and hashed in arrow-row's encoding, whose byte order is the order of Paimon's files.

use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, Int8Array, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::hash_table::{Entry, HashTable};

use super::TableSchema;
use super::flush::refuse_deletes;
use super::memtable::Segment;
use super::resident::WholeCell;
use crate::{INSERT, Result};

/// One hash function for all keys of the process, so that a hash can be kept beside its key.
static HASHER: LazyLock<hashbrown::DefaultHashBuilder> = LazyLock::new(hashbrown::DefaultHashBuilder::default);

fn hash(key: &[u8]) -> u64 {
    HASHER.hash_one(key)
}

/// Encodes the key of rows.
#[derive(Debug)]
pub(crate) struct KeyEncoder {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl KeyEncoder {
    /// For batches of the table's columns.
    pub(crate) fn of(schema: &TableSchema) -> Result<KeyEncoder> {
        KeyEncoder::at(schema, schema.key.clone())
    }

    /// For batches in which the key columns are at these positions.
    pub(crate) fn at(schema: &TableSchema, columns: Vec<usize>) -> Result<KeyEncoder> {
        let fields = schema.key_fields().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(KeyEncoder { converter: RowConverter::new(fields)?, columns })
    }

    /// The key of each row.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let key: Vec<_> = self.columns.iter().map(|column| columns[*column].clone()).collect();
        Ok(self.converter.convert_columns(&key)?)
    }
}

/// The last row of each key within one batch.
#[derive(Debug)]
pub(crate) struct Folded {
    keys: Rows,
    /// Rows that no later one replaces, last first, each with the hash of its key.
    newest: Vec<(u32, u64)>,
}

impl Folded {
    /// Folds a batch whose later rows replace earlier ones.
    pub(crate) fn of(rows: &RecordBatch, encoder: &KeyEncoder) -> Result<Folded> {
        let keys = encoder.encode(rows.columns())?;
        let mut seen: HashTable<(u32, u64)> = HashTable::with_capacity(rows.num_rows().min(1024));
        let mut newest = Vec::new();
        for row in (0..keys.num_rows()).rev() {
            let key = keys.row(row);
            let hash = hash(key.data());
            let same = |(other, other_hash): &(u32, u64)| *other_hash == hash && keys.row(*other as usize) == key;
            if let Entry::Vacant(place) = seen.entry(hash, same, |(_, hash)| *hash) {
                place.insert((row as u32, hash));
                newest.push((row as u32, hash));
            }
        }
        Ok(Folded { keys, newest })
    }
}

/// A set of keys, each with the number of the newest sorted run that has it.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    table: HashTable<IndexedKey>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct IndexedKey {
    hash: u64,
    start: usize,
    length: u32,
    run: u32,
}

impl KeyIndex {
    /// Adds a key unless it is there: newer runs are added before older ones. Whether it was added.
    fn insert(&mut self, hash: u64, key: &[u8], run: u32) -> bool {
        let bytes = &self.bytes;
        let same = |other: &IndexedKey| other.hash == hash && &bytes[other.start..other.start + other.length as usize] == key;
        match self.table.entry(hash, same, |other| other.hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(IndexedKey { hash, start: self.bytes.len(), length: key.len() as u32, run });
                self.bytes.extend_from_slice(key);
                true
            }
        }
    }

    /// Adds a key and says whether it was new.
    pub(crate) fn insert_key(&mut self, key: &[u8]) -> bool {
        self.insert(hash(key), key, 0)
    }

    /// Adds the keys of a run.
    pub(crate) fn insert_all(&mut self, keys: &Rows, run: u32) {
        for key in keys {
            self.insert(hash(key.data()), key.data(), run);
        }
    }

    /// The newest run that has the key.
    pub(crate) fn run_of(&self, key: &[u8]) -> Option<u32> {
        let hash = hash(key);
        let same =
            |other: &IndexedKey| other.hash == hash && &self.bytes[other.start..other.start + other.length as usize] == key;
        self.table.find(hash, same).map(|found| found.run)
    }

    /// Whether there is no key.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Bytes held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.allocation_size() + self.bytes.capacity()
    }
}

/// A memtable as readers see it, over the files: with a key one row for each.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// All keys, those of deleted rows too: they hide what the files say.
    pub(crate) keys: KeyIndex,
    /// The rows that are there, under the schema of the table.
    pub(crate) rows: Vec<RecordBatch>,
    /// The same with the files, where those are small.
    pub(crate) whole: WholeCell,
}

impl Overlay {
    /// Merges segments, oldest first.
    pub(crate) fn of(segments: &[Arc<Segment>], table: &TableSchema) -> Result<Overlay> {
        let schema = &table.schema;
        let mut keys = KeyIndex::default();
        let mut rows = Vec::new();
        if table.key.is_empty() {
            for segment in segments {
                refuse_deletes(table, segment)?;
                rows.push(with_schema(schema, segment.changes.rows.columns().to_vec(), segment.changes.len())?);
            }
            return Ok(Overlay { keys, rows, whole: WholeCell::default() });
        }
        let encoder = &KeyEncoder::of(table)?;
        for segment in segments.iter().rev() {
            let kinds = segment.changes.kinds.as_ref();
            let live = newest_rows(segment, encoder, &mut keys)?.filter(|row| is_insert(kinds, *row));
            let live: UInt32Array = live.map(|row| row as u32).collect::<Vec<_>>().into();
            if !live.is_empty() {
                let taken = take_record_batch(&segment.changes.rows, &live)?;
                rows.push(with_schema(schema, taken.columns().to_vec(), taken.num_rows())?);
            }
        }
        Ok(Overlay { keys, rows, whole: WholeCell::default() })
    }
}

/// The last row of each key over all segments, as (segment, row), in no order.
pub(crate) fn newest(segments: &[Arc<Segment>], encoder: &KeyEncoder) -> Result<Vec<(usize, usize)>> {
    let mut keys = KeyIndex::default();
    let mut newest = Vec::new();
    for (index, segment) in segments.iter().enumerate().rev() {
        newest.extend(newest_rows(segment, encoder, &mut keys)?.map(|row| (index, row)));
    }
    Ok(newest)
}

/// Rows of a segment whose key is not among `newer`, which has it afterwards.
fn newest_rows<'a>(
    segment: &'a Segment,
    encoder: &KeyEncoder,
    newer: &'a mut KeyIndex,
) -> Result<impl Iterator<Item = usize> + 'a> {
    let folded = segment.folded(encoder)?;
    let rows = folded.newest.iter().map(|(row, hash)| (*row as usize, *hash));
    Ok(rows.filter_map(|(row, hash)| newer.insert(hash, folded.keys.row(row).data(), 0).then_some(row)))
}

impl Segment {
    /// The encoded key of a row.
    pub(crate) fn key<'a>(&'a self, row: usize, encoder: &KeyEncoder) -> Result<&'a [u8]> {
        Ok(self.folded(encoder)?.keys.row(row).data())
    }
}

/// Whether a row is there rather than taken away.
pub(crate) fn is_insert(kinds: Option<&Int8Array>, row: usize) -> bool {
    kinds.is_none_or(|kinds| kinds.value(row) == INSERT)
}

/// The rows of a batch that `live` says yes to.
pub(crate) fn retain(batch: RecordBatch, live: Vec<bool>) -> Result<RecordBatch> {
    if live.iter().all(|live| *live) {
        return Ok(batch);
    }
    Ok(filter_record_batch(&batch, &BooleanArray::from(live))?)
}

/// Columns under the schema that the table has now; what was written earlier may say less about nulls or name list elements differently.
pub(crate) fn with_schema(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let columns = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(column) } else { arrow::compute::cast(&column, field.data_type()) }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
