//! Owns where the reading of a user's own topic begins, when its source has no position there yet.
//!
//! It must never take another source's position for its own. The surprise: `latest` is where the log
//! was when the source was made, by its records' times, and not where it is when a router comes to
//! it; so what is written in between is not lost, nor is a partition that is added later.

use runtime::log::{Bounds, Committed, Error, Partition, SharedLog};
use schemas::resources::SourceStart;

use super::source::{Reading, label_in};
use super::start::Start;

/// What a source says of its first position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    label: String,
    start: SourceStart,
    /// Unix milliseconds.
    made_at: i64,
}

impl First {
    /// What the source of `reading` says, where there is one.
    pub(super) fn of(reading: &Reading) -> Option<Self> {
        match reading {
            Reading::Source(decoder) => Some(Self {
                label: reading.label(),
                start: decoder.source().start,
                made_at: decoder.source().created_at,
            }),
            Reading::Events | Reading::Stopped => None,
        }
    }

    /// The committed position where it is this source's.
    pub(super) fn own(&self, committed: Option<Committed>) -> Option<i64> {
        let own = committed.filter(|position| label_in(&position.metadata) == self.label);
        own.map(|position| position.offset)
    }

    /// The first position. That there was none before is no incident.
    pub(super) async fn start(
        &self,
        log: &SharedLog,
        partition: &Partition,
        bounds: Bounds,
    ) -> Result<Start, Error> {
        let at = match self.start {
            SourceStart::Earliest => bounds.start,
            SourceStart::Latest => {
                let found = log.offset_at(partition, self.made_at).await?;
                let at = found.unwrap_or(bounds.stable_end);
                at.clamp(bounds.start, bounds.stable_end.max(bounds.start))
            }
        };
        tracing::info!(%partition, source = self.label, at, "source begins");
        Ok(Start {
            at,
            committed: None,
            lost: None,
        })
    }
}
