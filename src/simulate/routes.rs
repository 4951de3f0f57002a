//! Owns how a request is recognised: which operation of the profile it is, where its items are and
//! what names them.
//!
//! Nothing is said twice: it renders each operation with marked values and looks where they came
//! out. The surprise: operations with the same path are told apart by what their bodies always
//! hold.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use schemas::profile::template::Compiled;
use schemas::profile::{Chunk, ChunkData, Operation, OperationKind, Profile};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::pattern::{Mark, Pattern, Said, Slot};
use super::scan::Place;
use super::shape::Shape;

/// The marks of one rendering count from here, those of the other from the second: numbers, so that
/// a template may write them as such.
const MARKS: [u32; 2] = [9_100_001, 9_200_001];
/// What marks a job is written with, to see how a template writes the ids that partners give.
const JOB: &str = "jobs/";

/// One operation.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) kind: OperationKind,
    pub(crate) operation: Operation,
    pub(super) pattern: Pattern,
    shape: Shape,
    list: Option<Place>,
    job: Option<Inside>,
    pub(super) items: Option<Items>,
}

/// A value within a text.
#[derive(Debug)]
struct Inside {
    place: Place,
    before: String,
    after: String,
}

/// Where the items of a request are.
#[derive(Clone, Debug)]
pub(crate) struct Items {
    pub(super) place: Place,
    /// In an item: what the partner keeps it by.
    pub(super) id: Place,
    /// In an item: what an answer names it by.
    pub(super) named: Place,
    /// Whether `id` is another id than that which additions bring.
    pub(crate) is_foreign: bool,
}

/// All operations.
#[derive(Debug)]
pub(crate) struct Routes(Vec<Route>);

/// A request that was recognised.
#[derive(Debug)]
pub(super) struct Found<'r> {
    pub(super) route: &'r Route,
    pub(super) said: Said,
}

impl Routes {
    /// The operations of `profile`.
    ///
    /// # Errors
    /// Where a template cannot be rendered with marked values, or the items are not found.
    pub(crate) fn of(profile: &Profile) -> anyhow::Result<Self> {
        let compiled = Compiled::new(profile.operations.clone())
            .map_err(|faults| anyhow!("operations: {:?}", faults.0))?;
        let mut routes = Vec::new();
        let mut added = None;
        for (kind, operation) in profile.operations.all() {
            let samples = Samples::of(profile, &compiled, kind)
                .with_context(|| format!("operation `{kind}`"))?;
            let items = match kind.has_members() {
                false => None,
                true => Some(
                    samples
                        .items(profile, operation, &mut added)
                        .with_context(|| format!("operation `{kind}`"))?,
                ),
            };
            routes.push(samples.route(kind, operation, items));
        }
        Ok(Self(routes))
    }

    /// The operations, in the order of the file.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// The operation of this kind, as it is written down.
    pub(crate) fn get(&self, kind: OperationKind) -> Option<&Route> {
        let own = self.0.iter().find(|route| route.kind == kind);
        let is_addition = kind == OperationKind::Update;
        own.or_else(|| self.get(OperationKind::Add).filter(|_| is_addition))
    }

    /// Which operation a request is.
    pub(super) fn find(&self, method: &str, target: &str, body: &[u8]) -> Option<Found<'_>> {
        let mut found: Vec<Found<'_>> = Vec::new();
        for route in &self.0 {
            if route.operation.method.as_str() != method {
                continue;
            }
            if let Some(said) = route.pattern.read(target) {
                found.push(Found { route, said });
            }
        }
        let most = found.iter().map(|one| one.route.pattern.weight()).max()?;
        found.retain(|one| one.route.pattern.weight() == most);
        if found.len() > 1 {
            let body: Value = serde_json::from_slice(body).ok()?;
            found.retain(|one| one.route.shape.fits(&body));
        }
        let mut best = found
            .into_iter()
            .max_by_key(|one| one.route.shape.weight())?;
        let route = best.route;
        if best.said.list.is_none()
            && let Some(place) = &route.list
        {
            best.said.list = text_at(place, body);
        }
        if best.said.job.is_none()
            && let Some(inside) = &route.job
        {
            let text = text_at(&inside.place, body)?;
            let job = text.strip_prefix(inside.before.as_str());
            let job = job.and_then(|rest| rest.strip_suffix(inside.after.as_str()));
            best.said.job = job.map(ToOwned::to_owned);
        }
        Some(best)
    }
}

impl Route {
    /// Its method and path, for people.
    pub(crate) fn shown(&self) -> String {
        format!(
            "{} {}",
            self.operation.method.as_str(),
            self.pattern.shown()
        )
    }

    /// Whether a request says which list it is about.
    pub(crate) fn names_list(&self) -> bool {
        self.list.is_some() || self.pattern.has(Slot::List)
    }

    /// Where its items are, if it has any.
    pub(crate) fn items(&self) -> Option<&Items> {
        self.items.as_ref()
    }
}

fn text_at(place: &Place, body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    place.text(body).map(std::borrow::Cow::into_owned)
}

/// An operation rendered twice, with other values.
struct Samples {
    marked: [Marked; 2],
    paths: [String; 2],
    bodies: [Option<Value>; 2],
}

/// The values of one rendering.
struct Marked {
    list: String,
    job: String,
    variables: Map<String, Value>,
    members: [Map<String, Value>; 2],
}

impl Samples {
    fn of(profile: &Profile, compiled: &Compiled, kind: OperationKind) -> anyhow::Result<Self> {
        let [first, second] = MARKS;
        let full = Marked::new(profile, first, true)?;
        let (path, body) = full.render(compiled, kind)?;
        // What a member may lack is nothing to know an operation by.
        let bare = Marked::new(profile, second, false)?;
        let (bare, other_path, other_body) = match bare.render(compiled, kind) {
            Ok((path, body)) => (bare, path, body),
            Err(_) => {
                let again = Marked::new(profile, second, true)?;
                let (path, body) = again.render(compiled, kind)?;
                (again, path, body)
            }
        };
        Ok(Self {
            marked: [full, bare],
            paths: [path, other_path],
            bodies: [body, other_body],
        })
    }

    fn route(self, kind: OperationKind, operation: &Operation, items: Option<Items>) -> Route {
        let [first, _] = &self.marked;
        let [path, _] = &self.paths;
        let body = self.bodies.first().and_then(Option::as_ref);
        let pattern = Pattern::of(path, &first.marks());
        let list = body.and_then(|body| place_of(body, &|text| text == first.list));
        let job = body.and_then(|body| {
            let place = place_of(body, &|text| text.contains(&first.job))?;
            let text = body.pointer(&place.to_string())?.as_str()?;
            let (before, after) = text.split_once(&first.job)?;
            Some(Inside {
                place,
                before: before.to_owned(),
                after: after.to_owned(),
            })
        });
        Route {
            kind,
            operation: operation.clone(),
            pattern,
            shape: self.shape(),
            list,
            job,
            items,
        }
    }

    fn shape(&self) -> Shape {
        let pairs = self.bodies.iter().zip(&self.marked);
        let shapes = pairs.filter_map(|(body, marked)| {
            let names = marked.variables.values().filter_map(Value::as_str);
            let names: BTreeSet<String> = names.map(ToOwned::to_owned).collect();
            Some(Shape::of(body.as_ref()?, &names))
        });
        shapes.reduce(Shape::join).unwrap_or(Shape::Any)
    }

    /// Where the items are; `added` is what an addition's first item is kept by.
    fn items(
        &self,
        profile: &Profile,
        operation: &Operation,
        added: &mut Option<Value>,
    ) -> anyhow::Result<Items> {
        let [first, _] = &self.marked;
        let body = self.bodies.first().and_then(Option::as_ref);
        let body = body.context("has no body: its members cannot be seen")?;
        let place = self.array(profile, body)?;
        let item = body.pointer(&format!("{place}/0")).context("no item")?;
        let hint = profile.simulator.as_ref().map(|hint| Place::of(&hint.id));
        let hinted = hint.filter(|id| item.pointer(&id.to_string()).is_some());
        let [member, _] = &first.members;
        let id_of_member = place_of_value(item, member.get("id").unwrap_or(&Value::Null));
        let same = added.as_ref().and_then(|value| place_of_value(item, value));
        let any = || place_of(item, &|text| first.is_members(0, text));
        let is_foreign = added.is_some() && same.is_none();
        let id = match added.is_some() {
            true => same.or(hinted).or_else(any),
            false => hinted.or_else(|| id_of_member.clone()).or_else(any),
        };
        let id = id.context("`simulator.id`: nothing in an item is its member's")?;
        if added.is_none() {
            *added = item.pointer(&id.to_string()).cloned();
        }
        let named = match &operation.answer.item_id {
            None => id_of_member,
            Some(at) => {
                let value = at.find(&Value::Object(member.clone())).cloned();
                value.and_then(|value| place_of_value(item, &value))
            }
        };
        Ok(Items {
            named: named.unwrap_or_else(|| id.clone()),
            place,
            id,
            is_foreign,
        })
    }

    fn array(&self, profile: &Profile, body: &Value) -> anyhow::Result<Place> {
        let [first, _] = &self.marked;
        let holds = |place: &Place| {
            let items = body.pointer(&place.to_string()).and_then(Value::as_array);
            let has = |at: usize, item: &Value| {
                place_of(item, &|text| first.is_members(at, text)).is_some()
            };
            items.is_some_and(|items| match items.as_slice() {
                [one, two] => has(0, one) && has(1, two) && !has(0, two),
                _ => false,
            })
        };
        if let Some(hint) = &profile.simulator {
            let own = hint.remove_items.iter().chain([&hint.items]);
            let found = own.map(Place::of).find(holds);
            return found.with_context(|| {
                format!(
                    "`simulator.items`: `{}` holds no members",
                    hint.items.as_str()
                )
            });
        }
        let found = arrays(body).into_iter().find(holds);
        found.context("no array holds one entry for each member: `simulator.items` must say where")
    }
}

impl Marked {
    fn new(profile: &Profile, begin: u32, is_full: bool) -> anyhow::Result<Self> {
        let mut marks = begin..;
        let mut mark = || marks.next().unwrap_or_default().to_string();
        let list = mark();
        let job = format!("{JOB}{}", mark());
        let mut variables = Map::new();
        for (name, variable) in &profile.variables {
            let value = if variable.example.is_string() {
                Value::from(mark())
            } else {
                variable.example.clone()
            };
            variables.insert(name.clone(), value);
        }
        let captures = profile.operations.all();
        for name in captures.flat_map(|(_, operation)| operation.capture.keys()) {
            if name != "list" && !variables.contains_key(name) {
                let is_job = name == "job";
                let value = if is_job { job.clone() } else { mark() };
                variables.insert(name.clone(), Value::from(value));
            }
        }
        let samples = profile.sample_members();
        let samples = samples.map_err(|faults| anyhow!("sample: {:?}", faults.0))?;
        let mut members = samples.into_iter().map(|mut member| {
            if !is_full {
                member.retain(|field, _| is_needed(profile, field));
            }
            for (_, value) in member.iter_mut().filter(|(_, value)| value.is_string()) {
                *value = Value::from(mark());
            }
            if is_full {
                member.insert(format!("extra{begin}"), Value::from(mark()));
            }
            member
        });
        let (Some(one), Some(two)) = (members.next(), members.next()) else {
            bail!("no sample");
        };
        drop(members);
        Ok(Self {
            list,
            job,
            variables,
            members: [one, two],
        })
    }

    fn marks(&self) -> Vec<Mark> {
        let mark = |text: &str, slot| Mark {
            text: text.to_owned(),
            slot,
        };
        let mut marks = vec![mark(&self.list, Slot::List), mark(&self.job, Slot::Job)];
        let settings = self.variables.iter().filter(|(name, _)| *name != "job");
        let settings = settings.filter_map(|(_, value)| value.as_str());
        marks.extend(settings.map(|text| mark(text, Slot::Setting)));
        marks
    }

    /// Whether `text` is a mark of the member at `at`.
    fn is_members(&self, at: usize, text: &str) -> bool {
        let member = self.members.get(at);
        let values = member.into_iter().flat_map(Map::values);
        values.into_iter().any(|value| value.as_str() == Some(text))
    }

    fn render(
        &self,
        compiled: &Compiled,
        kind: OperationKind,
    ) -> anyhow::Result<(String, Option<Value>)> {
        let members: &[Map<String, Value>] = match kind.has_members() {
            true => &self.members,
            false => &[],
        };
        let raw = members.iter().map(to_raw_value);
        let raw: Vec<Box<RawValue>> = raw.collect::<Result<_, _>>()?;
        let data = ChunkData {
            operation: kind,
            list: Value::from(self.list.clone()),
            variables: self.variables.clone(),
            members: raw.iter().map(AsRef::as_ref).collect(),
        };
        let chunk = Chunk::read(&Bytes::from(data.encode()))?;
        let rendered = compiled.render(&chunk, usize::MAX)?;
        let body = match rendered.body {
            None => None,
            Some(body) => Some(
                serde_json::from_slice(&body)
                    .context("the simulator reads bodies of JSON alone")?,
            ),
        };
        let path = if rendered.path.starts_with('/') {
            rendered.path
        } else {
            format!("/{}", rendered.path)
        };
        Ok((path, body))
    }
}

/// Whether a member must have the field, as far as the profile says.
fn is_needed(profile: &Profile, field: &str) -> bool {
    let required = |identity: &&schemas::profile::Identity| identity.required;
    let mut required = profile.identity.iter().filter(required);
    let any = profile.require_any.iter();
    let any = any.map(String::as_str);
    let mut any = any.filter(|name| profile.sample.contains_key(*name));
    field == "id" || required.any(|identity| identity.field == field) || any.next() == Some(field)
}

/// The first place of a text or number of which `is` holds.
fn place_of(value: &Value, is: &dyn Fn(&str) -> bool) -> Option<Place> {
    search(value, &|value| match value {
        Value::String(text) => is(text),
        Value::Number(number) => is(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    })
}

/// The first place of a value; a number is the same as its text.
fn place_of_value(value: &Value, wanted: &Value) -> Option<Place> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let wanted_text = text(wanted);
    search(value, &|value| {
        value == wanted || (wanted_text.is_some() && text(value) == wanted_text)
    })
}

fn search(value: &Value, is: &dyn Fn(&Value) -> bool) -> Option<Place> {
    if is(value) {
        return Some(Place::default());
    }
    let below = |token: String, value: &Value| {
        let mut place = search(value, is)?;
        place.0.insert(0, token);
        Some(place)
    };
    match value {
        Value::Object(members) => members
            .iter()
            .find_map(|(key, value)| below(key.clone(), value)),
        Value::Array(items) => (0_usize..)
            .zip(items)
            .find_map(|(at, item)| below(at.to_string(), item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// The places of all arrays, the outer ones first.
fn arrays(value: &Value) -> Vec<Place> {
    let mut level = BTreeMap::from([(String::new(), (Place::default(), value))]);
    let mut found = Vec::new();
    while !level.is_empty() {
        let mut next = BTreeMap::new();
        for (place, value) in level.into_values() {
            let children: Vec<(String, &Value)> = match value {
                Value::Array(items) => {
                    found.push(place.clone());
                    let numbers = (0_usize..).map(|at| at.to_string());
                    numbers.zip(items).collect()
                }
                Value::Object(members) => {
                    let members = members.iter();
                    members.map(|(key, value)| (key.clone(), value)).collect()
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            };
            for (token, value) in children {
                let mut place = place.clone();
                place.0.push(token);
                next.insert(place.to_string(), (place, value));
            }
        }
        level = next;
    }
    found
}
