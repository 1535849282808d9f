//! Expressions over batches. A row whose expression fails (overflow, division by zero, a bad cast) is set aside with
//! stage `expression`; the others go on.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::error::ArrowError;
use catalog::{Changes, ErrorRecord};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;

use super::{Batch, Origin, Output, now_us};
use crate::Result;

/// Evaluates all expressions for all rows. Returns the rows for which none failed, and the values for them.
pub(crate) fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], batch: Batch, out: &mut Output) -> Result<(Batch, Vec<ArrayRef>)> {
    match columns(exprs, &batch.changes.rows) {
        Ok(columns) => Ok((batch, columns)),
        Err(error) if row_failure(&error).is_none() => Err(error.into()),
        Err(_) => {
            let batch = set_failing_aside(exprs, batch, out)?;
            let columns = columns(exprs, &batch.changes.rows)?;
            Ok((batch, columns))
        }
    }
}

/// The rows of a batch at the given indexes.
pub(crate) fn select(changes: &Changes, rows: &UInt32Array) -> Result<Changes> {
    let batch = take_record_batch(&changes.rows, rows)?;
    Ok(match &changes.kinds {
        None => Changes::append(batch),
        Some(kinds) => {
            let kinds = take(kinds, rows, None)?;
            Changes::new(batch, arrow::array::AsArray::as_primitive(kinds.as_ref()).clone())
        }
    })
}

/// A record of a row that is set aside; `index` tells the rows of one batch apart.
pub(crate) fn row_record(
    batch: &RecordBatch,
    row: usize,
    origin: Option<&Origin>,
    stage: &'static str,
    sqlstate: &'static str,
    reason: String,
    event_time_us: Option<i64>,
) -> ErrorRecord {
    let (source, split, offset) = match origin {
        None => Default::default(),
        Some(origin) => (origin.source.to_string(), origin.split.to_string(), format!("{}#{row}", offset_text(&origin.offset))),
    };
    let payload = row_json(batch, row);
    ErrorRecord { time_us: now_us(), job: String::new(), source, split, offset, stage, sqlstate, reason, event_time_us, payload }
}

/// An offset for people: a plain number or text without quotes, else JSON.
pub(crate) fn offset_text(offset: &serde_json::Value) -> String {
    match offset {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn columns(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
    exprs.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

/// Finds failing rows by halving the batch: a few of them cost a few evaluations of ever smaller pieces.
fn set_failing_aside(exprs: &[Arc<dyn PhysicalExpr>], batch: Batch, out: &mut Output) -> Result<Batch> {
    let rows = &batch.changes.rows;
    let mut good: Vec<u32> = Vec::with_capacity(rows.num_rows());
    let mut pieces = vec![(0, rows.num_rows())];
    while let Some((start, length)) = pieces.pop() {
        match columns(exprs, &rows.slice(start, length)) {
            Ok(_) => good.extend(start as u32..(start + length) as u32),
            Err(error) if length > 1 => {
                if row_failure(&error).is_none() {
                    return Err(error.into());
                }
                // The first half last, so that it is popped first and rows stay in order.
                pieces.push((start + length / 2, length - length / 2));
                pieces.push((start, length / 2));
            }
            Err(error) => {
                let sqlstate = row_failure(&error).unwrap_or("22000");
                let reason = error.find_root().to_string();
                out.errors.push(row_record(rows, start, batch.origin.as_deref(), "expression", sqlstate, reason, None));
            }
        }
    }
    Ok(Batch { changes: select(&batch.changes, &UInt32Array::from(good))?, origin: batch.origin })
}

/// The SQLSTATE when an error is about the values of a row, `None` when it is about the plan or about us.
fn row_failure(error: &DataFusionError) -> Option<&'static str> {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => arrow_failure(error),
        DataFusionError::Execution(message) => Some(text_failure(message)),
        DataFusionError::External(source) => Some(match source.downcast_ref::<ArrowError>() {
            Some(error) => arrow_failure(error)?,
            None => text_failure(&source.to_string()),
        }),
        _ => None,
    }
}

fn arrow_failure(error: &ArrowError) -> Option<&'static str> {
    match error {
        ArrowError::DivideByZero => Some("22012"),
        ArrowError::ArithmeticOverflow(_) => Some("22003"),
        ArrowError::CastError(message) | ArrowError::ParseError(message) | ArrowError::ComputeError(message) => {
            Some(text_failure(message))
        }
        ArrowError::InvalidArgumentError(message) => Some(text_failure(message)),
        ArrowError::JsonError(_) => Some("22P02"),
        ArrowError::ExternalError(source) => Some(text_failure(&source.to_string())),
        _ => None,
    }
}

/// Functions report bad values as text only; the words decide.
fn text_failure(message: &str) -> &'static str {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["divide by zero", "division by zero"]) {
        "22012"
    } else if says(&["overflow", "out of range", "too large", "too big"]) {
        "22003"
    } else if says(&["timestamp", "date", "interval"]) {
        "22007"
    } else if says(&["cast", "parse", "invalid input", "invalid"]) {
        "22P02"
    } else {
        "22000"
    }
}

fn row_json(batch: &RecordBatch, row: usize) -> Vec<u8> {
    let mut json = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut json);
    let written = writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish());
    drop(writer);
    match written {
        Ok(()) => {
            json.truncate(json.trim_ascii_end().len());
            json
        }
        // Types that JSON cannot show: what the row is like is better than nothing.
        Err(error) => format!("{{\"unprintable\":{:?}}}", error.to_string()).into_bytes(),
    }
}
