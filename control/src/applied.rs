//! Owns how far the other services have applied `control`, as they say on `progress`.
//!
//! It must never hold a change back: it only tells who is missing. The surprise: a replica that has
//! not reported for a session is left out, because without its lease it makes no attempts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use runtime::clock::{Clock, millis};
use runtime::log::{Class, Error, SharedLog, StoredRecord, TopicName};
use schemas::records::Applied;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::progress::{Progress, Since};

/// The longest that `?wait=applied` waits.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The wait before `progress` is read again after it could not be.
const RETRY_WAIT: Duration = Duration::from_secs(1);
const KEY_PREFIX: &[u8] = b"applied/";

type Reports = BTreeMap<String, Applied>;

/// What replicas have reported. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Replicas {
    reports: watch::Receiver<Reports>,
    session: Duration,
    clock: Clock,
}

/// Reads the reports; its `run` is a task.
#[derive(Debug)]
pub(crate) struct Reporter {
    log: SharedLog,
    progress: TopicName,
    session: Duration,
    clock: Clock,
    reports: watch::Sender<Reports>,
}

impl Replicas {
    /// The replicas, and the task that keeps them up to date.
    pub(crate) fn new(
        log: SharedLog,
        progress: TopicName,
        session: Duration,
        clock: Clock,
    ) -> (Self, Reporter) {
        let (sender, receiver) = watch::channel(Reports::new());
        let replicas = Self {
            reports: receiver,
            session,
            clock: clock.clone(),
        };
        (
            replicas,
            Reporter {
                log,
                progress,
                session,
                clock,
                reports: sender,
            },
        )
    }

    /// Waits until every replica that reported within a session has applied `offset`, at most ten
    /// seconds; returns the names of those that have not. One that falls silent meanwhile is left
    /// out from the moment at which it has been for a session.
    pub(crate) async fn missing(&self, offset: i64) -> Vec<String> {
        let mut reports = self.reports.clone();
        let all = reports.wait_for(|reports| self.late(reports, offset).is_empty());
        match tokio::time::timeout(WAIT_MAX, all).await {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(_)) | Err(_) => self.late(&self.reports.borrow(), offset),
        }
    }

    fn late(&self, reports: &Reports, offset: i64) -> Vec<String> {
        let since = self.clock.now().saturating_sub(millis(self.session));
        reports
            .values()
            .filter(|report| report.at >= since && report.control_offset < offset)
            .map(|report| format!("{}/{}", report.service, report.instance))
            .collect()
    }
}

impl Reporter {
    /// Follows `progress` from a session ago on, and begins again where that breaks off.
    ///
    /// # Errors
    /// When the topic can never be read.
    pub(crate) async fn run(self) -> Result<(), Error> {
        loop {
            let Err(error) = self.follow().await;
            if !matches!(error.class(), Class::Retry | Class::Unknown) {
                return Err(error);
            }
            warn!(%error, "what others have applied cannot be read now");
            sleep(RETRY_WAIT).await;
        }
    }

    async fn follow(&self) -> Result<Infallible, Error> {
        let since = Since::Last(self.session, self.clock.clone());
        let from = ("control-progress", since);
        let mut progress = Progress::follow(&self.log, &self.progress, from).await?;
        loop {
            self.take(&progress.next().await?);
        }
    }

    fn take(&self, records: &[StoredRecord]) {
        let ours = |record: &&StoredRecord| {
            record
                .key
                .as_ref()
                .is_some_and(|key| key.starts_with(KEY_PREFIX))
        };
        let read = records.iter().filter(ours).filter_map(|record| {
            let value = record.value.as_deref()?;
            // A version that is not known here is not waited for.
            serde_json::from_slice::<Applied>(value)
                .ok()
                .filter(|applied| applied.version == 1)
        });
        let read: Vec<Applied> = read.collect();
        if read.is_empty() {
            return;
        }
        let old = self.clock.now().saturating_sub(millis(self.session));
        self.reports.send_modify(|reports| {
            // Names come and go with processes: what is too old to count is forgotten.
            reports.retain(|_, report| report.at >= old);
            reports.extend(read.into_iter().map(|report| (report.key(), report)));
        });
    }
}
