//! Endpoints that a dispatcher has given up, and their coming back.

use std::time::Duration;

use bytes::Bytes;
use runtime::log::{Headers, ProducerOptions, Record};
use schemas::records::{ControlObject, DisabledProgress, LaneProgress};
use schemas::resources::{DisabledReason, Quota};
use serde_json::Value;

use super::rig::Rig;

/// When the endpoint was last changed, as dispatchers know it.
fn updated_at(rig: &Rig, id: &str) -> i64 {
    let records = rig.sim.records(&rig.topics.control.partition(0));
    let changes = records.iter().filter_map(|record| {
        let object = ControlObject::decode(record.value.as_deref()?).ok()?;
        let ControlObject::Endpoint(endpoint) = object else {
            return None;
        };
        (endpoint.id.to_string() == id).then_some(endpoint.updated_at)
    });
    changes.last().unwrap()
}

/// Marks the endpoint as given up, as it was at `updated_at`.
async fn mark(rig: &Rig, id: &str, updated_at: i64) {
    let endpoint = id.parse().unwrap();
    let mut lane = LaneProgress::new(Quota::of_endpoint(endpoint), updated_at);
    lane.disabled = vec![DisabledProgress {
        endpoint,
        updated_at,
        reason: DisabledReason::Gone,
        at: updated_at + 5,
    }];
    let log = rig.sim.process("dispatcher");
    let producer = log.producer(ProducerOptions::named("marks")).await.unwrap();
    let record = Record {
        topic: rig.topics.progress.clone(),
        partition: Some(0),
        key: Some(Bytes::from(lane.key().to_string())),
        value: Some(Bytes::from(lane.encode())),
        headers: Headers::default(),
    };
    let reports = producer.send(vec![record]).await.wait().await;
    assert!(reports.iter().all(Result::is_ok));
}

async fn state(rig: &Rig, path: &str) -> Value {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let found = rig.operator(&format!("GET {path}"), Value::Null).await;
    found.expect(200).json()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_given_up_is_disabled_until_it_is_resumed() {
    let rig = Rig::start().await;
    rig.acme().await;
    let path = rig.endpoint().await;
    let id = path.rsplit('/').next().unwrap();
    let made_at = updated_at(&rig, id);
    mark(&rig, id, made_at - 1).await;
    let found = state(&rig, &path).await;
    assert_eq!(found["state"], "active", "changed since");
    mark(&rig, id, made_at).await;
    let found = state(&rig, &path).await;
    assert_eq!(found["state"], "disabled");
    assert_eq!(found["disabled"]["reason"], "gone");
    rig.operator(&format!("POST {path}/resume"), Value::Null)
        .await
        .expect(200);
    assert_eq!(state(&rig, &path).await["state"], "active");
    // The same mark is read again after a restart: it is of the endpoint as it was.
    let rig = rig.killed("b").await;
    assert_eq!(state(&rig, &path).await["state"], "active");
    rig.stop().await;
}
