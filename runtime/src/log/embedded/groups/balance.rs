//! Owns the decision which member should own which partition: as evenly as can be, with as few
//! moves as that takes.
//!
//! It must never look at anything but its arguments.

use std::collections::{BTreeMap, BTreeSet};

use super::MemberId;
use crate::log::Partition;

/// Who should own each of `wanted` (by those who may), given who owns what now.
pub(super) fn balance(
    wanted: &BTreeMap<Partition, BTreeSet<MemberId>>,
    now: &BTreeMap<Partition, MemberId>,
) -> BTreeMap<Partition, MemberId> {
    let mut target = BTreeMap::new();
    let mut loads: BTreeMap<MemberId, usize> = wanted
        .values()
        .flatten()
        .map(|member| (*member, 0))
        .collect();
    for (partition, may) in wanted {
        if let Some(member) = now.get(partition).filter(|member| may.contains(member)) {
            target.insert(partition.clone(), *member);
            *loads.entry(*member).or_default() += 1;
        }
    }
    for (partition, may) in wanted {
        if target.contains_key(partition) {
            continue;
        }
        if let Some(member) = least(&loads, may) {
            target.insert(partition.clone(), member);
            *loads.entry(member).or_default() += 1;
        }
    }
    while let Some((partition, from, to)) = improvement(wanted, &target, &loads) {
        target.insert(partition, to);
        *loads.entry(from).or_default() -= 1;
        *loads.entry(to).or_default() += 1;
    }
    target
}

fn least(loads: &BTreeMap<MemberId, usize>, may: &BTreeSet<MemberId>) -> Option<MemberId> {
    may.iter()
        .copied()
        .min_by_key(|member| loads.get(member).copied().unwrap_or(0))
}

/// A partition whose move makes two members more equal: the most loaded gives first, its last
/// partition first.
fn improvement(
    wanted: &BTreeMap<Partition, BTreeSet<MemberId>>,
    target: &BTreeMap<Partition, MemberId>,
    loads: &BTreeMap<MemberId, usize>,
) -> Option<(Partition, MemberId, MemberId)> {
    let load = |member: &MemberId| loads.get(member).copied().unwrap_or(0);
    let moves = target.iter().rev().filter_map(|(partition, from)| {
        let to = least(loads, wanted.get(partition)?)?;
        (load(from) >= load(&to) + 2).then(|| (partition.clone(), *from, to))
    });
    moves.max_by_key(|(_, from, _)| load(from))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::TopicName;

    fn everybody(partitions: u32, members: u64) -> BTreeMap<Partition, BTreeSet<MemberId>> {
        let topic = TopicName::new("t");
        let all: BTreeSet<_> = (0..members).map(MemberId).collect();
        (0..partitions)
            .map(|number| (topic.partition(number), all.clone()))
            .collect()
    }

    fn loads(target: &BTreeMap<Partition, MemberId>, members: u64) -> Vec<usize> {
        let owned = |id| {
            target
                .values()
                .filter(|member| **member == MemberId(id))
                .count()
        };
        (0..members).map(owned).collect()
    }

    proptest! {
        #[test]
        fn everything_is_owned_evenly_with_no_needless_move(
            partitions in 0_u32..40,
            before in 1_u64..6,
            after in 1_u64..6,
        ) {
            let first = balance(&everybody(partitions, before), &BTreeMap::new());
            let second = balance(&everybody(partitions, after), &first);
            for (target, members) in [(&first, before), (&second, after)] {
                prop_assert_eq!(target.len(), usize::try_from(partitions).unwrap());
                let loads = loads(target, members);
                let (low, high) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
                prop_assert!(high - low <= 1, "{:?}", loads);
            }
            // What stays with a member that stays is at least its fair share, or all it had.
            let share = usize::try_from(partitions).unwrap() / usize::try_from(after).unwrap();
            for member in (0..before.min(after)).map(MemberId) {
                let had: Vec<_> = first.iter().filter(|(_, owner)| **owner == member).collect();
                let kept = had.iter().filter(|(partition, owner)| second.get(*partition) == Some(owner));
                prop_assert!(kept.count() >= had.len().min(share));
            }
        }
    }

    #[test]
    fn a_partition_goes_to_nobody_who_did_not_subscribe() {
        let (one, two) = (TopicName::new("one"), TopicName::new("two"));
        let wanted = BTreeMap::from([
            (one.partition(0), BTreeSet::from([MemberId(1)])),
            (one.partition(1), BTreeSet::from([MemberId(1)])),
            (two.partition(0), BTreeSet::from([MemberId(1), MemberId(2)])),
        ]);
        let target = balance(&wanted, &BTreeMap::new());
        assert_eq!(
            target.into_values().collect::<Vec<_>>(),
            [MemberId(1), MemberId(1), MemberId(2)]
        );
    }
}
