//! Window table functions: `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` as a relation with `window_start, window_end, window_time`.
//!
//! Both spellings give one logical node. A bounded query runs it here; a streaming view turns it into operators of the engine.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, ExprSchema, Result};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore};
use engine::plan::WindowKind;
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, TableFactor, TableVersion};

use super::types;
use crate::parser::{PARTITIONED, fold};
use crate::{Error, interval};

/// Names of the functions.
pub(crate) const KINDS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];
/// Start of the window.
pub(crate) const START: &str = "window_start";
/// End of the window, exclusive.
pub(crate) const END: &str = "window_end";
/// The last microsecond of the window.
pub(crate) const TIME: &str = "window_time";
/// All three, in the order in which they are appended.
pub(crate) const COLUMNS: [&str; 3] = [START, END, TIME];

/// More windows than this for one row are a mistake.
const MAX_WINDOWS_PER_ROW: i64 = 100_000;

/// Kinds of windows with their lengths in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub(crate) enum Kind {
    /// Side by side.
    Tumble { size: i64, offset: i64 },
    /// Overlapping.
    Hop { slide: i64, size: i64, offset: i64 },
    /// Growing.
    Cumulate { step: i64, size: i64, offset: i64 },
    /// Parted by gaps.
    Session { gap: i64 },
}

impl Kind {
    /// As the engine has it, with the session's keys.
    pub(crate) fn for_engine(self, keys: Vec<usize>) -> WindowKind {
        match self {
            Kind::Tumble { size, offset } => WindowKind::Tumble { size_us: size, offset_us: offset },
            Kind::Hop { slide, size, offset } => WindowKind::Hop { slide_us: slide, size_us: size, offset_us: offset },
            Kind::Cumulate { step, size, offset } => WindowKind::Cumulate { step_us: step, size_us: size, offset_us: offset },
            Kind::Session { gap } => WindowKind::Session { gap_us: gap, keys },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |us: i64| std::time::Duration::from_micros(us.unsigned_abs());
        match *self {
            Kind::Tumble { size, .. } => write!(f, "TUMBLE {:?}", us(size)),
            Kind::Hop { slide, size, .. } => write!(f, "HOP {:?} every {:?}", us(size), us(slide)),
            Kind::Cumulate { step, size, .. } => write!(f, "CUMULATE {:?} in steps of {:?}", us(size), us(step)),
            Kind::Session { gap } => write!(f, "SESSION with a gap of {:?}", us(gap)),
        }
    }
}

/// Each row of the input once for each window it is in. Rows without a time are in none.
#[derive(Debug, Clone)]
pub(crate) struct WindowAssign {
    /// The rows.
    pub(crate) input: LogicalPlan,
    /// The time column.
    pub(crate) time: Column,
    /// Columns that part sessions.
    pub(crate) keys: Vec<Column>,
    /// The windows.
    pub(crate) kind: Kind,
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// Windows over `input`.
    pub(crate) fn try_new(input: LogicalPlan, time: Column, keys: Vec<Column>, kind: Kind) -> Result<Self> {
        let data_type = input.schema().field_from_column(&time)?.data_type().clone();
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let windows = COLUMNS.into_iter().map(|name| (None, Arc::new(Field::new(name, data_type.clone(), false))));
        let schema = DFSchema::new_with_metadata(fields.chain(windows).collect(), DFSchema::metadata(input.schema()).clone())?;
        Ok(WindowAssign { input, time, keys, kind, schema: Arc::new(schema) })
    }

    /// Index of the time column in the input.
    pub(crate) fn time_index(&self) -> Result<usize> {
        self.input.schema().index_of_column(&self.time)
    }

    /// Indexes of the keys in the input.
    pub(crate) fn key_indexes(&self) -> Result<Vec<usize>> {
        self.keys.iter().map(|key| self.input.schema().index_of_column(key)).collect()
    }
}

impl PartialEq for WindowAssign {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.time == other.time && self.keys == other.keys && self.input == other.input
    }
}

impl Eq for WindowAssign {}

impl Hash for WindowAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.time.hash(state);
        self.keys.hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other { Some(Ordering::Equal) } else { self.input.partial_cmp(&other.input) }
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).cloned().map(Expr::Column).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        match self.kind {
            // A session is made of its neighbours: only whole keys may be left out before.
            Kind::Session { .. } => {
                let keys: HashSet<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
                self.schema
                    .fields()
                    .iter()
                    .filter(|field| !keys.contains(field.name().as_str()))
                    .map(|field| field.name().clone())
                    .collect()
            }
            _ => COLUMNS.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowAssign: {} over {}", self.kind, self.time)?;
        if !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
            write!(f, ", by {}", keys.join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            other => Err(DataFusionError::Internal(format!("a window's time or key became {other}"))),
        });
        let time = columns.next().unwrap_or_else(|| Ok(self.time.clone()))?;
        let keys = columns.collect::<Result<_>>()?;
        let input = inputs.into_iter().next().unwrap_or_else(|| self.input.clone());
        WindowAssign::try_new(input, time, keys, self.kind)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|column| *column < width).collect();
        needed.push(self.time_index().ok()?);
        needed.extend(self.key_indexes().ok()?);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Plans the table functions, and refuses table versions that are not there.
#[derive(Debug)]
pub(crate) struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let (name, args, alias) = match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } if kind_of(&name).is_some() => (name, args.args, alias),
            TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => match function.args {
                FunctionArguments::List(list) if kind_of(&function.name).is_some() => (function.name, list.args, alias),
                _ => {
                    return Err(outside(
                        Error::new("42883", format!("table function {} does not exist", function.name))
                            .hint("Window functions are TUMBLE, HOP, CUMULATE and SESSION."),
                    ));
                }
            },
            TableFactor::Function { name, args, alias, .. } if kind_of(&name).is_some() => (name, args, alias),
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version: Some(version),
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if !is_now(&version) {
                    return Err(outside(
                        Error::new("0A000", format!("reading {name} as of another time is not supported"))
                            .hint("FOR SYSTEM_TIME AS OF PROCTIME() reads the newest rows."),
                    ));
                }
                let current = TableFactor::Table {
                    name,
                    alias,
                    args,
                    with_hints,
                    version: None,
                    with_ordinality,
                    partitions,
                    json_path,
                    sample,
                    index_hints,
                };
                return Ok(RelationPlanning::Original(Box::new(current)));
            }
            // DataFusion looks at the first part of a function's name only.
            TableFactor::Table { name, args: Some(args), alias, .. } if name.0.len() > 1 => {
                return function(name, args.args, alias, context);
            }
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let kind = kind_of(&name).unwrap_or("tumble");
        let plan = plan(kind, args, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// A call of a table function of another schema.
fn function(
    name: ObjectName,
    args: Vec<FunctionArg>,
    alias: Option<ast::TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> Result<RelationPlanning> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
    let args = args
        .into_iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => context.sql_to_expr(expr, &DFSchema::empty()),
            other => Err(outside(Error::new("0A000", format!("argument {other} of {name} is not supported")))),
        })
        .collect::<Result<Vec<_>>>()?;
    let source = context.context_provider().get_table_function_source(&parts.join("."), args)?;
    let own = parts.last().cloned().unwrap_or_default();
    let plan = LogicalPlanBuilder::scan(own, source, None)?.build()?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

fn outside(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn kind_of(name: &ObjectName) -> Option<&'static str> {
    let [part] = name.0.as_slice() else { return None };
    let name = fold(part.as_ident()?);
    KINDS.into_iter().find(|kind| *kind == name)
}

/// `FOR SYSTEM_TIME AS OF PROCTIME()`.
fn is_now(version: &TableVersion) -> bool {
    match version {
        TableVersion::ForSystemTimeAsOf(ast::Expr::Function(function)) => function
            .name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .is_some_and(|name| matches!(fold(name).as_str(), "proctime" | "now")),
        _ => false,
    }
}

/// Arguments in their places: relation, time, lengths, and for sessions the keys.
struct Arguments {
    relation: ast::Expr,
    time: ast::Expr,
    lengths: Vec<ast::Expr>,
    keys: Vec<ast::Expr>,
}

fn arguments(kind: &'static str, args: Vec<FunctionArg>) -> crate::Result<Arguments> {
    let upper = kind.to_uppercase();
    let (lengths, usage): (&[&[&str]], &str) = match kind {
        "tumble" => (&[&["size"], &["offset"]], "TUMBLE(t, ts, size [, offset])"),
        "hop" => (&[&["slide"], &["size"], &["offset"]], "HOP(t, ts, slide, size [, offset])"),
        "cumulate" => (&[&["step"], &["size"], &["offset"]], "CUMULATE(t, ts, step, size [, offset])"),
        _ => (&[&["gap"]], "SESSION(t, ts, gap [, key …])"),
    };
    let wrong = |what: String| {
        Error::new("42883", format!("{upper}: {what}")).hint(format!("Write {usage}, lengths as INTERVAL '10 seconds'."))
    };
    let mut positional = Vec::new();
    let mut named: Vec<(String, ast::Expr)> = Vec::new();
    for arg in args {
        let (name, arg) = match arg {
            FunctionArg::Unnamed(arg) => (None, arg),
            FunctionArg::Named { name, arg, .. } => (Some(fold(&name)), arg),
            FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => (Some(fold(&name)), arg),
            FunctionArg::ExprNamed { name, .. } => return Err(wrong(format!("{name} is no argument's name"))),
        };
        let FunctionArgExpr::Expr(expr) = arg else { return Err(wrong(format!("{arg} is no argument"))) };
        match name {
            None if named.is_empty() => positional.push(expr),
            None => return Err(wrong("arguments without a name come first".to_owned())),
            Some(name) => named.push((name, expr)),
        }
    }
    let mut positional = positional.into_iter();
    let mut take = |names: &[&str]| {
        positional.next().or_else(|| {
            let at = named.iter().position(|(name, _)| names.contains(&name.as_str()))?;
            Some(named.remove(at).1)
        })
    };
    let relation = take(&["data", "table"]).ok_or_else(|| wrong("the relation is missing".to_owned()))?;
    let time = take(&["timecol", "time"]).ok_or_else(|| wrong("the time column is missing".to_owned()))?;
    let mut found = Vec::new();
    let needed = lengths.iter().filter(|names| !names.contains(&"offset")).count();
    for (at, names) in lengths.iter().enumerate() {
        match take(names) {
            Some(length) => found.push(length),
            None if at < needed => return Err(wrong(format!("{} is missing", names[0]))),
            None => break,
        }
    }
    let keys: Vec<ast::Expr> = positional.collect();
    if let Some((name, _)) = named.first() {
        return Err(wrong(format!("there is no argument {name}")));
    }
    if kind != "session" && !keys.is_empty() {
        return Err(wrong("too many arguments".to_owned()));
    }
    Ok(Arguments { relation, time, lengths: found, keys })
}

/// The relation and the PARTITION BY columns that stand with it.
fn relation(expr: ast::Expr) -> crate::Result<(TableFactor, Vec<ast::Expr>)> {
    let table = |name: ObjectName| TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    match expr {
        ast::Expr::Identifier(name) => Ok((table(ObjectName::from(vec![name])), Vec::new())),
        ast::Expr::CompoundIdentifier(parts) => Ok((table(ObjectName::from(parts)), Vec::new())),
        ast::Expr::Subquery(subquery) => {
            // `SELECT * FROM one` is that one, with its name.
            if let Some(factor) = only_relation(&subquery) {
                return Ok((factor, Vec::new()));
            }
            Ok((TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }, Vec::new()))
        }
        ast::Expr::Nested(inner) => relation(*inner),
        ast::Expr::Function(function) if function.name.to_string() == format!("\"{PARTITIONED}\"") => {
            let FunctionArguments::List(list) = function.args else {
                return Err(Error::new("42601", "PARTITION BY needs columns"));
            };
            let mut args = list.args.into_iter().filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            });
            let first = args.next().ok_or_else(|| Error::new("42601", "a window needs a relation"))?;
            let (factor, _) = relation(first)?;
            Ok((factor, args.collect()))
        }
        other => Err(Error::new("42601", format!("a window is over a table, a view or a subquery, not {other}"))),
    }
}

/// The relation of a query that is nothing but `SELECT * FROM relation`.
fn only_relation(query: &ast::Query) -> Option<TableFactor> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && select.selection.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && matches!(select.projection.as_slice(), [ast::SelectItem::Wildcard(_)])
        && matches!(&select.group_by, ast::GroupByExpr::Expressions(groups, _) if groups.is_empty());
    match select.from.as_slice() {
        [from] if plain && from.joins.is_empty() => Some(from.relation.clone()),
        _ => None,
    }
}

fn plan(kind: &'static str, args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let upper = kind.to_uppercase();
    let Arguments { relation: of, time, lengths, keys } = arguments(kind, args).map_err(outside)?;
    let (factor, partition) = relation(of).map_err(outside)?;
    let input = without_window_columns(context.plan(factor)?)?;

    let mut column = |expr: ast::Expr, what: &str| -> Result<Column> {
        let expr = match expr {
            // DESCRIPTOR(ts)
            ast::Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("descriptor") => {
                match function.args {
                    FunctionArguments::List(list) => match list.args.into_iter().next() {
                        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => expr,
                        _ => return Err(outside(Error::new("42601", "DESCRIPTOR needs a column"))),
                    },
                    _ => return Err(outside(Error::new("42601", "DESCRIPTOR needs a column"))),
                }
            }
            expr => expr,
        };
        let written = expr.to_string();
        // A column that a window of the input had is known by its new name.
        let renamed = match &expr {
            ast::Expr::Identifier(ident) if COLUMNS.contains(&fold(ident).as_str()) => Some(format!("{INPUT}{}", fold(ident))),
            _ => None,
        };
        if let Some(name) = renamed.filter(|name| input.schema().has_column_with_unqualified_name(name)) {
            return Ok(Column::from_name(name));
        }
        match context.sql_to_expr(expr, input.schema())? {
            Expr::Column(column) => Ok(column),
            _ => Err(outside(
                Error::new("0A000", format!("the {what} of {upper} must be a column, not {written}"))
                    .hint("Compute it in a subquery, and name it there."),
            )),
        }
    };
    let time = column(time, "time")?;
    let keys = keys.into_iter().chain(partition).map(|key| column(key, "key")).collect::<Result<Vec<_>>>()?;
    let keys = if kind == "session" { keys } else { Vec::new() };
    let field = input.schema().field_from_column(&time)?;
    if !matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
        return Err(outside(
            Error::new("42804", format!("the time column \"{}\" of {upper} has type {}", time.name, types::name(field)))
                .hint("It must be TIMESTAMP or TIMESTAMPTZ; cast it in a subquery."),
        ));
    }
    let lengths = lengths.iter().map(interval::of_expr).collect::<crate::Result<Vec<_>>>().map_err(outside)?;
    let kind = of_lengths(kind, &lengths).map_err(outside)?;
    let node = WindowAssign::try_new(input, time, keys, kind)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// In front of the window columns that the input of a window has of its own.
const INPUT: &str = "input_";

/// Window columns of the input step aside for those of this window: `window_start` becomes `input_window_start`.
fn without_window_columns(input: LogicalPlan) -> Result<LogicalPlan> {
    if !input.schema().fields().iter().any(|field| COLUMNS.contains(&field.name().as_str())) {
        return Ok(input);
    }
    let columns: Vec<Expr> = input
        .schema()
        .columns()
        .into_iter()
        .map(|column| {
            let name = column.name.clone();
            let expr = Expr::Column(column);
            if COLUMNS.contains(&name.as_str()) { expr.alias(format!("{INPUT}{name}")) } else { expr }
        })
        .collect();
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

fn of_lengths(kind: &str, lengths: &[i64]) -> crate::Result<Kind> {
    let upper = kind.to_uppercase();
    let positive = |length: i64, what: &str| {
        if length > 0 { Ok(length) } else { Err(Error::new("22023", format!("the {what} of {upper} must be greater than zero"))) }
    };
    let bounded = |size: i64, step: i64| {
        if size / step > MAX_WINDOWS_PER_ROW {
            return Err(Error::new("22023", format!("{upper}: each row would be in {} windows", size / step))
                .hint("Take a longer slide or a shorter window."));
        }
        Ok(())
    };
    match (kind, lengths) {
        ("tumble", [size, rest @ ..]) => {
            Ok(Kind::Tumble { size: positive(*size, "size")?, offset: rest.first().copied().unwrap_or(0) })
        }
        ("hop", [slide, size, rest @ ..]) => {
            let (slide, size) = (positive(*slide, "slide")?, positive(*size, "size")?);
            bounded(size, slide)?;
            Ok(Kind::Hop { slide, size, offset: rest.first().copied().unwrap_or(0) })
        }
        ("cumulate", [step, size, rest @ ..]) => {
            let (step, size) = (positive(*step, "step")?, positive(*size, "size")?);
            if size % step != 0 {
                return Err(Error::new("22023", "the size of CUMULATE must be a multiple of its step"));
            }
            bounded(size, step)?;
            Ok(Kind::Cumulate { step, size, offset: rest.first().copied().unwrap_or(0) })
        }
        ("session", [gap]) => Ok(Kind::Session { gap: positive(*gap, "gap")? }),
        _ => Err(Error::new("42883", format!("{upper} has other arguments"))),
    }
}
