//! Options of `connector = 'kafka'`.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::format::{Encoding, parse_timestamp};
use crate::plan::ConnectorSpec;
use crate::source::options::Options;
use crate::{Error, Result};

/// Where a partition without a checkpoint begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Latest,
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// By partition; others at the earliest.
    Offsets(BTreeMap<i32, i64>),
}

/// Where a partition ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Never,
    /// Where it ends at the start.
    Latest,
    Timestamp(i64),
    Offsets(BTreeMap<i32, i64>),
}

#[derive(Debug, Clone)]
pub(super) struct KafkaOptions {
    pub(super) topic: String,
    pub(super) brokers: String,
    pub(super) start: Start,
    pub(super) end: End,
    pub(super) discovery: Duration,
    pub(super) group_prefix: String,
    pub(super) encoding: Encoding,
    out_of_range: &'static str,
    properties: BTreeMap<String, String>,
}

const KNOWN: &[&str] = &[
    "topic",
    "connection",
    "scan.startup.mode",
    "scan.startup.timestamp",
    "scan.startup.offsets",
    "scan.bounded.mode",
    "scan.bounded.timestamp",
    "scan.bounded.offsets",
    "offset.out_of_range",
    "partition.discovery.interval",
    "group.id.prefix",
    "properties.bootstrap.servers",
    "properties.bootstrap.server",
];

impl KafkaOptions {
    pub(super) fn of(spec: &ConnectorSpec) -> Result<Self> {
        let options = Options::new("connector \"kafka\"", &spec.options);
        options.check_known(KNOWN, &["properties."])?;
        let topic = options.required("topic", "topic is the name of one Kafka topic.")?.to_owned();
        let mut properties = BTreeMap::new();
        for (name, value) in &spec.options {
            let Some(name) = name.strip_prefix("properties.") else { continue };
            let name = if name == "bootstrap.server" { "bootstrap.servers" } else { name };
            properties.insert(name.to_owned(), value.clone());
        }
        let brokers = match properties.get("bootstrap.servers") {
            Some(brokers) if !brokers.trim().is_empty() => brokers.clone(),
            _ => {
                options.required("properties.bootstrap.servers", "It is a list such as 'broker1:9092,broker2:9092'.")?.to_owned()
            }
        };
        let start = match options.choice("scan.startup.mode", &["earliest", "latest", "timestamp", "offsets"])? {
            "latest" => Start::Latest,
            "timestamp" => Start::Timestamp(timestamp_millis(&options, "scan.startup.timestamp")?),
            "offsets" => Start::Offsets(offsets(&options, "scan.startup.offsets")?),
            _ => Start::Earliest,
        };
        let end = match options.choice("scan.bounded.mode", &["unbounded", "latest", "timestamp", "offsets"])? {
            "latest" => End::Latest,
            "timestamp" => End::Timestamp(timestamp_millis(&options, "scan.bounded.timestamp")?),
            "offsets" => End::Offsets(offsets(&options, "scan.bounded.offsets")?),
            _ => End::Never,
        };
        let encoding = Encoding::of(spec)?;
        if encoding == Encoding::Parquet {
            return Err(Error::Option {
                message: "ENCODE PARQUET is for files only".into(),
                hint: Some("Use ENCODE JSON, CSV, TEXT or BYTES.".into()),
            });
        }
        Ok(KafkaOptions {
            topic,
            brokers,
            start,
            end,
            discovery: options.duration("partition.discovery.interval", Duration::from_secs(30))?,
            group_prefix: options.text("group.id.prefix").map_or_else(|| "freshet-".to_owned(), |prefix| format!("{prefix}-")),
            // Kafka's messages have no heading.
            encoding: match encoding {
                Encoding::Csv { delimiter, .. } => Encoding::Csv { delimiter, heading: false },
                other => other,
            },
            out_of_range: match options.choice("offset.out_of_range", &["error", "earliest", "latest"])? {
                "earliest" => "earliest",
                "latest" => "latest",
                _ => "error",
            },
            properties,
        })
    }

    /// librdkafka's configuration: ours, then what the user set, then what must be so.
    pub(super) fn client_config(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("group.id", group)
            .set("client.id", "freshet")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "16384")
            // A full queue is empty again within a fraction of the second that librdkafka would rest by default.
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.message.max.bytes", "1048576")
            .set("reconnect.backoff.max.ms", "2000")
            .set("allow.auto.create.topics", "false");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", self.out_of_range);
        config
    }
}

/// A time as text, or milliseconds since 1970.
fn timestamp_millis(options: &Options<'_>, name: &str) -> Result<i64> {
    let text = options.required(name, "It is a time such as '2026-07-01 00:00:00', or milliseconds since 1970.")?;
    if let Ok(millis) = text.trim().parse() {
        return Ok(millis);
    }
    match parse_timestamp(text.trim().as_bytes()) {
        Ok(micros) => Ok(micros.div_euclid(1000)),
        Err(_) => Err(options.invalid(name, text, "It is a time such as '2026-07-01 00:00:00', or milliseconds since 1970.")),
    }
}

/// `0:42,1:300`, or as Flink writes it `partition:0,offset:42;partition:1,offset:300`.
fn offsets(options: &Options<'_>, name: &str) -> Result<BTreeMap<i32, i64>> {
    const HINT: &str = "It is a list of partition:offset, such as '0:42,1:300'.";
    let text = options.required(name, HINT)?;
    let plain = text.replace(",offset:", ":").replace("partition:", "").replace(';', ",");
    let pair = |pair: &str| {
        let (partition, offset) = pair.trim().split_once(':')?;
        Some((partition.trim().parse().ok()?, offset.trim().parse().ok()?))
    };
    plain.split(',').map(pair).collect::<Option<_>>().ok_or_else(|| options.invalid(name, text, HINT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::testing::connector;

    const BASE: [(&str, &str); 2] = [("topic", "t"), ("properties.bootstrap.server", "b:9092")];

    fn with(more: &[(&str, &str)]) -> Result<KafkaOptions> {
        KafkaOptions::of(&connector("kafka", &[&BASE, more].concat()))
    }

    #[test]
    fn starts_and_ends() {
        let offsets = BTreeMap::from([(0, 42), (1, 300)]);
        for text in ["0:42,1:300", "partition:0,offset:42;partition:1,offset:300"] {
            let options = with(&[("scan.startup.mode", "offsets"), ("scan.startup.offsets", text)]).expect("valid");
            assert_eq!(options.start, Start::Offsets(offsets.clone()));
        }
        let options =
            with(&[("scan.bounded.mode", "timestamp"), ("scan.bounded.timestamp", "1970-01-01 00:00:01")]).expect("valid");
        assert_eq!((options.start, options.end, options.brokers.as_str()), (Start::Earliest, End::Timestamp(1000), "b:9092"));
    }

    #[test]
    fn wrong_options_are_told() {
        for (more, message) in [
            (&[("scan.startup.mod", "latest")][..], "unknown option \"scan.startup.mod\" for connector \"kafka\""),
            (&[("scan.startup.mode", "lates")], "invalid value for option \"scan.startup.mode\": \"lates\""),
            (&[("scan.startup.mode", "timestamp")], "option \"scan.startup.timestamp\" is required for connector \"kafka\""),
            (
                &[("scan.startup.mode", "offsets"), ("scan.startup.offsets", "x")],
                "invalid value for option \"scan.startup.offsets\": \"x\"",
            ),
        ] {
            let error = with(more).expect_err("a wrong option");
            assert_eq!((error.to_string().as_str(), error.sqlstate(), error.hint().is_some()), (message, "22023", true));
        }
        assert!(KafkaOptions::of(&connector("kafka", &[("topic", "t")])).is_err());
    }
}
