//! The subscription index and the routing loop.
