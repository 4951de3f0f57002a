//! Owns the finding of places in a JSON document (RFC 6901) without building it.
//!
//! Never changes a byte of what it finds, and never looks into what was not checked. The surprise:
//! of a member that is there twice the last counts, as for every parser in use.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::filter::extract::lex;

/// A value in a document that was checked whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a> {
    /// The value alone, without white space around it.
    text: &'a str,
    /// Where it begins in the document.
    at: usize,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    /// `null`.
    Null,
    /// A string's text; anything else as it is written.
    Text(Cow<'a, str>),
    /// A string with half of a surrogate pair.
    NoText,
    /// An object or an array.
    Nested,
}

impl<'a> Json<'a> {
    /// The document in `bytes`, or what is wrong with it.
    pub(super) fn document(bytes: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| format!("is not utf-8 at byte {}", error.valid_up_to()))?;
        let start = lex::blank(bytes, 0);
        let end = lex::skip(bytes, start, 0);
        let whole = end.filter(|end| lex::blank(bytes, *end) == bytes.len());
        let value = whole.and_then(|end| text.get(start..end));
        value
            .map(|text| Self { text, at: start })
            .ok_or_else(|| fault(text))
    }

    /// The value in bytes that were part of a document; `None` where they were not.
    pub(super) fn checked(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let start = lex::blank(bytes, 0);
        let text = text.get(start..)?.trim_end_matches([' ', '\n', '\r', '\t']);
        Some(Self { text, at: start })
    }

    /// Where it is in the document's bytes.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.text.len()
    }

    /// The value at `pointer`.
    pub(super) fn find(self, pointer: &str) -> Option<Self> {
        pointer.split('/').skip(1).try_fold(self, |value, step| {
            let step: Cow<'_, str> = if step.contains('~') {
                step.replace("~1", "/").replace("~0", "~").into()
            } else {
                step.into()
            };
            match value.text.as_bytes().first()? {
                b'{' => value.member(&step),
                b'[' => value.element(&step),
                _ => None,
            }
        })
    }

    /// The member of this object called `name`.
    pub(super) fn member(self, name: &str) -> Option<Self> {
        let bytes = self.text.as_bytes();
        let mut found = None;
        let mut at = lex::blank(bytes, 1);
        while bytes.get(at) == Some(&b'"') {
            let (end, escaped) = lex::string(bytes, at + 1)?;
            let raw = self.text.get(at + 1..end - 1)?;
            let start = lex::colon(bytes, end)?;
            let end = lex::skip(bytes, start, 0)?;
            if is_named(raw, escaped, name) {
                found = Some(self.part(start, end)?);
            }
            at = behind(bytes, end);
        }
        found
    }

    fn element(self, step: &str) -> Option<Self> {
        let is_index = step == "0" || !step.starts_with('0');
        let index: usize = step.parse().ok().filter(|_| is_index)?;
        self.items()?.nth(index)
    }

    /// The items of this array; `None` where it is none.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Self>> {
        let bytes = self.text.as_bytes();
        if bytes.first() != Some(&b'[') {
            return None;
        }
        let mut at = lex::blank(bytes, 1);
        Some(std::iter::from_fn(move || {
            if bytes.get(at) == Some(&b']') {
                return None;
            }
            let end = lex::skip(bytes, at, 0)?;
            let item = self.part(at, end)?;
            at = behind(bytes, end);
            Some(item)
        }))
    }

    fn part(self, start: usize, end: usize) -> Option<Self> {
        Some(Self {
            text: self.text.get(start..end)?,
            at: self.at + start,
        })
    }

    /// Whether it is an object.
    pub(super) fn is_object(self) -> bool {
        self.text.starts_with('{')
    }

    /// What it is.
    pub(super) fn scalar(self) -> Scalar<'a> {
        match self.text.as_bytes().first() {
            Some(b'n') => Scalar::Null,
            Some(b'{' | b'[') => Scalar::Nested,
            Some(b'"') => {
                let inner = self.text.get(1..self.text.len() - 1).unwrap_or_default();
                if !inner.contains('\\') {
                    return Scalar::Text(inner.into());
                }
                let mut text = String::with_capacity(inner.len());
                match lex::unescape(inner, &mut text) {
                    Some(()) => Scalar::Text(text.into()),
                    None => Scalar::NoText,
                }
            }
            _ => Scalar::Text(self.text.into()),
        }
    }
}

/// The place behind a value's end and the comma that follows it, or at the closing bracket.
fn behind(bytes: &[u8], end: usize) -> usize {
    let at = lex::blank(bytes, end);
    if bytes.get(at) == Some(&b',') {
        lex::blank(bytes, at + 1)
    } else {
        at
    }
}

fn is_named(raw: &str, escaped: bool, name: &str) -> bool {
    if !escaped {
        return raw == name;
    }
    let mut text = String::new();
    lex::unescape(raw, &mut text).is_some() && text == name
}

/// Words for a text that is no document.
fn fault(text: &str) -> String {
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) => format!("is not json: {error}"),
        Ok(_) => format!("is nested deeper than {}", lex::DEPTH_MAX),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a~/\"\\\\é\u{1F600}0]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a~/\"0]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn pointers(value: &Value, here: &str, all: &mut Vec<String>) {
        all.push(here.to_owned());
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    pointers(value, &format!("{here}/{name}"), all);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    pointers(value, &format!("{here}/{index}"), all);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    proptest! {
        #[test]
        fn every_place_is_found_as_a_tree_has_it(value in json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let document = Json::document(text.as_bytes()).unwrap();
            let mut all = Vec::new();
            pointers(&value, "", &mut all);
            for pointer in all.iter().map(String::as_str).chain(["/no", "/0/no", "/a/00"]) {
                let expected = value.pointer(pointer);
                let found = document.find(pointer);
                prop_assert_eq!(found.is_some(), expected.is_some(), "{}", pointer);
                let Some((found, expected)) = found.zip(expected) else { continue };
                let bytes = &text.as_bytes()[found.range()];
                prop_assert_eq!(&serde_json::from_slice::<Value>(bytes).unwrap(), expected);
                let scalar = match expected {
                    Value::Null => Scalar::Null,
                    Value::String(text) => Scalar::Text(text.into()),
                    Value::Bool(_) | Value::Number(_) => Scalar::Text(expected.to_string().into()),
                    Value::Array(items) => {
                        prop_assert_eq!(found.items().unwrap().count(), items.len());
                        Scalar::Nested
                    }
                    Value::Object(_) => Scalar::Nested,
                };
                prop_assert_eq!(found.scalar(), scalar);
            }
        }
    }

    #[test]
    fn what_is_no_document_is_said_in_words() {
        let check = |bytes: &[u8], words: &str| {
            let fault = Json::document(bytes).unwrap_err();
            assert!(fault.contains(words), "{fault}");
        };
        check(b"", "is not json: EOF");
        check(
            b"{} x",
            "is not json: trailing characters at line 1 column 4",
        );
        check(b"\xff", "is not utf-8 at byte 0");
        check("[".repeat(200).as_bytes(), "is not json");
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        check(deep.as_bytes(), "is nested deeper than 127");
    }

    #[test]
    fn the_last_of_two_members_counts() {
        let document = Json::document(br#" {"a":1,"b":2,"\u0061":3} "#).unwrap();
        let found = document.find("/a").unwrap();
        assert_eq!(found.scalar(), Scalar::Text("3".into()));
        assert_eq!(document.find("/a/b").map(|_| ()), None);
    }
}
