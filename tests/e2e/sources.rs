//! Topics of the user's own, as sources of events.

use harness::{
    Arrival, Broker, DEADLINE, Endpoint, Log, OwnTopic, Pipeline, dead_letters, event, eventually,
    ok,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{pipeline, pipeline_on};

/// As Debezium's PostgreSQL connector writes it, with the schema of Kafka Connect around it.
const ENVELOPE: &str = r#"{"schema":{"type":"struct","fields":[{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"status"}],"optional":true,"name":"dbserver1.public.orders.Value","field":"before"},{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"status"}],"optional":true,"name":"dbserver1.public.orders.Value","field":"after"},{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"}],"optional":false,"name":"dbserver1.public.orders.Envelope","version":2},"payload":{"before":{"id":1001,"status":"new"},"after":{"id":1001,"status":"paid"},"source":{"version":"3.0.0.Final","connector":"postgresql","name":"dbserver1","ts_ms":1795331700000,"snapshot":"false","db":"shop","sequence":"[\"33227720\",\"33227720\"]","schema":"public","table":"orders","txId":556,"lsn":33227720,"xmin":null},"transaction":null,"op":"u","ts_ms":1795331700123}}"#;
const ROW_KEY: &str = r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"name":"dbserver1.public.orders.Key"},"payload":{"id":1001}}"#;

/// A topic whose name no other test has.
fn own(pipeline: &Pipeline, name: &str) -> OwnTopic {
    let unlike = pipeline.prefix().trim_end_matches('.');
    OwnTopic::named(pipeline.brokers(), &format!("own.{unlike}.{name}"))
}

/// Makes a source of `topic` for the pipeline's tenant; returns its path.
async fn source(pipeline: &Pipeline, topic: &OwnTopic, more: &Value) -> String {
    let mut body = json!({ "topic": topic.name(), "tenant": "acme", "start": "earliest" });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let operator = pipeline.control().with_key(pipeline.operator_key());
    let made = operator.make("/v1/sources?wait=applied", &body).await;
    format!("/v1/sources/{}", made["id"].as_str().expect("an id"))
}

async fn arrival(endpoint: &Endpoint, id: &str) -> Arrival {
    let arrival = endpoint.sink.expect_event(id).await;
    assert!(arrival.is_signed_by(&endpoint.secret), "{arrival:?}");
    arrival
}

fn id(topic: &OwnTopic, rest: &str) -> String {
    format!("{}/{rest}", topic.name())
}

#[tokio::test]
async fn topics_of_every_format_are_delivered() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    json_and_opaque(&pipeline, &endpoint).await;
    debezium(&pipeline, &endpoint).await;
    cloud_events(&pipeline, &endpoint).await;
    // What is there already, and what comes later.
    let all = endpoint.sink.arrivals();
    assert!(all.iter().all(|arrival| arrival.attempt == 1), "each once");
}

async fn json_and_opaque(pipeline: &Pipeline, endpoint: &Endpoint) {
    let orders = own(pipeline, "orders");
    orders.create(1).await;
    let paid = r#"{"kind":"order.paid","customer":{"id":7},"total":12.50}"#;
    orders.write(Some("k-1"), &[], Some(paid)).await;
    let more = json!({ "format": "json", "event": {
        "type": { "pointer": "/kind" }, "subject": { "pointer": "/customer/id" } } });
    source(pipeline, &orders, &more).await;
    let found = arrival(endpoint, &id(&orders, "0/0")).await;
    assert_eq!(found.data(), paid, "byte by byte");
    let attribute = |name| found.attribute(name).unwrap_or_default();
    assert_eq!(attribute("type"), "order.paid");
    assert_eq!(attribute("subject"), "7");
    assert_eq!(attribute("partitionkey"), "k-1");
    assert_eq!(attribute("source"), format!("/kafka/{}", orders.name()));
    assert!(found.attribute("anabranchtenant").is_none());

    let bytes = own(pipeline, "bytes");
    bytes.create(2).await;
    let more = json!({ "format": "opaque", "event": {
        "type": { "header": "kind" }, "id": { "header": "id" } } });
    source(pipeline, &bytes, &more).await;
    let headers = [("kind", "blob"), ("id", "b-1")];
    let headers = headers.map(|(name, text)| (name.to_owned(), text.to_owned()));
    bytes.write(None, &headers, Some("\u{1}\u{2}")).await;
    let found = arrival(endpoint, "b-1").await;
    let media_type = found.attribute("datacontenttype").unwrap_or_default();
    assert_eq!(media_type, "application/octet-stream");
    let body: Value = serde_json::from_slice(&found.body).expect("a structured body");
    assert_eq!(body["data_base64"], "AQI=");
}

async fn debezium(pipeline: &Pipeline, endpoint: &Endpoint) {
    let rows = own(pipeline, "rows");
    rows.create(1).await;
    source(pipeline, &rows, &json!({ "format": "debezium" })).await;
    rows.write(Some(ROW_KEY), &[], Some(ENVELOPE)).await;
    // A deleted row's tombstone is no event.
    rows.write(Some(ROW_KEY), &[], None).await;
    rows.write(
        Some(ROW_KEY),
        &[],
        Some(r#"{"op":"d","before":{"id":1001}}"#),
    )
    .await;
    let found = arrival(endpoint, &id(&rows, "0/0")).await;
    let attribute = |name| found.attribute(name).unwrap_or_default();
    assert_eq!(attribute("type"), "orders.updated");
    assert_eq!(attribute("partitionkey"), r#"{"id":1001}"#);
    assert_eq!(attribute("iodebeziumtable"), "orders");
    assert_eq!(attribute("time"), "2026-11-22T07:15:00Z");
    let data: Value = serde_json::from_str(&found.data()).expect("json");
    assert_eq!(data["after"], json!({ "id": 1001, "status": "paid" }));
    assert_eq!(data.get("schema"), None);
    let deleted = arrival(endpoint, &id(&rows, "0/2")).await;
    assert_eq!(deleted.attribute("type").as_deref(), Some("row.deleted"));
}

async fn cloud_events(pipeline: &Pipeline, endpoint: &Endpoint) {
    let events = own(pipeline, "events");
    events.create(3).await;
    source(pipeline, &events, &json!({ "format": "cloudevents" })).await;
    // Somebody else's tenant in a record changes nothing.
    let binary = event("com.acme.own", "own-binary").attribute("anabranchtenant", "other");
    events
        .write(None, &binary.kafka_headers(), Some(&binary.data))
        .await;
    let structured = event("com.acme.own", "own-structured");
    let json = "application/cloudevents+json".to_owned();
    let headers = [("content-type".to_owned(), json)];
    events
        .write(None, &headers, Some(&structured.structured()))
        .await;
    for event in [&binary, &structured] {
        assert_eq!(endpoint.expect_delivered(event).await.data(), event.data);
    }
}

/// Rule 16: one event an item, and what is poison leaves a record that says why and holds nothing up.
#[tokio::test]
async fn arrays_are_split_and_poison_is_dead_with_its_reason() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let batches = own(&pipeline, "batches");
    batches.create(1).await;
    let more = json!({ "format": "json", "split": "/items", "event": {
        "type": { "pointer": "/kind" }, "subject": { "record": "/shop" } } });
    source(&pipeline, &batches, &more).await;
    let batch = r#"{"shop":"s-1","items":[{"kind":"a","n":1},{"n":2},{"kind":"b","n":3}]}"#;
    batches.write(None, &[], Some(batch)).await;
    batches.write(None, &[], Some("no json")).await;
    let items: Vec<Value> = (0..500)
        .map(|n| json!({ "kind": "many", "n": n }))
        .collect();
    let many = json!({ "shop": "s-2", "items": items }).to_string();
    batches.write(None, &[], Some(&many)).await;

    for (item, data) in [(0, r#"{"kind":"a","n":1}"#), (2, r#"{"kind":"b","n":3}"#)] {
        let found = arrival(&endpoint, &id(&batches, &format!("0/0/{item}"))).await;
        assert_eq!(found.data(), data);
        assert_eq!(found.attribute("subject").as_deref(), Some("s-1"));
    }
    endpoint.sink.expect_requests(502).await;
    let letters = eventually("two dead letters", DEADLINE, async || {
        let letters = dead_letters(pipeline.brokers(), pipeline.prefix());
        (letters.len() >= 2).then_some(letters)
    })
    .await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let (topic, _, offset, item) = &letter.origin;
            assert_eq!(topic, batches.name());
            assert_eq!(letter.reason.as_str(), "undecodable");
            assert_eq!(
                letter.tenant.as_ref().map(ToString::to_string).as_deref(),
                Some("acme")
            );
            (*offset, *item, letter.detail.clone().unwrap_or_default())
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|(offset, item, detail)| {
        (*offset, *item) == (0, 1) && detail.contains("there is nothing at `/kind`")
    }));
    assert!(told.iter().any(|(offset, item, detail)| {
        (*offset, *item) == (1, 0) && detail.contains("value is not json")
    }));
}

#[tokio::test]
async fn a_source_waits_for_its_topic_in_the_classic_group() {
    a_source_waits_for_its_topic("classic").await;
}

#[tokio::test]
async fn a_source_waits_for_its_topic_in_a_group_of_kip_848() {
    a_source_waits_for_its_topic("consumer").await;
}

/// A topic that is missing holds nobody up; when it appears it is read, until its source is deleted.
async fn a_source_waits_for_its_topic(protocol: &str) {
    let protocol = format!("kafka.group_protocol={protocol}");
    let mut pipeline = pipeline_on(Log::Kafka).set(&protocol).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let later = own(&pipeline, "later");
    let more = json!({ "format": "json", "event": { "type": { "constant": "late" } } });
    let path = source(&pipeline, &later, &more).await;
    let other = event("com.acme.other", "meanwhile");
    pipeline.publish(&other).await;
    endpoint.expect_delivered(&other).await;
    eventually("said to be missing", DEADLINE, async || {
        let missing = pipeline
            .metric("anabranch_router_missing_source_topics")
            .await;
        (missing >= 2.0).then_some(())
    })
    .await;
    later.create(2).await;
    later.write(Some("k"), &[], Some("{}")).await;
    eventually("read", DEADLINE, async || {
        let all = endpoint.sink.arrivals();
        let late = all
            .iter()
            .any(|one| one.attribute("type").as_deref() == Some("late"));
        late.then_some(())
    })
    .await;

    let operator = pipeline.control().with_key(pipeline.operator_key());
    let deleted = operator
        .call(Method::DELETE, &format!("{path}?wait=applied"), None)
        .await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let before = endpoint.sink.count();
    later.write(Some("k"), &[], Some("{}")).await;
    let other = event("com.acme.other", "behind");
    pipeline.publish(&other).await;
    endpoint.expect_delivered(&other).await;
    assert_eq!(endpoint.sink.count(), before + 1);
    pipeline.expect_all_alive();
}

/// A topic without the right to read it, or to see it, holds nobody up and ends no router. Once it may
/// be read it is.
#[tokio::test]
async fn a_topic_that_may_not_be_read_stops_nobody() {
    let broker = Broker::with_acls();
    let log = Log::Brokers(broker.brokers().to_owned());
    let mut pipeline = pipeline().on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let more = json!({ "format": "json", "event": { "type": { "constant": "secret" } } });
    let (unread, unseen) = (own(&pipeline, "unread"), own(&pipeline, "unseen"));
    for (topic, operation) in [(&unread, "Read"), (&unseen, "Describe")] {
        topic.create(1).await;
        topic.write(None, &[], Some("{}")).await;
        broker.deny(topic.name(), operation);
        source(&pipeline, topic, &more).await;
    }
    let metric = async |name: &str| pipeline.metric(name).await;
    eventually("set aside", DEADLINE, async || {
        let aside = metric("anabranch_router_source_topics_set_aside_total").await;
        (aside >= 1.0).then_some(())
    })
    .await;
    eventually("said to be missing", DEADLINE, async || {
        let missing = metric("anabranch_router_missing_source_topics").await;
        (missing >= 2.0).then_some(())
    })
    .await;
    for id in ["one", "two", "three"] {
        let other = event("com.acme.other", id);
        pipeline.publish(&other).await;
        endpoint.expect_delivered(&other).await;
    }
    assert_eq!(endpoint.sink.count(), 3, "nothing of what may not be read");
    pipeline.expect_all_alive();

    broker.allow(unread.name(), "Read");
    // Whoever comes anew looks at once.
    pipeline.process("router-1").kill();
    pipeline.revive("router-1").await;
    arrival(&endpoint, &id(&unread, "0/0")).await;
    pipeline.expect_all_alive();
}
