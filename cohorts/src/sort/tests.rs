use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::doubles::sort_options;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn push(sorter: &mut Sorter, id: &[u8], body: &[u8]) -> Result<(), Error> {
    sorter.push(&Entry {
        id,
        tag: 0,
        hash: 7,
        body,
    })
}

fn read(mut sorted: Sorted) -> (Model, u64) {
    let (mut found, mut last) = (Model::new(), Vec::new());
    while sorted.merge.advance().unwrap() {
        let entry = sorted.merge.entry().unwrap();
        assert!(last.as_slice() < entry.id, "ids rise");
        last = entry.id.to_vec();
        found.insert(entry.id.to_vec(), entry.body.to_vec());
    }
    (found, sorted.pushed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_last_of_an_id_wins_over_many_runs(
        ids in prop::collection::vec("(user-|user-000000000|)[a-f]{1,4}", 1..1_500),
        width in 1_000..3_000usize,
    ) {
        let mut sorter = Sorter::new(sort_options());
        let mut expected = Model::new();
        for (number, id) in ids.iter().enumerate() {
            let body = format!("{number:0width$}").into_bytes();
            push(&mut sorter, id.as_bytes(), &body).unwrap();
            expected.insert(id.clone().into_bytes(), body);
        }
        let (found, pushed) = read(sorter.finish().unwrap());
        prop_assert_eq!(pushed, ids.len() as u64);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn ids_that_share_much_or_end_within_another_are_in_order() {
    let ids = [
        "b",
        "a",
        "ab",
        "abcdefgh",
        "abcdefghi",
        "abcdefgha",
        "abcdefg",
        "a!",
        "é",
        "~",
    ];
    let mut sorter = Sorter::new(sort_options());
    for id in ids {
        push(&mut sorter, id.as_bytes(), b"").unwrap();
    }
    let (found, _) = read(sorter.finish().unwrap());
    assert_eq!(found.len(), ids.len());
}

#[test]
fn nothing_is_sorted_to_nothing() {
    let (found, pushed) = read(Sorter::new(sort_options()).finish().unwrap());
    assert_eq!((found.len(), pushed), (0, 0));
}

/// Pushes rows that no compression makes small until the sort gives up.
fn fill(mut sorter: Sorter) -> Error {
    let mut noise = 1u64;
    for number in 0..20_000u32 {
        let mut body = Vec::with_capacity(1_000);
        for _ in 0..125 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            body.extend_from_slice(&noise.to_be_bytes());
        }
        if push(
            &mut sorter,
            &number.to_be_bytes().map(|byte| byte | 0x40),
            &body,
        )
        .is_err()
        {
            return sorter.failure();
        }
    }
    sorter.finish().map(|_| ()).unwrap_err()
}

#[test]
fn scratch_space_has_a_limit() {
    let options = SortOptions {
        scratch_bytes_max: 2 << 20,
        ..sort_options()
    };
    let error = fill(Sorter::new(options));
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn scratch_space_that_is_not_there_is_an_error_that_names_it() {
    let options = SortOptions {
        scratch: PathBuf::from("/dev/null/none"),
        ..sort_options()
    };
    let error = fill(Sorter::new(options));
    assert!(
        matches!(&error, Error::Scratch { folder, .. } if folder == "/dev/null/none"),
        "{error}"
    );
}

#[test]
fn scratch_files_leave_nothing_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let options = SortOptions {
        scratch: folder.path().to_owned(),
        ..sort_options()
    };
    let mut sorter = Sorter::new(options);
    for number in 0..3_000 {
        push(&mut sorter, format!("{number}").as_bytes(), &[b'x'; 1_000]).unwrap();
    }
    let sorted = sorter.finish().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(read(sorted).0.len(), 3_000);
}
