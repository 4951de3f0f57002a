//! Owns what control counts.

use http::StatusCode;
use prometheus::{Histogram, IntCounter, IntGauge};
use runtime::telemetry::{Family, LATENCY_BUCKETS, Metrics};

use crate::store::State;

runtime::label! {
    /// What a request is about.
    pub(crate) enum RouteClass("route") {
        /// Tenants.
        Tenants => "tenants",
        /// API keys.
        Keys => "keys",
        /// Endpoints.
        Endpoints => "endpoints",
        /// Subscriptions.
        Subscriptions => "subscriptions",
        /// Webhooks.
        Webhooks => "webhooks",
        /// Cohorts.
        Cohorts => "cohorts",
        /// Syncs.
        Syncs => "syncs",
        /// Sources.
        Sources => "sources",
        /// Dead letters.
        Dead => "dead",
        /// Redrives.
        Redrives => "redrives",
        /// Explanations of filters, and dry runs.
        Explain => "explain",
        /// The API's document, and what does not exist.
        Other => "other",
    }
}

runtime::label! {
    /// The first digit of a status.
    pub(crate) enum StatusClass("status") {
        /// Done.
        Success => "2xx",
        /// The client's fault.
        Client => "4xx",
        /// Ours, or the log's.
        Server => "5xx",
    }
}

runtime::label! {
    /// A kind of object.
    pub(crate) enum ObjectKind("kind") {
        /// Tenants.
        Tenant => "tenant",
        /// API keys.
        Key => "key",
        /// Endpoints.
        Endpoint => "endpoint",
        /// Subscriptions.
        Subscription => "subscription",
        /// Redrives.
        Redrive => "redrive",
        /// Cohorts.
        Cohort => "cohort",
        /// Syncs.
        Sync => "sync",
        /// Sources.
        Source => "source",
    }
}

/// The metrics of control. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub(crate) struct ControlMetrics {
    requests: Family<(RouteClass, StatusClass), IntCounter>,
    objects: Family<ObjectKind, IntGauge>,
    /// From the decision to the answer.
    pub(crate) write_seconds: Histogram,
    /// 1 while this process is the writer.
    pub(crate) leader: IntGauge,
}

impl ControlMetrics {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.counters("anabranch_control_requests_total", "Requests answered"),
            objects: metrics.gauges("anabranch_control_objects", "Objects that are kept"),
            write_seconds: metrics.histogram(
                "anabranch_control_write_seconds",
                "Time from a change's decision until it was in the log and applied",
                LATENCY_BUCKETS,
            ),
            leader: metrics.gauge(
                "anabranch_control_leader",
                "Whether this process is the one that writes",
            ),
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: RouteClass, status: StatusCode) {
        let class = if status.is_server_error() {
            StatusClass::Server
        } else if status.is_client_error() {
            StatusClass::Client
        } else {
            StatusClass::Success
        };
        self.requests.get((route, class)).inc();
    }

    /// Shows how many objects there are.
    pub(crate) fn count(&self, state: &State) {
        let set = |kind, count: usize| {
            self.objects
                .get(kind)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(ObjectKind::Tenant, state.tenant_count());
        set(ObjectKind::Key, state.keys.len());
        set(ObjectKind::Endpoint, state.endpoints.len());
        set(ObjectKind::Subscription, state.subscriptions.len());
        set(ObjectKind::Redrive, state.redrives.len());
        set(ObjectKind::Cohort, state.cohorts.len());
        set(ObjectKind::Sync, state.syncs.len());
        set(ObjectKind::Source, state.sources.len());
    }
}
