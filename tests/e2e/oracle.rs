//! Owns an oracle: which deliveries there are of a stream of events, and whether they are on
//! `deliveries` and reached their endpoints once (rules 2 to 4).
//!
//! It must never ask the pipeline what it did. The surprise: all that matters of an event follows
//! from its number, and one subscription keeps changing, so that of some events only "once at most"
//! is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use harness::{Endpoint, Event, Pipeline, Sent, event, eventually, never, now_ms, ok};
use reqwest::Method;
use schemas::ids::{DeliveryId, SubscriptionId};
use serde_json::{Value, json};

/// Until all is routed again, whatever the groups had been waiting for.
const PATIENCE: Duration = Duration::from_secs(90);
/// What had ended so long before the log went away is committed (rule 13).
const UNCOMMITTED_MS: i64 = 500;

const TYPES: [&str; 3] = [
    "com.acme.lead.created",
    "com.acme.lead.closed",
    "com.acme.paid",
];
const CLASSES: [&str; 4] = ["both", "old", "new", "none"];
const DEPARTMENTS: [&str; 3] = ["roads", "parks", "water"];

/// Event `number` of a stream.
pub(crate) fn event_of(stream: &str, number: u64) -> Event {
    let members = Members::of(number);
    let data = json!({ "department": members.department, "amount": number });
    event(members.ty, format!("{stream}-{number:06}"))
        .attribute("class", members.class)
        .data(data.to_string())
}

#[derive(Clone, Copy, Debug)]
struct Members {
    ty: &'static str,
    class: &'static str,
    department: &'static str,
}

impl Members {
    fn of(number: u64) -> Self {
        let number = usize::try_from(number).expect("some thousands of events");
        Self {
            ty: TYPES[number % 3],
            class: CLASSES[number / 3 % 4],
            department: DEPARTMENTS[number / 12 % 3],
        }
    }

    fn of_id(event: &str) -> Self {
        let number = event.rsplit('-').next().and_then(|it| it.parse().ok());
        Self::of(number.expect("an id ends with its event's number"))
    }
}

/// Whether an event is for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Yes,
    /// In one form of the subscription and not in the other: once at most.
    Maybe,
    No,
}

impl From<bool> for Wanted {
    fn from(wanted: bool) -> Self {
        if wanted { Self::Yes } else { Self::No }
    }
}

type Wants = fn(Members) -> Wanted;

/// By nothing, type, payload and expression; the last one changes.
fn subscriptions() -> [(Value, Wants); 5] {
    let payload = json!([{ "anabranch-data": { "/department": { "in": ["roads", "parks"] } } }]);
    let expression = json!([{ "sql": "type LIKE 'com.acme.lead.%' AND class != 'none'" }]);
    [
        (json!({}), |_| Wanted::Yes),
        (json!({ "types": [TYPES[0]] }), |event| {
            (event.ty == TYPES[0]).into()
        }),
        (json!({ "filters": payload }), |event| {
            (event.department != "water").into()
        }),
        (json!({ "filters": expression }), |event| {
            (event.ty != TYPES[2] && event.class != "none").into()
        }),
        (form(false), |event| match event.class {
            "both" => Wanted::Yes,
            "none" => Wanted::No,
            _ => Wanted::Maybe,
        }),
    ]
}

/// The changing subscription, as it is or as it is the other time.
fn form(new: bool) -> Value {
    let own = if new { "new" } else { "old" };
    let either = ["both", own].map(|class| json!({ "exact": { "class": class } }));
    json!({ "filters": [{ "any": either }], "ordered": new })
}

#[derive(Debug)]
struct Interest {
    id: SubscriptionId,
    endpoint: Endpoint,
    wants: Wants,
}

/// What there may be of deliveries for one subscription: each with its event.
type Expected<'e> = BTreeMap<String, (&'e str, Wanted)>;

/// Subscriptions whose deliveries are known beforehand.
#[derive(Debug)]
pub(crate) struct Oracle {
    interests: Vec<Interest>,
    is_new: bool,
    /// When the log was away.
    outages: Vec<(i64, i64)>,
}

impl Oracle {
    /// Makes the subscriptions, each with an endpoint of its own.
    pub(crate) async fn start(pipeline: &Pipeline) -> Self {
        let mut interests = Vec::new();
        for (mut body, wants) in subscriptions() {
            let endpoint = pipeline.endpoint(ok()).await;
            endpoint.sink.keep_ids_only();
            body["endpoint"] = endpoint.id.as_str().into();
            let path = pipeline.path("/subscriptions?wait=applied");
            let made = pipeline.control().make(&path, &body).await;
            let id = made["id"].as_str().and_then(|id| id.parse().ok());
            let id = id.expect("a subscription's id");
            interests.push(Interest {
                id,
                endpoint,
                wants,
            });
        }
        Self {
            interests,
            is_new: false,
            outages: Vec::new(),
        }
    }

    /// The endpoint that wants everything.
    pub(crate) fn witness(&self) -> &Endpoint {
        &self.interests[0].endpoint
    }

    /// The log was away in this time: what dispatchers had sent shortly before may come again.
    pub(crate) fn note_outage(&mut self, gone: i64, back: i64) {
        self.outages.push((gone, back));
    }

    /// Gives the changing subscription its other form. Nobody waits until it is applied.
    pub(crate) async fn change(&mut self, pipeline: &mut Pipeline) {
        self.is_new = !self.is_new;
        let id = self.interests.last().expect("the changing one").id;
        let path = pipeline.path(&format!("/subscriptions/{id}"));
        let body = form(self.is_new).to_string();
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        eventually("the subscription changed", PATIENCE, async || {
            // It has ended where it lost its leadership while the log was away.
            pipeline.revive("control").await;
            let control = pipeline.control();
            let sent = control.send(Method::PATCH, &path, &headers, body.clone());
            // A change of unknown outcome is made again.
            let answer = sent.await.ok()?;
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// Waits until all deliveries of `events` have arrived.
    pub(crate) async fn all_arrive(&self, events: &[String]) {
        let expected = self.expected(events);
        let start = now_ms();
        let patience = i64::try_from(PATIENCE.as_millis()).expect("a bound");
        loop {
            let mut missing = Vec::new();
            for (expected, arrived) in expected.iter().zip(self.arrivals()) {
                let surely = expected.iter().filter(|(_, (_, it))| *it == Wanted::Yes);
                let late = surely.filter(|(id, _)| !arrived.contains_key(*id));
                missing.extend(late.map(|(_, (event, _))| *event));
            }
            if missing.is_empty() {
                eprintln!("{}: all had arrived {} ms later", start, now_ms() - start);
                return;
            }
            assert!(
                now_ms() - start < patience,
                "{} deliveries are missing, of {:?} to {:?}",
                missing.len(),
                missing.iter().min(),
                missing.iter().max()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Holds what was written and what arrived against what there is to be of all events: `clients`'
    /// and those that were written to the topic.
    pub(crate) async fn judge(&self, pipeline: &Pipeline, clients: &Sent, written: &[String]) {
        let events = [clients.acknowledged.as_slice(), written].concat();
        self.all_arrive(&events).await;
        let expected = self.expected(&events);
        let again: BTreeSet<&str> = clients.sent_again.iter().map(String::as_str).collect();
        let span = Duration::from_secs(1);
        never("an unexpected arrival", span, async || {
            let wrong = self.wrong_arrivals(&expected, &again);
            if let Some(first) = wrong.first() {
                eprintln!("{} wrong arrivals, the first: {first}", wrong.len());
            }
            !wrong.is_empty()
        })
        .await;
        expect_on_deliveries(pipeline, &expected);
    }

    /// The deliveries that there may be of `events`, for each subscription.
    fn expected<'e>(&self, events: &'e [String]) -> Vec<Expected<'e>> {
        let of = |interest: &Interest| {
            let wanted = events.iter().filter_map(|event| {
                let wanted = (interest.wants)(Members::of_id(event));
                let id = DeliveryId::of("/tests", event, interest.id).to_string();
                (wanted != Wanted::No).then_some((id, (event.as_str(), wanted)))
            });
            wanted.collect()
        };
        self.interests.iter().map(of).collect()
    }

    /// When each delivery arrived, for each subscription.
    fn arrivals(&self) -> Vec<HashMap<String, Vec<i64>>> {
        let of = |interest: &Interest| {
            let mut times: HashMap<String, Vec<i64>> = HashMap::new();
            interest.endpoint.sink.look(|all| {
                for arrival in all {
                    times
                        .entry(arrival.id.clone())
                        .or_default()
                        .push(arrival.at);
                }
            });
            times
        };
        self.interests.iter().map(of).collect()
    }

    /// What came that nobody wants, or twice although its event was published once and the log was
    /// there.
    fn wrong_arrivals(&self, expected: &[Expected<'_>], again: &BTreeSet<&str>) -> Vec<String> {
        let was_away = |first: i64| {
            let mut outages = self.outages.iter();
            outages.any(|(gone, back)| first > gone - UNCOMMITTED_MS && first < *back)
        };
        let mut wrong = Vec::new();
        for (expected, arrived) in expected.iter().zip(self.arrivals()) {
            for (id, times) in arrived {
                let Some((event, wanted)) = expected.get(&id) else {
                    wrong.push(format!("{id} at {times:?} is nobody's"));
                    continue;
                };
                if times.len() > 1 && !again.contains(event) && !was_away(times[0]) {
                    wrong.push(format!("{event} ({id}, {wanted:?}) at {times:?}"));
                }
            }
        }
        wrong
    }
}

fn expect_on_deliveries(pipeline: &Pipeline, expected: &[Expected<'_>]) {
    let (mut written, mut targets) = (BTreeSet::new(), 0);
    for record in harness::deliveries(pipeline.brokers(), pipeline.prefix()) {
        let ids = record.targets.iter().map(|it| record.delivery_id(it));
        targets += record.targets.len();
        written.extend(ids.map(|id| id.to_string()));
    }
    let mut unexpected = written.clone();
    for (id, (event, wanted)) in expected.iter().flatten() {
        unexpected.remove(id);
        assert!(
            *wanted == Wanted::Maybe || written.contains(id),
            "{event} ({id}) is not on `deliveries`"
        );
    }
    assert!(unexpected.is_empty(), "on `deliveries`: {unexpected:?}");
    eprintln!(
        "{} deliveries, {} of them repeated by routers",
        written.len(),
        targets - written.len()
    );
}
