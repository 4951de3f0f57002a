//! Owns how a pipeline's processes are started, found and asked.

use std::path::PathBuf;

use reqwest::Method;

use super::Pipeline;
use crate::api::Api;
use crate::poll::{DEADLINE, eventually};
use crate::ports::free_port;
use crate::process::Process;

impl Pipeline {
    /// One of its processes, such as `router-1`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn process(&mut self, name: &str) -> &mut Process {
        let mut all = self.processes.iter_mut().map(|(process, _)| process);
        all.find(|process| process.name() == name)
            .expect("a process of that name")
    }

    /// One more process of `service`, `router` or `dispatcher`, which is ready; its name.
    ///
    /// # Panics
    /// When it does not come up, or where all services are one process.
    pub async fn add(&mut self, service: &str) -> String {
        let name = self.launch_one_more(service);
        self.ready(&name).await;
        name
    }

    /// The same, which need not be ready.
    ///
    /// # Panics
    /// When it cannot be started, or where all services are one process.
    pub fn launch_one_more(&mut self, service: &str) -> String {
        assert!(
            self.brokers.is_some(),
            "the embedded log has one process alone"
        );
        let of_service = |(process, _): &&(Process, u16)| {
            let number = process.name().strip_prefix(service);
            number.is_some_and(|number| number.starts_with('-'))
        };
        let number = self.processes.iter().filter(of_service).count() + 1;
        let name = format!("{service}-{number}");
        let launched = self.launch.service(service, &name, &[]);
        self.processes.push(launched);
        name
    }

    /// A second process of the instance name of `name`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch_namesake(&self, name: &str) -> Process {
        let service = name.split('-').next().unwrap_or(name);
        let instance = set(&format!("instance={name}"));
        let process = format!("{name}-namesake");
        self.launch.run(service, &process, &instance).0
    }

    /// Starts a process again that has ended, as whoever runs it would.
    pub async fn revive(&mut self, name: &str) {
        let process = self.process(name);
        if process.ended().is_some() {
            process.restart();
            self.ready(name).await;
        }
    }

    /// Fails where a process has ended by itself.
    ///
    /// # Panics
    /// When one has.
    pub fn expect_all_alive(&mut self) {
        for (process, _) in &mut self.processes {
            let ended = process.ended();
            assert!(ended.is_none(), "{} has {ended:?}", process.name());
        }
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
}

/// How a process of a pipeline is started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) binary: PathBuf,
    pub(super) logs: PathBuf,
    /// Arguments of all services.
    pub(super) shared: Vec<String>,
    /// Settings of one service each.
    pub(super) own: Vec<(String, String)>,
}

impl Launch {
    /// Starts a service under a name of its own, and says its admin port.
    pub(super) fn service(&self, service: &str, name: &str, more: &[String]) -> (Process, u16) {
        let instance = set(&format!("instance={name}"));
        self.run(service, name, &[more, &instance].concat())
    }

    /// The same for a command that names itself.
    pub(super) fn run(&self, command: &str, name: &str, more: &[String]) -> (Process, u16) {
        let admin = free_port();
        let mut args = vec![command.to_owned()];
        args.extend_from_slice(&self.shared);
        for (_, setting) in self.own.iter().filter(|(service, _)| service == command) {
            args.extend(set(setting));
        }
        args.extend_from_slice(more);
        args.extend(set(&format!("admin.bind=127.0.0.1:{admin}")));
        let process = Process::start(name, &self.binary, &args, &self.logs);
        (process, admin)
    }
}

pub(super) fn set(setting: &str) -> [String; 2] {
    ["--set".to_owned(), setting.to_owned()]
}

pub(super) async fn ready(process: &mut Process, admin: u16) {
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
