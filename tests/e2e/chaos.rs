//! Dispatchers that are killed, stopped and told to leave at random under mixed traffic, and a
//! broker that restarts in between.
//!
//! Three times; a hundred times with `./test --long`. What happens when follows from a seed, which is
//! printed and which `CHAOS_SEED` repeats.

use std::collections::HashMap;
use std::time::Duration;

use harness::{Broker, Load, Log, Pipeline, Sent, eventually, now_ms};
use runtime::clock::Entropy;

use crate::pipeline;
use crate::traffic::{Repeat, Traffic, recorded};

const DISPATCHERS: usize = 3;
const EVENTS_PER_S: u64 = 100;
/// What had ended so long before a death is not repeated (rule 13).
const UNCOMMITTED_MS: i64 = 500;
/// Arrivals are noted by other threads than deaths.
const NOTED_LATE_MS: i64 = 100;
/// Until all partitions have owners again, whatever the group had been waiting for.
const TAKE_OVER: Duration = Duration::from_secs(120);

fn rounds() -> usize {
    if harness::long() { 100 } else { 3 }
}

fn patience() -> Duration {
    Duration::from_secs(if harness::long() { 900 } else { 300 })
}

/// What befalls a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// `kill -9`, and a start some time later.
    Kill,
    /// SIGTERM, and a start some time after its end.
    Leave,
    /// SIGSTOP, and SIGCONT after less than its lease or more than its session.
    Stop,
}

/// Something after which deliveries may come again.
#[derive(Clone, Debug)]
struct Upset {
    /// Whom it befell; none for the broker, and hence everybody.
    name: Option<String>,
    from: i64,
    /// Until when attempts of before may have arrived.
    until: i64,
}

impl Upset {
    /// Whether what ended at this time may come again for it.
    fn covers(&self, ended: i64) -> bool {
        ended > self.from - UNCOMMITTED_MS && ended <= self.until
    }
}

#[derive(Debug)]
struct Chaos {
    pipeline: Pipeline,
    entropy: Entropy,
    upsets: Vec<Upset>,
}

impl Chaos {
    /// Evenly from `range`, milliseconds.
    fn wait(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.entropy.u64() % (range.end - range.start))
    }

    fn pick(&self, count: usize) -> usize {
        let count = u64::try_from(count).expect("a few");
        usize::try_from(self.entropy.u64() % count).expect("a few")
    }

    /// All blows once, in some order.
    fn blows(&self) -> Vec<Blow> {
        let mut left = vec![Blow::Kill, Blow::Leave, Blow::Stop];
        let mut order = Vec::new();
        while !left.is_empty() {
            order.push(left.remove(self.pick(left.len())));
        }
        order
    }

    async fn strike(&mut self, blow: Blow) {
        let name = format!("dispatcher-{}", self.pick(DISPATCHERS) + 1);
        eprintln!("{}: {blow:?} {name}", now_ms());
        match blow {
            Blow::Kill => {
                let from = now_ms();
                self.pipeline.process(&name).kill();
                self.upset(&name, from);
                tokio::time::sleep(self.wait(0..4_000)).await;
                self.pipeline.process(&name).restart();
            }
            Blow::Leave => {
                self.pipeline.ready(&name).await;
                let process = self.pipeline.process(&name);
                process.signal("TERM");
                let ended = process.exit(TAKE_OVER).await;
                assert!(ended.success(), "{name} left with {ended}");
                tokio::time::sleep(self.wait(0..4_000)).await;
                self.pipeline.process(&name).restart();
            }
            Blow::Stop => {
                let from = now_ms();
                self.pipeline.process(&name).signal("STOP");
                self.upset(&name, from);
                let beyond_its_session = self.pick(2) == 0;
                let range = if beyond_its_session {
                    12_000..16_000
                } else {
                    200..4_000
                };
                tokio::time::sleep(self.wait(range)).await;
                self.pipeline.process(&name).signal("CONT");
            }
        }
    }

    fn upset(&mut self, name: &str, from: i64) {
        self.upsets.push(Upset {
            name: Some(name.to_owned()),
            from,
            until: now_ms() + NOTED_LATE_MS,
        });
    }

    /// Waits until every healthy endpoint gets something again. What is wrong by then is said while
    /// the log still has what led to it.
    async fn calm(&self, traffic: &Traffic, load: &Load) {
        let from = now_ms() + NOTED_LATE_MS;
        for endpoint in traffic.healthy() {
            let is_late = |all: &[harness::Arrival]| all.iter().any(|arrival| arrival.at > from);
            eventually("deliveries after all of that", TAKE_OVER, async || {
                endpoint.sink.look(is_late).then_some(())
            })
            .await;
        }
        eprintln!("{}: calm after {} ms", now_ms(), now_ms() - from);
        let mut repeats = traffic.repeats(&load.so_far());
        // A look at the arrivals alone: the attempts' records are read where that does not do.
        repeats.retain(|repeat| !self.upsets.iter().any(|upset| upset.covers(repeat.at)));
        let again = load.so_far().sent_again;
        repeats.retain(|repeat| !again.contains(&repeat.event));
        if !repeats.is_empty() {
            self.expect_repeats_of_upsets(&repeats);
        }
    }

    /// Whoever is starting then waits for it.
    async fn broker_restarts(&mut self, broker: Broker) -> Broker {
        let from = now_ms();
        eprintln!("{from}: the broker restarts");
        let restart = tokio::task::spawn_blocking(move || {
            broker.restart();
            broker
        });
        let broker = restart.await.expect("the restart");
        self.upsets.push(Upset {
            name: None,
            from,
            until: now_ms(),
        });
        broker
    }

    /// Rule 13: what came again was in flight, or had ended shortly before, when its dispatcher
    /// died, was stopped or lost its log.
    fn expect_repeats_of_upsets(&self, repeats: &[Repeat]) {
        let made = recorded(&self.pipeline);
        let mut unexplained = Vec::new();
        let mut oldest = HashMap::new();
        for repeat in repeats {
            let made = made.get(&repeat.id).and_then(|made| {
                let before = made
                    .iter()
                    .filter(|made| made.started <= repeat.at + NOTED_LATE_MS);
                before.max_by_key(|made| made.started)
            });
            // Its answer took a while; without a record it may have been in flight.
            let ended = made.map_or(repeat.at, |made| made.ended.max(repeat.at));
            let explains = |upset: &&Upset| {
                let is_its = match (&upset.name, made) {
                    (Some(name), Some(made)) => *name == made.by,
                    (None, _) | (_, None) => true,
                };
                is_its && ended > upset.from - UNCOMMITTED_MS && repeat.at <= upset.until
            };
            let upset = self.upsets.iter().find(explains);
            let Some(upset) = upset else {
                unexplained.push(repeat);
                continue;
            };
            let before = upset.from - ended;
            let oldest = oldest.entry(format!("{:?}", repeat.kind)).or_insert(before);
            *oldest = before.max(*oldest);
        }
        eprintln!(
            "{} repeated; the oldest of each kind had ended so many ms before: {oldest:?}",
            repeats.len()
        );
        for repeat in unexplained.iter().take(3) {
            eprintln!("{repeat}, and nothing had happened that explains it:");
            let (brokers, prefix) = (self.pipeline.brokers(), self.pipeline.prefix());
            for line in harness::trail(brokers, prefix, &repeat.id) {
                eprintln!("  {line}");
            }
        }
        assert!(
            unexplained.is_empty(),
            "{} came again though nothing had happened: {unexplained:?}; upsets: {:?}",
            unexplained.len(),
            self.upsets
        );
    }
}

fn seed() -> u64 {
    let given = std::env::var("CHAOS_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("CHAOS_SEED is a number"));
    given.unwrap_or_else(|| u64::try_from(now_ms()).expect("a time"))
}

#[tokio::test]
async fn no_rule_breaks_whatever_befalls_the_dispatchers() {
    let seed = seed();
    let entropy = Entropy::seeded(seed);
    // By the seed, so that both see many runs.
    let protocol = if entropy.u64().is_multiple_of(2) {
        "classic"
    } else {
        "consumer"
    };
    eprintln!("CHAOS_SEED={seed}, group protocol {protocol}");
    let mut broker = Broker::own();
    let pipeline = pipeline()
        .on(Log::Brokers(broker.brokers().to_owned()))
        .heavy()
        .dispatchers(DISPATCHERS)
        .set(&format!("kafka.group_protocol={protocol}"))
        .start()
        .await;
    let traffic = Traffic::start(&pipeline).await;
    let load = traffic.load(&pipeline, EVENTS_PER_S);
    for endpoint in traffic.healthy() {
        endpoint.sink.expect_requests(20).await;
    }
    let mut chaos = Chaos {
        pipeline,
        entropy,
        upsets: Vec::new(),
    };
    let mut blows = Vec::new();
    for round in 0..rounds() {
        if blows.is_empty() {
            blows = chaos.blows();
        }
        chaos.strike(blows.remove(0)).await;
        if round == rounds() / 2 {
            broker = chaos.broker_restarts(broker).await;
            // What it has queued is delivered while dispatchers come and go.
            traffic.cure();
        }
        // Else into what the group is still busy with.
        if chaos.pick(2) == 0 {
            chaos.calm(&traffic, &load).await;
        }
        tokio::time::sleep(chaos.wait(0..2_000)).await;
    }
    chaos.calm(&traffic, &load).await;
    let sent = load.stop();
    traffic.all_accepted(&sent, patience()).await;
    expect_the_rules(&chaos, &traffic, &sent).await;
    drop(chaos);
    drop(broker);
}

async fn expect_the_rules(chaos: &Chaos, traffic: &Traffic, sent: &Sent) {
    let repeats = traffic.repeats(sent);
    chaos.expect_repeats_of_upsets(&repeats);
    traffic.expect_limits();
    let spans: Vec<(i64, i64)> = chaos
        .upsets
        .iter()
        .map(|upset| (upset.from, upset.until))
        .collect();
    traffic.expect_holds(&spans);
    traffic.expect_order(sent);
    traffic.expect_one_owner(&chaos.pipeline);
    let dead = chaos.pipeline.metric("anabranch_dead_letters_total").await;
    assert_eq!(dead, 0.0, "dead letters");
    let dead = harness::dead_letters(chaos.pipeline.brokers(), chaos.pipeline.prefix());
    assert!(dead.is_empty(), "{dead:?}");
}
