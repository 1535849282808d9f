//! Memtable to level-0 files.

use super::{FileEdit, Memtable, TableSchema};
use crate::{Result, Storage};

/// Writes the rows of `frozen` to new files. Nothing refers to them until the edit is committed.
/// `next_sequence` is [`super::FileSet::next_sequence`] of the set the edit will be applied to.
pub(crate) async fn flush(
    storage: &Storage,
    schema: &TableSchema,
    frozen: &Memtable,
    next_sequence: i64,
    now_us: i64,
) -> Result<FileEdit> {
    let _ = (storage, schema, frozen, next_sequence, now_us);
    todo!()
}
