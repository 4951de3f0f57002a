//! The specification's own test suite (cloudevents/spec, `cesql/cesql_tck`), as data in the folder
//! that `CESQL_TCK_DIR` names. Where the folder of no name is absent, that is said and nothing runs.

use std::borrow::Cow;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::*;
use crate::event::AttributeValue;

/// A case's event as it stands: the suite has a `time` that no valid event has.
struct AsWritten(Map<String, Json>);

impl Attributes for AsWritten {
    fn value<'a>(&'a self, name: &AttributeName) -> Option<Value<'a>> {
        Some(match self.0.get(name.as_str())? {
            Json::Bool(boolean) => Value::Boolean(*boolean),
            Json::Number(number) => Value::Integer(number.as_i64()?.try_into().unwrap()),
            Json::String(text) => Value::Text(Cow::Borrowed(text)),
            Json::Null | Json::Array(_) | Json::Object(_) => panic!("{name:?} is no attribute"),
        })
    }
}

impl AsWritten {
    fn of(case: &Json) -> Self {
        let any = json!({ "specversion": "1.0", "id": "any", "source": "/any", "type": "any" });
        let event = case.get("event").unwrap_or(&any);
        let mut attributes = event.as_object().unwrap().clone();
        let overrides = case.get("eventOverrides").and_then(Json::as_object);
        attributes.extend(overrides.cloned().unwrap_or_default());
        Self(attributes)
    }

    /// The same as an event, where it is a valid one.
    fn event(&self) -> Option<Event> {
        let mut builder = crate::event::Builder::new();
        for (name, value) in &self.0 {
            let value = match value {
                Json::Bool(boolean) => AttributeValue::Boolean(*boolean),
                Json::Number(number) => AttributeValue::Integer(number.as_i64()?.try_into().ok()?),
                Json::String(text) => AttributeValue::String(text),
                Json::Null | Json::Array(_) | Json::Object(_) => panic!("{name:?} is no attribute"),
            };
            builder.set(name, value).ok()?;
        }
        builder.build().ok()
    }
}

fn kind(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::Math(_) => "math",
        EvaluationError::Cast(..) => "cast",
        EvaluationError::MissingAttribute(_) => "missingAttribute",
        EvaluationError::MissingFunction(..) => "missingFunction",
        EvaluationError::FunctionEvaluation(..) => "functionEvaluation",
        EvaluationError::TooMuchWork => "generic",
    }
}

fn as_json(value: &Value<'_>) -> Json {
    match value {
        Value::Boolean(boolean) => json!(boolean),
        Value::Integer(integer) => json!(integer),
        Value::Text(text) => json!(text),
    }
}

/// What is wrong with the case, if anything is.
fn run(case: &Json) -> Result<(), String> {
    // The suite's files have some that are read as booleans and numbers.
    let text = &case["expression"];
    let text = text
        .as_str()
        .map_or_else(|| text.to_string(), str::to_owned);
    let wanted = case.get("error").and_then(Json::as_str);
    let expression = match Expression::parse(&text) {
        Ok(expression) => expression,
        Err(_) if wanted == Some("parse") => return Ok(()),
        Err(error) => return Err(format!("{text}: {error}")),
    };
    let attributes = AsWritten::of(case);
    let found = expression.evaluate_on(&attributes);
    let kinds: Vec<_> = found.errors.iter().map(kind).collect();
    let fails_so = match wanted {
        Some(wanted) => kinds.contains(&wanted),
        None => kinds.is_empty(),
    };
    let value = as_json(&found.value);
    if !fails_so || case.get("result").is_some_and(|result| *result != value) {
        return Err(format!("{text}: {value} and {kinds:?} instead of {case}"));
    }
    if expression.matches_on(&attributes) != found.is_match() {
        return Err(format!("{text}: a filter has another opinion"));
    }
    match attributes.event() {
        Some(event) if expression.evaluate(&event) != found => {
            Err(format!("{text}: a real event is another thing"))
        }
        Some(_) | None => Ok(()),
    }
}

fn cases(folder: &Path) -> Vec<Json> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    let read = |path: &PathBuf| -> Vec<Json> {
        let file: Json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        file["tests"].as_array().unwrap().clone()
    };
    files.iter().flat_map(read).collect()
}

/// Says that the suite did not run, past the capture of tests' output: `./test` lists it.
fn not_run(why: &str) {
    let line = format!("not run: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("ANABRANCH_NOT_RUN") {
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn the_specifications_suite_passes() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("CESQL_TCK_DIR");
    let usual = || "../shared/conformance/cesql".into();
    let folder = workspace.join(named.clone().unwrap_or_else(usual));
    if named.is_none() && !folder.exists() {
        return not_run(&format!("CESQL's suite: {} is absent", folder.display()));
    }
    let cases = cases(&folder);
    assert!(!cases.is_empty(), "{} has no cases", folder.display());
    let wrong: Vec<_> = cases.iter().filter_map(|case| run(case).err()).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
