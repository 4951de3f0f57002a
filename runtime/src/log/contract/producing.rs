//! Cases about producers: order, keys, what a record carries, refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Names;
use super::support::{create, numbered, producer, read, read_texts, record, texts, within, write};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::log::{
    Acknowledge, Headers, NotWritten, ProducerOptions, Record, SharedLog, StoredRecord,
};

/// Many sends without waiting: order per partition, and each ack is the offset read.
pub async fn records_keep_their_order_and_acks_name_their_offsets(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let producer = producer(log, names).await;
    let mut waiting = Vec::new();
    for chunk in 0..20 {
        let numbers = chunk * 25..(chunk + 1) * 25;
        let mut records = numbered(&topic.partition(0), numbers.clone());
        records.extend(numbered(&topic.partition(1), numbers));
        waiting.push(within("send", producer.send(records)).await);
    }
    let mut acked = [Vec::new(), Vec::new()];
    for acks in waiting {
        let offsets = within("acks", acks.wait()).await;
        assert_eq!(offsets.len(), 50);
        for (index, offset) in offsets.into_iter().enumerate() {
            acked[index / 25].push(offset.unwrap());
        }
    }
    for (number, acked) in (0..).zip(acked) {
        let records = read(log, names, &topic.partition(number), 500).await;
        assert_eq!(
            records.iter().map(super::support::text).collect::<Vec<_>>(),
            texts(0..500)
        );
        assert_eq!(
            records
                .iter()
                .map(|record| record.offset)
                .collect::<Vec<_>>(),
            acked
        );
    }
}

/// Rule 3 and 5 need placement to be stable: one key, one partition, whoever writes.
pub async fn a_key_always_lands_in_one_partition(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 4)).await;
    let keyed = |round: u32| {
        let record = move |key: u32| Record {
            topic: names.topic("topic"),
            partition: None,
            key: Some(Bytes::from(format!("key-{key}"))),
            value: Some(Bytes::from(round.to_string())),
            headers: Headers::default(),
        };
        (0..40).map(record).collect::<Vec<_>>()
    };
    for round in 0..3 {
        write(log, names, keyed(round)).await;
    }
    let mut homes: BTreeMap<Bytes, Vec<(u32, String)>> = BTreeMap::new();
    for number in 0..4 {
        let partition = topic.partition(number);
        let end = within("bounds", log.bounds(&partition))
            .await
            .unwrap()
            .stable_end;
        let count = usize::from(end > 0);
        for record in read(log, names, &partition, count).await {
            let text = super::support::text(&record);
            homes
                .entry(record.key.unwrap())
                .or_default()
                .push((number, text));
        }
    }
    assert_eq!(homes.len(), 40);
    let used: std::collections::BTreeSet<u32> = homes.values().map(|rounds| rounds[0].0).collect();
    assert!(used.len() > 1, "forty keys in one of four partitions");
    for (key, rounds) in homes {
        let home = rounds[0].0;
        let expected: Vec<_> = (0..3).map(|round: u32| (home, round.to_string())).collect();
        assert_eq!(rounds, expected, "{key:?}");
    }
}

/// Null and empty are different things; headers repeat, are binary and keep their order.
pub async fn keys_values_headers_and_times_come_back(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let headers: Headers = [
        ("a", &b"1"[..]),
        ("ce_type", b"x.y"),
        ("a", b""),
        ("b", b"\x00\xff\xfe"),
    ]
    .into_iter()
    .collect();
    let bare = Headers::default();
    let binary = Bytes::from_static(b"\x00\xff\x80");
    let cases = [
        (
            Some(Bytes::from_static(b"key")),
            Some(binary.clone()),
            headers.clone(),
        ),
        (None, Some(Bytes::from_static(b"v")), bare.clone()),
        (Some(binary), None, headers),
        (Some(Bytes::new()), Some(Bytes::new()), bare),
    ];
    let records = cases.iter().map(|(key, value, headers)| Record {
        topic: partition.topic.clone(),
        partition: Some(0),
        key: key.clone(),
        value: value.clone(),
        headers: headers.clone(),
    });
    write(log, names, records.collect()).await;
    let found: Vec<StoredRecord> = read(log, names, &partition, cases.len()).await;
    assert_eq!(found.len(), cases.len());
    for (record, (key, value, headers)) in found.iter().zip(&cases) {
        assert_eq!((&record.key, &record.value), (key, value));
        assert_eq!(record.headers, *headers);
        assert!(record.timestamp > 0, "a record without a time");
    }
}

/// What can never be written is named; its neighbours are written.
pub async fn a_record_that_is_too_large_harms_no_other(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let producer = producer(log, names).await;
    let records = vec![
        record(&partition, "0"),
        record(&partition, vec![7; MAX_RECORD_BYTES + 1]),
        record(&partition, "1"),
    ];
    let acks = within("send", producer.send(records)).await;
    let reports = within("acks", acks.wait()).await;
    assert!(reports[0].is_ok() && reports[2].is_ok(), "{reports:?}");
    assert_eq!(reports[1], Err(NotWritten::TooLarge));
    let acks = within("send", producer.send(numbered(&partition, 2..4))).await;
    assert!(within("acks", acks.wait()).await.iter().all(Result::is_ok));
    assert_eq!(read_texts(log, names, &partition, 4).await, texts(0..4));
}

/// A partition beyond the topic's count is refused for ever.
pub async fn a_partition_that_does_not_exist_is_invalid(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let producer = producer(log, names).await;
    let records = vec![
        record(&topic.partition(9), "lost"),
        record(&topic.partition(1), "0"),
    ];
    let acks = within("send", producer.send(records)).await;
    let reports = within("acks", acks.wait()).await;
    assert_eq!(reports[0], Err(NotWritten::Invalid));
    assert!(reports[1].is_ok(), "{reports:?}");
    assert_eq!(
        read_texts(log, names, &topic.partition(1), 1).await,
        texts(0..1)
    );
}

/// Rule 8: a producer holds no more than its budget, and gives back what does not fit.
pub async fn try_send_takes_all_or_gives_all_back(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut options = ProducerOptions::named(names.name("producer"));
    options.buffer_bytes = 256 << 10;
    let producer = within("open producer", log.producer(options))
        .await
        .unwrap();
    let mut taken = Vec::new();
    for number in 0..64_u8 {
        // Together 4 MiB, sixteen times the budget.
        let records = vec![record(&partition, vec![number; 64 << 10])];
        match producer.try_send(records) {
            Ok(acks) => taken.push((number, acks)),
            Err(back) => {
                assert_eq!(back.len(), 1);
                assert_eq!(back[0].value.as_ref().unwrap()[0], number);
                let acks = within("send when full", producer.send(back)).await;
                taken.push((number, acks));
            }
        }
    }
    for (number, acks) in taken {
        let reports = within("acks", acks.wait()).await;
        assert!(reports.iter().all(Result::is_ok), "{number}: {reports:?}");
    }
    let found = read(log, names, &partition, 64).await;
    let numbers: Vec<u8> = found
        .iter()
        .map(|found| found.value.as_ref().unwrap()[0])
        .collect();
    assert_eq!(numbers, (0..64).collect::<Vec<u8>>());
}

/// After a purge every report has come (rule 3: an unknown outcome, never produced again by
/// itself), and nothing more is written.
pub async fn a_purged_producer_reports_everything_and_takes_nothing(
    log: &SharedLog,
    names: &Names,
) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut options = ProducerOptions::named(names.name("purged"));
    options.linger = Duration::from_secs(2);
    let purged = within("open producer", log.producer(options))
        .await
        .unwrap();
    let acks = within("send", purged.send(numbered(&partition, 0..100))).await;
    purged.purge();
    let reports = within("acks", acks.wait()).await;
    let written = reports.iter().take_while(|report| report.is_ok()).count();
    assert!(
        reports[written..]
            .iter()
            .all(|report| *report == Err(NotWritten::Unknown))
    );
    let acks = within("send", purged.send(vec![record(&partition, "late")])).await;
    assert_eq!(
        within("acks", acks.wait()).await,
        [Err(NotWritten::Unknown)]
    );
    write(log, names, vec![record(&partition, "after")]).await;
    let mut found = read_texts(log, names, &partition, written + 1).await;
    assert_eq!(found.pop().as_deref(), Some("after"));
    assert!(found.len() >= written, "an acknowledged record is missing");
    assert_eq!(found, texts(0..100)[..found.len()]);
}

/// The weaker acknowledgement gives up durability for a moment, never order.
pub async fn ordered_acknowledgements_keep_order(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut options = ProducerOptions::named(names.name("ordered"));
    options.acknowledge = Acknowledge::Ordered;
    options.gapless = true;
    let ordered = within("open producer", log.producer(options))
        .await
        .unwrap();
    let mut last = -1;
    for number in 0..50 {
        let acks = within(
            "send",
            ordered.send(numbered(&partition, number..number + 1)),
        )
        .await;
        let [offset] = <[_; 1]>::try_from(within("acks", acks.wait()).await).unwrap();
        assert!(offset.unwrap() > last);
        last = offset.unwrap();
    }
    assert_eq!(read_texts(log, names, &partition, 50).await, texts(0..50));
}
