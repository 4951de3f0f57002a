//! Owns the reading of a grammar that somebody wrote: every fault with a JSON pointer to it.
//!
//! Never stops at the first fault, and refuses members that it does not know.

use serde_json::{Map, Value};

use super::{
    CODES_MAX, Error, LISTS_MAX, Pointer, ResponseGrammar, STATUSES_MAX, StatusRange,
    TEXT_CHARS_MAX,
};
use crate::resources::input::{FAULTS_MAX, Fault, Faults};

/// The most values that say that an item succeeded.
const VALUES_MAX: usize = 20;

impl ResponseGrammar {
    /// Reads the grammar that `value` is.
    ///
    /// # Errors
    /// Everything that is wrong with it, with pointers relative to `value`.
    pub fn read(value: &Value) -> Result<Self, Faults> {
        let mut reader = Reader::default();
        reader.grammar(value);
        reader.finish()?;
        // What passed every check is a grammar; anything else is our fault, said and not hidden.
        serde_json::from_value(value.clone())
            .map_err(|error| Faults::one("", format!("cannot be read: {error}")))
    }
}

/// Walks through a value and notes its faults.
#[derive(Default)]
pub(crate) struct Reader {
    pointer: String,
    faults: Vec<Fault>,
}

impl Reader {
    pub(crate) fn finish(self) -> Result<(), Faults> {
        match self.faults.is_empty() {
            true => Ok(()),
            false => Err(Faults(self.faults)),
        }
    }

    pub(crate) fn fault(&mut self, detail: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault {
                pointer: self.pointer.clone(),
                detail: detail.into(),
            });
        }
    }

    pub(crate) fn at(&mut self, step: &str, look: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        let step: String = step.chars().take(64).collect();
        self.pointer
            .push_str(&step.replace('~', "~0").replace('/', "~1"));
        look(self);
        self.pointer.truncate(length);
    }

    pub(crate) fn object<'v>(
        &mut self,
        value: &'v Value,
        known: &[&str],
    ) -> Option<&'v Map<String, Value>> {
        let Value::Object(members) = value else {
            self.fault("must be an object");
            return None;
        };
        for name in members
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
        {
            self.at(name, |reader| reader.fault("is not a known member"));
        }
        Some(members)
    }

    pub(super) fn grammar(&mut self, value: &Value) {
        const POINTERS: [&str; 4] = ["received", "accepted", "rejected", "item_id"];
        let known = [
            "status", "retry", "lists", "received", "accepted", "rejected", "item_id",
        ];
        let Some(members) = self.object(value, &known) else {
            return;
        };
        if let Some(statuses) = members.get("status") {
            self.at("status", |reader| reader.statuses(statuses));
        }
        if let Some(retry) = members.get("retry") {
            self.at("retry", |reader| reader.success(retry));
        }
        for name in POINTERS {
            self.pointer_in(members, name);
        }
        if let Some(lists) = members.get("lists") {
            self.at("lists", |reader| {
                reader.items(lists, LISTS_MAX, Self::list);
            });
        }
    }

    fn statuses(&mut self, value: &Value) {
        let Value::Object(statuses) = value else {
            return self.fault("must be an object");
        };
        if statuses.len() > STATUSES_MAX {
            self.fault(format!("must have at most {STATUSES_MAX} members"));
        }
        for (status, meaning) in statuses.iter().take(STATUSES_MAX) {
            self.at(status, |reader| {
                if let Err(error) = status.parse::<StatusRange>() {
                    reader.fault(error.to_string());
                }
                reader.one_of(meaning, &["delivered", "retry", "rejected"]);
            });
        }
    }

    fn list(&mut self, value: &Value) {
        let known = [
            "at",
            "holds",
            "success",
            "index",
            "id",
            "code",
            "default_code",
            "retryable",
        ];
        let Some(members) = self.object(value, &known) else {
            return;
        };
        if !members.contains_key("at") {
            self.at("at", |reader| reader.fault("is required"));
        }
        for name in ["at", "index", "id", "code"] {
            self.pointer_in(members, name);
        }
        if let Some(holds) = members.get("holds") {
            self.at("holds", |reader| reader.one_of(holds, &["failed", "each"]));
        }
        if let Some(success) = members.get("success") {
            self.at("success", |reader| reader.success(success));
        }
        if let Some(code) = members.get("default_code") {
            self.at("default_code", |reader| reader.text(code));
        }
        if let Some(codes) = members.get("retryable") {
            self.at("retryable", |reader| {
                reader.items(codes, CODES_MAX, Self::text);
            });
        }
    }

    fn success(&mut self, value: &Value) {
        let Some(members) = self.object(value, &["at", "values"]) else {
            return;
        };
        for name in ["at", "values"] {
            if !members.contains_key(name) {
                self.at(name, |reader| reader.fault("is required"));
            }
        }
        self.pointer_in(members, "at");
        if let Some(values) = members.get("values") {
            self.at("values", |reader| {
                reader.items(values, VALUES_MAX, |reader, value| {
                    if value.is_array() || value.is_object() {
                        reader.fault("must be a string, a number, a boolean or null");
                    } else if value.is_string() {
                        reader.text(value);
                    }
                });
            });
        }
    }

    pub(crate) fn items(&mut self, value: &Value, max: usize, look: impl Fn(&mut Self, &Value)) {
        let Value::Array(items) = value else {
            return self.fault("must be an array");
        };
        if items.len() > max {
            self.fault(format!("must have at most {max} items"));
        }
        for (index, item) in items.iter().take(max).enumerate() {
            self.at(&index.to_string(), |reader| look(reader, item));
        }
    }

    pub(super) fn pointer_in(&mut self, members: &Map<String, Value>, name: &str) {
        let Some(value) = members.get(name) else {
            return;
        };
        self.at(name, |reader| match value.as_str().map(Pointer::try_new) {
            Some(Ok(_)) => {}
            Some(Err(error)) => reader.fault(error.to_string()),
            None => reader.fault("must be a string"),
        });
    }

    pub(crate) fn one_of(&mut self, value: &Value, texts: &[&str]) {
        match value.as_str() {
            Some(text) if texts.contains(&text) => {}
            Some(_) => self.fault(format!("must be one of {}", texts.join(", "))),
            None => self.fault("must be a string"),
        }
    }

    pub(super) fn text(&mut self, value: &Value) {
        match value.as_str() {
            Some(text) if text.chars().count() > TEXT_CHARS_MAX => {
                self.fault(Error::Long.to_string());
            }
            Some(_) => {}
            None => self.fault("must be a string"),
        }
    }
}
