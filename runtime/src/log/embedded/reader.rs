//! Owns the reading of many partitions into one bounded channel, on a thread of the reader's own:
//! recent records come from memory, older ones from the store.
//!
//! It must never read ahead of what its queue may hold, and one partition must not starve another:
//! they take turns, a batch each. The surprise: a reader at the end costs nothing; the writer marks
//! the partition and wakes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use tokio::sync::mpsc;

use super::Shared;
use super::slots::{Look, Slot, Wake};
use super::store::{SlotId, failed};
use crate::log::{
    Assignment, Batch, Class, Error, Fetched, Partition, Reader, ReaderOptions, StoredRecord,
};

/// The messages a queue may hold, however small.
const QUEUE_MESSAGES: usize = 256;

/// What a reader is told, in order.
#[derive(Debug)]
pub(super) enum Order {
    Assign(Assignment, Partition, i64),
    Unassign(Partition),
    Pause(Partition),
    Resume(Partition),
}

/// Tells the reader's thread; the thread ends with this handle or with the receiver.
#[derive(Debug)]
pub(super) struct EmbeddedReader {
    orders: mpsc::UnboundedSender<Order>,
    assignments: AtomicU64,
}

impl EmbeddedReader {
    /// The handle, and where its orders arrive.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        (
            Self {
                orders,
                assignments: AtomicU64::new(0),
            },
            receiver,
        )
    }

    fn tell(&self, order: Order) {
        // A thread that is gone has no receiver to disappoint.
        drop(self.orders.send(order));
    }
}

impl Reader for EmbeddedReader {
    fn assign(&self, partition: Partition, offset: i64) -> Assignment {
        let assignment = Assignment(self.assignments.fetch_add(1, Ordering::Relaxed) + 1);
        self.tell(Order::Assign(assignment, partition, offset));
        assignment
    }

    fn unassign(&self, partition: Partition) {
        self.tell(Order::Unassign(partition));
    }

    fn pause(&self, partition: Partition) {
        self.tell(Order::Pause(partition));
    }

    fn resume(&self, partition: Partition) {
        self.tell(Order::Resume(partition));
    }
}

struct Assigned {
    assignment: Assignment,
    slot: Arc<Slot>,
    next: i64,
    paused: bool,
    /// Whether it waits for its turn.
    queued: bool,
    /// Whether the end was told and nothing after it.
    told_end: bool,
}

/// The thread's own state.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    batch_bytes: usize,
    assigned: HashMap<SlotId, Assigned>,
    /// Assigned before the topic was made.
    missing: HashMap<Partition, (Assignment, i64)>,
    turns: VecDeque<SlotId>,
    queue: Queue,
}

impl Fetcher {
    /// A reader with nothing assigned.
    pub(super) fn new(
        shared: Arc<Shared>,
        options: &ReaderOptions,
    ) -> (Self, mpsc::Receiver<Fetched>) {
        let wake = Arc::<Wake>::default();
        shared.topics.watch(&wake);
        let (queue, receiver) = Queue::new(options.queue_bytes);
        let fetcher = Self {
            shared,
            wake,
            batch_bytes: options.batch_bytes.min(options.queue_bytes).max(1),
            assigned: HashMap::new(),
            missing: HashMap::new(),
            turns: VecDeque::new(),
            queue,
        };
        (fetcher, receiver)
    }

    /// Works until the handle or the receiver is gone.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let wake = Arc::clone(&self.wake);
        let receiver = self.queue.sender.clone();
        loop {
            let busy = !self.turns.is_empty();
            let room = self.batch_bytes;
            // cancel-safe: nothing is taken before a branch is chosen; marks stay with the wake.
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => break,
                },
                () = wake.wait(), if !busy => self.woken(),
                open = self.queue.room(room), if busy => {
                    if !open {
                        break;
                    }
                    self.woken();
                    self.turn();
                }
                () = receiver.closed(), if !busy => break,
            }
        }
        for assigned in self.assigned.values() {
            assigned.slot.unwatch(&self.wake);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Assign(assignment, partition, offset) => {
                self.unassign(&partition);
                self.assign(assignment, partition, offset);
            }
            Order::Unassign(partition) => self.unassign(&partition),
            Order::Pause(partition) => {
                if let Some(assigned) = self.find(&partition) {
                    assigned.paused = true;
                }
            }
            Order::Resume(partition) => {
                if let Some(assigned) = self.find(&partition) {
                    assigned.paused = false;
                    let id = assigned.slot.id;
                    self.queue_turn(id);
                }
            }
        }
    }

    fn find(&mut self, partition: &Partition) -> Option<&mut Assigned> {
        let slot = self.shared.topics.slot(partition)?;
        self.assigned.get_mut(&slot.id)
    }

    fn assign(&mut self, assignment: Assignment, partition: Partition, offset: i64) {
        let Some(slot) = self.shared.topics.slot(&partition) else {
            let error = Error::new(Class::Retry, &partition, "no such partition yet");
            self.queue
                .push(0, Fetched::Failed(Some(partition.clone()), error));
            self.missing.insert(partition, (assignment, offset));
            return;
        };
        slot.watch(&self.wake);
        let id = slot.id;
        let assigned = Assigned {
            assignment,
            slot,
            next: offset,
            paused: false,
            queued: false,
            told_end: false,
        };
        self.assigned.insert(id, assigned);
        self.queue_turn(id);
    }

    fn unassign(&mut self, partition: &Partition) {
        self.missing.remove(partition);
        let Some(slot) = self.shared.topics.slot(partition) else {
            return;
        };
        if self.assigned.remove(&slot.id).is_some() {
            slot.unwatch(&self.wake);
            self.turns.retain(|id| *id != slot.id);
        }
    }

    fn queue_turn(&mut self, id: SlotId) {
        if let Some(assigned) = self.assigned.get_mut(&id)
            && !assigned.queued
            && !assigned.paused
        {
            assigned.queued = true;
            self.turns.push_back(id);
        }
    }

    fn woken(&mut self) {
        for id in self.wake.take() {
            self.queue_turn(id);
        }
        if !self.missing.is_empty() {
            for (partition, (assignment, offset)) in std::mem::take(&mut self.missing) {
                if self.shared.topics.slot(&partition).is_some() {
                    self.assign(assignment, partition, offset);
                } else {
                    self.missing.insert(partition, (assignment, offset));
                }
            }
        }
    }

    /// One batch of the partition whose turn it is.
    fn turn(&mut self) {
        let Some(id) = self.turns.pop_front() else {
            return;
        };
        let Some(assigned) = self.assigned.get_mut(&id) else {
            return;
        };
        assigned.queued = false;
        if assigned.paused {
            return;
        }
        let partition = assigned.slot.partition.clone();
        match fetch(
            &self.shared,
            &assigned.slot,
            assigned.next,
            self.batch_bytes,
        ) {
            Ok(Found::Records(records, next)) => {
                assigned.next = next;
                assigned.told_end = false;
                let bytes = records.iter().map(StoredRecord::len_bytes).sum();
                let batch = Batch { partition, records };
                self.queue
                    .push(bytes, Fetched::Records(assigned.assignment, batch));
                self.queue_turn(id);
            }
            Ok(Found::Nothing(next)) => {
                assigned.next = next;
                self.queue_turn(id);
            }
            Ok(Found::End) => {
                if !assigned.told_end {
                    assigned.told_end = true;
                    self.queue
                        .push(0, Fetched::End(assigned.assignment, partition));
                }
            }
            Ok(Found::Outside) => {
                let assignment = assigned.assignment;
                self.unassign(&partition);
                self.queue
                    .push(0, Fetched::OutOfRange(assignment, partition));
            }
            // Tried again when the next record comes, or it is assigned anew.
            Err(error) => self.queue.push(0, Fetched::Failed(Some(partition), error)),
        }
    }
}

enum Found {
    /// Records, and where to go on.
    Records(Vec<StoredRecord>, i64),
    /// Nothing is left of what was here; go on there.
    Nothing(i64),
    End,
    Outside,
}

/// The records of `slot` from `next` on, of about `room` bytes.
fn fetch(shared: &Shared, slot: &Slot, next: i64, room: usize) -> Result<Found, Error> {
    let mut records = Vec::new();
    let mut left = room;
    let end = match slot.look(next, room) {
        (Look::Outside, _) => return Ok(Found::Outside),
        (Look::End, _) => return Ok(Found::End),
        (Look::Blocks(blocks), end) => {
            for block in blocks {
                if !block
                    .read(next, end, &mut left, &mut records)
                    .map_err(failed)?
                {
                    break;
                }
            }
            end
        }
        (Look::Stored, end) => {
            let first = shared
                .store
                .block_at(slot.id, next)?
                .map_or(next, |block| block.base);
            for block in shared.store.blocks_from(slot.id, first) {
                let block = block?;
                let whole = block
                    .read(next, end, &mut left, &mut records)
                    .map_err(failed)?;
                if !whole || left == 0 || block.end() >= end {
                    break;
                }
            }
            // Retention may have taken the first of them between the look and the read.
            if slot.bounds().start > next {
                return Ok(Found::Outside);
            }
            end
        }
    };
    match records.last() {
        Some(last) => {
            let next = last.offset.saturating_add(1);
            Ok(Found::Records(records, next))
        }
        // Compacted away to the end as it was.
        None => Ok(Found::Nothing(end)),
    }
}

/// The channel to the service, bounded by the bytes in it.
struct Queue {
    sender: mpsc::Sender<Fetched>,
    /// The bytes of the last messages, as many as may not have been taken.
    sizes: VecDeque<usize>,
    bytes: usize,
    most: usize,
    /// What did not fit: told as soon as it does.
    late: VecDeque<(usize, Fetched)>,
}

impl Queue {
    fn new(most: usize) -> (Self, mpsc::Receiver<Fetched>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
        let queue = Self {
            sender,
            sizes: VecDeque::new(),
            bytes: 0,
            most,
            late: VecDeque::new(),
        };
        (queue, receiver)
    }

    fn settle(&mut self) {
        let waiting = self
            .sender
            .max_capacity()
            .saturating_sub(self.sender.capacity());
        while self.sizes.len() > waiting {
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
    }

    /// Waits until `bytes` more may be put in, or it is empty. Whether the receiver is there.
    /// cancel-safe: only waits.
    async fn room(&mut self, bytes: usize) -> bool {
        loop {
            self.flush();
            self.settle();
            if self.sender.is_closed() {
                return false;
            }
            let full = self.bytes > 0 && self.bytes.saturating_add(bytes) > self.most;
            let crowded = self.sender.capacity() == 0;
            if self.late.is_empty() && !full && !crowded {
                return true;
            }
            // How many of the oldest must be taken: then that many more places are free.
            let mut free = self.bytes.saturating_add(bytes).saturating_sub(self.most);
            let mut taken = 0;
            for size in &self.sizes {
                if free == 0 {
                    break;
                }
                free = free.saturating_sub(*size);
                taken += 1;
            }
            let places = (self.sender.capacity() + taken.max(1)).min(self.sender.max_capacity());
            if self.sender.reserve_many(places).await.is_err() {
                return false;
            }
        }
    }

    fn push(&mut self, bytes: usize, message: Fetched) {
        self.late.push_back((bytes, message));
        self.flush();
    }

    fn flush(&mut self) {
        while let Some((bytes, message)) = self.late.pop_front() {
            self.settle();
            match self.sender.try_send(message) {
                Ok(()) => {
                    self.sizes.push_back(bytes);
                    self.bytes += bytes;
                }
                Err(mpsc::error::TrySendError::Full(message)) => {
                    self.late.push_front((bytes, message));
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.late.clear(),
            }
        }
    }
}
