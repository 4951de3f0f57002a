//! Owns the places in payloads that filters ask for, as one tree of steps.
//!
//! Never knows who asks, and never changes once it is in use. The surprise: slots are given from
//! outside, so that one tree serves everybody who looks at the same places.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The number of a path.
pub type Slot = u32;

/// The number of a step's end in the tree.
pub(super) type Node = u32;

/// Where every path begins.
pub(super) const ROOT: Node = 0;

/// Steps of one path.
pub(crate) const STEPS_MAX: usize = 32;

/// JSON pointers (RFC 6901) that are looked for together.
#[derive(Debug, Clone)]
pub struct Paths {
    nodes: Vec<Step>,
    /// More than every slot.
    slots: usize,
}

/// More steps than this from one place are a map.
const FEW: usize = 8;

/// Where a step leads.
#[derive(Debug, Clone, Default)]
struct Step {
    /// The first few children.
    few: Vec<Child>,
    /// The others.
    many: HashMap<Box<str>, Node, RandomState>,
    /// A bit for each name of a child, see [`Head::bit`]: most members of an object have none.
    bits: u64,
    /// How many children are indexes of arrays.
    indexes: usize,
    slot: Option<Slot>,
}

/// A step from a place.
#[derive(Debug, Clone)]
struct Child {
    head: Head,
    name: Box<str>,
    node: Node,
}

/// A name's length and its first bytes: all of a short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    length: usize,
    word: u64,
}

impl Head {
    /// Of the name between two places in a text.
    #[inline]
    fn of(text: &[u8], (start, end): (usize, usize)) -> Self {
        let length = end.saturating_sub(start);
        let behind = text.get(start..).unwrap_or_default();
        let word = behind.first_chunk().map_or_else(
            || {
                let few = behind.iter().rev();
                few.fold(0, |word, byte| (word << 8) | u64::from(*byte))
            },
            |bytes| u64::from_le_bytes(*bytes),
        );
        let word = match length {
            0..8 => word & ((1 << (8 * length)) - 1),
            8.. => word,
        };
        Self { length, word }
    }

    #[inline]
    fn bit(self) -> u64 {
        1_u64.rotate_left(u32::try_from((self.word ^ (self.word >> 11)) & 63).unwrap_or(0))
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            nodes: vec![Step::default()],
            slots: 0,
        }
    }
}

impl<'a> FromIterator<(&'a str, Slot)> for Paths {
    /// Pointers, each with its slot; of one that comes twice the last slot counts.
    fn from_iter<T: IntoIterator<Item = (&'a str, Slot)>>(pointers: T) -> Self {
        let mut paths = Self::default();
        for (pointer, slot) in pointers {
            let node = steps(pointer).fold(ROOT, |node, name| paths.child_or_new(node, name));
            if let Some(step) = paths.step_mut(node) {
                step.slot = Some(slot);
            }
            let bound = usize::try_from(slot).map_or(usize::MAX, |slot| slot + 1);
            paths.slots = paths.slots.max(bound);
        }
        paths
    }
}

impl Paths {
    fn child_or_new(&mut self, node: Node, name: String) -> Node {
        if let Some(child) = self.child(node, &name) {
            return child;
        }
        // One for each step of a filter: memory ends before.
        let child = Node::try_from(self.nodes.len()).unwrap_or(Node::MAX);
        self.nodes.push(Step::default());
        if let Some(step) = self.step_mut(node) {
            let head = Head::of(name.as_bytes(), (0, name.len()));
            step.bits |= head.bit();
            step.indexes += usize::from(is_index(&name));
            let (name, node) = (name.into(), child);
            if step.few.len() < FEW {
                step.few.push(Child { head, name, node });
            } else {
                step.many.insert(name, node);
            }
        }
        child
    }

    fn step(&self, node: Node) -> Option<&Step> {
        self.nodes.get(usize::try_from(node).ok()?)
    }

    fn step_mut(&mut self, node: Node) -> Option<&mut Step> {
        self.nodes.get_mut(usize::try_from(node).ok()?)
    }

    /// How many nodes there are.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// More than every slot.
    pub(super) fn slot_bound(&self) -> usize {
        self.slots
    }

    /// The slot of the path that ends here.
    pub(super) fn slot(&self, node: Node) -> Option<Slot> {
        self.step(node)?.slot
    }

    /// Where the step called `name` leads from here.
    pub(super) fn child(&self, node: Node, name: &str) -> Option<Node> {
        self.child_at(node, name.as_bytes(), (0, name.len()))
    }

    /// Where the step leads from here whose name is between two places in a text.
    #[inline]
    pub(super) fn child_at(&self, node: Node, text: &[u8], span: (usize, usize)) -> Option<Node> {
        let step = self.step(node)?;
        let head = Head::of(text, span);
        if step.bits & head.bit() == 0 {
            return None;
        }
        let name = text.get(span.0..span.1)?;
        let is_name = |child: &&Child| {
            child.head == head && (head.length <= 8 || child.name.as_bytes() == name)
        };
        let few = step.few.iter().find(is_name).map(|child| child.node);
        few.or_else(|| step.many_named(name))
    }

    /// Whether an element of an array has a step of its own here.
    pub(super) fn has_indexes(&self, node: Node) -> bool {
        self.step(node).is_some_and(|step| step.indexes > 0)
    }

    /// Whether an array's elements are looked into as if each were in its place.
    pub(super) fn looks_through(&self, node: Node) -> bool {
        self.step(node).is_some_and(|step| {
            step.slot.is_some() || step.few.len() + step.many.len() > step.indexes
        })
    }
}

impl Step {
    fn many_named(&self, name: &[u8]) -> Option<Node> {
        if self.many.is_empty() {
            return None;
        }
        self.many.get(std::str::from_utf8(name).ok()?).copied()
    }
}

/// Whether a step selects an element of an array (RFC 6901 §4).
pub(crate) fn is_index(name: &str) -> bool {
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (name == "0" || !name.starts_with('0'))
}

/// The names of a pointer's steps.
pub(crate) fn steps(pointer: &str) -> impl Iterator<Item = String> + '_ {
    let names = pointer.split('/').skip(1);
    names.map(|name| name.replace("~1", "/").replace("~0", "~"))
}

/// Whether `text` is a JSON pointer (RFC 6901 §3) of at most [`STEPS_MAX`] steps.
pub(crate) fn is_pointer(text: &str) -> bool {
    let is_escaped = |part: &str| part.starts_with('0') || part.starts_with('1');
    (text.is_empty() || text.starts_with('/'))
        && text.split('/').count() <= STEPS_MAX + 1
        && text.split('~').skip(1).all(is_escaped)
}
