//! Grafana's dashboard, against a real Prometheus that scrapes the running services.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Api, Log, Process, always, eventually, fails, free_port, ok};
use reqwest::Method;
use serde_json::Value;

use crate::pipeline_on;

const DASHBOARD: &str = include_str!("../../deploy/grafana/anabranch.json");

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is json");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let text = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
    // What Grafana fills in.
    let filled = |query: String| {
        query
            .replace("$__rate_interval", "10s")
            .replace("$instance", ".*")
    };
    targets.map(text).map(filled).collect()
}

#[tokio::test]
async fn every_query_of_the_dashboard_returns_data() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        harness::not_run("the dashboard's queries: prometheus is not installed");
        return;
    }
    let pipeline = pipeline_on(Log::Kafka).start().await;
    // Something in every panel: deliveries, retries, dead letters.
    let _endpoints = [
        pipeline.subscribed(ok()).await,
        pipeline.subscribed(fails(1)).await,
        pipeline.subscribed(always(422)).await,
    ];
    let load = pipeline.load("com.acme.load", 50);
    let dir = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let _prometheus = prometheus(dir.path(), port, &pipeline.admin_ports());
    let api = Api::new(&format!("http://127.0.0.1:{port}"), "");
    let queries = queries();
    assert!(queries.len() > 20, "{}", queries.len());
    for query in &queries {
        eventually(query, Duration::from_secs(60), async || {
            has_data(&api, query).await.then_some(())
        })
        .await;
    }
    drop(load.stop());
}

/// Scrapes as `deploy/prometheus/prometheus.yml` says, but each second and these ports.
fn prometheus(dir: &Path, port: u16, admin_ports: &[u16]) -> Process {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/prometheus.yml");
    let config = std::fs::read_to_string(deploy).expect("the configuration to scrape");
    let faster = config
        .replace("scrape_interval: 5s", "scrape_interval: 1s")
        .replace("scrape_timeout: 4s", "scrape_timeout: 1s");
    assert_ne!(
        config, faster,
        "the configuration has the intervals that are made shorter here"
    );
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, faster).expect("a file");
    let targets: Vec<String> = admin_ports
        .iter()
        .map(|port| format!("    - 127.0.0.1:{port}\n"))
        .collect();
    let targets = format!("- targets:\n{}", targets.concat());
    std::fs::write(dir.join("targets.yml"), targets).expect("a file");
    let args = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", dir.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    Process::start("prometheus", Path::new("prometheus"), &args, dir)
}

/// Whether a query has a value that is a number.
async fn has_data(api: &Api, query: &str) -> bool {
    let form = "application/x-www-form-urlencoded".to_owned();
    let headers = [("content-type".to_owned(), form)];
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = format!("query={encoded}");
    let Ok(answer) = api
        .send(Method::POST, "/api/v1/query", &headers, body)
        .await
    else {
        return false;
    };
    if answer.status != 200 {
        assert_eq!(answer.status, 503, "{query}: {answer:?}");
        return false;
    }
    let result = answer.json()["data"]["result"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    result.iter().any(|sample| {
        sample["value"][1]
            .as_str()
            .is_some_and(|value| value.parse().is_ok_and(f64::is_finite))
    })
}
