//! Changes of objects while events flow.

use std::time::Duration;

use harness::{Endpoint, Log, Pipeline, always, event, eventually, never, ok};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both_logs, pipeline, pipeline_on};

on_both_logs!(
    a_secret_is_rotated_during_traffic,
    deliveries_of_a_deleted_endpoint_are_dead,
    subscription_changes_count_from_the_next_event_on,
    a_paused_endpoint_gets_its_deliveries_later,
);

/// WH-3: both secrets verify while they overlap; after that only the new one.
async fn a_secret_is_rotated_during_traffic(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let load = pipeline.load("com.acme.load", 50);
    endpoint.sink.expect_requests(20).await;
    let path = pipeline.path(&format!(
        "/endpoints/{}/rotate-secret?wait=applied",
        endpoint.id
    ));
    let overlap = json!({ "expires_in": 3 });
    let made = pipeline.control().make(&path, &overlap).await;
    let rotated = harness::now_ms();
    let new = made["secret"].as_str().expect("shown once").to_owned();
    assert_ne!(new, endpoint.secret);
    // Traffic until well after the overlap.
    eventually(
        "arrivals after the overlap",
        harness::DEADLINE,
        async || {
            let last = endpoint
                .sink
                .arrivals()
                .last()
                .map_or(0, |arrival| arrival.at);
            (last > rotated + 6_000).then_some(())
        },
    )
    .await;
    let sent = load.stop();
    let arrivals = endpoint.sink.expect_requests(sent.acknowledged.len()).await;
    let (mut both, mut only_new) = (0, 0);
    for arrival in &arrivals {
        let signed = (
            arrival.is_signed_by(&endpoint.secret),
            arrival.is_signed_by(&new),
        );
        assert!(signed.0 || signed.1, "an arrival that no secret signs");
        match arrival.at - rotated {
            // Made before, or while the change was on its way.
            ..0 => assert!(signed.0, "before the rotation the old secret signs"),
            // The old one expires three seconds after the change, which was before its answer.
            0..1_500 => both += u32::from(signed == (true, true)),
            // Signed after it, however long a request was on its way.
            4_500.. => {
                assert_eq!(signed, (false, true), "{} ms after", arrival.at - rotated);
                only_new += 1;
            }
            _ => {}
        }
    }
    assert!(
        both > 0 && only_new > 0,
        "both: {both}, only the new: {only_new}"
    );
}

async fn deliveries_of_a_deleted_endpoint_are_dead(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let members = json!({ "retry_schedule_ms": vec![3_000; 10] });
    let endpoint = pipeline.endpoint_with(always(500), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    for number in 0..5 {
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    endpoint.sink.expect_requests(5).await;
    let path = pipeline.path(&format!("/endpoints/{}?wait=applied", endpoint.id));
    let _deleted = delete(&pipeline, &endpoint, &path).await;
    let dead = r#"anabranch_dead_letters_total{reason="deleted""#;
    eventually("5 dead for deleted", harness::DEADLINE, async || {
        (pipeline.metric(dead).await >= 5.0).then_some(())
    })
    .await;
    let count = endpoint.sink.count();
    never(
        "attempts after the deletion",
        Duration::from_secs(1),
        async || endpoint.sink.count() > count,
    )
    .await;
}

/// An endpoint that subscriptions name is deleted after them.
async fn delete(pipeline: &Pipeline, endpoint: &Endpoint, path: &str) -> u16 {
    let control = pipeline.control();
    let list = control
        .call(Method::GET, &pipeline.path("/subscriptions"), None)
        .await;
    for subscription in list.expect(200).json()["items"].as_array().expect("items") {
        if subscription["endpoint"] == endpoint.id.as_str() {
            let id = subscription["id"].as_str().expect("an id");
            let path = pipeline.path(&format!("/subscriptions/{id}"));
            let _deleted = control.call(Method::DELETE, &path, None).await.expect(204);
        }
    }
    control
        .call(Method::DELETE, path, None)
        .await
        .expect(204)
        .status
}

/// `?wait=applied`: what was answered is what the next event meets.
async fn subscription_changes_count_from_the_next_event_on(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.endpoint(ok()).await;
    // What it has got was routed, for every subscription.
    let witness = pipeline.endpoint(ok()).await;
    pipeline
        .subscription(&witness, &["com.acme.a", "com.acme.b"])
        .await;
    let load = pipeline.load("com.acme.other", 50);
    let route = async |ty: &str, id: &str| {
        pipeline.publish(&event(ty, id)).await;
        witness.sink.expect_event(id).await;
    };
    route("com.acme.a", "before").await;
    let id = pipeline.subscription(&endpoint, &["com.acme.a"]).await;
    route("com.acme.a", "created").await;
    let path = pipeline.path(&format!("/subscriptions/{id}"));
    act(&pipeline, Method::POST, &format!("{path}/pause"), None).await;
    route("com.acme.a", "paused").await;
    act(&pipeline, Method::POST, &format!("{path}/resume"), None).await;
    route("com.acme.a", "resumed").await;
    let filters = json!({ "filters": [{ "suffix": { "type": ".b" } }] });
    act(&pipeline, Method::PATCH, &path, Some(&filters)).await;
    route("com.acme.a", "filtered").await;
    route("com.acme.b", "matching").await;
    // What is not yet delivered when its subscription is deleted is dead.
    endpoint.sink.expect_event("matching").await;
    act(&pipeline, Method::DELETE, &path, None).await;
    route("com.acme.b", "deleted").await;
    let expected = ["created", "resumed", "matching"];
    for id in expected {
        endpoint.sink.expect_event(id).await;
    }
    drop(load.stop());
    never("other events", Duration::from_secs(1), async || {
        endpoint.sink.count() > expected.len()
    })
    .await;
}

async fn act(pipeline: &Pipeline, method: Method, path: &str, body: Option<&Value>) {
    let path = format!("{path}?wait=applied");
    let answer = pipeline.control().call(method, &path, body).await;
    assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    let late = answer.headers.get("anabranch-not-applied");
    assert!(late.is_none(), "not applied by {late:?}");
}

async fn a_paused_endpoint_gets_its_deliveries_later(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let path = pipeline.path(&format!("/endpoints/{}", endpoint.id));
    act(&pipeline, Method::POST, &format!("{path}/pause"), None).await;
    let event = event("com.acme.a", 1);
    pipeline.publish(&event).await;
    never(
        "an attempt while paused",
        Duration::from_secs(2),
        async || endpoint.sink.count() > 0,
    )
    .await;
    act(&pipeline, Method::POST, &format!("{path}/resume"), None).await;
    endpoint.expect_delivered_after(&event, 1).await;
}

/// Design, "Views of control": a dispatcher that lags holds the partition until it has applied what
/// the router knew; a new endpoint's first event is neither lost nor dead.
#[tokio::test]
async fn the_first_event_waits_for_a_dispatcher_that_lags() {
    let mut pipeline = pipeline().heavy().start().await;
    let known = pipeline.subscribed(ok()).await;
    pipeline.publish(&event("com.acme.a", "known")).await;
    known.sink.expect_event("known").await;
    pipeline.process("dispatcher-1").signal("STOP");
    // Made while the dispatcher hears nothing; nobody waits for it.
    let sink = harness::Sink::start(ok());
    let body = json!({ "url": sink.url(), "types": ["com.acme.new"] });
    let made = pipeline
        .control()
        .make(&pipeline.path("/webhooks"), &body)
        .await;
    let secret = made["endpoint"]["secret"].as_str().expect("shown once");
    // The router knows it once an event is counted as matched.
    let records = "anabranch_router_records_total";
    let mut number = 0;
    let before = pipeline.process_metric("router-1", records).await;
    eventually(
        "an event routed to the new endpoint",
        harness::DEADLINE,
        async || {
            number += 1;
            pipeline
                .publish(&event("com.acme.new", format!("new-{number}")))
                .await;
            // `known` takes it too, maybe in the same record: targets tell.
            let targets = pipeline
                .process_metric("router-1", "anabranch_router_targets_total")
                .await;
            let records = pipeline.process_metric("router-1", records).await;
            (targets > records || records > before + f64::from(number)).then_some(())
        },
    )
    .await;
    pipeline.process("dispatcher-1").signal("CONT");
    let arrival = eventually(
        "the new endpoint's first event",
        harness::DEADLINE,
        async || sink.arrivals().into_iter().next(),
    )
    .await;
    assert!(arrival.is_signed_by(secret));
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
}
