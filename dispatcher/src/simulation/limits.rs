//! Limits and holds across dispatchers that come, drain and crash (rules 5 and 11).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use schemas::resources::RateWindow;
use tokio::time::Instant;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::Behaviour;
use crate::planted::{self, Bug};

const HOUR: Duration = Duration::from_secs(3_600);

fn windows(json: &str) -> Vec<RateWindow> {
    serde_json::from_str(json).unwrap()
}

/// A world whose endpoints have windows of each kind, short and long, and busy dispatchers.
async fn limited(seed: u64) -> World {
    let mut world = World::new(SimulationOptions { seed, ..calm() }).await;
    for (index, json) in [
        r#"[{"count":40,"per_ms":2000,"kind":"sliding"},{"count":150,"per_ms":30000,"kind":"sliding"}]"#,
        r#"[{"count":20,"per_ms":1000,"burst":4},{"count":200,"per_ms":20000,"kind":"fixed","offset_ms":700}]"#,
        r#"[{"count":100,"per_ms":20000,"burst":30}]"#,
        r#"[{"count":30,"per_ms":12000,"kind":"sliding"}]"#,
    ]
    .into_iter()
    .enumerate()
    {
        let placement = u32::try_from(index).unwrap() % 2;
        let endpoint = world.endpoint_at(Behaviour::Healthy(1, 20), placement).await;
        let limits = windows(json);
        world
            .change(endpoint, |endpoint| endpoint.limits = limits)
            .await;
    }
    world
}

/// Dispatchers come, drain and crash while limited endpoints have more to take than they may.
async fn hand_overs(world: &mut World, events: usize, transactions_fail: bool) -> Vec<String> {
    let limited: Vec<usize> = (0..world.endpoints.len())
        .filter(|index| !world.endpoints[*index].0.limits.is_empty())
        .collect();
    world.start("d0");
    let mut ids = world.publish_many(&limited, events).await;
    for round in 0..5_u64 {
        ids.extend(world.publish_many(&limited, 20).await);
        let pause = 3_000 + world.entropy.u64() % 6_000;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if transactions_fail {
            let faults = world.log.faults();
            faults.set_probability(Operation::Transaction, Fault::Refused, 1.0);
            tokio::time::sleep(Duration::from_millis(3_000)).await;
        }
        let (old, new) = (format!("d{round}"), format!("d{}", round + 1));
        if world.entropy.unit() < 0.5 && !transactions_fail {
            world.start(&new);
            world.drain(&old).await;
        } else {
            world.crash(&old);
            world.log.faults().heal();
            world.start(&new);
        }
    }
    ids
}

#[test]
fn no_window_is_exceeded_by_dispatchers_that_drain_and_crash() {
    seeds(4, |seed| {
        paused(async {
            let mut world = limited(seed).await;
            let ids = hand_overs(&mut world, 60, seed % 2 == 1).await;
            world.until("ended", HOUR, |world| world.ended(&ids)).await;
            world.audit_limits();
        });
    });
}

/// An endpoint that asks for 20 s, whose dispatcher then drains or crashes.
pub(super) async fn held(seed: u64) {
    let mut world = World::new(calm()).await;
    let endpoint = world.endpoint(Behaviour::Fails(429, Some(20), 1)).await;
    world.start("d0");
    let mut ids = world.publish_many(&[endpoint], 3).await;
    world
        .until("told", HOUR, |world| !world.seen().is_empty())
        .await;
    let mut ended = Vec::new();
    if seed.is_multiple_of(2) {
        world.drain("d0").await;
    } else {
        ended.push(("d0".to_owned(), Instant::now()));
        world.crash("d0");
    }
    world.start("d1");
    ids.extend(world.publish_many(&[endpoint], 3).await);
    world.until("ended", HOUR, |world| world.ended(&ids)).await;
    world.audit_holds(&ended);
    assert!(world.seen().iter().any(|seen| seen.process == "d1"));
}

#[test]
fn a_hold_survives_a_drain_and_a_crash() {
    // rules 5 and 11
    seeds(2, |seed| paused(held(seed)));
}

/// An endpoint whose limits are changed when it has spent them.
fn changed(seed: u64) {
    paused(async {
        let mut world = World::new(SimulationOptions { seed, ..calm() }).await;
        let endpoint = world.endpoint(Behaviour::Healthy(1, 5)).await;
        let count = async |world: &mut World, count: u32| {
            let limits = windows(&format!(
                r#"[{{"count":{count},"per_ms":30000,"kind":"sliding"}}]"#
            ));
            world
                .change(endpoint, |endpoint| endpoint.limits = limits)
                .await;
        };
        count(&mut world, 20).await;
        world.start("d0");
        let ids = world.publish_many(&[endpoint], 60).await;
        world
            .until("spent", HOUR, |world| world.seen().len() >= 20)
            .await;
        count(&mut world, 25).await;
        world.until("ended", HOUR, |world| world.ended(&ids)).await;
        world.audit_limits();
    });
}

#[test]
fn a_window_that_is_changed_keeps_what_was_spent_of_it() {
    // rule 5
    changed(0);
    assert!(is_found(Bug::SpentForgotten, 2, changed));
}

/// Whether the auditor finds the bug within so many seeds.
fn is_found(bug: Bug, most: u64, scenario: impl Fn(u64)) -> bool {
    planted::plant(Some(bug));
    let found = (0..most).any(|seed| catch_unwind(AssertUnwindSafe(|| scenario(seed))).is_err());
    planted::plant(None);
    found
}

#[test]
fn a_hold_that_is_lost_at_hand_over_is_found() {
    assert!(is_found(Bug::LostHold, 2, |seed| paused(held(seed))));
}

#[test]
fn a_block_that_is_spent_before_it_was_saved_is_found() {
    assert!(is_found(Bug::EarlyBlock, 20, |seed| {
        paused(async {
            let mut world = limited(seed).await;
            hand_overs(&mut world, 500, true).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            world.audit_limits();
        });
    }));
}
