//! From text to statements: our own statements by hand, everything inside them by sqlparser.
//!
//! The text is tokenised once, cut at semicolons, and every token's place is rewritten to its character position within its own
//! statement (as column of line 1). So every span in a syntax tree, and every place in an error of sqlparser, is at once the
//! position that a client is told.

mod create;
mod reader;
mod session;
#[cfg(test)]
mod tests;

use sqlparser::ast;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use self::reader::{Reader, syntax_error, word};
pub(crate) use self::reader::{fold, nearest};
use crate::dialect::FreshetDialect;
use crate::{Error, Parsed, Result, Statement};

/// Statements within statements (EXPLAIN, PREPARE, DECLARE).
const MAX_NESTED_STATEMENTS: usize = 4;
/// Parentheses, brackets and CASE within each other.
const MAX_NESTING: usize = 200;
/// Operators in one chain, such as `a OR b OR …`.
const MAX_CHAIN: usize = 5_000;
/// UNION, EXCEPT, INTERSECT and JOIN in one statement.
const MAX_RELATIONS: usize = 500;

/// Parses a text of any number of statements.
///
/// # Errors
/// 42601 with the position in `text`; 54001 when it is nested too deeply.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    statements(text, 0)
}

/// Parses a text that is one statement.
pub(crate) fn parse_one(text: &str) -> Result<Parsed> {
    let mut statements = parse(text)?;
    match statements.pop() {
        Some(statement) if statements.is_empty() => Ok(statement),
        _ => Err(Error::new("42601", "expected one statement")),
    }
}

fn statements(text: &str, nested: usize) -> Result<Vec<Parsed>> {
    if nested > MAX_NESTED_STATEMENTS {
        return Err(too_deep());
    }
    let lines = Lines::of(text);
    let tokens = Tokenizer::new(&FreshetDialect, text).tokenize_with_location().map_err(|error| {
        let message = error.message.to_ascii_lowercase();
        let message = match message.as_str() {
            m if m.contains("string literal") => "unterminated quoted string".to_owned(),
            m if m.contains("comment") => "unterminated /* comment".to_owned(),
            m if m.contains("expected close delimiter") => "unterminated quoted identifier".to_owned(),
            _ => message,
        };
        Error::new("42601", message).at(lines.offset(error.location) + 1)
    })?;
    let mut parsed = Vec::new();
    for tokens in tokens.split(|token| token.token == Token::SemiColon) {
        if let Some(statement) = one(text, &lines, tokens, nested)? {
            parsed.push(statement);
        }
    }
    if parsed.is_empty() {
        parsed.push(Parsed { statement: Statement::Empty, text: String::new(), offset: 0 });
    }
    Ok(parsed)
}

/// One statement's tokens; `None` when there is nothing but space and comments.
fn one(text: &str, lines: &Lines, tokens: &[TokenWithSpan], nested: usize) -> Result<Option<Parsed>> {
    let solid: Vec<&TokenWithSpan> = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let (Some(first), Some(last)) = (solid.first(), solid.last()) else { return Ok(None) };
    let (start, end) = (lines.offset(first.span.start), lines.offset(last.span.end));
    let own = chars(text, start, end);
    let place = |location: Location| Location::new(1, (lines.offset(location) - start) as u64 + 1);
    let tokens: Vec<TokenWithSpan> = solid
        .into_iter()
        .map(|token| TokenWithSpan::new(token.token.clone(), Span::new(place(token.span.start), place(token.span.end))))
        .collect();
    let located = |mut error: Error| {
        error.position = error.position.map(|position| position + start);
        error
    };
    check_depth(&tokens).map_err(located)?;
    let tokens = relations_as_arguments(tokens);
    let mut reader = Reader::new(own, tokens);
    let statement = statement(&mut reader, nested, start).map_err(located)?;
    if !matches!(statement, Statement::Explain { .. } | Statement::Prepare { .. } | Statement::Declare { .. }) {
        reader.end().map_err(located)?;
    }
    Ok(Some(Parsed { statement, text: own.to_owned(), offset: start }))
}

/// What a statement is, by its first words.
fn statement(reader: &mut Reader<'_>, nested: usize, offset: usize) -> Result<Statement> {
    if reader.peek().token == Token::LParen {
        return Ok(Statement::Query(reader.query()?));
    }
    let Some(first) = word(&reader.peek().token).map(str::to_ascii_uppercase) else {
        return Err(reader.error_here());
    };
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "TABLE" => query(reader),
        "INSERT" | "UPDATE" | "DELETE" => change(reader),
        "CREATE" => create::create(reader),
        "DROP" => create::drop(reader),
        "ALTER" => create::alter(reader),
        "TRUNCATE" => create::truncate(reader),
        "COMMENT" => create::comment(reader),
        "DESCRIBE" | "DESC" => {
            reader.next();
            Ok(Statement::Describe(reader.name()?))
        }
        "FLUSH" => {
            reader.next();
            Ok(Statement::Flush)
        }
        "EXPLAIN" => session::explain(reader, nested, offset),
        "PREPARE" => session::prepare(reader, nested, offset),
        "DECLARE" => session::declare(reader, nested, offset),
        _ => match session::statement(reader, &first)? {
            Some(statement) => Ok(statement),
            None => Err(reader.error_here()),
        },
    }
}

fn query(reader: &mut Reader<'_>) -> Result<Statement> {
    let query = reader.query()?;
    if let ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) | ast::SetExpr::Merge(_) =
        query.body.as_ref()
    {
        return Err(Error::new("0A000", "WITH before INSERT, UPDATE or DELETE is not supported")
            .hint("Write the query in a subquery: INSERT INTO t SELECT … FROM (…) AS q."));
    }
    Ok(Statement::Query(query))
}

fn change(reader: &mut Reader<'_>) -> Result<Statement> {
    match reader.sql(|parser| parser.parse_statement())? {
        ast::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
        ast::Statement::Delete(delete) => Ok(Statement::Delete(Box::new(delete))),
        update @ ast::Statement::Update(_) => Ok(Statement::Update(Box::new(update))),
        other => Err(Error::new("0A000", format!("this statement is not supported: {other}"))),
    }
}

fn too_deep() -> Error {
    Error::new("54001", "stack depth limit exceeded").hint("Write the statement with less nesting, or break it into views.")
}

/// Refuses what would need a deep stack to parse, plan or drop.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut chains = vec![0usize];
    let mut relations = 0;
    for token in tokens {
        let too_deep = || too_deep().at(token.span.start.column as usize);
        let open = |chains: &mut Vec<usize>| chains.push(0);
        match &token.token {
            Token::LParen | Token::LBracket => open(&mut chains),
            Token::RParen | Token::RBracket if chains.len() > 1 => {
                chains.pop();
            }
            Token::Comma => {
                if let Some(chain) = chains.last_mut() {
                    *chain = 0;
                }
            }
            Token::Word(w) if w.quote_style.is_none() => match w.value.to_ascii_uppercase().as_str() {
                "CASE" => open(&mut chains),
                "END" if chains.len() > 1 => {
                    chains.pop();
                }
                "AND" | "OR" | "NOT" | "IS" | "COLLATE" | "AT" | "LIKE" | "ILIKE" | "IN" | "BETWEEN" => {
                    if let Some(chain) = chains.last_mut() {
                        *chain += 1;
                    }
                }
                "UNION" | "EXCEPT" | "INTERSECT" | "JOIN" => relations += 1,
                _ => {}
            },
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Word(_) | Token::Placeholder(_) => {}
            _ => {
                if let Some(chain) = chains.last_mut() {
                    *chain += 1;
                }
            }
        }
        if chains.len() > MAX_NESTING || relations > MAX_RELATIONS || chains.last().is_some_and(|chain| *chain > MAX_CHAIN) {
            return Err(too_deep());
        }
    }
    Ok(())
}

/// The name under which `TABLE t PARTITION BY k` stands as an argument: `"partition by"(t, k)`.
pub(crate) const PARTITIONED: &str = "partition by";

/// Brings `TUMBLE(TABLE t PARTITION BY k, …)` into a form that sqlparser reads: `TUMBLE("partition by"(t, k), …)`.
fn relations_as_arguments(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is =
        |at: usize, expected: &str| tokens.get(at).and_then(|t| word(&t.token)).is_some_and(|w| w.eq_ignore_ascii_case(expected));
    let mut out = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let argument = at > 0
            && (matches!(tokens[at - 1].token, Token::RArrow)
                || tokens[at - 1].token == Token::LParen
                    && at > 1
                    && crate::plan::window::KINDS.iter().any(|kind| is(at - 2, kind)));
        if !(argument && is(at, "TABLE")) {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The name, then perhaps PARTITION BY and columns up to the next argument that is no column.
        let mut name = Vec::new();
        at += 1;
        while let Some(token) = tokens.get(at).filter(|t| matches!(t.token, Token::Word(_) | Token::Period)) {
            if is(at, "PARTITION") && is(at + 1, "BY") {
                break;
            }
            name.push(token.clone());
            at += 1;
        }
        if !(is(at, "PARTITION") && is(at + 1, "BY")) {
            out.append(&mut name);
            continue;
        }
        let span = tokens[at].span;
        let token = |token: Token| TokenWithSpan::new(token, span);
        at += 2;
        let parenthesised = tokens.get(at).is_some_and(|t| t.token == Token::LParen);
        if parenthesised {
            at += 1;
        }
        out.push(token(Token::make_word(PARTITIONED, Some('"'))));
        out.push(token(Token::LParen));
        out.append(&mut name);
        // A column is a word followed by a comma or the end; anything else is the next argument.
        while let Some(column) = tokens.get(at).filter(|t| matches!(t.token, Token::Word(_))) {
            out.push(token(Token::Comma));
            out.push(column.clone());
            at += 1;
            let more = matches!(tokens.get(at).map(|t| &t.token), Some(Token::Comma))
                && matches!(tokens.get(at + 1).map(|t| &t.token), Some(Token::Word(_)))
                && matches!(tokens.get(at + 2).map(|t| &t.token), Some(Token::Comma | Token::RParen));
            if !more {
                break;
            }
            at += 1;
        }
        if parenthesised && tokens.get(at).is_some_and(|t| t.token == Token::RParen) {
            at += 1;
        }
        out.push(token(Token::RParen));
    }
    out
}

/// Part of a text by character positions.
fn chars(text: &str, start: usize, end: usize) -> &str {
    let byte = |position: usize| text.char_indices().nth(position).map_or(text.len(), |(byte, _)| byte);
    &text[byte(start)..byte(end)]
}

/// Where lines begin, in characters: turns lines and columns into positions.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        let ends = text.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(at, _)| at + 1);
        Lines(std::iter::once(0).chain(ends).collect())
    }

    /// Characters before the location.
    fn offset(&self, location: Location) -> usize {
        let line = (location.line.max(1) - 1) as usize;
        self.0.get(line).copied().unwrap_or(0) + (location.column.max(1) - 1) as usize
    }
}

/// What sqlparser reports, in Postgres's words.
fn from_sqlparser(error: sqlparser::parser::ParserError, tokens: &[TokenWithSpan], reached: usize) -> Error {
    use sqlparser::parser::ParserError;
    let text = match error {
        ParserError::RecursionLimitExceeded => return too_deep(),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
    };
    let (message, column) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, place.split("Column: ").nth(1).and_then(|c| c.trim().parse::<u64>().ok())),
        None => (text.as_str(), None),
    };
    let at = match column {
        Some(column) => tokens.iter().position(|token| token.span.start.column == column),
        None if message.ends_with("found: EOF") => None,
        None => Some(reached.saturating_sub(1)),
    };
    syntax_error(tokens, at).detail(message)
}
