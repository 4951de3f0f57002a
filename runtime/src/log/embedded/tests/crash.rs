//! A crash loses a suffix and nothing else: the process is killed, and the journal is cut.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command as Process, Stdio};

use super::*;
use crate::log::Transaction;

const DIR: &str = "ANABRANCH_TEST_CRASH_DIR";

fn left() -> Partition {
    TopicName::new("pair").partition(0)
}

fn right() -> Partition {
    TopicName::new("pair").partition(1)
}

fn source() -> Partition {
    TopicName::new("source").partition(0)
}

/// Records on `source`, each followed by a position over it and a transaction of two records and
/// another position; `told` is called with each number once it is acknowledged.
async fn traffic(log: &EmbeddedLog, count: i64, mut told: impl FnMut(i64)) {
    log.create_topics(&[topic("pair", 2), topic("source", 1)])
        .await
        .unwrap();
    let options = MemberOptions {
        group: "g".into(),
        topics: vec![source().topic],
        instance: "one".into(),
    };
    let (member, mut membership) = log.member(options).await.unwrap();
    assert!(matches!(
        membership.recv().await,
        Some(Membership::Assigned(_))
    ));
    let options = TransactionOptions {
        id: "t".into(),
        timeout: Duration::from_secs(5),
    };
    let mut transactions = log.transactions(options).await.unwrap();
    for number in 0..count {
        let width = usize::try_from(number % 300).unwrap();
        let text = format!("{number:0width$}");
        write(log, vec![record(&source(), text.clone())]).await;
        let at = |partition| Position {
            partition,
            offset: number + 1,
            metadata: text.clone(),
        };
        member.commit(vec![at(source())]).await.unwrap();
        let transaction = Transaction {
            records: vec![
                record(&left(), text.clone()),
                record(&right(), text.clone()),
            ],
            positions: vec![at(left())],
            group: Some(member.group_metadata().unwrap()),
        };
        transactions.commit(transaction).await.unwrap();
        told(number);
    }
}

/// What is left is a prefix in which every position is covered and every transaction is whole;
/// gives how many numbers are whole.
async fn check(log: &EmbeddedLog) -> i64 {
    let Some(_) = log.describe_topic(&left().topic).await.unwrap() else {
        return 0;
    };
    let mut ends = Vec::new();
    for partition in [left(), right(), source()] {
        let records = read(log, &partition, 0).await.unwrap();
        for (number, (offset, _, value)) in (0..).zip(&records) {
            let value = std::str::from_utf8(value.as_ref().unwrap()).unwrap();
            assert_eq!((*offset, value.parse::<i64>().unwrap()), (number, number));
        }
        ends.push(i64::try_from(records.len()).unwrap());
    }
    assert_eq!(ends[0], ends[1], "half a transaction");
    assert!(ends[2] == ends[0] || ends[2] == ends[0] + 1, "{ends:?}");
    for (_, committed) in log.committed("g", &[left()]).await.unwrap() {
        assert_eq!(committed.map_or(0, |committed| committed.offset), ends[0]);
    }
    for (_, committed) in log.committed("g", &[source()]).await.unwrap() {
        let offset = committed.map_or(0, |committed| committed.offset);
        assert!(offset <= ends[2], "a position ahead of its records");
        assert!(offset >= ends[0], "a position lost before what followed it");
    }
    ends[0]
}

/// The process that is killed; a test of its own name so that the test binary can run it.
#[tokio::test]
async fn writes_until_it_is_killed_when_asked_to() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (log, _) = open(Path::new(&dir)).await;
    let mut out = std::io::stdout();
    traffic(&log, i64::MAX, |number| {
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    for lines in [1, 40, 150] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "log::embedded::tests::crash::writes_until_it_is_killed_when_asked_to",
            ])
            .arg("--nocapture")
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let acknowledged = out
            .lines()
            .map(|line| line.unwrap())
            .filter_map(|line| line.split_once("acknowledged ")?.1.parse::<i64>().ok())
            .take(lines)
            .last()
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (log, _) = open(dir.path()).await;
        let whole = check(&log).await;
        assert!(
            whole > acknowledged,
            "{acknowledged} was acknowledged, {whole} are whole"
        );
        assert_eq!(write(&log, vec![record(&left(), "next")]).await, [whole]);
    }
}

/// A power cut leaves some prefix of the journal.
#[tokio::test]
async fn any_prefix_of_the_journal_is_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, closed) = open(dir.path()).await;
    traffic(&log, 60, |_| ()).await;
    drop(log);
    closed.wait().await;
    let journal = journal(&dir.path().join("store"));
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut last = 0;
    for cut in (0..=24).map(|part| used * part / 24) {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path(), &journal, &bytes[..cut]);
        let (log, closed) = open(copy.path()).await;
        let whole = check(&log).await;
        assert!(whole >= last, "a longer journal holds less");
        last = whole;
        drop(log);
        closed.wait().await;
    }
    assert_eq!(last, 60);
}

/// A power cut may also leave a hole where the disk wrote a later page first.
#[tokio::test]
async fn a_journal_with_a_torn_end_is_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, closed) = open(dir.path()).await;
    traffic(&log, 60, |_| ()).await;
    drop(log);
    closed.wait().await;
    let journal = journal(&dir.path().join("store"));
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for hole in [4_096, 3_000, 1_000, 300, 40, 9, 1] {
        let mut torn = bytes[..used].to_vec();
        let at = used.saturating_sub(hole + 30);
        torn[at..at + hole].fill(0);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path(), &journal, &torn);
        let (log, _) = open(copy.path()).await;
        assert!(check(&log).await >= 40, "too much was given up");
    }
}

fn journal(store: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut journals: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

fn copy_folder(from: &Path, to: &Path, journal: &Path, cut: &[u8]) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (source, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if source == journal {
            std::fs::write(&target, cut).unwrap();
        } else if source.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&source, &target, journal, cut);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}
