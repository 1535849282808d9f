//! Memtable to level-0 files.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array};
use arrow::compute::interleave;

use super::data_file::FileWriter;
use super::memtable::Segment;
use super::merge::{KeyEncoder, is_insert, newest};
use super::schema::{ROW_DELETE, ROW_INSERT};
use super::{EditKind, FileEdit, FileOrigin, Memtable, TableSchema, corrupt, on_blocking_thread};
use crate::{DELETE, Result, Storage};

/// Rows that are sorted into one batch for the encoder.
const BATCH_ROWS: usize = 8192;

/// Writes the rows of `frozen` to new files. Nothing refers to them until the edit is committed.
/// `next_sequence` is [`super::FileSet::next_sequence`] of the set that the edit will be applied to.
pub(crate) async fn flush(
    storage: &Storage,
    schema: &TableSchema,
    frozen: &Memtable,
    next_sequence: i64,
    now_us: i64,
) -> Result<FileEdit> {
    let (job_storage, job_schema, job_frozen) = (storage.clone(), schema.clone(), frozen.clone());
    let added = on_blocking_thread(move || {
        let mut writer = FileWriter::new(&job_storage, &job_schema, 0, FileOrigin::Append, now_us);
        if job_schema.key.is_empty() {
            write_all(&job_schema, job_frozen.segments(), &mut writer)?;
        } else {
            write_newest(&job_schema, job_frozen.segments(), next_sequence, &mut writer)?;
        }
        writer.finish()
    })
    .await?;
    Ok(FileEdit { table: schema.id, kind: EditKind::Append, added, removed: Vec::new(), up_to: frozen.last_seq() })
}

fn write_all(schema: &TableSchema, segments: &[Arc<Segment>], writer: &mut FileWriter<'_>) -> Result<()> {
    for segment in segments {
        refuse_deletes(schema, segment)?;
        writer.write(segment.changes.rows.columns().to_vec())?;
    }
    Ok(())
}

/// A table without a key has no way to say that a row is gone.
pub(crate) fn refuse_deletes(schema: &TableSchema, segment: &Segment) -> Result<()> {
    match &segment.changes.kinds {
        Some(kinds) if kinds.values().contains(&DELETE) => {
            Err(corrupt(&schema.path, "a row is deleted from a table without a key"))
        }
        _ => Ok(()),
    }
}

/// One row for each key, in the order of keys. All rows of a flush have one sequence number: within it a key is unique,
/// between flushes the number grows, and equal numbers take no room.
fn write_newest(schema: &TableSchema, segments: &[Arc<Segment>], sequence: i64, writer: &mut FileWriter<'_>) -> Result<()> {
    let encoder = KeyEncoder::of(schema)?;
    let mut rows = Vec::new();
    for (segment, row) in newest(segments, &encoder)? {
        rows.push((segments[segment].key(row, &encoder)?, segment, row));
    }
    sort_by_key(&mut rows);
    let columns: Vec<Vec<&dyn arrow::array::Array>> = (0..schema.schema.fields().len())
        .map(|column| segments.iter().map(|segment| segment.changes.rows.column(column).as_ref()).collect())
        .collect();
    for chunk in rows.chunks(BATCH_ROWS) {
        let picks: Vec<(usize, usize)> = chunk.iter().map(|(_, segment, row)| (*segment, *row)).collect();
        let values: Vec<ArrayRef> = columns.iter().map(|parts| interleave(parts, &picks)).collect::<Result<_, _>>()?;
        let kinds: Int8Array = picks
            .iter()
            .map(
                |(segment, row)| if is_insert(segments[*segment].changes.kinds.as_ref(), *row) { ROW_INSERT } else { ROW_DELETE },
            )
            .collect::<Vec<_>>()
            .into();
        let mut row: Vec<ArrayRef> = schema.key.iter().map(|column| values[*column].clone()).collect();
        row.push(Arc::new(Int64Array::from(vec![sequence; picks.len()])));
        row.push(Arc::new(kinds));
        row.extend(values);
        writer.write(row)?;
    }
    Ok(())
}

/// Sorts by encoded key. Most comparisons are of one number: the eight bytes after what all keys begin with.
fn sort_by_key(rows: &mut Vec<(&[u8], usize, usize)>) {
    let Some((first, ..)) = rows.first().copied() else { return };
    let common = rows.iter().fold(first.len(), |common, (key, ..)| {
        first[..common].iter().zip(key.iter()).take_while(|(left, right)| left == right).count()
    });
    let mut order: Vec<(u64, u32)> = rows
        .iter()
        .enumerate()
        .map(|(index, (key, ..))| {
            let mut head = [0; 8];
            let rest = &key[common..];
            let length = rest.len().min(8);
            head[..length].copy_from_slice(&rest[..length]);
            (u64::from_be_bytes(head), index as u32)
        })
        .collect();
    order.sort_unstable_by(|(left, left_row), (right, right_row)| {
        left.cmp(right).then_with(|| rows[*left_row as usize].0.cmp(rows[*right_row as usize].0))
    });
    *rows = order.into_iter().map(|(_, row)| rows[row as usize]).collect();
}
