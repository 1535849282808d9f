//! A server: the database, and the two ports people reach it by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Config, Database, Error, Result, clock, http, pgwire};

/// A client must have introduced itself within this time.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub struct Server {
    database: Arc<Database>,
    pg: SocketAddr,
    http: SocketAddr,
    stop: CancellationToken,
    ports: JoinSet<()>,
}

impl Server {
    /// Takes the ports, opens the data directory, starts its dataflows, and then answers.
    /// The ports come first: a server that cannot have them leaves the data alone.
    pub async fn start(config: Config) -> Result<Server> {
        let pg = bind(&config.pg, "pg").await?;
        let http = bind(&config.http, "http").await?;
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| Error::Io { action: "read the address of a port".to_owned(), source })
        };
        let (pg_address, http_address) = (address(&pg)?, address(&http)?);
        let database = Database::open(config).await?;
        let stop = database.shutdown_token().clone();
        let mut ports = JoinSet::new();
        let options = pgwire::Options {
            max_connections: database.config().connections_max,
            startup_timeout: STARTUP_TIMEOUT,
            now_us: clock::now_us,
        };
        ports.spawn(pgwire::serve(pg, Arc::clone(&database) as _, options, stop.clone()));
        ports.spawn(http::serve(http, Arc::clone(&database), stop.clone()));
        Ok(Server { database, pg: pg_address, http: http_address, stop, ports })
    }

    /// The database.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Where psql connects.
    pub fn pg(&self) -> SocketAddr {
        self.pg
    }

    /// Where HTTP is answered.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The line that says that connections are accepted.
    pub fn ready_line(&self) -> String {
        format!("freshet ready pg={} http={} data={}", self.pg, self.http, self.database.config().data)
    }

    /// Stops accepting, ends the epoch, commits, closes connections with 57P01. Nothing is lost when the time is over
    /// before that is done.
    pub async fn stop(mut self, limit: Duration) -> Result<()> {
        self.stop.cancel();
        let all = async {
            let closed = self.database.close(limit).await;
            while self.ports.join_next().await.is_some() {}
            closed
        };
        match tokio::time::timeout(limit, all).await {
            Ok(closed) => closed,
            Err(_) => {
                tracing::warn!(limit_ms = limit.as_millis(), "stopped before everything was closed");
                Ok(())
            }
        }
    }
}

async fn bind(address: &str, port: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::Config {
            message: format!("could not listen on {address}: something else does"),
            hint: Some(format!("Give another address with --{port}, or port 0 for a free one.")),
        },
        _ => Error::Io { action: format!("listen on {address}"), source },
    })
}
