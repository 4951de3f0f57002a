//! Owns the contract of [`Log`](super::Log): one case for each thing that services rely on, run
//! against every implementation by [`log_contract!`](crate::log_contract).
//!
//! A case must never know which implementation it has: offsets may have gaps, a rebalance may take
//! seconds, and whatever is retryable is tried again. The surprise: time may be real or paused, so
//! a case waits for events under a deadline and never for a time to pass.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a suite of tests: an expectation that fails panics"
)]

pub mod grouping;
pub mod producing;
pub mod reading;
pub mod topics;
pub mod transacting;

mod support;

use std::any::Any;
use std::fmt;
use std::time::Duration;

use super::topics::MAX_RECORD_BYTES;
use super::{SharedLog, TopicName, TopicSettings};
use crate::clock::Entropy;

/// A log under test and what must outlive it (a directory, a broker).
pub struct Subject {
    log: SharedLog,
    _kept: Box<dyn Any + Send>,
}

impl Subject {
    /// The log, with `kept` dropped after the case.
    pub fn new(log: SharedLog, kept: impl Any + Send) -> Self {
        Self {
            log,
            _kept: Box::new(kept),
        }
    }

    /// The log.
    pub fn log(&self) -> &SharedLog {
        &self.log
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log.fmt(f)
    }
}

/// The names that one run of one case may use: unlike those of every other run.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names for a run of `case`.
    pub fn for_case(case: &str) -> Self {
        let case = case.replace('_', "-");
        Self {
            prefix: format!("contract.{case}.{:08x}", Entropy::system().u64() >> 32),
        }
    }

    /// A name of a group, a member or a producer.
    pub fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }

    /// The name of a topic.
    pub fn topic(&self, part: &str) -> TopicName {
        TopicName::new(self.name(part))
    }

    /// Settings for a topic kept by time.
    pub fn settings(&self, part: &str, partitions: u32) -> TopicSettings {
        TopicSettings {
            name: self.topic(part),
            partitions,
            replication: 0,
            compact: false,
            retention: Duration::from_secs(14 * 24 * 3600),
            max_record_bytes: MAX_RECORD_BYTES,
            append_time: false,
        }
    }
}

/// Expands to one `#[tokio::test]` for each case, named after it. `$make` is an expression of an
/// `async fn() -> Subject`. `paused` before it runs the cases in paused time.
#[macro_export]
macro_rules! log_contract {
    (paused $make:expr) => { $crate::log_contract!(@all [start_paused = true] $make); };
    ($make:expr) => { $crate::log_contract!(@all [flavor = "current_thread"] $make); };
    (@all $flags:tt $make:expr) => {
        $crate::log_contract!(@each $flags $make; topics:
            topics_are_created_once_and_described
            an_empty_partition_begins_and_ends_at_zero
            bounds_follow_what_is_written
            an_offset_is_found_by_time
        );
        $crate::log_contract!(@each $flags $make; producing:
            records_keep_their_order_and_acks_name_their_offsets
            a_key_always_lands_in_one_partition
            keys_values_headers_and_times_come_back
            a_record_that_is_too_large_harms_no_other
            a_partition_that_does_not_exist_is_invalid
            try_send_takes_all_or_gives_all_back
            a_purged_producer_reports_everything_and_takes_nothing
            ordered_acknowledgements_keep_order
        );
        $crate::log_contract!(@each $flags $make; reading:
            a_reader_starts_where_it_is_told
            the_end_is_told_after_assignment_and_after_more
            pause_and_resume_lose_and_repeat_nothing
            a_new_assignment_has_a_new_number
            an_offset_outside_the_log_is_out_of_range
            a_small_queue_still_carries_everything
            a_record_larger_than_a_batch_arrives
            a_reader_that_was_idle_gets_new_records
            two_readers_read_the_same
            two_hundred_partitions_are_read_at_once
        );
        $crate::log_contract!(@each $flags $make; transacting:
            records_and_positions_appear_together
            positions_alone_are_a_transaction
            an_aborted_transaction_leaves_nothing_and_names_the_refused
            a_newer_producer_fences_the_older
            a_member_that_left_commits_no_transaction
            transactions_and_plain_records_keep_their_order
        );
        $crate::log_contract!(@each $flags $make; grouping:
            the_only_member_owns_every_partition
            a_second_member_takes_over_what_is_acknowledged
            a_dropped_revocation_acknowledges
            a_member_that_leaves_gives_back_everything
            groups_do_not_share
            positions_keep_their_metadata_for_any_topic
            metadata_beyond_the_limit_is_refused
            a_closed_member_commits_nothing
            an_empty_group_takes_positions_from_outside
            a_member_changes_its_topics
            a_topic_that_appears_later_is_shared
            members_share_only_what_each_wants
        );
    };
    (@each $flags:tt $make:expr; $area:ident: $($case:ident)*) => {
        $($crate::log_contract!(@one $flags $make; $area $case);)*
    };
    (@one [$($flag:tt)*] $make:expr; $area:ident $case:ident) => {
        #[tokio::test($($flag)*)]
        async fn $case() {
            let subject = $make().await;
            let names = $crate::log::contract::Names::for_case(stringify!($case));
            $crate::log::contract::$area::$case(subject.log(), &names).await;
        }
    };
}
