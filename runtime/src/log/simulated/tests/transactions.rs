//! What befalls transactions: unknown outcomes, fences, timeouts, and what they hold back.

use super::super::super::{Class, NotCommitted, NotWritten};
use super::super::{Content, Fault, Operation};
use super::*;

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_found_by_opening_another() {
    for (fault, happened) in [(Fault::LostRequest, false), (Fault::LostReply, true)] {
        let (log, topic) = simulation(SimulationOptions::default(), 1).await;
        let place = topic.partition(0);
        let (member, mut membership) = join(&log, "one", &topic).await;
        assigned(&mut membership).await;
        let one = log.process("one");
        let mut first = transactions(&one, "id").await;
        log.faults().fail_next(Operation::Transaction, fault);
        let transaction = Transaction {
            records: vec![record(&place, "a")],
            positions: vec![position(&place, 5)],
            group: Some(member.group_metadata().unwrap()),
        };
        let outcome = first.commit(transaction).await;
        assert!(
            matches!(outcome, Err(NotCommitted::Unknown(_))),
            "{outcome:?}"
        );
        let outcome = first.commit(records_only(vec![])).await;
        assert!(
            matches!(outcome, Err(NotCommitted::Fenced(_))),
            "spent: {outcome:?}"
        );

        let mut second = transactions(&one, "id").await;
        let committed = member
            .committed(std::slice::from_ref(&place))
            .await
            .unwrap();
        assert_eq!(committed[0].1.is_some(), happened, "{fault:?}");
        assert_eq!(
            log.records(&place).len(),
            usize::from(happened),
            "{fault:?}"
        );
        second
            .commit(records_only(vec![record(&place, "b")]))
            .await
            .unwrap();
        // A marker takes an offset, and so does what was aborted.
        let offsets: Vec<_> = log
            .records(&place)
            .iter()
            .map(|record| record.offset)
            .collect();
        assert_eq!(offsets.last(), Some(&2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_end_aborts() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    let mut producer = transactions(&log.process("one"), "id").await;
    log.faults()
        .fail_next(Operation::Transaction, Fault::Refused);
    let outcome = producer
        .commit(records_only(vec![record(&place, "a")]))
        .await;
    assert!(
        matches!(outcome, Err(NotCommitted::Aborted { .. })),
        "{outcome:?}"
    );
    producer
        .commit(records_only(vec![record(&place, "b")]))
        .await
        .unwrap();
    assert_eq!(values(&log, &place), ["b"]);
    let dump = log.dump(&topic);
    let markers: Vec<bool> = dump[&place]
        .iter()
        .filter_map(|entry| match entry.content {
            Content::Marker { committed, .. } => Some(committed),
            Content::Record { .. } => None,
        })
        .collect();
    assert_eq!(markers, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_can_never_be_written_is_named() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    log.faults().refuse_values(&topic, "bad");
    let mut producer = transactions(&log.process("one"), "id").await;
    let large = "x".repeat(1_001);
    let records = vec![
        record(&place, "a"),
        record(&place, &large),
        record(&place, "bad"),
    ];
    match producer.commit(records_only(records)).await {
        Err(NotCommitted::Aborted { cause, refused }) => {
            assert_eq!(cause.class(), Class::Never);
            assert_eq!(
                refused,
                [(1, NotWritten::TooLarge), (2, NotWritten::Invalid)]
            );
        }
        other => panic!("not aborted: {other:?}"),
    }
    assert_eq!(log.records(&place).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_producer_holds_readers_and_positions_back_until_the_sweep() {
    let latencies = Latencies {
        transaction: latency(1),
        ..Latencies::default()
    };
    let options = SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 2).await;
    let (place, free) = (topic.partition(0), topic.partition(1));
    let (member, mut membership) = join(&log, "owner", &topic).await;
    assigned(&mut membership).await;
    let mut dying = transactions(&log.process("dying"), "id").await;
    let transaction = Transaction {
        records: vec![record(&place, "a")],
        positions: vec![position(&place, 5)],
        group: Some(member.group_metadata().unwrap()),
    };
    // One second to begin; records and positions are taken; then the end is on its way.
    assert!(is_stuck(Duration::from_millis(1_500), dying.commit(transaction)).await);
    log.faults()
        .fail_next(Operation::Transaction, Fault::LostRequest);
    log.crash("dying");

    let owner = log.process("owner");
    let plain = producer(&owner).await;
    let acks = plain
        .send(vec![record(&place, "b"), record(&free, "c")])
        .await;
    assert!(acks.wait().await.iter().all(Result::is_ok));
    assert_eq!(
        (values(&log, &place).len(), values(&log, &free).len()),
        (0, 1)
    );
    assert_eq!(owner.bounds(&place).await.unwrap().stable_end, 0);
    assert!(member.committed(std::slice::from_ref(&free)).await.is_ok());
    let asked = [place.clone()];
    assert!(is_stuck(seconds(3), member.committed(&asked)).await);
    assert_eq!(member.committed(&asked).await.unwrap()[0].1, None);
    assert_eq!(values(&log, &place), ["b"]);
    assert!(log.trace().mentions("beyond its timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_producer_finds_itself_fenced() {
    let latencies = Latencies {
        transaction: latency(1),
        ..Latencies::default()
    };
    let options = SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let place = topic.partition(0);
    let mut producer = transactions(&log.process("one"), "id").await;
    let mut commit = Box::pin(producer.commit(records_only(vec![record(&place, "a")])));
    assert!(is_stuck(Duration::from_millis(500), &mut commit).await);
    log.stop("one");
    // Records appended on the way leave the transaction open; nothing goes further.
    assert!(is_stuck(seconds(20), &mut commit).await);
    log.wake("one");
    let outcome = commit.await;
    assert!(
        matches!(outcome, Err(NotCommitted::Fenced(_))),
        "{outcome:?}"
    );
    assert_eq!(log.records(&place).len(), 0);
    assert!(log.trace().mentions("beyond its timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_into_an_unwritable_partition_is_given_up_and_leaves_nothing() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let (sick, well) = (topic.partition(0), topic.partition(1));
    let mut producer = transactions(&log.process("one"), "id").await;
    log.faults().unwritable(&sick, Some(seconds(30)));
    let records = vec![record(&sick, "a"), record(&well, "b")];
    match producer.commit(records_only(records)).await {
        Err(NotCommitted::Aborted { cause, refused }) => {
            assert_eq!((cause.class(), refused.len()), (Class::Retry, 0));
        }
        other => panic!("not aborted: {other:?}"),
    }
    producer
        .commit(records_only(vec![record(&well, "c")]))
        .await
        .unwrap();
    assert!(is_stuck(seconds(40), std::future::pending::<()>()).await);
    assert_eq!(
        (values(&log, &sick).len(), values(&log, &well)),
        (0, vec!["c".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn opening_fails_when_asked_to() {
    let (log, _) = simulation(SimulationOptions::default(), 1).await;
    let one = log.process("one");
    let options = TransactionOptions {
        id: "id".into(),
        timeout: seconds(5),
    };
    for (fault, class) in [
        (Fault::Refused, Class::Retry),
        (Fault::LostReply, Class::Unknown),
    ] {
        log.faults().fail_next(Operation::OpenTransactions, fault);
        let error = one.transactions(options.clone()).await.unwrap_err();
        assert_eq!(error.class(), class);
    }
    assert!(one.transactions(options).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_a_plain_and_a_transactions_commit_the_later_written_wins() {
    let latencies = Latencies {
        marker: latency(2),
        ..Latencies::default()
    };
    let options = SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let place = topic.partition(0);
    let (member, mut membership) = join(&log, "one", &topic).await;
    assigned(&mut membership).await;
    let mut producer = transactions(&log.process("one"), "id").await;
    let transaction = Transaction {
        records: vec![],
        positions: vec![position(&place, 5)],
        group: Some(member.group_metadata().unwrap()),
    };
    producer.commit(transaction).await.unwrap();
    member.commit(vec![position(&place, 3)]).await.unwrap();
    let committed = member
        .committed(std::slice::from_ref(&place))
        .await
        .unwrap();
    assert_eq!(committed[0].1.as_ref().map(|it| it.offset), Some(3));
}
