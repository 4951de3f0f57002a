//! Owns the trial of a profile: what it makes is sent to a partner made from it, and what that
//! answers must mean what it did.
//!
//! It must never wait: the partner is told the time. The surprise: members are the profile's own
//! `sample`, told apart by numbers in their fields.

mod client;

use std::fmt;

use schemas::profile::{ItemVerdict, Meaning, OperationKind, Profile};
use serde_json::{Map, Value};

use self::client::Client;
use crate::output;
use crate::simulate::{Faults, Share};

/// Seeds until one of them refuses some members and not all.
const SEEDS: u64 = 64;
/// Members of a request of which some are refused.
const SOME: usize = 4;

/// What a step of the trial found.
#[derive(Debug)]
pub(super) struct Finding {
    is_good: bool,
    text: String,
    /// The request.
    lines: Vec<String>,
}

impl Finding {
    /// Whether it speaks for the profile.
    pub(super) fn is_good(&self) -> bool {
        self.is_good
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_good { "✓" } else { "✗" };
        write!(f, "{mark} {}", output::plain(&self.text))?;
        for line in &self.lines {
            write!(f, "\n    {}", output::plain(line))?;
        }
        Ok(())
    }
}

/// Tries `profile` out.
///
/// # Errors
/// Where no partner can be made from it.
pub(super) fn check(profile: &Profile) -> anyhow::Result<Vec<Finding>> {
    let mut trial = Trial {
        client: Client::new(profile)?,
        findings: Vec::new(),
    };
    trial.good(format!(
        "{} version {}: {}",
        profile.profile, profile.version, profile.title
    ));
    // What a step cannot do is told by the last finding; the next would only repeat it.
    if let Err(error) = trial.run() {
        let text = runtime::task::chain(&*error);
        trial.bad(text);
    }
    Ok(trial.findings)
}

struct Trial<'p> {
    client: Client<'p>,
    findings: Vec<Finding>,
}

impl Trial<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        self.create_list()?;
        let members = self.client.members(2)?;
        self.add(&members)?;
        self.update(&members)?;
        self.refused()?;
        self.partial()?;
        self.limited()?;
        self.full()?;
        self.remove(&members)?;
        self.end_list()
    }

    // === steps ===

    fn create_list(&mut self) -> anyhow::Result<()> {
        let Some(operation) = &self.client.profile.operations.create_list else {
            return Ok(());
        };
        let captures = operation.capture.contains_key("list");
        let sent = self.client.send(OperationKind::CreateList, &[])?;
        let is_good = captures && sent.is_taken();
        let text = match captures {
            true => format!("create_list: list {}", client::text_of(&self.client.list)),
            false => "create_list: captures no `list`, so nobody knows its id".to_owned(),
        };
        self.found(is_good, text, sent.request);
        Ok(())
    }

    fn add(&mut self, members: &[Map<String, Value>]) -> anyhow::Result<()> {
        let before = self.client.held();
        let sent = self.client.with_job(OperationKind::Add, members)?;
        let held = self.client.held() - before;
        let count = members.len();
        let is_good = sent.is_taken() && held == members.len() as u64;
        let text = format!("add: {count} members sent, {} and {held} held", sent.told());
        self.found(is_good, text, sent.request);
        Ok(())
    }

    fn update(&mut self, members: &[Map<String, Value>]) -> anyhow::Result<()> {
        if self.client.profile.operations.update.is_none() {
            return Ok(());
        }
        let before = self.client.held();
        let sent = self.client.with_job(OperationKind::Update, members)?;
        let is_good = sent.is_taken() && self.client.held() == before;
        let text = format!("update: {} members sent, {}", members.len(), sent.told());
        self.found(is_good, text, sent.request);
        Ok(())
    }

    /// Some members are refused for good.
    fn refused(&mut self) -> anyhow::Result<()> {
        let (can_reject, _) = self.client.partner.can_say(OperationKind::Add);
        if !can_reject {
            self.client.partner.faults.reject = Share::ALL;
            let members = self.client.members(SOME)?;
            let sent = self.client.with_job(OperationKind::Add, &members)?;
            self.client.partner.faults = Faults::default();
            let is_good = sent.whole == Some(Meaning::Rejected);
            let status = sent.reply.status;
            self.found(
                is_good,
                format!(
                    "a member refused: answers name none, so {status} refuses the request: {}",
                    match is_good {
                        true => "it is sent again in halves",
                        false => "`answer.status` must say that it is `rejected`",
                    }
                ),
                Vec::new(),
            );
            return Ok(());
        }
        for seed in 0..SEEDS {
            self.client.partner.faults = Faults {
                reject: Share::HALF,
                seed,
                ..Faults::default()
            };
            let before = self.client.partner.stats.rejected;
            let members = self.client.members(SOME)?;
            let sent = self.client.with_job(OperationKind::Add, &members)?;
            self.client.partner.faults = Faults::default();
            let refused = usize::try_from(self.client.partner.stats.rejected - before)?;
            if !(1..SOME).contains(&refused) {
                continue;
            }
            let read = sent.count(|verdict| matches!(verdict, ItemVerdict::Rejected(_)));
            let taken = sent.count(|verdict| *verdict == ItemVerdict::Delivered);
            let is_good = read == refused && taken == SOME - refused;
            let text = format!("{refused} of {SOME} members refused: {}", sent.told());
            self.found(is_good, text, vec![sent.reply.body.to_string()]);
            return Ok(());
        }
        self.bad("no share of members could be refused".to_owned());
        Ok(())
    }

    /// A part of a request is not taken.
    fn partial(&mut self) -> anyhow::Result<()> {
        self.client.partner.faults.partial = Share::ALL;
        let before = self.client.partner.stats.clone();
        let members = self.client.members(SOME)?;
        let sent = self.client.with_job(OperationKind::Add, &members);
        self.client.partner.faults = Faults::default();
        let sent = sent?;
        let (retry, missed) = (
            self.client.partner.stats.retry - before.retry,
            self.client.partner.stats.missed - before.missed,
        );
        let unsure = sent.count(|verdict| *verdict == ItemVerdict::Unknown);
        let again = sent.count(|verdict| matches!(verdict, ItemVerdict::Retry(_)));
        let (is_good, what) = if retry > 0 {
            let what = format!("{retry} of {SOME} members not taken now");
            (again as u64 == retry, what)
        } else if missed > 0 {
            let what = format!("{missed} of {SOME} members not received");
            (unsure > 0, what)
        } else {
            let status = sent.reply.status;
            let is_good = sent.whole == Some(Meaning::Retry);
            (is_good, format!("a request not taken now ({status})"))
        };
        let lines = vec![sent.reply.body.to_string()];
        self.found(is_good, format!("{what}: {}", sent.told()), lines);
        Ok(())
    }

    fn limited(&mut self) -> anyhow::Result<()> {
        if !self.client.partner.has_windows() {
            return Ok(());
        }
        let members = self.client.members(1)?;
        let has_job = self.client.profile.operations.start_job.is_some();
        if has_job {
            self.client.send(OperationKind::StartJob, &[])?;
        }
        self.client.advance();
        self.client.partner.exhaust(self.client.now_us);
        let sent = self.client.send_now(OperationKind::Add, &members)?;
        let wait = sent.reply.retry_after;
        let is_good = sent.reply.status == 429
            && wait.is_some()
            && sent.whole == Some(Meaning::Retry)
            && sent.verdicts.is_empty();
        let text = match wait {
            Some(seconds) => format!("beyond the limit: 429, Retry-After {seconds}: sent later"),
            None => format!("beyond the limit: {}", sent.reply.status),
        };
        self.found(is_good, text, Vec::new());
        Ok(())
    }

    /// As many members as a request may hold.
    fn full(&mut self) -> anyhow::Result<()> {
        let most = self.client.profile.items_max(OperationKind::Add).get();
        let bytes = self.client.profile.limits.bytes;
        let members = self.client.members(usize::try_from(most)?)?;
        let words = match self.client.render(OperationKind::Add, &members) {
            Ok((rendered, _)) => {
                let made = rendered.body.map_or(0, |body| body.len());
                let (made, bytes) = (made as u64, bytes.get());
                let [made, bytes] = [made, bytes].map(output::thousands);
                format!("{most} members like the sample make {made} bytes, of {bytes} allowed")
            }
            Err(error) => format!("{most} members like the sample go in several requests: {error}"),
        };
        self.good(words);
        Ok(())
    }

    fn remove(&mut self, members: &[Map<String, Value>]) -> anyhow::Result<()> {
        let before = self.client.held();
        let sent = self.client.with_job(OperationKind::Remove, members)?;
        let gone = before - self.client.held();
        let route = self.client.partner.routes().get(OperationKind::Remove);
        let is_foreign = route
            .and_then(|route| route.items())
            .is_some_and(|items| items.is_foreign);
        let count = members.len();
        let (is_good, text) = match is_foreign {
            true => (
                sent.is_taken(),
                format!(
                    "remove: {count} members sent, {}; they are named by other ids than additions \
                     are, so the simulator cannot tell who left",
                    sent.told()
                ),
            ),
            false => (
                sent.is_taken() && gone == members.len() as u64,
                format!(
                    "remove: {count} members sent, {} and {gone} gone",
                    sent.told()
                ),
            ),
        };
        self.found(is_good, text, sent.request);
        Ok(())
    }

    fn end_list(&mut self) -> anyhow::Result<()> {
        for kind in [OperationKind::RenameList, OperationKind::DeleteList] {
            if self.client.profile.operations.get(kind).is_some() {
                let sent = self.client.send(kind, &[])?;
                let text = format!("{kind}: {}", sent.told());
                self.found(sent.is_taken(), text, sent.request);
            }
        }
        Ok(())
    }

    fn good(&mut self, text: String) {
        self.found(true, text, Vec::new());
    }

    fn bad(&mut self, text: String) {
        self.found(false, text, Vec::new());
    }

    fn found(&mut self, is_good: bool, text: String, lines: Vec<String>) {
        self.findings.push(Finding {
            is_good,
            text,
            lines,
        });
    }
}

#[cfg(test)]
mod tests;
