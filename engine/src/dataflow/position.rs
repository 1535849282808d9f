//! Where a dataflow stands, as JSON in the `offsets` of its epochs.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::source::{Offset, SplitId};

/// Everything of a position but operator state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Position {
    /// For each input of the plan, in order, its splits.
    pub(crate) inputs: Vec<BTreeMap<SplitId, SplitPosition>>,
    /// Counted since the object was created.
    pub(crate) counters: Counters,
    /// The newest event time taken in.
    pub(crate) newest_event_us: Option<i64>,
}

/// Where a split stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SplitPosition {
    /// Where it is to be resumed; `None`: where its options say.
    pub(crate) offset: Option<Offset>,
    /// Its watermark.
    pub(crate) watermark: Option<i64>,
    /// Read to the end.
    pub(crate) finished: bool,
    /// Rows read.
    pub(crate) rows: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
}

/// What `freshet.jobs` counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) late_rows: u64,
    pub(crate) error_rows: u64,
}

impl Position {
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("maps with text keys become JSON").into()
    }

    /// Reads what [`Position::encode`] wrote; `inputs` is the number of inputs of the plan.
    pub(crate) fn decode(bytes: &[u8], inputs: usize) -> crate::Result<Position> {
        let mut position: Position = serde_json::from_slice(bytes)
            .map_err(|error| crate::state::damaged(format!("offsets of a dataflow cannot be read: {error}")))?;
        position.inputs.resize_with(inputs, BTreeMap::new);
        Ok(position)
    }
}
