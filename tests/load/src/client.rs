//! Owns HTTP requests: one keep-alive connection, and JSON over it.
//!
//! It must never hide an answer: callers see every status. The surprise: it is hyper without a
//! pool, so that the load costs little beside what it loads.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Of an answer that refuses an upload; it may name every bad row.
const SAID_CHARS_MAX: usize = 1_000;
/// Names those who have not applied a change that was to be waited for.
const NOT_APPLIED: &str = "anabranch-not-applied";

/// A keep-alive connection, opened anew where the server has closed it between two requests.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    connected: Connected,
    headers: HeaderMap,
}

impl Connection {
    /// Connects; every request will carry `key`, unless it is empty.
    ///
    /// # Errors
    /// Where nobody listens.
    pub(crate) async fn open(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let connected = connect(address).await?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&address.to_string())?);
        if !key.is_empty() {
            let bearer = HeaderValue::from_str(&format!("Bearer {key}"))?;
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Self {
            address,
            connected,
            headers,
        })
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// Where there is no answer.
    pub(crate) async fn send(
        &mut self,
        (method, path): (Method, &str),
        content_type: &'static str,
        body: Bytes,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::new(body))?;
        *request.headers_mut() = self.headers.clone();
        if !content_type.is_empty() {
            let content_type = HeaderValue::from_static(content_type);
            request.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        if self.connected.0.ready().await.is_err() {
            // Nothing of the request has been sent.
            self.connected = connect(self.address).await?;
            self.connected.0.ready().await?;
        }
        let response = self.connected.0.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// Where the answer is no success.
    pub(crate) async fn json(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (kind, bytes) = match body {
            Some(body) => ("application/json", serde_json::to_vec(body)?.into()),
            None => ("", Bytes::new()),
        };
        let answer = self.send((method.clone(), path), kind, bytes).await?;
        let (status, text) = (answer.status(), String::from_utf8_lossy(answer.body()));
        if !status.is_success() {
            bail!("{method} {path}: {status}: {text}");
        }
        if let Some(names) = answer.headers().get(NOT_APPLIED) {
            bail!("{method} {path}: not applied by {names:?}");
        }
        Ok(serde_json::from_slice(answer.body())?)
    }
}

/// The connection ends with the second.
type Connected = (SendRequest<Full<Bytes>>, JoinSet<hyper::Result<()>>);

async fn connect(address: SocketAddr) -> anyhow::Result<Connected> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| address.to_string())?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Ok((sender, driver))
}

/// Posts a body piece by piece with a key, and reads JSON.
///
/// # Errors
/// Where the answer is no success.
pub(crate) async fn upload(
    (address, key): (SocketAddr, &str),
    path: &str,
    content_type: &'static str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| address.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let body = StreamBody::new(pieces.map_ok(Frame::data));
    let request = Request::post(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, format!("Bearer {key}"))
        .header(CONTENT_TYPE, content_type)
        .body(Box::pin(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if !head.status.is_success() {
        let text = String::from_utf8_lossy(&body);
        let begin: String = text.chars().take(SAID_CHARS_MAX).collect();
        bail!("POST {path}: {}: {begin}", head.status);
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Whether `GET path` is answered with 200 there.
pub(crate) async fn is_ok(address: SocketAddr, path: &str) -> bool {
    let asked = async {
        let mut connection = Connection::open(address, "").await?;
        connection.send((Method::GET, path), "", Bytes::new()).await
    };
    asked
        .await
        .is_ok_and(|answer| answer.status() == StatusCode::OK)
}
