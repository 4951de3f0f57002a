//! Owns how the configuration is shown: the values in force, and the reference of all options.

use toml::Value;

use super::section::{OptionDoc, Section, key_of};
use super::{Config, Source};

/// A section's options beside their values.
pub(super) struct Written {
    name: &'static str,
    options: Vec<(OptionDoc, Option<Value>)>,
}

impl Written {
    pub(super) fn new<S: Section>(section: &S) -> Self {
        Self {
            name: S::NAME,
            options: S::options().into_iter().zip(section.values()).collect(),
        }
    }
}

/// TOML that reads back (but for secrets), each value with its source.
pub(super) fn effective(config: &Config, source: impl Fn(&str) -> Source) -> String {
    let mut out = String::new();
    for section in config.write() {
        if !section.name.is_empty() {
            line(&mut out, &format!("\n[{}]", section.name));
        }
        for (option, value) in &section.options {
            match value {
                Some(Value::Table(table)) => {
                    for (name, value) in table {
                        let source = source(&format!("{}.{name}", option.key()));
                        let name = format!("{}.\"{name}\"", option.name);
                        line(&mut out, &format!("{name} = {value}  # {source}"));
                    }
                }
                Some(value) => {
                    let source = source(&key_of(section.name, option.name));
                    line(&mut out, &format!("{} = {value}  # {source}", option.name));
                }
                None => line(&mut out, &format!("# {} is not set", option.name)),
            }
        }
    }
    out
}

/// Every option with its kind, default, bounds and purpose, as Markdown that reads as text too.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(
        "Options are read from a TOML file (`--config FILE` or `ANABRANCH_CONFIG`), then from the\n\
         environment (`ANABRANCH_SECTION__KEY`), then from flags (`--set section.key=value`); a\n\
         later one wins. Sizes take B, KiB, MiB, GiB; durations us, ms, s, m, h, d.\n",
    );
    let mut section = None;
    for option in Config::options() {
        if section != Some(option.section) {
            section = Some(option.section);
            let title = if option.section.is_empty() {
                "(top)"
            } else {
                option.section
            };
            line(&mut out, &format!("\n## {title}\n"));
        }
        line(&mut out, &describe(&option));
    }
    out
}

fn describe(option: &OptionDoc) -> String {
    let default = option.default.as_ref().map_or_else(
        || "not set by default".to_owned(),
        |default| format!("default `{}`", default.trim_matches('"')),
    );
    let bounds = option.bounds.as_ref();
    let bounds = bounds.map_or_else(String::new, |(low, high)| format!(", {low} to {high}"));
    format!(
        "* `{}` ({}, {default}{bounds}): {}",
        option.key(),
        option.kind,
        option.doc
    )
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}
