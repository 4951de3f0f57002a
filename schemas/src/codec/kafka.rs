//! The Kafka binding (CE-16 to CE-20): attributes as headers, data as the record's value.
//!
//! Never percent-encodes, never touches the record's key: a key mapper does not change the event
//! (CE-18). The surprise: one header of our own, `anabranch-types`, remembers which extensions
//! were booleans or integers, since binary mode has strings only (CE-6).

use std::borrow::Cow;

use bytes::Bytes;

use super::{Error, HeaderFault, Mode, Reserved, check_attributes, check_data, check_format, json};
use crate::event::{self, AttributeValue, Builder, Context, Event, Limits};

const CONTENT_TYPE: &str = "content-type";
const PREFIX: &str = "ce_";
/// `name=boolean,name=integer`; ignored where it does not fit the values.
const TYPES: &str = "anabranch-types";

/// Headers of a record, in order.
pub type Headers<'a> = Vec<(Cow<'static, str>, Cow<'a, [u8]>)>;

/// Reads a record's event in either mode (CE-17). The data shares the value's memory.
///
/// # Errors
/// See [`Error`]; a missing `specversion` says that the record is no CloudEvent.
pub fn decode<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    value: Option<Bytes>,
    limits: &Limits,
) -> Result<Event, Error> {
    // Nearly all are in binary mode, and their headers are gone through once. What cannot be read
    // so, or says otherwise, is looked at again.
    let binary = decode_binary(headers.clone(), value.clone(), limits);
    if binary.as_ref().is_ok_and(is_binary) {
        return binary;
    }
    let mut pairs = headers.into_iter();
    let content_type = pairs.find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let content_type = content_type
        .map(|(name, value)| text_of(name, value))
        .transpose()?;
    // Kafka has no batched mode (CE-17); its prefix is a format that is not supported.
    match Mode::of_http(content_type) {
        Mode::Structured | Mode::Batched => {
            check_format(content_type.unwrap_or_default(), json::MEDIA_TYPE)?;
            json::decode(&value.ok_or(Error::NoContent)?, limits)
        }
        Mode::Binary => binary,
    }
}

/// Whether the content type of an event that was read from headers says that it is there.
fn is_binary(event: &Event) -> bool {
    match Mode::of_http(event.datacontenttype()) {
        Mode::Binary => true,
        Mode::Structured | Mode::Batched => false,
    }
}

/// Reads a binary-mode record, whatever its content type (CE-16).
///
/// # Errors
/// See [`Error`].
pub fn decode_binary<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    value: Option<Bytes>,
    limits: &Limits,
) -> Result<Event, Error> {
    check_data(value.as_ref().map_or(0, Bytes::len), limits)?;
    let mut builder = Builder::new();
    let mut types = "";
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            builder.set(
                Context::DataContentType.name(),
                text_of(name, value)?.into(),
            )?;
        } else if let Some(attribute) = name.strip_prefix(PREFIX) {
            if attribute == Context::DataContentType.name() {
                return Err(Error::header(name, HeaderFault::Forbidden));
            }
            builder.set(attribute, text_of(name, value)?.into())?;
        } else if name == TYPES {
            types = text_of(name, value)?;
        }
        check_attributes(&builder, limits)?;
    }
    if let Some(value) = value {
        builder = builder.untyped_data(value);
    }
    let mut event = builder.build()?;
    restore_types(&mut event, types)?;
    Ok(event)
}

fn text_of<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(value).map_err(|_| Error::header(name, HeaderFault::NotUtf8))
}

/// Gives extensions back the type they had, where the text is that type's canonical form.
fn restore_types(event: &mut Event, types: &str) -> Result<(), Error> {
    for (name, kind) in types.split(',').filter_map(|entry| entry.split_once('=')) {
        let Some(AttributeValue::String(text)) = event.extension(name) else {
            continue;
        };
        let value = match kind {
            "boolean" => text.parse().ok().map(AttributeValue::Boolean),
            "integer" => text
                .parse::<i32>()
                .ok()
                .filter(|number| number.to_string() == text)
                .map(AttributeValue::Integer),
            _ => None,
        };
        if let Some(value) = value {
            event.set_extension(name, value)?;
        }
    }
    Ok(())
}

/// A record's headers and value in binary mode (CE-16, CE-20), reserved extensions included.
/// No data is a null value, which a compacted topic takes for a tombstone (CE-19).
#[must_use]
pub fn encode_binary(event: &Event) -> (Headers<'_>, Option<Bytes>) {
    let context = event
        .context()
        .map(|(context, text)| (Cow::Borrowed(header_of(context)), text));
    let extensions = event
        .extension_texts()
        .map(|(name, text)| (Cow::Owned(format!("{PREFIX}{name}")), text));
    let mut headers = Vec::with_capacity(HEADERS);
    headers.extend(
        context
            .chain(extensions)
            .map(|(name, text)| (name, Cow::Borrowed(text.as_bytes()))),
    );
    if let Some(types) = types_of(event) {
        headers.push((Cow::Borrowed(TYPES), Cow::Owned(types.into_bytes())));
    }
    (headers, event.data().cloned())
}

/// Gives the headers of [`encode_binary`] to `header`, in order, without building them: for the
/// hot path, where each event's headers go straight into a buffer.
pub fn write_binary(event: &Event, mut header: impl FnMut(&str, &[u8])) {
    for (context, text) in event.context() {
        header(header_of(context), text.as_bytes());
    }
    let (mut other, mut types) = (String::new(), String::new());
    for (name, text, value) in event.written_extensions() {
        header(header_of_extension(name, &mut other), text.as_bytes());
        push_type(name, value, &mut types);
    }
    if !types.is_empty() {
        header(TYPES, types.as_bytes());
    }
}

/// An extension's header: a constant for those that most events have, else written to `other`.
fn header_of_extension<'a>(name: &str, other: &'a mut String) -> &'a str {
    match name {
        event::TENANT => "ce_anabranchtenant",
        event::ACCEPTED => "ce_anabranchaccepted",
        event::LOOP => "ce_anabranchloop",
        "partitionkey" => "ce_partitionkey",
        "traceparent" => "ce_traceparent",
        "tracestate" => "ce_tracestate",
        _ => {
            other.clear();
            other.push_str(PREFIX);
            other.push_str(name);
            other
        }
    }
}

/// Enough for the context attributes and a few extensions.
const HEADERS: usize = 12;

const fn header_of(context: Context) -> &'static str {
    match context {
        Context::SpecVersion => "ce_specversion",
        Context::Id => "ce_id",
        Context::Source => "ce_source",
        Context::Type => "ce_type",
        Context::Subject => "ce_subject",
        Context::Time => "ce_time",
        Context::DataContentType => CONTENT_TYPE,
        Context::DataSchema => "ce_dataschema",
    }
}

fn types_of(event: &Event) -> Option<String> {
    let mut types = String::new();
    for (name, value) in event.extensions() {
        push_type(name, value, &mut types);
    }
    (!types.is_empty()).then_some(types)
}

/// Remembers the type of an extension that is no string.
fn push_type(name: &str, value: AttributeValue<'_>, types: &mut String) {
    let kind = match value {
        AttributeValue::Boolean(_) => "boolean",
        AttributeValue::Integer(_) => "integer",
        AttributeValue::String(_)
        | AttributeValue::Binary(_)
        | AttributeValue::Uri(_)
        | AttributeValue::UriRef(_)
        | AttributeValue::Timestamp(_) => return,
    };
    if !types.is_empty() {
        types.push(',');
    }
    types.extend([name, "=", kind]);
}

/// A record's headers and value in structured mode (CE-17, CE-20).
#[must_use]
pub fn encode_structured(event: &Event) -> (Headers<'static>, Bytes) {
    let mut value = Vec::new();
    json::encode(event, Reserved::Keep, &mut value);
    let headers = vec![(
        Cow::Borrowed(CONTENT_TYPE),
        Cow::Borrowed(json::MEDIA_TYPE.as_bytes()),
    )];
    (headers, value.into())
}

/// The key of an event's record: `partitionkey` (EX-1), else `subject`, else none (CE-18).
#[must_use]
pub fn partition_key(event: &Event) -> Option<&str> {
    let key = event
        .attribute("partitionkey")
        .filter(|key| !key.is_empty());
    key.or_else(|| event.subject())
}

#[cfg(test)]
mod tests {
    //! CE-16 to CE-20 as tables, and round trips.

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Fault, arbitrary};

    fn record(headers: &[(&str, &[u8])], value: Option<&'static str>) -> Result<Event, Error> {
        decode(
            headers.iter().copied(),
            value.map(Into::into),
            &Limits::default(),
        )
    }

    fn binary(extra: &[(&str, &[u8])], value: Option<&'static str>) -> Result<Event, Error> {
        let required: [(&str, &[u8]); 4] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"1"),
            ("ce_source", b"/s"),
            ("ce_type", b"t"),
        ];
        record(&[&required, extra].concat(), value)
    }

    #[test]
    fn ce_16_headers_are_plain_utf_8() {
        let extra: [(&str, &[u8]); 3] = [
            ("ce_subject", "€ %20".as_bytes()),
            ("content-type", b"text/plain"),
            ("other", b"\xff"),
        ];
        let event = binary(&extra, Some("x")).unwrap();
        assert_eq!(event.subject(), Some("€ %20"));
        assert_eq!(event.datacontenttype(), Some("text/plain"));
        let bad = binary(&[("ce_subject", b"\xff")], None).unwrap_err();
        assert_eq!(bad, Error::header("ce_subject", HeaderFault::NotUtf8));
        let twice = binary(&[("ce_datacontenttype", b"a/b")], None).unwrap_err();
        assert_eq!(
            twice,
            Error::header("ce_datacontenttype", HeaderFault::Forbidden)
        );
        let none = record(&[], Some("{}")).unwrap_err();
        assert_eq!(
            none,
            crate::event::Error::new("specversion", Fault::Missing).into()
        );
    }

    #[test]
    fn ce_17_structured_by_content_type_and_never_batched() {
        let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        let check = |kind: &'static str, value| record(&[("Content-Type", kind.as_bytes())], value);
        assert_eq!(
            check("Application/CloudEvents+json", Some(body))
                .unwrap()
                .id(),
            "1"
        );
        assert_eq!(
            check("application/cloudevents+json", None),
            Err(Error::NoContent)
        );
        for kind in [
            "application/cloudevents-batch+json",
            "application/cloudevents+avro",
        ] {
            assert_eq!(check(kind, Some(body)), Err(Error::UnsupportedFormat));
        }
    }

    #[test]
    fn ce_17_the_content_type_decides_whatever_the_other_headers_are() {
        let body = r#"{"specversion":"1.0","id":"of the body","source":"/s","type":"t"}"#;
        let check = |extra: &[(&str, &[u8])]| binary(extra, Some(body)).unwrap().id().to_owned();
        let kind = b"application/cloudevents+json; charset=utf-8".as_slice();
        assert_eq!(check(&[]), "1");
        assert_eq!(check(&[("content-type", b"application/json")]), "1");
        assert_eq!(check(&[("content-type", kind)]), "of the body");
        let broken: [(&str, &[u8]); 2] = [("ce_subject", b"\xff"), ("content-type", kind)];
        assert_eq!(check(&broken), "of the body");
        let twice: [(&str, &[u8]); 2] = [("content-type", kind), ("content-type", b"text/plain")];
        assert_eq!(check(&twice), "of the body", "the first one counts");
    }

    #[test]
    fn ce_18_the_key_comes_from_partitionkey_or_subject() {
        let event = |extra: &[(&str, &[u8])]| binary(extra, None).unwrap();
        let check = |extra: &[(&str, &[u8])], key| {
            assert_eq!(partition_key(&event(extra)), key);
        };
        check(&[], None);
        check(&[("ce_subject", b"s")], Some("s"));
        check(&[("ce_subject", b"s"), ("ce_partitionkey", b"")], Some("s"));
        check(
            &[("ce_subject", b"s"), ("ce_partitionkey", b"k")],
            Some("k"),
        );
    }

    #[test]
    fn ce_19_no_data_is_a_null_value() {
        let event = binary(&[], None).unwrap();
        assert_eq!(encode_binary(&event).1, None);
        let empty = binary(&[], Some("")).unwrap();
        assert_eq!(encode_binary(&empty).1, Some(Bytes::new()));
    }

    #[test]
    fn every_extension_has_its_header_whether_it_is_a_constant_or_not() {
        for name in [
            event::TENANT,
            event::ACCEPTED,
            event::LOOP,
            "partitionkey",
            "traceparent",
            "tracestate",
            "other",
        ] {
            let event = Event::builder("1", "/s", "t").attribute(name, "x");
            let mut names = Vec::new();
            write_binary(&event.build().unwrap(), |name, _| {
                names.push(name.to_owned())
            });
            assert_eq!(names.last(), Some(&format!("{PREFIX}{name}")));
        }
    }

    #[test]
    fn ce_6_types_of_extensions_survive_only_where_they_fit() {
        let types: (&str, &[u8]) = (
            TYPES,
            b"a=boolean,b=integer,c=integer,d=x,id=boolean,none=boolean",
        );
        let extra: [(&str, &[u8]); 5] = [
            types,
            ("ce_a", b"yes"),
            ("ce_b", b"-3"),
            ("ce_c", b"+3"),
            ("ce_d", b"1"),
        ];
        let event = binary(&extra, None).unwrap();
        let got: Vec<_> = event.extensions().collect();
        let expected = [
            ("a", "yes".into()),
            ("b", AttributeValue::Integer(-3)),
            ("c", "+3".into()),
            ("d", "1".into()),
        ];
        assert_eq!(got, expected);
    }

    proptest! {
        #[test]
        fn any_event_comes_back_from_binary_mode(event in arbitrary::event()) {
            let (headers, value) = encode_binary(&event);
            let pairs = headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
            prop_assert_eq!(decode(pairs, value, &Limits::default()).unwrap(), event);
        }

        #[test]
        fn headers_are_written_as_they_are_built(event in arbitrary::event()) {
            let mut written = Vec::new();
            write_binary(&event, |name, value| written.push((name.to_owned(), value.to_vec())));
            let (built, _) = encode_binary(&event);
            let built = built.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
            prop_assert_eq!(written, built.collect::<Vec<_>>());
        }

        #[test]
        fn any_event_comes_back_from_structured_mode(event in arbitrary::event()) {
            let (headers, value) = encode_structured(&event);
            let pairs = headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
            let got = decode(pairs, Some(value), &Limits::default()).unwrap();
            prop_assert!(got.context().eq(event.context()) && got.extensions().eq(event.extensions()));
        }
    }
}
