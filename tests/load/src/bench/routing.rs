//! Events and deliveries a second that a router makes of a full topic, beside a bare loop that
//! copies the same records.
//!
//! Both rates are those between the first and the last record, by the broker's time: what either
//! needs to start counts for neither.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::routed::ACCEPTED;
use crate::bare::{self, Content, Record};
use crate::crowd::{self, Records, Wanted};
use crate::events;
use crate::pace::rate;
use crate::report::{Report, median, note};
use crate::stack::{Service, Stack};

/// Of the bare loop, at fan-out 1.
const BAR: f64 = 0.6;
/// Event types of one fan-out: their few targets lie on all partitions.
const TYPES: u64 = 12;
const TARGETS: &str = "anabranch_router_targets_total";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
const MS_US: i64 = 1_000;

/// How many want an event.
#[derive(Debug)]
struct FanOut {
    width: u64,
    events: u64,
    /// What an event of each type becomes.
    records: Vec<Records>,
    rounds: Rounds,
}

#[derive(Debug, Default)]
struct Rounds {
    bare: Vec<f64>,
    events: Vec<f64>,
    cpu_us: Vec<f64>,
    memory: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let mut stack = Stack::kafka(plan, &[]).await?;
    let mut all = [
        (1, plan.choose(400_000, 20_000)),
        (10, plan.choose(200_000, 5_000)),
        (1_000, plan.choose(4_000, 200)),
    ]
    .map(|(width, events)| FanOut {
        width,
        events,
        records: Vec::new(),
        rounds: Rounds::default(),
    });
    let wanted: Vec<Wanted> = all.iter().flat_map(FanOut::wanted).collect();
    let records = crowd::subscribe(&mut stack, &wanted).await?;
    let types = usize::try_from(TYPES)?;
    for (fan_out, records) in all.iter_mut().zip(records.chunks(types)) {
        fan_out.records = records.to_vec();
    }
    let copies = stack.topic("copies");
    bare::create(stack.brokers(), &copies).await?;
    for round in 1..=plan.rounds {
        for fan_out in &mut all {
            fan_out.round(&mut stack, &copies).await?;
            let last = |values: &[f64]| values.last().copied().unwrap_or_default();
            note(format_args!(
                "round {round}: fan-out {}: {:.0} events/s, bare loop {:.0}/s",
                fan_out.width,
                last(&fan_out.rounds.events),
                last(&fan_out.rounds.bare),
            ));
        }
    }
    all.iter().try_for_each(|fan_out| fan_out.print(report))
}

impl FanOut {
    fn event_type(&self, number: u64) -> String {
        format!("load.{}.{}", self.width, number % TYPES)
    }

    fn wanted(&self) -> Vec<Wanted> {
        (0..TYPES)
            .map(|number| Wanted {
                event_type: self.event_type(number),
                subscriptions: self.width,
            })
            .collect()
    }

    /// Records on `deliveries` for all events of a round.
    fn expected(&self) -> u64 {
        let types = self.records.iter().zip(0..TYPES);
        types
            .map(|(records, number)| {
                let events = (self.events + TYPES - 1 - number) / TYPES;
                records.an_event * events
            })
            .sum()
    }

    /// The same records, copied by the bare loop and routed.
    async fn round(&mut self, stack: &mut Stack, copies: &str) -> anyhow::Result<()> {
        let source = stack.topic("events");
        let brokers = stack.brokers().to_owned();
        let from = bare::ends(&brokers, &source).await?;
        let (width, count) = (self.width, self.events);
        let records = (0..count).map(move |number| {
            let event_type = format!("load.{width}.{}", number % TYPES);
            let event = events::accepted_as(number, &event_type, ACCEPTED)?;
            let (headers, data) = schemas::codec::kafka::encode_binary(&event);
            Ok(Record::new(&headers, data.unwrap_or_default()))
        });
        bare::write(&brokers, &source, records).await?;
        let copied = bare::ends(&brokers, copies).await?;
        bare::copy(&brokers, (&source, from), copies, count).await?;
        let content = bare::read_from(&brokers, copies, copied, count).await?;
        self.rounds.bare.push(per_second(count, content));
        let deliveries = stack.topic("deliveries");
        let routed = bare::ends(&brokers, &deliveries).await?;
        stack.start(Service::Router).await?;
        let targets = f64::from(u32::try_from(count * width)?);
        reach(stack, targets).await?;
        let cpu = stack.cpu_seconds(Service::Router)?;
        self.rounds
            .cpu_us
            .push(cpu * 1e6 / f64::from(u32::try_from(count)?));
        self.rounds
            .memory
            .push(stack.memory_mib(Service::Router)?.1);
        stack.stop(Service::Router).await?;
        let content = bare::read_from(&brokers, &deliveries, routed, self.expected()).await?;
        self.rounds.events.push(per_second(count, content));
        Ok(())
    }

    fn print(&self, report: Report) -> anyhow::Result<()> {
        let (width, rounds) = (self.width, &self.rounds);
        let name = |what: &str| format!("fan-out {width}: {what}");
        let figure = report.figure(&name("events"), "1/s", &rounds.events);
        let figure = figure.of(median(&rounds.bare));
        let is_held = width == 1;
        report.print(&if is_held {
            figure.at_least(BAR)
        } else {
            figure
        })?;
        let targets = f64::from(u32::try_from(width)?);
        let deliveries: Vec<f64> = rounds.events.iter().map(|rate| rate * targets).collect();
        report.print(&report.figure(&name("deliveries"), "1/s", &deliveries))?;
        let figure = report.figure(&name("processor time an event"), "us", &rounds.cpu_us);
        report.print(&figure)?;
        report.print(&report.figure(&name("memory highest"), "MiB", &rounds.memory))
    }
}

/// Events a second between the first and the last record of `content`.
fn per_second(events: u64, content: Content) -> f64 {
    rate(events, (content.last_ms - content.first_ms) * MS_US)
}

/// Waits until the router has written so many targets.
async fn reach(stack: &Stack, targets: f64) -> anyhow::Result<()> {
    let (mut before, mut since) = (0.0, Instant::now());
    loop {
        let written = stack.metric(Service::Router, TARGETS).await?;
        if written >= targets {
            return Ok(());
        }
        if written > before {
            (before, since) = (written, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "{written} of {targets} targets");
        sleep(LOOK).await;
    }
}
