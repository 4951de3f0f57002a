//! Owns where attempts may go: the SSRF policy (SS-1..11), and name lookup under it.
//!
//! Never connects and never says which internal address was hit (SS-7). The surprise: a literal
//! address in a URL never reaches the resolver, so [`Policy::check_url`] must run before every
//! request (SS-2); and the check made when an endpoint is registered is a courtesy only, the one
//! that counts is made at each new connection, on the addresses that are then dialled (SS-4, SS-6).

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// When [`REFUSED_V4`] and [`REFUSED_V6`] were last compared with the IANA registries.
pub const REFUSED_AS_OF: &str = "2026-08";

/// IPv4 ranges that are not somebody's public host (standards §5.2).
pub const REFUSED_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
];

/// The only IPv6 range that may be allowed: global unicast.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);

/// The parts of global unicast that are refused all the same (standards §5.2).
pub const REFUSED_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),
    v6([0x2001, 0xdb8, 0], 32),
    v6([0x2002, 0, 0], 16),
    v6([0x3fff, 0, 0], 20),
];

/// IPv4 addresses as an IPv6-only network writes them.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

/// Names that mean our own network; a name below one of them is refused too (SS-10).
pub const REFUSED_NAMES: [&str; 7] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "home.arpa",
    "svc",
    "lan",
];

/// The longest a name lookup may take where nobody says otherwise (SS-8).
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of one name that are tried; all of its answers are vetted.
const ADDRESSES_TRIED_MAX: usize = 8;

/// What is allowed; the default is https to public addresses on port 443.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// This machine may be an endpoint, over http and on any port. For a laptop and for tests.
    pub allow_loopback: bool,
    /// `http` URLs are allowed, on port 80 as well.
    pub allow_http: bool,
    /// Ports allowed beside 443; 0 for every port.
    pub allowed_ports: Vec<u16>,
    /// How a NAT64 address is judged.
    pub nat64: Nat64,
    /// Ranges allowed although the table refuses them, e.g. an operator's own network.
    pub allow: Vec<IpNet>,
    /// Ranges refused whatever else is said.
    pub deny: Vec<IpNet>,
    /// Names (with all below them) allowed although [`REFUSED_NAMES`] refuses them. Their
    /// addresses are still vetted.
    pub allow_names: Vec<String>,
}

/// How an address in `64:ff9b::/96` is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nat64 {
    /// Refused.
    #[default]
    Refuse,
    /// Judged by the IPv4 address in it; needed on IPv6-only networks.
    Embedded,
}

/// Why a destination is refused. The texts are for customers and name no address (SS-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not `https`.
    #[error("destination scheme is not allowed")]
    Scheme,
    /// Not a configured port.
    #[error("destination port is not allowed")]
    Port,
    /// A user name or password in the URL.
    #[error("destination must not contain a user name or password")]
    UserInfo,
    /// No host, or one that ends in a dot.
    #[error("destination host is not allowed")]
    Host,
    /// One of our own names, or a forbidden address.
    #[error("destination address is not allowed")]
    Address,
}

/// Why a name gave no address that may be dialled.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The policy refuses one of its addresses, hence all (SS-3).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The lookup itself brought nothing.
    #[error("name lookup: {0}")]
    Resolve(#[from] ResolveError),
}

/// Why a resolver has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name exists nowhere, or has no address.
    #[error("no address for this name")]
    NoAddress,
    /// No answer within the lookup's timeout.
    #[error("no answer in time")]
    Timeout,
    /// This machine has no usable resolver configuration, or its servers do not work.
    #[error("resolver: {0}")]
    Failed(#[source] Box<dyn StdError + Send + Sync>),
}

/// Finds the addresses of a name. Knows no policy.
#[async_trait]
pub trait Resolve: Send + Sync + std::fmt::Debug + 'static {
    /// All IPv4 and IPv6 addresses of the fully qualified `name`, given without its final dot.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

/// The resolver of production: asks the servers that the system is configured with.
#[derive(Debug, Default)]
pub struct SystemResolver {
    // Built at the first lookup: a machine without a resolver configuration can still start.
    resolver: OnceLock<TokioResolver>,
}

/// A resolver whose every answer has passed the policy (SS-3, SS-4).
#[derive(Clone, Debug)]
pub struct VettedResolver {
    resolver: Arc<dyn Resolve>,
    policy: Arc<Policy>,
    timeout: Duration,
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

// === impl Policy ===

impl Policy {
    /// Checks all that a URL says by itself: scheme, port, user info, name, literal address
    /// (SS-1, SS-2, SS-10). A name's addresses are vetted later, by [`VettedResolver`].
    ///
    /// # Errors
    /// The first [`Refusal`] found.
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let host = url.host().ok_or(Refusal::Host)?;
        let loopback = self.allow_loopback && is_loopback(&host);
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http || loopback => {}
            _ => return Err(Refusal::Scheme),
        }
        if !loopback && !self.port_allowed(url.port_or_known_default()) {
            return Err(Refusal::Port);
        }
        match host {
            Host::Ipv4(ip) => self.check_ip(ip.into()),
            Host::Ipv6(ip) => self.check_ip(ip.into()),
            Host::Domain(name) => self.check_name(name),
        }
    }

    /// Checks an address. An IPv4-mapped one counts as the IPv4 address in it.
    ///
    /// # Errors
    /// [`Refusal::Address`].
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        let ip = ip.to_canonical();
        if contains(&self.deny, ip) {
            return Err(Refusal::Address);
        }
        if contains(&self.allow, ip) || (self.allow_loopback && ip.is_loopback()) {
            return Ok(());
        }
        let refused = match ip {
            IpAddr::V4(ip) => REFUSED_V4.iter().any(|range| range.contains(&ip)),
            IpAddr::V6(ip) => match (self.nat64, embedded_by_nat64(ip)) {
                (Nat64::Embedded, Some(embedded)) => {
                    contains(&self.deny, embedded.into())
                        || REFUSED_V4.iter().any(|range| range.contains(&embedded))
                }
                (Nat64::Refuse, _) | (Nat64::Embedded, None) => {
                    !GLOBAL_V6.contains(&ip) || REFUSED_V6.iter().any(|range| range.contains(&ip))
                }
            },
        };
        if refused {
            Err(Refusal::Address)
        } else {
            Ok(())
        }
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        if name.is_empty() || name.ends_with('.') {
            return Err(Refusal::Host);
        }
        if self.allow_loopback && is_localhost(name) {
            return Ok(());
        }
        let allowed = self
            .allow_names
            .iter()
            .any(|suffix| is_or_below(name, suffix));
        let refused = REFUSED_NAMES.iter().any(|suffix| is_or_below(name, suffix));
        if refused && !allowed {
            Err(Refusal::Address)
        } else {
            Ok(())
        }
    }

    fn port_allowed(&self, port: Option<u16>) -> bool {
        match port {
            Some(443) => true,
            Some(80) if self.allow_http => true,
            Some(port) => self
                .allowed_ports
                .iter()
                .any(|known| [0, port].contains(known)),
            None => false,
        }
    }
}

fn contains(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

fn embedded_by_nat64(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = ip.octets();
    NAT64.contains(&ip).then(|| Ipv4Addr::new(a, b, c, d))
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => IpAddr::V6(*ip).to_canonical().is_loopback(),
    }
}

fn is_localhost(name: &str) -> bool {
    is_or_below(name, "localhost")
}

/// `name` is `suffix` or a name below it. Both lower-case, as a parsed URL's host is.
fn is_or_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

// === impl VettedResolver ===

impl VettedResolver {
    /// Vets what `resolver` answers within `timeout` by `policy`.
    pub fn new(resolver: Arc<dyn Resolve>, policy: Arc<Policy>, timeout: Duration) -> Self {
        Self {
            resolver,
            policy,
            timeout,
        }
    }

    /// Looks a name up, within the timeout; one forbidden address refuses all (SS-3).
    ///
    /// # Errors
    /// [`LookupError`]
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        self.policy.check_name(name)?;
        let mut addresses = if self.policy.allow_loopback && is_localhost(name) {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            let answer = tokio::time::timeout(self.timeout, self.resolver.resolve(name)).await;
            answer.map_err(|_| ResolveError::Timeout)??
        };
        if addresses.is_empty() {
            return Err(ResolveError::NoAddress.into());
        }
        for address in &addresses {
            self.policy.check_ip(*address)?;
        }
        addresses.truncate(ADDRESSES_TRIED_MAX);
        Ok(addresses)
    }
}

// === impl SystemResolver ===

impl SystemResolver {
    fn get(&self) -> Result<&TokioResolver, ResolveError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let failed = |error| ResolveError::Failed(Box::new(error));
        let mut builder = TokioResolver::builder_tokio().map_err(failed)?;
        // Both families are asked always, so that none escapes the vetting (SS-3).
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(failed)?;
        Ok(self.resolver.get_or_init(|| resolver))
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        // The final dot keeps search domains out of it (SS-1).
        match self.get()?.lookup_ip(format!("{name}.")).await {
            Ok(answer) => Ok(answer.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(ResolveError::NoAddress),
            Err(error) => Err(ResolveError::Failed(Box::new(error))),
        }
    }
}

#[cfg(test)]
mod tests;
