//! CREATE, DROP, ALTER, TRUNCATE, COMMENT ON.

use std::collections::BTreeMap;

use sqlparser::ast::{self, ColumnOption, TableConstraint};
use sqlparser::tokenizer::Token;

use super::reader::{Reader, fold, word};
use crate::{
    Alter, AlterAction, CreateSink, CreateStreamingTable, CreateStreamingView, CreateTable, CreateView, Drop, EmitClause, Error,
    Include, Name, RelationKind, Result, Statement, interval,
};

/// CREATE …
pub(super) fn create(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["CREATE"])?;
    let or_replace = reader.take(&["OR", "REPLACE"]);
    let position = reader.position();
    let refuse_replace = |what: &str| {
        if or_replace {
            return Err(Error::new("42601", format!("OR REPLACE is not possible for a {what}"))
                .hint("Drop it first, or use IF NOT EXISTS.")
                .at(position));
        }
        Ok(())
    };
    if reader.take(&["STREAMING", "TABLE"]) || reader.take(&["SOURCE"]) {
        refuse_replace("streaming table")?;
        return streaming_table(reader).map(Statement::CreateStreamingTable);
    }
    if reader.take(&["STREAMING", "VIEW"]) || reader.take(&["MATERIALIZED", "VIEW"]) {
        return streaming_view(reader, or_replace).map(Statement::CreateStreamingView);
    }
    if reader.take(&["VIEW"]) {
        return view(reader, or_replace).map(Statement::CreateView);
    }
    if reader.take(&["TABLE"]) {
        refuse_replace("table")?;
        return table(reader).map(Statement::CreateTable);
    }
    if reader.take(&["SINK"]) {
        refuse_replace("sink")?;
        return sink(reader).map(Statement::CreateSink);
    }
    if reader.take(&["SCHEMA"]) {
        refuse_replace("schema")?;
        let if_not_exists = reader.if_not_exists();
        return Ok(Statement::CreateSchema { name: reader.identifier()?, if_not_exists });
    }
    if reader.is(&["TEMP"]) || reader.is(&["TEMPORARY"]) {
        return Err(Error::new("0A000", "temporary tables are not supported")
            .hint("Create an ordinary table and drop it afterwards.")
            .at(position));
    }
    const LATER: &[&str] = &[
        "ALERT",
        "AGGREGATE",
        "CAST",
        "CONNECTION",
        "DATABASE",
        "DOMAIN",
        "EXTENSION",
        "FUNCTION",
        "INDEX",
        "MODEL",
        "POLICY",
        "PROCEDURE",
        "PUBLICATION",
        "ROLE",
        "RULE",
        "SECRET",
        "SEQUENCE",
        "SERVER",
        "SUBSCRIPTION",
        "TRIGGER",
        "TYPE",
        "UNIQUE",
        "UNLOGGED",
        "USER",
    ];
    match word(&reader.peek().token).map(str::to_ascii_uppercase) {
        Some(kind) if LATER.contains(&kind.as_str()) => {
            Err(Error::new("0A000", format!("CREATE {kind} is not supported")).at(position))
        }
        _ => Err(reader.error_here()),
    }
}

/// What stands between the parentheses of a table.
#[derive(Default)]
struct Columns {
    columns: Vec<ast::ColumnDef>,
    own: bool,
    watermark: Option<(String, i64)>,
    primary_key: Vec<String>,
}

fn columns(reader: &mut Reader<'_>, streaming: bool) -> Result<Columns> {
    let mut found = Columns::default();
    reader.expect_token(&Token::LParen)?;
    if reader.take_token(&Token::RParen) {
        return Ok(found);
    }
    loop {
        let position = reader.position();
        if streaming && reader.take_token(&Token::Mul) {
            found.own = true;
        } else if streaming && reader.take(&["WATERMARK", "FOR"]) {
            if found.watermark.is_some() {
                return Err(Error::new("42601", "only one WATERMARK is possible for a table").at(position));
            }
            found.watermark = Some(watermark(reader)?);
        } else if is_constraint(reader) {
            match reader.sql(|parser| parser.parse_optional_table_constraint())? {
                Some(TableConstraint::PrimaryKey(key)) => {
                    if !found.primary_key.is_empty() {
                        return Err(Error::new("42P16", "multiple primary keys for one table are not allowed").at(position));
                    }
                    for column in &key.columns {
                        match &column.column.expr {
                            ast::Expr::Identifier(ident) => found.primary_key.push(fold(ident)),
                            other => {
                                return Err(Error::new("42601", format!("a primary key has columns, not expressions: {other}"))
                                    .at(position));
                            }
                        }
                    }
                }
                _ => {
                    return Err(Error::new("0A000", "only PRIMARY KEY and NOT NULL constraints are supported").at(position));
                }
            }
        } else {
            let column = reader.sql(|parser| parser.parse_column_def())?;
            for option in &column.options {
                match &option.option {
                    ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_) | ColumnOption::Comment(_) => {}
                    ColumnOption::PrimaryKey(_) if found.primary_key.is_empty() => found.primary_key.push(fold(&column.name)),
                    ColumnOption::PrimaryKey(_) => {
                        return Err(Error::new("42P16", "multiple primary keys for one table are not allowed").at(position));
                    }
                    other => {
                        return Err(Error::new("0A000", format!("column constraint {other} is not supported"))
                            .hint("PRIMARY KEY, NOT NULL and DEFAULT are.")
                            .at(position));
                    }
                }
            }
            let name = fold(&column.name);
            if found.columns.iter().any(|other| fold(&other.name) == name) {
                return Err(Error::new("42701", format!("column \"{name}\" specified more than once")).at(position));
            }
            found.columns.push(column);
        }
        if !reader.take_token(&Token::Comma) {
            reader.expect_token(&Token::RParen)?;
            return Ok(found);
        }
    }
}

/// Whether a constraint of the table is next, and not a column that happens to be called `check` or the like.
fn is_constraint(reader: &Reader<'_>) -> bool {
    let called = ["UNIQUE", "CHECK", "EXCLUDE"].iter().any(|word| reader.is(&[word]));
    let parenthesis = matches!(reader.rest().get(1), Some(token) if token.token == Token::LParen);
    reader.is(&["CONSTRAINT"]) || reader.is(&["PRIMARY", "KEY"]) || reader.is(&["FOREIGN", "KEY"]) || called && parenthesis
}

/// `column AS column [- INTERVAL '…']`.
fn watermark(reader: &mut Reader<'_>) -> Result<(String, i64)> {
    let column = reader.identifier()?;
    reader.expect(&["AS"])?;
    let position = reader.position();
    let expr = reader.sql(|parser| parser.parse_expr())?;
    let is_column = |expr: &ast::Expr| matches!(expr, ast::Expr::Identifier(ident) if fold(ident) == column);
    let wrong = || {
        Error::new("42601", "a watermark is the column less an interval")
            .hint(format!("Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."))
            .at(position)
    };
    let delay = match &expr {
        expr if is_column(expr) => 0,
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Minus, right } if is_column(left) => {
            interval::of_expr(right).map_err(|error| error.at(position))?
        }
        _ => return Err(wrong()),
    };
    if delay < 0 { Err(wrong()) } else { Ok((column, delay)) }
}

fn upper(reader: &mut Reader<'_>) -> Result<String> {
    Ok(reader.identifier()?.to_uppercase())
}

fn streaming_table(reader: &mut Reader<'_>) -> Result<CreateStreamingTable> {
    let if_not_exists = reader.if_not_exists();
    let name = reader.name()?;
    let given = reader.peek().token == Token::LParen;
    let position = reader.position();
    let columns = if given { columns(reader, true)? } else { Columns::default() };
    if !columns.primary_key.is_empty() {
        return Err(Error::new("0A000", "a streaming table with a primary key is not supported")
            .hint("A streaming table keeps every record; put a streaming view over it that groups by the key.")
            .at(position));
    }
    let mut create = CreateStreamingTable {
        name,
        if_not_exists,
        own_columns: columns.own || columns.columns.is_empty(),
        columns: columns.columns,
        watermark: columns.watermark,
        include: Vec::new(),
        options: BTreeMap::new(),
        format: None,
        encode: None,
        encode_options: BTreeMap::new(),
    };
    loop {
        if reader.take(&["INCLUDE"]) {
            create.include.push(include(reader)?);
        } else if create.options.is_empty() && reader.take(&["WITH"]) {
            create.options = reader.options()?;
        } else if create.format.is_none() && reader.take(&["FORMAT"]) {
            create.format = Some(upper(reader)?);
        } else if create.encode.is_none() && reader.take(&["ENCODE"]) {
            create.encode = Some(upper(reader)?);
            if reader.peek().token == Token::LParen {
                create.encode_options = reader.options()?;
            }
        } else {
            break;
        }
    }
    // A misspelt clause is a syntax error of its own before anything is missed.
    reader.end()?;
    if create.options.is_empty() {
        return Err(Error::new("42601", "a streaming table needs WITH (connector = '…')")
            .hint("Connectors are jetstream, kafka, files, nexmark and bluesky."));
    }
    Ok(create)
}

fn include(reader: &mut Reader<'_>) -> Result<Include> {
    let position = reader.position();
    let what = reader.identifier()?;
    const KNOWN: &[&str] = &["key", "partition", "offset", "timestamp", "topic", "headers", "header", "path"];
    if !KNOWN.contains(&what.as_str()) {
        return Err(Error::new("42601", format!("INCLUDE knows no \"{what}\""))
            .hint(format!("It knows {}.", KNOWN.join(", ")))
            .at(position));
    }
    let header = if what == "header" { Some(reader.string()?) } else { None };
    let column = if reader.take(&["AS"]) { reader.identifier()? } else { format!("_{what}") };
    Ok(Include { what, header, column })
}

/// The words that end a query that is followed by clauses of ours.
fn end_of_query(reader: &Reader<'_>) -> usize {
    let start = reader.index();
    let rest = reader.rest();
    let is =
        |at: usize, expected: &str| rest.get(at).and_then(|t| word(&t.token)).is_some_and(|w| w.eq_ignore_ascii_case(expected));
    let mut depth = 0usize;
    for (at, token) in rest.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(_) if depth == 0 => {
                let emit = is(at, "EMIT")
                    && (is(at + 1, "EVERY")
                        || is(at + 1, "CHANGES")
                        || is(at + 1, "ON") && (is(at + 2, "WINDOW") || is(at + 2, "UPDATE")));
                let late = is(at, "ALLOW") && is(at + 1, "LATENESS") || is(at, "LATE") && is(at + 1, "INTO");
                if emit || late {
                    return start + at;
                }
            }
            _ => {}
        }
    }
    start + rest.len()
}

/// EMIT, ALLOW LATENESS, LATE INTO.
#[derive(Default)]
struct Emission {
    emit: Option<EmitClause>,
    lateness: Option<i64>,
    late_into: Option<Name>,
}

fn emission(reader: &mut Reader<'_>) -> Result<Emission> {
    let mut found = Emission::default();
    loop {
        if found.emit.is_none() && reader.take(&["EMIT"]) {
            found.emit = Some(if reader.take(&["EVERY"]) {
                EmitClause::Every(positive(reader)?)
            } else if reader.take(&["CHANGES"]) {
                EmitClause::OnUpdate
            } else {
                reader.expect(&["ON"])?;
                if reader.take(&["UPDATE"]) {
                    EmitClause::OnUpdate
                } else {
                    reader.expect(&["WINDOW", "CLOSE"])?;
                    EmitClause::OnWindowClose
                }
            });
        } else if found.lateness.is_none() && reader.take(&["ALLOW"]) {
            reader.expect(&["LATENESS"])?;
            found.lateness = Some(positive(reader)?);
        } else if found.late_into.is_none() && reader.take(&["LATE"]) {
            reader.expect(&["INTO"])?;
            found.late_into = Some(reader.name()?);
        } else {
            return Ok(found);
        }
    }
}

fn positive(reader: &mut Reader<'_>) -> Result<i64> {
    let position = reader.position();
    let length = reader.duration()?;
    if length <= 0 { Err(Error::new("22023", "the interval must be greater than zero").at(position)) } else { Ok(length) }
}

fn streaming_view(reader: &mut Reader<'_>, or_replace: bool) -> Result<CreateStreamingView> {
    let if_not_exists = reader.if_not_exists();
    let name = reader.name()?;
    let options = if reader.take(&["WITH"]) { reader.options()? } else { BTreeMap::new() };
    reader.expect(&["AS"])?;
    let end = end_of_query(reader);
    let mut body = reader.split_off(end);
    let query = body.query()?;
    body.end()?;
    let emission = emission(reader)?;
    Ok(CreateStreamingView {
        name,
        if_not_exists,
        or_replace,
        options,
        query,
        emit: emission.emit,
        allow_lateness_us: emission.lateness,
        late_into: emission.late_into,
    })
}

fn view(reader: &mut Reader<'_>, or_replace: bool) -> Result<CreateView> {
    let name = reader.name()?;
    let columns = if reader.peek().token == Token::LParen { reader.columns()? } else { Vec::new() };
    reader.expect(&["AS"])?;
    Ok(CreateView { name, or_replace, columns, query: reader.query()? })
}

fn table(reader: &mut Reader<'_>) -> Result<CreateTable> {
    let if_not_exists = reader.if_not_exists();
    let name = reader.name()?;
    let columns = if reader.peek().token == Token::LParen { columns(reader, false)? } else { Columns::default() };
    let options = if reader.take(&["WITH"]) { reader.options()? } else { BTreeMap::new() };
    let query = if reader.take(&["AS"]) { Some(reader.query()?) } else { None };
    if query.is_some() && !columns.columns.is_empty() {
        return Err(Error::new("0A000", "CREATE TABLE AS takes its columns from the query")
            .hint("Leave the column list out, and name the columns in the query."));
    }
    Ok(CreateTable { name, if_not_exists, columns: columns.columns, primary_key: columns.primary_key, options, query })
}

fn sink(reader: &mut Reader<'_>) -> Result<CreateSink> {
    let if_not_exists = reader.if_not_exists();
    let name = reader.name()?;
    let query = if reader.take(&["FROM"]) {
        if reader.peek().token == Token::LParen {
            reader.query()?
        } else {
            let relation = reader.name()?;
            let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
            let from = relation.schema.iter().chain([&relation.name]).map(|part| quoted(part)).collect::<Vec<_>>().join(".");
            match super::parse_one(&format!("SELECT * FROM {from}"))?.statement {
                Statement::Query(query) => query,
                _ => return Err(reader.error_here()),
            }
        }
    } else {
        reader.expect(&["AS"])?;
        // WITH ends the query: a WITH of the query itself stands at its front.
        let end = end_of_sink_query(reader);
        let mut body = reader.split_off(end);
        let query = body.query()?;
        body.end()?;
        query
    };
    let mut sink = CreateSink { name, if_not_exists, query, options: BTreeMap::new(), format: None, encode: None, emit: None };
    loop {
        if sink.options.is_empty() && reader.take(&["WITH"]) {
            sink.options = reader.options()?;
        } else if sink.format.is_none() && reader.take(&["FORMAT"]) {
            sink.format = Some(upper(reader)?);
        } else if sink.encode.is_none() && reader.take(&["ENCODE"]) {
            sink.encode = Some(upper(reader)?);
        } else if sink.emit.is_none() && reader.is(&["EMIT"]) {
            sink.emit = emission(reader)?.emit;
        } else {
            break;
        }
    }
    reader.end()?;
    if sink.options.is_empty() {
        return Err(Error::new("42601", "a sink needs WITH (connector = '…')"));
    }
    Ok(sink)
}

fn end_of_sink_query(reader: &Reader<'_>) -> usize {
    let start = reader.index();
    let mut depth = 0usize;
    let end = end_of_query(reader);
    for (at, token) in reader.rest().iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(_) if depth == 0 && at > 0 && word(&token.token).is_some_and(|w| w.eq_ignore_ascii_case("WITH")) => {
                return end.min(start + at);
            }
            _ => {}
        }
    }
    end
}

/// TABLE, STREAMING TABLE, …
fn kind(reader: &mut Reader<'_>) -> Result<RelationKind> {
    for (words, kind) in [
        (&["STREAMING", "TABLE"][..], RelationKind::StreamingTable),
        (&["SOURCE"][..], RelationKind::StreamingTable),
        (&["STREAMING", "VIEW"][..], RelationKind::StreamingView),
        (&["MATERIALIZED", "VIEW"][..], RelationKind::StreamingView),
        (&["TABLE"][..], RelationKind::Table),
        (&["VIEW"][..], RelationKind::View),
        (&["SINK"][..], RelationKind::Sink),
        (&["SCHEMA"][..], RelationKind::Schema),
    ] {
        if reader.take(words) {
            return Ok(kind);
        }
    }
    Err(reader.error_here())
}

/// DROP kind [IF EXISTS] names [CASCADE | RESTRICT].
pub(super) fn drop(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["DROP"])?;
    let kind = kind(reader)?;
    let if_exists = reader.take(&["IF", "EXISTS"]);
    let names = reader.names()?;
    let cascade = reader.take(&["CASCADE"]);
    if !cascade {
        reader.take(&["RESTRICT"]);
    }
    Ok(Statement::Drop(Drop { kind, names, if_exists, cascade }))
}

/// ALTER kind name RENAME TO / PAUSE / RESUME / SET (…), ALTER SYSTEM.
pub(super) fn alter(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["ALTER"])?;
    if reader.take(&["SYSTEM"]) {
        if reader.take(&["RESET"]) {
            return Ok(Statement::AlterSystem { name: super::session::setting_name(reader)?, value: None });
        }
        reader.expect(&["SET"])?;
        let name = super::session::setting_name(reader)?;
        return Ok(Statement::AlterSystem { name, value: super::session::setting_value(reader)? });
    }
    let kind = kind(reader)?;
    let name = reader.name()?;
    let position = reader.position();
    let action = if reader.take(&["RENAME", "TO"]) {
        AlterAction::Rename(reader.identifier()?)
    } else if reader.take(&["PAUSE"]) {
        AlterAction::Pause
    } else if reader.take(&["RESUME"]) {
        AlterAction::Resume
    } else if reader.take(&["SET"]) {
        AlterAction::Set(reader.options()?)
    } else if ["ADD", "DROP", "ALTER", "RENAME", "OWNER"].iter().any(|w| reader.is(&[w])) {
        return Err(Error::new("0A000", "this ALTER is not supported")
            .hint("RENAME TO, PAUSE, RESUME and SET (…) are.")
            .at(position));
    } else {
        return Err(reader.error_here());
    };
    Ok(Statement::Alter(Alter { kind, name, action }))
}

/// TRUNCATE [TABLE] names.
pub(super) fn truncate(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["TRUNCATE"])?;
    reader.take(&["TABLE"]);
    let names = reader.names()?;
    Ok(Statement::Truncate(names))
}

/// COMMENT ON kind name IS 'text' | NULL.
pub(super) fn comment(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["COMMENT", "ON"])?;
    if reader.is(&["COLUMN"]) {
        return Err(Error::new("0A000", "comments on columns are not supported").at(reader.position()));
    }
    kind(reader)?;
    let name = reader.name()?;
    reader.expect(&["IS"])?;
    let comment = if reader.take(&["NULL"]) { None } else { Some(reader.string()?) };
    Ok(Statement::Comment { name, comment })
}
