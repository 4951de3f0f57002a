//! Owns what is stored of a sync beside its roster: the run that is under way, what the last one
//! came to, and what of the cohort has been dealt with.
//!
//! Never stored by itself: it is the note of a generation of the roster, so that what a run has
//! counted and what the roster says change together, or not at all. The surprise: how far chunks
//! may have been *written* lies in an object of its own ([`Ahead`]), which is written before they
//! are: what a crash forgets is made again with the same ids.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::late::Late;
use super::ledger::LedgerState;
use crate::{ChunkLimits, Counts, Delta, Error, Position, View};

/// The most requests that are remembered as dealt with.
const HANDLED_MAX: usize = 64;

/// All that is stored of a sync.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// How many runs have begun.
    pub(crate) runs: u64,
    /// The partner's list, where the sync made it.
    pub(crate) list: Option<Value>,
    /// The run that is under way.
    pub(crate) run: Option<RunNote>,
    /// What the last run came to.
    pub(crate) last: Option<Summary>,
    /// The last delta that a run has dealt with; deltas behind it are for a small run.
    pub(crate) last_delta: Option<u64>,
    /// Up to when the schedule has been followed, unix milliseconds.
    pub(crate) scheduled: Option<i64>,
    /// Another whole run is to begin when the one under way is over; whether its removals are
    /// approved.
    pub(crate) queued: Option<bool>,
    /// Requests that have been dealt with, the newest last.
    pub(crate) handled: Vec<String>,
    /// Chunks of ended runs that may arrive yet.
    pub(crate) late: Late,
    /// A run has left members out for their sake: a whole one is to follow.
    pub(crate) held_back: bool,
}

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunNote {
    pub(crate) id: String,
    pub(crate) scope: RunScope,
    /// The cohort as it was when the run began.
    pub(crate) view: View,
    /// How often members that were refused for now, or whose outcome is not known, were gone
    /// through again.
    pub(crate) pass: u32,
    /// The generation of the roster that this pass compares with.
    pub(crate) base: u64,
    pub(crate) limits: ChunkLimits,
    pub(crate) ledger: LedgerState,
    /// Where results are to be read from after a restart.
    pub(crate) results: BTreeMap<u32, i64>,
    pub(crate) planned: Counts,
    pub(crate) counts: RunCounts,
    /// Of this pass: members that may be taken when they are sent again.
    pub(crate) again: u64,
    /// Of this pass: members of chunks of which nothing was heard.
    #[serde(default)]
    pub(crate) lost: u64,
    pub(crate) approved: bool,
    /// Waits for somebody to approve of its removals.
    pub(crate) waits: bool,
    /// Makes no further chunks, and why.
    pub(crate) stop: Option<Stop>,
    /// Then, until when what is on its way is waited for, unix milliseconds.
    #[serde(default)]
    pub(crate) stop_until: Option<i64>,
    /// It is stopped, and no chunk was or will be written but those that the ledger has as open.
    #[serde(default)]
    pub(crate) closed: bool,
    /// Of this pass: whoever is unknown is left out, as a late chunk may be about him.
    #[serde(default)]
    pub(crate) holds_back: bool,
    pub(crate) started_at: i64,
    /// Jobs at the partner that members were put into, which are to be run and asked after.
    #[serde(default)]
    pub(crate) jobs: BTreeMap<String, Value>,
}

/// Which members a run is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunScope {
    /// All.
    Whole,
    /// Those that these deltas name.
    Deltas(Vec<Delta>),
}

/// Why a run makes no further chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// A newer run takes its place.
    Replaced,
    /// It could not go on.
    Failed(String),
}

/// What has become of the members of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunCounts {
    /// Sent, those that were sent again counted again.
    pub sent: u64,
    /// Confirmed.
    pub confirmed: u64,
    /// Of those, removed.
    pub removed: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Refused for now.
    pub retry: u64,
    /// Not known.
    pub unknown: u64,
    /// Chunks whose outcome was heard.
    pub chunks: u64,
    /// Chunks that were refused as a whole and sent again in halves.
    pub halved: u64,
}

impl RunCounts {
    /// Members with an outcome, whatever it is.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.confirmed + self.rejected + self.retry + self.unknown
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub id: String,
    /// How it ended: `done`, `cancelled`, `replaced` or `failed`.
    pub outcome: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The snapshot that it went by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// What it set out to do.
    pub planned: Counts,
    /// What became of the members.
    pub counts: RunCounts,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Unix milliseconds.
    pub ended_at: i64,
}

impl Note {
    /// The note of a generation.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        if value.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(value.clone())
            .map_err(|error| Error::damaged("note of a roster", error.to_string()))
    }

    pub(crate) fn write(&self) -> Value {
        // Text, numbers and lists alone: writing cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn has_handled(&self, request: &str) -> bool {
        self.handled.iter().any(|handled| handled == request)
    }

    pub(crate) fn handle(&mut self, request: String) {
        if self.handled.len() >= HANDLED_MAX {
            self.handled.remove(0);
        }
        self.handled.push(request);
    }
}

impl RunNote {
    /// What of the cohort it needs.
    pub(crate) fn views(self) -> Vec<View> {
        let deltas = match self.scope {
            RunScope::Whole => Vec::new(),
            RunScope::Deltas(deltas) => deltas,
        };
        let named = View {
            snapshot: None,
            deltas,
        };
        vec![self.view, named]
    }

    /// What ids of chunks are made with: chunks of two passes are different chunks.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.id, self.pass)
    }

    /// Says until when a run that is to end waits for what is on its way; whether that is news.
    pub(crate) fn bound_stop(&mut self, now: i64, wait: Duration) -> bool {
        if self.stop.is_none() || self.stop_until.is_some() {
            return false;
        }
        let wait = runtime::clock::millis(wait);
        self.stop_until = Some(now.saturating_add(wait));
        true
    }

    pub(crate) fn summary(&self, now: i64) -> Summary {
        let (outcome, reason) = match &self.stop {
            None => ("done", None),
            Some(Stop::Cancelled) => ("cancelled", None),
            Some(Stop::Replaced) => ("replaced", None),
            Some(Stop::Failed(why)) => ("failed", Some(why.clone())),
        };
        Summary {
            id: self.id.clone(),
            outcome: outcome.to_owned(),
            reason,
            snapshot: self
                .view
                .snapshot
                .as_ref()
                .map(|snapshot| snapshot.id.clone()),
            planned: self.planned,
            counts: self.counts,
            started_at: self.started_at,
            ended_at: now,
        }
    }
}

/// How far chunks of a pass may have been written: stored before they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ahead {
    /// The run and its pass.
    pub(crate) name: String,
    /// No chunk of these numbers or higher ones was written.
    pub(crate) below: Position,
}
