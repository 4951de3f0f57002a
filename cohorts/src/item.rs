//! Owns what a roster says of one member, and what an answer makes of it. Pure.
//!
//! The surprise: what a partner *holds* is not what it last *answered*: an update that is refused
//! leaves the older version at the partner, which must still be removed one day (rule 14).

use xxhash_rust::xxh3::xxh3_64;

use crate::member::select;
use crate::run::Entry;

/// What the partner last answered for a member (rule 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was taken.
    Confirmed,
    /// It was refused: for good, or (`again`) for now.
    Rejected {
        /// The partner may take the same later.
        again: bool,
    },
    /// It was sent, and nothing is known of what became of it.
    Unknown,
}

/// Whether the partner's list has some version of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// It never took one.
    No,
    /// It may have taken one.
    Maybe,
    /// It confirmed one.
    Yes,
}

/// What a request asks the partner to do with its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Take members that it does not hold.
    Add,
    /// Take newer versions of members that it holds.
    Update,
    /// Let members go.
    Remove,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Add, Self::Update, Self::Remove];

    /// Its name in records and templates.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Remove => "remove",
        }
    }
}

/// What an answer says of one member of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Done.
    Confirmed,
    /// Refused for good, in the partner's words.
    Rejected(&'a str),
    /// Refused for now, in the partner's words.
    Retry(&'a str),
    /// Not said, or never heard.
    Unknown,
}

/// What the roster says of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// The hash of the content as it was last sent.
    pub hash: u64,
    /// What was last answered.
    pub standing: Standing,
    /// Whether the partner has some version of it.
    pub held: Held,
    /// What was last sent is its removal, which is kept until it is confirmed.
    pub leaving: bool,
    /// The partner's words, when it refused.
    pub code: &'a str,
    /// The canonical object of the fields that identify it at the partner; empty when the id does.
    pub fields: &'a [u8],
}

/// The longest code that is kept, in bytes.
pub const CODE_BYTES_MAX: usize = 256;

impl<'a> Item<'a> {
    pub(crate) fn read(entry: Entry<'a>) -> Result<Self, &'static str> {
        const BAD: &str = "an entry is none of a roster's";
        let (length, rest) = entry.body.split_first_chunk::<2>().ok_or(BAD)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (code, fields) = rest.split_at_checked(length).ok_or(BAD)?;
        let standing = match entry.tag & 0b11 {
            0 => Standing::Confirmed,
            1 => Standing::Unknown,
            2 => Standing::Rejected { again: false },
            _ => Standing::Rejected { again: true },
        };
        let held = match (entry.tag >> 2) & 0b11 {
            0 => Held::No,
            1 => Held::Maybe,
            2 => Held::Yes,
            _ => return Err(BAD),
        };
        let leaving = entry.tag & 0b1_0000 != 0;
        let code = std::str::from_utf8(code).map_err(|_| BAD)?;
        Ok(Self {
            hash: entry.hash,
            standing,
            held,
            leaving,
            code,
            fields,
        })
    }

    pub(crate) fn tag(&self) -> u8 {
        let standing = match self.standing {
            Standing::Confirmed => 0,
            Standing::Unknown => 1,
            Standing::Rejected { again: false } => 2,
            Standing::Rejected { again: true } => 3,
        };
        let held = match self.held {
            Held::No => 0,
            Held::Maybe => 1,
            Held::Yes => 2,
        };
        standing | (held << 2) | (u8::from(self.leaving) << 4)
    }

    pub(crate) fn write_body(&self, out: &mut Vec<u8>) {
        out.clear();
        let code = cut(self.code);
        let length = u16::try_from(code.len()).unwrap_or_default();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(self.fields);
    }
}

fn cut(code: &str) -> &str {
    code.get(..code.floor_char_boundary(CODE_BYTES_MAX))
        .unwrap_or_default()
}

/// What one member's request and its verdict make of the roster: an item, or none (it is gone from
/// the partner's list). `hash` and `fields` are what was sent, `held` what was known before.
#[must_use]
pub fn settle<'a>(
    operation: Operation,
    held: Held,
    sent: (u64, &'a [u8]),
    verdict: Verdict<'a>,
) -> Option<Item<'a>> {
    let leaving = operation == Operation::Remove;
    let (standing, held, code) = match verdict {
        Verdict::Confirmed if leaving => return None,
        Verdict::Confirmed => (Standing::Confirmed, Held::Yes, ""),
        Verdict::Rejected(code) => (Standing::Rejected { again: false }, held, code),
        Verdict::Retry(code) => (Standing::Rejected { again: true }, held, code),
        Verdict::Unknown => (Standing::Unknown, held.max(Held::Maybe), ""),
    };
    let (hash, fields) = sent;
    Some(Item {
        hash,
        standing,
        held,
        leaving,
        code,
        fields,
    })
}

/// What becomes of a member, or of what the partner holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is sent.
    Send(Operation),
    /// The partner confirmed this very content.
    Keep,
    /// The partner refused this very content for good: it is not sent again.
    Refused,
    /// It left, and the partner refused for good to let it go: the sync says so (rule 14).
    RefusedRemoval,
    /// It left, and the partner never took it: nothing is to be done.
    Absent,
    /// It is not sent now, as an older request with it may arrive yet.
    HeldBack,
}

/// What becomes of a member: `member` is the hash of its content in the cohort, `item` what the
/// roster says of it.
#[must_use]
pub fn decide(member: Option<u64>, item: Option<&Item<'_>>) -> Decision {
    match (member, item) {
        (None, None) => Decision::Absent,
        (Some(_), None) => Decision::Send(Operation::Add),
        (Some(hash), Some(item)) => decide_member(hash, item),
        (None, Some(item)) => decide_left(item),
    }
}

fn decide_member(hash: u64, item: &Item<'_>) -> Decision {
    let send = match item.held {
        // Whatever became of its removal, the partner takes it as a new one.
        _ if item.leaving => return Decision::Send(Operation::Add),
        Held::Yes => Decision::Send(Operation::Update),
        Held::No | Held::Maybe => Decision::Send(Operation::Add),
    };
    match item.standing {
        Standing::Confirmed if item.hash == hash => Decision::Keep,
        Standing::Rejected { again: false } if item.hash == hash => Decision::Refused,
        Standing::Confirmed | Standing::Rejected { .. } | Standing::Unknown => send,
    }
}

fn decide_left(item: &Item<'_>) -> Decision {
    match (item.held, item.standing) {
        (Held::No, _) => Decision::Absent,
        (Held::Maybe | Held::Yes, Standing::Rejected { again: false }) if item.leaving => {
            Decision::RefusedRemoval
        }
        (Held::Maybe | Held::Yes, _) => Decision::Send(Operation::Remove),
    }
}

// === Key ===

/// What separates an id from the hash of its identity in a roster's key: no id has it.
const SEPARATOR: u8 = 0;

/// Writes a member's key in a roster into `key`, and its identifying fields into `fields`. Where a
/// partner knows members by other fields than the id, a member whose fields change is another to
/// it: the old one must be removed, and so has a key of its own.
pub(crate) fn write_key(
    id: &[u8],
    canonical: &[u8],
    identity: &[String],
    (key, fields): (&mut Vec<u8>, &mut Vec<u8>),
) {
    key.clear();
    key.extend_from_slice(id);
    fields.clear();
    if !identity.is_empty() {
        *fields = select(canonical, identity);
        key.push(SEPARATOR);
        key.extend_from_slice(&xxh3_64(fields).to_be_bytes());
    }
}

/// The id in a key.
pub(crate) fn id_of(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == SEPARATOR)
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: Decision = Decision::Send(Operation::Add);
    const UPDATE: Decision = Decision::Send(Operation::Update);
    const REMOVE: Decision = Decision::Send(Operation::Remove);

    fn item(standing: Standing, held: Held, leaving: bool) -> Item<'static> {
        Item {
            hash: 1,
            standing,
            held,
            leaving,
            code: "",
            fields: b"",
        }
    }

    #[test]
    fn every_case_of_the_join_is_decided() {
        use Held::{Maybe, No, Yes};
        let (good, unknown) = (Standing::Confirmed, Standing::Unknown);
        let (refused, later) = (
            Standing::Rejected { again: false },
            Standing::Rejected { again: true },
        );
        // Standing, held, leaving; the decision for the same content, for another, and for none.
        for (standing, held, leaving, same, other, none) in [
            (good, Yes, false, Decision::Keep, UPDATE, REMOVE),
            (unknown, Maybe, false, ADD, ADD, REMOVE),
            (unknown, Yes, false, UPDATE, UPDATE, REMOVE),
            (refused, No, false, Decision::Refused, ADD, Decision::Absent),
            (refused, Maybe, false, Decision::Refused, ADD, REMOVE),
            (refused, Yes, false, Decision::Refused, UPDATE, REMOVE),
            (later, No, false, ADD, ADD, Decision::Absent),
            (later, Yes, false, UPDATE, UPDATE, REMOVE),
            (unknown, Yes, true, ADD, ADD, REMOVE),
            (later, Yes, true, ADD, ADD, REMOVE),
            (refused, Yes, true, ADD, ADD, Decision::RefusedRemoval),
        ] {
            let item = item(standing, held, leaving);
            assert_eq!(decide(Some(1), Some(&item)), same, "same {item:?}");
            assert_eq!(decide(Some(2), Some(&item)), other, "other {item:?}");
            assert_eq!(decide(None, Some(&item)), none, "none {item:?}");
        }
        assert_eq!(decide(Some(1), None), ADD);
        assert_eq!(decide(None, None), Decision::Absent);
    }

    #[test]
    fn what_is_held_is_never_forgotten_by_a_refusal() {
        for held in [Held::No, Held::Maybe, Held::Yes] {
            for operation in Operation::ALL {
                let sent = (7, &b"{}"[..]);
                let refused = settle(operation, held, sent, Verdict::Rejected("no")).unwrap();
                assert_eq!((refused.held, refused.code, refused.hash), (held, "no", 7));
                assert_eq!(refused.leaving, operation == Operation::Remove);
                let unknown = settle(operation, held, sent, Verdict::Unknown).unwrap();
                assert_ne!(unknown.held, Held::No, "what was sent may have been taken");
            }
        }
        let gone = settle(Operation::Remove, Held::Yes, (7, b""), Verdict::Confirmed);
        assert_eq!(gone, None);
    }

    #[test]
    fn an_item_reads_as_it_was_written() {
        for standing in [
            Standing::Confirmed,
            Standing::Unknown,
            Standing::Rejected { again: false },
            Standing::Rejected { again: true },
        ] {
            for held in [Held::No, Held::Maybe, Held::Yes] {
                for (leaving, code) in [(false, ""), (true, "invalid é")] {
                    let item = Item {
                        hash: 9,
                        standing,
                        held,
                        leaving,
                        code,
                        fields: b"{\"e\":1}",
                    };
                    let mut body = Vec::new();
                    item.write_body(&mut body);
                    let entry = Entry {
                        id: b"a",
                        tag: item.tag(),
                        hash: 9,
                        body: &body,
                    };
                    assert_eq!(Item::read(entry), Ok(item));
                    assert!(!entry.is_gone());
                }
            }
        }
        let long = "é".repeat(CODE_BYTES_MAX);
        assert_eq!(cut(&long).len(), CODE_BYTES_MAX);
    }

    #[test]
    fn a_key_keeps_the_order_of_ids() {
        let key = |id: &str, body: &str| {
            let (mut key, mut fields) = (Vec::new(), Vec::new());
            write_key(
                id.as_bytes(),
                body.as_bytes(),
                &["e".to_owned()],
                (&mut key, &mut fields),
            );
            key
        };
        let one = key("a", r#"{"e":1}"#);
        assert_eq!(id_of(&one), b"a");
        assert_ne!(one, key("a", r#"{"e":2}"#));
        assert_eq!(one, key("a", r#"{"e":1,"f":2}"#));
        assert!(one < key("a!", "{}") && key("a!", "{}") < key("b", "{}"));
    }
}
