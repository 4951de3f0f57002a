//! What endpoints do, and what comes of it: retries, holds, dead letters.

use std::time::Duration;

use harness::{
    Log, Pipeline, always, event, eventually, fails, hangs, never, ok, redirects, throttles,
};
use serde_json::json;

use crate::{on_both_logs, pipeline, pipeline_on};

on_both_logs!(
    a_failing_endpoint_gets_the_same_delivery_until_it_takes_it,
    a_gone_endpoint_is_not_attempted_again,
    a_refusal_is_final,
    a_hanging_endpoint_delays_nobody_else,
    retry_after_holds_the_endpoint,
    a_redirect_is_not_followed,
);

/// Rule 4: the id stays; each attempt is signed anew.
async fn a_failing_endpoint_gets_the_same_delivery_until_it_takes_it(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(fails(3)).await;
    let event = event("com.acme.a", 1);
    pipeline.publish(&event).await;
    let last = endpoint.expect_delivered_after(&event, 4).await;
    for arrival in endpoint.sink.arrivals() {
        assert_eq!((&arrival.id, &arrival.body), (&last.id, &last.body));
        assert!(arrival.is_signed_by(&endpoint.secret));
    }
    assert_eq!(pipeline.metric(ATTEMPTS_RETRY).await, 3.0);
}

const ATTEMPTS_RETRY: &str = r#"anabranch_dispatch_attempts_total{outcome="retry""#;

/// WH-12.
async fn a_gone_endpoint_is_not_attempted_again(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.endpoint(always(410)).await;
    // Not to everything: the event that says so would follow the first into `dead`.
    pipeline.subscription(&endpoint, &["com.acme.a"]).await;
    pipeline.publish(&event("com.acme.a", 1)).await;
    expect_dead(&pipeline, "endpoint_gone", 1).await;
    assert_eq!(endpoint.sink.count(), 1);
}

async fn a_refusal_is_final(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(always(422)).await;
    pipeline.publish(&event("com.acme.a", 1)).await;
    expect_dead(&pipeline, "rejected", 1).await;
    assert_eq!(endpoint.sink.count(), 1);
}

/// Rule 7, as far as time-outs go.
async fn a_hanging_endpoint_delays_nobody_else(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let members = json!({ "timeout_ms": 20_000 });
    let hanging = pipeline.endpoint_with(hangs(), members).await;
    pipeline.subscription(&hanging, &[]).await;
    let healthy = pipeline.subscribed(ok()).await;
    for number in 0..20 {
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    let arrivals = healthy.sink.expect_requests(20).await;
    let first = hanging.sink.expect_requests(1).await[0].at;
    let last = arrivals
        .iter()
        .map(|arrival| arrival.at)
        .max()
        .expect("arrivals");
    assert!(
        last - first < 15_000,
        "the healthy one waited: {} ms",
        last - first
    );
    // It is asked again once it answers.
    hanging.sink.behave(ok());
    hanging.sink.expect_event("0").await;
}

/// Rule 11: later of schedule and header, for the whole endpoint.
async fn retry_after_holds_the_endpoint(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let members = json!({ "concurrency": 1 });
    let endpoint = pipeline.endpoint_with(throttles(1, 3), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    for number in 0..3 {
        pipeline.publish(&event("com.acme.a", number)).await;
    }
    let arrivals = endpoint.sink.expect_requests(4).await;
    assert_eq!(arrivals[0].status, 429);
    for later in &arrivals[1..] {
        let wait = later.at - arrivals[0].at;
        assert!(
            wait >= 2_990,
            "attempted {wait} ms after a Retry-After of 3 s"
        );
        assert_eq!(later.status, 200);
    }
}

/// WH-11: a failed attempt with reason `redirect`; the place that it names hears nothing.
async fn a_redirect_is_not_followed(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let elsewhere = harness::Sink::start(ok());
    let endpoint = pipeline.subscribed(redirects(&elsewhere.url())).await;
    let event = event("com.acme.a", 1);
    pipeline.publish(&event).await;
    endpoint.sink.expect_requests(2).await;
    endpoint.sink.behave(ok());
    endpoint.expect_delivered(&event).await;
    assert_eq!(elsewhere.count(), 0);
}

/// SS-1 to SS-4: control may admit what a dispatcher must not connect to.
#[tokio::test]
async fn a_forbidden_address_is_never_connected_to() {
    let pipeline = pipeline().without_loopback().start().await;
    let members = json!({ "retry_schedule_ms": [100, 100] });
    let endpoint = pipeline.endpoint_with(ok(), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    pipeline.publish(&event("com.acme.a", 1)).await;
    expect_dead(&pipeline, "attempts_exhausted", 1).await;
    let attempts = eventually("three attempts recorded", harness::DEADLINE, async || {
        let attempts = harness::attempts(pipeline.brokers(), pipeline.prefix());
        (attempts.len() >= 3).then_some(attempts)
    })
    .await;
    for attempt in attempts {
        assert_eq!(attempt.reason.as_deref(), Some("address"), "{attempt:?}");
    }
    assert_eq!(endpoint.sink.count(), 0);
    let letters = harness::dead_letters(pipeline.brokers(), pipeline.prefix());
    assert_eq!(letters.len(), 1);
    let last = letters[0].last_attempt.as_ref().expect("a last attempt");
    assert_eq!(last.reason, "address");
}

/// Rule 7: what waits long is in a delay topic, and the partition moves on.
#[tokio::test]
async fn a_long_wait_goes_through_a_delay_topic() {
    let pipeline = pipeline_on(Log::Kafka).start().await;
    let members = json!({ "retry_schedule_ms": [7_000, 1_000] });
    let endpoint = pipeline.endpoint_with(fails(1), members).await;
    pipeline.subscription(&endpoint, &[]).await;
    let event = event("com.acme.a", 1);
    pipeline.publish(&event).await;
    let first = endpoint.sink.expect_requests(1).await[0].at;
    let second = endpoint.expect_delivered_after(&event, 2).await.at;
    // Jitter takes a fifth at most; the tier is never left early.
    assert!(
        (5_500..20_000).contains(&(second - first)),
        "{} ms",
        second - first
    );
    let stored = harness::read(pipeline.brokers(), &pipeline.topic("delay.5s"));
    assert_eq!(stored.len(), 1, "one hop");
    assert!(
        pipeline
            .metric("anabranch_dispatch_transactions_total{result=\"committed\"")
            .await
            > 0.0
    );
}

/// Waits until so many deliveries are dead for this reason and watches that no more follow.
async fn expect_dead(pipeline: &Pipeline, reason: &str, count: u32) {
    let metric = format!("anabranch_dead_letters_total{{reason=\"{reason}\"");
    let expected = f64::from(count);
    eventually(
        &format!("{count} dead for {reason}"),
        harness::DEADLINE,
        async || (pipeline.metric(&metric).await >= expected).then_some(()),
    )
    .await;
    never(
        "more dead letters",
        Duration::from_millis(500),
        async || pipeline.metric("anabranch_dead_letters_total").await > expected,
    )
    .await;
}
