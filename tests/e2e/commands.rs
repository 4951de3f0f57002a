//! The command line as a user meets it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::{Log, Process, eventually, ok};
use reqwest::Method;
use serde_json::json;

use crate::{on_both_logs, pipeline, pipeline_on};

on_both_logs!(keys_open_what_is_theirs_and_nothing_else);

const BINARY: &str = env!("CARGO_BIN_EXE_anabranch");
/// A mistake on the command line or in the configuration.
const EXIT_USAGE: i32 = 64;

/// Runs the binary in a folder of its own, without anything that this machine has configured.
pub(crate) fn anabranch(dir: &Path, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANABRANCH_") {
            command.env_remove(name);
        }
    }
    command.args(args).current_dir(dir).stdin(Stdio::piped());
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary");
    // A command that reads nothing may have ended.
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .ok();
    child.wait_with_output().expect("the binary")
}

pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[tokio::test]
async fn the_demo_delivers_everything_and_ends() {
    demo(&[]).await;
}

#[tokio::test]
async fn the_demo_does_the_same_on_kafka() {
    let prefix = format!("topics.prefix=demo-{:x}.", harness::now_ms());
    demo(&["--brokers", harness::Broker::shared(), "--set", &prefix]).await;
}

async fn demo(args: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut all = vec!["demo".to_owned()];
    all.extend(args.iter().map(ToString::to_string));
    let mut demo = Process::start("demo", Path::new(BINARY), &all, dir.path());
    let status = demo.exit(Duration::from_secs(100)).await;
    assert!(status.success(), "{status}: {}", demo.output());
    assert!(demo.output().contains("300"), "{}", demo.output());
}

#[tokio::test]
async fn a_second_process_on_one_data_folder_is_refused() {
    let pipeline = pipeline().on(Log::Embedded).start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let data = pipeline.data_dir().display().to_string();
    let mut args = vec!["up", "--data-dir", &data];
    for bind in ["admin", "ingest", "control", "cohorts"] {
        args.extend([
            "--set",
            match bind {
                "admin" => "admin.bind=127.0.0.1:0",
                "ingest" => "ingest.bind=127.0.0.1:0",
                "cohorts" => "cohorts.bind=127.0.0.1:0",
                _ => "control.bind=127.0.0.1:0",
            },
        ]);
    }
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    let mut second = Process::start("second", Path::new(BINARY), &args, dir.path());
    let status = second.exit(Duration::from_secs(30)).await;
    assert_eq!(status.code(), Some(1), "{}", second.output());
    let said = second.output();
    assert!(said.contains("in use by process"), "{said}");
    assert!(said.contains(&data), "names the folder: {said}");
}

#[test]
fn a_service_without_brokers_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    for service in ["ingest", "router", "dispatcher", "control", "cohorts"] {
        let output = anabranch(dir.path(), &[service], "");
        assert_eq!(
            output.status.code(),
            Some(EXIT_USAGE),
            "{service}: {output:?}"
        );
        let said = text(&output);
        assert!(
            said.contains(service) && said.contains("anabranch up"),
            "{said}"
        );
    }
}

#[test]
fn control_is_never_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = format!("secrets.keys=first:{}=", "A".repeat(43));
    let args = ["control", "--brokers", "127.0.0.1:1", "--set", &key];
    let output = anabranch(dir.path(), &args, "");
    assert_eq!(output.status.code(), Some(EXIT_USAGE), "{output:?}");
    assert!(text(&output).contains("control.operator_key"), "{output:?}");
}

async fn keys_open_what_is_theirs_and_nothing_else(log: Log) {
    let pipeline = pipeline_on(log).start().await;
    let endpoint = pipeline.subscribed(ok()).await;
    let tenant = pipeline.control();
    let operator = tenant.with_key(pipeline.operator_key());
    let _other = operator
        .make("/v1/tenants?wait=applied", &json!({ "id": "other" }))
        .await;
    let made = tenant
        .make(&pipeline.path("/keys"), &json!({ "endpoint": endpoint.id }))
        .await;
    let owner = tenant.with_key(made["key"].as_str().expect("shown once"));
    let of_the_endpoint = pipeline.path(&format!("/endpoints/{}", endpoint.id));
    let check = async |api: &harness::Api, path: &str, expected: &[u16]| {
        let answer = api.call(Method::GET, path, None).await;
        assert!(expected.contains(&answer.status), "{path}: {answer:?}");
    };
    check(&tenant.with_key(""), &of_the_endpoint, &[401]).await;
    check(&tenant.with_key("nobody"), &of_the_endpoint, &[401]).await;
    check(&operator, &of_the_endpoint, &[200]).await;
    check(&operator, "/v1/tenants", &[200]).await;
    check(tenant, &of_the_endpoint, &[200]).await;
    check(tenant, "/v1/tenants/other/endpoints", &[403, 404]).await;
    check(&owner, &of_the_endpoint, &[200]).await;
    check(&owner, &pipeline.path("/subscriptions"), &[403, 404]).await;
    // Rule 17: the secret was shown once.
    let shown = tenant.call(Method::GET, &of_the_endpoint, None).await;
    assert!(!shown.text.contains(&endpoint.secret), "{}", shown.text);
    // Ingest: no key, somebody else's tenant, the owner of an endpoint.
    let events = pipeline.path("/events");
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/", "type": "a" });
    for (key, expected) in [
        ("", vec![401]),
        (made["key"].as_str().unwrap_or(""), vec![401, 403]),
    ] {
        let api = pipeline.ingest().with_key(key);
        let answer = api.call(Method::POST, &events, Some(&event)).await;
        assert!(expected.contains(&answer.status), "{answer:?}");
    }
    let foreign = "/v1/tenants/other/events";
    let answer = pipeline
        .ingest()
        .call(Method::POST, foreign, Some(&event))
        .await;
    assert!([403, 404].contains(&answer.status), "{answer:?}");
    assert_eq!(endpoint.sink.count(), 0);
}

/// What the README says, by hand: a tenant, a webhook, events from a file.
#[tokio::test]
async fn a_webhook_is_made_and_events_are_published_by_hand() {
    let pipeline = pipeline().on(Log::Embedded).start().await;
    let sink = harness::Sink::start(ok());
    let dir = tempfile::tempdir().expect("a folder");
    let data = pipeline.data_dir().display().to_string();
    let run = |args: &[&str], input: &str| {
        let (control, ingest) = (pipeline.control().base(), pipeline.ingest().base());
        let mut all = args.to_vec();
        all.extend(["--data-dir", &data, "--control-url", control]);
        if args[0] == "publish" {
            all.extend(["--ingest-url", ingest]);
        }
        anabranch(dir.path(), &all, input)
    };
    let made = run(&["tenant", "create", "by-hand"], "");
    assert!(made.status.success(), "{}", text(&made));
    let url = sink.url();
    let made = run(
        &["webhook", "create", "--tenant", "by-hand", "--url", &url],
        "",
    );
    assert!(made.status.success(), "{}", text(&made));
    let lines: String = (0..3)
        .map(|number| harness::event("com.acme.a", format!("line-{number}")).structured() + "\n")
        .collect();
    let published = eventually(
        "the tenant known to ingest",
        harness::DEADLINE,
        async || {
            let output = run(&["publish", "--tenant", "by-hand", "-"], &lines);
            output.status.success().then_some(output)
        },
    )
    .await;
    assert!(text(&published).contains('3'), "{}", text(&published));
    for number in 0..3 {
        sink.expect_event(&format!("line-{number}")).await;
    }
    let first = lines.lines().next().expect("a line");
    let told = run(&["explain", "--tenant", "by-hand", "--event", "-"], first);
    assert!(text(&told).starts_with("✓  sub_"), "{}", text(&told));
    let of_one = [
        "filter",
        "dry-run",
        "--tenant",
        "by-hand",
        "--sql",
        "id = 'line-1'",
    ];
    let tried = run(&of_one, "");
    assert!(
        text(&tried).starts_with("1 of 3 events match"),
        "{}",
        text(&tried)
    );
    let wrong = run(
        &["filter", "dry-run", "--tenant", "by-hand", "--sql", "id ="],
        "",
    );
    assert!(!wrong.status.success(), "{}", text(&wrong));
    assert!(
        text(&wrong).contains("byte 4 (line 1, column 5)"),
        "{}",
        text(&wrong)
    );
}
