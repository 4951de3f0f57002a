//! Owns the values of the log: names, records, positions, errors.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Headers;

/// A topic's full name, prefix included. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The topic of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Partition `number` of this topic.
    pub fn partition(&self, number: u32) -> Partition {
        Partition {
            topic: self.clone(),
            number,
        }
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One partition of a topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number, from 0.
    pub number: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// A record to write.
#[derive(Debug, Clone)]
pub struct Record {
    /// The topic.
    pub topic: TopicName,
    /// The partition; `None` lets the log choose by the key's hash, or spread where there is none.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl Record {
    /// The bytes that key, value and headers take.
    pub fn len_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.len_bytes()
    }
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// Unix milliseconds: the log's append time where the topic says so, else the writer's.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl StoredRecord {
    /// The bytes that key, value and headers take.
    pub fn len_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + self.headers.len_bytes()
    }
}

/// Records of one partition in offset order.
#[derive(Debug)]
pub struct Batch {
    /// Where they are from.
    pub partition: Partition,
    /// At least one.
    pub records: Vec<StoredRecord>,
}

/// Where a partition begins and where its readable part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is kept.
    pub start: i64,
    /// The offset behind the last one that a reader of committed records may see.
    pub stable_end: i64,
}

/// A position to commit: the next offset to read, and what the owner wants to remember with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The next offset to read.
    pub offset: i64,
    /// Text of at most 4,096 bytes; empty for none.
    pub metadata: String,
}

/// A position as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The text committed with it; empty for none.
    pub metadata: String,
}

/// Records and positions that become visible together.
#[derive(Debug)]
pub struct Transaction {
    /// The records, in order. A record's partition may be left to the log.
    pub records: Vec<Record>,
    /// The positions that the records complete.
    pub positions: Vec<Position>,
    /// The membership that the positions are committed under; needed where there are positions.
    pub group: Option<GroupMetadata>,
}

/// An opaque proof of membership, made and read by one implementation.
#[derive(Clone)]
pub struct GroupMetadata(Arc<dyn Any + Send + Sync>);

impl GroupMetadata {
    /// Wraps an implementation's own value.
    pub fn new(inner: impl Any + Send + Sync) -> Self {
        Self(Arc::new(inner))
    }

    /// The implementation's own value, if it is a `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupMetadata")
    }
}

/// How a topic is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// The name.
    pub name: TopicName,
    /// How many partitions.
    pub partitions: u32,
    /// How many copies; 0 leaves it to the log.
    pub replication: u16,
    /// Whether only the last record of each key is kept, for ever, instead of all for a time.
    pub compact: bool,
    /// How long records are kept where the topic is not compacted.
    pub retention: Duration,
    /// The largest record taken, in bytes.
    pub max_record_bytes: usize,
    /// Whether timestamps are the log's append time (else the writer's).
    pub append_time: bool,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions.
    pub partitions: u32,
    /// How many copies of the first partition.
    pub replication: u16,
    /// Settings by name as the log reports them, where it has any (Kafka's names).
    pub settings: Vec<(String, String)>,
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same call may succeed later.
    Retry,
    /// The same call can never succeed.
    Never,
    /// Somebody else has taken this caller's place.
    Fenced,
    /// It may or may not have happened.
    Unknown,
}

/// An error of the log: which thing, what happened, and what can be done.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{subject}: {message}")]
pub struct Error {
    class: Class,
    subject: String,
    message: String,
}

impl Error {
    /// An error of `class` about `subject` (a topic, a partition, a group, a producer).
    pub fn new(class: Class, subject: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self {
            class,
            subject: subject.to_string(),
            message: message.to_string(),
        }
    }

    /// What can be done about it.
    pub fn class(&self) -> Class {
        self.class
    }
}

/// Why a record was not written, or is not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// The log will never take it: too large.
    #[error("record is too large for the topic")]
    TooLarge,
    /// The log will never take it: malformed, or for a partition that does not exist.
    #[error("record is invalid for the topic")]
    Invalid,
    /// Time ran out before it was sent.
    #[error("record was not written in time")]
    TimedOut,
    /// It may or may not be in the log.
    #[error("outcome of the write is unknown")]
    Unknown,
}

impl NotWritten {
    /// Whether the record can never be written as it is.
    pub fn is_permanent(self) -> bool {
        match self {
            Self::TooLarge | Self::Invalid => true,
            Self::TimedOut | Self::Unknown => false,
        }
    }
}

/// Why a transaction did not commit, or is not known to have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotCommitted {
    /// It was aborted; nothing of it is visible. `refused` names the records (by index) that can
    /// never be written.
    #[error("transaction aborted: {cause}")]
    Aborted {
        /// Why.
        cause: Error,
        /// Indices into [`Transaction::records`] of what can never be written, with the reason.
        refused: Vec<(usize, NotWritten)>,
    },
    /// The membership no longer stands: aborted, nothing of it is visible.
    #[error("transaction aborted, membership is over or changing: {0}")]
    NotMember(Error),
    /// It may or may not have committed.
    #[error("outcome of the transaction is unknown: {0}")]
    Unknown(Error),
    /// A newer producer of the same id exists; whether this one committed is unknown.
    #[error("transactional producer was fenced: {0}")]
    Fenced(Error),
}
