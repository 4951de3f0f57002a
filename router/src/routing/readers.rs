//! Owns what is read at once: a reader for each class of sources, with buffers of its own (rule 8).
//!
//! It must never let what one class has not routed keep the others from being read. The surprise:
//! who assigns or pauses a partition need not know: its topic says which reader has it.

use std::sync::Arc;

use runtime::log::topics::Topics;
use runtime::log::{
    Assignment, Error as LogError, Fetched, Partition, Reader, ReaderOptions, SharedLog, TopicName,
};
use tokio::sync::mpsc;

use super::metrics::Class;

/// Bytes taken in at once.
const BATCH_BYTES: usize = 256 << 10;

/// How much of a class may be on its way.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Bytes fetched and not taken in by the loop, all partitions together.
    queue: usize,
    /// Bytes taken in and not routed, of partitions that are not paused. Beyond it the reader
    /// waits, which costs nothing; pausing would throw away what was fetched ahead.
    backlog: usize,
}

const LIVE: Room = Room {
    queue: 8 << 20,
    backlog: 4 << 20,
};
/// Enough to keep a router busy that has nothing else to do.
const OTHERS: Room = Room {
    queue: 4 << 20,
    backlog: 2 << 20,
};

/// The readers of all classes.
#[derive(Debug)]
pub(super) struct Readers {
    bulk_topic: TopicName,
    /// Topics that are read with the live events: small, and heard at once.
    live_topics: [TopicName; 2],
    live: Arc<dyn Reader>,
    bulk: Arc<dyn Reader>,
    source: Arc<dyn Reader>,
}

/// What the readers hand over.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) live: mpsc::Receiver<Fetched>,
    pub(super) bulk: mpsc::Receiver<Fetched>,
    pub(super) source: mpsc::Receiver<Fetched>,
}

impl Readers {
    /// Opens them, with nothing assigned.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn open(
        log: &SharedLog,
        topics: &Topics,
        instance: &str,
    ) -> Result<(Self, Incoming), LogError> {
        let open = async |class: Class| {
            let name = format!("{instance}-router-{}", class.as_str());
            let options = ReaderOptions {
                name,
                queue_bytes: room(class).queue,
                batch_bytes: BATCH_BYTES,
            };
            log.reader(options).await
        };
        let (live, live_fetched) = open(Class::Live).await?;
        let (bulk, bulk_fetched) = open(Class::Bulk).await?;
        let (source, source_fetched) = open(Class::Source).await?;
        let readers = Self {
            bulk_topic: topics.bulk.clone(),
            live_topics: [topics.events.clone(), topics.progress.clone()],
            live,
            bulk,
            source,
        };
        let incoming = Incoming {
            live: live_fetched,
            bulk: bulk_fetched,
            source: source_fetched,
        };
        Ok((readers, incoming))
    }

    fn of(&self, topic: &TopicName) -> &dyn Reader {
        if self.live_topics.contains(topic) {
            &*self.live
        } else if *topic == self.bulk_topic {
            &*self.bulk
        } else {
            &*self.source
        }
    }

    /// As [`Reader::assign`]. Readers number their assignments apart: a partition and a number
    /// belong together.
    pub(super) fn assign(&self, partition: Partition, offset: i64) -> Assignment {
        self.of(&partition.topic).assign(partition, offset)
    }

    /// As [`Reader::unassign`].
    pub(super) fn unassign(&self, partition: Partition) {
        self.of(&partition.topic).unassign(partition);
    }

    /// As [`Reader::pause`].
    pub(super) fn pause(&self, partition: Partition) {
        self.of(&partition.topic).pause(partition);
    }

    /// As [`Reader::resume`].
    pub(super) fn resume(&self, partition: Partition) {
        self.of(&partition.topic).resume(partition);
    }
}

/// The bytes of a class that may be taken in and not routed.
pub(super) fn backlog_max(class: Class) -> usize {
    room(class).backlog
}

fn room(class: Class) -> Room {
    match class {
        Class::Live => LIVE,
        Class::Bulk | Class::Source => OTHERS,
    }
}
