//! How fast, how small: runs the release binary over generated events and prints rows/s, rows per CPU-second, latency and peak memory.
//!
//! `bench [NAME…] [--events N] [--data FOLDER]` runs all or the named measurements. CPU seconds are user + system time of the server process,
//! without its start; peak memory is the high-water mark of its resident set.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::{Freshet, Kafka, need, run_directory};

const BID: &str = "auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP, extra TEXT, \
WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'";

const HOP: &str = "SELECT auction, count(*) AS num, window_start, window_end FROM HOP(bid, date_time, INTERVAL '2 seconds', \
INTERVAL '10 seconds') GROUP BY auction, window_start, window_end";

const HOP_FINE: &str = "SELECT auction, count(*) AS num, window_start, window_end FROM HOP(bid, date_time, INTERVAL '100 milliseconds', \
INTERVAL '10 seconds') GROUP BY auction, window_start, window_end";

const Q17: &str = "SELECT auction, to_char(date_time, 'YYYY-MM-DD') AS day, count(*) AS total_bids, \
count(*) FILTER (WHERE price < 10000) AS rank1_bids, count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids, \
count(*) FILTER (WHERE price >= 1000000) AS rank3_bids, min(price) AS min_price, max(price) AS max_price, \
trunc(avg(price))::bigint AS avg_price, sum(price) AS sum_price FROM bid GROUP BY auction, to_char(date_time, 'YYYY-MM-DD')";

const Q0: &str = "SELECT auction, bidder, price, date_time, extra FROM bid";

const TUMBLE: &str = "SELECT bidder, count(*) AS bids, window_start, window_end FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') \
GROUP BY bidder, window_start, window_end";

/// Name, where the rows go, query.
const FILE_JOBS: [(&str, Output, &str); 8] = [
    ("q0", Output::Blackhole, Q0),
    ("q0-table", Output::Table, Q0),
    ("q2", Output::Blackhole, "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0"),
    ("hop", Output::Blackhole, HOP),
    ("hop-100ms", Output::Blackhole, HOP_FINE),
    ("tumble", Output::Blackhole, TUMBLE),
    ("q17", Output::Blackhole, Q17),
    ("q17-table", Output::Table, Q17),
];

const KAFKA_JOBS: [(&str, Output, &str); 3] = [
    ("kafka-append", Output::Table, "SELECT * FROM bid"),
    ("kafka-tumble", Output::Table, TUMBLE),
    ("kafka-hop", Output::Table, HOP),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Blackhole,
    Table,
}

/// User + system CPU seconds and the high-water mark of resident memory, MB.
fn usage(server: &Freshet) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("the server runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in parentheses").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("the server runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    let peak_kb: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    ((ticks(11) + ticks(12)) / 100.0, peak_kb / 1000.0)
}

fn statement(output: Output, query: &str) -> String {
    match output {
        Output::Blackhole => format!("CREATE SINK job AS {query} WITH (connector = 'blackhole')"),
        Output::Table => format!("CREATE STREAMING VIEW job AS {query}"),
    }
}

async fn measure(name: &str, output: Output, query: &str, source: &str, rows: f64) {
    let run = run_directory("bench");
    let server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    server.sql(source).await;
    let (before, _) = usage(&server);
    let start = Instant::now();
    server.sql(&statement(output, query)).await;
    server.sql("SELECT * FROM freshet.wait('job', INTERVAL '600 seconds')").await;
    let wall = start.elapsed().as_secs_f64();
    let (after, peak) = usage(&server);
    let cpu = after - before;
    let read: f64 = server.value("SELECT rows_in FROM freshet.jobs WHERE name = 'job'").await.parse().expect("a number");
    assert!((read - rows).abs() < 0.5, "{name} read {read} of {rows} rows");
    println!("| {name} | {:.0} | {:.0} | {wall:.1} | {cpu:.1} | {peak:.0} |", rows / wall / 1e3, rows / cpu / 1e3);
    std::fs::remove_dir_all(run).ok();
}

/// Bids as JSON lines in two files, made once for each size by the built-in generator.
fn bids(root: &Path, events: u64) -> (PathBuf, f64) {
    let folder = root.join(format!("bids-{events}"));
    let rows = events / 50 * 46;
    if !folder.join("done").exists() {
        eprintln!("writing {rows} bids to {}", folder.display());
        std::fs::create_dir_all(&folder).expect("the data folder can be written");
        tests::write_bids(&folder, events, 2);
        std::fs::write(folder.join("done"), "").expect("the data folder can be written");
    }
    (folder, rows as f64)
}

/// Time from a row's creation to its being seen by a polling SELECT, at 2,000 rows/s with four views.
async fn latency(interval: &str) {
    let run = run_directory("bench");
    let server = Freshet::start(run.join("data").to_str().expect("text"), &[("checkpoint_interval", interval)], &run);
    server.sql("CREATE TABLE clicks (id BIGINT, at TIMESTAMPTZ)").await;
    server
        .sql(
            "CREATE STREAMING TABLE load (auction BIGINT, bidder BIGINT, date_time TIMESTAMP, WATERMARK FOR date_time AS date_time - INTERVAL '1 second')
               WITH (connector = 'nexmark', table = 'bid', rate = 2000);
             CREATE STREAMING VIEW l1 AS SELECT auction, count(*) AS n FROM load GROUP BY auction;
             CREATE STREAMING VIEW l2 AS SELECT bidder, count(*) AS n, max(date_time) AS newest FROM load GROUP BY bidder;
             CREATE STREAMING VIEW l3 AS SELECT window_start, count(*) AS n FROM TUMBLE(load, date_time, INTERVAL '1 second') GROUP BY window_start, window_end;",
        )
        .await;
    let folder = run.join("in");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("events.jsonl");
    std::fs::write(&file, "").expect("a file");
    server
        .sql(&format!(
            "CREATE STREAMING TABLE events (id BIGINT) WITH (connector = 'files', path = '{}', mode = 'watch') FORMAT PLAIN ENCODE JSON;
             CREATE STREAMING VIEW seen AS SELECT id FROM events",
            file.display()
        ))
        .await;
    let client = server.connect().await;
    let poll = client.prepare("SELECT max(id) FROM seen").await.expect("prepared");
    tokio::time::sleep(Duration::from_secs(3)).await;
    // What the streams alone cost, before anybody asks.
    let (before, _) = usage(&server);
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let streams = (usage(&server).0 - before) / start.elapsed().as_secs_f64();
    let (before, _) = usage(&server);
    let start = Instant::now();
    let mut waits = Vec::new();
    for id in 0..120_i64 {
        use std::io::Write;
        let written = Instant::now();
        let mut out = std::fs::File::options().append(true).open(&file).expect("the file");
        writeln!(out, "{{\"id\":{id}}}").expect("a line");
        loop {
            let row = client.query_one(&poll, &[]).await.expect("an answer");
            if row.get::<_, Option<i64>>(0) >= Some(id) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        waits.push(written.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(37)).await;
    }
    let cpu = (usage(&server).0 - before) / start.elapsed().as_secs_f64();
    waits.sort_by(f64::total_cmp);
    let at = |quantile: f64| waits[((waits.len() - 1) as f64 * quantile) as usize];
    println!(
        "| latency, checkpoint_interval {interval} | p50 {:.0} ms | p99 {:.0} ms | {streams:.3} CPU-s/s, {cpu:.2} with the poller's queries |",
        at(0.5),
        at(0.99)
    );
}

/// Start to the first answer, idle memory, `kill -9` to the first new commit.
async fn start_and_restart(folder: &Path) {
    let run = run_directory("bench");
    let begin = Instant::now();
    let mut server = Freshet::start(run.join("data").to_str().expect("text"), &[], &run);
    server.value("SELECT 1").await;
    println!("| start to first answer | {:.0} ms |", begin.elapsed().as_secs_f64() * 1e3);
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("| idle, peak resident | {:.0} MB |", usage(&server).1);
    server
        .sql(&format!(
            "CREATE STREAMING TABLE bid ({BID}) WITH (connector = 'files', path = '{}/*.jsonl') FORMAT PLAIN ENCODE JSON;
             CREATE STREAMING VIEW job AS {Q17}",
            folder.display()
        ))
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let epoch = server.value("SELECT epoch FROM freshet.jobs WHERE name = 'job'").await;
    server.kill();
    let begin = Instant::now();
    server.restart();
    while server.value("SELECT epoch FROM freshet.jobs WHERE name = 'job'").await.parse::<u64>().unwrap_or(0)
        <= epoch.parse::<u64>().unwrap_or(0)
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("| kill -9 to the first new commit | {:.0} ms |", begin.elapsed().as_secs_f64() * 1e3);
}

#[tokio::main]
async fn main() {
    let mut names = Vec::new();
    let (mut events, mut data) = (10_000_000, std::env::temp_dir().join("freshet-bench"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--events" => events = arguments.next().and_then(|n| n.parse().ok()).expect("--events takes a number"),
            "--data" => data = arguments.next().map(PathBuf::from).expect("--data takes a folder"),
            name => names.push(name.to_owned()),
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let (folder, rows) = bids(&data, events);
    println!("| job | k rows/s | k rows per CPU-s | wall s | CPU s | peak MB |\n|---|---|---|---|---|---|");
    let files = format!(
        "CREATE STREAMING TABLE bid ({BID}) WITH (connector = 'files', path = '{}/*.jsonl') FORMAT PLAIN ENCODE JSON",
        folder.display()
    );
    for (name, output, query) in FILE_JOBS {
        if wanted(name) {
            measure(name, output, query, &files, rows).await;
        }
    }
    if KAFKA_JOBS.iter().any(|(name, ..)| wanted(name)) && need(&["kafka"]) {
        let topic = "bids";
        Kafka::create_topic(topic, 2).await;
        for part in 0..2 {
            let text = std::fs::read(folder.join(format!("part-{part}.jsonl"))).expect("the generated file");
            let messages = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(1_840_000);
            Kafka::produce(topic, messages.map(|line| (part, line)));
        }
        let rows = rows.min(3_680_000.0);
        let source = format!(
            "CREATE STREAMING TABLE bid ({BID}) WITH (connector = 'kafka', topic = '{topic}', properties.bootstrap.server = '{}', \
             scan.startup.mode = 'earliest', scan.bounded.mode = 'latest') FORMAT PLAIN ENCODE JSON",
            Kafka::shared()
        );
        for (name, output, query) in KAFKA_JOBS {
            if wanted(name) {
                measure(name, output, query, &source, rows).await;
            }
        }
    }
    if wanted("start") {
        start_and_restart(&folder).await;
    }
    if wanted("latency") {
        latency("250ms").await;
        latency("50ms").await;
    }
}
