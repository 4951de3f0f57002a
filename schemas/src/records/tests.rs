//! Bytes of every version must be read for ever (fixtures); what is written comes back (`written`).

mod written;

use std::num::{NonZeroU32, NonZeroU64};

use bytes::Bytes;

use super::*;
use crate::event::Event;
use crate::filter::Filters;
use crate::ids::{DeliveryId, EndpointId, KeyId, SubscriptionId, TenantId};
use crate::resources::{
    ApiKey, Authentication, Batch, BatchFormat, BodyMode, ClientCertificate, ClientCredentials,
    ClientIn, Disabled, DisabledReason, Endpoint, EndpointState, FairShare, HeaderCase, KeyScope,
    LimitUnit, Placement, Quota, RateWindow, SealedSecret, SealedText, SecretKind, StartFrom,
    StartPosition, StaticHeader, Subscription, SubscriptionState, Tenant, WindowKind,
};

const ENDPOINT: EndpointId = EndpointId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0001);
const SUBSCRIPTION: SubscriptionId =
    SubscriptionId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0002);
const KEY: KeyId = KeyId::from_bits(0x0197_0000_0000_7000_8000_0000_0000_0003);
const AT: i64 = 1_795_331_700_000;

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn some(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

// === fixtures: never change a file; a new version adds files ===

/// A record on paper: `name: value` for each header, an empty line, the value in hexadecimal.
fn on_paper(text: &str) -> (Vec<(&str, &[u8])>, Bytes) {
    let (head, value) = text.split_once("\n\n").unwrap();
    let headers = head
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name, value.as_bytes()));
    let digits: Vec<u8> = value.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    (headers.collect(), digits.chunks(2).map(byte).collect())
}

fn full_delivery() -> DeliveryRecord {
    let event = Event::builder("42", "/shop", "com.example.order.paid")
        .attribute("subject", "order/42")
        .attribute("time", "2026-11-22T07:15:00.5Z")
        .attribute("anabranchtenant", "acme")
        .data(
            "application/json",
            Bytes::from_static(br#"{ "total": 1.50 }"#),
        );
    let mut event = event.build().unwrap();
    event.set_extension("urgent", true.into()).unwrap();
    event.set_extension("anabranchloop", 2.into()).unwrap();
    let state = AttemptState {
        attempts: 3,
        hops: 200,
        due_at: AT + 30_000,
        last_status: 503,
    };
    let marked = Target {
        report: true,
        bulk: Some(7),
        order: Some((u64::MAX, 300)),
        state: Some(state),
        ..Target::new(SUBSCRIPTION, ENDPOINT)
    };
    DeliveryRecord {
        origin: Origin {
            topic: "anabranch.events".into(),
            partition: 47,
            offset: 1_000_000,
            index: 3,
        },
        router_position: Some(999_900),
        accepted_at: AT,
        control_offset: 12_345,
        event,
        targets: vec![Target::new(SUBSCRIPTION, ENDPOINT), marked],
    }
}

fn plain_delivery() -> DeliveryRecord {
    DeliveryRecord {
        origin: Origin {
            topic: "orders".into(),
            partition: 0,
            offset: 0,
            index: 0,
        },
        router_position: None,
        accepted_at: 0,
        control_offset: 0,
        event: Event::builder("1", "/s", "t").build().unwrap(),
        targets: vec![Target::new(SUBSCRIPTION, ENDPOINT)],
    }
}

#[test]
fn deliveries_of_version_1_are_read_and_written_for_ever() {
    let check = |text: &str, expected: &DeliveryRecord| {
        let (headers, value) = on_paper(text);
        let read = DeliveryRecord::decode(headers.into_iter(), &value);
        assert_eq!(read.as_ref(), Ok(expected));
        // Another form of writing is another version.
        assert_eq!(expected.value_for(&expected.targets), value);
    };
    check(
        include_str!("fixtures/delivery-v1-full.hex"),
        &full_delivery(),
    );
    check(
        include_str!("fixtures/delivery-v1-plain.hex"),
        &plain_delivery(),
    );
}

fn full_letter() -> DeadLetter {
    DeadLetter {
        detail: Some("the endpoint answered 410".to_owned()),
        through: Some(1_000_009),
        tenant: Some(acme()),
        endpoint: Some(ENDPOINT),
        subscription: Some(SUBSCRIPTION),
        delivery: Some(DeliveryId::of("/shop", "42", SUBSCRIPTION)),
        attempts: 3,
        last_attempt: Some(LastAttempt {
            started_at: AT,
            reason: "gone".to_owned(),
            status: Some(410),
            error: Some("none".to_owned()),
            response: Some("bye".to_owned()),
        }),
        ..DeadLetter::new(DeadReason::EndpointGone, AT, &full_delivery().origin)
    }
}

#[test]
fn dead_letters_of_version_1_are_read_for_ever() {
    let check = |json: &str, expected: &DeadLetter| {
        let (mut headers, value) = on_paper(include_str!("fixtures/delivery-v1-full.hex"));
        headers.push((DEAD_HEADER, json.as_bytes()));
        let (letter, delivery) =
            DeadLetter::decode(headers.clone().into_iter(), Some(&value)).unwrap();
        assert_eq!(&letter, expected);
        assert_eq!(delivery, Some(full_delivery()));
        // What cannot be read any more is still named by its letter (rule 16).
        for value in [None, Some(Bytes::new())] {
            let (letter, delivery) =
                DeadLetter::decode(headers.clone().into_iter(), value.as_ref()).unwrap();
            assert_eq!((&letter, delivery), (expected, None));
        }
    };
    check(
        include_str!("fixtures/dead-letter-v1-full.json"),
        &full_letter(),
    );
    let plain = DeadLetter::new(DeadReason::Undecodable, AT, &plain_delivery().origin);
    check(include_str!("fixtures/dead-letter-v1-plain.json"), &plain);
}

#[test]
fn a_dead_letter_of_a_later_version_is_refused_by_name() {
    let check = |json: &str, expected: &Error| {
        let headers = [(DEAD_HEADER, json.as_bytes())];
        let read = DeadLetter::decode(headers.into_iter(), None);
        assert_eq!(read.as_ref(), Err(expected), "{json}");
    };
    check(
        r#"{"version":2,"reason":"a_later_one"}"#,
        &Error::Version(2),
    );
    let none = DeadLetter::decode([("other", &b"{}"[..])].into_iter(), None);
    assert_eq!(none, Err(Error::Empty));
}

#[test]
fn every_reason_has_one_word() {
    for reason in DeadReason::ALL {
        let word = serde_json::to_value(reason).unwrap();
        assert_eq!(word, reason.as_str());
        assert_eq!(serde_json::from_value::<DeadReason>(word).unwrap(), reason);
    }
}

fn full_attempt() -> AttemptRecord {
    AttemptRecord {
        version: 1,
        delivery: DeliveryId::of("/shop", "42", SUBSCRIPTION),
        tenant: acme(),
        endpoint: ENDPOINT,
        subscription: SUBSCRIPTION,
        event_id: "42".to_owned(),
        event_type: "com.example.order.paid".to_owned(),
        instance: "dispatcher-1".to_owned(),
        attempt: 2,
        started_at: AT,
        duration_us: 1_500,
        verdict: AttemptVerdict::Retry,
        reason: Some("status".to_owned()),
        status: Some(503),
        error: Some("connection reset".to_owned()),
        request_bytes: 512,
        response_bytes: 9,
    }
}

#[test]
fn attempts_of_version_1_are_read_for_ever() {
    let check = |json: &str, expected: AttemptRecord| {
        let read: AttemptRecord = serde_json::from_str(json).unwrap();
        assert_eq!(read, expected);
    };
    check(
        include_str!("fixtures/attempt-v1-full.json"),
        full_attempt(),
    );
    let plain = AttemptRecord {
        verdict: AttemptVerdict::Delivered,
        reason: None,
        status: None,
        error: None,
        ..full_attempt()
    };
    check(include_str!("fixtures/attempt-v1-plain.json"), plain);
}

#[test]
fn reports_of_version_1_are_read_for_ever() {
    let read: Applied = serde_json::from_str(include_str!("fixtures/applied-v1.json")).unwrap();
    let expected = Applied {
        version: 1,
        service: "router".to_owned(),
        instance: "router-1".to_owned(),
        control_offset: 12_345,
        at: AT,
    };
    assert_eq!(read, expected);
    assert_eq!(read.key(), "applied/router/router-1");
}

fn plain_endpoint() -> Endpoint {
    let quota = Quota::of_endpoint(ENDPOINT);
    let placement = Placement::of(&quota, NonZeroU32::new(48).unwrap());
    Endpoint {
        url: "https://example.com/hook".to_owned(),
        created_at: AT,
        updated_at: AT,
        ..Endpoint::new(ENDPOINT, acme(), quota, placement)
    }
}

fn full_endpoint() -> Endpoint {
    let secret = |id: &str, expires_at| SealedSecret {
        id: id.to_owned(),
        kind: SecretKind::Symmetric,
        sealed: "v1:k1:c2VhbGVk".to_owned(),
        public_key: None,
        created_at: AT,
        expires_at,
    };
    Endpoint {
        name: Some("Orders".to_owned()),
        quota: Quota::shared(&acme(), "crm"),
        state: EndpointState::Paused,
        body: BodyMode::StandardWebhooks,
        secrets: vec![secret("s2", None), secret("s1", Some(AT + 86_400_000))],
        limits: vec![RateWindow {
            kind: WindowKind::Spread { burst: some(20) },
            ..RateWindow::spread(
                NonZeroU32::new(10).unwrap(),
                NonZeroU64::new(1_000).unwrap(),
            )
        }],
        concurrency: some(4),
        timeout_ms: some(30_000),
        retry_schedule_ms: Some(vec![5_000, 300_000]),
        max_age_ms: Some(273_600_000),
        ..plain_endpoint()
    }
}

/// All that was added after the first services, whose records have one `rate` instead.
fn sending_endpoint() -> Endpoint {
    let (count, second) = (
        NonZeroU32::new(50).unwrap(),
        NonZeroU64::new(1_000).unwrap(),
    );
    let even = RateWindow::spread(count, second);
    let sealed = |id: &str| SealedText {
        id: id.to_owned(),
        sealed: "v1:k1:c2VhbGVk".to_owned(),
    };
    Endpoint {
        secrets: vec![SealedSecret {
            id: "s3".to_owned(),
            kind: SecretKind::Ed25519,
            sealed: "v1:k1:c2VhbGVk".to_owned(),
            public_key: Some("whpk_AAAA".to_owned()),
            created_at: AT,
            expires_at: None,
        }],
        limits: vec![
            even,
            RateWindow {
                kind: WindowKind::Sliding,
                ..even
            },
            RateWindow {
                kind: WindowKind::Fixed { offset_ms: 5 },
                unit: LimitUnit::Items,
                ..even
            },
        ],
        batch: Some(Batch {
            max_items: count,
            max_bytes: count,
            max_wait_ms: 20,
            format: BatchFormat::Array,
        }),
        disable_after_ms: Some(0),
        reenable: true,
        state: EndpointState::Disabled,
        disabled: Some(Disabled {
            reason: DisabledReason::Gone,
            at: AT,
        }),
        authentication: Some(Authentication::Oauth2(ClientCredentials {
            token_url: "https://example.com/token".to_owned(),
            client_id: "me".to_owned(),
            client_secret: sealed("a1"),
            scope: Some("events".to_owned()),
            audience: None,
            client_in: ClientIn::Body,
        })),
        headers: vec![StaticHeader {
            name: "X-Source".to_owned(),
            value: "anabranch".to_owned(),
        }],
        header_case: HeaderCase::Title,
        compress: true,
        client_certificate: Some(ClientCertificate {
            certificate_pem: "PEM".to_owned(),
            key: sealed("c1"),
        }),
        ..plain_endpoint()
    }
}

fn subscription(filters: &str, state: SubscriptionState) -> Subscription {
    Subscription {
        id: SUBSCRIPTION,
        tenant: acme(),
        endpoint: ENDPOINT,
        placement: plain_endpoint().placement,
        name: None,
        filters: Filters::parse_str(filters).unwrap(),
        state,
        ordered: false,
        start: None,
        transform: None,
        request: None,
        hidden: false,
        created_at: AT,
        updated_at: AT,
    }
}

#[test]
fn control_of_version_1_is_read_for_ever() {
    let check = |json: &str, expected: &ControlObject| {
        let read = ControlObject::decode(json.as_bytes());
        assert_eq!(read.as_ref(), Ok(expected));
        assert_eq!(read.unwrap().key(), expected.key());
    };
    check(
        include_str!("fixtures/control-v1-installation.json"),
        &ControlObject::Installation(Installation { partitions: 48 }),
    );
    let tenant = Tenant {
        id: acme(),
        name: Some("Acme".to_owned()),
        events_per_second: some(1_000),
        bytes_per_second: some(1_000_000),
        fair_share: FairShare::default(),
        created_at: AT,
        updated_at: AT,
    };
    check(
        include_str!("fixtures/control-v1-tenant.json"),
        &ControlObject::Tenant(tenant.clone()),
    );
    let fair_share = FairShare {
        events_per_second: some(100),
        bytes_per_second: None,
    };
    check(
        include_str!("fixtures/control-v1-tenant-share.json"),
        &ControlObject::Tenant(Tenant {
            fair_share,
            ..tenant
        }),
    );
    let key = ApiKey {
        id: KEY,
        tenant: acme(),
        scope: KeyScope::Endpoint(ENDPOINT),
        name: Some("ci".to_owned()),
        hash: "00ff".repeat(16),
        created_at: AT,
    };
    check(
        include_str!("fixtures/control-v1-key.json"),
        &ControlObject::ApiKey(key),
    );
    check(
        include_str!("fixtures/control-v1-endpoint-full.json"),
        &ControlObject::Endpoint(Box::new(full_endpoint())),
    );
    check(
        include_str!("fixtures/control-v1-endpoint-plain.json"),
        &ControlObject::Endpoint(Box::new(plain_endpoint())),
    );
    check(
        include_str!("fixtures/control-v1-endpoint-sending.json"),
        &ControlObject::Endpoint(Box::new(sending_endpoint())),
    );
}

#[test]
fn subscriptions_of_version_1_are_read_for_ever() {
    let check = |json: &str, expected: &Subscription| {
        let read = ControlObject::decode(json.as_bytes());
        let expected = ControlObject::Subscription(Box::new(expected.clone()));
        assert_eq!(read, Ok(expected));
    };
    let filters = r#"[{"any":[{"exact":{"type":"a"}},{"not":{"prefix":{"source":"/b"}}}]}]"#;
    check(
        include_str!("fixtures/control-v1-subscription-full.json"),
        &subscription(filters, SubscriptionState::Paused),
    );
    check(
        include_str!("fixtures/control-v1-subscription-plain.json"),
        &subscription("[]", SubscriptionState::Active),
    );
    let ordered = Subscription {
        ordered: true,
        ..subscription("[]", SubscriptionState::Active)
    };
    check(
        include_str!("fixtures/control-v1-subscription-ordered.json"),
        &ordered,
    );
    let start = Subscription {
        start: Some(StartPosition {
            from: StartFrom::At(1_795_331_000_000),
            ended: true,
        }),
        ..subscription("[]", SubscriptionState::Active)
    };
    check(
        include_str!("fixtures/control-v1-subscription-start.json"),
        &start,
    );
}

#[test]
fn control_ignores_members_of_a_later_service_and_refuses_later_versions() {
    let json = r#"{"version":1,"kind":"installation","partitions":6,"later":{"a":[1]}}"#;
    let read = ControlObject::decode(json.as_bytes()).unwrap();
    assert_eq!(
        read,
        ControlObject::Installation(Installation { partitions: 6 })
    );
    let later = ControlObject::decode(br#"{"version":2,"kind":"moon"}"#);
    assert_eq!(later, Err(Error::Version(2)));
    for bad in [
        "",
        "null",
        "{}",
        r#"{"version":1}"#,
        r#"{"version":1,"kind":"moon"}"#,
    ] {
        let read = ControlObject::decode(bad.as_bytes());
        assert!(matches!(read, Err(Error::Json(_))), "{bad}: {read:?}");
    }
}
