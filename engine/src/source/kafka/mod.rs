//! Kafka: partitions assigned by hand at the offsets of the checkpoint, no group and no rebalance.
//!
//! Payloads are copied into one buffer per partition and decoded together. Where a partition ends is what librdkafka says
//! when its position reaches it: transaction markers occupy offsets, so counting records would never arrive.

mod options;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use serde_json::json;

use self::options::{End, KafkaOptions, Start};
use super::rows::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, RowAssembler};
use super::{Offset, SourceEvent, SourceReader, SplitId, SplitProgress};
use crate::format::column::Meta;
use crate::format::{BadRecord, Utf8};
use crate::plan::{ColumnOrigin, ConnectorSpec, SourceNode};
use crate::{Error, Result};

/// Longest wait for an answer of the broker at the start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest a record waits for others.
const LINGER: Duration = Duration::from_millis(10);

/// Silence after which what is left before the end of a partition is taken to be markers of transactions.
const MARKERS_WAIT: Duration = Duration::from_secs(1);

/// How often the ends of partitions that are behind are asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn check_options(spec: &ConnectorSpec) -> Result<()> {
    KafkaOptions::of(spec).map(|_| ())
}

/// Whether reading stops somewhere.
pub(super) fn is_bounded(spec: &ConnectorSpec) -> bool {
    KafkaOptions::of(spec).is_ok_and(|options| !matches!(options.end, End::Never))
}

/// Whether the broker answers and has the topic.
pub(super) fn probe(node: &SourceNode) -> Result<()> {
    let options = KafkaOptions::of(&node.connector)?;
    let consumer = consumer(&options, node)?;
    partitions(&consumer, &options).map(|_| ())
}

/// Keeps what librdkafka says beside error codes: the code alone does not tell a wrong password from a closed port.
#[derive(Default)]
struct Listener {
    last: Mutex<Option<String>>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
        if (level as i32) <= RDKafkaLogLevel::Error as i32 {
            *self.last.lock() = Some(message.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        *self.last.lock() = Some(reason.to_owned());
    }
}

impl ConsumerContext for Listener {}

type KafkaConsumer = BaseConsumer<Listener>;

fn consumer(options: &KafkaOptions, node: &SourceNode) -> Result<KafkaConsumer> {
    let config = options.client_config(&format!("{}{}", options.group_prefix, node.table.0));
    config.create_with_context(Listener::default()).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, name, value) => Error::Option {
            message: format!("invalid option \"properties.{name}\" = \"{value}\": {reason}"),
            hint: Some("properties.* are librdkafka's configuration names.".into()),
        },
        other => Error::Unreachable { message: format!("could not start a Kafka client: {other}"), hint: None },
    })
}

fn unreachable(consumer: &KafkaConsumer, options: &KafkaOptions, action: &str, error: &KafkaError) -> Error {
    // The reason arrives as an event, which only polling hands over.
    let deadline = Instant::now() + Duration::from_millis(300);
    while consumer.context().last.lock().is_none() && Instant::now() < deadline {
        let _ = consumer.poll(Duration::from_millis(20));
    }
    let reason = consumer.context().last.lock().clone().unwrap_or_else(|| error.to_string());
    Error::Unreachable {
        message: format!("could not {action} of Kafka broker \"{}\": {reason}", options.brokers),
        hint: Some("Check properties.bootstrap.servers, the listener's protocol and the credentials.".into()),
    }
}

/// The topic's partitions.
fn partitions(consumer: &KafkaConsumer, options: &KafkaOptions) -> Result<Vec<i32>> {
    let metadata = consumer
        .fetch_metadata(Some(&options.topic), ANSWER_TIMEOUT)
        .map_err(|error| unreachable(consumer, options, "read the topics", &error))?;
    let topic = metadata.topics().first();
    let mut partitions: Vec<i32> = topic
        .filter(|topic| topic.error().is_none())
        .map_or(Vec::new(), |topic| topic.partitions().iter().map(|p| p.id()).collect());
    if partitions.is_empty() {
        return Err(Error::Option {
            message: format!("topic \"{}\" does not exist on Kafka broker \"{}\"", options.topic, options.brokers),
            hint: Some("Check the spelling, create the topic first, or ask for the right to read it.".into()),
        });
    }
    partitions.sort_unstable();
    Ok(partitions)
}

struct Partition {
    /// Offset of the next record.
    next: i64,
    /// Reading stops before this offset.
    end: Option<i64>,
    finished: bool,
    /// The broker's last word about it: there is nothing more.
    at_end: bool,
    mark: Mark,
    block: Block,
}

/// How a partition stands to the end that it is to tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// Where the end is has to be asked, not before this time.
    Wanted(Instant),
    /// To be told at this offset; since when that is known.
    At(i64, Instant),
}

impl Partition {
    fn new(next: i64, end: Option<i64>) -> Self {
        Partition { next, end, finished: false, at_end: false, mark: Mark::None, block: Block::default() }
    }

    /// Whether everything before the marked end is given out. Between the last record and the end there may be markers of
    /// transactions, which are never seen: then it is the broker's word that counts, once records had time to come.
    fn has_reached_mark(&self) -> bool {
        match self.mark {
            Mark::At(end, since) => self.next >= end || self.at_end && since.elapsed() >= MARKERS_WAIT,
            Mark::None | Mark::Wanted(_) => false,
        }
    }
}

/// Records of one partition waiting to be decoded together.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    records: Vec<Held>,
    read: u64,
}

struct Held {
    payload: Option<Range<usize>>,
    key: Option<Range<usize>>,
    offset: i64,
    timestamp_us: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

pub(super) struct KafkaReader {
    consumer: KafkaConsumer,
    options: KafkaOptions,
    partitions: BTreeMap<i32, Partition>,
    assembler: RowAssembler,
    wants_key: bool,
    wants_headers: bool,
    pending: VecDeque<SourceEvent>,
    /// Some partition has a mark.
    marked: bool,
    /// Records and bytes in all blocks, and when the first of them came.
    held_records: usize,
    held_bytes: usize,
    held_since: Option<Instant>,
    discovered: Instant,
    progress_at: Instant,
    last_error: Option<String>,
}

impl KafkaReader {
    pub(super) fn open(node: &SourceNode, offsets: &BTreeMap<SplitId, Offset>) -> Result<Self> {
        let options = KafkaOptions::of(&node.connector)?;
        let consumer = consumer(&options, node)?;
        let wants =
            |wanted: &dyn Fn(&ColumnOrigin) -> bool| node.projection.iter().any(|index| wanted(&node.columns[*index].origin));
        let mut reader = KafkaReader {
            assembler: RowAssembler::new(node, &options.encoding)?,
            wants_key: wants(&|origin| *origin == ColumnOrigin::Metadata("key".into())),
            wants_headers: wants(&|origin| {
                matches!(origin, ColumnOrigin::Header(_)) || *origin == ColumnOrigin::Metadata("headers".into())
            }),
            consumer,
            options,
            partitions: BTreeMap::new(),
            pending: VecDeque::new(),
            marked: false,
            held_records: 0,
            held_bytes: 0,
            held_since: None,
            discovered: Instant::now(),
            progress_at: Instant::now(),
            last_error: None,
        };
        for id in partitions(&reader.consumer, &reader.options)? {
            let partition = match offsets.get(&id.to_string()) {
                Some(offset) => reader.resumed(id, offset)?,
                None => {
                    let partition = reader.started(id)?;
                    // The place found now becomes part of the first checkpoint: `latest` means the same after a restart.
                    let (rows, errors) = reader.assembler.take()?;
                    let offset = offset_of(&partition);
                    reader.pending.push_back(SourceEvent::Rows { split: id.to_string(), rows, errors, offset, bytes: 0 });
                    partition
                }
            };
            reader.partitions.insert(id, partition);
        }
        reader.assign()?;
        Ok(reader)
    }

    fn resumed(&self, id: i32, offset: &Offset) -> Result<Partition> {
        let Some(next) = offset.get("offset").and_then(serde_json::Value::as_i64) else {
            return Err(Error::OffsetLost { message: format!("the offset {offset} of partition {id} is not one of Kafka") });
        };
        let end = offset.get("end").and_then(serde_json::Value::as_i64);
        Ok(Partition::new(next, end))
    }

    /// A partition without a checkpoint: where the options say.
    fn started(&self, id: i32) -> Result<Partition> {
        let (low, high) = self.watermarks(id)?;
        let next = match &self.options.start {
            Start::Earliest => low,
            Start::Latest => high,
            Start::Timestamp(millis) => self.offset_at(id, *millis)?.unwrap_or(high),
            Start::Offsets(offsets) => offsets.get(&id).copied().unwrap_or(low),
        };
        let end = match &self.options.end {
            End::Never => None,
            End::Latest => Some(high),
            End::Timestamp(millis) => Some(self.offset_at(id, *millis)?.unwrap_or(high)),
            End::Offsets(offsets) => Some(offsets.get(&id).copied().unwrap_or(high)),
        };
        Ok(Partition::new(next, end))
    }

    fn watermarks(&self, id: i32) -> Result<(i64, i64)> {
        let found = self.consumer.fetch_watermarks(&self.options.topic, id, ANSWER_TIMEOUT);
        found.map_err(|error| unreachable(&self.consumer, &self.options, "read the offsets", &error))
    }

    /// Offset of the first record at or after a time; none when there is no such record.
    fn offset_at(&self, id: i32, millis: i64) -> Result<Option<i64>> {
        let mut wanted = TopicPartitionList::new();
        let fault = |error: KafkaError| unreachable(&self.consumer, &self.options, "look up a time", &error);
        wanted.add_partition_offset(&self.options.topic, id, KafkaOffset::Offset(millis)).map_err(fault)?;
        let found = self.consumer.offsets_for_times(wanted, ANSWER_TIMEOUT).map_err(fault)?;
        Ok(found.elements().first().and_then(|element| match element.offset() {
            KafkaOffset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// Tells librdkafka what to read, from where: all partitions that are not finished.
    fn assign(&mut self) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (id, partition) in &mut self.partitions {
            if partition.end.is_some_and(|end| partition.next >= end) && !partition.finished {
                partition.finished = true;
                self.pending.push_back(SourceEvent::Finished { split: id.to_string() });
            }
            if !partition.finished {
                let added = list.add_partition_offset(&self.options.topic, *id, KafkaOffset::Offset(partition.next));
                added.map_err(|error| Error::OffsetLost {
                    message: format!("partition {id} cannot start at {}: {error}", partition.next),
                })?;
            }
        }
        self.consumer.assign(&list).map_err(|error| unreachable(&self.consumer, &self.options, "read the partitions", &error))
    }

    /// Takes in partitions that are new.
    fn discover(&mut self) -> Result<()> {
        self.discovered = Instant::now();
        let found = match partitions(&self.consumer, &self.options) {
            Ok(found) => found,
            Err(error) => {
                self.last_error = Some(error.to_string());
                return Ok(());
            }
        };
        for id in found.into_iter().filter(|id| !self.partitions.contains_key(id)).collect::<Vec<_>>() {
            // All that a new partition holds came after the start.
            let partition = Partition::new(0, None);
            let mut list = TopicPartitionList::new();
            let added = list.add_partition_offset(&self.options.topic, id, KafkaOffset::Beginning);
            added
                .and_then(|()| self.consumer.incremental_assign(&list))
                .map_err(|error| unreachable(&self.consumer, &self.options, "read a new partition", &error))?;
            self.partitions.insert(id, partition);
            self.pending.push_back(SourceEvent::NewSplit { split: id.to_string() });
        }
        Ok(())
    }

    /// Decodes and hands over what is held.
    fn flush(&mut self) -> Result<()> {
        for (id, partition) in &mut self.partitions {
            let finishing = !partition.finished && partition.end.is_some_and(|end| partition.next >= end);
            if !partition.block.records.is_empty() {
                let block = std::mem::take(&mut partition.block);
                let split = id.to_string();
                let utf8 = Utf8::of_block(&block.bytes);
                for record in &block.records {
                    let offset = || record.offset.to_string();
                    match &record.payload {
                        Some(payload) => {
                            let meta = |origin: &ColumnOrigin| metadata(origin, &block.bytes, record, *id, &self.options.topic);
                            self.assembler.push(&block.bytes[payload.clone()], utf8, &split, offset, meta);
                        }
                        None => {
                            let bad = BadRecord::syntax("the record has no value (a tombstone)");
                            self.assembler.set_aside(bad, &[], &split, offset());
                        }
                    }
                }
                let (rows, errors) = self.assembler.take()?;
                let offset = offset_of(partition);
                self.pending.push_back(SourceEvent::Rows { split, rows, errors, offset, bytes: block.read });
                // The buffer is used again, unless one huge record has blown it up.
                let Block { mut bytes, mut records, .. } = block;
                if bytes.capacity() <= 4 * BATCH_BYTES_MAX {
                    bytes.clear();
                    records.clear();
                    partition.block = Block { bytes, records, read: 0 };
                }
            }
            if finishing {
                partition.finished = true;
                let mut list = TopicPartitionList::new();
                list.add_partition(&self.options.topic, *id);
                // Not reading on is a saving only: what comes for a finished partition is dropped anyway.
                let _ = self.consumer.pause(&list);
                self.pending.push_back(SourceEvent::Finished { split: id.to_string() });
            }
        }
        (self.held_records, self.held_bytes, self.held_since) = (0, 0, None);
        Ok(())
    }

    /// What an error from polling means.
    fn fault(&mut self, error: KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        match (&error, code) {
            (KafkaError::PartitionEOF(id), _) => {
                if let Some(partition) = self.partitions.get_mut(id) {
                    partition.at_end = true;
                    // Everything up to the end at the start is behind: markers may fill the rest of the way.
                    if let Some(end) = partition.end {
                        partition.next = partition.next.max(end);
                    }
                }
                Ok(())
            }
            (_, Some(Code::OffsetOutOfRange | Code::AutoOffsetReset)) => {
                let places: Vec<String> =
                    self.partitions.iter().map(|(id, partition)| format!("{id}:{}", partition.next)).collect();
                Err(Error::OffsetLost {
                    message: format!(
                        "Kafka topic \"{}\" no longer holds the offset to go on from ({}); set offset.out_of_range to 'earliest' or 'latest' to go on without what is lost",
                        self.options.topic,
                        places.join(", ")
                    ),
                })
            }
            (
                _,
                Some(
                    Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::SaslAuthenticationFailed
                    | Code::Authentication,
                ),
            )
            | (KafkaError::MessageConsumptionFatal(_), _) => {
                Err(unreachable(&self.consumer, &self.options, &format!("read topic \"{}\"", self.options.topic), &error))
            }
            // librdkafka reconnects by itself for ever; the reason is shown meanwhile.
            _ => {
                let reason = self.consumer.context().last.lock().clone().unwrap_or_else(|| error.to_string());
                self.last_error = Some(reason);
                Ok(())
            }
        }
    }

    /// Asks where marked partitions end and tells of those that are there. Nothing may be held back meanwhile.
    fn tell_marks(&mut self) {
        for (id, partition) in &mut self.partitions {
            if let Mark::Wanted(at) = partition.mark
                && at <= Instant::now()
            {
                let ends = self.consumer.fetch_watermarks(&self.options.topic, *id, Duration::from_millis(500));
                let now = Instant::now();
                // A broker that does not answer is asked again, while records may come.
                partition.mark = ends.map_or(Mark::Wanted(now + Duration::from_secs(1)), |(_, high)| Mark::At(high, now));
            }
            if partition.has_reached_mark() {
                partition.mark = Mark::None;
                self.pending.push_back(SourceEvent::CaughtUp { split: id.to_string() });
            }
        }
    }

    fn progress(&mut self) {
        self.progress_at = Instant::now();
        // A broker that does not answer for one partition is not asked for the others.
        let mut answers = true;
        for (id, partition) in &self.partitions {
            let ask = || self.consumer.fetch_watermarks(&self.options.topic, *id, Duration::from_millis(200)).ok();
            let known = if answers { ask() } else { None };
            answers &= known.is_some();
            let end = partition.end.or(known.map(|(_, high)| high));
            let progress = SplitProgress {
                end_offset: end.map(|end| end.to_string()),
                lag_rows: end.map(|end| (end - partition.next).max(0) as u64),
                last_error: self.last_error.clone(),
                ..SplitProgress::default()
            };
            self.pending.push_back(SourceEvent::Progress { split: id.to_string(), progress });
        }
        self.last_error = None;
    }

    fn is_full(&self) -> bool {
        self.held_records >= BATCH_ROWS_MAX || self.held_bytes >= BATCH_BYTES_MAX
    }
}

fn offset_of(partition: &Partition) -> Offset {
    match partition.end {
        Some(end) => json!({ "offset": partition.next, "end": end }),
        None => json!({ "offset": partition.next }),
    }
}

fn metadata<'m>(origin: &ColumnOrigin, bytes: &'m [u8], record: &'m Held, partition: i32, topic: &'m str) -> Meta<'m> {
    match origin {
        ColumnOrigin::Header(name) => {
            let last = record.headers.iter().rev().find(|(key, _)| key == name);
            last.and_then(|(_, value)| value.as_deref()).map_or(Meta::Null, Meta::Bytes)
        }
        ColumnOrigin::Metadata(name) => match name.as_str() {
            "key" => record.key.clone().map_or(Meta::Null, |key| Meta::Bytes(&bytes[key])),
            "partition" => Meta::Integer(partition.into()),
            "offset" => Meta::Integer(record.offset),
            "timestamp" => record.timestamp_us.map_or(Meta::Null, Meta::Micros),
            "topic" => Meta::Bytes(topic.as_bytes()),
            "headers" => {
                // A list, because a key may come more than once.
                let list = record.headers.iter().map(|(key, value)| {
                    json!({ "key": key, "value": value.as_ref().map(|value| String::from_utf8_lossy(value).replace('\0', "\u{fffd}")) })
                });
                Meta::Owned(serde_json::Value::Array(list.collect()).to_string().into_bytes())
            }
            _ => Meta::Null,
        },
        ColumnOrigin::Field(_) => Meta::Null,
    }
}

impl SourceReader for KafkaReader {
    fn splits(&self) -> Vec<SplitId> {
        self.partitions.keys().map(i32::to_string).collect()
    }

    fn next(&mut self, wait: Duration) -> Result<Option<SourceEvent>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let unbounded = matches!(self.options.end, End::Never);
            if unbounded && self.discovered.elapsed() >= self.options.discovery {
                self.discover()?;
            }
            if self.progress_at.elapsed() >= PROGRESS_INTERVAL && self.held_since.is_none() {
                self.progress();
                continue;
            }
            if self.marked && self.held_since.is_none() {
                self.tell_marks();
                self.marked = self.partitions.values().any(|partition| partition.mark != Mark::None);
                if !self.pending.is_empty() {
                    continue;
                }
            }
            // With records in hand the others have until the linger is over, without any there is all the time given.
            let until = self.held_since.map_or(deadline, |since| since + LINGER);
            let consumer = &self.consumer;
            match consumer.poll(until.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) => {
                    let bytes = message.payload_len() + message.key_len();
                    let Some(partition) = self.partitions.get_mut(&message.partition()) else { continue };
                    hold(partition, &message, self.wants_key, self.wants_headers);
                    self.held_records += 1;
                    self.held_bytes += bytes;
                    if self.held_since.is_none() {
                        self.held_since = Some(Instant::now());
                    }
                    if self.is_full() {
                        self.flush()?;
                    }
                }
                Some(Err(error)) => {
                    self.fault(error)?;
                    self.flush()?;
                }
                None if self.held_since.is_some() => self.flush()?,
                None => return Ok(None),
            }
        }
    }

    fn mark_end(&mut self) {
        let now = Instant::now();
        let unbounded = self.partitions.values_mut().filter(|partition| partition.end.is_none() && !partition.finished);
        unbounded.for_each(|partition| partition.mark = Mark::Wanted(now));
        self.marked = true;
        self.pending.retain(|event| !matches!(event, SourceEvent::CaughtUp { .. }));
    }
}

/// Copies a message into its partition's block.
fn hold(partition: &mut Partition, message: &BorrowedMessage<'_>, wants_key: bool, wants_headers: bool) {
    let offset = message.offset();
    if partition.finished || offset < partition.next {
        return;
    }
    partition.at_end = false;
    if let Some(end) = partition.end
        && offset >= end
    {
        partition.next = end;
        return;
    }
    partition.next = offset + 1;
    let block = &mut partition.block;
    block.read += message.payload_len() as u64;
    let mut copy = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| {
            let start = block.bytes.len();
            block.bytes.extend_from_slice(bytes);
            start..block.bytes.len()
        })
    };
    let payload = copy(message.payload());
    let key = if wants_key { copy(message.key()) } else { None };
    let headers = if wants_headers { message.headers() } else { None };
    let headers = headers.map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    let timestamp_us = message.timestamp().to_millis().and_then(|millis| millis.checked_mul(1000));
    block.records.push(Held { payload, key, offset, timestamp_us, headers });
}
