//! A control service without a socket: requests go straight to its router.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode};
use runtime::admin::Readiness;
use runtime::clock::Entropy;
use runtime::log::simulated::{SimulatedLog, SimulationOptions};
use runtime::log::topics::{Shape, Topics};
use runtime::secret::{Sealer, SecretString};
use runtime::service::Environment;
use runtime::task::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use schemas::resources::input::UrlPolicy;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::leader::Leader;
use crate::metrics::ControlMetrics;
use crate::{Options, api, open};

/// The operator's key.
pub(super) const OPERATOR: &str = "operator-key-of-the-tests";

/// A running control service.
pub(super) struct Rig {
    pub(super) sim: SimulatedLog,
    pub(super) topics: Topics,
    pub(super) sealer: Arc<Sealer>,
    instance: String,
    router: Router,
    leader: Leader,
    tasks: Tasks,
}

/// What a request was answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn string(&self, pointer: &str) -> String {
        let json = self.json();
        let found = json.pointer(pointer).and_then(Value::as_str);
        found
            .unwrap_or_else(|| panic!("no {pointer} in {json}"))
            .to_owned()
    }

    /// The pointers of a validation problem.
    pub(super) fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

pub(super) fn options(instance: &str) -> Options {
    let key = Sealer::generate("test", &Entropy::seeded(1)).unwrap();
    Options {
        instance: instance.to_owned(),
        group: "t.control".to_owned(),
        transactional_id: "t.control".to_owned(),
        partitions: NonZeroU32::new(6).unwrap(),
        operator_key: SecretString::from(OPERATOR),
        sealer: Arc::new(Sealer::parse(&[key]).unwrap()),
        urls: UrlPolicy::default(),
        max_body_bytes: 256 << 10,
        max_connections: 8,
        drain_deadline: Duration::from_secs(1),
    }
}

pub(super) async fn simulation() -> SimulatedLog {
    let sim = SimulatedLog::new(SimulationOptions::default());
    create_topics(&sim).await;
    sim
}

pub(super) async fn create_topics(sim: &SimulatedLog) {
    let shape = Shape {
        partitions: 6,
        replication: 0,
        retention: Duration::from_secs(3_600),
    };
    let settings = Topics::with_prefix("t.").settings(shape);
    sim.process("setup").create_topics(&settings).await.unwrap();
}

pub(super) fn environment(sim: &SimulatedLog, process: &str) -> (Environment, Readiness) {
    let readiness = Readiness::new();
    let environment = Environment {
        log: sim.process(process),
        topics: Topics::with_prefix("t."),
        clock: sim.clock(),
        entropy: Entropy::seeded(7),
        tasks: Tasks::new(process),
        metrics: Metrics::new(),
        gate: readiness.gate("control"),
    };
    (environment, readiness)
}

impl Rig {
    pub(super) async fn start() -> Self {
        let sim = simulation().await;
        Self::on(sim, options("a")).await
    }

    /// A service on a log that exists, as process and instance of the options' name.
    pub(super) async fn on(sim: SimulatedLog, options: Options) -> Self {
        let (environment, _) = environment(&sim, &options.instance);
        let (log, topics) = (&environment.log, environment.topics.clone());
        let partition = topics.control.partition(0);
        let leader = Leader::take(log, &options.group, partition, &options.instance)
            .await
            .unwrap();
        let metrics = ControlMetrics::new(&environment.metrics);
        let (app, writer, redrives) = open(
            &options,
            &environment,
            &metrics,
            &leader,
            &environment.tasks,
        )
        .await
        .unwrap();
        let tasks = environment.tasks.clone();
        let stop: CancellationToken = tasks.token().clone();
        tasks.spawn(
            TaskKind::ControlWriter,
            async move { writer.run(&stop).await },
        );
        tasks.spawn(TaskKind::Reporter, async move {
            redrives.run().await;
            Ok::<_, crate::Error>(())
        });
        api::rewrap(&app).await;
        let router = api::router(app, options.max_body_bytes);
        Self {
            sim,
            topics,
            sealer: options.sealer,
            instance: options.instance,
            router,
            leader,
            tasks,
        }
    }

    pub(super) async fn stop(self) -> SimulatedLog {
        drop(self.router);
        assert_eq!(
            self.tasks.end(Duration::from_secs(5)).await,
            Vec::<&str>::new()
        );
        self.leader.close().await;
        self.sim
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    pub(super) async fn call(&self, key: &str, call: &str, body: Value) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.send(request(key, call).body(Body::from(text)).unwrap())
            .await
    }

    /// As the operator.
    pub(super) async fn operator(&self, call: &str, body: Value) -> Answer {
        self.call(OPERATOR, call, body).await
    }

    /// Makes tenant `acme` and returns the text of a key of it.
    pub(super) async fn acme(&self) -> String {
        let tenant = serde_json::json!({ "id": "acme" });
        self.operator("POST /v1/tenants", tenant).await.expect(201);
        self.operator("POST /v1/tenants/acme/keys", Value::Null)
            .await
            .expect(201)
            .string("/key")
    }

    /// Makes an endpoint of `acme` and returns its path.
    pub(super) async fn endpoint(&self) -> String {
        let body = serde_json::json!({ "url": "https://a.example/hook" });
        let made = self
            .operator("POST /v1/tenants/acme/endpoints", body)
            .await
            .expect(201);
        made.headers["location"].to_str().unwrap().to_owned()
    }

    /// Goes on as if this process had been killed and another started in its place.
    pub(super) async fn killed(self, instance: &str) -> Self {
        let sim = self.sim.clone();
        sim.crash(&self.instance);
        drop(self.router);
        // What its tasks could not end for want of a log is gone with the process.
        let _unfinished = self.tasks.end(Duration::from_secs(5)).await;
        Self::on(sim, options(instance)).await
    }

    /// Every byte of the control topic, as text.
    pub(super) fn control_bytes(&self) -> Vec<u8> {
        let records = self.sim.records(&self.topics.control.partition(0));
        records
            .iter()
            .flat_map(|record| record.value.clone().unwrap_or_default())
            .collect()
    }
}

/// A request of the form `METHOD /path`.
pub(super) fn request(key: &str, call: &str) -> http::request::Builder {
    let (method, path) = call.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path);
    if key.is_empty() {
        request
    } else {
        request.header("authorization", format!("Bearer {key}"))
    }
}
