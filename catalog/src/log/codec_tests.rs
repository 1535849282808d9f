//! Log objects are read back as they were written, and damage is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::log::{LOG_MAGIC, MANIFEST_MAGIC, TableSection, rows};
use crate::table::{EditKind, FileEdit};
use crate::{Changes, Definition, ObjectKind, ObjectName};

fn head() -> Head {
    Head {
        database: "d2b7".to_owned(),
        generation: 3,
        seq: Seq(42),
        time_us: 1_700_000_000_000_000,
        nonce: u64::MAX,
        next_id: 1007,
        fences: vec![Seq(1), Seq(40)],
        definitions_version: 12,
    }
}

fn changes() -> Changes {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("t", DataType::Utf8, true)]);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, 1, 2])), Arc::new(StringArray::from(vec![Some("old"), Some("new"), None]))];
    let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("columns fit");
    Changes::new(rows, Int8Array::from(vec![crate::DELETE, crate::INSERT, crate::INSERT]))
}

fn definition() -> Definition {
    Definition {
        id: ObjectId(1001),
        name: ObjectName { schema: "public".to_owned(), name: "per minute".to_owned() },
        kind: ObjectKind::StreamingView,
        sql: "CREATE STREAMING VIEW \"per minute\" AS SELECT 1".to_owned(),
        schema: changes().rows.schema(),
        primary_key: vec!["id".to_owned()],
        options: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        depends_on: vec![ObjectId(1000)],
        created_us: 5,
        comment: Some("ünïcode".to_owned()),
        paused: true,
        watermark: Some(("t".to_owned(), -3)),
    }
}

fn sections() -> Vec<Section> {
    let file = StateFile { path: "state/1001/2-9-x".to_owned(), bytes: 5_000_000, crc: 7 };
    let edit =
        FileEdit { table: ObjectId(1001), kind: EditKind::Append, added: Vec::new(), removed: Vec::new(), up_to: Some(Seq(41)) };
    let state_ref = StateRef { operator: 2, kind: StateKind::Image, seq: Seq(40), epoch: 8, index: 1, file: Some(file.clone()) };
    vec![
        Section::Define(definition()),
        Section::Dataflow(DataflowSection {
            dataflow: ObjectId(1001),
            epoch: 9,
            watermark: Some(i64::MAX),
            finished: true,
            reads: vec![(ObjectId(1000), Seq(41))],
            offsets: Bytes::from_static(b"{\"0\":17}"),
            state: vec![
                StateSection { operator: 1, kind: StateKind::Delta, place: StatePlace::Inline(Bytes::from_static(b"delta")) },
                StateSection { operator: 2, kind: StateKind::Image, place: StatePlace::File(file) },
                StateSection { operator: 3, kind: StateKind::Image, place: StatePlace::Inline(Bytes::new()) },
            ],
        }),
        Section::Rows(rows::encode(ObjectId(1001), &changes()).expect("encodes")),
        Section::Files(edit.clone()),
        Section::Drop(ObjectId(1003)),
        Section::Table(TableSection {
            table: ObjectId(1001),
            flushed: Seq(40),
            unflushed: Some(Seq(41)),
            changed: Seq(42),
            touched: Seq(42),
            files: Vec::new(),
            unpublished: vec![(Seq(42), edit)],
            snapshot: 6,
        }),
        Section::Position(PositionSection {
            dataflow: ObjectId(1001),
            epoch: 9,
            seq: Seq(42),
            watermark: None,
            finished: false,
            reads: Vec::new(),
            offsets: Bytes::from_static(b"\xff\x00"),
            state: vec![state_ref],
        }),
    ]
}

#[test]
fn what_is_written_is_read() {
    let bytes = encode(LOG_MAGIC, &head(), &sections());
    let (read_head, read) = decode(LOG_MAGIC, "log/42", bytes.clone()).expect("reads");
    assert_eq!(read_head, head());
    assert_eq!(format!("{read:?}"), format!("{:?}", sections()));
    assert_eq!(encode(LOG_MAGIC, &read_head, &read), bytes);
    let Some(Section::Rows(section)) = read.get(2) else { panic!("the third section has rows") };
    let decoded = rows::decode("log/42", section).expect("rows");
    assert_eq!(decoded.len(), 1);
    let (decoded, expected) = (decoded.first().expect("one batch"), changes());
    assert_eq!((&decoded.rows, &decoded.kinds), (&expected.rows, &expected.kinds));
    assert!(decode(MANIFEST_MAGIC, "log/42", bytes).is_err(), "a log object is no manifest");
}

#[test]
fn every_cut_is_found() {
    let bytes = encode(LOG_MAGIC, &head(), &sections());
    for length in 0..bytes.len() {
        let error = decode(LOG_MAGIC, "log/42", bytes.slice(..length)).expect_err("a cut object is damaged");
        assert!(matches!(error, Error::Corrupt { path, .. } if path == "log/42"), "cut at {length}");
    }
    let longer: Bytes = [bytes.as_ref(), b"x"].concat().into();
    assert!(decode(LOG_MAGIC, "log/42", longer).is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = encode(LOG_MAGIC, &head(), &sections());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            *flipped.get_mut(at).expect("within") ^= 1 << bit;
            assert!(decode(LOG_MAGIC, "log/42", flipped.into()).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_missing_section_and_a_newer_version_are_found() {
    let whole = encode(LOG_MAGIC, &head(), &sections());
    let fewer = encode(LOG_MAGIC, &head(), sections().get(..6).expect("seven sections"));
    // All of the shorter object but its end section, then the end section of the longer one.
    let end = SECTION_HEADER.saturating_add(8);
    let body = fewer.len().saturating_sub(end);
    let spliced: Bytes = [fewer.slice(..body), whole.slice(whole.len().saturating_sub(end)..)].concat().into();
    assert!(
        matches!(decode(LOG_MAGIC, "log/42", spliced), Err(Error::Corrupt { reason, .. }) if reason.contains("number of sections"))
    );
    let mut newer = whole.to_vec();
    *newer.get_mut(8).expect("the version") = 2;
    assert!(matches!(decode(LOG_MAGIC, "log/42", newer.into()), Err(Error::FormatVersion { found: 2, .. })));
}
