//! Regular expressions: Postgres's functions and flags over the `regex` crate.
//!
//! Patterns are translated where the two languages differ and common patterns show it (`\y`, `\m`, `\M`, `\A`, `\Z`, flags).
//! Back references and look-around are refused; matches are leftmost and greedy by the first alternative.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, ListBuilder, StringBuilder};
use datafusion::common::Result;
use regex::{CaptureLocations, Regex, RegexBuilder};

use crate::error::Error;
use crate::function::{Args, Column};

/// A compiled pattern may not take more memory than this.
const COMPILED_BYTES: usize = 4 << 20;

/// Compiles a Postgres pattern. `g` is the caller's business.
pub(crate) fn compile(pattern: &str, flags: &str) -> Result<Regex, Error> {
    let mut translated = String::with_capacity(pattern.len() + 8);
    let mut literal = false;
    let (mut ignore_case, mut extended, mut multi_line, mut dot_all) = (false, false, false, true);
    for flag in flags.chars() {
        match flag {
            'i' => ignore_case = true,
            'c' => ignore_case = false,
            'x' => extended = true,
            't' => extended = false,
            // Newline-sensitive: ^ and $ at every line, . and [^x] not over lines.
            'n' | 'm' => (multi_line, dot_all) = (true, false),
            'p' => dot_all = false,
            'w' => multi_line = true,
            's' => (multi_line, dot_all) = (false, true),
            'q' => literal = true,
            'e' | 'g' => {}
            other => return Err(Error::invalid(format!("invalid regular expression option: \"{other}\""))),
        }
    }
    let mut pattern = pattern;
    if let Some(rest) = pattern.strip_prefix("***=") {
        (pattern, literal) = (rest, true);
    } else if let Some(rest) = pattern.strip_prefix("***:") {
        pattern = rest;
    }
    if literal {
        translated.push_str(&regex::escape(pattern));
    } else {
        translate(pattern, &mut translated);
    }
    RegexBuilder::new(&translated)
        .case_insensitive(ignore_case)
        .ignore_whitespace(extended)
        .multi_line(multi_line)
        .dot_matches_new_line(dot_all)
        .size_limit(COMPILED_BYTES)
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::new("2201B", format!("invalid regular expression: {reason}"))
                .with_hint("back references and look-around are not supported")
        })
}

/// Escapes that mean another thing to the `regex` crate.
fn translate(pattern: &str, out: &mut String) {
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('y') => out.push_str(r"\b"),
                Some('Y') => out.push_str(r"\B"),
                Some('m') => out.push_str(r"\b{start}"),
                Some('M') => out.push_str(r"\b{end}"),
                Some('Z') => out.push_str(r"\z"),
                // Any escaped character that is no letter or digit stands for itself.
                Some(other) if !other.is_ascii_alphanumeric() => {
                    if other.is_ascii_punctuation() || other.is_ascii_whitespace() {
                        out.push('\\');
                    }
                    out.push(other);
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if in_class => {
                // [[:alpha:]] goes through as it is; a lone bracket inside a class stands for itself.
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for inner in chars.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str(r"\[");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
                if chars.peek() == Some(&']') {
                    out.push_str(r"\]");
                    chars.next();
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // Class set operations of the crate are plain characters to Postgres.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(char);
            }
            other => out.push(other),
        }
    }
}

/// The compiled pattern of each row, kept while pattern and flags stay the same.
struct Patterns<'a> {
    patterns: Column<'a, arrow::array::StringArray>,
    flags: Option<Column<'a, arrow::array::StringArray>>,
    compiled: Option<Compiled<'a>>,
}

struct Compiled<'a> {
    pattern: &'a str,
    flags: &'a str,
    regex: Regex,
    locations: CaptureLocations,
    global: bool,
}

impl<'a> Patterns<'a> {
    fn new(args: &'a Args, pattern: usize, flags: usize) -> Result<Self> {
        let flags = if flags < args.len() { Some(args.text(flags)?) } else { None };
        Ok(Patterns { patterns: args.text(pattern)?, flags, compiled: None })
    }

    fn get(&mut self, row: usize) -> Result<Option<&mut Compiled<'a>>, Error> {
        let Some(pattern) = self.patterns.get(row) else { return Ok(None) };
        let Some(flags) = self.flags.as_ref().map_or(Some(""), |flags| flags.get(row)) else { return Ok(None) };
        let known = self.compiled.as_ref().is_some_and(|known| known.pattern == pattern && known.flags == flags);
        if !known {
            let regex = compile(pattern, flags)?;
            let locations = regex.capture_locations();
            self.compiled = Some(Compiled { pattern, flags, regex, locations, global: flags.contains('g') });
        }
        Ok(self.compiled.as_mut())
    }
}

fn no_global(compiled: &Compiled, function: &str) -> Result<(), Error> {
    if compiled.global {
        return Err(Error::invalid(format!("{function}() does not support the \"global\" option")));
    }
    Ok(())
}

pub(crate) fn regexp_match(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, 2)?;
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows() {
        let (Some(text), Some(compiled)) = (texts.get(row), patterns.get(row)?) else {
            builder.append_null();
            continue;
        };
        no_global(compiled, "regexp_match")?;
        let groups = compiled.locations.len();
        if compiled.regex.captures_read(&mut compiled.locations, text).is_none() {
            builder.append_null();
            continue;
        }
        // Without groups the whole match is the answer.
        for group in groups.min(2) - 1..groups {
            match compiled.locations.get(group) {
                Some((start, end)) => builder.values().append_value(&text[start..end]),
                None => builder.values().append_null(),
            }
        }
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

/// `(regexp_match(text, pattern[, flags]))[n]` without the array in between.
pub(crate) fn regexp_match_group(args: &Args) -> Result<ArrayRef> {
    let (texts, numbers) = (args.text(0)?, args.int(2)?);
    let mut patterns = Patterns::new(args, 1, 3)?;
    let mut builder = StringBuilder::new();
    for row in 0..args.rows() {
        let (Some(text), Some(number), Some(compiled)) = (texts.get(row), numbers.get(row), patterns.get(row)?) else {
            builder.append_null();
            continue;
        };
        no_global(compiled, "regexp_match")?;
        let group = if compiled.locations.len() == 1 { number - 1 } else { number };
        let wanted = usize::try_from(group).ok().filter(|_| number >= 1);
        let found = wanted.and_then(|group| {
            compiled.regex.captures_read(&mut compiled.locations, text)?;
            compiled.locations.get(group)
        });
        builder.append_option(found.map(|(start, end)| &text[start..end]));
    }
    Ok(Arc::new(builder.finish()))
}

pub(crate) fn regexp_like(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, 2)?;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        result.push(match (texts.get(row), patterns.get(row)?) {
            (Some(text), Some(compiled)) => {
                no_global(compiled, "regexp_like")?;
                Some(compiled.regex.is_match(text))
            }
            _ => None,
        });
    }
    Ok(Arc::new(BooleanArray::from(result)))
}

/// Byte position of the character with this number, counted from one; the end where the text is shorter.
fn byte_of(text: &str, character: i64) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(usize::try_from(character - 1).ok()?)
}

fn start_of(args: &Args, position: usize, row: usize) -> Result<Option<i64>> {
    if position >= args.len() {
        return Ok(Some(1));
    }
    let start = args.int(position)?.get(row);
    if start.is_some_and(|start| start < 1) {
        return Err(Error::invalid(format!("invalid value for parameter \"start\": {}", start.unwrap_or_default())).into());
    }
    Ok(start)
}

pub(crate) fn regexp_count(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, 3)?;
    let mut result = Vec::with_capacity(args.rows());
    for row in 0..args.rows() {
        let start = start_of(args, 2, row)?;
        result.push(match (texts.get(row), patterns.get(row)?, start) {
            (Some(text), Some(compiled), Some(start)) => {
                no_global(compiled, "regexp_count")?;
                Some(byte_of(text, start).map_or(0, |from| compiled.regex.find_iter(&text[from..]).count() as i32))
            }
            _ => None,
        });
    }
    Ok(Arc::new(Int32Array::from(result)))
}

/// `regexp_substr(text, pattern[, start[, n[, flags[, group]]]])`.
pub(crate) fn regexp_substr(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, 4)?;
    let optional = |position: usize, row: usize, default: i64| -> Result<Option<i64>> {
        if position < args.len() { Ok(args.int(position)?.get(row)) } else { Ok(Some(default)) }
    };
    let mut builder = StringBuilder::new();
    for row in 0..args.rows() {
        let (start, nth, group) = (start_of(args, 2, row)?, optional(3, row, 1)?, optional(5, row, 0)?);
        let (Some(text), Some(compiled), Some(start), Some(nth), Some(group)) =
            (texts.get(row), patterns.get(row)?, start, nth, group)
        else {
            builder.append_null();
            continue;
        };
        no_global(compiled, "regexp_substr")?;
        if nth < 1 || group < 0 {
            return Err(
                Error::invalid(format!("invalid value for parameter \"{}\"", if nth < 1 { "n" } else { "subexpr" })).into()
            );
        }
        let found = byte_of(text, start).and_then(|from| {
            let captures = compiled.regex.captures_iter(&text[from..]).nth(nth as usize - 1)?;
            captures.get(group as usize).map(|found| found.as_str())
        });
        builder.append_option(found);
    }
    Ok(Arc::new(builder.finish()))
}

pub(crate) fn regexp_replace(args: &Args) -> Result<ArrayRef> {
    let (texts, replacements) = (args.text(0)?, args.text(2)?);
    let mut patterns = Patterns::new(args, 1, 3)?;
    let mut builder = StringBuilder::with_capacity(args.rows(), args.rows() * 16);
    let mut parsed: Option<(&str, Vec<Piece>)> = None;
    let mut buffer = String::new();
    for row in 0..args.rows() {
        let (Some(text), Some(replacement), Some(compiled)) = (texts.get(row), replacements.get(row), patterns.get(row)?) else {
            builder.append_null();
            continue;
        };
        let pieces = match &mut parsed {
            Some((known, pieces)) if *known == replacement => pieces,
            slot => &mut slot.insert((replacement, pieces_of(replacement))).1,
        };
        buffer.clear();
        let mut at = 0; // what lies before is in the buffer
        let mut search = 0;
        while search <= text.len() && compiled.regex.captures_read_at(&mut compiled.locations, text, search).is_some() {
            let Some((start, end)) = compiled.locations.get(0) else { break };
            buffer.push_str(&text[at..start]);
            for piece in pieces.iter() {
                match piece {
                    Piece::Text(text) => buffer.push_str(text),
                    Piece::Group(group) => {
                        if let Some((from, to)) = compiled.locations.get(*group) {
                            buffer.push_str(&text[from..to]);
                        }
                    }
                }
            }
            at = end;
            // After an empty match go on behind the next character.
            search = if end > start { end } else { end + text[end..].chars().next().map_or(1, char::len_utf8) };
            if !compiled.global {
                break;
            }
        }
        buffer.push_str(&text[at..]);
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
}

/// A part of a replacement: text, or a group of the match (`\1` … `\9`, `\&` the whole).
enum Piece {
    Text(String),
    Group(usize),
}

fn pieces_of(replacement: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = replacement.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        let group = match chars.clone().next() {
            Some('&') => 0,
            Some(digit @ '1'..='9') => digit as usize - '0' as usize,
            Some('\\') => {
                chars.next();
                text.push('\\');
                continue;
            }
            _ => {
                text.push('\\');
                continue;
            }
        };
        chars.next();
        pieces.push(Piece::Text(std::mem::take(&mut text)));
        pieces.push(Piece::Group(group));
    }
    pieces.push(Piece::Text(text));
    pieces
}

pub(crate) fn regexp_split_to_array(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, 2)?;
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows() {
        let (Some(text), Some(compiled)) = (texts.get(row), patterns.get(row)?) else {
            builder.append_null();
            continue;
        };
        no_global(compiled, "regexp_split_to_array")?;
        let mut from = 0;
        for found in compiled.regex.find_iter(text) {
            // Empty matches at the ends, or right behind a match, split nothing.
            if found.is_empty() && (found.start() == from || found.start() >= text.len()) {
                continue;
            }
            builder.values().append_value(&text[from..found.start()]);
            from = found.end();
        }
        builder.values().append_value(&text[from..]);
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

/// `substring(text FROM pattern)`: the first group, or the whole match.
pub(crate) fn substring(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::new(args, 1, usize::MAX)?;
    let mut builder = StringBuilder::new();
    for row in 0..args.rows() {
        let (Some(text), Some(compiled)) = (texts.get(row), patterns.get(row)?) else {
            builder.append_null();
            continue;
        };
        let group = compiled.locations.len().min(2) - 1;
        let matched = compiled.regex.captures_read(&mut compiled.locations, text);
        let found = matched.and_then(|_| compiled.locations.get(group));
        builder.append_option(found.map(|(start, end)| &text[start..end]));
    }
    Ok(Arc::new(builder.finish()))
}
