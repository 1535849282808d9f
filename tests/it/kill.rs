//! `kill -9` at random moments while rows flow in from Kafka, from files and from a Jetstream server: nothing is lost, nothing doubled.
//!
//! Ten runs by default, `FRESHET_KILL_RUNS` of them with `make kill-test`. A failing run prints its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::source::generator::bluesky::{Generator, Settings};
use server::simulator::{Fault, FaultKind, FaultPlan, Simulator, SimulatorOptions};
use tests::{Freshet, Kafka, Rows, need, run_directory};

fn runs() -> u64 {
    std::env::var("FRESHET_KILL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(10)
}

/// Random numbers that a seed repeats (splitmix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// 2026-01-01 00:00:00 UTC, microseconds.
const BASE_US: i64 = 1_767_225_600_000_000;
const WINDOW_US: i64 = 10_000_000;

/// A finite input with known answers: rows in order but for a little disorder, some hopelessly late ones and some that do not parse.
struct Input {
    /// Records by split, as bytes.
    splits: Vec<Vec<Vec<u8>>>,
    /// The good rows: key, value, event time.
    rows: Vec<(i64, i64, i64)>,
    bad: u64,
}

impl Input {
    fn new(seed: u64, splits: usize, records: usize) -> Input {
        let mut random = Random(seed);
        let mut input = Input { splits: vec![Vec::new(); splits], rows: Vec::new(), bad: 0 };
        for number in 0..records {
            let split = number % splits;
            if random.below(500) == 0 {
                let garbage: [&[u8]; 4] = [
                    b"{\"k\": 1, \"v\":",
                    b"not json",
                    b"{\"k\": \"x\", \"v\": 1, \"ts\": \"2026-01-01T00:00:00Z\"}",
                    b"{\"k\": 1, \"v\": 1, \"ts\": \"soon\"}",
                ];
                input.splits[split].push(garbage[random.below(4) as usize].to_vec());
                input.bad += 1;
                continue;
            }
            // 5 ms of event time a record; disorder within the watermark's delay; one in 300 an age behind.
            let late = number > records / 2 && random.below(300) == 0;
            let back = if late { number as i64 * 4_000 } else { random.below(1_500_000) as i64 };
            let event_time = BASE_US + (number as i64 * 5_000 - back).max(0);
            let (key, value) = (random.below(20) as i64, random.below(1000) as i64);
            let time =
                chrono::DateTime::from_timestamp_micros(event_time).expect("a time in range").format("%Y-%m-%dT%H:%M:%S%.6fZ");
            input.splits[split].push(format!(r#"{{"k":{key},"v":{value},"ts":"{time}","unused":[1,{{"a":"b"}}]}}"#).into_bytes());
            input.rows.push((key, value, event_time));
        }
        input
    }

    fn totals(&self) -> Rows {
        let mut totals: BTreeMap<i64, (i64, i64, i64)> = BTreeMap::new();
        for (key, value, _) in &self.rows {
            let entry = totals.entry(*key).or_insert((0, 0, i64::MIN));
            *entry = (entry.0 + 1, entry.1 + value, entry.2.max(*value));
        }
        let text = |number: i64| Some(number.to_string());
        totals.into_iter().map(|(key, (n, sum, max))| vec![text(key), text(n), text(sum), text(max)]).collect()
    }

    /// Rows per window start and key, late ones included.
    fn windows(&self) -> BTreeMap<(i64, i64), i64> {
        let mut windows = BTreeMap::new();
        for (key, _, event_time) in &self.rows {
            *windows.entry((event_time.div_euclid(WINDOW_US) * WINDOW_US, *key)).or_insert(0) += 1;
        }
        windows
    }
}

const COLUMNS: &str = "(k BIGINT, v BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')";

/// Every kind of view over one source.
fn views(source: &str) -> String {
    format!(
        "CREATE STREAMING VIEW {source}_copy AS SELECT k, v, ts FROM {source};
         CREATE STREAMING VIEW {source}_totals AS SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM {source} GROUP BY k;
         CREATE STREAMING VIEW {source}_tumble AS SELECT window_start, k, count(*) AS n
           FROM TUMBLE({source}, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k;
         CREATE STREAMING VIEW {source}_above AS SELECT k, sum(n) AS n, count(*) AS windows FROM {source}_tumble GROUP BY k;"
    )
}

/// Compares every view over `source` with what its input says.
async fn check(server: &Freshet, source: &str, input: &Input) {
    for view in ["copy", "totals", "tumble", "above"] {
        server.wait(&format!("{source}_{view}")).await;
    }
    // Nothing lost, nothing doubled, in any view.
    let copied =
        server.sql(&format!("SELECT k, v, (extract(epoch FROM ts) * 1000000)::bigint FROM {source}_copy ORDER BY 1, 2, 3")).await;
    let mut wanted: Vec<_> = input.rows.clone();
    wanted.sort_unstable();
    let text = |number: i64| Some(number.to_string());
    let wanted: Rows = wanted.into_iter().map(|(k, v, ts)| vec![text(k), text(v), text(ts)]).collect();
    assert_eq!(copied.len(), wanted.len(), "{source}_copy: rows");
    assert!(copied == wanted, "{source}_copy differs");
    assert_eq!(
        server.sql(&format!("SELECT k, n, s, m FROM {source}_totals ORDER BY k")).await,
        input.totals(),
        "{source}_totals"
    );

    // Windows: what is in the view and what came too late is the whole input, window by window.
    let start = "(extract(epoch FROM window_start) * 1000000)::bigint";
    let mut windows = BTreeMap::new();
    for row in server.sql(&format!("SELECT {start}, k, n FROM {source}_tumble")).await {
        let number = |column: usize| row[column].as_deref().expect("not null").parse::<i64>().expect("a number");
        assert!(windows.insert((number(0), number(1)), number(2)).is_none(), "{source}_tumble: one row per window and key");
    }
    let job = format!("public.{source}_tumble");
    let late = server
        .sql(&format!("SELECT convert_from(payload, 'UTF8') FROM freshet.errors WHERE job = '{job}' AND stage = 'late'"))
        .await;
    for payload in &late {
        let row: serde_json::Value = serde_json::from_str(payload[0].as_deref().expect("a payload")).expect("a late row is JSON");
        let time = row["ts"].as_str().expect("its event time");
        let time = chrono::DateTime::parse_from_rfc3339(&time.replace(' ', "T")).expect("RFC 3339").timestamp_micros();
        *windows.entry((time.div_euclid(WINDOW_US) * WINDOW_US, row["k"].as_i64().expect("its key"))).or_insert(0) += 1;
    }
    assert_eq!(windows, input.windows(), "{source}_tumble and late rows are the whole input");

    // A view over a view equals the query over that view's table.
    assert_eq!(
        server.sql(&format!("SELECT k, n, windows FROM {source}_above ORDER BY k")).await,
        server.sql(&format!("SELECT k, sum(n) AS n, count(*) AS windows FROM {source}_tumble GROUP BY k ORDER BY k")).await,
        "{source}_above"
    );

    // Every record that does not parse is kept, once for each view that reads the source.
    for view in ["copy", "totals", "tumble"] {
        let job = format!("public.{source}_{view}");
        let errors = server.value(&format!("SELECT count(*) FROM freshet.errors WHERE job = '{job}' AND stage = 'decode'")).await;
        assert_eq!(errors, input.bad.to_string(), "{job}: records that do not parse");
    }
    let rows = server.sql("SELECT count(*), count(DISTINCT id) FROM freshet.errors").await;
    assert_eq!(rows[0][0], rows[0][1], "no error twice");
}

/// Kills and starts the server again a few times.
async fn disturb(server: &mut Freshet, random: &mut Random) {
    for _ in 0..2 + random.below(4) {
        tokio::time::sleep(Duration::from_millis(20 + random.below(700))).await;
        server.kill();
        server.restart();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_while_reading_files() {
    let input = Input::new(1, 3, 60_000);
    for seed in 0..runs() {
        eprintln!("kill_while_reading_files: seed {seed}");
        let run = run_directory("kill-files");
        for (number, records) in input.splits.iter().enumerate() {
            std::fs::write(run.join(format!("part-{number}.jsonl")), records.join(&b"\n"[..])).expect("a file");
        }
        let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[("checkpoint_interval", "50ms")], &run);
        let path = run.join("part-*.jsonl");
        let source = format!(
            "CREATE STREAMING TABLE lines {COLUMNS} WITH (connector = 'files', path = '{}') FORMAT PLAIN ENCODE JSON;",
            path.display()
        );
        server.sql(&(source + &views("lines"))).await;
        disturb(&mut server, &mut Random(seed)).await;
        check(&server, "lines", &input).await;
        // The same queries run once over the bounded input.
        let batch = server.sql("SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM lines GROUP BY k ORDER BY k").await;
        assert_eq!(batch, input.totals(), "the bounded query");
        server.restart();
        check(&server, "lines", &input).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_while_reading_kafka() {
    if !need(&["kafka"]) {
        return;
    }
    let input = Input::new(2, 2, 40_000);
    for seed in 0..runs() {
        eprintln!("kill_while_reading_kafka: seed {seed}");
        let run = run_directory("kill-kafka");
        let topic = format!("kill-{}-{seed}", std::process::id());
        Kafka::create_topic(&topic, 2).await;
        let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[("checkpoint_interval", "50ms")], &run);
        let bootstrap = Kafka::shared();
        let source = format!(
            "CREATE STREAMING TABLE messages {COLUMNS} WITH (connector = 'kafka', topic = '{topic}',
               properties.bootstrap.server = '{bootstrap}', scan.startup.mode = 'earliest') FORMAT PLAIN ENCODE JSON;"
        );
        server.sql(&(source + &views("messages"))).await;
        let messages: Vec<(i32, Vec<u8>)> = interleave(&input.splits);
        let producer = tokio::task::spawn_blocking({
            let topic = topic.clone();
            move || {
                for chunk in messages.chunks(4_000) {
                    Kafka::produce(&topic, chunk.iter().map(|(partition, payload)| (*partition, &payload[..])));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        disturb(&mut server, &mut Random(seed)).await;
        producer.await.expect("all messages are written");
        server
            .sql(&format!(
            "CREATE STREAMING TABLE whole {COLUMNS} WITH (connector = 'kafka', topic = '{topic}', scan.bounded.mode = 'latest',
               properties.bootstrap.server = '{bootstrap}', scan.startup.mode = 'earliest') FORMAT PLAIN ENCODE JSON"
        ))
            .await;
        // The bounded form of the same topic closes every window: all answers can be compared.
        server.sql(&views("whole")).await;
        disturb(&mut server, &mut Random(seed + 1000)).await;
        check(&server, "whole", &input).await;
        // The unbounded one has the same rows; its last windows are still open.
        server.wait("messages_totals").await;
        assert_eq!(server.sql("SELECT k, n, s, m FROM messages_totals ORDER BY k").await, input.totals(), "messages_totals");
        server.wait("messages_copy").await;
        let copied = server.value("SELECT count(*) FROM messages_copy").await;
        assert_eq!(copied, input.rows.len().to_string(), "messages_copy");
    }
}

/// Events in the log of the Jetstream hosts; about two minutes of event time.
const EVENTS: u64 = 40_000;

/// Faults of the first connections: reconnects with overlaps, repeated events, a host that goes back unannounced.
fn faults(random: &mut Random) -> FaultPlan {
    let fault = |random: &mut Random| {
        let kind = match random.below(5) {
            0 => FaultKind::Drop,
            1 => FaultKind::Close(1001),
            2 => FaultKind::TooSlow,
            3 => FaultKind::Duplicate(1 + random.below(3) as u32),
            _ => FaultKind::Rewind(1 + random.below(200)),
        };
        Fault { after: 200 + random.below(EVENTS / 8), kind }
    };
    FaultPlan { connections: (0..8).map(|_| (0..4).map(|_| fault(random)).collect()).collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_while_reading_jetstream() {
    for seed in 0..runs() {
        eprintln!("kill_while_reading_jetstream: seed {seed}");
        let run = run_directory("kill-jetstream");
        let mut random = Random(seed);
        // Two hosts with the same events, each with sequence numbers and times of its own.
        let settings = Settings { start_us: BASE_US, seed, ..Settings::default() };
        let first = SimulatorOptions {
            settings: settings.clone(),
            events: Some(EVENTS),
            lookback: Duration::from_secs(1_000_000_000),
            faults: faults(&mut random),
            ..SimulatorOptions::default()
        };
        let second =
            SimulatorOptions { seq_offset: 1_000_000_000, time_offset_us: 150_000, faults: faults(&mut random), ..first.clone() };
        let hosts = [Simulator::start(first).await.expect("a free port"), Simulator::start(second).await.expect("a free port")];
        let endpoints = hosts.each_ref().map(|host| format!("ws://{}", host.address())).join(",");
        let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[("checkpoint_interval", "50ms")], &run);
        server
            .sql(&format!(
                "CREATE STREAMING TABLE events (*, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
                   WITH (connector = 'jetstream', endpoints = '{endpoints}', scan.startup.mode = 'earliest');
                 CREATE STREAMING VIEW by_collection AS SELECT kind, collection, count(*) AS n FROM events GROUP BY kind, collection;
                 CREATE STREAMING VIEW copy AS SELECT event_id FROM events;"
            ))
            .await;
        disturb(&mut server, &mut random).await;
        // A host has no end, only silence: whoever waits may be told of a pause.
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        loop {
            server.wait("events").await;
            let stored: u64 = server.value("SELECT count(*) FROM events").await.parse().expect("a number");
            if stored >= EVENTS || std::time::Instant::now() > deadline {
                break;
            }
        }
        let generator = Generator::new(settings);
        let mut ids: Vec<String> = (0..EVENTS).map(|number| generator.at(number).event_id()).collect();
        ids.sort_unstable();
        for table in ["events", "copy"] {
            server.wait(table).await;
            let mut stored: Vec<String> =
                server.sql(&format!("SELECT event_id FROM {table}")).await.into_iter().map(only).collect();
            stored.sort_unstable();
            assert_eq!(stored.len(), ids.len(), "{table}: events");
            assert!(stored == ids, "{table} differs");
        }
        server.wait("by_collection").await;
        assert_eq!(
            server.sql("SELECT kind, collection, n FROM by_collection ORDER BY 1, 2").await,
            server.sql("SELECT kind, collection, count(*) FROM events GROUP BY kind, collection ORDER BY 1, 2").await,
            "by_collection"
        );
    }
}

/// The one value of a row.
fn only(row: Vec<Option<String>>) -> String {
    row.into_iter().next().flatten().expect("a value")
}

/// Records of all splits in the order they were made.
fn interleave(splits: &[Vec<Vec<u8>>]) -> Vec<(i32, Vec<u8>)> {
    let longest = splits.iter().map(Vec::len).max().unwrap_or(0);
    let at = |number: usize| {
        splits.iter().enumerate().filter_map(move |(split, records)| Some((split as i32, records.get(number)?.clone())))
    };
    (0..longest).flat_map(at).collect()
}
