//! Owns what a source is: a topic of somebody else's whose records become events of one tenant, and
//! how.
//!
//! It never says how a record is read: that is `crate::source`. The surprise: what an event's
//! attributes come from has a place of its own (`event`), since a source has an `id` and a `source`
//! of another kind.

use serde::{Deserialize, Serialize};

use crate::ids::{SourceId, TenantId};

/// The turns that a source gets beside others where nobody says it.
pub const SOURCE_WEIGHT: u8 = 10;
/// The most turns.
pub const SOURCE_WEIGHT_MAX: u8 = 100;

/// A topic that exists already, read as events of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// The tenant of every event in it, whatever a record says.
    pub tenant: TenantId,
    /// The topic's full name.
    pub topic: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its records are.
    pub format: SourceFormat,
    /// Where an event's attributes come from.
    #[serde(default, skip_serializing_if = "EventExpressions::is_empty")]
    pub event: EventExpressions,
    /// JSON pointer to an array in a record, each item of which is an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Where reading begins.
    #[serde(default)]
    pub start: SourceStart,
    /// Turns beside other sources, 1 to [`SOURCE_WEIGHT_MAX`].
    #[serde(default = "weight")]
    pub weight: u8,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

fn weight() -> u8 {
    SOURCE_WEIGHT
}

/// What the records of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceFormat {
    /// CloudEvents in either mode of the Kafka binding (CE-17).
    CloudEvents,
    /// JSON documents.
    Json,
    /// Bytes that nobody looks into.
    Opaque,
    /// Changes of a database's rows, in Debezium's envelope.
    Debezium,
}

impl SourceFormat {
    /// Every format's name.
    pub const NAMES: &'static [&'static str] = &["cloudevents", "json", "opaque", "debezium"];

    /// Whether there is JSON to point into.
    #[must_use]
    pub const fn is_json(self) -> bool {
        match self {
            Self::Json | Self::Debezium => true,
            Self::CloudEvents | Self::Opaque => false,
        }
    }
}

/// Where the reading of a source begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceStart {
    /// At the first record that is as new as the source.
    #[default]
    Latest,
    /// At the first record that the topic still has.
    Earliest,
}

/// Where the attributes of a source's events come from; `None` for the format's own way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventExpressions {
    /// `type`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub ty: Option<Expression>,
    /// `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Expression>,
    /// `subject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Expression>,
    /// `partitionkey`: events of one key are ordered where a subscription asks for it (rule 12).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Expression>,
    /// `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Expression>,
}

impl EventExpressions {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named().all(|(_, expression)| expression.is_none())
    }

    /// Each with its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Option<&Expression>)> {
        [
            ("type", self.ty.as_ref()),
            ("source", self.source.as_ref()),
            ("subject", self.subject.as_ref()),
            ("key", self.key.as_ref()),
            ("id", self.id.as_ref()),
            ("time", self.time.as_ref()),
        ]
        .into_iter()
    }
}

/// Where one attribute's text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Said", try_from = "Said")]
pub enum Expression {
    /// Always this text: `{"constant": …}`.
    Constant(String),
    /// A header of the record: `{"header": …}`.
    Header(String),
    /// The record's key: `{"key": true}`.
    Key,
    /// A place in the event's data (RFC 6901): `{"pointer": …}`.
    Pointer(String),
    /// A place in the whole record, of which the data is one item: `{"record": …}`.
    Record(String),
}

/// An expression as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    constant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

/// Says what an expression is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be one of {{\"constant\": text}}, {{\"header\": name}}, {{\"key\": true}}, \
     {{\"pointer\": json pointer}}, {{\"record\": json pointer}}"
)]
pub struct NotAnExpression;

impl TryFrom<Said> for Expression {
    type Error = NotAnExpression;

    fn try_from(said: Said) -> Result<Self, NotAnExpression> {
        let Said {
            constant,
            header,
            key,
            pointer,
            record,
        } = said;
        let key = match key {
            Some(true) => Some(Self::Key),
            Some(false) => return Err(NotAnExpression),
            None => None,
        };
        let mut all = [
            constant.map(Self::Constant),
            header.map(Self::Header),
            key,
            pointer.map(Self::Pointer),
            record.map(Self::Record),
        ]
        .into_iter()
        .flatten();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) | (None, _) => Err(NotAnExpression),
        }
    }
}

impl From<Expression> for Said {
    fn from(expression: Expression) -> Self {
        let mut said = Self::default();
        match expression {
            Expression::Constant(text) => said.constant = Some(text),
            Expression::Header(name) => said.header = Some(name),
            Expression::Key => said.key = Some(true),
            Expression::Pointer(pointer) => said.pointer = Some(pointer),
            Expression::Record(pointer) => said.record = Some(pointer),
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_expression_says_one_thing() {
        let read = |value: &Value| serde_json::from_value::<Expression>(value.clone()).ok();
        let good = [
            (json!({"constant": "a"}), Expression::Constant("a".into())),
            (json!({"header": "h"}), Expression::Header("h".into())),
            (json!({"key": true}), Expression::Key),
            (json!({"pointer": "/a"}), Expression::Pointer("/a".into())),
            (json!({"record": ""}), Expression::Record(String::new())),
        ];
        for (value, expression) in good {
            assert_eq!(serde_json::to_value(&expression).unwrap(), value);
            assert_eq!(read(&value), Some(expression));
        }
        for bad in [
            json!({}),
            json!({"key": false}),
            json!({"key": true, "constant": "a"}),
            json!({"pointer": "/a", "record": "/b"}),
            json!({"constant": 1}),
            json!({"other": "a"}),
            json!("a"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}
