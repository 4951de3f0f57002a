//! Owns what a trial sends: requests as a dispatcher would make them, and what their answers mean.
//!
//! It must never look into the partner but to ask how many it holds. The surprise: before each
//! request time goes on by the longest window, so that no limit is met by chance.

use anyhow::{Context, anyhow};
use bytes::Bytes;
use schemas::profile::template::{Compiled, Rendered};
use schemas::profile::{
    Chunk, ChunkData, ItemVerdict, JobState, Judged, Meaning, OperationKind, Profile, judge,
};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::simulate::{Ask, Faults, ONLY_LIST, Outcome, Partner, Reply};

const SECOND_US: u64 = 1_000_000;
/// How often a job is asked after.
const POLLS_MAX: u32 = 1_000;
/// What is kept of an answer, as a dispatcher does.
const CAPTURED_BYTES: usize = 4_096;
/// The list's id, where the API has lists and makes none.
const SOME_LIST: &str = "1000001";

/// Somebody who sends to a simulated partner.
pub(super) struct Client<'p> {
    pub(super) profile: &'p Profile,
    compiled: Compiled,
    pub(super) partner: Partner,
    pub(super) now_us: u64,
    pub(super) list: Value,
    variables: Map<String, Value>,
    members_made: usize,
}

/// A request and what came of it.
pub(super) struct Sent {
    pub(super) request: Vec<String>,
    pub(super) reply: Reply,
    /// Each member's, where the answer speaks of them.
    pub(super) verdicts: Vec<ItemVerdict>,
    /// Else what it says of the request.
    pub(super) whole: Option<Meaning>,
}

impl<'p> Client<'p> {
    /// A client of a partner made from `profile`.
    ///
    /// # Errors
    /// Where none can be made.
    pub(super) fn new(profile: &'p Profile) -> anyhow::Result<Self> {
        let compiled = Compiled::new(profile.operations.clone())
            .map_err(|faults| anyhow!("operations: {:?}", faults.0))?;
        let examples = profile.variables.iter();
        let names_list = |partner: &Partner| {
            let add = partner.routes().get(OperationKind::Add);
            add.is_some_and(|route| route.names_list())
        };
        let partner = Partner::new(profile.clone(), Faults::default(), false)?;
        Ok(Self {
            list: match names_list(&partner) {
                true => Value::from(SOME_LIST),
                false => Value::Null,
            },
            variables: examples
                .map(|(name, variable)| (name.clone(), variable.example.clone()))
                .collect(),
            profile,
            compiled,
            partner,
            now_us: 0,
            members_made: 0,
        })
    }

    /// A request about members, in a job where the API takes members by jobs, to its end.
    pub(super) fn with_job(
        &mut self,
        kind: OperationKind,
        members: &[Map<String, Value>],
    ) -> anyhow::Result<Sent> {
        if self.profile.operations.start_job.is_some() {
            self.send(OperationKind::StartJob, &[])?;
        }
        let sent = self.send(kind, members)?;
        if self.profile.operations.run_job.is_some() {
            self.send(OperationKind::RunJob, &[])?;
        }
        let operation = self.compiled.operation(kind);
        let own = operation.is_some_and(|operation| operation.capture.contains_key("job"));
        let is_job = own || self.profile.operations.start_job.is_some();
        if is_job && sent.reply.status < 400 {
            self.poll()?;
        }
        Ok(sent)
    }

    fn poll(&mut self) -> anyhow::Result<()> {
        let Some(poll) = self.profile.operations.poll.clone() else {
            return Ok(());
        };
        for _ in 0..POLLS_MAX {
            self.now_us += u64::from(poll.every.get()) * SECOND_US;
            let sent = self.send(OperationKind::Poll, &[])?;
            match poll.state(&sent.reply.body) {
                JobState::Running if sent.reply.status < 400 => {}
                JobState::Done => return Ok(()),
                JobState::Running | JobState::Failed => {
                    return Err(anyhow!("poll: {}", sent.reply.body));
                }
            }
        }
        Err(anyhow!("poll: the job does not end"))
    }

    /// A request when every window has room again.
    pub(super) fn send(
        &mut self,
        kind: OperationKind,
        members: &[Map<String, Value>],
    ) -> anyhow::Result<Sent> {
        self.advance();
        self.send_now(kind, members)
    }

    pub(super) fn advance(&mut self) {
        let limits = &self.profile.limits.windows;
        let longest = limits.iter().map(|window| window.seconds.get()).max();
        self.now_us += u64::from(longest.unwrap_or(0)) * SECOND_US;
    }

    pub(super) fn send_now(
        &mut self,
        kind: OperationKind,
        members: &[Map<String, Value>],
    ) -> anyhow::Result<Sent> {
        let (rendered, chunk) = self.render(kind, members)?;
        let body = rendered.body.as_deref().unwrap_or_default();
        let target = if rendered.path.starts_with('/') {
            rendered.path.clone()
        } else {
            format!("/{}", rendered.path)
        };
        let ask = Ask {
            method: rendered.method.as_str(),
            target: &target,
            body,
        };
        let outcome = self.partner.take(self.now_us, &ask);
        self.partner.leave();
        let Outcome::Reply(reply) = outcome else {
            return Err(anyhow!("operation `{kind}`: no answer"));
        };
        if reply.status == 404 {
            return Err(anyhow!("operation `{kind}`: {target}: {}", reply.body));
        }
        let operation = self.compiled.operation(kind).context("no operation")?;
        let ids = chunk.ids(operation.answer.item_id.as_ref());
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let text = reply.body.to_string();
        let judged = judge(&operation.answer, reply.status, text.as_bytes(), &ids);
        let (whole, verdicts) = meant(judged, reply.status);
        if reply.status < 400 {
            for (name, value) in operation.captured(&reply.body, CAPTURED_BYTES) {
                if name == "list" {
                    self.list = value;
                } else {
                    self.variables.insert(name, value);
                }
            }
        }
        Ok(Sent {
            request: shown(&rendered),
            reply,
            verdicts,
            whole,
        })
    }

    pub(super) fn render(
        &self,
        kind: OperationKind,
        members: &[Map<String, Value>],
    ) -> anyhow::Result<(Rendered, Chunk)> {
        let raw = members.iter().map(to_raw_value);
        let raw: Vec<Box<RawValue>> = raw.collect::<Result<_, _>>()?;
        let data = ChunkData {
            operation: kind,
            list: self.list.clone(),
            variables: self.variables.clone(),
            members: raw.iter().map(AsRef::as_ref).collect(),
        };
        let chunk = Chunk::read(&Bytes::from(data.encode()))?;
        let bytes_max = usize::try_from(self.profile.limits.bytes.get()).unwrap_or(usize::MAX);
        let rendered = self.compiled.render(&chunk, bytes_max);
        let rendered = rendered.with_context(|| format!("operation `{kind}`"))?;
        Ok((rendered, chunk))
    }

    /// So many new members, prepared for the partner.
    pub(super) fn members(&mut self, count: usize) -> anyhow::Result<Vec<Map<String, Value>>> {
        let from = self.members_made;
        self.members_made += count;
        let members = (from..self.members_made).map(|number| {
            let fields = self.profile.sample.iter().map(|(name, value)| {
                let value = value.as_str().map(|text| other(text, number));
                (name, value)
            });
            let mut member = self.profile.sample.clone();
            for (name, value) in fields {
                if let Some(value) = value {
                    member.insert(name.clone(), Value::from(value));
                }
            }
            member.insert("id".to_owned(), Value::from(format!("member-{number}")));
            let prepared = self.profile.prepare(member);
            prepared.map_err(|reject| anyhow!("sample: {reject}"))
        });
        members.collect()
    }

    /// How many members the list holds.
    pub(super) fn held(&mut self) -> u64 {
        let list = if self.list.is_null() {
            ONLY_LIST.to_owned()
        } else {
            text_of(&self.list)
        };
        self.partner.look(self.now_us);
        self.partner.count(&list)
    }
}

impl Sent {
    /// Whether all of it was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.whole == Some(Meaning::Delivered)
            || (self.whole.is_none()
                && self.count(|verdict| *verdict == ItemVerdict::Delivered) == self.verdicts.len())
    }

    pub(super) fn count(&self, is: impl Fn(&ItemVerdict) -> bool) -> usize {
        self.verdicts.iter().filter(|verdict| is(verdict)).count()
    }

    /// What was read from the answer.
    pub(super) fn told(&self) -> String {
        let whole = match self.whole {
            Some(Meaning::Delivered) => "taken",
            Some(Meaning::Retry) => "to be sent again",
            Some(Meaning::Rejected) => "refused",
            None => {
                let parts: [(&str, usize); 4] = [
                    ("confirmed", self.count(|it| *it == ItemVerdict::Delivered)),
                    (
                        "refused",
                        self.count(|it| matches!(it, ItemVerdict::Rejected(_))),
                    ),
                    (
                        "to be sent again",
                        self.count(|it| matches!(it, ItemVerdict::Retry(_))),
                    ),
                    ("unknown", self.count(|it| *it == ItemVerdict::Unknown)),
                ];
                let parts = parts.into_iter().filter(|(_, count)| *count > 0);
                let parts = parts.map(|(what, count)| format!("{count} {what}"));
                return parts.collect::<Vec<_>>().join(", ");
            }
        };
        format!("answered {}: {whole}", self.reply.status)
    }
}

/// What an answer means: for the whole request, or for each member.
fn meant(judged: Judged, status: u16) -> (Option<Meaning>, Vec<ItemVerdict>) {
    match judged {
        Judged::Items(verdicts) => (None, verdicts),
        Judged::Whole(Some(meaning)) => (Some(meaning), Vec::new()),
        Judged::Whole(None) => {
            let meaning = match status {
                200..300 => Meaning::Delivered,
                408 | 429 | 500.. => Meaning::Retry,
                _ => Meaning::Rejected,
            };
            (Some(meaning), Vec::new())
        }
    }
}

fn shown(rendered: &Rendered) -> Vec<String> {
    let mut lines = vec![format!("{} {}", rendered.method.as_str(), rendered.path)];
    let headers = rendered.headers.iter();
    lines.extend(headers.map(|(name, value)| format!("{name}: {value}")));
    let body = rendered.body.as_deref();
    lines.extend(body.map(|body| String::from_utf8_lossy(body).into_owned()));
    lines
}

/// A field of another member: an address, a number or a word that differs.
pub(super) fn other(text: &str, number: usize) -> String {
    if let Some((name, domain)) = text.split_once('@') {
        return format!("{name}+{number}@{domain}");
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_number = digits > 6 && text.bytes().all(|byte| !byte.is_ascii_alphabetic());
    if !is_number {
        return format!("{text}-{number}");
    }
    // The last digits are another's.
    let mut left = number;
    let reversed = text.chars().rev().enumerate().map(|(place, letter)| {
        if place >= 8 || !letter.is_ascii_digit() {
            return letter;
        }
        let digit = left % 10;
        left /= 10;
        u32::try_from(digit)
            .ok()
            .and_then(|digit| char::from_digit(digit, 10))
            .unwrap_or(letter)
    });
    reversed.collect::<Vec<_>>().into_iter().rev().collect()
}

pub(super) fn text_of(value: &Value) -> String {
    let text = value.as_str().map(ToOwned::to_owned);
    text.unwrap_or_else(|| value.to_string())
}
