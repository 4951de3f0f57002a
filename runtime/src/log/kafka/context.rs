//! Owns what librdkafka says on the side: its log lines and its global errors.
//!
//! It must never act on them. The surprise: what librdkafka calls an error here is told once more
//! where it matters (to a reader, a producer, a member), so here it is only logged.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// A context that only logs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines;

impl ClientContext for Lines {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Lines {}

/// One line of librdkafka's log.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        // It calls the router's gapless setting experimental, once for each producer.
        RDKafkaLogLevel::Warning
            if facility == "CONFWARN" && line.contains("enable.gapless.guarantee") =>
        {
            tracing::debug!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// One of librdkafka's global errors; most mend themselves.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", %error, reason, "client error");
}
