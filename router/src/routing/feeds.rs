//! Owns which topics of the user's own this router reads: the sources that `control` names, and which
//! of their topics are there.
//!
//! It must never let a topic that is missing, or may not be seen, keep the others from being routed:
//! only topics that are there are shared with the group, and one that turns out not to be readable
//! is set aside for a while. The surprise: whoever deletes a source and makes another of the same
//! topic makes a new source, whose position is another one's no more than that of a new topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime::log::{Error as LogError, Partition, SharedLog, TopicName};
use runtime::view::Update;
use schemas::ids::SourceId;
use schemas::records::{ControlKey, ControlObject};
use schemas::source::Decoder;
use tokio::time::Instant;

use super::source::{Phase, Reading};
use super::{Done, Router};

/// Topics that are missing are looked for so often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A topic that cannot be read or committed is tried again after so long: trying is a rebalance.
const SET_ASIDE: Duration = Duration::from_secs(120);
/// A router that starts waits so long to know which topics are there, so that it joins its group
/// with them.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What is known of the sources.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    decoders: BTreeMap<SourceId, Decoder>,
    present: BTreeSet<TopicName>,
    /// What the group was told that this router reads, beside the installation's own topics.
    subscribed: BTreeSet<TopicName>,
    /// Topics of sources, with who says how each is read.
    topics: BTreeMap<TopicName, SourceId>,
    /// Topics that could not be read or committed, and until when they count as missing.
    aside: BTreeMap<TopicName, Instant>,
    is_looking: bool,
    look_at: Option<Instant>,
}

impl Feeds {
    /// Takes over what `control` says; returns whether it was about sources.
    pub(super) fn apply(&mut self, update: &Update) -> bool {
        let mut changed = false;
        for change in &update.changes {
            match (&change.key, &change.object) {
                (ControlKey::Source(id), Some(ControlObject::Source(source))) => {
                    let decoder = Decoder::new(source.as_ref().clone());
                    self.decoders.insert(*id, decoder);
                    changed = true;
                }
                (ControlKey::Source(id), _) => changed |= self.decoders.remove(id).is_some(),
                (
                    ControlKey::Installation
                    | ControlKey::Tenant(_)
                    | ControlKey::ApiKey(_)
                    | ControlKey::Endpoint(_)
                    | ControlKey::Subscription(_)
                    | ControlKey::Redrive(_)
                    | ControlKey::Cohort(_)
                    | ControlKey::Sync(_),
                    _,
                ) => {}
            }
        }
        if changed {
            self.topics.clear();
            for (id, decoder) in &self.decoders {
                let topic = TopicName::new(decoder.source().topic.as_str());
                // The API admits one of a topic; the first counts.
                self.topics.entry(topic).or_insert(*id);
            }
            self.present.retain(|topic| self.topics.contains_key(topic));
            self.aside
                .retain(|topic, _| self.topics.contains_key(topic));
        }
        changed
    }

    /// How records of `topic` are read from now on.
    pub(super) fn reading(&self, topic: &TopicName) -> Reading {
        let id = self.topics.get(topic);
        let decoder = id.and_then(|id| self.decoders.get(id));
        decoder.map_or(Reading::Stopped, |decoder| Reading::Source(decoder.clone()))
    }

    /// Each topic with its weight.
    fn weights(&self) -> impl Iterator<Item = (&TopicName, u32)> {
        self.topics.iter().filter_map(|(topic, id)| {
            let weight = self.decoders.get(id)?.source().weight;
            Some((topic, u32::from(weight)))
        })
    }

    fn missing(&self) -> Vec<TopicName> {
        let topics = self.topics.keys();
        topics
            .filter(|topic| !self.present.contains(*topic))
            .cloned()
            .collect()
    }

    /// Looks for every topic before the group is joined, for as long as that may take; what is not
    /// known by then is looked for later. Returns the topics that are there.
    pub(super) async fn first_look(&mut self, log: &SharedLog) -> Vec<TopicName> {
        let missing = self.missing();
        if !missing.is_empty() {
            let look = tokio::time::timeout(FIRST_LOOK, look_for(log.clone(), missing));
            self.found(&look.await.unwrap_or_default());
        }
        self.subscribed = self.present.clone();
        self.subscribed.iter().cloned().collect()
    }

    fn found(&mut self, looked_for: &[(TopicName, bool)]) {
        for (topic, is_there) in looked_for {
            let is_ours = self.topics.contains_key(topic) && !self.aside.contains_key(topic);
            if *is_there && is_ours {
                self.present.insert(topic.clone());
            }
        }
    }

    /// When missing topics are looked for again.
    pub(super) fn look_due(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.is_looking)
    }
}

/// Which of `topics` are there. One that cannot be asked for is taken for missing.
async fn look_for(log: SharedLog, topics: Vec<TopicName>) -> Vec<(TopicName, bool)> {
    let mut found = Vec::with_capacity(topics.len());
    for topic in topics {
        let shape = log.describe_topic(&topic).await;
        if let Err(error) = &shape {
            tracing::debug!(%topic, %error, "topic of a source cannot be seen");
        }
        found.push((topic, matches!(shape, Ok(Some(_)))));
    }
    found
}

impl Router {
    /// Makes what this router reads what `control` says.
    pub(super) fn follow_sources(&mut self, now: Instant) {
        for (topic, weight) in self.feeds.weights() {
            self.turns.set_weight(topic, Some(weight));
        }
        let partitions: Vec<Partition> = self.sources.keys().cloned().collect();
        for partition in partitions {
            self.follow_source(&partition);
        }
        self.feeds.look_at = Some(now);
        self.subscribe();
    }

    fn follow_source(&mut self, partition: &Partition) {
        let reading = self.feeds.reading(&partition.topic);
        let number = self.next_number();
        let Some(source) = self.sources.get_mut(partition) else {
            return;
        };
        match &source.reading {
            Reading::Events => return,
            Reading::Source(_) | Reading::Stopped => {}
        }
        let is_same = source.label() == reading.label() && !source.label().is_empty();
        if is_same || !reading.goes_on() {
            // What is begun goes on as it was begun.
            let stops = !reading.goes_on();
            source.reading = reading;
            source.ready = true;
            if stops {
                source.drop_backlog();
                self.reader.unassign(partition.clone());
                self.turns.set_weight(&partition.topic, None);
            }
            return;
        }
        source.reading = reading;
        if source.phase == Phase::Starting {
            source.tenure = number;
            self.look_up_start(partition);
        } else if source.phase != Phase::Draining {
            // Another source's: what was begun is ended and committed first.
            source.drop_backlog();
            source.overtaken = true;
            source.ready = true;
            self.reader.unassign(partition.clone());
        }
    }

    /// Tells the group which topics are shared, where that has changed.
    fn subscribe(&mut self) {
        if self.stopping || self.feeds.subscribed == self.feeds.present {
            return;
        }
        let present = self.feeds.present.clone();
        tracing::info!(topics = ?present, "sources that are read have changed");
        let own = self.options.sources.iter();
        let topics = own.chain(&present).cloned().collect();
        self.member.subscribe(topics);
        self.feeds.subscribed = present;
    }

    /// Looks for topics that are missing, when it is time.
    pub(super) fn look_for_topics(&mut self, now: Instant) {
        if self.feeds.look_due().is_none_or(|due| due > now) {
            return;
        }
        self.feeds.look_at = None;
        self.feeds.aside.retain(|_, until| *until > now);
        let mut missing = self.feeds.missing();
        self.show_sources(&missing);
        if missing.is_empty() {
            return;
        }
        // What is set aside is there, as far as can be seen.
        missing.retain(|topic| !self.feeds.aside.contains_key(topic));
        self.feeds.is_looking = true;
        let log = self.log.clone();
        self.work.push(Box::pin(async move {
            Done::Looked(look_for(log, missing).await)
        }));
    }

    pub(super) fn on_looked(&mut self, found: &[(TopicName, bool)]) {
        self.feeds.is_looking = false;
        self.feeds.found(found);
        let missing = self.feeds.missing();
        for topic in &missing {
            tracing::warn!(%topic, "topic of a source is missing or cannot be seen");
        }
        self.show_sources(&missing);
        let again = self.clock.instant() + LOOK_AGAIN;
        let sooner = self.feeds.look_at.filter(|at| *at < again);
        self.feeds.look_at = sooner.or((!missing.is_empty()).then_some(again));
        self.subscribe();
    }

    /// Gives a topic of a source up that cannot be read or committed, until it is tried again:
    /// nobody else's events wait for it.
    pub(super) fn set_aside(&mut self, topic: &TopicName, error: &LogError) {
        tracing::error!(%topic, %error, "topic of a source is set aside");
        self.metrics.set_aside.inc();
        let now = self.clock.instant();
        self.feeds.aside.insert(topic.clone(), now + SET_ASIDE);
        self.feeds.present.remove(topic);
        let own = self.sources.keys();
        let own: Vec<Partition> = own
            .filter(|partition| partition.topic == *topic)
            .cloned()
            .collect();
        own.iter().for_each(|partition| self.give_up(partition));
        let again = now + LOOK_AGAIN;
        self.feeds.look_at = Some(self.feeds.look_at.map_or(again, |at| at.min(again)));
        self.show_sources(&self.feeds.missing());
        self.subscribe();
    }

    fn show_sources(&self, missing: &[TopicName]) {
        let set = |gauge: &runtime::telemetry::IntGauge, count: usize| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.metrics.source_topics, self.feeds.topics.len());
        set(&self.metrics.missing_topics, missing.len());
    }
}
