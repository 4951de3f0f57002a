//! Owns secrets at rest: sealing a value before it becomes part of a record, and opening it
//! (rule 17).
//!
//! It must never print a secret or a key, nor say why opening failed in a way that depends on the
//! plaintext. The surprise: a sealed value is bound to its key's id, its object and its field, so
//! one copied to another object or field does not open.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::clock::Entropy;

pub use secrecy::{ExposeSecret, SecretSlice, SecretString};

const VERSION: &str = "v1";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const KEY_ID_CHARS_MAX: usize = 32;

/// Why a key or a sealed value was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// There is no key to seal with.
    #[error("no key: at least one is needed to keep secrets")]
    NoKey,
    /// A key's text is not `id:base64`.
    #[error("key {index}: expected `id:` and 32 bytes in base64, the id of a-z, 0-9 and `-`")]
    BadKey {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// Two keys have one id.
    #[error("key `{id}` is named twice")]
    DuplicateKey {
        /// The id.
        id: String,
    },
    /// The text is not a sealed value of a version known here.
    #[error("not a sealed value")]
    NotSealed,
    /// It was sealed with a key that is no longer configured.
    #[error("sealed with key `{id}`, which is not configured")]
    UnknownKey {
        /// The key's id.
        id: String,
    },
    /// The value was altered, or belongs to another object or field.
    #[error("{object}: field {field}: sealed value does not open")]
    DoesNotOpen {
        /// The object it was read from.
        object: String,
        /// The field it was read from.
        field: String,
    },
}

/// Seals and opens with several keys: the first, newest one seals, each opens what it sealed.
pub struct Sealer {
    keys: Vec<Key>,
}

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    /// Reads keys of the form `id:base64 of 32 bytes`, newest first.
    ///
    /// # Errors
    /// Where there is none, one is malformed, or two have one id.
    pub fn parse(texts: &[SecretString]) -> Result<Self, Error> {
        let mut keys: Vec<Key> = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let key = parse_key(text.expose_secret()).ok_or(Error::BadKey { index })?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(Error::DuplicateKey { id: key.id });
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(Error::NoKey);
        }
        Ok(Self { keys })
    }

    /// Makes the text of a new key named `id`, in the form that [`Sealer::parse`] reads.
    ///
    /// # Errors
    /// Where the id is not of a-z, 0-9 and `-`, 1 to 32 characters.
    pub fn generate(id: &str, entropy: &Entropy) -> Result<SecretString, Error> {
        if !is_key_id(id) {
            return Err(Error::BadKey { index: 0 });
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *bytes);
        let text = Zeroizing::new(STANDARD.encode(*bytes));
        Ok(SecretString::from(format!("{id}:{}", *text)))
    }

    /// Seals `plaintext` for one field of one object: `v1.<key id>.<base64url of nonce and
    /// ciphertext>`.
    ///
    /// # Errors
    /// [`Error::NoKey`] alone, which a parsed sealer never has.
    pub fn seal(
        &self,
        object: &str,
        field: &str,
        plaintext: &[u8],
        entropy: &Entropy,
    ) -> Result<String, Error> {
        let key = self.keys.first().ok_or(Error::NoKey)?;
        // 192 random bits: no counter to keep, and no collision to fear.
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let aad = associated(&key.id, object, field);
        let payload = Payload {
            msg: plaintext,
            aad: &aad,
        };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload);
        // The cipher refuses only plaintexts of more than 256 GiB.
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed.map_err(|_| Error::NoKey)?);
        Ok(format!(
            "{VERSION}.{}.{}",
            key.id,
            URL_SAFE_NO_PAD.encode(bytes)
        ))
    }

    /// Opens a sealed value read from `field` of `object`.
    ///
    /// # Errors
    /// Where the text is no sealed value, its key is not configured, or it was altered or moved.
    pub fn open(&self, object: &str, field: &str, text: &str) -> Result<SecretSlice<u8>, Error> {
        let (id, sealed) = split(text)?;
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| Error::UnknownKey { id: id.to_owned() })?;
        let bytes = URL_SAFE_NO_PAD
            .decode(sealed)
            .map_err(|_| Error::NotSealed)?;
        let (nonce, ciphertext) = bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(Error::NotSealed)?;
        let aad = associated(id, object, field);
        let payload = Payload {
            msg: ciphertext,
            aad: &aad,
        };
        match key.cipher.decrypt(&XNonce::from(*nonce), payload) {
            Ok(plaintext) => Ok(SecretSlice::from(plaintext)),
            Err(_) => Err(Error::DoesNotOpen {
                object: object.to_owned(),
                field: field.to_owned(),
            }),
        }
    }

    /// Whether a sealed value should be sealed again, since a newer key exists.
    #[must_use]
    pub fn needs_rewrap(&self, text: &str) -> bool {
        let newest = self.keys.first().map(|key| key.id.as_str());
        split(text).is_ok_and(|(id, _)| Some(id) != newest)
    }

    /// Ids of the keys, newest first.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.key_ids().collect();
        f.debug_struct("Sealer")
            .field("key_ids", &ids)
            .finish_non_exhaustive()
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let (id, encoded) = text.trim().split_once(':')?;
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    if !is_key_id(id) || bytes.len() != KEY_BYTES {
        return None;
    }
    let cipher = XChaCha20Poly1305::new_from_slice(&bytes).ok()?;
    let id = id.to_owned();
    Some(Key { id, cipher })
}

fn is_key_id(id: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=KEY_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(valid)
}

fn split(text: &str) -> Result<(&str, &str), Error> {
    let mut parts = text.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(VERSION), Some(id), Some(sealed)) => Ok((id, sealed)),
        _ => Err(Error::NotSealed),
    }
}

/// Each part with its length before it, so that no two triples give the same bytes.
fn associated(key_id: &str, object: &str, field: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [VERSION, key_id, object, field] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SecretString {
        Sealer::generate(id, &Entropy::system()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_only_in_its_place() {
        let entropy = Entropy::seeded(1);
        let sealer = Sealer::parse(&[key("a")]).unwrap();
        let sealed = sealer
            .seal("ep_1", "secrets/0", b"whsec_x", &entropy)
            .unwrap();
        assert!(sealed.starts_with("v1.a."));
        let opened = sealer.open("ep_1", "secrets/0", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), b"whsec_x");
        for (object, field) in [
            ("ep_2", "secrets/0"),
            ("ep_1", "secrets/1"),
            ("ep_1s", "ecrets/0"),
        ] {
            let error = sealer.open(object, field, &sealed).unwrap_err();
            assert!(matches!(error, Error::DoesNotOpen { .. }), "{error}");
        }
        let again = sealer
            .seal("ep_1", "secrets/0", b"whsec_x", &entropy)
            .unwrap();
        assert_ne!(sealed, again, "a nonce is never used twice");
    }

    #[test]
    fn an_older_key_opens_and_asks_for_a_rewrap() {
        let entropy = Entropy::seeded(2);
        let (old, new) = (key("2025"), key("2026"));
        let sealed = Sealer::parse(std::slice::from_ref(&old))
            .unwrap()
            .seal("o", "f", b"s", &entropy)
            .unwrap();
        let both = Sealer::parse(&[new.clone(), old]).unwrap();
        assert!(both.needs_rewrap(&sealed));
        assert_eq!(both.open("o", "f", &sealed).unwrap().expose_secret(), b"s");
        assert!(!both.needs_rewrap(&both.seal("o", "f", b"s", &entropy).unwrap()));
        let only_new = Sealer::parse(&[new]).unwrap();
        let error = only_new.open("o", "f", &sealed).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sealed with key `2025`, which is not configured"
        );
    }

    #[test]
    fn a_renamed_key_or_an_altered_text_does_not_open() {
        let key_a = key("a");
        let renamed = SecretString::from(key_a.expose_secret().replacen("a:", "b:", 1));
        let sealed = Sealer::parse(&[key_a]).unwrap();
        let sealed = sealed.seal("o", "f", b"s", &Entropy::seeded(3)).unwrap();
        let other = Sealer::parse(&[renamed]).unwrap();
        let moved = sealed.replacen("v1.a.", "v1.b.", 1);
        assert!(matches!(
            other.open("o", "f", &moved),
            Err(Error::DoesNotOpen { .. })
        ));
        for text in ["", "v1", "v1.b", "v2.b.AAAA", "v1.b.AAAA", "v1.b.!!"] {
            assert_eq!(
                other.open("o", "f", text).unwrap_err(),
                Error::NotSealed,
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_keys_are_refused_without_showing_them() {
        let check = |text: &str| {
            let error = Sealer::parse(&[SecretString::from(text)]).unwrap_err();
            assert_eq!(error, Error::BadKey { index: 0 });
            assert!(text.is_empty() || !error.to_string().contains(text));
        };
        for text in ["", "noid", "a:c2hvcnQ=", "A:AAAA", "a:not base64"] {
            check(text);
        }
        let twice = [key("a"), key("a")];
        assert_eq!(
            Sealer::parse(&twice).unwrap_err(),
            Error::DuplicateKey { id: "a".into() }
        );
        assert_eq!(Sealer::parse(&[]).unwrap_err(), Error::NoKey);
        assert!(Sealer::generate("A b", &Entropy::system()).is_err());
    }

    #[test]
    fn debug_shows_ids_alone() {
        let text = key("a");
        let sealer = Sealer::parse(std::slice::from_ref(&text)).unwrap();
        assert_eq!(format!("{sealer:?}"), "Sealer { key_ids: [\"a\"], .. }");
        assert!(!format!("{text:?}").contains("a:"));
    }
}
