//! Owns the making of a request of an event: a transform's templates, compiled once, and its steps
//! one after another.
//!
//! It must never make more than its bounds allow, nor repeat data in what it says of a fault. The
//! surprise: the bounds on templates are for all of a transform together, so that many small ones
//! cost no more than one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use minijinja::{Environment, Value};
use serde::de::IgnoredAny;

use super::compile::{Attribute, Change, Compiler, Computation, Line, Place, What, member};
use super::document::Node;
use super::scope::Scope;
use super::{FUEL, Failure, Made, OUTPUT_BYTES_MAX, Outcome, Transform, WORK_BYTES_MAX};
use crate::event::{AttributeValue, Builder, Event};
use crate::profile::Method;
use crate::profile::template::engine::{self, Bounded, Rendering, SEGMENTS, Text};
use crate::profile::template::{self, RenderError, filters};
use crate::resources::input::Faults;

/// A transform, ready to be run.
pub struct Compiled {
    environment: Environment<'static>,
    changes: Vec<Change>,
    line: Option<Line>,
}

impl Compiled {
    /// Compiles a transform.
    ///
    /// # Errors
    /// Every template and every expression that is none, with pointers into the transform.
    pub fn new(transform: &Transform) -> Result<Self, Faults> {
        let mut compiler = Compiler {
            environment: engine::segmenting(FUEL),
            faults: Vec::new(),
        };
        let steps = transform.steps.iter().enumerate();
        let changes = steps.map(|(at, step)| compiler.step(&format!("/steps/{at}"), step));
        let changes = changes.collect();
        let request = transform.request.as_ref();
        let line = request.map(|request| compiler.line(request));
        if !compiler.faults.is_empty() {
            return Err(Faults(compiler.faults));
        }
        Ok(Self {
            environment: compiler.environment,
            changes,
            line,
        })
    }

    /// What becomes of `event`.
    ///
    /// # Errors
    /// Where and why nothing can be made of it.
    pub fn run(&self, event: &Event) -> Result<Outcome, Failure> {
        let scope = Value::from_object(Scope::new(event, WORK_BYTES_MAX));
        let mut run = Run {
            rendering: Rendering::new(&self.environment, scope),
            data: None,
            room: OUTPUT_BYTES_MAX,
            attributes: Vec::new(),
        };
        for (at, change) in self.changes.iter().enumerate() {
            if let Change::Drop(name) = change {
                if run.is_true(name)? {
                    return Ok(Outcome::Dropped(format!("/steps/{at}")));
                }
            } else {
                run.change(event, change)?;
            }
        }
        let (method, path, headers) = match &self.line {
            None => (Method::Post, String::new(), Vec::new()),
            Some(line) => run.line(line)?,
        };
        Ok(Outcome::Made(Box::new(Made {
            event: run.event(event)?,
            method,
            path,
            headers,
        })))
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("steps", &self.changes.len())
            .finish_non_exhaustive()
    }
}

/// Method, path and headers.
type Asked = (Method, String, Vec<(String, String)>);

/// One event under way.
struct Run<'a> {
    rendering: Rendering<'a>,
    /// The data, once a step has looked at it: there may be none.
    data: Option<Option<Node<'a>>>,
    /// Bytes that templates may still make for it.
    room: usize,
    attributes: Vec<(&'a Attribute, Option<String>)>,
}

impl<'a> Run<'a> {
    fn change(&mut self, event: &'a Event, change: &'a Change) -> Result<(), Failure> {
        match change {
            Change::Select(tree) => {
                let data = self.data(event)?;
                *data = data.take().map(|data| data.select(tree));
            }
            Change::Strip { tree, is_all } => {
                let data = self.data(event)?;
                match data {
                    Some(_) if *is_all => *data = None,
                    Some(data) => data.strip(tree),
                    None => {}
                }
            }
            Change::Rename(pairs, order) => self.rename(event, pairs, order)?,
            Change::Set(constants) => {
                for (place, json) in constants {
                    self.put(event, place, Node::Text(Cow::Borrowed(json)))?;
                }
            }
            Change::Compute(all) => {
                for one in all {
                    self.compute(event, one)?;
                }
            }
            Change::Attributes(attributes) => {
                for attribute in attributes {
                    let text = attribute.text.as_ref();
                    let text = text.map(|text| self.rendered(text)).transpose()?;
                    self.attributes
                        .retain(|(known, _)| known.name != attribute.name);
                    self.attributes.push((attribute, text));
                }
            }
            // It is looked at where it can end the run.
            Change::Drop(_) => {}
        }
        Ok(())
    }

    /// The data as it stands.
    fn data(&mut self, event: &'a Event) -> Result<&mut Option<Node<'a>>, Failure> {
        if self.data.is_none() {
            let text = match event.data() {
                None => None,
                Some(data) => {
                    let is_json = event.has_valid_json();
                    let text = std::str::from_utf8(data).ok().filter(|_| is_json);
                    Some(text.ok_or_else(|| Failure::new("/steps", "the event's data is no JSON"))?)
                }
            };
            self.data = Some(text.map(|text| Node::Text(Cow::Borrowed(text))));
        }
        Ok(self.data.get_or_insert(None))
    }

    fn rename(
        &mut self,
        event: &'a Event,
        pairs: &'a [(Place, Place)],
        order: &[usize],
    ) -> Result<(), Failure> {
        let mut taken: Vec<Option<Node<'a>>> = pairs.iter().map(|_| None).collect();
        for at in order {
            let data = self.data(event)?;
            let found = pairs.get(*at).and_then(|(from, _)| match from.split() {
                None => data.take(),
                Some(place) => data.as_mut()?.take(place),
            });
            if let Some(slot) = taken.get_mut(*at) {
                *slot = found;
            }
        }
        for ((_, to), value) in pairs.iter().zip(taken) {
            if let Some(value) = value {
                self.put(event, to, value)?;
            }
        }
        Ok(())
    }

    fn compute(&mut self, event: &'a Event, one: &'a Computation) -> Result<(), Failure> {
        if let Some(when) = &one.when
            && !self.is_true(when)?
        {
            return Ok(());
        }
        let json = match &one.what {
            What::Value(name) => {
                let value = self.value(name)?;
                self.json_of(name, &value)?
            }
            What::Text(text) => {
                let text = self.written(text)?;
                let text = String::from_utf8(text)
                    .map_err(|_| Failure::new(&one.place.said_at, "made no text"))?;
                self.json_of(&one.place.said_at, &Value::from(text))?
            }
            What::Json(text) => {
                let text = self.written(text)?;
                // The skipping parser does not look into strings, so UTF-8 is checked first.
                let text = String::from_utf8(text).ok();
                let text = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
                text.ok_or_else(|| Failure::new(&one.place.said_at, "made no JSON"))?
            }
        };
        self.room = self.room.saturating_sub(json.len());
        self.put(event, &one.place, Node::Text(Cow::Owned(json)))
    }

    fn put(&mut self, event: &'a Event, place: &Place, value: Node<'a>) -> Result<(), Failure> {
        let data = self.data(event)?;
        let Some(to) = place.split() else {
            *data = Some(value);
            return Ok(());
        };
        let put = data.get_or_insert_with(Node::empty).put(to, value);
        put.map_err(|blocked| Failure::new(&place.said_at, blocked.to_string()))
    }

    fn line(&self, line: &Line) -> Result<Asked, Failure> {
        let mut path = self.rendered(&line.path)?;
        for (name, text) in &line.query {
            let value = self.rendered(text)?;
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&filters::encoded(name));
            path.push('=');
            path.push_str(&filters::encoded(&value));
        }
        let wrong = |at: &str, reason: &str| Failure::new(at, format!("made a text that {reason}"));
        if path.len() > template::LINE_BYTES_MAX {
            return Err(wrong(SEGMENTS, "is too long for a URL"));
        }
        engine::check_path(&path).map_err(|reason| wrong(SEGMENTS, reason))?;
        let mut headers = Vec::with_capacity(line.headers.len());
        for (name, text) in &line.headers {
            let value = self.rendered(text)?;
            engine::check_header(&value)
                .map_err(|reason| wrong(&member("/request/headers", name), reason))?;
            headers.push((name.clone(), value));
        }
        Ok((line.method, path, headers))
    }

    /// The event as it is sent.
    fn event(self, event: &Event) -> Result<Event, Failure> {
        let changed = self.data.is_some();
        let data = match &self.data {
            None => event.data().cloned(),
            Some(None) => None,
            Some(Some(node)) => Some(written(node)?),
        };
        let made = if self.attributes.is_empty() {
            event.with_data(data, changed)
        } else {
            with_attributes(event, &self.attributes, data, changed)?
        };
        if changed && made.data().is_some() && !made.data_is_json() {
            return Err(Failure::new(
                "/steps",
                "`datacontenttype` is not that of JSON",
            ));
        }
        Ok(made)
    }

    fn rendered(&self, text: &Text) -> Result<String, Failure> {
        let made = self.rendering.line(text).map_err(failure)?;
        self.in_bounds(text_name(text)).map(|()| made)
    }

    fn written(&self, text: &Text) -> Result<Vec<u8>, Failure> {
        let made = self.rendering.write(text, self.room).map_err(failure)?;
        self.in_bounds(text_name(text)).map(|()| made)
    }

    fn value(&self, name: &str) -> Result<Value, Failure> {
        let value = self.rendering.value(name).map_err(failure)?;
        self.in_bounds(name)?;
        match value.is_undefined() {
            true => Err(Failure::new(name, "has no value")),
            false => Ok(value),
        }
    }

    fn is_true(&self, name: &str) -> Result<bool, Failure> {
        let value = self.value(name)?;
        bool::try_from(value).map_err(|_| Failure::new(name, "is neither true nor false"))
    }

    /// Whether all templates together have taken no more steps than they may.
    fn in_bounds(&self, name: &str) -> Result<(), Failure> {
        match self.rendering.steps() <= FUEL {
            true => Ok(()),
            false => Err(Failure::new(
                name,
                "all templates together take too many steps",
            )),
        }
    }

    fn json_of(&self, name: &str, value: &Value) -> Result<String, Failure> {
        let mut out = Bounded {
            bytes: Vec::new(),
            max: self.room,
        };
        serde_json::to_writer(&mut out, value).map_err(|error| match error.is_io() {
            true => Failure::new(name, too_large()),
            false => Failure::new(name, "has a value that is no JSON"),
        })?;
        String::from_utf8(out.bytes).map_err(|_| Failure::new(name, "has a value that is no JSON"))
    }
}

fn text_name(text: &Text) -> &str {
    match text {
        Text::Plain(_) => "",
        Text::Template(name) => name,
    }
}

fn too_large() -> String {
    format!("makes more than {OUTPUT_BYTES_MAX} bytes of data")
}

fn written(node: &Node<'_>) -> Result<Bytes, Failure> {
    let mut out = Bounded {
        bytes: Vec::new(),
        max: OUTPUT_BYTES_MAX,
    };
    match node.write(&mut out) {
        Ok(()) => Ok(out.bytes.into()),
        Err(_) => Err(Failure::new("/steps", too_large())),
    }
}

/// The event with these attributes set or removed.
fn with_attributes(
    event: &Event,
    attributes: &[(&Attribute, Option<String>)],
    data: Option<Bytes>,
    is_json: bool,
) -> Result<Event, Failure> {
    let is_own = |name: &str| attributes.iter().all(|(known, _)| known.name != name);
    let context = event
        .context()
        .map(|(context, text)| (context.name(), text));
    let context = context.map(|(name, text)| (name, AttributeValue::String(text)));
    let own = context.chain(event.extensions());
    let own = own.filter(|(name, _)| is_own(name));
    let mut builder = Builder::new();
    let wrong = |at: &str, error: crate::event::Error| Failure::new(at, error.to_string());
    for (name, value) in own {
        let set = builder.set(name, value);
        set.map_err(|error| wrong("/steps", error))?;
    }
    for (attribute, text) in attributes {
        let Some(text) = text.as_deref() else {
            continue;
        };
        let set = builder.set(&attribute.name, AttributeValue::String(text));
        set.map_err(|error| wrong(&attribute.said_at, error))?;
    }
    let made = builder.build().map_err(|error| wrong("/steps", error))?;
    Ok(made.with_data(data, is_json))
}

fn failure(error: RenderError) -> Failure {
    match error {
        RenderError::NoOperation(_) => Failure::new("", error.to_string()),
        RenderError::Template { template, reason } => Failure::new(template, reason),
        RenderError::Text { template, reason } => {
            Failure::new(template, format!("made a text that {reason}"))
        }
    }
}
