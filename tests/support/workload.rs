//! A real agent under a real load: numbered lines in files that grow and rotate, the binary as a
//! child process that is stopped, looked at, killed and started again.
//!
//! Include it with `#[path = "support/workload.rs"] mod workload;`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The long form of a test, with the numbers of the issue.
pub(crate) fn is_long() -> bool {
    std::env::var_os("FOREBAY_LONG").is_some()
}

/// A number from the environment, for whoever runs one case again.
pub(crate) fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

pub(crate) fn pause(time: Duration) {
    #[allow(
        clippy::disallowed_methods,
        reason = "the agent is a process of its own"
    )]
    std::thread::sleep(time);
}

/// Appends numbered lines to `app.log` and rotates it by rename.
pub(crate) struct LineWriter {
    dir: PathBuf,
    file: File,
    next: u64,
    in_file: u64,
    per_file: u64,
    pub(crate) rotations: u64,
}

impl LineWriter {
    pub(crate) fn new(dir: &Path, per_file: u64) -> Self {
        fs::create_dir_all(dir).unwrap();
        let file = File::create(dir.join("app.log")).unwrap();
        Self {
            dir: dir.to_owned(),
            file,
            next: 0,
            in_file: 0,
            per_file,
            rotations: 0,
        }
    }

    pub(crate) fn write(&mut self, count: u64) {
        let mut text = String::new();
        for _ in 0..count {
            if self.in_file == self.per_file {
                self.file.write_all(text.as_bytes()).unwrap();
                text.clear();
                self.rotate();
            }
            text.push_str(&line(self.next));
            text.push('\n');
            self.next += 1;
            self.in_file += 1;
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn written(&self) -> u64 {
        self.next
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let old = self.dir.join(format!("app.log.{:04}", self.rotations));
        fs::rename(self.dir.join("app.log"), old).unwrap();
        self.file = File::create(self.dir.join("app.log")).unwrap();
        self.in_file = 0;
    }
}

pub(crate) fn line(number: u64) -> String {
    format!("line-{number:010} the quick brown fox jumps over the lazy dog and writes it down")
}

/// The number of a line, or a panic that shows it: no line may be torn or foreign.
pub(crate) fn number(text: &str) -> u64 {
    let number: u64 = text
        .strip_prefix("line-")
        .and_then(|rest| rest.get(..10))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("not a line of the workload: {text:?}"));
    assert_eq!(text, line(number), "a damaged line");
    number
}

/// The binary under test: this build's, or the one that `FOREBAY_BIN` names.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_forebay"));
    std::env::var_os("FOREBAY_BIN").map_or_else(built, PathBuf::from)
}

/// The agent as a child process.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn start(dir: &Path, config: &Path) -> Self {
        Self::start_with(dir, config, &[])
    }

    pub(crate) fn start_with(dir: &Path, config: &Path, more: &[&str]) -> Self {
        let log = dir.join("agent.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(binary())
            .args(["agent", "-n", "a1", "-f"])
            .arg(config)
            .args(more)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a process that somebody else has killed.
    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }

    /// The same; panics with the end of its log when it ended otherwise.
    pub(crate) fn reap_killed(&mut self) {
        let status = self.child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let killed = signal == Some(Signal::KILL.as_raw());
        assert!(killed, "it ended by itself: {status}\n{}", self.log_tail());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// SIGKILL; works on a frozen process too.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Panics with the end of its log when the agent has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the agent has ended: {status}\n{}", self.log_tail());
        }
    }

    /// SIGTERM, without waiting for what comes of it.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM and the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.terminate();
        self.wait(Duration::from_secs(120))
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if start.elapsed() > limit {
                self.kill();
                panic!("the agent does not end\n{}", self.log_tail());
            }
            pause(Duration::from_millis(20));
        }
    }

    /// Waits for a text in its log.
    pub(crate) fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let start = Instant::now();
        while !fs::read_to_string(&self.log)
            .unwrap_or_default()
            .contains(text)
        {
            self.assert_alive();
            let log = self.log_tail();
            assert!(start.elapsed() < limit, "no {text:?} in the log:\n{log}");
            pause(Duration::from_millis(20));
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Judges lines against `0..written`: how many are missing and how many stand twice.
pub(crate) fn compare(lines: impl IntoIterator<Item = u64>, written: u64) -> (u64, u64) {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for number in lines {
        *seen.entry(number).or_default() += 1;
    }
    let missing = (0..written).filter(|n| !seen.contains_key(n)).count() as u64;
    let double = seen.values().filter(|n| **n > 1).count() as u64;
    assert!(
        seen.keys().all(|n| *n < written),
        "a line that was never written"
    );
    (missing, double)
}
