//! Owns mixed traffic: one endpoint of each kind that dispatchers meet, events for each of them, and
//! what must hold of what arrives, whatever happens to the dispatchers.
//!
//! It must never know what happened to them; it is told when something did. The surprise: an event's
//! id says which endpoint it is for and, for the ordered one, its key and its place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use harness::{
    Arrival, Behaviour, Endpoint, Event, Load, Pipeline, Sent, answers, event, hangs, now_ms, ok,
    throttles_every,
};
use serde_json::{Value, json};

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Healthy,
    /// Each fifth request is answered with 500.
    Failing,
    /// Allows so many a second and a minute.
    Limited,
    /// Takes requests and never answers, until it is cured.
    Hanging,
    /// Each twentieth request is answered with 429 and Retry-After.
    Throttling,
    /// Takes several events in one request.
    Batched,
    /// Takes each key's events in order, though each seventh request is answered with 500.
    Ordered,
}

/// Which endpoint each of a round of events is for: half of them for healthy ones, because these say
/// within milliseconds what happened.
const ROUND: [usize; 12] = [0, 1, 2, 3, 4, 5, 0, 1, 2, 6, 7, 8];
const KINDS: [Kind; 9] = [
    Kind::Healthy,
    Kind::Healthy,
    Kind::Healthy,
    Kind::Failing,
    Kind::Limited,
    Kind::Hanging,
    Kind::Throttling,
    Kind::Batched,
    Kind::Ordered,
];
const KEYS: u64 = 10;
const A_SECOND: usize = 20;
const A_MINUTE: usize = 600;
const RETRY_AFTER_S: u64 = 2;
/// How much later than it was started an attempt may be seen at its endpoint, more than another.
const SLACK_MS: i64 = 250;
/// Until when a new owner must know of a hold that its predecessor was told of.
const HOLD_SAVED_MS: i64 = 1_000;
/// Two requests of an owner, so short after one another that nobody else can have owned the
/// endpoint in between: that takes two rebalances.
const AT_ONCE_MS: i64 = 300;

/// The endpoints.
#[derive(Debug)]
pub(crate) struct Traffic {
    endpoints: Vec<Endpoint>,
}

/// An accepted delivery that came again.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    pub(crate) kind: Kind,
    pub(crate) event: String,
    /// The `webhook-id` that it was accepted under.
    pub(crate) id: String,
    /// When it had been accepted.
    pub(crate) at: i64,
    again: i64,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            event,
            id,
            at,
            again,
        } = self;
        write!(
            f,
            "{event} ({kind:?}, {id}), accepted at {at}, came again at {again}"
        )
    }
}

impl Traffic {
    /// Makes the endpoints.
    pub(crate) async fn start(pipeline: &Pipeline) -> Self {
        let mut endpoints = Vec::new();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let endpoint = pipeline.endpoint_with(behaviour(kind), members(kind)).await;
            if kind != Kind::Hanging {
                endpoint.sink.keep_ids_only();
            }
            let ordered = kind == Kind::Ordered;
            let body =
                json!({ "endpoint": endpoint.id, "types": [ty(number)], "ordered": ordered });
            let path = pipeline.path("/subscriptions?wait=applied");
            pipeline.control().make(&path, &body).await;
            endpoints.push(endpoint);
        }
        Self { endpoints }
    }

    /// Events for all of them.
    pub(crate) fn load(&self, pipeline: &Pipeline, per_second: u64) -> Load {
        pipeline.load_of(per_second, event_of)
    }

    /// The endpoints that answer at once.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = &Endpoint> {
        let pairs = self.endpoints.iter().zip(KINDS);
        pairs.filter_map(|(endpoint, kind)| (kind == Kind::Healthy).then_some(endpoint))
    }

    fn of(&self, kind: Kind) -> &Endpoint {
        let found = KINDS.iter().position(|known| *known == kind);
        &self.endpoints[found.expect("one of each kind")]
    }

    /// From now on the hanging one answers.
    pub(crate) fn cure(&self) {
        self.of(Kind::Hanging).sink.behave(ok());
    }

    /// Waits until each event that was acknowledged is accepted (rule 1).
    pub(crate) async fn all_accepted(&self, sent: &Sent, patience: Duration) {
        let start = now_ms();
        let patience = i64::try_from(patience.as_millis()).expect("a bound");
        loop {
            let missing = self.missing(sent);
            if missing.is_empty() {
                break;
            }
            assert!(
                now_ms() - start < patience,
                "{} of {} are missing: {:?}",
                missing.len(),
                sent.acknowledged.len(),
                missing.iter().take(20).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        eprintln!("all were accepted {} ms after the last", now_ms() - start);
    }

    fn missing<'s>(&self, sent: &'s Sent) -> Vec<&'s str> {
        let mut accepted: Vec<BTreeSet<String>> = Vec::new();
        for endpoint in &self.endpoints {
            let taken = arrivals_of(endpoint).into_iter().filter(is_accepted);
            accepted.push(taken.flat_map(|arrival| arrival.event_ids).collect());
        }
        let ids = sent.acknowledged.iter().map(String::as_str);
        ids.filter(|id| !accepted[endpoint_of(id)].contains(*id))
            .collect()
    }

    /// What came again though it had been accepted, but for what was published twice.
    pub(crate) fn repeats(&self, sent: &Sent) -> Vec<Repeat> {
        let twice: BTreeSet<&String> = sent.sent_again.iter().collect();
        let mut repeats = Vec::new();
        for (endpoint, kind) in self.endpoints.iter().zip(KINDS) {
            let mut accepted: HashMap<String, (String, i64)> = HashMap::new();
            for arrival in arrivals_of(endpoint) {
                for event in &arrival.event_ids {
                    if let Some((id, at)) = accepted.get(event)
                        && !twice.contains(event)
                    {
                        repeats.push(Repeat {
                            kind,
                            event: event.clone(),
                            id: id.clone(),
                            at: *at,
                            again: arrival.at,
                        });
                    }
                    if is_accepted(&arrival) {
                        accepted.insert(event.clone(), (arrival.id.clone(), arrival.at));
                    }
                }
            }
        }
        repeats
    }

    /// Rule 5: no window has more attempts than its limit.
    pub(crate) fn expect_limits(&self) {
        let mut starts: Vec<i64> = self
            .of(Kind::Limited)
            .sink
            .look(|all| all.iter().map(|arrival| arrival.at).collect());
        starts.sort_unstable();
        for (limit, ms) in [(A_SECOND, 1_000), (A_MINUTE, 60_000)] {
            let most = starts
                .windows(limit + 1)
                .map(|window| window[limit] - window[0])
                .min();
            assert!(
                most.is_none_or(|span| span >= ms - SLACK_MS),
                "{} attempts within {most:?} ms, of which {ms} allow {limit}",
                limit + 1
            );
        }
    }

    /// Rule 11: nothing arrives between an answer with Retry-After and its end, whoever owns the
    /// endpoint then; unless that owner could not say so before something happened to it, at
    /// `upsets`.
    pub(crate) fn expect_holds(&self, upsets: &[(i64, i64)]) {
        let arrivals = arrivals_of(self.of(Kind::Throttling));
        let hold_ms = i64::try_from(RETRY_AFTER_S * 1_000).expect("seconds");
        let mut held = 0;
        for pair in arrivals.windows(2) {
            let [told, next] = pair else { continue };
            let is_lost = upsets
                .iter()
                .any(|(from, to)| told.at + HOLD_SAVED_MS >= *from && told.at <= *to + SLACK_MS);
            if told.status == 429 && !is_lost {
                assert!(
                    next.at >= told.at + hold_ms,
                    "told at {} to wait {hold_ms} ms, came at {}; upsets: {upsets:?}",
                    told.at,
                    next.at
                );
                held += 1;
            }
        }
        assert!(held > 0, "nothing was held");
    }

    /// Rule 12: of each key, each event is accepted for the first time after the one before it.
    pub(crate) fn expect_order(&self, sent: &Sent) {
        let mut twice: BTreeSet<u64> = BTreeSet::new();
        for id in &sent.sent_again {
            if KINDS[endpoint_of(id)] == Kind::Ordered {
                twice.insert(key_and_place(id).0);
            }
        }
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for arrival in arrivals_of(self.of(Kind::Ordered)) {
            let (key, place) = key_and_place(&arrival.event_id);
            let next = next.entry(key).or_default();
            assert!(
                place <= *next || twice.contains(&key) || !is_accepted(&arrival),
                "{place} of key {key} overtook {next} at {}",
                arrival.at
            );
            if is_accepted(&arrival) {
                *next = (*next).max(place + 1);
            }
        }
    }

    /// Rule 5: while one process attempts an endpoint, no other does. A process that was stopped for
    /// longer than its lease attempts nothing of what is another's by then.
    pub(crate) fn expect_one_owner(&self, pipeline: &Pipeline) {
        let mut by_endpoint: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for attempt in harness::attempts(pipeline.brokers(), pipeline.prefix()) {
            let made = (attempt.started_at, attempt.instance);
            let endpoint = attempt.endpoint.to_string();
            by_endpoint.entry(endpoint).or_default().push(made);
        }
        assert!(by_endpoint.len() >= KINDS.len(), "attempts are recorded");
        for (endpoint, mut made) in by_endpoint {
            made.sort();
            made.dedup();
            let mut last: HashMap<&str, i64> = HashMap::new();
            let mut owner = made[0].1.as_str();
            for (at, by) in &made {
                if by != owner {
                    let before = last.get(by.as_str()).copied().unwrap_or(i64::MIN);
                    assert!(
                        before < *at - AT_ONCE_MS,
                        "{endpoint} at {at}: {owner} attempted it within {AT_ONCE_MS} ms of {by}"
                    );
                    owner = by;
                }
                last.insert(by, *at);
            }
        }
    }
}

/// An attempt that a dispatcher recorded.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) started: i64,
    pub(crate) ended: i64,
    pub(crate) by: String,
}

/// The attempts of each delivery, as far as they are recorded.
pub(crate) fn recorded(pipeline: &Pipeline) -> HashMap<String, Vec<Made>> {
    let mut made: HashMap<String, Vec<Made>> = HashMap::new();
    for attempt in harness::attempts(pipeline.brokers(), pipeline.prefix()) {
        let took_ms = i64::try_from(attempt.duration_us / 1_000).expect("a short time");
        made.entry(attempt.delivery.to_string())
            .or_default()
            .push(Made {
                started: attempt.started_at,
                ended: attempt.started_at + took_ms,
                by: attempt.instance,
            });
    }
    made
}

fn is_accepted(arrival: &Arrival) -> bool {
    arrival.status == 200
}

/// What an endpoint got, in the order in which it did.
fn arrivals_of(endpoint: &Endpoint) -> Vec<Arrival> {
    let mut arrivals = endpoint.sink.arrivals();
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

fn behaviour(kind: Kind) -> Behaviour {
    match kind {
        Kind::Healthy | Kind::Limited | Kind::Batched => ok(),
        Kind::Failing => fails_every(5),
        Kind::Hanging => hangs(),
        Kind::Throttling => throttles_every(20, RETRY_AFTER_S),
        Kind::Ordered => fails_every(7),
    }
}

fn fails_every(nth: usize) -> Behaviour {
    answers(move |before, _| {
        let is_failed = (before + 1).is_multiple_of(nth);
        (if is_failed { 500 } else { 200 }, String::new())
    })
}

fn members(kind: Kind) -> Value {
    match kind {
        Kind::Healthy | Kind::Failing | Kind::Ordered => json!({}),
        Kind::Limited => json!({ "limits": [
            { "count": A_SECOND, "per_ms": 1_000, "kind": "sliding" },
            { "count": A_MINUTE, "per_ms": 60_000, "kind": "sliding" },
        ] }),
        // Time goes on while its circuit is open: the schedule outlasts the run.
        Kind::Hanging => json!({
            "timeout_ms": 2_000,
            "retry_schedule_ms": vec![if harness::long() { 60_000 } else { 15_000 }; 50],
        }),
        Kind::Throttling => json!({ "concurrency": 1 }),
        Kind::Batched => json!({ "batch": { "max_items": 10, "max_wait_ms": 300 } }),
    }
}

fn ty(endpoint: usize) -> String {
    format!("com.acme.mixed.{endpoint}")
}

/// Event `number`: `endpoint-number` or, for the ordered one, `endpoint-place-key`.
fn event_of(number: u64) -> Event {
    let round = u64::try_from(ROUND.len()).expect("a short round");
    let endpoint = ROUND[usize::try_from(number % round).expect("within the round")];
    if KINDS[endpoint] != Kind::Ordered {
        return event(&ty(endpoint), format!("{endpoint}-{number}"));
    }
    let of_this = number / round;
    let (key, place) = (of_this % KEYS, of_this / KEYS);
    let id = format!("{endpoint}-{place}-{key}");
    event(&ty(endpoint), id).attribute("partitionkey", &format!("key-{key}"))
}

fn endpoint_of(id: &str) -> usize {
    let number = id.split('-').next().and_then(|number| number.parse().ok());
    number.expect("an id begins with its endpoint")
}

fn key_and_place(id: &str) -> (u64, u64) {
    let mut parts = id.split('-').skip(1).map(|part| part.parse().expect("ids"));
    let place = parts.next().expect("a place");
    (parts.next().expect("a key"), place)
}
