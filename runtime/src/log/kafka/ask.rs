//! Owns questions to Kafka from outside any group: bounds, offsets by time, committed positions;
//! and the commits of a group that has no members.
//!
//! It must never block a tokio worker: librdkafka's calls wait for the broker, so each runs on a
//! thread of its own. The surprises: a committed position cannot be read while a transaction that
//! may change it is open, so [`committed`] waits for that. And librdkafka believes for fifteen
//! minutes that a partition has no leader, once it was told so by a broker that restarts, so these
//! clients forget at once what they were told.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::context::Lines;
use super::{KafkaOptions, errors, list, wake};
use crate::log::{Bounds, Committed, Error, Partition, Position};

/// How long one question may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// For so long a client believes what it was told of a partition's leader.
const BELIEF: Duration = Duration::from_secs(1);

/// An open transaction of a dead producer ends within its timeout and the broker's sweep.
const STABLE: Duration = Duration::from_secs(30);

type Asker = BaseConsumer<Lines>;

/// Clients that only ask. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Questions(Arc<Clients>);

struct Clients {
    kafka: KafkaOptions,
    stable: OnceLock<Asker>,
    latest: OnceLock<Asker>,
}

/// What a partition holds, uncommitted records included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Questions {
    pub(super) fn new(kafka: KafkaOptions) -> Self {
        Self(Arc::new(Clients {
            kafka,
            stable: OnceLock::new(),
            latest: OnceLock::new(),
        }))
    }

    /// Sees what a reader of committed records sees.
    fn stable(&self) -> Result<&Asker, KafkaError> {
        self.client(&self.0.stable, "read_committed")
    }

    fn client<'a>(
        &self,
        place: &'a OnceLock<Asker>,
        isolation: &str,
    ) -> Result<&'a Asker, KafkaError> {
        if let Some(asker) = place.get() {
            return Ok(asker);
        }
        // Two askers at once make two clients; one is dropped again.
        let made = asker(
            &self.0.kafka,
            "ask",
            &[("isolation.level", isolation.to_owned())],
        )?;
        Ok(place.get_or_init(|| made))
    }

    pub(super) async fn bounds(&self, partition: &Partition) -> Result<Bounds, Error> {
        let (this, asked) = (self.clone(), partition.clone());
        wake::aside("kafka-ask", move || {
            let number = list::number(&asked);
            let (start, stable_end) = patiently(|| {
                this.stable()?
                    .fetch_watermarks(asked.topic.as_str(), number, ANSWER)
            })?;
            Ok(Bounds { start, stable_end })
        })
        .await?
        .map_err(|error| errors::asking(partition, &error))
    }

    pub(super) async fn offset_at(
        &self,
        partition: &Partition,
        at: i64,
    ) -> Result<Option<i64>, Error> {
        let (this, asked) = (self.clone(), partition.clone());
        wake::aside("kafka-ask", move || {
            let found = patiently(|| {
                let times = list::at([&asked], Offset::Offset(at.max(0)))?;
                checked(this.stable()?.offsets_for_times(times, ANSWER)?)
            })?;
            Ok(list::offset_of(&found, &asked))
        })
        .await?
        .map_err(|error| errors::asking(partition, &error))
    }

    /// The stable ends of `partitions`, in their order. Blocks.
    pub(super) fn stable_ends(&self, partitions: &[Partition]) -> Result<Vec<i64>, KafkaError> {
        ends(self.stable()?, partitions, Offset::End)
    }

    /// The extents of `partitions`, in their order. Blocks.
    pub(super) fn extents(&self, partitions: &[Partition]) -> Result<Vec<Extent>, KafkaError> {
        let latest = self.client(&self.0.latest, "read_uncommitted")?;
        let starts = ends(latest, partitions, Offset::Beginning)?;
        let ends = ends(latest, partitions, Offset::End)?;
        Ok(starts
            .into_iter()
            .zip(ends)
            .map(|(start, end)| Extent { start, end })
            .collect())
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Questions")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // A client's end joins its threads: not on a tokio worker.
        let clients = (self.stable.take(), self.latest.take());
        if let Err(error) = wake::start("kafka-drop", move || drop(clients)) {
            tracing::debug!(%error, "clients dropped in place");
        }
    }
}

/// Asks again while a leader is being found: a topic just made has none for a moment.
fn patiently<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if begun.elapsed() < patience(errors::code(&error)) => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
}

fn patience(code: Code) -> Duration {
    let leaderless = [
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::BrokerTransportFailure,
        Code::FencedLeaderEpoch,
        Code::UnknownLeaderEpoch,
    ];
    let unheard = [
        Code::UnknownTopicOrPartition,
        Code::UnknownTopic,
        Code::UnknownPartition,
    ];
    if leaderless.contains(&code) {
        ANSWER
    } else if unheard.contains(&code) {
        // The same is said of a partition without a leader.
        3 * BELIEF
    } else {
        Duration::ZERO
    }
}

/// One end of each partition, in one request a broker.
fn ends(asker: &Asker, partitions: &[Partition], end: Offset) -> Result<Vec<i64>, KafkaError> {
    let found =
        patiently(|| checked(asker.offsets_for_times(list::at(partitions, end)?, ANSWER)?))?;
    let of = |partition| {
        list::offset_of(&found, partition).ok_or(KafkaError::OffsetFetch(Code::UnknownPartition))
    };
    partitions.iter().map(of).collect()
}

fn checked(list: TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    list::first_error(&list).map_or(Ok(list), Err)
}

fn asker(kafka: &KafkaOptions, name: &str, own: &[(&str, String)]) -> Result<Asker, KafkaError> {
    let belief = ("metadata.max.age.ms", BELIEF.as_millis().to_string());
    let own = [own, &[belief]].concat();
    Asker::from_config_and_context(&kafka.client(name, &own), Lines)
}

/// A consumer with a group's id that never joins it.
fn outsider(kafka: &KafkaOptions, group: &str) -> Result<Asker, KafkaError> {
    let own = [
        ("group.id", group.to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        // Reads no position that an open transaction may still change.
        ("isolation.level", "read_committed".to_owned()),
    ];
    asker(kafka, "outside", &own)
}

/// What `group` has committed.
pub(super) async fn committed(
    kafka: &KafkaOptions,
    group: &str,
    partitions: &[Partition],
) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let (kafka, name, asked) = (kafka.clone(), group.to_owned(), partitions.to_vec());
    wake::aside("kafka-committed", move || {
        read_committed(&kafka, &name, &asked)
    })
    .await?
    .map_err(|error| errors::asking(format!("group {group}"), &error))
}

fn read_committed(
    kafka: &KafkaOptions,
    group: &str,
    partitions: &[Partition],
) -> Result<Vec<(Partition, Option<Committed>)>, KafkaError> {
    let outsider = outsider(kafka, group)?;
    let end = Instant::now() + STABLE;
    loop {
        let asked = list::at(partitions, Offset::Invalid)?;
        let left = end.saturating_duration_since(Instant::now());
        match outsider.committed_offsets(asked, left).and_then(checked) {
            Err(error) if waits(&error) && Instant::now() < end => {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            answer => return Ok(list::committed(&answer?, partitions)),
        }
    }
}

fn waits(error: &KafkaError) -> bool {
    [
        Code::UnstableOffsetCommit,
        Code::WaitingForCoordinator,
        Code::NotCoordinator,
        Code::CoordinatorNotAvailable,
        Code::CoordinatorLoadInProgress,
        Code::BrokerTransportFailure,
    ]
    .contains(&errors::code(error))
}

/// Commits for a group that has no members.
pub(super) async fn commit_for_empty_group(
    kafka: &KafkaOptions,
    group: &str,
    positions: &[Position],
) -> Result<(), Error> {
    if positions.is_empty() {
        return Ok(());
    }
    let (kafka, name, positions) = (kafka.clone(), group.to_owned(), positions.to_vec());
    wake::aside("kafka-commit", move || {
        outsider(&kafka, &name)?.commit(&list::to_commit(&positions)?, CommitMode::Sync)
    })
    .await?
    .map_err(|error| errors::committing_outside(group, &error))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::log::{Class, TopicName};

    /// A broker that has just restarted knows of no leader: who asked then learns soon that there
    /// is one.
    #[tokio::test]
    async fn a_partition_that_had_no_leader_is_asked_about_anew() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let partition = TopicName::new("t").partition(0);
        let questions = Questions::new(KafkaOptions::new(brokers.bootstrap_servers()));
        brokers.partition_leader("t", 0, None).unwrap();
        let leaderless = questions.bounds(&partition).await.unwrap_err();
        assert_eq!(leaderless.class(), Class::Retry, "{leaderless}");
        brokers.partition_leader("t", 0, Some(1)).unwrap();
        let bounds = questions.bounds(&partition).await.unwrap();
        assert_eq!((bounds.start, bounds.stable_end), (0, 0));
        let at = questions.offset_at(&partition, 1).await.unwrap();
        assert_eq!(at, None);
    }
}
