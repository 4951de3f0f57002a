//! Where subscriptions start, as the API takes and shows it.

use axum::body::Body;
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
