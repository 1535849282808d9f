//! Against a small server in the test: resumption, what comes twice, a change of host, frames that are not whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::LazyLock;

use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::*;
use crate::source::generator::bluesky::{Event, Generator, SEQ_BASE, Settings};
use crate::source::testing::{Taken, connector, node};

/// How a server misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Closes each connection after so many frames.
    drop_after: Option<u64>,
    /// Goes back by so many events beyond what is asked.
    replay: u64,
    /// Sends a frame that does not parse behind every so many events.
    garbage_every: Option<u64>,
    /// Only knows version 1.
    only_v1: bool,
    /// Shift of this host's sequence numbers.
    seq_shift: u64,
    /// Answers 400 CursorTooOld to sequence cursors.
    too_old: bool,
    /// Compresses with a dictionary, and cuts one frame in 50 short.
    zstd: bool,
    /// Says nothing more after so many frames of the first connection.
    silent_after: Option<u64>,
}

/// A server of the first `events` events of the generator.
struct Server {
    address: SocketAddr,
    /// What was asked for, connection by connection.
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(events: u64, faults: Faults) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, events, faults, Arc::clone(&seen)));
            }
        });
        Server { address, asked, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

/// A dictionary of the generator's own frames.
static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let generator = Generator::new(Settings::default());
    let samples: Vec<String> = (0..1000).map(|number| generator.at(number).v2()).collect();
    zstd::dict::from_samples(&samples, 16 << 10).expect("enough samples")
});

/// Answers a plain request for the dictionary; true when it was one.
async fn answer_dictionary(stream: &mut tokio::net::TcpStream) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut head = [0; 128];
    let peeked = stream.peek(&mut head).await.unwrap_or(0);
    if !String::from_utf8_lossy(&head[..peeked]).contains("getZstdDictionary") {
        return false;
    }
    let _ = stream.read(&mut [0; 4096]).await;
    let body = &*DICTIONARY;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(&[answer.as_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
    true
}

async fn serve(mut stream: tokio::net::TcpStream, events: u64, faults: Faults, seen: Arc<Mutex<Vec<String>>>) {
    if faults.zstd && answer_dictionary(&mut stream).await {
        return;
    }
    let mut query = String::new();
    #[allow(clippy::result_large_err, reason = "the callback's type is the library's")]
    let accept = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        query = request.uri().to_string();
        let refused = |status: u16, body: &str| {
            let response = tokio_tungstenite::tungstenite::http::Response::builder().status(status).body(Some(body.to_owned()));
            response.expect("a valid response")
        };
        if faults.only_v1 && query.starts_with("/xrpc") {
            return Err(refused(404, "no such method"));
        }
        let cursor = cursor(&query);
        if faults.too_old && cursor.is_some_and(|cursor| cursor < 1_000_000_000_000_000) {
            return Err(refused(400, r#"{"error":"CursorTooOld"}"#));
        }
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, accept).await else { return };
    let connection = {
        let mut seen = seen.lock();
        seen.push(query.clone());
        seen.len()
    };
    let compressed = query.contains("zstdDictionary=");
    let mut compressor = compressed.then(|| zstd::bulk::Compressor::with_dictionary(3, &DICTIONARY).expect("a dictionary"));
    let generator = Generator::new(Settings::default());
    let start = match cursor(&query) {
        None => 0,
        Some(seq) if seq < 1_000_000_000_000_000 => (seq as u64 - faults.seq_shift).saturating_sub(SEQ_BASE),
        Some(time_us) => generator.seek(time_us),
    };
    let v2 = query.starts_with("/xrpc");
    let mut sent = 0;
    for number in start.saturating_sub(faults.replay)..events {
        let mut event: Event = generator.at(number);
        event.seq += faults.seq_shift;
        let frame = if v2 { Some(event.v2()) } else { event.v1(false) };
        let Some(frame) = frame else { continue };
        let message = if let Some(compressor) = &mut compressor {
            let bytes = compressor.compress(frame.as_bytes()).expect("compressible");
            if number % 50 == 49 {
                let _ = socket.send(Message::binary(bytes[..bytes.len() / 2].to_vec())).await;
            }
            Message::binary(bytes)
        } else {
            Message::text(frame)
        };
        if socket.send(message).await.is_err() {
            return;
        }
        if faults.garbage_every.is_some_and(|every| number % every == 0) {
            let garbage = if number % 2 == 0 {
                Message::text(format!("{{\"cut\":{number}"))
            } else {
                Message::binary(b"not zstd".to_vec())
            };
            let _ = socket.send(garbage).await;
        }
        sent += 1;
        if faults.drop_after == Some(sent) {
            return;
        }
        if connection == 1 && faults.silent_after == Some(sent) {
            break;
        }
    }
    // Nothing more: stays open and answers.
    while let Some(Ok(_)) = socket.next().await {}
}

fn cursor(query: &str) -> Option<i64> {
    let (_, rest) = query.split_once("cursor=")?;
    rest.split('&').next()?.parse().ok()
}

fn reader_node(endpoints: &str, more: &[(&str, &str)]) -> SourceNode {
    let base = [("endpoints", endpoints), ("scan.startup.mode", "earliest"), ("compression", "none")];
    let columns = frame::own_columns();
    let wanted = columns.into_iter().filter(|column| ["event_id", "time_us", "record"].contains(&column.field.name().as_str()));
    node(connector("jetstream", &[&base, more].concat()), wanted.collect(), None)
}

fn ids(taken: &Taken) -> Vec<String> {
    let rows = taken.batches.iter().flat_map(|(_, rows)| {
        let column = rows.column_by_name("event_id").expect("asked for");
        (0..rows.num_rows())
            .map(|row| arrow::util::display::array_value_to_string(column, row).expect("text"))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

fn expected(events: u64, v1: bool) -> BTreeSet<String> {
    let generator = Generator::new(Settings::default());
    (0..events)
        .map(|number| generator.at(number))
        .filter(|event| !v1 || event.v1(false).is_some())
        .map(|event| event.event_id())
        .collect()
}

/// All events exactly once.
fn check_complete(taken: &Taken, events: u64, v1: bool) {
    let found = ids(taken);
    let set: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(found.len(), set.len(), "rows that came twice");
    assert_eq!(set, expected(events, v1));
}

#[test]
fn dropped_connections_and_replays_lose_and_double_nothing() {
    let faults = Faults { drop_after: Some(700), replay: 50, garbage_every: Some(97), ..Faults::default() };
    let server = Server::start(2000, faults);
    let node = reader_node(&server.url(), &[]);
    let mut taken = Taken::default();
    let mut reader = JetstreamReader::open(&node, &BTreeMap::new()).expect("valid options");
    taken.until(&mut reader, |taken| taken.rows() == 2000 && taken.progress.contains_key(SPLIT));
    check_complete(&taken, 2000, false);
    assert!(taken.progress[SPLIT].reconnects >= 1 && taken.progress[SPLIT].duplicates > 0);
    assert!(taken.errors.iter().all(|error| matches!(error.sqlstate, "22P02" | "22021") && !error.payload.is_empty()));
    assert!(taken.errors.len() >= 21);
}

#[test]
fn a_restart_goes_on_behind_the_checkpoint() {
    for only_v1 in [false, true] {
        let server = Server::start(1500, Faults { only_v1, garbage_every: Some(100), ..Faults::default() });
        let node = reader_node(&server.url(), &[]);
        let total = expected(1500, only_v1).len();
        let mut taken = Taken::default();
        let mut reader = JetstreamReader::open(&node, &BTreeMap::new()).expect("valid options");
        taken.until(&mut reader, |taken| taken.rows() >= 1);
        drop(reader);
        let mut reader = JetstreamReader::open(&node, &taken.offsets).expect("a valid offset");
        taken.until(&mut reader, |taken| taken.rows() == total && taken.errors.len() >= 15);
        check_complete(&taken, 1500, only_v1);
        let places: BTreeSet<&str> = taken.errors.iter().map(|error| error.offset.as_str()).collect();
        assert_eq!((taken.errors.len(), places.len()), (15, 15));
        let asked = server.asked.lock().clone();
        assert_eq!(asked.last().expect("connections").starts_with("/subscribe"), only_v1);
    }
}

#[test]
fn another_host_goes_on_by_time_without_doubling() {
    let first = Server::start(1000, Faults { drop_after: Some(1000), ..Faults::default() });
    let second = Server::start(2500, Faults { seq_shift: 5_000_000, ..Faults::default() });
    let node = reader_node(&first.url(), &[]);
    let mut taken = Taken::default();
    let mut reader = JetstreamReader::open(&node, &BTreeMap::new()).expect("valid options");
    taken.until(&mut reader, |taken| taken.rows() == 1000);
    drop(reader);
    drop(first);
    // The offset is of a run with one host; only its ids are missing, as that host needed none.
    let both = reader_node(&format!("ws://127.0.0.1:9,{}", second.url()), &[("cursor.rewind", "10s")]);
    let mut ids_known = taken.offsets.clone();
    let mut recent = String::new();
    let generator = Generator::new(Settings::default());
    let last = generator.at(999).time_us;
    for event in (0..1000).map(|number| generator.at(number)) {
        recent += &format!("{:x}:{:x} ", last - event.time_us, hash(event.event_id().as_bytes()));
    }
    ids_known.get_mut(SPLIT).expect("an offset")["recent"] = recent.into();
    let mut reader = JetstreamReader::open(&both, &ids_known).expect("a valid offset");
    taken.until(&mut reader, |taken| taken.rows() == 2500);
    check_complete(&taken, 2500, false);
    assert!(cursor(&second.asked.lock()[0]).is_some_and(frame::is_micros));
}

#[test]
fn a_cursor_that_is_too_old_is_an_error_or_a_gap() {
    let server = Server::start(500, Faults { too_old: true, ..Faults::default() });
    let offset = json!({ "protocol": "v2", "host": server.url(), "seq": SEQ_BASE + 10, "time_us": Settings::default().start_us, "floor": 0 });
    let offsets = BTreeMap::from([(SPLIT.to_owned(), offset)]);
    let mut reader = JetstreamReader::open(&reader_node(&server.url(), &[]), &offsets).expect("a valid offset");
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        assert!(Instant::now() < deadline, "no error came");
        if let Err(error) = reader.next(Duration::from_millis(50)) {
            break error;
        }
    };
    assert!(matches!(error, Error::OffsetLost { .. }) && error.to_string().contains("cursor.too_old"), "{error}");
    let node = reader_node(&server.url(), &[("cursor.too_old", "clamp")]);
    let mut taken = Taken::default();
    let mut reader = JetstreamReader::open(&node, &offsets).expect("a valid offset");
    taken.until(&mut reader, |taken| taken.rows() > 0 && taken.progress.get(SPLIT).is_some_and(|progress| progress.gaps == 1));
}

#[test]
fn compressed_frames_are_read_and_cut_ones_set_aside() {
    let server = Server::start(1000, Faults { zstd: true, ..Faults::default() });
    let mut node = reader_node(&server.url(), &[]);
    node.connector.options.insert("compression".into(), "zstd".into());
    let mut taken = Taken::default();
    let mut reader = JetstreamReader::open(&node, &BTreeMap::new()).expect("valid options");
    taken.until(&mut reader, |taken| taken.rows() == 1000 && taken.errors.len() == 20);
    check_complete(&taken, 1000, false);
    assert!(taken.errors.iter().all(|error| error.sqlstate == "22021"));
    assert!(server.asked.lock()[0].contains("zstdDictionary="));
}

#[test]
fn a_silent_connection_is_given_up() {
    let server = Server::start(300, Faults { silent_after: Some(100), ..Faults::default() });
    let node = reader_node(&server.url(), &[("stall_timeout", "1s")]);
    let mut taken = Taken::default();
    let mut reader = JetstreamReader::open(&node, &BTreeMap::new()).expect("valid options");
    taken.until(&mut reader, |taken| taken.rows() == 300);
    check_complete(&taken, 300, false);
    assert!(server.asked.lock().len() >= 2);
}

#[test]
fn nobody_at_home_is_told() {
    let error = probe(&reader_node("ws://127.0.0.1:9", &[])).expect_err("nothing listens there");
    assert!(matches!(error, Error::Unreachable { .. }) && error.hint().is_some(), "{error}");
    let error = check_options(&connector("jetstream", &[("endpoints", "http://x")])).expect_err("no websocket");
    assert_eq!(error.sqlstate(), "22023");
    let seconds = connector("jetstream", &[("scan.startup.mode", "cursor"), ("scan.startup.cursor", "1782864000000")]);
    assert!(check_options(&seconds).is_err(), "milliseconds are no cursor");
}
