//! Who may what; and that the document knows every route.

use std::collections::BTreeSet;

use schemas::resources::input::{
    COHORT, ENDPOINT, Members, SOURCE, SUBSCRIPTION, SYNC, TENANT, WEBHOOK,
};
use serde_json::{Value, json};

use super::rig::{OPERATOR, Rig};
use crate::api::described;

/// Who may use a route.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Least {
    Endpoint,
    Tenant,
    Operator,
}

/// Every route, and the least key that may use it; `{}` stands for an id.
const ROUTES: &[(&str, Least)] = &[
    ("GET /v1/tenants", Least::Operator),
    ("POST /v1/tenants", Least::Operator),
    ("GET /v1/sources", Least::Operator),
    ("POST /v1/sources", Least::Operator),
    ("GET /v1/sources/{source}", Least::Operator),
    ("PATCH /v1/sources/{source}", Least::Operator),
    ("DELETE /v1/sources/{source}", Least::Operator),
    ("GET /v1/tenants/{tenant}", Least::Tenant),
    ("PATCH /v1/tenants/{tenant}", Least::Operator),
    ("DELETE /v1/tenants/{tenant}", Least::Operator),
    ("GET /v1/tenants/{tenant}/keys", Least::Tenant),
    ("POST /v1/tenants/{tenant}/keys", Least::Tenant),
    ("DELETE /v1/tenants/{tenant}/keys/{key}", Least::Tenant),
    ("GET /v1/tenants/{tenant}/endpoints", Least::Tenant),
    ("POST /v1/tenants/{tenant}/endpoints", Least::Tenant),
    (
        "GET /v1/tenants/{tenant}/endpoints/{endpoint}",
        Least::Endpoint,
    ),
    (
        "PATCH /v1/tenants/{tenant}/endpoints/{endpoint}",
        Least::Tenant,
    ),
    (
        "DELETE /v1/tenants/{tenant}/endpoints/{endpoint}",
        Least::Tenant,
    ),
    (
        "POST /v1/tenants/{tenant}/endpoints/{endpoint}/pause",
        Least::Endpoint,
    ),
    (
        "POST /v1/tenants/{tenant}/endpoints/{endpoint}/resume",
        Least::Endpoint,
    ),
    (
        "POST /v1/tenants/{tenant}/endpoints/{endpoint}/rotate-secret",
        Least::Endpoint,
    ),
    (
        "POST /v1/tenants/{tenant}/endpoints/{endpoint}/rotate-credential",
        Least::Endpoint,
    ),
    (
        "POST /v1/tenants/{tenant}/endpoints/{endpoint}/test",
        Least::Tenant,
    ),
    ("POST /v1/tenants/{tenant}/explain", Least::Tenant),
    ("POST /v1/tenants/{tenant}/filters/dry-run", Least::Tenant),
    ("GET /v1/tenants/{tenant}/subscriptions", Least::Tenant),
    ("POST /v1/tenants/{tenant}/subscriptions", Least::Tenant),
    (
        "GET /v1/tenants/{tenant}/subscriptions/{subscription}",
        Least::Tenant,
    ),
    (
        "PATCH /v1/tenants/{tenant}/subscriptions/{subscription}",
        Least::Tenant,
    ),
    (
        "DELETE /v1/tenants/{tenant}/subscriptions/{subscription}",
        Least::Tenant,
    ),
    (
        "POST /v1/tenants/{tenant}/subscriptions/{subscription}/pause",
        Least::Tenant,
    ),
    (
        "POST /v1/tenants/{tenant}/subscriptions/{subscription}/resume",
        Least::Tenant,
    ),
    ("POST /v1/tenants/{tenant}/webhooks", Least::Tenant),
    ("GET /v1/tenants/{tenant}/cohorts", Least::Tenant),
    ("POST /v1/tenants/{tenant}/cohorts", Least::Tenant),
    ("GET /v1/tenants/{tenant}/cohorts/{cohort}", Least::Tenant),
    ("PATCH /v1/tenants/{tenant}/cohorts/{cohort}", Least::Tenant),
    (
        "DELETE /v1/tenants/{tenant}/cohorts/{cohort}",
        Least::Tenant,
    ),
    ("GET /v1/tenants/{tenant}/syncs", Least::Tenant),
    ("POST /v1/tenants/{tenant}/syncs", Least::Tenant),
    ("GET /v1/tenants/{tenant}/syncs/{sync}", Least::Tenant),
    ("PATCH /v1/tenants/{tenant}/syncs/{sync}", Least::Tenant),
    ("DELETE /v1/tenants/{tenant}/syncs/{sync}", Least::Tenant),
    (
        "POST /v1/tenants/{tenant}/syncs/{sync}/pause",
        Least::Tenant,
    ),
    (
        "POST /v1/tenants/{tenant}/syncs/{sync}/resume",
        Least::Tenant,
    ),
    ("GET /v1/dead", Least::Operator),
    ("GET /v1/dead/{letter}", Least::Operator),
    ("GET /v1/tenants/{tenant}/dead", Least::Endpoint),
    ("GET /v1/tenants/{tenant}/dead/{letter}", Least::Endpoint),
    ("GET /v1/tenants/{tenant}/redrives", Least::Endpoint),
    ("POST /v1/tenants/{tenant}/redrives", Least::Endpoint),
    (
        "GET /v1/tenants/{tenant}/redrives/{redrive}",
        Least::Endpoint,
    ),
    (
        "POST /v1/tenants/{tenant}/redrives/{redrive}/cancel",
        Least::Endpoint,
    ),
];

fn call(route: &str, tenant: &str, endpoint: &str) -> String {
    route
        .replace("{tenant}", tenant)
        .replace("{endpoint}", endpoint)
        .replace("{key}", "key_00000000000000000000000001")
        .replace("{subscription}", "sub_00000000000000000000000001")
        .replace("{letter}", "dl_0_0")
        .replace("{cohort}", "coh_00000000000000000000000001")
        .replace("{sync}", "syn_00000000000000000000000001")
        .replace("{source}", "src_00000000000000000000000001")
        .replace("{redrive}", "rdr_00000000000000000000000001")
}

async fn endpoint_key(rig: &Rig, endpoint: &str) -> String {
    let body = json!({ "endpoint": endpoint });
    rig.operator("POST /v1/tenants/acme/keys", body)
        .await
        .expect(201)
        .string("/key")
}

#[tokio::test(start_paused = true)]
async fn each_key_may_do_its_own_things_and_nothing_else() {
    let rig = Rig::start().await;
    let tenant_key = rig.acme().await;
    let (first, second) = (rig.endpoint().await, rig.endpoint().await);
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let (own, other) = (id(&first), id(&second));
    let endpoint_key = endpoint_key(&rig, &own).await;
    rig.operator("POST /v1/tenants", json!({ "id": "rival" }))
        .await
        .expect(201);
    // Bodies are refused, ids are unknown: nothing is changed, and who may gets past the key.
    let try_it = async |key: &str, call: &str| {
        let body = if call.contains("pause") {
            Value::Null
        } else {
            json!([])
        };
        rig.call(key, call, body).await.status.as_u16()
    };
    for (route, least) in ROUTES {
        // What would really be deleted or listed is asked about something that is not there.
        let endpoint = if route.starts_with("DELETE") {
            &id(&second)
        } else {
            &own
        };
        let there = call(route, "acme", endpoint);
        let gone = call(route, "nobody", endpoint);
        assert_eq!(try_it("", &there).await, 401, "{route}");
        assert_eq!(try_it("ak_x", &there).await, 401, "{route}");
        let absent = "ak_00000000000000000000000001_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(try_it(absent, &there).await, 401, "{route}");
        let allowed = |status: u16| status != 401 && status != 403;
        if !route.starts_with("DELETE") {
            assert!(allowed(try_it(OPERATOR, &there).await), "operator: {route}");
            let status = try_it(&tenant_key, &there).await;
            assert_eq!(
                allowed(status),
                *least <= Least::Tenant,
                "tenant: {route}: {status}"
            );
            let status = try_it(&endpoint_key, &there).await;
            assert_eq!(
                allowed(status),
                *least == Least::Endpoint,
                "endpoint: {route}: {status}"
            );
        }
        // Another tenant's things and things that do not exist are refused alike.
        for tenant in ["rival", "nobody", "NOT-ONE"] {
            let foreign = call(route, tenant, &own);
            if route.contains("{tenant}") {
                assert_eq!(try_it(&tenant_key, &foreign).await, 403, "{route}");
                assert_eq!(try_it(&endpoint_key, &foreign).await, 403, "{route}");
            }
        }
        if *least == Least::Endpoint && route.contains("{endpoint}") {
            assert_eq!(
                try_it(&endpoint_key, &call(route, "acme", &other)).await,
                403,
                "{route}"
            );
            assert_eq!(
                try_it(&endpoint_key, &call(route, "acme", "ep_x")).await,
                403,
                "{route}"
            );
        } else if *least > Least::Endpoint {
            assert_eq!(try_it(&endpoint_key, &there).await, 403, "{route}");
        }
        assert_ne!(try_it(OPERATOR, &gone).await, 403, "{route}");
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deletions_need_the_right_key_too() {
    let rig = Rig::start().await;
    let tenant_key = rig.acme().await;
    let path = rig.endpoint().await;
    let id = path.rsplit('/').next().unwrap();
    let endpoint_key = endpoint_key(&rig, id).await;
    let delete = format!("DELETE {path}");
    rig.call(&endpoint_key, &delete, Value::Null)
        .await
        .expect(403);
    rig.call(&tenant_key, "DELETE /v1/tenants/acme", Value::Null)
        .await
        .expect(403);
    rig.call(&tenant_key, &delete, Value::Null)
        .await
        .expect(204);
    // The endpoint's own keys went with it.
    rig.call(&endpoint_key, &format!("GET {path}"), Value::Null)
        .await
        .expect(401);
    let own = rig
        .operator("GET /v1/tenants/acme/keys", Value::Null)
        .await
        .string("/items/0/id");
    let delete_own = format!("DELETE /v1/tenants/acme/keys/{own}");
    rig.call(&tenant_key, &delete_own, Value::Null)
        .await
        .expect(204);
    rig.call(&tenant_key, "GET /v1/tenants/acme", Value::Null)
        .await
        .expect(401);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_document_has_every_route_and_needs_no_key() {
    let rig = Rig::start().await;
    let document = rig
        .call("", "GET /v1/openapi.json", Value::Null)
        .await
        .expect(200)
        .json();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
            assert!(operation["operationId"].is_string(), "{method} {path}");
            assert!(
                operation["responses"]["default"].is_object(),
                "{method} {path}"
            );
            let id = |name: &str| path.contains(&format!("{{{name}}}"));
            let params = operation["parameters"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            for name in [
                "tenant",
                "key",
                "endpoint",
                "subscription",
                "letter",
                "redrive",
                "cohort",
                "sync",
                "source",
            ] {
                let is_it = |param: &Value| param["name"] == name && param["in"] == "path";
                let described = params.iter().any(is_it);
                assert_eq!(described, id(name), "{method} {path}: {name}");
            }
        }
    }
    let known: BTreeSet<_> = ROUTES
        .iter()
        .map(|(route, _)| (*route).to_owned())
        .collect();
    assert_eq!(documented, known);
    // Whatever is served is described: both come from the same list.
    for (route, _) in ROUTES {
        let status = rig
            .call("", &call(route, "acme", "ep_x"), Value::Null)
            .await
            .status;
        assert_eq!(status.as_u16(), 401, "{route} is not served");
    }
    rig.stop().await;
}

#[test]
fn the_document_says_what_is_checked() {
    let (_, document) = described();
    let document = serde_json::to_value(document).unwrap();
    let schemas = &document["components"]["schemas"];
    let check = |name: &str, members: Members, patch: bool| {
        let properties = schemas[name]["properties"].as_object();
        let properties = properties.unwrap_or_else(|| panic!("no {name} in {schemas}"));
        let shown: BTreeSet<_> = properties.keys().map(String::as_str).collect();
        let settable = members.iter().copied().flatten();
        let settable = settable.filter(|member| !patch || member.fixed.is_none());
        assert_eq!(
            shown,
            settable.map(|member| member.name).collect(),
            "{name}"
        );
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
    };
    check("TenantBody", TENANT, false);
    check("TenantPatch", TENANT, true);
    check("EndpointBody", ENDPOINT, false);
    check("EndpointPatch", ENDPOINT, true);
    check("SubscriptionBody", SUBSCRIPTION, false);
    check("SubscriptionPatch", SUBSCRIPTION, true);
    check("WebhookBody", WEBHOOK, false);
    check("CohortBody", COHORT, false);
    check("CohortPatch", COHORT, true);
    check("SyncBody", SYNC, false);
    check("SyncPatch", SYNC, true);
    check("SourceBody", SOURCE, false);
    check("SourcePatch", SOURCE, true);
    for path in [
        "keys",
        "endpoints",
        "endpoints/{endpoint}/rotate-secret",
        "subscriptions",
        "webhooks",
        "cohorts",
        "syncs",
    ] {
        let create = &document["paths"][format!("/v1/tenants/{{tenant}}/{path}")]["post"];
        let params = create["parameters"].as_array().unwrap();
        let repeat = |param: &Value| param["name"] == "Idempotency-Key" && param["in"] == "header";
        assert!(params.iter().any(repeat), "{path}");
    }
    // What is left out of the waiting is said where the waiting is.
    let params = &document["paths"]["/v1/tenants"]["post"]["parameters"];
    let wait = params.as_array().unwrap().iter();
    let mut wait = wait.filter(|param| param["name"] == "wait");
    let said = wait.next().unwrap()["description"].as_str().unwrap();
    let said = said.replace('\n', " ");
    assert!(said.contains("has not reported for a session"), "{said}");
    assert_eq!(schemas["EndpointBody"]["required"], json!(["url"]));
    assert!(schemas["ProblemView"].is_object());
}
