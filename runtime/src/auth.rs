//! Owns who asks and what they may: the operator, a tenant, or an endpoint's owner.
//!
//! It must never compare a secret in time that depends on it, nor log one. The surprises: whether a
//! key may is decided by the path alone, before anything is looked up, so that a refusal says
//! nothing about what exists; and there is no cache of verified keys. Verifying one is a look-up by
//! its id and one SHA-256, which is what finding it in a cache would cost, and a deleted key ends
//! with the change that deletes it.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use schemas::ids::{EndpointId, KeyId, TenantId};
use schemas::resources::key::KeyText;
use schemas::resources::{ApiKey, KeyScope};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::{Problem, ProblemType};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// May everything.
    Operator,
    /// May everything of its tenant but change the tenant itself.
    Tenant(TenantId),
    /// May see, pause, resume and rotate one endpoint, and send its dead letters again.
    Endpoint(TenantId, EndpointId),
}

/// The operator's key, kept as a hash, so that comparing tells nothing about its length either.
#[derive(Clone)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// The key of this text.
    #[must_use]
    pub fn new(text: &SecretString) -> Self {
        Self(digest(text.expose_secret()))
    }

    fn is(&self, text: &str) -> bool {
        self.0.ct_eq(&digest(text)).into()
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey")
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The tenants' keys, as whoever follows `control` has them.
pub trait Keys {
    /// The key of that id.
    fn key(&self, id: KeyId) -> Option<Arc<ApiKey>>;
}

impl Principal {
    /// Whose key a request carries; without `operator`, there is no operator.
    ///
    /// # Errors
    /// 401 where there is no key, or one that is not known.
    pub fn of(
        headers: &HeaderMap,
        operator: Option<&OperatorKey>,
        keys: &impl Keys,
    ) -> Result<Self, Problem> {
        let token = bearer(headers)?;
        if operator.is_some_and(|operator| operator.is(token)) {
            return Ok(Self::Operator);
        }
        let unknown = || unauthorized("the key is not known");
        let text = KeyText::parse(token).map_err(|_| unknown())?;
        let key = keys.key(text.id()).filter(|key| key.verifies(&text));
        let key = key.ok_or_else(unknown)?;
        Ok(match key.scope {
            KeyScope::Tenant => Self::Tenant(key.tenant.clone()),
            KeyScope::Endpoint(endpoint) => Self::Endpoint(key.tenant.clone(), endpoint),
        })
    }

    /// The operator alone.
    ///
    /// # Errors
    /// 403 for everybody else.
    pub fn operator(&self) -> Result<(), Problem> {
        match self {
            Self::Operator => Ok(()),
            Self::Tenant(_) | Self::Endpoint(..) => Err(forbidden("only the operator may do this")),
        }
    }

    /// Whoever may see and change the objects of the tenant in the path.
    ///
    /// # Errors
    /// 403 for everybody else, 404 where the operator names what cannot be a tenant.
    pub fn tenant(&self, tenant: &str) -> Result<TenantId, Problem> {
        match self {
            Self::Operator => tenant.parse().map_err(|_| not_found("tenant")),
            Self::Tenant(own) if own.as_str() == tenant => Ok(own.clone()),
            // A key of one tenant learns nothing about which others there are.
            Self::Tenant(_) => Err(forbidden("the key belongs to another tenant")),
            Self::Endpoint(..) => Err(forbidden("the key is for one endpoint alone")),
        }
    }

    /// Whoever may see things of the tenant in the path, and the one endpoint that they must be of
    /// where the key is its owner's.
    ///
    /// # Errors
    /// As [`Principal::tenant`].
    pub fn reach(&self, tenant: &str) -> Result<(TenantId, Option<EndpointId>), Problem> {
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
    ///
    /// # Errors
    /// As [`Principal::tenant`]; an endpoint's owner is refused any other endpoint alike, whether
    /// there is one or not.
    pub fn endpoint(
        &self,
        tenant: &str,
        endpoint: &str,
    ) -> Result<(TenantId, EndpointId), Problem> {
        if let Self::Endpoint(own_tenant, own) = self {
            let is_own = own_tenant.as_str() == tenant && own.to_string() == endpoint;
            return if is_own {
                Ok((own_tenant.clone(), *own))
            } else {
                Err(forbidden("the key is for another endpoint"))
            };
        }
        let tenant = self.tenant(tenant)?;
        Ok((tenant, endpoint.parse().map_err(|_| not_found("endpoint"))?))
    }
}

/// There is no such object, or none that the key may see.
#[must_use]
pub fn not_found(what: &str) -> Problem {
    Problem::new(ProblemType::NotFound).detail(format!("there is no such {what}"))
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(ProblemType::Unauthorized).detail(detail)
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(ProblemType::Forbidden).detail(detail)
}

/// The token of the one `Authorization: Bearer` header (HK-3); the scheme in any case (RFC 9110
/// §11.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(unauthorized("one `authorization: bearer` header is needed"));
    };
    let text = value.to_str().ok().map(str::trim);
    match text.and_then(|text| text.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        Some(_) | None => Err(unauthorized(
            "the `authorization` header must be `bearer` and a key",
        )),
    }
}

#[cfg(test)]
mod tests;
