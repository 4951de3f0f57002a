use super::*;
use crate::doubles::{Fault, Faulty, all, at, fill_disk, handle, ndjson, sort_options, upload};
use crate::{Changes, ReadOptions};

fn cohort(faulty: &Arc<Faulty>) -> Cohort {
    Cohort::new(&faulty.store(), "t1", "buyers")
}

fn members(cohort: &Cohort) -> Vec<String> {
    all(&mut cohort.members(&cohort.view().unwrap())).unwrap()
}

#[test]
fn a_snapshot_has_each_member_once_as_it_came_last() {
    let cohort = cohort(&Faulty::new());
    let rows = ndjson([("b", 1), ("a", 1), ("b", 2), ("c", 1), ("b", 3)]) + "bad\n";
    let read = ReadOptions {
        rejects_max_percent: 20.0,
        ..ReadOptions::default()
    };
    let made = upload(&cohort, "s1", 10, rows.as_bytes(), read).unwrap();
    let snapshot = &made.snapshot;
    let counts = (
        snapshot.rows,
        snapshot.members,
        snapshot.duplicates,
        snapshot.rejected,
    );
    assert_eq!(counts, (6, 3, 2, 1));
    assert_eq!(
        members(&cohort),
        [r#"a={"v":1}"#, r#"b={"v":3}"#, r#"c={"v":1}"#]
    );
    assert_eq!(&cohort.snapshot("s1").unwrap(), snapshot);
    assert_eq!(cohort.rejects("s1").unwrap(), made.rejects);
    assert_eq!(made.rejects.first_line(), 6);
    assert!(matches!(cohort.snapshot("s2"), Err(Error::Missing(_))));
}

#[test]
fn the_newest_snapshot_is_the_cohort_and_old_ones_go() {
    let cohort = cohort(&Faulty::new());
    for (number, id) in ["s1", "s2", "s3", "s4"].into_iter().enumerate() {
        let second = i64::try_from(number).unwrap();
        upload(
            &cohort,
            id,
            second,
            ndjson([(id, 1)]).as_bytes(),
            ReadOptions::default(),
        )
        .unwrap();
    }
    let ids = |listing: Listing| -> Vec<_> {
        listing
            .snapshots
            .into_iter()
            .map(|snapshot| snapshot.id)
            .collect()
    };
    assert_eq!(ids(cohort.snapshots().unwrap()), ["s4", "s3", "s2", "s1"]);
    let pinned = View {
        snapshot: Some(cohort.snapshot("s1").unwrap()),
        deltas: Vec::new(),
    };
    assert_eq!(
        cohort.retain(2, std::slice::from_ref(&pinned)).unwrap(),
        ["s2"]
    );
    assert_eq!(ids(cohort.snapshots().unwrap()), ["s4", "s3", "s1"]);
    assert_eq!(
        all(&mut cohort.members(&pinned)).unwrap(),
        [r#"s1={"v":1}"#]
    );
    // The newest stays, whatever is asked.
    cohort.retain(0, &[]).unwrap();
    assert_eq!(members(&cohort), [r#"s4={"v":1}"#]);
    assert_eq!(cohort.folder.list("snapshots").unwrap().len(), 3);
}

#[test]
fn an_id_is_given_once() {
    let cohort = cohort(&Faulty::new());
    upload(
        &cohort,
        "s1",
        1,
        ndjson([("a", 1)]).as_bytes(),
        ReadOptions::default(),
    )
    .unwrap();
    let again = upload(
        &cohort,
        "s1",
        2,
        ndjson([("b", 1)]).as_bytes(),
        ReadOptions::default(),
    );
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    assert_eq!(members(&cohort), [r#"a={"v":1}"#]);
}

#[test]
fn an_empty_input_is_an_empty_snapshot() {
    let cohort = cohort(&Faulty::new());
    let made = upload(&cohort, "s1", 1, b"", ReadOptions::default()).unwrap();
    assert_eq!(made.snapshot.members, 0);
    assert!(members(&cohort).is_empty());
    assert!(cohort.view().unwrap().snapshot.is_some());
}

/// Makes a good snapshot, then another with this fault; what the cohort is afterwards.
fn upload_with(fault: Fault, number: u64) -> Option<()> {
    let faulty = Faulty::new();
    let cohort = cohort(&faulty);
    upload(
        &cohort,
        "s1",
        1,
        ndjson([("old", 1)]).as_bytes(),
        ReadOptions::default(),
    )
    .unwrap();
    let before = cohort.folder.list("").unwrap();
    let made_before = faulty.requests();
    faulty.fail_at(number, fault);
    let made = upload(
        &cohort,
        "s2",
        2,
        ndjson([("new", 1)]).as_bytes(),
        ReadOptions::default(),
    );
    let requests = faulty.requests() - made_before;
    faulty.recover();
    let found = members(&cohort);
    let (old, new) = (
        vec![r#"old={"v":1}"#.to_owned()],
        vec![r#"new={"v":1}"#.to_owned()],
    );
    if made.is_ok() {
        assert_eq!(found, new);
    } else {
        assert!(
            found == old || fault == Fault::CrashAfter && found == new,
            "{fault:?} {number}"
        );
        let left = cohort.folder.list("").unwrap();
        let at_manifest = made.is_err_and(|error| error.to_string().contains("manifest.json"));
        if matches!(fault, Fault::Refused | Fault::AnswerLost) && !at_manifest {
            let parts = left.iter().filter(|name| name.contains("/run-")).count();
            assert_eq!(parts, 1, "{fault:?} {number}: {left:?}");
        }
        if found == old {
            cohort.sweep(Timestamp::MAX).unwrap();
            assert_eq!(cohort.folder.list("").unwrap(), before);
        }
    }
    (requests > number).then_some(())
}

#[test]
fn a_store_that_fails_at_any_request_leaves_the_last_good_snapshot() {
    for fault in Fault::ALL {
        let reached = (0..)
            .take_while(|number| upload_with(fault, *number).is_some())
            .count();
        assert!(
            reached >= 4,
            "{fault:?} was tried at {reached} requests only"
        );
    }
}

#[test]
fn a_bad_upload_leaves_nothing() {
    let cohort = cohort(&Faulty::new());
    let bad = upload(
        &cohort,
        "s1",
        1,
        b"{\"id\":1}\nbad\n",
        ReadOptions::default(),
    );
    assert!(matches!(bad, Err(Error::TooManyRejects { .. })));
    let options = UploadOptions {
        sort: SortOptions {
            scratch: "/dev/null/none".into(),
            ..sort_options()
        },
        ..UploadOptions::default()
    };
    let new = NewSnapshot {
        id: "s1".to_owned(),
        created: at(1),
    };
    let rows = ndjson([("a", 1)]);
    let failed = cohort.make(&new, &mut rows.as_bytes(), &options, &Progress::default());
    assert!(matches!(failed, Err(Error::Scratch { .. })), "{failed:?}");
    assert!(cohort.folder.list("").unwrap().is_empty());
}

#[test]
fn a_disk_that_is_full_in_mid_sort_is_said_and_the_last_good_snapshot_stays() {
    let cohort = cohort(&Faulty::new());
    let rows = ndjson([("old", 1)]);
    upload(&cohort, "s1", 1, rows.as_bytes(), ReadOptions::default()).unwrap();
    let before = cohort.folder.list("").unwrap();
    let row = |id: u32| format!("{{\"id\":\"{id:06}\",\"x\":\"{}\"}}\n", "x".repeat(1_000));
    let rows: String = (0..5_000).map(row).collect();
    // The first files are sorted and merged; then there is no room.
    for after in [0, 1, 3, 6] {
        let scratch = tempfile::tempdir().unwrap();
        fill_disk(scratch.path(), after);
        let options = UploadOptions {
            sort: SortOptions {
                scratch: scratch.path().to_owned(),
                ..sort_options()
            },
            ..UploadOptions::default()
        };
        let new = NewSnapshot {
            id: "s2".to_owned(),
            created: at(2),
        };
        let failed = cohort.make(&new, &mut rows.as_bytes(), &options, &Progress::default());
        let Err(Error::Scratch { folder, source }) = failed else {
            panic!("after {after}: {failed:?}");
        };
        assert_eq!(folder, scratch.path().display().to_string());
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(members(&cohort), [r#"old={"v":1}"#]);
        assert_eq!(
            cohort.folder.list("").unwrap(),
            before,
            "nothing is left of it"
        );
    }
}

#[test]
fn a_damaged_manifest_is_never_taken_for_an_older_cohort() {
    let cohort = cohort(&Faulty::new());
    for (id, second) in [("s1", 1), ("s2", 2)] {
        upload(
            &cohort,
            id,
            second,
            ndjson([(id, 1)]).as_bytes(),
            ReadOptions::default(),
        )
        .unwrap();
    }
    cohort
        .folder
        .put("snapshots/s2/manifest.json", b"{}".to_vec())
        .unwrap();
    assert!(matches!(cohort.view(), Err(Error::Damaged { .. })));
    let listing = cohort.snapshots().unwrap();
    assert_eq!((listing.snapshots.len(), listing.damaged.len()), (1, 1));
    cohort.delete("s2").unwrap();
    assert_eq!(members(&cohort), [r#"s1={"v":1}"#]);
}

#[test]
fn sweeping_spares_what_is_being_written() {
    let cohort = cohort(&Faulty::new());
    cohort
        .folder
        .put("snapshots/s1/run-x-0000", vec![1])
        .unwrap();
    cohort
        .folder
        .put("delta-parts/run-y-0000", vec![1])
        .unwrap();
    assert_eq!(cohort.sweep(Timestamp::UNIX_EPOCH).unwrap(), 0);
    let mut changes = Changes::default();
    changes.remove("a").unwrap();
    cohort.add_delta(changes, at(1)).unwrap();
    assert_eq!(cohort.sweep(Timestamp::MAX).unwrap(), 2);
    let deltas = cohort.deltas(0).unwrap();
    assert_eq!(all(&mut cohort.changes(&deltas)).unwrap(), ["-a"]);
}

#[test]
fn uploads_stream_into_a_folder_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), handle()).unwrap();
    let cohort = Cohort::new(&store, "t1", "buyers");
    let ids: Vec<String> = (0..30_000)
        .map(|number| format!("member-{number:06}"))
        .collect();
    let rows = ndjson(ids.iter().rev().map(|id| (id.as_str(), 7)));
    let new = NewSnapshot {
        id: "s1".to_owned(),
        created: at(1),
    };
    let options = UploadOptions {
        sort: sort_options(),
        ..UploadOptions::default()
    };
    let input = io_of(rows.into_bytes());
    let made = handle()
        .block_on(cohort.upload(new, input, options, Arc::default()))
        .unwrap();
    assert_eq!(made.snapshot.members, 30_000);
    let expected: Vec<_> = ids.iter().map(|id| format!("{id}={{\"v\":7}}")).collect();
    assert_eq!(members(&cohort), expected);
    // Whoever opens the folder next sees the same.
    let store = Store::open(&format!("file://{}", folder.path().display()), handle()).unwrap();
    assert_eq!(members(&Cohort::new(&store, "t1", "buyers")), expected);
}

#[test]
fn an_object_can_be_uploaded() {
    let store = Faulty::new().store();
    let cohort = Cohort::new(&store, "t1", "buyers");
    store.put("exports/today.csv", b"id\na\n".to_vec()).unwrap();
    let made = handle().block_on(async {
        assert!(matches!(
            store.reader("exports/none").await,
            Err(Error::Missing(_))
        ));
        let input = store.reader("exports/today.csv").await?;
        let new = NewSnapshot {
            id: "s1".to_owned(),
            created: at(1),
        };
        cohort
            .upload(new, input, UploadOptions::default(), Arc::default())
            .await
    });
    assert_eq!(made.unwrap().snapshot.members, 1);
    assert_eq!(members(&cohort), ["a={}"]);
}

/// A reader that gives its bytes in small pieces, as a socket does.
fn io_of(bytes: Vec<u8>) -> impl AsyncRead + Send + Unpin + 'static {
    tokio::io::BufReader::with_capacity(1_000, std::io::Cursor::new(bytes))
}

#[test]
fn places_that_this_build_does_not_know_are_refused() {
    for place in ["gs://bucket/x", "ftp://x"] {
        assert!(
            matches!(Store::open(place, handle()), Err(Error::Input(_))),
            "{place}"
        );
    }
}
