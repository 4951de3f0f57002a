//! One event to 10,000 endpoints, 400 events to 100, and one to 100,000 subscriptions.
//!
//! The bar on bytes is rule 2's: the payload once per 1,000 targets of a partition, and 40 bytes a
//! target.

use std::time::Duration;

use anyhow::Context as _;
use schemas::records::MAX_TARGETS;
use schemas::resources::{Placement, Quota};

use super::Plan;
use super::publish::post;
use crate::bare::{self, milliseconds};
use crate::events::{self, BATCH};
use crate::pace::{rate, wall_us};
use crate::report::{Report, note};
use crate::sink::Sink;
use crate::stack::{Hook, PARTITIONS, Service, Stack};

const SERVICES: [Service; 3] = [Service::Ingest, Service::Router, Service::Dispatcher];
const TARGET_BYTES: u64 = 40;
const RECORD_BYTES: u64 = 64;
const BATCH_EVENTS: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or a delivery does not arrive.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    wide(plan, report).await?;
    many(plan, report).await?;
    super::wide::run(plan, report).await
}

async fn wide(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let endpoints = plan.choose(10_000, 1_000);
    let stack = Stack::kafka(plan, &SERVICES).await?;
    let mut sink = Sink::start(stack.dir(), false).await?;
    let hooks = stack.hooks(&urls(&sink, endpoints)).await?;
    note(format_args!("{endpoints} endpoints are there"));
    let mut spans = Vec::new();
    for round in 1..=plan.rounds {
        sink.reset().await?;
        let start = publish(&stack, u64::try_from(round)?, 1).await?;
        let counts = sink.expect(endpoints, PATIENCE).await?;
        let span = milliseconds(counts.last_us - start);
        note(format_args!("round {round}: {span:.0} ms"));
        spans.push(span);
    }
    let rounds = u64::try_from(plan.rounds)?;
    let (records, bar) = expected(&hooks, data_bytes()?)?;
    let deliveries = stack.topic("deliveries");
    let content = bare::read(stack.brokers(), &deliveries, records * rounds).await?;
    let each = u32::try_from(content.bytes / rounds)?;
    let name = format!("1 event to {endpoints}: values on deliveries");
    let figure = report.figure(&name, "bytes", &[f64::from(each)]);
    report.print(&figure.at_most(f64::from(u32::try_from(bar)?)))?;
    let name = format!("1 event to {endpoints}: last arrival");
    report.print(&report.figure(&name, "ms", &spans))
}

async fn many(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let (count, endpoints) = (400, 100);
    let stack = Stack::kafka(plan, &SERVICES).await?;
    let mut sink = Sink::start(stack.dir(), false).await?;
    stack.hooks(&urls(&sink, endpoints)).await?;
    let mut rates = Vec::new();
    for round in 1..=plan.rounds {
        sink.reset().await?;
        let start = publish(&stack, u64::try_from(round)? * count, count).await?;
        let counts = sink.expect(count * endpoints, PATIENCE).await?;
        let found = rate(count * endpoints, counts.last_us - start);
        note(format_args!("round {round}: {found:.0} deliveries/s"));
        rates.push(found);
    }
    let name = format!("{count} events to {endpoints}: deliveries");
    report.print(&report.figure(&name, "1/s", &rates))
}

fn urls(sink: &Sink, endpoints: u64) -> Vec<String> {
    let base = sink.url();
    (0..endpoints)
        .map(|number| format!("{base}/{number}"))
        .collect()
}

/// Publishes events `from..from + count`; returns when it began, by the wall clock.
async fn publish(stack: &Stack, from: u64, count: u64) -> anyhow::Result<i64> {
    let step = BATCH_EVENTS.min(count);
    let starts = (from..from + count).step_by(usize::try_from(step)?);
    let bodies: Vec<_> = starts.map(|from| events::batch(from, step)).collect();
    let mut publisher = stack.publisher().await?;
    let start = wall_us();
    for body in bodies {
        post(&mut publisher, BATCH, body).await?;
    }
    Ok(start)
}

fn data_bytes() -> anyhow::Result<u64> {
    let event = events::accepted(1, "2026-01-01T00:00:00.000Z")?;
    Ok(u64::try_from(event.data().map_or(0, bytes::Bytes::len))?)
}

/// How many records one event makes, and the most bytes that their values may have.
fn expected(hooks: &[Hook], payload: u64) -> anyhow::Result<(u64, u64)> {
    let partitions = PARTITIONS.try_into()?;
    let mut targets = vec![0_usize; usize::try_from(PARTITIONS)?];
    for hook in hooks {
        let placement = Placement::of(&Quota::of_endpoint(hook.endpoint.parse()?), partitions);
        let place = targets.get_mut(usize::try_from(placement.partition())?);
        *place.context("a placement")? += 1;
    }
    let records = targets.iter().map(|count| count.div_ceil(MAX_TARGETS));
    let records = u64::try_from(records.sum::<usize>())?;
    let count = u64::try_from(hooks.len())?;
    let bytes = payload * records + TARGET_BYTES * count + RECORD_BYTES * records;
    Ok((records, bytes))
}
