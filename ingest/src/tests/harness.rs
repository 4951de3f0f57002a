//! A running service, a client of a few lines, and what the log holds afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use runtime::admin::Readiness;
use runtime::clock::{Clock, Entropy};
use runtime::config::Config;
use runtime::log::simulated::{SimulatedLog, SimulationOptions};
use runtime::log::topics::{Shape, Topics};
use runtime::log::{Headers, ProducerOptions, Record, TopicName};
use runtime::secret::ExposeSecret;
use runtime::service::Environment;
use runtime::task::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use schemas::codec::kafka;
use schemas::event::{Event, Limits};
use schemas::ids::KeyId;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::key::KeyText;
use schemas::resources::{ApiKey, FairShare, KeyScope, Tenant};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Options;

pub(super) const PARTITIONS: u32 = 2;
pub(super) const OPERATOR: &str = "the operator's key";
/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) log: SimulatedLog,
    pub(super) topics: Topics,
    pub(super) tasks: Tasks,
    pub(super) metrics: Metrics,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The last part of the problem's type.
    pub(super) fn problem(&self) -> &str {
        let ty = self.body["type"].as_str().unwrap_or_default();
        ty.rsplit('/').next().unwrap_or_default()
    }
}

pub(super) fn key(bits: u128) -> KeyText {
    KeyText::generate(KeyId::from_bits(bits), [7; 32])
}

pub(super) fn bearer(bits: u128) -> String {
    format!("Bearer {}", key(bits).reveal().expose_secret())
}

pub(super) fn options() -> Options {
    let mut options = Options::from_config(&Config::default());
    options.operator_key = Some(OPERATOR.into());
    options.drain_deadline = Duration::from_secs(5);
    options
}

/// A service with the tenant `acme`, its key 1, and key 2 of the tenant `other`.
pub(super) async fn start(options: Options) -> Server {
    let log = SimulatedLog::new(SimulationOptions::default());
    let topics = Topics::with_prefix("t.");
    let shape = Shape {
        partitions: PARTITIONS,
        replication: 1,
        retention: Duration::from_secs(3_600),
    };
    let setup = log.process("setup");
    setup.create_topics(&topics.settings(shape)).await.unwrap();
    let tasks = Tasks::new("ingest");
    let metrics = Metrics::new();
    let server = |address| Server {
        address,
        log: log.clone(),
        topics: topics.clone(),
        tasks: tasks.clone(),
        metrics: metrics.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = server(listener.local_addr().unwrap());
    for tenant in ["acme", "other"] {
        server.put(tenant_object(tenant)).await;
    }
    server.put(key_object(1, "acme")).await;
    server.put(key_object(2, "other")).await;
    let readiness = Readiness::new();
    let environment = Environment {
        log: log.process("ingest"),
        topics,
        clock: Clock::system(),
        entropy: Entropy::seeded(1),
        tasks: tasks.clone(),
        metrics,
        gate: readiness.gate("ingest"),
    };
    tasks.spawn(
        TaskKind::IngestServer,
        crate::run(options, environment, listener),
    );
    tokio::time::timeout(PATIENCE, readiness.ready())
        .await
        .expect("ready");
    server
}

fn tenant_object(name: &str) -> ControlObject {
    ControlObject::Tenant(Tenant {
        id: name.parse().unwrap(),
        name: None,
        events_per_second: None,
        bytes_per_second: None,
        fair_share: FairShare::default(),
        created_at: 0,
        updated_at: 0,
    })
}

fn key_object(bits: u128, tenant: &str) -> ControlObject {
    let text = key(bits);
    ControlObject::ApiKey(ApiKey {
        id: text.id(),
        tenant: tenant.parse().unwrap(),
        scope: KeyScope::Tenant,
        name: None,
        hash: text.hash(),
        created_at: 0,
    })
}

impl Server {
    /// Writes an object to `control`.
    pub(super) async fn put(&self, object: ControlObject) {
        self.control(&object.key(), Some(object.encode().into()))
            .await;
    }

    /// Deletes an object.
    pub(super) async fn delete(&self, key: &ControlKey) {
        self.control(key, None).await;
    }

    async fn control(&self, key: &ControlKey, value: Option<Bytes>) {
        let producer = self
            .log
            .process("setup")
            .producer(ProducerOptions::named("setup"))
            .await
            .unwrap();
        let record = Record {
            topic: self.topics.control.clone(),
            partition: Some(0),
            key: Some(key.to_string().into()),
            value,
            headers: Headers::default(),
        };
        let acks = producer.send(vec![record]).await;
        assert!(acks.wait().await.iter().all(Result::is_ok));
    }

    /// Posts to `/v1/tenants/acme/events` and what follows, with acme's key.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        let key = bearer(1);
        let mut all = vec![("authorization", key.as_str())];
        all.extend_from_slice(headers);
        let path = format!("/v1/tenants/acme/events{path}");
        self.send("POST", &path, &all, body.as_ref()).await
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let length = body.len().to_string();
        let mut all = vec![("connection", "close"), ("content-length", length.as_str())];
        all.extend_from_slice(headers);
        let mut stream = self.open(method, path, &all).await;
        // A server that has answered already may have closed its end.
        stream.write_all(body).await.ok();
        read(&mut stream).await
    }

    /// Sends a request's head.
    pub(super) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        write_head(&mut stream, method, path, headers).await;
        stream
    }

    /// Every event on `events`, partition after partition.
    pub(super) fn events(&self) -> Vec<Event> {
        self.records().into_iter().map(|(_, event)| event).collect()
    }

    /// Every event on `events.bulk`.
    pub(super) fn bulk_events(&self) -> Vec<Event> {
        let records = self.records_of(&self.topics.bulk);
        records.into_iter().map(|(_, event)| event).collect()
    }

    /// Every event with its record's key.
    pub(super) fn records(&self) -> Vec<(Option<Bytes>, Event)> {
        self.records_of(&self.topics.events)
    }

    fn records_of(&self, topic: &TopicName) -> Vec<(Option<Bytes>, Event)> {
        let records = (0..PARTITIONS).flat_map(|number| self.log.records(&topic.partition(number)));
        records
            .map(|record| {
                let headers: Vec<_> = record.headers.iter().collect();
                let event = kafka::decode(
                    headers.iter().copied(),
                    record.value.clone(),
                    &Limits::default(),
                );
                (record.key, event.unwrap())
            })
            .collect()
    }

    /// The value of a metric's series.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .expect(series);
        line.trim().parse().unwrap()
    }

    /// Waits until a metric's series has that value.
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    pub(super) async fn until(&self, series: &str, value: f64) {
        let reached = async {
            while self.metric(series) != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect(series);
    }
}

pub(super) async fn write_head(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: ingest\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads one answer.
pub(super) async fn read(stream: &mut TcpStream) -> Reply {
    tokio::time::timeout(PATIENCE, read_answer(stream))
        .await
        .expect("an answer")
}

async fn read_answer(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "closed: {bytes:?}"
        );
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut reply = Reply {
        status,
        head,
        body: Value::Null,
    };
    let length = reply
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "cut short");
    }
    if length > 0 {
        reply.body = serde_json::from_slice(&bytes[end..end + length]).unwrap();
    }
    reply
}
