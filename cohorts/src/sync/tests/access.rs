//! Who may do what over HTTP.

use runtime::secret::ExposeSecret;
use schemas::ids::{EndpointId, KeyId};
use schemas::records::ControlObject;
use schemas::resources::key::KeyText;
use schemas::resources::{ApiKey, FairShare, KeyScope, Tenant};

use super::partner::Temper;
use super::rig::{OPERATOR, Yard, paused};

/// Every route, a body, and what those get who may; `{sync}` is the path of the sync.
const ROUTES: [(&str, &str, u16); 10] = [
    (
        "POST /v1/tenants/acme/cohorts/{cohort}/snapshots",
        r#"{"id":"m1","v":1}"#,
        201,
    ),
    ("GET /v1/tenants/acme/cohorts/{cohort}/snapshots", "", 200),
    (
        "GET /v1/tenants/acme/cohorts/{cohort}/snapshots/none/rejects",
        "",
        404,
    ),
    (
        "PATCH /v1/tenants/acme/cohorts/{cohort}/members",
        r#"{"remove":["m1"]}"#,
        200,
    ),
    ("GET {sync}", "", 200),
    ("GET {sync}/plan", "", 200),
    ("POST {sync}/runs", "", 202),
    ("POST {sync}/cancel", "", 202),
    ("GET {sync}/report", "", 200),
    // No file of the service's machine: whoever may ask for one learns that there is none.
    (
        "POST /v1/tenants/acme/cohorts/{cohort}/snapshots?from=/no/such/file",
        "",
        422,
    ),
];

/// Makes a key and returns its text.
async fn key(yard: &Yard, bits: u128, tenant: &str, scope: KeyScope) -> String {
    let text = KeyText::generate(KeyId::from_bits(bits), [7; 32]);
    let stored = ApiKey {
        id: text.id(),
        tenant: tenant.parse().unwrap(),
        scope,
        name: None,
        hash: text.hash(),
        created_at: 0,
    };
    yard.control(ControlObject::ApiKey(stored)).await;
    text.reveal().expose_secret().to_owned()
}

#[test]
fn each_key_may_do_its_own_things_and_nothing_else() {
    paused(async {
        let mut yard = Yard::new(Temper::calm(0)).await;
        let rival = Tenant {
            id: "rival".parse().unwrap(),
            name: None,
            events_per_second: None,
            bytes_per_second: None,
            fair_share: FairShare::default(),
            created_at: 0,
            updated_at: 0,
        };
        yard.control(ControlObject::Tenant(rival)).await;
        let tenant = key(&yard, 1, "acme", KeyScope::Tenant).await;
        let foreign = key(&yard, 2, "rival", KeyScope::Tenant).await;
        let endpoint = KeyScope::Endpoint(EndpointId::from_bits(3));
        let owner = key(&yard, 3, "acme", endpoint).await;
        let (tenant, foreign, owner) = (tenant.as_str(), foreign.as_str(), owner.as_str());
        yard.start().await;
        for (route, body, done) in ROUTES {
            let here = route.replace("{sync}", &yard.sync_path());
            let nowhere = here.replace("acme", "nobody");
            // Only the operator has the service read what it can reach by itself.
            let tenants = if route.contains("?from=") { 403 } else { done };
            for (who, call, expected) in [
                ("", &here, 401),
                ("ak_x", &here, 401),
                (foreign, &here, 403),
                (owner, &here, 403),
                (tenant, &here, tenants),
                (OPERATOR, &here, done),
                (foreign, &nowhere, 403),
                (owner, &nowhere, 403),
                (tenant, &nowhere, 403),
                (OPERATOR, &nowhere, 404),
            ] {
                let (status, answer) = yard.call(call, who, body).await;
                assert_eq!(status, expected, "{who}: {call}: {answer}");
            }
        }
    });
}
