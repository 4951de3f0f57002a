//! Events a second over HTTP into Kafka, beside a bare producer of the same records.
//!
//! The pools are large enough that no batch of librdkafka's sees the same bytes twice. Bodies are
//! made beforehand, so that the client's own cost is small. The surprise: the processor time an
//! event tells more than the rate where the machine has other work.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Plan;
use super::publish::{Bodies, cycle};
use crate::bare::{self, Record};
use crate::events::{self, BATCH, ONE};
use crate::pace::rate;
use crate::report::{Report, median, note};
use crate::stack::{Service, Stack};

const BAR: f64 = 0.5;
const POOL: u64 = 50_000;
const BATCH_EVENTS: u64 = 100;
/// The bare producer has up to half a million records under way and writes in full batches; with
/// few connections the log's batches are small, and what is measured is the broker's requests.
const BATCH_CONNECTIONS: usize = 16;
const SINGLE_CONNECTIONS: usize = 64;

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let span = plan.choose(Duration::from_secs(8), Duration::from_secs(4));
    let stack = Stack::kafka(plan, &[Service::Ingest]).await?;
    let (mut batches, mut singles, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut costs = Vec::new();
    for round in 1..=plan.rounds {
        let limit = produce(&stack, span).await?;
        let cpu = stack.cpu_seconds(Service::Ingest)?;
        let batch = publish_batches(&stack, span).await?;
        let cpu = stack.cpu_seconds(Service::Ingest)? - cpu;
        costs.push(cpu * 1e6 / (batch * span.as_secs_f64()));
        let single = publish_singles(&stack, span).await?;
        note(format_args!(
            "round {round}: bare {limit:.0}/s, batches {batch:.0}/s, single events {single:.0}/s"
        ));
        bare.push(limit);
        batches.push(batch);
        singles.push(single);
    }
    let limit = median(&bare);
    let figure = report.figure("kafka batches of 100", "events/s", &batches);
    report.print(&figure.of(limit).at_least(BAR))?;
    let figure = report.figure("kafka single events", "events/s", &singles);
    report.print(&figure.of(limit))?;
    report.print(&report.figure("processor time an event of a batch", "us", &costs))?;
    let (_, highest) = stack.memory_mib(Service::Ingest)?;
    report.print(&report.figure("memory highest", "MiB", &[highest]))
}

async fn produce(stack: &Stack, span: Duration) -> anyhow::Result<f64> {
    let records = (0..POOL)
        .map(|number| {
            let event = events::accepted(number, "2026-01-01T00:00:00.000Z")?;
            let (headers, data) = schemas::codec::kafka::encode_binary(&event);
            Ok(Record::new(&headers, data.unwrap_or_default()))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    bare::write_rate(stack.brokers(), &stack.topic("events"), records, span).await
}

async fn publish_batches(stack: &Stack, span: Duration) -> anyhow::Result<f64> {
    let starts = (0..POOL).step_by(usize::try_from(BATCH_EVENTS)?);
    let pool: Vec<Bytes> = starts
        .map(|from| events::batch(from, BATCH_EVENTS))
        .collect();
    let start = Instant::now();
    let bodies = Bodies {
        next: cycle(pool, span),
        content_type: BATCH,
        connections: BATCH_CONNECTIONS,
        stack,
    };
    let taken = bodies.send().await? * BATCH_EVENTS;
    Ok(rate(taken, i64::try_from(start.elapsed().as_micros())?))
}

async fn publish_singles(stack: &Stack, span: Duration) -> anyhow::Result<f64> {
    let pool: Vec<Bytes> = (0..POOL)
        .map(|number| events::structured(number).into())
        .collect();
    let start = Instant::now();
    let bodies = Bodies {
        next: cycle(pool, span),
        content_type: ONE,
        connections: SINGLE_CONNECTIONS,
        stack,
    };
    let taken = bodies.send().await?;
    Ok(rate(taken, i64::try_from(start.elapsed().as_micros())?))
}
