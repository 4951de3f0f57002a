//! CE-7 to CE-9 and CE-14 as tables, and round trips.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::{Error, Reserved};
use crate::event::{self, AttributeValue, Event, Fault, Limits, arbitrary};

fn read(text: &str) -> Result<Event, Error> {
    decode(&Bytes::from(text.to_owned()), &Limits::default())
}

/// The required members and more.
fn with(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{members}}}"#)
}

fn attribute(name: &str, fault: Fault) -> Error {
    event::Error::new(name, fault).into()
}

fn written(event: &Event) -> String {
    let mut out = Vec::new();
    encode(event, Reserved::Keep, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn ce_7_an_event_is_an_object() {
    for text in ["3", "\"x\"", "null", "true", "1.5", "[[1],{}]"] {
        assert_eq!(read(text), Err(Error::NotAnObject), "{text}");
    }
    for text in [
        "",
        "{",
        "{}x",
        "{\"id\":}",
        r#"{"id":"\ud800"}"#,
        "[",
        "\u{feff}{}",
    ] {
        assert!(matches!(read(text), Err(Error::Syntax { .. })), "{text}");
    }
    assert_eq!(read("{}"), Err(attribute("specversion", Fault::Missing)));
}

#[test]
fn ce_8_null_attributes_are_absent_and_null_data_is_not() {
    let event = read(&with(r#","subject":null,"ext":null,"data_base64":null"#)).unwrap();
    assert_eq!(
        (event.subject(), event.extension("ext"), event.data()),
        (None, None, None)
    );
    let event = read(&with(r#","data" : null"#)).unwrap();
    assert_eq!(event.data().unwrap().as_ref(), b"null");
    assert_eq!(
        read(&with(r#","data":1,"data_base64":"MQ==""#)),
        Err(Error::DataTwice)
    );
    let missing = r#"{"specversion":"1.0","id":null,"source":"/s","type":"t"}"#;
    assert_eq!(read(missing), Err(attribute("id", Fault::Missing)));
}

#[test]
fn ce_8_base64_is_bytes() {
    let event = read(&with(
        r#","data_base64":"\u002fw==","datacontenttype":"a/b""#,
    ))
    .unwrap();
    assert_eq!(event.data().unwrap().as_ref(), b"\xff");
    for value in ["\"MQ\"", "\"!\"", "3", "[]", "true", "1.5"] {
        let got = read(&with(&format!(r#","data_base64":{value}"#)));
        assert_eq!(got, Err(Error::InvalidBase64), "{value}");
    }
}

#[test]
fn ce_9_json_data_keeps_its_bytes() {
    let raw = r#"{ "b":1.00,"a":"\u20AC\ud800", "b":[ ]}"#;
    for members in [
        format!(r#","data": {raw} "#),
        format!(r#","data":{raw},"datacontenttype":"application/x+json""#),
    ] {
        let event = read(&with(&members)).unwrap();
        assert_eq!(event.data().unwrap().as_ref(), raw.as_bytes());
        assert!(written(&event).contains(raw));
    }
}

#[test]
fn ce_9_other_data_is_the_text_of_a_string() {
    for (value, expected) in [
        (r#""{\"a\":1}""#, Ok(r#"{"a":1}"#)),
        (r#""plain €""#, Ok("plain €")),
        (r#""""#, Ok("")),
        ("1", Err(Error::DataNotText)),
        ("null", Err(Error::DataNotText)),
        (r#""\ud800""#, Err(Error::DataNotText)),
    ] {
        let got = read(&with(&format!(
            r#","data":{value},"datacontenttype":"text/plain""#
        )));
        let got = got.map(|event| event.data().unwrap().clone());
        assert_eq!(
            got,
            expected.map(|text: &str| text.to_owned().into()),
            "{value}"
        );
    }
}

#[test]
fn ce_9_data_leaves_in_the_form_of_its_type() {
    for (kind, data, expected) in [
        (
            "application/json",
            &b"{bad"[..],
            r#""data_base64":"e2JhZA==""#,
        ),
        ("application/json", b" 1 ", r#""data": 1 "#),
        ("application/json", b"", r#""data_base64":"""#),
        (
            "text/plain",
            b"a\"b\\\n\x01\x7f",
            "\"data\":\"a\\\"b\\\\\\n\\u0001\u{7f}\"",
        ),
        (
            "application/soap+xml; charset=utf-8",
            b"<a/>",
            r#""data":"<a/>""#,
        ),
        ("text/plain", b"\xff", r#""data_base64":"/w==""#),
        (
            "application/octet-stream",
            b"abc",
            r#""data_base64":"YWJj""#,
        ),
    ] {
        let event = Event::builder("1", "/s", "t")
            .data(kind, data)
            .build()
            .unwrap();
        let text = written(&event);
        assert!(text.ends_with(&format!("{expected}}}")), "{text}");
    }
}

#[test]
fn members_given_twice_are_refused() {
    for (members, name) in [
        (r#","id":"2""#, "id"),
        (r#","ext":1,"ext":1"#, "ext"),
        (r#","ext":null,"ext":1"#, "ext"),
        (r#","ext":1,"ext":null"#, "ext"),
        (r#","ext":1,"\u0065xt":1"#, "ext"),
        (r#","subject":null,"subject":null"#, "subject"),
        (r#","data":1,"data":1"#, "data"),
        (r#","data_base64":"","data_base64":"""#, "data_base64"),
        (r#","data_base64":null,"data_base64":"""#, "data_base64"),
    ] {
        assert_eq!(
            read(&with(members)),
            Err(attribute(name, Fault::Duplicate)),
            "{members}"
        );
    }
}

#[test]
fn attributes_are_scalars_of_ce_2() {
    let event = read(&with(r#","a":-2147483648,"b":false,"c":"\u0041""#)).unwrap();
    let got: Vec<_> = event.extensions().collect();
    let expected = [
        ("a", AttributeValue::Integer(i32::MIN)),
        ("b", AttributeValue::Boolean(false)),
        ("c", AttributeValue::String("A")),
    ];
    assert_eq!(got, expected);
    for (members, name, fault) in [
        (r#","a":1.5"#, "a", Fault::NotAnInteger),
        (r#","a":1e2"#, "a", Fault::NotAnInteger),
        (r#","a":2147483648"#, "a", Fault::NotAnInteger),
        (r#","a":-99999999999999999999"#, "a", Fault::NotAnInteger),
        (r#","a":[[1]]"#, "a", Fault::NotAScalar),
        (r#","a":{"b":{}}"#, "a", Fault::NotAScalar),
        (r#","subject":1"#, "subject", Fault::NotAString),
        (r#","a":"\n""#, "a", Fault::ForbiddenCharacter),
        (r#","myExt":1"#, "myExt", Fault::InvalidName),
        (r#","my_ext":null"#, "my_ext", Fault::InvalidName),
    ] {
        let error = read(&with(members)).unwrap_err();
        assert_eq!(error, attribute(name, fault), "{members}");
        assert_eq!(error.pointer(), Some(format!("/{name}")));
    }
    let odd = read(&with(r#","a/b~":1"#)).unwrap_err();
    assert_eq!(odd.pointer().as_deref(), Some("/a~1b~0"));
}

#[test]
fn ce_5_limits_hold() {
    let limits = Limits {
        max_attributes: 5,
        max_attribute_bytes: 20,
        max_data_bytes: 3,
    };
    let check = |members: &str| decode(&with(members).into(), &limits).unwrap_err();
    assert_eq!(
        check(r#","a":1,"b":1"#),
        Error::TooManyAttributes { limit: 5 }
    );
    let nulls: String = (0..9).map(|at| format!(r#","n{at}":null"#)).collect();
    assert_eq!(check(&nulls), Error::TooManyAttributes { limit: 5 });
    assert_eq!(
        check(r#","a":"12345678901234567890""#),
        Error::AttributesTooLarge { limit: 20 }
    );
    assert_eq!(check(r#","data":1234"#), Error::DataTooLarge { limit: 3 });
    assert_eq!(
        check(r#","data_base64":"MTIzNA==""#),
        Error::DataTooLarge { limit: 3 }
    );
    assert!(decode(&with(r#","data_base64":"MTIz""#).into(), &limits).is_ok());
}

#[test]
fn ce_14_a_batch_has_a_result_for_each_event() {
    let good = with(r#","data":[1]"#);
    let text = format!(r#" [{good}, {{"a":1.5,"x":[{{}}],"y":"z"}}, [1,[2]], 3, null, {good} ] "#);
    let events = decode_batch(&text.clone().into(), &Limits::default(), 6).unwrap();
    let faults: Vec<_> = events.into_iter().map(Result::err).collect();
    let not_an_object = Some(Error::NotAnObject);
    let expected = [
        None,
        Some(attribute("a", Fault::NotAnInteger)),
        not_an_object.clone(),
        not_an_object.clone(),
        not_an_object,
        None,
    ];
    assert_eq!(faults, expected);
    let check = |text: &str, max| decode_batch(&text.to_owned().into(), &Limits::default(), max);
    assert_eq!(check(&text, 5), Err(Error::TooManyEvents { limit: 5 }));
    assert_eq!(check("[]", 0), Ok(Vec::new()));
    for text in ["{\"a\":[]}", "1", "null", "\"\""] {
        assert_eq!(check(text, 1), Err(Error::NotAnArray), "{text}");
    }
    assert!(matches!(check("[{},", 9), Err(Error::Syntax { .. })));
    assert!(matches!(check("[]]", 9), Err(Error::Syntax { .. })));
}

#[test]
fn deep_documents_are_read_without_recursion() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let event = read(&with(&format!(r#","data":{}"#, deep(100_000)))).unwrap();
    assert_eq!(event.data().unwrap().len(), 200_000);
    let nested = read(&with(&format!(r#","ext":{}"#, deep(100_000))));
    assert_eq!(nested, Err(attribute("ext", Fault::NotAScalar)));
}

#[test]
fn data_shares_the_input() {
    let input = Bytes::from(with(r#","data":{"a":1}"#));
    let event = decode(&input, &Limits::default()).unwrap();
    let inside = input.as_ptr_range();
    assert!(inside.contains(&event.data().unwrap().as_ptr()));
}

#[test]
fn reserved_extensions_stay_inside() {
    let mut event = read(&with(r#","a":true"#)).unwrap();
    event.set_tenant("acme").unwrap();
    let mut out = Vec::new();
    encode(&event, Reserved::Omit, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), with(r#","a":true"#));
    assert!(written(&event).contains(r#""anabranchtenant":"acme""#));
}

/// JSON data without the whitespace around it, which is not part of a member's value.
fn trimmed(event: &Event) -> Option<Bytes> {
    let data = event.data()?;
    if !event.has_valid_json() {
        return Some(data.clone());
    }
    let text = std::str::from_utf8(data).unwrap();
    Some(text.trim_matches([' ', '\t', '\r', '\n']).to_owned().into())
}

proptest! {
    #[test]
    fn any_event_comes_back(event in arbitrary::event()) {
        let got = read(&written(&event)).unwrap();
        prop_assert!(got.context().eq(event.context()));
        prop_assert!(got.extensions().eq(event.extensions()));
        prop_assert_eq!(got.data().cloned(), trimmed(&event));
    }

    #[test]
    fn batches_come_back(events in proptest::collection::vec(arbitrary::event(), 0..5)) {
        let texts: Vec<_> = events.iter().map(written).collect();
        let batch = format!("[{}]", texts.join(","));
        let got = decode_batch(&batch.into(), &Limits::default(), 5).unwrap();
        let expected: Vec<_> = texts.iter().map(|text| read(text)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn strings_are_written_as_serde_json_reads_them(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&text, &mut out);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
