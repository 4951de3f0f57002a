//! Owns the dead letters of the router: what cannot be read, what the log refuses, and what
//! retention took before it was read (rule 16).
//!
//! It must never make a dead letter larger than the log takes: what does not fit is referred to by
//! its origin.

use bytes::Bytes;
use runtime::log::{Headers, Record};
use schemas::ids::{DeliveryId, TenantId};
use schemas::records::{DEAD_HEADER, DeadLetter, DeadReason, Origin};

use super::{Places, RECORD_BYTES_MAX, log_record};
use crate::index::Entry;

/// A range of a source partition that was never read, or whose reading cannot be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The first offset of it.
    pub from: i64,
    /// The last offset of it, where there is one.
    pub through: Option<i64>,
    /// What happened.
    pub detail: &'static str,
}

impl Lost {
    /// The record on `dead` that says so.
    #[must_use]
    pub fn record(&self, places: &Places, now: i64) -> Record {
        let mut letter = DeadLetter::new(DeadReason::RetentionLost, now, &places.origin(self.from));
        letter.detail = Some(self.detail.to_owned());
        letter.through = self.through;
        reference(places, &letter, None)
    }
}

/// A record, or an item of one, that is no event of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Unreadable<'a> {
    /// The record's offset.
    pub offset: i64,
    /// The item's place in it, else 0.
    pub index: u32,
    /// Whose it would have been, where that is known.
    pub tenant: Option<&'a TenantId>,
    /// What is wrong with it.
    pub words: &'a str,
}

impl Unreadable<'_> {
    /// The dead letter, with its headers and bytes where the log takes them.
    #[must_use]
    pub fn record(
        &self,
        places: &Places,
        headers: &Headers,
        value: Option<Bytes>,
        now: i64,
    ) -> Record {
        let letter = self.letter(places, now);
        let mut all = Headers::builder();
        for (name, value) in headers.iter().filter(|(name, _)| *name != DEAD_HEADER) {
            all.push(name, value);
        }
        all.push(DEAD_HEADER, &letter.to_header());
        let mut dead = log_record(&places.dead, None, all);
        dead.value = value;
        if dead.len_bytes() > RECORD_BYTES_MAX {
            return reference(places, &letter, None);
        }
        dead
    }

    /// The same without its bytes, for when the log refuses those.
    #[must_use]
    pub fn reference(&self, places: &Places, now: i64) -> Record {
        reference(places, &self.letter(places, now), None)
    }

    fn letter(&self, places: &Places, now: i64) -> DeadLetter {
        let origin = Origin {
            index: self.index,
            ..places.origin(self.offset)
        };
        let mut letter = DeadLetter::new(DeadReason::Undecodable, now, &origin);
        letter.tenant = self.tenant.cloned();
        // Words can quote what a producer wrote; a header needs no more than the start of it.
        letter.detail = Some(self.words.chars().take(512).collect());
        letter
    }
}

/// One target whose record the log will never take, with what a redrive needs to find it again.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    pub(super) reason: DeadReason,
    pub(super) origin: &'a Origin,
    pub(super) event: &'a schemas::event::Event,
    pub(super) target: &'a Entry,
}

impl Refusal<'_> {
    /// The dead letter: a reference to the origin, keyed by the endpoint.
    pub(super) fn record(&self, places: &Places, now: i64) -> Record {
        let mut letter = DeadLetter::new(self.reason, now, self.origin);
        letter.tenant = self.event.tenant().and_then(|tenant| tenant.parse().ok());
        letter.endpoint = Some(self.target.endpoint);
        letter.subscription = Some(self.target.subscription);
        letter.delivery = Some(DeliveryId::of(
            self.event.source(),
            self.event.id(),
            self.target.subscription,
        ));
        reference(
            places,
            &letter,
            Some(Bytes::from(self.target.endpoint.to_string())),
        )
    }
}

fn reference(places: &Places, letter: &DeadLetter, key: Option<Bytes>) -> Record {
    let mut headers = Headers::builder();
    headers.push(DEAD_HEADER, &letter.to_header());
    log_record(&places.dead, key, headers)
}
