//! Owns the asymmetric keys of webhooks: their texts (`whsk_…`, `whpk_…`, WH-6) and what is done with
//! them.
//!
//! It must never print a secret key. The surprise: a secret key's text may end with its public key,
//! and then the two must belong together.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::clock::Entropy;

/// How a secret key's text begins.
pub const SECRET_PREFIX: &str = "whsk_";
/// How a public key's text begins.
pub const PUBLIC_PREFIX: &str = "whpk_";
/// Bytes of a seed, and of a public key.
const KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why a text is not a key. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not the prefix and standard base64.
    #[error("key must be `{0}` and standard base64")]
    Text(&'static str),
    /// It has another length.
    #[error("key must have {KEY_BYTES} bytes, or as many again of its public key, got {0}")]
    Length(usize),
    /// The public key behind it is another's.
    #[error("key does not belong to the public key that follows it")]
    Mismatch,
}

/// A key that signs.
pub struct SecretKey {
    pair: Ed25519KeyPair,
}

/// A key that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

// === impl SecretKey ===

impl SecretKey {
    /// Reads `whsk_` and the base64 of a seed, with or without its public key.
    ///
    /// # Errors
    /// [`Error`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = decode(text, SECRET_PREFIX)?;
        let (seed, public) = bytes
            .split_at_checked(KEY_BYTES)
            .ok_or(Error::Length(bytes.len()))?;
        let pair = match public.len() {
            0 => Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Length(seed.len())),
            KEY_BYTES => {
                Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| Error::Mismatch)
            }
            _ => Err(Error::Length(bytes.len())),
        };
        Ok(Self { pair: pair? })
    }

    /// Makes the text of a new key, its public key at its end.
    ///
    /// # Errors
    /// Never for want of randomness: only where the library refuses a seed of the right length.
    pub fn generate(entropy: &Entropy) -> Result<(SecretString, PublicKey), Error> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES));
        bytes.resize(KEY_BYTES, 0);
        entropy.fill(&mut bytes);
        let pair =
            Ed25519KeyPair::from_seed_unchecked(&bytes).map_err(|_| Error::Length(bytes.len()))?;
        let public = Self { pair }.public();
        bytes.extend_from_slice(&public.0);
        let text = Zeroizing::new(STANDARD.encode(&*bytes));
        let text = SecretString::from(format!("{SECRET_PREFIX}{}", *text));
        Ok((text, public))
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        for (byte, known) in bytes.iter_mut().zip(self.pair.public_key().as_ref()) {
            *byte = *known;
        }
        PublicKey(bytes)
    }

    /// The signature of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        let mut bytes = [0; SIGNATURE_BYTES];
        for (byte, made) in bytes.iter_mut().zip(signature.as_ref()) {
            *byte = *made;
        }
        bytes
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// Reads `whpk_` and the base64 of a public key.
    ///
    /// # Errors
    /// [`Error`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = decode(text, PUBLIC_PREFIX)?;
        let bytes = <[u8; KEY_BYTES]>::try_from(bytes.as_slice())
            .map_err(|_| Error::Length(bytes.len()))?;
        Ok(Self(bytes))
    }

    /// Whether `signature` is of `message` and by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

fn decode(text: &str, prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, Error> {
    text.strip_prefix(prefix)
        .and_then(|text| STANDARD.decode(text).ok())
        .map(Zeroizing::new)
        .ok_or(Error::Text(prefix))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// RFC 8032 §7.1, test 1: the seed, the public key, and the signature of nothing.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const SIGNATURE: &str = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

    fn unhex(text: &str) -> Vec<u8> {
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        text.as_bytes().chunks(2).map(byte).collect()
    }

    fn text(prefix: &str, bytes: &[u8]) -> String {
        format!("{prefix}{}", STANDARD.encode(bytes))
    }

    #[test]
    fn the_vector_of_the_rfc_is_reproduced() {
        let both = [unhex(SEED), unhex(PUBLIC)].concat();
        for secret in [
            text(SECRET_PREFIX, &unhex(SEED)),
            text(SECRET_PREFIX, &both),
        ] {
            let key = SecretKey::parse(&secret).unwrap();
            assert_eq!(
                key.public().to_string(),
                text(PUBLIC_PREFIX, &unhex(PUBLIC))
            );
            assert_eq!(key.sign(b"").to_vec(), unhex(SIGNATURE));
            let public = PublicKey::parse(&key.public().to_string()).unwrap();
            assert!(public.verifies(b"", &unhex(SIGNATURE)));
            assert!(!public.verifies(b"x", &unhex(SIGNATURE)));
            assert!(!public.verifies(b"", &unhex(SIGNATURE)[..63]));
            assert!(!format!("{key:?}").contains(secret.get(5..20).unwrap()));
        }
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        let check = |text: &str, expected: Error| {
            assert_eq!(SecretKey::parse(text).err(), Some(expected), "{text}");
        };
        check("whsec_AAAA", Error::Text(SECRET_PREFIX));
        check("whsk_*", Error::Text(SECRET_PREFIX));
        check(&text(SECRET_PREFIX, &[1; 31]), Error::Length(31));
        check(&text(SECRET_PREFIX, &[1; 63]), Error::Length(63));
        check(&text(SECRET_PREFIX, &[1; 64]), Error::Mismatch);
        assert_eq!(
            PublicKey::parse(&text(PUBLIC_PREFIX, &[1; 33])),
            Err(Error::Length(33))
        );
    }

    #[test]
    fn a_new_key_is_read_back_and_differs_from_the_next() {
        let entropy = Entropy::seeded(1);
        let (text, public) = SecretKey::generate(&entropy).unwrap();
        let key = SecretKey::parse(text.expose_secret()).unwrap();
        assert_eq!(key.public(), public);
        assert!(public.verifies(b"m", &key.sign(b"m")));
        assert_ne!(SecretKey::generate(&entropy).unwrap().1, public);
    }
}
