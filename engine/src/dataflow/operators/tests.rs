//! Operators against naive models: random rows, disorder, watermarks, barriers, and a restart from exported state
//! at any barrier must all give what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int8Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use catalog::{Changes, DELETE, ErrorRecord, INSERT, ObjectId, StateKind, StatePart};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::bool_and_or::{bool_and_udaf, bool_or_udaf};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::{AggregateUDF, Operator as Op};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, col, lit};

use super::aggregate::Aggregate;
use super::session::SessionAggregate;
use super::window_aggregate::WindowAggregate;
use crate::dataflow::{Advance, Batch, Operator, Output};
use crate::plan::{self, AggregateNode, Emit, Node, TableChangesNode, Window, WindowAggregateNode, WindowKind, WindowOutput};

/// Deterministic numbers.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    time: i64,
    key: Option<i64>,
    name: Option<&'static str>,
    value: Option<i64>,
    price: f64,
}

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("k", DataType::Int64, true),
        Field::new("n", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
        Field::new("p", DataType::Float64, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.time))),
        Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.name).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>()),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.price))),
    ];
    RecordBatch::try_new(input_schema(), columns).expect("columns fit the schema")
}

fn random_row(rng: &mut Rng, time: i64) -> Row {
    Row {
        time,
        key: (!rng.chance(12)).then(|| rng.below(5) as i64),
        name: (!rng.chance(10)).then(|| ["ab", "b", "", "zz", "m"][rng.below(5) as usize]),
        value: (!rng.chance(9)).then(|| rng.below(40) as i64 - 20),
        // Quarters add up exactly.
        price: rng.below(64) as f64 / 4.0,
    }
}

fn column(name: &str) -> Arc<dyn PhysicalExpr> {
    col(name, &input_schema()).expect("known column")
}

fn call(function: Arc<AggregateUDF>, arg: Arc<dyn PhysicalExpr>, output: DataType) -> plan::Aggregate {
    let field = Arc::new(Field::new("a", output, true));
    plan::Aggregate { function, args: vec![arg], distinct: false, filter: None, field }
}

fn is_positive() -> Arc<dyn PhysicalExpr> {
    binary(column("v"), Op::Gt, lit(0_i64), &input_schema()).expect("comparable")
}

/// One of each kernel; `retractable` leaves out what depends on the order of rows.
fn all_calls() -> Vec<plan::Aggregate> {
    let integer = DataType::Int64;
    let mut calls = vec![
        call(count_udaf(), lit(1_i64), integer.clone()),
        call(count_udaf(), column("v"), integer.clone()),
        call(sum_udaf(), column("v"), integer.clone()),
        call(avg_udaf(), column("v"), DataType::Decimal128(38, 10)),
        call(avg_udaf(), column("p"), DataType::Float64),
        call(sum_udaf(), column("p"), DataType::Float64),
        call(min_udaf(), column("v"), integer.clone()),
        call(max_udaf(), column("p"), DataType::Float64),
        call(max_udaf(), column("n"), DataType::Utf8),
        call(min_udaf(), column("n"), DataType::Utf8),
        call(bool_and_udaf(), is_positive(), DataType::Boolean),
        call(bool_or_udaf(), is_positive(), DataType::Boolean),
    ];
    let distinct = |mut call: plan::Aggregate, filter: bool| {
        call.distinct = true;
        call.filter = filter.then(is_positive);
        call
    };
    calls.push(distinct(call(count_udaf(), column("n"), integer.clone()), false));
    calls.push(distinct(call(count_udaf(), column("v"), integer.clone()), true));
    calls.push(distinct(call(sum_udaf(), column("v"), integer.clone()), false));
    let mut filtered = call(sum_udaf(), column("v"), integer);
    filtered.filter = Some(is_positive());
    calls.push(filtered);
    calls
}

/// Those of [`all_calls`] that windows can take away again.
fn invertible_calls() -> Vec<plan::Aggregate> {
    let calls = all_calls();
    [0, 1, 2, 3, 10, 11, 12, 13, 14, 15].iter().map(|index| calls[*index].clone()).collect()
}

/// What a call gives for rows, as text.
fn naive(call: &plan::Aggregate, rows: &[&Row]) -> String {
    let positive = |row: &&&Row| row.value.is_some_and(|value| value > 0);
    let rows: Vec<&Row> = rows.iter().filter(|row| call.filter.is_none() || positive(row)).copied().collect();
    let mut values: Vec<i64> = rows.iter().filter_map(|row| row.value).collect();
    let mut names: Vec<&str> = rows.iter().filter_map(|row| row.name).collect();
    let prices: Vec<f64> = rows.iter().map(|row| row.price).collect();
    if call.distinct {
        values = values.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        names = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    }
    let text = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    let float = |value: f64| format!("{value:?}");
    let argument = call.args[0].to_string();
    match (call.function.name(), argument.split('@').next().unwrap_or_default()) {
        ("count", "1") => rows.len().to_string(),
        ("count", "v") => values.len().to_string(),
        ("count", "n") => names.len().to_string(),
        ("sum", "v") => text((!values.is_empty()).then(|| values.iter().sum::<i64>().to_string())),
        ("avg", "v") => text((!values.is_empty()).then(|| {
            // Half away from zero, ten digits.
            let (sum, count) = (values.iter().sum::<i64>() as i128 * 10_i128.pow(10), values.len() as i128);
            let rounded = (2 * sum.abs() + count) / (2 * count);
            let sign = if sum < 0 && rounded != 0 { "-" } else { "" };
            format!("{sign}{}.{:010}", rounded / 10_i128.pow(10), rounded % 10_i128.pow(10))
        })),
        ("sum", "p") => text((!prices.is_empty()).then(|| float(prices.iter().sum()))),
        ("avg", "p") => text((!prices.is_empty()).then(|| float(prices.iter().sum::<f64>() / prices.len() as f64))),
        ("max", "p") => text(prices.iter().copied().reduce(f64::max).map(float)),
        ("min", "v") => text(values.iter().min().map(i64::to_string)),
        ("max", "n") => text(names.iter().max().map(|name| (*name).to_owned())),
        ("min", "n") => text(names.iter().min().map(|name| (*name).to_owned())),
        ("bool_and", _) => text((!values.is_empty()).then(|| values.iter().all(|value| *value > 0).to_string())),
        ("bool_or", _) => text((!values.is_empty()).then(|| values.iter().any(|value| *value > 0).to_string())),
        other => panic!("no model for {other:?}"),
    }
}

fn shown(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "null".into();
    }
    if let Some(floats) = column.as_primitive_opt::<arrow::datatypes::Float64Type>() {
        return format!("{:?}", floats.value(row));
    }
    array_value_to_string(column, row).expect("printable")
}

/// What readers have after all changes, by multiplicity; a change that takes away what is not there fails.
fn fold(changes: &[Changes]) -> BTreeMap<Vec<String>, i64> {
    let mut rows: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for batch in changes {
        for row in 0..batch.len() {
            let text = batch.rows.columns().iter().map(|column| shown(column.as_ref(), row)).collect::<Vec<_>>();
            let kind = batch.kinds.as_ref().map_or(INSERT, |kinds| kinds.value(row));
            let count = rows.entry(text.clone()).or_default();
            *count += i64::from(kind);
            assert!(*count >= 0, "{text:?} is taken away but was not there");
            if *count == 0 {
                rows.remove(&text);
            }
        }
    }
    rows
}

fn input_node() -> Box<Node> {
    Box::new(Node::TableChanges(TableChangesNode {
        table: ObjectId(1),
        name: "t".into(),
        projection: vec![],
        schema: input_schema(),
        append_only: true,
        watermark: None,
    }))
}

/// Runs an operator, exports its state at barriers, and now and then goes on with a fresh one from that state.
struct Harness {
    make: Box<dyn Fn() -> Box<dyn Operator>>,
    operator: Box<dyn Operator>,
    /// Committed state.
    parts: Vec<StatePart>,
    watermark: Option<i64>,
    committed: Option<i64>,
    changes: Vec<Changes>,
    errors: Vec<ErrorRecord>,
}

impl Harness {
    fn new(make: impl Fn() -> Box<dyn Operator> + 'static) -> Harness {
        let operator = make();
        Harness {
            make: Box::new(make),
            operator,
            parts: Vec::new(),
            watermark: None,
            committed: None,
            changes: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn call(&mut self, call: impl Fn(&mut dyn Operator, &mut Output) -> Advance) {
        loop {
            let mut out = Output::default();
            let advance = call(self.operator.as_mut(), &mut out);
            self.changes.extend(out.batches.into_iter().map(|batch| batch.changes));
            self.errors.extend(out.errors);
            if advance == Advance::Done {
                return;
            }
        }
    }

    fn push(&mut self, rows: &[Row], kinds: Option<&[i8]>) {
        let changes = Changes { rows: batch(rows), kinds: kinds.map(|kinds| Int8Array::from(kinds.to_vec())) };
        self.call(|operator, out| {
            operator.push(Batch { changes: changes.clone(), origin: None }, out).expect("takes rows");
            Advance::Done
        });
    }

    fn advance(&mut self, watermark: i64) {
        if self.watermark.is_none_or(|old| old < watermark) {
            self.watermark = Some(watermark);
            self.call(|operator, out| operator.advance(watermark, out).expect("advances"));
        }
    }

    fn barrier(&mut self, kind: StateKind) {
        self.call(|operator, out| {
            operator.barrier(out).expect("ends an epoch");
            Advance::Done
        });
        if let Some(payload) = self.operator.export(kind).expect("exports") {
            if kind == StateKind::Image {
                self.parts.clear();
            }
            self.parts.push(StatePart { operator: 0, kind, payload });
        }
        self.committed = self.watermark;
    }

    /// Goes on from the last barrier, which must be the last thing that happened.
    fn restart(&mut self) {
        self.operator = (self.make)();
        self.operator.restore(&self.parts, self.committed).expect("restores");
    }
}

fn window_node(kind: WindowKind, group: &[&str], calls: Vec<plan::Aggregate>, emit: Emit, lateness: i64) -> WindowAggregateNode {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let mut fields: Vec<Field> = Vec::new();
    let mut output = Vec::new();
    for (index, name) in group.iter().enumerate() {
        fields.push(input_schema().field_with_name(name).expect("known column").clone());
        output.push(WindowOutput::Group(index));
    }
    for (name, bound) in [("start", WindowOutput::Start), ("end", WindowOutput::End)] {
        fields.push(Field::new(name, time.clone(), false));
        output.push(bound);
    }
    for (index, call) in calls.iter().enumerate() {
        fields.push(Field::new(format!("a{index}"), call.field.data_type().clone(), true));
        output.push(WindowOutput::Aggregate(index));
    }
    WindowAggregateNode {
        input: input_node(),
        window: Window { column: 0, kind },
        group: group.iter().map(|name| column(name)).collect(),
        aggregates: calls,
        emit,
        allowed_lateness_us: lateness,
        output,
        schema: Arc::new(Schema::new(fields)),
    }
}

fn group_text(row: &Row, group: &[&str]) -> Vec<String> {
    let text = |name: &&str| match *name {
        "k" => row.key.map_or("null".into(), |key| key.to_string()),
        "n" => row.name.map_or("null".into(), str::to_owned),
        other => panic!("no column {other}"),
    };
    group.iter().map(text).collect()
}

fn time_text(time: i64) -> String {
    shown(&TimestampMicrosecondArray::from(vec![time]), 0)
}

/// Start and end of a window.
type Span = (i64, i64);

/// Result rows for rows that lie in the windows given for each.
fn expected<'a>(
    rows: impl Iterator<Item = (&'a Row, (i64, i64))>,
    group: &[&str],
    calls: &[plan::Aggregate],
) -> BTreeMap<Vec<String>, i64> {
    let mut groups: BTreeMap<(Vec<String>, Span), Vec<&Row>> = BTreeMap::new();
    for (row, window) in rows {
        groups.entry((group_text(row, group), window)).or_default().push(row);
    }
    let result = |((key, (start, end)), rows): ((Vec<String>, Span), Vec<&Row>)| {
        let results = calls.iter().map(|call| naive(call, &rows)).collect();
        ([key, vec![time_text(start), time_text(end)], results].concat(), 1)
    };
    groups.into_iter().map(result).collect()
}

/// Feeds rows in disorder, with a watermark that now and then makes some late; returns the rows taken in.
fn drive(harness: &mut Harness, rng: &mut Rng, is_late: impl Fn(&Row, i64) -> bool) -> Vec<Row> {
    let mut accepted = Vec::new();
    let mut late = 0;
    let mut time = -100_i64;
    for _ in 0..40 {
        let rows: Vec<Row> = (0..rng.below(20))
            .map(|_| {
                time += rng.below(4) as i64;
                let late = if rng.chance(15) { 60 } else { 10 };
                let row_time = time - rng.below(late) as i64;
                random_row(rng, row_time)
            })
            .collect();
        let watermark = harness.watermark.unwrap_or(i64::MIN);
        for row in &rows {
            if is_late(row, watermark) { late += 1 } else { accepted.push(row.clone()) }
        }
        harness.push(&rows, None);
        if rng.chance(10) {
            time += 80;
        }
        if !rng.chance(4) {
            harness.advance(time - 12);
        }
        if rng.chance(3) {
            harness.barrier(if rng.chance(4) { StateKind::Image } else { StateKind::Delta });
            if rng.chance(2) {
                harness.restart();
            }
        }
    }
    assert_eq!(harness.errors.len(), late, "late rows are set aside, each once");
    assert!(harness.errors.iter().all(|record| record.stage == "late"));
    accepted
}

fn check_windows(
    kind: &WindowKind,
    group: &'static [&'static str],
    calls: &[plan::Aggregate],
    emit: Emit,
    lateness: i64,
    seed: u64,
) {
    let node = window_node(kind.clone(), group, calls.to_vec(), emit, lateness);
    let mut harness = Harness::new(move || Box::new(WindowAggregate::new(&node).expect("builds")));
    let windows_of = |time: i64| {
        let mut windows = Vec::new();
        crate::window::for_each(kind, time, |window| windows.push((window.start, window.end)));
        windows
    };
    let mut rng = Rng(seed);
    // Which windows of a row still take it depends on the watermark when it came.
    let taken = std::cell::RefCell::new(Vec::new());
    drive(&mut harness, &mut rng, |row, watermark| {
        let windows = windows_of(row.time);
        let dead = |end: i64| watermark > i64::MIN && end + lateness <= watermark;
        // Panes are shared: in the sliced form a row that is not late counts for the windows not yet emitted.
        let open: Vec<(i64, i64)> = windows.iter().copied().filter(|(_, end)| !dead(*end)).collect();
        let late = !windows.is_empty() && open.is_empty();
        taken.borrow_mut().extend(open.into_iter().map(|window| (row.clone(), window)));
        late
    });
    harness.advance(i64::MAX);
    harness.barrier(StateKind::Delta);
    let taken = taken.into_inner();
    let expected = expected(taken.iter().map(|(row, window)| (row, *window)), group, calls);
    assert_eq!(fold(&harness.changes), expected, "{kind:?} by {group:?} {emit:?} lateness {lateness} seed {seed}");
    assert_eq!(harness.operator.state().rows, 0, "nothing is kept after the end");
    if emit == Emit::OnWindowClose && lateness == 0 {
        assert!(harness.changes.iter().all(|changes| changes.kinds.is_none()), "append-only");
    }
}

fn kinds() -> Vec<WindowKind> {
    vec![
        WindowKind::Tumble { size_us: 10, offset_us: 3 },
        WindowKind::Hop { slide_us: 5, size_us: 20, offset_us: 0 },
        WindowKind::Hop { slide_us: 4, size_us: 10, offset_us: 1 },
        WindowKind::Hop { slide_us: 1, size_us: 30, offset_us: 0 },
        WindowKind::Hop { slide_us: 12, size_us: 8, offset_us: 0 },
        WindowKind::Cumulate { step_us: 5, size_us: 20, offset_us: 2 },
    ]
}

#[test]
fn windows_equal_the_model_through_disorder_barriers_and_restarts() {
    for kind in kinds() {
        for (group, calls) in [
            (&["k"][..], all_calls()),
            (&["k"][..], invertible_calls()),
            (&["k", "n"][..], invertible_calls()),
            (&[][..], all_calls()),
        ] {
            for seed in 1..3 {
                check_windows(&kind, group, &calls, Emit::OnWindowClose, 0, seed * 7919);
            }
        }
    }
}

#[test]
fn corrected_windows_equal_the_model() {
    for kind in kinds() {
        for seed in 1..3 {
            check_windows(&kind, &["k"], &all_calls(), Emit::OnUpdate, 0, seed * 104_729);
            check_windows(&kind, &["n"], &all_calls(), Emit::OnUpdate, 15, seed * 1_299_709);
            check_windows(&kind, &["k"], &all_calls(), Emit::OnWindowClose, 15, seed * 15_485_863);
        }
    }
}

/// Start and end of a session, with its rows.
type LiveSession = (i64, i64, Vec<Row>);

/// The sessions that rows fall into when each is accepted or late as it comes.
#[derive(Default)]
struct SessionModel {
    live: BTreeMap<Vec<String>, Vec<LiveSession>>,
    done: Vec<(Row, (i64, i64))>,
}

impl SessionModel {
    const GAP: i64 = 7;

    fn take(&mut self, row: &Row, group: &[&str], watermark: i64, lateness: i64) -> bool {
        let sessions = self.live.entry(group_text(row, group)).or_default();
        let (mut start, mut last, mut rows) = (row.time, row.time, vec![row.clone()]);
        let touching: Vec<usize> = (0..sessions.len())
            .filter(|index| sessions[*index].0 - Self::GAP <= row.time && row.time <= sessions[*index].1 + Self::GAP)
            .collect();
        if touching.is_empty() && watermark > i64::MIN && row.time + Self::GAP + lateness < watermark {
            return false;
        }
        for index in touching.into_iter().rev() {
            let (other_start, other_last, other_rows) = sessions.remove(index);
            start = start.min(other_start);
            last = last.max(other_last);
            rows.extend(other_rows);
        }
        sessions.push((start, last, rows));
        sessions.sort_by_key(|session| session.0);
        true
    }

    fn advance(&mut self, watermark: i64, lateness: i64) {
        for sessions in self.live.values_mut() {
            let (closed, live) =
                sessions.drain(..).partition(|(_, last, _)| watermark == i64::MAX || last + Self::GAP + lateness < watermark);
            *sessions = live;
            let closed: Vec<(i64, i64, Vec<Row>)> = closed;
            for (start, last, rows) in closed {
                self.done.extend(rows.into_iter().map(|row| (row, (start, last + Self::GAP))));
            }
        }
    }
}

fn check_sessions(group: &'static [&'static str], keys: Vec<usize>, emit: Emit, lateness: i64, seed: u64) {
    let calls = all_calls();
    let kind = WindowKind::Session { gap_us: SessionModel::GAP, keys };
    let node = window_node(kind, group, calls.clone(), emit, lateness);
    let mut harness = Harness::new(move || Box::new(SessionAggregate::new(&node).expect("builds")));
    let mut rng = Rng(seed);
    let model = std::cell::RefCell::new((SessionModel::default(), i64::MIN));
    drive(&mut harness, &mut rng, |row, watermark| {
        let (model, known) = &mut *model.borrow_mut();
        if watermark > *known {
            *known = watermark;
            model.advance(watermark, lateness);
        }
        !model.take(row, group, watermark, lateness)
    });
    harness.advance(i64::MAX);
    harness.barrier(StateKind::Delta);
    let (mut model, _) = model.into_inner();
    model.advance(i64::MAX, lateness);
    let expected = expected(model.done.iter().map(|(row, window)| (row, *window)), group, &calls);
    assert_eq!(fold(&harness.changes), expected, "by {group:?} {emit:?} lateness {lateness} seed {seed}");
    assert_eq!(harness.operator.state().rows, 0, "nothing is kept after the end");
}

#[test]
fn sessions_equal_the_model_through_disorder_barriers_and_restarts() {
    for seed in 1..6 {
        check_sessions(&["k"], vec![1], Emit::OnWindowClose, 0, seed * 7919);
        check_sessions(&["n", "k"], vec![1, 2], Emit::OnWindowClose, 0, seed * 104_729);
        check_sessions(&[], vec![], Emit::OnWindowClose, 0, seed * 611_953);
        check_sessions(&["k"], vec![1], Emit::OnUpdate, 0, seed * 1_299_709);
        check_sessions(&["k"], vec![1], Emit::OnWindowClose, 20, seed * 15_485_863);
        check_sessions(&["k"], vec![1], Emit::OnUpdate, 20, seed * 32_452_843);
    }
}

fn check_aggregate(group: &'static [&'static str], append_only: bool, seed: u64) {
    let calls = all_calls();
    let mut fields: Vec<Field> =
        group.iter().map(|name| input_schema().field_with_name(name).expect("known column").clone()).collect();
    fields.extend(calls.iter().enumerate().map(|(i, call)| Field::new(format!("a{i}"), call.field.data_type().clone(), true)));
    let node = AggregateNode {
        input: input_node(),
        append_only,
        group: group.iter().map(|name| column(name)).collect(),
        aggregates: calls.clone(),
        state_ttl_us: None,
        schema: Arc::new(Schema::new(fields)),
    };
    let mut harness = Harness::new(move || Box::new(Aggregate::new(&node).expect("builds")));
    let mut rng = Rng(seed);
    let mut rows: Vec<Row> = Vec::new();
    for step in 0..40 {
        let mut changed = Vec::new();
        let mut kinds = Vec::new();
        for _ in 0..rng.below(12) {
            if !append_only && !rows.is_empty() && rng.chance(2) {
                changed.push(rows.swap_remove(rng.below(rows.len() as u64) as usize));
                kinds.push(DELETE);
            } else {
                let row = random_row(&mut rng, 0);
                rows.push(row.clone());
                changed.push(row);
                kinds.push(INSERT);
            }
        }
        if step > 30 && !append_only {
            kinds.resize(kinds.len() + rows.len(), DELETE);
            changed.append(&mut rows);
        }
        harness.push(&changed, (!append_only).then_some(&kinds));
        if rng.chance(2) {
            harness.barrier(if rng.chance(4) { StateKind::Image } else { StateKind::Delta });
            let mut groups: BTreeMap<Vec<String>, Vec<&Row>> = BTreeMap::new();
            if group.is_empty() {
                groups.insert(Vec::new(), Vec::new());
            }
            rows.iter().for_each(|row| groups.entry(group_text(row, group)).or_default().push(row));
            let result = |(key, rows): (Vec<String>, Vec<&Row>)| {
                ([key, calls.iter().map(|call| naive(call, &rows)).collect()].concat(), 1)
            };
            let expected: BTreeMap<Vec<String>, i64> = groups.into_iter().map(result).collect();
            assert_eq!(fold(&harness.changes), expected, "by {group:?} append_only {append_only} seed {seed} step {step}");
            if rng.chance(2) {
                harness.restart();
            }
        }
    }
}

#[test]
fn updating_aggregates_equal_the_model_through_retractions_and_restarts() {
    for seed in 1..6 {
        for append_only in [true, false] {
            check_aggregate(&["k"], append_only, seed * 7919);
            check_aggregate(&["k", "n"], append_only, seed * 104_729);
            check_aggregate(&[], append_only, seed * 1_299_709);
        }
    }
}

/// A function without a kernel of its own keeps its state through exports, also where it is asked often.
#[test]
fn any_other_function_runs_over_its_accumulator() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let calls = vec![call(array_agg_udaf(), column("v"), list)];
    let node = window_node(WindowKind::Hop { slide_us: 5, size_us: 10, offset_us: 0 }, &["k"], calls, Emit::OnWindowClose, 0);
    let mut harness = Harness::new(move || Box::new(WindowAggregate::new(&node).expect("builds")));
    let row = |time, value| Row { time, key: Some(1), name: None, value: Some(value), price: 0.0 };
    harness.push(&[row(1, 10), row(6, 20)], None);
    harness.barrier(StateKind::Delta);
    harness.restart();
    harness.push(&[row(7, 30)], None);
    harness.barrier(StateKind::Delta);
    harness.restart();
    harness.advance(i64::MAX);
    let lists: Vec<String> = fold(&harness.changes).into_keys().map(|row| row[3].clone()).collect();
    assert_eq!(lists, ["[10]", "[10, 20, 30]", "[20, 30]"]);
}

/// A filter whose expression fails for some rows sets them aside and goes on with the others.
#[test]
fn rows_that_fail_are_set_aside_and_the_rest_goes_on() {
    let quotient = binary(lit(100_i64), Op::Divide, column("v"), &input_schema()).expect("divisible");
    let predicate = binary(quotient, Op::Gt, lit(0_i64), &input_schema()).expect("comparable");
    let row = |value| Row { time: 0, key: None, name: None, value: Some(value), price: 0.0 };
    let mut filter = super::stateless::Filter { predicate };
    let mut out = Output::default();
    let rows: Vec<Row> = (-50..50).map(row).collect();
    let changes = Changes::append(batch(&rows));
    filter.push(Batch { changes, origin: None }, &mut out).expect("goes on");
    assert_eq!(out.batches.iter().map(|batch| batch.changes.len()).sum::<usize>(), 49);
    assert_eq!(out.errors.len(), 1);
    let record = &out.errors[0];
    assert_eq!((record.stage, record.sqlstate), ("expression", "22012"));
    assert_eq!(String::from_utf8_lossy(&record.payload), r#"{"ts":"1970-01-01T00:00:00","v":0,"p":0.0}"#);
}
