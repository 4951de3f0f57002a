//! Owns how the command line talks to the public API: the key, the requests, and what a problem
//! answer says.
//!
//! It must never do what the public API cannot, nor read an answer without a bound. The surprise:
//! it uses no proxy from the environment, because a key may be in the request.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use runtime::secret::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::ApiArgs;
use crate::keyring::{self, Keyring};
use crate::settings::Usage;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longer than `?wait=applied` and than ingest's own deadlines.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For bodies and answers of any length: a terabyte at 100 Mbit/s.
const LONG_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// A client of `control` and `ingest`.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    control: Url,
    ingest: Url,
    key: SecretString,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("control", &self.control.as_str())
            .field("ingest", &self.ingest.as_str())
            .finish_non_exhaustive()
    }
}

impl Api {
    /// A client with the key that was given, else with the operator's in `data_dir`.
    ///
    /// # Errors
    /// Where there is no key, or no client can be built.
    pub(crate) fn new(args: &ApiArgs, data_dir: &Path) -> anyhow::Result<Self> {
        Self::reaching(args, &args.control_url, data_dir)
    }

    /// The same, of which [`Api::ask`] also reaches `other`.
    ///
    /// # Errors
    /// As [`Api::new`].
    pub(crate) fn reaching(args: &ApiArgs, other: &Url, data_dir: &Path) -> anyhow::Result<Self> {
        let key = match &args.key {
            Some(key) => SecretString::from(key.as_str()),
            None => operator_key(data_dir)?,
        };
        let control = args.control_url.clone();
        Ok(Self {
            client: client(
                [&control, &args.ingest_url, other]
                    .iter()
                    .any(|url| url.scheme() == "https"),
            )?,
            control,
            ingest: args.ingest_url.clone(),
            key,
        })
    }

    /// Asks `control`. `path` is without `/v1`, each part as it is.
    ///
    /// # Errors
    /// [`Refused`] where the answer is a problem, else what went wrong on the way.
    pub(crate) async fn control(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.control_text(method, path, query, body).await
    }

    /// As [`Api::control`], with a body that is sent as it is.
    ///
    /// # Errors
    /// As `control`.
    pub(crate) async fn control_text(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> anyhow::Result<Answer> {
        let mut url = at(&self.control, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let answer = self.send(method, url, content_type, body).await?;
        answer.accepted()
    }

    /// Sends a batch of events (`application/cloudevents-batch+json`) of a tenant to `ingest`.
    ///
    /// # Errors
    /// What went wrong on the way; the answer may say no.
    pub(crate) async fn publish(&self, tenant: &str, batch: Bytes) -> anyhow::Result<Answer> {
        let url = at(&self.ingest, &["tenants", tenant, "events"])?;
        let content_type = "application/cloudevents-batch+json";
        self.send(Method::POST, url, content_type, Some(batch))
            .await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        content_type: &str,
        body: Option<Bytes>,
    ) -> anyhow::Result<Answer> {
        let place = url.clone();
        let mut request = self.authorized(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        self.finish(&place, request).await
    }

    fn authorized(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url).header(
            AUTHORIZATION,
            format!("Bearer {}", self.key.expose_secret()),
        )
    }

    /// Asks the service at `base`. The path is as in [`Api::control`].
    ///
    /// # Errors
    /// What went wrong on the way; the answer may say no.
    pub(crate) async fn ask(
        &self,
        base: &Url,
        (method, path): (Method, &[&str]),
        body: Option<Bytes>,
    ) -> anyhow::Result<Answer> {
        let url = at(base, path)?;
        self.send(method, url, "application/json", body).await
    }

    /// A request to the service at `base` that may take as long as its body or its answer is.
    ///
    /// # Errors
    /// Where `base` is not the URL of a service.
    pub(crate) fn begin(
        &self,
        base: &Url,
        (method, path): (Method, &[&str]),
        query: &[(&str, &str)],
    ) -> anyhow::Result<RequestBuilder> {
        let mut url = at(base, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.authorized(method, url).timeout(LONG_TIMEOUT))
    }

    /// Sends a request and reads its answer whole.
    ///
    /// # Errors
    /// What went wrong on the way; the answer may say no.
    pub(crate) async fn finish(
        &self,
        place: &Url,
        request: RequestBuilder,
    ) -> anyhow::Result<Answer> {
        // Without the URL: the place is said once, in our words.
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        let origin = place.origin().ascii_serialization();
        let response = sent.with_context(|| format!("{origin} does not answer"))?;
        Self::read(place, response).await
    }

    /// Reads an answer whole.
    ///
    /// # Errors
    /// Where it does not arrive, or is too large.
    pub(crate) async fn read(place: &Url, mut response: Response) -> anyhow::Result<Answer> {
        let place = place.origin().ascii_serialization();
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(reqwest::Error::without_url)?
        {
            anyhow::ensure!(
                body.len() + chunk.len() <= ANSWER_BYTES_MAX,
                "{place}: answer is larger than {ANSWER_BYTES_MAX} bytes"
            );
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body: body.freeze(),
        })
    }
}

impl Answer {
    /// The body as JSON; null where there is none.
    ///
    /// # Errors
    /// Where it is something else.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).context("answer is not json")
    }

    /// How long to wait before the next try, where the answer says so in seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    /// The same, if it is a success.
    ///
    /// # Errors
    /// [`Refused`] with what the problem says.
    pub(crate) fn accepted(self) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(self.refused().into())
    }

    /// What it says, as an error.
    pub(crate) fn refused(&self) -> Refused {
        Refused(self.problem())
    }

    /// What a problem answer says, in one or more lines.
    pub(crate) fn problem(&self) -> String {
        let said = serde_json::from_slice::<Said>(&self.body).unwrap_or_default();
        format!("{} {}", self.status.as_u16(), said.text(self.status))
    }
}

/// The members of a problem answer that people read.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Said {
    title: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    detail: String,
    #[serde(default)]
    pointer: String,
}

impl Said {
    /// In words: the title, the detail, and each fault with its place.
    pub(crate) fn text(&self, status: StatusCode) -> String {
        let title = self
            .title
            .as_deref()
            .or(status.canonical_reason())
            .unwrap_or("no reason given");
        let mut text = title.to_owned();
        if let Some(detail) = &self.detail {
            text = format!("{text}: {detail}");
        }
        for fault in &self.errors {
            text = format!("{text}\n  {}: {}", fault.pointer, fault.detail);
        }
        text
    }
}

fn at(base: &Url, path: &[&str]) -> anyhow::Result<Url> {
    let mut url = base.clone();
    let not_a_base = || Usage(format!("`{base}` is not the url of a service"));
    url.path_segments_mut()
        .map_err(|()| not_a_base())?
        .pop_if_empty()
        .push("v1")
        // Each part is escaped: an id cannot leave its place.
        .extend(path);
    Ok(url)
}

fn operator_key(data_dir: &Path) -> anyhow::Result<SecretString> {
    let path = Keyring::operator_path(data_dir);
    let key = keyring::read(&path)
        .ok()
        .and_then(|keys| keys.into_iter().next());
    Ok(key.ok_or_else(|| {
        Usage(format!(
            "no key: give one with `--key` or ANABRANCH_KEY, or name the data folder of `anabranch \
             up` with `--data-dir` ({} cannot be read)",
            path.display()
        ))
    })?)
}

/// Names the provider of cryptography that clients look for, whoever makes them.
pub(crate) fn provide_cryptography() {
    // Refused only where another part of the process came first, with the same provider.
    drop(rustls::crypto::ring::default_provider().install_default());
}

fn client(tls: bool) -> anyhow::Result<Client> {
    let builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = if tls {
        provide_cryptography();
        builder
    } else {
        // No certificates are read: a bare container has none, and none are needed here.
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.tls_backend_preconfigured(tls)
    };
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_place_in_the_path() {
        let base = Url::parse("http://host:1/behind/").unwrap();
        let url = at(&base, &["tenants", "../x?y"]).unwrap();
        assert_eq!(url.as_str(), "http://host:1/behind/v1/tenants/..%2Fx%3Fy");
    }

    #[test]
    fn a_problem_reads_with_its_faults() {
        let body = r#"{"title":"Some fields are not valid","status":422,"detail":"two faults",
            "errors":[{"detail":"is missing","pointer":"/url"}]}"#;
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let answer = Answer {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        };
        assert_eq!(
            answer.problem(),
            "422 Some fields are not valid: two faults\n  /url: is missing"
        );
        let answer = Answer {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        assert_eq!(
            answer.accepted().unwrap_err().to_string(),
            "502 Bad Gateway"
        );
    }
}
