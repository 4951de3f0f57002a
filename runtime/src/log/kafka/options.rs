//! Owns how this process talks to Kafka: its options, and the librdkafka settings that every
//! client starts from.
//!
//! It must never print a property's value: SASL passwords are among them. The surprise: the
//! properties given by the user are applied last, over everything that is set here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

/// How to reach Kafka and how to behave there.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// librdkafka properties, applied last (SASL, TLS).
    pub properties: BTreeMap<String, String>,
    /// How groups agree on who owns what.
    pub group_protocol: GroupProtocol,
    /// Whether a member keeps its partitions over a restart shorter than the session timeout.
    pub static_membership: bool,
    /// How producers compress.
    pub compression: Compression,
    /// After this long without a heartbeat a member is out (classic protocol; under KIP-848 the
    /// broker decides).
    pub session_timeout: Duration,
    /// How often a member says that it lives; decides how soon a join settles (classic protocol).
    pub heartbeat_interval: Duration,
    /// Begins the names of clients and of the readers' own group ids.
    pub client_prefix: String,
}

/// How groups agree on who owns what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The classic protocol with cooperative-sticky assignment.
    Classic,
    /// KIP-848: the broker assigns.
    Consumer,
}

/// How producers compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

impl Compression {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl KafkaOptions {
    /// The defaults for these brokers: classic protocol, dynamic members, lz4, sessions of 10 s,
    /// heartbeats every 500 ms.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            group_protocol: GroupProtocol::Classic,
            static_membership: false,
            compression: Compression::Lz4,
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(500),
            client_prefix: "anabranch.".to_owned(),
        }
    }

    /// What every client starts from; `own` overrides it and the user's properties override both.
    pub(super) fn client(&self, name: &str, own: &[(&str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("{}{name}", self.client_prefix))
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            // An idle connection that the broker closes is not news.
            .set("log.connection.close", "false")
            // A broker that restarts is back within seconds; ten seconds of back-off are not.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        for (key, value) in own {
            config.set(*key, value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }

    /// The `compression.type` of producers.
    pub(super) fn compression(&self) -> String {
        self.compression.as_str().to_owned()
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("group_protocol", &self.group_protocol)
            .field("static_membership", &self.static_membership)
            .field("compression", &self.compression)
            .field("session_timeout", &self.session_timeout)
            .field("heartbeat_interval", &self.heartbeat_interval)
            .field("client_prefix", &self.client_prefix)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_last_and_are_never_printed() {
        let mut options = KafkaOptions::new("127.0.0.1:1");
        options
            .properties
            .insert("sasl.password".to_owned(), "hunter2".to_owned());
        options
            .properties
            .insert("linger.ms".to_owned(), "7".to_owned());
        let config = options.client("x", &[("linger.ms", "0".to_owned())]);
        assert_eq!(config.get("linger.ms"), Some("7"));
        assert_eq!(config.get("client.id"), Some("anabranch.x"));
        let printed = format!("{options:?}");
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"));
    }
}
