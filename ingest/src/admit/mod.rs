//! Owns whether there is room for a request: the bytes in flight of the whole process, the rates of
//! each tenant, and its fair share.
//!
//! It must never let a body be read that has no room. The surprise: room is waited for, rates are
//! not; a tenant beyond its rate is told to wait itself.

mod budget;
mod rates;
mod share;

pub(crate) use budget::{Budget, Room};
pub(crate) use rates::Rates;
pub(crate) use share::{Share, ShareRates};
