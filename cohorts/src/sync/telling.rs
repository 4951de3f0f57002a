//! Owns telling `control`, on `progress`, how many members there are: by that it knows whether a
//! schedule can be kept.
//!
//! It must never hold up what it tells of. The surprise: once a cohort has deltas, how many it has
//! is not known before the next upload, and that is what it tells.

use std::sync::Arc;

use bytes::Bytes;
use runtime::clock::Clock;
use runtime::log::topics::Topics;
use runtime::log::{Headers, Producer, Record, TopicName};
use schemas::records::{MemberCount, MemberCountKey};
use tracing::warn;

/// Tells how many members there are. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    producer: Arc<dyn Producer>,
    progress: TopicName,
    clock: Clock,
}

impl Teller {
    pub(crate) fn new(producer: Arc<dyn Producer>, topics: &Topics, clock: Clock) -> Self {
        Self {
            producer,
            progress: topics.progress.clone(),
            clock,
        }
    }

    /// Tells it without waiting for the log; `None` is for what is not known, or is gone.
    pub(crate) fn tell(&self, key: MemberCountKey, members: Option<u64>) {
        let count = members.map(|members| MemberCount::new(members, self.clock.now()));
        let record = Record {
            topic: self.progress.clone(),
            partition: None,
            key: Some(Bytes::from(key.to_string())),
            value: count.map(|count| Bytes::from(count.encode())),
            headers: Headers::default(),
        };
        // Whether it is written does not matter to anybody here: the next one says it again.
        if self.producer.try_send(vec![record]).is_err() {
            warn!(%key, "number of members was not told");
        }
    }
}
