//! Owns the closed sets of the labels of the dispatcher's metrics.

use runtime::label;
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
        /// Nothing could be made of it by its transform.
        Transform => "transform",
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
            DeadReason::Transform => Self::Transform,
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

label! {
    /// What became of a delivery of which its transform lets nothing be sent.
    pub(crate) enum TransformOutcome("outcome") {
        /// The transform drops it.
        Dropped => "dropped",
        /// The transform fails.
        Failed => "failed",
    }
}
