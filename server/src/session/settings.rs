//! Settings of one session by Postgres's names: defaults, what values they take, how they are shown.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use arrow::array::timezone::Tz;
use sql::{Error, Result};

use crate::execute::is_system_schema;

/// What a client is told the server is. Clients choose their catalog queries by it.
pub(crate) const SERVER_VERSION: &str = "15.8";
/// The same as a number.
pub(crate) const SERVER_VERSION_NUM: &str = "150008";

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// Stored in milliseconds, shown in the largest unit that divides it.
    Milliseconds,
    OneOf(&'static [&'static str]),
    TimeZone,
    DateStyle,
    Encoding,
    SearchPath,
    ReadOnly,
}

/// One row of `pg_settings`.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    default: &'static str,
    kind: Kind,
    /// A change is told to the client at once (`ParameterStatus`).
    reported: bool,
    pub(crate) description: &'static str,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Setting {
    Setting { name, default, kind, reported: false, description }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Setting {
    Setting { name, default, kind, reported: true, description }
}

const ISOLATION: Kind = Kind::OneOf(&["read committed", "repeatable read", "serializable", "read uncommitted"]);
const LEVELS: Kind =
    Kind::OneOf(&["debug5", "debug4", "debug3", "debug2", "debug1", "log", "notice", "warning", "error", "info"]);

/// Every setting of a session, sorted by name without regard to case.
pub(crate) const SETTINGS: &[Setting] = &[
    reported("application_name", "", Kind::Text, "Sets the application name to be reported in statistics and logs."),
    setting("backslash_quote", "safe_encoding", Kind::Text, "Sets whether \"\\'\" is allowed in string literals."),
    setting("block_size", "8192", Kind::ReadOnly, "Shows the size of a disk block."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), "Sets the output format for bytea."),
    setting("check_function_bodies", "on", Kind::Bool, "Check routine bodies during CREATE FUNCTION."),
    reported("client_encoding", "UTF8", Kind::Encoding, "Sets the client's character set encoding."),
    setting("client_min_messages", "notice", LEVELS, "Sets the message levels that are sent to the client."),
    reported("DateStyle", "ISO, MDY", Kind::DateStyle, "Sets the display format for date and time values."),
    setting("default_table_access_method", "heap", Kind::Text, "Sets the default table access method for new tables."),
    setting("default_tablespace", "", Kind::Text, "Sets the default tablespace to create tables and indexes in."),
    setting("default_transaction_deferrable", "off", Kind::Bool, "Sets the default deferrable status of new transactions."),
    setting("default_transaction_isolation", "read committed", ISOLATION, "Sets the isolation level of each new transaction."),
    reported("default_transaction_read_only", "off", Kind::Bool, "Sets the default read-only status of new transactions."),
    setting("escape_string_warning", "on", Kind::Bool, "Warn about backslash escapes in ordinary string literals."),
    setting(
        "extra_float_digits",
        "1",
        Kind::Integer { min: 0, max: 3 },
        "Sets the number of digits displayed for floating-point values.",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Milliseconds,
        "Sets the maximum allowed idle time in a transaction.",
    ),
    setting("idle_session_timeout", "0", Kind::Milliseconds, "Sets the maximum allowed idle time outside a transaction."),
    reported("in_hot_standby", "off", Kind::ReadOnly, "Shows whether hot standby is currently active."),
    reported("integer_datetimes", "on", Kind::ReadOnly, "Shows whether datetimes are integer based."),
    reported("IntervalStyle", "postgres", Kind::OneOf(&["postgres"]), "Sets the display format for interval values."),
    reported("is_superuser", "on", Kind::ReadOnly, "Shows whether the current user is a superuser."),
    setting("jit", "off", Kind::Bool, "Allow JIT compilation."),
    setting("lc_collate", "C.UTF-8", Kind::ReadOnly, "Shows the collation order locale."),
    setting("lc_ctype", "C.UTF-8", Kind::ReadOnly, "Shows the character classification and case conversion locale."),
    setting("lc_messages", "C.UTF-8", Kind::Text, "Sets the language in which messages are displayed."),
    setting("lc_monetary", "C.UTF-8", Kind::Text, "Sets the locale for formatting monetary amounts."),
    setting("lc_numeric", "C.UTF-8", Kind::Text, "Sets the locale for formatting numbers."),
    setting("lc_time", "C.UTF-8", Kind::Text, "Sets the locale for formatting date and time values."),
    setting("lock_timeout", "0", Kind::Milliseconds, "Sets the maximum allowed duration of any wait for a lock."),
    setting("max_identifier_length", "63", Kind::ReadOnly, "Shows the maximum identifier length."),
    setting("max_index_keys", "32", Kind::ReadOnly, "Shows the maximum number of index keys."),
    setting("quote_all_identifiers", "off", Kind::Bool, "When generating SQL fragments, quote all identifiers."),
    setting("role", "none", Kind::Text, "Sets the current role."),
    setting("row_security", "on", Kind::Bool, "Enable row security."),
    setting(
        "search_path",
        "\"$user\", public",
        Kind::SearchPath,
        "Sets the schema search order for names that are not schema-qualified.",
    ),
    reported("server_encoding", "UTF8", Kind::ReadOnly, "Shows the server (database) character set encoding."),
    reported("server_version", SERVER_VERSION, Kind::ReadOnly, "Shows the server version."),
    setting("server_version_num", SERVER_VERSION_NUM, Kind::ReadOnly, "Shows the server version as an integer."),
    reported("session_authorization", "", Kind::ReadOnly, "Sets the session user name."),
    setting(
        "session_replication_role",
        "origin",
        Kind::OneOf(&["origin", "replica", "local"]),
        "Sets the session's behavior for triggers and rewrite rules.",
    ),
    reported("standard_conforming_strings", "on", Kind::OneOf(&["on"]), "Causes '...' strings to treat backslashes literally."),
    setting("statement_timeout", "0", Kind::Milliseconds, "Sets the maximum allowed duration of any statement."),
    setting("synchronize_seqscans", "on", Kind::Bool, "Enable synchronized sequential scans."),
    setting("synchronous_commit", "on", Kind::Text, "Sets the current transaction's synchronization level."),
    reported("TimeZone", "UTC", Kind::TimeZone, "Sets the time zone for displaying and interpreting time stamps."),
    setting("transaction_deferrable", "off", Kind::Bool, "Whether to defer a read-only serializable transaction."),
    setting("transaction_isolation", "read committed", ISOLATION, "Sets the current transaction's isolation level."),
    setting("transaction_read_only", "off", Kind::Bool, "Sets the current transaction's read-only status."),
    setting("work_mem", "4MB", Kind::Text, "Sets the maximum memory to be used for query workspaces."),
    setting("xmloption", "content", Kind::Text, "Sets whether XML data is to be considered as documents or content fragments."),
];

/// The values of one session.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What RESET goes back to: the table's defaults and what the client gave at the start.
    defaults: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
}

impl Settings {
    /// Settings of a new session of `user`.
    pub(crate) fn new(user: &str) -> Settings {
        let mut defaults: BTreeMap<String, String> =
            SETTINGS.iter().map(|setting| (setting.name.to_owned(), setting.default.to_owned())).collect();
        defaults.insert("session_authorization".to_owned(), user.to_owned());
        Settings { values: defaults.clone(), defaults }
    }

    /// A value given with the connection: RESET goes back to it.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = checked(name, value)?;
        self.defaults.insert(name.clone(), value.clone());
        self.values.insert(name, value);
        Ok(())
    }

    /// SET: returns the name as it is spelt in `SHOW ALL`.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<String> {
        let (name, value) = checked(name, value)?;
        self.values.insert(name.clone(), value);
        Ok(name)
    }

    /// RESET, or SET … TO DEFAULT.
    pub(crate) fn reset(&mut self, name: &str) -> Result<String> {
        let name = match find(name) {
            Some(Setting { name, kind: Kind::ReadOnly, .. }) => return Err(read_only(name)),
            Some(setting) => setting.name.to_owned(),
            None if name.contains('.') => name.to_ascii_lowercase(),
            None => return Err(unrecognized(name)),
        };
        match self.defaults.get(&name) {
            Some(default) => self.values.insert(name.clone(), default.clone()),
            None => self.values.remove(&name),
        };
        Ok(name)
    }

    /// RESET ALL.
    pub(crate) fn reset_all(&mut self) {
        self.values = self.defaults.clone();
    }

    /// The value of one setting as stored, or `None` when there is no such setting.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let name = find(name).map_or_else(|| name.to_ascii_lowercase(), |setting| setting.name.to_owned());
        self.values.get(&name).map(String::as_str)
    }

    /// As SHOW prints it.
    pub(crate) fn show(&self, name: &str) -> Result<String> {
        self.get(name).map(str::to_owned).ok_or_else(|| unrecognized(name))
    }

    /// All of them, sorted by name without regard to case.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        all.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        all
    }

    /// Those a client is told of at the start and on each change.
    pub(crate) fn reported(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let reported = SETTINGS.iter().filter(|setting| setting.reported);
        reported.map(|setting| (setting.name, self.values.get(setting.name).map_or("", String::as_str)))
    }

    /// `TimeZone`, as Arrow understands it.
    pub(crate) fn time_zone(&self) -> &str {
        self.get("TimeZone").unwrap_or("UTC")
    }

    /// Schemas of `search_path`; `"$user"` stands for a schema that has the user's name, but for the system's: a user
    /// called freshet would find freshet.events for a table called events.
    pub(crate) fn search_path(&self, user: &str) -> Vec<String> {
        let path = self.get("search_path").unwrap_or_default();
        let name = |name: String| match name.as_str() {
            "$user" => (!is_system_schema(user)).then(|| user.to_owned()),
            _ => Some(name),
        };
        identifiers(path).into_iter().filter_map(name).collect()
    }

    /// `statement_timeout`; `None` when off.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.duration("statement_timeout")
    }

    /// `idle_in_transaction_session_timeout` or `idle_session_timeout`; `None` when off.
    pub(crate) fn idle_timeout(&self, in_transaction: bool) -> Option<Duration> {
        self.duration(if in_transaction { "idle_in_transaction_session_timeout" } else { "idle_session_timeout" })
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        let milliseconds = milliseconds(self.get(name)?)?;
        u64::try_from(milliseconds).ok().filter(|value| *value > 0).map(Duration::from_millis)
    }
}

/// The setting of that name, whatever its case.
fn find(name: &str) -> Option<&'static Setting> {
    let name = match name.to_ascii_lowercase().as_str() {
        "time zone" => "timezone".to_owned(),
        "names" => "client_encoding".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        "session authorization" => "session_authorization".to_owned(),
        other => other.to_owned(),
    };
    SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(&name))
}

fn unrecognized(name: &str) -> Error {
    Error::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

fn read_only(name: &str) -> Error {
    Error::new("55P02", format!("parameter \"{name}\" cannot be changed"))
}

fn invalid(name: &str, value: &str) -> Error {
    Error::new("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
}

/// The name as spelt in the table and the value as it is shown.
fn checked(name: &str, value: &str) -> Result<(String, String)> {
    let Some(setting) = find(name) else {
        // Names with a dot belong to whoever uses them.
        return if name.contains('.') { Ok((name.to_ascii_lowercase(), value.to_owned())) } else { Err(unrecognized(name)) };
    };
    let name = setting.name;
    let shown = match setting.kind {
        Kind::ReadOnly if name == "session_authorization" && value.eq_ignore_ascii_case("default") => setting.default.to_owned(),
        Kind::ReadOnly => return Err(read_only(name)),
        Kind::Text => value.to_owned(),
        Kind::Bool => match boolean(value) {
            Some(true) => "on".to_owned(),
            Some(false) => "off".to_owned(),
            None => return Err(Error::new("22023", format!("parameter \"{name}\" requires a Boolean value"))),
        },
        Kind::Integer { min, max } => {
            let number: i64 = value.trim().parse().map_err(|_| invalid(name, value))?;
            if !(min..=max).contains(&number) {
                let message = format!("{number} is outside the valid range for parameter \"{name}\" ({min} .. {max})");
                return Err(Error::new("22023", message));
            }
            number.to_string()
        }
        Kind::Milliseconds => {
            let hint = "Valid units for this parameter are \"ms\", \"s\", \"min\", \"h\", and \"d\".";
            let number = milliseconds(value).ok_or_else(|| invalid(name, value).hint(hint))?;
            if !(0..=i64::from(i32::MAX)).contains(&number) {
                let message =
                    format!("{number} ms is outside the valid range for parameter \"{name}\" (0 ms .. {} ms)", i32::MAX);
                return Err(Error::new("22023", message));
            }
            let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
            let unit = units.iter().find(|(size, _)| number % size == 0).filter(|_| number != 0);
            unit.map_or_else(|| "0".to_owned(), |(size, unit)| format!("{}{unit}", number / size))
        }
        Kind::OneOf(values) => {
            let value = value.trim();
            // Booleans may stand among the words.
            let word = match boolean(value) {
                Some(true) if values.contains(&"on") => "on",
                _ => value,
            };
            let found = values.iter().find(|known| known.eq_ignore_ascii_case(word));
            let hint = || format!("Available values: {}.", values.join(", "));
            (*found.ok_or_else(|| invalid(name, value).hint(hint()))?).to_owned()
        }
        Kind::TimeZone => time_zone(value).ok_or_else(|| invalid(name, value))?,
        Kind::DateStyle => date_style(value).ok_or_else(|| invalid(name, value).hint("Dates are written in ISO style only."))?,
        Kind::Encoding => match value.to_ascii_uppercase().replace(['-', '_'], "").as_str() {
            "UTF8" | "UNICODE" | "AUTO" => "UTF8".to_owned(),
            _ => return Err(invalid(name, value).hint("The only client encoding is UTF8.")),
        },
        Kind::SearchPath => value.to_owned(),
    };
    Ok((name.to_owned(), shown))
}

/// `on`, `yes`, `true`, `1` and their opposites, or an unambiguous beginning of them.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "on" | "1" => Some(true),
        "off" | "of" | "0" => Some(false),
        "" | "o" => None,
        _ if "true".starts_with(&value) || "yes".starts_with(&value) => Some(true),
        _ if "false".starts_with(&value) || "no".starts_with(&value) => Some(false),
        _ => None,
    }
}

fn milliseconds(value: &str) -> Option<i64> {
    let value = value.trim();
    let digits = value.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '.')).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let unit = match unit.trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let milliseconds = (number.parse::<f64>().ok()? * unit).round();
    (milliseconds.abs() < 1e15).then_some(milliseconds as i64)
}

/// A zone's name, spelt as the time zone database has it, or hours east of UTC as an offset.
fn time_zone(value: &str) -> Option<String> {
    let value = value.trim();
    if let Ok(hours) = value.parse::<f64>() {
        if hours.abs() > 15.0 {
            return None;
        }
        let minutes = (hours * 60.0).round() as i64;
        let sign = if minutes < 0 { '-' } else { '+' };
        return Some(format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60));
    }
    let capital = |part: &str| -> String {
        let mut letters = part.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + &letters.as_str().to_ascii_lowercase())
            .unwrap_or_default()
    };
    let capitals =
        value.split('/').map(|part| part.split('_').map(capital).collect::<Vec<_>>().join("_")).collect::<Vec<_>>().join("/");
    let spellings = [value.to_owned(), value.to_ascii_uppercase(), capitals];
    let known = spellings.into_iter().find(|name| Tz::from_str(name).is_ok())?;
    Some(if known == "Utc" { "UTC".to_owned() } else { known })
}

fn date_style(value: &str) -> Option<String> {
    let mut order = "MDY";
    for word in value.split(',').map(str::trim) {
        match word.to_ascii_uppercase().as_str() {
            "ISO" => {}
            "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => order = "MDY",
            "DMY" | "EURO" | "EUROPEAN" => order = "DMY",
            "YMD" => order = "YMD",
            _ => return None,
        }
    }
    Some(format!("ISO, {order}"))
}

/// Names of a comma-separated list, quoted ones as they are, others in lower case.
pub(crate) fn identifiers(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut letters = list.chars().peekable();
    while letters.peek().is_some() {
        let mut name = String::new();
        while letters.next_if(|letter| letter.is_whitespace() || *letter == ',').is_some() {}
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next() {
                if letter == '"' && letters.next_if_eq(&'"').is_none() {
                    break;
                }
                name.push(letter);
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                name.extend(letter.to_lowercase());
            }
            // Text given as a string literal arrives with its single quotes when it was one of several.
            name = name.trim().trim_matches('\'').to_owned();
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_postgres_shows_them() {
        let cases = [
            ("statement_timeout", "5000", "5s"),
            ("statement_timeout", "90 s", "90s"),
            ("statement_timeout", "1500", "1500ms"),
            ("statement_timeout", "0", "0"),
            ("datestyle", "iso, dmy", "ISO, DMY"),
            ("DateStyle", "ISO", "ISO, MDY"),
            ("timezone", "europe/berlin", "Europe/Berlin"),
            ("time zone", "utc", "UTC"),
            ("TIMEZONE", "-7", "-07:00"),
            ("client_encoding", "utf-8", "UTF8"),
            ("jit", "t", "on"),
            ("standard_conforming_strings", "true", "on"),
            ("client_min_messages", "WARNING", "warning"),
            ("my.own", "Anything", "Anything"),
        ];
        for (name, value, shown) in cases {
            let mut settings = Settings::new("ann");
            settings.set(name, value).unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
            assert_eq!(settings.show(name).as_deref(), Ok(shown), "{name} = {value}");
        }
    }

    #[test]
    fn refusals() {
        let cases = [
            ("no_such_thing", "1", "42704"),
            ("server_version", "9", "55P02"),
            ("statement_timeout", "soon", "22023"),
            ("statement_timeout", "-1", "22023"),
            ("extra_float_digits", "9", "22023"),
            ("timezone", "Mars/Olympus", "22023"),
            ("jit", "maybe", "22023"),
            ("datestyle", "German", "22023"),
            ("client_encoding", "LATIN1", "22023"),
        ];
        for (name, value, code) in cases {
            let mut settings = Settings::new("ann");
            assert_eq!(settings.set(name, value).map_err(|error| error.sqlstate), Err(code), "{name} = {value}");
        }
    }

    #[test]
    fn search_paths() {
        let mut settings = Settings::new("ann");
        assert_eq!(settings.search_path("ann"), ["ann", "public"]);
        settings.set("search_path", "A, \"B c\", \"d\"\"e\"").expect("a path");
        assert_eq!(settings.search_path("ann"), ["a", "B c", "d\"e"]);
        settings.reset("search_path").expect("a setting");
        assert_eq!(settings.search_path("bob"), ["bob", "public"]);
        assert_eq!(settings.search_path("freshet"), ["public"], "the system's schema is nobody's own");
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name.to_ascii_lowercase()));
    }
}
