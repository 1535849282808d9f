//! A real Kafka broker, one for the whole test binary; tests keep apart by topic names.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::process::{Process, free_port};
use crate::tools::{installed, run_directory};

/// A running broker.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: u16,
    run: PathBuf,
    home: PathBuf,
}

/// The broker that tests share. It dies with the test binary.
static SHARED: OnceLock<(String, std::sync::Mutex<Kafka>)> = OnceLock::new();

impl Kafka {
    /// `bootstrap.servers` of the shared broker, started at the first call. Call [`crate::need`] before.
    pub fn shared() -> &'static str {
        let (bootstrap, _) = SHARED.get_or_init(|| {
            let kafka = Kafka::start();
            (kafka.bootstrap(), std::sync::Mutex::new(kafka))
        });
        bootstrap
    }

    /// A broker of one's own.
    pub fn start() -> Kafka {
        let home = installed("kafka").expect("need() was asked before");
        let run = run_directory("kafka");
        let (port, controller) = (free_port(), free_port());
        let template = include_str!("../servers/kafka/server.properties");
        let properties = template
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER@", &controller.to_string())
            .replace("@RUN@", run.to_str().expect("a temporary path is text"));
        std::fs::write(run.join("server.properties"), properties).expect("the run's directory can be written");
        let copied = Command::new("cp").arg("-r").arg(home.join("data")).arg(run.join("data")).status().expect("cp");
        assert!(copied.success(), "the formatted data directory of the broker is there");
        let process = Self::launch(&home, &run);
        let mut kafka = Kafka { process, port, run, home };
        kafka.wait_ready();
        kafka
    }

    fn launch(home: &std::path::Path, run: &std::path::Path) -> Process {
        let mut command = Command::new("java");
        command
            .args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
            .arg(format!("-Dlog4j2.configurationFile={}", home.join("log4j2.yaml").display()))
            .arg("-cp")
            .arg(format!("{}/libs/*", home.display()))
            .arg("kafka.Kafka")
            .arg(run.join("server.properties"));
        Process::start(&mut command, &run.join("kafka.log"))
    }

    fn wait_ready(&mut self) {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).set("log_level", "0").create().expect("a consumer");
        // An open port is not enough: the broker is ready when it answers with itself.
        self.process.wait_ready(Duration::from_secs(60), |_| {
            let metadata = client.fetch_metadata(None, Duration::from_millis(500)).ok()?;
            (metadata.brokers().len() == 1).then_some(())
        });
    }

    /// `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9` and a start on the same data.
    pub fn bounce(&mut self) {
        self.process.kill();
        self.process = Self::launch(&self.home, &self.run);
        self.wait_ready();
    }

    /// Makes a topic on the shared broker.
    pub async fn create_topic(topic: &str, partitions: i32) {
        let admin: AdminClient<rdkafka::client::DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", Self::shared()).create().expect("an admin client");
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let results = admin.create_topics([&new], &AdminOptions::new()).await.expect("the broker answers");
        results.into_iter().for_each(|result| {
            result.expect("the topic is new");
        });
    }

    /// Writes payloads to partitions in order and waits until all are acknowledged.
    pub fn produce<'a>(topic: &str, messages: impl IntoIterator<Item = (i32, &'a [u8])>) {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", Self::shared())
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create()
            .expect("a producer");
        for (partition, payload) in messages {
            let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition).payload(payload);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        producer.flush(Duration::from_secs(60)).expect("every message is acknowledged");
    }
}
