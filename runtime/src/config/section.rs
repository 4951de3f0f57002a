//! Owns what a section of the configuration is: the macro that defines one, and the reader that
//! takes its options out of the layers.

use std::fmt;
use std::ops::RangeInclusive;

use toml::Value;

use super::layers::Entries;
use super::value::Setting;
use super::{Fault, Source};

/// A section: a struct whose every field is an option.
pub trait Section: Default {
    /// Its name, the first part of its options' keys; empty for those at the top.
    const NAME: &'static str;
    /// What it is about.
    const DOC: &'static str;

    /// Its options, as the reference shows them.
    fn options() -> Vec<OptionDoc>;

    /// Takes its options; what is wrong with them stays in the reader.
    fn read(reader: &mut Reader) -> Self;

    /// Its values in the order of [`Section::options`], secrets redacted.
    fn values(&self) -> Vec<Option<Value>>;
}

/// What the reference says about one option.
#[derive(Clone, Debug)]
pub struct OptionDoc {
    /// The section's name, empty at the top.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What it is for.
    pub doc: String,
    /// What kind of value it takes.
    pub kind: &'static str,
    /// Its default as TOML; `None` where it is not set.
    pub default: Option<String>,
    /// The least and the greatest value.
    pub bounds: Option<(String, String)>,
    /// Whether any name may follow its key.
    pub table: bool,
}

impl OptionDoc {
    /// What is known of an option of type `T`.
    pub fn new<T: Setting>(
        section: &'static str,
        name: &'static str,
        doc: &str,
        default: &T,
    ) -> Self {
        Self {
            section,
            name,
            doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
            kind: T::KIND,
            default: default.write().map(|value| value.to_string()),
            bounds: None,
            table: T::TABLE,
        }
    }

    /// The same with bounds.
    #[must_use]
    pub fn within<T: Setting>(mut self, range: &RangeInclusive<T>) -> Self {
        self.bounds = Some((show(range.start()), show(range.end())));
        self
    }

    /// Its full key.
    #[must_use]
    pub fn key(&self) -> String {
        key_of(self.section, self.name)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        let path = self.key().replace('.', "__").to_ascii_uppercase();
        format!("ANABRANCH_{path}")
    }
}

/// Takes options out of the layers and collects what is wrong.
#[derive(Debug)]
pub struct Reader {
    entries: Entries,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(entries: Entries, faults: Vec<Fault>) -> Self {
        Self { entries, faults }
    }

    /// Takes an option, or its default where it is not set or is wrong.
    pub fn take<T: Setting>(&mut self, section: &str, name: &str, default: T) -> T {
        let key = key_of(section, name);
        let found = if T::TABLE {
            self.entries.take_table(&key)
        } else {
            self.entries.take(&key)
        };
        let Some((value, source)) = found else {
            return default;
        };
        T::read(&value).unwrap_or_else(|expected| {
            let got = if T::SECRET {
                String::new()
            } else {
                format!(", got {}", quote(&value))
            };
            self.fault(
                &key,
                format!("`{key}`: expected {expected}{got} ({source})"),
            );
            default
        })
    }

    /// Notes a fault where `value` is out of bounds.
    pub fn check<T>(&mut self, section: &str, name: &str, value: &T, range: &RangeInclusive<T>)
    where
        T: Setting + PartialOrd,
    {
        if !range.contains(value) {
            let key = key_of(section, name);
            let (low, high) = (show(range.start()), show(range.end()));
            let got = show(value);
            self.fault(
                &key,
                format!("`{key}` must be from `{low}` to `{high}`, got `{got}`"),
            );
        }
    }

    fn fault(&mut self, key: &str, message: String) {
        let key = key.to_owned();
        self.faults.push(Fault { key, message });
    }

    /// What was not taken, and what was wrong.
    pub(super) fn finish(self) -> (Vec<(String, Source)>, Vec<Fault>) {
        (self.entries.left(), self.faults)
    }
}

pub(super) fn key_of(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

/// A value without the quotes of TOML.
fn show<T: Setting>(value: &T) -> String {
    value.write().as_ref().map_or_else(String::new, plain)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn quote(value: &Value) -> impl fmt::Display {
    format!("`{}`", plain(value))
}

/// Defines a section: `pub name: Type = default, in low..=high;` for each option, with its
/// documentation before it.
#[macro_export]
macro_rules! section {
    ($(#[doc = $doc:literal])+ pub struct $section:ident($name:literal) {
        $($(#[doc = $field_doc:literal])+
        pub $field:ident: $kind:ty = $default:expr $(, in $range:expr)?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $section {
            $($(#[doc = $field_doc])+ pub $field: $kind,)+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::Section for $section {
            const NAME: &'static str = $name;
            const DOC: &'static str = concat!($($doc),+);

            fn options() -> Vec<$crate::config::OptionDoc> {
                let default = Self::default();
                vec![$({
                    let doc = $crate::config::OptionDoc::new(
                        $name,
                        stringify!($field),
                        concat!($($field_doc),+),
                        &default.$field,
                    );
                    $(let doc = doc.within::<$kind>(&$range);)?
                    doc
                },)+]
            }

            fn read(reader: &mut $crate::config::Reader) -> Self {
                let default = Self::default();
                Self { $($field: {
                    let value = reader.take($name, stringify!($field), default.$field);
                    $(reader.check($name, stringify!($field), &value, &$range);)?
                    value
                },)+ }
            }

            fn values(&self) -> Vec<Option<::toml::Value>> {
                vec![$($crate::config::Setting::write(&self.$field),)+]
            }
        }
    };
}
