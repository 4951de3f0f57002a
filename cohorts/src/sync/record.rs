//! Owns how a chunk becomes a record of `deliveries`: its members written for the partner, its
//! event, its one target.
//!
//! Pure, and the same bytes for the same chunk, so that a chunk that is made again after a crash is
//! its own repeat (rule 3). The surprise: a member that the partner could not know (no e-mail
//! address where one is needed) is refused here, and never sent.

use bytes::Bytes;
use runtime::log::{Record, TopicName};
use schemas::event::Event;
use schemas::profile::{CHUNK_TYPE, OperationKind};
use schemas::records::{DeliveryRecord, Origin, Target};
use schemas::resources::Sync;
use serde_json::{Map, Value};

use crate::member::{hash_of_parts, write_json};
use crate::{Chunk, Error, Operation};

/// Where chunks come from, as a record's origin says it.
const ORIGIN: &str = "chunks";

/// What chunks of one run are written with.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) sync: std::sync::Arc<Sync>,
    /// The run and its pass.
    pub(crate) name: String,
    pub(crate) list: Value,
    /// Jobs that members are put into, by what is done with them.
    pub(crate) jobs: std::collections::BTreeMap<String, Value>,
    pub(crate) deliveries: TopicName,
}

/// A record to write, and which members of its chunk it holds.
#[derive(Debug)]
pub(crate) struct Made {
    /// None where no member could be sent.
    pub(crate) record: Option<Record>,
    pub(crate) id: u128,
    /// Members that are not sent: their index in the chunk, and why.
    pub(crate) refused: Vec<(usize, String)>,
}

/// What a request without members asks for.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) operation: OperationKind,
    /// Tells calls of one kind within a pass from one another.
    pub(crate) name: String,
    /// The job it is about.
    pub(crate) job: Option<Value>,
}

impl Maker {
    /// The id of a chunk.
    pub(crate) fn id(&self, chunk: &Chunk) -> u128 {
        chunk.id(&self.sync.id.to_string(), &self.name)
    }

    /// The id of a call.
    pub(crate) fn call_id(&self, call: &Call) -> u128 {
        let sync = self.sync.id.to_string();
        let operation = call.operation.as_str();
        hash_of_parts(&[
            sync.as_bytes(),
            self.name.as_bytes(),
            operation.as_bytes(),
            call.name.as_bytes(),
        ])
    }

    /// The record of a chunk, accepted `now`, for dispatchers that have applied `control` up to
    /// `applied`.
    ///
    /// # Errors
    /// [`Error::Damaged`] for members that are no JSON.
    pub(crate) fn chunk(&self, chunk: &Chunk, at: (i64, i64)) -> Result<Made, Error> {
        let kind = kind_of(chunk.operation());
        let job = self.jobs.get(side(chunk.operation()));
        let mut data = self.head(kind, job);
        let mut refused = Vec::new();
        if self.sync.profile.takes_members_as_they_are() {
            chunk.write_members(&mut data);
        } else {
            self.write_prepared(chunk, &mut data, &mut refused)?;
        }
        data.push(b'}');
        let id = self.id(chunk);
        let is_sent = refused.len() < chunk.len();
        let record = is_sent.then(|| self.record(id, chunk.number(), data, at));
        Ok(Made {
            record: record.transpose()?,
            id,
            refused,
        })
    }

    /// The record of a request without members.
    ///
    /// # Errors
    /// As [`Maker::chunk`].
    pub(crate) fn call(&self, call: &Call, at: (i64, i64)) -> Result<Record, Error> {
        let mut data = self.head(call.operation, call.job.as_ref());
        data.extend_from_slice(b"[]}");
        self.record(self.call_id(call), 0, data, at)
    }

    /// Everything before the members.
    fn head(&self, operation: OperationKind, job: Option<&Value>) -> Vec<u8> {
        let mut variables = self.sync.variables.clone();
        if let Some(job) = job {
            variables.insert("job".to_owned(), job.clone());
        }
        let name = self.sync.name.clone().unwrap_or_default();
        if !variables.contains_key("name") && !name.is_empty() {
            variables.insert("name".to_owned(), Value::String(name));
        }
        let (list, variables) = (&self.list, Value::Object(variables));
        format!(r#"{{"operation":"{operation}","list":{list},"variables":{variables},"members":"#)
            .into_bytes()
    }

    fn write_prepared(
        &self,
        chunk: &Chunk,
        out: &mut Vec<u8>,
        refused: &mut Vec<(usize, String)>,
    ) -> Result<(), Error> {
        let mut member_json = Vec::new();
        let mut separator = b'[';
        for (index, member) in chunk.members().enumerate() {
            member_json.clear();
            write_json(member.id, member.body, &mut member_json);
            let not_json = |error: serde_json::Error| Error::damaged("member", error.to_string());
            let fields: Map<String, Value> =
                serde_json::from_slice(&member_json).map_err(not_json)?;
            match self.sync.profile.prepare(fields) {
                Ok(prepared) => {
                    out.push(separator);
                    separator = b',';
                    serde_json::to_writer(&mut *out, &prepared).map_err(not_json)?;
                }
                Err(reject) => refused.push((index, reject.to_string())),
            }
        }
        if separator == b'[' {
            out.push(b'[');
        }
        out.push(b']');
        Ok(())
    }

    fn record(
        &self,
        id: u128,
        number: u64,
        data: Vec<u8>,
        (now, applied): (i64, i64),
    ) -> Result<Record, Error> {
        let sync = &self.sync;
        let invalid = |error: String| Error::damaged("chunk", error);
        let mut event = Event::builder(&format!("{id:032x}"), &sync.source(), CHUNK_TYPE)
            .data("application/json", Bytes::from(data))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        event
            .set_tenant(sync.tenant.as_str())
            .map_err(|error| invalid(error.to_string()))?;
        let target = Target {
            report: true,
            bulk: Some(id),
            ..Target::new(sync.subscription, sync.endpoint)
        };
        let record = DeliveryRecord {
            origin: Origin {
                topic: ORIGIN.into(),
                partition: sync.placement.partition(),
                offset: i64::try_from(number).unwrap_or(i64::MAX),
                index: 0,
            },
            router_position: None,
            accepted_at: now,
            control_offset: applied,
            event,
            targets: vec![target],
        };
        Ok(Record {
            topic: self.deliveries.clone(),
            partition: Some(sync.placement.partition()),
            key: None,
            value: Some(record.value_for(&record.targets)),
            headers: record.headers().into_iter().collect(),
        })
    }
}

/// The word that a profile has for an operation.
pub(crate) fn kind_of(operation: Operation) -> OperationKind {
    match operation {
        Operation::Add => OperationKind::Add,
        Operation::Update => OperationKind::Update,
        Operation::Remove => OperationKind::Remove,
    }
}

/// Which of a partner's jobs an operation's members are put into.
pub(crate) fn side(operation: Operation) -> &'static str {
    match operation {
        Operation::Add | Operation::Update => "add",
        Operation::Remove => "remove",
    }
}
