//! What is left on `progress` of endpoints and subscriptions that are no more.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::time::Duration;

use schemas::ids::SubscriptionId;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{RateWindow, Subscription};

use super::World;
use super::tests::{calm, paused};
use super::world::{Behaviour, PARTITIONS};
use crate::planted::{self, Bug};

const MINUTES: Duration = Duration::from_secs(600);

/// The keys of lanes and lines of which `progress` says something.
fn kept(world: &World) -> Vec<String> {
    let mut last = BTreeMap::new();
    for number in 0..PARTITIONS {
        for record in world.log.records(&world.topics.progress.partition(number)) {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            last.insert(key, record.value);
        }
    }
    let of_quotas = last.into_iter().filter(|(key, value)| {
        value.is_some() && (key.starts_with("lane/") || key.starts_with("order/"))
    });
    of_quotas.map(|(key, _)| key).collect()
}

/// One endpoint whose keys are blocked, one that is gone, one whose window is spent for a day, and
/// one that is never deleted.
async fn four(world: &mut World) -> [usize; 4] {
    world.keys = 3;
    world.retry_schedule_ms = vec![3_600_000; 3];
    let blocked = world.endpoint(Behaviour::Fails(404, None, 1)).await;
    let gone = world.endpoint(Behaviour::Fails(410, None, 9)).await;
    let limited = world.endpoint(Behaviour::Healthy(1, 5)).await;
    let stays = world.endpoint(Behaviour::Fails(404, None, 1)).await;
    let (count, day) = (9.try_into().unwrap(), 86_400_000.try_into().unwrap());
    world
        .change(limited, |endpoint| {
            endpoint.limits = vec![RateWindow::spread(count, day)];
        })
        .await;
    world.start("d1");
    let all = [blocked, gone, limited, stays];
    world.publish_many(&all, 6).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let kept = kept(world);
    for index in all {
        let quota = world.endpoints[index].0.quota.as_str();
        assert!(kept.iter().any(|key| key.contains(quota)), "{kept:?}");
    }
    all
}

async fn delete(world: &World, index: usize) {
    let (endpoint, subscription) = &world.endpoints[index];
    let key = ControlKey::Subscription(*subscription);
    world.control_write(&key, None).await;
    let key = ControlKey::Endpoint(endpoint.id);
    world.control_write(&key, None).await;
}

/// The subscription under this key.
pub(super) fn subscription(world: &World, key: &ControlKey) -> Subscription {
    let records = world.log.records(&world.topics.control.partition(0));
    let key = key.to_string();
    let mut found = records
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(key.as_bytes()));
    let object = ControlObject::decode(&found.next().unwrap().value.unwrap());
    let Ok(ControlObject::Subscription(subscription)) = object else {
        panic!("{key} is no subscription: {object:?}");
    };
    *subscription
}

fn is_only_of(world: &World, index: usize) -> bool {
    let quota = world.endpoints[index].0.quota.as_str();
    let kept = kept(world);
    !kept.is_empty() && kept.iter().all(|key| key.contains(quota))
}

#[test]
fn nothing_is_left_of_an_endpoint_that_was_deleted() {
    paused(async {
        let mut world = World::new(calm()).await;
        let [blocked, gone, limited, stays] = four(&mut world).await;
        for index in [blocked, gone, limited] {
            delete(&world, index).await;
        }
        world
            .until("forgotten", Duration::from_secs(40), |world| {
                is_only_of(world, stays)
            })
            .await;
    });
}

#[test]
fn nor_of_one_that_was_deleted_while_nobody_owned_it() {
    paused(async {
        let mut world = World::new(calm()).await;
        let [blocked, gone, limited, stays] = four(&mut world).await;
        world.crash("d1");
        for index in [blocked, gone, limited] {
            delete(&world, index).await;
        }
        world.start("d2");
        world
            .until("forgotten", Duration::from_secs(60), |world| {
                is_only_of(world, stays)
            })
            .await;
    });
}

fn not_known_yet() {
    paused(async {
        let mut world = World::new(calm()).await;
        // It has applied nothing, and cannot for a while.
        world.start("d2");
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.log.stop("d2");
        four(&mut world).await;
        let control = world.topics.control.partition(0);
        let blind = Duration::from_secs(120);
        world.log.faults().unreadable(&control, blind);
        let before = kept(&world);
        world.crash("d1");
        world.log.wake("d2");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(kept(&world), before, "forgotten though they exist");
        }
    });
}

#[test]
fn what_is_not_known_yet_is_not_forgotten() {
    // design: "Views of control"
    not_known_yet();
}

#[test]
fn forgetting_too_early_is_found() {
    planted::plant(Some(Bug::UnknownForgotten));
    let found = catch_unwind(not_known_yet).is_err();
    planted::plant(None);
    assert!(found);
}

#[test]
fn a_line_goes_on_when_the_subscription_that_blocked_it_is_deleted() {
    // rule 12
    paused(async {
        let mut world = World::new(calm()).await;
        world.keys = 1;
        world.retry_schedule_ms = vec![20_000; 3];
        let index = world.endpoint(Behaviour::Fails(404, None, 1)).await;
        world.start("d1");
        let first = world.publish_many(&[index], 5).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.behave(index, Behaviour::Healthy(1, 5));
        // Another subscription in the place of the first.
        let old = ControlKey::Subscription(world.endpoints[index].1);
        let id = SubscriptionId::from_bits(1 << 100);
        let mut new = subscription(&world, &old);
        new.id = id;
        world.control_write(&old, None).await;
        world
            .control(ControlObject::Subscription(Box::new(new)))
            .await;
        world.endpoints[index].1 = id;
        let second = world.publish_many(&[index], 5).await;
        world
            .until("ended", MINUTES, |world| {
                world.ended(&first) && world.ended(&second)
            })
            .await;
        assert!(second.iter().all(|id| world.delivered(id) == 1));
    });
}
