//! Owns who may send events for a tenant: the operator, and the tenant's own keys.
//!
//! It must never say which tenants there are to a key of one.

use std::sync::Arc;

use http::HeaderMap;
use runtime::auth::{OperatorKey, Principal, not_found};
use runtime::problem::Problem;
use runtime::secret::SecretString;

use crate::directory::{Directory, TenantEntry};

/// Says whose key a request carries.
#[derive(Debug)]
pub(crate) struct Auth {
    directory: Arc<Directory>,
    operator: Option<OperatorKey>,
}

impl Auth {
    pub(crate) fn new(directory: Arc<Directory>, operator: Option<&SecretString>) -> Self {
        Self {
            directory,
            operator: operator.map(OperatorKey::new),
        }
    }

    /// The tenant named by the path, where the request's key may send for it.
    pub(crate) fn authorize(
        &self,
        headers: &HeaderMap,
        tenant: &str,
    ) -> Result<Arc<TenantEntry>, Problem> {
        let principal = Principal::of(headers, self.operator.as_ref(), self.directory.as_ref())?;
        let id = principal.tenant(tenant)?;
        self.directory
            .tenant(&id)
            .ok_or_else(|| not_found("tenant"))
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use http::{HeaderValue, StatusCode};
    use runtime::config::Config;
    use runtime::secret::ExposeSecret;
    use runtime::view::Change;
    use schemas::ids::{EndpointId, KeyId};
    use schemas::records::{ControlKey, ControlObject};
    use schemas::resources::key::KeyText;
    use schemas::resources::{ApiKey, FairShare, KeyScope, Tenant};

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
            fair_share: FairShare::default(),
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
        check(&auth, Some(&bearer(1)), "acme", Ok(()));
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
        let unknown = bearer(4);
        check(&auth, Some(&unknown), "acme", Err(StatusCode::UNAUTHORIZED));
        check(&auth, None, "acme", Err(StatusCode::UNAUTHORIZED));
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
