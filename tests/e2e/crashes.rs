//! Processes that die, stop or lose their broker under load.
//!
//! A few rounds each; twenty with `./test --long`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use harness::{Arrival, Broker, Endpoint, Log, Pipeline, Sent, eventually, now_ms, ok};

use crate::pipeline;

/// Kills.
fn rounds() -> usize {
    if harness::long() { 20 } else { 3 }
}

/// Enough that both dispatchers own some of them.
const ENDPOINTS: usize = 6;
/// The bar for a new owner's first delivery.
const TAKE_OVER_MS: i64 = 15_000;
/// Where two die, the group may wait for one session after the other.
const TWO_SESSIONS_MS: i64 = 40_000;
/// How long after a restart the next one dies: in a rebalance of a second, and in one that waits for
/// a dead member's session to end.
const INTO_A_REBALANCE: [Duration; 10] = [
    Duration::from_millis(700),
    Duration::from_millis(2_500),
    Duration::from_millis(1_100),
    Duration::from_millis(9_000),
    Duration::from_millis(0),
    Duration::from_millis(6_000),
    Duration::from_millis(900),
    Duration::from_millis(400),
    Duration::from_millis(200),
    Duration::from_millis(9_800),
];
/// What may have ended before a kill and is repeated after it.
const UNCOMMITTED_MS: i64 = 500;
const BOTH_WAYS: Duration = Duration::from_secs(90);

#[tokio::test]
async fn routers_die_in_the_classic_group() {
    routers_die("classic").await;
}

#[tokio::test]
async fn routers_die_in_a_group_of_kip_848() {
    routers_die("consumer").await;
}

#[tokio::test]
async fn dispatchers_die_in_the_classic_group() {
    dispatchers_die("classic").await;
}

#[tokio::test]
async fn dispatchers_die_in_a_group_of_kip_848() {
    dispatchers_die("consumer").await;
}

/// Rule 3: routing loses nothing, and what a router repeats is sent once.
async fn routers_die(protocol: &str) {
    let protocol = format!("kafka.group_protocol={protocol}");
    let mut pipeline = pipeline().heavy().routers(2).set(&protocol).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let endpoints = [endpoint];
    let load = pipeline.load("com.acme.load", 300);
    endpoints[0].sink.expect_requests(300).await;
    for round in 0..rounds() {
        let name = format!("router-{}", round % 2 + 1);
        pipeline.process(&name).kill();
        if round % 2 == 1 {
            // At once: what it owned is taken over by the group and by itself.
            pipeline.process(&name).restart();
        }
        let sent = eventually(
            "events acknowledged after the kill",
            BOTH_WAYS,
            async || {
                let before = load.so_far();
                tokio::time::sleep(Duration::from_millis(500)).await;
                let after = load.so_far();
                (after.acknowledged.len() > before.acknowledged.len() + 50).then_some(after)
            },
        )
        .await;
        all_arrive(&endpoints, &sent).await;
        if round % 2 == 0 {
            pipeline.process(&name).restart();
        }
        pipeline.ready(&name).await;
    }
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    let repeated: Vec<String> = repeats(&endpoints[0], &sent).into_keys().collect();
    assert!(
        repeated.is_empty(),
        "sent twice though only routers died: {repeated:?}"
    );
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
}

/// Rules 6 and 13, and the bar for a take-over. Of two dispatchers at rest one dies, and while the
/// group is still busy with that the other one does, or the first a second time.
async fn dispatchers_die(protocol: &str) {
    let protocol = format!("kafka.group_protocol={protocol}");
    let mut pipeline = pipeline()
        .heavy()
        .dispatchers(2)
        .set(&protocol)
        .start()
        .await;
    let endpoints = endpoints(&pipeline).await;
    let load = pipeline.load("com.acme.load", 50);
    for endpoint in &endpoints {
        endpoint.sink.expect_requests(50).await;
    }
    let (mut kills, mut took_ms) = (Vec::new(), Vec::new());
    for round in 0..rounds().div_ceil(2) {
        settled(&pipeline).await;
        let (one, other) = if round % 4 < 2 {
            ("dispatcher-1", "dispatcher-2")
        } else {
            ("dispatcher-2", "dispatcher-1")
        };
        kills.push(kill(&mut pipeline, one));
        let killed = kills[kills.len() - 1].before;
        if round % 2 == 0 {
            // The other takes everything over; when the first is back it gives up half of that.
            took_ms.extend(taken_over(&endpoints, killed, TAKE_OVER_MS).await);
        }
        // Else the first joins again at once, and the group waits for its old session to end.
        pipeline.process(one).restart();
        tokio::time::sleep(INTO_A_REBALANCE[round % INTO_A_REBALANCE.len()]).await;
        let second = if round % 3 == 2 { one } else { other };
        kills.push(kill(&mut pipeline, second));
        let killed = kills[kills.len() - 1].before;
        pipeline.process(second).restart();
        taken_over(&endpoints, killed, TWO_SESSIONS_MS).await;
    }
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    expect_repeats_of_deaths(&pipeline, &endpoints, (&sent, &kills)).await;
    eprintln!("took over in {took_ms:?} ms");
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
}

/// A process's end.
#[derive(Debug)]
struct Kill {
    name: String,
    before: i64,
    after: i64,
}

fn kill(pipeline: &mut Pipeline, name: &str) -> Kill {
    let before = now_ms();
    pipeline.process(name).kill();
    Kill {
        name: name.to_owned(),
        before,
        after: now_ms(),
    }
}

/// How long after a kill each endpoint got its next delivery.
async fn taken_over(endpoints: &[Endpoint], killed: i64, bar_ms: i64) -> Vec<i64> {
    let mut took_ms = Vec::new();
    for endpoint in endpoints {
        let first = eventually("a delivery after the kill", BOTH_WAYS, async || {
            endpoint.sink.look(|all| {
                // Requests that were on their way when it died do not count.
                let after = |arrival: &&Arrival| arrival.at > killed + 200;
                let last = all.iter().rev().take_while(after).last();
                last.map(|arrival| arrival.at)
            })
        })
        .await;
        let took = first - killed;
        assert!(
            took <= bar_ms,
            "first delivery {took} ms after the kill at {killed}"
        );
        took_ms.push(took);
    }
    took_ms
}

/// Waits until both own placements and have their commits acknowledged again.
async fn settled(pipeline: &Pipeline) {
    for name in ["dispatcher-1", "dispatcher-2"] {
        let placements = "anabranch_dispatch_placements";
        eventually("placements of both", BOTH_WAYS, async || {
            (pipeline.process_metric(name, placements).await > 0.0).then_some(())
        })
        .await;
    }
    for name in ["dispatcher-1", "dispatcher-2"] {
        let commits = "anabranch_dispatch_commits_total";
        let before = pipeline.process_metric(name, commits).await;
        eventually("commits acknowledged", BOTH_WAYS, async || {
            (pipeline.process_metric(name, commits).await >= before + 6.0).then_some(())
        })
        .await;
    }
}

/// Rule 13: each repeat follows the death of the process that made the attempt, and what it repeats
/// was in flight or ended shortly before.
async fn expect_repeats_of_deaths(
    pipeline: &Pipeline,
    endpoints: &[Endpoint],
    (sent, kills): (&Sent, &[Kill]),
) {
    let made = recorded(pipeline, sent).await;
    let (mut repeated, mut oldest) = (0, 0);
    for endpoint in endpoints {
        for (id, arrivals) in repeats(endpoint, sent) {
            let mut earlier = 0;
            for arrival in &arrivals[..arrivals.len() - 1] {
                // An attempt without a record was in flight, or its record was.
                let by = made.get(&arrival.id).and_then(|made| {
                    let its = |made: &&(i64, String)| earlier < made.0 && made.0 <= arrival.at + 5;
                    made.iter().find(its).map(|made| &made.1)
                });
                earlier = arrival.at;
                let died = |kill: &&Kill| {
                    // Arrivals are noted by another thread than kills.
                    arrival.at <= kill.after + 50 && by.is_none_or(|by| *by == kill.name)
                };
                let ended = kills.iter().find(died).map(|kill| kill.before - arrival.at);
                assert!(
                    ended.is_some_and(|ended| ended < UNCOMMITTED_MS),
                    "{id} at {} by {by:?} came again, {ended:?} ms from a kill; kills: {kills:?}",
                    arrival.at
                );
                oldest = oldest.max(ended.unwrap_or_default());
                repeated += 1;
            }
        }
    }
    let deliveries = sent.acknowledged.len() * endpoints.len();
    eprintln!(
        "{} kills: {repeated} of {deliveries} deliveries repeated, the oldest of which had arrived \
         {oldest} ms before",
        kills.len()
    );
}

/// When each delivery was attempted, and by whom.
async fn recorded(pipeline: &Pipeline, sent: &Sent) -> HashMap<String, Vec<(i64, String)>> {
    let last = sent.acknowledged.last().expect("events were sent");
    let attempts = eventually("every attempt recorded", BOTH_WAYS, async || {
        let attempts = harness::attempts(pipeline.brokers(), pipeline.prefix());
        let ends = attempts.iter().filter(|attempt| attempt.event_id == *last);
        (ends.count() >= ENDPOINTS).then_some(attempts)
    })
    .await;
    let mut made: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    for attempt in attempts {
        made.entry(attempt.delivery.to_string())
            .or_default()
            .push((attempt.started_at, attempt.instance));
    }
    made
}

async fn endpoints(pipeline: &Pipeline) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for _ in 0..ENDPOINTS {
        endpoints.push(pipeline.subscribed(ok()).await);
    }
    endpoints
}

/// Rule 1: nothing that was acknowledged is missing.
pub(crate) async fn all_arrive(endpoints: &[Endpoint], sent: &Sent) {
    let asked = now_ms();
    for endpoint in endpoints {
        let missing = || {
            let arrived: BTreeSet<String> = endpoint
                .sink
                .look(|all| all.iter().map(|arrival| arrival.event_id.clone()).collect());
            let missing = sent.acknowledged.iter().filter(|id| !arrived.contains(*id));
            missing.cloned().collect::<Vec<String>>()
        };
        let start = now_ms();
        while !missing().is_empty() {
            let patience = i64::try_from(BOTH_WAYS.as_millis()).expect("a bound");
            let missing = missing();
            let total = sent.acknowledged.len();
            assert!(
                now_ms() - start < patience,
                "{} of {total} are missing: {:?} to {:?}",
                missing.len(),
                missing.first(),
                missing.last()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    eprintln!(
        "all had arrived {} ms after they were asked for",
        now_ms() - asked
    );
}

/// What arrived more than once, by the event's id, but for those that were published twice.
pub(crate) fn repeats(endpoint: &Endpoint, sent: &Sent) -> BTreeMap<String, Vec<Arrival>> {
    let again: BTreeSet<&String> = sent.sent_again.iter().collect();
    let mut arrivals: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
    endpoint.sink.look(|all| {
        for arrival in all {
            let event = arrival.event_id.clone();
            arrivals.entry(event).or_default().push(arrival.clone());
        }
    });
    arrivals.retain(|id, arrivals| arrivals.len() > 1 && !again.contains(id));
    arrivals
}

#[tokio::test]
async fn the_broker_restarts_in_mid_load() {
    the_broker_goes_away(Broker::restart).await;
}

#[tokio::test]
async fn the_broker_dies_in_mid_load() {
    the_broker_goes_away(Broker::kill_and_start).await;
}

/// Rules 1, 3 and 13 when the log itself goes away for a while. Dispatchers live on, but where it
/// stays away for longer than a session they lose what they own.
async fn the_broker_goes_away(away: fn(&Broker)) {
    let broker = Broker::own();
    let log = Log::Brokers(broker.brokers().to_owned());
    let pipeline = pipeline()
        .on(log)
        .heavy()
        .routers(2)
        .dispatchers(2)
        .start()
        .await;
    let endpoints = [pipeline.subscribed(ok()).await];
    let load = pipeline.load("com.acme.load", 200);
    endpoints[0].sink.expect_requests(200).await;
    let gone = now_ms();
    let broker = tokio::task::spawn_blocking(move || {
        away(&broker);
        broker
    })
    .await
    .expect("the restart");
    let back = (now_ms(), load.so_far().acknowledged.len());
    eventually(
        "400 events acknowledged after the restart",
        BOTH_WAYS,
        async || (load.so_far().acknowledged.len() > back.1 + 400).then_some(()),
    )
    .await;
    let took = taken_over(&endpoints, back.0, TWO_SESSIONS_MS).await;
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    eprintln!("delivered again {took:?} ms after the restart");
    let repeated = repeats(&endpoints[0], &sent);
    for (id, arrivals) in &repeated {
        let at: Vec<i64> = arrivals.iter().map(|arrival| arrival.at).collect();
        assert!(
            at.len() == 2 && at[0] > gone - UNCOMMITTED_MS && at[0] < back.0,
            "{id} came again though the log had it committed: {at:?}, gone {gone} to {}",
            back.0
        );
    }
    eprintln!("{} repeated", repeated.len());
    assert_eq!(pipeline.metric("anabranch_dead_letters_total").await, 0.0);
    drop(pipeline);
    drop(broker);
}

/// Rule 5: the lease. A dispatcher that was stopped for two sessions starts no attempt of what is no
/// longer its own.
#[tokio::test]
async fn a_stopped_dispatcher_attempts_nothing_that_it_lost() {
    let mut pipeline = pipeline().heavy().dispatchers(2).start().await;
    let endpoints = endpoints(&pipeline).await;
    let load = pipeline.load("com.acme.load", 50);
    for endpoint in &endpoints {
        endpoint.sink.expect_requests(50).await;
    }
    let stopped = now_ms();
    pipeline.process("dispatcher-1").signal("STOP");
    // Twice the session timeout of 10 s.
    eventually("two sessions", BOTH_WAYS, async || {
        (now_ms() > stopped + 20_000).then_some(())
    })
    .await;
    let resumed = now_ms();
    pipeline.process("dispatcher-1").signal("CONT");
    // Until it has attempted again as a rightful owner, or some time has passed.
    eventually("the stopped one takes part again", BOTH_WAYS, async || {
        (pipeline
            .process_metric("dispatcher-1", "anabranch_dispatch_placements")
            .await
            > 0.0
            && now_ms() > resumed + 5_000)
            .then_some(())
    })
    .await;
    let sent = load.stop();
    all_arrive(&endpoints, &sent).await;
    let last = sent.acknowledged.last().expect("events were sent").clone();
    let attempts = eventually("every attempt recorded", BOTH_WAYS, async || {
        let attempts = harness::attempts(pipeline.brokers(), pipeline.prefix());
        let ends = attempts
            .iter()
            .filter(|attempt| attempt.event_id == last)
            .count();
        (ends >= ENDPOINTS).then_some(attempts)
    })
    .await;
    let mut by_delivery: HashMap<_, Vec<_>> = HashMap::new();
    let mut by_endpoint: HashMap<_, Vec<_>> = HashMap::new();
    for attempt in &attempts {
        by_delivery
            .entry(attempt.delivery)
            .or_default()
            .push(attempt);
        by_endpoint
            .entry(attempt.endpoint)
            .or_default()
            .push(attempt);
    }
    for attempts in by_delivery.values_mut() {
        attempts.sort_by_key(|attempt| attempt.started_at);
        let new = attempts
            .iter()
            .position(|attempt| attempt.instance == "dispatcher-2");
        let late = attempts
            .iter()
            .skip(new.unwrap_or(attempts.len()))
            .find(|attempt| attempt.instance == "dispatcher-1" && attempt.started_at > stopped);
        assert!(
            late.is_none(),
            "the old owner attempted what the new one had: {attempts:?}"
        );
    }
    for attempts in by_endpoint.values_mut() {
        attempts.sort_by_key(|attempt| attempt.started_at);
        let later = attempts
            .iter()
            .filter(|attempt| attempt.started_at > stopped);
        let mut owners: Vec<&str> = later.map(|attempt| attempt.instance.as_str()).collect();
        owners.dedup();
        // To the new owner and, when the old one has joined again, maybe back: never to and fro.
        assert!(owners.len() <= 3, "owners in turn: {owners:?}");
    }
}
