//! Owns how a chunk becomes a request: the templates of a profile, compiled once and rendered for
//! each chunk.
//!
//! Pure, and the same for the same chunk always, so that a request that is sent again has the same
//! bytes. What a template makes is bounded in steps, in bytes and in what filters make, and a path
//! never leaves the endpoint's URL (rule 10). The surprise: templates are a part of Jinja in which
//! nothing can grow without a filter that counts it.

pub(crate) mod engine;
pub(crate) mod filters;
mod language;
mod members;

use std::collections::BTreeMap;
use std::fmt;

use minijinja::{Environment, Value};
use url::Url;

use super::{Chunk, Method, Operation, OperationKind, RequestTemplates};
use crate::resources::input::{Fault, Faults};
use engine::{Rendering, Text, check_header, check_path, environment};
use members::Members;

pub use language::Refused;

/// The longest template of a body.
pub const BODY_TEMPLATE_BYTES_MAX: usize = 64 * 1_024;
/// The longest template of a path or of a header.
pub const LINE_TEMPLATE_BYTES_MAX: usize = 4 * 1_024;
/// The longest path and the longest header that templates make.
pub const LINE_BYTES_MAX: usize = 8 * 1_024;
/// The largest body that a template makes, whatever is asked for.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Steps of one rendering, for chunks with few members and for all others: a loop over a member's
/// ten fields takes about 250.
const STEPS: [u64; 2] = [400_000, 10_000_000];
/// So many members are few.
const FEW_MEMBERS: usize = 500;

/// A profile's requests, ready to be made.
pub struct Compiled {
    /// One for small chunks and one for large ones, which have more steps.
    environments: [Environment<'static>; 2],
    templates: RequestTemplates,
    /// What each operation is written by.
    made_of: BTreeMap<OperationKind, Parts>,
}

/// The texts of one request.
struct Parts {
    path: Text,
    headers: Vec<(String, Text)>,
    body: Option<Text>,
}

/// A request without its destination.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The method.
    pub method: Method,
    /// What is appended to the endpoint's URL: nothing, or a path, or a query.
    pub path: String,
    /// Headers beside the endpoint's own.
    pub headers: Vec<(String, String)>,
    /// The body, if there is one.
    pub body: Option<Vec<u8>>,
}

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The profile has none of the kind.
    #[error("the profile has no `{0}`")]
    NoOperation(OperationKind),
    /// A template went wrong.
    #[error("template {template}: {reason}")]
    Template {
        /// Which, e.g. `add/body`.
        template: String,
        /// What went wrong, and where.
        reason: String,
    },
    /// A text may not be sent.
    #[error("template {template}: made a text that {reason}")]
    Text {
        /// Which, e.g. `add/path`.
        template: String,
        /// What is wrong with what it made.
        reason: &'static str,
    },
}

impl Compiled {
    /// Compiles the templates of a profile.
    ///
    /// # Errors
    /// Every template that is none, with pointers relative to the operations.
    pub fn new(templates: RequestTemplates) -> Result<Self, Faults> {
        let mut compiled = Self {
            environments: STEPS.map(environment),
            templates: RequestTemplates::default(),
            made_of: BTreeMap::new(),
        };
        let mut faults = Vec::new();
        for (kind, operation) in templates.all() {
            compiled.compile(kind, operation, &mut faults);
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        compiled.templates = templates;
        Ok(compiled)
    }

    /// How the operation's answers are read.
    #[must_use]
    pub fn operation(&self, kind: OperationKind) -> Option<&Operation> {
        self.templates.get(kind)
    }

    /// What was compiled.
    #[must_use]
    pub fn templates(&self) -> &RequestTemplates {
        &self.templates
    }

    /// The request for `chunk`, whose body may have at most `body_bytes_max`.
    ///
    /// # Errors
    /// When a template goes wrong, or what it makes may not be sent.
    pub fn render(&self, chunk: &Chunk, body_bytes_max: usize) -> Result<Rendered, RenderError> {
        let kind = chunk.operation;
        let none = || RenderError::NoOperation(kind);
        let operation = self.templates.get(kind).ok_or_else(none)?;
        let parts = self.parts(kind).ok_or_else(none)?;
        let small = chunk.members.len() <= FEW_MEMBERS;
        let [few, many] = &self.environments;
        let rendering = Rendering::new(if small { few } else { many }, context(chunk));
        let path = rendering.line(&parts.path)?;
        check_path(&path).map_err(|reason| not_sendable(kind, "path", reason))?;
        let mut headers = Vec::with_capacity(parts.headers.len());
        for (name, text) in &parts.headers {
            let value = rendering.line(text)?;
            check_header(&value)
                .map_err(|reason| not_sendable(kind, &format!("headers/{name}"), reason))?;
            headers.push((name.clone(), value));
        }
        let body = match &parts.body {
            None => None,
            Some(text) => Some(rendering.write(text, body_bytes_max.min(BODY_BYTES_MAX))?),
        };
        Ok(Rendered {
            method: operation.method,
            path,
            headers,
            body,
        })
    }

    fn parts(&self, kind: OperationKind) -> Option<&Parts> {
        let is_addition = kind == OperationKind::Update && self.templates.update.is_none();
        let kind = if is_addition {
            OperationKind::Add
        } else {
            kind
        };
        self.made_of.get(&kind)
    }

    fn compile(&mut self, kind: OperationKind, operation: &Operation, faults: &mut Vec<Fault>) {
        let within = if kind == OperationKind::Poll {
            "/poll/request".to_owned()
        } else {
            format!("/{kind}")
        };
        let mut text = |member: &str, source: &str, bytes_max: usize| {
            let name = format!("{kind}/{member}");
            let environments = &mut self.environments;
            engine::text(environments, name, source, bytes_max).unwrap_or_else(|detail| {
                let pointer = format!("{within}/{}", member.replace('~', "~0"));
                faults.push(Fault { pointer, detail });
                Text::Plain(String::new())
            })
        };
        let path = text("path", &operation.path, LINE_TEMPLATE_BYTES_MAX);
        let headers = operation.headers.iter().map(|(name, source)| {
            let member = format!("headers/{name}");
            (name.clone(), text(&member, source, LINE_TEMPLATE_BYTES_MAX))
        });
        let headers = headers.collect();
        let body = operation.body.as_deref();
        let body = body.map(|source| text("body", source, BODY_TEMPLATE_BYTES_MAX));
        let parts = Parts {
            path,
            headers,
            body,
        };
        self.made_of.insert(kind, parts);
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("operations", &self.made_of.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rendered {
    /// The body is about people, and headers may hold what templates put there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("method", &self.method)
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

fn context(chunk: &Chunk) -> Value {
    Value::from_iter([
        ("operation", Value::from(chunk.operation.as_str())),
        ("list", Value::from_serialize(&chunk.list)),
        ("variables", Value::from_serialize(&chunk.variables)),
        (
            "members",
            Value::from_object(Members(chunk.members.clone())),
        ),
        (filters::WORK, Value::from_object(filters::Work::default())),
    ])
}

fn not_sendable(kind: OperationKind, member: &str, reason: &'static str) -> RenderError {
    RenderError::Text {
        template: format!("{kind}/{member}"),
        reason,
    }
}

/// The place below `url` that `path`, which may have a query, leads to; `None` where that would be
/// somewhere else (rule 10).
#[must_use]
pub fn below(url: &Url, path: &str) -> Option<Url> {
    let (way, query) = match path.split_once('?') {
        Some((way, query)) => (way, Some(query)),
        None => (path, None),
    };
    let mut joined = url.clone();
    if !way.is_empty() {
        let above = url.path().trim_end_matches('/').to_owned();
        joined.set_path(&format!("{above}{way}"));
        let below = joined.path().strip_prefix(&above)?;
        if !below.starts_with('/') {
            return None;
        }
    }
    match (url.query(), query) {
        (_, None) => {}
        (None, Some(query)) => joined.set_query(Some(query)),
        (Some(own), Some(query)) => joined.set_query(Some(&format!("{own}&{query}"))),
    }
    Some(joined)
}

#[cfg(test)]
mod tests;
