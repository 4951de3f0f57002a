//! Transforms: leads that become a partner's contacts, and what is not sent at all.

use std::time::Duration;

use harness::{Api, DEADLINE, Event, Log, Pipeline, event, eventually, never, ok};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both_logs, pipeline_on};

on_both_logs!(leads_become_contacts_and_come_back_after_their_transform_was_corrected);

/// A contact of a lead; of one without an amount only where `amount` is a place that may be missing.
fn contact(amount: &str) -> Value {
    json!({
        "steps": [
            { "drop": "data.test|default(false)" },
            { "select": ["/email", "/first", "/lines/sku"] },
            { "rename": { "/first": "/properties/firstname" } },
            { "compute": {
                "/properties/cents": { "value": format!("{amount}|times(100)|round|int") },
                "/properties/label": { "text": "{{ event.type }} {{ data.first }}" },
            } },
            { "set": { "/source": "web form" } },
        ],
        "request": {
            "method": "PUT",
            "path": "/contacts/{{ data.id }}",
            "query": { "merge": "true" },
            "headers": { "X-Lead": "{{ event.id }}" },
        },
    })
}

fn lead(number: usize, data: &Value) -> Event {
    event("lead.created", number).data(data.to_string())
}

async fn get(api: &Api, path: &str) -> Value {
    api.call(Method::GET, path, None).await.expect(200).json()
}

/// One lead was dropped, and one is dead: its letter.
async fn ended_without_a_request(pipeline: &Pipeline) -> Value {
    // What fails says where and why, and nothing of the lead.
    let path = pipeline.path("/dead?reason=transform");
    let letter = eventually("the letter listed", DEADLINE, async || {
        let page = get(pipeline.control(), &path).await;
        page["items"].as_array()?.first().cloned()
    })
    .await;
    let detail = letter["detail"].as_str().expect("words");
    assert!(
        detail.contains("/steps/3/compute/~1properties~1cents/value"),
        "{detail}"
    );
    assert!(!detail.contains("Cy"), "{detail}");
    assert_eq!(letter["attempts"], 0);
    let dropped = "anabranch_dispatch_transforms_unsent_total{outcome=\"dropped\"}";
    eventually("the drop counted", DEADLINE, async || {
        (pipeline.metric(dropped).await >= 1.0).then_some(())
    })
    .await;
    letter
}

/// Explain and the dry run say what becomes of the leads.
async fn told_before_it_is_sent(pipeline: &Pipeline, lead: &Event) {
    let control = pipeline.control();
    let told = json!({ "event": serde_json::from_str::<Value>(&lead.structured()).expect("json") });
    let page = control.make(&pipeline.path("/explain"), &told).await;
    let outcome = &page["items"][0]["transform"];
    assert_eq!(
        (&outcome["outcome"], &outcome["method"]),
        (&json!("request"), &json!("PUT"))
    );
    let url = outcome["url"].as_str().expect("a url");
    assert!(url.ends_with("/hook/contacts/l%2F1?merge=true"), "{url}");
    assert_eq!(outcome["event"]["data"]["properties"]["cents"], 1050);
    let tried = json!({ "filters": [], "transform": contact("data.amount") });
    let tried = control
        .make(&pipeline.path("/filters/dry-run"), &tried)
        .await;
    let matching = tried["matching"].as_array().expect("events");
    let outcomes = matching
        .iter()
        .map(|seen| seen["transform"]["outcome"].as_str());
    let mut outcomes: Vec<_> = outcomes.flatten().collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["dropped", "failed", "request"]);
}

async fn leads_become_contacts_and_come_back_after_their_transform_was_corrected(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let control = pipeline.control();
    let endpoint = pipeline
        .endpoint_with(ok(), json!({ "body": "data" }))
        .await;
    let body = json!({ "endpoint": endpoint.id, "transform": contact("data.amount") });
    let path = pipeline.path("/subscriptions?wait=applied");
    let subscription = control.make(&path, &body).await;
    assert_eq!(subscription["transform"], contact("data.amount"));

    let whole = json!({
        "id": "l/1", "email": "ada@example.com", "first": "Ada", "amount": 10.50,
        "lines": [{ "sku": "x", "n": 2 }],
    });
    let test = json!({ "id": "l2", "first": "Bob", "test": true, "amount": 1 });
    let poor = json!({ "id": "l3", "first": "Cy" });
    let leads = [lead(1, &whole), lead(2, &test), lead(3, &poor)];
    for lead in &leads {
        pipeline.publish(lead).await;
    }

    let arrived = endpoint.sink.expect_requests(1).await.remove(0);
    assert_eq!(arrived.asked, "PUT /hook/contacts/l%2F1?merge=true");
    let expected = r#"{"email":"ada@example.com","lines":[{"sku":"x"}],"properties":{"firstname":"Ada","cents":1050,"label":"lead.created Ada"},"source":"web form"}"#;
    assert_eq!(arrived.body, expected);
    assert!(arrived.is_signed_by(&endpoint.secret), "rule 9");
    assert_eq!(arrived.header("content-type"), "application/json");
    assert!(!arrived.header("x-lead").is_empty());

    let letter = ended_without_a_request(&pipeline).await;
    told_before_it_is_sent(&pipeline, &leads[0]).await;
    let wrong = json!({ "transform": { "steps": [{ "drop": "datum" }] } });
    let id = subscription["id"].as_str().expect("an id");
    let one = pipeline.path(&format!("/subscriptions/{id}?wait=applied"));
    let refused = control.call(Method::PATCH, &one, Some(&wrong)).await;
    let refused = refused.expect(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/transform/steps/0/drop");

    // Corrected and sent again: under the same id (rule 4).
    let corrected = json!({ "transform": contact("data.amount|default(0)") });
    let patched = control.call(Method::PATCH, &one, Some(&corrected)).await;
    assert_eq!(patched.status, 200, "{patched:?}");
    let again = json!({ "endpoint": endpoint.id });
    control.make(&pipeline.path("/redrives"), &again).await;
    let arrived = endpoint.sink.expect_requests(2).await.remove(1);
    assert_eq!(arrived.asked, "PUT /hook/contacts/l3?merge=true");
    assert_eq!(letter["delivery"], arrived.id);
    assert!(arrived.is_signed_by(&endpoint.secret));
    never("a third request", Duration::from_millis(500), async || {
        endpoint.sink.count() > 2
    })
    .await;
}
