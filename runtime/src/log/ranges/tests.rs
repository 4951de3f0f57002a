//! Ranges are read as they are in the log, wherever the reading is broken off.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::simulated::{Latencies, SimulatedLog, SimulationOptions};
use super::super::{Headers, ProducerOptions, Record, TopicSettings};
use super::*;

const PARTITIONS: u32 = 3;

fn span(partition: u32, next: i64, end: i64) -> Span {
    Span {
        partition,
        next,
        end,
    }
}

/// A log in which partition `n` of the topic has as many records as `counts` says.
async fn log_of(seed: u64, counts: &[i64]) -> (SimulatedLog, SharedLog, TopicName) {
    let simulated = SimulatedLog::new(SimulationOptions {
        seed,
        latencies: Latencies::busy(),
        ..SimulationOptions::default()
    });
    let (log, topic) = (simulated.process("one"), TopicName::new("t"));
    let settings = TopicSettings {
        name: topic.clone(),
        partitions: PARTITIONS,
        replication: 0,
        compact: false,
        retention: Duration::from_secs(3600),
        max_record_bytes: 1_000,
        append_time: true,
    };
    log.create_topics(&[settings]).await.unwrap();
    for (partition, count) in (0..).zip(counts) {
        append(&log, &topic, partition, *count).await;
    }
    (simulated, log, topic)
}

async fn append(log: &SharedLog, topic: &TopicName, partition: u32, count: i64) {
    let producer = log.producer(ProducerOptions::named("p")).await.unwrap();
    let record = Record {
        topic: topic.clone(),
        partition: Some(partition),
        key: None,
        value: Some(Bytes::from_static(b"x")),
        headers: Headers::default(),
    };
    let records = vec![record; usize::try_from(count).unwrap()];
    let acks = producer.send(records).await.wait().await;
    assert!(acks.iter().all(Result::is_ok));
}

async fn read(reader: &mut RangeReader, most: usize) -> Vec<(u32, i64)> {
    let mut places = Vec::new();
    while places.len() < most
        && let Some((partition, record)) = reader.next().await.unwrap()
    {
        places.push((partition, record.offset));
    }
    places
}

async fn read_all(log: &SharedLog, topic: &TopicName, spans: Vec<Span>) -> Vec<(u32, i64)> {
    let mut reader = RangeReader::open(log, "ranges", topic, spans)
        .await
        .unwrap();
    read(&mut reader, usize::MAX).await
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_known_end_is_not_read() {
    let (_, log, topic) = log_of(1, &[3, 0, 2]).await;
    let spans = whole(&log, &topic, None).await.unwrap();
    assert_eq!(spans, [span(0, 0, 3), span(1, 0, 0), span(2, 0, 2)]);
    append(&log, &topic, 0, 5).await;
    append(&log, &topic, 1, 5).await;
    let read = read_all(&log, &topic, spans).await;
    assert_eq!(read, [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_range_begins_where_retention_left_the_log() {
    let (simulated, log, topic) = log_of(2, &[6, 1]).await;
    simulated.faults().delete_before(&topic.partition(0), 4);
    let read = read_all(&log, &topic, vec![span(0, 1, 6), span(1, 0, 1)]).await;
    assert_eq!(read, [(0, 4), (0, 5), (1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_behind_a_log_that_was_made_anew() {
    let (_, log, topic) = log_of(3, &[2, 1]).await;
    let read = read_all(&log, &topic, vec![span(0, 700, 900), span(1, 0, 1)]).await;
    assert_eq!(read, [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_asked_for_is_left_out() {
    let (simulated, log, topic) = log_of(4, &[2, 3]).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    let since = simulated.clock().now();
    append(&log, &topic, 1, 1).await;
    let spans = whole(&log, &topic, Some(since)).await.unwrap();
    assert_eq!(spans, [span(0, 2, 2), span(1, 3, 4), span(2, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_there_is_never_whole() {
    let (_, log, _) = log_of(5, &[]).await;
    let missing = whole(&log, &TopicName::new("u"), None).await;
    assert_eq!(missing.unwrap_err().class(), Class::Never);
}

/// What is in the log of `spans`, in their order.
fn expected(counts: &[i64], spans: &[Span]) -> Vec<(u32, i64)> {
    let counts: BTreeMap<u32, i64> = (0..).zip(counts.iter().copied()).collect();
    let places = |span: &Span| {
        let (partition, count) = (span.partition, counts[&span.partition]);
        (span.next..span.end.min(count)).map(move |offset| (partition, offset))
    };
    spans.iter().flat_map(places).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Broken off anywhere and begun again with the rest, or gone on with, it is all read once.
    #[test]
    fn ranges_are_read_once_and_in_order(
        seed: u64,
        counts in prop::collection::vec(0_i64..20, 3),
        wanted in prop::collection::vec((0..PARTITIONS, 0_i64..20, 0_i64..24), 0..6),
        more in prop::collection::vec((0..PARTITIONS, 0_i64..20, 0_i64..24), 0..3),
        break_off in 0_usize..40,
    ) {
        let spans = |wanted: Vec<(u32, i64, i64)>| -> Vec<Span> {
            let one = |(partition, next, end)| span(partition, next, end);
            wanted.into_iter().map(one).collect()
        };
        let (wanted, more) = (spans(wanted), spans(more));
        let all: Vec<Span> = wanted.iter().chain(&more).copied().collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let found = runtime.block_on(async {
            let (_, log, topic) = log_of(seed, &counts).await;
            let mut reader = RangeReader::open(&log, "ranges", &topic, wanted).await.unwrap();
            let mut found = read(&mut reader, break_off).await;
            reader.go_on(more);
            found.extend(read_all(&log, &topic, reader.rest()).await);
            found
        });
        prop_assert_eq!(found, expected(&counts, &all));
    }
}
