//! Owns simulated time: the agenda of what happens when, the processes, and the draws.
//!
//! Nothing may happen in the simulation but through the agenda, in its order. The surprise: a
//! stopped process does not stop time for the log. What the process sends or is sent is parked
//! until it is woken, and the log gives its partitions away meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::{Partition, TopicName};
use super::faults::FaultState;
use super::membership::Groups;
use super::options::{Latencies, Latency, SimulationOptions};
use super::produce::Producing;
use super::read::Readers;
use super::storage::Topic;
use super::trace::Trace;
use super::transact::Transacting;
use crate::clock::{Clock, Entropy, UnixMillis};

/// One life of a process: a restart is another one.
pub(super) type Life = u64;

/// Wall time at the start where none is given: 2027-01-15.
const START: UnixMillis = 1_800_000_000_000;

/// What keeps its order. Nothing in one lane overtakes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// In no order with anything.
    Alone,
    /// A producer's batches for a partition.
    Produce(u64, Partition),
    /// A member's commits.
    Commit(u64),
    /// What a member is told.
    Membership(u64),
    /// A transactional producer's writes to a partition.
    Transact(u64, Partition),
}

/// Which way something goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passage {
    /// From a process to the log.
    Request(Lane),
    /// From the log to a process, or within the process.
    Reply(Lane),
    /// Within the log.
    Inside,
}

type Act = Box<dyn FnOnce(&mut World) + Send>;

/// Something that is going to happen.
pub(super) struct Due {
    owner: Option<Life>,
    passage: Passage,
    act: Act,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Running,
    Stopped,
    Crashed,
}

struct Process {
    name: String,
    standing: Standing,
    // Tells one stop from the next.
    stops: u64,
    // What waits for the process to be woken; of a crashed one, for ever: its callers never return.
    parked: Vec<Due>,
}

/// The state of a simulation.
pub(super) struct World {
    pub(super) options: SimulationOptions,
    pub(super) clock: Clock,
    pub(super) topics: BTreeMap<TopicName, Topic>,
    pub(super) faults: FaultState,
    pub(super) producing: Producing,
    pub(super) transacting: Transacting,
    pub(super) groups: Groups,
    pub(super) readers: Readers,
    pub(super) trace: Trace,
    pub(super) chance: Entropy,
    pub(super) me: Weak<Shared>,
    delays: Entropy,
    started: Instant,
    last_id: u64,
    agenda: BTreeMap<(Instant, u64), Due>,
    lanes: BTreeMap<Passage, Instant>,
    processes: BTreeMap<Life, Process>,
    // What waits for a partition to be writable again.
    blocked: BTreeMap<Partition, Vec<Due>>,
    tasks: JoinSet<()>,
}

/// A simulation as its handles share it.
pub(super) struct Shared {
    world: Mutex<World>,
    sooner: Arc<Notify>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedLog")
    }
}

impl Shared {
    /// Starts a simulation; it ends with its last handle. Call it inside a tokio runtime.
    pub(super) fn start(options: SimulationOptions) -> Arc<Self> {
        let shared = Arc::new_cyclic(|me| Self {
            world: Mutex::new(World::new(options, me.clone())),
            sooner: Arc::default(),
        });
        let driver = drive(Arc::downgrade(&shared), Arc::clone(&shared.sooner));
        shared.with(|world| world.spawn(driver));
        shared
    }

    /// Reads or changes the state; what is due sooner than before wakes the driver.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let before = world.next_due();
        let result = change(&mut world);
        let after = world.next_due();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.sooner.notify_one();
        }
        result
    }

    /// Sends a request of `life` and waits for its answer, for ever where the process has crashed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        life: Life,
        latency: fn(&Latencies) -> Latency,
        request: impl FnOnce(&mut World, oneshot::Sender<T>) + Send + 'static,
    ) -> T {
        let (sender, receiver) = oneshot::channel();
        self.with(|world| {
            let delay = world.draw(latency);
            world.submit(life, Lane::Alone, delay, move |world| {
                request(world, sender)
            });
        });
        match receiver.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Lets happen what is due. It keeps no handle while it waits, so that the last one ends it.
async fn drive(shared: Weak<Shared>, sooner: Arc<Notify>) {
    loop {
        let Some(next) = shared.upgrade().map(|shared| shared.with(World::run_due)) else {
            return;
        };
        match next {
            Some(at) => tokio::select! {
                biased;
                () = sooner.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => sooner.notified().await,
        }
    }
}

impl World {
    fn new(options: SimulationOptions, me: Weak<Shared>) -> Self {
        let entropy = Entropy::seeded(options.seed);
        Self {
            clock: options
                .clock
                .clone()
                .unwrap_or_else(|| Clock::simulated(START)),
            topics: BTreeMap::new(),
            faults: FaultState::new(&entropy),
            producing: Producing::default(),
            transacting: Transacting::default(),
            groups: Groups::default(),
            readers: Readers::default(),
            trace: Trace::new(options.seed, options.trace_lines),
            chance: entropy.fork("chance"),
            me,
            delays: entropy.fork("delays"),
            started: Instant::now(),
            last_id: 0,
            agenda: BTreeMap::new(),
            lanes: BTreeMap::new(),
            processes: BTreeMap::new(),
            blocked: BTreeMap::new(),
            tasks: JoinSet::new(),
            options,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn note(&mut self, what: String) {
        self.trace.push(self.started.elapsed(), what);
    }

    pub(super) fn draw(&self, latency: impl FnOnce(&Latencies) -> Latency) -> Duration {
        latency(&self.options.latencies).draw(&self.delays)
    }

    /// The time to the moment at which the log looks for old transactions next after `at`.
    pub(super) fn next_sweep(&self, at: Instant) -> Duration {
        let every = self
            .options
            .transaction_sweep
            .max(Duration::from_millis(1))
            .as_nanos();
        let since = at.duration_since(self.started).as_nanos();
        let nanos = (since / every + 1).saturating_mul(every);
        let sweep = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        (self.started + sweep).duration_since(Instant::now())
    }

    /// Spawns a helper of the simulation itself; it is aborted with the last handle.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    fn next_due(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    fn run_due(&mut self) -> Option<Instant> {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > Instant::now() {
                return Some(entry.key().0);
            }
            let due = entry.remove();
            match (
                &due.passage,
                due.owner.and_then(|life| self.processes.get_mut(&life)),
            ) {
                (Passage::Reply(_), Some(process)) if process.standing != Standing::Running => {
                    process.parked.push(due);
                }
                _ => (due.act)(self),
            }
        }
        None
    }

    fn enter(&mut self, delay: Duration, due: Due) {
        let mut at = Instant::now() + delay;
        if let Passage::Request(lane) | Passage::Reply(lane) = &due.passage
            && *lane != Lane::Alone
        {
            let last = self.lanes.entry(due.passage.clone()).or_insert(at);
            at = at.max(*last);
            *last = at;
        }
        let number = self.next_id();
        self.agenda.insert((at, number), due);
    }

    fn enter_of(&mut self, life: Life, passage: Passage, delay: Duration, act: Act) {
        let is_request = matches!(passage, Passage::Request(_));
        let due = Due {
            owner: Some(life),
            passage,
            act,
        };
        match self.processes.get_mut(&life) {
            Some(process) if is_request && process.standing != Standing::Running => {
                process.parked.push(due);
            }
            Some(_) | None => self.enter(delay, due),
        }
    }

    /// A request of a process reaches the log after `delay`.
    pub(super) fn submit(
        &mut self,
        life: Life,
        lane: Lane,
        delay: Duration,
        act: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        self.enter_of(life, Passage::Request(lane), delay, Box::new(act));
    }

    /// Something reaches a process after `delay`.
    pub(super) fn reply(
        &mut self,
        life: Life,
        lane: Lane,
        delay: Duration,
        act: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        self.enter_of(life, Passage::Reply(lane), delay, Box::new(act));
    }

    /// An answer reaches a process after `delay`.
    pub(super) fn answer<T: Send + 'static>(
        &mut self,
        life: Life,
        delay: Duration,
        sender: oneshot::Sender<T>,
        value: T,
    ) {
        // A caller that no longer waits misses its answer, as over a network.
        self.reply(life, Lane::Alone, delay, move |_| drop(sender.send(value)));
    }

    /// Something happens inside the log after `delay`.
    pub(super) fn later(&mut self, delay: Duration, act: impl FnOnce(&mut Self) + Send + 'static) {
        let due = Due {
            owner: None,
            passage: Passage::Inside,
            act: Box::new(act),
        };
        self.enter(delay, due);
    }

    /// A request waits until `partition` is writable.
    pub(super) fn block(
        &mut self,
        partition: &Partition,
        life: Life,
        act: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        let passage = Passage::Request(Lane::Alone);
        let due = Due {
            owner: Some(life),
            passage,
            act: Box::new(act),
        };
        self.blocked.entry(partition.clone()).or_default().push(due);
    }

    /// What waited for `partition` happens now, in its order.
    pub(super) fn unblock(&mut self, partition: &Partition) {
        for due in self.blocked.remove(partition).unwrap_or_default() {
            (due.act)(self);
        }
    }

    /// The living process of that name, begun where there is none.
    pub(super) fn process(&mut self, name: &str) -> Life {
        if let Some(life) = self.life_of(name) {
            return life;
        }
        let life = self.next_id();
        self.note(format!("process {name} begins"));
        let process = Process {
            name: name.to_owned(),
            standing: Standing::Running,
            stops: 0,
            parked: Vec::new(),
        };
        self.processes.insert(life, process);
        life
    }

    fn life_of(&self, name: &str) -> Option<Life> {
        let alive =
            |process: &Process| process.name == name && process.standing != Standing::Crashed;
        self.processes
            .iter()
            .rev()
            .find(|(_, process)| alive(process))
            .map(|(life, _)| *life)
    }

    pub(super) fn name_of(&self, life: Life) -> &str {
        self.processes
            .get(&life)
            .map_or("nobody", |process| &process.name)
    }

    pub(super) fn is_running(&self, life: Life) -> bool {
        self.processes
            .get(&life)
            .is_some_and(|process| process.standing == Standing::Running)
    }

    pub(super) fn is_crashed(&self, life: Life) -> bool {
        self.processes
            .get(&life)
            .is_none_or(|process| process.standing == Standing::Crashed)
    }

    /// The process makes no progress until it is woken, as by SIGSTOP.
    pub(super) fn stop(&mut self, name: &str) {
        let Some(life) = self.life_of(name) else {
            return;
        };
        self.silence(life, Standing::Stopped);
        self.note(format!("process {name} is stopped"));
    }

    /// Whatever was parked for or by the process happens now.
    pub(super) fn wake(&mut self, name: &str) {
        let Some(life) = self.life_of(name) else {
            return;
        };
        let Some(process) = self.processes.get_mut(&life) else {
            return;
        };
        if process.standing != Standing::Stopped {
            return;
        }
        process.standing = Standing::Running;
        process.stops += 1;
        let parked = std::mem::take(&mut process.parked);
        self.note(format!("process {name} is woken"));
        for due in parked {
            self.enter(Duration::ZERO, due);
        }
        self.wake_readers_of(life);
        self.process_is_back(life);
    }

    /// The process ends as by SIGKILL: what it had sent arrives or does not, per lane a prefix.
    pub(super) fn crash(&mut self, name: &str) {
        let Some(life) = self.life_of(name) else {
            return;
        };
        self.note(format!("process {name} crashes"));
        self.silence(life, Standing::Crashed);
        let mut broken = BTreeSet::new();
        let theirs: Vec<_> = self
            .agenda
            .iter()
            .filter(|(_, due)| due.owner == Some(life))
            .map(|(key, due)| (*key, due.passage.clone()))
            .collect();
        for (key, passage) in theirs {
            if let Passage::Request(lane) = passage {
                if !broken.contains(&lane) && self.toss() {
                    continue;
                }
                if lane != Lane::Alone {
                    broken.insert(lane);
                }
            }
            let due = self.agenda.remove(&key);
            self.bury(life, due);
        }
        for mut waiting in std::mem::take(&mut self.blocked) {
            let gone: Vec<_> = waiting
                .1
                .extract_if(.., |due| due.owner == Some(life))
                .collect();
            self.bury(life, gone);
            self.blocked.insert(waiting.0, waiting.1);
        }
    }

    fn bury(&mut self, life: Life, dues: impl IntoIterator<Item = Due>) {
        if let Some(process) = self.processes.get_mut(&life) {
            process.parked.extend(dues);
        }
    }

    fn silence(&mut self, life: Life, standing: Standing) {
        let Some(process) = self.processes.get_mut(&life) else {
            return;
        };
        let was = std::mem::replace(&mut process.standing, standing);
        if was != Standing::Running {
            return;
        }
        process.stops += 1;
        let stops = process.stops;
        self.later(self.options.session_timeout, move |world| {
            let silent = world
                .processes
                .get(&life)
                .is_some_and(|process| process.stops == stops);
            if silent {
                world.expire_members_of(life);
            }
        });
    }

    /// An even chance.
    pub(super) fn toss(&self) -> bool {
        self.chance.unit() < 0.5
    }
}
