//! Owns where the reading of a source partition starts, and what was lost before it.
//!
//! It must never skip a record silently: a position that is missing, or outside the log, is an
//! incident with its range on record (rule 16). The surprise: it tries for ever, since a partition
//! without a start is a partition that nobody routes.

use std::time::Duration;

use runtime::log::{Bounds, Class, Error, Member, Partition, SharedLog};

use super::first::First;
use crate::matching::Lost;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Where to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The first offset to read.
    pub(super) at: i64,
    /// The group's committed position, wherever it is.
    pub(super) committed: Option<i64>,
    /// What lies between the two.
    pub(super) lost: Option<Lost>,
}

/// What tells a partition that is new from one whose position was lost.
#[derive(Debug, Clone, Default)]
pub(super) struct Novelty {
    /// It was added after the installation was made, so that it has no position yet.
    pub(super) is_new: bool,
    /// Partitions of the group's other topics. Where one of them has a position, the group has not
    /// forgotten its own, and a topic that was never cut off at its beginning was made since.
    pub(super) others: Vec<Partition>,
    /// The source that it is of, where it is a topic of the user's own.
    pub(super) first: Option<First>,
}

/// Finds the start of `partition`.
///
/// # Errors
/// When trying again cannot help.
pub(super) async fn take_over(
    log: SharedLog,
    member: &dyn Member,
    partition: &Partition,
    novelty: &Novelty,
) -> Result<Start, Error> {
    let mut wait = RETRY_FIRST;
    loop {
        match attempt(&log, member, partition, novelty).await {
            Ok(start) => return Ok(start),
            Err(error) => match error.class() {
                Class::Never => return Err(error),
                // A fenced member is told so by its membership.
                Class::Retry | Class::Unknown | Class::Fenced => {
                    tracing::warn!(%partition, %error, "committed position is not known yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            },
        }
    }
}

async fn attempt(
    log: &SharedLog,
    member: &dyn Member,
    partition: &Partition,
    novelty: &Novelty,
) -> Result<Start, Error> {
    let committed = member.committed(std::slice::from_ref(partition)).await?;
    let committed = committed.into_iter().find(|(found, _)| found == partition);
    let committed = committed.and_then(|(_, position)| position);
    let bounds = log.bounds(partition).await?;
    if let Some(first) = &novelty.first {
        return match first.own(committed) {
            Some(own) => Ok(decide(Some(own), bounds, false)),
            None => first.start(log, partition, bounds).await,
        };
    }
    let committed = committed.map(|position| position.offset);
    let mut is_new = novelty.is_new;
    if committed.is_none() && bounds.start == 0 && bounds.stable_end > 0 && !is_new {
        let others = member.committed(&novelty.others).await?;
        is_new = others.iter().any(|(_, position)| position.is_some());
        if is_new {
            tracing::info!(%partition, "partition is new: it is read from its beginning");
        }
    }
    Ok(decide(committed, bounds, is_new))
}

fn decide(committed: Option<i64>, bounds: Bounds, is_new: bool) -> Start {
    let Bounds { start, stable_end } = bounds;
    let lost = |from, through, detail| {
        Some(Lost {
            from,
            through,
            detail,
        })
    };
    let lost = match committed {
        Some(position) if position < start => lost(
            position,
            Some(start - 1),
            "retention overtook the committed position",
        ),
        Some(position) if position > stable_end => lost(
            stable_end,
            Some(position - 1),
            "committed position is beyond the end of the log",
        ),
        Some(at) => {
            return Start {
                at,
                committed,
                lost: None,
            };
        }
        // Nothing was ever there to be read.
        None if is_new || stable_end == 0 => None,
        None => lost(
            0,
            (start > 0).then(|| start - 1),
            "no position was committed",
        ),
    };
    Start {
        at: start,
        committed,
        lost,
    }
}

#[cfg(test)]
mod tests {
    use runtime::log::simulated::{SimulatedLog, SimulationOptions};
    use runtime::log::topics::{Shape, Topics};
    use runtime::log::{Headers, MemberOptions, Position, ProducerOptions, Record};

    use super::*;

    fn check(committed: Option<i64>, is_new: bool, at: i64, lost: Option<(i64, Option<i64>)>) {
        let start = decide(
            committed,
            Bounds {
                start: 10,
                stable_end: 20,
            },
            is_new,
        );
        assert_eq!(start.at, at);
        assert_eq!(start.committed, committed);
        assert_eq!(start.lost.map(|lost| (lost.from, lost.through)), lost);
    }

    #[test]
    fn a_start_is_the_committed_position_or_the_earliest_with_the_range_lost() {
        check(Some(10), false, 10, None);
        check(Some(15), false, 15, None);
        check(Some(20), false, 20, None);
        check(Some(9), false, 10, Some((9, Some(9))));
        check(Some(0), false, 10, Some((0, Some(9))));
        check(Some(21), false, 10, Some((20, Some(20))));
        check(None, false, 10, Some((0, Some(9))));
        check(None, true, 10, None);
    }

    #[test]
    fn an_empty_partition_without_a_position_is_no_incident() {
        let start = decide(
            None,
            Bounds {
                start: 0,
                stable_end: 0,
            },
            false,
        );
        assert_eq!(
            start,
            Start {
                at: 0,
                committed: None,
                lost: None
            }
        );
        let full = decide(
            None,
            Bounds {
                start: 0,
                stable_end: 5,
            },
            false,
        );
        assert_eq!(full.lost.map(|lost| lost.through), Some(None));
    }

    /// Where a topic with a record and without a position starts, in a group that has, or has not,
    /// a position for another topic.
    async fn start_of_a_topic_without_positions(group_lives: bool) -> Start {
        let sim = SimulatedLog::new(SimulationOptions::default());
        let topics = Topics::with_prefix("t.");
        let shape = Shape {
            partitions: 1,
            replication: 0,
            retention: Duration::from_secs(3_600),
        };
        let log = sim.process("router");
        log.create_topics(&topics.settings(shape)).await.unwrap();
        let (known, made) = (topics.events.partition(0), topics.attempts.partition(0));
        if group_lives {
            let first = Position {
                partition: known.clone(),
                offset: 0,
                metadata: String::new(),
            };
            log.commit_for_empty_group("g", &[first]).await.unwrap();
        }
        let producer = log.producer(ProducerOptions::named("p")).await.unwrap();
        let record = Record {
            topic: made.topic.clone(),
            partition: Some(0),
            key: None,
            value: Some("x".into()),
            headers: Headers::default(),
        };
        let written = producer.send(vec![record]).await.wait().await;
        assert_eq!(written.len(), 1);
        let joining = MemberOptions {
            group: "g".to_owned(),
            topics: vec![made.topic.clone()],
            instance: "one".to_owned(),
        };
        let (member, _membership) = log.member(joining).await.unwrap();
        let novelty = Novelty {
            is_new: false,
            others: vec![known],
            first: None,
        };
        take_over(log, &*member, &made, &novelty).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_made_beside_live_routers_is_read_from_its_beginning() {
        let start = start_of_a_topic_without_positions(true).await;
        let whole = Start {
            at: 0,
            committed: None,
            lost: None,
        };
        assert_eq!(start, whole);
        // A group that has forgotten everything routes everything again: an incident.
        let start = start_of_a_topic_without_positions(false).await;
        assert!(start.lost.is_some() && start.at == 0);
    }
}
