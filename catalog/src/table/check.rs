//! Looks for damage: what `freshet check` says about a table's files.

use super::{FileSet, TableSchema};
use crate::Storage;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The object.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// Reads the metadata and the footers of all live files; empty when all is well.
pub(crate) async fn check(storage: &Storage, schema: &TableSchema, live: &FileSet) -> Vec<Finding> {
    let _ = (storage, schema, live);
    todo!()
}
