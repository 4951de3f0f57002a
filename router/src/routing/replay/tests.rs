//! What replays say of `control` while partitions are not known.

use runtime::log::simulated::{SimulatedLog, SimulationOptions};
use runtime::log::topics::Topics;
use runtime::view::Change;
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{StartFrom, StartPosition, Subscription};

use super::*;
use crate::index::tests::subscription;

/// Replays of a router that has applied so much of `control`, with one subscription that starts.
fn replays(applied: i64) -> Replays {
    let made = Subscription {
        start: Some(StartPosition::new(StartFrom::Latest)),
        ..subscription(1, "acme", "[]")
    };
    let change = Change {
        key: ControlKey::Subscription(made.id),
        object: Some(ControlObject::Subscription(Box::new(made))),
    };
    let update = Update {
        changes: vec![change],
        applied,
        caught_up: true,
    };
    let mut starts = Starts::default();
    apply(&mut starts, &update);
    let log = SimulatedLog::new(SimulationOptions::default()).process("router");
    let incarnation = Incarnation::from_uuid_v7([1; 16]);
    let progress = Topics::with_prefix("t.").progress;
    let now = Instant::now();
    Replays::new((log, progress), "one", incarnation, 1, (starts, now))
}

#[tokio::test(start_paused = true)]
async fn past_events_say_what_was_applied_before_the_first_change() {
    assert_eq!(replays(7).index.control_offset(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_partition_without_a_start_is_not_waited_for() {
    let mut replays = replays(7);
    let partition = TopicName::new("t.events").partition(0);
    let writer = Writer::new(&replays.incarnation, 1);
    let place = replays.means.progress.partition(0);
    let aside = Aside::new(&partition, 1, writer, place, Instant::now());
    replays.asides.insert(partition.clone(), aside);
    assert_eq!(replays.applied(7), 7);
    // It has one: whoever waits for its activations waits.
    replays.asides.get_mut(&partition).unwrap().is_routing = true;
    assert_eq!(replays.applied(8), 7);
}
