//! Owns the question which process writes: the member of the one-partition leader group that was
//! assigned `control`.
//!
//! It must never read or commit. The surprise: a predecessor that died is still the owner until
//! its session ends, so a newcomer waits a little longer than that before it says that the place
//! is taken.

use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Error, Member, MemberOptions, Membership, Partition, SharedLog};
use tokio::sync::mpsc;

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
    member: Arc<dyn Member>,
    events: mpsc::UnboundedReceiver<Membership>,
    partition: Partition,
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
        let patience = member.session_timeout() + GRACE;
        let mut leader = Self {
            member,
            events,
            partition,
        };
        let taken = tokio::time::timeout(patience, leader.assigned()).await;
        let refused = match taken {
            Ok(Ok(())) => return Ok(leader),
            Ok(Err(error)) => error,
            Err(_) => NotLeader::Taken {
                group: group.to_owned(),
                partition: leader.partition.clone(),
            },
        };
        leader.member.close().await;
        Err(refused)
    }

    async fn assigned(&mut self) -> Result<(), NotLeader> {
        loop {
            match self.events.recv().await {
                Some(Membership::Assigned(partitions)) if partitions.contains(&self.partition) => {
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
