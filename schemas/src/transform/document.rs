//! Owns data under change: JSON of which no more is taken apart than steps lead through.
//!
//! What no step looks into is written as the bytes that it came as, so that numbers keep their
//! digits. It must never fail or panic, whatever the text is. The surprise: in an array a step that
//! is no index is taken in each element, as filters do it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, Write};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A value, taken apart or not.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// JSON text.
    Text(Cow<'a, str>),
    Object(Vec<(String, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

/// Places as a tree, so that all of them are looked at on one way through the data.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The place itself is one of them.
    is_place: bool,
    below: BTreeMap<Box<str>, Tree>,
}

/// What of a tree is looked for in a value.
#[derive(Debug, Clone, Copy)]
struct Branch<'t> {
    tree: &'t Tree,
    /// The value is an element of the array that the tree was for: a step that is an index is not
    /// for it.
    is_of_each: bool,
}

/// Why nothing can be put at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Blocked {
    #[error("leads into what is neither an object nor an array")]
    Scalar,
    #[error("leads beyond the end of an array")]
    Beyond,
}

impl Tree {
    /// The tree of these places.
    pub(super) fn of<'p>(places: impl Iterator<Item = &'p [Box<str>]>) -> Self {
        let mut tree = Self::default();
        for place in places {
            let mut at = &mut tree;
            for step in place {
                at = at.below.entry(step.clone()).or_default();
            }
            at.is_place = true;
        }
        tree
    }
}

impl<'t> Branch<'t> {
    fn of(tree: &'t Tree) -> Self {
        Self {
            tree,
            is_of_each: false,
        }
    }

    fn is_here(&self) -> bool {
        self.tree.is_place && !self.is_of_each
    }
}

/// What is looked for in an object's member.
fn in_member<'t>(branches: &[Branch<'t>], name: &str) -> Vec<Branch<'t>> {
    let fits = |branch: &&Branch<'_>| !(branch.is_of_each && index(name).is_some());
    let below = branches.iter().filter(fits);
    below
        .filter_map(|branch| branch.tree.below.get(name).map(Branch::of))
        .collect()
}

/// What is looked for in an array's element: what names it, and in an object all else.
fn in_element<'t>(branches: &[Branch<'t>], at: usize, is_object: bool) -> Vec<Branch<'t>> {
    let at = at.to_string();
    let named = branches
        .iter()
        .filter_map(|branch| branch.tree.below.get(at.as_str()).map(Branch::of));
    let each = branches.iter().filter(|_| is_object).map(|branch| Branch {
        tree: branch.tree,
        is_of_each: true,
    });
    named.chain(each).collect()
}

/// The index that a step is, if it is one (RFC 6901 §4).
fn index(step: &str) -> Option<usize> {
    let is_plain = step.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = step.len() > 1 && step.starts_with('0');
    (is_plain && !is_padded)
        .then(|| step.parse().ok())
        .flatten()
}

impl<'a> Node<'a> {
    /// Nothing but braces.
    pub(super) fn empty() -> Self {
        Self::Object(Vec::new())
    }

    /// Writes it as JSON.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Text(text) => to.write_all(text.trim().as_bytes()),
            Self::Object(members) => {
                to.write_all(b"{")?;
                for (at, (name, member)) in members.iter().enumerate() {
                    if at > 0 {
                        to.write_all(b",")?;
                    }
                    serde_json::to_writer(&mut *to, name).map_err(io::Error::from)?;
                    to.write_all(b":")?;
                    member.write(to)?;
                }
                to.write_all(b"}")
            }
            Self::Array(items) => {
                to.write_all(b"[")?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        to.write_all(b",")?;
                    }
                    item.write(to)?;
                }
                to.write_all(b"]")
            }
        }
    }

    /// What is left of it where nothing but these places is kept.
    pub(super) fn select(mut self, tree: &Tree) -> Self {
        self.open();
        let nothing = match self {
            Self::Array(_) => Self::Array(Vec::new()),
            Self::Object(_) | Self::Text(_) => Self::empty(),
        };
        self.selected(&[Branch::of(tree)]).unwrap_or(nothing)
    }

    fn selected(mut self, branches: &[Branch<'_>]) -> Option<Self> {
        if branches.iter().any(Branch::is_here) {
            return Some(self);
        }
        if branches.is_empty() {
            return None;
        }
        self.open();
        match self {
            Self::Text(_) => None,
            Self::Object(members) => {
                let kept = members.into_iter().filter_map(|(name, member)| {
                    let member = member.selected(&in_member(branches, &name))?;
                    Some((name, member))
                });
                let kept: Vec<_> = kept.collect();
                (!kept.is_empty()).then_some(Self::Object(kept))
            }
            Self::Array(items) => {
                let kept = items.into_iter().enumerate().filter_map(|(at, mut item)| {
                    let below = in_element(branches, at, item.is_object());
                    item.selected(&below)
                });
                let kept: Vec<_> = kept.collect();
                (!kept.is_empty()).then_some(Self::Array(kept))
            }
        }
    }

    /// Removes these places.
    pub(super) fn strip(&mut self, tree: &Tree) {
        self.stripped(&[Branch::of(tree)]);
    }

    /// Says whether it is kept itself.
    fn stripped(&mut self, branches: &[Branch<'_>]) -> bool {
        if branches.iter().any(Branch::is_here) {
            return false;
        }
        if branches.is_empty() {
            return true;
        }
        self.open();
        match self {
            Self::Text(_) => {}
            Self::Object(members) => {
                members.retain_mut(|(name, member)| member.stripped(&in_member(branches, name)));
            }
            Self::Array(items) => {
                let mut at = 0;
                items.retain_mut(|item| {
                    let below = in_element(branches, at, item.is_object());
                    at += 1;
                    item.stripped(&below)
                });
            }
        }
        true
    }

    /// Takes out what is at a place, which is not the whole.
    pub(super) fn take(&mut self, (way, last): (&[Box<str>], &str)) -> Option<Self> {
        let mut at = self;
        for step in way {
            at = at.below(step)?;
        }
        at.open();
        match at {
            Self::Text(_) => None,
            Self::Object(members) => {
                let found = members.iter().position(|(name, _)| name == last)?;
                Some(members.remove(found).1)
            }
            Self::Array(items) => {
                let found = index(last).filter(|index| *index < items.len())?;
                Some(items.remove(found))
            }
        }
    }

    /// Puts `value` at a place, which is not the whole, and makes what is missing on the way there.
    pub(super) fn put(
        &mut self,
        (way, last): (&[Box<str>], &str),
        value: Self,
    ) -> Result<(), Blocked> {
        let mut at = self;
        for step in way {
            at = at.place(step)?;
        }
        *at.place(last)? = value;
        Ok(())
    }

    fn below(&mut self, step: &str) -> Option<&mut Self> {
        self.open();
        match self {
            Self::Text(_) => None,
            Self::Object(members) => {
                let mut members = members.iter_mut();
                let found = members.find(|(name, _)| name == step)?;
                Some(&mut found.1)
            }
            Self::Array(items) => items.get_mut(index(step)?),
        }
    }

    /// The place below, made where it is missing.
    fn place(&mut self, step: &str) -> Result<&mut Self, Blocked> {
        self.open();
        if matches!(self, Self::Text(text) if text.trim() == "null") {
            *self = Self::empty();
        }
        match self {
            Self::Text(_) => Err(Blocked::Scalar),
            Self::Object(members) => {
                let found = members.iter().position(|(name, _)| name == step);
                let at = found.unwrap_or_else(|| {
                    members.push((step.to_owned(), Self::empty()));
                    members.len() - 1
                });
                let member = members.get_mut(at);
                member.map(|(_, member)| member).ok_or(Blocked::Beyond)
            }
            Self::Array(items) => {
                let next = items.len();
                let at = if step == "-" { Some(next) } else { index(step) };
                let at = at.ok_or(Blocked::Scalar)?;
                if at == next {
                    items.push(Self::empty());
                }
                items.get_mut(at).ok_or(Blocked::Beyond)
            }
        }
    }

    fn is_object(&mut self) -> bool {
        self.open();
        matches!(self, Self::Object(_))
    }

    /// Takes it apart, one level deep, if it is an object or an array.
    fn open(&mut self) {
        let opened = match self {
            Self::Text(Cow::Borrowed(text)) => opened(text, Cow::Borrowed),
            Self::Text(Cow::Owned(text)) => opened(text, |part| Cow::Owned(part.to_owned())),
            Self::Object(_) | Self::Array(_) => None,
        };
        if let Some(opened) = opened {
            *self = opened;
        }
    }
}

/// The members of an object as they are written.
struct Shallow<'t>(Vec<(String, &'t RawValue)>);

fn opened<'t, 'a>(text: &'t str, keep: impl Fn(&'t str) -> Cow<'a, str>) -> Option<Node<'a>> {
    let part = |raw: &'t RawValue| Node::Text(keep(raw.get()));
    match text.trim_start().as_bytes().first()? {
        b'{' => {
            let Shallow(mut members) = serde_json::from_str(text).ok()?;
            keep_last(&mut members);
            let members = members.into_iter().map(|(name, raw)| (name, part(raw)));
            Some(Node::Object(members.collect()))
        }
        b'[' => {
            let items: Vec<&'t RawValue> = serde_json::from_str(text).ok()?;
            Some(Node::Array(items.into_iter().map(part).collect()))
        }
        _ => None,
    }
}

/// Of members with the same name the last one counts, as parsers have it.
fn keep_last(members: &mut Vec<(String, &RawValue)>) {
    let mut known = HashSet::with_capacity(members.len());
    let kept: Vec<bool> = members
        .iter()
        .rev()
        .map(|(name, _)| known.insert(name.as_str()))
        .collect();
    if known.len() < members.len() {
        let mut kept = kept.into_iter().rev();
        members.retain(|_| kept.next().unwrap_or(true));
    }
}

impl<'de: 't, 't> Deserialize<'de> for Shallow<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members).map(Self)
    }
}
