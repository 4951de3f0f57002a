use std::collections::HashMap;

use http::{HeaderValue, StatusCode};

use super::*;

const OPERATOR: &str = "the operator";

impl Keys for HashMap<KeyId, Arc<ApiKey>> {
    fn key(&self, id: KeyId) -> Option<Arc<ApiKey>> {
        self.get(&id).cloned()
    }
}

fn text(bits: u128) -> KeyText {
    KeyText::generate(KeyId::from_bits(bits), [7; 32])
}

fn token(bits: u128) -> String {
    text(bits).reveal().expose_secret().to_owned()
}

fn endpoint() -> EndpointId {
    EndpointId::from_bits(1)
}

/// Key 1 is of the tenant acme, key 2 of the tenant other, key 3 of an endpoint of acme.
fn keys() -> HashMap<KeyId, Arc<ApiKey>> {
    let key = |(bits, tenant, scope): (u128, &str, KeyScope)| ApiKey {
        id: text(bits).id(),
        tenant: tenant.parse().unwrap(),
        scope,
        name: None,
        hash: text(bits).hash(),
        created_at: 0,
    };
    let all = [
        (1, "acme", KeyScope::Tenant),
        (2, "other", KeyScope::Tenant),
        (3, "acme", KeyScope::Endpoint(endpoint())),
    ];
    all.map(key)
        .map(|key| (key.id, Arc::new(key)))
        .into_iter()
        .collect()
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn asks(values: &[&str]) -> Result<Principal, StatusCode> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    let operator = OperatorKey::new(&SecretString::from(OPERATOR));
    Principal::of(&headers, Some(&operator), &keys()).map_err(|problem| problem.status())
}

#[test]
fn a_request_is_whose_key_it_carries() {
    // HK-3
    let bearer = |token: &str| format!("Bearer {token}");
    let check = |values: &[&str], expected: Option<Principal>| {
        let expected = expected.ok_or(StatusCode::UNAUTHORIZED);
        assert_eq!(asks(values), expected, "{values:?}");
    };
    let own = bearer(&token(1));
    check(&[&bearer(OPERATOR)], Some(Principal::Operator));
    check(&[&own], Some(Principal::Tenant(acme())));
    check(
        &[&own.replace("Bearer", "bEARER")],
        Some(Principal::Tenant(acme())),
    );
    check(
        &[&own.replace("Bearer ", "  Bearer   ")],
        Some(Principal::Tenant(acme())),
    );
    check(
        &[&bearer(&token(3))],
        Some(Principal::Endpoint(acme(), endpoint())),
    );
    check(&[], None);
    check(&[&own, &own], None);
    let other_secret = KeyText::generate(KeyId::from_bits(1), [8; 32]).reveal();
    for wrong in [
        bearer(&token(4)),
        bearer(other_secret.expose_secret()),
        format!("{own}x"),
        bearer("the operators"),
        bearer("the operato"),
        bearer(""),
        "Bearer".to_owned(),
        format!("Basic {}", token(1)),
        token(1),
    ] {
        check(&[&wrong], None);
    }
}

#[test]
fn without_an_operators_key_nobody_is_the_operator() {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
    assert!(Principal::of(&headers, None, &keys()).is_err());
    let own = HeaderValue::from_str(&format!("Bearer {}", token(2))).unwrap();
    headers.insert(AUTHORIZATION, own);
    let other = "other".parse().unwrap();
    assert_eq!(
        Principal::of(&headers, None, &keys()),
        Ok(Principal::Tenant(other))
    );
}

#[test]
fn each_principal_may_do_its_own_things_alone() {
    const OK: Result<(), u16> = Ok(());
    const NO: Result<(), u16> = Err(403);
    const NONE: Result<(), u16> = Err(404);
    fn check<T>(
        what: &str,
        ask: impl Fn(&Principal) -> Result<T, Problem>,
        expected: [Result<(), u16>; 3],
    ) {
        let principals = [
            Principal::Operator,
            Principal::Tenant(acme()),
            Principal::Endpoint(acme(), endpoint()),
        ];
        for (principal, expected) in principals.iter().zip(expected) {
            let got = ask(principal).map(drop);
            let got = got.map_err(|problem| problem.status().as_u16());
            assert_eq!(got, expected, "{what}: {principal:?}");
        }
    }
    let own = endpoint().to_string();
    let foreign = EndpointId::from_bits(2).to_string();
    check("operator", Principal::operator, [OK, NO, NO]);
    check("tenant", |who| who.tenant("acme"), [OK, OK, NO]);
    // What cannot be a tenant is told from another's by the operator alone.
    check("another tenant", |who| who.tenant("other"), [OK, NO, NO]);
    check("no tenant", |who| who.tenant("No!"), [NONE, NO, NO]);
    check("reach", |who| who.reach("acme"), [OK, OK, OK]);
    check("reach another", |who| who.reach("other"), [OK, NO, NO]);
    check("endpoint", |who| who.endpoint("acme", &own), [OK, OK, OK]);
    check(
        "another endpoint",
        |who| who.endpoint("acme", &foreign),
        [OK, OK, NO],
    );
    check(
        "no endpoint",
        |who| who.endpoint("acme", "ep_x"),
        [NONE, NONE, NO],
    );
    check(
        "endpoint of another tenant",
        |who| who.endpoint("other", &own),
        [OK, NO, NO],
    );
}

#[test]
fn an_endpoints_owner_reaches_its_endpoint_alone() {
    let owner = Principal::Endpoint(acme(), endpoint());
    let reached = |who: &Principal| who.reach("acme").unwrap();
    assert_eq!(reached(&owner), (acme(), Some(endpoint())));
    assert_eq!(reached(&Principal::Tenant(acme())), (acme(), None));
    assert_eq!(reached(&Principal::Operator), (acme(), None));
}

#[test]
fn the_operators_key_is_not_shown() {
    let key = OperatorKey::new(&SecretString::from(OPERATOR));
    assert_eq!(format!("{key:?}"), "OperatorKey");
}
