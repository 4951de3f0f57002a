//! What filters do, told: explanations of subscriptions, and dry runs over the newest events.

use std::fmt::Write as _;

use runtime::log::{Headers, ProducerOptions, Record};
use schemas::codec::kafka;
use schemas::event::{Event, TENANT};
use serde_json::{Value, json};

use super::rig::{Answer, Rig};

const EXPLAIN: &str = "POST /v1/tenants/acme/explain";
const DRY_RUN: &str = "POST /v1/tenants/acme/filters/dry-run";

async fn subscription(rig: &Rig, endpoint: &str, filters: Value) -> String {
    let endpoint = endpoint.rsplit('/').next().unwrap();
    let body = json!({ "endpoint": endpoint, "filters": filters });
    let made = rig.operator("POST /v1/tenants/acme/subscriptions", body);
    made.await.expect(201).string("/id")
}

fn order() -> Value {
    json!({
        "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid",
        "data": { "total": 12 },
    })
}

#[tokio::test(start_paused = true)]
async fn every_subscription_of_the_tenant_is_explained_in_pages() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let endpoint = rig.endpoint().await;
    let wanted = subscription(&rig, &endpoint, json!([{ "sql": "type LIKE 'order.%'" }])).await;
    let other = subscription(&rig, &endpoint, json!([{ "exact": { "type": "a" } }])).await;
    let whole = rig.call(&key, EXPLAIN, json!({ "event": order() })).await;
    let whole = whole.expect(200).json();
    let found: Vec<_> = whole["items"].as_array().unwrap().iter().collect();
    assert_eq!(found.len(), 2);
    for item in &found {
        let matched = item["subscription"] == json!(wanted);
        assert_eq!(item["matched"], matched, "{item}");
        assert_eq!(item["explanation"]["matched"], matched, "{item}");
        assert_eq!(item["state"], "active");
    }
    let mut seen = Vec::new();
    let mut path = format!("{EXPLAIN}?limit=1");
    loop {
        let page = rig.call(&key, &path, json!({ "event": order() })).await;
        let page = page.expect(200).json();
        let items = page["items"].as_array().unwrap();
        seen.extend(
            items
                .iter()
                .map(|item| item["subscription"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("{EXPLAIN}?limit=1");
        write!(path, "&cursor={next}").unwrap();
    }
    seen.sort();
    let mut both = vec![wanted, other];
    both.sort();
    assert_eq!(seen, both);
}

#[tokio::test(start_paused = true)]
async fn one_subscription_says_why() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let endpoint = rig.endpoint().await;
    let filters =
        json!([{ "not": { "exact": { "type": "order.paid" } } }, { "sql": "amount > 3" }]);
    let id = subscription(&rig, &endpoint, filters).await;
    let body = json!({ "event": order(), "subscription": id });
    let told = rig.call(&key, EXPLAIN, body).await.expect(200).json();
    let root = &told["items"][0]["explanation"];
    assert_eq!(root["why"], "2 of 2 did not match");
    let inner = root.pointer("/parts/0/parts/0/parts/0").unwrap();
    assert_eq!(inner["pointer"], "/0/not/exact/type");
    assert_eq!(
        (&inner["wanted"], &inner["seen"]),
        (&json!("order.paid"), &json!("order.paid"))
    );
    let sql = &root["parts"][1];
    assert_eq!(sql["why"], "the event has no attribute `amount`");
    assert_eq!(told["next"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_needs_an_event_and_the_right_key() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let endpoint = rig.endpoint().await;
    let id = subscription(&rig, &endpoint, json!([])).await;
    let pointers = |answer: Answer| answer.expect(422).pointers();
    assert_eq!(pointers(rig.call(&key, EXPLAIN, Value::Null).await), [""]);
    let no_event = json!({ "event": { "id": "1" } });
    assert_eq!(
        pointers(rig.call(&key, EXPLAIN, no_event).await),
        ["/event"]
    );
    let more = json!({ "event": order(), "more": 1 });
    assert_eq!(pointers(rig.call(&key, EXPLAIN, more).await), [""]);
    let absent = "sub_00000000000000000000000001";
    let absent = json!({ "event": order(), "subscription": absent });
    rig.call(&key, EXPLAIN, absent).await.expect(404);
    rig.operator("POST /v1/tenants", json!({ "id": "other" }))
        .await
        .expect(201);
    let body = json!({ "event": order(), "subscription": id });
    let elsewhere = "POST /v1/tenants/other/explain";
    rig.call(&key, elsewhere, body.clone()).await.expect(403);
    rig.operator(elsewhere, body).await.expect(404);
    rig.operator(
        "POST /v1/tenants/nobody/explain",
        json!({ "event": order() }),
    )
    .await
    .expect(404);
}

/// Numbers in data are seen as they are written, not as some number type holds them.
#[tokio::test(start_paused = true)]
async fn numbers_of_the_event_stay_as_they_are_written() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let endpoint = rig.endpoint().await;
    let filters = json!([{ "anabranch-data": { "/n": { "gt": 9_007_199_254_740_992_u64 } } }]);
    subscription(&rig, &endpoint, filters).await;
    let text = r#"{"event":{"specversion":"1.0","id":"1","source":"/s","type":"t",
        "data":{"n":9007199254740992.5}}}"#;
    let request = super::rig::request(&key, EXPLAIN);
    let request = request.body(axum::body::Body::from(text)).unwrap();
    let told = rig.send(request).await.expect(200).json();
    assert_eq!(told["items"][0]["matched"], true, "{told}");
}

fn event(tenant: &str, number: usize) -> Event {
    Event::builder(&format!("e{number}"), "/test", "order.paid")
        .attribute("number", i32::try_from(number).unwrap())
        .attribute(TENANT, tenant)
        .build()
        .unwrap()
}

/// Writes the events to `events`, one partition after another.
async fn write(rig: &Rig, events: &[Event]) {
    let log = rig.sim.process("others");
    let options = ProducerOptions::named("others");
    let producer = log.producer(options).await.unwrap();
    for (place, event) in events.iter().enumerate() {
        let (headers, value) = kafka::encode_binary(event);
        let mut built = Headers::builder();
        for (name, value) in headers {
            built.push(&name, &value);
        }
        let record = Record {
            topic: rig.topics.events.clone(),
            partition: Some(u32::try_from(place % 6).unwrap()),
            key: None,
            value,
            headers: built.build(),
        };
        let written = producer.send(vec![record]).await.wait().await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        tokio::time::advance(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tries_filters_on_the_newest_events_of_the_tenant_alone() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let tenant = |number: usize| {
        if number.is_multiple_of(2) {
            "acme"
        } else {
            "other"
        }
    };
    let events: Vec<_> = (0..400)
        .map(|number| event(tenant(number), number))
        .collect();
    write(&rig, &events).await;
    let run = async |last: u64, sql: &str| {
        let body = json!({ "filters": [{ "sql": sql }], "last": last });
        rig.call(&key, DRY_RUN, body).await.expect(200).json()
    };
    let told = run(10, "number >= 390").await;
    assert_eq!(
        (&told["events"], &told["matched"]),
        (&json!(10), &json!(5)),
        "{told}"
    );
    assert_eq!(
        (&told["not_matched"], &told["ended"]),
        (&json!(5), &json!("found"))
    );
    let ids = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|seen| seen["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        ids(&told["matching"]),
        ["e398", "e396", "e394", "e392", "e390"]
    );
    assert_eq!(
        ids(&told["not_matching"]),
        ["e388", "e386", "e384", "e382", "e380"]
    );
    let all = run(10_000, "number >= 0").await;
    assert_eq!(
        (&all["events"], &all["matched"]),
        (&json!(200), &json!(200)),
        "{all}"
    );
    assert_eq!(
        (&all["ended"], &all["records"]),
        (&json!("beginning"), &json!(400))
    );
    assert_eq!(ids(&all["matching"]).len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_every_fault_of_its_body() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let body = json!({
        "filters": [{ "sql": "type = " }, { "exact": {} }], "last": 10_001, "more": 1,
    });
    let answer = rig.call(&key, DRY_RUN, body).await.expect(422);
    assert_eq!(
        answer.pointers(),
        ["/more", "/filters/0/sql", "/filters/1/exact", "/last"]
    );
    assert!(
        answer.text.contains("byte 7 (line 1, column 8)"),
        "{}",
        answer.text
    );
    let nothing = rig.call(&key, DRY_RUN, Value::Null).await.expect(422);
    assert_eq!(nothing.pointers(), ["/filters"]);
}

/// SB-3: a subscription with an expression that is none is refused, with its place.
#[tokio::test(start_paused = true)]
async fn an_expression_that_is_none_is_refused_at_creation() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let endpoint = rig.endpoint().await;
    let endpoint = endpoint.rsplit('/').next().unwrap();
    let body = json!({ "endpoint": endpoint, "filters": [{ "any": [{ "sql": "NOPE(1)" }] }] });
    let refused = rig
        .call(&key, "POST /v1/tenants/acme/subscriptions", body)
        .await;
    let refused = refused.expect(422);
    assert_eq!(refused.pointers(), ["/filters/0/any/0/sql"]);
    let said = "there is no function `NOPE` of 1 arguments at byte 0 (line 1, column 1)";
    assert!(refused.text.contains(said), "{}", refused.text);
}
