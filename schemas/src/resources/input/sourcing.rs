//! Owns what clients say of sources.
//!
//! A source that passes can make events: each expression can give something under its format. The
//! surprise: topic, tenant and start never change, since ids of events come from the topic and what
//! was routed belongs to the tenant.

use serde_json::{Map, Value};

use super::{Fault, Faults, Fields, SOURCE, UrlPolicy, check, document, unreadable};
use crate::event::Event;
use crate::filter::extract::is_pointer;
use crate::ids::TenantId;
use crate::resources::{
    EventExpressions, Expression, SOURCE_WEIGHT, Source, SourceFormat, SourceStart,
};
use crate::source::TEXT_BYTES_MAX;

/// Kafka's own bound.
const TOPIC_CHARS_MAX: usize = 249;
/// The longest pointer.
const POINTER_CHARS_MAX: usize = 1_024;
/// The longest name of a record's header.
const HEADER_CHARS_MAX: usize = 255;

/// What is said of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInput {
    /// The topic's full name.
    pub topic: String,
    /// The tenant of every event in it.
    pub tenant: TenantId,
    /// A name for people.
    pub name: Option<String>,
    /// What its records are.
    pub format: SourceFormat,
    /// Where the attributes of its events come from.
    pub event: EventExpressions,
    /// Where the array is that is split.
    pub split: Option<String>,
    /// Where reading begins.
    pub start: SourceStart,
    /// Turns beside other sources.
    pub weight: u8,
}

impl SourceInput {
    /// Reads the body of a source, but for what depends on other objects.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(body: &Value) -> Result<Self, Faults> {
        let fields = check::create(SOURCE, body, &UrlPolicy::default())?;
        let topic = fields.value("topic").ok_or_else(unreadable)?;
        let tenant = fields.value("tenant").ok_or_else(unreadable)?;
        let start = fields.value("start").unwrap_or_default();
        Self::of(&fields, (topic, tenant), start)
    }

    /// What `source` becomes by a merge patch. An expression in it replaces the one before.
    ///
    /// # Errors
    /// Everything that is wrong with the patch or its result.
    pub fn patched(source: &Source, patch: &Value) -> Result<Self, Faults> {
        let mut document = document(SOURCE, source);
        forget_replaced(&mut document, patch);
        let fields = check::patch(SOURCE, document, patch, &UrlPolicy::default())?;
        let place = (source.topic.clone(), source.tenant.clone());
        Self::of(&fields, place, source.start)
    }

    fn of(
        fields: &Fields,
        (topic, tenant): (String, TenantId),
        start: SourceStart,
    ) -> Result<Self, Faults> {
        let input = Self {
            topic,
            tenant,
            name: fields.value("name"),
            format: fields.value("format").ok_or_else(unreadable)?,
            event: fields.value("event").unwrap_or_default(),
            split: fields.value("split"),
            start,
            weight: fields.value("weight").unwrap_or(SOURCE_WEIGHT),
        };
        let faults = input.contradictions();
        if faults.is_empty() {
            Ok(input)
        } else {
            Err(Faults(faults))
        }
    }

    /// The source that this makes.
    #[must_use]
    pub fn build(self, id: crate::ids::SourceId, created_at: i64, updated_at: i64) -> Source {
        Source {
            id,
            tenant: self.tenant,
            topic: self.topic,
            name: self.name,
            format: self.format,
            event: self.event,
            split: self.split,
            start: self.start,
            weight: self.weight,
            created_at,
            updated_at,
        }
    }

    /// What its members are to each other that they must not be.
    fn contradictions(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |pointer: &str, detail: &str| {
            faults.push(Fault {
                pointer: pointer.to_owned(),
                detail: detail.to_owned(),
            });
        };
        if self.split.is_some() && self.format != SourceFormat::Json {
            fault("/split", "needs `format` to be json");
        }
        for (name, expression) in self.event.named() {
            let Some(expression) = expression else {
                continue;
            };
            if let Err(detail) = self.suits(name, expression) {
                fault(&format!("/event/{name}"), &detail);
            }
        }
        let needs_type = matches!(self.format, SourceFormat::Json | SourceFormat::Opaque);
        if needs_type && self.event.ty.is_none() {
            fault("/event/type", "is required where the format names no type");
        }
        faults
    }

    fn suits(&self, name: &str, expression: &Expression) -> Result<(), String> {
        if self.format == SourceFormat::CloudEvents {
            return Err("a cloudevent says it itself".to_owned());
        }
        match expression {
            Expression::Pointer(_) | Expression::Record(_) if !self.format.is_json() => {
                Err("needs `format` to be json or debezium".to_owned())
            }
            Expression::Constant(_) if name == "id" => {
                Err("must not be a constant: every event has its own id".to_owned())
            }
            Expression::Constant(text) => constant(name, text),
            Expression::Pointer(_)
            | Expression::Record(_)
            | Expression::Header(_)
            | Expression::Key => Ok(()),
        }
    }
}

/// A constant must be what the attribute can be.
fn constant(name: &str, text: &str) -> Result<(), String> {
    let event = match name {
        "type" => Event::builder("1", "/s", text),
        "source" => Event::builder("1", text, "t"),
        "key" => Event::builder("1", "/s", "t").attribute("partitionkey", text),
        _ => Event::builder("1", "/s", "t").attribute(name, text),
    };
    event
        .build()
        .map(drop)
        .map_err(|error| error.fault().to_string())
}

/// Members of an expression do not merge: it says one thing.
fn forget_replaced(document: &mut Map<String, Value>, patch: &Value) {
    let Some(Value::Object(old)) = document.get_mut("event") else {
        return;
    };
    for name in patch
        .get("event")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys)
    {
        old.remove(name);
    }
}

/// Checks the name of a topic.
pub(super) fn topic(text: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=TOPIC_CHARS_MAX).contains(&text.len()) || !text.bytes().all(is_legal) {
        return Err(format!(
            "must be 1 to {TOPIC_CHARS_MAX} characters of a-z, A-Z, 0-9, `.`, `_` and `-`"
        ));
    }
    if text == "." || text == ".." || text.starts_with("__") {
        return Err("must not be a topic of Kafka's own".to_owned());
    }
    Ok(())
}

/// Checks a JSON pointer.
pub(super) fn pointer(text: &str) -> Result<(), String> {
    if text.len() <= POINTER_CHARS_MAX && is_pointer(text) {
        Ok(())
    } else {
        Err("must be a json pointer, empty or beginning with `/`".to_owned())
    }
}

/// Checks an expression.
pub(super) fn expression(value: &Value) -> Result<(), Faults> {
    let read: Expression = serde_json::from_value(value.clone())
        .map_err(|_| Faults::one("", crate::resources::NotAnExpression.to_string()))?;
    let at = |name: &str, checked: Result<(), String>| {
        checked.map_err(|detail| Faults::one(format!("/{name}"), detail))
    };
    match &read {
        Expression::Constant(text) => at("constant", sized(text, TEXT_BYTES_MAX)),
        Expression::Header(name) => at("header", sized(name, HEADER_CHARS_MAX)),
        Expression::Key => Ok(()),
        Expression::Pointer(text) => at("pointer", pointer(text)),
        Expression::Record(text) => at("record", pointer(text)),
    }
}

fn sized(text: &str, max: usize) -> Result<(), String> {
    if (1..=max).contains(&text.len()) {
        Ok(())
    } else {
        Err(format!("must have 1 to {max} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::SourceId;

    fn body(more: &Value) -> Value {
        let mut body = json!({
            "topic": "shop.orders", "tenant": "acme", "format": "json",
            "event": { "type": { "constant": "order" } },
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    fn pointers(faults: Faults) -> Vec<String> {
        faults.0.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let check = |more: Value, expected: &[&str]| {
            let read = SourceInput::read(&body(&more)).map(drop).map_err(pointers);
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            let expected = if expected.is_empty() {
                Ok(())
            } else {
                Err(expected)
            };
            assert_eq!(read, expected, "{more}");
        };
        check(json!({}), &[]);
        for topic in ["", "..", "a b", "__consumer_offsets", &"x".repeat(250)] {
            check(json!({ "topic": topic }), &["/topic"]);
        }
        check(json!({ "tenant": "A" }), &["/tenant"]);
        check(json!({ "format": "avro" }), &["/format"]);
        check(json!({ "start": "now" }), &["/start"]);
        check(json!({ "weight": 0 }), &["/weight"]);
        check(json!({ "weight": 101 }), &["/weight"]);
        check(json!({ "split": "items" }), &["/split"]);
        check(json!({ "split": "" }), &[]);
        check(json!({ "event": {} }), &["/event/type"]);
        check(json!({ "event": { "type": "order" } }), &["/event/type"]);
        check(
            json!({ "event": { "type": { "pointer": "kind" } } }),
            &["/event/type/pointer"],
        );
        check(
            json!({ "event": { "type": { "key": true }, "other": { "key": true } } }),
            &["/event/other"],
        );
        let with = |name: &str, expression: Value| json!({ "event": { "type": { "key": true }, name: expression } });
        check(with("id", json!({ "constant": "1" })), &["/event/id"]);
        check(
            with("source", json!({ "constant": "a b" })),
            &["/event/source"],
        );
        check(with("time", json!({ "constant": "now" })), &["/event/time"]);
        check(
            with("subject", json!({ "constant": "a\u{7}" })),
            &["/event/subject"],
        );
        check(
            with("subject", json!({ "header": "" })),
            &["/event/subject/header"],
        );
        check(with("time", json!({ "record": "/at" })), &[]);
    }

    #[test]
    fn each_format_has_its_own_expressions() {
        let check = |format: &str, event: Value, expected: &[&str]| {
            let body = json!({ "topic": "t", "tenant": "acme", "format": format, "event": event });
            let read = SourceInput::read(&body).map(drop).map_err(pointers);
            let found = read.err().unwrap_or_default();
            assert_eq!(found, expected, "{body}");
        };
        check("cloudevents", json!({}), &[]);
        check(
            "cloudevents",
            json!({ "key": { "key": true } }),
            &["/event/key"],
        );
        check("opaque", json!({}), &["/event/type"]);
        check(
            "opaque",
            json!({ "type": { "constant": "t" }, "subject": { "pointer": "/a" } }),
            &["/event/subject"],
        );
        check("opaque", json!({ "type": { "header": "kind" } }), &[]);
        check(
            "debezium",
            json!({ "subject": { "pointer": "/after/id" } }),
            &[],
        );
        let split = json!({ "topic": "t", "tenant": "acme", "format": "debezium", "split": "/a" });
        assert_eq!(pointers(SourceInput::read(&split).unwrap_err()), ["/split"]);
    }

    #[test]
    fn a_patch_replaces_expressions_and_keeps_what_is_fixed() {
        let more = json!({ "split": "/items", "start": "earliest" });
        let made = SourceInput::read(&body(&more)).unwrap();
        let source = made.clone().build(SourceId::from_bits(1), 5, 5);
        let patch = json!({ "event": { "type": { "pointer": "/kind" } }, "split": null });
        let patched = SourceInput::patched(&source, &patch).unwrap();
        let expected = SourceInput {
            split: None,
            event: EventExpressions {
                ty: Some(Expression::Pointer("/kind".to_owned())),
                ..EventExpressions::default()
            },
            ..made
        };
        assert_eq!(patched, expected);
        for fixed in ["topic", "tenant", "start"] {
            let patch = json!({ fixed: "latest" });
            let refused = SourceInput::patched(&source, &patch).unwrap_err();
            assert_eq!(pointers(refused), [format!("/{fixed}")]);
        }
        let none = json!({ "event": { "type": null } });
        let refused = SourceInput::patched(&source, &none).unwrap_err();
        assert_eq!(pointers(refused), ["/event/type"]);
    }
}
