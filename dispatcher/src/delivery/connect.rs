//! Owns how a connection to an origin is made: name, address, TCP, TLS.
//!
//! It never dials an address that the policy did not vet for this very connection (rule 10, SS-2 to
//! SS-4), and never reads or writes HTTP. The surprise: the second family of addresses is tried
//! beside the first when that has brought nothing for a while (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::address::{Policy, VettedResolver};
use super::destination::Origin;
use super::failure::{Chain, connect_failed, lookup_failed, refused, short};
use super::tls::H2;
use super::{TransportError, TransportErrorKind};

/// The other family of addresses joins in after this (RFC 8305 §8).
const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(300);

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) policy: Arc<Policy>,
    pub(super) resolver: VettedResolver,
    pub(super) tls: Arc<ClientConfig>,
    /// TCP and TLS together (SS-8); a lookup has a timeout of its own.
    pub(super) timeout: Duration,
}

/// A connection's bytes, encrypted or not.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Connector {
    /// Connects to `origin`.
    ///
    /// cancel-safe: dropping the future closes what it opened.
    pub(super) async fn connect(&self, origin: &Origin) -> Result<Stream, TransportError> {
        let addresses = self.addresses(origin).await?;
        let made = tokio::time::timeout(self.timeout, self.open(origin, &addresses));
        made.await.unwrap_or_else(|_| {
            let text = format!("no connection within {:?}", self.timeout);
            Err(TransportError::new(TransportErrorKind::Connect, text))
        })
    }

    /// Addresses that may be dialled now, at least one.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, TransportError> {
        let literal = |ip: IpAddr| {
            self.policy.check_ip(ip).map_err(refused)?;
            Ok(vec![ip])
        };
        let ips = match &origin.host {
            Host::Ipv4(ip) => literal((*ip).into())?,
            Host::Ipv6(ip) => literal((*ip).into())?,
            Host::Domain(name) => self.resolver.lookup(name).await.map_err(lookup_failed)?,
        };
        Ok(ips
            .into_iter()
            .map(|ip| SocketAddr::new(ip, origin.port))
            .collect())
    }

    async fn open(
        &self,
        origin: &Origin,
        addresses: &[SocketAddr],
    ) -> Result<Stream, TransportError> {
        let tcp = dial(addresses, self.timeout).await;
        let tcp = tcp.map_err(|error| connect_failed(&error))?;
        tcp.set_nodelay(true)
            .map_err(|error| connect_failed(&error))?;
        if !origin.is_secure {
            return Ok(Stream::Plain(tcp));
        }
        let config = match &origin.dress.identity {
            Some(identity) => identity.config(&self.tls),
            None => Arc::clone(&self.tls),
        };
        let connector = TlsConnector::from(config);
        let stream = connector.connect(server_name(origin)?, tcp).await;
        match stream {
            Ok(stream) => Ok(Stream::Secure(Box::new(stream))),
            // Of a handshake's end without a word nobody knows whose fault it is.
            Err(error) => Err(error.known().unwrap_or_else(|| connect_failed(&error))),
        }
    }
}

fn server_name(origin: &Origin) -> Result<ServerName<'static>, TransportError> {
    match &origin.host {
        Host::Ipv4(ip) => Ok(ServerName::IpAddress(IpAddr::V4(*ip).into())),
        Host::Ipv6(ip) => Ok(ServerName::IpAddress(IpAddr::V6(*ip).into())),
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|error| TransportError::new(TransportErrorKind::Tls, short(&error))),
    }
}

/// The first of `addresses` that answers; those of the first one's family come first.
async fn dial(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == first_is_v6);
    if other.is_empty() {
        return in_turn(first, timeout).await;
    }
    let mut first = in_turn(first, timeout).boxed();
    match tokio::time::timeout(OTHER_FAMILY_WAIT, &mut first).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) => in_turn(other, timeout).await,
        Err(_) => {
            let both = [first, in_turn(other, timeout).boxed()];
            select_ok(both).await.map(|(stream, _)| stream)
        }
    }
}

/// One after another, each with its share of the time.
async fn in_turn(addresses: Vec<SocketAddr>, timeout: Duration) -> io::Result<TcpStream> {
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

// === impl Stream ===

impl Stream {
    /// Whether the endpoint chose HTTP/2 in the handshake.
    pub(super) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Secure(stream) => stream.get_ref().1.alpn_protocol() == Some(H2),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_next_address_is_dialled_where_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        for addresses in [
            [at("127.0.0.2"), at("127.0.0.1")],
            [at("::1"), at("127.0.0.1")],
        ] {
            let stream = dial(&addresses, PATIENCE).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), at("127.0.0.1"));
        }
        let nobody = [at("127.0.0.2"), at("::1")];
        dial(&nobody, PATIENCE).await.unwrap_err();
    }
}
