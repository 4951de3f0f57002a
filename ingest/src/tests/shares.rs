//! Fair shares: what is beyond one is taken all the same, but for a tenant whose order is promised.

use std::num::NonZeroU32;

use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{FairShare, Placement, Quota, Subscription, Tenant};
use serde_json::json;

use super::harness::{Server, options, start};
use crate::Options;

const APPLIED: &str = "anabranch_ingest_control_offset";

/// Ten events a second are everybody's share.
fn shared() -> Options {
    Options {
        fair_share_events_per_second: 10,
        ..options()
    }
}

async fn post_batch(server: &Server, count: usize) -> u16 {
    let events = (0..count)
        .map(|id| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#));
    let body = format!("[{}]", events.collect::<Vec<_>>().join(","));
    let content_type = ("content-type", "application/cloudevents-batch+json");
    server.post("", &[content_type], body).await.status
}

async fn apply(server: &Server, change: impl Future<Output = ()>) {
    let offset = server.metric(APPLIED);
    change.await;
    server.until(APPLIED, offset + 1.0).await;
}

fn tenant(fair_share: FairShare) -> ControlObject {
    ControlObject::Tenant(Tenant {
        id: "acme".parse().unwrap(),
        name: None,
        events_per_second: None,
        bytes_per_second: None,
        fair_share,
        created_at: 0,
        updated_at: 1,
    })
}

fn subscription(id: u128, ordered: bool) -> Subscription {
    let endpoint = EndpointId::from_bits(id);
    let placement = Placement::of(&Quota::of_endpoint(endpoint), NonZeroU32::MIN);
    // As it is stored: what is not said is as it is by default.
    let stored = json!({
        "id": SubscriptionId::from_bits(id),
        "tenant": "acme",
        "endpoint": endpoint,
        "placement": placement,
        "state": "paused",
        "ordered": ordered,
        "created_at": 0,
        "updated_at": 0,
    });
    serde_json::from_value(stored).unwrap()
}

#[tokio::test]
async fn rule_1_what_is_beyond_a_share_is_taken_whole_in_bulk() {
    let server = start(shared()).await;
    for _ in 0..5 {
        assert_eq!(post_batch(&server, 10).await, 202);
    }
    let (live, bulk) = (server.events().len(), server.bulk_events().len());
    assert_eq!(live + bulk, 50);
    assert!(
        (10..50).contains(&live),
        "the first is within the share: {live}"
    );
    assert_eq!(server.post("/t", &[], "{}").await.status, 202);
    let metric = |class: &str| {
        server.metric(&format!(
            "anabranch_ingest_accepted_events_total{{class=\"{class}\"}}"
        ))
    };
    assert!((metric("live") + metric("bulk") - 51.0).abs() < 0.1);
    assert!(metric("bulk") > 0.0);
}

#[tokio::test]
async fn nobody_has_a_share_unless_it_is_said_and_a_tenants_own_goes_first() {
    let server = start(options()).await;
    for _ in 0..20 {
        assert_eq!(post_batch(&server, 50).await, 202);
    }
    assert_eq!(server.bulk_events().len(), 0);
    let own = FairShare {
        events_per_second: NonZeroU32::new(1),
        bytes_per_second: None,
    };
    apply(&server, server.put(tenant(own))).await;
    assert_eq!(
        post_batch(&server, 50).await,
        202,
        "a share is overdrawn once"
    );
    assert_eq!(post_batch(&server, 50).await, 202);
    assert_eq!(server.bulk_events().len(), 50);
    let bytes = FairShare {
        events_per_second: None,
        bytes_per_second: NonZeroU32::new(1),
    };
    apply(&server, server.put(tenant(bytes))).await;
    assert_eq!(post_batch(&server, 1).await, 202);
    assert_eq!(post_batch(&server, 1).await, 202);
    assert_eq!(server.bulk_events().len(), 51);
}

#[tokio::test]
async fn rule_12_a_tenant_with_an_ordered_subscription_is_never_moved() {
    let server = start(shared()).await;
    let put = |subscription| server.put(ControlObject::Subscription(Box::new(subscription)));
    apply(&server, put(subscription(1, true))).await;
    apply(&server, put(subscription(2, true))).await;
    apply(&server, put(subscription(2, false))).await;
    assert_eq!(post_batch(&server, 1_000).await, 202);
    let refused = server.post("/t", &[], "{}").await;
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited"));
    assert_eq!(refused.body["violated-policies"][0], "fair-share");
    assert!(refused.header("retry-after").is_some(), "HT-11");
    assert_eq!(post_batch(&server, 3).await, 429);
    let refusals = server.metric("anabranch_ingest_share_refusals_total");
    assert!((refusals - 2.0).abs() < 0.1);
    assert_eq!(server.bulk_events().len(), 0);
    assert_eq!(server.events().len(), 1_000);
    // The tenant's own change keeps the count.
    apply(&server, server.put(tenant(FairShare::default()))).await;
    assert_eq!(post_batch(&server, 3).await, 429);
    let id = SubscriptionId::from_bits(1);
    apply(&server, server.delete(&ControlKey::Subscription(id))).await;
    assert_eq!(post_batch(&server, 3).await, 202);
    assert_eq!(server.bulk_events().len(), 3);
}
