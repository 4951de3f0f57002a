//! Everything in one process on the embedded log, each acknowledgement behind an fsync.
//!
//! The surprise: the log it is measured on is thrown away after each round, so that every round
//! begins with an empty disk.

use std::path::Path;
use std::time::Duration;

use futures_util::future;
use tokio::time::Instant;

use super::Plan;
use super::publish::Bodies;
use crate::events::{self, BATCH};
use crate::pace::{rate, wall_us};
use crate::report::{Report, note};
use crate::sink::Sink;
use crate::stack::{Service, Stack};

const BATCH_EVENTS: u64 = 100;
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Rounds {
    accepted: Vec<f64>,
    delivered: Vec<f64>,
    memory: Vec<f64>,
    highest: Vec<f64>,
    disk: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or an event does not arrive.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.choose(1_000_000, 100_000);
    let mut rounds = Rounds::default();
    for number in 1..=plan.rounds {
        round(plan, count, &mut rounds).await?;
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        note(format_args!(
            "round {number}: accepted {:.0}/s, delivered {:.0}/s, {:.0} MiB, disk {:.0} MiB",
            last(&rounds.accepted),
            last(&rounds.delivered),
            last(&rounds.memory),
            last(&rounds.disk)
        ));
    }
    let after = |name: &str| format!("{name} after {count} events");
    report.print(&report.figure("accepted", "events/s", &rounds.accepted))?;
    report.print(&report.figure("delivered end to end", "events/s", &rounds.delivered))?;
    report.print(&report.figure(&after("memory"), "MiB", &rounds.memory))?;
    report.print(&report.figure(&after("highest memory"), "MiB", &rounds.highest))?;
    report.print(&report.figure(&after("disk"), "MiB", &rounds.disk))
}

async fn round(plan: &Plan, count: u64, rounds: &mut Rounds) -> anyhow::Result<()> {
    let stack = Stack::embedded(plan).await?;
    let mut sink = Sink::start(stack.dir(), false).await?;
    stack.hook(sink.url()).await?;
    let (start, wall) = (Instant::now(), wall_us());
    let bodies = Bodies {
        next: |number| {
            let from = number * BATCH_EVENTS;
            (from < count).then(|| events::batch(from, BATCH_EVENTS))
        },
        content_type: BATCH,
        connections: CONNECTIONS,
        stack: &stack,
    };
    let publish = async {
        bodies.send().await?;
        anyhow::Ok(i64::try_from(start.elapsed().as_micros())?)
    };
    // Together: the deliveries begin with the first event.
    let (accepted_us, counts) = future::try_join(publish, sink.expect(count, PATIENCE)).await?;
    let (memory, highest) = stack.memory_mib(Service::Up)?;
    rounds.accepted.push(rate(count, accepted_us));
    rounds.delivered.push(rate(count, counts.last_us - wall));
    rounds.memory.push(memory);
    rounds.highest.push(highest);
    rounds.disk.push(disk_mib(&stack.data())?);
    Ok(())
}

/// What the files of a folder take.
fn disk_mib(folder: &Path) -> anyhow::Result<f64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut blocks = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // A file that the log has just dropped takes nothing.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            blocks += metadata.blocks();
        }
    }
    // Blocks of 512 bytes.
    Ok(f64::from(u32::try_from(blocks / 2_048)?))
}
