//! The rules, checked against everything that the simulated endpoints and the log have seen.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::records::DeadLetter;

use super::World;
use super::world::PARTITIONS;

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

    /// Rule 5: of one placement no process starts an attempt after another has started one, unless
    /// it took the placement over again.
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
        for seen in attempts.values().flat_map(|seen| seen.windows(2)) {
            let [before, after] = seen else { continue };
            assert!(
                before.process == after.process || after.started >= before.started,
                "attempts out of order: {before:?} {after:?}"
            );
            // Interleaving owners would swap back and forth faster than any lease.
            if before.process != after.process {
                let swapped_back = seen.iter().any(|seen| {
                    seen.process == before.process
                        && seen.started > after.started
                        && seen.started < after.started + deadline
                });
                assert!(!swapped_back, "two owners at once: {before:?} {after:?}");
            }
        }
    }

    fn of(&self, id: &str) -> Vec<super::world::Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.delivery == id)
            .collect()
    }
}
