//! Values in the binary form of each type's `send` function.

use arrow::datatypes::IntervalMonthDayNano;
use bytes::{BufMut, BytesMut};

use super::number::{Digits, write_decimal_binary};
use super::{Cells, ColumnEncoder};
use crate::pgwire::message::Format;
use crate::pgwire::types::{PgType, Scalar};

/// 2000-01-01, where Postgres counts from, in days and microseconds since 1970.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 946_684_800_000_000;

impl ColumnEncoder {
    /// Writes a value that is not NULL.
    pub(crate) fn write_binary(&self, row: usize, out: &mut BytesMut) {
        match &self.cells {
            Cells::Null => {}
            Cells::Bool(a) => out.put_u8(u8::from(a.value(row))),
            Cells::Int16(a) => out.put_i16(a.value(row)),
            Cells::Int32(a) => out.put_i32(a.value(row)),
            Cells::Int64(a) => match self.kind {
                PgType::One(Scalar::Int8) => out.put_i64(a.value(row)),
                // The object number types have four bytes; ours stay below 2^32.
                _ => out.put_u32(u32::try_from(a.value(row)).unwrap_or(0)),
            },
            Cells::Float32(a) => out.put_f32(a.value(row)),
            Cells::Float64(a) => out.put_f64(a.value(row)),
            Cells::Decimal128(a, scale) => write_decimal_binary(Digits::of(a.value(row)).as_bytes(), *scale, out),
            Cells::Decimal256(a, scale) => write_decimal_binary(Digits::of(a.value(row)).as_bytes(), *scale, out),
            Cells::Text(a) => self.write_binary_text(a.value(row), out),
            Cells::LargeText(a) => self.write_binary_text(a.value(row), out),
            Cells::TextView(a) => self.write_binary_text(a.value(row), out),
            Cells::Binary(a) => out.put_slice(a.value(row)),
            Cells::Date(a) => out.put_i32(match a.value(row) {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                days => days.saturating_sub(EPOCH_DAYS),
            }),
            Cells::Time(a) => out.put_i64(a.value(row)),
            Cells::Timestamp(a) | Cells::Timestamptz(a) => out.put_i64(match a.value(row) {
                infinite @ (i64::MAX | i64::MIN) => infinite,
                microseconds => microseconds.saturating_sub(EPOCH_US),
            }),
            Cells::Interval(a) => {
                let IntervalMonthDayNano { months, days, nanoseconds } = a.value(row);
                out.put_i64(nanoseconds / 1_000);
                out.put_i32(days);
                out.put_i32(months);
            }
            Cells::List(list, elements) => {
                if matches!(self.kind, PgType::One(Scalar::Text)) {
                    return self.write_text(row, out);
                }
                let (start, end) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                // Vectors count from 0, arrays from 1.
                let lower_bound = i32::from(matches!(self.kind, PgType::Array(_)));
                let has_null = (start..end).any(|index| elements.is_null(index));
                out.put_i32(i32::from(start < end));
                out.put_i32(i32::from(has_null));
                out.put_u32(elements.kind.oid());
                if start < end {
                    out.put_i32(i32::try_from(end - start).unwrap_or(i32::MAX));
                    out.put_i32(lower_bound);
                    (start..end).for_each(|index| elements.write(index, Format::Binary, out));
                }
            }
            Cells::Record(_, fields) => {
                out.put_i32(i32::try_from(fields.len()).unwrap_or(i32::MAX));
                for field in fields {
                    out.put_u32(field.kind.oid());
                    field.write(row, Format::Binary, out);
                }
            }
        }
    }

    fn write_binary_text(&self, text: &str, out: &mut BytesMut) {
        match self.kind {
            PgType::One(Scalar::Jsonb) => {
                out.put_u8(1);
                out.put_slice(text.as_bytes());
            }
            PgType::One(Scalar::Uuid) => {
                let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let mut digits = text.bytes().filter_map(digit);
                for _ in 0..16 {
                    let (high, low) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
                    out.put_u8(high << 4 | low);
                }
            }
            _ => out.put_slice(text.as_bytes()),
        }
    }
}
