//! Paimon snapshots, derived from committed file edits.

use super::{FileEdit, TableSchema};
use crate::{Result, Seq, Storage};

/// Publishes the edit of commit `seq` as a Paimon snapshot and returns its number; does nothing when that has happened before.
/// Edits of a table are published in the order of their commits. An edit without files is not published.
pub(crate) async fn publish(
    storage: &Storage,
    schema: &TableSchema,
    commit_user: &str,
    seq: Seq,
    edit: &FileEdit,
    now_us: i64,
) -> Result<u64> {
    let _ = (storage, schema, commit_user, seq, edit, now_us);
    todo!()
}
