//! Records with what comes beside them become batches of a source node's schema.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::kernels::aggregate;
use arrow::datatypes::TimestampMicrosecondType;
use catalog::ErrorRecord;

use crate::Result;
use crate::format::column::{Column, Meta};
use crate::format::{BadRecord, DecodedField, Decoder, Encoding, Utf8, bad_payload};
use crate::plan::{ColumnOrigin, SourceNode};

/// Rows of a batch, at most.
pub(crate) const BATCH_ROWS_MAX: usize = 8192;

/// Bytes of records in a batch, about at most.
pub(crate) const BATCH_BYTES_MAX: usize = 2 << 20;

/// Wall time, microseconds since 1970.
pub(crate) fn wall_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

/// Gathers records into a batch: decodes the node's fields, adds the metadata it asks for, sets bad records aside.
pub(crate) struct RowAssembler {
    pub(crate) decoder: Box<dyn Decoder>,
    metadata: Vec<(ColumnOrigin, Column)>,
    /// For each output column: from the decoder or from the metadata, and which.
    layout: Vec<Place>,
    errors: Vec<ErrorRecord>,
    schema: arrow::datatypes::SchemaRef,
    source: String,
}

#[derive(Clone, Copy)]
enum Place {
    Decoded(usize),
    Metadata(usize),
}

impl RowAssembler {
    pub(crate) fn new(node: &SourceNode, encoding: &Encoding) -> Result<Self> {
        let (mut fields, mut metadata, mut layout) = (Vec::new(), Vec::new(), Vec::new());
        for column in node.projection.iter().map(|index| &node.columns[*index]) {
            match &column.origin {
                ColumnOrigin::Field(name) => {
                    layout.push(Place::Decoded(fields.len()));
                    fields.push(DecodedField { name: name.clone(), field: Arc::clone(&column.field) });
                }
                other => {
                    layout.push(Place::Metadata(metadata.len()));
                    metadata.push((other.clone(), Column::new(&column.field)?));
                }
            }
        }
        let field_name = |origin: &ColumnOrigin| match origin {
            ColumnOrigin::Field(name) => Some(name.clone()),
            ColumnOrigin::Metadata(_) | ColumnOrigin::Header(_) => None,
        };
        let declared: Vec<String> = node.columns.iter().filter_map(|column| field_name(&column.origin)).collect();
        let decoder = encoding.decoder(fields, &declared)?;
        let schema = Arc::clone(&node.schema);
        Ok(RowAssembler { decoder, metadata, layout, errors: Vec::new(), schema, source: node.name.clone() })
    }

    /// Adds a record. `offset` names its place for the error table, `meta` gives what comes beside it.
    pub(crate) fn push<'m>(
        &mut self,
        record: &[u8],
        utf8: Utf8,
        split: &str,
        offset: impl Fn() -> String,
        meta: impl Fn(&ColumnOrigin) -> Meta<'m>,
    ) {
        if let Err(bad) = self.try_push(record, utf8, meta) {
            self.set_aside(bad, record, split, offset());
        }
    }

    fn try_push<'m>(&mut self, record: &[u8], utf8: Utf8, meta: impl Fn(&ColumnOrigin) -> Meta<'m>) -> Result<(), BadRecord> {
        if self.metadata.is_empty() {
            return self.decoder.decode(record, utf8);
        }
        // Metadata first: it can be taken back when the record turns out bad, a decoded row cannot.
        let rows = self.decoder.rows();
        let columns = &mut self.metadata;
        let appended = columns.iter_mut().try_for_each(|(origin, column)| column.append_meta(&meta(origin)));
        appended.and_then(|()| self.decoder.decode(record, utf8)).inspect_err(|_| {
            columns.iter_mut().for_each(|(_, column)| column.truncate(rows));
        })
    }

    /// A record that is bad before it reaches the decoder.
    pub(crate) fn set_aside(&mut self, bad: BadRecord, record: &[u8], split: &str, offset: String) {
        self.errors.push(decode_error(&self.source, split, offset, bad, record));
    }

    /// Rows and errors gathered so far.
    pub(crate) fn records(&self) -> usize {
        self.decoder.rows() + self.errors.len()
    }

    /// The batch; starts anew.
    pub(crate) fn take(&mut self) -> Result<(RecordBatch, Vec<ErrorRecord>)> {
        let rows = self.decoder.rows();
        let decoded = self.decoder.finish()?;
        let metadata = self.metadata.iter_mut().map(|(_, column)| column.finish()).collect::<Result<Vec<_>>>()?;
        let columns = self
            .layout
            .iter()
            .map(|place| match place {
                Place::Decoded(index) => Arc::clone(&decoded[*index]),
                Place::Metadata(index) => Arc::clone(&metadata[*index]),
            })
            .collect();
        // The count is given, because a query such as count(*) needs no column at all.
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok((batch, std::mem::take(&mut self.errors)))
    }
}

/// The row of `freshet.errors` for a record that was set aside; the job is filled in by the dataflow.
pub(crate) fn decode_error(source: &str, split: &str, offset: String, bad: BadRecord, record: &[u8]) -> ErrorRecord {
    ErrorRecord {
        time_us: wall_us(),
        source: source.to_owned(),
        split: split.to_owned(),
        offset,
        stage: "decode",
        sqlstate: bad.sqlstate,
        reason: bad.reason,
        payload: bad_payload(record),
        ..ErrorRecord::default()
    }
}

/// The greatest event time of a batch, rows too far in the future left out.
pub(crate) fn event_time_max(node: &SourceNode, rows: &RecordBatch) -> Option<i64> {
    let spec = node.watermark.as_ref()?;
    let column = rows.column(spec.column).as_primitive_opt::<TimestampMicrosecondType>()?;
    let greatest = aggregate::max(column)?;
    match spec.max_future_us.map(|ahead| wall_us().saturating_add(ahead)) {
        Some(limit) if greatest > limit => {
            (0..column.len()).filter(|row| column.is_valid(*row)).map(|row| column.value(row)).filter(|at| *at <= limit).max()
        }
        _ => Some(greatest),
    }
}
