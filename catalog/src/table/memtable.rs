//! Rows that are committed but not yet in files.

use std::sync::Arc;

use crate::{Changes, Seq};

/// Changes in the order of their commits. Cheap to clone; a clone never changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memtable {
    segments: Vec<Arc<Segment>>,
}

/// What one commit brought.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) seq: Seq,
    pub(crate) changes: Changes,
}

impl Memtable {
    /// Adds changes of commit `seq`, which is not before any other here.
    pub(crate) fn push(&mut self, seq: Seq, changes: Changes) {
        if !changes.is_empty() {
            self.segments.push(Arc::new(Segment { seq, changes }));
        }
    }

    /// What commits up to `seq` brought.
    pub(crate) fn up_to(&self, seq: Seq) -> Memtable {
        Memtable { segments: self.segments.iter().filter(|segment| segment.seq <= seq).cloned().collect() }
    }

    /// What commits after `seq` brought.
    pub(crate) fn after(&self, seq: Seq) -> Memtable {
        Memtable { segments: self.segments.iter().filter(|segment| segment.seq > seq).cloned().collect() }
    }

    /// Forgets what commits up to `seq` brought: it is in files.
    pub(crate) fn trim(&mut self, seq: Seq) {
        self.segments.retain(|segment| segment.seq > seq);
    }

    /// The newest commit here.
    pub(crate) fn last_seq(&self) -> Option<Seq> {
        self.segments.last().map(|segment| segment.seq)
    }

    /// The oldest commit here: the log is kept from it on.
    pub(crate) fn first_seq(&self) -> Option<Seq> {
        self.segments.first().map(|segment| segment.seq)
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
