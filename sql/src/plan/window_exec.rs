//! Windows in bounded queries.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, PrimitiveArray, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::distribution_requirements::InputDistributionRequirements;
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use engine::plan::WindowKind;
use futures::{StreamExt, TryStreamExt, stream};

use super::window::WindowAssign;

/// Rows gathered before sessions leave.
const BATCH: usize = 8192;

/// Plans [`WindowAssign`] for bounded queries.
#[derive(Debug)]
pub(crate) struct WindowPlanner;

#[async_trait]
impl ExtensionPlanner for WindowPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(window) = (node.as_any() as &dyn Any).downcast_ref::<WindowAssign>() else { return Ok(None) };
        let Some(input) = physical_inputs.first() else { return Ok(None) };
        let kind = window.kind.for_engine(window.key_indexes()?);
        Ok(Some(Arc::new(WindowExec::new(Arc::clone(input), window.time_index()?, kind, Arc::clone(node.schema().inner())))))
    }
}

/// Appends the window columns to rows.
#[derive(Debug, Clone)]
struct WindowExec {
    input: Arc<dyn ExecutionPlan>,
    time: usize,
    kind: WindowKind,
    properties: Arc<PlanProperties>,
}

impl WindowExec {
    fn new(input: Arc<dyn ExecutionPlan>, time: usize, kind: WindowKind, schema: SchemaRef) -> Self {
        let partitions = match kind {
            WindowKind::Session { .. } => 1,
            _ => input.output_partitioning().partition_count(),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            input.boundedness(),
        );
        WindowExec { input, time, kind, properties: Arc::new(properties) }
    }

    fn column(&self, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.input.schema().field(index).name(), index))
    }

    fn keys(&self) -> &[usize] {
        match &self.kind {
            WindowKind::Session { keys, .. } => keys,
            _ => &[],
        }
    }
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowExec: {:?} over {}", self.kind, self.input.schema().field(self.time).name())
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &str {
        "WindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![match self.kind {
            WindowKind::Session { .. } => Distribution::SinglePartition,
            _ => Distribution::UnspecifiedDistribution,
        }])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        if !matches!(self.kind, WindowKind::Session { .. }) {
            return vec![None];
        }
        let columns = self.keys().iter().copied().chain([self.time]);
        let sort = columns.map(|column| PhysicalSortExpr::new(self.column(column), SortOptions::default()));
        vec![LexOrdering::new(sort).map(OrderingRequirements::from)]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for column in self.keys().iter().copied().chain([self.time]) {
            if f(&self.column(column))? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(WindowExec::new(input, self.time, self.kind.clone(), self.schema()))),
            _ => Err(DataFusionError::Internal("a window has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (schema, time, kind) = (self.schema(), self.time, self.kind.clone());
        let output = Arc::clone(&schema);
        let stream = match kind {
            WindowKind::Session { gap_us, keys } => {
                let fields = keys.iter().map(|key| SortField::new(input.schema().field(*key).data_type().clone())).collect();
                let sessions = Sessions {
                    schema,
                    time,
                    keys,
                    gap_us,
                    rows: RowConverter::new(fields)?,
                    open: None,
                    done: Vec::new(),
                    done_rows: 0,
                };
                let states = stream::unfold(Some((input, sessions)), |state| async move {
                    let (mut input, mut sessions) = state?;
                    loop {
                        match input.next().await {
                            Some(Ok(batch)) => match sessions.push(&batch) {
                                Ok(()) if sessions.done_rows >= BATCH => return Some((sessions.take(), Some((input, sessions)))),
                                Ok(()) => {}
                                Err(error) => return Some((Err(error), None)),
                            },
                            Some(Err(error)) => return Some((Err(error), None)),
                            None => {
                                return Some((sessions.close().and_then(|()| sessions.take()), None));
                            }
                        }
                    }
                });
                states.boxed()
            }
            kind => input.and_then(move |batch| futures::future::ready(assign(&batch, time, &kind, &schema))).boxed(),
        };
        let stream = stream.try_filter(|batch| futures::future::ready(batch.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(output, stream)))
    }
}

fn times(batch: &RecordBatch, time: usize) -> Result<&TimestampMicrosecondArray> {
    let column = batch.column(time).as_any().downcast_ref::<TimestampMicrosecondArray>();
    column.ok_or_else(|| DataFusionError::Internal("a window's time is not in microseconds".to_owned()))
}

/// A window column of the time column's type.
fn window_column(values: Vec<i64>, data_type: &DataType) -> ArrayRef {
    Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from_iter_values(values).with_data_type(data_type.clone()))
}

fn assign(batch: &RecordBatch, time: usize, kind: &WindowKind, schema: &SchemaRef) -> Result<RecordBatch> {
    let times = times(batch, time)?;
    let windows = engine::window::assign(kind, times.values(), times.nulls());
    let rows = UInt32Array::from(windows.rows);
    let mut columns = batch.columns().iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<_>>>()?;
    let last = windows.ends.iter().map(|end| end.saturating_sub(1)).collect();
    columns.extend([windows.starts, windows.ends, last].map(|values| window_column(values, times.data_type())));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Rows sorted by key and time, cut into sessions.
struct Sessions {
    schema: SchemaRef,
    time: usize,
    keys: Vec<usize>,
    gap_us: i64,
    rows: RowConverter,
    open: Option<Open>,
    done: Vec<RecordBatch>,
    done_rows: usize,
}

/// The session at the end of what was read.
struct Open {
    key: Option<OwnedRow>,
    start: i64,
    last: i64,
    rows: Vec<RecordBatch>,
}

impl Sessions {
    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let times = times(batch, self.time)?.clone();
        let keys = match self.keys.as_slice() {
            [] => None,
            keys => Some(self.rows.convert_columns(&keys.iter().map(|key| Arc::clone(batch.column(*key))).collect::<Vec<_>>())?),
        };
        let mut from = 0;
        for row in 0..batch.num_rows() {
            if times.is_null(row) {
                // Without a time it is in no session.
                self.extend(batch, from, row);
                from = row + 1;
                continue;
            }
            let time = times.value(row);
            let key = keys.as_ref().map(|keys| keys.row(row));
            let same = self.open.as_ref().is_some_and(|open| {
                open.key.as_ref().map(|key| key.row()) == key && time.saturating_sub(open.last) <= self.gap_us
            });
            if same {
                if let Some(open) = &mut self.open {
                    open.last = time;
                }
            } else {
                self.extend(batch, from, row);
                self.close()?;
                from = row;
                self.open = Some(Open { key: key.map(|key| key.owned()), start: time, last: time, rows: Vec::new() });
            }
        }
        self.extend(batch, from, batch.num_rows());
        Ok(())
    }

    /// Rows `from..to` belong to the open session.
    fn extend(&mut self, batch: &RecordBatch, from: usize, to: usize) {
        if let Some(open) = self.open.as_mut().filter(|_| to > from) {
            open.rows.push(batch.slice(from, to - from));
        }
    }

    /// Nothing more belongs to the open session.
    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let end = open.last.saturating_add(self.gap_us);
        for rows in open.rows {
            let data_type = rows.column(self.time).data_type().clone();
            let constants =
                [open.start, end, end.saturating_sub(1)].map(|value| window_column(vec![value; rows.num_rows()], &data_type));
            let columns = rows.columns().iter().cloned().chain(constants).collect();
            self.done.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
            self.done_rows += rows.num_rows();
        }
        Ok(())
    }

    /// The rows of all closed sessions.
    fn take(&mut self) -> Result<RecordBatch> {
        self.done_rows = 0;
        Ok(concat_batches(&self.schema, &std::mem::take(&mut self.done))?)
    }
}
