//! HTTP: health, metrics, SQL as JSON or Arrow, and a page that shows the jobs.

mod query;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::session::Backend;
use crate::{Database, metrics, system};

/// The longest text of a statement that is taken.
const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Answers on `listener` until `stop`.
pub(crate) async fn serve(listener: TcpListener, database: Arc<Database>, stop: CancellationToken) {
    let routes = Router::new()
        .route("/", get(|| async { Html(include_str!("status.html")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(exposition))
        .route("/api/v1/query", post(query::query))
        .layer(axum::extract::DefaultBodyLimit::max(STATEMENT_BYTES_MAX))
        .with_state(database);
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "http stopped");
    }
}

/// 200 once the catalog is open and every job does its work; otherwise 503 with the reasons, one a line.
async fn ready(State(database): State<Arc<Database>>) -> Response {
    let mut reasons: Vec<String> = Vec::new();
    reasons.extend(database.catalog().commit_error().map(|reason| format!("commits wait: {reason}")));
    for job in system::jobs(&database) {
        // Somebody wanted it paused: that is no fault.
        if !metrics::is_up(job.state) && job.state != engine::status::JobState::Paused {
            let why = job.last_error.map(|error| format!(": {error}")).unwrap_or_default();
            reasons.push(format!("{} is {}{why}", job.name, job.state.name()));
        }
    }
    match reasons.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response(),
    }
}

async fn exposition(State(database): State<Arc<Database>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&database))
}

/// Whether a browser's page of somebody else sent this. Programs send no Origin; our own page sends its own, which is
/// what it was asked under. An address by name may be anyone's name for this machine, so a page must name it by number
/// or as localhost.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map_or("", |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    origin != host || !(name == "localhost" || name.parse::<std::net::IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_refused() {
        let cases = [
            (None, "127.0.0.1:8433", false),
            (Some("http://127.0.0.1:8433"), "127.0.0.1:8433", false),
            (Some("http://localhost:8433"), "localhost:8433", false),
            (Some("http://[::1]:8433"), "[::1]:8433", false),
            (Some("https://example.org"), "127.0.0.1:8433", true),
            (Some("http://rebound.example.org:8433"), "rebound.example.org:8433", true),
            (Some("null"), "127.0.0.1:8433", true),
        ];
        for (origin, host, foreign) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("a header"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            assert_eq!(is_foreign(&headers), foreign, "{origin:?} {host}");
        }
    }
}
