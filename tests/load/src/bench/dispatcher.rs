//! Deliveries a second: a full topic, one endpoint, signed, attempts on, positions committed.
//!
//! The dispatcher's rate is that between the first and the last arrival, by the endpoint's clock.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use schemas::records::{DeliveryRecord, Origin, Target};
use schemas::resources::{Placement, Quota};
use tokio::time::Instant;

use super::Plan;
use crate::bare::{self, Record};
use crate::events;
use crate::pace::rate;
use crate::report::{Report, median, note};
use crate::sink::Sink;
use crate::stack::{Hook, PARTITIONS, Service, Stack};
use crate::wrk;

const BAR: f64 = 0.25;
const DEFERRED: &str = "anabranch_dispatch_deferred_total";
const CONNECTIONS: u32 = 64;
const WRK_SECONDS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(20);
/// What a router commits in 250 ms at its usual rate: positions in records move in such steps.
const POSITION_STEP: u64 = 5_000;

#[derive(Debug, Default)]
struct Rounds {
    dispatcher: Vec<f64>,
    wrk: Vec<f64>,
    repeats: Vec<f64>,
    memory: Vec<f64>,
    cpu_us: Vec<f64>,
    deferred: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.choose(300_000, 100_000);
    let mut stack = Stack::kafka(plan, &[]).await?;
    let mut sink = Sink::start(stack.dir(), false).await?;
    let hook = stack.hook(sink.url()).await?;
    let mut rounds = Rounds::default();
    for round in 0..plan.rounds {
        let from = u64::try_from(round)? * count;
        fill(&stack, &hook, from, count).await?;
        deliver(&mut stack, &mut sink, count, &mut rounds).await?;
        let example = sink.first().await?;
        let (url, dir) = (sink.url(), stack.dir());
        let limit = wrk::post(&example, (&url, dir), CONNECTIONS, WRK_SECONDS).await?;
        rounds.wrk.push(limit);
        let last = rounds.dispatcher.last().copied().unwrap_or_default();
        note(format_args!(
            "round {}: dispatcher {last:.0}/s, wrk {limit:.0}/s",
            round + 1
        ));
    }
    let figure = report.figure("kafka deliveries", "1/s", &rounds.dispatcher);
    report.print(&figure.of(median(&rounds.wrk)).at_least(BAR))?;
    report.print(&report.figure("memory highest", "MiB", &rounds.memory))?;
    report.print(&report.figure("processor time a delivery", "us", &rounds.cpu_us))?;
    report.print(&report.figure("deferred on the way", "deliveries", &rounds.deferred))?;
    report.print(&report.figure("sent more than once", "deliveries", &rounds.repeats))
}

/// Delivers what was filled in, by a dispatcher started for it.
async fn deliver(
    stack: &mut Stack,
    sink: &mut Sink,
    count: u64,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    sink.reset().await?;
    stack.start(Service::Dispatcher).await?;
    let counts = sink.expect(count, PATIENCE).await?;
    let (_, highest) = stack.memory_mib(Service::Dispatcher)?;
    let cpu = stack.cpu_seconds(Service::Dispatcher)?;
    let deferred = stack.metric(Service::Dispatcher, DEFERRED).await?;
    stack.stop(Service::Dispatcher).await?;
    rounds
        .dispatcher
        .push(rate(count, counts.last_us - counts.first_us));
    rounds.memory.push(highest);
    rounds
        .cpu_us
        .push(cpu * 1e6 / f64::from(u32::try_from(count)?));
    rounds.deferred.push(deferred);
    let repeats = u32::try_from(counts.requests - counts.unique)?;
    rounds.repeats.push(f64::from(repeats));
    Ok(())
}

/// Writes deliveries of events `from..from + count` to `hook`, as a router writes them, as fast as
/// the broker takes them.
///
/// # Errors
/// Where the broker does not take them.
pub(super) async fn fill(stack: &Stack, hook: &Hook, from: u64, count: u64) -> anyhow::Result<()> {
    fill_at(stack, hook, from..from + count, None).await
}

/// The same with events that were accepted `age_ms` ago.
///
/// # Errors
/// Where the broker does not take them.
pub(super) async fn fill_aged(
    stack: &Stack,
    hook: &Hook,
    count: u64,
    age_ms: i64,
) -> anyhow::Result<()> {
    write(stack, hook, 0..count, None, age_ms).await
}

/// The same at a steady rate, where one is given.
///
/// # Errors
/// Where the broker does not take them.
pub(super) async fn fill_at(
    stack: &Stack,
    hook: &Hook,
    events: Range<u64>,
    per_second: Option<u64>,
) -> anyhow::Result<()> {
    write(stack, hook, events, per_second, 0).await
}

async fn write(
    stack: &Stack,
    hook: &Hook,
    events: Range<u64>,
    per_second: Option<u64>,
    age_ms: i64,
) -> anyhow::Result<()> {
    let endpoint = hook.endpoint.parse()?;
    let target = Target::new(hook.subscription.parse()?, endpoint);
    let partitions = PARTITIONS.try_into()?;
    let placement = Placement::of(&Quota::of_endpoint(endpoint), partitions);
    let partition = i32::try_from(placement.partition())?;
    let source: std::sync::Arc<str> = stack.topic("events").into();
    let (start, first) = (Instant::now(), events.start);
    let records = events.map(move |number| {
        if let Some(per_second) = per_second {
            crate::pace::keep(start, number - first, per_second);
        }
        let position = i64::try_from(number / POSITION_STEP * POSITION_STEP)?;
        let record = DeliveryRecord {
            origin: Origin {
                topic: source.clone(),
                partition: 0,
                offset: i64::try_from(number)?,
                index: 0,
            },
            router_position: Some(position),
            accepted_at: crate::pace::wall_us() / 1_000 - age_ms,
            control_offset: 0,
            event: events::accepted(number, ACCEPTED)?,
            targets: vec![target.clone()],
        };
        let value = record.value_for(&record.targets);
        Ok(Record {
            partition: Some(partition),
            ..Record::new(&record.headers(), value)
        })
    });
    bare::write(stack.brokers(), &stack.topic("deliveries"), records)
        .await
        .context("filling `deliveries`")
}

/// Any time will do: age is reckoned from the record.
const ACCEPTED: &str = "2026-01-01T00:00:00.000Z";
