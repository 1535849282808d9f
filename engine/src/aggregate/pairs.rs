//! The values each slot has seen, for DISTINCT: in front of a kernel, so that it sees each value once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use super::groups::{as_ints, fits_64_bits, from_ints};
use crate::Result;

/// For each slot its values with how often each was added.
pub(crate) struct Pairs {
    types: Vec<DataType>,
    converter: Arc<RowConverter>,
    sets: Sets,
    /// Whether repetitions matter because values are taken away again.
    counted: bool,
    /// Pairs added, removed or counted anew since the last export, with repetitions.
    touched: Touched,
    pairs: usize,
}

enum Sets {
    Int(Vec<HashMap<i64, i64>>),
    Rows(Vec<HashMap<Box<[u8]>, i64>>),
}

enum Touched {
    Int(Vec<(u32, i64)>),
    Rows(Vec<(u32, Box<[u8]>)>),
}

/// Pairs as columns: slots, values, counts (0: the pair is gone).
pub(crate) struct PairColumns {
    pub(crate) slots: Vec<u32>,
    pub(crate) values: Vec<ArrayRef>,
    pub(crate) counts: Int64Array,
}

impl Pairs {
    pub(crate) fn new(types: &[DataType], counted: bool) -> Result<Pairs> {
        let (sets, touched) = match types {
            [one] if fits_64_bits(one) => (Sets::Int(Vec::new()), Touched::Int(Vec::new())),
            _ => (Sets::Rows(Vec::new()), Touched::Rows(Vec::new())),
        };
        let converter = RowConverter::new(types.iter().map(|t| SortField::new(t.clone())).collect())?;
        Ok(Pairs { types: types.to_vec(), converter: Arc::new(converter), sets, counted, touched, pairs: 0 })
    }

    pub(crate) fn grow(&mut self, slots: usize) {
        match &mut self.sets {
            Sets::Int(sets) => sets.resize_with(slots.max(sets.len()), HashMap::new),
            Sets::Rows(sets) => sets.resize_with(slots.max(sets.len()), HashMap::new),
        }
    }

    /// Adds each row's value; returns the rows whose value its slot did not have. Nulls are no values.
    pub(crate) fn add(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<Vec<u32>> {
        self.change(slots, args, None, 1)
    }

    /// Takes each row's value away; returns the rows whose value its slot has no more.
    pub(crate) fn remove(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<Vec<u32>> {
        self.change(slots, args, None, -1)
    }

    /// Sets exported pairs as they were.
    pub(crate) fn restore(&mut self, slots: &[u32], args: &[ArrayRef], counts: &Int64Array) -> Result<()> {
        self.change(slots, args, Some(counts), 0)?;
        self.forget_touched();
        Ok(())
    }

    /// All pairs of the slots named.
    pub(crate) fn export(&self, slots: &[u32]) -> Result<PairColumns> {
        let mut owners = Vec::new();
        let mut counts = Vec::new();
        let values = match &self.sets {
            Sets::Int(sets) => {
                let mut values = Vec::new();
                for slot in slots {
                    for (value, count) in &sets[*slot as usize] {
                        owners.push(*slot);
                        values.push(*value);
                        counts.push(*count);
                    }
                }
                vec![from_ints(Int64Array::from(values), &self.types[0])?]
            }
            Sets::Rows(sets) => {
                let mut values: Vec<&[u8]> = Vec::new();
                for slot in slots {
                    for (value, count) in &sets[*slot as usize] {
                        owners.push(*slot);
                        values.push(value);
                        counts.push(*count);
                    }
                }
                self.decode(values.into_iter())?
            }
        };
        Ok(PairColumns { slots: owners, values, counts: Int64Array::from(counts) })
    }

    /// The pairs touched since the last call, each once, with the count it has now.
    pub(crate) fn export_touched(&mut self) -> Result<PairColumns> {
        let mut owners = Vec::new();
        let mut counts = Vec::new();
        let values = match (&self.sets, &mut self.touched) {
            (Sets::Int(sets), Touched::Int(touched)) => {
                touched.sort_unstable();
                touched.dedup();
                for (slot, value) in touched.iter() {
                    owners.push(*slot);
                    counts.push(sets[*slot as usize].get(value).copied().unwrap_or(0));
                }
                vec![from_ints(Int64Array::from_iter_values(touched.iter().map(|pair| pair.1)), &self.types[0])?]
            }
            (Sets::Rows(sets), Touched::Rows(touched)) => {
                touched.sort_unstable();
                touched.dedup();
                for (slot, value) in touched.iter() {
                    owners.push(*slot);
                    counts.push(sets[*slot as usize].get(value).copied().unwrap_or(0));
                }
                let touched: &Vec<(u32, Box<[u8]>)> = touched;
                let parser = self.converter.parser();
                self.converter.convert_rows(touched.iter().map(|pair| parser.parse(&pair.1)))?
            }
            _ => unreachable!("both are made for the same types"),
        };
        self.forget_touched();
        Ok(PairColumns { slots: owners, values, counts: Int64Array::from(counts) })
    }

    pub(crate) fn forget_touched(&mut self) {
        match &mut self.touched {
            Touched::Int(touched) => touched.clear(),
            Touched::Rows(touched) => touched.clear(),
        }
    }

    pub(crate) fn clear(&mut self, slots: &[u32]) {
        for slot in slots {
            let slot = *slot as usize;
            self.pairs -= match &mut self.sets {
                Sets::Int(sets) => std::mem::take(&mut sets[slot]).len(),
                Sets::Rows(sets) => std::mem::take(&mut sets[slot]).len(),
            };
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match &self.sets {
            Sets::Int(sets) => sets.capacity() * 40 + self.pairs * 28,
            Sets::Rows(sets) => sets.capacity() * 40 + self.pairs * 64,
        }
    }

    /// Adds `step` to the count of each row's pair, or sets it; returns the rows whose pair appeared (for a positive
    /// step) or went away (for a negative one).
    fn change(&mut self, slots: &[u32], args: &[ArrayRef], counts: Option<&Int64Array>, step: i64) -> Result<Vec<u32>> {
        let mut turned = Vec::new();
        let Pairs { sets, touched, counted, pairs, converter, .. } = self;
        let mut turn = |row: usize, old: i64, new: i64| -> bool {
            let appeared = old == 0 && new > 0;
            let vanished = old > 0 && new == 0;
            *pairs = (*pairs + usize::from(appeared)) - usize::from(vanished);
            if appeared && step > 0 || vanished && step < 0 {
                turned.push(row as u32);
            }
            appeared || vanished || *counted
        };
        let next = |row: usize, old: i64| counts.map_or((old + step).max(0), |counts| counts.value(row));
        match (sets, touched) {
            (Sets::Int(sets), Touched::Int(touched)) => {
                let values = as_ints(&args[0])?;
                for (row, slot) in slots.iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
                    let value = values.value(row);
                    let set = &mut sets[*slot as usize];
                    let old = set.get(&value).copied().unwrap_or(0);
                    let new = next(row, old);
                    if turn(row, old, new) {
                        touched.push((*slot, value));
                        if new == 0 {
                            set.remove(&value)
                        } else {
                            set.insert(value, new)
                        };
                    }
                }
            }
            (Sets::Rows(sets), Touched::Rows(touched)) => {
                let rows = converter.convert_columns(args)?;
                for (row, slot) in slots.iter().enumerate() {
                    if args.iter().any(|arg| arg.is_null(row)) {
                        continue;
                    }
                    let value = rows.row(row);
                    let set = &mut sets[*slot as usize];
                    let old = set.get(value.data()).copied().unwrap_or(0);
                    let new = next(row, old);
                    if turn(row, old, new) {
                        touched.push((*slot, value.data().into()));
                        if new == 0 {
                            set.remove(value.data())
                        } else {
                            set.insert(value.data().into(), new)
                        };
                    }
                }
            }
            _ => unreachable!("both are made for the same types"),
        }
        Ok(turned)
    }

    fn decode<'a>(&'a self, values: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(values.map(|value| parser.parse(value)))?)
    }
}
