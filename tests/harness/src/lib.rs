//! Nouns for the tests: pipelines, endpoints, events, brokers, loads.
//!
//! Owns how a test talks about the system: as a user does, through the binary, its public API and
//! what arrives at endpoints. It must never reach into a service. The surprise: each sink and each
//! load has a thread and a runtime of its own, so that a test that waits never slows what it
//! measures.
#![expect(
    clippy::panic,
    reason = "this crate is for tests alone: what it cannot do fails the test"
)]

mod api;
mod broker;
mod bystander;
mod direct;
mod event;
mod load;
mod own_topic;
mod pipeline;
mod poll;
mod ports;
mod process;
mod sink;
mod topic;
mod trail;
mod turn;

pub use api::{Answer, Api};
pub use broker::Broker;
pub use bystander::Bystander;
pub use direct::Direct;
pub use event::{Event, event};
pub use load::{Load, Sent};
pub use own_topic::OwnTopic;
pub use pipeline::{Builder, Endpoint, Log, Pipeline, pipeline};
pub use poll::{DEADLINE, eventually, never};
pub use ports::free_port;
pub use process::Process;
pub use sink::{
    Answers, Arrival, Behaviour, Sink, always, answers, big, fails, hangs, ok, redirects, slow,
    throttles, throttles_every,
};
pub use topic::{
    Stored, attempts, dead_letters, delete_topic, deliveries, read, set_group_session,
};
pub use trail::trail;
pub use turn::Weight;

/// Now, in unix milliseconds.
pub fn now_ms() -> i64 {
    runtime::clock::Clock::system().now()
}

/// Records that a test could not run, and why: the summary of `./test` lists it.
pub fn not_run(why: &str) {
    use std::io::Write as _;
    let line = format!("not run: {why}\n");
    let stderr = std::io::stderr().write_all(line.as_bytes());
    stderr.expect("standard error takes a line");
    if let Some(path) = std::env::var_os("ANABRANCH_NOT_RUN") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the file that ANABRANCH_NOT_RUN names takes a line");
    }
}

/// Whether the long counts are asked for (`./test --long`).
pub fn long() -> bool {
    std::env::var("ANABRANCH_LONG").is_ok_and(|value| value == "1")
}
