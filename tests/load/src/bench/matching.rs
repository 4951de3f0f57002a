//! Events a second that one core matches, beside what others do with the same events in one run.
//!
//! No process and no topic: the router's index alone. The surprise: memory is weighed in processes
//! of their own (`load --weigh`), since what was freed before would hide what is needed.

use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use router::index::Index;
use schemas::event::Event;
use tokio::time::Instant;

use super::Plan;
use crate::matching::rivals::{Naive, Patterns, whole};
use crate::matching::{GROUP, Mix, Wanted, World};
use crate::report::{Report, line, median, note};

/// Distinct events that are matched in turn: few enough to be near, as one is that has just been
/// decoded, and many enough that what they are wanted by is not.
const EVENTS: u32 = 2_048;
/// Others are given so long to take the subscriptions in.
const PATIENCE: Duration = Duration::from_secs(20);
/// Quamina with more mixed patterns than this takes minutes, or ends in a panic.
const QUAMINA_MIXED_MAX: u32 = 1_000;
const BAR_SPREAD: f64 = 0.3;
const BAR_TOGETHER: f64 = 0.1;
const BAR_LOOK_UP: f64 = 0.3;

/// Runs it.
///
/// # Errors
/// Where an event is not wanted by as many as it should be.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    let sizes: &[u32] = plan.choose(&[100, 1_000, 10_000, 100_000], &[100, 1_000]);
    for mix in [Mix::Exact, Mix::Mixed] {
        for &subscriptions in sizes {
            let mut tenants = vec![subscriptions / GROUP, 10, 1];
            tenants.dedup();
            for tenants in tenants {
                let world = World {
                    mix,
                    subscriptions,
                    tenants,
                };
                measure(world, plan, report)?;
                // A signal ends it here.
                tokio::task::yield_now().await;
            }
        }
        let largest = sizes.last().copied().unwrap_or(GROUP);
        for tenants in [largest / GROUP, 1] {
            let world = World {
                mix,
                subscriptions: largest,
                tenants,
            };
            memory(world, report)?;
        }
    }
    Ok(())
}

/// One world, with events of every kind.
fn measure(world: World, plan: &Plan, report: Report) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut index = build(world)?;
    let build = start.elapsed().as_secs_f64() * 1e3;
    let naive = Naive::of(world);
    let quamina = match world.mix {
        Mix::Mixed if world.subscriptions > QUAMINA_MIXED_MAX => None,
        Mix::Mixed | Mix::Exact => Patterns::of(world, PATIENCE),
    };
    let name = title(world);
    report.print(&report.figure(&format!("{name}: build"), "ms", &[build]))?;
    for wanted in [Wanted::None, Wanted::One(0), Wanted::All] {
        let events = events(world, wanted)?;
        let (mut ours, mut theirs) = (Vec::new(), Theirs::default());
        for _ in 0..plan.rounds {
            let time = plan.choose(Duration::from_millis(400), Duration::from_millis(20));
            let matches =
                |event: &Event| index.matches(event).map_or(0, |found| found.places.len());
            ours.push(rate(&events, time, wanted.count(), matches)?);
            theirs.round(&events, &naive, quamina.as_ref(), (wanted, time))?;
        }
        let name = format!("{name}, {} wanted", wanted.count());
        theirs.print(world, &name, &ours, report)?;
    }
    Ok(())
}

fn title(world: World) -> String {
    let World {
        mix,
        subscriptions,
        tenants,
    } = world;
    format!("{} {subscriptions} of {tenants}", mix.name())
}

fn build(world: World) -> anyhow::Result<Index> {
    let mut index = Index::new();
    for number in 0..world.subscriptions {
        let object = world.subscription(number)?;
        index.apply(&object.key(), Some(&object));
    }
    Ok(index)
}

/// Which one of ten wants an event goes round.
fn events(world: World, wanted: Wanted) -> anyhow::Result<Vec<Event>> {
    (0..EVENTS)
        .map(|number| {
            let wanted = match wanted {
                Wanted::One(_) => Wanted::One(number % GROUP),
                Wanted::None | Wanted::All => wanted,
            };
            world.event(number, wanted)
        })
        .collect()
}

/// What is done a second, for `time` or once with each.
fn rate<T>(
    things: &[T],
    time: Duration,
    expected: usize,
    mut work: impl FnMut(&T) -> usize,
) -> anyhow::Result<f64> {
    // Once before the clock runs, as far as there is time.
    let start = Instant::now();
    for thing in things {
        ensure!(
            work(thing) == expected,
            "an event is not wanted by {expected}"
        );
        if start.elapsed() > time {
            break;
        }
    }
    let (start, mut count) = (Instant::now(), 0_u32);
    for some in things.chunks(16).cycle() {
        for thing in some {
            black_box(work(black_box(thing)));
            count += 1;
            if count < 16 && start.elapsed() > time {
                return Ok(f64::from(count) / start.elapsed().as_secs_f64());
            }
        }
        if start.elapsed() > time {
            break;
        }
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// The rounds of the others.
#[derive(Debug, Default)]
struct Theirs {
    sonic: Vec<f64>,
    look_up: Vec<f64>,
    naive: Vec<f64>,
    quamina: Vec<f64>,
}

impl Theirs {
    fn round(
        &mut self,
        events: &[Event],
        naive: &Naive,
        quamina: Option<&Patterns>,
        (wanted, time): (Wanted, Duration),
    ) -> anyhow::Result<()> {
        let expected = wanted.count();
        let parsed = |event: &Event| {
            let data = event.data().map_or(&[][..], |data| data);
            usize::from(sonic_rs::from_slice::<sonic_rs::Value>(data).is_ok())
        };
        self.sonic.push(rate(events, time, 1, parsed)?);
        let listed = events.first().map_or(0, |event| naive.look_up(event));
        let look_up = |event: &Event| naive.look_up(event);
        self.look_up.push(rate(events, time, listed, look_up)?);
        self.naive
            .push(rate(events, time, expected, |event| naive.count(event))?);
        if let Some(quamina) = quamina {
            let texts: Vec<String> = events.iter().map(whole).collect();
            let count = |text: &String| quamina.count(text.as_bytes());
            self.quamina.push(rate(&texts, time, expected, count)?);
        }
        Ok(())
    }

    fn print(&self, world: World, name: &str, ours: &[f64], report: Report) -> anyhow::Result<()> {
        let figure = report.figure(name, "1/s", ours);
        let figure = match world.mix {
            Mix::Exact => figure.of(median(&self.look_up)),
            Mix::Mixed => figure.of(median(&self.sonic)),
        };
        let bar = match (world.mix, world.subscriptions, world.tenants) {
            (Mix::Exact, ..) => Some(BAR_LOOK_UP),
            (Mix::Mixed, 100_000.., 1) => Some(BAR_TOGETHER),
            (Mix::Mixed, 100_000.., 100..) => Some(BAR_SPREAD),
            (Mix::Mixed, ..) => None,
        };
        report.print(&match bar {
            Some(bar) => figure.at_least(bar),
            None => figure,
        })?;
        let limit = median(ours);
        report.print(
            &report
                .figure(&format!("{name}: naive"), "1/s", &self.naive)
                .of(limit),
        )?;
        if self.quamina.is_empty() {
            note(format_args!("{name}: quamina is not asked"));
            return Ok(());
        }
        report.print(
            &report
                .figure(&format!("{name}: quamina"), "1/s", &self.quamina)
                .of(limit),
        )
    }
}

// === memory ===

/// Weighs a world in a process of its own.
fn memory(world: World, report: Report) -> anyhow::Result<()> {
    let World {
        mix,
        subscriptions,
        tenants,
    } = world;
    let weigh = format!("{}:{subscriptions}:{tenants}", mix.name());
    let program = std::env::current_exe().context("this program")?;
    let output = Command::new(program).args(["--weigh", &weigh]).output()?;
    ensure!(
        output.status.success(),
        "weighing {weigh}: {}",
        output.status
    );
    let bytes: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let each = bytes / f64::from(subscriptions);
    let name = format!("{}: memory a subscription", title(world));
    report.print(&report.figure(&name, "bytes", &[each]))
}

/// Prints how many bytes the index of a world takes, as `mix:subscriptions:tenants` names it.
///
/// # Errors
/// Where it names none, or the system does not say.
pub(crate) fn weigh(name: &str) -> anyhow::Result<()> {
    let parts: Vec<&str> = name.split(':').collect();
    let [mix, subscriptions, tenants] = parts[..] else {
        anyhow::bail!("`{name}` is not mix:subscriptions:tenants");
    };
    let mix = match mix {
        "exact" => Mix::Exact,
        "mixed" => Mix::Mixed,
        other => anyhow::bail!("`{other}` is no mix"),
    };
    let world = World {
        mix,
        subscriptions: subscriptions.parse()?,
        tenants: tenants.parse()?,
    };
    let before = resident()?;
    let index = build(world)?;
    let after = resident()?;
    ensure!(
        index.len() == usize::try_from(world.subscriptions)?,
        "some are missing"
    );
    line((after - before) * 1024)
}

/// KiB of this process in memory.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = field.and_then(|field| field.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}
