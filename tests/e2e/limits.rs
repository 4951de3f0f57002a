//! Limits that stay exact while dispatchers die and leave (rules 5 and 11).

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Endpoint, Log, Pipeline, event, eventually, never, now_ms, ok, throttles};
use serde_json::json;

use crate::pipeline;

const EVENTS: usize = 700;
const A_SECOND: usize = 50;
const A_MINUTE: usize = 600;
/// By how much more than another a request may arrive late, on a busy machine.
const LATE_MS: i64 = 250;
const HOLD: Duration = Duration::from_secs(20);
/// Within which a hold is in `progress`, on a busy machine.
const SAVED: Duration = Duration::from_secs(3);
const TAKE_OVER: Duration = Duration::from_secs(90);

/// The dispatcher that made the last attempt.
fn owner(pipeline: &Pipeline) -> String {
    let attempts = harness::attempts(pipeline.brokers(), pipeline.prefix());
    let last = attempts.iter().max_by_key(|attempt| attempt.started_at);
    last.map(|attempt| attempt.instance.clone())
        .expect("an attempt")
}

/// The most starts in any span of `ms`.
fn most_within(starts: &[i64], ms: i64) -> usize {
    starts
        .iter()
        .enumerate()
        .map(|(at, from)| {
            starts[at..]
                .iter()
                .take_while(|to| **to < from + ms)
                .count()
        })
        .max()
        .unwrap_or(0)
}

#[tokio::test]
async fn limits_and_holds_outlive_the_dispatcher_that_keeps_them() {
    let mut pipeline = pipeline()
        .on(Log::Kafka)
        .heavy()
        .dispatchers(2)
        .start()
        .await;
    let limits = json!({ "limits": [
        { "count": A_SECOND, "per_ms": 1_000, "kind": "sliding" },
        { "count": A_MINUTE, "per_ms": 60_000, "kind": "sliding" },
    ] });
    let endpoint = pipeline.endpoint_with(ok(), limits).await;
    pipeline.subscription(&endpoint, &[]).await;
    windows_outlive_a_kill(&mut pipeline, &endpoint).await;
    for is_kill in [true, false] {
        a_hold_outlives(is_kill, &mut pipeline, &endpoint).await;
    }
}

/// The dispatcher is killed within the windows of `endpoint`.
async fn windows_outlive_a_kill(pipeline: &mut Pipeline, endpoint: &Endpoint) {
    for number in 0..EVENTS {
        let id = format!("limited-{number}");
        pipeline.publish(&event("com.acme.limited", id)).await;
    }
    endpoint.sink.expect_requests(200).await;
    // Killed within its windows.
    let first = owner(pipeline);
    pipeline.process(&first).kill();
    eventually("every event once", TAKE_OVER * 2, async || {
        let ids = |all: &[harness::Arrival]| {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            for arrival in all {
                *seen.entry(arrival.event_id.clone()).or_default() += 1;
            }
            seen.len()
        };
        (endpoint.sink.look(ids) == EVENTS).then_some(())
    })
    .await;
    pipeline.process(&first).restart();
    pipeline.ready(&first).await;
    let arrived: Vec<i64> = endpoint.sink.look(|all| {
        let mut at: Vec<i64> = all.iter().map(|arrival| arrival.at).collect();
        at.sort_unstable();
        at
    });
    let (second, minute) = (
        most_within(&arrived, 1_000 - LATE_MS),
        most_within(&arrived, 60_000 - LATE_MS),
    );
    assert!(second <= A_SECOND, "{second} in a second");
    assert!(minute <= A_MINUTE, "{minute} in a minute");
}

/// The dispatcher dies or leaves while `endpoint` is held.
async fn a_hold_outlives(is_kill: bool, pipeline: &mut Pipeline, endpoint: &Endpoint) {
    let before = endpoint.sink.count();
    let next = u32::try_from(before).expect("few requests") + 1;
    endpoint.sink.behave(throttles(next, HOLD.as_secs()));
    for number in 0..5 {
        let id = format!("held-{is_kill}-{number}");
        pipeline.publish(&event("com.acme.held", id)).await;
    }
    endpoint.sink.expect_requests(before + 1).await;
    tokio::time::sleep(SAVED).await;
    let told = endpoint.sink.look(|all| {
        all.iter()
            .rev()
            .find(|arrival| arrival.status == 429)
            .map(|arrival| arrival.at)
    });
    let until = told.expect("a 429") + i64::try_from(HOLD.as_millis()).unwrap_or(0);
    let asked = endpoint.sink.count();
    let holder = owner(pipeline);
    if is_kill {
        pipeline.process(&holder).kill();
    } else {
        pipeline.process(&holder).signal("TERM");
    }
    let left = u64::try_from(until - now_ms()).unwrap_or(0);
    never(
        "an attempt during the hold",
        Duration::from_millis(left),
        async || {
            endpoint.sink.look(|all| {
                let early = |arrival: &harness::Arrival| arrival.at < until;
                all.iter().skip(asked).any(early)
            })
        },
    )
    .await;
    let last = event("com.acme.held", format!("after-{is_kill}"));
    pipeline.publish(&last).await;
    endpoint.sink.expect_requests(before + 7).await;
    // Attempts are recorded a moment after they end.
    eventually("somebody else has taken over", TAKE_OVER, async || {
        (owner(pipeline) != holder).then_some(())
    })
    .await;
    if !is_kill {
        let ended = pipeline.process(&holder).exit(TAKE_OVER).await;
        assert!(ended.success(), "{ended}");
    }
    pipeline.process(&holder).restart();
    pipeline.ready(&holder).await;
}
