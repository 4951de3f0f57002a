//! Owns `anabranch demo`: every service, an endpoint, and a few hundred events that are published
//! and arrive, so that a newcomer sees in a minute what Anabranch does.
//!
//! It must never say that all is well unless every expected delivery arrived, signed. The surprise:
//! it knows the ids of all deliveries beforehand, because they are a pure function (rule 4).

mod samples;
mod stage;
mod tally;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::http::StatusCode;
use clap::Args;
use runtime::clock::Entropy;
use runtime::task::{Cause, Tasks};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use self::samples::{Department, Sample};
use self::stage::Stage;
use self::tally::{Kind, Tally};
use crate::listen::{Arrival, Receiver};
use crate::output;
use crate::publish::{Batch, Sender};
use crate::settings::Settings;
use crate::up::{self, Up};

/// Everything must have arrived by then.
const DEADLINE: Duration = Duration::from_secs(60);
/// Two events every 10 ms: 200 a second, a rate at which latency is that of the road, not of a queue.
const EVENTS_AT_ONCE: usize = 2;
const PACE: Duration = Duration::from_millis(10);
/// Missing deliveries that are named.
const MISSING_NAMED_MAX: usize = 20;

/// Flags of `anabranch demo`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Starts everything on free ports with its data in a temporary folder (or `--data-dir`), makes a
tenant, an endpoint and three subscriptions, publishes events, prints each arrival and a summary,
and ends. Exit code 1 if anything is missing after a minute.

Examples:
  anabranch demo                           in one process, on the local disk
  anabranch demo --brokers kafka:9092      the same on Kafka, in topics of its own
  anabranch demo --keep                    leave it running afterwards, to look around")]
pub(crate) struct DemoArgs {
    /// How many events to publish
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    events: u32,
    /// Leave it running until it is interrupted
    #[arg(long)]
    keep: bool,
    /// Only print the events, for `anabranch publish`
    #[arg(long, conflicts_with = "keep")]
    print_events: bool,
}

/// A folder for the time of the demo.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "folder of the demo is left behind");
        }
    }
}

/// Runs the demo.
///
/// # Errors
/// Where something does not start, or not everything arrived.
pub(crate) async fn run(args: DemoArgs, mut settings: Settings) -> anyhow::Result<ExitCode> {
    let run = format!("{:08x}", Entropy::system().u64() >> 32);
    if args.print_events {
        for event in samples::events(usize::try_from(args.events)?, &run)? {
            output::line(event.item.json)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = settings.is_default("data_dir").then(|| {
        let dir = std::env::temp_dir().join(format!("anabranch-demo-{run}"));
        settings.loaded.config.general.data_dir.clone_from(&dir);
        Scratch(dir)
    });
    let fresh = scratch.is_some() && settings.config().kafka.brokers.is_empty();
    let tenant = if fresh {
        "demo".to_owned()
    } else {
        format!("demo-{run}")
    };
    let Up {
        mut process,
        ingest,
        control,
        cohorts: _,
    } = up::start(settings.loaded.config).await?;
    let tasks = Tasks::new("demo");
    let stage = Stage {
        tenant,
        run,
        ingest,
        control,
        config: process.config.clone(),
    };
    let played = tokio::select! {
        cause = process.stopping() => Err(anyhow::anyhow!("{cause}")),
        played = play(&args, &stage, &tasks) => played,
    };
    let mut cause = Cause::Asked("the demo is over".into());
    if args.keep && played.is_ok() {
        stage.invite()?;
        cause = process.stopping().await;
    }
    tasks.cancel();
    let ended = process.end(cause).await;
    tasks.finished().await;
    drop(scratch);
    played?;
    ended
}

/// Sets the stage, publishes, waits for every arrival, and tells what came of it.
async fn play(args: &DemoArgs, stage: &Stage, tasks: &Tasks) -> anyhow::Result<()> {
    let receiver = Receiver::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let cast = stage.set(receiver.address()?).await?;
    let arrivals = receiver.serve(vec![cast.signing.clone()], StatusCode::OK, tasks);
    let count = usize::try_from(args.events)?;
    let events = samples::events(count, &stage.run)?;
    let mut tally = Tally::default();
    let mut ids = Vec::with_capacity(events.len());
    for event in &events {
        let deliveries = event.deliveries(&cast.subscriptions);
        for (department, id) in &deliveries {
            tally.expect(id.clone(), *department, &event.ty);
        }
        ids.push(deliveries);
    }
    let sender = Sender::new(cast.publisher.clone(), stage.tenant.clone(), DEADLINE);
    let deadline = Instant::now() + DEADLINE;
    let (times, published) = mpsc::unbounded_channel();
    let publishing = publish(&sender, &events, times);
    let collecting = collect(arrivals, published, &ids, &mut tally);
    let both = async { tokio::try_join!(publishing, collecting) };
    let in_time = timeout_at(deadline, both).await;
    if let Ok(ended) = in_time {
        ended?;
    }
    conclude(stage, &tally, events.len())?;
    if !args.keep {
        stage.strike(&cast).await?;
    }
    Ok(())
}

type Published = (usize, Instant);

/// Publishes at an even pace; says of each event when.
async fn publish(
    sender: &Sender,
    events: &[Sample],
    times: mpsc::UnboundedSender<Published>,
) -> anyhow::Result<()> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first = 0;
    for some in events.chunks(EVENTS_AT_ONCE) {
        pace.tick().await;
        let now = Instant::now();
        for index in first..first + some.len() {
            // Its reader ends with everything else.
            times.send((index, now)).ok();
        }
        first += some.len();
        let items = some.iter().map(|event| event.item.clone()).collect();
        let outcome = sender
            .send(Batch {
                items,
                ..Batch::default()
            })
            .await?;
        if let Some((line, why)) = outcome.rejected.first() {
            anyhow::bail!("event {line} was rejected: {why}");
        }
    }
    Ok(())
}

/// Notes and prints arrivals until all are there.
async fn collect(
    mut arrivals: mpsc::Receiver<Arrival>,
    mut published: mpsc::UnboundedReceiver<Published>,
    ids: &[Vec<(Department, String)>],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    while !tally.is_complete() {
        tokio::select! {
            // A publication first: nothing arrives before it is published.
            biased;
            Some((index, at)) = published.recv() => {
                for (_, id) in ids.get(index).into_iter().flatten() {
                    tally.published(id, at);
                }
            }
            arrival = arrivals.recv() => {
                let arrival = arrival.context("the demo's endpoint has ended")?;
                show(&arrival, tally.arrived(&arrival))?;
            }
        }
    }
    Ok(())
}

fn show(arrival: &Arrival, kind: Kind) -> std::io::Result<()> {
    let time = output::time_of_day(arrival.at);
    let (who, took) = match kind {
        Kind::Delivered(department, latency) => (department.name(), millis(latency)),
        Kind::Repeat => ("again", String::new()),
        Kind::Stranger => ("unexpected", String::new()),
    };
    let (ty, subject, signature) = (
        &arrival.event.ty,
        &arrival.event.subject,
        &arrival.signature,
    );
    output::line(format_args!(
        "{time}  {who:<10}  {ty:<41} {subject:<22} {took:>9}  {signature}"
    ))
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

/// Prints the summary.
fn conclude(stage: &Stage, tally: &Tally, events: usize) -> anyhow::Result<()> {
    let totals = tally.totals();
    output::line("")?;
    output::line(format_args!(
        "{events} events published, {} deliveries arrived of {}",
        totals.delivered, totals.expected
    ))?;
    output::line(format_args!(
        "{} signatures verified, {} repeats",
        totals.verified, totals.repeats
    ))?;
    output::line(format_args!(
        "from publish to arrival: p50 {}, p99 {}",
        millis(totals.p50),
        millis(totals.p99)
    ))?;
    let missing = tally.missing();
    if !missing.is_empty() {
        for line in missing.iter().take(MISSING_NAMED_MAX) {
            output::line(format_args!("missing: {line}"))?;
        }
        anyhow::bail!(
            "{} of {} deliveries did not arrive within {DEADLINE:?}",
            missing.len(),
            totals.expected
        );
    }
    anyhow::ensure!(
        totals.verified == totals.expected,
        "not every signature was verified"
    );
    anyhow::ensure!(
        totals.strangers == 0,
        "{} requests were not expected",
        totals.strangers
    );
    stage.by_hand()?;
    Ok(())
}
