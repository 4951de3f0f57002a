//! Owns the compiled tree of an expression: its nodes, and what can be said of them without an
//! event.
//!
//! Never deeper than the parser allowed, so that every walk may recurse. The surprise: operators of
//! one precedence are a list and not a tree, so that a hundred `OR` are no depth at all.

use crate::event::{AttributeName, Context};

use super::function::Function;
use super::lexer::Quote;
use super::like::Pattern;

/// A part of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Literal(Literal),
    Attribute(AttributeName),
    Exists(AttributeName),
    Not(Box<Self>),
    Negate(Box<Self>),
    Like {
        operand: Box<Self>,
        negated: bool,
        pattern: Pattern,
        /// The pattern as it was written.
        text: Box<str>,
        quote: Quote,
    },
    In {
        operand: Box<Self>,
        negated: bool,
        set: Box<[Self]>,
    },
    /// Operators of one precedence, from left to right (SQ-4).
    Chain {
        first: Box<Self>,
        rest: Box<[(Operator, Self)]>,
    },
    Call(Call),
}

/// A literal (SQ-3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    Boolean(bool),
    Integer(i32),
    Text(Box<str>, Quote),
}

/// A function's invocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Call {
    /// As it was written, in upper case.
    pub(super) name: Box<str>,
    /// `None` where there is none of this name and arity (SQ-14).
    pub(super) function: Option<Function>,
    pub(super) arguments: Box<[Node]>,
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Logic(Logic),
    Equal,
    NotEqual,
    Order(Order),
    Arithmetic(Arithmetic),
}

/// An operator on booleans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

/// A comparison of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An operator on integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

/// How many precedences binary operators have.
pub(super) const LEVELS: usize = 4;

impl Operator {
    /// Its precedence: the higher, the tighter (SQ-4).
    pub(super) const fn level(self) -> usize {
        match self {
            Self::Logic(_) => 0,
            Self::Equal | Self::NotEqual | Self::Order(_) => 1,
            Self::Arithmetic(Arithmetic::Plus | Arithmetic::Minus) => 2,
            Self::Arithmetic(Arithmetic::Times | Arithmetic::Divide | Arithmetic::Modulo) => 3,
        }
    }

    /// How it is written; `<>` is written `!=`.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Logic(Logic::And) => "AND",
            Self::Logic(Logic::Or) => "OR",
            Self::Logic(Logic::Xor) => "XOR",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Order(Order::Less) => "<",
            Self::Order(Order::LessOrEqual) => "<=",
            Self::Order(Order::Greater) => ">",
            Self::Order(Order::GreaterOrEqual) => ">=",
            Self::Arithmetic(Arithmetic::Plus) => "+",
            Self::Arithmetic(Arithmetic::Minus) => "-",
            Self::Arithmetic(Arithmetic::Times) => "*",
            Self::Arithmetic(Arithmetic::Divide) => "/",
            Self::Arithmetic(Arithmetic::Modulo) => "%",
        }
    }

    /// The operator of this symbol.
    pub(super) fn of_symbol(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "=" => Self::Equal,
            "!=" | "<>" => Self::NotEqual,
            "<" => Self::Order(Order::Less),
            "<=" => Self::Order(Order::LessOrEqual),
            ">" => Self::Order(Order::Greater),
            ">=" => Self::Order(Order::GreaterOrEqual),
            "+" => Self::Arithmetic(Arithmetic::Plus),
            "-" => Self::Arithmetic(Arithmetic::Minus),
            "*" => Self::Arithmetic(Arithmetic::Times),
            "/" => Self::Arithmetic(Arithmetic::Divide),
            "%" => Self::Arithmetic(Arithmetic::Modulo),
            _ => return None,
        })
    }

    /// The operator of this keyword, in any case.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        let all = [Logic::And, Logic::Or, Logic::Xor].map(Self::Logic);
        let mut all = all.into_iter();
        all.find(|operator| word.eq_ignore_ascii_case(operator.text()))
    }
}

impl Order {
    /// Whether it holds.
    pub(super) const fn holds(self, left: i32, right: i32) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Node {
    /// Calls `visit` with this node and every node in it.
    pub(super) fn walk<'n>(&'n self, visit: &mut impl FnMut(&'n Self)) {
        visit(self);
        match self {
            Self::Literal(_) | Self::Attribute(_) | Self::Exists(_) => {}
            Self::Not(operand) | Self::Negate(operand) | Self::Like { operand, .. } => {
                operand.walk(visit);
            }
            Self::In { operand, set, .. } => {
                operand.walk(visit);
                set.iter().for_each(|element| element.walk(visit));
            }
            Self::Chain { first, rest } => {
                first.walk(visit);
                rest.iter().for_each(|(_, operand)| operand.walk(visit));
            }
            Self::Call(call) => call
                .arguments
                .iter()
                .for_each(|argument| argument.walk(visit)),
        }
    }

    /// The type that every event has for which this is true, where it says so plainly:
    /// `type = '…'`, alone or joined by `AND`.
    pub(super) fn required_type(&self) -> Option<&str> {
        let Self::Chain { first, rest } = self else {
            return None;
        };
        if let [(Operator::Equal, right)] = &**rest {
            return match (&**first, right) {
                (Self::Attribute(name), Self::Literal(Literal::Text(text, _)))
                | (Self::Literal(Literal::Text(text, _)), Self::Attribute(name))
                    if name.context() == Some(Context::Type) =>
                {
                    Some(text)
                }
                _ => None,
            };
        }
        let and = rest
            .iter()
            .all(|(operator, _)| *operator == Operator::Logic(Logic::And));
        let operands = std::iter::once(&**first).chain(rest.iter().map(|(_, operand)| operand));
        and.then(|| operands.filter_map(Self::required_type).next())?
    }
}
