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

/// Where a step leads.
#[derive(Debug, Clone, Default)]
struct Step {
    children: HashMap<Box<str>, Node, RandomState>,
    /// A bit for each length that a child's name has: most members of an object have none of them.
    lengths: u64,
    /// How many children are indexes of arrays.
    indexes: usize,
    slot: Option<Slot>,
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
            step.lengths |= length_bit(&name);
            step.indexes += usize::from(is_index(&name));
            step.children.insert(name.into(), child);
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
    #[inline]
    pub(super) fn child(&self, node: Node, name: &str) -> Option<Node> {
        let step = self.step(node)?;
        if step.lengths & length_bit(name) == 0 {
            return None;
        }
        step.children.get(name).copied()
    }

    /// Whether an element of an array has a step of its own here.
    pub(super) fn has_indexes(&self, node: Node) -> bool {
        self.step(node).is_some_and(|step| step.indexes > 0)
    }

    /// Whether an array's elements are looked into as if each were in its place.
    pub(super) fn looks_through(&self, node: Node) -> bool {
        self.step(node)
            .is_some_and(|step| step.slot.is_some() || step.children.len() > step.indexes)
    }
}

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
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
