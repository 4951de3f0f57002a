//! Owns the W3C trace context as it is carried along (HT-12). It never samples and never exports;
//! the surprise is that an invalid header restarts the trace instead of being an error.

use std::fmt;

use crate::clock::Entropy;

const SAMPLED: u8 = 0b01;
const RANDOM: u8 = 0b10;

/// A `traceparent` header's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// A new trace, sampled, with random ids.
    #[must_use]
    pub fn start(entropy: &Entropy) -> Self {
        let mut trace_id = [0; 16];
        while trace_id == [0; 16] {
            entropy.fill(&mut trace_id);
        }
        Self {
            trace_id,
            parent_id: span_id(entropy),
            flags: SAMPLED | RANDOM,
        }
    }

    /// Reads a header's value; `None` where it is not valid, and then no `tracestate` counts
    /// either (HT-12).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let field = |from: usize, to: usize| bytes.get(from..to);
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let [version] = hex::<1>(field(0, 2)?)?;
        // Version 0 is 55 characters; a later one may go on behind another dash.
        let length = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let trace_id = hex::<16>(field(3, 35)?)?;
        let parent_id = hex::<8>(field(36, 52)?)?;
        let [flags] = hex::<1>(field(53, 55)?)?;
        let valid = dashes && length && trace_id != [0; 16] && parent_id != [0; 8];
        valid.then_some(Self {
            trace_id,
            parent_id,
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    /// The same trace with a span of our own as the parent.
    #[must_use]
    pub fn child(&self, entropy: &Entropy) -> Self {
        Self {
            parent_id: span_id(entropy),
            ..*self
        }
    }

    /// Goes on with the trace of a header, or starts one.
    #[must_use]
    pub fn continue_or_start(header: Option<&str>, entropy: &Entropy) -> Self {
        match header.and_then(Self::parse) {
            Some(parent) => parent.child(entropy),
            None => Self::start(entropy),
        }
    }

    /// The trace's id, 16 bytes.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Whether the caller recorded it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace_id);
        let parent = u64::from_be_bytes(self.parent_id);
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }
}

fn span_id(entropy: &Entropy) -> [u8; 8] {
    loop {
        let id = entropy.u64();
        if id != 0 {
            return id.to_be_bytes();
        }
    }
}

/// Lower-case hexadecimal only, as the specification wants it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != N * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(out)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(text: &str, written: Option<&str>) {
        let parsed = TraceParent::parse(text).map(|parent| parent.to_string());
        assert_eq!(parsed.as_deref(), written, "{text}");
    }

    #[test]
    fn headers_are_read_as_ht_12_says() {
        check(VALID, Some(VALID));
        check(&VALID.replacen("00-", "cc-", 1), Some(VALID));
        check(
            &format!("{}-more", VALID.replacen("00-", "cc-", 1)),
            Some(VALID),
        );
        check(
            &VALID.replace("-01", "-ff"),
            Some(&VALID.replace("-01", "-03")),
        );
        check(&VALID.replacen("00-", "ff-", 1), None);
        check(&format!("{VALID}-more"), None);
        check(&format!("{}more", VALID.replacen("00-", "cc-", 1)), None);
        check(&VALID.to_uppercase(), None);
        check(&VALID.replace("b7ad6b7169203331", "0000000000000000"), None);
        check(
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            None,
        );
        check(VALID.strip_suffix('1').unwrap(), None);
        check("", None);
    }

    #[test]
    fn a_child_keeps_the_trace_and_an_invalid_header_starts_one() {
        let entropy = Entropy::seeded(1);
        let child = TraceParent::continue_or_start(Some(VALID), &entropy);
        assert_eq!(
            child.trace_id(),
            TraceParent::parse(VALID).unwrap().trace_id()
        );
        assert_ne!(child.to_string(), VALID);
        let fresh = TraceParent::continue_or_start(Some("broken"), &entropy);
        assert!(fresh.is_sampled());
        assert_eq!(TraceParent::parse(&fresh.to_string()), Some(fresh));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,70}") {
            prop_assert!(TraceParent::parse(&text).is_none_or(|parent| parent.trace_id != [0; 16]));
        }
    }
}
