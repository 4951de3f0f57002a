//! What befalls records: unknown outcomes, refusals, gaps, late visibility, unreadable ranges.

use super::super::super::{Class, NotWritten};
use super::super::{Fault, Operation};
use super::*;

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_a_record_that_is_there_or_is_not() {
    let cases = [
        (Fault::LostRequest, NotWritten::Unknown, 0),
        (Fault::LostReply, NotWritten::Unknown, 1),
        (Fault::Refused, NotWritten::TimedOut, 0),
    ];
    for (fault, report, stored) in cases {
        let (log, topic) = simulation(SimulationOptions::default(), 1).await;
        let place = topic.partition(0);
        let producer = producer(&log.process("one")).await;
        log.faults()
            .fail_next_of("another", Operation::Produce, fault);
        log.faults().fail_next_of("one", Operation::Produce, fault);
        let acks = producer.send(vec![record(&place, "a")]).await;
        assert_eq!(acks.wait().await, [Err(report)], "{fault:?}");
        assert_eq!(log.records(&place).len(), stored, "{fault:?}");
        let acks = producer.send(vec![record(&place, "b")]).await;
        assert!(acks.wait().await[0].is_ok(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn probabilities_follow_the_seed_and_end_when_healed() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    let producer = producer(&log.process("one")).await;
    log.faults()
        .set_probability(Operation::Produce, Fault::LostRequest, 0.5);
    let mut lost = 0;
    for _ in 0..200 {
        let acks = producer.send(vec![record(&place, "a")]).await;
        lost += usize::from(acks.wait().await[0].is_err());
    }
    assert!((60..140).contains(&lost), "{lost} of 200 lost");
    assert_eq!(log.records(&place).len(), 200 - lost);
    log.faults().heal();
    let acks = producer.send(vec![record(&place, "a"); 3]).await;
    assert!(acks.wait().await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn an_unwritable_partition_holds_its_records_in_order_and_no_other() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let (sick, well) = (topic.partition(0), topic.partition(1));
    let producer = producer(&log.process("one")).await;
    log.faults().unwritable(&sick, Some(seconds(20)));
    let first = producer.send(vec![record(&sick, "a")]).await;
    let second = producer
        .send(vec![record(&sick, "b"), record(&well, "c")])
        .await;
    assert!(is_stuck(seconds(19), first.wait()).await);
    assert_eq!(
        (values(&log, &sick).len(), values(&log, &well).len()),
        (0, 1)
    );
    assert!(second.wait().await.iter().all(Result::is_ok));
    assert_eq!(values(&log, &sick), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_timeout_gives_up_what_was_never_sent() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    log.faults().unwritable(&place, None);
    let options = ProducerOptions {
        delivery_timeout: Some(seconds(3)),
        ..ProducerOptions::named("p")
    };
    let producer = log.process("one").producer(options).await.unwrap();
    let acks = producer.send(vec![record(&place, "a")]).await;
    assert_eq!(acks.wait().await, [Err(NotWritten::TimedOut)]);
    log.faults().writable(&place);
    let acks = producer.send(vec![record(&place, "b")]).await;
    assert!(acks.wait().await[0].is_ok());
    assert_eq!(values(&log, &place), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_gapless_producer_writes_nothing_behind_a_failure() {
    let latencies = Latencies {
        produce: latency(1),
        ..Latencies::default()
    };
    let options = SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let place = topic.partition(0);
    let options = ProducerOptions {
        gapless: true,
        ..ProducerOptions::named("p")
    };
    let producer = log.process("one").producer(options).await.unwrap();
    log.faults()
        .fail_next(Operation::Produce, Fault::LostRequest);
    let mut all = Vec::new();
    for value in ["a", "b", "c"] {
        all.push(producer.send(vec![record(&place, value)]).await);
    }
    for acks in all {
        assert_eq!(acks.wait().await, [Err(NotWritten::Unknown)]);
    }
    let acks = producer.send(vec![record(&place, "d")]).await;
    assert_eq!(acks.wait().await, [Err(NotWritten::Unknown)]);
    assert_eq!(log.records(&place).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_value_is_named_only_when_it_is_alone() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    log.faults().refuse_values(&topic, "bad");
    let records = vec![record(&place, "good"), record(&place, "a bad one")];
    let producer = producer(&log.process("one")).await;
    let acks = producer.send(records.clone()).await;
    assert_eq!(acks.wait().await, [Err(NotWritten::Unknown); 2]);
    let options = ProducerOptions {
        single_record_batches: true,
        ..ProducerOptions::named("p")
    };
    let single = log.process("one").producer(options).await.unwrap();
    let acks = single.send(records).await;
    assert_eq!(acks.wait().await, [Ok(0), Err(NotWritten::Invalid)]);
}

#[tokio::test(start_paused = true)]
async fn purged_batches_arrive_as_a_prefix_after_their_report() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let latencies = Latencies {
            produce: latency(1),
            ..Latencies::default()
        };
        let options = SimulationOptions {
            seed,
            latencies,
            ..SimulationOptions::default()
        };
        let (log, topic) = simulation(options, 1).await;
        let place = topic.partition(0);
        let producer = producer(&log.process("one")).await;
        let mut all = Vec::new();
        for value in ["a", "b", "c"] {
            all.push(producer.send(vec![record(&place, value)]).await);
        }
        producer.purge();
        for acks in all {
            assert_eq!(acks.wait().await, [Err(NotWritten::Unknown)]);
        }
        assert_eq!(log.records(&place).len(), 0);
        assert!(is_stuck(seconds(5), std::future::pending::<()>()).await);
        let there = values(&log, &place);
        assert!(["a", "b", "c"].starts_with(&there.iter().map(String::as_str).collect::<Vec<_>>()));
        seen.insert(there.len());
    }
    assert_eq!(seen.len(), 4, "every prefix happens");
}

#[tokio::test(start_paused = true)]
async fn a_slow_partition_is_acknowledged_behind_a_quick_one() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let producer = producer(&log.process("one")).await;
    log.faults().slow(&topic.partition(0), seconds(2));
    let slow = producer.send(vec![record(&topic.partition(0), "a")]).await;
    let quick = producer.send(vec![record(&topic.partition(1), "b")]).await;
    assert!(quick.wait().await[0].is_ok());
    assert!(is_stuck(seconds(1), slow.wait()).await);
}

#[tokio::test(start_paused = true)]
async fn records_are_read_before_or_after_their_acknowledgement() {
    for (fetch, acknowledge) in [(3, 0), (0, 3)] {
        let latencies = Latencies {
            fetch: latency(fetch),
            acknowledge: latency(acknowledge),
            ..Latencies::default()
        };
        let options = SimulationOptions {
            latencies,
            ..SimulationOptions::default()
        };
        let (log, topic) = simulation(options, 1).await;
        let one = log.process("one");
        let (reader, mut fetched) = reader(&one).await;
        reader.assign(topic.partition(0), 0);
        assert!(matches!(fetched.recv().await, Some(Fetched::End(..))));
        let producer = producer(&one).await;
        let acks = producer.send(vec![record(&topic.partition(0), "a")]).await;
        let read_first = tokio::select! {
            _ = acks.wait() => false,
            found = fetched.recv() => matches!(found, Some(Fetched::Records(..))),
        };
        assert_eq!(read_first, fetch < acknowledge);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_start_is_out_of_range_and_compaction_leaves_gaps() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let one = log.process("one");
    let (place, compacted) = (topic.partition(0), TopicName::new("compacted").partition(0));
    make_topic(&one, &compacted.topic, 1).await;
    let producer = producer(&one).await;
    let keyed = |value| Record {
        key: Some("k".into()),
        ..record(&compacted, value)
    };
    let all = vec![
        record(&place, "a"),
        record(&place, "b"),
        keyed("1"),
        keyed("2"),
        keyed("3"),
    ];
    assert!(
        producer
            .send(all)
            .await
            .wait()
            .await
            .iter()
            .all(Result::is_ok)
    );
    let acks = producer.send(vec![record(&compacted, "no key")]).await;
    assert_eq!(acks.wait().await, [Err(NotWritten::Invalid)]);

    log.faults().delete_before(&place, 1);
    assert_eq!(one.bounds(&place).await.unwrap().start, 1);
    let (reader, mut fetched) = reader(&one).await;
    reader.assign(place, 0);
    assert!(matches!(
        fetched.recv().await,
        Some(Fetched::OutOfRange(..))
    ));

    log.faults().compact(&compacted.topic);
    reader.assign(compacted.clone(), 0);
    match fetched.recv().await {
        Some(Fetched::Records(_, batch)) => {
            let offsets: Vec<_> = batch.records.iter().map(|record| record.offset).collect();
            assert_eq!(offsets, [2]);
        }
        other => panic!("no records: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_partition_says_so_and_goes_on_by_itself() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let one = log.process("one");
    let (reader, mut fetched) = reader(&one).await;
    log.faults().unreadable(&topic.partition(0), seconds(5));
    reader.assign(topic.partition(0), 0);
    let Some(Fetched::Failed(Some(_), error)) = fetched.recv().await else {
        panic!("no failure")
    };
    assert_eq!(error.class(), Class::Retry);
    assert!(is_stuck(seconds(4), fetched.recv()).await);
    assert!(matches!(fetched.recv().await, Some(Fetched::End(..))));
}

#[tokio::test(start_paused = true)]
async fn questions_fail_when_asked_to() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let one = log.process("one");
    log.faults().fail_next(Operation::Lookup, Fault::Refused);
    log.faults().fail_next(Operation::Committed, Fault::Refused);
    let error = one.bounds(&topic.partition(0)).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry);
    let error = one
        .committed(GROUP, &[topic.partition(0)])
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Retry);
    assert!(one.bounds(&topic.partition(0)).await.is_ok());
    let error = one.bounds(&topic.partition(9)).await.unwrap_err();
    assert_eq!(error.class(), Class::Never);
}
