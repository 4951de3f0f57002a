//! Owns the reader's thread: commands in, fetched records out, in the order asked for.
//!
//! It must never wait for its owner while commands are due. The surprise: the bound in bytes is
//! kept by counting batches, each of a known size at most; when the owner does not take them, the
//! thread stops taking from librdkafka, whose own queue is bounded too.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::task::{Context, Poll};
use std::thread::Thread;
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use rdkafka::error::KafkaError;
use tokio_util::sync::PollSender;

use super::ask::{Extent, Questions};
use super::source::{self, Drained, Source, Standing};
use super::{KafkaOptions, errors, list, wake};
use crate::log::{Assignment, Class, Error, Fetched, Partition, Reader, ReaderOptions, TopicName};

/// A question about the log is asked again after this long.
const AGAIN: Duration = Duration::from_millis(500);

/// See [`Reader`].
pub(super) struct KafkaReader {
    name: String,
    last: AtomicU64,
    commands: mpsc::Sender<Command>,
    thread: Thread,
}

enum Command {
    Assign(Partition, Assignment, i64),
    Unassign(Partition),
    Pause(Partition, bool),
    /// Answers to questions asked aside.
    Ends(Vec<(Standing, i64)>),
    Extents(TopicName, Vec<(Standing, Extent)>),
    Failed(Partition, KafkaError),
    /// The handle is gone.
    Close,
}

impl KafkaReader {
    /// Starts the thread.
    pub(super) fn open(
        kafka: &KafkaOptions,
        questions: Questions,
        options: ReaderOptions,
        group: String,
    ) -> Result<(Self, tokio::sync::mpsc::Receiver<Fetched>), Error> {
        // Half of the bytes may be on the way to the owner.
        let batches = (options.queue_bytes / 2 / options.batch_bytes.max(1)).clamp(1, 1_024);
        let (sender, receiver) = tokio::sync::mpsc::channel(batches);
        let (commands, inbox) = mpsc::channel();
        let name = options.name.clone();
        let loops = Loop {
            kafka: kafka.clone(),
            questions,
            options,
            group,
            inbox,
            answers: commands.clone(),
            sources: HashMap::new(),
            out: VecDeque::new(),
            assigned: Vec::new(),
        };
        let thread = wake::start("kafka-reader", move || loops.run(PollSender::new(sender)))?;
        let reader = Self {
            name,
            last: AtomicU64::new(0),
            commands,
            thread,
        };
        Ok((reader, receiver))
    }

    fn tell(&self, command: Command) {
        // The thread ends when its owner takes nothing any more: then nothing is read.
        drop(self.commands.send(command));
        self.thread.unpark();
    }
}

impl Reader for KafkaReader {
    fn assign(&self, partition: Partition, offset: i64) -> Assignment {
        let assignment = Assignment(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.tell(Command::Assign(partition, assignment, offset));
        assignment
    }

    fn unassign(&self, partition: Partition) {
        self.tell(Command::Unassign(partition));
    }

    fn pause(&self, partition: Partition) {
        self.tell(Command::Pause(partition, true));
    }

    fn resume(&self, partition: Partition) {
        self.tell(Command::Pause(partition, false));
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.tell(Command::Close);
    }
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Loop {
    kafka: KafkaOptions,
    questions: Questions,
    options: ReaderOptions,
    group: String,
    inbox: mpsc::Receiver<Command>,
    answers: mpsc::Sender<Command>,
    sources: HashMap<TopicName, Source>,
    out: VecDeque<Fetched>,
    assigned: Vec<Standing>,
}

impl Loop {
    fn run(mut self, mut owner: PollSender<Fetched>) {
        let waker = wake::waker();
        let mut cx = Context::from_waker(&waker);
        loop {
            if self.obey().is_err() {
                return;
            }
            match self.hand_on(&mut owner, &mut cx) {
                Handed::OwnerGone => return,
                Handed::All if self.drain() => {}
                Handed::All | Handed::Full => {
                    std::thread::park_timeout(wake::DOZE);
                    // librdkafka's own events need a look now and then.
                    self.sources.values().for_each(Source::nudge);
                }
            }
        }
    }

    /// Carries out what was asked, in order.
    fn obey(&mut self) -> Result<(), OwnerGone> {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => return Err(OwnerGone),
                Ok(command) => self.carry_out(command),
                Err(TryRecvError::Empty) => break,
            }
        }
        if !self.assigned.is_empty() {
            self.ask_for_ends();
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Assign(partition, assignment, offset) => {
                self.assign(partition, assignment, offset);
            }
            Command::Unassign(partition) => {
                self.on(partition, |source, number| {
                    source.unassign(number).map(drop)
                });
            }
            Command::Pause(partition, paused) => {
                self.on(partition, |source, number| {
                    source.set_paused(number, paused)
                });
            }
            Command::Ends(ends) => {
                for (standing, end) in ends {
                    if let Some(source) = self.sources.get(&standing.partition.topic) {
                        source.at_end(standing, end, &mut self.out);
                    }
                }
            }
            Command::Extents(topic, extents) => {
                let judged = self
                    .sources
                    .get_mut(&topic)
                    .map(|source| source.judge(extents, &mut self.out));
                if let Some(Err(error)) = judged {
                    self.out
                        .push_back(Fetched::Failed(None, errors::asking(&topic, &error)));
                }
            }
            Command::Failed(partition, error) => {
                self.out.extend(source::failed(partition, Err(error)));
            }
            // Seen before it gets here.
            Command::Close => {}
        }
    }

    fn on(
        &mut self,
        partition: Partition,
        act: impl FnOnce(&mut Source, i32) -> Result<(), KafkaError>,
    ) {
        let number = list::number(&partition);
        if let Some(source) = self.sources.get_mut(&partition.topic) {
            self.out
                .extend(source::failed(partition, act(source, number)));
        }
    }

    fn assign(&mut self, partition: Partition, assignment: Assignment, offset: i64) {
        if offset < 0 {
            // librdkafka would take it for one of its own signs.
            self.on(partition.clone(), |source, number| {
                source.unassign(number).map(drop)
            });
            self.out
                .push_back(Fetched::OutOfRange(assignment, partition));
            return;
        }
        let number = list::number(&partition);
        let assigned = match self.sources.entry(partition.topic.clone()) {
            Entry::Occupied(source) => source.into_mut().assign(number, assignment, offset),
            Entry::Vacant(place) => {
                let thread = std::thread::current();
                Source::open(
                    &self.kafka,
                    &self.options,
                    &self.group,
                    &partition.topic,
                    &thread,
                )
                .and_then(|source| place.insert(source).assign(number, assignment, offset))
            }
        };
        if assigned.is_ok() {
            self.assigned.push(Standing {
                partition,
                assignment,
                next: offset,
            });
        } else {
            self.out.extend(source::failed(partition, assigned));
        }
    }

    /// librdkafka tells of an end only after a fetch has waited in vain: ask at once.
    fn ask_for_ends(&mut self) {
        let standings = std::mem::take(&mut self.assigned);
        let (questions, answers) = (self.questions.clone(), self.answers.clone());
        let thread = std::thread::current();
        let asked = wake::start("kafka-ask", move || {
            let partitions: Vec<_> = standings.iter().map(|s| s.partition.clone()).collect();
            match questions.stable_ends(&partitions) {
                Ok(ends) => {
                    let ends = standings.into_iter().zip(ends).collect();
                    drop(answers.send(Command::Ends(ends)));
                    thread.unpark();
                }
                // librdkafka will tell, later.
                Err(error) => tracing::debug!(%error, "ends of assigned partitions not known yet"),
            }
        });
        if let Err(error) = asked {
            tracing::debug!(%error, "ends of assigned partitions not asked for");
        }
    }

    /// librdkafka does not say which partition stands outside the log: compare them all.
    fn ask_for_extents(&mut self, topic: TopicName) {
        let Some(source) = self.sources.get(&topic) else {
            return;
        };
        let standings = source.standings();
        let (questions, answers) = (self.questions.clone(), self.answers.clone());
        let thread = std::thread::current();
        let asked = wake::start("kafka-ask", move || {
            let partitions: Vec<_> = standings.iter().map(|s| s.partition.clone()).collect();
            loop {
                match questions.extents(&partitions) {
                    Ok(extents) => {
                        let judged = standings.into_iter().zip(extents).collect();
                        drop(answers.send(Command::Extents(topic, judged)));
                        thread.unpark();
                        return;
                    }
                    Err(error) => {
                        let Some(first) = partitions.first().cloned() else {
                            return;
                        };
                        if answers.send(Command::Failed(first, error)).is_err() {
                            return;
                        }
                        thread.unpark();
                    }
                }
                std::thread::park_timeout(AGAIN);
            }
        });
        if let Err(error) = asked {
            self.out.push_back(Fetched::Failed(None, error));
        }
    }

    /// Hands on what is ready while the owner has room.
    fn hand_on(&mut self, owner: &mut PollSender<Fetched>, cx: &mut Context<'_>) -> Handed {
        while !self.out.is_empty() {
            match owner.poll_reserve(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Handed::OwnerGone,
                Poll::Pending => return Handed::Full,
            }
            let Some(fetched) = self.out.pop_front() else {
                break;
            };
            if owner.send_item(fetched).is_err() {
                return Handed::OwnerGone;
            }
        }
        Handed::All
    }

    /// Takes from each source that has something; says whether any had.
    fn drain(&mut self) -> bool {
        let mut outside = Vec::new();
        let mut any = false;
        for (topic, source) in &mut self.sources {
            if source.is_ready() {
                any = true;
                if source.drain(&mut self.out) == Drained::OutOfRange {
                    outside.push(topic.clone());
                }
            }
        }
        for topic in outside {
            self.ask_for_extents(topic);
        }
        any
    }
}

struct OwnerGone;

enum Handed {
    All,
    Full,
    OwnerGone,
}

/// Fails early where a reader could never work.
pub(super) fn check(options: &ReaderOptions) -> Result<(), Error> {
    if options.queue_bytes == 0 || options.batch_bytes == 0 {
        let subject = format!("reader {}", options.name);
        return Err(Error::new(
            Class::Never,
            subject,
            "queue and batch must hold bytes",
        ));
    }
    Ok(())
}
