//! Owns what the cases say often: write, read, join, under one deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Names;
use crate::log::{
    Assignment, Class, Committed, Error, Fetched, Headers, Member, MemberOptions, Membership,
    Partition, Position, Producer, ProducerOptions, Reader, ReaderOptions, Record, Revocation,
    SharedLog, StoredRecord, TopicName, TopicSettings, TransactionOptions, Transactions,
};

/// Generous: a rebalance of Kafka on a busy machine takes seconds.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, Box::pin(work)).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

pub(super) async fn create(log: &SharedLog, settings: &TopicSettings) -> TopicName {
    let made = within(
        "create topic",
        log.create_topics(std::slice::from_ref(settings)),
    )
    .await;
    assert_eq!(made.unwrap(), std::slice::from_ref(&settings.name));
    settings.name.clone()
}

pub(super) async fn producer(log: &SharedLog, names: &Names) -> Arc<dyn Producer> {
    let options = ProducerOptions::named(names.name("producer"));
    within("open producer", log.producer(options))
        .await
        .unwrap()
}

pub(super) async fn transactions(log: &SharedLog, names: &Names) -> Box<dyn Transactions> {
    let options = TransactionOptions {
        id: names.name("transactions"),
        timeout: Duration::from_secs(5),
    };
    within("open transactions", log.transactions(options))
        .await
        .unwrap()
}

pub(super) fn record(partition: &Partition, value: impl Into<Bytes>) -> Record {
    Record {
        topic: partition.topic.clone(),
        partition: Some(partition.number),
        key: None,
        value: Some(value.into()),
        headers: Headers::default(),
    }
}

pub(super) fn numbered(partition: &Partition, numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers
        .map(|number| record(partition, number.to_string()))
        .collect()
}

/// Writes `records` and returns their offsets; every one must be taken.
pub(super) async fn write(log: &SharedLog, names: &Names, records: Vec<Record>) -> Vec<i64> {
    let producer = producer(log, names).await;
    let acks = within("send", producer.send(records)).await;
    within("acks", acks.wait())
        .await
        .into_iter()
        .map(|ack| ack.unwrap())
        .collect()
}

pub(super) fn text(record: &StoredRecord) -> String {
    String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
}

pub(super) fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// A reader and what it has found.
pub(super) struct Reading {
    pub(super) reader: Arc<dyn Reader>,
    fetched: mpsc::Receiver<Fetched>,
}

impl Reading {
    pub(super) async fn open(log: &SharedLog, names: &Names) -> Self {
        Self::with(log, names, 1 << 20, 256 << 10).await
    }

    pub(super) async fn with(
        log: &SharedLog,
        names: &Names,
        queue_bytes: usize,
        batch_bytes: usize,
    ) -> Self {
        let options = ReaderOptions {
            name: names.name("reader"),
            queue_bytes,
            batch_bytes,
        };
        let (reader, fetched) = within("open reader", log.reader(options)).await.unwrap();
        Self { reader, fetched }
    }

    /// The next message that is not about a passing failure.
    pub(super) async fn next(&mut self) -> Fetched {
        loop {
            match within("fetch", self.fetched.recv())
                .await
                .expect("the reader ended")
            {
                Fetched::Failed(_, error) if error.class() == Class::Retry => {}
                found @ (Fetched::Records(..)
                | Fetched::End(..)
                | Fetched::OutOfRange(..)
                | Fetched::Failed(..)) => return found,
            }
        }
    }

    /// Everything of `assignment` up to an end that comes when at least `count` records have.
    pub(super) async fn until_end(
        &mut self,
        assignment: Assignment,
        count: usize,
    ) -> Vec<StoredRecord> {
        let mut records = Vec::new();
        loop {
            match self.next().await {
                Fetched::Records(of, batch) if of == assignment => {
                    assert!(!batch.records.is_empty(), "an empty batch");
                    records.extend(batch.records);
                }
                Fetched::End(of, _) if of == assignment && records.len() >= count => break,
                Fetched::Records(of, _) | Fetched::End(of, _) => {
                    assert!(of <= assignment, "a message of a later assignment");
                }
                found @ (Fetched::OutOfRange(..) | Fetched::Failed(..)) => {
                    panic!("{found:?} while reading {assignment:?}")
                }
            }
        }
        assert!(
            records.is_sorted_by(|a, b| a.offset < b.offset),
            "offsets do not grow"
        );
        records
    }
}

/// The values of `partition` from its start to its end, of which there are at least `count`.
pub(super) async fn read(
    log: &SharedLog,
    names: &Names,
    partition: &Partition,
    count: usize,
) -> Vec<StoredRecord> {
    let mut reading = Reading::open(log, names).await;
    let assignment = reading.reader.assign(partition.clone(), 0);
    reading.until_end(assignment, count).await
}

pub(super) async fn read_texts(
    log: &SharedLog,
    names: &Names,
    partition: &Partition,
    count: usize,
) -> Vec<String> {
    read(log, names, partition, count)
        .await
        .iter()
        .map(text)
        .collect()
}

/// A member and what it owns.
pub(super) struct Owner {
    pub(super) member: Arc<dyn Member>,
    events: mpsc::UnboundedReceiver<Membership>,
    pub(super) owned: BTreeSet<Partition>,
}

impl Owner {
    pub(super) async fn join(
        log: &SharedLog,
        names: &Names,
        instance: &str,
        topic: &TopicName,
    ) -> Self {
        Self::join_group(log, names.name("group"), instance, topic).await
    }

    pub(super) async fn join_group(
        log: &SharedLog,
        group: String,
        instance: &str,
        topic: &TopicName,
    ) -> Self {
        let instance = format!("{group}.{instance}");
        let options = MemberOptions {
            group,
            topics: vec![topic.clone()],
            instance,
        };
        let (member, events) = within("join", log.member(options)).await.unwrap();
        Self {
            member,
            events,
            owned: BTreeSet::new(),
        }
    }

    /// Waits for a message; gives a revocation back, with its partitions no longer counted as
    /// owned.
    pub(super) async fn step(&mut self) -> Option<Revocation> {
        let event = within("membership", self.events.recv())
            .await
            .expect("the membership ended");
        self.apply(event)
    }

    /// Applies what has come without waiting; nothing may be revoked in it.
    pub(super) fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            assert!(self.apply(event).is_none(), "an unexpected revocation");
        }
    }

    fn apply(&mut self, event: Membership) -> Option<Revocation> {
        match event {
            Membership::Assigned(partitions) => {
                for partition in partitions {
                    assert!(
                        self.owned.insert(partition.clone()),
                        "{partition} assigned twice"
                    );
                }
                None
            }
            Membership::Revoked(revocation) => {
                for partition in revocation.partitions() {
                    assert!(
                        self.owned.remove(partition),
                        "{partition} revoked but not owned"
                    );
                }
                Some(revocation)
            }
            event @ (Membership::Lost(_) | Membership::Fenced(_) | Membership::Failed(_)) => {
                panic!("unexpected {event:?}")
            }
        }
    }

    pub(super) async fn revocation(&mut self) -> Revocation {
        loop {
            if let Some(revocation) = self.step().await {
                return revocation;
            }
        }
    }

    /// Waits until it owns all of `partitions`, acknowledging whatever is revoked meanwhile.
    pub(super) async fn own(&mut self, partitions: &BTreeSet<Partition>) {
        while self.owned != *partitions {
            drop(self.step().await);
        }
    }

    /// Commits, again as long as the log says that it may succeed later.
    pub(super) async fn commit(&self, positions: Vec<Position>) -> Result<(), Error> {
        within("commit", retrying(|| self.member.commit(positions.clone()))).await
    }

    pub(super) async fn committed(&self, partition: &Partition) -> Option<Committed> {
        let asked = [partition.clone()];
        let answer = within("committed", self.member.committed(&asked))
            .await
            .unwrap();
        only(answer, partition)
    }
}

/// Calls again while the answer is [`Class::Retry`].
pub(super) async fn retrying<T, F, W>(mut call: F) -> Result<T, Error>
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, Error>>,
{
    loop {
        match call().await {
            Err(error) if error.class() == Class::Retry => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

pub(super) fn only(
    answer: Vec<(Partition, Option<Committed>)>,
    partition: &Partition,
) -> Option<Committed> {
    let [(of, committed)] = <[_; 1]>::try_from(answer).unwrap();
    assert_eq!(of, *partition);
    committed
}

pub(super) fn position(partition: &Partition, offset: i64, metadata: &str) -> Position {
    Position {
        partition: partition.clone(),
        offset,
        metadata: metadata.to_owned(),
    }
}

pub(super) fn committed(offset: i64, metadata: &str) -> Option<Committed> {
    Some(Committed {
        offset,
        metadata: metadata.to_owned(),
    })
}

pub(super) fn partitions(topic: &TopicName, count: u32) -> BTreeSet<Partition> {
    (0..count).map(|number| topic.partition(number)).collect()
}
