//! Owns whether there is room for a request: the bytes in flight of the whole process, and the
//! rates of each tenant.
//!
//! It must never let a body be read that has no room. The surprise: room is waited for, rates are
//! not; a tenant beyond its rate is told to wait itself.

mod budget;
mod rates;

pub(crate) use budget::{Budget, Room};
pub(crate) use rates::Rates;
