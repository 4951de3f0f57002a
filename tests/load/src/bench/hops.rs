//! Deliveries a second that a dispatcher defers through a delay topic in transactions (rule 6),
//! beside those that it delivers and commits plainly.
//!
//! The endpoint is paused, so everything is deferred at once; the rate is that of the broker's times
//! of the first and the last record on the delay topic.

use std::time::Duration;

use super::Plan;
use super::dispatcher::{fill, fill_aged};
use crate::bare;
use crate::pace::rate;
use crate::report::{Report, median, note};
use crate::sink::Sink;
use crate::stack::{Service, Stack};

/// Where the dispatcher keeps what a paused endpoint cannot take, when it is of this age. What is
/// younger waits a shorter time first, and would come through the topic in two waves.
const TOPIC: &str = "delay.2m";
const AGE_MS: i64 = 90_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.choose(300_000, 100_000);
    let (mut deferred, mut delivered) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let hop = defer(plan, count).await?;
        let plain = deliver(plan, count).await?;
        note(format_args!(
            "round {round}: deferred {hop:.0}/s, delivered {plain:.0}/s"
        ));
        deferred.push(hop);
        delivered.push(plain);
    }
    let figure = report.figure("kafka deferred in transactions", "1/s", &deferred);
    report.print(&figure.of(median(&delivered)))?;
    report.print(&report.figure("kafka delivered, plain commits", "1/s", &delivered))
}

/// Each round has an installation of its own: what was deferred comes due again.
async fn defer(plan: &Plan, count: u64) -> anyhow::Result<f64> {
    let mut stack = Stack::kafka(plan, &[]).await?;
    // Nothing is sent there, so nothing needs to listen.
    let hook = stack.hook("http://127.0.0.1:9/hook".to_owned()).await?;
    stack.pause(&hook).await?;
    fill_aged(&stack, &hook, count, AGE_MS).await?;
    stack.start(Service::Dispatcher).await?;
    let content = bare::read(stack.brokers(), &stack.topic(TOPIC), count).await?;
    Ok(rate(count, (content.last_ms - content.first_ms) * 1_000))
}

async fn deliver(plan: &Plan, count: u64) -> anyhow::Result<f64> {
    let mut stack = Stack::kafka(plan, &[]).await?;
    let mut sink = Sink::start(stack.dir(), false).await?;
    let hook = stack.hook(sink.url()).await?;
    fill(&stack, &hook, 0, count).await?;
    stack.start(Service::Dispatcher).await?;
    let counts = sink.expect(count, PATIENCE).await?;
    Ok(rate(count, counts.last_us - counts.first_us))
}
