//! The part of SQL/JSON path that streams use: `$.a.b[*].c`, `.*`, `[n]`, `[last]`, `."key"`, `?(@.x == "y" && @.n > 3)`. Lax mode.

use std::cmp::Ordering;

use super::scan::{as_text, items, member, members, root, unescape};
use crate::error::Error;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    AnyMember,
    Item(i64),
    /// `[last]`, `[last - 1]`.
    FromLast(i64),
    AnyItem,
    Filter(Predicate),
}

#[derive(Debug, Clone, PartialEq)]
enum Predicate {
    All(Vec<Predicate>),
    Any(Vec<Predicate>),
    Not(Box<Predicate>),
    Exists(Vec<Step>),
    Compare(Vec<Step>, Comparison, Literal),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Text(String),
    Number(f64),
    Boolean(bool),
    Null,
}

/// A path ready for use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path(Vec<Step>);

impl Path {
    pub(crate) fn parse(text: &str) -> Result<Path, Error> {
        let bad = |rest: &str| {
            Error::new("42601", format!("syntax error in jsonpath \"{text}\" at or near \"{rest}\""))
                .with_hint("supported: $.key, .*, [n], [last], [*], ?(@.key == value && …)")
        };
        let mut parser = Parser { rest: text.trim() };
        parser.rest = parser.rest.strip_prefix("strict").or(parser.rest.strip_prefix("lax")).unwrap_or(parser.rest).trim_start();
        parser
            .expect("$")
            .and_then(|()| parser.steps())
            .filter(|_| parser.rest.is_empty())
            .map(Path)
            .ok_or_else(|| bad(parser.rest))
    }

    /// Every value the path finds.
    pub(crate) fn find<'a>(&self, text: &'a str) -> Vec<&'a str> {
        root(text).map_or_else(Vec::new, |value| run(&self.0, value))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

/// Filters may nest this deep.
const DEEPEST: usize = 32;

impl Parser<'_> {
    fn expect(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?.trim_start();
        Some(())
    }

    fn steps(&mut self) -> Option<Vec<Step>> {
        self.steps_within(0)
    }

    fn steps_within(&mut self, depth: usize) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.expect(".").is_some() {
                steps.push(if self.expect("*").is_some() { Step::AnyMember } else { Step::Member(self.key()?) });
            } else if self.expect("[").is_some() {
                steps.push(self.subscript()?);
                self.expect("]")?;
            } else if self.expect("?").is_some() {
                self.expect("(")?;
                steps.push(Step::Filter(self.any(depth)?));
                self.expect(")")?;
            } else {
                return Some(steps);
            }
        }
    }

    fn key(&mut self) -> Option<String> {
        if self.rest.starts_with('"') {
            return self.string();
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(self.rest.len());
        let (key, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        (!key.is_empty()).then(|| key.to_owned())
    }

    fn string(&mut self) -> Option<String> {
        let mut end = 1;
        while self.rest.as_bytes().get(end)? != &b'"' {
            end += if self.rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        let text = unescape(self.rest.get(1..end)?)?.into_owned();
        self.rest = self.rest[end + 1..].trim_start();
        Some(text)
    }

    fn number(&mut self) -> Option<f64> {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E')))
            .unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let number = number.parse().ok()?;
        self.rest = rest.trim_start();
        Some(number)
    }

    fn subscript(&mut self) -> Option<Step> {
        if self.expect("*").is_some() {
            return Some(Step::AnyItem);
        }
        if self.expect("last").is_some() {
            let back = if self.expect("-").is_some() { self.number()? as i64 } else { 0 };
            return Some(Step::FromLast(back));
        }
        Some(Step::Item(self.number()? as i64))
    }

    fn any(&mut self, depth: usize) -> Option<Predicate> {
        if depth > DEEPEST {
            return None;
        }
        let mut parts = vec![self.all(depth)?];
        while self.expect("||").is_some() {
            parts.push(self.all(depth)?);
        }
        Some(if parts.len() == 1 { parts.pop()? } else { Predicate::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Option<Predicate> {
        let mut parts = vec![self.predicate(depth)?];
        while self.expect("&&").is_some() {
            parts.push(self.predicate(depth)?);
        }
        Some(if parts.len() == 1 { parts.pop()? } else { Predicate::All(parts) })
    }

    fn predicate(&mut self, depth: usize) -> Option<Predicate> {
        if self.expect("!").is_some() {
            self.expect("(")?;
            let inner = self.any(depth + 1)?;
            self.expect(")")?;
            return Some(Predicate::Not(Box::new(inner)));
        }
        if self.expect("(").is_some() {
            let inner = self.any(depth + 1)?;
            self.expect(")")?;
            return Some(inner);
        }
        if self.expect("exists").is_some() {
            self.expect("(")?;
            self.expect("@")?;
            let steps = self.steps_within(depth + 1)?;
            self.expect(")")?;
            return Some(Predicate::Exists(steps));
        }
        self.expect("@")?;
        let steps = self.steps_within(depth + 1)?;
        const OPERATORS: [(&str, Comparison); 7] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let operator = OPERATORS.iter().find(|(token, _)| self.rest.starts_with(token))?;
        self.expect(operator.0)?;
        Some(Predicate::Compare(steps, operator.1, self.literal()?))
    }

    fn literal(&mut self) -> Option<Literal> {
        if self.rest.starts_with('"') {
            return self.string().map(Literal::Text);
        }
        for (word, literal) in [("true", Literal::Boolean(true)), ("false", Literal::Boolean(false)), ("null", Literal::Null)] {
            if self.expect(word).is_some() {
                return Some(literal);
            }
        }
        self.number().map(Literal::Number)
    }
}

fn run<'a>(steps: &[Step], value: &'a str) -> Vec<&'a str> {
    let mut values = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in values {
            apply(step, value, &mut next);
        }
        values = next;
    }
    values
}

/// Lax mode: a member is also looked for in the items of an array, and a single value counts as an array of one.
fn apply<'a>(step: &Step, value: &'a str, out: &mut Vec<&'a str>) {
    match step {
        Step::Member(key) => match items(value) {
            Some(items) => out.extend(items.filter_map(|item| member(item, key))),
            None => out.extend(member(value, key)),
        },
        Step::AnyMember => match items(value) {
            Some(items) => out.extend(items.filter_map(members).flatten().map(|(_, _, value)| value)),
            None => out.extend(members(value).into_iter().flatten().map(|(_, _, value)| value)),
        },
        Step::AnyItem => match items(value) {
            Some(items) => out.extend(items),
            None => out.push(value),
        },
        Step::Item(index) => match items(value) {
            Some(mut items) => out.extend(usize::try_from(*index).ok().and_then(|index| items.nth(index))),
            None => out.extend((*index == 0).then_some(value)),
        },
        Step::FromLast(back) => match items(value) {
            Some(all) => {
                let all: Vec<_> = all.collect();
                out.extend(usize::try_from(*back).ok().and_then(|back| all.iter().rev().nth(back)));
            }
            None => out.extend((*back == 0).then_some(value)),
        },
        Step::Filter(predicate) => match items(value) {
            Some(items) => out.extend(items.filter(|item| holds(predicate, item))),
            None => out.extend(holds(predicate, value).then_some(value)),
        },
    }
}

fn holds(predicate: &Predicate, value: &str) -> bool {
    match predicate {
        Predicate::All(parts) => parts.iter().all(|part| holds(part, value)),
        Predicate::Any(parts) => parts.iter().any(|part| holds(part, value)),
        Predicate::Not(inner) => !holds(inner, value),
        Predicate::Exists(steps) => !run(steps, value).is_empty(),
        Predicate::Compare(steps, comparison, literal) => run(steps, value).into_iter().any(|found| match items(found) {
            Some(mut items) => items.any(|item| compares(item, *comparison, literal)),
            None => compares(found, *comparison, literal),
        }),
    }
}

fn compares(value: &str, comparison: Comparison, literal: &Literal) -> bool {
    let order = match literal {
        Literal::Text(wanted) if value.starts_with('"') => as_text(value).map(|text| text.as_ref().cmp(wanted)),
        Literal::Number(wanted) => value.parse::<f64>().ok().and_then(|number| number.partial_cmp(wanted)),
        Literal::Boolean(wanted) => value.parse::<bool>().ok().map(|truth| truth.cmp(wanted)),
        Literal::Null if value == "null" => Some(Ordering::Equal),
        // Null differs from every other value; other types do not compare.
        Literal::Null => return comparison == Comparison::NotEqual,
        Literal::Text(_) => None,
    };
    order.is_some_and(|order| match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}
