//! Owns a running Anabranch: its processes, its keys, its tenant, its endpoints.
//!
//! It must never know how a service works. The surprise: on Kafka each installation has topics of
//! its own, which are left to the broker; `./bench` throws that away.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::bench::Plan;
use crate::child::{Child, free_address};
use crate::client::{Connection, is_ok, upload};
use crate::events::{BATCH, TENANT};
use crate::pace::wall_us;
use crate::written;

/// Of every topic but `control`.
pub(crate) const PARTITIONS: u32 = 6;
/// Where the processes of Kafka's installation keep their keys.
const CONFIG: &str = "anabranch.toml";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Clients that make endpoints at once.
const MAKERS: usize = 16;
/// One tenant brings all the load: the limits that protect tenants from each other are lifted.
const SETTINGS: [&str; 4] = [
    "topics.partitions=6",
    "dispatcher.allow_loopback=true",
    "ingest.tenant_events_per_second=100000000",
    "ingest.tenant_bytes_per_second=64GiB",
];

/// A service, in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    /// Keeps the objects.
    Control,
    /// Takes events.
    Ingest,
    /// Routes them.
    Router,
    /// Delivers them.
    Dispatcher,
    /// Keeps cohorts and runs syncs.
    Cohorts,
    /// All of them on the embedded log.
    Up,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Ingest => "ingest",
            Self::Router => "router",
            Self::Dispatcher => "dispatcher",
            Self::Cohorts => "cohorts",
            Self::Up => "up",
        }
    }
}

/// An endpoint that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) url: String,
    /// The event type that it is subscribed to; none for every event.
    pub(crate) event_type: Option<String>,
}

/// An endpoint and its subscription.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) endpoint: String,
    pub(crate) subscription: String,
}

/// A running Anabranch.
#[derive(Debug)]
pub(crate) struct Stack {
    bin: PathBuf,
    brokers: Option<String>,
    settings: Vec<String>,
    prefix: String,
    operator: String,
    key: String,
    ingest: SocketAddr,
    control: SocketAddr,
    cohorts: SocketAddr,
    // Killed before their folder goes; each with its admin address.
    children: BTreeMap<Service, (Child, SocketAddr)>,
    /// Further dispatchers, by their number.
    replicas: BTreeMap<usize, Child>,
    dir: TempDir,
}

impl Stack {
    /// On Kafka, with these services beside control, and a tenant.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn kafka(plan: &Plan, services: &[Service]) -> anyhow::Result<Self> {
        ensure!(!plan.brokers.is_empty(), "KAFKA_BROKERS names no broker");
        let mut stack = Self::new(plan, Some(plan.brokers.clone()))?;
        let keys = stack.run(&["config", "new-keys"])?;
        let key = keys
            .lines()
            .find_map(|line| line.strip_prefix("operator_key = "));
        stack.operator = key
            .context("no operator's key was made")?
            .trim_matches('"')
            .to_owned();
        std::fs::write(stack.dir.path().join(CONFIG), keys)?;
        let mut create = vec!["topics".to_owned(), "create".to_owned()];
        create.extend(stack.common());
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        stack.run(&create)?;
        stack.start(Service::Control).await?;
        for service in services {
            stack.start(*service).await?;
        }
        stack.make_tenant().await?;
        Ok(stack)
    }

    /// On the embedded log, with a tenant.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn embedded(plan: &Plan) -> anyhow::Result<Self> {
        let mut stack = Self::new(plan, None)?;
        stack.start(Service::Up).await?;
        let key = std::fs::read_to_string(stack.data().join("operator.key"))?;
        key.trim().clone_into(&mut stack.operator);
        stack.make_tenant().await?;
        Ok(stack)
    }

    fn new(plan: &Plan, brokers: Option<String>) -> anyhow::Result<Self> {
        Ok(Self {
            bin: plan.bin.clone(),
            brokers,
            settings: plan.settings.clone(),
            prefix: format!("load-{:x}.", wall_us()),
            operator: String::new(),
            key: String::new(),
            ingest: free_address()?,
            control: free_address()?,
            cohorts: free_address()?,
            children: BTreeMap::new(),
            replicas: BTreeMap::new(),
            dir: TempDir::with_prefix("anabranch-load-")?,
        })
    }

    /// A folder that goes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the embedded log and its keys are.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The full name of a topic.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Its brokers.
    pub(crate) fn brokers(&self) -> &str {
        self.brokers.as_deref().unwrap_or_default()
    }

    /// A connection to ingest with the tenant's key.
    ///
    /// # Errors
    /// Where nobody listens.
    pub(crate) async fn publisher(&self) -> anyhow::Result<Connection> {
        Connection::open(self.ingest, &self.key).await
    }

    /// A connection to the cohorts service with the operator's key.
    ///
    /// # Errors
    /// Where nobody listens.
    pub(crate) async fn cohorts(&self) -> anyhow::Result<Connection> {
        Connection::open(self.cohorts, &self.operator).await
    }

    /// Uploads a body to the cohorts service piece by piece.
    ///
    /// # Errors
    /// Where the answer is no success.
    pub(crate) async fn upload(
        &self,
        path: &str,
        content_type: &'static str,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> anyhow::Result<Value> {
        let to = (self.cohorts, self.operator.as_str());
        upload(to, path, content_type, pieces).await
    }

    /// What cohorts and rosters take on disk, in MiB.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn cohorts_disk_mib(&self) -> anyhow::Result<f64> {
        mib(bytes_below(&self.cohorts_store())?)
    }

    /// What this installation has written to its topics, in MiB. Nobody may write meanwhile.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(crate) async fn written_mib(&self) -> anyhow::Result<f64> {
        let (brokers, prefix) = (self.brokers().to_owned(), self.prefix.clone());
        let read = tokio::task::spawn_blocking(move || written::bytes(&brokers, &prefix));
        mib(read.await??)
    }

    fn cohorts_store(&self) -> PathBuf {
        self.dir.path().join("cohorts")
    }

    /// Starts a service and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn start(&mut self, service: Service) -> anyhow::Result<()> {
        let instance = format!("load-{}", service.name());
        let started = self.spawn(service, &instance).await?;
        self.children.insert(service, started);
        Ok(())
    }

    /// Starts one more dispatcher and waits until it is ready.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn start_replica(&mut self, number: usize) -> anyhow::Result<()> {
        let instance = format!("load-dispatcher-{number}");
        let (child, _) = self.spawn(Service::Dispatcher, &instance).await?;
        self.replicas.insert(number, child);
        Ok(())
    }

    /// Kills a replica as a crash would.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) fn kill_replica(&mut self, number: usize) -> anyhow::Result<()> {
        // A child that is dropped is killed.
        let child = self.replicas.remove(&number);
        child.context("no such replica").map(drop)
    }

    /// Ends all replicas in good order.
    ///
    /// # Errors
    /// Where one does not end.
    pub(crate) async fn stop_replicas(&mut self) -> anyhow::Result<()> {
        while let Some((_, child)) = self.replicas.pop_last() {
            child.stop().await?;
        }
        Ok(())
    }

    async fn spawn(&self, service: Service, instance: &str) -> anyhow::Result<(Child, SocketAddr)> {
        let name = service.name();
        let admin = free_address()?;
        let mut args = vec![name.to_owned()];
        args.extend(self.common());
        if service == Service::Up {
            args.extend(["--data-dir".to_owned(), self.data().display().to_string()]);
        } else {
            let config = self.dir.path().join(CONFIG).display().to_string();
            args.extend(["--config".to_owned(), config]);
            args.extend(set(format!("instance={instance}")));
        }
        args.extend(set(format!("admin.bind={admin}")));
        args.extend(set(format!("ingest.bind={}", self.ingest)));
        args.extend(set(format!("control.bind={}", self.control)));
        args.extend(set(format!("cohorts.bind={}", self.cohorts)));
        if service == Service::Cohorts {
            let store = self.cohorts_store().display().to_string();
            args.extend(set(format!("cohorts.store={store}")));
        }
        let mut child = Child::start(instance, &self.bin, &args, self.dir.path())?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is_ok(admin, "/readyz").await {
            child.must_run()?;
            ensure!(Instant::now() < deadline, "{name} is not ready");
            sleep(LOOK).await;
        }
        Ok((child, admin))
    }

    /// Ends a service in good order.
    ///
    /// # Errors
    /// Where it does not run, or does not end.
    pub(crate) async fn stop(&mut self, service: Service) -> anyhow::Result<()> {
        let (child, _) = self.children.remove(&service).context(service.name())?;
        child.stop().await
    }

    /// A service's resident memory now and at its highest, in MiB.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) fn memory_mib(&self, service: Service) -> anyhow::Result<(f64, f64)> {
        self.child(service)?.0.memory_mib()
    }

    /// A service's processor time so far, in seconds.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) fn cpu_seconds(&self, service: Service) -> anyhow::Result<f64> {
        self.child(service)?.0.cpu_seconds()
    }

    /// The sum of a service's metric over its labels.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) async fn metric(&self, service: Service, name: &str) -> anyhow::Result<f64> {
        let mut connection = Connection::open(self.child(service)?.1, "").await?;
        let asked = (Method::GET, "/metrics");
        let answer = connection.send(asked, "", Bytes::new()).await?;
        let text = String::from_utf8_lossy(answer.body());
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        Ok(lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    fn child(&self, service: Service) -> anyhow::Result<&(Child, SocketAddr)> {
        self.children.get(&service).context(service.name())
    }

    /// Makes endpoints at `urls`, each subscribed to every event, and waits until all are applied.
    ///
    /// # Errors
    /// Where control refuses.
    pub(crate) async fn hooks(&self, urls: &[String]) -> anyhow::Result<Vec<Hook>> {
        let all = |url: &String| Wish {
            url: url.clone(),
            event_type: None,
        };
        let wishes: Vec<Wish> = urls.iter().map(all).collect();
        self.hooks_as(&wishes).await
    }

    /// Makes endpoints and their subscriptions, and waits until all are applied.
    ///
    /// # Errors
    /// Where control refuses.
    pub(crate) async fn hooks_as(&self, wishes: &[Wish]) -> anyhow::Result<Vec<Hook>> {
        let chunk = wishes.len().div_ceil(MAKERS).max(1);
        let made: Vec<Vec<Hook>> = stream::iter(wishes.chunks(chunk))
            .map(|wishes| self.make_hooks(wishes))
            .buffered(MAKERS)
            .try_collect()
            .await?;
        let made: Vec<Hook> = made.into_iter().flatten().collect();
        self.wait_applied().await?;
        Ok(made)
    }

    /// What comes last is applied last: one change that waits is enough for all.
    ///
    /// # Errors
    /// Where somebody does not apply it.
    pub(crate) async fn wait_applied(&self) -> anyhow::Result<()> {
        let path = format!("/v1/tenants/{TENANT}?wait=applied");
        let mut api = self.api().await?;
        api.json(Method::PATCH, &path, Some(&json!({ "name": "load" })))
            .await?;
        Ok(())
    }

    /// Changes what endpoints say of themselves, and waits until it is applied.
    ///
    /// # Errors
    /// Where control refuses.
    pub(crate) async fn patch(&self, hooks: &[Hook], patch: &Value) -> anyhow::Result<()> {
        let mut api = self.api().await?;
        for hook in hooks {
            let path = format!("/v1/tenants/{TENANT}/endpoints/{}", hook.endpoint);
            api.json(Method::PATCH, &path, Some(patch)).await?;
        }
        self.wait_applied().await
    }

    /// One endpoint at `url`, subscribed to every event.
    ///
    /// # Errors
    /// Where control refuses.
    pub(crate) async fn hook(&self, url: String) -> anyhow::Result<Hook> {
        let made = self.hooks(&[url]).await?;
        made.into_iter().next().context("no endpoint was made")
    }

    /// Holds an endpoint's deliveries.
    ///
    /// # Errors
    /// Where control refuses.
    pub(crate) async fn pause(&self, hook: &Hook) -> anyhow::Result<()> {
        let path = format!("/v1/tenants/{TENANT}/endpoints/{}/pause", hook.endpoint);
        self.api().await?.json(Method::POST, &path, None).await?;
        Ok(())
    }

    async fn make_hooks(&self, wishes: &[Wish]) -> anyhow::Result<Vec<Hook>> {
        let path = format!("/v1/tenants/{TENANT}/webhooks");
        let mut api = self.api().await?;
        let mut made = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let body = match &wish.event_type {
                Some(event_type) => json!({ "url": wish.url, "types": [event_type] }),
                None => json!({ "url": wish.url }),
            };
            let answer = api.json(Method::POST, &path, Some(&body)).await?;
            let id = |object: &str| -> anyhow::Result<String> {
                let id = answer.pointer(&format!("/{object}/id"));
                let id = id.and_then(Value::as_str);
                Ok(id.with_context(|| format!("no id: {answer}"))?.to_owned())
            };
            made.push(Hook {
                endpoint: id("endpoint")?,
                subscription: id("subscription")?,
            });
        }
        Ok(made)
    }

    /// A connection to control with the operator's key.
    ///
    /// # Errors
    /// Where nobody listens.
    pub(crate) async fn api(&self) -> anyhow::Result<Connection> {
        Connection::open(self.control, &self.operator).await
    }

    async fn make_tenant(&mut self) -> anyhow::Result<()> {
        let mut api = self.api().await?;
        api.json(Method::POST, "/v1/tenants", Some(&json!({ "id": TENANT })))
            .await?;
        let path = format!("/v1/tenants/{TENANT}/keys");
        let made = api.json(Method::POST, &path, Some(&json!({}))).await?;
        let key = made.get("key").and_then(Value::as_str);
        key.context("the key is not shown")?
            .clone_into(&mut self.key);
        let takes_events = [Service::Ingest, Service::Up];
        if takes_events
            .iter()
            .any(|service| self.children.contains_key(service))
        {
            self.ingest_knows_the_key().await?;
        }
        Ok(())
    }

    /// A change is waited for by routers and dispatchers; ingest follows by itself.
    async fn ingest_knows_the_key(&self) -> anyhow::Result<()> {
        let unknown = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
        ];
        let deadline = Instant::now() + READY_TIMEOUT;
        let path = events_path();
        loop {
            let mut publisher = self.publisher().await?;
            let empty = Bytes::from_static(b"[]");
            let answer = publisher.send((Method::POST, &path), BATCH, empty).await?;
            let status = answer.status();
            if !unknown.contains(&status) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "ingest answers {status}");
            sleep(LOOK).await;
        }
    }

    fn common(&self) -> Vec<String> {
        let mut args = Vec::new();
        if let Some(brokers) = &self.brokers {
            args.extend(["--brokers".to_owned(), brokers.clone()]);
            args.extend(set(format!("topics.prefix={}", self.prefix)));
        }
        for setting in SETTINGS {
            args.extend(set(setting.to_owned()));
        }
        for setting in &self.settings {
            args.extend(set(setting.clone()));
        }
        args
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.bin)
            .args(args)
            .output()
            .with_context(|| self.bin.display().to_string())?;
        if !output.status.success() {
            bail!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The bytes of files below a folder.
fn bytes_below(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What is deleted meanwhile takes nothing.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if about.is_dir() {
            bytes += bytes_below(&entry.path())?;
        } else {
            bytes += about.len();
        }
    }
    Ok(bytes)
}

fn mib(bytes: u64) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(bytes >> 10)?) / 1_024.0)
}

fn set(setting: String) -> [String; 2] {
    ["--set".to_owned(), setting]
}

/// Where the tenant's events go.
pub(crate) fn events_path() -> String {
    format!("/v1/tenants/{TENANT}/events")
}
