//! Owns what the service can be told.

use std::path::PathBuf;
use std::time::Duration;

use runtime::admin::ServerLimits;
use runtime::config::Config;
use runtime::secret::SecretString;

use crate::SortOptions;
use crate::sync::Bounds;

/// The service's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's stable name.
    pub instance: String,
    /// The group that shares the syncs.
    pub group: String,
    /// Where cohorts and rosters are kept: a folder, or the URL of an object store.
    pub store: String,
    /// What a sort may hold in memory, and where it puts the rest.
    pub sort: SortOptions,
    /// Uploads that are sorted at once; more are answered 503.
    pub uploads_max: usize,
    /// The largest body of a request that is no upload.
    pub max_body_bytes: usize,
    /// How long an upload may take.
    pub upload_timeout: Duration,
    /// Snapshots of a cohort that are kept.
    pub snapshots_kept: usize,
    /// Bytes of records that are written and not acknowledged.
    pub producer_bytes: usize,
    /// Bounds of runs.
    pub bounds: Bounds,
    /// Connections at once.
    pub max_connections: usize,
    /// For requests under way when the service stops.
    pub drain_deadline: Duration,
    /// The operator's key.
    pub operator_key: Option<SecretString>,
}

impl Options {
    /// Those of a configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let cohorts = &config.cohorts;
        let at_home = || {
            config
                .general
                .data_dir
                .join("cohorts")
                .display()
                .to_string()
        };
        let scratch: Option<PathBuf> = cohorts.scratch.clone();
        Self {
            instance: config.instance(),
            group: format!("{}cohorts", config.topics.prefix),
            store: cohorts.store.clone().unwrap_or_else(at_home),
            sort: SortOptions {
                memory_bytes: cohorts.sort_memory.as_usize(),
                scratch: scratch.unwrap_or_else(std::env::temp_dir),
                scratch_bytes_max: cohorts.scratch_max.as_u64(),
            },
            uploads_max: cohorts.max_uploads,
            max_body_bytes: cohorts.max_body.as_usize(),
            upload_timeout: cohorts.upload_timeout,
            snapshots_kept: cohorts.snapshots_kept,
            producer_bytes: 32 << 20,
            bounds: Bounds {
                chunks: cohorts.chunks_ahead,
                bytes: cohorts.chunks_memory.as_usize(),
                stop_wait: cohorts.stop_wait,
                ..Bounds::default()
            },
            max_connections: cohorts.max_connections,
            // The rest of the shutdown needs a little after the requests.
            drain_deadline: config.shutdown.deadline / 2,
            operator_key: config.control.operator_key.clone(),
        }
    }

    /// What a connection may be.
    pub(crate) fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections,
            request_timeout: self.upload_timeout,
            drain_deadline: self.drain_deadline,
            ..ServerLimits::default()
        }
    }
}
