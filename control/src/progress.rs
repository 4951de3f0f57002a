//! Owns the following of `progress`, every partition of it: what other services leave there.
//!
//! It must never know what a record says. The surprise: it has no position of its own, so whoever
//! follows is told again what it was told before it started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::clock::{Clock, millis};
use runtime::log::{
    Assignment, Class, Error, Fetched, Partition, Reader, ReaderOptions, SharedLog, StoredRecord,
    TopicName,
};
use tokio::sync::mpsc;
use tracing::warn;

const QUEUE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 256 << 10;

/// From where on.
#[derive(Debug)]
pub(crate) enum Since {
    /// All that is kept.
    Start,
    /// What was written in this last while.
    Last(Duration, Clock),
}

/// `progress` as it grows.
#[derive(Debug)]
pub(crate) struct Progress {
    log: SharedLog,
    topic: TopicName,
    since: Since,
    reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
    assigned: BTreeMap<Partition, Assignment>,
}

impl Progress {
    /// Starts to follow; `name` is the reader's.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub(crate) async fn follow(
        log: &SharedLog,
        topic: &TopicName,
        (name, since): (&str, Since),
    ) -> Result<Self, Error> {
        let options = ReaderOptions {
            name: name.to_owned(),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, fetched) = log.reader(options).await?;
        let missing = || Error::new(Class::Never, topic, "topic does not exist");
        let shape = log.describe_topic(topic).await?.ok_or_else(missing)?;
        let mut progress = Self {
            log: log.clone(),
            topic: topic.clone(),
            since,
            reader,
            fetched,
            assigned: BTreeMap::new(),
        };
        for number in 0..shape.partitions {
            progress.assign(topic.partition(number)).await?;
        }
        Ok(progress)
    }

    /// The next records, of one partition. Waits until there are some.
    ///
    /// # Errors
    /// When the topic cannot be read any more.
    pub(crate) async fn next(&mut self) -> Result<Vec<StoredRecord>, Error> {
        while let Some(message) = self.fetched.recv().await {
            match message {
                Fetched::Records(_, batch) => return Ok(batch.records),
                Fetched::OutOfRange(assignment, partition) => {
                    if self.assigned.get(&partition) == Some(&assignment) {
                        self.assign(partition).await?;
                    }
                }
                Fetched::Failed(_, error) => warn!(%error, "progress cannot be read now"),
                Fetched::End(..) => {}
            }
        }
        Err(Error::new(Class::Retry, &self.topic, "reader has ended"))
    }

    async fn assign(&mut self, partition: Partition) -> Result<(), Error> {
        let bounds = self.log.bounds(&partition).await?;
        let start = match &self.since {
            Since::Start => bounds.start,
            Since::Last(ago, clock) => {
                let at = clock.now().saturating_sub(millis(*ago));
                let found = self.log.offset_at(&partition, at).await?;
                found.unwrap_or(bounds.stable_end)
            }
        };
        let assignment = self.reader.assign(partition.clone(), start);
        self.assigned.insert(partition, assignment);
        Ok(())
    }
}
