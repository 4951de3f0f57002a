//! The whole service over HTTP on loopback and a simulated log, in real time.

mod harness;
mod limits;
mod modes;
mod outages;
mod refusals;
mod shares;
