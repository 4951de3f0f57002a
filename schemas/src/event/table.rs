//! Owns the memory of an event's attributes: one text that holds all of them, and the extensions
//! as places in it, ordered by name.
//!
//! Never checks context attributes; the builder does. The surprise: replacing an extension leaves
//! the old value's bytes in the text, which is short-lived and cheaper than moving the rest.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::error::Fault;
use super::name::check_extension_name;
use super::value::{self, AttributeValue};

/// A place in the table's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// What a stored extension was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Integer,
    String,
}

#[derive(Debug, Clone, Copy)]
struct Extension {
    name: Span,
    value: Span,
    kind: Kind,
}

/// All texts of one event.
#[derive(Debug, Clone)]
pub(super) struct Table {
    text: String,
    extensions: Vec<Extension>,
}

/// Holds a usual event's attributes without growing.
const TEXT_BYTES: usize = 256;

impl Table {
    pub(super) fn new() -> Self {
        Self {
            text: String::with_capacity(TEXT_BYTES),
            extensions: Vec::new(),
        }
    }

    /// Bytes held, replaced values included.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn extension_count(&self) -> usize {
        self.extensions.len()
    }

    pub(super) fn get(&self, span: Span) -> &str {
        // A span is made by `push` only, so it is always inside the text.
        let range = usize::try_from(span.start)
            .ok()
            .zip(usize::try_from(span.end).ok());
        range
            .and_then(|(start, end)| self.text.get(start..end))
            .unwrap_or_default()
    }

    pub(super) fn push(&mut self, text: &str) -> Result<Span, Fault> {
        let start = u32::try_from(self.text.len()).map_err(|_| Fault::TooLong)?;
        let end = u32::try_from(self.text.len().saturating_add(text.len()));
        let end = end.map_err(|_| Fault::TooLong)?;
        self.text.push_str(text);
        Ok(Span { start, end })
    }

    /// Where the extension is, or where it would be.
    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.extensions
            .binary_search_by(|extension| self.get(extension.name).as_bytes().cmp(name))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_ok()
    }

    /// Adds or replaces an extension (CE-1, CE-2, CE-6).
    pub(super) fn set(&mut self, name: &str, value: AttributeValue<'_>) -> Result<(), Fault> {
        let place = self.find(name.as_bytes());
        if place.is_err() {
            check_extension_name(name)?;
        }
        let (value, kind) = self.push_value(value)?;
        match place {
            Ok(at) => {
                if let Some(extension) = self.extensions.get_mut(at) {
                    extension.value = value;
                    extension.kind = kind;
                }
            }
            Err(at) => {
                let name = self.push(name)?;
                self.extensions.insert(at, Extension { name, value, kind });
            }
        }
        Ok(())
    }

    fn push_value(&mut self, value: AttributeValue<'_>) -> Result<(Span, Kind), Fault> {
        let (text, kind) = match value {
            AttributeValue::Boolean(true) => (self.push("true"), Kind::Boolean),
            AttributeValue::Boolean(false) => (self.push("false"), Kind::Boolean),
            AttributeValue::Integer(number) => (self.push(&number.to_string()), Kind::Integer),
            AttributeValue::Binary(bytes) => {
                (self.push(&BASE64_STANDARD.encode(bytes)), Kind::String)
            }
            AttributeValue::String(text) => {
                value::check_string(text)?;
                (self.push(text), Kind::String)
            }
            AttributeValue::Uri(text) => {
                value::check_uri(text)?;
                (self.push(text), Kind::String)
            }
            AttributeValue::UriRef(text) => {
                value::check_uri_reference(text)?;
                (self.push(text), Kind::String)
            }
            AttributeValue::Timestamp(text) => {
                value::check_timestamp(text)?;
                (self.push(text), Kind::String)
            }
        };
        Ok((text?, kind))
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        let found = self.find(name.as_bytes());
        found.map(|at| self.extensions.remove(at)).is_ok()
    }

    /// An extension's canonical text.
    pub(super) fn extension_text(&self, name: &[u8]) -> Option<&str> {
        // They are few: comparing lengths first is faster than halving.
        let text = self.text.as_bytes();
        let is_name = |extension: &&Extension| {
            let Span { start, end } = extension.name;
            usize::try_from(end.wrapping_sub(start)) == Ok(name.len())
                && usize::try_from(start)
                    .is_ok_and(|start| text.get(start..).is_some_and(|text| text.starts_with(name)))
        };
        let extension = self.extensions.iter().find(is_name)?;
        Some(self.get(extension.value))
    }

    /// An extension with its type.
    pub(super) fn extension(&self, name: &str) -> Option<AttributeValue<'_>> {
        let extension = self.extensions.get(self.find(name.as_bytes()).ok()?)?;
        Some(self.typed(extension))
    }

    /// Name, canonical text and type of every extension, by name.
    pub(super) fn extensions(
        &self,
    ) -> impl Iterator<Item = (&str, &str, AttributeValue<'_>)> + Clone {
        self.extensions.iter().map(|extension| {
            (
                self.get(extension.name),
                self.get(extension.value),
                self.typed(extension),
            )
        })
    }

    fn typed(&self, extension: &Extension) -> AttributeValue<'_> {
        let text = self.get(extension.value);
        match extension.kind {
            Kind::Boolean => AttributeValue::Boolean(text == "true"),
            Kind::Integer => text
                .parse()
                .map_or(AttributeValue::String(text), AttributeValue::Integer),
            Kind::String => AttributeValue::String(text),
        }
    }
}
