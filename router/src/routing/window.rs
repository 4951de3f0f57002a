//! Owns what one source partition has in flight: which writes are acknowledged, up to where all
//! are (the watermark), and how much is outstanding.
//!
//! It must never let the watermark pass a write that is not acknowledged. The surprise: writes
//! stay in the window until their offsets are *committed*, since a dispatcher remembers the marks
//! of every target at or above the committed position (rule 3).

use std::collections::VecDeque;

use tokio::time::Instant;

/// How much may be outstanding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Targets written and not acknowledged, and targets not committed.
    pub targets: usize,
    /// Bytes written and not acknowledged.
    pub bytes: usize,
    /// The age of the oldest write that is not acknowledged.
    pub age: std::time::Duration,
}

/// What was handed to the producer in one call.
#[derive(Debug)]
struct Flight {
    /// The offset behind the last source record that is written whole with this flight.
    through: i64,
    targets: usize,
    bytes: usize,
    acknowledged: bool,
    sent_at: Instant,
}

/// The flights of one source partition, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    flights: VecDeque<Flight>,
    /// The number of the flight at the front.
    first: u64,
    /// How many flights at the front are acknowledged.
    acknowledged: usize,
    /// `None` until the first flight of a partition that starts with an incident is acknowledged.
    watermark: Option<i64>,
    in_flight_targets: usize,
    in_flight_bytes: usize,
    uncommitted_targets: usize,
}

impl Window {
    /// A window with nothing in flight, where everything below `watermark` is done.
    pub(super) fn new(watermark: Option<i64>) -> Self {
        Self {
            flights: VecDeque::new(),
            first: 0,
            acknowledged: 0,
            watermark,
            in_flight_targets: 0,
            in_flight_bytes: 0,
            uncommitted_targets: 0,
        }
    }

    /// Adds a flight that ends at `through`; returns its number.
    pub(super) fn send(&mut self, through: i64, targets: usize, bytes: usize, now: Instant) -> u64 {
        self.flights.push_back(Flight {
            through,
            targets,
            bytes,
            acknowledged: false,
            sent_at: now,
        });
        self.in_flight_targets += targets;
        self.in_flight_bytes += bytes;
        self.uncommitted_targets += targets;
        self.first + self.flights.len() as u64 - 1
    }

    /// Moves the end of what is done once all flights are: nothing had to be written up to
    /// `through`.
    pub(super) fn extend(&mut self, through: i64) {
        match self.flights.back_mut() {
            Some(last) => {
                last.through = last.through.max(through);
                if self.acknowledged == self.flights.len() {
                    self.watermark = Some(through);
                }
            }
            None => self.watermark = self.watermark.map(|watermark| watermark.max(through)),
        }
    }

    /// Notes that flight `number` is acknowledged whole.
    pub(super) fn acknowledge(&mut self, number: u64) {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok());
        let Some(flight) = place.and_then(|place| self.flights.get_mut(place)) else {
            return;
        };
        if flight.acknowledged {
            return;
        }
        flight.acknowledged = true;
        self.in_flight_targets -= flight.targets;
        self.in_flight_bytes -= flight.bytes;
        while let Some(next) = self
            .flights
            .get(self.acknowledged)
            .filter(|next| next.acknowledged)
        {
            self.watermark = Some(next.through);
            self.acknowledged += 1;
        }
    }

    /// Notes that `position` is committed.
    pub(super) fn commit(&mut self, position: i64) {
        while self.acknowledged > 0
            && self
                .flights
                .front()
                .is_some_and(|flight| flight.through <= position)
        {
            if let Some(flight) = self.flights.pop_front() {
                self.uncommitted_targets -= flight.targets;
            }
            self.first += 1;
            self.acknowledged -= 1;
        }
    }

    /// The offset below which every write is acknowledged.
    pub(super) fn watermark(&self) -> Option<i64> {
        self.watermark
    }

    /// Whether nothing is waiting for an acknowledgement.
    pub(super) fn is_settled(&self) -> bool {
        self.acknowledged == self.flights.len()
    }

    /// Targets that are not acknowledged.
    pub(super) fn in_flight_targets(&self) -> usize {
        self.in_flight_targets
    }

    /// Bytes that are not acknowledged.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Targets written since the committed position.
    pub(super) fn uncommitted_targets(&self) -> usize {
        self.uncommitted_targets
    }

    /// How long the oldest unacknowledged write has been waiting.
    pub(super) fn age(&self, now: Instant) -> std::time::Duration {
        let oldest = self.flights.get(self.acknowledged);
        oldest.map_or_else(Default::default, |flight| {
            now.saturating_duration_since(flight.sent_at)
        })
    }

    /// Whether more may be written, beside `targets` and `bytes` about to be.
    pub(super) fn has_room(
        &self,
        limits: &Limits,
        targets: usize,
        bytes: usize,
        now: Instant,
    ) -> bool {
        self.in_flight_targets + targets < limits.targets
            && self.in_flight_bytes + bytes < limits.bytes
            && self.age(now) <= limits.age
    }

    /// Whether another source record may be begun, beside `targets` about to be written. A record
    /// that was begun goes on, or one with more targets than the limit would never end.
    pub(super) fn may_begin(&self, limits: &Limits, targets: usize) -> bool {
        self.uncommitted_targets + targets < limits.targets
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        targets: 10,
        bytes: 100,
        age: Duration::from_secs(10),
    };

    #[tokio::test(start_paused = true)]
    async fn the_watermark_waits_for_the_oldest_flight() {
        let now = Instant::now();
        let mut window = Window::new(Some(5));
        let first = window.send(6, 1, 10, now);
        let second = window.send(9, 1, 10, now);
        window.acknowledge(second);
        assert_eq!(window.watermark(), Some(5), "rule 3");
        window.extend(12);
        window.acknowledge(first);
        assert_eq!(window.watermark(), Some(12));
        assert!(window.is_settled());
        assert_eq!(window.uncommitted_targets(), 2);
        window.commit(12);
        assert_eq!(window.uncommitted_targets(), 0);
        window.extend(20);
        assert_eq!(window.watermark(), Some(20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_incident_holds_the_watermark_back_until_it_is_written() {
        let mut window = Window::new(None);
        window.extend(3);
        assert_eq!(window.watermark(), None);
        let flight = window.send(3, 0, 10, Instant::now());
        assert_eq!(window.watermark(), None);
        window.acknowledge(flight);
        assert_eq!(window.watermark(), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn room_ends_at_each_limit() {
        let now = Instant::now();
        let mut window = Window::new(Some(0));
        assert!(window.has_room(&LIMITS, 9, 99, now));
        assert!(!window.has_room(&LIMITS, 10, 0, now));
        assert!(!window.has_room(&LIMITS, 0, 100, now));
        let flight = window.send(1, 9, 1, now);
        assert!(window.has_room(&LIMITS, 0, 0, now + LIMITS.age));
        assert!(!window.has_room(&LIMITS, 0, 0, now + LIMITS.age + Duration::from_millis(1)));
        window.acknowledge(flight);
        assert!(window.has_room(&LIMITS, 0, 0, now + LIMITS.age * 2));
        assert!(!window.may_begin(&LIMITS, 1), "nine are not committed");
        window.commit(1);
        assert!(window.may_begin(&LIMITS, 1));
    }

    proptest! {
        /// The watermark against looking at every flight.
        #[test]
        fn the_watermark_is_the_end_of_the_acknowledged_run(
            count in 1_u64..40,
            order in prop::collection::vec(0_u64..40, 0..60),
        ) {
            let now = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
                .block_on(async { Instant::now() });
            let mut window = Window::new(Some(0));
            for offset in 0..count {
                window.send(i64::try_from(offset).unwrap() + 1, 2, 3, now);
            }
            let mut acknowledged = BTreeSet::new();
            for number in order {
                window.acknowledge(number);
                if number < count { acknowledged.insert(number); }
                let run = (0..count).take_while(|one| acknowledged.contains(one)).count();
                prop_assert_eq!(window.watermark(), Some(run as i64));
                let open = usize::try_from(count).unwrap() - acknowledged.len();
                prop_assert_eq!(window.in_flight_targets(), 2 * open);
                window.commit(run as i64);
                prop_assert_eq!(
                    window.uncommitted_targets(),
                    2 * (usize::try_from(count).unwrap() - run)
                );
            }
        }
    }
}
