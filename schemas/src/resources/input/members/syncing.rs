//! Owns the tables of a cohort and of a sync.

use super::{Kind, Member, Members, NAME, member};

/// What a member that decides what is sent says to a change.
const FIXED: &str = "cannot be changed: make another sync, and delete this one";

/// The body of a cohort.
pub const COHORT: Members = &[&[Member {
    required: true,
    ..NAME
}]];

/// The body of a sync.
pub const SYNC: Members = &[&[
    Member {
        required: true,
        fixed: Some(FIXED),
        ..member("cohort", "Whom it sends.", Kind::CohortId)
    },
    Member {
        required: true,
        fixed: Some(FIXED),
        ..member(
            "endpoint",
            "Where they go: an endpoint whose URL the profile's paths are appended to, and whose \
             `authentication` is of a kind that the profile names.",
            Kind::EndpointId,
        )
    },
    Member {
        required: true,
        fixed: Some(FIXED),
        ..member(
            "profile",
            "What the partner takes and how it answers: the id of a profile that comes with the \
             program, or the content of one. The sync keeps it as it is now.",
            Kind::Profile,
        )
    },
    NAME,
    member(
        "variables",
        "The profile's settings. `name`, where the profile has it, is the cohort's name where it \
         is not said; no other can be changed later.",
        Kind::Settings,
    ),
    Member {
        fixed: Some(FIXED),
        ..member(
            "list",
            "The partner's list by its id there, where it exists; made by the first run where \
             absent.",
            Kind::Text { max_chars: 200 },
        )
    },
    member(
        "schedule",
        "When it runs by itself: `cron` of five fields, and `time_zone`; only when it is told to \
         where absent.",
        Kind::Schedule,
    ),
    member(
        "schedule_must_fit",
        "Whether a schedule is refused that the next run cannot keep at the endpoint's limits, as \
         far as numbers of members tell; true where absent. It is not kept.",
        Kind::Flag,
    ),
    member(
        "overlap",
        "What becomes of a run that is not over when the next is due: `replace` goes on with the \
         newest snapshot at its next chunk, `finish` begins the next when it is over, `skip` \
         leaves the next out; `replace` where absent.",
        Kind::OneOf(&["replace", "finish", "skip"]),
    ),
    member(
        "removals_max_percent",
        "A run that would remove a larger share of the list waits for approval; 20 where absent.",
        Kind::Integer { min: 0, max: 100 },
    ),
    Member {
        fixed: Some("is about the making of a sync: change the endpoint's limits"),
        ..member(
            "apply_limits",
            "Whether an endpoint without `limits` or `concurrency` gets those of the profile; true \
             where absent.",
            Kind::Flag,
        )
    },
]];
