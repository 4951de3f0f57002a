//! Owns the way between our partitions and positions and librdkafka's lists of them.
//!
//! It must never invent an offset: what is not a plain offset becomes `None`.

use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::log::{Committed, Partition, Position, TopicName};

/// A partition number as librdkafka wants it; one beyond its range exists nowhere.
pub(super) fn number(partition: &Partition) -> i32 {
    i32::try_from(partition.number).unwrap_or(i32::MAX)
}

/// A partition as librdkafka names it; `None` for its placeholder numbers.
pub(super) fn partition(topic: &str, number: i32) -> Option<Partition> {
    Some(TopicName::new(topic).partition(u32::try_from(number).ok()?))
}

/// The partitions in `list`.
pub(super) fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements()
        .iter()
        .filter_map(|element| partition(element.topic(), element.partition()))
        .collect()
}

/// A list of `partitions`, each at `offset`.
pub(super) fn at<'p>(
    partitions: impl IntoIterator<Item = &'p Partition>,
    offset: Offset,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(partition.topic.as_str(), number(partition))
            .set_offset(offset)?;
    }
    Ok(list)
}

/// A list of `positions` to commit, metadata included.
pub(super) fn to_commit(positions: &[Position]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(positions.len().max(1));
    for position in positions {
        let partition = &position.partition;
        let mut element = list.add_partition(partition.topic.as_str(), number(partition));
        element.set_offset(Offset::Offset(position.offset))?;
        if !position.metadata.is_empty() {
            element.set_metadata(&position.metadata);
        }
    }
    Ok(list)
}

/// What was committed, by `list`, for each of `partitions`.
pub(super) fn committed(
    list: &TopicPartitionList,
    partitions: &[Partition],
) -> Vec<(Partition, Option<Committed>)> {
    let find = |partition: &Partition| {
        let element = list.find_partition(partition.topic.as_str(), number(partition))?;
        let offset = plain(element.offset())?;
        Some(Committed {
            offset,
            metadata: element.metadata().to_owned(),
        })
    };
    partitions
        .iter()
        .map(|partition| (partition.clone(), find(partition)))
        .collect()
}

/// The plain offset for `partition` in `list`.
pub(super) fn offset_of(list: &TopicPartitionList, partition: &Partition) -> Option<i64> {
    plain(
        list.find_partition(partition.topic.as_str(), number(partition))?
            .offset(),
    )
}

/// The first error that `list` carries for one of its partitions.
pub(super) fn first_error(list: &TopicPartitionList) -> Option<KafkaError> {
    list.elements()
        .iter()
        .find_map(|element| element.error().err())
}

fn plain(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        Offset::Beginning
        | Offset::End
        | Offset::Stored
        | Offset::Invalid
        | Offset::OffsetTail(_) => None,
    }
}
