//! Owns an event as filters look at it: its attributes, and its payload, which is read when the
//! first filter asks for it and never twice.
//!
//! Never reads a payload that is not declared JSON. The surprise: where there is no JSON document,
//! every comparison with data is false, `exists: false` too.

use super::extract::{Found, Paths, Scalar, Slot, Values, extract};
use crate::event::Event;

/// One event in front of filters.
#[derive(Debug)]
pub struct Subject<'a> {
    event: &'a Event,
    paths: &'a Paths,
    found: &'a mut Found,
    payload: Payload<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Payload<'a> {
    Unread,
    Read(&'a str),
    /// No JSON document.
    Unreadable,
}

impl<'a> Subject<'a> {
    /// `event`, whose payload will be read for what is at `paths`, into the memory of `found`.
    #[must_use]
    pub fn new(event: &'a Event, paths: &'a Paths, found: &'a mut Found) -> Self {
        Self {
            event,
            paths,
            found,
            payload: Payload::Unread,
        }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &'a Event {
        self.event
    }

    /// What is at the path of `slot`; `None` where the payload is not JSON.
    pub fn values(&mut self, slot: Slot) -> Option<Values<'_>> {
        let text = self.text()?;
        Some(self.found.values(text, slot))
    }

    /// Everything that is at the paths in use, with its slot; `None` for what is there and cannot
    /// be compared. Nothing where the payload is not JSON.
    pub fn found(&mut self) -> impl Iterator<Item = (Slot, Option<Scalar<'_>>)> {
        let text = self.text();
        let found = &*self.found;
        text.into_iter().flat_map(|text| found.all(text))
    }

    fn text(&mut self) -> Option<&'a str> {
        match self.payload {
            Payload::Unread => self.read(),
            Payload::Read(text) => Some(text),
            Payload::Unreadable => None,
        }
    }

    fn read(&mut self) -> Option<&'a str> {
        let event = self.event;
        let data = event.data().filter(|_| event.data_is_json());
        let text = data.and_then(|data| std::str::from_utf8(data).ok());
        let text = text.filter(|text| extract(self.paths, text, self.found));
        self.payload = text.map_or(Payload::Unreadable, Payload::Read);
        text
    }
}
