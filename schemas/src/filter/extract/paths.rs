//! Owns the places in payloads that filters ask for, as one tree of steps.
//!
//! Never knows who asks: a path is counted each time it is added, and gone when it was removed as
//! often. The surprise: slots and nodes are used again, so a slot means something only while its
//! path is in use.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The number of a path among those in use.
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
    free_nodes: Vec<Node>,
    free_slots: Vec<Slot>,
    slots: Slot,
    in_use: usize,
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
    /// How often the path that ends here was added.
    uses: usize,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            nodes: vec![Step::default()],
            free_nodes: Vec::new(),
            free_slots: Vec::new(),
            slots: 0,
            in_use: 0,
        }
    }
}

impl Paths {
    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_use == 0
    }

    /// Counts a use of `pointer`, which [`is_pointer`]; its slot is its own until the last removal.
    pub fn add(&mut self, pointer: &str) -> Slot {
        let mut node = ROOT;
        for name in steps(pointer) {
            node = self.child_or_new(node, name);
        }
        let known = self.step(node).and_then(|step| step.slot);
        let slot = known.unwrap_or_else(|| self.new_slot());
        if let Some(step) = self.step_mut(node) {
            step.slot = Some(slot);
            step.uses += 1;
        }
        slot
    }

    /// Takes one use of `pointer` back.
    pub fn remove(&mut self, pointer: &str) {
        let mut way = Vec::new();
        let mut node = ROOT;
        for name in steps(pointer) {
            let Some(child) = self.child(node, &name) else {
                return;
            };
            way.push((node, name));
            node = child;
        }
        let Some(step) = self.step_mut(node) else {
            return;
        };
        step.uses = step.uses.saturating_sub(1);
        if step.uses > 0 {
            return;
        }
        if let Some(slot) = step.slot.take() {
            self.free_slots.push(slot);
            self.in_use -= 1;
        }
        self.prune(node, way);
    }

    /// Drops steps that lead nowhere any more.
    fn prune(&mut self, mut node: Node, mut way: Vec<(Node, String)>) {
        while self
            .step(node)
            .is_some_and(|step| step.slot.is_none() && step.children.is_empty())
        {
            let Some((parent, name)) = way.pop() else {
                return;
            };
            if let Some(step) = self.step_mut(parent) {
                step.children.remove(&*name);
                step.indexes -= usize::from(is_index(&name));
            }
            self.free_nodes.push(node);
            node = parent;
        }
    }

    fn new_slot(&mut self) -> Slot {
        self.in_use += 1;
        self.free_slots.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn child_or_new(&mut self, node: Node, name: String) -> Node {
        if let Some(child) = self.child(node, &name) {
            return child;
        }
        let child = self.free_nodes.pop().unwrap_or_else(|| {
            self.nodes.push(Step::default());
            // One for each step of a filter: memory ends before.
            Node::try_from(self.nodes.len() - 1).unwrap_or(Node::MAX)
        });
        if let Some(step) = self.step_mut(child) {
            *step = Step::default();
        }
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

    /// How many nodes there are, those not in use included.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// How many slots there are, those not in use included.
    pub(super) fn slot_count(&self) -> usize {
        usize::try_from(self.slots).unwrap_or(usize::MAX)
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
