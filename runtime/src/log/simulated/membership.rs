//! Owns the groups: who is a member, who owns what, and what is committed.
//!
//! It must never give a partition to a member while another may still own it. The surprise: the
//! log checks that a committer is a member of the current generation, never that it owns the
//! partition it commits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::{Class, Error, MemberOptions, Membership, Partition, Position, TopicName};
use super::assignment::{Holding, plan};
use super::faults::Operation;
use super::news::{Change, Untold};
use super::positions::Positions;
use super::world::{Lane, Life, World};

type Held = Box<dyn FnOnce(&mut World) + Send>;

/// All groups and seats of a simulation.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    seats: BTreeMap<u64, Seat>,
}

#[derive(Default)]
pub(super) struct Group {
    // Member id to seat: a member that was thrown out joins again under a new id.
    members: BTreeMap<u64, u64>,
    generation: u32,
    phase: Phase,
    // Something changed since the assignment under way was begun.
    changed: bool,
    // Commits that wait behind their members' requests to join.
    held: Vec<Held>,
    pub(super) positions: Positions,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Stable,
    /// All members are asked to join again.
    Joining,
    /// As before, but one of them does not answer.
    Waiting,
    /// The assignment is on its way; commits are refused.
    Syncing,
}

/// A member as its process holds it.
#[derive(Debug)]
pub(super) struct Seat {
    group: String,
    topics: Vec<TopicName>,
    instance: String,
    pub(super) life: Life,
    pub(super) sender: mpsc::UnboundedSender<Membership>,
    pub(super) member: u64,
    // What the process knows, and what was kept from it.
    pub(super) place: Place,
    pub(super) told: BTreeSet<Partition>,
    pub(super) untold: Option<Untold>,
    // What the log knows.
    owned: BTreeSet<Partition>,
    revoking: BTreeSet<Partition>,
    // Whether it was thrown out for its process's silence.
    pub(super) was_silent: bool,
}

/// Where a process says to be in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has no place: the log takes a transaction's positions all the same, but no plain commit.
    Nowhere,
    /// As this member of this generation.
    At { member: u64, generation: u32 },
}

/// What a transaction or a commit shows for its membership.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) group: String,
    place: Place,
}

fn not_a_member(group: &str) -> Error {
    Error::new(Class::Fenced, group, "member is not known to the group")
}

impl World {
    pub(super) fn group_mut(&mut self, group: &str) -> &mut Group {
        self.groups.groups.entry(group.to_owned()).or_default()
    }

    pub(super) fn group(&self, group: &str) -> Option<&Group> {
        self.groups.groups.get(group)
    }

    pub(super) fn join(
        &mut self,
        life: Life,
        options: MemberOptions,
        sender: mpsc::UnboundedSender<Membership>,
    ) -> u64 {
        let MemberOptions {
            group,
            topics,
            instance,
        } = options;
        let seat = self.next_id();
        if self.options.static_members {
            self.fence_instance(&group, &instance);
        }
        let state = Seat {
            group,
            topics,
            instance,
            life,
            sender,
            member: 0,
            place: Place::Nowhere,
            told: BTreeSet::new(),
            untold: None,
            owned: BTreeSet::new(),
            revoking: BTreeSet::new(),
            was_silent: false,
        };
        self.groups.seats.insert(seat, state);
        self.sit(seat);
        seat
    }

    pub(super) fn seat_mut(&mut self, seat: u64) -> Option<&mut Seat> {
        self.groups.seats.get_mut(&seat)
    }

    /// Enters the group under a new member id.
    pub(super) fn sit(&mut self, seat: u64) {
        let member = self.next_id();
        let Some(state) = self.groups.seats.get_mut(&seat) else {
            return;
        };
        state.member = member;
        if state.untold.is_none() {
            state.place = Place::At {
                member,
                generation: 0,
            };
        }
        let (group, instance) = (state.group.clone(), state.instance.clone());
        self.group_mut(&group).members.insert(member, seat);
        self.note(format!("{instance} joins {group} as member {member}"));
        self.group_changes(&group);
    }

    fn fence_instance(&mut self, group: &str, instance: &str) {
        let same = |state: &Seat| state.group == group && state.instance == instance;
        let seat = self
            .groups
            .seats
            .iter()
            .find(|(_, state)| same(state))
            .map(|(seat, _)| *seat);
        let Some(seat) = seat else { return };
        if let Some(state) = self.remove_seat(seat) {
            self.note(format!("{instance} is fenced in {group}"));
            let message = format!("another live process has the instance name {instance}");
            let error = Error::new(Class::Fenced, group, message);
            self.reply(
                state.life,
                Lane::Membership(seat),
                Duration::ZERO,
                move |_| {
                    drop(state.sender.send(Membership::Fenced(error)));
                },
            );
        }
    }

    fn remove_seat(&mut self, seat: u64) -> Option<Seat> {
        let state = self.groups.seats.remove(&seat)?;
        self.group_mut(&state.group).members.remove(&state.member);
        Some(state)
    }

    /// A member shares the partitions of other topics from now on.
    pub(super) fn subscribe(&mut self, seat: u64, topics: Vec<TopicName>) {
        let Some(state) = self.groups.seats.get_mut(&seat) else {
            return;
        };
        state.topics = topics;
        let (group, member) = (state.group.clone(), state.member);
        self.note(format!("member {member} of {group} changes its topics"));
        if self.is_member(&group, member) {
            self.group_changes(&group);
        }
    }

    pub(super) fn leave(&mut self, seat: u64) {
        if let Some(state) = self.remove_seat(seat) {
            self.note(format!("{} leaves {}", state.instance, state.group));
            self.group_changes(&state.group);
        }
    }

    /// The log throws out every member of that process.
    pub(super) fn expire_members_of(&mut self, life: Life) {
        let theirs = self
            .groups
            .seats
            .iter()
            .filter(|(_, state)| state.life == life);
        for seat in theirs.map(|(seat, _)| *seat).collect::<Vec<_>>() {
            self.expel(seat, "session expired");
        }
    }

    fn expel(&mut self, seat: u64, why: &str) {
        let life = self.groups.seats.get(&seat).map(|state| state.life);
        let is_running = life.is_some_and(|life| self.is_running(life));
        let Some(state) = self.groups.seats.get_mut(&seat) else {
            return;
        };
        let (group, member, life) = (state.group.clone(), state.member, state.life);
        state.was_silent = !is_running;
        state.owned.clear();
        state.revoking.clear();
        if self.group_mut(&group).members.remove(&member).is_none() {
            return;
        }
        self.note(format!("member {member} of {group} is thrown out: {why}"));
        self.group_changes(&group);
        // First the process must run again, then it talks to the log by itself.
        self.reply(life, Lane::Alone, Duration::ZERO, move |world| {
            let heartbeat = world.options.heartbeat_interval;
            world.reply(life, Lane::Alone, heartbeat, move |world| {
                world.learn(seat, member)
            });
        });
    }

    fn is_member(&self, group: &str, member: u64) -> bool {
        self.group(group)
            .is_some_and(|group| group.members.contains_key(&member))
    }

    /// A group that subscribes to `topic` assigns anew.
    pub(super) fn topic_appeared(&mut self, topic: &TopicName) {
        let concerned = self
            .groups
            .seats
            .values()
            .filter(|seat| seat.topics.contains(topic));
        let groups: BTreeSet<_> = concerned.map(|seat| seat.group.clone()).collect();
        for group in groups {
            self.group_changes(&group);
        }
        for partition in self.partitions_of(topic) {
            self.poke_readers(&partition);
        }
    }

    /// A stopped process runs again: a group may have waited for it.
    pub(super) fn process_is_back(&mut self, life: Life) {
        let theirs = self
            .groups
            .seats
            .values()
            .filter(|state| state.life == life);
        for group in theirs
            .map(|state| state.group.clone())
            .collect::<BTreeSet<_>>()
        {
            if self.group_mut(&group).phase == Phase::Waiting {
                self.group_changes(&group);
            }
        }
    }

    fn group_changes(&mut self, name: &str) {
        let join = self.draw(|latencies| latencies.join);
        let group = self.group_mut(name);
        match group.phase {
            Phase::Stable | Phase::Waiting => {
                group.phase = Phase::Joining;
                let name = name.to_owned();
                self.later(join, move |world| world.all_joined(name));
            }
            Phase::Joining => {}
            Phase::Syncing => group.changed = true,
        }
    }

    fn all_joined(&mut self, name: String) {
        // A member that does not answer holds the others up until its session expires.
        let Some(group) = self.group(&name) else {
            return;
        };
        let seats = group
            .members
            .values()
            .filter_map(|seat| self.groups.seats.get(seat));
        let silent = seats.into_iter().any(|seat| !self.is_running(seat.life));
        let sync = self.draw(|latencies| latencies.sync);
        let group = self.group_mut(&name);
        if silent {
            group.phase = Phase::Waiting;
            return;
        }
        group.phase = Phase::Syncing;
        group.generation += 1;
        for commit in std::mem::take(&mut group.held) {
            commit(self);
        }
        self.later(sync, move |world| world.assign_group(&name));
    }

    fn assign_group(&mut self, name: &str) {
        let group = self.group_mut(name);
        group.phase = Phase::Stable;
        let changed = std::mem::take(&mut group.changed);
        let (generation, members) = (group.generation, group.members.clone());
        let all: BTreeSet<Partition> = members
            .values()
            .filter_map(|seat| self.groups.seats.get(seat))
            .flat_map(|seat| seat.topics.iter())
            .flat_map(|topic| self.partitions_of(topic))
            .collect();
        let holding = |seat: &u64| {
            let state = self.groups.seats.get(seat)?;
            let topics = state.topics.iter().cloned().collect();
            let holding = Holding {
                topics,
                owned: state.owned.clone(),
                leaving: state.revoking.clone(),
            };
            Some((*seat, holding))
        };
        let holdings = members.values().filter_map(holding).collect();
        for (seat, change) in plan(&all, &holdings) {
            self.tell(seat, generation, change.given, change.taken);
        }
        if changed {
            self.group_changes(name);
        }
    }

    fn tell(
        &mut self,
        seat: u64,
        generation: u32,
        given: BTreeSet<Partition>,
        taken: BTreeSet<Partition>,
    ) {
        let Some(state) = self.groups.seats.get_mut(&seat) else {
            return;
        };
        let (life, member, instance) = (state.life, state.member, state.instance.clone());
        state.owned.extend(given.iter().cloned());
        state.revoking.extend(taken.iter().cloned());
        if !given.is_empty() || !taken.is_empty() {
            self.note(format!(
                "{instance} is given {given:?}, is to give up {taken:?}"
            ));
        }
        let limit = self.options.rebalance_timeout;
        if !taken.is_empty() {
            let taken = taken.clone();
            self.later(limit, move |world| {
                world.revocation_overdue(seat, member, &taken)
            });
        }
        let change = Change {
            member,
            generation,
            given,
            taken,
        };
        self.reply(life, Lane::Membership(seat), Duration::ZERO, move |world| {
            world.told(seat, change);
        });
    }

    pub(super) fn given_up(&mut self, seat: u64, member: u64, taken: &BTreeSet<Partition>) {
        let Some(state) = self.groups.seats.get_mut(&seat) else {
            return;
        };
        if state.member != member {
            return;
        }
        for partition in taken {
            state.owned.remove(partition);
            state.revoking.remove(partition);
            state.told.remove(partition);
        }
        let (group, instance) = (state.group.clone(), state.instance.clone());
        self.note(format!("{instance} has given up {taken:?}"));
        if self.is_member(&group, member) {
            self.group_changes(&group);
        }
    }

    fn revocation_overdue(&mut self, seat: u64, member: u64, taken: &BTreeSet<Partition>) {
        let overdue = |state: &Seat| state.member == member && !state.revoking.is_disjoint(taken);
        if self.groups.seats.get(&seat).is_some_and(overdue) {
            self.expel(seat, "revocation is overdue");
        }
    }

    pub(super) fn proof(&self, seat: u64) -> Result<Proof, Error> {
        let state = self
            .groups
            .seats
            .get(&seat)
            .ok_or_else(|| not_a_member("closed membership"))?;
        Ok(Proof {
            group: state.group.clone(),
            place: state.place,
        })
    }

    /// Whether the positions of a transaction are taken now: where no place is named, nothing is
    /// checked.
    pub(super) fn check_proof_of_transaction(&self, proof: &Proof) -> Result<(), Error> {
        match proof.place {
            Place::Nowhere => Ok(()),
            Place::At { .. } => self.check_proof(proof),
        }
    }

    /// Whether a commit under this membership is taken now.
    fn check_proof(&self, proof: &Proof) -> Result<(), Error> {
        let (member, generation) = match proof.place {
            Place::At { member, generation } => (member, generation),
            Place::Nowhere => return Err(not_a_member(&proof.group)),
        };
        if !self.is_member(&proof.group, member) {
            return Err(not_a_member(&proof.group));
        }
        let current = self
            .group(&proof.group)
            .is_some_and(|it| it.generation == generation && it.phase != Phase::Syncing);
        if current {
            Ok(())
        } else {
            Err(Error::new(
                Class::Retry,
                &proof.group,
                "group is being rebalanced",
            ))
        }
    }

    /// Does `commit` now, or once the member's request to join is answered.
    pub(super) fn behind_join(
        &mut self,
        proof: &Result<Proof, Error>,
        commit: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        let holds = self.options.joins_hold_commits;
        if let Some(proof) = proof.as_ref().ok().filter(|_| holds) {
            let group = self.group_mut(&proof.group);
            match group.phase {
                Phase::Joining | Phase::Waiting => return group.held.push(Box::new(commit)),
                Phase::Stable | Phase::Syncing => {}
            }
        }
        commit(self);
    }

    pub(super) fn commit_of_member(
        &mut self,
        seat: u64,
        life: Life,
        proof: Result<Proof, Error>,
        positions: Vec<Position>,
    ) -> Result<(), Error> {
        let proof = proof?;
        let fault = self.fault(Operation::Commit, life);
        if let Some(fault) = fault.filter(|fault| !fault.happened()) {
            return Err(fault.error(&proof.group));
        }
        if let Err(refused) = self.check_proof(&proof) {
            self.note(format!("commit at {:?} refused: {refused}", proof.place));
            if let (Class::Fenced, Place::At { member, .. }) = (refused.class(), proof.place) {
                // It talks to the log, so it learns at once.
                self.reply(life, Lane::Alone, Duration::ZERO, move |world| {
                    world.learn(seat, member);
                });
            }
            return Err(refused);
        }
        self.check_positions(&positions)?;
        if let Some(error) = self.faults.forbids(&positions) {
            return Err(error);
        }
        self.store_positions(&proof.group, positions);
        fault.map_or(Ok(()), |fault| Err(fault.error(&proof.group)))
    }

    /// Commits from outside a group without members.
    pub(super) fn commit_for_empty(
        &mut self,
        life: Life,
        group: &str,
        positions: Vec<Position>,
    ) -> Result<(), Error> {
        let fault = self.fault(Operation::Commit, life);
        if let Some(fault) = fault.filter(|fault| !fault.happened()) {
            return Err(fault.error(group));
        }
        if self.group(group).is_some_and(|it| !it.members.is_empty()) {
            return Err(Error::new(Class::Retry, group, "group has members"));
        }
        self.check_positions(&positions)?;
        self.store_positions(group, positions);
        fault.map_or(Ok(()), |fault| Err(fault.error(group)))
    }

    /// Who owns what in a group, by instance name.
    pub(super) fn owners(&self, group: &str) -> BTreeMap<Partition, String> {
        let theirs = self
            .groups
            .seats
            .values()
            .filter(|seat| seat.group == group);
        theirs
            .flat_map(|seat| {
                seat.owned
                    .iter()
                    .map(|it| (it.clone(), seat.instance.clone()))
            })
            .collect()
    }
}
