//! Owns the records of one event: its targets in the order of their partitions, at most 1,000 in a
//! record (rule 2), and fewer where the record would be too large for the log.
//!
//! It must never name a target twice, nor put targets of two partitions into one record. The
//! surprise: a target that the log has refused before becomes a dead letter here, so that the
//! records around it are made as if it had never matched.

use std::collections::{BTreeMap, HashMap};

use runtime::log::{Headers, Record};
use schemas::event::Event;
use schemas::ids::{SubscriptionId, order_key};
use schemas::records::{DeadReason, DeliveryRecord, MAX_TARGETS, Origin, Target};

use super::dead::Refusal;
use super::{Places, RECORD_BYTES_MAX};
use crate::index::{Entries, Matches, Place};

/// The most bytes that a target takes in a record: two ids, the flags and an order key.
const TARGET_BYTES: usize = 42;
/// More targets than this are put in order piece by piece.
const AT_ONCE: usize = 4_000;
/// More bytes than the envelope takes beside the origin's topic.
const ENVELOPE_BYTES: usize = 96;

/// Targets that the log has refused for good: the source offset, the item and the subscription.
pub type Refused = HashMap<(i64, u32, SubscriptionId), DeadReason, foldhash::fast::RandomState>;

/// A source record that was read.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) event: Event,
    pub(super) headers: Headers,
    pub(super) accepted_at: i64,
    pub(super) origin: Origin,
}

/// One event on its way to its targets.
#[derive(Debug)]
pub struct Fanout {
    /// Without targets: those of the next record are in `targets`.
    envelope: DeliveryRecord,
    headers: Headers,
    entries: Entries,
    /// Targets of a large fan-out that are not in order yet.
    unordered: Vec<Place>,
    /// Those that were taken from there, by partition.
    groups: BTreeMap<u32, Vec<(u32, Place)>>,
    /// Partition and place of each target, in this order.
    wanted: Vec<(u32, Place)>,
    /// The place in `wanted` of the next target.
    next: usize,
    /// Targets that end here, with the reason.
    doomed: Vec<(DeadReason, Place)>,
    targets: Vec<Target>,
    targets_max: usize,
    /// The event's order key, once an ordered subscription asks for it.
    order_key: Option<u64>,
}

/// A record to write and whom it is for.
#[derive(Debug)]
pub struct Outgoing {
    /// The record.
    pub record: Record,
    /// The subscriptions in it; empty for a dead letter.
    pub targets: usize,
    /// Why it is a dead letter, where it is one.
    pub dead: Option<DeadReason>,
}

impl Fanout {
    /// The way of `arrival` to everybody who wants it; `None` where nobody does.
    pub(super) fn new(
        arrival: Arrival,
        matches: Matches<'_>,
        control_offset: i64,
        refused: &Refused,
    ) -> Option<Self> {
        let Arrival {
            event,
            headers,
            accepted_at,
            origin,
        } = arrival;
        let targets_max = targets_max(&event, &headers, &origin);
        let (mut wanted, mut doomed) = (Vec::new(), Vec::new());
        let is_large = matches.places.len() > AT_ONCE && targets_max > 0 && refused.is_empty();
        let (places, unordered) = if is_large {
            (&[][..], matches.places.to_vec())
        } else {
            (matches.places, Vec::new())
        };
        for &place in places {
            let Some(entry) = matches.entries.get(place) else {
                continue;
            };
            let known = refused
                .get(&(origin.offset, origin.index, entry.subscription))
                .copied();
            match known.or((targets_max == 0).then_some(DeadReason::TooLarge)) {
                Some(reason) => doomed.push((reason, place)),
                None => wanted.push((entry.placement, place)),
            }
        }
        if wanted.is_empty() && doomed.is_empty() && unordered.is_empty() {
            return None;
        }
        wanted.sort_unstable();
        let envelope = DeliveryRecord {
            origin,
            router_position: None,
            accepted_at,
            control_offset,
            event,
            targets: Vec::new(),
        };
        Some(Self {
            envelope,
            headers,
            entries: matches.entries.clone(),
            unordered,
            groups: BTreeMap::new(),
            wanted,
            next: 0,
            doomed,
            targets: Vec::new(),
            targets_max,
            order_key: None,
        })
    }

    /// The offset of the source record.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.envelope.origin.offset
    }

    /// The item's place in the source record, else 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.envelope.origin.index
    }

    /// When the event was accepted, unix milliseconds.
    #[must_use]
    pub fn accepted_at(&self) -> i64 {
        self.envelope.accepted_at
    }

    /// Takes the event for accepted at this time, unix milliseconds.
    pub fn accept_at(&mut self, at: i64) {
        self.envelope.accepted_at = at;
    }

    /// How many targets its records have, of those that are not made yet: all at first.
    #[must_use]
    pub fn targets(&self) -> usize {
        let grouped: usize = self.groups.values().map(Vec::len).sum();
        let wanted = self.wanted.len().saturating_sub(self.next);
        wanted + grouped + self.unordered.len()
    }

    /// Whether every record has been made.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_in_order() && self.doomed.is_empty() && self.next >= self.wanted.len()
    }

    /// Whether the next record can be made without looking at all targets first.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.unordered.is_empty() && self.groups.is_empty()
    }

    /// Puts up to `max` more targets of a large fan-out in the order of their partitions; returns
    /// how many. So that its first record holds nobody up for longer than its others.
    pub fn put_in_order(&mut self, max: usize) -> usize {
        let from = self.unordered.len().saturating_sub(max);
        let mut count = 0;
        for place in self.unordered.drain(from..) {
            count += 1;
            if let Some(entry) = self.entries.get(place) {
                let group = self.groups.entry(entry.placement).or_default();
                group.push((entry.placement, place));
            }
        }
        if self.unordered.is_empty() {
            self.wanted
                .reserve_exact(self.groups.values().map(Vec::len).sum());
            let groups = std::mem::take(&mut self.groups);
            self.wanted.extend(groups.into_values().flatten());
        }
        count
    }

    /// The subscriptions of the record made last.
    pub fn last_targets(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        self.targets.iter().map(|target| target.subscription)
    }

    /// The next record; `None` when all have been made. `position` is the router's committed
    /// position in the source partition as it is now; `now` dates dead letters.
    pub fn next(&mut self, places: &Places, position: Option<i64>, now: i64) -> Option<Outgoing> {
        self.targets.clear();
        if !self.is_in_order() {
            self.put_in_order(usize::MAX);
        }
        if let Some((reason, place)) = self.doomed.pop() {
            return Some(self.dead_letter(places, reason, place, now));
        }
        let (partition, _) = *self.wanted.get(self.next)?;
        for (_, place) in self
            .wanted
            .iter()
            .skip(self.next)
            .take(self.targets_max)
            .take_while(|(other, _)| *other == partition)
        {
            self.next += 1;
            if let Some(entry) = self.entries.get(*place) {
                let mut target = Target::new(entry.subscription, entry.endpoint);
                if entry.ordered {
                    let event = &self.envelope.event;
                    let key = self.order_key.get_or_insert_with(|| order_key(event));
                    target.order = Some((*key, 0));
                }
                self.targets.push(target);
            }
        }
        // A position beyond the origin would be another partition's history: a restart at the
        // earliest offset, not yet committed.
        self.envelope.router_position =
            position.filter(|position| *position <= self.envelope.origin.offset);
        let record = Record {
            topic: places.deliveries.clone(),
            partition: Some(partition),
            key: None,
            value: Some(self.envelope.value_for(&self.targets)),
            headers: self.headers.clone(),
        };
        Some(Outgoing {
            record,
            targets: self.targets.len(),
            dead: None,
        })
    }

    fn dead_letter(&self, places: &Places, reason: DeadReason, place: Place, now: i64) -> Outgoing {
        let target = self
            .entries
            .get(place)
            .expect("invariant: held entries stay as they are");
        let refusal = Refusal {
            reason,
            origin: &self.envelope.origin,
            event: &self.envelope.event,
            target,
        };
        Outgoing {
            record: refusal.record(places, now),
            targets: 0,
            dead: Some(reason),
        }
    }
}

/// How many targets fit beside the event; none where the event alone is too large.
fn targets_max(event: &Event, headers: &Headers, origin: &Origin) -> usize {
    let data = event.data().map_or(0, |data| data.len());
    let fixed = headers.len_bytes() + data + origin.topic.len() + ENVELOPE_BYTES;
    (RECORD_BYTES_MAX.saturating_sub(fixed) / TARGET_BYTES).min(MAX_TARGETS)
}
