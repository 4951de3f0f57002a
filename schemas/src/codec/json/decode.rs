//! Reads events from JSON in one pass.
//!
//! Never builds a tree. The surprise: a faulty event does not stop the parser; the fault is kept,
//! the rest of the object skipped, so that a batch has one result for each event (CE-14).

use std::borrow::Cow;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::{Error, check_attributes, check_data};
use crate::event::{self, AttributeValue, Builder, Event, Fault, Limits};

/// One event. Its data shares the memory of `input`.
///
/// # Errors
/// See [`Error`]; attributes are named.
pub fn decode(input: &Bytes, limits: &Limits) -> Result<Event, Error> {
    read(input, EventSeed { input, limits })?
}

/// A batch with a result for each event, in order (CE-14). Their data shares the memory of `input`.
///
/// # Errors
/// The whole batch is refused when it is not a JSON array or has more than `max_events`.
pub fn decode_batch(
    input: &Bytes,
    limits: &Limits,
    max_events: usize,
) -> Result<Vec<Result<Event, Error>>, Error> {
    let seed = BatchSeed {
        event: EventSeed { input, limits },
        max_events,
    };
    read(input, seed)?
}

/// Reads the whole of `input`. Its UTF-8 is checked once and not string by string; where it is
/// none, the parser finds the place.
fn read<'de, S: DeserializeSeed<'de>>(input: &'de [u8], seed: S) -> Result<S::Value, Error> {
    match std::str::from_utf8(input) {
        Ok(text) => parse(serde_json::Deserializer::from_str(text), seed),
        Err(_) => parse(serde_json::Deserializer::from_slice(input), seed),
    }
}

fn parse<'de, R, S>(mut parser: serde_json::Deserializer<R>, seed: S) -> Result<S::Value, Error>
where
    R: serde_json::de::Read<'de>,
    S: DeserializeSeed<'de>,
{
    let value = seed.deserialize(&mut parser).map_err(syntax)?;
    parser.end().map_err(syntax)?;
    Ok(value)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn syntax(error: serde_json::Error) -> Error {
    Error::Syntax {
        line: error.line(),
        column: error.column(),
    }
}

/// Visits a value of a kind that is not wanted: consumes it and yields `$result`.
macro_rules! refuse_scalars {
    ($result:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            $result
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            $result
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            $result
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            $result
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            $result
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            $result
        }
    };
}

struct BatchSeed<'a> {
    event: EventSeed<'a>,
    max_events: usize,
}

type Batch = Result<Vec<Result<Event, Error>>, Error>;

impl<'de> DeserializeSeed<'de> for BatchSeed<'_> {
    type Value = Batch;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Batch, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BatchSeed<'_> {
    type Value = Batch;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Batch, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = elements.next_element_seed(self.event)? {
            if events.len() == self.max_events {
                skip_elements(elements)?;
                return Ok(Err(Error::TooManyEvents {
                    limit: self.max_events,
                }));
            }
            events.push(event);
        }
        Ok(Ok(events))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Batch, A::Error> {
        skip_members(members)?;
        Ok(Err(Error::NotAnArray))
    }

    refuse_scalars!(Ok(Err(Error::NotAnArray)));
}

fn skip_elements<'de, A: SeqAccess<'de>>(mut elements: A) -> Result<(), A::Error> {
    while elements.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_members<'de, A: MapAccess<'de>>(mut members: A) -> Result<(), A::Error> {
    while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

#[derive(Clone, Copy)]
struct EventSeed<'a> {
    input: &'a Bytes,
    limits: &'a Limits,
}

impl<'de> DeserializeSeed<'de> for EventSeed<'_> {
    type Value = Result<Event, Error>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EventSeed<'_> {
    type Value = Result<Event, Error>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::new(self);
        while let Some(NameText(name)) = object.next_key_seed(NameText(Cow::Borrowed("")))? {
            let set = match name.as_ref() {
                "data" => members.set_data(object.next_value()?),
                "data_base64" => members.set_base64(object.next_value_seed(ScalarSeed)?),
                name => members.set_attribute(name, &object.next_value_seed(ScalarSeed)?),
            };
            if let Err(error) = set {
                skip_members(object)?;
                return Ok(Err(error));
            }
        }
        Ok(members.finish())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        skip_elements(elements)?;
        Ok(Err(Error::NotAnObject))
    }

    refuse_scalars!(Ok(Err(Error::NotAnObject)));
}

/// What has been read of one event.
struct Members<'a, 'de> {
    seed: EventSeed<'a>,
    builder: Builder,
    data: Option<&'de RawValue>,
    base64: Option<Bytes>,
    /// Members that were `null`: absent, yet refused when they come again.
    nulls: Vec<Box<str>>,
}

impl<'a, 'de> Members<'a, 'de> {
    fn new(seed: EventSeed<'a>) -> Self {
        Self {
            seed,
            builder: Builder::new(),
            data: None,
            base64: None,
            nulls: Vec::new(),
        }
    }

    fn set_attribute(&mut self, name: &str, value: &Scalar<'de>) -> Result<(), Error> {
        self.check_not_null_before(name)?;
        let value = match value {
            Scalar::Null => {
                event::AttributeName::new(name)?;
                return self.set_null(name);
            }
            Scalar::Boolean(value) => AttributeValue::Boolean(*value),
            Scalar::Integer(value) => AttributeValue::Integer(*value),
            Scalar::Text(text) => AttributeValue::String(text),
            Scalar::OtherNumber => return Err(event::Error::new(name, Fault::NotAnInteger).into()),
            Scalar::Compound => return Err(event::Error::new(name, Fault::NotAScalar).into()),
        };
        self.builder.set(name, value)?;
        check_attributes(&self.builder, self.seed.limits)
    }

    /// CE-8: a `null` attribute is absent.
    fn set_null(&mut self, name: &str) -> Result<(), Error> {
        let known = self.builder.has(name) || (name == "data_base64" && self.base64.is_some());
        if known {
            return Err(event::Error::new(name, Fault::Duplicate).into());
        }
        let limit = self.seed.limits.max_attributes;
        if self.nulls.len() == limit {
            return Err(Error::TooManyAttributes { limit });
        }
        self.nulls.push(name.into());
        Ok(())
    }

    fn check_not_null_before(&self, name: &str) -> Result<(), Error> {
        if self.nulls.iter().any(|null| **null == *name) {
            return Err(event::Error::new(name, Fault::Duplicate).into());
        }
        Ok(())
    }

    fn set_data(&mut self, raw: &'de RawValue) -> Result<(), Error> {
        if self.data.replace(raw).is_some() {
            return Err(event::Error::new("data", Fault::Duplicate).into());
        }
        Ok(())
    }

    fn set_base64(&mut self, value: Scalar<'de>) -> Result<(), Error> {
        self.check_not_null_before("data_base64")?;
        let text = match value {
            Scalar::Null => return self.set_null("data_base64"),
            Scalar::Text(text) => text,
            Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::OtherNumber | Scalar::Compound => {
                return Err(Error::InvalidBase64);
            }
        };
        // Without the two bytes that padding may stand for; `finish` checks the exact size.
        check_data((text.len() / 4 * 3).saturating_sub(2), self.seed.limits)?;
        let bytes = BASE64_STANDARD
            .decode(text.as_bytes())
            .map_err(|_| Error::InvalidBase64)?;
        if self.base64.replace(bytes.into()).is_some() {
            return Err(event::Error::new("data_base64", Fault::Duplicate).into());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Event, Error> {
        let is_json = self.builder.data_is_json();
        let data = match (self.data, self.base64.take()) {
            (Some(_), Some(_)) => return Err(Error::DataTwice),
            (Some(raw), None) if is_json => Some(self.seed.share(raw.get())),
            (Some(raw), None) => Some(self.seed.text(raw)?),
            (None, base64) => base64,
        };
        check_data(data.as_ref().map_or(0, Bytes::len), self.seed.limits)?;
        let parsed = is_json && self.data.is_some();
        let builder = match data {
            Some(data) => self.builder.untyped_data(data),
            None => self.builder,
        };
        let mut event = builder.build()?;
        if parsed {
            event.mark_json_verified();
        }
        Ok(event)
    }
}

impl EventSeed<'_> {
    /// A part of the input, without a copy.
    fn share(&self, part: &str) -> Bytes {
        self.input.slice_ref(part.as_bytes())
    }

    /// CE-9: data that is not JSON is the text of a string, not parsed again.
    fn text(&self, raw: &RawValue) -> Result<Bytes, Error> {
        let inner = raw
            .get()
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let inner = inner.ok_or(Error::DataNotText)?;
        if !inner.contains('\\') {
            return Ok(self.share(inner));
        }
        let text: String = serde_json::from_str(raw.get()).map_err(|_| Error::DataNotText)?;
        Ok(text.into())
    }
}

/// A member's name, borrowed where it has no escapes.
struct NameText<'de>(Cow<'de, str>);

impl<'de> DeserializeSeed<'de> for NameText<'de> {
    type Value = Self;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self, D::Error> {
        parser.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameText<'de> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self, E> {
        Ok(Self(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self, E> {
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

/// A member's value, as far as an attribute can use it.
enum Scalar<'de> {
    Null,
    Boolean(bool),
    Integer(i32),
    Text(Cow<'de, str>),
    /// A fraction, an exponent, or beyond 32 bits.
    OtherNumber,
    /// An object or an array.
    Compound,
}

struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an attribute value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(i32::try_from(value).map_or(Scalar::OtherNumber, Scalar::Integer))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i32::try_from(value).map_or(Scalar::OtherNumber, Scalar::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::OtherNumber)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        skip_elements(elements)?;
        Ok(Scalar::Compound)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        skip_members(members)?;
        Ok(Scalar::Compound)
    }
}
