use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use std::num::NonZeroU64;

use crate::resources::{Placement, Quota, SubscriptionState, WindowKind};

const SECRET_24: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn endpoint_id() -> EndpointId {
    EndpointId::from_bits(5)
}

fn pointers(faults: &Faults) -> Vec<&str> {
    faults
        .0
        .iter()
        .map(|fault| fault.pointer.as_str())
        .collect()
}

fn check_endpoint(body: &Value, expected: &[&str]) {
    let read = EndpointInput::read(body, &UrlPolicy::default());
    let found = read.as_ref().err().map(pointers).unwrap_or_default();
    assert_eq!(found, expected, "{body}: {read:?}");
}

#[test]
fn every_fault_of_an_endpoint_is_named_at_once() {
    check_endpoint(&json!({ "url": "https://a.example/x" }), &[]);
    check_endpoint(&json!({}), &["/url"]);
    check_endpoint(&json!([]), &[""]);
    check_endpoint(&json!({ "url": null }), &["/url"]);
    let body = json!({
        "url": "ftp://a.example", "name": "", "secret": "whsec_AAAA", "quota": "A b",
        "body": "xml", "limits": [{ "count": 0, "per": 1 }, { "kind": "x" }], "concurrency": 1.5,
        "timeout_ms": 30_001, "retry_schedule_ms": [1, -1, "x"], "max_age_ms": true, "a/b~": 1,
    });
    check_endpoint(
        &body,
        &[
            "/url",
            "/name",
            "/secret",
            "/quota",
            "/body",
            "/limits/0/count",
            "/limits/0/per",
            "/limits/1/kind",
            "/concurrency",
            "/timeout_ms",
            "/retry_schedule_ms/1",
            "/retry_schedule_ms/2",
            "/max_age_ms",
            "/a~1b~0",
        ],
    );
}

#[test]
fn bounds_are_where_they_are_said_to_be() {
    let with = |name: &str, value: Value| {
        let mut body = json!({ "url": "https://a.example" });
        body[name] = value;
        body
    };
    for (name, good, bad) in [
        ("name", json!("n".repeat(200)), json!("n".repeat(201))),
        ("name", json!("ö b"), json!("a\nb")),
        ("timeout_ms", json!(30_000), json!(99)),
        ("concurrency", json!(1), json!(0)),
        (
            "max_age_ms",
            json!(76 * 3_600_000_u64),
            json!(76 * 3_600_000_u64 + 1),
        ),
        ("retry_schedule_ms", json!(vec![0; 50]), json!(vec![0; 51])),
        (
            "retry_schedule_ms",
            json!(vec![86_400_000; 3]),
            json!(vec![86_400_000; 4]),
        ),
        ("retry_jitter", json!("small"), json!("none")),
        ("limits", json!([{ "count": 1 }]), json!([{ "per_ms": 1 }])),
        (
            "secret",
            json!(SECRET_24),
            json!("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ),
    ] {
        check_endpoint(&with(name, good), &[]);
        let read = EndpointInput::read(&with(name, bad), &UrlPolicy::default());
        assert!(read.is_err(), "{name}");
    }
}

#[test]
fn values_come_through() {
    let body = json!({
        "url": "https://a.example/x", "name": "n", "secret": SECRET_24, "quota": "crm",
        "body": "form", "limits": [{ "count": 5 }], "concurrency": 2, "timeout_ms": 1_000,
        "retry_schedule_ms": [0, 5], "retry_jitter": "full", "max_age_ms": 60_000,
    });
    let read = EndpointInput::read(&body, &UrlPolicy::default()).unwrap();
    let second = NonZeroU64::new(1_000).unwrap();
    let five = NonZeroU32::new(5).unwrap();
    assert_eq!(read.limits, [RateWindow::spread(five, second)]);
    assert_eq!(read.secret.as_ref().unwrap().expose_secret(), SECRET_24);
    assert_eq!(
        (read.body, read.quota.as_deref()),
        (BodyMode::Form, Some("crm"))
    );
    assert_eq!(read.retry_schedule_ms, Some(vec![0, 5]));
    assert_eq!(read.retry_jitter, RetryJitter::Full);
    assert_eq!(
        (read.timeout_ms.unwrap().get(), read.max_age_ms),
        (1_000, Some(60_000))
    );
    assert!(
        !format!("{read:?}").contains("AAAA"),
        "a secret shows in Debug"
    );
}

fn check_url(policy: &UrlPolicy, url: &str, good: bool) {
    let checked = policy.check(url);
    assert_eq!(checked.is_ok(), good, "{url}: {checked:?}");
}

#[test]
fn urls_are_judged_by_their_parsed_form() {
    for good in [
        "https://a.example",
        "https://93.184.216.34/x?y=1",
        "https://[2606:4700::1]/",
    ] {
        check_url(&UrlPolicy::default(), good, true);
    }
    // SS-1, SS-2, SS-10.
    for bad in [
        "",
        "a.example",
        "http://a.example",
        "https://",
        "https://u:p@a.example",
        "https://u@a.example",
        "https://a.example/#f",
        "https://a.example:8443",
        "https://a.example/ x",
        "https://127.0.0.1",
        "https://0x7f.1",
        "https://2130706433",
        "https://017700000001",
        "https://10.0.0.1",
        "https://169.254.169.254",
        "https://[::1]",
        "https://[::ffff:10.0.0.1]",
        "https://[fd00:ec2::254]",
        "https://[2002::1]",
        "https://localhost",
        "https://x.localhost",
        "https://metadata.google.internal",
        "https://printer.local",
        "https://a.example.",
        "https://100.64.0.1",
        "https://0.0.0.0",
        "https://224.0.0.1",
        "https://198.18.0.1",
    ] {
        check_url(&UrlPolicy::default(), bad, false);
    }
}

#[test]
fn settings_widen_what_urls_are_taken() {
    let local = UrlPolicy {
        allow_loopback: true,
        ..UrlPolicy::default()
    };
    for good in [
        "http://127.0.0.1:8000/x",
        "http://localhost:1",
        "http://[::1]:9",
    ] {
        check_url(&local, good, true);
    }
    check_url(&local, "http://10.0.0.1", false);
    let open = UrlPolicy {
        allow_http: true,
        allowed_ports: vec![8443],
        ..UrlPolicy::default()
    };
    check_url(&open, "http://a.example", true);
    check_url(&open, "https://a.example:8443", true);
    check_url(&open, "https://a.example:8444", false);
    let any_port = UrlPolicy {
        allowed_ports: vec![0],
        ..UrlPolicy::default()
    };
    check_url(&any_port, "https://a.example:8444", true);
}

fn subscription() -> Subscription {
    let quota = Quota::of_endpoint(endpoint_id());
    Subscription {
        id: crate::ids::SubscriptionId::from_bits(1),
        tenant: "acme".parse().unwrap(),
        endpoint: endpoint_id(),
        placement: Placement::of(&quota, NonZeroU32::MIN),
        name: Some("old".to_owned()),
        filters: Filters::of_types(&["a"]).unwrap(),
        state: SubscriptionState::Active,
        ordered: false,
        start: None,
        transform: None,
        request: None,
        hidden: false,
        created_at: 0,
        updated_at: 0,
    }
}

#[test]
fn a_start_is_read_once_and_never_changed() {
    let body = |start: Value| json!({ "endpoint": endpoint_id(), "start": start });
    let check = |start: Value, expected: Option<StartFrom>| {
        let read = SubscriptionInput::read(&body(start)).unwrap();
        assert_eq!(read.start, expected);
    };
    check(json!("latest"), Some(StartFrom::Latest));
    check(json!("1970-01-01T00:00:05Z"), Some(StartFrom::At(5_000)));
    check(Value::Null, None);
    for bad in [json!("earliest"), json!(5), json!("2026-11-22")] {
        let faults = SubscriptionInput::read(&body(bad)).unwrap_err();
        assert_eq!(pointers(&faults), ["/start"]);
    }
    let started = Subscription {
        start: Some(crate::resources::StartPosition::new(StartFrom::At(5))),
        ..subscription()
    };
    let patched = SubscriptionInput::patched(&started, &json!({ "name": "new" })).unwrap();
    assert_eq!(patched.name.as_deref(), Some("new"));
    let faults = SubscriptionInput::patched(&started, &json!({ "start": "latest" })).unwrap_err();
    assert_eq!(pointers(&faults), ["/start"]);
    let webhook = json!({ "url": "https://a.example", "start": "latest" });
    let webhook = WebhookInput::read(&webhook, &UrlPolicy::default()).unwrap();
    assert_eq!(webhook.start, Some(StartFrom::Latest));
}

#[test]
fn filters_carry_their_pointers_and_types_are_short_for_them() {
    let check = |which: Value, expected: &[&str]| {
        let mut body = json!({ "endpoint": endpoint_id() });
        body.as_object_mut()
            .unwrap()
            .extend(which.as_object().unwrap().clone());
        let read = SubscriptionInput::read(&body);
        let found = read.as_ref().err().map(pointers).unwrap_or_default();
        assert_eq!(found, expected, "{body}");
        read.ok().map(|input| input.filters)
    };
    let any = check(json!({ "types": ["a", "b"] }), &[]).unwrap();
    assert_eq!(any, Filters::of_types(&["a", "b"]).unwrap());
    assert!(check(json!({}), &[]).unwrap().is_empty());
    check(
        json!({ "filters": [{ "exact": { "type": 7 } }] }),
        &["/filters/0/exact/type"],
    );
    check(
        json!({ "filters": [{ "sql": "x =" }] }),
        &["/filters/0/sql"],
    );
    let several = json!({ "filters": [
        { "sql": "x =" },
        { "exact": { "type": "a", "id": 7, "source": "" } },
        { "any": [{ "not": 1 }, { "prefix": { "type": "b" } }, {}] },
    ] });
    check(
        several,
        &[
            "/filters/0/sql",
            "/filters/1/exact/id",
            "/filters/1/exact/source",
            "/filters/2/any/0/not",
            "/filters/2/any/2",
        ],
    );
    check(json!({ "types": [] }), &["/types"]);
    check(json!({ "types": ["", 1] }), &["/types/0", "/types/1"]);
    check(json!({ "types": ["a"], "filters": [] }), &["/types"]);
    check(
        json!({ "endpoint": "sub_1", "state": "paused" }),
        &["/endpoint", "/state"],
    );
}

#[test]
fn a_patch_is_merged_and_checked_as_a_whole() {
    let old = subscription();
    let patched = |patch: Value| SubscriptionInput::patched(&old, &patch);
    let same = patched(json!({})).unwrap();
    assert_eq!(
        (same.name.as_deref(), &same.filters),
        (Some("old"), &old.filters)
    );
    let fewer = patched(json!({ "name": null, "filters": null })).unwrap();
    assert_eq!((fewer.name, fewer.filters.is_empty()), (None, true));
    let typed = patched(json!({ "types": ["b"] })).unwrap();
    assert_eq!(typed.filters, Filters::of_types(&["b"]).unwrap());
    for (patch, expected) in [
        (
            json!({ "endpoint": endpoint_id(), "x": 1 }),
            vec!["/endpoint", "/x"],
        ),
        (json!("x"), vec![""]),
        (
            json!({ "name": 5, "filters": {} }),
            vec!["/name", "/filters"],
        ),
    ] {
        assert_eq!(pointers(&patched(patch).unwrap_err()), expected);
    }
}

#[test]
fn an_endpoint_is_patched_in_its_parts() {
    let quota = Quota::of_endpoint(endpoint_id());
    let placement = Placement::of(&quota, NonZeroU32::MIN);
    let endpoint = Endpoint {
        url: "https://a.example".to_owned(),
        body: BodyMode::Data,
        limits: serde_json::from_value(json!([{ "count": 5, "burst": 2 }])).unwrap(),
        ..Endpoint::new(endpoint_id(), "acme".parse().unwrap(), quota, placement)
    };
    let policy = UrlPolicy::default();
    let patch = json!({ "limits": [{ "count": 6, "kind": "sliding" }], "concurrency": 3 });
    let patched = EndpointInput::patched(&endpoint, &patch, &policy).unwrap();
    let limits: Vec<_> = patched
        .limits
        .iter()
        .map(|window| (window.count.get(), window.kind))
        .collect();
    assert_eq!(limits, [(6, WindowKind::Sliding)]);
    assert_eq!(
        (patched.url.as_str(), patched.body),
        ("https://a.example", BodyMode::Data)
    );
    let refused = json!({ "secret": SECRET_24, "quota": "x", "url": null });
    let faults = EndpointInput::patched(&endpoint, &refused, &policy).unwrap_err();
    assert_eq!(pointers(&faults), ["/secret", "/quota", "/url"]);
}

#[test]
fn tenants_keys_rotations_and_webhooks_are_read() {
    let tenant = TenantInput::read(&json!({ "id": "acme", "events_per_second": 7 })).unwrap();
    assert_eq!(
        (tenant.id.as_str(), tenant.events_per_second.unwrap().get()),
        ("acme", 7)
    );
    let faults = TenantInput::read(&json!({ "id": "A", "bytes_per_second": 0 })).unwrap_err();
    assert_eq!(pointers(&faults), ["/id", "/bytes_per_second"]);
    let share = json!({ "id": "a", "fair_share": { "events_per_second": 3 } });
    let share = TenantInput::read(&share).unwrap().fair_share;
    assert_eq!(share.events_per_second.unwrap().get(), 3);
    assert_eq!(share.bytes_per_second, None);
    let share = json!({ "id": "a", "fair_share": { "events": 3, "bytes_per_second": 0 } });
    let faults = TenantInput::read(&share).unwrap_err();
    assert_eq!(
        pointers(&faults),
        ["/fair_share/bytes_per_second", "/fair_share/events"]
    );
    assert_eq!(KeyInput::read(&json!({})).unwrap().endpoint, None);
    let key = KeyInput::read(&json!({ "endpoint": endpoint_id() })).unwrap();
    assert_eq!(key.endpoint, Some(endpoint_id()));
    assert_eq!(RotationInput::read(&json!({})).unwrap().expires_in, 86_400);
    assert!(RotationInput::read(&json!({ "expires_in": 7 * 86_400 + 1 })).is_err());
    let body = json!({ "url": "https://a.example", "types": ["x"], "secret": SECRET_24 });
    let webhook = WebhookInput::read(&body, &UrlPolicy::default()).unwrap();
    assert_eq!(webhook.filters, Filters::of_types(&["x"]).unwrap());
}

#[test]
fn no_table_names_a_member_twice() {
    for members in [
        TENANT,
        KEY,
        ENDPOINT,
        SUBSCRIPTION,
        WEBHOOK,
        ROTATION,
        COHORT,
        SYNC,
    ] {
        let mut names: Vec<_> = members.iter().copied().flatten().map(|m| m.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("url"),
        Just("limits"),
        Just("authentication"),
        Just("kind"),
        Just("headers"),
        Just("filters"),
        Just("types"),
        Just("name"),
        Just("retry_schedule_ms"),
        Just("exact"),
        Just("type"),
        Just("~/"),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..4).prop_map(|members| {
                Value::Object(
                    members
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_panics_and_every_refusal_says_why(body in any_json()) {
        let policy = UrlPolicy::default();
        let refused = [
            WebhookInput::read(&body, &policy).err(),
            SubscriptionInput::patched(&subscription(), &body).err(),
            TenantInput::read(&body).err(),
            SyncInput::read(&body).err(),
        ];
        for faults in refused.into_iter().flatten() {
            prop_assert!(!faults.0.is_empty() && faults.0.len() <= FAULTS_MAX);
        }
    }
}
