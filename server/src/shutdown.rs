//! SIGTERM and Ctrl-C: the first asks for a clean stop, the second ends at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Error, Result};

/// The signals that end a server.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on. Must be called within a tokio runtime.
    pub fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|source| Error::Io { action: "listen for signals".to_owned(), source });
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns the name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
