//! Owns the making of an event, attribute by attribute, in any order.
//!
//! Never gives out an event that lacks a REQUIRED attribute or holds a refused value. The
//! surprise: the chained methods keep the first fault and `build` reports it.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{Error, Fault};
use super::name::Context;
use super::table::{Span, Table};
use super::value::{self, AttributeValue};
use super::{Attributes, Event};

/// An event in the making.
#[derive(Debug)]
pub struct Builder {
    table: Table,
    specversion: bool,
    context_count: usize,
    id: Option<Span>,
    source: Option<Span>,
    ty: Option<Span>,
    subject: Option<Span>,
    time: Option<Span>,
    datacontenttype: Option<Span>,
    dataschema: Option<Span>,
    data: Option<Bytes>,
    fault: Option<Error>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Nothing set, not even `specversion`: for decoders, which must find it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Table::new(),
            specversion: false,
            context_count: 0,
            id: None,
            source: None,
            ty: None,
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            data: None,
            fault: None,
        }
    }

    /// Sets any attribute, context or extension, once.
    ///
    /// # Errors
    /// Names the attribute and why it is refused (CE-1 to CE-4).
    pub fn set(&mut self, name: &str, value: AttributeValue<'_>) -> Result<(), Error> {
        let result = match Context::from_name(name) {
            Some(context) => self.set_context(context, value),
            None if self.table.contains(name) => Err(Fault::Duplicate),
            None => self.table.set(name, value),
        };
        result.map_err(|fault| Error::new(name, fault))
    }

    fn set_context(&mut self, context: Context, value: AttributeValue<'_>) -> Result<(), Fault> {
        let text = match value {
            AttributeValue::String(text)
            | AttributeValue::Uri(text)
            | AttributeValue::UriRef(text)
            | AttributeValue::Timestamp(text) => text,
            AttributeValue::Boolean(_) | AttributeValue::Integer(_) | AttributeValue::Binary(_) => {
                return Err(Fault::NotAString);
            }
        };
        check_context(context, text)?;
        let slot = match context {
            Context::SpecVersion if self.specversion => return Err(Fault::Duplicate),
            Context::SpecVersion => {
                self.specversion = true;
                self.context_count += 1;
                return Ok(());
            }
            Context::Id => &mut self.id,
            Context::Source => &mut self.source,
            Context::Type => &mut self.ty,
            Context::Subject => &mut self.subject,
            Context::Time => &mut self.time,
            Context::DataContentType => &mut self.datacontenttype,
            Context::DataSchema => &mut self.dataschema,
        };
        if slot.is_some() {
            return Err(Fault::Duplicate);
        }
        *slot = Some(self.table.push(text)?);
        self.context_count += 1;
        Ok(())
    }

    /// Sets an attribute; `build` reports a refused one.
    #[must_use]
    pub fn attribute<'a>(mut self, name: &str, value: impl Into<AttributeValue<'a>>) -> Self {
        if let Err(error) = self.set(name, value.into()) {
            self.fault.get_or_insert(error);
        }
        self
    }

    /// Sets `subject`.
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        self.attribute("subject", subject)
    }

    /// Sets `time`, an RFC 3339 text.
    #[must_use]
    pub fn time(self, time: &str) -> Self {
        self.attribute("time", time)
    }

    /// Sets `datacontenttype` and the data.
    #[must_use]
    pub fn data(self, content_type: &str, data: impl Into<Bytes>) -> Self {
        self.attribute("datacontenttype", content_type)
            .untyped_data(data)
    }

    /// Sets the data and leaves `datacontenttype` as it is.
    #[must_use]
    pub fn untyped_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Whether an attribute is set.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match Context::from_name(name) {
            Some(Context::SpecVersion) => self.specversion,
            Some(Context::Id) => self.id.is_some(),
            Some(Context::Source) => self.source.is_some(),
            Some(Context::Type) => self.ty.is_some(),
            Some(Context::Subject) => self.subject.is_some(),
            Some(Context::Time) => self.time.is_some(),
            Some(Context::DataContentType) => self.datacontenttype.is_some(),
            Some(Context::DataSchema) => self.dataschema.is_some(),
            None => self.table.contains(name),
        }
    }

    /// How many attributes are set.
    #[must_use]
    pub fn attribute_count(&self) -> usize {
        self.context_count + self.table.extension_count()
    }

    /// Bytes of the values and of the extensions' names.
    #[must_use]
    pub fn attribute_bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Whether data of the `datacontenttype` set so far is JSON (CE-9).
    #[must_use]
    pub fn data_is_json(&self) -> bool {
        self.datacontenttype
            .is_none_or(|span| value::is_json(self.table.get(span)))
    }

    /// The event.
    ///
    /// # Errors
    /// The first refused attribute, else the first REQUIRED one that is missing (CE-3).
    pub fn build(self) -> Result<Event, Error> {
        if let Some(error) = self.fault {
            return Err(error);
        }
        let missing = |context: Context| Error::new(context.name(), Fault::Missing);
        if !self.specversion {
            return Err(missing(Context::SpecVersion));
        }
        let attributes = Attributes {
            id: self.id.ok_or_else(|| missing(Context::Id))?,
            source: self.source.ok_or_else(|| missing(Context::Source))?,
            ty: self.ty.ok_or_else(|| missing(Context::Type))?,
            subject: self.subject,
            time: self.time,
            datacontenttype: self.datacontenttype,
            dataschema: self.dataschema,
            table: self.table,
        };
        Ok(Event {
            attributes: Arc::new(attributes),
            data: self.data,
            json_verified: false,
        })
    }
}

/// What text each context attribute admits (CE-3, CE-4).
fn check_context(context: Context, text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    match context {
        Context::SpecVersion if text == "1.0" => Ok(()),
        Context::SpecVersion => Err(Fault::UnsupportedVersion),
        Context::Id | Context::Type | Context::Subject => value::check_string(text),
        Context::Source => value::check_uri_reference(text),
        Context::Time => value::check_timestamp(text),
        Context::DataContentType => value::check_media_type(text),
        Context::DataSchema => value::check_uri(text),
    }
}
