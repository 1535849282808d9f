//! Bytes of log objects and manifests. `FORMAT.md` draws them.
//!
//! Every byte is covered: magic and version are compared, each section has a checksum, and the end section counts the
//! sections, so a cut, a flipped bit and a missing section are found. Nothing here panics on what it reads.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::definition::DefinitionText;
use super::{
    DataflowSection, FORMAT_VERSION, Head, PositionSection, RowsSection, Section, StateFile, StatePlace, StateRef, StateSection,
};
use crate::{Error, ObjectId, Result, Seq, StateKind};

const END: u8 = 0;
const HEAD: u8 = 1;
const DATAFLOW: u8 = 2;
const ROWS: u8 = 3;
const DEFINE: u8 = 4;
const DROP: u8 = 5;
const FILES: u8 = 6;
const TABLE: u8 = 7;
const POSITION: u8 = 8;

/// Kind (1), length of meta (4), length of body (8), checksum (4).
const SECTION_HEADER: usize = 17;

/// Writes a log object or a manifest.
pub(crate) fn encode(magic: &[u8; 8], head: &Head, sections: &[Section]) -> Bytes {
    let inline: usize = sections.iter().map(body_bytes).fold(0, usize::saturating_add);
    let mut out = BytesMut::with_capacity(inline.saturating_add(1024));
    out.put_slice(magic);
    out.put_u32_le(FORMAT_VERSION);
    put_section(&mut out, HEAD, &json(head), &[]);
    for section in sections {
        match section {
            Section::Dataflow(section) => {
                let inline = section.state.iter().filter_map(|part| match &part.place {
                    StatePlace::Inline(bytes) => Some(bytes),
                    StatePlace::File(_) => None,
                });
                let body: Vec<&Bytes> = std::iter::once(&section.offsets).chain(inline).collect();
                put_section(&mut out, DATAFLOW, &json(&DataflowMeta::of(section)), &body);
            }
            Section::Rows(section) => {
                let meta = RowsMeta { table: section.table, kinds: section.kinds, rows: section.rows };
                put_section(&mut out, ROWS, &json(&meta), &[&section.ipc]);
            }
            Section::Define(definition) => put_section(&mut out, DEFINE, &json(&DefinitionText::of(definition)), &[]),
            Section::Drop(id) => put_section(&mut out, DROP, &json(id), &[]),
            Section::Files(edit) => put_section(&mut out, FILES, &json(edit), &[]),
            Section::Table(table) => put_section(&mut out, TABLE, &json(table), &[]),
            Section::Position(section) => {
                put_section(&mut out, POSITION, &json(&PositionMeta::of(section)), &[&section.offsets]);
            }
        }
    }
    let count = (sections.len() as u64).saturating_add(1).to_le_bytes();
    put_section(&mut out, END, &count, &[]);
    out.freeze()
}

/// Reads a log object or a manifest. Bodies are slices of `content`, not copies.
///
/// # Errors
/// [`Error::FormatVersion`] when a newer Freshet wrote it, [`Error::Corrupt`] with `path` for everything else.
pub(crate) fn decode(magic: &[u8; 8], path: &str, content: Bytes) -> Result<(Head, Vec<Section>)> {
    let corrupt = |reason: String| Error::Corrupt { path: path.to_owned(), reason };
    let mut rest = content;
    if rest.len() < 12 || rest.split_to(8) != magic.as_slice() {
        return Err(corrupt("it does not begin as it must".to_owned()));
    }
    let version = rest.get_u32_le();
    if version > FORMAT_VERSION {
        return Err(Error::FormatVersion { path: path.to_owned(), found: version, supported: FORMAT_VERSION });
    }
    if version == 0 {
        return Err(corrupt("format version 0".to_owned()));
    }
    let mut head = None;
    let mut sections = Vec::new();
    loop {
        let at = sections.len();
        let (kind, meta, body) = take_section(&mut rest).map_err(|reason| corrupt(format!("section {at}: {reason}")))?;
        if kind == END {
            let expected = (sections.len() as u64).saturating_add(u64::from(head.is_some()));
            if meta.as_ref() != expected.to_le_bytes() || !body.is_empty() {
                return Err(corrupt("the number of sections is not the one at its end".to_owned()));
            }
            if !rest.is_empty() {
                return Err(corrupt(format!("{} bytes follow its end", rest.len())));
            }
            let head = head.ok_or_else(|| corrupt("it has no head".to_owned()))?;
            return Ok((head, sections));
        }
        if kind == HEAD && head.is_none() {
            head = Some(parse(&meta).map_err(|reason| corrupt(format!("head: {reason}")))?);
            continue;
        }
        sections.push(decode_section(kind, &meta, body).map_err(|reason| corrupt(format!("section {at}: {reason}")))?);
    }
}

fn decode_section(kind: u8, meta: &Bytes, mut body: Bytes) -> Result<Section, String> {
    Ok(match kind {
        DATAFLOW => Section::Dataflow(parse::<DataflowMeta>(meta)?.section(body)?),
        ROWS => {
            let RowsMeta { table, kinds, rows } = parse(meta)?;
            Section::Rows(RowsSection { table, kinds, rows, ipc: body })
        }
        DEFINE => Section::Define(parse::<DefinitionText>(meta)?.definition()?),
        DROP => Section::Drop(parse(meta)?),
        FILES => Section::Files(parse(meta)?),
        TABLE => Section::Table(parse(meta)?),
        POSITION => {
            let meta: PositionMeta = parse(meta)?;
            let offsets = take(&mut body, meta.offsets)?;
            Section::Position(PositionSection {
                dataflow: meta.dataflow,
                epoch: meta.epoch,
                seq: meta.seq,
                watermark: meta.watermark,
                finished: meta.finished,
                reads: meta.reads,
                offsets,
                state: meta.state,
            })
        }
        other => return Err(format!("unknown kind {other}")),
    })
}

fn body_bytes(section: &Section) -> usize {
    match section {
        Section::Rows(rows) => rows.ipc.len(),
        Section::Dataflow(dataflow) => dataflow.state.iter().fold(dataflow.offsets.len(), |sum, part| match &part.place {
            StatePlace::Inline(bytes) => sum.saturating_add(bytes.len()),
            StatePlace::File(_) => sum,
        }),
        _ => 0,
    }
}

fn put_section(out: &mut BytesMut, kind: u8, meta: &[u8], body: &[&Bytes]) {
    let body_length = body.iter().fold(0_u64, |sum, piece| sum.saturating_add(piece.len() as u64));
    let meta_length = u32::try_from(meta.len()).expect("the JSON part of a section is far below 4 GiB");
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[kind]);
    checksum.update(&meta_length.to_le_bytes());
    checksum.update(&body_length.to_le_bytes());
    checksum.update(meta);
    body.iter().for_each(|piece| checksum.update(piece));
    out.put_u8(kind);
    out.put_u32_le(meta_length);
    out.put_u64_le(body_length);
    out.put_u32_le(checksum.finalize());
    out.put_slice(meta);
    body.iter().for_each(|piece| out.put_slice(piece));
}

fn take_section(rest: &mut Bytes) -> Result<(u8, Bytes, Bytes), String> {
    if rest.len() < SECTION_HEADER {
        return Err("it is cut off".to_owned());
    }
    let kind = rest.get_u8();
    let meta_length = rest.get_u32_le();
    let body_length = rest.get_u64_le();
    let expected = rest.get_u32_le();
    let meta = take(rest, u64::from(meta_length))?;
    let body = take(rest, body_length)?;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[kind]);
    checksum.update(&meta_length.to_le_bytes());
    checksum.update(&body_length.to_le_bytes());
    checksum.update(&meta);
    checksum.update(&body);
    if checksum.finalize() != expected {
        return Err("its checksum is wrong".to_owned());
    }
    Ok((kind, meta, body))
}

fn take(rest: &mut Bytes, length: u64) -> Result<Bytes, String> {
    match usize::try_from(length) {
        Ok(length) if length <= rest.len() => Ok(rest.split_to(length)),
        _ => Err(format!("{length} bytes expected, {} are left", rest.len())),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain values with string keys always become JSON")
}

fn parse<T: DeserializeOwned>(meta: &[u8]) -> Result<T, String> {
    serde_json::from_slice(meta).map_err(|error| error.to_string())
}

#[derive(Serialize, Deserialize)]
struct RowsMeta {
    table: ObjectId,
    kinds: bool,
    rows: u64,
}

#[derive(Serialize, Deserialize)]
struct DataflowMeta {
    dataflow: ObjectId,
    epoch: u64,
    watermark: Option<i64>,
    finished: bool,
    reads: Vec<(ObjectId, Seq)>,
    offsets: u64,
    state: Vec<StateMeta>,
}

#[derive(Serialize, Deserialize)]
struct StateMeta {
    operator: u32,
    #[serde(with = "state_kind")]
    kind: StateKind,
    /// Bytes in the body; 0 with a file.
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<StateFile>,
}

impl DataflowMeta {
    fn of(section: &DataflowSection) -> Self {
        let state = section.state.iter().map(|part| {
            let (bytes, file) = match &part.place {
                StatePlace::Inline(bytes) => (bytes.len() as u64, None),
                StatePlace::File(file) => (0, Some(file.clone())),
            };
            StateMeta { operator: part.operator, kind: part.kind, bytes, file }
        });
        DataflowMeta {
            dataflow: section.dataflow,
            epoch: section.epoch,
            watermark: section.watermark,
            finished: section.finished,
            reads: section.reads.clone(),
            offsets: section.offsets.len() as u64,
            state: state.collect(),
        }
    }

    fn section(self, mut body: Bytes) -> Result<DataflowSection, String> {
        let offsets = take(&mut body, self.offsets)?;
        let mut state = Vec::with_capacity(self.state.len());
        for part in self.state {
            let place = match part.file {
                Some(file) => StatePlace::File(file),
                None => StatePlace::Inline(take(&mut body, part.bytes)?),
            };
            state.push(StateSection { operator: part.operator, kind: part.kind, place });
        }
        let DataflowMeta { dataflow, epoch, watermark, finished, reads, .. } = self;
        Ok(DataflowSection { dataflow, epoch, watermark, finished, reads, offsets, state })
    }
}

#[derive(Serialize, Deserialize)]
struct PositionMeta {
    dataflow: ObjectId,
    epoch: u64,
    seq: Seq,
    watermark: Option<i64>,
    finished: bool,
    reads: Vec<(ObjectId, Seq)>,
    offsets: u64,
    state: Vec<StateRef>,
}

impl PositionMeta {
    fn of(section: &PositionSection) -> Self {
        PositionMeta {
            dataflow: section.dataflow,
            epoch: section.epoch,
            seq: section.seq,
            watermark: section.watermark,
            finished: section.finished,
            reads: section.reads.clone(),
            offsets: section.offsets.len() as u64,
            state: section.state.clone(),
        }
    }
}

/// `StateKind` as a word.
pub(crate) mod state_kind {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::StateKind;

    pub(crate) fn serialize<S: Serializer>(kind: &StateKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match kind {
            StateKind::Delta => "delta",
            StateKind::Image => "image",
        })
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StateKind, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "delta" => Ok(StateKind::Delta),
            "image" => Ok(StateKind::Image),
            other => Err(D::Error::custom(format!("state kind \"{other}\""))),
        }
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
