//! Owns transactions: the coordinator of each id, and the client that runs one whole transaction.
//!
//! It must never let a part of a transaction be seen without the rest. The surprise: the client's
//! steps are requests of their own, so that a stopped or crashed process leaves its transaction
//! open, and the log ends it only at a sweep after its timeout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{
    Class, Error, NotCommitted, NotWritten, Partition, Record, Transaction, TransactionOptions,
    Transactions,
};
use super::faults::{Fault, Operation};
use super::membership::Proof;
use super::world::{Lane, Life, Shared, World};

type Outcome = Result<(), NotCommitted>;
type Wait = Box<dyn FnOnce(&mut World) + Send>;

/// All coordinators of a simulation, and the transactions that clients run.
#[derive(Default)]
pub(super) struct Transacting {
    coordinators: BTreeMap<String, Coordinator>,
    jobs: BTreeMap<u64, Job>,
}

/// The log's side of one transactional id.
#[derive(Default)]
struct Coordinator {
    epoch: u32,
    open: Option<Open>,
    // What waits for the open transaction to end.
    waiting: Vec<Wait>,
}

struct Open {
    number: u64,
    touched: BTreeSet<Partition>,
    group: Option<String>,
    ending: bool,
}

/// The client's side of one transaction.
struct Job {
    id: String,
    epoch: u32,
    life: Life,
    number: u64,
    timeout: Duration,
    transaction: Transaction,
    appends_left: usize,
    refused: Vec<(usize, NotWritten)>,
    // Why the client gives the transaction up.
    failed: Option<NotCommitted>,
    sender: oneshot::Sender<Outcome>,
}

/// A transactional producer of one process.
#[derive(Debug)]
pub(super) struct SimulatedTransactions {
    shared: Arc<Shared>,
    life: Life,
    id: String,
    epoch: u32,
    timeout: Duration,
    spent: bool,
}

impl SimulatedTransactions {
    pub(super) async fn open(
        shared: Arc<Shared>,
        life: Life,
        options: TransactionOptions,
    ) -> Result<Self, Error> {
        let TransactionOptions { id, timeout } = options;
        let name = id.clone();
        let epoch = shared
            .ask(
                life,
                |latencies| latencies.transaction,
                move |world, sender| world.open_transactions(life, name, sender),
            )
            .await?;
        Ok(Self {
            shared,
            life,
            id,
            epoch,
            timeout,
            spent: false,
        })
    }

    fn job(&self, transaction: Transaction, sender: oneshot::Sender<Outcome>) -> Job {
        Job {
            id: self.id.clone(),
            epoch: self.epoch,
            life: self.life,
            number: 0,
            timeout: self.timeout,
            transaction,
            appends_left: 0,
            refused: Vec::new(),
            failed: None,
            sender,
        }
    }
}

#[async_trait]
impl Transactions for SimulatedTransactions {
    async fn commit(&mut self, transaction: Transaction) -> Outcome {
        if self.spent {
            let message = "transactional producer is spent";
            return Err(NotCommitted::Fenced(Error::new(
                Class::Fenced,
                &self.id,
                message,
            )));
        }
        let (sender, receiver) = oneshot::channel();
        let job = self.job(transaction, sender);
        self.shared.with(|world| world.run_job(job));
        let Ok(outcome) = receiver.await else {
            return std::future::pending().await;
        };
        self.spent = matches!(
            outcome,
            Err(NotCommitted::Unknown(_) | NotCommitted::Fenced(_))
        );
        outcome
    }
}

impl World {
    /// Fences every earlier producer of `id`, and answers when what it left is finished.
    fn open_transactions(
        &mut self,
        life: Life,
        id: String,
        sender: oneshot::Sender<Result<u32, Error>>,
    ) {
        let back = self.draw(|latencies| latencies.transaction);
        if let Some(fault) = self.fault(Operation::OpenTransactions, life) {
            if fault.happened() {
                self.raise_epoch(&id);
            }
            return self.answer(life, back, sender, Err(fault.error(&id)));
        }
        let epoch = self.raise_epoch(&id);
        self.after_open(id, move |world| world.answer(life, back, sender, Ok(epoch)));
    }

    fn raise_epoch(&mut self, id: &str) -> u32 {
        let coordinator = self
            .transacting
            .coordinators
            .entry(id.to_owned())
            .or_default();
        coordinator.epoch += 1;
        let epoch = coordinator.epoch;
        self.note(format!("transactional id {id} is at epoch {epoch}"));
        self.decide(id, false);
        epoch
    }

    /// Does `wait` once no transaction of `id` is open.
    fn after_open(&mut self, id: String, wait: impl FnOnce(&mut Self) + Send + 'static) {
        let coordinator = self.transacting.coordinators.entry(id).or_default();
        if coordinator.open.is_some() {
            coordinator.waiting.push(Box::new(wait));
        } else {
            wait(self);
        }
    }

    fn run_job(&mut self, mut job: Job) {
        let number = self.next_id();
        job.number = number;
        let life = job.life;
        self.transacting.jobs.insert(number, job);
        let delay = self.draw(|latencies| latencies.transaction);
        self.submit(life, Lane::Alone, delay, move |world| world.begin(number));
    }

    fn begin(&mut self, number: u64) {
        let Some(id) = self.transacting.jobs.get(&number).map(|job| job.id.clone()) else {
            return;
        };
        self.after_open(id.clone(), move |world| {
            if world.is_fenced(number) {
                return world.finish_fenced(number);
            }
            let open = Open {
                number,
                touched: BTreeSet::new(),
                group: None,
                ending: false,
            };
            if let Some(coordinator) = world.transacting.coordinators.get_mut(&id) {
                coordinator.open = Some(open);
            }
            world.note(format!("transaction {number} of {id} begins"));
            world.time_transaction(number, &id);
            world.send_records(number);
        });
    }

    /// The client gives up at the timeout; the log at the first sweep behind it.
    fn time_transaction(&mut self, number: u64, id: &str) {
        let Some(job) = self.transacting.jobs.get(&number) else {
            return;
        };
        let (life, timeout) = (job.life, job.timeout);
        self.reply(life, Lane::Alone, timeout, move |world| {
            let stuck = world
                .transacting
                .jobs
                .get(&number)
                .is_some_and(|job| job.appends_left > 0);
            if stuck {
                let cause = Error::new(
                    Class::Retry,
                    "transaction",
                    "records were not written in time",
                );
                world.give_up(
                    number,
                    NotCommitted::Aborted {
                        cause,
                        refused: Vec::new(),
                    },
                );
            }
        });
        let id = id.to_owned();
        let sweep = self.next_sweep(Instant::now() + timeout);
        self.later(sweep, move |world| world.sweep(&id, number));
    }

    fn sweep(&mut self, id: &str, number: u64) {
        let Some(coordinator) = self.transacting.coordinators.get_mut(id) else {
            return;
        };
        let overdue = coordinator
            .open
            .as_ref()
            .is_some_and(|open| open.number == number && !open.ending);
        if overdue {
            coordinator.epoch += 1;
            self.note(format!(
                "transaction {number} of {id} is beyond its timeout"
            ));
            self.decide(id, false);
        }
    }

    fn send_records(&mut self, number: u64) {
        let Some(job) = self.transacting.jobs.get_mut(&number) else {
            return;
        };
        let (id, life) = (job.id.clone(), job.life);
        let records = std::mem::take(&mut job.transaction.records);
        let mut spread = u32::try_from(number).unwrap_or(0);
        let mut groups: BTreeMap<Partition, Vec<Record>> = BTreeMap::new();
        let mut refused = Vec::new();
        for (place, record) in records.into_iter().enumerate() {
            match self.place(&record, &mut spread) {
                Ok(_) if self.faults.refuses(&record) => refused.push((place, NotWritten::Invalid)),
                Ok(partition) => groups.entry(partition).or_default().push(record),
                Err(why) => refused.push((place, why)),
            }
        }
        if let Some(job) = self.transacting.jobs.get_mut(&number) {
            job.appends_left = groups.len();
            job.refused = refused;
        }
        if groups.is_empty() {
            return self.send_positions(number);
        }
        let sent_at = self.clock.now();
        for (partition, records) in groups {
            let delay = self.draw(|latencies| latencies.produce) + self.faults.slowness(&partition);
            let lane = Lane::Transact(number, partition.clone());
            self.submit(life, lane, delay, {
                let id = id.clone();
                move |world| world.append_part(number, id, partition, (records, sent_at))
            });
        }
    }

    fn append_part(
        &mut self,
        number: u64,
        id: String,
        partition: Partition,
        (records, sent_at): (Vec<Record>, i64),
    ) {
        let running = self
            .transacting
            .jobs
            .get(&number)
            .filter(|job| job.failed.is_none());
        let Some(life) = running.map(|job| job.life) else {
            return;
        };
        if self.is_fenced(number) {
            return self.finish_fenced(number);
        }
        if self.faults.is_unwritable(&partition) {
            return self.block(&partition.clone(), life, move |world| {
                world.append_part(number, id, partition, (records, sent_at));
            });
        }
        self.append(&partition, &records, sent_at, Some(number));
        let coordinator = self.transacting.coordinators.get_mut(&id);
        if let Some(open) = coordinator.and_then(|coordinator| coordinator.open.as_mut()) {
            open.touched.insert(partition);
        }
        let Some(job) = self.transacting.jobs.get_mut(&number) else {
            return;
        };
        job.appends_left -= 1;
        if job.appends_left == 0 {
            self.send_positions(number);
        }
    }

    /// The records are written: now the positions, unless a record was refused.
    fn send_positions(&mut self, number: u64) {
        let Some(job) = self.transacting.jobs.get(&number) else {
            return;
        };
        let life = job.life;
        if !job.refused.is_empty() {
            let cause = Error::new(Class::Never, &job.id, "records can never be written");
            let refused = job.refused.clone();
            return self.give_up(number, NotCommitted::Aborted { cause, refused });
        }
        if job.transaction.positions.is_empty() {
            return self.send_end(number, true);
        }
        let delay = self.draw(|latencies| latencies.commit);
        self.submit(life, Lane::Alone, delay, move |world| {
            match world.take_positions(number) {
                Ok(()) => world.send_end(number, true),
                Err(why) => world.give_up(number, why),
            }
        });
    }

    fn take_positions(&mut self, number: u64) -> Outcome {
        let Some(job) = self.transacting.jobs.get_mut(&number) else {
            return Ok(());
        };
        let (id, life) = (job.id.clone(), job.life);
        let positions = std::mem::take(&mut job.transaction.positions);
        let aborted = |cause| NotCommitted::Aborted {
            cause,
            refused: Vec::new(),
        };
        let Some(proof) = job
            .transaction
            .group
            .as_ref()
            .and_then(|group| group.get::<Proof>())
        else {
            let message = "positions without the membership they are committed under";
            return Err(aborted(Error::new(Class::Never, id, message)));
        };
        let proof = proof.clone();
        self.check_positions(&positions).map_err(aborted)?;
        self.check_proof_of_transaction(&proof)
            .map_err(NotCommitted::NotMember)?;
        if self.is_fenced(number) {
            let message = "a newer producer of this id exists";
            return Err(NotCommitted::Fenced(Error::new(Class::Fenced, id, message)));
        }
        self.note(format!(
            "transaction {number} of {} takes {positions:?}",
            self.name_of(life)
        ));
        self.hold_positions(&proof.group, number, positions);
        let coordinator = self.transacting.coordinators.get_mut(&id);
        if let Some(open) = coordinator.and_then(|coordinator| coordinator.open.as_mut()) {
            open.group = Some(proof.group);
        }
        Ok(())
    }

    /// The client aborts and will report why.
    fn give_up(&mut self, number: u64, why: NotCommitted) {
        if let Some(job) = self.transacting.jobs.get_mut(&number) {
            job.appends_left = 0;
            job.failed = Some(why);
            self.send_end(number, false);
        }
    }

    fn send_end(&mut self, number: u64, commit: bool) {
        let Some(job) = self.transacting.jobs.get(&number) else {
            return;
        };
        let life = job.life;
        let delay = self.draw(|latencies| latencies.transaction);
        self.submit(life, Lane::Alone, delay, move |world| {
            world.end(number, commit)
        });
    }

    fn end(&mut self, number: u64, commit: bool) {
        let Some(job) = self.transacting.jobs.get_mut(&number) else {
            return;
        };
        let (id, life, failed) = (job.id.clone(), job.life, job.failed.take());
        if self.is_fenced(number) {
            return self.finish_fenced(number);
        }
        let fault = if commit {
            self.fault(Operation::Transaction, life)
        } else {
            None
        };
        let outcome = match fault {
            None => {
                self.decide(&id, commit);
                failed.map_or(Ok(()), Err)
            }
            Some(Fault::Refused) => {
                self.decide(&id, false);
                let cause = Fault::Refused.error(&id);
                Err(NotCommitted::Aborted {
                    cause,
                    refused: Vec::new(),
                })
            }
            Some(fault) => {
                if fault.happened() {
                    self.decide(&id, true);
                }
                Err(NotCommitted::Unknown(fault.error(&id)))
            }
        };
        self.finish(number, outcome);
    }

    /// The log decides the open transaction of `id`, and marks every partition it touched.
    fn decide(&mut self, id: &str, commit: bool) {
        let coordinator = self.transacting.coordinators.get_mut(id);
        let Some(open) = coordinator.and_then(|coordinator| coordinator.open.as_mut()) else {
            return;
        };
        if std::mem::replace(&mut open.ending, true) {
            return;
        }
        let number = open.number;
        let (touched, group) = (open.touched.clone(), open.group.clone());
        let word = if commit { "commits" } else { "aborts" };
        self.note(format!("transaction {number} of {id} {word}"));
        let mut last = Duration::ZERO;
        for partition in touched {
            let delay = self.draw(|latencies| latencies.marker);
            last = last.max(delay);
            self.later(delay, move |world| {
                if let Some(log) = world.partition_mut(&partition) {
                    log.mark(number, commit);
                }
                world.grown(&partition);
            });
        }
        if let Some(group) = group {
            let delay = self.draw(|latencies| latencies.marker);
            last = last.max(delay);
            self.later(delay, move |world| {
                world.release_positions(&group, number, commit)
            });
        }
        let id = id.to_owned();
        self.later(last, move |world| world.complete(&id));
    }

    fn complete(&mut self, id: &str) {
        let Some(coordinator) = self.transacting.coordinators.get_mut(id) else {
            return;
        };
        coordinator.open = None;
        // Each may open the next transaction, behind which the others wait again.
        for wait in std::mem::take(&mut coordinator.waiting) {
            let open = self
                .transacting
                .coordinators
                .get(id)
                .is_some_and(|it| it.open.is_some());
            if open {
                self.after_open(id.to_owned(), wait);
            } else {
                wait(self);
            }
        }
    }

    /// Whether the log would refuse a request of this transaction's producer.
    fn is_fenced(&self, number: u64) -> bool {
        let Some(job) = self.transacting.jobs.get(&number) else {
            return true;
        };
        self.transacting
            .coordinators
            .get(&job.id)
            .is_none_or(|it| it.epoch != job.epoch)
    }

    fn finish_fenced(&mut self, number: u64) {
        let Some(job) = self.transacting.jobs.get(&number) else {
            return;
        };
        let error = Error::new(Class::Fenced, &job.id, "a newer producer of this id exists");
        self.finish(number, Err(NotCommitted::Fenced(error)));
    }

    fn finish(&mut self, number: u64, outcome: Outcome) {
        if let Some(Job { life, sender, .. }) = self.transacting.jobs.remove(&number) {
            let delay = self.draw(|latencies| latencies.transaction);
            self.answer(life, delay, sender, outcome);
        }
    }
}
