//! Owns the table of a source.

use super::{Kind, Member, Members, NAME, member};
use crate::resources::{SOURCE_WEIGHT_MAX, SourceFormat};

/// What a member that says which events there are says to a change.
const FIXED: &str = "cannot be changed: make another source, and delete this one";

/// The body of a source.
pub const SOURCE: Members = &[&[
    Member {
        required: true,
        fixed: Some(FIXED),
        ..member(
            "topic",
            "The topic's full name. It is none of Anabranch's own, and of no other source.",
            Kind::Topic,
        )
    },
    Member {
        required: true,
        fixed: Some(FIXED),
        ..member(
            "tenant",
            "The tenant of every event in it, whatever a record says.",
            Kind::Slug,
        )
    },
    NAME,
    Member {
        required: true,
        ..member(
            "format",
            "What its records are: `cloudevents` in either mode of the Kafka binding, `json` \
             documents, `opaque` bytes, or `debezium`'s envelope with or without a Connect schema.",
            Kind::OneOf(SourceFormat::NAMES),
        )
    },
    member(
        "event",
        "Where the attributes of its events come from; `type` must be there where the format is \
         `json` or `opaque`, and none may where it is `cloudevents`.",
        Kind::Object(EVENT),
    ),
    member(
        "split",
        "JSON pointer to an array in each record, of which every item is an event; `json` only.",
        Kind::Pointer,
    ),
    Member {
        fixed: Some("is about the making of a source: it has begun"),
        ..member(
            "start",
            "Where reading begins: `latest`, at the first record as new as the source, or \
             `earliest`, at the first that the topic still has; `latest` where absent.",
            Kind::OneOf(&["latest", "earliest"]),
        )
    },
    member(
        "weight",
        "Its turns beside other sources where there is more to route than can be; 10 where absent, \
         and `events` has 100.",
        Kind::Integer {
            min: 1,
            max: SOURCE_WEIGHT_MAX as u64,
        },
    ),
]];

const EVENT: Members = &[&[
    member(
        "type",
        "The event's `type`; `<table>.created`, `updated`, `deleted`, `read` or `truncated` where \
         absent and the format is `debezium`.",
        Kind::Expression,
    ),
    member(
        "source",
        "The event's `source`, a URI reference; `/kafka/<topic>` where absent.",
        Kind::Expression,
    ),
    member(
        "subject",
        "The event's `subject`; none where absent.",
        Kind::Expression,
    ),
    member(
        "key",
        "The event's `partitionkey`, within which ordered subscriptions keep order; the record's \
         key, where it is short text, where absent.",
        Kind::Expression,
    ),
    member(
        "id",
        "The event's `id`; `<topic>/<partition>/<offset>`, and the item's place where the record \
         is split, where absent.",
        Kind::Expression,
    ),
    member(
        "time",
        "The event's `time`: RFC 3339, or unix milliseconds; the record's timestamp, or the \
         change's where the format is `debezium`, where absent.",
        Kind::Expression,
    ),
]];
