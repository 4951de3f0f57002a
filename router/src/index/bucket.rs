//! Owns the rules that a type of event may be for, and finds those whose condition holds: each rule
//! is listed under one of its conditions, the one that seemed the rarest when it came; subscriptions
//! that one text decides about are in `decided`.
//!
//! It must never leave out a rule that the event passes; those that it does not pass are looked at
//! in full by the caller. The surprise: what an event costs depends on how its values are looked
//! up, and on what is found, and not on how many rules there are.

use schemas::event::Context;
use schemas::filter::{Alternative, Key, Need, Operand, Scalar, Slot, Subject, address};

use smallvec::SmallVec;

use super::decided::Decided;
use super::hits::Hits;
use super::keys::{Keys, LineId};
use super::lists::Lists;
use super::operands::{Hashes, Kind, Lookup, Operands, PATH, Probe, Value, windows};
use super::ranges::Spans;
use super::tenant::Shared;

/// So many ways to look values up lie in the bucket itself.
const PROBES: usize = 12;
/// So many keys of an event are looked up together: a long text has more.
const KEYS_MAX: usize = 64;

/// Rules of one type, of types that begin alike, or of any. What there is of a bucket of few rules
/// lies in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// How values are looked up, sorted, each with how many conditions ask for it.
    probes: SmallVec<[(Probe, u32); PROBES]>,
    keys: Keys,
    spans: Spans,
    /// Rules of which nothing is known.
    always: Vec<LineId>,
    rules: usize,
    /// Subscriptions of rules that are not listed here, since they need not be looked at.
    pub(super) decided: Decided,
}

/// What a rule is listed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Which of the alternatives; none where it is always looked at.
    alternative: Option<u8>,
    /// Which way of looking a condition up, where there are several.
    window: u8,
}

/// A rule as a bucket sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) line: LineId,
    pub(super) alternatives: &'a [Alternative<'a>],
    pub(super) slots: &'a [Slot],
    /// Every event that comes here has a type that the rule asks for.
    pub(super) is_typed: bool,
}

impl Bucket {
    pub(super) fn is_empty(&self) -> bool {
        self.rules == 0 && self.decided.is_empty()
    }

    /// Lists a rule; [`Bucket::remove`] wants to know where.
    pub(super) fn insert(&mut self, listed: Listed<'_>, shared: &mut Shared) -> Choice {
        self.rules += 1;
        let Shared {
            operands, lists, ..
        } = shared;
        let choice = self.choose(listed, operands);
        let Some(needs) = needs(listed, choice) else {
            self.always.push(listed.line);
            return choice;
        };
        for need in needs {
            if let Some(value) = operands.retain(need.operand, listed.slots) {
                match operands.lookup(value, need, choice.window) {
                    Lookup::Key(probe, key) => {
                        self.retain(probe);
                        self.keys.insert(key, listed.line, lists);
                    }
                    Lookup::Range(value, low, high) => {
                        self.spans.insert(value, (low, high), listed.line);
                    }
                }
            }
        }
        choice
    }

    /// Takes a rule back from where it is listed.
    pub(super) fn remove(&mut self, listed: Listed<'_>, choice: Choice, shared: &mut Shared) {
        self.rules = self.rules.saturating_sub(1);
        let Shared {
            operands, lists, ..
        } = shared;
        let Some(needs) = needs(listed, choice) else {
            let place = self.always.iter().position(|rule| *rule == listed.line);
            place.map(|place| self.always.swap_remove(place));
            return;
        };
        for need in needs {
            if let Some(value) = operands.value(need.operand, listed.slots) {
                match operands.lookup(value, need, choice.window) {
                    Lookup::Key(probe, key) => {
                        self.release(probe);
                        self.keys.remove(key, listed.line, lists);
                    }
                    Lookup::Range(value, low, high) => {
                        self.spans.remove(value, (low, high), listed.line);
                    }
                }
                operands.release(need.operand);
            }
        }
    }

    /// Adds the rules that `subject` may pass.
    pub(super) fn find(&self, subject: &mut Subject<'_>, shared: &Shared, hits: &mut Hits) {
        if self.rules == 0 {
            return;
        }
        let operands = &shared.operands;
        self.always.iter().for_each(|rule| hits.add(*rule));
        let paths = self.probes.partition_point(|(probe, _)| probe.value < PATH);
        let (attributes, paths) = self.probes.split_at_checked(paths).unwrap_or_default();
        let mut known: Option<(Value, Option<&str>)> = None;
        for (probe, _) in attributes {
            let text = match known {
                Some((value, text)) if value == probe.value => text,
                _ => operands
                    .name(probe.value)
                    .and_then(|name| subject.event().get(name)),
            };
            known = Some((probe.value, text));
            if let Some(text) = text {
                self.ask(*probe, Some(Scalar::String(text)), shared, hits);
            }
        }
        if !paths.is_empty() || !self.spans.is_empty() {
            for (slot, scalar) in subject.found() {
                self.find_value(paths, (slot | PATH, scalar), shared, hits);
            }
        }
        self.find_keys(&shared.lists, hits);
    }

    /// Looks one value up in one way, or soon.
    fn ask(&self, probe: Probe, scalar: Option<Scalar<'_>>, shared: &Shared, hits: &mut Hits) {
        keys_of(probe, scalar, &shared.operands.hashes, |key| {
            hits.keys.push(key);
            if hits.keys.len() >= KEYS_MAX {
                self.find_keys(&shared.lists, hits);
            }
        });
    }

    /// Looks up keys together: none waits for what another finds.
    fn find_keys(&self, lists: &Lists, hits: &mut Hits) {
        let Hits { lines, keys } = hits;
        for key in keys.drain(..) {
            self.keys.each(key, lists, |line| lines.push(line));
        }
    }

    fn find_value(
        &self,
        paths: &[(Probe, u32)],
        (value, scalar): (Value, Option<Scalar<'_>>),
        shared: &Shared,
        hits: &mut Hits,
    ) {
        let first = paths.partition_point(|(probe, _)| probe.value < value);
        let same = paths.iter().skip(first);
        for (probe, _) in same.take_while(|(probe, _)| probe.value == value) {
            self.ask(*probe, scalar, shared, hits);
        }
        if let Some(Scalar::Number(text)) = scalar
            && self.spans.has(value)
            && let Ok(number) = text.parse()
        {
            self.spans.each(value, number, |rule| hits.add(rule));
        }
    }

    // === which condition ===

    fn choose(&self, listed: Listed<'_>, operands: &Operands) -> Choice {
        let mut best = Choice {
            alternative: None,
            window: 0,
        };
        let mut least = u64::MAX;
        for (index, needs) in (0..=u8::MAX).zip(listed.alternatives) {
            if listed.is_typed && needs.iter().all(is_type) {
                continue;
            }
            // Several ways to look one condition up are told apart where it is alone.
            let ways = match &**needs {
                [only] => windows(only),
                _ => 1,
            };
            for window in 0..ways {
                let costs = needs
                    .iter()
                    .map(|need| self.cost(need, window, listed, operands));
                let cost = costs.fold(0, u64::saturating_add);
                if cost < least {
                    least = cost;
                    best = Choice {
                        alternative: Some(index),
                        window,
                    };
                }
            }
        }
        best
    }

    /// What one more rule under this condition would cost, in no unit.
    fn cost(&self, need: &Need<'_>, window: u8, listed: Listed<'_>, operands: &Operands) -> u64 {
        let value = operands.value(need.operand, listed.slots);
        let lookup = value.map(|value| operands.lookup(value, need, window));
        let beside = match lookup {
            None => 0,
            Some(Lookup::Key(_, key)) => self.keys.count(key),
            // Most of the others are elsewhere.
            Some(Lookup::Range(value, ..)) => self.spans.count(value) / 64,
        };
        let beside = u64::try_from(beside).unwrap_or(u64::MAX);
        let cost = need.key.share().saturating_mul(beside.saturating_add(1));
        match need.operand {
            Operand::Attribute(_) => cost,
            // The payload must be read first.
            Operand::Path(_) => cost.saturating_mul(2),
        }
    }

    // === counts ===

    fn retain(&mut self, probe: Probe) {
        match self
            .probes
            .binary_search_by_key(&probe, |(probe, _)| *probe)
        {
            Err(at) => self.probes.insert(at, (probe, 1)),
            Ok(at) => {
                if let Some((_, uses)) = self.probes.get_mut(at) {
                    *uses = uses.saturating_add(1);
                }
            }
        }
    }

    fn release(&mut self, probe: Probe) {
        let Ok(at) = self
            .probes
            .binary_search_by_key(&probe, |(probe, _)| *probe)
        else {
            return;
        };
        if let Some((_, uses)) = self.probes.get_mut(at) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.probes.remove(at);
            }
        }
    }
}

/// Calls `add` with each key that one value has in one way.
#[inline]
fn keys_of(probe: Probe, scalar: Option<Scalar<'_>>, hashes: &Hashes, mut add: impl FnMut(u64)) {
    let length = usize::from(probe.length);
    let text = match scalar {
        Some(Scalar::String(text)) => text.as_bytes(),
        Some(Scalar::Null | Scalar::Bool(_) | Scalar::Number(_)) | None => b"",
    };
    match probe.kind {
        Kind::Present => add(hashes.of_part(probe, b"")),
        Kind::Exact => {
            if let Some(scalar) = scalar {
                add(hashes.of_scalar(probe, scalar));
            }
        }
        Kind::Prefix => {
            if let Some(part) = text.get(..length) {
                add(hashes.of_part(probe, part));
            }
        }
        Kind::Suffix => {
            let from = text.len().checked_sub(length);
            if let Some(part) = from.and_then(|from| text.get(from..)) {
                add(hashes.of_part(probe, part));
            }
        }
        Kind::Contains => {
            for part in text.windows(length.max(1)) {
                add(hashes.of_part(probe, part));
            }
        }
        Kind::V4 | Kind::V6 => {
            let text = std::str::from_utf8(text).ok();
            let address = text.and_then(address);
            let key = address.and_then(|address| hashes.of_address(probe, address));
            key.into_iter().for_each(add);
        }
    }
}

fn needs<'a>(listed: Listed<'a>, choice: Choice) -> Option<&'a [Need<'a>]> {
    let index = usize::from(choice.alternative?);
    listed.alternatives.get(index).map(Vec::as_slice)
}

/// Whether it is a condition that a bucket of one type has met.
fn is_type(need: &Need<'_>) -> bool {
    let Operand::Attribute(name) = need.operand else {
        return false;
    };
    name.context() == Some(Context::Type) && matches!(need.key, Key::Exact(_))
}
