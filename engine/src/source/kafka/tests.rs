//! Against librdkafka's own mock cluster: starts, bounded ends, resumption, metadata, errors.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;
use crate::plan::SourceColumn;
use crate::source::testing::{Taken, column, connector, metadata, node, timestamp};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> (Cluster, BaseProducer) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("t", partitions, 1).expect("a topic");
    let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a producer");
    (cluster, producer)
}

/// Sends records `from..to`, spread over the partitions, with key, header and time.
fn produce(producer: &BaseProducer, partitions: i32, numbers: std::ops::Range<i64>) {
    for n in numbers {
        let payload = if n % 10 == 9 { format!("{{\"n\":\"x{n}\"}}") } else { format!("{{\"n\":{n}}}") };
        let key = format!("k{n}");
        let headers =
            OwnedHeaders::new().insert(Header { key: "h", value: Some("old") }).insert(Header { key: "h", value: Some(&key) });
        let record =
            BaseRecord::to("t").payload(&payload).key(&key).partition(n as i32 % partitions).timestamp(n * 1000).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(Duration::from_secs(20)).expect("delivered");
}

fn columns() -> Vec<SourceColumn> {
    let header = SourceColumn { origin: ColumnOrigin::Header("h".into()), ..column("header", DataType::Utf8) };
    vec![
        column("n", DataType::Int64),
        metadata("k", "key", DataType::Utf8),
        metadata("p", "partition", DataType::Int32),
        metadata("o", "offset", DataType::Int64),
        metadata("ts", "timestamp", timestamp()),
        header,
    ]
}

fn kafka(cluster: &Cluster, more: &[(&str, &str)]) -> SourceNode {
    let brokers = cluster.bootstrap_servers();
    let base = [("topic", "t"), ("properties.bootstrap.servers", brokers.as_str())];
    node(connector("kafka", &[&base, more].concat()), columns(), None)
}

#[test]
fn a_bounded_read_has_every_record_once_however_it_is_cut() {
    let (cluster, producer) = cluster(3);
    produce(&producer, 3, 0..30_000);
    let node = kafka(&cluster, &[("scan.bounded.mode", "latest")]);
    let mut whole = Taken::default();
    whole.until(&mut KafkaReader::open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.finished.len() == 3);
    assert_eq!((whole.rows(), whole.errors.len()), (27_000, 3000));
    assert!(whole.errors.iter().all(|error| error.sqlstate == "22P02" && error.reason.contains("\"n\"")));
    let first = whole.sorted().into_iter().find(|line| line.starts_with("4|")).expect("record 4");
    assert_eq!(first, "4|k4|1|1|1970-01-01T00:00:04|k4");
    for cut in [3, 5, whole.batches.len() - 1] {
        let mut taken = Taken::default();
        taken.until(&mut KafkaReader::open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.batches.len() >= cut);
        // What is written after the first start lies behind its end.
        if cut == 3 {
            produce(&producer, 3, 30_000..30_003);
        }
        taken.finished.clear();
        taken.until(&mut KafkaReader::open(&node, &taken.offsets.clone()).expect("opens"), |taken| taken.finished.len() == 3);
        let numbers: Vec<String> = taken.sorted().into_iter().filter(|line| !line.starts_with("3000")).collect();
        let expected: Vec<String> = whole.sorted().into_iter().filter(|line| !line.starts_with("3000")).collect();
        assert!(numbers == expected, "cut after {cut}");
    }
}

#[test]
fn starts_where_it_is_told() {
    let (cluster, producer) = cluster(1);
    produce(&producer, 1, 0..5);
    let read = |more: &[(&str, &str)]| {
        let node = kafka(&cluster, &[&[("scan.bounded.mode", "latest")], more].concat());
        let mut taken = Taken::default();
        taken.until(&mut KafkaReader::open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.finished.len() == 1);
        taken.rows()
    };
    assert_eq!(read(&[]), 5);
    assert_eq!(read(&[("scan.startup.mode", "latest")]), 0);
    assert_eq!(read(&[("scan.startup.mode", "offsets"), ("scan.startup.offsets", "0:3")]), 2);

    let node = kafka(&cluster, &[("scan.startup.mode", "latest")]);
    let mut taken = Taken::default();
    let mut reader = KafkaReader::open(&node, &BTreeMap::new()).expect("opens");
    reader.mark_end();
    taken.until(&mut reader, |taken| !taken.caught_up.is_empty());
    // The place of `latest` is in the first checkpoint: what comes while nobody reads is not lost.
    drop(reader);
    produce(&producer, 1, 10..15);
    let mut reader = KafkaReader::open(&node, &taken.offsets).expect("opens");
    taken.until(&mut reader, |taken| taken.rows() == 5);
    produce(&producer, 1, 20..22);
    taken.caught_up.clear();
    reader.mark_end();
    taken.until(&mut reader, |taken| !taken.caught_up.is_empty());
    assert_eq!(taken.rows(), 7);
}

#[test]
fn wrong_brokers_and_topics_are_told() {
    let (cluster, _producer) = cluster(1);
    let mut missing = kafka(&cluster, &[]);
    missing.connector.options.insert("properties.debub".into(), "x".into());
    let error = probe(&missing).expect_err("no such property");
    assert_eq!((error.sqlstate(), error.to_string().contains("debub")), ("22023", true), "{error}");
    let closed = node(connector("kafka", &[("topic", "t"), ("properties.bootstrap.servers", "127.0.0.1:9")]), columns(), None);
    let error = probe(&closed).expect_err("nothing listens there");
    assert!(matches!(error, Error::Unreachable { .. }) && error.to_string().contains("127.0.0.1:9"), "{error}");
    let lost = BTreeMap::from([("0".to_owned(), json!({ "offset": 1000 }))]);
    let mut reader = KafkaReader::open(&kafka(&cluster, &[]), &lost).expect("opens");
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        assert!(Instant::now() < deadline, "no error came");
        if let Err(error) = reader.next(Duration::from_millis(50)) {
            break error;
        }
    };
    assert!(matches!(error, Error::OffsetLost { .. }), "{error}");
}
