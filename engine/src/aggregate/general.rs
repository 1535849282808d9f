//! Aggregates without a kernel of their own, over DataFusion's accumulators.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::scalar::ScalarValue;

use super::{Call, Kernel};
use crate::{Result, state};

/// One accumulator per slot. `evaluate` and `state` of an accumulator may consume it, so it is asked for its state
/// once and built anew from it.
pub(super) struct General {
    function: Arc<AggregateFunctionExpr>,
    slots: Vec<Option<Box<dyn Accumulator>>>,
    state_types: Vec<DataType>,
    output: DataType,
}

fn function_of(call: &Call) -> Result<Arc<AggregateFunctionExpr>> {
    let function = AggregateExprBuilder::new(Arc::clone(&call.function), call.arg_exprs.clone())
        .schema(Arc::clone(&call.input))
        .alias(call.field.name().clone())
        .build()?;
    Ok(Arc::new(function))
}

/// Row indexes by slot: each slot with its rows, in order.
fn by_slot(slots: &[u32]) -> BTreeMap<u32, Vec<u32>> {
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    slots.iter().enumerate().for_each(|(row, slot)| rows.entry(*slot).or_default().push(row as u32));
    rows
}

fn pick(columns: &[ArrayRef], rows: Vec<u32>) -> Result<Vec<ArrayRef>> {
    let rows = UInt32Array::from(rows);
    Ok(columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?)
}

impl General {
    pub(super) fn new(call: &Call) -> Result<General> {
        let function = function_of(call)?;
        let state_types = function.state_fields()?.iter().map(|field| field.data_type().clone()).collect();
        Ok(General { function, slots: Vec::new(), state_types, output: call.field.data_type().clone() })
    }

    /// The state of a slot, which goes on with a copy of it.
    fn state(&mut self, slot: u32) -> Result<Vec<ScalarValue>> {
        let mut accumulator = match self.slots[slot as usize].take() {
            Some(accumulator) => accumulator,
            None => self.function.create_accumulator()?,
        };
        let state = accumulator.state()?;
        self.slots[slot as usize] = Some(self.restored(&state)?);
        Ok(state)
    }

    fn restored(&self, state: &[ScalarValue]) -> Result<Box<dyn Accumulator>> {
        let columns: Vec<ArrayRef> = state.iter().map(|value| value.to_array()).collect::<Result<_, _>>()?;
        let mut accumulator = self.function.create_accumulator()?;
        accumulator.merge_batch(&columns)?;
        Ok(accumulator)
    }

    fn each_slot(
        &mut self,
        slots: &[u32],
        columns: &[ArrayRef],
        apply: impl Fn(&mut dyn Accumulator, &[ArrayRef]) -> datafusion::error::Result<()>,
    ) -> Result<()> {
        for (slot, rows) in by_slot(slots) {
            let columns = pick(columns, rows)?;
            let accumulator = match &mut self.slots[slot as usize] {
                Some(accumulator) => accumulator,
                empty => empty.insert(self.function.create_accumulator()?),
            };
            apply(accumulator.as_mut(), &columns)?;
        }
        Ok(())
    }
}

impl Kernel for General {
    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots.max(self.slots.len()), || None);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.each_slot(slots, args, |accumulator, args| accumulator.update_batch(args))
    }

    fn retract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(state::damaged("rows cannot be taken away from this aggregate"))
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        let mut results = Vec::with_capacity(slots.len());
        for slot in slots {
            let state = self.state(*slot)?;
            results.push(self.restored(&state)?.evaluate()?);
        }
        to_column(results, &self.output)
    }

    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(slots.len()); self.state_types.len()];
        for slot in slots {
            let state = self.state(*slot)?;
            columns.iter_mut().zip(state).for_each(|(column, value)| column.push(value));
        }
        columns.into_iter().zip(&self.state_types).map(|(column, data_type)| to_column(column, data_type)).collect()
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        self.each_slot(slots, state, |accumulator, state| accumulator.merge_batch(state))
    }

    fn subtract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(state::damaged("rows cannot be taken away from this aggregate"))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.slots[*slot as usize] = None);
    }

    fn bytes(&self) -> usize {
        let accumulators: usize = self.slots.iter().flatten().map(|accumulator| accumulator.size()).sum();
        self.slots.capacity() * 16 + accumulators
    }
}

fn to_column(values: Vec<ScalarValue>, data_type: &DataType) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(arrow::array::new_empty_array(data_type));
    }
    let column = ScalarValue::iter_to_array(values)?;
    Ok(if column.data_type() == data_type { column } else { arrow::compute::cast(&column, data_type)? })
}

/// Any aggregate over rows that may be taken away: each slot keeps its rows, sorted, with how often each is there.
/// `min` and `max` are at the ends; others are computed from the rows when they are asked for.
pub(super) struct Bag {
    function: Arc<AggregateFunctionExpr>,
    end: Option<End>,
    converter: RowConverter,
    slots: Vec<BTreeMap<Box<[u8]>, i64>>,
    output: DataType,
    value_bytes: usize,
}

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

impl Bag {
    pub(super) fn new(call: &Call) -> Result<Bag> {
        let end = match call.function.name() {
            "min" => Some(End::First),
            "max" => Some(End::Last),
            _ => None,
        };
        let fields = call.arg_types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Ok(Bag {
            function: function_of(call)?,
            end,
            converter: RowConverter::new(fields)?,
            slots: Vec::new(),
            output: call.field.data_type().clone(),
            value_bytes: 0,
        })
    }

    fn change(&mut self, slots: &[u32], args: &[ArrayRef], counts: impl Fn(usize) -> i64) -> Result<()> {
        let rows = self.converter.convert_columns(args)?;
        for (row, slot) in slots.iter().enumerate() {
            // `min` and `max` do not see nulls.
            if self.end.is_some() && args[0].is_null(row) {
                continue;
            }
            let bag = &mut self.slots[*slot as usize];
            let value = rows.row(row);
            match bag.get_mut(value.data()) {
                Some(count) => {
                    *count += counts(row);
                    if *count == 0 {
                        bag.remove(value.data());
                        self.value_bytes -= value.data().len();
                    }
                }
                None => {
                    bag.insert(value.data().into(), counts(row));
                    self.value_bytes += value.data().len();
                }
            }
        }
        Ok(())
    }

    fn compute(&self, slot: u32) -> Result<ScalarValue> {
        let bag = &self.slots[slot as usize];
        let parser = self.converter.parser();
        let mut accumulator = self.function.create_accumulator()?;
        let values: Vec<&[u8]> = match self.end {
            Some(End::First) => bag.first_key_value().map(|(value, _)| &**value).into_iter().collect(),
            Some(End::Last) => bag.last_key_value().map(|(value, _)| &**value).into_iter().collect(),
            None => bag
                .iter()
                .flat_map(|(value, count)| std::iter::repeat_n(&**value, usize::try_from(*count).unwrap_or(0)))
                .collect(),
        };
        if !values.is_empty() {
            let columns = self.converter.convert_rows(values.into_iter().map(|value| parser.parse(value)))?;
            accumulator.update_batch(&columns)?;
        }
        Ok(accumulator.evaluate()?)
    }
}

impl Kernel for Bag {
    fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots.max(self.slots.len()), BTreeMap::new);
    }

    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, |_| 1)
    }

    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()> {
        self.change(slots, args, |_| -1)
    }

    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef> {
        to_column(slots.iter().map(|slot| self.compute(*slot)).collect::<Result<_>>()?, &self.output)
    }

    /// One binary column: `{ count i64 | length u32 | row }*` for each slot.
    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut column = arrow::array::BinaryBuilder::new();
        for slot in slots {
            let mut bytes = Vec::new();
            for (value, count) in &self.slots[*slot as usize] {
                bytes.extend_from_slice(&count.to_le_bytes());
                bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                bytes.extend_from_slice(value);
            }
            column.append_value(bytes);
        }
        Ok(vec![Arc::new(column.finish())])
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()> {
        let damaged = || state::damaged("a bag of rows is cut short");
        let column = state.first().and_then(arrow::array::AsArray::as_binary_opt::<i32>).ok_or_else(damaged)?;
        for (row, slot) in slots.iter().enumerate() {
            let mut rest = column.value(row);
            while !rest.is_empty() {
                let (count, after) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                let (length, after) = after.split_first_chunk::<4>().ok_or_else(damaged)?;
                let length = u32::from_le_bytes(*length) as usize;
                let (value, after) = after.split_at_checked(length).ok_or_else(damaged)?;
                self.value_bytes += value.len();
                *self.slots[*slot as usize].entry(value.into()).or_default() += i64::from_le_bytes(*count);
                rest = after;
            }
        }
        Ok(())
    }

    fn subtract(&mut self, _: &[u32], _: &[ArrayRef]) -> Result<()> {
        Err(state::damaged("bags are not taken apart"))
    }

    fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            let bag = std::mem::take(&mut self.slots[*slot as usize]);
            self.value_bytes -= bag.keys().map(|value| value.len()).sum::<usize>();
        }
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * 24 + self.value_bytes * 2
    }
}
