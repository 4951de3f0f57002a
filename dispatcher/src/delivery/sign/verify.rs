//! Owns the receiver's side of signatures: whether a message is one of ours (WH-8).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use runtime::ed25519::{self, PublicKey};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::{KeyError, authenticate, content, parse_symmetric};

/// How far a timestamp may be from the verifier's clock, in either direction (WH-8).
pub const TOLERANCE_SECONDS: u64 = 5 * 60;

/// What an endpoint's owner verifies with.
#[derive(Clone)]
pub struct VerifyingKey {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Symmetric(Hmac<Sha256>),
    Asymmetric(PublicKey),
}

/// What arrived at an endpoint, to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The `webhook-id` header.
    pub id: &'a str,
    /// The `webhook-timestamp` header.
    pub timestamp: &'a str,
    /// The `webhook-signature` header.
    pub signature: &'a str,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp is not a number of seconds.
    #[error("webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// The timestamp is more than [`TOLERANCE_SECONDS`] ago.
    #[error("webhook-timestamp is too old")]
    TooOld,
    /// The timestamp is more than [`TOLERANCE_SECONDS`] ahead.
    #[error("webhook-timestamp is too far in the future")]
    TooNew,
    /// No signature in the header is by one of the keys.
    #[error("no signature matches")]
    NoMatch,
}

/// Accepts a message that any of the keys signed not longer than [`TOLERANCE_SECONDS`] ago (WH-8).
///
/// # Errors
/// [`VerifyError`]; signatures of unknown versions are ignored, not refused.
pub fn verify(
    keys: &[VerifyingKey],
    received: &Received<'_>,
    now_seconds: i64,
) -> Result<(), VerifyError> {
    let timestamp: i64 = received
        .timestamp
        .parse()
        .map_err(|_| VerifyError::Timestamp)?;
    if timestamp.abs_diff(now_seconds) > TOLERANCE_SECONDS {
        return Err(if timestamp < now_seconds {
            VerifyError::TooOld
        } else {
            VerifyError::TooNew
        });
    }
    let mut matched = Choice::from(0);
    for key in keys {
        matched |= key.signed(received);
    }
    if bool::from(matched) {
        Ok(())
    } else {
        Err(VerifyError::NoMatch)
    }
}

fn signatures<'a>(header: &'a str, version: &'static str) -> impl Iterator<Item = &'a str> {
    header
        .split(' ')
        .filter_map(move |part| part.strip_prefix(version)?.strip_prefix(','))
}

// === impl VerifyingKey ===

impl VerifyingKey {
    /// Reads `whsec_…` (WH-5), or `whpk_…`, the public key of an asymmetric secret (WH-6).
    ///
    /// # Errors
    /// [`KeyError`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Ok(if text.starts_with(ed25519::PUBLIC_PREFIX) {
            Self::asymmetric(PublicKey::parse(text)?)
        } else {
            Self::symmetric(parse_symmetric(text)?)
        })
    }

    pub(super) fn symmetric(mac: Hmac<Sha256>) -> Self {
        Self {
            kind: Kind::Symmetric(mac),
        }
    }

    pub(super) fn asymmetric(key: PublicKey) -> Self {
        Self {
            kind: Kind::Asymmetric(key),
        }
    }

    fn signed(&self, received: &Received<'_>) -> Choice {
        // The header's own digits are signed content, not our reading of them.
        let parts = [
            received.id.as_bytes(),
            received.timestamp.as_bytes(),
            received.body,
        ];
        match &self.kind {
            Kind::Symmetric(mac) => {
                let expected = STANDARD.encode(authenticate(mac, parts));
                signatures(received.signature, "v1")
                    .map(|given| given.as_bytes().ct_eq(expected.as_bytes()))
                    .fold(Choice::from(0), |matched, one| matched | one)
            }
            // Nothing here is secret: time may tell.
            Kind::Asymmetric(key) => {
                let content = content(parts);
                let matched = signatures(received.signature, "v1a").any(|given| {
                    let signature = STANDARD.decode(given);
                    signature.is_ok_and(|signature| key.verifies(&content, &signature))
                });
                Choice::from(u8::from(matched))
            }
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifyingKey(redacted)")
    }
}
