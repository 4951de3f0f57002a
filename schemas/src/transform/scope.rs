//! Owns what templates of a transform see: `event`, its attributes, and `data`, its payload.
//!
//! The payload is parsed when a template looks at it and not before, once. Our own attributes are
//! not seen. The surprise: data that is no JSON is a fault only where somebody looks.

use std::sync::{Arc, OnceLock};

use minijinja::value::{Enumerator, Object};
use minijinja::{Error, ErrorKind, Value};

use crate::event::{AttributeValue, Event, is_reserved};
use crate::profile::template::filters::{WORK, Work};

/// The names that templates may use.
pub(super) const NAMES: [&str; 2] = ["event", "data"];

/// What one event's templates see.
#[derive(Debug)]
pub(super) struct Scope {
    event: Event,
    attributes: Value,
    data: OnceLock<Value>,
    work: Value,
}

/// The attributes of an event, with their types.
#[derive(Debug)]
struct Attributes(Event);

impl Scope {
    pub(super) fn new(event: &Event, work_bytes_max: usize) -> Self {
        Self {
            event: event.clone(),
            attributes: Value::from_object(Attributes(event.clone())),
            data: OnceLock::new(),
            work: Value::from_object(Work::of(work_bytes_max)),
        }
    }

    fn parsed(&self) -> Value {
        let Some(data) = self.event.data() else {
            return Value::UNDEFINED;
        };
        let wrong =
            |detail: &'static str| Value::from(Error::new(ErrorKind::BadSerialization, detail));
        if !self.event.data_is_json() {
            return wrong("the event's data is no JSON");
        }
        // What the parser says of a place, it says of somebody's data.
        serde_json::from_slice(data)
            .unwrap_or_else(|_| wrong("the event's data is no JSON, or is nested too deep"))
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "event" => Some(self.attributes.clone()),
            "data" => {
                let data = self.data.get_or_init(|| self.parsed());
                (!data.is_undefined()).then(|| data.clone())
            }
            WORK => Some(self.work.clone()),
            _ => None,
        }
    }
}

impl Object for Attributes {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str().filter(|name| !is_reserved(name))?;
        match self.0.extension(name) {
            Some(AttributeValue::Boolean(value)) => Some(Value::from(value)),
            Some(AttributeValue::Integer(value)) => Some(Value::from(value)),
            Some(
                AttributeValue::String(_)
                | AttributeValue::Binary(_)
                | AttributeValue::Uri(_)
                | AttributeValue::UriRef(_)
                | AttributeValue::Timestamp(_),
            )
            | None => self.0.attribute(name).map(Value::from),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let context = self.0.context().map(|(context, _)| context.name());
        let extensions = self.0.extensions().map(|(name, _)| name);
        let names = context.chain(extensions).filter(|name| !is_reserved(name));
        Enumerator::Values(names.map(Value::from).collect())
    }
}
