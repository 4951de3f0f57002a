//! Owns a child process of the binary: its start, its log, its signals and its end.
//!
//! It must never signal a process by anything but the id of one that it started. The surprise: a
//! process is killed when it is dropped, and while the test panics the tail of its log is printed.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::poll::eventually;

const TAIL_LINES: usize = 25;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    binary: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `binary` with `args`; what it prints goes to `dir/name.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, binary: &Path, args: &[String], dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for logs");
        let log = dir.join(format!("{name}.log"));
        File::create(&log).expect("a log file");
        let child = launch(binary, args, &log);
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            args: args.to_vec(),
            log,
            child,
        }
    }

    /// Its name in this test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal, such as `KILL`, `STOP`, `CONT` or `TERM`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill -{signal} {}",
            self.name
        );
    }

    /// `kill -9`, and waits until the process is no more.
    ///
    /// # Panics
    /// When it had ended by itself before.
    pub fn kill(&mut self) {
        let before = self.child.try_wait().expect("a child");
        assert!(
            before.is_none(),
            "{} had ended by itself: {before:?}",
            self.name
        );
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("a child");
        assert_eq!(status.signal(), Some(9), "{}", self.name);
    }

    /// The memory that it has, in KiB; none where the machine does not say (`/proc`), or it has
    /// ended.
    pub fn rss_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Starts it again, with the arguments it had.
    pub fn restart(&mut self) {
        self.child = launch(&self.binary, &self.args, &self.log);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it goes on.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, deadline, async || self.ended()).await
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process takes this signal too. One that has ended cannot be killed: as wanted.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            use std::io::Write as _;
            let text = format!(
                "=== {} ({})\n{}\n",
                self.name,
                self.log.display(),
                self.tail()
            );
            std::io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}

fn launch(binary: &Path, args: &[String], log: &Path) -> Child {
    let out = OpenOptions::new()
        .append(true)
        .open(log)
        .expect("a log file");
    let err = out.try_clone().expect("a second handle");
    let mut command = Command::new(binary);
    // What the machine sets must not decide what a test proves.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANABRANCH_") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .expect("the binary can be started")
}
