//! Order within a key (rule 12), whatever fails and whoever owns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use schemas::ids::EndpointId;
use schemas::records::DeadReason;
use schemas::resources::EndpointState;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::{Behaviour, Seen};
use crate::planted::{self, Bug};

const MINUTES: Duration = Duration::from_secs(3_600);

impl World {
    /// Rule 12: of a key, deliveries succeed in the order of their events, a repeat is followed by
    /// all that followed it before, and none is attempted while another is.
    fn audit_order(&self) {
        let mut lines: BTreeMap<(EndpointId, u64), Vec<(i64, Seen)>> = BTreeMap::new();
        for seen in self.seen() {
            let (endpoint, key, number) = self.ordered[&seen.delivery];
            lines
                .entry((endpoint, key))
                .or_default()
                .push((number, seen));
        }
        for ((endpoint, key), attempts) in lines {
            let succeeded = |seen: &Seen| seen.status == Some(200);
            let mut newest = 0;
            let mut last = 0;
            for (at, (number, seen)) in attempts.iter().enumerate() {
                if succeeded(seen) {
                    let first = !attempts
                        .iter()
                        .take(at)
                        .any(|(other, before)| other == number && succeeded(before));
                    assert!(
                        !first || *number > newest,
                        "{endpoint} {key}: {number} after {newest}"
                    );
                    newest = newest.max(*number);
                    last = *number;
                }
                let next = attempts
                    .get(at + 1)
                    .filter(|(_, next)| next.process == seen.process);
                if let (Some((_, next)), Some(ended)) = (next, seen.ended) {
                    assert!(next.started >= ended, "two of {endpoint} {key} at once");
                }
            }
            assert_eq!(last, newest, "{endpoint} {key}: an older one came last");
        }
    }
}

#[test]
fn keys_are_attempted_beside_each_other_and_one_key_in_turn() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 8;
        let slow = world.endpoint(Behaviour::Healthy(500, 900)).await;
        world.start("d1");
        let ids = world.publish_many(&[slow], 200).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_order();
        world.audit_exactly_once(&ids);
        let seen = world.seen();
        let together = |seen: &&Seen| {
            let at = seen.started;
            let others = world.seen();
            let under_way = others
                .iter()
                .filter(|other| other.started <= at && other.ended.unwrap() > at);
            under_way.count() >= 4
        };
        assert!(
            seen.iter().filter(together).count() > 50,
            "keys wait for each other"
        );
    });
}

/// What a router writes again long after, when its marks are forgotten, is looked up in the log.
#[test]
fn an_old_event_written_again_is_not_the_newest_of_its_key() {
    seeds(20, |seed| {
        planted::plant(Some(Bug::MarksKeptShort));
        paused(async {
            let mut world = World::new(SimulationOptions { seed, ..calm() }).await;
            world.keys = 2;
            let endpoint = world.endpoint(Behaviour::Healthy(1, 20)).await;
            world.start("d1");
            let (mut ids, old) = world.routed(&[endpoint]);
            world.write(old.clone()).await;
            ids.extend(world.publish_many(&[endpoint], 20).await);
            tokio::time::sleep(Duration::from_secs(300)).await;
            world.write(old).await;
            let (late, records) = world.routed(&[endpoint]);
            world.write(records).await;
            ids.extend(late);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(world.ended(&ids), "seed {seed}");
            world.audit_order();
            world.audit_exactly_once(&ids);
            assert!(world.metric("d1", "anabranch_dispatch_recalls_total") > 0.0);
        });
        planted::plant(None);
    });
}

/// An origin whose offsets begin anew is looked up once, and not for each of its events.
#[test]
fn an_origin_that_begins_anew_is_looked_up_once() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 1;
        let endpoint = world.endpoint(Behaviour::Healthy(1, 5)).await;
        world.start("d1");
        world.published = 1_000;
        let mut ids = world.publish_many(&[endpoint], 20).await;
        world.published = 0;
        ids.extend(world.publish_many(&[endpoint], 50).await);
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        let asked = world.metric("d1", "anabranch_dispatch_recalls_total");
        assert!((asked - 1.0).abs() < 1e-9, "{asked}");
    });
}

fn blocked_and_free_again() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 4;
        world.retry_schedule_ms = vec![20_000, 40_000];
        let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        world.start("d1");
        let first = world.publish_many(&[failing], 40).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.behave(failing, Behaviour::Healthy(1, 5));
        let rest = world.publish_many(&[failing], 40).await;
        let ids = [first, rest].concat();
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_order();
        world.audit_exactly_once(&ids);
        assert!(world.dead().is_empty());
        // The lines are free again: the next one goes at once.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let last = world.publish_many(&[failing], 4).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.ended(&last), "lines stay blocked");
    });
}

fn handed_over() {
    paused(async {
        for crash in [true, false] {
            let mut world = World::new(calm()).await;
            world.keys = 3;
            world.retry_schedule_ms = vec![60_000, 60_000];
            let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
            world.start("d1");
            let mut ids = world.publish_many(&[failing], 9).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            if crash {
                world.crash("d1");
            } else {
                world.drain("d1").await;
            }
            world.start("d2");
            world.behave(failing, Behaviour::Healthy(1, 5));
            ids.extend(world.publish_many(&[failing], 9).await);
            tokio::time::sleep(Duration::from_secs(25)).await;
            let delivered = ids.iter().filter(|id| world.delivered(id) > 0);
            assert_eq!(delivered.count(), 0, "attempted though the key is blocked");
            world
                .until("delivered", MINUTES, |world| world.ended(&ids))
                .await;
            world.audit_order();
            world.audit_exactly_once(&ids);
        }
    });
}

#[test]
fn a_blocked_key_passes_through_delay_topics_in_order_and_blocks_no_other() {
    blocked_and_free_again();
}

#[test]
fn a_successor_knows_which_keys_are_blocked() {
    handed_over();
}

#[test]
fn planted_bugs_of_order_are_found() {
    let is_found = |bug, scenario: fn()| {
        planted::plant(Some(bug));
        let found = catch_unwind(AssertUnwindSafe(scenario)).is_err();
        planted::plant(None);
        found
    };
    assert!(is_found(Bug::AttemptsNonHead, blocked_and_free_again));
    assert!(is_found(Bug::BlockWithoutItsHop, handed_over));
    assert!(is_found(Bug::HeadSkipped, handed_over));
}

#[test]
fn what_ends_undelivered_lets_its_key_go_on() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 2;
        world.retry_schedule_ms = vec![8_000];
        let failing = world.endpoint(Behaviour::Fails(422, None, 1)).await;
        world.start("d1");
        let mut ids = world.publish_many(&[failing], 10).await;
        world
            .until("dead", MINUTES, |world| world.ended(&ids))
            .await;
        // A paused endpoint, whose deliveries are all blocked, and then a disabled one.
        let paused = EndpointState::Paused;
        world
            .change(failing, |endpoint| endpoint.state = paused)
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        ids.extend(world.publish_many(&[failing], 20).await);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let disabled = EndpointState::Disabled;
        world
            .change(failing, |endpoint| endpoint.state = disabled)
            .await;
        world
            .until("all dead", MINUTES, |world| world.ended(&ids))
            .await;
        let dead = world.dead();
        let of = |reason| {
            dead.values()
                .filter(|letter| letter.reason == reason)
                .count()
        };
        assert_eq!(of(DeadReason::Rejected), 10);
        assert_eq!(of(DeadReason::EndpointDisabled), 20);
    });
}

#[test]
fn what_the_log_refuses_leaves_no_gap_that_blocks_its_key() {
    // rule 6
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 2;
        world.retry_schedule_ms = vec![20_000];
        let failing = world.endpoint_at(Behaviour::Fails(404, None, 1), 0).await;
        world.start("d1");
        for delay in world.topics.delays.clone() {
            world.log.faults().refuse_values(&delay, "\"n\":1");
        }
        let ids = world.publish_many(&[failing], 20).await;
        world
            .until("dead", MINUTES, |world| world.ended(&ids))
            .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.behave(failing, Behaviour::Healthy(1, 5));
        let ids = world.publish_many(&[failing], 6).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(world.ended(&ids), "lines stay blocked");
    });
}

#[test]
fn a_hot_key_is_deferred_within_its_lanes_memory_and_stays_in_order() {
    // rules 7 and 8
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 1;
        world.config.dispatcher.lane_memory = runtime::config::ByteSize::kib(64);
        let slow = world.endpoint_at(Behaviour::Healthy(200, 200), 0).await;
        let well = world.endpoint_at(Behaviour::Healthy(1, 5), 0).await;
        world.start("d1");
        let mut ids = world.publish_many(&[slow], 1_000).await;
        world.keys = 0;
        let since = tokio::time::Instant::now();
        let other = world.publish(&[well], false).await;
        while !world.ended(&other) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "a hot key slows others"
        );
        world.keys = 1;
        ids.extend(world.publish_many(&[slow], 10).await);
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world
            .ordered
            .insert(other[0].clone(), (EndpointId::from_bits(0), 0, 1));
        world.audit_order();
        world.audit_exactly_once(&ids);
        let mut hops = 0;
        for delay in &world.topics.delays {
            hops += world.outside_bounds(&delay.partition(0)).await;
        }
        assert!((100..=10_100).contains(&hops), "{hops} hops");
    });
}

#[test]
fn order_survives_failures_crashes_and_rebalances() {
    seeds(16, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            let _trace = world.log.trace_on_panic();
            world.keys = 3;
            world.retry_schedule_ms = vec![1_000, 6_000, 10_000, 10_000, 10_000, 10_000];
            let behaviours = [
                Behaviour::Flaky,
                Behaviour::Fails(404, None, 1),
                Behaviour::Fails(503, Some(2), 1),
                Behaviour::Healthy(1, 2_000),
            ];
            let endpoints: Vec<usize> = (0..behaviours.len()).collect();
            for behaviour in behaviours {
                world.endpoint(behaviour).await;
            }
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
            for event in 0_u32..90 {
                ids.extend(world.publish(&endpoints, event.is_multiple_of(5)).await);
                tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 600)).await;
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
                .until("all ended", MINUTES, |world| world.ended(&ids))
                .await;
            world.audit_order();
        });
    });
}
