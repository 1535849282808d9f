//! Continuous queries: an optimised logical plan becomes operators of the engine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use catalog::{ObjectId, ObjectKind};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, TableScan, Volatility};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_expr::expressions::{Column as PhysicalColumn, Literal};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use engine::plan::{
    Aggregate, AggregateNode, Dataflow, Emit, Node, Sink, SourceNode, TableChangesNode, Window, WindowAggregateNode, WindowOutput,
};

use super::provider::{Names, StreamSource, kind_name};
use super::window::{Kind, WindowAssign};
use super::{output, sources};
use crate::parser::nearest;
use crate::{Continuous, EmitClause, Error, Result, Statement, translate};

/// The key column of a result that always has one row; queries do not see it.
pub(crate) const ONLY_ROW: &str = "_row";
/// Field metadata of columns that queries do not see.
pub(crate) const HIDDEN: &str = "freshet.hidden";

/// Functions whose answer depends on when they are asked.
const CLOCKS: &[&str] = &[
    "now",
    "current_date",
    "current_time",
    "current_timestamp",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "localtimestamp",
    "localtime",
    "timeofday",
];

/// Options of streaming views.
const STATE_TTL: &str = "state_ttl";

/// What a statement asks of its dataflow beside the query.
struct Wishes {
    emit: Option<Emit>,
    allowed_lateness_us: i64,
    state_ttl_us: Option<i64>,
}

/// A streaming view or sink as a dataflow.
pub(crate) fn plan(names: &Names<'_>, id: ObjectId, statement: &Statement) -> Result<Continuous> {
    let schema = names.default_schema();
    let (name, kind, query, wishes) = match statement {
        Statement::CreateStreamingView(view) => {
            if let Some(late) = &view.late_into {
                return Err(Error::new("0A000", format!("LATE INTO {} is not supported", late.name))
                    .hint("Rows that come too late are kept in freshet.errors, stage 'late'."));
            }
            let wishes = Wishes {
                emit: emission(view.emit.as_ref())?,
                allowed_lateness_us: view.allow_lateness_us.unwrap_or(0),
                state_ttl_us: view_options(&view.options)?,
            };
            (view.name.in_schema(schema), "view", &view.query, wishes)
        }
        Statement::CreateSink(sink) => {
            sink_options(&sink.options)?;
            let wishes = Wishes { emit: emission(sink.emit.as_ref())?, allowed_lateness_us: 0, state_ttl_us: None };
            (sink.name.in_schema(schema), "sink", &sink.query, wishes)
        }
        _ => return Err(Error::new("42601", "only streaming views and sinks are continuous queries")),
    };
    let logical = names.plan(query)?;
    refuse_clocks(&logical)?;
    let logical = output::unique(output::analyze(names.state, logical)?)?;
    let logical = optimize(names.state, logical)?;

    let mut builder = Builder { state: names.state, wishes: &wishes, windows: 0, notices: Vec::new() };
    let mut stream = builder.stream(&logical)?;
    if wishes.emit == Some(Emit::OnWindowClose) && builder.windows == 0 {
        return Err(Error::new("42P20", "EMIT ON WINDOW CLOSE needs windows that can close").hint(
            "Group by the columns of a window: FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY window_start, window_end.",
        ));
    }
    if wishes.allowed_lateness_us > 0 && builder.windows == 0 {
        return Err(Error::new("42P20", "ALLOW LATENESS needs a windowed aggregate").hint(
            "Group by the columns of a window: FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY window_start, window_end.",
        ));
    }
    let notices = std::mem::take(&mut builder.notices);
    let blackhole = kind == "sink";
    let key = match &stream.key {
        Key::Append => Vec::new(),
        Key::Columns(key) if key.is_empty() && !blackhole => {
            stream = only_row(stream)?;
            vec![stream.schema.fields().len() - 1]
        }
        Key::Columns(key) => key.clone(),
        Key::Lost(_) if blackhole => Vec::new(),
        Key::Lost(missing) => {
            return Err(Error::new(
                "0A000",
                format!("the result is updated by its key, but {missing} is not in the select list"),
            )
            .hint("Select every column of GROUP BY, or of the primary key of the table that is read."));
        }
    };
    let result = stream.node.schema();
    let primary_key = key.iter().map(|at| result.field(*at).name().clone()).collect();
    let watermark = stream.watermark().map(|time| (result.field(time.column).name().clone(), time.behind_us));
    let sink = if blackhole { Sink::Blackhole } else { Sink::Table { table: id, key } };
    Ok(Continuous {
        dataflow: Dataflow { id, name: name.to_string(), kind, root: stream.node, sink },
        schema: result,
        primary_key,
        depends_on: names.used.take().into_iter().collect(),
        watermark,
        notices,
    })
}

/// The first columns of a source, where it has more than were asked for.
fn first_columns(source: SourceNode, asked: usize) -> Result<Node> {
    let all = Arc::clone(&source.schema);
    if all.fields().len() == asked {
        return Ok(Node::Source(source));
    }
    let column = |at: usize| Arc::new(PhysicalColumn::new(all.field(at).name(), at)) as Arc<dyn PhysicalExpr>;
    let kept: Vec<usize> = (0..asked).collect();
    let schema = Arc::new(all.project(&kept).map_err(|error| translate(error.into()))?);
    Ok(Node::Project { input: Box::new(Node::Source(source)), exprs: kept.into_iter().map(column).collect(), schema })
}

/// A stored streaming table: its source, into its table.
pub(crate) fn stored(id: ObjectId, source: SourceNode) -> Result<Continuous> {
    let source = SourceNode { table: id, ..source };
    let watermark = source.watermark.as_ref().map(|watermark| (source.schema.field(watermark.column).name().clone(), 0));
    Ok(Continuous {
        schema: Arc::clone(&source.schema),
        dataflow: Dataflow {
            id,
            name: source.name.clone(),
            kind: "streaming table",
            root: Node::Source(source),
            sink: Sink::Table { table: id, key: Vec::new() },
        },
        primary_key: Vec::new(),
        depends_on: Vec::new(),
        watermark,
        notices: Vec::new(),
    })
}

fn emission(clause: Option<&EmitClause>) -> Result<Option<Emit>> {
    match clause {
        None => Ok(None),
        Some(EmitClause::OnWindowClose) => Ok(Some(Emit::OnWindowClose)),
        Some(EmitClause::OnUpdate) => Ok(Some(Emit::OnUpdate)),
        Some(EmitClause::Every(_)) => Err(Error::new("0A000", "EMIT EVERY is not supported")
            .hint("EMIT ON UPDATE gives a new result at every checkpoint; checkpoint_interval says how often.")),
    }
}

fn view_options(options: &BTreeMap<String, String>) -> Result<Option<i64>> {
    let mut state_ttl = None;
    for (option, value) in options {
        match option.as_str() {
            STATE_TTL | "state.ttl" => {
                let length = sources::length(STATE_TTL, value)?;
                if length <= 0 {
                    return Err(Error::new("22023", "option \"state_ttl\" must be greater than zero"));
                }
                state_ttl = Some(length);
            }
            sources::RETENTION => return Err(Error::new("0A000", "option \"retention\" is not supported for streaming views")),
            _ => {
                let error = Error::new("22023", format!("unknown option \"{option}\""));
                return Err(match nearest(option, [STATE_TTL]) {
                    Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
                    None => error.hint("A streaming view has the option state_ttl."),
                });
            }
        }
    }
    Ok(state_ttl)
}

fn sink_options(options: &BTreeMap<String, String>) -> Result<()> {
    match options.get("connector").map(String::as_str) {
        Some("blackhole") => {}
        Some(other) => {
            return Err(Error::new("0A000", format!("sinks with connector \"{other}\" are not supported"))
                .hint("connector = 'blackhole' counts rows and drops them."));
        }
        None => return Err(Error::new("22023", "option \"connector\" is missing").hint("Write WITH (connector = 'blackhole').")),
    }
    match options.keys().find(|option| *option != "connector") {
        Some(option) => {
            Err(Error::new("22023", format!("unknown option \"{option}\"")).hint("connector = 'blackhole' has no other options."))
        }
        None => Ok(()),
    }
}

/// What is computed again after a restart must come out the same.
fn refuse_clocks(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && (CLOCKS.contains(&call.func.name()) || call.func.signature().volatility == Volatility::Volatile)
                {
                    found = Some(call.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map_err(translate)?;
    match found {
        Some(name) => Err(Error::new(
            "0A000",
            format!("{name}() is not possible in a continuous query: it would give another answer when it is run again"),
        )
        .hint("Use the time column of the stream, or put the condition into the SELECT that reads the view.")),
        None => Ok(()),
    }
}

/// The rules of DataFusion's optimizer that keep the shape of a stream.
fn optimize(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    Optimizer::with_rules(rules).optimize(plan, state, |_, _| {}).map_err(translate)
}

/// A column whose watermark readers get.
#[derive(Debug, Clone, Copy)]
struct Time {
    column: usize,
    behind_us: i64,
    rank: u8,
}

/// How the rows of a stream are told apart.
#[derive(Debug, Clone)]
enum Key {
    /// Rows are only added.
    Append,
    /// Rows change; these columns name a row. None: there is one row.
    Columns(Vec<usize>),
    /// Rows change, and what named them is gone.
    Lost(String),
}

/// Operators so far, and what is known of their result.
struct Stream {
    node: Node,
    schema: DFSchemaRef,
    key: Key,
    times: Vec<Time>,
}

impl Stream {
    fn append_only(&self) -> bool {
        matches!(self.key, Key::Append)
    }

    /// The one watermark that readers of the result are told.
    fn watermark(&self) -> Option<Time> {
        self.times.iter().copied().min_by_key(|time| time.rank)
    }

    /// The stream with columns moved: `from[i]` is where output `i` came from, if it is a plain column.
    fn moved(self, node: Node, schema: DFSchemaRef, from: &[Option<usize>]) -> Stream {
        let place = |column: usize| from.iter().position(|from| *from == Some(column));
        let key = match self.key {
            Key::Columns(columns) => match columns.iter().find(|column| place(**column).is_none()) {
                Some(missing) => Key::Lost(format!("column \"{}\"", self.schema.field(*missing).name())),
                None => Key::Columns(columns.into_iter().filter_map(place).collect()),
            },
            other => other,
        };
        let times = self.times.into_iter().filter_map(|time| Some(Time { column: place(time.column)?, ..time })).collect();
        Stream { node, schema, key, times }
    }
}

/// A result of one row gets a key column that is always the same.
fn only_row(stream: Stream) -> Result<Stream> {
    let schema = stream.node.schema();
    let hidden = Field::new(ONLY_ROW, DataType::Int32, false).with_metadata([(HIDDEN.to_owned(), "true".to_owned())].into());
    let mut exprs: Vec<Arc<dyn PhysicalExpr>> = columns(&schema);
    exprs.push(Arc::new(Literal::new(ScalarValue::Int32(Some(0)))));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(hidden)]).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let logical = DFSchema::try_from(Arc::clone(&schema)).map_err(translate)?;
    Ok(Stream {
        node: Node::Project { input: Box::new(stream.node), exprs, schema },
        schema: Arc::new(logical),
        key: stream.key,
        times: stream.times,
    })
}

fn columns(schema: &Schema) -> Vec<Arc<dyn PhysicalExpr>> {
    schema
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| Arc::new(PhysicalColumn::new(field.name(), at)) as Arc<dyn PhysicalExpr>)
        .collect()
}

struct Builder<'a> {
    state: &'a SessionState,
    wishes: &'a Wishes,
    windows: usize,
    notices: Vec<String>,
}

impl Builder<'_> {
    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        let mut subquery = false;
        expr.apply(|expr| {
            subquery |= matches!(expr, Expr::InSubquery(_) | Expr::Exists(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_));
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(translate)?;
        if subquery {
            return Err(unsupported("a subquery in an expression", "Join it in the SELECT that reads the view."));
        }
        create_physical_expr(expr, schema, self.state.execution_props(), &PhysicalPlanningContext::default()).map_err(translate)
    }

    fn stream(&mut self, plan: &LogicalPlan) -> Result<Stream> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.stream(&alias.input)?;
                Ok(Stream { schema: Arc::clone(&alias.schema), ..input })
            }
            LogicalPlan::Filter(filter) => {
                let input = self.stream(&filter.input)?;
                let predicate = self.physical(&filter.predicate, &input.schema)?;
                Ok(Stream { node: Node::Filter { input: Box::new(input.node), predicate }, ..input })
            }
            LogicalPlan::Projection(projection) => {
                let input = self.stream(&projection.input)?;
                self.project(input, &projection.expr, &projection.schema)
            }
            LogicalPlan::Union(union) => self.union(&union.inputs, &union.schema),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::On(_)) => Err(unsupported("DISTINCT ON", "Use GROUP BY with max() or min().")),
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAssign>() {
                Some(window) => self.window_assign(window),
                None => Err(unsupported(extension.node.name(), "Leave it to the SELECT that reads the view.")),
            },
            LogicalPlan::Sort(_) => {
                Err(unsupported("ORDER BY", "A stream has no end to sort at: put ORDER BY into the SELECT that reads the view."))
            }
            LogicalPlan::Limit(_) => {
                Err(unsupported("LIMIT", "A stream has no first rows: put LIMIT into the SELECT that reads the view."))
            }
            LogicalPlan::Join(_) => Err(unsupported(
                "a join",
                "Make a streaming view of each side, and join them in a CREATE VIEW or the SELECT that reads them.",
            )),
            LogicalPlan::Window(_) => Err(unsupported("OVER", "Put the window function into the SELECT that reads the view.")),
            LogicalPlan::Unnest(_) => Err(unsupported("unnest()", "Put it into the SELECT that reads the view.")),
            LogicalPlan::RecursiveQuery(_) => Err(unsupported("WITH RECURSIVE", "Put it into the SELECT that reads the view.")),
            LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
                Err(Error::new("0A000", "a continuous query must read a table, a stream or a view")
                    .hint("For constant rows use CREATE TABLE … AS or CREATE VIEW."))
            }
            other => Err(unsupported(&other.display().to_string(), "Put it into the SELECT that reads the view.")),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Stream> {
        let Some(StreamSource { definition }) = scan.source.downcast_ref::<StreamSource>() else {
            return Err(Error::new("0A000", format!("{} cannot be read by a continuous query", scan.table_name))
                .hint("Continuous queries read tables, streaming tables and streaming views."));
        };
        let projection: Vec<usize> = match &scan.projection {
            Some(projection) => projection.clone(),
            None => (0..definition.schema.fields().len()).collect(),
        };
        if scan.fetch.is_some() || !scan.filters.is_empty() {
            return Err(Error::new("XX000", "a limit or a filter was pushed into a stream"));
        }
        let schema = Arc::clone(&scan.projected_schema);
        let place = |column: &str| projection.iter().position(|at| definition.schema.field(*at).name() == column);
        if definition.kind == ObjectKind::StreamingTable {
            let source = sources::projected(sources::of_definition(definition)?, &projection);
            let asked = projection.len();
            let time = source.watermark.iter().filter(|watermark| watermark.column < asked);
            let times = time.map(|watermark| Time { column: watermark.column, behind_us: 0, rank: 0 }).collect();
            return Ok(Stream { node: first_columns(source, asked)?, schema, key: Key::Append, times });
        }
        let watermark = definition.watermark.as_ref().and_then(|(column, behind)| Some((place(column)?, *behind)));
        let append_only = definition.primary_key.is_empty() && definition.kind != ObjectKind::Table;
        let key = match (append_only, definition.primary_key.iter().find(|key| place(key).is_none())) {
            (true, _) => Key::Append,
            (false, _) if definition.primary_key.is_empty() => {
                Key::Lost(format!("a key of {} {}, which has none,", kind_name(definition.kind), definition.name.name))
            }
            (false, Some(missing)) => Key::Lost(format!("column \"{missing}\"")),
            (false, None) => Key::Columns(definition.primary_key.iter().filter_map(|key| place(key)).collect()),
        };
        let node = Node::TableChanges(TableChangesNode {
            table: definition.id,
            name: definition.name.to_string(),
            schema: Arc::new(definition.schema.project(&projection).map_err(|error| translate(error.into()))?),
            projection,
            append_only,
            watermark,
        });
        let times =
            watermark.iter().map(|(column, behind_us)| Time { column: *column, behind_us: *behind_us, rank: 0 }).collect();
        Ok(Stream { node, schema, key, times })
    }

    fn project(&self, input: Stream, exprs: &[Expr], schema: &DFSchemaRef) -> Result<Stream> {
        let from: Vec<Option<usize>> = exprs
            .iter()
            .map(|expr| match unaliased(expr) {
                Expr::Column(column) => input.schema.index_of_column(column).ok(),
                _ => None,
            })
            .collect();
        let result = output::schema(schema);
        let physical = exprs.iter().map(|expr| self.physical(expr, &input.schema)).collect::<Result<Vec<_>>>()?;
        // The same columns in the same order under the same names are no projection.
        let same = from.iter().enumerate().all(|(at, from)| *from == Some(at)) && result.fields() == input.node.schema().fields();
        let placeholder = input.node.clone();
        let node =
            if same { placeholder } else { Node::Project { input: Box::new(placeholder), exprs: physical, schema: result } };
        Ok(input.moved(node, Arc::clone(schema), &from))
    }

    fn union(&mut self, inputs: &[Arc<LogicalPlan>], schema: &DFSchemaRef) -> Result<Stream> {
        let result = output::schema(schema);
        let streams = inputs.iter().map(|input| self.stream(input)).collect::<Result<Vec<_>>>()?;
        let append_only = streams.iter().all(Stream::append_only);
        // A column has a watermark when it has one in every input; the one furthest behind holds.
        let mut times: Vec<Time> = streams.first().map(|stream| stream.times.clone()).unwrap_or_default();
        for stream in streams.iter().skip(1) {
            times = times
                .into_iter()
                .filter_map(|time| {
                    let other = stream.times.iter().find(|other| other.column == time.column)?;
                    Some(Time { behind_us: time.behind_us.max(other.behind_us), ..time })
                })
                .collect();
        }
        let inputs = streams
            .into_iter()
            .map(|stream| {
                let own = stream.node.schema();
                if own.fields() == result.fields() {
                    return stream.node;
                }
                Node::Project { exprs: columns(&own), input: Box::new(stream.node), schema: Arc::clone(&result) }
            })
            .collect();
        let key = if append_only { Key::Append } else { Key::Lost("a key common to all inputs of UNION".to_owned()) };
        Ok(Stream { node: Node::Union { inputs, schema: result }, schema: Arc::clone(schema), key, times })
    }

    /// The rows below a window, which must be in order of event time.
    fn below_window(&mut self, window: &WindowAssign) -> Result<(Stream, Window, i64)> {
        let input = self.stream(&window.input)?;
        if !input.append_only() {
            return Err(Error::new("0A000", "a window over rows that change is not supported")
                .hint("Windows need rows that are only added: a streaming table, or a view with EMIT ON WINDOW CLOSE."));
        }
        let column = window.time_index().map_err(translate)?;
        let Some(time) = input.times.iter().find(|time| time.column == column) else {
            let name = &window.time.name;
            return Err(Error::new("0A000", format!("column \"{name}\" has no watermark, so its windows would never close"))
                .hint(format!("Declare it on the streaming table: WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds'; an expression over it has none.")));
        };
        let behind = time.behind_us;
        let keys = window.key_indexes().map_err(translate)?;
        Ok((input, Window { column, kind: window.kind.for_engine(keys) }, behind))
    }

    /// Windows without an aggregate over them.
    fn window_assign(&mut self, window: &WindowAssign) -> Result<Stream> {
        if matches!(window.kind, Kind::Session { .. }) {
            return Err(unsupported(
                "SESSION without GROUP BY",
                "Group by window_start, window_end and the keys of the session.",
            ));
        }
        let (input, assigned, _) = self.below_window(window)?;
        let logical: &DFSchemaRef = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(window);
        let node = Node::WindowAssign { input: Box::new(input.node), window: assigned, schema: output::schema(logical) };
        Ok(Stream { node, schema: Arc::clone(logical), key: Key::Append, times: input.times })
    }

    fn aggregate(&mut self, aggregate: &datafusion::logical_expr::Aggregate) -> Result<Stream> {
        if let Some(Expr::GroupingSet(_)) = aggregate.group_expr.first() {
            return Err(unsupported("GROUPING SETS, CUBE and ROLLUP", "Make a view for each set of columns."));
        }
        if let Some(windowed) = Windowed::below(aggregate)? {
            return self.window_aggregate(aggregate, windowed);
        }
        let input = self.stream(&aggregate.input)?;
        let group = aggregate.group_expr.iter().map(|expr| self.physical(expr, &input.schema)).collect::<Result<Vec<_>>>()?;
        let result = output::schema(&aggregate.schema);
        let calls = aggregate.aggr_expr.iter().collect::<Vec<_>>();
        let aggregates = self.calls(&calls, &input.schema, &result.fields()[group.len()..])?;
        if !group.is_empty() && self.wishes.state_ttl_us.is_none() {
            let by: Vec<String> = aggregate.group_expr.iter().map(|expr| expr.to_string()).collect();
            self.notices.push(format!(
                "GROUP BY {} keeps one row of state for every group, without bound; WITH (state_ttl = '7 days') forgets groups that no row has touched for so long",
                by.join(", ")
            ));
        }
        let key = Key::Columns((0..group.len()).collect());
        let node = Node::Aggregate(AggregateNode {
            append_only: input.append_only(),
            input: Box::new(input.node),
            group,
            aggregates,
            state_ttl_us: self.wishes.state_ttl_us,
            schema: result,
        });
        Ok(Stream { node, schema: Arc::clone(&aggregate.schema), key, times: Vec::new() })
    }

    fn window_aggregate(&mut self, aggregate: &datafusion::logical_expr::Aggregate, windowed: Windowed<'_>) -> Result<Stream> {
        let Windowed { window, groups, calls, filters } = windowed;
        self.windows += 1;
        let (input, assigned, behind) = self.below_window(window)?;
        let mut node = input.node;
        for filter in &filters {
            node = Node::Filter { predicate: self.physical(filter, &input.schema)?, input: Box::new(node) };
        }
        let mut group = Vec::new();
        let mut outputs = Vec::new();
        for expr in &groups {
            outputs.push(match expr {
                Group::Window(part) => *part,
                Group::Expr(expr) => {
                    group.push(self.physical(expr, &input.schema)?);
                    WindowOutput::Group(group.len() - 1)
                }
            });
        }
        if let engine::plan::WindowKind::Session { keys, .. } = &assigned.kind {
            session_keys(keys, &groups, &input.schema)?;
        }
        let result = output::schema(&aggregate.schema);
        let width = outputs.len();
        let aggregates = self.calls(&calls.iter().collect::<Vec<_>>(), &input.schema, &result.fields()[width..])?;
        outputs.extend((0..aggregates.len()).map(WindowOutput::Aggregate));
        let emit = self.wishes.emit.unwrap_or(Emit::OnWindowClose);
        let lateness = self.wishes.allowed_lateness_us;
        let key = if emit == Emit::OnWindowClose && lateness == 0 { Key::Append } else { Key::Columns((0..width).collect()) };
        let size = match window.kind {
            Kind::Tumble { size, .. } | Kind::Hop { size, .. } | Kind::Cumulate { size, .. } => Some(size),
            Kind::Session { .. } => None,
        };
        // A closed window ends at or before the watermark, so what follows ends after it and begins a window's length earlier.
        let behind = behind.saturating_add(lateness);
        let times = outputs.iter().enumerate().filter_map(|(column, part)| match part {
            WindowOutput::Time => Some(Time { column, behind_us: behind, rank: 0 }),
            WindowOutput::Start => size.map(|size| Time { column, behind_us: behind.saturating_add(size), rank: 1 }),
            WindowOutput::End => Some(Time { column, behind_us: behind, rank: 2 }),
            _ => None,
        });
        let times = times.collect();
        let node = Node::WindowAggregate(WindowAggregateNode {
            input: Box::new(node),
            window: assigned,
            group,
            aggregates,
            emit,
            allowed_lateness_us: lateness,
            output: outputs,
            schema: result,
        });
        Ok(Stream { node, schema: Arc::clone(&aggregate.schema), key, times })
    }

    fn calls(&self, calls: &[&Expr], schema: &DFSchema, fields: &[arrow::datatypes::FieldRef]) -> Result<Vec<Aggregate>> {
        let calls = calls.iter().zip(fields).map(|(expr, field)| {
            let Expr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else {
                return Err(Error::new("XX000", format!("{expr} is no aggregate")));
            };
            if !params.order_by.is_empty() {
                return Err(unsupported(
                    &format!("ORDER BY within {}()", func.name()),
                    "Leave the order to the SELECT that reads the view.",
                ));
            }
            if params.null_treatment.is_some() {
                return Err(unsupported(&format!("IGNORE NULLS in {}()", func.name()), "Use FILTER (WHERE … IS NOT NULL)."));
            }
            Ok(Aggregate {
                function: Arc::clone(func),
                args: params.args.iter().map(|arg| self.physical(arg, schema)).collect::<Result<_>>()?,
                distinct: params.distinct,
                filter: params.filter.as_ref().map(|filter| self.physical(filter, schema)).transpose()?,
                field: Arc::clone(field),
            })
        });
        calls.collect()
    }
}

fn unsupported(what: &str, instead: &str) -> Error {
    Error::new("0A000", format!("{what} is not supported in a continuous query")).hint(instead)
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// Sessions of one key are grouped by that key and nothing else.
fn session_keys(keys: &[usize], groups: &[Group], schema: &DFSchema) -> Result<()> {
    let grouped: Vec<Option<usize>> = groups
        .iter()
        .filter_map(|group| match group {
            Group::Window(_) => None,
            Group::Expr(Expr::Column(column)) => Some(schema.index_of_column(column).ok()),
            Group::Expr(_) => Some(None),
        })
        .collect();
    if let Some(missing) = keys.iter().find(|key| !grouped.contains(&Some(**key))) {
        let name = schema.field(*missing).name();
        return Err(
            Error::new("0A000", format!("sessions by \"{name}\" must be grouped by it")).hint(format!("Add {name} to GROUP BY."))
        );
    }
    if grouped.iter().any(|column| !column.is_some_and(|column| keys.contains(&column))) {
        return Err(Error::new("0A000", "sessions can only be grouped by their keys")
            .hint("Name every column of GROUP BY as a key: SESSION(t, ts, INTERVAL '10 seconds', key, …)."));
    }
    Ok(())
}

/// One expression of GROUP BY.
enum Group {
    /// A column of the window.
    Window(WindowOutput),
    /// Anything else, over the window's input.
    Expr(Expr),
}

/// An aggregate whose groups are windows, brought down to the window's input.
struct Windowed<'a> {
    window: &'a WindowAssign,
    groups: Vec<Group>,
    calls: Vec<Expr>,
    filters: Vec<Expr>,
}

impl<'a> Windowed<'a> {
    /// `None` when the aggregate has no window below it, or does not group by it.
    fn below(aggregate: &'a datafusion::logical_expr::Aggregate) -> Result<Option<Self>> {
        let Some(below) = Below::of(&aggregate.input)? else { return Ok(None) };
        let schema = aggregate.input.schema();
        let width = below.window.input.schema().fields().len();
        let parts = [WindowOutput::Start, WindowOutput::End, WindowOutput::Time];
        let own = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(below.window);
        let mut groups = Vec::new();
        for expr in &aggregate.group_expr {
            let expr = below.inlined(unaliased(expr), schema)?;
            groups.push(match unaliased(&expr) {
                Expr::Column(column) => match own.index_of_column(column).map_err(translate)? {
                    at if at >= width => Group::Window(parts[at - width]),
                    _ => Group::Expr(unaliased(&expr).clone()),
                },
                _ if uses_window(&expr, own, width)? => return Ok(None),
                other => Group::Expr(other.clone()),
            });
        }
        let named = groups.iter().any(|group| match group {
            Group::Window(WindowOutput::Start) => !matches!(below.window.kind, Kind::Cumulate { .. }),
            Group::Window(_) => true,
            Group::Expr(_) => false,
        });
        if !named {
            return Ok(None);
        }
        let calls = aggregate.aggr_expr.iter().map(|call| below.inlined(unaliased(call), schema)).collect::<Result<Vec<_>>>()?;
        for expr in &calls {
            if uses_window(expr, own, width)? {
                return Err(unsupported(
                    "an aggregate of a window's own columns",
                    "Compute it from window_start and window_end in the select list.",
                ));
            }
        }
        for filter in &below.filters {
            let session = matches!(below.window.kind, Kind::Session { .. });
            if session || uses_window(filter, own, width)? {
                return Err(unsupported(
                    &format!("a condition between {} and its GROUP BY", window_name(below.window.kind)),
                    "Put conditions on rows into a subquery under the window, and conditions on windows into HAVING.",
                ));
            }
        }
        Ok(Some(Windowed { window: below.window, groups, calls, filters: below.filters }))
    }
}

fn window_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Tumble { .. } => "TUMBLE",
        Kind::Hop { .. } => "HOP",
        Kind::Cumulate { .. } => "CUMULATE",
        Kind::Session { .. } => "SESSION",
    }
}

fn uses_window(expr: &Expr, schema: &DFSchema, width: usize) -> Result<bool> {
    let mut uses = false;
    expr.apply(|expr| {
        if let Expr::Column(column) = expr {
            uses |= schema.index_of_column(column)? >= width;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(translate)?;
    Ok(uses)
}

/// What stands between an aggregate and the window below it.
struct Below<'a> {
    window: &'a WindowAssign,
    /// The columns of the aggregate's input as expressions over the window's output.
    columns: Vec<Expr>,
    /// Conditions over the window's output.
    filters: Vec<Expr>,
}

impl<'a> Below<'a> {
    fn of(plan: &'a LogicalPlan) -> Result<Option<Self>> {
        match plan {
            LogicalPlan::Extension(extension) => Ok(extension.node.as_any().downcast_ref::<WindowAssign>().map(|window| {
                let schema: &DFSchemaRef = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(window);
                Below {
                    window,
                    columns: schema.iter().map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect(),
                    filters: Vec::new(),
                }
            })),
            LogicalPlan::SubqueryAlias(alias) => Below::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let Some(below) = Below::of(&projection.input)? else { return Ok(None) };
                let schema = projection.input.schema();
                let columns = projection.expr.iter().map(|expr| below.inlined(unaliased(expr), schema)).collect::<Result<_>>()?;
                Ok(Some(Below { columns, ..below }))
            }
            LogicalPlan::Filter(filter) => {
                let Some(mut below) = Below::of(&filter.input)? else { return Ok(None) };
                let predicate = below.inlined(&filter.predicate, filter.input.schema())?;
                below.filters.push(predicate);
                Ok(Some(below))
            }
            _ => Ok(None),
        }
    }

    /// An expression over `schema` as one over the window's output.
    fn inlined(&self, expr: &Expr, schema: &DFSchema) -> Result<Expr> {
        let inlined = expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) => Ok(Transformed::yes(self.columns[schema.index_of_column(column)?].clone())),
            _ => Ok(Transformed::no(expr)),
        });
        Ok(inlined.map_err(translate)?.data)
    }
}

// ---- EXPLAIN ----

/// Operators, inputs indented below them.
pub(crate) fn explain(continuous: &Continuous) -> String {
    let mut text = String::new();
    let key = &continuous.primary_key;
    let visible: Vec<&str> = key.iter().map(String::as_str).filter(|key| *key != ONLY_ROW).collect();
    let result = match (&continuous.dataflow.sink, key.is_empty(), visible.as_slice()) {
        (Sink::Blackhole, ..) => "Blackhole: rows are counted and dropped".to_owned(),
        (_, true, _) => "Table: rows are only added".to_owned(),
        (_, false, []) => "Table: one row, updated".to_owned(),
        (_, false, key) => format!("Table: updated by key ({})", key.join(", ")),
    };
    let _ = write!(text, "{result}");
    if let Some((column, behind)) = &continuous.watermark {
        let _ = write!(text, "; watermark on {column}");
        if *behind > 0 {
            let _ = write!(text, ", {:?} behind", std::time::Duration::from_micros(behind.unsigned_abs()));
        }
    }
    text.push('\n');
    describe(&continuous.dataflow.root, 1, &mut text);
    text.truncate(text.trim_end().len());
    text
}

fn list(exprs: &[Arc<dyn PhysicalExpr>]) -> String {
    exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn describe(node: &Node, depth: usize, text: &mut String) {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    let us = |us: i64| format!("{:?}", std::time::Duration::from_micros(us.unsigned_abs()));
    let calls = |aggregates: &[Aggregate]| {
        let call = |aggregate: &Aggregate| {
            let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
            let filter = aggregate.filter.as_ref().map(|filter| format!(" FILTER ({filter})")).unwrap_or_default();
            format!("{}({distinct}{}){filter}", aggregate.function.name(), list(&aggregate.args))
        };
        aggregates.iter().map(call).collect::<Vec<_>>().join(", ")
    };
    let (line, inputs): (String, Vec<&Node>) = match node {
        Node::Source(source) => {
            let watermark = match &source.watermark {
                Some(watermark) => {
                    format!("; watermark on {}, {} behind", source.schema.field(watermark.column).name(), us(watermark.delay_us))
                }
                None => String::new(),
            };
            (
                format!("Source: {} ({}), columns {}{watermark}", source.name, source.connector.connector, names(&source.schema)),
                Vec::new(),
            )
        }
        Node::TableChanges(changes) => {
            let mode = if changes.append_only { "rows are only added" } else { "rows change" };
            (format!("TableChanges: {}, columns {}; {mode}", changes.name, names(&changes.schema)), Vec::new())
        }
        Node::Filter { input, predicate } => (format!("Filter: {predicate}"), vec![input.as_ref()]),
        Node::Project { input, exprs, .. } => (format!("Project: {}", list(exprs)), vec![input.as_ref()]),
        Node::WindowAssign { input, window, .. } => {
            (format!("WindowAssign: {:?} over {}", window.kind, input.schema().field(window.column).name()), vec![input.as_ref()])
        }
        Node::WindowAggregate(aggregate) => {
            let emit = match (aggregate.emit, aggregate.allowed_lateness_us) {
                (Emit::OnWindowClose, 0) => "once, when the window closes".to_owned(),
                (Emit::OnWindowClose, late) => format!("when the window closes, amended for {}", us(late)),
                (Emit::OnUpdate, _) => "at every checkpoint".to_owned(),
            };
            let line = format!(
                "WindowAggregate: {:?} over {}, by ({}), {}; emitted {emit}; state ends with the window",
                aggregate.window.kind,
                aggregate.input.schema().field(aggregate.window.column).name(),
                list(&aggregate.group),
                calls(&aggregate.aggregates),
            );
            (line, vec![aggregate.input.as_ref()])
        }
        Node::Aggregate(aggregate) => {
            let bound = match aggregate.state_ttl_us {
                Some(ttl) => format!("state of a group ends {} after its last row", us(ttl)),
                None if aggregate.group.is_empty() => "state is one row".to_owned(),
                None => "state grows with the number of groups".to_owned(),
            };
            (
                format!("Aggregate: by ({}), {}; {bound}", list(&aggregate.group), calls(&aggregate.aggregates)),
                vec![aggregate.input.as_ref()],
            )
        }
        Node::Union { inputs, .. } => ("Union".to_owned(), inputs.iter().collect()),
    };
    let _ = writeln!(text, "{}{line}", "  ".repeat(depth));
    for input in inputs {
        describe(input, depth + 1, text);
    }
}
