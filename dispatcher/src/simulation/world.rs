//! A simulated world: a log, endpoints that answer as told, dispatchers that can be stopped,
//! woken, crashed and drained.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use runtime::admin::Readiness;
use runtime::clock::{Clock, Entropy};
use runtime::config::Config;
use runtime::log::simulated::{SimulatedLog, SimulationOptions};
use runtime::log::topics::{Shape, Topics};
use runtime::log::{Headers, Position, Producer, ProducerOptions, Record, SharedLog};
use runtime::secret::{ExposeSecret, Sealer};
use runtime::telemetry::Metrics as Registry;
use schemas::event::{AttributeValue, Event, LOOP};
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlKey, ControlObject, DeliveryRecord, Origin, Target};
use schemas::resources::{
    Endpoint, Placement, Quota, SealedSecret, SecretKind, Subscription, SubscriptionState,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{Net, Wire};
use crate::{Context, Options, Senders, Stopped, consumer_group, dead_letter, run};

pub(crate) use super::wire::{Behaviour, Seen};

pub(crate) const PARTITIONS: u32 = 3;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A dispatcher that runs.
struct Running {
    token: CancellationToken,
    registry: Registry,
    task: JoinHandle<Result<(), Stopped>>,
}

pub(crate) struct World {
    pub(crate) log: SimulatedLog,
    pub(crate) topics: Topics,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    net: Arc<Mutex<Net>>,
    sealer: Arc<Sealer>,
    outside: SharedLog,
    producer: Arc<dyn Producer>,
    running: BTreeMap<String, Running>,
    pub(crate) endpoints: Vec<(Endpoint, SubscriptionId)>,
    pub(super) published: i64,
    pub(crate) retry_schedule_ms: Vec<u64>,
    /// What dispatchers are started with, their names apart.
    pub(crate) config: Config,
    /// How much of `control` the router has applied.
    pub(crate) control_offset: i64,
    /// Events are operational ones about this endpoint.
    pub(crate) about: Option<EndpointId>,
    /// Events have one of so many order keys; with 0, nothing is ordered.
    pub(crate) keys: u64,
    /// Ordered deliveries, by their ids: endpoint, key, and place in the order of all.
    pub(crate) ordered: BTreeMap<String, (EndpointId, u64, i64)>,
}

impl World {
    pub(crate) async fn new(options: SimulationOptions) -> Self {
        let seed = options.seed;
        let log = SimulatedLog::new(options);
        // Setting up is not what is tested.
        log.faults().heal();
        let entropy = Entropy::seeded(seed);
        let topics = Topics::with_prefix("t.");
        let outside = log.process("outside");
        let shape = Shape {
            partitions: PARTITIONS,
            replication: 1,
            retention: Duration::from_secs(1 << 20),
        };
        outside
            .create_topics(&topics.settings(shape))
            .await
            .unwrap();
        let sources = topics.delays.iter().chain([&topics.deliveries]);
        let positions: Vec<Position> = sources
            .flat_map(|topic| (0..PARTITIONS).map(|number| topic.partition(number)))
            .map(|partition| Position {
                partition,
                offset: 0,
                metadata: String::new(),
            })
            .collect();
        outside
            .commit_for_empty_group(&consumer_group(&topics), &positions)
            .await
            .unwrap();
        let producer = outside
            .producer(ProducerOptions::named("outside"))
            .await
            .unwrap();
        let key = Sealer::generate("k", &entropy).unwrap();
        assert!(!key.expose_secret().is_empty());
        Self {
            clock: log.clock(),
            sealer: Arc::new(Sealer::parse(&[key]).unwrap()),
            log,
            topics,
            entropy,
            net: Arc::default(),
            outside,
            producer,
            running: BTreeMap::new(),
            endpoints: Vec::new(),
            published: 0,
            retry_schedule_ms: vec![1_000, 2_000, 4_000, 8_000],
            config: Config::default(),
            control_offset: 0,
            about: None,
            keys: 0,
            ordered: BTreeMap::new(),
        }
    }

    /// Makes an endpoint that behaves so, and a subscription to it; returns its index.
    pub(crate) async fn endpoint(&mut self, behaviour: Behaviour) -> usize {
        let number = self.endpoints.len() as u128 + 1;
        let id = EndpointId::from_bits(number);
        let quota = Quota::of_endpoint(id);
        let placement = Placement::of(&quota, NonZeroU32::new(PARTITIONS).unwrap());
        let sealed = self
            .sealer
            .seal(&id.to_string(), "s1", SECRET.as_bytes(), &self.entropy);
        let name = format!("e{number}");
        self.net
            .lock()
            .unwrap()
            .behaviours
            .insert(name.clone(), behaviour);
        let endpoint = Endpoint {
            url: format!("http://{name}/hook"),
            secrets: vec![SealedSecret {
                id: "s1".to_owned(),
                kind: SecretKind::Symmetric,
                sealed: sealed.unwrap(),
                public_key: None,
                created_at: 0,
                expires_at: None,
            }],
            concurrency: NonZeroU32::new(8),
            retry_schedule_ms: Some(self.retry_schedule_ms.clone()),
            ..Endpoint::new(id, "acme".parse().unwrap(), quota, placement)
        };
        let subscription = Subscription {
            id: SubscriptionId::from_bits(number << 64),
            tenant: endpoint.tenant.clone(),
            endpoint: id,
            placement,
            name: None,
            filters: Default::default(),
            state: SubscriptionState::Active,
            ordered: false,
            start: None,
            transform: None,
            request: None,
            hidden: false,
            created_at: 0,
            updated_at: 0,
        };
        self.control(ControlObject::Endpoint(Box::new(endpoint.clone())))
            .await;
        let subscription_id = subscription.id;
        self.control(ControlObject::Subscription(Box::new(subscription)))
            .await;
        self.endpoints.push((endpoint, subscription_id));
        self.endpoints.len() - 1
    }

    pub(crate) async fn control(&self, object: ControlObject) -> i64 {
        self.control_write(&object.key(), Some(object.encode().into()))
            .await
    }

    pub(crate) async fn control_write(&self, key: &ControlKey, value: Option<Bytes>) -> i64 {
        let record = Record {
            topic: self.topics.control.clone(),
            partition: Some(0),
            key: Some(Bytes::from(key.to_string())),
            value,
            headers: Headers::default(),
        };
        self.write(vec![record]).await
    }

    /// Writes until the log has it, as an outsider that never gives up, and returns the offset of
    /// the last record.
    pub(crate) async fn write(&self, records: Vec<Record>) -> i64 {
        let mut last = 0;
        for record in records {
            loop {
                let reports = self.producer.send(vec![record.clone()]).await.wait().await;
                if let Some(Ok(offset)) = reports.first() {
                    last = *offset;
                    break;
                }
            }
        }
        last
    }

    /// Routes one event to the endpoints of these indices, as a router would; with `repeat`, twice.
    pub(crate) async fn publish(&mut self, endpoints: &[usize], repeat: bool) -> Vec<String> {
        let (ids, records) = self.routed(endpoints);
        for _ in 0..=u8::from(repeat) {
            self.write(records.clone()).await;
        }
        ids
    }

    /// Routes many events to the endpoints of these indices.
    pub(crate) async fn publish_many(&mut self, endpoints: &[usize], events: usize) -> Vec<String> {
        let mut ids = Vec::new();
        let mut records = Vec::new();
        for _ in 0..events {
            let (routed, of) = self.routed(endpoints);
            ids.extend(routed);
            records.extend(of);
        }
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(500));
            let reports = self.producer.send(records).await.wait().await;
            assert!(reports.iter().all(Result::is_ok));
            records = rest;
        }
        ids
    }

    fn event(&self, id: &str) -> Event {
        let event = |ty| {
            let event = Event::builder(id, "/sim", ty);
            event.data("application/json", Bytes::from_static(b"{\"n\":1}"))
        };
        let Some(about) = self.about else {
            return event("sim.happened").build().unwrap();
        };
        let event = event("anabranch.endpoint.disabled").subject(&about.to_string());
        let mut event = event.build().unwrap();
        event
            .set_extension(LOOP, AttributeValue::Integer(1))
            .unwrap();
        event
    }

    pub(crate) fn routed(&mut self, endpoints: &[usize]) -> (Vec<String>, Vec<Record>) {
        self.published += 1;
        let offset = self.published;
        let id = format!("event-{offset}");
        let mut event = self.event(&id);
        event.set_tenant("acme").unwrap();
        let key = (self.keys > 0).then(|| self.entropy.u64() % self.keys);
        let mut ids = Vec::new();
        let mut records = Vec::new();
        for placement in 0..PARTITIONS {
            let targets: Vec<Target> = endpoints
                .iter()
                .map(|index| &self.endpoints[*index])
                .filter(|(endpoint, _)| endpoint.placement.partition() == placement)
                .map(|(endpoint, subscription)| Target {
                    order: key.map(|key| (key, 0)),
                    ..Target::new(*subscription, endpoint.id)
                })
                .collect();
            if targets.is_empty() {
                continue;
            }
            let record = DeliveryRecord {
                origin: Origin {
                    topic: "t.events".into(),
                    partition: 0,
                    offset,
                    index: 0,
                },
                router_position: Some((offset - 5).max(0)),
                accepted_at: self.clock.now(),
                control_offset: self.control_offset,
                event: event.clone(),
                targets,
            };
            for target in &record.targets {
                let id = record.delivery_id(target).to_string();
                if let Some(key) = key {
                    let place = (target.endpoint, key, offset);
                    self.ordered.insert(id.clone(), place);
                }
                ids.push(id);
            }
            records.push(Record {
                topic: self.topics.deliveries.clone(),
                partition: Some(placement),
                key: None,
                value: Some(record.value_for(&record.targets)),
                headers: dead_letter::headers(&record, None),
            });
        }
        (ids, records)
    }

    /// Makes an endpoint in this placement; others are made on the way.
    pub(crate) async fn endpoint_at(&mut self, behaviour: Behaviour, placement: u32) -> usize {
        loop {
            let index = self.endpoint(behaviour.clone()).await;
            if self.endpoints[index].0.placement.partition() == placement {
                return index;
            }
        }
    }

    /// Changes an endpoint on `control`.
    pub(crate) async fn change(&mut self, index: usize, change: impl FnOnce(&mut Endpoint)) -> i64 {
        let endpoint = &mut self.endpoints[index].0;
        endpoint.updated_at += 1;
        change(endpoint);
        let object = ControlObject::Endpoint(Box::new(endpoint.clone()));
        self.control(object).await
    }

    /// What a dispatcher's metric says.
    pub(crate) fn metric(&self, name: &str, metric: &str) -> f64 {
        let text = self.running[name].registry.render();
        let line = text.lines().find(|line| line.starts_with(metric));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.unwrap().parse().unwrap()
    }

    /// How a dispatcher ended, if it has.
    pub(crate) async fn ended_by_itself(&mut self, name: &str) -> Option<Result<(), Stopped>> {
        if !self.running[name].task.is_finished() {
            return None;
        }
        let running = self.running.remove(name)?;
        Some(running.task.await.unwrap())
    }

    /// Starts a dispatcher of this name.
    pub(crate) fn start(&mut self, name: &str) {
        self.start_as(name, name);
    }

    /// Starts a dispatcher as process `name` under an instance name.
    pub(crate) fn start_as(&mut self, name: &str, instance: &str) {
        let mut config = self.config.clone();
        config.general.instance = Some(instance.to_owned());
        let token = CancellationToken::new();
        let registry = Registry::new();
        let context = Context {
            log: self.log.process(name),
            topics: self.topics.clone(),
            options: Options {
                // One thread alone repeats itself.
                senders: Senders::Task,
                ..Options::from_config(&config, &self.topics)
            },
            clock: self.clock.clone(),
            entropy: self.entropy.fork(name),
            sealer: Arc::clone(&self.sealer),
            transport: Arc::new(Wire {
                process: name.to_owned(),
                net: Arc::clone(&self.net),
                entropy: self.entropy.fork("wire"),
            }),
            registry: registry.clone(),
            ready: Readiness::new().gate("dispatcher"),
        };
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        let task = tokio::spawn(run(context, token.clone()));
        self.running.insert(
            name.to_owned(),
            Running {
                token,
                registry,
                task,
            },
        );
    }

    /// Ends a dispatcher as by SIGTERM and waits until it has left.
    pub(crate) async fn drain(&mut self, name: &str) {
        let running = self.running.remove(name).unwrap();
        running.token.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(120), running.task).await;
        ended
            .unwrap_or_else(|_| panic!("{name} does not end"))
            .unwrap()
            .unwrap();
    }

    /// Ends a dispatcher as by SIGKILL.
    pub(crate) fn crash(&mut self, name: &str) {
        let running = self.running.remove(name).unwrap();
        running.task.abort();
        self.log.crash(name);
    }

    /// Waits until `done` holds, looking again as time passes.
    pub(crate) async fn until(&self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// Time stands still for all that is under way: no answer arrives for so long.
    pub(crate) fn stall(&self, length: Duration) {
        self.net.lock().unwrap().stalled_until = Some(Instant::now() + length);
    }

    /// How often each event was taken by endpoints that take several at once, by number.
    pub(crate) fn taken(&self) -> BTreeMap<i64, usize> {
        self.net.lock().unwrap().taken.clone()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.net.lock().unwrap().seen.clone()
    }

    pub(crate) fn delivered(&self, delivery: &str) -> usize {
        let net = self.net.lock().unwrap();
        net.seen
            .iter()
            .filter(|seen| seen.delivery == delivery && seen.status == Some(200))
            .count()
    }

    pub(crate) fn behave(&self, index: usize, behaviour: Behaviour) {
        let host = self.endpoints[index].0.url.clone();
        let host = host
            .trim_start_matches("http://")
            .trim_end_matches("/hook")
            .to_owned();
        self.net.lock().unwrap().behaviours.insert(host, behaviour);
    }

    pub(crate) async fn outside_bounds(&self, partition: &runtime::log::Partition) -> i64 {
        self.outside.bounds(partition).await.unwrap().stable_end
    }
}
