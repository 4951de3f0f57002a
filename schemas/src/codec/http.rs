//! The HTTP binding (CE-10 to CE-15): which mode a message has, and attributes as headers.
//!
//! Never names an HTTP library's types: headers are `(name, value)` pairs. The surprise: an empty
//! body is no data, because HTTP does not tell one from the other.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::{Error, HeaderFault, Mode, Reserved, check_attributes, check_data, check_format, json};
use crate::event::{Builder, Context, Event, Limits};

/// What an HTTP message held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One event, binary or structured.
    One(Event),
    /// A batch with a result for each event (CE-14).
    Batch(Vec<Result<Event, Error>>),
}

const CONTENT_TYPE: &str = "content-type";
const PREFIX: &str = "ce-";

/// CE-12: space, `"`, `%` and everything outside U+0021 to U+007E.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Reads a message in whatever mode its content type says (CE-10). Header names may be in any
/// case. In structured mode headers that repeat attributes are ignored: the body wins (CE-15).
///
/// # Errors
/// See [`Error`]; a batch is refused whole only when it is no array or has too many events.
pub fn decode<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
    body: Bytes,
    limits: &Limits,
    max_events: usize,
) -> Result<Message, Error> {
    let content_type = content_type(headers.clone())?;
    match Mode::of_http(content_type) {
        Mode::Binary => decode_binary(headers, body, limits).map(Message::One),
        Mode::Structured => {
            check_format(content_type.unwrap_or_default(), json::MEDIA_TYPE)?;
            json::decode(&body, limits).map(Message::One)
        }
        Mode::Batched => {
            check_format(content_type.unwrap_or_default(), json::BATCH_MEDIA_TYPE)?;
            json::decode_batch(&body, limits, max_events).map(Message::Batch)
        }
    }
}

/// The one `content-type` header.
fn content_type<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Option<&'a str>, Error> {
    let mut found = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            let text = std::str::from_utf8(value)
                .map_err(|_| Error::header(CONTENT_TYPE, HeaderFault::NotUtf8))?;
            if found.replace(text.trim()).is_some() {
                return Err(Error::header(CONTENT_TYPE, HeaderFault::Duplicate));
            }
        }
    }
    Ok(found)
}

/// Reads a binary-mode message (CE-11, CE-13).
///
/// # Errors
/// See [`Error`]; a missing `ce-specversion` says that this is no CloudEvent.
pub fn decode_binary<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: Bytes,
    limits: &Limits,
) -> Result<Event, Error> {
    check_data(body.len(), limits)?;
    let mut builder = Builder::new();
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            let text = std::str::from_utf8(value)
                .map_err(|_| Error::header(CONTENT_TYPE, HeaderFault::NotUtf8))?;
            builder.set(Context::DataContentType.name(), text.trim().into())?;
        } else if let Some(attribute) = attribute_of(name) {
            let attribute = lower_case(attribute);
            if attribute == Context::DataContentType.name() {
                return Err(Error::header(name, HeaderFault::Forbidden));
            }
            let text = decode_value(value).map_err(|fault| Error::header(name, fault))?;
            builder.set(&attribute, text.as_ref().into())?;
        }
        check_attributes(&builder, limits)?;
    }
    if !body.is_empty() {
        builder = builder.untyped_data(body);
    }
    Ok(builder.build()?)
}

/// The attribute that a header carries.
fn attribute_of(name: &str) -> Option<&str> {
    let (prefix, attribute) = name.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(attribute)
}

/// Header names are case-insensitive; most arrive in lower case already.
fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// An event's headers in binary mode, `content-type` included (CE-11); the body is the data.
///
/// JSON data without `datacontenttype` gets `application/json`, which means the same (CE-9);
/// other untyped data gets `application/octet-stream`.
#[must_use]
pub fn encode_binary(event: &Event, reserved: Reserved) -> Vec<(Cow<'static, str>, String)> {
    let mut headers = Vec::with_capacity(HEADERS);
    for (context, text) in event.context() {
        headers.push(match header_of(context) {
            CONTENT_TYPE => (Cow::Borrowed(CONTENT_TYPE), text.to_owned()),
            name => (Cow::Borrowed(name), encode_value(text)),
        });
    }
    for (name, text) in event
        .extension_texts()
        .filter(|(name, _)| reserved.admits(name))
    {
        headers.push((Cow::Owned(format!("{PREFIX}{name}")), encode_value(text)));
    }
    if event.datacontenttype().is_none() && event.data().is_some() {
        let media_type = if event.has_valid_json() {
            "application/json"
        } else {
            "application/octet-stream"
        };
        headers.push((Cow::Borrowed(CONTENT_TYPE), media_type.to_owned()));
    }
    headers
}

/// Enough for the context attributes and a few extensions.
const HEADERS: usize = 12;

const fn header_of(context: Context) -> &'static str {
    match context {
        Context::SpecVersion => "ce-specversion",
        Context::Id => "ce-id",
        Context::Source => "ce-source",
        Context::Type => "ce-type",
        Context::Subject => "ce-subject",
        Context::Time => "ce-time",
        Context::DataContentType => CONTENT_TYPE,
        Context::DataSchema => "ce-dataschema",
    }
}

/// A header value for a string (CE-12).
#[must_use]
pub fn encode_value(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The string in a header value (CE-13): quoted strings undone, then one round of
/// percent-decoding.
///
/// # Errors
/// A quoted string without an end, a `%` without two digits, or what is not UTF-8 in the end.
pub fn decode_value(value: &[u8]) -> Result<Cow<'_, str>, HeaderFault> {
    if value.contains(&b'"') {
        let plain = unquote(value)?;
        let text = decode_percent(&plain)?.into_owned();
        return Ok(Cow::Owned(text));
    }
    decode_percent(value)
}

fn decode_percent(value: &[u8]) -> Result<Cow<'_, str>, HeaderFault> {
    if !value.contains(&b'%') {
        return std::str::from_utf8(value)
            .map(Cow::Borrowed)
            .map_err(|_| HeaderFault::NotUtf8);
    }
    let mut bytes = value.iter();
    while bytes.any(|byte| *byte == b'%') {
        let digits = [bytes.next(), bytes.next()];
        if !digits
            .iter()
            .all(|digit| digit.is_some_and(u8::is_ascii_hexdigit))
        {
            return Err(HeaderFault::BadPercent);
        }
    }
    percent_decode(value)
        .decode_utf8()
        .map_err(|_| HeaderFault::NotUtf8)
}

/// RFC 9110 §5.6.4: quotes removed, backslash escapes inside them undone.
fn unquote(value: &[u8]) -> Result<Vec<u8>, HeaderFault> {
    let mut plain = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => plain.push(bytes.next().ok_or(HeaderFault::UnendedQuote)?),
            _ => plain.push(byte),
        }
    }
    if quoted {
        Err(HeaderFault::UnendedQuote)
    } else {
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    //! CE-10 to CE-15 as tables.

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Fault, arbitrary};

    fn binary(headers: &[(&str, &str)], body: &'static str) -> Result<Event, Error> {
        let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")];
        let all = required
            .iter()
            .chain(headers)
            .map(|(name, value)| (*name, value.as_bytes()));
        decode_binary(
            all.chain([("CE-Source", &b"/s"[..])]),
            body.into(),
            &Limits::default(),
        )
    }

    #[test]
    fn ce_10_the_content_type_says_the_mode() {
        for (content_type, mode) in [
            (None, Mode::Binary),
            (Some("application/json"), Mode::Binary),
            (Some("application/cloudevent"), Mode::Binary),
            (
                Some("Application/CloudEvents+json; charset=utf-8"),
                Mode::Structured,
            ),
            (Some("application/cloudevents+avro"), Mode::Structured),
            (Some("APPLICATION/cloudevents-batch+json"), Mode::Batched),
        ] {
            assert_eq!(Mode::of_http(content_type), mode, "{content_type:?}");
        }
    }

    #[test]
    fn ce_10_structured_and_batched_are_json_in_utf_8() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        let batch = format!("[{event},3]");
        let check = |content_type: &str, body: &str| {
            // CE-15: the header's id does not count.
            let headers = [
                ("content-type", content_type.as_bytes()),
                ("ce-id", &b"2"[..]),
            ];
            decode(
                headers,
                Bytes::from(body.to_owned()),
                &Limits::default(),
                10,
            )
        };
        for good in [
            "application/cloudevents+json",
            "application/CloudEvents+JSON; charset=\"UTF-8\"",
        ] {
            let Ok(Message::One(event)) = check(good, event) else {
                panic!("{good}")
            };
            assert_eq!(event.id(), "1");
        }
        let Ok(Message::Batch(events)) = check("application/cloudevents-batch+json", &batch) else {
            panic!("no batch")
        };
        assert!(matches!(
            events.as_slice(),
            [Ok(_), Err(Error::NotAnObject)]
        ));
        for bad in [
            "application/cloudevents",
            "application/cloudevents+avro",
            "application/cloudevents-batch+xml",
            "application/cloudevents+json; charset=utf-16",
        ] {
            assert_eq!(check(bad, event), Err(Error::UnsupportedFormat), "{bad}");
        }
    }

    #[test]
    fn ce_11_headers_carry_attributes_and_content_type_the_data_type() {
        let headers = [
            ("content-type", "text/plain"),
            ("Ce-Subject", "a%20b"),
            ("ce-flag", "true"),
            ("host", "x"),
        ];
        let event = binary(&headers, "hi").unwrap();
        assert_eq!(event.source(), "/s");
        assert_eq!(event.datacontenttype(), Some("text/plain"));
        assert_eq!(event.subject(), Some("a b"));
        assert_eq!(event.extension("flag"), Some("true".into()));
        assert_eq!(event.data().unwrap().as_ref(), b"hi");
        assert_eq!(binary(&[], "").unwrap().data(), None);
    }

    #[test]
    fn ce_11_faults_name_the_header_or_the_attribute() {
        let header = |name: &str, fault| Error::Header {
            name: name.into(),
            fault,
        };
        let attribute = |name: &str, fault| Error::from(crate::event::Error::new(name, fault));
        for (name, value, expected) in [
            (
                "ce-datacontenttype",
                "a/b",
                header("ce-datacontenttype", HeaderFault::Forbidden),
            ),
            (
                "ce-subject",
                "%C0%A0",
                header("ce-subject", HeaderFault::NotUtf8),
            ),
            (
                "ce-subject",
                "50%",
                header("ce-subject", HeaderFault::BadPercent),
            ),
            ("ce-subject", "", attribute("subject", Fault::Empty)),
            (
                "ce-subject",
                "%0A",
                attribute("subject", Fault::ForbiddenCharacter),
            ),
            ("ce-id", "2", attribute("id", Fault::Duplicate)),
            ("ce-a_b", "2", attribute("a_b", Fault::InvalidName)),
            ("ce-data", "2", attribute("data", Fault::NotAnExtension)),
            (
                "content-type",
                "json",
                attribute("datacontenttype", Fault::NotAMediaType),
            ),
        ] {
            assert_eq!(
                binary(&[(name, value)], ""),
                Err(expected),
                "{name}: {value}"
            );
        }
        let none = decode([], Bytes::new(), &Limits::default(), 1);
        assert_eq!(none, Err(attribute("specversion", Fault::Missing)));
    }

    #[test]
    fn ce_5_limits_hold_in_binary_mode() {
        let limits = Limits {
            max_attributes: 3,
            max_attribute_bytes: 8,
            max_data_bytes: 2,
        };
        let headers = |id: &'static str| {
            [
                ("ce-specversion", &b"1.0"[..]),
                ("ce-id", id.as_bytes()),
                ("ce-type", b"t"),
                ("ce-source", b"/"),
            ]
        };
        let check =
            |id, body: &'static str| decode_binary(headers(id), body.into(), &limits).unwrap_err();
        assert_eq!(check("1", ""), Error::TooManyAttributes { limit: 3 });
        assert_eq!(
            check("123456789", ""),
            Error::AttributesTooLarge { limit: 8 }
        );
        assert_eq!(check("1", "123"), Error::DataTooLarge { limit: 2 });
        assert!(check("1", "123").is_too_large());
    }

    #[test]
    fn ce_12_values_are_percent_encoded() {
        for (text, encoded) in [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("a\"b%c~!", "a%22b%25c~!"),
            ("\u{a0}", "%C2%A0"),
        ] {
            assert_eq!(encode_value(text), encoded);
            assert_eq!(decode_value(encoded.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn ce_13_values_are_unquoted_and_decoded_once() {
        for (value, expected) in [
            ("%e2%82%ac", Ok("€")),
            ("%41%2541", Ok("A%41")),
            ("€ raw", Ok("€ raw")),
            (r#""a b\"c\\""#, Ok(r#"a b"c\"#)),
            (r#""%22""#, Ok("\"")),
            (r#"a"b c"d"#, Ok("ab cd")),
            (r#""open"#, Err(HeaderFault::UnendedQuote)),
            (r#""open\"#, Err(HeaderFault::UnendedQuote)),
            ("%C0%A0", Err(HeaderFault::NotUtf8)),
            ("%ED%A0%80", Err(HeaderFault::NotUtf8)),
            ("%4", Err(HeaderFault::BadPercent)),
            ("%zz", Err(HeaderFault::BadPercent)),
        ] {
            assert_eq!(
                decode_value(value.as_bytes()).as_deref(),
                expected.as_deref(),
                "{value}"
            );
        }
        assert_eq!(decode_value(b"\xff"), Err(HeaderFault::NotUtf8));
    }

    #[test]
    fn reserved_extensions_stay_inside() {
        let mut event = binary(&[("ce-a", "1")], "").unwrap();
        event.set_tenant("acme").unwrap();
        let count = |reserved| encode_binary(&event, reserved).len();
        assert_eq!(count(Reserved::Keep), count(Reserved::Omit) + 1);
    }

    proptest! {
        #[test]
        fn any_string_comes_back_from_a_header(text in any::<String>()) {
            let encoded = encode_value(&text);
            prop_assert!(encoded.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            prop_assert_eq!(decode_value(encoded.as_bytes()).unwrap(), text);
        }

        #[test]
        fn any_event_comes_back_from_binary_mode(event in arbitrary::event()) {
            let headers = encode_binary(&event, Reserved::Keep);
            let pairs = headers.iter().map(|(name, value)| (name.as_ref(), value.as_bytes()));
            let body = event.data().cloned().unwrap_or_default();
            let got = decode_binary(pairs, body, &Limits::default()).unwrap();
            let kind = |event: &Event| event.datacontenttype().map(str::to_owned);
            if event.datacontenttype().is_some() || event.data().is_none() {
                prop_assert_eq!(kind(&got), kind(&event));
            }
            prop_assert_eq!(got.data(), event.data());
            prop_assert!(got.extension_texts().eq(event.extension_texts()));
            let attributes = |event: &Event| event.context()
                .filter(|(context, _)| *context != Context::DataContentType)
                .map(|(context, text)| (context, text.to_owned())).collect::<Vec<_>>();
            prop_assert_eq!(attributes(&got), attributes(&event));
        }
    }
}
