//! Deliveries a second in requests of 50 and of one: the same endpoint, format and full topic.
//!
//! The rate is that between the first and the last arrival, by the endpoint's clock. The surprise:
//! the endpoint counts events, not requests, so a delivery that is missing from a batch is missed.

use std::time::Duration;

use serde_json::json;

use super::Plan;
use super::dispatcher::fill;
use crate::pace::rate;
use crate::report::{Report, median, note};
use crate::sink::Sink;
use crate::stack::{Hook, Service, Stack};

/// How many events a request holds at most.
const SIZES: [u32; 2] = [1, 50];
const DEFERRED: &str = "anabranch_dispatch_deferred_total";
/// What was deferred on the way, on a machine that is too slow, comes after its tier.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where it all runs.
#[derive(Debug)]
struct Ground {
    stack: Stack,
    sink: Sink,
    hook: Hook,
    written: u64,
}

#[derive(Debug, Default)]
struct Rounds {
    items: Vec<f64>,
    requests: Vec<f64>,
    cpu_us: Vec<f64>,
    deferred: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or an event is missing.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.choose(300_000, 100_000);
    let stack = Stack::kafka(plan, &[]).await?;
    let sink = Sink::start(stack.dir(), false).await?;
    let mut ground = Ground {
        hook: stack.hook(sink.url()).await?,
        stack,
        sink,
        written: 0,
    };
    let (mut ones, mut batches) = (Rounds::default(), Rounds::default());
    for round in 1..=plan.rounds {
        for (size, rounds) in SIZES.into_iter().zip([&mut ones, &mut batches]) {
            ground.deliver(size, count, rounds).await?;
            let last = rounds.items.last().copied().unwrap_or_default();
            note(format_args!("round {round}, {size} a request: {last:.0}/s"));
        }
    }
    let alone = report.figure("deliveries in requests of one", "1/s", &ones.items);
    report.print(&alone)?;
    let together = report.figure("deliveries in requests of 50", "1/s", &batches.items);
    report.print(&together.of(median(&ones.items)))?;
    report.print(&report.figure("deliveries a request of 50", "", &batches.requests))?;
    report.print(&report.figure("processor time alone", "us", &ones.cpu_us))?;
    report.print(&report.figure("processor time together", "us", &batches.cpu_us))?;
    let deferred = [ones.deferred, batches.deferred].concat();
    report.print(&report.figure("deferred on the way", "deliveries", &deferred))
}

impl Ground {
    /// Delivers `count` events in requests of at most `size`, by a dispatcher started for it.
    async fn deliver(&mut self, size: u32, count: u64, rounds: &mut Rounds) -> anyhow::Result<()> {
        let patch = json!({ "batch": { "max_items": size } });
        self.stack
            .patch(std::slice::from_ref(&self.hook), &patch)
            .await?;
        fill(&self.stack, &self.hook, self.written, count).await?;
        self.written += count;
        self.sink.reset().await?;
        self.stack.start(Service::Dispatcher).await?;
        let counts = self.sink.expect(count, PATIENCE).await?;
        let cpu = self.stack.cpu_seconds(Service::Dispatcher)?;
        let deferred = self.stack.metric(Service::Dispatcher, DEFERRED).await?;
        self.stack.stop(Service::Dispatcher).await?;
        let events = f64::from(u32::try_from(count)?);
        let requests = f64::from(u32::try_from(counts.requests)?);
        rounds
            .items
            .push(rate(count, counts.last_us - counts.first_us));
        rounds.requests.push(events / requests);
        rounds.cpu_us.push(cpu * 1e6 / events);
        rounds.deferred.push(deferred);
        Ok(())
    }
}
