//! Owns what the routes of every kind of object do alike: find, list, change, delete.
//!
//! It must never know a kind: each says of itself what differs.

use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use axum::response::Response;
use runtime::problem::Problem;
use schemas::ids::{EndpointId, KeyId, SubscriptionId, TenantId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{ApiKey, Endpoint, Subscription};
use serde::Serialize;

use super::answer::{self, Made, Page, Paging};
use super::auth::{Principal, not_found};
use super::request::Waiting;
use super::tenants::known as known_tenant;
use super::view::{
    EndpointPage, EndpointView, KeyPage, KeyView, SubscriptionPage, SubscriptionView,
};
use super::{App, later, put, remove};
use crate::store::{Owned, Plan, State as Objects, Table};

/// A kind of object that belongs to a tenant.
pub(super) trait Kind: Owned + Clone + PartialEq + Send + Sync + 'static {
    /// Its id.
    type Id: Copy + Ord + Hash + FromStr + Display + Send + 'static;
    /// How it is shown.
    type View: Serialize + Send + 'static;
    /// How a page of it is shown.
    type Page: Serialize + From<Page<Self::View>>;
    /// Its name in answers.
    const NAME: &'static str;
    /// The last part but one of its path.
    const PATH: &'static str;

    /// Where it is kept.
    fn table(objects: &Objects) -> &Table<Self::Id, Self>;
    /// How this one is shown.
    fn view(&self) -> Self::View;
    /// Its key on `control`.
    fn key(id: Self::Id) -> ControlKey;

    /// Whether it is shown at all.
    fn is_shown(&self) -> bool {
        true
    }
}

/// A kind of object that can be changed.
pub(super) trait Changing: Kind {
    /// When it was changed last, unix milliseconds.
    fn updated_at(&mut self) -> &mut i64;
    /// As it is stored.
    fn stored(self) -> ControlObject;
}

/// A tenant and an object's id, as a path says them.
pub(super) type Place<K> = (TenantId, <K as Kind>::Id);

/// The object's id in a path, or 404.
pub(super) fn id<K: Kind>(text: &str) -> Result<K::Id, Problem> {
    text.parse().map_err(|_| not_found(K::NAME))
}

/// The place that a path names, for whoever may see and change the tenant's objects.
pub(super) fn place<K: Kind>(
    principal: &Principal,
    (tenant, id): &(String, String),
) -> Result<Place<K>, Problem> {
    let tenant = principal.tenant(tenant)?;
    Ok((tenant, self::id::<K>(id)?))
}

/// The object `id` of `tenant`, or 404.
pub(super) fn known<'a, K: Kind>(
    objects: &'a Objects,
    (tenant, id): &Place<K>,
) -> Result<&'a Arc<K>, Problem> {
    K::table(objects)
        .of(tenant, *id)
        .filter(|row| row.is_shown())
        .ok_or_else(|| not_found(K::NAME))
}

/// A page of a tenant's objects.
pub(super) fn list<K: Kind>(
    app: &App,
    tenant: &TenantId,
    paging: &Paging,
) -> Result<Response, Problem> {
    let (after, limit) = (paging.after()?, paging.limit()?);
    let page = app.store.read(|objects| {
        known_tenant(objects, tenant)?;
        let rows = K::table(objects).page(tenant, after);
        let rows = rows.filter(|(_, row)| row.is_shown());
        let view = |row: &(K::Id, &Arc<K>)| row.1.view();
        Ok::<_, Problem>(Page::of(rows, limit, |row| row.0.to_string(), view))
    })?;
    Ok(answer::page::<K::Page, _>(page, limit))
}

/// Reads the object at `place`.
pub(super) fn read<K: Kind>(app: &App, place: &Place<K>) -> Result<axum::Json<K::View>, Problem> {
    app.store
        .read(|objects| Ok(axum::Json(known::<K>(objects, place)?.view())))
}

/// Writes what `new` makes of the object at `place`; nothing where it is the same.
pub(super) async fn change<K: Changing>(
    app: &App,
    waiting: Waiting,
    place: Place<K>,
    new: impl FnOnce(&K) -> Result<K, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let now = app.clock.now();
    let written = app
        .store
        .write(move |objects| {
            let old = known::<K>(objects, &place)?;
            let new = new(old)?;
            if **old == new {
                return Ok(Plan {
                    changes: Vec::new(),
                    answer: old.view(),
                });
            }
            Ok(replaced(old.as_ref(), new, now))
        })
        .await?;
    Ok(answer::changed(app, waiting, written).await)
}

/// The plan that puts `new` in the place of `old`.
pub(super) fn replaced<K: Changing>(old: &K, mut new: K, now: i64) -> Plan<K::View> {
    let before = *old.clone().updated_at();
    *new.updated_at() = later(now, before);
    let answer = new.view();
    Plan {
        changes: vec![put(new.stored())],
        answer,
    }
}

/// Deletes the object at `place`, and what `with_it` names, unless that says why it must stay.
pub(super) async fn delete<K: Kind>(
    app: &App,
    waiting: Waiting,
    place: Place<K>,
    with_it: impl FnOnce(&Objects) -> Result<Vec<ControlKey>, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let written = app
        .store
        .write(move |objects| {
            known::<K>(objects, &place)?;
            let mut keys = with_it(objects)?;
            keys.push(K::key(place.1));
            Ok(Plan {
                changes: keys.into_iter().map(remove).collect(),
                answer: (),
            })
        })
        .await?;
    Ok(answer::deleted(app, waiting, written).await)
}

/// The plan that makes `objects`, shown as `view`; nothing where a repeat finds them made.
pub(super) fn made<V>(
    objects: Vec<ControlObject>,
    repeated: bool,
    location: String,
    view: V,
) -> Plan<Made<V>> {
    let changes = if repeated {
        Vec::new()
    } else {
        objects.into_iter().map(put).collect()
    };
    Plan {
        changes,
        answer: Made {
            body: view,
            location: (!repeated).then_some(location),
        },
    }
}

/// The path of the object at `place`.
pub(super) fn location<K: Kind>((tenant, id): &Place<K>) -> String {
    format!("/v1/tenants/{tenant}/{}/{id}", K::PATH)
}

impl Kind for Endpoint {
    type Id = EndpointId;
    type View = EndpointView;
    type Page = EndpointPage;
    const NAME: &'static str = "endpoint";
    const PATH: &'static str = "endpoints";

    fn table(objects: &Objects) -> &Table<EndpointId, Self> {
        &objects.endpoints
    }

    fn view(&self) -> EndpointView {
        EndpointView::of(self)
    }

    fn key(id: EndpointId) -> ControlKey {
        ControlKey::Endpoint(id)
    }
}

impl Changing for Endpoint {
    fn updated_at(&mut self) -> &mut i64 {
        &mut self.updated_at
    }

    fn stored(self) -> ControlObject {
        ControlObject::Endpoint(Box::new(self))
    }
}

impl Kind for Subscription {
    type Id = SubscriptionId;
    type View = SubscriptionView;
    type Page = SubscriptionPage;
    const NAME: &'static str = "subscription";
    const PATH: &'static str = "subscriptions";

    fn table(objects: &Objects) -> &Table<SubscriptionId, Self> {
        &objects.subscriptions
    }

    fn view(&self) -> SubscriptionView {
        SubscriptionView::of(self)
    }

    fn key(id: SubscriptionId) -> ControlKey {
        ControlKey::Subscription(id)
    }

    /// A sync's own is the sync's.
    fn is_shown(&self) -> bool {
        !self.hidden
    }
}

impl Changing for Subscription {
    fn updated_at(&mut self) -> &mut i64 {
        &mut self.updated_at
    }

    fn stored(self) -> ControlObject {
        ControlObject::Subscription(Box::new(self))
    }
}

impl Kind for ApiKey {
    type Id = KeyId;
    type View = KeyView;
    type Page = KeyPage;
    const NAME: &'static str = "key";
    const PATH: &'static str = "keys";

    fn table(objects: &Objects) -> &Table<KeyId, Self> {
        &objects.keys
    }

    fn view(&self) -> KeyView {
        KeyView::of(self)
    }

    fn key(id: KeyId) -> ControlKey {
        ControlKey::ApiKey(id)
    }
}
