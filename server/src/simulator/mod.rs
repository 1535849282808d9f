//! A Jetstream of invented people on a loopback port: the real protocol in both versions over one deterministic log.
//!
//! Event `n` is made from its number whenever somebody reads it, so that the log takes no memory however long it is, and
//! a restart shows the same one. An event exists once its time has come.
//!
//! ```text
//!   Generator: number ─▶ event ─▶ filter ─▶ frame (v1 or v2, zstd) ─▶ faults of this connection ─▶ websocket
//! ```

mod connection;
mod dictionary;
mod faults;
mod subscription;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::{CancellationToken, DropGuard};

use engine::source::generator::bluesky::{self, Event, Generator, Settings};

use crate::{Error, Result, clock};
pub use faults::{Fault, FaultKind, FaultPlan};
use subscription::{Refusal, Subscription};

/// What a simulator is like.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: String,
    /// Which events. They begin at `settings.start_us`; what lies in the past is there at once.
    pub settings: Settings,
    /// The log ends after so many events; `None`: never.
    pub events: Option<u64>,
    /// Added to every sequence number: two hosts never share them.
    pub seq_offset: u64,
    /// Added to every time: hosts see an event at different times.
    pub time_offset_us: i64,
    /// How far back a cursor may reach.
    pub lookback: Duration,
    /// Time between pings; a client whose pong is missing at the next one is cut off.
    pub ping_interval: Duration,
    /// Only the first protocol, as the old hosts.
    pub legacy: bool,
    /// What goes wrong on which connection.
    pub faults: FaultPlan,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        SimulatorOptions {
            address: "127.0.0.1:0".to_owned(),
            settings: Settings::default(),
            events: None,
            seq_offset: 0,
            time_offset_us: 0,
            lookback: Duration::from_secs(36 * 3600),
            ping_interval: Duration::from_secs(30),
            legacy: false,
            faults: FaultPlan::default(),
        }
    }
}

/// A running simulator; it stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _stop: DropGuard,
}

/// What all connections share.
pub(crate) struct World {
    options: SimulatorOptions,
    generator: Generator,
    dictionary: Vec<u8>,
    connections: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Simulator {
    /// Starts it on the current tokio runtime.
    pub async fn start(options: SimulatorOptions) -> Result<Simulator> {
        let failed = |action: &'static str| move |source| Error::Io { action: action.to_owned(), source };
        let listener = TcpListener::bind(&options.address).await.map_err(failed("listen for the simulator"))?;
        let address = listener.local_addr().map_err(failed("read the address of the simulator"))?;
        let stop = CancellationToken::new();
        let connections = Arc::new(AtomicUsize::new(0));
        let generator = Generator::new(options.settings.clone());
        let training = generator.clone();
        let dictionary = tokio::task::spawn_blocking(move || dictionary::train(&training)).await;
        let dictionary = dictionary.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let dictionary = dictionary.map_err(failed("train the simulator's dictionary"))?;
        let world = Arc::new(World { options, generator, dictionary, connections: Arc::clone(&connections), stop: stop.clone() });
        let mut routes = Router::new().route("/subscribe", get(subscribe_v1));
        if !world.options.legacy {
            routes = routes
                .route("/xrpc/network.bsky.jetstream.subscribeEvents", get(subscribe_v2))
                .route("/xrpc/network.bsky.jetstream.getZstdDictionary", get(dictionary_of));
        }
        let routes = routes.with_state(world);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the simulator stopped");
            }
        });
        Ok(Simulator { address, connections, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Subscriptions taken so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl World {
    /// Event `number` as this host has it.
    fn event(&self, number: u64) -> Event {
        let mut event = self.generator.at(number);
        event.seq += self.options.seq_offset;
        event.time_us += self.options.time_offset_us;
        event
    }

    fn time_us(&self, number: u64) -> i64 {
        self.generator.time_us(number) + self.options.time_offset_us
    }

    fn seq(&self, number: u64) -> u64 {
        bluesky::SEQ_BASE + self.options.seq_offset + number
    }

    /// The first event at or after a time.
    fn at_time(&self, time_us: i64) -> u64 {
        self.bounded(self.generator.seek(time_us.saturating_sub(self.options.time_offset_us)))
    }

    /// The event with this sequence number.
    fn at_seq(&self, seq: u64) -> u64 {
        self.bounded(seq.saturating_sub(bluesky::SEQ_BASE + self.options.seq_offset))
    }

    /// The first event that is still kept.
    fn oldest(&self) -> u64 {
        let lookback = i64::try_from(self.options.lookback.as_micros()).unwrap_or(i64::MAX);
        self.at_time(clock::now_us().saturating_sub(lookback))
    }

    /// One more than the newest event there is by now.
    fn end(&self) -> u64 {
        self.at_time(clock::now_us().saturating_add(1))
    }

    fn bounded(&self, number: u64) -> u64 {
        self.options.events.map_or(number, |events| number.min(events))
    }

    /// Whether the log has ended for good before `number`.
    fn is_over(&self, number: u64) -> bool {
        self.options.events.is_some_and(|events| number >= events)
    }
}

async fn subscribe_v1(State(world): State<Arc<World>>, RawQuery(query): RawQuery, request: Request) -> Response {
    let zstd = request.headers().get("socket-encoding").is_some_and(|value| value.as_bytes() == b"zstd");
    let subscription = subscription::parse_v1(query.as_deref().unwrap_or_default(), zstd, !world.options.legacy);
    upgrade(world, subscription, request)
}

async fn subscribe_v2(State(world): State<Arc<World>>, RawQuery(query): RawQuery, request: Request) -> Response {
    let oldest = world.seq(world.oldest());
    let id = dictionary::id(&world.dictionary);
    let subscription = subscription::parse_v2(query.as_deref().unwrap_or_default(), id, oldest);
    upgrade(world, subscription, request)
}

async fn dictionary_of(State(world): State<Arc<World>>, RawQuery(query): RawQuery) -> Response {
    let id = dictionary::id(&world.dictionary);
    let asked = subscription::parameters(query.as_deref().unwrap_or_default()).into_iter().find(|(name, _)| name == "id");
    match asked {
        Some((_, asked)) if asked.parse() != Ok(id) => refuse(&subscription::unknown_dictionary(id)),
        _ => {
            let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::ETAG, format!("\"{id}\""))];
            (headers, world.dictionary.clone()).into_response()
        }
    }
}

/// Answers 101 and serves the websocket on a task of its own, or says why not.
fn upgrade(world: Arc<World>, subscription: Result<Subscription, Refusal>, mut request: Request) -> Response {
    let subscription = match subscription {
        Ok(subscription) => subscription,
        Err(refusal) => return refuse(&refusal),
    };
    let headers = request.headers();
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| headers.contains_key(header::UPGRADE)) else {
        return (StatusCode::UPGRADE_REQUIRED, "this address speaks websocket\n").into_response();
    };
    let accept = derive_accept_key(key.as_bytes());
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|offered| offered.to_str().ok());
    let subprotocol = offered.is_some_and(|offered| offered.split(',').any(|name| name.trim() == SUBPROTOCOL));
    let upgraded = hyper::upgrade::on(&mut request);
    let number = world.connections.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => {
                let config = WebSocketConfig::default().max_message_size(Some(CLIENT_MESSAGE_BYTES_MAX));
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
                connection::serve(world, subscription, number, socket).await;
            }
            Err(error) => tracing::debug!(%error, "a client of the simulator left during the handshake"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64 is a header value"));
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

const SUBPROTOCOL: &str = "xrpc.v1.json";

/// What an `options_update` may be at most.
const CLIENT_MESSAGE_BYTES_MAX: usize = 10_000_000;

fn refuse(refusal: &Refusal) -> Response {
    let body = serde_json::json!({ "error": refusal.error, "message": refusal.message });
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests;
