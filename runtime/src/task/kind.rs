//! Owns the list of task kinds: what runs, and what its end means.
//!
//! A kind is added here, never at the place that spawns it, so that this page answers "what runs
//! in this process, and what happens when it stops?".

use std::fmt;

/// What a task does when its group is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// It watches the group's token itself and ends when its work is safe; shutdown waits for it.
    Finish,
    /// It is dropped at its next await point.
    Abort,
}

/// What an error or a panic of a task means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The process cannot do its work any more: shutdown starts, with the error as its cause.
    StopProcess,
    /// It is logged; the owner of the task decides what follows.
    Log,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident => $name:literal, $cancel:ident, $error:ident;)+) => {
        /// The kinds of tasks that services run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum TaskKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl TaskKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The name in logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What it does when its group is cancelled.
            #[must_use]
            pub fn on_cancel(self) -> OnCancel {
                match self { $(Self::$kind => OnCancel::$cancel,)+ }
            }

            /// What its error or panic means.
            #[must_use]
            pub fn on_error(self) -> OnError {
                match self { $(Self::$kind => OnError::$error,)+ }
            }
        }
    };
}

kinds! {
    /// A whole service, where several run in one process.
    Service => "service", Finish, StopProcess;
    /// The admin port's accept loop.
    AdminServer => "admin server", Finish, StopProcess;
    /// Ingest's accept loop.
    IngestServer => "ingest server", Finish, StopProcess;
    /// Control's accept loop.
    ControlServer => "control server", Finish, StopProcess;
    /// One client's connection to one of the servers above.
    Connection => "connection", Finish, Log;
    /// The router's owner of its group membership and partitions.
    RouterLoop => "router loop", Finish, StopProcess;
    /// One source partition of a router.
    RouterPartition => "router partition", Finish, StopProcess;
    /// The dispatcher's owner of partitions, lanes and ledgers.
    DispatcherEngine => "dispatcher engine", Finish, StopProcess;
    /// One partition of a dispatcher.
    DispatcherPartition => "dispatcher partition", Finish, StopProcess;
    /// One attempt. It finishes: an attempt made and not recorded would be made again.
    Attempt => "attempt", Finish, Log;
    /// Runs a dispatcher's attempts: it ends when the engine lets go of it.
    AttemptSender => "attempt sender", Finish, StopProcess;
    /// An HTTP/2 connection to an endpoint: its attempts report what goes wrong.
    EndpointConnection => "endpoint connection", Abort, Log;
    /// Closes connections to endpoints that were idle for too long.
    ConnectionKeeper => "connection keeper", Abort, Log;
    /// The writer of hops: delay, dead and progress records in transactions.
    HopWriter => "hop writer", Finish, StopProcess;
    /// The writer of attempts records, best effort.
    AttemptWriter => "attempt writer", Finish, Log;
    /// A consumer of the log.
    LogReader => "log reader", Abort, StopProcess;
    /// A producer of the log: what was accepted is flushed first.
    LogWriter => "log writer", Finish, StopProcess;
    /// A member of a group: it leaves the group before it ends.
    GroupMember => "group member", Finish, StopProcess;
    /// Deletion of what the embedded log keeps no longer.
    LogRetention => "log retention", Abort, Log;
    /// A follower of the control topic.
    ViewFollower => "view follower", Abort, StopProcess;
    /// Control's single writer.
    ControlWriter => "control writer", Finish, StopProcess;
    /// A sync that this process owns: what it has not stored is done again from what is.
    SyncRun => "sync run", Abort, Log;
    /// Periodic publication of a process's own state and metrics.
    Reporter => "reporter", Abort, Log;
    /// The command line's own work: an endpoint on loopback, a publisher, a demo.
    Command => "command", Abort, Log;
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
