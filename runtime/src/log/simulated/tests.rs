//! Tests of the simulated log: the contract, that a seed repeats itself, and what each fault does.

mod membership;
mod records;
mod seeds;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::contract::Subject;
use super::super::{
    Fetched, Headers, Member, MemberOptions, Membership, Partition, Position, Producer,
    ProducerOptions, Reader, ReaderOptions, Record, SharedLog, TopicName, TopicSettings,
    Transaction, TransactionOptions, Transactions,
};
use super::{Latencies, Latency, SimulatedLog, SimulationOptions};

mod contract {
    async fn make() -> super::Subject {
        let log = super::SimulatedLog::new(super::SimulationOptions::default());
        super::Subject::new(log.process("one"), log)
    }
    crate::log_contract!(paused make);
}

mod contract_when_busy {
    async fn make() -> super::Subject {
        let options = super::SimulationOptions {
            seed: 7,
            latencies: super::Latencies::busy(),
            compaction_delay: Some(std::time::Duration::from_secs(5)),
            ..super::SimulationOptions::default()
        };
        let log = super::SimulatedLog::new(options);
        super::Subject::new(log.process("one"), log)
    }
    crate::log_contract!(paused make);
}

const GROUP: &str = "group";

/// A simulation with one topic `t` of `partitions`, that keeps all (or compacts).
async fn simulation(options: SimulationOptions, partitions: u32) -> (SimulatedLog, TopicName) {
    let log = SimulatedLog::new(options);
    let topic = TopicName::new("t");
    make_topic(&log.process("maker"), &topic, partitions).await;
    (log, topic)
}

async fn make_topic(log: &SharedLog, topic: &TopicName, partitions: u32) {
    let settings = TopicSettings {
        name: topic.clone(),
        partitions,
        replication: 0,
        compact: topic.as_str().starts_with("compacted"),
        retention: Duration::from_secs(3600),
        max_record_bytes: 1_000,
        append_time: true,
    };
    log.create_topics(&[settings]).await.unwrap();
}

fn record(partition: &Partition, value: &str) -> Record {
    Record {
        topic: partition.topic.clone(),
        partition: Some(partition.number),
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::default(),
    }
}

fn position(partition: &Partition, offset: i64) -> Position {
    Position {
        partition: partition.clone(),
        offset,
        metadata: String::new(),
    }
}

fn values(log: &SimulatedLog, partition: &Partition) -> Vec<String> {
    let text = |value: Option<Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    log.records(partition)
        .into_iter()
        .map(|record| text(record.value))
        .collect()
}

async fn producer(log: &SharedLog) -> Arc<dyn Producer> {
    log.producer(ProducerOptions::named("p")).await.unwrap()
}

async fn transactions(log: &SharedLog, id: &str) -> Box<dyn Transactions> {
    let options = TransactionOptions {
        id: id.into(),
        timeout: Duration::from_secs(5),
    };
    log.transactions(options).await.unwrap()
}

fn records_only(records: Vec<Record>) -> Transaction {
    Transaction {
        records,
        positions: Vec::new(),
        group: None,
    }
}

type Joined = (Arc<dyn Member>, mpsc::UnboundedReceiver<Membership>);

async fn join(log: &SimulatedLog, instance: &str, topic: &TopicName) -> Joined {
    let options = MemberOptions {
        group: GROUP.into(),
        topics: vec![topic.clone()],
        instance: instance.into(),
    };
    log.process(instance).member(options).await.unwrap()
}

async fn reader(log: &SharedLog) -> (Arc<dyn Reader>, mpsc::Receiver<Fetched>) {
    let options = ReaderOptions {
        name: "r".into(),
        queue_bytes: 1 << 20,
        batch_bytes: 1 << 10,
    };
    log.reader(options).await.unwrap()
}

/// The next message about the group, within a simulated minute.
async fn next(membership: &mut mpsc::UnboundedReceiver<Membership>) -> Membership {
    timeout(Duration::from_secs(60), membership.recv())
        .await
        .unwrap()
        .unwrap()
}

async fn assigned(membership: &mut mpsc::UnboundedReceiver<Membership>) -> Vec<Partition> {
    let message = next(membership).await;
    let Membership::Assigned(partitions) = message else {
        panic!("not assigned: {message:?}")
    };
    partitions
}

/// Whether `future` is still not ready after `time`.
async fn is_stuck<T>(time: Duration, future: impl Future<Output = T>) -> bool {
    timeout(time, future).await.is_err()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn latency(seconds: u64) -> Latency {
    Latency::fixed(Duration::from_secs(seconds))
}
