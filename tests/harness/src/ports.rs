//! Owns the choice of ports for processes that must be told theirs.
//!
//! The surprise: they are below the range that outgoing connections take theirs from, so that a
//! process that is started again finds its own still free.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 15_000;
const COUNT: u16 = 10_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on loopback that nobody listens on, and that this process was not given before.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    // Test binaries that run beside each other begin at different places.
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_mul(37).wrapping_add(step)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
