//! Owns how a member's identity is written for a partner: normalised, hashed, and refused where a
//! partner could not know the member by it.
//!
//! Pure, and the same for the same member always. The surprise: a value that is a SHA-256 already
//! (64 hexadecimal digits) is taken as hashed by whoever uploaded it, and is not hashed again.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::Profile;

/// The most fields of one profile's identity.
pub const IDENTITY_MAX: usize = 32;

/// A field by which a partner knows a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The member's field.
    pub field: String,
    /// What is done to it, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalise: Vec<Normalise>,
    /// How it is hashed then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Whether a member without it is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
}

/// One step of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Without white space around it.
    Trim,
    /// In lower case (Unicode).
    Lower,
    /// In upper case (Unicode).
    Upper,
    /// A telephone number with its country code: `+41441234567`.
    E164,
    /// Its digits alone.
    Digits,
    /// Without any white space.
    NoSpace,
}

/// How a value is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// SHA-256 in lower-case hexadecimal.
    Sha256,
}

/// Why a partner could not know a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Reject {
    /// The field, or those of which one is missing, separated by commas.
    pub field: String,
    /// What is wrong with it.
    pub reason: RejectReason,
}

/// What is wrong with a member's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RejectReason {
    /// It is not there, or empty.
    #[error("is required")]
    Missing,
    /// It is no text and no number.
    #[error("must be a text or a number")]
    NotText,
    /// It cannot be written as a telephone number with its country code.
    #[error("must be a telephone number with its country code")]
    NotE164,
}

impl Profile {
    /// The member as the partner is told of it: its identity normalised and hashed, all other
    /// fields as they are. A field that is optional and empty is left out.
    ///
    /// # Errors
    /// Why the partner could not know it.
    pub fn prepare(&self, mut member: Map<String, Value>) -> Result<Map<String, Value>, Reject> {
        for identity in &self.identity {
            let found = member.get(&identity.field).unwrap_or(&Value::Null);
            let reject = |reason| Reject {
                field: identity.field.clone(),
                reason,
            };
            match identity.write(found).map_err(reject)? {
                Some(text) => {
                    member.insert(identity.field.clone(), Value::String(text));
                }
                None if identity.required => return Err(reject(RejectReason::Missing)),
                None => {
                    member.shift_remove(&identity.field);
                }
            }
        }
        let has = |field: &String| member.get(field).is_some_and(|value| !is_empty(value));
        if self.require_any.is_empty() || self.require_any.iter().any(has) {
            return Ok(member);
        }
        Err(Reject {
            field: self.require_any.join(", "),
            reason: RejectReason::Missing,
        })
    }

    /// Whether [`Profile::prepare`] gives every member back as it is.
    #[must_use]
    pub fn takes_members_as_they_are(&self) -> bool {
        self.identity.is_empty() && self.require_any.is_empty()
    }
}

impl Identity {
    /// The value as the partner wants it; `None` where it is empty.
    ///
    /// # Errors
    /// When it cannot be written so.
    pub fn write(&self, value: &Value) -> Result<Option<String>, RejectReason> {
        let text = match value {
            Value::Null => return Ok(None),
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(RejectReason::NotText);
            }
        };
        let hashed = self.hash.is_some() && is_sha256(text.trim());
        if hashed {
            return Ok(Some(text.trim().to_ascii_lowercase()));
        }
        let mut text = text;
        for step in &self.normalise {
            text = step.apply(&text)?;
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.hash {
            Some(Hash::Sha256) => sha256_hex(text.as_bytes()),
            None => text,
        }))
    }
}

impl Normalise {
    /// What this step makes of a text; of an empty one nothing.
    ///
    /// # Errors
    /// When it cannot be written so.
    pub fn apply(self, text: &str) -> Result<String, RejectReason> {
        Ok(match self {
            Self::Trim => text.trim().to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Digits => text.chars().filter(char::is_ascii_digit).collect(),
            Self::NoSpace => text.chars().filter(|c| !c.is_whitespace()).collect(),
            Self::E164 => e164(text)?,
        })
    }
}

/// `+` and 7 to 15 digits (ITU-T E.164 §6), the first of which is none of a trunk prefix. `00` is
/// taken for `+`; a number without either has no country code, and is not guessed at.
fn e164(text: &str) -> Result<String, RejectReason> {
    let is_separator = |c: char| c.is_whitespace() || "-().\u{a0}\u{2011}/".contains(c);
    let plain: String = text.chars().filter(|c| !is_separator(*c)).collect();
    if plain.is_empty() {
        return Ok(plain);
    }
    let digits = plain
        .strip_prefix('+')
        .or_else(|| plain.strip_prefix("00"))
        .ok_or(RejectReason::NotE164)?;
    let fits = (7..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !fits {
        return Err(RejectReason::NotE164);
    }
    Ok(format!("+{digits}"))
}

/// SHA-256 in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a text cannot fail.
            write!(hex, "{byte:02x}").ok();
            hex
        })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// `echo -n test@example.com | sha256sum`
    const HASHED: &str = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b";

    fn identity(normalise: &[Normalise], hash: bool) -> Identity {
        Identity {
            field: "f".to_owned(),
            normalise: normalise.to_vec(),
            hash: hash.then_some(Hash::Sha256),
            required: false,
        }
    }

    #[test]
    fn steps_are_taken_in_order() {
        use Normalise::{Digits, E164, Lower, NoSpace, Trim, Upper};
        let check = |steps: &[Normalise], text: &str, expected: &str| {
            let written = identity(steps, false).write(&json!(text)).unwrap();
            assert_eq!(written.as_deref(), Some(expected), "{steps:?} {text}");
        };
        check(&[Trim, Lower], "  Ada@Example.COM\n", "ada@example.com");
        check(&[Trim], " a b ", "a b");
        check(&[NoSpace, Upper], " gb 12 ", "GB12");
        check(&[Lower], "ÀÉ", "àé");
        check(&[Digits], "+41 (44) 123-45-67", "41441234567");
        check(&[E164], "+41 (44) 123-45-67", "+41441234567");
        check(&[E164], "0041 44 123 45 67", "+41441234567");
        check(&[E164, Digits], "+1 (650) 253.0000", "16502530000");
        assert_eq!(
            identity(&[], false).write(&json!(41)).unwrap().as_deref(),
            Some("41")
        );
        for empty in [json!(null), json!(""), json!("  ")] {
            assert_eq!(
                identity(&[Trim, E164], true).write(&empty),
                Ok(None),
                "{empty}"
            );
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let e164 = identity(&[Normalise::E164], false);
        for text in [
            "044 123 45 67",
            "+0441234567",
            "+12345",
            "+1234567890123456",
            "+41x",
            "1 650",
        ] {
            assert_eq!(
                e164.write(&json!(text)),
                Err(RejectReason::NotE164),
                "{text}"
            );
        }
        assert_eq!(
            e164.write(&json!(["+41441234567"])),
            Err(RejectReason::NotText)
        );
    }

    #[test]
    fn a_value_is_hashed_once() {
        let email = identity(&[Normalise::Trim, Normalise::Lower], true);
        let once = email.write(&json!(" Test@Example.com ")).unwrap().unwrap();
        assert_eq!(once, HASHED);
        assert_eq!(
            email.write(&json!(HASHED.to_uppercase())),
            Ok(Some(HASHED.to_owned()))
        );
    }

    fn profile(identity: Vec<Identity>, require_any: &[&str]) -> Profile {
        let mut profile = Profile::from_yaml(crate::profile::ready("generic-50").unwrap()).unwrap();
        profile.identity = identity;
        profile.require_any = require_any.iter().map(|name| (*name).to_owned()).collect();
        profile
    }

    fn member(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_member_is_prepared_or_refused_with_the_field() {
        let mut required = identity(&[Normalise::Trim], false);
        required.required = true;
        let phone = Identity {
            field: "phone".to_owned(),
            ..identity(&[Normalise::E164], false)
        };
        let profile = profile(vec![required, phone], &["phone", "email"]);
        let prepared = profile.prepare(member(
            &json!({"id": "1", "f": " x ", "phone": "", "email": "e"}),
        ));
        assert_eq!(
            Value::Object(prepared.unwrap()),
            json!({"id": "1", "f": "x", "email": "e"})
        );
        let refused = |value: Value| profile.prepare(member(&value)).unwrap_err().to_string();
        assert_eq!(refused(json!({"id": "1", "email": "e"})), "f: is required");
        assert_eq!(
            refused(json!({"f": "x", "email": " "})),
            "phone, email: is required"
        );
        assert_eq!(
            refused(json!({"f": "x", "phone": "12"})),
            "phone: must be a telephone number with its country code"
        );
    }

    proptest! {
        #[test]
        fn preparing_twice_changes_nothing(text in ".{0,40}", hash: bool) {
            let email = identity(&[Normalise::Trim, Normalise::Lower, Normalise::Trim], hash);
            let once = email.write(&json!(text)).unwrap();
            if let Some(once) = once {
                // Lower case is not always stable in Unicode where it was not trimmed before.
                prop_assume!(once.to_lowercase() == once);
                prop_assert_eq!(email.write(&json!(once)).unwrap(), Some(once));
            }
        }

        #[test]
        fn no_text_makes_a_step_panic(text in ".{0,60}") {
            for step in [Normalise::E164, Normalise::Digits, Normalise::NoSpace, Normalise::Upper] {
                let made = step.apply(&text).unwrap_or_default();
                prop_assert!(step != Normalise::Digits || made.bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }
}
