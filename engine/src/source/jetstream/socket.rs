//! The connection: a thread of its own that always reads, answers pings at once and fills a bounded buffer.
//!
//! Back-pressure never reaches the socket, because a server drops who is slow to answer a ping. When the buffer is full
//! the connection is closed; after the reader has taken everything it is opened again at the reader's cursor: the server
//! is the buffer. A new connection always begins where the reader stands, so nothing is asked for twice without need.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use url::Url;

use super::options::{JetstreamOptions, Protocol, Start};
use crate::format::RECORD_BYTES_MAX;
use crate::source::generator::random::mix;
use crate::source::rows::wall_us;
use crate::{Error, Result};

/// Bytes of frames waiting for the reader.
const BUFFER_BYTES_MAX: usize = 64 << 20;
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A dictionary of the server, and the id it goes by.
pub(super) struct Dictionary {
    pub(super) id: u32,
    pub(super) bytes: Vec<u8>,
}

/// What the connection hands to the reader, in order.
pub(super) enum Delivery {
    /// A connection is open; the frames that follow are its.
    Connected(Arc<Connection>),
    /// A frame; compressed ones are still so.
    Frame { bytes: Vec<u8>, compressed: bool },
    /// The connection ended; a new one will follow.
    Lost(String),
    /// No connection can help.
    Fatal(Error),
}

/// What the reader has to know of a connection.
pub(super) struct Connection {
    pub(super) host: String,
    pub(super) protocol: Protocol,
    pub(super) dictionary: Option<Dictionary>,
    /// The cursor asked for.
    pub(super) cursor: Option<i64>,
    /// The host no longer had the cursor and went on with its oldest event.
    pub(super) clamped: bool,
}

/// Where the reader stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Cursor {
    pub(super) host: String,
    pub(super) protocol: Option<Protocol>,
    pub(super) seq: Option<i64>,
    pub(super) time_us: i64,
}

#[derive(Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    cursor: Option<Cursor>,
    /// The reader has not yet said where it stood when the last connection ended.
    cursor_due: bool,
    ended: bool,
}

/// Between the connection's thread and the reader.
#[derive(Default)]
pub(super) struct Buffer {
    queue: Mutex<Queue>,
    filled: Condvar,
    drained: Notify,
    stop: Notify,
    stopping: AtomicBool,
}

impl Buffer {
    /// The next delivery, waiting until the deadline.
    pub(super) fn take(&self, deadline: Instant) -> Option<Delivery> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(delivery) = queue.deliveries.pop_front() {
                if let Delivery::Frame { bytes, .. } = &delivery {
                    queue.bytes -= bytes.len();
                }
                return Some(delivery);
            }
            if queue.ended {
                return Some(Delivery::Fatal(Error::Unreachable { message: "the connection's thread ended".into(), hint: None }));
            }
            if self.filled.wait_until(&mut queue, deadline).timed_out() {
                return None;
            }
        }
    }

    /// The reader has taken in the end of a connection and stands at the cursor.
    pub(super) fn set_cursor(&self, cursor: Option<Cursor>) {
        let mut queue = self.queue.lock();
        (queue.cursor, queue.cursor_due) = (cursor, false);
        self.drained.notify_one();
    }

    fn push(&self, delivery: Delivery) {
        let mut queue = self.queue.lock();
        match &delivery {
            Delivery::Frame { bytes, .. } => queue.bytes += bytes.len(),
            Delivery::Lost(_) => queue.cursor_due = true,
            Delivery::Connected(_) | Delivery::Fatal(_) => {}
        }
        queue.deliveries.push_back(delivery);
        self.filled.notify_one();
    }

    fn is_full(&self) -> bool {
        self.queue.lock().bytes > BUFFER_BYTES_MAX
    }

    /// Waits until the reader has taken in all of the last connection; where it stands then.
    async fn wait_drained(&self) -> Option<Cursor> {
        loop {
            {
                let queue = self.queue.lock();
                if !queue.cursor_due || self.stopping.load(Ordering::Acquire) {
                    return queue.cursor.clone();
                }
            }
            self.drained.notified().await;
        }
    }
}

/// The running connection; ends when dropped.
pub(super) struct Socket {
    pub(super) buffer: Arc<Buffer>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Socket {
    pub(super) fn start(options: JetstreamOptions, cursor: Option<Cursor>) -> Result<Socket> {
        let buffer = Arc::new(Buffer::default());
        buffer.queue.lock().cursor = cursor;
        let fault = |error: std::io::Error| Error::Unreachable { message: format!("could not start I/O: {error}"), hint: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault)?;
        let shared = Arc::clone(&buffer);
        let run = move || {
            // Told to the reader even when the thread panics.
            let _end = EndOnDrop(Arc::clone(&shared));
            runtime.block_on(async {
                tokio::select! {
                    () = run(&options, &shared) => {}
                    () = shared.stop.notified() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("jetstream".into()).spawn(run).map_err(fault)?;
        Ok(Socket { buffer, thread: Some(thread) })
    }
}

struct EndOnDrop(Arc<Buffer>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.filled.notify_one();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.buffer.stopping.store(true, Ordering::Release);
        self.buffer.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Why a connection could not be opened.
enum Refusal {
    /// Try again later, perhaps elsewhere.
    Retry(String),
    /// The host does not speak this version.
    OtherProtocol(String),
    CursorTooOld(String),
    UnknownDictionary,
}

type Stream = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn run(options: &JetstreamOptions, buffer: &Buffer) {
    let mut backoff = BACKOFF_MIN;
    let mut attempt = 0usize;
    loop {
        let cursor = buffer.wait_drained().await;
        // The host of the checkpoint first: only there a sequence number means something.
        let home = cursor
            .as_ref()
            .and_then(|cursor| options.endpoints.iter().position(|endpoint| *endpoint == cursor.host))
            .unwrap_or(0);
        let endpoint = &options.endpoints[(home + attempt) % options.endpoints.len()];
        let reason = match open(options, endpoint, cursor.as_ref()).await {
            Ok((stream, connection)) => {
                buffer.push(Delivery::Connected(Arc::new(connection)));
                let (frames, reason) = receive(stream, options, buffer).await;
                if frames > 0 {
                    (backoff, attempt) = (BACKOFF_MIN, 0);
                } else {
                    attempt += 1;
                }
                reason
            }
            Err(Refusal::CursorTooOld(message)) => {
                buffer.push(Delivery::Fatal(Error::OffsetLost { message }));
                return;
            }
            Err(Refusal::Retry(reason) | Refusal::OtherProtocol(reason)) => {
                attempt += 1;
                reason
            }
            Err(Refusal::UnknownDictionary) => "the host refuses its own dictionary".to_owned(),
        };
        tracing::warn!(endpoint, reason, "jetstream connection lost");
        buffer.push(Delivery::Lost(reason));
        // Some jitter, so that many servers do not come back at the same moment.
        let jitter = mix(wall_us() as u64) % 1000;
        tokio::time::sleep(backoff.mul_f64(0.5 + jitter as f64 / 2000.0)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Opens a connection in the best way the host allows.
async fn open(
    options: &JetstreamOptions,
    endpoint: &str,
    cursor: Option<&Cursor>,
) -> std::result::Result<(Stream, Connection), Refusal> {
    let mut last = Refusal::Retry("no protocol to try".into());
    for protocol in &options.protocols {
        let mut dictionary = dictionary(options, endpoint, *protocol).await;
        let (mut asked, mut clamped) = (asked_cursor(options, endpoint, *protocol, cursor), false);
        // A refused dictionary is fetched again by the next connection; this one does without.
        for _ in 0..3 {
            match connect(options, endpoint, *protocol, asked, dictionary.as_ref()).await {
                Ok(stream) => {
                    let (host, protocol) = (endpoint.to_owned(), *protocol);
                    return Ok((stream, Connection { host, protocol, dictionary, cursor: asked, clamped }));
                }
                Err(Refusal::UnknownDictionary) if dictionary.is_some() => dictionary = None,
                Err(Refusal::CursorTooOld(message)) => {
                    if options.too_old_is_error {
                        return Err(Refusal::CursorTooOld(format!(
                            "{endpoint} no longer holds the cursor {}: {message}; set cursor.too_old to 'clamp' to go on with its oldest event",
                            asked.unwrap_or_default()
                        )));
                    }
                    (asked, clamped) = (Some(EARLIEST), true);
                }
                Err(refusal) => {
                    last = refusal;
                    break;
                }
            }
        }
        if !matches!(last, Refusal::OtherProtocol(_)) {
            break;
        }
    }
    Err(last)
}

/// Microseconds in 2001: before anything a host keeps, and read as a time by both versions.
const EARLIEST: i64 = 1_000_000_000_000_000;

/// The cursor to ask this host for.
fn asked_cursor(options: &JetstreamOptions, endpoint: &str, protocol: Protocol, cursor: Option<&Cursor>) -> Option<i64> {
    let Some(cursor) = cursor else {
        return match options.start {
            Start::Latest => None,
            Start::Earliest => Some(EARLIEST),
            Start::Cursor(cursor) => Some(cursor),
        };
    };
    let same = cursor.host == endpoint && cursor.protocol == Some(protocol);
    match cursor.seq {
        Some(seq) if same && protocol == Protocol::V2 => Some(seq),
        _ => Some(cursor.time_us - options.rewind_us),
    }
}

/// The dictionary to ask the host to compress with; without one the stream is plain.
async fn dictionary(options: &JetstreamOptions, endpoint: &str, protocol: Protocol) -> Option<Dictionary> {
    if !options.zstd {
        return None;
    }
    let bytes = match protocol {
        Protocol::V1 => tokio::fs::read(options.dictionary_file.as_ref()?).await.ok()?,
        Protocol::V2 => {
            let url = format!("{}/xrpc/network.bsky.jetstream.getZstdDictionary", endpoint.replacen("ws", "http", 1));
            let client = reqwest::Client::builder().no_proxy().timeout(CONNECT_TIMEOUT).build().ok()?;
            let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
            answer.bytes().await.ok()?.to_vec()
        }
    };
    // The magic number of a dictionary, then its id.
    match bytes.get(..8) {
        Some([0x37, 0xa4, 0x30, 0xec, id @ ..]) => {
            let id = u32::from_le_bytes(id.try_into().ok()?);
            Some(Dictionary { id, bytes })
        }
        _ => None,
    }
}

fn address(
    options: &JetstreamOptions,
    endpoint: &str,
    protocol: Protocol,
    cursor: Option<i64>,
    dictionary: Option<&Dictionary>,
) -> Option<Url> {
    let (path, collections, dids) = match protocol {
        Protocol::V1 => ("/subscribe", "wantedCollections", "wantedDids"),
        Protocol::V2 => ("/xrpc/network.bsky.jetstream.subscribeEvents", "collections", "dids"),
    };
    let mut url = Url::parse(&format!("{endpoint}{path}")).ok()?;
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(options.collections.iter().map(|collection| (collections, collection)));
        query.extend_pairs(options.dids.iter().map(|did| (dids, did)));
        query.append_pair("maxMessageSizeBytes", &RECORD_BYTES_MAX.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", &cursor.to_string());
        }
        if let Some(dictionary) = dictionary {
            match protocol {
                Protocol::V1 => query.append_pair("compress", "true"),
                Protocol::V2 => query.append_pair("zstdDictionary", &dictionary.id.to_string()),
            };
        }
    }
    Some(url)
}

async fn connect(
    options: &JetstreamOptions,
    endpoint: &str,
    protocol: Protocol,
    cursor: Option<i64>,
    dictionary: Option<&Dictionary>,
) -> std::result::Result<Stream, Refusal> {
    let Some(url) = address(options, endpoint, protocol, cursor, dictionary) else {
        return Err(Refusal::Retry(format!("{endpoint} is no address")));
    };
    // A frame beyond what is read is set aside whole, so the socket takes somewhat more.
    let config =
        WebSocketConfig::default().max_message_size(Some(2 * RECORD_BYTES_MAX)).max_frame_size(Some(2 * RECORD_BYTES_MAX));
    let connecting = tokio_tungstenite::connect_async_with_config(url.as_str(), Some(config), true);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Err(_) => Err(Refusal::Retry(format!("{endpoint} did not answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        Ok(Ok((stream, _))) => Ok(stream),
        Ok(Err(SocketError::Http(response))) => {
            let status = response.status().as_u16();
            let body = response.body().as_deref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default();
            let message = format!("{endpoint} answered {status} {}", body.chars().take(200).collect::<String>());
            Err(match status {
                400 if body.contains("CursorTooOld") => Refusal::CursorTooOld(message),
                400 if body.contains("UnknownZstdDictionary") => Refusal::UnknownDictionary,
                404 | 405 | 426 | 501 => Refusal::OtherProtocol(message),
                _ => Refusal::Retry(message),
            })
        }
        Ok(Err(error)) => Err(Refusal::Retry(format!("could not connect to {endpoint}: {error}"))),
    }
}

/// Reads until the connection ends; how many frames came, and why it ended.
async fn receive(mut stream: Stream, options: &JetstreamOptions, buffer: &Buffer) -> (u64, String) {
    let mut frames = 0;
    loop {
        let message = match tokio::time::timeout(options.stall_timeout, stream.next()).await {
            Err(_) => return (frames, format!("nothing came for {:?}", options.stall_timeout)),
            Ok(None) => return (frames, "the host closed the connection".into()),
            Ok(Some(Err(error))) => return (frames, error.to_string()),
            Ok(Some(Ok(message))) => message,
        };
        let (bytes, compressed) = match message {
            Message::Text(text) => (text.as_bytes().to_vec(), false),
            Message::Binary(bytes) => (bytes.to_vec(), true),
            Message::Close(close) => {
                return (
                    frames,
                    close.map_or("the host closed the connection".into(), |close| {
                        format!("the host closed the connection: {close}")
                    }),
                );
            }
            // The answer is queued by the library and leaves when the writer is flushed.
            Message::Ping(_) => match stream.flush().await {
                Ok(()) => continue,
                Err(error) => return (frames, error.to_string()),
            },
            Message::Pong(_) | Message::Frame(_) => continue,
        };
        frames += 1;
        buffer.push(Delivery::Frame { bytes, compressed });
        if buffer.is_full() {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.close(None)).await;
            return (frames, "the engine is behind; going on at the cursor when it has caught up".into());
        }
    }
}

/// Whether one of the hosts answers, for `CREATE`.
pub(super) fn probe(options: &JetstreamOptions) -> Result<()> {
    let fault = |message: String| Error::Unreachable {
        message,
        hint: Some("Check endpoints and the network; without one, connector = 'bluesky' makes the same columns.".into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| fault(error.to_string()))?;
    runtime.block_on(async {
        let mut reasons = Vec::new();
        for endpoint in &options.endpoints {
            match open(options, endpoint, None).await {
                Ok(_) => return Ok(()),
                Err(Refusal::Retry(reason) | Refusal::OtherProtocol(reason) | Refusal::CursorTooOld(reason)) => {
                    reasons.push(reason)
                }
                Err(Refusal::UnknownDictionary) => reasons.push(format!("{endpoint} refuses its own dictionary")),
            }
        }
        Err(fault(reasons.join("; ")))
    })
}
