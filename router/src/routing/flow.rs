//! Owns the flow through the router: what is fetched, whose turn it is, what is written, and what
//! the reports mean.
//!
//! It must never wait for one partition: a producer without room is asked again later, and a
//! partition without room is paused.

use std::time::Duration;

use runtime::log::{Error as LogError, Fetched, NotWritten, Partition, Producer};
use tokio::time::Instant;

use super::source::{Load, Packed, Phase, Shipment, World};
use super::{Done, Router};
use crate::Error;

impl Router {
    pub(super) fn on_fetched(&mut self, fetched: Fetched) -> Result<(), Error> {
        match fetched {
            Fetched::Records(assignment, batch) if self.name.listens(assignment) => {
                if self.name.is_taken(&batch) {
                    self.give_up_all();
                    return Err(Error::SameName(self.options.instance.clone()));
                }
            }
            Fetched::OutOfRange(assignment, _) if self.name.listens(assignment) => {
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
            Fetched::Failed(partition, error) => {
                tracing::warn!(?partition, %error, "partition cannot be read now");
            }
        }
        Ok(())
    }

    /// Bytes read and not routed of the partitions that go on reading.
    pub(super) fn live_backlog_bytes(&self) -> usize {
        let live = self.sources.values().filter(|source| !source.paused);
        live.map(|source| source.backlog_bytes()).sum()
    }

    /// The partition whose turn it is: the next one that may have something to do.
    pub(super) fn next_turn(&self) -> Option<&Partition> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let ready = |(partition, source): (_, &super::Source)| source.ready.then_some(partition);
        let Some(last) = &self.last_turn else {
            return self.sources.iter().find_map(ready);
        };
        let behind = self
            .sources
            .range((Excluded(last), Unbounded))
            .find_map(ready);
        behind.or_else(|| {
            self.sources
                .range((Unbounded, Included(last)))
                .find_map(ready)
        })
    }

    /// One piece of work for one partition.
    pub(super) fn step(&mut self) {
        let Some(partition) = self.next_turn().cloned() else {
            return;
        };
        self.last_turn = Some(partition.clone());
        let now = self.clock.instant();
        let world = World {
            index: &mut self.index,
            limits: &self.options.window,
            metrics: &self.metrics,
            now,
            wall: self.clock.now(),
        };
        let Some(source) = self.sources.get_mut(&partition) else {
            return;
        };
        match source.pack(world) {
            Packed::Nothing => {
                source.ready = false;
                self.restart_if_quiet(&partition);
            }
            Packed::Ship(shipment) => {
                let worked = self.clock.instant().saturating_duration_since(now);
                self.metrics.match_duration.observe(worked.as_secs_f64());
                self.ship(&partition, shipment, now);
            }
            Packed::Reopen => {
                source.leave_care();
                self.open_producer(&partition, Duration::ZERO);
            }
        }
        self.regulate(&partition);
    }

    fn ship(&mut self, partition: &Partition, shipment: Shipment, now: Instant) {
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        let Some(producer) = source.producer.clone() else {
            return;
        };
        let Shipment { records, load } = shipment;
        match producer.try_send(records) {
            Err(records) => {
                source.unsent = Some(Shipment { records, load });
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
            load.count(&self.metrics, self.clock.now());
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

    /// Pauses a partition that has no room, and resumes it when what it read is nearly routed.
    pub(super) fn regulate(&mut self, partition: &Partition) {
        let now = self.clock.instant();
        let limits = &self.options.window;
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        let blocked = source.is_blocked(limits, now);
        let backlog = source.backlog_bytes();
        if !source.paused && blocked && backlog > 0 {
            source.paused = true;
            if source.assignment.is_some() {
                self.reader.pause(partition.clone());
            }
        } else if source.paused && !blocked && backlog < limits.bytes / 8 {
            source.paused = false;
            if source.assignment.is_some() {
                self.reader.resume(partition.clone());
            }
        }
    }

    /// Looks at what changes with time alone, and shows the gauges.
    pub(super) fn on_tick(&mut self, now: Instant) {
        let (mut targets, mut bytes, mut backlog, mut paused) = (0, 0, 0, 0);
        for (partition, source) in &mut self.sources {
            // A producer without room is asked again although no report came.
            source.ready = true;
            targets += source.window.in_flight_targets();
            bytes += source.window.in_flight_bytes();
            backlog += source.backlog_bytes();
            paused += usize::from(source.paused);
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
    }
}
