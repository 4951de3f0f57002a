//! Owns the trail of one delivery: every place of the log where it lies, and what was committed of
//! those partitions, for a test that has to say what went wrong.
//!
//! It must never decide whether a test passes. The surprise: committed positions are read from
//! Kafka's own topic, which keeps the older ones for as long as a test lasts.

use schemas::ids::DeliveryId;
use schemas::records::DeliveryRecord;

use crate::topic::{Stored, attempts, read};

const TOPICS: [&str; 8] = [
    "deliveries",
    "delay.5s",
    "delay.30s",
    "delay.2m",
    "delay.10m",
    "delay.1h",
    "delay.6h",
    "delay.24h",
];

/// Every place and attempt of `delivery`, and the positions that were committed of the partitions
/// where it lies, each as a line that begins with its time.
///
/// # Panics
/// When the log cannot be read.
pub fn trail(brokers: &str, prefix: &str, delivery: &str) -> Vec<String> {
    let id: DeliveryId = delivery.parse().expect("a delivery's id");
    let (mut lines, mut partitions) = (Vec::new(), Vec::new());
    for topic in TOPICS {
        for stored in read(brokers, &format!("{prefix}{topic}")) {
            if let Some(line) = line_of(topic, &stored, id) {
                lines.push((stored.at, line));
                partitions.push((topic, stored.partition));
            }
        }
    }
    for attempt in attempts(brokers, prefix) {
        if attempt.delivery == id {
            lines.push((attempt.started_at, format!("{attempt:?}")));
        }
    }
    partitions.sort_unstable();
    partitions.dedup();
    for stored in read(brokers, "__consumer_offsets") {
        let found = committed(&stored, prefix)
            .filter(|of| partitions.contains(&(of.topic.as_str(), of.partition)));
        if let Some(of) = found {
            let line = format!("committed {of:?}");
            lines.push((stored.at, line));
        }
    }
    lines.sort();
    let line = |(at, line): (i64, String)| format!("{at}: {line}");
    lines.into_iter().map(line).collect()
}

fn line_of(topic: &str, stored: &Stored, id: DeliveryId) -> Option<String> {
    let headers = stored
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()));
    let record = DeliveryRecord::decode(headers, stored.value.as_ref()?).ok()?;
    let index = record
        .targets
        .iter()
        .position(|target| record.delivery_id(target) == id)?;
    let (partition, offset) = (stored.partition, stored.offset);
    let state = record.targets.get(index)?.state;
    Some(format!(
        "{topic}/{partition} at {offset}.{index} of {}, origin {:?}, {state:?}",
        record.targets.len(),
        record.origin
    ))
}

/// A position that a group committed.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "read as text, by whoever looks for what went wrong"
)]
struct Committed {
    group: String,
    topic: String,
    partition: i32,
    offset: i64,
    metadata: String,
}

/// What a record of `__consumer_offsets` says of a topic that begins with `prefix`.
fn committed(stored: &Stored, prefix: &str) -> Option<Committed> {
    let mut key = Bytes(stored.key.as_deref()?);
    let version = i16::from_be_bytes(key.take()?);
    // The others are about groups and their members.
    if version > 1 {
        return None;
    }
    let group = key.text()?;
    let topic = key.text()?.strip_prefix(prefix)?.to_owned();
    let partition = i32::from_be_bytes(key.take()?);
    let mut value = Bytes(stored.value.as_deref()?);
    let version = i16::from_be_bytes(value.take()?);
    let offset = i64::from_be_bytes(value.take()?);
    if version >= 3 {
        let _leader_epoch: [u8; 4] = value.take()?;
    }
    let metadata = if version >= 4 {
        value.compact_text()?
    } else {
        value.text()?
    };
    Some(Committed {
        group,
        topic,
        partition,
        offset,
        metadata,
    })
}

/// What is left of a record.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk::<N>()?;
        self.0 = left;
        Some(*taken)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(i16::from_be_bytes(self.take()?)).ok()?;
        self.text_of(length)
    }

    /// Of the newer versions: behind its length and one more, seven bits a byte.
    fn compact_text(&mut self) -> Option<String> {
        let mut length = 0_usize;
        for shift in (0..28).step_by(7) {
            let [byte] = self.take()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.text_of(length.checked_sub(1)?);
            }
        }
        None
    }

    fn text_of(&mut self, length: usize) -> Option<String> {
        let (taken, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        String::from_utf8(taken.to_vec()).ok()
    }
}
