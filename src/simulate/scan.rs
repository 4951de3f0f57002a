//! Owns the reading of a request's body without making values of it: what is at a place, as the
//! bytes that it came as.
//!
//! It must never copy an item. The surprise: the whole body is read to its end, so that what is no
//! JSON behind the last item is refused too.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemas::profile::Pointer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess};
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A place in a JSON document, ready to be walked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(pub(super) Vec<String>);

impl Place {
    /// The place that a pointer names.
    pub(crate) fn of(pointer: &Pointer) -> Self {
        let tokens = pointer.as_str().split('/').skip(1);
        Self(
            tokens
                .map(|token| token.replace("~1", "/").replace("~0", "~"))
                .collect(),
        )
    }

    /// What is there in `json`, if anything is.
    ///
    /// # Errors
    /// Where `json` is none, or what is there is something else.
    pub(super) fn find<'j, T: Deserialize<'j>>(
        &self,
        json: &'j [u8],
    ) -> serde_json::Result<Option<T>> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let found = At::new(&self.0).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }

    /// The text that is there: a string's, or another value as it is written.
    pub(super) fn text<'j>(&self, json: &'j str) -> Option<Cow<'j, str>> {
        let found: &RawValue = self.find(json.as_bytes()).ok()??;
        let raw = found.get();
        if !raw.starts_with('"') {
            return (raw != "null").then_some(Cow::Borrowed(raw));
        }
        if raw.contains('\\') {
            return serde_json::from_str(raw).ok().map(Cow::Owned);
        }
        raw.get(1..raw.len().checked_sub(1)?).map(Cow::Borrowed)
    }
}

/// JSON Pointer's own form.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.0 {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// Walks to a place.
struct At<'p, T> {
    tokens: &'p [String],
    found: PhantomData<T>,
}

impl<'p, T> At<'p, T> {
    fn new(tokens: &'p [String]) -> Self {
        let found = PhantomData;
        Self { tokens, found }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for At<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
        match self.tokens {
            [] => T::deserialize(from).map(Some),
            [..] => from.deserialize_any(self),
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for At<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
        let mut found = None;
        let Some((token, rest)) = self.tokens.split_first() else {
            return Ok(None);
        };
        while let Some(is_it) = map.next_key_seed(KeyIs(token))? {
            if is_it && found.is_none() {
                found = map.next_value_seed(At::new(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<T>, A::Error> {
        let mut found = None;
        if let Some((token, rest)) = self.tokens.split_first()
            && let Ok(index) = token.parse::<usize>()
        {
            for _ in 0..index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = seq.next_element_seed(At::new(rest))?.flatten();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

/// Whether a key is this one.
struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn place(pointer: &str) -> Place {
        Place::of(&Pointer::try_new(pointer).unwrap())
    }

    #[test]
    fn what_is_at_a_place_is_what_the_pointer_finds() {
        let json = r#"{"a":{"b/c":[1,{"~":"x\"y"},null]},"n":-1.5,"t":true,"s":"é"}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        for pointer in [
            "",
            "/a",
            "/a/b~1c",
            "/a/b~1c/0",
            "/a/b~1c/1/~0",
            "/a/b~1c/2",
            "/a/b~1c/3",
            "/n",
            "/n/x",
            "/t/0",
            "/s",
            "/s/0",
            "/a/x/y",
        ] {
            let found: Option<Value> = place(pointer).find(json.as_bytes()).unwrap();
            assert_eq!(found.as_ref(), value.pointer(pointer), "{pointer}");
            assert_eq!(place(pointer).to_string(), pointer);
        }
        let text = |pointer| place(pointer).text(json).map(Cow::into_owned);
        assert_eq!(text("/a/b~1c/1/~0").as_deref(), Some("x\"y"));
        assert_eq!(text("/n").as_deref(), Some("-1.5"));
        assert_eq!((text("/a/b~1c/2"), text("/x")), (None, None));
    }

    #[test]
    fn what_is_no_json_is_an_error_wherever_it_is() {
        for json in [
            "",
            "{",
            r#"{"a":[1,2}"#,
            r#"{"a":[]} x"#,
            r#"{"a":[],"b":}"#,
        ] {
            let found = place("/a").find::<Vec<&RawValue>>(json.as_bytes());
            assert!(found.is_err(), "{json}");
        }
        assert!(place("/a").find::<Vec<&RawValue>>(br#"{"a":{}}"#).is_err());
    }
}
