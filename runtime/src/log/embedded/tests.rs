//! What the embedded log promises beyond the contract: what survives, what goes, and who may open.

mod crash;
mod keeping;

use std::path::Path;

use bytes::Bytes;

use super::super::contract::Subject;
use super::*;
use crate::log::{Acks, Headers, Record};

async fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EmbeddedLog::open(EmbeddedOptions::in_dir(dir.path()))
        .await
        .unwrap();
    Subject::new(Arc::new(log), dir)
}

crate::log_contract!(subject);

async fn open(dir: &Path) -> (EmbeddedLog, Closed) {
    EmbeddedLog::open(EmbeddedOptions::in_dir(dir))
        .await
        .unwrap()
}

fn topic(name: &str, partitions: u32) -> TopicSettings {
    TopicSettings {
        name: TopicName::new(name),
        partitions,
        replication: 0,
        compact: false,
        retention: Duration::from_secs(14 * 24 * 3600),
        max_record_bytes: 1 << 20,
        append_time: false,
    }
}

fn record(partition: &Partition, value: impl Into<Bytes>) -> Record {
    Record {
        topic: partition.topic.clone(),
        partition: Some(partition.number),
        key: None,
        value: Some(value.into()),
        headers: Headers::default(),
    }
}

async fn send(log: &EmbeddedLog, records: Vec<Record>) -> Acks {
    log.producer(ProducerOptions::named("test"))
        .await
        .unwrap()
        .send(records)
        .await
}

async fn write(log: &EmbeddedLog, records: Vec<Record>) -> Vec<i64> {
    let reports = send(log, records).await.wait().await;
    reports.into_iter().map(|report| report.unwrap()).collect()
}

/// (offset, key, value) of everything from `offset` to the end.
async fn read(
    log: &EmbeddedLog,
    partition: &Partition,
    offset: i64,
) -> Option<Vec<(i64, Option<Bytes>, Option<Bytes>)>> {
    let options = ReaderOptions {
        name: "test".into(),
        queue_bytes: 1 << 20,
        batch_bytes: 64 << 10,
    };
    let (reader, mut fetched) = log.reader(options).await.unwrap();
    reader.assign(partition.clone(), offset);
    let mut records = Vec::new();
    loop {
        match fetched.recv().await.unwrap() {
            Fetched::Records(_, batch) => records.extend(
                batch
                    .records
                    .into_iter()
                    .map(|record| (record.offset, record.key, record.value)),
            ),
            Fetched::End(..) => return Some(records),
            Fetched::OutOfRange(..) => return None,
            Fetched::Failed(_, error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_log_opened_again_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let partition = TopicName::new("t").partition(1);
    let (log, closed) = open(dir.path()).await;
    log.create_topics(&[topic("t", 2)]).await.unwrap();
    assert_eq!(
        write(&log, vec![record(&partition, "a"), record(&partition, "b")]).await,
        [0, 1]
    );
    let position = Position {
        partition: partition.clone(),
        offset: 1,
        metadata: "here".to_owned(),
    };
    log.commit_for_empty_group("group", std::slice::from_ref(&position))
        .await
        .unwrap();
    drop(log);
    closed.wait().await;

    let (log, _) = open(dir.path()).await;
    assert_eq!(log.create_topics(&[topic("t", 2)]).await.unwrap(), []);
    assert_eq!(
        log.bounds(&partition).await.unwrap(),
        Bounds {
            start: 0,
            stable_end: 2
        }
    );
    let committed = log
        .committed("group", std::slice::from_ref(&partition))
        .await
        .unwrap();
    let expected = Committed {
        offset: 1,
        metadata: "here".to_owned(),
    };
    assert_eq!(committed, [(partition.clone(), Some(expected))]);
    assert_eq!(write(&log, vec![record(&partition, "c")]).await, [2]);
    let values: Vec<_> = read(&log, &partition, 0)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, _, value)| value)
        .collect();
    assert_eq!(
        values,
        ["a", "b", "c"].map(|value| Some(Bytes::from(value)))
    );
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = open(dir.path()).await;
    let refused = EmbeddedLog::open(EmbeddedOptions::in_dir(dir.path()))
        .await
        .unwrap_err();
    assert_eq!(refused.class(), Class::Never);
    let text = refused.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
}

#[tokio::test]
async fn a_reader_waits_for_a_topic_that_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path()).await;
    let partition = TopicName::new("later").partition(0);
    let options = ReaderOptions {
        name: "test".into(),
        queue_bytes: 1 << 20,
        batch_bytes: 64 << 10,
    };
    let (reader, mut fetched) = log.reader(options).await.unwrap();
    let assignment = reader.assign(partition.clone(), 0);
    assert!(matches!(fetched.recv().await, Some(Fetched::Failed(Some(of), _)) if of == partition));
    log.create_topics(&[topic("later", 1)]).await.unwrap();
    assert!(matches!(fetched.recv().await, Some(Fetched::End(of, _)) if of == assignment));
}

#[tokio::test]
async fn a_newer_member_of_the_same_name_fences_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path()).await;
    log.create_topics(&[topic("t", 1)]).await.unwrap();
    let options = || MemberOptions {
        group: "g".into(),
        topics: vec![TopicName::new("t")],
        instance: "same".into(),
    };
    let (older, mut of_older) = log.member(options()).await.unwrap();
    assert!(matches!(
        of_older.recv().await,
        Some(Membership::Assigned(_))
    ));
    let (_newer, mut of_newer) = log.member(options()).await.unwrap();
    assert!(matches!(of_older.recv().await, Some(Membership::Fenced(_))));
    assert!(matches!(of_newer.recv().await, Some(Membership::Assigned(all)) if all.len() == 1));
    assert_eq!(older.group_metadata().unwrap_err().class(), Class::Fenced);
    let refused = older.commit(Vec::new()).await;
    assert_eq!(refused.unwrap_err().class(), Class::Fenced);
}
