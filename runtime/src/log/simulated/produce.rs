//! Owns idempotent producers: batches on their way, and what becomes of them.
//!
//! It must never report an offset for a record that is not in the log. The surprise: a report of
//! an unknown outcome says nothing, and the record may still arrive after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::super::{Acks, NotWritten, Partition, Producer, ProducerOptions, Record};
use super::faults::{Fault, Operation};
use super::world::{Lane, Life, Shared, World};
use crate::clock::UnixMillis;

type Report = Result<i64, NotWritten>;
type Reports = oneshot::Sender<Vec<Report>>;

/// All producers of a simulation.
#[derive(Debug, Default)]
pub(super) struct Producing {
    producers: BTreeMap<u64, ProducerState>,
    sends: BTreeMap<u64, Sending>,
    batches: BTreeMap<u64, Batch>,
}

#[derive(Debug)]
struct ProducerState {
    life: Life,
    gapless: bool,
    single: bool,
    linger: Duration,
    timeout: Option<Duration>,
    // It takes nothing any more.
    dead: bool,
    spread: u32,
}

#[derive(Debug)]
struct Sending {
    reports: Vec<Option<Report>>,
    sender: Reports,
    // Held for its drop: the producer's room.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Batch {
    producer: u64,
    life: Life,
    send: u64,
    partition: Partition,
    // The records' places in their send.
    places: Vec<usize>,
    records: Vec<Record>,
    sent_at: UnixMillis,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It will arrive.
    OnItsWay,
    /// The partition cannot be written.
    Blocked,
    /// It is in the log, its acknowledgement on its way.
    Appended,
}

/// A producer of one process.
#[derive(Debug)]
pub(super) struct SimulatedProducer {
    shared: Arc<Shared>,
    id: u64,
    room: Arc<Semaphore>,
    buffer_bytes: u32,
}

impl SimulatedProducer {
    pub(super) fn open(shared: Arc<Shared>, life: Life, options: &ProducerOptions) -> Self {
        let buffer_bytes = u32::try_from(options.buffer_bytes.max(1)).unwrap_or(u32::MAX);
        let id = shared.with(|world| {
            let id = world.next_id();
            let state = ProducerState {
                life,
                gapless: options.gapless,
                single: options.single_record_batches,
                linger: options.linger,
                timeout: options.delivery_timeout,
                dead: false,
                spread: 0,
            };
            world.producing.producers.insert(id, state);
            id
        });
        let room = usize::try_from(buffer_bytes).unwrap_or(usize::MAX);
        let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
        Self {
            shared,
            id,
            room,
            buffer_bytes,
        }
    }

    /// What the records need of the room; a send larger than all of it needs all of it.
    fn need(&self, records: &[Record]) -> u32 {
        let bytes: usize = records.iter().map(Record::len_bytes).sum();
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.buffer_bytes)
    }

    fn hand_over(&self, records: Vec<Record>, room: OwnedSemaphorePermit) -> Acks {
        let (sender, acks) = Acks::channel();
        let id = self.id;
        self.shared
            .with(|world| world.accept(id, records, room, sender));
        acks
    }
}

#[async_trait]
impl Producer for SimulatedProducer {
    async fn send(&self, records: Vec<Record>) -> Acks {
        match Arc::clone(&self.room)
            .acquire_many_owned(self.need(&records))
            .await
        {
            Ok(room) => self.hand_over(records, room),
            Err(_) => unknown(records.len()),
        }
    }

    fn try_send(&self, records: Vec<Record>) -> Result<Acks, Vec<Record>> {
        match Arc::clone(&self.room).try_acquire_many_owned(self.need(&records)) {
            Ok(room) => Ok(self.hand_over(records, room)),
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(records),
            Err(tokio::sync::TryAcquireError::Closed) => Ok(unknown(records.len())),
        }
    }

    fn purge(&self) {
        self.shared.with(|world| world.purge(self.id));
        self.room.close();
    }
}

impl Drop for SimulatedProducer {
    fn drop(&mut self) {
        self.shared.with(|world| {
            world.purge(self.id);
            world.producing.producers.remove(&self.id);
        });
    }
}

fn unknown(count: usize) -> Acks {
    let (sender, acks) = Acks::channel();
    drop(sender.send(vec![Err(NotWritten::Unknown); count]));
    acks
}

impl World {
    fn accept(
        &mut self,
        producer: u64,
        records: Vec<Record>,
        room: OwnedSemaphorePermit,
        sender: Reports,
    ) {
        let send = self.next_id();
        let mut reports = vec![None; records.len()];
        let alive = self
            .producing
            .producers
            .get(&producer)
            .filter(|state| !state.dead);
        let Some((mut spread, single)) = alive.map(|state| (state.spread, state.single)) else {
            drop(sender.send(vec![Err(NotWritten::Unknown); records.len()]));
            return;
        };
        let mut groups: BTreeMap<(Partition, usize), Vec<(usize, Record)>> = BTreeMap::new();
        for (place, record) in records.into_iter().enumerate() {
            match self.place(&record, &mut spread) {
                Ok(partition) => {
                    let group = (partition, if single { place } else { 0 });
                    groups.entry(group).or_default().push((place, record));
                }
                Err(refusal) => {
                    if let Some(report) = reports.get_mut(place) {
                        *report = Some(Err(refusal));
                    }
                }
            }
        }
        if let Some(state) = self.producing.producers.get_mut(&producer) {
            state.spread = spread;
        }
        self.producing.sends.insert(
            send,
            Sending {
                reports,
                sender,
                _room: room,
            },
        );
        for ((partition, _), group) in groups {
            self.dispatch(producer, send, partition, group);
        }
        self.finish_send(send);
    }

    fn dispatch(
        &mut self,
        producer: u64,
        send: u64,
        partition: Partition,
        group: Vec<(usize, Record)>,
    ) {
        let Some(state) = self.producing.producers.get(&producer) else {
            return;
        };
        let (life, linger, timeout) = (state.life, state.linger, state.timeout);
        let (places, records) = group.into_iter().unzip();
        let delay =
            linger + self.draw(|latencies| latencies.produce) + self.faults.slowness(&partition);
        let id = self.next_id();
        let lane = Lane::Produce(producer, partition.clone());
        let sent_at = self.clock.now();
        let stage = Stage::OnItsWay;
        let batch = Batch {
            producer,
            life,
            send,
            partition,
            places,
            records,
            sent_at,
            stage,
        };
        self.producing.batches.insert(id, batch);
        self.submit(life, lane, delay, move |world| world.arrive(id));
        if let Some(timeout) = timeout {
            self.reply(life, Lane::Alone, timeout, move |world| world.time_out(id));
        }
    }

    fn arrive(&mut self, id: u64) {
        let Some(batch) = self.producing.batches.get_mut(&id) else {
            return;
        };
        let (life, partition) = (batch.life, batch.partition.clone());
        if self.faults.is_unwritable(&partition) {
            batch.stage = Stage::Blocked;
            self.block(&partition, life, move |world| world.arrive(id));
            return;
        }
        let alone = batch.records.len() == 1;
        if batch
            .records
            .iter()
            .any(|record| self.faults.refuses(record))
        {
            let why = if alone {
                NotWritten::Invalid
            } else {
                NotWritten::Unknown
            };
            return self.refuse(id, why);
        }
        match self.fault(Operation::Produce, life) {
            None => self.append_batch(id, true),
            Some(Fault::LostReply) => self.append_batch(id, false),
            Some(Fault::LostRequest) => self.refuse(id, NotWritten::Unknown),
            Some(Fault::Refused) => self.refuse(id, NotWritten::TimedOut),
        }
    }

    fn append_batch(&mut self, id: u64, known: bool) {
        let Some(batch) = self.producing.batches.get_mut(&id) else {
            return;
        };
        batch.stage = Stage::Appended;
        let records = std::mem::take(&mut batch.records);
        let (partition, sent_at) = (batch.partition.clone(), batch.sent_at);
        let (first, visible) = self.append(&partition, &records, sent_at, None);
        let outcome = if known {
            Ok(first)
        } else {
            Err(NotWritten::Unknown)
        };
        self.acknowledge_batch(id, visible, outcome);
    }

    fn refuse(&mut self, id: u64, why: NotWritten) {
        self.acknowledge_batch(id, Duration::ZERO, Err(why));
    }

    /// The report goes back, behind those of the same partition.
    fn acknowledge_batch(&mut self, id: u64, after: Duration, outcome: Report) {
        let Some(batch) = self.producing.batches.get(&id) else {
            return;
        };
        let (life, lane) = (
            batch.life,
            Lane::Produce(batch.producer, batch.partition.clone()),
        );
        let delay = after + self.draw(|latencies| latencies.acknowledge);
        self.reply(life, lane, delay, move |world| world.report(id, outcome));
        // The log itself takes nothing behind a failed batch of such a producer.
        if outcome.is_err() {
            self.fail_behind(id);
        }
    }

    fn fail_behind(&mut self, id: u64) {
        let Some(batch) = self.producing.batches.get(&id) else {
            return;
        };
        let producer = batch.producer;
        let gapless = self
            .producing
            .producers
            .get(&producer)
            .is_some_and(|state| state.gapless);
        if gapless {
            self.note(format!("producer {producer} fails behind a failed batch"));
            let theirs = self.batches_of(producer, |other| other != id);
            for other in theirs {
                let on_its_way = self
                    .producing
                    .batches
                    .get(&other)
                    .is_some_and(|batch| batch.stage != Stage::Appended);
                if on_its_way {
                    self.report(other, Err(NotWritten::Unknown));
                }
            }
            if let Some(state) = self.producing.producers.get_mut(&producer) {
                state.dead = true;
            }
        }
    }

    fn batches_of(&self, producer: u64, wanted: impl Fn(u64) -> bool) -> Vec<u64> {
        let theirs = self
            .producing
            .batches
            .iter()
            .filter(|(_, batch)| batch.producer == producer);
        theirs.map(|(id, _)| *id).filter(|id| wanted(*id)).collect()
    }

    /// Fills the reports of a batch in; it is over.
    fn report(&mut self, id: u64, outcome: Report) {
        if let Some(batch) = self.producing.batches.remove(&id) {
            self.report_places(batch.send, &batch.places, outcome);
        }
    }

    fn report_places(&mut self, send: u64, places: &[usize], outcome: Report) {
        let Some(sending) = self.producing.sends.get_mut(&send) else {
            return;
        };
        for (place, offset) in places.iter().zip(0..) {
            if let Some(report) = sending.reports.get_mut(*place) {
                *report = Some(outcome.map(|first| first + offset));
            }
        }
        self.finish_send(send);
    }

    fn finish_send(&mut self, send: u64) {
        let known = |sending: &Sending| sending.reports.iter().all(Option::is_some);
        if !self.producing.sends.get(&send).is_some_and(known) {
            return;
        }
        if let Some(Sending {
            reports,
            sender,
            _room,
        }) = self.producing.sends.remove(&send)
        {
            drop(sender.send(reports.into_iter().flatten().collect()));
        }
    }

    fn time_out(&mut self, id: u64) {
        let Some(batch) = self.producing.batches.get(&id) else {
            return;
        };
        match batch.stage {
            Stage::Blocked | Stage::OnItsWay => {
                self.fail_behind(id);
                self.report(id, Err(NotWritten::TimedOut));
            }
            Stage::Appended => {}
        }
    }

    /// Gives up everything unacknowledged. What is on its way arrives or does not, per partition a
    /// prefix; the reports say that nobody knows.
    fn purge(&mut self, producer: u64) {
        let Some(state) = self.producing.producers.get_mut(&producer) else {
            return;
        };
        state.dead = true;
        if self.is_crashed(
            self.producing
                .producers
                .get(&producer)
                .map_or(0, |it| it.life),
        ) {
            return;
        }
        let mut broken = BTreeSet::new();
        for id in self.batches_of(producer, |_| true) {
            let Some(batch) = self.producing.batches.get_mut(&id) else {
                continue;
            };
            let (send, partition, stage) = (batch.send, batch.partition.clone(), batch.stage);
            let places = std::mem::take(&mut batch.places);
            let arrives = stage != Stage::Blocked && !broken.contains(&partition) && self.toss();
            if stage != Stage::Appended && !arrives {
                self.producing.batches.remove(&id);
                broken.insert(partition);
            }
            self.report_places(send, &places, Err(NotWritten::Unknown));
        }
    }
}
