//! Owns what can be said of an endpoint's URL from its text alone (SS-1, SS-2, SS-6, SS-10).
//!
//! A courtesy: the defence is made at each connection, on the address that is dialled. So this
//! knows the common ranges, not the whole table, and never looks a name up.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Names that mean our own network.
const OWN_NAMES: [&str; 5] = ["localhost", "localdomain", "local", "internal", "home.arpa"];

/// Which URLs endpoints may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlPolicy {
    /// This machine may be an endpoint, over http and on any port.
    pub allow_loopback: bool,
    /// `http` is taken.
    pub allow_http: bool,
    /// Ports beside the scheme's own; 0 for every port.
    pub allowed_ports: Vec<u16>,
}

/// Why a URL is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a URL.
    #[error("must be an absolute url")]
    NotAUrl,
    /// Neither https nor an allowed http.
    #[error("must begin with https://")]
    Scheme,
    /// A user name or a password.
    #[error("must not contain a user name or password")]
    UserInfo,
    /// A fragment, which is never sent.
    #[error("must not have a fragment")]
    Fragment,
    /// No configured port.
    #[error("port is not allowed")]
    Port,
    /// Our own names and addresses.
    #[error("destination address is not allowed")]
    Address,
}

impl UrlPolicy {
    /// Whether an endpoint may have this URL.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, text: &str) -> Result<(), Refusal> {
        // The parser drops white space that would then be stored and parsed again elsewhere.
        if text
            .chars()
            .any(|char| char.is_whitespace() || char.is_control())
        {
            return Err(Refusal::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| Refusal::NotAUrl)?;
        let host = url.host().ok_or(Refusal::NotAUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(Refusal::Fragment);
        }
        let http = matches!(url.scheme(), "http");
        if !http && url.scheme() != "https" {
            return Err(Refusal::Scheme);
        }
        if self.allow_loopback && is_loopback(&host) {
            return Ok(());
        }
        if http && !self.allow_http {
            return Err(Refusal::Scheme);
        }
        // The scheme's own port is not written down by the parser.
        let allows = |port| {
            self.allowed_ports
                .iter()
                .any(|known| [0, port].contains(known))
        };
        if url.port().is_some_and(|port| !allows(port)) {
            return Err(Refusal::Port);
        }
        if is_refused(&host) {
            Err(Refusal::Address)
        } else {
            Ok(())
        }
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_below(name, "localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback())
        }
    }
}

fn is_refused(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            name.ends_with('.') || OWN_NAMES.iter().any(|own| is_below(name, own))
        }
        Host::Ipv4(address) => !is_public_v4(*address),
        Host::Ipv6(address) => !is_public_v6(*address),
    }
}

fn is_below(name: &str, own: &str) -> bool {
    name.strip_suffix(own)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || first == 0
        || first >= 224
        || (first == 100 && (64..128).contains(&second))
        || (first == 198 && (18..20).contains(&second)))
}

/// Global unicast alone; a mapped address is judged by what it maps.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.to_ipv4_mapped() {
        Some(v4) => is_public_v4(v4),
        None => {
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && second == 0xdb8)
        }
    }
}
