//! Owns the checking of a body against its table, and the merging of patches.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::members::{
    self, AGE_MS_MAX, Kind, Member, Members, TYPES_MAX, URL_CHARS_MAX, WAIT_MS_MAX, WAITS_MAX,
};
use super::{FAULTS_MAX, Fault, Faults, Fields, UrlPolicy};
use crate::filter::Filters;
use crate::ids::{EndpointId, TenantId};

const SECRET_PREFIX: &str = "whsec_";

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
        let given = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
        if given("types") && given("filters") {
            self.at("types", |checker| {
                checker.fault("cannot be given beside `filters`")
            });
        }
    }

    fn member(&mut self, member: &Member, value: Option<&Value>) {
        if self.patching && member.fixed.is_some() {
            return;
        }
        self.at(member.name, |checker| match value {
            Some(value) if !value.is_null() => checker.value(member.kind, value),
            Some(_) | None if member.required => checker.fault("is required"),
            Some(_) | None => {}
        });
    }

    fn value(&mut self, kind: Kind, value: &Value) {
        match kind {
            Kind::Integer { min, max } => self.integer(value, min, max),
            Kind::Waits => self.waits(value),
            Kind::Types => self.types(value),
            Kind::Filters => self.filters(value),
            Kind::Object(members) => self.object(members, value),
            Kind::Text { .. }
            | Kind::Slug
            | Kind::EndpointId
            | Kind::Url
            | Kind::Secret
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

    fn text(&mut self, kind: Kind, text: &str) {
        let wrong = match kind {
            Kind::Text { max_chars } => plain_text(text, max_chars).err(),
            Kind::Slug => text
                .parse::<TenantId>()
                .err()
                .map(|error| error.to_string()),
            Kind::EndpointId => text
                .parse::<EndpointId>()
                .err()
                .map(|error| error.to_string()),
            Kind::Url if text.len() > URL_CHARS_MAX => {
                Some(format!("must be at most {URL_CHARS_MAX} characters"))
            }
            Kind::Url => self
                .policy
                .check(text)
                .err()
                .map(|refusal| refusal.to_string()),
            Kind::Secret => secret(text).err(),
            Kind::OneOf(texts) if texts.contains(&text) => None,
            Kind::OneOf(texts) => Some(format!("must be one of {}", texts.join(", "))),
            Kind::Integer { .. } | Kind::Waits | Kind::Types | Kind::Filters | Kind::Object(_) => {
                None
            }
        };
        if let Some(wrong) = wrong {
            self.fault(wrong);
        }
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

    fn filters(&mut self, value: &Value) {
        if let Err(error) = Filters::parse(value) {
            let length = self.pointer.len();
            self.pointer.push_str(error.pointer());
            self.fault(error.fault().to_string());
            self.pointer.truncate(length);
        }
    }
}

fn plain_text(text: &str, max_chars: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().count() > max_chars {
        return Err(format!("must be at most {max_chars} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(())
}

/// WH-5. The message never quotes the text.
fn secret(text: &str) -> Result<(), String> {
    let bytes = text
        .strip_prefix(SECRET_PREFIX)
        .and_then(|text| STANDARD.decode(text).ok());
    match bytes.map(|bytes| bytes.len()) {
        Some(24..=64) => Ok(()),
        Some(length) => Err(format!("must have 24 to 64 bytes, got {length}")),
        None => Err("must be `whsec_` and standard base64".to_owned()),
    }
}
