//! Whatever is asked of a lane, nothing is lost and no bound is overrun.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push { due: bool },
    PushWaiting(u64),
    Turn,
    Finish,
    Hold(u64),
    Pass(u64),
    Overdue,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|due| Step::Push { due }),
        2 => (0_u64..5_000).prop_map(Step::PushWaiting),
        8 => Just(Step::Turn),
        3 => Just(Step::Finish),
        1 => (0_u64..15_000).prop_map(Step::Hold),
        4 => (0_u64..3_000).prop_map(Step::Pass),
        1 => Just(Step::Overdue),
        1 => Just(Step::Drain),
    ]
}

/// What a lane must keep, whatever comes.
struct Watched {
    lane: Lane,
    now: Instant,
    held_until: Instant,
    inside: BTreeSet<i64>,
    in_flight: u32,
    taken_at: Vec<Instant>,
    next: i64,
}

impl Watched {
    fn pushed(&mut self, due: bool) -> Delivery {
        self.inside.insert(self.next);
        self.next += 1;
        delivery(self.next - 1, due, self.now)
    }

    fn left(&mut self, delivery: &Delivery) {
        assert!(
            self.inside.remove(&delivery.place.offset),
            "handed out once"
        );
    }

    fn turn(&mut self, concurrency: u32) {
        match self.lane.turn(self.now) {
            Turn::Attempt(delivery) => {
                self.left(&delivery);
                assert!(self.now >= self.held_until);
                self.in_flight += 1;
                assert!(self.in_flight <= concurrency);
                self.taken_at.push(self.now);
            }
            Turn::Wait(until) => assert!(until > self.now),
            Turn::Idle => assert!(self.inside.is_empty() || self.in_flight > 0),
            other @ (Turn::Later | Turn::Save) => panic!("{other:?} of small ones and no window"),
        }
    }

    fn step(&mut self, step: &Step, concurrency: u32) {
        match step {
            Step::Push { due } => {
                let delivery = self.pushed(*due);
                self.lane.push(delivery);
            }
            Step::PushWaiting(after) => {
                let delivery = self.pushed(true);
                self.lane.push_waiting(self.now + ms(*after), delivery);
            }
            Step::Turn => self.turn(concurrency),
            Step::Finish if self.in_flight > 0 => {
                self.in_flight -= 1;
                done(&mut self.lane, ms(3), self.now);
            }
            Step::Finish => {}
            Step::Hold(after) => {
                let until = self.now + ms(*after);
                self.held_until = self.held_until.max(until);
                self.lane.hold(until);
            }
            Step::Pass(passed) => self.now += ms(*passed),
            Step::Overdue => {
                for delivery in self.lane.overdue(self.now, HORIZON) {
                    self.left(&delivery);
                    let waited = self.now - delivery.queued_at;
                    assert!(waited >= HORIZON || self.held_until > self.now + HORIZON);
                }
            }
            Step::Drain => {
                for (delivery, _) in self.lane.drain() {
                    self.left(&delivery);
                }
                assert!(self.inside.is_empty());
            }
        }
        assert_eq!(self.lane.len(), self.inside.len());
        let each = delivery(0, false, self.now).bytes();
        assert_eq!(self.lane.queued_bytes, each * self.inside.len());
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_overrun(
        steps in vec(step(), 1..120),
        concurrency in 1_u32..4,
        limit in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut watched = Watched {
            lane: Lane::new(now, concurrency),
            now,
            held_until: now,
            inside: BTreeSet::new(),
            in_flight: 0,
            taken_at: Vec::new(),
            next: 0,
        };
        let limits = if limit { rate(2, 1_000) } else { Vec::new() };
        watched.lane.configure(&limits, concurrency, now);
        for step in &steps {
            watched.step(step, concurrency);
        }
        if limit {
            let mut pairs = watched.taken_at.windows(2);
            prop_assert!(pairs.all(|pair| pair[1] - pair[0] >= ms(500)));
        }
    }
}
