//! Fewer, larger files: which to merge (a pure decision) and the merging.
//!
//! Tables with a key follow Paimon's universal compaction, with its defaults. Append tables merge files of about one size into
//! one of the next: a row is rewritten a few times in its life, and the number of small files stays bounded.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::Int8Type;
use arrow::row::Rows;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;

use super::data_file::{FILE_BYTES_TARGET, FileWriter, read};
use super::merge::KeyEncoder;
use super::schema::{ROW_DELETE, ROW_UPDATE_BEFORE};
use super::{DataFile, EditKind, FileEdit, FileOrigin, FileSet, SortedRun, TOP_LEVEL, TableSchema, corrupt, on_blocking_thread};
use crate::{Result, Storage};

/// So many sorted runs are merged.
const RUNS_TRIGGER: usize = 5;
/// All runs are merged when the newer ones hold more than this much of the oldest one's bytes, in percent.
const SIZE_AMPLIFICATION_PERCENT: u64 = 200;
/// A run joins when it is at most this much larger than those picked before it, in percent.
const SIZE_RATIO_PERCENT: u64 = 1;
/// So many append files of about one size are merged.
const APPEND_FILES_TRIGGER: usize = 5;
/// Files of one size class differ by at most this factor.
const APPEND_SIZE_FACTOR: u64 = 4;
/// Append files below this are of the lowest class.
const APPEND_SIZE_MIN: u64 = 256 << 10;
/// Rows of a batch when runs are merged.
const BATCH_ROWS: usize = 4096;

/// Files to be merged.
#[derive(Debug, Clone)]
pub(crate) struct CompactionSpec {
    /// Newest first; for an append table one run of all files.
    inputs: Vec<SortedRun>,
    /// Level of the result.
    level: i32,
    /// No older row of any key is left outside: deletes have nothing to hide.
    drops_deletes: bool,
}

/// What should be merged now, if anything.
pub(crate) fn compaction(files: &FileSet, schema: &TableSchema) -> Option<CompactionSpec> {
    if schema.key.is_empty() { append_compaction(files) } else { universal_compaction(&files.runs()) }
}

/// Everything into the top level. `None` when it is there.
#[cfg(test)]
pub(crate) fn full_compaction(files: &FileSet, schema: &TableSchema) -> Option<CompactionSpec> {
    let inputs = files.runs();
    if schema.key.is_empty() {
        return (files.iter().len() > 1).then(|| append_spec(files.iter().cloned().collect()));
    }
    let done = inputs.is_empty() || (inputs.len() == 1 && inputs[0].level == TOP_LEVEL && inputs[0].delete_rows() == 0);
    (!done).then_some(CompactionSpec { inputs, level: TOP_LEVEL, drops_deletes: true })
}

fn append_compaction(files: &FileSet) -> Option<CompactionSpec> {
    let class = |file: &Arc<DataFile>| (file.size / APPEND_SIZE_MIN).max(1).ilog(APPEND_SIZE_FACTOR);
    let small = || files.iter().filter(|file| file.size < FILE_BYTES_TARGET / 10 * 7);
    let lowest = small()
        .map(class)
        .filter(|lowest| small().filter(|file| class(file) == *lowest).count() >= APPEND_FILES_TRIGGER)
        .min()?;
    let mut bytes = 0;
    let picked = small().filter(|file| class(file) == lowest).take_while(|file| {
        bytes += file.size;
        bytes <= 2 * FILE_BYTES_TARGET
    });
    Some(append_spec(picked.cloned().collect()))
}

fn append_spec(files: Vec<Arc<DataFile>>) -> CompactionSpec {
    CompactionSpec { inputs: vec![SortedRun { level: 0, files }], level: 0, drops_deletes: false }
}

/// The decision of Paimon's `UniversalCompaction`; `runs` are newest first.
fn universal_compaction(runs: &[SortedRun]) -> Option<CompactionSpec> {
    if runs.len() < RUNS_TRIGGER {
        return None;
    }
    let newer: u64 = runs[..runs.len() - 1].iter().map(SortedRun::bytes).sum();
    if newer * 100 > SIZE_AMPLIFICATION_PERCENT * runs[runs.len() - 1].bytes() {
        return Some(pick(runs, runs.len()));
    }
    let by_ratio = extend_by_ratio(runs, 1);
    if by_ratio > 1 {
        return Some(pick(runs, by_ratio));
    }
    (runs.len() > RUNS_TRIGGER).then(|| pick(runs, extend_by_ratio(runs, runs.len() - RUNS_TRIGGER + 1)))
}

/// How many runs to take when the first `count` are taken and each next one joins that is not much larger.
fn extend_by_ratio(runs: &[SortedRun], mut count: usize) -> usize {
    let mut bytes: u64 = runs[..count].iter().map(SortedRun::bytes).sum();
    while let Some(next) = runs.get(count) {
        if bytes * (100 + SIZE_RATIO_PERCENT) / 100 < next.bytes() {
            break;
        }
        bytes += next.bytes();
        count += 1;
    }
    count
}

/// The newest `count` runs into the level above the next one; more of them where that would be level 0.
fn pick(runs: &[SortedRun], mut count: usize) -> CompactionSpec {
    let mut level = runs.get(count).map_or(TOP_LEVEL, |next| (next.level - 1).max(0));
    if level == 0 {
        while let Some(next) = runs.get(count) {
            count += 1;
            level = next.level;
            if level > 0 {
                break;
            }
        }
    }
    if count == runs.len() {
        level = TOP_LEVEL;
    }
    CompactionSpec { inputs: runs[..count].to_vec(), level, drops_deletes: count == runs.len() }
}

/// Merges the files of `spec` into new ones. The edit must be committed only if [`FileSet::admits`] it then.
pub(crate) async fn compact(storage: &Storage, schema: &TableSchema, spec: &CompactionSpec, now_us: i64) -> Result<FileEdit> {
    let (job_storage, job_schema, job_spec) = (storage.clone(), schema.clone(), spec.clone());
    let added = on_blocking_thread(move || {
        let mut writer = FileWriter::new(&job_storage, &job_schema, job_spec.level, FileOrigin::Compact, now_us);
        let cursors = job_spec.inputs.iter().map(|run| Cursor::new(&job_storage, &job_schema, run));
        if job_schema.key.is_empty() {
            for mut cursor in cursors {
                while let Some(batch) = cursor.next_batch()? {
                    writer.write(batch.columns().to_vec())?;
                }
            }
        } else {
            merge(&job_schema, cursors.collect(), job_spec.drops_deletes, &mut writer)?;
        }
        writer.finish()
    })
    .await?;
    let removed = spec.inputs.iter().flat_map(|run| &run.files).map(|file| file.as_ref().clone()).collect();
    Ok(FileEdit { table: schema.id, kind: EditKind::Compact, added, removed, up_to: None })
}

/// The rows of a run in order, batch by batch, read from a blocking thread.
struct Cursor<'a> {
    storage: &'a Storage,
    schema: &'a TableSchema,
    files: std::vec::IntoIter<Arc<DataFile>>,
    open: Option<BoxStream<'static, Result<RecordBatch>>>,
}

impl<'a> Cursor<'a> {
    fn new(storage: &'a Storage, schema: &'a TableSchema, run: &SortedRun) -> Cursor<'a> {
        Cursor { storage, schema, files: run.files.clone().into_iter(), open: None }
    }

    /// The next batch that has rows.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let runtime = Handle::current();
        loop {
            if let Some(open) = &mut self.open {
                match runtime.block_on(open.next()).transpose()? {
                    Some(batch) if batch.num_rows() > 0 => return Ok(Some(batch)),
                    Some(_) => continue,
                    None => self.open = None,
                }
            }
            let Some(file) = self.files.next() else { return Ok(None) };
            self.open = Some(runtime.block_on(read(self.storage, self.schema, &file, BATCH_ROWS))?);
        }
    }
}

/// One run's place in the merge.
struct Head {
    batch: usize,
    keys: Rows,
    row: usize,
}

impl Head {
    fn key(&self) -> &[u8] {
        self.keys.row(self.row).data()
    }
}

/// Merges runs, newest first, by key: of each key the row of the newest run stays, as it is.
fn merge(schema: &TableSchema, mut cursors: Vec<Cursor<'_>>, drops_deletes: bool, writer: &mut FileWriter<'_>) -> Result<()> {
    let keys = schema.key.len();
    let encoder = KeyEncoder::at(schema, (0..keys).collect())?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut heads: Vec<Head> = Vec::new();
    for cursor in &mut cursors {
        heads.push(next_head(cursor, &encoder, &mut batches)?.ok_or_else(|| corrupt(&schema.path, "a sorted run is empty"))?);
    }
    // Runs by the key they stand at, the newer one first where keys are equal. One that moves on mostly stays near the front.
    let mut order: Vec<usize> = (0..heads.len()).collect();
    order.sort_by(|left, right| heads[*left].key().cmp(heads[*right].key()));
    let mut picks: Vec<(usize, usize)> = Vec::with_capacity(BATCH_ROWS);
    let mut last: Option<Vec<u8>> = None;
    while let Some(run) = order.first().copied() {
        let head = &mut heads[run];
        if last.as_deref() != Some(head.key()) {
            let kind = batches[head.batch].column(keys + 1).as_primitive::<Int8Type>().value(head.row);
            if !(drops_deletes && (kind == ROW_DELETE || kind == ROW_UPDATE_BEFORE)) {
                picks.push((head.batch, head.row));
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(head.key());
        }
        head.row += 1;
        let next =
            if head.row < head.keys.num_rows() { None } else { Some(next_head(&mut cursors[run], &encoder, &mut batches)?) };
        match next {
            Some(None) => {
                order.remove(0);
            }
            moved => {
                if let Some(Some(next)) = moved {
                    heads[run] = next;
                }
                let moved = (heads[run].key(), run);
                let behind = order[1..].iter().take_while(|other| (heads[**other].key(), **other) < moved).count();
                order[..=behind].rotate_left(1);
            }
        }
        // Batches that are worked off leave memory when what was picked from them has been written.
        if picks.len() >= BATCH_ROWS || batches.len() > 4 * cursors.len() {
            write_picks(&batches, &mut picks, writer)?;
            keep_current(&mut batches, &mut heads, &order);
        }
    }
    write_picks(&batches, &mut picks, writer)
}

fn next_head(cursor: &mut Cursor<'_>, encoder: &KeyEncoder, batches: &mut Vec<RecordBatch>) -> Result<Option<Head>> {
    let Some(batch) = cursor.next_batch()? else { return Ok(None) };
    let keys = encoder.encode(batch.columns())?;
    batches.push(batch);
    Ok(Some(Head { batch: batches.len() - 1, keys, row: 0 }))
}

/// Writes the picked rows, given as (batch, row).
fn write_picks(batches: &[RecordBatch], picks: &mut Vec<(usize, usize)>, writer: &mut FileWriter<'_>) -> Result<()> {
    let Some((first, _)) = picks.first() else { return Ok(()) };
    let columns = (0..batches[*first].num_columns()).map(|column| {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        interleave(&parts, picks)
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    picks.clear();
    writer.write(columns)
}

/// Lets go of all batches that none of `runs` stands in.
fn keep_current(batches: &mut Vec<RecordBatch>, heads: &mut [Head], runs: &[usize]) {
    let mut kept = Vec::with_capacity(runs.len());
    for run in runs {
        let head = &mut heads[*run];
        kept.push(batches[head.batch].clone());
        head.batch = kept.len() - 1;
    }
    *batches = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{BinaryRow, ColumnStats};

    fn file(name: usize, level: i32, size: u64, sequence: i64) -> DataFile {
        DataFile {
            name: name.to_string(),
            size,
            rows: size,
            level,
            min_key: BinaryRow::default(),
            max_key: BinaryRow::default(),
            min_sequence: sequence,
            max_sequence: sequence,
            delete_rows: 0,
            schema_id: 0,
            creation_us: 0,
            origin: FileOrigin::Append,
            stats: ColumnStats::default(),
        }
    }

    /// Runs given as (level, size), newest first; the answer as (runs taken, output level).
    fn decide(runs: &[(i32, u64)]) -> Option<(usize, i32)> {
        let files = runs.iter().enumerate().map(|(index, (level, size))| file(index, *level, *size, (runs.len() - index) as i64));
        universal_compaction(&FileSet::new(files.collect()).runs()).map(|spec| (spec.inputs.len(), spec.level))
    }

    #[test]
    fn universal_policy() {
        type Runs = &'static [(i32, u64)];
        let cases: Vec<(Runs, Option<(usize, i32)>)> = vec![
            (&[], None),
            (&[(0, 9), (0, 9), (0, 9), (0, 9)], None),
            // Much newer data: everything to the top.
            (&[(0, 9), (0, 9), (0, 9), (0, 9), (5, 10)], Some((5, 5))),
            (&[(0, 9), (0, 9), (0, 9), (0, 9), (0, 9)], Some((5, 5))),
            // Runs of one size join; the level below the next one is free.
            (&[(0, 10), (0, 10), (0, 10), (0, 10), (5, 1000)], Some((4, 4))),
            // Output may not be in level 0: the run of level 1 joins.
            (&[(0, 10), (0, 10), (0, 10), (1, 5000), (5, 9000)], Some((4, 1))),
            // Too many runs of rising size: the newest are taken until five are left.
            (&[(0, 1), (0, 5), (0, 30), (0, 200), (4, 2000), (5, 20000)], Some((5, 4))),
            (&[(0, 1), (0, 5), (0, 30), (3, 200), (4, 2000), (5, 20000)], Some((4, 3))),
        ];
        for (runs, expected) in cases {
            let decided = decide(runs);
            assert_eq!(decided, expected, "{runs:?}");
            if let Some((taken, level)) = decided {
                assert!(level > 0 && runs[taken..].iter().all(|(other, _)| *other > level), "{runs:?}: a level holds one run");
            }
        }
    }

    /// Every flush adds a file: neither kind of table ever has many, and a row is not written again and again.
    #[test]
    fn files_and_rewriting_stay_bounded() {
        for keyed in [false, true] {
            let mut files = FileSet::default();
            let (mut flushed, mut rewritten) = (0, 0);
            for number in 0..2000 {
                let added = file(number, 0, 1 << 20, number as i64);
                flushed += added.size;
                let edit = |kind, added, removed| FileEdit { table: crate::ObjectId(1), kind, added, removed, up_to: None };
                files = files.apply(&edit(EditKind::Append, vec![added], Vec::new()));
                let due = |files: &FileSet| if keyed { universal_compaction(&files.runs()) } else { append_compaction(files) };
                while let Some(spec) = due(&files) {
                    let removed: Vec<_> =
                        spec.inputs.iter().flat_map(|run| &run.files).map(|file| file.as_ref().clone()).collect();
                    let size = removed.iter().map(|file| file.size).sum::<u64>();
                    rewritten += size;
                    let sequence = removed.iter().map(|file| file.max_sequence).max().expect("some");
                    let merged = file(1_000_000 + number, spec.level, size, sequence);
                    files = files.apply(&edit(EditKind::Compact, vec![merged], removed));
                }
                assert!(files.iter().len() < 60, "{} files after {number} flushes", files.iter().len());
            }
            assert_eq!(files.bytes(), flushed);
            let times_max = if keyed { 20 } else { 6 };
            assert!(rewritten < flushed * times_max, "keyed {keyed}: rewritten {} times", rewritten / flushed);
        }
    }
}
