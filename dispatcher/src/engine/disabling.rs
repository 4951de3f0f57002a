//! Owns endpoints that are given up here: those that answered 410 or failed for longer than they
//! may (WH-12, WH-16). They are marked on `progress`, told of on `events`, and what is for them
//! ends as dead letters, until they are changed.
//!
//! It must never tell of an endpoint without marking it, nor twice of one change of it: the mark
//! and the operational event are one transaction. The surprise: a delivery of an operational event
//! that fails marks its endpoint too, and tells nobody, so that nothing loops (rule 19).

use bytes::Bytes;
use runtime::log::{Headers, Record};
use schemas::codec::kafka::encode_binary;
use schemas::event::{AttributeValue, Event, LOOP};
use schemas::ids::EndpointId;
use schemas::records::{DeadReason, DisabledProgress};
use schemas::resources::DisabledReason;
use serde_json::{Value, json};
use tracing::warn;

use super::Engine;
use crate::delivery::Transport;
use crate::endpoints::Target;
use crate::owned::{DELIVERIES, Tenure};
use crate::planted::{self, Bug};
use crate::probation::Version;
use crate::work::Delivery;

/// What the events that the pipeline makes about itself begin with.
const OPERATIONAL: &str = "anabranch.";
/// Those of them whose subject is an endpoint.
const ABOUT_ENDPOINTS: &str = "anabranch.endpoint.";
/// The type of the event that says that an endpoint was disabled …
const DISABLED: &str = "anabranch.endpoint.disabled";
/// … and of the one that says that it is enabled again by itself.
pub(super) const ENABLED: &str = "anabranch.endpoint.enabled";
const EVENT_SOURCE: &str = "/anabranch/dispatcher";

/// An operational event that goes with the next transaction of its tenure.
#[derive(Debug)]
pub(super) struct Telling {
    tenure: Tenure,
    record: Record,
}

impl<T: Transport> Engine<T> {
    /// Why the endpoint, as it is now, was given up here.
    pub(super) fn given_up(&self, target: &Target) -> Option<DeadReason> {
        let (updated_at, reason) = self.gone.get(&target.id)?;
        (*updated_at == target.updated_at).then_some(match reason {
            DisabledReason::Gone => DeadReason::EndpointGone,
            DisabledReason::Failing => DeadReason::EndpointDisabled,
        })
    }

    /// Whether the endpoint has failed for longer than it may.
    pub(super) fn has_failed_too_long(&mut self, tenure: Tenure, target: &Target) -> bool {
        let wall = self.wall();
        self.tenant_of(tenure)
            .and_then(|owned| owned.lanes.get(&target.quota))
            .is_some_and(|lane| lane.breaker().is_overdue(wall, target.disable_after))
    }

    /// Gives an endpoint up for what became of `delivery`: marks it, and tells of it.
    pub(super) fn give_up(
        &mut self,
        tenure: Tenure,
        delivery: &Delivery,
        target: &Target,
        reason: DisabledReason,
    ) {
        if self.given_up(target).is_some() {
            return;
        }
        let at = self.wall();
        self.gone.insert(target.id, (target.updated_at, reason));
        let mark = DisabledProgress {
            endpoint: target.id,
            updated_at: target.updated_at,
            reason,
            at,
        };
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        let lane = owned.lanes.get_mut(&target.quota);
        let since = lane.and_then(|lane| {
            lane.disable(mark);
            lane.breaker().failing_since()
        });
        owned.handover.mark(&target.quota, true);
        self.parts
            .metrics
            .health
            .endpoints_disabled
            .get(reason.into())
            .inc();
        warn!(endpoint = %target.id, ?reason, "endpoint is disabled");
        if planted::is(Bug::DisabledUntold) {
            return;
        }
        let parent = &delivery.loaded.record.event;
        let status = Some(delivery.state.last_status).filter(|status| *status != 0);
        let data = json!({
            "endpoint": target.id.to_string(),
            "reason": mark.reason,
            "since": since.unwrap_or(mark.at),
            "last_status": status,
        });
        let event = operational(parent, target, DISABLED, &data);
        self.tell(tenure, parent, event);
    }

    /// Lets an operational event go with the next transaction, unless its parent is one (rule 19).
    pub(super) fn tell(
        &mut self,
        tenure: Tenure,
        parent: &Event,
        event: Result<Event, schemas::event::Error>,
    ) {
        if parent.ty().starts_with(OPERATIONAL) {
            return;
        }
        match event.map(|event| self.event_record(&event)) {
            Ok(record) => self.tellings.push(Telling { tenure, record }),
            Err(error) => tracing::error!(%error, "operational event cannot be made"),
        }
    }

    fn event_record(&self, event: &Event) -> Record {
        let (headers, value) = encode_binary(event);
        Record {
            topic: self.parts.topics.events.clone(),
            partition: None,
            key: event
                .subject()
                .map(|subject| Bytes::copy_from_slice(subject.as_bytes())),
            value,
            headers: headers.into_iter().collect::<Headers>(),
        }
    }

    /// What a predecessor gave up and nobody has changed since.
    pub(super) fn inherit_given_up(&mut self, marks: Vec<DisabledProgress>) {
        for mark in marks {
            self.gone
                .insert(mark.endpoint, (mark.updated_at, mark.reason));
        }
    }

    /// Adds the operational events that wait to a transaction's records, and the sources whose
    /// positions go along.
    pub(super) fn gather_tellings(
        &mut self,
        records: &mut Vec<Record>,
        touched: &mut Vec<(Tenure, usize)>,
    ) -> Vec<Telling> {
        let tellings = std::mem::take(&mut self.tellings);
        let owned = |telling: &Telling| self.owned.get(&telling.tenure.placement);
        let goes_on =
            |telling: &Telling| owned(telling).is_some_and(|owned| owned.tenure == telling.tenure);
        // Whoever owns the placement now gives the endpoint up anew.
        let tellings: Vec<Telling> = tellings.into_iter().filter(goes_on).collect();
        for telling in &tellings {
            records.push(telling.record.clone());
            touched.push((telling.tenure, DELIVERIES));
        }
        tellings
    }

    /// The transaction that carried these was aborted.
    pub(super) fn tell_again(&mut self, tellings: Vec<Telling>) {
        self.tellings.extend(tellings);
    }

    /// Takes marks of endpoints back that were changed or deleted since.
    pub(super) fn sweep_marks(&mut self) {
        let endpoints = &self.parts.endpoints;
        let is_current = |(id, updated_at): Version| {
            endpoints.is_unusable(id)
                || endpoints
                    .get(id)
                    .is_some_and(|target| target.updated_at == updated_at)
        };
        self.gone
            .retain(|id, (updated_at, _)| is_current((*id, *updated_at)));
        self.probation.keep(is_current);
        for owned in self.owned.values_mut().filter(|owned| owned.is_serving()) {
            owned.handover.keep_marks(is_current);
            for (quota, lane) in &mut owned.lanes {
                if lane.keep_marks(is_current) {
                    owned.handover.mark(quota, false);
                }
            }
        }
    }
}

/// Whether this operational event says how `endpoint` fares: nobody is sent news of himself, whatever
/// he subscribes to (rule 19).
pub(super) fn is_about(event: &Event, endpoint: EndpointId) -> bool {
    event.ty().starts_with(ABOUT_ENDPOINTS)
        && event.loop_count() > 0
        && event.subject().and_then(|subject| subject.parse().ok()) == Some(endpoint)
}

/// An event of this type about `target`, a child of `parent`'s.
pub(super) fn operational(
    parent: &Event,
    target: &Target,
    ty: &str,
    data: &Value,
) -> Result<Event, schemas::event::Error> {
    let id = format!("{}-{}", target.id, target.updated_at);
    let mut event = Event::builder(&id, EVENT_SOURCE, ty)
        .subject(&target.id.to_string())
        .data("application/json", Bytes::from(data.to_string()))
        .build()?;
    event.set_tenant(target.tenant.as_str())?;
    let count = i32::try_from(parent.loop_count() + 1).unwrap_or(i32::MAX);
    event.set_extension(LOOP, AttributeValue::Integer(count))?;
    Ok(event)
}
