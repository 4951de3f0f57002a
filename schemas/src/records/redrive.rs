//! Owns what a redrive keeps on `progress`, so that it is resumed where it was: its position on
//! `dead`, its counts and the deliveries that have not been reported.
//!
//! It is as large as a redrive's credit, whatever the number of letters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::ids::{DeliveryId, RedriveId};
use crate::resources::RedriveCounts;

/// A range of a partition that is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub next: i64,
    /// The offset behind the last one that is meant.
    pub end: i64,
}

/// How far a redrive is; on `progress` under `redrive/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveProgress {
    /// The version of this record's form: 1.
    pub version: u8,
    /// The redrive.
    pub redrive: RedriveId,
    /// What is still to be read.
    pub spans: Vec<Span>,
    /// What became of the letters so far.
    pub counts: RedriveCounts,
    /// What is written to `deliveries` and not reported, with the time (unix milliseconds) at which
    /// its credit is given back all the same.
    pub unreported: BTreeMap<DeliveryId, i64>,
    /// Where on `results` the last report that is counted was: partition and offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<(u32, i64)>,
}

impl RedriveProgress {
    /// The key on `progress`.
    pub fn key(redrive: RedriveId) -> String {
        format!("redrive/{redrive}")
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers alone: writing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// A later version, or JSON that does not fit.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        super::decode_json(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of version 1, which every later version must read: never change them.
    const V1: &str = r#"{"version":1,"redrive":"rdr_00000000000000000000000001","spans":[{"partition":2,"next":5,"end":9}],"counts":{"matched":7,"sent":6,"delivered":4,"dead":1,"unknown":0,"settled":1,"skipped":0},"unreported":{"msg_0000000000000000000000000a":77},"counted":[1,33]}"#;

    #[test]
    fn version_1_is_read_and_written() {
        let read = RedriveProgress::decode(V1.as_bytes()).unwrap();
        let span = Span {
            partition: 2,
            next: 5,
            end: 9,
        };
        assert_eq!(read.spans, [span]);
        assert_eq!(read.counted, Some((1, 33)));
        assert_eq!(read.unreported.get(&DeliveryId::from_bits(10)), Some(&77));
        assert_eq!(String::from_utf8(read.encode()).unwrap(), V1);
    }
}
