//! Owns the simulated log: Kafka's behaviour in memory, with its awkward parts, seeded.
//!
//! It must never use a thread or a clock of its own: on a current-thread runtime with paused time
//! the same seed and the same calls give the same trace. The surprise: services are handed a log
//! per *process* ([`SimulatedLog::process`]), so that one of them can be stopped, woken or crashed
//! while the others go on. The calls of a crashed process never return.

mod assignment;
mod faults;
mod member;
mod membership;
mod news;
mod options;
mod partition;
mod positions;
mod produce;
mod read;
mod storage;
mod trace;
mod transact;
mod world;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::member::SimulatedMember;
use self::produce::SimulatedProducer;
use self::read::SimulatedReader;
use self::transact::SimulatedTransactions;
use self::world::{Life, Shared, World};
use super::{
    Bounds, Committed, Error, Fetched, Log, Member, MemberOptions, Membership, Partition, Position,
    Producer, ProducerOptions, Reader, ReaderOptions, SharedLog, StoredRecord, TopicName,
    TopicSettings, TopicShape, TransactionOptions, Transactions,
};
use crate::clock::Clock;

pub use self::faults::{Fault, Faults, Operation};
pub use self::options::{Latencies, Latency, LossTold, SimulationOptions};
pub use self::partition::{Content, Entry};
pub use self::trace::Trace;

/// A simulated cluster. Clones are handles to the same one; it ends with its last handle.
#[derive(Debug, Clone)]
pub struct SimulatedLog {
    shared: Arc<Shared>,
}

impl SimulatedLog {
    /// Starts a simulation. Call it inside the tokio runtime whose time it follows.
    #[must_use]
    pub fn new(options: SimulationOptions) -> Self {
        Self {
            shared: Shared::start(options),
        }
    }

    /// The log as the process of that name has it. After a crash this begins a new process.
    #[must_use]
    pub fn process(&self, name: &str) -> SharedLog {
        let life = self.shared.with(|world| world.process(name));
        Arc::new(ProcessLog {
            shared: Arc::clone(&self.shared),
            life,
        })
    }

    /// The wall clock that timestamps come from.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.shared.with(|world| world.clock.clone())
    }

    /// Makes things go wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The process makes no progress with the log until it is woken, as by SIGSTOP.
    pub fn stop(&self, process: &str) {
        self.shared.with(|world| world.stop(process));
    }

    /// The stopped process goes on, as by SIGCONT; it learns what it missed when it next talks to
    /// the log.
    pub fn wake(&self, process: &str) {
        self.shared.with(|world| world.wake(process));
    }

    /// The process ends as by SIGKILL. Of what it had sent a part arrives; its calls never return,
    /// so drop its tasks too; its members leave when their sessions expire.
    pub fn crash(&self, process: &str) {
        self.shared.with(|world| world.crash(process));
    }

    /// Every committed record that readers of `partition` can see now.
    #[must_use]
    pub fn records(&self, partition: &Partition) -> Vec<StoredRecord> {
        self.shared.with(|world| {
            let mut records = Vec::new();
            if let Some(log) = world.partition(partition) {
                log.read(0, usize::MAX, &mut records);
            }
            records
        })
    }

    /// What is at every offset of a topic: open and aborted records and markers too.
    #[must_use]
    pub fn dump(&self, topic: &TopicName) -> BTreeMap<Partition, Vec<Entry>> {
        self.shared.with(|world| world.dump(topic))
    }

    /// Everything that `group` has committed.
    #[must_use]
    pub fn committed(&self, group: &str) -> BTreeMap<Partition, Committed> {
        self.shared.with(|world| world.positions_of(group))
    }

    /// Who owns what in `group`, by instance name, as the log sees it.
    #[must_use]
    pub fn owners(&self, group: &str) -> BTreeMap<Partition, String> {
        self.shared.with(|world| world.owners(group))
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.shared.with(|world| world.trace.clone())
    }

    /// Adds an auditor's own line to the trace.
    pub fn note(&self, what: impl Display) {
        self.shared.with(|world| world.note(what.to_string()));
    }

    /// Prints the trace with its seed when the returned guard is dropped by a panic.
    #[must_use]
    pub fn trace_on_panic(&self) -> TraceOnPanic {
        TraceOnPanic { log: self.clone() }
    }
}

/// Prints the trace of a simulation when it is dropped by a panic.
#[derive(Debug)]
pub struct TraceOnPanic {
    log: SimulatedLog,
}

impl Drop for TraceOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.trace());
        }
    }
}

/// The log as one process has it.
#[derive(Debug)]
struct ProcessLog {
    shared: Arc<Shared>,
    life: Life,
}

impl ProcessLog {
    /// Asks something about topics.
    async fn look_up<T: Send + 'static>(
        &self,
        subject: impl Display,
        question: impl FnOnce(&mut World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (life, subject) = (self.life, subject.to_string());
        self.shared
            .ask(
                life,
                |latencies| latencies.lookup,
                move |world, sender| {
                    let result = match world.fault(Operation::Lookup, life) {
                        Some(_) => Err(Fault::Refused.error(&subject)),
                        None => question(world),
                    };
                    let delay = world.draw(|latencies| latencies.lookup);
                    world.answer(life, delay, sender, result);
                },
            )
            .await
    }
}

#[async_trait]
impl Log for ProcessLog {
    async fn create_topics(&self, topics: &[TopicSettings]) -> Result<Vec<TopicName>, Error> {
        let topics = topics.to_vec();
        self.look_up("topics", move |world| Ok(world.create_topics(&topics)))
            .await
    }

    async fn describe_topic(&self, topic: &TopicName) -> Result<Option<TopicShape>, Error> {
        let asked = topic.clone();
        self.look_up(topic, move |world| Ok(world.describe(&asked)))
            .await
    }

    async fn bounds(&self, partition: &Partition) -> Result<Bounds, Error> {
        let asked = partition.clone();
        self.look_up(partition, move |world| world.bounds(&asked))
            .await
    }

    async fn offset_at(&self, partition: &Partition, at: i64) -> Result<Option<i64>, Error> {
        let asked = partition.clone();
        self.look_up(partition, move |world| world.offset_at(&asked, at))
            .await
    }

    async fn committed(
        &self,
        group: &str,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        let (group, partitions, life) = (group.to_owned(), partitions.to_vec(), self.life);
        self.shared
            .ask(
                life,
                |latencies| latencies.commit,
                move |world, sender| world.ask_positions(life, group, partitions, sender),
            )
            .await
    }

    async fn commit_for_empty_group(
        &self,
        group: &str,
        positions: &[Position],
    ) -> Result<(), Error> {
        let (group, positions, life) = (group.to_owned(), positions.to_vec(), self.life);
        self.shared
            .ask(
                life,
                |latencies| latencies.commit,
                move |world, sender| {
                    let result = world.commit_for_empty(life, &group, positions);
                    let delay = world.draw(|latencies| latencies.commit);
                    world.answer(life, delay, sender, result);
                },
            )
            .await
    }

    async fn producer(&self, options: ProducerOptions) -> Result<Arc<dyn Producer>, Error> {
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(SimulatedProducer::open(
            shared, self.life, &options,
        )))
    }

    async fn transactions(
        &self,
        options: TransactionOptions,
    ) -> Result<Box<dyn Transactions>, Error> {
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(
            SimulatedTransactions::open(shared, self.life, options).await?,
        ))
    }

    async fn member(
        &self,
        options: MemberOptions,
    ) -> Result<(Arc<dyn Member>, mpsc::UnboundedReceiver<Membership>), Error> {
        let shared = Arc::clone(&self.shared);
        let (member, membership) = SimulatedMember::join(shared, self.life, options).await;
        Ok((Arc::new(member), membership))
    }

    async fn reader(
        &self,
        options: ReaderOptions,
    ) -> Result<(Arc<dyn Reader>, mpsc::Receiver<Fetched>), Error> {
        let shared = Arc::clone(&self.shared);
        let (reader, fetched) = SimulatedReader::open(shared, self.life, &options);
        Ok((Arc::new(reader), fetched))
    }
}

#[cfg(test)]
mod tests;
