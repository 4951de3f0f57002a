//! Owns which subscriptions have a start, and what a source partition still owes one.
//!
//! It must never be asked about a subscription without one: those are live wherever routing is. The
//! surprise: of endpoints it knows those that are *not* attempted, since events of the past are not
//! sent into a delay topic, or to the dead, when they can wait where they are.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use runtime::log::Bounds;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject};
use schemas::resources::{EndpointState, StartFrom, Subscription, SubscriptionState};

use super::book::Known;

/// Every subscription with a start, as far as `control` has been applied.
#[derive(Debug, Default)]
pub(in crate::routing) struct Starts {
    all: BTreeMap<SubscriptionId, Arc<Subscription>>,
    /// Endpoints that are paused or disabled.
    waiting: HashSet<EndpointId, foldhash::fast::RandomState>,
    /// How much of `control` that is.
    pub(super) applied: i64,
}

/// What a source partition still owes a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nothing, or nothing now.
    Nothing,
    /// An activation.
    Activation,
    /// Past events of these offsets.
    Past(Range<i64>),
    /// Past events from this offset up to where it meets the live position.
    Meeting(i64),
}

/// What is known of a source partition when a subscription is activated in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The offset behind the last record begun.
    pub(super) next: i64,
    /// Where the log begins and ends, asked for before `start`.
    pub(super) bounds: Bounds,
    /// The first offset at or after [`time_of`] the start; `None` where every record is older.
    pub(super) start: Option<i64>,
}

// === impl Starts ===

impl Starts {
    /// Takes over one object of `control`. Returns the subscription with a start that it changes.
    pub(super) fn apply(
        &mut self,
        key: &ControlKey,
        object: Option<&ControlObject>,
    ) -> Option<SubscriptionId> {
        if let ControlKey::Endpoint(id) = key {
            let waits = matches!(object, Some(ControlObject::Endpoint(endpoint))
                if endpoint.state != EndpointState::Active);
            if waits {
                self.waiting.insert(*id);
            } else {
                self.waiting.remove(id);
            }
        }
        let ControlKey::Subscription(id) = key else {
            return None;
        };
        match object {
            Some(ControlObject::Subscription(subscription)) if subscription.start.is_some() => {
                self.all.insert(*id, Arc::new((**subscription).clone()));
                Some(*id)
            }
            Some(_) | None => self.all.remove(id).map(|_| *id),
        }
    }

    /// Whether no subscription has a start.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A subscription with a start.
    pub(super) fn get(&self, id: SubscriptionId) -> Option<&Arc<Subscription>> {
        self.all.get(&id)
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = SubscriptionId> + '_ {
        self.all.keys().copied()
    }

    /// Whether past events wait until the subscription's endpoint is attempted again.
    pub(super) fn waits(&self, subscription: &Subscription) -> bool {
        self.waiting.contains(&subscription.endpoint)
    }
}

/// What a source partition owes `subscription`, of which so much is on record.
pub(super) fn owed(subscription: &Subscription, known: Option<&Known>) -> Owed {
    let Some(start) = subscription.start else {
        return Owed::Nothing;
    };
    match subscription.state {
        SubscriptionState::Paused => return Owed::Nothing,
        SubscriptionState::Active => {}
    }
    let Some(known) = known else {
        return Owed::Activation;
    };
    match (known.offset, start.replays_from()) {
        (Some(to), Some(_)) if !known.done && known.replayed_to < to => {
            Owed::Past(known.replayed_to..to)
        }
        (Some(_), _) => Owed::Nothing,
        (None, Some(_)) if subscription.ordered => Owed::Meeting(known.replayed_to),
        // It is not ordered any more, or was paused.
        (None, _) => Owed::Activation,
    }
}

/// Whether a source partition owes `subscription` an activation at the latest.
pub(super) fn owes_latest(subscription: &Subscription, known: Option<&Known>) -> bool {
    let from = subscription.start.map(|start| start.from);
    from == Some(StartFrom::Latest) && owed(subscription, known) == Owed::Activation
}

/// The time from which on the records of the log matter for an activation: of `latest` it is that of
/// its making, so that what a partition got before it was first routed is not lost (rule 16).
pub(super) fn time_of(subscription: &Subscription) -> Option<i64> {
    let start = subscription.start?;
    match start.from {
        StartFrom::Latest => Some(subscription.created_at),
        StartFrom::At(_) => start.replays_from(),
    }
}

/// The activation of `subscription`: live from the next record on, with what is to be replayed
/// below that. An ordered one stays without an offset until its replay meets the live position.
pub(super) fn activate(subscription: &Subscription, known: Option<&Known>, at: &Facts) -> Known {
    let live_from = |offset: i64, replayed_to: i64| Known {
        offset: Some(offset),
        done: replayed_to >= offset,
        ..Known::replayed(replayed_to)
    };
    let start = subscription.start;
    let is_latest = start.is_some_and(|start| start.from == StartFrom::Latest);
    if is_latest {
        let end = at.bounds.stable_end;
        let offset = at.next.max(at.start.unwrap_or(end).min(end));
        return live_from(offset, offset);
    }
    if start.and_then(|start| start.replays_from()).is_none() {
        return live_from(at.next, at.next);
    }
    if let Some(known) = known {
        let offset = at.next.max(known.replayed_to);
        return Known {
            log_start: known.log_start,
            ..live_from(offset, known.replayed_to)
        };
    }
    // Where every record is older, what is written from now on is not.
    let from = at.start.unwrap_or(at.bounds.stable_end);
    let may_lack = at.start == Some(at.bounds.start) && at.bounds.start > 0;
    let activation = if from >= at.next {
        live_from(from, from)
    } else if subscription.ordered {
        Known::replayed(from)
    } else {
        live_from(at.next, from)
    };
    Known {
        log_start: may_lack.then_some(at.bounds.start),
        ..activation
    }
}

#[cfg(test)]
mod tests {
    use schemas::resources::StartPosition;

    use super::*;
    use crate::index::tests::subscription;

    const BOUNDS: Bounds = Bounds {
        start: 10,
        stable_end: 100,
    };

    fn started(from: StartFrom) -> Subscription {
        Subscription {
            start: Some(StartPosition::new(from)),
            ..subscription(1, "acme", "[]")
        }
    }

    fn ordered() -> Subscription {
        Subscription {
            ordered: true,
            ..started(StartFrom::At(5))
        }
    }

    fn ended(subscription: &Subscription) -> Subscription {
        Subscription {
            start: subscription.start.map(|start| StartPosition {
                ended: true,
                ..start
            }),
            ..subscription.clone()
        }
    }

    fn known(offset: Option<i64>, replayed_to: i64) -> Known {
        Known {
            offset,
            ..Known::replayed(replayed_to)
        }
    }

    #[test]
    fn what_is_owed_follows_from_what_is_on_record() {
        let check = |subscription: &Subscription, known: Option<Known>, expected: Owed| {
            assert_eq!(owed(subscription, known.as_ref()), expected);
        };
        let (past, latest) = (started(StartFrom::At(5)), started(StartFrom::Latest));
        let paused = Subscription {
            state: SubscriptionState::Paused,
            ..past.clone()
        };
        check(&subscription(1, "acme", "[]"), None, Owed::Nothing);
        check(&latest, None, Owed::Activation);
        check(&latest, Some(known(Some(9), 9)), Owed::Nothing);
        check(&past, None, Owed::Activation);
        check(&paused, None, Owed::Nothing);
        check(&past, Some(known(Some(9), 3)), Owed::Past(3..9));
        check(&past, Some(known(Some(9), 9)), Owed::Nothing);
        check(&paused, Some(known(Some(9), 3)), Owed::Nothing);
        check(&ended(&past), Some(known(Some(9), 3)), Owed::Nothing);
        check(&ordered(), Some(known(None, 3)), Owed::Meeting(3));
        check(&ordered(), Some(known(Some(9), 9)), Owed::Nothing);
        check(&past, Some(known(None, 3)), Owed::Activation);
        check(&ended(&ordered()), Some(known(None, 3)), Owed::Activation);
    }

    #[test]
    fn an_activation_leaves_no_gap_between_past_and_live() {
        let check = |subscription: &Subscription, next, start, expected: (Option<i64>, i64)| {
            let facts = Facts {
                next,
                bounds: BOUNDS,
                start,
            };
            let made = activate(subscription, None, &facts);
            assert_eq!((made.offset, made.replayed_to), expected);
            assert_eq!(made.done, made.offset == Some(made.replayed_to));
        };
        let (past, latest) = (started(StartFrom::At(5)), started(StartFrom::Latest));
        // Nothing that was written before it was made, however far routing is, …
        check(&latest, 60, None, (Some(100), 100));
        // … everything after, and nothing that came while this was asked for is passed over.
        check(&latest, 60, Some(70), (Some(70), 70));
        check(&latest, 60, Some(40), (Some(60), 60));
        check(&latest, 60, Some(103), (Some(100), 100));
        check(&latest, 101, None, (Some(101), 101));
        check(&past, 60, Some(40), (Some(60), 40));
        check(&ordered(), 60, Some(40), (None, 40));
        // The start lies ahead of routing: what is between is left out.
        for subscription in [&past, &ordered()] {
            check(subscription, 60, Some(70), (Some(70), 70));
            check(subscription, 60, None, (Some(100), 100));
            check(subscription, 60, Some(60), (Some(60), 60));
            check(&ended(subscription), 60, Some(40), (Some(60), 60));
        }
    }

    #[test]
    fn latest_counts_from_when_it_was_made_and_a_time_from_itself() {
        let latest = Subscription {
            created_at: 77,
            ..started(StartFrom::Latest)
        };
        let past = started(StartFrom::At(5));
        assert_eq!(time_of(&latest), Some(77));
        assert_eq!(time_of(&past), Some(5));
        assert_eq!(time_of(&ended(&past)), None);
        assert_eq!(time_of(&subscription(1, "acme", "[]")), None);
    }

    #[test]
    fn one_that_is_not_ordered_any_more_is_live_at_once_and_its_replay_goes_on() {
        let facts = Facts {
            next: 60,
            bounds: BOUNDS,
            start: Some(40),
        };
        let was = known(None, 50);
        let made = activate(&started(StartFrom::At(5)), Some(&was), &facts);
        assert_eq!((made.offset, made.replayed_to), (Some(60), 50));
        let made = activate(&ended(&ordered()), Some(&was), &facts);
        assert_eq!((made.offset, made.done), (Some(60), true));
    }

    #[test]
    fn a_range_that_retention_may_have_cut_says_so() {
        let made = |start| {
            let facts = Facts {
                next: 60,
                bounds: BOUNDS,
                start,
            };
            activate(&started(StartFrom::At(5)), None, &facts).log_start
        };
        assert_eq!(made(Some(10)), Some(10));
        assert_eq!(made(Some(11)), None);
        assert_eq!(made(None), None);
    }

    #[test]
    fn control_says_who_starts_and_whose_endpoint_waits() {
        let mut starts = Starts::default();
        let put = |subscription: &Subscription| {
            ControlObject::Subscription(Box::new(subscription.clone()))
        };
        let plain = subscription(1, "acme", "[]");
        let key = ControlKey::Subscription(plain.id);
        assert_eq!(starts.apply(&key, Some(&put(&plain))), None);
        assert!(starts.is_empty());
        let with_start = started(StartFrom::Latest);
        assert_eq!(starts.apply(&key, Some(&put(&with_start))), Some(plain.id));
        assert!(starts.get(plain.id).is_some() && !starts.waits(&with_start));
        let quota = schemas::resources::Quota::of_endpoint(with_start.endpoint);
        let mut endpoint = schemas::resources::Endpoint::new(
            with_start.endpoint,
            with_start.tenant.clone(),
            quota,
            with_start.placement,
        );
        endpoint.state = EndpointState::Disabled;
        let of_endpoint = ControlKey::Endpoint(endpoint.id);
        let disabled = ControlObject::Endpoint(Box::new(endpoint));
        assert_eq!(starts.apply(&of_endpoint, Some(&disabled)), None);
        assert!(starts.waits(&with_start));
        assert_eq!(starts.apply(&of_endpoint, None), None);
        assert!(!starts.waits(&with_start));
        assert_eq!(starts.apply(&key, None), Some(plain.id));
        assert!(starts.is_empty());
    }
}
