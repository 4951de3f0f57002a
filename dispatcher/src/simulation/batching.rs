//! Several deliveries in one request, with answers that take some and not others.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use runtime::log::simulated::SimulationOptions;
use schemas::profile::ResponseGrammar;
use schemas::records::DeadReason;
use schemas::resources::{Batch, BatchFormat, Placement, Quota};
use serde_json::json;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::{Behaviour, PARTITIONS};
use crate::planted::{self, Bug};

const MINUTES: Duration = Duration::from_secs(3_600);

fn batch(items: u32, max_wait_ms: u32) -> Batch {
    Batch {
        max_items: NonZeroU32::new(items).unwrap(),
        max_bytes: NonZeroU32::new(1 << 20).unwrap(),
        max_wait_ms,
        format: BatchFormat::CloudEvents,
    }
}

async fn taking(world: &mut World, behaviour: Behaviour, batch: Batch) -> usize {
    let index = world.endpoint(behaviour).await;
    world
        .change(index, |endpoint| endpoint.batch = Some(batch))
        .await;
    index
}

/// Every event whose number `dies` was given up, all others were taken, and never twice.
fn audit_taken(world: &World, last: i64, exactly_once: bool, dies: impl Fn(i64) -> bool) {
    let taken = world.taken();
    for number in 1..=last {
        let times = taken.get(&number).copied().unwrap_or(0);
        if dies(number) {
            assert_eq!(times, 0, "{number} was taken");
        } else {
            assert!(times > 0, "{number} is lost");
            assert!(
                times == 1 || !exactly_once,
                "{number} was taken {times} times"
            );
        }
    }
}

fn halved() {
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = taking(&mut world, Behaviour::Culprits(37), batch(50, 200)).await;
        world.start("d1");
        let ids = world.publish_many(&[endpoint], 200).await;
        world
            .until("ended", MINUTES, |world| {
                world.taken().len() + world.dead().len() == ids.len()
            })
            .await;
        audit_taken(&world, 200, true, |number| number % 37 == 0);
        let dead = world.dead();
        assert!(
            dead.values()
                .all(|letter| letter.reason == DeadReason::Rejected)
        );
        for number in (37..=200).step_by(37) {
            assert!(
                dead.contains_key(&ids[number - 1]),
                "{number} has no letter of its own"
            );
        }
        // Four whole requests, and about 2 log2 50 for each of the five culprits.
        let requests = world.seen().len();
        assert!((9..=70).contains(&requests), "{requests} requests");
        assert!(world.metric("d1", "anabranch_dispatch_batches_halved_total") >= 5.0);
    });
}

#[test]
fn a_rejected_batch_is_halved_until_the_culprit_is_alone() {
    halved();
}

#[test]
fn a_batch_that_is_given_up_with_its_culprit_is_found() {
    planted::plant(Some(Bug::HalvesNothing));
    let found = catch_unwind(AssertUnwindSafe(halved)).is_err();
    planted::plant(None);
    assert!(found);
}

#[test]
fn each_item_of_an_answer_has_its_own_verdict() {
    // rule 15
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = taking(&mut world, Behaviour::Partial(10), batch(25, 200)).await;
        let grammar = ResponseGrammar::read(&json!({
            "lists": [{"at": "/failed", "index": "/index", "code": "/code", "retryable": ["busy"]}],
        }));
        world
            .change(endpoint, |endpoint| {
                endpoint.grammar = Some(Box::new(grammar.unwrap()));
            })
            .await;
        world.start("d1");
        let ids = world.publish_many(&[endpoint], 100).await;
        world
            .until("ended", MINUTES, |world| {
                world.taken().len() + world.dead().len() == ids.len()
            })
            .await;
        audit_taken(&world, 100, true, |number| number % 20 == 0);
    });
}

#[test]
fn a_batch_that_fails_is_the_same_request_when_it_is_sent_again() {
    // WH-1
    paused(async {
        for wait_ms in [2_000, 20_000] {
            let mut world = World::new(calm()).await;
            world.retry_schedule_ms = vec![wait_ms];
            let endpoint = taking(&mut world, Behaviour::Fails(404, None, 1), batch(20, 500)).await;
            world.start("d1");
            world.publish_many(&[endpoint], 20).await;
            world
                .until("sent again", MINUTES, |world| world.seen().len() >= 2)
                .await;
            let seen = world.seen();
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert_eq!(seen[0].delivery, seen[1].delivery);
            assert_eq!(seen[1].status, Some(200));
        }
    });
}

#[test]
fn a_batch_waits_for_company_no_longer_than_it_may() {
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = taking(&mut world, Behaviour::Culprits(1_000), batch(10, 1_000)).await;
        world.start("d1");
        tokio::time::sleep(Duration::from_secs(15)).await;
        let since = tokio::time::Instant::now();
        for _ in 0..3 {
            world.publish(&[endpoint], false).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let seen = world.seen();
        assert_eq!(seen.len(), 1, "three in one request");
        let waited = seen[0].started - since;
        assert!(waited >= Duration::from_millis(990), "{waited:?}");
        assert!(waited <= Duration::from_millis(1_200), "{waited:?}");
        let since = tokio::time::Instant::now();
        world.publish_many(&[endpoint], 10).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let waited = world.seen()[1].started - since;
        assert!(
            waited <= Duration::from_millis(200),
            "a full one waits for nothing: {waited:?}"
        );
    });
}

#[test]
fn batches_lose_nothing_whatever_goes_wrong() {
    seeds(6, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            let _trace = world.log.trace_on_panic();
            let endpoint = taking(&mut world, Behaviour::Culprits(11), batch(16, 300)).await;
            world.start("d0");
            let mut published = 0;
            for round in 0..6 {
                for _ in 0..25 {
                    world.publish(&[endpoint], false).await;
                    published += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let (old, next) = (format!("d{round}"), format!("d{}", round + 1));
                if world.entropy.unit() < 0.5 {
                    world.crash(&old);
                } else {
                    world.drain(&old).await;
                }
                world.start(&next);
            }
            world
                .until("ended", MINUTES, |world| {
                    world.taken().len() + world.dead().len() == 150
                })
                .await;
            audit_taken(&world, published, false, |number| number % 11 == 0);
        });
    });
}

#[test]
fn endpoints_of_one_quota_wait_for_company_beside_each_other() {
    // rule 7
    paused(async {
        let mut world = World::new(calm()).await;
        let quota = Quota::shared(&"acme".parse().unwrap(), "crm");
        let placement = Placement::of(&quota, NonZeroU32::new(PARTITIONS).unwrap());
        let one = taking(&mut world, Behaviour::Culprits(1_000), batch(10, 1_000)).await;
        let other = taking(&mut world, Behaviour::Culprits(1_000), batch(10, 1_000)).await;
        let single = world.endpoint(Behaviour::Healthy(1, 5)).await;
        for index in [one, other, single] {
            world
                .change(index, |endpoint| {
                    endpoint.quota = quota.clone();
                    endpoint.placement = placement;
                })
                .await;
        }
        world.start("d1");
        tokio::time::sleep(Duration::from_secs(15)).await;
        let mut ids = Vec::new();
        let began = tokio::time::Instant::now();
        for _ in 0..15 {
            world.publish(&[one], false).await;
            world.publish(&[other], false).await;
            ids.extend(world.publish(&[single], false).await);
        }
        let published = began.elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(world.ended(&ids), "waits for others' company");
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Ten at once, and five that have waited.
        let requests = world.seen().len() - ids.len();
        assert_eq!(requests, 4, "published in {published:?}");
        assert_eq!(world.taken().len(), 30);
    });
}
