//! Owns the connections to endpoints: the only opener of sockets to them (rules 10 and 18).
//!
//! Never follows a redirect, uses a proxy, repeats a request by itself, decompresses, or connects
//! to an address that the policy did not vet. The surprise: a pooled connection was vetted when it
//! was made and each new one is vetted again, so a name that changes its addresses gains nothing.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::address::{LOOKUP_TIMEOUT, LookupError, Policy, Refusal, Resolve, VettedResolver};
use super::read_capped::{Caps, read_capped};
use super::{Answer, OutgoingRequest, Response, Transport, TransportError, TransportErrorKind};
use super::{BODY_KEPT_BYTES_MAX, BODY_READ_BYTES_MAX};

/// A header of a response that is longer than this is not kept.
const HEADER_KEPT_CHARS_MAX: usize = 256;
/// An error's text is cut here.
const ERROR_TEXT_CHARS_MAX: usize = 300;
/// What one HTTP/2 stream may send ahead of being read; a body is read to this size anyway.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// A busy HTTP/2 connection whose peer has vanished is noticed after this and closed after as much
/// again; otherwise every attempt would be put on it and time out.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// How connections to endpoints are made and kept.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where connections may go.
    pub policy: Policy,
    /// The longest a connection may take, TLS included (SS-8).
    pub connect_timeout: Duration,
    /// The longest a name lookup may take (SS-8).
    pub lookup_timeout: Duration,
    /// Bytes of a response body that are kept (SS-8).
    pub body_kept_bytes: usize,
    /// Bytes of a response body that are read before the connection is dropped (SS-8).
    pub body_read_bytes: u64,
    /// An unused connection is closed after this; short enough to be ahead of most servers.
    pub pool_idle_timeout: Duration,
    /// Unused connections kept for one host: as many as it may have in flight.
    pub pool_idle_per_host_max: usize,
    /// Certificate authorities trusted beside the system's, as PEM: a private PKI, or a test's.
    pub extra_roots_pem: Vec<u8>,
}

/// The transport of production: HTTP/1.1, or HTTP/2 where the endpoint offers it.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
    policy: Arc<Policy>,
    caps: Caps,
}

/// Why there can be no transport.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The extra certificate authorities cannot be read.
    #[error("extra root certificates: {0}")]
    Roots(#[source] Box<dyn StdError + Send + Sync>),
    /// TLS cannot be set up.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be built.
    #[error("http client: {0}")]
    Client(#[from] reqwest::Error),
}

// === impl ClientSettings ===

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            connect_timeout: Duration::from_secs(10),
            lookup_timeout: LOOKUP_TIMEOUT,
            body_kept_bytes: BODY_KEPT_BYTES_MAX,
            body_read_bytes: BODY_READ_BYTES_MAX,
            pool_idle_timeout: Duration::from_secs(30),
            pool_idle_per_host_max: 64,
            extra_roots_pem: Vec::new(),
        }
    }
}

// === impl HttpTransport ===

impl HttpTransport {
    /// A transport that finds names by `resolver` and vets what it answers.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn new(settings: ClientSettings, resolver: Arc<dyn Resolve>) -> Result<Self, BuildError> {
        let policy = Arc::new(settings.policy);
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(&settings.extra_roots_pem)?)
            .dns_resolver(VettedResolver::new(
                resolver,
                Arc::clone(&policy),
                settings.lookup_timeout,
            ))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .https_only(!(policy.allow_http || policy.allow_loopback))
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(settings.pool_idle_timeout)
            .pool_max_idle_per_host(settings.pool_idle_per_host_max)
            .tcp_nodelay(true)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING)
            .build()?;
        let caps = Caps {
            kept: settings.body_kept_bytes,
            read: settings.body_read_bytes,
        };
        Ok(Self {
            client,
            policy,
            caps,
        })
    }

    async fn exchange(&self, request: OutgoingRequest) -> Answer {
        let OutgoingRequest {
            url,
            headers,
            body,
            timeout: _,
        } = request;
        let mut outgoing = reqwest::Request::new(Method::POST, url);
        *outgoing.headers_mut() = headers;
        *outgoing.body_mut() = Some(body.into());
        let response = self
            .client
            .execute(outgoing)
            .await
            .map_err(transport_error)?;
        let status = response.status().as_u16();
        let retry_after = kept_header(response.headers(), &RETRY_AFTER);
        let content_type = kept_header(response.headers(), &CONTENT_TYPE);
        let read = read_capped(response, self.caps)
            .await
            .map_err(transport_error)?;
        Ok(Response {
            status,
            retry_after,
            content_type,
            body: read.kept,
            body_bytes_read: read.bytes_read,
            truncated: read.truncated,
        })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: OutgoingRequest) -> Answer {
        // A literal address never reaches the resolver, hence this check each time (SS-2).
        self.policy.check_url(&request.url).map_err(refused)?;
        let deadline = request.timeout;
        tokio::time::timeout(deadline, self.exchange(request))
            .await
            .unwrap_or_else(|_| {
                let text = format!("no complete response within {deadline:?}");
                Err(TransportError::new(TransportErrorKind::Timeout, text))
            })
    }
}

/// The system's certificate authorities and the extra ones, on the ring provider.
fn tls_config(extra_roots_pem: &[u8]) -> Result<ClientConfig, BuildError> {
    let provider = Arc::new(ring::default_provider());
    let extra: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(extra_roots_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| BuildError::Roots(Box::new(error)))?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = if extra.is_empty() {
        with_system_roots(builder, provider)
    } else {
        let verifier = Verifier::new_with_extra_roots(extra, provider)
            .map_err(|error| BuildError::Roots(Box::new(error)))?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn with_system_roots(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    provider: Arc<CryptoProvider>,
) -> ClientConfig {
    match Verifier::new(provider) {
        Ok(verifier) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
        Err(error) => {
            // A laptop's demo on a bare container needs no certificates; https fails by itself.
            tracing::warn!(%error, "no certificate authorities found: https endpoints will fail");
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}

fn kept_header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= HEADER_KEPT_CHARS_MAX).then(|| value.to_owned())
}

// === errors, classified by type and never by text (SS-7) ===

fn refused(refusal: Refusal) -> TransportError {
    TransportError::new(TransportErrorKind::Address, refusal.to_string())
}

fn transport_error(error: reqwest::Error) -> TransportError {
    // The URL may hold a secret.
    let error = error.without_url();
    let mut cause: &(dyn StdError + 'static) = &error;
    loop {
        if let Some(known) = known_cause(cause) {
            return known;
        }
        match next_cause(cause) {
            Some(next) => cause = next,
            None => break,
        }
    }
    let kind = if error.is_builder() {
        TransportErrorKind::Request
    } else if error.is_timeout() && !error.is_connect() {
        TransportErrorKind::Timeout
    } else if error.is_connect() {
        TransportErrorKind::Connect
    } else {
        TransportErrorKind::Reset
    };
    TransportError::new(kind, short(&cause.to_string()))
}

/// What can be told from one link of the chain alone.
fn known_cause(cause: &(dyn StdError + 'static)) -> Option<TransportError> {
    if let Some(lookup) = cause.downcast_ref::<LookupError>() {
        return Some(match lookup {
            LookupError::Refused(refusal) => refused(*refusal),
            LookupError::Resolve(error) => {
                TransportError::new(TransportErrorKind::Dns, short(&error.to_string()))
            }
        });
    }
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(TransportError::new(
            TransportErrorKind::Tls,
            short(&tls.to_string()),
        ));
    }
    let http = cause.downcast_ref::<hyper::Error>()?;
    http.is_parse()
        .then(|| TransportError::new(TransportErrorKind::Protocol, short(&http.to_string())))
}

/// The next link. An I/O error hides what it wraps from `source()`.
fn next_cause<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

fn short(text: &str) -> String {
    text.chars().take(ERROR_TEXT_CHARS_MAX).collect()
}
