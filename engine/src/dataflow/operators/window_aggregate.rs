//! Aggregates by window and group: tumbling, hopping and growing windows.
//!
//! Rows are gathered in *frames*, each with its groups. Where results leave once, when a window closes, frames are
//! panes (the disjoint pieces windows share) and a window's result is put together when the watermark reaches its
//! end: what entered the window is added to what it had, what left is taken away; for aggregates that cannot give
//! back, two stacks of sums from the ends do the same. So a row costs the same however often its windows overlap.
//! Where results are corrected (EMIT ON UPDATE, allowed lateness), frames are the windows themselves.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use catalog::{Changes, StateKind, StatePart};

use super::stateless::{event_times, rows_of};
use crate::aggregate::{Calls, KeyedStore, Mode};
use crate::dataflow::evaluate::{evaluate, row_record};
use crate::dataflow::{Advance, Batch, Operator, Output, StateSize};
use crate::plan::{Emit, WindowAggregateNode, WindowKind, WindowOutput};
use crate::window::Interval;
use crate::{Result, state, window};

/// Rows of one emitted batch.
pub(super) const EMIT_ROWS: usize = 8192;

/// See the module.
pub(crate) struct WindowAggregate {
    node: WindowAggregateNode,
    calls: Arc<Calls>,
    kind: WindowKind,
    frames_are: Frames,
    /// By end, then start.
    frames: BTreeMap<(i64, i64), KeyedStore>,
    combined: Option<Combined>,
    invertible: bool,
    /// Every window that ends up to here has been emitted.
    watermark: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frames {
    Panes,
    Windows,
}

/// What the panes of the window emitted last hold together.
enum Combined {
    /// All panes in `[from, to)`.
    Running { store: Box<KeyedStore>, from: i64, to: i64 },
    /// Suffix sums of older panes, the oldest on top, and the sum of the panes in `[middle, to)` behind them.
    Stacks { front: Vec<(i64, KeyedStore)>, back: Box<KeyedStore>, to: i64 },
}

impl WindowAggregate {
    pub(crate) fn new(node: &WindowAggregateNode) -> Result<WindowAggregate> {
        let calls = Calls::new(&node.group, &node.aggregates, &node.input.schema(), Mode::AppendOnly)?;
        let once = node.emit == Emit::OnWindowClose && node.allowed_lateness_us == 0;
        Ok(WindowAggregate {
            invertible: calls.are_invertible()?,
            calls,
            kind: node.window.kind.clone(),
            frames_are: if once { Frames::Panes } else { Frames::Windows },
            frames: BTreeMap::new(),
            combined: None,
            watermark: i64::MIN,
            node: node.clone(),
        })
    }

    /// The frames a row of this time is in that still take rows, and whether it is late for all of its windows.
    fn frames_of(&self, time: i64, mut frame: impl FnMut((i64, i64))) -> bool {
        match self.frames_are {
            Frames::Panes => {
                let Some(last_end) = window::last_end(&self.kind, time) else { return false };
                if last_end <= self.watermark {
                    return true;
                }
                let length = window::pane_us(&self.kind);
                let start = window::floor(time, length, window::offset_us(&self.kind));
                frame((start.saturating_add(length), start));
                false
            }
            Frames::Windows => {
                let (mut windows, mut open) = (0, 0);
                window::for_each(&self.kind, time, |window| {
                    windows += 1;
                    if !self.is_dead(window.end) {
                        open += 1;
                        frame((window.end, window.start));
                    }
                });
                windows > 0 && open == 0
            }
        }
    }

    /// Whether a window is closed for good.
    fn is_dead(&self, end: i64) -> bool {
        self.watermark > i64::MIN && end.saturating_add(self.node.allowed_lateness_us) <= self.watermark
    }

    fn frame(&mut self, key: (i64, i64)) -> Result<&mut KeyedStore> {
        Ok(match self.frames.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(KeyedStore::new(&self.calls, false, self.frames_are == Frames::Windows)?)
            }
        })
    }

    // ── Panes ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Emits the next window that the watermark closes.
    fn close_next_window(&mut self, watermark: i64, out: &mut Output) -> Result<Advance> {
        let Some((_, first)) = self.frames.keys().next().copied() else {
            self.watermark = watermark;
            self.combined = None;
            return Ok(Advance::Done);
        };
        let end = window::end_after(&self.kind, first.max(self.watermark));
        if end > watermark {
            self.watermark = watermark;
            return Ok(Advance::Done);
        }
        let interval = Interval { start: window::start_of(&self.kind, end), end };
        if let WindowKind::Tumble { .. } = self.kind {
            if let Some(mut pane) = self.frames.remove(&(interval.end, interval.start)) {
                emit(&self.node, &mut pane, interval, out)?;
            }
        } else {
            self.combine(interval)?;
            match &mut self.combined {
                Some(Combined::Running { store, .. }) => emit(&self.node, store, interval, out)?,
                Some(Combined::Stacks { front, back, .. }) => {
                    let mut both = KeyedStore::new(&self.calls, false, false)?;
                    if let Some((_, oldest)) = front.last_mut() {
                        both.absorb(oldest)?;
                    }
                    both.absorb(back)?;
                    emit(&self.node, &mut both, interval, out)?;
                }
                None => {}
            }
        }
        self.watermark = end;
        self.drop_dead_panes(interval);
        Ok(Advance::More)
    }

    /// Panes that no later window needs.
    fn drop_dead_panes(&mut self, closed: Interval) {
        let dead = |(_, start): &(i64, i64)| window::last_end(&self.kind, *start).is_none_or(|last| last <= closed.end);
        let keep_for_taking_away =
            matches!((&self.combined, &self.kind), (Some(Combined::Running { .. }), WindowKind::Hop { .. }));
        while let Some((key, _)) = self.frames.first_key_value() {
            // The running sum still has to give a dead pane back; that happens when the window moves past its start.
            if !dead(key) || keep_for_taking_away && key.1 >= closed.start {
                return;
            }
            self.frames.pop_first();
        }
    }

    /// Makes `combined` hold exactly the panes of a window.
    fn combine(&mut self, window: Interval) -> Result<()> {
        let hops = matches!(self.kind, WindowKind::Hop { .. });
        if hops && !self.invertible {
            return self.combine_stacks(window);
        }
        let moved = match self.combined.take() {
            // A window that shares nothing with the last one, or more to take away than to keep: from the start.
            Some(Combined::Running { mut store, from, to }) if window.start < to && (from == window.start || hops) => {
                for (_, pane) in range(&mut self.frames, from, window.start) {
                    store.dissolve(pane)?;
                }
                let stale = store.groups.len() > 1024 + 2 * store.live_count();
                (!stale).then_some((store, to))
            }
            _ => None,
        };
        let (mut store, to) = match moved {
            Some(moved) => moved,
            None => (Box::new(KeyedStore::new(&self.calls, hops, false)?), window.start),
        };
        for (_, pane) in range(&mut self.frames, to, window.end) {
            store.absorb(pane)?;
        }
        self.frames.retain(|(_, start), _| !hops || *start >= window.start);
        self.combined = Some(Combined::Running { store, from: window.start, to: window.end });
        Ok(())
    }

    fn combine_stacks(&mut self, window: Interval) -> Result<()> {
        let fresh = || KeyedStore::new(&self.calls, false, false);
        let (mut front, mut back, to) = match self.combined.take() {
            Some(Combined::Stacks { front, back, to }) if window.start < to => (front, back, to),
            _ => (Vec::new(), Box::new(fresh()?), window.end),
        };
        while front.last().is_some_and(|(start, _)| *start < window.start) {
            front.pop();
        }
        if front.is_empty() {
            *back = fresh()?;
            for (start, pane) in range(&mut self.frames, window.start, window.end).rev() {
                let mut sum = fresh()?;
                sum.absorb(pane)?;
                if let Some((_, newer)) = front.last_mut() {
                    sum.absorb(newer)?;
                }
                front.push((start, sum));
            }
        } else {
            for (_, pane) in range(&mut self.frames, to, window.end) {
                back.absorb(pane)?;
            }
        }
        self.combined = Some(Combined::Stacks { front, back, to: window.end });
        Ok(())
    }

    // ── Windows as frames ────────────────────────────────────────────────────────────────────────────────────────

    fn close_windows(&mut self, watermark: i64, out: &mut Output) -> Result<Advance> {
        if self.node.emit == Emit::OnWindowClose {
            // A window has one start for its end, whatever its kind.
            if let Some(((end, start), frame)) = self.frames.range_mut((self.watermark, i64::MAX)..).next()
                && *end <= watermark
            {
                let columns = frame.emit_all()?;
                emit_columns(&self.node, columns, None, Interval { start: *start, end: *end }, out)?;
                self.watermark = *end;
                return Ok(Advance::More);
            }
        }
        self.watermark = watermark;
        while let Some(entry) = self.frames.first_entry() {
            let (end, start) = *entry.key();
            if end.saturating_add(self.node.allowed_lateness_us) > watermark {
                break;
            }
            let mut frame = entry.remove();
            correct(&self.node, &mut frame, Interval { start, end }, out)?;
        }
        Ok(Advance::Done)
    }
}

impl Operator for WindowAggregate {
    fn kind(&self) -> &'static str {
        "window aggregate"
    }

    fn detail(&self) -> String {
        describe(&self.node)
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, values) = evaluate(&self.calls.exprs, batch, out)?;
        let times = event_times(&batch.changes.rows, self.node.window.column)?;
        let mut chosen: Vec<((i64, i64), Vec<u32>)> = Vec::new();
        let mut places: HashMap<(i64, i64), usize> = HashMap::new();
        let mut last = 0;
        for row in 0..times.len() {
            if times.is_null(row) {
                out.errors.push(without_time(&batch, row));
                continue;
            }
            let time = times.value(row);
            // All times of a pane are in the same windows: rows in order of time ask once for each pane.
            if self.frames_are == Frames::Panes
                && let Some(((end, start), rows)) = chosen.get_mut(last)
                && (*start..*end).contains(&time)
            {
                rows.push(row as u32);
                continue;
            }
            let late = self.frames_of(time, |frame| {
                if chosen.get(last).is_none_or(|(known, _)| *known != frame) {
                    last = *places.entry(frame).or_insert_with(|| {
                        chosen.push((frame, Vec::new()));
                        chosen.len() - 1
                    });
                }
                chosen[last].1.push(row as u32);
            });
            if late {
                out.errors.push(late_row(&batch, row, time, self.watermark));
            }
        }
        for (frame, rows) in chosen {
            if let Some(Combined::Running { to, .. } | Combined::Stacks { to, .. }) = &self.combined
                && frame.1 < *to
            {
                // A row of a pane that is part of the sums: they are put together anew.
                self.combined = None;
            }
            let count = rows.len();
            let first = rows[0] as usize;
            let together = rows[count - 1] as usize - first + 1 == count;
            let values: Vec<ArrayRef> = if together {
                values.iter().map(|column| column.slice(first, count)).collect()
            } else {
                let rows = UInt32Array::from(rows);
                values.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?
            };
            self.frame(frame)?.update(&values, count, None)?;
        }
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Output) -> Result<Advance> {
        match self.frames_are {
            Frames::Panes => self.close_next_window(watermark, out),
            Frames::Windows => self.close_windows(watermark, out),
        }
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        if self.frames_are == Frames::Windows {
            for ((end, start), frame) in &mut self.frames {
                let is_shown = self.node.emit == Emit::OnUpdate || *end <= self.watermark;
                if is_shown && frame.is_pending() {
                    correct(&self.node, frame, Interval { start: *start, end: *end }, out)?;
                }
            }
        }
        Ok(())
    }

    fn export(&mut self, kind: StateKind) -> Result<Option<Bytes>> {
        let mut sections: BTreeMap<String, Vec<Vec<ArrayRef>>> = BTreeMap::new();
        for ((end, start), frame) in &mut self.frames {
            let with_frame = |columns: Vec<ArrayRef>| {
                let rows = columns.last().map_or(0, |column| column.len());
                let bounds = [*start, *end].map(|bound| Arc::new(Int64Array::from_value(bound, rows)) as ArrayRef);
                [bounds.to_vec(), columns].concat()
            };
            frame.export(kind == StateKind::Image, false, |export| {
                for (call, columns) in export.pairs {
                    sections.entry(format!("pairs {call}")).or_default().push(with_frame(columns));
                }
                sections.entry("windows".to_owned()).or_default().push(with_frame(export.groups));
                Ok(())
            })?;
        }
        let mut writer = state::Writer::default();
        for (name, parts) in sections {
            let columns = (0..parts[0].len()).map(|index| {
                let column: Vec<&dyn Array> = parts.iter().map(|part| part[index].as_ref()).collect();
                concat(&column)
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            writer.section(&name, columns)?;
        }
        Ok(writer.finish(kind))
    }

    fn restore(&mut self, parts: &[StatePart], watermark: Option<i64>) -> Result<()> {
        let damaged = || state::damaged("columns of a window are missing");
        self.watermark = watermark.unwrap_or(i64::MIN);
        let group_columns = self.calls.group_columns;
        for part in parts {
            for (name, columns) in state::read(&part.payload)? {
                let bound = |index: usize| columns.get(index).and_then(|column| column.as_primitive_opt::<Int64Type>());
                let (starts, ends) = (bound(0).ok_or_else(damaged)?.clone(), bound(1).ok_or_else(damaged)?.clone());
                let mut first = 0;
                while first < starts.len() {
                    let key = (ends.value(first), starts.value(first));
                    let mut next = first + 1;
                    while next < starts.len() && (ends.value(next), starts.value(next)) == key {
                        next += 1;
                    }
                    let rows: Vec<ArrayRef> = columns[2..].iter().map(|column| column.slice(first, next - first)).collect();
                    let (keys, values) = rows.split_at_checked(group_columns).ok_or_else(damaged)?;
                    let is_shown = self.node.emit == Emit::OnUpdate || key.0 <= self.watermark;
                    let frame = self.frame(key)?;
                    match name.strip_prefix("pairs ") {
                        Some(call) => frame.import_pairs(call.parse().map_err(|_| damaged())?, keys, values)?,
                        None => frame.import(keys, values, is_shown)?,
                    }
                    first = next;
                }
            }
        }
        let (kind, frames_are, lateness, watermark) =
            (self.kind.clone(), self.frames_are, self.node.allowed_lateness_us, self.watermark);
        self.frames.retain(|(end, start), _| match frames_are {
            Frames::Panes => window::last_end(&kind, *start).is_some_and(|last| last > watermark),
            Frames::Windows => end.saturating_add(lateness) > watermark,
        });
        Ok(())
    }

    fn state(&self) -> StateSize {
        let combined = match &self.combined {
            None => 0,
            Some(Combined::Running { store, .. }) => store.bytes(),
            Some(Combined::Stacks { front, back, .. }) => {
                front.iter().map(|(_, store)| store.bytes()).sum::<usize>() + back.bytes()
            }
        };
        let mut size = StateSize { rows: 0, bytes: combined as u64 };
        for frame in self.frames.values() {
            size.rows += frame.groups.len() as u64;
            size.bytes += frame.bytes() as u64;
        }
        size
    }
}

/// Panes that start in `[from, to)`, in order.
fn range(
    frames: &mut BTreeMap<(i64, i64), KeyedStore>,
    from: i64,
    to: i64,
) -> impl DoubleEndedIterator<Item = (i64, &mut KeyedStore)> {
    // Panes are of one length: ordered by end is ordered by start.
    frames.iter_mut().map(|((_, start), pane)| (*start, pane)).filter(move |(start, _)| (from..to).contains(start))
}

fn emit(node: &WindowAggregateNode, store: &mut KeyedStore, interval: Interval, out: &mut Output) -> Result<()> {
    for slots in store.live().chunks(EMIT_ROWS) {
        let columns = store.results(slots)?;
        emit_columns(node, columns, None, interval, out)?;
    }
    Ok(())
}

/// Tells readers what has become of a window's results.
fn correct(node: &WindowAggregateNode, store: &mut KeyedStore, interval: Interval, out: &mut Output) -> Result<()> {
    let corrections = store.corrections(false)?;
    emit_columns(node, corrections.columns, Some(corrections.kinds), interval, out)
}

/// Group and result columns of one window as output rows.
fn emit_columns(
    node: &WindowAggregateNode,
    columns: Vec<ArrayRef>,
    kinds: Option<Vec<i8>>,
    interval: Interval,
    out: &mut Output,
) -> Result<()> {
    let rows = kinds.as_ref().map_or_else(|| columns.first().map_or(0, |column| column.len()), Vec::len);
    let bounds = |bound: i64| TimestampMicrosecondArray::from_value(bound, rows);
    let rows = output_rows(
        &node.schema,
        &node.output,
        node.group.len(),
        &columns,
        rows,
        [bounds(interval.start), bounds(interval.end)],
    )?;
    out.emit(match kinds {
        None => Changes::append(rows),
        Some(kinds) => Changes::new(rows, Int8Array::from(kinds)),
    });
    Ok(())
}

/// Puts output columns in the order of the plan; `columns` are groups, then results.
pub(super) fn output_rows(
    schema: &SchemaRef,
    output: &[WindowOutput],
    group_columns: usize,
    columns: &[ArrayRef],
    rows: usize,
    [starts, ends]: [TimestampMicrosecondArray; 2],
) -> Result<arrow::array::RecordBatch> {
    let mut out: Vec<ArrayRef> = Vec::with_capacity(output.len());
    for (output, field) in output.iter().zip(schema.fields()) {
        let bound = |times: TimestampMicrosecondArray| cast(&times, field.data_type());
        out.push(match output {
            WindowOutput::Group(index) => Arc::clone(&columns[*index]),
            WindowOutput::Aggregate(index) => Arc::clone(&columns[group_columns + index]),
            WindowOutput::Start => bound(starts.clone())?,
            WindowOutput::End => bound(ends.clone())?,
            WindowOutput::Time => bound(ends.unary(|end| end - 1))?,
        });
    }
    rows_of(schema, out, rows)
}

/// For `freshet.operators`.
pub(super) fn describe(node: &WindowAggregateNode) -> String {
    let group: Vec<String> = node.group.iter().map(ToString::to_string).collect();
    let calls: Vec<&str> = node.aggregates.iter().map(|call| call.field.name().as_str()).collect();
    format!("{:?}: {} by ({})", node.window.kind, calls.join(", "), group.join(", "))
}

/// A row that came after all of its windows were closed. 22008: its time field is out of the range that is open.
pub(super) fn late_row(batch: &Batch, row: usize, time: i64, watermark: i64) -> catalog::ErrorRecord {
    let shown = |us: i64| chrono::DateTime::from_timestamp_micros(us).map_or_else(|| us.to_string(), |time| time.to_rfc3339());
    let reason = match watermark {
        i64::MAX => "late: the input had ended".to_owned(),
        _ => format!("late: the watermark is {}, all windows of {} are closed", shown(watermark), shown(time)),
    };
    row_record(&batch.changes.rows, row, batch.origin.as_deref(), "late", "22008", reason, Some(time))
}

/// A row that is in no window because it has no time.
pub(super) fn without_time(batch: &Batch, row: usize) -> catalog::ErrorRecord {
    let reason = "the event time is null, so the row is in no window".to_owned();
    row_record(&batch.changes.rows, row, batch.origin.as_deref(), "constraint", "23502", reason, None)
}
