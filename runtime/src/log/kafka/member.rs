//! Owns a membership: joining, commits, and the order in which partitions come and go.
//!
//! It must never fetch, and its poll thread never waits for anybody. The surprise: librdkafka's
//! rebalance callback only notes what happened. Partitions are given up by the poll thread once
//! the owner has acknowledged, or at once while closing, since a consumer that is dropped polls
//! until it has left. (Commits have a thread of their own: see `commits`.)

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::thread::Thread;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{
    BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, oneshot};

use super::ask;
use super::commits::Commits;
use super::{GroupProtocol, KafkaOptions, context, errors, list, wake};
use crate::log::{
    Class, Committed, Error, GroupMetadata, Member, MemberOptions, Membership, Partition, Position,
    Revocation, TopicName,
};

pub(super) type MemberConsumer = BaseConsumer<MemberContext>;

/// A member that has not rejoined by then is out.
const REJOIN: Duration = Duration::from_secs(60);

/// See [`Member`].
pub(super) struct KafkaMember {
    kafka: KafkaOptions,
    group: String,
    session_timeout: Duration,
    // The poll thread owns the consumer: dropping it blocks until the group is left.
    consumer: Weak<MemberConsumer>,
    commits: Commits,
    asks: mpsc::UnboundedSender<Ask>,
    thread: Thread,
}

/// What the poll thread is asked.
enum Ask {
    /// Share the partitions of these topics.
    Subscribe(Vec<TopicName>),
    /// Leave; the sender is dropped when it is done.
    Close(oneshot::Sender<()>),
}

impl KafkaMember {
    /// Joins. Messages arrive on the receiver; `session_timeout` is what the broker holds for this
    /// group.
    pub(super) fn join(
        kafka: &KafkaOptions,
        options: &MemberOptions,
        session_timeout: Duration,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Membership>), Error> {
        let group = options.group.clone();
        let failed = |error: KafkaError| errors::building(format!("group {group}"), &error);
        let shared = Arc::new(Shared::default());
        let mut consumer = MemberConsumer::from_config_and_context(
            &kafka.client(&options.instance, &settings(kafka, options)),
            MemberContext(Arc::clone(&shared)),
        )
        .map_err(failed)?;
        let alarm = Arc::new(Mutex::new(None::<Thread>));
        consumer.set_nonempty_callback({
            let alarm = Arc::clone(&alarm);
            move || unpark(&alarm)
        });
        subscribe(&consumer, &options.topics).map_err(failed)?;

        let consumer = Arc::new(consumer);
        let (messages, receiver) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::unbounded_channel();
        let weak = Arc::downgrade(&consumer);
        let commits = Commits::start(weak.clone())?;
        let keeper = Keeper {
            group: options.group.clone(),
            consumer,
            shared,
            messages,
            leaving: Vec::new(),
            over: false,
        };
        let thread = wake::start("kafka-member", move || keeper.run(asked))?;
        *alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread.clone());
        thread.unpark();
        let kafka = kafka.clone();
        let member = Self {
            kafka,
            group: options.group.clone(),
            session_timeout,
            consumer: weak,
            commits,
            asks,
            thread,
        };
        Ok((member, receiver))
    }

    fn subject(&self) -> String {
        format!("group {}", self.group)
    }

    fn left(&self) -> Error {
        Error::new(Class::Fenced, self.subject(), "this member has left")
    }
}

fn subscribe(consumer: &MemberConsumer, topics: &[TopicName]) -> KafkaResult<()> {
    let topics: Vec<_> = topics.iter().map(TopicName::as_str).collect();
    consumer.subscribe(&topics)
}

fn unpark(alarm: &Mutex<Option<Thread>>) {
    if let Some(thread) = &*alarm.lock().unwrap_or_else(PoisonError::into_inner) {
        thread.unpark();
    }
}

fn settings(kafka: &KafkaOptions, options: &MemberOptions) -> Vec<(&'static str, String)> {
    let mut own = vec![
        ("group.id", options.group.clone()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", "error".to_owned()),
        ("allow.auto.create.topics", "false".to_owned()),
        // Nobody polls late here; it only bounds how long the group waits for a member to rejoin.
        (
            "max.poll.interval.ms",
            kafka.session_timeout.max(REJOIN).as_millis().to_string(),
        ),
        // A topic or a partition made later is noticed within this time.
        ("topic.metadata.refresh.interval.ms", "10000".to_owned()),
        // It never fetches but for the moment between assign and pause: keep that small.
        ("queued.min.messages", "1".to_owned()),
        ("fetch.message.max.bytes", "1024".to_owned()),
    ];
    match kafka.group_protocol {
        GroupProtocol::Classic => {
            let heartbeat = kafka.heartbeat_interval.as_millis();
            own.push((
                "partition.assignment.strategy",
                "cooperative-sticky".to_owned(),
            ));
            own.push((
                "session.timeout.ms",
                kafka.session_timeout.as_millis().to_string(),
            ));
            own.push(("heartbeat.interval.ms", heartbeat.to_string()));
        }
        // The broker decides what the classic member chooses, and refuses its settings (trap 12).
        GroupProtocol::Consumer => own.push(("group.protocol", "consumer".to_owned())),
    }
    if kafka.static_membership {
        own.push(("group.instance.id", options.instance.clone()));
    }
    own
}

#[async_trait]
impl Member for KafkaMember {
    // cancel-safe: the commit runs on, its result is lost with the future.
    async fn commit(&self, positions: Vec<Position>) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let result = self.commits.send(positions).ok_or_else(|| self.left())?;
        let result = result.await.unwrap_or(Err(KafkaError::Canceled));
        result.map_err(|error| {
            if error == KafkaError::Canceled {
                return self.left();
            }
            errors::committing(self.subject(), &error)
        })
    }

    async fn committed(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Option<Committed>)>, Error> {
        ask::committed(&self.kafka, &self.group, partitions).await
    }

    fn subscribe(&self, topics: Vec<TopicName>) {
        // An error means that the thread has ended, which its last message has told.
        if self.asks.send(Ask::Subscribe(topics)).is_ok() {
            self.thread.unpark();
        }
    }

    fn group_metadata(&self) -> Result<GroupMetadata, Error> {
        let consumer = self.consumer.upgrade().ok_or_else(|| self.left())?;
        let metadata: ConsumerGroupMetadata =
            consumer.group_metadata().ok_or_else(|| self.left())?;
        Ok(GroupMetadata::new(metadata))
    }

    fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.asks.send(Ask::Close(done)).is_ok() {
            self.thread.unpark();
            // An error means that the thread has ended: closed as well.
            drop(closed.await);
        }
    }
}

impl fmt::Debug for KafkaMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaMember")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

// === what the callbacks leave for the poll thread ===

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    changes: Mutex<Vec<Change>>,
}

enum Change {
    Assigned(Vec<Partition>),
    Revoked(Vec<Partition>),
    Lost(Vec<Partition>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what librdkafka's callbacks say.
pub(super) struct MemberContext(Arc<Shared>);

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_error(&error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.0.closing.load(Ordering::Acquire) {
            let done = if assigned {
                add(consumer, partitions)
            } else {
                remove(consumer, partitions)
            };
            warn_unless(done, "partitions while closing");
            return;
        }
        let named = list::partitions(partitions);
        let change = if assigned {
            Change::Assigned(named)
        } else if consumer.assignment_lost() {
            Change::Lost(named)
        } else {
            Change::Revoked(named)
        };
        lock(&self.0.changes).push(change);
    }
}

fn add(consumer: &MemberConsumer, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Eager => consumer.assign(partitions),
        RebalanceProtocol::Cooperative | RebalanceProtocol::None => {
            consumer.incremental_assign(partitions)
        }
    }
}

fn remove(consumer: &MemberConsumer, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Eager => consumer.unassign(),
        RebalanceProtocol::Cooperative | RebalanceProtocol::None => {
            consumer.incremental_unassign(partitions)
        }
    }
}

fn warn_unless(done: KafkaResult<()>, what: &str) {
    if let Err(error) = done {
        tracing::warn!(%error, what, "group assignment not taken");
    }
}

// === the poll thread ===

struct Keeper {
    group: String,
    consumer: Arc<MemberConsumer>,
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Membership>,
    leaving: Vec<(oneshot::Receiver<()>, TopicPartitionList)>,
    over: bool,
}

impl Keeper {
    fn run(mut self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        let waker = wake::waker();
        let mut cx = std::task::Context::from_waker(&waker);
        let done = loop {
            match asked.poll_recv(&mut cx) {
                Poll::Ready(Some(Ask::Subscribe(topics))) => {
                    warn_unless(subscribe(&self.consumer, &topics), "subscribe");
                    continue;
                }
                Poll::Ready(Some(Ask::Close(done))) => break Some(done),
                Poll::Ready(None) => break None,
                Poll::Pending => {}
            }
            self.serve();
            self.give_up_acknowledged(&mut cx);
            std::thread::park_timeout(wake::DOZE);
        };
        self.leave();
        // Dropped, it says as much as sent.
        drop(done);
    }

    /// Serves librdkafka until it has nothing to say.
    fn serve(&mut self) {
        let mut quiet = 0;
        // One empty answer may be a log line in front of the rest.
        while quiet < 2 {
            match self.consumer.poll(Duration::ZERO) {
                Some(Err(error)) => self.heed(&error),
                // Fetched between assign and pause: not ours to hand on.
                Some(Ok(_)) => {}
                None => quiet += 1,
            }
            let changes = std::mem::take(&mut *lock(&self.shared.changes));
            for change in changes {
                self.settle(change);
                quiet = 0;
            }
        }
    }

    fn heed(&mut self, error: &KafkaError) {
        let code = errors::code(error);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        if self.over || !(fatal || errors::ends_membership(code)) {
            tracing::debug!(%error, "group member");
            return;
        }
        self.over = true;
        let subject = format!("group {}", self.group);
        self.tell(if errors::is_fenced(code) {
            Membership::Fenced(Error::new(Class::Fenced, subject, error))
        } else {
            Membership::Failed(Error::new(Class::Never, subject, error))
        });
    }

    fn settle(&mut self, change: Change) {
        // Any offset does: a plain one spares a question to the broker, and nothing is fetched.
        let listed = |partitions: &[Partition]| list::at(partitions, Offset::Offset(0));
        match change {
            Change::Assigned(partitions) => {
                let done = listed(&partitions).and_then(|list| {
                    add(&self.consumer, &list)?;
                    self.consumer.pause(&list)
                });
                warn_unless(done, "assign");
                if !partitions.is_empty() {
                    self.tell(Membership::Assigned(partitions));
                }
            }
            Change::Revoked(partitions) => match listed(&partitions) {
                Ok(list) if !partitions.is_empty() => {
                    let (revocation, acknowledged) = Revocation::new(partitions);
                    self.leaving.push((acknowledged, list));
                    self.tell(Membership::Revoked(revocation));
                }
                done => warn_unless(
                    done.and_then(|list| remove(&self.consumer, &list)),
                    "revoke",
                ),
            },
            Change::Lost(partitions) => {
                // Told first: only what is given back lets librdkafka join again, so whoever sees the
                // next place in the group has the message of this loss waiting for him.
                let list = listed(&partitions);
                if !partitions.is_empty() {
                    self.tell(Membership::Lost(partitions));
                }
                let done = list.and_then(|list| remove(&self.consumer, &list));
                warn_unless(done, "lose");
            }
        }
    }

    fn give_up_acknowledged(&mut self, cx: &mut std::task::Context<'_>) {
        let consumer = &self.consumer;
        self.leaving.retain_mut(|(acknowledged, partitions)| {
            // The sender is only ever dropped: ready means acknowledged.
            let ready = std::pin::Pin::new(acknowledged).poll(cx).is_ready();
            if ready {
                warn_unless(remove(consumer, partitions), "revoke");
            }
            !ready
        });
    }

    fn tell(&self, message: Membership) {
        // The owner is gone: a revocation in the message is acknowledged by its drop.
        drop(self.messages.send(message));
    }

    /// Leaves the group: by dropping, since `unsubscribe` first would send no LeaveGroup (trap 10).
    fn leave(self) {
        self.shared.closing.store(true, Ordering::Release);
        for (_, partitions) in &self.leaving {
            warn_unless(remove(&self.consumer, partitions), "revoke");
        }
        let changes = std::mem::take(&mut *lock(&self.shared.changes));
        for change in changes {
            if let Change::Revoked(partitions) | Change::Lost(partitions) = change {
                let done = list::at(&partitions, Offset::Offset(0))
                    .and_then(|list| remove(&self.consumer, &list));
                warn_unless(done, "revoke");
            }
        }
        let mut consumer = self.consumer;
        // A handle, or the thread of commits, borrows it for the length of one call at most.
        let owned = loop {
            match Arc::try_unwrap(consumer) {
                Ok(owned) => break owned,
                Err(shared) => consumer = shared,
            }
            std::thread::park_timeout(Duration::from_millis(1));
        };
        drop(owned);
    }
}
