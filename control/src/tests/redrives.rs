//! Dead letters that are looked at and sent again; a test's own hands stand for the dispatcher.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use runtime::log::{Headers, ProducerOptions, Record};
use schemas::event::{Event, TENANT};
use schemas::ids::{DeliveryId, EndpointId, Mark, SubscriptionId};
use schemas::records::{
    AttemptState, ControlObject, DEAD_HEADER, DeadLetter, DeadReason, DeliveryRecord, LastAttempt,
    Origin, ResultRecord, ResultVerdict, Target,
};
use schemas::resources::{Disabled, DisabledReason, Endpoint, EndpointState};
use serde_json::{Value, json};

use super::rig::Rig;

const REDRIVES: &str = "/v1/tenants/acme/redrives";

/// A rig with an endpoint, a subscription, and hands that do a dispatcher's work.
struct Yard {
    rig: Rig,
    endpoint: EndpointId,
    subscription: SubscriptionId,
    hands: Hands,
}

#[derive(Default)]
struct Hands {
    read: BTreeMap<u32, usize>,
    marks: BTreeSet<Mark>,
    repeats: usize,
}

async fn write(rig: &Rig, record: Record) {
    let log = rig.sim.process("others");
    let producer = log
        .producer(ProducerOptions::named("others"))
        .await
        .unwrap();
    let written = producer.send(vec![record]).await.wait().await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
}

fn event(number: usize) -> Event {
    Event::builder(&format!("e{number}"), "/test", "com.acme.a")
        .attribute(TENANT, "acme")
        .data("application/json", format!("{{\"n\":{number}}}"))
        .build()
        .unwrap()
}

impl Yard {
    async fn new() -> Self {
        let rig = Rig::start().await;
        rig.acme().await;
        let path = rig.endpoint().await;
        let endpoint = path.rsplit('/').next().unwrap();
        let body = json!({ "endpoint": endpoint });
        let made = rig.operator("POST /v1/tenants/acme/subscriptions", body);
        let subscription = made.await.expect(201).string("/id");
        Self {
            endpoint: endpoint.parse().unwrap(),
            subscription: subscription.parse().unwrap(),
            hands: Hands::default(),
            rig,
        }
    }

    fn delivery(&self, number: usize) -> DeliveryRecord {
        let target = Target {
            state: Some(AttemptState {
                attempts: 3,
                ..AttemptState::default()
            }),
            order: Some((5, 9)),
            ..Target::new(self.subscription, self.endpoint)
        };
        DeliveryRecord {
            origin: Origin {
                topic: "t.events".into(),
                partition: 1,
                offset: i64::try_from(number).unwrap(),
                index: 0,
            },
            router_position: Some(0),
            accepted_at: 0,
            control_offset: 0,
            event: event(number),
            targets: vec![target],
        }
    }

    fn letter(&self, number: usize, reason: DeadReason) -> DeadLetter {
        let delivery = self.delivery(number);
        DeadLetter {
            tenant: Some("acme".parse().unwrap()),
            endpoint: Some(self.endpoint),
            subscription: Some(self.subscription),
            delivery: Some(delivery.delivery_id(&delivery.targets[0])),
            attempts: 3,
            last_attempt: Some(LastAttempt {
                started_at: 1,
                reason: "status".to_owned(),
                status: Some(422),
                error: None,
                response: Some("no".to_owned()),
            }),
            ..DeadLetter::new(reason, self.rig.sim.clock().now(), &delivery.origin)
        }
    }

    async fn put(&self, letter: &DeadLetter, headers: Headers, value: Option<Bytes>) {
        let mut with_letter = Headers::builder();
        with_letter.push(DEAD_HEADER, &letter.to_header());
        for (name, value) in headers.iter() {
            with_letter.push(name, value);
        }
        let key = letter.endpoint.map(|id| Bytes::from(id.to_string()));
        let record = Record {
            topic: self.rig.topics.dead.clone(),
            partition: None,
            key,
            value,
            headers: with_letter.build(),
        };
        write(&self.rig, record).await;
    }

    /// Buries deliveries `from` to `to`.
    async fn bury(&self, numbers: std::ops::Range<usize>, reason: DeadReason) {
        for number in numbers {
            let delivery = self.delivery(number);
            let headers: Headers = delivery.headers().into_iter().collect();
            let value = delivery.value_for(&delivery.targets);
            self.put(&self.letter(number, reason), headers, Some(value))
                .await;
            pass(1).await;
        }
    }

    /// What was written to `deliveries` since the last time, without what a mark tells to be a
    /// repeat.
    fn arrived(&mut self) -> Vec<DeliveryRecord> {
        let mut fresh = Vec::new();
        for number in 0..6 {
            let partition = self.rig.topics.deliveries.partition(number);
            let records = self.rig.sim.records(&partition);
            let read = self.hands.read.entry(number).or_default();
            for record in &records[*read..] {
                let value = record.value.as_ref().unwrap();
                let delivery = DeliveryRecord::decode(record.headers.iter(), value).unwrap();
                if self.hands.marks.insert(delivery.marks().next().unwrap()) {
                    fresh.push(delivery);
                } else {
                    self.hands.repeats += 1;
                }
            }
            *read = records.len();
        }
        fresh
    }

    async fn report(&self, delivery: &DeliveryRecord, verdict: ResultVerdict) {
        let target = &delivery.targets[0];
        let report = ResultRecord {
            version: 1,
            bulk: target.bulk.unwrap(),
            delivery: delivery.delivery_id(target),
            endpoint: target.endpoint,
            subscription: target.subscription,
            verdict,
            reason: None,
            words: None,
            at: self.rig.sim.clock().now(),
            dropped: false,
            count: None,
            items: Vec::new(),
            captured: std::collections::BTreeMap::new(),
        };
        let record = Record {
            topic: self.rig.topics.results.clone(),
            partition: None,
            key: Some(Bytes::from(ResultRecord::key(report.bulk))),
            value: Some(Bytes::from(report.encode())),
            headers: Headers::default(),
        };
        write(&self.rig, record).await;
    }

    async fn redrive(&self, body: Value) -> String {
        let made = self.rig.operator(&format!("POST {REDRIVES}"), body).await;
        made.expect(201).string("/id")
    }

    async fn state(&self, id: &str) -> Value {
        let call = format!("GET {REDRIVES}/{id}");
        let read = self.rig.operator(&call, Value::Null).await.expect(200);
        read.json()
    }

    /// Delivers whatever arrives until the redrive is over.
    async fn deliver(&mut self, id: &str) -> (Vec<DeliveryId>, Value) {
        let mut delivered = Vec::new();
        for _ in 0..2_000 {
            for delivery in self.arrived() {
                self.report(&delivery, ResultVerdict::Delivered).await;
                delivered.push(delivery.delivery_id(&delivery.targets[0]));
            }
            let state = self.state(id).await;
            if state["state"] != "running" {
                return (delivered, state);
            }
            pass(50).await;
        }
        panic!("redrive does not end: {}", self.state(id).await);
    }

    /// What arrives until nothing more does.
    async fn rest(&mut self) -> Vec<DeliveryRecord> {
        let mut all = Vec::new();
        for _ in 0..20 {
            pass(200).await;
            all.extend(self.arrived());
        }
        all
    }
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

fn distinct(ids: &[DeliveryId]) -> usize {
    ids.iter().collect::<BTreeSet<_>>().len()
}

#[tokio::test(start_paused = true)]
async fn letters_are_listed_by_filter_and_page_and_shown_with_their_payload() {
    let yard = Yard::new().await;
    yard.bury(0..3, DeadReason::Rejected).await;
    pass(60_000).await;
    yard.bury(3..5, DeadReason::MaxAge).await;
    let list = async |query: &str| {
        let call = format!("GET /v1/tenants/acme/dead?{query}");
        let page = yard.rig.operator(&call, Value::Null).await;
        page.expect(200).json()
    };
    let count = async |query: &str| list(query).await["items"].as_array().unwrap().len();
    assert_eq!(count("").await, 5);
    assert_eq!(count("reason=max_age").await, 2);
    assert_eq!(count("reason=max_age,rejected").await, 5);
    assert_eq!(count(&format!("endpoint={}", yard.endpoint)).await, 5);
    assert_eq!(count("endpoint=ep_00000000000000000000000001").await, 0);
    let last = list("").await["items"][4]["at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(count(&format!("since={last}")).await, 1);
    assert_eq!(count(&format!("until={last}&reason=max_age")).await, 1);
    // Page by page everything comes once, the oldest first.
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = list(&format!("limit=2{cursor}")).await;
        for item in page["items"].as_array().unwrap() {
            seen.push(item["event"]["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["e0", "e1", "e2", "e3", "e4"]);
    let first = list("limit=1").await["items"][0].clone();
    assert_eq!(first["reason"], "rejected");
    assert_eq!(first["last_attempt"]["status"], 422);
    assert!(first["content"].is_null());
    let id = first["id"].as_str().unwrap();
    let call = format!("GET /v1/tenants/acme/dead/{id}");
    let shown = yard.rig.operator(&call, Value::Null).await.expect(200);
    assert_eq!(shown.string("/content/text"), "{\"n\":0}");
    for query in ["reason=x", "since=x", "endpoint=x", "cursor=x", "limit=0"] {
        let call = format!("GET /v1/tenants/acme/dead?{query}");
        yard.rig.operator(&call, Value::Null).await.expect(400);
    }
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn poison_is_the_operators_to_see_and_shown_as_it_is() {
    let yard = Yard::new().await;
    let origin = yard.delivery(0).origin;
    let letter = DeadLetter {
        detail: Some("record version 9 is not known".to_owned()),
        ..DeadLetter::new(DeadReason::Undecodable, 5, &origin)
    };
    let bytes = Bytes::from_static(&[9, 0xff, 0x1b, b'[']);
    yard.put(&letter, Headers::default(), Some(bytes)).await;
    let all = yard.rig.operator("GET /v1/dead", Value::Null).await;
    let all = all.expect(200);
    assert_eq!(all.string("/items/0/reason"), "undecodable");
    assert_eq!(all.string("/items/0/holds"), "bytes");
    let id = all.string("/items/0/id");
    let shown = yard
        .rig
        .operator(&format!("GET /v1/dead/{id}"), Value::Null)
        .await
        .expect(200);
    assert_eq!(shown.string("/content/base64"), "Cf8bWw==");
    let of_the_tenant = format!("GET /v1/tenants/acme/dead/{id}");
    yard.rig
        .operator(&of_the_tenant, Value::Null)
        .await
        .expect(404);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoints_owner_sees_and_redrives_its_letters_alone() {
    let yard = Yard::new().await;
    yard.bury(0..2, DeadReason::Rejected).await;
    let other = yard.rig.endpoint().await;
    let key = async |endpoint: &str| {
        let body = json!({ "endpoint": endpoint });
        let made = yard.rig.operator("POST /v1/tenants/acme/keys", body);
        made.await.expect(201).string("/key")
    };
    let own = key(&yard.endpoint.to_string()).await;
    let others = key(other.rsplit('/').next().unwrap()).await;
    let list = "GET /v1/tenants/acme/dead";
    let seen = yard.rig.call(&own, list, Value::Null).await.expect(200);
    assert_eq!(seen.json()["items"].as_array().unwrap().len(), 2);
    let id = seen.string("/items/0/id");
    let seen = yard.rig.call(&others, list, Value::Null).await.expect(200);
    assert_eq!(seen.json()["items"], json!([]));
    let show = format!("{list}/{id}");
    yard.rig.call(&own, &show, Value::Null).await.expect(200);
    yard.rig.call(&others, &show, Value::Null).await.expect(404);
    let post = format!("POST {REDRIVES}");
    let body = json!({ "endpoint": yard.endpoint });
    yard.rig.call(&others, &post, body).await.expect(403);
    let made = yard.rig.call(&own, &post, Value::Null).await.expect(201);
    assert_eq!(made.string("/endpoint"), yard.endpoint.to_string());
    let read = format!("GET {REDRIVES}/{}", made.string("/id"));
    yard.rig.call(&own, &read, Value::Null).await.expect(200);
    yard.rig.call(&others, &read, Value::Null).await.expect(404);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_sends_each_letter_once_and_never_beyond_its_credit() {
    let mut yard = Yard::new().await;
    yard.bury(0..450, DeadReason::Rejected).await;
    yard.bury(450..460, DeadReason::MaxAge).await;
    let body = json!({ "endpoint": yard.endpoint, "reasons": ["rejected"] });
    let id = yard.redrive(body).await;
    // Nothing is reported: 200 are on their way, and no more.
    let first = yard.rest().await;
    assert_eq!(first.len(), 200);
    let state = yard.state(&id).await;
    assert_eq!(state["counts"]["unreported"], 200);
    let sent = &first[0];
    assert_eq!(sent.event, event(0));
    assert_eq!(sent.origin, yard.delivery(0).origin);
    let target = &sent.targets[0];
    assert!(target.report && target.state.is_none(), "it begins anew");
    assert_eq!(target.order, None, "its place has gone by");
    assert!(sent.accepted_at > 0, "its age begins anew");
    // As many as are reported follow.
    for delivery in &first[..30] {
        yard.report(delivery, ResultVerdict::Delivered).await;
    }
    let more = yard.rest().await;
    assert_eq!(more.len(), 30);
    for delivery in first[30..].iter().chain(&more) {
        yard.report(delivery, ResultVerdict::Dead).await;
    }
    let (delivered, state) = yard.deliver(&id).await;
    assert_eq!((delivered.len(), distinct(&delivered)), (220, 220));
    assert_eq!(state["state"], "done");
    let counts = json!({
        "matched": 450, "sent": 450, "delivered": 250, "dead": 200,
        "unknown": 0, "unreported": 0, "settled": 0, "skipped": 0,
    });
    assert_eq!(state["counts"], counts);
    // The same letters once more: those that were delivered stay where they are.
    let again = yard.redrive(json!({ "endpoint": yard.endpoint })).await;
    let (delivered, state) = yard.deliver(&again).await;
    assert_eq!((delivered.len(), distinct(&delivered)), (210, 210));
    assert_eq!(state["counts"]["settled"], 250);
    assert_eq!(yard.hands.repeats, 0);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_goes_on_after_a_kill_and_sends_nothing_twice() {
    let mut yard = Yard::new().await;
    yard.bury(0..600, DeadReason::Rejected).await;
    let id = yard.redrive(json!({})).await;
    let mut delivered = Vec::new();
    for (round, instance) in ["b", "c", "d"].into_iter().enumerate() {
        // Killed at some moment of its work, with some of the reports written and not counted.
        pass(40 + 130 * round as u64).await;
        let arrived = yard.arrived();
        for delivery in arrived.iter().skip(round * 7) {
            yard.report(delivery, ResultVerdict::Delivered).await;
        }
        delivered.extend(arrived);
        yard.rig = yard.rig.killed(instance).await;
        for delivery in delivered.iter().take(round * 7) {
            yard.report(delivery, ResultVerdict::Delivered).await;
        }
    }
    let ids = |all: &[DeliveryRecord]| -> Vec<DeliveryId> {
        let id = |delivery: &DeliveryRecord| delivery.delivery_id(&delivery.targets[0]);
        all.iter().map(id).collect()
    };
    // What was on its way at the last kill is reported now.
    for delivery in &delivered {
        yard.report(delivery, ResultVerdict::Delivered).await;
    }
    let (rest, state) = yard.deliver(&id).await;
    let all = [ids(&delivered), rest].concat();
    assert_eq!((all.len(), distinct(&all)), (600, 600));
    assert_eq!(state["state"], "done");
    assert_eq!(state["counts"]["matched"], 600);
    assert_eq!(state["counts"]["unknown"], 0);
    // It is over: a later process finds nothing to do.
    yard.rig = yard.rig.killed("e").await;
    assert!(yard.rest().await.is_empty());
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_refers_to_its_origin_is_read_there() {
    let mut yard = Yard::new().await;
    for number in 0..2 {
        let event = event(number);
        let (headers, value) = schemas::codec::kafka::encode_binary(&event);
        let record = Record {
            topic: yard.rig.topics.events.clone(),
            partition: Some(1),
            key: None,
            value,
            headers: headers.into_iter().collect(),
        };
        write(&yard.rig, record).await;
    }
    for number in 0..3 {
        // The last one's origin is not there any more.
        let letter = yard.letter(number, DeadReason::TooLarge);
        yard.put(&letter, Headers::default(), None).await;
    }
    let id = yard.redrive(json!({})).await;
    let (delivered, state) = yard.deliver(&id).await;
    assert_eq!(delivered.len(), 2);
    assert_eq!(state["counts"]["skipped"], 1);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_heard_of_within_its_age_is_unknown_and_given_back() {
    let mut yard = Yard::new().await;
    let path = format!("PATCH /v1/tenants/acme/endpoints/{}", yard.endpoint);
    let age = json!({ "max_age_ms": 60_000 });
    yard.rig.operator(&path, age).await.expect(200);
    yard.bury(0..210, DeadReason::Rejected).await;
    let id = yard.redrive(json!({})).await;
    assert_eq!(yard.rest().await.len(), 200);
    pass(3_600_000 + 60_000).await;
    let (delivered, state) = yard.deliver(&id).await;
    assert_eq!(delivered.len(), 10);
    assert_eq!(state["counts"]["unknown"], 200);
    assert_eq!(state["counts"]["delivered"], 10);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn redrives_are_repeated_refused_ended_and_wait_for_each_other() {
    let mut yard = Yard::new().await;
    yard.bury(0..300, DeadReason::Rejected).await;
    let letters = json!({ "letters": ["dl_0_x"], "reasons": ["x"], "since": 5, "y": 1 });
    let post = format!("POST {REDRIVES}");
    let refused = yard.rig.operator(&post, letters).await.expect(422);
    let pointers: BTreeSet<_> = refused.pointers().into_iter().collect();
    let expected = ["/letters/0", "/reasons/0", "/since", "/y"];
    assert_eq!(pointers, expected.map(str::to_owned).into());
    let nowhere = json!({ "endpoint": "ep_00000000000000000000000001" });
    yard.rig.operator(&post, nowhere).await.expect(422);
    // Another of the same letters begins when the first is over.
    let first = yard.redrive(json!({})).await;
    let second = yard.redrive(json!({ "endpoint": yard.endpoint })).await;
    assert_eq!(yard.rest().await.len(), 200);
    let cancel = format!("POST {REDRIVES}/{first}/cancel");
    for _ in 0..2 {
        let ended = yard.rig.operator(&cancel, Value::Null).await.expect(200);
        assert_eq!(ended.string("/state"), "cancelled");
    }
    let (delivered, state) = yard.deliver(&second).await;
    assert_eq!(state["state"], "done");
    assert_eq!(
        delivered.len(),
        300,
        "what the first had on its way is not known to be delivered"
    );
    assert_eq!(yard.state(&first).await["counts"]["sent"], 200);
    let list = format!("GET {REDRIVES}");
    let listed = yard.rig.operator(&list, Value::Null).await.expect(200);
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2);
    // One letter by its id, with a repeat of the request.
    yard.bury(300..302, DeadReason::Rejected).await;
    let page = yard
        .rig
        .operator(
            "GET /v1/tenants/acme/dead?limit=100&reason=rejected",
            Value::Null,
        )
        .await;
    let one = page.json()["items"][0]["id"].clone();
    let body = json!({ "letters": [one] });
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let request = super::rig::request(super::rig::OPERATOR, &post);
        let request = request.header("idempotency-key", "k");
        let request = request.body(axum::body::Body::from(body.to_string()));
        ids.insert(yard.rig.send(request.unwrap()).await.string("/id"));
    }
    assert_eq!(ids.len(), 1);
    let id = ids.pop_first().unwrap();
    let (delivered, state) = yard.deliver(&id).await;
    assert_eq!(
        (delivered.len(), &state["counts"]["matched"]),
        (0, &json!(1))
    );
    assert_eq!(state["counts"]["settled"], 1);
    yard.rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn enabling_an_endpoint_again_sends_what_was_held_for_it() {
    let mut yard = Yard::new().await;
    yard.bury(0..1, DeadReason::EndpointDisabled).await;
    pass(60_000).await;
    let at = yard.rig.sim.clock().now();
    // As the pipeline disables it.
    let stored: ControlObject = yard
        .rig
        .sim
        .records(&yard.rig.topics.control.partition(0))
        .iter()
        .filter_map(|record| ControlObject::decode(record.value.as_deref()?).ok())
        .find(|object| matches!(object, ControlObject::Endpoint(_)))
        .unwrap();
    let ControlObject::Endpoint(stored) = stored else {
        unreachable!("an endpoint was looked for");
    };
    let disabled = Endpoint {
        state: EndpointState::Disabled,
        disabled: Some(Disabled {
            reason: DisabledReason::Gone,
            at,
        }),
        ..*stored
    };
    let object = ControlObject::Endpoint(Box::new(disabled));
    let record = Record {
        topic: yard.rig.topics.control.clone(),
        partition: Some(0),
        key: Some(Bytes::from(object.key().to_string())),
        value: Some(Bytes::from(object.encode())),
        headers: Headers::default(),
    };
    write(&yard.rig, record).await;
    pass(1_000).await;
    yard.bury(1..3, DeadReason::EndpointGone).await;
    yard.bury(3..4, DeadReason::Rejected).await;
    let post = format!("POST {REDRIVES}");
    let body = json!({ "endpoint": yard.endpoint });
    yard.rig.operator(&post, body).await.expect(409);
    let resume = format!("POST /v1/tenants/acme/endpoints/{}/resume", yard.endpoint);
    yard.rig.operator(&resume, Value::Null).await.expect(200);
    let list = format!("GET {REDRIVES}");
    let listed = yard.rig.operator(&list, Value::Null).await.expect(200);
    let (delivered, state) = yard.deliver(&listed.string("/items/0/id")).await;
    assert_eq!(delivered.len(), 2, "what died since, for that reason");
    assert_eq!(
        state["reasons"],
        json!(["endpoint_disabled", "endpoint_gone"])
    );
    yard.rig.stop().await;
}
