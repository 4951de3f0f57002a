//! Owns what is on the topics: versioned values, and how they are written as bytes.
//!
//! A record written by an old version is read by every later one; fixtures in `fixtures/` hold
//! bytes of each version. What a version does not know it refuses, naming it.

mod activation;
mod attempt;
mod claim;
mod control;
mod dead;
mod delivery;
mod members;
mod progress;
mod redrive;
mod result;
mod wire;

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use activation::{Activation, ActivationKey, OwnerMark, Writer};
pub use attempt::{AttemptRecord, AttemptVerdict};
pub use claim::{Claim, Incarnation};
pub use control::{Applied, ControlKey, ControlObject, Installation};
pub use dead::{DEAD_HEADER, DeadLetter, DeadReason, LastAttempt};
pub use delivery::{AttemptState, DeliveryRecord, MAX_TARGETS, Origin, Target};
pub use members::{MemberCount, MemberCountKey};
pub use progress::{
    BreakerProgress, DisabledProgress, EnabledProgress, LaneProgress, OrderProgress, OwnerProgress,
    ProbationProgress, ProgressKey, Spent, WindowProgress,
};
pub use redrive::{RedriveProgress, Span};
pub use result::{ItemOutcome, ItemResult, ResultRecord, ResultVerdict};

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The value is missing.
    #[error("record has no value")]
    Empty,
    /// The value ends before it is whole.
    #[error("record ends within its {0}")]
    Short(&'static str),
    /// The value was written by a later version.
    #[error("record version {0} is not known; update this service")]
    Version(u8),
    /// A field has a value that no version writes.
    #[error("record has an invalid {0}")]
    Invalid(&'static str),
    /// The event's attributes are not a CloudEvent.
    #[error("record's event: {0}")]
    Event(String),
    /// The JSON of the value does not fit.
    #[error("record's json: {0}")]
    Json(String),
}

/// Reads a JSON record of version 1; the version is looked at first, so that a later one is named.
fn decode_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u8,
    }
    let fault = |error: serde_json::Error| Error::Json(error.to_string());
    let Versioned { version } = serde_json::from_slice(json).map_err(fault)?;
    if version != 1 {
        return Err(Error::Version(version));
    }
    serde_json::from_slice(json).map_err(fault)
}

#[cfg(test)]
mod tests;
