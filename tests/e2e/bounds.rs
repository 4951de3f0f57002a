//! Sizes at each bound and beyond it (rule 6: what can never succeed; rule 10: capped reads).

use harness::{Log, big, event, ok};

use crate::{on_both_logs, pipeline_on};

on_both_logs!(
    the_largest_event_arrives_and_a_larger_one_is_refused,
    endless_answers_are_cut
);

/// The default of `ingest.max_event`.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// CE-5: attributes and data together.
async fn the_largest_event_arrives_and_a_larger_one_is_refused(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    // Attributes of this event take less than 400 bytes.
    let largest = event("com.acme.large", "largest").data(text(EVENT_BYTES_MAX - 400));
    let beyond = event("com.acme.large", "beyond").data(text(EVENT_BYTES_MAX));
    let refused = pipeline.try_publish(&beyond).await.expect(413);
    assert!(
        refused.headers["content-type"]
            .to_str()
            .is_ok_and(|t| t == "application/problem+json")
    );
    pipeline.publish(&largest).await;
    let arrival = endpoint.expect_delivered(&largest).await;
    assert_eq!(arrival.data().len(), largest.data.len());
    assert_eq!(endpoint.sink.count(), 1, "what was refused does not arrive");
}

/// A record that fits the topic but not what the router makes of it is a dead letter that refers to
/// its origin, and holds nothing up.
#[tokio::test]
async fn an_event_too_large_to_route_becomes_a_dead_letter() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    // Compression makes it fit the producer's own bound on `events`; `deliveries` has less room.
    let data = format!("\"{}\"", "x".repeat((4 << 20) - 300));
    let large = event("com.acme.large", "large")
        .attribute("anabranchtenant", "acme")
        .data(data);
    pipeline
        .produce_compressed(&large.kafka_headers(), &large.data)
        .await;
    let after = event("com.acme.small", "after");
    pipeline.publish(&after).await;
    endpoint.expect_delivered(&after).await;
    let letters = harness::eventually("a dead letter", harness::DEADLINE, async || {
        let letters = harness::dead_letters(pipeline.brokers(), pipeline.prefix());
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters[0].reason.as_str(), "too_large", "{letters:?}");
    assert_eq!(letters[0].origin.0, pipeline.topic("events"));
    assert_eq!(endpoint.sink.count(), 1);
}

/// Rule 10: read to a cap; the answer's status counts all the same.
async fn endless_answers_are_cut(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let small = pipeline.subscribed(big(60 << 10)).await;
    let at_the_cap = pipeline.subscribed(big(64 << 10)).await;
    let beyond = pipeline.subscribed(big(16 << 20)).await;
    let all = [&small, &at_the_cap, &beyond];
    for number in 0..5 {
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    for endpoint in all {
        let arrivals = endpoint.sink.expect_requests(5).await;
        assert_eq!(arrivals.len(), 5, "each is delivered at once");
    }
    let delivered = r#"anabranch_dispatch_attempts_total{outcome="delivered""#;
    harness::eventually("15 delivered", harness::DEADLINE, async || {
        (pipeline.metric(delivered).await >= 15.0).then_some(())
    })
    .await;
}

/// A batch is judged event by event.
#[tokio::test]
async fn one_event_too_large_does_not_spoil_its_batch() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let large = event("com.acme.a", "large").data(format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX)));
    let batch = [
        event("com.acme.a", "first"),
        large,
        event("com.acme.a", "last"),
    ];
    let body: Vec<String> = batch.iter().map(harness::Event::structured).collect();
    let headers = [(
        "content-type".to_owned(),
        "application/cloudevents-batch+json".to_owned(),
    )];
    let path = pipeline.path("/events");
    let body = format!("[{}]", body.join(","));
    let sent = pipeline
        .ingest()
        .send(reqwest::Method::POST, &path, &headers, body)
        .await;
    let answer = sent.expect("an answer").expect(200).json();
    let results = &answer["results"];
    assert_eq!(results[0]["status"], 202, "{answer}");
    assert_eq!(results[1]["error"]["status"], 413, "{answer}");
    assert_eq!(results[2]["status"], 202, "{answer}");
    endpoint.sink.expect_event("first").await;
    endpoint.sink.expect_event("last").await;
    assert_eq!(endpoint.sink.count(), 2);
}
