//! Owns ranges of IP addresses in CIDR notation, both versions.
//!
//! Never resolves a name. The surprise: an IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is the
//! IPv4 address, in the range and in what is compared with it.

use std::net::IpAddr;

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Network {
    /// As it was written.
    text: Box<str>,
    block: Block,
}

/// The addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// Whether they are of version 4.
    pub is_v4: bool,
    /// How many bits they share.
    pub length: u8,
    /// Those bits, left-aligned, the others zero.
    pub bits: u128,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, or an address alone. Bits beyond the length are
    /// ignored.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let length = match length {
            Some(length) => number(length)?,
            None => width(written),
        };
        if length > width(written) {
            return None;
        }
        let address = address_of(written);
        // A range of mapped addresses is one of IPv4 where it holds nothing else.
        let (address, length) = match (written.is_ipv6(), address.is_ipv4()) {
            (true, true) if length >= 96 => (address, length - 96),
            (true, true) => (written, length),
            _ => (address, length),
        };
        let block = Block::around(address, length);
        Some(Self {
            text: text.into(),
            block,
        })
    }

    /// Whether `text` is an address in the range.
    #[must_use]
    pub(super) fn contains(&self, text: &str) -> bool {
        address(text).is_some_and(|address| Block::around(address, self.block.length) == self.block)
    }

    /// As it was written.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The range itself.
    #[must_use]
    pub(super) const fn block(&self) -> Block {
        self.block
    }
}

impl Block {
    /// The block of addresses that share their first `length` bits with `address`; a length that
    /// the version does not have is cut.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Self {
        let length = length.min(width(address));
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self {
            is_v4: address.is_ipv4(),
            length,
            bits: bits & mask,
        }
    }
}

/// The address that `text` is.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    // No address is longer; most texts are none.
    if text.len() > 45 {
        return None;
    }
    text.parse().ok().map(address_of)
}

fn address_of(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number(text: &str) -> Option<u8> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "1.2.3.4", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7/32", "192.0.2.8", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("10.0.0.0/8", "10.0.0.1 ", false),
            ("10.0.0.0/8", "", false),
        ] {
            let range = Network::parse(network).unwrap();
            assert_eq!(range.contains(address), expected, "{network} {address}");
            assert_eq!(range.as_str(), network);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "::/129",
            "10.0.0/8",
            "host/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
