//! From where on a subscription is live, and what is on record of that.

use std::time::Duration;

use runtime::log::Position;
use runtime::log::simulated::{Fault, Operation};
use schemas::records::Activation;
use schemas::resources::StartFrom;

use super::super::auditor::Audit;
use super::super::{Cluster, PREFIX, event};
use super::{ROUTER, START, check, cluster, places, written};

#[tokio::test(start_paused = true)]
async fn latest_is_nothing_that_was_there_and_everything_after() {
    let mut cluster = cluster().await;
    // A router that lags: what is in the log and not routed is left out, too.
    let source = cluster.sources()[0].clone();
    cluster.publish_events(0..40).await;
    cluster.settle().await;
    cluster
        .sim
        .faults()
        .unreadable(&source, Duration::from_secs(20));
    cluster.publish_events(40..80).await;
    let ends: Vec<_> = cluster
        .sources()
        .iter()
        .map(|source| cluster.end(source))
        .collect();
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster
        .until("activated", |cluster| cluster.activations().len() == 4)
        .await;
    cluster.publish_events(80..120).await;
    cluster.settle_replays().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    let found = written(&audit, made.id);
    assert_eq!(found.len(), 40);
    for (partition, offset) in found {
        assert!(offset >= ends[usize::try_from(partition).unwrap()]);
    }
}

#[tokio::test(start_paused = true)]
async fn latest_counts_from_when_it_was_made_wherever_nobody_routes_yet() {
    let mut cluster = cluster().await;
    cluster.publish_events(0..20).await;
    cluster.settle().await;
    cluster.stop(ROUTER).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster.publish_events(20..60).await;
    cluster.start("router-2");
    cluster.settle_replays().await;
    check(&cluster, &made, made.created_at);
    assert_eq!(written(&Audit::of(&cluster), made.id).len(), 40);
}

#[tokio::test(start_paused = true)]
async fn activations_of_a_log_that_was_made_anew_are_void() {
    let mut cluster = cluster().await;
    let made = cluster.start_from(START, StartFrom::Latest, false).await;
    cluster.publish_events(0..40).await;
    cluster.settle_replays().await;
    cluster.stop(ROUTER).await;
    // What is on record is of a longer log.
    const BEYOND: i64 = 5_000;
    for activation in cluster.activations().into_values() {
        let later = Activation {
            offset: Some(BEYOND),
            replayed_to: BEYOND,
            ..activation
        };
        cluster.write_activation(&later).await;
    }
    let group = crate::group(PREFIX);
    let committed = cluster.sim.committed(&group).into_iter();
    let committed = committed.map(|(partition, position)| Position {
        partition,
        offset: BEYOND,
        metadata: position.metadata,
    });
    let log = cluster.sim.process("restorer");
    let committed: Vec<_> = committed.collect();
    log.commit_for_empty_group(&group, &committed)
        .await
        .unwrap();
    cluster.start("router-2");
    cluster.publish_events(40..80).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    let lost: Vec<_> = places(&cluster, made.created_at, |_| true)
        .difference(&found)
        .copied()
        .collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let stale = |one: &Activation| one.offset == Some(BEYOND);
    assert!(!cluster.activations().values().any(stale));
}

#[tokio::test(start_paused = true)]
async fn an_activation_whose_writing_fails_is_written_again_with_the_same_offset() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    for fault in [Fault::LostReply, Fault::LostRequest] {
        cluster
            .sim
            .faults()
            .fail_next_of(ROUTER, Operation::Produce, fault);
    }
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.publish_events(80..160).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    assert_eq!(cluster.activations().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_and_comes_late_takes_nothing_back() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 50;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    for number in 0..400 {
        let event = event("acme", "lead", number, "data");
        cluster.publish(0, &event).await;
    }
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    let begun = |cluster: &Cluster| cluster.activations_of(made.id).into_iter().find(is_begun);
    fn is_begun(one: &Activation) -> bool {
        !one.done && one.replayed_to > 0
    }
    cluster
        .until("some of it is on record", |cluster| {
            begun(cluster).is_some()
        })
        .await;
    let early = begun(&cluster).unwrap();
    let is_anew = |cluster: &Cluster| {
        let later = begun(cluster).into_iter();
        later.filter(|one| one.writer != early.writer).count() > 0
    };
    // Most writes are of past events: one of its place is hit before long.
    for _ in 0..400 {
        if is_anew(&cluster) {
            break;
        }
        let faults = cluster.sim.faults();
        faults.fail_next_of(ROUTER, Operation::Produce, Fault::LostRequest);
        tokio::time::sleep(Duration::from_millis(130)).await;
    }
    cluster.sim.faults().heal();
    cluster
        .until("written by another", |cluster| is_anew(cluster))
        .await;
    cluster.settle_replays().await;
    let repeats = Audit::of(&cluster).repeats();
    // The request that was lost arrives, and the router dies.
    cluster.write_activation(&early).await;
    cluster.crash(ROUTER);
    cluster.start("router-2");
    tokio::time::sleep(Duration::from_secs(15)).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    assert_eq!(Audit::of(&cluster).repeats(), repeats, "it began anew");
}
