//! Owns which values of the configuration must go together. Each message is made from the same
//! comparison that it explains.

use std::fmt::Display;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::sections::GroupProtocol;
use super::value::{ByteSize, show_duration};
use super::{Config, Fault};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::secret::Sealer;
use crate::telemetry;

/// Room that a target of a record may take beside the event: subscription, endpoint, attempt state,
/// due time, order key.
const TARGET_BYTES: u64 = 512;
/// A shorter operator's key could be guessed; those that are made have 67 characters.
const OPERATOR_KEY_CHARS_MIN: usize = 16;
/// Targets of one record at most (rule 2).
const TARGETS_MAX: u64 = 1_000;

/// librdkafka's properties that acceptance, ownership and commits rest on, or that an option of
/// ours sets.
const NOT_PASSED_ON: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "compression.codec",
    "compression.type",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// What does not go together.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let checks = [
        time_faults(config),
        size_faults(config),
        text_faults(config),
        property_faults(config),
    ];
    checks.into_iter().flatten().flatten().collect()
}

fn property_faults(config: &Config) -> Vec<Option<Fault>> {
    let properties = config.kafka.properties.iter();
    let ours = properties.filter(|(name, _)| NOT_PASSED_ON.contains(name));
    let refuse = |(name, _): (&str, &str)| {
        let key = format!("kafka.properties.{name}");
        let rule = "is set by the service that uses it and cannot be passed on";
        Some(fault(&key, format!("`{key}` {rule}")))
    };
    ours.map(refuse).collect()
}

fn time_faults(config: &Config) -> Vec<Option<Fault>> {
    let (kafka, dispatcher) = (&config.kafka, &config.dispatcher);
    let session = ("kafka.session_timeout", kafka.session_timeout);
    let attempt = ("dispatcher.attempt_timeout", dispatcher.attempt_timeout);
    let drain = ("dispatcher.drain_deadline", dispatcher.drain_deadline);
    let mut faults = vec![
        // A revoke answered after the session has ended is answered by nobody.
        below(drain, session),
        below(drain, ("shutdown.deadline", config.shutdown.deadline)),
        at_most(
            ("dispatcher.connect_timeout", dispatcher.connect_timeout),
            attempt,
        ),
        at_most(("dispatcher.dns_timeout", dispatcher.dns_timeout), attempt),
        // The owner commits at least every quarter of a session: its lease hangs on that.
        quarter(
            ("dispatcher.commit_interval", dispatcher.commit_interval),
            session,
        ),
        at_most(
            (
                "dispatcher.transaction_timeout",
                dispatcher.transaction_timeout,
            ),
            session,
        ),
    ];
    if kafka.group_protocol == GroupProtocol::Classic {
        faults.push(quarter(
            ("kafka.heartbeat_interval", kafka.heartbeat_interval),
            session,
        ));
    }
    faults
}

fn size_faults(config: &Config) -> Vec<Option<Fault>> {
    let (ingest, dispatcher) = (&config.ingest, &config.dispatcher);
    let event = ("ingest.max_event", Size(ingest.max_event));
    let rest = ByteSize::b(
        TARGETS_MAX * TARGET_BYTES
            + ingest.max_header_bytes.as_u64()
            + dispatcher.response_kept.as_u64(),
    );
    let largest = ingest.max_event.as_u64().saturating_add(rest.as_u64());
    // Of every topic and producer: an event that is taken can always be delivered.
    let record_max = ByteSize::b(MAX_RECORD_BYTES as u64);
    let record_fits = largest <= record_max.as_u64();
    vec![
        at_most(event, ("ingest.max_body", Size(ingest.max_body))),
        at_most(
            ("ingest.max_body", Size(ingest.max_body)),
            (
                "ingest.max_in_flight_bytes",
                Size(ingest.max_in_flight_bytes),
            ),
        ),
        at_most(
            ("dispatcher.lane_memory", Size(dispatcher.lane_memory)),
            ("dispatcher.memory", Size(dispatcher.memory)),
        ),
        at_most(
            event,
            ("dispatcher.lane_memory", Size(dispatcher.lane_memory)),
        ),
        at_most(
            ("dispatcher.response_kept", Size(dispatcher.response_kept)),
            ("dispatcher.response_read", Size(dispatcher.response_read)),
        ),
        (!record_fits).then(|| {
            fault(
                "ingest.max_event",
                format!(
                    "`ingest.max_event` and {rest} for headers, targets and a kept response must \
                     be at most {record_max}, the largest record, got {}",
                    ingest.max_event
                ),
            )
        }),
    ]
}

fn text_faults(config: &Config) -> Vec<Option<Fault>> {
    let filter = telemetry::check_filter(&config.telemetry.filter).err();
    let keys = &config.secrets.keys;
    let sealer = if keys.is_empty() {
        None
    } else {
        Sealer::parse(keys).err()
    };
    let operator = config.control.operator_key.as_ref();
    let guessable = operator.is_some_and(|key| key.expose_secret().len() < OPERATOR_KEY_CHARS_MIN);
    let prefix = &config.topics.prefix;
    let topic_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let prefix_holds = prefix.len() <= 100 && prefix.chars().all(topic_char);
    vec![
        filter.map(|error| fault("telemetry.filter", error.to_string())),
        sealer.map(|error| fault("secrets.keys", format!("`secrets.keys`: {error}"))),
        guessable.then(|| {
            let rule = "must have at least";
            fault(
                "control.operator_key",
                format!("`control.operator_key` {rule} {OPERATOR_KEY_CHARS_MIN} characters"),
            )
        }),
        (!prefix_holds).then(|| {
            let rule = "must be at most 100 of a-z, A-Z, 0-9, `.`, `_` and `-`";
            fault(
                "topics.prefix",
                format!("`topics.prefix` {rule}, got `{prefix}`"),
            )
        }),
    ]
}

/// How a value reads in a message.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Size(ByteSize);

trait Shown: Copy + PartialOrd {
    fn shown(self) -> String;
}

impl Shown for Size {
    fn shown(self) -> String {
        self.0.to_string()
    }
}

impl Shown for Duration {
    fn shown(self) -> String {
        show_duration(self)
    }
}

type Named<T> = (&'static str, T);

fn at_most<T: Shown>(left: Named<T>, right: Named<T>) -> Option<Fault> {
    (left.1 > right.1).then(|| compared(left, "at most", right.0, right.1))
}

fn below<T: Shown>(left: Named<T>, right: Named<T>) -> Option<Fault> {
    (left.1 >= right.1).then(|| compared(left, "less than", right.0, right.1))
}

fn quarter(left: Named<Duration>, right: Named<Duration>) -> Option<Fault> {
    (left.1 > right.1 / 4).then(|| compared(left, "at most a quarter of", right.0, right.1))
}

fn compared<T: Shown>(left: Named<T>, words: &str, name: impl Display, right: T) -> Fault {
    let (key, got) = (left.0, left.1.shown());
    let message = format!(
        "`{key}` must be {words} `{name}` = {}, got {got}",
        right.shown()
    );
    fault(key, message)
}

fn fault(key: &str, message: String) -> Fault {
    let key = key.to_owned();
    Fault { key, message }
}
