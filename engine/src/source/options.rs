//! `WITH (…)` options: looked up, checked, and misspelt ones answered with the nearest name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Error, Result};

/// Options of every streaming table, read by the planner and the engine.
const COMMON: &[&str] =
    &["connector", "retention", "idle_timeout", "idle.timeout", "max_future", "max.future", "on_error", "dlq.table"];

/// The options of one connector or encoding.
pub(crate) struct Options<'a> {
    /// `connector "kafka"`, `ENCODE CSV`.
    what: &'a str,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    pub(crate) fn new(what: &'a str, values: &'a BTreeMap<String, String>) -> Self {
        Options { what, values }
    }

    /// Refuses names that are neither known nor start with one of the prefixes.
    pub(crate) fn check_known(&self, known: &[&str], prefixes: &[&str]) -> Result<()> {
        for name in self.values.keys() {
            let fits = known.contains(&name.as_str())
                || COMMON.contains(&name.as_str())
                || prefixes.iter().any(|prefix| name.starts_with(prefix));
            if !fits {
                return Err(Error::Option {
                    message: format!("unknown option \"{name}\" for {}", self.what),
                    hint: Some(suggestion(name, known, COMMON)),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(String::as_str)
    }

    pub(crate) fn required(&self, name: &str, hint: &str) -> Result<&'a str> {
        match self.text(name) {
            Some(value) if !value.trim().is_empty() => Ok(value),
            _ => Err(Error::Option {
                message: format!("option \"{name}\" is required for {}", self.what),
                hint: Some(hint.to_owned()),
            }),
        }
    }

    /// One of the words; the first when the option is not given.
    pub(crate) fn choice<'b>(&self, name: &str, words: &[&'b str]) -> Result<&'b str> {
        match self.text(name) {
            None => Ok(words[0]),
            Some(value) => choice(&format!("option \"{name}\""), &value.to_lowercase(), words),
        }
    }

    pub(crate) fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name).map(str::to_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => Err(self.invalid(name, other, "It is 'true' or 'false'.")),
        }
    }

    pub(crate) fn whole(&self, name: &str, default: u64) -> Result<u64> {
        match self.text(name) {
            None => Ok(default),
            Some(value) => value.trim().parse().map_err(|_| self.invalid(name, value, "It is a whole number, 0 or more.")),
        }
    }

    pub(crate) fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        match self.text(name) {
            None => Ok(default),
            Some(value) => parse_duration(value)
                .ok_or_else(|| self.invalid(name, value, "Write a number and a unit, such as '10s' or '500 ms'.")),
        }
    }

    pub(crate) fn invalid(&self, name: &str, value: &str, hint: &str) -> Error {
        Error::Option { message: format!("invalid value for option \"{name}\": \"{value}\""), hint: Some(hint.to_owned()) }
    }
}

/// The word that is meant, or an error that names those there are.
pub(crate) fn choice<'b>(what: &str, value: &str, words: &[&'b str]) -> Result<&'b str> {
    words.iter().find(|word| **word == value).copied().ok_or_else(|| Error::Option {
        message: format!("invalid value for {what}: \"{value}\""),
        hint: Some(match nearest(value, words) {
            Some(word) => format!("Did you mean '{word}'? It is one of: {}.", words.join(", ")),
            None => format!("It is one of: {}.", words.join(", ")),
        }),
    })
}

fn suggestion(name: &str, known: &[&str], common: &[&str]) -> String {
    let all: Vec<&str> = known.iter().chain(common).copied().collect();
    match nearest(name, &all) {
        Some(near) => format!("Did you mean \"{near}\"?"),
        None if known.is_empty() => "It takes no options of its own.".to_owned(),
        None => format!("Its options are: {}.", known.join(", ")),
    }
}

/// The word fewest edits away, if that is few for its length.
pub(crate) fn nearest<'b>(name: &str, words: &[&'b str]) -> Option<&'b str> {
    let (distance, word) = words.iter().map(|word| (edit_distance(name, word), *word)).min()?;
    (distance <= name.len().max(word.len()).div_ceil(3)).then_some(word)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// `10s`, `500 ms`, `1.5 minutes`, a bare number of milliseconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..unit_at].parse().ok()?;
    let seconds = match text[unit_at..].trim().to_lowercase().as_str() {
        "us" | "microseconds" => 1e-6,
        "" | "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_answered_with_the_nearest() {
        assert_eq!(nearest("scan.startup.mod", &["topic", "scan.startup.mode"]), Some("scan.startup.mode"));
        assert_eq!(nearest("pth", &["path", "mode"]), Some("path"));
        assert_eq!(nearest("colour", &["path", "mode"]), None);
    }

    #[test]
    fn durations() {
        for (text, expected) in
            [("10s", Some(10_000)), ("500 ms", Some(500)), ("1.5 minutes", Some(90_000)), ("7", Some(7)), ("x", None)]
        {
            assert_eq!(parse_duration(text).map(|duration| duration.as_millis()), expected, "{text}");
        }
    }
}
