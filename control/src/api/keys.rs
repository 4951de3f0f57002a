//! Owns the API keys' routes. A key's text is in one answer, and only its hash is stored.

use axum::extract::State;
use axum::response::Response;
use runtime::problem::Problem;
use runtime::secret::ExposeSecret;
use schemas::ids::KeyId;
use schemas::records::ControlObject;
use schemas::resources::input::KeyInput;
use schemas::resources::key::{KeyText, SECRET_BYTES};
use schemas::resources::{ApiKey, KeyScope};

use super::answer::{self, Made, Paging};
use super::auth::Principal;
use super::kind;
use super::request::{IdempotencyKey, Order, Params, Segments, Waiting, invalid};
use super::schema::KeyBody;
use super::tenants::known;
use super::view::{KeyPage, KeyView};
use super::{App, conflict, put};
use crate::store::Plan;

/// A tenant's keys: people and programs, not customers.
const KEYS_MAX: usize = 10_000;

/// Makes a key and shows it once.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/keys", operation_id = "create_key", tag = "keys",
    params(("tenant" = String, Path, description = "The tenant's id."), Waiting, IdempotencyKey),
    request_body = KeyBody,
    responses((status = 201, body = KeyView, description = "Made; `key` is not shown again.")))]
pub(super) async fn create(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Order {
        waiting,
        repeat,
        body,
    }: Order,
) -> Result<Response, Problem> {
    let tenant = principal.tenant(&tenant)?;
    let input = KeyInput::read(&body).map_err(invalid)?;
    let id = KeyId::from_bits(repeat.bits("key", tenant.as_str(), || app.fresh_bits()));
    let mut secret = [0; SECRET_BYTES];
    app.entropy.fill(&mut secret);
    let (text, now) = (KeyText::generate(id, secret), app.clock.now());
    let written = app
        .store
        .write(move |objects| {
            known(objects, &tenant)?;
            if objects.keys.get(id).is_some() {
                return Err(conflict(
                    "a repeat made this key and its text is not shown again: delete it",
                ));
            }
            if objects.keys.count(&tenant) >= KEYS_MAX {
                return Err(conflict(format!("a tenant has at most {KEYS_MAX} keys")));
            }
            let scope = match input.endpoint {
                Some(endpoint) if objects.endpoints.of(&tenant, endpoint).is_none() => {
                    return Err(Problem::validation([(
                        "/endpoint",
                        "there is no such endpoint",
                    )]));
                }
                Some(endpoint) => KeyScope::Endpoint(endpoint),
                None => KeyScope::Tenant,
            };
            let location = Some(format!("/v1/tenants/{tenant}/keys/{id}"));
            let hash = text.hash();
            let key = ApiKey {
                id,
                tenant,
                scope,
                name: input.name,
                hash,
                created_at: now,
            };
            let shown = text.reveal().expose_secret().to_owned();
            let body = KeyView::of(&key).with_text(shown);
            let changes = vec![put(ControlObject::ApiKey(key))];
            Ok(Plan {
                changes,
                answer: Made { body, location },
            })
        })
        .await?;
    Ok(answer::made(&app, waiting, written).await)
}

/// Lists a tenant's keys, without their texts.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/keys", operation_id = "list_keys", tag = "keys",
    params(("tenant" = String, Path, description = "The tenant's id."), Paging),
    responses((status = 200, body = KeyPage, description = "A page.")))]
pub(super) async fn list(
    State(app): State<App>,
    principal: Principal,
    Segments(tenant): Segments<String>,
    Params(paging): Params<Paging>,
) -> Result<Response, Problem> {
    kind::list::<ApiKey>(&app, &principal.tenant(&tenant)?, &paging)
}

/// Deletes a key: it is refused from then on.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/keys/{key}", operation_id = "delete_key",
    tag = "keys",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("key" = String, Path, description = "The key's id."), Waiting),
    responses((status = 204, description = "Deleted.")))]
pub(super) async fn delete(
    State(app): State<App>,
    principal: Principal,
    Segments(path): Segments<(String, String)>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let place = kind::place::<ApiKey>(&principal, &path)?;
    kind::delete::<ApiKey>(&app, waiting, place, |_| Ok(Vec::new())).await
}
