//! Behaviour of the service on the simulated log, in paused time.

mod access;
mod cohorts;
mod credentials;
mod disabling;
mod explain;
mod objects;
mod redrives;
mod replicas;
mod rig;
mod secrets;
mod sources;
mod starts;
mod writing;
