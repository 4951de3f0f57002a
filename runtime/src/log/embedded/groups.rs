//! Owns the groups: who is a member, who owns which partition, and the hand-over between two
//! members, on one thread with everything said to it in messages.
//!
//! It must never give a partition to a member before the one that had it has acknowledged, or left
//! (rule 5). The surprise: there is no session timeout to wait for. A member lives in this process,
//! so one that dies drops its handle, and that is leaving.

mod balance;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::writer::Command;
use crate::log::{
    Class, Error, MemberOptions, Membership, Partition, Position, Revocation, TopicName,
};

/// A member, for as long as the log is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(u64);

/// In whose name positions are committed, and whether it still may.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    group: Arc<str>,
    stands: Arc<AtomicBool>,
}

impl Standing {
    fn new(group: &str) -> Self {
        Self {
            group: group.into(),
            stands: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The group.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// Whether the membership is not over.
    pub(super) fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }

    /// The membership is over: nothing is committed under it from now on.
    pub(super) fn end(&self) {
        self.stands.store(false, Ordering::Release);
    }
}

/// What the coordinator is asked, in order.
#[derive(Debug)]
pub(super) enum Ask {
    /// Join a group.
    Join {
        options: MemberOptions,
        events: mpsc::UnboundedSender<Membership>,
        reply: oneshot::Sender<(MemberId, Standing)>,
    },
    /// Leave it. The reply is dropped when it is done.
    Leave {
        standing: Standing,
        member: MemberId,
        done: Option<oneshot::Sender<()>>,
    },
    /// Share the partitions of other topics.
    Subscribe {
        standing: Standing,
        member: MemberId,
        topics: Vec<TopicName>,
    },
    /// There are partitions that were not there before.
    TopicsChanged,
    /// The store failed.
    Failed(Error),
    /// Commit for a group that has no members.
    CommitVacant {
        group: String,
        positions: Vec<Position>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

struct Joined {
    instance: String,
    topics: Vec<TopicName>,
    standing: Standing,
    events: mpsc::UnboundedSender<Membership>,
}

struct Owned {
    member: MemberId,
    /// Asked back, not yet acknowledged.
    leaving: bool,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<MemberId, Joined>,
    owners: BTreeMap<Partition, Owned>,
}

/// A revocation that is over.
struct Acknowledged {
    group: Arc<str>,
    member: MemberId,
    partitions: Vec<Partition>,
}

/// The coordinator's own state.
pub(super) struct Coordinator {
    shared: Arc<Shared>,
    asks: mpsc::UnboundedReceiver<Ask>,
    writer: Sender<Command>,
    groups: HashMap<Arc<str>, Group>,
    revoking: FuturesUnordered<BoxFuture<'static, Acknowledged>>,
    last_member: u64,
}

impl Coordinator {
    /// A coordinator without groups.
    pub(super) fn new(
        shared: Arc<Shared>,
        asks: mpsc::UnboundedReceiver<Ask>,
        writer: Sender<Command>,
    ) -> Self {
        Self {
            shared,
            asks,
            writer,
            groups: HashMap::new(),
            revoking: FuturesUnordered::new(),
            last_member: 0,
        }
    }

    /// Works until every handle to the log is gone.
    pub(super) async fn run(mut self) {
        loop {
            // cancel-safe: both branches are receives.
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                Some(acknowledged) = self.revoking.next() => self.acknowledged(&acknowledged),
            }
        }
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Join {
                options,
                events,
                reply,
            } => {
                let joined = self.join(options, events);
                // A caller that went away has dropped the handle, which leaves.
                drop(reply.send(joined));
            }
            Ask::Leave {
                standing,
                member,
                done,
            } => {
                standing.end();
                self.leave(&standing, member);
                drop(done);
            }
            Ask::Subscribe {
                standing,
                member,
                topics,
            } => self.subscribe(&standing, member, topics),
            Ask::TopicsChanged => {
                for name in self.groups.keys().cloned().collect::<Vec<_>>() {
                    self.rebalance(&name);
                }
            }
            Ask::Failed(error) => self.fail(&error),
            Ask::CommitVacant {
                group,
                positions,
                reply,
            } => {
                self.commit_vacant(&group, positions, reply);
            }
        }
    }

    fn join(
        &mut self,
        options: MemberOptions,
        events: mpsc::UnboundedSender<Membership>,
    ) -> (MemberId, Standing) {
        self.last_member += 1;
        let member = MemberId(self.last_member);
        let standing = Standing::new(&options.group);
        let group = self.groups.entry(Arc::clone(&standing.group)).or_default();
        let namesake = group
            .members
            .iter()
            .find(|(_, other)| other.instance == options.instance);
        if let Some(id) = namesake.map(|(id, _)| *id) {
            if let Some(other) = group.members.remove(&id) {
                other.standing.end();
                let message = format!("a newer member is also named {}", options.instance);
                let error = Error::new(Class::Fenced, &options.group, message);
                drop(other.events.send(Membership::Fenced(error)));
            }
            group.owners.retain(|_, owned| owned.member != id);
        }
        let Joined {
            standing: joined, ..
        } = group.members.entry(member).or_insert(Joined {
            instance: options.instance,
            topics: options.topics,
            standing: standing.clone(),
            events,
        });
        let name = Arc::clone(&joined.group);
        self.rebalance(&name);
        (member, standing)
    }

    fn leave(&mut self, standing: &Standing, member: MemberId) {
        let Some(group) = self.groups.get_mut(&standing.group) else {
            return;
        };
        if group.members.remove(&member).is_none() {
            return;
        }
        group.owners.retain(|_, owned| owned.member != member);
        if group.members.is_empty() {
            self.groups.remove(&standing.group);
        } else {
            self.rebalance(&standing.group);
        }
    }

    fn subscribe(&mut self, standing: &Standing, member: MemberId, topics: Vec<TopicName>) {
        let group = self.groups.get_mut(&standing.group);
        // A member that is gone shares nothing.
        if let Some(joined) = group.and_then(|group| group.members.get_mut(&member)) {
            joined.topics = topics;
            self.rebalance(&standing.group);
        }
    }

    fn acknowledged(&mut self, over: &Acknowledged) {
        let Some(group) = self.groups.get_mut(&over.group) else {
            return;
        };
        for partition in &over.partitions {
            let ours = |owned: &Owned| owned.member == over.member && owned.leaving;
            if group.owners.get(partition).is_some_and(ours) {
                group.owners.remove(partition);
            }
        }
        self.rebalance(&over.group);
    }

    /// Gives out what nobody owns and asks back what somebody else should own.
    fn rebalance(&mut self, name: &Arc<str>) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let target = balance::balance(&wanted(&self.shared, group), &settled(group));
        let mut assigned: BTreeMap<MemberId, Vec<Partition>> = BTreeMap::new();
        let mut revoked: BTreeMap<MemberId, Vec<Partition>> = BTreeMap::new();
        for (partition, owned) in &mut group.owners {
            // Nobody subscribes to it any more.
            if !owned.leaving && !target.contains_key(partition) {
                owned.leaving = true;
                revoked
                    .entry(owned.member)
                    .or_default()
                    .push(partition.clone());
            }
        }
        for (partition, member) in target {
            match group.owners.get_mut(&partition) {
                None => {
                    group.owners.insert(
                        partition.clone(),
                        Owned {
                            member,
                            leaving: false,
                        },
                    );
                    assigned.entry(member).or_default().push(partition);
                }
                Some(owned) if !owned.leaving && owned.member != member => {
                    owned.leaving = true;
                    revoked.entry(owned.member).or_default().push(partition);
                }
                Some(_) => {}
            }
        }
        for (member, partitions) in revoked {
            let (revocation, over) = Revocation::new(partitions.clone());
            if let Some(joined) = group.members.get(&member) {
                // Not received means dropped, which acknowledges.
                drop(joined.events.send(Membership::Revoked(revocation)));
            }
            let group = Arc::clone(name);
            self.revoking.push(Box::pin(async move {
                // Ends when the revocation is dropped; nothing is ever sent.
                drop(over.await);
                Acknowledged {
                    group,
                    member,
                    partitions,
                }
            }));
        }
        for (member, partitions) in assigned {
            if let Some(joined) = group.members.get(&member) {
                drop(joined.events.send(Membership::Assigned(partitions)));
            }
        }
    }

    fn fail(&mut self, error: &Error) {
        for (_, group) in self.groups.drain() {
            for joined in group.members.into_values() {
                joined.standing.end();
                drop(joined.events.send(Membership::Failed(error.clone())));
            }
        }
    }

    /// Hands the positions to the writer before anybody else can join.
    fn commit_vacant(
        &self,
        group: &str,
        positions: Vec<Position>,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        if self.groups.contains_key(group) {
            drop(reply.send(Err(Error::new(
                Class::Retry,
                group,
                "the group has members",
            ))));
            return;
        }
        let standing = Standing::new(group);
        // A writer that is gone drops the reply, which the caller sees.
        drop(self.writer.send(Command::Commit {
            standing,
            positions,
            reply,
        }));
    }
}

/// Every partition that somebody subscribes to, with those who do.
fn wanted(shared: &Shared, group: &Group) -> BTreeMap<Partition, BTreeSet<MemberId>> {
    let mut wanted: BTreeMap<Partition, BTreeSet<MemberId>> = BTreeMap::new();
    for (member, joined) in &group.members {
        for topic in joined
            .topics
            .iter()
            .filter_map(|name| shared.topics.get(name))
        {
            for slot in &topic.slots {
                wanted
                    .entry(slot.partition.clone())
                    .or_default()
                    .insert(*member);
            }
        }
    }
    wanted
}

fn settled(group: &Group) -> BTreeMap<Partition, MemberId> {
    let settled = group.owners.iter().filter(|(_, owned)| !owned.leaving);
    settled
        .map(|(partition, owned)| (partition.clone(), owned.member))
        .collect()
}
