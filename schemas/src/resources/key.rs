//! Owns the text of an API key: how it is made, read, and compared with what is stored.
//!
//! Never shows a key's secret part but through [`KeyText::reveal`], which is for its one answer
//! (rule 17). The surprise: the secret part is 256 random bits, so a plain SHA-256 is stored: there
//! is nothing to guess that a slow hash would protect.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::ApiKey;
use crate::ids::KeyId;

/// What a key's text begins with.
pub const PREFIX: &str = "ak_";
/// Bytes of a key's secret part.
pub const SECRET_BYTES: usize = 32;

/// The characters of an id behind its own prefix.
const ID_CHARS: usize = 26;

/// The text is not that of a key. It never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not the text of a key")]
pub struct NotAKey;

/// A key as its holder has it: `ak_<id>_<secret>`.
pub struct KeyText {
    id: KeyId,
    secret: SecretBox<[u8; SECRET_BYTES]>,
}

impl KeyText {
    /// The key `id` with this secret part, which must be random.
    #[must_use]
    pub fn generate(id: KeyId, secret: [u8; SECRET_BYTES]) -> Self {
        Self {
            id,
            secret: SecretBox::new(Box::new(secret)),
        }
    }

    /// Reads a key's text. The time it takes says nothing about a stored key.
    ///
    /// # Errors
    /// [`NotAKey`] where the text has another form.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let rest = text.strip_prefix(PREFIX).ok_or(NotAKey)?;
        let (id, secret) = rest.split_at_checked(ID_CHARS).ok_or(NotAKey)?;
        let id = format!("key_{id}").parse().map_err(|_| NotAKey)?;
        let secret = secret.strip_prefix('_').ok_or(NotAKey)?;
        let mut bytes = [0; SECRET_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes) {
            Ok(SECRET_BYTES) => Ok(Self::generate(id, bytes)),
            Ok(_) | Err(_) => Err(NotAKey),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The whole text, for the one answer that shows it.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        let id = self.id.to_string();
        let id = id.strip_prefix("key_").unwrap_or_default();
        let secret = URL_SAFE_NO_PAD.encode(self.secret.expose_secret());
        SecretString::from(format!("{PREFIX}{id}_{secret}"))
    }

    /// What is stored of it: SHA-256 of the secret part, in lower-case hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(self.secret.expose_secret());
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
        digest
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
            .collect()
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyText")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl ApiKey {
    /// Whether `text` is this key, in constant time.
    #[must_use]
    pub fn verifies(&self, text: &KeyText) -> bool {
        self.id == text.id && bool::from(self.hash.as_bytes().ct_eq(text.hash().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::KeyScope;

    fn key(text: &KeyText) -> ApiKey {
        ApiKey {
            id: text.id(),
            tenant: "acme".parse().unwrap(),
            scope: KeyScope::Tenant,
            name: None,
            hash: text.hash(),
            created_at: 0,
        }
    }

    #[test]
    fn a_key_is_known_again_by_its_text() {
        let made = KeyText::generate(KeyId::from_bits(7), [9; 32]);
        let text = made.reveal();
        let read = KeyText::parse(text.expose_secret()).unwrap();
        assert_eq!(read.id(), made.id());
        assert!(key(&made).verifies(&read));
        let other_secret = KeyText::generate(KeyId::from_bits(7), [8; 32]);
        let other_id = KeyText::generate(KeyId::from_bits(8), [9; 32]);
        assert!(!key(&made).verifies(&other_secret) && !key(&made).verifies(&other_id));
    }

    #[test]
    fn what_is_stored_and_shown_does_not_hold_the_secret() {
        let made = KeyText::generate(KeyId::from_bits(7), *b"abcdefghijklmnopqrstuvwxyz012345");
        let text = made.reveal();
        let secret = text.expose_secret().rsplit('_').next().unwrap().to_owned();
        let stored = serde_json::to_string(&key(&made)).unwrap();
        for shown in [stored, format!("{made:?}"), format!("{text:?}")] {
            assert!(
                !shown.contains(&secret) && !shown.contains("abcdef"),
                "{shown}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let good = KeyText::generate(KeyId::from_bits(7), [9; 32]).reveal();
        let good = good.expose_secret();
        let cut = good.get(..good.len() - 1).unwrap();
        let long = format!("{good}A");
        let other = good.replacen("ak_", "sk_", 1);
        for bad in [
            "",
            "ak_",
            "ak_ä",
            cut,
            &long,
            &other,
            &good.replace('_', "-"),
        ] {
            assert!(KeyText::parse(bad).is_err(), "{bad}");
        }
    }
}
