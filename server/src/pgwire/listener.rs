//! Accepts connections, each with its own task, and ends them at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::startup;
use crate::session::Backend;

/// Sockets that may be open beyond `max_connections`: cancel requests, and clients that are told there is no room.
const SPARE_SOCKETS: usize = 64;
/// Connections have so long to say goodbye at shutdown.
const GOODBYE: Duration = Duration::from_secs(3);

/// Limits of the listener.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sessions at once; more are refused with 53300.
    pub max_connections: usize,
    /// A client must have introduced itself within this time.
    pub startup_timeout: Duration,
    /// Wall clock, microseconds since 1970.
    pub now_us: fn() -> i64,
}

/// Serves clients until `shutdown` is cancelled; returns when all of them are gone or have been given up on.
pub async fn serve(listener: TcpListener, backend: Arc<dyn Backend>, options: Options, shutdown: CancellationToken) {
    let options = Arc::new(options);
    let sockets = Arc::new(Semaphore::new(options.max_connections.saturating_add(SPARE_SOCKETS).min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others will close theirs.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&sockets).try_acquire_owned() else {
            tracing::warn!(%client, "too many sockets, connection dropped");
            continue;
        };
        let (backend, options, shutdown) = (Arc::clone(&backend), Arc::clone(&options), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            Box::pin(startup::serve_connection(stream, client, backend, &options, shutdown)).await;
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GOODBYE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "clients that did not take leave were cut off");
    }
}
