//! Owns one source partition: what was read and not yet routed, what is in flight, and where to go
//! back to when a write fails (rule 3).
//!
//! It must never produce a record again by itself: after a failed report it goes back to its
//! watermark. The surprise: after a failure it is *careful*, one record a batch, until it is past
//! the place where it failed; only then does a refusal name its record, which becomes a dead
//! letter the next time round.

mod intake;
mod replaying;
mod shipment;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Assignment, Batch, NotWritten, Producer, Record, StoredRecord};
use schemas::records::DeadReason;
use tokio::time::Instant;

use super::metrics::{Class, RouterMetrics};
use super::start::Start;
use super::window::{Limits, Window};
use crate::index::Index;
use crate::matching::{Fanout, Lost, Outgoing, Places, Refused, dead_reason};
#[cfg(test)]
pub(crate) use intake::RECORD_TARGETS_MAX;
pub(super) use intake::Reading;
use intake::UnderWay;
pub(super) use replaying::{label_in, mark_in};
use shipment::Tag;
pub(super) use shipment::{Load, Shipment};

/// So many targets of a large fan-out are put in order at once.
const ORDER_STEP: usize = 4_000;
/// Fewer in careful mode, where each record's targets are kept in memory.
const CAREFUL_RECORDS: usize = 64;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What a source partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its start is being looked up.
    Starting,
    /// A producer is being opened for it.
    Opening,
    /// Reading and writing.
    Routing,
    /// Given up: what is in flight is awaited and committed.
    Draining,
}

/// What there is to do for a source partition now.
#[derive(Debug)]
pub(super) enum Packed {
    /// Nothing, until something happens.
    Nothing,
    /// A turn's work is done and there is nothing to write yet.
    Passed,
    /// To be written.
    Ship(Shipment),
    /// It is past the place where it had to be careful and wants an ordinary producer.
    Reopen,
}

/// What the owner of all source partitions lends to one of them.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) index: &'a mut Index,
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a RouterMetrics,
    /// Monotonic time.
    pub(super) now: Instant,
    /// Wall time, unix milliseconds.
    pub(super) wall: i64,
}

/// One source partition that this router owns.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) places: Arc<Places>,
    /// What kind of events it has.
    pub(super) class: Class,
    /// How its records become events, those not yet begun.
    pub(super) reading: Reading,
    /// What its positions are committed with: whose they are.
    label: String,
    /// Tells this ownership from an earlier one of the same partition.
    pub(super) tenure: u64,
    /// Tells this producer's reports from those of one dropped before.
    pub(super) generation: u64,
    pub(super) phase: Phase,
    /// No record is begun: activations are being put on record.
    pub(super) held: bool,
    /// Read a second time, for past events.
    is_replay: bool,
    /// What positions are committed with beside the label; `None` until that is known.
    mark: Option<String>,
    /// The mark was committed.
    is_marked: bool,
    pub(super) producer: Option<Arc<dyn Producer>>,
    pub(super) assignment: Option<Assignment>,
    pub(super) paused: bool,
    /// Whether there may be something to do.
    pub(super) ready: bool,
    /// Retention has overtaken the reader: start anew once all that was read is committed.
    pub(super) overtaken: bool,
    /// The position is to be committed although it has not moved.
    pub(super) recommit: bool,
    /// What to write again when there is room.
    pub(super) unsent: Option<Shipment>,
    pub(super) window: Window,
    /// The last acknowledged commit.
    position: Option<i64>,
    start_at: i64,
    lost: Option<Lost>,
    lost_sent: bool,
    backlog: VecDeque<StoredRecord>,
    backlog_bytes: usize,
    fanout: Option<Box<Fanout>>,
    /// The record begun last, as long as it has items that were not looked at.
    under_way: Option<Box<UnderWay>>,
    /// The offset behind the last record begun.
    next: i64,
    careful_until: Option<i64>,
    refused: Refused,
    refused_bytes: BTreeSet<(i64, u32)>,
    failures: u32,
}

impl Source {
    /// A source partition whose start is not known yet.
    pub(super) fn new(places: Places, class: Class, reading: Reading, tenure: u64) -> Self {
        Self {
            places: Arc::new(places),
            class,
            reading,
            label: String::new(),
            tenure,
            generation: 0,
            phase: Phase::Starting,
            held: false,
            is_replay: false,
            mark: None,
            is_marked: false,
            producer: None,
            assignment: None,
            paused: false,
            ready: false,
            overtaken: false,
            recommit: false,
            unsent: None,
            window: Window::new(None),
            position: None,
            start_at: 0,
            lost: None,
            lost_sent: false,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            fanout: None,
            under_way: None,
            next: 0,
            careful_until: None,
            refused: Refused::default(),
            refused_bytes: BTreeSet::new(),
            failures: 0,
        }
    }

    /// Takes over where its predecessor, or itself, has committed.
    pub(super) fn start(&mut self, start: Start) {
        self.label = self.reading.label();
        self.position = start.committed;
        self.window = Window::new(start.lost.is_none().then_some(start.at));
        self.start_at = start.at;
        self.next = start.at;
        self.lost = start.lost;
        self.lost_sent = false;
        self.recommit = true;
        self.overtaken = false;
        self.phase = Phase::Opening;
    }

    /// The offset to read from: everything below it is done, or on its way as lost.
    pub(super) fn read_from(&self) -> i64 {
        self.window.watermark().unwrap_or(self.start_at)
    }

    /// Takes over a producer that was opened for it.
    pub(super) fn opened(&mut self, producer: Arc<dyn Producer>) {
        self.producer = Some(producer);
        self.phase = Phase::Routing;
        self.ready = true;
    }

    /// Whether one record a batch is wanted.
    pub(super) fn is_careful(&self) -> bool {
        self.careful_until.is_some()
    }

    /// Takes in what was read.
    pub(super) fn receive(&mut self, batch: Batch) {
        self.backlog_bytes += batch
            .records
            .iter()
            .map(StoredRecord::len_bytes)
            .sum::<usize>();
        self.backlog.extend(batch.records);
        self.ready = true;
    }

    /// Bytes read and not routed.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// How long ago the oldest record that was read and not begun was written, by its time.
    pub(super) fn lag_ms(&self, wall: i64) -> i64 {
        let oldest = self.backlog.front();
        oldest.map_or(0, |record| wall.saturating_sub(record.timestamp).max(0))
    }

    /// Whether everything that was read is written, acknowledged and committed.
    pub(super) fn is_quiet(&self) -> bool {
        self.backlog.is_empty()
            && !self.is_under_way()
            && self.unsent.is_none()
            && self.is_drained()
    }

    /// Whether everything in flight is acknowledged and committed.
    pub(super) fn is_drained(&self) -> bool {
        self.window.is_settled() && (!self.has_moved() || self.has_nothing_to_say())
    }

    /// Whether nothing was routed of a partition without a position, and none may be committed yet:
    /// its next owner finds the same start.
    fn has_nothing_to_say(&self) -> bool {
        let is_at_start = self.window.watermark() == Some(self.start_at);
        self.mark.is_none() && self.position.is_none() && is_at_start
    }

    fn has_moved(&self) -> bool {
        let watermark = self.window.watermark();
        watermark.is_some() && watermark != self.position
    }

    /// The offset to commit, where there is one.
    pub(super) fn to_commit(&self) -> Option<i64> {
        self.window
            .watermark()
            .filter(|_| self.mark.is_some() && (self.has_moved() || self.recommit))
    }

    /// Whether a commit should not wait for its turn.
    pub(super) fn is_urgent(&self, limits: &Limits) -> bool {
        self.to_commit().is_some()
            && (self.phase == Phase::Draining
                || self.overtaken
                || self.awaits_mark()
                || self.window.uncommitted_targets() > limits.targets / 4)
    }

    /// Notes that `offset` is committed.
    pub(super) fn committed(&mut self, offset: i64) {
        self.position = Some(offset);
        self.recommit = false;
        self.window.commit(offset);
        self.ready = true;
    }

    /// Whether nothing more may be written now, for want of room.
    pub(super) fn is_blocked(&self, limits: &Limits, now: Instant) -> bool {
        self.unsent.is_some()
            || !self.window.has_room(limits, 0, 0, now)
            || (!self.is_under_way() && !self.window.may_begin(limits, 0))
    }

    /// Makes the next records to write.
    pub(super) fn pack(&mut self, mut world: World<'_>) -> Packed {
        if self.phase != Phase::Routing || self.producer.is_none() {
            return Packed::Nothing;
        }
        if let Some(unsent) = self.unsent.take() {
            return Packed::Ship(unsent);
        }
        let mut shipment = Shipment::default();
        self.pack_lost(&mut shipment, world.wall);
        while self.may_pack(&shipment, &world) {
            if self.fanout.is_some() {
                self.pack_record(&mut shipment, world.wall);
            } else if self.under_way.is_some() {
                self.begin_item(&mut shipment, &mut world);
            } else if self.wants_reopening() {
                if shipment.records.is_empty() && self.window.is_settled() {
                    return Packed::Reopen;
                }
                break;
            } else if self.reading.goes_on()
                && !self.held
                && self.window.may_begin(world.limits, shipment.load.targets)
            {
                let Some(record) = self.backlog.pop_front() else {
                    break;
                };
                self.begin(&record, &mut shipment, &mut world);
            } else {
                break;
            }
        }
        if !shipment.records.is_empty() {
            Packed::Ship(shipment)
        } else if shipment.has_ended() {
            Packed::Passed
        } else {
            Packed::Nothing
        }
    }

    fn may_pack(&self, shipment: &Shipment, world: &World<'_>) -> bool {
        let load = &shipment.load;
        let records_max = if self.is_careful() {
            CAREFUL_RECORDS
        } else {
            usize::MAX
        };
        !shipment.has_ended()
            && shipment.records.len() < records_max
            && self
                .window
                .has_room(world.limits, load.targets, load.bytes, world.now)
    }

    fn wants_reopening(&self) -> bool {
        let Some(until) = self.careful_until else {
            return false;
        };
        self.next >= until
            || self
                .backlog
                .front()
                .is_some_and(|record| record.offset >= until)
    }

    /// The incident at the start is written before anything else, and the watermark waits for it.
    fn pack_lost(&mut self, shipment: &mut Shipment, wall: i64) {
        if self.lost_sent {
            return;
        }
        self.lost_sent = true;
        if let Some(lost) = &self.lost {
            let record = lost.record(&self.places, wall);
            self.push_dead(shipment, record, DeadReason::RetentionLost, Tag::Reference);
            shipment.load.through = Some(self.start_at);
        }
    }

    fn pack_record(&mut self, shipment: &mut Shipment, wall: i64) {
        let Some(mut fanout) = self.fanout.take() else {
            return;
        };
        if !fanout.is_in_order() {
            shipment.ordered += fanout.put_in_order(ORDER_STEP);
            self.fanout = Some(fanout);
            return;
        }
        if let Some(outgoing) = fanout.next(&self.places, self.carried(), wall) {
            match outgoing.dead {
                Some(reason) => {
                    self.push_dead(shipment, outgoing.record, reason, Tag::Reference);
                }
                None => self.push_delivery(shipment, outgoing, &fanout),
            }
        }
        if fanout.is_done() {
            shipment.load.accepted_at.push(fanout.accepted_at());
            self.end_item(shipment);
        } else {
            self.fanout = Some(fanout);
        }
    }

    fn push_delivery(&self, shipment: &mut Shipment, outgoing: Outgoing, fanout: &Fanout) {
        if self.is_careful() {
            let targets = fanout.last_targets().collect();
            shipment
                .load
                .tags
                .push(Tag::Targets((fanout.offset(), fanout.index()), targets));
        }
        if self.is_replay {
            let targets = fanout.last_targets();
            let past = targets.map(|subscription| (fanout.offset(), subscription));
            shipment.load.past.extend(past);
        }
        shipment.load.deliveries += 1;
        shipment.load.targets += outgoing.targets;
        shipment.load.bytes += outgoing.record.len_bytes();
        shipment.records.push(outgoing.record);
    }

    fn push_dead(&self, shipment: &mut Shipment, record: Record, reason: DeadReason, tag: Tag) {
        if self.is_careful() {
            shipment.load.tags.push(tag);
        }
        shipment.load.dead.push(reason);
        shipment.load.bytes += record.len_bytes();
        shipment.records.push(record);
    }

    /// The record begun last is written whole once `shipment` is.
    fn complete(&mut self, shipment: &mut Shipment) {
        if shipment.records.is_empty() {
            // Nothing of it is in this shipment: it is done when all earlier ones are.
            self.window.extend(self.next);
        } else {
            shipment.load.through = Some(self.next);
        }
    }

    /// Notes that `load` was handed to the producer; returns the flight's number.
    pub(super) fn sent(&mut self, load: &Load, now: Instant) -> u64 {
        // Without a whole record in it, a flight ends where the one before did.
        let begun = self.next - i64::from(self.is_under_way());
        let through = load.through.unwrap_or(begun);
        self.window.send(through, load.targets, load.bytes, now)
    }

    /// Takes in the reports of a flight; returns whether all of it was written.
    pub(super) fn reported(
        &mut self,
        flight: u64,
        load: &Load,
        reports: &[Result<i64, NotWritten>],
    ) -> bool {
        self.ready = true;
        if reports.iter().all(Result::is_ok) {
            self.window.acknowledge(flight);
            self.failures = 0;
            self.forget_refusals();
            return true;
        }
        // Tags are there in careful mode alone: only then is a refusal the record's own.
        for (tag, report) in load.tags.iter().zip(reports) {
            if let Err(refusal) = report
                && refusal.is_permanent()
            {
                self.refuse(tag, *refusal);
            }
        }
        false
    }

    fn refuse(&mut self, tag: &Tag, refusal: NotWritten) {
        match tag {
            Tag::Targets((offset, index), subscriptions) => {
                let reason = dead_reason(refusal);
                let refused = subscriptions
                    .iter()
                    .map(|id| ((*offset, *index, *id), reason));
                self.refused.extend(refused);
            }
            Tag::Bytes(offset, index) => drop(self.refused_bytes.insert((*offset, *index))),
            Tag::Reference => tracing::error!(
                partition = %self.places.source,
                topic = %self.places.dead,
                error = %refusal,
                "dead letter is refused, the partition cannot go on"
            ),
        }
    }

    fn forget_refusals(&mut self) {
        if let Some(watermark) = self.window.watermark() {
            self.refused
                .retain(|(offset, _, _), _| *offset >= watermark);
            self.refused_bytes
                .retain(|(offset, _)| *offset >= watermark);
        }
    }

    /// Gives up what is unacknowledged and prepares to read again from the watermark; returns how
    /// long to wait before. The place where care ends only moves on.
    pub(super) fn rewind(&mut self) -> Duration {
        let until = self
            .careful_until
            .map_or(self.next, |until| until.max(self.next));
        self.careful_until = Some(until);
        self.abandon();
        self.next = self.read_from();
        self.lost_sent = self.window.watermark().is_some();
        self.phase = Phase::Opening;
        self.failures = self.failures.saturating_add(1);
        match self.failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                BACKOFF_MAX.min(BACKOFF_FIRST.saturating_mul(1_u32 << doublings.min(8)))
            }
        }
    }

    /// Drops the careful producer; what was read stays.
    pub(super) fn leave_care(&mut self) {
        self.careful_until = None;
        self.producer = None;
        self.phase = Phase::Opening;
    }

    /// Begins to give the partition up: nothing more is begun.
    pub(super) fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.drop_unsent();
        self.assignment = None;
    }

    /// Gives up everything in flight and everything read.
    pub(super) fn abandon(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.purge();
        }
        self.window = Window::new(self.window.watermark());
        self.assignment = None;
        self.drop_unsent();
    }

    fn drop_unsent(&mut self) {
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.fanout = None;
        self.under_way = None;
        self.unsent = None;
        self.paused = false;
    }
}
