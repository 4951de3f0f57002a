//! Owns who may send events for a tenant: the operator, and the tenant's own keys.
//!
//! It must never compare a secret in time that depends on it, nor log one. The surprise: there is
//! no cache of verified keys. Verifying one is a look-up by its id and one SHA-256, which is what
//! finding it in a cache would cost, and a deleted key ends with the change that deletes it.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use runtime::problem::{Problem, ProblemType};
use runtime::secret::{ExposeSecret, SecretString};
use schemas::ids::TenantId;
use schemas::resources::KeyScope;
use schemas::resources::key::KeyText;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::directory::{Directory, TenantEntry};

/// Says whose key a request carries.
#[derive(Debug)]
pub(crate) struct Auth {
    directory: Arc<Directory>,
    operator: Option<[u8; 32]>,
}

impl Auth {
    pub(crate) fn new(directory: Arc<Directory>, operator: Option<&SecretString>) -> Self {
        let operator = operator.map(|key| digest(key.expose_secret()));
        Self {
            directory,
            operator,
        }
    }

    /// The tenant named by the path, where the request's key may send for it.
    pub(crate) fn authorize(
        &self,
        headers: &HeaderMap,
        tenant: &str,
    ) -> Result<Arc<TenantEntry>, Problem> {
        let token = bearer(headers)?;
        let asked = tenant.parse::<TenantId>().ok();
        if !self.is_operator(token) {
            let owner = self.owner(token)?;
            // A key of one tenant learns nothing about which others there are.
            if asked.as_ref() != Some(&owner) {
                return Err(forbidden("the key belongs to another tenant"));
            }
        }
        let found = asked.and_then(|id| self.directory.tenant(&id));
        found.ok_or_else(|| Problem::new(ProblemType::NotFound).detail("there is no such tenant"))
    }

    fn is_operator(&self, token: &str) -> bool {
        // Digests are compared: the length of the key is not to be told either.
        let given = digest(token);
        self.operator
            .is_some_and(|operator| bool::from(operator.ct_eq(&given)))
    }

    /// The tenant that a tenant's key names.
    fn owner(&self, token: &str) -> Result<TenantId, Problem> {
        let unknown = || unauthorized("the key is not known");
        let text = KeyText::parse(token).map_err(|_| unknown())?;
        let key = self
            .directory
            .key(text.id())
            .filter(|key| key.verifies(&text));
        let key = key.ok_or_else(unknown)?;
        match key.scope {
            KeyScope::Tenant => Ok(key.tenant.clone()),
            KeyScope::Endpoint(_) => Err(forbidden("the key is for one endpoint, not for events")),
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
    let parts = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        Some(_) | None => Err(unauthorized(
            "the `authorization` header must be `bearer` and a key",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use runtime::config::Config;
    use runtime::view::Change;
    use schemas::ids::{EndpointId, KeyId};
    use schemas::records::{ControlKey, ControlObject};
    use schemas::resources::{ApiKey, Tenant};

    use super::*;
    use crate::options::Options;

    fn key(bits: u128) -> KeyText {
        KeyText::generate(KeyId::from_bits(bits), [7; 32])
    }

    fn stored(bits: u128, tenant: &str, scope: KeyScope) -> ControlObject {
        let text = key(bits);
        let tenant = tenant.parse().unwrap();
        let hash = text.hash();
        ControlObject::ApiKey(ApiKey {
            id: text.id(),
            tenant,
            scope,
            name: None,
            hash,
            created_at: 0,
        })
    }

    fn tenant(name: &str) -> ControlObject {
        ControlObject::Tenant(Tenant {
            id: name.parse().unwrap(),
            name: None,
            events_per_second: None,
            bytes_per_second: None,
            created_at: 0,
            updated_at: 0,
        })
    }

    fn auth() -> Auth {
        let directory = Arc::new(Directory::new(&Options::from_config(&Config::default())));
        let objects = [
            tenant("acme"),
            tenant("other"),
            stored(1, "acme", KeyScope::Tenant),
            stored(2, "other", KeyScope::Tenant),
            stored(3, "acme", KeyScope::Endpoint(EndpointId::from_bits(1))),
        ];
        let change = |object: ControlObject| Change {
            key: object.key(),
            object: Some(object),
        };
        directory.apply(objects.into_iter().map(change).collect());
        Auth::new(directory, Some(&SecretString::from("the operator")))
    }

    fn check(auth: &Auth, header: Option<&str>, tenant: &str, expected: Result<(), StatusCode>) {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        }
        let got = auth.authorize(&headers, tenant);
        let got = got.map(|entry| assert_eq!(entry.id.as_str(), tenant));
        assert_eq!(
            got.map_err(|problem| problem.status()),
            expected,
            "{header:?} {tenant}"
        );
    }

    #[test]
    fn each_principal_sends_for_its_own_tenant_alone() {
        let auth = auth();
        let bearer = |bits| format!("Bearer {}", key(bits).reveal().expose_secret());
        let wrong = format!("{}x", bearer(1));
        let other_secret = KeyText::generate(KeyId::from_bits(1), [8; 32]).reveal();
        let other_secret = format!("Bearer {}", other_secret.expose_secret());
        check(&auth, Some(&bearer(1)), "acme", Ok(()));
        check(
            &auth,
            Some(&bearer(1).replace("Bearer", "bearer")),
            "acme",
            Ok(()),
        );
        check(&auth, Some("Bearer the operator"), "acme", Ok(()));
        check(&auth, Some("Bearer the operator"), "other", Ok(()));
        check(
            &auth,
            Some("Bearer the operator"),
            "none",
            Err(StatusCode::NOT_FOUND),
        );
        check(
            &auth,
            Some("Bearer the operator"),
            "No!",
            Err(StatusCode::NOT_FOUND),
        );
        for tenant in ["other", "none", "No!"] {
            check(&auth, Some(&bearer(1)), tenant, Err(StatusCode::FORBIDDEN));
        }
        check(&auth, Some(&bearer(3)), "acme", Err(StatusCode::FORBIDDEN));
        for header in [
            &bearer(4),
            &wrong,
            &other_secret,
            "Basic abc",
            "Bearer",
            "Bearer operator",
        ] {
            check(&auth, Some(header), "acme", Err(StatusCode::UNAUTHORIZED));
        }
        check(&auth, None, "acme", Err(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn two_authorization_headers_are_none() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(
                AUTHORIZATION,
                HeaderValue::from_static("Bearer the operator"),
            );
        }
        let problem = auth().authorize(&headers, "acme").unwrap_err();
        assert_eq!(problem.status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_deleted_key_and_a_deleted_tenant_end_at_once() {
        let auth = auth();
        let header = format!("Bearer {}", key(1).reveal().expose_secret());
        let gone = |key| vec![Change { key, object: None }];
        auth.directory.apply(gone(ControlKey::ApiKey(key(1).id())));
        check(&auth, Some(&header), "acme", Err(StatusCode::UNAUTHORIZED));
        auth.directory
            .apply(gone(ControlKey::Tenant("acme".parse().unwrap())));
        check(
            &auth,
            Some("Bearer the operator"),
            "acme",
            Err(StatusCode::NOT_FOUND),
        );
    }
}
