//! Lines by example, and whole histories against an oracle that knows the order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

fn key(line: u64) -> Key {
    line_of(
        Quota::of_endpoint(EndpointId::from_bits(7)),
        EndpointId::from_bits(7),
        line,
    )
}

fn place(offset: i64) -> Place {
    Place { offset, index: 0 }
}

fn at(now: Instant, wall: i64) -> Moment {
    Moment {
        now,
        wall,
        pace_ms: 10,
    }
}

#[test]
fn lines_are_bounded_for_each_endpoint_and_differ_between_endpoints() {
    let quota = Quota::of_endpoint(EndpointId::from_bits(1));
    let lines = |endpoint: u128| -> BTreeSet<u64> {
        let endpoint = EndpointId::from_bits(endpoint << 64 | endpoint);
        let of = |key: u64| line_of(quota.clone(), endpoint, key.wrapping_mul(0x9e37_79b9)).hash;
        (0..20_000).map(of).collect()
    };
    let (one, two) = (lines(1), lines(2));
    assert!(one.len() <= usize::try_from(LINES).unwrap());
    assert!(one.len() > 1_000, "keys spread over the lines");
    assert!(one.is_disjoint(&two));
}

#[tokio::test(start_paused = true)]
async fn only_the_head_goes_and_what_follows_is_deferred_behind_it() {
    let now = Instant::now();
    let mut book = Book::new(|_| 1);
    let key = key(1);
    let fresh = |book: &mut Book<&'static str>, item, offset| {
        book.arrive(&key, (None, place(offset)), item, at(now, 1_000))
    };
    assert_eq!(fresh(&mut book, "a", 0), Arrived::Go("a"));
    assert_eq!(fresh(&mut book, "b", 1), Arrived::Kept);
    let a = book.deferred(&key, 61_000).unwrap();
    assert_eq!((a.sequence, a.kind), (1, StepKind::Deferred(61_000)));
    let spilled = book.spill(&key, at(now, 1_000));
    assert_eq!((spilled[0].item, spilled[0].step.sequence), ("b", 2));
    assert!(spilled[0].due_at >= 61_000, "behind the head's due time");
    let Arrived::Behind(c) = fresh(&mut book, "c", 2) else {
        panic!("c is not deferred")
    };
    assert_eq!(c.step.sequence, 3);
    for step in [&a, &spilled[0].step, &c.step] {
        assert_eq!(book.committed(step), None);
    }
    let block = book.durable(&key);
    assert_eq!((block.head, block.tail, block.due_at), (1, 4, 61_000));
    // Back from the delay topic, the second before the first.
    let back = |book: &mut Book<&'static str>, item, sequence| {
        book.arrive(&key, (Some(sequence), place(9)), item, at(now, 61_000))
    };
    assert_eq!(back(&mut book, "b", 2), Arrived::Kept);
    assert_eq!(back(&mut book, "a", 1), Arrived::Go("a"));
    let ending = book.delivered(&key);
    assert_eq!(ending.next, Some("b"));
    assert_eq!(book.committed(&ending.step.unwrap()), None);
    assert_eq!(fresh(&mut book, "d", 3), Arrived::Kept, "c comes first");
    let ending = book.delivered(&key);
    assert_eq!(ending.next, None);
    assert_eq!(back(&mut book, "c", 3), Arrived::Go("c"));
    let last = book.delivered(&key).step.unwrap();
    assert_eq!(book.committed(&ending.step.unwrap()), None);
    assert_eq!(book.committed(&last), Some("d"), "free only when committed");
    assert!(book.durable(&key).is_free());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_comes_back_does_not_block_its_key_for_ever() {
    let now = Instant::now();
    let mut book = Book::new(|_| 1);
    let block = Block {
        head: 4,
        tail: 9,
        due_at: 1_000,
        ..Block::default()
    };
    book.load(key(1), block);
    let mut seventh = |wall| book.arrive(&key(1), (Some(7), place(3)), 7, at(now, wall));
    assert_eq!(seventh(2_000), Arrived::Kept);
    assert_eq!(seventh(LOST_AFTER_MS + 2_000), Arrived::Go(7));
    let step = book.delivered(&key(1)).step.unwrap();
    book.committed(&step);
    assert_eq!(book.durable(&key(1)).head, 8);
}

/// What lasts: the topics and what is committed of them.
#[derive(Default)]
struct Disk {
    deliveries: Vec<u64>,
    /// Places of `deliveries` that are completed.
    completed: BTreeSet<usize>,
    /// By number: the line, the sequence, the due time.
    delayed: BTreeMap<usize, (usize, u64, i64)>,
    blocks: BTreeMap<u64, Block>,
    dead: BTreeSet<usize>,
}

#[derive(Clone)]
enum What {
    Defer(i64),
    Done,
    Dead,
}

/// An engine as simple as can be around a book. Items are places in `deliveries`.
struct Owner {
    book: Book<usize>,
    read: usize,
    /// Read from a delay topic, and not yet gone from it.
    back: BTreeSet<usize>,
    out: BTreeSet<usize>,
    moves: VecDeque<(usize, What, Option<Step>)>,
    completed: BTreeSet<usize>,
    last: BTreeMap<u64, usize>,
}

impl Owner {
    fn new() -> Self {
        Self {
            book: Book::new(|_| 1),
            read: 0,
            back: BTreeSet::new(),
            out: BTreeSet::new(),
            moves: VecDeque::new(),
            completed: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }
}

struct Model {
    disk: Disk,
    owner: Owner,
    now: Instant,
    wall: i64,
    successes: Vec<usize>,
}

impl Model {
    fn at(&self) -> Moment {
        at(self.now, self.wall)
    }

    fn key(&self, item: usize) -> Key {
        key(self.disk.deliveries[item])
    }

    fn arrived(&mut self, arrived: Arrived<usize>) {
        match arrived {
            Arrived::Go(item) => self.go(item),
            Arrived::Kept => {}
            Arrived::Behind(behind) => self.behind(behind),
            Arrived::Late(item) => panic!("{item} is late"),
        }
    }

    fn go(&mut self, item: usize) {
        let line = self.disk.deliveries[item];
        let together = self
            .owner
            .out
            .iter()
            .find(|other| self.disk.deliveries[**other] == line);
        assert_eq!(together, None, "two of one key at once");
        self.owner.out.insert(item);
    }

    fn behind(&mut self, behind: Behind<usize>) {
        let Behind { item, due_at, step } = behind;
        self.owner
            .moves
            .push_back((item, What::Defer(due_at), Some(step)));
    }

    fn read(&mut self) {
        let item = self.owner.read;
        if item >= self.disk.deliveries.len() {
            return;
        }
        self.owner.read += 1;
        if self.disk.completed.contains(&item) {
            return;
        }
        let place = (None, place(i64::try_from(item).unwrap()));
        let arrived = self
            .owner
            .book
            .arrive(&self.key(item), place, item, self.at());
        self.arrived(arrived);
    }

    fn read_back(&mut self, choice: usize) {
        let due: Vec<(usize, u64)> = self
            .disk
            .delayed
            .iter()
            .filter(|(item, (_, _, due))| !self.owner.back.contains(item) && *due <= self.wall)
            .map(|(item, (_, sequence, _))| (*item, *sequence))
            .collect();
        let Some((item, sequence)) = due.get(choice % due.len().max(1)).copied() else {
            return;
        };
        self.owner.back.insert(item);
        let place = (Some(sequence), place(1_000_000));
        let arrived = self
            .owner
            .book
            .arrive(&self.key(item), place, item, self.at());
        self.arrived(arrived);
    }

    fn attempt(&mut self, choice: usize, outcome: u8) {
        let out: Vec<usize> = self.owner.out.iter().copied().collect();
        let Some(item) = out.get(choice % out.len().max(1)).copied() else {
            return;
        };
        let key = self.key(item);
        if outcome >= 2 {
            // Successes of a key go up, but for what a crash has made uncertain.
            let last = self.owner.last.insert(key.hash, item);
            assert!(last.is_none_or(|last| last < item), "{item} after {last:?}");
            self.successes.push(item);
        }
        self.owner.out.remove(&item);
        match outcome {
            0 => {
                let due = self.wall + 60_000;
                let step = self.owner.book.deferred(&key, due);
                self.owner.moves.push_back((item, What::Defer(due), step));
                self.spill(&key);
            }
            1 => {
                let ending = self.owner.book.dead(&key);
                self.owner.moves.push_back((item, What::Dead, ending.step));
                self.next(ending.next);
            }
            _ => {
                let ending = self.owner.book.delivered(&key);
                match ending.step {
                    Some(step) => self.owner.moves.push_back((item, What::Done, Some(step))),
                    None => drop(self.owner.completed.insert(item)),
                }
                self.next(ending.next);
            }
        }
    }

    fn next(&mut self, next: Option<usize>) {
        if let Some(item) = next {
            self.go(item);
        }
    }

    fn spill(&mut self, key: &Key) {
        for behind in self.owner.book.spill(key, self.at()) {
            self.behind(behind);
        }
    }

    fn transact(&mut self, count: usize, refuse: bool) {
        if refuse
            && let Some((item, what, Some(step))) = self.owner.moves.front_mut()
            && matches!(what, What::Defer(_))
            && step.kind != StepKind::Ended
        {
            let (ended, next) = self.owner.book.refused(step);
            *what = What::Dead;
            *step = ended;
            let _ = item;
            self.next(next);
            return;
        }
        let taken: Vec<_> = (0..count)
            .filter_map(|_| self.owner.moves.pop_front())
            .collect();
        // A transaction's position covers everything completed in the topics that it touches.
        let touches =
            |(item, ..): &(usize, What, Option<Step>)| !self.disk.delayed.contains_key(item);
        if taken.iter().any(touches) {
            self.commit();
        }
        let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
        for (item, what, step) in &taken {
            let sequence = step.as_ref().map_or(0, |step| step.sequence);
            if let Some(step) = step.as_ref().filter(|step| step.sequence > 0) {
                let book = &self.owner.book;
                let block = blocks.entry(step.key.hash);
                block.or_insert_with(|| book.durable(&step.key)).apply(step);
            }
            match what {
                What::Defer(due) => {
                    self.owner.back.remove(item);
                    self.disk.delayed.insert(*item, (*item, sequence, *due));
                }
                What::Done => drop(self.disk.delayed.remove(item)),
                What::Dead => {
                    self.disk.delayed.remove(item);
                    self.disk.dead.insert(*item);
                }
            }
            self.disk.completed.insert(*item);
        }
        self.disk.blocks.extend(blocks);
        for (_, _, step) in taken {
            let next = step.and_then(|step| self.owner.book.committed(&step));
            self.next(next);
        }
    }

    fn commit(&mut self) {
        self.disk.completed.append(&mut self.owner.completed);
    }

    fn crash(&mut self) {
        self.owner = Owner::new();
        for (hash, block) in &self.disk.blocks {
            let key = Key {
                hash: *hash,
                ..key(0)
            };
            self.owner.book.load(key, block.clone());
        }
    }

    fn step(&mut self, (op, choice, outcome): (u8, usize, u8)) {
        match op {
            0..=3 => self.read(),
            4..=6 => self.read_back(choice),
            7..=12 => self.attempt(choice, outcome),
            13..=14 => self.transact(1 + choice % 4, outcome == 0 && choice == 0),
            15 => self.commit(),
            16 => self.wall += 20_000,
            17 => {
                let keys = self.owner.book.overdue(self.now);
                if let Some(key) = keys.get(choice % keys.len().max(1)).cloned() {
                    let at = self.at();
                    let book = &mut self.owner.book;
                    let spilled = match outcome {
                        0 | 1 => book.spill(&key, at),
                        2 | 3 => book.shed(&key, at),
                        _ => book.spill_overdue(&key, self.now, at),
                    };
                    for behind in spilled {
                        self.behind(behind);
                    }
                }
            }
            _ => self.crash(),
        }
    }

    /// Everything is delivered, and nothing is left blocked.
    fn settle(&mut self) {
        for round in 0..2_000 {
            let left = (0..self.disk.deliveries.len()).any(|item| {
                !self.disk.completed.contains(&item) || self.disk.delayed.contains_key(&item)
            });
            if !left {
                break;
            }
            assert!(round < 1_999, "never ends");
            self.wall += 30_000;
            for at in 0..4 {
                self.read();
                self.read_back(at);
                self.attempt(at, 9);
            }
            self.transact(4, false);
            self.commit();
        }
        assert!(
            self.disk.blocks.values().all(Block::is_free),
            "left blocked"
        );
        assert_eq!(self.owner.book.len(), 0, "lines are forgotten");
        assert_eq!(self.owner.book.kept, HashMap::new(), "nothing is kept");
        let mut last: BTreeMap<u64, usize> = BTreeMap::new();
        for (item, line) in self.disk.deliveries.iter().enumerate() {
            let ended = self.successes.contains(&item) || self.disk.dead.contains(&item);
            assert!(ended, "{item} is lost");
            if !self.disk.dead.contains(&item) {
                last.insert(*line, item);
            }
        }
        for (line, item) in last {
            let of_line = |at: &&usize| self.disk.deliveries[**at] == line;
            let latest = self.successes.iter().rev().find(of_line);
            assert!(latest >= Some(&item), "an older one of {line} came last");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    /// Whatever fails and whenever it crashes: in order within a key, nothing lost, no deadlock.
    #[test]
    fn order_survives_failures_refusals_and_crashes(
        lines in prop::collection::vec(0_u64..3, 1..14),
        steps in prop::collection::vec((0_u8..19, 0_usize..6, 0_u8..6), 0..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let _guard = runtime.enter();
        let disk = Disk { deliveries: lines, ..Disk::default() };
        let mut model = Model {
            disk,
            owner: Owner::new(),
            now: Instant::now(),
            wall: 1_000_000,
            successes: Vec::new(),
        };
        for step in steps {
            model.step(step);
        }
        model.settle();
    }
}
