//! Where subscriptions start, as the API takes and shows it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use runtime::log::{Headers, ProducerOptions, Record};
use schemas::records::{Activation, ActivationKey, Incarnation, Writer};
use serde_json::{Value, json};

use super::rig::{Rig, request};

const SUBSCRIPTIONS: &str = "/v1/tenants/acme/subscriptions";

#[tokio::test(start_paused = true)]
async fn a_start_is_taken_once_shown_and_never_in_the_future() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let endpoint = path.rsplit('/').next().unwrap();
    let create = format!("POST {SUBSCRIPTIONS}");
    let body = |start: &str| json!({ "endpoint": endpoint, "start": start });
    for (start, shown) in [
        ("latest", "latest"),
        ("2001-02-03T04:05:06+01:00", "2001-02-03T03:05:06Z"),
    ] {
        let made = rig.call(&key, &create, body(start)).await.expect(201);
        assert_eq!(made.string("/start"), shown);
    }
    let plain = json!({ "endpoint": endpoint });
    let made = rig.call(&key, &create, plain).await.expect(201);
    assert_eq!(made.json()["start"], Value::Null);
    for start in ["2100-01-01T00:00:00Z", "yesterday"] {
        let refused = rig.call(&key, &create, body(start)).await.expect(422);
        assert_eq!(refused.pointers(), ["/start"], "{start}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_the_same_though_a_pause_has_ended_its_replay() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let endpoint = path.rsplit('/').next().unwrap();
    let body = json!({ "endpoint": endpoint, "start": "2001-02-03T04:05:06Z" });
    let send = || {
        let request = request(&key, &format!("POST {SUBSCRIPTIONS}"))
            .header("idempotency-key", "abc")
            .body(Body::from(body.to_string()));
        rig.send(request.unwrap())
    };
    let made = send().await.expect(201);
    let subscription = made.headers["location"].to_str().unwrap();
    let pause = format!("POST {subscription}/pause");
    let paused = rig.call(&key, &pause, Value::Null).await.expect(200);
    assert_eq!(paused.string("/start"), "2001-02-03T04:05:06Z");
    let repeated = send().await.expect(200);
    assert_eq!(repeated.string("/id"), made.string("/id"));
    let patch = json!({ "start": "latest" });
    let patched = rig
        .call(&key, &format!("PATCH {subscription}"), patch)
        .await;
    assert_eq!(patched.expect(422).pointers(), ["/start"]);
}

/// Puts on record how far the subscription is in a partition of that topic, or takes that back.
async fn say(rig: &Rig, subscription: &str, place: (&str, u32), said: Option<(i64, Option<i64>)>) {
    let (topic, partition) = place;
    let writer = Writer::new(&Incarnation::from_uuid_v7([7; 16]), 1);
    let activation = said.map(|(replayed_to, offset)| Activation {
        version: 1,
        subscription: subscription.parse().unwrap(),
        topic: topic.to_owned(),
        partition,
        offset,
        replayed_to,
        done: offset == Some(replayed_to),
        log_start: None,
        writer: writer.clone(),
    });
    let key = ActivationKey {
        topic: topic.to_owned(),
        partition,
        subscription: subscription.parse().unwrap(),
        writer,
    };
    let log = rig.sim.process("router");
    let producer = log.producer(ProducerOptions::named("notes")).await.unwrap();
    let record = Record {
        topic: rig.topics.progress.clone(),
        partition: Some(0),
        key: Some(Bytes::from(key.to_string())),
        value: activation.map(|activation| activation.encode().into()),
        headers: Headers::default(),
    };
    let reports = producer.send(vec![record]).await.wait().await;
    assert!(reports.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn how_far_a_replay_is_is_shown() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let endpoint = path.rsplit('/').next().unwrap().to_owned();
    let create = format!("POST {SUBSCRIPTIONS}");
    let at = "2001-02-03T03:05:06Z";
    let body = json!({ "endpoint": endpoint, "start": at });
    let made = rig.call(&key, &create, body).await.expect(201);
    assert_eq!(made.json()["replay"], Value::Null, "nothing is known yet");
    let id = made.string("/id");
    let read = format!("GET {SUBSCRIPTIONS}/{id}");
    let shown = async || {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let shown = rig.call(&key, &read, Value::Null).await.expect(200);
        shown.json()["replay"].clone()
    };
    let begun = shown().await;
    let all = begun["partitions"].as_u64().unwrap();
    let own = u32::try_from(all / 2).unwrap();
    let expected = json!({ "from": at, "state": "running", "partitions": all,
        "partitions_done": 0, "left": 0 });
    assert_eq!(begun, expected);
    let (events, bulk) = (rig.topics.events.as_str(), rig.topics.bulk.as_str());
    say(&rig, &id, (events, 0), Some((100, Some(150)))).await;
    // An ordered one, up to where the log ends.
    say(&rig, &id, (bulk, 0), Some((0, None))).await;
    say(&rig, &id, ("shop.orders", 7), Some((5, Some(9)))).await;
    let begun = shown().await;
    assert_eq!(begun["partitions"], all, "more than are known");
    assert_eq!(begun["left"], 54);
    say(&rig, &id, ("shop.orders", 7), None).await;
    assert_eq!(shown().await["left"], 50);
    let pause = format!("POST {path}/pause");
    rig.call(&key, &pause, Value::Null).await.expect(200);
    assert_eq!(shown().await["state"], "waiting");
    for number in 0..own {
        say(&rig, &id, (events, number), Some((150, Some(150)))).await;
        say(&rig, &id, (bulk, number), Some((8, Some(8)))).await;
    }
    let expected = json!({ "from": at, "state": "done", "partitions": all,
        "partitions_done": all, "left": 0 });
    assert_eq!(shown().await, expected);
    // What starts at the latest replays nothing, and nothing of it is kept.
    let body = json!({ "endpoint": endpoint, "start": "latest" });
    let latest = rig.call(&key, &create, body).await.expect(201);
    let latest = latest.string("/id");
    say(&rig, &latest, (events, 0), Some((150, Some(150)))).await;
    let read = format!("GET {SUBSCRIPTIONS}/{latest}");
    let found = rig.call(&key, &read, Value::Null).await.expect(200);
    assert_eq!(found.json()["replay"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_a_pause_has_ended_says_so() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let endpoint = path.rsplit('/').next().unwrap();
    let body = json!({ "endpoint": endpoint, "start": "2001-02-03T03:05:06Z" });
    let create = format!("POST {SUBSCRIPTIONS}");
    let made = rig.call(&key, &create, body).await.expect(201);
    let place = format!("{SUBSCRIPTIONS}/{}", made.string("/id"));
    for action in ["pause", "resume"] {
        let call = format!("POST {place}/{action}");
        rig.call(&key, &call, Value::Null).await.expect(200);
        let read = format!("GET {place}");
        let shown = rig.call(&key, &read, Value::Null).await.expect(200);
        assert_eq!(shown.string("/replay/state"), "ended");
    }
}
