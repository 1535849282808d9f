//! The engine: starts, supervises and stops dataflows.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, ObjectId};

use crate::plan::Dataflow;
use crate::{Result, status::{CheckpointRecord, JobStatus, OperatorStatus, SplitStatus}};

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

/// All running dataflows of a server.
#[derive(Debug)]
pub struct Engine {
    // private
}

impl Engine {
    /// An engine over a catalog. Must be called within a tokio runtime.
    pub fn new(catalog: Arc<Catalog>, options: Options) -> Arc<Engine> {
        let _ = (catalog, options);
        todo!()
    }

    /// Starts a dataflow where the catalog says it stands, and keeps it running: a failure is retried with backoff
    /// from the last committed epoch and shown in its status. Returns at once.
    pub fn start(&self, dataflow: Dataflow) {
        let _ = dataflow;
        todo!()
    }

    /// Stops a dataflow after the epoch it is in; what is not committed is dropped. Returns when it is gone.
    pub async fn stop(&self, id: ObjectId) {
        let _ = id;
        todo!()
    }

    /// A job that cannot even be planned at start-up is shown as `failing` with this reason.
    pub fn set_failed(&self, id: ObjectId, name: &str, kind: &'static str, reason: String) {
        let _ = (id, name, kind, reason);
        todo!()
    }

    /// `freshet.jobs`.
    pub fn jobs(&self) -> Vec<JobStatus> {
        todo!()
    }

    /// `freshet.splits`.
    pub fn splits(&self) -> Vec<SplitStatus> {
        todo!()
    }

    /// `freshet.operators`.
    pub fn operators(&self) -> Vec<OperatorStatus> {
        todo!()
    }

    /// `freshet.checkpoints`: recent epochs, bounded.
    pub fn checkpoints(&self) -> Vec<CheckpointRecord> {
        todo!()
    }

    /// `FLUSH`: returns when everything that sources had taken in before the call is committed, through views over views.
    pub async fn flush(&self) -> Result<()> {
        todo!()
    }

    /// `freshet.wait`: returns when the job is finished, or running and caught up with what its sources held at the call.
    /// # Errors
    /// 57014 after the time.
    pub async fn wait(&self, id: ObjectId, limit: Duration) -> Result<()> {
        let _ = (id, limit);
        todo!()
    }

    /// Changes the interval between barriers of all dataflows.
    pub fn set_checkpoint_interval(&self, interval: Duration) {
        let _ = interval;
        todo!()
    }

    /// Ends every dataflow after a last epoch, in the time given.
    pub async fn shutdown(&self, limit: Duration) {
        let _ = limit;
        todo!()
    }
}
