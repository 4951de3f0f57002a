//! A seed decides everything: one scenario with every awkward part, run again and again.

use std::collections::BTreeMap;

use super::super::Trace;
use super::*;

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Outcome {
    trace: Trace,
    acknowledged: BTreeMap<String, i64>,
    stored: Vec<(i64, String)>,
}

/// Two processes write and commit on a rough log; one is stopped, woken and crashed meanwhile.
fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (log, topic) = simulation(calm_at_first(seed), 3).await;
        roughen(&log, seed);
        let _guard = log.trace_on_panic();
        let (steady, shaky) = (work(&log, "steady", &topic), work(&log, "shaky", &topic));
        let trouble = async {
            for step in [2, 15, 3] {
                assert!(is_stuck(seconds(step), std::future::pending::<()>()).await);
                match step {
                    2 => log.stop("shaky"),
                    15 => log.wake("shaky"),
                    _ => log.crash("shaky"),
                }
            }
        };
        let both = async { futures_util::join!(timeout(seconds(60), shaky), trouble) };
        let (acknowledged, _) = futures_util::join!(steady, both);
        assert!(is_stuck(seconds(30), std::future::pending::<()>()).await);
        let mut stored = Vec::new();
        for number in 0..3 {
            for record in log.records(&topic.partition(number)) {
                let value = record.value.unwrap();
                stored.push((record.offset, String::from_utf8_lossy(&value).into_owned()));
            }
        }
        Outcome {
            trace: log.trace(),
            acknowledged,
            stored,
        }
    })
}

fn calm_at_first(seed: u64) -> SimulationOptions {
    SimulationOptions {
        probabilities: Vec::new(),
        ..SimulationOptions::rough(seed)
    }
}

fn roughen(log: &SimulatedLog, seed: u64) {
    for (operation, fault, probability) in SimulationOptions::rough(seed).probabilities {
        log.faults().set_probability(operation, fault, probability);
    }
}

/// Writes 40 records, plain and in transactions, commits as it goes; returns what it knows to be
/// in the log.
async fn work(log: &SimulatedLog, name: &str, topic: &TopicName) -> BTreeMap<String, i64> {
    let process = log.process(name);
    let (member, mut membership) = join(log, name, topic).await;
    assigned(&mut membership).await;
    let plain = producer(&process).await;
    let mut known = BTreeMap::new();
    for number in 0..40_u32 {
        while let Ok(message) = membership.try_recv() {
            drop(message);
        }
        let place = topic.partition(number % 3);
        let value = format!("{name}-{number}");
        let written = if number % 4 == 0 {
            let Ok(mut producer) = open(&process, name).await else {
                continue;
            };
            let records = vec![record(&place, &value)];
            producer
                .commit(records_only(records))
                .await
                .is_ok()
                .then_some(0)
        } else {
            let acks = plain.send(vec![record(&place, &value)]).await;
            acks.wait().await.first().and_then(|report| report.ok())
        };
        known.extend(written.map(|offset| (value, offset)));
        drop(
            member
                .commit(vec![position(&place, i64::from(number))])
                .await,
        );
    }
    known
}

async fn open(log: &SharedLog, name: &str) -> Result<Box<dyn Transactions>, crate::log::Error> {
    log.transactions(TransactionOptions {
        id: name.into(),
        timeout: seconds(5),
    })
    .await
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        assert!(first.trace.lines.len() > 100, "{}", first.trace);
    }
    assert_ne!(run(1).trace.lines, run(2).trace.lines);
}

#[test]
fn whatever_fails_what_is_acknowledged_is_there_once() {
    for seed in 10..40 {
        let Outcome {
            trace,
            acknowledged,
            stored,
        } = run(seed);
        for value in acknowledged.keys() {
            let times = stored.iter().filter(|(_, found)| found == value).count();
            assert_eq!(times, 1, "{value}: {trace}");
        }
        let mut all: Vec<_> = stored.iter().map(|(_, value)| value).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), stored.len(), "nothing is there twice: {trace}");
    }
}
