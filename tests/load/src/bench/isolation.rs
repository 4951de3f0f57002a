//! Milliseconds to healthy endpoints while a tenth as many hang and a tenth refuse, beside the same
//! traffic without those.
//!
//! Reckoned from the first event on: what a dispatcher learns of the sick ones, it learns while it is
//! measured. The surprise: with them and without, the healthy get the same number of events.

use anyhow::ensure;
use schemas::resources::{Placement, Quota};

use super::Plan;
use crate::child::free_address;
use crate::report::{Report, median, note, quantile};
use crate::sink::Sink;
use crate::stack::{Hook, PARTITIONS, Service, Stack};
use crate::traffic::{Traffic, event_type, wishes};

const SERVICES: [Service; 3] = [Service::Ingest, Service::Router, Service::Dispatcher];
const HEALTHY: usize = 1_000;
const SICK: usize = 100;
/// To all endpoints together, sick ones included.
const PER_SECOND: u64 = 2_000;
const P50: usize = 500;
const P99: usize = 990;
const RATIO: f64 = 1.2;
const P99_MS: f64 = 50.0;

#[derive(Debug, Default)]
struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or a healthy endpoint misses an event.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let seconds = plan.choose(300, 40);
    let (mut without, mut with) = (Rounds::default(), Rounds::default());
    for round in 1..=plan.rounds {
        for (sick, rounds) in [(0, &mut without), (SICK, &mut with)] {
            let found = measure(plan, sick, seconds).await?;
            let (p50, p99) = (quantile(&found, P50), quantile(&found, P99));
            note(format_args!(
                "round {round}, {sick} hang and {sick} refuse: p50 {p50:.2} ms, p99 {p99:.2} ms"
            ));
            rounds.p50.push(p50);
            rounds.p99.push(p99);
        }
    }
    let p99 = report.figure("healthy p99 with sick ones", "ms", &with.p99);
    report.print(&p99.at_most(P99_MS))?;
    let p99 = report.figure("healthy p99 with against without", "ms", &with.p99);
    report.print(&p99.of(median(&without.p99)).at_most(RATIO))?;
    let p50 = report.figure("healthy p50 with against without", "ms", &with.p50);
    report.print(&p50.of(median(&without.p50)))
}

/// One installation of its own, so that nothing is known of any endpoint before.
async fn measure(plan: &Plan, sick: usize, seconds: u64) -> anyhow::Result<Vec<f64>> {
    let stack = Stack::kafka(plan, &SERVICES).await?;
    let mut sink = Sink::start(stack.dir(), true).await?;
    // A process of its own: connections that hang must not cost the healthy endpoint anything.
    let hanging = Sink::start(stack.dir(), false).await?;
    let refusing = format!("http://{}", free_address()?);
    let mut wanted = wishes("healthy", &sink.url(), HEALTHY);
    wanted.extend(wishes("hangs", &hanging.hanging_url(), sick));
    wanted.extend(wishes("refuses", &refusing, sick));
    let hooks = stack.hooks_as(&wanted).await?;
    if sick > 0 {
        for group in [
            0..HEALTHY,
            HEALTHY..HEALTHY + sick,
            HEALTHY + sick..hooks.len(),
        ] {
            everywhere(hooks.get(group).unwrap_or_default())?;
        }
    }
    let types = |kind: &'static str, count| (0..count).map(move |n| event_type(kind, n));
    let all: Vec<String> = types("healthy", HEALTHY)
        .chain(types("hangs", sick))
        .chain(types("refuses", sick))
        .collect();
    let endpoints = u64::try_from(HEALTHY + 2 * SICK)?;
    let per_second = PER_SECOND * u64::try_from(all.len())? / endpoints;
    let traffic = Traffic::new(all, HEALTHY, per_second);
    let sent = traffic.publish(&stack, seconds).await?;
    sent.latencies(&mut sink).await
}

/// Sick and healthy share every partition, or the figure says nothing.
fn everywhere(hooks: &[Hook]) -> anyhow::Result<()> {
    let partitions = PARTITIONS.try_into()?;
    let mut seen = std::collections::BTreeSet::new();
    for hook in hooks {
        let quota = Quota::of_endpoint(hook.endpoint.parse()?);
        seen.insert(Placement::of(&quota, partitions).partition());
    }
    let count = u32::try_from(seen.len())?;
    ensure!(
        count == PARTITIONS,
        "endpoints in {count} of {PARTITIONS} partitions only"
    );
    Ok(())
}
