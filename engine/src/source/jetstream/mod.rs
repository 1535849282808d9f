//! Jetstream: Bluesky's events over a websocket, version 2 first, version 1 where a host has no other.
//!
//! The wire delivers at least once and resumes inclusively. Exactly once is made of the cursor in the checkpoint and of
//! what may come twice: on one host of version 2 a sequence number says it; on version 1, and after a change of host or
//! version, the cursor goes back by `cursor.rewind` and events are known again by their ids, older ones by their time.

pub(in crate::source) mod frame;
mod options;
mod socket;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use serde_json::json;

use self::frame::{EventRows, Frame, parse};
use self::options::{JetstreamOptions, Protocol, Start};
use self::socket::{Connection, Cursor, Delivery, Socket};
use super::rows::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, wall_us};
use super::{Offset, SourceEvent, SourceReader, SplitId, SplitProgress};
use crate::format::{BadRecord, RECORD_BYTES_MAX};
use crate::plan::{ConnectorSpec, SourceNode};
use crate::{Error, Result};

const SPLIT: &str = "jetstream";

/// Longest an event waits for others.
const LINGER: Duration = Duration::from_millis(10);

/// Ids remembered for a change of host, at most.
const RECENT_MAX: usize = 65_536;

/// The stream counts as caught up when the last event is no older, or none came for so long.
const CAUGHT_UP: Duration = Duration::from_secs(1);

pub(super) fn check_options(spec: &ConnectorSpec) -> Result<()> {
    JetstreamOptions::of(spec).map(|_| ())
}

pub(super) fn probe(node: &SourceNode) -> Result<()> {
    EventRows::new(node)?;
    socket::probe(&JetstreamOptions::of(&node.connector)?)
}

/// Ids of the last events, by time, to know them again.
#[derive(Default)]
struct Recent {
    order: VecDeque<(i64, u64)>,
    ids: HashSet<u64>,
}

impl Recent {
    /// False when the id is known already.
    fn add(&mut self, time_us: i64, id: u64) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back((time_us, id));
        true
    }

    fn forget_before(&mut self, time_us: i64) {
        while let Some((time, id)) = self.order.front().copied()
            && (time < time_us || self.order.len() > RECENT_MAX)
        {
            self.order.pop_front();
            self.ids.remove(&id);
        }
    }
}

/// FNV-1a: the same in every build, as ids outlive the process.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

pub(super) struct JetstreamReader {
    options: JetstreamOptions,
    socket: Socket,
    rows: EventRows,
    /// What was taken in last.
    cursor: Option<Cursor>,
    connection: Option<Arc<Connection>>,
    decompressor: Option<zstd::dict::DecoderDictionary<'static>>,
    /// Events before this time were taken in before the connection: only a replay brings them.
    floor: i64,
    recent: Recent,
    /// Whether the first event of the connection is still to come.
    first: bool,
    /// Bad frames since the last event, and how many of them this connection will bring again.
    bad_since: u64,
    bad_again: u64,
    progress: SplitProgress,
    progress_changed: bool,
    progress_at: Instant,
    last_frame: Instant,
    /// The wall time of a mark that is still to be reached.
    mark_us: Option<i64>,
    bytes: u64,
}

impl JetstreamReader {
    pub(super) fn open(node: &SourceNode, offsets: &BTreeMap<SplitId, Offset>) -> Result<Self> {
        let options = JetstreamOptions::of(&node.connector)?;
        let rows = EventRows::new(node)?;
        let mut recent = Recent::default();
        let cursor = match offsets.get(SPLIT) {
            None => None,
            Some(offset) => Some(
                restore(offset, &mut recent)
                    .ok_or_else(|| Error::OffsetLost { message: format!("the offset {offset} is not one of Jetstream") })?,
            ),
        };
        let bad_since = offsets.get(SPLIT).and_then(|offset| offset.get("bad")).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let socket = Socket::start(options.clone(), cursor.clone())?;
        Ok(JetstreamReader {
            options,
            socket,
            rows,
            cursor,
            connection: None,
            decompressor: None,
            floor: i64::MIN,
            recent,
            first: false,
            bad_since,
            bad_again: 0,
            progress: SplitProgress::default(),
            progress_changed: false,
            progress_at: Instant::now(),
            last_frame: Instant::now(),
            mark_us: None,
            bytes: 0,
        })
    }

    fn offset(&self) -> Offset {
        let Some(cursor) = &self.cursor else { return serde_json::Value::Null };
        let mut offset = json!({
            "protocol": cursor.protocol.map(Protocol::name),
            "host": cursor.host,
            "seq": cursor.seq,
            "time_us": cursor.time_us,
            "floor": self.floor.max(0),
            "bad": self.bad_since,
        });
        // On the only host of version 2 the sequence number alone says what is new.
        if cursor.protocol == Some(Protocol::V1) || self.options.endpoints.len() > 1 {
            let mut recent = String::with_capacity(self.recent.order.len() * 30);
            for (time, id) in &self.recent.order {
                use std::fmt::Write;
                let _ = write!(recent, "{:x}:{id:x} ", cursor.time_us - time);
            }
            offset["recent"] = recent.into();
        }
        offset
    }

    fn connected(&mut self, connection: Arc<Connection>) {
        let protocol = connection.protocol;
        self.decompressor =
            connection.dictionary.as_ref().map(|dictionary| zstd::dict::DecoderDictionary::copy(&dictionary.bytes));
        if let Some(cursor) = &self.cursor {
            let same = cursor.host == connection.host
                && cursor.protocol == Some(protocol)
                && protocol == Protocol::V2
                && cursor.seq.is_some();
            self.floor = if same { i64::MIN } else { cursor.time_us - self.options.rewind_us };
            self.bad_again = if same { self.bad_since } else { 0 };
        }
        if connection.clamped {
            self.progress.gaps += 1;
            self.progress_changed = true;
        }
        self.first = true;
        self.connection = Some(connection);
        self.last_frame = Instant::now();
    }

    /// Takes in a frame: a row, a duplicate, something set aside, or news of the stream.
    fn frame(&mut self, bytes: &[u8], compressed: bool) -> Result<()> {
        self.bytes += bytes.len() as u64;
        let Some(connection) = self.connection.clone() else { return Ok(()) };
        let text;
        let frame = if compressed {
            match self.decompress(bytes) {
                Ok(decompressed) => {
                    text = decompressed;
                    &text[..]
                }
                Err(bad) => {
                    self.set_aside(bad, bytes, connection.protocol);
                    return Ok(());
                }
            }
        } else {
            bytes
        };
        match parse(frame) {
            Ok(Frame::Event(event)) => self.event(&event, frame, &connection),
            Ok(Frame::Info(info)) => self.info(&info, &connection),
            Ok(Frame::Error(reason)) => {
                self.failed(format!("{} ended the stream: {reason}", connection.host));
                Ok(())
            }
            Err(bad) => {
                self.set_aside(bad, frame, connection.protocol);
                Ok(())
            }
        }
    }

    /// The host says something about the stream; only that a time was too old for it concerns us.
    fn info(&mut self, info: &str, connection: &Connection) -> Result<()> {
        let asked_for_oldest = connection.clamped || self.cursor.is_none() && self.options.start == Start::Earliest;
        if !info.contains("OutdatedCursor") || asked_for_oldest {
            return Ok(());
        }
        if self.options.too_old_is_error {
            let host = &connection.host;
            return Err(Error::OffsetLost {
                message: format!(
                    "{host} no longer holds the cursor: {info}; set cursor.too_old to 'clamp' to go on with its oldest event"
                ),
            });
        }
        self.progress.gaps += 1;
        self.progress_changed = true;
        Ok(())
    }

    /// A frame that does not parse has no number of its own: it is the n-th bad one behind the last event. Version 2 goes on
    /// right there, so the n first ones come again; version 1 goes back further, so its bad frames are known by their bytes.
    fn set_aside(&mut self, bad: BadRecord, frame: &[u8], protocol: Protocol) {
        let time_us = self.cursor.as_ref().map_or(0, |cursor| cursor.time_us);
        let known = match protocol {
            Protocol::V2 => self.bad_again > 0,
            Protocol::V1 => !self.recent.add(time_us, hash(frame)),
        };
        if known {
            self.bad_again = self.bad_again.saturating_sub(1);
            self.progress.duplicates += 1;
            self.progress_changed = true;
            return;
        }
        self.bad_since += 1;
        let after = self.cursor.as_ref().map_or("start".to_owned(), |cursor| cursor.seq.unwrap_or(cursor.time_us).to_string());
        self.rows.set_aside(bad, frame, SPLIT, format!("{after}+{}", self.bad_since));
    }

    fn event(&mut self, event: &frame::Event<'_>, frame: &[u8], connection: &Connection) -> Result<()> {
        let id = hash(event.id().as_bytes());
        if std::mem::take(&mut self.first) {
            self.check_gap(event.time_us, connection)?;
        }
        let known_seq = |cursor: &Cursor| {
            let same = cursor.host == connection.host
                && cursor.protocol == Some(connection.protocol)
                && connection.protocol == Protocol::V2;
            same && cursor.seq.zip(event.seq).is_some_and(|(last, seq)| seq <= last)
        };
        let known =
            self.cursor.as_ref().is_some_and(known_seq) || event.time_us < self.floor || !self.recent.add(event.time_us, id);
        if known {
            self.progress.duplicates += 1;
            self.progress_changed = true;
        } else if event.wanted(&self.options.collections) {
            self.rows.push(event, &connection.host, frame, SPLIT);
        }
        // The cursor never goes back: what a replay brings again is behind it.
        let moved = match &self.cursor {
            Some(cursor) if cursor.host == connection.host && cursor.protocol == Some(connection.protocol) => {
                event.seq.zip(cursor.seq).map_or(event.time_us >= cursor.time_us, |(seq, last)| seq > last)
            }
            Some(cursor) => event.time_us >= cursor.time_us || !known,
            None => true,
        };
        if moved {
            (self.bad_since, self.bad_again) = (0, 0);
            let time_us = self.cursor.as_ref().map_or(event.time_us, |cursor| cursor.time_us.max(event.time_us));
            self.cursor =
                Some(Cursor { host: connection.host.clone(), protocol: Some(connection.protocol), seq: event.seq, time_us });
            self.recent.forget_before(time_us - 2 * self.options.rewind_us);
        }
        Ok(())
    }

    /// Version 1 does not say that a cursor was too old: the first event lies far behind what was asked for.
    fn check_gap(&mut self, first_us: i64, connection: &Connection) -> Result<()> {
        let filtered = !self.options.collections.is_empty() || !self.options.dids.is_empty();
        let (Some(asked), Protocol::V1, false, Some(_)) = (connection.cursor, connection.protocol, filtered, &self.cursor) else {
            return Ok(());
        };
        if frame::is_micros(asked) && first_us - asked > 60_000_000 {
            if self.options.too_old_is_error {
                return Err(Error::OffsetLost {
                    message: format!(
                        "{} goes on {} s after the cursor; set cursor.too_old to 'clamp' to accept the gap",
                        connection.host,
                        (first_us - asked) / 1_000_000
                    ),
                });
            }
            self.progress.gaps += 1;
            self.progress_changed = true;
        }
        Ok(())
    }

    fn decompress(&self, bytes: &[u8]) -> Result<Vec<u8>, BadRecord> {
        let bad = |error: std::io::Error| BadRecord::new("22021", format!("the frame is not whole zstd: {error}"));
        let mut out = Vec::with_capacity(bytes.len() * 4);
        let limit = RECORD_BYTES_MAX as u64 + 1;
        match &self.decompressor {
            Some(dictionary) => {
                let decoder = zstd::stream::read::Decoder::with_prepared_dictionary(bytes, dictionary).map_err(bad)?;
                decoder.take(limit).read_to_end(&mut out).map_err(bad)?;
            }
            None => {
                zstd::stream::read::Decoder::with_buffer(bytes).map_err(bad)?.take(limit).read_to_end(&mut out).map_err(bad)?;
            }
        }
        Ok(out)
    }

    fn failed(&mut self, reason: String) {
        self.progress.last_error = Some(reason);
        self.progress_changed = true;
    }

    fn flush(&mut self) -> Result<SourceEvent> {
        let (rows, errors) = self.rows.take()?;
        let bytes = std::mem::take(&mut self.bytes);
        Ok(SourceEvent::Rows { split: SPLIT.to_owned(), rows, errors, offset: self.offset(), bytes })
    }

    /// Whether the events have reached the time of the mark.
    fn has_reached_mark(&self) -> bool {
        self.mark_us.is_some_and(|mark_us| self.cursor.as_ref().is_some_and(|cursor| cursor.time_us >= mark_us))
    }

    fn tell_mark(&mut self) -> SourceEvent {
        self.mark_us = None;
        SourceEvent::CaughtUp { split: SPLIT.to_owned() }
    }
}

/// The cursor and the ids of a checkpoint.
fn restore(offset: &Offset, recent: &mut Recent) -> Option<Cursor> {
    let time_us = offset.get("time_us")?.as_i64()?;
    let protocol = match offset.get("protocol")?.as_str()? {
        "v1" => Protocol::V1,
        "v2" => Protocol::V2,
        _ => return None,
    };
    for pair in offset.get("recent").and_then(serde_json::Value::as_str).unwrap_or_default().split_whitespace() {
        let (age, id) = pair.split_once(':')?;
        recent.add(time_us - i64::from_str_radix(age, 16).ok()?, u64::from_str_radix(id, 16).ok()?);
    }
    let host = offset.get("host")?.as_str()?.to_owned();
    Some(Cursor { host, protocol: Some(protocol), seq: offset.get("seq").and_then(serde_json::Value::as_i64), time_us })
}

impl SourceReader for JetstreamReader {
    fn splits(&self) -> Vec<SplitId> {
        vec![SPLIT.to_owned()]
    }

    fn next(&mut self, wait: Duration) -> Result<Option<SourceEvent>> {
        let deadline = Instant::now() + wait;
        let mut since: Option<Instant> = None;
        loop {
            if self.progress_changed && self.progress_at.elapsed() >= Duration::from_secs(1) {
                (self.progress_changed, self.progress_at) = (false, Instant::now());
                return Ok(Some(SourceEvent::Progress { split: SPLIT.to_owned(), progress: self.progress.clone() }));
            }
            if since.is_none() && self.has_reached_mark() {
                return Ok(Some(self.tell_mark()));
            }
            let until = since.map_or(deadline, |since| since + LINGER);
            let delivery = self.socket.buffer.take(until);
            match delivery {
                Some(Delivery::Connected(connection)) => self.connected(connection),
                Some(Delivery::Frame { bytes, compressed }) => {
                    self.last_frame = Instant::now();
                    if self.progress.last_error.take().is_some() {
                        self.progress_changed = true;
                    }
                    self.frame(&bytes, compressed)?;
                    since = since.or_else(|| Some(Instant::now()));
                    if self.rows.records() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX as u64 {
                        return self.flush().map(Some);
                    }
                }
                Some(Delivery::Lost(reason)) => {
                    self.progress.reconnects += 1;
                    self.failed(reason);
                    self.socket.buffer.set_cursor(self.cursor.clone());
                    // What a bad frame left behind must not be counted twice by the next connection.
                    if since.is_some() {
                        return self.flush().map(Some);
                    }
                }
                Some(Delivery::Fatal(error)) => return Err(error),
                None if since.is_some() => return self.flush().map(Some),
                // A connected stream that is silent for so long holds nothing more.
                None if self.mark_us.is_some() && self.connection.is_some() && self.last_frame.elapsed() >= CAUGHT_UP => {
                    return Ok(Some(self.tell_mark()));
                }
                None => return Ok(None),
            }
        }
    }

    fn mark_end(&mut self) {
        self.mark_us = Some(wall_us());
        self.last_frame = Instant::now();
    }
}
