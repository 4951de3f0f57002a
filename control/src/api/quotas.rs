//! Owns what endpoints of one quota have in common: `limits` and `concurrency`, for they spend
//! together.
//!
//! It must never let two of them say different things: whoever was asked last would win. The
//! surprise: a change of one is a change of all, in one transaction.

use std::sync::Arc;

use runtime::problem::Problem;
use schemas::resources::{Endpoint, Quota};

use super::conflict;
use crate::store::State as Objects;

/// Endpoints of one quota: their limits are changed in one transaction.
const OF_QUOTA_MAX: usize = 1_000;

/// What `made` has together with the others of its quota: theirs where it says nothing.
///
/// # Errors
/// Where it says something else, which names one of them; and where there are too many.
pub(super) fn joined(objects: &Objects, made: Endpoint) -> Result<Endpoint, Problem> {
    let others: Vec<&Arc<Endpoint>> = others(objects, &made).collect();
    if others.len() >= OF_QUOTA_MAX {
        return Err(conflict(format!(
            "a quota has at most {OF_QUOTA_MAX} endpoints"
        )));
    }
    let Some(other) = others.first() else {
        return Ok(made);
    };
    let mut faults = Vec::new();
    if !made.limits.is_empty() && made.limits != other.limits {
        faults.push("/limits");
    }
    if made.concurrency.is_some() && made.concurrency != other.concurrency {
        faults.push("/concurrency");
    }
    if faults.is_empty() {
        return Ok(Endpoint {
            limits: other.limits.clone(),
            concurrency: other.concurrency,
            ..made
        });
    }
    let why = format!(
        "must be what {} has, which spends from the same quota; leave it out, and change it for \
         all of them later",
        other.id
    );
    Err(Problem::validation(
        faults.into_iter().map(|at| (at, why.as_str())),
    ))
}

/// The others of the quota that change when `old` becomes `new`, as they are then.
pub(super) fn followers(objects: &Objects, old: &Endpoint, new: &Endpoint) -> Vec<Endpoint> {
    let differs =
        |other: &Endpoint| other.limits != new.limits || other.concurrency != new.concurrency;
    if !differs(old) {
        return Vec::new();
    }
    let differing = others(objects, new).filter(|other| differs(other));
    let follow = |other: &Arc<Endpoint>| Endpoint {
        limits: new.limits.clone(),
        concurrency: new.concurrency,
        ..other.as_ref().clone()
    };
    differing.map(follow).collect()
}

/// Whether `made`, which is asked for again, says nothing of what it has together with others.
pub(super) fn says_nothing(made: &Endpoint) -> bool {
    let is_shared = made.quota != Quota::of_endpoint(made.id);
    is_shared && made.limits.is_empty() && made.concurrency.is_none()
}

/// The others that spend together with `endpoint`.
fn others<'a>(
    objects: &'a Objects,
    endpoint: &Endpoint,
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let (id, quota) = (endpoint.id, endpoint.quota.clone());
    let is_shared = quota != Quota::of_endpoint(id);
    let all = is_shared.then(|| objects.endpoints.page(&endpoint.tenant, None));
    let of_quota = all.into_iter().flatten().map(|(_, other)| other);
    of_quota.filter(move |other| other.id != id && other.quota == quota)
}
