//! Deliveries that ask for a report: what `results` says of them, whatever goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use runtime::log::Record;
use runtime::log::simulated::SimulationOptions;
use schemas::event::Event;
use schemas::records::{DeadReason, DeliveryRecord, Origin, ResultRecord, ResultVerdict, Target};

use super::World;
use super::tests::{paused, seeds};
use super::world::{Behaviour, PARTITIONS};
use crate::dead_letter;

const BULK: u128 = 77;
const MINUTES: Duration = Duration::from_secs(3_600);

impl World {
    /// Sends an event to the endpoint of this index, as a redrive would; returns the delivery's id.
    pub(super) async fn redrive(&mut self, index: usize, number: usize) -> String {
        let (endpoint, subscription) = &self.endpoints[index];
        let mut event = Event::builder(&format!("held-{number}"), "/sim", "sim.happened")
            .data("application/json", Bytes::from_static(b"{}"))
            .build()
            .unwrap();
        event.set_tenant("acme").unwrap();
        let target = Target {
            report: true,
            bulk: Some(BULK),
            ..Target::new(*subscription, endpoint.id)
        };
        let record = DeliveryRecord {
            origin: Origin {
                topic: "t.events".into(),
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
        let id = record.delivery_id(&record.targets[0]).to_string();
        let written = Record {
            topic: self.topics.deliveries.clone(),
            partition: Some(endpoint.placement.partition()),
            key: None,
            value: Some(record.value_for(&record.targets)),
            headers: dead_letter::headers(&record, None),
        };
        self.write(vec![written]).await;
        id
    }

    /// Every report, by delivery id.
    pub(super) fn reports(&self) -> BTreeMap<String, Vec<ResultRecord>> {
        let mut reports: BTreeMap<String, Vec<ResultRecord>> = BTreeMap::new();
        for number in 0..PARTITIONS {
            let partition = self.topics.results.partition(number);
            for record in self.log.records(&partition) {
                let report = ResultRecord::decode(record.value.as_deref().unwrap()).unwrap();
                let key = ResultRecord::key(report.bulk);
                assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
                let of = reports.entry(report.delivery.to_string()).or_default();
                of.push(report);
            }
        }
        reports
    }
}

#[test]
fn each_outcome_that_was_asked_for_is_reported_once_whatever_fails() {
    seeds(12, |seed| {
        paused(async {
            let mut world = World::new(SimulationOptions::rough(seed)).await;
            world.retry_schedule_ms = vec![100, 6_000];
            let healthy = world.endpoint(Behaviour::Healthy(1, 50)).await;
            let failing = world.endpoint(Behaviour::Fails(500, None, 1)).await;
            let refusing = world
                .endpoint(Behaviour::Fails(422, None, usize::MAX))
                .await;
            world.start("d1");
            let mut expected = BTreeMap::new();
            for number in 0..60 {
                let index = [healthy, failing, refusing][number % 3];
                let id = world.redrive(index, number).await;
                expected.insert(id, index != refusing);
                if number == 30 {
                    world.crash("d1");
                    world.start("d2");
                }
            }
            // Nobody asked about these.
            let others = world.publish(&[healthy, refusing], false).await;
            let all = |world: &World| {
                expected.keys().all(|id| world.reports().contains_key(id)) && world.ended(&others)
            };
            world.until("all reported", MINUTES, all).await;
            world.drain("d2").await;
            let reports = world.reports();
            assert_eq!(reports.len(), expected.len(), "seed {seed}");
            for (id, delivered) in &expected {
                let of = &reports[id];
                assert_eq!(of.len(), 1, "seed {seed}: {of:?}");
                assert_eq!(of[0].bulk, BULK);
                if *delivered {
                    assert_eq!(of[0].verdict, ResultVerdict::Delivered, "seed {seed}");
                    assert!(world.delivered(id) >= 1, "seed {seed}: {id}");
                } else {
                    assert_eq!(of[0].verdict, ResultVerdict::Dead, "seed {seed}");
                    assert_eq!(of[0].reason, Some(DeadReason::Rejected), "seed {seed}");
                    assert_eq!(world.dead()[id].bulk, Some(BULK), "seed {seed}");
                }
            }
        });
    });
}
