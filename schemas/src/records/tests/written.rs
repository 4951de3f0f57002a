//! What is written of records comes back; damaged JSON is read or refused.

use std::num::{NonZeroU32, NonZeroU64};

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::{AT, acme, plain_endpoint, subscription};
use crate::ids::{DeliveryId, EndpointId, KeyId, SubscriptionId};
use crate::records::{
    AttemptRecord, AttemptVerdict, ControlKey, ControlObject, DEAD_HEADER, DeadLetter, DeadReason,
    Installation, LastAttempt,
};
use crate::resources::{
    ApiKey, BodyMode, Endpoint, EndpointState, FairShare, KeyScope, Placement, Quota, RateWindow,
    SealedSecret, SecretKind, Subscription, SubscriptionState, Tenant, WindowKind,
};

fn text() -> impl Strategy<Value = String> {
    ".{0,10}"
}

fn origin() -> impl Strategy<Value = (String, u32, i64, u32)> {
    (text(), any::<u32>(), any::<i64>(), any::<u32>())
}

fn last_attempt() -> impl Strategy<Value = LastAttempt> {
    (
        any::<i64>(),
        text(),
        of(any::<u16>()),
        of(text()),
        of(text()),
    )
        .prop_map(
            |(started_at, reason, status, error, response)| LastAttempt {
                started_at,
                reason,
                status,
                error,
                response,
            },
        )
}

fn letter() -> impl Strategy<Value = DeadLetter> {
    let ids = (of(any::<u128>()), of(any::<u128>()), of(any::<u128>()));
    (
        (select(DeadReason::ALL.to_vec()), of(text()), any::<i64>()),
        (origin(), of(any::<i64>()), of("[a-z0-9][a-z0-9-]{0,5}")),
        ids,
        (any::<u32>(), of(last_attempt())),
    )
        .prop_map(
            |(what, place, (endpoint, subscription, delivery), attempts)| DeadLetter {
                version: 1,
                reason: what.0,
                detail: what.1,
                at: what.2,
                origin: place.0,
                through: place.1,
                tenant: place.2.map(|slug| slug.parse().unwrap()),
                endpoint: endpoint.map(EndpointId::from_bits),
                subscription: subscription.map(SubscriptionId::from_bits),
                delivery: delivery.map(DeliveryId::from_bits),
                attempts: attempts.0,
                last_attempt: attempts.1,
                bulk: None,
            },
        )
}

fn attempt() -> impl Strategy<Value = AttemptRecord> {
    let verdicts = [
        AttemptVerdict::Delivered,
        AttemptVerdict::Retry,
        AttemptVerdict::Rejected,
        AttemptVerdict::EndpointGone,
    ];
    (
        any::<(u128, u128, u128, u32, i64)>(),
        (text(), text(), text(), of(text()), of(text())),
        (select(verdicts.to_vec()), of(any::<u16>())),
        any::<(u64, u64, u64)>(),
    )
        .prop_map(|(ids, texts, (verdict, status), counts)| AttemptRecord {
            version: 1,
            delivery: DeliveryId::from_bits(ids.0),
            tenant: acme(),
            endpoint: EndpointId::from_bits(ids.1),
            subscription: SubscriptionId::from_bits(ids.2),
            event_id: texts.0,
            event_type: texts.1,
            instance: texts.2,
            attempt: ids.3,
            started_at: ids.4,
            duration_us: counts.0,
            verdict,
            reason: texts.3,
            status,
            error: texts.4,
            request_bytes: counts.1,
            response_bytes: counts.2,
        })
}

fn at_least_1(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

fn window((count, per_ms, burst, offset_ms): (u32, u64, u32, u64)) -> RateWindow {
    RateWindow {
        kind: match offset_ms % 3 {
            0 => WindowKind::Spread {
                burst: NonZeroU32::new(burst),
            },
            1 => WindowKind::Sliding,
            _ => WindowKind::Fixed { offset_ms },
        },
        ..RateWindow::spread(
            at_least_1(count),
            NonZeroU64::new(per_ms).unwrap_or(NonZeroU64::MIN),
        )
    }
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let states = [
        EndpointState::Active,
        EndpointState::Paused,
        EndpointState::Disabled,
    ];
    let bodies = [
        BodyMode::Structured,
        BodyMode::Binary,
        BodyMode::StandardWebhooks,
        BodyMode::Data,
        BodyMode::Form,
    ];
    (
        (any::<u128>(), of(text()), text(), any::<bool>()),
        (select(states.to_vec()), select(bodies.to_vec())),
        (
            vec(any::<Option<i64>>(), 0..3),
            vec(any::<(u32, u64, u32, u64)>(), 0..4),
        ),
        (
            any::<u32>(),
            of(vec(any::<u64>(), 0..3)),
            any::<Option<u64>>(),
        ),
    )
        .prop_map(|(what, (state, body), (secrets, windows), limits)| {
            let id = EndpointId::from_bits(what.0);
            let quota = if what.3 {
                Quota::shared(&acme(), &what.2)
            } else {
                Quota::of_endpoint(id)
            };
            let secret = |expires_at| SealedSecret {
                id: what.2.clone(),
                kind: SecretKind::Symmetric,
                public_key: None,
                sealed: what.2.clone(),
                created_at: AT,
                expires_at,
            };
            Endpoint {
                id,
                name: what.1,
                url: what.2.clone(),
                placement: Placement::of(&quota, at_least_1(limits.0)),
                quota,
                state,
                body,
                secrets: secrets.into_iter().map(secret).collect(),
                limits: windows.into_iter().map(window).collect(),
                concurrency: NonZeroU32::new(limits.0),
                timeout_ms: NonZeroU32::new(limits.0),
                retry_schedule_ms: limits.1,
                max_age_ms: limits.2,
                ..plain_endpoint()
            }
        })
}

fn object() -> impl Strategy<Value = ControlObject> {
    let tenant = (
        "[a-z0-9][a-z0-9-]{0,5}",
        of(text()),
        any::<(u32, u32, i64)>(),
    );
    let filters = [
        "[]",
        r#"[{"exact":{"type":"a","subject":"\"ü"}}]"#,
        r#"[{"not":{"all":[{"suffix":{"id":"0"}},{"any":[{"prefix":{"x1":"y"}}]}]}}]"#,
    ];
    let states = [SubscriptionState::Active, SubscriptionState::Paused];
    let key = (any::<u128>(), of(any::<u128>()), of(text()), text());
    prop_oneof![
        any::<u32>()
            .prop_map(|partitions| ControlObject::Installation(Installation { partitions })),
        tenant.prop_map(|(id, name, numbers)| ControlObject::Tenant(Tenant {
            id: id.parse().unwrap(),
            name,
            events_per_second: NonZeroU32::new(numbers.0),
            bytes_per_second: NonZeroU32::new(numbers.1),
            fair_share: FairShare {
                events_per_second: NonZeroU32::new(numbers.1),
                bytes_per_second: NonZeroU32::new(numbers.0),
            },
            created_at: numbers.2,
            updated_at: numbers.2,
        })),
        key.prop_map(|(id, owner, name, hash)| ControlObject::ApiKey(ApiKey {
            id: KeyId::from_bits(id),
            tenant: acme(),
            scope: owner.map_or(KeyScope::Tenant, |id| {
                KeyScope::Endpoint(EndpointId::from_bits(id))
            }),
            name,
            hash,
            created_at: AT,
        })),
        endpoint().prop_map(|endpoint| ControlObject::Endpoint(Box::new(endpoint))),
        (
            select(filters.to_vec()),
            select(states.to_vec()),
            of(text())
        )
            .prop_map(|(filters, state, name)| {
                let subscription = Subscription {
                    name,
                    ..subscription(filters, state)
                };
                ControlObject::Subscription(Box::new(subscription))
            }),
    ]
}

/// Cut and changed JSON is read or refused, and never more than that.
fn damaged(json: &[u8], at: prop::sample::Index, byte: u8) -> [Vec<u8>; 2] {
    let mut changed = json.to_vec();
    *at.get_mut(&mut changed) = byte;
    [changed, json[..at.index(json.len())].to_vec()]
}

proptest! {
    #[test]
    fn any_dead_letter_comes_back(
        letter in letter(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let header = letter.to_header();
        let decode = |header: &[u8]| DeadLetter::decode([(DEAD_HEADER, header)].into_iter(), None);
        let [changed, cut] = damaged(&header, at, byte);
        prop_assert_eq!(decode(&header).unwrap(), (letter, None));
        prop_assert!(decode(&cut).is_err());
        let _outcome = decode(&changed);
    }

    #[test]
    fn any_attempt_comes_back(attempt in attempt()) {
        let json = serde_json::to_vec(&attempt).unwrap();
        prop_assert_eq!(serde_json::from_slice::<AttemptRecord>(&json).unwrap(), attempt);
    }

    #[test]
    fn any_object_comes_back(object in object(), at in any::<prop::sample::Index>(), byte: u8) {
        let json = object.encode();
        let key = object.key();
        prop_assert_eq!(&key.to_string().parse::<ControlKey>().unwrap(), &key);
        let [changed, cut] = damaged(&json, at, byte);
        let value: Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(&value["version"], 1);
        prop_assert_eq!(ControlObject::decode(&json).unwrap(), object);
        prop_assert!(ControlObject::decode(&cut).is_err());
        let _outcome = ControlObject::decode(&changed);
    }

    #[test]
    fn no_text_panics_as_a_control_key(text in "(installation|tenant|key|endpoint|subscription|redrive)?/?.{0,30}") {
        if let Ok(key) = text.parse::<ControlKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
