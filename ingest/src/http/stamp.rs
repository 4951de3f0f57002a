//! Owns what ingest adds to every event: its tenant, when it was accepted, and the request's trace
//! where the event has none.
//!
//! Never takes a reserved attribute from a client, nor changes one that the client set. The
//! surprise: an event keeps the trace it started with (EX-3); the request's own counts only where
//! there is none.

use http::HeaderMap;
use runtime::clock::UnixMillis;
use runtime::problem::{Problem, ProblemType};
use runtime::telemetry::TraceParent;
use schemas::event::{self, ACCEPTED, AttributeValue, Event};
use schemas::ids::TenantId;

use super::fault::Place;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// HT-13 asks for 512 characters at least to be carried.
const TRACESTATE_BYTES_MAX: usize = 512;

/// What one request adds to its events.
#[derive(Debug)]
pub(super) struct Stamp<'a> {
    tenant: &'a TenantId,
    accepted: String,
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Trace {
    parent: String,
    state: Option<String>,
}

impl<'a> Stamp<'a> {
    pub(super) fn new(tenant: &'a TenantId, now: UnixMillis, headers: &HeaderMap) -> Self {
        Self {
            tenant,
            accepted: now.to_string(),
            trace: Trace::of(headers),
        }
    }

    /// Puts it on an event.
    ///
    /// # Errors
    /// 422 where the client sent a reserved attribute.
    pub(super) fn put(&self, event: &mut Event, place: Place) -> Result<(), Problem> {
        if let Some(name) = event.reserved_extension() {
            let detail = format!("attribute `{name}`: is reserved");
            let pointer = place.pointer(&format!("/{name}"));
            return Err(Problem::validation([(pointer, detail.clone())]).detail(detail));
        }
        self.set(event).map_err(|error| {
            // Our own texts, but for the trace's state, which was checked.
            let pointer = place.pointer(&format!("/{}", error.attribute()));
            Problem::validation([(pointer, error.to_string())])
        })
    }

    fn set(&self, event: &mut Event) -> Result<(), event::Error> {
        event.set_tenant(self.tenant.as_str())?;
        event.set_extension(ACCEPTED, AttributeValue::String(&self.accepted))?;
        let Some(trace) = self
            .trace
            .as_ref()
            .filter(|_| event.extension(TRACEPARENT).is_none())
        else {
            return Ok(());
        };
        event.set_extension(TRACEPARENT, AttributeValue::String(&trace.parent))?;
        match &trace.state {
            Some(state) if event.extension(TRACESTATE).is_none() => {
                event.set_extension(TRACESTATE, AttributeValue::String(state))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Trace {
    /// HT-12: an invalid `traceparent` counts as none, and its `tracestate` too.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else {
            return None;
        };
        let parent = TraceParent::parse(parent.to_str().ok()?)?.to_string();
        Some(Self {
            parent,
            state: state_of(headers),
        })
    }
}

/// HT-13: several headers are one list.
fn state_of(headers: &HeaderMap) -> Option<String> {
    let mut state = String::new();
    for value in headers.get_all(TRACESTATE) {
        let text = value.to_str().ok()?.trim();
        if !state.is_empty() && !text.is_empty() {
            state.push(',');
        }
        state.push_str(text);
    }
    let fits = !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX && !state.contains('\t');
    fits.then_some(state)
}

/// CE-5: attributes and data together.
///
/// # Errors
/// 413 beyond `limit`.
pub(super) fn check_size(event: &Event, limit: usize, place: Place) -> Result<(), Problem> {
    // Counts a little more than the texts: where that fits, so does the event.
    if event.size_bytes() <= limit {
        return Ok(());
    }
    let context = event
        .context()
        .map(|(name, text)| name.name().len() + text.len());
    let names = event.extensions().map(|(name, _)| name);
    let extensions = names.map(|name| name.len() + event.attribute(name).map_or(0, str::len));
    let data = event.data().map_or(0, bytes::Bytes::len);
    if context.chain(extensions).sum::<usize>() + data <= limit {
        return Ok(());
    }
    let detail = format!("the event is larger than {limit} bytes");
    Err(Problem::new(ProblemType::TooLarge)
        .detail(detail.clone())
        .error(place.pointer(""), detail))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const OTHER: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(
        headers: &[(&'static str, &'static str)],
        own: Option<&str>,
        expected: [Option<&str>; 2],
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let tenant = "acme".parse().unwrap();
        let mut builder = Event::builder("1", "/s", "t");
        if let Some(own) = own {
            builder = builder.attribute(TRACEPARENT, own);
        }
        let mut event = builder.build().unwrap();
        Stamp::new(&tenant, 5, &map)
            .put(&mut event, Place::Alone)
            .unwrap();
        let got = [TRACEPARENT, TRACESTATE].map(|name| event.attribute(name));
        assert_eq!(got, expected, "{headers:?} {own:?}");
        assert_eq!(
            (event.tenant(), event.attribute(ACCEPTED)),
            (Some("acme"), Some("5"))
        );
    }

    #[test]
    fn ex_3_an_event_keeps_its_trace_and_gets_the_requests_where_it_has_none() {
        let request = [
            (TRACEPARENT, PARENT),
            (TRACESTATE, "a=1"),
            (TRACESTATE, "b=2"),
        ];
        check(&request, None, [Some(PARENT), Some("a=1,b=2")]);
        check(&request, Some(OTHER), [Some(OTHER), None]);
        check(&[], None, [None, None]);
        check(
            &[(TRACEPARENT, "broken"), (TRACESTATE, "a=1")],
            None,
            [None, None],
        );
        check(
            &[(TRACEPARENT, PARENT), (TRACEPARENT, OTHER)],
            None,
            [None, None],
        );
    }

    #[test]
    fn reserved_attributes_are_refused_by_name() {
        let tenant = "acme".parse().unwrap();
        let stamp = Stamp::new(&tenant, 5, &HeaderMap::new());
        for name in ["anabranchtenant", "anabranchloop", "anabranchx"] {
            let event = Event::builder("1", "/s", "t").attribute(name, "other");
            let problem = stamp
                .put(&mut event.build().unwrap(), Place::At(3))
                .unwrap_err();
            assert_eq!(problem.errors()[0].pointer, format!("/3/{name}"));
            assert_eq!(problem.status(), 422);
        }
    }

    #[test]
    fn ce_5_the_limit_counts_attributes_and_data() {
        // specversion 1.0, id 1, source /s, type t: 23 bytes of names, 7 of values.
        let event = |bytes: usize| {
            Event::builder("1", "/s", "t")
                .untyped_data(vec![b'x'; bytes])
                .build()
                .unwrap()
        };
        let fixed = "specversionidsourcetype".len() + "1.01/st".len();
        assert!(check_size(&event(1_000), 1_000 + fixed, Place::Alone).is_ok());
        assert!(check_size(&event(1_001), 1_000 + fixed, Place::Alone).is_err());
    }
}
