//! Owns the paths of a profile's requests: what is always there, and where the list and the job
//! stand in between.
//!
//! It must never take a path for another that says more of it. The surprise: it is made from a path
//! that a template made of marked values, not from the template.

use percent_encoding::percent_decode_str;

/// What stands at a place that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The list's id.
    List,
    /// The job's.
    Job,
    /// A setting of the sync.
    Setting,
}

/// A text that stands for a value.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) text: String,
    pub(super) slot: Slot,
}

/// A path with slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Whether it may hold `/` as it is.
    Slot(Slot, bool),
}

/// What a path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) list: Option<String>,
    pub(super) job: Option<String>,
}

impl Pattern {
    /// The pattern of a path in which `marks` stand for values. A mark that holds a `/` shows
    /// whether the template writes it as it is.
    pub(super) fn of(path: &str, marks: &[Mark]) -> Self {
        let (mut parts, mut rest) = (Vec::new(), path);
        loop {
            let found = marks.iter().flat_map(|mark| {
                let encoded = mark.text.replace('/', "%2F");
                let plain = rest.find(&mark.text).map(|at| (at, mark.text.len()));
                let coded = rest.find(&encoded).map(|at| (at, encoded.len()));
                let whole = plain.is_some() && mark.text.contains('/');
                plain.or(coded).map(|(at, len)| (at, len, mark.slot, whole))
            });
            let Some((at, len, slot, whole)) = found.min_by_key(|(at, ..)| *at) else {
                break;
            };
            let (before, after) = rest.split_at(at);
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            parts.push(Part::Slot(slot, whole));
            rest = after.get(len..).unwrap_or_default();
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Self(parts)
    }

    /// What `path` says, where it is one of these.
    pub(super) fn read(&self, path: &str) -> Option<Said> {
        let mut said = Said::default();
        let mut rest = path;
        let mut parts = self.0.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Slot(slot, whole) => {
                    let len = match parts.peek() {
                        None => rest.len(),
                        Some(Part::Literal(next)) => rest.find(next.as_str())?,
                        Some(Part::Slot(..)) => return None,
                    };
                    let (value, after) = rest.split_at(len);
                    if value.is_empty() || (!whole && value.contains('/')) {
                        return None;
                    }
                    let value = percent_decode_str(value).decode_utf8().ok()?;
                    match slot {
                        Slot::List => said.list = Some(value.into_owned()),
                        Slot::Job => said.job = Some(value.into_owned()),
                        Slot::Setting => {}
                    }
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(said)
    }

    /// How much of it is always there.
    pub(super) fn weight(&self) -> usize {
        let literals = self.0.iter().map(|part| match part {
            Part::Literal(text) => text.len(),
            Part::Slot(..) => 0,
        });
        literals.sum()
    }

    /// Whether it has a slot for this.
    pub(super) fn has(&self, slot: Slot) -> bool {
        let mut parts = self.0.iter();
        parts.any(|part| matches!(part, Part::Slot(other, _) if *other == slot))
    }

    /// The same for people.
    pub(super) fn shown(&self) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Slot(Slot::List, _) => "{list}",
            Part::Slot(Slot::Job, _) => "{job}",
            Part::Slot(Slot::Setting, _) => "{…}",
        });
        let shown: String = parts.collect();
        if shown.is_empty() {
            "/".to_owned()
        } else {
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> Pattern {
        let mark = |text: &str, slot| Mark {
            text: text.to_owned(),
            slot,
        };
        Pattern::of(
            path,
            &[
                mark("91", Slot::List),
                mark("j/92", Slot::Job),
                mark("93", Slot::Setting),
            ],
        )
    }

    #[test]
    fn slots_are_read_and_literals_must_be_there() {
        let check = |made: &str, path: &str, want: Option<(Option<&str>, Option<&str>)>| {
            let said = pattern(made).read(path);
            let said = said.as_ref();
            let said = said.map(|said| (said.list.as_deref(), said.job.as_deref()));
            assert_eq!(said, want, "{made} {path}");
        };
        check("/users/track", "/users/track", Some((None, None)));
        check("/users/track", "/users/track/x", None);
        check("/lists/91", "/lists/a%20b", Some((Some("a b"), None)));
        check("/lists/91", "/lists/1/members", None);
        check(
            "/lists/91/members",
            "/lists/1/members",
            Some((Some("1"), None)),
        );
        check("/lists/91/members", "/lists/1/members/remove", None);
        check("/lists/91", "/lists/", None);
        check(
            "/v1/j/92:run",
            "/v1/c/1/jobs/7:run",
            Some((None, Some("c/1/jobs/7"))),
        );
        check("/jobs/j%2F92", "/jobs/a%2Fb", Some((None, Some("a/b"))));
        check("/jobs/j%2F92", "/jobs/a/b", None);
        check("/act_93/x?l=91", "/act_1/x?l=5", Some((Some("5"), None)));
        assert_eq!(pattern("/act_93/x?l=91").shown(), "/act_{…}/x?l={list}");
        assert!(pattern("/lists/91/members").weight() > pattern("/lists/91").weight());
        assert_eq!(pattern(""), Pattern(Vec::new()));
    }
}
