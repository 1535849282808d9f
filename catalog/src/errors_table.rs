//! `freshet.errors`: records that could not be processed or came too late, as rows of an ordinary append table.

use arrow::array::{ArrayRef, BinaryBuilder, Int32Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Definition, ObjectId, ObjectKind, ObjectName};

/// One record that was set aside.
#[derive(Debug, Clone, Default)]
pub struct ErrorRecord {
    /// Wall time, microseconds since 1970.
    pub time_us: i64,
    /// Dataflow that met it, `schema.name`.
    pub job: String,
    /// Streaming table it came from.
    pub source: String,
    /// Split within the source.
    pub split: String,
    /// Offset within the split, as text.
    pub offset: String,
    /// `decode`, `constraint`, `late`, `expression`, `model`, `sink`.
    pub stage: &'static str,
    /// Five letters.
    pub sqlstate: &'static str,
    /// What was wrong.
    pub reason: String,
    /// Event time if known, microseconds since 1970.
    pub event_time_us: Option<i64>,
    /// The record's bytes as they came, or the row as JSON where there are no bytes.
    pub payload: Vec<u8>,
}

/// Columns of `freshet.errors`.
pub fn errors_schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("time", timestamp.clone(), false),
        Field::new("job", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("offset", DataType::Utf8, false),
        Field::new("stage", DataType::Utf8, false),
        Field::new("sqlstate", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("event_time", timestamp, true),
        Field::new("payload", DataType::Binary, true),
        Field::new("attempts", DataType::Int32, false),
    ]))
}

/// `freshet.errors` as an object: it exists from the first open on.
pub(crate) fn errors_definition(now_us: i64) -> Definition {
    let columns = "id TEXT NOT NULL, time TIMESTAMPTZ NOT NULL, job TEXT NOT NULL, source TEXT NOT NULL, split TEXT NOT NULL, \
                   \"offset\" TEXT NOT NULL, stage TEXT NOT NULL, sqlstate TEXT NOT NULL, reason TEXT NOT NULL, \
                   event_time TIMESTAMPTZ, payload BYTEA, attempts INT NOT NULL";
    Definition {
        id: ObjectId::ERRORS,
        name: ObjectName { schema: "freshet".to_owned(), name: "errors".to_owned() },
        kind: ObjectKind::Table,
        sql: format!("CREATE TABLE freshet.errors ({columns})"),
        schema: errors_schema(),
        primary_key: Vec::new(),
        options: BTreeMap::new(),
        depends_on: Vec::new(),
        created_us: now_us,
        comment: Some("Records that could not be processed or came too late".to_owned()),
        paused: false,
        watermark: None,
    }
}

/// Error records as rows of [`errors_schema`]. The id is `job/split/offset/stage`, the same when an epoch is run again.
pub fn error_rows(records: &[ErrorRecord]) -> RecordBatch {
    let text = |value: &dyn Fn(&ErrorRecord) -> String| -> ArrayRef {
        let mut builder = StringBuilder::new();
        records.iter().for_each(|record| builder.append_value(value(record)));
        Arc::new(builder.finish())
    };
    let mut time = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let mut event_time = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let mut payload = BinaryBuilder::new();
    let mut attempts = Int32Builder::new();
    for record in records {
        time.append_value(record.time_us);
        event_time.append_option(record.event_time_us);
        payload.append_value(&record.payload);
        attempts.append_value(1);
    }
    let columns: Vec<ArrayRef> = vec![
        text(&|r| format!("{}/{}/{}/{}", r.job, r.split, r.offset, r.stage)),
        Arc::new(time.finish()),
        text(&|r| r.job.clone()),
        text(&|r| r.source.clone()),
        text(&|r| r.split.clone()),
        text(&|r| r.offset.clone()),
        text(&|r| r.stage.to_owned()),
        text(&|r| r.sqlstate.to_owned()),
        text(&|r| r.reason.clone()),
        Arc::new(event_time.finish()),
        Arc::new(payload.finish()),
        Arc::new(attempts.finish()),
    ];
    RecordBatch::try_new(errors_schema(), columns).expect("columns match the schema written above")
}
