//! The life of a session on the wire: read a message, do it, answer; errors and the state they leave.

use std::time::Instant;

use sql::Error;

use super::link::{Failure, Limits, Link};
use super::message::Message;
use super::output::TransactionStatus;
use crate::session::{Block, Session};

/// A session and its socket.
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) session: Session,
    now_us: fn() -> i64,
    /// Settings as the client was last told.
    reported: Vec<(&'static str, String)>,
    /// An extended-protocol message failed: all are skipped until Sync.
    skipping: bool,
}

impl Connection {
    pub(super) fn new(link: Link, session: Session, now_us: fn() -> i64) -> Connection {
        let reported = session.settings.reported().map(|(name, value)| (name, value.to_owned())).collect();
        Connection { link, session, now_us, reported, skipping: false }
    }

    /// Serves the client until one of both has enough.
    pub(super) async fn run(mut self) {
        self.link.out.ready(TransactionStatus::Idle);
        let last_words = loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) | Err(Failure::Gone) => break None,
                Err(Failure::Fatal(error) | Failure::Statement(error, _)) => break Some(error),
            }
        };
        if let Some(error) = last_words {
            self.link.out.error("FATAL", &error, None, None);
            self.link.close().await;
        }
    }

    /// One message; false at the client's goodbye.
    async fn step(&mut self) -> Result<bool, Failure> {
        let in_block = !matches!(self.session.block, Block::None);
        let idle = self.session.settings.idle_timeout(in_block).map(|limit| (limit, if in_block { "25P03" } else { "57P05" }));
        let message = self.link.receive(None, idle).await?;
        if self.skipping && !matches!(message, Message::Sync | Message::Terminate) {
            return Ok(true);
        }
        match message {
            Message::Query(text) => Box::pin(self.simple(text)).await?,
            Message::Terminate => return Ok(false),
            Message::Sync => {
                self.skipping = false;
                if let Err(error) = self.session.end_implicit().await {
                    self.failed(error, None, None);
                }
                self.ready();
                self.link.flush(None).await?;
            }
            Message::Flush => self.link.flush(None).await?,
            // What is left of a COPY that failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => {}
            message @ (Message::Parse { .. }
            | Message::Bind { .. }
            | Message::Describe(_)
            | Message::Execute { .. }
            | Message::Close(_)) => match Box::pin(self.extended(message)).await {
                Ok(()) => self.link.flush_if_full(None).await?,
                Err(Failure::Statement(error, context)) => {
                    self.failed(error, Some(0), context.as_deref());
                    self.skipping = true;
                }
                Err(failure) => return Err(failure),
            },
        }
        Ok(true)
    }

    /// A statement begins: it can be cancelled, and has a time limit.
    pub(super) fn begin(&mut self, text: &str) -> Limits {
        let cancelled = self.session.registration().begin(text, (self.now_us)());
        let deadline = self.session.settings.statement_timeout().map(|limit| (Instant::now() + limit).into());
        Limits { cancelled, deadline }
    }

    /// The client is told of an error. `offset` is where the statement begins in the text it sent, for the position.
    pub(super) fn failed(&mut self, error: Error, offset: Option<usize>, context: Option<&str>) {
        self.notices();
        if error.sqlstate == "XX000" {
            tracing::error!(pid = self.session.info().pid, error = %error.message, "a statement failed with an internal error");
        }
        let position = error.position.zip(offset).map(|(position, offset)| position + offset);
        self.link.out.error("ERROR", &error, position, context);
        self.session.failed();
        self.report_settings();
    }

    /// What the session has to say beside its answer.
    pub(super) fn notices(&mut self) {
        for notice in self.session.notices.drain(..) {
            self.link.out.notice(notice.severity, &notice.message);
        }
    }

    /// Settings that have changed.
    pub(super) fn report_settings(&mut self) {
        for ((name, told), (_, value)) in self.reported.iter_mut().zip(self.session.settings.reported()) {
            if told != value {
                value.clone_into(told);
                self.link.out.parameter_status(name, value);
            }
        }
    }

    /// The client's turn.
    pub(super) fn ready(&mut self) {
        self.session.registration().end(self.session.idle_state());
        self.link.out.ready(match &self.session.block {
            Block::None => TransactionStatus::Idle,
            Block::Open(open) if open.implicit => TransactionStatus::Idle,
            Block::Open(_) => TransactionStatus::InBlock,
            Block::Failed(_) => TransactionStatus::Failed,
        });
    }
}
