//! The rules, checked against everything that the simulated endpoints and the log have seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use schemas::records::DeadLetter;
use tokio::time::Instant;

use super::World;
use super::world::{PARTITIONS, Seen};
use crate::limiter::{Anchor, oracle};

impl World {
    /// Every dead letter, by delivery id.
    pub(crate) fn dead(&self) -> HashMap<String, DeadLetter> {
        self.letters()
            .into_iter()
            .map(|letter| {
                let id = letter.delivery.map_or_else(
                    || format!("{:?}", letter.origin),
                    |delivery| delivery.to_string(),
                );
                (id, letter)
            })
            .collect()
    }

    /// Every dead letter.
    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        (0..PARTITIONS)
            .flat_map(|number| self.log.records(&self.topics.dead.partition(number)))
            .map(|record| {
                let (letter, _) = DeadLetter::decode(
                    record.headers.iter().collect::<Vec<_>>().into_iter(),
                    record.value.as_ref(),
                )
                .unwrap();
                letter
            })
            .collect()
    }

    /// Whether each of `ids` has ended: delivered or dead.
    pub(crate) fn ended(&self, ids: &[String]) -> bool {
        let dead = self.dead();
        let delivered: HashSet<String> = self
            .seen()
            .into_iter()
            .filter(|seen| seen.status == Some(200))
            .map(|seen| seen.delivery)
            .collect();
        ids.iter()
            .all(|id| delivered.contains(id) || dead.contains_key(id))
    }

    /// Rule 3 and 13 without a death: nothing is sent twice.
    pub(crate) fn audit_exactly_once(&self, ids: &[String]) {
        for id in ids {
            assert!(
                self.delivered(id) <= 1,
                "{id} was delivered more than once: {:?}",
                self.of(id)
            );
        }
    }

    /// No delivery is attempted by one process while it attempts it already.
    pub(crate) fn audit_one_at_a_time(&self, ids: &[String]) {
        for id in ids {
            let attempts = self.of(id);
            for (at, one) in attempts.iter().enumerate() {
                let until = one.ended.unwrap_or(one.started);
                let others = attempts.iter().skip(at + 1);
                let at_once = others
                    .filter(|other| other.process == one.process)
                    .find(|other| other.started < until);
                assert!(at_once.is_none(), "two at once: {one:?} and {at_once:?}");
            }
        }
    }

    /// Rule 5: no two processes start attempts of one placement at once.
    pub(crate) fn audit_ownership(&self) {
        let placements: BTreeMap<String, u32> = self
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, (endpoint, _))| {
                (format!("e{}", index + 1), endpoint.placement.partition())
            })
            .collect();
        let mut attempts: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for seen in self.seen() {
            attempts
                .entry(placements[&seen.endpoint])
                .or_default()
                .push(seen);
        }
        let deadline = std::time::Duration::from_secs(5);
        for seen in attempts.values() {
            // Owners at once swap back and forth faster than any lease: one, another, and both again.
            let mut turns: Vec<&Seen> = Vec::new();
            for attempt in seen {
                let goes_on = |last: &&Seen| last.process == attempt.process;
                if !turns.last().is_some_and(goes_on) {
                    turns.push(attempt);
                }
            }
            for turn in turns.windows(4) {
                let [a, b, c, d] = turn else { continue };
                let both_again = a.process == c.process && b.process == d.process;
                let at_once = both_again && d.started < b.started + deadline;
                assert!(!at_once, "two owners at once: {turn:?}");
            }
        }
    }

    /// No window of any endpoint is exceeded by the starts of its attempts, whoever made them.
    pub(crate) fn audit_limits(&self) {
        let seen = self.seen();
        let Some(first) = seen.first().map(|seen| seen.started) else {
            return;
        };
        let anchor = Anchor::new(first, self.clock.wall_at(first));
        for (index, (endpoint, _)) in self.endpoints.iter().enumerate() {
            let name = format!("e{}", index + 1);
            let starts = seen.iter().filter(|seen| seen.endpoint == name);
            let starts: Vec<(u64, u32)> = starts
                .map(|seen| (anchor.unix_ms(seen.started).unsigned_abs() * 1_000_000, 1))
                .collect();
            for window in &endpoint.limits {
                oracle::audit(*window, &starts);
            }
        }
    }

    /// Rules 5 and 11: what was told to wait gets nothing before its time, by whomever, where the
    /// answer came long enough before its owner's end to be saved.
    pub(crate) fn audit_holds(&self, ended_at: &[(String, Instant)]) {
        let seen = self.seen();
        for told in &seen {
            let (Some(wait), Some(at)) = (told.retry_after, told.ended) else {
                continue;
            };
            let is_lost = |(process, end): &(String, Instant)| {
                *process == told.process && at + Duration::from_millis(500) > *end
            };
            if ended_at.iter().any(is_lost) {
                continue;
            }
            let until = at + Duration::from_secs(wait);
            let early = seen.iter().find(|seen| {
                seen.endpoint == told.endpoint && seen.started > at && seen.started < until
            });
            assert!(early.is_none(), "{told:?} and still {early:?}");
        }
    }

    fn of(&self, id: &str) -> Vec<super::world::Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.delivery == id)
            .collect()
    }
}
