//! Cases about groups: who owns what, hand-over, and committed positions.

use std::collections::BTreeSet;

use super::Names;
use super::support::{Owner, committed, create, only, partitions, position, retrying, within};
use crate::log::{Class, SharedLog};

/// Alone in a group: everything.
pub async fn the_only_member_owns_every_partition(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 6)).await;
    let mut owner = Owner::join(log, names, "one", &topic).await;
    owner.own(&partitions(&topic, 6)).await;
    assert!(!owner.member.session_timeout().is_zero());
    owner.member.close().await;
}

/// Rule 5: two members never own one partition; what is revoked is owned, and can be committed,
/// until it is acknowledged.
pub async fn a_second_member_takes_over_what_is_acknowledged(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 6)).await;
    let all = partitions(&topic, 6);
    let mut one = Owner::join(log, names, "one", &topic).await;
    one.own(&all).await;
    let mut two = Owner::join(log, names, "two", &topic).await;
    let revocation = one.revocation().await;
    let moving: Vec<_> = revocation.partitions().to_vec();
    assert!(
        !moving.is_empty() && moving.len() < all.len(),
        "moves {moving:?}"
    );
    let positions = moving
        .iter()
        .map(|moved| position(moved, 7, "mine"))
        .collect();
    one.commit(positions).await.unwrap();
    two.drain();
    assert!(
        two.owned.is_empty(),
        "owned by two before the acknowledgement: {:?}",
        two.owned
    );
    revocation.acknowledge();
    while one.owned.len() + two.owned.len() < all.len() || two.owned.is_empty() {
        tokio::select! {
            revoked = one.step() => drop(revoked),
            revoked = two.step() => drop(revoked),
        }
        assert!(
            one.owned.is_disjoint(&two.owned),
            "{:?} and {:?}",
            one.owned,
            two.owned
        );
    }
    assert_eq!(
        one.owned.union(&two.owned).cloned().collect::<Vec<_>>(),
        Vec::from_iter(all)
    );
    for moved in moving.iter().filter(|moved| two.owned.contains(moved)) {
        assert_eq!(two.committed(moved).await, committed(7, "mine"));
        two.commit(vec![position(moved, 8, "")]).await.unwrap();
    }
    two.member.close().await;
    one.member.close().await;
}

/// A task that dies with a revocation in its hands blocks nobody.
pub async fn a_dropped_revocation_acknowledges(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 4)).await;
    let mut one = Owner::join(log, names, "one", &topic).await;
    one.own(&partitions(&topic, 4)).await;
    let mut two = Owner::join(log, names, "two", &topic).await;
    drop(one.revocation().await);
    while two.owned.is_empty() {
        tokio::select! {
            revoked = one.step() => drop(revoked),
            revoked = two.step() => drop(revoked),
        }
    }
    two.member.close().await;
    one.member.close().await;
}

/// Leaving needs no session timeout to pass.
pub async fn a_member_that_leaves_gives_back_everything(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 4)).await;
    let all = partitions(&topic, 4);
    let mut one = Owner::join(log, names, "one", &topic).await;
    one.own(&all).await;
    let mut two = Owner::join(log, names, "two", &topic).await;
    while two.owned.is_empty() {
        tokio::select! {
            revoked = one.step() => drop(revoked),
            revoked = two.step() => drop(revoked),
        }
    }
    let mine = one.owned.first().unwrap().clone();
    one.commit(vec![position(&mine, 3, "left")]).await.unwrap();
    within("close", one.member.close()).await;
    two.own(&all).await;
    assert_eq!(two.committed(&mine).await, committed(3, "left"));
    two.member.close().await;
}

/// Each group has every partition and positions of its own.
pub async fn groups_do_not_share(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let all = partitions(&topic, 2);
    let mut first = Owner::join_group(log, names.name("first"), "one", &topic).await;
    let mut second = Owner::join_group(log, names.name("second"), "one", &topic).await;
    first.own(&all).await;
    second.own(&all).await;
    first
        .commit(vec![position(&topic.partition(0), 9, "")])
        .await
        .unwrap();
    assert_eq!(first.committed(&topic.partition(0)).await, committed(9, ""));
    assert_eq!(second.committed(&topic.partition(0)).await, None);
    first.member.close().await;
    second.member.close().await;
}

/// Positions of several partitions, subscribed to or not (the delay topics), with 4,096 bytes.
pub async fn positions_keep_their_metadata_for_any_topic(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 2)).await;
    let aside = create(log, &names.settings("aside", 2)).await;
    let mut owner = Owner::join(log, names, "one", &topic).await;
    owner.own(&partitions(&topic, 2)).await;
    let long = "m".repeat(4_096);
    owner
        .commit(vec![
            position(&topic.partition(0), 1, &long),
            position(&topic.partition(1), 2, ""),
            position(&aside.partition(1), 3, "aside"),
        ])
        .await
        .unwrap();
    // A later commit may go back.
    owner
        .commit(vec![position(&topic.partition(1), 1, "back")])
        .await
        .unwrap();
    let expected = [
        (topic.partition(0), committed(1, &long)),
        (topic.partition(1), committed(1, "back")),
        (aside.partition(0), None),
        (aside.partition(1), committed(3, "aside")),
    ];
    let asked: Vec<_> = expected
        .iter()
        .map(|(partition, _)| partition.clone())
        .collect();
    let inside = within("committed", owner.member.committed(&asked))
        .await
        .unwrap();
    let outside = within("committed", log.committed(&names.name("group"), &asked))
        .await
        .unwrap();
    for mut answer in [inside, outside] {
        answer.sort_by(|a, b| a.0.cmp(&b.0));
        let mut expected = expected.to_vec();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(answer, expected);
    }
    owner.member.close().await;
}

/// 4,097 bytes can never be committed, and change nothing.
pub async fn metadata_beyond_the_limit_is_refused(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 1)).await;
    let mut owner = Owner::join(log, names, "one", &topic).await;
    owner.own(&partitions(&topic, 1)).await;
    let long = "m".repeat(4_097);
    let refused = owner
        .commit(vec![position(&topic.partition(0), 1, &long)])
        .await;
    assert_eq!(refused.unwrap_err().class(), Class::Never);
    assert_eq!(owner.committed(&topic.partition(0)).await, None);
    owner.member.close().await;
}

/// Once out, always out.
pub async fn a_closed_member_commits_nothing(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 1)).await;
    let mut owner = Owner::join(log, names, "one", &topic).await;
    owner.own(&partitions(&topic, 1)).await;
    within("close", owner.member.close()).await;
    let refused = owner
        .commit(vec![position(&topic.partition(0), 1, "")])
        .await;
    assert_eq!(refused.unwrap_err().class(), Class::Fenced);
    let asked = [topic.partition(0)];
    let answer = within("committed", log.committed(&names.name("group"), &asked))
        .await
        .unwrap();
    assert_eq!(only(answer, &asked[0]), None);
}

/// `topics create` commits first positions before anybody has joined, and never under a member.
pub async fn an_empty_group_takes_positions_from_outside(log: &SharedLog, names: &Names) {
    let topic = create(log, &names.settings("topic", 1)).await;
    let (group, at) = (names.name("group"), topic.partition(0));
    let first = [position(&at, 0, "first")];
    within(
        "commit",
        retrying(|| log.commit_for_empty_group(&group, &first)),
    )
    .await
    .unwrap();
    let mut owner = Owner::join(log, names, "one", &topic).await;
    owner.own(&partitions(&topic, 1)).await;
    assert_eq!(owner.committed(&at).await, committed(0, "first"));
    let second = [position(&at, 5, "second")];
    let refused = within("commit", log.commit_for_empty_group(&group, &second)).await;
    assert_eq!(refused.unwrap_err().class(), Class::Retry);
    assert_eq!(owner.committed(&at).await, committed(0, "first"));
    within("close", owner.member.close()).await;
    within(
        "commit",
        retrying(|| log.commit_for_empty_group(&group, &second)),
    )
    .await
    .unwrap();
    let answer = within(
        "committed",
        log.committed(&group, std::slice::from_ref(&at)),
    )
    .await;
    assert_eq!(only(answer.unwrap(), &at), committed(5, "second"));
}

/// A member that changes its topics keeps what it still wants, is given what is new, and gives up
/// the rest only when it has said so.
pub async fn a_member_changes_its_topics(log: &SharedLog, names: &Names) {
    let first = create(log, &names.settings("first", 2)).await;
    let second = create(log, &names.settings("second", 3)).await;
    let (both, of_second) = (
        &partitions(&first, 2) | &partitions(&second, 3),
        partitions(&second, 3),
    );
    let mut one = Owner::join(log, names, "one", &first).await;
    one.own(&partitions(&first, 2)).await;
    one.member.subscribe(vec![first.clone(), second.clone()]);
    while one.owned != both {
        assert!(one.step().await.is_none(), "nothing is to be given up");
    }
    one.member.subscribe(vec![second.clone()]);
    let revocation = one.revocation().await;
    let given_up: BTreeSet<_> = revocation.partitions().iter().cloned().collect();
    assert!(given_up.is_disjoint(&of_second), "{given_up:?}");
    let leaving = given_up.first().unwrap().clone();
    one.commit(vec![position(&leaving, 4, "last")])
        .await
        .unwrap();
    revocation.acknowledge();
    one.own(&of_second).await;
    assert_eq!(one.committed(&leaving).await, committed(4, "last"));
    // And back: its position is where it was.
    one.member.subscribe(vec![second, first]);
    one.own(&both).await;
    assert_eq!(one.committed(&leaving).await, committed(4, "last"));
    one.member.close().await;
}

/// A topic that does not exist ends no membership, and is shared when it appears.
pub async fn a_topic_that_appears_later_is_shared(log: &SharedLog, names: &Names) {
    let first = create(log, &names.settings("first", 2)).await;
    let later = names.settings("later", 3);
    let mut one = Owner::join(log, names, "one", &first).await;
    one.member
        .subscribe(vec![first.clone(), later.name.clone()]);
    one.own(&partitions(&first, 2)).await;
    let later = create(log, &later).await;
    one.own(&(&partitions(&first, 2) | &partitions(&later, 3)))
        .await;
    one.member.close().await;
}

/// Nobody is given a partition of a topic that it does not want, whoever else wants it.
pub async fn members_share_only_what_each_wants(log: &SharedLog, names: &Names) {
    let first = create(log, &names.settings("first", 2)).await;
    let second = create(log, &names.settings("second", 4)).await;
    let both = &partitions(&first, 2) | &partitions(&second, 4);
    let mut one = Owner::join(log, names, "one", &first).await;
    one.own(&partitions(&first, 2)).await;
    let mut two = Owner::join(log, names, "two", &second).await;
    let settled = |one: &Owner, two: &Owner| {
        let of_first = |owner: &Owner| owner.owned.iter().all(|at| at.topic == first);
        assert!(of_first(one), "{:?}", one.owned);
        one.owned.len() + two.owned.len() == both.len()
    };
    while !settled(&one, &two) {
        tokio::select! {
            revoked = one.step() => drop(revoked),
            revoked = two.step() => drop(revoked),
        }
    }
    assert_eq!(two.owned, partitions(&second, 4));
    one.member.subscribe(vec![first.clone(), second.clone()]);
    while one.owned.iter().all(|at| at.topic == first)
        || one.owned.len() + two.owned.len() < both.len()
    {
        tokio::select! {
            revoked = one.step() => drop(revoked),
            revoked = two.step() => drop(revoked),
        }
        assert!(one.owned.is_disjoint(&two.owned));
        assert!(two.owned.iter().all(|at| at.topic == second));
    }
    assert_eq!(&one.owned | &two.owned, both);
    two.member.close().await;
    one.member.close().await;
}
