//! Statements about the session: settings, transactions, cursors, COPY, EXPLAIN.

use std::collections::BTreeMap;

use sqlparser::tokenizer::Token;

use super::reader::{Reader, word};
use crate::{Copy, CopyDirection, CopyTarget, Error, Parsed, Result, Statement};

/// Statements that are known by their first word; `None` for a word that begins none.
pub(super) fn statement(reader: &mut Reader<'_>, first: &str) -> Result<Option<Statement>> {
    let statement = match first {
        "COPY" => copy(reader)?,
        "SHOW" => show(reader)?,
        "SET" => set(reader)?,
        "RESET" => {
            reader.next();
            Statement::Reset(if reader.take(&["ALL"]) { None } else { Some(setting_name(reader)?) })
        }
        "BEGIN" | "START" => {
            reader.next();
            if first == "START" {
                reader.expect(&["TRANSACTION"])?;
            }
            skip_words(
                reader,
                &[
                    "WORK",
                    "TRANSACTION",
                    "ISOLATION",
                    "LEVEL",
                    "SERIALIZABLE",
                    "REPEATABLE",
                    "READ",
                    "COMMITTED",
                    "UNCOMMITTED",
                    "ONLY",
                    "WRITE",
                    "NOT",
                    "DEFERRABLE",
                ],
            );
            Statement::Begin
        }
        "COMMIT" | "END" => {
            reader.next();
            end_of_transaction(reader);
            Statement::Commit
        }
        "ROLLBACK" | "ABORT" => {
            reader.next();
            end_of_transaction(reader);
            if reader.take(&["TO"]) {
                reader.take(&["SAVEPOINT"]);
                reader.identifier()?;
                Statement::Savepoint("ROLLBACK")
            } else {
                Statement::Rollback
            }
        }
        "SAVEPOINT" => {
            reader.next();
            reader.identifier()?;
            Statement::Savepoint("SAVEPOINT")
        }
        "RELEASE" => {
            reader.next();
            reader.take(&["SAVEPOINT"]);
            reader.identifier()?;
            Statement::Savepoint("RELEASE")
        }
        "EXECUTE" => {
            reader.next();
            let name = reader.identifier()?;
            let mut args = Vec::new();
            if reader.take_token(&Token::LParen) && !reader.take_token(&Token::RParen) {
                args = reader.sql(|parser| parser.parse_comma_separated(|parser| parser.parse_expr()))?;
                reader.expect_token(&Token::RParen)?;
            }
            Statement::Execute { name, args }
        }
        "DEALLOCATE" => {
            reader.next();
            reader.take(&["PREPARE"]);
            Statement::Deallocate(if reader.take(&["ALL"]) { None } else { Some(reader.identifier()?) })
        }
        "FETCH" => fetch(reader)?,
        "CLOSE" => {
            reader.next();
            Statement::Close(if reader.take(&["ALL"]) { None } else { Some(reader.identifier()?) })
        }
        "DISCARD" => {
            reader.next();
            if !["ALL", "PLANS", "SEQUENCES", "TEMP", "TEMPORARY"].iter().any(|what| reader.take(&[what])) {
                return Err(reader.error_here());
            }
            Statement::Discard
        }
        "LISTEN" | "UNLISTEN" => {
            reader.next();
            if !reader.take_token(&Token::Mul) {
                reader.identifier()?;
            }
            Statement::NoOp(if first == "LISTEN" { "LISTEN" } else { "UNLISTEN" })
        }
        "NOTIFY" => {
            reader.next();
            reader.identifier()?;
            if reader.take_token(&Token::Comma) {
                reader.string()?;
            }
            Statement::NoOp("NOTIFY")
        }
        "VACUUM" => skip_all(reader, "VACUUM"),
        "ANALYZE" => skip_all(reader, "ANALYZE"),
        "CHECKPOINT" => skip_all(reader, "CHECKPOINT"),
        "LOCK" => skip_all(reader, "LOCK TABLE"),
        "SUBSCRIBE" | "MERGE" | "CALL" | "DO" | "GRANT" | "REVOKE" | "REFRESH" | "REINDEX" | "CLUSTER" | "MOVE" | "SECURITY"
        | "REASSIGN" | "IMPORT" | "LOAD" => {
            return Err(Error::new("0A000", format!("{first} is not supported")).at(reader.position()));
        }
        _ => return Ok(None),
    };
    Ok(Some(statement))
}

fn skip_all(reader: &mut Reader<'_>, tag: &'static str) -> Statement {
    while !reader.rest().is_empty() {
        reader.next();
    }
    Statement::NoOp(tag)
}

fn skip_words(reader: &mut Reader<'_>, words: &[&str]) {
    while words.iter().any(|word| reader.take(&[word])) || reader.take_token(&Token::Comma) {}
}

fn end_of_transaction(reader: &mut Reader<'_>) {
    if !reader.take(&["WORK"]) {
        reader.take(&["TRANSACTION"]);
    }
    reader.take(&["AND", "NO", "CHAIN"]);
}

/// A setting's name, lower case; may have a dot.
pub(super) fn setting_name(reader: &mut Reader<'_>) -> Result<String> {
    let mut name = reader.identifier()?;
    while reader.take_token(&Token::Period) {
        name.push('.');
        name.push_str(&reader.identifier()?);
    }
    Ok(name.to_lowercase())
}

/// `{TO | =} value[, …]`; `None` for DEFAULT.
pub(super) fn setting_value(reader: &mut Reader<'_>) -> Result<Option<String>> {
    if !reader.take(&["TO"]) {
        reader.expect_token(&Token::Eq)?;
    }
    if reader.take(&["DEFAULT"]) {
        return Ok(None);
    }
    let mut values = vec![reader.value()?];
    while reader.take_token(&Token::Comma) {
        values.push(reader.value()?);
    }
    Ok(Some(values.join(", ")))
}

fn set(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["SET"])?;
    if reader.is(&["SESSION", "CHARACTERISTICS"])
        || reader.is(&["TRANSACTION"])
        || reader.is(&["CONSTRAINTS"])
        || reader.is(&["ROLE"])
        || reader.is(&["SESSION", "AUTHORIZATION"])
    {
        return Ok(skip_all(reader, "SET"));
    }
    let local = reader.take(&["LOCAL"]);
    if !local {
        reader.take(&["SESSION"]);
    }
    if reader.take(&["TIME", "ZONE"]) {
        let value = if reader.take(&["DEFAULT"]) || reader.take(&["LOCAL"]) { None } else { Some(reader.value()?) };
        return Ok(Statement::Set { local, name: "timezone".to_owned(), value });
    }
    if reader.take(&["NAMES"]) {
        let value = if reader.take(&["DEFAULT"]) { None } else { Some(reader.value()?) };
        return Ok(Statement::Set { local, name: "client_encoding".to_owned(), value });
    }
    let name = setting_name(reader)?;
    Ok(Statement::Set { local, name, value: setting_value(reader)? })
}

fn show(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["SHOW"])?;
    if reader.take(&["TIME", "ZONE"]) {
        return Ok(Statement::Show("timezone".to_owned()));
    }
    if reader.take(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return Ok(Statement::Show("transaction_isolation".to_owned()));
    }
    let mut words = vec![setting_name(reader)?];
    while !reader.rest().is_empty() {
        words.push(reader.identifier()?);
    }
    Ok(Statement::Show(words.join(" ").to_lowercase()))
}

fn fetch(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["FETCH"])?;
    let backward = |reader: &Reader<'_>| Error::new("55000", "cursor can only scan forward").at(reader.position());
    if ["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"].iter().any(|word| reader.is(&[word])) {
        return Err(backward(reader));
    }
    let named = |reader: &Reader<'_>| reader.rest().len() == 1;
    let mut count = Some(1);
    if !named(reader) {
        if !reader.take(&["NEXT"]) {
            reader.take(&["FORWARD"]);
        }
        if reader.take(&["ALL"]) {
            count = None;
        } else if let Token::Number(number, _) = reader.peek().token.clone() {
            count = Some(number.parse().map_err(|_| reader.error_here())?);
            reader.next();
        } else if reader.peek().token == Token::Minus {
            return Err(backward(reader));
        }
        if !reader.take(&["FROM"]) {
            reader.take(&["IN"]);
        }
    }
    Ok(Statement::Fetch { name: reader.identifier()?, count })
}

/// The statement that the rest of the text is.
fn rest(reader: &Reader<'_>, nested: usize, offset: usize) -> Result<Box<Parsed>> {
    let (text, start) = reader.rest_of_text();
    let shifted = |mut error: Error| {
        error.position = error.position.map(|position| position + start);
        error
    };
    let mut statements = super::statements(text, nested + 1).map_err(shifted)?;
    match statements.pop() {
        Some(parsed) if !matches!(parsed.statement, Statement::Empty) => {
            Ok(Box::new(Parsed { offset: parsed.offset + start + offset, ..parsed }))
        }
        _ => Err(reader.error_here()),
    }
}

/// EXPLAIN [ANALYZE] [VERBOSE] statement; EXPLAIN (options) statement.
pub(super) fn explain(reader: &mut Reader<'_>, nested: usize, offset: usize) -> Result<Statement> {
    reader.expect(&["EXPLAIN"])?;
    let (mut analyze, mut verbose) = (false, false);
    let options = reader.peek().token == Token::LParen
        && !matches!(
            reader.rest().get(1).and_then(|t| word(&t.token)).map(str::to_ascii_uppercase).as_deref(),
            Some("SELECT" | "WITH" | "VALUES" | "TABLE") | None
        );
    if options {
        reader.next();
        loop {
            let position = reader.position();
            let name = reader.identifier()?;
            let value = match &reader.peek().token {
                Token::Comma | Token::RParen => "true".to_owned(),
                _ => reader.value()?.to_lowercase(),
            };
            let on = !matches!(value.as_str(), "false" | "off" | "0");
            match name.as_str() {
                "analyze" => analyze = on,
                "verbose" => verbose = on,
                "costs" | "buffers" | "timing" | "summary" | "settings" | "wal" | "generic_plan" | "memory" | "serialize" => {}
                "format" if value == "text" => {}
                "format" => {
                    return Err(Error::new("0A000", format!("EXPLAIN has no format {value}"))
                        .hint("FORMAT TEXT is supported.")
                        .at(position));
                }
                _ => return Err(Error::new("42601", format!("unrecognized EXPLAIN option \"{name}\"")).at(position)),
            }
            if !reader.take_token(&Token::Comma) {
                reader.expect_token(&Token::RParen)?;
                break;
            }
        }
    } else {
        analyze = reader.take(&["ANALYZE"]);
        verbose = reader.take(&["VERBOSE"]);
    }
    let position = reader.position();
    let statement = rest(reader, nested, offset)?;
    match statement.statement {
        Statement::Query(_)
        | Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::CreateStreamingView(_)
        | Statement::CreateSink(_)
        | Statement::Execute { .. } => {}
        _ => return Err(Error::new("0A000", "EXPLAIN is not possible for this statement").at(position)),
    }
    Ok(Statement::Explain { analyze, verbose, statement })
}

/// PREPARE name [(types)] AS statement.
pub(super) fn prepare(reader: &mut Reader<'_>, nested: usize, offset: usize) -> Result<Statement> {
    reader.expect(&["PREPARE"])?;
    let name = reader.identifier()?;
    if reader.take_token(&Token::LParen) {
        reader.sql(|parser| parser.parse_comma_separated(|parser| parser.parse_data_type()))?;
        reader.expect_token(&Token::RParen)?;
    }
    reader.expect(&["AS"])?;
    Ok(Statement::Prepare { name, statement: rest(reader, nested, offset)? })
}

/// DECLARE name [NO SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query.
pub(super) fn declare(reader: &mut Reader<'_>, nested: usize, offset: usize) -> Result<Statement> {
    reader.expect(&["DECLARE"])?;
    let name = reader.identifier()?;
    if reader.is(&["BINARY"]) {
        return Err(Error::new("0A000", "binary cursors are not supported").at(reader.position()));
    }
    while reader.take(&["INSENSITIVE"]) || reader.take(&["ASENSITIVE"]) || reader.take(&["NO", "SCROLL"]) {}
    if reader.is(&["SCROLL"]) {
        return Err(Error::new("0A000", "cursors only scan forward").hint("Use NO SCROLL.").at(reader.position()));
    }
    reader.expect(&["CURSOR"])?;
    let hold = reader.take(&["WITH", "HOLD"]);
    if !hold {
        reader.take(&["WITHOUT", "HOLD"]);
    }
    reader.expect(&["FOR"])?;
    let position = reader.position();
    let query = rest(reader, nested, offset)?;
    if !matches!(query.statement, Statement::Query(_)) {
        return Err(Error::new("42601", "a cursor is for a query").at(position));
    }
    Ok(Statement::Declare { name, hold, query })
}

/// COPY relation [(columns)] | (query) TO STDOUT | FROM STDIN with options in today's or the old spelling.
fn copy(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["COPY"])?;
    let mut options = BTreeMap::new();
    if reader.take(&["BINARY"]) {
        options.insert("format".to_owned(), "binary".to_owned());
    }
    let target = if reader.take_token(&Token::LParen) {
        let query = reader.query()?;
        reader.expect_token(&Token::RParen)?;
        CopyTarget::Query(query)
    } else {
        let name = reader.name()?;
        let columns = if reader.peek().token == Token::LParen { reader.columns()? } else { Vec::new() };
        CopyTarget::Relation(name, columns)
    };
    let direction = if reader.take(&["TO"]) {
        CopyDirection::Out
    } else {
        reader.expect(&["FROM"])?;
        CopyDirection::In
    };
    let position = reader.position();
    if direction == CopyDirection::In && matches!(target, CopyTarget::Query(_)) {
        return Err(Error::new("42601", "COPY of a query only goes TO").at(position));
    }
    let (stream, other) = if direction == CopyDirection::In { ("STDIN", "STDOUT") } else { ("STDOUT", "STDIN") };
    if !reader.take(&[stream]) && !reader.take(&[other]) {
        if reader.string_if().is_some() || reader.is(&["PROGRAM"]) {
            return Err(Error::new("0A000", "COPY to or from a file of the server is not supported")
                .hint("Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.")
                .at(position));
        }
        return Err(reader.error_here());
    }
    reader.take(&["WITH"]);
    if reader.peek().token == Token::LParen {
        copy_options(reader, &mut options)?;
    } else {
        old_copy_options(reader, &mut options)?;
    }
    let format = options.entry("format".to_owned()).or_insert_with(|| "text".to_owned());
    if !matches!(format.as_str(), "text" | "csv" | "binary") {
        return Err(Error::new("22023", format!("COPY format \"{format}\" not recognized")).at(position));
    }
    if reader.is(&["WHERE"]) {
        return Err(Error::new("0A000", "COPY FROM with WHERE is not supported").at(reader.position()));
    }
    Ok(Statement::Copy(Copy { target, direction, options }))
}

const COPY_OPTIONS: &[&str] = &[
    "format",
    "delimiter",
    "null",
    "header",
    "quote",
    "escape",
    "force_quote",
    "force_not_null",
    "force_null",
    "encoding",
    "freeze",
    "default",
    "on_error",
    "log_verbosity",
];

fn copy_options(reader: &mut Reader<'_>, options: &mut BTreeMap<String, String>) -> Result<()> {
    reader.expect_token(&Token::LParen)?;
    loop {
        let position = reader.position();
        let name = reader.identifier()?;
        if !COPY_OPTIONS.contains(&name.as_str()) {
            return Err(Error::new("42601", format!("option \"{name}\" not recognized")).at(position));
        }
        let value = match &reader.peek().token {
            Token::Comma | Token::RParen => "true".to_owned(),
            Token::Mul => {
                reader.next();
                "*".to_owned()
            }
            Token::LParen => reader.columns()?.join(","),
            _ => reader.value()?,
        };
        let value = if matches!(name.as_str(), "format" | "header") { value.to_lowercase() } else { value };
        if options.insert(name.clone(), value).is_some() {
            return Err(Error::new("42601", "conflicting or redundant options").at(position));
        }
        if !reader.take_token(&Token::Comma) {
            return reader.expect_token(&Token::RParen);
        }
    }
}

fn old_copy_options(reader: &mut Reader<'_>, options: &mut BTreeMap<String, String>) -> Result<()> {
    let mut put = |name: &str, value: String| {
        options.insert(name.to_owned(), value);
    };
    while !reader.rest().is_empty() && !reader.is(&["WHERE"]) {
        if reader.take(&["BINARY"]) {
            put("format", "binary".to_owned());
        } else if reader.take(&["CSV"]) {
            put("format", "csv".to_owned());
        } else if reader.take(&["HEADER"]) {
            put("header", "true".to_owned());
        } else if reader.take(&["FORCE", "QUOTE"]) {
            let columns = if reader.take_token(&Token::Mul) {
                "*".to_owned()
            } else {
                let mut columns = vec![reader.identifier()?];
                while reader.take_token(&Token::Comma) {
                    columns.push(reader.identifier()?);
                }
                columns.join(",")
            };
            put("force_quote", columns);
        } else {
            let Some(name) =
                ["DELIMITER", "DELIMITERS", "NULL", "QUOTE", "ESCAPE", "ENCODING"].into_iter().find(|name| reader.take(&[name]))
            else {
                return Err(reader.error_here());
            };
            reader.take(&["AS"]);
            let name = if name == "DELIMITERS" { "delimiter".to_owned() } else { name.to_lowercase() };
            put(&name, reader.string()?);
        }
    }
    Ok(())
}
