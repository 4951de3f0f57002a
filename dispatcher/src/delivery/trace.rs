//! Owns the trace that an event carries, and this hop in it.
//!
//! It must never pass on what it cannot read: such an event begins a new trace.

use http::{HeaderMap, HeaderName, HeaderValue};
use schemas::event::Event;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Version, trace, span and flags (HT-12).
const TRACEPARENT_CHARS: usize = 55;
/// The longest `tracestate` that is passed on (HT-13).
const TRACESTATE_CHARS_MAX: usize = 512;

/// The trace that an event began with (EX-3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    parent: Option<Parent>,
    state: Option<HeaderValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    flags: u8,
}

impl Trace {
    pub(super) fn of(event: &Event) -> Self {
        let parent = event.attribute("traceparent").and_then(Parent::parse);
        // Without a valid parent the state means nothing (HT-12).
        let state = parent
            .and_then(|_| event.attribute("tracestate"))
            .filter(|state| state.len() <= TRACESTATE_CHARS_MAX)
            .and_then(|state| HeaderValue::from_str(state).ok());
        Self { parent, state }
    }

    /// Adds this hop: `traceparent` as a child of the event's, else as the root of a new, unsampled
    /// trace of the id given.
    pub(super) fn put(&self, headers: &mut HeaderMap, trace_id: u128, span_id: u64) {
        let hop = self.child(trace_id, span_id);
        // Printable ASCII by construction.
        if let Ok(hop) = HeaderValue::from_bytes(&hop) {
            headers.insert(TRACEPARENT, hop);
        }
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }

    fn child(&self, fresh: u128, span_id: u64) -> [u8; TRACEPARENT_CHARS] {
        let Parent { trace_id, flags } = self.parent.unwrap_or(Parent {
            trace_id: fresh.max(1),
            flags: 0,
        });
        let mut text = [b'-'; TRACEPARENT_CHARS];
        let parts = [
            (0..2, 0),
            (3..35, trace_id),
            (36..52, span_id.max(1).into()),
            (53..55, flags.into()),
        ];
        for (place, number) in parts {
            write_hex(number, text.get_mut(place).unwrap_or_default());
        }
        text
    }
}

impl Parent {
    /// Reads a `traceparent` (HT-12); of a version above 00 only the first 55 characters.
    fn parse(text: &str) -> Option<Self> {
        let head = text.get(..55)?;
        let rest = text.get(55..)?;
        let mut parts = head.split('-');
        let mut next = |length: usize| parts.next().and_then(|part| lower_hex(part, length));
        let version = next(2)?;
        let (trace_id, span_id, flags) = (next(32)?, next(16)?, next(2)?);
        let longer_allowed = version > 0 && rest.starts_with('-');
        if version == 0xff || trace_id == 0 || span_id == 0 {
            return None;
        }
        if !rest.is_empty() && !longer_allowed {
            return None;
        }
        // Bits 0 and 1 have a meaning; the others are not ours to pass on.
        let flags = u8::try_from(flags & 0b11).ok()?;
        Some(Self { trace_id, flags })
    }
}

/// Writes `number` in lower-case hexadecimal digits, as many as there is room for.
fn write_hex(number: u128, out: &mut [u8]) {
    let mut rest = number;
    for digit in out.iter_mut().rev() {
        let low = u8::try_from(rest & 0xf).unwrap_or(0);
        *digit = if low < 10 {
            b'0' + low
        } else {
            b'a' + low - 10
        };
        rest >>= 4;
    }
}

/// Exactly `length` lower-case hexadecimal digits.
fn lower_hex(text: &str, length: usize) -> Option<u128> {
    let digits = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != length || !digits {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_traceparent_makes_the_reader_panic(text in ".{0,70}") {
            if let Some(parent) = Parent::parse(&text) {
                prop_assert!(parent.trace_id != 0);
            }
        }
    }
}
