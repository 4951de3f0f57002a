//! Owns the topics of a simulation: making them, appending to them, and what becomes visible when.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::{
    Bounds, Class, Error, NotWritten, Partition, Record, StoredRecord, TopicName, TopicSettings,
    TopicShape,
};
use super::partition::{Entry, PartitionLog};
use super::world::World;
use crate::clock::{UnixMillis, millis};

/// A topic and its partitions.
#[derive(Debug)]
pub(super) struct Topic {
    settings: TopicSettings,
    partitions: Vec<PartitionLog>,
    compaction_due: bool,
}

pub(super) fn unknown_partition(partition: &Partition) -> Error {
    Error::new(Class::Never, partition, "topic or partition does not exist")
}

impl World {
    /// Makes the topics that are missing.
    pub(super) fn create_topics(&mut self, topics: &[TopicSettings]) -> Vec<TopicName> {
        let mut made = Vec::new();
        for settings in topics {
            if self.topics.contains_key(&settings.name) {
                continue;
            }
            let partitions = (0..settings.partitions)
                .map(|_| PartitionLog::default())
                .collect();
            let topic = Topic {
                settings: settings.clone(),
                partitions,
                compaction_due: false,
            };
            self.topics.insert(settings.name.clone(), topic);
            self.note(format!(
                "topic {} made with {}",
                settings.name, settings.partitions
            ));
            made.push(settings.name.clone());
        }
        for name in &made {
            self.topic_appeared(name);
        }
        made
    }

    /// The shape of a topic, in Kafka's names.
    pub(super) fn describe(&self, topic: &TopicName) -> Option<TopicShape> {
        let Topic {
            settings,
            partitions,
            ..
        } = self.topics.get(topic)?;
        let mut named = vec![
            ("max.message.bytes", settings.max_record_bytes.to_string()),
            (
                "cleanup.policy",
                if settings.compact {
                    "compact"
                } else {
                    "delete"
                }
                .into(),
            ),
            (
                "message.timestamp.type",
                if settings.append_time {
                    "LogAppendTime"
                } else {
                    "CreateTime"
                }
                .into(),
            ),
        ];
        if !settings.compact {
            named.push(("retention.ms", settings.retention.as_millis().to_string()));
        }
        Some(TopicShape {
            partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
            replication: settings.replication.max(1),
            settings: named
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        })
    }

    pub(super) fn partition(&self, partition: &Partition) -> Option<&PartitionLog> {
        let number = usize::try_from(partition.number).ok()?;
        self.topics.get(&partition.topic)?.partitions.get(number)
    }

    pub(super) fn partition_mut(&mut self, partition: &Partition) -> Option<&mut PartitionLog> {
        let number = usize::try_from(partition.number).ok()?;
        self.topics
            .get_mut(&partition.topic)?
            .partitions
            .get_mut(number)
    }

    pub(super) fn bounds(&self, partition: &Partition) -> Result<Bounds, Error> {
        let log = self
            .partition(partition)
            .ok_or_else(|| unknown_partition(partition))?;
        Ok(log.bounds())
    }

    pub(super) fn offset_at(&self, partition: &Partition, at: i64) -> Result<Option<i64>, Error> {
        let log = self
            .partition(partition)
            .ok_or_else(|| unknown_partition(partition))?;
        Ok(log.offset_at(at))
    }

    /// The partitions of `topic`, none where it does not exist.
    pub(super) fn partitions_of(&self, topic: &TopicName) -> Vec<Partition> {
        let count = self
            .topics
            .get(topic)
            .map_or(0, |topic| topic.partitions.len());
        (0..u32::try_from(count).unwrap_or(u32::MAX))
            .map(|n| topic.partition(n))
            .collect()
    }

    /// Where `record` goes, by its number, its key's hash, or `spread`; or why it is never taken.
    pub(super) fn place(&self, record: &Record, spread: &mut u32) -> Result<Partition, NotWritten> {
        let topic = self.topics.get(&record.topic).ok_or(NotWritten::Invalid)?;
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let number = match (record.partition, &record.key) {
            (Some(number), _) => number,
            (None, Some(key)) => hash(key).checked_rem(count).unwrap_or(0),
            (None, None) => {
                *spread = spread.wrapping_add(1);
                spread.checked_rem(count).unwrap_or(0)
            }
        };
        if number >= count {
            return Err(NotWritten::Invalid);
        }
        if record.len_bytes() > topic.settings.max_record_bytes {
            return Err(NotWritten::TooLarge);
        }
        // A compacted topic refuses what has no key.
        if topic.settings.compact && record.key.is_none() {
            return Err(NotWritten::Invalid);
        }
        Ok(record.topic.partition(number))
    }

    /// Appends records in order; returns the first offset, and in how long readers can see them.
    pub(super) fn append(
        &mut self,
        partition: &Partition,
        records: &[Record],
        sent_at: UnixMillis,
        transaction: Option<u64>,
    ) -> (i64, Duration) {
        let now = self.clock.now();
        let append_time = self
            .topics
            .get(&partition.topic)
            .is_some_and(|topic| topic.settings.append_time);
        let Some(log) = self.partition_mut(partition) else {
            return (-1, Duration::ZERO);
        };
        let first = log.end();
        for record in records {
            let stored = StoredRecord {
                offset: first,
                timestamp: if append_time { now } else { sent_at },
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
            };
            log.append(stored, transaction);
        }
        self.note(format!("{partition} takes {} from {first}", records.len()));
        (first, self.grown(partition))
    }

    /// Everything in `partition` becomes visible after the delay that is returned.
    pub(super) fn grown(&mut self, partition: &Partition) -> Duration {
        let end = self.partition(partition).map_or(0, PartitionLog::end);
        let delay = self.draw(|latencies| latencies.visible);
        let shown = partition.clone();
        self.later(delay, move |world| {
            if let Some(log) = world.partition_mut(&shown) {
                log.show(end);
            }
            world.poke_readers(&shown);
        });
        self.schedule_compaction(&partition.topic);
        delay
    }

    fn schedule_compaction(&mut self, name: &TopicName) {
        let Some(delay) = self.options.compaction_delay else {
            return;
        };
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if topic.settings.compact && !topic.compaction_due {
            topic.compaction_due = true;
            let name = name.clone();
            self.later(delay, move |world| world.compact(&name));
        }
    }

    /// Compacts every partition of a topic now.
    pub(super) fn compact(&mut self, name: &TopicName) {
        let from = self.clock.now() - millis(self.options.tombstones_kept);
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        topic.compaction_due = false;
        let gone: usize = topic
            .partitions
            .iter_mut()
            .map(|log| log.compact(from))
            .sum();
        self.note(format!("topic {name} compacted, {gone} entries gone"));
    }

    /// What is at every offset of a topic.
    pub(super) fn dump(&self, name: &TopicName) -> BTreeMap<Partition, Vec<Entry>> {
        let dump = |partition: Partition| {
            let log = self.partition(&partition)?;
            Some((partition, log.entries().cloned().collect()))
        };
        self.partitions_of(name)
            .into_iter()
            .filter_map(dump)
            .collect()
    }
}

// FNV-1a: stable, and not Kafka's, so nothing may rely on where a key goes.
fn hash(key: &Bytes) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
