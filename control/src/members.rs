//! Owns how many members cohorts and partners' lists have, as the cohorts service puts it on
//! `progress`.
//!
//! It must never be taken for the members themselves. The surprise: nothing is known of a cohort
//! before its first upload, nor of any in the moment after a start.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use runtime::log::{Error, SharedLog, StoredRecord, TopicName};
use schemas::ids::{CohortId, SyncId};
use schemas::records::{MemberCount, MemberCountKey};
use tokio::time::sleep;
use tracing::warn;

use crate::progress::{Progress, Since};

/// The wait before `progress` is read again after it could not be.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// How many members there are. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members(Arc<RwLock<HashMap<MemberCountKey, u64>>>);

/// Reads what the cohorts service says; its `run` is a task.
#[derive(Debug)]
pub(crate) struct MemberFollower {
    log: SharedLog,
    progress: TopicName,
    members: Members,
}

impl Members {
    /// The counts, and the task that keeps them up to date.
    pub(crate) fn new(log: SharedLog, progress: TopicName) -> (Self, MemberFollower) {
        let members = Self::default();
        let follower = MemberFollower {
            log,
            progress,
            members: members.clone(),
        };
        (members, follower)
    }

    /// How many a cohort has; `None` where nobody has said.
    pub(crate) fn of_cohort(&self, id: CohortId) -> Option<u64> {
        self.get(MemberCountKey::Cohort(id))
    }

    /// How many a sync's partner holds or may hold: none before its first run has ended.
    pub(crate) fn at_partner(&self, id: SyncId) -> u64 {
        self.get(MemberCountKey::Sync(id)).unwrap_or(0)
    }

    fn get(&self, key: MemberCountKey) -> Option<u64> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&key).copied()
    }

    fn take(&self, record: &StoredRecord) {
        let key = record.key.as_deref();
        let key = key.filter(|key| MemberCountKey::is_one(key));
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let Some(Ok(key)) = key.map(str::parse) else {
            return;
        };
        let count = record.value.as_deref().map(MemberCount::decode);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match count.transpose() {
            Ok(Some(count)) => drop(all.insert(key, count.members)),
            Ok(None) => drop(all.remove(&key)),
            Err(error) => warn!(%error, "count of members left out"),
        }
    }
}

impl MemberFollower {
    /// Follows `progress`; what cannot be read now is read later.
    ///
    /// # Errors
    /// Never: it ends with its task.
    pub(crate) async fn run(self) -> Result<(), Error> {
        loop {
            let Err(error) = self.follow().await;
            warn!(%error, "counts of members cannot be followed now");
            sleep(RETRY_WAIT).await;
        }
    }

    async fn follow(&self) -> Result<Infallible, Error> {
        let from = ("control-members", Since::Start);
        let mut progress = Progress::follow(&self.log, &self.progress, from).await?;
        loop {
            for record in progress.next().await? {
                self.members.take(&record);
            }
        }
    }
}
