//! Owns the way back of endpoints that were disabled because they failed, where their owners allow
//! it: seldom, one delivery is attempted as a probe instead of being buried; once one is served,
//! the endpoint is marked as enabled on `progress` and told of on `events`.
//!
//! It must never probe an endpoint that answered 410 (WH-12). The surprise: control decides, and
//! follows the mark; until it has, deliveries are attempted here as if it had.

use std::time::Duration;

use schemas::records::{EnabledProgress, ProbationProgress};
use schemas::resources::EndpointState;
use serde_json::json;
use tracing::info;

use super::Engine;
use super::disabling::{ENABLED, operational};
use crate::breaker::Health;
use crate::delivery::Transport;
use crate::endpoints::Target;
use crate::ledger::Place;
use crate::owned::Tenure;
use crate::planted::{self, Bug};
use crate::probation::{Probed, Version};
use crate::work::Delivery;

/// Names a delivery within this process.
pub(super) type Named = (Tenure, usize, Place);

impl<T: Transport> Engine<T> {
    /// Whether the endpoint is attempted at all.
    pub(super) fn may_attempt(&self, target: &Target) -> bool {
        let is_enabled = match target.state {
            EndpointState::Active => true,
            EndpointState::Paused => false,
            EndpointState::Disabled => self.probation.is_back(version(target)),
        };
        is_enabled && self.given_up(target).is_none()
    }

    /// Whether these deliveries are attempted: the endpoint is, or one of them is its probe.
    pub(super) fn may_attempt_this(
        &self,
        tenure: Tenure,
        target: &Target,
        unit: &Delivery,
    ) -> bool {
        self.may_attempt(target) || self.is_probe(tenure, target, unit)
    }

    /// The same for what is to be queued: it may become the probe.
    pub(super) fn may_queue(&mut self, tenure: Tenure, target: &Target, unit: &Delivery) -> bool {
        self.may_attempt_this(tenure, target, unit) || {
            let now = self.now();
            target.may_come_back()
                && self.given_up(target).is_none()
                && self
                    .probation
                    .begin(version(target), named(tenure, unit), now)
        }
    }

    fn is_probe(&self, tenure: Tenure, target: &Target, unit: &Delivery) -> bool {
        target.state == EndpointState::Disabled
            && unit.items().any(|item| {
                self.probation
                    .is_probe(version(target), &named(tenure, item))
            })
    }

    /// Whether a failed attempt of this endpoint was its probe: nothing but another probe follows.
    pub(super) fn stays_disabled(&self, target: &Target) -> bool {
        target.state == EndpointState::Disabled && !self.may_attempt(target)
    }

    /// An attempt has ended; if it was the probe of a disabled endpoint, learns from it.
    pub(super) fn probed(
        &mut self,
        tenure: Tenure,
        target: &Target,
        unit: &Delivery,
        health: Option<Health>,
    ) {
        if !self.is_probe(tenure, target, unit) {
            return;
        }
        let probed = match health {
            Some(Health::Served) => Probed::Served,
            Some(Health::Answered | Health::Busy | Health::Failed | Health::Silent) => {
                Probed::Failed
            }
            None => Probed::Unknown,
        };
        let now = self.now();
        self.probation.ended(version(target), probed, now);
        match probed {
            Probed::Served => self.enable(tenure, unit, target),
            Probed::Failed => self.put_off(tenure, target),
            Probed::Unknown => {}
        }
    }

    /// Lets a successor know how long the endpoint waits for its next probe (rule 5).
    fn put_off(&mut self, tenure: Tenure, target: &Target) {
        let Some((not_before, interval)) = self.probation.next(version(target)) else {
            return;
        };
        let mark = ProbationProgress {
            endpoint: target.id,
            updated_at: target.updated_at,
            not_before: self.parts.clock.wall_at(not_before),
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        if let Some(lane) = owned.lanes.get_mut(&target.quota) {
            lane.put_off(mark);
            owned.handover.mark(&target.quota, true);
        }
    }

    /// Marks the endpoint as enabled, and tells of it.
    fn enable(&mut self, tenure: Tenure, unit: &Delivery, target: &Target) {
        let mark = EnabledProgress {
            endpoint: target.id,
            updated_at: target.updated_at,
            at: self.wall(),
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let lane = owned.lanes.get_mut(&target.quota);
        if let Some(lane) = lane.filter(|_| !planted::is(Bug::EnabledUnmarked)) {
            lane.enable(mark);
        }
        owned.handover.mark(&target.quota, true);
        self.parts.metrics.health.endpoints_enabled.inc();
        info!(endpoint = %target.id, "endpoint works again and is enabled");
        let parent = &unit.loaded.record.event;
        let data = json!({ "endpoint": target.id.to_string() });
        let event = operational(parent, target, ENABLED, &data);
        self.tell(tenure, parent, event);
    }

    /// What a predecessor saw come back and nobody has changed since.
    pub(super) fn inherit_enabled(&mut self, marks: Vec<EnabledProgress>) {
        for mark in marks {
            self.probation.inherit((mark.endpoint, mark.updated_at));
        }
    }

    /// How long a predecessor let disabled endpoints wait.
    pub(super) fn inherit_probation(&mut self, marks: Vec<ProbationProgress>) {
        let now = self.now();
        for mark in marks {
            if planted::is(Bug::ProbationForgotten) {
                continue;
            }
            let not_before = self.parts.clock.instant_at(mark.not_before);
            let interval = Duration::from_millis(mark.interval_ms);
            let version = (mark.endpoint, mark.updated_at);
            self.probation.resume(version, (not_before, interval), now);
        }
    }
}

fn version(target: &Target) -> Version {
    (target.id, target.updated_at)
}

fn named(tenure: Tenure, delivery: &Delivery) -> Named {
    (tenure, delivery.source, delivery.place)
}
