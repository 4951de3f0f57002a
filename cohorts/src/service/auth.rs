//! Owns who may see and change a tenant's cohorts and syncs: the operator, and the tenant's own
//! keys.
//!
//! It must never compare a secret in time that depends on it, nor log one.

use std::sync::Arc;

use ::http::HeaderMap;
use ::http::header::AUTHORIZATION;
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{ExposeSecret, SecretString};
use schemas::ids::TenantId;
use schemas::resources::KeyScope;
use schemas::resources::key::KeyText;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Directory;

/// Says whose key a request carries.
#[derive(Debug)]
pub(super) struct Auth {
    directory: Arc<Directory>,
    operator: Option<[u8; 32]>,
}

impl Auth {
    pub(super) fn new(directory: Arc<Directory>, operator: Option<&SecretString>) -> Self {
        let operator = operator.map(|key| digest(key.expose_secret()));
        Self {
            directory,
            operator,
        }
    }

    /// Whether the request's key is the operator's.
    pub(super) fn is_operator(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_ok_and(|token| self.is_operators(token))
    }

    fn is_operators(&self, token: &str) -> bool {
        // Digests are compared: the length of the key is not to be told either.
        self.operator
            .is_some_and(|operator| bool::from(operator.ct_eq(&digest(token))))
    }

    /// The tenant named by the path, where the request's key may act for it.
    pub(super) fn authorize(&self, headers: &HeaderMap, tenant: &str) -> Result<TenantId, Problem> {
        let token = bearer(headers)?;
        let asked = tenant.parse::<TenantId>().ok();
        // A key of one tenant learns nothing about which others there are.
        if !self.is_operators(token) && asked.as_ref() != Some(&self.owner(token)?) {
            return Err(forbidden("the key belongs to another tenant"));
        }
        let found = asked.filter(|tenant| self.directory.has_tenant(tenant));
        found.ok_or_else(|| Problem::new(ProblemType::NotFound).detail("there is no such tenant"))
    }

    fn owner(&self, token: &str) -> Result<TenantId, Problem> {
        let unknown = || unauthorized("the key is not known");
        let text = KeyText::parse(token).map_err(|_| unknown())?;
        let key = self.directory.key(text.id());
        let key = key.filter(|key| key.verifies(&text)).ok_or_else(unknown)?;
        match key.scope {
            KeyScope::Tenant => Ok(key.tenant.clone()),
            KeyScope::Endpoint(_) => Err(forbidden("the key is for one endpoint, not for cohorts")),
        }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(ProblemType::Unauthorized).detail(detail)
}

fn forbidden(detail: &str) -> Problem {
    Problem::new(ProblemType::Forbidden).detail(detail)
}

/// The token of the one `Authorization: Bearer` header (HK-3).
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
