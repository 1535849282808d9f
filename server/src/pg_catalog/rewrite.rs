//! Spellings of catalog queries that the planner does not know, settled in the syntax tree before planning.
//!
//! - `x::regclass` and its kin become functions: a text becomes a number, a number becomes a name.
//! - `ARRAY(SELECT x …)` becomes a scalar subquery with `array_agg`.
//! - A SELECT from a relation that never has a row has no rows: it is cut down to its columns, so that nothing else in it
//!   needs to be understood.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select,
    SelectItem, SetExpr, TableFactor, Value, VisitMut, VisitorMut,
};
use sql::Statement;

use super::tables::EMPTY;

/// Settles the spellings of a query.
pub(crate) fn rewrite(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        let _: ControlFlow<()> = query.visit(&mut Rewriter);
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if is_empty(query) {
            // Nothing has no order, and the columns it would be ordered by are about to go.
            query.order_by = None;
        }
        set_expression(&mut query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let replaced = match expr {
            Expr::Subquery(query) if is_empty(query) => Some(null_text()),
            Expr::Exists { subquery, negated } if is_empty(subquery) => Some(Expr::value(Value::Boolean(*negated))),
            Expr::Function(function) if name(&function.name).as_deref() == Some("array") => match &mut function.args {
                FunctionArguments::Subquery(query) if is_empty(query) => Some(call("empty_text_array", Vec::new())),
                FunctionArguments::Subquery(query) => Some(Expr::Subquery(Box::new(aggregated(query)))),
                _ => None,
            },
            _ => None,
        };
        if let Some(replaced) = replaced {
            *expr = replaced;
        }
        ControlFlow::Continue(())
    }

    /// Inner casts first: `x::regclass::oid` is a cast of what `x::regclass` has become.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { kind: CastKind::DoubleColon | CastKind::Cast, expr: inner, data_type, .. } = expr
            && let Some(target) = custom(data_type)
        {
            let literal = matches!(inner.as_ref(), Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_) | Value::Placeholder(_)));
            let operand = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
            *expr = match (target.as_str(), literal) {
                ("regclass", true) => call("regclass_oid", vec![operand]),
                ("regclass", false) => call("regclass_name", vec![operand]),
                ("regtype", true) => call("to_regtype", vec![operand]),
                ("regtype", false) => call("format_type", vec![operand, Expr::value(Value::Null)]),
                ("regnamespace", false) => call("regnamespace_name", vec![operand]),
                ("oid" | "xid", _) => cast(operand, DataType::BigInt(None)),
                ("regproc" | "regprocedure" | "regrole" | "regoper", _) => cast(operand, DataType::Text),
                _ => cast(operand, data_type.clone()),
            };
        }
        ControlFlow::Continue(())
    }
}

fn set_expression(set: &mut SetExpr) {
    match set {
        SetExpr::Select(select) => {
            name_casts(select);
            if select_is_empty(select) {
                cut_down(select);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            set_expression(left);
            set_expression(right);
        }
        _ => {}
    }
}

/// A cast that becomes a function keeps the name Postgres gives its column.
fn name_casts(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }) = item
            && let Expr::Cast { data_type, .. } = &*expr
            && custom(data_type).is_some()
        {
            let alias = column_name(expr);
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// No rows, with the columns the SELECT has.
fn cut_down(select: &mut Select) {
    let wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if select.projection.iter().any(wildcard)
        || !matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty())
    {
        return;
    }
    for item in &mut select.projection {
        let alias = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(expr) => column_name(expr),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr: null_text(), alias };
    }
    select.from.clear();
    select.selection = Some(Expr::value(Value::Boolean(false)));
}

fn is_empty(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select_is_empty(select))
}

/// Whether a SELECT reads, other than on the far side of an outer join, what never has a row. An aggregate has a row even then.
fn select_is_empty(select: &Select) -> bool {
    let aggregates = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Function(function)) | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } => {
            matches!(
                name(&function.name).as_deref(),
                Some("count" | "max" | "min" | "sum" | "array_agg" | "string_agg" | "bool_or" | "json_agg")
            )
        }
        _ => false,
    };
    if select.projection.iter().any(aggregates) {
        return false;
    }
    select.from.iter().any(|from| {
        use datafusion::sql::sqlparser::ast::JoinOperator::{CrossJoin, Inner, Join};
        let inner = from.joins.iter().filter(|join| matches!(join.join_operator, Join(_) | Inner(_) | CrossJoin(_)));
        let outer = from.joins.iter().any(|join| !matches!(join.join_operator, Join(_) | Inner(_) | CrossJoin(_)));
        // A full or right join could bring rows of its own.
        let left_only = !outer || from.joins.iter().all(|join| !format!("{:?}", join.join_operator).starts_with(['R', 'F']));
        left_only && (has_no_rows(&from.relation) || inner.into_iter().any(|join| has_no_rows(&join.relation)))
    })
}

fn has_no_rows(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name: table, args: None, .. } => name(table).is_some_and(|name| EMPTY.contains(&name.as_str())),
        // Lists of options and privileges are never there.
        TableFactor::Table { name: function, args: Some(args), .. } => {
            let absent = |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if is_absent(expr));
            name(function).as_deref() == Some("unnest") && args.args.iter().all(absent)
        }
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().all(is_absent),
        _ => false,
    }
}

fn is_absent(expr: &Expr) -> bool {
    let column = match expr {
        Expr::Identifier(column) => column,
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(column) => column,
            None => return false,
        },
        _ => return false,
    };
    matches!(
        column.value.to_ascii_lowercase().as_str(),
        "reloptions" | "relacl" | "attacl" | "attoptions" | "nspacl" | "datacl" | "proacl"
    )
}

/// `SELECT x FROM …` as `SELECT array_agg(x) FROM …`.
fn aggregated(query: &Query) -> Query {
    let mut query = query.clone();
    query.order_by = None;
    if let SetExpr::Select(select) = query.body.as_mut()
        && let [item] = select.projection.as_mut_slice()
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
    {
        let expr = std::mem::replace(expr, Expr::value(Value::Null));
        *item = SelectItem::UnnamedExpr(call("array_agg", vec![expr]));
    }
    query
}

/// The name of a type that only the catalog knows.
fn custom(data_type: &DataType) -> Option<String> {
    let type_name = match data_type {
        DataType::Regclass => return Some("regclass".to_owned()),
        DataType::Custom(type_name, _) => type_name,
        _ => return None,
    };
    let known = ["regclass", "regtype", "regnamespace", "regproc", "regprocedure", "regrole", "regoper", "oid", "xid"];
    name(type_name).filter(|name| known.contains(&name.as_str()))
}

/// The last part of a name, in lower case; `None` when it is qualified by a schema that is not the system's.
fn name(name: &ObjectName) -> Option<String> {
    let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.to_ascii_lowercase()).collect();
    match parts.as_slice() {
        [name] => Some(name.clone()),
        [schema, name] if schema == "pg_catalog" || schema == "information_schema" => Some(name.clone()),
        _ => None,
    }
}

fn column_name(expr: &Expr) -> Ident {
    let name = match expr {
        Expr::Identifier(column) => return column.clone(),
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()),
        Expr::Function(function) => name(&function.name),
        Expr::Cast { expr, data_type, .. } => match expr.as_ref() {
            Expr::Value(_) => custom(data_type).or_else(|| Some(data_type.to_string().to_ascii_lowercase())),
            inner => return column_name(inner),
        },
        Expr::Nested(inner) => return column_name(inner),
        Expr::Case { .. } => Some("case".to_owned()),
        _ => None,
    };
    Ident::with_quote('"', name.unwrap_or_else(|| "?column?".to_owned()))
}

fn null_text() -> Expr {
    cast(Expr::value(Value::Null), DataType::Text)
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(function: &str, args: Vec<Expr>) -> Expr {
    use datafusion::sql::sqlparser::ast::{Function, FunctionArgumentList};
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
