//! Owns what control can be told.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::ServerLimits;
use runtime::config::Config;
use runtime::secret::{self, ExposeSecret, Sealer, SecretString};
use schemas::resources::input::UrlPolicy;

/// The service's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's stable instance name.
    pub instance: String,
    /// The leader group.
    pub group: String,
    /// The one transactional id of all replicas.
    pub transactional_id: String,
    /// The partition count that is recorded at the first start.
    pub partitions: NonZeroU32,
    /// The operator's key.
    pub operator_key: SecretString,
    /// Seals secrets.
    pub sealer: Arc<Sealer>,
    /// Which URLs endpoints may have.
    pub urls: UrlPolicy,
    /// The largest body.
    pub max_body_bytes: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// For requests under way when the service stops.
    pub drain_deadline: Duration,
}

/// What is missing in a configuration.
#[derive(Debug, thiserror::Error)]
pub enum BadOptions {
    /// Control is never open.
    #[error("`control.operator_key` is not set: control needs one")]
    NoOperatorKey,
    /// Secrets cannot be kept.
    #[error("`secrets.keys`: {0}")]
    Secrets(#[from] secret::Error),
    /// Endpoints could not be placed.
    #[error("`topics.partitions` must be at least 1")]
    NoPartitions,
}

impl Options {
    /// Those of a configuration.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn from_config(config: &Config) -> Result<Self, BadOptions> {
        let operator_key = config.control.operator_key.clone();
        let given = operator_key.filter(|key| !key.expose_secret().is_empty());
        let name = format!("{}control", config.topics.prefix);
        Ok(Self {
            instance: config.instance(),
            group: name.clone(),
            transactional_id: name,
            partitions: NonZeroU32::new(config.topics.partitions)
                .ok_or(BadOptions::NoPartitions)?,
            operator_key: given.ok_or(BadOptions::NoOperatorKey)?,
            sealer: Arc::new(Sealer::parse(&config.secrets.keys)?),
            urls: UrlPolicy {
                allow_loopback: config.dispatcher.allow_loopback,
                allow_http: config.dispatcher.allow_http,
                allowed_ports: config.dispatcher.allowed_ports.clone(),
            },
            max_body_bytes: config.control.max_body.as_usize(),
            max_connections: config.control.max_connections,
            // The rest of the shutdown needs a little after the requests.
            drain_deadline: config.shutdown.deadline / 2,
        })
    }

    /// What a connection may be.
    pub(crate) fn limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections,
            drain_deadline: self.drain_deadline,
            ..ServerLimits::default()
        }
    }
}
