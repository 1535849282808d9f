//! A result on its way: batches from the query runtime, one at a time, never collected.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use sql::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::pgwire::types::{PgType, type_modifier};

/// A column as a client is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: PgType,
    pub(crate) type_modifier: i32,
}

impl Column {
    pub(crate) fn all(schema: &Schema) -> Vec<Column> {
        let column = |field: &Arc<Field>| Column {
            name: field.name().clone(),
            data_type: PgType::of(field),
            type_modifier: type_modifier(field),
        };
        schema.fields().iter().map(column).collect()
    }
}

/// Rows of a running query. Dropping it stops the query.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<Column>,
    /// `None` is the end, so that a query whose task died is not taken for one that is done.
    batches: mpsc::Receiver<Result<Option<RecordBatch>>>,
    query: Option<AbortHandle>,
    ended: bool,
    /// A batch that was begun, and its first row that was not taken.
    begun: Option<(RecordBatch, usize)>,
}

impl Rows {
    /// Runs a stream on the query runtime. It is at most one batch ahead of the reader.
    pub(crate) fn run(mut stream: SendableRecordBatchStream, columns: Vec<Column>, handle: &Handle) -> Rows {
        let (sender, batches) = mpsc::channel(1);
        let task = handle.spawn(async move {
            loop {
                let batch = stream.next().await.transpose().map_err(sql::translate);
                let last = !matches!(batch, Ok(Some(_)));
                if sender.send(batch).await.is_err() || last {
                    break;
                }
            }
        });
        Rows { columns, batches, query: Some(task.abort_handle()), ended: false, begun: None }
    }

    /// Rows that are there already.
    pub(crate) fn ready(batch: RecordBatch) -> Rows {
        let (_, batches) = mpsc::channel(1);
        Rows { columns: Column::all(&batch.schema()), batches, query: None, ended: true, begun: Some((batch, 0)) }
    }

    /// Rows of text.
    pub(crate) fn text(columns: &[&str], rows: &[Vec<String>]) -> Rows {
        let schema: SchemaRef = Arc::new(Schema::new(text_fields(columns)));
        let arrays = (0..columns.len()).map(|column| {
            Arc::new(rows.iter().map(|row| row.get(column).map(String::as_str)).collect::<StringArray>()) as ArrayRef
        });
        Rows::ready(RecordBatch::try_new(schema, arrays.collect()).expect("one text array for each column"))
    }

    /// The next batch and its first row that has not been taken; `None` at the end.
    ///
    /// # Cancel safety
    /// Safe: no batch is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Result<(RecordBatch, usize)>> {
        if let Some(begun) = self.begun.take() {
            return Some(Ok(begun));
        }
        if self.ended {
            return None;
        }
        let batch = match self.batches.recv().await {
            Some(Ok(Some(batch))) => return Some(Ok((batch, 0))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(Error::new("XX000", "the query ended without its result"))),
        };
        self.ended = true;
        batch
    }

    /// Puts back a batch of which rows are left.
    pub(crate) fn put_back(&mut self, batch: RecordBatch, row: usize) {
        self.begun = Some((batch, row));
    }

    /// Whether the next batch is there without waiting.
    pub(crate) fn is_waiting(&self) -> bool {
        self.begun.is_none() && self.batches.is_empty()
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(query) = &self.query {
            query.abort();
        }
    }
}

/// Columns of text.
pub(crate) fn text_fields(names: &[&str]) -> Vec<Field> {
    names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect()
}

/// The query runtime went away under a statement: the server is stopping.
pub(crate) fn stopping() -> Error {
    Error::new("57P01", "terminating connection due to administrator command")
}
