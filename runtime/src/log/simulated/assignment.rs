//! Owns who is to own what: sticky, cooperative, even.
//!
//! It must never give away what somebody still owns; that takes a second round, after the owner
//! has given it up.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Partition, TopicName};

/// What a member has.
#[derive(Debug, Clone, Default)]
pub(super) struct Holding {
    /// What it subscribes to.
    pub(super) topics: BTreeSet<TopicName>,
    /// What it owns.
    pub(super) owned: BTreeSet<Partition>,
    /// The part of it that it was asked to give up.
    pub(super) leaving: BTreeSet<Partition>,
}

/// What changes for a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// It owns these from now on.
    pub(super) given: BTreeSet<Partition>,
    /// It is to give these up.
    pub(super) taken: BTreeSet<Partition>,
}

/// One round: every member's change, the unchanged ones included.
pub(super) fn plan(
    all: &BTreeSet<Partition>,
    holdings: &BTreeMap<u64, Holding>,
) -> BTreeMap<u64, Change> {
    let mut kept: BTreeMap<u64, Vec<Partition>> = BTreeMap::new();
    let mut changes: BTreeMap<u64, Change> = BTreeMap::new();
    for (seat, holding) in holdings {
        let staying = holding.owned.difference(&holding.leaving).cloned();
        // What it does not subscribe to any more goes whatever its share is.
        let wanted = |partition: &Partition| holding.topics.contains(&partition.topic);
        let (stays, goes): (Vec<_>, Vec<_>) = staying.partition(wanted);
        kept.insert(*seat, stays);
        changes.entry(*seat).or_default().taken = goes.into_iter().collect();
    }
    take_back(all.len(), holdings, &mut kept, &mut changes);

    let owned: BTreeSet<&Partition> = holdings.values().flat_map(|it| it.owned.iter()).collect();
    for partition in all.iter().filter(|partition| !owned.contains(partition)) {
        let least = kept
            .iter()
            .filter(|(seat, _)| wants(holdings, **seat, partition))
            .min_by_key(|(_, kept)| kept.len())
            .map(|(seat, _)| *seat);
        let Some(seat) = least else { continue };
        if let (Some(kept), Some(change)) = (kept.get_mut(&seat), changes.get_mut(&seat)) {
            kept.push(partition.clone());
            change.given.insert(partition.clone());
        }
    }
    changes
}

fn wants(holdings: &BTreeMap<u64, Holding>, seat: u64, partition: &Partition) -> bool {
    holdings
        .get(&seat)
        .is_some_and(|holding| holding.topics.contains(&partition.topic))
}

/// Takes what is beyond a fair share of `all` from those who have it, where somebody else may have
/// it and has less.
fn take_back(
    all: usize,
    holdings: &BTreeMap<u64, Holding>,
    kept: &mut BTreeMap<u64, Vec<Partition>>,
    changes: &mut BTreeMap<u64, Change>,
) {
    // Those who have most keep the extra one.
    let mut by_count: Vec<u64> = kept.keys().copied().collect();
    by_count.sort_by_key(|seat| std::cmp::Reverse(kept.get(seat).map_or(0, Vec::len)));
    let members = holdings.len().max(1);
    let (each, extra) = (all / members, all % members);
    let mut loads: BTreeMap<u64, usize> = kept
        .iter()
        .map(|(seat, kept)| (*seat, kept.len()))
        .collect();
    for (rank, seat) in by_count.iter().enumerate() {
        let fair = each + usize::from(rank < extra);
        let Some(own) = kept.get_mut(seat) else {
            continue;
        };
        for place in (0..own.len()).rev() {
            let Some(partition) = own.get(place).filter(|_| own.len() > fair) else {
                continue;
            };
            // Only somebody who has less of it by then may get it.
            let other = loads
                .iter()
                .filter(|(other, _)| *other != seat && wants(holdings, **other, partition))
                .min_by_key(|(_, load)| **load)
                .filter(|(_, load)| **load + 1 < own.len())
                .map(|(other, _)| *other);
            let Some(other) = other else { continue };
            let taken = own.remove(place);
            *loads.entry(other).or_default() += 1;
            *loads.entry(*seat).or_default() -= 1;
            changes.entry(*seat).or_default().taken.insert(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays rounds, each owner giving up at once, until nothing changes.
    fn settle(all: &BTreeSet<Partition>, holdings: &mut BTreeMap<u64, Holding>) -> usize {
        for round in 0..10 {
            let changes = plan(all, holdings);
            if changes.values().all(|change| *change == Change::default()) {
                return round;
            }
            let before: BTreeSet<_> = holdings
                .values()
                .flat_map(|it| it.owned.iter().cloned())
                .collect();
            for (seat, change) in changes {
                assert!(change.given.is_disjoint(&before), "given while owned");
                let holding = holdings.get_mut(&seat).unwrap();
                holding
                    .owned
                    .retain(|partition| !change.taken.contains(partition));
                holding.owned.extend(change.given);
            }
        }
        panic!("never settles");
    }

    proptest! {
        #[test]
        fn rounds_settle_where_members_want_different_topics(
            counts in prop::collection::vec(0_u32..9, 3),
            steps in prop::collection::vec((0_u64..4, prop::collection::btree_set(0_usize..3, 0..4)), 1..12),
        ) {
            let topics: Vec<_> = (0..3).map(|number| TopicName::new(format!("t{number}"))).collect();
            let mut holdings: BTreeMap<u64, Holding> = BTreeMap::new();
            for (seat, wanted) in steps {
                let wanted = wanted.into_iter().map(|number| topics[number].clone()).collect();
                holdings.entry(seat).or_default().topics = wanted;
                let subscribed = |topic: &TopicName| {
                    holdings.values().any(|holding| holding.topics.contains(topic))
                };
                let all: BTreeSet<_> = topics
                    .iter()
                    .zip(&counts)
                    .filter(|(topic, _)| subscribed(topic))
                    .flat_map(|(topic, count)| (0..*count).map(|number| topic.partition(number)))
                    .collect();
                settle(&all, &mut holdings);
                let owned: BTreeSet<_> =
                    holdings.values().flat_map(|it| it.owned.iter().cloned()).collect();
                prop_assert_eq!(owned, all);
                for holding in holdings.values() {
                    let fits = |partition: &Partition| holding.topics.contains(&partition.topic);
                    prop_assert!(holding.owned.iter().all(fits));
                }
            }
        }

        #[test]
        fn rounds_settle_even_and_disjoint_and_move_no_more_than_needed(
            partitions in 0_u32..40,
            steps in prop::collection::vec((any::<bool>(), 0_u64..6), 1..12),
        ) {
            let topic = TopicName::new("t");
            let all: BTreeSet<_> = (0..partitions).map(|number| topic.partition(number)).collect();
            let mut holdings: BTreeMap<u64, Holding> = BTreeMap::new();
            for (joins, seat) in steps {
                if joins {
                    let topics = [topic.clone()].into();
                    holdings.entry(seat).or_insert(Holding { topics, ..Holding::default() });
                } else {
                    holdings.remove(&seat);
                }
                if holdings.is_empty() { continue; }
                prop_assert!(settle(&all, &mut holdings) <= 2);
                let owned: usize = holdings.values().map(|it| it.owned.len()).sum();
                prop_assert_eq!(owned, all.len());
                let counts = holdings.values().map(|it| it.owned.len());
                let spread = counts.clone().max().unwrap() - counts.min().unwrap();
                prop_assert!(spread <= 1);
            }
        }
    }
}
