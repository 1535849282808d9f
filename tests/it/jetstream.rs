//! The Jetstream source against hosts that misbehave: whatever they do, and whenever the server is killed, the stored
//! stream has every event of their log exactly once, and what is no event is in `freshet.errors`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use engine::source::generator::bluesky::{Event, Generator, Kind, Settings};
use server::simulator::{Fault, FaultKind, FaultPlan, Simulator, SimulatorOptions};
use tests::{Freshet, Rows, run_directory};

const EVENTS: u64 = 9_000;

/// An invented log that lies in the past, so that it comes as fast as it is taken.
fn log(seed: u64) -> Settings {
    Settings { seed, odd_records: 0.001, broken_frames: 0.002, ..Settings::default() }
}

/// What one host has of the log, kept for ever.
fn host(settings: &Settings, events: u64, faults: FaultPlan) -> SimulatorOptions {
    SimulatorOptions {
        settings: settings.clone(),
        events: Some(events),
        lookback: Duration::from_secs(10 * 365 * 86_400),
        faults,
        ..SimulatorOptions::default()
    }
}

/// Something goes wrong on every connection; each one gets a few hundred events further. With `rewind` the stream also
/// goes back, unannounced.
fn faults(rewind: bool) -> FaultPlan {
    let fault = |after, kind| Fault { after, kind };
    let ends = [
        FaultKind::Drop,
        FaultKind::Close(1001),
        FaultKind::TooSlow,
        FaultKind::Stall(Duration::from_secs(3)),
        FaultKind::Drop,
        FaultKind::Close(1008),
    ];
    // The first one is the probe of CREATE.
    let connections = (0..40).map(|number| {
        let mut faults = vec![
            fault(50, FaultKind::Garbage),
            fault(70, FaultKind::TruncatedZstd),
            fault(100, FaultKind::Duplicate(3)),
            fault(900, ends[number % ends.len()].clone()),
        ];
        faults.extend(rewind.then(|| fault(200, FaultKind::Rewind(60))));
        faults
    });
    FaultPlan { connections: connections.collect() }
}

/// `event_id` as its documentation has it: the same on every host and in both versions of the protocol.
fn event_id(event: &Event) -> String {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    if event.kind == Kind::Commit {
        let parts = [
            event.did.clone(),
            text(event.collection),
            text(event.rkey.as_deref()),
            text(event.rev.as_deref()),
            text(event.operation),
        ];
        return parts.join("|");
    }
    let body: serde_json::Value = serde_json::from_str(event.payload.as_deref().unwrap_or("null")).expect("a JSON body");
    let number = body["seq"].as_i64().unwrap_or(event.time_us);
    format!("{}|{}|{number}", event.did, event.kind.name())
}

/// The ids of all whole events, and the frames of those that are cut in the middle.
struct Expected {
    ids: BTreeSet<String>,
    broken: BTreeSet<String>,
}

fn expected(settings: &Settings, frame: impl Fn(&Event) -> Option<String>) -> Expected {
    let generator = Generator::new(settings.clone());
    let mut expected = Expected { ids: BTreeSet::new(), broken: BTreeSet::new() };
    for number in 0..EVENTS {
        let event = generator.at(number);
        match (frame(&event), event.broken) {
            (Some(frame), true) => drop(expected.broken.insert(frame)),
            (Some(_), false) => assert!(expected.ids.insert(event_id(&event)), "ids tell the events of the log apart"),
            (None, _) => {}
        }
    }
    assert!(!expected.broken.is_empty(), "the log has broken frames");
    expected
}

fn create(endpoints: &str, more: &str) -> String {
    format!(
        "CREATE STREAMING TABLE events (*, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
         WITH (connector = 'jetstream', endpoints = '{endpoints}', scan.startup.mode = 'earliest', stall_timeout = '1 second'{more});
         CREATE STREAMING VIEW by_collection AS {BY_COLLECTION};
         CREATE STREAMING VIEW by_window AS {BY_WINDOW} EMIT ON UPDATE;"
    )
}

const BY_COLLECTION: &str =
    "SELECT collection, operation, count(*) AS n, count(DISTINCT did) AS people FROM events GROUP BY collection, operation";
const BY_WINDOW: &str = "SELECT window_start, kind, count(*) AS n, min(event_id) AS first
     FROM TUMBLE(events, event_time, INTERVAL '10 seconds') GROUP BY window_start, kind";

/// Waits until a number is reached.
async fn reach(server: &Freshet, text: &str, number: u64) {
    let start = Instant::now();
    loop {
        let now: u64 = server.value(text).await.parse().expect("a number");
        if now >= number {
            return;
        }
        if start.elapsed() > Duration::from_secs(120) {
            let jobs = server.sql("SELECT job, split, offset, rows, reconnects, last_error FROM freshet.splits").await;
            panic!("{text}: {now} of {number} after two minutes\n{jobs:?}\n{}", server.log());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const STORED: &str = "SELECT count(*) FROM events";
const SET_ASIDE: &str = "SELECT count(*) FROM freshet.errors";

/// Kills the server each time it has come somewhat further, until it has `until` of the events.
async fn kill_on_the_way(server: &mut Freshet, until: u64) {
    let mut stored: u64 = server.value(STORED).await.parse().expect("a number");
    while stored < until {
        stored = (stored + 1_500).min(until);
        reach(server, STORED, stored).await;
        server.kill();
        server.restart();
    }
}

/// The stored stream is the log, and the views are its views.
async fn check(server: &Freshet, expected: &Expected) {
    reach(server, STORED, expected.ids.len() as u64).await;
    for job in ["events", "by_collection", "by_window"] {
        server.wait(job).await;
    }
    let rows = server.sql("SELECT event_id FROM events ORDER BY event_id COLLATE \"C\"").await;
    let stored: Vec<&str> = rows.iter().map(|row| row[0].as_deref().expect("every event has an id")).collect();
    let once: BTreeSet<&str> = stored.iter().copied().collect();
    let missing: Vec<_> = expected.ids.iter().filter(|id| !once.contains(id.as_str())).take(5).collect();
    assert!(missing.is_empty(), "events are missing: {missing:?}");
    assert_eq!(stored.len(), once.len(), "events are stored twice");
    assert_eq!(once.len(), expected.ids.len(), "events are stored that nobody sent");
    let sorted = |mut rows: Rows| {
        rows.sort();
        rows
    };
    for (view, query) in [("by_collection", BY_COLLECTION), ("by_window", BY_WINDOW)] {
        let columns = if view == "by_window" { "window_start, kind, n, first" } else { "collection, operation, n, people" };
        let kept = sorted(server.sql(&format!("SELECT {columns} FROM {view}")).await);
        assert_eq!(kept, sorted(server.sql(query).await), "{view} is what its query gives over the stored stream");
    }
}

/// The broken frames of the log that were set aside, in order.
async fn broken_frames(server: &Freshet) -> Vec<String> {
    let garbage = "{\"did\":\"did:plc:half";
    let rows = server
        .sql("SELECT convert_from(payload, 'UTF8') FROM freshet.errors WHERE job = 'public.events' AND sqlstate <> '22021' ORDER BY 1")
        .await;
    rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).filter(|frame| frame != garbage).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_2_with_faults_and_kills() {
    let settings = log(11);
    let simulator = Simulator::start(host(&settings, EVENTS, faults(false))).await.expect("a free port");
    let run = run_directory("jetstream-v2");
    let mut server = start(&run);
    server.sql(&create(&format!("ws://{}", simulator.address()), "")).await;
    // Garbage of a connection is not sent again: it is kept when it is committed before the first kill.
    reach(&server, "SELECT count(DISTINCT sqlstate) FROM freshet.errors", 2).await;
    kill_on_the_way(&mut server, EVENTS * 3 / 4).await;
    let expected = expected(&settings, |event| Some(event.v2()));
    check(&server, &expected).await;
    // On one host of version 2 the place of a frame is known to the frame: not one comes twice.
    let kept = broken_frames(&server).await;
    let once: BTreeSet<String> = kept.iter().cloned().collect();
    assert!(once == expected.broken, "{} of {} broken frames are kept", once.len(), expected.broken.len());
    assert_eq!(kept.len(), once.len(), "broken frames are kept twice");
    let reasons = server.sql("SELECT DISTINCT sqlstate, stage FROM freshet.errors WHERE job = 'public.events' ORDER BY 1").await;
    assert!(reasons.len() >= 2 && reasons.iter().all(|row| row[1].as_deref() == Some("decode")), "{reasons:?}");
    assert!(simulator.connections() > 10, "the faults happened: {}", simulator.connections());
    server.restart();
    check(&server, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_1_with_faults_and_kills() {
    let settings = log(12);
    let simulator = Simulator::start(host(&settings, EVENTS, faults(true))).await.expect("a free port");
    let run = run_directory("jetstream-v1");
    let dictionary = run.join("dictionary");
    std::fs::write(&dictionary, fetch_dictionary(&simulator.address().to_string())).expect("a file");
    let mut server = start(&run);
    let more = format!(", protocol = 'v1', zstd.dictionary.file = '{}'", dictionary.display());
    server.sql(&create(&format!("ws://{}", simulator.address()), &more)).await;
    reach(&server, SET_ASIDE, 2).await;
    kill_on_the_way(&mut server, EVENTS * 3 / 4).await;
    let expected = expected(&settings, |event| event.v1(true));
    check(&server, &expected).await;
    let kept: BTreeSet<String> = broken_frames(&server).await.into_iter().collect();
    assert!(kept == expected.broken, "{} of {} broken frames are kept", kept.len(), expected.broken.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_host_goes_on_where_one_ends() {
    let settings = log(13);
    // The first host has the first half; the second numbers and times the same events otherwise.
    let first = Simulator::start(host(&settings, EVENTS / 2, faults(true))).await.expect("a free port");
    let whole = host(&settings, EVENTS, FaultPlan::default());
    let second = SimulatorOptions { seq_offset: 1_000_000, time_offset_us: 120_000, ..whole };
    let second = Simulator::start(second).await.expect("a free port");
    let run = run_directory("jetstream-hosts");
    let mut server = start(&run);
    let endpoints = format!("ws://{},ws://{}", first.address(), second.address());
    server.sql(&create(&endpoints, "")).await;
    kill_on_the_way(&mut server, EVENTS / 3).await;
    drop(first);
    kill_on_the_way(&mut server, EVENTS * 3 / 4).await;
    let expected = expected(&settings, |event| Some(event.v2()));
    check(&server, &expected).await;
    let hosts = server.value("SELECT count(DISTINCT host) FROM events").await;
    assert_eq!(hosts, "2", "both hosts were read");
}

fn start(run: &Path) -> Freshet {
    Freshet::start(run.join("data").to_str().expect("text"), &[("checkpoint_interval", "50ms")], run)
}

/// What clients of version 1 take from elsewhere.
fn fetch_dictionary(address: &str) -> Vec<u8> {
    let mut connection = std::net::TcpStream::connect(address).expect("the simulator listens");
    let path = "/xrpc/network.bsky.jetstream.getZstdDictionary";
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("an answer");
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    answer.split_off(head + 4)
}
