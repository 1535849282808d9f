//! What is handed to the committer.

use bytes::Bytes;

use crate::{Changes, Definition, ObjectId, Seq};

/// How a state part relates to the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    /// Merges into what came before.
    Delta,
    /// Replaces everything that came before for this operator.
    Image,
}

/// State of one operator leaving at a barrier; opaque to the catalog.
#[derive(Debug, Clone)]
pub struct StatePart {
    /// The operator's number within its dataflow, stable for one definition.
    pub operator: u32,
    /// Delta or image.
    pub kind: StateKind,
    /// Encoded by the operator.
    pub payload: Bytes,
}

/// One finished epoch of one dataflow: becomes durable whole or not at all.
#[derive(Debug, Clone)]
pub struct EpochOutput {
    /// The dataflow's object.
    pub dataflow: ObjectId,
    /// Its epoch, one more than the last committed one.
    pub epoch: u64,
    /// Where every split is to be resumed after this epoch, encoded by the engine (JSON).
    pub offsets: Bytes,
    /// Watermark after this epoch, microseconds since 1970; `None` while unknown, `i64::MAX` when the input has ended.
    pub watermark: Option<i64>,
    /// Every input was bounded and has been read to the end.
    pub finished: bool,
    /// State parts.
    pub state: Vec<StatePart>,
    /// Rows for tables: the dataflow's own, and `ObjectId::ERRORS`.
    pub rows: Vec<(ObjectId, Changes)>,
    /// Up to which commit the dataflow has consumed each table it follows; the log is kept from the lowest of them.
    pub reads: Vec<(ObjectId, Seq)>,
}

/// A change of definitions.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a handful per statement, and statements are rare")]
pub enum DefinitionChange {
    /// A new object, or a new version of one with the same id.
    Put(Definition),
    /// The object is gone, with its table and its dataflow.
    Drop(ObjectId),
}

/// A statement's or a transaction block's effect: becomes durable whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// Definition changes, in order.
    pub definitions: Vec<DefinitionChange>,
    /// Row changes of ordinary tables, in order.
    pub rows: Vec<(ObjectId, Changes)>,
    /// Tables whose rows are all removed first.
    pub truncate: Vec<ObjectId>,
    /// Refused with [`crate::Error::Conflict`] (40001) when definitions have changed since this one, if given
    /// (`Version::definitions_version`).
    pub definitions_version: Option<u64>,
    /// Refused with [`crate::Error::Conflict`] when a named table has changed after the given commit:
    /// what UPDATE and DELETE computed would no longer be true.
    pub unchanged_since: Vec<(ObjectId, Seq)>,
}
