//! Owns a simulated partner in a process of its own, and what it holds and counted.
//!
//! It must never be told what to expect. The surprise: it is the binary under test that plays the
//! partner, from the same profile that the sync gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use schemas::profile::Profile;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::child::{Child, free_address};
use crate::client::{Connection, is_ok};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// A running partner.
#[derive(Debug)]
pub(crate) struct Partner {
    address: SocketAddr,
    child: Child,
    questions: Connection,
}

/// What it counted.
#[derive(Debug, Deserialize)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) added_again: u64,
    pub(crate) limited: u64,
    pub(crate) first_ms: Option<u64>,
    pub(crate) last_ms: Option<u64>,
}

/// What a list holds.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Held {
    pub(crate) count: u64,
    pub(crate) ids: String,
}

impl Counts {
    /// Seconds from the first request with members to the last.
    pub(crate) fn seconds(&self) -> f64 {
        let between = self.last_ms.zip(self.first_ms);
        let millis = between.map_or(0, |(last, first)| last.saturating_sub(first));
        Duration::from_millis(millis).as_secs_f64()
    }
}

impl Partner {
    /// Starts the partner that `profile` describes.
    ///
    /// # Errors
    /// Where it does not come up.
    pub(crate) async fn start(
        bin: &Path,
        dir: &Path,
        profile: &Profile,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let file = dir.join("partner.yaml");
        std::fs::write(&file, serde_json::to_vec(profile)?)?;
        let address = free_address()?;
        let mut all = vec!["simulate".to_owned(), file.display().to_string()];
        all.extend(["--compact", "--listen"].map(str::to_owned));
        all.push(address.to_string());
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let mut child = Child::start("partner", bin, &all, dir)?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ok(address, "/_simulator/stats").await {
            child.must_run()?;
            ensure!(
                Instant::now() < deadline,
                "the partner does not answer at {address}"
            );
            sleep(LOOK).await;
        }
        Ok(Self {
            address,
            child,
            questions: Connection::open(address, "").await?,
        })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counted.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn counts(&mut self) -> anyhow::Result<Counts> {
        self.ask("/_simulator/stats").await
    }

    /// What the only list that was made holds.
    ///
    /// # Errors
    /// Where there is none.
    pub(crate) async fn held(&mut self) -> anyhow::Result<Held> {
        let lists: BTreeMap<String, u64> = self.ask("/_simulator/lists").await?;
        let list = lists.keys().next().context("the partner has no list")?;
        self.ask(&format!("/_simulator/lists/{list}")).await
    }

    /// Its processor time so far, in seconds.
    ///
    /// # Errors
    /// Where it does not run.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.child.cpu_seconds()
    }

    async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let answer = self
            .questions
            .send((Method::GET, path), "", Bytes::new())
            .await?;
        let text = String::from_utf8_lossy(answer.body());
        serde_json::from_slice(answer.body()).with_context(|| format!("{path}: {text}"))
    }
}
