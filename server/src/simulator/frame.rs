//! Events as frames: the second protocol's form made from the first's, and compression with a trained dictionary.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Feed;

const DICTIONARY_BYTES: usize = 65_536;
const SAMPLES: u64 = 2_000;

/// An event of the first protocol, as far as a host looks into it. Records stay text: what is wrong in them stays wrong.
#[derive(Debug, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) did: std::borrow::Cow<'a, str>,
    pub(super) time_us: i64,
    #[serde(borrow)]
    pub(super) kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(super) commit: Option<Commit<'a>>,
    #[serde(borrow)]
    identity: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Commit<'a> {
    #[serde(borrow)]
    rev: &'a RawValue,
    #[serde(borrow)]
    operation: &'a RawValue,
    #[serde(borrow)]
    pub(super) collection: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    rkey: &'a RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    cid: Option<&'a RawValue>,
}

/// The frame of the second protocol. What does not parse is sent as it is: bad events are part of life.
pub(super) fn v2(text: &str, event: Option<&Event<'_>>, seq: u64) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        #[serde(rename = "$type")]
        kind: &'static str,
        payload: Payload<'a>,
    }
    #[derive(Serialize)]
    struct Payload<'a> {
        #[serde(rename = "$type")]
        kind: String,
        seq: u64,
        did: &'a str,
        time: String,
        #[serde(flatten)]
        commit: Option<&'a Commit<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        account: Option<&'a RawValue>,
    }
    let Some(event) = event else { return format!("{{\"$type\":\"message\",\"payload\":{text}}}") };
    let payload = Payload {
        kind: format!("network.bsky.jetstream.subscribeEvents#{}", event.kind),
        seq,
        did: &event.did,
        time: rfc3339(event.time_us),
        commit: event.commit.as_ref(),
        identity: event.identity,
        account: event.account,
    };
    serde_json::to_string(&Frame { kind: "message", payload }).unwrap_or_else(|_| text.to_owned())
}

/// The frame of the first protocol on a host that speaks both.
pub(super) fn v1_with_seq(text: &str, seq: u64) -> String {
    match text.strip_suffix('}') {
        Some(open) => format!("{open},\"cursor\":{seq}}}"),
        None => text.to_owned(),
    }
}

/// The frame that says that a cursor was older than the log.
pub(super) fn outdated_cursor() -> String {
    let kind = "network.bsky.jetstream.subscribeEvents#info";
    format!("{{\"$type\":\"message\",\"payload\":{{\"$type\":\"{kind}\",\"name\":\"OutdatedCursor\",\"message\":\"the stream begins at the oldest event kept\"}}}}")
}

/// The last frame before the end.
pub(super) fn error(name: &str) -> String {
    format!("{{\"$type\":\"error\",\"error\":\"{name}\"}}")
}

fn rfc3339(time_us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(time_us).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// A dictionary for events of this feed.
pub(super) fn dictionary(feed: &dyn Feed) -> std::io::Result<Vec<u8>> {
    let samples: Vec<String> = (0..SAMPLES).map(|number| feed.event(number, 1_767_225_600_000_000 + number as i64)).collect();
    zstd::dict::from_samples(&samples, DICTIONARY_BYTES)
}

/// The number in a dictionary's head.
pub(super) fn dictionary_id(dictionary: &[u8]) -> u32 {
    dictionary.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}
