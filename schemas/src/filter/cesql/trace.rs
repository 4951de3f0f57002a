//! Owns the tracing of an evaluation: each part that decides, with its value and its errors.
//!
//! Never says anything but what [`Run`] says: it evaluates part by part with the same code, under
//! one budget. The surprise: a part may be evaluated several times, once for itself and once within
//! each part around it; the depth bounds how often.

use super::WORK_BYTES_MAX;
use super::evaluate::Run;
use super::tree::{Logic, Node, Operator};
use super::value::{Attributes, Value, boolean};

/// A part of an expression in an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The part, as text.
    pub text: String,
    /// Its value; `None` where `AND` or `OR` was decided before (SQ-5).
    pub value: Option<Value<'static>>,
    /// The errors in it.
    pub errors: Vec<String>,
    /// The parts that it is made of, literals left out.
    pub parts: Vec<Step>,
}

/// The longest text of a part.
const SHOWN_CHARS_MAX: usize = 256;

/// How `root` comes to its value.
pub(super) fn trace<A: Attributes>(root: &Node, attributes: &A) -> Step {
    // The whole as a filter is evaluated; its parts, which are looked at again, share another
    // budget.
    let whole = step(root, &mut Run::complete(attributes, WORK_BYTES_MAX));
    let budget = WORK_BYTES_MAX.saturating_mul(4);
    Step {
        parts: parts(root, &mut Run::complete(attributes, budget)),
        ..whole
    }
}

/// The node alone.
fn step<'v, A: Attributes>(node: &'v Node, run: &mut Run<'v, A>) -> Step {
    let outcome = run.node(node).ok();
    let value = outcome.map(|outcome| outcome.value.into_owned());
    let errors = run.take_errors();
    Step {
        text: shown(node),
        value,
        errors: errors.iter().map(ToString::to_string).collect(),
        parts: Vec::new(),
    }
}

fn shown(node: &Node) -> String {
    let text = node.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn parts<'v, A: Attributes>(node: &'v Node, run: &mut Run<'v, A>) -> Vec<Step> {
    let mut parts = Vec::new();
    match node {
        Node::Literal(_) | Node::Attribute(_) | Node::Exists(_) => {}
        Node::Not(operand) | Node::Negate(operand) | Node::Like { operand, .. } => {
            add(&mut parts, operand, run);
        }
        Node::In { operand, set, .. } => {
            add(&mut parts, operand, run);
            set.iter().for_each(|element| add(&mut parts, element, run));
        }
        Node::Chain { first, rest } => chain(first, rest, run, &mut parts),
        Node::Call(call) => call
            .arguments
            .iter()
            .for_each(|argument| add(&mut parts, argument, run)),
    }
    parts
}

fn add<'v, A: Attributes>(parts: &mut Vec<Step>, node: &'v Node, run: &mut Run<'v, A>) {
    if !matches!(node, Node::Literal(_)) {
        let alone = step(node, run);
        parts.push(Step {
            parts: self::parts(node, run),
            ..alone
        });
    }
}

/// The operands of a chain; those that `AND` and `OR` never came to have no value.
fn chain<'v, A: Attributes>(
    first: &'v Node,
    rest: &'v [(Operator, Node)],
    run: &mut Run<'v, A>,
    parts: &mut Vec<Step>,
) {
    add(parts, first, run);
    // The value so far, where the chain is one of booleans.
    let mut left = run.node(first).ok();
    run.take_errors();
    for (operator, right) in rest {
        let so_far = left.take();
        let decided = so_far.as_ref().is_some_and(|outcome| {
            let is_true = boolean(&outcome.value).unwrap_or(false);
            match operator {
                Operator::Logic(Logic::And) => !is_true,
                Operator::Logic(Logic::Or) => is_true,
                Operator::Logic(Logic::Xor)
                | Operator::Equal
                | Operator::NotEqual
                | Operator::Order(_)
                | Operator::Arithmetic(_) => false,
            }
        });
        if decided {
            parts.push(Step {
                text: shown(right),
                value: None,
                errors: Vec::new(),
                parts: Vec::new(),
            });
        } else {
            add(parts, right, run);
        }
        left = so_far.and_then(|outcome| run.operator(*operator, outcome, right).ok());
        run.take_errors();
    }
}
