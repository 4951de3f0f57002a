//! Owns what the service counts. Never labels by tenant or sync.

use runtime::telemetry::{Family, IntCounter, IntGauge, Metrics};

use crate::sync::Summary;

runtime::label! {
    /// How a run ended.
    pub(crate) enum RunOutcome("outcome") {
        /// All members have an outcome.
        Done => "done",
        /// Somebody ended it.
        Cancelled => "cancelled",
        /// A newer one took its place.
        Replaced => "replaced",
        /// It could not go on.
        Failed => "failed",
    }
}

runtime::label! {
    /// What became of a member.
    pub(crate) enum MemberOutcome("outcome") {
        /// The partner has it, or let it go.
        Confirmed => "confirmed",
        /// Refused for good.
        Rejected => "rejected",
        /// Refused for now.
        Retry => "retry",
        /// Not known.
        Unknown => "unknown",
    }
}

runtime::label! {
    /// How an upload ended.
    pub(crate) enum UploadResult("result") {
        /// There is a new snapshot.
        Taken => "taken",
        /// It was not what it must be.
        Refused => "refused",
        /// The store or the scratch space failed.
        Failed => "failed",
    }
}

/// The service's metrics.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    pub(crate) control_offset: IntGauge,
    pub(crate) owned: IntGauge,
    pub(crate) chunks: IntCounter,
    pub(crate) saves: IntCounter,
    pub(crate) faults: IntCounter,
    pub(crate) uploads: Family<UploadResult, IntCounter>,
    runs: Family<RunOutcome, IntCounter>,
    members: Family<MemberOutcome, IntCounter>,
}

impl Telemetry {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            control_offset: metrics.gauge(
                "anabranch_cohorts_control_offset",
                "Offset of control that was applied",
            ),
            owned: metrics.gauge("anabranch_cohorts_syncs", "Syncs that this process owns"),
            chunks: metrics.counter(
                "anabranch_cohorts_chunks_total",
                "Chunks written to deliveries",
            ),
            saves: metrics.counter(
                "anabranch_cohorts_saves_total",
                "Generations of rosters written",
            ),
            faults: metrics.counter(
                "anabranch_cohorts_faults_total",
                "Times that a sync began again from what is stored, as the log or the store failed",
            ),
            uploads: metrics.counters("anabranch_cohorts_uploads_total", "Snapshots uploaded"),
            runs: metrics.counters("anabranch_cohorts_runs_total", "Runs that ended"),
            members: metrics.counters(
                "anabranch_cohorts_members_total",
                "Members of runs that ended, by their outcome",
            ),
        }
    }

    /// Counts a run that ended.
    pub(crate) fn ended(&self, summary: &Summary) {
        let outcome = match summary.outcome.as_str() {
            "done" => RunOutcome::Done,
            "cancelled" => RunOutcome::Cancelled,
            "replaced" => RunOutcome::Replaced,
            _ => RunOutcome::Failed,
        };
        self.runs.get(outcome).inc();
        let counts = summary.counts;
        for (outcome, members) in [
            (MemberOutcome::Confirmed, counts.confirmed),
            (MemberOutcome::Rejected, counts.rejected),
            (MemberOutcome::Retry, counts.retry),
            (MemberOutcome::Unknown, counts.unknown),
        ] {
            self.members.get(outcome).inc_by(members);
        }
    }
}
