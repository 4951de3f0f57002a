//! Owns the following of `results`: one reader for all syncs of the process, each of which is handed
//! what is about its own subscription; and the reading again of what a restart has missed.
//!
//! It must never lose a report between the two: a sync is put on the list at a position, gets all
//! that is read behind it, and reads what is before it by itself. The surprise: all partitions are
//! read, because a report's key is its chunk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runtime::log::{Class, Error, Fetched, Reader, ReaderOptions, SharedLog, TopicName};
use schemas::ids::SubscriptionId;
use schemas::records::ResultRecord;
use tokio::sync::mpsc;
use tracing::warn;

const QUEUE_BYTES: usize = 8 << 20;
const BATCH_BYTES: usize = 1 << 20;

/// Where each partition is read from next.
pub(crate) type Positions = BTreeMap<u32, i64>;

/// Hands reports to the syncs that they are about. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Routes>>);

#[derive(Debug, Default)]
struct Routes {
    to: HashMap<SubscriptionId, mpsc::UnboundedSender<ResultRecord>>,
    positions: Positions,
}

impl Hub {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every report about `subscription` behind the positions that this returns goes to the
    /// receiver. As many as a sync has in flight may wait there.
    pub(crate) fn listen(
        &self,
        subscription: SubscriptionId,
    ) -> (mpsc::UnboundedReceiver<ResultRecord>, Positions) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut routes = self.routes();
        routes.to.insert(subscription, sender);
        (receiver, routes.positions.clone())
    }

    /// All reports before these have been handed over.
    pub(crate) fn positions(&self) -> Positions {
        self.routes().positions.clone()
    }

    fn hand_over(&self, partition: u32, reports: Vec<ResultRecord>, next: i64) {
        let mut routes = self.routes();
        for report in reports {
            let subscription = report.subscription;
            if let Some(to) = routes.to.get(&subscription)
                && to.send(report).is_err()
            {
                routes.to.remove(&subscription);
            }
        }
        routes.positions.insert(partition, next);
    }
}

/// Follows `results` for a hub.
#[derive(Debug)]
pub(crate) struct Results {
    hub: Hub,
    log: SharedLog,
    reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
}

impl Results {
    /// From the end as it is now.
    ///
    /// # Errors
    /// Where the topic cannot be read.
    pub(crate) async fn open(log: &SharedLog, topic: &TopicName, hub: Hub) -> Result<Self, Error> {
        let (reader, fetched) = log.reader(options("cohorts-results")).await?;
        for number in 0..partitions(log, topic).await? {
            let partition = topic.partition(number);
            let end = log.bounds(&partition).await?.stable_end;
            hub.routes().positions.insert(number, end);
            reader.assign(partition, end);
        }
        Ok(Self {
            hub,
            log: log.clone(),
            reader,
            fetched,
        })
    }

    /// Hands reports over, for ever.
    ///
    /// # Errors
    /// When the reader is gone.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let gone = || Error::new(Class::Retry, "results", "reader has ended");
            match self.fetched.recv().await.ok_or_else(gone)? {
                Fetched::Records(_, batch) => {
                    let Some(last) = batch.records.last() else {
                        continue;
                    };
                    let next = last.offset + 1;
                    let reports = batch.records.iter();
                    let reports = reports.filter_map(|record| decode(record.value.as_deref()?));
                    self.hub
                        .hand_over(batch.partition.number, reports.collect(), next);
                }
                Fetched::OutOfRange(_, partition) => {
                    let start = self.log.bounds(&partition).await?.start;
                    self.reader.assign(partition, start);
                }
                Fetched::Failed(_, error) => warn!(%error, "results cannot be read now"),
                Fetched::End(..) => {}
            }
        }
    }
}

/// The reports about `subscription` from one set of positions up to another.
///
/// # Errors
/// Where they cannot be read.
pub(crate) async fn between(
    log: &SharedLog,
    topic: &TopicName,
    subscription: SubscriptionId,
    (from, to): (&Positions, &Positions),
) -> Result<Vec<ResultRecord>, Error> {
    let (reader, mut fetched) = log.reader(options("cohorts-missed")).await?;
    let mut behind = BTreeMap::new();
    for (number, end) in to {
        let partition = topic.partition(*number);
        let start = log.bounds(&partition).await?.start;
        let next = from.get(number).copied().unwrap_or(*end).max(start);
        if next < *end {
            reader.assign(partition.clone(), next);
            behind.insert(partition, *end);
        }
    }
    let mut found = Vec::new();
    while !behind.is_empty() {
        let gone = || Error::new(Class::Retry, "results", "reader has ended");
        match fetched.recv().await.ok_or_else(gone)? {
            Fetched::Records(_, batch) => {
                let reports = batch.records.iter();
                let reports = reports.filter_map(|record| decode(record.value.as_deref()?));
                found.extend(reports.filter(|report| report.subscription == subscription));
                let last = batch.records.last().map_or(0, |record| record.offset);
                if behind
                    .get(&batch.partition)
                    .is_some_and(|end| last + 1 >= *end)
                {
                    behind.remove(&batch.partition);
                    reader.unassign(batch.partition);
                }
            }
            Fetched::End(_, partition) => drop(behind.remove(&partition)),
            Fetched::OutOfRange(_, partition) => {
                // Retention took it between the two: what was there is sent again.
                behind.remove(&partition);
            }
            Fetched::Failed(_, error) => warn!(%error, "results cannot be read now"),
        }
    }
    Ok(found)
}

/// How many partitions a topic has.
///
/// # Errors
/// Where it cannot be asked, or is not there.
pub(crate) async fn partitions(log: &SharedLog, topic: &TopicName) -> Result<u32, Error> {
    let shape = log.describe_topic(topic).await?;
    let missing = || Error::new(Class::Retry, topic, "topic does not exist");
    Ok(shape.ok_or_else(missing)?.partitions)
}

fn options(name: &str) -> ReaderOptions {
    ReaderOptions {
        name: name.to_owned(),
        queue_bytes: QUEUE_BYTES,
        batch_bytes: BATCH_BYTES,
    }
}

fn decode(value: &[u8]) -> Option<ResultRecord> {
    let decoded = ResultRecord::decode(value);
    let read = decoded.inspect_err(|error| warn!(%error, "report cannot be read"));
    read.ok()
}
