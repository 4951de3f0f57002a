//! Owns signing secrets: making, sealing, replacing. A secret is shown by the answer that makes it
//! and never again (rule 17, WH-5).

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{self, ExposeSecret, SecretString};
use schemas::ids::EndpointId;
use schemas::records::ControlObject;
use schemas::resources::input::RotationInput;
use schemas::resources::{Endpoint, SealedSecret, SecretKind};

use super::answer;
use super::auth::Principal;
use super::endpoints::{known, replaced, rotated};
use super::request::{IdempotencyKey, Order, Segments, Waiting, invalid};
use super::schema::RotationBody;
use super::view::EndpointView;
use super::{App, conflict, put};
use crate::store::Plan;

/// Bytes of a secret that is made here; WH-5 wants 24 to 64.
const SECRET_BYTES: usize = 32;
/// Secrets that sign at once: each is a signature on every request.
const SECRETS_MAX: usize = 8;

/// A secret on its way into an endpoint.
#[derive(Clone)]
pub(super) struct NewSecret {
    /// What is stored.
    pub(super) stored: SealedSecret,
    /// Its text, where it was made here.
    pub(super) shown: Option<String>,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSecret")
            .field("id", &self.stored.id)
            .finish_non_exhaustive()
    }
}

impl NewSecret {
    /// Seals `given` for `endpoint`, or a secret that is made for it; `bits` name it.
    pub(super) fn make(
        app: &App,
        endpoint: EndpointId,
        given: Option<&SecretString>,
        bits: u128,
    ) -> Result<Self, Problem> {
        let object = endpoint.to_string();
        let id = format!("sec_{bits:032x}");
        let shown = given.is_none().then(|| {
            let mut bytes = [0; SECRET_BYTES];
            app.entropy.fill(&mut bytes);
            format!("whsec_{}", STANDARD.encode(bytes))
        });
        let text = given
            .as_ref()
            .map(|given| given.expose_secret())
            .or(shown.as_deref());
        let text = text.unwrap_or_default().as_bytes();
        let sealed = app
            .sealer
            .seal(&object, &id, text, &app.entropy)
            .map_err(|error| {
                tracing::error!(%error, "secret cannot be sealed");
                Problem::new(ProblemType::Internal)
            })?;
        let stored = SealedSecret {
            id,
            kind: SecretKind::Symmetric,
            sealed,
            public_key: None,
            created_at: app.clock.now(),
            expires_at: None,
        };
        Ok(Self { stored, shown })
    }
}

/// Endpoints whose secrets are sealed again in one transaction.
const REWRAP_AT_ONCE: usize = 100;

/// Seals with the newest key what older keys have sealed, so that an older key can be retired
/// (rule 17). What fails is left as it is, for the next start.
pub(crate) async fn rewrap(app: &App) {
    let stale = |endpoint: &Endpoint| {
        endpoint
            .secrets
            .iter()
            .any(|secret| app.sealer.needs_rewrap(&secret.sealed))
    };
    let ids: Vec<EndpointId> = app.store.read(|objects| {
        let stale = objects
            .endpoints
            .all()
            .filter(|(_, endpoint)| stale(endpoint));
        stale.map(|(id, _)| id).collect()
    });
    for ids in ids.chunks(REWRAP_AT_ONCE) {
        let (app_then, ids) = (app.clone(), ids.to_vec());
        let written = app.store.write(move |objects| {
            let rewrapped = ids.iter().filter_map(|id| objects.endpoints.get(*id));
            let rewrapped =
                rewrapped.filter_map(|endpoint| rewrapped_endpoint(&app_then, endpoint));
            let changes: Vec<_> = rewrapped
                .map(|new| put(ControlObject::Endpoint(Box::new(new))))
                .collect();
            let answer = changes.len();
            Ok(Plan { changes, answer })
        });
        match written.await {
            Ok(written) => tracing::info!(endpoints = written.answer, "secrets sealed again"),
            Err(_) => tracing::warn!("secrets could not be sealed again now"),
        }
    }
}

fn rewrapped_endpoint(app: &App, old: &Endpoint) -> Option<Endpoint> {
    let object = old.id.to_string();
    let again = |secret: &SealedSecret| {
        let text = app.sealer.open(&object, &secret.id, &secret.sealed)?;
        let sealed = app
            .sealer
            .seal(&object, &secret.id, text.expose_secret(), &app.entropy)?;
        Ok(SealedSecret {
            sealed,
            ..secret.clone()
        })
    };
    let secrets: Result<Vec<_>, secret::Error> = old.secrets.iter().map(again).collect();
    match secrets {
        Ok(secrets) => Some(Endpoint {
            secrets,
            ..old.clone()
        }),
        Err(error) => {
            tracing::error!(endpoint = %old.id, %error, "secret cannot be sealed again");
            None
        }
    }
}

/// Replaces the signing secret. The one before it signs along for a while, so that no delivery is
/// refused meanwhile (WH-3).
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/rotate-secret",
    operation_id = "rotate_secret", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id."),
        ("endpoint" = String, Path, description = "The endpoint's id."), Waiting, IdempotencyKey),
    request_body = RotationBody,
    responses((status = 200, body = EndpointView,
        description = "Replaced; `secret` is not shown again.")))]
pub(super) async fn rotate(
    State(app): State<App>,
    principal: Principal,
    Segments((tenant, endpoint)): Segments<(String, String)>,
    Order {
        waiting,
        repeat,
        body,
    }: Order,
) -> Result<Response, Problem> {
    let (tenant, id) = principal.endpoint(&tenant, &endpoint)?;
    let RotationInput {
        secret, expires_in, ..
    } = RotationInput::read(&body).map_err(invalid)?;
    let bits = repeat.bits("rotation", &id.to_string(), || app.fresh_bits());
    let NewSecret { stored, shown } = NewSecret::make(&app, id, secret.as_ref(), bits)?;
    let now = app.clock.now();
    let expires_at = now.saturating_add(i64::from(expires_in) * 1_000);
    let written = app
        .store
        .write(move |objects| {
            let old = known(objects, &tenant, id)?;
            if old.secrets.iter().any(|known| known.id == stored.id) {
                return Ok(Plan {
                    changes: Vec::new(),
                    answer: EndpointView::of(old),
                });
            }
            let new = rotated(old, stored, expires_at, now);
            if new.secrets.len() > SECRETS_MAX {
                return Err(conflict(format!(
                    "{SECRETS_MAX} secrets sign already: wait, or give a shorter `expires_in`"
                )));
            }
            let Plan { changes, answer } = replaced(old, new, now);
            Ok(Plan {
                changes,
                answer: answer.with_secret(shown),
            })
        })
        .await?;
    Ok(answer::changed(&app, waiting, written).await)
}
