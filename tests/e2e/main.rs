//! End to end: the binary's processes, real Kafka or the embedded log, real endpoints on loopback.
//!
//! Each test reads as behaviour; how it is done is the `harness`'s. What a test proves is named by
//! the rule or requirement that it cites.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that does not find what it expects fails"
)]

mod arrivals;
mod batches;
mod behaviours;
mod bounds;
mod changes;
mod chaos;
mod cohorts;
mod commands;
mod crashes;
mod dashboard;
mod interop;
mod limits;
mod nodes;
mod oracle;
mod order;
mod outages;
mod producers;
mod redrives;
mod replicas;
mod routers;
mod shares;
mod soak;
mod sources;
mod starts;
mod topics;
mod traffic;
mod transforms;

use harness::{Builder, Log};

/// A pipeline of the binary under test.
fn pipeline() -> Builder {
    harness::pipeline(env!("CARGO_BIN_EXE_anabranch"))
}

/// Makes a test of `$test(Log)` on Kafka and one on the embedded log.
macro_rules! on_both_logs {
    ($($test:ident),+ $(,)?) => {
        mod on_kafka {
            $(#[tokio::test]
            async fn $test() {
                super::$test(harness::Log::Kafka).await;
            })+
        }
        mod on_the_embedded_log {
            $(#[tokio::test]
            async fn $test() {
                super::$test(harness::Log::Embedded).await;
            })+
        }
    };
}
use on_both_logs;

/// On Kafka with two of each, so that what must hold across processes is at stake.
fn pipeline_on(log: Log) -> Builder {
    pipeline().on(log).routers(2).dispatchers(2)
}
