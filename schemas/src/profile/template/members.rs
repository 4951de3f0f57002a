//! Owns a chunk's members as a template sees them: a list of objects.
//!
//! A member is parsed when a template looks into it and not before; written as JSON it is the bytes
//! that it came as.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};

/// All members of a chunk.
#[derive(Debug)]
pub(super) struct Members(pub(super) Vec<Bytes>);

/// One of them.
#[derive(Debug)]
pub(super) struct Member {
    json: Bytes,
    parsed: OnceLock<Value>,
}

impl Members {
    pub(super) fn write_json(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(b"[")?;
        for (at, member) in self.0.iter().enumerate() {
            if at > 0 {
                to.write_all(b",")?;
            }
            to.write_all(member)?;
        }
        to.write_all(b"]")
    }
}

impl Object for Members {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let member = self.0.get(key.as_usize()?)?;
        Some(Value::from_object(Member {
            json: member.clone(),
            parsed: OnceLock::new(),
        }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

impl Member {
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    fn parsed(&self) -> &Value {
        // What is no JSON never was a chunk.
        self.parsed
            .get_or_init(|| serde_json::from_slice(&self.json).unwrap_or_default())
    }
}

impl Object for Member {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = self.parsed().get_item(key).ok()?;
        (!found.is_undefined()).then_some(found)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.parsed().try_iter();
        keys.map_or(Enumerator::Empty, |keys| Enumerator::Values(keys.collect()))
    }
}
