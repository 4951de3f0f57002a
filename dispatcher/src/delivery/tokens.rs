//! Owns the token of an endpoint that wants OAuth 2.0 client credentials (RFC 6749 §4.4): when it
//! must be fetched, by whom, and for how long it holds.
//!
//! It never sends: it says what to send, and reads the answer. One fetch at a time: others wait for
//! its end, or use the token that still holds. The surprise: a refused token is dropped once a
//! minute at most, so that an endpoint that refuses every token is not asked for one each time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use schemas::resources::{ClientCredentials, ClientIn};
use serde_json::Value;
use tokio::sync::watch;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

use super::sending::{basic, bearer};
use super::{Answer, Destination, OutgoingRequest};

/// How long a token holds whose server does not say.
const LIFETIME_MS: i64 = 300_000;
/// The longest that a server's word is taken for.
const LIFETIME_MS_MAX: i64 = 24 * 3_600_000;
/// A token is not used in the last of its time: the request is on its way for some of it.
const MARGIN_MS: i64 = 10_000;
/// A fetch that failed while a token still holds is repeated after this.
const AGAIN_MS: i64 = 10_000;
/// A refused token is dropped no more often than this.
const DROPPED_MS_MIN: i64 = 60_000;

/// The token of one endpoint.
pub struct Tokens {
    client: ClientCredentials<Zeroizing<String>>,
    /// What names the client in a header, where the server wants it there.
    authorization: Option<HeaderValue>,
    destination: Arc<Destination>,
    state: Mutex<State>,
    /// Tells of each fetch's end.
    fetched: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    is_fetching: bool,
    dropped_at: Option<i64>,
}

/// Times are unix milliseconds.
struct Token {
    header: HeaderValue,
    fetched_at: i64,
    refresh_at: i64,
    expires_at: i64,
}

/// What a request does that needs a token.
#[derive(Debug)]
pub enum Ticket {
    /// It goes, with this header.
    Ready(HeaderValue),
    /// It fetches one first.
    Fetch(Fetching),
    /// It waits for another's fetch.
    Wait(Waiting),
}

/// The right to fetch; dropped without an answer, another may.
pub struct Fetching {
    tokens: Arc<Tokens>,
}

/// The end of another's fetch.
#[derive(Debug)]
pub struct Waiting(watch::Receiver<()>);

impl Tokens {
    pub(super) fn new(client: ClientCredentials<Zeroizing<String>>) -> Result<Self, String> {
        let url = Url::parse(&client.token_url).map_err(|error| format!("token url: {error}"))?;
        let authorization = match client.client_in {
            ClientIn::Header => {
                // RFC 6749 §2.3.1: each encoded as a form's value first.
                let id: String = byte_serialize(client.client_id.as_bytes()).collect();
                let secret = byte_serialize(client.client_secret.as_bytes()).collect::<String>();
                Some(basic(&id, &Zeroizing::new(secret))?)
            }
            ClientIn::Body => None,
        };
        Ok(Self {
            client,
            authorization,
            destination: Arc::new(Destination::new(url)),
            state: Mutex::default(),
            fetched: watch::Sender::default(),
        })
    }

    pub(super) fn ticket(self: &Arc<Self>, now: i64) -> Ticket {
        let mut state = self.lock();
        let is_fetching = state.is_fetching;
        if let Some(token) = state.token.as_ref().filter(|token| now < token.expires_at)
            && (is_fetching || now < token.refresh_at)
        {
            return Ticket::Ready(token.header.clone());
        }
        if is_fetching {
            return Ticket::Wait(Waiting(self.fetched.subscribe()));
        }
        state.is_fetching = true;
        Ticket::Fetch(Fetching {
            tokens: Arc::clone(self),
        })
    }

    /// The endpoint refused a token that was there at `started_at`.
    pub(super) fn refused(&self, started_at: i64) {
        let mut state = self.lock();
        let is_recent = state
            .dropped_at
            .is_some_and(|before| started_at < before + DROPPED_MS_MIN);
        let is_it = |token: &Token| token.fetched_at <= started_at;
        if !is_recent && state.token.as_ref().is_some_and(is_it) {
            state.token = None;
            state.dropped_at = Some(started_at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

// === impl Fetching ===

impl Fetching {
    /// The request for a token.
    pub fn request(&self, timeout: Duration) -> OutgoingRequest {
        let client = &self.tokens.client;
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &client.scope), ("audience", &client.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        match &self.tokens.authorization {
            Some(authorization) => {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            None => {
                form.append_pair("client_id", &client.client_id)
                    .append_pair("client_secret", &client.client_secret);
            }
        }
        OutgoingRequest {
            destination: Arc::clone(&self.tokens.destination),
            headers,
            method: Method::POST,
            body: Bytes::from(form.finish()),
            timeout,
            kept_bytes: 0,
        }
    }

    /// Reads the answer that came at `now`; says whether a token is there now.
    pub fn done(self, answer: &Answer, now: i64) -> bool {
        let read = match answer {
            Ok(response) if response.status == 200 && !response.truncated => {
                Token::read(&response.body, now)
            }
            Ok(_) | Err(_) => None,
        };
        let mut state = self.tokens.lock();
        if let Some(token) = read {
            state.token = Some(token);
            return true;
        }
        match state.token.as_mut().filter(|token| now < token.expires_at) {
            Some(token) => {
                token.refresh_at = now.saturating_add(AGAIN_MS);
                true
            }
            None => false,
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.tokens.lock().is_fetching = false;
        self.tokens.fetched.send_replace(());
    }
}

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetching").finish_non_exhaustive()
    }
}

// === impl Waiting ===

impl Waiting {
    /// Until the fetch has ended, at most `limit`.
    pub async fn ended(mut self, limit: Duration) {
        // Whatever it brought, the next turn finds out.
        drop(tokio::time::timeout(limit, self.0.changed()).await);
    }
}

// === impl Token ===

impl Token {
    /// RFC 6749 §5.1. Some servers write the time as text.
    fn read(body: &[u8], now: i64) -> Option<Self> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let kind = json.get("token_type").and_then(Value::as_str);
        if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return None;
        }
        let header = bearer(json.get("access_token")?.as_str()?).ok()?;
        let seconds = json.get("expires_in").and_then(|value| {
            let text = value.as_str().and_then(|text| text.parse().ok());
            value.as_i64().or(text)
        });
        let lifetime = seconds
            .map_or(LIFETIME_MS, |seconds: i64| seconds.saturating_mul(1_000))
            .clamp(0, LIFETIME_MS_MAX);
        Some(Self {
            header,
            fetched_at: now,
            refresh_at: now + lifetime / 5 * 4,
            expires_at: now + lifetime - MARGIN_MS.min(lifetime / 10),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Response, TransportError, TransportErrorKind};

    fn tokens(client_in: ClientIn) -> Arc<Tokens> {
        let client = ClientCredentials {
            token_url: "https://login.example/token".to_owned(),
            client_id: "me:1".to_owned(),
            client_secret: Zeroizing::new("hush hush".to_owned()),
            scope: Some("a b".to_owned()),
            audience: None,
            client_in,
        };
        Arc::new(Tokens::new(client).unwrap())
    }

    fn answer(status: u16, body: &str) -> Answer {
        Ok(Response {
            status,
            retry_after: None,
            left: None,
            content_type: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
            body_bytes_read: body.len() as u64,
            truncated: false,
            ending: None,
        })
    }

    fn fetch(tokens: &Arc<Tokens>, now: i64) -> Fetching {
        match tokens.ticket(now) {
            Ticket::Fetch(fetching) => fetching,
            other @ (Ticket::Ready(_) | Ticket::Wait(_)) => panic!("{other:?}"),
        }
    }

    fn ready(tokens: &Arc<Tokens>, now: i64) -> String {
        match tokens.ticket(now) {
            Ticket::Ready(header) => header.to_str().unwrap().to_owned(),
            other @ (Ticket::Fetch(_) | Ticket::Wait(_)) => panic!("{other:?}"),
        }
    }

    const HOUR: &str = r#"{"access_token":"t1","token_type":"bearer","expires_in":3600}"#;

    #[test]
    fn the_request_is_that_of_the_specification() {
        let request = fetch(&tokens(ClientIn::Header), 0).request(Duration::ZERO);
        assert_eq!(request.body, "grant_type=client_credentials&scope=a+b");
        // "me%3A1:hush+hush"
        assert_eq!(
            request.headers["authorization"],
            "Basic bWUlM0ExOmh1c2graHVzaA=="
        );
        let request = fetch(&tokens(ClientIn::Body), 0).request(Duration::ZERO);
        assert!(!request.headers.contains_key("authorization"));
        assert_eq!(
            request.body,
            "grant_type=client_credentials&scope=a+b&client_id=me%3A1&client_secret=hush+hush"
        );
        assert!(!format!("{request:?}").contains("hush"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetches_and_the_others_wait() {
        let tokens = tokens(ClientIn::Header);
        let fetching = fetch(&tokens, 0);
        let Ticket::Wait(waiting) = tokens.ticket(0) else {
            panic!("a second one fetches")
        };
        assert!(fetching.done(&answer(200, HOUR), 5));
        waiting.ended(Duration::from_secs(60)).await;
        assert_eq!(ready(&tokens, 6), "Bearer t1");
        // A fetch that is given up is another's.
        tokens.refused(10);
        drop(fetch(&tokens, 11));
        drop(fetch(&tokens, 12));
    }

    #[test]
    fn it_is_refreshed_before_it_expires_and_used_meanwhile() {
        let tokens = tokens(ClientIn::Header);
        assert!(fetch(&tokens, 0).done(&answer(200, HOUR), 0));
        assert_eq!(ready(&tokens, 2_879_999), "Bearer t1");
        let fetching = fetch(&tokens, 2_880_000);
        assert_eq!(ready(&tokens, 2_880_000), "Bearer t1");
        assert!(
            fetching.done(&answer(500, ""), 2_880_001),
            "the old one holds"
        );
        assert_eq!(ready(&tokens, 2_890_000), "Bearer t1");
        let second = r#"{"access_token":"t2","expires_in":"60"}"#;
        assert!(fetch(&tokens, 2_890_001).done(&answer(200, second), 2_890_001));
        assert_eq!(ready(&tokens, 2_890_002), "Bearer t2");
        let expired = 2_890_001 + 54_000;
        let fetching = fetch(&tokens, expired);
        assert!(matches!(tokens.ticket(expired), Ticket::Wait(_)));
        assert!(!fetching.done(&answer(503, ""), expired));
    }

    #[test]
    fn answers_without_a_token_bring_none() {
        let timeout = TransportError::new(TransportErrorKind::Timeout, "late");
        for wrong in [
            answer(200, "{}"),
            answer(200, "<html>"),
            answer(201, HOUR),
            answer(401, HOUR),
            answer(200, r#"{"access_token":"a\nb"}"#),
            answer(200, r#"{"access_token":"a","token_type":"mac"}"#),
            Err(timeout),
        ] {
            let tokens = tokens(ClientIn::Header);
            assert!(!fetch(&tokens, 0).done(&wrong, 0), "{wrong:?}");
        }
    }

    #[test]
    fn a_refused_token_is_dropped_once() {
        let tokens = tokens(ClientIn::Header);
        assert!(fetch(&tokens, 100).done(&answer(200, HOUR), 100));
        // What was sent before this token was there says nothing of it.
        tokens.refused(99);
        assert_eq!(ready(&tokens, 101), "Bearer t1");
        tokens.refused(101);
        assert!(fetch(&tokens, 102).done(&answer(200, HOUR), 102));
        tokens.refused(103);
        assert_eq!(ready(&tokens, 104), "Bearer t1");
        tokens.refused(101 + DROPPED_MS_MIN);
        drop(fetch(&tokens, 101 + DROPPED_MS_MIN));
    }
}
