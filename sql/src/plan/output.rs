//! The result of a query: names and types as a client or a table has them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, TableReference};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::rewrite::COPY;
use crate::{Error, Result, translate};

/// A column's name without the mark that told it from another of the same name.
fn plain(name: &str) -> &str {
    name.split(COPY).next().unwrap_or(name)
}

/// The type that results and tables have for what DataFusion computes.
pub(crate) fn settled(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Date64 => DataType::Date32,
        DataType::Duration(_) | DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal256(precision, scale) => DataType::Decimal128((*precision).min(38), (*scale).min(38)),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::Dictionary(_, value) => settled(value),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::FixedSizeList(element, _) => DataType::List(settled_field(element)),
        other => other.clone(),
    }
}

fn settled_field(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(settled(field.data_type())))
}

/// Runs the analyzer; parameters without a type are text.
pub(crate) fn analyze(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan
        .transform_down_with_subqueries(|plan| {
            plan.map_expressions(|expr| {
                expr.transform_up(|expr| {
                    Ok(match expr {
                        Expr::Placeholder(Placeholder { id, field: None }) => {
                            let field = Some(Arc::new(Field::new(id.clone(), DataType::Utf8, true)));
                            Transformed::yes(Expr::Placeholder(Placeholder { id, field }))
                        }
                        other => Transformed::no(other),
                    })
                })
            })
        })
        .map_err(translate)?
        .data;
    state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}).map_err(translate)
}

/// The last projection of a bounded query: names may be there more than once.
pub(crate) fn finish(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for field in schema.fields() {
        *seen.entry(plain(field.name())).or_default() += 1;
    }
    let settled_already =
        schema.fields().iter().all(|field| settled(field.data_type()) == *field.data_type() && !field.name().contains(COPY));
    if settled_already {
        return Ok(plan);
    }
    let mut at = 0usize;
    let exprs: Vec<Expr> = schema
        .iter()
        .map(|(qualifier, field)| {
            let name = plain(field.name());
            at += 1;
            let relation =
                if seen.get(name).is_some_and(|n| *n > 1) { Some(TableReference::bare(format!("{COPY}{at}"))) } else { None };
            settle(qualifier, field).alias_qualified(relation, name)
        })
        .collect();
    project(plan, exprs)
}

/// The last projection of a table's query: every name once.
pub(crate) fn unique(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let mut seen = HashSet::new();
    for field in schema.fields() {
        let name = plain(field.name());
        if !seen.insert(name) {
            return Err(Error::new("42701", format!("column \"{name}\" specified more than once"))
                .hint("Give the columns different names with AS."));
        }
    }
    let exprs = schema.iter().map(|(qualifier, field)| settle(qualifier, field).alias(field.name().clone())).collect();
    project(plan, exprs)
}

/// A view's columns: unique, and called as the view says.
pub(crate) fn named(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    if names.len() > schema.fields().len() {
        return Err(Error::new("42601", "CREATE VIEW specifies more column names than columns"));
    }
    let all: Vec<&str> =
        schema.fields().iter().enumerate().map(|(at, field)| names.get(at).map_or(plain(field.name()), String::as_str)).collect();
    let mut seen = HashSet::new();
    if let Some(name) = all.iter().find(|name| !seen.insert(**name)) {
        return Err(Error::new("42701", format!("column \"{name}\" specified more than once"))
            .hint("Give the columns different names with AS."));
    }
    let exprs = schema.iter().zip(&all).map(|((qualifier, field), name)| settle(qualifier, field).alias(*name)).collect();
    project(plan, exprs)
}

/// A column, cast to a settled type where it has another.
fn settle(qualifier: Option<&TableReference>, field: &FieldRef) -> Expr {
    let column = Expr::from((qualifier, field));
    let target = settled(field.data_type());
    if target == *field.data_type() {
        column
    } else {
        Expr::Cast(Cast::new_from_field(Box::new(column), Arc::new(field.as_ref().clone().with_data_type(target))))
    }
}

pub(crate) fn project(plan: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(translate)
}

/// The Arrow schema of a plan.
pub(crate) fn schema(schema: &DFSchema) -> SchemaRef {
    Arc::new(schema.as_arrow().clone())
}
