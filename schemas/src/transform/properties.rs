//! Transforms against a naive evaluator: whole JSON trees, one place after another.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Compiled, Outcome, Transform};
use crate::event::Event;

/// Few names, so that places and data meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c~/"), Just("0"), Just("1")].prop_map(str::to_owned)
}

fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn place() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|steps| {
        let escaped = steps
            .iter()
            .map(|step| step.replace('~', "~0").replace('/', "~1"));
        escaped.map(|step| format!("/{step}")).collect()
    })
}

fn step() -> impl Strategy<Value = Value> {
    let places = || prop::collection::vec(place(), 1..4);
    let pairs = || prop::collection::vec((place(), place()), 1..3);
    prop_oneof![
        places().prop_map(|places| json!({ "select": places })),
        places().prop_map(|places| json!({ "strip": places })),
        pairs().prop_map(|pairs| {
            let pairs = pairs.into_iter().map(|(from, to)| (from, Value::from(to)));
            json!({ "rename": Map::from_iter(pairs) })
        }),
        (place(), data()).prop_map(|(place, value)| json!({ "set": { place: value } })),
    ]
}

fn steps_of(place: &str) -> Vec<String> {
    let steps = place.split('/').skip(1);
    steps
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect()
}

/// Every place in `value` that `place` means: an array stands for its elements.
fn meant(value: &Value, place: &[String], at: &[String], found: &mut Vec<Vec<String>>) {
    let Some((step, rest)) = place.split_first() else {
        return found.push(at.to_vec());
    };
    let below = |step: &str| [at, &[step.to_owned()]].concat();
    match value {
        Value::Object(members) => {
            if let Some(member) = members.get(step) {
                meant(member, rest, &below(step), found);
            }
        }
        Value::Array(items) => match step.parse::<usize>() {
            Ok(index) => {
                let item = items.get(index).unwrap_or(&Value::Null);
                if index < items.len() {
                    meant(item, rest, &below(step), found);
                }
            }
            Err(_) => {
                for (index, item) in items
                    .iter()
                    .enumerate()
                    .filter(|(_, item)| item.is_object())
                {
                    meant(item, place, &below(&index.to_string()), found);
                }
            }
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn all_meant(value: &Value, places: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for place in places.as_array().unwrap() {
        meant(value, &steps_of(place.as_str().unwrap()), &[], &mut found);
    }
    found
}

/// What is left of the value at `at` where `keep` says so of it.
fn filtered(
    value: &Value,
    at: &[String],
    keep: &impl Fn(&[String]) -> Option<bool>,
) -> Option<Value> {
    let below = |step: String| [at, &[step]].concat();
    match (keep(at), value) {
        (Some(false), _) => None,
        (Some(true), _) => Some(value.clone()),
        (None, Value::Object(members)) => {
            let kept = members.iter().filter_map(|(name, member)| {
                Some((name.clone(), filtered(member, &below(name.clone()), keep)?))
            });
            Some(Value::Object(kept.collect()))
        }
        (None, Value::Array(items)) => {
            let items = items.iter().enumerate();
            let kept =
                items.filter_map(|(index, item)| filtered(item, &below(index.to_string()), keep));
            Some(Value::Array(kept.collect()))
        }
        (None, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            Some(value.clone())
        }
    }
}

fn select(value: &Value, places: &Value) -> Value {
    let found = all_meant(value, places);
    // Whole where it is named, looked into where something below is, else gone.
    let keep = |at: &[String]| {
        if found.iter().any(|place| at.starts_with(place)) {
            return Some(true);
        }
        (!found.iter().any(|place| place.starts_with(at))).then_some(false)
    };
    let nothing = if value.is_array() {
        json!([])
    } else {
        json!({})
    };
    filtered(value, &[], &keep).unwrap_or(nothing)
}

fn strip(value: &Value, places: &Value) -> Value {
    let found = all_meant(value, places);
    let keep = |at: &[String]| found.iter().any(|place| place == at).then_some(false);
    filtered(value, &[], &keep).unwrap()
}

fn find<'v>(value: &'v mut Value, place: &[String]) -> Option<&'v mut Value> {
    place.iter().try_fold(value, |value, step| match value {
        Value::Object(members) => members.get_mut(step),
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// `None` where it cannot be put there.
fn put(value: &mut Value, place: &[String], new: Value) -> Option<()> {
    let Some((step, rest)) = place.split_first() else {
        *value = new;
        return Some(());
    };
    if value.is_null() {
        *value = json!({});
    }
    match value {
        Value::Object(members) => put(members.entry(step.clone()).or_insert(json!({})), rest, new),
        Value::Array(items) => {
            let index = step.parse::<usize>().ok()?;
            if index == items.len() {
                items.push(json!({}));
            }
            put(items.get_mut(index)?, rest, new)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        Value::Null => unreachable!("it is an object now"),
    }
}

/// Marks what is taken, so that nothing changes its place meanwhile; takes the marks out last.
fn rename(value: &mut Value, pairs: &Map<String, Value>) -> Option<()> {
    const TAKEN: &str = "\u{0}taken";
    let mut taken = Vec::new();
    for (from, to) in pairs {
        let found =
            find(value, &steps_of(from)).map(|found| std::mem::replace(found, json!(TAKEN)));
        taken.push((to.as_str().unwrap(), found));
    }
    sweep(value, TAKEN);
    for (to, found) in taken {
        if let Some(found) = found {
            put(value, &steps_of(to), found)?;
        }
    }
    Some(())
}

fn sweep(value: &mut Value, mark: &str) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| member != mark);
            members.values_mut().for_each(|member| sweep(member, mark));
        }
        Value::Array(items) => {
            items.retain(|item| item != mark);
            items.iter_mut().for_each(|item| sweep(item, mark));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn naive(mut value: Value, steps: &[Value]) -> Option<Value> {
    for step in steps {
        let (kind, said) = step.as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "select" => value = select(&value, said),
            "strip" => value = strip(&value, said),
            "rename" => rename(&mut value, said.as_object().unwrap())?,
            _ => {
                for (place, constant) in said.as_object().unwrap() {
                    put(&mut value, &steps_of(place), constant.clone())?;
                }
            }
        }
    }
    Some(value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn steps_do_what_a_naive_evaluator_does(data in data(), steps in prop::collection::vec(step(), 1..5)) {
        let Ok(transform) = Transform::read(&json!({ "steps": steps })) else {
            // Places that lie within each other.
            return Ok(());
        };
        let event = Event::builder("1", "/s", "t").untyped_data(Bytes::from(data.to_string()));
        let outcome = Compiled::new(&transform).unwrap().run(&event.build().unwrap());
        match (outcome, naive(data, &steps)) {
            (Ok(Outcome::Made(made)), Some(expected)) => {
                let made: Value = serde_json::from_slice(made.event.data().unwrap()).unwrap();
                // The order of members is part of it.
                prop_assert_eq!(made.to_string(), expected.to_string());
            }
            (Err(_), None) => {}
            (outcome, expected) => prop_assert!(false, "{:?}, not {:?}", outcome, expected),
        }
    }

    /// A computed value is the value that it is computed of, with its type.
    #[test]
    fn types_survive(data in data()) {
        let transform = json!({ "steps": [{ "compute": { "": { "value": "data" } } }] });
        let compiled = Compiled::new(&Transform::read(&transform).unwrap()).unwrap();
        let event = Event::builder("1", "/s", "t").untyped_data(Bytes::from(data.to_string()));
        let Ok(Outcome::Made(made)) = compiled.run(&event.build().unwrap()) else {
            panic!("{data}");
        };
        let made: Value = serde_json::from_slice(made.event.data().unwrap()).unwrap();
        prop_assert_eq!(made, data);
    }
}
