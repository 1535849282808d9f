//! Rows that are committed but not yet in files.

use std::sync::{Arc, OnceLock};

use super::TableSchema;
use super::merge::{Folded, KeyEncoder, Overlay};
use crate::{Changes, Result, Seq};

/// Changes in the order of their commits. Cheap to clone; a clone never changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memtable {
    segments: Vec<Arc<Segment>>,
    /// Made by the first query of this state: polling clients share it.
    overlay: Arc<OnceLock<Arc<Overlay>>>,
}

/// What one commit brought, or part of it.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The commit.
    pub(crate) seq: Seq,
    /// The rows in order.
    pub(crate) changes: Changes,
    /// Made by the first query: those after it find it, whichever commits came meanwhile.
    folded: OnceLock<Folded>,
}

impl Segment {
    /// The last row of each key.
    pub(crate) fn folded(&self, keys: &KeyEncoder) -> Result<&Folded> {
        if let Some(folded) = self.folded.get() {
            return Ok(folded);
        }
        let folded = Folded::of(&self.changes.rows, keys)?;
        Ok(self.folded.get_or_init(|| folded))
    }
}

impl Memtable {
    /// Adds changes of commit `seq`, which is not before any other here.
    pub(crate) fn push(&mut self, seq: Seq, changes: Changes) {
        if !changes.is_empty() {
            self.segments.push(Arc::new(Segment { seq, changes, folded: OnceLock::new() }));
            self.overlay = Arc::default();
        }
    }

    /// Forgets what commits up to `seq` brought: it is in files, or truncated.
    pub(crate) fn trim(&mut self, seq: Seq) {
        self.segments.retain(|segment| segment.seq > seq);
        self.overlay = Arc::default();
    }

    /// What readers see of it.
    pub(crate) fn overlay(&self, schema: &TableSchema) -> Result<Arc<Overlay>> {
        if let Some(overlay) = self.overlay.get() {
            return Ok(overlay.clone());
        }
        let overlay = Arc::new(Overlay::of(&self.segments, schema)?);
        Ok(self.overlay.get_or_init(|| overlay).clone())
    }

    /// The oldest commit here: the log is kept from it on.
    pub(crate) fn first_seq(&self) -> Option<Seq> {
        self.segments.first().map(|segment| segment.seq)
    }

    /// The newest commit here.
    pub(crate) fn last_seq(&self) -> Option<Seq> {
        self.segments.last().map(|segment| segment.seq)
    }

    /// Oldest first.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Rows, deletes included.
    pub(crate) fn rows(&self) -> usize {
        self.segments.iter().map(|segment| segment.changes.len()).sum()
    }

    /// Bytes of the rows.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.changes.bytes()).sum()
    }
}
