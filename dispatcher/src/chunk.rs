//! Owns what an answer says of a chunk: of the whole, of each member, and what is kept of it.
//!
//! Pure: it never sends. The surprise: a chunk whose members were refused one by one is delivered,
//! for their outcome is in its report; one that was refused as a whole is not.

use std::collections::BTreeMap;

use schemas::profile::{ItemVerdict, Judged, Meaning, judge};
use schemas::records::{ItemOutcome, ItemResult};
use serde_json::Value;

use crate::batch;
use crate::delivery::classify::Verdict;
use crate::delivery::template::Asked;
use crate::delivery::{Answer, Response};

/// The most bytes of what is kept of an answer.
const CAPTURED_BYTES_MAX: usize = 4 * 1_024;
/// The most bytes of the partner's words in one report: outcomes without words go on.
const CODES_BYTES_MAX: usize = 512 * 1_024;

/// What an answer says of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkSaid {
    /// How many members were sent.
    pub(crate) count: u32,
    /// Those that were not confirmed.
    pub(crate) items: Vec<ItemOutcome>,
    /// What is kept of the answer.
    pub(crate) captured: BTreeMap<String, Value>,
    whole: Whole,
}

/// What it says of the chunk as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// What its status, or the lack of an answer, says.
    AsStatus,
    /// This.
    Meaning(Meaning),
    /// Something of each member.
    Items,
}

impl ChunkSaid {
    /// What `answer` to `asked` says.
    pub(crate) fn of(asked: &Asked, answer: &Answer) -> Self {
        let mut said = Self {
            count: asked.chunk.count(),
            items: Vec::new(),
            captured: BTreeMap::new(),
            whole: Whole::AsStatus,
        };
        if let Ok(response) = answer {
            said.read(asked, response);
        }
        said
    }

    fn read(&mut self, asked: &Asked, response: &Response) {
        let Some(operation) = asked.operation() else {
            return;
        };
        let grammar = &operation.answer;
        let mut ids = Vec::new();
        if grammar.names_ids() {
            ids = asked.chunk.ids(grammar.item_id.as_ref());
        }
        ids.resize(asked.chunk.members.len(), String::new());
        let sent: Vec<&str> = ids.iter().map(String::as_str).collect();
        match judge(grammar, response.status, &response.body, &sent) {
            Judged::Items(items) => {
                self.whole = Whole::Items;
                self.items = outcomes(items);
            }
            Judged::Whole(Some(meaning)) => self.whole = Whole::Meaning(meaning),
            Judged::Whole(None) => {}
        }
        let is_taken = match self.whole {
            Whole::Items | Whole::Meaning(Meaning::Delivered) => true,
            Whole::AsStatus | Whole::Meaning(Meaning::Retry | Meaning::Rejected) => false,
        };
        if is_taken && !operation.capture.is_empty() {
            let body = serde_json::from_slice(&response.body).unwrap_or_default();
            self.captured = operation.captured(&body, CAPTURED_BYTES_MAX);
        }
    }

    /// What that means for the chunk's delivery, where the answer by itself means `verdict`.
    pub(crate) fn verdict(&self, verdict: Verdict) -> Verdict {
        match self.whole {
            Whole::Items => Verdict::Delivered,
            Whole::AsStatus => verdict,
            Whole::Meaning(meaning) => batch::meant(meaning, verdict),
        }
    }
}

/// The outcomes of those that were not taken, the partner's words as far as there is room.
fn outcomes(items: Vec<ItemVerdict>) -> Vec<ItemOutcome> {
    let mut left = CODES_BYTES_MAX;
    let outcome = |(index, item): (u32, ItemVerdict)| {
        let (verdict, code) = match item {
            ItemVerdict::Delivered => return None,
            ItemVerdict::Retry(code) => (ItemResult::Retry, code),
            ItemVerdict::Rejected(code) => (ItemResult::Rejected, code),
            ItemVerdict::Unknown => (ItemResult::Unknown, None),
        };
        let code = code.filter(|code| {
            let rest = left.checked_sub(code.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        });
        Some(ItemOutcome {
            index,
            verdict,
            code,
        })
    };
    (0..).zip(items).filter_map(outcome).collect()
}

#[cfg(test)]
mod tests;
