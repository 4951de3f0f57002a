//! Owns what waits for room in one partition of librdkafka's producer.
//!
//! It must never change the order of a partition. The surprise: librdkafka lets an idempotent
//! partition have five *messages* in flight (not requests) before it sends another request, and
//! while more are queued behind them whose linger is over its thread asks again without a pause:
//! on a busy machine it takes the very core that the broker needs to answer. So more is handed
//! over only once nothing is in flight, and then as much as one request takes; what comes
//! meanwhile gathers here, where waiting costs nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What librdkafka sends beside each other to a partition (its `RD_KAFKA_IDEMP_MAX_INFLIGHT`).
pub(super) const BESIDE: usize = 5;

/// What one request takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    /// Bytes of records, of which the first is taken whatever its size.
    pub(super) bytes: usize,
    /// Records.
    pub(super) records: usize,
}

/// One partition's place to wait.
#[derive(Debug)]
pub(super) struct Gate<T> {
    burst: Burst,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// Handed over and not reported.
    in_flight: usize,
    waiting: VecDeque<(T, usize)>,
}

impl<T> Gate<T> {
    /// A gate that nothing has passed.
    pub(super) fn new(burst: Burst) -> Self {
        let (in_flight, waiting) = (0, VecDeque::new());
        let state = State { in_flight, waiting };
        Self {
            burst,
            state: Mutex::new(state),
        }
    }

    /// Hands `item` of `bytes` over now, or when all before it is reported. `hand` says whether it
    /// was taken, and will be reported; it is called under the gate's lock, which keeps the order.
    pub(super) fn enter(&self, item: T, bytes: usize, hand: impl FnOnce(T) -> bool) {
        let mut state = self.lock();
        if state.in_flight >= BESIDE || !state.waiting.is_empty() {
            state.waiting.push_back((item, bytes));
        } else if hand(item) {
            state.in_flight += 1;
        }
    }

    /// One of those taken was reported.
    pub(super) fn leave(&self, mut hand: impl FnMut(T) -> bool) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        // Again where nothing of a burst was taken: no report would call for the rest.
        while state.in_flight == 0 && !state.waiting.is_empty() {
            for item in state.next_burst(self.burst) {
                if hand(item) {
                    state.in_flight += 1;
                }
            }
        }
    }

    /// Takes out all that waits.
    pub(super) fn clear(&self) -> Vec<T> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().map(|(item, _)| item).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn next_burst(&mut self, most: Burst) -> Vec<T> {
        let (mut bytes, mut records) = (0, 0);
        for (_, more) in self.waiting.iter().take(most.records.max(1)) {
            bytes += more;
            if records > 0 && bytes > most.bytes {
                break;
            }
            records += 1;
        }
        let burst = self.waiting.drain(..records);
        burst.map(|(item, _)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST: Burst = Burst {
        bytes: 100,
        records: 8,
    };

    /// Numbers that pass `gate`, in the order in which they were handed over.
    fn enter(gate: &Gate<usize>, numbers: std::ops::Range<usize>, handed: &mut Vec<usize>) {
        for number in numbers {
            gate.enter(number, 10, |number| {
                handed.push(number);
                true
            });
        }
    }

    #[test]
    fn five_go_beside_each_other_and_the_rest_when_all_are_reported() {
        let (gate, mut handed) = (Gate::new(BURST), Vec::new());
        enter(&gate, 0..30, &mut handed);
        assert_eq!(handed.len(), BESIDE);
        for reported in 1..=BESIDE {
            assert_eq!(handed.len(), BESIDE, "after {reported}");
            gate.leave(|number| {
                handed.push(number);
                true
            });
        }
        assert_eq!(handed, (0..BESIDE + BURST.records).collect::<Vec<_>>());
        assert_eq!(
            gate.clear(),
            (BESIDE + BURST.records..30).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_burst_has_the_bytes_of_one_request_and_one_record_at_least() {
        let (gate, mut handed) = (Gate::new(BURST), Vec::new());
        enter(&gate, 0..BESIDE, &mut handed);
        for bytes in [500, 60, 40, 1] {
            gate.enter(bytes, bytes, |_| unreachable!("five are in flight"));
        }
        handed.clear();
        for _ in 0..BESIDE {
            gate.leave(|bytes| {
                handed.push(bytes);
                true
            });
        }
        assert_eq!(handed, [500]);
        gate.leave(|bytes| {
            handed.push(bytes);
            true
        });
        assert_eq!(handed, [500, 60, 40]);
    }

    proptest! {
        /// Whatever is refused, and whenever reports come: all is handed over once and in order,
        /// and nothing waits while nothing is in flight.
        #[test]
        fn everything_passes_once_and_in_order(
            steps in prop::collection::vec((any::<bool>(), 1..150_usize), 0..200),
            refused in prop::collection::hash_set(0..200_usize, 0..30),
        ) {
            let gate = Gate::new(BURST);
            let (mut handed, mut in_flight, mut entered) = (Vec::new(), 0_usize, 0);
            let mut hand = |number: usize| {
                handed.push(number);
                let is_taken = !refused.contains(&number);
                in_flight += usize::from(is_taken);
                is_taken
            };
            for (is_report, bytes) in steps {
                if is_report {
                    gate.leave(&mut hand);
                } else {
                    gate.enter(entered, bytes, &mut hand);
                    entered += 1;
                }
            }
            for _ in 0..=entered {
                gate.leave(&mut hand);
            }
            prop_assert!(gate.clear().is_empty());
            prop_assert_eq!(handed, (0..entered).collect::<Vec<_>>());
        }
    }
}
