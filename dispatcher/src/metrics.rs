//! Owns the dispatcher's metrics.

mod labels;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use runtime::telemetry::{Family, LATENCY_BUCKETS, Metrics as Registry};

pub(crate) use labels::{BreakerChange, Dead, Deferred, GivenUp, Hop, Outcome, TransformOutcome};

/// Everything that the dispatcher counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) attempts: Family<Outcome, IntCounter>,
    pub(crate) attempt_seconds: Histogram,
    pub(crate) event_age_seconds: Histogram,
    pub(crate) deferred: Family<Deferred, IntCounter>,
    pub(crate) dead: Family<Dead, IntCounter>,
    pub(crate) transforms: Family<TransformOutcome, IntCounter>,
    /// How endpoints fare.
    pub(crate) health: Health,
    pub(crate) repeats: IntCounter,
    pub(crate) recalls: IntCounter,
    pub(crate) replaced: IntCounter,
    pub(crate) hops: Family<Hop, IntCounter>,
    pub(crate) hop_deliveries: IntCounter,
    /// Plain commits.
    pub(crate) commits: Commits,
    pub(crate) batches_halved: IntCounter,
    pub(crate) late_starts: IntCounter,
    pub(crate) incidents: IntCounter,
    pub(crate) attempt_records_dropped: IntCounter,
    /// How things stand.
    pub(crate) state: State,
}

/// Plain commits, and what waits for them.
#[derive(Debug, Clone)]
pub(crate) struct Commits {
    pub(crate) acknowledged: IntCounter,
    pub(crate) failures: IntCounter,
    pub(crate) waits: IntCounter,
    pub(crate) lease_waits: IntCounter,
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
    pub(crate) read_ahead_bytes: IntGauge,
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
            transforms: registry.counters(
                "anabranch_dispatch_transforms_unsent_total",
                "Deliveries of which nothing was sent because of their transform",
            ),
            health: Health::register(registry),
            repeats: counter(
                "anabranch_dispatch_repeats_dropped_total",
                "Targets that a router wrote twice and that were dropped by their mark",
            ),
            recalls: counter(
                "anabranch_dispatch_recalls_total",
                "Records looked up in the log, since they might be repeats that are not remembered",
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
            commits: Commits::register(registry),
            batches_halved: counter(
                "anabranch_dispatch_batches_halved_total",
                "Requests rejected as a whole and sent again in two halves",
            ),
            late_starts: counter(
                "anabranch_dispatch_late_starts_total",
                "Attempts that were charged to a limit and not sent, since the process was held up",
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

impl Commits {
    fn register(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.counter(name, help);
        Self {
            acknowledged: counter(
                "anabranch_dispatch_commits_total",
                "Plain commits acknowledged",
            ),
            failures: counter(
                "anabranch_dispatch_commit_failures_total",
                "Plain commits refused or not acknowledged",
            ),
            waits: counter(
                "anabranch_dispatch_commit_waits_total",
                "Times that a lane's attempts stopped because something completed in its placement \
                 was not committed in time",
            ),
            lease_waits: counter(
                "anabranch_dispatch_lease_waits_total",
                "Times that attempts stopped because the last acknowledged commit was too old",
            ),
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
            read_ahead_bytes: gauge(
                "anabranch_dispatch_read_ahead_bytes",
                "Bytes of records read and not yet taken in, part of those in memory",
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
