//! Group commit: one task takes what is ready, checks it against the newest version, creates one log object and publishes.
//!
//! 1. Requests wait in the [`Inbox`], in order, already encoded. Those not ready are passed over, and with them all later
//!    ones of the same dataflow, so a slow dataflow joins a later commit and delays nobody else.
//! 2. Each is checked on the draft that the ones before it have made; a refused one is answered and leaves no trace.
//! 3. The object is created ([`super::put`]), tried again for ever while the store fails: what waits is bounded, so the
//!    streams stop, and queries go on with the last version.
//! 4. The tail, the version, the answers, in this order.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::put::{Attempt, attempt, backoff, fenced_by};
use super::tail::{Effect, TailEntry};
use super::{DataflowSection, Head, LOG_MAGIC, Section, StateFile, StatePlace, StateSection, codec, rows};
use crate::catalog::Shared;
use crate::table::{FileEdit, TableSchema};
use crate::version::Draft;
use crate::{
    Changes, CommitRecord, DefinitionChange, EpochOutput, Error, ObjectId, ObjectName, Result, Seq, StatePart, Storage,
    Transaction, Version,
};

/// A state part larger than this goes to a file of its own, so that the commits of others stay small.
const STATE_INLINE_BYTES_MAX: usize = 4 << 20;
/// No further request joins a commit that is larger than this.
const COMMIT_BYTES_MAX: usize = 128 << 20;
/// Transactions that may wait, and their bytes.
const TRANSACTIONS_MAX: usize = 1024;
const TRANSACTION_KIB_MAX: u32 = 256 << 10;
/// Epochs of one dataflow that may wait.
const EPOCHS_MAX: usize = 2;
/// A table whose memtable is so many times larger than a flush takes no more rows until one has succeeded.
const MEMTABLE_FLUSHES_MAX: usize = 3;
/// A waiting statement is committed when the store has rested so many times as long as its last put took:
/// statements one after the other do not each wait for the checkpoint interval, and the store is not run down by them.
const REST_AFTER_PUT: u32 = 5;

/// What waits to be committed.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<Request>>,
    changed: Notify,
    closing: AtomicBool,
    transactions: Arc<Semaphore>,
    transaction_kib: Arc<Semaphore>,
}

/// Something to be committed.
#[derive(Debug)]
struct Request {
    origin: Origin,
    work: Work,
    reply: oneshot::Sender<Result<Seq>>,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Who asks, and under which conditions.
#[derive(Debug)]
enum Origin {
    Transaction { definitions_version: Option<u64>, unchanged_since: Vec<(ObjectId, Seq)> },
    Epoch { dataflow: ObjectId, epoch: u64 },
    Files,
}

/// The request's effects, or why there are none; empty while they are being prepared.
#[derive(Debug, Clone)]
struct Work(Arc<Mutex<Option<Result<Prepared>>>>);

/// Effects with their encoded form, in order.
#[derive(Debug, Default)]
struct Prepared {
    definitions: Vec<DefinitionChange>,
    truncate: Vec<ObjectId>,
    epoch: Option<DataflowSection>,
    rows: Vec<(ObjectId, Changes, Section)>,
    files: Option<FileEdit>,
    bytes: usize,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox {
            queue: Mutex::default(),
            changed: Notify::new(),
            closing: AtomicBool::new(false),
            transactions: Arc::new(Semaphore::new(TRANSACTIONS_MAX)),
            transaction_kib: Arc::new(Semaphore::new(TRANSACTION_KIB_MAX as usize)),
        }
    }

    /// No request is taken from now on; those that wait are still committed.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Commits a transaction; returns when it is durable and visible.
    pub(crate) async fn transaction(&self, transaction: Transaction) -> Result<Seq> {
        let closed = |_| Error::Closed;
        let Transaction { definitions, rows, truncate, definitions_version, unchanged_since } = transaction;
        let bytes: usize = rows.iter().map(|(_, changes)| changes.bytes()).sum();
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).min(TRANSACTION_KIB_MAX);
        let permits = vec![
            Arc::clone(&self.transactions).acquire_owned().await.map_err(closed)?,
            Arc::clone(&self.transaction_kib).acquire_many_owned(kib).await.map_err(closed)?,
        ];
        let rows = tokio::task::spawn_blocking(move || encode_rows(rows)).await.map_err(|_| Error::Closed)??;
        let prepared = Prepared { definitions, truncate, rows, bytes, ..Prepared::default() };
        let origin = Origin::Transaction { definitions_version, unchanged_since };
        self.push(origin, Work::ready(prepared), permits)?.await.map_err(|_| Error::Closed)?
    }

    /// Commits an edit of a table's files.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the table has changed so that the edit no longer fits: its new files are to be deleted.
    pub(crate) async fn files(&self, edit: FileEdit) -> Result<Seq> {
        let prepared = Prepared { files: Some(edit), ..Prepared::default() };
        self.push(Origin::Files, Work::ready(prepared), Vec::new())?.await.map_err(|_| Error::Closed)?
    }

    /// Hands over an epoch; it is encoded, and large state written, on the way. `closed` is the answer when it is too late.
    pub(crate) fn epoch(
        self: &Arc<Self>,
        output: EpochOutput,
        storage: Storage,
        closed: &dyn Fn() -> Error,
    ) -> oneshot::Receiver<Result<Seq>> {
        let EpochOutput { dataflow, epoch, .. } = output;
        let work = Work::default();
        let refused = |error| {
            let (reply, answer) = oneshot::channel();
            // The receiver is still in our hands.
            let _ = reply.send(Err(error));
            answer
        };
        let waiting = self.queue.lock().iter().filter(|request| request.dataflow() == Some(dataflow)).count();
        if waiting >= EPOCHS_MAX {
            let what = format!("dataflow {} has {EPOCHS_MAX} epochs waiting; another one", dataflow.0);
            return refused(Error::Conflict { what });
        }
        let answer = match self.push(Origin::Epoch { dataflow, epoch }, work.clone(), Vec::new()) {
            Ok(answer) => answer,
            Err(_) => return refused(closed()),
        };
        let inbox = Arc::clone(self);
        tokio::spawn(async move {
            let prepared = prepare_epoch(output, &storage, &inbox).await;
            *work.0.lock() = Some(prepared);
            inbox.changed.notify_one();
        });
        answer
    }

    fn push(&self, origin: Origin, work: Work, permits: Vec<OwnedSemaphorePermit>) -> Result<oneshot::Receiver<Result<Seq>>> {
        let (reply, answer) = oneshot::channel();
        let mut queue = self.queue.lock();
        // Under the lock, so that nothing is added after the committer has emptied it for the last time.
        if self.is_closing() {
            return Err(Error::Closed);
        }
        queue.push_back(Request { origin, work, reply, _permits: permits });
        drop(queue);
        self.changed.notify_one();
        Ok(answer)
    }

    /// What the next commit may hold, oldest first.
    fn gather(&self, version: &Version, memtable_bytes_max: usize) -> Vec<(Request, Prepared)> {
        let full: HashSet<ObjectId> =
            version.tables.iter().filter(|(_, table)| table.memtable.bytes() > memtable_bytes_max).map(|(id, _)| *id).collect();
        let mut queue = self.queue.lock();
        let mut passed_over = VecDeque::new();
        let mut blocked = HashSet::new();
        let mut gathered = Vec::new();
        let mut bytes = 0;
        while let Some(request) = queue.pop_front() {
            let dataflow = request.dataflow();
            let fits = bytes < COMMIT_BYTES_MAX && !dataflow.is_some_and(|dataflow| blocked.contains(&dataflow));
            match fits.then(|| request.work.take(&full)).flatten() {
                Some(Ok(prepared)) => {
                    bytes += prepared.bytes;
                    gathered.push((request, prepared));
                }
                // Who no longer waits does not want the answer.
                Some(Err(error)) => drop(request.reply.send(Err(error))),
                None => {
                    blocked.extend(dataflow);
                    passed_over.push_back(request);
                }
            }
        }
        *queue = passed_over;
        gathered
    }

    /// Whether something waits, and whether it is given less time: a statement, and a dataflow that can do nothing but
    /// wait, because it has handed over all it may.
    fn waiting(&self) -> (bool, bool) {
        let queue = self.queue.lock();
        let statement = |request: &Request| matches!(request.origin, Origin::Transaction { .. });
        let ready = |request: &Request| request.work.0.lock().is_some();
        let held_up = |request: &Request| {
            request.dataflow().is_some_and(|dataflow| {
                let epochs = queue.iter().filter(|request| request.dataflow() == Some(dataflow));
                epochs.filter(|epoch| ready(epoch)).count() >= EPOCHS_MAX
            })
        };
        (queue.iter().any(ready), queue.iter().any(|request| statement(request) || held_up(request)))
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    fn fail_all(&self, error: &dyn Fn() -> Error) {
        for request in std::mem::take(&mut *self.queue.lock()) {
            // Who no longer waits does not want the answer.
            let _ = request.reply.send(Err(error()));
        }
    }
}

impl Request {
    fn dataflow(&self) -> Option<ObjectId> {
        match &self.origin {
            Origin::Epoch { dataflow, .. } => Some(*dataflow),
            Origin::Transaction { .. } | Origin::Files => None,
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        Work(Arc::new(Mutex::new(None)))
    }
}

impl Work {
    fn ready(prepared: Prepared) -> Work {
        Work(Arc::new(Mutex::new(Some(Ok(prepared)))))
    }

    /// The effects, when they are ready and none of their rows is for a full table.
    fn take(&self, full: &HashSet<ObjectId>) -> Option<Result<Prepared>> {
        let mut slot = self.0.lock();
        let waits = |prepared: &Prepared| prepared.rows.iter().any(|(table, ..)| full.contains(table));
        if matches!(&*slot, Some(Ok(prepared)) if waits(prepared)) { None } else { slot.take() }
    }
}

fn encode_rows(all: Vec<(ObjectId, Changes)>) -> Result<Vec<(ObjectId, Changes, Section)>> {
    let filled = all.into_iter().filter(|(_, changes)| !changes.is_empty());
    filled.map(|(table, changes)| rows::encode(table, &changes).map(|section| (table, changes, Section::Rows(section)))).collect()
}

async fn prepare_epoch(output: EpochOutput, storage: &Storage, inbox: &Inbox) -> Result<Prepared> {
    let EpochOutput { dataflow, epoch, offsets, watermark, finished, state: parts, rows, reads } = output;
    let mut state = Vec::with_capacity(parts.len());
    for part in parts {
        state.push(place_state(dataflow, epoch, part, storage, inbox).await?);
    }
    let rows = tokio::task::spawn_blocking(move || encode_rows(rows)).await.map_err(|_| Error::Closed)??;
    let inline: usize = state.iter().map(|part| if let StatePlace::Inline(bytes) = &part.place { bytes.len() } else { 0 }).sum();
    let bytes = inline + rows.iter().map(|(_, changes, _)| changes.bytes()).sum::<usize>();
    let epoch = Some(DataflowSection { dataflow, epoch, watermark, finished, reads, offsets, state });
    Ok(Prepared { epoch, rows, bytes, ..Prepared::default() })
}

/// A large part becomes a file, written until it is there. Its name is ours alone: nobody else's file is overwritten.
async fn place_state(dataflow: ObjectId, epoch: u64, part: StatePart, storage: &Storage, inbox: &Inbox) -> Result<StateSection> {
    let StatePart { operator, kind, payload } = part;
    if payload.len() <= STATE_INLINE_BYTES_MAX {
        return Ok(StateSection { operator, kind, place: StatePlace::Inline(payload) });
    }
    let nonce = uuid::Uuid::new_v4().simple();
    let path = Path::from(format!("state/{}/{operator}-{epoch}-{nonce}", dataflow.0));
    let mut failures = 0;
    while let Err(source) = storage.store.put(&path, payload.clone().into()).await {
        if inbox.is_closing() {
            return Err(Error::Store { action: "write", path: path.to_string(), source });
        }
        failures += 1;
        tracing::warn!(%path, error = %source, "state could not be written, trying again");
        tokio::time::sleep(backoff(failures, epoch)).await;
    }
    let file = StateFile { path: path.to_string(), bytes: payload.len() as u64, crc: crc32fast::hash(&payload) };
    Ok(StateSection { operator, kind, place: StatePlace::File(file) })
}

/// The task that commits. Ends when the inbox is closed and empty, or when another server has taken over.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    versions: watch::Sender<Arc<Version>>,
    /// Head of the last commit of ours.
    head: Head,
    last_start: Option<Instant>,
    last_put: Duration,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, versions: watch::Sender<Arc<Version>>, head: Head) -> Committer {
        Committer { shared, versions, head, last_start: None, last_put: Duration::ZERO }
    }

    pub(crate) async fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        loop {
            self.wait().await;
            match self.commit().await {
                Ok(()) if self.shared.inbox.is_closing() && self.shared.inbox.is_empty() => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "commits have ended");
                    self.shared.set_commit_error(Some(error.to_string()));
                    let newer = if let Error::Fenced { newer } = &error { Some(*newer) } else { None };
                    self.shared.set_fenced(newer);
                    return;
                }
            }
        }
    }

    /// Waits until there is something and it is time for it.
    async fn wait(&self) {
        loop {
            let inbox = &self.shared.inbox;
            if inbox.is_closing() && inbox.is_empty() {
                return;
            }
            let changed = inbox.changed.notified();
            let (ready, urgent) = inbox.waiting();
            if !ready {
                changed.await;
                continue;
            }
            let interval = self.shared.checkpoint_interval();
            let rest = if urgent { interval.min(self.last_put * (REST_AFTER_PUT + 1)) } else { interval };
            match self.last_start {
                Some(start) if start.elapsed() < rest && !inbox.is_closing() => {
                    // What arrives meanwhile may be more urgent.
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(start + rest) => {}
                    }
                }
                _ => return,
            }
        }
    }

    /// Makes one commit of everything that may be committed now.
    ///
    /// # Errors
    /// Only what ends this server's writing.
    async fn commit(&mut self) -> Result<()> {
        let before = Arc::clone(&self.versions.borrow());
        let shared = Arc::clone(&self.shared);
        let memtable_bytes_max = shared.options.flush_bytes.saturating_mul(MEMTABLE_FLUSHES_MAX);
        let gathered = shared.inbox.gather(&before, memtable_bytes_max);
        if gathered.is_empty() {
            // Nothing fits although something is ready: a table is full. Its flush will change that, and wake nobody.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Ok(());
        }
        let seq = Seq(before.seq.0 + 1);
        let mut commit = Commit::new(&before, seq);
        let mut replies = Vec::with_capacity(gathered.len());
        for (request, prepared) in gathered {
            match commit.check(&request.origin, &prepared) {
                Ok(()) => {
                    commit.add(prepared)?;
                    replies.push((request.reply, request._permits));
                }
                // Who no longer waits does not want the answer.
                Err(refusal) => drop(request.reply.send(Err(refusal))),
            }
        }
        if commit.sections.is_empty() {
            // Nothing remained; a transaction without effects is true already.
            replies.into_iter().for_each(|(reply, _)| drop(reply.send(Ok(before.seq))));
            return Ok(());
        }
        let Commit { draft, sections, effects, dataflows } = commit;
        self.last_start = Some(Instant::now());
        let started_us = (shared.now_us)();
        let head = Head {
            seq,
            time_us: started_us,
            nonce: uuid::Uuid::new_v4().as_u64_pair().0,
            next_id: shared.next_id.load(Ordering::Acquire),
            fences: Vec::new(),
            ..self.head.clone()
        };
        let encoded = head.clone();
        let content = tokio::task::spawn_blocking(move || codec::encode(LOG_MAGIC, &encoded, &sections))
            .await
            .map_err(|_| Error::Closed)?;
        let bytes = content.len() as u64;
        let put_started = Instant::now();
        if let Err(error) = self.put(&head, &content).await {
            let answer = || if let Error::Fenced { newer } = error { Error::Fenced { newer } } else { Error::Closed };
            replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(answer()))));
            return Err(error);
        }
        self.last_put = put_started.elapsed();
        self.head = head;
        shared.record(CommitRecord { seq, started_us, duration_ms: self.last_put.as_secs_f64() * 1e3, bytes, dataflows });
        shared.tail.push(TailEntry { seq, effects });
        self.versions.send_replace(Arc::new(draft.finish()));
        replies.into_iter().for_each(|(reply, _)| drop(reply.send(Ok(seq))));
        Ok(())
    }

    /// Creates the object, however long the store takes to come back.
    async fn put(&self, head: &Head, content: &Bytes) -> Result<()> {
        let mut failures = 0;
        loop {
            let failed = match attempt(&self.shared.storage, head, content).await? {
                Attempt::Won => {
                    self.shared.set_commit_error(None);
                    return Ok(());
                }
                Attempt::Lost(found) => return Err(fenced_by(head, &found)),
                Attempt::Unclear(source) => source,
            };
            failures += 1;
            tracing::warn!(seq = head.seq.0, failures, error = %failed, "commit could not be written, trying again");
            self.shared.set_commit_error(Some(format!("could not write commit {}: {failed}", head.seq.0)));
            if self.shared.inbox.is_closing() {
                let path = super::log_path(head.seq).to_string();
                return Err(Error::Store { action: "write", path, source: failed });
            }
            tokio::time::sleep(backoff(failures, head.nonce ^ u64::from(failures))).await;
        }
    }
}

/// Answers everyone who still waits when the committer ends, however it ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.inbox.close();
        self.0.inbox.fail_all(&|| self.0.closed());
    }
}

/// A commit in the making.
struct Commit {
    draft: Draft,
    sections: Vec<Section>,
    effects: Vec<Effect>,
    dataflows: Vec<(ObjectId, u64)>,
}

impl Commit {
    fn new(before: &Version, seq: Seq) -> Commit {
        Commit { draft: Draft::of(before, seq), sections: Vec::new(), effects: Vec::new(), dataflows: Vec::new() }
    }

    /// Whether the request may be committed after those already here.
    fn check(&self, origin: &Origin, prepared: &Prepared) -> Result<()> {
        let version = self.draft.version();
        let conflict = |what: String| Err(Error::Conflict { what });
        match origin {
            Origin::Transaction { definitions_version, unchanged_since } => {
                if definitions_version.is_some_and(|planned| planned != version.definitions_version) {
                    return conflict("the catalog".to_owned());
                }
                for (id, since) in unchanged_since {
                    if version.tables.get(id).is_none_or(|table| table.changed > *since) {
                        return conflict(name_of(version, *id));
                    }
                }
            }
            Origin::Epoch { dataflow, epoch } => {
                let committed = version.dataflows.get(dataflow).map_or(0, |dataflow| dataflow.position.epoch);
                if !version.objects.get(dataflow).is_some_and(|object| object.kind.has_dataflow()) || *epoch != committed + 1 {
                    return conflict(format!(
                        "dataflow {} (at epoch {committed}, not before {epoch})",
                        name_of(version, *dataflow)
                    ));
                }
            }
            Origin::Files => {}
        }
        if let Some(edit) = &prepared.files
            && !version.tables.get(&edit.table).is_some_and(|table| table.admits(edit))
        {
            return conflict(name_of(version, edit.table));
        }
        self.check_objects(prepared)
    }

    /// Whether names are free and every table is there once the request's own definitions are made.
    fn check_objects(&self, prepared: &Prepared) -> Result<()> {
        let version = self.draft.version();
        let mut made: BTreeMap<ObjectId, bool> = BTreeMap::new();
        let mut names: BTreeMap<&ObjectName, Option<ObjectId>> = BTreeMap::new();
        for change in &prepared.definitions {
            match change {
                DefinitionChange::Put(definition) => {
                    let holder =
                        names.get(&definition.name).copied().unwrap_or_else(|| version.names.get(&definition.name).copied());
                    if holder.is_some_and(|holder| holder != definition.id) {
                        return Err(Error::Conflict { what: definition.name.to_string() });
                    }
                    if definition.kind.has_table() {
                        TableSchema::of(definition)?;
                    }
                    names.insert(&definition.name, Some(definition.id));
                    made.insert(definition.id, definition.kind.has_table());
                }
                DefinitionChange::Drop(id) => {
                    let Some(definition) = version.objects.get(id) else {
                        return Err(Error::Conflict { what: name_of(version, *id) });
                    };
                    names.insert(&definition.name, None);
                    made.insert(*id, false);
                }
            }
        }
        let tables = prepared.rows.iter().map(|(table, ..)| table).chain(&prepared.truncate);
        for table in tables {
            if !made.get(table).copied().unwrap_or_else(|| version.tables.contains_key(table)) {
                return Err(Error::Conflict { what: name_of(version, *table) });
            }
        }
        Ok(())
    }

    /// Adds a request that [`Self::check`] has let pass.
    fn add(&mut self, prepared: Prepared) -> Result<()> {
        let seq = self.draft.version().seq;
        for change in prepared.definitions {
            match change {
                DefinitionChange::Put(definition) => {
                    self.sections.push(Section::Define(definition.clone()));
                    self.draft.define(definition)?;
                }
                DefinitionChange::Drop(id) => {
                    self.sections.push(Section::Drop(id));
                    self.draft.drop_object(id);
                }
            }
        }
        for table in prepared.truncate {
            let Some(files) = self.draft.version().tables.get(&table).map(|table| Arc::clone(&table.files)) else { continue };
            let edit = FileEdit::truncate(table, &files, Seq(seq.0 - 1));
            self.effects.push(Effect::Truncate(table));
            self.sections.push(Section::Files(edit.clone()));
            self.draft.files(edit);
        }
        if let Some(section) = prepared.epoch {
            let DataflowSection { dataflow, epoch, watermark, finished, .. } = section;
            self.effects.push(Effect::Epoch { dataflow, watermark, finished });
            self.dataflows.push((dataflow, epoch));
            self.draft.epoch(&section);
            self.sections.push(Section::Dataflow(section));
        }
        for (table, changes, section) in prepared.rows {
            self.effects.push(Effect::Rows(table, changes.clone()));
            self.draft.rows(table, changes);
            self.sections.push(section);
        }
        if let Some(edit) = prepared.files {
            self.draft.files(edit.clone());
            self.sections.push(Section::Files(edit));
        }
        Ok(())
    }
}

fn name_of(version: &Version, id: ObjectId) -> String {
    version.objects.get(&id).map_or_else(|| format!("object {}", id.0), |definition| definition.name.to_string())
}
