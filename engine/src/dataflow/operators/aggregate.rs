//! Aggregates by group, corrected at each barrier as rows come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BooleanArray, Int8Array};
use bytes::Bytes;
use catalog::{Changes, DELETE, StateKind, StatePart};

use super::stateless::rows_of;
use crate::aggregate::{Calls, KeyedStore, Mode};
use crate::dataflow::evaluate::evaluate;
use crate::dataflow::{Batch, Operator, Output, StateSize};
use crate::plan::AggregateNode;
use crate::{Result, state};

/// See the module.
pub(crate) struct Aggregate {
    calls: Arc<Calls>,
    groups: KeyedStore,
    node: AggregateNode,
    ages: Option<Ages>,
}

/// When groups were last touched, by wall time of this run: a restart begins anew.
struct Ages {
    ttl: Duration,
    touched_at: Vec<Instant>,
    checked_at: Instant,
}

impl Aggregate {
    pub(crate) fn new(node: &AggregateNode) -> Result<Aggregate> {
        let mode = if node.append_only { Mode::AppendOnly } else { Mode::Retractable };
        let calls = Calls::new(&node.group, &node.aggregates, &node.input.schema(), mode)?;
        let groups = KeyedStore::new(&calls, false, true)?;
        let ages = node.state_ttl_us.map(|us| Ages {
            ttl: Duration::from_micros(us.max(0) as u64),
            touched_at: Vec::new(),
            checked_at: Instant::now(),
        });
        Ok(Aggregate { calls, groups, node: node.clone(), ages })
    }

    /// Without groups there is a result also of nothing.
    fn is_global(&self) -> bool {
        self.node.group.is_empty()
    }
}

impl Operator for Aggregate {
    fn kind(&self) -> &'static str {
        "aggregate"
    }

    fn detail(&self) -> String {
        let group: Vec<String> = self.node.group.iter().map(ToString::to_string).collect();
        let calls: Vec<&str> = self.node.aggregates.iter().map(|call| call.field.name().as_str()).collect();
        format!("{} by ({})", calls.join(", "), group.join(", "))
    }

    fn push(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, values) = evaluate(&self.calls.exprs, batch, out)?;
        let deletes = batch.changes.kinds.as_ref();
        let deletes = deletes.map(|kinds| BooleanArray::from_iter(kinds.values().iter().map(|kind| Some(*kind == DELETE))));
        self.groups.update(&values, batch.changes.len(), deletes.as_ref())
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        let global = self.is_global();
        if global && !self.groups.is_emitted(0) {
            self.groups.touch(&[0])?;
        }
        if self.groups.is_pending() {
            let corrections = self.groups.corrections(global)?;
            let rows = rows_of(&self.node.schema, corrections.columns, corrections.kinds.len())?;
            out.emit(Changes::new(rows, Int8Array::from(corrections.kinds)));
        }
        if let Some(ages) = &mut self.ages {
            let expired = ages.expired(&self.groups, Instant::now());
            self.groups.expire(&expired);
        }
        Ok(())
    }

    fn export(&mut self, kind: StateKind) -> Result<Option<Bytes>> {
        let mut writer = state::Writer::default();
        let global = self.is_global();
        self.groups.export(kind == StateKind::Image, global, |export| {
            for (call, columns) in export.pairs {
                writer.section(&format!("pairs {call}"), columns)?;
            }
            writer.section("groups", export.groups)
        })?;
        Ok(writer.finish(kind))
    }

    fn restore(&mut self, parts: &[StatePart], _watermark: Option<i64>) -> Result<()> {
        let keys = self.calls.group_columns;
        for part in parts {
            for (name, columns) in state::read(&part.payload)? {
                let (keys, values): (&[ArrayRef], &[ArrayRef]) =
                    columns.split_at_checked(keys).ok_or_else(|| state::damaged("group columns are missing"))?;
                match name.strip_prefix("pairs ") {
                    Some(call) => {
                        let call = call.parse().map_err(|_| state::damaged(format!("a section named \"{name}\"")))?;
                        self.groups.import_pairs(call, keys, values)?;
                    }
                    None => self.groups.import(keys, values, true)?,
                }
            }
        }
        Ok(())
    }

    fn state(&self) -> StateSize {
        StateSize { rows: self.groups.groups.len() as u64, bytes: self.groups.bytes() as u64 }
    }
}

impl Ages {
    /// Groups untouched for longer than the TTL. Looks at all groups, at most eight times per TTL.
    fn expired(&mut self, groups: &KeyedStore, now: Instant) -> Vec<u32> {
        self.touched_at.resize(groups.groups.slots(), now);
        groups.touched().iter().for_each(|slot| self.touched_at[*slot as usize] = now);
        if now.duration_since(self.checked_at) < self.ttl / 8 {
            return Vec::new();
        }
        self.checked_at = now;
        let is_old = |slot: &u32| now.duration_since(self.touched_at[*slot as usize]) >= self.ttl;
        groups.live().into_iter().filter(is_old).collect()
    }
}
