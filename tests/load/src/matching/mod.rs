//! Owns what matching is measured with: subscriptions of ten kinds, and events that as many of them
//! want as is asked for.
//!
//! It must never draw on chance: the same numbers are always the same world. The surprise: every
//! subscription of a group of ten looks at a value of its own, so that an event is wanted by none,
//! one or all ten of a group by which of its values name the group.

pub(crate) mod rivals;

use anyhow::Context as _;
use schemas::event::Event;
use schemas::filter::Filters;
use schemas::ids::{EndpointId, SubscriptionId};
use schemas::records::ControlObject;
use schemas::resources::{Placement, Quota, Subscription, SubscriptionState};
use serde_json::{Value, json};

/// Subscriptions of one group.
pub(crate) const GROUP: u32 = 10;
/// The type of every event.
pub(crate) const TYPE: &str = "com.example.order.updated";
/// Bytes of every payload.
pub(crate) const DATA_BYTES: usize = 900;

/// What subscriptions ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Exact attributes only.
    Exact,
    /// Exact, prefix, suffix, numeric, anything-but, wildcard, CESQL, data, pattern, list.
    Mixed,
}

impl Mix {
    /// Its name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Mixed => "mixed",
        }
    }
}

/// How many subscriptions there are, and whose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) mix: Mix,
    pub(crate) subscriptions: u32,
    pub(crate) tenants: u32,
}

/// Which of a group of ten want an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    None,
    One(u32),
    All,
}

impl Wanted {
    /// How many want it.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::All => 10,
        }
    }

    fn includes(self, kind: u32) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == kind,
            Self::All => true,
        }
    }
}

impl World {
    fn groups_of_tenant(self) -> u32 {
        (self.subscriptions / GROUP / self.tenants).max(1)
    }

    /// The name of the tenant of a group.
    pub(crate) fn tenant(self, group: u32) -> String {
        format!("tenant-{}", group / self.groups_of_tenant())
    }

    /// The filters of subscription `number`.
    pub(crate) fn filters(self, number: u32) -> Value {
        let (group, kind) = (number / GROUP, number % GROUP);
        let own = match self.mix {
            Mix::Exact => exact(group, kind),
            Mix::Mixed => mixed(group, kind),
        };
        match own {
            Value::Array(mut all) => {
                all.insert(0, json!({ "exact": { "type": TYPE } }));
                Value::Array(all)
            }
            one @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)) => json!([{ "exact": { "type": TYPE } }, one]),
        }
    }

    /// Subscription `number`.
    ///
    /// # Errors
    /// Where `schemas` refuses it.
    pub(crate) fn subscription(self, number: u32) -> anyhow::Result<ControlObject> {
        let endpoint = EndpointId::from_bits(u128::from(number) + (1 << 40));
        let partitions = std::num::NonZeroU32::new(48).context("no partitions")?;
        Ok(ControlObject::Subscription(Box::new(Subscription {
            id: SubscriptionId::from_bits(u128::from(number)),
            tenant: self.tenant(number / GROUP).parse()?,
            endpoint,
            placement: Placement::of(&Quota::of_endpoint(endpoint), partitions),
            name: None,
            filters: Filters::parse(&self.filters(number))?,
            request: None,
            hidden: false,
            state: SubscriptionState::Active,
            ordered: false,
            start: None,
            transform: None,
            created_at: 0,
            updated_at: 0,
        })))
    }

    /// Event `number`, wanted by `wanted` of one group.
    ///
    /// # Errors
    /// Where `schemas` refuses it.
    pub(crate) fn event(self, number: u32, wanted: Wanted) -> anyhow::Result<Event> {
        // Neighbours are of tenants far apart.
        let group = number.wrapping_mul(2_654_435_761) % (self.subscriptions / GROUP).max(1);
        let name = |kind: u32| match wanted.includes(kind) {
            true => group.to_string(),
            false => format!("none{number}"),
        };
        let subject = match (self.mix, wanted) {
            (Mix::Exact, Wanted::One(kind)) => format!("order-{group}-{kind}"),
            (Mix::Exact | Mix::Mixed, _) => format!("order-{}", name(0)),
        };
        let mut event = Event::builder(
            &format!("evt-{number}"),
            &format!("/shop/{}/eu", name(1)),
            TYPE,
        )
        .subject(&subject)
        .attribute("customer", &*format!("vip-c{}", name(2)))
        .attribute("channel", &*format!("web-{}", name(6)))
        .attribute("route", &*format!("eu.{number}.g{}", name(8)))
        .data("application/json", payload(number, group, name))
        .build()?;
        event.set_tenant(&self.tenant(group))?;
        Ok(event)
    }
}

/// Filters of attributes alone: no two of a group are the same.
fn exact(group: u32, kind: u32) -> Value {
    let of = |subject: String| json!({ "exact": { "subject": subject } });
    json!({ "any": [of(format!("order-{group}")), of(format!("order-{group}-{kind}"))] })
}

fn mixed(group: u32, kind: u32) -> Value {
    let data = |pointer: &str, tests: Value| json!({ "anabranch-data": { pointer: tests } });
    match kind {
        0 => json!({ "exact": { "subject": format!("order-{group}") } }),
        1 => json!({ "prefix": { "source": format!("/shop/{group}/") } }),
        2 => json!({ "suffix": { "customer": format!("-c{group}") } }),
        3 => data(
            "/total/amount",
            json!({ "gte": 100 * group, "lt": 100 * group + 100 }),
        ),
        4 => json!([
            data("/customer/id", json!({ "exact": format!("cust-{group}") })),
            data(
                "/status",
                json!({ "anything-but": ["cancelled", "refunded"] })
            ),
        ]),
        5 => data("/lines/sku", json!({ "wildcard": format!("*-{group}-x*") })),
        6 => json!({ "sql": format!("channel = 'web-{group}' AND id LIKE 'evt-%'") }),
        7 => data(
            "/customer/email",
            json!({ "exact": format!("user{group}@example.com") }),
        ),
        8 => json!({ "anabranch-glob": { "route": format!("eu.*.g{group}") } }),
        _ => data(
            "/warehouse",
            json!({ "in": [format!("wh-{group}"), format!("wh-{group}-b")] }),
        ),
    }
}

/// An order of [`DATA_BYTES`].
fn payload(number: u32, group: u32, name: impl Fn(u32) -> String) -> String {
    // Outside every range where nobody is to want it.
    let amount = match name(3).parse::<u32>() {
        Ok(_) => f64::from(100 * group) + 42.5,
        Err(_) => -1.5,
    };
    let head = format!(
        "{{\"order\":{number},\"status\":\"paid\",\"currency\":\"EUR\",\"total\":{{\"net\":{:.2},\
         \"vat\":19,\"amount\":{amount:.2}}},\"customer\":{{\"id\":\"cust-{}\",\"email\":\
         \"user{}@example.com\",\"name\":\"Zoë Müller\",\"address\":{{\"street\":\"Main \\\"old\\\" \
         road 7\",\"city\":\"Berlin\",\"country\":\"DE\",\"geo\":[52.5162,13.3777]}},\"newsletter\":\
         true,\"score\":null}},\"warehouse\":\"wh-{}\",\"lines\":[{{\"sku\":\"shoe-{}-x42\",\
         \"quantity\":1,\"price\":39.90,\"tags\":[\"sale\",\"red\"]}},{{\"sku\":\"sock-blue\",\
         \"quantity\":3,\"price\":4.5,\"tags\":[]}}],\"shipping\":{{\"method\":\"express\",\"days\":2}},\
         \"note\":\"",
        amount * 0.84,
        name(4),
        name(7),
        name(9),
        name(5),
    );
    let tail = "\",\"version\":3}";
    let fill = DATA_BYTES.saturating_sub(head.len() + tail.len());
    let words = "leave it at the door, please ring twice. ".chars().cycle();
    let note: String = words.take(fill).collect();
    format!("{head}{note}{tail}")
}

#[cfg(test)]
mod tests {
    use router::index::Index;

    use super::*;

    #[test]
    fn as_many_want_an_event_as_is_asked_for_and_rivals_agree() {
        for mix in [Mix::Exact, Mix::Mixed] {
            for tenants in [1, 10] {
                let world = World {
                    mix,
                    subscriptions: 100,
                    tenants,
                };
                let mut index = Index::new();
                for number in 0..world.subscriptions {
                    let object = world.subscription(number).unwrap();
                    index.apply(&object.key(), Some(&object));
                }
                let naive = rivals::Naive::of(world);
                let quamina = rivals::Patterns::of(world, std::time::Duration::MAX).unwrap();
                let kinds = (0..GROUP).map(Wanted::One);
                for (number, wanted) in
                    (0..).zip([Wanted::None, Wanted::All].into_iter().chain(kinds))
                {
                    let event = world.event(number, wanted).unwrap();
                    assert_eq!(event.data().unwrap().len(), DATA_BYTES);
                    let found = index.matches(&event).unwrap().places.len();
                    assert_eq!(found, wanted.count(), "{mix:?} {wanted:?} {event:?}");
                    assert_eq!(naive.count(&event), found, "{mix:?} {wanted:?}");
                    let whole = rivals::whole(&event);
                    assert_eq!(
                        quamina.count(whole.as_bytes()),
                        found,
                        "{mix:?} {wanted:?} {whole}"
                    );
                }
            }
        }
    }
}
