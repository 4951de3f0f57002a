//! Owns what is left of endpoints that were deleted: their lanes' state and their blocked lines are
//! taken back from `progress`, so that neither grows with endpoints that are no more.
//!
//! It must never take back the state of an endpoint that is only not known yet. The surprise: what a
//! predecessor left is judged once `control` was read up to an end that was asked for after the
//! take-over; what this process made itself was known to it before.

use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use crate::delivery::Transport;
use crate::planted::{self, Bug};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// After this the end of `control` is asked for again that could not be read.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl<T: Transport> Engine<T> {
    /// Forgets what there is of endpoints that were deleted.
    pub(super) fn forget_deleted(&mut self, now: Instant) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + EVERY;
        let endpoints = &self.parts.endpoints;
        let known_at = self
            .control_end
            .and_then(|end| end.known_at(endpoints.applied()));
        let mut asked_for = None;
        for owned in self.owned.values_mut().filter(|owned| owned.is_serving()) {
            let handover = &mut owned.handover;
            owned.lanes.retain(|quota, lane| {
                let stays = lane.in_ring || !lane.is_at_rest() || endpoints.has_quota(quota);
                if !stays {
                    handover.forget(quota);
                }
                stays
            });
            let taken_at = handover.taken_at();
            let is_known = known_at.is_some_and(|at| at >= taken_at);
            if is_known || planted::is(Bug::UnknownForgotten) {
                handover.forget_left(|quota| endpoints.has_quota(quota));
                handover.free(owned.orders.forget(|key| endpoints.has_line(key)));
            } else if handover.leaves(|quota| !endpoints.has_quota(quota))
                || owned.orders.has(|key| !endpoints.has_line(key))
            {
                asked_for = asked_for.max(Some(taken_at));
            }
        }
        let is_asked = |since: Instant| {
            let end = self
                .control_end
                .map(super::control_end::ControlEnd::asked_at);
            end.is_some_and(|at| at >= since && now < at + ASK_AGAIN)
        };
        if asked_for.is_some_and(|since| !is_asked(since)) {
            self.probe_control(now);
        }
    }
}
