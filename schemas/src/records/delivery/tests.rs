//! The record of `deliveries`: round trips, cut and changed bytes, and what a target costs.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::event::arbitrary;

/// What design asks of the values on `deliveries`: bytes a target and bytes a record.
const TARGET_BYTES_MAX: usize = 40;
const RECORD_BYTES_MAX: usize = 64;

fn state() -> impl Strategy<Value = AttemptState> {
    any::<(u32, u32, i64, u16)>().prop_map(|(attempts, hops, due_at, last_status)| AttemptState {
        attempts,
        hops,
        due_at,
        last_status,
    })
}

fn target() -> impl Strategy<Value = Target> {
    let options = (any::<bool>(), of(any::<u128>()), of(any::<(u64, u64)>()));
    (any::<(u128, u128)>(), options, of(state())).prop_map(
        |((subscription, endpoint), (report, bulk, order), state)| Target {
            subscription: SubscriptionId::from_bits(subscription),
            endpoint: EndpointId::from_bits(endpoint),
            report,
            bulk,
            order,
            state,
        },
    )
}

fn origin() -> impl Strategy<Value = Origin> {
    (".{0,12}", any::<u32>(), any::<i64>(), any::<u32>()).prop_map(
        |(topic, partition, offset, index)| Origin {
            topic: topic.into(),
            partition,
            offset,
            index,
        },
    )
}

pub(in crate::records) fn record() -> impl Strategy<Value = DeliveryRecord> {
    let numbers = (of(any::<i64>()), any::<i64>(), any::<i64>());
    (origin(), numbers, arbitrary::event(), vec(target(), 0..6)).prop_map(
        |(origin, (router_position, accepted_at, control_offset), event, targets)| DeliveryRecord {
            origin,
            router_position,
            accepted_at,
            control_offset,
            event,
            targets,
        },
    )
}

fn decode(of: &DeliveryRecord, value: &Bytes) -> Result<DeliveryRecord, Error> {
    let headers = of.headers();
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()));
    DeliveryRecord::decode(pairs, value)
}

/// A record of `targets` fresh targets with numbers as large as a busy installation has them.
fn large(targets: usize, payload: usize) -> DeliveryRecord {
    let event = Event::builder("1", "/s", "t").untyped_data(Bytes::from(vec![b'x'; payload]));
    let fresh = |id: usize| {
        let bits = u128::MAX - id as u128;
        Target::new(SubscriptionId::from_bits(bits), EndpointId::from_bits(bits))
    };
    DeliveryRecord {
        origin: Origin {
            topic: "anabranch.events.bulk".into(),
            partition: 9_999,
            offset: 1_000_000_000_000,
            index: 10_000,
        },
        router_position: Some(1_000_000_000_000 - 64_000),
        accepted_at: 4_102_444_800_000,
        control_offset: 10_000_000_000,
        event: event.build().unwrap(),
        targets: (0..targets).map(fresh).collect(),
    }
}

#[test]
fn a_target_costs_at_most_40_bytes_and_a_record_64() {
    let check = |targets: usize, payload: usize| {
        let record = large(targets, payload);
        let len = record.value_for(&record.targets).len();
        let bound = payload + TARGET_BYTES_MAX * targets + RECORD_BYTES_MAX;
        assert!(len <= bound, "{targets} targets: {len} > {bound}");
    };
    for targets in [0, 1, 2, 127, 128, MAX_TARGETS] {
        check(targets, 0);
        check(targets, 300);
    }
}

#[test]
fn a_record_holds_at_most_1000_targets() {
    // rule 2
    let full = large(MAX_TARGETS, 1);
    assert_eq!(decode(&full, &full.value_for(&full.targets)), Ok(full));
    let over = large(MAX_TARGETS + 1, 1);
    let value = over.value_for(&over.targets);
    assert_eq!(decode(&over, &value), Err(Error::Invalid("target count")));
}

#[test]
fn the_payload_shares_the_records_memory() {
    let record = large(3, 300);
    let value = record.value_for(&record.targets);
    let data = decode(&record, &value).unwrap().event.data().cloned();
    let data = data.unwrap();
    assert_eq!(data.as_ptr(), value[value.len() - 300..].as_ptr());
}

#[test]
fn what_no_version_writes_is_refused() {
    let record = large(1, 1);
    let good = record.value_for(&record.targets);
    let check = |at: usize, byte: u8, expected: Error| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        assert_eq!(decode(&record, &bytes.into()), Err(expected), "byte {at}");
    };
    check(0, 0, Error::Version(0));
    check(0, 2, Error::Version(2));
    check(1, 4, Error::Invalid("flags"));
    // Without data, what follows the targets is too much.
    check(1, 2, Error::Invalid("length"));
    check(3, 0xff, Error::Invalid("origin topic"));
    check(good.len() - 2, 0x10, Error::Invalid("target flags"));
    assert_eq!(decode(&record, &Bytes::new()), Err(Error::Short("version")));
    let headless = DeliveryRecord::decode(std::iter::empty(), &good);
    assert!(matches!(headless, Err(Error::Event(_))), "{headless:?}");
}

#[test]
fn delivery_ids_ignore_origin_targets_and_history() {
    // rule 4
    let record = large(2, 0);
    let target = &record.targets[0];
    let id = record.delivery_id(target);
    assert_eq!(id, DeliveryId::of("/s", "1", target.subscription));
    let retried = Target {
        endpoint: EndpointId::from_bits(1),
        report: true,
        bulk: Some(1),
        order: Some((1, 1)),
        state: Some(AttemptState::default()),
        ..target.clone()
    };
    let mut elsewhere = record.clone();
    elsewhere.origin.offset = 0;
    elsewhere.router_position = None;
    elsewhere.accepted_at = 0;
    assert_eq!(elsewhere.delivery_id(&retried), id);
    assert_ne!(record.delivery_id(&record.targets[1]), id);
}

#[test]
fn marks_ignore_what_a_rewind_changes() {
    // rule 3: a router that starts again writes with another position and control offset.
    let record = large(2, 0);
    let marks: Vec<_> = record.marks().collect();
    let mut again = record;
    again.router_position = None;
    again.control_offset += 1;
    again.accepted_at += 1;
    again.targets.reverse();
    again.targets[0].state = Some(AttemptState::default());
    let again: Vec<_> = again.marks().collect();
    assert_eq!(again, [marks[1], marks[0]]);
    assert_ne!(marks[0], marks[1]);
}

proptest! {
    #[test]
    fn any_record_comes_back(record in record()) {
        let value = record.value_for(&record.targets);
        prop_assert_eq!(decode(&record, &value).unwrap(), record);
    }

    #[test]
    fn a_value_can_be_written_for_some_of_the_targets(record in record(), split in 0_usize..6) {
        let some = record.targets.split_at(split.min(record.targets.len())).0;
        let decoded = decode(&record, &record.value_for(some)).unwrap();
        prop_assert_eq!(decoded, DeliveryRecord { targets: some.to_vec(), ..record });
    }

    #[test]
    fn a_cut_record_is_refused_unless_the_cut_is_in_the_payload(record in record()) {
        let value = record.value_for(&record.targets);
        let payload = record.event.data().map_or(0, Bytes::len);
        for len in 0..value.len() {
            let result = decode(&record, &value.slice(..len));
            prop_assert_eq!(result.is_ok(), len >= value.len() - payload, "cut at {}", len);
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        record in record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = record.value_for(&record.targets).to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Ok(read) = decode(&record, &bytes.into()) {
            let value = read.value_for(&read.targets);
            prop_assert_eq!(decode(&record, &value).unwrap(), read);
        }
    }

    #[test]
    fn changed_headers_never_panic(
        record in record(),
        at in any::<prop::sample::Index>(),
        name in "(ce_)?[a-z]{0,6}",
        bytes in vec(any::<u8>(), 0..12),
    ) {
        let value = record.value_for(&record.targets);
        let headers = record.headers();
        let mut pairs: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
            .collect();
        *at.get_mut(&mut pairs) = (&name, &bytes);
        match DeliveryRecord::decode(pairs.into_iter(), &value) {
            Ok(read) => prop_assert_eq!(read.targets, record.targets),
            Err(error) => prop_assert!(matches!(error, Error::Event(_)), "{error:?}"),
        }
    }
}

/// `valid` with the input's rest written over it at a place that the input's first byte names.
fn spliced(valid: &[u8], input: &[u8]) -> Vec<u8> {
    let Some((at, rest)) = input.split_first() else {
        return valid.to_vec();
    };
    let at = usize::from(*at) % valid.len();
    let end = (at + rest.len()).min(valid.len());
    [&valid[..at], rest, &valid[end..]].concat()
}

#[test]
fn fuzzed_values_never_panic() {
    let valid = large(2, 8);
    let written = valid.value_for(&valid.targets);
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            for value in [input.to_vec(), spliced(&written, input)] {
                if let Ok(read) = decode(&valid, &value.into()) {
                    let again = decode(&valid, &read.value_for(&read.targets));
                    assert_eq!(again.as_ref(), Ok(&read));
                }
            }
        });
}
