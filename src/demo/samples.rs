//! Owns the events that the demo publishes, and which departments want them.
//!
//! It must never hold anybody's real data: names, companies and shops are made up.

use anyhow::Context;
use schemas::ids::{DeliveryId, SubscriptionId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::publish::Item;

const SAMPLES: &str = include_str!("samples.ndjson");
const LEAD: &str = "com.example.crm.lead.created";
const OPPORTUNITY: &str = "com.example.crm.opportunity.changed";
const COHORTS: &str = "com.example.cohort.";
const WAREHOUSES: &str = "com.example.warehouse.";
const GITHUB: &str = "com.github.";

/// Who subscribes. A lead concerns all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Department {
    Sales,
    Marketing,
    Operations,
}

impl Department {
    pub(super) const ALL: [Self; 3] = [Self::Sales, Self::Marketing, Self::Operations];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sales => "sales",
            Self::Marketing => "marketing",
            Self::Operations => "operations",
        }
    }

    /// Its subscription's filters.
    pub(super) fn filters(self) -> Value {
        let lead = json!({"exact": {"type": LEAD}});
        let prefix = |prefix: &str| json!({"prefix": {"type": prefix}});
        let any = match self {
            Self::Sales => vec![lead, json!({"exact": {"type": OPPORTUNITY}})],
            Self::Marketing => vec![lead, prefix(COHORTS)],
            Self::Operations => vec![lead, prefix(WAREHOUSES), prefix(GITHUB)],
        };
        json!([{ "any": any }])
    }

    fn wants(self, ty: &str) -> bool {
        let own = match self {
            Self::Sales => ty == OPPORTUNITY,
            Self::Marketing => ty.starts_with(COHORTS),
            Self::Operations => ty.starts_with(WAREHOUSES) || ty.starts_with(GITHUB),
        };
        own || ty == LEAD
    }
}

/// One event of the demo.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) item: Item,
    source: String,
    pub(super) ty: String,
    id: String,
}

/// An event without what makes it unique.
#[derive(Debug, serde::Deserialize)]
struct Template<'a> {
    #[serde(rename = "type")]
    ty: String,
    source: String,
    subject: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// `count` events with ids that begin with `run`.
///
/// # Errors
/// None but in a binary whose samples are broken.
pub(super) fn events(count: usize, run: &str) -> anyhow::Result<Vec<Sample>> {
    let templates: Result<Vec<Template<'_>>, _> =
        SAMPLES.lines().map(serde_json::from_str).collect();
    let templates = templates.context("samples")?;
    let numbered = (1_u64..).zip(templates.iter().cycle()).take(count);
    Ok(numbered
        .map(|(number, template)| sample(number, template, run))
        .collect())
}

fn sample(number: u64, template: &Template<'_>, run: &str) -> Sample {
    let Template {
        ty,
        source,
        subject,
        data,
    } = template;
    let id = format!("{run}-{number}");
    let json = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"{source}\",\"type\":\"{ty}\",\
         \"subject\":\"{subject}\",\"datacontenttype\":\"application/json\",\"data\":{}}}",
        data.get()
    );
    let item = Item { line: number, json };
    Sample {
        item,
        source: source.clone(),
        ty: ty.clone(),
        id,
    }
}

impl Sample {
    /// The deliveries that it must come to: a pure function of event and subscription (rule 4).
    pub(super) fn deliveries(
        &self,
        subscriptions: &[(Department, SubscriptionId)],
    ) -> Vec<(Department, String)> {
        let wanted = subscriptions
            .iter()
            .filter(|(department, _)| department.wants(&self.ty));
        let id = |subscription| DeliveryId::of(&self.source, &self.id, subscription).to_string();
        wanted
            .map(|(department, subscription)| (*department, id(*subscription)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use schemas::filter::Filters;

    use super::*;

    #[test]
    fn every_sample_is_an_event_that_somebody_wants() {
        let subscriptions = Department::ALL.map(|department| {
            (
                department,
                SubscriptionId::from_bits(u128::from(department.name().len() as u64)),
            )
        });
        let events = events(30, "run").unwrap();
        assert_eq!(events.len(), 30);
        for event in &events {
            let json: Value = serde_json::from_str(&event.item.json).unwrap();
            assert_eq!(json["id"], event.id);
            let wanted = event.deliveries(&subscriptions).len();
            assert_eq!(wanted, if event.ty == LEAD { 3 } else { 1 }, "{}", event.ty);
        }
    }

    #[test]
    fn the_filters_are_ones_that_the_api_takes() {
        for department in Department::ALL {
            assert!(
                Filters::parse(&department.filters()).is_ok(),
                "{department:?}"
            );
        }
    }
}
