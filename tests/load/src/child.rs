//! Owns child processes: their start, what they weigh, and their end.
//!
//! It must never signal a process by anything but the id of one that it started. The surprise: a
//! child is killed when it is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

const END_TIMEOUT: Duration = Duration::from_secs(30);
/// The same on every Linux (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;
const LOOK: Duration = Duration::from_millis(10);

/// A child process.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    process: Process,
}

impl Child {
    /// Starts `program`; what it says goes to `dir/name.log`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[String],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        // What the machine sets must not decide what is measured.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("ANABRANCH_") {
                command.env_remove(variable);
            }
        }
        let process = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Self {
            name: name.to_owned(),
            log,
            process,
        })
    }

    /// Fails where it has ended, with the end of what it said.
    ///
    /// # Errors
    /// That it has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.process.try_wait()? else {
            return Ok(());
        };
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(10)..)
            .unwrap_or_default();
        bail!("{} ended with {status}:\n{}", self.name, tail.join("\n"));
    }

    /// Resident memory now and at its highest, in MiB.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<(f64, f64)> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).context(path)?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            Ok(kib.context("no such field")?.parse::<f64>()? / 1_024.0)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(&path).context(path)?;
        // Fields 14 and 15 of proc(5); the name before them may hold spaces.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let deadline = Instant::now() + END_TIMEOUT;
        while self.process.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                bail!("{} does not end", self.name);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended cannot be killed: as wanted.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// An address on loopback that is free now.
///
/// # Errors
/// Where there is none.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_weighed_and_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["30".to_owned()];
        let mut child = Child::start("sleep", Path::new("sleep"), &args, dir.path()).unwrap();
        child.must_run().unwrap();
        let (now, highest) = child.memory_mib().unwrap();
        assert!(now > 0.0 && highest >= now);
        assert!(child.cpu_seconds().unwrap() < 1.0);
        child.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_child_that_ended_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo no luck; exit 3".to_owned()];
        let mut child = Child::start("sh", Path::new("sh"), &args, dir.path()).unwrap();
        let error = loop {
            match child.must_run() {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("exit status: 3") && error.contains("no luck"),
            "{error}"
        );
    }
}
