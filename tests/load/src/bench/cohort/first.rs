//! Seconds until a partner has a whole cohort, and until it has what changed of it.
//!
//! Reckoned from the first byte of the upload to the last confirmation. The surprise: bars are for
//! ten million members; other sizes are held against their share of the time.

use super::super::Plan;
use super::{AT_ONCE, Ground, profile};
use crate::members::Members;
use crate::report::{Report, note};
use crate::stack::Service;

const MEMBERS: u64 = 10_000_000;
const MEMBERS_QUICK: u64 = 200_000;
const FIRST_S: f64 = 60.0;
const CHANGED_S: f64 = 10.0;
const MEMORY_MIB: f64 = 1_024.0;

#[derive(Debug, Default)]
struct Rounds {
    first: Vec<f64>,
    upload: Vec<f64>,
    deliver: Vec<f64>,
    changed: Vec<f64>,
    rate: Vec<f64>,
    memory: Vec<f64>,
    sender_memory: Vec<f64>,
    disk: Vec<f64>,
    kafka: Vec<f64>,
    cpu: Vec<f64>,
    partner_cpu: Vec<f64>,
    again: Vec<f64>,
}

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out, or the partner does not hold the cohort.
pub(in crate::bench) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let count = plan.members.unwrap_or(plan.choose(MEMBERS, MEMBERS_QUICK));
    let members = f64::from(u32::try_from(count)?);
    let mut rounds = Rounds::default();
    for round in 1..=plan.rounds {
        measure(plan, count, &mut rounds).await?;
        let (first, changed) = (rounds.first.last(), rounds.changed.last());
        note(format_args!(
            "round {round}: all in {first:?} s, changes in {changed:?} s"
        ));
    }
    let share = members / f64::from(u32::try_from(MEMBERS)?);
    let print = |name: &str, unit, values: &[f64]| {
        report.print(&report.figure(&format!("{name}, {count} members"), unit, values))
    };
    let first = report.figure(&format!("first sync, {count} members"), "s", &rounds.first);
    report.print(&first.at_most((FIRST_S * share).max(2.0)))?;
    print("of that the upload with its sort", "s", &rounds.upload)?;
    print("of that first to last request", "s", &rounds.deliver)?;
    print("confirmed", "1/s", &rounds.rate)?;
    let changed = report.figure("sync with one in a hundred changed", "s", &rounds.changed);
    report.print(&changed.at_most((CHANGED_S * share).max(1.0)))?;
    let memory = report.figure("memory of cohorts at its highest", "MiB", &rounds.memory);
    report.print(&memory.at_most(MEMORY_MIB))?;
    let memory = report.figure("memory of the dispatcher", "MiB", &rounds.sender_memory);
    report.print(&memory.at_most(MEMORY_MIB))?;
    print("on disk", "MiB", &rounds.disk)?;
    print("written to Kafka, uncompressed", "MiB", &rounds.kafka)?;
    print("processor time of cohorts and dispatcher", "s", &rounds.cpu)?;
    print("processor time of the partner", "s", &rounds.partner_cpu)?;
    print("members sent twice", "", &rounds.again)
}

async fn measure(plan: &Plan, count: u64, rounds: &mut Rounds) -> anyhow::Result<()> {
    let profile = profile(50, AT_ONCE, None)?;
    let mut ground = Ground::new(plan, &profile, &["--no-limits"], &[]).await?;
    let all = Members {
        count,
        is_changed: false,
    };
    let took = ground.sync(all).await?;
    let counts = ground.partner.counts().await?;
    rounds.first.push(took.upload + took.run);
    rounds.upload.push(took.upload);
    rounds.deliver.push(counts.seconds());
    rounds
        .rate
        .push(f64::from(u32::try_from(count)?) / took.run);
    rounds
        .again
        .push(f64::from(u32::try_from(counts.added_again)?));
    let changed = ground
        .sync(Members {
            count,
            is_changed: true,
        })
        .await?;
    rounds.changed.push(changed.upload + changed.run);
    let stack = &ground.stack;
    let (_, memory) = stack.memory_mib(Service::Cohorts)?;
    let (_, sender_memory) = stack.memory_mib(Service::Dispatcher)?;
    rounds.memory.push(memory);
    rounds.sender_memory.push(sender_memory);
    rounds.disk.push(stack.cohorts_disk_mib()?);
    let cpu = stack.cpu_seconds(Service::Cohorts)? + stack.cpu_seconds(Service::Dispatcher)?;
    rounds.cpu.push(cpu);
    rounds.partner_cpu.push(ground.partner.cpu_seconds()?);
    rounds.kafka.push(ground.stack.written_mib().await?);
    Ok(())
}
