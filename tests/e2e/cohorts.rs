//! Cohorts into a partner's list: through the service, the log, a dispatcher and HTTP, to the
//! simulated partner and back. In the end its list is the cohort less those whom it refused.

mod crowd;
mod kills;
mod schedules;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use harness::{Api, Builder, Log, Pipeline, Process, eventually, free_port};
use reqwest::Method;
use serde_json::{Value, json};

use crate::pipeline;

const MEMBERS: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(180);

/// A partner, and a sync that makes its list equal to a cohort.
struct Scene {
    pipeline: Pipeline,
    partner: Api,
    /// The partner's URL.
    url: String,
    cohort: String,
    sync: String,
    /// Stopped with the test.
    _simulator: Process,
    _logs: tempfile::TempDir,
}

impl Scene {
    async fn start(log: Log, faults: &[&str]) -> Self {
        Self::start_with(pipeline().on(log), "generic-50", faults).await
    }

    /// With a partner that is simulated by another profile than the sync's, and which Anabranch
    /// knows no limits of then.
    async fn start_with(pipeline: Builder, simulated: &str, faults: &[&str]) -> Self {
        let pipeline = pipeline
            .cohorts()
            .set("dispatcher.allow_http=true")
            .set("dispatcher.allowed_ports=0")
            .start()
            .await;
        let (logs, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let listen = format!("127.0.0.1:{port}");
        let mut args = vec!["simulate", simulated, "--listen", &listen];
        args.extend(faults);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let binary = Path::new(env!("CARGO_BIN_EXE_anabranch"));
        let simulator = Process::start("simulator", binary, &args, logs.path());
        let partner = Api::new(&format!("http://{listen}"), "");
        eventually("the partner answers", PATIENCE, async || {
            partner.is_ok("/_simulator/stats").await.then_some(())
        })
        .await;
        let mut scene = Self {
            pipeline,
            partner,
            url: format!("http://{listen}"),
            cohort: String::new(),
            sync: String::new(),
            _simulator: simulator,
            _logs: logs,
        };
        scene.cohort = scene.make("/cohorts", json!({"name": "all"})).await;
        let endpoint = scene.endpoint().await;
        let sync = json!({
            "cohort": scene.cohort, "endpoint": endpoint, "profile": "generic-50",
            "apply_limits": simulated == "generic-50",
        });
        scene.sync = scene.make("/syncs", sync).await;
        eventually("cohorts know the sync", PATIENCE, async || {
            let (status, _) = scene.ask(Method::GET, "").await;
            (status == 200).then_some(())
        })
        .await;
        scene
    }

    /// Makes an object; its id.
    async fn make(&self, path: &str, body: Value) -> String {
        let path = self.pipeline.path(&format!("{path}?wait=applied"));
        let made = self.pipeline.control().make(&path, &body).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Makes an endpoint at the partner; its id.
    async fn endpoint(&self) -> String {
        let endpoint = json!({
            "url": self.url,
            "authentication": {"kind": "bearer", "token": "t-1"},
            "retry_schedule_ms": [200, 400, 800, 1_000, 1_000, 1_000, 1_000, 1_000],
        });
        self.make("/endpoints", endpoint).await
    }

    /// Asks the service about the sync; the status and the text.
    async fn ask(&self, method: Method, rest: &str) -> (u16, String) {
        self.ask_of(&self.sync, method, rest).await
    }

    /// The same about another.
    async fn ask_of(&self, sync: &str, method: Method, rest: &str) -> (u16, String) {
        let path = self.pipeline.path(&format!("/syncs/{sync}{rest}"));
        let sent = self.pipeline.cohorts().send(method, &path, &[], "");
        sent.await.map_or_else(
            |error| (0, error.to_string()),
            |answer| (answer.status, answer.text),
        )
    }

    async fn upload(&self, members: impl Iterator<Item = (usize, u32)>) -> String {
        self.upload_to(&self.cohort, members).await
    }

    /// Uploads a snapshot of a cohort; its id.
    async fn upload_to(&self, cohort: &str, members: impl Iterator<Item = (usize, u32)>) -> String {
        let rows: String = members
            .map(|(id, v)| format!("{{\"id\":\"u{id:05}\",\"v\":{v}}}\n"))
            .collect();
        let path = self.pipeline.path(&format!("/cohorts/{cohort}/snapshots"));
        let ndjson = [("content-type".to_owned(), "application/x-ndjson".to_owned())];
        let sent = self
            .pipeline
            .cohorts()
            .send(Method::POST, &path, &ndjson, rows);
        let answer = sent.await.expect("an answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = &answer.json()["snapshot"]["id"];
        id.as_str().expect("a snapshot's id").to_owned()
    }

    /// What the partner counted.
    async fn counted(&self, what: &str) -> u64 {
        let told = self.partner.call(Method::GET, "/_simulator/stats", None);
        let stats = told.await.json();
        stats[what].as_u64().expect("a count")
    }

    /// Waits until the sync is done with a snapshot and with all that it had left on its way.
    async fn done_with(&self, snapshot: &str) -> Value {
        eventually(&format!("{snapshot} is synced"), PATIENCE, async || {
            let (status, text) = self.ask(Method::GET, "").await;
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let is_done = status == 200
                && body["state"] == "idle"
                && body["late"] == 0
                && body["last"]["snapshot"] == snapshot
                && body["last"]["outcome"] == "done";
            is_done.then(|| body["last"].clone())
        })
        .await
    }

    async fn run(&self) {
        let (status, text) = self.ask(Method::POST, "/runs").await;
        assert_eq!(status, 202, "{text}");
    }

    /// Waits until so many runs of whatever kind have ended, and says how the last one did.
    async fn run_ended(&self, run: &str) -> Value {
        eventually(&format!("{run} is over"), PATIENCE, async || {
            let (status, text) = self.ask(Method::GET, "").await;
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let is_over = status == 200 && body["last"]["id"] == run && body["run"].is_null();
            is_over.then(|| body["last"].clone())
        })
        .await
    }

    /// Members that the report says are rejected.
    async fn rejected(&self) -> BTreeSet<String> {
        let (status, text) = self.ask(Method::GET, "/report").await;
        assert_eq!(status, 200, "{text}");
        let lines = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(line["state"], "rejected", "{line}");
            line["id"].as_str().expect("an id").to_owned()
        });
        lines.collect()
    }

    /// Members that the partner has, and their versions.
    async fn held(&self) -> BTreeSet<String> {
        let get = async |path: &str| self.partner.call(Method::GET, path, None).await.json();
        let lists = get("/_simulator/lists").await;
        let lists = lists.as_object().expect("lists by their ids");
        assert_eq!(lists.len(), 1, "{lists:?}");
        let list = lists.keys().next().expect("a list");
        let told = get(&format!("/_simulator/lists/{list}?members=1")).await;
        let members = told["members"].as_array().expect("members");
        let member = |member: &Value| {
            let id = member["id"].as_str().expect("an id");
            format!("{id}={}", member["item"]["v"])
        };
        members.iter().map(member).collect()
    }

    /// The partner has everybody as they are but those whom it refused.
    async fn audit(&self, members: impl Iterator<Item = (usize, u32)>) {
        let rejected = self.rejected().await;
        let expected: BTreeSet<String> = members
            .map(|(id, v)| (format!("u{id:05}"), v))
            .filter(|(id, _)| !rejected.contains(id))
            .map(|(id, v)| format!("{id}={v}"))
            .collect();
        let held = self.held().await;
        let missing = expected.difference(&held).count();
        let extra = held.difference(&expected).count();
        assert_eq!((missing, extra), (0, 0), "rejected: {}", rejected.len());
    }
}

/// rules 14 and 15
async fn a_partners_list_becomes_the_cohort(log: Log) {
    let faults = [
        "--reject",
        "1%",
        "--partial",
        "5%",
        "--drop",
        "1%",
        "--seed",
        "7",
    ];
    let scene = Scene::start(log, &faults).await;
    scene.upload((0..MEMBERS).map(|id| (id, 1))).await;
    scene.run().await;
    let first = scene.run_ended("run_000001").await;
    assert_eq!(first["outcome"], "done", "{first}");
    scene.audit((0..MEMBERS).map(|id| (id, 1))).await;
    assert!(!scene.rejected().await.is_empty(), "one in a hundred");
    // Some leave and some change.
    let next = (100..MEMBERS + 50).map(|id| (id, u32::from(id % 10 != 0)));
    scene.upload(next.clone()).await;
    scene.run().await;
    let second = scene.run_ended("run_000002").await;
    assert_eq!(second["outcome"], "done", "{second}");
    scene.audit(next).await;
}

/// A profile as the partner has it, which Anabranch is not told of: so few requests a second.
fn slower(per_second: u32) -> tempfile::NamedTempFile {
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/generic-50.yaml");
    let text = std::fs::read_to_string(profile).expect("a profile");
    let limit = "windows: [{requests: 1000,";
    assert!(text.contains(limit));
    let text = text.replace(limit, &format!("windows: [{{requests: {per_second},"));
    let file = tempfile::Builder::new().suffix(".yaml").tempfile();
    let file = file.expect("a file");
    std::fs::write(file.path(), text).expect("a profile is written");
    file
}

/// rules 11, 14 and 15
async fn a_partner_that_limits_hangs_up_and_answers_in_part_has_the_cohort_in_the_end(log: Log) {
    let profile = slower(30);
    let name = profile.path().display().to_string();
    let faults = [
        "--reject",
        "1%",
        "--partial",
        "5%",
        "--drop",
        "10%",
        "--seed",
        "11",
    ];
    let scene = Scene::start_with(pipeline().on(log), &name, &faults).await;
    let snapshot = scene.upload((0..MEMBERS).map(|id| (id, 1))).await;
    scene.run().await;
    scene.done_with(&snapshot).await;
    scene.audit((0..MEMBERS).map(|id| (id, 1))).await;
    assert!(scene.counted("limited").await > 0, "it was asked too often");
    // Whoever was added twice was in a request whose answer was lost.
    let (again, lost) = (
        scene.counted("added_again").await,
        scene.counted("dropped_after").await,
    );
    assert!(again <= lost * 50, "{again} again, {lost} answers lost");
    assert!(lost + scene.counted("dropped_before").await > 0);
}

crate::on_both_logs!(
    a_partners_list_becomes_the_cohort,
    a_partner_that_limits_hangs_up_and_answers_in_part_has_the_cohort_in_the_end,
);

#[tokio::test]
async fn a_run_goes_on_after_kills() {
    // rule 13
    let slow = ["--slow", "100", "--reject", "1%"];
    let mut scene = Scene::start(Log::Kafka, &slow).await;
    scene.upload((0..MEMBERS).map(|id| (id, 1))).await;
    scene.run().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let cohorts = scene.pipeline.process("cohorts");
        cohorts.kill();
        cohorts.restart();
        scene.pipeline.ready("cohorts").await;
    }
    let last = scene.run_ended("run_000001").await;
    assert_eq!(last["outcome"], "done", "{last}");
    scene.audit((0..MEMBERS).map(|id| (id, 1))).await;
}
