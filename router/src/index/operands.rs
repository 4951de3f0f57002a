//! Owns the numbers of the attributes that anybody's subscriptions look at, and the hashes of what a
//! value may be, an attribute's or one in data.
//!
//! It must never give one number to two values in use. The surprise: they are the same for all
//! tenants, so that what is read for an event of one is near when the next tenant's comes.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use foldhash::fast::RandomState;
use schemas::event::AttributeName;
use schemas::filter::{Block, Decimal, Key, Need, Operand, Scalar, Slot};

/// The number of a value: an attribute's, or a path's slot and [`PATH`].
pub(super) type Value = u32;

/// Marks the number of a path.
pub(super) const PATH: Value = 1 << 31;
/// Longer beginnings and ends are cut: they are looked at again anyway.
const CUT: usize = 64;
/// A text of which one part is looked up has not more places to take it from.
const WINDOWS_MAX: usize = 64;

/// How a value is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Present,
    Exact,
    Prefix,
    Suffix,
    Contains,
    V4,
    V6,
}

/// What a condition is found by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lookup {
    Key(Probe, u64),
    Range(Value, f64, f64),
}

/// One way to look a value up: of its prefixes, say, the one of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Probe {
    pub(super) value: Value,
    pub(super) kind: Kind,
    pub(super) length: u8,
}

/// The attributes that subscriptions look at.
#[derive(Debug, Default)]
pub(super) struct Operands {
    names: Vec<Name>,
    values: HashMap<AttributeName, Value, RandomState>,
    free: Vec<Value>,
    /// A hash is all that is kept of a text here: what is found by it is looked at again.
    pub(super) hashes: Hashes,
}

#[derive(Debug)]
struct Name {
    name: AttributeName,
    uses: usize,
}

/// One way to hash.
#[derive(Debug, Default)]
pub(super) struct Hashes(RandomState);

impl Operands {
    /// The number of a value, where it has one. `slots` has those of the subscription's paths.
    pub(super) fn value(&self, operand: Operand<'_>, slots: &[Slot]) -> Option<Value> {
        match operand {
            Operand::Path(path) => slots.get(usize::from(path)).map(|slot| slot | PATH),
            Operand::Attribute(name) => self.values.get(name).copied(),
        }
    }

    /// Counts a use of the value.
    pub(super) fn retain(&mut self, operand: Operand<'_>, slots: &[Slot]) -> Option<Value> {
        let Operand::Attribute(name) = operand else {
            return self.value(operand, slots);
        };
        if let Some(value) = self.values.get(name) {
            if let Some(known) = self.names.get_mut(usize::try_from(*value).ok()?) {
                known.uses += 1;
            }
            return Some(*value);
        }
        let (name, uses) = (name.clone(), 1);
        let value = match self.free.pop() {
            Some(value) => value,
            None => Value::try_from(self.names.len()).ok()?,
        };
        self.values.insert(name.clone(), value);
        let name = Name { name, uses };
        match self.names.get_mut(usize::try_from(value).ok()?) {
            Some(unused) => *unused = name,
            None => self.names.push(name),
        }
        Some(value)
    }

    /// Takes a use of the value back.
    pub(super) fn release(&mut self, operand: Operand<'_>) {
        let Operand::Attribute(name) = operand else {
            return;
        };
        let Some(value) = self.values.get(name).copied() else {
            return;
        };
        let place = usize::try_from(value).ok();
        if let Some(known) = place.and_then(|place| self.names.get_mut(place)) {
            known.uses -= 1;
            if known.uses == 0 {
                self.values.remove(name);
                self.free.push(value);
            }
        }
    }

    /// The attribute of a number that is not a path's.
    pub(super) fn name(&self, value: Value) -> Option<&AttributeName> {
        let known = self.names.get(usize::try_from(value).ok()?)?;
        Some(&known.name)
    }

    /// How the condition on `value` is looked up; where several ways would do, the one of `window`.
    pub(super) fn lookup(&self, value: Value, need: &Need<'_>, window: u8) -> Lookup {
        let hashes = &self.hashes;
        let probe = |kind, length: usize| Probe {
            value,
            kind,
            length: u8::try_from(length).unwrap_or(u8::MAX),
        };
        let of_bytes = |kind, bytes: &[u8]| {
            let probe = probe(kind, bytes.len());
            Lookup::Key(probe, hashes.of_part(probe, bytes))
        };
        match need.key {
            Key::Between(low, high) => Lookup::Range(value, low, high),
            Key::Present => {
                let probe = probe(Kind::Present, 0);
                Lookup::Key(probe, hashes.of_part(probe, b""))
            }
            Key::Exact(scalar) => {
                let probe = probe(Kind::Exact, 0);
                Lookup::Key(probe, hashes.of_scalar(probe, scalar))
            }
            Key::Prefix(text) => of_bytes(Kind::Prefix, head(text)),
            Key::Suffix(text) => of_bytes(Kind::Suffix, tail(text)),
            Key::Contains(text) => {
                let mut windows = text.as_bytes().windows(window_bytes(text));
                let part = windows.nth(usize::from(window));
                of_bytes(Kind::Contains, part.unwrap_or_default())
            }
            Key::Network(block) => {
                let kind = if block.is_v4 { Kind::V4 } else { Kind::V6 };
                let probe = probe(kind, usize::from(block.length));
                Lookup::Key(probe, hashes.of_block(probe, block))
            }
        }
    }
}

/// In how many ways the condition can be looked up.
pub(super) fn windows(need: &Need<'_>) -> u8 {
    let Key::Contains(text) = need.key else {
        return 1;
    };
    let count = (text.len() + 1).saturating_sub(window_bytes(text));
    u8::try_from(count.clamp(1, WINDOWS_MAX)).unwrap_or(1)
}

/// Three lengths only, so that a text is gone through three times at most.
fn window_bytes(text: &str) -> usize {
    match text.len() {
        0..6 => 4,
        6..8 => 6,
        8.. => 8,
    }
}

fn head(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    bytes.get(..CUT).unwrap_or(bytes)
}

fn tail(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    bytes
        .len()
        .checked_sub(CUT)
        .and_then(|from| bytes.get(from..))
        .unwrap_or(bytes)
}

impl Hashes {
    fn start(&self, probe: Probe) -> impl Hasher {
        let mut hasher = self.0.build_hasher();
        hasher.write_u32(probe.value);
        hasher.write_u8(probe.kind as u8);
        hasher.write_u8(probe.length);
        hasher
    }

    #[inline]
    pub(super) fn of_part(&self, probe: Probe, bytes: &[u8]) -> u64 {
        let mut hasher = self.start(probe);
        hasher.write(bytes);
        hasher.finish()
    }

    pub(super) fn of_scalar(&self, probe: Probe, scalar: Scalar<'_>) -> u64 {
        let mut hasher = self.start(probe);
        match scalar {
            Scalar::Null => hasher.write_u8(0),
            Scalar::Bool(value) => hasher.write_u8(1 + u8::from(value)),
            Scalar::Number(text) => {
                hasher.write_u8(3);
                Decimal::parse(text).hash(&mut hasher);
            }
            Scalar::String(text) => {
                hasher.write_u8(4);
                hasher.write(text.as_bytes());
            }
        }
        hasher.finish()
    }

    fn of_block(&self, probe: Probe, block: Block) -> u64 {
        let mut hasher = self.start(probe);
        hasher.write_u128(block.bits);
        hasher.finish()
    }

    /// The hash of the block of `probe` that `address` is in; `None` where the versions differ.
    pub(super) fn of_address(&self, probe: Probe, address: IpAddr) -> Option<u64> {
        let block = Block::around(address, probe.length);
        let is_same = block.is_v4 == (probe.kind == Kind::V4);
        is_same.then(|| self.of_block(probe, block))
    }

    /// The hash of any of these.
    pub(super) fn of<T: Hash>(&self, thing: &T) -> u64 {
        self.0.hash_one(thing)
    }
}
