//! Owns how a request of somebody who has never heard of CloudEvents becomes one: the type from
//! the path, the rest from headers or made.
//!
//! Never changes the body. The surprise: a JSON document that comes as a form is taken for JSON,
//! since that is what `curl -d` sends.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use runtime::problem::{Problem, ProblemType};
use schemas::codec;
use schemas::event::{self, AttributeValue, Builder, Event};
use schemas::ids::TenantId;
use uuid::Uuid;

use super::App;
use super::fault::{self, Place};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// Where an id may be, the first one counts.
const ID_HEADERS: [&str; 3] = ["idempotency-key", "webhook-id", "x-request-id"];
const SOURCE_HEADER: &str = "x-source";

/// The event of type `ty` with `body` as its data.
///
/// # Errors
/// 422 naming the attribute at fault, 413 for data beyond the limit, 400 for JSON that is none.
pub(super) fn event(
    app: &App,
    tenant: &TenantId,
    ty: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Event, Problem> {
    let limit = app.options.max_event_bytes;
    if body.len() > limit {
        return Err(fault::problem(
            &codec::Error::DataTooLarge { limit },
            Place::Alone,
        ));
    }
    let now = app.clock.now();
    let id = match id_of(headers)? {
        Some(id) => id,
        None => Uuid::from_bytes(app.entropy.uuid_v7(&app.clock)).to_string(),
    };
    let source = match header(headers, SOURCE_HEADER)? {
        Some(source) => source.to_owned(),
        None => format!("/tenants/{tenant}"),
    };
    let time = Timestamp::from_millisecond(now).unwrap_or_default();
    let builder = Event::builder(&id, &source, ty).time(&format!("{time:.3}"));
    with_data(builder, headers, body)
}

fn with_data(mut builder: Builder, headers: &HeaderMap, body: Bytes) -> Result<Event, Problem> {
    let declared = header(headers, CONTENT_TYPE.as_str())?;
    if body.is_empty() {
        return builder.build().map_err(|error| invalid(&error));
    }
    let content_type = match declared {
        None => JSON,
        Some(declared) if is_form(declared) && may_be_json(&body) => JSON,
        Some(declared) => declared,
    };
    let content_type = AttributeValue::String(content_type);
    builder
        .set("datacontenttype", content_type)
        .map_err(|error| invalid(&error))?;
    let mut event = builder
        .untyped_data(body)
        .build()
        .map_err(|error| invalid(&error))?;
    // Looked at without building a tree, and remembered.
    if event.data_is_json() && !event.verify_json() {
        let problem = Problem::new(ProblemType::Malformed);
        return Err(problem.detail("the body is not a json document in utf-8"));
    }
    Ok(event)
}

fn invalid(error: &event::Error) -> Problem {
    fault::problem(&codec::Error::Attribute(error.clone()), Place::Alone)
}

fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(FORM)
}

/// A form's first byte is never one of these: they are percent-encoded in it.
fn may_be_json(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, Some(b'{' | b'['))
}

fn id_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    for name in ID_HEADERS {
        if let Some(text) = header(headers, name)? {
            return Ok(Some(unquote(text)));
        }
    }
    Ok(None)
}

/// HT-7: a structured-field string with its quotes; without them, the text as it is.
fn unquote(text: &str) -> String {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

/// A header that is there once, as text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let fault = |fault| codec::Error::Header {
        name: name.into(),
        fault,
    };
    if values.next().is_some() {
        return Err(fault::problem(
            &fault(codec::HeaderFault::Duplicate),
            Place::Alone,
        ));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text =
        text.map_err(|_| fault::problem(&fault(codec::HeaderFault::NotUtf8), Place::Alone))?;
    Ok(Some(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ht_7_ids_may_be_quoted() {
        for (text, id) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("\"", "\""),
            ("\"\"", ""),
            ("\"abc", "\"abc"),
        ] {
            assert_eq!(unquote(text), id, "{text}");
        }
    }

    #[test]
    fn json_in_a_form_is_told_from_a_form() {
        for (body, json) in [
            ("{\"a\":1}", true),
            (" \n[1]", true),
            ("a=1", false),
            ("%7B", false),
        ] {
            assert_eq!(may_be_json(body.as_bytes()), json, "{body}");
        }
        assert!(is_form("Application/X-WWW-Form-Urlencoded; charset=utf-8"));
        assert!(!is_form("application/json"));
    }
}
