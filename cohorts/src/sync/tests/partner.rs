//! A partner in memory: what it holds, whom it refuses, and how it answers.

use std::collections::{BTreeMap, BTreeSet};

use runtime::clock::Entropy;
use schemas::ids::Mark;
use schemas::profile::{Chunk, OperationKind};
use schemas::records::{
    DeadReason, DeliveryRecord, ItemOutcome, ItemResult, ResultRecord, ResultVerdict,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::rig::ITEMS;

/// How a partner behaves.
#[derive(Debug, Clone)]
pub(super) struct Temper {
    /// Members whose number is a multiple of it are refused for good, by name; 0 for none.
    pub(super) refused: u32,
    /// No request with one of these is taken; 0 for none.
    pub(super) poison: u32,
    /// How likely a member is refused for now, or taken and not spoken of.
    pub(super) busy: f64,
    pub(super) hidden: f64,
    /// How likely a chunk is a dead letter though it was taken.
    pub(super) dead: f64,
    /// How likely a chunk is never reported.
    pub(super) silent: f64,
    /// How likely a chunk that is there is answered in one look.
    pub(super) answers: f64,
    pub(super) entropy: Entropy,
}

impl Temper {
    pub(super) fn calm(seed: u64) -> Self {
        Self {
            refused: 0,
            poison: 0,
            busy: 0.0,
            hidden: 0.0,
            dead: 0.0,
            silent: 0.0,
            answers: 1.0,
            entropy: Entropy::seeded(seed).fork("partner"),
        }
    }

    pub(super) fn wild(seed: u64) -> Self {
        Self {
            refused: 13,
            poison: if seed.is_multiple_of(2) { 37 } else { 0 },
            busy: 0.05,
            hidden: 0.02,
            dead: 0.03,
            answers: 0.4,
            ..Self::calm(seed)
        }
    }
}

/// What a partner does in jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jobs {
    None,
    /// Each request with members is one.
    OfChunks,
    /// They are started and run.
    OfRuns,
}

/// What a partner holds, and what it was asked.
#[derive(Debug)]
pub(super) struct Partner {
    pub(super) temper: Temper,
    pub(super) list: BTreeMap<String, u32>,
    /// How often each member was sent.
    pub(super) sends: BTreeMap<String, u32>,
    pub(super) lists_made: u32,
    pub(super) requests: u32,
    pub(super) jobs: Jobs,
    pub(super) jobs_made: u64,
    pub(super) polls: BTreeMap<u64, u32>,
    /// When it was asked after jobs.
    pub(super) polled_at: Vec<Instant>,
    /// The most members of a request, by what was done with them.
    pub(super) largest: BTreeMap<OperationKind, u32>,
    pub(super) unreported_max: usize,
    pub(super) read: BTreeMap<u32, usize>,
    pub(super) marks: BTreeSet<Mark>,
    pub(super) waiting: Vec<DeliveryRecord>,
}

impl Partner {
    /// Takes a chunk; says how that is reported.
    pub(super) fn take(&mut self, delivery: &DeliveryRecord) -> ResultRecord {
        let target = &delivery.targets[0];
        let chunk = Chunk::read(delivery.event.data().unwrap()).unwrap();
        let mut report = ResultRecord {
            version: 1,
            bulk: target.bulk.unwrap(),
            delivery: delivery.delivery_id(target),
            endpoint: target.endpoint,
            subscription: target.subscription,
            verdict: ResultVerdict::Delivered,
            reason: None,
            words: None,
            at: 0,
            dropped: false,
            count: Some(chunk.count()),
            items: Vec::new(),
            captured: BTreeMap::new(),
        };
        self.requests += 1;
        if !chunk.operation.has_members() {
            report.captured = self.call(&chunk);
            return report;
        }
        assert_eq!(chunk.list, json!("L1"));
        if self.jobs == Jobs::OfChunks {
            self.jobs_made += 1;
            report
                .captured
                .insert("job".to_owned(), json!(self.jobs_made));
        }
        let in_job = chunk.variables.get("job").is_some();
        assert_eq!(in_job, self.jobs == Jobs::OfRuns);
        assert!(chunk.count() > 0 && chunk.count() <= ITEMS);
        let largest = self.largest.entry(chunk.operation).or_default();
        *largest = chunk.count().max(*largest);
        self.take_members(&chunk, &mut report);
        report
    }

    /// Answers a request without members.
    fn call(&mut self, chunk: &Chunk) -> BTreeMap<String, Value> {
        let (name, value) = match chunk.operation {
            OperationKind::CreateList => {
                self.lists_made += 1;
                ("list", json!("L1"))
            }
            OperationKind::StartJob => {
                self.jobs_made += 1;
                ("job", json!(self.jobs_made))
            }
            OperationKind::Poll => {
                // Each job is done when it is asked after for the third time.
                let job = chunk.variables["job"].as_u64().unwrap();
                let polls = self.polls.entry(job).or_default();
                *polls += 1;
                self.polled_at.push(Instant::now());
                let state = if *polls < 3 { "PROCESSING" } else { "DONE" };
                ("state", json!(state))
            }
            OperationKind::Add
            | OperationKind::Update
            | OperationKind::Remove
            | OperationKind::RenameList
            | OperationKind::DeleteList
            | OperationKind::RunJob => return BTreeMap::new(),
        };
        BTreeMap::from([(name.to_owned(), value)])
    }

    fn take_members(&mut self, chunk: &Chunk, report: &mut ResultRecord) {
        let is_removal = chunk.operation == OperationKind::Remove;
        let members: Vec<Value> = chunk
            .members
            .iter()
            .map(|member| serde_json::from_slice(member).unwrap())
            .collect();
        let ids: Vec<String> = members
            .iter()
            .map(|member| member["id"].as_str().unwrap().to_owned())
            .collect();
        let poison = self.temper.poison;
        if ids.iter().any(|id| is_multiple(id, poison)) {
            report.verdict = ResultVerdict::Rejected;
            report.words = Some("400: poison".to_owned());
            if ids.len() == 1 {
                report.verdict = ResultVerdict::Dead;
                report.reason = Some(DeadReason::Rejected);
            }
            return;
        }
        for (index, (id, member)) in (0_u32..).zip(ids.iter().zip(&members)) {
            *self.sends.entry(id.clone()).or_default() += 1;
            let roll = self.temper.entropy.unit();
            let verdict = if is_multiple(id, self.temper.refused) {
                Some(ItemResult::Rejected)
            } else if roll < self.temper.busy {
                Some(ItemResult::Retry)
            } else {
                match member["v"].as_u64() {
                    Some(v) if !is_removal => {
                        self.list.insert(id.clone(), u32::try_from(v).unwrap());
                    }
                    _ => drop(self.list.remove(id)),
                }
                (roll < self.temper.busy + self.temper.hidden).then_some(ItemResult::Unknown)
            };
            report.items.extend(verdict.map(|verdict| ItemOutcome {
                index,
                verdict,
                code: Some("no".to_owned()),
            }));
        }
        if self.temper.entropy.unit() < self.temper.dead {
            report.verdict = ResultVerdict::Dead;
            report.reason = Some(DeadReason::MaxAge);
            report.items.clear();
        }
    }
}

pub(super) fn is_multiple(id: &str, of: u32) -> bool {
    let number: u32 = id.trim_start_matches('m').parse().unwrap();
    of != 0 && number.is_multiple_of(of)
}
