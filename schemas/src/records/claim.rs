//! Owns how a router that opens no transactions claims its instance name: by what it adds to its
//! report of the applied control offset, on `progress` under `applied/router/<instance>`.
//!
//! It must never be needed to read the report itself. The surprise: of two live processes of one
//! name the older ends, as a transactional log would have it, so incarnations sort by age.

use serde::{Deserialize, Serialize};

use super::{Applied, Error};

/// A report, and which process of its instance name it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The report. Whoever wants nothing else reads the whole as an [`Applied`].
    #[serde(flatten)]
    pub applied: Applied,
    /// The process.
    pub incarnation: Incarnation,
}

/// One run of one process. Those that started later are greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(String);

impl Incarnation {
    /// From the bits of a version 7 UUID: the time, then chance.
    pub fn from_uuid_v7(bits: [u8; 16]) -> Self {
        // Digits of one width sort as the numbers do.
        Self(format!("{:032x}", u128::from_be_bytes(bits)))
    }

    /// Its text: digits of one width.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Claim {
    /// The value on `progress`.
    pub fn encode(&self) -> Vec<u8> {
        // Text and numbers alone: writing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a value back.
    ///
    /// # Errors
    /// An unknown version, or a report without an incarnation, as dispatchers write them.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        super::decode_json(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(bits: [u8; 16]) -> Claim {
        Claim {
            applied: Applied {
                version: 1,
                service: "router".to_owned(),
                instance: "router-1".to_owned(),
                control_offset: 7,
                at: 1_795_331_700_000,
            },
            incarnation: Incarnation::from_uuid_v7(bits),
        }
    }

    #[test]
    fn claims_of_version_1_are_read_for_ever_as_claims_and_as_reports() {
        let fixture = include_bytes!("fixtures/claim-v1.json");
        let written = claim(*b"\x01\xa2\x03\x04\x05\x06\x77\x08\x89\x0a\x0b\x0c\x0d\x0e\x0f\x10");
        assert_eq!(Claim::decode(fixture).unwrap(), written);
        assert_eq!(written.encode(), fixture.trim_ascii());
        assert_eq!(
            serde_json::from_slice::<Applied>(fixture).unwrap(),
            written.applied
        );
        let report = include_bytes!("fixtures/applied-v1.json");
        assert!(Claim::decode(report).is_err());
    }

    #[test]
    fn who_started_later_is_greater() {
        let mut bits = [0; 16];
        let mut before = claim(bits).incarnation;
        for byte in (0..16).rev() {
            bits[byte] = 0x10;
            let after = claim(bits).incarnation;
            assert!(before < after, "{before:?} {after:?}");
            before = after;
        }
    }
}
