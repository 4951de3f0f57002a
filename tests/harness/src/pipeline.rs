//! Owns a running Anabranch: its processes, its tenant, its endpoints and subscriptions.
//!
//! It must never know how a service works. The surprise: every change waits until it is applied,
//! unless a test asks otherwise, so that the next event meets it.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use crate::api::{Answer, Api};
use crate::broker::{Broker, root};
use crate::event::Event;
use crate::load::Load;
use crate::poll::{DEADLINE, eventually};
use crate::ports::free_port;
use crate::process::Process;
use crate::sink::{Arrival, Behaviour, Sink};
use crate::turn::{self, Weight};
use crate::{now_ms, topic};

const TENANT: &str = "acme";
/// Short, so that a test sees many attempts: 20 of them.
const WAIT_MS: u64 = 200;
const WAITS: usize = 20;

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// On the shared broker, each service in a process of its own.
    Kafka,
    /// On these brokers.
    Brokers(String),
    /// On the disk of one process.
    Embedded,
}

/// What a pipeline is to be.
#[derive(Debug)]
pub struct Builder {
    binary: PathBuf,
    log: Log,
    routers: usize,
    dispatchers: usize,
    settings: Vec<String>,
    loopback: bool,
    weight: Weight,
}

/// A pipeline of `binary`: on Kafka, with one router and one dispatcher.
pub fn pipeline(binary: &str) -> Builder {
    Builder {
        binary: binary.into(),
        log: Log::Kafka,
        routers: 1,
        dispatchers: 1,
        settings: Vec::new(),
        loopback: true,
        weight: Weight::Light,
    }
}

impl Builder {
    /// With its log there.
    #[must_use]
    pub fn on(self, log: Log) -> Self {
        Self { log, ..self }
    }

    /// With so many routers.
    #[must_use]
    pub fn routers(self, routers: usize) -> Self {
        Self { routers, ..self }
    }

    /// With so many dispatchers.
    #[must_use]
    pub fn dispatchers(self, dispatchers: usize) -> Self {
        Self {
            dispatchers,
            ..self
        }
    }

    /// With `section.key=value` for all processes.
    #[must_use]
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// With dispatchers that may not call this machine, as in production; only control may name it.
    #[must_use]
    pub fn without_loopback(self) -> Self {
        Self {
            loopback: false,
            ..self
        }
    }

    /// Alone on the machine.
    #[must_use]
    pub fn heavy(self) -> Self {
        Self {
            weight: Weight::Heavy,
            ..self
        }
    }

    /// Starts it and waits until every process is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(self) -> Pipeline {
        let turn = turn::take(self.weight).await;
        let test = test_name();
        let logs = root().join("target/e2e-logs").join(&test);
        let data = TempDir::with_prefix("anabranch-test-").expect("a folder");
        let prefix = format!("{test}-{:x}.", now_ms());
        let making = Making {
            builder: self,
            data,
            logs,
            prefix,
            turn,
        };
        match making.builder.log.clone() {
            Log::Embedded => making.embedded().await,
            Log::Kafka => making.kafka(Broker::shared().to_owned()).await,
            Log::Brokers(brokers) => making.kafka(brokers).await,
        }
    }
}

fn test_name() -> String {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let name = name.replace("::", "-");
    // It begins topics' names, whose prefix has 100 characters at most.
    let tail = name.len().saturating_sub(80);
    name.get(tail..)
        .unwrap_or("test")
        .trim_start_matches('-')
        .to_owned()
}

/// A pipeline that is being made.
#[derive(Debug)]
struct Making {
    builder: Builder,
    data: TempDir,
    logs: PathBuf,
    prefix: String,
    turn: SemaphorePermit<'static>,
}

impl Making {
    async fn embedded(mut self) -> Pipeline {
        let (ingest, control) = (free_port(), free_port());
        let data = self.data.path().display().to_string();
        let mut args = vec!["up".to_owned(), "--data-dir".to_owned(), data];
        args.extend(self.common());
        args.extend(set(&format!("ingest.bind=127.0.0.1:{ingest}")));
        args.extend(set(&format!("control.bind=127.0.0.1:{control}")));
        let up = self.process("up", args).await;
        let key = std::fs::read_to_string(self.data.path().join("operator.key"));
        let key = key
            .expect("up keeps the operator's key in its folder")
            .trim()
            .to_owned();
        self.finish(None, key, (ingest, control), vec![up]).await
    }

    async fn kafka(mut self, brokers: String) -> Pipeline {
        let (config, key) = self.new_keys();
        let base = |service: &str| {
            let args = [
                service,
                "--brokers",
                &brokers,
                "--config",
                &config.display().to_string(),
            ];
            args.map(str::to_owned).to_vec()
        };
        self.create_topics(&brokers);
        let (ingest, control) = (free_port(), free_port());
        let mut services = Vec::new();
        let mut args = base("control");
        args.extend(set(&format!("control.bind=127.0.0.1:{control}")));
        if !self.builder.loopback {
            // Control would refuse the URL; the dispatcher must refuse the address (SS-6).
            args.extend(set("dispatcher.allow_loopback=true"));
        }
        services.push(("control".to_owned(), args));
        let mut args = base("ingest");
        args.extend(set(&format!("ingest.bind=127.0.0.1:{ingest}")));
        services.push(("ingest".to_owned(), args));
        for number in 1..=self.builder.routers {
            services.push((format!("router-{number}"), base("router")));
        }
        for number in 1..=self.builder.dispatchers {
            services.push((format!("dispatcher-{number}"), base("dispatcher")));
        }
        let mut processes = Vec::new();
        for (name, mut args) in services {
            args.extend(self.common());
            args.extend(set(&format!("instance={name}")));
            processes.push(self.start(&name, args));
        }
        for (process, admin) in &mut processes {
            ready(process, *admin).await;
        }
        self.finish(Some(brokers), key, (ingest, control), processes)
            .await
    }

    fn common(&self) -> Vec<String> {
        let mut args = Vec::new();
        args.extend(set(&format!("topics.prefix={}", self.prefix)));
        args.extend(set("topics.partitions=6"));
        if self.builder.loopback {
            args.extend(set("dispatcher.allow_loopback=true"));
        }
        for setting in &self.builder.settings {
            args.extend(set(setting));
        }
        args
    }

    fn start(&mut self, name: &str, mut args: Vec<String>) -> (Process, u16) {
        let admin = free_port();
        args.extend(set(&format!("admin.bind=127.0.0.1:{admin}")));
        (
            Process::start(name, &self.builder.binary, &args, &self.logs),
            admin,
        )
    }

    async fn process(&mut self, name: &str, args: Vec<String>) -> (Process, u16) {
        let (mut process, admin) = self.start(name, args);
        ready(&mut process, admin).await;
        (process, admin)
    }

    fn new_keys(&self) -> (PathBuf, String) {
        let output = Command::new(&self.builder.binary)
            .args(["config", "new-keys"])
            .output();
        let output = output.expect("anabranch config new-keys");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let path = self.data.path().join("anabranch.toml");
        std::fs::write(&path, &text).expect("a configuration file");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("operator_key = "));
        let key = line
            .expect("an operator's key")
            .trim_matches('"')
            .to_owned();
        (path, key)
    }

    fn create_topics(&self, brokers: &str) {
        let mut args = ["topics", "create", "--brokers", brokers]
            .map(str::to_owned)
            .to_vec();
        args.extend(self.common());
        let output = Command::new(&self.builder.binary).args(args).output();
        let output = output.expect("anabranch topics create");
        assert!(output.status.success(), "topics create: {output:?}");
    }

    async fn finish(
        self,
        brokers: Option<String>,
        operator: String,
        (ingest, control): (u16, u16),
        processes: Vec<(Process, u16)>,
    ) -> Pipeline {
        let control = Api::new(&format!("http://127.0.0.1:{control}"), &operator);
        control
            .make("/v1/tenants?wait=applied", &json!({ "id": TENANT }))
            .await;
        let made = control
            .make(&format!("/v1/tenants/{TENANT}/keys"), &json!({}))
            .await;
        let key = made
            .get("key")
            .and_then(Value::as_str)
            .expect("the key is shown")
            .to_owned();
        let pipeline = Pipeline {
            brokers,
            prefix: self.prefix,
            operator,
            control: control.with_key(&key),
            ingest: Api::new(&format!("http://127.0.0.1:{ingest}"), &key),
            processes,
            data: self.data,
            _turn: self.turn,
        };
        pipeline.ingest_knows_the_key().await;
        pipeline
    }
}

fn set(setting: &str) -> [String; 2] {
    ["--set".to_owned(), setting.to_owned()]
}

async fn ready(process: &mut Process, admin: u16) {
    let api = Api::new(&format!("http://127.0.0.1:{admin}"), "");
    let what = format!("{} ready", process.name());
    eventually(&what, DEADLINE, async || {
        let ended = process.ended();
        assert!(
            ended.is_none(),
            "{what}: ended with {ended:?}:\n{}",
            process.output()
        );
        api.is_ok("/readyz").await.then_some(())
    })
    .await;
}

/// A running pipeline with one tenant.
#[derive(Debug)]
pub struct Pipeline {
    brokers: Option<String>,
    prefix: String,
    operator: String,
    control: Api,
    ingest: Api,
    processes: Vec<(Process, u16)>,
    data: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Pipeline {
    /// The API with the tenant's key.
    pub fn control(&self) -> &Api {
        &self.control
    }

    /// Ingest with the tenant's key.
    pub fn ingest(&self) -> &Api {
        &self.ingest
    }

    /// The operator's key.
    pub fn operator_key(&self) -> &str {
        &self.operator
    }

    /// The path of the tenant, with `rest` behind it.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{TENANT}{rest}")
    }

    /// The folder of its data.
    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// The brokers.
    ///
    /// # Panics
    /// When it is not on Kafka.
    pub fn brokers(&self) -> &str {
        self.brokers.as_deref().expect("a pipeline on Kafka")
    }

    /// The full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What its topics' names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// One of its processes, such as `router-1`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn process(&mut self, name: &str) -> &mut Process {
        let mut all = self.processes.iter_mut().map(|(process, _)| process);
        all.find(|process| process.name() == name)
            .expect("a process of that name")
    }

    /// The admin ports of all processes.
    pub fn admin_ports(&self) -> Vec<u16> {
        self.processes.iter().map(|(_, admin)| *admin).collect()
    }

    /// Waits until a process is ready (again).
    pub async fn ready(&mut self, name: &str) {
        for (process, admin) in &mut self.processes {
            if process.name() == name {
                ready(process, *admin).await;
            }
        }
    }

    /// The sum of a metric over all processes and labels; `name` may go on with a part of the
    /// labels, as in `x_total{outcome="retry"`.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for port in self.admin_ports() {
            sum += metric_at(port, name).await;
        }
        sum
    }

    /// The same for one process.
    pub async fn process_metric(&self, process: &str, name: &str) -> f64 {
        let found = self
            .processes
            .iter()
            .find(|(known, _)| known.name() == process);
        let (_, admin) = found.expect("a process of that name");
        metric_at(*admin, name).await
    }

    /// Makes an endpoint that behaves so.
    pub async fn endpoint(&self, behaviour: Behaviour) -> Endpoint {
        self.endpoint_with(behaviour, json!({})).await
    }

    /// Makes an endpoint with these members beside its URL.
    pub async fn endpoint_with(&self, behaviour: Behaviour, members: Value) -> Endpoint {
        let sink = Sink::start(behaviour);
        let mut body = Map::new();
        body.insert("url".to_owned(), sink.url().into());
        body.insert("retry_schedule_ms".to_owned(), vec![WAIT_MS; WAITS].into());
        body.extend(members.as_object().cloned().unwrap_or_default());
        let path = self.path("/endpoints?wait=applied");
        let made = self.control.make(&path, &Value::Object(body)).await;
        let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
        Endpoint {
            id: text("id").to_owned(),
            secret: text("secret").to_owned(),
            sink,
        }
    }

    /// Subscribes an endpoint to events of these types; to all events where there are none.
    pub async fn subscription(&self, endpoint: &Endpoint, types: &[&str]) -> String {
        let mut body = json!({ "endpoint": endpoint.id });
        if !types.is_empty() {
            body = json!({ "endpoint": endpoint.id, "types": types });
        }
        let made = self
            .control
            .make(&self.path("/subscriptions?wait=applied"), &body)
            .await;
        made.get("id")
            .and_then(Value::as_str)
            .expect("an id")
            .to_owned()
    }

    /// An endpoint that behaves so, subscribed to everything.
    pub async fn subscribed(&self, behaviour: Behaviour) -> Endpoint {
        let endpoint = self.endpoint(behaviour).await;
        self.subscription(&endpoint, &[]).await;
        endpoint
    }

    /// Publishes an event in structured mode.
    ///
    /// # Panics
    /// When it is not taken.
    pub async fn publish(&self, event: &Event) {
        let answer = self.try_publish(event).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Publishes an event in structured mode, whatever is answered.
    ///
    /// # Panics
    /// When nothing is answered.
    pub async fn try_publish(&self, event: &Event) -> Answer {
        let json = "application/cloudevents+json".to_owned();
        let headers = [("content-type".to_owned(), json)];
        let path = self.path("/events");
        let sent = self
            .ingest
            .send(Method::POST, &path, &headers, event.structured())
            .await;
        sent.expect("an answer from ingest")
    }

    /// Publishes events in one request, in this order.
    ///
    /// # Panics
    /// When they are not taken.
    pub async fn publish_all(&self, events: &[Event]) {
        let events: Vec<String> = events.iter().map(Event::structured).collect();
        let json = "application/cloudevents-batch+json".to_owned();
        let headers = [("content-type".to_owned(), json)];
        let body = format!("[{}]", events.join(","));
        let path = self.path("/events");
        let sent = self.ingest.send(Method::POST, &path, &headers, body).await;
        let answer = sent.expect("an answer from ingest");
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Writes a record to the topic `events`, past ingest.
    pub async fn produce(&self, headers: &[(String, String)], value: &str) {
        topic::produce_with(
            self.brokers(),
            &self.topic("events"),
            "none",
            (headers, value),
        )
        .await;
    }

    /// The same for a record that only compression makes fit.
    pub async fn produce_compressed(&self, headers: &[(String, String)], value: &str) {
        let topic = self.topic("events");
        topic::produce_with(self.brokers(), &topic, "zstd", (headers, value)).await;
    }

    /// A steady load of events of type `ty`.
    pub fn load(&self, ty: &str, per_second: u64) -> Load {
        Load::start(
            &self.ingest,
            self.path("/events"),
            ty.to_owned(),
            per_second,
        )
    }

    async fn ingest_knows_the_key(&self) {
        // A change is waited for by routers and dispatchers; ingest follows by itself.
        let headers = [(
            "content-type".to_owned(),
            "application/cloudevents-batch+json".to_owned(),
        )];
        let path = self.path("/events");
        eventually("the key known to ingest", DEADLINE, async || {
            let sent = self.ingest.send(Method::POST, &path, &headers, "[]").await;
            sent.is_ok_and(|answer| ![401, 403, 404].contains(&answer.status))
                .then_some(())
        })
        .await;
    }
}

async fn metric_at(admin: u16, name: &str) -> f64 {
    let api = Api::new(&format!("http://127.0.0.1:{admin}"), "");
    let Ok(answer) = api.send(Method::GET, "/metrics", &[], "").await else {
        return 0.0;
    };
    let lines = answer.text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{', ',', '}']))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.processes.clear();
        let (Some(brokers), prefix) = (self.brokers.clone(), self.prefix.clone()) else {
            return;
        };
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(topic::delete(&brokers, &prefix));
        });
        cleaner.join().ok();
    }
}

/// An endpoint: the object, and the sink behind its URL.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The server.
    pub sink: Sink,
}

impl Endpoint {
    /// Waits until the event was taken, signed by this endpoint's secret.
    ///
    /// # Panics
    /// When it does not come, or not signed.
    pub async fn expect_delivered(&self, event: &Event) -> Arrival {
        let arrival = self.sink.expect_event(&event.id).await;
        assert!(
            arrival.is_signed_by(&self.secret),
            "signature of {arrival:?}"
        );
        arrival
    }

    /// The same, with exactly so many attempts.
    ///
    /// # Panics
    /// When it takes more or fewer.
    pub async fn expect_delivered_after(&self, event: &Event, attempts: u32) -> Arrival {
        let arrival = self.expect_delivered(event).await;
        assert_eq!(arrival.attempt, attempts, "attempts of {}", event.id);
        arrival
    }
}
