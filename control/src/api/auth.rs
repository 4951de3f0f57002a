//! Owns where a request's principal comes from here: the operator's key and the keys in the store.
//!
//! Never open: there is no request without a key but the one for the API's document.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::auth::Keys;
use runtime::problem::Problem;
use schemas::ids::KeyId;
use schemas::resources::ApiKey;

use super::App;
use crate::store::Store;

pub(crate) use runtime::auth::{OperatorKey, Principal, not_found};

impl Keys for Store {
    fn key(&self, id: KeyId) -> Option<Arc<ApiKey>> {
        self.read(|state| state.keys.get(id).cloned())
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Self::of(&parts.headers, Some(&app.operator), &app.store)
    }
}
