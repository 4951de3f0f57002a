//! Owns what goes together in one request: how many deliveries, which come apart again after a
//! rejection, and what an answer says of each.
//!
//! Pure: it never sends. The surprise: a rejected request says nothing of its single items, so it
//! is sent again in two halves, until the culprit is alone; what is in a half that is taken was
//! sent successfully once only.

use schemas::event::Event;
use schemas::ids::DeliveryId;
use schemas::profile::{CHUNK_TYPE, ItemVerdict, Judged, Meaning, ResponseGrammar, judge};
use schemas::resources::{Batch, BatchFormat, BodyMode};

use crate::delivery::Answer;
use crate::delivery::classify::{Reason, Verdict};
use crate::delivery::request::{EncodedBody, array_item_bytes, encode_batch};
use crate::work::Delivery;

/// What an answer means for the deliveries of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// For all of them.
    Whole(Verdict),
    /// For each, in order.
    Items(Vec<Verdict>),
}

/// What may still join a unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    items: usize,
    bytes: usize,
    format: BatchFormat,
}

impl Room {
    /// The room beside `unit` under `batch`, where a request may hold at most `items_max`.
    pub(crate) fn beside(unit: &Delivery, batch: &Batch, items_max: usize) -> Self {
        let most = usize::try_from(batch.max_items.get()).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(batch.max_bytes.get()).unwrap_or(usize::MAX);
        let items = most.min(items_max).saturating_sub(unit.company.len() + 1);
        let mut room = Self {
            items: if unit.is_piece || is_chunk(unit) {
                0
            } else {
                items
            },
            bytes: 0,
            format: batch.format,
        };
        if room.items > 0 {
            room.bytes = bytes_max.saturating_sub(unit_bytes(unit, batch.format));
        }
        room
    }

    /// Whether nothing more may join, as far as numbers say.
    pub(crate) fn is_full(self) -> bool {
        self.items == 0
    }

    /// Takes the room that `next` needs beside `unit`, if it may join and there is enough.
    pub(crate) fn take(&mut self, unit: &Delivery, next: &Delivery) -> bool {
        let may = next.target.endpoint == unit.target.endpoint
            && !next.is_piece
            && next.company.is_empty()
            && !is_chunk(next)
            && self.items > 0;
        let bytes = if may {
            item_bytes(next, self.format)
        } else {
            0
        };
        if !may || bytes > self.bytes {
            return false;
        }
        self.items -= 1;
        self.bytes -= bytes;
        true
    }
}

/// A chunk is a request of its own, whatever the endpoint takes together.
fn is_chunk(delivery: &Delivery) -> bool {
    event(delivery).ty() == CHUNK_TYPE
}

/// Names a request: a delivery's own id where it is alone, else a pure function of the ids of all,
/// so that it is the same when the same ones are sent again (WH-1).
pub(crate) fn id(unit: &Delivery) -> DeliveryId {
    let mut ids: Vec<DeliveryId> = unit.items().map(own_id).collect();
    match ids.as_slice() {
        [alone] => *alone,
        _ => {
            ids.sort_unstable();
            DeliveryId::of_batch(&ids)
        }
    }
}

pub(crate) fn own_id(delivery: &Delivery) -> DeliveryId {
    delivery.loaded.record.delivery_id(&delivery.target)
}

/// The request's body: each event's own bytes, written once for all attempts (rule 9).
pub(crate) fn body(unit: &Delivery, format: BatchFormat) -> EncodedBody {
    match format {
        BatchFormat::CloudEvents => {
            let items = unit.items().map(structured).map(|body| body.bytes.as_ref());
            encode_batch(structured(unit), items)
        }
        BatchFormat::Array => {
            let items: Vec<_> = unit
                .items()
                .map(|item| array_item_bytes(item.event()))
                .collect();
            let items = items.iter().map(AsRef::as_ref);
            encode_batch(as_body(unit, BodyMode::StandardWebhooks), items)
        }
    }
}

fn structured(delivery: &Delivery) -> &EncodedBody {
    as_body(delivery, BodyMode::Structured)
}

/// The event as a body: what its transform made is in the form that the batch wants already.
fn as_body(delivery: &Delivery, mode: BodyMode) -> &EncodedBody {
    match &delivery.sent {
        Some(sent) => &sent.body,
        None => delivery.loaded.body(mode),
    }
}

fn event(delivery: &Delivery) -> &Event {
    delivery.event()
}

/// How many of `items`, from the first, go in one request.
pub(crate) fn how_many_fit(items: &[Delivery], batch: &Batch) -> usize {
    let bytes_max = usize::try_from(batch.max_bytes.get()).unwrap_or(usize::MAX);
    let mut bytes = 1;
    let fit = items.iter().take_while(|item| {
        bytes += item_bytes(item, batch.format);
        bytes <= bytes_max
    });
    fit.count()
}

fn item_bytes(delivery: &Delivery, format: BatchFormat) -> usize {
    let bytes = match format {
        BatchFormat::CloudEvents => structured(delivery).bytes.len(),
        // Text and base64 are longer than their data: a third and the quotes.
        BatchFormat::Array => event(delivery).data().map_or(4, |data| {
            let is_json = event(delivery).has_valid_json();
            if is_json {
                data.len()
            } else {
                data.len() * 2 + 4
            }
        }),
    };
    bytes + 1
}

fn unit_bytes(unit: &Delivery, format: BatchFormat) -> usize {
    1 + unit
        .items()
        .map(|item| item_bytes(item, format))
        .sum::<usize>()
}

/// What `answer` says of the deliveries of `unit`; `verdict` is what its status says.
pub(crate) fn said(
    unit: &Delivery,
    grammar: Option<&ResponseGrammar>,
    answer: &Answer,
    verdict: Verdict,
) -> Said {
    let (Some(grammar), Ok(response)) = (grammar, answer) else {
        return Said::Whole(verdict);
    };
    let ids: Vec<String> = unit.items().map(|item| item_id(item, grammar)).collect();
    let sent: Vec<&str> = ids.iter().map(String::as_str).collect();
    match judge(grammar, response.status, &response.body, &sent) {
        Judged::Items(items) => Said::Items(items.iter().map(item_verdict).collect()),
        Judged::Whole(None) => Said::Whole(verdict),
        Judged::Whole(Some(meaning)) => Said::Whole(meant(meaning, verdict)),
    }
}

/// The verdict on a request that a grammar gives this meaning, and its status alone `verdict`.
pub(crate) fn meant(meaning: Meaning, verdict: Verdict) -> Verdict {
    let reason = verdict.reason().unwrap_or(Reason::Item);
    match (meaning, verdict) {
        (Meaning::Delivered, _) => Verdict::Delivered,
        (Meaning::Rejected, _) => Verdict::Rejected { reason },
        (Meaning::Retry, Verdict::Retry { .. }) => verdict,
        (Meaning::Retry, Verdict::Delivered | Verdict::Rejected { .. } | Verdict::EndpointGone) => {
            again(reason)
        }
    }
}

/// The id by which the partner knows an item.
fn item_id(item: &Delivery, grammar: &ResponseGrammar) -> String {
    let event = event(item);
    let own = || event.id().to_owned();
    let (Some(at), true) = (&grammar.item_id, grammar.names_ids()) else {
        return own();
    };
    let data = event.data().map(AsRef::as_ref).unwrap_or_default();
    let data: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    match at.find(&data) {
        Some(serde_json::Value::String(id)) => id.clone(),
        Some(serde_json::Value::Number(id)) => id.to_string(),
        Some(_) | None => own(),
    }
}

fn item_verdict(item: &ItemVerdict) -> Verdict {
    match item {
        ItemVerdict::Delivered => Verdict::Delivered,
        ItemVerdict::Retry(_) => again(Reason::Item),
        ItemVerdict::Rejected(_) => Verdict::Rejected {
            reason: Reason::Item,
        },
        // Rule 15: what is not said to be delivered is not.
        ItemVerdict::Unknown => again(Reason::NotSaid),
    }
}

fn again(reason: Reason) -> Verdict {
    Verdict::Retry {
        reason,
        retry_after: None,
        costs_attempt: true,
    }
}

/// The two halves of a unit that was rejected as a whole; `None` where one is alone.
pub(crate) fn halves(unit: Delivery) -> Option<[Delivery; 2]> {
    let mut items = unit.into_items();
    let behind = items.split_off(items.len() / 2);
    let piece = |items: Vec<Delivery>| {
        let mut unit = Delivery::together(items)?;
        unit.is_piece = true;
        Some(unit)
    };
    Some([piece(items)?, piece(behind)?])
}

#[cfg(test)]
mod tests;
