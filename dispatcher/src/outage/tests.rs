//! When an outage is ours, and what it takes to be over.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An outage detector that is told of attempts, at a time that only moves when told.
struct Rig {
    outage: Outage,
    base: Instant,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            outage: Outage::default(),
            base: now,
            now,
        }
    }

    fn wall(&self) -> i64 {
        runtime::clock::millis(self.now - self.base)
    }

    fn ended(&mut self, host: u64, reach: Reach, probe: bool) -> Option<Change> {
        let at = (self.now, self.wall());
        self.outage.ended((host, reach), probe, at)
    }

    fn fail(&mut self, hosts: std::ops::Range<u64>) -> Option<Change> {
        hosts
            .map(|host| self.ended(host, Reach::Unreached, false))
            .last()
            .flatten()
    }

    fn reach(&mut self, hosts: std::ops::Range<u64>) {
        for host in hosts {
            assert_eq!(self.ended(host, Reach::Reached, false), None);
        }
    }
}

#[test]
fn nearly_all_of_many_hosts_must_fail() {
    let check = |reached: u64, failed: u64, down: bool| {
        let mut rig = Rig::new();
        rig.reach(0..reached);
        rig.fail(1_000..1_000 + failed);
        assert_eq!(rig.outage.is_down(), down, "{failed} beside {reached}");
    };
    check(0, 7, false);
    check(0, 8, true);
    check(1, 15, false);
    check(1, 16, true);
    check(10, 100, false);
    check(100, 1_000, false);
    check(62, 1_000, true);
}

#[test]
fn many_failures_of_one_host_are_its_own() {
    let mut rig = Rig::new();
    for _ in 0..1_000 {
        assert_eq!(rig.ended(1, Reach::Unreached, false), None);
    }
}

#[test]
fn hosts_that_were_reached_before_count_by_their_last_attempt_and_not_for_long() {
    let mut rig = Rig::new();
    rig.reach(0..20);
    assert_eq!(rig.fail(0..18), None);
    assert_eq!(rig.fail(18..19), Some(Change::Began));

    let mut idle = Rig::new();
    idle.reach(0..20);
    idle.now += LATELY;
    assert_eq!(idle.fail(100..108), Some(Change::Began));

    let mut slow = Rig::new();
    for host in 0..50 {
        slow.now += ms(5_000);
        assert_eq!(slow.fail(host..host + 1), None, "a few at a time");
    }
}

#[test]
fn while_it_lasts_one_probe_goes_at_a_time_and_two_answers_end_it() {
    let mut rig = Rig::new();
    assert_eq!(rig.outage.pass(rig.now), Ok(()));
    assert!(!rig.outage.started());
    assert_eq!(rig.fail(0..8), Some(Change::Began));
    for seconds in [1, 2, 4, 8, 10, 10] {
        let at = rig.now + ms(seconds * 1_000);
        assert_eq!(rig.outage.pass(rig.now), Err(Some(at)));
        rig.now = at;
        assert_eq!(rig.outage.pass(rig.now), Ok(()));
        assert!(rig.outage.started());
        assert_eq!(rig.outage.pass(rig.now), Err(None));
        assert_eq!(rig.ended(1, Reach::Unreached, true), None);
    }
    rig.now += ms(10_000);
    assert!(rig.outage.started());
    // What was under way before says nothing of now.
    assert_eq!(rig.ended(5, Reach::Reached, false), None);
    assert_eq!(rig.ended(1, Reach::Reached, true), None);
    assert_eq!(rig.outage.pass(rig.now), Ok(()));
    assert!(rig.outage.started());
    rig.outage.not_started(true);
    assert!(rig.outage.started());
    let down = ms(45_000);
    assert_eq!(
        rig.ended(2, Reach::Reached, true),
        Some(Change::Ended(down))
    );
    assert!(!rig.outage.is_down());
    assert_eq!(rig.fail(0..7), None, "counted anew");
}

#[test]
fn its_time_is_left_out_of_any_age() {
    let mut rig = Rig::new();
    rig.now += ms(100);
    rig.fail(0..8);
    rig.now += ms(400);
    assert_eq!(rig.outage.within(0, 500), 400, "not over yet");
    assert_eq!(rig.outage.within(300, 500), 200);
    for host in 0..2 {
        assert!(rig.outage.started());
        rig.ended(host, Reach::Reached, true);
    }
    assert_eq!(rig.outage.within(0, 9_000), 400);
    assert_eq!(rig.outage.within(200, 300), 100);
    assert_eq!(rig.outage.within(600, 900), 0);
    assert_eq!(rig.outage.within(0, 50), 0);
}

proptest! {
    /// Against a naive reading: the last attempt of each host, none older than `LATELY`.
    #[test]
    fn it_is_what_a_naive_count_says(
        attempts in vec((0_u64..40, any::<bool>(), 0_u64..1_500), 1..300),
        all_fail_from in 0_usize..300,
    ) {
        let mut rig = Rig::new();
        let mut last: HashMap<u64, (Instant, Reach)> = HashMap::new();
        for (at, (host, reached, passed)) in attempts.into_iter().enumerate() {
            rig.now += ms(passed);
            let reach = if reached && at < all_fail_from {
                Reach::Reached
            } else {
                Reach::Unreached
            };
            last.insert(host, (rig.now, reach));
            let lately = last.values().filter(|(at, _)| rig.now < *at + LATELY);
            let unreached = lately.clone().filter(|(_, reach)| *reach == Reach::Unreached).count();
            let reached = lately.count() - unreached;
            let expected = reach == Reach::Unreached
                && unreached >= HOSTS_MIN
                && reached * REACHED_SHARE <= unreached;
            let change = rig.ended(host, reach, false);
            prop_assert_eq!(change == Some(Change::Began), expected);
            if expected {
                return Ok(());
            }
        }
    }
}
