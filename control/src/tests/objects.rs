//! What can be made, read, changed and deleted.

use axum::body::Body;
use schemas::records::DeliveryRecord;
use serde_json::{Value, json};

use super::rig::{OPERATOR, Rig, request};

#[tokio::test(start_paused = true)]
async fn a_tenant_lives_and_dies() {
    let rig = Rig::start().await;
    let body = json!({ "id": "acme", "name": "Acme", "events_per_second": 5 });
    let made = rig
        .operator("POST /v1/tenants", body.clone())
        .await
        .expect(201);
    assert_eq!(made.headers["location"], "/v1/tenants/acme");
    assert!(made.headers.contains_key("anabranch-control-offset"));
    // Repeating is safe; taking the place of another is not.
    rig.operator("POST /v1/tenants", body).await.expect(200);
    rig.operator("POST /v1/tenants", json!({ "id": "acme" }))
        .await
        .expect(409);
    let patch = json!({ "name": null, "bytes_per_second": 9 });
    let patched = rig
        .operator("PATCH /v1/tenants/acme", patch.clone())
        .await
        .expect(200)
        .json();
    assert_eq!(patched["name"], Value::Null);
    assert_eq!(
        (&patched["events_per_second"], &patched["bytes_per_second"]),
        (&json!(5), &json!(9))
    );
    let again = rig
        .operator("PATCH /v1/tenants/acme", patch)
        .await
        .expect(200)
        .json();
    assert_eq!(
        again, patched,
        "a patch that changes nothing changes no time"
    );
    assert_eq!(
        rig.operator("GET /v1/tenants/acme", Value::Null)
            .await
            .expect(200)
            .json(),
        patched
    );

    let endpoint = rig.endpoint().await;
    rig.operator("DELETE /v1/tenants/acme", Value::Null)
        .await
        .expect(409);
    rig.operator(&format!("DELETE {endpoint}"), Value::Null)
        .await
        .expect(204);
    let key = rig
        .operator("POST /v1/tenants/acme/keys", Value::Null)
        .await
        .expect(201);
    rig.operator("DELETE /v1/tenants/acme", Value::Null)
        .await
        .expect(204);
    rig.operator("DELETE /v1/tenants/acme", Value::Null)
        .await
        .expect(404);
    // Its keys went with it.
    rig.call(&key.string("/key"), "GET /v1/tenants/acme", Value::Null)
        .await
        .expect(401);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_made_changed_and_paused() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let body = json!({ "url": "https://a.example", "limits": [{ "count": 9 }], "body": "data" });
    let made = rig
        .call(&key, "POST /v1/tenants/acme/endpoints", body)
        .await
        .expect(201);
    let path = made.headers["location"].to_str().unwrap();
    assert_eq!(
        made.json()["limits"],
        json!([{ "count": 9, "per_ms": 1_000, "kind": "spread", "unit": "requests" }])
    );
    let patch = json!({ "timeout_ms": 5_000, "limits": null });
    let patched = rig
        .call(&key, &format!("PATCH {path}"), patch)
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&patched["timeout_ms"], &patched["limits"]),
        (&json!(5_000), &json!([]))
    );
    assert_eq!(patched["body"], "data");
    for (action, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("resume", "active"),
    ] {
        let changed = rig
            .call(&key, &format!("POST {path}/{action}"), Value::Null)
            .await;
        assert_eq!(changed.expect(200).string("/state"), state);
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_lives_and_dies_with_its_endpoint() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let id = path.rsplit('/').next().unwrap();
    let subscriptions = "/v1/tenants/acme/subscriptions";
    let body = json!({ "endpoint": id, "types": ["a", "b"] });
    let made = rig
        .call(&key, &format!("POST {subscriptions}"), body)
        .await
        .expect(201);
    let subscription = made.headers["location"].to_str().unwrap();
    let any = json!([{ "any": [{ "exact": { "type": "a" } }, { "exact": { "type": "b" } }] }]);
    assert_eq!(made.json()["filters"], any);
    let other = json!({ "endpoint": "ep_00000000000000000000000001" });
    let refused = rig
        .call(&key, &format!("POST {subscriptions}"), other)
        .await
        .expect(422);
    assert_eq!(refused.pointers(), ["/endpoint"]);
    let patch = json!({ "endpoint": id });
    let refused = rig
        .call(&key, &format!("PATCH {subscription}"), patch)
        .await
        .expect(422);
    assert_eq!(
        refused.pointers(),
        ["/endpoint"],
        "a subscription's endpoint never changes"
    );
    let paused = rig
        .call(&key, &format!("POST {subscription}/pause"), Value::Null)
        .await;
    assert_eq!(paused.expect(200).string("/state"), "paused");
    let resumed = rig
        .call(&key, &format!("POST {subscription}/resume"), Value::Null)
        .await;
    assert_eq!(resumed.expect(200).string("/state"), "active");

    rig.call(&key, &format!("DELETE {path}"), Value::Null)
        .await
        .expect(204);
    rig.call(&key, &format!("GET {path}"), Value::Null)
        .await
        .expect(404);
    rig.call(&key, &format!("GET {subscription}"), Value::Null)
        .await
        .expect(404);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_an_endpoint_and_a_subscription_in_one_transaction() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let body = json!({ "url": "https://a.example", "types": ["order.paid"], "name": "orders" });
    let send = || {
        let request = request(&key, "POST /v1/tenants/acme/webhooks")
            .header("idempotency-key", "\"abc\"")
            .body(Body::from(body.to_string()));
        rig.send(request.unwrap())
    };
    let made = send().await.expect(201);
    assert_eq!(
        made.string("/subscription/endpoint"),
        made.string("/endpoint/id")
    );
    assert!(made.string("/endpoint/secret").starts_with("whsec_"));
    let repeated = send().await.expect(200);
    assert_eq!(repeated.string("/endpoint/id"), made.string("/endpoint/id"));
    assert_eq!(
        repeated.json()["endpoint"].get("secret"),
        None,
        "shown once"
    );
    let other = request(&key, "POST /v1/tenants/acme/webhooks")
        .header("idempotency-key", "abc")
        .body(Body::from(
            json!({ "url": "https://b.example" }).to_string(),
        ));
    rig.send(other.unwrap()).await.expect(422);
    let bad = json!({ "url": "http://10.0.0.1", "types": "x", "more": 1 });
    let refused = rig
        .call(&key, "POST /v1/tenants/acme/webhooks", bad)
        .await
        .expect(422);
    assert_eq!(refused.pointers(), ["/url", "/types", "/more"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_that_link_to_the_next() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(rig.endpoint().await.rsplit('/').next().unwrap().to_owned());
    }
    made.sort();
    let (mut found, mut query) = (Vec::new(), "?limit=3".to_owned());
    let mut sizes = Vec::new();
    loop {
        let call = format!("GET /v1/tenants/acme/endpoints{query}");
        let page = rig.call(&key, &call, Value::Null).await.expect(200);
        let items = page.json()["items"].as_array().cloned().unwrap();
        sizes.push(items.len());
        found.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(link) = page.headers.get("link") else {
            assert_eq!(page.json()["next"], Value::Null);
            break;
        };
        // HT-6.
        let link = link
            .to_str()
            .unwrap()
            .strip_suffix(">; rel=\"next\"")
            .unwrap();
        query = link.strip_prefix('<').unwrap().to_owned();
    }
    assert_eq!((found, sizes), (made, vec![3, 3, 1]));
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=!", "cursor=YQ"] {
        let call = format!("GET /v1/tenants/acme/endpoints?{bad}");
        rig.call(&key, &call, Value::Null).await.expect(400);
    }
    for list in [
        "/v1/tenants",
        "/v1/tenants/acme/keys",
        "/v1/tenants/acme/subscriptions",
    ] {
        rig.operator(&format!("GET {list}?limit=1"), Value::Null)
            .await
            .expect(200);
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_with_its_reason() {
    let rig = Rig::start().await;
    let send = async |body: &str, content_type: &str| {
        let request = request(OPERATOR, "POST /v1/tenants").header("content-type", content_type);
        rig.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    };
    let malformed = send("{\n \"id\" 5}", "application/json").await.expect(400);
    assert!(
        malformed.string("/detail").contains("line 2 column"),
        "{malformed:?}"
    );
    assert_eq!(
        malformed.headers["content-type"],
        "application/problem+json"
    );
    send(&"[".repeat(200), "application/json").await.expect(400);
    send("{}", "text/plain").await.expect(415);
    send(&" ".repeat((256 << 10) + 1), "application/json")
        .await
        .expect(413);
    let faulty = send(r#"{"id":"A","x":1}"#, "application/json")
        .await
        .expect(422);
    assert_eq!(faulty.pointers(), ["/id", "/x"]);
    rig.operator("GET /v1/nothing", Value::Null)
        .await
        .expect(404);
    rig.operator("PUT /v1/tenants", Value::Null)
        .await
        .expect(405);
    rig.operator("POST /v1/tenants?wait=x", json!({ "id": "a" }))
        .await
        .expect(400);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_test_event_is_a_delivery_to_the_endpoint_alone() {
    let rig = Rig::start().await;
    rig.acme().await;
    let path = rig.endpoint().await;
    let sent = rig
        .operator(&format!("POST {path}/test"), Value::Null)
        .await
        .expect(202);
    let records: Vec<_> = (0..6)
        .flat_map(|number| rig.sim.records(&rig.topics.deliveries.partition(number)))
        .collect();
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    let delivery =
        DeliveryRecord::decode(record.headers.iter(), record.value.as_ref().unwrap()).unwrap();
    let [target] = delivery.targets.as_slice() else {
        panic!("{delivery:?}")
    };
    assert_eq!(target.subscription.bits(), 0);
    assert!(path.ends_with(&target.endpoint.to_string()));
    assert_eq!(delivery.event.ty(), "anabranch.test");
    assert_eq!(delivery.event.id(), sent.string("/event_id"));
    assert_eq!(
        delivery.delivery_id(target).to_string(),
        sent.string("/delivery_id")
    );
    // A dispatcher that has applied so much knows the endpoint.
    let stored = rig.sim.records(&rig.topics.control.partition(0));
    assert_eq!(delivery.control_offset, stored.last().unwrap().offset + 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_one_quota_have_the_same_limits() {
    let rig = Rig::start().await;
    rig.acme().await;
    let make = async |more: Value| {
        let mut body = json!({ "url": "https://a.example", "quota": "crm" });
        let members = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(members);
        rig.operator("POST /v1/tenants/acme/endpoints", body).await
    };
    let limits = json!([{ "count": 9, "per_ms": 1_000, "kind": "spread", "unit": "requests" }]);
    let first = make(json!({ "limits": [{ "count": 9 }], "concurrency": 3 })).await;
    let first = first.expect(201);
    // What is not said is taken over, what is said must be the same.
    let second = make(json!({})).await.expect(201);
    assert_eq!(second.json()["limits"], limits);
    assert_eq!(second.json()["concurrency"], 3);
    let third = make(json!({ "limits": [{ "count": 9 }] })).await;
    let third = third.expect(201);
    let refused = make(json!({ "limits": [{ "count": 8 }], "concurrency": 4 })).await;
    let refused = refused.expect(422).json();
    let faults = &refused["errors"];
    assert_eq!(faults[0]["pointer"], "/limits");
    assert_eq!(faults[1]["pointer"], "/concurrency");
    let named = [&first, &second, &third].map(|made| made.string("/id"));
    let detail = faults[0]["detail"].as_str().unwrap();
    assert!(named.iter().any(|id| detail.contains(id)), "{detail}");
    // One of another tenant or without the quota is as it is.
    let alone = json!({ "url": "https://a.example", "limits": [{ "count": 1 }] });
    let alone = rig.operator("POST /v1/tenants/acme/endpoints", alone).await;
    let alone = alone.expect(201);
    // A change of one is a change of all.
    let at = |made: &super::rig::Answer| made.headers["location"].to_str().unwrap().to_owned();
    let patch = json!({ "limits": [{ "count": 7 }], "concurrency": null });
    let patched = rig.operator(&format!("PATCH {}", at(&second)), patch).await;
    patched.expect(200);
    let found = rig
        .operator(&format!("GET {}", at(&first)), Value::Null)
        .await;
    let found = found.expect(200).json();
    assert_eq!(found["limits"][0]["count"], 7);
    assert_eq!(found["concurrency"], Value::Null);
    let changed_at = found["updated_at"].clone();
    let found = rig
        .operator(&format!("GET {}", at(&alone)), Value::Null)
        .await;
    assert_eq!(found.json()["limits"][0]["count"], 1);
    // What is its own stays its own.
    let patch = json!({ "name": "second" });
    rig.operator(&format!("PATCH {}", at(&second)), patch)
        .await
        .expect(200);
    let found = rig
        .operator(&format!("GET {}", at(&first)), Value::Null)
        .await;
    assert_eq!(found.json()["updated_at"], changed_at);
    rig.stop().await;
}
