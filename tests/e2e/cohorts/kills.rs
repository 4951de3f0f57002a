//! Syncs while processes are killed, come and go: whoever goes on with a run does so at the chunk,
//! and in the end the partner's list is the cohort (rule 13).
//!
//! Each service once; fifty times in all with `./test --long`.

use harness::{Log, eventually};

use super::{MEMBERS, PATIENCE, Scene};
use crate::pipeline;

const VICTIMS: [&str; 4] = ["cohorts", "dispatcher-1", "router-1", "control"];

fn kills() -> usize {
    if harness::long() { 50 } else { VICTIMS.len() }
}

/// A version of the cohort: some leave, some come, some change.
fn members(version: usize) -> impl Iterator<Item = (usize, u32)> + Clone {
    let first = version * 40;
    (first..first + MEMBERS).map(move |id| (id, u32::from((id + version).is_multiple_of(9))))
}

#[tokio::test]
async fn the_list_is_the_cohort_whichever_service_is_killed() {
    let faults = ["--slow", "60", "--reject", "1%", "--drop", "1%"];
    let builder = pipeline().heavy();
    let mut scene = Scene::start_with(builder, "generic-50", &faults).await;
    for (round, victim) in VICTIMS.iter().cycle().take(kills()).enumerate() {
        scene.upload(members(round)).await;
        scene.run().await;
        let before = scene.counted("requests").await;
        eventually("it is under way", PATIENCE, async || {
            (scene.counted("requests").await > before + 5).then_some(())
        })
        .await;
        let process = scene.pipeline.process(victim);
        process.kill();
        process.restart();
        scene.pipeline.ready(victim).await;
    }
    let last = scene.upload(members(kills())).await;
    scene.run().await;
    scene.done_with(&last).await;
    scene.audit(members(kills())).await;
}

#[tokio::test]
async fn a_replica_goes_on_with_a_run_that_another_had_begun() {
    let slow = ["--slow", "250"];
    let mut scene = Scene::start_with(pipeline().on(Log::Kafka), "generic-50", &slow).await;
    let snapshot = scene.upload((0..2 * MEMBERS).map(|id| (id, 1))).await;
    scene.run().await;
    let other = scene.pipeline.add("cohorts").await;
    for (dies, lives) in [("cohorts", other.as_str()), (other.as_str(), "cohorts")] {
        scene.pipeline.process(dies).kill();
        // What was written before is delivered without it: far more than that is the other's.
        let before = scene.counted("items").await;
        eventually(&format!("{lives} goes on"), PATIENCE, async || {
            let items = scene.counted("items").await;
            let is_done = items >= 2 * MEMBERS as u64;
            (is_done || items > before + 1_000).then_some(())
        })
        .await;
        scene.pipeline.process(dies).restart();
        scene.pipeline.ready(dies).await;
    }
    scene.done_with(&snapshot).await;
    scene.audit((0..2 * MEMBERS).map(|id| (id, 1))).await;
    let again = scene.counted("added_again").await;
    assert_eq!(again, 0, "whoever goes on knows what was sent");
}
