//! Owns cutting a comparison into chunks: the members of one partner request. Chunks of one
//! operation are numbered from 0; the same comparison gives the same chunks, so that a sync resumes
//! at a number. Never more members or bytes in one than the limits say, but for a single member
//! that is larger than they are.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::item::{Decision, Held, Operation, Verdict, id_of};
use crate::member::{hash_of_parts, select, write_json};
use crate::roster::Outcomes;
use crate::{Counts, Diff, Error};

/// The most that one request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkLimits {
    /// Members; of requests that update or remove, where nothing else is said.
    pub items: NonZeroUsize,
    /// Members of a request that updates.
    #[serde(default)]
    pub update_items: Option<NonZeroUsize>,
    /// Members of a request that removes.
    #[serde(default)]
    pub remove_items: Option<NonZeroUsize>,
    /// Bytes of the members as JSON, as they are before a template makes a request of them.
    pub bytes: NonZeroUsize,
}

impl ChunkLimits {
    /// The most members of a request.
    #[must_use]
    pub fn items(&self, operation: Operation) -> usize {
        let own = match operation {
            Operation::Add => None,
            Operation::Update => self.update_items,
            Operation::Remove => self.remove_items,
        };
        own.unwrap_or(self.items).get()
    }
}

/// Where a run is: for each operation the number of the first chunk that is still to be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Position {
    /// Of chunks that add.
    pub add: u64,
    /// Of chunks that update.
    pub update: u64,
    /// Of chunks that remove.
    pub remove: u64,
}

impl Position {
    /// The number for one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Add => self.add,
            Operation::Update => self.update,
            Operation::Remove => self.remove,
        }
    }

    /// Goes past one chunk.
    pub fn pass(&mut self, chunk: &Chunk) {
        *self.number(chunk.operation) = chunk.number + 1;
    }

    pub(crate) fn set(&mut self, operation: Operation, number: u64) {
        *self.number(operation) = number;
    }

    fn number(&mut self, operation: Operation) -> &mut u64 {
        match operation {
            Operation::Add => &mut self.add,
            Operation::Update => &mut self.update,
            Operation::Remove => &mut self.remove,
        }
    }
}

/// One member within its chunk.
#[derive(Debug, Clone, Copy)]
struct Place {
    from: usize,
    key_end: usize,
    body_end: usize,
    hash: u64,
    held: Held,
}

/// The members of one partner request, and what settles them in the roster.
#[derive(Debug, Clone)]
pub struct Chunk {
    operation: Operation,
    number: u64,
    /// Which half of which half, when the partner refused it as a whole: `0` and `1`.
    path: String,
    /// Keys and bodies, one behind the other.
    bytes: Vec<u8>,
    places: Vec<Place>,
    json_bytes: usize,
    identity: Arc<[String]>,
}

/// A member of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMember<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its canonical fields; of one to be removed, those that identify it, which may be none.
    pub body: &'a [u8],
    /// The hash of its content.
    pub hash: u64,
}

impl Chunk {
    fn new(operation: Operation, number: u64, identity: Arc<[String]>) -> Self {
        Self {
            operation,
            number,
            path: String::new(),
            bytes: Vec::new(),
            places: Vec::new(),
            json_bytes: 0,
            identity,
        }
    }

    /// What the partner is asked to do with the members.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Its number among the chunks of its operation.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Empty, or where it is within the chunk that was split: `0` is the first half, `01` the
    /// second half of that.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its id within a run: the same whenever it is made again.
    #[must_use]
    pub fn id(&self, sync: &str, run: &str) -> u128 {
        let operation = self.operation.name().as_bytes();
        let number = self.number.to_be_bytes();
        let path = self.path.as_bytes();
        hash_of_parts(&[sync.as_bytes(), run.as_bytes(), operation, &number, path])
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none, which no chunk that is given has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What it holds in memory, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.places.len() * size_of::<Place>() + size_of::<Self>()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, index: usize) -> Option<ChunkMember<'_>> {
        let place = self.places.get(index)?;
        // Ids were UTF-8 when they were pushed.
        let id = std::str::from_utf8(id_of(self.key(place))).unwrap_or_default();
        Some(ChunkMember {
            id,
            body: self.body(place),
            hash: place.hash,
        })
    }

    /// All members, in the order of their indexes.
    pub fn members(&self) -> impl Iterator<Item = ChunkMember<'_>> {
        (0..self.len()).filter_map(|index| self.member(index))
    }

    /// Appends all members as a JSON array of objects that open with their ids.
    pub fn write_members(&self, out: &mut Vec<u8>) {
        out.reserve(self.json_bytes + 2);
        out.push(b'[');
        for (index, member) in self.members().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(member.id, member.body, out);
        }
        out.push(b']');
    }

    /// Both halves, for a chunk that was refused as a whole; none of a single member.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Self)> {
        if self.len() < 2 {
            return None;
        }
        let middle = self.len() / 2;
        Some((
            self.half("0", 0, middle),
            self.half("1", middle, self.len()),
        ))
    }

    fn half(&self, step: &str, from: usize, to: usize) -> Self {
        let mut half = Self::new(self.operation, self.number, Arc::clone(&self.identity));
        half.path = format!("{}{step}", self.path);
        for place in self.places.get(from..to).unwrap_or_default() {
            half.push(self.key(place), self.body(place), place.hash, place.held);
        }
        half
    }

    /// Records what became of one member. An index that the chunk does not have is ignored.
    pub fn settle(&self, index: usize, verdict: Verdict<'_>, outcomes: &mut Outcomes) {
        let Some(place) = self.places.get(index) else {
            return;
        };
        let body = self.body(place);
        let asked = (self.operation, place.held);
        match self.operation {
            // What was kept to tell who leaves is kept until the partner let it go.
            Operation::Remove => {
                outcomes.record(self.key(place), asked, (place.hash, body), verdict)
            }
            Operation::Add | Operation::Update => {
                let fields = select(body, &self.identity);
                outcomes.record(self.key(place), asked, (place.hash, &fields), verdict);
            }
        }
    }

    /// Records the same for all members.
    pub fn settle_all(&self, verdict: Verdict<'_>, outcomes: &mut Outcomes) {
        for index in 0..self.len() {
            self.settle(index, verdict, outcomes);
        }
    }

    fn key(&self, place: &Place) -> &[u8] {
        self.bytes
            .get(place.from..place.key_end)
            .unwrap_or_default()
    }

    fn body(&self, place: &Place) -> &[u8] {
        self.bytes
            .get(place.key_end..place.body_end)
            .unwrap_or_default()
    }

    fn push(&mut self, key: &[u8], body: &[u8], hash: u64, held: Held) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(body);
        let body_end = self.bytes.len();
        self.places.push(Place {
            from,
            key_end,
            body_end,
            hash,
            held,
        });
        self.json_bytes += json_bytes(id_of(key), body);
    }
}

/// What a member takes in the array of members: `{"id":"…",…},`.
fn json_bytes(id: &[u8], body: &[u8]) -> usize {
    id.len() + body.len() + 10
}

/// A comparison as chunks.
#[derive(Debug)]
pub struct Chunks {
    diff: Diff,
    limits: ChunkLimits,
    from: Position,
    /// One chunk being filled for each operation.
    open: [Chunk; 3],
    ready: VecDeque<Chunk>,
    ended: bool,
}

impl Chunks {
    /// The chunks of `diff` from a position on: those before it are made and left out.
    #[must_use]
    pub fn new(diff: Diff, limits: ChunkLimits, from: Position) -> Self {
        let identity: Arc<[String]> = diff.identity().into();
        let open = Operation::ALL.map(|operation| Chunk::new(operation, 0, Arc::clone(&identity)));
        Self {
            diff,
            limits,
            from,
            open,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The counts of all members that were compared so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.diff.counts()
    }

    /// The next chunk; none at the end.
    ///
    /// # Errors
    /// The store's, [`Error::Damaged`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Ok(Some(chunk));
            }
            if self.ended {
                return Ok(None);
            }
            self.read_on()?;
        }
    }

    /// Reads until a chunk is ready or the comparison ends.
    fn read_on(&mut self) -> Result<(), Error> {
        let Self {
            diff,
            limits,
            from,
            open,
            ready,
            ended,
        } = self;
        while ready.is_empty() {
            let Some(row) = diff.next_row()? else {
                *ended = true;
                for chunk in open.iter_mut() {
                    close(chunk, *from, ready);
                }
                return Ok(());
            };
            let Decision::Send(operation) = row.decision else {
                continue;
            };
            let Some(chunk) = open.iter_mut().find(|chunk| chunk.operation == operation) else {
                continue;
            };
            let bytes = chunk.json_bytes + json_bytes(row.id.as_bytes(), row.body);
            if bytes > limits.bytes.get() {
                close(chunk, *from, ready);
            }
            let held = row.item.map_or(Held::No, |item| item.held);
            chunk.push(row.key, row.body, row.hash, held);
            if chunk.len() >= limits.items(operation) {
                close(chunk, *from, ready);
            }
        }
        Ok(())
    }
}

/// Ends the chunk that is being filled, if it has members, and begins the next.
fn close(open: &mut Chunk, from: Position, ready: &mut VecDeque<Chunk>) {
    if open.is_empty() {
        return;
    }
    let next = Chunk::new(open.operation, open.number + 1, Arc::clone(&open.identity));
    let whole = std::mem::replace(open, next);
    if whole.number >= from.of(whole.operation) {
        ready.push_back(whole);
    }
}

#[cfg(test)]
mod tests;
