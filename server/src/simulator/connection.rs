//! One subscriber: events from its cursor on, pings, and the faults of its script.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::subscription::{Cursor, Protocol, Subscription, UpdateError, parse_update};
use super::{Fault, FaultKind, World};
use crate::clock;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A frame that cannot be written for so long ends the connection.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Frames written before the socket is flushed and looked at again.
const FRAMES_PER_TURN: usize = 64;

/// The frame that says that a cursor was older than the log.
const OUTDATED_CURSOR: &str = r##"{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#info","name":"OutdatedCursor","message":"the stream begins at the oldest event kept"}}"##;

/// The frame before the end for a client that does not keep up.
const TOO_SLOW: &str = r#"{"$type":"error","error":"ConsumerTooSlow"}"#;

/// Why a connection ends.
enum End {
    /// Without a word.
    Abrupt,
    /// With a code and a reason.
    Close(u16, &'static str),
}

pub(super) async fn serve(world: Arc<World>, subscription: Subscription, number: usize, mut socket: Socket) {
    let stop = world.stop.clone();
    let mut connection = match Connection::new(world, subscription, number) {
        Ok(connection) => connection,
        Err(error) => return tracing::error!(%error, "the simulator could not compress"),
    };
    let end = tokio::select! {
        end = connection.run(&mut socket) => end,
        () = stop.cancelled() => End::Close(1001, "going away"),
    };
    if let End::Close(code, reason) = end {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        // The client may be gone already.
        let _ = tokio::time::timeout(WRITE_LIMIT, socket.close(Some(frame))).await;
    }
}

struct Connection {
    world: Arc<World>,
    subscription: Subscription,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    faults: VecDeque<Fault>,
    /// The next event.
    position: u64,
    /// Events sent.
    sent: u64,
    /// Frames to be sent in reverse, and how many belong together.
    held: Vec<Message>,
    hold: usize,
    last: Option<Message>,
    greeting: Option<&'static str>,
    pinged: Option<Instant>,
    next_ping: Instant,
}

impl Connection {
    fn new(world: Arc<World>, subscription: Subscription, number: usize) -> std::io::Result<Connection> {
        let compressor = match subscription.zstd {
            true => Some(zstd::bulk::Compressor::with_dictionary(zstd::DEFAULT_COMPRESSION_LEVEL, &world.dictionary)?),
            false => None,
        };
        let (end, oldest) = (world.end(), world.oldest());
        let asked = match subscription.cursor {
            Some(Cursor::Seq(seq)) => world.at_seq(seq),
            Some(Cursor::TimeUs(time)) => world.at_time(time),
            None => end,
        };
        let outdated = asked < oldest && subscription.protocol == Protocol::V2;
        Ok(Connection {
            faults: world.options.faults.of(number).into(),
            // A cursor in the future begins now.
            position: asked.min(end).max(oldest),
            sent: 0,
            held: Vec::new(),
            hold: 0,
            last: None,
            greeting: outdated.then_some(OUTDATED_CURSOR),
            pinged: None,
            next_ping: Instant::now() + world.options.ping_interval,
            compressor,
            subscription,
            world,
        })
    }

    async fn run(&mut self, socket: &mut Socket) -> End {
        if let Some(greeting) = self.greeting.take()
            && let Err(end) = self.send_text(socket, greeting).await
        {
            return end;
        }
        loop {
            let turn = if self.subscription.hello { Ok(()) } else { self.turn(socket).await };
            if let Err(end) = turn {
                return end;
            }
            if let Err(end) = self.listen(socket).await {
                return end;
            }
        }
    }

    /// Sends what there is, a bounded number of frames.
    async fn turn(&mut self, socket: &mut Socket) -> Result<(), End> {
        let end = self.world.end();
        let mut looked_at = 0;
        while self.position < end && looked_at < FRAMES_PER_TURN {
            self.fault(socket).await?;
            if let Some(message) = self.next_message() {
                self.send_event(socket, message).await?;
            }
            looked_at += 1;
        }
        if self.position >= end && !self.held.is_empty() {
            self.hold = 0;
            self.release(socket).await?;
        }
        within(socket.flush()).await
    }

    /// Hears the client until the next event or ping is due.
    async fn listen(&mut self, socket: &mut Socket) -> Result<(), End> {
        let now = Instant::now();
        if now >= self.next_ping {
            if self.pinged.is_some() {
                return Err(End::Abrupt);
            }
            self.pinged = Some(now);
            self.next_ping = now + self.world.options.ping_interval;
            within(socket.send(Message::Ping(Bytes::new()))).await?;
        }
        let message = tokio::select! {
            biased;
            message = socket.next() => Some(message),
            () = tokio::time::sleep_until(self.due().min(self.next_ping)) => None,
        };
        match message {
            None => Ok(()),
            Some(None | Some(Err(_)) | Some(Ok(Message::Close(_)))) => Err(End::Abrupt),
            Some(Some(Ok(Message::Pong(_)))) => {
                self.pinged = None;
                Ok(())
            }
            Some(Some(Ok(Message::Ping(_) | Message::Frame(_)))) => Ok(()),
            Some(Some(Ok(Message::Text(_) | Message::Binary(_)))) if self.subscription.protocol == Protocol::V2 => {
                Err(End::Close(1008, "clients send nothing"))
            }
            Some(Some(Ok(Message::Binary(_)))) => Ok(()),
            Some(Some(Ok(Message::Text(text)))) => self.update(&text),
        }
    }

    fn update(&mut self, text: &str) -> Result<(), End> {
        match parse_update(text) {
            Ok(Some((filter, message_bytes_max))) => {
                self.subscription.filter = filter;
                self.subscription.message_bytes_max = message_bytes_max;
                self.subscription.hello = false;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(UpdateError::Envelope) => Err(End::Close(1007, "no options_update")),
            Err(UpdateError::Options) => Err(End::Close(1008, "invalid options")),
        }
    }

    /// When the next event exists.
    fn due(&self) -> Instant {
        const LONG: Duration = Duration::from_secs(3600);
        if self.subscription.hello || self.world.is_over(self.position) {
            return Instant::now() + LONG;
        }
        let wait = self.world.time_us(self.position).saturating_sub(clock::now_us());
        Instant::now() + Duration::from_micros(u64::try_from(wait).unwrap_or(0)).min(LONG)
    }

    /// The event at the position as a frame, if the client wants it; the position moves on.
    fn next_message(&mut self) -> Option<Message> {
        let number = self.position;
        self.position += 1;
        let event = self.world.event(number);
        if !self.subscription.filter.wants(event.kind.name(), event.collection, &event.did) {
            return None;
        }
        let frame = match self.subscription.protocol {
            Protocol::V2 => event.v2(),
            Protocol::V1 { with_seq } => event.v1(with_seq)?,
        };
        let limit = self.subscription.message_bytes_max;
        (limit == 0 || frame.len() <= limit).then(|| self.encode(frame))
    }

    fn encode(&mut self, frame: String) -> Message {
        match &mut self.compressor {
            Some(compressor) => match compressor.compress(frame.as_bytes()) {
                Ok(bytes) => Message::binary(bytes),
                Err(_) => Message::text(frame),
            },
            None => Message::text(frame),
        }
    }

    async fn send_event(&mut self, socket: &mut Socket, message: Message) -> Result<(), End> {
        self.sent += 1;
        if self.hold > 0 {
            self.held.push(message);
            self.hold -= 1;
            return if self.hold == 0 { self.release(socket).await } else { Ok(()) };
        }
        self.last = Some(message.clone());
        within(socket.feed(message)).await
    }

    /// Sends what was held back, the last first.
    async fn release(&mut self, socket: &mut Socket) -> Result<(), End> {
        while let Some(message) = self.held.pop() {
            within(socket.feed(message)).await?;
        }
        Ok(())
    }

    async fn send_text(&mut self, socket: &mut Socket, text: &str) -> Result<(), End> {
        let message = self.encode(text.to_owned());
        within(socket.send(message)).await
    }

    /// Does what the script says at this point.
    async fn fault(&mut self, socket: &mut Socket) -> Result<(), End> {
        while self.faults.front().is_some_and(|fault| fault.after <= self.sent) {
            let Some(fault) = self.faults.pop_front() else { return Ok(()) };
            match fault.kind {
                FaultKind::Drop => {
                    // What was sent before has arrived: the script counts on it.
                    within(socket.flush()).await?;
                    return Err(End::Abrupt);
                }
                FaultKind::Close(code) => return Err(End::Close(code, "as the script says")),
                FaultKind::Duplicate(times) => {
                    for message in self.last.iter().cycle().take(times as usize * usize::from(self.last.is_some())) {
                        within(socket.feed(message.clone())).await?;
                    }
                }
                FaultKind::Reorder(events) => self.hold = events,
                FaultKind::Stall(time) => {
                    within(socket.flush()).await?;
                    tokio::time::sleep(time).await;
                }
                FaultKind::Garbage => within(socket.feed(Message::text("{\"did\":\"did:plc:half"))).await?,
                FaultKind::TruncatedZstd => {
                    let frame = self.world.event(self.position).v2();
                    let bytes = zstd::bulk::compress(frame.as_bytes(), 1).unwrap_or_default();
                    within(socket.feed(Message::binary(bytes[..bytes.len() / 2].to_vec()))).await?;
                }
                FaultKind::Rewind(events) => self.position = self.position.saturating_sub(events).max(self.world.oldest()),
                FaultKind::TooSlow => {
                    self.send_text(socket, TOO_SLOW).await?;
                    return Err(End::Close(1008, "consumer too slow"));
                }
            }
        }
        Ok(())
    }
}

async fn within<T, E>(write: impl Future<Output = Result<T, E>>) -> Result<(), End> {
    match tokio::time::timeout(WRITE_LIMIT, write).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(End::Abrupt),
    }
}
