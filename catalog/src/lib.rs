//! Named objects, and tables: the log that is the commit, memtables, Paimon files, snapshots.
//!
//! ```text
//!            Transaction / EpochOutput                      Version (one cut of everything)
//!  engine ───────────────┐                                  ┌──────────────▶ SELECT, views over views
//!  DDL, DML ─────────────┴▶ committer ─▶ log/<seq> ─▶ apply ┤
//!                            (group)   put-if-absent        └▶ memtable ─▶ flush ─▶ Parquet ─▶ Paimon snapshot
//! ```
//!
//! Knows: definitions as values, rows as Arrow batches with change kinds, files, object stores.
//! Does not know: streams beyond an epoch number and opaque offsets, SQL text (it stores it, it never reads it), the wire.

mod catalog;
mod change;
mod check;
mod definition;
mod epoch;
mod error;
mod errors_table;
mod log;
mod maintenance;
mod recovery;
mod storage;
mod table;
mod version;

pub use catalog::{Catalog, CatalogCounters, CommitRecord, DataflowRestore, Options, TableStatistics};
pub use change::{Changes, DELETE, INSERT};
pub use definition::{Definition, ObjectId, ObjectKind, ObjectName, Seq};
pub use epoch::{DefinitionChange, EpochOutput, StateKind, StatePart, Transaction};
pub use error::{Error, Result};
pub use errors_table::{ErrorRecord, error_rows, errors_schema};
pub use log::tail::{ChangeReader, Step, TableChanges};
pub use storage::{SETTINGS as STORAGE_SETTINGS, Storage, StoreRequests};
pub use table::Finding;
pub use version::{DataflowPosition, Version};

#[cfg(test)]
mod tests;
