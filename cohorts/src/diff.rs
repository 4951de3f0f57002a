//! Owns the comparison of a cohort with a roster: one pass over both, in the order of ids, that
//! says of each member what becomes of it. Holds a block of each run, and nothing random-access.
//!
//! The surprise: it is deterministic. The same view and the same generation give the same rows in
//! the same order, which is what lets a sync resume at a chunk.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::item::{Decision, Held, Item, Operation, Standing, decide, id_of, write_key};
use crate::roster::Items;
use crate::run::Merge;
use crate::{Error, Roster};

/// What a comparison is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All members: whoever the cohort does not have has left it.
    Whole,
    /// Only the members that the input names, those it says are gone among them
    /// ([`crate::Cohort::changes`]): for deltas between whole runs.
    Named,
}

/// How many members there are of each kind; after the last row, the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counts {
    /// To be added.
    pub add: u64,
    /// To be updated.
    pub update: u64,
    /// To be removed.
    pub remove: u64,
    /// Confirmed as they are.
    pub keep: u64,
    /// Refused for good as they are.
    pub refused: u64,
    /// Left, and their removal was refused for good.
    pub refused_removals: u64,
    /// Left, and never taken.
    pub absent: u64,
    /// Not sent now, as an older request with them may arrive yet.
    pub held_back: u64,
    /// Of those to be added, updated or removed: sent before, and refused for now or not known.
    pub repairs: u64,
    /// Members that the partner holds, or may hold, before the run.
    pub held: u64,
}

impl Counts {
    /// How many members a run sends for one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Add => self.add,
            Operation::Update => self.update,
            Operation::Remove => self.remove,
        }
    }

    /// The share of what the partner holds that a run would remove, in per cent.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share needs no more than a double has"
    )]
    pub fn removed_percent(&self) -> f64 {
        if self.held == 0 {
            0.0
        } else {
            self.remove as f64 * 100.0 / self.held as f64
        }
    }

    fn count(&mut self, decision: Decision, item: Option<&Item<'_>>) {
        let count = match decision {
            Decision::Send(Operation::Add) => &mut self.add,
            Decision::Send(Operation::Update) => &mut self.update,
            Decision::Send(Operation::Remove) => &mut self.remove,
            Decision::Keep => &mut self.keep,
            Decision::Refused => &mut self.refused,
            Decision::RefusedRemoval => &mut self.refused_removals,
            Decision::Absent => &mut self.absent,
            Decision::HeldBack => &mut self.held_back,
        };
        *count += 1;
        let Some(item) = item else { return };
        self.held += u64::from(item.held != Held::No);
        let open = match item.standing {
            Standing::Confirmed => false,
            Standing::Unknown | Standing::Rejected { .. } => true,
        };
        self.repairs += u64::from(open && matches!(decision, Decision::Send(_)));
    }
}

/// One member, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// What becomes of it.
    pub decision: Decision,
    /// Its id.
    pub id: &'a str,
    /// Its key in the roster.
    pub key: &'a [u8],
    /// The hash of its content: the cohort's, or for one who left the roster's.
    pub hash: u64,
    /// Its canonical fields; for one who left those that identify it at the partner, which may be
    /// none.
    pub body: &'a [u8],
    /// What the roster says of it.
    pub item: Option<Item<'a>>,
}

/// A comparison that is under way.
#[derive(Debug)]
pub struct Diff {
    members: Merge,
    items: Items,
    scope: Scope,
    holds_back: bool,
    identity: Vec<String>,
    side: Side,
    /// The current member's key and identifying fields.
    key: Vec<u8>,
    fields: Vec<u8>,
    /// The id of the member before.
    last_id: Vec<u8>,
    counts: Counts,
}

/// Where the row is from that was given last, and so what moves on next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Start,
    Member,
    Item,
    Both,
    End,
}

impl Diff {
    /// Compares `members` ([`crate::Cohort::members`] for the whole, [`crate::Cohort::changes`] for
    /// those named) with a roster.
    #[must_use]
    pub fn new(members: Merge, roster: &Roster, scope: Scope) -> Self {
        Self {
            members,
            items: Items::new(roster),
            scope,
            holds_back: false,
            identity: roster.identity().to_vec(),
            side: Side::Start,
            key: Vec::new(),
            fields: Vec::new(),
            last_id: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Whether whoever is unknown is left out ([`Decision::HeldBack`]).
    #[must_use]
    pub fn holding_back(self, holds_back: bool) -> Self {
        Self { holds_back, ..self }
    }

    /// The counts of the rows that were given so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The fields that the partner knows members by, beside the id.
    #[must_use]
    pub fn identity(&self) -> &[String] {
        &self.identity
    }

    /// Goes through all that is left, for the counts alone: a plan.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`].
    pub fn plan(mut self) -> Result<Counts, Error> {
        while self.advance()? {}
        Ok(self.counts)
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`].
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, Error> {
        if self.advance()? {
            self.row().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Goes to the next row, and counts it; false at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        loop {
            self.step()?;
            self.side = self.compare()?;
            if self.side == Side::End {
                return Ok(false);
            }
            if self.is_meant()? {
                let (decision, item) =
                    decision((&self.members, self.side), &self.items, self.holds_back)?;
                self.counts.count(decision, item.as_ref());
                return Ok(true);
            }
        }
    }

    /// Moves on what the last row was from.
    fn step(&mut self) -> Result<(), Error> {
        if matches!(self.side, Side::Start | Side::Member | Side::Both) {
            self.last_id.clear();
            if let Some(member) = self.members.entry()
                && self.side != Side::Start
            {
                self.last_id.extend_from_slice(member.id);
            }
            self.members.advance()?;
            if let Some(member) = self.members.entry() {
                let to = (&mut self.key, &mut self.fields);
                write_key(member.id, member.body, &self.identity, to);
            }
        }
        if matches!(self.side, Side::Start | Side::Item | Side::Both) {
            self.items.advance()?;
        }
        Ok(())
    }

    /// Which side the next row is from.
    fn compare(&self) -> Result<Side, Error> {
        let (member, item) = (self.members.entry(), self.items.item()?);
        Ok(match (member, item) {
            (None, None) => Side::End,
            (Some(_), None) => Side::Member,
            (None, Some(_)) => Side::Item,
            // One who is gone is gone under every key.
            (Some(member), Some((key, _))) if member.is_gone() => match id_of(key).cmp(member.id) {
                Ordering::Less | Ordering::Equal => Side::Item,
                Ordering::Greater => Side::Member,
            },
            (Some(_), Some((key, _))) => match key.cmp(self.key.as_slice()) {
                Ordering::Less => Side::Item,
                Ordering::Equal => Side::Both,
                Ordering::Greater => Side::Member,
            },
        })
    }

    /// Whether the place that was reached is a row at all.
    fn is_meant(&self) -> Result<bool, Error> {
        Ok(match self.side {
            Side::Start | Side::End => false,
            Side::Both => true,
            Side::Member => !self.members.entry().is_some_and(|member| member.is_gone()),
            Side::Item => match (self.scope, self.items.item()?) {
                (Scope::Whole, _) => true,
                (Scope::Named, None) => false,
                (Scope::Named, Some((key, _))) => {
                    let id = id_of(key);
                    id == self.last_id.as_slice()
                        || self.members.entry().is_some_and(|member| member.id == id)
                }
            },
        })
    }

    fn row(&self) -> Result<Row<'_>, Error> {
        let (decision, item) = decision((&self.members, self.side), &self.items, self.holds_back)?;
        let member = self.members.entry().filter(|_| self.side != Side::Item);
        let (key, hash, body) = match (member, self.items.item()?) {
            (Some(member), _) => (self.key.as_slice(), member.hash, member.body),
            (None, Some((key, item))) => (key, item.hash, item.fields),
            (None, None) => (&[][..], 0, &[][..]),
        };
        let id = std::str::from_utf8(id_of(key));
        let id = id.map_err(|_| Error::damaged("run", "an id is not UTF-8"))?;
        Ok(Row {
            decision,
            id,
            key,
            hash,
            body,
            item,
        })
    }
}

/// What becomes of what both are at, as far as the row is from them.
fn decision<'a>(
    (members, side): (&Merge, Side),
    items: &'a Items,
    holds_back: bool,
) -> Result<(Decision, Option<Item<'a>>), Error> {
    let member = members
        .entry()
        .filter(|_| matches!(side, Side::Member | Side::Both));
    let item = items
        .item()?
        .filter(|_| matches!(side, Side::Item | Side::Both));
    let item = item.map(|(_, item)| item);
    let decision = decide(member.map(|member| member.hash), item.as_ref());
    let is_open = item.is_some_and(|item| item.standing == Standing::Unknown);
    if holds_back && is_open && matches!(decision, Decision::Send(_)) {
        return Ok((Decision::HeldBack, item));
    }
    Ok((decision, item))
}

#[cfg(test)]
mod tests;
