//! The words of the log: a commit is one object with a head and sections.
//!
//! * [`codec`] turns sections into bytes and back, and trusts no byte it reads.
//! * [`rows`] turns changes into Arrow IPC and back; [`definition`] does the same for definitions as JSON.
//! * [`committer`] gathers requests and creates the objects.
//! * [`tail`] keeps the newest commits in memory for those who follow tables.

pub(crate) mod codec;
pub(crate) mod committer;
pub(crate) mod definition;
pub(crate) mod put;
pub(crate) mod rows;
pub(crate) mod tail;

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::table::{DataFile, FileEdit};
use crate::{Definition, Error, ObjectId, Result, Seq, StateKind};

/// First bytes of a commit.
pub(crate) const LOG_MAGIC: &[u8; 8] = b"FRESHLOG";
/// First bytes of a manifest.
pub(crate) const MANIFEST_MAGIC: &[u8; 8] = b"FRESHMAN";
/// Version of both, and of everything they contain.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Where a commit is.
pub(crate) fn log_path(seq: Seq) -> Path {
    Path::from(format!("log/{:020}", seq.0))
}

/// Where a manifest is.
pub(crate) fn manifest_path(seq: Seq) -> Path {
    Path::from(format!("manifest/{:020}", seq.0))
}

/// The commit in the name of a log object or a manifest; `None` for names that are neither.
pub(crate) fn seq_of(path: &Path) -> Option<Seq> {
    let name = path.filename()?;
    (name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok().map(Seq))?
}

/// What stands first in every log object and manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Identity of the data directory, made at its first open; `commitUser` of Paimon snapshots.
    pub database: String,
    /// How many times the directory has been opened. The newest opener is the writer.
    pub generation: u64,
    /// The commit.
    pub seq: Seq,
    /// Wall time, microseconds since 1970.
    pub time_us: i64,
    /// Random: tells our object from another's after an ambiguous answer.
    pub nonce: u64,
    /// The first object identity not yet given away.
    pub next_id: u64,
    /// The commit that opened this generation. In a manifest: all of them that must be kept.
    #[serde(default)]
    pub fences: Vec<Seq>,
    /// In a manifest: the commit that last changed definitions.
    #[serde(default)]
    pub definitions_version: u64,
}

/// A part of a commit or a manifest.
#[derive(Debug, Clone)]
pub(crate) enum Section {
    /// An epoch of a dataflow.
    Dataflow(DataflowSection),
    /// Rows for a table.
    Rows(RowsSection),
    /// A definition, new or changed.
    Define(Definition),
    /// An object is gone.
    Drop(ObjectId),
    /// Rows of a table are in files now, files were merged, or all rows are gone.
    Files(FileEdit),
    /// A table, in a manifest.
    Table(TableSection),
    /// Where a dataflow stands, in a manifest.
    Position(PositionSection),
}

/// An epoch of a dataflow: offsets and state parts, without its rows.
#[derive(Debug, Clone)]
pub(crate) struct DataflowSection {
    pub dataflow: ObjectId,
    pub epoch: u64,
    pub watermark: Option<i64>,
    pub finished: bool,
    pub reads: Vec<(ObjectId, Seq)>,
    pub offsets: Bytes,
    pub state: Vec<StateSection>,
}

/// State of one operator, in the section or in a file.
#[derive(Debug, Clone)]
pub(crate) struct StateSection {
    pub operator: u32,
    pub kind: StateKind,
    pub place: StatePlace,
}

/// Where the bytes of a state part are.
#[derive(Debug, Clone)]
pub(crate) enum StatePlace {
    /// In the section.
    Inline(Bytes),
    /// In a file of its own, because they are many.
    File(StateFile),
}

/// A file with one state part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateFile {
    /// Path from the root of the data directory.
    pub path: String,
    pub bytes: u64,
    pub crc: u32,
}

impl StateFile {
    /// # Errors
    /// [`Error::Corrupt`] when `content` is not what was written.
    pub(crate) fn verify(&self, content: &[u8]) -> Result<()> {
        if content.len() as u64 == self.bytes && crc32fast::hash(content) == self.crc {
            return Ok(());
        }
        Err(Error::Corrupt { path: self.path.clone(), reason: "its length or checksum is wrong".to_owned() })
    }
}

/// Rows of one table as they lie in the log.
#[derive(Debug, Clone)]
pub(crate) struct RowsSection {
    pub table: ObjectId,
    /// The last column is the kind of each row.
    pub kinds: bool,
    pub rows: u64,
    /// Arrow IPC stream.
    pub ipc: Bytes,
}

/// A table in a manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableSection {
    pub table: ObjectId,
    /// Rows up to this commit are in files.
    pub flushed: Seq,
    /// The oldest commit with rows that are not in files, if there is one.
    pub unflushed: Option<Seq>,
    /// The last commit with rows of this table.
    pub changed: Seq,
    /// The last commit with rows of this table or an epoch of its dataflow.
    pub touched: Seq,
    /// Live files when `unpublished` began.
    pub files: Vec<DataFile>,
    /// Edits since, whose Paimon snapshots are not known to exist.
    pub unpublished: Vec<(Seq, FileEdit)>,
    /// Newest published Paimon snapshot.
    pub snapshot: u64,
}

/// Where a dataflow stands, in a manifest.
#[derive(Debug, Clone)]
pub(crate) struct PositionSection {
    pub dataflow: ObjectId,
    pub epoch: u64,
    pub seq: Seq,
    pub watermark: Option<i64>,
    pub finished: bool,
    pub reads: Vec<(ObjectId, Seq)>,
    pub offsets: Bytes,
    pub state: Vec<StateRef>,
}

/// Names one state part: the `index`-th of `epoch` in commit `seq`, or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRef {
    pub operator: u32,
    #[serde(with = "codec::state_kind")]
    pub kind: StateKind,
    pub seq: Seq,
    pub epoch: u64,
    pub index: u32,
    pub file: Option<StateFile>,
}
