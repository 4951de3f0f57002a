//! Endpoints that fail, hang, flap or are gone, and a network of ours that is down.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use runtime::log::StoredRecord;
use schemas::records::{DeadReason, LaneProgress};
use schemas::resources::EndpointState;
use tokio::time::Instant;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::{Behaviour, PARTITIONS};
use crate::planted::{self, Bug};

const MINUTES: Duration = Duration::from_secs(600);

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The operational events: the last part of each one's type, and its data.
pub(super) fn all_told(world: &World) -> Vec<(String, serde_json::Value)> {
    let events = (0..PARTITIONS).flat_map(|number| {
        let partition = world.topics.events.partition(number);
        world.log.records(&partition)
    });
    let told = events.map(|record| {
        let ty = record.headers.iter().find(|(name, _)| *name == "ce_type");
        let ty = std::str::from_utf8(ty.unwrap().1).unwrap();
        let what = ty.strip_prefix("anabranch.endpoint.");
        let data = serde_json::from_slice(&record.value.unwrap());
        (
            what.expect("nothing else is told").to_owned(),
            data.unwrap(),
        )
    });
    told.collect()
}

/// The operational events that say that an endpoint was disabled: each one's data.
fn told(world: &World) -> Vec<serde_json::Value> {
    let disabled = all_told(world).into_iter();
    let disabled = disabled.filter(|(what, _)| what == "disabled");
    disabled.map(|(_, data)| data).collect()
}

/// How many attempts were started between these.
pub(super) fn attempts(world: &World, from: Instant, until: Instant) -> usize {
    let seen = world.seen();
    let within = seen
        .iter()
        .filter(|seen| seen.started >= from && seen.started < until);
    within.count()
}

fn down_for_two_minutes() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![5_000, 30_000, 60_000, 120_000];
        let down = world
            .endpoint(Behaviour::Fails(500, None, usize::MAX))
            .await;
        world.start("d1");
        let mut ids = Vec::new();
        for _ in 0..240 {
            ids.extend(world.publish(&[down], false).await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // After the first eight at once: probes after 1, 2, 4, … seconds.
        let now = Instant::now();
        let tried = attempts(&world, now - secs(100), now);
        assert!((1..=8).contains(&tried), "{tried} attempts in 100 s");
        world.behave(down, Behaviour::Healthy(1, 5));
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        let delivered = ids.iter().filter(|id| world.delivered(id) == 1).count();
        assert!(delivered + 20 >= ids.len(), "{delivered} of {}", ids.len());
    });
}

#[test]
fn an_endpoint_that_is_down_is_only_probed_and_served_soon_after_it_is_back() {
    down_for_two_minutes();
}

fn gone() {
    paused(async {
        let mut world = World::new(calm()).await;
        let gone = world
            .endpoint(Behaviour::Fails(410, None, usize::MAX))
            .await;
        world.start("d1");
        let mut ids = world.publish_many(&[gone], 20).await;
        world
            .until("buried", MINUTES, |world| world.ended(&ids))
            .await;
        let before = world.seen().len();
        world.crash("d1");
        world.start("d2");
        ids.extend(world.publish_many(&[gone], 20).await);
        world
            .until("buried", MINUTES, |world| world.ended(&ids))
            .await;
        assert_eq!(world.seen().len(), before, "a successor knows");
        let dead = world.dead();
        assert!(
            ids.iter()
                .all(|id| dead[id].reason == DeadReason::EndpointGone)
        );
        let told = told(&world);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["reason"], "gone");
        assert_eq!(told[0]["last_status"], 410);
        // Whoever changes it wants it tried.
        world.behave(gone, Behaviour::Healthy(1, 5));
        world.change(gone, |_| {}).await;
        let again = world.publish_many(&[gone], 5).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&again))
            .await;
        assert!(again.iter().all(|id| world.delivered(id) == 1));
    });
}

#[test]
fn a_gone_endpoint_is_told_of_once_and_never_attempted_again_by_anybody() {
    // WH-12, rules 5 and 19.
    gone();
}

/// Whether the scenario fails with this bug.
pub(super) fn is_found(bug: Bug, scenario: fn()) -> bool {
    planted::plant(Some(bug));
    let found = catch_unwind(AssertUnwindSafe(scenario)).is_err();
    planted::plant(None);
    found
}

#[test]
fn planted_bugs_of_health_are_found() {
    assert!(is_found(Bug::BreakerNeverCloses, down_for_two_minutes));
    assert!(is_found(Bug::AttemptsWhileOpen, down_for_two_minutes));
    assert!(is_found(Bug::DisabledUntold, gone));
}

#[test]
fn an_endpoint_that_fails_for_longer_than_it_may_is_disabled_and_told_of() {
    // WH-16; the time of an outage of ours is not its fault.
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![5_000; 60];
        let failing = world
            .endpoint(Behaviour::Fails(404, None, usize::MAX))
            .await;
        world
            .change(failing, |endpoint| {
                endpoint.disable_after_ms = Some(60_000);
            })
            .await;
        world.start("d1");
        let ids = world.publish_many(&[failing], 3).await;
        tokio::time::sleep(secs(50)).await;
        assert!(told(&world).is_empty());
        world
            .until("disabled", MINUTES, |world| world.ended(&ids))
            .await;
        let dead = world.dead();
        assert!(
            ids.iter()
                .all(|id| dead[id].reason == DeadReason::EndpointDisabled)
        );
        let told = told(&world);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["reason"], "failing");
    });
}

/// What the last owner left of the lane of the endpoint's quota.
pub(super) fn left(world: &World, index: usize) -> Option<LaneProgress> {
    let endpoint = &world.endpoints[index].0;
    let partition = endpoint.placement.partition();
    let records = world
        .log
        .records(&world.topics.progress.partition(partition));
    let key = LaneProgress::new(endpoint.quota.clone(), 0)
        .key()
        .to_string();
    let of_lane = |record: &StoredRecord| record.key.as_deref() == Some(key.as_bytes());
    let last = records.into_iter().rfind(of_lane)?;
    Some(LaneProgress::decode(&last.value?).unwrap())
}

#[test]
fn an_outage_of_everybody_costs_nobody_anything() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![5_000, 5_000];
        world.config.dispatcher.attempt_timeout = secs(5);
        let mut all = Vec::new();
        for _ in 0..20 {
            let index = world.endpoint(Behaviour::Healthy(1, 20)).await;
            world
                .change(index, |endpoint| endpoint.max_age_ms = Some(600_000))
                .await;
            all.push(index);
        }
        world.start("d1");
        let warm = world.publish(&all, false).await;
        world
            .until("warm", MINUTES, |world| world.ended(&warm))
            .await;
        tokio::time::sleep(secs(30)).await;
        for index in &all {
            world.behave(*index, Behaviour::Hangs);
        }
        let mut ids = Vec::new();
        for _ in 0..30 {
            ids.extend(world.publish(&all, false).await);
            tokio::time::sleep(secs(2)).await;
        }
        assert!(world.metric("d1", "anabranch_dispatch_outage") > 0.5);
        tokio::time::sleep(secs(3_600)).await;
        let now = Instant::now();
        let probes = attempts(&world, now - secs(600), now);
        assert!((30..=80).contains(&probes), "{probes} probes in 10 minutes");
        for index in &all {
            world.behave(*index, Behaviour::Healthy(1, 20));
        }
        world
            .until("all delivered", secs(1_200), |world| world.ended(&ids))
            .await;
        assert!(
            world.dead().is_empty(),
            "{:?}",
            world.dead().values().next()
        );
        assert!(world.metric("d1", "anabranch_dispatch_outage") < 0.5);
    });
}

#[test]
fn what_comes_in_a_short_pause_goes_soon_after_it() {
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = world.endpoint(Behaviour::Healthy(1, 5)).await;
        world.start("d1");
        let set = async |world: &mut World, state| {
            world
                .change(endpoint, |endpoint| endpoint.state = state)
                .await;
        };
        set(&mut world, EndpointState::Paused).await;
        tokio::time::sleep(secs(1)).await;
        let ids = world.publish_many(&[endpoint], 10).await;
        tokio::time::sleep(secs(8)).await;
        assert_eq!(world.seen().len(), 0);
        set(&mut world, EndpointState::Active).await;
        let resumed = Instant::now();
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        let waited = resumed.elapsed();
        assert!(waited <= secs(10), "{waited:?} after the resume");
    });
}

#[test]
fn many_new_endpoints_that_hang_leave_room_for_others_from_the_first_event() {
    // rule 7
    paused(async {
        let mut world = World::new(calm()).await;
        world.config.dispatcher.max_in_flight = 64;
        let mut hanging = Vec::new();
        for _ in 0..12 {
            hanging.push(world.endpoint(Behaviour::Hangs).await);
        }
        let mut well = Vec::new();
        for _ in 0..20 {
            well.push(world.endpoint(Behaviour::Healthy(1, 5)).await);
        }
        world.publish_many(&hanging, 50).await;
        let mut since = HashMap::new();
        world.start("d1");
        tokio::time::sleep(secs(1)).await;
        for _ in 0..50 {
            let ids = world.publish(&well, false).await;
            since.extend(ids.into_iter().map(|id| (id, Instant::now())));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(secs(2)).await;
        let mut first: HashMap<String, Instant> = HashMap::new();
        for seen in world.seen() {
            first.entry(seen.delivery).or_insert(seen.started);
        }
        let late = since.iter().map(|(id, at)| first[id] - *at).max().unwrap();
        assert!(late < Duration::from_millis(50), "waited {late:?}");
    });
}

#[test]
fn flapping_browned_out_and_dead_endpoints_all_come_to_an_end() {
    seeds(6, |seed| {
        paused(async {
            let mut options = calm();
            options.seed = seed;
            let mut world = World::new(options).await;
            world.retry_schedule_ms = vec![5_000, 20_000, 60_000];
            let mut all = Vec::new();
            for _ in 0..6 {
                all.push(world.endpoint(Behaviour::Healthy(1, 50)).await);
            }
            world.start("d0");
            let mut ids = Vec::new();
            for round in 0_u64..40 {
                let index = all[usize::try_from(world.entropy.u64() % 6).unwrap()];
                let behaviour = match world.entropy.u64() % 6 {
                    0 => Behaviour::Hangs,
                    1 => Behaviour::Flaky,
                    2 => Behaviour::Fails(500, None, usize::MAX),
                    3 => Behaviour::Healthy(500, 4_000),
                    _ => Behaviour::Healthy(1, 50),
                };
                world.behave(index, behaviour);
                for _ in 0..10 {
                    ids.extend(world.publish(&all, false).await);
                    tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 200)).await;
                }
                if round % 15 == 14 {
                    world.crash(&format!("d{}", round / 15));
                    world.start(&format!("d{}", round / 15 + 1));
                }
            }
            for index in &all {
                world.behave(*index, Behaviour::Healthy(1, 50));
            }
            world
                .until("all ended", MINUTES * 6, |world| world.ended(&ids))
                .await;
            world.audit_ownership();
            let dead = world.dead();
            let letters = dead.values();
            assert!(
                letters
                    .clone()
                    .all(|letter| letter.reason == DeadReason::AttemptsExhausted),
                "seed {seed}"
            );
        });
    });
}

#[test]
fn one_event_reaches_many_new_endpoints_at_once() {
    // Lanes that found no room, and have nothing left to do, hold up none that has.
    paused(async {
        let mut world = World::new(calm()).await;
        let mut all = Vec::new();
        for _ in 0..1_000 {
            all.push(world.endpoint(Behaviour::Healthy(1, 1)).await);
        }
        world.start("d1");
        let first = world.publish_many(&all[..1], 1).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&first))
            .await;
        let began = Instant::now();
        let ids = world.publish(&all, false).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        let late = attempts(&world, began + secs(1), Instant::now());
        assert_eq!(late, 0, "attempts that waited for a second");
    });
}

#[test]
fn nobody_is_sent_news_of_himself() {
    // rules 16 and 19
    paused(async {
        let mut world = World::new(calm()).await;
        let subject = world.endpoint(Behaviour::Healthy(1, 5)).await;
        let other = world.endpoint(Behaviour::Healthy(1, 5)).await;
        world.start("d1");
        world.about = Some(world.endpoints[subject].0.id);
        let own = world.publish_many(&[subject], 3).await;
        let ids = world.publish_many(&[other], 3).await;
        world.about = Some(world.endpoints[other].0.id);
        let more = world.publish_many(&[subject], 3).await;
        world
            .until("ended", MINUTES, |world| {
                world.ended(&own) && world.ended(&ids) && world.ended(&more)
            })
            .await;
        let dead = world.dead();
        assert!(own.iter().all(|id| dead[id].reason == DeadReason::Loop));
        assert!(ids.iter().chain(&more).all(|id| world.delivered(id) == 1));
    });
}

#[test]
fn half_a_second_in_which_nothing_ends_defers_nothing_for_long() {
    // rule 7: a measured rate is a guess
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![8_000; 3];
        let fast = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        world.start("d1");
        // All of them come back from a delay topic together.
        let ids = world.publish_many(&[fast], 6_000).await;
        tokio::time::sleep(secs(4)).await;
        world.behave(fast, Behaviour::Healthy(1, 5));
        // Again and again time stands still for half a second.
        for _ in 0..30 {
            world.stall(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(502)).await;
        }
        world
            .until("delivered", secs(60), |world| world.ended(&ids))
            .await;
        let partition = world.endpoints[fast].0.placement.partition();
        let tiers = world.topics.delays.clone();
        for (tier, topic) in tiers.iter().enumerate().skip(2) {
            let hops = world.outside_bounds(&topic.partition(partition)).await;
            assert_eq!(hops, 0, "deferred through tier {tier}");
        }
    });
}

#[test]
fn what_waits_for_the_process_and_not_for_its_endpoint_is_not_deferred() {
    // rule 7: more is read than the process sends in a while, for many that are all quick.
    paused(async {
        let mut world = World::new(calm()).await;
        world.config.dispatcher.max_in_flight = 8;
        let mut quick = Vec::new();
        for _ in 0..40 {
            quick.push(world.endpoint_at(Behaviour::Healthy(1, 3), 0).await);
        }
        let (mut ids, mut records) = (Vec::new(), Vec::new());
        for number in 0..20_000 {
            let (routed, of) = world.routed(&[quick[number % quick.len()]]);
            ids.extend(routed);
            records.extend(of);
        }
        world.write(records).await;
        world.start("d1");
        world
            .until("delivered", MINUTES, |world| {
                world.seen().len() >= ids.len()
            })
            .await;
        for topic in world.topics.delays.clone() {
            let hops = world.outside_bounds(&topic.partition(0)).await;
            assert_eq!(hops, 0, "deferred through {topic}");
        }
        world.audit_exactly_once(&ids);
    });
}
