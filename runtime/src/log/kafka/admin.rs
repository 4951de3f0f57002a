//! Owns topics: making them, and saying what they are.
//!
//! It must never change a topic that exists. The surprise: a topic's largest record is set with
//! room for the batch that Kafka wraps around it.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::context::Lines;
use super::{KafkaOptions, ask, errors, wake};
use crate::log::{Class, Error, TopicName, TopicSettings, TopicShape};

/// A batch of one record is larger than the record by less than this.
const BATCH_OVERHEAD: usize = 1 << 10;

/// Copies of a topic where there are as many brokers; a write is then on two of them at least.
const COPIES: usize = 3;

/// See the module.
pub(super) struct Admin {
    // `None` only while it is being dropped.
    client: Option<AdminClient<Lines>>,
}

impl Admin {
    /// Makes the client. Does not wait for a broker.
    pub(super) fn new(kafka: &KafkaOptions) -> Result<Self, Error> {
        let client = AdminClient::from_config_and_context(&kafka.client("admin", &[]), Lines)
            .map_err(|error| errors::building("kafka", &error))?;
        Ok(Self {
            client: Some(client),
        })
    }

    fn client(&self) -> Result<&AdminClient<Lines>, Error> {
        self.client
            .as_ref()
            .ok_or_else(|| Error::new(Class::Never, "kafka", "is closed"))
    }

    /// Makes what is missing; returns the names of what it made.
    pub(super) async fn create(
        self: &std::sync::Arc<Self>,
        topics: &[TopicSettings],
    ) -> Result<Vec<TopicName>, Error> {
        let mut topics = topics.to_vec();
        if topics.iter().any(|topic| topic.replication == 0) {
            let this = std::sync::Arc::clone(self);
            let brokers = wake::aside("kafka-describe", move || this.brokers()).await??;
            let chosen = if brokers.len() >= COPIES { COPIES } else { 0 };
            for topic in topics.iter_mut().filter(|topic| topic.replication == 0) {
                topic.replication = u16::try_from(chosen).unwrap_or(0);
            }
        }
        let settings: Vec<_> = topics.iter().map(settings_of).collect();
        let new: Vec<_> = topics
            .iter()
            .zip(&settings)
            .map(|(topic, settings)| new_topic(topic, settings))
            .collect();
        let results = self
            .client()?
            .create_topics(&new, &options())
            .await
            .map_err(|error| errors::asking("topics", &error))?;
        let mut made = Vec::new();
        for (topic, result) in topics.iter().zip(results) {
            match result {
                Ok(_) => made.push(topic.name.clone()),
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    return Err(errors::asking(&topic.name, &KafkaError::Global(code)));
                }
            }
        }
        Ok(made)
    }

    /// The shape of `topic`, `None` where it does not exist.
    pub(super) async fn describe(
        self: &std::sync::Arc<Self>,
        topic: &TopicName,
    ) -> Result<Option<TopicShape>, Error> {
        let (this, asked) = (std::sync::Arc::clone(self), topic.clone());
        let found = wake::aside("kafka-describe", move || this.partitions_of(&asked)).await??;
        let Some((partitions, replication)) = found else {
            return Ok(None);
        };
        let settings = self
            .settings(ResourceSpecifier::Topic(topic.as_str()))
            .await?;
        Ok(Some(TopicShape {
            partitions,
            replication,
            settings,
        }))
    }

    fn partitions_of(&self, topic: &TopicName) -> Result<Option<(u32, u16)>, Error> {
        let failed = |error: KafkaError| errors::asking(topic, &error);
        // All topics: asking for one by name would make librdkafka wait for it to appear.
        let metadata = self
            .client()?
            .inner()
            .fetch_metadata(None, ask::ANSWER)
            .map_err(failed)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic.as_str());
        let Some(found) = found else { return Ok(None) };
        if let Some(error) = found.error() {
            return Err(errors::asking(
                topic,
                &KafkaError::MetadataFetch(error.into()),
            ));
        }
        let partitions = found.partitions();
        let copies = partitions
            .first()
            .map_or(0, |partition| partition.replicas().len());
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        Ok(Some((count, u16::try_from(copies).unwrap_or(u16::MAX))))
    }

    /// How long the broker waits for a member of `group` under KIP-848: the group's own setting,
    /// else the broker's.
    pub(super) async fn group_session_timeout(
        self: &std::sync::Arc<Self>,
        group: &str,
    ) -> Result<Option<Duration>, Error> {
        let own = self
            .settings(ResourceSpecifier::Group(group))
            .await
            .unwrap_or_default();
        if let Some(timeout) = millis(&own, "consumer.session.timeout.ms") {
            return Ok(Some(timeout));
        }
        let this = std::sync::Arc::clone(self);
        let brokers = wake::aside("kafka-describe", move || this.brokers()).await??;
        let Some(broker) = brokers.first().copied() else {
            return Ok(None);
        };
        let settings = self.settings(ResourceSpecifier::Broker(broker)).await?;
        Ok(millis(&settings, "group.consumer.session.timeout.ms"))
    }

    fn brokers(&self) -> Result<Vec<i32>, Error> {
        let metadata = self
            .client()?
            .inner()
            .fetch_metadata(None, ask::ANSWER)
            .map_err(|error| errors::asking("brokers", &error))?;
        let ids = metadata.brokers().iter();
        Ok(ids.map(rdkafka::metadata::MetadataBroker::id).collect())
    }

    async fn settings(
        &self,
        resource: ResourceSpecifier<'_>,
    ) -> Result<Vec<(String, String)>, Error> {
        let described = self
            .client()?
            .describe_configs([&resource], &options())
            .await
            .map_err(|error| errors::asking("settings", &error))?;
        let mut settings = Vec::new();
        for resource in described {
            let ConfigResource { entries, .. } =
                resource.map_err(|code| errors::asking("settings", &KafkaError::AdminOp(code)))?;
            let known = entries.into_iter().filter(|entry| !entry.is_sensitive);
            settings.extend(known.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(settings)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Its end joins a thread: not on a tokio worker.
        let client = self.client.take();
        if let Err(error) = wake::start("kafka-drop", move || drop(client)) {
            tracing::debug!(%error, "admin client dropped in place");
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ask::ANSWER))
        // Until the topics are known to the controller's brokers.
        .operation_timeout(Some(ask::ANSWER))
}

fn millis(settings: &[(String, String)], name: &str) -> Option<Duration> {
    let (_, value) = settings.iter().find(|(found, _)| found == name)?;
    Some(Duration::from_millis(value.parse().ok()?))
}

fn settings_of(topic: &TopicSettings) -> Vec<(&'static str, String)> {
    let time = if topic.append_time {
        "LogAppendTime"
    } else {
        "CreateTime"
    };
    let mut settings = vec![
        (
            "max.message.bytes",
            (topic.max_record_bytes + BATCH_OVERHEAD).to_string(),
        ),
        ("message.timestamp.type", time.to_owned()),
    ];
    if usize::from(topic.replication) >= COPIES {
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    if topic.compact {
        settings.push(("cleanup.policy", "compact".to_owned()));
        // Current state is read from its start: keep what is replaced for an hour at most.
        settings.push(("min.cleanable.dirty.ratio", "0.1".to_owned()));
        settings.push(("max.compaction.lag.ms", "3600000".to_owned()));
    } else {
        settings.push(("cleanup.policy", "delete".to_owned()));
        settings.push(("retention.ms", topic.retention.as_millis().to_string()));
    }
    settings
}

fn new_topic<'a>(topic: &'a TopicSettings, settings: &'a [(&'static str, String)]) -> NewTopic<'a> {
    let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
    // Kafka reads -1 as the broker's default.
    let copies = if topic.replication == 0 {
        -1
    } else {
        i32::from(topic.replication)
    };
    let new = NewTopic::new(
        topic.name.as_str(),
        partitions,
        TopicReplication::Fixed(copies),
    );
    settings
        .iter()
        .fold(new, |new, (name, value)| new.set(name, value))
}
