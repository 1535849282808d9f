//! The columns of each relation of the schema `freshet`. New ones are added at the end: people poll these.

use arrow::array::RecordBatch;
use catalog::{CommitRecord, Definition, TableStatistics};
use engine::status::{CheckpointRecord, JobStatus, OperatorStatus, SplitStatus};

use super::Event;
use super::columns::Columns;
use crate::config::Setting;
use crate::session::Activity;

pub(super) fn jobs(rows: &[JobStatus]) -> RecordBatch {
    let split = |row: &JobStatus| match row.name.split_once('.') {
        Some((schema, name)) => (schema.to_owned(), name.to_owned()),
        None => (String::new(), row.name.clone()),
    };
    Columns::of(rows)
        .text("name", |row| split(row).1)
        .text("schema", |row| split(row).0)
        .word("kind", |row| row.kind)
        .word("state", |row| row.state.name())
        .time("since", |row| row.since_us)
        .count("epoch", |row| row.epoch)
        .time("watermark", |row| row.watermark_us)
        .bigint("freshness_ms", |row| row.freshness_ms)
        .count("rows_in", |row| row.rows_in)
        .count("rows_out", |row| row.rows_out)
        .count("late_rows", |row| row.late_rows)
        .count("error_rows", |row| row.error_rows)
        .count("restarts", |row| row.restarts)
        .text("last_error", |row| row.last_error.clone())
        .count("state_bytes", |row| row.state_bytes)
        .double("checkpoint_ms", |row| row.checkpoint_ms)
        .batch()
}

pub(super) fn splits(rows: &[SplitStatus]) -> RecordBatch {
    Columns::of(rows)
        .text("job", |row| row.job.clone())
        .text("source", |row| row.source.clone())
        .text("split", |row| row.split.clone())
        .text("offset", |row| row.offset.clone())
        .text("end_offset", |row| row.end_offset.clone())
        .count("lag_rows", |row| row.lag_rows)
        .time("watermark", |row| row.watermark_us)
        .boolean("idle", |row| row.idle)
        .boolean("holds_watermark", |row| row.holds_watermark)
        .count("rows", |row| row.rows)
        .count("bytes", |row| row.bytes)
        .double("rows_per_s", |row| row.rows_per_s)
        .count("reconnects", |row| row.reconnects)
        .count("duplicates", |row| row.duplicates)
        .count("gaps", |row| row.gaps)
        .text("last_error", |row| row.last_error.clone())
        .batch()
}

pub(super) fn operators(rows: &[OperatorStatus]) -> RecordBatch {
    Columns::of(rows)
        .text("job", |row| row.job.clone())
        .bigint("operator", |row| i64::from(row.operator))
        .word("kind", |row| row.kind)
        .text("detail", |row| row.detail.clone())
        .count("rows_in", |row| row.rows_in)
        .count("rows_out", |row| row.rows_out)
        .count("batches_in", |row| row.batches_in)
        .double("busy_pct", |row| row.busy_pct)
        .count("queue_bytes", |row| row.queue_bytes)
        .count("state_rows", |row| row.state_rows)
        .count("state_bytes", |row| row.state_bytes)
        .time("watermark", |row| row.watermark_us)
        .batch()
}

pub(super) fn checkpoints(rows: &[CheckpointRecord]) -> RecordBatch {
    Columns::of(rows)
        .text("job", |row| row.job.clone())
        .count("epoch", |row| row.epoch)
        .time("started", |row| row.started_us)
        .double("duration_ms", |row| row.duration_ms)
        .count("bytes", |row| row.bytes)
        // Not measured: an epoch is part of one log object, and a dataflow has one thread, so that nothing is aligned.
        .count("files", |_| None)
        .double("aligned_ms", |_| None)
        .count("seq", |row| row.seq)
        .count("interval_ms", |row| row.interval_ms)
        .word("reason", |row| row.reason)
        .batch()
}

pub(super) fn commits(rows: &[CommitRecord]) -> RecordBatch {
    Columns::of(rows)
        .count("seq", |row| row.seq.0)
        .time("started", |row| row.started_us)
        .double("duration_ms", |row| row.duration_ms)
        .count("bytes", |row| row.bytes)
        .count("dataflows", |row| row.dataflows.len() as u64)
        .batch()
}

/// A table with the numbers of its storage.
pub(super) struct TableRow {
    pub(super) definition: std::sync::Arc<Definition>,
    pub(super) statistics: TableStatistics,
}

pub(super) fn tables(rows: &[TableRow]) -> RecordBatch {
    Columns::of(rows)
        .text("name", |row| row.definition.name.name.clone())
        .text("schema", |row| row.definition.name.schema.clone())
        .word("kind", |row| crate::database::job_kind(row.definition.kind))
        .count("rows", |row| row.statistics.file_rows + row.statistics.memtable_rows)
        .count("bytes", |row| row.statistics.file_bytes)
        .count("files", |row| row.statistics.files)
        .count("level0_files", |row| row.statistics.level0_files)
        .count("memtable_rows", |row| row.statistics.memtable_rows)
        .count("memtable_bytes", |row| row.statistics.memtable_bytes)
        .count("snapshot", |row| row.statistics.snapshot)
        .text("primary_key", |row| (!row.definition.primary_key.is_empty()).then(|| row.definition.primary_key.join(", ")))
        .text("retention", |row| row.definition.options.get("retention").cloned())
        .time("created", |row| row.definition.created_us)
        .batch()
}

pub(super) fn settings(rows: &[(String, Setting)]) -> RecordBatch {
    Columns::of(rows)
        .text("name", |(name, _)| name.clone())
        .text("value", |(_, setting)| setting.value.clone())
        .text("default", |(_, setting)| setting.default.clone())
        .word("unit", |(_, setting)| setting.unit)
        .word("source", |(_, setting)| setting.origin.name())
        .boolean("runtime", |(_, setting)| setting.runtime)
        .text("description", |(_, setting)| setting.description.clone())
        .batch()
}

pub(super) fn sessions(rows: &[Activity]) -> RecordBatch {
    Columns::of(rows)
        .integer("pid", |row| row.info.pid)
        .text("user", |row| row.info.user.clone())
        .text("client", |row| row.info.client.clone())
        .text("application", |row| row.info.application.clone())
        .word("state", |row| row.state.as_str())
        .time("started", |row| row.connected_us)
        .text("sql", |row| row.sql.clone())
        .count("rows", |row| row.rows)
        .batch()
}

pub(super) fn queries(rows: &[Activity]) -> RecordBatch {
    Columns::of(rows)
        .integer("pid", |row| row.info.pid)
        .text("user", |row| row.info.user.clone())
        .text("client", |row| row.info.client.clone())
        .text("application", |row| row.info.application.clone())
        .word("state", |row| row.state.as_str())
        .time("started", |row| row.started_us)
        .text("sql", |row| row.sql.clone())
        .count("rows", |row| row.rows)
        .batch()
}

pub(super) fn events(rows: &[Event]) -> RecordBatch {
    Columns::of(rows)
        .time("time", |row| row.time_us)
        .word("kind", |row| row.kind)
        .text("object", |row| row.object.clone())
        .text("message", |row| row.message.clone())
        .batch()
}

pub(super) fn functions(rows: &[(String, &'static str)]) -> RecordBatch {
    Columns::of(rows).text("name", |(name, _)| name.clone()).word("kind", |(_, kind)| *kind).batch()
}
