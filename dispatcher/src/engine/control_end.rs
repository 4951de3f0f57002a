//! Owns the question where `control` ends: what is ahead of that was never written there.
//!
//! It must never be asked twice at once. The surprise: an end asked for before a record came says
//! nothing about that record, so each end goes with the time of its question.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use super::Engine;
use crate::delivery::Transport;

/// How long a record ahead of everything known of `control` is held.
pub(super) const AHEAD_OF_CONTROL_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the end of `control`.
const CONTROL_PROBE_EVERY: Duration = Duration::from_secs(1);
/// A record appended so long before the end of `control` was asked for needs no look of its own:
/// more than any two clocks differ.
const KNOWN_BEFORE_MS: i64 = 60_000;

/// The end of `control` as it was when it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ControlEnd {
    offset: i64,
    asked_at: Instant,
    asked_wall: i64,
}

impl ControlEnd {
    /// When the end was asked for.
    pub(super) fn asked_at(self) -> Instant {
        self.asked_at
    }

    /// When it may be asked for again.
    pub(super) fn ask_again_at(self) -> Instant {
        self.asked_at + CONTROL_PROBE_EVERY
    }

    /// When everything was known of `control`, where this much of it is applied.
    pub(super) fn known_at(self, applied: i64) -> Option<Instant> {
        (self.offset <= applied).then_some(self.asked_at)
    }

    /// Whether `offset` was ahead of the topic though the record that carries it, held `since` and
    /// appended at `appended_at`, was there long before: an end known from earlier says nothing.
    pub(super) fn is_behind(self, offset: i64, since: Option<Instant>, appended_at: i64) -> bool {
        let asked_after = since.is_some_and(|since| self.asked_at >= since + AHEAD_OF_CONTROL_MAX);
        let long_there = appended_at.saturating_add(KNOWN_BEFORE_MS) <= self.asked_wall;
        offset > self.offset && (asked_after || long_there)
    }
}

impl<T: Transport> Engine<T> {
    /// Asks for the end of `control`, where it is not asked for already.
    pub(super) fn probe_control(&mut self, now: Instant) {
        if self.control_probe.is_some() {
            return;
        }
        let (log, control) = (self.parts.log.clone(), self.parts.topics.control.clone());
        let asked_wall = self.wall();
        let probe = async move {
            let bounds = log.bounds(&control.partition(0)).await;
            if let Err(error) = &bounds {
                warn!(%error, "end of control cannot be read now");
            }
            ControlEnd {
                // Nothing is known to be ahead of an end that is not known.
                offset: bounds.map_or(i64::MAX, |bounds| bounds.stable_end),
                asked_at: now,
                asked_wall,
            }
        };
        self.control_probe = Some(probe.boxed());
    }

    pub(super) fn on_control_probe(&mut self, end: ControlEnd) {
        self.control_end = Some(end);
    }
}
