//! The catalog: opens a data directory, takes transactions and epochs, hands out versions.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::log::committer::{Committer, Inbox};
use crate::log::tail::{ChangeReader, Tail};
use crate::log::{Section, StatePlace, StateRef, log_path};
use crate::maintenance::{Maintenance, Progress};
use crate::recovery::{self, Recovered};
use crate::version::DataflowPosition;
use crate::{EpochOutput, Error, ObjectId, Result, Seq, StatePart, Storage, Transaction, Version};

/// Commits remembered for system tables.
const RECENT_COMMITS: usize = 256;
/// State parts read at the same time.
const STATE_READS: usize = 16;

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

impl Default for Options {
    fn default() -> Self {
        Options {
            checkpoint_interval: Duration::from_millis(250),
            flush_interval: Duration::from_secs(5),
            flush_bytes: 32 << 20,
            manifest_interval: Duration::from_secs(5),
            tail_bytes: 32 << 20,
        }
    }
}

/// What a dataflow needs to go on.
#[derive(Debug)]
pub struct DataflowRestore {
    /// Where it stands.
    pub position: DataflowPosition,
    /// For each operator its newest image, if there is one, and all deltas since, oldest first.
    pub state: HashMap<u32, Vec<StatePart>>,
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

/// Numbers since the start, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogCounters {
    /// Commits of this server.
    pub commits: u64,
    /// Bytes of their log objects.
    pub commit_bytes: u64,
    /// Flushes of memtables that were committed.
    pub flushes: u64,
    /// Compactions that were committed.
    pub compactions: u64,
    /// Flushes, compactions, publications and manifests that failed and are tried again.
    pub maintenance_failures: u64,
}

/// An open data directory. One per process and directory. Dropping it stops all work at once, as a kill would.
#[derive(Debug)]
pub struct Catalog {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    _lock: Option<File>,
}

/// What the facade, the committer and the maintenance have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub storage: Storage,
    pub options: Options,
    pub now_us: fn() -> i64,
    pub versions: watch::Receiver<Arc<Version>>,
    pub inbox: Arc<Inbox>,
    pub tail: Arc<Tail>,
    pub next_id: AtomicU64,
    pub progress: Progress,
    /// Restores that are reading state parts: no state file is deleted meanwhile.
    pub restores: AtomicUsize,
    checkpoint_interval_us: AtomicU64,
    /// Generation that has replaced this server; 0 while none has.
    fenced: AtomicU64,
    status: Mutex<Status>,
}

#[derive(Debug, Default)]
struct Status {
    commit_error: Option<String>,
    recent: VecDeque<CommitRecord>,
    counters: CatalogCounters,
}

impl Catalog {
    /// Opens the directory: takes the fence, reads the newest manifest and the log after it, redoes what is derived.
    /// `now_us` is the wall clock, microseconds since 1970.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::FormatVersion`], [`Error::Corrupt`], [`Error::Store`].
    pub async fn open(storage: Storage, options: Options, now_us: fn() -> i64) -> Result<Arc<Catalog>> {
        let lock = storage.lock()?;
        let mut recovered = recovery::recover(&storage).await?;
        recovery::fence(&storage, &mut recovered, now_us()).await?;
        let Recovered { version, head, .. } = &recovered;
        let (seq, head) = (version.seq, head.clone());
        let kept_from = match &recovered.manifest {
            Some((_, needs)) => needs.from,
            None => Seq(1),
        };
        let next_id = version.objects.keys().next_back().map_or(0, |id| id.0 + 1).max(head.next_id).max(ObjectId::FIRST_USER.0);
        let version = Arc::new(version.clone());
        let (publisher, versions) = watch::channel(version);
        let shared = Arc::new(Shared {
            checkpoint_interval_us: AtomicU64::new(micros(options.checkpoint_interval)),
            tail: Arc::new(Tail::new(options.tail_bytes, kept_from)),
            inbox: Arc::new(Inbox::new()),
            next_id: AtomicU64::new(next_id),
            progress: Progress::default(),
            restores: AtomicUsize::new(0),
            fenced: AtomicU64::new(0),
            status: Mutex::default(),
            storage,
            options,
            now_us,
            versions,
        });
        tracing::info!(seq = seq.0, generation = head.generation, data = shared.storage.url, "data directory opened");
        let maintenance = Maintenance::new(Arc::clone(&shared), recovered);
        let committer = Committer::new(Arc::clone(&shared), publisher, head);
        Ok(Arc::new(Catalog {
            shared,
            committer: Mutex::new(Some(tokio::spawn(committer.run()))),
            maintenance: Mutex::new(Some(tokio::spawn(maintenance.run()))),
            _lock: lock,
        }))
    }

    /// The newest committed version.
    pub fn version(&self) -> Arc<Version> {
        self.shared.version()
    }

    /// Tells of every new version.
    pub fn versions(&self) -> watch::Receiver<Arc<Version>> {
        self.shared.versions.clone()
    }

    /// A fresh object identity. It is never given away again once a commit has followed.
    pub fn next_id(&self) -> ObjectId {
        ObjectId(self.shared.next_id.fetch_add(1, Ordering::AcqRel))
    }

    /// Commits a transaction; returns when it is durable and visible.
    ///
    /// # Errors
    /// [`Error::Conflict`] when its conditions no longer hold, [`Error::Fenced`] and [`Error::Closed`] when nothing is
    /// committed any more.
    pub async fn commit(&self, transaction: Transaction) -> Result<Seq> {
        match self.shared.inbox.transaction(transaction).await {
            Err(Error::Closed) => Err(self.shared.closed()),
            result => result,
        }
    }

    /// Hands over a finished epoch. The receiver is told when it is durable and visible.
    /// At most two per dataflow may be waiting.
    pub fn submit(&self, epoch: EpochOutput) -> oneshot::Receiver<Result<Seq>> {
        self.shared.inbox.epoch(epoch, self.shared.storage.clone(), &|| self.shared.closed())
    }

    /// What dataflow `id` needs to go on; `None` when it has never committed an epoch.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Corrupt`] for the log objects and files that hold its state.
    pub async fn restore(&self, id: ObjectId) -> Result<Option<DataflowRestore>> {
        let _reading = Restoring::new(&self.shared);
        // The pin comes first: what the version needs when it is taken afterwards is kept.
        let pin = self.shared.tail.pin_present(Seq(0));
        let Some(dataflow) = self.version().dataflows.get(&id).cloned() else { return Ok(None) };
        let refs: Vec<StateRef> = dataflow.state.values().flat_map(|refs| refs.iter().cloned()).collect();
        let parts = futures::stream::iter(refs.into_iter().map(|part| self.read_state(id, part)));
        let parts: Vec<(u32, StatePart)> = parts.buffered(STATE_READS).try_collect().await?;
        drop(pin);
        let mut state: HashMap<u32, Vec<StatePart>> = HashMap::new();
        parts.into_iter().for_each(|(operator, part)| state.entry(operator).or_default().push(part));
        Ok(Some(DataflowRestore { position: dataflow.position.clone(), state }))
    }

    /// Changes of a table after a commit. The log is kept for as long as the reader lives.
    ///
    /// # Errors
    /// [`Error::TooOld`] when the commit after that one is no longer kept.
    pub fn changes(&self, table: ObjectId, after: Seq) -> Result<ChangeReader> {
        let Shared { tail, storage, versions, .. } = &*self.shared;
        ChangeReader::new(table, after, Arc::clone(tail), storage.clone(), versions.clone())
    }

    /// Writes every memtable to Parquet and publishes the Paimon snapshots; returns when they can be read by others.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::Fenced`] when that will not happen any more.
    /// # Cancel safety
    /// Safe; the flushes go on.
    pub async fn flush(&self) -> Result<()> {
        let target = self.version().seq;
        self.shared.progress.request_flush(target);
        let in_files = |version: &Version| {
            version.tables.values().all(|table| table.memtable.first_seq().is_none_or(|first| first > target))
        };
        let edits_up_to = self.until(in_files).await?.seq;
        let published = |version: &Version| {
            version.tables.values().all(|table| {
                let open = table.unpublished.iter().any(|(seq, _)| *seq <= edits_up_to && !table.published.covers(*seq));
                table.published.is_created() && !open
            })
        };
        self.until(published).await.map(|_| ())
    }

    /// Runs all due compactions now (tests, `freshet` admin).
    ///
    /// # Errors
    /// As for [`Self::flush`].
    pub async fn compact(&self) -> Result<()> {
        let merged = |version: &Version| {
            version.tables.values().all(|table| crate::table::compaction(&table.files, &table.schema).is_none())
        };
        self.until(merged).await.map(|_| ())
    }

    /// Why commits do not get through at the moment, if so.
    pub fn commit_error(&self) -> Option<String> {
        self.shared.status.lock().commit_error.clone()
    }

    /// The most recent commits, newest last, bounded.
    pub fn recent_commits(&self) -> Vec<CommitRecord> {
        self.shared.status.lock().recent.iter().cloned().collect()
    }

    /// Numbers since the start.
    pub fn counters(&self) -> CatalogCounters {
        self.shared.status.lock().counters
    }

    /// Where the data is; its `requests` are counted.
    pub fn storage(&self) -> &Storage {
        &self.shared.storage
    }

    /// Changes the interval between commits from now on.
    pub fn set_checkpoint_interval(&self, interval: Duration) {
        self.shared.checkpoint_interval_us.store(micros(interval), Ordering::Relaxed);
    }

    /// Ends background work and commits what waits. Losing nothing never depends on it.
    ///
    /// # Errors
    /// Why what waited could not be committed.
    pub async fn close(&self) -> Result<()> {
        self.shared.inbox.close();
        let committer = self.committer.lock().take();
        if let Some(committer) = committer {
            committer.await.map_err(|_| Error::Closed)?;
        }
        // It sees that the versions have ended, and writes a last manifest.
        let maintenance = self.maintenance.lock().take();
        if let Some(maintenance) = maintenance {
            maintenance.await.map_err(|_| Error::Closed)?;
        }
        match self.shared.fenced.load(Ordering::Acquire) {
            0 => Ok(()),
            newer => Err(Error::Fenced { newer }),
        }
    }

    /// Waits until `reached` is true of the newest version.
    async fn until(&self, reached: impl Fn(&Version) -> bool) -> Result<Arc<Version>> {
        let mut versions = self.versions();
        let mut progress = self.shared.progress.made();
        loop {
            let version = Arc::clone(&versions.borrow_and_update());
            progress.borrow_and_update();
            if reached(&version) {
                return Ok(version);
            }
            tokio::select! {
                changed = versions.changed() => changed.map_err(|_| self.shared.closed())?,
                changed = progress.changed() => changed.map_err(|_| self.shared.closed())?,
            }
        }
    }

    async fn read_state(&self, dataflow: ObjectId, part: StateRef) -> Result<(u32, StatePart)> {
        let storage = &self.shared.storage;
        let payload = if let Some(file) = &part.file {
            let content = storage.read(&Path::from(file.path.as_str())).await?;
            file.verify(&content)?;
            content
        } else {
            let (_, sections) = recovery::read_commit(storage, part.seq).await?;
            let found = sections.into_iter().find_map(|section| match section {
                Section::Dataflow(section) if section.dataflow == dataflow && section.epoch == part.epoch => {
                    section.state.into_iter().nth(part.index as usize)
                }
                _ => None,
            });
            match found.map(|part| part.place) {
                Some(StatePlace::Inline(payload)) => payload,
                _ => {
                    let reason = format!("state of dataflow {} epoch {} is missing", dataflow.0, part.epoch);
                    return Err(Error::Corrupt { path: log_path(part.seq).to_string(), reason });
                }
            }
        };
        Ok((part.operator, StatePart { operator: part.operator, kind: part.kind, payload }))
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        for task in [self.committer.lock().take(), self.maintenance.lock().take()].into_iter().flatten() {
            task.abort();
        }
    }
}

impl Shared {
    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.versions.borrow())
    }

    pub(crate) fn checkpoint_interval(&self) -> Duration {
        Duration::from_micros(self.checkpoint_interval_us.load(Ordering::Relaxed))
    }

    pub(crate) fn set_commit_error(&self, error: Option<String>) {
        self.status.lock().commit_error = error;
    }

    pub(crate) fn set_fenced(&self, newer: Option<u64>) {
        self.fenced.store(newer.unwrap_or(0), Ordering::Release);
    }

    pub(crate) fn record(&self, commit: CommitRecord) {
        let mut status = self.status.lock();
        status.counters.commits += 1;
        status.counters.commit_bytes += commit.bytes;
        if status.recent.len() == RECENT_COMMITS {
            status.recent.pop_front();
        }
        status.recent.push_back(commit);
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut CatalogCounters)) {
        change(&mut self.status.lock().counters);
    }

    pub(crate) fn commit_bytes(&self) -> u64 {
        self.status.lock().counters.commit_bytes
    }

    /// Why nothing is committed any more.
    pub(crate) fn closed(&self) -> Error {
        match self.fenced.load(Ordering::Acquire) {
            0 => Error::Closed,
            newer => Error::Fenced { newer },
        }
    }
}

/// A restore in progress.
struct Restoring<'a>(&'a Shared);

impl<'a> Restoring<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.restores.fetch_add(1, Ordering::AcqRel);
        Restoring(shared)
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.0.restores.fetch_sub(1, Ordering::AcqRel);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
