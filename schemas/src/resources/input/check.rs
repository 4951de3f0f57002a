//! Owns the checking of a body against its table, and the merging of patches.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::members::{
    self, AGE_MS_MAX, Kind, Member, Members, TYPES_MAX, URL_CHARS_MAX, Variants, WAIT_MS_MAX,
    WAITS_MAX,
};
use super::{FAULTS_MAX, Fault, Faults, Fields, UrlPolicy, relations, sourcing, syncing, text};
use crate::filter::Filters;
use crate::ids::{CohortId, EndpointId, TenantId};
use crate::profile::ResponseGrammar;
use crate::resources::{HEADERS_MAX, StartFrom};
use crate::transform::Transform;

/// Checks the body of a new object.
pub(super) fn create(members: Members, body: &Value, policy: &UrlPolicy) -> Result<Fields, Faults> {
    let mut checker = Checker::new(policy);
    checker.object(members, body);
    checker.finish(body)
}

/// Checks a merge patch and what it makes of `document`.
pub(super) fn patch(
    members: Members,
    document: Map<String, Value>,
    patch: &Value,
    policy: &UrlPolicy,
) -> Result<Fields, Faults> {
    let mut checker = Checker::new(policy);
    let Value::Object(changes) = patch else {
        checker.fault("must be an object");
        return checker.finish(patch);
    };
    for name in changes.keys() {
        if let Some(why) = members::find(members, name).and_then(|member| member.fixed) {
            checker.at(name, |checker| checker.fault(why));
        }
    }
    let mut merged = Value::Object(document);
    merge(&mut merged, patch);
    checker.patching = true;
    checker.object(members, &merged);
    checker.finish(&merged)
}

/// RFC 7396. The parser bounds the depth.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.as_str()).or_insert(Value::Null), change);
        }
    }
}

struct Checker<'a> {
    policy: &'a UrlPolicy,
    pointer: String,
    faults: Vec<Fault>,
    /// What cannot be changed is neither wanted nor looked at.
    patching: bool,
}

impl<'a> Checker<'a> {
    fn new(policy: &'a UrlPolicy) -> Self {
        Self {
            policy,
            pointer: String::new(),
            faults: Vec::new(),
            patching: false,
        }
    }

    fn finish(self, body: &Value) -> Result<Fields, Faults> {
        // A body that is no object has its fault.
        if self.faults.is_empty() {
            Ok(Fields(body.as_object().cloned().unwrap_or_default()))
        } else {
            Err(Faults(self.faults))
        }
    }

    fn fault(&mut self, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                pointer: self.pointer.clone(),
                detail: detail.into(),
            });
        }
    }

    /// Looks at something one step further down the pointer.
    fn at(&mut self, step: &str, look: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        // A client chooses the name: cut, so that an answer is never much longer than its body.
        let step: String = step.chars().take(64).collect();
        self.pointer
            .push_str(&step.replace('~', "~0").replace('/', "~1"));
        look(self);
        self.pointer.truncate(length);
    }

    fn object(&mut self, members: Members, body: &Value) {
        let Value::Object(body) = body else {
            return self.fault("must be an object");
        };
        for member in members.iter().copied().flatten() {
            self.member(member, body.get(member.name));
        }
        for name in body
            .keys()
            .filter(|name| members::find(members, name).is_none())
        {
            self.at(name, |checker| checker.fault("is not a known member"));
        }
        for (name, detail) in relations::broken(body) {
            self.at(name, |checker| checker.fault(detail));
        }
    }

    fn member(&mut self, member: &Member, value: Option<&Value>) {
        if self.patching && member.fixed.is_some() {
            return;
        }
        self.at(member.name, |checker| match value {
            Some(value) if !value.is_null() => checker.value(member.kind, value),
            Some(_) | None if checker.requires(member) => checker.fault("is required"),
            Some(_) | None => {}
        });
    }

    /// A change that leaves a secret out keeps it; whether there is one to keep, the caller knows.
    fn requires(&self, member: &Member) -> bool {
        let kept = matches!(member.kind, Kind::Hidden { .. } | Kind::PrivateKey);
        member.required && !(self.patching && kept)
    }

    fn value(&mut self, kind: Kind, value: &Value) {
        match kind {
            Kind::Flag if value.is_boolean() => {}
            Kind::Flag => self.fault("must be true or false"),
            Kind::Headers(members) => self.headers(members, value),
            Kind::List { max, of } => {
                self.items(value, max, |checker, item| checker.one_kind_of(of, item));
            }
            Kind::OneKindOf(variants) => self.one_kind_of(variants, value),
            Kind::Integer { min, max } => self.integer(value, min, max),
            Kind::Waits => self.waits(value),
            Kind::Types => self.types(value),
            Kind::Filters => self.filters(value),
            Kind::Grammar => self.faults_of(ResponseGrammar::read(value).err()),
            Kind::Transform => self.faults_of(Transform::read(value).err()),
            Kind::Profile => self.faults_of(syncing::profile(value).err()),
            Kind::Schedule => self.faults_of(syncing::schedule(value).err()),
            Kind::Expression => self.faults_of(sourcing::expression(value).err()),
            // What is in it, the profile says.
            Kind::Settings if value.is_object() => {}
            Kind::Settings => self.fault("must be an object"),
            Kind::Object(members) => self.object(members, value),
            Kind::Text { .. }
            | Kind::Slug
            | Kind::EndpointId
            | Kind::CohortId
            | Kind::Start
            | Kind::Topic
            | Kind::Pointer
            | Kind::Url
            | Kind::Secret
            | Kind::Hidden { .. }
            | Kind::HeaderName
            | Kind::HeaderValue { .. }
            | Kind::Certificates
            | Kind::PrivateKey
            | Kind::OneOf(_) => match value {
                Value::String(text) => self.text(kind, text),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => self.fault("must be a string"),
            },
        }
    }

    fn text(&mut self, kind: Kind, given: &str) {
        let id = |error: crate::ids::Error| error.to_string();
        let checked = match kind {
            Kind::Text { max_chars } => text::plain(given, max_chars),
            Kind::Hidden { max_chars } => text::hidden(given, max_chars),
            Kind::Slug => given.parse::<TenantId>().map(drop).map_err(id),
            Kind::EndpointId => given.parse::<EndpointId>().map(drop).map_err(id),
            Kind::CohortId => given.parse::<CohortId>().map(drop).map_err(id),
            Kind::Start => given
                .parse::<StartFrom>()
                .map(drop)
                .map_err(|no| no.to_string()),
            Kind::Topic => sourcing::topic(given),
            Kind::Pointer => sourcing::pointer(given),
            Kind::Url if given.len() > URL_CHARS_MAX => {
                Err(format!("must be at most {URL_CHARS_MAX} characters"))
            }
            Kind::Url => self.policy.check(given).map_err(|no| no.to_string()),
            Kind::Secret => text::signing_secret(given),
            Kind::HeaderName => text::header_name(given),
            Kind::HeaderValue { max_bytes } => text::header_value(given, max_bytes),
            Kind::Certificates => text::certificates(given),
            Kind::PrivateKey => text::private_key(given),
            Kind::OneOf(texts) if texts.contains(&given) => Ok(()),
            Kind::OneOf(texts) => Err(format!("must be one of {}", texts.join(", "))),
            Kind::Integer { .. }
            | Kind::Flag
            | Kind::Waits
            | Kind::Types
            | Kind::Filters
            | Kind::Grammar
            | Kind::Transform
            | Kind::Profile
            | Kind::Settings
            | Kind::Schedule
            | Kind::Expression
            | Kind::Headers(_)
            | Kind::List { .. }
            | Kind::Object(_)
            | Kind::OneKindOf(_) => Ok(()),
        };
        if let Err(wrong) = checked {
            self.fault(wrong);
        }
    }

    /// An object whose member `kind` says which others it has.
    fn one_kind_of(&mut self, variants: Variants, value: &Value) {
        let Value::Object(members) = value else {
            return self.fault("must be an object");
        };
        let mut rest = members.clone();
        let said = rest.remove("kind").filter(|kind| !kind.is_null());
        let kind = match &said {
            None => variants.default,
            Some(kind) => kind.as_str(),
        };
        let found = variants.kinds.iter().find(|known| Some(known.0) == kind);
        match found {
            Some((_, members)) => self.object(members, &Value::Object(rest)),
            None if said.is_none() => self.at("kind", |checker| checker.fault("is required")),
            None => {
                let names: Vec<&str> = variants.kinds.iter().map(|known| known.0).collect();
                let names = names.join(", ");
                self.at("kind", |checker| {
                    checker.fault(format!("must be one of {names}"));
                });
            }
        }
    }

    /// An endpoint's own headers: no name twice, and what authenticates has a place of its own.
    fn headers(&mut self, members: Members, value: &Value) {
        let mut names = HashSet::new();
        self.items(value, HEADERS_MAX, |checker, header| {
            checker.object(members, header);
            let Some(name) = header.get("name").and_then(Value::as_str) else {
                return;
            };
            let name = name.to_ascii_lowercase();
            checker.at("name", |checker| {
                if name == "authorization" {
                    checker.fault("belongs into `authentication`");
                } else if !names.insert(name) {
                    checker.fault("is there already");
                }
            });
        });
    }

    fn integer(&mut self, value: &Value, min: u64, max: u64) {
        if !value
            .as_u64()
            .is_some_and(|number| (min..=max).contains(&number))
        {
            self.fault(format!("must be a whole number from {min} to {max}"));
        }
    }

    /// Up to `max` items of an array, each looked at under its own pointer.
    fn items(&mut self, value: &Value, max: usize, mut look: impl FnMut(&mut Self, &Value)) {
        let Value::Array(items) = value else {
            return self.fault("must be an array");
        };
        if items.len() > max {
            self.fault(format!("must have at most {max} items"));
        }
        for (index, item) in items.iter().take(max).enumerate() {
            self.at(&index.to_string(), |checker| look(checker, item));
        }
    }

    fn waits(&mut self, value: &Value) {
        let mut total = 0_u64;
        self.items(value, WAITS_MAX, |checker, wait| {
            checker.integer(wait, 0, WAIT_MS_MAX);
            total = total.saturating_add(wait.as_u64().unwrap_or(0));
        });
        if total > AGE_MS_MAX {
            self.fault(format!(
                "must be at most {AGE_MS_MAX} milliseconds together"
            ));
        }
    }

    fn types(&mut self, value: &Value) {
        if value.as_array().is_some_and(Vec::is_empty) {
            self.fault("must not be empty; leave it out for every type");
        }
        self.items(value, TYPES_MAX, |checker, ty| match ty.as_str() {
            Some("") => checker.fault("must not be empty"),
            Some(_) => {}
            None => checker.fault("must be a string"),
        });
    }

    /// Faults that somebody else found in the value that is looked at.
    fn faults_of(&mut self, found: Option<Faults>) {
        for fault in found.into_iter().flat_map(|faults| faults.0) {
            let length = self.pointer.len();
            self.pointer.push_str(&fault.pointer);
            self.fault(fault.detail);
            self.pointer.truncate(length);
        }
    }

    fn filters(&mut self, value: &Value) {
        for error in Filters::parse_all(value).err().into_iter().flatten() {
            let length = self.pointer.len();
            self.pointer.push_str(error.pointer());
            self.fault(error.fault().to_string());
            self.pointer.truncate(length);
        }
    }
}
