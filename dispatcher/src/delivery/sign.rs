//! Owns Standard Webhooks signatures, versions v1 and v1a (WH-1..6, WH-8): keys, signing, verifying.
//!
//! Never keeps a secret as text: a symmetric key is its HMAC key schedule, computed once and cloned
//! for each attempt. The surprise: several keys sign at once, of either version, so that an
//! endpoint's owner can rotate a secret without losing a delivery (WH-3).

mod verify;

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use runtime::ed25519;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use verify::{Received, TOLERANCE_SECONDS, VerifyError, VerifyingKey, verify};

const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// `v1a,` and 64 bytes in base64: the longer of the two.
const SIGNATURE_CHARS: usize = 4 + 88;

/// An endpoint's secret, ready to sign with.
#[derive(Clone)]
pub struct SigningKey {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// `v1` (WH-5).
    Symmetric(Hmac<Sha256>),
    /// `v1a` (WH-6).
    Asymmetric(Arc<ed25519::SecretKey>),
}

/// Why a text is not a key. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins like no key that is known.
    #[error("secret must begin with `whsec_`, `whsk_` or, to verify, `whpk_`")]
    Prefix,
    /// What follows is not base64.
    #[error("secret must be standard base64 after `whsec_`")]
    Base64,
    /// Too short to be safe, or longer than the specification allows (WH-5).
    #[error("secret must have 24 to 64 bytes, got {0}")]
    Length(usize),
    /// No asymmetric key.
    #[error("{0}")]
    Asymmetric(#[from] ed25519::Error),
}

/// The `webhook-signature` header: a signature for each key, separated by spaces (WH-3..6).
///
/// `timestamp_seconds` is the `webhook-timestamp` of this attempt (WH-2), `body` the exact bytes
/// that are sent (rule 9).
#[must_use]
pub fn sign(keys: &[SigningKey], id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
    let mut header = String::with_capacity(keys.len() * (SIGNATURE_CHARS + 1));
    let mut digits = [0_u8; 20];
    let timestamp = decimal(timestamp_seconds, &mut digits);
    let parts = [id.as_bytes(), timestamp, body];
    for key in keys {
        if !header.is_empty() {
            header.push(' ');
        }
        match &key.kind {
            Kind::Symmetric(mac) => {
                header.push_str("v1,");
                STANDARD.encode_string(authenticate(mac, parts), &mut header);
            }
            Kind::Asymmetric(key) => {
                header.push_str("v1a,");
                STANDARD.encode_string(key.sign(&content(parts)), &mut header);
            }
        }
    }
    header
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

/// HMAC-SHA256 over `{id}.{timestamp}.{body}` (WH-4).
fn authenticate(key: &Hmac<Sha256>, [id, timestamp, body]: [&[u8]; 3]) -> [u8; 32] {
    let mut mac = key.clone();
    mac.update(id);
    mac.update(b".");
    mac.update(timestamp);
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

/// `{id}.{timestamp}.{body}` (WH-4), which ed25519 reads twice.
fn content(parts: [&[u8]; 3]) -> Vec<u8> {
    parts.join(&b'.')
}

fn symmetric(secret: &[u8]) -> Result<Hmac<Sha256>, KeyError> {
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Err(KeyError::Length(secret.len()));
    }
    Hmac::new_from_slice(secret).map_err(|_| KeyError::Length(secret.len()))
}

/// The key in `whsec_<base64 of 24 to 64 bytes>` (WH-5).
fn parse_symmetric(secret: &str) -> Result<Hmac<Sha256>, KeyError> {
    let text = secret.strip_prefix(SECRET_PREFIX).ok_or(KeyError::Prefix)?;
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::Base64)?);
    symmetric(&bytes)
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads `whsec_<base64 of 24 to 64 bytes>` (WH-5) or `whsk_<base64 of an ed25519 key>` (WH-6).
    ///
    /// # Errors
    /// [`KeyError`] says which part is wrong.
    pub fn parse(secret: &str) -> Result<Self, KeyError> {
        let kind = if secret.starts_with(ed25519::SECRET_PREFIX) {
            Kind::Asymmetric(Arc::new(ed25519::SecretKey::parse(secret)?))
        } else {
            Kind::Symmetric(parse_symmetric(secret)?)
        };
        Ok(Self { kind })
    }

    /// A symmetric key from the secret's raw bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`] outside 24 to 64 bytes.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            kind: Kind::Symmetric(symmetric(secret)?),
        })
    }

    /// What verifies this key's signatures.
    #[must_use]
    pub fn verifying(&self) -> VerifyingKey {
        match &self.kind {
            Kind::Symmetric(mac) => VerifyingKey::symmetric(mac.clone()),
            Kind::Asymmetric(key) => VerifyingKey::asymmetric(key.public()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(redacted)")
    }
}

#[cfg(test)]
mod tests;
