//! Group keys to slot numbers, and back.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::Result;

/// The keys of one aggregate. Slots of removed keys are given out again.
pub(crate) struct Groups {
    keys: Keys,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    free: Vec<u32>,
    slots: usize,
    key_bytes: usize,
}

enum Keys {
    /// No key columns: one group, slot 0.
    Unit,
    /// One column that fits 64 bits.
    Int { data_type: DataType, values: Vec<i64>, null: Option<u32> },
    /// Anything else, in Arrow's row format.
    Rows { converter: RowConverter, rows: Vec<Box<[u8]>> },
}

impl Groups {
    pub(crate) fn new(types: &[DataType]) -> Result<Groups> {
        let keys = match types {
            [] => Keys::Unit,
            [one] if fits_64_bits(one) => Keys::Int { data_type: one.clone(), values: Vec::new(), null: None },
            many => Keys::Rows {
                converter: RowConverter::new(many.iter().map(|t| SortField::new(t.clone())).collect())?,
                rows: Vec::new(),
            },
        };
        let slots = usize::from(matches!(keys, Keys::Unit));
        Ok(Groups { keys, table: HashTable::new(), hasher: DefaultHashBuilder::default(), free: Vec::new(), slots, key_bytes: 0 })
    }

    /// Number of slots, free ones included.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.slots - self.free.len()
    }

    /// The slot of each row's key; unknown keys get one.
    pub(crate) fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut found = Vec::with_capacity(rows);
        let Groups { keys, table, hasher, free, slots, key_bytes } = self;
        let mut take_slot = || {
            free.pop().unwrap_or_else(|| {
                *slots += 1;
                (*slots - 1) as u32
            })
        };
        match keys {
            Keys::Unit => found.resize(rows, 0),
            Keys::Int { values, null, .. } => {
                let column = as_ints(&columns[0])?;
                let mut last: Option<(i64, u32)> = None;
                for row in 0..rows {
                    if column.is_null(row) {
                        let slot = *null.get_or_insert_with(|| {
                            let slot = take_slot();
                            values.resize(values.len().max(slot as usize + 1), 0);
                            slot
                        });
                        found.push(slot);
                        continue;
                    }
                    let key = column.value(row);
                    if let Some((same, slot)) = last
                        && same == key
                    {
                        found.push(slot);
                        continue;
                    }
                    let hash = hasher.hash_one(key);
                    let rehash = |slot: &u32| hasher.hash_one(values[*slot as usize]);
                    let slot = match table.entry(hash, |slot| values[*slot as usize] == key, rehash) {
                        hashbrown::hash_table::Entry::Occupied(entry) => *entry.get(),
                        hashbrown::hash_table::Entry::Vacant(entry) => {
                            let slot = take_slot();
                            entry.insert(slot);
                            values.resize(values.len().max(slot as usize + 1), 0);
                            values[slot as usize] = key;
                            slot
                        }
                    };
                    last = Some((key, slot));
                    found.push(slot);
                }
            }
            Keys::Rows { converter, rows: known } => {
                let converted = converter.convert_columns(columns)?;
                let mut last: Option<(&[u8], u32)> = None;
                for row in 0..rows {
                    let key = converted.row(row).data();
                    if let Some((same, slot)) = last
                        && same == key
                    {
                        found.push(slot);
                        continue;
                    }
                    let hash = hasher.hash_one(key);
                    let rehash = |slot: &u32| hasher.hash_one(&*known[*slot as usize]);
                    let slot = match table.entry(hash, |slot| &*known[*slot as usize] == key, rehash) {
                        hashbrown::hash_table::Entry::Occupied(entry) => *entry.get(),
                        hashbrown::hash_table::Entry::Vacant(entry) => {
                            let slot = take_slot();
                            entry.insert(slot);
                            known.resize(known.len().max(slot as usize + 1), Box::default());
                            known[slot as usize] = key.into();
                            *key_bytes += key.len();
                            slot
                        }
                    };
                    last = Some((key, slot));
                    found.push(slot);
                }
            }
        }
        Ok(found)
    }

    /// The key columns of slots.
    pub(crate) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(match &self.keys {
            Keys::Unit => Vec::new(),
            Keys::Int { data_type, values, null: None } => {
                let ints = Int64Array::from_iter_values(slots.iter().map(|slot| values[*slot as usize]));
                vec![from_ints(ints, data_type)?]
            }
            Keys::Int { data_type, values, null } => {
                let mut ints = Int64Builder::with_capacity(slots.len());
                slots.iter().for_each(|slot| ints.append_option((*null != Some(*slot)).then(|| values[*slot as usize])));
                vec![from_ints(ints.finish(), data_type)?]
            }
            Keys::Rows { converter, rows } => {
                let parser = converter.parser();
                converter.convert_rows(slots.iter().map(|slot| parser.parse(&rows[*slot as usize])))?
            }
        })
    }

    /// Forgets groups; their slots will be used again.
    pub(crate) fn remove(&mut self, slots: &[u32]) {
        for slot in slots {
            match &mut self.keys {
                Keys::Unit => continue,
                Keys::Int { null, .. } if *null == Some(*slot) => *null = None,
                Keys::Int { values, .. } => {
                    let hash = self.hasher.hash_one(values[*slot as usize]);
                    if let Ok(entry) = self.table.find_entry(hash, |known| known == slot) {
                        entry.remove();
                    }
                }
                Keys::Rows { rows, .. } => {
                    let key = std::mem::take(&mut rows[*slot as usize]);
                    self.key_bytes -= key.len();
                    if let Ok(entry) = self.table.find_entry(self.hasher.hash_one(&*key), |known| known == slot) {
                        entry.remove();
                    }
                }
            }
            self.free.push(*slot);
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Unit => 0,
            Keys::Int { values, .. } => values.capacity() * 8,
            Keys::Rows { rows, .. } => rows.capacity() * 16 + self.key_bytes,
        };
        keys + self.table.capacity() * 5 + self.free.capacity() * 4
    }
}

/// Types whose values are kept as one 64-bit integer.
pub(super) fn fits_64_bits(data_type: &DataType) -> bool {
    use DataType::{Date32, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32};
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Date32 | Timestamp(_, _))
}

/// A column of such a type as integers.
pub(super) fn as_ints(column: &ArrayRef) -> Result<Int64Array> {
    let column = match column.data_type() {
        DataType::Int64 => Arc::clone(column),
        DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(column, &DataType::Int64)?,
    };
    Ok(column.as_primitive::<Int64Type>().clone())
}

/// Integers as a column of such a type.
pub(super) fn from_ints(ints: Int64Array, data_type: &DataType) -> Result<ArrayRef> {
    let ints: ArrayRef = Arc::new(ints);
    Ok(match data_type {
        DataType::Int64 => ints,
        DataType::Date32 => cast(&cast(&ints, &DataType::Int32)?, data_type)?,
        _ => cast(&ints, data_type)?,
    })
}
