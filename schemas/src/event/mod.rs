//! The CloudEvent value (CE-1 to CE-6): a valid event of version 1.0, cheap to clone.
//!
//! Never re-encodes `data`, never changes an attribute's text: what came in goes out. The
//! surprise: `time` is checked but kept as written, and filters see every attribute as a string.

mod builder;
mod error;
mod name;
mod table;
mod value;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;

pub use builder::Builder;
pub use error::{Error, Fault};
pub use name::{ACCEPTED, AttributeName, Context, LOOP, TENANT, is_reserved};
pub use value::AttributeValue;
pub(crate) use value::{essence, is_forbidden};

use table::{Span, Table};

/// The only version there is (CE-3).
pub const SPEC_VERSION: &str = "1.0";

/// How large an event may be when it is decoded (CE-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of one event, the required ones included.
    pub max_attributes: usize,
    /// Bytes of one event's attribute values and extension names together.
    pub max_attribute_bytes: usize,
    /// Bytes of one event's data.
    pub max_data_bytes: usize,
}

impl Default for Limits {
    /// CE-5 wants 64 KB forwarded at least: so much for attributes alone, and 1 MiB of data.
    fn default() -> Self {
        Self {
            max_attributes: 64,
            max_attribute_bytes: 64 << 10,
            max_data_bytes: 1 << 20,
        }
    }
}

/// A valid CloudEvents 1.0 event. A clone shares attributes and data.
#[derive(Clone)]
pub struct Event {
    attributes: Arc<Attributes>,
    data: Option<Bytes>,
    /// The data is known to be valid JSON; `false` only means that nobody has looked.
    json_verified: bool,
}

#[derive(Clone)]
struct Attributes {
    table: Table,
    id: Span,
    source: Span,
    ty: Span,
    subject: Option<Span>,
    time: Option<Span>,
    datacontenttype: Option<Span>,
    dataschema: Option<Span>,
}

impl Event {
    /// Starts an event from the attributes that every event has.
    #[must_use]
    pub fn builder(id: &str, source: &str, ty: &str) -> Builder {
        Builder::new()
            .attribute("specversion", SPEC_VERSION)
            .attribute("id", id)
            .attribute("source", source)
            .attribute("type", ty)
    }

    #[inline]
    fn text(&self, span: Span) -> &str {
        self.attributes.table.get(span)
    }

    fn optional(&self, span: Option<Span>) -> Option<&str> {
        span.map(|span| self.text(span))
    }

    /// `id`: with `source`, unique for each distinct event.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text(self.attributes.id)
    }

    /// `source`, a URI-reference.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text(self.attributes.source)
    }

    /// `type`.
    #[must_use]
    pub fn ty(&self) -> &str {
        self.text(self.attributes.ty)
    }

    /// `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.optional(self.attributes.subject)
    }

    /// `time`, RFC 3339, as the producer wrote it.
    #[must_use]
    pub fn time(&self) -> Option<&str> {
        self.optional(self.attributes.time)
    }

    /// `datacontenttype`.
    #[must_use]
    pub fn datacontenttype(&self) -> Option<&str> {
        self.optional(self.attributes.datacontenttype)
    }

    /// `dataschema`.
    #[must_use]
    pub fn dataschema(&self) -> Option<&str> {
        self.optional(self.attributes.dataschema)
    }

    /// The payload, as it came.
    #[must_use]
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// Whether `datacontenttype` says that the data is JSON; absent means JSON (CE-9).
    #[must_use]
    pub fn data_is_json(&self) -> bool {
        self.datacontenttype().is_none_or(value::is_json)
    }

    /// Whether the data is declared JSON and really is. Looks at the bytes once; see
    /// [`Event::verify_json`] to remember it.
    #[must_use]
    pub fn has_valid_json(&self) -> bool {
        self.json_verified
            || (self.data_is_json() && self.data.as_deref().is_some_and(is_json_document))
    }

    /// [`Event::has_valid_json`], remembered for this event and its later clones.
    pub fn verify_json(&mut self) -> bool {
        self.json_verified = self.has_valid_json();
        self.json_verified
    }

    /// An extension with its type.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<AttributeValue<'_>> {
        self.attributes.table.extension(name)
    }

    /// The extensions, ordered by name.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, AttributeValue<'_>)> + Clone {
        self.attributes
            .table
            .extensions()
            .map(|(name, _, value)| (name, value))
    }

    /// The context attributes that are set, `specversion` first.
    pub fn context(&self) -> impl Iterator<Item = (Context, &str)> {
        let optional = [
            (Context::Subject, self.subject()),
            (Context::Time, self.time()),
            (Context::DataContentType, self.datacontenttype()),
            (Context::DataSchema, self.dataschema()),
        ];
        let required = [
            (Context::SpecVersion, SPEC_VERSION),
            (Context::Id, self.id()),
            (Context::Source, self.source()),
            (Context::Type, self.ty()),
        ];
        let present = |(context, text): (Context, Option<_>)| text.map(|text| (context, text));
        required
            .into_iter()
            .chain(optional.into_iter().filter_map(present))
    }

    /// The extensions' canonical texts, ordered by name.
    pub(crate) fn extension_texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes
            .table
            .extensions()
            .map(|(name, text, _)| (name, text))
    }

    /// The extensions' names, canonical texts and values, ordered by name.
    pub(crate) fn written_extensions(
        &self,
    ) -> impl Iterator<Item = (&str, &str, AttributeValue<'_>)> {
        self.attributes.table.extensions()
    }

    /// Any attribute in its canonical string form, as filters see it.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match Context::from_name(name) {
            Some(context) => self.context_attribute(context),
            None => self.attributes.table.extension_text(name.as_bytes()),
        }
    }

    /// As [`Event::attribute`], for a name resolved before.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &AttributeName) -> Option<&str> {
        match name.context() {
            Some(context) => self.context_attribute(context),
            None => self
                .attributes
                .table
                .extension_text(name.as_str().as_bytes()),
        }
    }

    /// An extension's canonical text, for a name known to be valid.
    pub(crate) fn extension_text(&self, name: &[u8]) -> Option<&str> {
        self.attributes.table.extension_text(name)
    }

    #[inline]
    pub(crate) fn context_attribute(&self, context: Context) -> Option<&str> {
        match context {
            Context::SpecVersion => Some(SPEC_VERSION),
            Context::Id => Some(self.id()),
            Context::Source => Some(self.source()),
            Context::Type => Some(self.ty()),
            Context::Subject => self.subject(),
            Context::Time => self.time(),
            Context::DataContentType => self.datacontenttype(),
            Context::DataSchema => self.dataschema(),
        }
    }

    /// Adds or replaces an extension. Clones made before keep theirs.
    ///
    /// # Errors
    /// The name is a context attribute or not valid, or the value is refused (CE-1, CE-2).
    pub fn set_extension(&mut self, name: &str, value: AttributeValue<'_>) -> Result<(), Error> {
        if Context::from_name(name).is_some() {
            return Err(Error::new(name, Fault::NotAnExtension));
        }
        let table = &mut Arc::make_mut(&mut self.attributes).table;
        table
            .set(name, value)
            .map_err(|fault| Error::new(name, fault))
    }

    /// Removes an extension; says whether there was one.
    pub fn remove_extension(&mut self, name: &str) -> bool {
        self.attributes.table.contains(name)
            && Arc::make_mut(&mut self.attributes).table.remove(name)
    }

    /// The tenant, from the reserved extension.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.attributes.table.extension_text(TENANT.as_bytes())
    }

    /// Sets the tenant.
    ///
    /// # Errors
    /// The text has forbidden characters (CE-2).
    pub fn set_tenant(&mut self, tenant: &str) -> Result<(), Error> {
        self.set_extension(TENANT, AttributeValue::String(tenant))
    }

    /// How many of its ancestors the pipeline made (rule 19); 0 where nothing says so.
    #[must_use]
    pub fn loop_count(&self) -> u32 {
        let text = self.attributes.table.extension_text(LOOP.as_bytes());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The first reserved extension, which no client may send.
    #[must_use]
    pub fn reserved_extension(&self) -> Option<&str> {
        self.extension_texts()
            .map(|(name, _)| name)
            .find(|name| is_reserved(name))
    }

    /// Bytes of memory for attributes and data, for budgets (rule 8).
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let table = &self.attributes.table;
        let extensions = table.extension_count() * EXTENSION_BYTES;
        let fixed = size_of::<Self>() + size_of::<Attributes>();
        fixed + extensions + table.bytes() + self.data.as_ref().map_or(0, Bytes::len)
    }

    /// The same event with other data; whether that is known to be valid JSON.
    pub(crate) fn with_data(&self, data: Option<Bytes>, is_json: bool) -> Self {
        let is_same = self.data == data;
        Self {
            attributes: Arc::clone(&self.attributes),
            json_verified: is_json || (is_same && self.json_verified),
            data,
        }
    }

    /// Records that the data was read as JSON by a parser.
    pub(crate) fn mark_json_verified(&mut self) {
        self.json_verified = true;
    }
}

/// What an extension costs beside its texts.
const EXTENSION_BYTES: usize = 20;

/// Whether the bytes are one JSON document, whitespace around it admitted.
fn is_json_document(data: &[u8]) -> bool {
    // The skipping parser does not look into strings, so UTF-8 is checked first.
    std::str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.context().eq(other.context())
            && self.extensions().eq(other.extensions())
            && self.data == other.data
    }
}

impl Eq for Event {}

impl fmt::Debug for Event {
    /// Attributes, and the data's length: payloads do not belong in logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = formatter.debug_map();
        map.entries(self.context().map(|(context, text)| (context.name(), text)));
        map.entries(self.extension_texts());
        map.entry(&"data bytes", &self.data.as_ref().map(Bytes::len))
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
