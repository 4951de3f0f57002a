//! Outages of the log that last: who led before leads again, in the same process.

use std::time::Duration;

use harness::{Broker, Log, Pipeline, eventually};
use reqwest::Method;

use crate::pipeline;

/// Longer than a session, and than a replica waits for a leader that has died.
const OUTAGE: Duration = Duration::from_secs(30);
const BACK: Duration = Duration::from_secs(120);

#[tokio::test]
async fn control_writes_again_after_kafka_was_away_for_longer_than_a_session() {
    let broker = Broker::own();
    let log = Log::Brokers(broker.brokers().to_owned());
    let mut pipeline = pipeline().on(log).heavy().start().await;
    broker.stop();
    // Nobody may lead meanwhile: a session is over, and what is asked for is refused.
    let refused = async || (make(&pipeline, "early").await == Some(503)).then_some(());
    eventually("a change is refused", BACK, refused).await;
    tokio::time::sleep(OUTAGE).await;
    broker.start();
    // A repeat of one of which nobody knew what became is answered with 200.
    let made = async || matches!(make(&pipeline, "late").await, Some(200 | 201)).then_some(());
    eventually("a change is made", BACK, made).await;
    pipeline.ready("control").await;
    pipeline.expect_all_alive();
}

/// Asks for a tenant; `None` where nothing is answered.
async fn make(pipeline: &Pipeline, id: &str) -> Option<u16> {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let body = format!(r#"{{"id":"{id}"}}"#);
    let control = pipeline.control().with_key(pipeline.operator_key());
    let sent = control.send(Method::POST, "/v1/tenants", &headers, body);
    sent.await.ok().map(|answer| answer.status)
}
