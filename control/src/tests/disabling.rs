//! Endpoints that a dispatcher has given up, and their coming back.

use std::time::Duration;

use bytes::Bytes;
use runtime::log::{Headers, ProducerOptions, Record};
use schemas::records::{ControlObject, DisabledProgress, EnabledProgress, LaneProgress};
use schemas::resources::{DisabledReason, Quota};
use serde_json::{Value, json};

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
async fn mark(rig: &Rig, id: &str, updated_at: i64, reason: DisabledReason) {
    let mut lane = lane(id);
    lane.disabled = vec![DisabledProgress {
        endpoint: id.parse().unwrap(),
        updated_at,
        reason,
        at: updated_at + 5,
    }];
    write(rig, &lane).await;
}

/// Marks the endpoint as working again, as it was at `updated_at`.
async fn mark_enabled(rig: &Rig, id: &str, updated_at: i64) {
    let mut lane = lane(id);
    lane.enabled = vec![EnabledProgress {
        endpoint: id.parse().unwrap(),
        updated_at,
        at: updated_at + 5,
    }];
    write(rig, &lane).await;
}

fn lane(id: &str) -> LaneProgress {
    LaneProgress::new(Quota::of_endpoint(id.parse().unwrap()), 1)
}

async fn write(rig: &Rig, lane: &LaneProgress) {
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
    mark(&rig, id, made_at - 1, DisabledReason::Gone).await;
    let found = state(&rig, &path).await;
    assert_eq!(found["state"], "active", "changed since");
    mark(&rig, id, made_at, DisabledReason::Gone).await;
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

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_works_again_is_enabled_where_its_owner_allows_it() {
    // design: retries; rule 16
    let rig = Rig::start().await;
    rig.acme().await;
    let path = rig.endpoint().await;
    let id = path.rsplit('/').next().unwrap();
    let patch = format!("PATCH {path}");
    let check = async |reenable: bool, reason, expected: &str| {
        let said = json!({ "reenable": reenable });
        rig.operator(&patch, said).await.expect(200);
        let resume = format!("POST {path}/resume");
        rig.operator(&resume, Value::Null).await.expect(200);
        mark(&rig, id, updated_at(&rig, id), reason).await;
        assert_eq!(state(&rig, &path).await["state"], "disabled");
        let disabled_at = updated_at(&rig, id);
        mark_enabled(&rig, id, disabled_at - 1).await;
        let found = state(&rig, &path).await;
        assert_eq!(found["state"], "disabled", "changed since");
        mark_enabled(&rig, id, disabled_at).await;
        let found = state(&rig, &path).await;
        assert_eq!(found["state"], expected, "{reenable} {reason:?}");
        found
    };
    check(false, DisabledReason::Failing, "disabled").await;
    check(true, DisabledReason::Gone, "disabled").await;
    let before = redrives(&rig).await;
    let found = check(true, DisabledReason::Failing, "active").await;
    assert_eq!(found["disabled"], Value::Null);
    // One by the `resume` in between, one by itself.
    assert_eq!(redrives(&rig).await, before + 2);
    rig.stop().await;
}

async fn redrives(rig: &Rig) -> usize {
    let list = rig.operator("GET /v1/tenants/acme/redrives", Value::Null);
    let found = list.await.expect(200).json();
    found["items"].as_array().unwrap().len()
}
