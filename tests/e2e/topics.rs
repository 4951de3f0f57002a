//! Topics made beside services that run.

use std::path::Path;
use std::process::Command;

use harness::{Bystander, Log, event, ok};

use crate::pipeline_on;

const BINARY: &str = env!("CARGO_BIN_EXE_anabranch");

/// Rule 16: a topic whose first positions nobody could commit is read from its first record, and is
/// no incident.
#[tokio::test]
async fn a_topic_made_beside_live_routers_is_read_from_its_first_record() {
    let mut pipeline = pipeline_on(Log::Kafka).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let before = event("com.acme.before", "before");
    pipeline.publish(&before).await;
    endpoint.expect_delivered(&before).await;
    // As an installation from before there was `events.bulk`, whose routers run.
    pipeline.process("router-1").kill();
    let (brokers, bulk) = (pipeline.brokers().to_owned(), pipeline.topic("events.bulk"));
    harness::delete_topic(&brokers, &bulk).await;
    let member = Bystander::join(
        &brokers,
        &pipeline.topic("router"),
        &pipeline.topic("events"),
    );
    let output = Command::new(BINARY)
        .args(["topics", "create", "--brokers", &brokers])
        .args(["--set", &format!("topics.prefix={}", pipeline.prefix())])
        .args(["--set", "topics.partitions=6"])
        .current_dir(Path::new(pipeline.data_dir()))
        .output()
        .expect("the binary");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("created {bulk}")), "{said}");
    assert!(said.contains("has members"), "{said}");
    // Somebody writes there before any router knows of it.
    let early = event("com.acme.bulk", "early").attribute("anabranchtenant", "acme");
    let headers = early.kafka_headers();
    pipeline.produce_to(&bulk, &headers, &early.data).await;
    drop(member);
    pipeline.revive("router-1").await;
    endpoint.expect_delivered(&early).await;
    let incidents = pipeline.metric("anabranch_router_incidents_total").await;
    assert!(incidents < 0.5, "{incidents} incidents");
    assert!(harness::dead_letters(&brokers, pipeline.prefix()).is_empty());
}
