//! Owns what a partner's API takes, as data: the file that a profile is, and its requests as
//! templates over a chunk's members.
//!
//! It never says how an endpoint is reached: URL and credentials are the endpoint's, by whom a
//! profile is used. The surprise: [`RequestTemplates`] are stored with a sync's subscription, so
//! that whoever makes a request needs no profile.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::units;
use super::{Identity, Pointer, ResponseGrammar};
use crate::resources::{LimitUnit, RateWindow, WindowKind};

/// What a partner's API accepts and how it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its id: lower-case letters, digits and `-`.
    pub profile: String,
    /// Which version of it this is.
    pub version: NonZeroU32,
    /// A name for people.
    pub title: String,
    /// The public page that it was written from.
    pub documentation: String,
    /// The version of the partner's API that it speaks, in the partner's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// When that version ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset: Option<Date>,
    /// What is known to be different at the partner, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// What a member must have, and how it is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<Identity>,
    /// Fields of which a member must have at least one; empty for no such rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require_any: Vec<String>,
    /// What whoever makes a sync says beside its cohort: templates find it in `variables`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// A member as it is uploaded, by which the templates are tried out.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub sample: Map<String, Value>,
    /// How much it takes.
    pub limits: Limits,
    /// What may authenticate its requests; empty for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authentication: Vec<AuthenticationKind>,
    /// Its requests.
    pub operations: RequestTemplates,
    /// What a simulator of the partner must know beside all this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulator: Option<Simulator>,
}

/// A setting of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// What it is, for people.
    pub title: String,
    /// An example, by which the templates are tried out.
    pub example: Value,
    /// Whether a sync must say it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
}

/// A kind of [`Authentication`](crate::resources::Authentication).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthenticationKind {
    /// `Authorization: Basic`.
    Basic,
    /// `Authorization: Bearer`.
    Bearer,
    /// A key in a header.
    ApiKey,
    /// OAuth 2.0 client credentials.
    Oauth2,
}

/// How much a partner takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Members of one request.
    pub items: NonZeroU32,
    /// Bytes of one request's body.
    #[serde(deserialize_with = "units::bytes")]
    pub bytes: NonZeroU64,
    /// Requests at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<NonZeroU32>,
    /// The windows that it allows, all of which hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// Names what all of an account's endpoints spend together at this partner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

/// So many requests, or members in them, in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<NonZeroU32>,
    /// Members; one of the two is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<NonZeroU32>,
    /// In how many seconds.
    pub seconds: NonZeroU32,
    /// How it is counted.
    #[serde(default, skip_serializing_if = "Counted::is_default")]
    pub counted: Counted,
}

/// How a window is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// In any span of its length: what holds whatever the partner does.
    #[default]
    Sliding,
    /// From 0 at multiples of its length.
    Fixed,
    /// Evenly over its length.
    Spread,
}

/// The requests of a profile, each a template over a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestTemplates {
    /// Members that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Operation>,
    /// Members that changed; as `add` where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Operation>,
    /// Members that left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Operation>,
    /// Makes the partner's list; captures `list`, its id there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_list: Option<Operation>,
    /// Renames it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename_list: Option<Operation>,
    /// Deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_list: Option<Operation>,
    /// Starts a job that members are added to afterwards; captures `job`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_job: Option<Operation>,
    /// Lets such a job run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_job: Option<Operation>,
    /// Asks how a job that ends later fares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
}

/// What a chunk asks of the partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Take these members.
    Add,
    /// Take these members anew.
    Update,
    /// Drop these members.
    Remove,
    /// Make a list.
    CreateList,
    /// Rename the list.
    RenameList,
    /// Delete the list.
    DeleteList,
    /// Start a job.
    StartJob,
    /// Let a job run.
    RunJob,
    /// Say how a job fares.
    Poll,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    #[default]
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

/// One request, as a template, and how its answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Members of one such request, where that is fewer than the profile's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<NonZeroU32>,
    /// A template; what it makes is appended to the endpoint's URL. Values in it are written by the
    /// filter `segment`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Templates of headers beside the endpoint's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A template of the body; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How the answer is read.
    #[serde(default)]
    pub answer: ResponseGrammar,
    /// What is kept of an answer that succeeds, and where it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capture: BTreeMap<String, Pointer>,
}

/// How a job that ends later is asked after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// The request.
    pub request: Operation,
    /// Seconds from one to the next.
    #[serde(deserialize_with = "units::seconds")]
    pub every: NonZeroU32,
    /// Seconds after which nothing more is expected of a job.
    #[serde(default = "day", deserialize_with = "units::seconds")]
    pub until: NonZeroU32,
    /// What says that the job succeeded.
    pub done: Says,
    /// What says that it failed.
    pub failed: Says,
    /// Windows of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
}

/// A place in an answer, and what is there then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Says {
    /// Where to look.
    pub at: Pointer,
    /// What is there.
    pub values: Vec<Value>,
}

/// What became of a job, by an answer to a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Not ended.
    Running,
    /// Succeeded.
    Done,
    /// Failed.
    Failed,
}

/// What a simulator of the partner must know beside requests and answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulator {
    /// In the body of `add`, `update` and `remove`: the array of items. Where they hold several, as
    /// one for additions and one for removals, `remove_items` says the other.
    pub items: Pointer,
    /// The same in the body of `remove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_items: Option<Pointer>,
    /// In an item: its id, as the partner knows it; the empty pointer is the item itself.
    #[serde(default)]
    pub id: Pointer,
    /// The status of an answer that took everything.
    #[serde(default = "ok")]
    pub status: u16,
    /// What an answer holds beside what the grammar reads.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub answer: Value,
    /// The word for an item that is refused for good.
    #[serde(default = "invalid")]
    pub rejected: String,
    /// The word for an item that may be sent again; one that the grammar names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Seconds that a job takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_seconds: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn day() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(86_400 - 1)
}

fn ok() -> u16 {
    200
}

fn invalid() -> String {
    "invalid".to_owned()
}

// === impl Profile ===

impl Profile {
    /// The fields by which the partner knows members, beside the id: what is kept of one who left,
    /// for telling the partner to let him go.
    #[must_use]
    pub fn known_by(&self) -> Vec<&str> {
        let mut fields: Vec<&str> = Vec::new();
        let named = self.identity.iter().map(|identity| &identity.field);
        for field in named.chain(&self.require_any) {
            if field != "id" && !fields.contains(&field.as_str()) {
                fields.push(field);
            }
        }
        fields
    }

    /// How many members one request of this kind may hold.
    #[must_use]
    pub fn items_max(&self, kind: OperationKind) -> NonZeroU32 {
        let own = self
            .operations
            .get(kind)
            .and_then(|operation| operation.items);
        own.map_or(self.limits.items, |own| own.min(self.limits.items))
    }
}

// === impl Limits ===

impl Limits {
    /// The same windows as an endpoint has them, for requests that are full.
    #[must_use]
    pub fn rate_windows(&self) -> Vec<RateWindow> {
        let windows = self.windows.iter();
        windows
            .filter_map(|window| window.rate_window(self.items))
            .collect()
    }
}

// === impl Window ===

impl Window {
    /// The same as an endpoint has it; `None` where it counts nothing. An endpoint counts a chunk
    /// as one, so a window of members is one of requests that hold `items_max` each.
    #[must_use]
    pub fn rate_window(&self, items_max: NonZeroU32) -> Option<RateWindow> {
        let count = match (self.requests, self.items) {
            (Some(requests), _) => requests,
            (None, Some(items)) => {
                NonZeroU32::new(items.get() / items_max.get()).unwrap_or(NonZeroU32::MIN)
            }
            (None, None) => return None,
        };
        Some(RateWindow {
            count,
            per_ms: NonZeroU64::from(self.seconds).saturating_mul(THOUSAND),
            unit: LimitUnit::Requests,
            kind: match self.counted {
                Counted::Sliding => WindowKind::Sliding,
                Counted::Fixed => WindowKind::Fixed { offset_ms: 0 },
                Counted::Spread => WindowKind::Spread { burst: None },
            },
        })
    }
}

const THOUSAND: NonZeroU64 = NonZeroU64::MIN.saturating_add(999);

impl Counted {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl RequestTemplates ===

impl RequestTemplates {
    /// The request for `kind`; an update is an addition where nothing else is said.
    #[must_use]
    pub fn get(&self, kind: OperationKind) -> Option<&Operation> {
        match kind {
            OperationKind::Add => self.add.as_ref(),
            OperationKind::Update => self.update.as_ref().or(self.add.as_ref()),
            OperationKind::Remove => self.remove.as_ref(),
            OperationKind::CreateList => self.create_list.as_ref(),
            OperationKind::RenameList => self.rename_list.as_ref(),
            OperationKind::DeleteList => self.delete_list.as_ref(),
            OperationKind::StartJob => self.start_job.as_ref(),
            OperationKind::RunJob => self.run_job.as_ref(),
            OperationKind::Poll => self.poll.as_ref().map(|poll| &poll.request),
        }
    }

    /// Those that are written down, with their kinds; an update that is an addition is not.
    pub fn all(&self) -> impl Iterator<Item = (OperationKind, &Operation)> {
        OperationKind::ALL.into_iter().filter_map(|kind| {
            let is_own = kind != OperationKind::Update || self.update.is_some();
            Some((kind, self.get(kind).filter(|_| is_own)?))
        })
    }
}

// === impl OperationKind ===

impl OperationKind {
    /// Every kind, in the order of the file.
    pub const ALL: [Self; 9] = [
        Self::Add,
        Self::Update,
        Self::Remove,
        Self::CreateList,
        Self::RenameList,
        Self::DeleteList,
        Self::StartJob,
        Self::RunJob,
        Self::Poll,
    ];

    /// The word for it in files and chunks.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::CreateList => "create_list",
            Self::RenameList => "rename_list",
            Self::DeleteList => "delete_list",
            Self::StartJob => "start_job",
            Self::RunJob => "run_job",
            Self::Poll => "poll",
        }
    }

    /// Whether it is about members.
    #[must_use]
    pub const fn has_members(self) -> bool {
        matches!(self, Self::Add | Self::Update | Self::Remove)
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Method ===

impl Method {
    /// The method as HTTP writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

// === impl Operation ===

impl Operation {
    /// Whether its body is JSON: what it is where nothing else is said.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let named = |(name, _): &(&String, &String)| name.eq_ignore_ascii_case("content-type");
        let said = self.headers.iter().find(named);
        said.is_none_or(|(_, media)| media.contains("json"))
    }

    /// What an answer holds where [`Operation::capture`] says to look. Of more than `bytes_max`
    /// bytes of JSON, those are left out that come last by name.
    #[must_use]
    pub fn captured(&self, body: &Value, bytes_max: usize) -> BTreeMap<String, Value> {
        let mut left = bytes_max;
        let found = self.capture.iter().filter_map(|(name, at)| {
            let value = at.find(body).filter(|value| !value.is_null())?;
            let bytes = name.len() + value.to_string().len() + 4;
            left = left.checked_sub(bytes)?;
            Some((name.clone(), value.clone()))
        });
        found.collect()
    }
}

// === impl Poll ===

impl Poll {
    /// What an answer to a poll says of its job.
    #[must_use]
    pub fn state(&self, body: &Value) -> JobState {
        if self.failed.holds(body) {
            JobState::Failed
        } else if self.done.holds(body) {
            JobState::Done
        } else {
            JobState::Running
        }
    }
}

impl Says {
    fn holds(&self, body: &Value) -> bool {
        self.at
            .find(body)
            .is_some_and(|found| self.values.contains(found))
    }
}
