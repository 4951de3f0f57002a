//! Owns this router's claim on its instance name: told on `progress` with each report, and watched
//! there (design.md §2, "instance name").
//!
//! It must never take a predecessor that has ended for a live namesake. The surprise: a router
//! opens no transaction that would fence another, so the older of two ends when it hears the newer.

use std::num::NonZeroU32;
use std::time::Duration;

use runtime::log::{
    Assignment, Batch, Class, Error, Partition, Record, SharedLog, TopicName, patience,
};
use runtime::view::applied_record;
use schemas::records::{Applied, Claim, Incarnation};
use schemas::resources::{Placement, Quota};

const RETRY: Duration = Duration::from_secs(1);

/// The claim, and where it is told.
#[derive(Debug)]
pub(super) struct Name {
    key: String,
    incarnation: Incarnation,
    /// All namesakes tell theirs there.
    place: Partition,
    assignment: Option<Assignment>,
}

impl Name {
    /// The claim of the process `incarnation` on `instance`.
    ///
    /// # Errors
    /// Where `progress` is not there or cannot be asked.
    pub(super) async fn new(
        log: &SharedLog,
        progress: &TopicName,
        instance: &str,
        incarnation: Incarnation,
    ) -> Result<Self, Error> {
        let shape = patience::at_start(|| log.describe_topic(progress)).await?;
        let partitions = shape.and_then(|shape| NonZeroU32::new(shape.partitions));
        let missing = || Error::new(Class::Never, progress, "topic does not exist");
        let partitions = partitions.ok_or_else(missing)?;
        let key = format!("applied/router/{instance}");
        let place = Placement::of(&Quota::from_text(&key), partitions);
        Ok(Self {
            key,
            incarnation,
            place: progress.partition(place.partition()),
            assignment: None,
        })
    }

    /// Where namesakes are heard.
    pub(super) fn place(&self) -> &Partition {
        &self.place
    }

    /// They are heard under this assignment from now on.
    pub(super) fn listen(&mut self, assignment: Assignment) {
        self.assignment = Some(assignment);
    }

    /// Whether the assignment is the one that namesakes are heard under.
    pub(super) fn listens(&self, assignment: Assignment) -> bool {
        self.assignment == Some(assignment)
    }

    /// The report that tells the claim.
    pub(super) fn record(&self, applied: Applied) -> Record {
        let record = applied_record(&self.place.topic, &applied);
        let claim = Claim {
            applied,
            incarnation: self.incarnation.clone(),
        };
        Record {
            partition: Some(self.place.number),
            value: Some(claim.encode().into()),
            ..record
        }
    }

    /// Whether a newer process of this name speaks in `batch`. What an older one says, dead or
    /// alive, is for itself to mind.
    pub(super) fn is_taken(&self, batch: &Batch) -> bool {
        let own = batch.records.iter().filter(|record| {
            let key = record.key.as_deref();
            key == Some(self.key.as_bytes())
        });
        let mut claims = own
            .filter_map(|record| record.value.as_deref())
            .filter_map(|value| Claim::decode(value).ok());
        claims.any(|claim| claim.incarnation > self.incarnation)
    }
}

/// The end of `place`: what is told from now on is behind it.
pub(super) async fn end_of(log: SharedLog, place: Partition) -> i64 {
    loop {
        match log.bounds(&place).await {
            Ok(bounds) => return bounds.stable_end,
            Err(error) => {
                tracing::warn!(%place, %error, "namesakes are not heard yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
