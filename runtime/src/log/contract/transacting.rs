//! Cases about transactions: all or nothing, and only by the newest of a name (rule 6).

use super::Names;
use super::support::{
    Owner, committed, create, numbered, only, partitions, position, read_texts, record, texts,
    transactions, within, write,
};
use crate::log::topics::MAX_RECORD_BYTES;
use crate::log::{NotCommitted, NotWritten, Record, SharedLog, Transaction, Transactions};

async fn commit(
    transactions: &mut Box<dyn Transactions>,
    records: Vec<Record>,
) -> Result<(), NotCommitted> {
    let transaction = Transaction {
        records,
        positions: Vec::new(),
        group: None,
    };
    within("commit", transactions.commit(transaction)).await
}

/// Records of several topics and positions with metadata, in one step.
pub async fn records_and_positions_appear_together(log: &SharedLog, names: &Names) {
    let source = create(log, &names.settings("source", 2)).await;
    let target = create(log, &names.settings("target", 2)).await;
    let aside = create(log, &names.settings("aside", 1)).await;
    let mut owner = Owner::join(log, names, "one", &source).await;
    owner.own(&partitions(&source, 2)).await;
    let mut transactions = transactions(log, names).await;
    for round in 0..3_u32 {
        let offset = i64::from(round) + 1;
        let transaction = Transaction {
            records: vec![
                record(&target.partition(0), round.to_string()),
                record(&target.partition(1), round.to_string()),
            ],
            positions: vec![
                position(&source.partition(0), offset, "here"),
                position(&aside.partition(0), 10 * offset, "there"),
            ],
            group: Some(owner.member.group_metadata().unwrap()),
        };
        within("commit", transactions.commit(transaction))
            .await
            .unwrap();
        assert_eq!(
            owner.committed(&source.partition(0)).await,
            committed(offset, "here")
        );
        let asked = [aside.partition(0)];
        let answer = within("committed", log.committed(&names.name("group"), &asked)).await;
        assert_eq!(
            only(answer.unwrap(), &asked[0]),
            committed(10 * offset, "there")
        );
    }
    for number in 0..2 {
        assert_eq!(
            read_texts(log, names, &target.partition(number), 3).await,
            texts(0..3)
        );
    }
    owner.member.close().await;
}

/// A transaction need not write.
pub async fn positions_alone_are_a_transaction(log: &SharedLog, names: &Names) {
    let source = create(log, &names.settings("source", 1)).await;
    let mut owner = Owner::join(log, names, "one", &source).await;
    owner.own(&partitions(&source, 1)).await;
    let mut transactions = transactions(log, names).await;
    let transaction = Transaction {
        records: Vec::new(),
        positions: vec![position(&source.partition(0), 5, "five")],
        group: Some(owner.member.group_metadata().unwrap()),
    };
    within("commit", transactions.commit(transaction))
        .await
        .unwrap();
    assert_eq!(
        owner.committed(&source.partition(0)).await,
        committed(5, "five")
    );
    owner.member.close().await;
}

/// One record that can never be written: nothing is, it is named, and the next one commits.
pub async fn an_aborted_transaction_leaves_nothing_and_names_the_refused(
    log: &SharedLog,
    names: &Names,
) {
    let source = create(log, &names.settings("source", 1)).await;
    let target = create(log, &names.settings("target", 1)).await.partition(0);
    let mut owner = Owner::join(log, names, "one", &source).await;
    owner.own(&partitions(&source, 1)).await;
    let mut transactions = transactions(log, names).await;
    let transaction = Transaction {
        records: vec![
            record(&target, "never"),
            record(&target, vec![0; MAX_RECORD_BYTES + 1]),
            record(&target, "never"),
        ],
        positions: vec![position(&source.partition(0), 1, "")],
        group: Some(owner.member.group_metadata().unwrap()),
    };
    match within("commit", transactions.commit(transaction)).await {
        Err(NotCommitted::Aborted { refused, .. }) => {
            assert_eq!(refused, [(1, NotWritten::TooLarge)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(owner.committed(&source.partition(0)).await, None);
    commit(&mut transactions, numbered(&target, 0..2))
        .await
        .unwrap();
    assert_eq!(read_texts(log, names, &target, 2).await, texts(0..2));
    owner.member.close().await;
}

/// A second of the same name ends the first for good.
pub async fn a_newer_producer_fences_the_older(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut older = transactions(log, names).await;
    commit(&mut older, numbered(&partition, 0..1))
        .await
        .unwrap();
    let mut newer = transactions(log, names).await;
    match commit(&mut older, vec![record(&partition, "fenced")]).await {
        Err(NotCommitted::Fenced(_) | NotCommitted::Unknown(_)) => {}
        other => panic!("{other:?}"),
    }
    commit(&mut newer, numbered(&partition, 1..2))
        .await
        .unwrap();
    assert_eq!(read_texts(log, names, &partition, 2).await, texts(0..2));
}

/// Positions are committed under a membership that stands (rule 6), or not at all.
pub async fn a_member_that_left_commits_no_transaction(log: &SharedLog, names: &Names) {
    let source = create(log, &names.settings("source", 1)).await;
    let target = create(log, &names.settings("target", 1)).await.partition(0);
    let mut owner = Owner::join(log, names, "one", &source).await;
    owner.own(&partitions(&source, 1)).await;
    let group = owner.member.group_metadata().unwrap();
    within("close", owner.member.close()).await;
    let mut transactions = transactions(log, names).await;
    let transaction = Transaction {
        records: vec![record(&target, "never")],
        positions: vec![position(&source.partition(0), 1, "")],
        group: Some(group),
    };
    match within("commit", transactions.commit(transaction)).await {
        Err(NotCommitted::NotMember(_)) => {}
        other => panic!("{other:?}"),
    }
    commit(&mut transactions, numbered(&target, 0..1))
        .await
        .unwrap();
    assert_eq!(read_texts(log, names, &target, 1).await, texts(0..1));
    let asked = [source.partition(0)];
    let answer = within("committed", log.committed(&names.name("group"), &asked)).await;
    assert_eq!(only(answer.unwrap(), &asked[0]), None);
}

/// Gaps that transactions leave are skipped in silence, and `End` comes behind them.
pub async fn transactions_and_plain_records_keep_their_order(log: &SharedLog, names: &Names) {
    let partition = create(log, &names.settings("topic", 1)).await.partition(0);
    let mut transactions = transactions(log, names).await;
    for round in 0..4 {
        write(log, names, numbered(&partition, 2 * round..2 * round + 1)).await;
        commit(
            &mut transactions,
            numbered(&partition, 2 * round + 1..2 * round + 2),
        )
        .await
        .unwrap();
    }
    assert_eq!(read_texts(log, names, &partition, 8).await, texts(0..8));
}
