use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::doubles::{Faulty, all};
use crate::{Error, Progress, Store};

type Model = BTreeMap<Vec<u8>, (u8, u64, Vec<u8>)>;

fn write(store: &Store, entries: &Model) -> RunManifest {
    let mut sink = PartSink::new(store.clone());
    let mut builder = BlockBuilder::default();
    for (id, (tag, hash, body)) in entries {
        builder.push(&Entry {
            id,
            tag: *tag,
            hash: *hash,
            body,
        });
        if builder.is_full() {
            sink.block(&builder.take()).unwrap();
        }
    }
    if !builder.is_empty() {
        sink.block(&builder.take()).unwrap();
    }
    sink.finish().unwrap()
}

fn read(mut merge: Merge) -> Result<Model, Error> {
    let mut found = Model::new();
    while merge.advance()? {
        let entry = merge.entry().unwrap();
        let value = (entry.tag, entry.hash, entry.body.to_vec());
        assert!(
            found.insert(entry.id.to_vec(), value).is_none(),
            "an id came twice"
        );
    }
    Ok(found)
}

fn model() -> impl Strategy<Value = Model> {
    let id = prop::collection::vec(0x20..0x24u8, 1..5);
    let tag = prop_oneof![Just(0u8), Just(1), Just(TAG_GONE)];
    let body = prop::collection::vec(any::<u8>(), 0..20);
    prop::collection::btree_map(id, (tag, any::<u64>(), body), 0..40)
}

proptest! {
    #[test]
    fn the_newest_run_hides_the_older(runs in prop::collection::vec(model(), 0..9), gone: bool) {
        let store = Faulty::new().store();
        let readers = runs.iter().map(|run| write(&store, run).reader(&store)).collect();
        let mut merge = Merge::new(readers);
        if gone {
            merge = merge.keeping_gone();
        }
        let mut expected = Model::new();
        for run in runs.iter().rev() {
            expected.extend(run.clone());
        }
        expected.retain(|_, (tag, ..)| gone || *tag != TAG_GONE);
        prop_assert_eq!(read(merge).unwrap(), expected);
    }
}

/// Enough entries for several blocks and, with little to compress, several pieces.
fn large() -> Model {
    let body = |number: u64| (0..40u64).map(move |at| ((number * at) >> 3).to_le_bytes()[0]);
    (0..5_000u64)
        .map(|number| {
            (
                format!("member-{number:07}").into_bytes(),
                (0, number, body(number).collect()),
            )
        })
        .collect()
}

#[test]
fn a_run_of_many_blocks_reads_as_it_was_written() {
    let store = Faulty::new().store();
    let run = write(&store, &large());
    assert_eq!(run.entries(), 5_000);
    assert_eq!(read(Merge::new(vec![run.reader(&store)])).unwrap(), large());
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let store = Faulty::new().store();
    let run = write(&store, &large());
    let name = run.parts[0].name.clone();
    let whole = store.get(&name).unwrap().to_vec();
    for at in (0..whole.len()).step_by(1_009).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        store.put(&name, changed).unwrap();
        let found = read(Merge::new(vec![run.reader(&store)]));
        assert!(
            matches!(found, Err(Error::Damaged { .. })),
            "byte {at}: {found:?}"
        );
    }
}

#[test]
fn a_part_that_is_cut_off_or_missing_is_found() {
    let store = Faulty::new().store();
    let run = write(&store, &large());
    let name = run.parts[0].name.clone();
    let whole = store.get(&name).unwrap().to_vec();
    for length in [0, 1, 23, 24, whole.len() / 2, whole.len() - 1] {
        store.put(&name, whole[..length].to_vec()).unwrap();
        assert!(
            read(Merge::new(vec![run.reader(&store)])).is_err(),
            "{length} bytes"
        );
    }
    store.delete(&name).unwrap();
    let found = read(Merge::new(vec![run.reader(&store)]));
    assert!(matches!(found, Err(Error::Missing(_))), "{found:?}");
}

#[test]
fn a_merge_is_written_as_one_run() {
    let store = Faulty::new().store();
    let old: Model = large();
    let new: Model = large()
        .into_iter()
        .step_by(3)
        .map(|(id, _)| (id, (0, 1, vec![1])))
        .collect();
    let runs = [write(&store, &new), write(&store, &old)];
    let mut merge = Merge::new(runs.iter().map(|run| run.reader(&store)).collect());
    let mut sink = PartSink::new(store.clone());
    write_merged(&mut merge, &mut sink, &Progress::default()).unwrap();
    let run = sink.finish().unwrap();
    assert_eq!(merge.hidden(), new.len() as u64);
    let mut expected = old;
    expected.extend(new);
    assert_eq!(
        read(Merge::new(vec![run.reader(&store)])).unwrap(),
        expected
    );
}

#[test]
fn writing_ends_when_it_is_asked_to_or_cannot_go_on() {
    let store = Faulty::new().store();
    let run = write(&store, &large());
    let progress = Progress::default();
    progress.stop();
    let mut sink = PartSink::new(store.clone());
    let mut merge = Merge::new(vec![run.reader(&store)]);
    assert!(matches!(
        write_merged(&mut merge, &mut sink, &progress),
        Err(Error::Stopped)
    ));
    // The disk is full.
    let file = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut sink = FileSink::new(file, "/dev/full".to_owned());
    let mut merge = Merge::new(vec![run.reader(&store)]);
    let full = write_merged(&mut merge, &mut sink, &Progress::default());
    assert!(matches!(full, Err(Error::Scratch { .. })), "{full:?}");
}

#[test]
fn an_empty_run_is_empty() {
    let store = Faulty::new().store();
    let run = write(&store, &Model::new());
    assert_eq!(run, RunManifest::default());
    assert!(
        all(&mut Merge::new(vec![run.reader(&store)]))
            .unwrap()
            .is_empty()
    );
    assert!(all(&mut Merge::new(Vec::new())).unwrap().is_empty());
}
