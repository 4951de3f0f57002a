//! Owns the re-producing of targets that were read in another placement than their endpoint's.
//!
//! Their place here completes only when the write is acknowledged (rule 6). The surprise: a write
//! of unknown outcome is made again, and the repeat is dropped by its mark.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use runtime::log::Record;
use schemas::records::{DeadReason, DeliveryRecord, Target};
use tracing::warn;

use super::moves::{Move, What};
use super::{Engine, Reproduced};
use crate::delivery::Transport;
use crate::owned::Tenure;
use crate::work::Delivery;
use crate::{dead_letter, endpoints};

/// The wait before a target is written to its placement again.
const REPRODUCE_WAIT: Duration = Duration::from_millis(200);

impl<T: Transport> Engine<T> {
    /// Writes a target to the partition of its placement; its place here completes when that is
    /// acknowledged (rule 6).
    pub(super) fn reproduce(
        &mut self,
        tenure: Tenure,
        delivery: Delivery,
        endpoint: &endpoints::Target,
    ) {
        let source = &delivery.loaded.record;
        let target = Target {
            state: Some(delivery.state),
            ..delivery.target.clone()
        };
        let moved = DeliveryRecord {
            control_offset: self.parts.endpoints.applied(),
            targets: Vec::new(),
            ..source.clone()
        };
        let record = Record {
            topic: self.parts.topics.deliveries.clone(),
            partition: Some(endpoint.placement.partition()),
            key: None,
            value: Some(moved.value_for(std::slice::from_ref(&target))),
            headers: dead_letter::headers(source, None),
        };
        let producer = Arc::clone(&self.parts.producer);
        if let Some(owned) = self.tenant_of(tenure) {
            owned.in_flight += 1;
        }
        self.parts.metrics.replaced.inc();
        self.reproducing.push(
            async move {
                let reports = producer.send(vec![record]).await.wait().await;
                let refused = reports.into_iter().find_map(Result::err);
                if refused.is_some_and(|refused| !refused.is_permanent()) {
                    tokio::time::sleep(REPRODUCE_WAIT).await;
                }
                Reproduced {
                    tenure,
                    delivery,
                    refused,
                }
            }
            .boxed(),
        );
    }

    pub(super) fn on_reproduced(&mut self, done: Reproduced) {
        let Reproduced {
            tenure,
            delivery,
            refused,
        } = done;
        let Some(owned) = self.tenant_of(tenure) else {
            return;
        };
        owned.in_flight -= 1;
        let serving = owned.is_serving();
        match refused {
            None => self.complete(tenure, &delivery),
            Some(refused) if refused.is_permanent() => self.refer(tenure, &delivery),
            // Written again, and a repeat is dropped by its mark. The next owner does it otherwise.
            Some(refused) if serving => {
                warn!(endpoint = %delivery.target.endpoint, %refused, "target is not at its placement yet");
                self.admit_target(tenure, delivery.source, &delivery.loaded, delivery.place);
            }
            Some(_) => {}
        }
    }

    /// Ends a delivery that the log cannot take as a reference to its origin (rule 6).
    fn refer(&mut self, tenure: Tenure, delivery: &Delivery) {
        let reason = DeadReason::TooLarge;
        let letter = dead_letter::of_delivery(delivery, reason, self.wall(), None);
        self.push_move(Move {
            tenure,
            source: delivery.source,
            place: delivery.place,
            order: None,
            what: What::Dead {
                letter: Box::new(letter),
                delivery: None,
                poison: None,
            },
        });
    }
}
