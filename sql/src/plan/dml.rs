//! INSERT, UPDATE and DELETE as queries for the rows that they add, change and remove.

use std::sync::Arc;

use arrow::datatypes::Fields;
use catalog::Definition;
use datafusion::logical_expr::expr::{Cast, Placeholder};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use sqlparser::ast::{
    self, AssignmentTarget, FromTable, Ident, ObjectName, SelectItem, SetExpr, TableFactor, TableObject, TableWithJoins,
};

use super::provider::Names;
use super::{output, rewrite, types};
use crate::parser::fold;
use crate::{Error, Name, Result, Statement, translate};

/// A name in a statement of sqlparser's.
pub(crate) fn name(name: &ObjectName) -> Result<Name> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(fold)).collect();
    match parts.as_slice() {
        [name] => Ok(Name { schema: None, name: name.clone() }),
        [schema, name] => Ok(Name { schema: Some(schema.clone()), name: name.clone() }),
        _ => Err(Error::new("0A000", format!("cross-database references are not implemented: \"{}\"", parts.join(".")))),
    }
}

fn refuse(there: bool, what: &str) -> Result<()> {
    if there { Err(Error::new("0A000", format!("{what} is not supported"))) } else { Ok(()) }
}

/// The rows that an INSERT adds, in the table's columns.
pub(crate) fn insert(names: &Names<'_>, insert: &ast::Insert) -> Result<(Arc<Definition>, LogicalPlan)> {
    refuse(insert.returning.is_some(), "RETURNING")?;
    if insert.on.is_some() {
        return Err(Error::new("0A000", "ON CONFLICT is not supported")
            .hint("Inserting a row whose primary key is there already fails; UPDATE or DELETE it first."));
    }
    let TableObject::TableName(target) = &insert.table else {
        return Err(Error::new("42601", "INSERT needs the name of a table"));
    };
    let definition = names.target(&name(target)?)?;
    names.set_target(&definition)?;
    let mut insert = insert.clone();
    insert.table = TableObject::TableName(ObjectName::from(vec![Ident::with_quote('"', Names::TARGET)]));
    insert.table_alias = None;
    let width = if insert.columns.is_empty() { definition.schema.fields().len() } else { insert.columns.len() };
    for column in &insert.columns {
        let column = column.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
        if definition.schema.column_with_name(&column).is_none() {
            return Err(Error::new(
                "42703",
                format!("column \"{column}\" of relation \"{}\" does not exist", definition.name.name),
            ));
        }
    }
    let Some(source) = insert.source.as_mut() else {
        return Err(Error::new("0A000", "DEFAULT VALUES is not supported").hint("Write VALUES (DEFAULT, …)."));
    };
    if let SetExpr::Values(values) = source.body.as_mut() {
        let columns: Vec<String> = match insert.columns.as_slice() {
            [] => definition.schema.fields().iter().map(|field| field.name().clone()).collect(),
            columns => columns.iter().filter_map(|column| column.0.last()?.as_ident().map(fold)).collect(),
        };
        let defaults = defaults(&definition)?;
        for row in &mut values.rows {
            let row = &mut row.content;
            if row.len() != width && !(insert.columns.is_empty() && row.len() < width) {
                let what = if row.len() > width {
                    "more expressions than target columns"
                } else {
                    "more target columns than expressions"
                };
                return Err(Error::new("42601", format!("INSERT has {what}")));
            }
            for (value, column) in row.iter_mut().zip(&columns) {
                if matches!(value, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
                {
                    let default = defaults.iter().find(|(name, _)| name == column).map(|(_, default)| default.clone());
                    *value = default.unwrap_or_else(|| ast::Expr::value(ast::Value::Null));
                }
            }
        }
        // As in Postgres, columns at the end may be left out.
        let shortest = values.rows.iter().map(|row| row.content.len()).min().unwrap_or(width);
        if insert.columns.is_empty() && shortest < width {
            if values.rows.iter().any(|row| row.content.len() != shortest) {
                return Err(Error::new("42601", "VALUES lists must all be the same length"));
            }
            insert.columns =
                columns[..shortest].iter().map(|column| ObjectName::from(vec![Ident::with_quote('"', column)])).collect();
        }
    }
    rewrite::apply(source.as_mut())?;
    let plan = names.planner().sql_statement_to_plan(ast::Statement::Insert(insert)).map_err(translate)?;
    match plan {
        LogicalPlan::Dml(dml) => Ok((definition, output::analyze(names.state, Arc::unwrap_or_clone(dml.input))?)),
        other => Err(Error::new("XX000", format!("INSERT was planned as {}", other.display()))),
    }
}

fn defaults(definition: &Definition) -> Result<Vec<(String, ast::Expr)>> {
    let Statement::CreateTable(create) = crate::parser::parse_one(&definition.sql)?.statement else { return Ok(Vec::new()) };
    let default = |column: &ast::ColumnDef| {
        column.options.iter().find_map(|option| match &option.option {
            ast::ColumnOption::Default(default) => Some((fold(&column.name), default.clone())),
            _ => None,
        })
    };
    Ok(create.columns.iter().filter_map(default).collect())
}

/// A query over the table as the statement names it: `SELECT columns FROM from WHERE selection`.
fn select(columns: Vec<ast::Expr>, from: Vec<TableWithJoins>, selection: Option<ast::Expr>) -> Result<ast::Query> {
    let Statement::Query(query) = crate::parser::parse_one("SELECT 1")?.statement else {
        return Err(Error::new("XX000", "SELECT 1 is no query"));
    };
    let mut query = *query;
    if let SetExpr::Select(select) = query.body.as_mut() {
        // Names are ours alone, so that they meet no other.
        let named =
            |(at, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("{}{at}", rewrite::COPY)) };
        select.projection = columns.into_iter().enumerate().map(named).collect();
        select.from = from;
        select.selection = selection;
    }
    Ok(query)
}

/// The table of an UPDATE or DELETE, and the name that its columns go by.
fn changed(names: &Names<'_>, from: &TableWithJoins) -> Result<(Arc<Definition>, Ident)> {
    let TableFactor::Table { name: table, alias, args: None, .. } = &from.relation else {
        return Err(Error::new("42601", "the target must be a table"));
    };
    refuse(!from.joins.is_empty(), "a join as the target")?;
    let definition = names.target(&name(table)?)?;
    let own = table.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(&definition.name.name));
    Ok((definition, alias.as_ref().map_or(own, |alias| alias.name.clone())))
}

fn column(table: &Ident, column: &str) -> ast::Expr {
    ast::Expr::CompoundIdentifier(vec![table.clone(), Ident::with_quote('"', column)])
}

/// Old rows and for UPDATE the new ones after them.
pub(crate) fn modify(names: &Names<'_>, statement: &Statement) -> Result<(Arc<Definition>, LogicalPlan)> {
    let (definition, query) = match statement {
        Statement::Delete(delete) => {
            refuse(delete.returning.is_some(), "RETURNING")?;
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            let [target] = from.as_slice() else { return Err(Error::new("42601", "DELETE needs one table")) };
            let (definition, table) = changed(names, target)?;
            let columns = definition.schema.fields().iter().map(|field| column(&table, field.name())).collect();
            let from = from.iter().chain(delete.using.iter().flatten()).cloned().collect();
            let query = select(columns, from, delete.selection.clone())?;
            (definition, query)
        }
        Statement::Update(update) => {
            let ast::Statement::Update(update) = update.as_ref() else { return Err(Error::new("XX000", "no UPDATE")) };
            refuse(update.returning.is_some(), "RETURNING")?;
            let (definition, table) = changed(names, &update.table)?;
            let fields = definition.schema.fields();
            let mut columns: Vec<ast::Expr> = fields.iter().map(|field| column(&table, field.name())).collect();
            columns.extend_from_within(..);
            let mut set = vec![false; fields.len()];
            for assignment in &update.assignments {
                let AssignmentTarget::ColumnName(target) = &assignment.target else {
                    return Err(
                        Error::new("0A000", "assigning several columns at once is not supported").hint("Write SET a = …, b = ….")
                    );
                };
                let target = target.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
                let Some((at, _)) = definition.schema.column_with_name(&target) else {
                    return Err(Error::new(
                        "42703",
                        format!("column \"{target}\" of relation \"{}\" does not exist", definition.name.name),
                    ));
                };
                if std::mem::replace(&mut set[at], true) {
                    return Err(Error::new("42601", format!("multiple assignments to same column \"{target}\"")));
                }
                columns[fields.len() + at] = match &assignment.value {
                    ast::Expr::Identifier(ident)
                        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default") =>
                    {
                        defaults(&definition)?
                            .into_iter()
                            .find(|(name, _)| *name == target)
                            .map_or_else(|| ast::Expr::value(ast::Value::Null), |(_, default)| default)
                    }
                    value => value.clone(),
                };
            }
            let others = match &update.from {
                Some(ast::UpdateTableFromKind::BeforeSet(from) | ast::UpdateTableFromKind::AfterSet(from)) => from.clone(),
                None => Vec::new(),
            };
            let from = std::iter::once(update.table.clone()).chain(others).collect();
            let query = select(columns, from, update.selection.clone())?;
            (definition, query)
        }
        _ => return Err(Error::new("XX000", "neither UPDATE nor DELETE")),
    };
    let fields = definition.schema.fields();
    let plan = typed_parameters(names.plan(&query)?, fields)?;
    let schema = Arc::clone(plan.schema());
    let exprs = schema
        .iter()
        .enumerate()
        .map(|(at, (qualifier, field))| {
            let target = &fields[at % fields.len()];
            let column = Expr::from((qualifier, field));
            let name = if at < fields.len() { target.name().clone() } else { format!("new.{}", target.name()) };
            let assigned = if field.data_type() == target.data_type() {
                column
            } else if castable(field.data_type(), target.data_type()) {
                Expr::Cast(Cast::new_from_field(Box::new(column), Arc::clone(target)))
            } else {
                return Err(Error::new(
                    "42804",
                    format!(
                        "column \"{}\" is of type {} but expression is of type {}",
                        target.name(),
                        types::name(target),
                        types::name(field)
                    ),
                )
                .hint("You will need to rewrite or cast the expression."));
            };
            Ok(assigned.alias(name))
        })
        .collect::<Result<Vec<_>>>()?;
    let plan = output::project(plan, exprs)?;
    Ok((definition, output::analyze(names.state, plan)?))
}

/// A parameter that is assigned as it is has the column's type.
fn typed_parameters(plan: LogicalPlan, columns: &Fields) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(mut projection) = plan else { return Ok(plan) };
    for (at, expr) in projection.expr.iter_mut().enumerate() {
        if let Expr::Alias(alias) = expr
            && let Expr::Placeholder(Placeholder { field: field @ None, .. }) = alias.expr.as_mut()
        {
            *field = Some(Arc::new(columns[at % columns.len()].as_ref().clone().with_nullable(true)));
        }
    }
    Projection::try_new(projection.expr, projection.input).map(LogicalPlan::Projection).map_err(translate)
}

fn castable(from: &arrow::datatypes::DataType, to: &arrow::datatypes::DataType) -> bool {
    arrow::compute::can_cast_types(from, to)
}
