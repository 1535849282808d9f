//! Plans of queries and dataflows over a catalog of a few definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use catalog::{Definition, ObjectId, ObjectKind, ObjectName};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use engine::plan::{Emit, Node, Sink};

use super::provider::Objects;
use crate::{Continuous, Planner, SessionSettings, Statement, SystemRelations, parse};

#[derive(Debug)]
struct NoSystem;

impl SystemRelations for NoSystem {
    fn relation(&self, _: &Arc<catalog::Version>, _: &str, _: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }
}

fn planner() -> Planner {
    let settings = SessionSettings {
        search_path: vec!["$user".to_owned(), "public".to_owned()],
        time_zone: "UTC".to_owned(),
        user: "me".to_owned(),
        database: "freshet".to_owned(),
        backend_pid: 7,
        query_threads: 1,
    };
    Planner::new(Arc::new(RuntimeEnv::default()), settings, Arc::new(NoSystem))
}

/// Definitions as CREATE statements make them, and rows for some.
#[derive(Default)]
struct Fake {
    objects: BTreeMap<ObjectName, Arc<Definition>>,
    rows: BTreeMap<ObjectId, Arc<dyn TableProvider>>,
}

impl Objects for Fake {
    fn object(&self, name: &ObjectName) -> Option<Arc<Definition>> {
        self.objects.get(name).cloned()
    }

    fn table(&self, id: ObjectId) -> Option<Arc<dyn TableProvider>> {
        self.rows.get(&id).cloned()
    }

    fn system(&self, _: &str, _: &str) -> Option<Arc<dyn TableProvider>> {
        None
    }

    fn function(&self, _: &str, _: &str, _: &[ScalarValue]) -> Option<crate::Result<Arc<dyn TableProvider>>> {
        None
    }

    fn names(&self) -> Vec<ObjectName> {
        self.objects.keys().cloned().collect()
    }
}

impl Fake {
    /// Runs CREATE statements as a server would.
    fn create(&mut self, planner: &Planner, text: &str) -> crate::Result<()> {
        for parsed in parse(text)? {
            let id = ObjectId(1000 + self.objects.len() as u64);
            let (name, kind, schema, key, watermark): (_, _, SchemaRef, _, _) = match &parsed.statement {
                Statement::CreateStreamingTable(create) => {
                    let source = planner.streaming_table(create)?;
                    let watermark = source.watermark.as_ref().map(|w| (source.schema.field(w.column).name().clone(), 0));
                    let stored = create.options.contains_key("retention");
                    let kind = if stored { ObjectKind::StoredStreamingTable } else { ObjectKind::StreamingTable };
                    (create.name.clone(), kind, source.schema, Vec::new(), watermark)
                }
                Statement::CreateTable(create) => {
                    let (schema, key) = planner.table(create)?;
                    (create.name.clone(), ObjectKind::Table, schema, key, None)
                }
                Statement::CreateView(create) => {
                    (create.name.clone(), ObjectKind::View, planner.view_over(self, create)?.0, Vec::new(), None)
                }
                Statement::CreateStreamingView(create) => {
                    let continuous = planner.continuous_over(self, id, &parsed.statement)?;
                    (
                        create.name.clone(),
                        ObjectKind::StreamingView,
                        continuous.schema,
                        continuous.primary_key,
                        continuous.watermark,
                    )
                }
                Statement::Empty => continue,
                other => panic!("{other:?} makes nothing"),
            };
            let name = name.in_schema("public");
            if kind.has_table() {
                self.rows.insert(id, Arc::new(MemTable::try_new(Arc::clone(&schema), vec![vec![]]).expect("empty table")));
            }
            let definition = Definition {
                id,
                name: name.clone(),
                kind,
                sql: parsed.text,
                schema,
                primary_key: key,
                options: BTreeMap::new(),
                depends_on: Vec::new(),
                created_us: 0,
                comment: None,
                paused: false,
                watermark,
            };
            self.objects.insert(name, Arc::new(definition));
        }
        Ok(())
    }
}

fn testdata(name: &str) -> String {
    let path = format!("{}/testdata/nexmark/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn nexmark() -> (Planner, Fake) {
    let (planner, mut fake) = (planner(), Fake::default());
    fake.create(&planner, &testdata("tables").replace(":dir", "/nowhere")).expect("tables");
    (planner, fake)
}

fn view(planner: &Planner, fake: &Fake, query: &str) -> crate::Result<Continuous> {
    let parsed = parse(&format!("CREATE STREAMING VIEW v AS {query}"))?;
    planner.continuous_over(fake, ObjectId(5000), &parsed[0].statement)
}

/// The operators from the top, each with the columns it reads where it is a source.
fn shape(node: &Node) -> String {
    let names = |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(",");
    match node {
        Node::Source(source) => format!("Source({})", names(&source.schema)),
        Node::TableChanges(changes) => format!("Changes({})", names(&changes.schema)),
        Node::Filter { input, .. } => format!("Filter<{}", shape(input)),
        Node::Project { input, .. } => format!("Project<{}", shape(input)),
        Node::WindowAssign { input, .. } => format!("WindowAssign<{}", shape(input)),
        Node::WindowAggregate(node) => format!("WindowAggregate<{}", shape(&node.input)),
        Node::Aggregate(node) => format!("Aggregate<{}", shape(&node.input)),
        Node::Union { inputs, .. } => format!("Union[{}]", inputs.iter().map(shape).collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn nexmark_queries_become_dataflows() {
    let (planner, fake) = nexmark();
    // The watermark's column is always read: whether a record's time is good must not depend on the query.
    for (query, expected, key) in [
        ("q0", "Project<Source(auction,bidder,price,date_time,extra)", ""),
        ("q1", "Project<Source(auction,bidder,price,date_time,extra)", ""),
        ("q2", "Filter<Source(auction,price,date_time)", ""),
        ("q10", "Project<Source(auction,bidder,price,date_time,extra)", ""),
        ("q11", "Project<WindowAggregate<Source(bidder,date_time)", ""),
        ("q12", "Project<WindowAggregate<Source(bidder,date_time)", ""),
        ("q12_short", "Project<WindowAggregate<Source(bidder,date_time)", ""),
        ("q14", "Project<Filter<Source(auction,bidder,price,date_time,extra)", ""),
        ("q15", "Aggregate<Source(auction,bidder,price,date_time)", "day"),
        ("q16", "Aggregate<Source(auction,bidder,price,channel,date_time)", "channel,day"),
        ("q17", "Aggregate<Source(auction,price,date_time)", "auction,day"),
        ("q21", "Project<Filter<Source(auction,bidder,price,channel,url,date_time)", ""),
        ("q22", "Project<Source(auction,bidder,price,channel,url,date_time)", ""),
    ] {
        let continuous = view(&planner, &fake, &testdata(query)).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let shape =
            shape(&continuous.dataflow.root).replace("Project<Project<", "Project<").replace("Project<Aggregate", "Aggregate");
        let shape = shape
            .replace("Aggregate<Project<", "Aggregate<")
            .replace("Filter<Project<", "Filter<")
            .replace("Project<Source(auction,bidder,price,date_time,extra)", "Source(auction,bidder,price,date_time,extra)");
        let expected = expected
            .replace("Project<Source(auction,bidder,price,date_time,extra)", "Source(auction,bidder,price,date_time,extra)");
        assert_eq!(shape, expected, "{query}\n{}", planner.explain_continuous(&continuous));
        assert_eq!(continuous.primary_key.join(","), key, "{query}");
        assert!(continuous.schema.fields().iter().all(|field| *field.data_type() != DataType::Utf8View), "{query}");
        assert_eq!(continuous.notices.is_empty(), key.is_empty(), "{query}: {:?}", continuous.notices);
    }
    let hop = view(&planner, &fake, "SELECT auction, COUNT(*) AS num, window_start, window_end FROM TABLE(HOP(TABLE bid, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end").expect("hop");
    assert_eq!(shape(&hop.dataflow.root), "Project<WindowAggregate<Source(auction,date_time)");
    assert_eq!(hop.watermark, Some(("window_start".to_owned(), 10_000_000)));
    assert!(matches!(hop.dataflow.sink, Sink::Table { ref key, .. } if key.is_empty()));
}

#[test]
fn nexmark_queries_are_bounded_queries_too() {
    let (planner, fake) = nexmark();
    let path = format!("{}/testdata/nexmark", env!("CARGO_MANIFEST_DIR"));
    let mut planned = 0;
    for entry in std::fs::read_dir(path).expect("testdata") {
        let name = entry.expect("entry").path().file_stem().expect("stem").to_string_lossy().into_owned();
        if name == "tables" {
            continue;
        }
        let parsed = parse(&testdata(&name)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let plan = planner.query_over(&fake, &parsed[0].statement).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        planner.state().optimize(&plan).unwrap_or_else(|error| panic!("{name}: {error}"));
        planned += 1;
    }
    assert_eq!(planned, 25);
}

fn error(result: crate::Result<impl std::fmt::Debug>) -> String {
    match result {
        Ok(value) => format!("no error: {value:?}"),
        Err(error) => {
            let position = error.position.map(|position| format!("@{position}")).unwrap_or_default();
            format!("{}{position}: {} [{}]", error.sqlstate, error.message, error.hint.unwrap_or_default())
        }
    }
}

#[test]
fn mistakes_in_continuous_queries_are_named() {
    let (planner, mut fake) = nexmark();
    fake.create(
        &planner,
        "CREATE STREAMING TABLE plain (a INT, ts TIMESTAMP) WITH (connector = 'files', path = 'x') FORMAT PLAIN ENCODE JSON",
    )
    .expect("plain");
    fake.create(&planner, "CREATE TABLE nokey (a INT); CREATE TABLE keyed (k INT PRIMARY KEY, a INT)").expect("tables");
    for (query, expected) in [
        ("SELECT * FROM bid ORDER BY price", "0A000: ORDER BY is not supported in a continuous query"),
        ("SELECT * FROM bid LIMIT 3", "0A000: LIMIT is not supported in a continuous query"),
        ("SELECT b.auction FROM bid b JOIN auction a ON a.id = b.auction", "0A000: a join is not supported"),
        ("SELECT auction, rank() OVER (PARTITION BY auction ORDER BY price) FROM bid", "0A000: OVER is not supported"),
        (
            "SELECT auction FROM bid WHERE auction IN (SELECT id FROM auction)",
            "0A000: a subquery in an expression is not supported",
        ),
        ("SELECT auction FROM bid EMIT ON WINDOW CLOSE", "42P20: EMIT ON WINDOW CLOSE needs windows"),
        ("SELECT auction FROM bid WHERE date_time > now()", "0A000: now() is not possible in a continuous query"),
        (
            "SELECT count(*) FROM TUMBLE(plain, ts, INTERVAL '1 minute') GROUP BY window_start",
            "0A000: column \"ts\" has no watermark",
        ),
        (
            "SELECT count(*) FROM TUMBLE(bid, channel, INTERVAL '1 minute') GROUP BY window_start",
            "42804: the time column \"channel\" of TUMBLE has type text",
        ),
        (
            "SELECT count(*) FROM TUMBLE(bid, date_time, '0 s') GROUP BY window_start",
            "22023: the size of TUMBLE must be greater than zero",
        ),
        (
            "SELECT count(*) FROM auction GROUP BY seller",
            "0A000: the result is updated by its key, but column \"seller\" is not in the select list",
        ),
        ("SELECT nothing FROM bid", "42703@35: column \"nothing\" does not exist"),
        (
            "SELECT pirce FROM bid",
            "42703@35: column \"pirce\" does not exist [Perhaps you meant to reference the column \"price\".]",
        ),
        ("SELECT * FROM bdi", "42P01@42: relation \"bdi\" does not exist [Perhaps you meant \"bid\".]"),
        ("SELECT nofunction(price) FROM bid", "42883"),
        ("SELECT auction, count(*) FROM bid", "42803"),
        (
            "SELECT a FROM nokey",
            "0A000: the result is updated by its key, but a key of table nokey, which has none, is not in the select list",
        ),
        ("SELECT a FROM keyed", "0A000: the result is updated by its key, but column \"k\" is not in the select list"),
        ("SELECT auction, auction FROM bid", "42701: column \"auction\" specified more than once"),
        ("SELECT 1", "0A000: a continuous query must read a table"),
        (
            "SELECT count(*) FROM SESSION(bid, date_time, INTERVAL '1 s', bidder) GROUP BY window_start",
            "0A000: sessions by \"bidder\" must be grouped by it",
        ),
        (
            "SELECT channel, count(*) FROM SESSION(bid, date_time, INTERVAL '1 s', bidder) GROUP BY window_start, bidder, channel",
            "0A000: sessions can only be grouped by their keys",
        ),
    ] {
        let found = error(view(&planner, &fake, query));
        assert!(found.starts_with(expected), "{query}\n  expected {expected}\n  found    {found}");
    }
    for (create, expected) in [
        (
            "CREATE STREAMING TABLE t (a INT, WATERMARK FOR b AS b) WITH (connector = 'files', path = 'x')",
            "42703: column \"b\" named in WATERMARK does not exist",
        ),
        (
            "CREATE STREAMING TABLE t (a TEXT, WATERMARK FOR a AS a) WITH (connector = 'files', path = 'x')",
            "42804: a watermark needs a time, but column \"a\" has type text",
        ),
        (
            "CREATE STREAMING TABLE t (a TEXTT) WITH (connector = 'files', path = 'x')",
            "42704@27: type \"textt\" does not exist [Perhaps you meant text.]",
        ),
        (
            "CREATE STREAMING TABLE t (a TEXT) WITH (conector = 'files', path = 'x')",
            "22023: option \"connector\" is missing [Perhaps \"conector\" should be \"connector\".]",
        ),
        (
            "CREATE STREAMING VIEW v WITH (state_tll = '1 day') AS SELECT * FROM bid",
            "22023: unknown option \"state_tll\" [Perhaps you meant \"state_ttl\".]",
        ),
        (
            "CREATE STREAMING VIEW v WITH (state_ttl = 'soon') AS SELECT * FROM bid",
            "22023: option \"state_ttl\" must be a length of time",
        ),
        ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "42703: column \"b\" named in key does not exist"),
        ("CREATE VIEW v (a, a) AS SELECT 1, 2", "42701: column \"a\" specified more than once"),
    ] {
        let found = error(fake.create(&planner, create));
        assert!(found.starts_with(expected), "{create}\n  expected {expected}\n  found    {found}");
    }
}

#[test]
fn keys_watermarks_and_emission_flow_through_views() {
    let (planner, mut fake) = nexmark();
    fake.create(
        &planner,
        "CREATE STREAMING VIEW minutes AS SELECT window_start, window_end, auction, count(*) AS n FROM TUMBLE(bid, date_time, INTERVAL '1 minute') GROUP BY 1, 2, 3;
         CREATE STREAMING VIEW hours AS SELECT window_start, auction, sum(n) AS n FROM TUMBLE(minutes, window_start, INTERVAL '1 hour') GROUP BY window_start, auction;
         CREATE VIEW expensive AS SELECT auction, price, date_time FROM bid WHERE price > 100;
         CREATE STREAMING VIEW total AS SELECT count(*) AS n FROM expensive;
         CREATE STREAMING VIEW live AS SELECT window_end, auction, count(*) AS n FROM HOP(expensive, date_time, INTERVAL '1 s', INTERVAL '10 s') GROUP BY window_end, auction EMIT ON UPDATE;
         CREATE STREAMING VIEW late AS SELECT window_end, auction, count(*) AS n FROM TUMBLE(bid, date_time, '1 s') GROUP BY window_end, auction ALLOW LATENESS INTERVAL '1 minute';
         CREATE STREAMING VIEW both AS SELECT auction, date_time FROM bid UNION ALL SELECT id, date_time FROM auction",
    )
    .expect("views");
    let definition = |name: &str| fake.object(&ObjectName { schema: "public".to_owned(), name: name.to_owned() }).expect("made");
    assert_eq!(definition("minutes").watermark, Some(("window_start".to_owned(), 60_000_000)));
    assert_eq!(definition("hours").watermark, Some(("window_start".to_owned(), 3_660_000_000)));
    assert_eq!(definition("total").primary_key, ["_row"]);
    assert_eq!(definition("live").primary_key, ["window_end", "auction"]);
    assert_eq!(definition("late").primary_key, ["window_end", "auction"]);
    assert_eq!(definition("late").watermark, Some(("window_end".to_owned(), 60_000_000)));
    assert_eq!(definition("both").watermark, Some(("date_time".to_owned(), 0)));

    // The hidden key column is not seen.
    let parsed = parse("SELECT * FROM total").expect("parses");
    let plan = planner.query_over(&fake, &parsed[0].statement).expect("plans");
    assert_eq!(plan.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["n"]);

    let over = view(&planner, &fake, "SELECT n + 1 AS n FROM total").map(|continuous| continuous.primary_key);
    assert!(over.is_err(), "the only row's key is left out by a projection over a view: {over:?}");
    let live = view(&planner, &fake, "SELECT window_end, auction, n FROM live WHERE n > 3").expect("plans");
    assert_eq!(live.primary_key, ["window_end", "auction"]);
    let on_update = view(
        &planner,
        &fake,
        "SELECT window_end, count(*) FROM TUMBLE(bid, date_time, '1 s') GROUP BY window_end EMIT ON UPDATE",
    )
    .expect("plans");
    let mut node = &on_update.dataflow.root;
    while let Node::Project { input, .. } = node {
        node = input;
    }
    assert!(matches!(node, Node::WindowAggregate(node) if node.emit == Emit::OnUpdate));
}

fn output_names(plan: &LogicalPlan) -> Vec<String> {
    plan.schema().as_arrow().fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn columns_are_called_as_in_postgres() {
    let (planner, mut fake) = nexmark();
    fake.create(&planner, "CREATE TABLE t (a INT, b TEXT, ts TIMESTAMP)").expect("table");
    for (query, expected) in [
        ("SELECT 1", vec!["?column?"]),
        ("SELECT 1, 2, count(*), count(*) FROM t", vec!["?column?", "?column?", "count", "count"]),
        ("SELECT a, a, t.a FROM t", vec!["a", "a", "a"]),
        ("SELECT *, a FROM t", vec!["a", "b", "ts", "a"]),
        (
            "SELECT a::text, '1'::int, upper(b), a + 1, CASE WHEN a = 1 THEN 2 END, true, coalesce(a, 1) FROM t",
            vec!["a", "int4", "upper", "?column?", "case", "bool", "coalesce"],
        ),
        (
            "SELECT date '2020-01-01', extract(hour FROM ts), max(a) FILTER (WHERE a > 1) AS \"M\" FROM t GROUP BY ts",
            vec!["date", "extract", "M"],
        ),
        (
            "SELECT current_user, current_database(), current_schema(), version()",
            vec!["current_user", "current_database", "current_schema", "version"],
        ),
        ("SELECT count FROM (SELECT count(*) FROM t) s", vec!["count"]),
        ("SELECT x.max FROM (SELECT a, max(b) FROM t GROUP BY a) x ORDER BY a", vec!["max"]),
        ("VALUES (1, 'a')", vec!["column1", "column2"]),
        ("SELECT a FROM t UNION ALL SELECT 1 ORDER BY 1", vec!["a"]),
        ("SELECT pg_catalog.upper(b) FROM t", vec!["upper"]),
        ("SELECT b FROM t WHERE b OPERATOR(pg_catalog.~) '^x' COLLATE pg_catalog.default", vec!["b"]),
        ("SELECT mod(a, 3) FROM t", vec!["mod"]),
    ] {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let plan = planner.query_over(&fake, &parsed[0].statement).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        assert_eq!(output_names(&plan), expected, "{query}");
        planner.state().optimize(&plan).unwrap_or_else(|error| panic!("{query}: {error}"));
    }
}

fn run(planner: &Planner, plan: &LogicalPlan) -> String {
    let runtime = futures::executor::block_on(async {
        let physical = planner.state().create_physical_plan(plan).await?;
        collect(physical, Arc::new(TaskContext::from(planner.state()))).await
    });
    pretty_format_batches(&runtime.expect("runs")).expect("prints").to_string()
}

#[test]
fn windows_in_a_select() {
    let (planner, mut fake) = (planner(), Fake::default());
    fake.create(&planner, "CREATE TABLE t (k TEXT, ts TIMESTAMP, n BIGINT)").expect("table");
    let second = 1_000_000;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a", "a", "b", "a", "b"])),
        Arc::new(TimestampMicrosecondArray::from(vec![
            Some(-second),
            Some(4 * second),
            Some(5 * second),
            Some(14 * second),
            None,
        ])),
        Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("n", DataType::Int64, true),
    ]));
    assert_eq!(columns[1].len(), 5);
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("batch");
    fake.rows.insert(ObjectId(1000), Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("rows")));
    for (query, expected) in [
        (
            "SELECT k, window_start AS s, window_end AS e, sum(n)::bigint AS n FROM TUMBLE(t, ts, INTERVAL '10 seconds') GROUP BY 1, 2, 3 ORDER BY 2, 1",
            "| a | 1969-12-31T23:59:50 | 1970-01-01T00:00:00 | 1 |\n| a | 1970-01-01T00:00:00 | 1970-01-01T00:00:10 | 2 |\n| b | 1970-01-01T00:00:00 | 1970-01-01T00:00:10 | 3 |\n| a | 1970-01-01T00:00:10 | 1970-01-01T00:00:20 | 4 |",
        ),
        (
            "SELECT k, SESSION_START(ts, INTERVAL '10' SECOND) AS s, SESSION_END(ts, INTERVAL '10' SECOND) AS e, count(*) AS n FROM t GROUP BY SESSION(ts, INTERVAL '10' SECOND), k ORDER BY 1, 2",
            "| a | 1969-12-31T23:59:59 | 1970-01-01T00:00:24 | 3 |\n| b | 1970-01-01T00:00:05 | 1970-01-01T00:00:15 | 1 |",
        ),
        (
            "SELECT k, window_start AS s, window_end AS e, count(*) AS n FROM TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '6' SECOND)) GROUP BY 1, 2, 3 ORDER BY 1, 2",
            "| a | 1969-12-31T23:59:59 | 1970-01-01T00:00:10 | 2 |\n| a | 1970-01-01T00:00:14 | 1970-01-01T00:00:20 | 1 |\n| b | 1970-01-01T00:00:05 | 1970-01-01T00:00:11 | 1 |",
        ),
        (
            "SELECT k, window_start AS s, window_end AS e, count(*) AS n FROM HOP(DATA => t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5 s', SIZE => INTERVAL '10 s') WHERE k = 'b' GROUP BY 1, 2, 3 ORDER BY 1, 2",
            "| b | 1970-01-01T00:00:00 | 1970-01-01T00:00:10 | 1 |\n| b | 1970-01-01T00:00:05 | 1970-01-01T00:00:15 | 1 |",
        ),
        (
            "SELECT k, window_start AS s, window_end AS e, count(*) AS n FROM CUMULATE(t, ts, INTERVAL '5 s', INTERVAL '10 s') WHERE k = 'b' GROUP BY 1, 2, 3 ORDER BY 1, 2",
            "| b | 1970-01-01T00:00:00 | 1970-01-01T00:00:10 | 1 |",
        ),
    ] {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let plan = planner.query_over(&fake, &parsed[0].statement).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let found = run(&planner, &plan);
        let rows: Vec<&str> = found.lines().filter(|line| line.starts_with("| ") && !line.contains(" k ")).collect();
        assert_eq!(rows.join("\n"), expected, "{query}\n{found}");
    }
}

#[test]
fn changes_of_tables_are_queries() {
    let (planner, mut fake) = (planner(), Fake::default());
    fake.create(&planner, "CREATE TABLE t (a INT PRIMARY KEY, b TEXT DEFAULT 'x', c SMALLINT)").expect("table");
    let insert = |text: &str| {
        let parsed = parse(text).expect("parses");
        match &parsed[0].statement {
            Statement::Insert(insert) => planner.insert_over(&fake, insert).map(|(_, plan)| run(&planner, &plan)),
            statement => planner.modify_over(&fake, statement).map(|(_, plan)| output_names(&plan).join(",")),
        }
    };
    let row = |text: &str| insert(text).expect("plans").lines().nth(3).expect("a row").to_owned();
    assert_eq!(row("INSERT INTO t VALUES (1, 'y', 2)"), "| 1 | y | 2 |");
    assert_eq!(row("INSERT INTO t (c, a) VALUES (2, 1)"), "| 1 | x | 2 |");
    assert_eq!(row("INSERT INTO t VALUES (1, DEFAULT, DEFAULT)"), "| 1 | x |   |");
    assert_eq!(row("INSERT INTO t VALUES (1)"), "| 1 | x |   |");
    assert_eq!(row("INSERT INTO t SELECT 3, 'z', 4"), "| 3 | z | 4 |");
    assert_eq!(insert("UPDATE t SET b = 'n', c = c + 1 WHERE a = 1").expect("plans"), "a,b,c,new.a,new.b,new.c");
    assert_eq!(insert("DELETE FROM t WHERE a = 1").expect("plans"), "a,b,c");
    for (text, expected) in [
        ("INSERT INTO t VALUES (1, 'y', 2, 3)", "42601: INSERT has more expressions than target columns"),
        ("INSERT INTO t (a) VALUES (1, 2)", "42601: INSERT has more expressions than target columns"),
        ("INSERT INTO t (d) VALUES (1)", "42703: column \"d\" of relation \"t\" does not exist"),
        ("INSERT INTO u VALUES (1)", "42P01: relation \"u\" does not exist"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "0A000: ON CONFLICT is not supported"),
        ("UPDATE t SET d = 1", "42703: column \"d\" of relation \"t\" does not exist"),
        ("UPDATE t SET a = 1, a = 2", "42601: multiple assignments to same column \"a\""),
    ] {
        let found = error(insert(text));
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}
