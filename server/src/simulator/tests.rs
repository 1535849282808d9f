use std::time::Duration;

use futures::StreamExt;
use tokio_tungstenite::tungstenite::{self, Message};

use super::subscription::{Cursor, Filter, UpdateError, parse_update, parse_v1, parse_v2};
use super::*;

/// A post of one of ten people, every tenth event an account's.
struct Posts;

impl Feed for Posts {
    fn event(&self, number: u64, time_us: i64) -> String {
        let did = format!("did:plc:person{:018}", number % 10);
        if number % 10 == 9 {
            return format!("{{\"did\":\"{did}\",\"time_us\":{time_us},\"kind\":\"account\",\"account\":{{\"active\":true,\"did\":\"{did}\",\"seq\":{number}}}}}");
        }
        let collection = if number.is_multiple_of(2) { "app.bsky.feed.post" } else { "app.bsky.graph.follow" };
        format!(
            "{{\"did\":\"{did}\",\"time_us\":{time_us},\"kind\":\"commit\",\"commit\":{{\"rev\":\"r{number}\",\"operation\":\"create\",\
             \"collection\":\"{collection}\",\"rkey\":\"k{number}\",\"record\":{{\"text\":\"number {number} \\ud800\"}},\"cid\":\"c{number}\"}}}}"
        )
    }
}

const START_US: i64 = 1_767_225_600_000_000;
const LONG: Duration = Duration::from_secs(1_000_000_000);

fn options() -> SimulatorOptions {
    SimulatorOptions { start_us: START_US, rate: 100, events: Some(200), lookback: LONG, ..SimulatorOptions::default() }
}

async fn start(options: SimulatorOptions) -> Simulator {
    Simulator::start(options, Box::new(Posts)).await.expect("a free port")
}

/// The first `count` frames, or all until the end.
async fn read(simulator: &Simulator, path: &str, count: usize) -> Result<Vec<Message>, tungstenite::Error> {
    let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{}{path}", simulator.address())).await?;
    let data = socket.filter_map(|message| async { message.ok().filter(|m| m.is_text() || m.is_binary()) });
    Ok(data.take(count).collect().await)
}

fn json(message: &Message) -> serde_json::Value {
    // A lone surrogate is on its way to the client's error table; here it is only in the way.
    serde_json::from_str(&message.to_text().expect("text").replace("\\ud800", "")).expect("JSON")
}

const V2: &str = "/xrpc/network.bsky.jetstream.subscribeEvents";

#[test]
fn cursors() {
    let v2 = |query: &str| parse_v2(query, 7, 1000).map(|subscription| subscription.cursor);
    assert_eq!(v2("cursor=1000"), Ok(Some(Cursor::Seq(1000))));
    assert_eq!(v2("cursor=1000000000000000"), Ok(Some(Cursor::TimeUs(1_000_000_000_000_000))));
    assert_eq!(v2("cursor=999").expect_err("too old").error, "CursorTooOld");
    assert_eq!(v2("cursor=x").expect_err("no number").error, "InvalidRequest");
    let v1 = |query: &str, with_seq| parse_v1(query, false, with_seq).map(|subscription| subscription.cursor);
    assert_eq!(v1("cursor=999", true), Ok(Some(Cursor::Seq(999))));
    assert_eq!(v1("cursor=999", false), Ok(Some(Cursor::TimeUs(999))));
    assert_eq!(v1("", true), Ok(None));
}

#[test]
fn requests_are_checked_as_the_hosts_check_them() {
    for query in ["kinds=post", "collections=nonsense", "collections=a.*", "dids=alice", "wantedCollections=app.bsky.feed.post", "compress=true"] {
        assert_eq!(parse_v2(query, 7, 0).expect_err(query).error, "InvalidRequest");
    }
    assert_eq!(parse_v2("collections=app.bsky.feed.post&kinds=account", 7, 0).expect_err("no commits").error, "InvalidRequest");
    assert_eq!(parse_v2("zstdDictionary=8", 7, 0).expect_err("another").error, "UnknownZstdDictionary");
    assert!(parse_v2("zstdDictionary=7", 7, 0).expect("the one").zstd);
    assert!(parse_v1("compress=true", false, false).expect("valid").zstd);
    assert!(parse_v1("wantedCollections=app.*", false, false).is_ok());
    let many: String = (0..101).map(|n| format!("collections=a.b.c{n}&")).collect();
    assert!(parse_v2(&many, 7, 0).expect_err("too many").message.contains("too many"));
    let same: String = (0..101).map(|_| "collections=a.b.c&").collect();
    assert!(parse_v2(&same, 7, 0).is_ok(), "the same collection counts once");
}

#[test]
fn filters() {
    let filter = parse_v2("collections=app.bsky.feed.*&collections=app.bsky.graph.follow", 7, 0).expect("valid").filter;
    let cases = [
        ("commit", Some("app.bsky.feed.like"), true),
        ("commit", Some("app.bsky.feedlot.like"), false),
        ("commit", Some("app.bsky.graph.follow"), true),
        ("commit", Some("app.bsky.graph.block"), false),
        ("account", None, true),
    ];
    for (kind, collection, wanted) in cases {
        assert_eq!(filter.wants(kind, collection, "did:plc:a"), wanted, "{kind} {collection:?}");
    }
    let filter = parse_v2("kinds=commit&dids=did:plc:a", 7, 0).expect("valid").filter;
    assert!(filter.wants("commit", Some("x.y.z"), "did:plc:a"));
    assert!(!filter.wants("commit", Some("x.y.z"), "did:plc:b"));
    assert!(!filter.wants("account", None, "did:plc:a"));
    assert!(Filter::default().wants("identity", None, "did:plc:b"));
}

#[test]
fn updates() {
    let update = r#"{"type":"options_update","payload":{"wantedCollections":["app.bsky.feed.post"],"maxMessageSizeBytes":9}}"#;
    let (filter, limit) = parse_update(update).expect("valid").expect("an update");
    assert_eq!((filter.collections.len(), limit), (1, 9));
    assert_eq!(parse_update(r#"{"type":"hello","payload":1}"#), Ok(None));
    assert_eq!(parse_update("{"), Err(UpdateError::Envelope));
    assert_eq!(parse_update(r#"{"type":"options_update","payload":{"wantedDids":["alice"]}}"#), Err(UpdateError::Options));
}

#[tokio::test]
async fn both_protocols_read_one_log() {
    let simulator = start(options()).await;
    let v2 = read(&simulator, &format!("{V2}?cursor={START_US}"), 200).await.expect("served");
    let v1 = read(&simulator, &format!("/subscribe?cursor={START_US}"), 200).await.expect("served");
    assert_eq!((v2.len(), v1.len()), (200, 200));
    for (number, (new, old)) in v2.iter().zip(&v1).enumerate() {
        let (new, old) = (&json(new)["payload"], json(old));
        assert_eq!(new["seq"], old["cursor"]);
        assert_eq!(new["did"], old["did"]);
        assert_eq!(new["record"], old["commit"]["record"]);
        assert_eq!(new["account"], old["account"]);
        assert_eq!(old["time_us"], START_US + number as i64 * 10_000);
    }
    assert_eq!(json(&v2[1])["payload"]["time"], "2026-01-01T00:00:00.010000Z");
    assert!(v2[0].to_text().expect("text").contains("\\ud800"), "what is wrong in a record stays wrong");
}

#[tokio::test]
async fn a_cursor_is_inclusive_and_survives_a_restart() {
    let first = start(options()).await;
    let events = read(&first, &format!("{V2}?cursor={START_US}"), 50).await.expect("served");
    let seq = json(&events[49])["payload"]["seq"].as_u64().expect("a number");
    drop(first);
    let again = start(options()).await;
    let rest = read(&again, &format!("{V2}?cursor={seq}"), 151).await.expect("served");
    assert_eq!(rest.len(), 151);
    assert_eq!(rest[0], events[49]);
}

#[tokio::test]
async fn old_cursors_are_refused_or_moved() {
    // Everything lies in the past but the last second of the log.
    let recent = SimulatorOptions { start_us: clock::now_us() - 10_000_000, lookback: Duration::from_secs(5), events: None, ..options() };
    let simulator = start(recent).await;
    let refused = read(&simulator, &format!("{V2}?cursor=1"), 1).await.expect_err("too old");
    let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 400);
    assert!(String::from_utf8_lossy(response.body().as_ref().expect("a body")).contains("CursorTooOld"));
    let moved = read(&simulator, &format!("{V2}?cursor={START_US}"), 2).await.expect("served");
    assert_eq!(json(&moved[0])["payload"]["name"], "OutdatedCursor");
    assert_eq!(json(&moved[1])["payload"]["$type"], "network.bsky.jetstream.subscribeEvents#commit");
}

#[tokio::test]
async fn frames_are_compressed_with_the_dictionary() {
    let simulator = start(options()).await;
    let mut socket = tokio::net::TcpStream::connect(simulator.address()).await.expect("connects");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = "GET /xrpc/network.bsky.jetstream.getZstdDictionary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("read");
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let dictionary = &answer[head..];
    let id = frame::dictionary_id(dictionary);
    let plain = read(&simulator, &format!("{V2}?cursor={START_US}"), 20).await.expect("served");
    let packed = read(&simulator, &format!("{V2}?cursor={START_US}&zstdDictionary={id}"), 20).await.expect("served");
    let mut decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary).expect("a dictionary");
    for (plain, packed) in plain.iter().zip(&packed) {
        assert!(packed.is_binary() && packed.len() < plain.len());
        assert_eq!(decompressor.decompress(&packed.clone().into_data(), 1 << 20).expect("zstd"), plain.clone().into_data());
    }
}

#[tokio::test]
async fn faults_follow_the_script() {
    let fault = |after, kind| Fault { after, kind };
    let faults = FaultPlan {
        connections: vec![
            vec![fault(5, FaultKind::Duplicate(2)), fault(6, FaultKind::Garbage), fault(7, FaultKind::Drop)],
            vec![fault(2, FaultKind::Reorder(3)), fault(10, FaultKind::Rewind(4))],
        ],
    };
    let simulator = start(SimulatorOptions { faults, ..options() }).await;
    let path = format!("/subscribe?cursor={START_US}");
    let numbers = |messages: &[Message]| -> Vec<i64> {
        let time = |message: &Message| {
            let text = message.to_text().expect("text").replace("\\ud800", "");
            serde_json::from_str::<serde_json::Value>(&text).map_or(-1, |event| (event["time_us"].as_i64().unwrap_or(0) - START_US) / 10_000)
        };
        messages.iter().map(time).collect()
    };
    let first = read(&simulator, &path, 100).await.expect("served");
    assert_eq!(numbers(&first), [0, 1, 2, 3, 4, 4, 4, 5, -1, 6]);
    let second = read(&simulator, &path, 16).await.expect("served");
    assert_eq!(numbers(&second), [0, 1, 4, 3, 2, 5, 6, 7, 8, 9, 6, 7, 8, 9, 10, 11]);
    let third = read(&simulator, &path, 200).await.expect("served");
    assert_eq!(numbers(&third), (0..200).collect::<Vec<i64>>());
    assert_eq!(simulator.connections(), 3);
}
