//! Owns the simulated partner: one request in, one answer out, and what it holds afterwards.
//!
//! Pure: no sockets, and the time is told. It must never carry out a part of a request that it
//! refuses. The surprise: a list that nobody made is not there, but only where the API makes lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::profile::{OperationKind, Profile};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Failed, Speech, message, object, set};
use super::faults::{Choice, Faults};
use super::jobs::{Change, JobIs, Jobs};
use super::limits::{Limiter, whole_seconds};
use super::lists::{List, Put};
use super::pattern::Said;
use super::routes::{Items, Route, Routes};
use super::stats::Stats;

/// The list of an API that has no lists.
pub(crate) const ONLY_LIST: &str = "default";
/// The first list that is made; the next ones count on.
const FIRST_LIST: u64 = 1_000_001;
const SECOND_US: u64 = 1_000_000;
/// How long a job takes where nobody says.
const JOB_SECONDS: u32 = 1;

/// A simulated partner.
#[derive(Debug)]
pub(crate) struct Partner {
    profile: Profile,
    routes: Arc<Routes>,
    speeches: BTreeMap<OperationKind, Speech>,
    pub(crate) faults: Faults,
    limiter: Limiter,
    poll_limiter: Limiter,
    lists: BTreeMap<String, List>,
    jobs: Jobs,
    lists_made: u64,
    at_once: u32,
    keeps_texts: bool,
    pub(crate) stats: Stats,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) body: &'a [u8],
}

/// What the partner does about a request.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Answers.
    Reply(Reply),
    /// Closes the connection.
    Drop,
}

/// An answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Seconds after which to come again.
    pub(crate) retry_after: Option<u32>,
    /// JSON; null for nothing.
    pub(crate) body: Value,
}

/// An item of a request, and what becomes of it.
struct Item<'a> {
    id: String,
    name: String,
    json: &'a str,
}

impl Reply {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            retry_after: None,
            body,
        }
    }

    fn wrong(status: u16, text: &str) -> Self {
        Self::new(status, message(text))
    }
}

impl Partner {
    /// A partner as `profile` describes it.
    ///
    /// # Errors
    /// Where the profile does not say enough.
    pub(crate) fn new(profile: Profile, faults: Faults, keeps_texts: bool) -> anyhow::Result<Self> {
        let routes = Arc::new(Routes::of(&profile)?);
        let speeches = routes
            .all()
            .map(|route| (route.kind, Speech::of(&profile, &route.operation)));
        let poll = profile.operations.poll.as_ref();
        let mut partner = Self {
            speeches: speeches.collect(),
            limiter: Limiter::of(&profile.limits.windows),
            poll_limiter: Limiter::of(poll.map_or(&[], |poll| &poll.windows)),
            routes,
            profile,
            faults,
            lists: BTreeMap::new(),
            jobs: Jobs::default(),
            lists_made: 0,
            at_once: 0,
            keeps_texts,
            stats: Stats::default(),
        };
        if !partner.makes_lists() {
            partner.make_list(ONLY_LIST);
        }
        Ok(partner)
    }

    /// Its profile.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Its operations.
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Its lists.
    pub(super) fn lists(&self) -> impl Iterator<Item = (&str, &List)> {
        self.lists.iter().map(|(id, list)| (id.as_str(), list))
    }

    /// How many members a list holds; none where there is no such list.
    pub(crate) fn count(&self, id: &str) -> u64 {
        self.lists.get(id).map_or(0, List::count)
    }

    /// Makes the list with this id, where there is none.
    pub(crate) fn make_list(&mut self, id: &str) {
        if !self.lists.contains_key(id) {
            self.lists
                .insert(id.to_owned(), List::new(self.keeps_texts));
        }
    }

    /// Takes all that its rate limits leave now.
    pub(crate) fn exhaust(&mut self, now_us: u64) {
        self.limiter.fill(now_us);
    }

    /// Whether it limits rates.
    pub(crate) fn has_windows(&self) -> bool {
        !self.limiter.is_empty()
    }

    /// Whether its answers to `kind` can refuse a single item, and say of one that it may be sent
    /// again.
    pub(crate) fn can_say(&self, kind: OperationKind) -> (bool, bool) {
        let speech = self.speeches.get(&kind);
        speech.map_or((false, false), |speech| {
            (speech.can_reject(), speech.can_retry())
        })
    }

    fn makes_lists(&self) -> bool {
        self.profile.operations.create_list.is_some()
    }

    /// Takes a request. [`Partner::leave`] is to follow, when it was answered.
    pub(crate) fn take(&mut self, now_us: u64, ask: &Ask<'_>) -> Outcome {
        self.look(now_us);
        self.stats.requests += 1;
        self.at_once += 1;
        self.stats.at_once_max = self.stats.at_once_max.max(self.at_once);
        let number = self.stats.requests;
        if self.faults.chooses(Choice::DropBefore, number) {
            self.stats.dropped_before += 1;
            return Outcome::Drop;
        }
        let reply = self.answer(now_us, ask);
        if reply.status < 400 && self.faults.chooses(Choice::DropAfter, number) {
            self.stats.dropped_after += 1;
            return Outcome::Drop;
        }
        if (400..500).contains(&reply.status) && reply.status != 429 {
            self.stats.wrong += 1;
        }
        Outcome::Reply(reply)
    }

    /// Says that a request was answered.
    pub(crate) fn leave(&mut self) {
        self.at_once = self.at_once.saturating_sub(1);
    }

    fn answer(&mut self, now_us: u64, ask: &Ask<'_>) -> Reply {
        let routes = Arc::clone(&self.routes);
        match routes.find(ask.method, ask.target, ask.body) {
            Some(found) => self.operate(now_us, found.route, &found.said, ask),
            None => Reply::wrong(404, "the profile has no such request"),
        }
    }

    fn operate(&mut self, now_us: u64, route: &Route, said: &Said, ask: &Ask<'_>) -> Reply {
        let limits = &self.profile.limits;
        if ask.body.len() as u64 > limits.bytes.get() {
            return Reply::wrong(413, &format!("at most {} bytes", limits.bytes));
        }
        let items = match route.items() {
            None => Vec::new(),
            Some(items) => match read(items, ask.body) {
                Ok(items) => items,
                Err(error) => return Reply::wrong(400, &error),
            },
        };
        let most = self.profile.items_max(route.kind).get() as usize;
        if items.len() > most {
            return Reply::wrong(400, &format!("at most {most} items, got {}", items.len()));
        }
        if let Some(reply) = self.limit(now_us, route.kind, items.len()) {
            return reply;
        }
        let list = match self.named_list(route, said) {
            Ok(list) => list,
            Err(reply) => return reply,
        };
        let reply = match route.kind {
            OperationKind::Add | OperationKind::Update | OperationKind::Remove => {
                self.members(now_us, route, (said, list), &items)
            }
            OperationKind::CreateList => self.create_list(route),
            OperationKind::RenameList => Reply::new(200, Self::captured(route, &list, "")),
            OperationKind::DeleteList => {
                self.lists.remove(&list);
                Reply::new(200, Value::Null)
            }
            OperationKind::StartJob => {
                let job = self.jobs.start(&list);
                Reply::new(200, Self::captured(route, &list, &job))
            }
            OperationKind::RunJob => self.run_job(now_us, route, said),
            OperationKind::Poll => self.poll(said),
        };
        if reply.status < 400 {
            *self.stats.operations.entry(route.kind).or_default() += 1;
        }
        reply
    }

    /// The answer to a request beyond a limit.
    fn limit(&mut self, now_us: u64, kind: OperationKind, items: usize) -> Option<Reply> {
        if self.faults.no_limits {
            return None;
        }
        let is_poll = kind == OperationKind::Poll && !self.poll_limiter.is_empty();
        let limiter = if is_poll {
            &mut self.poll_limiter
        } else {
            &mut self.limiter
        };
        let at_once = self.profile.limits.concurrency;
        let wait = match at_once {
            Some(most) if self.at_once > most.get() => Err(SECOND_US),
            Some(_) | None => limiter.take(now_us, items as u64),
        };
        let wait = wait.err()?;
        self.stats.limited += 1;
        Some(Reply {
            status: 429,
            retry_after: Some(whole_seconds(wait).get()),
            body: message("too many requests"),
        })
    }

    /// The list that a request is about; it must be there, where the API makes lists.
    fn named_list(&self, route: &Route, said: &Said) -> Result<String, Reply> {
        let is_new = route.kind == OperationKind::CreateList;
        let job = said.job.as_ref().and_then(|job| self.jobs.list(job));
        let list = match (&said.list, job) {
            (Some(list), _) => list.clone(),
            (None, Some(list)) => list.to_owned(),
            (None, None) => ONLY_LIST.to_owned(),
        };
        if is_new || !route.names_list() || self.lists.contains_key(&list) {
            return Ok(list);
        }
        if self.makes_lists() {
            return Err(Reply::wrong(404, &format!("no list `{list}`")));
        }
        Ok(list)
    }

    fn create_list(&mut self, route: &Route) -> Reply {
        let id = (FIRST_LIST + self.lists_made).to_string();
        self.lists_made += 1;
        self.make_list(&id);
        Reply::new(200, Self::captured(route, &id, ""))
    }

    /// A body that holds what the operation captures.
    fn captured(route: &Route, list: &str, job: &str) -> Value {
        let mut body = object(Value::Null);
        Self::capture(route, &mut body, list, job);
        body
    }

    fn capture(route: &Route, body: &mut Value, list: &str, job: &str) {
        for (name, at) in &route.operation.capture {
            let value = match name.as_str() {
                "list" => list,
                "job" => job,
                _ if at.find(body).is_some() => continue,
                _ => "1",
            };
            set(body, at.as_str(), Value::from(value));
        }
    }

    // === members ===

    fn members(
        &mut self,
        now_us: u64,
        route: &Route,
        (said, list): (&Said, String),
        items: &[Item<'_>],
    ) -> Reply {
        let Some(speech) = self.speeches.get(&route.kind) else {
            return Reply::wrong(404, "no such operation");
        };
        let number = self.stats.requests;
        let mut failed = self.rejected(route.kind, items);
        if !failed.is_empty() && !speech.can_reject() {
            self.stats.refused_whole += 1;
            let (status, body) = speech.refusal();
            return Reply::new(status, body);
        }
        let (mut missing, mut busy) = (0, Vec::new());
        if self.faults.chooses(Choice::Partial, number) {
            if speech.can_retry() {
                busy = self.busy(items, &failed);
            } else if speech.can_miss() {
                missing = items.len().div_ceil(2);
            } else {
                self.stats.busy += 1;
                return Reply::wrong(503, "busy");
            }
        }
        self.stats.rejected += failed.len() as u64;
        self.stats.retry += busy.len() as u64;
        self.stats.missed += missing as u64;
        failed.extend(busy);
        failed.sort_unstable_by_key(|failed| failed.at);
        let names: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
        let (status, mut body) = speech.items(&names, &failed, missing);
        // What is missing is missing from the end.
        let taken = items.get(..items.len() - missing).unwrap_or_default();
        let job = self.carry_out(now_us, route, (said, &list), (taken, &failed));
        let job = match job {
            Ok(job) => job,
            Err(reply) => return reply,
        };
        Self::capture(route, &mut body, &list, &job);
        self.stats.items += items.len() as u64;
        let now_ms = now_us / 1_000;
        self.stats.first_ms.get_or_insert(now_ms);
        self.stats.last_ms = Some(now_ms);
        Reply::new(status, body)
    }

    /// The items that are refused for good: no one is taken off a list against the partner's will.
    fn rejected(&self, kind: OperationKind, items: &[Item<'_>]) -> Vec<Failed> {
        let is_refused = |item: &Item<'_>| {
            let is_addition = kind != OperationKind::Remove;
            item.id.is_empty() || (is_addition && self.faults.rejects(&item.id))
        };
        let refused = items.iter().enumerate();
        let refused = refused.filter(|(_, item)| is_refused(item));
        refused.map(|(at, item)| item.failed(at, false)).collect()
    }

    /// About half of the others.
    fn busy(&self, items: &[Item<'_>], failed: &[Failed]) -> Vec<Failed> {
        let number = self.stats.requests;
        let others = items.iter().enumerate();
        let others = others.filter(|(at, _)| failed.iter().all(|failed| failed.at != *at));
        let mut busy: Vec<Failed> = others
            .filter(|(at, _)| self.faults.chooses(Choice::Part(*at), number))
            .map(|(at, item)| item.failed(at, true))
            .collect();
        if busy.is_empty() {
            let first = items.iter().enumerate();
            let mut first = first.filter(|(at, _)| failed.iter().all(|failed| failed.at != *at));
            busy.extend(first.next().map(|(at, item)| item.failed(at, true)));
        }
        busy
    }

    /// Puts what was taken where it belongs; says which job it went to.
    fn carry_out(
        &mut self,
        now_us: u64,
        route: &Route,
        (said, list): (&Said, &str),
        (taken, failed): (&[Item<'_>], &[Failed]),
    ) -> Result<String, Reply> {
        let mut left = failed.iter().map(|failed| failed.at).peekable();
        let items = taken.iter().enumerate().filter(|(at, _)| {
            let is_failed = left.peek() == Some(at);
            if is_failed {
                left.next();
            }
            !is_failed
        });
        let items = items.map(|(_, item)| item);
        let is_removal = route.kind == OperationKind::Remove;
        let has_jobs = self.profile.operations.poll.is_some();
        let own = has_jobs && route.operation.capture.contains_key("job");
        let own_job = own.then(|| self.jobs.start(list));
        let Some(id) = said.job.clone().or(own_job) else {
            self.make_list(list);
            for item in items {
                self.put(list, is_removal, &item.id, item.json);
            }
            return Ok(String::new());
        };
        let changes = items.map(|item| match is_removal {
            true => Change::Drop(item.id.clone()),
            false => Change::Put(item.id.clone(), item.json.into()),
        });
        if !self.jobs.fill(&id, changes) {
            let told = format!("no job `{id}` that takes members");
            return Err(Reply::wrong(400, &told));
        }
        if own {
            self.run(now_us, &id);
        }
        Ok(id)
    }

    fn put(&mut self, list: &str, is_removal: bool, id: &str, json: &str) {
        // A list that was deleted meanwhile takes no one.
        let Some(list) = self.lists.get_mut(list) else {
            return;
        };
        let count = match is_removal {
            true if list.drop(id) => &mut self.stats.removed,
            true => &mut self.stats.removed_again,
            false => match list.put(id, json) {
                Put::New => &mut self.stats.added,
                Put::Changed => &mut self.stats.changed,
                Put::Same => &mut self.stats.added_again,
            },
        };
        *count += 1;
    }

    // === jobs ===

    fn run(&mut self, now_us: u64, id: &str) {
        let hinted = self.profile.simulator.as_ref();
        let hinted = hinted.and_then(|hint| hint.job_seconds);
        let seconds = self.faults.job_seconds.or(hinted).unwrap_or(JOB_SECONDS);
        self.jobs.run(id, now_us + u64::from(seconds) * SECOND_US);
    }

    fn run_job(&mut self, now_us: u64, route: &Route, said: &Said) -> Reply {
        let id = said.job.as_deref().unwrap_or_default();
        if self.jobs.state(id).is_none() {
            return Reply::wrong(404, &format!("no job `{id}`"));
        }
        self.run(now_us, id);
        Reply::new(200, Self::captured(route, "", id))
    }

    fn poll(&self, said: &Said) -> Reply {
        let id = said.job.as_deref().unwrap_or_default();
        let poll = self.profile.operations.poll.as_ref();
        let (Some(state), Some(poll)) = (self.jobs.state(id), poll) else {
            return Reply::wrong(404, &format!("no job `{id}`"));
        };
        let said = match state {
            JobIs::Done => poll.done.values.first().cloned(),
            JobIs::Filling | JobIs::Running => None,
        };
        let said = said.unwrap_or_else(|| Value::from("running"));
        let mut body = object(Value::Null);
        set(&mut body, poll.done.at.as_str(), said);
        Reply::new(200, body)
    }

    /// Does what jobs that have ended by now do.
    pub(crate) fn look(&mut self, now_us: u64) {
        for (list, changes) in self.jobs.ended(now_us) {
            for change in changes {
                match change {
                    Change::Put(id, json) => self.put(&list, false, &id, &json),
                    Change::Drop(id) => self.put(&list, true, &id, ""),
                }
            }
        }
    }
}

impl Item<'_> {
    fn failed(&self, at: usize, is_retry: bool) -> Failed {
        Failed {
            at,
            name: self.name.clone(),
            is_retry,
        }
    }
}

/// The items of a body.
fn read<'b>(items: &Items, body: &'b [u8]) -> Result<Vec<Item<'b>>, String> {
    let raw: Option<Vec<&RawValue>> = items
        .place
        .find(body)
        .map_err(|error| format!("body: {error}"))?;
    let raw = raw.ok_or_else(|| format!("body: nothing at `{}`", items.place))?;
    let text = |place: &super::scan::Place, json: &'b str| {
        let text = place.text(json);
        text.map(std::borrow::Cow::into_owned).unwrap_or_default()
    };
    Ok(raw
        .into_iter()
        .map(|raw| {
            let id = text(&items.id, raw.get());
            let name = match items.named == items.id {
                true => id.clone(),
                false => text(&items.named, raw.get()),
            };
            Item {
                id,
                name,
                json: raw.get(),
            }
        })
        .collect())
}
