//! Owns the transactional producer: one whole transaction at a time, on a thread of its own.
//!
//! It must never commit while a record is unacknowledged (a commit would then take 100 ms), nor
//! call a transaction aborted whose outcome it does not know. The surprises: when a broker refuses
//! a batch without naming the record, the same transaction runs once more with one record a
//! batch, to learn which it was. And a call may never return (see `pulse`): then the thread is left
//! behind with its producer, which the next one of this id fences.

use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pulse::{self, Pulse, Silence, Watch};
use super::report::Outcome;
use super::writer::{Limits, Writer};
use super::{KafkaOptions, errors, list, producer, wake};
use crate::log::{
    Class, Error, NotCommitted, NotWritten, Position, Record, Transaction, TransactionOptions,
    Transactions,
};

/// A delay partition holds one batch in memory (design: "Delay topics").
const BATCH_BYTES: usize = 64 << 10;

/// One call to the coordinator; tried again until [`GIVE_UP`].
const CALL: Duration = Duration::from_secs(5);

/// A report that was answered is served this soon, unless other work keeps the queue filled.
const SERVED: Duration = Duration::from_millis(500);

/// After this long without an answer the outcome is unknown.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A call may outlast its bound by this much on a machine that is busy.
const LATE: Duration = Duration::from_secs(3);

/// A producer that was left behind closes its idle connections after this, which brings the call
/// that it is stuck in to its end.
const IDLE: Duration = Duration::from_secs(60);

/// See [`Transactions`].
#[derive(Debug)]
pub(super) struct KafkaTransactions {
    id: String,
    jobs: mpsc::Sender<Job>,
    watch: Watch,
}

struct Job {
    transaction: Transaction,
    reply: oneshot::Sender<Result<(), NotCommitted>>,
}

impl KafkaTransactions {
    /// Fences every earlier producer of this id and waits for what it left open.
    pub(super) async fn open(
        kafka: &KafkaOptions,
        options: TransactionOptions,
    ) -> Result<Self, Error> {
        let (jobs, receiver) = mpsc::channel();
        let (ready, opened) = oneshot::channel();
        let id = options.id.clone();
        let longest = CALL.max(record_timeout(options.timeout));
        let (pulse, mut watch) = pulse::pair(longest + LATE);
        let mut engine = Engine {
            kafka: kafka.clone(),
            options,
            pulse,
            writer: None,
            spent: None,
        };
        wake::start("kafka-transact", move || {
            let result = engine.open(false);
            let failed = result.is_err();
            if ready.send(result).is_err() || failed {
                return;
            }
            engine.work(&receiver);
        })?;
        let opened = watch.wait(opened).await;
        opened.map_err(|silence| Error::new(Class::Unknown, subject(&id), silence))??;
        Ok(Self { id, jobs, watch })
    }
}

#[async_trait]
impl Transactions for KafkaTransactions {
    // cancel-safe: the transaction runs to its end, its outcome is lost with the future.
    async fn commit(&mut self, transaction: Transaction) -> Result<(), NotCommitted> {
        let id = &self.id;
        let silent = |silence: Silence| {
            NotCommitted::Unknown(Error::new(Class::Unknown, subject(id), silence))
        };
        if self.watch.has_given_up() {
            return Err(silent(Silence::Stuck));
        }
        let (reply, outcome) = oneshot::channel();
        let job = Job { transaction, reply };
        self.jobs.send(job).map_err(|_| silent(Silence::Ended))?;
        self.watch.wait(outcome).await.map_err(silent)?
    }
}

fn subject(id: &str) -> String {
    format!("transactional producer {id}")
}

struct Engine {
    kafka: KafkaOptions,
    options: TransactionOptions,
    pulse: Pulse,
    writer: Option<Writer>,
    spent: Option<NotCommitted>,
}

impl Engine {
    fn work(&mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(Job { transaction, reply }) = jobs.recv() {
            let result = self.run(&transaction);
            if let Err(end @ (NotCommitted::Unknown(_) | NotCommitted::Fenced(_))) = &result {
                self.spent = Some(end.clone());
                self.writer = None;
            }
            // Nobody waits any more: the next take-over compares the committed positions.
            drop(reply.send(result));
        }
    }

    fn open(&mut self, single: bool) -> Result<(), Error> {
        // The old one first: a new producer of the same id fences it.
        self.writer = None;
        if self.pulse.is_given_up() {
            // Opened now, it would fence the one that took its place.
            let subject = subject(&self.options.id);
            return Err(Error::new(Class::Unknown, subject, Silence::Stuck));
        }
        let limits = Limits {
            // A hop's records for one partition are many requests, each at once behind the last.
            burst: None,
            timeout: Some(record_timeout(self.options.timeout)),
        };
        let writer = Writer::open(&self.settings(single), limits, &self.options.id)?;
        let end = Instant::now() + 2 * GIVE_UP;
        until(&self.pulse, end, || writer.raw().init_transactions(CALL))
            .map_err(|error| errors::asking(subject(&self.options.id), &error))?;
        self.writer = Some(writer);
        Ok(())
    }

    fn settings(&self, single: bool) -> ClientConfig {
        let timeout = self.options.timeout.as_millis().to_string();
        let mut own = producer::durable(&self.kafka);
        own.push(("transactional.id", self.options.id.clone()));
        own.push(("transaction.timeout.ms", timeout));
        let record_timeout = record_timeout(self.options.timeout);
        own.push(("message.timeout.ms", record_timeout.as_millis().to_string()));
        own.push(("connections.max.idle.ms", IDLE.as_millis().to_string()));
        own.push(("linger.ms", "0.2".to_owned()));
        // The coordinator asks to come again while the last markers are written (trap 5).
        own.push(("retry.backoff.ms", "5".to_owned()));
        own.push(("batch.size", BATCH_BYTES.to_string()));
        if single {
            own.push(("batch.num.messages", "1".to_owned()));
        }
        self.kafka.client(&self.options.id, &own)
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), NotCommitted> {
        if let Some(spent) = &self.spent {
            return Err(spent.clone());
        }
        let Attempted::Ambiguous(aborted) = self.attempt(transaction, false)? else {
            return Ok(());
        };
        if self.open(true).is_err() {
            return self.reopen().and(Err(aborted));
        }
        let named = self.attempt(transaction, true);
        self.reopen()?;
        match named? {
            Attempted::Committed => Ok(()),
            Attempted::Ambiguous(named) => Err(named),
        }
    }

    fn reopen(&mut self) -> Result<(), NotCommitted> {
        self.open(false).map_err(|error| match error.class() {
            Class::Fenced => NotCommitted::Fenced(error),
            Class::Retry | Class::Never | Class::Unknown => NotCommitted::Unknown(error),
        })
    }

    fn attempt(&self, transaction: &Transaction, single: bool) -> Result<Attempted, NotCommitted> {
        let id = &self.options.id;
        let Some(writer) = &self.writer else {
            let gone = Error::new(Class::Unknown, subject(id), "has no producer");
            return Err(NotCommitted::Unknown(gone));
        };
        let pulse = &self.pulse;
        let open = Open { writer, id, pulse };
        let group = group_of(transaction, id)?;
        writer
            .raw()
            .begin_transaction()
            .map_err(|error| open.ended(&error))?;
        let outcomes = open.write(&transaction.records);
        if let Some(failure) = Failure::of(&outcomes, single) {
            return open.abort_for(failure);
        }
        if let Some(group) = group {
            open.send_positions(&transaction.positions, group)?;
        }
        open.commit()?;
        Ok(Attempted::Committed)
    }
}

/// How an attempt ended, if not for good.
enum Attempted {
    Committed,
    /// Aborted because a batch was refused, and which record is to blame is not known.
    Ambiguous(NotCommitted),
}

/// The group that the positions are committed under, where there are any.
fn group_of<'t>(
    transaction: &'t Transaction,
    id: &str,
) -> Result<Option<&'t ConsumerGroupMetadata>, NotCommitted> {
    if transaction.positions.is_empty() {
        return Ok(None);
    }
    let group = transaction
        .group
        .as_ref()
        .and_then(|group| group.get::<ConsumerGroupMetadata>());
    let missing = || {
        let cause = Error::new(
            Class::Never,
            subject(id),
            "positions without a membership of Kafka",
        );
        NotCommitted::Aborted {
            cause,
            refused: Vec::new(),
        }
    };
    group.map(Some).ok_or_else(missing)
}

/// Why the records of a transaction are not all in the log.
struct Failure {
    refused: Vec<(usize, NotWritten)>,
    ambiguous: bool,
}

impl Failure {
    /// `single`: every batch held one record, so a refusal names it.
    fn of(outcomes: &[Outcome], single: bool) -> Option<Self> {
        let written = |outcome: &Outcome| matches!(outcome, Outcome::Written(_));
        if outcomes.iter().all(written) {
            return None;
        }
        let mut failure = Self {
            refused: Vec::new(),
            ambiguous: false,
        };
        let alone = single || outcomes.len() == 1;
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Refused(reason) => failure.refused.push((index, *reason)),
                Outcome::BatchRefused(reason) if alone => failure.refused.push((index, *reason)),
                Outcome::BatchRefused(_) => failure.ambiguous = true,
                Outcome::Written(_) | Outcome::Unknown => {}
            }
        }
        Some(failure)
    }
}

/// A transaction that has begun.
struct Open<'w> {
    writer: &'w Writer,
    id: &'w str,
    pulse: &'w Pulse,
}

impl Open<'_> {
    /// Waits for every report: trap 1, a commit beside an unacknowledged record takes 100 ms.
    fn write(&self, records: &[Record]) -> Vec<Outcome> {
        self.pulse.beat();
        let (sender, reports) = oneshot::channel();
        let answer = Box::new(move |outcomes| drop(sender.send(outcomes)));
        self.writer.write(records, answer, None);
        let outcomes = reports
            .blocking_recv()
            .unwrap_or_else(|_| vec![Outcome::Unknown]);
        // The last report is still being served: librdkafka counts its records until that is done.
        let end = Instant::now() + SERVED;
        while self.writer.raw().in_flight_count() > 0 && Instant::now() < end {
            self.writer.raw().poll(Duration::ZERO);
            std::thread::park_timeout(Duration::from_micros(20));
        }
        outcomes
    }

    fn send_positions(
        &self,
        positions: &[Position],
        group: &ConsumerGroupMetadata,
    ) -> Result<(), NotCommitted> {
        let sent = list::to_commit(positions).and_then(|offsets| {
            until(self.pulse, Instant::now() + GIVE_UP, || {
                self.writer
                    .raw()
                    .send_offsets_to_transaction(&offsets, group, CALL)
            })
        });
        let Err(error) = sent else { return Ok(()) };
        self.abort(&error)?;
        let cause = errors::committing(subject(self.id), &error);
        if errors::is_not_member(errors::code(&error)) {
            return Err(NotCommitted::NotMember(cause));
        }
        Err(NotCommitted::Aborted {
            cause,
            refused: Vec::new(),
        })
    }

    fn commit(&self) -> Result<(), NotCommitted> {
        let committed = until(self.pulse, Instant::now() + GIVE_UP, || {
            self.writer.raw().commit_transaction(CALL)
        });
        let Err(error) = committed else { return Ok(()) };
        if !requires_abort(&error) {
            return Err(self.ended(&error));
        }
        self.abort(&error)?;
        let cause = errors::asking(subject(self.id), &error);
        Err(NotCommitted::Aborted {
            cause,
            refused: Vec::new(),
        })
    }

    fn abort_for(&self, failure: Failure) -> Result<Attempted, NotCommitted> {
        let unwritten = KafkaError::MessageProduction(Code::Fail);
        self.abort(&unwritten)?;
        let (class, message) = if failure.refused.is_empty() && !failure.ambiguous {
            (Class::Retry, "records were not acknowledged")
        } else {
            (Class::Never, "records were refused")
        };
        let cause = Error::new(class, subject(self.id), message);
        let ambiguous = failure.ambiguous;
        let aborted = NotCommitted::Aborted {
            cause,
            refused: failure.refused,
        };
        if ambiguous {
            Ok(Attempted::Ambiguous(aborted))
        } else {
            Err(aborted)
        }
    }

    /// Aborts for `cause`; an abort that does not succeed ends the producer.
    fn abort(&self, cause: &KafkaError) -> Result<(), NotCommitted> {
        if is_fatal(cause) {
            return Err(self.ended(cause));
        }
        until(self.pulse, Instant::now() + GIVE_UP, || {
            self.writer.raw().abort_transaction(CALL)
        })
        .map_err(|error| self.ended(&error))
    }

    /// The end of this producer.
    fn ended(&self, error: &KafkaError) -> NotCommitted {
        let fatal = self.writer.raw().client().fatal_error();
        let code = fatal.map_or_else(|| errors::code(error), |(code, _)| code);
        let fenced = errors::is_fenced(code);
        let class = if fenced {
            Class::Fenced
        } else {
            Class::Unknown
        };
        let cause = Error::new(class, subject(self.id), format!("{error} ({code})"));
        if fenced {
            NotCommitted::Fenced(cause)
        } else {
            NotCommitted::Unknown(cause)
        }
    }
}

/// A record that cannot be written fails well before the broker ends the transaction by itself:
/// aborted here, the producer goes on; ended there, it is fenced.
fn record_timeout(transaction: Duration) -> Duration {
    transaction * 3 / 5
}

/// Makes `call` until it succeeds, fails for good, or `end` has passed.
fn until(
    pulse: &Pulse,
    end: Instant,
    call: impl Fn() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        pulse.beat();
        let again = || Instant::now() < end && !pulse.is_given_up();
        match call() {
            Err(error) if is_retriable(&error) && again() => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    if let KafkaError::Transaction(inner) = error {
        return inner.is_retriable();
    }
    // A commit first flushes; it does so again.
    matches!(error, KafkaError::Flush(_))
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(inner) if inner.txn_requires_abort())
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(inner) if inner.is_fatal())
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::{MockCluster, MockCoordinator};

    use super::*;
    use crate::log::{GroupMetadata, TopicName};

    /// One group coordinator goes away and another takes its place. The call that sends the offsets
    /// does not return (rule 6 asks for a known outcome all the same).
    #[tokio::test]
    async fn a_transaction_that_is_stuck_is_given_up_and_its_place_is_taken() {
        let brokers = MockCluster::new(3).unwrap();
        brokers.create_topic("t", 1, 3).unwrap();
        let coordinates = |broker| {
            let group = MockCoordinator::Group("g".to_owned());
            brokers.coordinator(group, broker).unwrap();
        };
        let transactional = MockCoordinator::Transaction("tx".to_owned());
        brokers.coordinator(transactional, 2).unwrap();
        coordinates(1);
        let kafka = KafkaOptions::new(brokers.bootstrap_servers());
        let of_group = [("group.id", "g".to_owned())];
        let consumer: BaseConsumer = kafka.client("c", &of_group).create().unwrap();
        let group = GroupMetadata::new(consumer.group_metadata().unwrap());
        let transaction = |offset| Transaction {
            records: Vec::new(),
            positions: vec![Position {
                partition: TopicName::new("t").partition(0),
                offset,
                metadata: String::new(),
            }],
            group: Some(group.clone()),
        };
        let options = || TransactionOptions {
            id: "tx".to_owned(),
            timeout: Duration::from_secs(5),
        };
        let mut stuck = KafkaTransactions::open(&kafka, options()).await.unwrap();
        stuck.commit(transaction(1)).await.unwrap();
        brokers.broker_down(1).unwrap();
        let begun = Instant::now();
        let outcome = stuck.commit(transaction(2)).await;
        assert!(
            matches!(outcome, Err(NotCommitted::Unknown(_))),
            "{outcome:?}"
        );
        assert!(
            begun.elapsed() < GIVE_UP,
            "given up after {:?}",
            begun.elapsed()
        );
        // It is not waited for twice.
        let again = tokio::time::timeout(LATE, stuck.commit(transaction(2))).await;
        assert!(
            matches!(again, Ok(Err(NotCommitted::Unknown(_)))),
            "{again:?}"
        );
        coordinates(3);
        let mut next = KafkaTransactions::open(&kafka, options()).await.unwrap();
        next.commit(transaction(2)).await.unwrap();
    }

    #[test]
    fn a_refused_batch_of_several_names_nobody_and_of_one_its_record() {
        let large = Outcome::BatchRefused(NotWritten::TooLarge);
        let several = Failure::of(&[Outcome::Written(0), large], false).unwrap();
        assert!(several.ambiguous && several.refused.is_empty());
        let alone = Failure::of(&[large], false).unwrap();
        assert_eq!(alone.refused, [(0, NotWritten::TooLarge)]);
        let single = Failure::of(&[Outcome::Written(0), large], true).unwrap();
        assert_eq!(single.refused, [(1, NotWritten::TooLarge)]);
        assert!(!alone.ambiguous && !single.ambiguous);
        assert!(Failure::of(&[Outcome::Written(0), Outcome::Written(1)], false).is_none());
    }
}
