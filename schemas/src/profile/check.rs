//! Owns the reading of a profile that somebody wrote: every fault with a JSON pointer to it.
//!
//! Never stops at the first fault of the form, and refuses members that it does not know. Templates
//! are compiled, and rendered once over sample members, so that what cannot work is refused before
//! anybody publishes it. The surprise: the file is YAML and is checked as the JSON that it means, so
//! that an API may take either.

use bytes::Bytes;
use jiff::civil::Date;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::identity::IDENTITY_MAX;
use super::read::Reader;
use super::template::Compiled;
use super::{Chunk, ChunkData, OperationKind, Profile, units};
use crate::resources::input::{Fault, Faults, header_name};

/// The longest profile file.
pub const PROFILE_BYTES_MAX: usize = 256 * 1_024;
/// The most windows of one profile.
const WINDOWS_MAX: usize = 4;
/// The most headers of one operation.
const HEADERS_MAX: usize = 16;
/// The most captures of one operation.
const CAPTURES_MAX: usize = 16;
/// The most values that say how a job fares.
const VALUES_MAX: usize = 20;
/// The most settings of a sync that a profile names.
const VARIABLES_MAX: usize = 32;
/// The longest name.
const NAME_CHARS_MAX: usize = 64;

impl Profile {
    /// Reads a profile from its file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with pointers into the file.
    pub fn from_yaml(text: &str) -> Result<Self, Faults> {
        if text.len() > PROFILE_BYTES_MAX {
            let detail = format!("must be at most {PROFILE_BYTES_MAX} bytes");
            return Err(Faults::one("", detail));
        }
        let value = serde_saphyr::from_str::<Value>(text)
            .map_err(|error| Faults::one("", format!("is no YAML: {error}")))?;
        Self::read(&value)
    }

    /// Reads the profile that `value` is.
    ///
    /// # Errors
    /// Everything that is wrong with it, with pointers relative to `value`.
    pub fn read(value: &Value) -> Result<Self, Faults> {
        let mut reader = Reader::default();
        reader.profile(value);
        reader.finish()?;
        // What passed every check is a profile; anything else is our fault, said and not hidden.
        let profile: Self = serde_json::from_value(value.clone())
            .map_err(|error| Faults::one("", format!("cannot be read: {error}")))?;
        profile.try_out()?;
        Ok(profile)
    }

    /// Two members as they are uploaded, prepared for the partner: what the file says a member
    /// looks like, and the same with another id.
    ///
    /// # Errors
    /// When the partner would refuse them.
    pub fn sample_members(&self) -> Result<Vec<Map<String, Value>>, Faults> {
        let members = ["member-1", "member-2"].into_iter().map(|id| {
            let mut member = self.sample.clone();
            member.insert("id".to_owned(), Value::from(id));
            self.prepare(member)
        });
        members
            .collect::<Result<_, _>>()
            .map_err(|reject| Faults::one("/sample", reject.to_string()))
    }

    /// A chunk for trying an operation out.
    ///
    /// # Errors
    /// When the partner would refuse the sample members.
    pub fn sample_chunk(&self, kind: OperationKind) -> Result<Chunk, Faults> {
        let mut members = match kind.has_members() {
            true => self.sample_members()?,
            false => Vec::new(),
        };
        if kind == OperationKind::Remove {
            // Of one who left nothing else is kept.
            let known_by = self.known_by();
            let is_kept = |name: &String| name == "id" || known_by.contains(&name.as_str());
            for member in &mut members {
                member.retain(|name, _| is_kept(name));
            }
        }
        let raw: Vec<Box<RawValue>> = members
            .iter()
            .filter_map(|member| serde_json::value::to_raw_value(member).ok())
            .collect();
        let examples = self.variables.iter();
        let mut variables: Map<String, Value> = examples
            .map(|(name, variable)| (name.clone(), variable.example.clone()))
            .collect();
        for (_, operation) in self.operations.all() {
            for name in operation.capture.keys().filter(|name| *name != "list") {
                variables
                    .entry(name.clone())
                    .or_insert_with(|| Value::from("captured-1"));
            }
        }
        let data = ChunkData {
            operation: kind,
            list: if kind == OperationKind::CreateList {
                Value::Null
            } else {
                self.sample_list()
            },
            variables,
            members: raw.iter().map(AsRef::as_ref).collect(),
        };
        Chunk::read(&Bytes::from(data.encode()))
            .map_err(|error| Faults::one("/sample", error.to_string()))
    }

    fn sample_list(&self) -> Value {
        match self.operations.create_list {
            Some(_) => Value::from("1000001"),
            None => Value::Null,
        }
    }

    /// Renders every request once: a template that cannot work is refused here.
    fn try_out(&self) -> Result<(), Faults> {
        let compiled = Compiled::new(self.operations.clone()).map_err(|Faults(faults)| {
            let within = |fault: Fault| Fault {
                pointer: format!("/operations{}", fault.pointer),
                ..fault
            };
            Faults(faults.into_iter().map(within).collect())
        })?;
        let bytes_max = usize::try_from(self.limits.bytes.get()).unwrap_or(usize::MAX);
        let mut faults = Vec::new();
        for (kind, operation) in self.operations.all() {
            let chunk = self.sample_chunk(kind)?;
            let detail = match compiled.render(&chunk, bytes_max) {
                Err(error) => error.to_string(),
                Ok(rendered) => {
                    let body = rendered.body.unwrap_or_else(|| b"null".to_vec());
                    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&body);
                    match json {
                        Err(error) if operation.is_json() => format!("body makes no JSON: {error}"),
                        Ok(_) | Err(_) => continue,
                    }
                }
            };
            let pointer = format!("/operations/{kind}");
            faults.push(Fault { pointer, detail });
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Faults(faults)),
        }
    }
}

impl Reader {
    fn profile(&mut self, value: &Value) {
        let known = [
            "profile",
            "version",
            "title",
            "documentation",
            "api",
            "sunset",
            "notes",
            "identity",
            "require_any",
            "variables",
            "sample",
            "limits",
            "authentication",
            "operations",
            "simulator",
        ];
        let required = [
            "profile",
            "version",
            "title",
            "documentation",
            "limits",
            "operations",
        ];
        let Some(members) = self.object_with(value, &known, &required) else {
            return;
        };
        self.look_at(members, "profile", Self::slug);
        self.look_at(members, "version", Self::positive);
        for name in ["title", "api"] {
            self.look_at(members, name, Self::text);
        }
        self.look_at(members, "notes", Self::words);
        self.look_at(members, "documentation", Self::web_page);
        self.look_at(members, "sunset", Self::date);
        self.look_at(members, "identity", |reader, list| {
            reader.items(list, IDENTITY_MAX, Self::identity);
        });
        self.look_at(members, "require_any", |reader, list| {
            reader.items(list, IDENTITY_MAX, Self::field);
        });
        self.look_at(members, "variables", Self::variables);
        self.look_at(members, "sample", |reader, sample| {
            if !sample.is_object() {
                reader.fault("must be an object");
            }
        });
        self.look_at(members, "limits", Self::limits);
        self.look_at(members, "authentication", |reader, list| {
            reader.items(list, 4, |reader, kind| {
                reader.one_of(kind, &["basic", "bearer", "api_key", "oauth2"]);
            });
        });
        self.look_at(members, "operations", Self::operations);
        self.look_at(members, "simulator", Self::simulator);
    }

    fn identity(&mut self, value: &Value) {
        let known = ["field", "normalise", "hash", "required"];
        let Some(members) = self.object_with(value, &known, &["field"]) else {
            return;
        };
        self.look_at(members, "field", Self::field);
        self.look_at(members, "normalise", |reader, list| {
            reader.items(list, 8, |reader, step| {
                reader.one_of(
                    step,
                    &["trim", "lower", "upper", "e164", "digits", "no_space"],
                );
            });
        });
        self.look_at(members, "hash", |reader, hash| {
            reader.one_of(hash, &["sha256"])
        });
        self.look_at(members, "required", Self::flag);
    }

    fn variables(&mut self, value: &Value) {
        let Some(variables) = self.map_of(value, VARIABLES_MAX) else {
            return;
        };
        for (name, variable) in variables {
            self.at(name, |reader| {
                let known = ["title", "example", "required"];
                let required = ["title", "example"];
                if let Some(members) = reader.object_with(variable, &known, &required) {
                    reader.look_at(members, "title", Self::text);
                    reader.look_at(members, "required", Self::flag);
                }
            });
        }
    }

    fn limits(&mut self, value: &Value) {
        let known = ["items", "bytes", "concurrency", "windows", "quota"];
        let Some(members) = self.object_with(value, &known, &["items", "bytes"]) else {
            return;
        };
        self.look_at(members, "items", |reader, items| {
            let most = super::CHUNK_ITEMS_MAX as u64;
            if !items
                .as_u64()
                .is_some_and(|items| (1..=most).contains(&items))
            {
                reader.fault(format!("must be a number from 1 to {most}"));
            }
        });
        self.look_at(members, "bytes", |reader, bytes| {
            if units::bytes_of(bytes).is_none() {
                reader.fault(units::BYTES);
            }
        });
        self.look_at(members, "concurrency", Self::positive);
        self.look_at(members, "windows", Self::windows);
        self.look_at(members, "quota", Self::text);
    }

    fn windows(&mut self, value: &Value) {
        self.items(value, WINDOWS_MAX, |reader, window| {
            let known = ["requests", "items", "seconds", "counted"];
            let Some(members) = reader.object_with(window, &known, &["seconds"]) else {
                return;
            };
            for name in ["requests", "items", "seconds"] {
                reader.look_at(members, name, Self::positive);
            }
            if members.contains_key("requests") == members.contains_key("items") {
                reader.fault("must say either `requests` or `items`");
            }
            reader.look_at(members, "counted", |reader, counted| {
                reader.one_of(counted, &["sliding", "fixed", "spread"]);
            });
        });
    }

    fn operations(&mut self, value: &Value) {
        let known = OperationKind::ALL.map(OperationKind::as_str);
        let Some(members) = self.object_with(value, &known, &["add", "remove"]) else {
            return;
        };
        for (name, operation) in members
            .iter()
            .filter(|(name, _)| known.contains(&name.as_str()))
        {
            self.at(name, |reader| match name.as_str() {
                "poll" => reader.poll(operation),
                _ => reader.operation(operation),
            });
        }
    }

    fn operation(&mut self, value: &Value) {
        let known = [
            "method", "items", "path", "headers", "body", "answer", "capture",
        ];
        let Some(members) = self.object_with(value, &known, &[]) else {
            return;
        };
        self.look_at(members, "method", |reader, method| {
            reader.one_of(method, &["GET", "POST", "PUT", "PATCH", "DELETE"]);
        });
        self.look_at(members, "items", Self::positive);
        for name in ["path", "body"] {
            self.look_at(members, name, |reader, text| {
                if !text.is_string() {
                    reader.fault("must be a string");
                }
            });
        }
        self.look_at(members, "headers", Self::headers);
        self.look_at(members, "answer", Self::grammar);
        self.look_at(members, "capture", |reader, captures| {
            let Some(captures) = reader.map_of(captures, CAPTURES_MAX) else {
                return;
            };
            for name in captures.keys() {
                reader.pointer_in(captures, name);
            }
        });
    }

    fn headers(&mut self, value: &Value) {
        let Some(headers) = self.map_of(value, HEADERS_MAX) else {
            return;
        };
        for (name, text) in headers {
            self.at(name, |reader| {
                let lower = name.to_ascii_lowercase();
                match lower.as_str() {
                    "content-type" => {}
                    "authorization" | "cookie" => reader.fault("is the endpoint's to say"),
                    _ => {
                        if let Err(detail) = header_name(name) {
                            reader.fault(detail);
                        }
                    }
                }
                if !text.is_string() {
                    reader.fault("must be a string");
                }
            });
        }
    }

    fn poll(&mut self, value: &Value) {
        let known = ["request", "every", "until", "done", "failed", "windows"];
        let required = ["request", "every", "done", "failed"];
        let Some(members) = self.object_with(value, &known, &required) else {
            return;
        };
        self.look_at(members, "request", Self::operation);
        for name in ["every", "until"] {
            self.look_at(members, name, |reader, time| {
                if units::seconds_of(time).is_none() {
                    reader.fault(units::SECONDS);
                }
            });
        }
        for name in ["done", "failed"] {
            self.look_at(members, name, |reader, says| {
                if let Some(members) =
                    reader.object_with(says, &["at", "values"], &["at", "values"])
                {
                    reader.pointer_in(members, "at");
                    reader.look_at(members, "values", |reader, values| {
                        reader.items(values, VALUES_MAX, |_, _| {});
                    });
                }
            });
        }
        self.look_at(members, "windows", Self::windows);
    }

    fn simulator(&mut self, value: &Value) {
        let known = [
            "items",
            "remove_items",
            "id",
            "status",
            "answer",
            "rejected",
            "retry",
            "job_seconds",
        ];
        let Some(members) = self.object_with(value, &known, &["items"]) else {
            return;
        };
        for name in ["items", "remove_items", "id"] {
            self.pointer_in(members, name);
        }
        for name in ["rejected", "retry"] {
            self.look_at(members, name, Self::text);
        }
        self.look_at(members, "status", |reader, status| {
            if !status
                .as_u64()
                .is_some_and(|status| (200..300).contains(&status))
            {
                reader.fault("must be a status from 200 to 299");
            }
        });
        self.look_at(members, "job_seconds", |reader, seconds| {
            if seconds
                .as_u64()
                .is_none_or(|seconds| u32::try_from(seconds).is_err())
            {
                reader.fault("must be a number of seconds");
            }
        });
    }

    fn object_with<'v>(
        &mut self,
        value: &'v Value,
        known: &[&str],
        required: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let members = self.object(value, known)?;
        for name in required.iter().filter(|name| !members.contains_key(**name)) {
            self.at(name, |reader| reader.fault("is required"));
        }
        Some(members)
    }

    fn map_of<'v>(&mut self, value: &'v Value, max: usize) -> Option<&'v Map<String, Value>> {
        let Value::Object(members) = value else {
            self.fault("must be an object");
            return None;
        };
        if members.len() > max {
            self.fault(format!("must have at most {max} members"));
            return None;
        }
        Some(members)
    }

    pub(crate) fn look_at(
        &mut self,
        members: &Map<String, Value>,
        name: &str,
        look: impl FnOnce(&mut Self, &Value),
    ) {
        if let Some(value) = members.get(name) {
            self.at(name, |reader| look(reader, value));
        }
    }

    fn slug(&mut self, value: &Value) {
        let is_slug = value.as_str().is_some_and(|text| {
            let is_plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=NAME_CHARS_MAX).contains(&text.len())
                && text.bytes().all(is_plain)
                && !text.starts_with('-')
                && !text.ends_with('-')
        });
        if !is_slug {
            self.fault(format!(
                "must be 1 to {NAME_CHARS_MAX} lower-case letters, digits and `-`"
            ));
        }
    }

    fn field(&mut self, value: &Value) {
        let fits = |text: &str| (1..=NAME_CHARS_MAX).contains(&text.chars().count());
        if !value.as_str().is_some_and(fits) {
            self.fault(format!(
                "must be a field's name of 1 to {NAME_CHARS_MAX} characters"
            ));
        }
    }

    fn positive(&mut self, value: &Value) {
        let fits = |number: u64| number > 0 && u32::try_from(number).is_ok();
        if !value.as_u64().is_some_and(fits) {
            self.fault(format!("must be a number from 1 to {}", u32::MAX));
        }
    }

    fn flag(&mut self, value: &Value) {
        if !value.is_boolean() {
            self.fault("must be true or false");
        }
    }

    fn words(&mut self, value: &Value) {
        if value.as_str().is_none_or(|text| text.len() > 4_096) {
            self.fault("must be a string of at most 4096 bytes");
        }
    }

    fn web_page(&mut self, value: &Value) {
        let is_page = |text: &str| {
            url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "https" | "http"))
        };
        if !value.as_str().is_some_and(is_page) {
            self.fault("must be the URL of a web page");
        }
    }

    fn date(&mut self, value: &Value) {
        if value
            .as_str()
            .is_none_or(|text| text.parse::<Date>().is_err())
        {
            self.fault("must be a date, e.g. 2027-01-31");
        }
    }
}
