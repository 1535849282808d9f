//! A table at one commit, for DataFusion.

use std::sync::Arc;

use datafusion::catalog::TableProvider;

use super::{FileSet, Memtable, TableSchema};
use crate::{Storage, TableStatistics};

/// Memtable and files at one cut. Its files are not deleted while it lives.
#[derive(Debug, Clone)]
pub(crate) struct TableSnapshot {
    /// Columns, key, place.
    pub(crate) schema: Arc<TableSchema>,
    /// Rows that are not in files.
    pub(crate) memtable: Memtable,
    /// Files.
    pub(crate) files: Arc<FileSet>,
    /// Where the files are.
    pub(crate) storage: Storage,
}

impl TableSnapshot {
    /// The merged rows.
    pub(crate) fn provider(&self) -> Arc<dyn TableProvider> {
        todo!()
    }

    /// Sizes; the number of the Paimon snapshot is not known here and left 0.
    pub(crate) fn statistics(&self) -> TableStatistics {
        TableStatistics {
            file_rows: self.files.rows(),
            file_bytes: self.files.bytes(),
            files: self.files.iter().len() as u64,
            level0_files: self.files.iter().filter(|file| file.level == 0).count() as u64,
            memtable_rows: self.memtable.rows() as u64,
            memtable_bytes: self.memtable.bytes() as u64,
            snapshot: 0,
        }
    }
}
