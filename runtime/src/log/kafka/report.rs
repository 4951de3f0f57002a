//! Owns the reports of one batch of records handed to librdkafka: one shared state, one answer
//! when the last report is in.
//!
//! It must never answer early or twice. The surprise: there is no channel and no lock per record;
//! a report is one store, and the last one answers.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::errors;
use crate::log::NotWritten;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the log, here.
    Written(i64),
    /// It can never be written.
    Refused(NotWritten),
    /// The broker refused the batch it was in, for size or form; which record of it is to blame is
    /// not said.
    BatchRefused(NotWritten),
    /// Nobody knows.
    Unknown,
}

// Offsets as librdkafka reports them are above -2,000; these are not.
const TOO_LARGE: i64 = i64::MIN;
const INVALID: i64 = i64::MIN + 1;
const BATCH_TOO_LARGE: i64 = i64::MIN + 2;
const BATCH_INVALID: i64 = i64::MIN + 3;
const UNKNOWN: i64 = i64::MIN + 4;

impl Outcome {
    /// What the failed report `error` says of a record.
    pub(super) fn of_report(error: &KafkaError) -> Self {
        let code = errors::code(error);
        if errors::refuses_size(code) {
            Self::BatchRefused(NotWritten::TooLarge)
        } else if errors::refuses_form(code) {
            Self::BatchRefused(NotWritten::Invalid)
        } else if code == Code::UnknownPartition {
            Self::Refused(NotWritten::Invalid)
        } else {
            Self::Unknown
        }
    }

    /// What it says that librdkafka did not take a record at all.
    pub(super) fn of_refusal(error: &KafkaError) -> Self {
        if matches!(error, KafkaError::Nul(_)) {
            return Self::Refused(NotWritten::Invalid);
        }
        match Self::of_report(error) {
            // Refused alone: there is no batch yet.
            Self::BatchRefused(reason) => Self::Refused(reason),
            outcome @ (Self::Written(_) | Self::Refused(_) | Self::Unknown) => outcome,
        }
    }

    /// As the trait's callers see it. A refusal of a batch names its record where every batch has
    /// only one.
    pub(super) fn into_result(self, one_a_batch: bool) -> Result<i64, NotWritten> {
        match self {
            Self::Written(offset) => Ok(offset),
            Self::Refused(reason) => Err(reason),
            Self::BatchRefused(reason) if one_a_batch => Err(reason),
            Self::BatchRefused(_) | Self::Unknown => Err(NotWritten::Unknown),
        }
    }

    fn encode(self) -> i64 {
        match self {
            Self::Written(offset) => offset.max(i64::MIN + 5),
            Self::Refused(NotWritten::TooLarge) => TOO_LARGE,
            Self::Refused(NotWritten::Invalid) => INVALID,
            Self::BatchRefused(NotWritten::TooLarge) => BATCH_TOO_LARGE,
            Self::BatchRefused(NotWritten::Invalid) => BATCH_INVALID,
            Self::Refused(NotWritten::TimedOut | NotWritten::Unknown)
            | Self::BatchRefused(NotWritten::TimedOut | NotWritten::Unknown)
            | Self::Unknown => UNKNOWN,
        }
    }

    fn decode(stored: i64) -> Self {
        match stored {
            TOO_LARGE => Self::Refused(NotWritten::TooLarge),
            INVALID => Self::Refused(NotWritten::Invalid),
            BATCH_TOO_LARGE => Self::BatchRefused(NotWritten::TooLarge),
            BATCH_INVALID => Self::BatchRefused(NotWritten::Invalid),
            UNKNOWN => Self::Unknown,
            offset => Self::Written(offset),
        }
    }
}

/// Takes the outcomes of a whole batch.
pub(super) type Answer = Box<dyn FnOnce(Vec<Outcome>) + Send>;

/// The state of one batch.
pub(super) struct Reports {
    outcomes: Box<[AtomicI64]>,
    // One more than the records, until all are handed over.
    missing: AtomicUsize,
    end: Mutex<Option<(Answer, Option<OwnedSemaphorePermit>)>>,
}

impl Reports {
    /// The state for `len` records; `room` is given back with the answer.
    pub(super) fn new(len: usize, answer: Answer, room: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            outcomes: (0..len).map(|_| AtomicI64::new(UNKNOWN)).collect(),
            missing: AtomicUsize::new(len + 1),
            end: Mutex::new(Some((answer, room))),
        })
    }

    /// What became of record `index`.
    pub(super) fn set(&self, index: usize, outcome: Outcome) {
        if let Some(place) = self.outcomes.get(index) {
            place.store(outcome.encode(), Ordering::Relaxed);
        }
        self.one_less();
    }

    /// Every record has been handed over or refused.
    pub(super) fn handed_over(&self) {
        self.one_less();
    }

    fn one_less(&self) {
        // AcqRel: whoever answers sees every outcome.
        if self.missing.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let end = self
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((answer, room)) = end {
            // Room first: who waits for the answer may send again at once.
            drop(room);
            let outcomes = self.outcomes.iter();
            answer(
                outcomes
                    .map(|place| Outcome::decode(place.load(Ordering::Relaxed)))
                    .collect(),
            );
        }
    }
}

/// An answer that resolves `sender`.
pub(super) fn answer_as_results(
    sender: oneshot::Sender<Vec<Result<i64, NotWritten>>>,
    one_a_batch: bool,
) -> Answer {
    Box::new(move |outcomes| {
        let results = outcomes
            .into_iter()
            .map(|outcome| outcome.into_result(one_a_batch));
        // Nobody waits for the reports: then nobody misses them.
        drop(sender.send(results.collect()));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_with_the_last_report_and_not_before() {
        let (sender, mut receiver) = oneshot::channel();
        let reports = Reports::new(2, answer_as_results(sender, false), None);
        reports.set(1, Outcome::Written(7));
        reports.handed_over();
        assert!(receiver.try_recv().is_err());
        reports.set(0, Outcome::Refused(NotWritten::TooLarge));
        assert_eq!(
            receiver.try_recv().unwrap(),
            [Err(NotWritten::TooLarge), Ok(7)]
        );
    }

    #[test]
    fn an_empty_batch_is_answered_when_it_is_handed_over() {
        let (sender, mut receiver) = oneshot::channel();
        Reports::new(0, answer_as_results(sender, false), None).handed_over();
        assert_eq!(receiver.try_recv().unwrap(), []);
    }

    #[test]
    fn a_broker_refusal_is_permanent_only_for_a_record_alone_in_its_batch() {
        fn check(code: Code, alone: Result<i64, NotWritten>, among: Result<i64, NotWritten>) {
            let outcome = Outcome::of_report(&KafkaError::MessageProduction(code));
            assert_eq!(Outcome::decode(outcome.encode()), outcome);
            assert_eq!(outcome.into_result(true), alone, "{code:?}");
            assert_eq!(outcome.into_result(false), among, "{code:?}");
        }
        let unknown = Err(NotWritten::Unknown);
        check(
            Code::MessageSizeTooLarge,
            Err(NotWritten::TooLarge),
            unknown,
        );
        check(Code::InvalidRecord, Err(NotWritten::Invalid), unknown);
        check(
            Code::UnknownPartition,
            Err(NotWritten::Invalid),
            Err(NotWritten::Invalid),
        );
        check(Code::PurgeInflight, unknown, unknown);
        check(Code::MessageTimedOut, unknown, unknown);
        check(Code::GaplessGuarantee, unknown, unknown);
    }
}
