//! One event to 100,000 subscriptions, and what the events of other partitions have of it: a
//! router alone.
//!
//! The bar is what is promised: beside it, no other event is older than [`HELD_UP_MS`] when it is
//! routed, in 99 of 100 cases.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::Plan;
use super::routed::{age_ms, example, settled};
use crate::bare::{Arrival, Paced, Watch, milliseconds};
use crate::crowd::{self, Wanted};
use crate::events;
use crate::report::{Report, note, quantile};
use crate::stack::{PARTITIONS, Service, Stack};

/// What other events may be held up for.
const HELD_UP_MS: f64 = 50.0;
const WIDE: &str = "load.wide";
const PER_SECOND: u64 = 1_000;
const SECONDS: u64 = 8;
const WIDE_PER_SECOND: u64 = 2;
/// Wide events have numbers below this, others above: the microseconds from 1970 to 2017.
const WIDE_LESS: i64 = 1_500_000_000_000_000;
const P50: usize = 500;
const P99: usize = 990;

#[derive(Debug, Default)]
struct Rounds {
    last_ms: Vec<f64>,
    before: [Vec<f64>; 2],
    during: [Vec<f64>; 2],
    grown_mib: Vec<f64>,
}

/// A wide event: when it was written, and when its last record arrived.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: i64,
    to_us: i64,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let width = plan.choose(100_000, 20_000);
    let mut stack = Stack::kafka(plan, &[]).await?;
    let wanted = [(WIDE, width), (events::MEASURED, 1)].map(|(event_type, subscriptions)| Wanted {
        event_type: event_type.to_owned(),
        subscriptions,
    });
    let records = crowd::subscribe(&mut stack, &wanted).await?;
    let records = records.first().context("no wide event")?.an_event;
    stack.start(Service::Router).await?;
    let mut rounds = Rounds::default();
    for round in 0..=plan.rounds {
        rounds.one(&stack, round, records).await?;
    }
    let name = |what: &str| format!("1 event to {width}: {what}");
    let figure = |what: &str, unit, values: &[f64]| report.figure(&name(what), unit, values);
    report.print(&figure("last record", "ms", &rounds.last_ms))?;
    let [[before_p50, before_p99], [p50, p99]] = [&rounds.before, &rounds.during];
    report.print(&figure("other events before, p50", "ms", before_p50))?;
    report.print(&figure("other events before, p99", "ms", before_p99))?;
    report.print(&figure("other events during, p50", "ms", p50))?;
    report.print(&figure("other events during, p99", "ms", p99).at_most(HELD_UP_MS))?;
    report.print(&figure("memory grown by", "MiB", &rounds.grown_mib))
}

impl Rounds {
    /// The first round is a warm-up.
    async fn one(&mut self, stack: &Stack, round: usize, records: u64) -> anyhow::Result<()> {
        let before = settled(&quietly(stack).await?);
        let before: Vec<f64> = before.iter().map(age_ms).collect();
        let (memory, _) = stack.memory_mib(Service::Router)?;
        let (arrivals, highest) = widely(stack, records).await?;
        let (wide, others): (Vec<Arrival>, Vec<Arrival>) = arrivals
            .into_iter()
            .partition(|arrival| wide_due(arrival).is_some());
        let spans = spans(&settled(&wide));
        let during: Vec<f64> = settled(&others)
            .iter()
            .filter(|arrival| {
                let due = i64::try_from(arrival.number).unwrap_or(0);
                let mut spans = spans.iter();
                spans.any(|span| (span.from_us..=span.to_us).contains(&due))
            })
            .map(age_ms)
            .collect();
        let last = spans
            .iter()
            .map(|span| milliseconds(span.to_us - span.from_us));
        let last = quantile(&last.collect::<Vec<f64>>(), P50);
        note(format_args!(
            "round {round}: {} wide events, last record after {last:.0} ms; p99 of {} others \
             {:.1} ms, before {:.1} ms",
            spans.len(),
            during.len(),
            quantile(&during, P99),
            quantile(&before, P99),
        ));
        if round == 0 {
            return Ok(());
        }
        self.last_ms.push(last);
        for (all, found) in [(&mut self.before, &before), (&mut self.during, &during)] {
            let [p50, p99] = all;
            p50.push(quantile(found, P50));
            p99.push(quantile(found, P99));
        }
        self.grown_mib.push(highest - memory);
        Ok(())
    }
}

/// The other events: to all partitions but the first, which has the wide ones.
fn others() -> anyhow::Result<Paced> {
    Ok(Paced {
        example: example(events::MEASURED)?,
        per_second: PER_SECOND,
        count: PER_SECOND * SECONDS,
        partitions: 1..i32::try_from(PARTITIONS)?,
        less: 0,
    })
}

fn wide() -> anyhow::Result<Paced> {
    Ok(Paced {
        example: example(WIDE)?,
        per_second: WIDE_PER_SECOND,
        count: WIDE_PER_SECOND * SECONDS,
        partitions: 0..1,
        less: WIDE_LESS,
    })
}

/// The others' arrivals with nothing beside them.
async fn quietly(stack: &Stack) -> anyhow::Result<Vec<Arrival>> {
    let watch = Watch::start(stack.brokers(), &stack.topic("deliveries")).await?;
    let paced = others()?;
    let count = usize::try_from(paced.count)?;
    paced.write(stack.brokers(), &stack.topic("events")).await?;
    watch.wait(count, || Ok(())).await?;
    watch.stop().await
}

/// All arrivals with wide events beside the others, and the router's memory at its highest.
async fn widely(stack: &Stack, records: u64) -> anyhow::Result<(Vec<Arrival>, f64)> {
    let source = stack.topic("events");
    let watch = Watch::start(stack.brokers(), &stack.topic("deliveries")).await?;
    let (others, wide) = (others()?, wide()?);
    let all = usize::try_from(others.count + wide.count * records)?;
    let mut highest = 0.0_f64;
    let look = || {
        highest = highest.max(stack.memory_mib(Service::Router)?.0);
        Ok(())
    };
    let (others, wide, seen) = tokio::join!(
        others.write(stack.brokers(), &source),
        wide.write(stack.brokers(), &source),
        watch.wait(all, look)
    );
    others.and(wide).and(seen)?;
    Ok((watch.stop().await?, highest))
}

/// When each wide event was on its way.
fn spans(arrivals: &[Arrival]) -> Vec<Span> {
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for arrival in arrivals {
        if let Some(due) = wide_due(arrival) {
            let at = last.entry(due).or_insert(arrival.at_us);
            *at = arrival.at_us.max(*at);
        }
    }
    let span = |(from_us, to_us)| Span { from_us, to_us };
    last.into_iter().map(span).collect()
}

/// When the wide event of a record was due; none where it is another's.
fn wide_due(arrival: &Arrival) -> Option<i64> {
    let number = i64::try_from(arrival.number).ok()?;
    (number < WIDE_LESS).then_some(number + WIDE_LESS)
}
