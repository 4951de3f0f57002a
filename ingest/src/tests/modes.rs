//! What is sent in each mode is what is on the topic.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::codec::http::encode_binary;
use schemas::codec::{Reserved, json};
use schemas::event::Event;
use serde_json::json;

use super::harness::{options, start};

const STRUCTURED: (&str, &str) = (
    "content-type",
    "application/cloudevents+json; charset=UTF-8",
);
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

#[tokio::test]
async fn ce_11_binary_mode_arrives_with_its_data_as_it_was() {
    let server = start(options()).await;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a-1"),
        ("ce-source", "/shop"),
        ("ce-type", "order.created"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-partitionkey", "k1"),
        ("content-type", "application/octet-stream"),
    ];
    let reply = server.post("", &headers, b"\x00\xff raw").await;
    assert_eq!(reply.status, 202);
    assert_eq!(
        reply.body,
        json!({"id": "a-1", "source": "/shop", "type": "order.created"})
    );
    let records = server.records();
    let [(key, event)] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!(event.data().unwrap().as_ref(), b"\x00\xff raw");
    assert_eq!(event.subject(), Some("Euro €"));
    assert_eq!(event.datacontenttype(), Some("application/octet-stream"));
    assert_eq!(event.tenant(), Some("acme"));
    assert!(
        event
            .attribute("anabranchaccepted")
            .unwrap()
            .parse::<i64>()
            .unwrap()
            > 0
    );
    assert_eq!(key.as_deref(), Some(&b"k1"[..]), "CE-18");
    assert_eq!(
        server.metric("anabranch_ingest_events_total{result=\"accepted\"}"),
        1.0
    );
}

#[tokio::test]
async fn ce_9_structured_mode_keeps_the_bytes_of_its_data() {
    let server = start(options()).await;
    let data = "{ \"b\" : 1.50,\n\"a\":\"\\u00e9\" }";
    let body = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"s","flag":true,"data":{data}}}"#
    );
    assert_eq!(server.post("", &[STRUCTURED], &body).await.status, 202);
    let records = server.records();
    assert_eq!(records[0].1.data().unwrap().as_ref(), data.as_bytes());
    assert_eq!(records[0].1.extension("flag"), Some(true.into()), "CE-6");
    assert_eq!(records[0].0.as_deref(), Some(&b"s"[..]), "CE-18: subject");
}

#[tokio::test]
async fn ce_14_a_batch_is_answered_event_by_event() {
    let server = start(options()).await;
    let event =
        |id: &str| json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": id});
    let mut reserved = event("3");
    reserved["anabranchtenant"] = "other".into();
    let body = json!([event("1"), {"id": "2"}, reserved, 7, event("5")]).to_string();
    let reply = server.post("", &[BATCH], &body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        (&reply.body["accepted"], &reply.body["rejected"]),
        (&2.into(), &3.into())
    );
    let results = reply.body["results"].as_array().unwrap();
    let statuses: Vec<_> = results
        .iter()
        .map(|result| result["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [202, 422, 422, 422, 202]);
    assert_eq!(results[0]["id"], "1");
    assert_eq!(
        results[1]["error"]["errors"][0]["pointer"],
        "/1/specversion"
    );
    assert_eq!(
        results[2]["error"]["errors"][0]["pointer"],
        "/2/anabranchtenant"
    );
    let ids: Vec<_> = server
        .events()
        .iter()
        .map(|event| event.id().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    assert!(
        ids.contains(&"1".to_owned()) && ids.contains(&"5".to_owned()),
        "{ids:?}"
    );

    let all = server
        .post("", &[BATCH], json!([event("6")]).to_string())
        .await;
    assert_eq!((all.status, &all.body["accepted"]), (202, &1.into()));
    let none = server.post("", &[BATCH], "[{}]").await;
    assert_eq!(
        (none.status, none.problem(), &none.body["accepted"]),
        (422, "validation", &0.into())
    );
    assert_eq!(none.body["results"][0]["status"], 422);
    let empty = server.post("", &[BATCH], "[]").await;
    assert_eq!(
        (empty.status, &empty.body["results"]),
        (202, &json!([])),
        "CE-7"
    );
}

#[tokio::test]
async fn somebody_who_never_heard_of_cloudevents_posts_json() {
    let server = start(options()).await;
    let json = ("content-type", "application/json");
    let key = ("idempotency-key", "\"8e03978e\"");
    let reply = server
        .post(
            "/github.push",
            &[json, key, ("x-source", "https://github.com/a")],
            "{\"a\": 1}",
        )
        .await;
    assert_eq!(reply.status, 202);
    assert_eq!(
        reply.body,
        json!({"id": "8e03978e", "source": "https://github.com/a", "type": "github.push"})
    );
    let event = &server.events()[0];
    assert_eq!(event.data().unwrap().as_ref(), b"{\"a\": 1}");
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert!(event.time().is_some_and(|time| time.ends_with('Z')));

    let made = server.post("/t", &[], "[1]").await;
    assert_eq!(
        (made.status, &made.body["source"]),
        (202, &"/tenants/acme".into())
    );
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(
        (id.len(), id.as_bytes()[14]),
        (36, b'7'),
        "a version 7 UUID"
    );
}

#[tokio::test]
async fn the_content_type_of_plain_data_is_kept_but_for_json_in_a_form() {
    let server = start(options()).await;
    for (index, (content_type, body, expected)) in [
        (None, "{}", Some("application/json")),
        (Some("text/plain"), "hello", Some("text/plain")),
        (
            Some("application/x-www-form-urlencoded"),
            "a=1&b=2",
            Some("application/x-www-form-urlencoded"),
        ),
        (
            Some("application/x-www-form-urlencoded"),
            "{\"a\":1}",
            Some("application/json"),
        ),
        (Some("application/json"), "", None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = index.to_string();
        let mut headers = vec![("x-request-id", id.as_str())];
        headers.extend(content_type.map(|ty| ("content-type", ty)));
        assert_eq!(
            server.post("/a%2Fb", &headers, body).await.status,
            202,
            "{body}"
        );
        let event = server
            .events()
            .into_iter()
            .find(|event| event.id() == id)
            .unwrap();
        assert_eq!(
            (event.datacontenttype(), event.ty()),
            (expected, "a/b"),
            "{body}"
        );
        assert_eq!(
            event.data().map(|data| data.as_ref()),
            Some(body.as_bytes()).filter(|body| !body.is_empty())
        );
    }
}

#[tokio::test]
async fn ex_3_the_requests_trace_becomes_the_events_where_it_has_none() {
    let server = start(options()).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        server
            .post("/t", &[("traceparent", parent)], "{}")
            .await
            .status,
        202
    );
    assert_eq!(server.events()[0].attribute("traceparent"), Some(parent));
}

/// Any event, in binary, structured and batched mode, comes back from the topic as it was.
#[test]
fn any_event_comes_back_from_the_topic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(start(options()));
    let count = Cell::new(0);
    let strategy = (
        proptest::collection::vec(any::<u8>(), 1..200),
        "[ -~é€😀]{1,20}",
        proptest::option::of("[a-z]{1,6}"),
        0_usize..3,
    );
    let mut runner = TestRunner::new(Config::with_cases(48));
    let run = runner.run(&strategy, |(data, subject, extension, mode)| {
        count.set(count.get() + 1);
        let mut builder = Event::builder(&count.get().to_string(), "/s", "t").subject(&subject);
        if let Some(value) = &extension {
            builder = builder.attribute("extra", value.as_str());
        }
        let event = builder
            .data("application/octet-stream", data)
            .build()
            .unwrap();
        runtime.block_on(async {
            let reply = match mode {
                0 => {
                    let headers = encode_binary(&event, Reserved::Keep);
                    let headers: Vec<_> = headers
                        .iter()
                        .map(|(name, value)| (name.as_ref(), value.as_str()))
                        .collect();
                    server.post("", &headers, event.data().unwrap()).await
                }
                1 => server.post("", &[STRUCTURED], structured(&event)).await,
                _ => {
                    server
                        .post("", &[BATCH], [b"[", &structured(&event)[..], b"]"].concat())
                        .await
                }
            };
            assert_eq!(reply.status, 202, "{reply:?}");
        });
        let arrived: BTreeMap<_, _> = server
            .events()
            .into_iter()
            .map(|event| (event.id().to_owned(), event))
            .collect();
        let mut arrived = arrived[event.id()].clone();
        assert!(
            arrived.remove_extension("anabranchtenant")
                && arrived.remove_extension("anabranchaccepted")
        );
        prop_assert_eq!(arrived, event);
        Ok(())
    });
    run.unwrap();
}

fn structured(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    json::encode(event, Reserved::Keep, &mut out);
    out
}
