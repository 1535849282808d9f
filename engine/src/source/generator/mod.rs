//! Seeded generators: row n is a pure function of the seed and n, so that a reader resumes at an exact row.
//!
//! `rate` events a second of wall time (0: as fast as they are taken), `rows` events in all (0: endless), `seed`. The time
//! at which event 0 was due is part of the offset: after a restart the generator catches up with where it would have been.

pub mod bluesky;
pub(in crate::source) mod bluesky_source;
pub(in crate::source) mod nexmark;
pub(crate) mod random;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use catalog::ErrorRecord;
use serde_json::json;

use super::options::Options;
use super::rows::wall_us;
use super::{Offset, SourceEvent, SourceReader, SplitId, SplitProgress};
use crate::plan::{ConnectorSpec, SourceNode};
use crate::{Error, Result};

/// The one split of a generator.
const SPLIT: &str = "0";

/// Events are let go in groups of about this length of time, not one by one.
const GROUP: Duration = Duration::from_millis(10);

/// What makes rows of events.
pub(in crate::source) trait Events: Send {
    /// Rows of the events from `from` up to at most `to`, and the number of the event after them.
    fn rows(&mut self, from: u64, to: u64, started_us: i64) -> Result<(RecordBatch, Vec<ErrorRecord>, u64)>;
}

/// Pace and length, options of every generator.
#[derive(Debug, Clone, Copy)]
pub(in crate::source) struct Pace {
    /// Events per second of wall time, 0 for as fast as possible.
    pub(super) rate: f64,
    /// Events in all, 0 for endless.
    pub(super) events: u64,
}

impl Pace {
    pub(super) const OPTIONS: &'static [&'static str] = &["rate", "rows", "seed"];

    pub(super) fn of(options: &Options<'_>) -> Result<Pace> {
        let events = options.whole("rows", 0)?;
        // An endless generator without a rate would fill the disk of who only wanted to look.
        let rate = options.whole("rate", if events == 0 { 1000 } else { 0 })? as f64;
        Ok(Pace { rate, events })
    }
}

/// Whether the generator has a last row.
pub(super) fn is_bounded(connector: &ConnectorSpec) -> bool {
    let context = format!("connector \"{}\"", connector.connector);
    Pace::of(&Options::new(&context, &connector.options)).is_ok_and(|pace| pace.events > 0)
}

pub(in crate::source) struct GeneratorReader {
    events: Box<dyn Events>,
    pace: Pace,
    /// Number of the next event.
    next: u64,
    /// Wall time at which event 0 was due, microseconds since 1970.
    started_us: i64,
    done: bool,
    /// The first event after a mark that is still to be reached.
    mark: Option<u64>,
    progress_at: Instant,
}

impl GeneratorReader {
    pub(super) fn new(events: Box<dyn Events>, pace: Pace, offsets: &BTreeMap<SplitId, Offset>) -> Result<Self> {
        let mut reader = GeneratorReader {
            events,
            pace,
            next: 0,
            started_us: wall_us(),
            done: false,
            mark: None,
            progress_at: Instant::now(),
        };
        if let Some(offset) = offsets.get(SPLIT) {
            let part = |key: &str| offset.get(key).and_then(serde_json::Value::as_i64);
            let (Some(next), Some(started)) = (part("event"), part("started_us")) else {
                return Err(Error::OffsetLost { message: format!("the offset {offset} is not one of a generator") });
            };
            (reader.next, reader.started_us) = (next.max(0) as u64, started);
        }
        Ok(reader)
    }

    /// The first event that is not due yet.
    fn due(&self) -> u64 {
        let end = if self.pace.events == 0 { u64::MAX } else { self.pace.events };
        if self.pace.rate == 0.0 {
            return end;
        }
        let elapsed_us = (wall_us() - self.started_us).max(0) as f64;
        end.min((elapsed_us * self.pace.rate / 1e6) as u64 + 1)
    }
}

impl SourceReader for GeneratorReader {
    fn splits(&self) -> Vec<SplitId> {
        vec![SPLIT.to_owned()]
    }

    fn next(&mut self, wait: Duration) -> Result<Option<SourceEvent>> {
        let deadline = Instant::now() + wait;
        loop {
            let split = SPLIT.to_owned();
            if self.pace.events > 0 && self.next >= self.pace.events {
                if self.done {
                    std::thread::sleep(wait);
                    return Ok(None);
                }
                self.done = true;
                return Ok(Some(SourceEvent::Finished { split }));
            }
            if self.mark.is_some_and(|mark| self.next >= mark) {
                self.mark = None;
                return Ok(Some(SourceEvent::CaughtUp { split }));
            }
            let due = self.due();
            if self.next < due {
                let (rows, errors, next) = self.events.rows(self.next, due, self.started_us)?;
                self.next = next;
                if rows.num_rows() + errors.len() > 0 {
                    let bytes = rows.get_array_memory_size() as u64;
                    let offset = json!({ "event": self.next, "started_us": self.started_us });
                    return Ok(Some(SourceEvent::Rows { split, rows, errors, offset, bytes }));
                }
                continue;
            }
            if self.progress_at.elapsed() >= Duration::from_secs(1) {
                self.progress_at = Instant::now();
                let progress = SplitProgress { end_offset: Some(due.to_string()), lag_rows: Some(0), ..SplitProgress::default() };
                return Ok(Some(SourceEvent::Progress { split, progress }));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            std::thread::sleep(GROUP.min(deadline - now));
        }
    }

    fn mark_end(&mut self) {
        // A generator without a rate holds nothing that it has not given out.
        self.mark = Some(if self.pace.rate == 0.0 { self.next } else { self.due() });
    }
}

/// Index of the generator's column each projected column takes, by name.
pub(super) fn columns_by_name(node: &SourceNode, names: &[&str]) -> Result<Vec<usize>> {
    let find = |index: &usize| {
        let name = node.columns[*index].field.name();
        names.iter().position(|own| own == name).ok_or_else(|| Error::Option {
            message: format!("connector \"{}\" has no column \"{name}\"", node.connector.connector),
            hint: Some(format!("Its columns are: {}.", names.join(", "))),
        })
    };
    node.projection.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::{Taken, connector, node};
    use crate::source::{open, own_columns};

    #[test]
    fn generators_resume_at_every_offset() {
        for (name, rows) in [("nexmark", "40000"), ("bluesky", "20000")] {
            let all = [("rows", rows), ("table", "bid")];
            let spec = connector(name, if name == "nexmark" { &all } else { &all[..1] });
            let columns = own_columns(&spec).expect("a generator has columns");
            let names: Vec<_> = columns.iter().filter(|column| column.field.name() != "ingest_time").cloned().collect();
            let node = node(spec, names, None);
            let mut whole = Taken::default();
            whole.until(&mut *open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.finished.len() == 1);
            assert!(whole.rows() > 15_000 && whole.batches.len() > 1 && whole.errors.is_empty(), "{name}");
            for cut in 1..whole.batches.len() {
                let mut taken = Taken::default();
                taken.until(&mut *open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.batches.len() == cut);
                taken.until(&mut *open(&node, &taken.offsets).expect("opens"), |taken| taken.finished.len() == 1);
                assert!(taken.sorted() == whole.sorted(), "{name} cut after {cut}");
            }
        }
    }
}
