//! Owns the bugs that tests plant, so that the simulation's auditor is itself tested: each must be
//! found.
//!
//! It must never be more than a question: outside tests the answer is no, at no cost.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A hold is not handed over.
    LostHold,
    /// A block is spent before the log has it.
    EarlyBlock,
    /// A probe that is answered does not close its breaker.
    BreakerNeverCloses,
    /// An open breaker lets attempts through.
    AttemptsWhileOpen,
    /// An endpoint is disabled, and no event says so.
    DisabledUntold,
    /// An endpoint works again, and its next owner is not told.
    EnabledUnmarked,
    /// A new owner lets disabled endpoints wait as if they had not been probed yet.
    ProbationForgotten,
    /// What a window has spent is forgotten when the endpoint's limits are changed.
    SpentForgotten,
    /// Marks are forgotten as soon as they are looked through.
    MarksKeptShort,
    /// A new owner takes the delivery behind a key's head for the head.
    HeadSkipped,
    /// A retry is queued twice.
    RetriedTwice,
    /// What is left of an endpoint that is not known yet is taken back.
    UnknownForgotten,
    /// A delivery is attempted though others of its key come first.
    AttemptsNonHead,
    /// A key's record is not written with its hop.
    BlockWithoutItsHop,
    /// Both halves of a rejected batch are given up.
    HalvesNothing,
    /// What is deferred completes before its hop is written.
    HopWithoutTransaction,
    /// What ends as a dead letter completes before that is written.
    CompletedBeforeDead,
    /// What an aborted transaction completed stays completed.
    NoReopenAfterAbort,
    /// A revoke is acknowledged while a commit is on its way.
    LateCommitAfterRevoke,
    /// The position passes what is open.
    CommitPastOpen,
    /// Attempts are started whatever the group has acknowledged.
    LeaseUnchecked,
    /// A transaction is opened though the lease is over.
    LeaseNotAsked,
    /// A transaction is opened, and positions are committed, while news of the membership waits.
    NewsUnheard,
    /// A new owner reads from the committed position, and knows no marks from below it.
    MarksForgotten,
    /// Nothing is recognised as a repeat.
    MarksUnread,
    /// What comes back from a delay topic before it is due is attempted at once.
    DueUndershot,
    /// What an endpoint asks to wait is not waited.
    RetryAfterIgnored,
    /// A drain ends before what is in flight has.
    DrainBeforeInFlight,
    /// A record is taken in before what it was routed by is applied.
    ControlOffsetIgnored,
    /// What waits in memory loses what was attempted of it in a drain.
    WaitingDroppedAtDrain,
    /// Memory is not given back.
    MemoryKept,
    /// A paused partition is not resumed.
    NeverResumed,
    /// Offsets that the log never delivers stay open.
    GapsStayOpen,
}

/// Whether this bug is planted.
#[cfg(not(test))]
pub(crate) const fn is(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted on this thread, which runs the whole simulated world.
#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug on this thread, or none.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
