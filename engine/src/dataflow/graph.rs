//! The operator tree of one dataflow, called by method.

use std::collections::HashMap;
use std::time::Instant;

use catalog::{Changes, ErrorRecord, ObjectId, StateKind, StatePart};

use super::operators::aggregate::Aggregate;
use super::operators::session::SessionAggregate;
use super::operators::stateless::{Filter, Project, Union, WindowAssign};
use super::operators::window_aggregate::WindowAggregate;
use super::sink::Sink;
use super::{Advance, Batch, Operator, Output};
use crate::plan::{Node, SourceNode, TableChangesNode, WindowKind};
use crate::status::OperatorStatus;
use crate::{Result, plan};

/// Least bytes of deltas before an operator writes an image.
const IMAGE_BYTES_MIN: u64 = 16 << 20;

/// A leaf of the plan.
#[derive(Debug, Clone)]
pub(crate) enum InputNode {
    Source(SourceNode),
    Table(TableChangesNode),
}

/// The tree, children before parents.
pub(crate) struct Graph {
    name: String,
    tasks: Vec<Task>,
    inputs: Vec<Input>,
    sink: Sink,
    errors: Vec<ErrorRecord>,
    watermark: Option<i64>,
}

struct Input {
    node: InputNode,
    parent: Option<usize>,
    rows: u64,
    batches: u64,
}

struct Task {
    operator: Box<dyn Operator>,
    /// `None`: the sink.
    parent: Option<usize>,
    rows_in: u64,
    rows_out: u64,
    batches_in: u64,
    busy_us: u64,
    /// Bytes of the newest image and of the deltas after it.
    image_bytes: u64,
    delta_bytes: u64,
}

/// What an epoch leaves behind at its barrier.
#[derive(Debug, Default)]
pub(crate) struct EpochParts {
    pub(crate) state: Vec<StatePart>,
    pub(crate) rows: Vec<(ObjectId, Changes)>,
    pub(crate) errors: Vec<ErrorRecord>,
}

impl Graph {
    /// Builds the operators of a plan.
    pub(crate) fn new(name: &str, root: &Node, sink: plan::Sink) -> Result<Graph> {
        let mut graph = Graph {
            name: name.to_owned(),
            tasks: Vec::new(),
            inputs: Vec::new(),
            sink: Sink::new(sink),
            errors: Vec::new(),
            watermark: None,
        };
        let top = graph.add(root)?;
        graph.connect(top, None);
        Ok(graph)
    }

    /// The leaves, in the order of the plan.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &InputNode> {
        self.inputs.iter().map(|input| &input.node)
    }

    /// Rows of an input go through all operators.
    pub(crate) fn push(&mut self, input: usize, batch: Batch) -> Result<()> {
        self.inputs[input].rows += batch.changes.len() as u64;
        self.inputs[input].batches += 1;
        let parent = self.inputs[input].parent;
        self.deliver(parent, batch)
    }

    /// Time advances for all operators, children first.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<()> {
        if self.watermark.is_some_and(|old| old >= watermark) {
            return Ok(());
        }
        self.watermark = Some(watermark);
        for index in 0..self.tasks.len() {
            while self.call(index, |operator, out| operator.advance(watermark, out))? == Advance::More {}
        }
        Ok(())
    }

    /// The watermark all operators have.
    pub(crate) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Ends an epoch: results that leave at barriers, then rows and state.
    pub(crate) fn barrier(&mut self) -> Result<EpochParts> {
        let mut state = Vec::new();
        for index in 0..self.tasks.len() {
            self.call(index, |operator, out| operator.barrier(out))?;
            let task = &mut self.tasks[index];
            let kind = match task.delta_bytes > IMAGE_BYTES_MIN.max(2 * task.image_bytes) {
                true => StateKind::Image,
                false => StateKind::Delta,
            };
            if let Some(payload) = task.operator.export(kind)? {
                task.note_part(kind, payload.len());
                state.push(StatePart { operator: index as u32, kind, payload });
            }
        }
        Ok(EpochParts { state, rows: self.sink.take()?, errors: std::mem::take(&mut self.errors) })
    }

    /// Takes up the state of the last committed epoch.
    pub(crate) fn restore(&mut self, state: &HashMap<u32, Vec<StatePart>>, watermark: Option<i64>) -> Result<()> {
        self.watermark = watermark;
        for (index, parts) in state {
            let task = (self.tasks.get_mut(*index as usize))
                .ok_or_else(|| crate::state::damaged(format!("there is no operator {index}")))?;
            parts.iter().for_each(|part| task.note_part(part.kind, part.payload.len()));
            task.operator.restore(parts, watermark)?;
        }
        Ok(())
    }

    /// Bytes that wait for the barrier.
    pub(crate) fn sink_bytes(&self) -> usize {
        self.sink.bytes()
    }

    /// Rows that reached the sink since the start.
    pub(crate) fn rows_out(&self) -> u64 {
        self.sink.rows_out
    }

    /// Rows set aside since the last barrier.
    pub(crate) fn errors(&self) -> &[ErrorRecord] {
        &self.errors
    }

    /// Sets a record aside that an input could not decode.
    pub(crate) fn set_aside(&mut self, mut record: ErrorRecord) {
        record.job.clone_from(&self.name);
        self.errors.push(record);
    }

    /// Bytes of state of all operators.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.tasks.iter().map(|task| task.operator.state().bytes).sum()
    }

    /// `freshet.operators`, the inputs last; busy time is since the start of the run.
    pub(crate) fn status(&self, run_us: u64, queue_bytes: u64) -> Vec<OperatorStatus> {
        let operators = self.tasks.iter().enumerate().map(|(index, task)| {
            let state = task.operator.state();
            OperatorStatus {
                job: self.name.clone(),
                operator: index as u32,
                kind: task.operator.kind(),
                detail: task.operator.detail(),
                rows_in: task.rows_in,
                rows_out: task.rows_out,
                batches_in: task.batches_in,
                busy_pct: task.busy_us as f64 * 100.0 / run_us.max(1) as f64,
                queue_bytes: 0,
                state_rows: state.rows,
                state_bytes: state.bytes,
                watermark_us: self.watermark,
            }
        });
        let inputs = self.inputs.iter().enumerate().map(|(index, input)| {
            let (kind, detail) = match &input.node {
                InputNode::Source(source) => ("source", source.name.clone()),
                InputNode::Table(table) => ("table changes", table.name.clone()),
            };
            OperatorStatus {
                job: self.name.clone(),
                operator: (self.tasks.len() + index) as u32,
                kind,
                detail,
                rows_in: input.rows,
                rows_out: input.rows,
                batches_in: input.batches,
                busy_pct: 0.0,
                queue_bytes,
                state_rows: 0,
                state_bytes: 0,
                watermark_us: self.watermark,
            }
        });
        operators.chain(inputs).collect()
    }

    fn add(&mut self, node: &Node) -> Result<Below> {
        let (below, operator): (Vec<Below>, Box<dyn Operator>) = match node {
            Node::Source(source) => return Ok(self.add_input(InputNode::Source(source.clone()))),
            Node::TableChanges(table) => return Ok(self.add_input(InputNode::Table(table.clone()))),
            Node::Filter { input, predicate } => (vec![self.add(input)?], Box::new(Filter { predicate: predicate.clone() })),
            Node::Project { input, exprs, schema } => {
                (vec![self.add(input)?], Box::new(Project { exprs: exprs.clone(), schema: schema.clone() }))
            }
            Node::WindowAssign { input, window, schema } => {
                (vec![self.add(input)?], Box::new(WindowAssign { window: window.clone(), schema: schema.clone() }))
            }
            Node::Union { inputs, schema } => {
                let below = inputs.iter().map(|input| self.add(input)).collect::<Result<_>>()?;
                (below, Box::new(Union { schema: schema.clone() }))
            }
            Node::WindowAggregate(node) => {
                let below = vec![self.add(&node.input)?];
                match &node.window.kind {
                    WindowKind::Session { .. } => (below, Box::new(SessionAggregate::new(node)?)),
                    _ => (below, Box::new(WindowAggregate::new(node)?)),
                }
            }
            Node::Aggregate(node) => (vec![self.add(&node.input)?], Box::new(Aggregate::new(node)?)),
        };
        let index = self.tasks.len();
        below.into_iter().for_each(|below| self.connect(below, Some(index)));
        self.tasks.push(Task::new(operator));
        Ok(Below::Task(index))
    }

    fn add_input(&mut self, node: InputNode) -> Below {
        self.inputs.push(Input { node, parent: None, rows: 0, batches: 0 });
        Below::Input(self.inputs.len() - 1)
    }

    fn connect(&mut self, below: Below, parent: Option<usize>) {
        match below {
            Below::Input(index) => self.inputs[index].parent = parent,
            Below::Task(index) => self.tasks[index].parent = parent,
        }
    }

    fn deliver(&mut self, target: Option<usize>, batch: Batch) -> Result<()> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        match target {
            None => self.sink.push(batch.changes),
            Some(index) => {
                self.tasks[index].rows_in += batch.changes.len() as u64;
                self.tasks[index].batches_in += 1;
                self.call(index, |operator, out| operator.push(batch, out))?;
            }
        }
        Ok(())
    }

    /// Calls one operator and passes on what it gives away.
    fn call<R>(&mut self, index: usize, call: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<R>) -> Result<R> {
        let mut out = Output::default();
        let task = &mut self.tasks[index];
        let started = Instant::now();
        let answer = call(task.operator.as_mut(), &mut out)?;
        task.busy_us += started.elapsed().as_micros() as u64;
        task.rows_out += out.batches.iter().map(|batch| batch.changes.len() as u64).sum::<u64>();
        let parent = task.parent;
        out.errors.into_iter().for_each(|record| self.set_aside(record));
        for batch in out.batches {
            self.deliver(parent, batch)?;
        }
        Ok(answer)
    }
}

/// What has been built below an operator.
enum Below {
    Input(usize),
    Task(usize),
}

impl Task {
    fn new(operator: Box<dyn Operator>) -> Self {
        Task { operator, parent: None, rows_in: 0, rows_out: 0, batches_in: 0, busy_us: 0, image_bytes: 0, delta_bytes: 0 }
    }

    fn note_part(&mut self, kind: StateKind, bytes: usize) {
        match kind {
            StateKind::Delta => self.delta_bytes += bytes as u64,
            StateKind::Image => (self.image_bytes, self.delta_bytes) = (bytes as u64, 0),
        }
    }
}
