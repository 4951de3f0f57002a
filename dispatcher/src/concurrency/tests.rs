//! The limit: by steps, and in a closed loop with a server that has a capacity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server of so many workers, each request taking one of them for so long; what is beyond waits.
#[derive(Debug, Clone, Copy)]
struct Server {
    workers: usize,
    takes: Duration,
    /// Every so manieth request fails.
    fails_every: Option<u64>,
}

/// A lane with an endless queue, and the server behind it.
struct Loop {
    concurrency: Concurrency,
    now: Instant,
    /// When each worker is free.
    free_at: Vec<Instant>,
    under_way: BinaryHeap<Reverse<(Instant, Instant, bool)>>,
    sent: u64,
    longest: Duration,
}

impl Loop {
    fn new(cap: u32) -> Self {
        let now = Instant::now();
        Self {
            concurrency: Concurrency::new(cap, now),
            now,
            free_at: Vec::new(),
            under_way: BinaryHeap::new(),
            sent: 0,
            longest: Duration::ZERO,
        }
    }

    fn send(&mut self, server: Server) {
        self.free_at.resize(server.workers, self.now);
        let worker = self.free_at.iter_mut().min().unwrap();
        self.sent += 1;
        // A little uneven, as servers are.
        let takes = server.takes + server.takes * u32::try_from(self.sent * 7 % 5).unwrap() / 20;
        *worker = (*worker).max(self.now) + takes;
        let failed = server
            .fails_every
            .is_some_and(|every| self.sent.is_multiple_of(every));
        self.under_way.push(Reverse((*worker, self.now, failed)));
    }

    /// How many attempts end in `span`.
    fn run(&mut self, server: Server, span: Duration) -> u32 {
        let until = self.now + span;
        let mut ended = 0;
        self.longest = Duration::ZERO;
        loop {
            while self.under_way.len() < self.concurrency.limit() as usize {
                self.send(server);
                let in_flight = u32::try_from(self.under_way.len()).unwrap();
                self.concurrency.started(in_flight);
            }
            let Some(Reverse((at, _, _))) = self.under_way.peek().copied() else {
                unreachable!("at least one is under way");
            };
            if at > until {
                self.now = until;
                return ended;
            }
            let Some(Reverse((at, started, failed))) = self.under_way.pop() else {
                unreachable!("peeked");
            };
            self.now = at;
            let took = at - started;
            self.longest = self.longest.max(took);
            let end = Ended {
                started,
                took,
                failed,
            };
            self.concurrency.ended(end, at);
            ended += 1;
        }
    }
}

const fn server(workers: usize, takes: Duration) -> Server {
    Server {
        workers,
        takes,
        fails_every: None,
    }
}

#[test]
fn a_fast_endpoint_gets_thousands_a_second_within_a_second_of_a_cold_start() {
    let mut closed = Loop::new(64);
    let first = closed.run(server(200, ms(5)), ms(1_000));
    assert!(first > 5_000, "{first} in the first second");
    assert_eq!(closed.concurrency.limit(), 64);
}

#[test]
fn it_settles_near_what_the_server_takes_and_its_queue_stays_short() {
    let check = |workers: usize, takes: u64| {
        let mut closed = Loop::new(512);
        let at = server(workers, ms(takes));
        closed.run(at, ms(15_000));
        let ended = closed.run(at, ms(20_000));
        // What the server can do in 20 s at 1.1 times its time each.
        let possible = workers as f64 * 20_000.0 / (takes as f64 * 1.1);
        let used = f64::from(ended) / possible;
        let limit = closed.concurrency.limit();
        assert!(
            used > 0.9,
            "{workers} × {takes} ms: {used} of it used, {limit}"
        );
        assert!(
            (limit as usize) <= workers * 3 + 6,
            "{workers} × {takes} ms: {limit} at once"
        );
        let longest = closed.longest;
        assert!(longest <= ms(takes * 8), "{workers}: waited {longest:?}");
    };
    check(1, 20);
    check(4, 50);
    check(20, 10);
    check(100, 25);
}

#[test]
fn a_brown_out_is_answered_within_seconds_and_so_is_its_end() {
    let mut closed = Loop::new(256);
    let (well, ill) = (server(80, ms(10)), server(8, ms(10)));
    closed.run(well, ms(5_000));
    assert!(closed.concurrency.limit() > 80);
    closed.run(ill, ms(5_000));
    let limit = closed.concurrency.limit();
    assert!(limit <= 30, "{limit} at once to a tenth of the server");
    let ended = closed.run(ill, ms(5_000));
    assert!(ended > 3_000, "{ended} of what it can do");
    closed.run(well, ms(5_000));
    let ended = closed.run(well, ms(5_000));
    assert!(ended > 30_000, "{ended}: it recovers");
}

#[test]
fn a_server_that_is_slower_for_good_is_not_taken_for_a_queue_for_ever() {
    let mut closed = Loop::new(64);
    closed.run(server(200, ms(5)), ms(5_000));
    closed.run(server(200, ms(100)), ms(30_000));
    let ended = closed.run(server(200, ms(100)), ms(10_000));
    assert!(ended > 4_000, "{ended} of about 5,800");
}

#[test]
fn two_lanes_of_equal_endpoints_get_equal_shares() {
    let mut lanes = [Loop::new(64), Loop::new(64)];
    let ended = lanes
        .each_mut()
        .map(|lane| lane.run(server(16, ms(8)), ms(10_000)));
    let ratio = f64::from(ended[0]) / f64::from(ended[1]);
    assert!((0.95..1.05).contains(&ratio), "{ended:?}");
}

#[test]
fn failures_halve_it_once_for_all_that_were_under_way() {
    let mut closed = Loop::new(64);
    closed.run(server(200, ms(5)), ms(1_000));
    let mut concurrency = closed.concurrency.clone();
    let (started, now) = (closed.now, closed.now + ms(5));
    for _ in 0..64 {
        let failed = Ended {
            started,
            took: ms(5),
            failed: true,
        };
        concurrency.ended(failed, now);
    }
    assert_eq!(concurrency.limit(), 32);
    for _ in 0..64 {
        let failed = Ended {
            started: now + ms(1),
            took: ms(5),
            failed: true,
        };
        concurrency.ended(failed, now + ms(6));
    }
    assert_eq!(concurrency.limit(), 16);
}

#[test]
fn failing_for_long_leaves_one_and_a_recovery_is_quick() {
    let mut closed = Loop::new(64);
    let failing = Server {
        fails_every: Some(1),
        ..server(100, ms(5))
    };
    closed.run(failing, ms(1_000));
    assert_eq!(closed.concurrency.limit(), 1);
    closed.run(server(100, ms(5)), ms(3_000));
    assert!(closed.concurrency.limit() >= 32);
}

#[test]
fn a_failure_now_and_then_costs_little() {
    let mut closed = Loop::new(64);
    let one_in_fifty = Server {
        fails_every: Some(50),
        ..server(100, ms(5))
    };
    closed.run(one_in_fifty, ms(2_000));
    let ended = closed.run(one_in_fifty, ms(10_000));
    assert!(ended > 60_000, "{ended} of 116,000");
}

#[test]
fn what_is_measured_while_the_limit_is_not_in_use_changes_nothing() {
    let mut closed = Loop::new(64);
    closed.run(server(200, ms(5)), ms(1_000));
    let mut concurrency = closed.concurrency;
    let mut now = closed.now;
    for _ in 0..2_000 {
        concurrency.started(1);
        let started = now;
        now += ms(300);
        let slow = Ended {
            started,
            took: ms(300),
            failed: false,
        };
        concurrency.ended(slow, now);
    }
    assert_eq!(concurrency.limit(), 64);
}

/// Rounds in which all answers come at once, and `share` of the free places are taken at once.
fn bursts(concurrency: &mut Concurrency, share: impl Fn(u32) -> u32, rounds: u32) {
    let mut now = Instant::now();
    for _ in 0..rounds {
        let started = now;
        let burst = share(concurrency.limit());
        (1..=burst).for_each(|in_flight| concurrency.started(in_flight));
        now += ms(20);
        let ended = Ended {
            started,
            took: ms(20),
            failed: false,
        };
        (0..burst).for_each(|_| concurrency.ended(ended, now));
    }
}

#[test]
fn answers_that_come_in_bursts_raise_it_as_fast_as_others() {
    let mut concurrency = Concurrency::new(64, Instant::now());
    bursts(&mut concurrency, |limit| limit, 8);
    assert_eq!(concurrency.limit(), 64);
}

#[test]
fn bursts_that_leave_places_free_do_not_raise_it() {
    let mut concurrency = Concurrency::new(64, Instant::now());
    bursts(&mut concurrency, |limit| limit - 1, 100);
    assert_eq!(concurrency.limit(), 4);
}

#[test]
fn a_cap_holds_at_once() {
    let mut closed = Loop::new(64);
    closed.run(server(200, ms(5)), ms(1_000));
    closed.concurrency.set_cap(3);
    assert_eq!(closed.concurrency.limit(), 3);
    closed.concurrency.set_cap(0);
    assert_eq!(closed.concurrency.limit(), 1);
}

proptest! {
    // Each is a simulation of many seconds.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_stays_within_its_bounds_whatever_comes(
        cap in 1_u32..200,
        attempts in vec((0_u64..3_000, 0_u64..5_000, any::<bool>(), 0_u32..300), 0..400),
    ) {
        let mut now = Instant::now();
        let mut concurrency = Concurrency::new(cap, now);
        for (pass, took, failed, in_flight) in attempts {
            now += ms(pass);
            concurrency.started(in_flight);
            let started = now.checked_sub(ms(took)).unwrap_or(now);
            concurrency.ended(Ended { started, took: ms(took), failed }, now);
            prop_assert!((1..=cap).contains(&concurrency.limit()));
        }
    }

    #[test]
    fn it_is_never_stuck_at_one(
        failures in 1_u32..50,
        workers in 8_usize..64,
        takes in 1_u64..40,
    ) {
        let mut closed = Loop::new(64);
        for _ in 0..failures {
            let failing = Server { fails_every: Some(1), ..server(workers, ms(takes)) };
            closed.run(failing, ms(100));
        }
        closed.run(server(workers, ms(takes)), ms(12_000));
        let limit = closed.concurrency.limit();
        prop_assert!(limit >= 6, "{limit} at once to {workers} workers of {takes} ms");
    }
}
