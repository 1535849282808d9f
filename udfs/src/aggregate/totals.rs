//! Totals and counts: per group, for one group, and of distinct values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, ListArray, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use hashbrown::HashMap;

use super::{DIGITS, Finish, Kind};
use crate::error::Error;

/// A type that can be totalled, and what its totals are kept in.
pub(super) trait Input: ArrowPrimitiveType<Native: Send + Sync> + std::fmt::Debug + Send + Sync {
    type Total: ArrowPrimitiveType<Native: ArrowNativeTypeOp + From<Self::Native> + Quotient + Send + Sync>;

    /// The value as a key for a hash map, and back.
    fn key(value: Self::Native) -> i128;
    fn value(key: i128) -> Self::Native;
}

macro_rules! exact_input {
    ($input:ty, $total:ty) => {
        impl Input for $input {
            type Total = $total;

            fn key(value: Self::Native) -> i128 {
                value.into()
            }

            fn value(key: i128) -> Self::Native {
                key as Self::Native
            }
        }
    };
}

exact_input!(Int16Type, Int64Type);
exact_input!(Int32Type, Int64Type);
exact_input!(Int64Type, Decimal128Type);
exact_input!(Decimal128Type, Decimal128Type);

impl Input for Float64Type {
    type Total = Float64Type;

    fn key(value: f64) -> i128 {
        // Both zeros are one value, and all NaNs.
        let value = if value == 0.0 {
            0.0
        } else if value.is_nan() {
            f64::NAN
        } else {
            value
        };
        value.to_bits().into()
    }

    fn value(key: i128) -> f64 {
        f64::from_bits(key as u64)
    }
}

impl Input for Float32Type {
    type Total = Float64Type;

    fn key(value: f32) -> i128 {
        Float64Type::key(value.into())
    }

    fn value(key: i128) -> f32 {
        Float64Type::value(key) as f32
    }
}

/// Totals divided by counts.
pub(super) trait Quotient: Copy {
    /// An exact total as an integer of its scale; `None` for floats.
    fn exact(self) -> Option<i128>;
    fn float(self) -> f64;
}

impl Quotient for i64 {
    fn exact(self) -> Option<i128> {
        Some(self.into())
    }

    fn float(self) -> f64 {
        self as f64
    }
}

impl Quotient for i128 {
    fn exact(self) -> Option<i128> {
        Some(self)
    }

    fn float(self) -> f64 {
        self as f64
    }
}

impl Quotient for f64 {
    fn exact(self) -> Option<i128> {
        None
    }

    fn float(self) -> f64 {
        self
    }
}

type Step<T> = fn(T, T) -> Result<T, arrow::error::ArrowError>;
type TotalOf<I> = <<I as Input>::Total as ArrowPrimitiveType>::Native;

fn overflow(finish: &Finish) -> Error {
    Error::out_of_range(if finish.total == DataType::Int64 { "bigint" } else { "numeric" })
}

impl Finish {
    /// The answers of groups with these totals and counts.
    fn column<I: Input>(&self, totals: Vec<TotalOf<I>>, counts: &[i64]) -> Result<ArrayRef> {
        let present = NullBuffer::from_iter(counts.iter().map(|&count| count > 0));
        Ok(match (self.kind, &self.result) {
            (Kind::Sum, DataType::Float32) => {
                let sums = totals.iter().map(|total| total.float() as f32).collect::<ScalarBuffer<f32>>();
                Arc::new(PrimitiveArray::<Float32Type>::new(sums, Some(present)))
            }
            (Kind::Sum, _) => {
                self.check_digits::<I>(&totals)?;
                let sums = PrimitiveArray::<I::Total>::new(totals.into(), Some(present));
                Arc::new(sums.with_data_type(self.result.clone()))
            }
            (Kind::Avg, DataType::Decimal128(_, scale)) => {
                let scale = *scale;
                let mean = |(total, &count): (&TotalOf<I>, &i64)| match total.exact() {
                    Some(total) if count > 0 => Ok(Some(self.mean(total, count, scale)?)),
                    _ => Ok(None),
                };
                let means = totals.iter().zip(counts).map(mean).collect::<Result<Vec<Option<i128>>, Error>>()?;
                Arc::new(PrimitiveArray::<Decimal128Type>::from(means).with_data_type(self.result.clone()))
            }
            (Kind::Avg, _) => {
                let means = totals.iter().zip(counts).map(|(total, &count)| total.float() / count as f64);
                Arc::new(PrimitiveArray::<Float64Type>::new(means.collect(), Some(present)))
            }
        })
    }

    /// Totals are kept in 128 bits, which hold a little more than 38 digits.
    fn check_digits<I: Input>(&self, totals: &[TotalOf<I>]) -> Result<(), Error> {
        let limit = 10_i128.pow(DIGITS.into());
        let too_big = |total: &TotalOf<I>| total.exact().is_some_and(|total| total >= limit || total <= -limit);
        if totals.iter().any(too_big) { Err(overflow(self)) } else { Ok(()) }
    }

    /// `total / count` with `scale` digits behind the point, rounded half away from zero.
    fn mean(&self, total: i128, count: i64, scale: i8) -> Result<i128, Error> {
        let total_scale = match self.total {
            DataType::Decimal128(_, scale) => scale,
            _ => 0,
        };
        let unit = 10_i128.pow((scale - total_scale).max(0) as u32);
        let count = i128::from(count);
        // Quotient and remainder apart: their products stay within 128 bits.
        let (whole, rest) = (total / count, total % count * unit);
        let half_up = if (rest % count).abs() * 2 >= count { rest.signum() } else { 0 };
        let mean = whole.checked_mul(unit).and_then(|whole| whole.checked_add(rest / count + half_up));
        mean.filter(|mean| mean.unsigned_abs() < 10_u128.pow(DIGITS.into())).ok_or_else(|| overflow(self))
    }
}

/// A total and a count per group.
pub(super) struct Groups<I: Input> {
    totals: Vec<TotalOf<I>>,
    counts: Vec<i64>,
    finish: Finish,
}

impl<I: Input> Groups<I> {
    pub(super) fn new(finish: Finish) -> Self {
        Groups { totals: Vec::new(), counts: Vec::new(), finish }
    }

    fn resize(&mut self, groups: usize) {
        self.totals.resize(groups, I::Total::default_value());
        self.counts.resize(groups, 0);
    }
}

/// Rows that count: not NULL and kept by the filter. `None` where all do.
fn counted(values: &dyn Array, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let kept = filter.map(|filter| {
        let kept = NullBuffer::new(filter.values().clone());
        NullBuffer::union(Some(&kept), filter.nulls()).unwrap_or(kept)
    });
    NullBuffer::union(kept.as_ref(), values.nulls()).filter(|counted| counted.null_count() > 0)
}

impl<I: Input> GroupsAccumulator for Groups<I> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let column = values[0].as_primitive::<I>();
        let (totals, counts) = (&mut self.totals, &mut self.counts);
        let mut add = |group: usize, value: I::Native| -> Result<()> {
            totals[group] = totals[group].add_checked(value.into()).map_err(|_| overflow(&self.finish))?;
            counts[group] += 1;
            Ok(())
        };
        match counted(column, opt_filter) {
            None => group_indices.iter().zip(column.values()).try_for_each(|(&group, &value)| add(group, value)),
            Some(rows) => rows.valid_indices().try_for_each(|row| add(group_indices[row], column.value(row))),
        }
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        let (totals, counts) = (values[0].as_primitive::<I::Total>(), values[1].as_primitive::<Int64Type>());
        for (row, &group) in group_indices.iter().enumerate().filter(|(row, _)| totals.is_valid(*row)) {
            self.totals[group] = self.totals[group].add_checked(totals.value(row)).map_err(|_| overflow(&self.finish))?;
            self.counts[group] += counts.value(row);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = emit_to.take_needed(&mut self.totals);
        let counts = emit_to.take_needed(&mut self.counts);
        self.finish.column::<I>(totals, &counts)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let totals = emit_to.take_needed(&mut self.totals);
        let counts = emit_to.take_needed(&mut self.counts);
        let totals = PrimitiveArray::<I::Total>::new(totals.into(), None).with_data_type(self.finish.total.clone());
        Ok(vec![Arc::new(totals), Arc::new(Int64Array::from(counts))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let column = values[0].as_primitive::<I>();
        let totals: ScalarBuffer<TotalOf<I>> = column.values().iter().map(|&value| value.into()).collect();
        let nulls = counted(column, opt_filter);
        let counts = match &nulls {
            Some(rows) => rows.iter().map(i64::from).collect(),
            None => vec![1; column.len()],
        };
        let totals = PrimitiveArray::<I::Total>::new(totals, nulls).with_data_type(self.finish.total.clone());
        Ok(vec![Arc::new(totals), Arc::new(Int64Array::from(counts))])
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<TotalOf<I>>() + self.counts.capacity() * size_of::<i64>()
    }
}

/// One total and count.
#[derive(Debug)]
pub(super) struct Totals<I: Input> {
    total: TotalOf<I>,
    count: i64,
    finish: Finish,
}

impl<I: Input> Totals<I> {
    pub(super) fn new(finish: Finish) -> Self {
        Totals { total: I::Total::default_value(), count: 0, finish }
    }

    /// Steps the total by every value; how many there were.
    fn each(&mut self, values: &ArrayRef, step: Step<TotalOf<I>>) -> Result<i64> {
        let column = values.as_primitive::<I>();
        for value in column.iter().flatten() {
            self.total = step(self.total, value.into()).map_err(|_| overflow(&self.finish))?;
        }
        Ok((column.len() - column.null_count()) as i64)
    }
}

impl<I: Input> Accumulator for Totals<I> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += self.each(&values[0], |total, value| total.add_checked(value))?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= self.each(&values[0], |total, value| total.sub_checked(value))?;
        if self.count == 0 {
            self.total = I::Total::default_value(); // floats leave no residue behind
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (totals, counts) = (states[0].as_primitive::<I::Total>(), states[1].as_primitive::<Int64Type>());
        for (total, count) in totals.iter().zip(counts.iter()) {
            let (Some(total), Some(count)) = (total, count) else { continue };
            self.total = self.total.add_checked(total).map_err(|_| overflow(&self.finish))?;
            self.count += count;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.finish.column::<I>(vec![self.total], &[self.count])?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = PrimitiveArray::<I::Total>::new(vec![self.total].into(), None).with_data_type(self.finish.total.clone());
        Ok(vec![ScalarValue::try_from_array(&total, 0)?, ScalarValue::Int64(Some(self.count))])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Every distinct value and how often it was seen.
#[derive(Debug)]
pub(super) struct Distinct<I: Input> {
    seen: HashMap<i128, i64>,
    input: DataType,
    finish: Finish,
    values: std::marker::PhantomData<I>,
}

impl<I: Input> Distinct<I> {
    pub(super) fn new(finish: Finish, input: DataType) -> Self {
        Distinct { seen: HashMap::new(), input, finish, values: std::marker::PhantomData }
    }
}

impl<I: Input> Accumulator for Distinct<I> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<I>().iter().flatten() {
            *self.seen.entry(I::key(value)).or_insert(0) += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<I>().iter().flatten() {
            if let hashbrown::hash_map::Entry::Occupied(mut entry) = self.seen.entry(I::key(value)) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = I::Total::default_value();
        let mut keys: Vec<i128> = self.seen.keys().copied().collect();
        keys.sort_unstable(); // floats add up the same way every time
        for key in keys {
            total = total.add_checked(I::value(key).into()).map_err(|_| overflow(&self.finish))?;
        }
        ScalarValue::try_from_array(&self.finish.column::<I>(vec![total], &[self.seen.len() as i64])?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: ScalarBuffer<I::Native> = self.seen.keys().map(|&key| I::value(key)).collect();
        let values = PrimitiveArray::<I>::new(values, None).with_data_type(self.input.clone());
        let item = Arc::new(Field::new_list_field(self.input.clone(), true));
        let list = ListArray::try_new(item, OffsetBuffer::from_lengths([values.len()]), Arc::new(values), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.capacity() * size_of::<(i128, i64)>()
    }
}
