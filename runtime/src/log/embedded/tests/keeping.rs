//! What goes: by time, by bytes, by key.

use std::collections::BTreeMap;

use super::*;

const DAY_MS: i64 = 24 * 3_600_000;
const START: i64 = 1_700_000_000_000;

async fn open_at(dir: &Path, now: i64, retention_bytes: u64) -> (EmbeddedLog, Closed) {
    let mut options = EmbeddedOptions::in_dir(dir);
    options.clock = Clock::simulated(now);
    options.retention_bytes = retention_bytes;
    let (log, closed) = EmbeddedLog::open(options).await.unwrap();
    // The writer keeps house before it answers anything.
    log.committed("nobody", &[]).await.unwrap();
    (log, closed)
}

async fn close((log, closed): (EmbeddedLog, Closed)) {
    drop(log);
    closed.wait().await;
}

#[tokio::test]
async fn records_go_when_their_topic_says_and_the_start_moves() {
    let dir = tempfile::tempdir().unwrap();
    let partition = TopicName::new("t").partition(0);
    let (log, closed) = open_at(dir.path(), START, u64::MAX).await;
    log.create_topics(&[topic("t", 1)]).await.unwrap();
    write(&log, vec![record(&partition, "0"), record(&partition, "1")]).await;
    close((log, closed)).await;

    let (log, closed) = open_at(dir.path(), START + 7 * DAY_MS, u64::MAX).await;
    assert_eq!(
        log.bounds(&partition).await.unwrap(),
        Bounds {
            start: 0,
            stable_end: 2
        }
    );
    write(&log, vec![record(&partition, "2")]).await;
    close((log, closed)).await;

    let (log, closed) = open_at(dir.path(), START + 15 * DAY_MS, u64::MAX).await;
    assert_eq!(
        log.bounds(&partition).await.unwrap(),
        Bounds {
            start: 2,
            stable_end: 3
        }
    );
    assert_eq!(
        read(&log, &partition, 1).await,
        None,
        "before the start is out of range"
    );
    assert_eq!(read(&log, &partition, 2).await.unwrap().len(), 1);
    close((log, closed)).await;

    // Everything went: the offsets go on all the same.
    let (log, closed) = open_at(dir.path(), START + 30 * DAY_MS, u64::MAX).await;
    assert_eq!(
        log.bounds(&partition).await.unwrap(),
        Bounds {
            start: 3,
            stable_end: 3
        }
    );
    close((log, closed)).await;
    let (log, _) = open_at(dir.path(), START + 30 * DAY_MS, u64::MAX).await;
    assert_eq!(
        log.bounds(&partition).await.unwrap(),
        Bounds {
            start: 3,
            stable_end: 3
        }
    );
    assert_eq!(write(&log, vec![record(&partition, "3")]).await, [3]);
    assert_eq!(log.offset_at(&partition, 0).await.unwrap(), Some(3));
}

#[tokio::test]
async fn the_oldest_of_all_partitions_go_when_there_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (
        TopicName::new("old").partition(0),
        TopicName::new("new").partition(0),
    );
    let (log, closed) = open_at(dir.path(), START, u64::MAX).await;
    log.create_topics(&[topic("old", 1), topic("new", 1)])
        .await
        .unwrap();
    let fill = |partition: &Partition| vec![record(partition, vec![1; 100 << 10]); 5];
    write(&log, fill(&old)).await;
    close((log, closed)).await;
    let (log, closed) = open_at(dir.path(), START + DAY_MS, u64::MAX).await;
    write(&log, fill(&new)).await;
    close((log, closed)).await;

    let (log, _) = open_at(dir.path(), START + DAY_MS, 700 << 10).await;
    assert_eq!(
        log.bounds(&old).await.unwrap(),
        Bounds {
            start: 4,
            stable_end: 5
        }
    );
    assert_eq!(
        log.bounds(&new).await.unwrap(),
        Bounds {
            start: 0,
            stable_end: 5
        }
    );
    assert_eq!(read(&log, &new, 0).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_record_of_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = topic("state", 2);
    settings.compact = true;
    let (mut log, mut closed) = open_at(dir.path(), START, u64::MAX).await;
    log.create_topics(&[settings]).await.unwrap();
    let mut oracle: [BTreeMap<Bytes, (i64, Option<Bytes>)>; 2] = Default::default();
    for round in 0..12_u32 {
        // Many of one round have the same key: those never reach the store.
        let changes: Vec<_> = (0..20_u32)
            .map(|step| {
                let mixed = (round * 20 + step).wrapping_mul(2_654_435_761) >> 16;
                let value = (!mixed.is_multiple_of(5)).then(|| Bytes::from(mixed.to_string()));
                Record {
                    topic: TopicName::new("state"),
                    partition: Some(mixed % 2),
                    key: Some(Bytes::from(format!("key-{}", mixed % 7))),
                    value,
                    headers: Headers::default(),
                }
            })
            .collect();
        let offsets = write(&log, changes.clone()).await;
        for (change, offset) in changes.into_iter().zip(offsets) {
            let partition = usize::try_from(change.partition.unwrap()).unwrap();
            oracle[partition].insert(change.key.unwrap(), (offset, change.value));
        }
        if round % 4 == 3 {
            close((log, closed)).await;
            (log, closed) = open_at(dir.path(), START, u64::MAX).await;
            check(&log, &oracle).await;
        }
    }
    close((log, closed)).await;

    // A day later the tombstones go, but for one that is where its partition ends.
    let (log, _) = open_at(dir.path(), START + 2 * DAY_MS, u64::MAX).await;
    for partition in &mut oracle {
        let last = partition.values().map(|(offset, _)| *offset).max();
        partition.retain(|_, (offset, value)| value.is_some() || Some(*offset) == last);
    }
    check(&log, &oracle).await;
    let keyless = send(
        &log,
        vec![record(&TopicName::new("state").partition(0), "v")],
    )
    .await;
    assert!(
        keyless.wait().await[0].is_err(),
        "a record without a key cannot be superseded"
    );
}

async fn check(log: &EmbeddedLog, oracle: &[BTreeMap<Bytes, (i64, Option<Bytes>)>; 2]) {
    for (number, expected) in (0..).zip(oracle) {
        let partition = TopicName::new("state").partition(number);
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(key, (offset, value))| (*offset, Some(key.clone()), value.clone()))
            .collect();
        expected.sort();
        assert_eq!(
            read(log, &partition, 0).await.unwrap(),
            expected,
            "partition {number}"
        );
    }
}
