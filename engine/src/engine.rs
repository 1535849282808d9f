//! The engine: starts, supervises and stops dataflows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catalog::{Catalog, ObjectId, Seq};
use parking_lot::RwLock;

use crate::dataflow::{Context, Job};
use crate::plan::Dataflow;
use crate::status::{CheckpointRecord, JobState, JobStatus, OperatorStatus, SplitStatus};
use crate::{Error, Result};

/// Bounds of the engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Least time between barriers of one dataflow. Default 250 ms.
    pub checkpoint_interval: Duration,
    /// Longest time between barriers while behind. Default 2 s.
    pub checkpoint_interval_max: Duration,
    /// Bytes of decoded rows waiting between a source's reader and its dataflow. Default 16 MiB for each dataflow.
    pub source_buffer_bytes: usize,
    /// First and longest wait before a failed dataflow is tried again. Default 250 ms, 30 s.
    pub retry: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            checkpoint_interval: Duration::from_millis(250),
            checkpoint_interval_max: Duration::from_secs(2),
            source_buffer_bytes: 16 << 20,
            retry: (Duration::from_millis(250), Duration::from_secs(30)),
        }
    }
}

/// How long a source must have been silent to be taken as caught up when it does not say so again.
const SETTLED: Duration = Duration::from_secs(1);

/// All running dataflows of a server.
#[derive(Debug)]
pub struct Engine {
    context: Arc<Context>,
    jobs: RwLock<BTreeMap<ObjectId, Arc<Job>>>,
}

impl Engine {
    /// An engine over a catalog. Must be called within a tokio runtime.
    pub fn new(catalog: Arc<Catalog>, options: Options) -> Arc<Engine> {
        let context = Context {
            catalog,
            checkpoint_interval_us: AtomicU64::new(options.checkpoint_interval.as_micros() as u64),
            options,
            runtime: tokio::runtime::Handle::current(),
            grid: Instant::now(),
        };
        Arc::new(Engine { context: Arc::new(context), jobs: RwLock::default() })
    }

    /// Starts a dataflow where the catalog says it stands, and keeps it running: a failure is retried with backoff
    /// from the last committed epoch and shown in its status. Returns at once.
    /// One that runs already under this id must have been stopped before.
    pub fn start(&self, dataflow: Dataflow) {
        let job = Job::new(Arc::clone(&self.context), dataflow);
        self.jobs.write().insert(job.id, Arc::clone(&job));
        job.spawn();
    }

    /// Stops a dataflow after the epoch it is in; what is not committed is dropped. Returns when it is gone.
    pub async fn stop(&self, id: ObjectId) {
        let job = self.jobs.write().remove(&id);
        if let Some(job) = job {
            job.stop(false).await;
        }
    }

    /// A job that cannot even be planned at start-up is shown as `failing` with this reason.
    pub fn set_failed(&self, id: ObjectId, name: &str, kind: &'static str, reason: String) {
        let job = Job::failed(Arc::clone(&self.context), id, name, kind, reason);
        self.jobs.write().insert(id, job);
    }

    /// `freshet.jobs`.
    pub fn jobs(&self) -> Vec<JobStatus> {
        self.all().iter().map(|job| job.job_status()).collect()
    }

    /// `freshet.splits`.
    pub fn splits(&self) -> Vec<SplitStatus> {
        self.all().iter().flat_map(|job| job.split_statuses()).collect()
    }

    /// `freshet.operators`.
    pub fn operators(&self) -> Vec<OperatorStatus> {
        self.all().iter().flat_map(|job| job.read(|status| status.operators.clone())).collect()
    }

    /// `freshet.checkpoints`: recent epochs, bounded.
    pub fn checkpoints(&self) -> Vec<CheckpointRecord> {
        self.all().iter().flat_map(|job| job.checkpoints()).collect()
    }

    /// `FLUSH`: returns when everything that sources had taken in before the call is committed, through views over views.
    /// A failing job is not waited for.
    pub async fn flush(&self) -> Result<()> {
        for level in self.levels() {
            // What the level below has just committed must have been taken in first.
            let targets = self.committed();
            let flush = level.iter().map(|job| async {
                self.taken_in(job, &targets).await;
                job.flush().await;
            });
            futures::future::join_all(flush).await;
        }
        Ok(())
    }

    /// `freshet.wait`: returns when the job is finished, or running and caught up with what its sources held at the call.
    /// # Errors
    /// 57014 after the time.
    pub async fn wait(&self, id: ObjectId, limit: Duration) -> Result<()> {
        let Some(job) = self.jobs.read().get(&id).cloned() else {
            let message = "there is no job to wait for: it is paused, or has been dropped".to_owned();
            return Err(Error::Unsupported { message, hint: None });
        };
        let called = Instant::now();
        let targets = self.committed();
        let arrival = async {
            let mut changes = job.changes();
            while !has_arrived(&job, called) {
                // Time alone can make it so, see SETTLED; the sender lives as long as the job.
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            }
            self.taken_in(&job, &targets).await;
            if !job.read(|status| status.state == JobState::Finished) {
                job.flush().await;
            }
        };
        tokio::time::timeout(limit, arrival).await.map_err(|_| {
            let (state, error) = job.read(|status| (status.state, status.last_error.clone()));
            let because = error.map(|error| format!(": {error}")).unwrap_or_default();
            let name = &job.name;
            Error::Timeout { message: format!("\"{name}\" is still {} after {limit:?}{because}", state.name()) }
        })
    }

    /// Changes the interval between barriers of all dataflows.
    pub fn set_checkpoint_interval(&self, interval: Duration) {
        self.context.checkpoint_interval_us.store(interval.as_micros() as u64, Ordering::Relaxed);
    }

    /// Ends every dataflow after a last epoch, in the time given.
    pub async fn shutdown(&self, limit: Duration) {
        let jobs = self.all();
        let stops = futures::future::join_all(jobs.iter().map(|job| job.stop(true)));
        if tokio::time::timeout(limit, stops).await.is_err() {
            tracing::warn!("some dataflows have not ended in time; they go on from their last commit at the next start");
        }
    }

    fn all(&self) -> Vec<Arc<Job>> {
        self.jobs.read().values().cloned().collect()
    }

    /// Running jobs, those that read others after them.
    fn levels(&self) -> Vec<Vec<Arc<Job>>> {
        let mut waiting: Vec<Arc<Job>> = self.all();
        let mut levels = Vec::new();
        while !waiting.is_empty() {
            let open: BTreeSet<ObjectId> = waiting.iter().map(|job| job.id).collect();
            let (later, now): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|job| !job.follows.is_disjoint(&open));
            if now.is_empty() {
                // Objects depend on older ones only; a circle would wait for itself.
                break;
            }
            levels.push(now);
            waiting = later;
        }
        levels
    }

    /// For each followed table the commit a follower must have taken in to be up to date now: the last one of the
    /// table's dataflow, or the newest of all where the table has none.
    fn committed(&self) -> BTreeMap<ObjectId, Seq> {
        let version = self.context.catalog.version();
        let followed: BTreeSet<ObjectId> = self.all().iter().flat_map(|job| job.follows.clone()).collect();
        followed.into_iter().map(|id| (id, version.dataflow(id).map_or(version.seq, |position| position.seq))).collect()
    }

    /// Waits until a job has taken in its tables up to the given commits, as long as it runs.
    async fn taken_in(&self, job: &Job, targets: &BTreeMap<ObjectId, Seq>) {
        let mut changes = job.changes();
        let is_there = |status: &crate::dataflow::Status| {
            let runs = matches!(status.state, JobState::Starting | JobState::Running | JobState::Backfilling);
            !runs || {
                let seen: BTreeMap<ObjectId, Seq> = status.seen.iter().copied().collect();
                job.follows.iter().all(|id| seen.get(id) >= targets.get(id))
            }
        };
        while !job.read(is_there) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether every split has been at its end after `called`.
fn has_arrived(job: &Job, called: Instant) -> bool {
    job.read(|status| match (status.state, &status.arrivals) {
        (JobState::Finished, _) => true,
        (JobState::Running, Some(arrivals)) => arrivals.iter().all(|split| {
            let at_end = split.caught_up_at.is_some_and(|at| at >= called || called.elapsed() >= SETTLED);
            split.finished || at_end
        }),
        _ => false,
    })
}
