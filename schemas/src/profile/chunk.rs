//! Owns the data of a chunk: what a sync asks of a partner in one request, and for whom.
//!
//! It never parses a member that nobody looks into: members are the bytes that they came as, and
//! are copied into a request as they are. The surprise: a chunk may have no members, where it makes
//! a list or asks after a job.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{OperationKind, Pointer};

/// The type of the event that a chunk is.
pub const CHUNK_TYPE: &str = "anabranch.chunk";
/// The most members of one chunk.
pub const CHUNK_ITEMS_MAX: usize = 20_000;

/// A chunk as it is written: the data of its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChunkData<'a> {
    /// What is asked for.
    pub operation: OperationKind,
    /// The partner's list, by the id that the partner gave it; null where there is none.
    #[serde(default)]
    pub list: Value,
    /// What templates may use beside that: the sync's settings, and what earlier answers held.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Whom it is about: objects with an `id`, prepared for the partner.
    #[serde(default, borrow)]
    pub members: Vec<&'a RawValue>,
}

/// A chunk that was read.
#[derive(Clone)]
pub struct Chunk {
    /// What is asked for.
    pub operation: OperationKind,
    /// The partner's list.
    pub list: Value,
    /// What templates may use beside that.
    pub variables: Map<String, Value>,
    /// Its members, each the bytes of a JSON value.
    pub members: Vec<Bytes>,
}

/// Why data is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAChunk {
    /// No JSON of its form.
    #[error("data is no chunk: {0}")]
    Form(String),
    /// Too many members.
    #[error("a chunk has at most {CHUNK_ITEMS_MAX} members, got {0}")]
    Members(usize),
}

impl ChunkData<'_> {
    /// The event's data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Values of JSON alone: writing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Chunk {
    /// Reads an event's data, which the members go on to share.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(data: &Bytes) -> Result<Self, NotAChunk> {
        let chunk: ChunkData<'_> =
            serde_json::from_slice(data).map_err(|error| NotAChunk::Form(error.to_string()))?;
        if chunk.members.len() > CHUNK_ITEMS_MAX {
            return Err(NotAChunk::Members(chunk.members.len()));
        }
        let members = chunk.members.iter();
        Ok(Self {
            operation: chunk.operation,
            list: chunk.list,
            variables: chunk.variables,
            members: members
                .map(|member| data.slice_ref(member.get().as_bytes()))
                .collect(),
        })
    }

    /// How many members it has.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The ids by which an answer names the members: what is at `at` in each, which is `id` where
    /// nothing else is said; empty where a member has none.
    #[must_use]
    pub fn ids(&self, at: Option<&Pointer>) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| id_of(member, at)).collect()
    }
}

fn id_of(member: &Bytes, at: Option<&Pointer>) -> String {
    let member: Value = serde_json::from_slice(member).unwrap_or_default();
    let found = match at {
        Some(at) => at.find(&member),
        None => member.get("id"),
    };
    match found {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(_) | None => String::new(),
    }
}

impl fmt::Debug for Chunk {
    /// Members are people: they are counted and not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("operation", &self.operation)
            .field("list", &self.list)
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chunk(value: &Value) -> Result<Chunk, NotAChunk> {
        Chunk::read(&Bytes::from(value.to_string()))
    }

    #[test]
    fn a_chunk_comes_back_with_its_members_bytes() {
        let members = [r#"{"id":"a", "n": 1.0}"#, r#"{"id":7,"e":{"m":"x"}}"#];
        let raw: Vec<Box<RawValue>> = members
            .iter()
            .map(|member| RawValue::from_string((*member).to_owned()).unwrap())
            .collect();
        let data = ChunkData {
            operation: OperationKind::Remove,
            list: json!(12),
            variables: Map::new(),
            members: raw.iter().map(AsRef::as_ref).collect(),
        };
        let read = Chunk::read(&Bytes::from(data.encode())).unwrap();
        assert_eq!(read.operation, OperationKind::Remove);
        assert_eq!((read.list.clone(), read.count()), (json!(12), 2));
        assert_eq!(read.members, members);
        assert_eq!(read.ids(None), ["a", "7"]);
        let email = Pointer::try_new("/e/m").unwrap();
        assert_eq!(read.ids(Some(&email)), ["", "x"]);
        assert!(!format!("{read:?}").contains("\"e\""));
    }

    #[test]
    fn what_is_no_chunk_is_said() {
        let poll = chunk(&json!({"operation": "poll"})).unwrap();
        assert_eq!((poll.count(), poll.list), (0, Value::Null));
        for wrong in [
            json!({}),
            json!({"operation": "steal"}),
            json!({"operation": "add", "members": {}}),
        ] {
            assert!(matches!(chunk(&wrong), Err(NotAChunk::Form(_))), "{wrong}");
        }
        let many = json!({"operation": "add", "members": vec![1; CHUNK_ITEMS_MAX + 1]});
        assert_eq!(
            chunk(&many).unwrap_err(),
            NotAChunk::Members(CHUNK_ITEMS_MAX + 1)
        );
    }
}
