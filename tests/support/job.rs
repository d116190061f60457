//! One agent with both kinds of promise to keep: TAILDIR (every line once) and netcat (every line
//! that was answered `OK` once) on one file channel, published into a local directory.
//!
//! The log and the target lie below one directory, which may be on a disk that fails. *What the
//! outside knows lies elsewhere*: the lines that were sent, the answers of netcat, the tailed
//! files. The promise is about them, and a disk that lost them could not be found out.
//!
//! Include it with `#[path = "support/job.rs"] mod job;`, beside `rig`, `workload` and
//! `netcat_client`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use forebay::channel::file::examine::examine;
use forebay::env::disk_real::RealDisk;

use crate::netcat_client::{Client, free_port};
use crate::rig::Rig;
use crate::workload::{Agent, LineWriter, number};

/// Lines of netcat are numbered from here; those of the tailed files from 0.
const NETCAT_FIRST: u64 = 5_000_000_000;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came out at the end against what went in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) tailed: u64,
    pub(crate) answered: u64,
    /// Published and never answered: the answer was lost, which is allowed.
    pub(crate) unanswered: u64,
    pub(crate) lost_tailed: u64,
    pub(crate) lost_answered: u64,
    pub(crate) twice: u64,
    pub(crate) invented: u64,
}

impl Verdict {
    pub(crate) fn is_sound(&self) -> bool {
        self.lost_tailed + self.lost_answered + self.twice + self.invented == 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.tailed += other.tailed;
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.lost_tailed += other.lost_tailed;
        self.lost_answered += other.lost_answered;
        self.twice += other.twice;
        self.invented += other.invented;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tailed lines, {} lost; {} answered OK, {} lost; {} there without an answer; \
             {} twice; {} invented",
            self.tailed,
            self.lost_tailed,
            self.answered,
            self.lost_answered,
            self.unanswered,
            self.twice,
            self.invented
        )
    }
}

/// How far the open epochs of a log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Epochs {
    NoLog,
    NoneOpen,
    Sealed,
    Claimed,
}

/// See the module head.
pub(crate) struct Job {
    pub(crate) rig: Rig,
    log: PathBuf,
    pub(crate) writer: LineWriter,
    pub(crate) client: Client,
    /// Of the last [`Self::drain`].
    pub(crate) verdict: Verdict,
}

impl Job {
    /// Log and target below `disk(temporary directory)`.
    pub(crate) fn new(disk: impl FnOnce(&Path) -> PathBuf) -> Self {
        let port = free_port();
        let mut log = PathBuf::new();
        let rig = Rig::new(
            |dir| {
                let disk = disk(dir);
                log = disk.join("c1");
                format!("file://{}/out", disk.display())
            },
            |dir, target| {
                let log = Path::new(target.strip_prefix("file://").unwrap()).with_file_name("c1");
                config(dir, &log, target, port)
            },
        );
        let writer = LineWriter::new(&rig.dir.path().join("logs"), 2_000);
        Self {
            rig,
            log,
            writer,
            client: Client::new(port, NETCAT_FIRST),
            verdict: Verdict::default(),
        }
    }

    /// Starts the agent.
    pub(crate) fn agent(&self) -> Agent {
        self.rig.agent()
    }

    /// A few lines for each source; netcat's are answered, or the connection has ended.
    pub(crate) fn feed(&mut self, tailed: u64, sent: u64) {
        self.writer.write(tailed);
        self.client.send(sent);
    }

    pub(crate) fn epochs(&self) -> Epochs {
        match examine(&RealDisk, std::slice::from_ref(&self.log), |_, _| {}) {
            Err(_) => Epochs::NoLog,
            Ok(report) if report.open_epochs.is_empty() => Epochs::NoneOpen,
            Ok(report) if report.open_epochs.iter().any(|(.., claimed)| *claimed) => {
                Epochs::Claimed
            }
            Ok(_) => Epochs::Sealed,
        }
    }

    /// What must hold of the disk before any agent has touched it again: the log is torn at most,
    /// published files are whole.
    pub(crate) fn check_as_found(&self) -> Result<(), String> {
        // A first open that was cut short leaves a directory without a segment.
        if segments(&self.log) > 0 {
            let log = self.log.to_str().unwrap();
            forebay(&["wal", "verify", log]).map_err(|why| format!("as found: {why}"))?;
        }
        self.lines()
            .map(drop)
            .map_err(|why| format!("as found: {why}"))
    }

    /// Runs the agent to the end of its input and counts what is published.
    pub(crate) fn drain(&mut self) -> Result<(), String> {
        let more = ["--until-drained", "--drain-timeout", "100"];
        let mut last = Agent::start_with(self.rig.dir.path(), &self.rig.config_path(), &more);
        let code = last.wait(PATIENCE);
        if code != 0 {
            return Err(format!(
                "the agent that drains ended with {code}\n{}",
                last.log_tail()
            ));
        }
        let verdict = self.judge(self.lines()?);
        if !verdict.is_sound() {
            return Err(format!("{verdict}\n{}", last.log_tail()));
        }
        let log = self.log.to_str().unwrap();
        forebay(&["wal", "verify", log])?;
        let target = format!("{}{}", self.rig.store.uri(), self.rig.out);
        forebay(&["audit", &target])?;
        forebay(&["audit", &target, "--log", log])?;
        self.rig.assert_nothing_left();
        self.verdict = verdict;
        Ok(())
    }

    /// Published lines; an error where a file does not hold as many as its name says.
    fn lines(&self) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        if !Path::new(&self.rig.out).exists() {
            return Ok(numbers);
        }
        for (path, part) in self.rig.published() {
            let bytes = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
            let text = std::str::from_utf8(&bytes).map_err(|e| format!("{path}: {e}"))?;
            let before = numbers.len() as u64;
            numbers.extend(text.lines().map(number));
            let there = numbers.len() as u64 - before;
            if there != part.count {
                return Err(format!("{path} holds {there} lines"));
            }
        }
        Ok(numbers)
    }

    fn judge(&self, lines: Vec<u64>) -> Verdict {
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for number in lines {
            *seen.entry(number).or_default() += 1;
        }
        let missing = |n: &u64| !seen.contains_key(n);
        let tailed = self.writer.written();
        let sent = NETCAT_FIRST..self.client.next;
        let answered = &self.client.acknowledged;
        let known = |n: &u64| *n < tailed || sent.contains(n);
        Verdict {
            tailed,
            answered: answered.len() as u64,
            unanswered: seen
                .keys()
                .filter(|n| sent.contains(n) && !answered.contains(n))
                .count() as u64,
            lost_tailed: (0..tailed).filter(missing).count() as u64,
            lost_answered: answered.iter().filter(|n| missing(n)).count() as u64,
            twice: seen.values().filter(|count| **count > 1).count() as u64,
            invented: seen.keys().filter(|n| !known(n)).count() as u64,
        }
    }
}

/// Small segments, so that the log rolls; an epoch a second or every 300 lines.
fn config(dir: &Path, log: &Path, target: &str, port: u16) -> String {
    let (dir, log) = (dir.display(), log.display());
    format!(
        "a1.sources = r1 r2\na1.channels = c1\na1.sinks = k1\n\
         a1.sources.r1.type = TAILDIR\na1.sources.r1.channels = c1\n\
         a1.sources.r1.filegroups = f1\n\
         a1.sources.r1.filegroups.f1 = {dir}/logs/app[.]log.*\n\
         a1.sources.r1.batchSize = 200\n\
         a1.sources.r2.type = netcat\na1.sources.r2.channels = c1\n\
         a1.sources.r2.bind = 127.0.0.1\na1.sources.r2.port = {port}\n\
         a1.channels.c1.type = file\na1.channels.c1.dataDirs = {log}\n\
         a1.channels.c1.maxFileSize = 1048576\na1.channels.c1.minimumRequiredSpace = 1048576\n{}",
        crate::rig::text_sink("k1", target, (1, 300))
    )
}

fn segments(log: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(log) else {
        return 0;
    };
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("segment-"))
        .count()
}

/// Runs a command of the binary that must find nothing.
fn forebay(args: &[&str]) -> Result<(), String> {
    let binary = crate::workload::binary();
    let output = Command::new(binary).args(args).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        code => {
            let out = String::from_utf8_lossy(&output.stdout);
            let err = String::from_utf8_lossy(&output.stderr);
            Err(format!("forebay {args:?} ended with {code:?}:\n{out}{err}"))
        }
    }
}
