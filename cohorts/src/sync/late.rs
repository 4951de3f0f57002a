//! Owns what ended runs have left on its way: chunks that were written, and of which nothing was
//! heard for as long as a run that is to end waits for them.
//!
//! Their requests may arrive yet, and could undo a newer one of the same member: so nobody whose
//! outcome is unknown is sent again before all of them are reported, or can arrive no more (rule
//! 14). The surprise: it knows no members. Those of such chunks are unknown in the roster, and a
//! comparison that holds back leaves out all who are.

use std::collections::BTreeSet;

use schemas::records::ResultRecord;
use serde::{Deserialize, Serialize};

use super::results::{Positions, between};
use super::runner::Runner;
use super::{Fault, note::RunNote};
use crate::Outcomes;

/// Chunks of ended runs that may arrive yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Late {
    /// Their ids, as results have them for keys.
    chunks: BTreeSet<String>,
    /// None of them arrives after that, unix milliseconds.
    until: i64,
    /// Behind which of the results those about them are.
    results: Positions,
}

impl Late {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Nothing was heard of a chunk that may arrive until a time.
    pub(crate) fn leave(&mut self, id: u128, until: i64) {
        self.chunks.insert(ResultRecord::key(id));
        self.until = self.until.max(until);
    }

    /// Whether a report is about one of them, which is none any more.
    pub(crate) fn hear(&mut self, id: u128) -> bool {
        !self.chunks.is_empty() && self.chunks.remove(&ResultRecord::key(id))
    }

    /// Everything that was reported before these positions has been heard.
    pub(crate) fn heard_until(&mut self, positions: &Positions) {
        if self.chunks.is_empty() {
            *self = Self::default();
        } else {
            self.results.clone_from(positions);
        }
    }

    fn expire(&mut self, now: i64) {
        if self.until <= now {
            self.chunks.clear();
        }
    }
}

impl Runner {
    /// Hears of late chunks, while no run listens.
    pub(super) async fn follow_late(&mut self) -> Result<(), Fault> {
        if self.note.late.is_empty() {
            return Ok(());
        }
        let before = self.note.late.len();
        let positions = self.means.hub.positions();
        self.hear_late(&positions).await?;
        self.note.late.expire(self.means.clock.now());
        self.note.late.heard_until(&positions);
        self.end_late();
        if self.note.late.len() < before {
            self.save(None, Outcomes::default()).await?;
        }
        Ok(())
    }

    /// Reads what was reported of late chunks up to some positions.
    pub(super) async fn hear_late(&mut self, to: &Positions) -> Result<(), Fault> {
        if self.note.late.is_empty() || self.note.late.results == *to {
            return Ok(());
        }
        let subscription = self.sync()?.subscription;
        let span = (&self.note.late.results, to);
        let (log, topic) = (&self.means.log, &self.means.topics.results);
        for report in between(log, topic, subscription, span).await? {
            self.note.late.hear(report.bulk);
        }
        Ok(())
    }

    /// Whoever was held back is sent as soon as nothing stands against it.
    pub(super) fn end_late(&mut self) {
        if self.note.late.is_empty() && std::mem::take(&mut self.note.held_back) {
            self.note.queued.get_or_insert(false);
        }
    }

    /// What a run that is over leaves behind of late chunks.
    pub(super) fn leave_late(&mut self, run: &RunNote) {
        if !run.results.is_empty() {
            self.note.late.heard_until(&run.results);
        }
        self.note.held_back |= run.holds_back && run.stop.is_none();
        self.end_late();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_chunk_is_waited_for_until_it_is_heard_of_or_can_arrive_no_more() {
        let mut late = Late::default();
        late.leave(1, 100);
        late.leave(2, 50);
        assert!(late.hear(2) && !late.hear(2) && !late.hear(3));
        let positions = Positions::from([(0, 7)]);
        late.heard_until(&positions);
        assert_eq!(late.results, positions);
        let stored = serde_json::to_value(&late).unwrap();
        assert_eq!(serde_json::from_value::<Late>(stored).unwrap(), late);
        late.expire(99);
        assert_eq!(late.len(), 1);
        late.expire(100);
        assert!(late.is_empty());
        late.heard_until(&positions);
        assert_eq!(late, Late::default());
    }
}
