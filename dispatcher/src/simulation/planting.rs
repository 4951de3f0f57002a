//! Bugs that are planted, each where the mistake would be made, and the worlds whose auditor must
//! find them; and that a seed is the same world each time.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use runtime::config::ByteSize;
use runtime::log::simulated::{Fault, Latencies, Operation, SimulationOptions};
use tokio::time::Instant;

use super::World;
use super::limits::held;
use super::rules::slow_control;
use super::tests::{calm, paused, retried_on_schedule};
use super::waking::woken_with_much_to_say;
use super::world::{Behaviour, PARTITIONS};
use crate::consumer_group;
use crate::planted::{self, Bug};

const MINUTES: Duration = Duration::from_secs(600);
/// So many seeds are tried for each bug.
const SEEDS: u64 = 4;

fn busy(seed: u64) -> SimulationOptions {
    SimulationOptions {
        seed,
        latencies: Latencies::busy(),
        ..calm()
    }
}

/// Transactions fail for a while, and their dispatcher dies: all ends (rules 6 and 16).
fn dies_while_transactions_fail(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.retry_schedule_ms = vec![8_000, 8_000];
        let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        let refusing = world
            .endpoint(Behaviour::Fails(422, None, usize::MAX))
            .await;
        world.start("d0");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let faults = world.log.faults();
        faults.set_probability(Operation::Transaction, Fault::Refused, 1.0);
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.extend(world.publish(&[failing, refusing], false).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.crash("d0");
        world.log.faults().heal();
        world.start("d1");
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
    });
}

/// A dispatcher dies with much in flight: all ends (rule 6).
fn dies_in_flight(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        let slow = world.endpoint(Behaviour::Healthy(500, 3_000)).await;
        world.start("d0");
        let ids = world.publish_many(&[slow], 30).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        world.crash("d0");
        world.start("d1");
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
    });
}

/// Placements go from hand to hand and nobody dies: nothing is sent twice (rules 5 and 13).
fn hands_over(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        for _ in 0..6 {
            world.endpoint(Behaviour::Healthy(1, 400)).await;
        }
        world.start("d0");
        let mut ids = Vec::new();
        for round in 0..4 {
            for _ in 0..30 {
                ids.extend(world.publish(&[0, 1, 2, 3, 4, 5], false).await);
                tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 60)).await;
            }
            world.start(&format!("d{}", round + 1));
            tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 3_000)).await;
            world.drain(&format!("d{round}")).await;
        }
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        for id in &ids {
            let attempts = world.seen().into_iter().filter(|seen| seen.delivery == *id);
            let attempts: Vec<_> = attempts.collect();
            assert_eq!(attempts.len(), 1, "{attempts:?}");
        }
        world.audit_ownership();
    });
}

/// A dispatcher that is stopped for longer than a session has something to attempt that needs no
/// commit (rule 5).
fn stopped_with_retries(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.retry_schedule_ms = vec![2_000; 40];
        let failing = world.endpoint(Behaviour::Fails(404, None, 30)).await;
        world.start("d1");
        let ids = world.publish_many(&[failing], 3).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        world.log.stop("d1");
        world.start("d2");
        tokio::time::sleep(Duration::from_secs(40)).await;
        world.log.wake("d1");
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_ownership();
    });
}

/// A router writes again what was written and delivered before the owner changed (rule 3).
fn repeated_after_a_hand_over(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        let endpoint = world.endpoint(Behaviour::Healthy(1, 20)).await;
        world.start("d0");
        let (mut ids, mut last) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let (of, records) = world.routed(&[endpoint]);
            ids.extend(of);
            world.write(records.clone()).await;
            last = records;
        }
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.drain("d0").await;
        world.start("d1");
        world.write(last).await;
        ids.extend(world.publish(&[endpoint], true).await);
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.audit_exactly_once(&ids);
    });
}

/// A router writes again what was written and delivered minutes ago (rule 3).
fn repeated_minutes_later(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        let endpoint = world.endpoint(Behaviour::Healthy(1, 20)).await;
        world.start("d0");
        let (ids, records) = world.routed(&[endpoint]);
        world.write(records.clone()).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        world.write(records).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(world.ended(&ids));
        world.audit_exactly_once(&ids);
    });
}

/// Retries that take long: one at a time of each delivery.
fn retried_slowly(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.retry_schedule_ms = vec![3_000];
        let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        world.start("d0");
        let ids = world.publish_many(&[failing], 5).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.behave(failing, Behaviour::Healthy(300, 400));
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        world.audit_one_at_a_time(&ids);
        world.audit_exactly_once(&ids);
    });
}

/// What waits for its next attempt when its dispatcher drains waits for it with the next one, and
/// costs no attempt more.
fn drained_while_it_waits(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.retry_schedule_ms = vec![4_000];
        let failing = world
            .endpoint(Behaviour::Fails(404, None, usize::MAX))
            .await;
        world.start("d0");
        let ids = world.publish_many(&[failing], 5).await;
        world
            .until("attempted", MINUTES, |world| world.seen().len() == 5)
            .await;
        world.drain("d0").await;
        world.start("d1");
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        for id in &ids {
            let attempts = world.seen().into_iter().filter(|seen| seen.delivery == *id);
            let starts: Vec<Instant> = attempts.map(|seen| seen.started).collect();
            assert_eq!(starts.len(), 2, "one retry");
            assert!(starts[1] - starts[0] >= Duration::from_millis(3_200));
        }
    });
}

/// More comes than the memory holds at once: all of it goes (rule 8).
fn more_than_memory(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.config.dispatcher.memory = ByteSize::mib(1);
        let endpoint = world.endpoint(Behaviour::Healthy(1, 5)).await;
        world.start("d0");
        let ids = world.publish_many(&[endpoint], 3_000).await;
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
    });
}

/// When all has ended no position stays below a record (design: "Ledger").
fn positions_reach_the_end(seed: u64) {
    paused(async {
        let mut world = World::new(busy(seed)).await;
        world.retry_schedule_ms = vec![6_000];
        let failing = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        world.start("d0");
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.extend(world.publish(&[failing], false).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        world.drain("d0").await;
        let committed = world.log.committed(&consumer_group(&world.topics));
        for (partition, position) in committed {
            let last = world.log.records(&partition).last().map(|last| last.offset);
            let passed = last.is_none_or(|last| position.offset > last);
            assert!(passed, "{partition} is at {position:?}, ends at {last:?}");
        }
    });
}

fn control_is_slow(_seed: u64) {
    slow_control();
}

fn schedule(_seed: u64) {
    retried_on_schedule();
}

fn told_to_wait(seed: u64) {
    paused(held(seed));
}

/// Which world is to find which bug.
const PLANTED: [(Bug, fn(u64)); 20] = [
    (Bug::HopWithoutTransaction, dies_while_transactions_fail),
    (Bug::CompletedBeforeDead, dies_while_transactions_fail),
    (Bug::NoReopenAfterAbort, dies_while_transactions_fail),
    (Bug::LateCommitAfterRevoke, hands_over),
    (Bug::CommitPastOpen, dies_in_flight),
    (Bug::LeaseUnchecked, stopped_with_retries),
    (Bug::LeaseNotAsked, woken_with_much_to_say),
    (Bug::NewsUnheard, woken_with_much_to_say),
    (Bug::MarksForgotten, repeated_after_a_hand_over),
    (Bug::MarksUnread, repeated_after_a_hand_over),
    (Bug::MarksKeptShort, repeated_minutes_later),
    (Bug::RetriedTwice, retried_slowly),
    (Bug::DueUndershot, schedule),
    (Bug::RetryAfterIgnored, told_to_wait),
    (Bug::DrainBeforeInFlight, hands_over),
    (Bug::ControlOffsetIgnored, control_is_slow),
    (Bug::WaitingDroppedAtDrain, drained_while_it_waits),
    (Bug::MemoryKept, more_than_memory),
    (Bug::NeverResumed, more_than_memory),
    (Bug::GapsStayOpen, positions_reach_the_end),
];

fn fails(bug: Option<Bug>, scenario: fn(u64), seed: u64) -> bool {
    planted::plant(bug);
    let failed = catch_unwind(AssertUnwindSafe(|| scenario(seed))).is_err();
    planted::plant(None);
    failed
}

#[test]
#[expect(clippy::print_stdout, reason = "which seed found a bug is wanted")]
fn every_planted_bug_is_found_and_nothing_where_none_is() {
    let mut missed = Vec::new();
    for (bug, scenario) in PLANTED {
        let found = (0..SEEDS).find(|seed| fails(Some(bug), scenario, *seed));
        match found {
            // The same seed without the bug: it is the bug that is found.
            Some(seed) if fails(None, scenario, seed) => missed.push((bug, "fails without it")),
            Some(seed) => println!("{bug:?}: found by seed {seed}"),
            None => missed.push((bug, "not found")),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// The hash of all that endpoints and the log have seen of a world where much goes wrong.
fn hash_of(seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    paused(async {
        let began = Instant::now();
        let mut world = World::new(SimulationOptions::rough(seed)).await;
        world.retry_schedule_ms = vec![1_000, 6_000];
        world.keys = 5;
        for _ in 0..12 {
            world.endpoint(Behaviour::Flaky).await;
        }
        let all: Vec<usize> = (0..12).collect();
        world.start("d0");
        let mut ids = Vec::new();
        for round in 0..3 {
            for _ in 0..15 {
                ids.extend(world.publish(&all, false).await);
                tokio::time::sleep(Duration::from_millis(world.entropy.u64() % 200)).await;
            }
            world.crash(&format!("d{round}"));
            world.start(&format!("d{}", round + 1));
        }
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        let mut text = String::new();
        for seen in world.seen() {
            let at = seen.started - began;
            let took = seen.ended.map(|ended| ended - seen.started);
            let what = (seen.process, seen.endpoint, seen.delivery, seen.status);
            writeln!(text, "{at:?} {took:?} {what:?}").unwrap();
        }
        let topics = [
            &world.topics.deliveries,
            &world.topics.dead,
            &world.topics.progress,
        ];
        for topic in world.topics.delays.iter().chain(topics) {
            for number in 0..PARTITIONS {
                for record in world.log.records(&topic.partition(number)) {
                    let what = (record.offset, record.timestamp, record.value);
                    writeln!(text, "{topic} {number} {what:?}").unwrap();
                }
            }
        }
        text.hash(&mut hasher);
    });
    hasher.finish()
}

#[test]
fn a_seed_is_the_same_world_each_time() {
    for seed in 0..3 {
        assert_eq!(hash_of(seed), hash_of(seed), "seed {seed}");
    }
    assert_ne!(hash_of(0), hash_of(1));
}
