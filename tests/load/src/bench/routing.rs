//! Events and deliveries a second that a router makes of a full topic, beside a bare loop that
//! copies the same records.
//!
//! The bare loop is one consumer and one producer on one thread: idempotent, acks=all, the codec of
//! a router. It takes record by record, copies its headers and its value, and writes it to the
//! partition of the same number. It commits nothing, looks into nothing, and finds its records'
//! partitions for nothing: what a router adds is measured against what nobody can save.
//!
//! Both rates are by the broker's time of the records that were written, once a fifth of them are:
//! by then whatever was read while connections were made is written, and neither is flattered.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::routed::ACCEPTED;
use crate::bare::{self, Record};
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
/// Of the records written, the part before the rate is looked at.
const WARM_UP: usize = 5;

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
        (1, plan.choose(1_000_000, 200_000)),
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
        let times = bare::written_at(&brokers, copies, copied, count).await?;
        self.rounds.bare.push(settled(count, &times));
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
        let times = bare::written_at(&brokers, &deliveries, routed, self.expected()).await?;
        self.rounds.events.push(settled(count, &times));
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

/// Events a second behind the warm-up, of `events` whose records were written at these times.
#[expect(
    clippy::cast_precision_loss,
    reason = "a benchmark knows no more digits"
)]
fn settled(events: u64, times: &[i64]) -> f64 {
    let warm = times.len() / WARM_UP;
    let (Some(from), Some(to)) = (times.get(warm), times.last()) else {
        return 0.0;
    };
    let rest = times.len() - warm;
    rate(events, (to - from) * MS_US) * rest as f64 / times.len() as f64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_the_first_record_was_written_flatters_nobody() {
        // Two a millisecond, but for a start in which a tenth of them came at once.
        let steady = (0..900).map(|number| 1_000 + number / 2);
        let times: Vec<i64> = std::iter::repeat_n(1_000, 100).chain(steady).collect();
        let found = settled(1_000, &times);
        assert!((1_990.0..2_010.0).contains(&found), "{found}");
        // Half as many events as records.
        let found = settled(500, &times);
        assert!((995.0..1_005.0).contains(&found), "{found}");
        assert!(settled(5, &[]).abs() < 1e-9);
    }
}
