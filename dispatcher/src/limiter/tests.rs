//! Windows against an oracle that keeps every moment, hand-overs included.

use std::num::NonZeroU64;

use proptest::collection::vec;
use proptest::prelude::*;
use schemas::resources::{LimitUnit, WindowKind};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Not a multiple of any window.
const WALL: i64 = 1_795_331_700_123;

fn window(count: u32, per_ms: u64, kind: WindowKind) -> RateWindow {
    RateWindow {
        count: NonZeroU32::new(count).unwrap(),
        per_ms: NonZeroU64::new(per_ms).unwrap(),
        unit: LimitUnit::Requests,
        kind,
    }
}

fn spread(count: u32, per_ms: u64, burst: u32) -> RateWindow {
    let burst = NonZeroU32::new(burst);
    window(count, per_ms, WindowKind::Spread { burst })
}

fn sliding(count: u32, per_ms: u64) -> RateWindow {
    window(count, per_ms, WindowKind::Sliding)
}

fn fixed(count: u32, per_ms: u64, offset_ms: u64) -> RateWindow {
    window(count, per_ms, WindowKind::Fixed { offset_ms })
}

fn items(window: RateWindow) -> RateWindow {
    RateWindow {
        unit: LimitUnit::Items,
        ..window
    }
}

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// A limiter that was taken over long ago, everything whole.
fn whole(windows: &[RateWindow], start: Instant) -> Limiter {
    let mut limiter = Limiter::new(Anchor::new(start, WALL));
    let long_ago = start.checked_sub(Duration::from_secs(60)).unwrap();
    limiter.set_windows(windows, long_ago, &[]);
    limiter
}

/// Takes a turn of `items`, reserving at once what must be reserved.
fn take(limiter: &mut Limiter, now: Instant, items: u32) -> Result<(), Instant> {
    loop {
        match limiter.try_take(now, n(items)) {
            Ok(()) => return Ok(()),
            Err(Refusal::Until(at)) => return Err(at),
            Err(Refusal::Unreserved) => {
                limiter.save(now, true);
                limiter.saved(true);
            }
        }
    }
}

/// How many are granted in `span` to a caller that comes back exactly when told.
fn granted(limiter: &mut Limiter, from: Instant, span: Duration) -> u64 {
    let (mut now, mut taken) = (from, 0);
    while now < from + span {
        match take(limiter, now, 1) {
            Ok(()) => taken += 1,
            Err(earliest) => {
                assert!(earliest > now, "a refusal names a later time");
                now = earliest;
            }
        }
    }
    taken
}

fn start() -> Instant {
    Instant::now() + Duration::from_hours(24)
}

#[test]
fn a_spread_window_grants_its_burst_at_once_and_the_rest_evenly() {
    let start = start();
    let mut limiter = whole(&[spread(10, 1_000, 5)], start);
    for _ in 0..5 {
        assert_eq!(take(&mut limiter, start, 1), Ok(()));
    }
    // A tenth of a second and the margin.
    let interval = Duration::from_millis(101);
    assert_eq!(take(&mut limiter, start, 1), Err(start + interval));
    assert_eq!(
        take(&mut limiter, start + interval / 2, 1),
        Err(start + interval)
    );
    assert_eq!(take(&mut limiter, start + interval, 1), Ok(()));
}

#[test]
fn a_request_takes_from_all_windows_or_from_none() {
    let start = start();
    let windows = [
        spread(1_000, 1_000, 3),
        items(sliding(10, 1_000)),
        sliding(2, 5_000),
    ];
    let mut limiter = whole(&windows, start);
    assert_eq!(limiter.items_max(), Some(n(10)));
    assert_eq!(take(&mut limiter, start, 8), Ok(()));
    let refused = take(&mut limiter, start, 3);
    assert_eq!(refused, Err(start + Duration::from_millis(1_010)));
    // Nothing was taken of the others.
    assert_eq!(take(&mut limiter, start, 2), Ok(()));
    let refused = take(&mut limiter, start + SECOND * 2, 1);
    assert_eq!(refused, Err(start + Duration::from_millis(5_050)));
}

#[test]
fn a_fixed_window_begins_at_multiples_of_its_length_and_an_offset() {
    let start = start();
    // WALL is 123 ms into a second: with an offset of 200 ms the window ends in 77 ms.
    let mut limiter = whole(&[fixed(2, 1_000, 200)], start);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    let next = start + Duration::from_millis(77);
    assert_eq!(take(&mut limiter, start, 1), Err(next));
    assert_eq!(take(&mut limiter, next, 1), Ok(()));
    let last = next + Duration::from_millis(995);
    assert_eq!(take(&mut limiter, last, 1), Err(next + SECOND));
}

#[test]
fn a_short_window_starts_used_at_take_over_and_a_long_one_as_it_was_left() {
    // rule 5
    let start = start();
    let anchor = Anchor::new(start, WALL);
    let long = sliding(100, 60_000);
    let mut before = whole(&[long], start);
    for _ in 0..30 {
        assert_eq!(take(&mut before, start, 1), Ok(()));
    }
    let left = before.save(start, true);
    // A block of one hundredth is reserved: it counts as spent.
    let mut after = Limiter::new(anchor);
    after.set_windows(&[long, sliding(5, 1_000)], start + SECOND, &left);
    assert_eq!(
        take(&mut after, start + SECOND, 1),
        Err(start + Duration::from_millis(2_010))
    );
    let later = start + 3 * SECOND;
    let mut taken = 0;
    for second in 0..50 {
        for _ in 0..5 {
            taken += u32::from(take(&mut after, later + second * SECOND * 2, 1).is_ok());
        }
        if taken >= 69 {
            break;
        }
    }
    assert_eq!(taken, 69, "100 less 30 spent and 1 reserved");
    let drained = before.save(start, false);
    let mut after = Limiter::new(anchor);
    after.set_windows(&[long], start + SECOND, &drained);
    let exact = (0..100)
        .filter(|_| take(&mut after, later, 1).is_ok())
        .count();
    assert_eq!(exact, 70, "a drained hand-over loses nothing");
}

#[test]
fn a_long_window_is_never_spent_before_it_is_reserved() {
    // rule 5
    let start = start();
    let mut limiter = whole(&[sliding(1_000, 60_000)], start);
    assert_eq!(limiter.try_take(start, n(1)), Err(Refusal::Unreserved));
    assert!(limiter.wants_saving());
    let left = limiter.save(start, true);
    assert_eq!(left.first().map(|window| window.reserved), Some(10));
    assert_eq!(limiter.try_take(start, n(1)), Err(Refusal::Unreserved));
    limiter.saved(false);
    assert_eq!(limiter.try_take(start, n(1)), Err(Refusal::Unreserved));
    limiter.save(start, true);
    limiter.saved(true);
    for taken in 1..=10 {
        assert_eq!(limiter.try_take(start, n(1)), Ok(()));
        assert_eq!(
            limiter.wants_saving(),
            taken >= 5,
            "asked for at half a block"
        );
    }
    assert_eq!(limiter.try_take(start, n(1)), Err(Refusal::Unreserved));
}

#[test]
fn a_changed_count_keeps_what_was_spent() {
    let start = start();
    let mut limiter = whole(&[sliding(100, 60_000)], start);
    for _ in 0..100 {
        assert_eq!(take(&mut limiter, start, 1), Ok(()));
    }
    limiter.set_windows(&[sliding(120, 60_000)], start, &[]);
    let more = (0..100)
        .filter(|_| take(&mut limiter, start, 1).is_ok())
        .count();
    assert_eq!(more, 20);
    limiter.set_windows(&[sliding(50, 60_000)], start, &[]);
    assert!(take(&mut limiter, start + 59 * SECOND, 1).is_err());
}

#[test]
fn what_answers_say_only_makes_it_stricter() {
    // HT-9, HT-10
    let start = start();
    let mut limiter = whole(&[spread(10, 1_000, 10)], start);
    limiter.observe(start, 2, 30 * SECOND);
    // An answer that was overtaken.
    limiter.observe(start, 9, 30 * SECOND);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    assert_eq!(limiter.observed_hold(start), None);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    assert_eq!(take(&mut limiter, start, 1), Err(start + 30 * SECOND));
    assert_eq!(limiter.observed_hold(start), Some(start + 30 * SECOND));
    // Its clock goes back: a reset in its past says nothing.
    limiter.observe(start + SECOND, 5, Duration::ZERO);
    assert_eq!(
        take(&mut limiter, start + SECOND, 1),
        Err(start + 30 * SECOND)
    );
    // A window that rolls on: the answer counts.
    let later = start + 40 * SECOND;
    limiter.observe(later, 1_000_000, 60 * SECOND);
    let burst = (0..100)
        .filter(|_| take(&mut limiter, later, 1).is_ok())
        .count();
    assert_eq!(burst, 10);
}

#[test]
fn memory_is_bounded_whatever_the_count() {
    let mut window = sliding::Sliding::new(1_000_000, 60_000 * NS_PER_MS);
    for at in 0..200_000_u64 {
        window.charge(at * NS_PER_MS, 1);
        assert!(window.spans() <= 1_024);
        assert!(window.spans() < 100 || window.saved(at * NS_PER_MS).len() <= 64);
    }
}

/// A request that was this late by the answer's time.
fn late(by: Duration) -> Late {
    Late {
        by,
        is_unusual: true,
    }
}

#[test]
fn what_arrived_late_counts_later() {
    let start = start();
    let ms = Duration::from_millis;
    let mut limiter = whole(&[sliding(2, 1_000)], start);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    limiter.put_off(start, late(ms(80)), start + ms(90), n(1));
    // The other was not late.
    let free = start + ms(1_010);
    assert_eq!(take(&mut limiter, start + ms(100), 1), Err(free));
    assert_eq!(take(&mut limiter, free, 1), Ok(()));
    assert_eq!(take(&mut limiter, free, 1), Err(free + ms(80)));
    // A quarter of the window at most, and what is forgotten is not remembered.
    limiter.put_off(free, late(SECOND), free + SECOND, n(1));
    assert_eq!(
        take(&mut limiter, free + SECOND, 1),
        Ok(()),
        "the one that was late first has left"
    );
    limiter.put_off(start, late(SECOND), free + SECOND, n(1));
    assert_eq!(
        take(&mut limiter, free + SECOND, 1),
        Err(free + ms(1_010 + 250))
    );
}

#[test]
fn what_crossed_into_a_fixed_window_counts_there() {
    let start = start();
    let ms = Duration::from_millis;
    // WALL is 123 ms into a second.
    let mut limiter = whole(&[fixed(2, 1_000, 200)], start);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    let next = start + ms(77);
    assert_eq!(take(&mut limiter, next, 1), Ok(()));
    limiter.put_off(start, late(ms(90)), start + ms(100), n(1));
    assert_eq!(take(&mut limiter, next, 1), Err(next + SECOND));
}

#[test]
fn a_usual_answer_costs_little_of_the_limit() {
    let start = start();
    let mut limiter = whole(&[sliding(1, 1_000)], start);
    assert_eq!(take(&mut limiter, start, 1), Ok(()));
    let usual = Late {
        by: SECOND / 2,
        is_unusual: false,
    };
    limiter.put_off(start, usual, start + SECOND / 2, n(1));
    let free = take(&mut limiter, start + SECOND / 2, 1).unwrap_err() - start;
    let most = Duration::from_millis(1_010 + 31);
    assert!(
        (Duration::from_millis(1_030)..most).contains(&free),
        "{free:?}"
    );
}

#[test]
fn a_forecast_is_what_comes_true() {
    let start = start();
    for windows in [
        vec![spread(10, 1_000, 1)],
        vec![spread(10, 1_000, 7)],
        vec![sliding(20, 2_000), spread(50, 1_000, 1)],
        vec![fixed(10, 1_000, 0)],
    ] {
        for ahead in [0, 1, 5, 30, 100] {
            let mut limiter = whole(&windows, start);
            let told = limiter.forecast(start, ahead);
            let mut now = start;
            for _ in 0..ahead {
                while let Err(at) = take(&mut limiter, now, 1) {
                    now = at;
                }
            }
            while let Err(at) = take(&mut limiter, now, 1) {
                now = at;
            }
            let apart = told.max(now) - told.min(now);
            assert!(apart <= SECOND * 2, "{windows:?} {ahead}: {apart:?}");
        }
    }
}

#[test]
fn a_plan_spends_what_is_free_at_once_and_the_rest_evenly() {
    let start = start();
    let mut limiter = whole(&[sliding(600, 60_000), spread(100, 1_000, 1)], start);
    let mut next = limiter.plan(start, Some(0));
    for _ in 0..600 {
        next = limiter.plan(next, None);
    }
    let soon = next - start;
    assert!((SECOND * 6..SECOND * 7).contains(&soon), "{soon:?}");
    for _ in 0..600 {
        next = limiter.plan(next, None);
    }
    let later = next - start;
    assert!((SECOND * 60..SECOND * 70).contains(&later), "{later:?}");
}

fn kinds() -> impl Strategy<Value = RateWindow> {
    let count = prop_oneof![1_u32..40, 1_000_u32..3_000];
    let per_ms = prop_oneof![100_u64..5_000, 10_001_u64..40_000];
    let kind = (0_u8..3, 1_u32..20, 0_u64..100);
    (count, per_ms, kind, any::<bool>()).prop_map(|(count, per_ms, (kind, burst, offset), of)| {
        let window = match kind {
            0 => spread(count, per_ms, burst),
            1 => sliding(count, per_ms),
            _ => fixed(count, per_ms, offset),
        };
        if of { items(window) } else { window }
    })
}

/// What happens next to a lane.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Wait(u64),
    /// As many requests of so many items as there may be, up to a number.
    Take(u32, u32),
    /// What is to be written is sent to the log …
    Save(bool),
    /// … and is there, or never will be.
    Saved(bool),
    /// Another process takes over, with what is in the log.
    TakeOver,
    /// An answer says what is left.
    Observe(u64, u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..6_000).prop_map(Step::Wait),
        4 => (1_u32..80, 1_u32..6).prop_map(|(times, items)| Step::Take(times, items)),
        3 => any::<bool>().prop_map(Step::Save),
        4 => proptest::bool::weighted(0.8).prop_map(Step::Saved),
        1 => Just(Step::TakeOver),
        1 => (0_u64..50, 0_u64..3_000).prop_map(|(left, reset)| Step::Observe(left, reset)),
    ]
}

proptest! {
    #[test]
    fn no_window_is_ever_exceeded_whatever_is_lost_at_hand_overs(
        windows in vec(kinds(), 1..4),
        steps in vec(steps(), 1..200),
    ) {
        let origin = start();
        let anchor = Anchor::new(origin, WALL);
        let mut limiter = Limiter::new(anchor);
        limiter.set_windows(&windows, origin, &[]);
        let (mut now, mut taken) = (origin, Vec::new());
        let mut in_the_log: Vec<WindowProgress> = Vec::new();
        let mut under_way: Option<(Vec<WindowProgress>, bool)> = None;
        for step in steps {
            match step {
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Take(times, items) => {
                    for _ in 0..times {
                        if limiter.try_take(now, n(items)).is_ok() {
                            taken.push((anchor.ns(now), items));
                        }
                    }
                }
                Step::Save(go_on) if under_way.is_none() => {
                    under_way = Some((limiter.save(now, go_on), go_on));
                }
                Step::Saved(is_written) => {
                    if let Some((left, _)) = under_way.take() {
                        if is_written {
                            in_the_log = left;
                        }
                        limiter.saved(is_written);
                    }
                }
                Step::TakeOver => {
                    under_way = None;
                    limiter = Limiter::new(anchor);
                    limiter.set_windows(&windows, now, &in_the_log);
                }
                Step::Observe(left, reset) => {
                    limiter.observe(now, left, Duration::from_millis(reset));
                }
                Step::Save(_) => {}
            }
        }
        for window in windows {
            oracle::audit(window, &taken);
        }
    }

    #[test]
    fn a_sliding_window_holds_by_the_endpoints_clock(
        (count, per_ms) in (prop_oneof![1_u32..40, 1_100_u32..1_300], 200_u64..4_000),
        steps in vec((0_u64..400, 1_u32..400, 0_u64..100), 1..100),
    ) {
        let window = sliding(count, per_ms);
        let origin = start();
        let anchor = Anchor::new(origin, WALL);
        let mut limiter = whole(&[window], origin);
        let (mut now, mut arrived) = (origin, Vec::new());
        // When they are answered, which is when they arrive at the latest, and their turns.
        let mut under_way: Vec<(Instant, Instant)> = Vec::new();
        for (wait, times, delay) in steps {
            now += Duration::from_millis(wait * per_ms / 1_000);
            under_way.sort();
            let told = under_way.partition_point(|(answered, _)| *answered <= now);
            for (answered, turn) in under_way.drain(..told) {
                limiter.put_off(turn, late(answered - turn), answered, n(1));
            }
            for index in 0..times {
                if take(&mut limiter, now, 1).is_ok() {
                    let delay = delay * per_ms / 500 * u64::from(index % 3) / 2;
                    let at = now + Duration::from_millis(delay.min(per_ms / 4));
                    arrived.push((anchor.ns(at), 1));
                    under_way.push((at, now));
                }
            }
        }
        arrived.sort_unstable();
        oracle::audit(window, &arrived);
    }

    #[test]
    fn a_limit_is_used_to_at_least_97_hundredths(
        kind in 0_u8..3,
        count in prop_oneof![40_u32..400, 1_100_u32..4_000],
        per_ms in prop_oneof![500_u64..5_000, 10_001_u64..40_000],
    ) {
        let window = match kind {
            0 => spread(count, per_ms, 1),
            1 => sliding(count, per_ms),
            _ => fixed(count, per_ms, 0),
        };
        let origin = start();
        let mut limiter = whole(&[window], origin);
        let per = Duration::from_millis(per_ms);
        // From the beginning of a window on.
        let begin = granted(&mut limiter, origin, per);
        prop_assert!(begin > 0);
        let got = granted(&mut limiter, origin + per, per * 10);
        let least = u64::from(count) * 10 * 97 / 100;
        prop_assert!(got >= least, "{got} of {}", u64::from(count) * 10);
    }
}
