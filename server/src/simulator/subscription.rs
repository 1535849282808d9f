//! What a client asks for in its address: cursor, filters, compression. Pure, as strict as the real hosts.

use std::collections::BTreeSet;

/// A request as the host understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) protocol: Protocol,
    pub(super) cursor: Option<Cursor>,
    pub(super) filter: Filter,
    pub(super) zstd: bool,
    /// Frames of more bytes are left out; 0: none.
    pub(super) message_bytes_max: usize,
    /// Nothing is sent before the first `options_update`.
    pub(super) hello: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    V1 {
        /// The host speaks the second protocol too, and adds its sequence number as `cursor`.
        with_seq: bool,
    },
    V2,
}

/// Where to begin, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    Seq(u64),
    TimeUs(i64),
}

/// Numbers from here on are microseconds since 1970, below they are sequence numbers.
const TIMES_BEGIN: u64 = 1_000_000_000_000_000;

const COLLECTIONS_MAX: usize = 100;
const DIDS_MAX: usize = 10_000;
const KINDS: [&str; 4] = ["commit", "identity", "account", "sync"];

/// Which events a client wants; an empty set wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) kinds: BTreeSet<String>,
    /// `a.b.c`, or `a.b.` for `a.b.*`.
    pub(super) collections: BTreeSet<String>,
    pub(super) dids: BTreeSet<String>,
}

/// An answer of 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: &'static str,
    pub(super) message: String,
}

impl Filter {
    /// Commits are told apart by collection; what is about accounts passes all collections.
    pub(super) fn wants(&self, kind: &str, collection: Option<&str>, did: &str) -> bool {
        let collection = match collection {
            Some(name) if !self.collections.is_empty() => self
                .collections
                .iter()
                .any(|wanted| wanted == name || (wanted.ends_with('.') && name.starts_with(wanted.as_str()))),
            _ => true,
        };
        collection && (self.kinds.is_empty() || self.kinds.contains(kind)) && (self.dids.is_empty() || self.dids.contains(did))
    }

    fn bounded(self) -> Result<Self, Refusal> {
        if self.collections.len() > COLLECTIONS_MAX {
            return Err(invalid(format!("too many collections: {} > {COLLECTIONS_MAX}", self.collections.len())));
        }
        if self.dids.len() > DIDS_MAX {
            return Err(invalid(format!("too many dids: {} > {DIDS_MAX}", self.dids.len())));
        }
        Ok(self)
    }

    fn add_collection(&mut self, name: &str, prefixes: Prefixes) -> Result<(), Refusal> {
        match (name.strip_suffix('*'), prefixes) {
            (Some(prefix), Prefixes::Unchecked) if prefix.ends_with('.') => self.collections.insert(prefix.to_owned()),
            (Some(prefix), Prefixes::Checked) if prefix.strip_suffix('.').is_some_and(|authority| is_nsid(authority, 2)) => {
                self.collections.insert(prefix.to_owned())
            }
            (None, _) if is_nsid(name, 3) => self.collections.insert(name.to_owned()),
            _ => return Err(invalid(format!("invalid collection: {name}"))),
        };
        Ok(())
    }

    fn add_did(&mut self, did: &str) -> Result<(), Refusal> {
        if !is_did(did) {
            return Err(invalid(format!("invalid DID: {did}")));
        }
        self.dids.insert(did.to_owned());
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Prefixes {
    Checked,
    Unchecked,
}

/// `/subscribe?…`.
pub(super) fn parse_v1(query: &str, zstd_header: bool, with_seq: bool) -> Result<Subscription, Refusal> {
    let mut subscription = Subscription {
        protocol: Protocol::V1 { with_seq },
        cursor: None,
        filter: Filter::default(),
        zstd: zstd_header,
        message_bytes_max: 0,
        hello: false,
    };
    for (name, value) in parameters(query) {
        match name.as_str() {
            "wantedCollections" => subscription.filter.add_collection(&value, Prefixes::Unchecked)?,
            "wantedDids" => subscription.filter.add_did(&value)?,
            "cursor" => {
                let number: u64 = value.parse().map_err(|_| invalid(format!("invalid cursor: {value}")))?;
                // A host of the second protocol takes small numbers for its own.
                subscription.cursor = Some(if with_seq { cursor(number) } else { Cursor::TimeUs(time(number)) });
            }
            "compress" => subscription.zstd |= value == "true",
            "maxMessageSizeBytes" => subscription.message_bytes_max = value.parse().unwrap_or(0),
            "requireHello" => subscription.hello = value == "true",
            _ => {}
        }
    }
    subscription.filter = subscription.filter.bounded()?;
    Ok(subscription)
}

/// `/xrpc/network.bsky.jetstream.subscribeEvents?…`.
pub(super) fn parse_v2(query: &str, dictionary: u32, oldest_seq: u64) -> Result<Subscription, Refusal> {
    let mut subscription = Subscription {
        protocol: Protocol::V2,
        cursor: None,
        filter: Filter::default(),
        zstd: false,
        message_bytes_max: 0,
        hello: false,
    };
    for (name, value) in parameters(query) {
        match name.as_str() {
            "kinds" if KINDS.contains(&value.as_str()) => drop(subscription.filter.kinds.insert(value)),
            "kinds" => return Err(invalid(format!("unknown kind: {value}"))),
            "collections" => subscription.filter.add_collection(&value, Prefixes::Checked)?,
            "dids" => subscription.filter.add_did(&value)?,
            "cursor" => {
                let number: u64 = value.parse().map_err(|_| invalid(format!("invalid cursor: {value}")))?;
                subscription.cursor = Some(cursor(number));
            }
            "zstdDictionary" if value.parse() == Ok(dictionary) => subscription.zstd = true,
            "zstdDictionary" => return Err(unknown_dictionary(dictionary)),
            "maxMessageSizeBytes" => subscription.message_bytes_max = value.parse().unwrap_or(0),
            "wantedCollections" | "wantedDids" | "compress" | "requireHello" => {
                return Err(invalid(format!("{name} belongs to /subscribe")));
            }
            _ => {}
        }
    }
    let filter = &subscription.filter;
    if !filter.collections.is_empty() && !filter.kinds.is_empty() && !filter.kinds.contains("commit") {
        return Err(invalid("collections need the kind commit".to_owned()));
    }
    if matches!(subscription.cursor, Some(Cursor::Seq(seq)) if seq < oldest_seq) {
        return Err(Refusal { error: "CursorTooOld", message: format!("the oldest event kept is {oldest_seq}") });
    }
    subscription.filter = subscription.filter.bounded()?;
    Ok(subscription)
}

/// What a client of the first protocol sends to change its filters.
pub(super) fn parse_update(text: &str) -> Result<Option<(Filter, usize)>, UpdateError> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        r#type: String,
        payload: serde_json::Value,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Payload {
        wanted_collections: Vec<String>,
        wanted_dids: Vec<String>,
        max_message_size_bytes: usize,
    }
    let envelope: Envelope = serde_json::from_str(text).map_err(|_| UpdateError::Envelope)?;
    if envelope.r#type != "options_update" {
        return Ok(None);
    }
    let payload: Payload = serde_json::from_value(envelope.payload).map_err(|_| UpdateError::Options)?;
    let mut filter = Filter::default();
    let added = payload.wanted_collections.iter().try_for_each(|name| filter.add_collection(name, Prefixes::Unchecked));
    let added = added.and_then(|()| payload.wanted_dids.iter().try_for_each(|did| filter.add_did(did)));
    let filter = added.and_then(|()| filter.bounded()).map_err(|_| UpdateError::Options)?;
    Ok(Some((filter, payload.max_message_size_bytes)))
}

/// Why an update closes the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UpdateError {
    /// No JSON of the right form: 1007.
    Envelope,
    /// Options that mean nothing: 1008.
    Options,
}

pub(super) fn unknown_dictionary(id: u32) -> Refusal {
    Refusal { error: "UnknownZstdDictionary", message: format!("the current dictionary is {id}") }
}

/// Names and values of a query string, decoded.
pub(super) fn parameters(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn cursor(number: u64) -> Cursor {
    if number < TIMES_BEGIN { Cursor::Seq(number) } else { Cursor::TimeUs(time(number)) }
}

fn time(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn invalid(message: String) -> Refusal {
    Refusal { error: "InvalidRequest", message }
}

fn is_nsid(name: &str, parts_min: usize) -> bool {
    let part = |part: &str| !part.is_empty() && part.len() <= 63 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    name.len() <= 317 && name.split('.').count() >= parts_min && name.split('.').all(part)
}

fn is_did(did: &str) -> bool {
    let Some((method, id)) = did.strip_prefix("did:").and_then(|rest| rest.split_once(':')) else { return false };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:%-".contains(&b);
    !method.is_empty() && method.bytes().all(|b| b.is_ascii_lowercase()) && !id.is_empty() && id.bytes().all(allowed)
}
