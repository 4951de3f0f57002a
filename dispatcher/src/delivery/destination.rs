//! Owns where an endpoint's requests go, parsed once: the origin to connect to, and the parts of
//! the URL that each request repeats.
//!
//! It never vets anything ([`Policy::check_url`](super::address::Policy::check_url) does). The
//! surprise: a URL that cannot be written as an HTTP request makes a destination all the same, so
//! that its deliveries are attempted, fail, and say why.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use schemas::profile::template::below;
use url::{Host, Position, Url};

use super::identity::Identity;

/// Where requests of one endpoint go. Shown without path and query, which may hold secrets.
#[derive(Clone)]
pub struct Destination {
    url: Url,
    parts: Option<Parts>,
}

/// What connections are kept apart by: requests of one origin may share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) is_secure: bool,
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) dress: Dress,
}

/// How a connection looks from the other side: connections of one origin that differ in it are
/// different ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dress {
    /// Whether headers' names are sent in title case over HTTP/1.1.
    pub title_case: bool,
    /// What is shown in the TLS handshake.
    pub identity: Option<Arc<Identity>>,
}

/// What a request is made of, beside its headers and body.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) origin: Arc<Origin>,
    /// The request target of HTTP/1.1.
    pub(super) path: Uri,
    /// The `Host` header of HTTP/1.1.
    pub(super) host: HeaderValue,
    /// What HTTP/2 makes its pseudo-headers of.
    pub(super) absolute: Uri,
}

impl Destination {
    /// The destination that `url` names.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self::dressed(url, Dress::default())
    }

    /// The same over connections of their own kind.
    #[must_use]
    pub fn dressed(url: Url, dress: Dress) -> Self {
        let parts = Parts::of(&url, dress);
        Self { url, parts }
    }

    /// The URL as it was given.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The place below this one that `path`, which may have a query, leads to; `None` where that
    /// would be somewhere else (rule 10), or no HTTP request can be made of it.
    #[must_use]
    pub fn joined(&self, path: &str) -> Option<Self> {
        let base = self.parts.as_ref()?;
        let url = below(&self.url, path)?;
        let mut parts = Parts::of(&url, base.origin.dress.clone())?;
        if parts.origin != base.origin {
            return None;
        }
        parts.origin = Arc::clone(&base.origin);
        let parts = Some(parts);
        Some(Self { url, parts })
    }

    /// `None` where no HTTP request can be made of the URL.
    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

impl Parts {
    fn of(url: &Url, dress: Dress) -> Option<Self> {
        let (is_secure, scheme) = match url.scheme() {
            "https" => (true, Scheme::HTTPS),
            "http" => (false, Scheme::HTTP),
            _ => return None,
        };
        let origin = Origin {
            is_secure,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
            dress,
        };
        // Host and port alone: what stands before an `@` is a secret, and refused besides (SS-1).
        let authority = &url[Position::BeforeHost..Position::AfterPort];
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let target = PathAndQuery::try_from(target).ok()?;
        let absolute = Uri::builder()
            .scheme(scheme)
            .authority(Authority::try_from(authority).ok()?)
            .path_and_query(target.clone())
            .build()
            .ok()?;
        Some(Self {
            origin: Arc::new(origin),
            path: Uri::from(target),
            host: HeaderValue::try_from(authority).ok()?,
            absolute,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_once() {
        let check = |url: &str, host: &str, path: &str, port: u16| {
            let destination = Destination::new(Url::parse(url).unwrap());
            let parts = destination.parts().unwrap();
            assert_eq!(parts.host, host, "{url}");
            assert_eq!(parts.path.to_string(), path, "{url}");
            assert_eq!(parts.origin.port, port, "{url}");
            assert_eq!(parts.origin.is_secure, url.starts_with("https"), "{url}");
            let scheme = destination.url().scheme();
            assert_eq!(
                parts.absolute.to_string(),
                format!("{scheme}://{host}{path}"),
                "{url}"
            );
        };
        check("https://hook.example", "hook.example", "/", 443);
        check(
            "https://hook.example:443/a%20b?c=d&e#f",
            "hook.example",
            "/a%20b?c=d&e",
            443,
        );
        check(
            "http://hook.example:8080/?q",
            "hook.example:8080",
            "/?q",
            8080,
        );
        check("http://[2001:DB8::1]:81/x", "[2001:db8::1]:81", "/x", 81);
        check("http://2130706433/", "127.0.0.1", "/", 80);
        check(
            "https://user:word@hook.example/x",
            "hook.example",
            "/x",
            443,
        );
    }

    #[test]
    fn a_path_is_appended_and_leads_nowhere_else() {
        // rule 10
        let check = |url: &str, path: &str, expected: Option<&str>| {
            let base = Destination::new(Url::parse(url).unwrap());
            let joined = base.joined(path);
            let shown = joined.as_ref().map(|joined| joined.url().as_str());
            assert_eq!(shown, expected, "{url} {path}");
            if let Some(joined) = joined {
                let parts = (joined.parts().unwrap(), base.parts().unwrap());
                assert!(Arc::ptr_eq(&parts.0.origin, &parts.1.origin));
            }
        };
        check(
            "https://h.example",
            "/a/b?c=d",
            Some("https://h.example/a/b?c=d"),
        );
        check(
            "https://h.example/v1/",
            "/a%2Fb",
            Some("https://h.example/v1/a%2Fb"),
        );
        check(
            "https://h.example/v1?k=1",
            "/a",
            Some("https://h.example/v1/a?k=1"),
        );
        check(
            "https://h.example/v1?k=1",
            "?q=2",
            Some("https://h.example/v1?k=1&q=2"),
        );
        check("https://h.example/v1", "", Some("https://h.example/v1"));
        check("https://h.example/v1", "/../x", None);
        check("https://h.example/v1", "x", None);
        check("ftp://h.example/v1", "/x", None);
        let slashes = Destination::new(Url::parse("https://h.example").unwrap());
        let joined = slashes.joined("//evil.example/x").unwrap();
        assert_eq!(joined.url().host_str(), Some("h.example"));
    }

    #[test]
    fn what_is_not_http_has_no_parts() {
        for url in ["ftp://hook.example/", "mailto:a@hook.example", "data:x"] {
            let destination = Destination::new(Url::parse(url).unwrap());
            assert!(destination.parts().is_none(), "{url}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let url = Url::parse("https://me:password@hook.example/token?key").unwrap();
        let shown = format!("{:?}", Destination::new(url));
        assert_eq!(shown, r#"Destination { host: Some("hook.example"), .. }"#);
    }
}
