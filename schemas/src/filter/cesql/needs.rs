//! Owns what can be told of an expression without an event: what some attribute must be wherever it
//! matches, for an index to look up.
//!
//! Never promises the contrary. The surprise: `=` with a string compares canonical texts whatever
//! the attribute's type, but `IN` casts to that type, so only context attributes, which are always
//! strings, can be looked up by it.

use crate::event::AttributeName;

use super::Expression;
use super::tree::{Literal, Logic, Node, Operator};

/// What an attribute must be, in its canonical string form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filter) enum Needed<'a> {
    /// This.
    Exact(&'a str),
    /// What begins so.
    Prefix(&'a str),
    /// What ends so.
    Suffix(&'a str),
    /// Anything.
    Present,
}

/// What an attribute is, in its canonical string form, where a part of an expression is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::filter) enum Told<'a> {
    /// This.
    Exact(&'a str),
    /// One of these.
    In(Vec<&'a str>),
    /// These pieces, with any text between two of them and nothing else.
    Pieces(Vec<String>),
}

/// Attributes of which at least one is what is needed of it wherever the expression matches.
pub(in crate::filter) type Alternative<'a> = Vec<(&'a AttributeName, Needed<'a>)>;

impl Expression {
    /// Each of them alone is enough to find the expression by. Empty where nothing can be said.
    pub(in crate::filter) fn alternatives(&self) -> Vec<Alternative<'_>> {
        of(&self.root)
    }

    /// The expression matches where all of this is so, and nowhere else; `None` where it says more,
    /// or says it in other words. Only `LIKE` may run out of steps before it knows.
    pub(in crate::filter) fn told(&self) -> Option<Vec<(&AttributeName, Told<'_>)>> {
        let mut told = Vec::new();
        tell(&self.root, &mut told)?;
        Some(told)
    }
}

fn tell<'a>(node: &'a Node, told: &mut Vec<(&'a AttributeName, Told<'a>)>) -> Option<()> {
    match node {
        Node::Like {
            operand,
            negated: false,
            pattern,
            ..
        } => {
            let Node::Attribute(name) = &**operand else {
                return None;
            };
            told.push((name, Told::Pieces(pattern.between_runs()?)));
        }
        Node::In {
            operand,
            negated: false,
            set,
        } => {
            let name = context(operand)?;
            let texts: Option<Vec<&str>> = set.iter().map(text).collect();
            told.push((name, Told::In(texts?)));
        }
        Node::Chain { first, rest } => match &**rest {
            [(Operator::Equal, right)] => {
                let Node::Attribute(name) = &**first else {
                    return None;
                };
                told.push((name, Told::Exact(text(right)?)));
            }
            rest => {
                tell(first, told)?;
                for (operator, right) in rest {
                    if *operator != Operator::Logic(Logic::And) {
                        return None;
                    }
                    tell(right, told)?;
                }
            }
        },
        Node::Literal(_)
        | Node::Attribute(_)
        | Node::Exists(_)
        | Node::Not(_)
        | Node::Negate(_)
        | Node::Like { .. }
        | Node::In { .. }
        | Node::Call(_) => return None,
    }
    Some(())
}

impl Needed<'_> {
    /// The more it leaves out, the less.
    const fn rank(self) -> usize {
        match self {
            Self::Exact(_) => 0,
            Self::Prefix(_) => 1,
            Self::Suffix(_) => 2,
            Self::Present => 3,
        }
    }
}

/// What holds where the node is true, or is what is cast to it, and had no error.
fn of(node: &Node) -> Vec<Alternative<'_>> {
    match node {
        Node::Attribute(name) | Node::Exists(name) => vec![vec![(name, Needed::Present)]],
        Node::Like {
            operand,
            negated: false,
            pattern,
            ..
        } => of_attribute(operand, pattern.needed()),
        Node::In {
            operand,
            negated: false,
            set,
        } => is_in(operand, set).into_iter().collect(),
        Node::Chain { first, rest } => chain(first, rest),
        Node::Literal(_)
        | Node::Not(_)
        | Node::Negate(_)
        | Node::Like { .. }
        | Node::In { .. }
        | Node::Call(_) => Vec::new(),
    }
}

fn of_attribute<'a>(node: &'a Node, needed: Needed<'a>) -> Vec<Alternative<'a>> {
    match node {
        Node::Attribute(name) => vec![vec![(name, needed)]],
        Node::Literal(_)
        | Node::Exists(_)
        | Node::Not(_)
        | Node::Negate(_)
        | Node::Like { .. }
        | Node::In { .. }
        | Node::Chain { .. }
        | Node::Call(_) => Vec::new(),
    }
}

fn is_in<'a>(operand: &'a Node, set: &'a [Node]) -> Option<Alternative<'a>> {
    let name = context(operand)?;
    let texts = set.iter().map(text);
    texts
        .map(|text| text.map(|text| (name, Needed::Exact(text))))
        .collect()
}

/// The context attribute that this is.
fn context(node: &Node) -> Option<&AttributeName> {
    let Node::Attribute(name) = node else {
        return None;
    };
    name.context().map(|_| name)
}

fn text(node: &Node) -> Option<&str> {
    match node {
        Node::Literal(Literal::Text(text, _)) => Some(text),
        Node::Literal(Literal::Boolean(_) | Literal::Integer(_))
        | Node::Attribute(_)
        | Node::Exists(_)
        | Node::Not(_)
        | Node::Negate(_)
        | Node::Like { .. }
        | Node::In { .. }
        | Node::Chain { .. }
        | Node::Call(_) => None,
    }
}

fn chain<'a>(first: &'a Node, rest: &'a [(Operator, Node)]) -> Vec<Alternative<'a>> {
    let only = |logic| {
        let wanted = Operator::Logic(logic);
        rest.iter().all(|(operator, _)| *operator == wanted)
    };
    let operands = || std::iter::once(first).chain(rest.iter().map(|(_, operand)| operand));
    if only(Logic::And) {
        return operands().flat_map(of).collect();
    }
    if only(Logic::Or) {
        let each = operands().map(|operand| of(operand).into_iter().min_by_key(cost));
        let all: Option<Vec<_>> = each.collect();
        return all.into_iter().map(|all| all.concat()).collect();
    }
    let [(Operator::Equal, right)] = rest else {
        return Vec::new();
    };
    match (text(first), text(right)) {
        (None, Some(text)) => of_attribute(first, Needed::Exact(text)),
        // The right one's type decides: only what is always a string is this one.
        (Some(text), None) => match context(right) {
            Some(name) => vec![vec![(name, Needed::Exact(text))]],
            None => of_attribute(right, Needed::Present),
        },
        (None, None) | (Some(_), Some(_)) => Vec::new(),
    }
}

/// An alternative is as bad as the worst of it.
fn cost(alternative: &Alternative<'_>) -> (usize, usize) {
    let ranks = alternative.iter().map(|(_, needed)| needed.rank());
    (ranks.max().unwrap_or(0), alternative.len())
}
