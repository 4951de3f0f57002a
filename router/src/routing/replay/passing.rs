//! Owns the passes over past events: when one begins, whose turn it is, and what is written.
//!
//! It must never take a turn while a live event could have it, but one in a tenth of a second, so
//! that a router that is never idle gets there, too. The surprise: all subscriptions with past
//! events in a partition share one pass; when another joins, it ends early and begins anew.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use runtime::log::{
    Class as ErrorClass, Error as LogError, Fetched, NotWritten, Partition, Producer, Reader,
    ReaderOptions,
};
use schemas::ids::SubscriptionId;
use schemas::records::{ControlKey, ControlObject};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::Router;
use super::super::source::{Load, Packed, Phase, Shipment, World};
use super::super::window::Limits;
use super::meeting::Plan;
use super::pace::Pace;
use super::pass::Pass;
use super::{Event, Replays};
use crate::Error;

/// Targets that are written and not on record: what a new owner may write again.
pub(super) const UNSAVED_MAX: usize = 1_000;
/// Bytes of past events that are written and not acknowledged, of one source partition.
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// A router that is never idle gives past events a turn this often.
const TURN_EVERY: Duration = Duration::from_millis(100);
/// A producer without work for so long is closed.
pub(super) const IDLE_PRODUCER: Duration = Duration::from_secs(10);

const QUEUE_BYTES: usize = 1 << 20;
const BATCH_BYTES: usize = 128 << 10;
/// Bytes read and not written of all passes that are not paused.
const BACKLOG_BYTES: usize = 1 << 20;
/// A pass with more than that is paused.
const PAUSE_BYTES: usize = 256 << 10;

impl Replays {
    /// The partition whose turn it is to go on with past events, beside live ones or not.
    pub(in crate::routing) fn turn(&self, beside_live: bool, now: Instant) -> Option<Partition> {
        let may_go = !beside_live || now >= self.turn_at + TURN_EVERY;
        let ready = |(partition, aside): (&Partition, &super::Aside)| {
            let pass = aside.pass.as_ref()?;
            // Where they meet, live events wait for this.
            let is_due = aside.meeting.is_some()
                || (may_go && aside.pace.is_some_and(|pace| pace.due() <= now));
            (is_due && pass.source.ready).then(|| partition.clone())
        };
        let Some(last) = &self.last_turn else {
            return self.asides.iter().find_map(ready);
        };
        let behind = self
            .asides
            .range((Excluded(last), Unbounded))
            .find_map(ready);
        behind.or_else(|| {
            self.asides
                .range((Unbounded, Included(last)))
                .find_map(ready)
        })
    }

    /// When the next turn is due by its pace, where that is still to come.
    pub(in crate::routing) fn due(&self, now: Instant) -> Option<Instant> {
        let ready = self.asides.values().filter(|aside| {
            let pass = aside.pass.as_ref();
            pass.is_some_and(|pass| pass.source.ready)
        });
        let due = ready.filter_map(|aside| Some(aside.pace?.due()));
        due.filter(|due| *due > now).min()
    }

    /// Whether more may be taken in.
    pub(in crate::routing) fn has_room(&self) -> bool {
        let passes = self.asides.values().filter_map(|aside| aside.pass.as_ref());
        let live = passes.filter(|pass| !pass.source.paused);
        live.map(|pass| pass.source.backlog_bytes()).sum::<usize>() < BACKLOG_BYTES
    }
}

impl Router {
    /// Begins, ends or goes on with the passes of a partition.
    pub(super) fn go_on(&mut self, partition: &Partition) {
        let Some(source) = self.sources.get(partition) else {
            return;
        };
        let (now, next) = (self.clock.instant(), source.next_offset());
        let plan = if source.reading.goes_on() {
            self.replays.plan(partition, next)
        } else {
            Plan::default()
        };
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        aside.give_up_meeting(now);
        if let Some(pass) = &mut aside.pass {
            if source.reading.goes_on() {
                // What is not begun is read as its source says now.
                pass.source.reading = source.reading.clone();
            }
            let is_other = !pass.ranges.keys().eq(plan.ranges.keys());
            if is_other && !pass.is_cut() && !pass.is_over() && aside.meeting.is_none() {
                pass.cut();
                self.stop_reading(partition);
            }
            self.read_pass(partition);
            self.end_pass(partition);
            return;
        }
        self.meet(partition, &plan, next);
        let Some(aside) = self.replays.asides.get(partition) else {
            return;
        };
        // Who meets is alone for that moment.
        let meets = aside.meeting.is_some();
        let mut ranges = plan.ranges;
        if meets {
            ranges.retain(|id, _| plan.near.contains_key(id));
        }
        if !ranges.is_empty() && !aside.is_deciding && !aside.is_overtaken {
            self.begin_pass(partition, ranges);
        }
    }

    fn begin_pass(&mut self, partition: &Partition, ranges: BTreeMap<SubscriptionId, Range<i64>>) {
        let (number, generation) = (self.next_number(), self.next_number());
        let now = self.clock.instant();
        let from = ranges.values().map(|range| range.start).min();
        let source = self.sources.get(partition).zip(from).map(|(source, from)| {
            let gates = ranges.iter().map(|(id, range)| (*id, range.clone()));
            source.replay(gates.collect(), from)
        });
        let Some(mut source) = source else {
            return;
        };
        source.generation = generation;
        let ids: Vec<SubscriptionId> = ranges.keys().copied().collect();
        let replays = &mut self.replays;
        let Some(aside) = replays.asides.get_mut(partition) else {
            return;
        };
        if aside.pace.is_none() {
            aside.pace = replays.rate.map(|rate| Pace::new(rate, now));
        }
        let spare = aside.spare.take();
        let has_producer = spare.is_some();
        if let Some((producer, _)) = spare {
            source.opened(producer);
        }
        aside.pass = Some(Pass::new(number, source, ranges, now));
        self.enlist(&ids);
        if has_producer {
            self.read_pass(partition);
        } else {
            self.open_pass_producer(partition, Duration::ZERO);
        }
    }

    /// Ends a pass that is over and on record; the next one, if any, begins at once.
    fn end_pass(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        let is_over = |pass: &Pass| pass.is_over() && !pass.is_unsaved();
        if aside.is_busy || !aside.pass.as_ref().is_some_and(is_over) {
            return;
        }
        if let Some(pass) = &mut aside.pass
            && !pass.source.is_careful()
        {
            aside.spare = pass.source.producer.take().map(|producer| (producer, now));
        }
        self.drop_pass(partition);
        self.register(partition);
        self.go_on(partition);
    }

    /// Gives a pass up with all that is in flight.
    pub(super) fn drop_pass(&mut self, partition: &Partition) {
        let aside = self.replays.asides.get_mut(partition);
        let Some(mut pass) = aside.and_then(|aside| aside.pass.take()) else {
            return;
        };
        pass.source.abandon();
        self.stop_reading(partition);
        for id in pass.ranges.keys() {
            self.delist(*id);
        }
    }

    fn stop_reading(&mut self, partition: &Partition) {
        let Replays { asides, reader, .. } = &mut self.replays;
        if let Some(reader) = reader {
            reader.unassign(partition.clone());
        }
        if let Some(pass) = asides
            .get_mut(partition)
            .and_then(|aside| aside.pass.as_mut())
        {
            pass.source.assignment = None;
            pass.source.paused = false;
        }
    }

    /// Reads on, where a pass wants that and there is a reader.
    fn read_pass(&mut self, partition: &Partition) {
        let replays = &mut self.replays;
        let Some(aside) = replays.asides.get_mut(partition) else {
            return;
        };
        let Some(pass) = aside.pass.as_mut().filter(|pass| pass.wants_reading()) else {
            return;
        };
        if let Some(reader) = &replays.reader {
            let from = pass.source.read_from();
            pass.source.assignment = Some(reader.assign(partition.clone(), from));
        } else if !replays.is_opening {
            replays.is_opening = true;
            let log = self.log.clone();
            let options = ReaderOptions {
                name: format!("{}-router-past", self.options.instance),
                queue_bytes: QUEUE_BYTES,
                batch_bytes: BATCH_BYTES,
            };
            self.aside(async move { Event::Reader(log.reader(options).await) });
        }
    }

    pub(super) fn on_aside_reader(
        &mut self,
        opened: Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), LogError>,
    ) -> Result<(), Error> {
        self.replays.is_opening = false;
        match opened {
            Ok((reader, fetched)) => {
                self.replays.reader = Some(reader);
                self.replays.fetched = Some(fetched);
                self.tend_all();
                Ok(())
            }
            Err(error) if error.class() == ErrorClass::Never => Err(Error::Log(error)),
            // Asked for again with the next look.
            Err(error) => {
                tracing::warn!(%error, "reader of past events cannot be opened now");
                Ok(())
            }
        }
    }

    /// Takes in past events.
    pub(in crate::routing) fn on_past(&mut self, fetched: Fetched) {
        let partition = match &fetched {
            Fetched::Records(_, batch) => batch.partition.clone(),
            Fetched::End(_, partition) | Fetched::OutOfRange(_, partition) => partition.clone(),
            Fetched::Failed(partition, error) => {
                tracing::warn!(?partition, %error, "past events cannot be read now");
                return;
            }
        };
        let Some(aside) = self.replays.asides.get_mut(&partition) else {
            return;
        };
        let Some(pass) = &mut aside.pass else {
            return;
        };
        let is_read = match fetched {
            Fetched::Records(assignment, batch) if pass.source.assignment == Some(assignment) => {
                pass.receive(batch)
            }
            Fetched::End(assignment, _) => pass.ended(assignment),
            Fetched::OutOfRange(assignment, _) if pass.source.assignment == Some(assignment) => {
                tracing::info!(%partition, "retention has overtaken a replay");
                aside.is_overtaken = true;
                pass.cut();
                true
            }
            Fetched::Records(..) | Fetched::OutOfRange(..) | Fetched::Failed(..) => false,
        };
        if is_read {
            self.stop_reading(&partition);
            self.tend(&partition);
        }
        self.regulate_pass(&partition);
    }

    /// One piece of past events.
    pub(in crate::routing) fn step_past(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let replays = &mut self.replays;
        replays.turn_at = now;
        replays.last_turn = Some(partition.clone());
        let Some(aside) = replays.asides.get_mut(partition) else {
            return;
        };
        let room = match (&aside.pace, aside.meeting) {
            (_, Some(_)) => UNSAVED_MAX,
            (Some(pace), None) => pace.room(now),
            (None, None) => 0,
        };
        let Some(pass) = &mut aside.pass else {
            return;
        };
        let unsaved = pass.source.window.uncommitted_targets();
        let limits = Limits {
            targets: UNSAVED_MAX.min(unsaved + room),
            bytes: IN_FLIGHT_BYTES,
            age: self.options.window.age,
        };
        let world = World {
            index: &mut replays.index,
            limits: &limits,
            metrics: &self.metrics,
            now,
            wall: self.clock.now(),
        };
        match pass.source.pack(world) {
            Packed::Nothing => pass.source.ready = false,
            Packed::Passed => {}
            Packed::Ship(shipment) => self.ship_past(partition, shipment, now),
            Packed::Reopen => {
                pass.source.leave_care();
                self.open_pass_producer(partition, Duration::ZERO);
            }
        }
        // Not before what was packed is in flight: nothing of it is done.
        let aside = self.replays.asides.get_mut(partition);
        if let Some(pass) = aside.and_then(|aside| aside.pass.as_mut()) {
            pass.settle();
        }
        self.tend(partition);
        self.regulate_pass(partition);
    }

    fn ship_past(&mut self, partition: &Partition, shipment: Shipment, now: Instant) {
        let Some(aside) = self.replays.asides.get_mut(partition) else {
            return;
        };
        let (Some(pass), Some(pace)) = (&mut aside.pass, &mut aside.pace) else {
            return;
        };
        let Some(producer) = pass.source.producer.clone() else {
            return;
        };
        let Shipment { records, load, .. } = shipment;
        match producer.try_send(records) {
            Err(records) => {
                pass.source.unsent = Some(Shipment::again(records, load));
                pass.source.ready = false;
            }
            Ok(acks) => {
                pace.spend(load.targets(), now);
                pass.unsaved.wrote(&load, pass.source.next_offset());
                let flight = pass.source.sent(&load, now);
                let (partition, generation) = (partition.clone(), pass.source.generation);
                self.aside(async move {
                    Event::Written {
                        partition,
                        generation,
                        flight,
                        load,
                        reports: acks.wait().await,
                    }
                });
            }
        }
    }

    pub(super) fn on_pass_written(
        &mut self,
        partition: &Partition,
        generation: u64,
        flight: u64,
        (load, reports): (&Load, &[Result<i64, NotWritten>]),
    ) {
        let aside = self.replays.asides.get_mut(partition);
        let pass = aside.and_then(|aside| aside.pass.as_mut());
        let Some(pass) = pass.filter(|pass| pass.source.generation == generation) else {
            return;
        };
        if pass.source.reported(flight, load, reports) {
            load.count_past(&self.metrics);
            pass.settle();
            self.tend(partition);
            return;
        }
        self.metrics.rewinds.inc();
        tracing::warn!(%partition, "past events were not written, going back");
        if pass.source.phase == Phase::Draining {
            // The next owner replays it again.
            pass.source.abandon();
        } else {
            let wait = pass.source.rewind();
            pass.rewound();
            self.open_pass_producer(partition, wait);
        }
        self.stop_reading(partition);
    }

    fn open_pass_producer(&mut self, partition: &Partition, wait: Duration) {
        let generation = self.next_number();
        let aside = self.replays.asides.get_mut(partition);
        let Some(pass) = aside.and_then(|aside| aside.pass.as_mut()) else {
            return;
        };
        pass.source.generation = generation;
        let careful = pass.source.is_careful();
        let mut options = self.producer_options(partition, careful);
        options.name.push_str("-past");
        let (log, partition) = (self.log.clone(), partition.clone());
        self.aside(async move {
            tokio::time::sleep(wait).await;
            Event::Opened {
                producer: log.producer(options).await,
                partition,
                generation,
            }
        });
    }

    pub(super) fn on_pass_opened(
        &mut self,
        partition: &Partition,
        generation: u64,
        producer: Result<Arc<dyn Producer>, LogError>,
    ) -> Result<(), Error> {
        let aside = self.replays.asides.get_mut(partition);
        let pass = aside.and_then(|aside| aside.pass.as_mut());
        let is_awaited = |pass: &&mut Pass| {
            pass.source.generation == generation && pass.source.phase == Phase::Opening
        };
        let Some(pass) = pass.filter(is_awaited) else {
            return Ok(());
        };
        match producer {
            Ok(producer) => {
                pass.source.opened(producer);
                pass.settle();
                self.read_pass(partition);
                Ok(())
            }
            Err(error) if error.class() == ErrorClass::Never => Err(Error::Log(error)),
            Err(error) => {
                tracing::warn!(%partition, %error, "producer of past events cannot be opened now");
                self.open_pass_producer(partition, Duration::from_millis(500));
                Ok(())
            }
        }
    }

    /// Pauses a pass that has read enough, and resumes it when that is nearly written.
    fn regulate_pass(&mut self, partition: &Partition) {
        let Replays { asides, reader, .. } = &mut self.replays;
        let aside = asides.get_mut(partition);
        let (Some(pass), Some(reader)) = (aside.and_then(|aside| aside.pass.as_mut()), reader)
        else {
            return;
        };
        let backlog = pass.source.backlog_bytes();
        let source = &mut pass.source;
        if source.assignment.is_none() {
            return;
        }
        if !source.paused && backlog > PAUSE_BYTES {
            source.paused = true;
            reader.pause(partition.clone());
        } else if source.paused && backlog < PAUSE_BYTES / 8 {
            source.paused = false;
            reader.resume(partition.clone());
        }
    }

    /// Past events are matched for these subscriptions from now on.
    fn enlist(&mut self, ids: &[SubscriptionId]) {
        for id in ids {
            let users = self.replays.users.entry(*id).or_default();
            *users += 1;
            if *users == 1 {
                self.refresh_user(*id);
            }
        }
    }

    fn delist(&mut self, id: SubscriptionId) {
        let replays = &mut self.replays;
        if let Some(users) = replays.users.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                replays.users.remove(&id);
                replays.index.apply(&ControlKey::Subscription(id), None);
            }
        }
    }

    /// Past events are matched by what a subscription is now.
    pub(super) fn refresh_user(&mut self, id: SubscriptionId) {
        let replays = &mut self.replays;
        if !replays.users.contains_key(&id) {
            return;
        }
        let object = replays.starts.get(id);
        let object = object.map(|one| ControlObject::Subscription(Box::new((**one).clone())));
        let key = ControlKey::Subscription(id);
        replays.index.apply(&key, object.as_ref());
    }
}
