//! From an accepted socket to a session: TLS and GSS are declined, cancel requests are carried out, settings are taken.

use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use sql::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::link::{Failure, Link};
use super::listener::Options;
use super::message::{self, Opening};
use crate::session::{Backend, Session, Settings};

/// One connection from its first byte to its last.
pub(super) async fn serve_connection(
    stream: TcpStream,
    client: SocketAddr,
    backend: Arc<dyn Backend>,
    options: &Options,
    shutdown: CancellationToken,
) {
    // Answers are written whole: waiting for more to send would only add latency.
    let _ = stream.set_nodelay(true);
    let mut link = Link::new(stream, shutdown.clone());
    let parameters = match introduction(&mut link, &backend, options).await {
        Ok(Some(parameters)) => parameters,
        Ok(None) => return,
        Err(failure) => return refuse(link, failure).await,
    };
    let secret = secret();
    let registry = Arc::clone(backend.sessions());
    let Some(registration) = registry.register(secret, options.max_connections, (options.now_us)(), client.to_string()) else {
        let error = Error::new("53300", "sorry, too many clients already")
            .hint("Close connections that are not needed, or raise max_connections.");
        return refuse(link, Failure::Fatal(error)).await;
    };
    let pid = registration.pid;
    let terminated = registration.terminated.clone();
    let ending = shutdown.clone();
    // One token for both reasons to end, so that every wait watches one thing.
    let both = terminated.child_token();
    link.ended = both.clone();
    let relay = tokio::spawn(async move {
        tokio::select! {
            () = ending.cancelled() => both.cancel(),
            () = both.cancelled() => {}
        }
    });
    match session(&backend, registration, parameters) {
        Ok(session) => {
            link.out.authentication_ok();
            session.settings.reported().for_each(|(name, value)| link.out.parameter_status(name, value));
            link.out.parameter_status("freshet_version", env!("CARGO_PKG_VERSION"));
            link.out.backend_key(pid, secret);
            tracing::debug!(pid, %client, user = session.info().user, "session begins");
            Connection::new(link, session, options.now_us).run().await;
            tracing::debug!(pid, "session ends");
        }
        Err(error) => refuse(link, Failure::Fatal(error)).await,
    }
    relay.abort();
}

/// Reads until the client says who it is; `None` when it wanted something else and has got it.
async fn introduction(
    link: &mut Link,
    backend: &Arc<dyn Backend>,
    options: &Options,
) -> Result<Option<Vec<(String, String)>>, Failure> {
    let deadline = Instant::now() + options.startup_timeout;
    loop {
        let opening = match message::opening(link.input())? {
            Some(opening) => opening,
            None => {
                let ended = link.ended.clone();
                tokio::select! {
                    () = ended.cancelled() => return Err(Failure::Fatal(crate::session::stopping())),
                    () = sleep_until(deadline) => return Err(Failure::Gone),
                    read = link.read() => read?,
                }
                continue;
            }
        };
        match opening {
            Opening::Ssl | Opening::Gss => {
                link.out.bytes.extend_from_slice(b"N");
                link.flush(None).await?;
            }
            Opening::Cancel { pid, secret } => {
                backend.sessions().cancel_request(pid, secret);
                return Ok(None);
            }
            Opening::Startup { minor, parameters } => {
                let unknown: Vec<_> =
                    parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
                if minor > 0 || !unknown.is_empty() {
                    link.out.negotiate_version(&unknown);
                }
                return Ok(Some(parameters));
            }
        }
    }
}

/// The session the client asked for.
fn session(
    backend: &Arc<dyn Backend>,
    registration: crate::session::Registration,
    parameters: Vec<(String, String)>,
) -> sql::Result<Session> {
    let value = |wanted: &str| {
        parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let Some(user) = value("user") else {
        return Err(Error::new("28000", "no PostgreSQL user name specified in startup packet"));
    };
    if value("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0")) {
        return Err(Error::new("0A000", "replication connections are not supported"));
    }
    let database = value("database").unwrap_or_else(|| user.clone());
    let mut settings = Settings::new(&user);
    for (name, value) in &parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => {
                for (name, value) in command_line(value) {
                    settings.set_default(&name, &value)?;
                }
            }
            name if name.starts_with("_pq_.") => {}
            name => settings.set_default(name, value)?,
        }
    }
    Ok(Session::new(Arc::clone(backend), registration, settings, user, database))
}

/// `-c name=value` and `--name=value`; a backslash takes a space's meaning away.
fn command_line(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut letters = options.chars();
    while let Some(letter) = letters.next() {
        match (letter, words.last_mut()) {
            ('\\', Some(word)) => word.extend(letters.next()),
            (letter, Some(word)) if !letter.is_whitespace() => word.push(letter),
            _ => words.push(String::new()),
        }
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c").filter(|rest| !rest.is_empty())) {
            Some(rest) => rest.to_owned(),
            None if word == "-c" => words.next().unwrap_or_default(),
            None => continue,
        };
        if let Some((name, value)) = assignment.split_once('=') {
            settings.push((name.replace('-', "_"), value.to_owned()));
        }
    }
    settings
}

/// Says why there is no session.
async fn refuse(mut link: Link, failure: Failure) {
    if let Failure::Fatal(error) | Failure::Statement(error, _) = failure {
        link.out.error("FATAL", &error, None, None);
        link.close().await;
    }
}

/// A number that others cannot guess: a keyed hash, with a key from the system's randomness.
fn secret() -> i32 {
    let hash = std::hash::RandomState::new().build_hasher().finish().to_le_bytes();
    i32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_startup_message() {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let cases = [
            ("-c statement_timeout=5s", pairs(&[("statement_timeout", "5s")])),
            ("-cjit=off  --search-path=a", pairs(&[("jit", "off"), ("search_path", "a")])),
            ("-c DateStyle=ISO,\\ DMY", pairs(&[("DateStyle", "ISO, DMY")])),
            ("", Vec::new()),
        ];
        for (options, expected) in cases {
            assert_eq!(command_line(options), expected, "{options}");
        }
    }
}
