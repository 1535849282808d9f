//! All aggregates of one node over one set of slots.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{concat, filter, prep_null_mask_filter, take};
use arrow::datatypes::Int64Type;

use super::kernels::{build, column};
use super::pairs::Pairs;
use super::{Calls, Groups, Kernel, Mode};
use crate::{Result, state};

/// Slots whose state is exported at once.
const EXPORT_ROWS: usize = 32 * 1024;

/// The kernels of a node's calls, and how many rows each slot has taken in.
pub(crate) struct Store {
    calls: Arc<Calls>,
    kernels: Vec<Slots>,
    rows: Vec<i64>,
}

struct Slots {
    kernel: Box<dyn Kernel>,
    distinct: Option<Pairs>,
}

/// State of some slots as columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreExport {
    /// Rows of each slot, then the columns of all kernels.
    pub(crate) states: Vec<ArrayRef>,
    /// For each call with DISTINCT: its number, the owner of each pair, and values with counts.
    pub(crate) pairs: Vec<(usize, Vec<u32>, Vec<ArrayRef>)>,
}

impl Store {
    /// `counted`: pairs of DISTINCT are taken away again, also if rows are not.
    pub(crate) fn new(calls: &Arc<Calls>, counted: bool) -> Result<Store> {
        let kernels = calls.calls.iter().map(|call| {
            let counted = counted || calls.mode == Mode::Retractable;
            let distinct = call.distinct.then(|| Pairs::new(&call.arg_types, counted)).transpose()?;
            Ok(Slots { kernel: build(call, calls.mode)?, distinct })
        });
        Ok(Store { kernels: kernels.collect::<Result<_>>()?, calls: Arc::clone(calls), rows: Vec::new() })
    }

    /// Makes room for slots `0..slots`.
    pub(crate) fn grow(&mut self, slots: usize) {
        if slots <= self.rows.len() {
            return;
        }
        self.rows.resize(slots, 0);
        for part in &mut self.kernels {
            part.kernel.grow(slots);
            if let Some(pairs) = &mut part.distinct {
                pairs.grow(slots);
            }
        }
    }

    /// Rows that a slot holds.
    pub(crate) fn rows(&self, slot: u32) -> i64 {
        self.rows[slot as usize]
    }

    /// Adds rows; `values` are the columns of [`Calls::exprs`].
    pub(crate) fn update(&mut self, slots: &[u32], values: &[ArrayRef]) -> Result<()> {
        slots.iter().for_each(|slot| self.rows[*slot as usize] += 1);
        self.change(slots, values, true)
    }

    /// Takes rows away.
    pub(crate) fn retract(&mut self, slots: &[u32], values: &[ArrayRef]) -> Result<()> {
        slots.iter().for_each(|slot| self.rows[*slot as usize] -= 1);
        self.change(slots, values, false)
    }

    /// Results of slots, a column for each call.
    pub(crate) fn evaluate(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.kernels.iter_mut().map(|part| part.kernel.evaluate(slots)).collect()
    }

    /// State of slots. `touched_pairs`: only the pairs touched since the last such export, whosever they are;
    /// else all pairs of the slots.
    pub(crate) fn export(&mut self, slots: &[u32], touched_pairs: bool) -> Result<StoreExport> {
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.rows[*slot as usize])));
        let mut export = StoreExport { states: vec![rows], pairs: Vec::new() };
        for (index, part) in self.kernels.iter_mut().enumerate() {
            export.states.extend(part.kernel.export(slots)?);
            if let Some(pairs) = &mut part.distinct {
                let columns = if touched_pairs { pairs.export_touched()? } else { pairs.export(slots)? };
                if !columns.slots.is_empty() {
                    let mut values = columns.values;
                    values.push(Arc::new(columns.counts));
                    export.pairs.push((index, columns.slots, values));
                }
            }
        }
        Ok(export)
    }

    /// Everything has been exported: no pair counts as touched.
    pub(crate) fn forget_touched_pairs(&mut self) {
        self.kernels.iter_mut().filter_map(|part| part.distinct.as_mut()).for_each(Pairs::forget_touched);
    }

    /// Replaces the state of slots by exported state columns.
    pub(crate) fn import(&mut self, slots: &[u32], states: &[ArrayRef]) -> Result<()> {
        slots.iter().for_each(|slot| self.rows[*slot as usize] = 0);
        self.kernels.iter_mut().for_each(|part| part.kernel.clear(slots));
        self.merge_states(slots, states, false)
    }

    /// Sets exported pairs of one call.
    pub(crate) fn import_pairs(&mut self, call: usize, slots: &[u32], columns: &[ArrayRef]) -> Result<()> {
        let missing = || state::damaged("pairs of an aggregate without DISTINCT");
        let pairs = self.kernels.get_mut(call).and_then(|part| part.distinct.as_mut()).ok_or_else(missing)?;
        let (counts, values) = columns.split_last().ok_or_else(missing)?;
        let counts = column::<Int64Type>(std::slice::from_ref(counts), 0)?.clone();
        pairs.restore(slots, values, &counts)
    }

    /// Adds what another store's slots hold: `slots[i]` takes in state row `i`; `owners` says for each pair which slot.
    pub(crate) fn absorb(&mut self, slots: &[u32], export: &StoreExport, pair_slot: impl Fn(u32) -> u32) -> Result<()> {
        self.merge_states(slots, &export.states, true)?;
        for (call, owners, columns) in &export.pairs {
            let slots: Vec<u32> = owners.iter().map(|owner| pair_slot(*owner)).collect();
            self.change_pairs(*call, &slots, &columns[..columns.len() - 1], true)?;
        }
        Ok(())
    }

    /// Takes away what was absorbed.
    pub(crate) fn dissolve(&mut self, slots: &[u32], export: &StoreExport, pair_slot: impl Fn(u32) -> u32) -> Result<()> {
        let rows = column::<Int64Type>(&export.states, 0)?;
        slots.iter().zip(rows.values()).for_each(|(slot, rows)| self.rows[*slot as usize] -= rows);
        let mut at = 1;
        for part in &mut self.kernels {
            let width = part.kernel.export(&[])?.len();
            if part.distinct.is_none() {
                part.kernel.subtract(slots, &export.states[at..at + width])?;
            }
            at += width;
        }
        for (call, owners, columns) in &export.pairs {
            let slots: Vec<u32> = owners.iter().map(|owner| pair_slot(*owner)).collect();
            self.change_pairs(*call, &slots, &columns[..columns.len() - 1], false)?;
        }
        Ok(())
    }

    /// Empties slots.
    pub(crate) fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|slot| self.rows[*slot as usize] = 0);
        for part in &mut self.kernels {
            part.kernel.clear(slots);
            if let Some(pairs) = &mut part.distinct {
                pairs.clear(slots);
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let parts = self.kernels.iter().map(|part| part.kernel.bytes() + part.distinct.as_ref().map_or(0, Pairs::bytes));
        self.rows.capacity() * 8 + parts.sum::<usize>()
    }

    fn change(&mut self, slots: &[u32], values: &[ArrayRef], add: bool) -> Result<()> {
        let calls = Arc::clone(&self.calls);
        for (index, call) in calls.calls.iter().enumerate() {
            let args: Vec<ArrayRef> = call.args.iter().map(|arg| Arc::clone(&values[*arg])).collect();
            match call.filter {
                None => self.change_call(index, slots, &args, add)?,
                Some(mask) => {
                    let mask = mask_of(&values[mask])?;
                    let chosen: Vec<u32> = mask.values().set_indices().map(|row| slots[row]).collect();
                    if chosen.is_empty() {
                        continue;
                    }
                    let args = args.iter().map(|arg| filter(arg, &mask)).collect::<Result<Vec<_>, _>>()?;
                    self.change_call(index, &chosen, &args, add)?;
                }
            }
        }
        Ok(())
    }

    fn change_call(&mut self, call: usize, slots: &[u32], args: &[ArrayRef], add: bool) -> Result<()> {
        if self.kernels[call].distinct.is_some() {
            return self.change_pairs(call, slots, args, add);
        }
        let kernel = &mut self.kernels[call].kernel;
        if add { kernel.update(slots, args) } else { kernel.retract(slots, args) }
    }

    fn change_pairs(&mut self, call: usize, slots: &[u32], args: &[ArrayRef], add: bool) -> Result<()> {
        let Slots { kernel, distinct: Some(pairs) } = &mut self.kernels[call] else { return Ok(()) };
        let rows = if add { pairs.add(slots, args)? } else { pairs.remove(slots, args)? };
        if rows.is_empty() {
            return Ok(());
        }
        let slots: Vec<u32> = rows.iter().map(|row| slots[*row as usize]).collect();
        let rows = UInt32Array::from(rows);
        let args = args.iter().map(|arg| take(arg, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        if add { kernel.update(&slots, &args) } else { kernel.retract(&slots, &args) }
    }

    /// `by_pairs`: kernels behind DISTINCT are told by their pairs instead.
    fn merge_states(&mut self, slots: &[u32], states: &[ArrayRef], by_pairs: bool) -> Result<()> {
        let rows = column::<Int64Type>(states, 0)?;
        slots.iter().zip(rows.values()).for_each(|(slot, rows)| self.rows[*slot as usize] += rows);
        let mut at = 1;
        for part in &mut self.kernels {
            let width = part.kernel.export(&[])?.len();
            let state = states.get(at..at + width).ok_or_else(|| state::damaged("columns of an aggregate are missing"))?;
            if !by_pairs || part.distinct.is_none() {
                part.kernel.merge(slots, state)?;
            }
            at += width;
        }
        Ok(())
    }
}

fn mask_of(column: &ArrayRef) -> Result<BooleanArray> {
    let mask = column.as_boolean_opt().ok_or_else(|| state::damaged("a FILTER that is not boolean"))?;
    Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
}

/// A store by key, which knows what was touched since the last barrier and, where asked, what results were before.
pub(crate) struct KeyedStore {
    pub(crate) groups: Groups,
    pub(crate) store: Store,
    calls: Arc<Calls>,
    /// Epoch in which a slot was last touched.
    stamps: Vec<u32>,
    epoch: u32,
    touched: Vec<u32>,
    /// Whether results are corrected: `emitted`, `pending` and `before` are kept.
    corrected: bool,
    /// Whether readers have a result of the slot.
    emitted: Vec<bool>,
    /// Slots touched since readers were told about them last.
    pending: Vec<u32>,
    is_pending: Vec<bool>,
    /// Results that readers have of slots touched since.
    before: Vec<(Vec<u32>, Vec<ArrayRef>)>,
}

/// What has become of results: rows to take away and rows to add, in one set of columns.
pub(crate) struct Corrections {
    /// Group columns, then results.
    pub(crate) columns: Vec<ArrayRef>,
    /// INSERT or DELETE for each row; an update is a delete followed by its insert.
    pub(crate) kinds: Vec<i8>,
}

/// State of a keyed store as columns.
pub(crate) struct KeyedExport {
    /// Group columns, then state.
    pub(crate) groups: Vec<ArrayRef>,
    /// For each call with DISTINCT: its number; group columns, values, counts.
    pub(crate) pairs: Vec<(usize, Vec<ArrayRef>)>,
}

impl KeyedStore {
    /// `counted`: what is absorbed will be dissolved again. `corrected`: readers are told of changed results.
    pub(crate) fn new(calls: &Arc<Calls>, counted: bool, corrected: bool) -> Result<KeyedStore> {
        let mut keyed = KeyedStore {
            groups: Groups::new(&calls.group_types)?,
            store: Store::new(calls, counted)?,
            calls: Arc::clone(calls),
            stamps: Vec::new(),
            epoch: 1,
            touched: Vec::new(),
            corrected,
            pending: Vec::new(),
            is_pending: Vec::new(),
            emitted: Vec::new(),
            before: Vec::new(),
        };
        keyed.grow();
        Ok(keyed)
    }

    fn grow(&mut self) {
        let slots = self.groups.slots();
        if slots > self.stamps.len() {
            self.stamps.resize(slots, 0);
            if self.corrected {
                self.emitted.resize(slots, false);
                self.is_pending.resize(slots, false);
            }
            self.store.grow(slots);
        }
    }

    /// Takes rows in; `values` are the columns of [`Calls::exprs`]; `deletes[i]` rows are taken away.
    pub(crate) fn update(&mut self, values: &[ArrayRef], rows: usize, deletes: Option<&BooleanArray>) -> Result<()> {
        let slots = self.groups.intern(&values[..self.calls.group_columns], rows)?;
        self.grow();
        self.touch(&slots)?;
        let Some(deletes) = deletes else { return self.store.update(&slots, values) };
        // What is added first cannot become less than nothing in between.
        for (mask, add) in [(arrow::compute::not(deletes)?, true), (deletes.clone(), false)] {
            let chosen: Vec<u32> = mask.values().set_indices().map(|row| slots[row]).collect();
            if chosen.is_empty() {
                continue;
            }
            let values = values.iter().map(|column| filter(column, &mask)).collect::<Result<Vec<_>, _>>()?;
            match add {
                true => self.store.update(&chosen, &values)?,
                false => self.store.retract(&chosen, &values)?,
            }
        }
        Ok(())
    }

    /// Notes slots as touched; keeps the results that readers have of them.
    pub(crate) fn touch(&mut self, slots: &[u32]) -> Result<()> {
        for slot in slots {
            let stamp = &mut self.stamps[*slot as usize];
            if *stamp != self.epoch {
                *stamp = self.epoch;
                self.touched.push(*slot);
            }
        }
        if !self.corrected {
            return Ok(());
        }
        let first = self.pending.len();
        for slot in slots {
            if !std::mem::replace(&mut self.is_pending[*slot as usize], true) {
                self.pending.push(*slot);
            }
        }
        let shown: Vec<u32> = self.pending[first..].iter().copied().filter(|slot| self.emitted[*slot as usize]).collect();
        if !shown.is_empty() {
            let results = self.store.evaluate(&shown)?;
            self.before.push((shown, results));
        }
        Ok(())
    }

    /// Whether there are changes that readers have not been told about.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Number of slots that hold rows.
    pub(crate) fn live_count(&self) -> usize {
        self.store.rows.iter().filter(|rows| **rows > 0).count()
    }

    /// Slots that hold rows.
    pub(crate) fn live(&self) -> Vec<u32> {
        (0..self.groups.slots() as u32).filter(|slot| self.store.rows(*slot) > 0).collect()
    }

    /// Group columns and results of slots.
    pub(crate) fn results(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.groups.keys(slots)?;
        columns.extend(self.store.evaluate(slots)?);
        Ok(columns)
    }

    /// Group columns and results of all live slots, which readers now have.
    pub(crate) fn emit_all(&mut self) -> Result<Vec<ArrayRef>> {
        let live = self.live();
        live.iter().for_each(|slot| self.emitted[*slot as usize] = true);
        self.pending.drain(..).for_each(|slot| self.is_pending[slot as usize] = false);
        self.before.clear();
        self.results(&live)
    }

    /// Whether readers have a result of a slot.
    pub(crate) fn is_emitted(&self, slot: u32) -> bool {
        self.emitted[slot as usize]
    }

    /// Forgets slots at the next export without a word to readers.
    pub(crate) fn expire(&mut self, slots: &[u32]) {
        self.store.clear(slots);
        for slot in slots {
            self.emitted[*slot as usize] = false;
            if std::mem::replace(&mut self.stamps[*slot as usize], self.epoch) != self.epoch {
                self.touched.push(*slot);
            }
        }
    }

    /// Slots touched since the last export.
    pub(crate) fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// What readers must be told about the pending slots, and notes that they know it. `always`: slots without rows
    /// have a result too (an aggregate without groups).
    pub(crate) fn corrections(&mut self, always: bool) -> Result<Corrections> {
        let before = std::mem::take(&mut self.before);
        let pending = std::mem::take(&mut self.pending);
        pending.iter().for_each(|slot| self.is_pending[*slot as usize] = false);
        let old_slots: Vec<u32> = before.iter().flat_map(|(slots, _)| slots.iter().copied()).collect();
        let new_slots: Vec<u32> = pending.iter().copied().filter(|slot| always || self.store.rows(*slot) > 0).collect();
        let new_results = self.store.evaluate(&new_slots)?;
        let mut columns = self.groups.keys(&[&old_slots[..], &new_slots[..]].concat())?;
        for (index, new) in new_results.iter().enumerate() {
            let mut parts: Vec<&dyn Array> = before.iter().map(|(_, results)| results[index].as_ref()).collect();
            parts.push(new.as_ref());
            columns.push(concat(&parts)?);
        }
        // Old rows come first in the columns; the order readers get is by slot, old before new. Both lists of slots are
        // in the order of `pending`, so that walking along them costs what was touched, not what there is.
        let mut old = old_slots.iter().zip(0_u32..).peekable();
        let mut new = new_slots.iter().zip(old_slots.len() as u32..).peekable();
        let rows = pending.iter().map(|slot| Versions {
            old: old.next_if(|(known, _)| *known == slot).map(|(_, row)| row),
            new: new.next_if(|(known, _)| *known == slot).map(|(_, row)| row),
        });
        let rows: Vec<Versions> = rows.collect();
        let same = unchanged(&columns[self.calls.group_columns..], &rows)?;
        let (mut order, mut kinds) = (Vec::new(), Vec::new());
        for ((slot, rows), same) in pending.iter().zip(&rows).zip(same) {
            if same {
                continue;
            }
            if let Some(row) = rows.old {
                order.push(row);
                kinds.push(catalog::DELETE);
            }
            if let Some(row) = rows.new {
                order.push(row);
                kinds.push(catalog::INSERT);
            }
            self.emitted[*slot as usize] = rows.new.is_some();
        }
        let order = UInt32Array::from(order);
        let columns = columns.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?;
        Ok(Corrections { columns, kinds })
    }

    /// Group columns and state of the touched slots (or of all live ones); the epoch begins anew.
    /// Slots that are left without rows are in it once, with zero rows, and forgotten, unless `always`.
    /// `take` gets it in pieces: all of a large state is never there twice.
    pub(crate) fn export(
        &mut self,
        everything: bool,
        always: bool,
        mut take: impl FnMut(KeyedExport) -> Result<()>,
    ) -> Result<()> {
        let touched = std::mem::take(&mut self.touched);
        let slots = match (everything, always) {
            (false, _) => touched.clone(),
            (true, false) => self.live(),
            // A result of nothing is known to readers, too.
            (true, true) => (0..self.groups.slots() as u32).collect(),
        };
        for slots in slots.chunks(EXPORT_ROWS) {
            // The first piece has all touched pairs. Before slots are forgotten: their pairs still have an owner.
            let export = self.store.export(slots, !everything)?;
            let pairs =
                export.pairs.into_iter().map(|(call, owners, values)| Ok((call, [self.groups.keys(&owners)?, values].concat())));
            let pairs = pairs.collect::<Result<_>>()?;
            take(KeyedExport { groups: [self.groups.keys(slots)?, export.states].concat(), pairs })?;
        }
        self.store.forget_touched_pairs();
        self.epoch = self.epoch.wrapping_add(1).max(1);
        if !always {
            let empty: Vec<u32> = touched.into_iter().filter(|slot| self.store.rows(*slot) <= 0).collect();
            self.forget(&empty);
        }
        Ok(())
    }

    /// Like [`KeyedStore::export`] for reading only: everything there is, nothing is noted.
    pub(crate) fn contents(&mut self) -> Result<(Vec<ArrayRef>, Vec<u32>, StoreExport)> {
        let slots = self.live();
        let keys = self.groups.keys(&slots)?;
        let export = self.store.export(&slots, false)?;
        Ok((keys, slots, export))
    }

    /// Forgets slots.
    pub(crate) fn forget(&mut self, slots: &[u32]) {
        self.store.clear(slots);
        self.groups.remove(slots);
        for slot in slots {
            self.stamps[*slot as usize] = 0;
            if self.corrected {
                self.emitted[*slot as usize] = false;
            }
        }
    }

    /// Takes exported state up: it replaces what the groups had; zero rows: the group is gone.
    pub(crate) fn import(&mut self, keys: &[ArrayRef], states: &[ArrayRef], emitted: bool) -> Result<()> {
        let rows = column::<Int64Type>(states, 0)?;
        let slots = self.groups.intern(keys, rows.len())?;
        self.grow();
        self.store.import(&slots, states)?;
        if self.corrected {
            slots.iter().for_each(|slot| self.emitted[*slot as usize] = emitted);
        }
        if self.calls.group_columns > 0 {
            let gone: Vec<u32> = slots.into_iter().filter(|slot| self.store.rows(*slot) <= 0).collect();
            self.forget(&gone);
        }
        Ok(())
    }

    /// Takes exported pairs of one call up.
    pub(crate) fn import_pairs(&mut self, call: usize, keys: &[ArrayRef], columns: &[ArrayRef]) -> Result<()> {
        let slots = self.groups.intern(keys, columns.last().map_or(0, |counts| counts.len()))?;
        self.grow();
        self.store.import_pairs(call, &slots, columns)
    }

    /// Adds everything another store holds.
    pub(crate) fn absorb(&mut self, other: &mut KeyedStore) -> Result<()> {
        let (slots, export, pair_slot) = self.translate(other)?;
        self.store.absorb(&slots, &export, |owner| pair_slot[owner as usize])
    }

    /// Takes away everything another store holds, which was absorbed before.
    pub(crate) fn dissolve(&mut self, other: &mut KeyedStore) -> Result<()> {
        let (slots, export, pair_slot) = self.translate(other)?;
        self.store.dissolve(&slots, &export, |owner| pair_slot[owner as usize])
    }

    /// State of another store with the slots its groups have here.
    fn translate(&mut self, other: &mut KeyedStore) -> Result<(Vec<u32>, StoreExport, Vec<u32>)> {
        let (keys, owners, export) = other.contents()?;
        let slots = self.groups.intern(&keys, owners.len())?;
        self.grow();
        let mut pair_slot = vec![0; other.groups.slots()];
        owners.iter().zip(&slots).for_each(|(owner, slot)| pair_slot[*owner as usize] = *slot);
        Ok((slots, export, pair_slot))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.groups.bytes() + self.store.bytes() + self.stamps.capacity() * 9
    }
}

/// The rows with a slot's results before and now.
struct Versions {
    old: Option<u32>,
    new: Option<u32>,
}

/// For each slot whether its old and its new results are the same.
fn unchanged(results: &[ArrayRef], rows: &[Versions]) -> Result<Vec<bool>> {
    let both: Vec<(usize, u32, u32)> =
        rows.iter().enumerate().filter_map(|(at, rows)| Some((at, rows.old?, rows.new?))).collect();
    let mut same = vec![false; rows.len()];
    both.iter().for_each(|(at, _, _)| same[*at] = true);
    let old = UInt32Array::from_iter_values(both.iter().map(|(_, old, _)| *old));
    let new = UInt32Array::from_iter_values(both.iter().map(|(_, _, new)| *new));
    for column in results {
        let equal = arrow::compute::kernels::cmp::not_distinct(&take(column, &old, None)?, &take(column, &new, None)?);
        for (place, (at, _, _)) in both.iter().enumerate() {
            // Types that cannot be compared count as changed.
            same[*at] &= equal.as_ref().is_ok_and(|equal| equal.value(place));
        }
    }
    Ok(same)
}
