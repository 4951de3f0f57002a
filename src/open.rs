//! Owns the choice of the log: Kafka where brokers are named, else the one on local disk.

use anyhow::Context;
use runtime::clock::Clock;
use runtime::config::{self, Config};
use runtime::log::SharedLog;
use runtime::log::embedded::{Closed, EmbeddedLog, EmbeddedOptions};
use runtime::log::kafka::{Compression, GroupProtocol, KafkaLog, KafkaOptions};
use std::sync::Arc;

/// The log, and what tells when its folder is free again, where it has one.
///
/// # Errors
/// Where the folder cannot be used (another process may have it), or librdkafka refuses a property.
pub(crate) async fn open(
    config: &Config,
    clock: &Clock,
) -> anyhow::Result<(SharedLog, Option<Closed>)> {
    if config.kafka.brokers.is_empty() {
        let options = EmbeddedOptions {
            dir: config.embedded_dir(),
            retention: config.embedded.retention,
            retention_bytes: config.embedded.retention_bytes.as_u64(),
            clock: clock.clone(),
        };
        let (log, closed) = EmbeddedLog::open(options).await.context("embedded log")?;
        return Ok((Arc::new(log), Some(closed)));
    }
    let log = KafkaLog::connect(kafka_options(config)).context("kafka")?;
    Ok((Arc::new(log), None))
}

fn kafka_options(config: &Config) -> KafkaOptions {
    let kafka = &config.kafka;
    let properties = kafka.properties.iter();
    KafkaOptions {
        properties: properties
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        group_protocol: match kafka.group_protocol {
            config::GroupProtocol::Classic => GroupProtocol::Classic,
            config::GroupProtocol::Consumer => GroupProtocol::Consumer,
        },
        static_membership: kafka.static_membership,
        compression: match kafka.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        },
        session_timeout: kafka.session_timeout,
        heartbeat_interval: kafka.heartbeat_interval,
        client_prefix: config.topics.prefix.clone(),
        ..KafkaOptions::new(kafka.brokers.join(","))
    }
}
