//! Lanes, limits, offsets, delays, attempts, verdicts and dead letters: everything between a
//! record on `deliveries` and an endpoint's answer.
//!
//! Only [`delivery`] opens sockets to endpoints (rule 18); no offset completes before its work is
//! delivered or durably written elsewhere (rule 6).

pub mod delivery;
pub mod limiter;
pub mod schedule;
