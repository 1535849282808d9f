//! Aggregates whose groups live on: each group's partial result can be looked at, exported, merged and corrected
//! without being emptied.
//!
//! ```text
//!  Calls     what to compute: expressions evaluated once per batch, shared by all calls
//!  Groups    key columns ─▶ slot number
//!  Kernel    one aggregate's state for all slots, vectorised
//!  Pairs     DISTINCT: the values each slot has seen, in front of a kernel
//!  Store     all kernels of one node over one set of slots
//!  KeyedStore  Groups + Store + which slots were touched since the last barrier
//! ```
//!
//! DataFusion's `GroupsAccumulator` empties what it evaluates, so asking for the groups that changed would cost as
//! much as all groups; the kernels here cost what was touched. The state of the touched groups *is* the epoch's
//! delta: columns that replace what was there, so that recovery is reading them in order.

mod general;
mod groups;
mod kernels;
mod pairs;
mod store;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

pub(crate) use groups::Groups;
pub(crate) use store::{KeyedStore, Store};

use crate::Result;
use crate::plan::Aggregate;

/// The state of one aggregate call for all slots.
pub(crate) trait Kernel: Send {
    /// Makes room for slots `0..slots`, the new ones empty.
    fn grow(&mut self, slots: usize);

    /// Adds rows; `slots[i]` is the slot of row `i`.
    fn update(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()>;

    /// Takes rows away that were added before. Called only when [`Mode::Retractable`], or on an invertible kernel.
    fn retract(&mut self, slots: &[u32], args: &[ArrayRef]) -> Result<()>;

    /// Results of the slots named.
    fn evaluate(&mut self, slots: &[u32]) -> Result<ArrayRef>;

    /// State of the slots named: always the same number of columns.
    fn export(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Adds exported state; a slot may be named more than once.
    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// Takes exported state away again. Called only on an invertible kernel.
    fn subtract(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<()>;

    /// Empties slots.
    fn clear(&mut self, slots: &[u32]);

    /// Whether `retract` and `subtract` give back exactly the state before.
    fn is_invertible(&self) -> bool {
        false
    }

    /// Bytes held.
    fn bytes(&self) -> usize;
}

/// Whether rows may be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    AppendOnly,
    Retractable,
}

/// The aggregate calls of a node, with the expressions they share.
#[derive(Debug)]
pub(crate) struct Calls {
    /// Evaluated once per batch: first the group expressions, then arguments and filters without repetition.
    pub(crate) exprs: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) group_columns: usize,
    pub(crate) calls: Vec<Call>,
    pub(crate) group_types: Vec<DataType>,
    mode: Mode,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    function: Arc<AggregateUDF>,
    /// Indexes into [`Calls::exprs`]; none for `count(*)`.
    args: Vec<usize>,
    filter: Option<usize>,
    distinct: bool,
    field: FieldRef,
    arg_exprs: Vec<Arc<dyn PhysicalExpr>>,
    arg_types: Vec<DataType>,
    input: SchemaRef,
}

impl Calls {
    pub(crate) fn new(
        group: &[Arc<dyn PhysicalExpr>],
        aggregates: &[Aggregate],
        input: &SchemaRef,
        mode: Mode,
    ) -> Result<Arc<Calls>> {
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = group.to_vec();
        let mut place = |expr: &Arc<dyn PhysicalExpr>| {
            // An argument equal to a group expression shares its column.
            exprs.iter().position(|known| known == expr).unwrap_or_else(|| {
                exprs.push(Arc::clone(expr));
                exprs.len() - 1
            })
        };
        let mut calls = Vec::new();
        for aggregate in aggregates {
            let counts_rows = aggregate.function.name() == "count" && aggregate.args.iter().all(is_constant);
            let arg_exprs = if counts_rows && !aggregate.distinct { Vec::new() } else { aggregate.args.clone() };
            calls.push(Call {
                function: Arc::clone(&aggregate.function),
                args: arg_exprs.iter().map(&mut place).collect(),
                filter: aggregate.filter.as_ref().map(&mut place),
                // The least of distinct values is the least of all.
                distinct: aggregate.distinct && !matches!(aggregate.function.name(), "min" | "max" | "bool_and" | "bool_or"),
                field: Arc::clone(&aggregate.field),
                arg_types: arg_exprs.iter().map(|arg| arg.data_type(input)).collect::<Result<_, _>>()?,
                arg_exprs,
                input: Arc::clone(input),
            });
        }
        let group_types = group.iter().map(|expr| expr.data_type(input)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Calls { exprs, group_columns: group.len(), calls, group_types, mode }))
    }

    /// Whether everything can be taken away exactly.
    pub(crate) fn are_invertible(&self) -> Result<bool> {
        self.calls
            .iter()
            .map(|call| Ok(kernels::build(call, self.mode)?.is_invertible()))
            .try_fold(true, |all, one| one.map(|one: bool| all && one))
    }
}

fn is_constant(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null())
}
