//! What system tables show of running dataflows.

use catalog::ObjectId;

/// State of a job as `freshet.jobs.state` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Restoring.
    Starting,
    /// Reading a table's rows before following it.
    Backfilling,
    /// Running.
    Running,
    /// Every input was bounded and is read: all windows are closed.
    Finished,
    /// Stopped by `ALTER … PAUSE`.
    Paused,
    /// Retrying.
    Failing,
}

impl JobState {
    /// The word in `freshet.jobs`.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Starting => "starting",
            JobState::Backfilling => "backfilling",
            JobState::Running => "running",
            JobState::Finished => "finished",
            JobState::Paused => "paused",
            JobState::Failing => "failing",
        }
    }
}

/// A row of `freshet.jobs`.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// Object.
    pub id: ObjectId,
    /// `schema.name`.
    pub name: String,
    /// `streaming view`, `sink`, `streaming table`.
    pub kind: &'static str,
    /// State.
    pub state: JobState,
    /// Since when, microseconds since 1970.
    pub since_us: i64,
    /// Last committed epoch.
    pub epoch: u64,
    /// Watermark.
    pub watermark_us: Option<i64>,
    /// Wall time less the newest event time committed, milliseconds.
    pub freshness_ms: Option<i64>,
    /// Rows read since the object was created.
    pub rows_in: u64,
    /// Rows out.
    pub rows_out: u64,
    /// Late rows.
    pub late_rows: u64,
    /// Rows in the error table, late ones not among them.
    pub error_rows: u64,
    /// Restarts after failures, since the server started.
    pub restarts: u64,
    /// Why it last failed, or why it waits.
    pub last_error: Option<String>,
    /// Bytes of state.
    pub state_bytes: u64,
    /// Duration of the last epoch's commit, milliseconds.
    pub checkpoint_ms: f64,
}

/// A row of `freshet.splits`.
#[derive(Debug, Clone)]
pub struct SplitStatus {
    /// Job.
    pub job: String,
    /// Streaming table.
    pub source: String,
    /// Split.
    pub split: String,
    /// Offset after the last committed row, as text.
    pub offset: String,
    /// End of the split if known.
    pub end_offset: Option<String>,
    /// Rows behind the end if known.
    pub lag_rows: Option<u64>,
    /// Watermark.
    pub watermark_us: Option<i64>,
    /// Whether it is idle.
    pub idle: bool,
    /// Whether the job's watermark waits for this split.
    pub holds_watermark: bool,
    /// Rows read.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Rows in the last second.
    pub rows_per_s: f64,
    /// Reconnects.
    pub reconnects: u64,
    /// Duplicates dropped.
    pub duplicates: u64,
    /// Gaps seen.
    pub gaps: u64,
    /// Why it last failed.
    pub last_error: Option<String>,
}

/// A row of `freshet.operators`.
#[derive(Debug, Clone)]
pub struct OperatorStatus {
    /// Job.
    pub job: String,
    /// Number within the dataflow.
    pub operator: u32,
    /// `source`, `filter`, `project`, `window aggregate`, …
    pub kind: &'static str,
    /// In words.
    pub detail: String,
    /// Rows in.
    pub rows_in: u64,
    /// Rows out.
    pub rows_out: u64,
    /// Batches in.
    pub batches_in: u64,
    /// Share of time spent working, percent.
    pub busy_pct: f64,
    /// Bytes waiting.
    pub queue_bytes: u64,
    /// Rows or groups of state.
    pub state_rows: u64,
    /// Bytes of state.
    pub state_bytes: u64,
    /// Watermark.
    pub watermark_us: Option<i64>,
}

/// A row of `freshet.checkpoints`.
#[derive(Debug, Clone)]
pub struct CheckpointRecord {
    /// Job.
    pub job: String,
    /// Epoch.
    pub epoch: u64,
    /// Barrier time, microseconds since 1970.
    pub started_us: i64,
    /// From the barrier to the commit, milliseconds.
    pub duration_ms: f64,
    /// Bytes of state and rows.
    pub bytes: u64,
    /// The commit it is in.
    pub seq: u64,
    /// The interval chosen and why: `caught up`, `behind`.
    pub interval_ms: u64,
    /// Why that interval.
    pub reason: &'static str,
}
