//! Owns what an endpoint's answers say is left (`RateLimit`, `X-RateLimit-*`; HT-9, HT-10).
//!
//! It may only make a limit stricter. The surprise: answers of concurrent attempts come in any
//! order, so within one window of the endpoint the least that was said counts.

/// A reset further ahead than this is not believed.
const RESET_MAX_NS: u64 = 24 * 3_600_000_000_000;
/// Resets that differ by less speak of the same window.
const SAME_WINDOW_NS: u64 = 1_000_000_000;

/// What is left until a moment. Times are unix nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    left: u64,
    /// The reset that was first said of this window.
    first_reset: u64,
    until: u64,
}

impl Observed {
    /// Takes note of an answer: `remaining` requests for the next `reset` nanoseconds.
    pub(super) fn note(before: Option<Self>, now: u64, remaining: u64, reset: u64) -> Option<Self> {
        let before = before.filter(|known| now < known.until);
        if reset == 0 {
            return before;
        }
        let until = now.saturating_add(reset.min(RESET_MAX_NS));
        let same = before
            .filter(|known| until.abs_diff(known.first_reset) <= SAME_WINDOW_NS.max(reset / 10));
        Some(match same {
            Some(known) => Self {
                left: known.left.min(remaining),
                first_reset: known.first_reset,
                until: known.until.max(until),
            },
            None => Self {
                left: remaining,
                first_reset: until,
                until,
            },
        })
    }

    /// Whether one more may go, and from when on.
    pub(super) const fn check(&self, now: u64) -> Result<(), u64> {
        if self.left > 0 || now >= self.until {
            Ok(())
        } else {
            Err(self.until)
        }
    }

    pub(super) const fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    pub(super) const fn is_over(&self, now: u64) -> bool {
        now >= self.until
    }
}
