//! Owns the same work done by others: quamina on the whole event, and a hash map with a list of
//! subscriptions that are tried one by one on a parsed tree.
//!
//! It must never be given less to do: what a rival cannot say is said in its words where they mean
//! the same for these events, and left out of no count.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::time::Duration;

use foldhash::fast::RandomState;
use quamina::Quamina;
use schemas::event::Event;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{GROUP, Mix, TYPE, World};

/// The event as quamina is given it: one object.
pub(crate) fn whole(event: &Event) -> String {
    let mut text = String::from("{");
    let attributes = event
        .context()
        .map(|(context, text)| (context.name(), text));
    for (name, value) in attributes {
        text += &format!("\"{name}\":{},", Value::from(value));
    }
    for name in ["customer", "channel", "route", "anabranchtenant"] {
        let value = event.attribute(name).unwrap_or_default();
        text += &format!("\"{name}\":{},", Value::from(value));
    }
    let data = event.data().map(|data| String::from_utf8_lossy(data));
    text += &format!("\"data\":{}}}", data.unwrap_or_default());
    text
}

/// Quamina with the subscriptions of a world.
pub(crate) struct Patterns(Quamina<u32>);

impl Patterns {
    /// `None` where it takes longer than `patience`, refuses a pattern, or panics.
    pub(crate) fn of(world: World, patience: Duration) -> Option<Self> {
        let whole = || {
            let patterns = Self::build(world, patience)?;
            // The first event may be what shows that they are too many.
            patterns.count(b"{}");
            Some(patterns)
        };
        catch_unwind(whole).ok().flatten()
    }

    fn build(world: World, patience: Duration) -> Option<Self> {
        let start = Instant::now();
        let mut patterns = Quamina::new();
        for number in 0..world.subscriptions {
            let pattern = pattern(world, number).to_string();
            patterns.add_pattern(number, &pattern).ok()?;
            if start.elapsed() > patience {
                return None;
            }
        }
        Some(Self(patterns))
    }

    /// How many subscriptions want the event that [`whole`] has written.
    pub(crate) fn count(&self, event: &[u8]) -> usize {
        self.0
            .matches_for_event(event)
            .map_or(0, |found| found.len())
    }
}

/// A subscription as a pattern.
fn pattern(world: World, number: u32) -> Value {
    let (group, kind) = (number / GROUP, number % GROUP);
    let own = match (world.mix, kind) {
        (Mix::Exact, kind) => {
            json!({ "subject": [format!("order-{group}"), format!("order-{group}-{kind}")] })
        }
        (Mix::Mixed, 0) => json!({ "subject": [format!("order-{group}")] }),
        (Mix::Mixed, 1) => json!({ "source": [{ "prefix": format!("/shop/{group}/") }] }),
        (Mix::Mixed, 2) => json!({ "customer": [{ "suffix": format!("-c{group}") }] }),
        (Mix::Mixed, 3) => {
            let (low, high) = (100 * group, 100 * group + 100);
            json!({ "data": { "total": { "amount": [{ "numeric": [">=", low, "<", high] }] } } })
        }
        (Mix::Mixed, 4) => json!({ "data": {
            "customer": { "id": [format!("cust-{group}")] },
            "status": [{ "anything-but": ["cancelled", "refunded"] }],
        } }),
        (Mix::Mixed, 5) => {
            json!({ "data": { "lines": { "sku": [{ "wildcard": format!("*-{group}-x*") }] } } })
        }
        // It knows no CESQL; this means the same.
        (Mix::Mixed, 6) => {
            json!({ "channel": [format!("web-{group}")], "id": [{ "prefix": "evt-" }] })
        }
        (Mix::Mixed, 7) => {
            json!({ "data": { "customer": { "email": [format!("user{group}@example.com")] } } })
        }
        (Mix::Mixed, 8) => json!({ "route": [{ "wildcard": format!("eu.*.g{group}") }] }),
        (Mix::Mixed, _) => {
            json!({ "data": { "warehouse": [format!("wh-{group}"), format!("wh-{group}-b")] } })
        }
    };
    let mut all = json!({ "anabranchtenant": [world.tenant(group)], "type": [TYPE] });
    if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
        all.extend(own);
    }
    all
}

/// A hash look-up of tenant and type, then every subscription there on a parsed payload.
#[derive(Debug)]
pub(crate) struct Naive {
    mix: Mix,
    tenants: HashMap<String, HashMap<&'static str, Vec<Want>, RandomState>, RandomState>,
}

/// A subscription, with its texts made.
#[derive(Debug)]
struct Want {
    kind: u32,
    texts: [String; 2],
    low: f64,
}

impl Naive {
    pub(crate) fn of(world: World) -> Self {
        let mut tenants: HashMap<_, HashMap<_, Vec<_>, _>, _> = HashMap::default();
        for number in 0..world.subscriptions {
            let (group, kind) = (number / GROUP, number % GROUP);
            let types = tenants.entry(world.tenant(group)).or_default();
            types.entry(TYPE).or_default().push(Want {
                kind,
                texts: texts(world.mix, group, kind),
                low: f64::from(100 * group),
            });
        }
        Self {
            mix: world.mix,
            tenants,
        }
    }

    /// The subscriptions of the event's tenant and type.
    fn listed(&self, event: &Event) -> &[Want] {
        let types = event.tenant().and_then(|tenant| self.tenants.get(tenant));
        types
            .and_then(|types| types.get(event.ty()))
            .map_or(&[], Vec::as_slice)
    }

    /// The look-up alone.
    pub(crate) fn look_up(&self, event: &Event) -> usize {
        self.listed(event).len()
    }

    /// How many subscriptions want the event.
    pub(crate) fn count(&self, event: &Event) -> usize {
        let wants = self.listed(event);
        match self.mix {
            Mix::Exact => {
                let subject = event.subject().unwrap_or_default();
                let holds = |want: &&Want| want.texts.iter().any(|text| text == subject);
                wants.iter().filter(holds).count()
            }
            Mix::Mixed => {
                let data = event.data().map(|data| serde_json::from_slice(data));
                let Some(Ok(data)) = data else {
                    return 0;
                };
                wants.iter().filter(|want| want.holds(event, &data)).count()
            }
        }
    }
}

fn texts(mix: Mix, group: u32, kind: u32) -> [String; 2] {
    let one = |text: String| [text, String::new()];
    match (mix, kind) {
        (Mix::Exact, kind) => [format!("order-{group}"), format!("order-{group}-{kind}")],
        (Mix::Mixed, 0) => one(format!("order-{group}")),
        (Mix::Mixed, 1) => one(format!("/shop/{group}/")),
        (Mix::Mixed, 2) => one(format!("-c{group}")),
        (Mix::Mixed, 4) => one(format!("cust-{group}")),
        (Mix::Mixed, 5) => one(format!("-{group}-x")),
        (Mix::Mixed, 6) => one(format!("web-{group}")),
        (Mix::Mixed, 7) => one(format!("user{group}@example.com")),
        (Mix::Mixed, 8) => one(format!(".g{group}")),
        (Mix::Mixed, _) => [format!("wh-{group}"), format!("wh-{group}-b")],
    }
}

impl Want {
    fn holds(&self, event: &Event, data: &Value) -> bool {
        let [text, other] = &self.texts;
        let attribute = |name| event.attribute(name).unwrap_or_default();
        let at = |pointer: &str| data.pointer(pointer).and_then(Value::as_str);
        match self.kind {
            0 => attribute("subject") == text,
            1 => attribute("source").starts_with(text),
            2 => attribute("customer").ends_with(text),
            3 => data
                .pointer("/total/amount")
                .and_then(Value::as_f64)
                .is_some_and(|amount| amount >= self.low && amount < self.low + 100.0),
            4 => {
                at("/customer/id") == Some(text)
                    && at("/status")
                        .is_some_and(|status| status != "cancelled" && status != "refunded")
            }
            5 => data
                .pointer("/lines")
                .and_then(Value::as_array)
                .is_some_and(|lines| {
                    let mut skus = lines.iter().filter_map(|line| line.get("sku")?.as_str());
                    skus.any(|sku| sku.contains(text))
                }),
            6 => attribute("channel") == text && event.id().starts_with("evt-"),
            7 => at("/customer/email") == Some(text),
            8 => attribute("route").starts_with("eu.") && attribute("route").ends_with(text),
            _ => at("/warehouse").is_some_and(|house| house == text || house == other),
        }
    }
}
