//! What is settled in the syntax tree before planning: Postgres's names of output columns, windows written as groups, and
//! spellings that only psql uses.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, TableAlias, TableFactor, TableFunctionArgs, Value, VisitMut, VisitorMut,
};

use super::window;
use crate::parser::{PARTITIONED, fold};
use crate::{Error, Result};

/// Stands between a name and a number that tells columns of the same name apart until the last projection.
pub(crate) const COPY: char = '\u{1f}';

/// Brings a query into the form that is planned.
pub(crate) fn query(query: &Query) -> Result<Query> {
    let mut query = query.clone();
    apply(&mut query)?;
    Ok(query)
}

/// The same for any other part of a statement.
pub(crate) fn apply<N: VisitMut>(node: &mut N) -> Result<()> {
    match node.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        // Rows are not locked here: readers never wait.
        query.locks.clear();
        match body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match expr {
            // `pg_catalog.lower(x)` is `lower(x)`.
            Expr::Function(function) => {
                if let [schema, _] = function.name.0.as_slice()
                    && schema.as_ident().is_some_and(|schema| fold(schema) == "pg_catalog")
                {
                    function.name.0.remove(0);
                }
                // `mod` is an operator.
                if function.name.to_string().eq_ignore_ascii_case("mod")
                    && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(left)), FunctionArg::Unnamed(FunctionArgExpr::Expr(right))] =
                        arguments(function).as_slice()
                {
                    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
                    *expr = Expr::BinaryOp { left: nested(left), op: BinaryOperator::Modulo, right: nested(right) };
                }
            }
            Expr::BinaryOp { op, .. } => {
                // OPERATOR(pg_catalog.~), as psql writes it.
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|name| operator(name))
                {
                    *op = plain;
                }
            }
            Expr::Collate { expr: inner, .. } => {
                let inner = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
                *expr = inner;
                return self.pre_visit_expr(expr);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `OPERATOR(pg_catalog.~)` and the like.
fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

fn body(set: &mut SetExpr) -> Result<()> {
    match set {
        SetExpr::Select(select) => {
            if select.into.is_some() {
                return Err(Error::new("0A000", "SELECT INTO is not supported").hint("Use CREATE TABLE … AS SELECT."));
            }
            if !select.distinct.iter().all(|d| matches!(d, ast::Distinct::Distinct | ast::Distinct::All | ast::Distinct::On(_))) {
                return Err(Error::new("0A000", "this form of DISTINCT is not supported"));
            }
            windows_as_groups(select)?;
            name_columns(select);
            Ok(())
        }
        SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)
        }
        // A query in parentheses is visited on its own.
        _ => Ok(()),
    }
}

// ---- names of columns ----

fn name_columns(select: &mut Select) {
    let all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let all_of: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                name.0.last()?.as_ident().map(fold)
            }
            _ => None,
        })
        .collect();
    let mut taken = HashSet::new();
    for item in &mut select.projection {
        let (name, has_name, there) = match item {
            SelectItem::UnnamedExpr(expr) => match expr {
                Expr::Identifier(ident) => (fold(ident), true, all),
                Expr::CompoundIdentifier(parts) => {
                    let relation = parts.iter().rev().nth(1).map(fold);
                    let there = all || relation.is_some_and(|relation| all_of.contains(&relation));
                    (parts.last().map(fold).unwrap_or_default(), true, there)
                }
                _ => (column_name(expr), false, false),
            },
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), true, false),
            _ => continue,
        };
        // What a wildcard of the same relation holds already is there twice.
        let repeated = !taken.insert(name.clone()) || there;
        let name = if repeated {
            let copy = (2..).map(|n| format!("{name}{COPY}{n}")).find(|copy| taken.insert(copy.clone()));
            copy.unwrap_or(name)
        } else if has_name {
            continue;
        } else {
            name
        };
        let alias = Ident::with_quote('"', name);
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let expr = std::mem::replace(expr, Expr::value(Value::Null));
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            _ => {}
        }
    }
}

/// The name that Postgres gives an output column without one.
fn column_name(expr: &Expr) -> String {
    own_name(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name and whether it is a strong one (of a column or function, not of a type).
fn own_name(expr: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| (fold(part), true)),
        Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).map(|ident| (fold(ident), true)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => own_name(inner),
        Expr::CompoundFieldAccess { root, access_chain } => access_chain
            .iter()
            .rev()
            .find_map(|access| match access {
                ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some((fold(ident), true)),
                _ => None,
            })
            .or_else(|| own_name(root)),
        Expr::Cast { expr, data_type, .. } => match own_name(expr) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_name(data_type), false)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".to_owned(), false)),
        Expr::Value(value) => match &value.value {
            Value::Boolean(_) => Some(("bool".to_owned(), false)),
            _ => None,
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(own_name) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Exists { negated: false, .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(expr)) => own_name(expr),
                Some(SelectItem::ExprWithAlias { alias, .. }) => Some((fold(alias), true)),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Postgres's internal name of a type.
fn type_name(data_type: &ast::DataType) -> String {
    use ast::DataType as T;
    let name = match data_type {
        T::SmallInt(_) | T::Int2(_) => "int2",
        T::Int(_) | T::Integer(_) | T::Int4(_) => "int4",
        T::BigInt(_) | T::Int8(_) => "int8",
        T::Real | T::Float4 => "float4",
        T::Float(_) | T::Double(_) | T::DoublePrecision | T::Float8 => "float8",
        T::Boolean | T::Bool => "bool",
        T::Numeric(_) | T::Decimal(_) | T::Dec(_) => "numeric",
        T::Varchar(_) | T::CharacterVarying(_) => "varchar",
        T::Char(_) | T::Character(_) => "bpchar",
        T::Text => "text",
        T::Date => "date",
        T::Timestamp(_, ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone) => "timestamptz",
        T::Timestamp(..) => "timestamp",
        T::Time(..) => "time",
        T::Interval { .. } => "interval",
        T::Bytea => "bytea",
        T::JSON => "json",
        T::JSONB => "jsonb",
        T::Uuid => "uuid",
        T::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) => return type_name(element),
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

// ---- GROUP BY TUMBLE(ts, INTERVAL …) ----

/// A window function among the groups becomes a table function over the relation; its helpers become the window's columns.
fn windows_as_groups(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    let Some(at) = groups.iter().position(|group| group_window(group).is_some()) else { return Ok(()) };
    let Some((kind, call)) = group_window(&groups[at]) else { return Ok(()) };
    let upper = kind.to_uppercase();
    if groups.iter().filter(|group| group_window(group).is_some()).count() > 1 {
        return Err(Error::new("0A000", "only one window is possible in GROUP BY"));
    }
    let [relation] = select.from.as_mut_slice() else {
        return Err(Error::new("0A000", format!("GROUP BY {upper} needs a query over one relation"))
            .hint(format!("Write FROM {upper}((SELECT …) , time_column, INTERVAL …) GROUP BY window_start, window_end.")));
    };
    if !relation.joins.is_empty() {
        return Err(Error::new("0A000", format!("GROUP BY {upper} over a join is not supported"))
            .hint(format!("Put the join into a subquery: FROM {upper}((SELECT …), time_column, INTERVAL …).")));
    }
    let call = call.clone();
    let mut args = arguments(&call);
    if args.is_empty() {
        return Err(Error::new("42883", format!("{upper} needs a time column and an interval")));
    }
    if kind == "session" {
        for group in groups.iter().filter(|group| group_window(group).is_none()) {
            match group {
                Expr::Identifier(_) => args.push(unnamed(group.clone())),
                Expr::CompoundIdentifier(parts) => args.extend(parts.last().map(|part| unnamed(Expr::Identifier(part.clone())))),
                other => {
                    return Err(Error::new("0A000", format!("GROUP BY SESSION beside the expression {other} is not supported"))
                        .hint("Compute the expression in a subquery, and group by its column."));
                }
            }
        }
    }
    groups.splice(at..=at, [column("window_start"), column("window_end")]);

    // The window takes the relation's place and keeps its name.
    let (alias, input) = match &relation.relation {
        TableFactor::Table { name, alias, args: None, .. } => {
            let own = name.0.last().and_then(|part| part.as_ident()).cloned();
            (alias.as_ref().map(|alias| alias.name.clone()).or(own), relation.relation.clone())
        }
        factor @ TableFactor::Derived { alias, .. } => (alias.as_ref().map(|alias| alias.name.clone()), factor.clone()),
        _ => return Err(Error::new("0A000", format!("GROUP BY {upper} needs a table, a view or a subquery after FROM"))),
    };
    // A session is of the rows that are left after WHERE; other windows do not depend on other rows.
    let selection = if kind == "session" { select.selection.take() } else { None };
    let mut inner = star(input);
    if let SetExpr::Select(inner) = inner.body.as_mut() {
        inner.selection = selection;
    }
    args.insert(0, unnamed(Expr::Subquery(Box::new(inner))));
    relation.relation = TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(kind)]),
        alias: alias.map(|name| TableAlias { explicit: true, name, columns: Vec::new(), at: None }),
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    let mut helpers = Helpers { kind };
    let _ = select.projection.visit(&mut helpers);
    let _ = select.having.visit(&mut helpers);
    Ok(())
}

/// `SELECT * FROM factor`.
fn star(factor: TableFactor) -> Query {
    let mut statement = crate::parse("SELECT * FROM t").unwrap_or_default();
    match statement.pop().map(|parsed| parsed.statement) {
        Some(crate::Statement::Query(mut query)) => {
            if let SetExpr::Select(select) = query.body.as_mut()
                && let Some(from) = select.from.first_mut()
            {
                from.relation = factor;
            }
            *query
        }
        _ => unreachable!("a constant text is a query"),
    }
}

fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

fn arguments(call: &Function) -> Vec<FunctionArg> {
    match &call.args {
        FunctionArguments::List(list) => list.args.clone(),
        _ => Vec::new(),
    }
}

/// A window function and its kind.
fn group_window(expr: &Expr) -> Option<(&'static str, &Function)> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.0.last()?.as_ident().map(fold)?;
    window::KINDS.into_iter().find(|kind| *kind == name && name != PARTITIONED).map(|kind| (kind, function))
}

/// TUMBLE_START(…) and the like.
struct Helpers {
    kind: &'static str,
}

impl VisitorMut for Helpers {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(name) = function.name.0.last().and_then(|part| part.as_ident()).map(fold)
            && let Some(rest) = name.strip_prefix(self.kind)
        {
            match rest {
                "_start" | "" => *expr = column("window_start"),
                "_end" => *expr = column("window_end"),
                "_rowtime" | "_time" => *expr = column("window_time"),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}
