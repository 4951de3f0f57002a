//! Owns what a pipeline is to be, before it is.

use std::path::PathBuf;

use tempfile::TempDir;

use super::Pipeline;
use super::making::Making;
use crate::broker::{Broker, root};
use crate::now_ms;
use crate::turn::{self, Weight};

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
    pub(super) binary: PathBuf,
    log: Log,
    pub(super) routers: usize,
    pub(super) dispatchers: usize,
    pub(super) cohorts: bool,
    pub(super) settings: Vec<String>,
    /// Settings of one service alone, by its name.
    pub(super) own_settings: Vec<(String, String)>,
    pub(super) loopback: bool,
    weight: Weight,
    /// Behind the test's name, in names of topics and folders.
    suffix: String,
}

/// A pipeline of `binary`: on Kafka, with one router and one dispatcher.
pub fn pipeline(binary: &str) -> Builder {
    Builder {
        binary: binary.into(),
        log: Log::Kafka,
        routers: 1,
        dispatchers: 1,
        cohorts: false,
        settings: Vec::new(),
        own_settings: Vec::new(),
        loopback: true,
        weight: Weight::Light,
        suffix: String::new(),
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

    /// With a cohorts service, which one process has anyway.
    #[must_use]
    pub fn cohorts(self) -> Self {
        Self {
            cohorts: true,
            ..self
        }
    }

    /// With `section.key=value` for all processes.
    #[must_use]
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// With `section.key=value` for the processes of one service, such as `router`.
    #[must_use]
    pub fn set_for(mut self, service: &str, setting: &str) -> Self {
        let own = (service.to_owned(), setting.to_owned());
        self.own_settings.push(own);
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

    /// Beside another pipeline of the same test that has the machine; `name` tells the two apart.
    #[must_use]
    pub fn beside(self, name: &str) -> Self {
        Self {
            weight: Weight::Shared,
            suffix: format!("-{name}"),
            ..self
        }
    }

    /// Starts it and waits until every process is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(self) -> Pipeline {
        let turn = turn::take(self.weight).await;
        let test = format!("{}{}", test_name(), self.suffix);
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
    let tail = name.len().saturating_sub(70);
    name.get(tail..)
        .unwrap_or("test")
        .trim_start_matches('-')
        .to_owned()
}
