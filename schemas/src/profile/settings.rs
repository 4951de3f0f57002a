//! Owns what a sync says to a profile: its settings, and the partner's list where there is one.
//!
//! Whatever passes here can be rendered: every request is tried out with the settings before a sync
//! is made of them.

use serde_json::{Map, Value};

use super::template::Compiled;
use super::{AuthenticationKind, OperationKind, Profile};
use crate::resources::Authentication;
use crate::resources::input::{Fault, Faults};

/// The setting that names the partner's list; the one that may change later.
pub const LIST_NAME: &str = "name";
/// The longest text of a setting.
const SETTING_CHARS_MAX: usize = 1_000;
/// The longest id of a partner's list.
const LIST_CHARS_MAX: usize = 200;

impl Profile {
    /// Checks what a sync says: `variables` and `list`, with pointers to them.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_settings(
        &self,
        variables: &Map<String, Value>,
        list: Option<&str>,
    ) -> Result<(), Faults> {
        let mut faults = Vec::new();
        self.missing(variables, &mut faults);
        for (name, value) in variables {
            if let Some(detail) = self.wrong(name, value) {
                faults.push(setting(name, detail));
            }
        }
        if let Some(detail) = list.and_then(|list| self.wrong_list(list)) {
            faults.push(fault("/list", detail));
        }
        if faults.is_empty() {
            faults.extend(self.unsendable(variables, list));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Faults(faults)),
        }
    }

    /// Whether the name of the partner's list can be changed.
    #[must_use]
    pub fn can_rename(&self) -> bool {
        self.operations.rename_list.is_some() && self.variables.contains_key(LIST_NAME)
    }

    fn missing(&self, variables: &Map<String, Value>, faults: &mut Vec<Fault>) {
        let required = self.variables.iter().filter(|(_, known)| known.required);
        for (name, known) in required.filter(|(name, _)| !variables.contains_key(*name)) {
            let (title, example) = (&known.title, &known.example);
            let detail = format!("is required by {}: {title}, e.g. {example}", self.profile);
            faults.push(setting(name, detail));
        }
    }

    fn wrong(&self, name: &str, value: &Value) -> Option<String> {
        let Some(known) = self.variables.get(name) else {
            let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", known.join(", ")),
            };
            return Some(format!("is no setting of {}: {known}", self.profile));
        };
        let long = value
            .as_str()
            .is_some_and(|text| text.chars().count() > SETTING_CHARS_MAX);
        if long {
            return Some(format!("must be at most {SETTING_CHARS_MAX} characters"));
        }
        let (given, wanted) = (kind(value), kind(&known.example));
        (given != wanted).then(|| format!("must be {wanted}, e.g. {}", known.example))
    }

    fn wrong_list(&self, list: &str) -> Option<String> {
        if self.operations.create_list.is_none() {
            return Some(format!("cannot be said: {} has no lists", self.profile));
        }
        let length = list.chars().count();
        let fits = (1..=LIST_CHARS_MAX).contains(&length) && !list.chars().any(char::is_control);
        (!fits)
            .then(|| format!("must be 1 to {LIST_CHARS_MAX} characters, and no control characters"))
    }

    /// What goes wrong when every request is rendered once with these settings.
    fn unsendable(&self, variables: &Map<String, Value>, list: Option<&str>) -> Option<Fault> {
        let error = self.rendered(variables, list).err()?;
        let by_list = list.is_some() && self.rendered(variables, None).is_ok();
        let pointer = if by_list { "/list" } else { "/variables" };
        Some(fault(pointer, format!("makes no request: {error}")))
    }

    fn rendered(&self, variables: &Map<String, Value>, list: Option<&str>) -> Result<(), String> {
        let joined = |Faults(faults): Faults| {
            let details = faults.into_iter().map(|fault| fault.detail);
            details.collect::<Vec<_>>().join("; ")
        };
        let compiled = Compiled::new(self.operations.clone()).map_err(joined)?;
        let bytes_max = usize::try_from(self.limits.bytes.get()).unwrap_or(usize::MAX);
        for (kind, _) in self.operations.all() {
            let mut chunk = self.sample_chunk(kind).map_err(joined)?;
            chunk
                .variables
                .retain(|name, _| !self.variables.contains_key(name));
            chunk.variables.extend(variables.clone());
            if let Some(list) = list.filter(|_| kind != OperationKind::CreateList) {
                chunk.list = Value::from(list);
            }
            let rendered = compiled.render(&chunk, bytes_max);
            rendered.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl AuthenticationKind {
    /// Which one it is.
    pub fn of<S>(authentication: &Authentication<S>) -> Self {
        match authentication {
            Authentication::Basic { .. } => Self::Basic,
            Authentication::Bearer { .. } => Self::Bearer,
            Authentication::ApiKey { .. } => Self::ApiKey,
            Authentication::Oauth2(_) => Self::Oauth2,
        }
    }

    /// The word for it in files and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::ApiKey => "api_key",
            Self::Oauth2 => "oauth2",
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn setting(name: &str, detail: String) -> Fault {
    let name: String = name.chars().take(64).collect();
    let pointer = format!("/variables/{}", name.replace('~', "~0").replace('/', "~1"));
    Fault { pointer, detail }
}

fn fault(pointer: &str, detail: String) -> Fault {
    Fault {
        pointer: pointer.to_owned(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::profile::ready;

    fn profile(id: &str) -> Profile {
        Profile::from_yaml(ready(id).unwrap()).unwrap()
    }

    #[track_caller]
    fn check(id: &str, variables: &Value, list: Option<&str>, expected: &[&str]) {
        let found = profile(id).check_settings(variables.as_object().unwrap(), list);
        let faults = found.err().map_or_else(Vec::new, |faults| faults.0);
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(pointers, expected, "{id} {variables} {list:?}: {faults:?}");
    }

    #[test]
    fn settings_are_those_that_the_profile_names() {
        let braze = json!({ "attribute": "cohorts", "cohort": "vip" });
        check("braze-users-track", &braze, None, &[]);
        check(
            "braze-users-track",
            &json!({ "cohort": 7, "a/b": "x" }),
            None,
            &[
                "/variables/attribute",
                "/variables/cohort",
                "/variables/a~1b",
            ],
        );
        let long = json!({ "name": "x".repeat(SETTING_CHARS_MAX + 1) });
        check("generic-50", &long, None, &["/variables/name"]);
    }

    #[test]
    fn what_a_template_needs_and_nobody_says_is_a_fault() {
        check("generic-50", &json!({}), None, &["/variables"]);
        check("generic-50", &json!({ "name": "VIP" }), None, &[]);
    }

    #[test]
    fn a_list_is_one_that_the_partner_could_know() {
        let name = json!({ "name": "VIP" });
        check("iterable", &name, Some("1234"), &[]);
        check("iterable", &name, Some("VIP"), &["/list"]);
        check("generic-50", &name, Some(""), &["/list"]);
        let braze = json!({ "attribute": "cohorts", "cohort": "vip" });
        check("braze-users-track", &braze, Some("1"), &["/list"]);
    }

    #[test]
    fn every_ready_profile_takes_its_own_examples() {
        for (id, _) in crate::profile::READY {
            let known = profile(id);
            let examples = known.variables.iter();
            let variables = examples
                .map(|(name, variable)| (name.clone(), variable.example.clone()))
                .collect::<Map<_, _>>();
            check(id, &Value::from(variables), None, &[]);
        }
    }
}
