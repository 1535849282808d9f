//! Forgets old Paimon snapshots and deletes the files that only they needed.

use super::{FileSet, TableSchema};
use crate::{Result, Storage};

/// How long Paimon snapshots stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Snapshots that always stay. Default 10.
    pub(crate) snapshots_min: usize,
    /// A snapshot stays while the next one is younger than this, microseconds. Default one hour.
    pub(crate) age_us: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { snapshots_min: 10, age_us: 3_600_000_000 }
    }
}

/// Deletes snapshots that `retention` lets go, and the files that neither a later snapshot nor a reader of ours needs.
pub(crate) async fn expire(
    storage: &Storage,
    schema: &TableSchema,
    retention: Retention,
    live: &FileSet,
    now_us: i64,
) -> Result<()> {
    let _ = (storage, schema, retention, live, now_us);
    todo!()
}
