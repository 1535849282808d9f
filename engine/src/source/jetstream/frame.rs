//! Frames of both protocol versions become rows of the canonical columns.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, TimeUnit};
use catalog::ErrorRecord;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Result;
use crate::format::column::{Column, Meta};
use crate::format::{BadRecord, RECORD_BYTES_MAX, sanitize_json};
use crate::plan::{ColumnOrigin, SourceColumn, SourceNode};
use crate::source::generator::columns_by_name;
use crate::source::rows::{decode_error, wall_us};

/// The canonical columns, in order.
pub(in crate::source) const COLUMNS: [&str; 17] = [
    "seq",
    "did",
    "time_us",
    "event_time",
    "kind",
    "operation",
    "collection",
    "rkey",
    "rev",
    "rev_time",
    "cid",
    "record",
    "payload",
    "uri",
    "event_id",
    "host",
    "ingest_time",
];

pub(in crate::source) fn own_columns() -> Vec<SourceColumn> {
    let column = |name: &str| {
        let data_type = match name {
            "seq" | "time_us" => DataType::Int64,
            "event_time" | "rev_time" | "ingest_time" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8,
        };
        let mut field = Field::new(name, data_type, true);
        if matches!(name, "record" | "payload") {
            field = field.with_metadata(HashMap::from([("freshet.type".to_owned(), "jsonb".to_owned())]));
        }
        SourceColumn { field: Arc::new(field), origin: ColumnOrigin::Field(name.to_owned()) }
    };
    COLUMNS.iter().map(|name| column(name)).collect()
}

/// What a frame is.
#[expect(clippy::large_enum_variant, reason = "nearly every frame is an event, and it lives on the stack")]
pub(super) enum Frame<'a> {
    Event(Event<'a>),
    /// `#info`: something to know about the stream.
    Info(String),
    /// The server ends the stream and says why.
    Error(String),
}

/// An event of either version, borrowed from its frame.
#[derive(Debug)]
pub(in crate::source) struct Event<'a> {
    pub(super) seq: Option<i64>,
    pub(super) time_us: i64,
    did: Cow<'a, str>,
    kind: Cow<'a, str>,
    operation: Option<Cow<'a, str>>,
    pub(super) collection: Option<Cow<'a, str>>,
    rkey: Option<Cow<'a, str>>,
    rev: Option<Cow<'a, str>>,
    cid: Option<Cow<'a, str>>,
    record: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    /// `seq` within the body of identity and account events.
    body_seq: Option<i64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "$type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct V2<'a> {
    #[serde(rename = "$type", borrow)]
    kind: Cow<'a, str>,
    seq: Option<i64>,
    #[serde(borrow)]
    did: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rev: Option<Cow<'a, str>>,
    #[serde(borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    collection: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rkey: Option<Cow<'a, str>>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    cid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    identity: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
    #[serde(borrow)]
    sync: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct V1<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    time_us: i64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    cursor: Option<i64>,
    #[serde(borrow)]
    commit: Option<V1Commit<'a>>,
    #[serde(borrow)]
    identity: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct V1Commit<'a> {
    #[serde(borrow)]
    rev: Option<Cow<'a, str>>,
    #[serde(borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    collection: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rkey: Option<Cow<'a, str>>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    cid: Option<Cow<'a, str>>,
}

fn body_seq(body: Option<&RawValue>) -> Option<i64> {
    #[derive(Deserialize)]
    struct Body {
        seq: Option<i64>,
    }
    serde_json::from_str::<Body>(body?.get()).ok()?.seq
}

/// Reads a frame.
pub(super) fn parse(frame: &[u8]) -> Result<Frame<'_>, BadRecord> {
    if frame.len() > RECORD_BYTES_MAX {
        return Err(BadRecord::new("54000", format!("the frame has {} bytes; at most {RECORD_BYTES_MAX} are read", frame.len())));
    }
    let text = simdutf8::compat::from_utf8(frame)
        .map_err(|error| BadRecord::new("22021", format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
    let syntax = |error: serde_json::Error| BadRecord::syntax(format!("not an event: {error}"));
    // Version 2 begins with its envelope; version 1 has none.
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(syntax)?;
    match (envelope.kind.as_deref(), envelope.payload) {
        (Some("error"), _) => {
            let name = envelope.error.unwrap_or(Cow::Borrowed("error"));
            Ok(Frame::Error(envelope.message.map_or(name.to_string(), |message| format!("{name}: {message}"))))
        }
        (Some("message"), Some(payload)) => {
            let event: V2<'_> = serde_json::from_str(payload.get()).map_err(syntax)?;
            let kind = event.kind.rsplit_once('#').map_or(event.kind.as_ref(), |(_, kind)| kind);
            if kind == "info" {
                return Ok(Frame::Info(payload.get().to_owned()));
            }
            let missing = |name: &str| BadRecord::syntax(format!("not an event: no \"{name}\""));
            let time = event.time.ok_or_else(|| missing("time"))?;
            let payload = event.identity.or(event.account).or(event.sync);
            Ok(Frame::Event(Event {
                seq: Some(event.seq.ok_or_else(|| missing("seq"))?),
                time_us: crate::format::parse_timestamp(time.as_bytes())?,
                did: event.did.ok_or_else(|| missing("did"))?,
                kind: Cow::Owned(kind.to_owned()),
                operation: event.operation,
                collection: event.collection,
                rkey: event.rkey,
                rev: event.rev,
                cid: event.cid,
                record: event.record,
                body_seq: body_seq(payload),
                payload,
            }))
        }
        _ => {
            let event: V1<'_> = serde_json::from_str(text).map_err(syntax)?;
            let payload = event.identity.or(event.account);
            let commit = event.commit;
            let mut parsed = Event {
                seq: event.cursor,
                time_us: event.time_us,
                did: event.did,
                kind: event.kind,
                operation: None,
                collection: None,
                rkey: None,
                rev: None,
                cid: None,
                record: None,
                body_seq: body_seq(payload),
                payload,
            };
            if let Some(commit) = commit {
                (parsed.operation, parsed.collection, parsed.rkey) = (commit.operation, commit.collection, commit.rkey);
                (parsed.rev, parsed.cid, parsed.record) = (commit.rev, commit.cid, commit.record);
            }
            Ok(Frame::Event(parsed))
        }
    }
}

impl Event<'_> {
    /// What makes the event the same on every host and in both versions.
    pub(super) fn id(&self) -> String {
        let text = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        if self.kind == "commit" {
            let (collection, rkey, rev, operation) =
                (text(&self.collection), text(&self.rkey), text(&self.rev), text(&self.operation));
            return format!("{}|{collection}|{rkey}|{rev}|{operation}", self.did);
        }
        format!("{}|{}|{}", self.did, self.kind, self.body_seq.unwrap_or(self.time_us))
    }

    /// Whether the event passes the collections asked for; events that are not commits always do.
    pub(super) fn wanted(&self, collections: &[String]) -> bool {
        let Some(own) = &self.collection else { return true };
        collections.is_empty()
            || collections.iter().any(|wanted| match wanted.strip_suffix(".*") {
                Some(prefix) => own.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')),
                None => wanted == own,
            })
    }

    fn value(&self, column: usize, host: &str) -> Meta<'_> {
        let text =
            |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| Meta::Owned(text.as_bytes().to_vec())).unwrap_or(Meta::Null);
        let raw = |raw: Option<&RawValue>| match raw {
            Some(raw) => Meta::Owned(sanitize_json(raw.get().as_bytes()).into_owned()),
            None => Meta::Null,
        };
        match COLUMNS[column] {
            "seq" => self.seq.map_or(Meta::Null, Meta::Integer),
            "did" => Meta::Bytes(self.did.as_bytes()),
            "time_us" => Meta::Integer(self.time_us),
            "event_time" => Meta::Micros(self.time_us),
            "kind" => Meta::Bytes(self.kind.as_bytes()),
            "operation" => text(&self.operation),
            "collection" => text(&self.collection),
            "rkey" => text(&self.rkey),
            "rev" => text(&self.rev),
            "rev_time" => self.rev.as_deref().and_then(tid_time).map_or(Meta::Null, Meta::Micros),
            "cid" => text(&self.cid),
            "record" => raw(self.record),
            "payload" => raw(self.payload),
            "uri" => match (&self.collection, &self.rkey) {
                (Some(collection), Some(rkey)) => Meta::Owned(format!("at://{}/{collection}/{rkey}", self.did).into_bytes()),
                _ => Meta::Null,
            },
            "event_id" => Meta::Owned(self.id().into_bytes()),
            "host" => Meta::Owned(host.as_bytes().to_vec()),
            _ => Meta::Micros(wall_us()),
        }
    }
}

/// Microseconds since 1970 in a TID.
fn tid_time(tid: &str) -> Option<i64> {
    if tid.len() != 13 {
        return None;
    }
    let bits = tid.bytes().try_fold(0u64, |bits, byte| {
        let digit = b"234567abcdefghijklmnopqrstuvwxyz".iter().position(|digit| *digit == byte)?;
        Some(bits << 5 | digit as u64)
    })?;
    i64::try_from(bits >> 10).ok()
}

/// Gathers events into batches of a node's schema.
pub(in crate::source) struct EventRows {
    /// For each output column its index in [`COLUMNS`].
    places: Vec<usize>,
    columns: Vec<Column>,
    errors: Vec<ErrorRecord>,
    rows: usize,
    schema: arrow::datatypes::SchemaRef,
    source: String,
}

impl EventRows {
    pub(in crate::source) fn new(node: &SourceNode) -> Result<Self> {
        let places = columns_by_name(node, &COLUMNS)?;
        let columns = node.projection.iter().map(|index| Column::new(&node.columns[*index].field)).collect::<Result<Vec<_>>>()?;
        Ok(EventRows {
            places,
            columns,
            errors: Vec::new(),
            rows: 0,
            schema: Arc::clone(&node.schema),
            source: node.name.clone(),
        })
    }

    /// Adds an event; one that a NOT NULL column refuses is set aside with its frame.
    pub(super) fn push(&mut self, event: &Event<'_>, host: &str, frame: &[u8], split: &str) {
        let mut columns = self.places.iter().zip(&mut self.columns);
        let appended = columns.try_for_each(|(place, column)| column.append_meta(&event.value(*place, host)));
        match appended {
            Ok(()) => self.rows += 1,
            Err(bad) => {
                self.columns.iter_mut().for_each(|column| column.truncate(self.rows));
                let offset = event.seq.unwrap_or(event.time_us).to_string();
                self.set_aside(bad, frame, split, offset);
            }
        }
    }

    pub(super) fn set_aside(&mut self, bad: BadRecord, frame: &[u8], split: &str, offset: String) {
        self.errors.push(decode_error(&self.source, split, offset, bad, frame));
    }

    /// A frame of the generator: an event, or set aside.
    pub(in crate::source) fn push_frame(&mut self, frame: &[u8], host: &str, split: &str, offset: u64) {
        match parse(frame) {
            Ok(Frame::Event(event)) => self.push(&event, host, frame, split),
            Ok(Frame::Info(_) | Frame::Error(_)) => {}
            Err(bad) => self.set_aside(bad, frame, split, offset.to_string()),
        }
    }

    pub(in crate::source) fn records(&self) -> usize {
        self.rows + self.errors.len()
    }

    pub(in crate::source) fn take(&mut self) -> Result<(RecordBatch, Vec<ErrorRecord>)> {
        let columns = self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok((batch, std::mem::take(&mut self.errors)))
    }
}

/// Whether a number can be microseconds since 1970 of our time: a cursor in seconds or milliseconds would be taken for something else by the server.
pub(super) fn is_micros(cursor: i64) -> bool {
    (1_000_000_000_000_000..10_000_000_000_000_000).contains(&cursor)
}
