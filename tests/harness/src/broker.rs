//! Owns the Kafka that tests run on: the one that the environment names, or one of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A running Kafka.
#[derive(Debug)]
pub struct Broker {
    brokers: String,
    /// Where it is ours to stop.
    dir: Option<TempDir>,
}

impl Broker {
    /// The one that all tests share. It is started for this process where the environment names
    /// none, and ends with it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn shared() -> &'static str {
        static SHARED: OnceLock<String> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("KAFKA_BROKERS") {
            Ok(brokers) if !brokers.is_empty() => brokers,
            Ok(_) | Err(_) => {
                brokers_of(&script(&["up", "--with", &std::process::id().to_string()]))
            }
        })
    }

    /// A Kafka of the test's own, which it may restart.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn own() -> Self {
        Self::up(&["--nodes", "1"])
    }

    /// The same, where it can be said what nobody may do: see [`Broker::deny`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn with_acls() -> Self {
        Self::up(&["--nodes", "1", "--acls"])
    }

    /// A Kafka of three nodes, of the test's own: each partition is on all of them.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of_three_nodes() -> Self {
        Self::up(&["--nodes", "3"])
    }

    fn up(options: &[&str]) -> Self {
        let dir = TempDir::with_prefix("anabranch-kafka-").expect("a folder");
        let path = dir.path().display().to_string();
        let id = std::process::id().to_string();
        let own = ["--dir", &path, "--with", &id];
        let printed = script(&[&["up"], options, &own].concat());
        Self {
            brokers: brokers_of(&printed),
            dir: Some(dir),
        }
    }

    /// Its addresses.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Ends it and starts it again on the same ports and data.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&self) {
        self.tell(&["restart"]);
    }

    /// The same with `kill -9`.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn kill_and_start(&self) {
        self.tell(&["restart", "--kill"]);
    }

    /// Ends it and leaves its data for [`Broker::start`].
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&self) {
        self.tell(&["stop"]);
    }

    /// Starts it again, on the same ports and data.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn start(&self) {
        self.tell(&["start"]);
    }

    /// `kill -9` of one node.
    ///
    /// # Panics
    /// When there is none of that number.
    pub fn kill_node(&self, node: u32) {
        self.tell(&["stop", "--kill", "--node", &node.to_string()]);
    }

    /// Starts a node that was killed, on the same ports and data.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn start_node(&self, node: u32) {
        self.tell(&["start", "--node", &node.to_string()]);
    }

    /// Forbids everybody an operation on a topic, e.g. `Read`.
    ///
    /// # Panics
    /// When it is no broker [with such lists](Broker::with_acls).
    pub fn deny(&self, topic: &str, operation: &str) {
        self.tell(&["deny", "--topic", topic, "--operation", operation]);
    }

    /// Takes that back.
    ///
    /// # Panics
    /// When it is no broker [with such lists](Broker::with_acls).
    pub fn allow(&self, topic: &str, operation: &str) {
        self.tell(&["allow", "--topic", topic, "--operation", operation]);
    }

    fn tell(&self, command: &[&str]) {
        if let Some(dir) = &self.dir {
            let dir = dir.path().display().to_string();
            script(&[command, &["--dir", &dir]].concat());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tell(&["down"]);
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("a crate within the workspace")
        .to_owned()
}

fn script(args: &[&str]) -> String {
    let output = Command::new(root().join("deploy/kafka/kafka"))
        .args(args)
        .env_remove("KAFKA_BROKERS")
        .env_remove("ANABRANCH_KAFKA_DIR")
        .stdin(Stdio::null())
        .output()
        .expect("deploy/kafka/kafka can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "deploy/kafka/kafka {args:?}: {said}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn brokers_of(printed: &str) -> String {
    let found = printed
        .lines()
        .find_map(|line| line.strip_prefix("KAFKA_BROKERS="));
    found
        .expect("deploy/kafka/kafka up names its brokers")
        .to_owned()
}
