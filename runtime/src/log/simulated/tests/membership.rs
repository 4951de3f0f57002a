//! What befalls members: expired sessions, slow revokes, refused commits, lost positions.

use std::collections::BTreeSet;

use super::super::super::Class;
use super::super::{Fault, LossTold, Operation};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_crashed_member_is_missed_after_its_session() {
    let (log, topic) = simulation(SimulationOptions::default(), 4).await;
    let (first, mut of_first) = join(&log, "one", &topic).await;
    assert_eq!(assigned(&mut of_first).await.len(), 4);
    log.crash("one");
    drop(first);
    let (_second, mut of_second) = join(&log, "two", &topic).await;
    assert!(
        is_stuck(seconds(9), of_second.recv()).await,
        "the first may still run"
    );
    assert_eq!(assigned(&mut of_second).await.len(), 4);
    // The same name is a new process, which shares again.
    let (_third, mut of_third) = join(&log, "one", &topic).await;
    let Membership::Revoked(revocation) = next(&mut of_second).await else {
        panic!("no revoke")
    };
    assert_eq!(revocation.partitions().len(), 2);
    revocation.acknowledge();
    assert_eq!(assigned(&mut of_third).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_member_learns_of_its_loss_when_it_is_woken() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let place = topic.partition(0);
    let (first, mut of_first) = join(&log, "one", &topic).await;
    let owned = assigned(&mut of_first).await;
    let (_second, mut of_second) = join(&log, "two", &topic).await;
    let Membership::Revoked(revocation) = next(&mut of_first).await else {
        panic!("no revoke")
    };
    revocation.acknowledge();
    assigned(&mut of_second).await;
    let proof = first.group_metadata().unwrap();
    log.stop("one");
    assert_eq!(assigned(&mut of_second).await.len(), 1, "after the session");
    assert!(
        is_stuck(seconds(20), of_first.recv()).await,
        "it hears nothing"
    );
    assert!(is_stuck(seconds(20), first.commit(vec![position(&place, 1)])).await);
    assert_eq!(log.committed(GROUP).len(), 0);

    log.wake("one");
    let Membership::Lost(lost) = next(&mut of_first).await else {
        panic!("not lost")
    };
    assert!(lost.len() == 1 && owned.contains(&lost[0]));
    // It joins again by itself and shares; what it held from before is worth nothing.
    let Membership::Revoked(revocation) = next(&mut of_second).await else {
        panic!("no revoke")
    };
    revocation.acknowledge();
    assert_eq!(assigned(&mut of_first).await.len(), 1);
    let mut producer = transactions(&log.process("one"), "id").await;
    let positions = vec![position(&place, 1)];
    let transaction = Transaction {
        records: vec![],
        positions,
        group: Some(proof),
    };
    assert!(producer.commit(transaction).await.is_err());
    assert_eq!(log.committed(GROUP).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_thrown_out_is_fenced_at_its_next_commit() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let place = topic.partition(0);
    let (member, mut membership) = join(&log, "one", &topic).await;
    assigned(&mut membership).await;
    log.faults().expire_session("one");
    let error = member.commit(vec![position(&place, 1)]).await.unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert!(matches!(next(&mut membership).await, Membership::Lost(_)));
    assert_eq!(
        assigned(&mut membership).await,
        std::slice::from_ref(&place)
    );
    member.commit(vec![position(&place, 1)]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_shorter_than_the_session_changes_nothing() {
    let (log, topic) = simulation(SimulationOptions::default(), 1).await;
    let (member, mut membership) = join(&log, "one", &topic).await;
    assigned(&mut membership).await;
    for _ in 0..3 {
        log.stop("one");
        assert!(is_stuck(seconds(9), membership.recv()).await);
        log.wake("one");
        member
            .commit(vec![position(&topic.partition(0), 1)])
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_never_gives_up_is_thrown_out() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let (_first, mut of_first) = join(&log, "one", &topic).await;
    assigned(&mut of_first).await;
    let (_second, mut of_second) = join(&log, "two", &topic).await;
    let Membership::Revoked(held) = next(&mut of_first).await else {
        panic!("no revoke")
    };
    assert!(is_stuck(seconds(29), of_second.recv()).await);
    assert_eq!(
        assigned(&mut of_second).await.len(),
        2,
        "thrown out, it owns nothing"
    );
    let Membership::Lost(lost) = next(&mut of_first).await else {
        panic!("not lost")
    };
    assert_eq!(lost.len(), 2);
    held.acknowledge();
    let Membership::Revoked(revocation) = next(&mut of_second).await else {
        panic!("no revoke")
    };
    revocation.acknowledge();
    assert_eq!(assigned(&mut of_first).await.len(), 1);
    assert_eq!(log.owners(GROUP).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn commits_are_refused_while_the_assignment_is_on_its_way() {
    let latencies = Latencies {
        sync: latency(2),
        ..Latencies::default()
    };
    let options = SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let (member, mut membership) = join(&log, "one", &topic).await;
    assigned(&mut membership).await;
    let (_second, _of_second) = join(&log, "two", &topic).await;
    let error = member
        .commit(vec![position(&topic.partition(0), 1)])
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Retry);
    assert!(
        is_stuck(seconds(3), membership.recv()).await,
        "it keeps its only partition"
    );
    member
        .commit(vec![position(&topic.partition(0), 1)])
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_happened_or_did_not() {
    let cases = [
        (Fault::LostRequest, Class::Unknown, false),
        (Fault::LostReply, Class::Unknown, true),
        (Fault::Refused, Class::Retry, false),
    ];
    for (fault, class, happened) in cases {
        let (log, topic) = simulation(SimulationOptions::default(), 1).await;
        let (member, mut membership) = join(&log, "one", &topic).await;
        assigned(&mut membership).await;
        log.faults().fail_next(Operation::Commit, fault);
        let error = member
            .commit(vec![position(&topic.partition(0), 1)])
            .await
            .unwrap_err();
        assert_eq!(error.class(), class, "{fault:?}");
        assert_eq!(!log.committed(GROUP).is_empty(), happened, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_can_expire() {
    let (log, topic) = simulation(SimulationOptions::default(), 2).await;
    let one = log.process("one");
    let all = [topic.partition(0), topic.partition(1)];
    let positions = [position(&all[0], 1), position(&all[1], 2)];
    one.commit_for_empty_group(GROUP, &positions).await.unwrap();
    log.faults().forget_position(GROUP, &all[0]);
    let committed = one.committed(GROUP, &all).await.unwrap();
    let offsets: Vec<_> = committed
        .into_iter()
        .map(|(_, committed)| committed.map(|it| it.offset))
        .collect();
    assert_eq!(offsets, [None, Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn two_live_static_members_of_one_name_fence_each_other() {
    let options = SimulationOptions {
        static_members: true,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let (first, mut of_first) = join(&log, "one", &topic).await;
    assigned(&mut of_first).await;
    let (_second, mut of_second) = join(&log, "one", &topic).await;
    assert!(matches!(next(&mut of_first).await, Membership::Fenced(_)));
    assert_eq!(assigned(&mut of_second).await.len(), 1);
    let error = first
        .commit(vec![position(&topic.partition(0), 1)])
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
}

#[tokio::test(start_paused = true)]
async fn no_partition_ever_has_two_owners() {
    let options = SimulationOptions {
        seed: 3,
        latencies: Latencies::busy(),
        ..Default::default()
    };
    let (log, topic) = simulation(options, 12).await;
    let mut held: Vec<BTreeSet<Partition>> = vec![BTreeSet::new(); 3];
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(join(&log, name, &topic).await);
    }
    // Each member in turn takes what it is told, until nothing more is said.
    let mut quiet = 0;
    while quiet < 3 {
        for (owned, (_, membership)) in held.iter_mut().zip(&mut members) {
            match timeout(seconds(5), membership.recv()).await {
                Ok(Some(Membership::Assigned(more))) => owned.extend(more),
                Ok(Some(Membership::Revoked(revocation))) => {
                    owned.retain(|partition| !revocation.partitions().contains(partition));
                    revocation.acknowledge();
                }
                Ok(other) => panic!("unexpected: {other:?}"),
                Err(_) => {
                    quiet += 1;
                    continue;
                }
            }
            quiet = 0;
        }
        let all: usize = held.iter().map(BTreeSet::len).sum();
        let distinct: BTreeSet<_> = held.iter().flatten().collect();
        assert_eq!(all, distinct.len(), "{held:?}");
    }
    assert!(held.iter().all(|owned| owned.len() == 4), "{held:?}");
}

/// One of two members is stopped for longer than a session and woken, when the other owns all.
async fn woken(loss_told: LossTold) -> (SimulatedLog, TopicName, [Joined; 2]) {
    let options = SimulationOptions {
        loss_told,
        ..SimulationOptions::default()
    };
    let (log, topic) = simulation(options, 1).await;
    let (first, mut of_first) = join(&log, "one", &topic).await;
    assigned(&mut of_first).await;
    log.stop("one");
    let (second, mut of_second) = join(&log, "two", &topic).await;
    assert_eq!(assigned(&mut of_second).await.len(), 1, "after the session");
    log.wake("one");
    (log, topic, [(first, of_first), (second, of_second)])
}

/// What the log says to a transaction of positions under the place that `member` has now.
async fn transact(log: &SimulatedLog, member: &dyn Member, place: &Partition) -> bool {
    let mut producer = transactions(&log.process("one"), "id").await;
    let transaction = Transaction {
        records: vec![],
        positions: vec![position(place, 7)],
        group: Some(member.group_metadata().unwrap()),
    };
    producer.commit(transaction).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_loss_told_late_leaves_a_member_without_a_place_that_transactions_are_asked_for() {
    let (log, topic, [one, _two]) = woken(LossTold::Late(latency(5))).await;
    let (place, (first, mut of_first)) = (topic.partition(0), one);
    let refused = first.commit(vec![position(&place, 3)]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Fenced);
    assert!(transact(&log, &*first, &place).await);
    assert_eq!(log.committed(GROUP)[&place].offset, 7);
    let refused = first.commit(vec![position(&place, 3)]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Fenced, "a plain commit is checked");
    assert!(is_stuck(seconds(4), of_first.recv()).await, "not told yet");
    let told = next(&mut of_first).await;
    assert!(matches!(&told, Membership::Lost(lost) if *lost == [place]));
}

#[tokio::test(start_paused = true)]
async fn a_loss_told_after_joining_waits_for_whoever_asks_for_his_place() {
    for asks in [true, false] {
        let (log, topic, [one, _two]) = woken(LossTold::AfterJoining(latency(5))).await;
        let (place, (first, mut of_first)) = (topic.partition(0), one);
        assert!(is_stuck(seconds(2), of_first.recv()).await, "not told yet");
        if asks {
            assert!(transact(&log, &*first, &place).await, "its place is new");
            let told = of_first.try_recv();
            assert!(matches!(told, Ok(Membership::Lost(lost)) if lost == [place]));
        } else {
            let told = next(&mut of_first).await;
            assert!(matches!(told, Membership::Lost(lost) if lost == [place.clone()]));
            assert_eq!(log.committed(GROUP).len(), 0);
        }
    }
}
