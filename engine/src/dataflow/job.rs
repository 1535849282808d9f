//! A dataflow as it is supervised: its thread, its status, and what can be asked of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catalog::{Catalog, ObjectId, Seq};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use super::driver::{self, Control, Outcome};
use super::evaluate::offset_text;
use super::follower::{Inbox, Item};
use super::now_us;
use super::position::Counters;
use crate::plan::{Dataflow, Node};
use crate::source::{self, Offset, SplitId};
use crate::status::{CheckpointRecord, JobState, JobStatus, OperatorStatus, SplitStatus};
use crate::{Error, Options};

/// Epochs a job remembers for `freshet.checkpoints`.
const CHECKPOINTS_MAX: usize = 128;

/// What all jobs of an engine share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Options,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Barriers fall on multiples of the interval from here.
    pub(crate) grid: Instant,
    pub(crate) checkpoint_interval_us: AtomicU64,
}

impl Context {
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_micros(self.checkpoint_interval_us.load(Ordering::Relaxed).max(1000))
    }

    /// The next point of the grid, so that all dataflows are ready for one commit.
    pub(crate) fn next_barrier(&self, now: Instant, interval: Duration) -> Instant {
        let elapsed = now.saturating_duration_since(self.grid).as_micros();
        let interval = interval.as_micros().max(1);
        self.grid + Duration::from_micros(((elapsed / interval + 1) * interval) as u64)
    }
}

/// One dataflow for as long as its object lives.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: ObjectId,
    pub(crate) name: String,
    pub(crate) context: Arc<Context>,
    /// Tables it follows.
    pub(crate) follows: BTreeSet<ObjectId>,
    /// Whether all its sources end.
    pub(crate) is_bounded: bool,
    plan: Option<Dataflow>,
    kind: &'static str,
    status: Mutex<Status>,
    changed: watch::Sender<u64>,
    asks: Arc<AtomicU64>,
    /// The queue of the current run.
    inbox: Mutex<Option<Arc<Inbox>>>,
    stopping: AtomicBool,
    stop_lock: Mutex<()>,
    stop_signal: Condvar,
    ended: watch::Sender<bool>,
}

/// What is known about a job; written by its driver, read by system tables.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) state: JobState,
    pub(crate) since_us: i64,
    pub(crate) epoch: u64,
    pub(crate) watermark_us: Option<i64>,
    pub(crate) committed_event_us: Option<i64>,
    pub(crate) committed_offsets: Vec<BTreeMap<SplitId, Offset>>,
    pub(crate) counters: Counters,
    pub(crate) restarts: u64,
    pub(crate) last_error: Option<String>,
    pub(crate) state_bytes: u64,
    pub(crate) checkpoint_ms: f64,
    /// With the number of their input.
    pub(crate) splits: Vec<(usize, SplitStatus)>,
    /// All sources are taken in as far as they went when [`Job::ask`] gave this number.
    pub(crate) arrived: u64,
    /// Followed tables and the commit up to which they are taken in.
    pub(crate) seen: Vec<(ObjectId, Seq)>,
    pub(crate) operators: Vec<OperatorStatus>,
    checkpoints: VecDeque<CheckpointRecord>,
}

impl Status {
    pub(crate) fn keep_checkpoint(&mut self, record: CheckpointRecord) {
        if self.checkpoints.len() == CHECKPOINTS_MAX {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back(record);
    }
}

impl Job {
    /// A job that is to run.
    pub(crate) fn new(context: Arc<Context>, dataflow: Dataflow) -> Arc<Job> {
        let (mut follows, mut is_bounded) = (BTreeSet::new(), true);
        collect_inputs(&dataflow.root, &mut follows, &mut is_bounded);
        let (id, name, kind) = (dataflow.id, dataflow.name.clone(), dataflow.kind);
        Job::with(context, id, name, kind, Some(dataflow), (follows, is_bounded), JobState::Starting, None)
    }

    /// A job that could not be planned.
    pub(crate) fn failed(context: Arc<Context>, id: ObjectId, name: &str, kind: &'static str, reason: String) -> Arc<Job> {
        Job::with(context, id, name.to_owned(), kind, None, (BTreeSet::new(), false), JobState::Failing, Some(reason))
    }

    #[expect(clippy::too_many_arguments, reason = "the two constructors above are the only callers")]
    fn with(
        context: Arc<Context>,
        id: ObjectId,
        name: String,
        kind: &'static str,
        plan: Option<Dataflow>,
        (follows, is_bounded): (BTreeSet<ObjectId>, bool),
        state: JobState,
        last_error: Option<String>,
    ) -> Arc<Job> {
        let status = Status {
            state,
            since_us: now_us(),
            epoch: 0,
            watermark_us: None,
            committed_event_us: None,
            committed_offsets: Vec::new(),
            counters: Counters::default(),
            restarts: 0,
            last_error,
            state_bytes: 0,
            checkpoint_ms: 0.0,
            splits: Vec::new(),
            arrived: 0,
            seen: Vec::new(),
            operators: Vec::new(),
            checkpoints: VecDeque::new(),
        };
        Arc::new(Job {
            id,
            name,
            context,
            follows,
            is_bounded,
            ended: watch::Sender::new(plan.is_none()),
            plan,
            kind,
            status: Mutex::new(status),
            changed: watch::Sender::new(0),
            asks: Arc::default(),
            inbox: Mutex::new(None),
            stopping: AtomicBool::new(false),
            stop_lock: Mutex::new(()),
            stop_signal: Condvar::new(),
        })
    }

    /// Starts the thread that keeps the dataflow running.
    pub(crate) fn spawn(self: &Arc<Self>) {
        let job = Arc::clone(self);
        let spawned = std::thread::Builder::new().name(format!("run {}", self.name)).spawn(move || {
            job.supervise();
            job.ended.send_replace(true);
        });
        if let Err(error) = spawned {
            self.fail(&format!("could not start a thread: {error}"));
            self.ended.send_replace(true);
        }
    }

    pub(crate) fn dataflow(&self) -> &Dataflow {
        self.plan.as_ref().expect("only jobs with a plan are run")
    }

    /// Runs until the dataflow is finished or told to stop; failures are retried with growing waits.
    fn supervise(&self) {
        let _entered = self.context.runtime.enter();
        let (first_wait, longest_wait) = self.context.options.retry;
        let mut wait = first_wait;
        while !self.is_stopping() {
            let started = Instant::now();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver::run(self)));
            self.set_inbox(None);
            let reason = match outcome {
                Ok(Ok(Outcome::Finished)) => {
                    self.update(|status| status.last_error = None);
                    self.set_state(JobState::Finished);
                    return;
                }
                Ok(Ok(Outcome::Stopped)) => return,
                Ok(Err(Error::Catalog(error @ (catalog::Error::Closed | catalog::Error::Fenced { .. })))) => {
                    self.fail(&error.to_string());
                    return;
                }
                Ok(Err(error)) => with_causes(&error),
                Err(_) => "a dataflow panicked; see the server's log".to_owned(),
            };
            if self.is_stopping() {
                return;
            }
            tracing::warn!(job = %self.name, error = %reason, "dataflow failed, it will be tried again");
            self.fail(&reason);
            // A run that lasted was healthy once; its failure is a new one.
            if started.elapsed() > longest_wait {
                wait = first_wait;
            }
            let mut guard = self.stop_lock.lock();
            if !self.is_stopping() {
                self.stop_signal.wait_for(&mut guard, wait);
            }
            drop(guard);
            wait = (wait * 2).min(longest_wait);
            self.update(|status| status.restarts += 1);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the job; returns when its thread is gone.
    pub(crate) async fn stop(&self, last_epoch: bool) {
        self.stopping.store(true, Ordering::Release);
        {
            let _guard = self.stop_lock.lock();
            self.stop_signal.notify_all();
        }
        let inbox = self.inbox.lock().clone();
        if let Some(inbox) = inbox {
            inbox.push_control(Control::Stop { last_epoch });
        }
        let mut ended = self.ended.subscribe();
        // The sender lives as long as the job.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Makes the current run known, so that it can be told things.
    pub(crate) fn set_inbox(&self, inbox: Option<Arc<Inbox>>) {
        if let Some(inbox) = &inbox
            && self.is_stopping()
        {
            inbox.push_control(Control::Stop { last_epoch: false });
        }
        *self.inbox.lock() = inbox;
    }

    /// Returns `true` when what was taken in before the call is committed, `false` when no run is there to commit it,
    /// or none any more: what it had not committed is read again later.
    pub(crate) async fn flush(&self) -> bool {
        let inbox = self.inbox.lock().clone();
        let (done, flushed) = oneshot::channel();
        inbox.is_some_and(|inbox| inbox.push_marker(Item::Flush(done))) && flushed.await.is_ok()
    }

    /// Asks the sources to tell when everything is taken in that they hold now; `Status::arrived` reaches the number given then.
    pub(crate) fn ask(&self) -> u64 {
        self.asks.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn asks(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.asks)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock());
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn read<R>(&self, look: impl FnOnce(&Status) -> R) -> R {
        look(&self.status.lock())
    }

    /// Tells of every change of the status.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn set_state(&self, state: JobState) {
        self.update(|status| {
            if status.state != state {
                (status.state, status.since_us) = (state, now_us());
            }
            if matches!(state, JobState::Running | JobState::Backfilling) {
                status.last_error = None;
            }
        });
    }

    fn fail(&self, reason: &str) {
        self.set_state(JobState::Failing);
        self.update(|status| {
            status.last_error = Some(reason.to_owned());
            status.arrived = 0;
        });
    }

    pub(crate) fn job_status(&self) -> JobStatus {
        let waits = self.context.catalog.commit_error();
        let status = self.status.lock();
        let running = matches!(status.state, JobState::Running | JobState::Backfilling);
        JobStatus {
            id: self.id,
            name: self.name.clone(),
            kind: self.kind,
            state: status.state,
            since_us: status.since_us,
            epoch: status.epoch,
            watermark_us: status.watermark_us,
            freshness_ms: status.committed_event_us.map(|newest| (now_us() - newest) / 1000),
            rows_in: status.counters.rows_in,
            rows_out: status.counters.rows_out,
            late_rows: status.counters.late_rows,
            error_rows: status.counters.error_rows,
            restarts: status.restarts,
            last_error: status.last_error.clone().or(waits.filter(|_| running)),
            state_bytes: status.state_bytes,
            checkpoint_ms: status.checkpoint_ms,
        }
    }

    pub(crate) fn split_statuses(&self) -> Vec<SplitStatus> {
        let status = self.status.lock();
        let with_offset = |(input, split): &(usize, SplitStatus)| {
            let offset = status.committed_offsets.get(*input).and_then(|splits| splits.get(&split.split));
            SplitStatus { offset: offset.map(offset_text).unwrap_or_default(), ..split.clone() }
        };
        status.splits.iter().map(with_offset).collect()
    }

    pub(crate) fn checkpoints(&self) -> Vec<CheckpointRecord> {
        self.status.lock().checkpoints.iter().cloned().collect()
    }
}

/// An error with what caused it, for one line of a system table.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = source.source();
    }
    text
}

/// The tables below a node, and whether the sources below it end.
fn collect_inputs(node: &Node, tables: &mut BTreeSet<ObjectId>, bounded: &mut bool) {
    match node {
        Node::Source(source) => *bounded &= source::is_bounded(&source.connector),
        Node::TableChanges(changes) => {
            tables.insert(changes.table);
        }
        Node::Filter { input, .. } | Node::Project { input, .. } | Node::WindowAssign { input, .. } => {
            collect_inputs(input, tables, bounded);
        }
        Node::WindowAggregate(node) => collect_inputs(&node.input, tables, bounded),
        Node::Aggregate(node) => collect_inputs(&node.input, tables, bounded),
        Node::Union { inputs, .. } => inputs.iter().for_each(|input| collect_inputs(input, tables, bounded)),
    }
}
