//! Requests that are refused, each with its problem, and nothing of them on the topic.

use runtime::telemetry::metric_faults;
use schemas::records::ControlKey;
use tokio::io::AsyncWriteExt;

use super::harness::{OPERATOR, Reply, Server, bearer, key, options, read, start, write_head};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BINARY: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "/s"),
    ("ce-type", "t"),
];

#[track_caller]
fn check(reply: &Reply, status: u16, problem: &str) {
    assert_eq!(
        (reply.status, reply.problem()),
        (status, problem),
        "{reply:?}"
    );
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
}

/// Headers, body, status, problem and pointer.
type Case<'a> = (
    &'a [(&'a str, &'a str)],
    &'a str,
    u16,
    &'a str,
    Option<&'a str>,
);

async fn check_all(cases: &[Case<'_>]) {
    let server = start(options()).await;
    for (headers, body, status, problem, pointer) in cases {
        let reply = server.post("", headers, body).await;
        check(&reply, *status, problem);
        let got = reply.body["errors"][0]["pointer"].as_str();
        assert_eq!(got, *pointer, "{headers:?} {body}");
    }
    assert_eq!(server.events(), []);
    assert_eq!(
        server.metric("anabranch_ingest_events_total{result=\"accepted\"}"),
        0.0
    );
}

#[tokio::test]
async fn json_that_is_no_event_is_refused_by_what_is_wrong_with_it() {
    let reserved = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","anabranchloop":1}"#;
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let avro = [("content-type", "application/cloudevents+avro")];
    check_all(&[
        (&[STRUCTURED], "{", 400, "malformed", None),
        (&[STRUCTURED], "", 400, "malformed", None),
        (&[STRUCTURED], "[]", 422, "validation", Some("")),
        (
            &[STRUCTURED],
            r#"{"specversion":"1.0"}"#,
            422,
            "validation",
            Some("/id"),
        ),
        (
            &[STRUCTURED],
            reserved,
            422,
            "validation",
            Some("/anabranchloop"),
        ),
        (&avro, "{}", 415, "unsupported-media-type", None),
        (&batch, "{}", 422, "validation", Some("")),
        (&batch, "[{}", 400, "malformed", None),
    ])
    .await;
}

#[tokio::test]
async fn headers_that_are_no_event_are_refused_by_what_is_wrong_with_them() {
    let json = [("content-type", "application/json")];
    let mut reserved = BINARY.to_vec();
    reserved.push(("ce-anabranchtenant", "other"));
    check_all(&[
        (&json, "{}", 422, "validation", Some("/specversion")),
        (
            &[("ce-specversion", "0.3")],
            "{}",
            422,
            "validation",
            Some("/specversion"),
        ),
        (&[("ce-id", "%C0%A0")], "{}", 400, "malformed", None),
        (&reserved, "", 422, "validation", Some("/anabranchtenant")),
    ])
    .await;
}

#[tokio::test]
async fn plain_requests_are_refused_by_what_is_wrong_with_them() {
    let server = start(options()).await;
    check(&server.post("/t", &[], "{\"a\":").await, 400, "malformed");
    check(&server.post("/t", &[], b"\"\xff\"").await, 400, "malformed");
    check(
        &server.post("/t", &[STRUCTURED], "{}").await,
        415,
        "unsupported-media-type",
    );
    check(&server.post("/%FF", &[], "{}").await, 400, "malformed");
    for (headers, path, pointer) in [
        (&[("idempotency-key", "\"\"")][..], "/t", "/id"),
        (&[("x-source", "not a uri")], "/t", "/source"),
        (&[("content-type", "nonsense")], "/t", "/datacontenttype"),
        (&[], "/%01", "/type"),
    ] {
        let reply = server.post(path, headers, "{}").await;
        check(&reply, 422, "validation");
        assert_eq!(reply.body["errors"][0]["pointer"], pointer);
    }
    let twice = [("x-source", "/a"), ("x-source", "/b")];
    check(&server.post("/t", &twice, "{}").await, 400, "malformed");
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn other_paths_and_methods_are_problems_too() {
    let server = start(options()).await;
    let key = bearer(1);
    let headers = [("authorization", key.as_str())];
    let path = "/v1/tenants/acme/events";
    check(
        &server.send("GET", path, &headers, b"").await,
        405,
        "method-not-allowed",
    );
    assert_eq!(
        server
            .send("PUT", path, &headers, b"")
            .await
            .header("allow"),
        Some("POST")
    );
    for other in ["/", "/v1/tenants/acme", "/v1/tenants/acme/events/a/b"] {
        check(
            &server.send("POST", other, &headers, b"").await,
            404,
            "not-found",
        );
    }
    assert_eq!(
        server.metric("anabranch_ingest_requests_total{result=\"not_found\"}"),
        3.0
    );
    assert_eq!(metric_faults(&server.metrics), Vec::<String>::new());
}

async fn as_principal(server: &Server, authorization: &str, tenant: &str) -> Reply {
    let path = format!("/v1/tenants/{tenant}/events/t");
    server
        .send("POST", &path, &[("authorization", authorization)], b"{}")
        .await
}

#[tokio::test]
async fn keys_open_their_own_tenant_until_they_are_revoked() {
    let server = start(options()).await;
    let operator = format!("Bearer {OPERATOR}");
    assert_eq!(as_principal(&server, &bearer(1), "acme").await.status, 202);
    assert_eq!(as_principal(&server, &operator, "acme").await.status, 202);
    check(
        &as_principal(&server, &bearer(1), "other").await,
        403,
        "forbidden",
    );
    check(
        &as_principal(&server, &bearer(9), "acme").await,
        401,
        "unauthorized",
    );
    check(
        &as_principal(&server, &operator, "nobody").await,
        404,
        "not-found",
    );
    let open = server
        .send("POST", "/v1/tenants/acme/events/t", &[], b"{}")
        .await;
    check(&open, 401, "unauthorized");
    assert_eq!(open.header("www-authenticate"), Some("Bearer"));

    let offset = server.metric("anabranch_ingest_control_offset");
    server.delete(&ControlKey::ApiKey(key(1).id())).await;
    server
        .until("anabranch_ingest_control_offset", offset + 1.0)
        .await;
    check(
        &as_principal(&server, &bearer(1), "acme").await,
        401,
        "unauthorized",
    );
    let tenants: Vec<_> = server
        .events()
        .iter()
        .map(|event| event.tenant().unwrap().to_owned())
        .collect();
    assert_eq!(tenants, ["acme", "acme"]);
}

#[tokio::test]
async fn a_connection_survives_a_request_that_was_refused_early() {
    let server = start(options()).await;
    let key = bearer(1);
    let path = "/v1/tenants/acme/events/t";
    let mut stream = server.open("POST", path, &[("content-length", "2")]).await;
    stream.write_all(b"{}").await.unwrap();
    check(&read(&mut stream).await, 401, "unauthorized");
    write_head(
        &mut stream,
        "POST",
        path,
        &[("content-length", "2"), ("authorization", &key)],
    )
    .await;
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(read(&mut stream).await.status, 202);
}
