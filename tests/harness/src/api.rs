//! Owns requests to the public API.

use std::sync::OnceLock;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// A client of one address with one key.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    base: String,
    key: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("json expected: {self:?}"))
    }

    /// Itself, where it has the status.
    ///
    /// # Panics
    /// When it has another.
    #[must_use]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

impl Api {
    /// A client of `base` (`http://host:port`) with `key`.
    pub fn new(base: &str, key: &str) -> Self {
        Self {
            client: client(),
            base: base.to_owned(),
            key: key.to_owned(),
        }
    }

    /// The same with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// The same with connections of its own, for another thread: a connection is driven by the
    /// runtime that opened it, which may be busy waiting for that thread.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::new(&self.base, &self.key)
    }

    /// Its address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A JSON request.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let text = body.map(ToString::to_string).unwrap_or_default();
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        let headers = if body.is_some() { json.as_slice() } else { &[] };
        self.send(method, path, headers, text)
            .await
            .expect("an answer")
    }

    /// `POST` that makes something.
    ///
    /// # Panics
    /// Unless it is answered with 200 or 201.
    pub async fn make(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        assert!(
            [200, 201].contains(&answer.status),
            "POST {path}: {answer:?}"
        );
        answer.json()
    }

    /// Any request.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(String, String)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        let response = request.body(body).send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        Ok(Answer {
            status,
            headers,
            text: response.text().await?,
        })
    }

    /// Whether `GET path` is answered with 200.
    pub async fn is_ok(&self, path: &str) -> bool {
        let sent = self.send(Method::GET, path, &[], "").await;
        sent.is_ok_and(|answer| answer.status == StatusCode::OK.as_u16())
    }
}

fn client() -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // Another part of the test may have installed one: any will do.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
    });
    Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(40))
        .build()
        .expect("a client")
}
