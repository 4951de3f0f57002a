//! Mixed traffic for a long time: the dispatcher's memory does not grow with it.
//!
//! A minute, of which the slope is only reported; with `./test --long` twenty, of which the last
//! fifteen grow by 1 MiB a minute at most.

use std::time::Duration;

use harness::{Pipeline, never, now_ms};
use runtime::clock::millis;

use crate::pipeline;
use crate::traffic::Traffic;

const EVENTS_PER_S: u64 = 100;
const SLOPE_MAX_KIB_A_MINUTE: f64 = 1_024.0;
const STEP_MS: i64 = 1_000;
const SERVICES: [&str; 4] = ["dispatcher-1", "router-1", "ingest", "control"];

/// How long it runs.
#[derive(Clone, Copy, Debug)]
struct Span {
    whole: Duration,
    /// For how long of that, at its end, memory is looked at.
    looked_at: Duration,
    /// Until when the hanging endpoint hangs.
    sick: Duration,
}

fn span() -> Span {
    let (whole, looked_at, sick) = if harness::long() {
        (20 * 60, 15 * 60, 20 * 60)
    } else {
        (60, 45, 30)
    };
    Span {
        whole: Duration::from_secs(whole),
        looked_at: Duration::from_secs(looked_at),
        sick: Duration::from_secs(sick),
    }
}

/// Memory at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: i64,
    kib: u64,
}

/// The slope of the line with the least squares, KiB a minute.
fn slope(samples: &[Sample]) -> f64 {
    let first = samples.first().map_or(0, |sample| sample.at);
    let minutes = |sample: &Sample| {
        f64::from(i32::try_from(sample.at - first).expect("days at most")) / 60_000.0
    };
    let kib = |sample: &Sample| f64::from(u32::try_from(sample.kib).expect("a process's memory"));
    let count = f64::from(u32::try_from(samples.len()).expect("few samples"));
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (middle, level) = (mean(&minutes), mean(&kib));
    let shared: f64 = samples
        .iter()
        .map(|sample| (minutes(sample) - middle) * (kib(sample) - level))
        .sum();
    let spread: f64 = samples
        .iter()
        .map(|sample| (minutes(sample) - middle).powi(2))
        .sum();
    shared / spread
}

#[test]
fn a_slope_is_that_of_the_line_with_the_least_squares() {
    let line = |of: fn(i64) -> i64| -> Vec<Sample> {
        let sample = |at: i64| Sample {
            at: at * 60_000,
            kib: u64::try_from(of(at)).expect("memory"),
        };
        (0..10).map(sample).collect()
    };
    let check = |of: fn(i64) -> i64, expected: f64| {
        let found = slope(&line(of));
        assert!((found - expected).abs() < 0.01, "{found} for {expected}");
    };
    check(|_| 7_000, 0.0);
    check(|minute| 5_000 + 300 * minute, 300.0);
    check(|minute| 5_000 - 200 * minute, -200.0);
    // A jump at half of it: 6 × 0.5 × 1000 × n / (n² - 1) × n / n of ten samples.
    check(|minute| if minute < 5 { 1_000 } else { 2_000 }, 151.515);
}

#[tokio::test]
async fn memory_does_not_grow_with_time() {
    let mut pipeline = pipeline().heavy().start().await;
    if pipeline.process("dispatcher-1").rss_kib().is_none() {
        harness::not_run("the soak: this machine does not say a process's memory");
        return;
    }
    let traffic = Traffic::start(&pipeline).await;
    let load = traffic.load(&pipeline, EVENTS_PER_S);
    let grown = watch(&mut pipeline, &traffic, span()).await;
    let sent = load.stop();
    traffic.cure();
    traffic.all_accepted(&sent, Duration::from_mins(15)).await;
    let repeats = traffic.repeats(&sent);
    assert!(
        repeats.is_empty(),
        "nobody died, yet {} came again; the first: {}",
        repeats.len(),
        repeats[0]
    );
    traffic.expect_limits();
    traffic.expect_holds(&[]);
    traffic.expect_order(&sent);
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
    if harness::long() {
        assert!(
            grown <= SLOPE_MAX_KIB_A_MINUTE,
            "the dispatcher grew by {grown:.0} KiB a minute"
        );
    }
}

/// Watches memory, says how it went, and returns the dispatcher's slope at the end.
async fn watch(pipeline: &mut Pipeline, traffic: &Traffic, span: Span) -> f64 {
    let start = now_ms();
    let mut samples: [Vec<Sample>; SERVICES.len()] = Default::default();
    never("a process without memory", span.whole, async || {
        let at = now_ms();
        let last = samples[0].last().map_or(0, |sample| sample.at);
        if at < last + STEP_MS {
            return false;
        }
        if at >= start + millis(span.sick) {
            traffic.cure();
        }
        for (name, samples) in SERVICES.iter().zip(&mut samples) {
            let Some(kib) = pipeline.process(name).rss_kib() else {
                return true;
            };
            samples.push(Sample { at, kib });
        }
        false
    })
    .await;
    let skipped = millis(span.whole - span.looked_at);
    let mut slopes = Vec::new();
    for (name, samples) in SERVICES.iter().zip(&samples) {
        let late: Vec<Sample> = samples
            .iter()
            .copied()
            .filter(|sample| sample.at >= start + skipped)
            .collect();
        let slope = slope(&late);
        let kib = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.kib);
        eprintln!(
            "{name}: {slope:.0} KiB a minute over {:?}, from {} to {} KiB",
            span.looked_at,
            kib(late.first()),
            kib(late.last())
        );
        slopes.push(slope);
    }
    slopes[0]
}
