//! Owns which delivery of a disabled endpoint may be attempted as its probe, and which endpoints
//! have come back by one.
//!
//! Pure: it never attempts. It must never name two probes of one endpoint at once. The surprise:
//! nothing tells it that a probe was never made; a minute later the next one may be.

use std::time::Duration;

use hashbrown::HashMap;
use schemas::ids::EndpointId;
use tokio::time::Instant;

/// The wait for the first probe …
pub(crate) const PROBE_FIRST: Duration = Duration::from_mins(1);
/// … which doubles with each that fails, to this.
pub(crate) const PROBE_MAX: Duration = Duration::from_hours(1);

/// An endpoint as it was at one change of it.
pub(crate) type Version = (EndpointId, i64);

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    /// The endpoint took it, or rejected it for good: it works.
    Served,
    /// It did not.
    Failed,
    /// It says nothing of the endpoint.
    Unknown,
}

/// One disabled endpoint; `N` names a delivery.
#[derive(Debug)]
struct Waiting<N> {
    updated_at: i64,
    not_before: Instant,
    interval: Duration,
    /// The one delivery that may be attempted.
    probe: Option<N>,
}

/// All disabled endpoints that may come back by themselves.
#[derive(Debug)]
pub(crate) struct Probation<N> {
    waiting: HashMap<EndpointId, Waiting<N>>,
    back: HashMap<EndpointId, i64>,
}

impl<N: PartialEq> Probation<N> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: HashMap::new(),
            back: HashMap::new(),
        }
    }

    /// Whether `delivery` may be the probe; if so, it is. The first one of an endpoint waits.
    pub(crate) fn begin(&mut self, (id, updated_at): Version, delivery: N, now: Instant) -> bool {
        let anew = || Waiting {
            updated_at,
            not_before: now + PROBE_FIRST,
            interval: PROBE_FIRST,
            probe: None,
        };
        let waiting = self.waiting.entry(id).or_insert_with(anew);
        if waiting.updated_at != updated_at {
            *waiting = anew();
        }
        if now < waiting.not_before {
            return false;
        }
        // Longer than any delivery may wait for its turn and its answer.
        waiting.not_before = now + waiting.interval;
        waiting.probe = Some(delivery);
        true
    }

    /// Whether `delivery` is the probe.
    pub(crate) fn is_probe(&self, (id, updated_at): Version, delivery: &N) -> bool {
        self.waiting.get(&id).is_some_and(|waiting| {
            waiting.updated_at == updated_at && waiting.probe.as_ref() == Some(delivery)
        })
    }

    /// The probe has ended.
    pub(crate) fn ended(&mut self, (id, updated_at): Version, probed: Probed, now: Instant) {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return;
        };
        match probed {
            Probed::Served => {
                self.waiting.remove(&id);
                self.back.insert(id, updated_at);
                return;
            }
            Probed::Failed => waiting.interval = (waiting.interval * 2).min(PROBE_MAX),
            Probed::Unknown => {}
        }
        waiting.not_before = now + waiting.interval;
        waiting.probe = None;
    }

    /// A predecessor saw the endpoint come back.
    pub(crate) fn inherit(&mut self, (id, updated_at): Version) {
        self.back.insert(id, updated_at);
    }

    /// When the next probe may go at the earliest, and the wait before it.
    pub(crate) fn next(&self, (id, updated_at): Version) -> Option<(Instant, Duration)> {
        let waiting = self.waiting.get(&id)?;
        (waiting.updated_at == updated_at).then_some((waiting.not_before, waiting.interval))
    }

    /// A predecessor let the endpoint wait so long: never longer than one of this process would.
    pub(crate) fn resume(
        &mut self,
        (id, updated_at): Version,
        (not_before, interval): (Instant, Duration),
        now: Instant,
    ) {
        let interval = interval.clamp(PROBE_FIRST, PROBE_MAX);
        let waiting = Waiting {
            updated_at,
            not_before: not_before.min(now + interval),
            interval,
            probe: None,
        };
        self.waiting.insert(id, waiting);
    }

    /// Whether the endpoint has come back, and nothing has changed it since.
    pub(crate) fn is_back(&self, (id, updated_at): Version) -> bool {
        self.back.get(&id) == Some(&updated_at)
    }

    /// Forgets endpoints that were changed or deleted since.
    pub(crate) fn keep(&mut self, is_current: impl Fn(Version) -> bool) {
        self.waiting
            .retain(|id, waiting| is_current((*id, waiting.updated_at)));
        self.back
            .retain(|id, updated_at| is_current((*id, *updated_at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: Version = (EndpointId::from_bits(1), 5);

    #[test]
    fn probes_go_one_at_a_time_and_more_and_more_seldom() {
        let start = Instant::now();
        let mut probation = Probation::new();
        assert!(!probation.begin(ENDPOINT, 0, start), "the first waits");
        let (mut now, mut waited) = (start, Vec::new());
        for delivery in 1..10 {
            let from = now;
            while !probation.begin(ENDPOINT, delivery, now) {
                now += Duration::from_secs(60);
            }
            assert!(
                !probation.begin(ENDPOINT, 99, now + PROBE_FIRST / 2),
                "one at a time"
            );
            assert!(probation.is_probe(ENDPOINT, &delivery));
            assert!(!probation.is_probe(ENDPOINT, &99));
            assert!(!probation.is_probe((ENDPOINT.0, 6), &delivery));
            waited.push((now - from).as_secs() / 60);
            probation.ended(ENDPOINT, Probed::Failed, now);
            assert!(!probation.is_probe(ENDPOINT, &delivery), "attempted once");
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_successor_lets_it_wait_as_long_and_no_longer_than_it_would_itself() {
        let start = Instant::now();
        let mut before = Probation::new();
        before.begin(ENDPOINT, 0, start);
        assert!(before.begin(ENDPOINT, 1, start + PROBE_FIRST));
        before.ended(ENDPOINT, Probed::Failed, start + PROBE_FIRST);
        assert_eq!(before.next((ENDPOINT.0, 6)), None);
        let next = before.next(ENDPOINT).unwrap();
        assert_eq!(next, (start + PROBE_FIRST * 3, PROBE_FIRST * 2));
        let mut after = Probation::new();
        after.resume(ENDPOINT, next, start + PROBE_FIRST * 2);
        assert_eq!(after.next(ENDPOINT), Some(next));
        assert!(!after.begin(ENDPOINT, 2, start + PROBE_FIRST * 2));
        assert!(after.begin(ENDPOINT, 2, start + PROBE_FIRST * 3));
        after.ended(ENDPOINT, Probed::Failed, start + PROBE_FIRST * 3);
        assert_eq!(after.next(ENDPOINT).unwrap().1, PROBE_FIRST * 4);
        // As by a clock that was wrong.
        let far = start + Duration::from_hours(1_000);
        after.resume(ENDPOINT, (far, Duration::from_hours(1_000)), start);
        assert_eq!(after.next(ENDPOINT), Some((start + PROBE_MAX, PROBE_MAX)));
        // One that is changed begins anew.
        assert!(!after.begin((ENDPOINT.0, 6), 3, start));
        assert!(after.begin((ENDPOINT.0, 6), 3, start + PROBE_FIRST));
    }

    #[test]
    fn one_that_was_never_made_is_followed_by_another_and_says_nothing() {
        let start = Instant::now();
        let mut probation = Probation::new();
        probation.begin(ENDPOINT, 0, start);
        assert!(probation.begin(ENDPOINT, 1, start + PROBE_FIRST));
        assert!(probation.begin(ENDPOINT, 2, start + PROBE_FIRST * 2));
        assert!(!probation.is_probe(ENDPOINT, &1));
        probation.ended(ENDPOINT, Probed::Unknown, start + PROBE_FIRST * 2);
        assert!(
            probation.begin(ENDPOINT, 3, start + PROBE_FIRST * 3),
            "no longer"
        );
    }

    #[test]
    fn one_that_is_served_brings_the_endpoint_back_until_it_is_changed() {
        let start = Instant::now();
        let mut probation = Probation::new();
        probation.begin(ENDPOINT, 0, start);
        assert!(probation.begin(ENDPOINT, 1, start + PROBE_FIRST));
        probation.ended(ENDPOINT, Probed::Served, start + PROBE_FIRST);
        assert!(probation.is_back(ENDPOINT));
        assert!(!probation.is_back((ENDPOINT.0, 6)));
        probation.keep(|version| version == ENDPOINT);
        assert!(probation.is_back(ENDPOINT));
        probation.keep(|version| version == (ENDPOINT.0, 6));
        assert!(!probation.is_back(ENDPOINT));
        // One that is changed begins anew.
        probation.begin(ENDPOINT, 2, start);
        assert!(!probation.begin((ENDPOINT.0, 7), 3, start + PROBE_FIRST));
    }
}
