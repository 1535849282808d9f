//! Merge on read as an anti-join.
//!
//! 1. The keys of all sorted runs but the oldest are read, newest run first, into a [`KeyIndex`]: key → newest run that has it.
//!    Whichever part of the scan is asked first does it, for all.
//! 2. Every run is streamed, in parallel and with filters pushed into it. A row lives when its key is not in the memtable and the
//!    index names no newer run, and when it does not say "deleted". The oldest run, mostly by far the largest, only probes.
//!
//! Filters may drop rows in step 2 because the index was built without them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int8Type, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

use super::merge::{KeyEncoder, KeyIndex, Overlay, retain, with_schema};
use super::provider::external;
use super::schema::{ROW_DELETE, ROW_UPDATE_BEFORE};
use super::{FileSet, TableSchema};

/// How one sorted run is read.
#[derive(Debug, Clone)]
pub(crate) struct RunScan {
    /// The projected columns, then key columns that are not among them, then the row kind where there are deletes.
    pub(crate) rows: Arc<dyn ExecutionPlan>,
    /// The key columns, for all runs but the oldest.
    pub(crate) keys: Option<Arc<dyn ExecutionPlan>>,
    /// Whether rows may say "deleted".
    pub(crate) has_deletes: bool,
}

/// Rows of a primary-key table, each key once. A leaf: its scans are its own business.
#[derive(Debug)]
pub(crate) struct MergeScan {
    shared: Arc<Shared>,
    properties: Arc<PlanProperties>,
    /// For each part of the output: parts of runs that it reads, one after the other.
    parts: Vec<Vec<(usize, usize)>>,
}

#[derive(Debug)]
struct Shared {
    table: Arc<TableSchema>,
    /// Keeps the files from being deleted.
    files: Arc<FileSet>,
    output: SchemaRef,
    projection: Vec<usize>,
    key_columns: Vec<usize>,
    overlay: Arc<Overlay>,
    /// Newest first.
    runs: Vec<RunScan>,
    index: OnceCell<RunIndex>,
}

/// Which run has the newest row of a key; its memory is accounted for while the plan lives.
#[derive(Debug)]
struct RunIndex {
    keys: KeyIndex,
    _memory: MemoryReservation,
}

impl MergeScan {
    /// `output` is the table's schema after `projection`; `key_columns` says where the key is in the batches of `runs`.
    pub(crate) fn new(
        table: Arc<TableSchema>,
        files: Arc<FileSet>,
        output: SchemaRef,
        projection: Vec<usize>,
        key_columns: Vec<usize>,
        overlay: Arc<Overlay>,
        runs: Vec<RunScan>,
    ) -> MergeScan {
        let shared = Shared { table, files, output, projection, key_columns, overlay, runs, index: OnceCell::new() };
        MergeScan::of(shared)
    }

    fn of(shared: Shared) -> MergeScan {
        let count = shared.runs.iter().map(|run| run.rows.properties().partitioning.partition_count()).max().unwrap_or(1).max(1);
        let mut parts = vec![Vec::new(); count];
        // The oldest run first and evenly, the smaller ones after it from the last part on.
        let of_runs = shared.runs.iter().enumerate().rev();
        let all = of_runs
            .flat_map(|(run, scan)| (0..scan.rows.properties().partitioning.partition_count()).map(move |part| (run, part)));
        for (index, part) in all.enumerate() {
            parts[index % count].push(part);
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(shared.output.clone()),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        MergeScan { shared: Arc::new(shared), properties: Arc::new(properties), parts }
    }
}

impl ExecutionPlan for MergeScan {
    fn name(&self) -> &'static str {
        "MergeScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let fresh = |run: &RunScan| {
            let keys = run.keys.clone().map(|keys| keys.reset_state()).transpose()?;
            Ok(RunScan { rows: run.rows.clone().reset_state()?, keys, has_deletes: run.has_deletes })
        };
        let shared = &self.shared;
        Ok(Arc::new(MergeScan::of(Shared {
            table: shared.table.clone(),
            files: shared.files.clone(),
            output: shared.output.clone(),
            projection: shared.projection.clone(),
            key_columns: shared.key_columns.clone(),
            overlay: shared.overlay.clone(),
            runs: shared.runs.iter().map(fresh).collect::<Result<_>>()?,
            index: OnceCell::new(),
        })))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let overlay = stream::iter(if partition == 0 { self.shared.overlay_rows()? } else { Vec::new() }.into_iter().map(Ok));
        let shared = self.shared.clone();
        let parts = stream::iter(self.parts[partition].clone());
        let merged = parts.then(move |(run, part)| read_part(shared.clone(), run, part, context.clone())).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), overlay.chain(merged))))
    }
}

impl DisplayAs for MergeScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.shared.files.iter().len();
        write!(f, "MergeScan: table={}, runs={}, files={files}", self.shared.table.path, self.shared.runs.len())?;
        write!(f, ", memtable_rows={}", self.shared.overlay.rows.iter().map(RecordBatch::num_rows).sum::<usize>())
    }
}

impl Shared {
    fn overlay_rows(&self) -> Result<Vec<RecordBatch>> {
        self.overlay.rows.iter().map(|rows| Ok(rows.project(&self.projection)?)).collect()
    }

    /// Step 1.
    async fn index(&self, context: &Arc<TaskContext>) -> Result<&RunIndex> {
        self.index.get_or_try_init(|| self.read_index(context)).await
    }

    async fn read_index(&self, context: &Arc<TaskContext>) -> Result<RunIndex> {
        let memory = MemoryConsumer::new(format!("keys of {}", self.table.path)).register(context.memory_pool());
        let encoder = KeyEncoder::at(&self.table, (0..self.table.key.len()).collect()).map_err(external)?;
        let mut keys = KeyIndex::default();
        for (number, run) in self.runs.iter().enumerate() {
            let Some(scan) = &run.keys else { continue };
            for part in 0..scan.properties().partitioning.partition_count() {
                let mut batches = scan.execute(part, context.clone())?;
                while let Some(batch) = batches.try_next().await? {
                    keys.insert_all(&encoder.encode(batch.columns()).map_err(external)?, number as u32);
                    memory.try_resize(keys.memory_bytes())?;
                }
            }
        }
        Ok(RunIndex { keys, _memory: memory })
    }

    /// Step 2: the rows of a batch of run `number` that no newer one hides.
    fn visible(&self, batch: RecordBatch, number: usize, index: &KeyIndex, encoder: &KeyEncoder) -> crate::Result<RecordBatch> {
        let mut live = vec![true; batch.num_rows()];
        if self.runs[number].has_deletes {
            let kinds = batch.column(batch.num_columns() - 1).as_primitive::<Int8Type>();
            for (live, kind) in live.iter_mut().zip(kinds.values()) {
                *live = *kind != ROW_DELETE && *kind != ROW_UPDATE_BEFORE;
            }
        }
        let newer_runs = number > 0 && !index.is_empty();
        if newer_runs || !self.overlay.keys.is_empty() {
            let keys = encoder.encode(batch.columns())?;
            for (live, key) in live.iter_mut().zip(&keys).filter(|(live, _)| **live) {
                let hidden = self.overlay.keys.run_of(key.data()).is_some()
                    || (newer_runs && index.run_of(key.data()).is_some_and(|run| (run as usize) < number));
                *live = !hidden;
            }
        }
        let width = self.output.fields().len();
        let batch = retain(batch, live)?;
        with_schema(&self.output, batch.columns()[..width].to_vec(), batch.num_rows())
    }
}

async fn read_part(shared: Arc<Shared>, run: usize, part: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
    shared.index(&context).await?;
    let encoder = KeyEncoder::at(&shared.table, shared.key_columns.clone()).map_err(external)?;
    let schema = shared.output.clone();
    let batches = shared.runs[run].rows.execute(part, context)?;
    let visible = batches.map(move |batch| {
        let index = &shared.index.get().expect("was read above").keys;
        shared.visible(batch?, run, index, &encoder).map_err(external)
    });
    let visible = visible.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, visible)))
}
