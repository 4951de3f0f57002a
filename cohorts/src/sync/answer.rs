//! Owns what a report makes of the members of a chunk. Pure.
//!
//! Never takes silence for success: a chunk that is dead for any reason but a refusal may have been
//! taken, and its members are unknown (rules 14 and 15). The surprise: indexes in a report are
//! those of the members that were *sent*; what was refused before that has shifted them.

use schemas::records::{DeadReason, ItemResult, ResultRecord, ResultVerdict};

use super::note::RunCounts;
use crate::{Chunk, Operation, Outcomes, Verdict};

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
    /// The partner refuses one request after the other: what it says of one member may not be
    /// about him.
    Doubted,
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
    let rest = of_all(report, taken, sent);
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
        let is_removed = verdict == Verdict::Confirmed && chunk.operation() == Operation::Remove;
        counts.removed += u64::from(is_removed);
        chunk.settle(index, verdict, outcomes);
        place += 1;
    }
}

/// What a report says of those of `sent` members that it does not name.
fn of_all(report: &ResultRecord, taken: Taken, sent: usize) -> Verdict<'_> {
    let words = |otherwise| report.words.as_deref().unwrap_or(otherwise);
    let refused = |otherwise| match taken {
        Taken::Doubted => Verdict::Retry(words(otherwise)),
        Taken::Confirmed | Taken::Pending => Verdict::Rejected(words(otherwise)),
    };
    match report.verdict {
        ResultVerdict::Delivered => match (taken, report.count.map(usize::try_from)) {
            (_, Some(Ok(reported))) if reported != sent => Verdict::Unknown,
            (_, Some(Err(_))) | (Taken::Pending, _) => Verdict::Unknown,
            (Taken::Confirmed | Taken::Doubted, _) => Verdict::Confirmed,
        },
        ResultVerdict::Rejected => refused("refused"),
        ResultVerdict::Dead => match report.reason {
            Some(
                reason @ (DeadReason::Rejected
                | DeadReason::Template
                | DeadReason::Transform
                | DeadReason::Unencodable
                | DeadReason::TooLarge),
            ) => refused(reason.as_str()),
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
    }
}

/// Whether the partner has refused the request as a whole.
pub(crate) fn is_refusal(report: &ResultRecord) -> bool {
    match report.verdict {
        ResultVerdict::Rejected => true,
        ResultVerdict::Dead => report.reason == Some(DeadReason::Rejected),
        ResultVerdict::Delivered => false,
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
