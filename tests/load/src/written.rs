//! Owns how much an installation has written to its topics: what the log says when all of it is
//! read, wherever the log is.
//!
//! It must never be asked while somebody writes. The surprise: it is what was produced, keys,
//! values and headers; what the broker keeps of it on disk is less, as batches are compressed.

use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where services write while nothing goes on.
const ALWAYS_WRITTEN: &str = "progress";

/// The bytes of all records of the topics whose names begin with `prefix`, but of `progress`.
///
/// # Errors
/// Where the log cannot be read to its end.
pub(crate) fn bytes(brokers: &str, prefix: &str) -> anyhow::Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "load-written")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_uncommitted")
        .create()?;
    let known = consumer.fetch_metadata(None, PATIENCE)?;
    let mut wanted = TopicPartitionList::new();
    for topic in known.topics() {
        let name = topic.name().strip_prefix(prefix);
        if name.is_some_and(|name| name != ALWAYS_WRITTEN) {
            for partition in topic.partitions() {
                wanted.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
            }
        }
    }
    let mut open = wanted.count();
    consumer.assign(&wanted)?;
    let mut bytes = 0;
    while open > 0 {
        let polled = consumer.poll(PATIENCE);
        match polled.context("the log gives nothing")? {
            Ok(message) => bytes += bytes_of(&message)?,
            // Each partition says so once, as nobody writes to it.
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => bail!(error),
        }
    }
    Ok(bytes)
}

fn bytes_of(message: &impl Message) -> anyhow::Result<u64> {
    let headers = message.headers().map_or(0, |headers| {
        let header = headers.iter();
        let length = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        header.map(|one| one.key.len() + length(one.value)).sum()
    });
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let bytes = length(message.key()) + length(message.payload()) + headers;
    Ok(u64::try_from(bytes)?)
}
