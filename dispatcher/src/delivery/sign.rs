//! Owns Standard Webhooks signatures, version v1 (WH-1..5, WH-8): keys, signing, verifying.
//!
//! Never keeps a secret as text: a key is its HMAC key schedule, computed once and cloned for each
//! attempt. The surprise: several keys sign at once, so that an endpoint's owner can rotate a
//! secret without losing a delivery (WH-3).

use std::fmt;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// How far a timestamp may be from the verifier's clock, in either direction (WH-8).
pub const TOLERANCE_SECONDS: u64 = 5 * 60;

const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// `v1,` and 32 bytes in base64.
const SIGNATURE_CHARS: usize = 3 + 44;

/// An endpoint's secret, ready to sign with.
#[derive(Clone)]
pub struct SigningKey {
    mac: Hmac<Sha256>,
}

/// Why a text is not a secret. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It does not begin with `whsec_`.
    #[error("secret must begin with `whsec_`")]
    Prefix,
    /// What follows is not base64.
    #[error("secret must be standard base64 after `whsec_`")]
    Base64,
    /// Too short to be safe, or longer than the specification allows (WH-5).
    #[error("secret must have 24 to 64 bytes, got {0}")]
    Length(usize),
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
    /// No v1 signature in the header is by one of the keys.
    #[error("no signature matches")]
    NoMatch,
}

/// The `webhook-signature` header: one v1 signature for each key, separated by spaces (WH-3..5).
///
/// `timestamp_seconds` is the `webhook-timestamp` of this attempt (WH-2), `body` the exact bytes
/// that are sent (rule 9).
#[must_use]
pub fn sign(keys: &[SigningKey], id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
    let mut header = String::with_capacity(keys.len() * (SIGNATURE_CHARS + 1));
    let mut digits = [0_u8; 20];
    let timestamp = decimal(timestamp_seconds, &mut digits);
    for key in keys {
        if !header.is_empty() {
            header.push(' ');
        }
        header.push_str("v1,");
        STANDARD.encode_string(key.mac(id.as_bytes(), timestamp, body), &mut header);
    }
    header
}

/// Accepts a message that any of the keys signed not longer than [`TOLERANCE_SECONDS`] ago (WH-8).
///
/// # Errors
/// [`VerifyError`]; signatures of unknown versions are ignored, not refused.
pub fn verify(
    keys: &[SigningKey],
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
        // The header's own digits are signed content, not our reading of them.
        let mac = key.mac(
            received.id.as_bytes(),
            received.timestamp.as_bytes(),
            received.body,
        );
        let expected = STANDARD.encode(mac);
        for given in v1_signatures(received.signature) {
            matched |= given.as_bytes().ct_eq(expected.as_bytes());
        }
    }
    if bool::from(matched) {
        Ok(())
    } else {
        Err(VerifyError::NoMatch)
    }
}

fn v1_signatures(header: &str) -> impl Iterator<Item = &str> {
    header
        .split(' ')
        .filter_map(|part| part.strip_prefix("v1,"))
}

fn decimal(number: i64, digits: &mut [u8; 20]) -> &[u8] {
    let mut rest = digits.as_mut_slice();
    // 20 bytes hold any i64, so the write cannot run out of room.
    let written = match write!(rest, "{number}") {
        Ok(()) => 20 - rest.len(),
        Err(_) => 0,
    };
    digits.get(..written).unwrap_or_default()
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads `whsec_<base64 of 24 to 64 bytes>` (WH-5).
    ///
    /// # Errors
    /// [`KeyError`] says which part is wrong.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        let text = secret.strip_prefix(SECRET_PREFIX).ok_or(KeyError::Prefix)?;
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::Base64)?);
        Self::from_bytes(&bytes)
    }

    /// A key from the secret's raw bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`] outside 24 to 64 bytes.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, KeyError> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(KeyError::Length(secret.len()));
        }
        let mac = Hmac::new_from_slice(secret).map_err(|_| KeyError::Length(secret.len()))?;
        Ok(Self { mac })
    }

    /// HMAC-SHA256 over `{id}.{timestamp}.{body}` (WH-4).
    fn mac(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        mac.update(id);
        mac.update(b".");
        mac.update(timestamp);
        mac.update(b".");
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const TIMESTAMP: i64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn check(keys: &[SigningKey], signature: &str, now: i64) -> Result<(), VerifyError> {
        let timestamp = TIMESTAMP.to_string();
        verify(
            keys,
            &Received {
                id: ID,
                timestamp: &timestamp,
                signature,
                body: BODY,
            },
            now,
        )
    }

    #[test]
    fn the_specifications_vector_is_reproduced() {
        // WH-4, WH-5
        let keys = [SigningKey::parse(SECRET).unwrap()];
        assert_eq!(sign(&keys, ID, TIMESTAMP, BODY), SIGNATURE);
        assert_eq!(check(&keys, SIGNATURE, TIMESTAMP), Ok(()));
    }

    #[test]
    fn rotation_signs_with_every_key_and_either_verifies() {
        // WH-3
        let header = sign(&[key(1), key(2)], ID, TIMESTAMP, BODY);
        assert_eq!(header.split(' ').count(), 2);
        assert_eq!(check(&[key(1)], &header, TIMESTAMP), Ok(()));
        assert_eq!(check(&[key(2)], &header, TIMESTAMP), Ok(()));
        assert_eq!(
            check(&[key(3)], &header, TIMESTAMP),
            Err(VerifyError::NoMatch)
        );
        assert_eq!(sign(&[], ID, TIMESTAMP, BODY), "");
    }

    #[test]
    fn verifying_follows_the_tolerance_and_ignores_unknown_versions() {
        // WH-8
        let keys = [SigningKey::parse(SECRET).unwrap()];
        let mixed = format!("v1a,abcd v2,{SIGNATURE} {SIGNATURE} v1,nonsense");
        assert_eq!(check(&keys, &mixed, TIMESTAMP + 300), Ok(()));
        assert_eq!(check(&keys, SIGNATURE, TIMESTAMP - 300), Ok(()));
        assert_eq!(
            check(&keys, SIGNATURE, TIMESTAMP + 301),
            Err(VerifyError::TooOld)
        );
        assert_eq!(
            check(&keys, SIGNATURE, TIMESTAMP - 301),
            Err(VerifyError::TooNew)
        );
        assert_eq!(
            check(&keys, "v1a,abcd", TIMESTAMP),
            Err(VerifyError::NoMatch)
        );
        assert_eq!(check(&keys, "", TIMESTAMP), Err(VerifyError::NoMatch));
        assert_eq!(check(&[], SIGNATURE, TIMESTAMP), Err(VerifyError::NoMatch));
        let odd = Received {
            id: ID,
            timestamp: "soon",
            signature: SIGNATURE,
            body: BODY,
        };
        assert_eq!(verify(&keys, &odd, TIMESTAMP), Err(VerifyError::Timestamp));
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        let parse = |text: &str| SigningKey::parse(text).map(|_| ());
        let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(
            parse("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
            Err(KeyError::Prefix)
        );
        assert_eq!(parse("whsec_!!"), Err(KeyError::Base64));
        assert_eq!(parse(&secret(23)), Err(KeyError::Length(23)));
        assert_eq!(parse(&secret(24)), Ok(()));
        assert_eq!(parse(&secret(64)), Ok(()));
        assert_eq!(parse(&secret(65)), Err(KeyError::Length(65)));
        assert_eq!(format!("{:?}", key(1)), "SigningKey(redacted)");
    }

    #[test]
    fn the_key_schedule_is_wiped_when_dropped() {
        // HMAC's states are digests; the feature that wipes them must stay switched on.
        const fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Sha256>();
    }

    proptest! {
        #[test]
        fn the_reference_crate_agrees(
            secret in proptest::collection::vec(any::<u8>(), 24..=64),
            id in "msg_[0-9a-z]{26}",
            timestamp in 0_i64..4_000_000_000,
            body in ".{0,200}",
        ) {
            let reference = standardwebhooks::Webhook::from_bytes(secret.clone()).unwrap();
            let expected = reference.sign(&id, timestamp, body.as_bytes()).unwrap();
            let keys = [SigningKey::from_bytes(&secret).unwrap()];
            prop_assert_eq!(sign(&keys, &id, timestamp, body.as_bytes()), expected);
        }

        #[test]
        fn a_changed_byte_is_noticed(body in proptest::collection::vec(any::<u8>(), 1..100), at: usize) {
            let keys = [key(9)];
            let signature = sign(&keys, ID, TIMESTAMP, &body);
            let mut changed = body;
            let at = at % changed.len();
            changed[at] ^= 1;
            let timestamp = TIMESTAMP.to_string();
            let received =
                Received { id: ID, timestamp: &timestamp, signature: &signature, body: &changed };
            prop_assert_eq!(verify(&keys, &received, TIMESTAMP), Err(VerifyError::NoMatch));
        }
    }
}
