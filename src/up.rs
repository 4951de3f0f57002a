//! Owns `anabranch up`: every service in one process, with topics and keys made on the first start.
//!
//! It must never replace a key that exists: what was sealed with it could not be opened again. The
//! surprise: it is the same on Kafka, where it makes the topics too.

use std::net::SocketAddr;
use std::process::ExitCode;

use runtime::config::Config;

use crate::attempts;
use crate::keyring::Keyring;
use crate::output;
use crate::process::Process;
use crate::services::{start_cohorts, start_control, start_dispatcher, start_ingest, start_router};
use crate::settings::Settings;
use crate::topics;

/// All services, started.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) process: Process,
    /// Where events are taken.
    pub(crate) ingest: SocketAddr,
    /// Where the API is.
    pub(crate) control: SocketAddr,
    /// Where cohorts are uploaded.
    pub(crate) cohorts: SocketAddr,
}

/// `anabranch up`.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let up = start(settings.loaded.config).await?;
    introduce(&up)?;
    up.process.run().await
}

/// Starts every service and waits until all are ready.
///
/// # Errors
/// Where one of them cannot start.
pub(crate) async fn start(config: Config) -> anyhow::Result<Up> {
    let config = with_keys(config)?;
    let mut process = Process::start(config).await?;
    match start_services(&mut process).await {
        Ok([ingest, control, cohorts]) => Ok(Up {
            process,
            ingest,
            control,
            cohorts,
        }),
        Err(error) => {
            // Ended in order, so that what was begun is left as a restart expects it.
            let cause = runtime::task::Cause::Asked("a service did not start".into());
            drop(process.end(cause).await);
            Err(error)
        }
    }
}

async fn start_services(process: &mut Process) -> anyhow::Result<[SocketAddr; 3]> {
    topics::create(&process.log, &process.config).await?;
    for fault in topics::check(&process.log, &process.config).await? {
        tracing::warn!(%fault, "topic is not as it should be");
    }
    // Control first: it records what the installation is made of.
    let control = start_control(process).await?;
    start_router(process);
    start_dispatcher(process)?;
    let ingest = start_ingest(process).await?;
    let cohorts = start_cohorts(process).await?;
    if process.config.kafka.brokers.is_empty() {
        // On Kafka everybody may read the topic.
        attempts::start(process);
    }
    process.started();
    process.ready().await?;
    Ok([ingest, control, cohorts])
}

/// The keys as configured, else those in the data folder, made on the first start.
fn with_keys(mut config: Config) -> anyhow::Result<Config> {
    let entropy = runtime::clock::Entropy::system();
    let ring = Keyring::in_dir(&config.general.data_dir)?;
    if config.control.operator_key.is_none() {
        config.control.operator_key = Some(ring.operator(&entropy)?);
    }
    if config.secrets.keys.is_empty() {
        config.secrets.keys = ring.secrets(&entropy)?;
    }
    Ok(config)
}

fn introduce(up: &Up) -> std::io::Result<()> {
    let config = &up.process.config;
    let log = if config.kafka.brokers.is_empty() {
        format!("on local disk, {}", config.embedded_dir().display())
    } else {
        format!("Kafka, {}", config.kafka.brokers.join(","))
    };
    let key = Keyring::operator_path(&config.general.data_dir);
    output::line("anabranch is up")?;
    output::line(format_args!("  events    http://{}", up.ingest))?;
    output::line(format_args!(
        "  control   http://{}  (/v1/openapi.json)",
        up.control
    ))?;
    output::line(format_args!("  cohorts   http://{}", up.cohorts))?;
    output::line(format_args!(
        "  admin     http://{}  (/readyz, /metrics)",
        up.process.admin
    ))?;
    output::line(format_args!("  log       {log}"))?;
    if key.exists() {
        output::line(format_args!(
            "  key       {}  (the operator's)",
            key.display()
        ))?;
    }
    if config.dispatcher.allow_loopback {
        output::line("  endpoints on this machine are allowed (dispatcher.allow_loopback)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use runtime::task::Cause;
    use runtime::telemetry::metric_faults;

    use super::*;

    #[tokio::test]
    async fn the_metrics_of_all_services_share_one_registry_and_one_naming_rule() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        dir.path().clone_into(&mut config.general.data_dir);
        config.topics.partitions = 2;
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        for bind in [
            &mut config.admin.bind,
            &mut config.ingest.bind,
            &mut config.control.bind,
            &mut config.cohorts.bind,
        ] {
            *bind = any_port;
        }
        let up = start(config).await.unwrap();
        let metrics = up.process.metrics.clone();
        assert_eq!(metric_faults(&metrics), Vec::<String>::new());
        let families = metrics.registry().gather();
        let services: BTreeSet<&str> = families
            .iter()
            .filter_map(|family| family.name().split('_').nth(1))
            .collect();
        for service in ["ingest", "router", "dispatch", "control", "cohorts"] {
            assert!(
                services.contains(service),
                "{service} is not in {services:?}"
            );
        }
        up.process
            .end(Cause::Asked("the test is over".into()))
            .await
            .unwrap();
    }
}
