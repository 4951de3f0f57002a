//! Milliseconds to other endpoints while a sync runs, beside the same traffic without it.
//!
//! The sync runs for as long as events are published; one that ends before is an error, since the
//! rest would be measured alone. The surprise: both rounds have the same processes.

use anyhow::ensure;

use super::super::Plan;
use super::{Ground, profile};
use crate::members::Members;
use crate::report::{Report, median, note, quantile};
use crate::sink::Sink;
use crate::stack::Service;
use crate::traffic::{Traffic, event_type, wishes};

const ENDPOINTS: usize = 100;
const PER_SECOND: u64 = 500;
/// What the partner takes: enough for the sync to outlast the events.
const WINDOW: (u32, u32) = (1_000, 1);
const ITEMS: u32 = 50;
const P99: usize = 990;
const RATIO: f64 = 1.2;

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or an event is missing.
pub(in crate::bench) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let seconds = plan.choose(120, 20);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        for (syncs, found) in [(false, &mut without), (true, &mut with)] {
            let took = measure(plan, syncs, seconds).await?;
            let p99 = quantile(&took, P99);
            note(format_args!("round {round}, sync {syncs}: p99 {p99:.2} ms"));
            found.push(p99);
        }
    }
    let with = report.figure("p99 beside a sync against without", "ms", &with);
    report.print(&with.of(median(&without)).at_most(RATIO))
}

async fn measure(plan: &Plan, syncs: bool, seconds: u64) -> anyhow::Result<Vec<f64>> {
    let profile = profile(ITEMS, 16, Some(WINDOW))?;
    let services = [Service::Ingest, Service::Router];
    let mut ground = Ground::new(plan, &profile, &[], &services).await?;
    let mut sink = Sink::start(ground.stack.dir(), true).await?;
    ground
        .stack
        .hooks_as(&wishes("beside", &sink.url(), ENDPOINTS))
        .await?;
    let types = (0..ENDPOINTS).map(|number| event_type("beside", number));
    let traffic = Traffic::new(types.collect(), ENDPOINTS, PER_SECOND);
    if !syncs {
        let sent = traffic.publish(&ground.stack, seconds).await?;
        return sent.latencies(&mut sink).await;
    }
    // A tenth more than the partner takes in that time.
    let (requests, per) = WINDOW;
    let rate = u64::from(requests) * u64::from(ITEMS) / u64::from(per);
    let members = Members {
        count: rate * seconds * 11 / 10,
        is_changed: false,
    };
    let file = ground.stack.dir().join("members.ndjson");
    members.write(&file)?;
    let snapshot = ground.upload(&file).await?;
    ground.start_run().await?;
    let sent = traffic.publish(&ground.stack, seconds).await?;
    let held = ground.partner.held().await?.count;
    ensure!(held > 0, "the sync has not begun");
    ensure!(held < members.count, "the sync ended before the events");
    let found = sent.latencies(&mut sink).await?;
    ground.finish(&snapshot).await?;
    let held = ground.partner.held().await?;
    ensure!(held == members.held(), "the partner holds {held:?}");
    Ok(found)
}
