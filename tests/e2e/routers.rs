//! Several routers that are killed, stopped, told to leave and joined by others, on a broker that
//! goes away, while clients and direct producers publish and a subscription keeps changing
//! (rules 2 to 4). Both group protocols at once, on one broker.
//!
//! Each blow once; fifty with `./test --long`. What happens when follows from a seed, which is
//! printed and which `CHAOS_SEED` repeats.

use std::ops::Range;
use std::time::Duration;

use harness::{Broker, Builder, DEADLINE, Direct, Load, Log, Pipeline, event, now_ms, ok};
use runtime::clock::Entropy;

use crate::oracle::{Oracle, event_of};
use crate::pipeline;

const CLIENTS_PER_S: u64 = 80;
const PRODUCERS_PER_S: u32 = 40;
/// Of routers: short, so that the group misses one soon.
const SESSION: Duration = Duration::from_secs(3);

fn rounds() -> usize {
    if harness::long() { 50 } else { 4 }
}

/// What befalls a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// `kill -9`, and a start some time later.
    Kill,
    /// SIGTERM, and a start after its end.
    Leave,
    /// SIGSTOP, and SIGCONT when its session is over.
    Stop,
    /// Another one joins.
    Join,
}

/// A pipeline with one group protocol, and what happens to it.
#[derive(Debug)]
struct Trial {
    pipeline: Pipeline,
    oracle: Oracle,
    clients: Load,
    producers: Direct,
    entropy: Entropy,
    routers: usize,
    blows: Vec<Blow>,
}

impl Trial {
    async fn start(builder: Builder, protocol: &str, seed: u64) -> Self {
        let session = SESSION.as_secs();
        let pipeline = builder
            .routers(2)
            .set(&format!("kafka.group_protocol={protocol}"))
            .set_for("router", &format!("kafka.session_timeout={session}s"))
            .set_for("router", "dispatcher.drain_deadline=2s")
            .set_for("router", "dispatcher.transaction_timeout=3s")
            .start()
            .await;
        if protocol == "consumer" {
            // There the broker says how long a session is.
            let group = router::group(pipeline.prefix());
            harness::set_group_session(pipeline.brokers(), &group, SESSION).await;
        }
        let oracle = Oracle::start(&pipeline).await;
        let clients = pipeline.load_of(CLIENTS_PER_S, |number| event_of("http", number));
        let producers = pipeline.direct_load(PRODUCERS_PER_S, |number| event_of("kafka", number));
        oracle.witness().sink.expect_requests(200).await;
        Self {
            pipeline,
            oracle,
            clients,
            producers,
            entropy: Entropy::seeded(seed),
            routers: 2,
            blows: Vec::new(),
        }
    }

    /// For some time in `range`, milliseconds.
    async fn pause(&self, range: Range<u64>) {
        let ms = range.start + self.entropy.u64() % (range.end - range.start);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn pick(&self, count: usize) -> usize {
        let count = u64::try_from(count).expect("a few");
        usize::try_from(self.entropy.u64() % count).expect("a few")
    }

    /// A blow, and now and then a calm: else the next one falls into what the group is busy with.
    async fn round(&mut self) {
        if self.blows.is_empty() {
            self.blows = vec![Blow::Kill, Blow::Leave, Blow::Stop];
            if self.routers == 2 {
                self.blows.push(Blow::Join);
            }
        }
        let blow = self.blows.remove(self.pick(self.blows.len()));
        self.strike(blow).await;
        if self.pick(2) == 0 {
            self.calm().await;
        }
    }

    /// What a router had written and not committed is routed again after a change.
    async fn strike(&mut self, blow: Blow) {
        let name = format!("router-{}", self.pick(self.routers) + 1);
        eprintln!(
            "{}: {blow:?} {name} of {}",
            now_ms(),
            self.pipeline.prefix()
        );
        match blow {
            Blow::Kill => {
                self.pipeline.process(&name).kill();
                self.change().await;
                self.pause(0..2_000).await;
                self.pipeline.process(&name).restart();
            }
            Blow::Leave => {
                self.pipeline.ready(&name).await;
                self.pipeline.process(&name).signal("TERM");
                self.change().await;
                let ended = self.pipeline.process(&name).exit(DEADLINE).await;
                assert!(ended.success(), "{name} left with {ended}");
                self.pipeline.process(&name).restart();
            }
            Blow::Stop => {
                self.pipeline.process(&name).signal("STOP");
                self.change().await;
                tokio::time::sleep(SESSION).await;
                self.pause(1_000..3_000).await;
                self.pipeline.process(&name).signal("CONT");
            }
            Blow::Join => {
                self.change().await;
                self.pipeline.add("router").await;
                self.routers += 1;
            }
        }
    }

    async fn change(&mut self) {
        self.oracle.change(&mut self.pipeline).await;
    }

    /// Waits until all that clients have published so far has arrived.
    async fn calm(&self) {
        let sent = self.clients.so_far();
        self.oracle.all_arrive(&sent.acknowledged).await;
    }

    /// A router that was killed and a dispatcher that joins find no broker; the dispatcher's name.
    fn start_in_vain(&mut self) -> String {
        self.pipeline.process("router-1").restart();
        self.pipeline.launch_one_more("dispatcher")
    }

    async fn end(mut self) {
        self.change().await;
        self.calm().await;
        self.pipeline.expect_all_alive();
        let (sent, written) = (self.clients.stop(), self.producers.stop());
        self.oracle.judge(&self.pipeline, &sent, &written).await;
        let dead = harness::dead_letters(self.pipeline.brokers(), self.pipeline.prefix());
        assert!(dead.is_empty(), "{dead:?}");
    }
}

fn seed() -> u64 {
    let given = std::env::var("CHAOS_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("CHAOS_SEED is a number"));
    given.unwrap_or_else(|| u64::try_from(now_ms()).expect("a time"))
}

#[tokio::test]
async fn all_is_routed_and_sent_once_whatever_befalls_the_routers() {
    let seed = seed();
    eprintln!("CHAOS_SEED={seed}");
    let mut broker = Broker::own();
    let on = |builder: Builder| builder.on(Log::Brokers(broker.brokers().to_owned()));
    let classic = on(pipeline().heavy());
    let kip_848 = on(pipeline().beside("kip-848"));
    let (one, other) = tokio::join!(
        Trial::start(classic, "classic", seed),
        Trial::start(kip_848, "consumer", seed.wrapping_add(1)),
    );
    let mut trials = [one, other];
    for round in 0..rounds() {
        let [one, other] = &mut trials;
        tokio::join!(one.round(), other.round());
        if round == rounds() / 2 {
            broker = goes_away(broker, &mut trials).await;
        }
    }
    let [one, other] = trials;
    tokio::join!(one.end(), other.end());
    drop(broker);
}

/// The broker stops and starts. What is started in between waits for it.
async fn goes_away(broker: Broker, trials: &mut [Trial; 2]) -> Broker {
    let gone = now_ms();
    eprintln!("{gone}: the broker goes away");
    for trial in trials.iter_mut() {
        trial.pipeline.process("router-1").kill();
    }
    let broker = with(broker, Broker::stop).await;
    let mut joining = Vec::new();
    for trial in trials.iter_mut() {
        joining.push(trial.start_in_vain());
    }
    tokio::time::sleep(SESSION).await;
    for trial in trials.iter_mut() {
        trial.pipeline.expect_all_alive();
    }
    let broker = with(broker, Broker::start).await;
    for (trial, dispatcher) in trials.iter_mut().zip(joining) {
        trial.pipeline.ready("router-1").await;
        trial.pipeline.ready(&dispatcher).await;
        trial.oracle.note_outage(gone, now_ms());
    }
    eprintln!("{}: the broker is back", now_ms());
    broker
}

async fn with(broker: Broker, act: fn(&Broker)) -> Broker {
    let acting = tokio::task::spawn_blocking(move || {
        act(&broker);
        broker
    });
    acting.await.expect("the script")
}

/// Design, "instance name": of two live routers of one name the older one ends, and says what to do.
#[tokio::test]
async fn of_two_routers_of_one_name_the_older_ends_and_says_why() {
    let mut pipeline = pipeline().start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let mut newer = pipeline.launch_namesake("router-1");
    let older = pipeline.process("router-1");
    let ended = older.exit(DEADLINE).await;
    let said = older.output();
    assert!(!ended.success(), "{said}");
    for words in [
        "`router-1`",
        "another live process has this name",
        "`instance` in the configuration",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let event = event("com.acme.a", "afterwards");
    pipeline.publish(&event).await;
    endpoint.expect_delivered(&event).await;
    assert!(newer.ended().is_none(), "{}", newer.output());
}
