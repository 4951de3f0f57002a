//! Owns the flow through the router: what is fetched, whose turn it is, what is written, and what
//! the reports mean.
//!
//! It must never wait for one partition: a producer without room is asked again later, and a
//! partition without room is paused.

use std::time::Duration;

use runtime::log::{Error as LogError, Fetched, NotWritten, Partition, Producer};
use tokio::time::Instant;

use super::metrics::{Class, PerClass};
use super::readers;
use super::source::{Load, Packed, Phase, Shipment, World};
use super::turns::Candidate;
use super::{BESIDE_LIVE_BYTES, Done, Router};
use crate::Error;

impl Router {
    /// Takes in what the reader of `class` has fetched.
    pub(super) fn on_fetched(&mut self, class: Class, fetched: Fetched) -> Result<(), Error> {
        // Readers number their assignments apart, and namesakes are heard beside the live events.
        let listens = |assignment| class == Class::Live && self.name.listens(assignment);
        match fetched {
            Fetched::Records(assignment, batch) if listens(assignment) => {
                if self.name.is_taken(&batch) {
                    self.give_up_all();
                    return Err(Error::SameName(self.options.instance.clone()));
                }
            }
            Fetched::OutOfRange(assignment, _) if listens(assignment) => {
                self.watch_name();
            }
            Fetched::Records(assignment, batch) => {
                let source = self.sources.get_mut(&batch.partition);
                if let Some(source) = source.filter(|source| source.assignment == Some(assignment))
                {
                    let partition = batch.partition.clone();
                    source.receive(batch);
                    self.regulate(&partition);
                }
            }
            Fetched::OutOfRange(assignment, partition) => {
                let source = self.sources.get_mut(&partition);
                if let Some(source) = source.filter(|source| source.assignment == Some(assignment))
                {
                    source.overtaken = true;
                    source.assignment = None;
                    self.restart_if_quiet(&partition);
                }
            }
            Fetched::End(_, _) => {}
            Fetched::Failed(Some(partition), error)
                if class == Class::Source
                    && error.class() == runtime::log::Class::Never
                    && self.sources.contains_key(&partition) =>
            {
                self.set_aside(&partition.topic, &error);
            }
            Fetched::Failed(partition, error) => {
                tracing::warn!(?partition, %error, "partition cannot be read now");
            }
        }
        Ok(())
    }

    /// Of which classes more may be taken in, in the order live, bulk, source: what one class has
    /// not routed keeps no other from being read.
    pub(super) fn room(&self) -> [bool; 3] {
        let mut bytes = PerClass::<usize>::default();
        for source in self.sources.values().filter(|source| !source.paused) {
            *bytes.of(source.class) += source.backlog_bytes();
        }
        let [live, bulk, source] = [Class::Live, Class::Bulk, Class::Source];
        [live, bulk, source].map(|class| *bytes.of(class) < readers::backlog_max(class))
    }

    /// The partition whose turn it is: of those that may have something to do, by the weights of
    /// their topics.
    pub(super) fn next_turn(&self) -> Option<&Partition> {
        let beside_live = self
            .sources
            .values()
            .filter(|source| source.class != Class::Live);
        let in_flight: usize = beside_live
            .map(|source| source.window.in_flight_bytes())
            .sum();
        let may_flood = in_flight < BESIDE_LIVE_BYTES;
        let candidates = self.sources.iter().map(|(partition, source)| Candidate {
            partition,
            is_ready: source.ready && (may_flood || source.class == Class::Live),
        });
        self.turns.next(candidates)
    }

    /// One piece of work for one partition.
    pub(super) fn step(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let world = World {
            index: &mut self.index,
            limits: &self.options.window,
            metrics: &self.metrics,
            now,
            wall: self.clock.now(),
        };
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        let is_repeat = source.unsent.is_some();
        let unread = source.backlog_bytes();
        let packed = source.pack(world);
        let read = unread.saturating_sub(source.backlog_bytes());
        match packed {
            Packed::Nothing => {
                self.turns.took(partition, read);
                source.ready = false;
                self.restart_if_quiet(partition);
            }
            Packed::Passed => self.turns.took(partition, read),
            Packed::Ship(shipment) => {
                let written = if is_repeat { 0 } else { shipment.load.bytes() };
                self.turns.took(partition, read + written);
                let worked = self.clock.instant().saturating_duration_since(now);
                self.metrics.match_duration.observe(worked.as_secs_f64());
                self.ship(partition, shipment, now);
            }
            Packed::Reopen => {
                source.leave_care();
                self.open_producer(partition, Duration::ZERO);
            }
        }
        self.regulate(partition);
    }

    fn ship(&mut self, partition: &Partition, shipment: Shipment, now: Instant) {
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        let Some(producer) = source.producer.clone() else {
            return;
        };
        let Shipment { records, load, .. } = shipment;
        match producer.try_send(records) {
            Err(records) => {
                source.unsent = Some(Shipment::again(records, load));
                source.ready = false;
            }
            Ok(acks) => {
                let flight = source.sent(&load, now);
                let (partition, generation) = (partition.clone(), source.generation);
                self.work.push(Box::pin(async move {
                    let reports = acks.wait().await;
                    Done::Written {
                        partition,
                        generation,
                        flight,
                        load,
                        reports,
                    }
                }));
            }
        }
    }

    pub(super) fn on_written(
        &mut self,
        partition: &Partition,
        flight: u64,
        load: &Load,
        reports: &[Result<i64, NotWritten>],
    ) {
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        if source.reported(flight, load, reports) {
            load.count(&self.metrics, source.class, self.clock.now());
            self.regulate(partition);
            return;
        }
        self.metrics.rewinds.inc();
        let failed = reports.iter().filter(|report| report.is_err()).count();
        tracing::warn!(%partition, failed, from = source.read_from(), "write failed, going back");
        self.reader.unassign(partition.clone());
        if source.phase == Phase::Draining {
            // The next owner routes it again.
            source.abandon();
        } else {
            let wait = source.rewind();
            self.open_producer(partition, wait);
        }
    }

    /// Opens a producer for `partition`, after `wait`.
    pub(super) fn open_producer(&mut self, partition: &Partition, wait: Duration) {
        let generation = self.next_number();
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        source.generation = generation;
        let careful = source.is_careful();
        let options = self.producer_options(partition, careful);
        let (log, partition) = (self.log.clone(), partition.clone());
        self.work.push(Box::pin(async move {
            tokio::time::sleep(wait).await;
            let producer = log.producer(options).await;
            Done::Opened {
                partition,
                generation,
                producer,
            }
        }));
    }

    pub(super) fn on_opened(
        &mut self,
        partition: &Partition,
        generation: u64,
        producer: Result<std::sync::Arc<dyn Producer>, LogError>,
    ) -> Result<(), Error> {
        let source = self.sources.get_mut(partition);
        let Some(source) = source
            .filter(|source| source.generation == generation && source.phase == Phase::Opening)
        else {
            return Ok(());
        };
        match producer {
            Ok(producer) => {
                source.opened(producer);
                if source.assignment.is_none() && !source.overtaken {
                    let from = source.read_from();
                    source.assignment = Some(self.reader.assign(partition.clone(), from));
                }
                Ok(())
            }
            Err(error) if error.class() == runtime::log::Class::Never => Err(Error::Log(error)),
            Err(error) => {
                tracing::warn!(%partition, %error, "producer cannot be opened now");
                self.open_producer(partition, Duration::from_millis(500));
                Ok(())
            }
        }
    }

    /// Once everything read before retention overtook the reader is committed, what was lost can
    /// be told from what was not.
    fn restart_if_quiet(&mut self, partition: &Partition) {
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        if source.overtaken && source.phase == Phase::Routing && source.is_quiet() {
            source.abandon();
            self.reader.unassign(partition.clone());
            self.look_up_start(partition);
        }
    }

    /// Pauses a partition that has no room, or that would keep another topic's of its reader
    /// waiting, and resumes it when what it read is nearly routed.
    pub(super) fn regulate(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let crowds = self.crowds(partition);
        let limits = &self.options.window;
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        let blocked = source.is_blocked(limits, now);
        let backlog = source.backlog_bytes();
        if !source.paused && ((blocked && backlog > 0) || crowds) {
            source.paused = true;
            if source.assignment.is_some() {
                self.reader.pause(partition.clone());
            }
        } else if source.paused && !blocked && backlog < limits.bytes / 8 && !crowds {
            source.paused = false;
            if source.assignment.is_some() {
                self.reader.resume(partition.clone());
            }
        }
    }

    /// Whether so much of a source's topic is unrouted that the other topics of its reader would
    /// wait for it: more than an even part of the room. A topic that is alone crowds nobody.
    fn crowds(&self, partition: &Partition) -> bool {
        let source = self.sources.get(partition);
        if source.is_none_or(|source| source.class != Class::Source) {
            return false;
        }
        let (mut topics, mut own_bytes) = (0, 0);
        let mut last = None;
        for (other, source) in &self.sources {
            if source.class != Class::Source {
                continue;
            }
            topics += usize::from(last != Some(&other.topic));
            last = Some(&other.topic);
            if other.topic == partition.topic && !source.paused {
                own_bytes += source.backlog_bytes();
            }
        }
        topics > 1 && own_bytes > readers::backlog_max(Class::Source) / topics
    }

    /// Looks at what changes with time alone, and shows the gauges.
    pub(super) fn on_tick(&mut self, now: Instant) {
        let (mut targets, mut bytes, mut backlog, mut paused) = (0, 0, 0, 0);
        self.on_aside_tick(now);
        let wall = self.clock.now();
        let mut lag_ms = PerClass::<i64>::default();
        for (partition, source) in &mut self.sources {
            // A producer without room is asked again although no report came.
            source.ready = true;
            targets += source.window.in_flight_targets();
            bytes += source.window.in_flight_bytes();
            backlog += source.backlog_bytes();
            paused += usize::from(source.paused);
            let lag = lag_ms.of(source.class);
            *lag = source.lag_ms(wall).max(*lag);
            let age = source.window.age(now);
            if age > self.options.window.age {
                tracing::warn!(%partition, age_seconds = age.as_secs(), "deliveries cannot be written");
            }
            let labels = [partition.topic.as_str(), &partition.number.to_string()];
            let gauge = self.metrics.unacknowledged_age.with_label_values(&labels);
            gauge.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        }
        let set = |gauge: &runtime::telemetry::IntGauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.metrics.window_targets, targets);
        set(&self.metrics.window_bytes, bytes);
        set(&self.metrics.backlog_bytes, backlog);
        set(&self.metrics.paused, paused);
        for class in Class::ALL {
            let gauge = self.metrics.lag_seconds.get(*class);
            gauge.set(*lag_ms.of(*class) / 1_000);
        }
    }
}
