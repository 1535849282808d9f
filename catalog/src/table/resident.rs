//! The files of a small table as rows in memory.
//!
//! Most tables that dashboards poll hold a few thousand rows. Opening their files for each query would cost more than all the
//! rest of it, so the first query after a flush reads them once for all that follow.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int8Type;
use arrow::row::Rows;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::data_file::read;
use super::merge::{KeyEncoder, KeyIndex, Overlay, retain, with_schema};
use super::schema::{ROW_DELETE, ROW_UPDATE_BEFORE};
use super::{FileSet, TableSchema};
use crate::{Result, Storage};

/// A table with more rows in its files than this is not small.
const ROWS_MAX: u64 = 32 * 1024;
/// Nor is one with larger files,
const FILE_BYTES_MAX: u64 = 1 << 20;
/// or whose rows need more memory.
const MEMORY_BYTES_MAX: usize = 4 << 20;

/// The merged rows of a small table's files.
#[derive(Debug)]
pub(crate) struct Resident {
    rows: Vec<RecordBatch>,
    /// The keys of each batch; none without a primary key.
    keys: Vec<Rows>,
}

/// Filled by the first query; `None` in it when the rows turned out to be too large.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResidentCell(Arc<OnceCell<Option<Arc<Resident>>>>);

/// The table whole, as one state of the memtable and one of the files give it.
#[derive(Debug, Default)]
pub(crate) struct WholeCell(Mutex<Option<(Arc<Resident>, Arc<Vec<RecordBatch>>)>>);

impl ResidentCell {
    /// Of files that are never read into memory.
    #[cfg(test)]
    pub(crate) fn never() -> ResidentCell {
        ResidentCell(Arc::new(OnceCell::new_with(Some(None))))
    }

    /// The rows of `files`, which this cell belongs to, if they are few.
    pub(crate) async fn get(&self, storage: &Storage, schema: &TableSchema, files: &FileSet) -> Result<Option<Arc<Resident>>> {
        if files.rows() > ROWS_MAX || files.bytes() > FILE_BYTES_MAX {
            return Ok(None);
        }
        let load = || async { Ok(Resident::load(storage, schema, files).await?.map(Arc::new)) };
        self.0.get_or_try_init(load).await.cloned()
    }
}

impl WholeCell {
    /// The rows of files under those of a memtable.
    pub(crate) fn get(&self, resident: &Arc<Resident>, overlay: &Overlay) -> Result<Arc<Vec<RecordBatch>>> {
        let mut whole = self.0.lock();
        match &*whole {
            Some((of, rows)) if Arc::ptr_eq(of, resident) => Ok(rows.clone()),
            _ => {
                let rows = Arc::new(resident.under(overlay)?);
                *whole = Some((resident.clone(), rows.clone()));
                Ok(rows)
            }
        }
    }
}

impl Resident {
    async fn load(storage: &Storage, schema: &TableSchema, files: &FileSet) -> Result<Option<Resident>> {
        let key_width = schema.key.len();
        let encoder = KeyEncoder::at(schema, (0..key_width).collect())?;
        let mut newer = KeyIndex::default();
        let mut resident = Resident { rows: Vec::new(), keys: Vec::new() };
        let mut bytes = 0;
        let runs = files.runs();
        for file in runs.iter().flat_map(|run| &run.files) {
            let mut batches = read(storage, schema, file, 8192).await?;
            while let Some(mut batch) = batches.try_next().await? {
                if key_width > 0 {
                    let keys = encoder.encode(batch.columns())?;
                    let kinds = batch.column(key_width + 1).as_primitive::<Int8Type>().values().iter();
                    let live = keys
                        .iter()
                        .zip(kinds)
                        .map(|(key, kind)| newer.insert_key(key.data()) && *kind != ROW_DELETE && *kind != ROW_UPDATE_BEFORE);
                    batch = retain(batch.clone(), live.collect())?;
                    resident.keys.push(encoder.encode(batch.columns())?);
                }
                let system_columns = if key_width > 0 { key_width + 2 } else { 0 };
                let rows = with_schema(&schema.schema, batch.columns()[system_columns..].to_vec(), batch.num_rows())?;
                bytes += rows.get_array_memory_size();
                resident.rows.push(rows);
                if bytes > MEMORY_BYTES_MAX {
                    return Ok(None);
                }
            }
        }
        Ok(Some(resident))
    }

    fn under(&self, overlay: &Overlay) -> Result<Vec<RecordBatch>> {
        let mut whole = Vec::with_capacity(self.rows.len() + overlay.rows.len());
        for (index, rows) in self.rows.iter().enumerate() {
            whole.push(match self.keys.get(index) {
                Some(keys) if !overlay.keys.is_empty() => {
                    let live = keys.iter().map(|key| overlay.keys.run_of(key.data()).is_none()).collect();
                    retain(rows.clone(), live)?
                }
                _ => rows.clone(),
            });
        }
        whole.extend(overlay.rows.iter().cloned());
        whole.retain(|rows| rows.num_rows() > 0);
        Ok(whole)
    }
}
