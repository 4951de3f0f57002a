//! Owns when a member hears what befell it: that it was thrown out, and what it is given.
//!
//! It must never keep from a member what concerns the place that it knows of: only a loss may be
//! told late, and what comes behind it. The surprise: asking for one's place may take long enough to
//! have another by then, as it does on a busy machine; the loss is told by then too.

use std::collections::BTreeSet;

use super::super::{Membership, Partition, Revocation};
use super::membership::Place;
use super::options::LossTold;
use super::world::{Lane, Life, World};

/// What a member was told about by the log, and its process does not know yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    lost: BTreeSet<Partition>,
    behind: Vec<Change>,
}

/// What an assignment changes for a member.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) member: u64,
    pub(super) generation: u32,
    pub(super) given: BTreeSet<Partition>,
    pub(super) taken: BTreeSet<Partition>,
}

impl World {
    /// A member finds out that it was thrown out, and joins again.
    pub(super) fn learn(&mut self, seat: u64, member: u64) {
        let how = self.options.loss_told;
        let Some(state) = self.seat_mut(seat).filter(|state| state.member == member) else {
            return;
        };
        let known = state.untold.is_some();
        let lost = std::mem::take(&mut state.told);
        state.untold.get_or_insert_default().lost.extend(lost);
        match how {
            LossTold::AtOnce => {
                self.catch_up(seat);
                self.sit(seat);
            }
            LossTold::Late(_) if known => {}
            LossTold::Late(late) => {
                if state.was_silent {
                    state.place = Place::Nowhere;
                }
                let life = state.life;
                let delay = self.draw(|_| late);
                self.reply(life, Lane::Alone, delay, move |world| {
                    world.catch_up(seat);
                    let state = world.seat_mut(seat);
                    if state.is_some_and(|state| state.member == member) {
                        world.sit(seat);
                    }
                });
            }
            LossTold::AfterJoining(_) => self.sit(seat),
        }
    }

    /// The client of a member hears of an assignment.
    pub(super) fn told(&mut self, seat: u64, change: Change) {
        let how = self.options.loss_told;
        let Some(state) = self.seat_mut(seat) else {
            return;
        };
        if state.member != change.member {
            return;
        }
        let life = state.life;
        let Some(untold) = &mut state.untold else {
            return self.hear(seat, change);
        };
        match how {
            // It was thrown out since.
            LossTold::AtOnce | LossTold::Late(_) => {}
            LossTold::AfterJoining(late) => {
                untold.behind.push(change);
                let delay = self.draw(|_| late);
                self.reply(life, Lane::Alone, delay, move |world| world.catch_up(seat));
            }
        }
    }

    /// The process asks for its place: where its client has another already, the answer says so, and
    /// all that was held back is told by then.
    pub(super) fn place_is_asked(&mut self, seat: u64) {
        let untold = self.seat_mut(seat).and_then(|state| state.untold.as_ref());
        if untold.is_some_and(|untold| !untold.behind.is_empty()) {
            self.catch_up(seat);
        }
    }

    /// The process is told what was held back.
    fn catch_up(&mut self, seat: u64) {
        let Some(state) = self.seat_mut(seat) else {
            return;
        };
        let Some(Untold { lost, behind }) = state.untold.take() else {
            return;
        };
        if !lost.is_empty() {
            drop(
                state
                    .sender
                    .send(Membership::Lost(lost.into_iter().collect())),
            );
        }
        for change in behind {
            self.hear(seat, change);
        }
    }

    /// The process hears of an assignment.
    fn hear(&mut self, seat: u64, change: Change) {
        let Change {
            member,
            generation,
            given,
            taken,
        } = change;
        let Some(state) = self.seat_mut(seat).filter(|state| state.member == member) else {
            return;
        };
        state.place = Place::At { member, generation };
        state.told.extend(given.iter().cloned());
        if !given.is_empty() {
            let given = given.into_iter().collect();
            drop(state.sender.send(Membership::Assigned(given)));
        }
        if taken.is_empty() {
            return;
        }
        let life = state.life;
        let (revocation, acknowledged) = Revocation::new(taken.iter().cloned().collect());
        drop(state.sender.send(Membership::Revoked(revocation)));
        let me = self.me.clone();
        self.spawn(async move {
            // The sender is only ever dropped.
            drop(acknowledged.await);
            let Some(shared) = me.upgrade() else { return };
            shared.with(|world| world.gives_up(seat, member, life, taken));
        });
    }

    /// The process has acknowledged a revoke.
    fn gives_up(&mut self, seat: u64, member: u64, life: Life, taken: BTreeSet<Partition>) {
        let delay = self.draw(|latencies| latencies.commit);
        self.submit(life, Lane::Commit(seat), delay, move |world| {
            world.given_up(seat, member, &taken);
        });
    }
}
