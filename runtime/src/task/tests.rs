use std::io;
use std::sync::atomic::AtomicUsize;

use super::*;

type Done = Result<(), io::Error>;

#[tokio::test(start_paused = true)]
async fn an_error_in_a_vital_task_asks_for_a_stop_with_its_cause() {
    let tasks = Tasks::new("router");
    let child = tasks.child("partitions");
    child.spawn(TaskKind::RouterPartition, async {
        Err(io::Error::other("no such partition"))
    });
    let cause = tasks.stopping().await;
    assert!(cause.is_failure());
    assert_eq!(cause.to_string(), "router partition: no such partition");
    assert!(!tasks.token().is_cancelled(), "asking is not cancelling");
    tasks.stop("second cause");
    assert_eq!(tasks.cause().unwrap().to_string(), cause.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_as_a_failure() {
    let tasks = Tasks::new("control");
    tasks.spawn(TaskKind::ControlWriter, async {
        assert!(std::env::args().count() == 0, "broken invariant");
        Done::Ok(())
    });
    assert_eq!(
        tasks.stopping().await.to_string(),
        "control writer: panicked: broken invariant"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_lesser_task_is_only_logged() {
    let tasks = Tasks::new("dispatcher");
    tasks.spawn(TaskKind::Attempt, async {
        Err(io::Error::other("refused"))
    });
    tasks.spawn_blocking(TaskKind::Reporter, || Err(io::Error::other("full")));
    tasks.finished().await;
    assert!(tasks.cause().is_none());
    assert_eq!(tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancelling_aborts_or_waits_as_the_kind_says() {
    let tasks = Tasks::new("ingest");
    let ended = Arc::new(AtomicUsize::new(0));
    let token = tasks.token().clone();
    let count = Arc::clone(&ended);
    tasks.spawn(TaskKind::LogWriter, async move {
        token.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        count.fetch_add(1, Ordering::SeqCst);
        Done::Ok(())
    });
    let count = Arc::clone(&ended);
    tasks.spawn(TaskKind::LogReader, async move {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        count.fetch_add(100, Ordering::SeqCst);
        Done::Ok(())
    });
    assert_eq!(tasks.end(Duration::from_millis(500)).await, ["log writer"]);
    assert!(tasks.end(Duration::from_secs(2)).await.is_empty());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_child_leaves_its_parent_running() {
    let tasks = Tasks::new("up");
    let child = tasks.child("ingest");
    assert_eq!(child.name(), "up/ingest");
    child.cancel();
    assert!(!tasks.token().is_cancelled());
    let busy = tasks.child("router");
    let abort = busy.spawn(TaskKind::RouterLoop, std::future::pending::<Done>());
    assert_eq!(
        tasks.end(Duration::from_secs(1)).await,
        ["router loop"],
        "children count"
    );
    abort.abort();
    tasks.finished().await;
    assert_eq!((tasks.running(), busy.running()), (0, 0));
    assert!(tasks.child("late").token().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn shutdown_runs_in_order_and_names_what_was_late() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str, seconds: u64| {
        let order = Arc::clone(&order);
        async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            order.lock().unwrap().push(name);
        }
    };
    let ended = Shutdown::new(Duration::from_secs(10))
        .step("stop accepting", note("stop accepting", 1))
        .step_within("drain", Duration::from_secs(2), note("drain", 60))
        .step("commit", note("commit", 1))
        .step("leave group", note("leave group", 60))
        .step("close", note("close", 1))
        .run(std::future::pending())
        .await;
    assert_eq!(ended, Ended::Late(vec!["drain", "leave group", "close"]));
    assert_eq!(*order.lock().unwrap(), ["stop accepting", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_the_list_at_once() {
    let second = tokio::time::sleep(Duration::from_secs(1));
    let ended = Shutdown::new(Duration::from_secs(25))
        .step("drain", std::future::pending())
        .step("commit", async {})
        .run(second)
        .await;
    assert_eq!(ended, Ended::Interrupted("drain"));
    let clean = Shutdown::new(Duration::from_secs(25)).step("commit", async {});
    assert_eq!(clean.run(std::future::pending()).await, Ended::Clean);
}

#[test]
fn a_chain_names_each_cause_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("topic `events`: {0}")]
    struct Quoting(#[source] io::Error);
    #[derive(Debug, thiserror::Error)]
    #[error("router")]
    struct Outer(#[source] Quoting);
    let error = Outer(Quoting(io::Error::other("gone")));
    assert_eq!(chain(&error), "router: topic `events`: gone");
}
