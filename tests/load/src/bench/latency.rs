//! Milliseconds from when an event was meant to be sent until it has arrived, single events in an
//! open loop, beside librdkafka alone; and until it is routed.
//!
//! The surprise: an event that had to wait for a connection waits on the clock of its own latency.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::Plan;
use super::publish::post;
use crate::bare::{self, milliseconds};
use crate::client::Connection;
use crate::events::{self, ONE};
use crate::pace;
use crate::report::{Report, median, note, quantile};
use crate::sink::Sink;
use crate::stack::{Service, Stack};

const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);
const P50: usize = 500;
const P99: usize = 990;

/// What is to be reached at a rate.
#[derive(Debug, Clone, Copy)]
struct Bar {
    per_second: u64,
    p50_ms: f64,
    p99_ms: f64,
}

const KAFKA: [Bar; 2] = [
    Bar {
        per_second: 200,
        p50_ms: 4.0,
        p99_ms: 20.0,
    },
    Bar {
        per_second: 1_000,
        p50_ms: 5.0,
        p99_ms: 30.0,
    },
];
const EMBEDDED: Bar = Bar {
    per_second: 200,
    p50_ms: 2.0,
    p99_ms: 10.0,
};

/// Quantiles of rounds.
#[derive(Debug, Default)]
struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Rounds {
    fn push(&mut self, latencies: &[f64]) {
        self.p50.push(quantile(latencies, P50));
        self.p99.push(quantile(latencies, P99));
    }
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or an event does not arrive.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    if plan.quick {
        note(format_args!("quick: 10 s of warm-up instead of 60 s"));
    }
    let services = [Service::Ingest, Service::Router, Service::Dispatcher];
    let stack = Stack::kafka(plan, &services).await?;
    let mut sink = endpoint(&stack).await?;
    for bar in KAFKA {
        let rounds = measure(plan, &stack, &mut sink, bar.per_second).await?;
        let bare = bare_rounds(plan, &stack, bar.per_second).await?;
        print(report, "kafka", bar, &rounds, Some(&bare))?;
    }
    drop(stack);
    let stack = Stack::embedded(plan).await?;
    let mut sink = endpoint(&stack).await?;
    let rounds = measure(plan, &stack, &mut sink, EMBEDDED.per_second).await?;
    print(report, "embedded", EMBEDDED, &rounds, None)?;
    drop(stack);
    super::routed::run(plan, report).await
}

fn print(
    report: Report,
    log: &str,
    bar: Bar,
    rounds: &Rounds,
    bare: Option<&Rounds>,
) -> anyhow::Result<()> {
    let rate = bar.per_second;
    let figure = |name: &str, values: &[f64], at_most: f64| {
        let figure = report.figure(&format!("{log} {rate}/s {name}"), "ms", values);
        figure.at_most(at_most)
    };
    report.print(&figure("p50", &rounds.p50, bar.p50_ms))?;
    report.print(&figure("p99", &rounds.p99, bar.p99_ms))?;
    let Some(bare) = bare else {
        return Ok(());
    };
    for (name, values) in [("p50", &bare.p50), ("p99", &bare.p99)] {
        let name = format!("bare produce to consume {rate}/s {name}");
        report.print(&report.figure(&name, "ms", values))?;
    }
    Ok(())
}

/// An endpoint that remembers times, subscribed to every event.
async fn endpoint(stack: &Stack) -> anyhow::Result<Sink> {
    let sink = Sink::start(stack.dir(), true).await?;
    stack.hook(sink.url()).await?;
    Ok(sink)
}

/// Rounds at a rate behind one warm-up.
async fn measure(
    plan: &Plan,
    stack: &Stack,
    sink: &mut Sink,
    per_second: u64,
) -> anyhow::Result<Rounds> {
    let mut rounds = Rounds::default();
    for round in 0..=plan.rounds {
        let seconds = match round {
            0 => plan.choose(60, 10),
            _ => plan.choose(30, 10),
        };
        sink.reset().await?;
        let found = latencies(stack, sink, per_second, per_second * seconds).await?;
        let (p50, p99) = (quantile(&found, P50), quantile(&found, P99));
        let what = if round == 0 { "warm-up" } else { "round" };
        note(format_args!(
            "{what} at {per_second}/s: p50 {p50:.2} ms, p99 {p99:.2} ms"
        ));
        if round > 0 {
            rounds.push(&found);
        }
    }
    Ok(rounds)
}

async fn bare_rounds(plan: &Plan, stack: &Stack, per_second: u64) -> anyhow::Result<Rounds> {
    let mut rounds = Rounds::default();
    let count = per_second * plan.choose(10, 5);
    for round in 0..plan.rounds {
        let topic = stack.topic(&format!("bare-{per_second}-{round}"));
        let value = events::structured(0).into();
        let found = bare::latencies(stack.brokers(), &topic, value, (per_second, count)).await?;
        // The first second is the client's own warm-up.
        let warm = usize::try_from(per_second)?;
        rounds.push(found.get(warm..).unwrap_or_default());
    }
    note(format_args!(
        "bare at {per_second}/s: p50 {:.2} ms",
        median(&rounds.p50)
    ));
    Ok(rounds)
}

/// Publishes `count` events at a steady rate; returns how long each took.
async fn latencies(
    stack: &Stack,
    sink: &mut Sink,
    per_second: u64,
    count: u64,
) -> anyhow::Result<Vec<f64>> {
    // Numbers no other round has: the same event would have the same delivery id.
    let base = u64::try_from(pace::wall_us())?;
    let mut due = HashMap::new();
    // Taken in turn: ingest closes a connection that is idle for half a minute.
    let mut free = VecDeque::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        free.push_back(stack.publisher().await?);
    }
    let mut busy = FuturesUnordered::new();
    let mut ticks = pace::ticks(per_second, count);
    let start = Instant::now();
    loop {
        tokio::select! {
            Some(connection) = busy.next() => free.push_back(connection?),
            tick = ticks.recv(), if !free.is_empty() => {
                let (Some(tick), Some(connection)) = (tick, free.pop_front()) else { break };
                let number = base + tick.number;
                due.insert(number, tick.due_us);
                busy.push(publish(connection, number));
            }
        }
    }
    while let Some(sent) = busy.next().await {
        sent?;
    }
    let span = Duration::from_secs(count / per_second.max(1));
    let late = start.elapsed().saturating_sub(span);
    ensure!(late < PATIENCE, "ingest is {late:?} behind {per_second}/s");
    sink.expect(count, PATIENCE).await?;
    let times = sink.times().await?;
    let found = times.iter().filter_map(|(number, at_us)| {
        let due = due.get(number)?;
        Some(milliseconds(at_us - due))
    });
    Ok(found.collect())
}

async fn publish(mut connection: Connection, number: u64) -> anyhow::Result<Connection> {
    let body = events::structured(number).into();
    post(&mut connection, ONE, body).await?;
    Ok(connection)
}
