//! Columns in the making. Unlike Arrow's builders they can take back what a bad record left in them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, ListArray, NullBufferBuilder, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};

use super::{BadRecord, EpochUnit, value};
use crate::{Error, Result};

/// Values of one column, and which of them are null.
pub(crate) struct Column {
    pub(super) values: Values,
    nulls: NullBufferBuilder,
    nullable: bool,
}

/// Variable-length values one after another.
#[derive(Default)]
pub(crate) struct Spans {
    pub(super) data: Vec<u8>,
    ends: Vec<i32>,
}

impl Spans {
    /// Ends the value whose bytes were put behind `data`.
    pub(super) fn end(&mut self) -> Result<(), BadRecord> {
        let end = i32::try_from(self.data.len()).map_err(|_| BadRecord::new("54000", "more than 2 GiB of text in one batch"))?;
        self.ends.push(end);
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        offsets.append(&mut self.ends);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(renew(&mut self.data)))
    }
}

/// Takes what has gathered and makes room for as much again: batches of one source are alike.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len() + values.len() / 8;
    std::mem::replace(values, Vec::with_capacity(room))
}

pub(crate) enum Values {
    Bool(Vec<bool>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>, Option<Arc<str>>),
    Text(Spans),
    /// JSON text, valid.
    Json(Spans),
    Uuid(Spans),
    Bytes(Spans),
    List {
        item: FieldRef,
        ends: Vec<i32>,
        items: Box<Column>,
    },
}

/// A value that comes with a record and is not in it.
#[derive(Debug, Clone)]
pub(crate) enum Meta<'a> {
    Null,
    Integer(i64),
    /// Microseconds since 1970.
    Micros(i64),
    Bytes(&'a [u8]),
    /// Bytes made for the occasion.
    Owned(Vec<u8>),
}

/// The value of the metadata key that tells JSONB and UUID columns from plain text.
fn marker(field: &Field) -> Option<&str> {
    field.metadata().get("freshet.type").map(String::as_str)
}

impl Column {
    pub(crate) fn new(field: &Field) -> Result<Column> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time64(_) => Values::Time(Vec::new()),
            DataType::Timestamp(_, zone) => Values::Timestamp(Vec::new(), zone.clone()),
            DataType::Utf8 => match marker(field) {
                Some("jsonb") => Values::Json(Spans::default()),
                Some("uuid") => Values::Uuid(Spans::default()),
                _ => Values::Text(Spans::default()),
            },
            DataType::Binary => Values::Bytes(Spans::default()),
            DataType::List(item) => {
                Values::List { item: Arc::clone(item), ends: Vec::new(), items: Box::new(Column::new(item)?) }
            }
            other => {
                return Err(Error::Unsupported {
                    message: format!("column \"{}\" has type {other}, which a record cannot be decoded into", field.name()),
                    hint: Some("Declare a nested field as JSONB and take it apart in the query.".into()),
                });
            }
        };
        Ok(Column { values, nulls: NullBufferBuilder::new(0), nullable: field.is_nullable() })
    }

    /// What a null means here.
    pub(crate) fn append_null(&mut self) -> Result<(), BadRecord> {
        if !self.nullable {
            return Err(BadRecord::new("23502", "null or missing, and the column is NOT NULL"));
        }
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values, _) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Text(spans) | Values::Json(spans) | Values::Uuid(spans) | Values::Bytes(spans) => spans.end()?,
            Values::List { ends, items, .. } => ends.push(items.rows() as i32),
        }
        self.nulls.append_null();
        Ok(())
    }

    /// A value written as text: a CSV field, the content of a JSON string.
    pub(super) fn append_text(&mut self, text: &[u8]) -> Result<(), BadRecord> {
        match &mut self.values {
            Values::Timestamp(values, _) => values.push(value::timestamp(text)?),
            Values::Text(spans) => {
                push_clean_text(text, &mut spans.data);
                spans.end()?;
            }
            Values::Json(spans) => {
                // A text is JSON when it is a string of it: the quotes come back.
                serde_json::to_writer(&mut spans.data, &String::from_utf8_lossy(text).replace('\0', "\u{fffd}"))
                    .map_err(|error| BadRecord::syntax(error.to_string()))?;
                spans.end()?;
            }
            Values::Uuid(spans) => {
                value::uuid(text, &mut spans.data)?;
                spans.end()?;
            }
            Values::Bytes(spans) => {
                value::bytes(text, &mut spans.data)?;
                spans.end()?;
            }
            Values::Bool(values) => values.push(value::boolean(text)?),
            Values::Date(values) => values.push(value::date(text)?),
            Values::Time(values) => values.push(value::time(text)?),
            Values::List { .. } => return Err(value::invalid("array", text)),
            _ => return self.append_number(text, EpochUnit::Millisecond),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// A bare number.
    pub(super) fn append_number(&mut self, text: &[u8], epoch: EpochUnit) -> Result<(), BadRecord> {
        match &mut self.values {
            Values::Int64(values) => values.push(value::integer(text, "bigint", i64::MIN, i64::MAX)?),
            Values::Int32(values) => values.push(value::integer(text, "integer", i32::MIN.into(), i32::MAX.into())? as i32),
            Values::Int16(values) => values.push(value::integer(text, "smallint", i16::MIN.into(), i16::MAX.into())? as i16),
            Values::Float64(values) => values.push(value::float(text, "double precision")?),
            Values::Float32(values) => values.push(value::float4(text)?),
            Values::Decimal(values, precision, scale) => values.push(value::decimal(text, *precision, *scale)?),
            Values::Timestamp(values, _) => values.push(value::epoch_timestamp(text, epoch)?),
            Values::Json(spans) => {
                spans.data.extend_from_slice(text);
                spans.end()?;
            }
            Values::Text(_) => return self.append_text(text),
            Values::Bool(_) => return Err(value::invalid("boolean", text)),
            Values::Date(_) => return Err(value::invalid("date", text)),
            Values::Time(_) => return Err(value::invalid("time", text)),
            Values::Uuid(_) => return Err(value::invalid("uuid", text)),
            Values::Bytes(_) => return Err(value::invalid("bytea", text)),
            Values::List { .. } => return Err(value::invalid("array", text)),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// What a source knows beside the record. A value that the column's type cannot hold becomes null where it may.
    pub(crate) fn append_meta(&mut self, meta: &Meta<'_>) -> Result<(), BadRecord> {
        match (&mut self.values, meta) {
            (Values::Int64(values), Meta::Integer(value)) => values.push(*value),
            (Values::Int32(values), Meta::Integer(value)) if i32::try_from(*value).is_ok() => values.push(*value as i32),
            (Values::Timestamp(values, _), Meta::Micros(value)) => values.push(*value),
            (Values::Bytes(spans), Meta::Bytes(bytes)) => {
                spans.data.extend_from_slice(bytes);
                spans.end()?;
            }
            (Values::Text(spans), Meta::Bytes(bytes)) => {
                push_clean_text(String::from_utf8_lossy(bytes).as_bytes(), &mut spans.data);
                spans.end()?;
            }
            // JSON text comes checked.
            (Values::Json(spans), Meta::Bytes(bytes)) => {
                spans.data.extend_from_slice(bytes);
                spans.end()?;
            }
            (_, Meta::Owned(bytes)) => return self.append_meta(&Meta::Bytes(bytes)),
            (_, Meta::Bytes(bytes)) => return self.append_text(bytes),
            (Values::Text(spans), Meta::Integer(value)) => {
                spans.data.extend_from_slice(value.to_string().as_bytes());
                spans.end()?;
            }
            _ => return self.append_null(),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Marks the value that was pushed to `values` from outside as there.
    pub(super) fn mark_valid(&mut self) {
        self.nulls.append_non_null();
    }

    pub(super) fn rows(&self) -> usize {
        self.nulls.len()
    }

    /// Takes back all rows behind the first `rows`, also half-written ones.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp(values, _) => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal(values, ..) => values.truncate(rows),
            Values::Text(spans) | Values::Json(spans) | Values::Uuid(spans) | Values::Bytes(spans) => spans.truncate(rows),
            Values::List { ends, items, .. } => {
                ends.truncate(rows);
                items.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
        self.nulls.truncate(rows);
    }

    /// The array; starts anew.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(std::mem::take(values).into(), nulls)),
            Values::Int16(values) => Arc::new(Int16Array::try_new(renew(values).into(), nulls)?),
            Values::Int32(values) => Arc::new(Int32Array::try_new(renew(values).into(), nulls)?),
            Values::Int64(values) => Arc::new(Int64Array::try_new(renew(values).into(), nulls)?),
            Values::Float32(values) => Arc::new(Float32Array::try_new(renew(values).into(), nulls)?),
            Values::Float64(values) => Arc::new(Float64Array::try_new(renew(values).into(), nulls)?),
            Values::Decimal(values, precision, scale) => {
                Arc::new(Decimal128Array::try_new(renew(values).into(), nulls)?.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Date(values) => Arc::new(Date32Array::try_new(renew(values).into(), nulls)?),
            Values::Time(values) => Arc::new(Time64MicrosecondArray::try_new(renew(values).into(), nulls)?),
            Values::Timestamp(values, zone) => {
                let array = TimestampMicrosecondArray::try_new(renew(values).into(), nulls)?;
                Arc::new(array.with_timezone_opt(zone.clone()))
            }
            Values::Text(spans) | Values::Json(spans) | Values::Uuid(spans) => {
                let (offsets, data) = spans.take();
                Arc::new(StringArray::try_new(offsets, data, nulls)?)
            }
            Values::Bytes(spans) => {
                let (offsets, data) = spans.take();
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            Values::List { item, ends, items } => {
                let mut offsets = Vec::with_capacity(ends.len() + 1);
                offsets.push(0);
                offsets.append(ends);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, items.finish()?, nulls)?)
            }
        })
    }
}

/// Text as it is, but NUL, which Postgres clients cannot carry, becomes U+FFFD.
pub(super) fn push_clean_text(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(nul) = memchr::memchr(0, rest) {
        out.extend_from_slice(&rest[..nul]);
        out.extend_from_slice("\u{fffd}".as_bytes());
        rest = &rest[nul + 1..];
    }
    out.extend_from_slice(rest);
}
