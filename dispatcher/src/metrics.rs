//! Owns the dispatcher's metrics and the closed sets of their labels.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use runtime::label;
use runtime::telemetry::{Family, LATENCY_BUCKETS, Metrics as Registry};
use schemas::records::DeadReason;
use schemas::resources::DisabledReason;

label! {
    /// What became of an attempt.
    pub(crate) enum Outcome("outcome") {
        /// The endpoint took it.
        Delivered => "delivered",
        /// It will be tried again.
        Retry => "retry",
        /// The endpoint will never take it.
        Rejected => "rejected",
        /// The endpoint is gone.
        Gone => "gone",
    }
}

label! {
    /// Why a delivery went to a delay topic.
    pub(crate) enum Deferred("reason") {
        /// Its retry is due later.
        Retry => "retry",
        /// Its lane cannot send it within the horizon.
        Horizon => "horizon",
        /// Its lane is full or held.
        Full => "full",
        /// Its endpoint is paused, or cannot be attempted as it is.
        Paused => "paused",
        /// It came out of a delay topic before its due time.
        NotDue => "not_due",
        /// Its partition was revoked while it waited for a retry.
        Drain => "drain",
        /// It is ordered behind others of its key.
        Order => "order",
    }
}

label! {
    /// Why a delivery is a dead letter.
    pub(crate) enum Dead("reason") {
        /// No attempt is left.
        AttemptsExhausted => "attempts_exhausted",
        /// Too old.
        MaxAge => "max_age",
        /// Refused for good.
        Rejected => "rejected",
        /// The endpoint is gone.
        EndpointGone => "endpoint_gone",
        /// The endpoint is disabled.
        EndpointDisabled => "endpoint_disabled",
        /// Endpoint or subscription deleted.
        Deleted => "deleted",
        /// Too large for the log.
        TooLarge => "too_large",
        /// Cannot be read.
        Undecodable => "undecodable",
        /// Cannot be written as a request.
        Unencodable => "unencodable",
        /// Retention overtook the reader.
        RetentionLost => "retention_lost",
        /// Round too often.
        Loop => "loop",
        /// No request could be made of it.
        Template => "template",
    }
}

impl From<DeadReason> for Dead {
    fn from(reason: DeadReason) -> Self {
        match reason {
            DeadReason::AttemptsExhausted => Self::AttemptsExhausted,
            DeadReason::MaxAge => Self::MaxAge,
            DeadReason::Rejected => Self::Rejected,
            DeadReason::EndpointGone => Self::EndpointGone,
            DeadReason::EndpointDisabled => Self::EndpointDisabled,
            DeadReason::Deleted => Self::Deleted,
            DeadReason::TooLarge => Self::TooLarge,
            DeadReason::Undecodable => Self::Undecodable,
            DeadReason::Unencodable => Self::Unencodable,
            DeadReason::RetentionLost => Self::RetentionLost,
            DeadReason::Loop => Self::Loop,
            DeadReason::Template => Self::Template,
        }
    }
}

label! {
    /// Why an endpoint was given up.
    pub(crate) enum GivenUp("reason") {
        /// It failed for longer than it may.
        Failing => "failing",
        /// It said that it is gone.
        Gone => "gone",
    }
}

impl From<DisabledReason> for GivenUp {
    fn from(reason: DisabledReason) -> Self {
        match reason {
            DisabledReason::Failing => Self::Failing,
            DisabledReason::Gone => Self::Gone,
        }
    }
}

label! {
    /// How a breaker changed.
    pub(crate) enum BreakerChange("change") {
        /// Its endpoint fails: only probes go.
        Opened => "opened",
        /// A probe failed.
        StillOpen => "still_open",
        /// Its endpoint answers again.
        Closed => "closed",
    }
}

label! {
    /// How a transaction ended.
    pub(crate) enum Hop("result") {
        /// Committed.
        Committed => "committed",
        /// Aborted; its deliveries are tried again.
        Aborted => "aborted",
    }
}

/// Everything that the dispatcher counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) attempts: Family<Outcome, IntCounter>,
    pub(crate) attempt_seconds: Histogram,
    pub(crate) event_age_seconds: Histogram,
    pub(crate) deferred: Family<Deferred, IntCounter>,
    pub(crate) dead: Family<Dead, IntCounter>,
    /// How endpoints fare.
    pub(crate) health: Health,
    pub(crate) repeats: IntCounter,
    pub(crate) replaced: IntCounter,
    pub(crate) hops: Family<Hop, IntCounter>,
    pub(crate) hop_deliveries: IntCounter,
    pub(crate) commits: IntCounter,
    pub(crate) commit_failures: IntCounter,
    pub(crate) batches_halved: IntCounter,
    pub(crate) lease_waits: IntCounter,
    pub(crate) commit_waits: IntCounter,
    pub(crate) late_starts: IntCounter,
    pub(crate) incidents: IntCounter,
    pub(crate) attempt_records_dropped: IntCounter,
    /// How things stand.
    pub(crate) state: State,
}

/// How endpoints fare.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) endpoints_disabled: Family<GivenUp, IntCounter>,
    pub(crate) endpoints_enabled: IntCounter,
    pub(crate) breaker_changes: Family<BreakerChange, IntCounter>,
    pub(crate) ending_answers: IntCounter,
}

/// How things stand, set at intervals.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) in_flight: IntGauge,
    pub(crate) placements: IntGauge,
    pub(crate) lanes: IntGauge,
    pub(crate) order_lines: IntGauge,
    pub(crate) queued: IntGauge,
    pub(crate) breakers_open: IntGauge,
    pub(crate) outage: IntGauge,
    pub(crate) memory_bytes: IntGauge,
    pub(crate) memory_limit_bytes: IntGauge,
    pub(crate) marks_bytes: IntGauge,
    pub(crate) marks_oldest_timestamp: Gauge,
    pub(crate) oldest_timestamp: Gauge,
    pub(crate) paused_partitions: IntGauge,
    pub(crate) control_offset: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help);
        Self {
            attempts: registry.counters(
                "anabranch_dispatch_attempts_total",
                "Attempts by what became of them",
            ),
            attempt_seconds: registry.histogram(
                "anabranch_dispatch_attempt_duration_seconds",
                "Time from an attempt's start to its verdict",
                LATENCY_BUCKETS,
            ),
            event_age_seconds: registry.histogram(
                "anabranch_event_age_at_delivery_seconds",
                "Time from an event's acceptance to its delivery",
                LATENCY_BUCKETS,
            ),
            deferred: registry.counters(
                "anabranch_dispatch_deferred_total",
                "Deliveries sent to a delay topic",
            ),
            dead: registry.counters(
                "anabranch_dead_letters_total",
                "Deliveries that will not be attempted again",
            ),
            health: Health::register(registry),
            repeats: counter(
                "anabranch_dispatch_repeats_dropped_total",
                "Targets that a router wrote twice and that were dropped by their mark",
            ),
            replaced: counter(
                "anabranch_dispatch_reproduced_total",
                "Targets found in a partition that is not their placement and written to it",
            ),
            hops: registry.counters("anabranch_dispatch_transactions_total", "Transactions"),
            hop_deliveries: counter(
                "anabranch_dispatch_transaction_deliveries_total",
                "Deliveries that committed transactions moved to delay topics or to dead",
            ),
            commits: counter(
                "anabranch_dispatch_commits_total",
                "Plain commits acknowledged",
            ),
            commit_failures: counter(
                "anabranch_dispatch_commit_failures_total",
                "Plain commits refused or not acknowledged",
            ),
            batches_halved: counter(
                "anabranch_dispatch_batches_halved_total",
                "Requests rejected as a whole and sent again in two halves",
            ),
            lease_waits: counter(
                "anabranch_dispatch_lease_waits_total",
                "Times that attempts stopped because the last acknowledged commit was too old",
            ),
            late_starts: counter(
                "anabranch_dispatch_late_starts_total",
                "Attempts that were charged to a limit and not sent, since the process was held up",
            ),
            commit_waits: counter(
                "anabranch_dispatch_commit_waits_total",
                "Times that a lane's attempts stopped because something completed in its placement \
                 was not committed in time",
            ),
            incidents: counter(
                "anabranch_dispatch_incidents_total",
                "Positions missing or outside the log, and records ahead of control",
            ),
            attempt_records_dropped: counter(
                "anabranch_dispatch_attempt_records_dropped_total",
                "Attempt records not written because the producer had no room",
            ),
            state: State::register(registry),
        }
    }
}

impl Health {
    fn register(registry: &Registry) -> Self {
        Self {
            endpoints_disabled: registry.counters(
                "anabranch_dispatch_endpoints_disabled_total",
                "Endpoints given up, by why",
            ),
            endpoints_enabled: registry.counter(
                "anabranch_dispatch_endpoints_enabled_total",
                "Disabled endpoints that a probe found working",
            ),
            breaker_changes: registry.counters(
                "anabranch_dispatch_breaker_changes_total",
                "Changes of breakers: endpoints that failed, failed a probe, or answer again",
            ),
            ending_answers: registry.counter(
                "anabranch_dispatch_ending_answers_total",
                "Answers that say that what was asked for is deprecated or will end",
            ),
        }
    }
}

impl State {
    fn register(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| registry.gauge(name, help);
        Self {
            in_flight: gauge("anabranch_dispatch_in_flight", "Attempts under way"),
            placements: gauge("anabranch_dispatch_placements", "Placements owned"),
            lanes: gauge("anabranch_dispatch_lanes", "Lanes in memory"),
            order_lines: gauge(
                "anabranch_dispatch_order_lines",
                "Lines of ordered deliveries that are blocked or at work",
            ),
            queued: gauge("anabranch_dispatch_queued", "Deliveries that wait in lanes"),
            breakers_open: gauge(
                "anabranch_dispatch_breakers_open",
                "Lanes whose endpoint fails and is only probed",
            ),
            outage: gauge(
                "anabranch_dispatch_outage",
                "1 while our own network is down and attempts are held",
            ),
            memory_bytes: gauge(
                "anabranch_dispatch_memory_bytes",
                "Bytes of records in memory, counted against the budget",
            ),
            memory_limit_bytes: gauge(
                "anabranch_dispatch_memory_limit_bytes",
                "The budget of bytes of records in memory",
            ),
            marks_bytes: gauge("anabranch_dispatch_marks_bytes", "Bytes of marks in memory"),
            marks_oldest_timestamp: registry.gauge_f64(
                "anabranch_dispatch_marks_oldest_timestamp_seconds",
                "Append time of the oldest mark in memory, 0 for none",
            ),
            oldest_timestamp: registry.gauge_f64(
                "anabranch_dispatch_oldest_unfinished_timestamp_seconds",
                "Acceptance time of the oldest delivery in memory, 0 for none",
            ),
            paused_partitions: gauge(
                "anabranch_dispatch_paused_partitions",
                "Partitions not read because of a bound",
            ),
            control_offset: gauge(
                "anabranch_dispatch_control_offset",
                "Offset behind the last record of control applied",
            ),
        }
    }
}
