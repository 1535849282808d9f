//! Fewer, larger files: which to merge (a pure decision) and the merging.

use super::{FileEdit, FileSet, TableSchema};
use crate::{Result, Storage};

/// Files to be merged and the level of the result.
#[derive(Debug, Clone)]
pub(crate) struct CompactionSpec {}

/// What should be merged now, if anything.
pub(crate) fn compaction(files: &FileSet, schema: &TableSchema) -> Option<CompactionSpec> {
    let _ = (files, schema);
    todo!()
}

/// Merges the files of `spec` into new ones. The edit must be committed only if [`FileSet::admits`] it then.
pub(crate) async fn compact(storage: &Storage, schema: &TableSchema, spec: &CompactionSpec, now_us: i64) -> Result<FileEdit> {
    let _ = (storage, schema, spec, now_us);
    todo!()
}
