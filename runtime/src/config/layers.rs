//! Owns the layers that a configuration is made of: defaults, a TOML file, the environment, flags;
//! a later one wins, key by key.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::section::Reader;
use super::{Config, Fault, Faults, OptionDoc, print, relations};

const PREFIX: &str = "ANABRANCH_";
/// Names the file where no flag does; not an option itself.
const FILE_VARIABLE: &str = "ANABRANCH_CONFIG";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A file, by its path.
    File(String),
    /// An environment variable, by its name.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// The layers, added from the weakest to the strongest.
#[derive(Debug, Default)]
pub struct Layers {
    entries: Entries,
    faults: Vec<Fault>,
}

/// A valid configuration, and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// The whole configuration as TOML, each value with its source, secrets redacted.
    #[must_use]
    pub fn print(&self) -> String {
        print::effective(&self.config, |key| self.source(key))
    }

    /// Where the value of `key` came from.
    #[must_use]
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }
}

impl Layers {
    /// Defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The layers of a service: the file named by the flag `--config` or else by
    /// `ANABRANCH_CONFIG`, the environment, and the assignments of `--set`.
    #[must_use]
    pub fn standard(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        assignments: &[String],
    ) -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables: Vec<(String, String)> = environment.into_iter().filter_map(text).collect();
        let named = variables.iter().find(|(name, _)| name == FILE_VARIABLE);
        let file = file
            .map(PathBuf::from)
            .or_else(|| named.map(|(_, path)| PathBuf::from(path)));
        let layers = match file {
            Some(path) => Self::new().file(&path),
            None => Self::new(),
        };
        let layers = layers.environment(variables);
        assignments
            .iter()
            .fold(layers, |layers, assignment| layers.assign(assignment))
    }

    /// Adds a TOML file.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.toml(&name, &text),
            Err(error) => {
                self.fault(&name, format!("`{name}`: {error}"));
                self
            }
        }
    }

    /// Adds the text of a TOML file called `name`.
    #[must_use]
    pub fn toml(mut self, name: &str, text: &str) -> Self {
        match text.parse::<Table>() {
            Ok(table) => self
                .entries
                .add_table("", table, &Source::File(name.to_owned())),
            Err(error) => {
                // The parser's long form quotes the line, which may hold a secret.
                let place = error.span().map_or(0, |span| line_of(text, span.start));
                self.fault(name, format!("`{name}`: line {place}: {}", error.message()));
            }
        }
        self
    }

    /// Adds variables of the form `ANABRANCH_SECTION__KEY`; those without `__` count where they
    /// name an option at the top. Others are not ours to judge.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let options = Config::options();
        for (name, value) in variables {
            if let Some(key) = variable_key(&name, &options) {
                self.entries
                    .put(key, Value::String(value), Source::Environment(name));
            }
        }
        self
    }

    /// Adds `key=value`, as `--set` takes it.
    #[must_use]
    pub fn assign(mut self, assignment: &str) -> Self {
        match assignment.split_once('=') {
            Some((key, value)) => self.flag(key.trim(), value.trim()),
            None => {
                // Not quoted: somebody may have typed a secret without its key.
                self.fault("--set", "`--set` takes `section.key=value`".to_owned());
                self
            }
        }
    }

    /// Adds the value of a flag.
    #[must_use]
    pub fn flag(mut self, key: &str, value: &str) -> Self {
        self.entries.put(
            key.to_owned(),
            Value::String(value.to_owned()),
            Source::Flag,
        );
        self
    }

    /// Reads and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong: unknown keys, values of the wrong kind or out of bounds, and
    /// values that do not go together.
    pub fn load(self) -> Result<Loaded, Faults> {
        let sources = self.entries.sources();
        let mut reader = Reader::new(self.entries, self.faults);
        let config = Config::read(&mut reader);
        let (left, mut faults) = reader.finish();
        let options = Config::options();
        faults.extend(
            left.into_iter()
                .map(|(key, source)| unknown(&key, &source, &options)),
        );
        faults.extend(relations::faults(&config));
        if faults.is_empty() {
            Ok(Loaded { config, sources })
        } else {
            Err(Faults(faults))
        }
    }

    fn fault(&mut self, key: &str, message: String) {
        let key = key.to_owned();
        self.faults.push(Fault { key, message });
    }
}

/// Values by full key, tables flattened.
#[derive(Debug, Default)]
pub(super) struct Entries {
    values: BTreeMap<String, (Value, Source)>,
}

impl Entries {
    fn put(&mut self, key: String, value: Value, source: Source) {
        self.values.insert(key, (value, source));
    }

    fn add_table(&mut self, prefix: &str, table: Table, source: &Source) {
        for (name, value) in table {
            let key = super::section::key_of(prefix, &name);
            if let Value::Table(table) = value {
                self.add_table(&key, table, source);
            } else {
                self.put(key, value, source.clone());
            }
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<(Value, Source)> {
        self.values.remove(key)
    }

    /// Takes every value below `key`.
    pub(super) fn take_table(&mut self, key: &str) -> Option<(Value, Source)> {
        let below = format!("{key}.");
        let names: BTreeSet<String> = self
            .values
            .keys()
            .filter(|name| name.starts_with(&below))
            .cloned()
            .collect();
        let mut table = Table::new();
        let mut last = None;
        for name in names {
            let (value, source) = self.values.remove(&name)?;
            table.insert(name.strip_prefix(&below)?.to_owned(), value);
            last = Some(source);
        }
        last.map(|source| (Value::Table(table), source))
    }

    pub(super) fn left(self) -> Vec<(String, Source)> {
        self.values
            .into_iter()
            .map(|(key, (_, source))| (key, source))
            .collect()
    }

    fn sources(&self) -> BTreeMap<String, Source> {
        self.values
            .iter()
            .map(|(key, (_, source))| (key.clone(), source.clone()))
            .collect()
    }
}

fn variable_key(name: &str, options: &[OptionDoc]) -> Option<String> {
    let path = name.strip_prefix(PREFIX)?;
    if name == FILE_VARIABLE {
        return None;
    }
    let key = path.replace("__", ".").to_ascii_lowercase();
    let known_at_top = options.iter().any(|option| option.key() == key);
    if !path.contains("__") && !known_at_top {
        return None;
    }
    // Below a table, names are not ours: librdkafka's have dots where a variable cannot.
    let table = options
        .iter()
        .filter(|option| option.table)
        .find_map(|option| {
            let rest = key.strip_prefix(&option.key())?.strip_prefix('.')?;
            Some(format!("{}.{}", option.key(), rest.replace('_', ".")))
        });
    Some(table.unwrap_or(key))
}

fn unknown(key: &str, source: &Source, options: &[OptionDoc]) -> Fault {
    if options
        .iter()
        .any(|option| option.table && option.key() == key)
    {
        // Its value is not shown: it may be a text with secrets in it.
        return Fault {
            key: key.to_owned(),
            message: format!("`{key}` is a table: set `{key}.NAME` ({source})"),
        };
    }
    let nearest = options
        .iter()
        .map(OptionDoc::key)
        .map(|known| (distance(key, &known), known))
        .min()
        // Farther than a third of the key is not a slip of the hand.
        .filter(|(distance, _)| *distance <= 1 + key.len() / 3);
    let hint = nearest.map_or_else(String::new, |(_, known)| {
        format!(", did you mean `{known}`?")
    });
    Fault {
        key: key.to_owned(),
        message: format!("`{key}`: unknown key ({source}){hint}"),
    }
}

/// How many letters must change, come or go (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((to, above), diagonal) in b.iter().zip(row.iter().skip(1)).zip(&row) {
            left = (diagonal + usize::from(from != *to))
                .min(above + 1)
                .min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
