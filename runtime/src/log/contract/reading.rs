//! Cases about readers: where they start, what they say, and that nothing is lost on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Names;
use super::support::{Reading, create, numbered, record, text, texts, write};
use crate::log::{Fetched, SharedLog};

/// From an offset in the middle: that record is the first.
pub async fn a_reader_starts_where_it_is_told(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let offsets = write(log, names, numbered(&partition, 0..10)).await;
    let mut reading = Reading::open(log, names).await;
    let assignment = reading.reader.assign(partition.clone(), offsets[4]);
    let found = reading.until_end(assignment, 6).await;
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), texts(4..10));
    assert_eq!(found[0].offset, offsets[4]);
}

/// `End` comes on an empty partition, on a full one, at its very end, and again after more.
pub async fn the_end_is_told_after_assignment_and_after_more(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let (empty, full) = (topic.partition(0), topic.partition(1));
    let offsets = write(log, names, numbered(&full, 0..3)).await;
    let mut reading = Reading::open(log, names).await;
    let assignment = reading.reader.assign(empty.clone(), 0);
    assert!(reading.until_end(assignment, 0).await.is_empty());
    let assignment = reading.reader.assign(full.clone(), 0);
    assert_eq!(reading.until_end(assignment, 3).await.len(), 3);
    for number in 3..6 {
        write(log, names, numbered(&full, number..number + 1)).await;
        let found = reading.until_end(assignment, 1).await;
        assert_eq!(
            found.iter().map(text).collect::<Vec<_>>(),
            texts(number..number + 1)
        );
    }
    let at_end = reading.reader.assign(full, offsets[2] + 4);
    assert!(reading.until_end(at_end, 0).await.is_empty());
}

/// Whatever is fetched around a pause, the records are each handed over once.
pub async fn pause_and_resume_lose_and_repeat_nothing(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let (partition, other) = (topic.partition(0), topic.partition(1));
    write(log, names, numbered(&partition, 0..500)).await;
    let mut reading = Reading::with(log, names, 4 << 10, 1 << 10).await;
    let assignment = reading.reader.assign(partition.clone(), 0);
    let mut found = Vec::new();
    for round in 0..5 {
        if let Fetched::Records(of, batch) = reading.next().await {
            assert_eq!(of, assignment);
            found.extend(batch.records.iter().map(text));
        }
        reading.reader.pause(partition.clone());
        if round == 2 {
            write(log, names, numbered(&partition, 500..600)).await;
            // A paused partition holds up no other.
            write(log, names, numbered(&other, 0..1)).await;
            let aside = reading.reader.assign(other.clone(), 0);
            loop {
                match reading.next().await {
                    Fetched::Records(of, _) if of == aside => break,
                    Fetched::Records(_, batch) => found.extend(batch.records.iter().map(text)),
                    Fetched::End(..) => {}
                    bad @ (Fetched::OutOfRange(..) | Fetched::Failed(..)) => panic!("{bad:?}"),
                }
            }
            reading.reader.unassign(other.clone());
        }
        reading.reader.resume(partition.clone());
    }
    while found.len() < 600 {
        if let Fetched::Records(of, batch) = reading.next().await {
            assert_eq!(of, assignment);
            found.extend(batch.records.iter().map(text));
        }
    }
    assert_eq!(found, texts(0..600));
}

/// What was on its way for an old assignment cannot be taken for the new one's.
pub async fn a_new_assignment_has_a_new_number(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let offsets = write(log, names, numbered(&partition, 0..20)).await;
    let mut reading = Reading::open(log, names).await;
    let mut last = None;
    for (round, offset) in offsets.iter().take(5).enumerate() {
        let assignment = reading.reader.assign(partition.clone(), *offset);
        assert!(last < Some(assignment), "assignment numbers do not grow");
        last = Some(assignment);
        if round % 2 == 0 {
            reading.reader.unassign(partition.clone());
        }
    }
    // Assigned without an unassign before: the newest counts.
    let assignment = reading.reader.assign(partition.clone(), offsets[7]);
    let found = reading.until_end(assignment, 13).await;
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), texts(7..20));
}

/// Beyond either end is out of range, never a silent jump; a new assignment reads on.
pub async fn an_offset_outside_the_log_is_out_of_range(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    write(log, names, numbered(&partition, 0..3)).await;
    let mut reading = Reading::open(log, names).await;
    for outside in [1_000, -1, -2] {
        let assignment = reading.reader.assign(partition.clone(), outside);
        loop {
            match reading.next().await {
                Fetched::OutOfRange(of, at) if of == assignment => {
                    assert_eq!(at, partition);
                    break;
                }
                Fetched::Records(of, _) | Fetched::End(of, _) => {
                    assert!(of < assignment, "{outside} was read");
                }
                found @ (Fetched::OutOfRange(..) | Fetched::Failed(..)) => panic!("{found:?}"),
            }
        }
    }
    let assignment = reading.reader.assign(partition, 0);
    assert_eq!(reading.until_end(assignment, 3).await.len(), 3);
}

/// Rule 8: a reader that is drained late holds its budget and loses nothing.
pub async fn a_small_queue_still_carries_everything(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    for number in 0..2 {
        write(log, names, numbered(&topic.partition(number), 0..1_000)).await;
    }
    let mut reading = Reading::with(log, names, 2 << 10, 512).await;
    for number in 0..2 {
        reading.reader.assign(topic.partition(number), 0);
    }
    let mut found = [Vec::new(), Vec::new()];
    while found.iter().map(Vec::len).sum::<usize>() < 2_000 {
        if let Fetched::Records(_, batch) = reading.next().await {
            let into = &mut found[usize::try_from(batch.partition.number).unwrap()];
            into.extend(batch.records.iter().map(text));
        }
    }
    assert_eq!(found, [texts(0..1_000), texts(0..1_000)]);
}

/// One record larger than a batch, and than the whole queue, is still handed over.
pub async fn a_record_larger_than_a_batch_arrives(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut records = numbered(&partition, 0..2);
    records.push(record(&partition, vec![b'x'; 1 << 20]));
    records.extend(numbered(&partition, 3..5));
    write(log, names, records).await;
    let mut reading = Reading::with(log, names, 64 << 10, 16 << 10).await;
    let assignment = reading.reader.assign(partition, 0);
    let found = reading.until_end(assignment, 5).await;
    let sizes: Vec<_> = found.iter().map(|record| text(record).len()).collect();
    assert_eq!(sizes, [1, 1, 1 << 20, 1, 1]);
}

/// Waiting long at the end is no reason to stop.
pub async fn a_reader_that_was_idle_gets_new_records(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut reading = Reading::open(log, names).await;
    let assignment = reading.reader.assign(partition.clone(), 0);
    assert!(reading.until_end(assignment, 0).await.is_empty());
    // The idle time is what is tested; nothing waits for it to be long enough.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    write(log, names, numbered(&partition, 0..1)).await;
    assert_eq!(reading.until_end(assignment, 1).await.len(), 1);
}

/// Readers have nothing in common.
pub async fn two_readers_read_the_same(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut one = Reading::open(log, names).await;
    let mut two = Reading::open(log, names).await;
    let of_one = one.reader.assign(partition.clone(), 0);
    let of_two = two.reader.assign(partition.clone(), 0);
    write(log, names, numbered(&partition, 0..100)).await;
    for (reading, assignment) in [(&mut one, of_one), (&mut two, of_two)] {
        let found = reading.until_end(assignment, 100).await;
        assert_eq!(found.iter().map(text).collect::<Vec<_>>(), texts(0..100));
    }
}

/// A dispatcher reads its partitions of every delay tier at once.
pub async fn two_hundred_partitions_are_read_at_once(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 200)).await;
    let mut reading = Reading::open(log, names).await;
    let mut open = BTreeMap::new();
    for number in 0..200 {
        open.insert(reading.reader.assign(topic.partition(number), 0), number);
    }
    let records = (0..200)
        .map(|number| record(&topic.partition(number), number.to_string()))
        .collect();
    write(log, names, records).await;
    while !open.is_empty() {
        if let Fetched::Records(of, batch) = reading.next().await {
            let number = open
                .remove(&of)
                .expect("records of an assignment come once");
            assert_eq!(batch.partition, topic.partition(number));
            assert_eq!(
                batch.records.iter().map(text).collect::<Vec<_>>(),
                [number.to_string()]
            );
        }
    }
}
