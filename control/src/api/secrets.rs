//! Owns signing secrets: making, sealing, replacing. A secret is shown by the answer that makes it
//! and never again (rule 17, WH-5).

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::clock::Entropy;
use runtime::ed25519::{self, PublicKey};
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{self, ExposeSecret, SecretString};
use schemas::ids::EndpointId;
use schemas::records::ControlObject;
use schemas::resources::input::RotationInput;
use schemas::resources::{Endpoint, SealedSecret, SecretKind};

use super::answer;
use super::auth::Principal;
use super::endpoints::rotated;
use super::request::{IdempotencyKey, Order, Segments, Waiting, invalid};
use super::schema::RotationBody;
use super::view::EndpointView;
use super::{App, conflict, credentials, kind, put};
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
    /// Seals `given` for `endpoint`, or a secret of `kind` that is made for it; `bits` name it.
    pub(super) fn make(
        app: &App,
        endpoint: EndpointId,
        given: Option<&SecretString>,
        (kind, bits): (SecretKind, u128),
    ) -> Result<Self, Problem> {
        let object = endpoint.to_string();
        let id = format!("sec_{bits:032x}");
        let Text {
            secret,
            public_key,
            shown,
        } = match given {
            Some(given) => Text::given(given)?,
            None => Text::made(kind, &app.entropy)?,
        };
        let sealed = app
            .sealer
            .seal(
                &object,
                &id,
                secret.expose_secret().as_bytes(),
                &app.entropy,
            )
            .map_err(|error| {
                tracing::error!(%error, "secret cannot be sealed");
                Problem::new(ProblemType::Internal)
            })?;
        let stored = SealedSecret {
            id,
            kind: public_key.map_or(SecretKind::Symmetric, |_| SecretKind::Ed25519),
            sealed,
            public_key: public_key.map(|key| key.to_string()),
            created_at: app.clock.now(),
            expires_at: None,
        };
        Ok(Self { stored, shown })
    }
}

/// A secret's text, and what is shown of it.
struct Text {
    secret: SecretString,
    public_key: Option<PublicKey>,
    shown: Option<String>,
}

impl Text {
    /// What a client brought: it knows it.
    fn given(secret: &SecretString) -> Result<Self, Problem> {
        let text = secret.expose_secret();
        let public_key = text
            .starts_with(ed25519::SECRET_PREFIX)
            .then(|| ed25519::SecretKey::parse(text).map(|key| key.public()))
            .transpose()
            .map_err(|error| Problem::validation([("/secret", error.to_string())]))?;
        Ok(Self {
            secret: secret.clone(),
            public_key,
            shown: None,
        })
    }

    /// A new one. Of an asymmetric one only the public key is for others.
    fn made(kind: SecretKind, entropy: &Entropy) -> Result<Self, Problem> {
        Ok(match kind {
            SecretKind::Symmetric => {
                let mut bytes = [0; SECRET_BYTES];
                entropy.fill(&mut bytes);
                let text = format!("whsec_{}", STANDARD.encode(bytes));
                Self {
                    secret: SecretString::from(text.clone()),
                    public_key: None,
                    shown: Some(text),
                }
            }
            SecretKind::Ed25519 => {
                let (secret, public_key) = ed25519::SecretKey::generate(entropy)
                    .map_err(|_| Problem::new(ProblemType::Internal))?;
                Self {
                    secret,
                    public_key: Some(public_key),
                    shown: None,
                }
            }
        })
    }
}

/// Endpoints whose secrets are sealed again in one transaction.
const REWRAP_AT_ONCE: usize = 100;

/// Seals with the newest key what older keys have sealed, so that an older key can be retired
/// (rule 17). What fails is left as it is, for the next start.
pub(crate) async fn rewrap(app: &App) {
    let stale = |endpoint: &Endpoint| {
        let signing = endpoint.secrets.iter().map(|secret| &secret.sealed);
        let others = credentials::sealed_texts(endpoint).map(|text| &text.sealed);
        signing
            .chain(others)
            .any(|sealed| app.sealer.needs_rewrap(sealed))
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
    let again = |id: &str, sealed: &str| {
        let text = app.sealer.open(&object, id, sealed)?;
        app.sealer
            .seal(&object, id, text.expose_secret(), &app.entropy)
    };
    let signing = |secret: &SealedSecret| {
        Ok(SealedSecret {
            sealed: again(&secret.id, &secret.sealed)?,
            ..secret.clone()
        })
    };
    let secrets: Result<Vec<_>, secret::Error> = old.secrets.iter().map(signing).collect();
    let all = secrets.and_then(|secrets| Ok((secrets, credentials::sealed_again(old, again)?)));
    match all {
        Ok((secrets, (authentication, client_certificate))) => Some(Endpoint {
            secrets,
            authentication,
            client_certificate,
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
        secret,
        signature,
        expires_in,
    } = RotationInput::read(&body).map_err(invalid)?;
    let bits = repeat.bits("rotation", &id.to_string(), || app.fresh_bits());
    let place = (tenant, id);
    let signature = match signature {
        Some(signature) => signature,
        // What it signs with stays unless somebody says otherwise.
        None => app.store.read(|objects| {
            let old = kind::known::<Endpoint>(objects, &place)?;
            let current = old.secrets.first().map(|secret| secret.kind);
            Ok::<_, Problem>(current.unwrap_or_default())
        })?,
    };
    let NewSecret { stored, shown } =
        NewSecret::make(&app, id, secret.as_ref(), (signature, bits))?;
    let now = app.clock.now();
    let expires_at = now.saturating_add(i64::from(expires_in) * 1_000);
    let written = app
        .store
        .write(move |objects| {
            let old = kind::known::<Endpoint>(objects, &place)?;
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
            let Plan { changes, answer } = kind::replaced(old.as_ref(), new, now);
            Ok(Plan {
                changes,
                answer: answer.with_secret(shown),
            })
        })
        .await?;
    Ok(answer::changed(&app, waiting, written).await)
}
