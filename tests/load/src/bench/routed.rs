//! Milliseconds from when an event was meant to be written to `events` until it is on
//! `deliveries`: a router alone, open loop, beside a bare loop that copies records.

use super::Plan;
use crate::bare::{self, Arrival, Paced, Record, Relay, Watch, milliseconds};
use crate::crowd::{self, Wanted};
use crate::events;
use crate::report::{Report, note, quantile};
use crate::stack::{PARTITIONS, Service, Stack};

const RATES: [u64; 4] = [200, 1_000, 5_000, 20_000];
const WARM_UP_US: u64 = 1_000_000;
const P50: usize = 500;
const P99: usize = 990;
/// Any time will do: it is the id that tells.
pub(super) const ACCEPTED: &str = "2026-01-01T00:00:00.000Z";

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or an event does not arrive.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let mut stack = Stack::kafka(plan, &[]).await?;
    let wanted = Wanted {
        event_type: events::MEASURED.to_owned(),
        subscriptions: 1,
    };
    crowd::subscribe(&mut stack, &[wanted]).await?;
    stack.start(Service::Router).await?;
    let (events, deliveries) = (stack.topic("events"), stack.topic("deliveries"));
    let (from, to) = (stack.topic("from"), stack.topic("to"));
    for topic in [&from, &to] {
        bare::create(stack.brokers(), topic).await?;
    }
    for rate in RATES {
        let routed = rounds(plan, &stack, rate, (&events, &deliveries)).await?;
        let relay = Relay::start(stack.brokers(), &from, &to).await?;
        let bare = rounds(plan, &stack, rate, (&from, &to)).await?;
        relay.stop().await?;
        for (what, [p50, p99]) in [("routed", routed), ("bare loop", bare)] {
            for (name, values) in [("p50", p50), ("p99", p99)] {
                let name = format!("{what} {rate}/s {name}");
                report.print(&report.figure(&name, "ms", &values))?;
            }
        }
    }
    Ok(())
}

/// The quantiles of each round, behind a warm-up.
async fn rounds(
    plan: &Plan,
    stack: &Stack,
    rate: u64,
    (from, to): (&str, &str),
) -> anyhow::Result<[Vec<f64>; 2]> {
    let [mut p50, mut p99] = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds {
        let seconds = plan.choose(if round == 0 { 5 } else { 15 }, 2);
        let watch = Watch::start(stack.brokers(), to).await?;
        let paced = Paced {
            example: example(events::MEASURED)?,
            per_second: rate,
            count: rate * seconds,
            partitions: 0..i32::try_from(PARTITIONS)?,
            less: 0,
        };
        paced.write(stack.brokers(), from).await?;
        watch
            .wait(usize::try_from(rate * seconds)?, || Ok(()))
            .await?;
        let found = settled(&watch.stop().await?);
        let found: Vec<f64> = found.iter().map(age_ms).collect();
        let (median, tail) = (quantile(&found, P50), quantile(&found, P99));
        note(format_args!(
            "{rate}/s to {to}: p50 {median:.2} ms, p99 {tail:.2} ms"
        ));
        if round > 0 {
            p50.push(median);
            p99.push(tail);
        }
    }
    Ok([p50, p99])
}

/// What events of a type are like, all but the id.
pub(super) fn example(event_type: &str) -> anyhow::Result<Record> {
    let event = events::accepted_as(0, event_type, ACCEPTED)?;
    let (headers, data) = schemas::codec::kafka::encode_binary(&event);
    Ok(Record::new(&headers, data.unwrap_or_default()))
}

/// Without those of the first second, which is the writing client's own warm-up.
pub(super) fn settled(arrivals: &[Arrival]) -> Vec<Arrival> {
    let first = arrivals.iter().map(|arrival| arrival.number).min();
    let from = first.unwrap_or_default() + WARM_UP_US;
    let later = arrivals.iter().filter(|arrival| arrival.number >= from);
    later.copied().collect()
}

/// How long an event took whose number is when it was meant to be written.
pub(super) fn age_ms(arrival: &Arrival) -> f64 {
    let due = i64::try_from(arrival.number).unwrap_or(i64::MAX);
    milliseconds(arrival.at_us - due)
}
