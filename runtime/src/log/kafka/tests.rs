//! The log's contract on a real Kafka, with both group protocols, and what only Kafka can get
//! wrong. They need a broker: `deploy/kafka/kafka up` starts one.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer as _};
use tokio::sync::mpsc;

use super::{GroupProtocol, KafkaLog, KafkaOptions};
use crate::log::contract::{Names, Subject};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::log::{
    Class, Fetched, Headers, Log, MemberOptions, Membership, NotCommitted, NotWritten, Partition,
    Position, ProducerOptions, ReaderOptions, Record, TopicName, Transaction, TransactionOptions,
};

mod classic {
    async fn subject() -> super::Subject {
        super::subject(super::GroupProtocol::Classic)
    }
    crate::log_contract!(subject);
}

mod consumer {
    async fn subject() -> super::Subject {
        super::subject(super::GroupProtocol::Consumer)
    }
    crate::log_contract!(subject);
}

fn subject(protocol: GroupProtocol) -> Subject {
    Subject::new(std::sync::Arc::new(connect(protocol)), ())
}

fn connect(protocol: GroupProtocol) -> KafkaLog {
    let log = KafkaLog::connect(options(protocol));
    log.unwrap()
}

fn options(protocol: GroupProtocol) -> KafkaOptions {
    let brokers = std::env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS names no broker; deploy/kafka/kafka up starts one");
    let mut options = KafkaOptions::new(brokers);
    options.group_protocol = protocol;
    options
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .expect("nothing within a minute")
}

async fn topic(
    log: &KafkaLog,
    names: &Names,
    part: &str,
    partitions: u32,
    max: usize,
) -> TopicName {
    let mut settings = names.settings(part, partitions);
    settings.max_record_bytes = max;
    within(log.create_topics(&[settings])).await.unwrap();
    names.topic(part)
}

fn record(at: &Partition, bytes: usize) -> Record {
    Record {
        topic: at.topic.clone(),
        partition: Some(at.number),
        key: None,
        value: Some(vec![7; bytes].into()),
        headers: Headers::default(),
    }
}

/// Incompressible, so that the broker sees its full size.
fn noise(at: &Partition, bytes: usize) -> Record {
    let mut value = vec![0; bytes];
    crate::clock::Entropy::seeded(1).fill(&mut value);
    Record {
        value: Some(value.into()),
        ..record(at, 0)
    }
}

#[tokio::test]
async fn a_refusal_by_the_broker_names_a_record_that_is_alone_in_its_batch() {
    let log = connect(GroupProtocol::Classic);
    let names = Names::for_case("refused");
    let at = topic(&log, &names, "small", 1, 2_000).await.partition(0);
    for (single, expected) in [(true, NotWritten::TooLarge), (false, NotWritten::Unknown)] {
        let mut options = ProducerOptions::named(names.name("producer"));
        options.single_record_batches = single;
        let producer = log.producer(options).await.unwrap();
        let reports = within(producer.send(vec![noise(&at, 100_000)]).await.wait()).await;
        assert_eq!(reports, [Err(expected)], "single: {single}");
    }
}

#[tokio::test]
async fn a_transaction_refused_by_the_broker_names_the_record_among_others() {
    let log = connect(GroupProtocol::Classic);
    let names = Names::for_case("refused_transaction");
    let at = topic(&log, &names, "small", 1, 2_000).await.partition(0);
    let options = TransactionOptions {
        id: names.name("tx"),
        timeout: Duration::from_secs(5),
    };
    let mut transactions = within(log.transactions(options)).await.unwrap();
    let mut records = vec![record(&at, 10), noise(&at, 30_000), record(&at, 10)];
    let transaction = |records| Transaction {
        records,
        positions: Vec::new(),
        group: None,
    };
    let refused = within(transactions.commit(transaction(records.clone()))).await;
    let Err(NotCommitted::Aborted { refused, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused, [(1, NotWritten::TooLarge)]);
    // Without it the same producer commits.
    records.remove(1);
    within(transactions.commit(transaction(records)))
        .await
        .unwrap();
}

#[tokio::test]
async fn under_kip_848_the_session_timeout_is_the_brokers() {
    let log = connect(GroupProtocol::Consumer);
    let names = Names::for_case("session");
    let topic = topic(&log, &names, "topic", 1, MAX_RECORD_BYTES).await;
    let options = MemberOptions {
        group: names.name("group"),
        topics: vec![topic],
        instance: names.name("one"),
    };
    let from_broker = log
        .admin
        .group_session_timeout(&options.group)
        .await
        .unwrap();
    let (member, _messages) = within(log.member(options)).await.unwrap();
    assert_eq!(Some(member.session_timeout()), from_broker);
    within(member.close()).await;
}

#[tokio::test]
async fn an_end_names_its_topic_where_several_have_the_same_partition_number() {
    let log = connect(GroupProtocol::Classic);
    let names = Names::for_case("ends");
    let mut expected = BTreeSet::new();
    let options = ReaderOptions {
        name: names.name("reader"),
        queue_bytes: 1 << 20,
        batch_bytes: 64 << 10,
    };
    let (reader, mut fetched) = log.reader(options).await.unwrap();
    let producer = log
        .producer(ProducerOptions::named(names.name("p")))
        .await
        .unwrap();
    for (index, part) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let at = topic(&log, &names, part, 1, MAX_RECORD_BYTES)
            .await
            .partition(0);
        let records = (0..index).map(|_| record(&at, 100)).collect();
        within(producer.send(records).await.wait()).await;
        expected.insert((reader.assign(at.clone(), 0), at, index));
    }
    let mut counts = std::collections::BTreeMap::new();
    while !expected.is_empty() {
        match within(fetched.recv()).await.unwrap() {
            Fetched::Records(of, batch) => *counts.entry(of).or_insert(0) += batch.records.len(),
            Fetched::End(of, at) => {
                let count = counts.get(&of).copied().unwrap_or_default();
                // An end may be told anew.
                expected.retain(|(assigned, partition, records)| {
                    let same = *assigned == of;
                    assert!(!same || (*partition == at && *records == count));
                    !same
                });
            }
            Fetched::Failed(..) => {}
            found @ Fetched::OutOfRange(..) => panic!("{found:?}"),
        }
    }
}

/// A dispatcher that lost its lease must not start before the partition is given: nothing is
/// assigned to the second member while the first has not acknowledged, whatever time passes.
#[tokio::test]
async fn commits_in_the_middle_of_a_rebalance_succeed_when_sent_again() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let log = connect(protocol);
        let names = Names::for_case("mid_rebalance");
        let topic = topic(&log, &names, "topic", 4, MAX_RECORD_BYTES).await;
        let join = |instance: &str| MemberOptions {
            group: names.name("group"),
            topics: vec![topic.clone()],
            instance: names.name(instance),
        };
        let (one, mut of_one) = within(log.member(join("one"))).await.unwrap();
        let mut owned = 0;
        while owned < 4 {
            owned += assigned(&mut of_one).await.len();
        }
        let (two, mut of_two) = within(log.member(join("two"))).await.unwrap();
        let revocation = loop {
            match within(of_one.recv()).await.unwrap() {
                Membership::Revoked(revocation) => break revocation,
                Membership::Assigned(_) => {}
                other @ (Membership::Lost(_) | Membership::Fenced(_) | Membership::Failed(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        let moved = revocation.partitions()[0].clone();
        let position = Position {
            partition: moved.clone(),
            offset: 3,
            metadata: "m".to_owned(),
        };
        within(async {
            while let Err(error) = one.commit(vec![position.clone()]).await {
                assert_eq!(error.class(), Class::Retry, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(
            of_two.try_recv().is_err(),
            "assigned before the acknowledgement"
        );
        revocation.acknowledge();
        let mut taken = Vec::new();
        while !taken.contains(&moved) {
            taken.extend(assigned(&mut of_two).await);
        }
        let committed = within(two.committed(&[moved])).await.unwrap();
        assert_eq!(committed[0].1.as_ref().unwrap().metadata, "m");
        within(one.close()).await;
        within(two.close()).await;
    }
}

#[tokio::test]
async fn two_live_static_members_of_one_name_fence_each_other() {
    let mut options = options(GroupProtocol::Classic);
    options.static_membership = true;
    let log = KafkaLog::connect(options).unwrap();
    let names = Names::for_case("static");
    let topic = topic(&log, &names, "topic", 2, MAX_RECORD_BYTES).await;
    let join = || MemberOptions {
        group: names.name("group"),
        topics: vec![topic.clone()],
        instance: names.name("same"),
    };
    let (older, mut of_older) = within(log.member(join())).await.unwrap();
    assert_eq!(assigned(&mut of_older).await.len(), 2);
    let (newer, mut of_newer) = within(log.member(join())).await.unwrap();
    assert_eq!(assigned(&mut of_newer).await.len(), 2);
    let position = Position {
        partition: topic.partition(0),
        offset: 1,
        metadata: String::new(),
    };
    let fenced = loop {
        let refused = within(older.commit(vec![position.clone()]))
            .await
            .unwrap_err();
        if refused.class() != Class::Retry {
            break refused;
        }
    };
    assert_eq!(fenced.class(), Class::Fenced, "{fenced}");
    let told = loop {
        match within(of_older.recv()).await.unwrap() {
            Membership::Fenced(error) => break error,
            Membership::Lost(_) | Membership::Revoked(_) => {}
            other @ (Membership::Assigned(_) | Membership::Failed(_)) => panic!("{other:?}"),
        }
    };
    assert!(told.to_string().contains(&names.name("group")), "{told}");
    within(newer.commit(vec![position])).await.unwrap();
    within(older.close()).await;
    within(newer.close()).await;
}

/// A new owner must not read the position of a hop whose outcome is not settled (rule 6).
#[tokio::test]
async fn committed_positions_are_told_only_when_no_transaction_is_open_on_them() {
    let log = connect(GroupProtocol::Classic);
    let names = Names::for_case("open_transaction");
    let topic = topic(&log, &names, "topic", 1, MAX_RECORD_BYTES).await;
    let member = MemberOptions {
        group: names.name("group"),
        topics: vec![topic.clone()],
        instance: names.name("one"),
    };
    let (member, mut messages) = within(log.member(member)).await.unwrap();
    assert_eq!(assigned(&mut messages).await.len(), 1);
    let config =
        options(GroupProtocol::Classic).client("raw", &[("transactional.id", names.name("raw"))]);
    let raw: BaseProducer = config.create().unwrap();
    raw.init_transactions(Duration::from_secs(10)).unwrap();
    raw.begin_transaction().unwrap();
    let at = topic.partition(0);
    let position = Position {
        partition: at.clone(),
        offset: 5,
        metadata: "hop".to_owned(),
    };
    let group = member.group_metadata().unwrap();
    raw.send_offsets_to_transaction(
        &super::list::to_commit(&[position]).unwrap(),
        group.get().unwrap(),
        Duration::from_secs(10),
    )
    .unwrap();
    let (asked, group_name) = ([at], names.name("group"));
    let mut answer = std::pin::pin!(log.committed(&group_name, &asked));
    let early = tokio::time::timeout(Duration::from_millis(500), answer.as_mut()).await;
    assert!(
        early.is_err(),
        "told while the transaction was open: {early:?}"
    );
    raw.commit_transaction(Duration::from_secs(10)).unwrap();
    let told = within(answer).await.unwrap();
    assert_eq!(told[0].1.as_ref().unwrap().metadata, "hop");
    within(member.close()).await;
}

async fn assigned(messages: &mut mpsc::UnboundedReceiver<Membership>) -> Vec<Partition> {
    let message = within(messages.recv()).await.unwrap();
    let Membership::Assigned(partitions) = message else {
        panic!("{message:?}")
    };
    partitions
}
