//! Owns the routing loop: one task that owns every source partition of this router, its group
//! membership and its commits (rules 2, 3 and 16).
//!
//! It must never commit a position whose records are not acknowledged, nor a partition that it has
//! given up. The surprise: there is one task and no lock. Matching is cheap beside the log's own
//! threads, and large work is cut into pieces, so that one loop serves all partitions in turn;
//! a process that is not enough is joined by a second one.

mod commits;
mod feeds;
mod first;
mod flow;
pub(crate) mod metrics;
mod name;
mod ownership;
mod readers;
mod replay;
mod source;
mod start;
mod turns;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, future};
use runtime::clock::Clock;
use runtime::log::topics::MAX_RECORD_BYTES;
use runtime::log::topics::Topics;
use runtime::log::{
    Error as LogError, Fetched, Member, MemberOptions, Membership, NotWritten, Partition, Producer,
    ProducerOptions, SharedLog, TopicName,
};
use runtime::view::{Follower, Update};
use schemas::records::{Applied, Incarnation};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::index::Index;
use crate::{Error, Options};
use commits::Commits;
use feeds::Feeds;
use metrics::{Class, RouterMetrics};
use name::Name;
use ownership::Drain;
use readers::{Incoming, Readers};
use replay::Replays;
#[cfg(test)]
pub(crate) use source::RECORD_TARGETS_MAX;
use source::{Load, Source};
use start::Start;
use turns::Turns;

/// Bytes that sources other than `events` may have unacknowledged, all together: what is live finds
/// the log's own queues short.
const BESIDE_LIVE_BYTES: usize = 4 << 20;
/// How often ages and gauges are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Reports of applied changes are at least so far apart.
const REPORT_GAP: Duration = Duration::from_millis(20);
/// Kafka forgets positions that are not committed for a week.
const RECOMMIT_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Work that has ended.
#[derive(Debug)]
enum Done {
    /// Where a partition starts is known.
    Started {
        partition: Partition,
        tenure: u64,
        start: Result<Start, LogError>,
    },
    /// A producer is open.
    Opened {
        partition: Partition,
        generation: u64,
        producer: Result<Arc<dyn Producer>, LogError>,
    },
    /// The reports of a flight are in.
    Written {
        partition: Partition,
        generation: u64,
        flight: u64,
        load: Load,
        reports: Vec<Result<i64, NotWritten>>,
    },
    /// A commit of a lane was answered.
    Committed(commits::Lane, Result<(), LogError>),
    /// Where namesakes are heard from is known.
    NameEnd(i64),
    /// Something that replays wait for.
    Aside(replay::Event),
    /// Which topics of sources are there is known.
    Looked(Vec<(TopicName, bool)>),
}

/// What the loop waits for.
#[derive(Debug)]
enum Input {
    Membership(Option<Membership>),
    Done(Done),
    Timer,
    Fetched(Class, Option<Fetched>),
    Control(Result<Update, LogError>),
    Stop,
    Step(Partition),
    Past(Option<Fetched>),
    StepPast(Partition),
}

/// What a router sees of `control`, and what goes on to read it.
#[derive(Debug)]
struct Views {
    index: Index,
    feeds: Feeds,
    starts: replay::Starts,
    follower: Follower,
}

impl Views {
    /// Reads `control` to its end.
    async fn read(log: &SharedLog, control: &TopicName, instance: &str) -> Result<Self, Error> {
        let (mut index, mut feeds) = (Index::new(), Feeds::default());
        let mut starts = replay::Starts::default();
        let mut follower = Follower::start(log, control, instance).await?;
        let take_in = |update: Update| {
            apply(&mut index, &update);
            feeds.apply(&update);
            replay::apply(&mut starts, &update);
        };
        follower.catch_up(take_in).await?;
        Ok(Self {
            index,
            feeds,
            starts,
            follower,
        })
    }
}

/// The owner of all source partitions of one router.
#[derive(Debug)]
pub(crate) struct Router {
    log: SharedLog,
    topics: Topics,
    options: Options,
    clock: Clock,
    metrics: RouterMetrics,
    index: Index,
    feeds: Feeds,
    follower: Follower,
    reports: Arc<dyn Producer>,
    name: Name,
    member: Arc<dyn Member>,
    membership: mpsc::UnboundedReceiver<Membership>,
    reader: Readers,
    fetched: Incoming,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    sources: BTreeMap<Partition, Source>,
    turns: Turns,
    replays: Replays,
    drains: Vec<Drain>,
    commits: Commits,
    /// Numbers tenures and generations.
    counter: u64,
    report_at: Instant,
    reported_at: Instant,
    recommit_at: Instant,
    tick_at: Instant,
    stopping: bool,
}

impl Router {
    /// Reads `control` to its end, then joins the group.
    pub(crate) async fn open(
        log: SharedLog,
        topics: Topics,
        options: Options,
        clock: Clock,
        (metrics, incarnation): (RouterMetrics, Incarnation),
    ) -> Result<Self, Error> {
        let Views {
            index,
            mut feeds,
            starts,
            follower,
        } = Views::read(&log, &topics.control, &options.instance).await?;
        let mut shared = options.sources.clone();
        shared.extend(feeds.first_look(&log).await);
        let reports = ProducerOptions::named(format!("{}-reports", options.instance));
        let reports = log.producer(reports).await?;
        let name = Name::new(
            &log,
            &topics.progress,
            &options.instance,
            incarnation.clone(),
        )
        .await?;
        let (reader, fetched) = Readers::open(&log, &topics, &options.instance).await?;
        let (member, membership) = log
            .member(MemberOptions {
                group: options.group.clone(),
                topics: shared,
                instance: options.instance.clone(),
            })
            .await?;
        let now = clock.instant();
        let turns = Turns::new(&topics);
        let replays = Replays::new(
            (log.clone(), topics.progress.clone()),
            &options.instance,
            incarnation,
            options.replay_rate,
            (starts, now),
        );
        Ok(Self {
            log,
            topics,
            clock,
            metrics,
            index,
            feeds,
            follower,
            reports,
            name,
            member,
            membership,
            reader,
            fetched,
            work: FuturesUnordered::new(),
            sources: BTreeMap::new(),
            turns,
            replays,
            drains: Vec::new(),
            commits: Commits::new(options.commit_interval, now),
            counter: 0,
            report_at: now,
            reported_at: now,
            recommit_at: now + RECOMMIT_INTERVAL,
            tick_at: now + TICK,
            stopping: false,
            options,
        })
    }

    /// Routes until `token` is cancelled; then what is in flight is awaited and committed, and the
    /// group is left. Dropping this future instead loses nothing: the next owner repeats what was
    /// not committed.
    pub(crate) async fn run(mut self, token: CancellationToken) -> Result<(), Error> {
        self.show_index();
        self.follow_sources(self.clock.instant());
        self.watch_name();
        loop {
            let input = self.next_input(&token).await;
            let worked = matches!(input, Input::Step(_) | Input::StepPast(_));
            self.handle(input)?;
            self.settle_drains();
            self.start_commit();
            if worked {
                // Other tasks have their turn between two pieces.
                tokio::task::yield_now().await;
            }
            if self.stopping && self.drains.is_empty() && !self.commits.is_under_way() {
                self.member.close().await;
                return Ok(());
            }
        }
    }

    async fn next_input(&mut self, token: &CancellationToken) -> Input {
        let turn = self.next_turn().cloned();
        let past = self.replays.turn(turn.is_some(), self.clock.instant());
        let [live, bulk, source] = self.room();
        let past_room = self.replays.has_room();
        let deadline = self.next_deadline();
        tokio::select! {
            // In this order: what frees comes before what fills, and routing comes last, since it
            // is always possible.
            biased;
            membership = self.membership.recv() => Input::Membership(membership),
            Some(done) = self.work.next(), if !self.work.is_empty() => Input::Done(done),
            () = token.cancelled(), if !self.stopping => Input::Stop,
            () = tokio::time::sleep_until(deadline) => Input::Timer,
            update = self.follower.next() => Input::Control(update),
            fetched = self.fetched.live.recv(), if live => Input::Fetched(Class::Live, fetched),
            fetched = self.fetched.bulk.recv(), if bulk => Input::Fetched(Class::Bulk, fetched),
            fetched = self.fetched.source.recv(), if source => {
                Input::Fetched(Class::Source, fetched)
            }
            fetched = self.replays.next_fetched(), if past_room => Input::Past(fetched),
            Some(partition) = future::ready(past) => Input::StepPast(partition),
            Some(partition) = future::ready(turn) => Input::Step(partition),
        }
    }

    fn handle(&mut self, input: Input) -> Result<(), Error> {
        match input {
            Input::Membership(message) => self.on_membership(message)?,
            Input::Done(done) => self.on_done(done)?,
            Input::Timer => self.on_timer(),
            Input::Fetched(class, Some(fetched)) => self.on_fetched(class, fetched)?,
            Input::Fetched(_, None) => return Err(Error::ReaderEnded),
            Input::Control(update) => self.on_control(&update?),
            Input::Stop => self.stop(),
            Input::Step(partition) => self.step(&partition),
            Input::Past(Some(fetched)) => self.on_past(fetched),
            Input::Past(None) => return Err(Error::ReaderEnded),
            Input::StepPast(partition) => self.step_past(&partition),
        }
        Ok(())
    }

    fn on_done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Started {
                partition,
                tenure,
                start,
            } => match start {
                Ok(start) => self.on_started(&partition, tenure, start),
                Err(error) => self.on_no_start(&partition, tenure, error)?,
            },
            Done::Opened {
                partition,
                generation,
                producer,
            } => {
                self.on_opened(&partition, generation, producer)?;
            }
            Done::Written {
                partition,
                generation,
                flight,
                load,
                reports,
            } => {
                let current = self.sources.get(&partition);
                if current.is_some_and(|source| source.generation == generation) {
                    self.on_written(&partition, flight, &load, &reports);
                }
            }
            Done::Looked(found) => self.on_looked(&found),
            Done::Aside(event) => self.on_aside(event)?,
            Done::Committed(lane, answer) => self.on_committed(&lane, answer)?,
            Done::NameEnd(end) => {
                let assignment = self.reader.assign(self.name.place().clone(), end);
                self.name.listen(assignment);
            }
        }
        Ok(())
    }

    fn on_control(&mut self, update: &Update) {
        apply(&mut self.index, update);
        if self.feeds.apply(update) {
            self.follow_sources(self.clock.instant());
        }
        self.on_starts(update);
        self.show_index();
        self.report_at = self.report_at.min(self.reported_at + REPORT_GAP);
    }

    fn show_index(&self) {
        self.metrics.control_offset.set(self.index.control_offset());
        self.metrics
            .subscriptions
            .set(i64::try_from(self.index.len()).unwrap_or(i64::MAX));
    }

    fn next_deadline(&self) -> Instant {
        let fixed = self.tick_at.min(self.report_at).min(self.recommit_at);
        let commit = self.commit_due();
        let drain = self.drain_due();
        let look = self.feeds.look_due();
        let past = self.replays.due(self.clock.instant());
        let due = commit.into_iter().chain(drain).chain(look).chain(past);
        due.fold(fixed, Instant::min)
    }

    fn on_timer(&mut self) {
        let now = self.clock.instant();
        self.look_for_topics(now);
        if now >= self.report_at {
            self.report(now);
        }
        if now >= self.recommit_at {
            self.recommit_at = now + RECOMMIT_INTERVAL;
            self.sources
                .values_mut()
                .for_each(|source| source.recommit = true);
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.on_tick(now);
        }
    }

    /// Says how much of `control` is applied, after changes and every quarter of a session.
    fn report(&mut self, now: Instant) {
        self.reported_at = now;
        self.report_at = now + self.member.session_timeout() / 4;
        let applied = Applied {
            version: 1,
            service: "router".to_owned(),
            instance: self.options.instance.clone(),
            control_offset: self.replays.applied(self.index.control_offset()),
            at: self.clock.now(),
        };
        // Best effort: a missing report only makes `?wait=applied` wait, and a namesake is heard
        // with the next.
        if self
            .reports
            .try_send(vec![self.name.record(applied)])
            .is_err()
        {
            tracing::warn!("report of applied control offset was dropped");
        }
    }

    /// Hears namesakes from the end of their place on.
    fn watch_name(&self) {
        let (log, place) = (self.log.clone(), self.name.place().clone());
        self.work.push(Box::pin(async {
            Done::NameEnd(name::end_of(log, place).await)
        }));
    }

    fn producer_options(&self, partition: &Partition, careful: bool) -> ProducerOptions {
        let mut options =
            ProducerOptions::named(format!("{}-router-{partition}", self.options.instance));
        options.buffer_bytes = self.options.window.bytes + 2 * MAX_RECORD_BYTES;
        options.gapless = true;
        options.single_record_batches = careful;
        // The source is read again from what is committed: order is enough.
        options.acknowledge = runtime::log::Acknowledge::Ordered;
        options
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

fn apply(index: &mut Index, update: &Update) {
    for change in &update.changes {
        index.apply(&change.key, change.object.as_ref());
    }
    index.set_control_offset(update.applied);
}
