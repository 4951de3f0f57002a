//! Owns `wrk`: the limit of what one client posts to one endpoint.
//!
//! The surprise: it sends one request again and again, headers and body as they came, so that the
//! endpoint has the same bytes to read.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::sink::Example;

/// Headers that belong to a connection, which `wrk` makes itself.
const NOT_REPEATED: [&str; 3] = ["host", "content-length", "connection"];

/// Requests a second that `wrk` posts to `url` over `connections`, for `seconds`.
///
/// # Errors
/// Where it cannot be run.
pub(crate) async fn post(
    example: &Example,
    (url, dir): (&str, &Path),
    connections: u32,
    seconds: u64,
) -> anyhow::Result<f64> {
    let script = dir.join("wrk.lua");
    std::fs::write(&script, lua(example))?;
    let mut command = Command::new("wrk");
    command
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg("-s")
        .arg(&script)
        .arg(url)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("wrk")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || said.contains("Non-2xx") {
        bail!("wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    requests_per_second(&said).with_context(|| format!("wrk: {said}"))
}

fn requests_per_second(said: &str) -> Option<f64> {
    let line = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))?;
    line.trim().parse().ok()
}

fn lua(example: &Example) -> String {
    let mut script = String::from("wrk.method = \"POST\"\n");
    for (name, value) in &example.headers {
        if !NOT_REPEATED.contains(&name.as_str()) {
            writeln!(script, "wrk.headers[\"{name}\"] = {}", quoted(value)).ok();
        }
    }
    writeln!(script, "wrk.body = {}", quoted(&example.body)).ok();
    script
}

/// Lua's long brackets take everything but their own end.
fn quoted(text: &str) -> String {
    format!("[==[{text}]==]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let said = "  1 threads and 64 connections\nRequests/sec:  98765.43\nTransfer/sec: 1MB\n";
        assert!((requests_per_second(said).unwrap() - 98_765.43).abs() < 1e-6);
        assert_eq!(requests_per_second("nothing"), None);
    }

    #[test]
    fn the_request_is_repeated_without_what_belongs_to_a_connection() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let script = lua(&Example {
            headers: vec![pair("host", "h"), pair("webhook-id", "msg_1")],
            body: "{\"a\":\"]]\"}".to_owned(),
        });
        assert!(!script.contains("host"));
        assert!(script.contains("wrk.headers[\"webhook-id\"] = [==[msg_1]==]"));
        assert!(script.contains("wrk.body = [==[{\"a\":\"]]\"}]==]"));
    }
}
