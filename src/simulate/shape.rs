//! Owns what the bodies of one operation have in common, by which two operations at one path are
//! told apart.
//!
//! It must never ask for what a member may lack. The surprise: a key that a setting of a sync names
//! stands for any key.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a body must look like.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// This value.
    Exactly(Value),
    /// An object with these members, and somewhere these.
    Object {
        named: Vec<(String, Shape)>,
        somewhere: Vec<Shape>,
    },
    /// An array, of these where it holds any.
    Array(Option<Box<Shape>>),
}

impl Shape {
    /// What `value` looks like, where `names` are keys that stand for any.
    pub(super) fn of(value: &Value, names: &BTreeSet<String>) -> Self {
        match value {
            Value::Object(members) => {
                let (mut named, mut somewhere) = (Vec::new(), Vec::new());
                for (key, value) in members {
                    let shape = Self::of(value, names);
                    if names.contains(key) {
                        somewhere.push(shape);
                    } else {
                        named.push((key.clone(), shape));
                    }
                }
                Self::Object { named, somewhere }
            }
            Value::Array(items) => {
                let shapes = items.iter().map(|item| Self::of(item, names));
                Self::Array(shapes.reduce(Self::join).map(Box::new))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Self::Exactly(value.clone())
            }
        }
    }

    /// What both have in common.
    pub(super) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Exactly(one), Self::Exactly(two)) if one == two => Self::Exactly(one),
            (
                Self::Object { named, somewhere },
                Self::Object {
                    named: mut others,
                    somewhere: elsewhere,
                },
            ) => {
                let both = named.into_iter().filter_map(|(key, shape)| {
                    let at = others.iter().position(|(other, _)| *other == key)?;
                    Some((key, shape.join(others.swap_remove(at).1)))
                });
                let pairs = somewhere.into_iter().zip(elsewhere);
                Self::Object {
                    named: both.collect(),
                    somewhere: pairs.map(|(one, two)| one.join(two)).collect(),
                }
            }
            (Self::Array(Some(one)), Self::Array(Some(two))) => {
                Self::Array(Some(Box::new(one.join(*two))))
            }
            (Self::Array(one), Self::Array(two)) => Self::Array(one.or(two)),
            (
                Self::Any | Self::Exactly(_) | Self::Object { .. } | Self::Array(_),
                Self::Any | Self::Exactly(_) | Self::Object { .. } | Self::Array(_),
            ) => Self::Any,
        }
    }

    /// Whether `value` looks so. Of an array, its first item is looked at.
    pub(super) fn fits(&self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exactly) => exactly == value,
            Self::Object { named, somewhere } => {
                let Some(members) = value.as_object() else {
                    return false;
                };
                let has = |(key, shape): &(String, Shape)| {
                    members.get(key).is_some_and(|value| shape.fits(value))
                };
                named.iter().all(has)
                    && somewhere.iter().all(|shape| {
                        let mut others = members
                            .iter()
                            .filter(|(key, _)| named.iter().all(|(name, _)| name != *key));
                        others.any(|(_, value)| shape.fits(value))
                    })
            }
            Self::Array(item) => value.as_array().is_some_and(|items| {
                let pair = item.as_ref().zip(items.first());
                pair.is_none_or(|(shape, first)| shape.fits(first))
            }),
        }
    }

    /// How much it asks for.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Exactly(_) => 2,
            Self::Object { named, somewhere } => {
                let named = named.iter().map(|(_, shape)| 1 + shape.weight());
                let somewhere = somewhere.iter().map(|shape| 1 + shape.weight());
                1 + named.sum::<usize>() + somewhere.sum::<usize>()
            }
            Self::Array(item) => 1 + item.as_ref().map_or(0, |item| item.weight()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(bodies: &[Value]) -> Shape {
        let names = BTreeSet::from(["81".to_owned(), "82".to_owned()]);
        let shapes = bodies.iter().map(|body| Shape::of(body, &names));
        shapes.reduce(Shape::join).unwrap()
    }

    #[test]
    fn what_differs_is_not_asked_for() {
        let add = of(&[
            json!({"u": [{"id": "1", "81": {"add": ["91"]}, "name": "x"}, {"id": "2", "81": {"add": ["91"]}}]}),
            json!({"u": [{"id": "3", "82": {"add": ["92"]}}]}),
        ]);
        let remove = of(&[
            json!({"u": [{"id": "1", "only": true, "81": {"remove": ["91"]}}]}),
            json!({"u": [{"id": "3", "only": true, "82": {"remove": ["92"]}}]}),
        ]);
        let adds = json!({"u": [{"id": "a", "cohorts": {"add": ["vip"]}, "more": 1}]});
        let removes = json!({"u": [{"id": "a", "only": true, "cohorts": {"remove": ["vip"]}}]});
        assert!(add.fits(&adds) && !add.fits(&removes));
        assert!(remove.fits(&removes) && !remove.fits(&adds));
        assert!(!add.fits(&json!({"u": {}})) && !add.fits(&json!([])));
        assert!(add.fits(&json!({"u": []})), "nothing says otherwise");
        assert!(remove.weight() > add.weight());
    }

    #[test]
    fn a_value_that_never_changes_is_asked_for() {
        let shape = of(&[
            json!({"state": "on", "ids": ["1"]}),
            json!({"state": "on", "ids": ["2"]}),
        ]);
        assert!(shape.fits(&json!({"ids": ["x"], "state": "on"})));
        assert!(!shape.fits(&json!({"ids": ["x"], "state": "off"})));
    }
}
