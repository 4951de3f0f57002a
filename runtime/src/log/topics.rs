//! Owns the names and settings of Anabranch's own topics (design: "Topics").

use std::time::Duration;

use super::{TopicName, TopicSettings};

/// The largest record on any topic, in bytes, and the largest a producer sends.
pub const MAX_RECORD_BYTES: usize = 4 << 20;

/// How long a delivery can stay in each delay topic, shortest first, with the topic's suffix.
pub const DELAY_TIERS: [(Duration, &str); 7] = [
    (Duration::from_secs(5), "delay.5s"),
    (Duration::from_secs(30), "delay.30s"),
    (Duration::from_secs(2 * 60), "delay.2m"),
    (Duration::from_secs(10 * 60), "delay.10m"),
    (Duration::from_secs(3600), "delay.1h"),
    (Duration::from_secs(6 * 3600), "delay.6h"),
    (Duration::from_secs(24 * 3600), "delay.24h"),
];

/// The names of Anabranch's topics under one prefix.
#[derive(Debug, Clone)]
pub struct Topics {
    /// CloudEvents as they came in.
    pub events: TopicName,
    /// Those of tenants beyond their fair share; routers read them with a lower weight.
    pub bulk: TopicName,
    /// One event and its targets in one partition.
    pub deliveries: TopicName,
    /// Deliveries that wait, by tier, in the order of [`DELAY_TIERS`].
    pub delays: [TopicName; 7],
    /// Deliveries that will not be attempted again.
    pub dead: TopicName,
    /// The outcome of each delivery that asked for a report.
    pub results: TopicName,
    /// One record an attempt.
    pub attempts: TopicName,
    /// The current state of every object; compacted, one partition.
    pub control: TopicName,
    /// Small resumable state of partition owners; compacted.
    pub progress: TopicName,
}

impl Topics {
    /// The names under `prefix` (for instance `anabranch.`).
    pub fn with_prefix(prefix: &str) -> Self {
        let name = |suffix: &str| TopicName::new(format!("{prefix}{suffix}"));
        Self {
            events: name("events"),
            bulk: name("events.bulk"),
            deliveries: name("deliveries"),
            delays: DELAY_TIERS.map(|(_, suffix)| name(suffix)),
            dead: name("dead"),
            results: name("results"),
            attempts: name("attempts"),
            control: name("control"),
            progress: name("progress"),
        }
    }

    /// The settings to create every topic with.
    pub fn settings(&self, shape: Shape) -> Vec<TopicSettings> {
        let topic = |name: &TopicName, compact: bool, append_time: bool| TopicSettings {
            name: name.clone(),
            partitions: if *name == self.control {
                1
            } else {
                shape.partitions
            },
            replication: shape.replication,
            compact,
            retention: shape.retention,
            max_record_bytes: MAX_RECORD_BYTES,
            append_time,
        };
        let mut all = vec![
            topic(&self.events, false, false),
            topic(&self.bulk, false, false),
            topic(&self.deliveries, false, true),
            topic(&self.dead, false, false),
            topic(&self.results, false, false),
            topic(&self.attempts, false, false),
            topic(&self.control, true, false),
            topic(&self.progress, true, false),
        ];
        all.extend(self.delays.iter().map(|delay| topic(delay, false, true)));
        all
    }

    /// Whether `topic` is one of these, or would be one of a later version.
    pub fn is_own(&self, topic: &str) -> bool {
        let prefix = self.events.as_str().strip_suffix("events");
        match prefix.filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => topic.starts_with(prefix),
            None => self
                .settings(Shape {
                    partitions: 1,
                    replication: 0,
                    retention: Duration::ZERO,
                })
                .iter()
                .any(|settings| settings.name.as_str() == topic),
        }
    }

    /// The tier that `topic` is the delay topic of.
    pub fn delay_of(&self, topic: &TopicName) -> Option<Duration> {
        let tier = self.delays.iter().position(|delay| delay == topic)?;
        DELAY_TIERS.get(tier).map(|(wait, _)| *wait)
    }
}

/// What topics are created with beside their names.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Partitions of every topic but `control`.
    pub partitions: u32,
    /// Copies; 0 leaves it to the log.
    pub replication: u16,
    /// How long records are kept.
    pub retention: Duration,
}
