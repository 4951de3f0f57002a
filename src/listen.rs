//! Owns an endpoint on this machine: it takes deliveries, verifies their signatures, answers what it
//! is told to, and shows what arrived.
//!
//! It must never listen beyond loopback unless it is told to. The surprise: it answers before it
//! prints, but not before there is room to note the arrival, so a slow terminal slows the sender.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use clap::Args;
use dispatcher::delivery::sign::{Received, VerifyingKey, verify};
use runtime::clock::Clock;
use runtime::task::{Signals, TaskKind, Tasks};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::output;
use crate::settings::Usage;

/// The largest delivery that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Arrivals that are noted and not yet shown.
const ARRIVALS_MAX: usize = 1_024;

/// Flags of `anabranch listen`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  anabranch listen --port 9000 --secret whsec_…       verify with the endpoint's secret
  anabranch listen --port 9000 --status 500           see how deliveries are tried again

The secret is shown once, by the command that made the endpoint:
  anabranch webhook create --tenant acme --url http://127.0.0.1:9000/")]
pub(crate) struct ListenArgs {
    /// The port; a free one without it
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The address; others than this machine's can reach more than you may want
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The endpoint's signing secret (`whsec_…`) or public key (`whpk_…`); may be repeated while one
    /// is replaced
    #[arg(
        long = "secret",
        env = "ANABRANCH_SECRET",
        hide_env_values = true,
        value_delimiter = ','
    )]
    secrets: Vec<String>,
    /// The status to answer with
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Print the body of each delivery too
    #[arg(long)]
    body: bool,
    /// End after so many deliveries
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// One delivery that arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// The same on this process's clock.
    pub(crate) instant: Instant,
    /// The delivery's id (`webhook-id`); empty where the request is none of ours.
    pub(crate) id: String,
    pub(crate) event: EventName,
    pub(crate) signature: Signature,
    pub(crate) request: String,
    pub(crate) body: Bytes,
}

/// What the event says of itself, as far as the body's form shows it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct EventName {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default, rename = "type")]
    pub(crate) ty: String,
    #[serde(default)]
    pub(crate) subject: String,
}

/// What came of verifying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    /// One of the keys signed it.
    Verified,
    /// There is no key to verify with.
    NotChecked,
    /// Why it is not accepted.
    Refused(String),
}

/// An endpoint on this machine.
#[derive(Debug)]
pub(crate) struct Receiver {
    listener: TcpListener,
}

struct Shared {
    keys: Vec<VerifyingKey>,
    status: StatusCode,
    clock: Clock,
    arrivals: mpsc::Sender<Arrival>,
}

impl Receiver {
    /// Takes the address; nothing is answered before [`Receiver::serve`].
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        Ok(Self {
            listener: listener.with_context(|| format!("listen on {address}"))?,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes deliveries as a task of `tasks`, until those are cancelled.
    pub(crate) fn serve(
        self,
        keys: Vec<VerifyingKey>,
        status: StatusCode,
        tasks: &Tasks,
    ) -> mpsc::Receiver<Arrival> {
        let (arrivals, received) = mpsc::channel(ARRIVALS_MAX);
        let shared = Arc::new(Shared {
            keys,
            status,
            clock: Clock::system(),
            arrivals,
        });
        let app = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(shared);
        let listener = self.listener;
        tasks.spawn(TaskKind::Command, async move {
            axum::serve(listener, app).await
        });
        received
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let at = shared.clock.now();
    let arrival = Arrival {
        at,
        instant: shared.clock.instant(),
        id: text(&headers, "webhook-id").to_owned(),
        event: name_of(&headers, &body),
        signature: shared.check(&headers, &body, at),
        request: format!("{method} {}", uri.path()),
        body,
    };
    match shared.arrivals.send(arrival).await {
        Ok(()) => shared.status,
        // Nobody notes it any more: it has not arrived.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Shared {
    fn check(&self, headers: &HeaderMap, body: &[u8], at: i64) -> Signature {
        if self.keys.is_empty() {
            return Signature::NotChecked;
        }
        let received = Received {
            id: text(headers, "webhook-id"),
            timestamp: text(headers, "webhook-timestamp"),
            signature: text(headers, "webhook-signature"),
            body,
        };
        match verify(&self.keys, &received, at.div_euclid(1_000)) {
            Ok(()) => Signature::Verified,
            Err(error) => Signature::Refused(error.to_string()),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Attributes are in the headers in binary mode, else in the body, as far as it has them.
fn name_of(headers: &HeaderMap, body: &[u8]) -> EventName {
    if headers.contains_key("ce-type") {
        let text = |name| text(headers, name).to_owned();
        return EventName {
            id: text("ce-id"),
            ty: text("ce-type"),
            subject: text("ce-subject"),
        };
    }
    serde_json::from_slice(body).unwrap_or_default()
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("signed"),
            Self::NotChecked => f.write_str("signature not checked"),
            Self::Refused(why) => write!(f, "SIGNATURE REFUSED: {why}"),
        }
    }
}

/// One line.
impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            event,
            signature,
            request,
            body,
            ..
        } = self;
        write!(f, "{}  ", output::time_of_day(self.at))?;
        if event.ty.is_empty() {
            write!(f, "{request}")?;
        } else {
            write!(f, "{}", event.ty)?;
        }
        for part in [&event.subject, &event.id, id] {
            if !part.is_empty() {
                write!(f, "  {part}")?;
            }
        }
        write!(f, "  {} B  {signature}", body.len())
    }
}

/// `anabranch listen`.
///
/// # Errors
/// Where a secret is none, or the address cannot be bound.
pub(crate) async fn run(args: ListenArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let keys = args
        .secrets
        .iter()
        .map(|secret| VerifyingKey::parse(secret.trim()));
    let keys: Vec<VerifyingKey> = keys
        .collect::<Result<_, _>>()
        .map_err(|error| Usage(format!("`--secret`: {error}")))?;
    let status = StatusCode::from_u16(args.status)?;
    let receiver = Receiver::bind(SocketAddr::new(args.address, args.port)).await?;
    output::note(format_args!("listening on http://{}/", receiver.address()?));
    if keys.is_empty() {
        output::note("signatures are not checked: name the endpoint's secret with `--secret`");
    }
    let tasks = Tasks::new("listen");
    let mut arrivals = receiver.serve(keys, status, &tasks);
    let mut left = args.count;
    while left != Some(0) {
        let arrival = tokio::select! {
            arrival = arrivals.recv() => arrival,
            _ = signals.recv() => None,
        };
        let Some(arrival) = arrival else { break };
        output::line(&arrival)?;
        if args.body {
            output::line(String::from_utf8_lossy(&arrival.body))?;
        }
        left = left.map(|left| left - 1);
    }
    tasks.cancel();
    tasks.finished().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use dispatcher::delivery::sign::{SigningKey, sign};

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    async fn arrive(
        headers: &[(&'static str, String)],
        body: &'static str,
    ) -> (Arrival, StatusCode) {
        let (arrivals, mut received) = mpsc::channel(1);
        let keys = vec![VerifyingKey::parse(SECRET).unwrap()];
        let clock = Clock::system();
        let shared = Shared {
            keys,
            status: StatusCode::IM_A_TEAPOT,
            clock,
            arrivals,
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let (uri, body) = (
            Uri::from_static("/hook"),
            Bytes::from_static(body.as_bytes()),
        );
        let status = receive(State(Arc::new(shared)), Method::POST, uri, map, body).await;
        (received.recv().await.unwrap(), status)
    }

    #[tokio::test]
    async fn a_delivery_is_verified_and_named() {
        let body = r#"{"specversion":"1.0","id":"e-1","type":"com.acme.x","data":{}}"#;
        let now = Clock::system().now().div_euclid(1_000);
        let signature = sign(
            &[SigningKey::parse(SECRET).unwrap()],
            "msg_1",
            now,
            body.as_bytes(),
        );
        let mut headers = vec![
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", signature),
        ];
        let (arrival, status) = arrive(&headers, body).await;
        assert_eq!(
            (&arrival.signature, status),
            (&Signature::Verified, StatusCode::IM_A_TEAPOT)
        );
        let line = arrival.to_string();
        assert!(
            line.contains("com.acme.x  e-1  msg_1") && line.ends_with("signed"),
            "{line}"
        );
        headers.truncate(2);
        headers.push(("ce-type", "t".to_owned()));
        let (arrival, _) = arrive(&headers, "what is not json").await;
        assert!(matches!(arrival.signature, Signature::Refused(_)));
        assert!(arrival.to_string().contains("REFUSED"));
        assert_eq!(arrival.event.ty, "t");
    }
}
