//! Cohorts into a partner's list: what the four benchmarks share.
//!
//! Owns a stack with a cohort, an endpoint at a simulated partner and a sync between them. It must
//! never call a sync done before the partner holds exactly the cohort. The surprise: the partner
//! speaks `generic-50` with other limits.

mod beside;
mod first;
mod limit;
mod naive;

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use schemas::profile::{Profile, Window, ready};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Plan;
use crate::client::Connection;
use crate::events::TENANT;
use crate::members::{Members, pieces};
use crate::partner::Partner;
use crate::stack::{Service, Stack};

pub(super) use beside::run as beside_realtime;
pub(super) use first::run as first;
pub(super) use limit::run as limit;
pub(super) use naive::run as naive;

const LOOK: Duration = Duration::from_millis(50);
/// Nothing has come for so long: nothing will.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests at once where nothing else is measured.
const AT_ONCE: u32 = 64;

/// A cohort, a partner, and a sync between them.
#[derive(Debug)]
struct Ground {
    stack: Stack,
    partner: Partner,
    cohort: String,
    sync: String,
}

/// How long a sync took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Took {
    upload: f64,
    run: f64,
}

/// `generic-50` with limits of its own: none of the rate where none is given.
fn profile(items: u32, at_once: u32, window: Option<(u32, u32)>) -> anyhow::Result<Profile> {
    let text = ready("generic-50").context("no such profile")?;
    let read = Profile::from_yaml(text);
    let mut profile = read.map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let limits = &mut profile.limits;
    limits.items = NonZeroU32::new(items).context("no items")?;
    limits.concurrency = NonZeroU32::new(at_once);
    limits.windows.retain(|_| window.is_some());
    if let (Some((requests, seconds)), Some(first)) = (window, limits.windows.first_mut()) {
        *first = Window {
            requests: NonZeroU32::new(requests),
            seconds: NonZeroU32::new(seconds).context("no seconds")?,
            ..*first
        };
    }
    profile.authentication.clear();
    Ok(profile)
}

impl Ground {
    /// Starts everything; `services` run beside control, cohorts and the dispatcher.
    async fn new(
        plan: &Plan,
        profile: &Profile,
        args: &[&str],
        services: &[Service],
    ) -> anyhow::Result<Self> {
        let mut all = vec![Service::Dispatcher, Service::Cohorts];
        all.extend(services);
        let stack = Stack::kafka(plan, &all).await?;
        let partner = Partner::start(&plan.bin, stack.dir(), profile, args).await?;
        let mut api = stack.api().await?;
        let mut make = async |what: &str, body: Value| -> anyhow::Result<String> {
            let path = format!("/v1/tenants/{TENANT}/{what}");
            let made = api.json(Method::POST, &path, Some(&body)).await?;
            let id = made.get("id").or_else(|| made.pointer("/endpoint/id"));
            let id = id.and_then(Value::as_str);
            Ok(id.with_context(|| format!("no id: {made}"))?.to_owned())
        };
        let url = format!("http://{}", partner.address());
        let endpoint = make("endpoints", json!({ "url": url })).await?;
        let cohort = make("cohorts", json!({ "name": "load" })).await?;
        let wanted = json!({
            "cohort": cohort, "endpoint": endpoint, "profile": profile,
            "variables": { "name": "load" },
        });
        let sync = make("syncs", wanted).await?;
        stack.wait_applied().await?;
        Ok(Self {
            stack,
            partner,
            cohort,
            sync,
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/tenants/{TENANT}/{rest}")
    }

    /// Uploads `members` and syncs them; the partner holds exactly them afterwards.
    async fn sync(&mut self, members: Members) -> anyhow::Result<Took> {
        let file = self.stack.dir().join("members.ndjson");
        members.write(&file)?;
        let began = Instant::now();
        let snapshot = self.upload(&file).await?;
        let upload = began.elapsed().as_secs_f64();
        std::fs::remove_file(&file)?;
        let began = Instant::now();
        self.start_run().await?;
        self.finish(&snapshot).await?;
        let run = began.elapsed().as_secs_f64();
        let (held, wanted) = (self.partner.held().await?, members.held());
        ensure!(held == wanted, "the partner holds {held:?}, not {wanted:?}");
        Ok(Took { upload, run })
    }

    /// Uploads a file; gives the snapshot's id.
    async fn upload(&self, file: &Path) -> anyhow::Result<String> {
        let path = self.path(&format!("cohorts/{}/snapshots", self.cohort));
        let body = pieces(file)?;
        let made = self
            .stack
            .upload(&path, "application/x-ndjson", body)
            .await?;
        let id = made.pointer("/snapshot/id").and_then(Value::as_str);
        Ok(id
            .with_context(|| format!("no snapshot: {made}"))?
            .to_owned())
    }

    /// Asks for a run.
    async fn start_run(&self) -> anyhow::Result<()> {
        let mut cohorts = self.stack.cohorts().await?;
        let path = self.path(&format!("syncs/{}/runs", self.sync));
        cohorts.json(Method::POST, &path, Some(&json!({}))).await?;
        Ok(())
    }

    /// Waits until the sync is done with a snapshot.
    async fn finish(&self, snapshot: &str) -> anyhow::Result<()> {
        let mut cohorts = self.stack.cohorts().await?;
        let path = self.path(&format!("syncs/{}", self.sync));
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let status = status(&mut cohorts, &path).await?;
            let text = |at: &str| status.pointer(at).and_then(Value::as_str);
            let is_idle = text("/state") == Some("idle");
            if is_idle && text("/last/snapshot") == Some(snapshot) {
                ensure!(text("/last/outcome") == Some("done"), "{status}");
                return Ok(());
            }
            let confirmed = status.pointer("/counts/confirmed").and_then(Value::as_u64);
            let confirmed = confirmed.unwrap_or(0);
            if confirmed > before {
                (before, since) = (confirmed, Instant::now());
            } else if since.elapsed() > PATIENCE {
                bail!("the sync does not move: {status}");
            }
            sleep(LOOK).await;
        }
    }
}

async fn status(cohorts: &mut Connection, path: &str) -> anyhow::Result<Value> {
    cohorts.json(Method::GET, path, None).await
}
