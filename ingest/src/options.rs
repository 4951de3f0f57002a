//! Owns what ingest can be told. Every limit here has its metric in `telemetry`.

use std::time::Duration;

use runtime::admin::ServerLimits;
use runtime::config::Config;
use runtime::secret::SecretString;
use schemas::event::Limits;

/// Headers of a request that carry no attribute: those of proxies and tracing included.
const OTHER_HEADERS: usize = 48;
/// For everything in a request that is not waited for.
const WORK_TIME: Duration = Duration::from_secs(5);

/// The service's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The largest body.
    pub max_body_bytes: usize,
    /// The largest event, data and attributes together (CE-5).
    pub max_event_bytes: usize,
    /// The most events of a batch (CE-14).
    pub max_batch_events: usize,
    /// The most attributes of an event.
    pub max_attributes: usize,
    /// The largest head of a request.
    pub max_header_bytes: usize,
    /// Bytes of bodies read and not yet answered.
    pub max_in_flight_bytes: usize,
    /// How long a body waits for room among them.
    pub room_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long the log may take to acknowledge.
    pub write_timeout: Duration,
    /// Events a second of a tenant that sets no other.
    pub tenant_events_per_second: u64,
    /// Bytes a second of a tenant that sets no other.
    pub tenant_bytes_per_second: u64,
    /// Events a second that are the fair share of a tenant that sets no other; 0 for none.
    pub fair_share_events_per_second: u64,
    /// Bytes a second that are the fair share of a tenant that sets no other; 0 for none.
    pub fair_share_bytes_per_second: u64,
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
        let ingest = &config.ingest;
        Self {
            max_body_bytes: ingest.max_body.as_usize(),
            max_event_bytes: ingest.max_event.as_usize(),
            max_batch_events: ingest.max_batch_events,
            max_attributes: ingest.max_attributes,
            max_header_bytes: ingest.max_header_bytes.as_usize(),
            max_in_flight_bytes: ingest.max_in_flight_bytes.as_usize(),
            room_timeout: ingest.room_timeout,
            body_timeout: ingest.body_timeout,
            write_timeout: ingest.write_timeout,
            tenant_events_per_second: u64::from(ingest.tenant_events_per_second),
            tenant_bytes_per_second: ingest.tenant_bytes_per_second.as_u64(),
            fair_share_events_per_second: u64::from(ingest.fair_share_events_per_second),
            fair_share_bytes_per_second: ingest.fair_share_bytes_per_second.as_u64(),
            max_connections: ingest.max_connections,
            // The rest of the shutdown needs a little after the requests.
            drain_deadline: config.shutdown.deadline / 2,
            operator_key: config.control.operator_key.clone(),
        }
    }

    /// What an event may be.
    pub(crate) fn event_limits(&self) -> Limits {
        Limits {
            max_attributes: self.max_attributes,
            // The same in all three modes.
            max_attribute_bytes: self.max_header_bytes,
            max_data_bytes: self.max_event_bytes,
        }
    }

    /// What a connection may be.
    pub(crate) fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections,
            request_timeout: self.room_timeout + self.body_timeout + self.write_timeout + WORK_TIME,
            max_header_bytes: self.max_header_bytes,
            max_headers: self.max_attributes + OTHER_HEADERS,
            drain_deadline: self.drain_deadline,
            ..ServerLimits::default()
        }
    }
}
