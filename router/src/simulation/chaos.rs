//! Routers among crashes, stops, rebalances and unwritable partitions, by seed.
//!
//! `SIM_SEEDS` says how many seeds, `SIM_SEED` repeats one.

use std::time::Duration;

use runtime::clock::Entropy;
use runtime::log::Headers;
use runtime::log::simulated::{Fault, Operation, SimulationOptions};
use schemas::ids::SubscriptionId;
use schemas::resources::SubscriptionState;
use tokio::time::Instant;

use super::auditor::Audit;
use super::{Cluster, PARTITIONS, Publisher, event, event_record};

const STEPS: u32 = 40;
const EVENTS: u64 = 250;
/// Twice the session timeout and more.
const STOPPED_MAX: Duration = Duration::from_secs(25);

pub(super) fn below(entropy: &Entropy, limit: u64) -> u64 {
    entropy.u64() % limit
}

pub(super) fn one_of<T: Copy>(entropy: &Entropy, all: &[T]) -> T {
    all[usize::try_from(below(entropy, all.len() as u64)).unwrap()]
}

pub(super) fn span(entropy: &Entropy, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(from_ms + below(entropy, to_ms - from_ms))
}

pub(super) async fn subscribe(cluster: &mut Cluster) {
    let kinds = [
        "[]",
        r#"[{"exact":{"type":"lead"}}]"#,
        r#"[{"any":[{"exact":{"type":"lead"}},{"exact":{"type":"stock"}}]}]"#,
        r#"[{"prefix":{"type":"st"}},{"not":{"exact":{"id":"7"}}}]"#,
        r#"[{"exact":{"type":"nothing"}}]"#,
    ];
    for id in 0..15_u128 {
        let tenant = if id % 3 == 0 { "other" } else { "acme" };
        let kind = kinds[usize::try_from(id).unwrap() % kinds.len()];
        cluster.subscribe(id, tenant, kind).await;
    }
}

/// Publishes for a minute or so.
async fn publish(publisher: &Publisher, entropy: &Entropy) {
    for id in 0..EVENTS {
        tokio::time::sleep(span(entropy, 0, 500)).await;
        let partition = u32::try_from(below(entropy, u64::from(PARTITIONS))).unwrap();
        let tenant = one_of(entropy, &["acme", "acme", "other", "nobody"]);
        let ty = one_of(entropy, &["lead", "stock", "other"]);
        let data = if below(entropy, 25) == 0 {
            "poison"
        } else {
            "data"
        };
        let mut record = event_record(&publisher.events, partition, &event(tenant, ty, id, data));
        if below(entropy, 40) == 0 {
            record.headers = Headers::default();
        }
        publisher.write(record).await;
    }
}

/// What breaks the routers of a cluster.
struct Breaker {
    entropy: Entropy,
    started: u32,
    /// Who is stopped, and since when.
    stopped: Vec<(String, Instant)>,
}

impl Breaker {
    fn new(entropy: Entropy) -> Self {
        Self {
            entropy,
            started: 0,
            stopped: Vec::new(),
        }
    }

    fn one(&self, cluster: &Cluster) -> Option<String> {
        let names: Vec<_> = cluster.routers.keys().collect();
        let place = below(&self.entropy, names.len().max(1) as u64);
        names
            .get(usize::try_from(place).unwrap())
            .map(|name| (*name).clone())
    }

    fn start(&mut self, cluster: &mut Cluster) {
        self.started += 1;
        cluster.start(&format!("router-{}", self.started));
    }

    fn is_stopped(&self, name: &str) -> bool {
        self.stopped.iter().any(|(stopped, _)| stopped == name)
    }

    /// Wakes who has been stopped for that long.
    fn wake(&mut self, cluster: &Cluster, after: Duration) {
        for (name, _) in self
            .stopped
            .extract_if(.., |(_, since)| since.elapsed() >= after)
        {
            cluster.sim.wake(&name);
        }
    }

    async fn step(&mut self, cluster: &mut Cluster) {
        let entropy = self.entropy.clone();
        let partition = u32::try_from(below(&entropy, u64::from(PARTITIONS))).unwrap();
        let deliveries = cluster.topics.deliveries.partition(partition);
        let faults = cluster.sim.faults();
        let fault = one_of(&entropy, &Fault::ALL);
        let name = self.one(cluster);
        match (below(&entropy, 11), name) {
            (0 | 1, Some(name)) => cluster.crash(&name),
            (2, Some(name)) if !self.is_stopped(&name) => {
                cluster.sim.stop(&name);
                self.stopped.push((name, Instant::now()));
            }
            (3, Some(name)) => faults.expire_session(&name),
            (4, _) => faults.unwritable(&deliveries, Some(span(&entropy, 500, 14_000))),
            (5, _) => faults.slow(&deliveries, span(&entropy, 0, 400)),
            (6, _) => (0..3).for_each(|_| faults.fail_next(Operation::Produce, fault)),
            (7, _) => (0..3).for_each(|_| faults.fail_next(Operation::Commit, fault)),
            (8, Some(name)) if !self.is_stopped(&name) && cluster.routers.len() > 1 => {
                cluster.stop(&name).await;
            }
            (9, _) => {
                let source = cluster.topics.events.partition(partition);
                faults.unreadable(&source, span(&entropy, 100, 4_000));
            }
            (10, _) => toggle(cluster).await,
            (_, _) => self.wake(cluster, Duration::ZERO),
        }
        // Rule 3 bounds the memory of marks: whoever is stopped for longer may repeat.
        self.wake(cluster, STOPPED_MAX);
        if cluster.routers.len() < 2 || (cluster.routers.len() < 4 && below(&entropy, 6) == 0) {
            self.start(cluster);
        }
    }
}

/// Breaks routers of `cluster` while events are published, doing `each` after every step; then all is
/// well again, and one more router there.
pub(super) async fn rampage(
    cluster: &mut Cluster,
    entropy: &Entropy,
    publishing: impl Future<Output = ()>,
    mut each: impl AsyncFnMut(&mut Cluster, u32),
) {
    let mut breaker = Breaker::new(entropy.fork("breaker"));
    breaker.start(cluster);
    breaker.start(cluster);
    let breaking = async {
        for step in 0..STEPS {
            tokio::time::sleep(span(&breaker.entropy, 100, 4_000)).await;
            breaker.step(cluster).await;
            each(cluster, step).await;
        }
    };
    tokio::join!(publishing, breaking);
    cluster.sim.faults().heal();
    breaker.wake(cluster, Duration::ZERO);
    breaker.start(cluster);
}

async fn toggle(cluster: &mut Cluster) {
    let mut subscription = cluster.subscriptions[&SubscriptionId::from_bits(5)].clone();
    subscription.state = match subscription.state {
        SubscriptionState::Active => SubscriptionState::Paused,
        SubscriptionState::Paused => SubscriptionState::Active,
    };
    subscription.updated_at += 1;
    cluster.put(subscription).await;
}

async fn survive(seed: u64) -> usize {
    let mut cluster = Cluster::new(SimulationOptions::rough(seed)).await;
    cluster.commit_first_positions().await;
    subscribe(&mut cluster).await;
    cluster
        .sim
        .faults()
        .refuse_values(&cluster.topics.deliveries, "poison");
    let entropy = Entropy::seeded(seed);
    let publisher = cluster.publisher.clone();
    let publisher_entropy = entropy.fork("publisher");
    let publishing = publish(&publisher, &publisher_entropy);
    rampage(&mut cluster, &entropy, publishing, async |_, _| {}).await;
    cluster.settle().await;
    cluster.stop_all().await;
    let audit = Audit::of(&cluster);
    audit.check(&cluster);
    audit.repeats()
}

/// The seeds to play: those that were asked for, else so many.
pub(super) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(usual),
    }
}

pub(super) fn in_paused_time<T>(play: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play)
}

#[test]
fn routers_lose_nothing_and_repeat_only_what_is_dropped() {
    let seeds = seeds(30);
    let whole = seeds.end - seeds.start > 5;
    let repeats: usize = seeds.map(|seed| in_paused_time(survive(seed))).sum();
    assert!(
        repeats > 0 || !whole,
        "the faults made no router repeat anything"
    );
}
