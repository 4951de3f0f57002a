//! Owns the commands about tenants, keys, endpoints, subscriptions and webhooks: each is one request
//! of the public API, and its answer on standard output.
//!
//! It must never hide a part of an answer: a secret that is shown once would be lost. The surprise:
//! a change waits until routers and dispatchers have applied it, so that what is published next
//! finds it.

mod limit;
mod request;
mod sending;

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

pub(crate) use self::request::Request;
use crate::api::Api;
use crate::output;
use crate::settings::{Settings, Usage};

/// Who had not applied a change when the API stopped waiting.
const NOT_APPLIED: &str = "anabranch-not-applied";

/// Sends the request and prints the answer.
///
/// # Errors
/// What the API refuses, and what went wrong on the way.
pub(crate) async fn run(request: Request, settings: &Settings) -> anyhow::Result<ExitCode> {
    let api = Api::new(&request.api, &settings.config().general.data_dir)?;
    if request.list {
        list(&api, &request).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let waits = request.wait && request.method != Method::GET;
    let query: &[(&str, &str)] = if waits { &[("wait", "applied")] } else { &[] };
    let body = request.body.as_ref();
    let answer = api
        .control(request.method.clone(), &path, query, body)
        .await?;
    let value = answer.json()?;
    if !value.is_null() {
        output::line(serde_json::to_string_pretty(&value)?)?;
    }
    let late = answer
        .headers
        .get(NOT_APPLIED)
        .and_then(|names| names.to_str().ok());
    if let Some(late) = late.filter(|late| !late.is_empty()) {
        output::note(format_args!("note: not applied yet by {late}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints every object of every page, one a line.
async fn list(api: &Api, request: &Request) -> anyhow::Result<()> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "100")];
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor.as_str()));
        }
        let mut page = api
            .control(Method::GET, &path, &query, None)
            .await?
            .json()?;
        let items = page.get_mut("items").map(Value::take);
        let Some(Value::Array(items)) = items else {
            anyhow::bail!("answer is not a page of objects");
        };
        for item in items {
            output::line(item)?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// Reads a flag's JSON.
fn json(flag: &str, text: &str) -> Result<Value, Usage> {
    serde_json::from_str(text).map_err(|error| Usage(format!("`{flag}` is not json: {error}")))
}
