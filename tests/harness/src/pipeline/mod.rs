//! Owns a running Anabranch: its processes, its tenant, its endpoints and subscriptions.
//!
//! It must never know how a service works. The surprise: every change waits until it is applied,
//! unless a test asks otherwise, so that the next event meets it.

mod builder;
mod endpoint;
mod making;
mod processes;
mod publishing;

use std::path::Path;

use tempfile::TempDir;
use tokio::sync::SemaphorePermit;

use crate::api::Api;
use crate::process::Process;
use crate::topic;
use processes::Launch;

pub use builder::{Builder, Log, pipeline};
pub use endpoint::Endpoint;

const TENANT: &str = "acme";

/// A running pipeline with one tenant.
#[derive(Debug)]
pub struct Pipeline {
    launch: Launch,
    brokers: Option<String>,
    prefix: String,
    operator: String,
    control: Api,
    ingest: Api,
    cohorts: Api,
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

    /// The cohorts service with the tenant's key; on Kafka, where the pipeline has one.
    pub fn cohorts(&self) -> &Api {
        &self.cohorts
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
