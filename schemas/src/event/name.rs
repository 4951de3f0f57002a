//! Owns attribute names: which are context attributes, which may be extensions, which are ours.
//!
//! Never accepts a name that a header or a JSON member could not carry unchanged (CE-1).

use std::cmp::Ordering;
use std::fmt;

use super::error::{Error, Fault};

/// The reserved extension that names the event's tenant. Ingest sets it and refuses it from clients.
pub const TENANT: &str = "anabranchtenant";
/// The reserved extension that counts how often an event's ancestors were made by the pipeline
/// (rule 19).
pub const LOOP: &str = "anabranchloop";

/// The reserved extension that says when ingest accepted the event, in unix milliseconds.
pub const ACCEPTED: &str = "anabranchaccepted";

/// What reserved names begin with.
const RESERVED_PREFIX: &str = "anabranch";
/// CE-1 recommends 20; longer names are in use, and a bound is needed.
const NAME_BYTES_MAX: usize = 64;

/// Whether `name` is kept for the pipeline and refused from clients.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

/// A context attribute of CloudEvents 1.0 (CE-3, CE-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Context {
    /// `specversion`, always `1.0`.
    SpecVersion,
    /// `id`.
    Id,
    /// `source`.
    Source,
    /// `type`.
    Type,
    /// `subject`.
    Subject,
    /// `time`.
    Time,
    /// `datacontenttype`.
    DataContentType,
    /// `dataschema`.
    DataSchema,
}

impl Context {
    /// The context attribute called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "specversion" => Self::SpecVersion,
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "subject" => Self::Subject,
            "time" => Self::Time,
            "datacontenttype" => Self::DataContentType,
            "dataschema" => Self::DataSchema,
            _ => return None,
        })
    }

    /// The attribute's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpecVersion => "specversion",
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Subject => "subject",
            Self::Time => "time",
            Self::DataContentType => "datacontenttype",
            Self::DataSchema => "dataschema",
        }
    }
}

/// The valid name of a context attribute or of an extension, resolved once so that looking it up
/// in many events is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AttributeName(Name);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Name {
    Context(Context),
    Extension(Box<str>),
}

impl AttributeName {
    /// Checks `name` (CE-1).
    ///
    /// # Errors
    /// [`Fault::InvalidName`] where it is not `[a-z0-9]{1,64}`, [`Fault::NotAnExtension`] for `data`.
    pub fn new(name: &str) -> Result<Self, Error> {
        if let Some(context) = Context::from_name(name) {
            return Ok(Self(Name::Context(context)));
        }
        check_extension_name(name).map_err(|fault| Error::new(name, fault))?;
        Ok(Self(Name::Extension(name.into())))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Context(context) => context.name(),
            Name::Extension(text) => text,
        }
    }

    /// Which context attribute it is; none for an extension.
    #[must_use]
    pub const fn context(&self) -> Option<Context> {
        match self.0 {
            Name::Context(context) => Some(context),
            Name::Extension(_) => None,
        }
    }
}

impl Ord for AttributeName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for AttributeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for AttributeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// CE-1. The caller has excluded context attributes.
pub(super) fn check_extension_name(name: &str) -> Result<(), Fault> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !plain || name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Fault::InvalidName);
    }
    if name == "data" {
        return Err(Fault::NotAnExtension);
    }
    Ok(())
}
