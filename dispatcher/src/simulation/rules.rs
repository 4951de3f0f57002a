//! The rules, one world each, where something in particular goes wrong.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use runtime::config::ByteSize;
use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use runtime::log::{Headers, Record};
use schemas::records::{ControlKey, DeadReason};
use schemas::resources::EndpointState;
use tokio::time::Instant;

use super::World;
use super::tests::{calm, paused};
use super::world::{Behaviour, PARTITIONS};
use crate::consumer_group;

const MINUTES: Duration = Duration::from_secs(600);

fn healthy() -> Behaviour {
    Behaviour::Healthy(1, 5)
}

/// The longest time from `since` to the first attempt of any of `ids`.
fn latest_start(world: &World, since: &HashMap<String, Instant>) -> Duration {
    let mut first: HashMap<String, Instant> = HashMap::new();
    for seen in world.seen() {
        first.entry(seen.delivery).or_insert(seen.started);
    }
    since
        .iter()
        .map(|(id, at)| first[id].saturating_duration_since(*at))
        .max()
        .unwrap()
}

#[test]
fn a_slow_control_partition_holds_a_new_endpoints_first_event_whatever_was_ahead_before() {
    slow_control();
}

pub(super) fn slow_control() {
    // design: "Views of control"; rule 16.
    paused(async {
        let mut world = World::new(calm()).await;
        let first = world.endpoint(healthy()).await;
        world.start("d1");
        // Ahead of control: goes on after 10 s at most.
        world.control_offset = 1_000_000;
        let since = Instant::now();
        let ids = world.publish(&[first], false).await;
        world
            .until("ahead", MINUTES, |world| world.ended(&ids))
            .await;
        assert!(since.elapsed() < Duration::from_secs(15));
        // Now control is slow, and a new endpoint's first event overtakes it.
        let control = world.topics.control.partition(0);
        world
            .log
            .faults()
            .unreadable(&control, Duration::from_secs(120));
        let partition = world.endpoints[first].0.placement.partition();
        let second = world.endpoint_at(healthy(), partition).await;
        world.control_offset = world.outside_bounds(&control).await;
        let ids = world.publish(&[second], false).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        assert_eq!(world.delivered(&ids[0]), 1, "{:?}", world.dead());
    });
}

#[test]
fn what_retention_deletes_before_it_is_read_is_recorded_as_lost() {
    // rule 16.
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = world.endpoint(healthy()).await;
        let partition = world
            .topics
            .deliveries
            .partition(world.endpoints[endpoint].0.placement.partition());
        let lost = world.publish_many(&[endpoint], 10).await;
        world.log.faults().delete_before(&partition, 6);
        world.start("d1");
        world
            .until("rest delivered", MINUTES, |world| world.ended(&lost[6..]))
            .await;
        assert!(lost[..6].iter().all(|id| world.delivered(id) == 0));
        let recorded = |world: &World, first: i64, last: i64| {
            world.letters().iter().any(|letter| {
                letter.reason == DeadReason::RetentionLost
                    && letter.origin.0 == partition.topic.as_str()
                    && letter.origin.1 == partition.number
                    && letter.origin.2 == first
                    && letter.through == Some(last)
            })
        };
        world
            .until("recorded", MINUTES, |world| recorded(world, 0, 5))
            .await;
        // Forgotten positions: everything from the earliest on, and the record says from where.
        world.drain("d1").await;
        let group = consumer_group(&world.topics);
        world.log.faults().forget_position(&group, &partition);
        world.log.faults().delete_before(&partition, 8);
        world.start("d2");
        world
            .until("recorded", MINUTES, |world| recorded(world, 0, 7))
            .await;
    });
}

#[test]
fn a_lost_range_is_not_passed_before_it_is_recorded() {
    // rules 6 and 16: no position may pass what is recorded nowhere.
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = world.endpoint(healthy()).await;
        let placement = world.endpoints[endpoint].0.placement.partition();
        let partition = world.topics.deliveries.partition(placement);
        world.publish_many(&[endpoint], 10).await;
        world.log.faults().delete_before(&partition, 6);
        for number in 0..PARTITIONS {
            let dead = world.topics.dead.partition(number);
            world.log.faults().unwritable(&dead, None);
        }
        world.start("d1");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let group = consumer_group(&world.topics);
        let committed = world.log.committed(&group)[&partition].clone();
        assert_eq!(committed.offset, 0, "passed without a record");
        world.crash("d1");
        for number in 0..PARTITIONS {
            let dead = world.topics.dead.partition(number);
            world.log.faults().writable(&dead);
        }
        world.start("d2");
        world
            .until("recorded", MINUTES, |world| {
                let dead = world.dead();
                dead.values()
                    .any(|letter| letter.reason == DeadReason::RetentionLost)
            })
            .await;
    });
}

#[test]
fn retention_that_overtakes_a_reader_costs_no_duplicates() {
    // rules 13 and 16: what is in flight from elsewhere is not attempted again.
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![8_000];
        let slow = world.endpoint_at(Behaviour::Healthy(9_000, 9_000), 0).await;
        let flaky = world.endpoint_at(Behaviour::Fails(500, None, 1), 0).await;
        world.start("d1");
        let retried = world.publish(&[flaky], false).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let delay = world.topics.delays[0].partition(0);
        // The reader of the delay topic falls behind and its records are deleted.
        world
            .log
            .faults()
            .unreadable(&delay, Duration::from_secs(3));
        let slow_ids = world.publish(&[slow], false).await;
        let more = world.publish(&[flaky], false).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let end = world.outside_bounds(&delay).await;
        world.log.faults().delete_before(&delay, end);
        world
            .until("recorded", MINUTES, |world| {
                let dead = world.dead();
                dead.values()
                    .any(|letter| letter.reason == DeadReason::RetentionLost)
                    && world.ended(&slow_ids)
            })
            .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let attempts = world
            .seen()
            .iter()
            .filter(|seen| seen.delivery == slow_ids[0])
            .count();
        assert_eq!(attempts, 1, "attempted again while in flight");
        for id in retried.iter().chain(&more) {
            assert!(world.delivered(id) <= 1);
        }
    });
}

#[test]
fn what_the_log_refuses_becomes_a_dead_letter_that_refers_to_its_origin() {
    // rules 6 and 16.
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![60_000];
        let failing = world.endpoint_at(Behaviour::Fails(500, None, 1), 0).await;
        world.start("d1");
        for delay in world.topics.delays.clone() {
            world.log.faults().refuse_values(&delay, "\"n\":1");
        }
        let ids = world.publish_many(&[failing], 20).await;
        world
            .until("dead", MINUTES, |world| world.ended(&ids))
            .await;
        let dead = world.dead();
        for id in &ids {
            assert_eq!(dead[id].reason, DeadReason::TooLarge);
            assert_eq!(dead[id].origin.0, "t.events");
        }
        let dead_topic = world.topics.dead.clone();
        world.log.faults().refuse_values(&dead_topic, "\"n\":1");
        world.behave(failing, Behaviour::Fails(422, None, 1));
        let ids = world.publish_many(&[failing], 20).await;
        world
            .until("dead by reference", MINUTES, |world| world.ended(&ids))
            .await;
        let dead = world.dead();
        assert!(ids.iter().all(|id| dead[id].reason == DeadReason::Rejected));
    });
}

#[test]
fn poison_records_become_dead_letters_and_the_partition_goes_on() {
    paused(async {
        let mut world = World::new(calm()).await;
        let endpoint = world.endpoint_at(healthy(), 0).await;
        let topics = [
            world.topics.deliveries.clone(),
            world.topics.delays[0].clone(),
        ];
        for topic in topics {
            for value in [None, Some(Bytes::from_static(b"\xff\xff poison"))] {
                let record = Record {
                    topic: topic.clone(),
                    partition: Some(0),
                    key: None,
                    value,
                    headers: Headers::default(),
                };
                world.write(vec![record]).await;
            }
        }
        let ids = world.publish(&[endpoint], false).await;
        world.start("d1");
        world
            .until("goes on", MINUTES, |world| {
                let dead = world.dead();
                let poison = dead
                    .values()
                    .filter(|letter| letter.reason == DeadReason::Undecodable);
                world.ended(&ids) && poison.count() == 4
            })
            .await;
    });
}

#[test]
fn pausing_disabling_and_deleting_reach_what_is_queued_waiting_and_in_flight() {
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![3_000, 20_000, 20_000];
        let states = [
            (EndpointState::Paused, None),
            (EndpointState::Disabled, Some(DeadReason::EndpointDisabled)),
        ];
        world.start("d1");
        for (state, reason) in states {
            let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
            let slow = world.endpoint(Behaviour::Healthy(3_000, 3_000)).await;
            let mut ids = world.publish_many(&[failing, slow], 30).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            for index in [failing, slow] {
                world.change(index, |endpoint| endpoint.state = state).await;
            }
            ids.extend(world.publish_many(&[failing, slow], 10).await);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let attempts = world.seen().len();
            tokio::time::sleep(Duration::from_secs(240)).await;
            assert_eq!(world.seen().len(), attempts, "attempted while {state:?}");
            if reason.is_none() {
                for index in [failing, slow] {
                    let active = EndpointState::Active;
                    world
                        .change(index, |endpoint| endpoint.state = active)
                        .await;
                }
            }
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            world.audit_exactly_once(&ids);
            let dead = world.dead();
            assert!(dead.values().all(|letter| Some(letter.reason) == reason));
        }
        let slow = world.endpoint(Behaviour::Healthy(3_000, 3_000)).await;
        let ids = world.publish_many(&[slow], 30).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let id = world.endpoints[slow].0.id;
        world.control_write(&ControlKey::Endpoint(id), None).await;
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
    });
}

#[test]
fn a_hanging_endpoint_slows_no_other_of_its_partition_and_the_position_moves_on() {
    // rule 7.
    paused(async {
        let mut world = World::new(calm()).await;
        let hanging = world.endpoint_at(Behaviour::Hangs, 0).await;
        let well = world.endpoint_at(healthy(), 0).await;
        world.start("d1");
        let warm = world.publish(&[well], false).await;
        world
            .until("warm", MINUTES, |world| world.ended(&warm))
            .await;
        let mut since = HashMap::new();
        let mut last = 0;
        let partition = world.topics.deliveries.partition(0);
        let group = consumer_group(&world.topics);
        for second in 0..60 {
            for _ in 0..200 {
                world.publish(&[hanging], false).await;
                let ids = world.publish(&[well], false).await;
                since.extend(ids.into_iter().map(|id| (id, Instant::now())));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let committed = world.log.committed(&group)[&partition].offset;
            if second == 30 {
                last = committed;
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let late = latest_start(&world, &since);
        assert!(late < Duration::from_millis(50), "waited {late:?}");
        let committed = world.log.committed(&group)[&partition].offset;
        assert!(committed > last + 6_000, "{last} to {committed}");
    });
}

#[test]
fn many_hanging_endpoints_leave_room_for_attempts_to_others() {
    // rule 7; peers: timed-out deliveries fill the shared tasks.
    paused(async {
        let mut world = World::new(calm()).await;
        world.config.dispatcher.max_in_flight = 32;
        let mut hanging = Vec::new();
        for _ in 0..10 {
            hanging.push(world.endpoint(Behaviour::Hangs).await);
        }
        let well = world.endpoint(healthy()).await;
        world.start("d1");
        let mut since = HashMap::new();
        for _ in 0..600 {
            world.publish(&hanging, false).await;
            let ids = world.publish(&[well], false).await;
            since.extend(ids.into_iter().map(|id| (id, Instant::now())));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world
            .until("delivered", MINUTES, |world| {
                since.keys().all(|id| world.delivered(id) == 1)
            })
            .await;
        let late = latest_start(&world, &since);
        assert!(late < Duration::from_millis(50), "waited {late:?}");
    });
}

#[test]
fn a_backlog_of_a_hanging_endpoint_stays_within_the_memory_budget() {
    // rules 7 and 8.
    paused(async {
        let mut world = World::new(calm()).await;
        world.config.dispatcher.memory = ByteSize::mib(8);
        world.config.dispatcher.lane_memory = ByteSize::mib(1);
        let hanging = world.endpoint_at(Behaviour::Hangs, 0).await;
        let failing = world
            .endpoint_at(Behaviour::Fails(500, None, usize::MAX), 0)
            .await;
        let well = world.endpoint_at(healthy(), 0).await;
        world.start("d1");
        let backlog = world.publish_many(&[hanging], 50_000).await;
        world.publish_many(&[failing], 5_000).await;
        assert_eq!(backlog.len(), 50_000);
        let (mut since, mut most_ahead) = (HashMap::new(), 0.0_f64);
        for _ in 0..100 {
            let ids = world.publish(&[well], false).await;
            since.extend(ids.into_iter().map(|id| (id, Instant::now())));
            tokio::time::sleep(Duration::from_millis(300)).await;
            let used = world.metric("d1", "anabranch_dispatch_memory_bytes");
            assert!(used <= f64::from(8 << 20), "{used} bytes");
            let read_ahead = world.metric("d1", "anabranch_dispatch_read_ahead_bytes");
            assert!(read_ahead <= used, "{read_ahead} of {used} bytes");
            most_ahead = read_ahead.max(most_ahead);
        }
        assert!(most_ahead > 0.0, "the backlog waits to be taken in");
        world
            .until("others flow", MINUTES, |world| {
                since.keys().all(|id| world.delivered(id) == 1)
            })
            .await;
    });
}

#[test]
fn two_dispatchers_of_one_name_end_one_of_them_and_lose_nothing() {
    paused(async {
        let mut world = World::new(calm()).await;
        let _trace = world.log.trace_on_panic();
        world.retry_schedule_ms = vec![6_000];
        let mut flaky = Vec::new();
        for placement in 0..PARTITIONS {
            let behaviour = Behaviour::Fails(404, None, 1);
            flaky.push(world.endpoint_at(behaviour, placement).await);
        }
        world.start_as("a", "same");
        let mut ids = world.publish_many(&flaky, 20).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.start_as("b", "same");
        for _ in 0..60 {
            ids.extend(world.publish(&flaky, false).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        let ended = [
            world.ended_by_itself("a").await,
            world.ended_by_itself("b").await,
        ];
        let errors: Vec<_> = ended.into_iter().flatten().collect();
        assert_eq!(errors.len(), 1, "one goes on: {errors:?}");
        let error = errors[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("`same`"), "{error}");
    });
}

#[test]
fn a_target_placed_elsewhere_is_written_there_however_often_that_fails() {
    // rule 6.
    paused(async {
        let mut world = World::new(calm()).await;
        let moved = world.endpoint_at(healthy(), 0).await;
        let mut ids = world.publish_many(&[moved], 5).await;
        let other = world.endpoint_at(healthy(), 1).await;
        let elsewhere = world.endpoints[other].0.placement;
        world
            .change(moved, |endpoint| endpoint.placement = elsewhere)
            .await;
        for _ in 0..3 {
            for fault in Fault::ALL {
                world
                    .log
                    .faults()
                    .fail_next_of("d1", Operation::Produce, fault);
            }
        }
        world.start("d1");
        ids.extend(world.publish_many(&[moved], 1).await);
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_exactly_once(&ids);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let group = consumer_group(&world.topics);
        let from = world.topics.deliveries.partition(0);
        assert_eq!(world.log.committed(&group)[&from].offset, 5);
    });
}

#[test]
fn a_drain_ends_though_positions_cannot_be_read_after_an_unknown_transaction() {
    paused(async {
        for fault in [Fault::LostRequest, Fault::LostReply] {
            let mut world = World::new(calm()).await;
            world.retry_schedule_ms = vec![8_000, 8_000];
            let failing = world.endpoint_at(Behaviour::Fails(500, None, 1), 0).await;
            world.start("d1");
            let ids = world.publish_many(&[failing], 5).await;
            let faults = world.log.faults();
            faults.fail_next_of("d1", Operation::Transaction, fault);
            faults.set_probability(Operation::Committed, Fault::Refused, 1.0);
            tokio::time::sleep(Duration::from_millis(100)).await;
            let log = world.log.clone();
            #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                log.faults().heal();
            });
            world.drain("d1").await;
            world.start("d2");
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            world.audit_exactly_once(&ids);
        }
    });
}

#[test]
fn a_quota_keeps_its_rate_for_what_comes_back_from_a_delay_topic() {
    // rule 5: limits are exact.
    paused(async {
        let mut world = World::new(calm()).await;
        world.retry_schedule_ms = vec![8_000];
        let limited = world.endpoint_at(Behaviour::Fails(404, None, 1), 0).await;
        let ids = world.publish_many(&[limited], 40).await;
        world.start("d1");
        world
            .until("attempted", MINUTES, |world| world.seen().len() >= 40)
            .await;
        world.drain("d1").await;
        let rate = serde_json::from_str(r#"{"count":1,"per_ms":1000}"#).unwrap();
        world
            .change(limited, |endpoint| endpoint.limits = vec![rate])
            .await;
        world.start("d2");
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        let seen: Vec<_> = world.seen().split_off(40);
        for pair in seen.windows(2) {
            let apart = pair[1].started - pair[0].started;
            assert!(apart >= Duration::from_millis(999), "{apart:?} apart");
        }
    });
}

#[test]
fn rough_worlds_keep_their_rules_with_transactions_open_at_every_rebalance() {
    super::tests::seeds(6, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            let _trace = world.log.trace_on_panic();
            world.retry_schedule_ms = vec![6_000, 6_000, 6_000, 6_000];
            for _ in 0..6 {
                world.endpoint(Behaviour::Fails(404, None, 2)).await;
            }
            world.start("d0");
            let mut ids = Vec::new();
            for round in 0..6 {
                for _ in 0..20 {
                    ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], false).await);
                    tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 100)).await;
                }
                world.start(&format!("d{}", round + 1));
                tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 1_000)).await;
                for fault in Fault::ALL {
                    world.log.faults().fail_next(Operation::Transaction, fault);
                }
                world.drain(&format!("d{round}")).await;
            }
            world
                .until("ended", MINUTES, |world| world.ended(&ids))
                .await;
            world.audit_exactly_once(&ids);
            world.audit_ownership();
        });
    });
}
