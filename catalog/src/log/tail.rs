//! Recent commits in memory, and readers that follow one table through them and, further back, through log objects.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{LOG_MAGIC, Section, codec, log_path, rows};
use crate::table::EditKind;
use crate::{Changes, Error, ObjectId, Result, Seq, Storage, Version};

/// Changes of one table in one commit.
#[derive(Debug, Clone)]
pub struct TableChanges {
    /// The commit.
    pub seq: Seq,
    /// All rows that were there before this commit are gone (TRUNCATE); `changes` come after that.
    pub truncated: bool,
    /// Rows, in order; may be empty when only the watermark moved.
    pub changes: Vec<Changes>,
    /// Watermark of the table's dataflow after this commit, as far as this reader has seen it.
    pub watermark: Option<i64>,
    /// The table's dataflow has finished: nothing will follow.
    pub finished: bool,
}

/// What a reader has to say to who follows its table closely.
#[derive(Debug)]
pub enum Step {
    /// The next commit that touches the table or its dataflow.
    Changes(TableChanges),
    /// All commits up to this one are read, and none after the last told touches the table.
    UpTo(Seq),
    /// The table was dropped, or the catalog is closed.
    Ended,
}

/// What one commit did to tables, for those who follow them.
#[derive(Debug)]
pub(crate) struct TailEntry {
    pub seq: Seq,
    pub effects: Vec<Effect>,
}

/// One thing a commit did.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Rows(ObjectId, Changes),
    Truncate(ObjectId),
    Epoch { dataflow: ObjectId, watermark: Option<i64>, finished: bool },
}

impl TailEntry {
    /// The changes of one table; `None` when the commit did not touch it.
    fn changes(&self, table: ObjectId, watermark: &mut Option<i64>) -> Option<TableChanges> {
        let mut touched = false;
        let mut result = TableChanges { seq: self.seq, truncated: false, changes: Vec::new(), watermark: None, finished: false };
        for effect in &self.effects {
            match effect {
                Effect::Rows(of, changes) if *of == table => result.changes.push(changes.clone()),
                Effect::Truncate(of) if *of == table => {
                    result.truncated = true;
                    result.changes.clear();
                }
                Effect::Epoch { dataflow, watermark: after, finished } if *dataflow == table => {
                    *watermark = *after;
                    result.finished = *finished;
                }
                _ => continue,
            }
            touched = true;
        }
        result.watermark = *watermark;
        touched.then_some(result)
    }

    fn bytes(&self) -> usize {
        let rows = self.effects.iter().map(|effect| match effect {
            Effect::Rows(_, changes) => changes.bytes(),
            Effect::Truncate(_) | Effect::Epoch { .. } => 0,
        });
        rows.sum::<usize>() + 128
    }
}

/// The newest commits, without a gap, bounded by bytes; and what of the log may not be deleted.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Arc<TailEntry>>,
    bytes: usize,
    pins: Vec<Weak<AtomicU64>>,
    /// All commits from this one on are kept.
    kept_from: Seq,
}

/// Keeps the log from a commit on for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin(Arc<AtomicU64>);

impl Pin {
    fn advance(&self, to: Seq) {
        self.0.fetch_max(to.0, Ordering::Release);
    }
}

impl Tail {
    pub(crate) fn new(bytes_max: usize, kept_from: Seq) -> Tail {
        Tail { bytes_max, inner: Mutex::new(Inner { kept_from, ..Inner::default() }) }
    }

    /// Adds the next commit; forgets the oldest beyond the bound.
    pub(crate) fn push(&self, entry: TailEntry) {
        let mut inner = self.inner.lock();
        inner.bytes += entry.bytes();
        inner.entries.push_back(Arc::new(entry));
        while inner.bytes > self.bytes_max && inner.entries.len() > 1 {
            if let Some(oldest) = inner.entries.pop_front() {
                inner.bytes -= oldest.bytes();
            }
        }
    }

    /// Keeps everything from `from` on.
    ///
    /// # Errors
    /// [`Error::TooOld`] when some of it is gone.
    pub(crate) fn pin(&self, from: Seq) -> Result<Pin> {
        let mut inner = self.inner.lock();
        if from < inner.kept_from {
            return Err(Error::TooOld { after: from.0.saturating_sub(1), oldest: inner.kept_from.0 });
        }
        Ok(Self::register(&mut inner, from))
    }

    /// Keeps from being deleted what from `from` on is there now.
    pub(crate) fn pin_present(&self, from: Seq) -> Pin {
        Self::register(&mut self.inner.lock(), from)
    }

    fn register(inner: &mut Inner, from: Seq) -> Pin {
        let pin = Arc::new(AtomicU64::new(from.0));
        inner.pins.retain(|pin| pin.strong_count() > 0);
        inner.pins.push(Arc::downgrade(&pin));
        Pin(pin)
    }

    /// Decides from where on the log stays when its state needs it from `needed`; no reader can ask for less afterwards.
    pub(crate) fn keep_from(&self, needed: Seq) -> Seq {
        let mut inner = self.inner.lock();
        let pinned = inner.pins.iter().filter_map(Weak::upgrade).map(|pin| Seq(pin.load(Ordering::Acquire))).min();
        let from = pinned.map_or(needed, |pinned| pinned.min(needed));
        inner.kept_from = inner.kept_from.max(from);
        from
    }

    fn entry(&self, seq: Seq) -> Option<Arc<TailEntry>> {
        let inner = self.inner.lock();
        let first = inner.entries.front()?.seq;
        let index = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        inner.entries.get(index).cloned()
    }
}

/// Follows one table through the log. The log is kept from its position on while it lives.
#[derive(Debug)]
pub struct ChangeReader {
    table: ObjectId,
    next: Seq,
    /// The last commit that [`Step::UpTo`] has told of.
    told: Option<Seq>,
    watermark: Option<i64>,
    pin: Pin,
    tail: Arc<Tail>,
    storage: Storage,
    versions: watch::Receiver<Arc<Version>>,
}

impl ChangeReader {
    pub(crate) fn new(
        table: ObjectId,
        after: Seq,
        tail: Arc<Tail>,
        storage: Storage,
        versions: watch::Receiver<Arc<Version>>,
    ) -> Result<ChangeReader> {
        let (next, pin) = loop {
            let version = Arc::clone(&versions.borrow());
            let quiet = version.tables.get(&table).is_some_and(|table| table.touched <= after);
            // Nothing happened to the table meanwhile: what lies between need neither be read nor be there.
            let next = Seq(if quiet { after.max(version.seq) } else { after }.0.saturating_add(1));
            match tail.pin(next) {
                Ok(pin) => break (next, pin),
                // The log moved on between the two looks.
                Err(_) if quiet && versions.borrow().seq > version.seq => {}
                Err(error) => return Err(error),
            }
        };
        Ok(ChangeReader { table, next, told: None, watermark: None, pin, tail, storage, versions })
    }

    /// The next commit that touches the table or its dataflow; waits for it. `None` when the table was dropped or the catalog closed.
    ///
    /// # Errors
    /// [`crate::Error::TooOld`] when the log no longer holds it.
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<TableChanges>> {
        loop {
            match self.step().await? {
                Step::Changes(changes) => return Ok(Some(changes)),
                Step::UpTo(_) => {}
                Step::Ended => return Ok(None),
            }
        }
    }

    /// The same, telling also when everything committed is read: once for each commit at which that is so.
    ///
    /// # Errors
    /// [`crate::Error::TooOld`] when the log no longer holds it.
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn step(&mut self) -> Result<Step> {
        loop {
            let (committed, there) = {
                let version = self.versions.borrow_and_update();
                (version.seq, version.tables.contains_key(&self.table))
            };
            if !there {
                return Ok(Step::Ended);
            }
            while self.next <= committed {
                let entry = match self.tail.entry(self.next) {
                    Some(entry) => entry,
                    None => Arc::new(self.read(self.next).await?),
                };
                let changes = entry.changes(self.table, &mut self.watermark);
                self.next = Seq(self.next.0.saturating_add(1));
                self.pin.advance(self.next);
                if let Some(changes) = changes {
                    return Ok(Step::Changes(changes));
                }
            }
            if self.told < Some(committed) {
                self.told = Some(committed);
                return Ok(Step::UpTo(committed));
            }
            if self.versions.changed().await.is_err() {
                return Ok(Step::Ended);
            }
        }
    }

    /// A commit that is no longer in memory, only as far as it is about the table.
    async fn read(&self, seq: Seq) -> Result<TailEntry> {
        let path = log_path(seq);
        let content = match self.storage.read(&path).await {
            Err(Error::Store { source: object_store::Error::NotFound { .. }, .. }) => {
                return Err(Error::TooOld { after: seq.0.saturating_sub(1), oldest: seq.0.saturating_add(1) });
            }
            content => content?,
        };
        let table = self.table;
        let decode = move || {
            let (_, sections) = codec::decode(LOG_MAGIC, path.as_ref(), content)?;
            Ok(TailEntry { seq, effects: effects_of(path.as_ref(), &sections, Some(table))? })
        };
        tokio::task::spawn_blocking(decode).await.map_err(|_| Error::Closed)?
    }
}

/// What the sections of a commit did, to one table or to all.
pub(crate) fn effects_of(path: &str, sections: &[Section], only: Option<ObjectId>) -> Result<Vec<Effect>> {
    let wanted = |table: ObjectId| only.is_none_or(|only| only == table);
    let mut effects = Vec::new();
    for section in sections {
        match section {
            Section::Rows(section) if wanted(section.table) => {
                let changes = rows::decode(path, section)?;
                effects.extend(changes.into_iter().map(|changes| Effect::Rows(section.table, changes)));
            }
            Section::Files(edit) if edit.kind == EditKind::Truncate && wanted(edit.table) => {
                effects.push(Effect::Truncate(edit.table));
            }
            Section::Dataflow(section) if wanted(section.dataflow) => {
                let (dataflow, watermark, finished) = (section.dataflow, section.watermark, section.finished);
                effects.push(Effect::Epoch { dataflow, watermark, finished });
            }
            _ => {}
        }
    }
    Ok(effects)
}
