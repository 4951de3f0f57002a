//! Owns the compiling and the rendering of single templates, for profiles and for transforms alike.
//!
//! What one of them makes is bounded in steps, in bytes and in what filters make. The surprise: a
//! template whose values are parts of a path says so by its name, and whatever is written in it is
//! one segment (rule 10).

use std::cell::Cell;
use std::io;
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::{LINE_BYTES_MAX, RenderError, filters, language};

/// What the name of a template begins with whose values are segments of a path.
pub(crate) const SEGMENTS: &str = "/request/path";
/// How values are written in those.
const AS_SEGMENT: AutoEscape = AutoEscape::Custom("segment");
/// Under which an expression's value is found.
const VALUE: &str = "value";

/// What all templates share: the language.
static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    filters::add_to(&mut environment);
    environment
});

/// The same where names say which values are segments.
static SEGMENTING: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = LANGUAGE.clone();
    environment.set_auto_escape_callback(|name| match name.starts_with(SEGMENTS) {
        true => AS_SEGMENT,
        false => AutoEscape::None,
    });
    environment.set_formatter(|out, state, value| {
        if state.auto_escape() != AS_SEGMENT {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = filters::as_segment(state, value)?;
        let failed = |_| Error::new(ErrorKind::WriteFailure, "a segment cannot be written");
        out.write_str(&text).map_err(failed)
    });
    environment
});

/// A text that is always the same, or a template's name.
pub(crate) enum Text {
    /// Always the same.
    Plain(String),
    /// A template, and its name.
    Template(String),
}

/// Renderings over the same context, and the steps that they have taken together.
pub(crate) struct Rendering<'a> {
    environment: &'a Environment<'static>,
    context: Value,
    steps: Cell<u64>,
}

/// An environment without templates, of which each may take so many steps.
pub(crate) fn environment(steps: u64) -> Environment<'static> {
    let mut environment = LANGUAGE.clone();
    environment.set_fuel(Some(steps));
    environment
}

/// The same for templates of which some are named as [`SEGMENTS`].
pub(crate) fn segmenting(steps: u64) -> Environment<'static> {
    let mut environment = SEGMENTING.clone();
    environment.set_fuel(Some(steps));
    environment
}

/// Compiles `source` into each of the environments.
///
/// # Errors
/// Why it is no template of ours.
pub(crate) fn text(
    into: &mut [Environment<'static>],
    name: String,
    source: &str,
    bytes_max: usize,
) -> Result<Text, String> {
    check_length(source, bytes_max)?;
    if !is_template(source) {
        return Ok(Text::Plain(source.to_owned()));
    }
    language::check(source).map_err(|refused| refused.to_string())?;
    for environment in into {
        environment
            .add_template_owned(name.clone(), source.to_owned())
            .map_err(|error| told(&error))?;
    }
    Ok(Text::Template(name))
}

/// The variables that a template of `environment` wants to be given.
pub(crate) fn wants(environment: &Environment<'_>, name: &str) -> Vec<String> {
    let template = environment.get_template(name);
    let wanted = template.map(|template| template.undeclared_variables(false));
    let mut wanted: Vec<String> = wanted.unwrap_or_default().into_iter().collect();
    wanted.sort_unstable();
    wanted
}

/// Compiles an expression, whose value [`Rendering::value`] gives.
///
/// # Errors
/// Why it is none of ours.
pub(crate) fn expression(
    into: &mut Environment<'static>,
    name: &str,
    source: &str,
    bytes_max: usize,
) -> Result<(), String> {
    check_length(source, bytes_max)?;
    // An expression that is whole stays one between the marks of a statement.
    into.compile_expression(source)
        .map_err(|error| told(&error))?;
    let statement = format!("{{% set {VALUE} = ({source}\n) %}}");
    language::check(&statement).map_err(|refused| refused.to_string())?;
    into.add_template_owned(name.to_owned(), statement)
        .map_err(|error| told(&error))
}

fn check_length(source: &str, bytes_max: usize) -> Result<(), String> {
    if source.len() > bytes_max {
        return Err(format!("must be at most {bytes_max} bytes"));
    }
    Ok(())
}

fn is_template(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| source.contains(mark))
}

impl<'a> Rendering<'a> {
    /// Renderings of the templates in `environment`.
    pub(crate) fn new(environment: &'a Environment<'static>, context: Value) -> Self {
        Self {
            environment,
            context,
            steps: Cell::new(0),
        }
    }

    /// The steps that were taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// The text, which is at most [`LINE_BYTES_MAX`] long.
    pub(crate) fn line(&self, text: &Text) -> Result<String, RenderError> {
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

    /// The text, which is at most `max` bytes long.
    pub(crate) fn write(&self, text: &Text, max: usize) -> Result<Vec<u8>, RenderError> {
        let name = match text {
            Text::Plain(text) => return Ok(text.clone().into_bytes()),
            Text::Template(name) => name,
        };
        let mut out = Bounded {
            bytes: Vec::new(),
            max,
        };
        self.run(name, &mut out, |_| ())
            .map_err(|error| RenderError::Template {
                template: name.clone(),
                reason: if error.kind() == ErrorKind::WriteFailure {
                    format!("made more than {max} bytes")
                } else {
                    told(&error)
                },
            })?;
        Ok(out.bytes)
    }

    /// The value of an expression.
    pub(crate) fn value(&self, name: &str) -> Result<Value, RenderError> {
        let value = self.run(name, io::sink(), |state| state.lookup(VALUE));
        let value = value.map_err(|error| RenderError::Template {
            template: name.to_owned(),
            reason: told(&error),
        });
        Ok(value?.unwrap_or_default())
    }

    fn run<T>(
        &self,
        name: &str,
        out: impl io::Write,
        then: impl FnOnce(&minijinja::State<'_, '_>) -> T,
    ) -> Result<T, Error> {
        let template = self.environment.get_template(name)?;
        let captured = template.render_captured_to(&self.context, out)?;
        let state = captured.state();
        let taken = state.fuel_levels().map_or(0, |(taken, _)| taken);
        self.steps.set(self.steps.get().saturating_add(taken));
        Ok(then(state))
    }
}

/// An error of a template without the data that it was rendered with.
pub(crate) fn told(error: &Error) -> String {
    let line = error.line().map(|line| format!("line {line}: "));
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let (line, detail) = (line.unwrap_or_default(), detail.unwrap_or_default());
    format!("{line}{}{detail}", error.kind())
}

/// What may be appended to an endpoint's URL: nothing that could lead to another place than below
/// it (rule 10).
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
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
pub(crate) fn check_header(value: &str) -> Result<(), &'static str> {
    let is_visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if value.trim() != value || !value.bytes().all(is_visible) {
        return Err("is not visible ASCII, without white space around it");
    }
    Ok(())
}

/// A buffer that refuses more than `max`.
pub(crate) struct Bounded {
    /// What was written.
    pub(crate) bytes: Vec<u8>,
    /// So much may be.
    pub(crate) max: usize,
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
