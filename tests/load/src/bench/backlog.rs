//! What a backlog of a million deliveries for one limited endpoint does to its neighbours, to
//! memory, and how often it is written again.
//!
//! A tenth of it is there at once: how fast that is deferred. The rest arrives as fast as a busy
//! producer publishes. The surprise: most of the backlog is due hours later, so the rewrites are
//! those of the time in which it is read and of a while after.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::dispatcher::{fill, fill_at};
use crate::bare::milliseconds;
use crate::pace::wall_us;
use crate::report::{Report, note, quantile};
use crate::sink::Sink;
use crate::stack::{Hook, Service, Stack};
use crate::traffic::{Sent, Traffic, event_type, wishes};

const SERVICES: [Service; 3] = [Service::Ingest, Service::Router, Service::Dispatcher];
const NEIGHBOURS: usize = 1_000;
const PER_SECOND: u64 = 500;
const LIMIT: u64 = 100;
/// What is published to the limited endpoint: a neighbour's event behind a backlog that was there
/// before it waits until that is read, whatever reads it.
const ARRIVALS: u64 = 40_000;
const HOPPED: &str = "anabranch_dispatch_transaction_deliveries_total";
const P99: usize = 990;
const P99_MS: f64 = 2_000.0;
const RSS_MIB: f64 = 256.0;
const GROWTH_MIB: f64 = 16.0;
const REWRITES: f64 = 10.0;
const HOPS_PER_SECOND: f64 = 50_000.0;
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(180);

/// Where it all runs.
#[derive(Debug)]
struct Ground {
    stack: Stack,
    sink: Sink,
    limited: Hook,
    traffic: Traffic,
    written: u64,
}

#[derive(Debug, Default)]
struct Rounds {
    before: Vec<f64>,
    during: Vec<f64>,
    after: Vec<f64>,
    memory: Vec<f64>,
    growth: Vec<f64>,
    rewrites: Vec<f64>,
    hops: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or a neighbour misses an event.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let mut rounds = Rounds::default();
    for round in 1..=plan.rounds {
        measure(plan, &mut rounds).await?;
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        note(format_args!(
            "round {round}: neighbours' p99 before {:.1}, during {:.1}, after {:.1} ms; {:.0} hops/s",
            last(&rounds.before),
            last(&rounds.during),
            last(&rounds.after),
            last(&rounds.hops),
        ));
    }
    print(report, &rounds)
}

fn print(report: Report, rounds: &Rounds) -> anyhow::Result<()> {
    report.print(&report.figure("neighbours' p99 before", "ms", &rounds.before))?;
    let during = report.figure("neighbours' p99 while it is read", "ms", &rounds.during);
    report.print(&during.at_most(P99_MS))?;
    let after = report.figure("neighbours' p99 after", "ms", &rounds.after);
    report.print(&after.of(crate::report::median(&rounds.before)))?;
    let memory = report.figure("memory with the backlog", "MiB", &rounds.memory);
    report.print(&memory.at_most(RSS_MIB))?;
    let growth = report.figure("memory grown from a tenth of it", "MiB", &rounds.growth);
    report.print(&growth.at_most(GROWTH_MIB))?;
    let rewrites = report.figure("rewrites a delivery so far", "hops", &rounds.rewrites);
    report.print(&rewrites.at_most(REWRITES))?;
    let hops = report.figure("deferred of a backlog that is there", "1/s", &rounds.hops);
    report.print(&hops.at_least(HOPS_PER_SECOND))
}

async fn measure(plan: &Plan, rounds: &mut Rounds) -> anyhow::Result<()> {
    let whole = plan.choose(1_000_000, 200_000);
    let seconds = plan.choose(30, 10);
    let mut ground = Ground::new(plan).await?;
    // The processes' own warm-up belongs to nobody.
    ground.p99(seconds).await?;
    rounds.before.push(ground.p99(seconds).await?);
    ground.write(whole / 10).await?;
    rounds.hops.push(ground.all_deferred().await?);
    ground.p99(seconds).await?;
    let (tenth, _) = ground.stack.memory_mib(Service::Dispatcher)?;
    ground.sink.reset().await?;
    let sent = ground.publish_beside(whole - whole / 10).await?;
    ground.all_deferred().await?;
    rounds
        .during
        .push(quantile(&sent.latencies(&mut ground.sink).await?, P99));
    rounds.after.push(ground.p99(seconds).await?);
    let (now, _) = ground.stack.memory_mib(Service::Dispatcher)?;
    rounds.memory.push(now);
    rounds.growth.push(now - tenth);
    let written = f64::from(u32::try_from(ground.written)?);
    rounds.rewrites.push(ground.hopped().await? / written);
    Ok(())
}

impl Ground {
    async fn new(plan: &Plan) -> anyhow::Result<Self> {
        let stack = Stack::kafka(plan, &SERVICES).await?;
        let sink = Sink::start(stack.dir(), true).await?;
        let limited = wishes("limited", &sink.url(), 1);
        let limited = stack.hooks_as(&limited).await?;
        let limit = json!({ "limits": [{ "count": LIMIT, "per_ms": 1_000 }] });
        stack.patch(&limited, &limit).await?;
        stack
            .hooks_as(&wishes("neighbour", &sink.url(), NEIGHBOURS))
            .await?;
        let types = (0..NEIGHBOURS).map(|number| event_type("neighbour", number));
        Ok(Self {
            traffic: Traffic::new(types.collect(), NEIGHBOURS, PER_SECOND),
            limited: limited.into_iter().next().context("no endpoint was made")?,
            stack,
            sink,
            written: 0,
        })
    }

    /// The neighbours' p99 over so many seconds of traffic.
    async fn p99(&mut self, seconds: u64) -> anyhow::Result<f64> {
        self.sink.reset().await?;
        let sent = self.traffic.publish(&self.stack, seconds).await?;
        Ok(quantile(&sent.latencies(&mut self.sink).await?, P99))
    }

    /// Adds so many deliveries to the backlog.
    async fn write(&mut self, count: u64) -> anyhow::Result<()> {
        fill(&self.stack, &self.limited, self.written, count).await?;
        self.written += count;
        Ok(())
    }

    /// Adds so many deliveries as they arrive, beside the neighbours' events.
    async fn publish_beside(&mut self, count: u64) -> anyhow::Result<Sent> {
        let events = self.written..self.written + count;
        let (sent, written) = tokio::join!(
            self.traffic.publish(&self.stack, count.div_ceil(ARRIVALS)),
            fill_at(&self.stack, &self.limited, events, ARRIVALS),
        );
        written?;
        self.written += count;
        sent
    }

    /// Waits until all of the backlog but what waits its turn is deferred; says how many a second
    /// were, from the first that were seen on.
    async fn all_deferred(&self) -> anyhow::Result<f64> {
        // A horizon's worth waits in the lane, and as much may be on its way.
        let kept = LIMIT * 40;
        let expected = f64::from(u32::try_from(self.written.saturating_sub(kept))?);
        let (start, before) = (Instant::now(), self.hopped().await?);
        let mut first = None;
        loop {
            let (hopped, at) = (self.hopped().await?, wall_us());
            if hopped >= expected {
                let (there, since) = first.unwrap_or((before, at));
                return Ok((hopped - there) * 1e3 / milliseconds(at - since).max(1.0));
            }
            if first.is_none() && hopped > before {
                first = Some((hopped, at));
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{hopped} of {expected} deferred"
            );
            sleep(LOOK).await;
        }
    }

    async fn hopped(&self) -> anyhow::Result<f64> {
        self.stack.metric(Service::Dispatcher, HOPPED).await
    }
}
