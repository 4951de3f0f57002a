//! Owns who may see and change a tenant's cohorts and syncs: the operator, and the tenant's own
//! keys.
//!
//! It must never say which tenants there are to a key of one.

use std::sync::Arc;

use ::http::HeaderMap;
use runtime::auth::{OperatorKey, Principal, not_found};
use runtime::problem::Problem;
use runtime::secret::SecretString;
use schemas::ids::TenantId;

use super::Directory;

/// Says whose key a request carries.
#[derive(Debug)]
pub(super) struct Auth {
    directory: Arc<Directory>,
    operator: Option<OperatorKey>,
}

impl Auth {
    pub(super) fn new(directory: Arc<Directory>, operator: Option<&SecretString>) -> Self {
        Self {
            directory,
            operator: operator.map(OperatorKey::new),
        }
    }

    /// Whether the request's key is the operator's.
    pub(super) fn is_operator(&self, headers: &HeaderMap) -> bool {
        self.principal(headers)
            .is_ok_and(|principal| principal == Principal::Operator)
    }

    /// The tenant named by the path, where the request's key may act for it.
    pub(super) fn authorize(&self, headers: &HeaderMap, tenant: &str) -> Result<TenantId, Problem> {
        let id = self.principal(headers)?.tenant(tenant)?;
        if self.directory.has_tenant(&id) {
            Ok(id)
        } else {
            Err(not_found("tenant"))
        }
    }

    fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        Principal::of(headers, self.operator.as_ref(), self.directory.as_ref())
    }
}
