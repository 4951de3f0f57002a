//! Owns a test's own look at Kafka's topics, and records that it writes there itself.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use schemas::records::{AttemptRecord, DeadLetter, DeliveryRecord};

use crate::poll::{DEADLINE, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// A record as it is in Kafka.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time, unix milliseconds.
    pub at: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its value.
    pub value: Option<Bytes>,
}

/// All that is committed on a topic now.
///
/// # Panics
/// When it cannot be read.
pub fn read(brokers: &str, topic: &str) -> Vec<Stored> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "harness")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .expect("metadata");
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(0) {
        let added = list.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut records, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => records.push(stored(&message)),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            other => panic!("{topic}: {other:?}"),
        }
    }
    records
}

fn stored(message: &rdkafka::message::BorrowedMessage<'_>) -> Stored {
    let headers = message.headers().map(|headers| {
        let pair = |header: Header<'_, &[u8]>| {
            (
                header.key.to_owned(),
                header.value.unwrap_or_default().to_vec(),
            )
        };
        headers.iter().map(pair).collect()
    });
    Stored {
        partition: message.partition(),
        offset: message.offset(),
        at: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

/// The attempts that dispatchers have recorded.
///
/// # Panics
/// When a record is not one.
pub fn attempts(brokers: &str, prefix: &str) -> Vec<AttemptRecord> {
    let decode = |stored: Stored| {
        let value = stored.value.expect("an attempt has a value");
        serde_json::from_slice(&value).expect("an attempt record")
    };
    read(brokers, &format!("{prefix}attempts"))
        .into_iter()
        .map(decode)
        .collect()
}

/// What routers have written.
///
/// # Panics
/// When a record is not one.
pub fn deliveries(brokers: &str, prefix: &str) -> Vec<DeliveryRecord> {
    let decode = |stored: Stored| {
        let headers = stored
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        let value = stored.value.as_ref().expect("a delivery has a value");
        DeliveryRecord::decode(headers, value).expect("a delivery record")
    };
    read(brokers, &format!("{prefix}deliveries"))
        .into_iter()
        .map(decode)
        .collect()
}

/// The dead letters.
///
/// # Panics
/// When a record is not one.
pub fn dead_letters(brokers: &str, prefix: &str) -> Vec<DeadLetter> {
    let decode = |stored: Stored| {
        let headers = stored
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        DeadLetter::decode(headers, stored.value.as_ref())
            .expect("a dead letter")
            .0
    };
    read(brokers, &format!("{prefix}dead"))
        .into_iter()
        .map(decode)
        .collect()
}

/// Writes one record as a producer of somebody else's would.
///
/// # Panics
/// When it is not acknowledged.
pub(crate) async fn produce_with(
    brokers: &str,
    topic: &str,
    compression: &str,
    (headers, value): (&[(String, String)], &str),
) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("compression.type", compression)
        // What the broker takes is what counts; this is checked before compression.
        .set("message.max.bytes", "16777216")
        .create()
        .expect("a producer");
    let mut owned = OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in headers {
        owned = owned.insert(Header {
            key,
            value: Some(value),
        });
    }
    let record = FutureRecord::<(), str>::to(topic)
        .payload(value)
        .headers(owned);
    let sent = producer.send(record, PATIENCE).await;
    sent.map_err(|(error, _)| error)
        .expect("an acknowledgement");
}

/// Has a group of KIP-848 miss its members after `session`, whatever the broker's own setting is.
///
/// # Panics
/// When the broker refuses.
pub async fn set_group_session(brokers: &str, group: &str, session: Duration) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    use rdkafka::client::DefaultClientContext;
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    let session_ms = session.as_millis().to_string();
    let heartbeat_ms = (session.as_millis() / 6).to_string();
    let change = AlterConfig::new(ResourceSpecifier::Group(group))
        .set("consumer.session.timeout.ms", &session_ms)
        .set("consumer.heartbeat.interval.ms", &heartbeat_ms);
    let changed = client.alter_configs([&change], &AdminOptions::new()).await;
    for group in changed.expect("an answer") {
        group.expect("a group's settings can be changed");
    }
}

/// Deletes one topic, and returns when the broker does not know it any more.
///
/// # Panics
/// When it refuses.
pub async fn delete_topic(brokers: &str, topic: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    let deleted = client.delete_topics(&[topic], &AdminOptions::new()).await;
    for deleted in deleted.expect("an answer") {
        deleted.expect("a topic can be deleted");
    }
    eventually("the topic gone", DEADLINE, async || {
        let metadata = client.inner().fetch_metadata(None, PATIENCE).ok()?;
        let is_there = metadata.topics().iter().any(|known| known.name() == topic);
        (!is_there).then_some(())
    })
    .await;
}

/// Deletes the topics of one test: hundreds of partitions would slow the broker for the others.
pub(crate) async fn delete(brokers: &str, prefix: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
    let client: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a client");
    let Ok(metadata) = client.inner().fetch_metadata(None, PATIENCE) else {
        return;
    };
    let names = metadata.topics().iter().map(|topic| topic.name());
    let ours: Vec<&str> = names.filter(|name| name.starts_with(prefix)).collect();
    // Best effort: what stays is in a broker that ends soon.
    client.delete_topics(&ours, &AdminOptions::new()).await.ok();
}
