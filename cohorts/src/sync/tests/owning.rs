//! Which process runs which sync.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemas::resources::Quota;

use super::partner::Temper;
use super::rig::{Yard, paused};

const QUOTAS: u128 = 12;
const SYNCS: u128 = 4;

#[test]
fn all_syncs_of_one_quota_run_in_one_process() {
    // rule 5: what is counted for a quota is counted in one place
    paused(async {
        let mut yard = Yard::new(Temper::calm(0)).await;
        let mut by_quota: BTreeMap<u128, Vec<_>> = BTreeMap::new();
        for quota in 0..QUOTAS {
            let name = Quota::from_text(&format!("acme/{quota}"));
            for sync in 0..SYNCS {
                let made = yard.add_sync(100 + quota * SYNCS + sync, &name).await;
                by_quota.entry(quota).or_default().push(made);
            }
        }
        yard.start().await;
        yard.start().await;
        yard.pass(Duration::from_secs(60)).await;
        let mut busy: BTreeSet<usize> = BTreeSet::new();
        for syncs in by_quota.values() {
            let runs: BTreeSet<_> = syncs.iter().map(|sync| yard.who_runs(*sync)).collect();
            assert_eq!(runs.len(), 1, "{runs:?}");
            let owners = runs.first().unwrap();
            assert_eq!(owners.len(), 1, "nobody, or both: {owners:?}");
            busy.extend(owners);
        }
        assert_eq!(busy.len(), 2, "both processes run some");
        // Whoever is left runs all.
        yard.crash();
        yard.pass(Duration::from_secs(60)).await;
        for sync in by_quota.values().flatten() {
            assert!(yard.who_runs(*sync).contains(&0), "{sync}");
        }
    });
}
