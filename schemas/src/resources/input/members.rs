//! Owns the tables: which members a body has, and the rule for each.

mod sending;
mod sourcing;
mod syncing;

pub use sourcing::SOURCE;
pub use syncing::{COHORT, SYNC};

/// A body's members, in groups that several bodies share.
pub type Members = &'static [&'static [Member]];

/// One member of a body.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What it is, for the API's document.
    pub doc: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// Why it cannot be changed later, where it cannot.
    pub fixed: Option<&'static str>,
}

/// What a member may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text for people, without control characters.
    Text {
        /// The most characters.
        max_chars: usize,
    },
    /// A tenant's slug; also the form of other names that are chosen.
    Slug,
    /// An endpoint's id.
    EndpointId,
    /// A cohort's id.
    CohortId,
    /// A URL that the address policy admits, as far as its text shows (SS-6).
    Url,
    /// A signing secret: `whsec_` and 24 to 64 bytes in base64 (WH-5), or `whsk_` and an ed25519
    /// key (WH-6).
    Secret,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// Waits in milliseconds.
    Waits,
    /// Event types.
    Types,
    /// Filters of the CloudEvents subscriptions API (SB-2).
    Filters,
    /// A response grammar (rule 15).
    Grammar,
    /// A transform of events.
    Transform,
    /// A partner's profile: the id of one that comes with the program, or its content.
    Profile,
    /// An object of which the profile says what is in it.
    Settings,
    /// When something runs by itself: `cron` and `time_zone`.
    Schedule,
    /// The name of a topic.
    Topic,
    /// A JSON pointer (RFC 6901).
    Pointer,
    /// Where an attribute of a source's events comes from.
    Expression,
    /// Where a subscription starts: `latest` or a time.
    Start,
    /// True or false.
    Flag,
    /// Text that nobody may read again. A change that leaves it out keeps it.
    Hidden {
        /// The most characters.
        max_chars: usize,
    },
    /// A header's name that an endpoint may choose.
    HeaderName,
    /// A header's value.
    HeaderValue {
        /// The most bytes.
        max_bytes: usize,
    },
    /// Certificates in PEM.
    Certificates,
    /// A private key in PEM; nobody may read it again. A change that leaves it out keeps it.
    PrivateKey,
    /// Headers of an endpoint's own, no name twice.
    Headers(Members),
    /// An array of objects, each of one variant.
    List {
        /// The most items.
        max: usize,
        /// The variants of an item.
        of: Variants,
    },
    /// An object with members of its own.
    Object(Members),
    /// An object whose member `kind` says which others it has.
    OneKindOf(Variants),
}

/// The kinds of an object.
#[derive(Debug, Clone, Copy)]
pub struct Variants {
    /// The kind where none is said.
    pub default: Option<&'static str>,
    /// Each kind with its members.
    pub kinds: &'static [(&'static str, Members)],
}

/// The most waits of a retry schedule.
pub(super) const WAITS_MAX: usize = 50;
/// The longest wait, and the longest that all of a schedule's waits may take together.
pub(super) const WAIT_MS_MAX: u64 = 24 * 3_600_000;
/// The longest life of a delivery: topics keep records no longer than this and a week.
pub(super) const AGE_MS_MAX: u64 = 76 * 3_600_000;
/// The most event types of one subscription's shorthand.
pub(super) const TYPES_MAX: usize = 100;
/// The longest URL.
pub(super) const URL_CHARS_MAX: usize = 2_048;

/// The body of a tenant.
pub const TENANT: Members = &[
    &[
        Member {
            required: true,
            fixed: Some("a tenant's id cannot be changed"),
            ..member(
                "id",
                "The tenant's slug, which every path and key names.",
                Kind::Slug,
            )
        },
        NAME,
        member(
            "fair_share",
            "What the tenant may send in each process of ingest before its events make way for \
             those of others: they are taken all the same and routed with a lower weight. A tenant \
             with an ordered subscription is answered 429 instead, which keeps its order.",
            Kind::Object(RATES),
        ),
    ],
    RATE_MEMBERS,
];

const RATES: Members = &[RATE_MEMBERS];

const RATE_MEMBERS: &[Member] = &[
    member(
        "events_per_second",
        "Events a second that ingest takes; the configured default where absent.",
        Kind::Integer {
            min: 1,
            max: 100_000_000,
        },
    ),
    member(
        "bytes_per_second",
        "Bytes a second that ingest takes; the configured default where absent.",
        Kind::Integer {
            min: 1,
            max: u32::MAX as u64,
        },
    ),
];

/// The body of an API key.
pub const KEY: Members = &[&[
    NAME,
    member(
        "endpoint",
        "The one endpoint that the key may see, pause, resume and rotate; absent for a key to \
         everything of its tenant.",
        Kind::EndpointId,
    ),
]];

/// The body of an endpoint.
pub const ENDPOINT: Members = &[ENDPOINT_MEMBERS];

/// The body of a subscription.
pub const SUBSCRIPTION: Members = &[
    &[
        Member {
            required: true,
            fixed: Some("a subscription's endpoint never changes: make another subscription"),
            ..member("endpoint", "Where matching events go.", Kind::EndpointId)
        },
        NAME,
    ],
    WHICH_EVENTS,
    &[ORDERED, START, TRANSFORM],
];

/// The body of a webhook: an endpoint and a subscription to it.
pub const WEBHOOK: Members = &[ENDPOINT_MEMBERS, WHICH_EVENTS, &[ORDERED, START, TRANSFORM]];

/// The body of a rotation.
pub const ROTATION: Members = &[&[
    SECRET,
    SIGNATURE,
    member(
        "expires_in",
        "Seconds for which the secret before it signs too (WH-3); a day where absent.",
        Kind::Integer {
            min: 0,
            max: 7 * 86_400,
        },
    ),
]];

/// What replaces a secret that requests authenticate with.
pub const CREDENTIAL: Members = &[&[sending::CREDENTIAL]];

const NAME: Member = member("name", "A name for people.", Kind::Text { max_chars: 200 });

const SECRET: Member = Member {
    fixed: Some("use `rotate-secret`, which lets the old secret sign for a while"),
    ..member(
        "secret",
        "The signing secret: `whsec_` and 24 to 64 bytes in base64, or an ed25519 key as `whsk_` \
         and base64 (WH-5, WH-6). Made and shown once where absent; never readable again.",
        Kind::Secret,
    )
};

const SIGNATURE: Member = Member {
    fixed: Some("use `rotate-secret`, which lets the old secret sign for a while"),
    ..member(
        "signature",
        "What the secret that is made signs with: `v1` (HMAC-SHA256, a shared secret) or `v1a` \
         (ed25519, verified with the public key that the endpoint shows); `v1` where absent.",
        Kind::OneOf(&["v1", "v1a"]),
    )
};

const ORDERED: Member = member(
    "ordered",
    "Whether events of one key (`partitionkey`, else `subject`, else `source`) are delivered one \
     after another; others overtake freely.",
    Kind::Flag,
);

const START: Member = Member {
    fixed: Some("a subscription's start never changes: make another subscription"),
    ..member(
        "start",
        "Which events that are in the log already it gets: `latest` for none, or a time (RFC 3339, \
         not in the future) for those written then or later, which are replayed. Where absent, it \
         begins wherever routing is.",
        Kind::Start,
    )
};

const TRANSFORM: Member = member(
    "transform",
    "What becomes of events on their way: `steps` that select, strip, rename, set and compute \
     values of the data, set attributes, or drop the event; and the `request`: method, path, query \
     and headers as templates. Events go as they are where absent. A change replaces the whole.",
    Kind::Transform,
);

const WHICH_EVENTS: &[Member] = &[
    member(
        "filters",
        "Filters in the form of the CloudEvents subscriptions API, all of which must match: \
         `exact`, `prefix`, `suffix`, `all`, `any`, `not`. Every event where absent or empty.",
        Kind::Filters,
    ),
    member(
        "types",
        "Event types, any of which matches; instead of `filters`.",
        Kind::Types,
    ),
];

const ENDPOINT_MEMBERS: &[Member] = &[
    Member {
        required: true,
        ..member(
            "url",
            "Where requests go: https, and a public host.",
            Kind::Url,
        )
    },
    NAME,
    SECRET,
    SIGNATURE,
    Member {
        fixed: Some("an endpoint's quota decides where it lives and cannot be changed"),
        ..member(
            "quota",
            "The name of the quota that this endpoint spends together with others of its tenant; \
             its own where absent. They have the same `limits` and `concurrency`: what is absent \
             here is taken over, and a change of one is a change of all.",
            Kind::Slug,
        )
    },
    member(
        "body",
        "How an event is written as a request's body.",
        Kind::OneOf(&["structured", "binary", "standard_webhooks", "data", "form"]),
    ),
    sending::LIMITS,
    member(
        "concurrency",
        "Requests at once; the configured default where absent.",
        Kind::Integer {
            min: 1,
            max: 10_000,
        },
    ),
    member(
        "timeout_ms",
        "An attempt's total deadline (WH-14); the configured default where absent.",
        Kind::Integer {
            min: 100,
            max: 30_000,
        },
    ),
    member(
        "retry_schedule_ms",
        "Waits between attempts; the schedule of Standard Webhooks where absent (WH-15).",
        Kind::Waits,
    ),
    member(
        "retry_jitter",
        "How those waits are spread: `small`, by a fifth to either side, or `full`, anywhere from \
         nothing to the whole wait; `small` where absent.",
        Kind::OneOf(&["small", "full"]),
    ),
    member(
        "max_age_ms",
        "A delivery older than this ends; 76 hours where absent.",
        Kind::Integer {
            min: 1_000,
            max: AGE_MS_MAX,
        },
    ),
    sending::BATCH,
    sending::GRAMMAR,
    member(
        "disable_after_ms",
        "Failing for longer disables it (WH-16); 5 days where absent, never where 0.",
        Kind::Integer {
            min: 0,
            max: 30 * 86_400_000,
        },
    ),
    member(
        "reenable",
        "Whether a disabled endpoint is probed and enabled by itself when it answers again.",
        Kind::Flag,
    ),
    sending::AUTHENTICATION,
    sending::HEADERS,
    member(
        "header_case",
        "In which case headers' names are sent over HTTP/1.1: `webhook-id` or `Webhook-Id`.",
        Kind::OneOf(&["lower", "title"]),
    ),
    member(
        "compress",
        "Whether bodies are sent compressed (`Content-Encoding: gzip`).",
        Kind::Flag,
    ),
    sending::CLIENT_CERTIFICATE,
];

pub(super) const fn member(name: &'static str, doc: &'static str, kind: Kind) -> Member {
    Member {
        name,
        doc,
        kind,
        required: false,
        fixed: None,
    }
}

/// The member called `name`.
pub(super) fn find(members: Members, name: &str) -> Option<&'static Member> {
    members
        .iter()
        .copied()
        .flatten()
        .find(|member| member.name == name)
}
