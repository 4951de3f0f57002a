//! What every service shares: configuration, tasks and their shutdown, the clock, telemetry, the
//! event log, the view of the control topic, who asks, the admin port and problem answers.
//!
//! It must never know what a service does: services depend on it, not the other way round.

pub mod admin;
pub mod auth;
pub mod clock;
pub mod config;
pub mod ed25519;
pub mod log;
pub mod problem;
pub mod secret;
pub mod service;
pub mod task;
pub mod telemetry;
pub mod view;
