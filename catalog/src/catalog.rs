//! The catalog: opens a data directory, takes transactions and epochs, hands out versions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::catalog::TableProvider;
use tokio::sync::{oneshot, watch};

use crate::{Changes, Definition, EpochOutput, ObjectId, ObjectName, Result, Seq, StatePart, Storage, Transaction};

/// Bounds and intervals of the catalog.
#[derive(Debug, Clone)]
pub struct Options {
    /// Least time between two commits while there is something to commit. Default 250 ms on a disk, 1 s on an object store.
    pub checkpoint_interval: Duration,
    /// A memtable older than this is flushed to level-0 Parquet. Default 5 s.
    pub flush_interval: Duration,
    /// A memtable larger than this is flushed. Default 32 MiB.
    pub flush_bytes: usize,
    /// A manifest is written after so much time with commits (or 64 MiB of log). Default 5 s.
    pub manifest_interval: Duration,
    /// Rows of recent commits kept in memory for those who follow tables. Default 32 MiB.
    pub tail_bytes: usize,
}

/// Everything at one commit: what a reader sees. Cheap to clone, never changes.
#[derive(Debug)]
pub struct Version {
    /// The commit.
    pub seq: Seq,
    /// The commit that last changed definitions.
    pub definitions_version: u64,
    /// All objects.
    pub objects: Arc<BTreeMap<ObjectId, Arc<Definition>>>,
    /// Names of all objects.
    pub names: Arc<BTreeMap<ObjectName, ObjectId>>,
    // + private: table snapshots, dataflow positions
}

/// Where a dataflow stands.
#[derive(Debug, Clone)]
pub struct DataflowPosition {
    /// Last committed epoch; 0 before the first.
    pub epoch: u64,
    /// Offsets as the engine encoded them.
    pub offsets: Bytes,
    /// Watermark.
    pub watermark: Option<i64>,
    /// All inputs are read.
    pub finished: bool,
    /// The commit of that epoch.
    pub seq: Seq,
}

/// What a dataflow needs to go on.
#[derive(Debug)]
pub struct DataflowRestore {
    /// Where it stands.
    pub position: DataflowPosition,
    /// For each operator its newest image, if there is one, and all deltas since, oldest first.
    pub state: HashMap<u32, Vec<StatePart>>,
}

/// Changes of one table in one commit.
#[derive(Debug, Clone)]
pub struct TableChanges {
    /// The commit.
    pub seq: Seq,
    /// Rows, in order; may be empty when only the watermark moved.
    pub changes: Vec<Changes>,
    /// Watermark of the table's dataflow after this commit.
    pub watermark: Option<i64>,
    /// The table's dataflow has finished: nothing will follow.
    pub finished: bool,
}

/// Follows one table through the log.
#[derive(Debug)]
pub struct ChangeReader {
    // private
}

impl ChangeReader {
    /// The next commit that touches the table or its dataflow; waits for it. `None` when the table was dropped or the catalog closed.
    ///
    /// # Errors
    /// [`crate::Error::TooOld`] when the log no longer holds it.
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<TableChanges>> {
        todo!()
    }
}

/// Numbers about storage for system tables.
#[derive(Debug, Clone, Default)]
pub struct TableStatistics {
    /// Rows in files (unmerged).
    pub file_rows: u64,
    /// Bytes in files.
    pub file_bytes: u64,
    /// Live files.
    pub files: u64,
    /// Live files in level 0.
    pub level0_files: u64,
    /// Rows in the memtable.
    pub memtable_rows: u64,
    /// Bytes in the memtable.
    pub memtable_bytes: u64,
    /// Newest published Paimon snapshot, 0 when none.
    pub snapshot: u64,
}

/// Numbers about commits for system tables.
#[derive(Debug, Clone)]
pub struct CommitRecord {
    /// Commit.
    pub seq: Seq,
    /// Wall time at its start, microseconds since 1970.
    pub started_us: i64,
    /// How long the put took, milliseconds.
    pub duration_ms: f64,
    /// Size of the object.
    pub bytes: u64,
    /// The dataflows in it with their epochs.
    pub dataflows: Vec<(ObjectId, u64)>,
}

/// An open data directory. One per process and directory.
#[derive(Debug)]
pub struct Catalog {
    // private
}

impl Catalog {
    /// Opens the directory: takes the fence, reads the newest manifest and the log after it, redoes what is derived.
    /// `now_us` is the wall clock, microseconds since 1970.
    pub async fn open(storage: Storage, options: Options, now_us: fn() -> i64) -> Result<Arc<Catalog>> {
        let _ = (storage, options, now_us);
        todo!()
    }

    /// The newest committed version.
    pub fn version(&self) -> Arc<Version> {
        todo!()
    }

    /// Tells of every new version.
    pub fn versions(&self) -> watch::Receiver<Arc<Version>> {
        todo!()
    }

    /// A fresh object identity.
    pub fn next_id(&self) -> ObjectId {
        todo!()
    }

    /// Commits a transaction; returns when it is durable and visible.
    pub async fn commit(&self, transaction: Transaction) -> Result<Seq> {
        let _ = transaction;
        todo!()
    }

    /// Hands over a finished epoch. The receiver is told when it is durable and visible.
    /// At most two per dataflow may be waiting.
    pub fn submit(&self, epoch: EpochOutput) -> oneshot::Receiver<Result<Seq>> {
        let _ = epoch;
        todo!()
    }

    /// What dataflow `id` needs to go on; `None` when it has never committed an epoch.
    pub async fn restore(&self, id: ObjectId) -> Result<Option<DataflowRestore>> {
        let _ = id;
        todo!()
    }

    /// Changes of a table after a commit. The log is kept for as long as the reader lives.
    pub fn changes(&self, table: ObjectId, after: Seq) -> Result<ChangeReader> {
        let _ = (table, after);
        todo!()
    }

    /// Writes every memtable to Parquet and publishes the Paimon snapshots; returns when they can be read by others.
    pub async fn flush(&self) -> Result<()> {
        todo!()
    }

    /// Runs all due compactions now (tests, `freshet` admin).
    pub async fn compact(&self) -> Result<()> {
        todo!()
    }

    /// Why commits do not get through at the moment, if so.
    pub fn commit_error(&self) -> Option<String> {
        todo!()
    }

    /// The most recent commits, newest last, bounded.
    pub fn recent_commits(&self) -> Vec<CommitRecord> {
        todo!()
    }

    /// Changes the interval between commits from now on.
    pub fn set_checkpoint_interval(&self, interval: Duration) {
        let _ = interval;
        todo!()
    }

    /// Ends background work and commits what waits. Losing nothing never depends on it.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}

impl Version {
    /// A table at this version, for DataFusion: merged rows of memtable and files. `None` when `id` has no table.
    pub fn table(self: &Arc<Self>, id: ObjectId) -> Option<Arc<dyn TableProvider>> {
        let _ = id;
        todo!()
    }

    /// Where a dataflow stands at this version.
    pub fn dataflow(&self, id: ObjectId) -> Option<DataflowPosition> {
        let _ = id;
        todo!()
    }

    /// Numbers about a table's storage.
    pub fn statistics(&self, id: ObjectId) -> Option<TableStatistics> {
        let _ = id;
        todo!()
    }

    /// An object by name.
    pub fn object(&self, name: &ObjectName) -> Option<&Arc<Definition>> {
        self.objects.get(self.names.get(name)?)
    }
}
