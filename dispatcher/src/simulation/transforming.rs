//! Transforms in a world that goes wrong: what is dropped completes, what fails is a dead letter,
//! and neither holds up anything else.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use runtime::log::simulated::SimulationOptions;
use schemas::records::{ControlKey, ControlObject, DeadReason, ResultVerdict};
use schemas::resources::{Batch, BatchFormat};
use schemas::transform::Transform;
use serde_json::{Value, json};

use super::World;
use super::forgetting::subscription;
use super::tests::{calm, paused, seeds};
use super::world::Behaviour;

const MINUTES: Duration = Duration::from_secs(3_600);

/// The number of an event, as an expression.
const NUMBER: &str = "event.id|replace('event-', '')|int";

/// Drops every fifth event, fails with every seventh, and puts the others to places of their own.
fn picky() -> Value {
    json!({
        "steps": [
            {"drop": format!("({NUMBER}) % 5 == 0")},
            {"compute": {"/x": {"value": "data.nothing", "when": format!("({NUMBER}) % 7 == 0")}}},
            {"rename": {"/n": "/number"}},
        ],
        "request": {"method": "PUT", "path": "/events/{{ event.id }}"},
    })
}

impl World {
    /// From now on the subscription of this endpoint transforms its events so.
    async fn transform(&self, index: usize, transform: &Value) {
        let key = ControlKey::Subscription(self.endpoints[index].1);
        let mut subscription = subscription(self, &key);
        let transform = Transform::read(transform).unwrap();
        subscription.transform = Some(Box::new(transform));
        self.control(ControlObject::Subscription(Box::new(subscription)))
            .await;
    }
}

/// The requests that were taken, without the host.
fn asked(world: &World) -> BTreeSet<String> {
    let seen = world.seen().into_iter();
    let taken = seen.filter(|seen| seen.status == Some(200));
    taken.map(|seen| seen.asked).collect()
}

#[test]
fn what_is_dropped_or_fails_ends_and_holds_up_nothing() {
    // rules 6, 12 and 16
    seeds(8, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            world.keys = 3 * (seed % 2);
            let index = world.endpoint(Behaviour::Healthy(1, 50)).await;
            world.transform(index, &picky()).await;
            world.start("d1");
            let mut ids = world.publish_many(&[index], 40).await;
            world.crash("d1");
            world.start("d2");
            ids.extend(world.publish_many(&[index], 30).await);
            let number = |at: usize| at + 1;
            let is_dropped = |at: usize| number(at).is_multiple_of(5);
            let fails = |at: usize| number(at).is_multiple_of(7) && !is_dropped(at);
            let ending: Vec<String> = (0..ids.len())
                .filter(|at| !is_dropped(*at))
                .map(|at| ids[at].clone())
                .collect();
            let all = |world: &World| world.ended(&ending);
            world.until("all ended", MINUTES, all).await;
            world.drain("d2").await;
            let dead = world.dead();
            for (at, id) in ids.iter().enumerate() {
                if fails(at) {
                    assert_eq!(dead[id].reason, DeadReason::Transform, "seed {seed}");
                    let words = dead[id].detail.as_deref().unwrap();
                    assert!(words.contains("/steps/1/compute/~1x/value"), "{words}");
                    assert_eq!((dead[id].attempts, &dead[id].last_attempt), (0, &None));
                } else {
                    assert!(!dead.contains_key(id), "seed {seed}: {:?}", dead[id]);
                }
                let is_sent = !fails(at) && !is_dropped(at);
                assert_eq!(world.delivered(id) >= 1, is_sent, "seed {seed}: {id}");
            }
            let expected = (0..ids.len()).filter(|at| !fails(*at) && !is_dropped(*at));
            let expected = expected.map(|at| format!("PUT /hook/events/event-{}", number(at)));
            assert_eq!(asked(&world), expected.collect(), "seed {seed}");
            // Everything is complete: nobody finds anything left to do.
            let (requests, letters) = (world.seen().len(), world.letters().len());
            world.start("d3");
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(world.seen().len(), requests, "seed {seed}");
            assert_eq!(world.letters().len(), letters, "seed {seed}");
        });
    });
}

#[test]
fn what_is_dropped_leaves_its_batch_and_is_counted() {
    paused(async {
        let mut world = World::new(calm()).await;
        let index = world.endpoint(Behaviour::Culprits(1_000)).await;
        let batch = |format| Batch {
            max_items: NonZeroU32::new(10).unwrap(),
            max_bytes: NonZeroU32::new(1 << 20).unwrap(),
            max_wait_ms: 200,
            format,
        };
        world
            .change(index, |endpoint| {
                endpoint.batch = Some(batch(BatchFormat::CloudEvents));
            })
            .await;
        let steps = picky()["steps"].clone();
        world.transform(index, &json!({ "steps": steps })).await;
        world.start("d1");
        let ids = world.publish_many(&[index], 100).await;
        let all = |world: &World| world.taken().len() + world.dead().len() == ids.len() * 4 / 5;
        world.until("all ended", MINUTES, all).await;
        let taken: BTreeSet<i64> = world.taken().into_keys().collect();
        let expected = (1..=100).filter(|number| number % 5 != 0 && number % 7 != 0);
        assert_eq!(taken, expected.collect());
        assert!(world.taken().values().all(|times| *times == 1));
        assert!(world.seen().len() <= 20, "{} requests", world.seen().len());
        let unsent = |outcome: &str| {
            let metric = "anabranch_dispatch_transforms_unsent_total";
            world.metric("d1", &format!("{metric}{{outcome=\"{outcome}\"}}"))
        };
        assert_eq!((unsent("dropped"), unsent("failed")), (20.0, 12.0));
        world.drain("d1").await;
    });
}

#[test]
fn a_request_of_its_own_is_shared_with_no_other_whenever_it_was_asked_for() {
    paused(async {
        let mut world = World::new(calm()).await;
        let index = world.endpoint(Behaviour::Healthy(1, 5)).await;
        let batch = Batch {
            max_items: NonZeroU32::new(10).unwrap(),
            max_bytes: NonZeroU32::new(1 << 20).unwrap(),
            max_wait_ms: 3_000,
            format: BatchFormat::Array,
        };
        world
            .change(index, |endpoint| endpoint.batch = Some(batch))
            .await;
        world.start("d1");
        // Gathered already when it is asked for.
        let ids = world.publish_many(&[index], 5).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let request = json!({"request": {"method": "DELETE", "path": "/{{ event.id }}"}});
        world.transform(index, &request).await;
        let all = |world: &World| world.ended(&ids);
        world.until("all ended", MINUTES, all).await;
        let expected = (1..=5).map(|number| format!("DELETE /hook/event-{number}"));
        assert_eq!(asked(&world), expected.collect());
        assert_eq!(world.seen().len(), 5);
        world.drain("d1").await;
    });
}

#[test]
fn a_drop_that_was_asked_about_is_reported() {
    paused(async {
        let mut world = World::new(calm()).await;
        let index = world.endpoint(Behaviour::Healthy(1, 5)).await;
        world
            .transform(index, &json!({"steps": [{"drop": "true"}]}))
            .await;
        world.start("d1");
        let id = world.redrive(index, 1).await;
        let all = |world: &World| world.reports().contains_key(&id);
        world.until("reported", MINUTES, all).await;
        let reports = world.reports();
        assert_eq!(reports[&id].len(), 1);
        assert_eq!(reports[&id][0].verdict, ResultVerdict::Delivered);
        assert!(reports[&id][0].dropped);
        assert_eq!(world.seen().len(), 0);
        world.drain("d1").await;
    });
}
