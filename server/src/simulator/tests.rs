//! The simulator as a client sees it.

use std::time::Duration;

use futures::StreamExt;
use tokio_tungstenite::tungstenite::{self, Message};

use super::subscription::{Cursor, Filter, UpdateError, parse_update, parse_v1, parse_v2};
use super::*;

const START_US: i64 = 1_767_225_600_000_000;
const LONG: Duration = Duration::from_secs(1_000_000_000);

/// A log of 200 events that has long been whole.
fn options() -> SimulatorOptions {
    let settings = Settings { start_us: START_US, ..Settings::default() };
    SimulatorOptions { settings, events: Some(200), lookback: LONG, ..SimulatorOptions::default() }
}

fn log() -> Generator {
    Generator::new(options().settings)
}

async fn start(options: SimulatorOptions) -> Simulator {
    Simulator::start(options).await.expect("a free port")
}

/// The first `count` frames, or all until the end.
async fn read(simulator: &Simulator, path: &str, count: usize) -> Result<Vec<Message>, tungstenite::Error> {
    let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{}{path}", simulator.address())).await?;
    let data = socket.filter_map(|message| async { message.ok().filter(|m| m.is_text() || m.is_binary()) });
    Ok(data.take(count).collect().await)
}

fn text(message: &Message) -> &str {
    message.to_text().expect("text")
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
    for query in [
        "kinds=post",
        "collections=nonsense",
        "collections=a.*",
        "dids=alice",
        "wantedCollections=app.bsky.feed.post",
        "compress=true",
    ] {
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
    let expected: Vec<String> = (0..200).map(|number| log().at(number).v2()).collect();
    assert_eq!(v2.iter().map(text).collect::<Vec<_>>(), expected);
    // What only the second protocol has is left out of the first.
    let expected: Vec<String> = (0..200).filter_map(|number| log().at(number).v1(true)).collect();
    let v1 = read(&simulator, &format!("/subscribe?cursor={START_US}"), expected.len()).await.expect("served");
    assert_eq!(v1.iter().map(text).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn filters_leave_out_what_is_not_wanted() {
    let simulator = start(options()).await;
    let likes = |number: &u64| log().at(*number).collection == Some("app.bsky.feed.like");
    let expected: Vec<String> = (0..200).filter(likes).map(|number| log().at(number).v2()).collect();
    let path = format!("{V2}?cursor={START_US}&kinds=commit&collections=app.bsky.feed.like");
    let found = read(&simulator, &path, expected.len()).await.expect("served");
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_cursor_is_inclusive_and_survives_a_restart() {
    drop(start(options()).await);
    let again = start(options()).await;
    let seq = log().at(49).seq;
    let rest = read(&again, &format!("{V2}?cursor={seq}"), 151).await.expect("served");
    assert_eq!((text(&rest[0]), rest.len()), (log().at(49).v2().as_str(), 151));
}

#[tokio::test]
async fn hosts_have_their_own_numbers_and_times() {
    let simulator = start(SimulatorOptions { seq_offset: 1_000_000, time_offset_us: 7, ..options() }).await;
    let mut event = log().at(0);
    (event.seq, event.time_us) = (event.seq + 1_000_000, event.time_us + 7);
    let found = read(&simulator, &format!("{V2}?cursor={START_US}"), 1).await.expect("served");
    assert_eq!(text(&found[0]), event.v2());
}

#[tokio::test]
async fn old_cursors_are_refused_or_moved() {
    let settings = Settings { start_us: clock::now_us() - 10_000_000, ..Settings::default() };
    let simulator = start(SimulatorOptions { settings, lookback: Duration::from_secs(5), events: None, ..options() }).await;
    let refused = read(&simulator, &format!("{V2}?cursor=1"), 1).await.expect_err("too old");
    let tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status(), 400);
    assert!(String::from_utf8_lossy(response.body().as_ref().expect("a body")).contains("CursorTooOld"));
    let moved = read(&simulator, &format!("{V2}?cursor={START_US}"), 2).await.expect("served");
    assert!(text(&moved[0]).contains("OutdatedCursor"));
    assert!(text(&moved[1]).contains("subscribeEvents#"));
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
    let bytes = &answer[head..];
    let id = dictionary::id(bytes);
    let plain = read(&simulator, &format!("{V2}?cursor={START_US}"), 20).await.expect("served");
    let packed = read(&simulator, &format!("{V2}?cursor={START_US}&zstdDictionary={id}"), 20).await.expect("served");
    let mut decompressor = zstd::bulk::Decompressor::with_dictionary(bytes).expect("a dictionary");
    assert_eq!(packed.len(), 20);
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
    let path = format!("{V2}?cursor={START_US}");
    let frames: Vec<String> = (0..200).map(|number| log().at(number).v2()).collect();
    let numbers = |messages: &[Message]| -> Vec<Option<usize>> {
        messages.iter().map(|message| frames.iter().position(|frame| frame == text(message))).collect()
    };
    let known = |numbers: &[usize]| numbers.iter().map(|number| Some(*number)).collect::<Vec<_>>();
    let first = numbers(&read(&simulator, &path, 100).await.expect("served"));
    assert_eq!(first, [known(&[0, 1, 2, 3, 4, 4, 4, 5]), vec![None], known(&[6])].concat());
    let second = numbers(&read(&simulator, &path, 16).await.expect("served"));
    assert_eq!(second, known(&[0, 1, 4, 3, 2, 5, 6, 7, 8, 9, 6, 7, 8, 9, 10, 11]));
    let third = numbers(&read(&simulator, &path, 200).await.expect("served"));
    assert_eq!(third, known(&(0..200).collect::<Vec<_>>()));
    assert_eq!(simulator.connections(), 3);
}
