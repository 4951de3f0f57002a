//! What a death repeats (rule 13), whatever keeps commits from being acknowledged.

use std::collections::HashMap;
use std::time::Duration;

use runtime::config::ByteSize;
use runtime::log::simulated::{Fault, Latencies, Operation, SimulationOptions};
use tokio::time::Instant;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::{Behaviour, Seen};

const MINUTES: Duration = Duration::from_secs(600);
/// The bar (design: "crash").
const BAR: Duration = Duration::from_millis(500);
/// After this long without an acknowledged commit nothing starts, and a little.
const STILL: Duration = Duration::from_millis(420);

/// A busy log on which a plain commit waits behind the request to join.
fn held(seed: u64) -> SimulationOptions {
    SimulationOptions {
        seed,
        latencies: Latencies::busy(),
        joins_hold_commits: true,
        ..SimulationOptions::default()
    }
}

async fn world_of(options: SimulationOptions) -> World {
    let mut world = World::new(options).await;
    for _ in 0..6 {
        world.endpoint(Behaviour::Healthy(1, 5)).await;
    }
    world
}

/// Publishes an event to everybody every 20 ms.
async fn publish_for(world: &mut World, time: Duration) -> Vec<String> {
    let (end, mut ids) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], false).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ids
}

/// The attempts after the first of each delivery, beside the first.
fn repeats(world: &World) -> Vec<(Seen, Seen)> {
    let mut first: HashMap<String, Seen> = HashMap::new();
    let mut repeats = Vec::new();
    for seen in world.seen() {
        match first.get(&seen.delivery) {
            Some(before) => repeats.push((before.clone(), seen)),
            None => drop(first.insert(seen.delivery.clone(), seen)),
        }
    }
    repeats
}

/// Rule 13: what was attempted twice was in flight at its process's death or ended shortly before.
fn audit_deaths(world: &World, died: &HashMap<String, Instant>) {
    for (before, after) in repeats(world) {
        let died = died.get(&before.process);
        let age = died.zip(before.ended).map(|(died, ended)| *died - ended);
        assert!(
            died.is_some() && age.is_none_or(|age| age < BAR),
            "ended {age:?} before the death: {before:?}, and again {after:?}"
        );
    }
}

#[test]
fn attempts_go_on_behind_a_late_commit_and_a_death_repeats_little() {
    paused(async {
        for dies in [true, false] {
            let mut world = world_of(held(0)).await;
            world.start("d0");
            world.start("d1");
            let mut ids = publish_for(&mut world, Duration::from_secs(2)).await;
            // The group waits for the dead member's session to end, longer than a lease lasts.
            let mut died = HashMap::from([("d0".to_owned(), Instant::now())]);
            world.crash("d0");
            world.start("d2");
            let late = Instant::now();
            ids.extend(publish_for(&mut world, Duration::from_secs(8)).await);
            for second in 0..8 {
                let from = late + Duration::from_secs(second);
                let within = |seen: &Seen| {
                    seen.process == "d1" && from <= seen.started && seen.started < from + STILL
                };
                let attempts = world.seen().into_iter().filter(within).count();
                assert!(attempts > 0, "no attempt in second {second}");
            }
            assert_eq!(
                world.metric("d1", "anabranch_dispatch_commit_waits_total"),
                0.0
            );
            if dies {
                died.insert("d1".to_owned(), Instant::now());
                world.crash("d1");
            }
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            audit_deaths(&world, &died);
        }
    });
}

#[test]
fn nothing_new_is_attempted_while_nothing_can_be_committed() {
    paused(async {
        for dies in [true, false] {
            let mut world = world_of(calm()).await;
            world.start("d1");
            let mut ids = publish_for(&mut world, Duration::from_secs(1)).await;
            for operation in [Operation::Commit, Operation::Transaction] {
                let faults = world.log.faults();
                faults.set_probability(operation, Fault::Refused, 1.0);
            }
            let refused = Instant::now();
            ids.extend(publish_for(&mut world, Duration::from_secs(3)).await);
            let late = |seen: &Seen| seen.started > refused + STILL;
            let late: Vec<_> = world.seen().into_iter().filter(late).collect();
            assert!(late.is_empty(), "attempted without a commit: {late:?}");
            assert!(world.metric("d1", "anabranch_dispatch_commit_waits_total") > 0.0);
            if dies {
                world.crash("d1");
            }
            world.log.faults().heal();
            if dies {
                world.start("d2");
            }
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            for (before, after) in repeats(&world) {
                let in_doubt = before.started <= refused + STILL;
                assert!(dies && in_doubt, "{before:?} and again {after:?}");
            }
        }
    });
}

#[test]
fn what_waits_for_a_commit_is_not_deferred() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.config.dispatcher.lane_memory = ByteSize::kib(64);
        let endpoint = world.endpoint(Behaviour::Healthy(20, 30)).await;
        world.start("d1");
        let ids = world.publish_many(&[endpoint], 4_000).await;
        world
            .until("under way", MINUTES, |world| world.seen().len() > 400)
            .await;
        for operation in [Operation::Commit, Operation::Transaction] {
            let faults = world.log.faults();
            faults.set_probability(operation, Fault::Refused, 1.0);
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(world.metric("d1", "anabranch_dispatch_commit_waits_total") > 0.0);
        world.log.faults().heal();
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        let full = r#"anabranch_dispatch_deferred_total{reason="full""#;
        assert_eq!(world.metric("d1", full), 0.0);
        world.audit_exactly_once(&ids);
    });
}

#[test]
fn a_death_in_a_rebalance_repeats_what_ended_shortly_before() {
    seeds(12, |seed| {
        paused(async {
            let mut world = world_of(held(seed)).await;
            let _trace = world.log.trace_on_panic();
            world.start("d0");
            world.start("d1");
            let mut died = HashMap::new();
            let mut ids = publish_for(&mut world, Duration::from_secs(3)).await;
            for round in 0..4 {
                world.start(&format!("d{}", round + 2));
                let until = Duration::from_millis(world.entropy.u64() % 3_000);
                ids.extend(publish_for(&mut world, until).await);
                let dies = format!("d{round}");
                died.insert(dies.clone(), Instant::now());
                world.crash(&dies);
                ids.extend(publish_for(&mut world, Duration::from_secs(1)).await);
            }
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            audit_deaths(&world, &died);
        });
    });
}
