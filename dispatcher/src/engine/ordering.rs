//! Owns the way of ordered deliveries through the engine (rule 12): into their line's book and out
//! of it, and what transactions say of blocked lines on `progress`.
//!
//! It must never attempt a delivery whose turn it is not. The surprise: whose turn it is next is
//! put into a queue and looked at in the next round, so that a line of a thousand dead letters is
//! no recursion.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use runtime::log::{Headers, Record};
use schemas::records::{AttemptState, OrderProgress, ProgressKey};
use tokio::time::Instant;

use super::Engine;
use super::moves::{Move, What};
use crate::delivery::Transport;
use crate::endpoints::Target;
use crate::ledger::Place;
use crate::metrics::Deferred;
use crate::order::{Arrived, Behind, Block, Key, Moment, Step, StepKind, line_of};
use crate::owned::{DELIVERIES, Owned, Tenure};
use crate::planted::{self, Bug};
use crate::work::Delivery;

impl<T: Transport> Engine<T> {
    /// Takes a delivery that was read to its line; returns it where it may go on at once.
    pub(super) fn arrive(
        &mut self,
        tenure: Tenure,
        mut delivery: Delivery,
        endpoint: &Target,
    ) -> Option<Delivery> {
        let fresh = delivery.source == DELIVERIES;
        // What is sent again on purpose has lost its place in any order.
        let ordered = delivery
            .target
            .order
            .filter(|_| delivery.target.bulk.is_none());
        let Some((key, sequence)) = ordered.filter(|(_, sequence)| fresh || *sequence > 0) else {
            return Some(delivery);
        };
        let key = Arc::new(line_of(endpoint.quota.clone(), endpoint.id, key));
        delivery.line = Some(Arc::clone(&key));
        let sequence = (!fresh).then_some(sequence);
        let place = delivery.place;
        let at = self.moment(tenure, &key);
        let lane_bytes = self.parts.options.lane_memory_bytes;
        let owned = self.tenant_of(tenure)?;
        match owned.orders.arrive(&key, (sequence, place), delivery, at) {
            Arrived::Go(delivery) => Some(delivery),
            Arrived::Late(mut delivery) => {
                delivery.line = None;
                delivery.target.order = None;
                Some(delivery)
            }
            Arrived::Kept => {
                if owned.orders.kept_bytes(&key.quota) > lane_bytes {
                    let shed = owned.orders.shed(&key, at);
                    self.defer_all(tenure, shed);
                }
                None
            }
            Arrived::Behind(behind) => {
                self.defer_behind(tenure, behind);
                None
            }
        }
    }

    /// Goes on with deliveries whose turn has come.
    pub(super) fn take_turns(&mut self) {
        while let Some((tenure, delivery)) = self.turns.pop_front() {
            let now = self.now();
            let endpoints = &self.parts.endpoints;
            let exists = endpoints.has_subscription(delivery.target.subscription);
            let endpoint = endpoints.get(delivery.target.endpoint).filter(|_| exists);
            match endpoint.cloned() {
                Some(endpoint) => self.queue(tenure, delivery, &endpoint, now),
                None => self.refuse(tenure, delivery),
            }
        }
    }

    /// A delivery whose turn it was goes to a delay topic: what goes with its move.
    pub(super) fn step_deferred(
        &mut self,
        tenure: Tenure,
        delivery: &mut Delivery,
        due_at: i64,
    ) -> Option<Box<Step>> {
        let key = delivery.line.clone()?;
        let step = self.tenant_of(tenure)?.orders.deferred(&key, due_at)?;
        number(delivery, &step);
        Some(Box::new(step))
    }

    /// A delivery whose turn it was becomes a dead letter: what goes with its move.
    pub(super) fn step_dead(&mut self, tenure: Tenure, delivery: &Delivery) -> Option<Box<Step>> {
        let key = delivery.line.clone()?;
        let ending = self.tenant_of(tenure)?.orders.dead(&key);
        self.turns.extend(ending.next.map(|next| (tenure, next)));
        ending.step.map(Box::new)
    }

    /// Completes a delivery; of a blocked line its end is written in a transaction, so that the
    /// next owner knows whose turn it is.
    pub(super) fn complete_in_order(&mut self, tenure: Tenure, delivery: &Delivery) {
        let Some(key) = delivery.line.clone() else {
            return self.complete(tenure, delivery);
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let ending = owned.orders.delivered(&key);
        match ending.step {
            None => self.complete(tenure, delivery),
            Some(step) => self.push_move(Move {
                tenure,
                source: delivery.source,
                place: delivery.place,
                order: Some(Box::new(step)),
                what: What::Done,
            }),
        }
        self.turns.extend(ending.next.map(|next| (tenure, next)));
    }

    /// Defers what is kept behind the head of a line.
    pub(super) fn spill(&mut self, tenure: Tenure, key: &Key) {
        let at = self.moment(tenure, key);
        let Some(owned) = self.tenant_of(tenure).filter(|owned| owned.is_serving()) else {
            // The next owner reads it again, behind what this one leaves.
            return;
        };
        let spilled = owned.orders.spill(key, at);
        self.defer_all(tenure, spilled);
    }

    /// Defers what was kept since `before`, longer than a delivery may wait.
    pub(super) fn spill_overdue(&mut self, overdue: Vec<(Tenure, Key, Instant)>) {
        for (tenure, key, before) in overdue {
            let at = self.moment(tenure, &key);
            if let Some(owned) = self.tenant_of(tenure) {
                let spilled = owned.orders.spill_overdue(&key, before, at);
                self.defer_all(tenure, spilled);
            }
        }
    }

    fn defer_all(&mut self, tenure: Tenure, spilled: Vec<Behind<Delivery>>) {
        for behind in spilled {
            self.defer_behind(tenure, behind);
        }
    }

    fn defer_behind(&mut self, tenure: Tenure, behind: Behind<Delivery>) {
        let Behind {
            item: mut delivery,
            due_at,
            step,
        } = behind;
        self.parts.metrics.deferred.get(Deferred::Order).inc();
        number(&mut delivery, &step);
        delivery.state = AttemptState {
            due_at,
            ..delivery.state
        };
        self.push_move(Move {
            tenure,
            source: delivery.source,
            place: delivery.place,
            order: Some(Box::new(step)),
            what: What::Defer(delivery),
        });
    }

    /// The records that say how the lines of `moves` stand when these are committed. A line's
    /// record, its sequences and its hops are one transaction.
    pub(super) fn order_records(&mut self, moves: &[Move]) -> Vec<Record> {
        let mut blocks: BTreeMap<(Tenure, Key), Block> = BTreeMap::new();
        for moved in moves {
            let step = moved.order.as_deref();
            let step =
                step.filter(|step| step.sequence > 0 && !planted::is(Bug::BlockWithoutItsHop));
            let (Some(step), Some(owned)) = (step, self.tenant_of(moved.tenure)) else {
                continue;
            };
            blocks
                .entry((moved.tenure, step.key.clone()))
                .or_insert_with(|| owned.orders.durable(&step.key))
                .apply(step);
        }
        let topic = &self.parts.topics.progress;
        let record = |((tenure, key), block): ((Tenure, Key), Block)| Record {
            topic: topic.clone(),
            partition: Some(tenure.placement),
            key: Some(Bytes::from(progress_key(&key).to_string())),
            value: (!block.is_free()).then(|| Bytes::from(to_progress(&key, &block).encode())),
            headers: Headers::default(),
        };
        blocks.into_iter().map(record).collect()
    }

    /// `moves` are committed: lines go on that waited for it.
    pub(super) fn order_committed(&mut self, moves: &[Move]) {
        for moved in moves {
            let owned = self.tenant_of(moved.tenure);
            if let (Some(step), Some(owned)) = (moved.order.as_deref(), owned) {
                let next = owned.orders.committed(step);
                self.turns.extend(next.map(|next| (moved.tenure, next)));
            }
        }
    }

    /// A delivery that the log could not take ends where it was to be deferred.
    pub(super) fn order_refused(&mut self, moved: &mut Move) {
        let tenure = moved.tenure;
        let owned = self.tenant_of(tenure);
        if let (Some(step), Some(owned)) = (&mut moved.order, owned)
            && matches!(step.kind, StepKind::Deferred(_))
        {
            let (ended, next) = owned.orders.refused(step);
            **step = ended;
            self.turns.extend(next.map(|next| (tenure, next)));
        }
    }

    fn moment(&mut self, tenure: Tenure, key: &Key) -> Moment {
        let (now, wall): (Instant, i64) = (self.now(), self.wall());
        let lane = self
            .tenant_of(tenure)
            .and_then(|owned| owned.lanes.get(&key.quota));
        let pace = lane.map(|lane| lane.latency()).unwrap_or_default();
        Moment {
            now,
            wall,
            pace_ms: runtime::clock::millis(pace),
        }
    }
}

impl Owned {
    /// Takes in one record of `progress`: a blocked line that a predecessor left, or that it is
    /// free again. Other keys are others' own.
    ///
    /// # Errors
    /// When it is a line's and cannot be read.
    pub(super) fn learn_order(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), schemas::records::Error> {
        let key = std::str::from_utf8(key).unwrap_or_default();
        let Ok(ProgressKey::Order(quota, hash)) = key.parse() else {
            return Ok(());
        };
        let block = match value {
            Some(value) => from_progress(&OrderProgress::decode(value)?),
            None => Block::default(),
        };
        self.orders.load(Key { quota, hash }, block);
        Ok(())
    }
}

fn number(delivery: &mut Delivery, step: &Step) {
    delivery.target.order = delivery.target.order.map(|(key, _)| (key, step.sequence));
}

pub(super) fn progress_key(key: &Key) -> ProgressKey {
    ProgressKey::Order(key.quota.clone(), key.hash)
}

fn to_progress(key: &Key, block: &Block) -> OrderProgress {
    OrderProgress {
        version: 1,
        quota: key.quota.clone(),
        key: key.hash,
        head: block.head,
        tail: block.tail,
        due_at: block.due_at,
        left_at: block.at.map(|place| (place.offset, place.index)),
        ended: block.ended.iter().copied().collect(),
    }
}

fn from_progress(left: &OrderProgress) -> Block {
    Block {
        head: left.head + u64::from(planted::is(Bug::HeadSkipped)),
        tail: left.tail.max(left.head),
        due_at: left.due_at,
        at: left.left_at.map(|(offset, index)| Place { offset, index }),
        ended: left.ended.iter().copied().collect(),
    }
}
