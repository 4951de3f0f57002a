//! The breaker, step by step and against a naive reading of its rules.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A breaker and its time; attempts take no time unless said.
struct Rig {
    breaker: Breaker,
    base: Instant,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            breaker: Breaker::new(now),
            base: now,
            now,
        }
    }

    fn wall(&self) -> i64 {
        runtime::clock::millis(self.now - self.base)
    }

    fn end(&mut self, health: Health, started: Instant) -> Option<Change> {
        let end = End {
            health,
            started,
            now: self.now,
            wall: self.wall(),
            jitter: 0.5,
        };
        self.breaker.ended(end)
    }

    fn attempt(&mut self, health: Health) -> Option<Change> {
        assert!(matches!(
            self.breaker.pass(self.now),
            Pass::Free | Pass::Probe
        ));
        self.breaker.started(self.now);
        self.end(health, self.now)
    }

    fn open(&mut self) {
        while self.attempt(Health::Failed) != Some(Change::Opened) {}
    }
}

#[test]
fn a_run_of_failures_opens_it_and_anything_else_breaks_the_run() {
    let check = |health: &[Health], opens: bool| {
        let mut rig = Rig::new();
        let last = health.iter().map(|health| rig.attempt(*health)).last();
        assert_eq!(last == Some(Some(Change::Opened)), opens, "{health:?}");
    };
    use Health::{Answered, Busy, Failed, Served, Silent};
    let after_seven = |rest: &[Health]| [&[Failed; 7], rest].concat();
    check(&[Failed; 7], false);
    check(&[Failed; 8], true);
    check(&[Silent; 3], false);
    check(&[Silent; 4], true);
    check(&after_seven(&[Served, Failed]), false);
    check(&after_seven(&[Answered, Failed]), false);
    // A 429 is no failure, and no proof against those before it.
    check(&after_seven(&[Busy]), false);
    check(&after_seven(&[Busy, Failed]), true);
    check(&[Busy; 40], false);
    check(&[Answered; 40], false);
}

#[test]
fn four_fifths_of_many_open_it() {
    let health = |at: u64, served_every: u64| {
        if at.is_multiple_of(served_every) {
            Health::Served
        } else {
            Health::Failed
        }
    };
    let mut rig = Rig::new();
    for at in 1..20 {
        assert_eq!(rig.attempt(health(at, 5)), None, "{at}");
    }
    assert_eq!(rig.attempt(Health::Failed), Some(Change::Opened));

    let mut thin = Rig::new();
    for at in 0..200 {
        // One a second: too few in ten seconds to judge by their share.
        thin.now += ms(1_000);
        assert_eq!(thin.attempt(health(at, 5)), None, "{at}");
    }

    // One that serves every other attempt is not down.
    let mut flaky = Rig::new();
    for at in 0..2_000 {
        flaky.now += ms(3);
        assert_eq!(flaky.attempt(health(at, 2)), None, "{at}");
    }
}

#[test]
fn the_wait_for_a_probe_doubles_to_its_bound_and_one_probe_goes_at_a_time() {
    let mut rig = Rig::new();
    rig.open();
    for seconds in [1, 2, 4, 8, 16, 32, 64, 120, 120, 120] {
        let probe_at = rig.now + ms(seconds * 1_000);
        assert_eq!(rig.breaker.pass(rig.now), Pass::NotBefore(probe_at));
        assert_eq!(
            rig.breaker.pass(probe_at - ms(1)),
            Pass::NotBefore(probe_at)
        );
        rig.now = probe_at;
        assert_eq!(rig.breaker.pass(rig.now), Pass::Probe);
        rig.breaker.started(rig.now);
        assert_eq!(rig.breaker.pass(rig.now + ms(9_000)), Pass::Probing);
        assert_eq!(rig.end(Health::Failed, rig.now), Some(Change::StillOpen));
    }
}

#[test]
fn any_answer_to_a_probe_closes_it() {
    for health in [Health::Served, Health::Answered, Health::Busy] {
        let mut rig = Rig::new();
        rig.open();
        rig.now += ms(1_000);
        assert_eq!(rig.attempt(health), Some(Change::Closed));
        assert_eq!(rig.breaker.pass(rig.now), Pass::Free);
        for _ in 0..7 {
            assert_eq!(rig.attempt(Health::Failed), None, "counted anew");
        }
    }
}

#[test]
fn what_was_under_way_when_it_opened_decides_nothing() {
    let mut rig = Rig::new();
    let before = rig.now;
    rig.now += ms(10);
    rig.open();
    assert_eq!(rig.end(Health::Served, before), None);
    assert!(!rig.breaker.is_closed());
    rig.now += ms(1_000);
    rig.breaker.started(rig.now);
    assert_eq!(rig.end(Health::Failed, before), None);
    assert_eq!(rig.end(Health::Served, before), None);
    assert_eq!(rig.breaker.pass(rig.now), Pass::Probing);
    assert_eq!(rig.end(Health::Served, rig.now), Some(Change::Closed));
}

#[test]
fn a_probe_that_was_not_made_leaves_the_place_to_another() {
    let mut rig = Rig::new();
    rig.open();
    rig.now += ms(1_000);
    rig.breaker.started(rig.now);
    rig.breaker.not_started(rig.now, rig.now);
    assert_eq!(rig.breaker.pass(rig.now), Pass::Probe);
}

#[test]
fn one_that_flaps_waits_longer_each_time() {
    let mut rig = Rig::new();
    rig.open();
    for seconds in [1, 2, 4, 8, 8] {
        rig.now += ms(seconds * 1_000);
        assert_eq!(rig.attempt(Health::Served), Some(Change::Closed));
        rig.open();
    }
    // After a while of health it is as any other.
    rig.now += ms(8_000);
    assert_eq!(rig.attempt(Health::Served), Some(Change::Closed));
    rig.now += ms(16_000);
    rig.open();
    assert_eq!(rig.breaker.probe_at(), Some(rig.now + ms(1_000)));
}

#[test]
fn only_a_delivery_ends_the_time_of_failing() {
    let hour = Some(Duration::from_hours(1));
    let mut rig = Rig::new();
    rig.now += ms(5);
    rig.attempt(Health::Failed);
    rig.now += ms(3_599_999);
    rig.attempt(Health::Answered);
    assert!(!rig.breaker.is_overdue(rig.wall(), hour));
    rig.now += ms(1);
    rig.attempt(Health::Busy);
    assert!(rig.breaker.is_overdue(rig.wall(), hour));
    assert!(!rig.breaker.is_overdue(rig.wall(), None), "never");
    rig.breaker.excuse(ms(1));
    assert!(!rig.breaker.is_overdue(rig.wall(), hour), "our network");
    rig.attempt(Health::Served);
    assert_eq!(rig.breaker.failing_since(), None);
    assert!(rig.breaker.is_new());
    // 404 for an hour is failing too, though no breaker opens.
    rig.attempt(Health::Answered);
    rig.now += ms(3_600_000);
    rig.attempt(Health::Answered);
    assert!(rig.breaker.is_overdue(rig.wall(), hour));
}

#[test]
fn two_bad_attempts_long_apart_are_not_a_long_time_of_failing() {
    let after = Some(Duration::from_hours(120));
    let mut rig = Rig::new();
    rig.attempt(Health::Failed);
    rig.now += Duration::from_hours(168);
    rig.attempt(Health::Failed);
    assert!(!rig.breaker.is_overdue(rig.wall(), after));
    for _ in 0..5 {
        rig.now += Duration::from_hours(24);
        rig.attempt(Health::Failed);
    }
    assert!(rig.breaker.is_overdue(rig.wall(), after));
}

#[test]
fn one_deferred_delivery_is_promised_the_probe() {
    let mut rig = Rig::new();
    assert_eq!(rig.breaker.promise_probe(), None);
    rig.open();
    let probe_at = rig.now + ms(1_000);
    assert_eq!(rig.breaker.promise_probe(), Some(probe_at));
    assert_eq!(rig.breaker.promise_probe(), None);
    rig.now = probe_at;
    rig.attempt(Health::Failed);
    assert_eq!(rig.breaker.promise_probe(), Some(rig.now + ms(2_000)));
}

#[test]
fn a_successor_goes_on_where_it_was() {
    // rule 5
    let mut rig = Rig::new();
    rig.now += ms(7);
    rig.open();
    rig.now += ms(1_000);
    rig.attempt(Health::Failed);
    let base = rig.base;
    let saved = rig.breaker.save(|at| runtime::clock::millis(at - base));
    assert_eq!(
        saved,
        BreakerProgress {
            probe_at: Some(3_007),
            interval_ms: 2_000,
            failing_since: Some(7),
            ended_at: Some(1_007),
        }
    );
    let instant_at = |wall: i64| base + ms(u64::try_from(wall).unwrap());
    let mut next = Rig {
        breaker: Breaker::restore(saved, rig.now, instant_at),
        ..rig
    };
    assert_eq!(
        next.breaker.pass(next.now),
        Pass::NotBefore(base + ms(3_007))
    );
    next.now = base + ms(3_007);
    assert_eq!(next.attempt(Health::Failed), Some(Change::StillOpen));
    assert_eq!(next.breaker.probe_at(), Some(next.now + ms(4_000)));
    assert_eq!(next.breaker.failing_since(), Some(7));
    // A time in the far future, as by a clock that was wrong, holds for no longer than a probe may.
    let wrong = BreakerProgress {
        probe_at: Some(i64::from(i32::MAX)),
        ..saved
    };
    let bounded = Breaker::restore(wrong, next.now, instant_at).probe_at();
    assert!(bounded.unwrap() <= next.now + PROBE_MAX * 2);
    let new = Breaker::restore(BreakerProgress::default(), next.now, instant_at);
    assert!(new.is_new());
}

#[test]
fn a_gap_in_failing_is_one_for_a_successor_too() {
    // rule 5
    let after = Some(Duration::from_hours(120));
    let check = |gap: u64, ended_at: fn(Option<i64>) -> Option<i64>, overdue: bool| {
        let mut rig = Rig::new();
        rig.attempt(Health::Answered);
        rig.now += Duration::from_hours(100);
        rig.breaker.ended_at = Some(rig.wall());
        let mut saved = rig.breaker.save(|_| 0);
        saved.ended_at = ended_at(saved.ended_at);
        rig.now += Duration::from_hours(gap);
        rig.breaker = Breaker::restore(saved, rig.now, |_| unreachable!("it is closed"));
        rig.attempt(Health::Answered);
        assert_eq!(rig.breaker.is_overdue(rig.wall(), after), overdue, "{gap}");
    };
    check(47, |at| at, true);
    check(48, |at| at, false);
    // A record from before that was written says nothing of gaps.
    check(48, |_| None, true);
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![
        2 => Just(Health::Served),
        1 => Just(Health::Answered),
        1 => Just(Health::Busy),
        4 => Just(Health::Failed),
        2 => Just(Health::Silent),
    ]
}

proptest! {
    #[test]
    fn while_it_is_not_closed_one_attempt_goes_at_a_time_and_it_always_heals(
        steps in vec((health(), 0_u64..20_000, 0.0..1.0_f64), 1..200),
    ) {
        let mut rig = Rig::new();
        let mut last_probe: Option<Instant> = None;
        for (health, passed, jitter) in steps {
            rig.now += ms(passed);
            let pass = rig.breaker.pass(rig.now);
            let (Pass::Free | Pass::Probe) = pass else {
                let Pass::NotBefore(at) = pass else {
                    panic!("no probe is under way");
                };
                prop_assert!(at <= rig.now + PROBE_MAX.mul_f64(1.0 + JITTER));
                continue;
            };
            if pass == Pass::Probe {
                if let Some(last) = last_probe {
                    prop_assert!(rig.now >= last + PROBE_FIRST.mul_f64(1.0 - JITTER));
                }
                last_probe = Some(rig.now);
            }
            rig.breaker.started(rig.now);
            let (now, wall) = (rig.now, rig.wall());
            rig.breaker.ended(End { health, started: now, now, wall, jitter });
            prop_assert_eq!(rig.breaker.is_closed(), rig.breaker.pass(now) == Pass::Free);
        }
        // Whatever was before: with an endpoint that answers it is closed after one more probe.
        rig.now += PROBE_MAX * 2;
        rig.attempt(Health::Served);
        prop_assert_eq!(rig.breaker.pass(rig.now), Pass::Free);
    }
}
