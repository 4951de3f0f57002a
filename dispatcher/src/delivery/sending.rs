//! Owns how requests to one endpoint are made up beside the event and its signature: headers of its
//! own and what authenticates them.
//!
//! Never stores what it makes: authentication headers exist for one attempt (rule 9), are marked as
//! sensitive, and are not shown. The surprise: a token may have to be fetched first, which is an
//! attempt of its own.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemas::resources::{Authentication, StaticHeader};
use zeroize::Zeroizing;

use super::tokens::{Ticket, Tokens};

/// How requests to one endpoint are made up.
#[derive(Clone, Default)]
pub struct Sending {
    headers: HeaderMap,
    credential: Credential,
    /// Whether bodies are compressed.
    pub compress: bool,
}

#[derive(Clone, Default)]
enum Credential {
    #[default]
    None,
    Header(HeaderName, HeaderValue),
    Tokens(Arc<Tokens>),
}

/// What authenticates the next request.
#[derive(Debug)]
pub enum Authorization {
    /// Nothing, or what is made of a secret alone.
    Given,
    /// This token.
    Token(HeaderValue),
    /// Not before a token was fetched, by this caller or by another.
    NotYet(Ticket),
}

impl Sending {
    /// With these headers, authenticated by `authentication`, whose secret is open.
    ///
    /// # Errors
    /// Which of them no request can have; nothing of a secret.
    pub fn new(
        headers: &[StaticHeader],
        authentication: Option<Authentication<Zeroizing<String>>>,
        compress: bool,
    ) -> Result<Self, String> {
        let mut own = HeaderMap::with_capacity(headers.len());
        for header in headers {
            let wrong = || format!("header {}: cannot be sent", header.name);
            let name = HeaderName::try_from(header.name.as_str()).map_err(|_| wrong())?;
            let value = HeaderValue::try_from(header.value.as_str()).map_err(|_| wrong())?;
            own.insert(name, value);
        }
        Ok(Self {
            headers: own,
            credential: authentication
                .map(Credential::of)
                .transpose()?
                .unwrap_or_default(),
            compress,
        })
    }

    /// What authenticates a request made at `now` (unix milliseconds).
    pub fn authorize(&self, now: i64) -> Authorization {
        match &self.credential {
            Credential::None | Credential::Header(..) => Authorization::Given,
            Credential::Tokens(tokens) => match tokens.ticket(now) {
                Ticket::Ready(token) => Authorization::Token(token),
                other @ (Ticket::Fetch(_) | Ticket::Wait(_)) => Authorization::NotYet(other),
            },
        }
    }

    /// A request that was started at `started_at` (unix milliseconds) was answered with 401.
    pub fn unauthorized(&self, started_at: i64) {
        if let Credential::Tokens(tokens) = &self.credential {
            tokens.refused(started_at);
        }
    }

    /// Puts the endpoint's own headers and `authorization` among the others.
    pub fn put(&self, headers: &mut HeaderMap, authorization: &Authorization) {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Credential::Header(name, value) = &self.credential {
            headers.insert(name.clone(), value.clone());
        }
        if let Authorization::Token(token) = authorization {
            headers.insert(AUTHORIZATION, token.clone());
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("headers", &self.headers.len())
            .field("compress", &self.compress)
            .finish_non_exhaustive()
    }
}

impl Credential {
    fn of(authentication: Authentication<Zeroizing<String>>) -> Result<Self, String> {
        Ok(match authentication {
            Authentication::Basic { username, password } => {
                Self::Header(AUTHORIZATION, basic(&username, &password)?)
            }
            Authentication::Bearer { token } => Self::Header(AUTHORIZATION, bearer(&token)?),
            Authentication::ApiKey { header, value } => {
                let name = HeaderName::try_from(header.as_str())
                    .map_err(|_| format!("header {header}: cannot be sent"))?;
                Self::Header(name, sensitive(&value)?)
            }
            Authentication::Oauth2(client) => Self::Tokens(Arc::new(Tokens::new(client)?)),
        })
    }
}

/// `Authorization: Basic` (RFC 7617 §2).
pub(super) fn basic(username: &str, password: &str) -> Result<HeaderValue, String> {
    let pair = Zeroizing::new(format!("{username}:{password}"));
    let text = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    sensitive(&format!("Basic {}", *text))
}

/// `Authorization: Bearer` (RFC 6750 §2.1).
pub(super) fn bearer(token: &str) -> Result<HeaderValue, String> {
    sensitive(&Zeroizing::new(format!("Bearer {token}")))
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "credential cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    fn check(authentication: Authentication<Zeroizing<String>>, name: &str, expected: &str) {
        let own = [StaticHeader {
            name: "X-Own".to_owned(),
            value: "a b".to_owned(),
        }];
        let sending = Sending::new(&own, Some(authentication), false).unwrap();
        let mut headers = HeaderMap::new();
        sending.put(&mut headers, &sending.authorize(0));
        assert_eq!(headers["x-own"], "a b");
        assert_eq!(headers[name], expected);
        assert!(headers[name].is_sensitive());
        assert!(!format!("{sending:?} {headers:?}").contains(expected));
    }

    #[test]
    fn secrets_become_sensitive_headers() {
        // RFC 7617 §2
        let (username, password) = ("Aladdin".to_owned(), hidden("open sesame"));
        check(
            Authentication::Basic { username, password },
            "authorization",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        );
        let token = hidden("mF_9.B5f-4.1JqM");
        check(
            Authentication::Bearer { token },
            "authorization",
            "Bearer mF_9.B5f-4.1JqM",
        );
        let (header, value) = ("X-Api-Key".to_owned(), hidden("k-1"));
        check(Authentication::ApiKey { header, value }, "x-api-key", "k-1");
    }

    #[test]
    fn what_cannot_be_sent_is_said_without_the_secret() {
        let token = hidden("hush\n");
        let error = Sending::new(&[], Some(Authentication::Bearer { token }), false);
        assert!(!error.unwrap_err().contains("hush"));
    }
}
