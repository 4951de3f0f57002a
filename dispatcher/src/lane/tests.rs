//! The lane: who goes first, who must wait, and what is handed back.

use std::num::NonZeroU64;

use schemas::event::Event;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{AttemptState, DeliveryRecord, Origin, Target};
use schemas::resources::{Batch, BatchFormat, LimitUnit, Quota, WindowKind};

mod health;
mod watched;

use super::*;
use crate::ledger::Place;
use crate::work::{Loaded, Meter};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const HORIZON: Duration = Duration::from_secs(10);

/// A delivery that is known by its offset; `due` ones come from a delay topic.
fn delivery(offset: i64, due: bool, queued_at: Instant) -> Delivery {
    let target = Target::new(SubscriptionId::from_bits(1), EndpointId::from_bits(1));
    let record = DeliveryRecord {
        origin: Origin {
            topic: "events".into(),
            partition: 0,
            offset,
            index: 0,
        },
        router_position: None,
        accepted_at: offset,
        control_offset: 0,
        event: Event::builder("1", "/s", "t").build().unwrap(),
        targets: vec![target.clone()],
    };
    let state = AttemptState {
        hops: u32::from(due),
        ..AttemptState::default()
    };
    Delivery {
        loaded: Loaded::new(record, 100, [Meter::default(), Meter::default()]),
        source: 0,
        place: Place { offset, index: 0 },
        target,
        state,
        queued_at,
        line: None,
        company: Vec::new(),
        is_piece: false,
        sent: None,
    }
}

fn rate(requests: u32, per_ms: u64) -> Vec<RateWindow> {
    vec![RateWindow {
        count: NonZeroU32::new(requests).unwrap(),
        per_ms: NonZeroU64::new(per_ms).unwrap(),
        unit: LimitUnit::Requests,
        kind: WindowKind::Spread { burst: None },
    }]
}

/// The offset of what may be attempted.
fn attempted(turn: Turn) -> Option<i64> {
    match turn {
        Turn::Attempt(delivery) => Some(delivery.place.offset),
        Turn::Wait(_) | Turn::Later | Turn::Save | Turn::Idle => None,
    }
}

fn until(turn: &Turn) -> Option<Instant> {
    match turn {
        Turn::Wait(until) => Some(*until),
        Turn::Attempt(_) | Turn::Later | Turn::Save | Turn::Idle => None,
    }
}

/// Ends an attempt that was served.
fn done(lane: &mut Lane, took: Duration, now: Instant) {
    end(lane, Health::Served, took, now);
}

fn end(lane: &mut Lane, health: Health, took: Duration, now: Instant) -> Option<breaker::Change> {
    let attempted = Attempted {
        started: now,
        took,
        items: NonZeroU32::MIN,
        health: Some(health),
        wall: 0,
        jitter: 0.5,
    };
    lane.finished(&attempted, now)
}

/// A lane with room for `concurrency` attempts and fresh deliveries 0, 1, 2, …
fn lane(now: Instant, concurrency: u32, fresh: i64) -> Lane {
    let mut lane = Lane::new(now, concurrency);
    for offset in 0..fresh {
        lane.push(delivery(offset, false, now));
    }
    lane
}

#[test]
fn what_has_come_due_goes_before_what_is_fresh() {
    // rule 7
    let now = Instant::now();
    let mut lane = lane(now, 9, 2);
    lane.push(delivery(10, true, now));
    lane.push_waiting(now + ms(20), delivery(12, true, now));
    lane.push_waiting(now + ms(10), delivery(11, true, now));
    let mut attempted_at = |after: u64| attempted(lane.turn(now + ms(after)));
    assert_eq!(attempted_at(0), Some(10));
    assert_eq!(attempted_at(0), Some(0));
    assert_eq!(attempted_at(20), Some(11), "the earliest due time first");
    assert_eq!(attempted_at(20), Some(12));
    done(&mut lane, ms(1), now + ms(20));
    assert_eq!(attempted(lane.turn(now + ms(20))), Some(1));
    assert!(matches!(lane.turn(now + ms(20)), Turn::Idle));
}

#[test]
fn a_retry_that_is_queued_again_counts_as_due() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 1);
    let mut retry = delivery(10, false, now);
    retry.state.attempts = 1;
    lane.push(retry);
    assert_eq!(attempted(lane.turn(now)), Some(10));
}

#[test]
fn a_hold_stops_the_whole_quota_and_is_never_shortened() {
    // rule 11
    let now = Instant::now();
    let mut lane = lane(now, 9, 2);
    lane.hold(now + ms(500));
    lane.hold(now + ms(300));
    assert_eq!(until(&lane.turn(now)), Some(now + ms(500)));
    assert_eq!(until(&lane.turn(now + ms(499))), Some(now + ms(500)));
    assert_eq!(attempted(lane.turn(now + ms(500))), Some(0));
}

#[test]
fn no_more_than_its_concurrency_is_in_flight() {
    let now = Instant::now();
    let mut lane = lane(now, 2, 5);
    assert_eq!(attempted(lane.turn(now)), Some(0));
    assert_eq!(attempted(lane.turn(now)), Some(1));
    assert!(matches!(lane.turn(now), Turn::Idle));
    done(&mut lane, ms(5), now);
    assert_eq!(attempted(lane.turn(now)), Some(2));
    assert!(matches!(lane.turn(now), Turn::Idle));
    lane.not_started(now, now);
    assert_eq!(attempted(lane.turn(now)), Some(3));
    lane.configure(&[], 3, now);
    assert_eq!(
        attempted(lane.turn(now)),
        Some(4),
        "more at once from now on"
    );
}

#[test]
fn a_limit_is_waited_for_without_losing_a_turn() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 3);
    lane.configure(&rate(10, 1_000), 9, now);
    // A new window starts as used (rule 5).
    assert_eq!(until(&lane.turn(now)), Some(now + ms(101)));
    assert_eq!(attempted(lane.turn(now + ms(101))), Some(0));
    assert_eq!(until(&lane.turn(now + ms(101))), Some(now + ms(202)));
    // The same again is no change, and does not start the window anew.
    lane.configure(&rate(10, 1_000), 9, now + ms(202));
    assert_eq!(attempted(lane.turn(now + ms(202))), Some(1));
    lane.configure(&[], 9, now + ms(202));
    assert_eq!(attempted(lane.turn(now + ms(202))), Some(2));
}

#[test]
fn what_has_waited_leaves_evenly_and_uses_the_limit() {
    let now = Instant::now();
    let mut lane = lane(now, 100, 60);
    let window = RateWindow {
        kind: WindowKind::Sliding,
        ..rate(10, 1_000).remove(0)
    };
    lane.configure(&[window], 100, now);
    let mut left = Vec::new();
    for after in 0..6_000 {
        let at = now + ms(after);
        while attempted(lane.turn(at)).is_some() {
            done(&mut lane, ms(0), at);
            left.push(after);
        }
    }
    let behind: Vec<u64> = left.iter().copied().filter(|at| *at >= 3_000).collect();
    assert!(behind.len() >= 29, "the limit is not used: {left:?}");
    let together = |pair: &&[u64]| pair[1] - pair[0] < 80;
    let bunched = behind.windows(2).filter(together).count();
    assert!(bunched <= 3, "{left:?}");
}

#[test]
fn a_turn_at_full_concurrency_spends_nothing_of_the_limit() {
    let now = Instant::now();
    let mut lane = lane(now, 1, 2);
    lane.configure(&rate(10, 1_000), 1, now);
    assert_eq!(attempted(lane.turn(now + ms(101))), Some(0));
    assert!(matches!(lane.turn(now + ms(202)), Turn::Idle));
    done(&mut lane, ms(50), now + ms(202));
    assert_eq!(attempted(lane.turn(now + ms(202))), Some(1));
}

#[test]
fn what_waits_longer_than_the_horizon_is_handed_back() {
    // rule 7
    let now = Instant::now();
    let mut lane = lane(now, 0, 2);
    lane.push(delivery(10, true, now + ms(1)));
    lane.push_waiting(now + ms(5_000), delivery(11, true, now));
    let offsets = |taken: Vec<Delivery>| -> Vec<i64> {
        taken.iter().map(|delivery| delivery.place.offset).collect()
    };
    assert!(lane.overdue(now + HORIZON - ms(1), HORIZON).is_empty());
    assert_eq!(offsets(lane.overdue(now + HORIZON, HORIZON)), [0, 1]);
    assert_eq!(offsets(lane.overdue(now + HORIZON + ms(1), HORIZON)), [10]);
    // What waited for its due time waits for its turn only since then.
    let later = now + HORIZON + HORIZON;
    assert_eq!(lane.len(), 1);
    assert_eq!(
        offsets(lane.overdue(later - ms(2), HORIZON)),
        [] as [i64; 0]
    );
    assert_eq!(lane.len(), 1);
}

#[test]
fn a_hold_beyond_the_horizon_hands_everything_back_at_once() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 3);
    lane.hold(now + HORIZON);
    assert!(lane.overdue(now, HORIZON).is_empty());
    assert!(!lane.is_full(now, HORIZON, usize::MAX));
    lane.hold(now + HORIZON + ms(1));
    assert!(lane.is_full(now, HORIZON, usize::MAX));
    assert_eq!(lane.overdue(now, HORIZON).len(), 3);
    assert_eq!(lane.len(), 0);
}

#[test]
fn a_lane_is_full_by_its_limit_or_its_bytes() {
    let now = Instant::now();
    let check = |queued: i64, rate: Vec<RateWindow>, bytes_max, full: bool| {
        let mut lane = lane(now, 1, queued);
        lane.configure(&rate, 1, now);
        let found = lane.is_full(now, HORIZON, bytes_max);
        assert_eq!(found, full, "{queued} queued, {rate:?}");
    };
    check(98, rate(10, 1_000), usize::MAX, false);
    check(99, rate(10, 1_000), usize::MAX, true);
    check(101, vec![], usize::MAX, false);
    let each = delivery(0, false, now).bytes();
    check(3, vec![], each, true);
    // A lane that moves is read for later, and full at twice its share.
    check(3, vec![], 2 * each, false);
    let mut lane = lane(now, 1, 3);
    assert!(lane.is_busy(now, 3 * each));
    assert!(!lane.is_busy(now, 3 * each + 1));
    // One that has stood still for a second is full at its share.
    let later = now + ms(1_000);
    assert!(!lane.is_busy(later, 3 * each));
    assert!(lane.is_full(later, HORIZON, 3 * each));
    assert!(!lane.is_full(later, HORIZON, 3 * each + 1));
}

#[test]
fn deferred_deliveries_are_spaced_by_the_limit() {
    // rule 7: deferring reserves
    let now = Instant::now();
    let mut lane = Lane::new(now, 1);
    lane.configure(&rate(10, 1_000), 1, now);
    for place in 0..50 {
        assert_eq!(lane.reserve(now, now, 0).due, now + ms(101) * place);
    }
    // No sooner than asked for; the place in the row is spent all the same.
    assert_eq!(lane.reserve(now, now + ms(60_000), 0).due, now + ms(60_000));
    assert_eq!(lane.reserve(now, now, 0).due, now + ms(5_151));
    // What has passed unused is not given out again.
    let later = now + ms(9_000);
    assert_eq!(lane.reserve(later, later, 0).due, later);
    lane.hold(now + ms(20_000));
    assert_eq!(lane.reserve(later, later, 0).due, now + ms(20_000));
    assert_eq!(lane.reserve(later, later, 0).due, now + ms(20_101));
}

#[test]
fn without_a_limit_the_measured_time_of_attempts_spaces() {
    let now = Instant::now();
    let mut lane = lane(now, 4, 1);
    assert_eq!(lane.reserve(now, now, 0).due, now);
    assert_eq!(
        lane.reserve(now, now, 0).due,
        now,
        "nothing is measured yet"
    );
    assert!(attempted(lane.turn(now)).is_some());
    done(&mut lane, ms(400), now);
    assert_eq!(lane.reserve(now, now, 0).due, now);
    assert_eq!(lane.reserve(now, now, 0).due, now + ms(100));
    assert_eq!(lane.reserve(now, now, 0).due, now + ms(200));
}

#[test]
fn a_lane_is_spent_when_a_new_one_would_do() {
    let now = Instant::now();
    assert!(Lane::new(now, 1).is_spent(now));

    let mut busy = lane(now, 1, 1);
    assert!(!busy.is_spent(now), "queued");
    assert!(attempted(busy.turn(now)).is_some());
    assert!(!busy.is_spent(now), "in flight");
    done(&mut busy, ms(1), now);
    assert!(busy.is_spent(now));

    let mut waiting = Lane::new(now, 1);
    waiting.push_waiting(now, delivery(0, true, now));
    assert!(!waiting.is_spent(now + HORIZON), "waiting");
    assert_eq!(waiting.drain().len(), 1);
    assert!(waiting.is_spent(now));

    let mut held = Lane::new(now, 1);
    held.hold(now + ms(10));
    assert!(!held.is_spent(now + ms(9)), "held");
    assert!(held.is_spent(now + ms(10)));

    let mut reserved = Lane::new(now, 1);
    reserved.configure(&rate(10, 1_000), 1, now);
    reserved.reserve(now, now, 0);
    reserved.reserve(now + ms(1_900), now, 0);
    assert!(!reserved.is_spent(now + ms(2_000)), "reserved");
    assert!(reserved.is_spent(now + ms(2_001)));

    let mut limited = lane(now, 1, 1);
    limited.configure(&rate(1, 60_000), 1, now);
    // A long window is spent once it is reserved (rule 5).
    assert!(matches!(limited.turn(now), Turn::Save));
    assert!(limited.wants_saving());
    let quota = Quota::of_endpoint(EndpointId::from_bits(1));
    assert!(!limited.save(&quota, now, true).is_new());
    assert!(matches!(limited.turn(now), Turn::Save));
    limited.saved(true);
    assert!(attempted(limited.turn(now)).is_some());
    done(&mut limited, ms(1), now + ms(1));
    assert!(
        !limited.is_spent(now + ms(60_099)),
        "its window is not over"
    );
    assert!(limited.is_spent(now + ms(60_100)));
}

#[test]
fn the_oldest_queued_is_known() {
    let now = Instant::now();
    let mut lane = Lane::new(now, 1);
    assert_eq!(lane.oldest_accepted(), None);
    lane.push(delivery(7, false, now));
    lane.push(delivery(5, true, now));
    assert_eq!(lane.oldest_accepted(), Some(5));
}

/// The latest due time of so many that are deferred together.
fn latest_due(lane: &mut Lane, count: u32, source: usize, now: Instant) -> Instant {
    let due = (0..count).map(|_| lane.reserve(now, now + ms(5_000), source).due);
    due.max().unwrap()
}

#[test]
fn an_endpoint_that_hung_is_looked_at_again_in_time_and_forgiven_when_it_answers() {
    let now = Instant::now();
    let mut lane = Lane::new(now, 1);
    done(&mut lane, ms(15_000), now);
    let check = |lane: &mut Lane, source, reaches| {
        assert_eq!(latest_due(lane, 50_000, source, now), now + reaches);
    };
    check(&mut lane, 0, ms(30_000));
    // What comes back from there and has no turn may be planned further.
    check(&mut lane, 2, ms(120_000));
    check(&mut lane, 7, Duration::from_hours(6));
    for _ in 0..40 {
        done(&mut lane, ms(5), now);
    }
    let due = lane.reserve(now, now + ms(5_000), 0).due;
    assert_eq!(due, now + ms(5_000), "it is quick again");
}

#[test]
fn a_slow_start_fills_no_lane() {
    // rule 7: an endpoint whose first attempts waited for connections is not a slow one
    let now = Instant::now();
    let mut lane = lane(now, 64, 100_000);
    for _ in 0..4 {
        assert!(attempted(lane.turn(now)).is_some());
    }
    let later = now + ms(50);
    for _ in 0..4 {
        done(&mut lane, ms(50), later);
    }
    assert!(!lane.is_full(now + ms(999), HORIZON, usize::MAX));
    // Four ended in the first second: at that rate the last would wait for hours.
    assert!(lane.is_full(now + ms(1_000), HORIZON, usize::MAX));
    // One that is served faster than the mean time of attempts says is not full.
    for _ in 0..10_000 {
        done(&mut lane, ms(50), now + ms(1_000));
    }
    assert!(!lane.is_full(now + ms(1_500), HORIZON, usize::MAX));
}

#[test]
fn attempts_that_were_all_delayed_together_cost_what_is_deferred_next_to_nothing() {
    // rule 7: time stands still for half a second, of a lane that serves thousands a second
    let now = Instant::now();
    let mut lane = lane(now, 64, 5_000);
    lane.busy_since = now.checked_sub(ms(3_600_000)).unwrap();
    for _ in 0..64 {
        done(&mut lane, ms(2), now);
    }
    let later = now + ms(2_600);
    for _ in 0..64 {
        done(&mut lane, ms(500), later);
    }
    // All that is known says that this lane is slow: nothing waits longer for it than half a minute.
    assert!(lane.is_full(later, HORIZON, usize::MAX));
    assert_eq!(latest_due(&mut lane, 50_000, 0, later), later + ms(30_000));
    for _ in 0..500 {
        done(&mut lane, ms(2), later + ms(500));
    }
    assert!(!lane.is_full(later + ms(500), HORIZON, 1 << 40));
    // The plan has come back with what it rested on.
    let due = latest_due(&mut lane, 1, 0, later + ms(500));
    assert_eq!(due, later + ms(5_500));
    assert!(
        lane.next_free < later + ms(3_000),
        "{:?}",
        lane.next_free - later
    );
}

#[test]
fn a_request_that_waits_for_company_lets_others_of_its_quota_go() {
    let now = Instant::now();
    let mut lane = Lane::new(now, 9);
    let batch = |items: u32| Batch {
        max_items: NonZeroU32::new(items).unwrap(),
        max_bytes: NonZeroU32::new(1 << 20).unwrap(),
        max_wait_ms: 1_000,
        format: BatchFormat::CloudEvents,
    };
    let batch_of = |id: EndpointId| (id.bits() < 3).then(|| batch(2));
    let push = |lane: &mut Lane, offset, endpoint, at| {
        let mut delivery = delivery(offset, false, at);
        delivery.target.endpoint = EndpointId::from_bits(endpoint);
        lane.push(delivery);
    };
    let goes = |lane: &mut Lane, at| match lane.gather(batch_of, at) {
        Some(until) => Err(until),
        None => match lane.turn(at) {
            Turn::Attempt(unit) => Ok(unit.items().map(|item| item.place.offset).collect()),
            Turn::Wait(_) | Turn::Later | Turn::Save | Turn::Idle => Ok(Vec::new()),
        },
    };
    push(&mut lane, 0, 1, now);
    push(&mut lane, 1, 2, now);
    push(&mut lane, 2, 3, now);
    assert_eq!(goes(&mut lane, now), Ok(vec![2]), "it takes no company");
    assert_eq!(goes(&mut lane, now), Err(now + ms(1_000)));
    assert_eq!(lane.len(), 2);
    push(&mut lane, 3, 2, now + ms(5));
    assert_eq!(goes(&mut lane, now + ms(5)), Ok(vec![1, 3]), "it is full");
    assert_eq!(goes(&mut lane, now + ms(5)), Err(now + ms(1_000)));
    push(&mut lane, 4, 2, now + ms(500));
    assert_eq!(
        goes(&mut lane, now + ms(1_000)),
        Ok(vec![0]),
        "it has waited"
    );
    assert_eq!(goes(&mut lane, now + ms(1_000)), Err(now + ms(1_500)));
    assert_eq!(lane.drain().len(), 1);
    assert_eq!(lane.len(), 0);
}
