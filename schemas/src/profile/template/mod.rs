//! Owns how a chunk becomes a request: the templates of a profile, compiled once and rendered for
//! each chunk.
//!
//! Pure, and the same for the same chunk always, so that a request that is sent again has the same
//! bytes. What a template makes is bounded in steps, in bytes and in what filters make, and a path
//! never leaves the endpoint's URL (rule 10). The surprise: templates are a part of Jinja in which
//! nothing can grow without a filter that counts it.

mod filters;
mod language;
mod members;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};

use super::{Chunk, Method, Operation, OperationKind, RequestTemplates};
use crate::resources::input::{Fault, Faults};
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

/// One chunk's rendering.
struct Rendering<'a> {
    environment: &'a Environment<'static>,
    context: Value,
}

/// A text that is always the same, or a template's name.
enum Text {
    Plain(String),
    Template(String),
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
        let rendering = Rendering {
            environment: if small { few } else { many },
            context: context(chunk),
        };
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
            self.text(name, source, bytes_max).unwrap_or_else(|detail| {
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

    fn text(&mut self, name: String, source: &str, bytes_max: usize) -> Result<Text, String> {
        if source.len() > bytes_max {
            return Err(format!("must be at most {bytes_max} bytes"));
        }
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Ok(Text::Plain(source.to_owned()));
        }
        language::check(source).map_err(|refused| refused.to_string())?;
        for environment in &mut self.environments {
            environment
                .add_template_owned(name.clone(), source.to_owned())
                .map_err(|error| told(&error))?;
        }
        Ok(Text::Template(name))
    }
}

impl Rendering<'_> {
    fn line(&self, text: &Text) -> Result<String, RenderError> {
        match text {
            Text::Plain(text) => Ok(text.clone()),
            Text::Template(name) => {
                let bytes = self.write(text, LINE_BYTES_MAX)?;
                String::from_utf8(bytes).map_err(|_| RenderError::Text {
                    template: name.clone(),
                    reason: "is not UTF-8",
                })
            }
        }
    }

    fn write(&self, text: &Text, max: usize) -> Result<Vec<u8>, RenderError> {
        let name = match text {
            Text::Plain(text) => return Ok(text.clone().into_bytes()),
            Text::Template(name) => name,
        };
        let mut out = Bounded {
            bytes: Vec::new(),
            max,
        };
        let template = self.environment.get_template(name);
        let written = template.and_then(|template| {
            template.render_captured_to(&self.context, &mut out)?;
            Ok(())
        });
        match written {
            Ok(()) => Ok(out.bytes),
            Err(error) => Err(RenderError::Template {
                template: name.clone(),
                reason: if error.kind() == ErrorKind::WriteFailure {
                    format!("made more than {max} bytes")
                } else {
                    told(&error)
                },
            }),
        }
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

fn environment(steps: u64) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(steps));
    filters::add_to(&mut environment);
    environment
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

/// An error of a template without the data that it was rendered with.
fn told(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!("line {line}: "));
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let (line, detail) = (line.unwrap_or_default(), detail.unwrap_or_default());
    format!("{line}{}{detail}", error.kind())
}

fn not_sendable(kind: OperationKind, member: &str, reason: &'static str) -> RenderError {
    RenderError::Text {
        template: format!("{kind}/{member}"),
        reason,
    }
}

/// What may be appended to an endpoint's URL: nothing that could lead to another place than below
/// it (rule 10).
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Ok(());
    }
    let (way, _query) = path.split_once('?').unwrap_or((path, ""));
    if !path.starts_with(['/', '?']) {
        return Err("does not begin with `/` or `?`");
    }
    let is_plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"' | b'<' | b'>');
    if !path.bytes().all(is_plain) {
        return Err("has characters that a URL may not have: use the filter `segment`");
    }
    if way.contains("//") {
        return Err("has an empty segment");
    }
    let is_dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    if way.split('/').any(is_dots) {
        return Err("has a segment of dots");
    }
    Ok(())
}

/// No line break, and nothing that some server reads in its own way.
fn check_header(value: &str) -> Result<(), &'static str> {
    let is_visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if value.trim() != value || !value.bytes().all(is_visible) {
        return Err("is not visible ASCII, without white space around it");
    }
    Ok(())
}

/// A buffer that refuses more than `max`.
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
