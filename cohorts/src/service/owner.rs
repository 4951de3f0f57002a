//! Owns which syncs run in this process: those whose partition of `results` it owns in the group.
//!
//! It must never let a revoked partition go before the tasks of its syncs have ended. The surprise:
//! a sync's partition has the number of its endpoint's placement, so that all syncs of one quota
//! are in one process, and what is counted there is counted for all of them (rule 5).

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Class, Error, Member, MemberOptions, Membership, Partition};
use runtime::task::{TaskKind, Tasks};
use runtime::view::{Follower, Update};
use schemas::ids::SyncId;
use schemas::records::{ControlKey, MemberCountKey};
use schemas::resources::Placement;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{info, warn};

use super::Options;
use crate::Roster;
use crate::sync::{Means, Requests, Runner, Wake, partitions};

/// How often requests that others took are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what crashes have left of writes is swept, and how old it is then at least.
const SWEEP_EVERY: Duration = Duration::from_hours(24);

/// Runs the syncs that this process owns.
#[derive(Debug)]
pub(crate) struct Owner {
    means: Means,
    requests: Requests,
    follower: Follower,
    nudge: Arc<Notify>,
    member: Arc<dyn Member>,
    membership: mpsc::UnboundedReceiver<Membership>,
    tasks: Tasks,
    partitions: u32,
    owned: BTreeSet<u32>,
    running: HashMap<SyncId, Running>,
}

/// A sync's task.
#[derive(Debug)]
struct Running {
    wakes: mpsc::UnboundedSender<Wake>,
    /// Ends with the task.
    ended: oneshot::Receiver<Infallible>,
}

impl Owner {
    /// Joins the group.
    pub(crate) async fn join(
        options: &Options,
        means: Means,
        (follower, nudge): (Follower, Arc<Notify>),
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let results = &means.topics.results;
        let joining = MemberOptions {
            group: options.group.clone(),
            topics: vec![results.clone()],
            instance: options.instance.clone(),
        };
        let count = partitions(&means.log, results).await?;
        let (member, membership) = means.log.member(joining).await?;
        Ok(Self {
            requests: Requests::new(&means.root),
            means,
            follower,
            nudge,
            member,
            membership,
            tasks,
            partitions: count.max(1),
            owned: BTreeSet::new(),
            running: HashMap::new(),
        })
    }

    /// Runs until the tasks are cancelled.
    ///
    /// # Errors
    /// When the membership is over, or `control` cannot be followed.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let stopped = self.tasks.token().clone();
        let mut looking = tokio::time::interval(LOOK_EVERY);
        looking.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweeping = tokio::time::interval(SWEEP_EVERY);
        let nudge = Arc::clone(&self.nudge);
        let over = loop {
            tokio::select! {
                () = stopped.cancelled() => break Ok(()),
                message = self.membership.recv() => {
                    if let Err(error) = self.member_told(message).await {
                        break Err(error);
                    }
                }
                update = self.follower.next() => match update {
                    Ok(update) => self.changed(update),
                    Err(error) => break Err(error),
                },
                _ = looking.tick() => self.look().await,
                _ = sweeping.tick() => self.sweep(),
                () = nudge.notified() => self.look().await,
            }
        };
        let all: Vec<SyncId> = self.running.keys().copied().collect();
        self.stop(all).await;
        self.member.close().await;
        over
    }

    async fn member_told(&mut self, message: Option<Membership>) -> Result<(), Error> {
        match message {
            Some(Membership::Assigned(partitions)) => {
                self.owned.extend(numbers(&partitions));
                self.start();
            }
            Some(Membership::Revoked(revocation)) => {
                self.give_up(revocation.partitions()).await;
                revocation.acknowledge();
            }
            Some(Membership::Lost(partitions)) => self.give_up(&partitions).await,
            Some(Membership::Fenced(error) | Membership::Failed(error)) => return Err(error),
            None => return Err(Error::new(Class::Never, "cohorts", "membership has ended")),
        }
        Ok(())
    }

    async fn give_up(&mut self, partitions: &[Partition]) {
        for number in numbers(partitions) {
            self.owned.remove(&number);
        }
        let gone: Vec<SyncId> = self
            .running
            .keys()
            .filter(|sync| !self.owns(**sync))
            .copied()
            .collect();
        self.stop(gone).await;
    }

    fn owns(&self, sync: SyncId) -> bool {
        let sync = self.means.directory.sync(sync);
        sync.is_some_and(|sync| {
            let partition = partition_of(sync.placement, self.partitions);
            self.owned.contains(&partition)
        })
    }

    /// Starts what is owned and does not run.
    fn start(&mut self) {
        for sync in self.means.directory.syncs() {
            if !self.owns(sync) || self.running.contains_key(&sync) {
                continue;
            }
            let (wakes, told) = mpsc::unbounded_channel();
            let (alive, ended) = oneshot::channel::<Infallible>();
            let runner = Runner::new(self.means.clone(), sync, told);
            self.tasks.spawn(TaskKind::SyncRun, async move {
                runner.run().await;
                drop(alive);
                Ok::<(), Infallible>(())
            });
            self.running.insert(sync, Running { wakes, ended });
        }
        self.show();
    }

    async fn stop(&mut self, syncs: Vec<SyncId>) {
        let stopping: Vec<Running> = syncs
            .iter()
            .filter_map(|sync| self.running.remove(sync))
            .collect();
        for running in &stopping {
            drop(running.wakes.send(Wake::Stop));
        }
        for running in stopping {
            // An error is what tells that it has ended.
            drop(running.ended.await);
        }
        self.show();
    }

    fn show(&self) {
        let owned = i64::try_from(self.running.len()).unwrap_or(i64::MAX);
        self.means.telemetry.owned.set(owned);
    }

    /// Takes over changes of `control`.
    fn changed(&mut self, update: Update) {
        self.means.telemetry.control_offset.set(update.applied);
        let is_changed = !update.changes.is_empty();
        for change in update
            .changes
            .iter()
            .filter(|change| change.object.is_none())
        {
            let teller = &self.means.teller;
            if let ControlKey::Cohort(id) = change.key {
                teller.tell(MemberCountKey::Cohort(id), None);
            }
            if let ControlKey::Sync(id) = change.key {
                teller.tell(MemberCountKey::Sync(id), None);
            }
        }
        self.means.directory.apply(update.changes, update.applied);
        if !is_changed {
            return;
        }
        for running in self.running.values() {
            drop(running.wakes.send(Wake::Changed));
        }
        let deleted: Vec<SyncId> = self
            .running
            .keys()
            .filter(|sync| self.means.directory.sync(**sync).is_none())
            .copied()
            .collect();
        for sync in deleted {
            if let Some(running) = self.running.remove(&sync) {
                self.bury(sync, running);
            }
        }
        self.start();
    }

    /// Removes what is stored of a deleted sync, once its task has ended.
    fn bury(&self, sync: SyncId, running: Running) {
        info!(%sync, "sync is deleted");
        let folder = crate::sync::folder(&self.means.root, sync);
        self.tasks.spawn(TaskKind::SyncRun, async move {
            drop(running.wakes.send(Wake::Stop));
            drop(running.ended.await);
            let removed = tokio::task::spawn_blocking(move || Roster::delete(&folder)).await;
            if !matches!(removed, Ok(Ok(()))) {
                warn!(%sync, ?removed, "what was stored of a sync is left behind");
            }
            Ok::<(), Infallible>(())
        });
    }

    /// Sweeps the store, beside all else.
    fn sweep(&self) {
        let (root, now) = (self.means.root.clone(), self.means.clock.now());
        let before = now.saturating_sub(runtime::clock::millis(SWEEP_EVERY));
        let before = jiff::Timestamp::from_millisecond(before).unwrap_or_default();
        // It ends by itself, whatever becomes of the owner.
        drop(tokio::task::spawn_blocking(move || {
            match root.sweep_staged(before) {
                Ok(0) => {}
                Ok(files) => info!(files, "what writes had left unfinished is removed"),
                Err(error) => warn!(error = %runtime::task::chain(&error), "store cannot be swept"),
            }
        }));
    }

    /// Hands requests over to the syncs that they are for.
    async fn look(&mut self) {
        let requests = self.requests.clone();
        let looked = tokio::task::spawn_blocking(move || requests.all()).await;
        let all = match looked {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => return warn!(%error, "requests to syncs cannot be read now"),
            Err(error) => return warn!(%error, "requests to syncs were not read"),
        };
        for request in all {
            if let Some(running) = self.running.get(&request.sync) {
                drop(running.wakes.send(Wake::Request(request)));
            }
        }
    }
}

/// The partition of `results` whose owner runs the syncs of a placement.
fn partition_of(placement: Placement, partitions: u32) -> u32 {
    placement.partition() % partitions.max(1)
}

fn numbers(partitions: &[Partition]) -> impl Iterator<Item = u32> + '_ {
    partitions.iter().map(|partition| partition.number)
}
