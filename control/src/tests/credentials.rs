//! What endpoints authenticate and sign with beside `v1`: sealed, kept, replaced, never shown
//! (rule 17, WH-6).

use axum::body::Body;
use runtime::ed25519::SecretKey;
use runtime::secret::ExposeSecret;
use schemas::records::ControlObject;
use schemas::resources::{Endpoint, SealedText};
use serde_json::{Value, json};

use super::rig::{OPERATOR, Rig, request};

const ENDPOINTS: &str = "POST /v1/tenants/acme/endpoints";

/// The endpoints as the log has them now.
fn stored(rig: &Rig) -> Endpoint {
    let records = rig.sim.records(&rig.topics.control.partition(0));
    let objects = records
        .iter()
        .rev()
        .filter_map(|record| ControlObject::decode(record.value.as_ref()?).ok());
    let mut endpoints = objects.filter_map(|object| match object {
        ControlObject::Endpoint(endpoint) => Some(*endpoint),
        ControlObject::Installation(_)
        | ControlObject::Tenant(_)
        | ControlObject::ApiKey(_)
        | ControlObject::Subscription(_)
        | ControlObject::Redrive(_)
        | ControlObject::Cohort(_)
        | ControlObject::Sync(_)
        | ControlObject::Source(_) => None,
    });
    endpoints.next().unwrap()
}

fn opened(rig: &Rig, endpoint: &Endpoint, text: &SealedText) -> String {
    let opened = rig
        .sealer
        .open(&endpoint.id.to_string(), &text.id, &text.sealed);
    String::from_utf8(opened.unwrap().expose_secret().to_vec()).unwrap()
}

fn credential(rig: &Rig) -> String {
    let endpoint = stored(rig);
    let authentication = endpoint.authentication.clone().unwrap();
    opened(rig, &endpoint, authentication.secret())
}

fn basic(password: &str) -> Value {
    json!({ "kind": "basic", "username": "me", "password": password })
}

#[tokio::test(start_paused = true)]
async fn credentials_are_kept_by_changes_as_long_as_they_go_to_the_same_place() {
    let rig = Rig::start().await;
    rig.acme().await;
    let body = json!({ "url": "https://a.example/x", "authentication": basic("pass-1") });
    let made = rig.operator(ENDPOINTS, body).await.expect(201);
    let path = made.headers["location"].to_str().unwrap();
    assert_eq!(
        made.json()["authentication"],
        json!({ "kind": "basic", "username": "me" })
    );
    assert_eq!(credential(&rig), "pass-1");
    let patch = async |body: Value, status: u16| {
        rig.operator(&format!("PATCH {path}"), body)
            .await
            .expect(status)
    };
    // Another user, another path, another name: the password stays.
    patch(json!({ "authentication": { "username": "you" } }), 200).await;
    patch(json!({ "url": "https://a.example/y", "name": "n" }), 200).await;
    assert_eq!(credential(&rig), "pass-1");
    // Another host would read it.
    let moved = patch(json!({ "url": "https://b.example/y" }), 422).await;
    assert_eq!(moved.pointers(), ["/authentication/password"]);
    let with_new = json!({ "url": "https://b.example/y", "authentication": basic("pass-2") });
    patch(with_new, 200).await;
    assert_eq!(credential(&rig), "pass-2");
    // Another kind begins from nothing.
    let bearer = patch(json!({ "authentication": { "kind": "bearer" } }), 422).await;
    assert_eq!(bearer.pointers(), ["/authentication/token"]);
    let shown = patch(
        json!({ "authentication": { "kind": "bearer", "token": "t-3" } }),
        200,
    )
    .await;
    assert_eq!(shown.json()["authentication"], json!({ "kind": "bearer" }));
    patch(json!({ "authentication": null }), 200).await;
    assert_eq!(stored(&rig).authentication, None);
    let bytes = String::from_utf8_lossy(&rig.control_bytes()).into_owned();
    assert!(
        !["pass-1", "pass-2", "t-3"]
            .iter()
            .any(|secret| bytes.contains(secret))
    );
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_is_a_place_too() {
    let rig = Rig::start().await;
    rig.acme().await;
    let oauth2 = json!({
        "kind": "oauth2", "token_url": "https://login.example/t", "client_id": "me",
        "client_secret": "hush", "scope": "events",
    });
    let body = json!({ "url": "https://a.example/x", "authentication": oauth2 });
    let made = rig.operator(ENDPOINTS, body).await.expect(201);
    let path = made.headers["location"].to_str().unwrap();
    let moved = json!({ "authentication": { "token_url": "https://evil.example/t" } });
    let answer = rig
        .operator(&format!("PATCH {path}"), moved)
        .await
        .expect(422);
    assert_eq!(answer.pointers(), ["/authentication/client_secret"]);
    let scoped =
        json!({ "authentication": { "scope": null, "token_url": "https://login.example/u" } });
    let answer = rig
        .operator(&format!("PATCH {path}"), scoped)
        .await
        .expect(200);
    let shown = json!({
        "kind": "oauth2", "token_url": "https://login.example/u", "client_id": "me",
        "client_in": "header",
    });
    assert_eq!(answer.json()["authentication"], shown);
    assert_eq!(credential(&rig), "hush");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_replaces_the_credential_of_its_endpoint() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let body = json!({ "url": "https://a.example/x", "authentication": basic("pass-1") });
    let made = rig.operator(ENDPOINTS, body).await.expect(201);
    let path = made.headers["location"].to_str().unwrap();
    let rotate = format!("POST {path}/rotate-credential");
    let answer = rig
        .call(&key, &rotate, json!({ "value": "pass-2" }))
        .await
        .expect(200);
    assert!(!answer.text.contains("pass-2"));
    assert_eq!(credential(&rig), "pass-2");
    for wrong in [json!({}), json!({ "value": "a\nb" })] {
        let answer = rig.call(&key, &rotate, wrong).await.expect(422);
        assert_eq!(answer.pointers(), ["/value"]);
    }
    let bare = rig.endpoint().await;
    rig.operator(
        &format!("POST {bare}/rotate-credential"),
        json!({ "value": "x" }),
    )
    .await
    .expect(409);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeat_with_credentials_finds_what_the_first_made() {
    let rig = Rig::start().await;
    rig.acme().await;
    let make = |username: &str| {
        let authentication = json!({ "kind": "basic", "username": username, "password": "p" });
        let body = json!({ "url": "https://a.example/x", "authentication": authentication });
        let request = request(OPERATOR, ENDPOINTS).header("idempotency-key", "e1");
        rig.send(request.body(Body::from(body.to_string())).unwrap())
    };
    make("me").await.expect(201);
    make("me").await.expect(200);
    make("you").await.expect(422);
    rig.stop().await;
}

/// A certificate for `host` and its key, as PEM.
fn certificate(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_and_its_key_belong_together() {
    let rig = Rig::start().await;
    rig.acme().await;
    let ((pem, key), (other_pem, other_key)) = (certificate("a"), certificate("b"));
    let body = |pem: &str, key: &str| {
        json!({
            "url": "https://a.example/x",
            "client_certificate": { "certificate_pem": pem, "key": key },
        })
    };
    let answer = rig
        .operator(ENDPOINTS, body(&pem, &other_key))
        .await
        .expect(422);
    assert_eq!(answer.pointers(), ["/client_certificate/key"]);
    for (pem, key, pointer) in [
        ("x", key.as_str(), "/client_certificate/certificate_pem"),
        (&pem, "x", "/client_certificate/key"),
        (&key, &key, "/client_certificate/certificate_pem"),
    ] {
        let answer = rig.operator(ENDPOINTS, body(pem, key)).await.expect(422);
        assert_eq!(answer.pointers(), [pointer]);
    }
    let made = rig.operator(ENDPOINTS, body(&pem, &key)).await.expect(201);
    let path = made.headers["location"].to_str().unwrap();
    assert_eq!(
        made.json()["client_certificate"],
        json!({ "certificate_pem": pem })
    );
    let endpoint = stored(&rig);
    let sealed = &endpoint.client_certificate.as_ref().unwrap().key;
    assert_eq!(opened(&rig, &endpoint, sealed), key);
    // A new certificate for the key that is there must be of that key.
    let other = json!({ "client_certificate": { "certificate_pem": other_pem } });
    let answer = rig
        .operator(&format!("PATCH {path}"), other)
        .await
        .expect(422);
    assert_eq!(answer.pointers(), ["/client_certificate/key"]);
    let same = json!({ "client_certificate": { "certificate_pem": pem }, "name": "n" });
    rig.operator(&format!("PATCH {path}"), same)
        .await
        .expect(200);
    assert!(!String::from_utf8_lossy(&rig.control_bytes()).contains("PRIVATE KEY"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_asymmetric_secret_shows_its_public_key_alone() {
    let rig = Rig::start().await;
    rig.acme().await;
    let body = json!({ "url": "https://a.example/x", "signature": "v1a" });
    let made = rig.operator(ENDPOINTS, body).await.expect(201);
    let path = made.headers["location"].to_str().unwrap();
    assert_eq!(made.json().get("secret"), None);
    let public = made.string("/secrets/0/public_key");
    let key = |rig: &Rig| {
        let endpoint = stored(rig);
        let secret = &endpoint.secrets[0];
        let text = SealedText {
            id: secret.id.clone(),
            sealed: secret.sealed.clone(),
        };
        opened(rig, &endpoint, &text)
    };
    let parsed = SecretKey::parse(&key(&rig)).unwrap();
    assert_eq!(parsed.public().to_string(), public);
    // It stays asymmetric until somebody says otherwise.
    let rotate = format!("POST {path}/rotate-secret");
    let rotated = rig.operator(&rotate, Value::Null).await.expect(200);
    assert!(rotated.string("/secrets/0/public_key").starts_with("whpk_"));
    assert_eq!(rotated.string("/secrets/1/public_key"), public);
    let symmetric = rig
        .operator(&rotate, json!({ "signature": "v1" }))
        .await
        .expect(200);
    assert!(symmetric.string("/secret").starts_with("whsec_"));
    assert_eq!(symmetric.json()["secrets"][0]["public_key"], Value::Null);
    // One that a client brings says itself what it is.
    let given = key(&rig);
    assert!(given.starts_with("whsec_"));
    let seed = format!("whsk_{}", "A".repeat(43) + "=");
    let brought = rig
        .operator(&rotate, json!({ "secret": seed }))
        .await
        .expect(200);
    let expected = SecretKey::parse(&seed).unwrap().public().to_string();
    assert_eq!(brought.string("/secrets/0/public_key"), expected);
    let torn = format!("whsk_{}", "A".repeat(86) + "==");
    let answer = rig
        .operator(&rotate, json!({ "secret": torn }))
        .await
        .expect(422);
    assert_eq!(answer.pointers(), ["/secret"]);
    rig.stop().await;
}
