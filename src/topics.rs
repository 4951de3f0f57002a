//! Owns the making and checking of Anabranch's topics: their settings, and a first position for
//! every partition that a group reads.
//!
//! It must never change a topic that exists, nor move a position. The surprises: positions are
//! committed even for empty partitions, because a service takes a missing one for an incident; and
//! a group with members takes none from outside, so that what is made beside live services is begun
//! by them.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use runtime::clock::Clock;
use runtime::config::Config;
use runtime::log::topics::{Shape, Topics};
use runtime::log::{
    Class, Partition, Position, SharedLog, TopicName, TopicSettings, TopicShape, patience,
};
use tokio::time::Instant;

use crate::settings::{Settings, Usage};
use crate::{open, output};

/// The longest delivery (76 h) and seven days: whoever stops for a week finds everything.
const RETENTION_MIN: Duration = Duration::from_secs((76 + 7 * 24) * 3_600);
/// Copies from which a write must be on two brokers at least.
const COPIES_OF_A_CLUSTER: u16 = 3;
/// For topics just made to be known to every broker.
const SETTLE: Duration = Duration::from_secs(20);
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// For a group that was left this moment to be without members.
const MEMBERS_REST: Duration = Duration::from_secs(3);

/// About the topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Create what is missing, commit first positions, then check
    ///
    /// Names begin with `topics.prefix`; `topics.partitions`, `topics.replication` and
    /// `topics.retention` say how they are made. Topics that exist are left as they are.
    Create,
    /// Say what is wrong with the topics as they are; exit code 1 if anything is
    Check,
}

/// Runs one of them.
///
/// # Errors
/// Where Kafka cannot be reached.
pub(crate) async fn run(command: TopicsCommand, settings: Settings) -> anyhow::Result<ExitCode> {
    let config = settings.loaded.config;
    let (log, _) = open::open(&config, &Clock::system()).await?;
    if matches!(command, TopicsCommand::Create) {
        for made in create(&log, &config).await? {
            output::line(format_args!("created {made}"))?;
        }
    }
    let faults = check(&log, &config).await?;
    for fault in &faults {
        output::line(format_args!("fault: {fault}"))?;
    }
    if !faults.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let count = wanted(&config).len();
    output::line(format_args!("{count} topics as they should be"))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the topics that are missing, and commits a first position for each partition without one.
///
/// # Errors
/// Where the log refuses one of them.
pub(crate) async fn create(log: &SharedLog, config: &Config) -> anyhow::Result<Vec<TopicName>> {
    let made = log
        .create_topics(&wanted(config))
        .await
        .context("topics create")?;
    for (group, topics) in groups(config) {
        let settled = settle(log, &group, &topics, &made).await;
        settled.with_context(|| format!("first positions of group {group}"))?;
    }
    Ok(made)
}

/// Commits the first positions of a group; where it lives, its members do that for what was made
/// now.
async fn settle(
    log: &SharedLog,
    group: &str,
    topics: &[TopicName],
    made: &[TopicName],
) -> Result<(), runtime::log::Error> {
    let begun = Instant::now();
    loop {
        let Err(Unsettled { error, of_members }) = commit_first(log, group, topics, made).await
        else {
            return Ok(());
        };
        if of_members && begun.elapsed() >= MEMBERS_REST {
            output::note(format_args!(
                "group {group} has members: they begin what is new at its first record"
            ));
            return Ok(());
        }
        if error.class() != Class::Retry || begun.elapsed() >= SETTLE {
            return Err(error);
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// What is wrong with the topics as they are, a line each.
///
/// # Errors
/// Where the log cannot be asked.
pub(crate) async fn check(log: &SharedLog, config: &Config) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for expected in wanted(config) {
        let found = log
            .describe_topic(&expected.name)
            .await
            .context("topics check")?;
        all.extend(faults(&expected, found.as_ref()));
    }
    Ok(all)
}

/// Refuses to go on without the topics; what else is wrong with them is logged. Waits a while for a
/// log that is not there yet.
///
/// # Errors
/// [`Usage`] that names what makes them.
pub(crate) async fn must_exist(log: &SharedLog, config: &Config) -> anyhow::Result<()> {
    for expected in wanted(config) {
        let name = &expected.name;
        let found = patience::at_start(|| log.describe_topic(name)).await;
        match found.context("topics")? {
            Some(found) => {
                for fault in faults(&expected, Some(&found)) {
                    tracing::warn!(%fault, "topic is not as it should be");
                }
            }
            None => {
                let error = format!("topic `{name}` does not exist: run `anabranch topics create`");
                return Err(Usage(error).into());
            }
        }
    }
    Ok(())
}

fn wanted(config: &Config) -> Vec<TopicSettings> {
    let topics = &config.topics;
    Topics::with_prefix(&topics.prefix).settings(Shape {
        partitions: topics.partitions,
        replication: topics.replication,
        retention: topics.retention,
    })
}

/// The groups that read, each with its topics.
fn groups(config: &Config) -> Vec<(String, Vec<TopicName>)> {
    let prefix = &config.topics.prefix;
    let topics = Topics::with_prefix(prefix);
    let owned = std::iter::once(&topics.deliveries).chain(&topics.delays);
    vec![
        (
            router::group(prefix),
            vec![topics.events.clone(), topics.bulk.clone()],
        ),
        (
            dispatcher::consumer_group(&topics),
            owned.cloned().collect(),
        ),
    ]
}

/// Why first positions are not committed.
struct Unsettled {
    error: runtime::log::Error,
    /// A group that lives refused them, as it does while it has members.
    of_members: bool,
}

impl From<runtime::log::Error> for Unsettled {
    fn from(error: runtime::log::Error) -> Self {
        Self {
            error,
            of_members: false,
        }
    }
}

async fn commit_first(
    log: &SharedLog,
    group: &str,
    topics: &[TopicName],
    made: &[TopicName],
) -> Result<(), Unsettled> {
    let mut partitions: Vec<Partition> = Vec::new();
    for topic in topics {
        let shape = log
            .describe_topic(topic)
            .await?
            // A topic made this moment may be unknown to the broker that is asked.
            .ok_or_else(|| not_yet(topic))?;
        partitions.extend((0..shape.partitions).map(|number| topic.partition(number)));
    }
    let committed = log.committed(group, &partitions).await?;
    // Of a group that never was nobody has a position; its members then come after us.
    let lives = committed.iter().any(|(_, position)| position.is_some());
    let mut positions = Vec::new();
    for (partition, position) in committed {
        if position.is_some() {
            continue;
        }
        let bounds = log.bounds(&partition).await?;
        if !made.contains(&partition.topic) && bounds.stable_end > 0 {
            // Not ours to hide: the service that finds no position records what was lost.
            tracing::warn!(%partition, group, "partition has records and no committed position");
            continue;
        }
        positions.push(Position {
            partition,
            offset: bounds.start,
            metadata: String::new(),
        });
    }
    if positions.is_empty() {
        return Ok(());
    }
    let refused = |error: runtime::log::Error| Unsettled {
        of_members: lives && error.class() == Class::Retry,
        error,
    };
    let commit = log.commit_for_empty_group(group, &positions);
    commit.await.map_err(refused)
}

fn not_yet(topic: &TopicName) -> runtime::log::Error {
    runtime::log::Error::new(Class::Retry, topic, "topic is not known yet")
}

/// What is wrong with one topic.
fn faults(expected: &TopicSettings, found: Option<&TopicShape>) -> Vec<String> {
    let name = &expected.name;
    let Some(found) = found else {
        return vec![format!("topic `{name}` does not exist")];
    };
    let checks = [
        partition_fault(expected, found),
        size_fault(expected, found),
        cleanup_fault(expected, found),
        retention_fault(expected, found),
        bytes_fault(expected, found),
        timestamp_fault(expected, found),
        copies_fault(found),
        election_fault(found),
    ];
    checks
        .into_iter()
        .flatten()
        .map(|fault| format!("topic `{name}`: {fault}"))
        .collect()
}

fn setting<'a>(found: &'a TopicShape, name: &str) -> Option<&'a str> {
    let found = found.settings.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

fn number(found: &TopicShape, name: &str) -> Option<i64> {
    setting(found, name)?.parse().ok()
}

fn differs(name: &str, found: impl Display, expected: impl Display) -> String {
    format!("`{name}` is {found}, must be {expected}")
}

fn partition_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let (got, want) = (found.partitions, expected.partitions);
    if want == 1 {
        // `control`: its order is that of one partition.
        return (got != 1).then(|| format!("has {got} partitions, must have exactly 1"));
    }
    // More affect nothing: placements are computed with the recorded count.
    (got < want).then(|| format!("has {got} partitions, must have {want} or more"))
}

fn size_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let largest = i64::try_from(expected.max_record_bytes).unwrap_or(i64::MAX);
    let got = number(found, "max.message.bytes")?;
    (got < largest).then(|| differs("max.message.bytes", got, format!("{largest} or more")))
}

fn cleanup_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let want = if expected.compact {
        "compact"
    } else {
        "delete"
    };
    let got = setting(found, "cleanup.policy")?;
    (got != want).then(|| differs("cleanup.policy", got, want))
}

fn retention_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let least = i64::try_from(RETENTION_MIN.as_millis()).unwrap_or(i64::MAX);
    let got = number(found, "retention.ms")?;
    let short = !expected.compact && (0..least).contains(&got);
    short.then(|| {
        let rule = format!("{least} or more (the longest delivery and seven days)");
        differs("retention.ms", got, rule)
    })
}

fn bytes_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let got = number(found, "retention.bytes")?;
    let bounded = !expected.compact && got >= 0;
    bounded.then(|| differs("retention.bytes", got, "-1: records are kept by time only"))
}

fn timestamp_fault(expected: &TopicSettings, found: &TopicShape) -> Option<String> {
    let want = if expected.append_time {
        "LogAppendTime"
    } else {
        "CreateTime"
    };
    let got = setting(found, "message.timestamp.type")?;
    (got != want).then(|| differs("message.timestamp.type", got, want))
}

fn copies_fault(found: &TopicShape) -> Option<String> {
    let got = number(found, "min.insync.replicas")?;
    let lonely = found.replication >= COPIES_OF_A_CLUSTER && got < 2;
    lonely.then(|| {
        differs(
            "min.insync.replicas",
            got,
            "2 or more: one broker's disk is no proof",
        )
    })
}

fn election_fault(found: &TopicShape) -> Option<String> {
    let name = "unclean.leader.election.enable";
    let got = setting(found, name)?;
    (got == "true").then(|| differs(name, got, "false: it loses acknowledged records"))
}

#[cfg(test)]
mod tests {
    use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
    use runtime::log::{MemberOptions, Membership};

    use super::*;

    fn expected(compact: bool, append_time: bool, partitions: u32) -> TopicSettings {
        TopicSettings {
            name: TopicName::new("t"),
            partitions,
            replication: 0,
            compact,
            retention: Duration::from_secs(14 * 86_400),
            max_record_bytes: 4 << 20,
            append_time,
        }
    }

    fn found(partitions: u32, replication: u16, settings: &[(&str, &str)]) -> TopicShape {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        TopicShape {
            partitions,
            replication,
            settings: settings.iter().map(owned).collect(),
        }
    }

    fn check(expected: &TopicSettings, found: &TopicShape, words: &[&str]) {
        let faults = faults(expected, Some(found));
        assert_eq!(faults.len(), words.len(), "{faults:?}");
        for (fault, word) in faults.iter().zip(words) {
            assert!(fault.contains(word), "{fault} does not name {word}");
        }
    }

    #[test]
    fn every_setting_that_delivery_rests_on_is_checked() {
        let time = expected(false, true, 6);
        let good = [
            ("max.message.bytes", "4195328"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "1209600000"),
            ("retention.bytes", "-1"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "false"),
        ];
        check(&time, &found(6, 1, &good), &[]);
        check(&time, &found(48, 1, &good), &[]);
        check(&time, &found(5, 1, &good), &["5 partitions"]);
        check(&time, &found(6, 3, &good), &["min.insync.replicas"]);
        check(
            &time,
            &found(6, 1, &[("max.message.bytes", "1048588")]),
            &["max.message.bytes"],
        );
        check(
            &time,
            &found(6, 1, &[("cleanup.policy", "compact,delete")]),
            &["cleanup.policy"],
        );
        check(
            &time,
            &found(6, 1, &[("retention.ms", "604800000")]),
            &["retention.ms"],
        );
        check(&time, &found(6, 1, &[("retention.ms", "-1")]), &[]);
        check(
            &time,
            &found(6, 1, &[("retention.bytes", "1")]),
            &["retention.bytes"],
        );
        check(
            &time,
            &found(6, 1, &[("message.timestamp.type", "CreateTime")]),
            &["timestamp"],
        );
        let unclean = [("unclean.leader.election.enable", "true")];
        check(&time, &found(6, 1, &unclean), &["unclean"]);
    }

    #[test]
    fn control_has_one_partition_and_is_compacted() {
        let control = expected(true, false, 1);
        check(
            &control,
            &found(
                1,
                1,
                &[("cleanup.policy", "compact"), ("retention.ms", "1")],
            ),
            &[],
        );
        check(
            &control,
            &found(2, 1, &[("cleanup.policy", "delete")]),
            &["exactly 1", "cleanup"],
        );
        assert_eq!(faults(&control, None), ["topic `t` does not exist"]);
    }

    #[tokio::test]
    async fn every_partition_has_a_first_position_and_none_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions::in_dir(dir.path());
        let (log, _) = EmbeddedLog::open(options).await.unwrap();
        let log: SharedLog = std::sync::Arc::new(log);
        let mut config = Config::default();
        config.topics.partitions = 3;
        assert_eq!(create(&log, &config).await.unwrap().len(), 15);
        let events = TopicName::new("anabranch.events");
        let partitions: Vec<Partition> = (0..3).map(|number| events.partition(number)).collect();
        let group = router::group(&config.topics.prefix);
        let committed = || async { log.committed(&group, &partitions).await.unwrap() };
        assert!(committed().await.iter().all(|(_, position)| {
            position
                .as_ref()
                .is_some_and(|position| position.offset == 0)
        }));
        let moved = Position {
            partition: partitions[1].clone(),
            offset: 7,
            metadata: String::new(),
        };
        log.commit_for_empty_group(&group, &[moved]).await.unwrap();
        assert!(create(&log, &config).await.unwrap().is_empty());
        assert_eq!(committed().await[1].1.as_ref().unwrap().offset, 7);
        assert!(super::check(&log, &config).await.unwrap().is_empty());
        // A partition count that is larger than what exists cannot be placed on.
        config.topics.partitions = 4;
        assert!(!super::check(&log, &config).await.unwrap().is_empty());
    }

    #[test]
    fn every_topic_that_is_read_by_a_group_gets_positions() {
        let config = Config::default();
        let read: Vec<String> = groups(&config)
            .into_iter()
            .flat_map(|(_, topics)| topics)
            .map(|topic| topic.to_string())
            .collect();
        assert_eq!(read.len(), 2 + 1 + 7);
        assert!(read.contains(&"anabranch.events.bulk".to_owned()));
        assert!(read.contains(&"anabranch.delay.24h".to_owned()));
    }

    #[tokio::test]
    async fn what_is_made_beside_live_members_is_left_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = EmbeddedLog::open(EmbeddedOptions::in_dir(dir.path()))
            .await
            .unwrap();
        let log: SharedLog = std::sync::Arc::new(log);
        let mut config = Config::default();
        config.topics.partitions = 2;
        // An installation that lacks a topic, and a dispatcher that runs.
        let topics = Topics::with_prefix(&config.topics.prefix);
        let [.., longest] = &topics.delays;
        let mut known = wanted(&config);
        known.retain(|topic| topic.name != *longest);
        log.create_topics(&known).await.unwrap();
        let group = dispatcher::consumer_group(&topics);
        let first = |number| Position {
            partition: topics.deliveries.partition(number),
            offset: 0,
            metadata: String::new(),
        };
        let firsts = [first(0), first(1)];
        log.commit_for_empty_group(&group, &firsts).await.unwrap();
        let joining = MemberOptions {
            group: group.clone(),
            topics: vec![topics.deliveries.clone()],
            instance: "dispatcher".to_owned(),
        };
        let (member, mut membership) = log.member(joining).await.unwrap();
        let assigned = membership.recv().await;
        assert!(matches!(assigned, Some(Membership::Assigned(_))));
        let created = create(&log, &config).await.unwrap();
        assert_eq!(created, std::slice::from_ref(longest));
        let made = [longest.partition(0), longest.partition(1)];
        let committed = log.committed(&group, &made).await.unwrap();
        assert!(committed.iter().all(|(_, position)| position.is_none()));
        // Without members the next one commits them.
        member.close().await;
        assert!(create(&log, &config).await.unwrap().is_empty());
        let committed = log.committed(&group, &made).await.unwrap();
        assert!(committed.iter().all(|(_, position)| position.is_some()));
    }
}
