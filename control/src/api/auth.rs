//! Owns who asks and what they may: the operator, a tenant, or an endpoint's owner.
//!
//! Never open: there is no request without a key but the one for the API's document. The surprise:
//! whether a key may is decided by the path alone, before anything is looked up, so that a refusal
//! says nothing about what exists.

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{ExposeSecret, SecretString};
use schemas::ids::{EndpointId, TenantId};
use schemas::resources::KeyScope;
use schemas::resources::key::KeyText;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::App;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// May everything.
    Operator,
    /// May everything of its tenant but change the tenant itself.
    Tenant(TenantId),
    /// May see, pause, resume and rotate one endpoint, and send its dead letters again.
    Endpoint(TenantId, EndpointId),
}

/// The operator's key, kept as a hash, so that comparing tells nothing about its length either.
#[derive(Clone)]
pub(crate) struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// The key of this text.
    pub(crate) fn new(text: &SecretString) -> Self {
        Self(Sha256::digest(text.expose_secret().as_bytes()).into())
    }

    fn is(&self, text: &str) -> bool {
        self.0.ct_eq(&Sha256::digest(text.as_bytes())).into()
    }
}

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorKey")
    }
}

impl Principal {
    /// The operator alone.
    pub(crate) fn operator(&self) -> Result<(), Problem> {
        match self {
            Self::Operator => Ok(()),
            Self::Tenant(_) | Self::Endpoint(..) => Err(forbidden()),
        }
    }

    /// Whoever may see and change the objects of the tenant in the path.
    pub(crate) fn tenant(&self, tenant: &str) -> Result<TenantId, Problem> {
        match self {
            Self::Operator => tenant.parse().map_err(|_| not_found("tenant")),
            Self::Tenant(own) if own.as_str() == tenant => Ok(own.clone()),
            Self::Tenant(_) | Self::Endpoint(..) => Err(forbidden()),
        }
    }

    /// Whoever may see things of the tenant in the path, and the one endpoint that they must be of
    /// where the key is its owner's.
    pub(crate) fn reach(&self, tenant: &str) -> Result<(TenantId, Option<EndpointId>), Problem> {
        match self {
            Self::Endpoint(own, endpoint) if own.as_str() == tenant => {
                Ok((own.clone(), Some(*endpoint)))
            }
            Self::Operator | Self::Tenant(_) | Self::Endpoint(..) => {
                Ok((self.tenant(tenant)?, None))
            }
        }
    }

    /// Whoever may see, pause, resume and rotate the endpoint in the path.
    pub(crate) fn endpoint(
        &self,
        tenant: &str,
        endpoint: &str,
    ) -> Result<(TenantId, EndpointId), Problem> {
        if let Self::Endpoint(own_tenant, own) = self {
            let is_own = own_tenant.as_str() == tenant && own.to_string() == endpoint;
            return if is_own {
                Ok((own_tenant.clone(), *own))
            } else {
                Err(forbidden())
            };
        }
        let tenant = self.tenant(tenant)?;
        Ok((tenant, endpoint.parse().map_err(|_| not_found("endpoint"))?))
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let text = bearer(parts).ok_or_else(unauthorized)?;
        if app.operator.is(text) {
            return Ok(Self::Operator);
        }
        let text = KeyText::parse(text).map_err(|_| unauthorized())?;
        let key = app.store.read(|state| state.keys.get(text.id()).cloned());
        let key = key
            .filter(|key| key.verifies(&text))
            .ok_or_else(unauthorized)?;
        Ok(match key.scope {
            KeyScope::Tenant => Self::Tenant(key.tenant.clone()),
            KeyScope::Endpoint(endpoint) => Self::Endpoint(key.tenant.clone(), endpoint),
        })
    }
}

/// The token of `Authorization: Bearer …`; the scheme in any case (RFC 9110 §11.1).
fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, token) = parts
        .headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorized() -> Problem {
    Problem::new(ProblemType::Unauthorized)
        .detail("send `Authorization: Bearer` and the key of an operator, a tenant or an endpoint")
}

fn forbidden() -> Problem {
    Problem::new(ProblemType::Forbidden)
}

/// There is no such object.
pub(crate) fn not_found(what: &str) -> Problem {
    Problem::new(ProblemType::NotFound).detail(format!("there is no such {what}"))
}
