//! Owns a member's commits: one request at a time, with the result of each.
//!
//! It must never commit from the poll thread: a rebalance that waits for that thread would wait
//! for ever. The surprise: they are librdkafka's synchronous commits on a thread of their own,
//! since rust-rdkafka 0.39 never reports the result of an asynchronous one. What has gathered
//! while one was under way is committed together.

use std::sync::{Weak, mpsc};

use hashbrown::HashMap;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::oneshot;

use super::member::MemberConsumer;
use super::{list, wake};
use crate::log::{Error, Partition, Position};

/// Commits taken into one request.
const TOGETHER: usize = 64;

/// The way to the thread of commits; it ends with this.
pub(super) struct Commits(mpsc::Sender<Job>);

struct Job {
    positions: Vec<Position>,
    result: oneshot::Sender<KafkaResult<()>>,
}

impl Commits {
    /// Starts the thread. It never keeps the consumer alive longer than one commit.
    pub(super) fn start(consumer: Weak<MemberConsumer>) -> Result<Self, Error> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        wake::start("kafka-commit", move || {
            while let Ok(first) = inbox.recv() {
                let mut together = vec![first];
                together.extend(inbox.try_iter().take(TOGETHER - 1));
                commit(&consumer, together);
            }
        })?;
        Ok(Self(jobs))
    }

    /// Commits behind what was sent before; `None` where the thread has ended.
    pub(super) fn send(
        &self,
        positions: Vec<Position>,
    ) -> Option<oneshot::Receiver<KafkaResult<()>>> {
        let (result, receiver) = oneshot::channel();
        self.0.send(Job { positions, result }).ok()?;
        Some(receiver)
    }
}

/// Commits all jobs in one request, or each alone where that fails: one that can never succeed
/// must not fail the others.
fn commit(consumer: &Weak<MemberConsumer>, jobs: Vec<Job>) {
    let all = merged(jobs.iter().map(|job| job.positions.as_slice()));
    let result = commit_one(consumer, &all);
    let alone = jobs.len() == 1;
    for Job {
        positions,
        result: reply,
    } in jobs
    {
        let own = match &result {
            Err(_) if !alone => commit_one(consumer, &positions),
            known => known.clone(),
        };
        // Nobody waits for the result any more.
        drop(reply.send(own));
    }
}

fn commit_one(consumer: &Weak<MemberConsumer>, positions: &[Position]) -> KafkaResult<()> {
    let offsets = list::to_commit(positions)?;
    let consumer = consumer.upgrade().ok_or(KafkaError::Canceled)?;
    consumer.commit(&offsets, CommitMode::Sync)
}

/// The last position of each partition.
fn merged<'p>(lists: impl Iterator<Item = &'p [Position]>) -> Vec<Position> {
    let mut last: HashMap<&Partition, &Position> = HashMap::new();
    for position in lists.flatten() {
        last.insert(&position.partition, position);
    }
    last.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::TopicName;

    #[test]
    fn the_later_position_of_a_partition_wins() {
        let at = |number: u32, offset: i64| Position {
            partition: TopicName::new("t").partition(number),
            offset,
            metadata: offset.to_string(),
        };
        let lists = [vec![at(0, 1), at(1, 1)], vec![at(0, 3)], vec![at(0, 2)]];
        let mut merged = merged(lists.iter().map(Vec::as_slice));
        merged.sort_by_key(|position| position.partition.number);
        assert_eq!(merged, [at(0, 2), at(1, 1)]);
    }
}
