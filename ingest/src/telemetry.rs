//! Owns what ingest counts. Each request ends in exactly one result, and so does each event that
//! was read.
//!
//! Never labels by tenant. The surprise: a body in which no events could be told apart counts as
//! one event.

use runtime::problem::ProblemType;
use runtime::telemetry::{
    BATCH_BUCKETS, Family, Histogram, IntCounter, IntGauge, LATENCY_BUCKETS, Metrics,
};
use tokio::time::Instant;

runtime::label! {
    /// How a request ended.
    pub(crate) enum RequestResult("result") {
        /// All its events are in the log.
        Accepted => "accepted",
        /// Some events of a batch are in the log, the others were refused.
        Partial => "partial",
        /// It could be read and is not valid.
        Invalid => "invalid",
        /// It could not be read.
        Malformed => "malformed",
        /// No valid key.
        Unauthorized => "unauthorized",
        /// A key for something else.
        Forbidden => "forbidden",
        /// No such path, or no such tenant.
        NotFound => "not_found",
        /// A path without this method.
        Method => "method_not_allowed",
        /// Beyond a limit of size.
        TooLarge => "too_large",
        /// A content type that is not taken.
        MediaType => "unsupported_media_type",
        /// Beyond a tenant's rate.
        RateLimited => "rate_limited",
        /// The body came too slowly.
        Timeout => "timeout",
        /// No room, or no acknowledgement.
        Unavailable => "unavailable",
        /// The client went away first.
        Disconnected => "disconnected",
        /// Our own fault.
        Internal => "internal",
    }
}

runtime::label! {
    /// What became of an event.
    pub(crate) enum EventResult("result") {
        /// It is in the log.
        Accepted => "accepted",
        /// It is not valid.
        Invalid => "invalid",
        /// It is beyond a limit of size.
        TooLarge => "too_large",
        /// Its tenant sends too fast.
        RateLimited => "rate_limited",
        /// The log did not acknowledge it.
        Unavailable => "unavailable",
    }
}

runtime::label! {
    /// Where an accepted event is.
    pub(crate) enum EventClass("class") {
        /// On `events`.
        Live => "live",
        /// On `events.bulk`: it was beyond its tenant's fair share.
        Bulk => "bulk",
    }
}

impl From<ProblemType> for RequestResult {
    fn from(kind: ProblemType) -> Self {
        match kind {
            ProblemType::Validation | ProblemType::Conflict => Self::Invalid,
            ProblemType::Malformed => Self::Malformed,
            ProblemType::Unauthorized => Self::Unauthorized,
            ProblemType::Forbidden => Self::Forbidden,
            ProblemType::NotFound => Self::NotFound,
            ProblemType::MethodNotAllowed => Self::Method,
            ProblemType::Timeout => Self::Timeout,
            ProblemType::TooLarge | ProblemType::HeadTooLarge => Self::TooLarge,
            ProblemType::UnsupportedMediaType => Self::MediaType,
            ProblemType::RateLimited => Self::RateLimited,
            ProblemType::Unavailable => Self::Unavailable,
            ProblemType::Internal => Self::Internal,
        }
    }
}

impl From<ProblemType> for EventResult {
    fn from(kind: ProblemType) -> Self {
        match kind {
            ProblemType::TooLarge | ProblemType::HeadTooLarge => Self::TooLarge,
            ProblemType::RateLimited => Self::RateLimited,
            ProblemType::Unavailable | ProblemType::Timeout | ProblemType::Internal => {
                Self::Unavailable
            }
            ProblemType::Validation
            | ProblemType::Malformed
            | ProblemType::Unauthorized
            | ProblemType::Forbidden
            | ProblemType::NotFound
            | ProblemType::MethodNotAllowed
            | ProblemType::Conflict
            | ProblemType::UnsupportedMediaType => Self::Invalid,
        }
    }
}

/// The metrics. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    pub(crate) events: Family<EventResult, IntCounter>,
    requests: Family<RequestResult, IntCounter>,
    request_seconds: Histogram,
    pub(crate) accepted_events: Family<EventClass, IntCounter>,
    pub(crate) accepted_bytes: IntCounter,
    pub(crate) share_refusals: IntCounter,
    pub(crate) batch_events: Histogram,
    pub(crate) in_flight_bytes: IntGauge,
    pub(crate) in_flight_limit: IntGauge,
    pub(crate) room_waits: IntCounter,
    pub(crate) write_seconds: Histogram,
    pub(crate) producers_replaced: IntCounter,
    pub(crate) control_offset: IntGauge,
}

impl Telemetry {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            events: metrics.counters(
                "anabranch_ingest_events_total",
                "Events by what became of them",
            ),
            requests: metrics.counters(
                "anabranch_ingest_requests_total",
                "Requests by how they ended",
            ),
            request_seconds: metrics.histogram(
                "anabranch_ingest_request_duration_seconds",
                "From a request's head to its answer",
                LATENCY_BUCKETS,
            ),
            accepted_events: metrics.counters(
                "anabranch_ingest_accepted_events_total",
                "Events that the log has acknowledged, by topic: bulk is beyond a fair share",
            ),
            share_refusals: metrics.counter(
                "anabranch_ingest_share_refusals_total",
                "Requests beyond a fair share that an ordered subscription keeps out of bulk",
            ),
            accepted_bytes: metrics.counter(
                "anabranch_ingest_accepted_bytes_total",
                "Bytes of the records of accepted events",
            ),
            batch_events: metrics.histogram(
                "anabranch_ingest_batch_events",
                "Events in a batch",
                BATCH_BUCKETS,
            ),
            in_flight_bytes: metrics.gauge(
                "anabranch_ingest_in_flight_bytes",
                "Bytes of bodies being read or written",
            ),
            in_flight_limit: metrics.gauge(
                "anabranch_ingest_in_flight_limit_bytes",
                "Bytes of bodies that may be read or written at once",
            ),
            room_waits: metrics.counter(
                "anabranch_ingest_room_waits_total",
                "Times that a body waited because too many bytes were in flight",
            ),
            write_seconds: metrics.histogram(
                "anabranch_ingest_write_duration_seconds",
                "From handing a request's events to the log to their acknowledgement",
                LATENCY_BUCKETS,
            ),
            producers_replaced: metrics.counter(
                "anabranch_ingest_producers_replaced_total",
                "Producers given up after a write of unknown outcome",
            ),
            control_offset: metrics.gauge(
                "anabranch_ingest_control_offset",
                "Offset of control up to which tenants and keys are known",
            ),
        }
    }

    /// Starts counting a request.
    pub(crate) fn request(&self) -> RequestTimer<'_> {
        RequestTimer {
            telemetry: self,
            started: Instant::now(),
            result: RequestResult::Disconnected,
        }
    }
}

/// Counts a request when it is dropped; one that nobody ended was left by its client.
#[derive(Debug)]
pub(crate) struct RequestTimer<'a> {
    telemetry: &'a Telemetry,
    started: Instant,
    result: RequestResult,
}

impl RequestTimer<'_> {
    pub(crate) fn end(mut self, result: RequestResult) {
        self.result = result;
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.telemetry.requests.get(self.result).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.telemetry.request_seconds.observe(seconds);
    }
}
