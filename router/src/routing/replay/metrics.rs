//! Owns the metrics of replays.

use runtime::telemetry::{IntCounter, IntGauge, Metrics};

/// Every metric of replays.
#[derive(Debug, Clone)]
pub(in crate::routing) struct ReplayMetrics {
    pub(in crate::routing) open: IntGauge,
    pub(in crate::routing) left: IntGauge,
    pub(in crate::routing) held: IntGauge,
    pub(in crate::routing) targets: IntCounter,
    pub(in crate::routing) lost: IntCounter,
}

impl ReplayMetrics {
    /// Registers them all, at zero.
    pub(in crate::routing) fn new(metrics: &Metrics) -> Self {
        let counter = |name: &str, help| metrics.counter(&format!("anabranch_router_{name}"), help);
        let gauge = |name: &str, help| metrics.gauge(&format!("anabranch_router_{name}"), help);
        Self {
            open: gauge(
                "replays",
                "Replays of past events that are not done: one for each subscription and source \
                 partition",
            ),
            left: gauge(
                "replay_left",
                "Source offsets that replays have yet to read, those of one pass together",
            ),
            held: gauge(
                "held_partitions",
                "Source partitions that begin no record until activations are on record",
            ),
            targets: counter(
                "replay_targets_total",
                "Targets of past events in acknowledged records",
            ),
            lost: counter(
                "replay_cut_total",
                "Replays that began behind their start, where retention may have taken events",
            ),
        }
    }
}
