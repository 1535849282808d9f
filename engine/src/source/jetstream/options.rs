//! Options of `connector = 'jetstream'`.

use std::time::Duration;

use super::frame::is_micros;
use crate::Result;
use crate::format::parse_timestamp;
use crate::plan::ConnectorSpec;
use crate::source::options::Options;

/// Versions of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    V1,
    V2,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Protocol::V1 => "v1",
            Protocol::V2 => "v2",
        }
    }
}

/// Where the stream begins without a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Latest,
    /// As far back as the host goes.
    Earliest,
    /// A sequence number below 10^15, microseconds since 1970 above.
    Cursor(i64),
}

#[derive(Debug, Clone)]
pub(super) struct JetstreamOptions {
    pub(super) endpoints: Vec<String>,
    /// Tried in order on each host.
    pub(super) protocols: Vec<Protocol>,
    pub(super) zstd: bool,
    pub(super) dictionary_file: Option<String>,
    pub(super) collections: Vec<String>,
    pub(super) dids: Vec<String>,
    pub(super) start: Start,
    pub(super) rewind_us: i64,
    /// A cursor the host no longer has is an error; otherwise it goes on with the oldest.
    pub(super) too_old_is_error: bool,
    pub(super) stall_timeout: Duration,
}

const PUBLIC_HOSTS: &str = "wss://jetstream.us-east.bsky.network,wss://jetstream.us-west.bsky.network";

const KNOWN: &[&str] = &[
    "endpoints",
    "protocol",
    "compression",
    "zstd.dictionary.file",
    "collections",
    "dids",
    "scan.startup.mode",
    "scan.startup.timestamp",
    "scan.startup.cursor",
    "cursor.rewind",
    "cursor.too_old",
    "stall_timeout",
];

impl JetstreamOptions {
    pub(super) fn of(spec: &ConnectorSpec) -> Result<Self> {
        let options = Options::new("connector \"jetstream\"", &spec.options);
        options.check_known(KNOWN, &[])?;
        let list = |name: &str| -> Vec<String> {
            let parts = options.text(name).unwrap_or_default().split(',').map(str::trim);
            parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let endpoints: Vec<String> = options
            .text("endpoints")
            .unwrap_or(PUBLIC_HOSTS)
            .split(',')
            .map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned())
            .collect();
        for endpoint in &endpoints {
            let fits = url::Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host());
            if !fits {
                return Err(options.invalid(
                    "endpoints",
                    endpoint,
                    "It is a list of addresses such as 'wss://jetstream.us-east.bsky.network'.",
                ));
            }
        }
        let start = match options.choice("scan.startup.mode", &["latest", "earliest", "timestamp", "cursor"])? {
            "earliest" => Start::Earliest,
            "timestamp" => {
                let text = options.required("scan.startup.timestamp", "It is a time such as '2026-07-01 00:00:00'.")?;
                let micros = parse_timestamp(text.trim().as_bytes()).ok().filter(|micros| is_micros(*micros));
                Start::Cursor(micros.ok_or_else(|| {
                    options.invalid("scan.startup.timestamp", text, "It is a time such as '2026-07-01 00:00:00'.")
                })?)
            }
            "cursor" => {
                let text = options.required("scan.startup.cursor", "It is a sequence number, or microseconds since 1970.")?;
                // Seconds and milliseconds would be taken for sequence numbers: 1.7e9 and 1.7e12 lie below 10^15.
                let cursor = text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|cursor: &i64| *cursor > 0 && (*cursor < 1_000_000_000_000 || is_micros(*cursor)));
                Start::Cursor(cursor.ok_or_else(|| {
                    options.invalid(
                        "scan.startup.cursor",
                        text,
                        "It is a sequence number, or microseconds (not seconds or milliseconds) since 1970.",
                    )
                })?)
            }
            _ => Start::Latest,
        };
        Ok(JetstreamOptions {
            endpoints,
            protocols: match options.choice("protocol", &["auto", "v1", "v2"])? {
                "v1" => vec![Protocol::V1],
                "v2" => vec![Protocol::V2],
                _ => vec![Protocol::V2, Protocol::V1],
            },
            zstd: options.choice("compression", &["zstd", "none"])? == "zstd",
            dictionary_file: options.text("zstd.dictionary.file").map(str::to_owned),
            collections: list("collections"),
            dids: list("dids"),
            start,
            rewind_us: options.duration("cursor.rewind", Duration::from_secs(10))?.as_micros() as i64,
            too_old_is_error: options.choice("cursor.too_old", &["error", "clamp"])? == "error",
            stall_timeout: options.duration("stall_timeout", Duration::from_secs(30))?,
        })
    }
}
