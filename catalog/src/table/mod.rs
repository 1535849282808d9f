//! Rows of one table: a memtable of what the log holds, Paimon files for the rest, and one consistent view of both.
//!
//! ```text
//!   commit ─▶ Memtable ──flush──▶ DataFile level 0 ──compact──▶ DataFile level n
//!                 │                     │  FileEdit, in the log    │
//!                 └──── TableSnapshot ──┴── FileSet ◀──────────────┘ ──publish──▶ Paimon snapshot-N
//! ```
//!
//! The truth about files is the sequence of [`FileEdit`]s in the log; Paimon's snapshots are derived from it by
//! [`publish`], any number of times. The functions here keep no state of their own: who calls them keeps the
//! [`FileSet`] and the [`Memtable`], and calls them for one table one after the other.
//!
//! Order for a table: [`create`] before its first [`flush`]; a flush or a compaction, then the commit of its edit, then
//! [`publish`]; [`expire`] now and then; [`drop_table`] last, before another table of that name is created.

mod binary_row;
mod check;
mod compaction;
mod data_file;
mod expire;
mod flush;
mod manifest;
mod memtable;
mod merge;
mod merge_scan;
mod provider;
mod resident;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use resident::ResidentCell;

pub(crate) use binary_row::BinaryRow;
pub use check::Finding;
pub(crate) use check::check;
pub(crate) use compaction::{CompactionSpec, compact, compaction};
pub(crate) use expire::{Retention, expire};
pub(crate) use flush::flush;
pub(crate) use memtable::Memtable;
pub(crate) use provider::TableSnapshot;
pub(crate) use schema::{TableSchema, create, drop_table};
pub(crate) use snapshot::publish;

use crate::{Error, ObjectId, Result, Seq};

/// The highest level: the base of a table, where no delete is kept. Fixed for the life of a table (Paimon's `num-levels` − 1).
pub(crate) const TOP_LEVEL: i32 = 5;

/// One immutable Parquet file of a table, with everything that a Paimon manifest says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataFile {
    /// Name within the bucket; never used twice.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Rows, deletes included.
    pub(crate) rows: u64,
    /// Age class: 0 as flushed, up to [`TOP_LEVEL`].
    pub(crate) level: i32,
    /// Key of the first row; empty without a primary key.
    pub(crate) min_key: BinaryRow,
    /// Key of the last row.
    pub(crate) max_key: BinaryRow,
    /// Lowest sequence number of its rows.
    pub(crate) min_sequence: i64,
    /// Highest sequence number of its rows.
    pub(crate) max_sequence: i64,
    /// Rows that say "deleted".
    pub(crate) delete_rows: u64,
    /// Schema version it was written with.
    pub(crate) schema_id: i64,
    /// When it was written, microseconds since 1970.
    pub(crate) creation_us: i64,
    /// Who made it.
    pub(crate) origin: FileOrigin,
    /// Bounds of each column.
    pub(crate) stats: ColumnStats,
    /// CRC-32 of all bytes; Paimon's manifests have no place for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<u32>,
}

/// Whether a file's rows came from a memtable or from other files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileOrigin {
    /// A flush.
    Append,
    /// A compaction.
    Compact,
}

/// Bounds and null counts of all columns, in their order; a null bound is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ColumnStats {
    /// Lower bounds.
    pub(crate) min: BinaryRow,
    /// Upper bounds.
    pub(crate) max: BinaryRow,
    /// Number of nulls.
    pub(crate) null_counts: Vec<Option<i64>>,
}

/// What a file edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EditKind {
    /// Rows of the memtable are in files now.
    Append,
    /// The same rows in fewer files.
    Compact,
    /// All rows are gone.
    Truncate,
}

/// A change of a table's files. At most one of each kind per table and commit, in the order Truncate, Append, Compact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEdit {
    /// The table.
    pub(crate) table: ObjectId,
    /// What it does.
    pub(crate) kind: EditKind,
    /// New files.
    pub(crate) added: Vec<DataFile>,
    /// Files that no longer belong to the table.
    pub(crate) removed: Vec<DataFile>,
    /// Rows of commits up to this one are in files now: the memtable is trimmed to what is after it.
    pub(crate) up_to: Option<Seq>,
}

impl FileEdit {
    /// All files leave; `up_to` is the commit before which every row is gone.
    pub(crate) fn truncate(table: ObjectId, files: &FileSet, up_to: Seq) -> FileEdit {
        let removed = files.iter().map(|file| file.as_ref().clone()).collect();
        FileEdit { table, kind: EditKind::Truncate, added: Vec::new(), removed, up_to: Some(up_to) }
    }
}

/// The live files of a table. Whoever holds a set keeps its files from being deleted by [`expire`].
#[derive(Debug, Clone, Default)]
pub(crate) struct FileSet {
    live: Vec<Arc<DataFile>>,
    /// Files removed by earlier edits that some reader may still hold.
    retired: Vec<Weak<DataFile>>,
    resident: ResidentCell,
}

impl FileSet {
    /// The set with these files, as a manifest of the log lists them.
    pub(crate) fn new(files: Vec<DataFile>) -> FileSet {
        FileSet { live: files.into_iter().map(Arc::new).collect(), ..FileSet::default() }
    }

    /// Live files, for a manifest of the log.
    pub(crate) fn to_vec(&self) -> Vec<DataFile> {
        self.live.iter().map(|file| file.as_ref().clone()).collect()
    }

    /// Live files.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<DataFile>> {
        self.live.iter()
    }

    /// Whether there is no file.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether all files that `edit` removes are still live. An edit for which this is false must be thrown away:
    /// a truncation or another compaction came first.
    pub(crate) fn admits(&self, edit: &FileEdit) -> bool {
        let live: HashSet<&str> = self.live.iter().map(|file| file.name.as_str()).collect();
        edit.removed.iter().all(|file| live.contains(file.name.as_str()))
    }

    /// The set after `edit`.
    pub(crate) fn apply(&self, edit: &FileEdit) -> FileSet {
        let gone: HashSet<&str> = edit.removed.iter().map(|file| file.name.as_str()).collect();
        let (removed, mut live): (Vec<_>, Vec<_>) = self.live.iter().cloned().partition(|file| gone.contains(file.name.as_str()));
        live.extend(edit.added.iter().cloned().map(Arc::new));
        let mut retired: Vec<_> = self.retired.iter().filter(|file| file.strong_count() > 0).cloned().collect();
        retired.extend(removed.iter().map(Arc::downgrade));
        let resident = if edit.kind == EditKind::Compact { self.resident.clone() } else { ResidentCell::default() };
        FileSet { live, retired, resident }
    }

    /// The same set, always read from its files.
    #[cfg(test)]
    fn always_from_files(&self) -> FileSet {
        FileSet { resident: ResidentCell::never(), ..self.clone() }
    }

    /// Names of removed files that a reader still holds.
    pub(crate) fn pinned(&self) -> HashSet<String> {
        self.retired.iter().filter_map(Weak::upgrade).map(|file| file.name.clone()).collect()
    }

    /// The number for the rows of the next flush: above that of every live row, so that newer wins in all readers.
    pub(crate) fn next_sequence(&self) -> i64 {
        self.live.iter().map(|file| file.max_sequence + 1).max().unwrap_or(0)
    }

    /// Sorted runs, newest first: the files of one flush are one, each level above 0 is one. Within a run a key stands once.
    pub(crate) fn runs(&self) -> Vec<SortedRun> {
        let mut files = self.live.clone();
        // Within a run the order stays: an edit lists the files of a run by key.
        let age =
            |file: &DataFile| (file.level == 0).then_some(Reverse((file.max_sequence, file.min_sequence, file.creation_us)));
        files.sort_by_key(|file| (file.level, age(file)));
        let mut runs: Vec<SortedRun> = Vec::new();
        for file in files {
            match runs.last_mut() {
                Some(run) if run.level == file.level && (file.level > 0 || run.files[0].max_sequence == file.max_sequence) => {
                    run.files.push(file);
                }
                _ => runs.push(SortedRun { level: file.level, files: vec![file] }),
            }
        }
        runs
    }

    /// Rows in all files, unmerged.
    pub(crate) fn rows(&self) -> u64 {
        self.live.iter().map(|file| file.rows).sum()
    }

    /// Bytes in all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.live.iter().map(|file| file.size).sum()
    }
}

/// Files in disjoint key order.
#[derive(Debug, Clone)]
pub(crate) struct SortedRun {
    /// Level of all of them.
    pub(crate) level: i32,
    /// The files by rising key; never none.
    pub(crate) files: Vec<Arc<DataFile>>,
}

impl SortedRun {
    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Rows that say "deleted".
    pub(crate) fn delete_rows(&self) -> u64 {
        self.files.iter().map(|file| file.delete_rows).sum()
    }
}

/// A store call's error with what it was for.
fn store_error(action: &'static str, path: &object_store::path::Path) -> impl FnOnce(object_store::Error) -> Error {
    let path = path.to_string();
    move |source| Error::Store { action, path, source }
}

/// A file that is not as it should be.
fn corrupt(path: impl ToString, reason: impl ToString) -> Error {
    Error::Corrupt { path: path.to_string(), reason: reason.to_string() }
}

/// Runs CPU work off the async threads.
async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed),
    }
}
