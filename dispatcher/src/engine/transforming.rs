//! Owns what transforms do to the deliveries of a request: which of them go in it, which end without
//! one, and which go in another.
//!
//! Events are transformed where attempts run, never beside the engine's own work. It must never
//! leave a place open: what is dropped completes, what fails is a dead letter that says why (rule
//! 16). The surprise: what leaves a request costs its endpoint nothing.

use std::sync::Arc;

use schemas::records::{DeadReason, ResultVerdict};

use super::Engine;
use super::health::Counted;
use crate::batch;
use crate::delivery::Transport;
use crate::delivery::transform::{Transformed, Transforming};
use crate::endpoints::Target;
use crate::metrics::TransformOutcome;
use crate::owned::Tenure;
use crate::work::Delivery;

/// The transforms of a request's deliveries, in order; none at all where no delivery has one.
pub(super) type Transforms = Vec<Option<Arc<Transforming>>>;

/// A delivery that does not go in the request that it was gathered for.
pub(super) enum Left {
    /// Its transform drops it.
    Dropped(Delivery),
    /// Its transform fails, and how.
    Failed(Delivery, String),
    /// It goes in another.
    Apart(Delivery),
}

/// Transforms the deliveries of `unit`: what is left of it, and what has left.
pub(super) fn transformed(
    unit: Box<Delivery>,
    transforms: &Transforms,
    target: &Target,
) -> (Option<Box<Delivery>>, Vec<Left>) {
    if transforms.is_empty() {
        return (Some(unit), Vec::new());
    }
    let (is_piece, is_batch) = (unit.is_piece, !unit.company.is_empty());
    let (mut stay, mut left) = (Vec::new(), Vec::new());
    for (mut item, transform) in unit.into_items().into_iter().zip(transforms) {
        let Some(transform) = transform else {
            stay.push(item);
            continue;
        };
        if is_batch && transform.goes_alone() {
            item.is_piece = true;
            left.push(Left::Apart(item));
            continue;
        }
        let record = &item.loaded.record;
        match transform.run(&record.event, target, record.accepted_at) {
            Transformed::Dropped => left.push(Left::Dropped(item)),
            Transformed::Failed(reason) => left.push(Left::Failed(item, reason)),
            Transformed::Sent(mut sent) => {
                sent.lent = Some(item.loaded.lend(sent.bytes()));
                item.sent = Some(Arc::from(sent));
                stay.push(item);
            }
        }
    }
    if let Some(of) = target.batch.filter(|_| stay.len() > 1) {
        let fit = batch::how_many_fit(&stay, &of);
        let behind = stay.split_off(fit.max(1));
        left.extend(
            behind
                .into_iter()
                .map(|item| Left::Apart(item.untransformed())),
        );
    }
    let unit = Delivery::together(stay).map(|mut unit| {
        unit.is_piece = is_piece;
        Box::new(unit)
    });
    (unit, left)
}

impl<T: Transport> Engine<T> {
    /// The transforms of what goes in one request.
    pub(super) fn transforms(&self, unit: &Delivery) -> Transforms {
        let endpoints = &self.parts.endpoints;
        if !endpoints.has_transforms() {
            return Vec::new();
        }
        let all = unit.items().map(|item| endpoints.transform(&item.target));
        let all: Transforms = all.collect();
        match all.iter().any(Option::is_some) {
            true => all,
            false => Vec::new(),
        }
    }

    /// Ends what has left a request, or lets it wait for another one.
    pub(super) fn on_left(&mut self, tenure: Tenure, target: &Arc<Target>, left: Vec<Left>) {
        for left in left {
            // The next owner transforms what this one has lost.
            if self.tenant_of(tenure).is_none() {
                return;
            }
            match left {
                Left::Dropped(delivery) => {
                    let count = TransformOutcome::Dropped;
                    self.parts.metrics.transforms.get(count).inc();
                    self.drop_delivery(tenure, &delivery);
                }
                Left::Failed(delivery, reason) => {
                    let count = TransformOutcome::Failed;
                    self.parts.metrics.transforms.get(count).inc();
                    let dead = DeadReason::Transform;
                    self.bury_saying(tenure, delivery, dead, reason);
                }
                Left::Apart(delivery) => {
                    let now = self.now();
                    self.queue(tenure, delivery, target, now);
                }
            }
        }
    }

    /// Completes a delivery of which nothing is to be sent.
    fn drop_delivery(&mut self, tenure: Tenure, delivery: &Delivery) {
        if delivery.target.report {
            let mut report = self.result(delivery, (ResultVerdict::Delivered, None), None);
            report.dropped = true;
            self.push_report(tenure, delivery, report);
        } else {
            self.complete_in_order(tenure, delivery);
        }
    }

    /// Takes a turn back in which nothing was sent, because nothing was left to send.
    pub(super) fn nothing_left(&mut self, tenure: Tenure, target: &Arc<Target>, counted: Counted) {
        if self.take_turn_back(tenure, Some(&target.quota), counted) {
            self.enlist(tenure, target.quota.clone());
        }
    }
}
