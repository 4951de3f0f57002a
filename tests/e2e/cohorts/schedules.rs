//! Schedules from the command line: one that cannot be kept is refused, with the numbers.

use std::process::Output;

use harness::Log;
use reqwest::Method;
use serde_json::{Value, json};

use super::{MEMBERS, Scene, slower};
use crate::commands::{anabranch, text};

/// The command line's `sync`, beside the scene.
struct Shell<'s> {
    scene: &'s Scene,
    dir: tempfile::TempDir,
}

impl Shell<'_> {
    fn sync(&self, args: &[&str]) -> Output {
        let pipeline = &self.scene.pipeline;
        let mut all = vec!["sync", args[0], "--tenant", "acme"];
        all.extend(["--key", pipeline.operator_key()]);
        all.extend(["--control-url", pipeline.control().base()]);
        all.extend(["--cohorts-url", pipeline.cohorts().base()]);
        all.extend(&args[1..]);
        anabranch(self.dir.path(), &all, "")
    }

    async fn syncs(&self) -> Vec<Value> {
        let control = self.scene.pipeline.control();
        let path = self.scene.pipeline.path("/syncs");
        let listed = control.call(Method::GET, &path, None).await.json();
        listed["items"].as_array().expect("a page").clone()
    }
}

#[tokio::test]
async fn a_schedule_that_cannot_be_kept_is_refused_with_the_numbers() {
    let scene = Scene::start(Log::Embedded, &[]).await;
    scene.upload((0..MEMBERS).map(|id| (id, 1))).await;
    let shell = Shell {
        scene: &scene,
        dir: tempfile::tempdir().expect("a folder"),
    };
    // A hundred requests, one a second: more than a minute.
    let profile = slower(1);
    let profile = profile.path().display().to_string();
    let endpoint = scene.endpoint().await;
    let create = |more: &[&str]| {
        let mut args = vec!["create", "--cohort", scene.cohort.as_str()];
        args.extend(["--endpoint", &endpoint, "--profile", &profile]);
        args.extend(more);
        shell.sync(&args)
    };
    let refused = create(&["--schedule", "* * * * *"]);
    let told = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    for said in ["100 requests", "1 min 39 s", "1 min 0 s", "--anyway"] {
        assert!(told.contains(said), "no `{said}` in:\n{told}");
    }
    assert_eq!(shell.syncs().await.len(), 1, "nothing is left of it");
    let taken = create(&["--schedule", "0 * * * *", "--name", "hourly"]);
    assert!(taken.status.success(), "{}", text(&taken));
    let update = |more: &[&str]| {
        let args = [&["update", "hourly", "--schedule", "* * * * *"], more].concat();
        shell.sync(&args)
    };
    assert_eq!(update(&[]).status.code(), Some(1));
    let schedules = async || -> Vec<Value> {
        let syncs = shell.syncs().await;
        let schedules = syncs.iter().map(|sync| sync["schedule"]["cron"].clone());
        schedules.filter(|cron| !cron.is_null()).collect()
    };
    assert_eq!(schedules().await, [json!("0 * * * *")]);
    let plan = shell.sync(&["plan", "hourly"]);
    assert!(plan.status.success(), "{}", text(&plan));
    assert!(update(&["--anyway"]).status.success());
    assert_eq!(schedules().await, [json!("* * * * *")]);
    let plan = shell.sync(&["plan", "hourly"]);
    assert_eq!(plan.status.code(), Some(1), "{}", text(&plan));
}
