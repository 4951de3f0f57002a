//! Limited endpoints with a backlog under 1, 2 and 4 dispatchers: whether a limit is ever exceeded,
//! how much of it is used, and how long a death keeps its endpoints waiting.
//!
//! Everything is judged by when attempts began, as the dispatchers recorded it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use schemas::ids::EndpointId;
use schemas::records::AttemptRecord;
use serde_json::json;
use tokio::time::sleep;

use super::Plan;
use super::dispatcher::fill;
use crate::bare::{self, milliseconds};
use crate::pace::wall_us;
use crate::report::{Report, note};
use crate::sink::Sink;
use crate::stack::{Stack, Wish};

const PROCESSES: [usize; 3] = [1, 2, 4];
const ENDPOINTS: usize = 24;
const LIMIT: usize = 50;
const WINDOW_MS: i64 = 1_000;
/// Members join one after another; ownership settles within.
const SETTLES: Duration = Duration::from_secs(10);
/// A session of 10 s, and a new owner that starts its windows as used.
const TAKE_OVER: Duration = Duration::from_secs(20);
const KILLED: usize = 0;
const USE: f64 = 0.97;
const TAKE_OVER_MS: f64 = 15_000.0;

/// What was found with a number of processes.
#[derive(Debug, Default)]
struct Rounds {
    uses: Vec<f64>,
    over: Vec<f64>,
    take_over_ms: Vec<f64>,
}

/// An attempt: its endpoint, when it began, and who made it.
type Attempt = (EndpointId, i64, String);

/// Runs it.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) async fn run(plan: &Plan, report: Report) -> anyhow::Result<()> {
    for processes in PROCESSES {
        let mut rounds = Rounds::default();
        for round in 1..=plan.rounds {
            measure(plan, processes, &mut rounds).await?;
            let used = rounds.uses.last().copied().unwrap_or_default();
            note(format_args!(
                "{processes} processes, round {round}: {used:.3} of the limit used"
            ));
        }
        let name = format!("{processes} dispatchers: attempts beyond the limit");
        report.print(&report.figure(&name, "attempts", &rounds.over).at_most(0.0))?;
        let name = format!("{processes} dispatchers: share of the limit used");
        report.print(&report.figure(&name, "", &rounds.uses).at_least(USE))?;
        if processes > 1 {
            let name = format!("{processes} dispatchers: kill to the new owner's first");
            let figure = report.figure(&name, "ms", &rounds.take_over_ms);
            report.print(&figure.at_most(TAKE_OVER_MS))?;
        }
    }
    Ok(())
}

async fn measure(plan: &Plan, processes: usize, rounds: &mut Rounds) -> anyhow::Result<()> {
    let calm = Duration::from_secs(plan.choose(30, 10));
    let mut stack = Stack::kafka(plan, &[]).await?;
    let sink = Sink::start(stack.dir(), false).await?;
    let span = (SETTLES + calm + TAKE_OVER).as_secs() + 60;
    backlog(&stack, &sink, u64::try_from(LIMIT)? * span).await?;
    for number in 0..processes {
        stack.start_replica(number).await?;
    }
    sleep(SETTLES).await;
    let from = wall_us() / 1_000;
    sleep(calm).await;
    let to = wall_us() / 1_000;
    let killed = (processes > 1).then_some(to);
    if killed.is_some() {
        stack.kill_replica(KILLED)?;
        sleep(TAKE_OVER).await;
    }
    stack.stop_replicas().await?;
    let attempts = attempts(&stack).await?;
    rounds
        .over
        .push(f64::from(u32::try_from(beyond(&attempts))?));
    let calm_attempts = attempts.iter().filter(|(_, at, _)| (from..to).contains(at));
    let count = f64::from(u32::try_from(calm_attempts.count())?);
    let limit = f64::from(u32::try_from(ENDPOINTS * LIMIT)?);
    rounds
        .uses
        .push(count * 1_000.0 / (limit * milliseconds((to - from) * 1_000)));
    if let Some(at) = killed {
        rounds.take_over_ms.push(taken_over(&attempts, at)?);
    }
    Ok(())
}

/// Limited endpoints, each with `each` deliveries that wait for it.
async fn backlog(stack: &Stack, sink: &Sink, each: u64) -> anyhow::Result<()> {
    let wish = |number| Wish {
        url: format!("{}/{number}", sink.url()),
        event_type: None,
    };
    let wishes: Vec<Wish> = (0..ENDPOINTS).map(wish).collect();
    let hooks = stack.hooks_as(&wishes).await?;
    let limit = json!({ "count": LIMIT, "per_ms": WINDOW_MS, "kind": "sliding" });
    stack.patch(&hooks, &json!({ "limits": [limit] })).await?;
    for (number, hook) in hooks.iter().enumerate() {
        fill(stack, hook, u64::try_from(number)? * each, each).await?;
    }
    Ok(())
}

async fn attempts(stack: &Stack) -> anyhow::Result<Vec<Attempt>> {
    let decode = |value: &[u8]| {
        let attempt: AttemptRecord = serde_json::from_slice(value)?;
        Ok((attempt.endpoint, attempt.started_at, attempt.instance))
    };
    let mut found = bare::values(stack.brokers(), &stack.topic("attempts"), decode).await?;
    found.sort_by_key(|(_, at, _)| *at);
    ensure!(!found.is_empty(), "no attempt was recorded");
    Ok(found)
}

/// How many attempts came too early: with the one `LIMIT` before them less than a window ago.
fn beyond(attempts: &[Attempt]) -> usize {
    let mut times: BTreeMap<EndpointId, Vec<i64>> = BTreeMap::new();
    for (endpoint, at, _) in attempts {
        times.entry(*endpoint).or_default().push(*at);
    }
    let early = |times: &[i64]| {
        let pairs = times.iter().zip(times.iter().skip(LIMIT));
        // Times are whole milliseconds: two of them may be one closer than they were.
        pairs
            .filter(|(first, next)| *next - *first < WINDOW_MS - 1)
            .count()
    };
    times.values().map(|times| early(times)).sum()
}

/// From the death to the first attempt by another at an endpoint that the dead process had.
fn taken_over(attempts: &[Attempt], killed_at: i64) -> anyhow::Result<f64> {
    let dead = format!("load-dispatcher-{KILLED}");
    let owned: BTreeSet<EndpointId> = attempts
        .iter()
        .filter(|(_, at, by)| *at > killed_at - 5_000 && *by == dead)
        .map(|(endpoint, _, _)| *endpoint)
        .collect();
    let first = attempts
        .iter()
        .find(|(endpoint, at, by)| *at > killed_at && *by != dead && owned.contains(endpoint));
    let (_, at, _) = first.context("nobody took over")?;
    Ok(milliseconds((at - killed_at) * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_beyond_the_limit_where_its_window_is_full() {
        let check = |gap: i64, expected: usize| {
            let attempts: Vec<Attempt> = (0..=i64::try_from(LIMIT).unwrap())
                .map(|number| (EndpointId::from_bits(1), number * gap, String::new()))
                .collect();
            assert_eq!(beyond(&attempts), expected, "{gap}");
        };
        check(20, 0);
        check(19, 1);
        check(0, 1);
    }

    #[test]
    fn the_take_over_is_reckoned_from_the_death() {
        let attempt = |endpoint: u128, at, by: &str| {
            (
                EndpointId::from_bits(endpoint),
                at,
                format!("load-dispatcher-{by}"),
            )
        };
        let attempts = [
            attempt(1, 9_000, "0"),
            attempt(2, 9_000, "1"),
            attempt(2, 10_100, "1"),
            attempt(1, 21_000, "1"),
        ];
        let took = taken_over(&attempts, 10_000).unwrap();
        assert!((took - 11_000.0).abs() < 1e-9, "{took}");
    }
}
