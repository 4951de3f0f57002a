//! What becomes of endpoints that are disabled because they failed: seldom a probe, whoever owns them,
//! until one is served (rules 5, 16 and 19).

use std::time::Duration;

use schemas::records::DeadReason;
use schemas::resources::{Disabled, DisabledReason, EndpointState};
use tokio::time::Instant;

use super::World;
use super::health::{all_told, attempts, is_found, left, secs};
use super::tests::{calm, paused};
use super::world::Behaviour;
use crate::planted::Bug;

const MINUTES: Duration = Duration::from_secs(600);

/// Makes an endpoint that fails and is disabled for it, as control would.
async fn disabled(world: &mut World, reenable: bool, reason: DisabledReason) -> usize {
    let failing = Behaviour::Fails(500, None, usize::MAX);
    let index = world.endpoint(failing).await;
    world
        .change(index, |endpoint| {
            endpoint.reenable = reenable;
            endpoint.state = EndpointState::Disabled;
            endpoint.disabled = Some(Disabled { reason, at: 1 });
        })
        .await;
    index
}

fn comes_back() {
    paused(async {
        let mut world = World::new(calm()).await;
        let index = disabled(&mut world, true, DisabledReason::Failing).await;
        world.start("d1");
        let began = Instant::now();
        let mut ids = Vec::new();
        for _ in 0..60 {
            ids.extend(world.publish(&[index], false).await);
            tokio::time::sleep(secs(60)).await;
        }
        // After 1, 2, 4, 8, 16 and 32 minutes, and each once.
        let probes = attempts(&world, began, Instant::now());
        assert!((4..=6).contains(&probes), "{probes} probes in an hour");
        assert!(world.ended(&ids), "what is not the probe is buried");
        let dead = world.dead();
        let disabled = DeadReason::EndpointDisabled;
        assert!(ids.iter().all(|id| dead[id].reason == disabled));
        world.behave(index, Behaviour::Healthy(1, 5));
        let began = Instant::now();
        let mut probed = Vec::new();
        while all_told(&world).is_empty() {
            probed.extend(world.publish(&[index], false).await);
            tokio::time::sleep(secs(60)).await;
            assert!(began.elapsed() <= secs(3_720), "not found working");
        }
        // Control has not followed yet, and the owner changes: what comes is delivered.
        world.crash("d1");
        world.start("d2");
        let ids = world.publish_many(&[index], 5).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        assert!(ids.iter().all(|id| world.delivered(id) == 1));
        let told = all_told(&world);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "enabled");
        let id = world.endpoints[index].0.id;
        assert_eq!(told[0].1["endpoint"], id.to_string());
        let mark = left(&world, index).unwrap().enabled[0];
        let changed_at = world.endpoints[index].0.updated_at;
        assert_eq!((mark.endpoint, mark.updated_at), (id, changed_at));
        // Control follows: nothing is left of it.
        world
            .change(index, |endpoint| {
                endpoint.state = EndpointState::Active;
                endpoint.disabled = None;
            })
            .await;
        tokio::time::sleep(secs(30)).await;
        assert_eq!(left(&world, index), None);
    });
}

#[test]
fn a_disabled_endpoint_is_probed_seldom_and_comes_back_by_itself() {
    // design: retries; rules 5, 16 and 19
    comes_back();
}

/// A disabled endpoint goes from hand to hand, by deaths and by drains.
fn probed_by_one_after_another() {
    paused(async {
        let mut world = World::new(calm()).await;
        let index = disabled(&mut world, true, DisabledReason::Failing).await;
        world.start("d0");
        let began = Instant::now();
        for minute in 0..60 {
            world.publish(&[index], false).await;
            tokio::time::sleep(secs(60)).await;
            if minute % 5 == 4 {
                let (old, next) = (minute / 5, minute / 5 + 1);
                if old % 2 == 0 {
                    world.crash(&format!("d{old}"));
                } else {
                    world.drain(&format!("d{old}")).await;
                }
                world.start(&format!("d{next}"));
            }
        }
        // After 1, 2, 4, 8, 16 and 32 minutes, whoever owns it.
        let probes = attempts(&world, began, Instant::now());
        assert!((4..=6).contains(&probes), "{probes} probes in an hour");
        // Whoever changes it wants it tried: nothing is left of it.
        world.behave(index, Behaviour::Healthy(1, 5));
        world
            .change(index, |endpoint| {
                endpoint.state = EndpointState::Active;
                endpoint.disabled = None;
            })
            .await;
        let ids = world.publish_many(&[index], 5).await;
        world
            .until("delivered", MINUTES, |world| world.ended(&ids))
            .await;
        assert!(ids.iter().all(|id| world.delivered(id) == 1));
        tokio::time::sleep(secs(30)).await;
        assert_eq!(left(&world, index), None);
    });
}

#[test]
fn a_hand_over_does_not_make_the_probes_of_a_disabled_endpoint_begin_anew() {
    // design: retries; rule 5
    probed_by_one_after_another();
}

#[test]
fn nobody_is_probed_who_does_not_want_it_or_said_that_it_is_gone() {
    paused(async {
        let mut world = World::new(calm()).await;
        let unwilling = disabled(&mut world, false, DisabledReason::Failing).await;
        let gone = disabled(&mut world, true, DisabledReason::Gone).await;
        // Says so when it is probed.
        let going = disabled(&mut world, true, DisabledReason::Failing).await;
        world.behave(going, Behaviour::Fails(410, None, usize::MAX));
        world.start("d1");
        let mut ids = Vec::new();
        for _ in 0..60 {
            ids.extend(world.publish(&[unwilling, gone, going], false).await);
            tokio::time::sleep(secs(60)).await;
        }
        assert_eq!(world.seen().len(), 1, "one probe, of the last");
        assert!(world.ended(&ids));
    });
}

#[test]
fn planted_bugs_of_probing_are_found() {
    assert!(is_found(Bug::EnabledUnmarked, comes_back));
    assert!(is_found(
        Bug::ProbationForgotten,
        probed_by_one_after_another
    ));
}
