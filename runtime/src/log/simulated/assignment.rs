//! Owns who is to own what: sticky, cooperative, even.
//!
//! It must never give away what somebody still owns; that takes a second round, after the owner
//! has given it up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
///
/// The loads it aims at are the most even ones there are (an optimal semi-matching, so that the
/// sum of their squares is least), and what is free is dealt out as evenly as can be before
/// anything is taken. Were either only nearly so, a round could undo the one before it for ever.
pub(super) fn plan(
    all: &BTreeSet<Partition>,
    holdings: &BTreeMap<u64, Holding>,
) -> BTreeMap<u64, Change> {
    let mut deal = Deal::default();
    for (seat, holding) in holdings {
        // What it does not subscribe to any more goes whatever its share is.
        let stays = |it: &&Partition| holding.topics.contains(&it.topic) && all.contains(*it);
        let staying = holding.owned.difference(&holding.leaving).filter(stays);
        deal.placed.insert(*seat, staying.cloned().collect());
    }
    let kept: BTreeSet<Partition> = deal.placed.values().flatten().cloned().collect();
    let free: BTreeSet<Partition> = all.difference(&kept).cloned().collect();
    for partition in &free {
        deal.place(holdings, partition);
    }
    deal.even_out(holdings, &free);
    deal.even_out(holdings, all);

    let owned: BTreeSet<&Partition> = holdings.values().flat_map(|it| it.owned.iter()).collect();
    let change = |(seat, holding): (&u64, &Holding)| {
        let placed = deal.placed.get(seat).cloned().unwrap_or_default();
        let given = placed.iter().filter(|it| !owned.contains(it)).cloned();
        let taken = holding.owned.difference(&placed).cloned();
        let change = Change {
            given: given.collect(),
            taken: taken.filter(|it| !holding.leaving.contains(it)).collect(),
        };
        (*seat, change)
    };
    holdings.iter().map(change).collect()
}

/// Where each partition is to be, whoever owns it now.
#[derive(Default)]
struct Deal {
    placed: BTreeMap<u64, BTreeSet<Partition>>,
}

impl Deal {
    fn load(&self, seat: u64) -> usize {
        self.placed.get(&seat).map_or(0, BTreeSet::len)
    }

    /// Gives `partition` to whoever may have it and has least.
    fn place(&mut self, holdings: &BTreeMap<u64, Holding>, partition: &Partition) {
        let wanting = holdings
            .iter()
            .filter(|(_, holding)| holding.topics.contains(&partition.topic));
        let least = wanting.map(|(seat, _)| *seat);
        let least = least.min_by_key(|seat| self.load(*seat));
        if let Some(seat) = least {
            self.move_to(partition, None, seat);
        }
    }

    /// Moves what is in `movable` along chains of members until no chain evens the loads further.
    fn even_out(&mut self, holdings: &BTreeMap<u64, Holding>, movable: &BTreeSet<Partition>) {
        while let Some(chain) = self.chain(holdings, movable) {
            for (partition, from, to) in chain {
                self.move_to(&partition, Some(from), to);
            }
        }
    }

    /// The shortest chain of moves from a member to one that has at least two fewer.
    fn chain(
        &self,
        holdings: &BTreeMap<u64, Holding>,
        movable: &BTreeSet<Partition>,
    ) -> Option<Vec<(Partition, u64, u64)>> {
        let mut fullest: Vec<u64> = self.placed.keys().copied().collect();
        fullest.sort_by_key(|seat| std::cmp::Reverse(self.load(*seat)));
        fullest.into_iter().find_map(|start| {
            let mut reached_by: BTreeMap<u64, (Partition, u64)> = BTreeMap::new();
            let mut queue = VecDeque::from([start]);
            while let Some(from) = queue.pop_front() {
                if self.load(from) + 1 < self.load(start) {
                    return Some(moves(&reached_by, start, from));
                }
                for (to, holding) in holdings {
                    if *to == start || reached_by.contains_key(to) {
                        continue;
                    }
                    let fits = |it: &&Partition| {
                        movable.contains(*it) && holding.topics.contains(&it.topic)
                    };
                    let own = self.placed.get(&from).into_iter().flatten();
                    if let Some(partition) = own.rev().find(fits) {
                        reached_by.insert(*to, (partition.clone(), from));
                        queue.push_back(*to);
                    }
                }
            }
            None
        })
    }

    fn move_to(&mut self, partition: &Partition, from: Option<u64>, to: u64) {
        if let Some(own) = from.and_then(|from| self.placed.get_mut(&from)) {
            own.remove(partition);
        }
        self.placed.entry(to).or_default().insert(partition.clone());
    }
}

/// The moves that lead from `start` to `end`.
fn moves(
    reached_by: &BTreeMap<u64, (Partition, u64)>,
    start: u64,
    end: u64,
) -> Vec<(Partition, u64, u64)> {
    let mut chain = Vec::new();
    let mut to = end;
    while to != start
        && let Some((partition, from)) = reached_by.get(&to)
    {
        chain.push((partition.clone(), *from, to));
        to = *from;
    }
    chain
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
        #![proptest_config(ProptestConfig::with_cases(2_000))]

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
                prop_assert!(settle(&all, &mut holdings) <= 2);
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
