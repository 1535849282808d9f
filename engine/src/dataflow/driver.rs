//! One run of a dataflow: from the last committed epoch until it ends, fails or is stopped.
//!
//! The driver takes one item at a time: rows go through the graph, then the watermark they moved. When a barrier is
//! due it collects what the epoch leaves and submits it; at most two epochs are on their way to the log, and the
//! driver goes on meanwhile. Barriers of all dataflows fall on one grid of time, so that one commit takes them all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::{Changes, EpochOutput, ObjectId, Seq, StateKind, error_rows};
use tokio::sync::{mpsc, oneshot};

use super::follower::{Cancel, Inbox, Item, TableEvent, follow_table, read_source};
use super::graph::{Graph, InputNode};
use super::job::Job;
use super::position::{Position, SplitPosition};
use super::queue::{Popped, Queue};
use super::sink::bytes_of;
use super::watermarks::{SplitClock, minimum, newest_event};
use super::{Batch, Origin, now_us};
use crate::source::{Offset, SourceEvent, SplitId, SplitProgress};
use crate::status::{CheckpointRecord, JobState, SplitStatus};
use crate::{Error, Result, state};

/// Epochs that may wait for their commit.
const IN_FLIGHT_MAX: usize = 2;
/// Rows for the sink beyond which an epoch ends early.
const EPOCH_BYTES_MAX: usize = 32 << 20;
/// Rows set aside beyond which an epoch ends early.
const EPOCH_ERRORS_MAX: usize = 64 * 1024;
/// Commits that may pass a table by before its follower commits that it has seen them.
const UNTOUCHED_COMMITS_MAX: u64 = 1000;
/// Status is published at least so often while something happens.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// The longest sleep of an idle driver.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// What overtakes data on its way to the driver.
#[derive(Debug)]
pub(crate) enum Control {
    /// An epoch is durable, or will never be.
    Committed { epoch: u64, result: Result<Seq, catalog::Error> },
    /// End the run, after one more epoch or without.
    Stop { last_epoch: bool },
}

/// How a run ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All inputs are read and everything is committed.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// An epoch on its way to the log.
type Commit = (u64, oneshot::Receiver<Result<Seq, catalog::Error>>);

/// The state of a run.
pub(crate) struct Driver<'a> {
    job: &'a Job,
    graph: Graph,
    inbox: Arc<Inbox>,
    cancel: Cancel,
    inputs: Vec<Input>,
    position: Position,
    rows_out_before: u64,
    epoch: u64,
    in_flight: VecDeque<InFlight>,
    /// To the task that tells of commits, one after the other.
    commits: mpsc::Sender<Commit>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Something has happened that an epoch should keep.
    dirty: bool,
    interval: Duration,
    barrier_at: Instant,
    started: Instant,
    published: Instant,
}

struct Input {
    node: InputNode,
    splits: BTreeMap<SplitId, Split>,
    opened: bool,
    /// A table's rows are still being read: nothing may be committed.
    backfilling: bool,
    /// New splits may come when all are read.
    endless: bool,
    /// The commit up to which a table has been taken in, also when it was not touched.
    seen: Seq,
    /// The same as of the last epoch.
    committed: Seq,
}

struct Split {
    clock: SplitClock,
    name: Arc<str>,
    progress: SplitProgress,
    /// It has given out what it held when it was asked for the last time up to this one.
    arrived: u64,
    rate: Rate,
}

struct InFlight {
    epoch: u64,
    started: Instant,
    record: CheckpointRecord,
    newest_event_us: Option<i64>,
    offsets: Vec<BTreeMap<SplitId, Offset>>,
    flushes: Vec<oneshot::Sender<()>>,
    /// How it ended. News of two epochs in one commit may come in any order; they are taken in that of the epochs.
    result: Option<Result<Seq, catalog::Error>>,
}

/// Rows per second over about the last second.
struct Rate {
    since: Instant,
    rows: u64,
    per_s: f64,
}

/// The split a table is.
const TABLE_SPLIT: &str = "table";

/// Runs a dataflow from where it stands.
pub(crate) fn run(job: &Job) -> Result<Outcome> {
    let Some(mut driver) = Driver::restore(job)? else { return Ok(Outcome::Finished) };
    job.set_inbox(Some(Arc::clone(&driver.inbox)));
    let threads = driver.start_inputs();
    let outcome = driver.run();
    driver.cancel.cancel();
    job.set_inbox(None);
    let settled = driver.settle(Duration::from_secs(5), outcome.is_err());
    driver.inbox.close();
    driver.publish(Instant::now());
    let patience = Instant::now() + Duration::from_secs(1);
    while Instant::now() < patience && threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(2));
    }
    outcome.and_then(|outcome| settled.map(|()| outcome))
}

/// Tells the driver of its commits in the order of the epochs; several may become durable at once.
async fn tell_commits(mut submitted: mpsc::Receiver<Commit>, inbox: Arc<Inbox>) {
    while let Some((epoch, committed)) = submitted.recv().await {
        let result = committed.await.unwrap_or(Err(catalog::Error::Closed));
        inbox.push_control(Control::Committed { epoch, result });
    }
}

impl<'a> Driver<'a> {
    /// Builds the graph and takes up the last committed epoch; `None` when that one was the last.
    fn restore(job: &'a Job) -> Result<Option<Driver<'a>>> {
        let dataflow = job.dataflow();
        let mut graph = Graph::new(&job.name, &dataflow.root, dataflow.sink.clone())?;
        let restored = job.context.runtime.block_on(job.context.catalog.restore(job.id))?;
        let nodes: Vec<InputNode> = graph.inputs().cloned().collect();
        let mut position = Position { inputs: vec![BTreeMap::new(); nodes.len()], ..Position::default() };
        let mut epoch = 0;
        if let Some(restored) = restored {
            epoch = restored.position.epoch;
            position = Position::decode(&restored.position.offsets, nodes.len())?;
            job.update(|status| {
                status.epoch = epoch;
                status.watermark_us = restored.position.watermark;
                status.committed_event_us = position.newest_event_us;
                status.counters = position.counters;
            });
            if restored.position.finished {
                return Ok(None);
            }
            graph.restore(&restored.state, restored.position.watermark)?;
        }
        let now = Instant::now();
        let inputs = nodes.into_iter().zip(&position.inputs).map(|(node, splits)| Input::new(node, splits, now)).collect();
        let interval = job.context.interval();
        let inbox = Arc::new(Queue::new(job.context.options.source_buffer_bytes));
        let (commits, submitted) = mpsc::channel(IN_FLIGHT_MAX);
        job.context.runtime.spawn(tell_commits(submitted, Arc::clone(&inbox)));
        Ok(Some(Driver {
            job,
            graph,
            inbox,
            cancel: Cancel::default(),
            inputs,
            rows_out_before: position.counters.rows_out,
            position,
            epoch,
            in_flight: VecDeque::new(),
            commits,
            flushes: Vec::new(),
            dirty: false,
            interval,
            barrier_at: now,
            started: now,
            published: now,
        }))
    }

    fn start_inputs(&self) -> Vec<std::thread::JoinHandle<()>> {
        let mut threads = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let (inbox, cancel, asks) = (Arc::clone(&self.inbox), self.cancel.clone(), self.job.asks());
            let splits = &self.position.inputs[index];
            let runtime = self.job.context.runtime.clone();
            let body: Box<dyn FnOnce() + Send> = match input.node.clone() {
                InputNode::Source(node) => {
                    let offsets = splits.iter().filter_map(|(id, at)| Some((id.clone(), at.offset.clone()?))).collect();
                    Box::new(move || {
                        // Readers may use the runtime's timers and sockets.
                        let _entered = runtime.enter();
                        read_source(&node, index, &offsets, &asks, &inbox, &cancel);
                    })
                }
                InputNode::Table(node) => {
                    let after = splits.get(TABLE_SPLIT).and_then(|at| at.offset.as_ref()?.as_u64()).map(Seq);
                    let catalog = Arc::clone(&self.job.context.catalog);
                    Box::new(move || follow_table(&catalog, &runtime, &node, index, after, &inbox, &cancel))
                }
            };
            let guarded = {
                let inbox = Arc::clone(&self.inbox);
                move || {
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
                        inbox.push_marker(Item::Failed(state::damaged("a reader panicked; see the server's log")));
                    }
                }
            };
            match std::thread::Builder::new().name(format!("read {}", self.job.name)).spawn(guarded) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let message = format!("could not start a thread: {error}");
                    self.inbox.push_marker(Item::Failed(Error::Unreachable { message, hint: None }));
                }
            }
        }
        threads
    }

    fn run(&mut self) -> Result<Outcome> {
        self.job.set_state(if self.backfilling() { JobState::Backfilling } else { JobState::Running });
        loop {
            if self.is_finished() {
                while self.in_flight.len() >= IN_FLIGHT_MAX {
                    if let Some(outcome) = self.wait_for_control()? {
                        return Ok(outcome);
                    }
                }
                self.graph.advance(i64::MAX)?;
                self.end_epoch(true)?;
                while !self.in_flight.is_empty() {
                    if let Some(outcome) = self.wait_for_control()? {
                        return Ok(outcome);
                    }
                }
                return Ok(Outcome::Finished);
            }
            let now = Instant::now();
            if self.barrier_is_due(now) {
                if self.in_flight.len() < IN_FLIGHT_MAX {
                    self.end_epoch(false)?;
                } else if self.is_full() {
                    let waited = Instant::now();
                    if let Some(outcome) = self.wait_for_control()? {
                        return Ok(outcome);
                    }
                    self.forgive(waited.elapsed());
                    continue;
                }
            }
            if now >= self.published + STATUS_INTERVAL {
                self.publish(now);
            }
            match self.inbox.pop(self.deadline(now)) {
                Popped::Control(control) => {
                    if let Some(outcome) = self.on_control(control)? {
                        return Ok(outcome);
                    }
                }
                Popped::Data(item) => self.on_item(item)?,
                Popped::Nothing => {}
            }
            self.check_idle()?;
        }
    }

    // ── What comes in ────────────────────────────────────────────────────────────────────────────────────────────

    fn on_item(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Opened { input, splits } => {
                let now = Instant::now();
                let source = &mut self.inputs[input];
                source.opened = true;
                // A split that is gone holds nothing back; its offset is kept in case it comes again.
                source.splits.retain(|id, split| split.clock.finished || splits.contains(id));
                for split in splits {
                    source.split(&split, now);
                }
                self.publish(now);
            }
            Item::Source { input, event, asked } => self.on_source(input, event, asked)?,
            Item::Table { input, event } => self.on_table(input, event)?,
            Item::Failed(error) => return Err(error),
            Item::Flush(done) => {
                if self.dirty || self.backfilling() {
                    self.flushes.push(done);
                } else if let Some(last) = self.in_flight.back_mut() {
                    last.flushes.push(done);
                } else {
                    // The caller may have gone away.
                    let _ = done.send(());
                }
            }
        }
        Ok(())
    }

    fn on_source(&mut self, index: usize, event: SourceEvent, asked: u64) -> Result<()> {
        let now = Instant::now();
        match event {
            SourceEvent::Rows { split: id, rows, errors, offset, bytes } => {
                let input = &mut self.inputs[index];
                let InputNode::Source(node) = &input.node else { return Ok(()) };
                let spec = node.watermark.clone();
                let source = node.name.as_str().into();
                let count = (rows.num_rows() + errors.len()) as u64;
                let newest = spec.as_ref().and_then(|spec| newest_event(rows.column(spec.column).as_ref(), spec, now_us()));
                let split = input.split(&id, now);
                split.clock.touch(now);
                split.rate.add(count, now);
                let origin = Origin { source, split: Arc::clone(&split.name), offset: offset.clone() };
                let at = self.position.inputs[index].entry(id.clone()).or_default();
                at.offset = Some(offset);
                at.rows += count;
                at.bytes += bytes;
                self.position.counters.rows_in += count;
                self.mark_dirty(now);
                errors.into_iter().for_each(|record| self.graph.set_aside(record));
                if rows.num_rows() > 0 {
                    self.graph.push(index, Batch { changes: Changes::append(rows), origin: Some(Arc::new(origin)) })?;
                }
                if let (Some(newest), Some(spec)) = (newest, spec) {
                    self.position.newest_event_us = self.position.newest_event_us.max(Some(newest));
                    self.raise(index, &id, newest.saturating_sub(spec.delay_us))?;
                }
            }
            SourceEvent::CaughtUp { split } => {
                self.inputs[index].split(&split, now).arrived = asked;
                self.publish(now);
            }
            SourceEvent::Finished { split: id } => {
                let split = self.inputs[index].split(&id, now);
                split.clock.finished = true;
                self.position.inputs[index].entry(id).or_default().finished = true;
                self.mark_dirty(now);
                self.advance()?;
            }
            SourceEvent::NewSplit { split } => {
                self.inputs[index].split(&split, now);
            }
            SourceEvent::Progress { split, progress } => self.inputs[index].split(&split, now).progress = progress,
        }
        Ok(())
    }

    fn on_table(&mut self, index: usize, event: TableEvent) -> Result<()> {
        let now = Instant::now();
        match event {
            TableEvent::Rows(changes) => self.push_table(index, changes, now)?,
            TableEvent::Complete { seq, watermark, finished } => {
                self.inputs[index].backfilling = false;
                self.inputs[index].seen = seq;
                self.mark_dirty(now);
                self.on_table_watermark(index, watermark, finished)?;
                if !self.backfilling() {
                    self.job.set_state(JobState::Running);
                }
            }
            TableEvent::Changes(commit) => {
                for changes in commit.changes {
                    self.push_table(index, changes, now)?;
                }
                self.inputs[index].seen = commit.seq;
                self.mark_dirty(now);
                self.on_table_watermark(index, commit.watermark, commit.finished)?;
            }
            TableEvent::CaughtUp(seq) => {
                let input = &mut self.inputs[index];
                input.seen = input.seen.max(seq);
                // A table that nobody touches must not keep the log of all others.
                if input.seen.0 > input.committed.0 + UNTOUCHED_COMMITS_MAX {
                    self.mark_dirty(now);
                }
                self.publish(now);
            }
            TableEvent::Ended => {}
        }
        Ok(())
    }

    fn push_table(&mut self, index: usize, changes: Changes, now: Instant) -> Result<()> {
        let count = changes.len() as u64;
        let InputNode::Table(node) = &self.inputs[index].node else { return Ok(()) };
        if let Some((column, _)) = node.watermark
            && let Ok(times) = super::operators::stateless::event_times(&changes.rows, column)
        {
            self.position.newest_event_us = self.position.newest_event_us.max(arrow::compute::max(&times));
        }
        let changes = Changes { rows: changes.rows.with_schema(Arc::clone(&node.schema))?, kinds: changes.kinds };
        let source = node.name.as_str().into();
        let split = self.inputs[index].split(TABLE_SPLIT, now);
        split.clock.touch(now);
        split.rate.add(count, now);
        let at = self.position.inputs[index].entry(TABLE_SPLIT.to_owned()).or_default();
        at.rows += count;
        let offset = at.offset.clone().unwrap_or_default();
        let origin = Origin { source, split: Arc::clone(&split.name), offset };
        self.position.counters.rows_in += count;
        self.mark_dirty(now);
        self.graph.push(index, Batch { changes, origin: Some(Arc::new(origin)) })
    }

    fn on_table_watermark(&mut self, index: usize, watermark: Option<i64>, finished: bool) -> Result<()> {
        let InputNode::Table(node) = &self.inputs[index].node else { return Ok(()) };
        let lag = node.watermark.map(|(_, lag_us)| lag_us);
        if finished {
            self.inputs[index].split(TABLE_SPLIT, Instant::now()).clock.finished = true;
            self.position.inputs[index].entry(TABLE_SPLIT.to_owned()).or_default().finished = true;
            return self.advance();
        }
        match (watermark, lag) {
            (Some(watermark), Some(lag)) => self.raise(index, TABLE_SPLIT, watermark.saturating_sub(lag)),
            _ => Ok(()),
        }
    }

    fn on_control(&mut self, control: Control) -> Result<Option<Outcome>> {
        match control {
            Control::Committed { epoch, result } => {
                self.on_committed(epoch, result)?;
                Ok(None)
            }
            Control::Stop { last_epoch } => {
                if last_epoch && self.dirty && !self.backfilling() && !self.is_finished() {
                    while self.in_flight.len() >= IN_FLIGHT_MAX {
                        if self.wait_for_control()?.is_some() {
                            return Ok(Some(Outcome::Stopped));
                        }
                    }
                    self.end_epoch(false)?;
                }
                Ok(Some(Outcome::Stopped))
            }
        }
    }

    fn wait_for_control(&mut self) -> Result<Option<Outcome>> {
        match self.inbox.pop_control(Instant::now() + IDLE_WAIT) {
            Some(control) => self.on_control(control),
            None => {
                self.publish(Instant::now());
                Ok(None)
            }
        }
    }

    // ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn raise(&mut self, index: usize, id: &str, watermark: i64) -> Result<()> {
        let clock = &mut self.inputs[index].split(id, Instant::now()).clock;
        clock.raise(watermark);
        self.position.inputs[index].entry(id.to_owned()).or_default().watermark = clock.watermark;
        self.advance()
    }

    /// Gives the operators the watermark that the splits allow.
    fn advance(&mut self) -> Result<()> {
        // A source whose splits are not known yet, or a table not yet read, may hold older rows.
        if self.inputs.iter().any(|input| !input.opened || input.backfilling) {
            return Ok(());
        }
        let clocks = self.inputs.iter().flat_map(|input| input.splits.values().map(|split| &split.clock));
        let Some(watermark) = minimum(clocks) else { return Ok(()) };
        if self.graph.watermark().is_none_or(|old| old < watermark) {
            self.graph.advance(watermark)?;
            self.mark_dirty(Instant::now());
        }
        Ok(())
    }

    fn check_idle(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut changed = false;
        for split in self.inputs.iter_mut().flat_map(|input| input.splits.values_mut()) {
            let was_idle = split.clock.idle;
            split.clock.check_idle(now);
            changed |= split.clock.idle != was_idle;
        }
        if changed { self.advance() } else { Ok(()) }
    }

    fn forgive(&mut self, deaf: Duration) {
        let splits = self.inputs.iter_mut().flat_map(|input| input.splits.values_mut());
        splits.for_each(|split| split.clock.forgive(deaf));
    }

    fn deadline(&self, now: Instant) -> Instant {
        let splits = self.inputs.iter().flat_map(|input| input.splits.values());
        let mut deadline = splits.filter_map(|split| split.clock.idle_at()).fold(now + IDLE_WAIT, Instant::min);
        if self.dirty && !self.backfilling() && self.in_flight.len() < IN_FLIGHT_MAX {
            deadline = deadline.min(self.barrier_at);
        }
        if self.dirty { deadline.min(self.published + STATUS_INTERVAL) } else { deadline }
    }

    fn is_finished(&self) -> bool {
        self.inputs.iter().all(|input| {
            input.opened && !input.backfilling && !input.endless && input.splits.values().all(|split| split.clock.finished)
        })
    }

    fn backfilling(&self) -> bool {
        self.inputs.iter().any(|input| input.backfilling)
    }

    // ── Epochs ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn mark_dirty(&mut self, now: Instant) {
        if !self.dirty {
            self.dirty = true;
            self.barrier_at = self.job.context.next_barrier(now, self.interval);
        }
    }

    fn is_full(&self) -> bool {
        self.graph.sink_bytes() > EPOCH_BYTES_MAX || self.graph.errors().len() > EPOCH_ERRORS_MAX
    }

    fn barrier_is_due(&self, now: Instant) -> bool {
        let due = now >= self.barrier_at || self.is_full() || !self.flushes.is_empty();
        due && self.dirty && !self.backfilling()
    }

    /// Ends the epoch and submits it.
    fn end_epoch(&mut self, finished: bool) -> Result<()> {
        let started = Instant::now();
        let behind = self.inbox.is_crowded() || !self.in_flight.is_empty() && self.in_flight[0].started.elapsed() > self.interval;
        let base = self.job.context.interval();
        self.interval = match behind {
            true => (self.interval * 2).min(self.job.context.options.checkpoint_interval_max).max(base),
            false => base,
        };
        let parts = self.graph.barrier()?;
        let late = parts.errors.iter().filter(|record| record.stage == "late").count() as u64;
        let counters = &mut self.position.counters;
        counters.late_rows += late;
        counters.error_rows += parts.errors.len() as u64 - late;
        counters.rows_out = self.rows_out_before + self.graph.rows_out();
        let mut rows = parts.rows;
        if !parts.errors.is_empty() {
            rows.push((ObjectId::ERRORS, Changes::append(error_rows(&parts.errors))));
        }
        self.epoch += 1;
        let state_bytes: u64 = parts.state.iter().map(|part| part.payload.len() as u64).sum();
        let record = CheckpointRecord {
            job: self.job.name.clone(),
            epoch: self.epoch,
            started_us: now_us(),
            duration_ms: 0.0,
            bytes: state_bytes + bytes_of(&rows),
            seq: 0,
            interval_ms: self.interval.as_millis() as u64,
            reason: if behind { "behind" } else { "caught up" },
        };
        if parts.state.iter().any(|part| part.kind == StateKind::Image) {
            tracing::debug!(job = %self.job.name, epoch = self.epoch, bytes = state_bytes, "state image written");
        }
        for (input, splits) in self.inputs.iter_mut().zip(&mut self.position.inputs) {
            if let Some((_, seq)) = input.seen() {
                input.committed = seq;
                splits.entry(TABLE_SPLIT.to_owned()).or_default().offset = Some(seq.0.into());
            }
        }
        let offsets = self
            .position
            .inputs
            .iter()
            .map(|splits| splits.iter().filter_map(|(id, at)| Some((id.clone(), at.offset.clone()?))).collect());
        let offsets = offsets.collect();
        let reads = self.inputs.iter().filter_map(Input::seen).collect();
        let receiver = self.job.context.catalog.submit(EpochOutput {
            dataflow: self.job.id,
            epoch: self.epoch,
            offsets: self.position.encode(),
            watermark: if finished { Some(i64::MAX) } else { self.graph.watermark() },
            finished,
            state: parts.state,
            rows,
            reads,
        });
        // There is room for every epoch that may be in flight, and the task lives as long as this sender.
        let sent = self.commits.try_send((self.epoch, receiver));
        debug_assert!(sent.is_ok(), "at most {IN_FLIGHT_MAX} epochs are on their way");
        self.in_flight.push_back(InFlight {
            epoch: self.epoch,
            started,
            record,
            newest_event_us: self.position.newest_event_us,
            offsets,
            flushes: std::mem::take(&mut self.flushes),
            result: None,
        });
        self.dirty = false;
        self.barrier_at = self.job.context.next_barrier(Instant::now(), self.interval);
        Ok(())
    }

    fn on_committed(&mut self, epoch: u64, result: Result<Seq, catalog::Error>) -> Result<()> {
        if let Some(ended) = self.in_flight.iter_mut().find(|in_flight| in_flight.epoch == epoch) {
            ended.result = Some(result);
        }
        while let Some(result) = self.in_flight.front_mut().and_then(|first| first.result.take()) {
            if let Some(first) = self.in_flight.pop_front() {
                self.take_commit(first, result?);
            }
        }
        Ok(())
    }

    fn take_commit(&mut self, mut committed: InFlight, seq: Seq) {
        committed.record.seq = seq.0;
        committed.record.duration_ms = committed.started.elapsed().as_secs_f64() * 1e3;
        self.job.update(|status| {
            status.epoch = committed.epoch;
            status.checkpoint_ms = committed.record.duration_ms;
            status.committed_event_us = committed.newest_event_us;
            status.committed_offsets = std::mem::take(&mut committed.offsets);
            status.keep_checkpoint(committed.record);
        });
        self.publish(Instant::now());
        for done in committed.flushes {
            // The caller may have gone away.
            let _ = done.send(());
        }
    }

    /// After the run: epochs on their way are committed or not before anything starts again from the log.
    fn settle(&mut self, limit: Duration, failed: bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.in_flight.iter().any(|in_flight| in_flight.result.is_none()) {
            // A failed run starts again and must not run beside its own epochs, however long the store is away.
            let until = if failed { Instant::now() + limit } else { deadline };
            match self.inbox.pop_control(until) {
                Some(Control::Committed { epoch, result }) => self.on_committed(epoch, result)?,
                Some(Control::Stop { .. }) => return Ok(()),
                None if failed && !self.job.is_stopping() => {}
                None => return Ok(()),
            }
        }
        Ok(())
    }

    // ── What is shown ────────────────────────────────────────────────────────────────────────────────────────────

    fn publish(&mut self, now: Instant) {
        self.published = now;
        let watermark = self.graph.watermark();
        let mut splits = Vec::new();
        let mut arrived = u64::MAX;
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let source = match &input.node {
                InputNode::Source(node) => &node.name,
                InputNode::Table(node) => &node.name,
            };
            for (id, split) in &mut input.splits {
                let at = self.position.inputs[index].get(id).cloned().unwrap_or_default();
                let clock = &split.clock;
                let holds = clock.timed && !clock.idle && !clock.finished;
                splits.push((
                    index,
                    SplitStatus {
                        job: self.job.name.clone(),
                        source: source.clone(),
                        split: id.clone(),
                        offset: String::new(),
                        end_offset: split.progress.end_offset.clone(),
                        lag_rows: split.progress.lag_rows,
                        watermark_us: clock.watermark,
                        idle: clock.idle,
                        holds_watermark: holds && (clock.watermark.is_none() || clock.watermark <= watermark),
                        rows: at.rows,
                        bytes: at.bytes,
                        rows_per_s: split.rate.now(now),
                        reconnects: split.progress.reconnects,
                        duplicates: split.progress.duplicates,
                        gaps: split.progress.gaps,
                        last_error: split.progress.last_error.clone(),
                    },
                ));
                // How far a table is taken in is told by the commit.
                if !split.clock.finished && matches!(input.node, InputNode::Source(_)) {
                    arrived = arrived.min(split.arrived);
                }
            }
        }
        let opened = self.inputs.iter().all(|input| input.opened && !input.backfilling);
        let seen = self.inputs.iter().filter_map(Input::seen).collect();
        let run_us = now.duration_since(self.started).as_micros() as u64;
        let operators = self.graph.status(run_us, self.inbox.bytes() as u64);
        let state_bytes = self.graph.state_bytes();
        let mut counters = self.position.counters;
        counters.rows_out = self.rows_out_before + self.graph.rows_out();
        self.job.update(|status| {
            status.watermark_us = watermark;
            status.counters = counters;
            status.state_bytes = state_bytes;
            status.splits = splits;
            status.arrived = if opened { arrived } else { 0 };
            status.seen = seen;
            status.operators = operators;
        });
    }
}

impl Input {
    fn new(node: InputNode, positions: &BTreeMap<SplitId, SplitPosition>, now: Instant) -> Input {
        let (is_table, endless) = match &node {
            // Nothing but its upstream's end ends a table.
            InputNode::Table(_) => (true, false),
            InputNode::Source(node) => (false, node.connector.options.get("mode").is_some_and(|mode| mode == "watch")),
        };
        let mut input = Input {
            node,
            splits: BTreeMap::new(),
            opened: is_table,
            backfilling: is_table && positions.get(TABLE_SPLIT).is_none_or(|at| at.offset.is_none()),
            endless,
            seen: Seq::default(),
            committed: Seq::default(),
        };
        for (id, at) in positions {
            let clock = &mut input.split(id, now).clock;
            clock.watermark = at.watermark;
            clock.finished = at.finished;
        }
        if is_table {
            input.split(TABLE_SPLIT, now);
            input.seen = positions.get(TABLE_SPLIT).and_then(|at| at.offset.as_ref()?.as_u64()).map(Seq).unwrap_or_default();
            input.committed = input.seen;
        }
        input
    }

    fn split(&mut self, id: &str, now: Instant) -> &mut Split {
        if !self.splits.contains_key(id) {
            let (timed, idle_timeout_us) = match &self.node {
                InputNode::Source(node) => {
                    (node.watermark.is_some(), node.watermark.as_ref().and_then(|spec| spec.idle_timeout_us))
                }
                InputNode::Table(node) => (node.watermark.is_some(), None),
            };
            let split = Split {
                clock: SplitClock::new(timed, idle_timeout_us, None, now),
                name: id.into(),
                progress: SplitProgress::default(),
                arrived: 0,
                rate: Rate { since: now, rows: 0, per_s: 0.0 },
            };
            self.splits.insert(id.to_owned(), split);
        }
        self.splits.get_mut(id).expect("inserted above")
    }

    /// Up to which commit a followed table has been taken in; the log is kept from there.
    fn seen(&self) -> Option<(ObjectId, Seq)> {
        match &self.node {
            InputNode::Table(node) if !self.backfilling => Some((node.table, self.seen)),
            _ => None,
        }
    }
}

impl Rate {
    fn add(&mut self, rows: u64, now: Instant) {
        self.roll(now);
        self.rows += rows;
    }

    fn now(&mut self, now: Instant) -> f64 {
        self.roll(now);
        self.per_s
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.since).as_secs_f64();
        if elapsed >= 1.0 {
            self.per_s = self.rows as f64 / elapsed;
            (self.since, self.rows) = (now, 0);
        }
    }
}
