//! Owns whether filters come down to the type and the text of one attribute: what an index can look
//! up and need not look at again.
//!
//! Never says so of filters that could pass or fail by anything else. The surprise: the type is left
//! out, since whoever asks has told events apart by [`Filters::required_types`] first.

use std::collections::BTreeSet;

use super::{Comparison, Filter, Filters};
use crate::event::{AttributeName, Context};

/// More texts than this are not worth a place each.
const TEXTS_MAX: usize = 16;

/// What decides, once the type is one of [`Filters::required_types`] where there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decisive<'a> {
    /// Nothing: every such event passes.
    Nothing,
    /// Events pass whose attribute is one of these texts, and no others.
    Text(&'a AttributeName, BTreeSet<&'a str>),
}

impl Filters {
    /// What alone decides whether they match; `None` where it is more than one attribute's text.
    #[must_use]
    pub fn decisive(&self) -> Option<Decisive<'_>> {
        let mut asking = self
            .filters
            .iter()
            .filter(|filter| !filter.is_met_by_type());
        let Some(only) = asking.next() else {
            return Some(Decisive::Nothing);
        };
        if asking.next().is_some() {
            return None;
        }
        let (attribute, texts) = only.text()?;
        Some(Decisive::Text(attribute, texts))
    }
}

impl Filter {
    /// Whether it holds for all events of the required types.
    fn is_met_by_type(&self) -> bool {
        match self {
            Self::Exact(entries) => entries.iter().all(is_type),
            Self::All(filters) => filters.iter().all(Self::is_met_by_type),
            Self::Any(filters) => filters.iter().all(Self::is_of_types),
            Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Glob(_)
            | Self::Data(_)
            | Self::Sql(_)
            | Self::Not(_) => false,
        }
    }

    /// The attribute and the texts, where it asks for one of them and beside them for the type.
    fn text(&self) -> Option<(&AttributeName, BTreeSet<&str>)> {
        match self {
            Self::Exact(entries) => {
                let mut asking = entries.iter().filter(|entry| !is_type(entry));
                let only = asking.next().filter(|_| asking.next().is_none())?;
                Some((&only.attribute, BTreeSet::from([&*only.value])))
            }
            Self::All(filters) => {
                let mut asking = filters.iter().filter(|filter| !filter.is_met_by_type());
                let only = asking.next().filter(|_| asking.next().is_none())?;
                only.text()
            }
            Self::Any(filters) => one_of(filters),
            Self::Prefix(_)
            | Self::Suffix(_)
            | Self::Glob(_)
            | Self::Data(_)
            | Self::Sql(_)
            | Self::Not(_) => None,
        }
    }
}

/// The texts of filters of which each asks for one of the same attribute and for nothing else: what
/// one of them says of the type, the others do not.
fn one_of(filters: &[Filter]) -> Option<(&AttributeName, BTreeSet<&str>)> {
    let mut of = None;
    let mut texts = BTreeSet::new();
    for filter in filters {
        let Filter::Exact(entries) = filter else {
            return None;
        };
        let [only] = &**entries else {
            return None;
        };
        if is_type(only) || *of.get_or_insert(&only.attribute) != &only.attribute {
            return None;
        }
        texts.insert(&*only.value);
        if texts.len() > TEXTS_MAX {
            return None;
        }
    }
    Some((of?, texts))
}

fn is_type(entry: &Comparison) -> bool {
    entry.attribute.context() == Some(Context::Type)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The attribute and its texts, or none of either; `None` where more decides.
    fn check(filters: &Value, expected: Option<(&str, &[&str])>) {
        let filters = Filters::parse(filters).unwrap();
        let found = filters.decisive();
        let found = found.as_ref().map(|decisive| match decisive {
            Decisive::Nothing => ("", Vec::new()),
            Decisive::Text(name, texts) => (name.as_str(), texts.iter().copied().collect()),
        });
        let expected = expected.map(|(name, texts)| (name, texts.to_vec()));
        assert_eq!(found, expected, "{}", filters.to_json());
    }

    #[test]
    fn filters_of_types_and_of_one_attribute_are_decided_by_it() {
        let ty = || json!({ "exact": { "type": "a" } });
        let of = |text: &str| json!({ "exact": { "subject": text } });
        check(&json!([]), Some(("", &[])));
        check(&json!([ty()]), Some(("", &[])));
        check(&json!([{ "all": [ty(), ty()] }]), Some(("", &[])));
        check(&json!([{ "any": [ty(), ty()] }, ty()]), Some(("", &[])));
        check(&json!([of("x")]), Some(("subject", &["x"])));
        check(&json!([ty(), of("x")]), Some(("subject", &["x"])));
        check(
            &json!([{ "exact": { "type": "a", "subject": "x" } }]),
            Some(("subject", &["x"])),
        );
        check(
            &json!([{ "all": [ty(), of("x")] }]),
            Some(("subject", &["x"])),
        );
        check(
            &json!([ty(), { "any": [of("y"), of("x"), of("y")] }]),
            Some(("subject", &["x", "y"])),
        );
    }

    #[test]
    fn filters_that_anything_else_decides_are_not() {
        let ty = || json!({ "exact": { "type": "a" } });
        let of = |text: &str| json!({ "exact": { "subject": text } });
        check(&json!([of("x"), of("x")]), None);
        check(
            &json!([{ "exact": { "subject": "x", "source": "y" } }]),
            None,
        );
        check(
            &json!([{ "any": [of("x"), { "exact": { "source": "y" } }] }]),
            None,
        );
        // The type of one part says nothing of the other.
        check(&json!([{ "any": [ty(), of("x")] }]), None);
        check(
            &json!([{ "any": [{ "exact": { "type": "a", "subject": "x" } }, of("y")] }]),
            None,
        );
        check(&json!([{ "not": of("x") }]), None);
        check(&json!([ty(), { "prefix": { "subject": "x" } }]), None);
        check(&json!([{ "prefix": { "type": "x" } }]), None);
        check(&json!([{ "sql": "type = 'a'" }]), None);
        let many: Vec<Value> = (0..=TEXTS_MAX).map(|text| of(&text.to_string())).collect();
        check(&json!([{ "any": many }]), None);
    }
}
