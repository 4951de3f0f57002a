//! That a secret is shown once and stored sealed (rule 17), and how it is replaced (WH-3, WH-5).

use std::sync::Arc;

use axum::body::Body;
use runtime::clock::Entropy;
use runtime::secret::{ExposeSecret, Sealer};
use schemas::records::ControlObject;
use schemas::resources::Endpoint;
use serde_json::{Value, json};
use tokio::time::{Duration, advance};

use super::rig::{Rig, options, request};

const GIVEN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The endpoint as the log has it.
fn stored(rig: &Rig, id: &str) -> Endpoint {
    let records = rig.sim.records(&rig.topics.control.partition(0));
    let last = records
        .iter()
        .rev()
        .find(|record| record.key.as_deref() == Some(format!("endpoint/{id}").as_bytes()));
    let object = ControlObject::decode(last.unwrap().value.as_ref().unwrap()).unwrap();
    let ControlObject::Endpoint(endpoint) = object else {
        panic!("{object:?}")
    };
    *endpoint
}

fn opened(rig: &Rig, endpoint: &Endpoint) -> Vec<String> {
    let open = |secret: &schemas::resources::SealedSecret| {
        let text = rig
            .sealer
            .open(&endpoint.id.to_string(), &secret.id, &secret.sealed)
            .unwrap();
        String::from_utf8(text.expose_secret().to_vec()).unwrap()
    };
    endpoint.secrets.iter().map(open).collect()
}

#[tokio::test(start_paused = true)]
async fn the_old_secret_signs_on_while_the_new_one_takes_over() {
    let rig = Rig::start().await;
    rig.acme().await;
    let body = json!({ "url": "https://a.example", "secret": GIVEN });
    let made = rig
        .operator("POST /v1/tenants/acme/endpoints", body)
        .await
        .expect(201);
    assert_eq!(
        made.json().get("secret"),
        None,
        "what a client brought is not echoed"
    );
    let (id, path) = (
        made.string("/id"),
        made.headers["location"].to_str().unwrap(),
    );
    assert_eq!(opened(&rig, &stored(&rig, &id)), [GIVEN]);

    let rotate = format!("POST {path}/rotate-secret");
    let new = rig
        .operator(&rotate, Value::Null)
        .await
        .expect(200)
        .string("/secret");
    let endpoint = stored(&rig, &id);
    assert_eq!(opened(&rig, &endpoint), [new.as_str(), GIVEN]);
    let [current, old] = endpoint.secrets.as_slice() else {
        panic!("{endpoint:?}")
    };
    assert_eq!(current.expires_at, None);
    assert_eq!(
        old.expires_at.unwrap() - current.created_at,
        86_400_000,
        "a day by default"
    );

    // A leaked secret is replaced at once, and the ones before it with it.
    let at_once = json!({ "expires_in": 0 });
    let newest = rig
        .operator(&rotate, at_once)
        .await
        .expect(200)
        .string("/secret");
    assert_eq!(opened(&rig, &stored(&rig, &id)), [newest.as_str()]);

    rig.operator(&rotate, json!({ "expires_in": 10 }))
        .await
        .expect(200);
    advance(Duration::from_secs(11)).await;
    let last = rig
        .operator(&rotate, json!({ "secret": GIVEN }))
        .await
        .expect(200);
    assert_eq!(last.json().get("secret"), None);
    assert_eq!(
        stored(&rig, &id).secrets.len(),
        2,
        "what has expired is forgotten"
    );
    let bad = json!({ "secret": "whsec_AAAA", "expires_in": -1 });
    assert_eq!(
        rig.operator(&rotate, bad).await.expect(422).pointers(),
        ["/secret", "/expires_in"]
    );
    for _ in 0..6 {
        rig.operator(&rotate, Value::Null).await.expect(200);
    }
    rig.operator(&rotate, Value::Null).await.expect(409);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_rotation_rotates_once() {
    let rig = Rig::start().await;
    rig.acme().await;
    let path = rig.endpoint().await;
    let rotate = || {
        let request = request(super::rig::OPERATOR, &format!("POST {path}/rotate-secret"));
        rig.send(
            request
                .header("idempotency-key", "r1")
                .body(Body::empty())
                .unwrap(),
        )
    };
    let first = rotate().await.expect(200).json();
    let second = rotate().await.expect(200).json();
    assert!(first["secret"].is_string() && second.get("secret").is_none());
    assert_eq!(first["secrets"], second["secrets"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_readable_again() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let webhook = json!({ "url": "https://a.example" });
    let made = rig
        .operator("POST /v1/tenants/acme/webhooks", webhook)
        .await
        .expect(201);
    let body = json!({ "url": "https://a.example", "secret": GIVEN });
    rig.operator("POST /v1/tenants/acme/endpoints", body)
        .await
        .expect(201);
    let path = made.headers["location"].to_str().unwrap();
    let rotated = rig
        .operator(&format!("POST {path}/rotate-secret"), Value::Null)
        .await;
    let key_secret = key.splitn(3, '_').nth(2).unwrap().to_owned();
    let secrets = [
        key_secret,
        made.string("/endpoint/secret"),
        rotated.string("/secret"),
        GIVEN.to_owned(),
    ];
    let mut shown = Vec::new();
    for call in [
        "GET /v1/tenants/acme/keys".to_owned(),
        "GET /v1/tenants/acme/endpoints".to_owned(),
        "GET /v1/tenants/acme/subscriptions".to_owned(),
        format!("GET {path}"),
        format!("POST {path}/pause"),
    ] {
        shown.push(rig.operator(&call, Value::Null).await.expect(200).text);
    }
    shown.push(
        rig.operator(&format!("PATCH {path}"), json!({ "name": "x" }))
            .await
            .text,
    );
    shown.push(String::from_utf8_lossy(&rig.control_bytes()).into_owned());
    for secret in &secrets {
        let bare = secret.trim_start_matches("whsec_");
        for text in &shown {
            assert!(!text.contains(bare), "a secret shows in {text}");
        }
    }
    // What is sealed is not shown either.
    let sealed = shown.iter().take(6).any(|text| text.contains("v1.test."));
    assert!(!sealed && shown.last().unwrap().contains("v1.test."));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_is_not_made_twice() {
    let rig = Rig::start().await;
    rig.acme().await;
    let make = || {
        let request = request(super::rig::OPERATOR, "POST /v1/tenants/acme/keys");
        rig.send(
            request
                .header("idempotency-key", "k1")
                .body(Body::empty())
                .unwrap(),
        )
    };
    make().await.expect(201);
    make().await.expect(409);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_key_seals_what_older_ones_have_sealed() {
    let rig = Rig::start().await;
    rig.acme().await;
    let bearer = json!({ "kind": "bearer", "token": "t" });
    let body = json!({ "url": "https://a.example", "secret": GIVEN, "authentication": bearer });
    let id = rig
        .operator("POST /v1/tenants/acme/endpoints", body)
        .await
        .expect(201)
        .string("/id");
    let old = stored(&rig, &id);
    let sim = rig.stop().await;
    let key = |id, seed| Sealer::generate(id, &Entropy::seeded(seed)).unwrap();
    // The key of `options`, behind a newer one.
    let mut later = options("b");
    later.sealer = Arc::new(Sealer::parse(&[key("newer", 2), key("test", 1)]).unwrap());
    let rig = Rig::on(sim, later).await;
    let new = stored(&rig, &id);
    let only_newer = Sealer::parse(&[key("newer", 2)]).unwrap();
    let [secret] = new.secrets.as_slice() else {
        panic!("{new:?}")
    };
    let text = only_newer.open(&id, &secret.id, &secret.sealed).unwrap();
    assert_eq!(text.expose_secret(), GIVEN.as_bytes());
    let token = new.authentication.as_ref().unwrap().secret();
    let text = only_newer.open(&id, &token.id, &token.sealed).unwrap();
    assert_eq!(text.expose_secret(), b"t");
    assert_eq!(
        (new.updated_at, &secret.id),
        (old.updated_at, &old.secrets[0].id)
    );
    rig.stop().await;
}
