//! The kernels of the common aggregates, over plain vectors, one element per slot.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, BooleanBuilder, Decimal128Array, Float64Array, Int64Array,
    PrimitiveArray, PrimitiveBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};

use super::general::{Bag, General};
use super::{Call, Kernel, Mode};
use crate::{Error, Result, state};

/// The kernel for a call: its own for the common functions, else one over DataFusion's accumulator.
pub(super) fn build(call: &Call, mode: Mode) -> Result<Box<dyn Kernel>> {
    let input = call.arg_types.first();
    let output = call.field.data_type();
    let retractable = mode == Mode::Retractable;
    Ok(match (call.function.name(), input) {
        ("count", _) => Box::new(Count { counts: Vec::new() }),
        ("sum", Some(input)) if is_exact(input) && (is_exact(output)) => Box::new(Exact::new(false, input, output)),
        ("avg", Some(input)) if is_exact(input) && (is_decimal(output) || *output == DataType::Float64) => {
            Box::new(Exact::new(true, input, output))
        }
        ("sum" | "avg", Some(DataType::Float32 | DataType::Float64)) if is_float(output) => {
            Box::new(Float { sums: Vec::new(), average: call.function.name() == "avg", output: output.clone() })
        }
        ("bool_and" | "bool_or", Some(DataType::Boolean)) => {
            Box::new(Bools { counts: Vec::new(), all: call.function.name() == "bool_and" })
        }
        ("min" | "max", Some(input)) if !retractable && call.arg_types.len() == 1 => {
            extreme(input, call.function.name() == "max")?
        }
        _ if retractable => Box::new(Bag::new(call)?),
        _ => Box::new(General::new(call)?),
    })
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || is_decimal(data_type)
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(_, _))
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// `count(…)`: rows whose arguments are all there.
struct Count {
    counts: Vec<i64>,
}

impl Count {
    fn change(&mut self, slots: &[u32], args: &[ArrayRef], step: i64) {
        if args.iter().all(|arg| arg.null_count() == 0) {
            slots.iter().for_each(|slot| self.counts[*slot as usize] += step);
        } else {
            let there = |row: usize| args.iter().all(|arg| arg.is_valid(row));
            let rows = slots.iter().enumerate().filter(|(row, _)| there(*row));
            rows.for_each(|(_, slot)| self.counts[*slot as usize] += step);
        }
    }
}

impl Kernel for Count {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots.max(self.counts.len()), 0);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, 1);
        Ok(())
    }

    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, -1);
        Ok(())
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot as usize]))))
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(slots)?])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let counts = column::<Int64Type>(state, 0)?;
        slots.iter().zip(counts.values()).for_each(|(slot, count)| self.counts[*slot as usize] += count);
        Ok(())
    }

    fn subtract(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let counts = column::<Int64Type>(state, 0)?;
        slots.iter().zip(counts.values()).for_each(|(slot, count)| self.counts[*slot as usize] -= count);
        Ok(())
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.counts[*slot as usize] = 0);
    }

    fn is_invertible(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
}

/// `sum` and `avg` of integers and decimals, exact in 128 bits.
struct Exact {
    sums: Vec<ExactSum>,
    average: bool,
    input_scale: i8,
    output: DataType,
}

/// Packed, because there is one for every group: 24 bytes instead of 32.
#[derive(Clone, Copy, Default)]
#[repr(Rust, packed(8))]
struct ExactSum {
    sum: i128,
    count: i64,
}

impl Exact {
    fn new(average: bool, input: &DataType, output: &DataType) -> Self {
        let input_scale = match input {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        };
        Exact { sums: Vec::new(), average, input_scale, output: output.clone() }
    }

    fn change(&mut self, slots: &[u32], args: &[ArrayRef], sign: i64) -> Result<()> {
        let values = &args[0];
        macro_rules! of {
            ($t:ty) => {
                self.change_values::<$t>(slots, values.as_primitive(), sign)
            };
        }
        match values.data_type() {
            DataType::Int8 => of!(Int8Type),
            DataType::Int16 => of!(Int16Type),
            DataType::Int32 => of!(Int32Type),
            DataType::Int64 => of!(Int64Type),
            DataType::UInt8 => of!(UInt8Type),
            DataType::UInt16 => of!(UInt16Type),
            DataType::UInt32 => of!(UInt32Type),
            DataType::UInt64 => of!(UInt64Type),
            DataType::Decimal128(_, _) => of!(Decimal128Type),
            other => return Err(state::damaged(format!("a sum of {other}"))),
        }
        Ok(())
    }

    fn change_values<T: ArrowPrimitiveType<Native: Into<i128>>>(&mut self, slots: &[u32], values: &PrimitiveArray<T>, sign: i64) {
        let sums = &mut self.sums;
        let mut add = |slot: u32, value: T::Native| {
            let sum = &mut sums[slot as usize];
            sum.sum = sum.sum.wrapping_add(value.into() * i128::from(sign));
            sum.count += sign;
        };
        match values.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => slots.iter().zip(values.values()).for_each(|(slot, value)| add(*slot, *value)),
            Some(nulls) => nulls.valid_indices().for_each(|row| add(slots[row], values.value(row))),
        }
    }

    fn merge_signed(&mut self, slots: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        let (sums, counts) = (column::<Decimal128Type>(state, 0)?, column::<Int64Type>(state, 1)?);
        for (row, slot) in slots.iter().enumerate() {
            let sum = &mut self.sums[*slot as usize];
            sum.sum = sum.sum.wrapping_add(sums.value(row) * i128::from(sign));
            sum.count += counts.value(row) * sign;
        }
        Ok(())
    }

    /// The result in units of `10^-output_scale`; `None` when it does not fit.
    fn result(&self, sum: ExactSum, output_scale: i8) -> Option<i128> {
        let shift = i32::from(output_scale) - i32::from(self.input_scale);
        let power = 10_i128.checked_pow(shift.unsigned_abs())?;
        let (numerator, divisor) = match shift >= 0 {
            true => (sum.sum.checked_mul(power)?, 1),
            false => (sum.sum, power),
        };
        let divisor = if self.average { divisor.checked_mul(i128::from(sum.count))? } else { divisor };
        Some(divide_rounding(numerator, divisor))
    }
}

/// Division that rounds half away from zero, as Postgres does for numeric.
fn divide_rounding(numerator: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (numerator / divisor, numerator % divisor);
    let half = remainder.unsigned_abs() >= divisor.unsigned_abs() - remainder.unsigned_abs() && remainder != 0;
    if half { quotient + numerator.signum() * divisor.signum() } else { quotient }
}

impl Kernel for Exact {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots.max(self.sums.len()), ExactSum::default());
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, 1)
    }

    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, -1)
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let sums = slots.iter().map(|slot| self.sums[*slot as usize]).map(|sum| (sum.count > 0).then_some(sum));
        let scale = match &self.output {
            DataType::Decimal128(_, scale) => *scale,
            DataType::Float64 => {
                let unit = 10_f64.powi(i32::from(self.input_scale));
                let divisor = |sum: &ExactSum| if self.average { sum.count as f64 * unit } else { unit };
                let values = sums.map(|sum| sum.map(|sum| sum.sum as f64 / divisor(&sum)));
                return Ok(Arc::new(values.collect::<Float64Array>()));
            }
            _ => 0,
        };
        let mut values = PrimitiveBuilder::<Decimal128Type>::with_capacity(slots.len());
        for sum in sums {
            match sum {
                None => values.append_null(),
                Some(sum) => values.append_value(self.result(sum, scale).ok_or_else(out_of_range)?),
            }
        }
        let values = values.finish();
        match &self.output {
            DataType::Decimal128(precision, scale) => Ok(Arc::new(values.with_precision_and_scale(*precision, *scale)?)),
            other => {
                let values = values.with_precision_and_scale(38, 0)?;
                let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
                arrow::compute::cast_with_options(&values, other, &options).map_err(|_| out_of_range())
            }
        }
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let sums = Decimal128Array::from_iter_values(slots.iter().map(|slot| self.sums[*slot as usize].sum));
        let counts = Int64Array::from_iter_values(slots.iter().map(|slot| self.sums[*slot as usize].count));
        Ok(vec![Arc::new(sums.with_precision_and_scale(38, 0)?), Arc::new(counts)])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.merge_signed(slots, state, 1)
    }

    fn subtract(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.merge_signed(slots, state, -1)
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.sums[*slot as usize] = ExactSum::default());
    }

    fn is_invertible(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * size_of::<ExactSum>()
    }
}

/// `sum` and `avg` of floats. Not invertible: taking away what was added need not give what was there before.
struct Float {
    sums: Vec<(f64, i64)>,
    average: bool,
    output: DataType,
}

impl Float {
    fn change(&mut self, slots: &[u32], args: &[ArrayRef], sign: i64) -> Result<()> {
        let values = cast(&args[0], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
            let (sum, count) = &mut self.sums[*slot as usize];
            *sum += values.value(row) * sign as f64;
            *count += sign;
            if *count == 0 {
                // Rounding errors, infinities and NaN end with the last row.
                *sum = 0.0;
            }
        }
        Ok(())
    }
}

impl Kernel for Float {
    fn grow(&mut self, slots: usize) {
        self.sums.resize(slots.max(self.sums.len()), (0.0, 0));
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, 1)
    }

    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, -1)
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let result = |(sum, count): (f64, i64)| (count > 0).then(|| if self.average { sum / count as f64 } else { sum });
        let values: Float64Array = slots.iter().map(|slot| result(self.sums[*slot as usize])).collect();
        Ok(cast(&values, &self.output)?)
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let sums = Float64Array::from_iter_values(slots.iter().map(|slot| self.sums[*slot as usize].0));
        let counts = Int64Array::from_iter_values(slots.iter().map(|slot| self.sums[*slot as usize].1));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (column::<Float64Type>(state, 0)?, column::<Int64Type>(state, 1)?);
        for (row, slot) in slots.iter().enumerate() {
            let (sum, count) = &mut self.sums[*slot as usize];
            *sum += sums.value(row);
            *count += counts.value(row);
        }
        Ok(())
    }

    fn subtract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(not_invertible())
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.sums[*slot as usize] = (0.0, 0));
    }

    fn bytes(&self) -> usize {
        self.sums.capacity() * 16
    }
}

/// `bool_and` and `bool_or`, by counting both values.
struct Bools {
    counts: Vec<[i64; 2]>,
    all: bool,
}

impl Bools {
    fn change(&mut self, slots: &[u32], args: &[ArrayRef], step: i64) {
        let values = args[0].as_boolean();
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
            self.counts[*slot as usize][usize::from(values.value(row))] += step;
        }
    }

    fn merge_signed(&mut self, slots: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        for value in [0, 1] {
            let counts = column::<Int64Type>(state, value)?;
            let pairs = slots.iter().zip(counts.values());
            pairs.for_each(|(slot, count)| self.counts[*slot as usize][value] += count * sign);
        }
        Ok(())
    }
}

impl Kernel for Bools {
    fn grow(&mut self, slots: usize) {
        self.counts.resize(slots.max(self.counts.len()), [0, 0]);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, 1);
        Ok(())
    }

    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, -1);
        Ok(())
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let result = |[falses, trues]: [i64; 2]| (falses + trues > 0).then_some(if self.all { falses == 0 } else { trues > 0 });
        Ok(Arc::new(slots.iter().map(|slot| result(self.counts[*slot as usize])).collect::<BooleanArray>()))
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let counts = |value: usize| Int64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot as usize][value]));
        Ok(vec![Arc::new(counts(0)), Arc::new(counts(1))])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.merge_signed(slots, state, 1)
    }

    fn subtract(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.merge_signed(slots, state, -1)
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.counts[*slot as usize] = [0, 0]);
    }

    fn is_invertible(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 16
    }
}

fn extreme(data_type: &DataType, greatest: bool) -> Result<Box<dyn Kernel>> {
    macro_rules! primitive {
        ($t:ty) => {
            Box::new(Extreme::<$t> { values: Vec::new(), present: Vec::new(), greatest, data_type: data_type.clone() })
        };
    }
    use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    Ok(match data_type {
        DataType::Int8 => primitive!(Int8Type),
        DataType::Int16 => primitive!(Int16Type),
        DataType::Int32 => primitive!(Int32Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::UInt32 => primitive!(UInt32Type),
        DataType::UInt64 => primitive!(UInt64Type),
        DataType::Float32 => primitive!(Float32Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Date32 => primitive!(Date32Type),
        DataType::Decimal128(_, _) => primitive!(Decimal128Type),
        DataType::Timestamp(Second, _) => primitive!(TimestampSecondType),
        DataType::Timestamp(Millisecond, _) => primitive!(TimestampMillisecondType),
        DataType::Timestamp(Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Timestamp(Nanosecond, _) => primitive!(TimestampNanosecondType),
        DataType::Time64(Microsecond) => primitive!(Time64MicrosecondType),
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            Box::new(ExtremeRows { values: Vec::new(), converter, greatest, value_bytes: 0 })
        }
    })
}

/// `min` and `max` of numbers and times.
struct Extreme<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    present: Vec<bool>,
    greatest: bool,
    data_type: DataType,
}

impl<T: ArrowPrimitiveType<Native: ArrowNativeTypeOp>> Extreme<T> {
    fn take(&mut self, slots: &[u32], column: &ArrayRef) -> Result<()> {
        let column = column.as_primitive_opt::<T>().ok_or_else(|| state::damaged("min or max of another type"))?;
        let (values, present, greatest) = (&mut self.values, &mut self.present, self.greatest);
        let mut take = |slot: u32, value: T::Native| {
            let slot = slot as usize;
            // The total order of floats puts NaN above everything, as Postgres does.
            let better = !present[slot] || if greatest { value.is_gt(values[slot]) } else { value.is_lt(values[slot]) };
            if better {
                values[slot] = value;
                present[slot] = true;
            }
        };
        match column.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => slots.iter().zip(column.values()).for_each(|(slot, value)| take(*slot, *value)),
            Some(nulls) => nulls.valid_indices().for_each(|row| take(slots[row], column.value(row))),
        }
        Ok(())
    }
}

impl<T: ArrowPrimitiveType<Native: ArrowNativeTypeOp>> Kernel for Extreme<T> {
    fn grow(&mut self, slots: usize) {
        self.values.resize(slots.max(self.values.len()), T::Native::default());
        self.present.resize(slots.max(self.present.len()), false);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.take(slots, &args[0])
    }

    fn retract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(not_invertible())
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let mut values = PrimitiveBuilder::<T>::with_capacity(slots.len()).with_data_type(self.data_type.clone());
        for slot in slots {
            let slot = *slot as usize;
            values.append_option(self.present[slot].then_some(self.values[slot]));
        }
        Ok(Arc::new(values.finish()))
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(slots)?])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.take(slots, state.first().ok_or_else(|| state::damaged("min or max without its column"))?)
    }

    fn subtract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(not_invertible())
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.present[*slot as usize] = false);
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.present.capacity()
    }
}

/// `min` and `max` of everything else that has an order, in Arrow's row format.
struct ExtremeRows {
    values: Vec<Option<Box<[u8]>>>,
    converter: RowConverter,
    greatest: bool,
    value_bytes: usize,
}

impl Kernel for ExtremeRows {
    fn grow(&mut self, slots: usize) {
        self.values.resize(slots.max(self.values.len()), None);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        let rows = self.converter.convert_columns(&args[..1])?;
        for (row, slot) in slots.iter().enumerate().filter(|(row, _)| args[0].is_valid(*row)) {
            let value = rows.row(row);
            let known = &mut self.values[*slot as usize];
            let better = known.as_deref().is_none_or(|known| match self.greatest {
                true => value.data() > known,
                false => value.data() < known,
            });
            if better {
                self.value_bytes += value.data().len();
                self.value_bytes -= known.as_ref().map_or(0, |known| known.len());
                *known = Some(value.data().into());
            }
        }
        Ok(())
    }

    fn retract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(not_invertible())
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let present: BooleanBuilder = {
            let mut present = BooleanBuilder::with_capacity(slots.len());
            slots.iter().for_each(|slot| present.append_value(self.values[*slot as usize].is_some()));
            present
        };
        let values = slots.iter().filter_map(|slot| self.values[*slot as usize].as_deref()).map(|value| parser.parse(value));
        let values = self.converter.convert_rows(values)?.pop().expect("one column");
        spread(&values, &{ present }.finish())
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(slots)?])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.update(slots, state)
    }

    fn subtract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(not_invertible())
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            let value = self.values[*slot as usize].take();
            self.value_bytes -= value.map_or(0, |value| value.len());
        }
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * 16 + self.value_bytes
    }
}

/// Values at the places that are present, null at the others.
pub(super) fn spread(values: &ArrayRef, present: &BooleanArray) -> Result<ArrayRef> {
    if values.len() == present.len() {
        return Ok(Arc::clone(values));
    }
    let mut next = 0;
    let places: arrow::array::UInt32Array = present
        .iter()
        .map(|present| {
            (present == Some(true)).then(|| {
                next += 1;
                next - 1
            })
        })
        .collect();
    Ok(arrow::compute::take(values, &places, None)?)
}

/// A state column.
pub(super) fn column<T: ArrowPrimitiveType>(state: &[ArrayRef], index: usize) -> Result<&PrimitiveArray<T>> {
    state
        .get(index)
        .and_then(|column| column.as_primitive_opt::<T>())
        .ok_or_else(|| state::damaged(format!("state column {index} of an aggregate is missing or of another type")))
}

fn not_invertible() -> Error {
    state::damaged("rows cannot be taken away from this aggregate")
}

fn out_of_range() -> Error {
    arrow::error::ArrowError::ArithmeticOverflow("the result of an aggregate is out of range".into()).into()
}
