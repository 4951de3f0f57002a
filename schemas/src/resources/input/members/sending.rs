//! Owns the tables of an endpoint's limits, batches, authentication, headers and certificate.

use super::{Kind, Member, Members, URL_CHARS_MAX, Variants, member};
use crate::resources::WINDOWS_MAX;

/// The longest window: 31 days.
const WINDOW_MS_MAX: u64 = 31 * 86_400_000;
/// The longest secret: tokens of some servers are that long.
const HIDDEN_CHARS_MAX: usize = 4_096;

pub(super) const LIMITS: Member = member(
    "limits",
    "The windows it allows, all of which hold; no limit where absent.",
    Kind::List {
        max: WINDOWS_MAX,
        of: Variants {
            default: Some("spread"),
            kinds: &[
                ("spread", &[WINDOW, &[BURST]]),
                ("sliding", &[WINDOW]),
                ("fixed", &[WINDOW, &[OFFSET]]),
            ],
        },
    },
);

const WINDOW: &[Member] = &[
    Member {
        required: true,
        ..member(
            "count",
            "How many.",
            Kind::Integer {
                min: 1,
                max: 100_000_000,
            },
        )
    },
    member(
        "per_ms",
        "In how many milliseconds; a second where absent.",
        Kind::Integer {
            min: 1,
            max: WINDOW_MS_MAX,
        },
    ),
    member(
        "unit",
        "Of what; requests where absent.",
        Kind::OneOf(&["requests", "items"]),
    ),
];

const BURST: Member = member(
    "burst",
    "How many may come at once; one where absent.",
    Kind::Integer {
        min: 1,
        max: 100_000,
    },
);

const OFFSET: Member = member(
    "offset_ms",
    "When the window begins: so many milliseconds after each multiple of its length since the \
     unix epoch; 0 where absent.",
    Kind::Integer {
        min: 0,
        max: WINDOW_MS_MAX - 1,
    },
);

pub(super) const BATCH: Member = member(
    "batch",
    "Several events in one request; one each where absent.",
    Kind::Object(BATCH_MEMBERS),
);

const BATCH_MEMBERS: Members = &[&[
    Member {
        required: true,
        ..member(
            "max_items",
            "The most events of one request.",
            Kind::Integer {
                min: 1,
                max: 10_000,
            },
        )
    },
    member(
        "max_bytes",
        "The most bytes of one request's body; 262,144 where absent.",
        Kind::Integer {
            min: 1_024,
            max: 4 * 1_024 * 1_024,
        },
    ),
    member(
        "max_wait_ms",
        "How long a request waits to become full; 0 where absent: what is there goes.",
        Kind::Integer { min: 0, max: 5_000 },
    ),
    member(
        "format",
        "How it is written: the CloudEvents batch format, or a JSON array of the events' data; \
         `cloudevents` where absent.",
        Kind::OneOf(&["cloudevents", "array"]),
    ),
]];

pub(super) const GRAMMAR: Member = member(
    "grammar",
    "How answers are read where their status does not say all: what statuses mean, and where the \
     body counts and names the items that failed.",
    Kind::Grammar,
);

pub(super) const AUTHENTICATION: Member = member(
    "authentication",
    "How requests say on whose behalf they come. Secrets in it are never readable again; a change \
     that leaves one out keeps it, as long as requests go to the same place.",
    Kind::OneKindOf(Variants {
        default: None,
        kinds: &[
            ("basic", &[BASIC]),
            ("bearer", &[BEARER]),
            ("api_key", &[API_KEY]),
            ("oauth2", &[OAUTH2]),
        ],
    }),
);

const BASIC: &[Member] = &[
    required(member(
        "username",
        "The user's name, without a colon.",
        Kind::Text { max_chars: 255 },
    )),
    required(member("password", "The password.", HIDDEN)),
];

const BEARER: &[Member] = &[required(member("token", "The token.", HIDDEN))];

const API_KEY: &[Member] = &[
    required(member(
        "header",
        "The name of the header that holds the key.",
        Kind::HeaderName,
    )),
    required(member("value", "The header's value.", HIDDEN)),
];

const OAUTH2: &[Member] = &[
    required(member(
        "token_url",
        "Where tokens are fetched by client credentials.",
        Kind::Url,
    )),
    required(member(
        "client_id",
        "The client's id.",
        Kind::Text { max_chars: 255 },
    )),
    required(member("client_secret", "The client's secret.", HIDDEN)),
    member(
        "scope",
        "The scopes asked for, separated by spaces.",
        Kind::Text { max_chars: 1_000 },
    ),
    member(
        "audience",
        "The audience asked for.",
        Kind::Text {
            max_chars: URL_CHARS_MAX,
        },
    ),
    member(
        "client_in",
        "Where the client is named: in `Authorization` or in the form; `header` where absent.",
        Kind::OneOf(&["header", "body"]),
    ),
];

const HIDDEN: Kind = Kind::Hidden {
    max_chars: HIDDEN_CHARS_MAX,
};

pub(super) const CREDENTIAL: Member = required(member(
    "value",
    "The new password, token, API key or client secret; never readable again.",
    HIDDEN,
));

pub(super) const HEADERS: Member = member(
    "headers",
    "Headers of its own, on every request; at most 32, none of those that are set by themselves. \
     They are shown to whoever may read the endpoint: secrets belong into `authentication`.",
    Kind::Headers(&[HEADER]),
);

const HEADER: &[Member] = &[
    required(member(
        "name",
        "Its name; sent in the case that `header_case` says.",
        Kind::HeaderName,
    )),
    required(member(
        "value",
        "Its value.",
        Kind::HeaderValue { max_bytes: 1_024 },
    )),
];

pub(super) const CLIENT_CERTIFICATE: Member = member(
    "client_certificate",
    "What is shown to a server that asks for a certificate (mutual TLS).",
    Kind::Object(&[&[
        required(member(
            "certificate_pem",
            "The certificate, then those that lead to its authority, as PEM.",
            Kind::Certificates,
        )),
        required(member(
            "key",
            "Its private key, as PEM (PKCS #8, PKCS #1 or SEC 1).",
            Kind::PrivateKey,
        )),
    ]]),
);

const fn required(member: Member) -> Member {
    Member {
        required: true,
        ..member
    }
}
