//! Owns how a delivery's turn becomes a request: its own body, a batch's, or what its subscription's
//! templates or its transform make of it.
//!
//! Never runs beside the engine: senders do it. The bytes that are signed here are the ones that are
//! sent (rule 9).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use schemas::ids::DeliveryId;

use crate::batch;
use crate::delivery::request::{Attempt, EncodedBody, encode_rendered, headers_for_attempt};
use crate::delivery::sending::Authorization;
use crate::delivery::template::{Asked, Requests, method};
use crate::delivery::{
    Destination, OutgoingRequest, TransportError, TransportErrorKind, kept_bytes,
};
use crate::endpoints::Target;
use crate::work::Delivery;

/// What is sent, its id, and how it becomes a request where its subscription says so.
pub(super) type Own<'a> = (&'a Delivery, DeliveryId, Option<&'a Arc<Requests>>);

/// What goes where, before it is signed.
struct Draft<'a> {
    method: Method,
    destination: Arc<Destination>,
    body: Cow<'a, EncodedBody>,
    items: usize,
    asked: Option<Asked>,
}

/// The request of an attempt, `made` of the time and of randomness; of a chunk also what it asks.
pub(super) fn prepare(
    (delivery, id, requests): Own<'_>,
    target: &Target,
    (wall, (span_id, trace)): (i64, (u64, u64)),
    authorization: &Authorization,
    timeout: Duration,
) -> Result<(OutgoingRequest, Option<Asked>), TransportError> {
    let draft = match requests {
        Some(requests) => templated(delivery, target, requests)?,
        None => plain(delivery, target),
    };
    let attempt = Attempt {
        delivery_id: &id.to_string(),
        timestamp_seconds: wall.div_euclid(1_000),
        keys: &target.keys_at(wall),
        span_id: span_id.max(1),
        trace_id: u128::from(trace) << 64 | u128::from(span_id.max(1)),
        sending: &target.sending,
        authorization,
    };
    let prepared = headers_for_attempt(&draft.body, &attempt);
    let request = OutgoingRequest {
        destination: draft.destination,
        method: draft.method,
        headers: prepared.headers,
        body: prepared.body,
        timeout,
        kept_bytes: kept_bytes(draft.items),
    };
    Ok((request, draft.asked))
}

fn plain<'a>(delivery: &'a Delivery, target: &Target) -> Draft<'a> {
    let compress = target.sending.compress;
    let sent = delivery.sent.as_deref();
    let is_alone = sent.is_some_and(|sent| sent.is_alone);
    let body = match target.batch.filter(|_| !is_alone) {
        Some(of) => {
            let body = batch::body(delivery, of.format);
            let compressed = compress.then(|| body.compressed()).flatten();
            Cow::Owned(compressed.unwrap_or(body))
        }
        None => match sent {
            Some(sent) => {
                let compressed = compress.then(|| sent.body.compressed()).flatten();
                compressed.map_or(Cow::Borrowed(&sent.body), Cow::Owned)
            }
            None if compress => Cow::Borrowed(delivery.loaded.compressed_body(target.body)),
            None => Cow::Borrowed(delivery.loaded.body(target.body)),
        },
    };
    let elsewhere = sent.and_then(|sent| sent.destination.as_ref());
    Draft {
        method: sent.map_or(Method::POST, |sent| sent.method.clone()),
        destination: Arc::clone(elsewhere.unwrap_or(&target.destination)),
        body,
        items: delivery.items().count(),
        asked: None,
    }
}

fn templated(
    delivery: &Delivery,
    target: &Target,
    requests: &Arc<Requests>,
) -> Result<Draft<'static>, TransportError> {
    let event = &delivery.loaded.record.event;
    let (rendered, asked) = requests.ask(event)?;
    let destination = match rendered.path.as_str() {
        "" => Arc::clone(&target.destination),
        path => {
            let joined = target.destination.joined(path);
            Arc::new(joined.ok_or_else(|| {
                let text = "the path leads to no place below the endpoint's URL";
                TransportError::new(TransportErrorKind::Template, text)
            })?)
        }
    };
    let method = method(rendered.method);
    let body = encode_rendered(event, rendered)?;
    let compressed = target.sending.compress.then(|| body.compressed()).flatten();
    Ok(Draft {
        method,
        destination,
        body: Cow::Owned(compressed.unwrap_or(body)),
        items: asked.chunk.members.len(),
        asked: Some(asked),
    })
}
