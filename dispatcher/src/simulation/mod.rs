//! Whole dispatchers on the simulated log, in paused time, audited: the nouns that the tests are
//! written with. `SIM_SEEDS` says how many seeds, `SIM_SEED` replays one.

mod audit;
mod batching;
mod chunks;
mod commits;
mod forgetting;
mod health;
mod limits;
mod ordering;
mod planting;
mod probing;
mod reports;
mod rules;
mod tests;
mod transforming;
mod waking;
mod wire;
mod world;

pub(crate) use world::World;
