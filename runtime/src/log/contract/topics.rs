//! Cases about topics: how they are made, where they begin and end, and what time says.

use super::Names;
use super::support::{create, numbered, read, record, within, write};
use crate::log::{Bounds, SharedLog};

/// Creating is idempotent, says what it made, and keeps the partition count.
pub async fn topics_are_created_once_and_described(log: &SharedLog, names: &Names) {
    let first = names.settings("first", 3);
    let second = names.settings("second", 1);
    assert_eq!(
        within("describe", log.describe_topic(&first.name))
            .await
            .unwrap(),
        None
    );
    create(log, &first).await;
    let both = [first.clone(), second.clone()];
    let made = within("create", log.create_topics(&both)).await.unwrap();
    assert_eq!(made, std::slice::from_ref(&second.name));
    let made = within("create", log.create_topics(&both)).await.unwrap();
    assert_eq!(made, []);
    for (settings, partitions) in [(first, 3), (second, 1)] {
        let shape = within("describe", log.describe_topic(&settings.name))
            .await
            .unwrap();
        assert_eq!(shape.unwrap().partitions, partitions);
    }
}

/// Nothing written: both bounds are 0.
pub async fn an_empty_partition_begins_and_ends_at_zero(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let bounds = within("bounds", log.bounds(&topic.partition(1)))
        .await
        .unwrap();
    assert_eq!(
        bounds,
        Bounds {
            start: 0,
            stable_end: 0
        }
    );
}

/// The stable end is behind the last record of its own partition alone.
pub async fn bounds_follow_what_is_written(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let offsets = write(log, names, numbered(&topic.partition(0), 0..3)).await;
    let bounds = within("bounds", log.bounds(&topic.partition(0)))
        .await
        .unwrap();
    assert_eq!(bounds.start, 0);
    assert_eq!(bounds.stable_end, offsets[2] + 1);
    let bounds = within("bounds", log.bounds(&topic.partition(1)))
        .await
        .unwrap();
    assert_eq!(
        bounds,
        Bounds {
            start: 0,
            stable_end: 0
        }
    );
}

/// The first offset at or after a time, as the stored timestamps have it.
pub async fn an_offset_is_found_by_time(log: &SharedLog, names: &Names) {
    for append_time in [false, true] {
        let part = if append_time { "append" } else { "create" };
        let mut settings = names.settings(part, 1);
        settings.append_time = append_time;
        let partition = create(log, &settings).await.partition(0);
        let found = within("offset", log.offset_at(&partition, 1))
            .await
            .unwrap();
        assert_eq!(found, None, "an empty partition");
        for number in 0..4 {
            write(log, names, vec![record(&partition, number.to_string())]).await;
        }
        let records = read(log, names, &partition, 4).await;
        let last = records.iter().map(|record| record.timestamp).max().unwrap();
        for at in [
            1,
            records[0].timestamp,
            records[2].timestamp,
            last,
            last + 1,
        ] {
            let expected = records.iter().find(|record| record.timestamp >= at);
            let found = within("offset", log.offset_at(&partition, at))
                .await
                .unwrap();
            assert_eq!(found, expected.map(|record| record.offset), "at {at}");
        }
    }
}
