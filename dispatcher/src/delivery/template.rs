//! Owns how a delivery becomes a request where its subscription says how: a chunk, and the templates
//! of a partner's profile.
//!
//! It never decides what an answer means, nor logs what is sent: both are about people. The
//! surprise: templates that cannot be compiled are kept as the reason why each of their chunks is a
//! dead letter, since nothing else could tell.

use std::sync::Arc;

use http::Method;
use schemas::event::Event;
use schemas::ids::SubscriptionId;
use schemas::profile::template::{BODY_BYTES_MAX, Compiled, Rendered};
use schemas::profile::{self, Chunk, Operation, RequestTemplates};
use tracing::error;

use super::{TransportError, TransportErrorKind};

/// A subscription's requests, ready to be made.
#[derive(Debug)]
pub struct Requests {
    compiled: Result<Compiled, String>,
}

/// What was asked of the partner.
#[derive(Debug)]
pub struct Asked {
    requests: Arc<Requests>,
    /// For whom, and what.
    pub chunk: Chunk,
}

impl Requests {
    /// Compiles the templates of a subscription.
    #[must_use]
    pub fn new(subscription: SubscriptionId, templates: RequestTemplates) -> Self {
        let compiled = Compiled::new(templates).map_err(|faults| {
            let mut faults = faults.0.into_iter();
            let first = faults.next();
            let first = first.map(|fault| format!("{}: {}", fault.pointer, fault.detail));
            first.unwrap_or_default()
        });
        // Control compiles them before it writes: this is a later version of them.
        if let Err(reason) = &compiled {
            error!(%subscription, reason, "request templates cannot be compiled");
        }
        Self { compiled }
    }

    /// The request that `event` asks for.
    ///
    /// # Errors
    /// [`TransportErrorKind::Template`], with a text that names no data.
    pub fn ask(self: &Arc<Self>, event: &Event) -> Result<(Rendered, Asked), TransportError> {
        let fails = |text: String| TransportError::new(TransportErrorKind::Template, text);
        let compiled = self
            .compiled
            .as_ref()
            .map_err(|reason| fails(reason.clone()))?;
        let data = event
            .data()
            .ok_or_else(|| fails("the event has no data".to_owned()))?;
        let chunk = Chunk::read(data).map_err(|error| fails(error.to_string()))?;
        let rendered = compiled
            .render(&chunk, BODY_BYTES_MAX)
            .map_err(|error| fails(error.to_string()))?;
        let asked = Asked {
            requests: Arc::clone(self),
            chunk,
        };
        Ok((rendered, asked))
    }
}

impl Asked {
    /// How answers to it are read.
    #[must_use]
    pub fn operation(&self) -> Option<&Operation> {
        let compiled = self.requests.compiled.as_ref().ok()?;
        compiled.operation(self.chunk.operation)
    }
}

/// The method in the words of HTTP's types.
#[must_use]
pub fn method(method: profile::Method) -> Method {
    match method {
        profile::Method::Get => Method::GET,
        profile::Method::Post => Method::POST,
        profile::Method::Put => Method::PUT,
        profile::Method::Patch => Method::PATCH,
        profile::Method::Delete => Method::DELETE,
    }
}
