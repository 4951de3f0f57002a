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
    let staying = |holding: &Holding| -> Vec<Partition> {
        holding
            .owned
            .difference(&holding.leaving)
            .cloned()
            .collect()
    };
    let mut kept: BTreeMap<u64, Vec<Partition>> = holdings
        .iter()
        .map(|(seat, holding)| (*seat, staying(holding)))
        .collect();
    let mut changes: BTreeMap<u64, Change> = holdings
        .keys()
        .map(|seat| (*seat, Change::default()))
        .collect();

    // Those who have most keep the extra one.
    let mut by_count: Vec<u64> = kept.keys().copied().collect();
    by_count.sort_by_key(|seat| std::cmp::Reverse(kept.get(seat).map_or(0, Vec::len)));
    let members = holdings.len().max(1);
    let (each, extra) = (all.len() / members, all.len() % members);
    for (rank, seat) in by_count.iter().enumerate() {
        let fair = each + usize::from(rank < extra);
        if let (Some(kept), Some(change)) = (kept.get_mut(seat), changes.get_mut(seat)) {
            let above = kept.split_off(fair.min(kept.len()));
            change.taken.extend(above);
        }
    }

    let owned: BTreeSet<&Partition> = holdings.values().flat_map(|it| it.owned.iter()).collect();
    for partition in all.iter().filter(|partition| !owned.contains(partition)) {
        let wants = |seat: &u64| {
            holdings
                .get(seat)
                .is_some_and(|holding| holding.topics.contains(&partition.topic))
        };
        let least = kept
            .iter()
            .filter(|(seat, _)| wants(seat))
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
