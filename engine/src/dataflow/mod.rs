//! A running continuous query.
//!
//! ```text
//!  source thread ──┐ bounded   driver thread                                        catalog
//!  follower thread ┴─▶ Queue ─▶ Graph: operators called by method ─▶ sink ─▶ epoch ─▶ submit ─▶ commit
//!                               ▲ watermark advances after the batch that moved it
//! ```
//!
//! Order within one dataflow: a batch goes through all operators before the next; the watermark a batch causes is
//! delivered after it, children before parents; a barrier runs between batches. So a row is always judged against
//! the watermark of the rows before its batch, and a barrier never overtakes a row.

mod driver;
mod evaluate;
mod follower;
mod graph;
mod job;
mod operators;
mod position;
mod queue;
mod sink;
mod watermarks;

use std::sync::Arc;

use bytes::Bytes;
use catalog::{Changes, ErrorRecord, StateKind, StatePart};

use crate::Result;
use crate::source::Offset;

pub(crate) use job::{Context, Job, Status};

/// Where rows came from, as far as it is known: for late rows and failing expressions.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The streaming table, `schema.name`.
    pub(crate) source: Arc<str>,
    /// The split within it.
    pub(crate) split: Arc<str>,
    /// Where the split goes on after the batch.
    pub(crate) offset: Offset,
}

/// Rows on their way, with their origin until an operator mixes rows of several.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) changes: Changes,
    pub(crate) origin: Option<Arc<Origin>>,
}

/// What an operator gives away when it is called.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Rows for the operator above.
    pub(crate) batches: Vec<Batch>,
    /// Rows set aside; the job's name is filled in by the graph.
    pub(crate) errors: Vec<ErrorRecord>,
}

impl Output {
    /// Rows of mixed origin.
    pub(crate) fn emit(&mut self, changes: Changes) {
        if !changes.is_empty() {
            self.batches.push(Batch { changes, origin: None });
        }
    }
}

/// Whether an operator has said all it has to say about a watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advance {
    /// Everything the watermark allows has been emitted.
    Done,
    /// Call again with the same watermark: results leave in pieces, so that they never all wait in memory.
    More,
}

/// Size of an operator's state.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StateSize {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Consumes batches, keeps state, emits batches. Called by one thread only.
///
/// Order of calls: `restore` at most once and first; then any of `push` and `advance`; at a barrier `barrier` and,
/// when all operators below have had theirs, `export`. Watermarks never go back.
pub(crate) trait Operator: Send {
    /// `filter`, `project`, …: for `freshet.operators`.
    fn kind(&self) -> &'static str;

    /// In words, for `freshet.operators`.
    fn detail(&self) -> String {
        String::new()
    }

    /// Takes rows in.
    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()>;

    /// Time has advanced: no row below `watermark` is expected any more; `i64::MAX` at the end of the input.
    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<Advance> {
        let _ = (watermark, out);
        Ok(Advance::Done)
    }

    /// The epoch ends: emits what leaves at barriers.
    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// State as it is after the barrier: all of it, or what changed since the export before. `None`: nothing changed.
    fn export(&mut self, kind: StateKind) -> Result<Option<Bytes>> {
        let _ = kind;
        Ok(None)
    }

    /// Takes up exported state: an image if there was one, and the deltas after it. `watermark` is the dataflow's
    /// at the barrier of the last of them.
    fn restore(&mut self, parts: &[StatePart], watermark: Option<i64>) -> Result<()> {
        let _ = (parts, watermark);
        Ok(())
    }

    /// How much state there is.
    fn state(&self) -> StateSize {
        StateSize::default()
    }
}

/// The wall clock, microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
