//! The plan of a dataflow: what `sql` hands to the engine. Plain values; nothing runs yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::ObjectId;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;

/// A continuous query, bound and ready.
#[derive(Debug, Clone)]
pub struct Dataflow {
    /// The object it belongs to.
    pub id: ObjectId,
    /// `schema.name`, for status and errors.
    pub name: String,
    /// `view`, `sink`, `streaming table`: for `freshet.jobs`.
    pub kind: &'static str,
    /// The operators, a tree.
    pub root: Node,
    /// Where the result goes.
    pub sink: Sink,
}

/// Where a dataflow's rows go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// The table of the object. `key` names columns (by index of the root's schema) that identify a row; empty for append.
    Table {
        /// The table's object.
        table: ObjectId,
        /// Key columns of the result; empty for append-only results.
        key: Vec<usize>,
    },
    /// Counted and dropped.
    Blackhole,
}

/// One operator with its inputs.
#[derive(Debug, Clone)]
pub enum Node {
    /// An outside source.
    Source(SourceNode),
    /// The changes of a table: its rows at a commit, then what follows.
    TableChanges(TableChangesNode),
    /// Rows for which the predicate is true.
    Filter {
        /// Input.
        input: Box<Node>,
        /// Boolean expression over the input's schema.
        predicate: Arc<dyn PhysicalExpr>,
    },
    /// New columns from old.
    Project {
        /// Input.
        input: Box<Node>,
        /// Expressions over the input's schema, in output order.
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        /// The output.
        schema: SchemaRef,
    },
    /// Each row once for each window it is in, with `window_start, window_end, window_time` appended
    /// (same type as the time column; `window_time` = end - 1 microsecond). Tumble, hop and cumulate only.
    WindowAssign {
        /// Input.
        input: Box<Node>,
        /// The windows.
        window: Window,
        /// Input schema and the three columns.
        schema: SchemaRef,
    },
    /// Aggregates by window and group.
    WindowAggregate(WindowAggregateNode),
    /// Aggregates by group, corrected as rows come and go (upsert by group).
    Aggregate(AggregateNode),
    /// All rows of all inputs; the schemas are equal.
    Union {
        /// Inputs.
        inputs: Vec<Node>,
        /// Their schema.
        schema: SchemaRef,
    },
}

impl Node {
    /// The operator's output schema.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Node::Source(source) => Arc::clone(&source.schema),
            Node::TableChanges(changes) => Arc::clone(&changes.schema),
            Node::Filter { input, .. } => input.schema(),
            Node::Project { schema, .. } | Node::WindowAssign { schema, .. } | Node::Union { schema, .. } => Arc::clone(schema),
            Node::WindowAggregate(node) => Arc::clone(&node.schema),
            Node::Aggregate(node) => Arc::clone(&node.schema),
        }
    }
}

/// How event time is read from a source's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkSpec {
    /// Index of the event-time column in the node's schema (timestamp in microseconds, with or without zone).
    pub column: usize,
    /// How far the watermark stays behind the greatest event time seen, microseconds.
    pub delay_us: i64,
    /// A split without rows for so long no longer holds the watermark back, microseconds; `None`: it always does.
    pub idle_timeout_us: Option<i64>,
    /// A row further than this ahead of the wall clock does not move the watermark, microseconds; `None`: no guard.
    pub max_future_us: Option<i64>,
}

/// An outside source with only the columns the query uses.
#[derive(Debug, Clone)]
pub struct SourceNode {
    /// The streaming table's object, for status and error rows.
    pub table: ObjectId,
    /// `schema.name`.
    pub name: String,
    /// Connector and format options of `WITH (…) FORMAT … ENCODE …`, lower-case keys.
    pub connector: ConnectorSpec,
    /// All declared columns, with where each comes from.
    pub columns: Vec<SourceColumn>,
    /// Indexes into `columns` that the query needs, in output order.
    pub projection: Vec<usize>,
    /// Output: `columns[projection]`.
    pub schema: SchemaRef,
    /// Event time; the column index is into `schema`.
    pub watermark: Option<WatermarkSpec>,
}

/// What `CREATE STREAMING TABLE` said about the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorSpec {
    /// `kafka`, `jetstream`, `files`, `nexmark`, `bluesky`.
    pub connector: String,
    /// The other options, lower-case keys.
    pub options: BTreeMap<String, String>,
    /// `FORMAT …`, upper case; `PLAIN` when not given.
    pub format: String,
    /// `ENCODE …`, upper case; `JSON` when not given.
    pub encode: String,
    /// Options in parentheses after ENCODE.
    pub encode_options: BTreeMap<String, String>,
}

/// A declared column of a streaming table.
#[derive(Debug, Clone)]
pub struct SourceColumn {
    /// Name, type, nullability.
    pub field: arrow::datatypes::FieldRef,
    /// Where the value comes from.
    pub origin: ColumnOrigin,
}

/// Where a source column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnOrigin {
    /// The record's field of this name.
    Field(String),
    /// `INCLUDE …`: `key`, `partition`, `offset`, `timestamp`, `topic`, `headers`, or for files `path`.
    Metadata(String),
    /// `INCLUDE header 'x'`.
    Header(String),
}

/// A table followed through the log.
#[derive(Debug, Clone)]
pub struct TableChangesNode {
    /// The table's object.
    pub table: ObjectId,
    /// `schema.name`.
    pub name: String,
    /// Indexes of the table's columns, in output order.
    pub projection: Vec<usize>,
    /// Output.
    pub schema: SchemaRef,
    /// The table never takes rows away.
    pub append_only: bool,
    /// Index into `schema` of the column whose watermark the table hands on, and by how many microseconds that
    /// column's watermark lies behind the one of the table's dataflow.
    pub watermark: Option<(usize, i64)>,
}

/// Windows over event time. All lengths in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Index of the time column in the input.
    pub column: usize,
    /// Which windows.
    pub kind: WindowKind,
}

/// The kinds of windows. Starts are `offset + n * slide`, for n of either sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowKind {
    /// Side by side.
    Tumble {
        /// Length.
        size_us: i64,
        /// Shift of all starts.
        offset_us: i64,
    },
    /// Overlapping; `size` need not be a multiple of `slide`.
    Hop {
        /// Distance between starts.
        slide_us: i64,
        /// Length.
        size_us: i64,
        /// Shift of all starts.
        offset_us: i64,
    },
    /// Growing by `step` up to `size`, then anew.
    Cumulate {
        /// Growth.
        step_us: i64,
        /// Greatest length.
        size_us: i64,
        /// Shift of all starts.
        offset_us: i64,
    },
    /// Rows of one key less than or exactly `gap` apart are one session; its end is the last row plus the gap.
    Session {
        /// Gap.
        gap_us: i64,
        /// Input columns that part the rows; sessions of different keys are independent.
        keys: Vec<usize>,
    },
}

/// When results of windows leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Once, when the watermark reaches the window's end: append-only.
    OnWindowClose,
    /// At every barrier, corrected as rows come: upsert by group and window.
    OnUpdate,
}

/// Aggregates by window and group.
#[derive(Debug, Clone)]
pub struct WindowAggregateNode {
    /// Input, append-only.
    pub input: Box<Node>,
    /// The windows.
    pub window: Window,
    /// Group expressions over the input, the window's columns not among them.
    pub group: Vec<Arc<dyn PhysicalExpr>>,
    /// Aggregates over the input.
    pub aggregates: Vec<Aggregate>,
    /// When results leave.
    pub emit: Emit,
    /// How long closed windows may still be corrected, microseconds. Not zero only with a key on the result.
    pub allowed_lateness_us: i64,
    /// What each output column is, in order.
    pub output: Vec<WindowOutput>,
    /// Output.
    pub schema: SchemaRef,
}

/// One output column of a windowed aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowOutput {
    /// `group[i]`.
    Group(usize),
    /// `aggregates[i]`.
    Aggregate(usize),
    /// Start of the window.
    Start,
    /// End of the window, exclusive.
    End,
    /// End less one microsecond.
    Time,
}

/// Aggregates by group. Output: group columns, then aggregates. Without group columns there is always exactly one row.
#[derive(Debug, Clone)]
pub struct AggregateNode {
    /// Input.
    pub input: Box<Node>,
    /// The input never takes rows away.
    pub append_only: bool,
    /// Group expressions over the input.
    pub group: Vec<Arc<dyn PhysicalExpr>>,
    /// Aggregates over the input.
    pub aggregates: Vec<Aggregate>,
    /// State of a group untouched for so long is forgotten, microseconds of wall time.
    pub state_ttl_us: Option<i64>,
    /// Output.
    pub schema: SchemaRef,
}

/// One aggregate call.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The function, after type coercion of its arguments.
    pub function: Arc<AggregateUDF>,
    /// Arguments over the input's schema; `count(*)` has a literal.
    pub args: Vec<Arc<dyn PhysicalExpr>>,
    /// `DISTINCT`.
    pub distinct: bool,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Result, as in the node's schema.
    pub field: arrow::datatypes::FieldRef,
}
