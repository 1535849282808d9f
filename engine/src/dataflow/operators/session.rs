//! Aggregates by session: for each key the intervals in which its rows are at most a gap apart.
//!
//! A session is a slot of the store. Each key has a list of its live sessions by start, nearly always of one. A row
//! extends a session, joins two, or begins one. A session closes when the watermark is beyond its end: a row exactly
//! a gap after the last one still belongs to it, and such a row may come as long as the watermark is not past it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use catalog::{Changes, DELETE, INSERT, StateKind, StatePart};
use datafusion::physical_expr::expressions::Column;

use super::stateless::event_times;
use super::window_aggregate::{EMIT_ROWS, describe, late_row, output_rows, without_time};
use crate::aggregate::{Calls, Groups, Mode, Store};
use crate::dataflow::evaluate::evaluate;
use crate::dataflow::{Advance, Batch, Operator, Output, StateSize};
use crate::plan::{Emit, WindowAggregateNode, WindowKind};
use crate::window::session::reaches;
use crate::{Error, Result, state};

const NONE: u32 = u32::MAX;

/// See the module.
pub(crate) struct SessionAggregate {
    node: WindowAggregateNode,
    calls: Arc<Calls>,
    gap: i64,
    /// Results are corrected: `EMIT ON UPDATE`, or allowed lateness.
    corrected: bool,
    watermark: i64,
    keys: Groups,
    /// For each key the first of its sessions.
    heads: Vec<u32>,
    sessions: Vec<Session>,
    free: Vec<u32>,
    store: Store,
    /// When to look at a session next.
    timers: BinaryHeap<Reverse<(i64, u32)>>,
    epoch: u32,
    touched: Vec<u32>,
    removed: Vec<i64>,
    pending: Vec<u32>,
    /// Results to be taken back at the next correction.
    before: Vec<Rows>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    start: i64,
    last: i64,
    key: u32,
    next: u32,
    live: bool,
    /// The watermark is beyond its end.
    closed: bool,
    /// Readers have its result.
    emitted: bool,
    pending: bool,
    /// Epoch in which it was last touched.
    stamp: u32,
    /// The time of its entry among the timers; older entries are void.
    timer: i64,
}

/// Group columns and results of sessions, with their bounds.
struct Rows {
    columns: Vec<ArrayRef>,
    starts: Vec<i64>,
    ends: Vec<i64>,
}

impl SessionAggregate {
    pub(crate) fn new(node: &WindowAggregateNode) -> Result<SessionAggregate> {
        let WindowKind::Session { gap_us, keys } = &node.window.kind else {
            return Err(state::damaged("a session aggregate without sessions"));
        };
        let grouped: Option<Vec<usize>> =
            node.group.iter().map(|expr| expr.downcast_ref::<Column>().map(Column::index)).collect();
        let same = grouped.is_some_and(|grouped| {
            grouped.iter().all(|column| keys.contains(column)) && keys.iter().all(|key| grouped.contains(key))
        });
        if !same {
            return Err(Error::Unsupported {
                message: "a session window must be grouped by exactly the columns that part its sessions".into(),
                hint: Some("Name the same columns in PARTITION BY of SESSION and in GROUP BY.".into()),
            });
        }
        let calls = Calls::new(&node.group, &node.aggregates, &node.input.schema(), Mode::AppendOnly)?;
        Ok(SessionAggregate {
            gap: *gap_us,
            corrected: node.emit == Emit::OnUpdate || node.allowed_lateness_us > 0,
            watermark: i64::MIN,
            keys: Groups::new(&calls.group_types)?,
            heads: Vec::new(),
            sessions: Vec::new(),
            free: Vec::new(),
            store: Store::new(&calls, false)?,
            timers: BinaryHeap::new(),
            epoch: 1,
            touched: Vec::new(),
            removed: Vec::new(),
            pending: Vec::new(),
            before: Vec::new(),
            calls,
            node: node.clone(),
        })
    }

    fn end(&self, session: u32) -> i64 {
        self.sessions[session as usize].last.saturating_add(self.gap)
    }

    /// Whether a session that ends there is closed for good.
    fn is_dead(&self, end: i64) -> bool {
        end.saturating_add(self.node.allowed_lateness_us) < self.watermark
    }

    /// The session that takes a row in; `None` when it is late. Sessions it joins are noted in `merges`, those whose
    /// shown results change in `changed`.
    fn place(&mut self, key: u32, time: i64, merges: &mut Vec<(u32, u32)>, changed: &mut Vec<(u32, i64, i64)>) -> Option<u32> {
        let (mut previous, mut session) = (NONE, self.heads[key as usize]);
        while session != NONE && !reaches(self.sessions[session as usize].last, time, self.gap) {
            (previous, session) = (session, self.sessions[session as usize].next);
        }
        let joins = session != NONE && reaches(time, self.sessions[session as usize].start, self.gap);
        if !joins {
            if self.is_dead(time.saturating_add(self.gap)) {
                return None;
            }
            let new = self.create(Session::new(key, time, session));
            match previous {
                NONE => self.heads[key as usize] = new,
                _ => self.sessions[previous as usize].next = new,
            }
            self.touch(new);
            return Some(new);
        }
        self.change(session, changed);
        let grown = &mut self.sessions[session as usize];
        grown.start = grown.start.min(time);
        grown.last = grown.last.max(time);
        loop {
            let next = self.sessions[session as usize].next;
            if next == NONE || !reaches(self.sessions[session as usize].last, self.sessions[next as usize].start, self.gap) {
                return Some(session);
            }
            self.change(next, changed);
            let absorbed = self.sessions[next as usize];
            let into = &mut self.sessions[session as usize];
            into.last = into.last.max(absorbed.last);
            into.next = absorbed.next;
            self.sessions[next as usize].live = false;
            merges.push((next, session));
        }
    }

    fn create(&mut self, session: Session) -> u32 {
        let end = session.last.saturating_add(self.gap);
        let slot = self.free.pop().unwrap_or(self.sessions.len() as u32);
        self.put(slot, session);
        self.set_timer(slot, end);
        slot
    }

    fn put(&mut self, slot: u32, session: Session) {
        if slot as usize >= self.sessions.len() {
            self.sessions.resize(slot as usize + 1, Session::dead());
            self.store.grow(self.sessions.len());
        }
        self.sessions[slot as usize] = session;
    }

    fn set_timer(&mut self, slot: u32, at: i64) {
        self.sessions[slot as usize].timer = at;
        self.timers.push(Reverse((at, slot)));
    }

    fn touch(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if session.stamp != self.epoch {
            session.stamp = self.epoch;
            self.touched.push(slot);
        }
        if self.corrected && !session.pending {
            session.pending = true;
            self.pending.push(slot);
        }
    }

    /// A session is about to change: what readers have of it must be taken back.
    fn change(&mut self, slot: u32, changed: &mut Vec<(u32, i64, i64)>) {
        self.touch(slot);
        let end = self.end(slot);
        let session = &mut self.sessions[slot as usize];
        if std::mem::replace(&mut session.emitted, false) {
            changed.push((slot, session.start, end));
        }
        if session.closed {
            // It may be open again with the row; the timer decides.
            session.closed = false;
            self.set_timer(slot, end);
        }
    }

    /// Takes live sessions out of the lists of their keys; slots are free from now on.
    fn remove(&mut self, slots: &[u32]) {
        for slot in slots {
            let Session { key, next, .. } = self.sessions[*slot as usize];
            let mut at = self.heads[key as usize];
            if at == *slot {
                self.heads[key as usize] = next;
            } else {
                while self.sessions[at as usize].next != *slot {
                    at = self.sessions[at as usize].next;
                }
                self.sessions[at as usize].next = next;
            }
            self.forget_key_without_sessions(key);
        }
        self.release(slots);
    }

    fn release(&mut self, slots: &[u32]) {
        self.store.clear(slots);
        for slot in slots {
            self.sessions[*slot as usize] = Session::dead();
            self.removed.push(i64::from(*slot));
            self.free.push(*slot);
        }
    }

    fn forget_key_without_sessions(&mut self, key: u32) {
        if self.heads[key as usize] == NONE {
            self.keys.remove(&[key]);
        }
    }

    fn rows_of(&mut self, slots: &[u32]) -> Result<Rows> {
        let keys: Vec<u32> = slots.iter().map(|slot| self.sessions[*slot as usize].key).collect();
        let mut columns = self.keys.keys(&keys)?;
        columns.extend(self.store.evaluate(slots)?);
        let starts = slots.iter().map(|slot| self.sessions[*slot as usize].start).collect();
        let ends = slots.iter().map(|slot| self.end(*slot)).collect();
        Ok(Rows { columns, starts, ends })
    }

    fn emit(&self, rows: Rows, kind: i8, out: &mut Output) -> Result<()> {
        let count = rows.starts.len();
        let bounds = [rows.starts, rows.ends].map(TimestampMicrosecondArray::from);
        let rows = output_rows(&self.node.schema, &self.node.output, self.node.group.len(), &rows.columns, count, bounds)?;
        out.emit(Changes::new(rows, Int8Array::from_value(kind, count)));
        Ok(())
    }

    /// Tells readers what has changed since they were told last: old results first.
    fn correct(&mut self, out: &mut Output) -> Result<()> {
        for rows in std::mem::take(&mut self.before) {
            self.emit(rows, DELETE, out)?;
        }
        let mut shown = Vec::new();
        for slot in std::mem::take(&mut self.pending) {
            let is_closed = self.sessions[slot as usize].closed;
            let session = &mut self.sessions[slot as usize];
            session.pending = false;
            if session.live && !session.emitted && (self.node.emit == Emit::OnUpdate || is_closed) {
                session.emitted = true;
                shown.push(slot);
            }
        }
        for slots in shown.chunks(EMIT_ROWS) {
            let rows = self.rows_of(slots)?;
            self.emit(rows, INSERT, out)?;
        }
        Ok(())
    }

    /// Looks at the sessions whose time has come: those extended meanwhile wait on, others are closed or retired.
    fn due(&mut self, watermark: i64) -> (Vec<u32>, Vec<u32>) {
        let (mut closed, mut retired) = (Vec::new(), Vec::new());
        while closed.len().max(retired.len()) < EMIT_ROWS {
            let Some(Reverse((at, slot))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at < watermark) else {
                break;
            };
            self.timers.pop();
            let session = self.sessions[slot as usize];
            if !session.live || session.timer != at {
                continue;
            }
            let end = self.end(slot);
            if !session.closed {
                if end >= watermark {
                    self.set_timer(slot, end);
                    continue;
                }
                self.sessions[slot as usize].closed = true;
                closed.push(slot);
            }
            let retires_at = end.saturating_add(self.node.allowed_lateness_us);
            match retires_at < watermark {
                true => retired.push(slot),
                false => self.set_timer(slot, retires_at),
            }
        }
        (closed, retired)
    }
}

impl Session {
    fn new(key: u32, time: i64, next: u32) -> Session {
        Session { start: time, last: time, key, next, live: true, ..Session::dead() }
    }

    fn dead() -> Session {
        Session {
            start: 0,
            last: 0,
            key: 0,
            next: NONE,
            live: false,
            closed: false,
            emitted: false,
            pending: false,
            stamp: 0,
            timer: i64::MIN,
        }
    }
}

impl Operator for SessionAggregate {
    fn kind(&self) -> &'static str {
        "session aggregate"
    }

    fn detail(&self) -> String {
        describe(&self.node)
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, values) = evaluate(&self.calls.exprs, batch, out)?;
        let times = event_times(&batch.changes.rows, self.node.window.column)?;
        let keys = self.keys.intern(&values[..self.calls.group_columns], times.len())?;
        self.heads.resize(self.heads.len().max(self.keys.slots()), NONE);
        let (mut merges, mut changed, mut turned_away) = (Vec::new(), Vec::new(), Vec::new());
        let mut slots: Vec<u32> = Vec::with_capacity(times.len());
        let mut rows: Vec<u32> = Vec::with_capacity(times.len());
        for (row, key) in keys.iter().enumerate() {
            if times.is_null(row) {
                out.errors.push(without_time(&batch, row));
                turned_away.push(*key);
                continue;
            }
            match self.place(*key, times.value(row), &mut merges, &mut changed) {
                Some(slot) => {
                    slots.push(slot);
                    rows.push(row as u32);
                }
                None => {
                    out.errors.push(late_row(&batch, row, times.value(row), self.watermark));
                    turned_away.push(*key);
                }
            }
        }
        if !changed.is_empty() {
            // The store has not changed yet: these are the results that readers have.
            let changed_slots: Vec<u32> = changed.iter().map(|(slot, _, _)| *slot).collect();
            let mut before = self.rows_of(&changed_slots)?;
            before.starts = changed.iter().map(|(_, start, _)| *start).collect();
            before.ends = changed.iter().map(|(_, _, end)| *end).collect();
            self.before.push(before);
        }
        if !merges.is_empty() {
            let into: BTreeMap<u32, u32> = merges.iter().copied().collect();
            let resolve = |mut slot: u32| {
                while let Some(next) = into.get(&slot) {
                    slot = *next;
                }
                slot
            };
            slots.iter_mut().for_each(|slot| *slot = resolve(*slot));
            let absorbed: Vec<u32> = into.keys().copied().collect();
            let targets: Vec<u32> = absorbed.iter().map(|slot| resolve(*slot)).collect();
            let export = self.store.export(&absorbed, false)?;
            self.store.absorb(&targets, &export, resolve)?;
            self.release(&absorbed);
        }
        if rows.len() == times.len() {
            self.store.update(&slots, &values)?;
        } else {
            let rows = UInt32Array::from(rows);
            let values = values.iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            self.store.update(&slots, &values)?;
        }
        turned_away.sort_unstable();
        turned_away.dedup();
        turned_away.into_iter().for_each(|key| self.forget_key_without_sessions(key));
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<Advance> {
        self.watermark = watermark;
        let (closed, retired) = self.due(watermark);
        if closed.is_empty() && retired.is_empty() {
            return Ok(Advance::Done);
        }
        if self.corrected {
            for slot in &closed {
                self.touch(*slot);
            }
            self.correct(out)?;
        } else {
            let rows = self.rows_of(&closed)?;
            self.emit(rows, INSERT, out)?;
        }
        self.remove(&retired);
        Ok(Advance::More)
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        if self.corrected { self.correct(out) } else { Ok(()) }
    }

    /// Sections: `removed` slots, `pairs` of DISTINCT by slot, and `sessions`: slot, start, last, keys, state.
    fn export(&mut self, kind: StateKind) -> Result<Option<Bytes>> {
        let everything = kind == StateKind::Image;
        let touched = std::mem::take(&mut self.touched);
        let mut candidates = if everything { (0..self.sessions.len() as u32).collect() } else { touched };
        // A slot that was given out again within the epoch has been touched twice.
        candidates.sort_unstable();
        candidates.dedup();
        let slots: Vec<u32> = candidates.into_iter().filter(|slot| self.sessions[*slot as usize].live).collect();
        let removed = std::mem::take(&mut self.removed);
        self.epoch = self.epoch.wrapping_add(1).max(1);
        let export = self.store.export(&slots, !everything)?;
        self.store.forget_touched_pairs();
        let mut writer = state::Writer::default();
        if !everything {
            writer.section("removed", vec![Arc::new(Int64Array::from(removed))])?;
        }
        for (call, owners, values) in export.pairs {
            let owners: ArrayRef = Arc::new(Int64Array::from_iter_values(owners.into_iter().map(i64::from)));
            writer.section(&format!("pairs {call}"), [vec![owners], values].concat())?;
        }
        let column = |value: fn(&Session) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| value(&self.sessions[*slot as usize]))))
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| i64::from(*slot))));
        let keys: Vec<u32> = slots.iter().map(|slot| self.sessions[*slot as usize].key).collect();
        let bounds = vec![numbers, column(|session| session.start), column(|session| session.last)];
        writer.section("sessions", [bounds, self.keys.keys(&keys)?, export.states].concat())?;
        Ok(writer.finish(kind))
    }

    fn restore(&mut self, parts: &[StatePart], watermark: Option<i64>) -> Result<()> {
        let damaged = || state::damaged("columns of sessions are missing");
        self.watermark = watermark.unwrap_or(i64::MIN);
        let group_columns = self.calls.group_columns;
        // Keys and lists are built at the end: a slot may be another session in a later part.
        let mut key_rows: BTreeMap<u32, Vec<ArrayRef>> = BTreeMap::new();
        for part in parts {
            for (name, columns) in state::read(&part.payload)? {
                let ints = |index: usize| {
                    columns.get(index).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(damaged)
                };
                let slots: Vec<u32> = ints(0)?.values().iter().map(|slot| *slot as u32).collect();
                let known = slots.iter().max().map_or(0, |slot| *slot as usize + 1);
                if known > self.sessions.len() {
                    self.put(known as u32 - 1, Session::dead());
                }
                if name == "removed" {
                    self.store.clear(&slots);
                    for slot in slots {
                        self.sessions[slot as usize] = Session::dead();
                        key_rows.remove(&slot);
                    }
                } else if let Some(call) = name.strip_prefix("pairs ") {
                    self.store.import_pairs(call.parse().map_err(|_| damaged())?, &slots, &columns[1..])?;
                } else {
                    let (starts, lasts) = (ints(1)?, ints(2)?);
                    let (keys, states) = columns[3..].split_at_checked(group_columns).ok_or_else(damaged)?;
                    self.store.import(&slots, states)?;
                    for (row, slot) in slots.into_iter().enumerate() {
                        let mut session = Session::new(0, starts.value(row), NONE);
                        session.last = lasts.value(row);
                        self.sessions[slot as usize] = session;
                        key_rows.insert(slot, keys.iter().map(|key| key.slice(row, 1)).collect());
                    }
                }
            }
        }
        let live: Vec<u32> = key_rows.keys().copied().collect();
        let columns = (0..group_columns).map(|index| {
            let column: Vec<&dyn Array> = key_rows.values().map(|row| row[index].as_ref()).collect();
            if column.is_empty() { Ok(arrow::array::new_empty_array(&self.calls.group_types[index])) } else { concat(&column) }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let keys = self.keys.intern(&columns, live.len())?;
        self.heads.resize(self.keys.slots(), NONE);
        let mut order: Vec<(u32, u32)> = keys.into_iter().zip(live).collect();
        order.sort_by_key(|(key, slot)| (*key, Reverse(self.sessions[*slot as usize].start)));
        for (key, slot) in order {
            let end = self.end(slot);
            let closed = end < self.watermark;
            let session = &mut self.sessions[slot as usize];
            session.key = key;
            session.closed = closed;
            session.emitted = self.corrected && (self.node.emit == Emit::OnUpdate || closed);
            session.next = std::mem::replace(&mut self.heads[key as usize], slot);
            self.set_timer(slot, if closed { end.saturating_add(self.node.allowed_lateness_us) } else { end });
        }
        self.free = (0..self.sessions.len() as u32).filter(|slot| !self.sessions[*slot as usize].live).collect();
        Ok(())
    }

    fn state(&self) -> StateSize {
        let bytes = self.keys.bytes()
            + self.store.bytes()
            + self.sessions.capacity() * size_of::<Session>()
            + self.heads.capacity() * 4
            + self.timers.capacity() * 16;
        StateSize { rows: (self.sessions.len() - self.free.len()) as u64, bytes: bytes as u64 }
    }
}
