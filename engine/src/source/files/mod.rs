//! Files: each is a split; all are read side by side in one reader, the one that lags most in event time first.
//!
//! Reading file after file would end every window of the first before the second is opened. A split's offset is exact:
//! the byte of the next record, or the next row of a Parquet file. `mode = 'watch'` takes in new files in name order and
//! follows growing ones; their last line counts once its line feed is there.

mod glob;
mod lines;
mod parquet;
mod store;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::json;

use self::lines::LineSplit;
use self::parquet::ParquetSplit;
use self::store::{FileStore, STORE_OPTIONS};
use super::options::Options;
use super::rows::event_time_max;
use super::{Offset, SourceEvent, SourceReader, SplitId, SplitProgress};
use crate::format::column::Meta;
use crate::format::{Encoding, Framing};
use crate::plan::{ColumnOrigin, ConnectorSpec, SourceColumn, SourceNode};
use crate::{Error, Result};

/// How often `watch` looks for new files and growth: often where a look costs next to nothing, and never so often that
/// looking takes more than a fiftieth of the time; a listing of an object store is paid for by the piece.
const WATCH_INTERVAL_LOCAL: Duration = Duration::from_millis(20);
const WATCH_INTERVAL_REMOTE: Duration = Duration::from_millis(500);
const WATCH_REST_PER_LOOK: u32 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What is there at the start, to its end.
    Bounded,
    /// And whatever comes later.
    Watch,
}

struct FilesOptions<'a> {
    path: &'a str,
    mode: Mode,
    encoding: Encoding,
    all: Options<'a>,
}

impl<'a> FilesOptions<'a> {
    fn of(spec: &'a ConnectorSpec) -> Result<Self> {
        let all = Options::new("connector \"files\"", &spec.options);
        let known: Vec<&str> = ["path", "mode"].into_iter().chain(STORE_OPTIONS.iter().map(|(name, _)| *name)).collect();
        all.check_known(&known, &[])?;
        let path = all.required("path", "path is a file, a directory or a pattern such as '/data/*.jsonl'.")?;
        let mode = if all.choice("mode", &["bounded", "watch"])? == "watch" { Mode::Watch } else { Mode::Bounded };
        Ok(FilesOptions { path, mode, encoding: Encoding::of(spec)?, all })
    }
}

pub(super) fn check_options(spec: &ConnectorSpec) -> Result<()> {
    FilesOptions::of(spec).map(|_| ())
}

/// Whether only what is there at the start is read.
pub(super) fn is_bounded(spec: &ConnectorSpec) -> bool {
    FilesOptions::of(spec).is_ok_and(|options| options.mode == Mode::Bounded)
}

/// Whether files are there; a watched path may still be empty.
pub(super) fn probe(node: &SourceNode) -> Result<()> {
    let options = FilesOptions::of(&node.connector)?;
    let store = FileStore::open(options.path, &options.all)?;
    if store.list()?.is_empty() && options.mode == Mode::Bounded {
        return Err(store.nothing_found());
    }
    Ok(())
}

/// The columns of Parquet files, from the first one.
pub(super) fn own_columns(spec: &ConnectorSpec) -> Result<Option<Vec<SourceColumn>>> {
    let options = FilesOptions::of(spec)?;
    if options.encoding != Encoding::Parquet {
        return Ok(None);
    }
    let store = FileStore::open(options.path, &options.all)?;
    match store.list()?.first() {
        Some(file) => parquet::columns(&store, &file.path).map(Some),
        None => Err(store.nothing_found()),
    }
}

/// One file being read.
struct FileSplit {
    path: SplitId,
    body: Body,
    /// Greatest event time read; what lags most is read next.
    event_time: Option<i64>,
    blocks: u64,
    state: State,
    /// The end at the last mark is still to be reached.
    marked: bool,
}

enum Body {
    Lines(LineSplit),
    Parquet(ParquetSplit),
    /// A finished file that is no longer there.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There may be more to read now.
    Readable,
    /// Read to its present end; watched.
    AtEnd,
    /// Nothing follows.
    Finished,
}

/// What one step on a split gave.
enum Step {
    Rows {
        rows: arrow::array::RecordBatch,
        errors: Vec<catalog::ErrorRecord>,
        bytes: u64,
        offset: Offset,
    },
    /// Nothing at the moment.
    End,
}

pub(super) struct FilesReader {
    node: SourceNode,
    encoding: Encoding,
    mode: Mode,
    store: FileStore,
    splits: Vec<FileSplit>,
    pending: VecDeque<SourceEvent>,
    next_look: Instant,
    /// Whether a mark waits for the next look.
    marking: bool,
}

impl FilesReader {
    pub(super) fn open(node: &SourceNode, offsets: &BTreeMap<SplitId, Offset>) -> Result<Self> {
        let options = FilesOptions::of(&node.connector)?;
        let store = FileStore::open(options.path, &options.all)?;
        let (mode, encoding) = (options.mode, options.encoding.clone());
        let mut reader = FilesReader {
            node: node.clone(),
            encoding,
            mode,
            store,
            splits: Vec::new(),
            pending: VecDeque::new(),
            next_look: Instant::now(),
            marking: false,
        };
        let found = reader.store.list()?;
        if found.is_empty() && offsets.is_empty() && mode == Mode::Bounded {
            return Err(reader.store.nothing_found());
        }
        for file in &found {
            reader.add_split(&file.path, offsets.get(&file.path))?;
        }
        for (path, offset) in offsets {
            if found.iter().any(|file| file.path == *path) {
                continue;
            }
            if offset.get("end") != Some(&json!(true)) {
                return Err(Error::OffsetLost { message: format!("{path} is gone and was read only up to {offset}") });
            }
            let state = State::Readable;
            reader.splits.push(FileSplit {
                path: path.clone(),
                body: Body::Gone,
                event_time: None,
                blocks: 0,
                state,
                marked: false,
            });
        }
        Ok(reader)
    }

    fn add_split(&mut self, path: &str, offset: Option<&Offset>) -> Result<()> {
        let body = match self.encoding.framing() {
            Framing::Columnar => Body::Parquet(ParquetSplit::open(path, offset)?),
            _ => Body::Lines(LineSplit::open(&self.node, &self.encoding, &self.store, path, offset)?),
        };
        self.splits.push(FileSplit {
            path: path.to_owned(),
            body,
            event_time: None,
            blocks: 0,
            state: State::Readable,
            marked: false,
        });
        Ok(())
    }

    /// The readable split furthest behind: in event time, or in blocks read where there is no event time.
    fn next_split(&self) -> Option<usize> {
        let readable = self.splits.iter().enumerate().filter(|(_, split)| split.state == State::Readable);
        readable.min_by_key(|(index, split)| (split.event_time, split.blocks, *index)).map(|(index, _)| index)
    }

    fn step(&mut self, index: usize) -> Result<Option<SourceEvent>> {
        let watch = self.mode == Mode::Watch;
        let split = &mut self.splits[index];
        let step = match &mut split.body {
            Body::Lines(lines) => lines.step(&self.store, watch)?,
            Body::Parquet(parquet) => parquet.step(&self.node, &self.store, watch)?,
            Body::Gone => Step::End,
        };
        let name = split.path.clone();
        match step {
            Step::Rows { rows, errors, bytes, offset } => {
                split.event_time = split.event_time.max(event_time_max(&self.node, &rows));
                split.blocks += 1;
                Ok(Some(SourceEvent::Rows { split: name, rows, errors, offset, bytes }))
            }
            Step::End if watch && !matches!(split.body, Body::Gone) => {
                split.state = State::AtEnd;
                Ok(std::mem::take(&mut split.marked).then_some(SourceEvent::CaughtUp { split: name }))
            }
            Step::End => {
                split.state = State::Finished;
                Ok(Some(SourceEvent::Finished { split: name }))
            }
        }
    }

    /// Takes in new files and wakes splits that have grown.
    fn look(&mut self) -> Result<()> {
        let started = Instant::now();
        let looked = self.find_growth();
        let interval = if self.store.is_local() { WATCH_INTERVAL_LOCAL } else { WATCH_INTERVAL_REMOTE };
        self.next_look = Instant::now() + interval.max(started.elapsed() * WATCH_REST_PER_LOOK);
        looked
    }

    fn find_growth(&mut self) -> Result<()> {
        // A store that does not answer for a moment is no reason to stop: what is known goes on.
        let found = match self.store.list() {
            Ok(found) => found,
            Err(error) => {
                for split in &self.splits {
                    let progress = SplitProgress { last_error: Some(error.to_string()), ..SplitProgress::default() };
                    self.pending.push_back(SourceEvent::Progress { split: split.path.clone(), progress });
                }
                return Ok(());
            }
        };
        for file in found {
            match self.splits.iter_mut().find(|split| split.path == file.path) {
                Some(split) => {
                    if split.state == State::AtEnd {
                        let grown = match &split.body {
                            Body::Lines(lines) => lines.has_more(file.size)?,
                            Body::Parquet(parquet) => parquet.is_unread(),
                            Body::Gone => false,
                        };
                        if grown {
                            split.state = State::Readable;
                        }
                    }
                }
                None => {
                    self.add_split(&file.path, None)?;
                    self.pending.push_back(SourceEvent::NewSplit { split: file.path });
                }
            }
        }
        if std::mem::take(&mut self.marking) {
            for split in &mut self.splits {
                split.marked = split.state == State::Readable;
                if split.state == State::AtEnd {
                    self.pending.push_back(SourceEvent::CaughtUp { split: split.path.clone() });
                }
            }
        }
        Ok(())
    }
}

impl SourceReader for FilesReader {
    fn splits(&self) -> Vec<SplitId> {
        self.splits.iter().map(|split| split.path.clone()).collect()
    }

    fn next(&mut self, wait: Duration) -> Result<Option<SourceEvent>> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.mode == Mode::Watch && (self.marking || Instant::now() >= self.next_look) {
                self.look()?;
                continue;
            }
            if let Some(index) = self.next_split() {
                if let Some(event) = self.step(index)? {
                    return Ok(Some(event));
                }
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            let next_look = match self.mode {
                Mode::Watch => deadline.min(self.next_look),
                Mode::Bounded => deadline,
            };
            std::thread::sleep(next_look.saturating_duration_since(now));
        }
    }

    fn mark_end(&mut self) {
        self.marking = self.mode == Mode::Watch;
        self.splits.iter_mut().for_each(|split| split.marked = false);
        self.pending.retain(|event| !matches!(event, SourceEvent::CaughtUp { .. }));
    }
}

/// A number in an offset.
fn number_at(offset: Option<&Offset>, key: &str, path: &str) -> Result<u64> {
    match offset {
        None => Ok(0),
        Some(offset) => offset
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| Error::OffsetLost { message: format!("the offset {offset} of {path} is not one of this format") }),
    }
}

/// Columns of the metadata kind that files know: the path.
fn path_meta<'m>(origin: &ColumnOrigin, path: &'m str) -> Meta<'m> {
    match origin {
        ColumnOrigin::Metadata(name) if name == "path" => Meta::Bytes(path.as_bytes()),
        _ => Meta::Null,
    }
}
