//! Owns the reading of an answer: from a grammar, a status and a body to a verdict for each item.
//!
//! Never panics and never looks at more than [`ENTRIES_MAX`] entries, whatever the body. The
//! surprise: under a status that means rejected, items that the body does not name may be sent
//! again, without those that it does.

use serde_json::Value;

use super::{Holds, ItemList, Meaning, Pointer, ResponseGrammar, TEXT_CHARS_MAX};

/// The most entries of an answer, all lists together, that are looked at.
pub(super) const ENTRIES_MAX: usize = 50_000;

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemVerdict {
    /// The partner has it.
    Delivered,
    /// It may be sent again, for this reason where one was given.
    Retry(Option<String>),
    /// It is never taken like this, for this reason where one was given.
    Rejected(Option<String>),
    /// The answer does not say.
    Unknown,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Each item's verdict, in the order in which they were sent.
    Items(Vec<ItemVerdict>),
    /// The request as a whole: nothing is said of single items. `None` is what the status means
    /// without a grammar.
    Whole(Option<Meaning>),
}

/// Reads an answer to a request that held the items with the ids `sent`, in this order. A body that
/// was cut is no JSON, and says nothing of any item.
#[must_use]
pub fn judge(grammar: &ResponseGrammar, status: u16, body: &[u8], sent: &[&str]) -> Judged {
    let success = (200..300).contains(&status);
    let meaning = match grammar.meaning(status) {
        None if success => Meaning::Delivered,
        None => return Judged::Whole(None),
        Some(Meaning::Retry) => return Judged::Whole(Some(Meaning::Retry)),
        Some(meaning) => meaning,
    };
    if !grammar.reads_body() {
        return Judged::Whole(Some(meaning));
    }
    let body = serde_json::from_slice::<Value>(body).ok();
    if body.as_ref().is_some_and(|body| asks_again(grammar, body)) {
        return Judged::Whole(Some(Meaning::Retry));
    }
    if !grammar.reads_items() {
        return Judged::Whole(Some(meaning));
    }
    match (meaning, body) {
        (Meaning::Delivered, Some(body)) => Judged::Items(delivered(grammar, &body, sent)),
        // Rule 15: 200 is not success until the response says so.
        (Meaning::Delivered, None) => Judged::Items(vec![ItemVerdict::Unknown; sent.len()]),
        (Meaning::Rejected, Some(body)) => rejected(grammar, &body, sent),
        (Meaning::Rejected | Meaning::Retry, _) => Judged::Whole(Some(meaning)),
    }
}

/// Whether the body says that the request may be sent again.
fn asks_again(grammar: &ResponseGrammar, body: &Value) -> bool {
    grammar.retry.as_ref().is_some_and(|says| {
        let found = says.at.find(body);
        found.is_some_and(|found| says.values.contains(found))
    })
}

fn delivered(grammar: &ResponseGrammar, body: &Value, sent: &[&str]) -> Vec<ItemVerdict> {
    let named = Named::of(grammar, body, sent);
    let failed = named
        .verdicts
        .iter()
        .flatten()
        .filter(|verdict| matches!(verdict, ItemVerdict::Retry(_) | ItemVerdict::Rejected(_)));
    let short = counts_fall_short(grammar, body, sent.len(), failed.count());
    let rest = match short {
        Short::No if !named.is_mismatch => ItemVerdict::Delivered,
        // One item alone is the one that the count is about.
        Short::NotReceived if sent.len() == 1 => ItemVerdict::Retry(None),
        Short::NotAccepted if sent.len() == 1 => ItemVerdict::Rejected(None),
        Short::No | Short::NotReceived | Short::NotAccepted | Short::NotSaid => {
            ItemVerdict::Unknown
        }
    };
    // Where the list is to name each item, silence about one is not success, whatever the counts.
    let each = grammar.lists.iter().any(|list| list.holds == Holds::Each);
    named
        .verdicts
        .into_iter()
        .map(|verdict| match verdict {
            Some(verdict) => verdict,
            None if each && rest == ItemVerdict::Delivered => ItemVerdict::Unknown,
            None => rest.clone(),
        })
        .collect()
}

fn rejected(grammar: &ResponseGrammar, body: &Value, sent: &[&str]) -> Judged {
    let named = Named::of(grammar, body, sent);
    let says = |verdict: &Option<ItemVerdict>| {
        matches!(
            verdict,
            Some(ItemVerdict::Retry(_) | ItemVerdict::Rejected(_))
        )
    };
    if !named.verdicts.iter().any(says) {
        return Judged::Whole(Some(Meaning::Rejected));
    }
    let verdicts = named.verdicts.into_iter();
    Judged::Items(
        verdicts
            .map(|verdict| verdict.unwrap_or(ItemVerdict::Retry(None)))
            .collect(),
    )
}

/// What the counts of an answer lack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Short {
    No,
    NotReceived,
    NotAccepted,
    NotSaid,
}

/// Whether the counts leave items over that no list names.
fn counts_fall_short(grammar: &ResponseGrammar, body: &Value, sent: usize, failed: usize) -> Short {
    let count = |pointer: &Pointer| pointer.find(body).and_then(as_count);
    let sent = sent as u64;
    let failed = failed as u64;
    let mut short = Short::No;
    if let Some(pointer) = &grammar.rejected {
        match count(pointer) {
            None => short = Short::NotSaid,
            Some(rejected) if rejected > failed => short = Short::NotAccepted,
            Some(_) => {}
        }
    }
    if let Some(pointer) = &grammar.accepted {
        match count(pointer) {
            None => short = Short::NotSaid,
            Some(accepted) if accepted.saturating_add(failed) < sent => short = Short::NotAccepted,
            Some(_) => {}
        }
    }
    if let Some(pointer) = &grammar.received {
        match count(pointer) {
            None => short = Short::NotSaid,
            Some(received) if received < sent => short = Short::NotReceived,
            Some(_) => {}
        }
    }
    short
}

/// Counts come as numbers, and as texts of numbers.
fn as_count(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

/// What the lists of an answer say of the items sent.
struct Named<'a> {
    verdicts: Vec<Option<ItemVerdict>>,
    /// Places by id, ordered; two items may have the same.
    places: Vec<(&'a str, usize)>,
    /// Whether an entry names an item that was not sent, or none at all.
    is_mismatch: bool,
    left: usize,
}

impl<'a> Named<'a> {
    fn of(grammar: &ResponseGrammar, body: &Value, sent: &[&'a str]) -> Self {
        let mut places: Vec<(&str, usize)> = Vec::new();
        if grammar.names_ids() {
            places = sent.iter().copied().zip(0..).collect();
            places.sort_unstable();
        }
        let mut named = Self {
            verdicts: vec![None; sent.len()],
            places,
            is_mismatch: false,
            left: ENTRIES_MAX,
        };
        for list in &grammar.lists {
            match list.at.find(body) {
                Some(Value::Array(entries)) => named.entries(list, entries.iter()),
                Some(Value::Object(entries)) => named.members(list, entries),
                Some(Value::Null) | None => {}
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                    named.is_mismatch = true;
                }
            }
        }
        named
    }

    fn entries<'v>(&mut self, list: &ItemList, entries: impl Iterator<Item = &'v Value>) {
        for (position, entry) in entries.enumerate() {
            if !self.spend() {
                return;
            }
            let verdict = verdict_of(list, entry);
            let mut found = false;
            if let Some(index) = list.index.as_ref().and_then(|at| at.find(entry)) {
                let index = as_count(index).and_then(|index| usize::try_from(index).ok());
                found |= self.mark(index, &verdict);
            } else if let Some(id) = list.id.as_ref().and_then(|at| at.find(entry)) {
                found |= self.mark_ids(id, &verdict);
            } else if list.holds == Holds::Each {
                found |= self.mark(Some(position), &verdict);
            }
            self.is_mismatch |= !found && verdict != ItemVerdict::Delivered;
        }
    }

    /// An object names items by its keys, and says of each what was wrong.
    fn members(&mut self, list: &ItemList, entries: &serde_json::Map<String, Value>) {
        for (id, entry) in entries {
            if !self.spend() {
                return;
            }
            let verdict = verdict_of(list, entry);
            let found = list.id.is_some() && self.mark_id(id, &verdict);
            self.is_mismatch |= !found && verdict != ItemVerdict::Delivered;
        }
    }

    fn mark_ids(&mut self, ids: &Value, verdict: &ItemVerdict) -> bool {
        match ids {
            Value::String(id) => self.mark_id(id, verdict),
            Value::Number(id) => self.mark_id(&id.to_string(), verdict),
            Value::Array(ids) => {
                let mut found = false;
                for id in ids {
                    let scalar = matches!(id, Value::String(_) | Value::Number(_));
                    if scalar && self.spend() {
                        found |= self.mark_ids(id, verdict);
                    }
                }
                found
            }
            Value::Null | Value::Bool(_) | Value::Object(_) => false,
        }
    }

    fn mark_id(&mut self, id: &str, verdict: &ItemVerdict) -> bool {
        let first = self.places.partition_point(|(other, _)| *other < id);
        let same = self.places.iter().skip(first);
        let places: Vec<usize> = same
            .take_while(|(other, _)| *other == id)
            .map(|(_, place)| *place)
            .collect();
        // An id that many items have costs as many entries.
        self.left = self.left.saturating_sub(places.len());
        for place in &places {
            self.mark(Some(*place), verdict);
        }
        !places.is_empty()
    }

    /// The worse of two verdicts stands.
    fn mark(&mut self, place: Option<usize>, verdict: &ItemVerdict) -> bool {
        let Some(slot) = place.and_then(|place| self.verdicts.get_mut(place)) else {
            return false;
        };
        let worse = match slot {
            None | Some(ItemVerdict::Delivered | ItemVerdict::Unknown) => true,
            Some(ItemVerdict::Retry(_)) => matches!(verdict, ItemVerdict::Rejected(_)),
            Some(ItemVerdict::Rejected(_)) => false,
        };
        if worse {
            *slot = Some(verdict.clone());
        }
        true
    }

    fn spend(&mut self) -> bool {
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.is_mismatch |= !some;
        some
    }
}

fn verdict_of(list: &ItemList, entry: &Value) -> ItemVerdict {
    match &list.success {
        Some(success) => {
            let found = success.at.find(entry).unwrap_or(&Value::Null);
            if success.values.contains(found) {
                return ItemVerdict::Delivered;
            }
        }
        // Each item is listed, and nothing tells a failed one: being there is success.
        None if list.holds == Holds::Each => return ItemVerdict::Delivered,
        None => {}
    }
    let said = list.code.as_ref().and_then(|at| at.find(entry));
    let code = said.and_then(as_code).or_else(|| list.default_code.clone());
    match code {
        Some(code) if list.retryable.contains(&code) => ItemVerdict::Retry(Some(code)),
        code => ItemVerdict::Rejected(code),
    }
}

fn as_code(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().take(TEXT_CHARS_MAX).collect()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(said) => Some(said.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
