//! What tests of all sources need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use catalog::{ErrorRecord, ObjectId};

use super::{Offset, SourceEvent, SourceReader, SplitId};
use crate::plan::{ColumnOrigin, ConnectorSpec, SourceColumn, SourceNode, WatermarkSpec};

pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

pub(crate) fn connector(name: &str, options: &[(&str, &str)]) -> ConnectorSpec {
    ConnectorSpec {
        connector: name.into(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        format: "PLAIN".into(),
        encode: "JSON".into(),
        encode_options: BTreeMap::new(),
    }
}

pub(crate) fn column(name: &str, data_type: DataType) -> SourceColumn {
    SourceColumn { field: Arc::new(Field::new(name, data_type, true)), origin: ColumnOrigin::Field(name.into()) }
}

pub(crate) fn metadata(name: &str, kind: &str, data_type: DataType) -> SourceColumn {
    SourceColumn { field: Arc::new(Field::new(name, data_type, true)), origin: ColumnOrigin::Metadata(kind.into()) }
}

/// A node that reads all columns.
pub(crate) fn node(connector: ConnectorSpec, columns: Vec<SourceColumn>, watermark: Option<&str>) -> SourceNode {
    let schema = Arc::new(Schema::new(columns.iter().map(|column| Arc::clone(&column.field)).collect::<Vec<_>>()));
    let watermark = watermark.map(|name| WatermarkSpec {
        column: schema.index_of(name).expect("a column of the node"),
        delay_us: 0,
        idle_timeout_us: None,
        max_future_us: None,
    });
    SourceNode {
        table: ObjectId(1000),
        name: "public.t".into(),
        connector,
        projection: (0..columns.len()).collect(),
        columns,
        schema,
        watermark,
    }
}

/// What a reader gave so far.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) batches: Vec<(SplitId, RecordBatch)>,
    pub(crate) errors: Vec<ErrorRecord>,
    pub(crate) offsets: BTreeMap<SplitId, Offset>,
    pub(crate) finished: Vec<SplitId>,
    pub(crate) caught_up: Vec<SplitId>,
    pub(crate) new_splits: Vec<SplitId>,
    pub(crate) progress: BTreeMap<SplitId, super::SplitProgress>,
}

impl Taken {
    pub(crate) fn event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Rows { split, rows, errors, offset, .. } => {
                self.errors.extend(errors);
                self.offsets.insert(split.clone(), offset);
                self.batches.push((split, rows));
            }
            SourceEvent::Finished { split } => self.finished.push(split),
            SourceEvent::CaughtUp { split } => self.caught_up.push(split),
            SourceEvent::NewSplit { split } => self.new_splits.push(split),
            SourceEvent::Progress { split, progress } => {
                self.progress.insert(split, progress);
            }
        }
    }

    /// Takes events until `done` says so.
    pub(crate) fn until(&mut self, reader: &mut dyn SourceReader, mut done: impl FnMut(&Taken) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < deadline, "the source gave nothing more");
            if let Some(event) = reader.next(Duration::from_millis(20)).expect("a readable source") {
                self.event(event);
            }
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(|(_, rows)| rows.num_rows()).sum()
    }

    /// All rows as text, sorted: the same for the same set of rows.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.batches.iter().flat_map(|(_, rows)| lines(rows)).collect();
        lines.sort();
        lines
    }
}

/// A batch's rows as text.
pub(crate) fn lines(rows: &RecordBatch) -> Vec<String> {
    let cell =
        |column: &arrow::array::ArrayRef, row| arrow::util::display::array_value_to_string(column, row).expect("printable");
    (0..rows.num_rows()).map(|row| rows.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|")).collect()
}
