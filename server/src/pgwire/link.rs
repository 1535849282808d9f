//! The socket of one connection, and what may interrupt work done for it.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use sql::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::message::{self, Message, ProtocolViolation};
use super::output::Output;

/// Bytes of later messages that are taken in while a statement runs: enough to notice that the client is gone.
const READ_AHEAD: usize = 64 << 10;
/// Output is written when so much has gathered.
const WRITE_AT: usize = 64 << 10;
/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a statement, or the whole connection, does not go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The statement failed; the session lives on. With the error's CONTEXT.
    Statement(Error, Option<String>),
    /// The session ends, and the client is told why.
    Fatal(Error),
    /// Nobody is there any more.
    Gone,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Statement(error, None)
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Failure::Gone
    }
}

impl From<ProtocolViolation> for Failure {
    fn from(violation: ProtocolViolation) -> Self {
        Failure::Fatal(Error::new("08P01", violation.0))
    }
}

/// What ends one statement early.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) cancelled: CancellationToken,
    pub(super) deadline: Option<Instant>,
}

/// A connection's socket with its buffers.
pub(super) struct Link {
    stream: TcpStream,
    input: BytesMut,
    pub(super) out: Output,
    /// The server stops, or `pg_terminate_backend` was called.
    pub(super) ended: CancellationToken,
}

impl Link {
    pub(super) fn new(stream: TcpStream, ended: CancellationToken) -> Link {
        Link { stream, input: BytesMut::with_capacity(8 << 10), out: Output::default(), ended }
    }

    /// Bytes that have come and were not read yet.
    pub(super) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// The kind of the next message, if it is there already.
    pub(super) fn next_kind(&self) -> Option<u8> {
        self.input.first().copied()
    }

    /// Reads more; an error when the client has closed the connection.
    ///
    /// # Cancel safety
    /// Safe: bytes are either in the input or still in the socket.
    pub(super) async fn read(&mut self) -> Result<(), Failure> {
        self.input.reserve(8 << 10);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Failure::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// The next message; waits for it, between statements (`limits` is none) for at most `idle`.
    pub(super) async fn receive(
        &mut self,
        limits: Option<&Limits>,
        idle: Option<(Duration, &'static str)>,
    ) -> Result<Message, Failure> {
        let idle_until = idle.map(|(limit, code)| (Instant::now() + limit, code));
        loop {
            if let Some(message) = message::message(&mut self.input)? {
                return Ok(message);
            }
            if !self.out.bytes.is_empty() {
                self.flush(limits).await?;
            }
            let ended = self.ended.clone();
            let idle_deadline = idle_until.map(|(deadline, _)| deadline);
            tokio::select! {
                biased;
                () = ended.cancelled() => return Err(Failure::Fatal(terminated())),
                failure = interrupted(limits) => return Err(failure),
                () = until(idle_deadline) => {
                    let code = idle_until.map_or("57P05", |(_, code)| code);
                    let what = if code == "25P03" { "idle-in-transaction timeout" } else { "idle-session timeout" };
                    return Err(Failure::Fatal(Error::new(code, format!("terminating connection due to {what}"))));
                }
                read = self.read() => read?,
            }
        }
    }

    /// Runs work for the client, unless something ends it: a cancel request, the time limit, shutdown, a vanished client.
    /// Messages that come meanwhile are kept.
    pub(super) async fn watch<T>(&mut self, limits: &Limits, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        let ended = self.ended.clone();
        loop {
            let room = self.input.len() < READ_AHEAD;
            tokio::select! {
                biased;
                failure = interrupted(Some(limits)) => return Err(failure),
                () = ended.cancelled() => return Err(Failure::Fatal(terminated())),
                done = &mut work => return Ok(done),
                read = self.read(), if room => read?,
            }
        }
    }

    /// Writes what has gathered if it is much.
    pub(super) async fn flush_if_full(&mut self, limits: Option<&Limits>) -> Result<(), Failure> {
        if self.out.bytes.len() >= WRITE_AT { self.flush(limits).await } else { Ok(()) }
    }

    /// Writes everything. Interrupted within a message, the rest of it stays for the next flush.
    pub(super) async fn flush(&mut self, limits: Option<&Limits>) -> Result<(), Failure> {
        let ended = self.ended.clone();
        while !self.out.bytes.is_empty() {
            tokio::select! {
                biased;
                failure = interrupted(limits) => return Err(failure),
                () = ended.cancelled() => return Err(Failure::Fatal(terminated())),
                written = self.stream.write_buf(&mut self.out.bytes) => if written? == 0 { return Err(Failure::Gone) },
            }
        }
        Ok(())
    }

    /// Writes everything within a short time and closes: the last words of a connection.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            while !self.out.bytes.is_empty() {
                if self.stream.write_buf(&mut self.out.bytes).await.map_or(true, |written| written == 0) {
                    return;
                }
            }
            let _ = self.stream.shutdown().await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

fn terminated() -> Error {
    crate::session::stopping()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits until the statement is to end.
async fn interrupted(limits: Option<&Limits>) -> Failure {
    let Some(limits) = limits else { return std::future::pending().await };
    tokio::select! {
        () = limits.cancelled.cancelled() => Error::new("57014", "canceling statement due to user request").into(),
        () = until(limits.deadline) => Error::new("57014", "canceling statement due to statement timeout").into(),
    }
}
