//! The lane of an endpoint that fails, hangs or has large bodies.

use super::*;

fn open(lane: &mut Lane, now: Instant) {
    for _ in 0..8 {
        assert!(attempted(lane.turn(now)).is_some());
        end(lane, Health::Failed, ms(1), now);
    }
    assert!(!lane.breaker().is_closed());
}

#[test]
fn while_its_breaker_is_open_nothing_but_one_probe_goes() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 15);
    open(&mut lane, now);
    let probe_at = now + ms(1_000);
    assert_eq!(until(&lane.turn(now)), Some(probe_at));
    assert_eq!(attempted(lane.turn(probe_at)), Some(8));
    assert!(matches!(lane.turn(probe_at + ms(500)), Turn::Idle));
    let change = end(&mut lane, Health::Failed, ms(1), probe_at);
    assert_eq!(change, Some(breaker::Change::StillOpen));
    let again = probe_at + ms(2_000);
    assert_eq!(until(&lane.turn(probe_at)), Some(again));
    assert_eq!(attempted(lane.turn(again)), Some(9));
    let change = end(&mut lane, Health::Served, ms(1), again);
    assert_eq!(change, Some(breaker::Change::Closed));
    assert_eq!(attempted(lane.turn(again)), Some(10));
}

#[test]
fn what_is_deferred_while_it_is_open_is_due_behind_the_probe() {
    // rule 7
    let now = Instant::now();
    let mut lane = lane(now, 9, 9);
    open(&mut lane, now);
    let probe_at = now + ms(1_000);
    let probe = lane.reserve(now, now + ms(5_000), 0);
    assert_eq!((probe.due, probe.down), (probe_at, false));
    let next = lane.reserve(now, now, 0);
    assert!(next.down && next.due >= probe_at);
    assert!(!lane.is_spent(now + HORIZON * 100), "it is remembered");
}

#[test]
fn a_probe_beyond_the_horizon_hands_everything_back() {
    let mut now = Instant::now();
    let mut lane = lane(now, 9, 23);
    open(&mut lane, now);
    for seconds in [1, 2, 4, 8] {
        assert!(!lane.is_full(now, HORIZON, usize::MAX));
        now += ms(seconds * 1_000);
        assert!(attempted(lane.turn(now)).is_some());
        end(&mut lane, Health::Failed, ms(1), now);
    }
    assert!(lane.is_full(now, HORIZON, usize::MAX));
    assert_eq!(lane.overdue(now, HORIZON).len(), 11);
    // Whatever comes when the probe is due is the probe.
    now += ms(16_000);
    assert!(!lane.is_full(now, HORIZON, usize::MAX));
    lane.push(delivery(99, false, now));
    assert_eq!(attempted(lane.turn(now)), Some(99));
}

#[test]
fn an_attempt_that_says_nothing_leaves_the_endpoint_as_it_was() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 20);
    for _ in 0..10 {
        assert!(attempted(lane.turn(now)).is_some());
        let excused = Attempted {
            started: now,
            took: ms(15_000),
            items: NonZeroU32::MIN,
            health: None,
            wall: 0,
            jitter: 0.5,
        };
        assert_eq!(lane.finished(&excused, now), None);
    }
    assert!(lane.breaker().is_new());
    assert_eq!(lane.pace(now), Pace::Unknown);
    assert_eq!(lane.in_flight(), 0);
}

#[test]
fn a_lane_is_not_known_to_be_quick_before_an_attempt_has_ended_soon() {
    let now = Instant::now();
    let mut lane = lane(now, 9, 9);
    assert_eq!(lane.pace(now), Pace::Unknown);
    assert!(attempted(lane.turn(now)).is_some());
    assert_eq!(lane.pace(now + ms(9_000)), Pace::Unknown);
    done(&mut lane, ms(5), now + ms(9_000));
    assert_eq!(lane.pace(now + ms(9_000)), Pace::Quick);
    // One that has begun to hang is slow before its attempts time out.
    assert!(attempted(lane.turn(now + ms(9_000))).is_some());
    assert_eq!(lane.pace(now + ms(9_999)), Pace::Quick);
    assert_eq!(lane.pace(now + ms(10_000)), Pace::Slow);
    done(&mut lane, ms(15_000), now + ms(24_000));
    assert_eq!(lane.pace(now + ms(24_000)), Pace::Slow);
}

#[test]
fn a_new_lane_starts_with_a_few_attempts_whatever_its_cap() {
    let now = Instant::now();
    let mut lane = lane(now, 64, 100);
    let started = (0..100).filter(|_| attempted(lane.turn(now)).is_some());
    assert_eq!(started.count(), 4);
}

#[test]
fn large_bodies_take_as_many_rounds_as_they_have_bytes_of_small_ones() {
    let now = Instant::now();
    let sized = |bytes: usize| {
        let mut lane = Lane::new(now, 4);
        for offset in 0..1_000 {
            let mut delivery = delivery(offset, false, now);
            let meters = [Meter::default(), Meter::default()];
            delivery.loaded = Loaded::new(delivery.loaded.record.clone(), bytes, meters);
            lane.push(delivery);
        }
        lane
    };
    let rounds = |mut lane: Lane, rounds: usize| -> usize {
        let round = |_: &usize| match lane.turn(now) {
            Turn::Attempt(_) => {
                done(&mut lane, ms(1), now);
                true
            }
            Turn::Later => false,
            other @ (Turn::Wait(_) | Turn::Save | Turn::Idle) => panic!("{other:?}"),
        };
        (0..rounds).filter(round).count()
    };
    assert_eq!(rounds(sized(300), 640), 640, "small ones go in each");
    let large = rounds(sized(1 << 20), 640);
    assert!((9..=10).contains(&large), "{large} of 1 MiB in 640 rounds");
    let medium = rounds(sized(31 << 10), 640);
    assert_eq!(medium, 320, "two rounds for each of 31 KiB");
}

#[test]
fn a_lane_is_through_in_time_only_where_its_endpoint_moves_and_is_quick_enough() {
    let now = Instant::now();
    let mut quick = lane(now, 4, 1_000);
    for _ in 0..500 {
        assert!(attempted(quick.turn(now)).is_some());
        done(&mut quick, ms(4), now);
    }
    let later = now + ms(500);
    assert!(quick.is_through_within(later, ms(1_000)));
    assert!(!quick.is_through_within(later, ms(100)), "as it is known");
    let stalled = now + STALLED;
    assert!(!quick.is_through_within(stalled, HORIZON), "nothing ends");
    done(&mut quick, ms(4), stalled);
    assert!(quick.is_through_within(stalled, HORIZON));
    quick.hold(stalled + ms(10));
    assert!(!quick.is_through_within(stalled, HORIZON), "held");
}
