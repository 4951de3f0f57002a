//! Owns the reading and the writing of activations on `progress`.
//!
//! It must never give up: a source partition whose activations are not known cannot be routed. The
//! surprise: a place is read to its end and no further, by a reader that lives as long as that
//! takes; the owner of a source partition is the only one who writes what counts there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::log::ranges::RangeReader;
use runtime::log::{
    Assignment, Bounds, Class, Committed, Error, Fetched, Headers, Member, Partition, Producer,
    ProducerOptions, Reader, ReaderOptions, Record, SharedLog, StoredRecord, TopicName,
};
use schemas::records::{Activation, ActivationKey, Span};

const QUEUE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 256 << 10;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The activations in one partition of `progress`.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The last record of each activation's key: however often those were written, what is kept of
    /// them is bounded by how many there are.
    pub(super) records: BTreeMap<Bytes, StoredRecord>,
    /// The offset behind everything that was read.
    pub(super) end: i64,
}

/// The log, and what its clients are named after.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) log: SharedLog,
    pub(super) instance: String,
    pub(super) progress: TopicName,
}

// === impl Found ===

impl Found {
    fn take(&mut self, record: StoredRecord) {
        let Some(key) = record.key.clone().filter(|key| ActivationKey::is_one(key)) else {
            return;
        };
        if record.value.is_some() {
            self.records.insert(key, record);
        } else {
            self.records.remove(&key);
        }
    }
}

// === impl Means ===

impl Means {
    /// The offset behind the last record of a partition as it is now, of which everything below
    /// `known` is known. What is behind it are marks of transactions: no record, and never seen by
    /// who follows the topic, so that the log's own end says nothing.
    pub(super) async fn end(&self, partition: &Partition, known: i64) -> i64 {
        let mut wait = Wait::new();
        loop {
            match self.end_once(partition, known).await {
                Ok(end) => return end,
                Err(error) => wait.out(&error).await,
            }
        }
    }

    async fn end_once(&self, partition: &Partition, known: i64) -> Result<i64, Error> {
        let span = Span {
            partition: partition.number,
            next: known,
            end: self.log.bounds(partition).await?.stable_end,
        };
        let name = format!("{}-control-end", self.instance);
        let mut range = RangeReader::open(&self.log, name, &partition.topic, vec![span]).await?;
        let mut end = known;
        while let Some((_, record)) = range.next().await? {
            end = record.offset + 1;
        }
        Ok(end)
    }

    /// Where the log of `partition` begins and ends, and then the first offset at or after each of
    /// `times`.
    pub(super) async fn facts(
        &self,
        partition: &Partition,
        times: &BTreeSet<i64>,
    ) -> (Bounds, BTreeMap<i64, Option<i64>>) {
        let mut wait = Wait::new();
        loop {
            let facts = async {
                let bounds = self.log.bounds(partition).await?;
                let mut starts = BTreeMap::new();
                for at in times {
                    starts.insert(*at, self.log.offset_at(partition, *at).await?);
                }
                Ok::<_, Error>((bounds, starts))
            };
            match facts.await {
                Ok(facts) => return facts,
                Err(error) => wait.out(&error).await,
            }
        }
    }

    /// The text that was committed with the position of each partition.
    pub(super) async fn metadata(
        &self,
        member: &dyn Member,
        partitions: &[Partition],
    ) -> BTreeMap<Partition, String> {
        let mut wait = Wait::new();
        loop {
            match member.committed(partitions).await {
                Ok(committed) => {
                    let text = |(partition, position): (Partition, Option<Committed>)| {
                        (
                            partition,
                            position
                                .map(|position| position.metadata)
                                .unwrap_or_default(),
                        )
                    };
                    return committed.into_iter().map(text).collect();
                }
                Err(error) => wait.out(&error).await,
            }
        }
    }

    /// Reads each of `places` to its end.
    pub(super) async fn read(&self, places: &BTreeSet<Partition>) -> BTreeMap<Partition, Found> {
        let mut wait = Wait::new();
        loop {
            match self.read_once(places).await {
                Ok(found) => return found,
                Err(error) => wait.out(&error).await,
            }
        }
    }

    async fn read_once(
        &self,
        places: &BTreeSet<Partition>,
    ) -> Result<BTreeMap<Partition, Found>, Error> {
        let options = ReaderOptions {
            name: format!("{}-activations", self.instance),
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let (reader, mut fetched) = self.log.reader(options).await?;
        let mut open = BTreeMap::new();
        let mut found = BTreeMap::new();
        for place in places {
            self.begin(&*reader, place, &mut open, &mut found).await?;
        }
        while !open.is_empty() {
            let gone = || Error::new(Class::Retry, &self.progress, "reader has ended");
            match fetched.recv().await.ok_or_else(gone)? {
                Fetched::Records(assignment, batch)
                    if open.get(&batch.partition) == Some(&assignment) =>
                {
                    let into = found.entry(batch.partition).or_default();
                    into.end = batch
                        .records
                        .last()
                        .map_or(into.end, |last| last.offset + 1);
                    batch
                        .records
                        .into_iter()
                        .for_each(|record| into.take(record));
                }
                Fetched::End(assignment, place) if open.get(&place) == Some(&assignment) => {
                    open.remove(&place);
                    reader.unassign(place);
                }
                Fetched::OutOfRange(assignment, place) if open.get(&place) == Some(&assignment) => {
                    self.begin(&*reader, &place, &mut open, &mut found).await?;
                }
                Fetched::Failed(partition, error) => {
                    tracing::warn!(?partition, %error, "activations cannot be read now");
                }
                Fetched::Records(..) | Fetched::End(..) | Fetched::OutOfRange(..) => {}
            }
        }
        Ok(found)
    }

    async fn begin(
        &self,
        reader: &dyn Reader,
        place: &Partition,
        open: &mut BTreeMap<Partition, Assignment>,
        found: &mut BTreeMap<Partition, Found>,
    ) -> Result<(), Error> {
        let start = self.log.bounds(place).await?.start;
        let nothing = Found {
            records: BTreeMap::new(),
            end: start,
        };
        found.insert(place.clone(), nothing);
        open.insert(place.clone(), reader.assign(place.clone(), start));
        Ok(())
    }

    /// Writes records to `place`, in order, until they are all there: only such of which a copy that
    /// comes late changes nothing.
    pub(super) async fn write(&self, producer: Arc<dyn Producer>, records: Vec<Record>) {
        let mut producer = producer;
        while let Err(other) = self.write_once(&*producer, records.clone()).await {
            producer = other;
        }
    }

    /// Writes records to `place`, in order. Where that fails any of them may be there, or come to be
    /// there late; the producer that comes back takes the place of the one that failed.
    pub(super) async fn write_once(
        &self,
        producer: &dyn Producer,
        records: Vec<Record>,
    ) -> Result<(), Arc<dyn Producer>> {
        let reports = producer.send(records).await.wait().await;
        let failed = reports.iter().find_map(|report| report.as_ref().err());
        let Some(failed) = failed else {
            return Ok(());
        };
        let mut wait = Wait::new();
        let error = Error::new(Class::Unknown, &self.progress, failed);
        wait.out(&error).await;
        // The one that failed may be past writing anything.
        loop {
            let options = ProducerOptions::named(format!("{}-activations", self.instance));
            match self.log.producer(options).await {
                Ok(other) => return Err(other),
                Err(error) => wait.out(&error).await,
            }
        }
    }

    /// The record of an activation at `place`.
    pub(super) fn record(&self, place: &Partition, activation: &Activation) -> Record {
        self.record_of(place, &activation.key(), Some(activation.encode().into()))
    }

    /// The record that takes one back.
    pub(super) fn tombstone(&self, place: &Partition, key: &ActivationKey) -> Record {
        self.record_of(place, key, None)
    }

    fn record_of(&self, place: &Partition, key: &ActivationKey, value: Option<Bytes>) -> Record {
        Record {
            topic: self.progress.clone(),
            partition: Some(place.number),
            key: Some(Bytes::from(key.to_string())),
            value,
            headers: Headers::default(),
        }
    }
}

/// The waits between tries.
#[derive(Debug)]
struct Wait(Duration);

impl Wait {
    fn new() -> Self {
        Self(RETRY_FIRST)
    }

    async fn out(&mut self, error: &Error) {
        tracing::warn!(%error, "activations wait for the log");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY_MAX);
    }
}
