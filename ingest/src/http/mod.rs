//! Owns the routes that events come in by, and the course of a request: authorised and admitted
//! before its body is read, then read, decoded, stamped, written and answered.
//!
//! Never reads a body that has no room. The surprise: a request that is refused early has its body
//! read and thrown away, up to a bound, because a client that is still sending may not see an
//! answer on a connection that is cut.

mod answer;
mod body;
mod fault;
mod plain;
mod stamp;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use runtime::clock::{Clock, Entropy};
use runtime::problem::{self, Problem, ProblemType};
use schemas::codec::Mode;
use schemas::codec::http::{self as codec, Message};
use schemas::event::Event;

use crate::admit::Budget;
use crate::auth::Auth;
use crate::directory::TenantEntry;
use crate::options::Options;
use crate::publish::Publisher;
use crate::telemetry::{EventClass, EventResult, RequestResult, Telemetry};

use answer::{Answer, Outcome};
use fault::Place;
use stamp::Stamp;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) auth: Auth,
    pub(crate) budget: Budget,
    pub(crate) publisher: Publisher,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) telemetry: Telemetry,
    pub(crate) options: Options,
}

/// Why a request was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The answer says why.
    Problem(Problem),
    /// The body broke off: nobody is left to read an answer.
    Disconnected,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Who sends a request, and how much in it.
#[derive(Debug, Clone, Copy)]
struct Sender<'a> {
    tenant: &'a TenantEntry,
    body_bytes: usize,
}

/// What a path says about its events.
#[derive(Debug)]
enum Form {
    /// CloudEvents in any of the three modes (CE-10).
    CloudEvents,
    /// Anything, which becomes the data of an event of this type.
    Plain(String),
}

/// The routes.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/tenants/{tenant}/events", post(events))
        .route("/v1/tenants/{tenant}/events/{type}", post(plain_event))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(app))
}

async fn events(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let path = path.map(|Path(tenant)| (tenant, Form::CloudEvents));
    app.serve(path, request).await
}

async fn plain_event(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let path = path.map(|Path((tenant, ty))| (tenant, Form::Plain(ty)));
    app.serve(path, request).await
}

async fn not_found(State(app): State<Arc<App>>) -> Problem {
    app.telemetry.request().end(RequestResult::NotFound);
    problem::not_found().await
}

async fn method_not_allowed(State(app): State<Arc<App>>) -> Problem {
    app.telemetry.request().end(RequestResult::Method);
    problem::method_not_allowed().await
}

impl App {
    async fn serve(
        &self,
        path: Result<(String, Form), PathRejection>,
        request: Request,
    ) -> Response {
        let timer = self.telemetry.request();
        let taken = match path {
            Ok((tenant, form)) => self.take(&tenant, form, request).await,
            Err(_) => {
                let problem = Problem::new(ProblemType::Malformed);
                Err(problem.detail("the path is not utf-8").into())
            }
        };
        match taken {
            Ok(answer) => {
                timer.end(answer.result());
                answer.into_response()
            }
            Err(Refusal::Problem(problem)) => {
                timer.end(problem.kind().into());
                problem.into_response()
            }
            // The timer counts it as disconnected.
            Err(Refusal::Disconnected) => {
                let problem = Problem::new(ProblemType::Malformed);
                problem.detail("the body broke off").into_response()
            }
        }
    }

    async fn take(&self, tenant: &str, form: Form, request: Request) -> Result<Answer, Refusal> {
        let (head, request_body) = request.into_parts();
        let declared = request_body.size_hint().exact();
        let tenant = match self.admit(&head.headers, tenant, &form, declared) {
            Ok(tenant) => tenant,
            Err(problem) => {
                body::discard(&head.headers, request_body).await;
                return Err(problem.into());
            }
        };
        let held = body::read(request_body, declared, &self.budget, &self.options).await?;
        if declared.is_none() {
            tenant.rates.take_bytes(held.bytes.len())?;
        }
        let sender = Sender {
            tenant: &tenant,
            body_bytes: held.bytes.len(),
        };
        let stamp = Stamp::new(&tenant.id, self.clock.now(), &head.headers);
        let answer = match form {
            Form::CloudEvents => {
                self.cloud_events(&sender, &head.headers, held.bytes, &stamp)
                    .await
            }
            Form::Plain(ty) => {
                let made = plain::event(self, &tenant.id, &ty, &head.headers, held.bytes);
                self.one(&sender, made.and_then(|event| self.stamped(event, &stamp)))
                    .await
            }
        };
        // The room is given back only now: until the acknowledgement the records hold the body.
        drop(held.room);
        Ok(answer?)
    }

    /// What can be said before the body is read.
    fn admit(
        &self,
        headers: &HeaderMap,
        tenant: &str,
        form: &Form,
        declared: Option<u64>,
    ) -> Result<Arc<TenantEntry>, Problem> {
        let tenant = self.auth.authorize(headers, tenant)?;
        check_media_type(headers, form)?;
        if let Some(bytes) = declared {
            let limit = self.options.max_body_bytes;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if bytes > limit {
                return Err(body::too_large(limit));
            }
            tenant.rates.take_bytes(bytes)?;
        }
        Ok(tenant)
    }

    async fn cloud_events(
        &self,
        sender: &Sender<'_>,
        headers: &HeaderMap,
        bytes: Bytes,
        stamp: &Stamp<'_>,
    ) -> Result<Answer, Problem> {
        let pairs: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let limits = self.options.event_limits();
        let max_events = self.options.max_batch_events;
        match codec::decode(pairs.iter().copied(), bytes, &limits, max_events) {
            Ok(Message::One(event)) => self.one(sender, self.stamped(event, stamp)).await,
            Ok(Message::Batch(events)) => {
                let outcomes = events.into_iter().enumerate().map(|(index, event)| {
                    let place = Place::At(index);
                    match event {
                        Ok(event) => Outcome::new(event, |event| self.stamp(event, stamp, place)),
                        Err(error) => Outcome::unread(fault::problem(&error, place)),
                    }
                });
                self.batch(sender, outcomes.collect()).await
            }
            Err(error) => {
                let problem = fault::problem(&error, Place::Alone);
                self.telemetry.events.get(problem.kind().into()).inc();
                Err(problem)
            }
        }
    }

    fn stamped(&self, mut event: Event, stamp: &Stamp<'_>) -> Result<Event, Problem> {
        self.stamp(&mut event, stamp, Place::Alone).map(|()| event)
    }

    fn stamp(&self, event: &mut Event, stamp: &Stamp<'_>, place: Place) -> Result<(), Problem> {
        stamp::check_size(event, self.options.max_event_bytes, place)?;
        stamp.put(event, place)
    }

    async fn one(
        &self,
        sender: &Sender<'_>,
        event: Result<Event, Problem>,
    ) -> Result<Answer, Problem> {
        let write = async {
            let event = event?;
            let class = self.class(sender, 1)?;
            match self.publisher.publish(&[&event], class).await.pop() {
                Some(Err(not_written)) => Err(fault::not_written(not_written)),
                Some(Ok(())) | None => Ok(event),
            }
        };
        let taken = write.await;
        let result = taken
            .as_ref()
            .map_or_else(|problem| problem.kind().into(), |_| EventResult::Accepted);
        self.telemetry.events.get(result).inc();
        taken.map(Answer::One)
    }

    async fn batch(
        &self,
        sender: &Sender<'_>,
        mut outcomes: Vec<Outcome>,
    ) -> Result<Answer, Problem> {
        let count = f64::from(u32::try_from(outcomes.len()).unwrap_or(u32::MAX));
        self.telemetry.batch_events.observe(count);
        let events: Vec<&Event> = outcomes.iter().filter_map(Outcome::pending).collect();
        let class = match self.class(sender, events.len()) {
            Ok(class) => class,
            Err(problem) => {
                let refused = u64::try_from(outcomes.len()).unwrap_or(0);
                self.telemetry
                    .events
                    .get(problem.kind().into())
                    .inc_by(refused);
                return Err(problem);
            }
        };
        let reports = self.publisher.publish(&events, class).await;
        let pending = outcomes
            .iter_mut()
            .filter(|outcome| outcome.pending().is_some());
        for (outcome, report) in pending.zip(reports) {
            if let Err(not_written) = report {
                outcome.refuse(fault::not_written(not_written));
            }
        }
        self.count(&outcomes);
        Ok(Answer::Batch(outcomes))
    }
}

impl App {
    /// Where events that are about to be written go: beyond the tenant's fair share to bulk, but
    /// never where it has an ordered subscription (rule 12).
    fn class(&self, sender: &Sender<'_>, events: usize) -> Result<EventClass, Problem> {
        let Sender { tenant, body_bytes } = *sender;
        tenant.rates.take_events(events)?;
        match tenant.share.take(events, body_bytes) {
            Ok(()) => Ok(EventClass::Live),
            Err(_) if events == 0 => Ok(EventClass::Live),
            Err(_) if !tenant.ordered.is_any() => Ok(EventClass::Bulk),
            Err(wait) => {
                self.telemetry.share_refusals.inc();
                Err(beyond_share(wait))
            }
        }
    }

    /// Counts each event of a batch, neighbours of one result at once.
    fn count(&self, outcomes: &[Outcome]) {
        for run in outcomes.chunk_by(|a, b| a.result() == b.result()) {
            let Some(first) = run.first() else { continue };
            let events = u64::try_from(run.len()).unwrap_or(0);
            self.telemetry.events.get(first.result()).inc_by(events);
        }
    }
}

/// HT-11.
fn beyond_share(wait: Duration) -> Problem {
    Problem::new(ProblemType::RateLimited)
        .detail(
            "the tenant is beyond its fair share, and its ordered subscriptions keep its events \
             from being moved to bulk",
        )
        .violated("fair-share")
        .retry_after(wait)
}

/// 415 before the body is read.
fn check_media_type(headers: &HeaderMap, form: &Form) -> Result<(), Problem> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    match (form, Mode::of_http(content_type)) {
        (Form::Plain(_), Mode::Structured | Mode::Batched) => {
            let problem = Problem::new(ProblemType::UnsupportedMediaType);
            Err(problem.detail("cloudevents are taken at the path without the event's type"))
        }
        (Form::Plain(_), Mode::Binary) | (Form::CloudEvents, _) => Ok(()),
    }
}
