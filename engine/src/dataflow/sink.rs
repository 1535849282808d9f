//! Where rows of an epoch gather until its barrier.

use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::row::{RowConverter, SortField};
use catalog::{Changes, DELETE, INSERT, ObjectId};
use hashbrown::HashMap;

use super::evaluate::select;
use crate::Result;
use crate::plan;

/// Batches smaller than this are joined; larger ones are not worth the copy.
const SMALL_BATCH_ROWS: usize = 2048;
/// Rows of joined batches, at most.
const JOINED_ROWS: usize = 8192;

/// Rows of one dataflow's current epoch.
pub(crate) struct Sink {
    target: plan::Sink,
    rows: Vec<Changes>,
    bytes: usize,
    /// Rows taken in since the start of the run.
    pub(crate) rows_out: u64,
}

impl Sink {
    pub(crate) fn new(target: plan::Sink) -> Self {
        Sink { target, rows: Vec::new(), bytes: 0, rows_out: 0 }
    }

    pub(crate) fn push(&mut self, changes: Changes) {
        self.rows_out += changes.len() as u64;
        if let plan::Sink::Table { .. } = self.target {
            self.bytes += changes.bytes();
            self.rows.push(changes);
        }
    }

    /// Bytes waiting for the barrier.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The epoch's rows for the catalog.
    pub(crate) fn take(&mut self) -> Result<Vec<(ObjectId, Changes)>> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        let plan::Sink::Table { table, key } = &self.target else { return Ok(Vec::new()) };
        let rows = if key.is_empty() { join(rows)? } else { last_per_key(rows, key)? };
        Ok(rows.into_iter().map(|changes| (*table, changes)).collect())
    }
}

/// Joins small batches; rows keep their order.
fn join(rows: Vec<Changes>) -> Result<Vec<Changes>> {
    let mut joined: Vec<Changes> = Vec::new();
    let mut group: Vec<Changes> = Vec::new();
    let mut count = 0;
    for changes in rows {
        let is_large = changes.len() >= SMALL_BATCH_ROWS;
        if !group.is_empty() && (is_large || count + changes.len() > JOINED_ROWS) {
            joined.push(concat(std::mem::take(&mut group))?);
            count = 0;
        }
        if is_large {
            joined.push(changes);
        } else {
            count += changes.len();
            group.push(changes);
        }
    }
    if !group.is_empty() {
        joined.push(concat(group)?);
    }
    Ok(joined)
}

fn concat(mut group: Vec<Changes>) -> Result<Changes> {
    if group.len() == 1 {
        return Ok(group.remove(0));
    }
    let schema = group[0].rows.schema();
    let rows = concat_batches(&schema, group.iter().map(|changes| &changes.rows))?;
    if group.iter().all(|changes| changes.kinds.is_none()) {
        return Ok(Changes::append(rows));
    }
    let mut kinds: Vec<i8> = Vec::with_capacity(rows.num_rows());
    for changes in &group {
        match &changes.kinds {
            None => kinds.resize(kinds.len() + changes.len(), INSERT),
            Some(own) => kinds.extend_from_slice(own.values()),
        }
    }
    Ok(Changes::new(rows, Int8Array::from(kinds)))
}

/// What an epoch did to each key: the row it took away, if the key was there before, and the row that stands at its
/// end. What happened in between is nobody's business. The input is a changelog: a key that is there is deleted
/// before it is inserted anew.
fn last_per_key(rows: Vec<Changes>, key: &[usize]) -> Result<Vec<Changes>> {
    struct Effect {
        removed: Option<u32>,
        stands: Option<u32>,
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let changes = concat(rows)?;
    let columns: Vec<_> = key.iter().map(|column| Arc::clone(changes.rows.column(*column))).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(changes.len());
    let mut effects: Vec<Effect> = Vec::with_capacity(changes.len());
    let kinds = changes.kinds.as_ref().map(|kinds| kinds.values());
    for row in 0..changes.len() {
        let is_delete = kinds.is_some_and(|kinds| kinds[row] == DELETE);
        let row_index = row as u32;
        match places.entry(keys.row(row).data()) {
            hashbrown::hash_map::Entry::Vacant(place) => {
                place.insert(effects.len());
                effects.push(match is_delete {
                    true => Effect { removed: Some(row_index), stands: None },
                    false => Effect { removed: None, stands: Some(row_index) },
                });
            }
            hashbrown::hash_map::Entry::Occupied(place) => {
                effects[*place.get()].stands = (!is_delete).then_some(row_index);
            }
        }
    }
    drop(places);
    if effects.len() == changes.len() {
        return Ok(vec![changes]);
    }
    let mut chosen: Vec<u32> = Vec::with_capacity(effects.len());
    for effect in effects {
        chosen.extend(effect.removed);
        chosen.extend(effect.stands);
    }
    let changes = select(&changes, &UInt32Array::from(chosen))?;
    Ok(if changes.is_empty() { Vec::new() } else { vec![changes] })
}

/// Bytes that rows take in a commit, for `freshet.checkpoints`.
pub(crate) fn bytes_of(rows: &[(ObjectId, Changes)]) -> u64 {
    rows.iter().map(|(_, changes)| used_bytes(&changes.rows)).sum()
}

/// Bytes of the rows themselves, without what else their buffers hold.
pub(crate) fn used_bytes(rows: &RecordBatch) -> u64 {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    fn changes(rows: &[(i64, i64, i8)]) -> Changes {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, false)]);
        let column = |f: fn(&(i64, i64, i8)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(f)));
        let batch = RecordBatch::try_new(Arc::new(schema), vec![column(|r| r.0), column(|r| r.1)]).expect("columns fit");
        Changes::new(batch, Int8Array::from_iter_values(rows.iter().map(|r| r.2)))
    }

    fn listed(changes: &[(ObjectId, Changes)]) -> Vec<(i64, i64, i8)> {
        let mut rows = Vec::new();
        for (_, changes) in changes {
            let k = changes.rows.column(0).as_primitive::<Int64Type>();
            let v = changes.rows.column(1).as_primitive::<Int64Type>();
            for row in 0..changes.len() {
                rows.push((k.value(row), v.value(row), changes.kinds.as_ref().map_or(INSERT, |kinds| kinds.value(row))));
            }
        }
        rows
    }

    #[test]
    fn an_epoch_keeps_the_first_delete_and_the_last_insert_of_a_key() {
        let mut sink = Sink::new(plan::Sink::Table { table: ObjectId(7), key: vec![0] });
        sink.push(changes(&[(1, 10, 1), (2, 20, -1), (2, 21, 1), (3, 30, 1)]));
        sink.push(changes(&[(2, 21, -1), (2, 22, 1), (1, 10, -1), (1, 11, 1), (3, 30, -1)]));
        assert_eq!(listed(&sink.take().expect("folds")), [(1, 11, 1), (2, 20, -1), (2, 22, 1)]);
        assert!(sink.take().expect("folds").is_empty());
    }

    #[test]
    fn an_append_sink_joins_small_batches_and_keeps_order() {
        let mut sink = Sink::new(plan::Sink::Table { table: ObjectId(7), key: vec![] });
        sink.push(changes(&[(1, 1, 1)]));
        sink.push(changes(&[(2, 2, -1), (3, 3, 1)]));
        let rows = sink.take().expect("joins");
        assert_eq!(rows.len(), 1);
        assert_eq!(listed(&rows), [(1, 1, 1), (2, 2, -1), (3, 3, 1)]);
    }
}
