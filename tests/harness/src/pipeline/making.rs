//! Owns how a pipeline comes up: its keys, its topics, its processes, its tenant.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use super::builder::Builder;
use super::processes::{Launch, ready, set};
use super::{Pipeline, TENANT};
use crate::api::Api;
use crate::ports::free_port;
use crate::process::Process;

/// A pipeline that is being made.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) builder: Builder,
    pub(super) data: TempDir,
    pub(super) logs: PathBuf,
    pub(super) prefix: String,
    pub(super) turn: SemaphorePermit<'static>,
}

impl Making {
    pub(super) async fn embedded(self) -> Pipeline {
        let (ingest, control, cohorts) = (free_port(), free_port(), free_port());
        let data = self.data.path().display().to_string();
        let mut args = vec!["--data-dir".to_owned(), data];
        args.extend(set(&format!("ingest.bind=127.0.0.1:{ingest}")));
        args.extend(set(&format!("control.bind=127.0.0.1:{control}")));
        args.extend(set(&format!("cohorts.bind=127.0.0.1:{cohorts}")));
        let launch = self.launch();
        let (mut up, admin) = launch.run("up", "up", &args);
        ready(&mut up, admin).await;
        let key = std::fs::read_to_string(self.data.path().join("operator.key"));
        let key = key
            .expect("up keeps the operator's key in its folder")
            .trim()
            .to_owned();
        let up = vec![(up, admin)];
        self.finish((launch, None), key, [ingest, control, cohorts], up)
            .await
    }

    pub(super) async fn kafka(self, brokers: String) -> Pipeline {
        let (config, key) = self.new_keys();
        self.create_topics(&brokers);
        let config = config.display().to_string();
        let connection = ["--brokers", &brokers, "--config", &config].map(str::to_owned);
        let mut launch = self.launch();
        launch.shared.splice(0..0, connection);
        let (ingest, control, cohorts) = (free_port(), free_port(), free_port());
        let mut bind = set(&format!("control.bind=127.0.0.1:{control}")).to_vec();
        if !self.builder.loopback {
            // Control would refuse the URL; the dispatcher must refuse the address (SS-6).
            bind.extend(set("dispatcher.allow_loopback=true"));
        }
        let mut processes = vec![launch.service("control", "control", &bind)];
        let bind = set(&format!("ingest.bind=127.0.0.1:{ingest}"));
        processes.push(launch.service("ingest", "ingest", &bind));
        if self.builder.cohorts {
            // Replicas share the store, and are asked nothing.
            let store = self.data.path().join("cohorts").display().to_string();
            for setting in [
                format!("cohorts.store={store}"),
                "cohorts.bind=127.0.0.1:0".to_owned(),
            ] {
                launch.own.push(("cohorts".to_owned(), setting));
            }
            let bind = set(&format!("cohorts.bind=127.0.0.1:{cohorts}"));
            processes.push(launch.service("cohorts", "cohorts", &bind));
        }
        for (service, count) in [
            ("router", self.builder.routers),
            ("dispatcher", self.builder.dispatchers),
        ] {
            for number in 1..=count {
                processes.push(launch.service(service, &format!("{service}-{number}"), &[]));
            }
        }
        for (process, admin) in &mut processes {
            ready(process, *admin).await;
        }
        let ports = [ingest, control, cohorts];
        self.finish((launch, Some(brokers)), key, ports, processes)
            .await
    }

    fn launch(&self) -> Launch {
        Launch {
            binary: self.builder.binary.clone(),
            logs: self.logs.clone(),
            shared: self.common(),
            own: self.builder.own_settings.clone(),
        }
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
        (launch, brokers): (Launch, Option<String>),
        operator: String,
        [ingest, control, cohorts]: [u16; 3],
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
            launch,
            brokers,
            prefix: self.prefix,
            operator,
            control: control.with_key(&key),
            ingest: Api::new(&format!("http://127.0.0.1:{ingest}"), &key),
            cohorts: Api::new(&format!("http://127.0.0.1:{cohorts}"), &key),
            processes,
            data: self.data,
            _turn: self.turn,
        };
        pipeline.ingest_knows_the_key().await;
        pipeline
    }
}
