//! Owns subscriptions by the thousand, for benchmarks of the router alone.
//!
//! It must never write beside control: control is ended first. The surprise: nobody makes their
//! endpoints; a router needs to know no more of one than its placement.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::Context as _;
use bytes::Bytes;
use rdkafka::message::OwnedHeaders;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlObject, MAX_TARGETS};
use schemas::resources::{Placement, Quota, Subscription};
use serde_json::json;

use crate::bare::{self, Record};
use crate::events::TENANT;
use crate::stack::{PARTITIONS, Service, Stack};

/// Subscriptions of one event type.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) event_type: String,
    pub(crate) subscriptions: u64,
}

/// What the events of a type become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records {
    /// Records on `deliveries` for one event.
    pub(crate) an_event: u64,
}

/// Ends control and writes what it would have written; what an event of each type becomes.
///
/// # Errors
/// Where the broker does not take it.
pub(crate) async fn subscribe(stack: &mut Stack, all: &[Wanted]) -> anyhow::Result<Vec<Records>> {
    stack.stop(Service::Control).await?;
    let mut objects = Vec::new();
    let mut becomes = Vec::new();
    let mut id = 0;
    for wanted in all {
        let mut targets: BTreeMap<u32, usize> = BTreeMap::new();
        for _ in 0..wanted.subscriptions {
            id += 1;
            let subscription = subscription(id, &wanted.event_type)?;
            *targets
                .entry(subscription.placement.partition())
                .or_default() += 1;
            objects.push(ControlObject::Subscription(Box::new(subscription)));
        }
        let records: usize = targets
            .values()
            .map(|count| count.div_ceil(MAX_TARGETS))
            .sum();
        becomes.push(Records {
            an_event: u64::try_from(records)?,
        });
    }
    let records = objects.into_iter().map(|object| {
        Ok(Record {
            partition: Some(0),
            key: Some(object.key().to_string().into()),
            headers: OwnedHeaders::new(),
            value: Bytes::from(object.encode()),
        })
    });
    bare::write(stack.brokers(), &stack.topic("control"), records)
        .await
        .context("filling `control`")?;
    Ok(becomes)
}

fn subscription(id: u128, event_type: &str) -> anyhow::Result<Subscription> {
    let endpoint = EndpointId::from_bits(id);
    let partitions = NonZeroU32::new(PARTITIONS).context("no partitions")?;
    // As it is stored: what is not said is as it is by default.
    let stored = json!({
        "id": SubscriptionId::from_bits(id),
        "tenant": TENANT,
        "endpoint": endpoint,
        "placement": Placement::of(&Quota::of_endpoint(endpoint), partitions),
        "filters": [{ "exact": { "type": event_type } }],
        "created_at": 0,
        "updated_at": 0,
    });
    Ok(serde_json::from_value(stored)?)
}

#[cfg(test)]
mod tests {
    use schemas::resources::SubscriptionState;

    use super::*;

    #[test]
    fn a_subscription_is_one_that_routers_take() {
        let subscription = subscription(7, "a").unwrap();
        assert_eq!(subscription.state, SubscriptionState::Active);
        assert!(!subscription.hidden && !subscription.filters.is_empty());
        assert!(subscription.placement.partition() < PARTITIONS);
    }
}
