//! Sources: a definition becomes split readers; each yields batches with the offset after them.
//!
//! A reader runs on a thread of its own and never waits for what is behind it other than by its bounded queue.

mod files;
pub mod generator;
mod jetstream;
mod kafka;
pub(crate) mod options;
pub(crate) mod rows;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use catalog::ErrorRecord;

use self::generator::{GeneratorReader, bluesky_source, nexmark};
use crate::plan::{ConnectorSpec, SourceColumn, SourceNode};
use crate::{Error, Result};

/// Name of a split within its source: `0` for a Kafka partition, a file's path, `jetstream`.
pub type SplitId = String;

/// Where to resume a split: JSON, opaque outside its source.
pub type Offset = serde_json::Value;

/// What a reader has to say.
#[derive(Debug)]
pub enum SourceEvent {
    /// Rows of one split, in order.
    Rows {
        /// The split.
        split: SplitId,
        /// The node's schema (`SourceNode::schema`).
        rows: RecordBatch,
        /// Records that could not be decoded, with everything but the job's name filled in.
        errors: Vec<ErrorRecord>,
        /// Where the split goes on after these rows and errors.
        offset: Offset,
        /// Bytes read for them.
        bytes: u64,
    },
    /// The split has given out all it held at the latest [`SourceReader::mark_end`]; nothing says so unasked.
    CaughtUp {
        /// The split.
        split: SplitId,
    },
    /// A bounded split is read to its end; nothing follows for it.
    Finished {
        /// The split.
        split: SplitId,
    },
    /// A split that is new since the start (partition discovery, a new file).
    NewSplit {
        /// The split.
        split: SplitId,
    },
    /// Numbers for `freshet.splits`, sent when they change, at most once a second.
    Progress {
        /// The split.
        split: SplitId,
        /// The numbers.
        progress: SplitProgress,
    },
}

/// Numbers of a split that only its reader knows.
#[derive(Debug, Clone, Default)]
pub struct SplitProgress {
    /// End of the split if known.
    pub end_offset: Option<String>,
    /// Rows behind the end if known.
    pub lag_rows: Option<u64>,
    /// Reconnects so far.
    pub reconnects: u64,
    /// Duplicates dropped so far.
    pub duplicates: u64,
    /// Gaps seen so far.
    pub gaps: u64,
    /// Why it last failed, while it retries by itself.
    pub last_error: Option<String>,
}

/// Reads all splits of one source for one dataflow. Used by one thread.
pub trait SourceReader: Send {
    /// The splits known at the start.
    fn splits(&self) -> Vec<SplitId>;

    /// The next event, waiting at most `wait`; `None` when there is none by then.
    /// Must return soon after `cancel` is set. Batches are bounded: at most about 2 MiB or 8192 rows, and no row waits
    /// longer than about 10 ms for others. Among splits with rows ready the one that lags in event time goes first
    /// (files), so that no split runs ahead without bound.
    ///
    /// # Errors
    /// Anything that needs a restart of the dataflow from its last committed offsets.
    fn next(&mut self, wait: std::time::Duration) -> Result<Option<SourceEvent>>;

    /// Notes where every split ends at this moment. Each unbounded one says [`SourceEvent::CaughtUp`] once, when it has
    /// given out everything before there; what was said about an earlier mark no longer counts.
    fn mark_end(&mut self);
}

/// Opens a source at the given offsets; splits without one start where the options say.
/// # Errors
/// [`Error::Option`], [`Error::Unreachable`] or [`Error::OffsetLost`].
pub fn open(node: &SourceNode, offsets: &BTreeMap<SplitId, Offset>) -> Result<Box<dyn SourceReader>> {
    Ok(match Connector::of(&node.connector)? {
        Connector::Files => Box::new(files::FilesReader::open(node, offsets)?),
        Connector::Kafka => Box::new(kafka::KafkaReader::open(node, offsets)?),
        Connector::Jetstream => Box::new(jetstream::JetstreamReader::open(node, offsets)?),
        Connector::Nexmark => {
            let (events, pace) = nexmark::Nexmark::open(node)?;
            Box::new(GeneratorReader::new(Box::new(events), pace, offsets)?)
        }
        Connector::Bluesky => {
            let (events, pace) = bluesky_source::Bluesky::open(node)?;
            Box::new(GeneratorReader::new(Box::new(events), pace, offsets)?)
        }
    })
}

/// Checks the options of a streaming table and whether the outside answers (broker, topic, path), for `CREATE`.
/// # Errors
/// What [`open`] would fail with, within some seconds.
pub async fn probe(node: &SourceNode) -> Result<()> {
    check_options(&node.connector)?;
    let node = node.clone();
    let probed = tokio::task::spawn_blocking(move || match Connector::of(&node.connector)? {
        Connector::Files => files::probe(&node),
        Connector::Kafka => kafka::probe(&node),
        Connector::Jetstream => jetstream::probe(&node),
        Connector::Nexmark | Connector::Bluesky => open(&node, &BTreeMap::new()).map(|_| ()),
    });
    probed.await.unwrap_or_else(|error| {
        Err(Error::Unreachable { message: format!("the source could not be probed: {error}"), hint: None })
    })
}

/// The connector's own columns, where it has some: `jetstream`, `bluesky`, `nexmark`, and `files` of Parquet (of the first
/// file, so it must be there).
pub fn own_columns(connector: &ConnectorSpec) -> Option<Vec<SourceColumn>> {
    match Connector::of(connector).ok()? {
        Connector::Files => files::own_columns(connector).ok().flatten(),
        Connector::Kafka => None,
        Connector::Jetstream | Connector::Bluesky => Some(jetstream::frame::own_columns()),
        Connector::Nexmark => nexmark::own_columns(connector).ok(),
    }
}

/// Checks connector, format and option names and values without touching the outside.
/// # Errors
/// [`Error::Option`] naming the nearest right option.
pub fn check_options(connector: &ConnectorSpec) -> Result<()> {
    match Connector::of(connector)? {
        Connector::Files => files::check_options(connector),
        Connector::Kafka => kafka::check_options(connector),
        Connector::Jetstream => jetstream::check_options(connector),
        Connector::Nexmark => nexmark::check_options(connector),
        Connector::Bluesky => bluesky_source::check_options(connector),
    }
}

/// Whether a source ends by itself.
pub fn is_bounded(connector: &ConnectorSpec) -> bool {
    match Connector::of(connector) {
        Ok(Connector::Files) => files::is_bounded(connector),
        Ok(Connector::Kafka) => kafka::is_bounded(connector),
        Ok(Connector::Nexmark | Connector::Bluesky) => generator::is_bounded(connector),
        Ok(Connector::Jetstream) | Err(_) => false,
    }
}

/// The connectors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connector {
    Files,
    Kafka,
    Jetstream,
    Nexmark,
    Bluesky,
}

impl Connector {
    fn of(spec: &ConnectorSpec) -> Result<Connector> {
        let names = ["files", "kafka", "jetstream", "nexmark", "bluesky"];
        Ok(match options::choice("option \"connector\"", &spec.connector, &names)? {
            "files" => Connector::Files,
            "kafka" => Connector::Kafka,
            "jetstream" => Connector::Jetstream,
            "nexmark" => Connector::Nexmark,
            _ => Connector::Bluesky,
        })
    }
}
