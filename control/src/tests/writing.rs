//! That an answer is never ahead of the log, and that a restart knows what was answered.

use runtime::log::simulated::{Fault, Operation, SimulatedLog, SimulationOptions};
use serde_json::{Value, json};

use super::rig::{Rig, create_topics, options};

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_there_after_a_restart() {
    let rig = Rig::start().await;
    let key = rig.acme().await;
    let path = rig.endpoint().await;
    let before = rig
        .call(&key, &format!("GET {path}"), Value::Null)
        .await
        .expect(200)
        .json();
    let sim = rig.stop().await;
    let rig = Rig::on(sim, options("b")).await;
    let after = rig
        .call(&key, &format!("GET {path}"), Value::Null)
        .await
        .expect(200)
        .json();
    assert_eq!(after, before);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn placements_use_the_partition_count_of_the_first_start() {
    let rig = Rig::start().await;
    rig.acme().await;
    let sim = rig.stop().await;
    let mut later = options("b");
    later.partitions = std::num::NonZeroU32::new(1).unwrap();
    let rig = Rig::on(sim, later).await;
    let mut placements = std::collections::BTreeSet::new();
    for _ in 0..20 {
        rig.endpoint().await;
    }
    let text = String::from_utf8(rig.control_bytes()).unwrap();
    for part in text.split("\"placement\":").skip(1) {
        placements.insert(part.split(',').next().unwrap().to_owned());
    }
    assert!(placements.len() > 1, "{placements:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_found_out_before_the_answer() {
    let check = async |fault: Fault, status: u16| {
        let rig = Rig::start().await;
        let key = rig.acme().await;
        rig.sim
            .faults()
            .fail_next_of("a", Operation::Transaction, fault);
        let body = json!({ "url": "https://a.example" });
        let answer = rig
            .call(&key, "POST /v1/tenants/acme/endpoints", body.clone())
            .await;
        let answer = answer.expect(status);
        let made = usize::from(status == 201);
        if status == 503 {
            assert!(answer.headers.contains_key("retry-after"));
        }
        let list = rig
            .call(&key, "GET /v1/tenants/acme/endpoints", Value::Null)
            .await;
        assert_eq!(
            list.json()["items"].as_array().unwrap().len(),
            made,
            "{fault:?}"
        );
        // It goes on.
        rig.call(&key, "POST /v1/tenants/acme/endpoints", body)
            .await
            .expect(201);
        let list = rig
            .call(&key, "GET /v1/tenants/acme/endpoints", Value::Null)
            .await;
        assert_eq!(
            list.json()["items"].as_array().unwrap().len(),
            made + 1,
            "{fault:?}"
        );
        rig.stop().await;
    };
    check(Fault::LostReply, 201).await;
    check(Fault::LostRequest, 503).await;
    check(Fault::Refused, 503).await;
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_found_out_is_said_to_be_unknown() {
    let rig = Rig::start().await;
    rig.sim
        .faults()
        .fail_next_of("a", Operation::Transaction, Fault::LostReply);
    for _ in 0..60 {
        rig.sim
            .faults()
            .fail_next_of("a", Operation::OpenTransactions, Fault::Refused);
    }
    let tenant = json!({ "id": "acme" });
    let answer = rig
        .operator("POST /v1/tenants", tenant.clone())
        .await
        .expect(503);
    assert!(answer.string("/detail").contains("not known"), "{answer:?}");
    // Repeating is safe: it had been made.
    rig.operator("POST /v1/tenants", tenant).await.expect(200);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn requests_at_once_never_decide_on_the_same_state() {
    let rig = Rig::start().await;
    let make = |name: &'static str| {
        let body = json!({ "id": "acme", "name": name });
        let rig = &rig;
        async move { rig.operator("POST /v1/tenants", body).await.status.as_u16() }
    };
    let (a, b, c) = tokio::join!(make("a"), make("b"), make("c"));
    let mut statuses = [a, b, c];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn on_a_rough_log_every_answer_is_true() {
    for seed in 0..8 {
        let sim = SimulatedLog::new(SimulationOptions::rough(seed));
        create_topics(&sim).await;
        let rig = Rig::on(sim, options("a")).await;
        let mut made = Vec::new();
        for number in 0..40 {
            let id = format!("tenant-{number:02}");
            let answer = rig.operator("POST /v1/tenants", json!({ "id": id })).await;
            match answer.status.as_u16() {
                201 => made.push(id),
                // Not made, or nobody knows: the list below says which.
                503 => {}
                other => panic!("seed {seed}: {other}: {answer:?}"),
            }
        }
        let sim = rig.stop().await;
        let rig = Rig::on(sim, options("b")).await;
        let list = rig
            .operator("GET /v1/tenants?limit=100", Value::Null)
            .await
            .expect(200)
            .json();
        let items = list["items"].as_array().unwrap();
        let kept: Vec<_> = items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        for id in &made {
            assert!(
                kept.contains(&id.as_str()),
                "seed {seed}: {id} was answered and is lost"
            );
        }
        assert!(
            made.len() > 20,
            "seed {seed}: only {} of 40 were made",
            made.len()
        );
        rig.stop().await;
    }
}
