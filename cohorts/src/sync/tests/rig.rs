//! A cohorts service without a socket, on a simulated log and a store in memory, and a partner.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::admin::Readiness;
use runtime::clock::Entropy;
use runtime::log::simulated::{SimulatedLog, SimulationOptions};
use runtime::log::topics::{Shape, Topics};
use runtime::log::{Headers, ProducerOptions, Record};
use runtime::service::Environment;
use runtime::task::{TaskKind, Tasks};
use runtime::telemetry::Metrics;
use schemas::ids::{CohortId, EndpointId, SubscriptionId, SyncId};
use schemas::profile::{Chunk, Profile, ready};
use schemas::records::{ControlObject, DeliveryRecord, MemberCount, ResultRecord};
use schemas::resources::{
    Cohort as CohortObject, Endpoint, FairShare, Placement, Quota, RateWindow, Sync, Tenant,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::partner::{Jobs, Partner, Temper, is_multiple};
use crate::doubles::{Faulty, ndjson};
use crate::sync::{Ask, Live, Note, Request, Requests, Summary, identity, roster_folder};
use crate::{
    Changes, Cohort, Error, NewSnapshot, Progress, Roster, SortOptions, UploadOptions, View,
};

pub(super) const CHUNKS_AHEAD: usize = 8;
/// The operator's key.
pub(super) const OPERATOR: &str = "operator-key-of-the-tests";
const PARTITIONS: u32 = 4;
pub(super) const ITEMS: u32 = 10;
/// Before a test gives up on a run.
const PATIENCE: Duration = Duration::from_secs(200 * 3_600);

/// Everything.
pub(super) struct Yard {
    pub(super) partner: Partner,
    pub(super) chunks_ahead: usize,
    sim: SimulatedLog,
    topics: Topics,
    pub(super) store: Arc<Faulty>,
    process: Option<(String, Tasks)>,
    /// Processes that run beside it, and what each of all says it runs.
    others: Vec<(String, Tasks)>,
    lives: Vec<Live>,
    router: axum::Router,
    starts: u32,
    stamps: i64,
    sync: Sync,
    dice: Entropy,
}

impl Yard {
    pub(super) async fn new(temper: Temper) -> Self {
        let sim = SimulatedLog::new(SimulationOptions::default());
        let topics = Topics::with_prefix("t.");
        let shape = Shape {
            partitions: PARTITIONS,
            replication: 0,
            retention: Duration::from_secs(30 * 24 * 3_600),
        };
        let setup = sim.process("setup");
        setup.create_topics(&topics.settings(shape)).await.unwrap();
        let dice = temper.entropy.fork("dice");
        let yard = Self {
            partner: Partner {
                temper,
                list: BTreeMap::new(),
                sends: BTreeMap::new(),
                lists_made: 0,
                requests: 0,
                jobs: Jobs::None,
                jobs_made: 0,
                polls: BTreeMap::new(),
                polled_at: Vec::new(),
                largest: BTreeMap::new(),
                unreported_max: 0,
                read: BTreeMap::new(),
                marks: BTreeSet::new(),
                waiting: Vec::new(),
            },
            chunks_ahead: CHUNKS_AHEAD,
            sync: sync(sim.clock().now()),
            sim,
            topics,
            store: Faulty::new(),
            process: None,
            others: Vec::new(),
            lives: Vec::new(),
            router: axum::Router::new(),
            starts: 0,
            stamps: 0,
            dice,
        };
        for object in yard.objects() {
            yard.control(object).await;
        }
        yard
    }

    /// With a cohort that was synced.
    pub(super) async fn synced(temper: Temper, members: &BTreeMap<String, u32>) -> Self {
        let mut yard = Self::new(temper).await;
        yard.start().await;
        yard.upload(members).await;
        let approve_removals = false;
        yard.ask(Ask::Run { approve_removals }).await;
        yard.until_idle().await;
        yard
    }

    fn objects(&self) -> Vec<ControlObject> {
        let tenant = self.sync.tenant.clone();
        let endpoint = Endpoint::new(
            self.sync.endpoint,
            tenant.clone(),
            Quota::of_endpoint(self.sync.endpoint),
            self.sync.placement,
        );
        vec![
            ControlObject::Tenant(Tenant {
                id: tenant.clone(),
                name: None,
                events_per_second: None,
                bytes_per_second: None,
                fair_share: FairShare::default(),
                created_at: 0,
                updated_at: 0,
            }),
            ControlObject::Cohort(CohortObject {
                id: self.sync.cohort,
                tenant,
                name: "all".to_owned(),
                created_at: 0,
                updated_at: 0,
            }),
            ControlObject::Endpoint(Box::new(endpoint)),
            ControlObject::Sync(Box::new(self.sync.clone())),
        ]
    }

    pub(super) async fn control(&self, object: ControlObject) {
        let record = Record {
            topic: self.topics.control.clone(),
            partition: Some(0),
            key: Some(Bytes::from(object.key().to_string())),
            value: Some(Bytes::from(object.encode())),
            headers: Headers::default(),
        };
        self.write(record).await;
    }

    async fn write(&self, record: Record) {
        let log = self.sim.process("others");
        let producer = log
            .producer(ProducerOptions::named("others"))
            .await
            .unwrap();
        let written = producer.send(vec![record]).await.wait().await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }

    pub(super) async fn change_sync(&mut self, change: impl FnOnce(&mut Sync)) {
        change(&mut self.sync);
        self.control(ControlObject::Sync(Box::new(self.sync.clone())))
            .await;
    }

    /// A partner with jobs, before the service starts.
    pub(super) async fn with_jobs(&mut self, jobs: Jobs) {
        self.partner.jobs = jobs;
        let of = |name: &str| Profile::from_yaml(ready(name).unwrap()).unwrap().operations;
        let other = of("google-customer-match");
        self.change_sync(|sync| {
            let operations = &mut sync.profile.operations;
            operations.poll = other.poll;
            if let Some(poll) = &mut operations.poll {
                let at = poll.done.at.clone();
                poll.request.capture = BTreeMap::from([("state".to_owned(), at)]);
                poll.done.values = vec![json!("DONE")];
            }
            if jobs == Jobs::OfRuns {
                (operations.start_job, operations.run_job) = (other.start_job, other.run_job);
            }
        })
        .await;
    }

    /// Starts the service as a new process.
    pub(super) async fn start(&mut self) {
        self.starts += 1;
        let name = format!("c{}", self.starts);
        let tasks = Tasks::new(&name);
        let environment = Environment {
            log: self.sim.process(&name),
            topics: self.topics.clone(),
            clock: self.sim.clock(),
            entropy: Entropy::seeded(u64::from(self.starts)),
            tasks: tasks.clone(),
            metrics: Metrics::new(),
            gate: Readiness::new().gate("cohorts"),
        };
        let mut options = options(&name);
        options.bounds.chunks = self.chunks_ahead;
        let opened = crate::service::open(options, environment, self.store.store());
        let (app, owner, _) = opened.await.unwrap();
        self.lives.push(app.live());
        self.router = crate::service::http::router(app);
        tasks.spawn(TaskKind::Reporter, owner.run());
        self.others.extend(self.process.replace((name, tasks)));
    }

    /// Another sync, of an endpoint with that quota.
    pub(super) async fn add_sync(&self, bits: u128, quota: &Quota) -> SyncId {
        let sync = Sync {
            id: SyncId::from_bits(bits),
            subscription: SubscriptionId::from_bits(bits),
            placement: Placement::of(quota, PARTITIONS.try_into().unwrap()),
            ..self.sync.clone()
        };
        let id = sync.id;
        self.control(ControlObject::Sync(Box::new(sync))).await;
        id
    }

    /// The processes that say they run a sync, in the order of their starts.
    pub(super) fn who_runs(&self, sync: SyncId) -> Vec<usize> {
        let all = self.lives.iter().enumerate();
        let such = all.filter(|(_, live)| live.get(sync).is_some());
        such.map(|(process, _)| process).collect()
    }

    /// Ends it as by SIGKILL.
    pub(super) fn crash(&mut self) {
        if let Some((name, tasks)) = self.process.take() {
            self.sim.crash(&name);
            tasks.cancel();
        }
    }

    /// Lets time go by, in which the partner works.
    pub(super) async fn pass(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        let step = (time / 2_000).max(Duration::from_millis(50));
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(step).await;
            self.work().await;
        }
    }

    /// The partner looks at what there is, and reports some of it.
    async fn work(&mut self) {
        for number in 0..PARTITIONS {
            let records = self.sim.records(&self.topics.deliveries.partition(number));
            let read = self.partner.read.entry(number).or_default();
            for record in &records[*read..] {
                let value = record.value.as_ref().unwrap();
                let delivery = DeliveryRecord::decode(record.headers.iter(), value).unwrap();
                // rule 3
                let is_new = self.partner.marks.insert(delivery.marks().next().unwrap());
                let chunk = Chunk::read(delivery.event.data().unwrap()).unwrap();
                let is_silent = chunk.operation.has_members()
                    && self.partner.temper.entropy.unit() < self.partner.temper.silent;
                if is_new && !is_silent {
                    self.partner.waiting.push(delivery);
                }
            }
            *read = records.len();
        }
        let unreported = self.partner.waiting.len();
        self.partner.unreported_max = self.partner.unreported_max.max(unreported);
        for delivery in std::mem::take(&mut self.partner.waiting) {
            if self.partner.temper.entropy.unit() >= self.partner.temper.answers {
                self.partner.waiting.push(delivery);
                continue;
            }
            let report = self.partner.take(&delivery);
            let record = Record {
                topic: self.topics.results.clone(),
                partition: None,
                key: Some(Bytes::from(ResultRecord::key(report.bulk))),
                value: Some(Bytes::from(report.encode())),
                headers: Headers::default(),
            };
            self.write(record).await;
        }
    }

    // === What users do ===

    pub(super) fn draw(&self, below: u32) -> u32 {
        u32::try_from(self.dice.u64() % u64::from(below)).unwrap()
    }

    fn cohort(&self) -> Cohort {
        let (tenant, cohort) = (self.sync.tenant.as_str(), self.sync.cohort.to_string());
        Cohort::new(&self.store.store(), tenant, &cohort)
    }

    fn stamp(&mut self) -> jiff::Timestamp {
        self.stamps += 1;
        jiff::Timestamp::from_second(self.stamps).unwrap()
    }

    pub(super) async fn upload(&mut self, members: &BTreeMap<String, u32>) {
        let (cohort, created) = (self.cohort(), self.stamp());
        let rows = ndjson(members.iter().map(|(id, v)| (id.as_str(), *v)));
        let new = NewSnapshot {
            id: format!("s{}", self.stamps),
            created,
        };
        blocking(move || {
            let options = UploadOptions {
                sort: sort(),
                ..UploadOptions::default()
            };
            cohort.make(&new, &mut rows.as_bytes(), &options, &Progress::default())
        })
        .await;
    }

    pub(super) async fn change(&mut self, add: &BTreeMap<String, u32>, remove: &[&str]) {
        let mut changes = Changes::default();
        for (id, v) in add {
            let row = json!({"id": id, "v": v}).to_string();
            changes.add(row.as_bytes()).unwrap();
        }
        for id in remove {
            changes.remove(id).unwrap();
        }
        let (cohort, created) = (self.cohort(), self.stamp());
        blocking(move || cohort.add_delta(changes, created)).await;
        self.ask(Ask::Look).await;
    }

    pub(super) async fn ask(&mut self, ask: Ask) {
        let request = Request::new(self.sync.id, ask, (&self.sim.clock(), &self.dice));
        let requests = Requests::new(&self.store.store());
        blocking(move || requests.leave(&request)).await;
    }

    /// A request to the service; the status and the body.
    pub(super) async fn call(&self, call: &str, key: &str, body: &str) -> (u16, String) {
        let (method, path) = call.split_once(' ').unwrap();
        let request = http::Request::builder()
            .method(method)
            .uri(path.replace("{cohort}", &self.sync.cohort.to_string()))
            .header("authorization", format!("Bearer {key}"))
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    /// What the service says of the sync.
    pub(super) async fn status(&self) -> (u16, Value) {
        self.ask_for("").await
    }

    /// What it says that a run would do.
    pub(super) async fn plan(&self) -> (u16, Value) {
        self.ask_for("/plan").await
    }

    async fn ask_for(&self, what: &str) -> (u16, Value) {
        let call = format!("GET {}{what}", self.sync_path());
        let (status, body) = self.call(&call, OPERATOR, "").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The same for another schedule.
    pub(super) async fn plan_for(&self, schedule: &str) -> (u16, Value) {
        self.ask_for(&format!("/plan?cron={schedule}")).await
    }

    /// Limits the sync's endpoint.
    pub(super) async fn limit(&self, window: RateWindow) {
        for object in self.objects() {
            if let ControlObject::Endpoint(mut endpoint) = object {
                endpoint.limits = vec![window];
                self.control(ControlObject::Endpoint(endpoint)).await;
            }
        }
    }

    /// What was told last of how many members there are.
    pub(super) fn told(&self) -> BTreeMap<String, Option<u64>> {
        let partitions = (0..PARTITIONS).map(|number| self.topics.progress.partition(number));
        let records = partitions.flat_map(|partition| self.sim.records(&partition));
        let counts = records.map(|record| {
            let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
            let count = record
                .value
                .map(|value| MemberCount::decode(&value).unwrap());
            (key, count.map(|count| count.members))
        });
        counts.collect()
    }

    pub(super) async fn report(&self) -> String {
        let call = format!("GET {}/report", self.sync_path());
        self.call(&call, OPERATOR, "").await.1
    }

    pub(super) async fn cohort_view(&self) -> View {
        let cohort = self.cohort();
        blocking(move || cohort.view()).await
    }

    pub(super) fn sync_path(&self) -> String {
        format!("/v1/tenants/acme/syncs/{}", self.sync.id)
    }

    // === What is so ===

    pub(super) async fn note(&self) -> Note {
        let folder = roster_folder(&self.store.store(), self.sync.id);
        let identity = identity(&self.sync);
        blocking(move || Note::read(Roster::open(folder, &identity)?.note())).await
    }

    pub(super) async fn cohort_now(&self) -> BTreeMap<String, u32> {
        let cohort = self.cohort();
        blocking(move || {
            let mut members = cohort.members(&cohort.view()?);
            let mut found = BTreeMap::new();
            while members.advance()? {
                let entry = members.entry().unwrap();
                let body: Value = serde_json::from_slice(entry.body).unwrap();
                let id = String::from_utf8(entry.id.to_vec()).unwrap();
                found.insert(id, u32::try_from(body["v"].as_u64().unwrap()).unwrap());
            }
            Ok(found)
        })
        .await
    }

    /// Those whom the partner does not refuse.
    pub(super) fn taken(&self, members: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
        let Temper {
            refused, poison, ..
        } = self.partner.temper;
        let is_taken = |id: &str| !is_multiple(id, refused) && !is_multiple(id, poison);
        let taken = members.iter().filter(|(id, _)| is_taken(id));
        taken.map(|(id, v)| (id.clone(), *v)).collect()
    }

    async fn is_idle(&self) -> bool {
        let note = self.note().await;
        let requests = Requests::new(&self.store.store());
        let asked = blocking(move || requests.all()).await;
        let cohort = self.cohort();
        let newest = blocking(move || Ok(cohort.view()?.last_delta())).await;
        // Deltas before the first run wait for it.
        let is_up_to_date = note.last_delta.is_none_or(|last| last >= newest)
            || note.last.is_some_and(|last| last.outcome != "done");
        let is_heard = note.late.is_empty() && !note.held_back;
        note.run.is_none() && note.queued.is_none() && asked.is_empty() && is_up_to_date && is_heard
    }

    /// Lets the partner work until nothing is to be done.
    pub(super) async fn until_idle(&mut self) {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.pass(Duration::from_millis(1_500)).await;
            if self.is_idle().await {
                return;
            }
            if tokio::time::Instant::now() > until {
                panic!("the sync does not end: {:#?}", self.note().await);
            }
        }
    }

    /// Lets the partner work until it holds so many members.
    pub(super) async fn until_taken(&mut self, members: usize) {
        while self.partner.list.len() < members {
            self.pass(Duration::from_millis(100)).await;
        }
    }

    /// Lets the partner work until so many runs have ended; the last one's summary.
    pub(super) async fn until_run_ends(&mut self, runs: u64) -> Summary {
        loop {
            self.pass(Duration::from_millis(200)).await;
            let note = self.note().await;
            let ended = note.runs - u64::from(note.run.is_some());
            if let Some(last) = note.last.filter(|_| ended >= runs) {
                return last;
            }
        }
    }
}

fn sync(now: i64) -> Sync {
    let mut profile = Profile::from_yaml(ready("generic-50").unwrap()).unwrap();
    profile.limits.items = ITEMS.try_into().unwrap();
    Sync {
        id: SyncId::from_bits(1),
        tenant: "acme".parse().unwrap(),
        name: None,
        cohort: CohortId::from_bits(2),
        endpoint: EndpointId::from_bits(3),
        subscription: SubscriptionId::from_bits(4),
        placement: Placement::of(
            &Quota::of_endpoint(EndpointId::from_bits(3)),
            PARTITIONS.try_into().unwrap(),
        ),
        profile: Box::new(profile),
        variables: serde_json::Map::new(),
        list: None,
        schedule: None,
        overlap: Default::default(),
        removals_max_percent: 20,
        state: Default::default(),
        created_at: now,
        updated_at: now,
    }
}

fn options(name: &str) -> crate::service::Options {
    let config = runtime::config::Config::default();
    crate::service::Options {
        instance: name.to_owned(),
        operator_key: Some(OPERATOR.into()),
        sort: sort(),
        ..crate::service::Options::from_config(&config)
    }
}

fn sort() -> SortOptions {
    SortOptions {
        memory_bytes: 1 << 20,
        ..SortOptions::default()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> T {
    tokio::task::spawn_blocking(work).await.unwrap().unwrap()
}

/// Runs a test in paused time.
pub(super) fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test);
}

/// Runs a test with so many seeds, or with the one or as many as the environment says.
pub(super) fn seeds(count: u64, test: impl Fn(u64)) {
    let told = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let (first, count) = match told("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, told("SIM_SEEDS").unwrap_or(count)),
    };
    (first..first + count).for_each(test);
}
