//! Arrow columns as Postgres values, text and binary.
//!
//! A [`RowEncoder`] is made once per batch: each column is brought to one of a few shapes and matched once; after that a row
//! is written value by value into the output buffer, without an allocation.

mod binary;
mod calendar;
mod number;
mod text;

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, LargeStringArray, ListArray, RecordBatch,
    StringArray, StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::{BufMut, BytesMut};

use super::message::Format;
use super::output::set_length;
use super::types::{PgType, Scalar};

pub(crate) use text::zone;

/// A batch, ready to be written row by row.
pub(super) struct RowEncoder {
    columns: Vec<(ColumnEncoder, Format)>,
    rows: usize,
}

impl RowEncoder {
    /// Matches the columns of `batch` to the types a client was told.
    pub(super) fn new(
        batch: &RecordBatch,
        types: &[PgType],
        format: impl Fn(usize) -> Format,
        zone: Tz,
    ) -> Result<RowEncoder, ArrowError> {
        let columns = batch.columns().iter().zip(types).enumerate();
        let columns = columns
            .map(|(index, (column, kind))| Ok((ColumnEncoder::new(column, *kind, zone)?, format(index))))
            .collect::<Result<_, ArrowError>>()?;
        Ok(RowEncoder { columns, rows: batch.num_rows() })
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Writes a `DataRow`.
    pub(super) fn write_row(&self, row: usize, out: &mut BytesMut) {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_u16(u16::try_from(self.columns.len()).unwrap_or(u16::MAX));
        for (column, format) in &self.columns {
            column.write(row, *format, out);
        }
        set_length(out, start);
    }

    /// The columns.
    pub(super) fn columns(&self) -> impl ExactSizeIterator<Item = &ColumnEncoder> {
        self.columns.iter().map(|(column, _)| column)
    }
}

/// One column's values.
pub(crate) struct ColumnEncoder {
    cells: Cells,
    /// What the client was told.
    kind: PgType,
    zone: Tz,
}

/// The few shapes that every column is brought to.
enum Cells {
    Null,
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Timestamptz(TimestampMicrosecondArray),
    Interval(IntervalMonthDayNanoArray),
    List(ListArray, Box<ColumnEncoder>),
    Record(ArrayRef, Vec<ColumnEncoder>),
}

impl ColumnEncoder {
    /// Brings a column to its shape for a type.
    pub(crate) fn new(column: &ArrayRef, kind: PgType, zone: Tz) -> Result<ColumnEncoder, ArrowError> {
        let cells = match (column.data_type(), kind) {
            // A column whose type turned out otherwise than described is brought to what the client expects.
            (DataType::Null, _) => Cells::Null,
            (DataType::List(element), PgType::Array(_) | PgType::One(Scalar::Text | Scalar::Int2Vector | Scalar::OidVector)) => {
                let element_kind = match kind {
                    PgType::Array(scalar) => PgType::One(scalar),
                    PgType::One(Scalar::Int2Vector) => PgType::One(Scalar::Int2),
                    PgType::One(Scalar::OidVector) => PgType::One(Scalar::Oid),
                    PgType::One(_) => PgType::of(element),
                };
                let list = column.as_list::<i32>().clone();
                let elements = ColumnEncoder::new(list.values(), element_kind, zone)?;
                Cells::List(list, Box::new(elements))
            }
            (DataType::LargeList(element) | DataType::FixedSizeList(element, _), _) => {
                let list = cast(column, &DataType::List(Arc::clone(element)))?;
                return ColumnEncoder::new(&list, kind, zone);
            }
            (DataType::Struct(fields), PgType::One(Scalar::Record)) => {
                let columns = column.as_struct().columns().iter().zip(fields);
                let columns = columns.map(|(column, field)| ColumnEncoder::new(column, PgType::of(field), zone));
                Cells::Record(Arc::clone(column), columns.collect::<Result<_, _>>()?)
            }
            (_, PgType::Array(scalar)) => {
                let list = cast(column, &DataType::new_list(PgType::One(scalar).arrow(), true))?;
                return ColumnEncoder::new(&list, kind, zone);
            }
            (data_type, PgType::One(scalar)) => scalar_cells(column, data_type, scalar)?,
        };
        Ok(ColumnEncoder { cells, kind, zone })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match &self.cells {
            Cells::Null => true,
            Cells::Bool(a) => a.is_null(row),
            Cells::Int16(a) => a.is_null(row),
            Cells::Int32(a) => a.is_null(row),
            Cells::Int64(a) => a.is_null(row),
            Cells::Float32(a) => a.is_null(row),
            Cells::Float64(a) => a.is_null(row),
            Cells::Decimal128(a, _) => a.is_null(row),
            Cells::Decimal256(a, _) => a.is_null(row),
            Cells::Text(a) => a.is_null(row),
            Cells::LargeText(a) => a.is_null(row),
            Cells::TextView(a) => a.is_null(row),
            Cells::Binary(a) => a.is_null(row),
            Cells::Date(a) => a.is_null(row),
            Cells::Time(a) => a.is_null(row),
            Cells::Timestamp(a) | Cells::Timestamptz(a) => a.is_null(row),
            Cells::Interval(a) => a.is_null(row),
            Cells::List(a, _) => a.is_null(row),
            Cells::Record(a, _) => a.is_null(row),
        }
    }

    /// Writes length and value, or −1 for NULL.
    pub(in crate::pgwire) fn write(&self, row: usize, format: Format, out: &mut BytesMut) {
        if self.is_null(row) {
            out.put_i32(-1);
            return;
        }
        let start = out.len();
        out.put_i32(0);
        match format {
            Format::Text => self.write_text(row, out),
            Format::Binary => self.write_binary(row, out),
        }
        let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn scalar_cells(column: &ArrayRef, data_type: &DataType, scalar: Scalar) -> Result<Cells, ArrowError> {
    let cells = match (data_type, scalar) {
        (DataType::Boolean, Scalar::Bool) => Cells::Bool(column.as_boolean().clone()),
        (DataType::Int16, Scalar::Int2) => Cells::Int16(column.as_primitive::<Int16Type>().clone()),
        (DataType::Int32, Scalar::Int4) => Cells::Int32(column.as_primitive::<Int32Type>().clone()),
        (DataType::Int64, Scalar::Int8 | Scalar::Oid | Scalar::Xid | Scalar::Regproc | Scalar::Regclass | Scalar::Regtype) => {
            Cells::Int64(column.as_primitive::<Int64Type>().clone())
        }
        (DataType::Float32, Scalar::Float4) => Cells::Float32(column.as_primitive::<Float32Type>().clone()),
        (DataType::Float64, Scalar::Float8) => Cells::Float64(column.as_primitive::<Float64Type>().clone()),
        (DataType::Decimal128(_, scale), Scalar::Numeric) => {
            Cells::Decimal128(column.as_primitive::<Decimal128Type>().clone(), *scale)
        }
        (DataType::Decimal256(_, scale), Scalar::Numeric) => {
            Cells::Decimal256(column.as_primitive::<Decimal256Type>().clone(), *scale)
        }
        (DataType::Binary, Scalar::Bytea) => Cells::Binary(column.as_binary::<i32>().clone()),
        (DataType::Date32, Scalar::Date) => Cells::Date(column.as_primitive::<Date32Type>().clone()),
        (DataType::Time64(TimeUnit::Microsecond), Scalar::Time) => {
            Cells::Time(column.as_primitive::<Time64MicrosecondType>().clone())
        }
        (DataType::Timestamp(TimeUnit::Microsecond, None), Scalar::Timestamp) => {
            Cells::Timestamp(column.as_primitive::<TimestampMicrosecondType>().clone())
        }
        (DataType::Timestamp(TimeUnit::Microsecond, Some(_)), Scalar::Timestamptz) => {
            Cells::Timestamptz(column.as_primitive::<TimestampMicrosecondType>().clone())
        }
        (DataType::Interval(IntervalUnit::MonthDayNano), Scalar::Interval) => {
            Cells::Interval(column.as_primitive::<IntervalMonthDayNanoType>().clone())
        }
        (DataType::Utf8, scalar) if is_textual(scalar) => Cells::Text(column.as_string::<i32>().clone()),
        (DataType::LargeUtf8, scalar) if is_textual(scalar) => Cells::LargeText(column.as_string::<i64>().clone()),
        (DataType::Utf8View, scalar) if is_textual(scalar) => Cells::TextView(column.as_string_view().clone()),
        (DataType::UInt64, Scalar::Numeric) => return scalar_cast(column, &DataType::Decimal128(20, 0), scalar),
        (DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale), Scalar::Numeric) => {
            return scalar_cast(column, &DataType::Decimal128(38, *scale), scalar);
        }
        (DataType::RunEndEncoded(_, value), _) => return scalar_cast(column, value.data_type(), scalar),
        (DataType::Dictionary(_, value), _) => return scalar_cast(column, value, scalar),
        (DataType::Timestamp(_, Some(zone)), Scalar::Timestamptz) => {
            return scalar_cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))), scalar);
        }
        (
            DataType::Map(..) | DataType::Union(..) | DataType::Struct(_) | DataType::ListView(_) | DataType::LargeListView(_),
            _,
        ) => Cells::Text(displayed(column)?),
        // Narrower integers, other time units, or a type that differs from the one described.
        (_, scalar) => return scalar_cast(column, &PgType::One(scalar).arrow(), scalar),
    };
    Ok(cells)
}

fn scalar_cast(column: &ArrayRef, to: &DataType, scalar: Scalar) -> Result<Cells, ArrowError> {
    let from = column.data_type();
    if from == to {
        return Err(ArrowError::CastError(format!("no {scalar:?} can be made of {from}")));
    }
    let column = cast(column, to)?;
    scalar_cells(&column, to, scalar)
}

fn is_textual(scalar: Scalar) -> bool {
    PgType::One(scalar).arrow() == DataType::Utf8
}

/// Types Postgres has no match for, as Arrow prints them.
fn displayed(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    Ok((0..column.len()).map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string())).collect())
}

#[cfg(test)]
mod tests;
