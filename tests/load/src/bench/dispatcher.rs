//! Deliveries a second: a full topic, one endpoint, signed, attempts on, positions committed; and
//! the same to a thousand endpoints.
//!
//! The dispatcher's rate is that between the first and the last arrival, by the endpoint's clock.

use std::ops::Range;
use std::slice;
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
use crate::traffic::wishes;
use crate::wrk;

const BAR: f64 = 0.35;
const MANY: usize = 1_000;
/// Of what one endpoint gets.
const MANY_BAR: f64 = 0.8;
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
    many: Vec<f64>,
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
    let many = stack.hooks_as(&wishes("many", &sink.url(), MANY)).await?;
    let mut rounds = Rounds::default();
    for round in 0..plan.rounds {
        let from = u64::try_from(round)? * 2 * count;
        fill(&stack, &hook, from, count).await?;
        deliver(&mut stack, &mut sink, count, &mut rounds).await?;
        let events = from + count..from + 2 * count;
        write(&stack, &many, events, Pace::default()).await?;
        rounds
            .many
            .push(delivered(&mut stack, &mut sink, count).await?);
        stack.stop(Service::Dispatcher).await?;
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
    let figure = report.figure("kafka deliveries, 1,000 endpoints", "1/s", &rounds.many);
    report.print(&figure.of(median(&rounds.dispatcher)).at_least(MANY_BAR))?;
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
    let rate = delivered(stack, sink, count).await?;
    let counts = sink.expect(count, PATIENCE).await?;
    let (_, highest) = stack.memory_mib(Service::Dispatcher)?;
    let cpu = stack.cpu_seconds(Service::Dispatcher)?;
    let deferred = stack.metric(Service::Dispatcher, DEFERRED).await?;
    stack.stop(Service::Dispatcher).await?;
    rounds.dispatcher.push(rate);
    rounds.memory.push(highest);
    rounds
        .cpu_us
        .push(cpu * 1e6 / f64::from(u32::try_from(count)?));
    rounds.deferred.push(deferred);
    let repeats = u32::try_from(counts.requests - counts.unique)?;
    rounds.repeats.push(f64::from(repeats));
    Ok(())
}

/// Deliveries a second of a dispatcher that is started for them.
async fn delivered(stack: &mut Stack, sink: &mut Sink, count: u64) -> anyhow::Result<f64> {
    sink.reset().await?;
    stack.start(Service::Dispatcher).await?;
    let counts = sink.expect(count, PATIENCE).await?;
    Ok(rate(count, counts.last_us - counts.first_us))
}

/// How deliveries are written: as fast as the broker takes them, and as young as can be.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    per_second: Option<u64>,
    age_ms: i64,
}

/// Writes deliveries of events `from..from + count` to `hook`, as a router writes them, as fast as
/// the broker takes them.
///
/// # Errors
/// Where the broker does not take them.
pub(super) async fn fill(stack: &Stack, hook: &Hook, from: u64, count: u64) -> anyhow::Result<()> {
    write(
        stack,
        slice::from_ref(hook),
        from..from + count,
        Pace::default(),
    )
    .await
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
    let pace = Pace {
        age_ms,
        ..Pace::default()
    };
    write(stack, slice::from_ref(hook), 0..count, pace).await
}

/// The same at a steady rate.
///
/// # Errors
/// Where the broker does not take them.
pub(super) async fn fill_at(
    stack: &Stack,
    hook: &Hook,
    events: Range<u64>,
    per_second: u64,
) -> anyhow::Result<()> {
    let pace = Pace {
        per_second: Some(per_second),
        ..Pace::default()
    };
    write(stack, slice::from_ref(hook), events, pace).await
}

/// One delivery an event, to the hooks in turn.
async fn write(
    stack: &Stack,
    hooks: &[Hook],
    events: Range<u64>,
    pace: Pace,
) -> anyhow::Result<()> {
    let places: Vec<(Target, i32)> = hooks.iter().map(place).collect::<anyhow::Result<_>>()?;
    let source: std::sync::Arc<str> = stack.topic("events").into();
    let (start, first) = (Instant::now(), events.start);
    let records = events.map(move |number| {
        if let Some(per_second) = pace.per_second {
            crate::pace::keep(start, number - first, per_second);
        }
        let turn = usize::try_from(number)? % places.len().max(1);
        let (target, partition) = places.get(turn).context("nobody to deliver to")?;
        let position = i64::try_from(number / POSITION_STEP * POSITION_STEP)?;
        let record = DeliveryRecord {
            origin: Origin {
                topic: source.clone(),
                partition: 0,
                offset: i64::try_from(number)?,
                index: 0,
            },
            router_position: Some(position),
            accepted_at: crate::pace::wall_us() / 1_000 - pace.age_ms,
            control_offset: 0,
            event: events::accepted(number, ACCEPTED)?,
            targets: vec![target.clone()],
        };
        let value = record.value_for(&record.targets);
        Ok(Record {
            partition: Some(*partition),
            ..Record::new(&record.headers(), value)
        })
    });
    bare::write(stack.brokers(), &stack.topic("deliveries"), records)
        .await
        .context("filling `deliveries`")
}

/// A hook as a target, and the partition that it is placed in.
fn place(hook: &Hook) -> anyhow::Result<(Target, i32)> {
    let endpoint = hook.endpoint.parse()?;
    let placement = Placement::of(&Quota::of_endpoint(endpoint), PARTITIONS.try_into()?);
    let target = Target::new(hook.subscription.parse()?, endpoint);
    Ok((target, i32::try_from(placement.partition())?))
}

/// Any time will do: age is reckoned from the record.
const ACCEPTED: &str = "2026-01-01T00:00:00.000Z";
