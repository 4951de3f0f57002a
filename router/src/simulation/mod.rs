//! Whole routers on the simulated log: what must hold whatever fails (rules 2, 3 and 16).

mod auditor;
mod chaos;
mod fairness;
mod scenarios;
mod sources;
mod starts;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::admin::Readiness;
use runtime::clock::{Clock, Entropy};
use runtime::log::simulated::{SimulatedLog, SimulationOptions, TraceOnPanic};
use runtime::log::topics::{Shape, Topics};
use runtime::log::{Partition, Position, Producer, ProducerOptions, Record, SharedLog, TopicName};
use runtime::task::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use schemas::codec;
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::{ControlObject, Installation};
use schemas::resources::{Placement, Quota, Subscription, SubscriptionState};
use tokio::task::AbortHandle;

use crate::{Context, Options, Window, group};

const PREFIX: &str = "t.";
const PARTITIONS: u32 = 4;
/// The simulated time that anything may take to settle.
const PATIENCE: Duration = Duration::from_secs(600);

struct Running {
    tasks: Tasks,
    abort: AbortHandle,
    metrics: Metrics,
}

/// Who writes to the log from outside.
#[derive(Clone)]
struct Publisher {
    events: TopicName,
    producer: Arc<dyn Producer>,
}

impl Publisher {
    /// Writes until it is written: what is published may be there twice, as a client's repeat is.
    async fn write(&self, record: Record) -> i64 {
        loop {
            let acks = self.producer.send(vec![record.clone()]).await;
            if let Some(Ok(offset)) = acks.wait().await.pop() {
                return offset;
            }
        }
    }
}

/// A simulated log with routers, and who publishes and subscribes.
struct Cluster {
    sim: SimulatedLog,
    topics: Topics,
    clock: Clock,
    outside: SharedLog,
    publisher: Publisher,
    routers: BTreeMap<String, Running>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    options: Options,
    _trace: TraceOnPanic,
}

impl Cluster {
    async fn new(options: SimulationOptions) -> Self {
        let sim = SimulatedLog::new(SimulationOptions {
            trace_lines: 1_000_000,
            ..options
        });
        let topics = Topics::with_prefix(PREFIX);
        let outside = sim.process("outside");
        let shape = Shape {
            partitions: PARTITIONS,
            replication: 0,
            retention: Duration::from_secs(14 * 24 * 3600),
        };
        while outside
            .create_topics(&topics.settings(shape))
            .await
            .is_err()
        {}
        let producer = outside
            .producer(ProducerOptions::named("outside"))
            .await
            .unwrap();
        let publisher = Publisher {
            events: topics.events.clone(),
            producer,
        };
        let mut options = Options::named("", PREFIX, &topics);
        // The auditor knows sources by their numbers: one topic, where a scenario has no other.
        options.sources = vec![topics.events.clone()];
        options.window = Window {
            targets: 60,
            bytes: 64 << 10,
            age: Duration::from_secs(10),
        };
        let trace = sim.trace_on_panic();
        let clock = sim.clock();
        let cluster = Self {
            sim,
            topics,
            clock,
            outside,
            publisher,
            routers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            options,
            _trace: trace,
        };
        let installation = Installation {
            partitions: PARTITIONS,
        };
        cluster
            .control(&ControlObject::Installation(installation))
            .await;
        cluster
    }

    /// As `topics create` does.
    async fn commit_first_positions(&self) {
        let first = |partition| Position {
            partition,
            offset: 0,
            metadata: String::new(),
        };
        let positions: Vec<_> = self.sources().into_iter().map(first).collect();
        let group = group(PREFIX);
        while self
            .outside
            .commit_for_empty_group(&group, &positions)
            .await
            .is_err()
        {}
    }

    fn sources(&self) -> Vec<Partition> {
        (0..PARTITIONS)
            .map(|number| self.topics.events.partition(number))
            .collect()
    }

    async fn control(&self, object: &ControlObject) {
        self.publisher
            .write(Record {
                topic: self.topics.control.clone(),
                partition: Some(0),
                key: Some(Bytes::from(object.key().to_string())),
                value: Some(Bytes::from(object.encode())),
                headers: runtime::log::Headers::default(),
            })
            .await;
    }

    async fn subscribe(&mut self, id: u128, tenant: &str, filters: &str) {
        let endpoint = EndpointId::from_bits(id);
        let partitions = NonZeroU32::new(PARTITIONS).unwrap();
        let subscription = Subscription {
            id: SubscriptionId::from_bits(id),
            tenant: tenant.parse().unwrap(),
            endpoint,
            placement: Placement::of(&Quota::of_endpoint(endpoint), partitions),
            name: None,
            filters: Filters::parse_str(filters).unwrap(),
            state: SubscriptionState::Active,
            ordered: false,
            start: None,
            transform: None,
            request: None,
            hidden: false,
            created_at: 0,
            updated_at: 0,
        };
        self.put(subscription).await;
    }

    async fn put(&mut self, subscription: Subscription) {
        self.control(&ControlObject::Subscription(Box::new(subscription.clone())))
            .await;
        self.subscriptions.insert(subscription.id, subscription);
    }

    async fn publish(&self, partition: u32, event: &Event) -> i64 {
        self.publisher
            .write(event_record(&self.topics.events, partition, event))
            .await
    }

    /// Begins a router; its future ends when it is stopped.
    fn router(&self, name: &str, metrics: &Metrics) -> (Context, Options) {
        let context = Context {
            log: self.sim.process(name),
            topics: self.topics.clone(),
            clock: self.clock.clone(),
            entropy: Entropy::seeded(0).fork(name),
            metrics: metrics.clone(),
            gate: Readiness::new().gate("router"),
        };
        (
            context,
            Options {
                instance: name.to_owned(),
                ..self.options.clone()
            },
        )
    }

    fn start(&mut self, name: &str) {
        let (tasks, metrics) = (Tasks::new(name), Metrics::new());
        let (context, options) = self.router(name, &metrics);
        let token = tasks.token().clone();
        let run = crate::run(context, options, token);
        let abort = tasks.spawn(TaskKind::RouterLoop, run);
        self.routers.insert(
            name.to_owned(),
            Running {
                tasks,
                abort,
                metrics,
            },
        );
    }

    /// As SIGKILL.
    fn crash(&mut self, name: &str) {
        self.sim.crash(name);
        if let Some(running) = self.routers.remove(name) {
            running.abort.abort();
        }
    }

    /// As SIGTERM.
    async fn stop(&mut self, name: &str) {
        if let Some(running) = self.routers.remove(name) {
            let late = running.tasks.end(PATIENCE).await;
            assert!(late.is_empty(), "{name} does not stop");
            let cause = running.tasks.cause();
            assert!(cause.is_none(), "{name}: {}", cause.unwrap());
        }
    }

    async fn stop_all(&mut self) {
        for name in self.routers.keys().cloned().collect::<Vec<_>>() {
            self.stop(&name).await;
        }
    }

    fn end(&self, partition: &Partition) -> i64 {
        self.sim
            .records(partition)
            .last()
            .map_or(0, |record| record.offset + 1)
    }

    fn committed(&self, partition: &Partition) -> Option<i64> {
        self.sim
            .committed(&group(PREFIX))
            .get(partition)
            .map(|position| position.offset)
    }

    /// Waits until everything published is routed and committed.
    async fn settle(&self) {
        let routed =
            |partition: &Partition| self.committed(partition).unwrap_or(0) >= self.end(partition);
        let settled = async {
            while !self.sources().iter().all(routed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        let left: Vec<_> = self
            .sources()
            .into_iter()
            .map(|partition| (self.committed(&partition), self.end(&partition)))
            .collect();
        settled.unwrap_or_else(|_| panic!("not everything is routed: {left:?}"));
        for (name, running) in &self.routers {
            assert!(
                running.tasks.cause().is_none(),
                "{name}: {:?}",
                running.tasks.cause()
            );
        }
    }

    /// Waits until `condition` holds.
    async fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let held = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, held)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

fn event_record(topic: &TopicName, partition: u32, event: &Event) -> Record {
    let (headers, value) = codec::kafka::encode_binary(event);
    Record {
        topic: topic.clone(),
        partition: Some(partition),
        key: None,
        value,
        headers: headers
            .iter()
            .map(|(name, text)| (&**name, &**text))
            .collect(),
    }
}

fn event(tenant: &str, ty: &str, id: u64, data: &str) -> Event {
    let event = Event::builder(&id.to_string(), "/sim", ty);
    let mut event = event.data("text/plain", data.to_owned()).build().unwrap();
    event.set_tenant(tenant).unwrap();
    event
}
