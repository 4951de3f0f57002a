//! Owns what the demo expects and what arrived of it.
//!
//! It must never count an arrival twice, nor one that nobody expects.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::samples::Department;
use crate::listen::{Arrival, Signature};

/// The deliveries that are to arrive.
#[derive(Debug, Default)]
pub(super) struct Tally {
    expected: HashMap<String, Expected>,
    latencies: Vec<Duration>,
    verified: usize,
    repeats: usize,
    strangers: usize,
}

#[derive(Debug)]
struct Expected {
    department: Department,
    ty: String,
    published: Option<Instant>,
    arrived: bool,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first of its id.
    Delivered(Department, Duration),
    /// One of an id that had arrived before.
    Repeat,
    /// Nobody expects it.
    Stranger,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) expected: usize,
    pub(super) delivered: usize,
    pub(super) verified: usize,
    pub(super) repeats: usize,
    pub(super) strangers: usize,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Tally {
    /// Expects the delivery `id` of an event of type `ty`.
    pub(super) fn expect(&mut self, id: String, department: Department, ty: &str) {
        let ty = ty.to_owned();
        let expected = Expected {
            department,
            ty,
            published: None,
            arrived: false,
        };
        self.expected.insert(id, expected);
    }

    /// Notes when the event of the delivery `id` is published.
    pub(super) fn published(&mut self, id: &str, at: Instant) {
        if let Some(expected) = self.expected.get_mut(id) {
            expected.published = Some(at);
        }
    }

    /// Notes an arrival.
    pub(super) fn arrived(&mut self, arrival: &Arrival) -> Kind {
        let Some(expected) = self.expected.get_mut(&arrival.id) else {
            self.strangers += 1;
            return Kind::Stranger;
        };
        if std::mem::replace(&mut expected.arrived, true) {
            self.repeats += 1;
            return Kind::Repeat;
        }
        self.verified += usize::from(arrival.signature == Signature::Verified);
        let published = expected.published.unwrap_or(arrival.instant);
        let latency = arrival.instant.saturating_duration_since(published);
        self.latencies.push(latency);
        Kind::Delivered(expected.department, latency)
    }

    /// Whether everything has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.latencies.len() == self.expected.len()
    }

    /// What has not arrived, a line each.
    pub(super) fn missing(&self) -> Vec<String> {
        let missing = self
            .expected
            .iter()
            .filter(|(_, expected)| !expected.arrived);
        let line = |(id, expected): (&String, &Expected)| {
            format!("{id}  {}  for {}", expected.ty, expected.department.name())
        };
        let mut lines: Vec<String> = missing.map(line).collect();
        lines.sort();
        lines
    }

    /// What it came to so far.
    pub(super) fn totals(&self) -> Totals {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        Totals {
            expected: self.expected.len(),
            delivered: latencies.len(),
            verified: self.verified,
            repeats: self.repeats,
            strangers: self.strangers,
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
        }
    }
}

/// The least value that `percent` of all do not exceed; zero where there is none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::EventName;

    fn arrival(id: &str, instant: Instant, signature: Signature) -> Arrival {
        Arrival {
            at: 0,
            instant,
            id: id.to_owned(),
            event: EventName::default(),
            signature,
            request: String::new(),
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn each_delivery_counts_once() {
        let mut tally = Tally::default();
        let start = Instant::now();
        tally.expect("a".to_owned(), Department::Sales, "t");
        tally.expect("b".to_owned(), Department::Marketing, "t");
        tally.published("a", start);
        let later = start + Duration::from_millis(3);
        let verified = arrival("a", later, Signature::Verified);
        let latency = Duration::from_millis(3);
        assert_eq!(
            tally.arrived(&verified),
            Kind::Delivered(Department::Sales, latency)
        );
        assert_eq!(tally.arrived(&verified), Kind::Repeat);
        assert_eq!(
            tally.arrived(&arrival("c", later, Signature::Verified)),
            Kind::Stranger
        );
        assert_eq!(tally.missing(), ["b  t  for marketing"]);
        assert!(!tally.is_complete());
        tally.arrived(&arrival("b", later, Signature::Refused(String::new())));
        assert!(tally.is_complete());
        let totals = tally.totals();
        assert_eq!(
            (
                totals.delivered,
                totals.verified,
                totals.repeats,
                totals.strangers
            ),
            (2, 1, 1, 1)
        );
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let millis: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&millis, 50), Duration::from_millis(100));
        assert_eq!(percentile(&millis, 99), Duration::from_millis(198));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
