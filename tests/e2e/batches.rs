//! Several events in one request: each gets its own verdict (rule 15), and none is sent again that
//! was taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use harness::{Behaviour, DEADLINE, Endpoint, Event, Log, Pipeline, answers, event, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both_logs, pipeline_on};

on_both_logs!(each_item_of_a_batch_gets_its_own_verdict);

const EVENTS: usize = 150;
const ITEMS_MAX: usize = 50;
/// A request that holds it is refused as a whole, without a word on why.
const CULPRIT: usize = 77;

/// What an endpoint does with an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Good,
    /// Named as failed the first time, with a code that allows another.
    Busy,
    /// Named as failed, with a code that does not.
    Invalid,
    Culprit,
}

fn item(number: usize) -> Item {
    match number {
        CULPRIT => Item::Culprit,
        _ if number % 10 == 3 => Item::Busy,
        _ if number % 40 == 8 => Item::Invalid,
        _ => Item::Good,
    }
}

/// What the endpoint has seen, by the event's number.
#[derive(Debug, Default)]
struct Partner {
    taken: BTreeMap<usize, u32>,
    failed: BTreeMap<usize, u32>,
    sizes: Vec<usize>,
}

impl Partner {
    /// 422 for a request with the culprit; else 200, with the failed items named by their index or
    /// by their id.
    fn answer(&mut self, body: &[u8]) -> (u16, String) {
        let items: Vec<Value> = serde_json::from_slice(body).expect("a json array");
        self.sizes.push(items.len());
        let numbers: Vec<usize> = items.iter().map(number_of).collect();
        if numbers.contains(&CULPRIT) {
            return (422, "no".to_owned());
        }
        let mut failed = Vec::new();
        for (index, number) in numbers.iter().copied().enumerate() {
            let times = self.failed.entry(number).or_default();
            match item(number) {
                Item::Busy if *times == 0 => {
                    *times += 1;
                    failed.push(json!({ "index": index, "code": "busy" }));
                }
                Item::Invalid => {
                    *times += 1;
                    failed.push(json!({ "id": number.to_string(), "code": "invalid" }));
                }
                Item::Good | Item::Busy | Item::Culprit => {
                    *self.taken.entry(number).or_default() += 1;
                }
            }
        }
        let answer = json!({ "received": numbers.len(), "failed": failed });
        (200, answer.to_string())
    }
}

fn members() -> Value {
    json!({
        "batch": { "max_items": ITEMS_MAX, "max_wait_ms": 500 },
        "grammar": {
            "received": "/received",
            "lists": [{
                "at": "/failed", "index": "/index", "id": "/id", "code": "/code",
                "retryable": ["busy"],
            }],
        },
    })
}

async fn each_item_of_a_batch_gets_its_own_verdict(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let partner = Arc::new(Mutex::new(Partner::default()));
    let endpoint = pipeline.endpoint_with(answering(&partner), members()).await;
    pipeline.subscription(&endpoint, &[]).await;
    let events: Vec<Event> = (0..EVENTS).map(|n| event("com.acme.item", n)).collect();
    pipeline.publish_all(&events).await;
    let wanted = |item_of: fn(Item) -> bool| -> BTreeSet<usize> {
        (0..EVENTS)
            .filter(|number| item_of(item(*number)))
            .collect()
    };
    let good = wanted(|item| matches!(item, Item::Good | Item::Busy));
    let bad = wanted(|item| matches!(item, Item::Invalid | Item::Culprit));
    eventually("every good item taken", DEADLINE, async || {
        let partner = partner.lock().unwrap_or_else(PoisonError::into_inner);
        (partner.taken.len() == good.len()).then_some(())
    })
    .await;
    let dead = eventually("letters of the bad ones", DEADLINE, async || {
        let dead = dead(&pipeline, &endpoint).await;
        (dead.len() >= bad.len()).then_some(dead)
    })
    .await;
    assert_eq!(
        dead, bad,
        "the culprit and what was rejected are dead alone"
    );
    let partner = partner.lock().unwrap_or_else(PoisonError::into_inner);
    let once = |times: &BTreeMap<usize, u32>| times.values().all(|times| *times <= 1);
    assert!(once(&partner.taken), "taken twice: {:?}", partner.taken);
    assert!(once(&partner.failed), "sent again: {:?}", partner.failed);
    let sizes = &partner.sizes;
    assert!(sizes.iter().all(|size| *size <= ITEMS_MAX), "{sizes:?}");
    assert!(sizes.len() < EVENTS / 2, "few went together: {sizes:?}");
    for arrival in endpoint.sink.arrivals() {
        assert!(arrival.is_signed_by(&endpoint.secret), "{arrival:?}");
    }
}

fn answering(partner: &Arc<Mutex<Partner>>) -> Behaviour {
    let partner = Arc::clone(partner);
    answers(move |_, body| {
        let mut partner = partner.lock().unwrap_or_else(PoisonError::into_inner);
        partner.answer(body)
    })
}

/// The numbers of an endpoint's dead letters, all of which were rejected.
async fn dead(pipeline: &Pipeline, endpoint: &Endpoint) -> BTreeSet<usize> {
    let path = pipeline.path(&format!("/dead?limit=100&endpoint={}", endpoint.id));
    let mut found = BTreeSet::new();
    let mut next = String::new();
    loop {
        let page = format!("{path}{next}");
        let page = pipeline.control().call(Method::GET, &page, None).await;
        let page = page.expect(200).json();
        for letter in page["items"].as_array().into_iter().flatten() {
            assert_eq!(letter["reason"], "rejected", "{letter}");
            found.insert(number_of(&letter["event"]));
        }
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => return found,
        }
    }
}

fn number_of(event: &Value) -> usize {
    let id = event["id"].as_str().expect("an event's id");
    id.parse().expect("a number")
}
