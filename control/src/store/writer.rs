//! Owns the writing of the `control` topic: one transaction a request, read back before the answer.
//!
//! It must never answer ahead of the log. The surprise: an outcome that the log does not tell is
//! found out by opening the transactional producer again, which ends what the old one left open,
//! and reading the topic to its end; where that takes too long, the client is told that nobody
//! knows.

use std::future::Future;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use runtime::clock::Clock;
use runtime::log::{
    Class, Error, Headers, NotCommitted, Record, SharedLog, TopicName, Transaction,
    TransactionOptions, Transactions,
};
use runtime::problem::{Problem, ProblemType};
use runtime::view::{Change, Follower, Update};
use schemas::records::{ControlKey, ControlObject, Installation};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Job, Prepared, State, Store, unavailable, unknown};
use crate::metrics::ControlMetrics;

/// After this the log aborts what a dead writer left open: it holds back every reader of `control`.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits while its outcome is found out.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);
/// Between attempts to open the log again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// What a writer is made with.
#[derive(Debug, Clone)]
pub(crate) struct WriterOptions {
    /// The log.
    pub(crate) log: SharedLog,
    /// The topic.
    pub(crate) control: TopicName,
    /// The one transactional id of all control replicas.
    pub(crate) transactional_id: String,
    /// What is recorded at the first start.
    pub(crate) partitions: NonZeroU32,
    /// Measures writes.
    pub(crate) clock: Clock,
    /// Where they are counted.
    pub(crate) metrics: ControlMetrics,
}

/// Why a writer ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another process writes now.
    #[error("writer was replaced: {0}")]
    Fenced(NotCommitted),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] Error),
    /// The first record could not be written.
    #[error("installation cannot be recorded: {0}")]
    Installation(String),
}

/// The single writer of `control`.
#[derive(Debug)]
pub(crate) struct Writer {
    options: WriterOptions,
    store: Store,
    jobs: mpsc::Receiver<Job>,
    transactions: Box<dyn Transactions>,
    follower: Follower,
}

/// How a transaction ended.
enum Outcome {
    /// It is in the log and applied.
    Written(i64),
    /// Nothing of it is in the log.
    NotWritten(Problem),
    /// Nobody knows yet.
    Unknown,
}

impl Writer {
    /// Fences the writer before, reads `control` to its end, and records the installation where
    /// nothing is recorded.
    ///
    /// # Errors
    /// When the log cannot be used.
    pub(crate) async fn open(options: WriterOptions) -> Result<(Store, Self), Ended> {
        let (store, jobs) = Store::new();
        // Whoever runs this drops it when it is to stop.
        let never = CancellationToken::new();
        let Some((transactions, follower, state)) = reopen(&options, &never).await? else {
            return Err(Ended::Installation("start was given up".to_owned()));
        };
        store.change(|empty| *empty = state);
        let mut writer = Self {
            options,
            store: store.clone(),
            jobs,
            transactions,
            follower,
        };
        writer.record_installation().await?;
        writer.count();
        Ok((store, writer))
    }

    async fn record_installation(&mut self) -> Result<(), Ended> {
        let configured = self.options.partitions;
        if let Some(recorded) = self.store.read(State::partitions) {
            if recorded != configured {
                info!(%recorded, %configured, "placements use the recorded partition count");
            }
            return Ok(());
        }
        let installation = Installation {
            partitions: configured.get(),
        };
        let change = Change {
            key: ControlKey::Installation,
            object: Some(ControlObject::Installation(installation)),
        };
        match self.commit(std::slice::from_ref(&change)).await? {
            Outcome::Written(_) => return Ok(()),
            Outcome::NotWritten(_) => {}
            Outcome::Unknown => {
                let never = CancellationToken::new();
                self.find_out(std::slice::from_ref(&change), Box::new(drop), &never)
                    .await?;
            }
        }
        match self.store.read(State::partitions) {
            Some(_) => Ok(()),
            None => Err(Ended::Installation("transaction aborted".to_owned())),
        }
    }

    /// Writes what is asked for until `stop` is cancelled.
    ///
    /// # Errors
    /// When this process must not write any more.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), Ended> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                job = self.jobs.recv() => match job {
                    Some(job) => self.job(job, stop).await?,
                    None => return Ok(()),
                },
                update = self.follower.next() => self.apply(update?),
            }
        }
    }

    async fn job(&mut self, job: Job, stop: &CancellationToken) -> Result<(), Ended> {
        let Some(Prepared { changes, settle }) = self.store.read(job) else {
            return Ok(());
        };
        if changes.is_empty() {
            settle(Ok(self.store.read(State::applied)));
            return Ok(());
        }
        let started = self.options.clock.instant();
        let outcome = self.commit(&changes).await.inspect_err(|error| {
            warn!(%error, "control cannot write any more");
        })?;
        match outcome {
            Outcome::Written(offset) => settle(Ok(offset)),
            Outcome::NotWritten(problem) => settle(Err(problem)),
            Outcome::Unknown => self.find_out(&changes, settle, stop).await?,
        }
        self.options
            .metrics
            .write_seconds
            .observe(started.elapsed().as_secs_f64());
        self.count();
        Ok(())
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<Outcome, Ended> {
        let transaction = Transaction {
            records: changes.iter().map(|change| self.record(change)).collect(),
            positions: Vec::new(),
            group: None,
        };
        match self.transactions.commit(transaction).await {
            Ok(()) => Ok(self.read_back(changes.len()).await),
            Err(NotCommitted::Aborted { cause, refused }) => {
                warn!(%cause, refused = refused.len(), "control transaction aborted");
                let problem = if refused.is_empty() {
                    unavailable("the change was not made")
                } else {
                    Problem::new(ProblemType::TooLarge).detail("the log does not take the object")
                };
                Ok(Outcome::NotWritten(problem))
            }
            Err(NotCommitted::NotMember(error)) => {
                warn!(%error, "control transaction aborted");
                Ok(Outcome::NotWritten(unavailable("the change was not made")))
            }
            Err(NotCommitted::Unknown(error)) => {
                warn!(%error, "outcome of a control transaction is unknown");
                Ok(Outcome::Unknown)
            }
            Err(fenced @ NotCommitted::Fenced(_)) => Err(Ended::Fenced(fenced)),
        }
    }

    fn record(&self, change: &Change) -> Record {
        Record {
            topic: self.options.control.clone(),
            partition: Some(0),
            key: Some(Bytes::from(change.key.to_string())),
            value: change
                .object
                .as_ref()
                .map(|object| Bytes::from(object.encode())),
            headers: Headers::default(),
        }
    }

    /// Applies the `count` changes just committed: nobody else writes, so they come next.
    async fn read_back(&mut self, count: usize) -> Outcome {
        let read = async {
            let mut seen = 0;
            while seen < count {
                let update = self.follower.next().await?;
                seen += update.changes.len();
                self.apply(update);
            }
            Ok::<_, Error>(self.store.read(State::applied))
        };
        match tokio::time::timeout(OUTCOME_WAIT, read).await {
            Ok(Ok(offset)) => Outcome::Written(offset),
            Ok(Err(error)) => {
                warn!(%error, "control topic cannot be read back");
                Outcome::Unknown
            }
            Err(_) => {
                warn!("control topic was not read back in time");
                Outcome::Unknown
            }
        }
    }

    fn apply(&mut self, update: Update) {
        self.store.change(|state| state.apply(update));
    }

    /// Opens everything anew and looks whether the changes are there.
    async fn find_out(
        &mut self,
        changes: &[Change],
        settle: Box<dyn FnOnce(Result<i64, Problem>) + Send>,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let options = self.options.clone();
        let mut reopened = std::pin::pin!(reopen(&options, stop));
        let in_time = tokio::time::timeout(OUTCOME_WAIT, reopened.as_mut()).await;
        let (settle, reopened) = match in_time {
            Ok(reopened) => (Some(settle), reopened?),
            Err(_) => {
                settle(Err(unknown()));
                (None, reopened.await?)
            }
        };
        let Some((transactions, follower, state)) = reopened else {
            // Stopping: the client is told by the dropped reply.
            return Ok(());
        };
        let written = changes.iter().all(|change| state.holds(change));
        self.transactions = transactions;
        self.follower = follower;
        let applied = state.applied();
        self.store.change(|old| *old = state);
        info!(written, "control found out what became of a change");
        if let Some(settle) = settle {
            settle(if written {
                Ok(applied)
            } else {
                Err(unavailable("the change was not made"))
            });
        }
        Ok(())
    }

    fn count(&self) {
        self.store.read(|state| self.options.metrics.count(state));
    }
}

type Opened = (Box<dyn Transactions>, Follower, State);

/// Fences earlier writers, then reads everything: in this order, so that nothing is missed.
async fn read_all(options: &WriterOptions) -> Result<Opened, Error> {
    let id = options.transactional_id.clone();
    let opening = TransactionOptions {
        id,
        timeout: TRANSACTION_TIMEOUT,
    };
    let transactions = options.log.transactions(opening).await?;
    let mut follower = Follower::start(&options.log, &options.control, "control-writer").await?;
    let mut state = State::default();
    follower.catch_up(|update| state.apply(update)).await?;
    Ok((transactions, follower, state))
}

/// [`read_all`] until it succeeds, can never succeed, or `stop` is cancelled (`None`).
fn reopen(
    options: &WriterOptions,
    stop: &CancellationToken,
) -> impl Future<Output = Result<Option<Opened>, Error>> {
    let again = async {
        loop {
            match read_all(options).await {
                Ok(opened) => return Ok(opened),
                Err(error) if matches!(error.class(), Class::Retry | Class::Unknown) => {
                    warn!(%error, "control waits for the log");
                    tokio::time::sleep(REOPEN_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    async {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(None),
            opened = again => opened.map(Some),
        }
    }
}
