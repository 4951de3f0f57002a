//! What dispatchers do in a world where things go wrong.

use std::time::Duration;

use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use schemas::records::{ControlKey, DeadReason};

use super::World;
use super::world::Behaviour;

const MINUTES: Duration = Duration::from_secs(600);

pub(super) fn calm() -> SimulationOptions {
    SimulationOptions::default()
}

/// Runs `scenario` for each seed asked for.
pub(super) fn seeds(default: u64, scenario: impl Fn(u64)) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("SIM_SEED") {
        Some(seed) => scenario(seed),
        None => (0..number("SIM_SEEDS").unwrap_or(default)).for_each(scenario),
    }
}

pub(super) fn paused(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future);
}

#[test]
fn every_target_is_delivered_once_and_repeats_of_the_router_are_dropped() {
    paused(async {
        let mut world = World::new(calm()).await;
        for _ in 0..6 {
            world.endpoint(Behaviour::Healthy(1, 30)).await;
        }
        world.start("d1");
        let mut ids = Vec::new();
        for event in 0..200 {
            ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], event % 3 == 0).await);
        }
        world
            .until("all delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        assert!(world.dead().is_empty());
    });
}

#[test]
fn failures_are_retried_on_schedule_through_memory_and_delay_topics() {
    retried_on_schedule();
}

pub(super) fn retried_on_schedule() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![1_000, 6_000, 40_000];
        let flaky = world.endpoint(Behaviour::Fails(500, None, 3)).await;
        world.start("d1");
        let ids = world.publish(&[flaky], false).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        let starts: Vec<_> = world.seen().iter().map(|seen| seen.started).collect();
        assert_eq!(starts.len(), 4);
        for (pair, wait_ms) in starts.windows(2).zip([1_000_u128, 6_000, 40_000]) {
            let waited = (pair[1] - pair[0]).as_millis();
            assert!(waited >= wait_ms * 8 / 10, "waited {waited} of {wait_ms}");
            assert!(
                waited <= wait_ms * 13 / 10 + 600,
                "waited {waited} of {wait_ms}"
            );
        }
        let delays = world.topics.delays.clone();
        let hops: i64 = {
            let mut hops = 0;
            for number in 0..3 {
                hops += world.outside_bounds(&delays[0].partition(number)).await;
                hops += world.outside_bounds(&delays[1].partition(number)).await;
            }
            hops
        };
        assert!(hops >= 2, "waits over five seconds go through delay topics");
    });
}

#[test]
fn what_ends_undelivered_says_why() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![1_000];
        let rejects = world.endpoint(Behaviour::Fails(422, None, 99)).await;
        let gone = world.endpoint(Behaviour::Fails(410, None, 99)).await;
        let failing = world.endpoint(Behaviour::Fails(503, None, 99)).await;
        let deleted = world.endpoint(Behaviour::Healthy(1, 1)).await;
        let id = world.endpoints[deleted].0.id;
        world.control_write(&ControlKey::Endpoint(id), None).await;
        world.start("d1");
        let check = async |world: &mut World, endpoint: usize, reason: DeadReason| {
            let ids = world.publish(&[endpoint], false).await;
            world
                .until("dead", MINUTES, |world| world.dead().contains_key(&ids[0]))
                .await;
            assert_eq!(world.dead()[&ids[0]].reason, reason);
        };
        check(&mut world, rejects, DeadReason::Rejected).await;
        check(&mut world, gone, DeadReason::EndpointGone).await;
        let attempts = world.seen().len();
        check(&mut world, gone, DeadReason::EndpointGone).await;
        assert_eq!(
            world.seen().len(),
            attempts,
            "WH-12: a 410 stops further attempts"
        );
        check(&mut world, failing, DeadReason::AttemptsExhausted).await;
        check(&mut world, deleted, DeadReason::Deleted).await;
    });
}

#[test]
fn retry_after_holds_the_whole_quota_and_costs_no_attempt() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![1_000];
        let limited = world.endpoint(Behaviour::Fails(429, Some(60), 1)).await;
        world.start("d1");
        let first = world.publish(&[limited], false).await;
        world
            .until("first attempt", MINUTES, |world| world.seen().len() == 1)
            .await;
        let second = world.publish(&[limited], false).await;
        let both = [first, second].concat();
        world
            .until("delivered", MINUTES, |world| world.ended(&both))
            .await;
        let seen = world.seen();
        let held = seen[1].started - seen[0].started;
        assert!(held >= Duration::from_secs(60), "attempted after {held:?}");
        assert!(world.dead().is_empty());
    });
}

#[test]
fn a_drained_dispatcher_hands_over_without_a_duplicate() {
    paused(async {
        let mut world = World::new(calm()).await;
        for _ in 0..6 {
            world.endpoint(Behaviour::Healthy(1, 400)).await;
        }
        world.start("d1");
        world.start("d2");
        let mut ids = Vec::new();
        for event in 0..300 {
            ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], event % 7 == 0).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if event == 150 {
                world.drain("d1").await;
                world.start("d3");
            }
        }
        world
            .until("all delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        world.audit_ownership();
    });
}

#[test]
fn a_stopped_dispatcher_attempts_nothing_after_it_is_woken_until_it_owns_again() {
    paused(async {
        let mut world = World::new(calm()).await;
        for _ in 0..6 {
            world.endpoint(Behaviour::Healthy(1, 50)).await;
        }
        world.start("d1");
        let warm = world.publish(&[0, 1, 2, 3, 4, 5], false).await;
        world
            .until("warm", MINUTES, |world| world.ended(&warm))
            .await;
        world.start("d2");
        world.log.stop("d1");
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], false).await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        world.log.wake("d1");
        world
            .until("all delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_ownership();
    });
}

#[test]
fn nothing_is_lost_whatever_goes_wrong() {
    seeds(12, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            let _trace = world.log.trace_on_panic();
            for index in 0..8 {
                let behaviour = match index % 4 {
                    0 => Behaviour::Healthy(1, 50),
                    1 => Behaviour::Flaky,
                    2 => Behaviour::Fails(503, Some(2), 1),
                    _ => Behaviour::Healthy(1, 2_000),
                };
                world.endpoint(behaviour).await;
            }
            // Every other world has a log that fails now and then, in every way.
            for operation in [
                Operation::Produce,
                Operation::Commit,
                Operation::Transaction,
            ] {
                for fault in Fault::ALL.into_iter().filter(|_| seed % 2 == 1) {
                    world.log.faults().set_probability(operation, fault, 0.01);
                }
            }
            world.start("d0");
            world.start("d1");
            let mut ids = Vec::new();
            let mut next = 2;
            for event in 0_u32..120 {
                let repeat = event.is_multiple_of(5);
                ids.extend(world.publish(&[0, 1, 2, 3, 4, 5, 6, 7], repeat).await);
                tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 300)).await;
                if event % 30 == 29 {
                    let old = format!("d{}", next - 2);
                    if world.entropy.unit() < 0.5 {
                        world.crash(&old);
                    } else {
                        world.drain(&old).await;
                    }
                    world.start(&format!("d{next}"));
                    next += 1;
                }
            }
            world
                .until("all ended", MINUTES * 6, |world| world.ended(&ids))
                .await;
            world.audit_ownership();
        });
    });
}
