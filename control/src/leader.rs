//! Owns the question which process writes: the member of the one-partition leader group that was
//! assigned `control`.
//!
//! It must never read records or commit. The surprise: a predecessor that died is still the owner
//! until its session ends, so a newcomer waits a little longer than that before it says that the
//! place is taken; and a log that is away says nothing, so time counts only while it answers.

use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Class, Error, Member, MemberOptions, Membership, Partition, SharedLog};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

/// Beyond the session of a dead predecessor: detection and a rebalance.
const GRACE: Duration = Duration::from_secs(5);

/// Why this process is not the leader.
#[derive(Debug, thiserror::Error)]
pub enum NotLeader {
    /// Somebody else is, and lives.
    #[error("another control replica is running: it owns `{partition}` in group `{group}`")]
    Taken {
        /// The group.
        group: String,
        /// What it owns.
        partition: Partition,
    },
    /// This process was, until now.
    #[error("leadership of `{partition}` was lost")]
    Lost {
        /// What it owned.
        partition: Partition,
    },
    /// The membership ended.
    #[error(transparent)]
    Log(#[from] Error),
}

/// The membership of the leader.
#[derive(Debug)]
pub(crate) struct Leader {
    log: SharedLog,
    group: String,
    member: Arc<dyn Member>,
    events: mpsc::UnboundedReceiver<Membership>,
    partition: Partition,
    /// Whether it is the leader, as far as the group has told.
    is_held: bool,
}

impl Leader {
    /// Joins the group and waits until this process is the leader, or it is clear that another is.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn take(
        log: &SharedLog,
        group: &str,
        partition: Partition,
        instance: &str,
    ) -> Result<Self, NotLeader> {
        let options = MemberOptions {
            group: group.to_owned(),
            topics: vec![partition.topic.clone()],
            instance: instance.to_owned(),
        };
        let (member, events) = log.member(options).await?;
        let mut leader = Self {
            log: log.clone(),
            group: group.to_owned(),
            member,
            events,
            partition,
            is_held: false,
        };
        match leader.settle().await {
            Ok(()) => Ok(leader),
            Err(refused) => {
                leader.member.close().await;
                Err(refused)
            }
        }
    }

    /// Waits until this process is the leader again after it was not, or after its writer was
    /// fenced; or until it is clear that another is. Cancel-safe.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn again(&mut self) -> Result<(), NotLeader> {
        if self.is_held {
            // Who fenced the writer has the place by then: the group says so within a session.
            match timeout(self.session_timeout(), self.lost()).await {
                Ok(NotLeader::Lost { .. }) => {}
                Ok(refused @ (NotLeader::Taken { .. } | NotLeader::Log(_))) => return Err(refused),
                Err(_) => return Ok(()),
            }
        }
        self.settle().await
    }

    async fn settle(&mut self) -> Result<(), NotLeader> {
        let patience = self.session_timeout() + GRACE;
        let mut answers = self.log_answers().await;
        loop {
            if let Ok(assigned) = timeout(patience, self.assigned()).await {
                return assigned;
            }
            let answered = std::mem::replace(&mut answers, self.log_answers().await);
            if answered && answers {
                return Err(NotLeader::Taken {
                    group: self.group.clone(),
                    partition: self.partition.clone(),
                });
            }
            warn!(group = self.group, "log is away: nobody can lead");
        }
    }

    /// Whether the log answers for the group.
    async fn log_answers(&self) -> bool {
        let own = std::slice::from_ref(&self.partition);
        match timeout(GRACE, self.log.committed(&self.group, own)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => !matches!(error.class(), Class::Retry | Class::Unknown),
            Err(_) => false,
        }
    }

    async fn assigned(&mut self) -> Result<(), NotLeader> {
        loop {
            match self.events.recv().await {
                Some(Membership::Assigned(partitions)) if partitions.contains(&self.partition) => {
                    self.is_held = true;
                    return Ok(());
                }
                Some(Membership::Assigned(_) | Membership::Revoked(_) | Membership::Lost(_)) => {}
                Some(Membership::Fenced(error) | Membership::Failed(error)) => {
                    return Err(NotLeader::Log(error));
                }
                None => return Err(self.over()),
            }
        }
    }

    /// Waits until this process is not the leader any more, and says why. Cancel-safe.
    pub(crate) async fn lost(&mut self) -> NotLeader {
        loop {
            let lost = match self.events.recv().await {
                Some(Membership::Assigned(_)) => continue,
                Some(Membership::Revoked(revocation)) => {
                    // Dropping it acknowledges: the successor fences our transactions anyway.
                    revocation.partitions().contains(&self.partition)
                }
                Some(Membership::Lost(partitions)) => partitions.contains(&self.partition),
                Some(Membership::Fenced(error) | Membership::Failed(error)) => {
                    return NotLeader::Log(error);
                }
                None => true,
            };
            if lost {
                self.is_held = false;
                return self.over();
            }
        }
    }

    fn over(&self) -> NotLeader {
        NotLeader::Lost {
            partition: self.partition.clone(),
        }
    }

    /// After this long without a sign of life another replica may be the leader.
    pub(crate) fn session_timeout(&self) -> Duration {
        self.member.session_timeout()
    }

    /// Leaves the group, so that the next replica need not wait.
    pub(crate) async fn close(&self) {
        self.member.close().await;
    }
}
