//! Sources: made, listed, changed and deleted, by the operator alone.

use axum::body::Body;
use serde_json::{Value, json};

use super::rig::{Answer, OPERATOR, Rig, request};

const SOURCES: &str = "/v1/sources";

fn body(more: &Value) -> Value {
    let mut body = json!({
        "topic": "shop.orders", "tenant": "acme", "format": "json",
        "event": { "type": { "pointer": "/kind" } },
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn make(rig: &Rig, more: &Value) -> Answer {
    rig.operator(&format!("POST {SOURCES}"), body(more)).await
}

#[tokio::test(start_paused = true)]
async fn a_source_is_made_shown_changed_and_deleted() {
    let rig = Rig::start().await;
    rig.acme().await;
    let more = json!({ "split": "/items", "name": "Orders", "weight": 30 });
    let made = make(&rig, &more).await.expect(201);
    let path = made.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(path, format!("{SOURCES}/{}", made.string("/id")));
    assert!(made.string("/id").starts_with("src_"));
    let shown = rig.operator(&format!("GET {path}"), Value::Null).await;
    let shown = shown.expect(200).json();
    assert_eq!(shown, made.json());
    assert_eq!(shown["start"], "latest");
    assert_eq!(shown["event"], json!({ "type": { "pointer": "/kind" } }));

    let patch = json!({ "split": null, "event": { "type": { "constant": "order" } } });
    let patched = rig.operator(&format!("PATCH {path}"), patch).await;
    let patched = patched.expect(200).json();
    assert_eq!(patched["split"], Value::Null);
    assert_eq!(patched["event"], json!({ "type": { "constant": "order" } }));
    assert_eq!(
        (&patched["name"], &patched["weight"]),
        (&json!("Orders"), &json!(30))
    );
    for (patch, pointer) in [
        (json!({ "topic": "other" }), "/topic"),
        (json!({ "tenant": "other" }), "/tenant"),
        (json!({ "start": "earliest" }), "/start"),
        (json!({ "format": "cloudevents" }), "/event/type"),
    ] {
        let refused = rig
            .operator(&format!("PATCH {path}"), patch)
            .await
            .expect(422);
        assert_eq!(refused.pointers(), [pointer]);
    }

    // The tenant is kept for as long as a source is its.
    let tenant = "DELETE /v1/tenants/acme";
    let kept = rig.operator(tenant, Value::Null).await.expect(409);
    assert!(kept.string("/detail").contains("sources"));
    rig.operator(&format!("DELETE {path}"), Value::Null)
        .await
        .expect(204);
    for call in ["GET", "DELETE"] {
        let gone = rig.operator(&format!("{call} {path}"), Value::Null).await;
        gone.expect(404);
    }
    rig.operator(tenant, Value::Null).await.expect(204);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_topic_for_a_source_is_refused_by_name() {
    let rig = Rig::start().await;
    rig.acme().await;
    let check = async |more: Value, expected: &[&str]| {
        let refused = make(&rig, &more).await.expect(422);
        assert_eq!(refused.pointers(), expected, "{more}");
    };
    for own in ["t.events", "t.deliveries", "t.delay.5s", "t.later"] {
        check(json!({ "topic": own }), &["/topic"]).await;
    }
    check(json!({ "topic": "__consumer_offsets" }), &["/topic"]).await;
    check(json!({ "tenant": "nobody" }), &["/tenant"]).await;
    check(json!({ "event": {} }), &["/event/type"]).await;
    check(
        json!({ "format": "opaque", "split": "/a" }),
        &["/split", "/event/type"],
    )
    .await;
    make(&rig, &json!({})).await.expect(201);
    let twice = make(&rig, &json!({ "format": "debezium" }))
        .await
        .expect(409);
    assert!(twice.string("/detail").contains("of this topic already"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sources_are_the_operators_alone() {
    let rig = Rig::start().await;
    let tenant = rig.acme().await;
    let made = make(&rig, &json!({})).await.expect(201);
    let path = format!("{SOURCES}/{}", made.string("/id"));
    for call in [
        format!("POST {SOURCES}"),
        format!("GET {SOURCES}"),
        format!("GET {path}"),
        format!("PATCH {path}"),
        format!("DELETE {path}"),
    ] {
        let refused = rig.call(&tenant, &call, body(&json!({}))).await;
        refused.expect(403);
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn sources_of_all_tenants_are_listed_page_by_page_and_a_repeat_makes_one() {
    // HT-6, HT-7, HT-8
    let rig = Rig::start().await;
    rig.acme().await;
    rig.operator("POST /v1/tenants", json!({ "id": "other" }))
        .await
        .expect(201);
    let mut ids = Vec::new();
    for (topic, tenant) in [("a", "acme"), ("b", "other"), ("c", "acme")] {
        let more = json!({ "topic": topic, "tenant": tenant });
        ids.push(make(&rig, &more).await.expect(201).string("/id"));
    }
    ids.sort();
    let mut listed = Vec::new();
    let mut call = format!("GET {SOURCES}?limit=2");
    loop {
        let page = rig.operator(&call, Value::Null).await.expect(200).json();
        for item in page["items"].as_array().unwrap() {
            listed.push(item["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        call = format!("GET {SOURCES}?limit=2&cursor={next}");
    }
    assert_eq!(listed, ids);

    let send = async |body: &Value| {
        let request = request(OPERATOR, &format!("POST {SOURCES}"));
        let request = request.header("idempotency-key", "k-1");
        rig.send(request.body(Body::from(body.to_string())).unwrap())
            .await
    };
    let one = body(&json!({ "topic": "d" }));
    let made = send(&one).await.expect(201);
    assert_eq!(send(&one).await.expect(200).json(), made.json());
    send(&body(&json!({ "topic": "e" }))).await.expect(422);
    rig.stop().await;
}
