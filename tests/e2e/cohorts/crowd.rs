//! A hundred syncs at once in one process: none waits for another, and memory is bounded.

use std::collections::BTreeSet;

use harness::{Log, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use super::{MEMBERS, PATIENCE, Scene};

const SMALL_SYNCS: usize = 99;
const SMALL: usize = 300;
/// Far more than the service takes for a hundred syncs of this size, far less than it would take
/// if each held what it may hold alone.
const MEMORY_KIB: u64 = 768 << 10;

/// Makes and starts the small syncs, each of a list of its own.
async fn start_small(scene: &Scene) -> Vec<String> {
    let cohort = scene.make("/cohorts", json!({"name": "small"})).await;
    let endpoint = scene.endpoint().await;
    let mut syncs = Vec::new();
    for number in 0..SMALL_SYNCS {
        let sync = json!({
            "cohort": cohort, "endpoint": endpoint, "profile": "generic-50",
            "variables": {"name": format!("small {number}")},
        });
        syncs.push(scene.make("/syncs", sync).await);
    }
    scene.upload_to(&cohort, (0..SMALL).map(|id| (id, 1))).await;
    for sync in &syncs {
        eventually("cohorts know the sync", PATIENCE, async || {
            let (status, _) = scene.ask_of(sync, Method::POST, "/runs").await;
            (status == 202).then_some(())
        })
        .await;
    }
    syncs
}

async fn is_done(scene: &Scene, sync: &str) -> bool {
    let (_, text) = scene.ask_of(sync, Method::GET, "").await;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    body["last"]["outcome"] == "done"
}

async fn pause(scene: &Scene, endpoint: &str, action: &str) {
    let path = format!("/endpoints/{endpoint}/{action}?wait=applied");
    let path = scene.pipeline.path(&path);
    let answer = scene
        .pipeline
        .control()
        .call(Method::POST, &path, None)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_hundred_syncs_share_a_process() {
    let mut scene = Scene::start(Log::Kafka, &[]).await;
    // One whose partner takes nothing now has all it may have on its way, and holds up nobody.
    let control = scene.pipeline.control();
    let path = scene.pipeline.path(&format!("/syncs/{}", scene.sync));
    let sync = control.call(Method::GET, &path, None).await.json();
    let endpoint = sync["endpoint"].as_str().expect("an endpoint").to_owned();
    pause(&scene, &endpoint, "pause").await;
    let large = 10 * MEMBERS;
    let snapshot = scene.upload((0..large).map(|id| (id, 1))).await;
    scene.run().await;
    let syncs = start_small(&scene).await;
    for sync in &syncs {
        eventually("a small sync is done", PATIENCE, async || {
            is_done(&scene, sync).await.then_some(())
        })
        .await;
    }
    assert!(!is_done(&scene, &scene.sync).await, "it is held");
    pause(&scene, &endpoint, "resume").await;
    scene.done_with(&snapshot).await;
    if let Some(memory) = scene.pipeline.process("cohorts").rss_kib() {
        assert!(memory < MEMORY_KIB, "{memory} KiB");
    }
    let get = async |path: &str| scene.partner.call(Method::GET, path, None).await.json();
    let lists = get("/_simulator/lists").await;
    let lists = lists.as_object().expect("lists by their ids");
    let of = |count: usize| lists.values().filter(|held| **held == count).count();
    assert_eq!((lists.len(), of(SMALL), of(large)), (100, SMALL_SYNCS, 1));
    let mut held = BTreeSet::new();
    for (list, count) in lists {
        if *count == SMALL {
            let told = get(&format!("/_simulator/lists/{list}")).await;
            held.insert(told["contents"].to_string());
        }
    }
    assert_eq!(held.len(), 1, "all small lists are the same");
}
