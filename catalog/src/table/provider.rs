//! A table at one commit, for DataFusion.
//!
//! Parquet files are read by DataFusion's own scan, through our store and its cache of footers. Rows of an append table, and of
//! one whose files need no merging, go straight to the query, with everything pushed down; others pass a [`MergeScan`], and
//! those of small tables come from memory ([`super::resident`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result as DataFusionResult, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;

use super::merge::Overlay;
use super::merge_scan::{MergeScan, RunScan};
use super::schema::VALUE_KIND;
use super::{DataFile, FileSet, Memtable, SortedRun, TableSchema};
use crate::{Error, Storage, TableStatistics};

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
        Arc::new(SnapshotProvider { snapshot: self.clone() })
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

#[derive(Debug)]
struct SnapshotProvider {
    snapshot: TableSnapshot,
}

#[async_trait]
impl TableProvider for SnapshotProvider {
    fn schema(&self) -> SchemaRef {
        self.snapshot.schema.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let TableSnapshot { schema, memtable, files, storage } = &self.snapshot;
        let overlay = memtable.overlay(schema).map_err(external)?;
        let memory = |rows: &[RecordBatch]| -> DataFusionResult<Arc<dyn ExecutionPlan>> {
            let source = MemorySourceConfig::try_new(&[rows.to_vec()], self.schema(), projection.cloned())?;
            Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
        };
        if files.is_empty() {
            return memory(&overlay.rows);
        }
        if let Some(resident) = files.resident.get(storage, schema, files).await.map_err(external)? {
            return memory(&overlay.whole.get(&resident, &overlay).map_err(external)?);
        }
        let runs = files.runs();
        let deletes = runs.iter().any(|run| run.delete_rows() > 0);
        if !schema.key.is_empty() && (runs.len() > 1 || deletes || !overlay.keys.is_empty()) {
            return self.merge_scan(state, projection, filters, &runs, overlay);
        }
        let all: Vec<_> = files.iter().cloned().collect();
        // Filters reach this scan by DataFusion's own push-down of physical filters.
        let files = self.file_scan(state, &all, &self.schema(), projection.cloned(), None, limit)?;
        if overlay.rows.is_empty() { Ok(files) } else { UnionExec::try_new(vec![files, memory(&overlay.rows)?]) }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // They only choose what need not be read.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let rows = self.snapshot.files.rows() as usize + self.snapshot.memtable.rows();
        let exact = self.snapshot.schema.key.is_empty();
        let num_rows = if exact { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        Some(Statistics { num_rows, ..Statistics::new_unknown(&self.schema()) })
    }
}

impl SnapshotProvider {
    fn merge_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        runs: &[SortedRun],
        overlay: Arc<Overlay>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let table = &self.snapshot.schema;
        let schema = self.schema();
        let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        // A deleted row may lack what the table demands of others.
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let with_kind: SchemaRef =
            Arc::new(Schema::new(nullable.chain([Field::new(VALUE_KIND, DataType::Int8, true)]).collect::<Vec<_>>()));
        let mut columns = projection.clone();
        columns.extend(table.key.iter().filter(|column| !projection.contains(column)));
        let key_columns: Vec<usize> = table
            .key
            .iter()
            .map(|key| columns.iter().position(|column| column == key).expect("was added if it was not there"))
            .collect();

        let df_schema = DFSchema::try_from(schema.clone())?;
        let physical =
            |filters: Vec<Expr>| conjunction(filters).map(|filter| state.create_physical_expr(filter, &df_schema)).transpose();
        let predicate = physical(filters.to_vec())?;
        // A row that is newer hides older ones whatever it says, unless the filter is on the key, which they share.
        let key_names: Vec<&str> = table.key_fields().map(|field| field.name().as_str()).collect();
        let on_key = |filter: &&Expr| filter.column_refs().iter().all(|column| key_names.contains(&column.name.as_str()));
        let key_predicate = physical(filters.iter().filter(on_key).cloned().collect())?;

        let oldest = runs.len() - 1;
        let mut scans = Vec::with_capacity(runs.len());
        for (number, run) in runs.iter().enumerate() {
            let mut columns = columns.clone();
            if run.delete_rows() > 0 {
                columns.push(schema.fields().len());
            }
            let rows = self.file_scan(state, &run.files, &with_kind, Some(columns), predicate.clone(), None)?;
            let keys = (number < oldest).then(|| self.key_scan(state, run, &with_kind, key_predicate.clone())).transpose()?;
            scans.push(RunScan { rows: split(rows, state)?, keys, has_deletes: run.delete_rows() > 0 });
        }
        let output = Arc::new(schema.project(&projection)?);
        Ok(Arc::new(MergeScan::new(table.clone(), self.snapshot.files.clone(), output, projection, key_columns, overlay, scans)))
    }

    /// The keys of a run, in the order of the key.
    fn key_scan(
        &self,
        state: &dyn Session,
        run: &SortedRun,
        schema: &SchemaRef,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.file_scan(state, &run.files, schema, Some(self.snapshot.schema.key.clone()), predicate, None)
    }

    /// Reads columns of files, which `schema` names; all files in one part.
    fn file_scan(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        schema: &SchemaRef,
        columns: Option<Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let TableSnapshot { schema: table, storage, .. } = &self.snapshot;
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let reader = Arc::new(CachedParquetFileReaderFactory::new(storage.store.clone(), footers));
        let options = TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        let mut source =
            ParquetSource::new(schema.clone()).with_table_parquet_options(options).with_parquet_file_reader_factory(reader);
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let group = files.iter().map(|file| partitioned_file(table, file, schema)).collect();
        let rows = files.iter().map(|file| file.rows as usize).sum();
        let bytes = files.iter().map(|file| file.size as usize).sum();
        let statistics = statistics(schema, rows, bytes);
        // The reader above knows the store; the URL only has to be one that DataFusion has some store for.
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_group(FileGroup::new(group))
            .with_statistics(statistics)
            .with_projection_indices(columns)?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn partitioned_file(table: &TableSchema, file: &DataFile, schema: &SchemaRef) -> PartitionedFile {
    let last_modified = chrono::DateTime::from_timestamp_micros(file.creation_us).unwrap_or_default();
    let meta = ObjectMeta { location: table.data_file(&file.name), last_modified, size: file.size, e_tag: None, version: None };
    PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(statistics(schema, file.rows as usize, file.size as usize)))
}

fn statistics(schema: &SchemaRef, rows: usize, bytes: usize) -> Statistics {
    Statistics { num_rows: Precision::Exact(rows), total_byte_size: Precision::Inexact(bytes), ..Statistics::new_unknown(schema) }
}

/// The scan in as many parts as there are threads, where it is large enough.
fn split(scan: Arc<dyn ExecutionPlan>, state: &dyn Session) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let split = scan.repartitioned(state.config().target_partitions(), state.config_options())?;
    Ok(split.unwrap_or(scan))
}

/// An error of ours on its way through DataFusion.
pub(crate) fn external(error: Error) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}
