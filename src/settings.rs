//! Owns what the process was told: the flags that every command takes, and the configuration made
//! of them, the environment and a file.
//!
//! It must never read an option in a second way. The surprise: `up` and `demo` have defaults of
//! their own (a few partitions, endpoints on loopback); they count only where nobody said otherwise.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use runtime::config::{Config, Layers, Loaded, Source};

/// Partitions in one process: enough to see several owners, few enough to start at once.
const PARTITIONS_OF_UP: u32 = 6;
/// The prefix of the demo's topics where the log is not its own.
const DEMO_PREFIX: &str = "anabranch-demo.";

/// The command line or the configuration cannot be meant: the process ends with 64.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Global {
    /// Read options from this TOML file (or ANABRANCH_CONFIG)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one option, e.g. dispatcher.horizon=5s; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) assignments: Vec<String>,
    /// Kafka's brokers, separated by commas (kafka.brokers)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) brokers: Option<String>,
    /// The folder for keys and the embedded log (`data_dir`)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Worker threads (threads)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<u16>,
    /// Print the configuration in force, each value with its source, and end
    #[arg(long, global = true)]
    pub(crate) print_config: bool,
    /// Check the configuration and end
    #[arg(long, global = true)]
    pub(crate) check_config: bool,
}

/// What a command is, as far as defaults go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All services in one process.
    Up,
    /// The same for a minute.
    Demo,
    /// One service, or a client.
    Other,
}

/// What a command cannot start without, and has no default for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Kafka.
    Brokers,
    /// Keys that secrets are sealed with.
    SealingKeys,
    /// The operator's key.
    OperatorKey,
}

impl Need {
    fn told(self, command: &str) -> String {
        let option = match self {
            Self::Brokers => {
                return format!(
                    "`{command}` needs Kafka: name its brokers with `--brokers host:port` (option \
                     `kafka.brokers`); without Kafka, `anabranch up` runs every service in one \
                     process"
                );
            }
            Self::SealingKeys => "secrets.keys",
            Self::OperatorKey => "control.operator_key",
        };
        format!(
            "option `{option}` is not set: `anabranch config new-keys` makes keys for a \
             configuration file that all services share"
        )
    }
}

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) loaded: Loaded,
}

impl Settings {
    /// Reads and checks everything that was said.
    ///
    /// # Errors
    /// [`Usage`] with every fault.
    pub(crate) fn load(global: &Global, role: Role) -> Result<Self, Usage> {
        Self::of(global, role, std::env::vars_os())
    }

    fn of(
        global: &Global,
        role: Role,
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, Usage> {
        let config = global.config.as_deref();
        let layers = Layers::standard(config, environment, &global.assignments);
        let data_dir = global
            .data_dir
            .as_ref()
            .map(|dir| dir.display().to_string());
        let flags = [
            ("kafka.brokers", global.brokers.clone()),
            ("data_dir", data_dir),
            ("threads", global.threads.map(|threads| threads.to_string())),
        ];
        let layers = flags
            .into_iter()
            .fold(layers, |layers, (key, value)| match value {
                Some(value) => layers.flag(key, &value),
                None => layers,
            });
        let loaded = layers.load().map_err(|faults| Usage(faults.to_string()))?;
        let mut settings = Self { loaded };
        settings.put_defaults(role);
        Ok(settings)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Refuses a configuration without what `command` needs.
    ///
    /// # Errors
    /// [`Usage`] with everything that is missing, and what to do instead.
    pub(crate) fn require(&self, command: &str, needs: &[Need]) -> Result<(), Usage> {
        let lacking = needs.iter().filter(|need| self.lacks(**need));
        let faults: Vec<String> = lacking.map(|need| need.told(command)).collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Usage(faults.join("\n")))
        }
    }

    fn lacks(&self, need: Need) -> bool {
        let config = &self.loaded.config;
        match need {
            Need::Brokers => config.kafka.brokers.is_empty(),
            Need::SealingKeys => config.secrets.keys.is_empty(),
            Need::OperatorKey => config.control.operator_key.is_none(),
        }
    }

    /// Whether nobody said anything about `key`.
    pub(crate) fn is_default(&self, key: &str) -> bool {
        self.loaded.source(key) == Source::Default
    }

    fn put_defaults(&mut self, role: Role) {
        match role {
            Role::Other => {}
            Role::Up => self.put_defaults_of_up(),
            Role::Demo => {
                self.put_defaults_of_up();
                self.put_defaults_of_demo();
            }
        }
    }

    fn put_defaults_of_up(&mut self) {
        if self.is_default("topics.partitions") {
            self.loaded.config.topics.partitions = PARTITIONS_OF_UP;
        }
        if self.is_default("dispatcher.allow_loopback") {
            self.loaded.config.dispatcher.allow_loopback = true;
        }
    }

    fn put_defaults_of_demo(&mut self) {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let unset = |key: &str| self.loaded.source(key) == Source::Default;
        let (admin, ingest, control, cohorts) = (
            unset("admin.bind"),
            unset("ingest.bind"),
            unset("control.bind"),
            unset("cohorts.bind"),
        );
        let (prefix, filter) = (unset("topics.prefix"), unset("telemetry.filter"));
        let config = &mut self.loaded.config;
        let binds = [
            (admin, &mut config.admin.bind),
            (ingest, &mut config.ingest.bind),
            (control, &mut config.control.bind),
            (cohorts, &mut config.cohorts.bind),
        ];
        for (unset, bind) in binds {
            if unset {
                *bind = any_port;
            }
        }
        if prefix {
            DEMO_PREFIX.clone_into(&mut config.topics.prefix);
        }
        if filter {
            // The arrivals are what is to be read. A demo before this one on the same Kafka sealed
            // the secrets of its endpoint, deleted since, with a key that is gone.
            "warn,dispatcher::endpoints=off".clone_into(&mut config.telemetry.filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(assignments: &[&str]) -> Global {
        Global {
            config: None,
            assignments: assignments.iter().map(ToString::to_string).collect(),
            brokers: None,
            data_dir: None,
            threads: None,
            print_config: false,
            check_config: false,
        }
    }

    fn load(global: &Global, role: Role) -> Result<Settings, Usage> {
        Settings::of(global, role, [])
    }

    #[test]
    fn one_process_has_defaults_of_its_own_that_anybody_overrides() {
        let config = load(&global(&[]), Role::Up).unwrap().loaded.config;
        assert_eq!(
            (config.topics.partitions, config.dispatcher.allow_loopback),
            (6, true)
        );
        let said = global(&["topics.partitions=9", "dispatcher.allow_loopback=false"]);
        let config = load(&said, Role::Up).unwrap().loaded.config;
        assert_eq!(
            (config.topics.partitions, config.dispatcher.allow_loopback),
            (9, false)
        );
        let config = load(&global(&[]), Role::Other).unwrap().loaded.config;
        assert_eq!(
            (config.topics.partitions, config.dispatcher.allow_loopback),
            (48, false)
        );
    }

    #[test]
    fn flags_win_and_every_fault_is_reported_at_once() {
        let mut flags = global(&["kafka.brokers=a:1", "threads=3"]);
        flags.brokers = Some("b:1,c:2".to_owned());
        flags.threads = Some(4);
        let config = load(&flags, Role::Other).unwrap().loaded.config;
        assert_eq!(config.kafka.brokers, ["b:1", "c:2"]);
        assert_eq!(config.general.threads, 4);
        let wrong = load(&global(&["ingest.nothing=1", "threads=x"]), Role::Other).unwrap_err();
        assert!(
            wrong.0.contains("ingest.nothing") && wrong.0.contains("threads"),
            "{wrong}"
        );
    }

    #[test]
    fn a_service_without_brokers_is_told_of_up() {
        let settings = load(&global(&[]), Role::Other).unwrap();
        let refused = settings.require("router", &[Need::Brokers]).unwrap_err();
        assert!(refused.0.contains("`router`") && refused.0.contains("anabranch up"));
        let all = [Need::Brokers, Need::SealingKeys, Need::OperatorKey];
        let refused = settings.require("control", &all).unwrap_err();
        assert_eq!(refused.0.lines().count(), 3, "all at once: {refused}");
        assert!(settings.require("up", &[]).is_ok());
    }

    #[test]
    fn the_demo_takes_free_ports_and_topics_of_its_own() {
        let config = load(&global(&["ingest.bind=127.0.0.1:7"]), Role::Demo)
            .unwrap()
            .loaded
            .config;
        assert_eq!(
            (config.ingest.bind.port(), config.control.bind.port()),
            (7, 0)
        );
        assert_eq!(config.topics.prefix, DEMO_PREFIX);
    }
}
