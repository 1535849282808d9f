//! Configuration: `default.toml` names every key, its default and what it means; files and `--set` override.
//!
//! Values stay text next to where they came from, for `SHOW` and `freshet.settings`; [`Config`] is what they mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

const DEFAULTS: &str = include_str!("default.toml");

/// Where a setting's value came from; later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `default.toml`.
    Default,
    /// The file of `--config`.
    File,
    /// `ALTER SYSTEM SET`, kept in the data directory.
    System,
    /// `--set` or an option of the command line.
    CommandLine,
}

impl Origin {
    /// The word in `freshet.settings`.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File => "configuration file",
            Origin::System => "alter system",
            Origin::CommandLine => "command line",
        }
    }
}

/// One setting as `freshet.settings` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Value as written.
    pub value: String,
    /// Default as written.
    pub default: String,
    /// `duration`, `bytes`, `number` or `text`.
    pub unit: &'static str,
    /// Where the value came from.
    pub origin: Origin,
    /// What it means.
    pub description: String,
    /// Whether `ALTER SYSTEM SET` may change it while the server runs.
    pub runtime: bool,
}

/// All settings by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    settings: BTreeMap<String, Setting>,
}

/// What the settings mean.
#[derive(Debug, Clone)]
pub struct Config {
    /// The settings this was read from.
    pub settings: Settings,
    /// Data directory or object-store prefix.
    pub data: String,
    /// Address for pgwire.
    pub pg: String,
    /// Address for HTTP.
    pub http: String,
    /// Least time between commits; `None`: by the kind of storage.
    pub checkpoint_interval: Option<Duration>,
    /// Longest time between commits while behind.
    pub checkpoint_interval_max: Duration,
    /// Age at which memtables are flushed.
    pub flush_interval: Duration,
    /// Size at which memtables are flushed.
    pub flush_bytes: usize,
    /// Time between manifests.
    pub manifest_interval: Duration,
    /// Recent commits in memory.
    pub tail_bytes: usize,
    /// Rows waiting between source and dataflow.
    pub source_buffer_bytes: usize,
    /// First and longest wait before a failed dataflow is tried again.
    pub retry: (Duration, Duration),
    /// Memory of queries.
    pub memory_limit_bytes: usize,
    /// Where queries spill; `None`: the system's.
    pub spill_directory: Option<PathBuf>,
    /// Threads that run queries.
    pub query_threads: usize,
    /// Connections at one time.
    pub connections_max: usize,
    /// Time for a clean stop.
    pub shutdown_timeout: Duration,
    /// Time for the outside to answer at CREATE.
    pub probe_timeout: Duration,
    /// `storage.*` without the prefix.
    pub storage: BTreeMap<String, String>,
    /// Filter of logs.
    pub log_level: String,
    /// Form of logs.
    pub log_format: LogFormat,
}

/// Form of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Settings::from_defaults(DEFAULTS).expect("default.toml is ours and a test reads it")
    }
}

impl Settings {
    fn from_defaults(text: &str) -> Result<Settings> {
        let descriptions = descriptions(text);
        let mut settings = BTreeMap::new();
        for (name, value) in flatten(text, "default.toml")? {
            let comment = descriptions.get(&name).cloned().unwrap_or_default();
            let runtime = comment.starts_with("[runtime]");
            let description = comment.trim_start_matches("[runtime]").trim().to_owned();
            let unit = unit(&name, &value);
            settings.insert(name, Setting { default: value.clone(), value, unit, origin: Origin::Default, description, runtime });
        }
        Ok(Settings { settings })
    }

    /// Adds a TOML text.
    ///
    /// # Errors
    /// What TOML refuses, and keys nobody knows, with the nearest right one.
    pub fn add_toml(&mut self, text: &str, name: &str, origin: Origin) -> Result<()> {
        for (key, value) in flatten(text, name)? {
            self.set(&key, &value, origin)?;
        }
        Ok(())
    }

    /// Adds a file.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { action: format!("read the configuration file {}", path.display()), source })?;
        self.add_toml(&text, &path.display().to_string(), Origin::File)
    }

    /// Sets one key; a value of a weaker origin than the one there is kept out.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<()> {
        if let Some(setting) = self.settings.get_mut(key) {
            if origin >= setting.origin {
                setting.value = value.to_owned();
                setting.origin = origin;
            }
            return Ok(());
        }
        if key.starts_with("storage.") {
            let setting = Setting {
                value: value.to_owned(),
                default: String::new(),
                unit: "text",
                origin,
                description: "Handed to the object store.".to_owned(),
                runtime: false,
            };
            self.settings.insert(key.to_owned(), setting);
            return Ok(());
        }
        Err(Error::Config { message: format!("unknown configuration key \"{key}\""), hint: self.nearest(key) })
    }

    /// `key=value` of `--set`.
    pub fn set_pair(&mut self, pair: &str) -> Result<()> {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::Config {
                message: format!("--set {pair} has no value"),
                hint: Some("Write --set key=value.".to_owned()),
            });
        };
        self.set(key.trim(), value.trim(), Origin::CommandLine)
    }

    /// ALTER SYSTEM SET, or RESET without a value. It wins over everything else until the server is started anew.
    pub fn change(&mut self, key: &str, value: Option<&str>) -> Result<()> {
        let Some(setting) = self.settings.get_mut(key) else {
            return Err(Error::Config { message: format!("unknown configuration key \"{key}\""), hint: self.nearest(key) });
        };
        setting.value = value.unwrap_or(&setting.default).to_owned();
        setting.origin = if value.is_some() { Origin::System } else { Origin::Default };
        Ok(())
    }

    /// One setting.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }

    /// All settings in order of name. Values that are secrets are not shown.
    pub fn list(&self) -> impl Iterator<Item = (&str, Setting)> {
        self.settings.iter().map(|(name, setting)| {
            let mut setting = setting.clone();
            if is_secret(name) && !setting.value.is_empty() {
                setting.value = "********".to_owned();
            }
            (name.as_str(), setting)
        })
    }

    /// The settings of one origin as TOML, to be kept.
    pub fn to_toml(&self, origin: Origin) -> String {
        let of_origin = self.settings.iter().filter(|(_, setting)| setting.origin == origin);
        of_origin.map(|(name, setting)| format!("{name} = {}\n", toml::Value::String(setting.value.clone()))).collect()
    }

    fn nearest(&self, key: &str) -> Option<String> {
        let distance = |name: &str| strsim::damerau_levenshtein(name, key);
        let nearest = self.settings.keys().min_by_key(|name| distance(name))?;
        let close = distance(nearest) <= 1 + key.len() / 3;
        Some(if close {
            format!("Did you mean \"{nearest}\"?")
        } else {
            "SELECT name FROM freshet.settings lists all keys.".to_owned()
        })
    }

    fn value(&self, key: &str) -> &str {
        self.settings.get(key).map_or("", |setting| setting.value.as_str())
    }

    fn refuse<T>(&self, key: &str, expected: &str) -> Result<T> {
        Err(Error::Config {
            message: format!("configuration key \"{key}\" has the value \"{}\"", self.value(key)),
            hint: Some(format!("It must be {expected}.")),
        })
    }

    fn duration(&self, key: &str, min: Duration, max: Duration) -> Result<Duration> {
        match parse_duration(self.value(key)) {
            Some(duration) if (min..=max).contains(&duration) => Ok(duration),
            _ => self.refuse(key, &format!("a time from {min:?} to {max:?}, such as \"250ms\" or \"5s\"")),
        }
    }

    fn bytes(&self, key: &str, min: usize) -> Result<usize> {
        match parse_bytes(self.value(key)) {
            Some(bytes) if bytes >= min => Ok(bytes),
            _ => self.refuse(key, &format!("a size of at least {min} bytes, such as \"64MiB\"")),
        }
    }

    fn number(&self, key: &str, min: usize, max: usize) -> Result<usize> {
        match self.value(key).parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            _ => self.refuse(key, &format!("a number from {min} to {max}")),
        }
    }
}

impl Config {
    /// What the settings mean.
    ///
    /// # Errors
    /// The first value that means nothing, with what it must be.
    pub fn new(settings: Settings) -> Result<Config> {
        const MS: Duration = Duration::from_millis(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let checkpoint_interval = match settings.value("checkpoint_interval") {
            "auto" => None,
            _ => Some(settings.duration("checkpoint_interval", MS, MINUTE)?),
        };
        let memory_limit_bytes = match settings.value("memory_limit").strip_suffix('%').map(str::parse::<f64>) {
            Some(Ok(percent)) if percent > 0.0 && percent <= 100.0 => (memory_bytes() as f64 * percent / 100.0) as usize,
            Some(_) => return settings.refuse("memory_limit", "a size such as \"2GiB\", or a share such as \"60%\""),
            None => settings.bytes("memory_limit", 16 << 20)?,
        };
        let query_threads = match settings.number("query_threads", 0, 1024)? {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let log_format = match settings.value("log.format") {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return settings.refuse("log.format", "\"auto\", \"text\" or \"json\""),
        };
        let spill = settings.value("spill_directory");
        Ok(Config {
            data: settings.value("data").to_owned(),
            pg: settings.value("pg").to_owned(),
            http: settings.value("http").to_owned(),
            checkpoint_interval,
            checkpoint_interval_max: settings.duration("checkpoint_interval_max", MS, MINUTE)?,
            flush_interval: settings.duration("flush_interval", 10 * MS, 60 * MINUTE)?,
            flush_bytes: settings.bytes("flush_bytes", 64 << 10)?,
            manifest_interval: settings.duration("manifest_interval", 10 * MS, 60 * MINUTE)?,
            tail_bytes: settings.bytes("tail_bytes", 64 << 10)?,
            source_buffer_bytes: settings.bytes("source_buffer", 64 << 10)?,
            retry: (settings.duration("retry_min", MS, MINUTE)?, settings.duration("retry_max", MS, 60 * MINUTE)?),
            memory_limit_bytes,
            spill_directory: (!spill.is_empty()).then(|| PathBuf::from(spill)),
            query_threads,
            connections_max: settings.number("max_connections", 1, 100_000)?,
            shutdown_timeout: settings.duration("shutdown_timeout", Duration::ZERO, 60 * MINUTE)?,
            probe_timeout: settings.duration("probe_timeout", 10 * MS, 10 * MINUTE)?,
            storage: settings
                .settings
                .iter()
                .filter_map(|(name, setting)| Some((name.strip_prefix("storage.")?.to_owned(), setting.value.clone())))
                .collect(),
            log_level: settings.value("log.level").to_owned(),
            log_format,
            settings,
        })
    }
}

/// A time such as `250ms`, `5s`, `1.5 minutes`, `7 days`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "us" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// A size such as `64MiB`, `2GB`, `4096`.
pub fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return None,
    };
    let bytes = number * factor;
    (bytes.is_finite() && bytes < usize::MAX as f64).then_some(bytes as usize)
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

/// Memory this process may use: the machine's, or less when the container's limit is lower.
fn memory_bytes() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
    });
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok());
    const UNKNOWN: usize = 4 << 30;
    match (machine, container) {
        (Some(machine), Some(container)) => machine.min(container),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => UNKNOWN,
    }
}

fn is_secret(name: &str) -> bool {
    ["secret", "password", "access-key", "access_key", "token"].iter().any(|word| name.contains(word))
}

fn unit(name: &str, value: &str) -> &'static str {
    if value.parse::<f64>().is_ok() {
        "number"
    } else if name == "checkpoint_interval" || parse_duration(value).is_some() {
        "duration"
    } else if name == "memory_limit" || parse_bytes(value).is_some() {
        "bytes"
    } else {
        "text"
    }
}

/// Dotted keys with values as text.
fn flatten(text: &str, name: &str) -> Result<Vec<(String, String)>> {
    fn walk(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(table) => walk(&key, table, into),
                toml::Value::String(text) => into.push((key, text.clone())),
                other => into.push((key, other.to_string())),
            }
        }
    }
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| Error::config(format!("{name}: {}", error.to_string().trim_end())))?;
    let mut keys = Vec::new();
    walk("", &table, &mut keys);
    Ok(keys)
}

/// The comment above each key of a TOML text.
fn descriptions(text: &str) -> BTreeMap<String, String> {
    let mut descriptions = BTreeMap::new();
    let mut prefix = String::new();
    let mut comment = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            prefix = format!("{table}.");
            comment.clear();
        } else if let Some((key, _)) = line.split_once('=') {
            descriptions.insert(format!("{prefix}{}", key.trim()), comment.join(" "));
            comment.clear();
        } else {
            comment.clear();
        }
    }
    descriptions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_described() {
        let config = Config::new(Settings::default()).expect("the defaults are valid");
        assert_eq!(config.pg, "127.0.0.1:5433");
        assert_eq!(config.checkpoint_interval, None);
        assert_eq!(config.flush_bytes, 32 << 20);
        assert!(config.memory_limit_bytes > 0);
        for (name, setting) in config.settings.list() {
            assert!(!setting.description.is_empty(), "{name} has no comment in default.toml");
        }
        assert!(config.settings.get("checkpoint_interval").expect("a key").runtime);
    }

    #[test]
    fn times_and_sizes() {
        for (text, expected) in
            [("250ms", 250_000), ("5s", 5_000_000), ("1.5 minutes", 90_000_000), ("7 days", 604_800_000_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_micros(expected)), "{text}");
        }
        for text in ["", "s", "5", "5 parsecs", "-1s", "1e400s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for (text, expected) in [("64MiB", 64 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2000), ("4096", 4096)] {
            assert_eq!(parse_bytes(text), Some(expected), "{text}");
        }
        for text in ["", "MiB", "5 stones"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let mut settings = Settings::default();
        let error = settings.set_pair("checkpoint_intervall=1s").expect_err("misspelt");
        assert_eq!(error.hint().as_deref(), Some("Did you mean \"checkpoint_interval\"?"));
        let error = settings.add_toml("[log]\nlevle = \"debug\"", "freshet.toml", Origin::File).expect_err("misspelt");
        assert_eq!(error.hint().as_deref(), Some("Did you mean \"log.level\"?"));
        assert!(
            settings.add_toml("pg = ", "freshet.toml", Origin::File).expect_err("not TOML").to_string().contains("freshet.toml")
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let mut settings = Settings::default();
        settings.set_pair("flush_interval=1s").expect("a key");
        settings.add_toml("flush_interval = \"9s\"\nmax_connections = 7", "freshet.toml", Origin::File).expect("keys");
        settings
            .add_toml("[storage.s3]\nendpoint = \"http://127.0.0.1:9000\"\nsecret-key = \"x\"", "freshet.toml", Origin::File)
            .expect("keys");
        let config = Config::new(settings).expect("valid");
        assert_eq!(config.flush_interval, Duration::from_secs(1));
        assert_eq!(config.connections_max, 7);
        assert_eq!(config.storage["s3.endpoint"], "http://127.0.0.1:9000");
        let shown: BTreeMap<_, _> = config.settings.list().collect();
        assert_eq!(shown["storage.s3.secret-key"].value, "********");
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for pair in ["flush_interval=soon", "memory_limit=0%", "memory_limit=lots", "max_connections=0", "log.format=xml"] {
            let mut settings = Settings::default();
            settings.set_pair(pair).expect("a key");
            let error = Config::new(settings).expect_err(pair);
            assert!(error.hint().is_some_and(|hint| hint.starts_with("It must be")), "{pair}: {error}");
        }
    }

    #[test]
    fn system_settings_survive_as_toml() {
        let mut settings = Settings::default();
        settings.set("checkpoint_interval", "50ms", Origin::System).expect("a key");
        let mut again = Settings::default();
        again.add_toml(&settings.to_toml(Origin::System), "settings.toml", Origin::System).expect("our own text");
        assert_eq!(again, settings);
    }
}
