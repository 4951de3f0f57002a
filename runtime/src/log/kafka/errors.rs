//! Owns what librdkafka's error codes mean here: which class, and whether a record can ever be
//! written.
//!
//! It must never decide on an error's text. The surprise: the same code means different things to
//! a reader, a committer and a transaction, so there is one function for each.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::log::{Class, Error};

/// Somebody else has this caller's place.
const FENCED: &[Code] = &[
    Code::Fenced,
    Code::FencedInstanceId,
    Code::UnreleasedInstanceId,
    Code::ProducerFenced,
    Code::InvalidProducerEpoch,
];

/// This member is not in the group (any more).
const NOT_MEMBER: &[Code] = &[Code::UnknownMemberId, Code::FencedMemberEpoch];

/// The membership is changing: the same commit may be taken in a moment.
const REBALANCING: &[Code] = &[
    Code::IllegalGeneration,
    Code::RebalanceInProgress,
    Code::StaleMemberEpoch,
    Code::AssignmentLost,
];

/// Asking again cannot help.
const HOPELESS: &[Code] = &[
    Code::TopicAuthorizationFailed,
    Code::GroupAuthorizationFailed,
    Code::ClusterAuthorizationFailed,
    Code::TransactionalIdAuthorizationFailed,
    Code::OffsetMetadataTooLarge,
    Code::InvalidCommitOffsetSize,
    Code::InvalidTopic,
    Code::InvalidGroupId,
    Code::InvalidPartitions,
    Code::InvalidReplicationFactor,
    Code::InvalidConfig,
    Code::InvalidRequest,
    Code::InvalidSessionTimeout,
    Code::InvalidTransactionTimeout,
    Code::InconsistentGroupProtocol,
    Code::UnsupportedAssignor,
    Code::UnsupportedVersion,
    Code::UnsupportedFeature,
    Code::InvalidArgument,
    Code::PolicyViolation,
    Code::MessageSizeTooLarge,
];

/// The request may have been carried out.
const UNANSWERED: &[Code] = &[
    Code::OperationTimedOut,
    Code::RequestTimedOut,
    Code::MessageTimedOut,
    Code::TimedOutQueue,
    Code::BrokerTransportFailure,
    Code::NetworkException,
];

/// The error code inside, [`Code::Unknown`] where there is none.
pub(super) fn code(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

/// What a failed question means: questions may be asked again.
pub(super) fn asking(subject: impl fmt::Display, error: &KafkaError) -> Error {
    let code = code(error);
    let class = if HOPELESS.contains(&code) || matches!(error, KafkaError::ClientConfig(..)) {
        Class::Never
    } else if FENCED.contains(&code) {
        Class::Fenced
    } else {
        Class::Retry
    };
    Error::new(class, subject, error)
}

/// What a client that could not be made means: its configuration is wrong.
pub(super) fn building(subject: impl fmt::Display, error: &KafkaError) -> Error {
    Error::new(Class::Never, subject, error)
}

/// What a failed commit of a member means.
pub(super) fn committing(subject: impl fmt::Display, error: &KafkaError) -> Error {
    let code = code(error);
    let class = if is_fenced(code) || NOT_MEMBER.contains(&code) || code == Code::Fatal {
        Class::Fenced
    } else if HOPELESS.contains(&code) {
        Class::Never
    } else if UNANSWERED.contains(&code) {
        Class::Unknown
    } else {
        Class::Retry
    };
    Error::new(class, subject, error)
}

/// What a failed commit from outside the group means: the group has members, or as [`committing`].
pub(super) fn committing_outside(group: &str, error: &KafkaError) -> Error {
    let code = code(error);
    if NOT_MEMBER.contains(&code) || REBALANCING.contains(&code) {
        return Error::new(
            Class::Retry,
            format!("group {group}"),
            "the group has members",
        );
    }
    committing(format!("group {group}"), error)
}

/// Whether another live client has taken the place.
pub(super) fn is_fenced(code: Code) -> bool {
    FENCED.contains(&code)
}

/// Whether a commit was refused because of the membership it was made under.
pub(super) fn is_not_member(code: Code) -> bool {
    NOT_MEMBER.contains(&code) || REBALANCING.contains(&code) || code == Code::FencedInstanceId
}

/// Whether a member that is told this can never serve its group. One topic that may not be read is
/// no reason: which it is, the commit for it says.
pub(super) fn ends_membership(code: Code) -> bool {
    [
        Code::GroupAuthorizationFailed,
        Code::InconsistentGroupProtocol,
        Code::InvalidSessionTimeout,
        Code::InvalidGroupId,
        Code::UnsupportedAssignor,
        Code::UnsupportedVersion,
        Code::GroupMaxSizeReached,
    ]
    .contains(&code)
}

/// Whether the broker refuses what is in a batch, and would again.
pub(super) fn refuses_size(code: Code) -> bool {
    [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge].contains(&code)
}

/// Whether the broker refuses the form of what is in a batch, and would again.
pub(super) fn refuses_form(code: Code) -> bool {
    [Code::InvalidRecord, Code::InvalidTimestamp].contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_refused_for_a_rebalance_may_be_sent_again_and_one_of_a_stranger_may_not() {
        fn check(code: Code, class: Class) {
            let error = committing("group g", &KafkaError::ConsumerCommit(code));
            assert_eq!(error.class(), class, "{code:?}");
        }
        check(Code::IllegalGeneration, Class::Retry);
        check(Code::RebalanceInProgress, Class::Retry);
        check(Code::StaleMemberEpoch, Class::Retry);
        check(Code::UnknownMemberId, Class::Fenced);
        check(Code::FencedMemberEpoch, Class::Fenced);
        check(Code::FencedInstanceId, Class::Fenced);
        check(Code::OffsetMetadataTooLarge, Class::Never);
        check(Code::RequestTimedOut, Class::Unknown);
        check(Code::NotCoordinator, Class::Retry);
    }

    #[test]
    fn a_topic_that_may_not_be_read_ends_no_membership_and_a_group_does() {
        assert!(!ends_membership(Code::TopicAuthorizationFailed));
        assert!(ends_membership(Code::GroupAuthorizationFailed));
    }

    #[test]
    fn a_group_with_members_refuses_the_outsider_for_now() {
        let refused = KafkaError::ConsumerCommit(Code::UnknownMemberId);
        assert_eq!(committing_outside("g", &refused).class(), Class::Retry);
    }
}
