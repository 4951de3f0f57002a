//! Owns how a transformed event becomes a request: its method, its place, its body in the form that
//! the endpoint takes.
//!
//! Transforms are compiled at the first attempt that needs them, where attempts run, and kept for as
//! long as their subscription is as it was. It must never say what is in an event. The surprise: one
//! that cannot be compiled is kept as the reason, since each of its deliveries has to tell it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::Method;
use schemas::event::Event;
use schemas::ids::SubscriptionId;
use schemas::resources::{BatchFormat, BodyMode};
use schemas::transform::{Compiled, Made, Outcome, Transform};
use tracing::error;

use super::Destination;
use super::request::{EncodedBody, encode_made};
use super::template::method;
use crate::endpoints::Target;
use crate::work::Lent;

/// A subscription's transform.
#[derive(Debug)]
pub struct Transforming {
    subscription: SubscriptionId,
    transform: Box<Transform>,
    compiled: OnceLock<Result<Compiled, String>>,
}

/// A transformed event as it is sent.
#[derive(Debug)]
pub(crate) struct Sent {
    /// What it has become.
    pub(crate) event: Event,
    /// The method.
    pub(crate) method: Method,
    /// Where it goes, where that is not the endpoint's own place.
    pub(crate) destination: Option<Arc<Destination>>,
    /// Its body, serialised once (rule 9); in a batch, what its item is made of.
    pub(crate) body: EncodedBody,
    /// Whether it shares its request with no other.
    pub(crate) is_alone: bool,
    /// What it takes of the budget.
    pub(crate) lent: Option<Lent>,
}

/// What a transform says of an event.
#[derive(Debug)]
pub(crate) enum Transformed {
    /// It is sent like this.
    Sent(Box<Sent>),
    /// It is not sent.
    Dropped,
    /// Nothing can be made of it.
    Failed(String),
}

impl Transforming {
    /// The transform of a subscription.
    #[must_use]
    pub fn new(subscription: SubscriptionId, transform: Box<Transform>) -> Self {
        Self {
            subscription,
            transform,
            compiled: OnceLock::new(),
        }
    }

    /// Whether its events share no request with others.
    #[must_use]
    pub fn goes_alone(&self) -> bool {
        self.transform.has_request()
    }

    /// What becomes of `event`, which was accepted at `accepted_at` (unix milliseconds), on its way
    /// to `target`.
    pub(crate) fn run(&self, event: &Event, target: &Target, accepted_at: i64) -> Transformed {
        let compiled = match self.compiled.get_or_init(|| self.compile()) {
            Ok(compiled) => compiled,
            Err(reason) => return Transformed::Failed(reason.clone()),
        };
        match compiled.run(event) {
            Err(failure) => Transformed::Failed(failure.to_string()),
            Ok(Outcome::Dropped(_)) => Transformed::Dropped,
            Ok(Outcome::Made(made)) => match self.sent(*made, target, accepted_at) {
                Ok(sent) => Transformed::Sent(Box::new(sent)),
                Err(reason) => Transformed::Failed(reason),
            },
        }
    }

    fn compile(&self) -> Result<Compiled, String> {
        Compiled::new(&self.transform).map_err(|faults| {
            let first = faults.0.into_iter().next();
            let first = first.map(|fault| format!("transform {}: {}", fault.pointer, fault.detail));
            let reason = first.unwrap_or_default();
            // Control compiles it before it writes: this is a later version of it.
            error!(subscription = %self.subscription, reason, "transform cannot be compiled");
            reason
        })
    }

    fn sent(&self, made: Made, target: &Target, accepted_at: i64) -> Result<Sent, String> {
        let destination = match made.path.as_str() {
            "" => None,
            path => {
                let joined = target.destination.joined(path).map(Arc::new);
                let elsewhere =
                    "transform /request/path: leads to no place below the endpoint's URL";
                Some(joined.ok_or_else(|| elsewhere.to_owned())?)
            }
        };
        let is_alone = self.goes_alone();
        let mode = match target.batch.filter(|_| !is_alone) {
            None => target.body,
            Some(batch) => match batch.format {
                BatchFormat::CloudEvents => BodyMode::Structured,
                BatchFormat::Array => BodyMode::StandardWebhooks,
            },
        };
        let body = encode_made(&made, mode, accepted_at).map_err(|error| error.text)?;
        Ok(Sent {
            method: method(made.method),
            destination,
            body,
            is_alone,
            lent: None,
            event: made.event,
        })
    }
}

impl Sent {
    /// The bytes that were made for it.
    pub(crate) fn bytes(&self) -> usize {
        self.event.data().map_or(0, Bytes::len) + self.body.bytes.len()
    }
}
