//! Owns how a record of a source becomes events: CloudEvents, JSON, opaque bytes, changes of a
//! database, and arrays of which each item is an event.
//!
//! It must never fail as a whole where one item is at fault, nor look at the clock: the same record
//! becomes the same events, with the same ids, for ever. The surprise: what the record itself says
//! (constants, headers, its key) is read once, and each item is made into an event only when it is
//! asked for, so that an array of ten thousand costs no more memory than their places in it.

mod debezium;
mod json;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::codec;
use crate::event::{self, ACCEPTED, Event, Limits};
use crate::resources::{Expression, Source, SourceFormat};
use debezium::Change;
use json::{Json, Scalar};

/// The most items of one record.
pub const ITEMS_MAX: usize = 10_000;
/// The longest text of an attribute that an expression gives.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// The longest key of a record that becomes an order key by itself.
const KEY_BYTES_MAX: usize = 1 << 10;

/// The log has its own bound on a record.
const LIMITS: Limits = Limits {
    max_attributes: 1_024,
    max_attribute_bytes: 1 << 20,
    max_data_bytes: usize::MAX,
};

/// A record as the log has it; `headers` give names and values.
#[derive(Debug, Clone)]
pub struct RecordParts<'a, H> {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
    /// Unix milliseconds; negative for none.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a Bytes>,
    /// Its value.
    pub value: Option<&'a Bytes>,
    /// Its headers, in order.
    pub headers: H,
}

/// What a record is.
#[derive(Debug)]
pub enum Decoded {
    /// A mark of deletion on a compacted topic: there is no event in it.
    Tombstone,
    /// Nothing can be made of it, in these words.
    Poison(String),
    /// Events, one after another.
    Items(Items),
}

/// One item of a record: an event, or why there is none.
#[derive(Debug)]
pub struct Item {
    /// Its place in the array that was split, else 0.
    pub index: u32,
    /// Its own bytes.
    pub data: Option<Bytes>,
    /// The event, or what is wrong with it.
    pub event: Result<Event, String>,
}

/// Makes events of the records of one source. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Decoder(Arc<Source>);

impl Decoder {
    /// The decoder of `source`.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self(Arc::new(source))
    }

    /// Its source.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.0
    }

    /// What `record` is.
    #[must_use]
    pub fn decode<'a, H>(&self, record: &RecordParts<'a, H>) -> Decoded
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let made = match self.0.format {
            SourceFormat::CloudEvents => return self.cloud_event(record),
            SourceFormat::Opaque => record.value.map(|value| self.opaque(record, value)),
            SourceFormat::Json => record.value.map(|value| self.json(record, value)),
            SourceFormat::Debezium => match record.value {
                None => None,
                Some(value) => self.debezium(record, value).transpose(),
            },
        };
        match made {
            None => Decoded::Tombstone,
            Some(Ok(items)) => Decoded::Items(items),
            Some(Err(words)) => Decoded::Poison(words),
        }
    }

    /// The event says everything itself, but for its tenant and when it was accepted.
    fn cloud_event<'a, H>(&self, record: &RecordParts<'a, H>) -> Decoded
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let headers = record.headers.clone();
        let read = codec::kafka::decode(headers, record.value.cloned(), &LIMITS);
        let owned = read.map_err(|error| error.to_string()).and_then(|event| {
            let mut event = event;
            event.remove_extension(ACCEPTED);
            let set = event.set_tenant(self.0.tenant.as_str());
            set.map_err(|error| error.to_string()).map(|()| event)
        });
        match owned {
            Ok(event) => Decoded::Items(Items(Left::Ready(Some(Box::new(event))))),
            Err(words) => Decoded::Poison(words),
        }
    }

    fn opaque<'a, H>(&self, record: &RecordParts<'a, H>, value: &Bytes) -> Result<Items, String>
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let frame = self.frame(record, None, None)?;
        Ok(Items::one(frame, value.clone()))
    }

    fn json<'a, H>(&self, record: &RecordParts<'a, H>, value: &Bytes) -> Result<Items, String>
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let document = Json::document(value).map_err(|fault| format!("value {fault}"))?;
        let frame = self.frame(record, Some(document), None)?;
        let Some(pointer) = &self.0.split else {
            return Ok(Items::one(frame, value.clone()));
        };
        let found = document.find(pointer);
        let found = found.ok_or_else(|| format!("`split`: there is nothing at `{pointer}`"))?;
        let items = found
            .items()
            .ok_or_else(|| format!("`split`: there is no array at `{pointer}`"))?;
        let mut places = Vec::new();
        for item in items {
            if places.len() == ITEMS_MAX {
                return Err(format!("`split`: there are more than {ITEMS_MAX} items"));
            }
            places.push(item.range());
        }
        Ok(Items::of(frame, value.clone(), places))
    }

    /// `None` for a mark of deletion.
    fn debezium<'a, H>(
        &self,
        record: &RecordParts<'a, H>,
        value: &Bytes,
    ) -> Result<Option<Items>, String>
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let document = Json::document(value).map_err(|fault| format!("value {fault}"))?;
        let Some(payload) = debezium::payload(document) else {
            return Ok(None);
        };
        let change = Change::read(payload)?;
        let frame = self.frame(record, Some(payload), Some(change))?;
        Ok(Some(Items::one(frame, value.slice(payload.range()))))
    }

    /// What all events of `record` have in common.
    fn frame<'a, H>(
        &self,
        record: &RecordParts<'a, H>,
        document: Option<Json<'_>>,
        change: Option<Change>,
    ) -> Result<Frame, String>
    where
        H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let known = |name: Name| -> Result<Option<String>, String> {
            let Some(expression) = name.of(&self.0) else {
                return Ok(self.standard(name, record, change.as_ref()));
            };
            let text = match expression {
                // Each item says it.
                Expression::Pointer(_) => return Ok(None),
                Expression::Constant(text) => Ok(Some(Cow::Borrowed(text.as_str()))),
                Expression::Header(header) => header_of(record, header),
                Expression::Key => record.key.map(|key| utf8(key)).transpose(),
                Expression::Record(pointer) => document.map_or(Ok(None), |at| text_at(at, pointer)),
            };
            name.finish(text, expression)
        };
        Ok(Frame {
            ty: known(Name::Type)?,
            source: known(Name::Source)?,
            subject: known(Name::Subject)?,
            key: known(Name::Key)?,
            id: known(Name::Id)?,
            time: known(Name::Time)?,
            change,
            decoder: self.clone(),
        })
    }

    /// The attribute called `name` where the source says nothing of it.
    fn standard<H>(
        &self,
        name: Name,
        record: &RecordParts<'_, H>,
        change: Option<&Change>,
    ) -> Option<String> {
        let topic = &self.0.topic;
        match name {
            Name::Type => change.map(Change::event_type),
            Name::Source => Some(format!("/kafka/{topic}")),
            Name::Subject => None,
            Name::Key => {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok())?;
                let key = match change {
                    Some(_) => debezium::key(key).unwrap_or(key),
                    None => key,
                };
                let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
                (fits && !key.chars().any(event::is_forbidden)).then(|| key.to_owned())
            }
            Name::Id => Some(format!("{topic}/{}/{}", record.partition, record.offset)),
            Name::Time => {
                let at = change.and_then(Change::at).unwrap_or(record.timestamp);
                (at >= 0).then(|| rfc3339(at)).flatten()
            }
        }
    }
}

/// The events of one record that have not been asked for.
#[derive(Debug)]
pub struct Items(Left);

#[derive(Debug)]
enum Left {
    /// An event that was whole in its record.
    Ready(Option<Box<Event>>),
    /// Events to be made.
    Places {
        frame: Box<Frame>,
        value: Bytes,
        /// In the value.
        places: std::vec::IntoIter<std::ops::Range<usize>>,
        next: u32,
    },
}

impl Items {
    /// The one event whose data is all of `value`.
    fn one(frame: Frame, value: Bytes) -> Self {
        let whole = std::iter::once(0..value.len()).collect();
        Self::of(frame, value, whole)
    }

    fn of(frame: Frame, value: Bytes, places: Vec<std::ops::Range<usize>>) -> Self {
        Self(Left::Places {
            frame: Box::new(frame),
            value,
            places: places.into_iter(),
            next: 0,
        })
    }

    /// Whether all of them have been asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Left::Ready(event) => event.is_none(),
            Left::Places { places, .. } => places.len() == 0,
        }
    }
}

impl Iterator for Items {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        match &mut self.0 {
            Left::Ready(event) => event.take().map(|event| Item {
                index: 0,
                data: event.data().cloned(),
                event: Ok(*event),
            }),
            Left::Places {
                frame,
                value,
                places,
                next,
            } => {
                let data = value.slice(places.next()?);
                let index = *next;
                *next += 1;
                Some(Item {
                    index,
                    event: frame.event(&data, index),
                    data: Some(data),
                })
            }
        }
    }
}

/// What all events of one record have in common: attributes that the record itself gives.
#[derive(Debug)]
struct Frame {
    ty: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    key: Option<String>,
    id: Option<String>,
    time: Option<String>,
    change: Option<Change>,
    decoder: Decoder,
}

impl Frame {
    fn event(&self, data: &Bytes, index: u32) -> Result<Event, String> {
        let rules = self.decoder.source();
        // It was checked with its record.
        let item = rules.format.is_json().then(|| Json::checked(data));
        let item = item.flatten();
        let own = |name: Name, known: &Option<String>| -> Result<Option<String>, String> {
            match name.of(rules) {
                Some(expression @ Expression::Pointer(pointer)) => {
                    let text = item.map_or(Ok(None), |item| text_at(item, pointer));
                    name.finish(text, expression)
                }
                Some(_) | None => Ok(known.clone()),
            }
        };
        let needed = |name: Name, known| {
            own(name, known)?.ok_or_else(|| format!("`event.{}`: is not there", name.as_str()))
        };
        let ty = needed(Name::Type, &self.ty)?;
        let source = needed(Name::Source, &self.source)?;
        let mut id = needed(Name::Id, &self.id)?;
        // Items share what their record says: their places tell them apart.
        let is_own = matches!(rules.event.id, Some(Expression::Pointer(_)));
        if rules.split.is_some() && !is_own {
            id = format!("{id}/{index}");
        }
        let mut event = Event::builder(&id, &source, &ty);
        for (attribute, name, known) in [
            ("subject", Name::Subject, &self.subject),
            ("partitionkey", Name::Key, &self.key),
            ("time", Name::Time, &self.time),
        ] {
            if let Some(text) = own(name, known)? {
                event = event.attribute(attribute, text.as_str());
            }
        }
        for (attribute, text) in self.change.iter().flat_map(Change::extensions) {
            event = event.attribute(attribute, text);
        }
        let media_type = if rules.format.is_json() {
            "application/json"
        } else {
            "application/octet-stream"
        };
        let event = event.data(media_type, data.clone()).build();
        let mut event = event.map_err(|error| error.to_string())?;
        if item.is_some() {
            event.mark_json_verified();
        }
        let set = event.set_tenant(rules.tenant.as_str());
        set.map_err(|error| error.to_string()).map(|()| event)
    }
}

/// An attribute that a source can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Type,
    Source,
    Subject,
    Key,
    Id,
    Time,
}

impl Name {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Source => "source",
            Self::Subject => "subject",
            Self::Key => "key",
            Self::Id => "id",
            Self::Time => "time",
        }
    }

    fn of(self, source: &Source) -> Option<&Expression> {
        let event = &source.event;
        match self {
            Self::Type => event.ty.as_ref(),
            Self::Source => event.source.as_ref(),
            Self::Subject => event.subject.as_ref(),
            Self::Key => event.key.as_ref(),
            Self::Id => event.id.as_ref(),
            Self::Time => event.time.as_ref(),
        }
    }

    /// The attribute's text; `None` where the record has none and the event can do without.
    fn finish(
        self,
        text: Result<Option<Cow<'_, str>>, String>,
        from: &Expression,
    ) -> Result<Option<String>, String> {
        let wrong = |words: String| format!("`event.{}`: {words}", self.as_str());
        let text = text.map_err(wrong)?.filter(|text| !text.is_empty());
        let Some(text) = text else {
            return match self {
                Self::Type | Self::Source | Self::Id => Err(wrong(absent(from))),
                Self::Subject | Self::Key | Self::Time => Ok(None),
            };
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(wrong(format!("is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let millis = (self == Self::Time).then(|| text.parse::<i64>().ok());
        Ok(Some(match millis.flatten().map(rfc3339) {
            Some(time) => time.ok_or_else(|| wrong(format!("`{text}` is no time")))?,
            None => text.into_owned(),
        }))
    }
}

fn absent(from: &Expression) -> String {
    match from {
        Expression::Constant(_) => "is empty".to_owned(),
        Expression::Header(name) => format!("there is no header `{name}`"),
        Expression::Key => "the record has no key".to_owned(),
        Expression::Pointer(pointer) => format!("there is nothing at `{pointer}`"),
        Expression::Record(pointer) => format!("there is nothing at `{pointer}` of the record"),
    }
}

fn header_of<'a, H>(record: &RecordParts<'a, H>, name: &str) -> Result<Option<Cow<'a, str>>, String>
where
    H: IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
{
    let mut headers = record.headers.clone().into_iter();
    let found = headers.find(|(header, _)| *header == name);
    found.map(|(_, value)| utf8(value)).transpose()
}

fn utf8(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    std::str::from_utf8(bytes)
        .map(Cow::Borrowed)
        .map_err(|_| "is not utf-8".to_owned())
}

fn text_at<'a>(document: Json<'a>, pointer: &str) -> Result<Option<Cow<'a, str>>, String> {
    match document.find(pointer).map(Json::scalar) {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text)),
        Some(Scalar::NoText) => Err(format!("what is at `{pointer}` is no text")),
        Some(Scalar::Nested) => Err(format!("what is at `{pointer}` is an object or an array")),
    }
}

/// Unix milliseconds as RFC 3339; `None` beyond the year 9999.
fn rfc3339(millis: i64) -> Option<String> {
    Timestamp::from_millisecond(millis)
        .ok()
        .map(|at| at.to_string())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
