//! Requests that are no plain POST, and answers that are longer than usual.

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::super::{
    Destination, ITEMS_KEPT_BYTES_MAX, OutgoingRequest, Transport as _, kept_bytes,
};
use super::{Endpoint, PATIENCE, laptop};

#[tokio::test]
async fn a_request_has_its_own_method_and_keeps_as_much_as_it_asks_for() {
    // rule 15: an answer about many items is read as far as it speaks of them.
    let answer = |method: Method| async move {
        let headers = [
            ("deprecation", "@1"),
            ("sunset", "Sun, 31 Jan 2027 00:00:00 GMT"),
        ];
        (headers, format!("{method}{}", "x".repeat(100_000)))
    };
    let router = Router::new().route("/", axum::routing::any(answer));
    let endpoint = Endpoint::serving(router).await;
    let url = Url::parse(&endpoint.url("/")).unwrap();
    for (method, items) in [
        (Method::GET, 0),
        (Method::DELETE, 1_000),
        (Method::PATCH, 9_999),
    ] {
        let request = OutgoingRequest {
            destination: Arc::new(Destination::new(url.clone())),
            method: method.clone(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"payload"),
            timeout: PATIENCE,
            kept_bytes: kept_bytes(items),
        };
        let response = laptop().send(request).await.unwrap();
        assert!(response.body.starts_with(method.as_str().as_bytes()));
        let kept = response.body.len();
        assert_eq!(kept > 100_000, items > 0, "{method}: {kept}");
        assert_eq!(response.truncated, items == 0, "{method}");
        let ending = response.ending.unwrap();
        assert_eq!(ending.deprecation.as_deref(), Some("@1"));
        assert!(ending.sunset.is_some());
    }
    assert_eq!(
        [kept_bytes(0), kept_bytes(32), kept_bytes(33)],
        [16_384, 16_384, 16_896]
    );
    assert_eq!(kept_bytes(usize::MAX), ITEMS_KEPT_BYTES_MAX);
}
