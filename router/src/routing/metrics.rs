//! Owns the router's metrics.

use prometheus::IntGaugeVec;
use runtime::telemetry::{Family, Histogram, IntCounter, IntGauge, LATENCY_BUCKETS, Metrics};
use schemas::records::DeadReason;

use super::replay::metrics::ReplayMetrics;

runtime::label! {
    /// What became of a source record.
    pub(crate) enum EventResult("result") {
        /// Written for at least one target.
        Routed => "routed",
        /// Nobody wants it.
        Unmatched => "unmatched",
        /// No event of a tenant.
        Undecodable => "undecodable",
        /// Nothing is in it: a mark of deletion, or an array without items.
        Empty => "empty",
    }
}

runtime::label! {
    /// What kind of events a source partition has.
    pub(crate) enum Class("class") {
        /// Those of `events`.
        Live => "live",
        /// Those of `events.bulk`, beyond a tenant's fair share.
        Bulk => "bulk",
        /// Those of a topic of the user's own.
        Source => "source",
    }
}

/// Something for each class.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PerClass<T> {
    live: T,
    bulk: T,
    source: T,
}

impl<T> PerClass<T> {
    /// That of one class.
    pub(crate) fn of(&mut self, class: Class) -> &mut T {
        match class {
            Class::Live => &mut self.live,
            Class::Bulk => &mut self.bulk,
            Class::Source => &mut self.source,
        }
    }
}

runtime::label! {
    /// Why the router made a dead letter.
    pub(crate) enum DeadLetters("reason") {
        /// Too large for the log.
        TooLarge => "too_large",
        /// Not an event of a tenant.
        Undecodable => "undecodable",
        /// Refused by the log.
        Unencodable => "unencodable",
        /// A range that was never read.
        RetentionLost => "retention_lost",
    }
}

/// The label of a dead letter's reason; the router gives no other reasons than these.
pub(crate) fn label_of(reason: DeadReason) -> DeadLetters {
    match reason {
        DeadReason::TooLarge => DeadLetters::TooLarge,
        DeadReason::Undecodable => DeadLetters::Undecodable,
        DeadReason::RetentionLost => DeadLetters::RetentionLost,
        DeadReason::Unencodable
        | DeadReason::AttemptsExhausted
        | DeadReason::MaxAge
        | DeadReason::Rejected
        | DeadReason::EndpointGone
        | DeadReason::EndpointDisabled
        | DeadReason::Deleted
        | DeadReason::Loop
        | DeadReason::Template
        | DeadReason::Transform => DeadLetters::Unencodable,
    }
}

/// Buckets in seconds for the work on one batch, which is microseconds.
const WORK_BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.1,
];

/// Every metric of a router.
#[derive(Debug, Clone)]
pub(crate) struct RouterMetrics {
    pub(crate) events: Family<EventResult, IntCounter>,
    pub(crate) dead_letters: Family<DeadLetters, IntCounter>,
    pub(crate) targets: IntCounter,
    pub(crate) records: IntCounter,
    pub(crate) match_duration: Histogram,
    pub(crate) event_age: Family<Class, Histogram>,
    pub(crate) lag_seconds: Family<Class, IntGauge>,
    pub(crate) window_targets: IntGauge,
    pub(crate) window_bytes: IntGauge,
    pub(crate) backlog_bytes: IntGauge,
    pub(crate) commit_failures: IntCounter,
    pub(crate) rewinds: IntCounter,
    pub(crate) incidents: IntCounter,
    pub(crate) paused: IntGauge,
    pub(crate) owned: IntGauge,
    pub(crate) source_topics: IntGauge,
    pub(crate) missing_topics: IntGauge,
    pub(crate) set_aside: IntCounter,
    pub(crate) control_offset: IntGauge,
    pub(crate) subscriptions: IntGauge,
    pub(crate) unacknowledged_age: IntGaugeVec,
    pub(super) replay: ReplayMetrics,
}

impl RouterMetrics {
    /// Registers them all, at zero.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |name: &str, help| metrics.counter(&format!("anabranch_router_{name}"), help);
        let gauge = |name: &str, help| metrics.gauge(&format!("anabranch_router_{name}"), help);
        Self {
            events: metrics.counters(
                "anabranch_router_events_total",
                "Source records that were routed, by what became of them",
            ),
            dead_letters: metrics.counters(
                "anabranch_router_dead_letters_total",
                "Dead letters that the router wrote",
            ),
            targets: counter("targets_total", "Targets in acknowledged delivery records"),
            records: counter("records_total", "Acknowledged delivery records"),
            match_duration: metrics.histogram(
                "anabranch_router_match_duration_seconds",
                "Time to decode, match and encode what was read at once",
                WORK_BUCKETS,
            ),
            event_age: metrics.histograms(
                "anabranch_router_event_age_seconds",
                "Age of an event, from its acceptance, when its deliveries are acknowledged",
                LATENCY_BUCKETS,
            ),
            lag_seconds: metrics.gauges(
                "anabranch_router_lag_seconds",
                "Age of the oldest source record that was read and is not routed",
            ),
            window_targets: gauge("window_targets", "Targets written and not acknowledged"),
            window_bytes: gauge("window_bytes", "Bytes written and not acknowledged"),
            backlog_bytes: gauge("backlog_bytes", "Bytes read and not routed"),
            commit_failures: counter("commit_failures_total", "Commits that were refused"),
            rewinds: counter(
                "rewinds_total",
                "Returns to the watermark after a failed write",
            ),
            incidents: counter(
                "incidents_total",
                "Positions that were missing or outside the log",
            ),
            paused: gauge(
                "paused_partitions",
                "Source partitions that are not read now",
            ),
            owned: gauge(
                "owned_partitions",
                "Source partitions that this router owns",
            ),
            source_topics: gauge("source_topics", "Topics of the user's own that are sources"),
            missing_topics: gauge(
                "missing_source_topics",
                "Topics of sources that do not exist, or cannot be seen",
            ),
            set_aside: counter(
                "source_topics_set_aside_total",
                "Times that a topic of a source could not be read or committed and was given up for a while",
            ),
            control_offset: gauge("control_offset", "Offset of control that is applied"),
            subscriptions: gauge("subscriptions", "Active subscriptions in the index"),
            replay: ReplayMetrics::new(metrics),
            unacknowledged_age: metrics.partition_gauges(
                "anabranch_router_unacknowledged_age_seconds",
                "Age of a source partition's oldest write that is not acknowledged",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let metrics = Metrics::new();
        let router = RouterMetrics::new(&metrics);
        router
            .unacknowledged_age
            .with_label_values(&["t", "0"])
            .set(1);
        assert_eq!(
            runtime::telemetry::metric_faults(&metrics),
            Vec::<String>::new()
        );
    }
}
