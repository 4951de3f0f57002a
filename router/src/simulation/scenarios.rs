//! Single situations, each on its own.

use std::time::Duration;

use runtime::log::simulated::{Fault, Latencies, Latency, Operation, SimulationOptions};
use runtime::log::topics::MAX_RECORD_BYTES;
use runtime::telemetry::Metrics;
use schemas::records::{DeadLetter, DeadReason};
use tokio_util::sync::CancellationToken;

use super::auditor::Audit;
use super::{Cluster, PREFIX, event};
use crate::{Error, group};

const ROUTER: &str = "router-1";

async fn cluster(options: SimulationOptions) -> Cluster {
    let mut cluster = Cluster::new(options).await;
    cluster.commit_first_positions().await;
    cluster.subscribe(1, "acme", "[]").await;
    cluster
}

/// A cluster whose routers have none but the given number of subscribers of one tenant.
async fn crowd(subscribers: u128, options: SimulationOptions) -> Cluster {
    let mut cluster = cluster(options).await;
    for id in 2..=subscribers {
        cluster
            .subscribe(id, "acme", r#"[{"exact":{"type":"big"}}]"#)
            .await;
    }
    cluster
}

async fn publish(cluster: &Cluster, partition: u32, ids: std::ops::Range<u64>) {
    for id in ids {
        cluster
            .publish(partition, &event("acme", "a", id, "data"))
            .await;
    }
}

fn with_latency(latencies: Latencies) -> SimulationOptions {
    SimulationOptions {
        latencies,
        ..SimulationOptions::default()
    }
}

fn lost(audit: &Audit) -> Vec<(i64, Option<i64>)> {
    let lost = audit
        .dead
        .iter()
        .filter(|letter| letter.reason == DeadReason::RetentionLost);
    lost.map(|letter| (letter.origin.2, letter.through))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_is_written_as_soon_as_it_is_read() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..1).await;
    cluster.settle().await;
    let before = cluster.clock.now();
    publish(&cluster, 0, 1..2).await;
    cluster
        .until("written", |cluster| Audit::of(cluster).written.len() == 2)
        .await;
    assert!(
        cluster.clock.now() - before <= 6,
        "nothing waits for company or for a commit"
    );
    cluster.settle().await;
    cluster.stop(ROUTER).await;
    Audit::of(&cluster).check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_stop_commits_what_was_acknowledged_and_leaves() {
    let latencies = Latencies {
        acknowledge: Latency::fixed(Duration::from_millis(40)),
        ..Latencies::default()
    };
    let mut cluster = cluster(with_latency(latencies)).await;
    cluster.start(ROUTER);
    cluster
        .until("owned", |cluster| {
            cluster.sim.owners(&group(PREFIX)).len() == 4
        })
        .await;
    publish(&cluster, 0, 0..5).await;
    cluster
        .until("in flight", |cluster| Audit::of(cluster).written.len() == 5)
        .await;
    cluster.stop(ROUTER).await;
    assert_eq!(cluster.committed(&cluster.sources()[0]), Some(5));
    assert!(cluster.sim.owners(&group(PREFIX)).is_empty());
    assert_eq!(Audit::of(&cluster).repeats(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revoke_waits_for_what_is_in_flight_and_nothing_is_written_twice() {
    let latencies = Latencies {
        acknowledge: Latency::fixed(Duration::from_millis(300)),
        ..Latencies::default()
    };
    let mut cluster = cluster(with_latency(latencies)).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..10).await;
    cluster.start("router-2");
    for partition in 0..4 {
        publish(&cluster, partition, 10..20).await;
    }
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    assert_eq!(audit.repeats(), 0);
    let owners: std::collections::BTreeSet<_> =
        cluster.sim.owners(&group(PREFIX)).into_values().collect();
    assert_eq!(owners.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_revoke_ends_with_the_drain_deadline_and_is_never_committed_after() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..1).await;
    cluster.settle().await;
    for number in 0..4 {
        let partition = cluster.topics.deliveries.partition(number);
        cluster.sim.faults().unwritable(&partition, None);
    }
    for partition in 0..4 {
        publish(&cluster, partition, 1..3).await;
    }
    let before = tokio::time::Instant::now();
    cluster.start("router-2");
    cluster
        .until("handed over", |cluster| {
            let owners = cluster.sim.owners(&group(PREFIX)).into_values();
            owners.collect::<std::collections::BTreeSet<_>>().len() == 2
        })
        .await;
    let took = before.elapsed();
    assert!(took >= cluster.options.drain_deadline, "{took:?}");
    assert!(
        took <= cluster.options.drain_deadline + Duration::from_secs(2),
        "{took:?}"
    );
    cluster.sim.faults().heal();
    cluster.settle().await;
    Audit::of(&cluster).check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_routed_again_from_the_watermark() {
    for fault in [Fault::LostReply, Fault::LostRequest] {
        let mut cluster = cluster(SimulationOptions::default()).await;
        cluster.start(ROUTER);
        publish(&cluster, 0, 0..3).await;
        cluster.settle().await;
        cluster
            .sim
            .faults()
            .fail_next_of(ROUTER, Operation::Produce, fault);
        publish(&cluster, 0, 3..6).await;
        cluster.settle().await;
        let audit = Audit::of(&cluster);
        audit.check(&cluster);
        assert!(
            audit.dead.is_empty(),
            "an unknown outcome is no dead letter"
        );
        let repeated = usize::from(fault == Fault::LostReply);
        assert!(audit.repeats() >= repeated);
        let metrics = cluster.routers[ROUTER].metrics.render();
        assert!(
            metrics.contains("anabranch_router_rewinds_total 1"),
            "{metrics}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_alone_is_a_dead_letter_and_its_neighbours_are_not() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.subscribe(2, "acme", "[]").await;
    cluster
        .sim
        .faults()
        .refuse_values(&cluster.topics.deliveries, "poison");
    for id in 0..20 {
        let data = if id == 7 { "poison" } else { "data" };
        cluster.publish(0, &event("acme", "a", id, data)).await;
    }
    cluster.start(ROUTER);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    let of_poison = |letter: &DeadLetter| {
        assert_eq!(
            (letter.origin.2, letter.reason),
            (7, DeadReason::Unencodable),
            "rule 6"
        );
        letter.subscription.unwrap()
    };
    let dead: std::collections::BTreeSet<_> = audit.dead.iter().map(of_poison).collect();
    assert_eq!(dead.len(), 2);
    assert_eq!(audit.written.len(), 38);
    publish(&cluster, 0, 20..40).await;
    cluster.settle().await;
    assert!(
        Audit::of(&cluster).dead.len() == audit.dead.len(),
        "care has ended"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_too_large_to_carry_targets_is_a_dead_letter() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    let data = "x".repeat(MAX_RECORD_BYTES - 2_000);
    cluster.publish(0, &event("acme", "a", 1, &data)).await;
    cluster.start(ROUTER);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    assert_eq!(audit.dead[0].reason, DeadReason::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn retention_that_overtook_the_router_is_on_record() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    publish(&cluster, 0, 0..10).await;
    cluster.sim.faults().delete_before(&cluster.sources()[0], 4);
    cluster.start(ROUTER);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    assert_eq!(lost(&audit), [(0, Some(3))], "rule 16");
    assert_eq!(audit.written.len(), 6);
    audit.check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn retention_that_overtakes_a_running_router_is_on_record_once() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..3).await;
    cluster.settle().await;
    let source = cluster.sources()[0].clone();
    cluster
        .sim
        .faults()
        .unreadable(&source, Duration::from_secs(5));
    publish(&cluster, 0, 3..10).await;
    cluster.sim.faults().delete_before(&source, 6);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    assert_eq!(lost(&audit), [(3, Some(5))], "rule 16");
    assert_eq!((audit.written.len(), audit.repeats()), (7, 0));
    audit.check_repeats();
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_position_is_an_incident_and_everything_is_routed_again() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..5).await;
    cluster.settle().await;
    cluster.stop(ROUTER).await;
    cluster
        .sim
        .faults()
        .forget_position(&group(PREFIX), &cluster.sources()[0]);
    cluster.start(ROUTER);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    assert_eq!(lost(&audit), [(0, None)]);
    assert_eq!(audit.repeats(), 5);
    audit.check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_position_beyond_the_end_is_an_incident() {
    let mut cluster = Cluster::new(SimulationOptions::default()).await;
    cluster.subscribe(1, "acme", "[]").await;
    publish(&cluster, 0, 0..5).await;
    cluster.commit_first_positions().await;
    let beyond = runtime::log::Position {
        partition: cluster.sources()[0].clone(),
        offset: 9,
        metadata: String::new(),
    };
    cluster
        .outside
        .commit_for_empty_group(&group(PREFIX), &[beyond])
        .await
        .unwrap();
    cluster.start(ROUTER);
    cluster
        .until("back", |cluster| {
            cluster.committed(&cluster.sources()[0]) == Some(5)
        })
        .await;
    let audit = Audit::of(&cluster);
    assert_eq!(lost(&audit), [(5, Some(8))]);
    assert_eq!(audit.written.len(), 5);
    audit.check_repeats();
}

#[tokio::test(start_paused = true)]
async fn a_large_fan_out_is_written_in_pieces_and_others_go_on() {
    let latencies = Latencies {
        acknowledge: Latency::fixed(Duration::from_millis(20)),
        ..Latencies::default()
    };
    let mut cluster = crowd(6_000, with_latency(latencies)).await;
    cluster.options.window.targets = 1_500;
    cluster.options.window.bytes = 8 << 20;
    cluster.publish(0, &event("acme", "big", 1, "data")).await;
    publish(&cluster, 1, 2..3).await;
    cluster.start(ROUTER);
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    assert_eq!(audit.written.len(), 6_001);
    let (big, other) = (audit.appended(0), audit.appended(1));
    assert!(
        big.1 - big.0 >= 40,
        "not more than the window is in flight: {big:?}"
    );
    assert!(other.1 < big.1, "one event held the others up");
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_is_in_flight_while_a_partition_cannot_be_written() {
    let mut cluster = crowd(1, SimulationOptions::default()).await;
    let unwritable = cluster
        .subscriptions
        .values()
        .next()
        .unwrap()
        .placement
        .partition();
    let unwritable = cluster.topics.deliveries.partition(unwritable);
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..1).await;
    cluster.settle().await;
    cluster.sim.faults().unwritable(&unwritable, None);
    publish(&cluster, 0, 1..500).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let metrics = cluster.routers[ROUTER].metrics.render();
    let gauge = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
    };
    assert!(
        (1..=60).contains(&gauge("anabranch_router_window_targets ")),
        "{metrics}"
    );
    assert_eq!(gauge("anabranch_router_paused_partitions "), 1);
    assert!(gauge(r#"anabranch_router_unacknowledged_age_seconds{partition="0""#) > 10);
    cluster.sim.faults().heal();
    cluster.settle().await;
    Audit::of(&cluster).check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_subscriptions_is_seen_while_events_flow() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    publish(&cluster, 0, 0..3).await;
    cluster.settle().await;
    cluster.subscribe(2, "acme", "[]").await;
    let progress = |cluster: &Cluster| {
        let partitions = (0..4).map(|number| cluster.topics.progress.partition(number));
        let records = partitions.flat_map(|partition| cluster.sim.records(&partition));
        let values = records.filter_map(|record| record.value);
        values
            .filter_map(|value| serde_json::from_slice::<schemas::records::Applied>(&value).ok())
            .map(|applied| applied.control_offset)
            .max()
    };
    let control = cluster.end(&cluster.topics.control.partition(0));
    cluster
        .until("applied", |cluster| progress(cluster) == Some(control))
        .await;
    publish(&cluster, 0, 3..4).await;
    cluster.settle().await;
    assert_eq!(Audit::of(&cluster).written.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_same_name_ends_the_first_with_a_reason() {
    let options = SimulationOptions {
        static_members: true,
        ..SimulationOptions::default()
    };
    let cluster = cluster(options).await;
    let (first, names) = cluster.router(ROUTER, &Metrics::new());
    let mut second = cluster.router("other process", &Metrics::new());
    second.1.instance = names.instance.clone();
    let token = CancellationToken::new();
    let first = crate::run(first, names, token.clone());
    let second = async {
        cluster
            .until("joined", |cluster| {
                cluster.sim.owners(&group(PREFIX)).len() == 4
            })
            .await;
        crate::run(second.0, second.1, token.clone()).await
    };
    let ended = async {
        let ended = first.await;
        token.cancel();
        ended
    };
    let (first, second) = tokio::join!(ended, second);
    assert!(matches!(&first, Err(Error::Fenced { instance, .. }) if instance == ROUTER));
    assert!(second.is_ok(), "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn positions_are_committed_again_every_day() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    cluster.start(ROUTER);
    cluster
        .until("owned", |cluster| {
            cluster.sim.owners(&group(PREFIX)).len() == 4
        })
        .await;
    tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    let trace = cluster.sim.trace();
    let commits = trace
        .lines
        .iter()
        .filter(|(_, line)| line.ends_with("commits t.events/3 at 0"));
    assert_eq!(
        commits.count(),
        3,
        "the first, at take-over, and after a day"
    );
}

/// Runs a second process of the first one's name as soon as that owns everything. The first is
/// stopped for so long from then on, as by SIGSTOP.
async fn namesakes(cluster: &Cluster, stopped: Duration) -> [Result<(), Error>; 2] {
    let (first, names) = cluster.router(ROUTER, &Metrics::new());
    let (second, mut same) = cluster.router("other process", &Metrics::new());
    same.instance.clone_from(&names.instance);
    let token = CancellationToken::new();
    let first = crate::run(first, names, token.clone());
    let second = async {
        cluster
            .until("joined", |cluster| {
                cluster.sim.owners(&group(PREFIX)).len() == 4
            })
            .await;
        cluster.sim.stop(ROUTER);
        let wake = async {
            tokio::time::sleep(stopped).await;
            cluster.sim.wake(ROUTER);
        };
        tokio::join!(crate::run(second, same, token.clone()), wake).0
    };
    let script = async {
        let first = first.await;
        // The second is alone now, and goes on.
        publish(cluster, 1, 10..20).await;
        cluster.settle().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        token.cancel();
        first
    };
    let (first, second) = tokio::join!(script, second);
    [first, second]
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_live_routers_of_one_name_ends_and_says_so() {
    for stopped in [Duration::ZERO, Duration::from_secs(30)] {
        let cluster = cluster(SimulationOptions::default()).await;
        publish(&cluster, 0, 0..10).await;
        let [first, second] = Box::pin(namesakes(&cluster, stopped)).await;
        assert!(matches!(&first, Err(Error::SameName(instance)) if instance == ROUTER));
        let text = first.unwrap_err().to_string();
        assert!(
            text.contains("another live process has this name"),
            "{text}"
        );
        second.unwrap();
        Audit::of(&cluster).check(&cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_starts_again_is_not_its_own_namesake() {
    let mut cluster = cluster(SimulationOptions::default()).await;
    for round in 0..3 {
        cluster.start(ROUTER);
        publish(&cluster, 0, round * 10..round * 10 + 10).await;
        cluster.settle().await;
        // Beyond several reports.
        tokio::time::sleep(Duration::from_secs(30)).await;
        cluster.settle().await;
        cluster.crash(ROUTER);
    }
    Audit::of(&cluster).check(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_while_it_is_given_up_is_kept() {
    // A commit takes longer than the group needs to lose a member and take it back.
    let slow = Latencies {
        commit: Latency::fixed(Duration::from_secs(4)),
        ..Latencies::default()
    };
    let mut cluster = cluster(with_latency(slow)).await;
    cluster.start(ROUTER);
    for partition in 0..4 {
        publish(&cluster, partition, 0..3).await;
    }
    cluster.settle().await;
    // A commit is under way, and what it covers is asked for by another.
    for partition in 0..4 {
        publish(&cluster, partition, 3..4).await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    cluster.start("router-2");
    let asked = |cluster: &Cluster| {
        let mut trace = cluster.sim.trace().lines.into_iter();
        let asked = format!("{ROUTER} is given {{}}, is to give up {{t.events");
        trace.any(|(_, line)| line.starts_with(&asked))
    };
    cluster.until("asked for", asked).await;
    // Thrown out, it is back before the other answers, and both are given something anew.
    cluster.sim.stop("router-2");
    cluster.sim.faults().expire_session(ROUTER);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.sim.wake("router-2");
    tokio::time::sleep(Duration::from_secs(30)).await;
    for partition in 0..4 {
        publish(&cluster, partition, 4..6).await;
    }
    cluster.settle().await;
    Audit::of(&cluster).check(&cluster);
}
