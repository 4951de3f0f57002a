//! One replica serves; and the others' word on what they have applied.

use std::time::Duration;

use runtime::log::ProducerOptions;
use runtime::log::simulated::{Latencies, SimulatedLog, SimulationOptions};
use runtime::task::{TaskKind, Tasks};
use runtime::view::report_applied;
use schemas::records::Applied;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::rig::{OPERATOR, Rig, create_topics, environment, options, simulation};
use crate::{Error, NotLeader, run};

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test]
async fn it_serves_over_http_and_ends_when_asked() {
    let sim = simulation().await;
    let (environment, readiness) = environment(&sim, "a");
    let (tasks, listener) = (environment.tasks.clone(), listener().await);
    let address = listener.local_addr().unwrap();
    let asking = async {
        readiness.ready().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /v1/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {OPERATOR}\r\n\
             connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        tasks.cancel();
        answer
    };
    let (ended, answer) = tokio::join!(run(options("a"), environment, listener), asking);
    ended.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with(r#"{"items":[],"next":null}"#), "{answer}");
    assert!(!readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_second_replica_says_so_and_ends() {
    let rig = Rig::start().await;
    let (second, _) = environment(&rig.sim, "b");
    let error = run(options("b"), second, listener().await)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::NotLeader(NotLeader::Taken { .. })),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("another control replica"),
        "{error}"
    );
    // The first is not disturbed.
    rig.operator("POST /v1/tenants", json!({ "id": "a" }))
        .await
        .expect(201);
    let sim = rig.stop().await;
    // When it is gone, another can take its place.
    Rig::on(sim, options("b")).await.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_loses_the_leadership_ends_with_an_error() {
    let sim = simulation().await;
    let (first, readiness) = environment(&sim, "a");
    let watcher = Tasks::new("test");
    let (sender, ended) = oneshot::channel();
    let listener = listener().await;
    watcher.spawn(TaskKind::Command, async move {
        sender.send(run(options("a"), first, listener).await).ok();
        Ok::<_, Error>(())
    });
    readiness.ready().await;
    // As by SIGSTOP for longer than a session, while another takes over.
    sim.stop("a");
    let second = Rig::on(sim.clone(), options("b")).await;
    sim.wake("a");
    let error = ended.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::NotLeader(_) | Error::Writer(_)),
        "{error:?}"
    );
    assert!(!readiness.is_ready());
    second
        .operator("POST /v1/tenants", json!({ "id": "a" }))
        .await
        .expect(201);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_session_ended_leads_again_where_nobody_else_does() {
    let sim = SimulatedLog::new(SimulationOptions {
        latencies: Latencies::busy(),
        ..SimulationOptions::default()
    });
    create_topics(&sim).await;
    let (first, readiness) = environment(&sim, "a");
    let (tasks, watcher) = (first.tasks.clone(), Tasks::new("test"));
    let (sender, ended) = oneshot::channel();
    let listener = listener().await;
    watcher.spawn(TaskKind::Command, async move {
        sender.send(run(options("a"), first, listener).await).ok();
        Ok::<_, Error>(())
    });
    readiness.ready().await;
    for _ in 0..3 {
        sim.faults().expire_session("a");
        // To join again takes longer than to look.
        let closes = async {
            while readiness.is_ready() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within(closes).await;
        within(readiness.ready()).await;
    }
    tasks.cancel();
    within(ended).await.unwrap().unwrap();
    Rig::on(sim, options("b")).await.stop().await;
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(60);
    tokio::time::timeout(deadline, work).await.unwrap()
}

/// Reports, as other services do, how far they have come.
async fn reporter(rig: &Rig) -> impl Fn(&str, &str, i64) + use<> {
    let log = rig.sim.process("others");
    let producer = log
        .producer(ProducerOptions::named("others"))
        .await
        .unwrap();
    let (clock, progress) = (rig.sim.clock(), rig.topics.progress.clone());
    move |service, instance, offset| {
        let applied = Applied {
            version: 1,
            service: service.to_owned(),
            instance: instance.to_owned(),
            control_offset: offset,
            at: clock.now(),
        };
        report_applied(producer.as_ref(), &progress, &applied);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_applied_names_who_is_missing() {
    let rig = Rig::start().await;
    let report = reporter(&rig).await;
    // Nobody reports: nobody is waited for.
    let alone = rig
        .operator("POST /v1/tenants?wait=applied", json!({ "id": "a" }))
        .await;
    assert!(
        !alone
            .expect(201)
            .headers
            .contains_key("anabranch-not-applied")
    );

    report("router", "r1", 1_000_000);
    report("dispatcher", "d1", 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    let waits = rig.operator("PATCH /v1/tenants/a?wait=applied", json!({ "name": "x" }));
    let applies = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        report("dispatcher", "d1", 1_000_000);
    };
    let (answer, ()) = tokio::join!(waits, applies);
    assert!(
        !answer
            .expect(200)
            .headers
            .contains_key("anabranch-not-applied")
    );
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(3) && waited < Duration::from_secs(4),
        "{waited:?}"
    );

    report("dispatcher", "d2", 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    let waits = rig.operator("PATCH /v1/tenants/a?wait=applied", json!({ "name": "y" }));
    let lives = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        report("dispatcher", "d2", 1);
    };
    let (answer, ()) = tokio::join!(waits, lives);
    let answer = answer.expect(200);
    assert_eq!(answer.headers["anabranch-not-applied"], "dispatcher/d2");
    assert_eq!(
        answer.json()["name"],
        "y",
        "the change was made all the same"
    );
    assert!(started.elapsed() >= Duration::from_secs(10));

    // Who has been silent for a session makes no attempts and is not waited for.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let started = Instant::now();
    let alone = rig
        .operator("DELETE /v1/tenants/a?wait=applied", Value::Null)
        .await
        .expect(204);
    assert!(!alone.headers.contains_key("anabranch-not-applied"));
    assert!(started.elapsed() < Duration::from_secs(1));
    rig.stop().await;
}
