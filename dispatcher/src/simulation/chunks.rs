//! Chunks of members, with a partner that refuses some of them and some chunks as a whole: what
//! `results` says of each, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use runtime::log::Record;
use runtime::log::simulated::SimulationOptions;
use schemas::event::Event;
use schemas::profile::{CHUNK_TYPE, Profile, ready};
use schemas::records::{
    ControlObject, DeadReason, DeliveryRecord, ItemResult, Origin, ResultRecord, ResultVerdict,
    Target,
};
use schemas::resources::{Subscription, SubscriptionState};
use serde_json::json;

use super::World;
use super::tests::{calm, paused, seeds};
use super::wire::{Wire, status};
use super::world::{Behaviour, PARTITIONS};
use crate::dead_letter;
use crate::delivery::{Answer, TransportError, TransportErrorKind};

const MINUTES: Duration = Duration::from_secs(3_600);
/// A partner refuses these for good, and says so.
const REFUSED: i64 = 7;
/// A partner takes no request with one of these, and does not say why.
const POISON: i64 = 11;

impl Wire {
    /// Takes members; names those that it refuses, takes nothing beside [`POISON`], and fails or
    /// hides its answer now and then.
    pub(super) fn take_members(&self, body: &Bytes) -> Answer {
        let roll = self.entropy.unit();
        if roll < 0.1 {
            return status(503, None);
        }
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let members = body["members"].as_array().unwrap().iter();
        let ids: Vec<i64> = members
            .map(|member| member["id"].as_str().unwrap().parse().unwrap())
            .collect();
        if ids.iter().any(|id| id % POISON == 0) {
            return status(400, None);
        }
        let is_refused = |id: &i64| id % REFUSED == 0;
        for id in ids.iter().filter(|id| !is_refused(id)) {
            *self.net.lock().unwrap().taken.entry(*id).or_default() += 1;
        }
        if roll < 0.15 {
            let hidden = TransportError::new(TransportErrorKind::Reset, "reset");
            return Err(hidden);
        }
        let refused = (0..).zip(&ids).filter(|(_, id)| is_refused(id));
        let failed: Vec<_> = refused
            .map(|(index, _): (u32, _)| json!({"index": index, "code": "invalid"}))
            .collect();
        let mut answer = status(200, None)?;
        answer.body = json!({"received": ids.len(), "failed": failed})
            .to_string()
            .into();
        Ok(answer)
    }
}

/// Who makes chunks, and makes halves of those that were refused as a whole.
struct Syncing {
    endpoint: usize,
    /// The members of each chunk, by its number.
    chunks: Vec<Vec<i64>>,
    reports: BTreeMap<usize, ResultRecord>,
}

impl World {
    async fn syncing(&mut self) -> Syncing {
        let index = self.endpoint(Behaviour::Partner).await;
        let (endpoint, subscription) = &self.endpoints[index];
        let profile = Profile::from_yaml(ready("generic-50").unwrap()).unwrap();
        let subscription = Subscription {
            id: *subscription,
            tenant: endpoint.tenant.clone(),
            endpoint: endpoint.id,
            placement: endpoint.placement,
            name: None,
            filters: Default::default(),
            state: SubscriptionState::Active,
            ordered: false,
            start: None,
            transform: None,
            request: Some(Box::new(profile.operations)),
            hidden: true,
            created_at: 0,
            updated_at: 1,
        };
        let object = ControlObject::Subscription(Box::new(subscription));
        self.control_offset = self.control(object).await + 1;
        Syncing {
            endpoint: index,
            chunks: Vec::new(),
            reports: BTreeMap::new(),
        }
    }

    async fn send_chunk(&mut self, syncing: &mut Syncing, ids: Vec<i64>) {
        let number = syncing.chunks.len();
        let (endpoint, subscription) = &self.endpoints[syncing.endpoint];
        let members: Vec<_> = ids.iter().map(|id| json!({"id": id.to_string()})).collect();
        let data = json!({"operation": "add", "list": "l", "members": members}).to_string();
        let mut event = Event::builder(&format!("chunk-{number}"), "/syncs/s", CHUNK_TYPE)
            .data("application/json", Bytes::from(data))
            .build()
            .unwrap();
        event.set_tenant("acme").unwrap();
        let target = Target {
            report: true,
            bulk: Some(number as u128),
            ..Target::new(*subscription, endpoint.id)
        };
        let record = DeliveryRecord {
            origin: Origin {
                topic: "t.chunks".into(),
                partition: 0,
                offset: i64::try_from(number).unwrap(),
                index: 0,
            },
            router_position: None,
            accepted_at: self.clock.now(),
            control_offset: self.control_offset,
            event,
            targets: vec![target],
        };
        let written = Record {
            topic: self.topics.deliveries.clone(),
            partition: Some(endpoint.placement.partition()),
            key: None,
            value: Some(record.value_for(&record.targets)),
            headers: dead_letter::headers(&record, None),
        };
        self.write(vec![written]).await;
        syncing.chunks.push(ids);
    }

    /// Reads new reports; sends a chunk that was refused as a whole again, in two.
    async fn hear(&mut self, syncing: &mut Syncing) {
        let mut heard = BTreeMap::new();
        for number in 0..PARTITIONS {
            let partition = self.topics.results.partition(number);
            for record in self.log.records(&partition) {
                let report = ResultRecord::decode(record.value.as_deref().unwrap()).unwrap();
                let chunk = usize::try_from(report.bulk).unwrap();
                let again = heard.insert(chunk, report);
                assert_eq!(again, None, "chunk {chunk} was reported twice");
            }
        }
        for (chunk, report) in heard {
            if syncing.reports.contains_key(&chunk) {
                continue;
            }
            if report.verdict == ResultVerdict::Rejected {
                let mut front = syncing.chunks[chunk].clone();
                assert!(front.len() > 1, "one alone is a dead letter");
                let behind = front.split_off(front.len() / 2);
                self.send_chunk(syncing, front).await;
                self.send_chunk(syncing, behind).await;
            }
            syncing.reports.insert(chunk, report);
        }
    }

    async fn hear_all(&mut self, syncing: &mut Syncing) {
        let deadline = tokio::time::Instant::now() + MINUTES;
        while syncing.reports.len() < syncing.chunks.len() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not all are reported"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.hear(syncing).await;
        }
    }
}

/// Every member was taken, or a report says that it was not.
fn audit(world: &World, syncing: &Syncing, members: i64) {
    let taken = world.taken();
    let mut confirmed = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut dead = BTreeSet::new();
    for (chunk, report) in &syncing.reports {
        let ids = &syncing.chunks[*chunk];
        match report.verdict {
            ResultVerdict::Delivered => {
                assert_eq!(report.count, Some(u32::try_from(ids.len()).unwrap()));
                let named: BTreeSet<i64> = report
                    .items
                    .iter()
                    .map(|item| {
                        assert_eq!(item.verdict, ItemResult::Rejected);
                        assert_eq!(item.code.as_deref(), Some("invalid"));
                        ids[usize::try_from(item.index).unwrap()]
                    })
                    .collect();
                confirmed.extend(ids.iter().filter(|id| !named.contains(id)).copied());
                refused.extend(named);
            }
            ResultVerdict::Dead => {
                assert_eq!(report.reason, Some(DeadReason::Rejected));
                dead.extend(ids);
            }
            ResultVerdict::Rejected => {
                assert!(report.items.is_empty());
                assert!(report.words.is_some(), "the partner's own");
            }
        }
    }
    for id in 1..=members {
        let expected = if id % POISON == 0 {
            &dead
        } else if id % REFUSED == 0 {
            &refused
        } else {
            assert!(
                taken.contains_key(&id),
                "{id} was confirmed and is not there"
            );
            &confirmed
        };
        assert!(expected.contains(&id), "{id}");
    }
    assert_eq!(
        confirmed.len() + refused.len() + dead.len(),
        usize::try_from(members).unwrap()
    );
    assert_eq!(
        world.dead().len(),
        dead.len(),
        "a refused chunk of several is no dead letter"
    );
}

#[test]
fn each_member_of_a_chunk_has_its_outcome() {
    // rules 13 and 15
    paused(async {
        let mut world = World::new(calm()).await;
        let mut syncing = world.syncing().await;
        world.start("d1");
        for first in (1..=200).step_by(20) {
            world
                .send_chunk(&mut syncing, (first..first + 20).collect())
                .await;
        }
        world.hear_all(&mut syncing).await;
        audit(&world, &syncing, 200);
    });
}

#[test]
fn chunks_are_reported_once_whatever_fails() {
    seeds(6, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            world.retry_schedule_ms = vec![100, 200, 400, 800, 1_600, 3_200, 6_000, 6_000];
            let mut syncing = world.syncing().await;
            world.start("d0");
            for round in 0..5_i64 {
                for chunk in 0..4 {
                    let first = 1 + (round * 4 + chunk) * 10;
                    world
                        .send_chunk(&mut syncing, (first..first + 10).collect())
                        .await;
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
                world.hear(&mut syncing).await;
                let (old, next) = (format!("d{round}"), format!("d{}", round + 1));
                match world.entropy.unit() < 0.5 {
                    true => world.crash(&old),
                    false => world.drain(&old).await,
                }
                world.start(&next);
            }
            world.hear_all(&mut syncing).await;
            audit(&world, &syncing, 200);
        });
    });
}
