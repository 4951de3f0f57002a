//! Owns the compiling of a transform: its templates and expressions, its places taken apart.
//!
//! Never stops at the first fault.

use std::collections::BTreeMap;

use minijinja::Environment;

use super::document::Tree;
use super::scope::NAMES;
use super::{Computed, LINE_BYTES_MAX, Request, Step, TEMPLATE_BYTES_MAX};
use crate::profile::template::engine::{self, SEGMENTS, Text};
use crate::profile::{Method, Pointer};
use crate::resources::input::Fault;

/// A step.
pub(super) enum Change {
    Select(Tree),
    Strip { tree: Tree, is_all: bool },
    Rename(Vec<(Place, Place)>, Vec<usize>),
    Set(Vec<(Place, String)>),
    Compute(Vec<Computation>),
    Attributes(Vec<Attribute>),
    Drop(String),
}

/// An attribute that is set, or removed where there is no text.
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) said_at: String,
    pub(super) text: Option<Text>,
}

/// A place in data, and where the transform names it.
pub(super) struct Place {
    pub(super) steps: Box<[Box<str>]>,
    pub(super) said_at: String,
}

pub(super) struct Computation {
    pub(super) place: Place,
    pub(super) what: What,
    pub(super) when: Option<String>,
}

/// How a value is computed; an expression is known by its name.
pub(super) enum What {
    Value(String),
    Text(Text),
    Json(Text),
}

/// The request.
pub(super) struct Line {
    pub(super) method: Method,
    pub(super) path: Text,
    pub(super) query: Vec<(String, Text)>,
    pub(super) headers: Vec<(String, Text)>,
}

/// A transform on its way to be run.
pub(super) struct Compiler {
    pub(super) environment: Environment<'static>,
    pub(super) faults: Vec<Fault>,
}

impl Compiler {
    pub(super) fn step(&mut self, within: &str, step: &Step) -> Change {
        match step {
            Step::Select(places) => Change::Select(tree(places)),
            Step::Strip(places) => Change::Strip {
                tree: tree(places),
                is_all: places.iter().any(|place| place.as_str().is_empty()),
            },
            Step::Rename(entries) => {
                let pairs = entries.0.iter().map(|(from, to)| {
                    let at = member(&format!("{within}/rename"), from.as_str());
                    (Place::new(from, at.clone()), Place::new(to, at))
                });
                let pairs: Vec<_> = pairs.collect();
                let order = last_first(&pairs);
                Change::Rename(pairs, order)
            }
            Step::Set(entries) => {
                let constants = entries.0.iter().map(|(place, value)| {
                    let at = member(&format!("{within}/set"), place.as_str());
                    (Place::new(place, at), value.to_string())
                });
                Change::Set(constants.collect())
            }
            Step::Compute(entries) => {
                let entries = entries.0.iter().map(|(place, computed)| {
                    let at = member(&format!("{within}/compute"), place.as_str());
                    self.computation(Place::new(place, at), computed)
                });
                Change::Compute(entries.collect())
            }
            Step::Attributes(attributes) => {
                let attributes = attributes.iter().map(|(name, template)| {
                    let at = member(&format!("{within}/attributes"), name);
                    let template = template.as_deref();
                    let text = template.map(|source| self.text(&at, source, LINE_BYTES_MAX));
                    Attribute {
                        name: name.clone(),
                        said_at: at,
                        text,
                    }
                });
                Change::Attributes(attributes.collect())
            }
            Step::Drop(source) => Change::Drop(self.expression(format!("{within}/drop"), source)),
        }
    }

    fn computation(&mut self, place: Place, computed: &Computed) -> Computation {
        let at = |name: &str| format!("{}/{name}", place.said_at);
        let (value, text, json) = (at("value"), at("text"), at("json"));
        let when = computed.when.as_deref();
        let when = when.map(|source| self.expression(at("when"), source));
        let what = if let Some(source) = &computed.value {
            What::Value(self.expression(value, source))
        } else if let Some(source) = &computed.text {
            What::Text(self.text(&text, source, TEMPLATE_BYTES_MAX))
        } else {
            let source = computed.json.as_deref().unwrap_or_default();
            What::Json(self.text(&json, source, TEMPLATE_BYTES_MAX))
        };
        Computation { place, what, when }
    }

    pub(super) fn line(&mut self, request: &Request) -> Line {
        let mut texts = |kind: &str, of: &BTreeMap<String, String>| {
            let texts = of.iter().map(|(name, source)| {
                let at = member(&format!("/request/{kind}"), name);
                (name.clone(), self.text(&at, source, LINE_BYTES_MAX))
            });
            texts.collect::<Vec<_>>()
        };
        let (query, headers) = (
            texts("query", &request.query),
            texts("headers", &request.headers),
        );
        let path = self.text(SEGMENTS, &request.path, LINE_BYTES_MAX);
        if let Text::Plain(path) = &path
            && let Err(reason) = engine::check_path(path)
        {
            self.fault(SEGMENTS, reason);
        }
        Line {
            method: request.method,
            path,
            query,
            headers,
        }
    }

    fn text(&mut self, at: &str, source: &str, bytes_max: usize) -> Text {
        let into = std::slice::from_mut(&mut self.environment);
        match engine::text(into, at.to_owned(), source, bytes_max) {
            Ok(text) => {
                if let Text::Template(name) = &text {
                    self.check_names(name);
                }
                text
            }
            Err(detail) => {
                self.fault(at, detail);
                Text::Plain(String::new())
            }
        }
    }

    fn expression(&mut self, at: String, source: &str) -> String {
        match engine::expression(&mut self.environment, &at, source, LINE_BYTES_MAX) {
            Ok(()) => self.check_names(&at),
            Err(detail) => self.fault(&at, detail),
        }
        at
    }

    /// A name that nothing has would be a fault with every event.
    fn check_names(&mut self, template: &str) {
        for name in engine::wants(&self.environment, template) {
            if !NAMES.contains(&name.as_str()) {
                let name: String = name.chars().take(64).collect();
                self.fault(
                    template,
                    format!("`{name}` is not known: there are `event` and `data`"),
                );
            }
        }
    }

    fn fault(&mut self, at: &str, detail: impl Into<String>) {
        self.faults.push(Fault {
            pointer: at.to_owned(),
            detail: detail.into(),
        });
    }
}

/// The pointer to a member.
pub(super) fn member(within: &str, name: &str) -> String {
    format!("{within}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The steps of a pointer (RFC 6901 §4).
pub(super) fn steps(pointer: &Pointer) -> Box<[Box<str>]> {
    let steps = pointer.as_str().split('/').skip(1);
    steps
        .map(|step| step.replace("~1", "/").replace("~0", "~").into_boxed_str())
        .collect()
}

/// In which order things are taken out, so that of an array's elements the later ones go first and
/// none changes its place before its turn.
fn last_first(pairs: &[(Place, Place)]) -> Vec<usize> {
    let number = |step: &str| (step.len(), step.to_owned());
    let key = |at: &usize| {
        let place = pairs
            .get(*at)
            .map(|(from, _)| from.steps.iter().map(|step| number(step)));
        place.map(Iterator::collect::<Vec<_>>)
    };
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_cached_key(|at| std::cmp::Reverse(key(at)));
    order
}

fn tree(places: &[Pointer]) -> Tree {
    let places: Vec<_> = places.iter().map(steps).collect();
    Tree::of(places.iter().map(AsRef::as_ref))
}

impl Place {
    fn new(pointer: &Pointer, said_at: String) -> Self {
        Self {
            steps: steps(pointer),
            said_at,
        }
    }

    /// The way to it and its last step; `None` for the whole.
    pub(super) fn split(&self) -> Option<(&[Box<str>], &str)> {
        let (last, way) = self.steps.split_last()?;
        Some((way, last))
    }
}
