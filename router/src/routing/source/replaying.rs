//! Owns what a source partition has to do with subscriptions that have a start: being held, which
//! of them are live from where, the mark that its positions are committed with, and being read a
//! second time for past events.
//!
//! It must never commit a position before the mark that came with the last one is known, or the
//! word of earlier owners would be lost with it.

use std::sync::Arc;

use schemas::records::OwnerMark;

use super::super::start::Start;
use super::Source;
use crate::matching::{Gates, Places};

/// What is told apart in the metadata of a committed position: words, of which one may be a mark
/// and one a label.
const MARK: &str = "activations/";

/// The label in a committed position's metadata; empty where there is none.
pub(in crate::routing) fn label_in(metadata: &str) -> &str {
    let mut words = metadata.split(' ');
    words
        .find(|word| !word.starts_with(MARK))
        .unwrap_or_default()
}

/// The mark in a committed position's metadata.
pub(in crate::routing) fn mark_in(metadata: &str) -> Option<OwnerMark> {
    let mut words = metadata.split(' ');
    words.find(|word| word.starts_with(MARK))?.parse().ok()
}

impl Source {
    /// The offset behind the last record begun.
    pub(in crate::routing) fn next_offset(&self) -> i64 {
        self.next
    }

    /// From where on subscriptions with a start are live.
    pub(in crate::routing) fn gates(&mut self) -> &mut Gates {
        &mut Arc::make_mut(&mut self.places).gates
    }

    /// Positions may be committed, with this mark; empty for none.
    pub(in crate::routing) fn put_mark(&mut self, mark: String) {
        if self.mark.as_ref() != Some(&mark) {
            self.recommit = true;
            self.is_marked = false;
            self.mark = Some(mark);
        }
    }

    /// Whether the log was made anew, or restored shorter, and no position in it is committed yet.
    pub(in crate::routing) fn is_anew(&self) -> bool {
        self.position.is_some_and(|position| position > self.next)
    }

    /// Nothing that is on record counts any more: no position is committed until that is put in
    /// order.
    pub(in crate::routing) fn forget_mark(&mut self) {
        self.is_marked = false;
        self.mark = None;
        *self.gates() = Gates::default();
    }

    /// What a position is committed with: whose it is, and whose activations count.
    pub(in crate::routing) fn metadata(&self) -> String {
        let mark = self.mark.as_deref().unwrap_or_default();
        if self.label.is_empty() || mark.is_empty() {
            return format!("{}{mark}", self.label);
        }
        format!("{} {mark}", self.label)
    }

    /// Notes that a position was committed with `metadata`; says whether the log knows the mark
    /// only now.
    pub(in crate::routing) fn committed_with(&mut self, metadata: &str) -> bool {
        let was_marked = self.is_marked;
        self.is_marked = self.metadata() == metadata;
        self.recommit |= !self.is_marked;
        self.is_marked && !was_marked
    }

    /// Whether activations wait for the mark to be committed.
    pub(super) fn awaits_mark(&self) -> bool {
        !self.is_marked && self.mark.as_ref().is_some_and(|mark| !mark.is_empty())
    }

    /// Whether the log knows the mark.
    pub(in crate::routing) fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// The position that records carry; past events carry none (rule 3).
    pub(super) fn carried(&self) -> Option<i64> {
        self.position.filter(|_| !self.is_replay)
    }

    /// The same partition once more from `from` on, for the subscriptions of `gates` alone.
    pub(in crate::routing) fn replay(&self, gates: Gates, from: i64) -> Self {
        let places = Places {
            gates,
            ..(*self.places).clone()
        };
        let mut replay = Self::new(places, self.class, self.reading.clone(), self.tenure);
        replay.is_replay = true;
        replay.start(Start {
            at: from,
            committed: None,
            lost: None,
        });
        replay
    }

    /// Whether everything that was read is handed to the producer.
    pub(in crate::routing) fn has_begun_all(&self) -> bool {
        self.backlog.is_empty() && !self.is_under_way() && self.unsent.is_none()
    }

    /// Drops what was read and not begun; returns the offset behind what was.
    pub(in crate::routing) fn cut_backlog(&mut self) -> i64 {
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.ready = true;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use runtime::log::TopicName;

    use super::super::super::metrics::Class;
    use super::super::intake::Reading;
    use super::*;

    #[test]
    fn a_partition_without_a_position_waits_for_no_commit_where_nothing_was_routed() {
        let topic = TopicName::new("shop.orders");
        let places = Places {
            source_topic: topic.as_str().into(),
            source: topic.partition(0),
            deliveries: TopicName::new("deliveries"),
            dead: TopicName::new("dead"),
            gates: Gates::default(),
        };
        let started = |committed| {
            let mut source = Source::new(places.clone(), Class::Source, Reading::Events, 1);
            source.start(Start {
                at: 7,
                committed,
                lost: None,
            });
            source.drain();
            source
        };
        let mut source = started(None);
        assert_eq!(source.to_commit(), None, "its mark is not known");
        assert!(source.is_drained());
        source.put_mark(String::new());
        assert_eq!(source.to_commit(), Some(7));
        assert!(!source.is_drained(), "it can be committed now");
        let mut source = started(None);
        source.window.extend(8);
        assert!(!source.is_drained(), "something was routed");
        assert!(started(Some(7)).is_drained());
    }

    #[test]
    fn label_and_mark_are_told_apart() {
        let check = |metadata: &str, label: &str, mark: Option<&str>| {
            assert_eq!(label_in(metadata), label, "{metadata}");
            let found = mark_in(metadata).map(|mark| mark.to_string());
            assert_eq!(found.as_deref(), mark, "{metadata}");
        };
        check("", "", None);
        check("src_1", "src_1", None);
        check("activations/7/a-1", "", Some("activations/7/a-1"));
        check(
            "src_1 activations/7/a-1",
            "src_1",
            Some("activations/7/a-1"),
        );
        check("activations/x", "", None);
    }
}
