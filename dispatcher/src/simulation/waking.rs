//! What a dispatcher does that was stopped beyond its session and goes on (rules 5, 6 and 13): what
//! it lost is another's by then, whenever it is told so.

use std::time::Duration;

use runtime::log::simulated::{Latencies, Latency, LossTold, SimulationOptions};
use tokio::time::Instant;

use super::World;
use super::tests::{calm, paused, seeds};
use super::world::{Behaviour, Seen};

const MINUTES: Duration = Duration::from_secs(600);
/// What ended so shortly before a stop may be done again (design: "crash").
const BAR: Duration = Duration::from_millis(500);
/// A dispatcher that the log does not hear owns what it has for this long, and goes on with what needs
/// no commit for a part of it.
const SESSION: Duration = Duration::from_secs(10);

/// A busy log on which a loss is told late, in one of two ways.
fn told_late(seed: u64) -> SimulationOptions {
    let late = Latency::between(Duration::from_millis(20), Duration::from_millis(600));
    SimulationOptions {
        seed,
        latencies: Latencies::busy(),
        loss_told: if seed.is_multiple_of(2) {
            LossTold::Late(late)
        } else {
            LossTold::AfterJoining(late)
        },
        ..calm()
    }
}

/// Publishes an event to all endpoints every 25 ms.
async fn publish_for(world: &mut World, time: Duration, ids: &mut Vec<String>) {
    let end = Instant::now() + time;
    let all: Vec<usize> = (0..world.endpoints.len()).collect();
    while Instant::now() < end {
        ids.extend(world.publish(&all, false).await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Nothing is delivered again but what the stopped one had under way when it was stopped.
fn audit_stop(world: &World, ids: &[String], name: &str, stopped: Instant) {
    let in_doubt = |seen: &Seen| {
        let ended = seen.ended.unwrap_or(seen.started);
        seen.process == name && ended + BAR > stopped && seen.started < stopped + SESSION
    };
    let seen = world.seen();
    for id in ids {
        let delivered = seen.iter().filter(|seen| seen.delivery == *id);
        let delivered = delivered.filter(|seen| seen.status == Some(200));
        let certain: Vec<_> = delivered.filter(|seen| !in_doubt(seen)).collect();
        assert!(certain.len() <= 1, "delivered again: {certain:?}");
    }
}

/// A dispatcher has deliveries to defer when it is stopped beyond its session; another delivers them
/// meanwhile. Woken, it must not copy them, nor set the other's positions back, before it is told of
/// its loss; what it did would be seen when the other drains.
pub(super) fn woken_with_much_to_say(seed: u64) {
    paused(async {
        let mut world = World::new(told_late(seed)).await;
        let _trace = world.log.trace_on_panic();
        world.retry_schedule_ms = vec![6_000, 6_000];
        for times in [0, 1, 0, 1, 0, 1] {
            world.endpoint(Behaviour::Fails(404, None, times)).await;
        }
        world.start("d0");
        world.start("d1");
        let mut ids = Vec::new();
        let draw = world.entropy.u64() % 1_000;
        publish_for(&mut world, Duration::from_millis(3_000 + draw), &mut ids).await;
        let stopped = Instant::now();
        world.log.stop("d0");
        publish_for(&mut world, Duration::from_millis(500), &mut ids).await;
        tokio::time::sleep(Duration::from_secs(13)).await;
        publish_for(&mut world, Duration::from_secs(1), &mut ids).await;
        world.log.wake("d0");
        publish_for(&mut world, Duration::from_millis(draw), &mut ids).await;
        world.drain("d1").await;
        world
            .until("ended", MINUTES, |world| world.ended(&ids))
            .await;
        // What was copied comes back from the delay topics.
        tokio::time::sleep(Duration::from_secs(10)).await;
        audit_stop(&world, &ids, "d0", stopped);
        world.audit_ownership();
    });
}

#[test]
fn a_woken_dispatcher_says_nothing_about_what_it_lost() {
    seeds(6, woken_with_much_to_say);
}
