//! Owns the filters of templates, and what all of them together may make in one rendering.
//!
//! Each counts the bytes that it reads and makes against one budget, so that a template's work is
//! bounded by more than its steps. The surprise: `tojson` copies members as they came, and does not
//! escape for HTML.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Object, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters, tests};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::members::{Member, Members};
use crate::profile::identity::sha256_hex;

/// What filters may read and make in one rendering, in bytes.
const WORK_BYTES_MAX: usize = 64 << 20;
/// The longest text that a filter makes.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// What a value in a list takes.
const VALUE_BYTES: usize = 32;
/// Under which the budget is found: no name that a template can say.
pub(crate) const WORK: &str = " work";

/// What stands for itself in a segment of a path (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is left of a rendering's budget.
#[derive(Debug)]
pub(crate) struct Work(AtomicUsize);

impl Object for Work {}

impl Default for Work {
    fn default() -> Self {
        Self::of(WORK_BYTES_MAX)
    }
}

impl Work {
    /// A budget of so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn spend(&self, bytes: usize) -> Result<(), Error> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(bytes);
        let left = left.ok_or_else(|| too_much("filters have made more than they may"))?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// Adds what templates may use.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("segment", segment);
    environment.add_filter("concat", concat);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("sha256", sha256);
    environment.add_filter("lower", |state: &State<'_, '_>, text: &str| {
        made(state, text.len(), text.to_lowercase())
    });
    environment.add_filter("upper", |state: &State<'_, '_>, text: &str| {
        made(state, text.len(), text.to_uppercase())
    });
    environment.add_filter("trim", |state: &State<'_, '_>, text: &str| {
        made(state, text.len(), text.trim().to_owned())
    });
    environment.add_filter("string", |state: &State<'_, '_>, value: &Value| {
        let text = text_of(state, value)?;
        made(state, 0, text)
    });
    environment.add_filter("add", |one: &Value, other: &Value| {
        calculated(one, other, i128::checked_add, |one, other| one + other)
    });
    environment.add_filter("times", |one: &Value, other: &Value| {
        calculated(one, other, i128::checked_mul, |one, other| one * other)
    });
    environment.add_filter("round", filters::round);
    environment.add_filter("float", filters::float);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("int", filters::int);
    environment.add_filter("items", filters::items);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", length);
    environment.add_filter("list", list);
    environment.add_filter("map", map);
    environment.add_filter("rejectattr", rejectattr);
    environment.add_filter("selectattr", selectattr);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("string", tests::is_string);
    environment.add_test("undefined", tests::is_undefined);
}

/// The value as JSON; members as the bytes that they came as.
fn tojson(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut json = Bounded::default();
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "undefined is no JSON",
        ));
    }
    if let Some(members) = value.downcast_object_ref::<Members>() {
        members.write_json(&mut json).map_err(|_| too_long())?;
    } else if let Some(member) = value.downcast_object_ref::<Member>() {
        io::Write::write_all(&mut json, member.json()).map_err(|_| too_long())?;
    } else {
        serde_json::to_writer(&mut json, value).map_err(|error| match error.is_io() {
            true => too_long(),
            false => Error::new(ErrorKind::BadSerialization, error.to_string()),
        })?;
    }
    let text = String::from_utf8(json.0)
        .map_err(|_| Error::new(ErrorKind::BadSerialization, "json is not text"))?;
    made(state, 0, text)
}

/// The text as one segment of a path, or as a value in a query: whatever it is, it stays one.
fn segment(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let text = text_of(state, value)?;
    let encoded = made(state, text.len(), encoded(&text))?;
    Ok(Value::from_safe_string(encoded))
}

/// What is written of a value in a path whose values are segments: what `segment` made, or what it
/// would make. Nothing at all is no segment: what is behind it would be another place.
pub(super) fn as_segment(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let wrong = |reason| Err(Error::new(ErrorKind::InvalidOperation, reason));
    if value.is_none() {
        return wrong("none is no part of a path");
    }
    let text = match bool::try_from(value.clone()) {
        Ok(flag) if !value.is_number() => flag.to_string(),
        Ok(_) | Err(_) => text_of(state, value)?,
    };
    if text.is_empty() {
        return wrong("an empty text is no part of a path");
    }
    if value.is_safe() {
        return Ok(text);
    }
    made(state, 0, encoded(&text))
}

/// The text with everything encoded that could mean something in a URL.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the engine gives the rest by value"
)]
fn concat(state: &State<'_, '_>, first: &Value, others: Rest<Value>) -> Result<String, Error> {
    let mut all = String::new();
    for value in std::iter::once(first).chain(&*others) {
        append(state, &mut all, value)?;
    }
    Ok(all)
}

fn join(state: &State<'_, '_>, values: &Value, between: Option<&str>) -> Result<String, Error> {
    let mut all = String::new();
    for (at, value) in values.try_iter()?.enumerate() {
        if at > 0 {
            append(state, &mut all, &Value::from(between.unwrap_or_default()))?;
        }
        append(state, &mut all, &value)?;
    }
    Ok(all)
}

/// A number of two: whole where both are, and within 64 bits then.
fn calculated(
    one: &Value,
    other: &Value,
    whole: impl Fn(i128, i128) -> Option<i128>,
    real: impl Fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let wrong = |reason| Error::new(ErrorKind::InvalidOperation, reason);
    if !(one.is_number() && other.is_number()) {
        return Err(wrong("must be numbers"));
    }
    if one.is_integer() && other.is_integer() {
        let numbers = (i128::try_from(one.clone())?, i128::try_from(other.clone())?);
        let made = whole(numbers.0, numbers.1).and_then(|made| i64::try_from(made).ok());
        return made
            .map(Value::from)
            .ok_or_else(|| wrong("the number is too large"));
    }
    let made = real(f64::try_from(one.clone())?, f64::try_from(other.clone())?);
    match made.is_finite() {
        true => Ok(Value::from(made)),
        false => Err(wrong("the number is too large")),
    }
}

fn replace(state: &State<'_, '_>, text: &str, from: &str, to: &str) -> Result<String, Error> {
    let times = text.matches(from).count();
    let bytes = times.saturating_mul(to.len()).saturating_add(text.len());
    work(state)?.spend(bytes)?;
    if bytes > TEXT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(text.replace(from, to))
}

fn sha256(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let text = text_of(state, value)?;
    // Hashing a byte costs about as much as copying ten.
    made(
        state,
        text.len().saturating_mul(10),
        sha256_hex(text.as_bytes()),
    )
}

/// Characters are counted one by one.
fn length(state: &State<'_, '_>, value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        work(state)?.spend(text.len())?;
    }
    filters::length(value)
}

fn list(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let bytes = value.as_str().map_or(0, str::len);
    work(state)?.spend(bytes.saturating_mul(VALUE_BYTES))?;
    let list = filters::list(state, value)?;
    work(state)?.spend(list.len().unwrap_or(0).saturating_mul(VALUE_BYTES))?;
    Ok(list)
}

fn map(state: &State<'_, '_>, value: Value, args: Rest<Value>) -> Result<Vec<Value>, Error> {
    listed(state, filters::map(state, value, args)?)
}

fn selectattr(
    state: &State<'_, '_>,
    value: Value,
    field: Cow<'_, str>,
    test: Option<Cow<'_, str>>,
    args: Rest<Value>,
) -> Result<Vec<Value>, Error> {
    listed(state, filters::selectattr(state, value, field, test, args)?)
}

fn rejectattr(
    state: &State<'_, '_>,
    value: Value,
    field: Cow<'_, str>,
    test: Option<Cow<'_, str>>,
    args: Rest<Value>,
) -> Result<Vec<Value>, Error> {
    listed(state, filters::rejectattr(state, value, field, test, args)?)
}

fn listed(state: &State<'_, '_>, list: Vec<Value>) -> Result<Vec<Value>, Error> {
    work(state)?.spend(list.len().saturating_mul(VALUE_BYTES))?;
    Ok(list)
}

fn append(state: &State<'_, '_>, all: &mut String, value: &Value) -> Result<(), Error> {
    let text = text_of(state, value)?;
    work(state)?.spend(text.len())?;
    if all.len() + text.len() > TEXT_BYTES_MAX {
        return Err(too_long());
    }
    all.push_str(&text);
    Ok(())
}

/// What is written of a single value; lists and objects are no texts.
fn text_of(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        work(state)?.spend(text.len())?;
        return Ok(text.to_owned());
    }
    if value.is_undefined() {
        return Err(Error::new(
            ErrorKind::UndefinedError,
            "undefined is no text",
        ));
    }
    if value.as_object().is_some() {
        let reason = "a list or an object is no text: use tojson";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let mut text = String::new();
    write!(text, "{value}").map_err(|_| too_long())?;
    Ok(text)
}

fn made(state: &State<'_, '_>, read: usize, text: String) -> Result<String, Error> {
    work(state)?.spend(read.saturating_add(text.len()))?;
    Ok(text)
}

fn work(state: &State<'_, '_>) -> Result<std::sync::Arc<Work>, Error> {
    let work = state
        .lookup(WORK)
        .and_then(|value| value.downcast_object::<Work>());
    work.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "no rendering is under way"))
}

fn too_much(what: &'static str) -> Error {
    Error::new(ErrorKind::OutOfFuel, what)
}

fn too_long() -> Error {
    too_much("a text is longer than it may be")
}

/// A buffer that takes no more than [`TEXT_BYTES_MAX`].
#[derive(Default)]
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEXT_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
