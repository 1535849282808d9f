//! Operators that keep nothing: filter, project, window assignment, union.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{cast, filter, filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use catalog::Changes;
use datafusion::physical_expr::PhysicalExpr;

use crate::dataflow::evaluate::{evaluate, select};
use crate::dataflow::{Batch, Operator, Output};
use crate::plan::Window;
use crate::{Error, Result, window};

/// Lets rows through for which the predicate is true.
pub(crate) struct Filter {
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
}

impl Operator for Filter {
    fn kind(&self) -> &'static str {
        "filter"
    }

    fn detail(&self) -> String {
        self.predicate.to_string()
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, mut columns) = evaluate(std::slice::from_ref(&self.predicate), batch, out)?;
        let mask = columns.pop().expect("one expression, one column");
        let mask = mask.as_boolean_opt().ok_or_else(|| unsupported("a predicate that is not boolean"))?;
        let passed = match mask.nulls() {
            None => mask.true_count(),
            Some(_) => prep_null_mask_filter(mask).true_count(),
        };
        if passed == batch.changes.len() {
            out.batches.push(batch);
        } else if passed > 0 {
            let changes = retain(&batch.changes, mask)?;
            out.batches.push(Batch { changes, origin: batch.origin });
        }
        Ok(())
    }
}

/// New columns from old.
pub(crate) struct Project {
    pub(crate) exprs: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Project {
    fn kind(&self) -> &'static str {
        "project"
    }

    fn detail(&self) -> String {
        self.exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, columns) = evaluate(&self.exprs, batch, out)?;
        if batch.changes.is_empty() {
            return Ok(());
        }
        let rows = rows_of(&self.schema, columns, batch.changes.len())?;
        out.batches.push(Batch { changes: Changes { rows, kinds: batch.changes.kinds }, origin: batch.origin });
        Ok(())
    }
}

/// Each row once for each of its windows, with the window's columns appended.
pub(crate) struct WindowAssign {
    pub(crate) window: Window,
    pub(crate) schema: SchemaRef,
}

impl Operator for WindowAssign {
    fn kind(&self) -> &'static str {
        "window assign"
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let times = event_times(&batch.changes.rows, self.window.column)?;
        let assignment = window::assign(&self.window.kind, times.values(), times.nulls());
        if assignment.rows.is_empty() {
            return Ok(());
        }
        let rows = assignment.rows.len();
        let changes = select(&batch.changes, &UInt32Array::from(assignment.rows))?;
        let mut columns = changes.rows.columns().to_vec();
        let time_type = batch.changes.rows.schema().field(self.window.column).data_type().clone();
        let last = assignment.ends.iter().map(|end| end - 1).collect::<Vec<i64>>();
        for values in [assignment.starts, assignment.ends, last] {
            columns.push(cast(&TimestampMicrosecondArray::from(values), &time_type)?);
        }
        let rows = rows_of(&self.schema, columns, rows)?;
        out.batches.push(Batch { changes: Changes { rows, kinds: changes.kinds }, origin: batch.origin });
        Ok(())
    }
}

/// All rows of all inputs, in the order they come.
pub(crate) struct Union {
    pub(crate) schema: SchemaRef,
}

impl Operator for Union {
    fn kind(&self) -> &'static str {
        "union"
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = rows_of(&self.schema, batch.changes.rows.columns().to_vec(), batch.changes.len())?;
        out.batches.push(Batch { changes: Changes { rows, kinds: batch.changes.kinds }, origin: batch.origin });
        Ok(())
    }
}

/// Columns under a declared schema. A column of another physical type (a view array, a dictionary) is cast.
pub(crate) fn rows_of(schema: &SchemaRef, mut columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        if column.data_type() != field.data_type() {
            *column = cast(column, field.data_type())?;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The event-time column.
pub(crate) fn event_times(rows: &RecordBatch, column: usize) -> Result<TimestampMicrosecondArray> {
    let column = rows.columns().get(column).ok_or_else(|| unsupported("a window over a column that is not there"))?;
    match column.data_type() {
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            Ok(column.as_primitive::<TimestampMicrosecondType>().clone())
        }
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone.clone());
            Ok(cast(column, &micros)?.as_primitive::<TimestampMicrosecondType>().clone())
        }
        other => Err(unsupported(format!("a window over a column of type {other}"))),
    }
}

pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::Unsupported { message: message.into(), hint: None }
}

fn retain(changes: &Changes, mask: &BooleanArray) -> Result<Changes> {
    let rows = filter_record_batch(&changes.rows, mask)?;
    Ok(match &changes.kinds {
        None => Changes::append(rows),
        Some(kinds) => Changes::new(rows, filter(kinds, mask)?.as_primitive().clone()),
    })
}
