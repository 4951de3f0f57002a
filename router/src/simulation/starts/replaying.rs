//! The events before a subscription is live: at which pace, in which order, and what ends them.

use std::time::Duration;

use runtime::log::Headers;
use schemas::filter::Filters;
use schemas::records::ControlObject;
use schemas::resources::{
    Endpoint, EndpointState, Quota, StartFrom, StartPosition, Subscription, SubscriptionState,
};

use super::super::auditor::Audit;
use super::super::{Cluster, event, event_record};
use super::{ROUTER, START, check, cluster, id, written};

#[tokio::test(start_paused = true)]
async fn past_events_are_replayed_from_a_time_on_and_live_ones_go_on() {
    let mut cluster = cluster().await;
    cluster.publish_events(0..100).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let at = cluster.clock.now();
    cluster.publish_events(100..200).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.publish_events(200..300).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let audit = Audit::of(&cluster);
    assert_eq!(written(&audit, made.id).len(), 200);
    assert_eq!(audit.repeats(), 0);
    let activations = cluster.activations();
    assert_eq!(activations.len(), 4, "one for each source partition");
    assert!(activations.values().all(|activation| activation.done));
    let replayed = cluster.gauge("anabranch_router_replay_targets_total ", ROUTER);
    assert!((90..=110).contains(&replayed), "{replayed}");
}

#[tokio::test(start_paused = true)]
async fn an_ordered_replay_meets_the_live_position_without_a_seam() {
    let mut cluster = cluster().await;
    cluster.options.replay_rate = 200;
    cluster.crash(ROUTER);
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..300).await;
    let made = cluster.start_from(START, StartFrom::At(at), true).await;
    cluster.publish_events(300..600).await;
    cluster.settle_replays().await;
    cluster.publish_events(600..640).await;
    cluster.settle().await;
    check(&cluster, &made, at);
    assert!(
        cluster
            .activations()
            .values()
            .all(|activation| activation.offset.is_some())
    );
    assert_eq!(written(&Audit::of(&cluster), made.id).len(), 640);
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_where_its_last_owner_was() {
    let mut cluster = cluster().await;
    cluster.crash(ROUTER);
    cluster.options.replay_rate = 20;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        cluster.crash(&format!("router-{}", round + 1));
        cluster.start(&format!("router-{}", round + 2));
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    cluster.publish_events(400..420).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let audit = Audit::of(&cluster);
    assert!(audit.repeats() < 300, "it began anew: {}", audit.repeats());
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_a_replay_over_without_a_repeat() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 50;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.start("router-2");
    tokio::time::sleep(Duration::from_millis(900)).await;
    cluster.stop(ROUTER).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    assert_eq!(
        Audit::of(&cluster).repeats(),
        0,
        "what is in flight is awaited"
    );
}

#[tokio::test(start_paused = true)]
async fn past_events_keep_their_pace_and_hold_nobody_up() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    for number in 0..200 {
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
    }
    let before = cluster.clock.now();
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 200..220 {
        let sent = cluster.clock.now();
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
        let (_, _) = (sent, number);
        let both = |cluster: &Cluster| {
            let audit = Audit::of(cluster);
            let place = (0, i64::try_from(number).unwrap());
            [id(1), made.id]
                .iter()
                .all(|to| written(&audit, *to).contains(&place))
        };
        cluster.until("live", both).await;
        assert!(
            cluster.clock.now() - sent <= 20,
            "a live event waited for past ones"
        );
    }
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let took = cluster.clock.now() - before;
    assert!((19_000..40_000).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_a_replay_and_a_deletion_takes_its_records_back() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    // More than an ordered replay takes to meet the live position at once.
    for number in 0..700 {
        cluster
            .publish(0, &event("acme", "lead", number, "data"))
            .await;
    }
    let ordered = cluster.start_from(START, StartFrom::At(at), true).await;
    let made = cluster
        .start_from(START + 1, StartFrom::At(at), false)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (subscription, state) in [
        (&ordered, SubscriptionState::Paused),
        (&made, SubscriptionState::Paused),
        (&ordered, SubscriptionState::Active),
        (&made, SubscriptionState::Active),
    ] {
        let changed = Subscription {
            state,
            start: Some(StartPosition {
                from: StartFrom::At(at),
                ended: true,
            }),
            updated_at: 1,
            ..subscription.clone()
        };
        cluster.put(changed).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.settle_replays().await;
    let so_far = Audit::of(&cluster);
    for subscription in [&ordered, &made] {
        let replayed = written(&so_far, subscription.id).len();
        assert!((1..200).contains(&replayed), "{replayed}");
    }
    cluster.publish_events(700..740).await;
    cluster.settle().await;
    let audit = Audit::of(&cluster);
    for subscription in [&ordered, &made] {
        let more = written(&audit, subscription.id).len() - written(&so_far, subscription.id).len();
        assert_eq!(more, 40, "it is live again");
    }
    cluster.delete(START).await;
    cluster.delete(START + 1).await;
    cluster
        .until("taken back", |cluster| cluster.activations().is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_of_the_range_is_said_and_is_no_incident() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    cluster.settle().await;
    let source = cluster.sources()[0].clone();
    cluster.sim.faults().delete_before(&source, 10);
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert_eq!(found.len(), 70);
    assert_eq!(
        cluster.gauge("anabranch_router_replay_cut_total ", ROUTER),
        1
    );
    assert_eq!(
        cluster.gauge("anabranch_router_incidents_total ", ROUTER),
        0
    );
    assert!(Audit::of(&cluster).dead.is_empty());
    let cut: Vec<_> = cluster
        .activations()
        .into_values()
        .filter_map(|one| one.log_start)
        .collect();
    assert_eq!(cut, [10]);
}

#[tokio::test(start_paused = true)]
async fn retention_that_overtakes_a_replay_lets_it_go_on_where_the_log_begins() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 1;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    cluster.settle().await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let source = cluster.sources()[0].clone();
    cluster.stop(ROUTER).await;
    cluster.sim.faults().delete_before(&source, 50);
    cluster.options.replay_rate = 1_000;
    cluster.start("router-2");
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert!((350..400).contains(&found.len()), "{}", found.len());
    assert_eq!(
        cluster.gauge("anabranch_router_replay_cut_total ", "router-2"),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn past_events_wait_while_their_endpoint_is_not_attempted() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    cluster.publish_events(0..80).await;
    cluster.settle().await;
    let model = cluster.subscriptions[&id(1)].clone();
    let of_start = schemas::ids::EndpointId::from_bits(START);
    let mut endpoint = Endpoint::new(
        of_start,
        model.tenant.clone(),
        Quota::of_endpoint(of_start),
        model.placement,
    );
    endpoint.state = EndpointState::Disabled;
    cluster
        .control(&ControlObject::Endpoint(Box::new(endpoint.clone())))
        .await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    cluster.publish_events(80..84).await;
    cluster.settle().await;
    let found = written(&Audit::of(&cluster), made.id);
    assert_eq!(found.len(), 4, "what is live is not held back");
    endpoint.state = EndpointState::Active;
    cluster
        .control(&ControlObject::Endpoint(Box::new(endpoint)))
        .await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
}

#[tokio::test(start_paused = true)]
async fn a_past_event_that_the_log_refuses_is_a_dead_letter_and_the_others_go_on() {
    let mut cluster = cluster().await;
    let at = cluster.clock.now();
    for number in 0..20 {
        let data = if number == 7 { "poison" } else { "data" };
        cluster
            .publish(0, &event("acme", "lead", number, data))
            .await;
    }
    let mut junk = event_record(
        &cluster.topics.events,
        0,
        &event("acme", "lead", 20, "data"),
    );
    junk.headers = Headers::default();
    cluster.publisher.write(junk).await;
    cluster.settle().await;
    let dead = Audit::of(&cluster).dead.len();
    cluster
        .sim
        .faults()
        .refuse_values(&cluster.topics.deliveries, "poison");
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.settle_replays().await;
    let audit = Audit::of(&cluster);
    check(&cluster, &made, at);
    assert_eq!(
        audit.dead.len(),
        dead + 1,
        "what cannot be read was a dead letter before"
    );
    assert_eq!(audit.dead.last().unwrap().subscription, Some(made.id));
}

#[tokio::test(start_paused = true)]
async fn a_changed_filter_counts_for_what_is_not_yet_replayed() {
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 10;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    cluster.publish_events(0..400).await;
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let narrowed = Subscription {
        filters: Filters::parse_str(r#"[{"suffix":{"id":"0"}}]"#).unwrap(),
        updated_at: 1,
        ..made.clone()
    };
    cluster.put(narrowed).await;
    cluster.settle_replays().await;
    let found = written(&Audit::of(&cluster), made.id).len();
    assert!((40..250).contains(&found), "{found}");
}

#[tokio::test(start_paused = true)]
async fn of_who_gets_nothing_little_is_put_on_record() {
    const QUIET: u128 = 20;
    let mut cluster = cluster().await;
    cluster.stop(ROUTER).await;
    cluster.options.replay_rate = 20;
    cluster.start(ROUTER);
    let at = cluster.clock.now();
    for number in 0..400 {
        let event = event("acme", "lead", number, "data");
        cluster.publish(0, &event).await;
    }
    for number in 1..=QUIET {
        let none = r#"[{"exact":{"type":"nothing"}}]"#;
        let from = StartFrom::At(at);
        cluster
            .subscribe_later(START + number, none, from, false)
            .await;
    }
    let made = cluster.start_from(START, StartFrom::At(at), false).await;
    cluster.settle_replays().await;
    check(&cluster, &made, at);
    let records = cluster.activation_records();
    let of = |number: u128| {
        let own = records.iter();
        own.filter(|(key, _)| key.partition == 0 && key.subscription == id(START + number))
            .count()
    };
    // It takes 20 s, and a thing is said of all every 10.
    assert!(of(0) >= 15, "{}", of(0));
    for number in 1..=QUIET {
        assert!((2..=8).contains(&of(number)), "{}", of(number));
        let own = cluster.activations_of(id(START + number));
        assert!(own.iter().all(|one| one.done));
    }
}
