//! Owns the configuration: every option of every service, where its value came from, and what is
//! wrong with it.
//!
//! It must never stop at the first fault, nor show a secret. The surprise: an option is defined in
//! one place (`sections.rs`), which makes the field, its default, its bounds and its page in the
//! reference at once.

mod layers;
mod print;
mod relations;
mod section;
mod sections;
mod value;

use std::fmt;
use std::path::PathBuf;

pub use layers::{Layers, Loaded, Source};
pub use print::reference;
pub use section::{OptionDoc, Reader, Section};
pub use sections::{
    Admin, Cohorts, Compression, Control, Dispatcher, Embedded, General, GroupProtocol, Ingest,
    Kafka, LogFormat, Nat64, Router, Secrets, Shutdown, Telemetry, Topics,
};
pub use value::{ByteSize, Properties, Setting, parse_duration, show_duration};

macro_rules! config {
    ($($(#[doc = $doc:literal])+ $field:ident: $section:ident,)+) => {
        /// Everything that can be configured. A service takes the sections it needs.
        #[derive(Clone, Debug, Default)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $section,)+
        }

        impl Config {
            fn read(reader: &mut Reader) -> Self {
                Self { $($field: $section::read(reader),)+ }
            }

            fn write(&self) -> Vec<print::Written> {
                vec![$(print::Written::new(&self.$field),)+]
            }

            /// Every option there is, in the order of the reference.
            #[must_use]
            pub fn options() -> Vec<OptionDoc> {
                [$($section::options(),)+].concat()
            }
        }
    };
}

config! {
    /// What concerns the whole process.
    general: General,
    /// How the process ends.
    shutdown: Shutdown,
    /// Names and shapes of the topics.
    topics: Topics,
    /// How Kafka is reached.
    kafka: Kafka,
    /// The log kept on local disk.
    embedded: Embedded,
    /// The admin port.
    admin: Admin,
    /// Logs.
    telemetry: Telemetry,
    /// The service that takes events.
    ingest: Ingest,
    /// The service that finds their targets.
    router: Router,
    /// The service that delivers.
    dispatcher: Dispatcher,
    /// The service that is asked and told things.
    control: Control,
    /// The service that keeps cohorts and runs syncs.
    cohorts: Cohorts,
    /// Keys that secrets are kept with.
    secrets: Secrets,
}

impl Config {
    /// The instance's name: as configured, else the host's.
    #[must_use]
    pub fn instance(&self) -> String {
        self.general.instance.clone().unwrap_or_else(host_name)
    }

    /// Where the embedded log is: as configured, else in the data folder.
    #[must_use]
    pub fn embedded_dir(&self) -> PathBuf {
        self.embedded
            .dir
            .clone()
            .unwrap_or_else(|| self.general.data_dir.join("log"))
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "anabranch".to_owned(),
        name => name.to_owned(),
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The option's key, or the file.
    pub key: String,
    /// The whole sentence, which names the key.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "configuration: {} fault{plural}", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests;
