//! Owns librdkafka without Anabranch: the limit of what the broker takes, and what is on a topic.
//!
//! It must never be kinder to itself than to Anabranch: acks=all, idempotent, the same codec, the
//! same bytes. The surprise: everything here blocks, so it runs on threads of its own.

mod relay;

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, client::DefaultClientContext};
use tokio::time::Instant;

use crate::pace::{self, rate, wall_us};

pub(crate) use relay::{Arrival, Paced, Relay, Watch, copy, ends, written_at};

/// What Anabranch's producers use by default.
const CODEC: &str = "lz4";
const POLL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(3);

/// A record to write.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// None leaves it to the partitioner.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    pub(crate) headers: OwnedHeaders,
    pub(crate) value: Bytes,
}

impl Record {
    /// With the headers of a CloudEvents codec.
    pub(crate) fn new(headers: &[(Cow<'static, str>, Cow<'_, [u8]>)], value: Bytes) -> Self {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header {
                key,
                value: Some(value.as_ref()),
            });
        }
        Self {
            partition: None,
            key: None,
            headers: owned,
            value,
        }
    }
}

/// Writes `records` and waits until all are acknowledged.
///
/// # Errors
/// Where one is not.
pub(crate) async fn write(
    brokers: &str,
    topic: &str,
    records: impl Iterator<Item = anyhow::Result<Record>> + Send + 'static,
) -> anyhow::Result<()> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let producer = producer(&brokers, "5")?;
        for record in records {
            send(&producer, &topic, &record?)?;
        }
        finish(&producer)
    })
    .await
}

/// Records a second that are acknowledged when `records` are written again and again for `span`.
///
/// # Errors
/// Where one is not.
pub(crate) async fn write_rate(
    brokers: &str,
    topic: &str,
    records: Vec<Record>,
    span: Duration,
) -> anyhow::Result<f64> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let producer = producer(&brokers, "5")?;
        let start = Instant::now();
        let mut written = 0;
        while start.elapsed() < span {
            for record in &records {
                send(&producer, &topic, record)?;
            }
            written += u64::try_from(records.len())?;
        }
        finish(&producer)?;
        Ok(rate(written, i64::try_from(start.elapsed().as_micros())?))
    })
    .await
}

/// Milliseconds from when each record was meant to be written until it is read: open loop, at
/// `per_second`, on a topic of one's own.
///
/// # Errors
/// Where the broker cannot be used.
pub(crate) async fn latencies(
    brokers: &str,
    topic: &str,
    value: Bytes,
    (per_second, count): (u64, u64),
) -> anyhow::Result<Vec<f64>> {
    create(brokers, topic).await?;
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&brokers, &topic, Offset::Beginning)?;
        let writer = std::thread::spawn(move || paced(&brokers, &topic, &value, per_second, count));
        let mut found = Vec::new();
        let start = Instant::now();
        let span = Duration::from_secs(count / per_second.max(1));
        while u64::try_from(found.len())? < count {
            ensure!(start.elapsed() < span + PATIENCE, "records are missing");
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message?;
            let due = message.key().and_then(|key| key.try_into().ok());
            let due = due.map(i64::from_be_bytes).context("a record's key")?;
            found.push(milliseconds(wall_us() - due));
        }
        match writer.join() {
            Ok(written) => written.map(|()| found),
            Err(_) => bail!("the bare producer"),
        }
    })
    .await
}

/// Microseconds as milliseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "a benchmark knows no more digits"
)]
pub(crate) fn milliseconds(us: i64) -> f64 {
    us as f64 / 1_000.0
}

fn paced(
    brokers: &str,
    topic: &str,
    value: &Bytes,
    per_second: u64,
    count: u64,
) -> anyhow::Result<()> {
    let producer = producer(brokers, "0")?;
    let mut sent = Ok(());
    pace::each(per_second, count, |tick| {
        let key = tick.due_us.to_be_bytes();
        let record = BaseRecord::to(topic)
            .key(&key)
            .payload(value.as_ref())
            .partition(i32::try_from(tick.number % 6).unwrap_or(0));
        if let Err((error, _)) = producer.send(record) {
            sent = Err(error);
        }
        producer.poll(Duration::ZERO);
    });
    sent?;
    finish(&producer)
}

/// What is on a topic.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Content {
    /// Of values, not compressed.
    pub(crate) bytes: u64,
    /// The broker's time of the first and the last record, unix milliseconds.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

/// Reads the committed records of a topic, until `records` are there.
///
/// # Errors
/// How many came, where nothing comes any more.
pub(crate) async fn read(brokers: &str, topic: &str, records: u64) -> anyhow::Result<Content> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&brokers, &topic, Offset::Beginning)?;
        tally(&consumer, &topic, records)
    })
    .await
}

/// Counts what a consumer is handed, until `records` are there.
fn tally(consumer: &BaseConsumer, topic: &str, records: u64) -> anyhow::Result<Content> {
    let mut content = Content {
        first_ms: i64::MAX,
        ..Content::default()
    };
    each(consumer, topic, records, |message| {
        content.bytes += u64::try_from(message.payload_len()).unwrap_or(0);
        if let Some(at) = message.timestamp().to_millis() {
            content.first_ms = content.first_ms.min(at);
            content.last_ms = content.last_ms.max(at);
        }
    })?;
    Ok(content)
}

/// Gives `look` what a consumer is handed, until `records` were there.
fn each(
    consumer: &BaseConsumer,
    topic: &str,
    records: u64,
    mut look: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<()> {
    let (mut found, mut last) = (0, Instant::now());
    while found < records {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            ensure!(
                last.elapsed() < PATIENCE,
                "{found} of {records} records on {topic}"
            );
            continue;
        };
        look(&message?);
        found += 1;
        last = Instant::now();
    }
    Ok(())
}

/// The values of a topic as it is now, each as `decode` reads it.
///
/// # Errors
/// Where the broker cannot be used, or a value cannot be read.
pub(crate) async fn values<T: Send + 'static>(
    brokers: &str,
    topic: &str,
    decode: impl Fn(&[u8]) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Vec<T>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&brokers, &topic, Offset::Beginning)?;
        let mut found = Vec::new();
        let mut last = Instant::now();
        // A topic that is read is silent only behind its end.
        while last.elapsed() < SILENCE {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                last = Instant::now();
                found.push(decode(message?.payload().unwrap_or_default())?);
            }
        }
        Ok(found)
    })
    .await
}

/// Makes a topic of 6 partitions whose records have the broker's time.
///
/// # Errors
/// Where the broker does not.
pub(crate) async fn create(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let topic = NewTopic::new(topic, 6, TopicReplication::Fixed(-1))
        .set("message.timestamp.type", "LogAppendTime");
    for made in admin.create_topics([&topic], &AdminOptions::new()).await? {
        if let Err((name, code)) = made {
            bail!("topic {name}: {code}");
        }
    }
    Ok(())
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "load")
        .set("socket.nagle.disable", "true");
    config
}

fn producer(brokers: &str, linger_ms: &str) -> anyhow::Result<BaseProducer> {
    producer_with(brokers, linger_ms, "500000")
}

/// With room for so many records that are not acknowledged.
fn producer_with(brokers: &str, linger_ms: &str, records: &str) -> anyhow::Result<BaseProducer> {
    let producer = client(brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", CODEC)
        .set("linger.ms", linger_ms)
        .set("queue.buffering.max.messages", records)
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    Ok(producer)
}

fn consumer(brokers: &str, topic: &str, from: Offset) -> anyhow::Result<BaseConsumer> {
    let consumer: BaseConsumer = client(brokers)
        .set("group.id", "load")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        // A queue that was full must not keep the next fetch waiting for a second.
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        list.add_partition_offset(topic, partition.id(), from)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn send(
    producer: &BaseProducer<DefaultProducerContext>,
    topic: &str,
    record: &Record,
) -> anyhow::Result<()> {
    let mut next = BaseRecord::<[u8], [u8]>::to(topic)
        .payload(record.value.as_ref())
        .headers(record.headers.clone());
    if let Some(key) = &record.key {
        next = next.key(key.as_ref());
    }
    if let Some(partition) = record.partition {
        next = next.partition(partition);
    }
    loop {
        match producer.send(next) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                next = back;
                producer.poll(POLL);
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits until nothing is in flight. librdkafka's own flush waits in steps of 100 ms.
fn finish(producer: &BaseProducer) -> anyhow::Result<()> {
    let start = Instant::now();
    while producer.in_flight_count() > 0 {
        ensure!(start.elapsed() < PATIENCE, "records are not acknowledged");
        producer.poll(POLL);
    }
    // An idempotent producer that loses a record never goes on.
    match producer.client().fatal_error() {
        Some((code, text)) => bail!("bare producer: {code}: {text}"),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
