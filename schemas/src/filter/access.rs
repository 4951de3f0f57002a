//! Owns what can be told of filters without an event: conditions that hold wherever they do, and
//! that an index can look up.
//!
//! Never promises the contrary: that a condition holds says nothing of the filters. The surprise:
//! there are several such conditions for most filters, and each alone is enough to find them by;
//! which of them is the rarest only the index knows.

use super::cesql::{Expression, Needed};
use super::data::{Bound, Clause, Literal, Test};
use super::extract::Scalar;
use super::network::Block;
use super::{Comparison, Filter, Filters, Pattern};
use crate::event::AttributeName;

/// Conditions of which at least one holds wherever the filters do.
pub type Alternative<'a> = Vec<Need<'a>>;

/// More conditions than this together are worth no more than none.
const NEEDS_MAX: usize = 64;
/// Alternatives of one subscription.
const ALTERNATIVES_MAX: usize = 16;
/// Shorter texts are in too many others.
const CONTAINED_BYTES_MIN: usize = 4;

/// A condition on one value of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need<'a> {
    /// The value.
    pub operand: Operand<'a>,
    /// What it must be.
    pub key: Key<'a>,
}

/// A value of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand<'a> {
    /// An attribute, in its canonical string form.
    Attribute(&'a AttributeName),
    /// What is at a path in data: its number in [`Filters::pointers`].
    Path(u16),
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Key<'a> {
    /// This.
    Exact(Scalar<'a>),
    /// A string that begins so.
    Prefix(&'a str),
    /// A string that ends so.
    Suffix(&'a str),
    /// A string with this in it, at least four bytes.
    Contains(&'a str),
    /// A number that, rounded to the nearest double, is neither less than the first nor greater
    /// than the second.
    Between(f64, f64),
    /// An address in this block.
    Network(Block),
    /// Anything.
    Present,
}

impl Key<'_> {
    /// How often it may be expected to hold where the value is there: thousandths, a guess.
    #[must_use]
    pub fn share(&self) -> u64 {
        match self {
            Self::Exact(Scalar::Null | Scalar::Bool(_)) => 300,
            Self::Exact(Scalar::Number(_) | Scalar::String(_)) => 1,
            Self::Prefix(text) | Self::Suffix(text) => match text.len() {
                0..=1 => 80,
                2 => 30,
                3 => 10,
                _ => 3,
            },
            Self::Contains(_) => 10,
            Self::Network(block) if block.length >= 16 => 2,
            Self::Between(low, high) if low.is_finite() && high.is_finite() => 20,
            Self::Between(..) => 400,
            Self::Network(_) => 50,
            Self::Present => 900,
        }
    }
}

impl Filters {
    /// For each alternative: one of its conditions holds wherever the filters match. Empty where
    /// nothing can be said.
    #[must_use]
    pub fn alternatives(&self) -> Vec<Alternative<'_>> {
        let mut all = of_all(&self.filters);
        all.truncate(ALTERNATIVES_MAX);
        all
    }
}

fn of_all(filters: &[Filter]) -> Vec<Alternative<'_>> {
    filters.iter().flat_map(Filter::alternatives).collect()
}

impl Filter {
    fn alternatives(&self) -> Vec<Alternative<'_>> {
        match self {
            Self::Exact(entries) => each(entries, |value| Key::Exact(Scalar::String(value))),
            Self::Prefix(entries) => each(entries, Key::Prefix),
            Self::Suffix(entries) => each(entries, Key::Suffix),
            Self::Glob(patterns) => patterns.iter().flat_map(Pattern::alternatives).collect(),
            Self::Data(clauses) => clauses.iter().flat_map(Clause::alternatives).collect(),
            Self::Sql(expression) => of_expression(expression),
            Self::All(filters) => of_all(filters),
            Self::Any(filters) => of_any(filters).into_iter().collect(),
            Self::Not(inner) => match &**inner {
                Self::Not(twice) => twice.alternatives(),
                Self::Exact(_)
                | Self::Prefix(_)
                | Self::Suffix(_)
                | Self::Glob(_)
                | Self::Data(_)
                | Self::Sql(_)
                | Self::All(_)
                | Self::Any(_) => Vec::new(),
            },
        }
    }
}

fn of_expression(expression: &Expression) -> Vec<Alternative<'_>> {
    let each = expression.alternatives().into_iter();
    each.map(|together| together.into_iter().map(of_attribute).collect())
        .collect()
}

fn of_attribute<'a>((name, needed): (&'a AttributeName, Needed<'a>)) -> Need<'a> {
    Need {
        operand: Operand::Attribute(name),
        key: match needed {
            Needed::Exact(text) => Key::Exact(Scalar::String(text)),
            Needed::Prefix(text) => Key::Prefix(text),
            Needed::Suffix(text) => Key::Suffix(text),
            Needed::Present => Key::Present,
        },
    }
}

/// The likeliest to be rare of each part, together.
fn of_any(filters: &[Filter]) -> Option<Alternative<'_>> {
    let mut together = Alternative::new();
    for filter in filters {
        let cost = |needs: &Alternative<'_>| needs.iter().map(|need| need.key.share()).sum::<u64>();
        let best = filter.alternatives().into_iter().min_by_key(cost)?;
        together.extend(best);
        if together.len() > NEEDS_MAX {
            return None;
        }
    }
    Some(together)
}

fn each<'a>(entries: &'a [Comparison], key: impl Fn(&'a str) -> Key<'a>) -> Vec<Alternative<'a>> {
    let need = |entry: &'a Comparison| {
        vec![Need {
            operand: Operand::Attribute(&entry.attribute),
            key: key(&entry.value),
        }]
    };
    entries.iter().map(need).collect()
}

impl Pattern {
    fn alternatives(&self) -> Vec<Alternative<'_>> {
        let operand = Operand::Attribute(&self.attribute);
        let keys = self.wildcard.keys();
        keys.into_iter()
            .map(|key| vec![Need { operand, key }])
            .collect()
    }
}

impl super::wildcard::Wildcard {
    /// What every text that it matches has.
    fn keys(&self) -> Vec<Key<'_>> {
        if let Some(literal) = self.literal() {
            return vec![Key::Exact(Scalar::String(literal))];
        }
        let mut keys = vec![Key::Present];
        if !self.prefix().is_empty() {
            keys.push(Key::Prefix(self.prefix()));
        }
        if !self.suffix().is_empty() {
            keys.push(Key::Suffix(self.suffix()));
        }
        if self.longest().len() >= CONTAINED_BYTES_MIN {
            keys.push(Key::Contains(self.longest()));
        }
        keys
    }
}

impl Clause {
    fn alternatives(&self) -> Vec<Alternative<'_>> {
        let operand = Operand::Path(self.path);
        let need = |key| Need { operand, key };
        if matches!(&*self.tests, [Test::Exists(false)]) {
            return Vec::new();
        }
        // Whatever is compared is there.
        let mut all = vec![vec![need(Key::Present)]];
        for test in &self.tests {
            let keys = match test {
                Test::Exact(literal) => vec![exact(literal)],
                Test::In(literals) if literals.len() <= NEEDS_MAX => {
                    literals.iter().map(exact).collect()
                }
                Test::Prefix(text) => vec![Key::Prefix(text)],
                Test::Suffix(text) => vec![Key::Suffix(text)],
                Test::Network(network) => vec![Key::Network(network.block())],
                Test::Wildcard(wildcard) => {
                    all.extend(wildcard.keys().into_iter().map(|key| vec![need(key)]));
                    continue;
                }
                Test::In(_) | Test::AnythingBut(_) | Test::Bound(..) | Test::Exists(_) => continue,
            };
            all.push(keys.into_iter().map(need).collect());
        }
        all.extend(self.between().map(|key| vec![need(key)]));
        all
    }

    /// All bounds are of one value: they are a range.
    pub(super) fn between(&self) -> Option<Key<'_>> {
        let (mut low, mut high, mut bounded) = (f64::NEG_INFINITY, f64::INFINITY, false);
        for test in &self.tests {
            let Test::Bound(bound, number) = test else {
                continue;
            };
            // Rounding keeps the order, so the range is never too narrow.
            let Ok(number) = number.parse::<f64>() else {
                return None;
            };
            bounded = true;
            match bound {
                Bound::Greater | Bound::GreaterOrEqual => low = low.max(number),
                Bound::Less | Bound::LessOrEqual => high = high.min(number),
            }
        }
        bounded.then_some(Key::Between(low, high))
    }
}

fn exact(literal: &Literal) -> Key<'_> {
    Key::Exact(literal.as_scalar())
}
