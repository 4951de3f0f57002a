//! Transforms by example: each step, the request, what is refused, and where it ends.

mod bounds;
mod refused;
mod request;
mod steps;
mod stored;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::resources::input::Faults;

const DATA: &str = r#"{"id": 9007199254740993123, "first": "Ada", "last": "L", "amount": 10.50, "tags": ["a", "b"],
    "lines": [{"sku": "x", "n": 1}, {"sku": "y"}, 3], "address": {"city": "Zürich", "zip": null}, "q": "a/b?c"}"#;

fn event_of(data: &'static str) -> Event {
    let event = Event::builder("e-1", "/leads", "lead.created")
        .attribute("subject", "l-1")
        .attribute("count", 7)
        .attribute("anabranchtenant", "acme");
    event
        .data("application/json", Bytes::from_static(data.as_bytes()))
        .build()
        .unwrap()
}

fn event() -> Event {
    event_of(DATA)
}

fn transform(value: &Value) -> Result<Transform, Faults> {
    Transform::read(value)
}

fn run(value: &Value, event: &Event) -> Result<Outcome, Failure> {
    let transform = transform(value).unwrap_or_else(|faults| panic!("{value}: {faults:?}"));
    Compiled::new(&transform).unwrap().run(event)
}

fn made(value: &Value, event: &Event) -> Made {
    match run(value, event) {
        Ok(Outcome::Made(made)) => *made,
        other => panic!("{value}: {other:?}"),
    }
}

fn data(made: &Made) -> String {
    let data = made.event.data().map(|data| data.to_vec());
    String::from_utf8(data.unwrap_or_default()).unwrap()
}

type Map = serde_json::Map<String, Value>;
