//! Owns what a report makes of the members of a chunk. Pure.
//!
//! Never takes silence for success: a chunk that is dead for any reason but a refusal may have been
//! taken, and its members are unknown (rules 14 and 15). The surprise: indexes in a report are
//! those of the members that were *sent*; what was refused before that has shifted them.

use schemas::records::{DeadReason, ItemResult, ResultRecord, ResultVerdict};

use super::note::RunCounts;
use crate::{Chunk, Outcomes, Verdict};

/// What is to be done about a chunk that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Its members have their outcome.
    Settled,
    /// It was refused as a whole: its halves are to be sent.
    Halves,
}

/// Why members that were in a report have another outcome than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// What the report does not name is confirmed.
    Confirmed,
    /// The partner has only taken them into a job, whose end will tell.
    Pending,
}

/// What a report says of a chunk.
pub(crate) fn heard(chunk: &Chunk, report: &ResultRecord) -> Heard {
    let refused = match (report.verdict, report.reason) {
        (ResultVerdict::Rejected, _) => true,
        // One member may have spoilt the whole request.
        (
            ResultVerdict::Dead,
            Some(DeadReason::Template | DeadReason::Unencodable | DeadReason::TooLarge),
        ) => true,
        (ResultVerdict::Dead | ResultVerdict::Delivered, _) => false,
    };
    if refused && chunk.len() > 1 {
        Heard::Halves
    } else {
        Heard::Settled
    }
}

/// Records the outcome of each member of `chunk`, of which `refused` were not sent.
pub(crate) fn settle(
    (chunk, refused): (&Chunk, &[(usize, String)]),
    (report, taken): (&ResultRecord, Taken),
    outcomes: &mut Outcomes,
    counts: &mut RunCounts,
) {
    for (index, why) in refused {
        let verdict = Verdict::Rejected(why);
        count(verdict, counts);
        chunk.settle(*index, verdict, outcomes);
    }
    let sent = chunk.len() - refused.len();
    let rest = match report.verdict {
        ResultVerdict::Delivered => match (taken, report.count.map(usize::try_from)) {
            (_, Some(Ok(reported))) if reported != sent => Verdict::Unknown,
            (_, Some(Err(_))) | (Taken::Pending, _) => Verdict::Unknown,
            (Taken::Confirmed, _) => Verdict::Confirmed,
        },
        ResultVerdict::Rejected => Verdict::Rejected("refused"),
        ResultVerdict::Dead => match report.reason {
            Some(
                reason @ (DeadReason::Rejected
                | DeadReason::Template
                | DeadReason::Unencodable
                | DeadReason::TooLarge),
            ) => Verdict::Rejected(reason.as_str()),
            Some(
                DeadReason::AttemptsExhausted
                | DeadReason::MaxAge
                | DeadReason::EndpointGone
                | DeadReason::EndpointDisabled
                | DeadReason::Deleted
                | DeadReason::Undecodable
                | DeadReason::RetentionLost
                | DeadReason::Loop,
            )
            | None => Verdict::Unknown,
        },
    };
    let mut named = report.items.iter().peekable();
    let mut left_out = refused.iter().map(|(index, _)| *index).peekable();
    let mut place: u32 = 0;
    for index in 0..chunk.len() {
        if left_out.next_if_eq(&index).is_some() {
            continue;
        }
        let item = named.next_if(|item| item.index <= place);
        let verdict = match item {
            Some(item) => {
                let code = item.code.as_deref().unwrap_or("");
                match item.verdict {
                    ItemResult::Rejected => Verdict::Rejected(code),
                    ItemResult::Retry => Verdict::Retry(code),
                    ItemResult::Unknown => Verdict::Unknown,
                }
            }
            None => rest,
        };
        count(verdict, counts);
        chunk.settle(index, verdict, outcomes);
        place += 1;
    }
}

/// Records that nothing was heard of a chunk's members.
pub(crate) fn settle_unknown(
    (chunk, refused): (&Chunk, &[(usize, String)]),
    outcomes: &mut Outcomes,
    counts: &mut RunCounts,
) {
    for index in 0..chunk.len() {
        let why = refused.iter().find(|(refused, _)| *refused == index);
        let verdict = why.map_or(Verdict::Unknown, |(_, why)| Verdict::Rejected(why));
        count(verdict, counts);
        chunk.settle(index, verdict, outcomes);
    }
}

fn count(verdict: Verdict<'_>, counts: &mut RunCounts) {
    let count = match verdict {
        Verdict::Confirmed => &mut counts.confirmed,
        Verdict::Rejected(_) => &mut counts.rejected,
        Verdict::Retry(_) => &mut counts.retry,
        Verdict::Unknown => &mut counts.unknown,
    };
    *count += 1;
}

/// Whether a report says that nothing can arrive at the endpoint any more.
pub(crate) fn is_over(report: &ResultRecord) -> Option<&'static str> {
    match (report.verdict, report.reason) {
        (
            ResultVerdict::Dead,
            Some(
                reason @ (DeadReason::EndpointGone
                | DeadReason::EndpointDisabled
                | DeadReason::Deleted),
            ),
        ) => Some(reason.as_str()),
        (ResultVerdict::Dead | ResultVerdict::Delivered | ResultVerdict::Rejected, _) => None,
    }
}
