//! Owns the handle that a process has of its membership: it asks, the group answers.
//!
//! It must never decide anything. The surprise: dropping it leaves the group, unless its process
//! has crashed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::super::{
    Committed, Error, GroupMetadata, Member, MemberOptions, Membership, Partition, Position,
    TopicName,
};
use super::world::{Lane, Life, Shared};

/// A member of one process.
#[derive(Debug)]
pub(super) struct SimulatedMember {
    shared: Arc<Shared>,
    life: Life,
    seat: u64,
    group: String,
    session_timeout: Duration,
}

impl SimulatedMember {
    pub(super) async fn join(
        shared: Arc<Shared>,
        life: Life,
        options: MemberOptions,
    ) -> (Self, mpsc::UnboundedReceiver<Membership>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let group = options.group.clone();
        let (seat, session_timeout) = shared
            .ask(
                life,
                |latencies| latencies.commit,
                move |world, answer| {
                    let seat = world.join(life, options, sender);
                    let timeout = world.options.session_timeout;
                    let delay = world.draw(|latencies| latencies.commit);
                    world.answer(life, delay, answer, (seat, timeout));
                },
            )
            .await;
        (
            Self {
                shared,
                life,
                seat,
                group,
                session_timeout,
            },
            receiver,
        )
    }
}

#[async_trait]
impl Member for SimulatedMember {
    async fn commit(&self, positions: Vec<Position>) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        let (seat, life) = (self.seat, self.life);
        self.shared.with(|world| {
            let delay = world.draw(|latencies| latencies.commit);
            let proof = world.proof(seat);
            world.submit(life, Lane::Commit(seat), delay, move |world| {
                let behind = proof.clone();
                world.behind_join(&behind, move |world| {
                    let result = world.commit_of_member(seat, life, proof, positions);
                    let delay = world.draw(|latencies| latencies.commit);
                    world.answer(life, delay, sender, result);
                });
            });
        });
        match receiver.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }

    async fn committed(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        let (group, partitions, life) = (self.group.clone(), partitions.to_vec(), self.life);
        self.shared
            .ask(
                life,
                |latencies| latencies.commit,
                move |world, sender| world.ask_positions(life, group, partitions, sender),
            )
            .await
    }

    fn subscribe(&self, topics: Vec<TopicName>) {
        let (seat, life) = (self.seat, self.life);
        self.shared.with(|world| {
            let delay = world.draw(|latencies| latencies.commit);
            world.submit(life, Lane::Commit(seat), delay, move |world| {
                world.subscribe(seat, topics);
            });
        });
    }

    fn group_metadata(&self) -> Result<GroupMetadata, Error> {
        let proof = self.shared.with(|world| {
            world.place_is_asked(self.seat);
            world.proof(self.seat)
        });
        proof.map(GroupMetadata::new)
    }

    fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    async fn close(&self) {
        let (seat, life) = (self.seat, self.life);
        self.shared
            .ask(
                life,
                |latencies| latencies.commit,
                move |world, sender| {
                    world.leave(seat);
                    let delay = world.draw(|latencies| latencies.commit);
                    world.answer(life, delay, sender, ());
                },
            )
            .await;
    }
}

impl Drop for SimulatedMember {
    fn drop(&mut self) {
        // A crashed process says no goodbye: its session expires.
        let (seat, life) = (self.seat, self.life);
        self.shared.with(|world| {
            if !world.is_crashed(life) {
                world.submit(life, Lane::Alone, Duration::ZERO, move |world| {
                    world.leave(seat)
                });
            }
        });
    }
}
