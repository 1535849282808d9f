//! Everything that follows from commits, in the background: flushes, Paimon snapshots, compactions, manifests, and the
//! deletion of what nobody needs. All of it may be lost at any moment and is found due again.
//!
//! One task decides ([`due`], [`recovery::garbage`]) and starts jobs; jobs do one step each and report. A table has at
//! most one job on its memtable and snapshots and one compaction at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::catalog::Shared;
use crate::log::put::backoff;
use crate::log::{Head, MANIFEST_MAGIC, codec, log_path, manifest_path};
use crate::recovery::{self, Recovered};
use crate::table::{self, CompactionSpec, FileEdit, FileSet, Retention, TableSchema};
use crate::version::{Needs, Table};
use crate::{Error, ObjectId, Result, Seq, Version};

/// Jobs at the same time, over all tables.
const FILE_JOBS: usize = 4;
const COMPACTIONS: usize = 2;
/// A manifest is written at the latest after so many bytes of log.
const MANIFEST_LOG_BYTES: u64 = 64 << 20;
/// How often old Paimon snapshots of a table are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// Fences that are kept: a server frozen for longer than so many restarts is not expected to wake.
const FENCES: usize = 1000;
/// Manifests that are kept, the newest among them.
const MANIFESTS: usize = 2;

/// What maintenance is asked for and has done; others wait on it.
#[derive(Debug)]
pub(crate) struct Progress {
    flush_target: AtomicU64,
    wake: Notify,
    made: watch::Sender<()>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { flush_target: AtomicU64::new(0), wake: Notify::new(), made: watch::channel(()).0 }
    }
}

impl Progress {
    /// Rows of commits up to `target` are to be in files soon.
    pub(crate) fn request_flush(&self, target: Seq) {
        self.flush_target.fetch_max(target.0, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Changes whenever something was published.
    pub(crate) fn made(&self) -> watch::Receiver<()> {
        self.made.subscribe()
    }
}

/// The maintenance task's memory.
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
    database: String,
    tables: BTreeMap<ObjectId, Care>,
    /// Tables that are gone, until nobody reads them.
    dropped: Vec<(Weak<TableSchema>, TableSchema)>,
    jobs: JoinSet<Done>,
    ledger: Ledger,
    manifest_running: bool,
    manifest_written: Instant,
    manifest_log_bytes: u64,
    manifest_retry: Retry,
}

/// What exists in the store, and what the last manifest needs.
#[derive(Debug, Clone)]
struct Ledger {
    head: Head,
    fences: Vec<Seq>,
    log: BTreeSet<Seq>,
    manifests: BTreeSet<Seq>,
    state_files: BTreeSet<String>,
    /// Newest manifest.
    manifest: Option<(Seq, Needs)>,
    /// Last commit that `log` knows of.
    seen: Seq,
}

/// One table's care.
#[derive(Debug)]
struct Care {
    schema: Arc<TableSchema>,
    working: bool,
    compacting: bool,
    /// When rows were first seen in the memtable.
    dirty_since: Option<Instant>,
    expired: Instant,
    retry: Retry,
    compaction_retry: Retry,
    /// The set of files that was last found to need no compaction.
    settled: Option<Arc<FileSet>>,
}

/// When something that failed is tried again.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.at = Some(now + backoff(self.failures, u64::from(self.failures).wrapping_mul(397)));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// One step of work on a table's memtable, files and snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Publish,
    Flush,
    Expire,
}

/// What [`due`] decides on.
#[derive(Debug, Clone, Copy)]
struct Facts {
    created: bool,
    unpublished: bool,
    /// The oldest commit in the memtable.
    first: Option<Seq>,
    memtable_bytes: usize,
    /// How long rows have been in the memtable.
    memtable_age: Duration,
    since_expired: Duration,
    has_snapshot: bool,
    flush_target: Seq,
    flush_interval: Duration,
    flush_bytes: usize,
}

/// The next step for a table, or how long there is none.
fn due(facts: Facts) -> Result<Step, Option<Duration>> {
    if !facts.created {
        return Ok(Step::Create);
    }
    if facts.unpublished {
        return Ok(Step::Publish);
    }
    if let Some(first) = facts.first
        && (first <= facts.flush_target
            || facts.memtable_bytes >= facts.flush_bytes
            || facts.memtable_age >= facts.flush_interval)
    {
        return Ok(Step::Flush);
    }
    if facts.has_snapshot && facts.since_expired >= EXPIRE_INTERVAL {
        return Ok(Step::Expire);
    }
    let flush = facts.first.map(|_| facts.flush_interval.saturating_sub(facts.memtable_age));
    let expire = facts.has_snapshot.then(|| EXPIRE_INTERVAL.saturating_sub(facts.since_expired));
    Err(flush.into_iter().chain(expire).min())
}

/// A finished job.
enum Done {
    Step { table: ObjectId, step: Step, result: Result<()> },
    Compaction { table: ObjectId, result: Result<()> },
    Manifest { result: Result<Ledger> },
    Dropped { schema: TableSchema, result: Result<()> },
}

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered) -> Maintenance {
        let Recovered { version, head, fences, log, manifests, mut state_files, manifest, dropped } = recovered;
        state_files.extend(Needs::of(&version).files);
        let now = Instant::now();
        let database = head.database.clone();
        let ledger = Ledger { head, fences, log, manifests, state_files, manifest, seen: version.seq };
        Maintenance {
            shared,
            database,
            tables: BTreeMap::new(),
            dropped: dropped.into_iter().map(|schema| (Weak::new(), schema)).collect(),
            jobs: JoinSet::new(),
            ledger,
            manifest_running: false,
            manifest_written: now,
            manifest_log_bytes: 0,
            manifest_retry: Retry::default(),
        }
    }

    /// Runs until commits end, then waits for running jobs to notice and writes a last manifest.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut versions = shared.versions.clone();
        loop {
            let version = Arc::clone(&versions.borrow_and_update());
            let sleep = self.start_due(&version);
            // Not held while asleep: it would keep files from being deleted.
            drop(version);
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { break },
                () = shared.progress.wake.notified() => {}
                Some(done) = self.jobs.join_next() => self.take_in(done),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.jobs.shutdown().await;
        self.write_last_manifest().await;
    }

    /// Starts what is due; says how long nothing else will be.
    fn start_due(&mut self, version: &Arc<Version>) -> Duration {
        let now = Instant::now();
        let mut sleep = Duration::from_secs(60);
        self.notice_tables(version, now);
        let ids: Vec<ObjectId> = self.tables.keys().copied().collect();
        for id in ids {
            if let Some(table) = version.tables.get(&id) {
                sleep = sleep.min(self.start_step(id, table, version.seq, now));
                sleep = sleep.min(self.start_compaction(id, table, now));
            }
        }
        sleep.min(self.start_manifest(version, now)).min(self.start_drops())
    }

    fn notice_tables(&mut self, version: &Version, now: Instant) {
        for (id, table) in version.tables.iter() {
            let care = self.tables.entry(*id).or_insert_with(|| Care {
                schema: Arc::clone(&table.schema),
                working: false,
                compacting: false,
                dirty_since: None,
                expired: now,
                retry: Retry::default(),
                compaction_retry: Retry::default(),
                settled: None,
            });
            care.schema = Arc::clone(&table.schema);
            care.dirty_since = if table.memtable.is_empty() { None } else { care.dirty_since.or(Some(now)) };
        }
        let gone: Vec<ObjectId> = self.tables.keys().filter(|id| !version.tables.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(care) = self.tables.remove(&id) {
                self.dropped.push((Arc::downgrade(&care.schema), care.schema.as_ref().clone()));
            }
        }
    }

    fn start_step(&mut self, id: ObjectId, table: &Arc<Table>, seq: Seq, now: Instant) -> Duration {
        let options = &self.shared.options;
        let far = Duration::from_secs(60);
        let busy = self.tables.values().filter(|care| care.working).count();
        let Some(care) = self.tables.get_mut(&id) else { return far };
        if care.working || busy >= FILE_JOBS {
            return far;
        }
        if let Some(at) = care.retry.at.filter(|at| *at > now) {
            return at - now;
        }
        let facts = Facts {
            created: table.published.is_created(),
            unpublished: table.unpublished.iter().any(|(seq, _)| !table.published.covers(*seq)),
            first: table.memtable.first_seq(),
            memtable_bytes: table.memtable.bytes(),
            memtable_age: care.dirty_since.map_or(Duration::ZERO, |since| now - since),
            since_expired: now - care.expired,
            has_snapshot: table.published.snapshot() > 0,
            flush_target: Seq(self.shared.progress.flush_target.load(Ordering::Acquire)),
            flush_interval: options.flush_interval,
            flush_bytes: options.flush_bytes,
        };
        match due(facts) {
            Ok(step) => {
                care.working = true;
                let (shared, table, database) = (Arc::clone(&self.shared), Arc::clone(table), self.database.clone());
                self.jobs.spawn(async move {
                    let result = caught(run_step(&shared, step, &table, seq, &database)).await;
                    Done::Step { table: id, step, result }
                });
                far
            }
            Err(wait) => wait.unwrap_or(far),
        }
    }

    fn start_compaction(&mut self, id: ObjectId, table: &Arc<Table>, now: Instant) -> Duration {
        let far = Duration::from_secs(60);
        let running = self.tables.values().filter(|care| care.compacting).count();
        let Some(care) = self.tables.get_mut(&id) else { return far };
        let settled = care.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, &table.files));
        if care.compacting || running >= COMPACTIONS || settled || !care.compaction_retry.is_due(now) {
            return care.compaction_retry.at.filter(|at| *at > now).map_or(far, |at| at - now);
        }
        let Some(spec) = table::compaction(&table.files, &table.schema) else {
            care.settled = Some(Arc::clone(&table.files));
            return far;
        };
        care.compacting = true;
        let (shared, table) = (Arc::clone(&self.shared), Arc::clone(table));
        self.jobs.spawn(async move {
            let result = caught(run_compaction(&shared, &table, &spec)).await;
            Done::Compaction { table: id, result }
        });
        far
    }

    fn start_manifest(&mut self, version: &Arc<Version>, now: Instant) -> Duration {
        let far = Duration::from_secs(60);
        for seq in (self.ledger.seen.0 + 1)..=version.seq.0 {
            self.ledger.log.insert(Seq(seq));
        }
        self.ledger.seen = version.seq;
        let written = self.ledger.manifest.as_ref().map_or(Seq(0), |(seq, _)| *seq);
        if self.manifest_running || version.seq <= written {
            return far;
        }
        if let Some(at) = self.manifest_retry.at.filter(|at| *at > now) {
            return at - now;
        }
        let age = now - self.manifest_written;
        let log_bytes = self.shared.commit_bytes() - self.manifest_log_bytes;
        let interval = self.shared.options.manifest_interval;
        if age < interval && log_bytes < MANIFEST_LOG_BYTES {
            return interval - age;
        }
        self.manifest_running = true;
        self.manifest_log_bytes = self.shared.commit_bytes();
        let (shared, ledger, version) = (Arc::clone(&self.shared), self.ledger.clone(), Arc::clone(version));
        self.jobs.spawn(async move { Done::Manifest { result: write_manifest(&shared, ledger, version).await } });
        far
    }

    fn start_drops(&mut self) -> Duration {
        let waiting = std::mem::take(&mut self.dropped);
        for (users, schema) in waiting {
            if users.strong_count() > 0 {
                self.dropped.push((users, schema));
                continue;
            }
            let shared = Arc::clone(&self.shared);
            self.jobs.spawn(async move {
                let result = table::drop_table(&shared.storage, &schema).await;
                Done::Dropped { schema, result }
            });
        }
        if self.dropped.is_empty() { Duration::from_secs(60) } else { Duration::from_secs(1) }
    }

    fn take_in(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Instant::now();
        let done = match done {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        match done {
            Done::Step { table, step, result } => {
                let Some(care) = self.tables.get_mut(&table) else { return };
                care.working = false;
                if step == Step::Expire {
                    care.expired = now;
                }
                if step == Step::Flush && result.is_ok() {
                    // Rows that came meanwhile are as old as this moment at most; they are looked at anew.
                    care.dirty_since = None;
                }
                settle(&self.shared, &mut care.retry, &result, now, &format!("{step:?}"), table);
                self.shared.progress.made.send_replace(());
            }
            Done::Compaction { table, result } => {
                let Some(care) = self.tables.get_mut(&table) else { return };
                care.compacting = false;
                settle(&self.shared, &mut care.compaction_retry, &result, now, "Compaction", table);
            }
            Done::Manifest { result } => {
                self.manifest_running = false;
                match result {
                    Ok(ledger) => {
                        self.manifest_retry = Retry::default();
                        self.manifest_written = now;
                        let seen = self.ledger.seen;
                        let newer = self.ledger.log.range(Seq(ledger.seen.0 + 1)..).copied().collect::<Vec<_>>();
                        self.ledger = ledger;
                        self.ledger.log.extend(newer);
                        self.ledger.seen = seen;
                    }
                    Err(error) => {
                        self.manifest_retry.failed(now);
                        self.shared.count(|counters| counters.maintenance_failures += 1);
                        tracing::warn!(%error, "manifest could not be written, trying again");
                    }
                }
            }
            Done::Dropped { schema, result } => {
                if let Err(error) = result {
                    tracing::warn!(%error, path = schema.path, "files of a dropped table could not be deleted, trying again");
                    self.dropped.push((Weak::new(), schema));
                }
            }
        }
    }

    async fn write_last_manifest(&mut self) {
        let version = self.shared.version();
        for seq in (self.ledger.seen.0 + 1)..=version.seq.0 {
            self.ledger.log.insert(Seq(seq));
        }
        self.ledger.seen = version.seq;
        let written = self.ledger.manifest.as_ref().map_or(Seq(0), |(seq, _)| *seq);
        let fenced = matches!(self.shared.closed(), Error::Fenced { .. });
        if version.seq > written
            && !fenced
            && let Err(error) = write_manifest(&self.shared, self.ledger.clone(), version).await
        {
            tracing::warn!(%error, "last manifest could not be written; the log is read instead");
        }
    }
}

/// Notes the outcome: a conflict means that the table has moved on, and the work is found due again at once.
fn settle(shared: &Shared, retry: &mut Retry, result: &Result<()>, now: Instant, what: &str, table: ObjectId) {
    match result {
        Ok(()) | Err(Error::Conflict { .. }) => *retry = Retry::default(),
        Err(Error::Closed | Error::Fenced { .. }) => retry.failed(now),
        Err(error) => {
            retry.failed(now);
            shared.count(|counters| counters.maintenance_failures += 1);
            tracing::warn!(%error, detail = error.detail(), step = what, table = table.0, "table could not be tended, trying again");
        }
    }
}

/// A panic of a job is a fault of ours in one table: it is told and tried again like a failure, the others go on.
async fn caught(job: impl Future<Output = Result<()>>) -> Result<()> {
    AssertUnwindSafe(job).catch_unwind().await.unwrap_or_else(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let reason = format!("a background job panicked: {}", reason.unwrap_or("no reason given"));
        Err(Error::Arrow(arrow::error::ArrowError::ComputeError(reason)))
    })
}

async fn run_step(shared: &Shared, step: Step, table: &Table, seq: Seq, database: &str) -> Result<()> {
    let (storage, schema, now_us) = (&shared.storage, &table.schema, (shared.now_us)());
    match step {
        Step::Create => {
            table::create(storage, schema, now_us).await?;
            table.published.set_created();
        }
        Step::Publish => {
            for (seq, edit) in table.unpublished.iter().filter(|(seq, _)| !table.published.covers(*seq)) {
                let snapshot = table::publish(storage, schema, database, *seq, edit, now_us).await?;
                table.published.note_snapshot(snapshot);
            }
            if let Some((seq, _)) = table.unpublished.last() {
                table.published.set(*seq);
            }
        }
        Step::Flush => {
            let mut edit = table::flush(storage, schema, &table.memtable, table.files.next_sequence(), now_us).await?;
            edit.up_to = Some(edit.up_to.unwrap_or(seq));
            submit(shared, schema, edit).await?;
            shared.count(|counters| counters.flushes += 1);
        }
        Step::Expire => table::expire(storage, schema, Retention::default(), &table.files, now_us).await?,
    }
    Ok(())
}

async fn run_compaction(shared: &Shared, table: &Table, spec: &CompactionSpec) -> Result<()> {
    let edit = table::compact(&shared.storage, &table.schema, spec, (shared.now_us)()).await?;
    submit(shared, &table.schema, edit).await?;
    shared.count(|counters| counters.compactions += 1);
    Ok(())
}

/// Commits an edit. When it was refused for certain, its new files are deleted; on any doubt they stay.
async fn submit(shared: &Shared, schema: &TableSchema, edit: FileEdit) -> Result<()> {
    let added: Vec<Path> = edit.added.iter().map(|file| schema.data_file(&file.name)).collect();
    let refused = match shared.inbox.files(edit).await {
        Ok(_) => return Ok(()),
        Err(refused) => refused,
    };
    if matches!(refused, Error::Conflict { .. }) {
        for path in added {
            if let Err(error) = shared.storage.store.delete(&path).await {
                tracing::debug!(%path, %error, "file of a refused edit stays");
            }
        }
    }
    Err(refused)
}

/// Writes the manifest of `version`, then deletes what neither it nor the one before it nor any reader needs.
async fn write_manifest(shared: &Shared, mut ledger: Ledger, version: Arc<Version>) -> Result<Ledger> {
    let excess = ledger.fences.len().saturating_sub(FENCES);
    ledger.fences.drain(..excess);
    let needs = Needs::of(&version);
    let head = Head {
        seq: version.seq,
        time_us: (shared.now_us)(),
        next_id: shared.next_id.load(Ordering::Acquire),
        fences: ledger.fences.clone(),
        definitions_version: version.definitions_version,
        ..ledger.head.clone()
    };
    let seq = version.seq;
    let content = tokio::task::spawn_blocking(move || codec::encode(MANIFEST_MAGIC, &head, &version.to_sections()))
        .await
        .map_err(|_| Error::Closed)?;
    let path = manifest_path(seq);
    let put = shared.storage.store.put(&path, content.into()).await;
    put.map_err(|source| Error::Store { action: "write", path: path.to_string(), source })?;
    let before = ledger.manifest.replace((seq, needs.clone()));
    ledger.manifests.insert(seq);
    collect_garbage(shared, &mut ledger, before.map(|(_, needs)| needs), &needs).await;
    Ok(ledger)
}

async fn collect_garbage(shared: &Shared, ledger: &mut Ledger, before: Option<Needs>, newest: &Needs) {
    // The manifest before the newest must stay readable; until there is one, the log itself is it.
    let Some(before) = before else { return };
    let from = shared.tail.keep_from(before.from.min(newest.from));
    let exact = before.exact.union(&newest.exact).copied().collect();
    for seq in delete(shared, recovery::garbage(&ledger.log, from, &exact, &ledger.fences), |seq| log_path(*seq)).await {
        ledger.log.remove(&seq);
    }
    let old = ledger.manifests.iter().rev().skip(MANIFESTS).copied().collect();
    for seq in delete(shared, old, |seq| manifest_path(*seq)).await {
        ledger.manifests.remove(&seq);
    }
    let present = Needs::of(&shared.version()).files;
    ledger.state_files.extend(newest.files.iter().cloned());
    let unused: Vec<String> = ledger
        .state_files
        .iter()
        .filter(|name| ![&before.files, &newest.files, &present].into_iter().any(|needed| needed.contains(*name)))
        .cloned()
        .collect();
    // A restore may still read what an epoch committed meanwhile has replaced.
    if shared.restores.load(Ordering::Acquire) == 0 {
        for name in delete(shared, unused, |name| Path::from(name.as_str())).await {
            ledger.state_files.remove(&name);
        }
    }
}

/// Deletes objects; returns those that are gone. The others are tried again with the next manifest.
async fn delete<T: Clone>(shared: &Shared, items: Vec<T>, path: impl Fn(&T) -> Path) -> Vec<T> {
    let paths: Vec<_> = items.iter().map(|item| Ok(path(item))).collect();
    let by_path: BTreeMap<Path, T> = items.into_iter().map(|item| (path(&item), item)).collect();
    let mut deleted = shared.storage.store.delete_stream(stream::iter(paths).boxed());
    let mut gone = Vec::new();
    while let Some(result) = deleted.next().await {
        match result {
            Ok(path) => gone.extend(by_path.get(&path).cloned()),
            // A local store names the file, not the object.
            Err(object_store::Error::NotFound { path, .. }) => {
                gone.extend(by_path.iter().find(|(object, _)| path.ends_with(object.as_ref())).map(|(_, item)| item.clone()));
            }
            Err(error) => tracing::warn!(%error, "object could not be deleted, trying again later"),
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_from_the_facts() {
        let calm = Facts {
            created: true,
            unpublished: false,
            first: None,
            memtable_bytes: 0,
            memtable_age: Duration::ZERO,
            since_expired: Duration::ZERO,
            has_snapshot: false,
            flush_target: Seq(0),
            flush_interval: Duration::from_secs(5),
            flush_bytes: 100,
        };
        let filled = Facts { first: Some(Seq(7)), memtable_bytes: 10, memtable_age: Duration::from_secs(2), ..calm };
        let cases = [
            (calm, Err(None)),
            (Facts { created: false, ..filled }, Ok(Step::Create)),
            (Facts { unpublished: true, memtable_bytes: 1000, ..filled }, Ok(Step::Publish)),
            (filled, Err(Some(Duration::from_secs(3)))),
            (Facts { memtable_bytes: 100, ..filled }, Ok(Step::Flush)),
            (Facts { memtable_age: Duration::from_secs(5), ..filled }, Ok(Step::Flush)),
            (Facts { flush_target: Seq(7), ..filled }, Ok(Step::Flush)),
            (Facts { flush_target: Seq(6), ..filled }, Err(Some(Duration::from_secs(3)))),
            (Facts { has_snapshot: true, since_expired: EXPIRE_INTERVAL, ..calm }, Ok(Step::Expire)),
            (Facts { has_snapshot: true, ..calm }, Err(Some(EXPIRE_INTERVAL))),
        ];
        for (facts, expected) in cases {
            assert_eq!(due(facts), expected, "{facts:?}");
        }
    }
}
