//! Reads one statement's tokens: by word, or through sqlparser.

use std::collections::BTreeMap;

use sqlparser::ast::{self, Ident};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::FreshetDialect;
use crate::{Error, Name, Result, interval};

/// How deep sqlparser may recurse; expressions count about twice.
const RECURSION: usize = 500;

/// Keywords that a misspelt word may have been meant as.
const KEYWORDS: &[&str] = &[
    "ALLOW",
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "BETWEEN",
    "CASCADE",
    "CLOSE",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "CURSOR",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DESCRIBE",
    "DISCARD",
    "DISTINCT",
    "DROP",
    "EMIT",
    "ENCODE",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "FETCH",
    "FLUSH",
    "FORMAT",
    "FROM",
    "GROUP",
    "HAVING",
    "INCLUDE",
    "INSERT",
    "INTERVAL",
    "INTO",
    "JOIN",
    "LATENESS",
    "LIMIT",
    "LISTEN",
    "MATERIALIZED",
    "OFFSET",
    "ORDER",
    "PARTITION",
    "PREPARE",
    "PRIMARY",
    "RELEASE",
    "REPLACE",
    "RESET",
    "RESUME",
    "ROLLBACK",
    "SAVEPOINT",
    "SCHEMA",
    "SELECT",
    "SHOW",
    "SINK",
    "SOURCE",
    "START",
    "STREAMING",
    "TABLE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "VALUES",
    "VIEW",
    "WATERMARK",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// A word that is not quoted.
pub(super) fn word(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(&word.value),
        _ => None,
    }
}

/// An identifier as Postgres folds it.
pub(crate) fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// `syntax error at or near "…"` for the token at that index; at the end of input when there is none.
pub(super) fn syntax_error(tokens: &[TokenWithSpan], at: Option<usize>) -> Error {
    let Some((at, token)) = at.and_then(|at| Some((at, tokens.get(at)?))) else {
        let error = Error::new("42601", "syntax error at end of input");
        return match tokens.last() {
            Some(last) => error.at(last.span.end.column as usize),
            None => error,
        };
    };
    let error = Error::new("42601", format!("syntax error at or near \"{}\"", token.token)).at(token.span.start.column as usize);
    // The word that is not understood is often the one before: `GROUP BY` after `FORM t`.
    let misspelt =
        [Some(at), at.checked_sub(1)].into_iter().flatten().filter_map(|at| word(&tokens.get(at)?.token)).find_map(|word| {
            let upper = word.to_ascii_uppercase();
            (upper.len() > 3 && !KEYWORDS.contains(&upper.as_str())).then(|| nearest(&upper, KEYWORDS.iter().copied())).flatten()
        });
    match misspelt {
        Some(keyword) => error.hint(format!("Perhaps you meant {keyword}.")),
        None => error,
    }
}

/// The word that another is most likely a misspelling of.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = if word.chars().count() > 5 { 2 } else { 1 };
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// Tokens of one statement, read front to back.
pub(super) struct Reader<'t> {
    text: &'t str,
    tokens: Vec<TokenWithSpan>,
    parser: Parser<'static>,
}

impl<'t> Reader<'t> {
    /// Reads `tokens`, whose places are positions in `text`.
    pub(super) fn new(text: &'t str, tokens: Vec<TokenWithSpan>) -> Self {
        let parser = Parser::new(&FreshetDialect).with_recursion_limit(RECURSION).with_tokens_with_locations(tokens.clone());
        Reader { text, tokens, parser }
    }

    /// A reader of the tokens from here to `end` (an index into all tokens), which this one then skips.
    pub(super) fn split_off(&mut self, end: usize) -> Reader<'t> {
        let start = self.parser.index().min(end);
        let part = Reader::new(self.text, self.tokens[start..end].to_vec());
        while self.parser.index() < end {
            self.next();
        }
        part
    }

    /// Index of the next token.
    pub(super) fn index(&self) -> usize {
        self.parser.index()
    }

    /// The tokens not yet read.
    pub(super) fn rest(&self) -> &[TokenWithSpan] {
        &self.tokens[self.parser.index().min(self.tokens.len())..]
    }

    /// The text not yet read and where it begins, in characters.
    pub(super) fn rest_of_text(&self) -> (&'t str, usize) {
        let start = match self.rest().first() {
            Some(token) => token.span.start.column as usize - 1,
            None => self.text.chars().count(),
        };
        (super::chars(self.text, start, usize::MAX), start)
    }

    /// The next token, not taken.
    pub(super) fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    /// The next token, taken.
    pub(super) fn next(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    /// Whether the next words are these.
    pub(super) fn is(&self, words: &[&str]) -> bool {
        let rest = self.rest();
        rest.len() >= words.len()
            && words
                .iter()
                .zip(rest)
                .all(|(expected, token)| word(&token.token).is_some_and(|w| w.eq_ignore_ascii_case(expected)))
    }

    /// Takes these words if they are next.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let there = self.is(words);
        if there {
            words.iter().for_each(|_| {
                self.next();
            });
        }
        there
    }

    /// Takes this token if it is next.
    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let there = self.peek().token == *token;
        if there {
            self.next();
        }
        there
    }

    /// Takes these words or fails.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for expected in words {
            if !self.take(&[expected]) {
                let error = self.error_here().detail(format!("expected {}", words.join(" ")));
                let close = word(&self.peek().token).and_then(|found| nearest(&found.to_ascii_uppercase(), [*expected]));
                return Err(if close.is_some() { error.hint(format!("Perhaps you meant {expected}.")) } else { error });
            }
        }
        Ok(())
    }

    /// Takes this token or fails.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.take_token(token) { Ok(()) } else { Err(self.error_here().detail(format!("expected \"{token}\""))) }
    }

    /// Fails unless everything is read.
    pub(super) fn end(&self) -> Result<()> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.error_here()) }
    }

    /// A syntax error at the next token.
    pub(super) fn error_here(&self) -> Error {
        syntax_error(&self.tokens, Some(self.parser.index()).filter(|at| *at < self.tokens.len()))
    }

    /// Position of the next token.
    pub(super) fn position(&self) -> usize {
        self.rest().first().map_or(self.text.chars().count() + 1, |token| token.span.start.column as usize)
    }

    /// Lets sqlparser read on.
    pub(super) fn sql<T>(&mut self, read: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>) -> Result<T> {
        read(&mut self.parser).map_err(|error| super::from_sqlparser(error, &self.tokens, self.parser.index()))
    }

    /// A query.
    pub(super) fn query(&mut self) -> Result<Box<ast::Query>> {
        self.sql(|parser| parser.parse_query())
    }

    /// An identifier, folded.
    pub(super) fn identifier(&mut self) -> Result<String> {
        match &self.peek().token {
            Token::Word(_) => Ok(fold(&self.sql(|parser| parser.parse_identifier())?)),
            _ => Err(self.error_here()),
        }
    }

    /// `[schema.]name`; a database in front is accepted when it is the third part.
    pub(super) fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.identifier()?];
        while self.take_token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        match parts.as_slice() {
            [name] => Ok(Name { schema: None, name: name.clone() }),
            [schema, name] => Ok(Name { schema: Some(schema.clone()), name: name.clone() }),
            _ => Err(Error::new("0A000", format!("cross-database references are not implemented: \"{}\"", parts.join(".")))),
        }
    }

    /// Names parted by commas.
    pub(super) fn names(&mut self) -> Result<Vec<Name>> {
        let mut names = vec![self.name()?];
        while self.take_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// `(a, b)`.
    pub(super) fn columns(&mut self) -> Result<Vec<String>> {
        self.expect_token(&Token::LParen)?;
        let mut columns = vec![self.identifier()?];
        while self.take_token(&Token::Comma) {
            columns.push(self.identifier()?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(columns)
    }

    /// A text in quotes of any kind, if one is next.
    pub(super) fn string_if(&mut self) -> Option<String> {
        let text = match &self.peek().token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) | Token::UnicodeStringLiteral(text) => {
                text.clone()
            }
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return None,
        };
        self.next();
        Some(text)
    }

    /// A text in quotes.
    pub(super) fn string(&mut self) -> Result<String> {
        self.string_if().ok_or_else(|| self.error_here())
    }

    /// A value of an option or a setting: text, number with sign, or word.
    pub(super) fn value(&mut self) -> Result<String> {
        if let Some(text) = self.string_if() {
            return Ok(text);
        }
        let sign = if self.take_token(&Token::Minus) {
            "-"
        } else {
            self.take_token(&Token::Plus);
            ""
        };
        match &self.peek().token {
            Token::Number(number, _) => {
                let number = format!("{sign}{number}");
                self.next();
                Ok(number)
            }
            Token::Word(_) if sign.is_empty() => self.identifier(),
            _ => Err(self.error_here()),
        }
    }

    /// `(key = value, …)`; keys may have dots; lower-case keys.
    pub(super) fn options(&mut self) -> Result<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        self.expect_token(&Token::LParen)?;
        while !self.take_token(&Token::RParen) {
            let position = self.position();
            let mut key = match self.string_if() {
                Some(key) => key,
                None => self.identifier()?,
            };
            while self.take_token(&Token::Period) {
                key.push('.');
                key.push_str(&self.identifier()?);
            }
            self.expect_token(&Token::Eq)?;
            let value = self.value()?;
            let key = key.to_lowercase();
            if options.insert(key.clone(), value).is_some() {
                return Err(Error::new("42601", format!("option \"{key}\" is given more than once")).at(position));
            }
            if !self.take_token(&Token::Comma) {
                self.expect_token(&Token::RParen)?;
                break;
            }
        }
        Ok(options)
    }

    /// `INTERVAL '…' [unit]` or just the text, microseconds.
    pub(super) fn duration(&mut self) -> Result<i64> {
        let position = self.position();
        let expr = self.sql(|parser| parser.parse_expr())?;
        interval::of_expr(&expr).map_err(|error| error.at(position))
    }

    /// `IF NOT EXISTS`.
    pub(super) fn if_not_exists(&mut self) -> bool {
        self.take(&["IF", "NOT", "EXISTS"])
    }
}
