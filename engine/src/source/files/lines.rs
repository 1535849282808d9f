//! A file of records in lines.

use serde_json::json;

use super::store::{FileStore, Handle};
use super::{Step, number_at, path_meta};
use crate::format::{BadRecord, Encoding, Framing, RECORD_BYTES_MAX, Utf8, bad_payload, record_end};
use crate::plan::SourceNode;
use crate::source::Offset;
use crate::source::rows::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, RowAssembler};
use crate::{Error, Result};

pub(super) struct LineSplit {
    path: String,
    handle: Option<Handle>,
    framing: Framing,
    assembler: RowAssembler,
    /// Bytes of the file from `buffer_at` on.
    buffer: Vec<u8>,
    buffer_at: u64,
    /// How much of the buffer is consumed.
    consumed: usize,
    /// How much behind `consumed` is known to hold no end of a record.
    searched: usize,
    /// Whether the heading is still to be read, at the start of the file.
    heading_due: bool,
    /// Start and first bytes of a record that is too long, while its end is looked for.
    oversized: Option<(u64, Vec<u8>)>,
}

impl LineSplit {
    pub(super) fn open(
        node: &SourceNode,
        encoding: &Encoding,
        store: &FileStore,
        path: &str,
        offset: Option<&Offset>,
    ) -> Result<Self> {
        let position = number_at(offset, "byte", path)?;
        let mut split = LineSplit {
            path: path.to_owned(),
            handle: None,
            framing: encoding.framing(),
            assembler: RowAssembler::new(node, encoding)?,
            buffer: Vec::new(),
            buffer_at: position,
            consumed: 0,
            searched: 0,
            heading_due: encoding.has_heading(),
            oversized: None,
        };
        if position > 0 {
            split.check_length(store, position)?;
            if split.heading_due {
                // The heading says where the fields are, so it is read again before going on in the middle.
                split.buffer_at = 0;
                split.fill(store)?;
                split.read_heading(true)?;
                split.buffer.clear();
                (split.buffer_at, split.consumed, split.searched) = (position, 0, 0);
            }
        }
        Ok(split)
    }

    fn check_length(&mut self, store: &FileStore, position: u64) -> Result<()> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => store.open_file(&self.path)?,
        };
        let size = store.size(&handle, &self.path)?;
        self.handle = Some(handle);
        if size < position {
            return Err(Error::OffsetLost {
                message: format!("{} has {size} bytes, it was read up to byte {position}", self.path),
            });
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.buffer_at + self.consumed as u64
    }

    /// Whether a file of `size` bytes holds more than has been read.
    pub(super) fn has_more(&self, size: u64) -> Result<bool> {
        let read = self.buffer_at + self.buffer.len() as u64;
        if size < self.position() {
            let message = format!("{} shrank to {size} bytes, it was read up to byte {}", self.path, self.position());
            return Err(Error::OffsetLost { message });
        }
        Ok(size > read)
    }

    /// Reads on behind what is buffered; how many bytes came.
    fn fill(&mut self, store: &FileStore) -> Result<usize> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => store.open_file(&self.path)?,
        };
        self.buffer.drain(..self.consumed);
        self.buffer_at += self.consumed as u64;
        self.consumed = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + BATCH_BYTES_MAX, 0);
        let read = store.read(&handle, &self.path, self.buffer_at + held as u64, &mut self.buffer[held..]);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        self.handle = Some(handle);
        read
    }

    /// The end of the first record that is whole, behind its line feed.
    fn whole_record(&mut self) -> Option<usize> {
        // Quotes have to be counted from the record's start; plain lines need not be searched twice.
        let from = if self.framing == Framing::Lines { self.consumed + self.searched } else { self.consumed };
        let end = record_end(self.framing, &self.buffer, from);
        self.searched = if end.is_some() { 0 } else { self.buffer.len() - self.consumed };
        end
    }

    /// Reads the heading if it is there; the last line of a bounded file needs no line feed.
    fn read_heading(&mut self, at_end: bool) -> Result<bool> {
        let end = match self.whole_record() {
            Some(end) => end,
            None if at_end && self.buffer.len() > self.consumed => self.buffer.len(),
            None => return Ok(false),
        };
        let line = without_line_feed(&self.buffer[self.consumed..end]);
        self.assembler.decoder.heading(line).map_err(|error| match error {
            Error::Option { message, hint } => Error::Option { message: format!("{}: {message}", self.path), hint },
            other => other,
        })?;
        self.consumed = end;
        self.heading_due = false;
        Ok(true)
    }

    /// The next batch. With `watch` a line without a line feed waits for it.
    pub(super) fn step(&mut self, store: &FileStore, watch: bool) -> Result<Step> {
        let mut at_end = false;
        loop {
            if self.heading_due {
                if !self.read_heading(at_end && !watch)? {
                    if at_end {
                        return Ok(Step::End);
                    }
                    at_end = self.fill(store)? == 0;
                }
                continue;
            }
            if self.skip_oversized(at_end && !watch) || self.whole_record().is_some() {
                break;
            }
            let held = self.buffer.len() - self.consumed;
            if at_end {
                if held == 0 || watch {
                    return Ok(Step::End);
                }
                break;
            }
            if held > RECORD_BYTES_MAX {
                let start = self.position();
                self.oversized = Some((start, bad_payload(&self.buffer[self.consumed..])));
                continue;
            }
            at_end = self.fill(store)? == 0;
        }
        self.batch(at_end && !watch, store)
    }

    /// Drops bytes of a record that is too long; true when its end was found and it was set aside.
    fn skip_oversized(&mut self, at_end: bool) -> bool {
        let Some((start, _)) = &self.oversized else { return false };
        let start = *start;
        // Quotes are not counted any more: a lost closing quote is the likeliest reason for such a record.
        let end = memchr::memchr(b'\n', &self.buffer[self.consumed..]).map(|found| self.consumed + found + 1);
        self.consumed = end.unwrap_or(self.buffer.len());
        self.searched = 0;
        if end.is_none() && !at_end {
            return false;
        }
        let payload = self.oversized.take().map(|(_, payload)| payload).unwrap_or_default();
        let length = self.position() - start;
        let bad = BadRecord::new("54000", format!("the record has {length} bytes; at most {RECORD_BYTES_MAX} are read"));
        self.assembler.set_aside(bad, &payload, &self.path, start.to_string());
        true
    }

    /// Decodes the whole records that are buffered, up to the bounds of a batch.
    fn batch(&mut self, at_end: bool, store: &FileStore) -> Result<Step> {
        let start = self.position();
        let whole = match memchr::memrchr(b'\n', &self.buffer) {
            Some(last) if !at_end => last + 1,
            _ => self.buffer.len(),
        };
        let block_end = whole.max(self.consumed);
        let utf8 = Utf8::of_block(&self.buffer[self.consumed..block_end]);
        while self.assembler.records() < BATCH_ROWS_MAX && self.position() - start < BATCH_BYTES_MAX as u64 {
            let end = match record_end(self.framing, &self.buffer, self.consumed) {
                Some(end) => end,
                None if at_end && self.consumed < self.buffer.len() => self.buffer.len(),
                None => break,
            };
            let record = without_line_feed(&self.buffer[self.consumed..end]);
            let at = self.buffer_at + self.consumed as u64;
            // An empty line is no record.
            if !record.trim_ascii().is_empty() {
                let path = self.path.as_str();
                self.assembler.push(record, utf8, path, || at.to_string(), |origin| path_meta(origin, path));
            }
            self.consumed = end;
        }
        self.searched = 0;
        let (rows, errors) = self.assembler.take()?;
        let bytes = self.position() - start;
        let mut offset = json!({ "byte": self.position() });
        if self.consumed == self.buffer.len()
            && let Some(handle) = &self.handle
            && store.size(handle, &self.path)? <= self.position()
        {
            offset["end"] = json!(true);
        }
        Ok(Step::Rows { rows, errors, bytes, offset })
    }
}

fn without_line_feed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
