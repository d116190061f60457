//! Two copies of one log, both with clients: the one that is refused ends with exit code 3, and
//! `forebay wal adopt` gives what only it has a channel id of its own. Whatever either of them has
//! answered with OK is published once.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/hdfs.rs"]
mod hdfs;
#[path = "support/agent.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forebay::sink::staged::store::FileStore;
use forebay::sink::staged::store_hdfs::HdfsOptions;
use forebay::sink::staged::store_open::open_store;
use support::{Agent, forebay, free_port, until};

/// Events of one file.
const ROLL: usize = 60;

/// Two agents with a configuration each, and one target.
struct Twins {
    dir: tempfile::TempDir,
    ports: [u16; 2],
    /// `file:///..` or `hdfs://..`.
    target: String,
}

impl Twins {
    fn local() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = format!("file://{}", dir.path().join("out").display());
        Self::new(dir, target)
    }

    fn new(dir: tempfile::TempDir, target: String) -> Self {
        let twins = Self {
            dir,
            ports: [free_port(), free_port()],
            target,
        };
        for (name, port) in ["a", "b"].into_iter().zip(twins.ports) {
            let home = twins.home(name);
            fs::create_dir_all(&home).unwrap();
            let text = format!(
                "a1.sources = r1\na1.channels = c1\na1.sinks = k1\n\
                 a1.sources.r1.type = netcat\na1.sources.r1.channels = c1\n\
                 a1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
                 a1.channels.c1.type = file\na1.channels.c1.dataDirs = c1\n\
                 a1.channels.c1.maxFileSize = 1048576\n\
                 a1.channels.c1.minimumRequiredSpace = 1048576\n\
                 a1.sinks.k1.type = hdfs\na1.sinks.k1.channel = c1\n\
                 a1.sinks.k1.hdfs.path = {}\na1.sinks.k1.hdfs.fileType = DataStream\n\
                 a1.sinks.k1.hdfs.rollInterval = 0\na1.sinks.k1.hdfs.rollSize = 0\n\
                 a1.sinks.k1.hdfs.rollCount = {ROLL}\n",
                twins.target
            );
            fs::write(home.join("flume.properties"), text).unwrap();
        }
        twins
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.home(name).join("c1")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// How often each line stands in the published files.
    fn published(&self) -> BTreeMap<String, usize> {
        let store: Arc<dyn FileStore> =
            open_store(&self.target, None, HdfsOptions::default()).unwrap();
        let path = self.target.strip_prefix(store.uri()).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let (mut lines, mut open) = (BTreeMap::new(), vec![path.to_owned()]);
        runtime.block_on(async {
            while let Some(dir) = open.pop() {
                for entry in store.list(&dir).await.unwrap() {
                    let name = entry.path.rsplit('/').next().unwrap();
                    if name.starts_with(['_', '.']) {
                        continue;
                    }
                    if entry.is_dir {
                        open.push(entry.path);
                        continue;
                    }
                    let bytes = store.read(&entry.path).await.unwrap();
                    for line in String::from_utf8_lossy(&bytes).lines() {
                        *lines.entry(line.to_owned()).or_default() += 1;
                    }
                }
            }
        });
        lines
    }

    fn start(&self, name: &str) -> Agent {
        Agent::start(&self.home(name).join("flume.properties"), &[])
    }

    fn port(&self, name: &str) -> u16 {
        self.ports[usize::from(name == "b")]
    }

    /// Sends lines one by one; those that were answered with OK before the agent went away.
    fn send(&self, name: &str, lines: std::ops::Range<u32>) -> Vec<String> {
        let port = self.port(name);
        let mut stream = None;
        until(&format!("somebody listens on port {port}"), || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let mut reader = BufReader::new(stream.unwrap());
        let mut answered = Vec::new();
        for line in lines.map(|n| format!("{name} {n}")) {
            let mut answer = String::new();
            let sent = writeln!(reader.get_mut(), "{line}");
            let read = sent.and_then(|()| reader.read_line(&mut answer));
            if read.is_err() || answer.trim_end() != "OK" {
                break;
            }
            answered.push(line);
        }
        answered
    }

    /// The log of a as it lies there now, given to b.
    fn copy_log(&self) {
        let (from, to) = (self.log("a"), self.log("b"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }

    fn adopt(&self, name: &str, more: &[&str]) -> Output {
        let mut command = forebay();
        command.args(["wal", "adopt"]).args(more);
        command.arg(self.log(name)).output().unwrap()
    }

    fn wait_until_taken(&self, name: &str) {
        until("everything is taken", || {
            let mut command = forebay();
            let output = command.args(["status", "--json"]).arg(self.log(name));
            let text = output.output().unwrap().stdout;
            let status: serde_json::Value = serde_json::from_slice(&text).unwrap();
            status["waiting"] == 0
        });
    }

    fn publish_the_rest(&self, name: &str) {
        let mut agent = self.start(name);
        agent.wait_for_log("listening");
        self.wait_until_taken(name);
        agent.stop().expect(0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fifty lines, a copy, and a life of the copy that publishes and starts again; the original runs
/// on meanwhile and learns of it when it would publish. The lines that were answered with OK.
fn parted(twins: &Twins) -> Vec<String> {
    let mut answered = Vec::new();
    let original = twins.start("a");
    answered.extend(twins.send("a", 0..50));
    assert_eq!(answered.len(), 50);
    twins.wait_until_taken("a");
    twins.copy_log();
    // The copy becomes the owner; at its second start it has more events than the original.
    for lines in [0..30, 30..90] {
        let copy = twins.start("b");
        answered.extend(twins.send("b", lines));
        twins.wait_until_taken("b");
        let busy = twins.adopt("b", &[]);
        assert_eq!(busy.status.code(), Some(3), "{}", text(&busy.stderr));
        copy.stop().expect(0);
    }
    let only_here = twins.send("a", 50..90);
    assert!(only_here.len() >= ROLL - 50, "{}", only_here.len());
    let ended = original.wait().expect(3);
    let last = 50 + only_here.len();
    // One more may be in the log that was not answered any more.
    let told = [last, last + 1].iter().any(|last| {
        let range = format!("events 51 to {last} are only in this log");
        ended.log.contains(&range)
    });
    assert!(told, "answered up to {last}:\n{}", ended.log);
    let command = format!("forebay wal adopt {}", twins.log("a").display());
    assert!(ended.log.contains(&command), "{}", ended.log);
    answered.extend(only_here);
    answered
}

/// All lines that were answered with OK are there once; one whose answer was lost may be there.
fn assert_all_once(twins: &Twins, answered: &[String]) {
    let of_a = answered.iter().filter(|line| line.starts_with('a'));
    let unanswered = format!("a {}", of_a.count());
    let mut lines = twins.published();
    if !answered.contains(&unanswered) {
        let times = lines.remove(&unanswered).unwrap_or(0);
        assert!(times < 2, "{unanswered} is there {times} times");
    }
    for line in answered {
        let times = lines.remove(line).unwrap_or(0);
        assert_eq!(times, 1, "{line} is there {times} times");
    }
    assert!(lines.is_empty(), "{lines:?}");
    let audit = forebay().arg("audit").arg(&twins.target).output().unwrap();
    assert_eq!(audit.status.code(), Some(0), "{}", text(&audit.stdout));
}

#[test]
fn every_line_that_either_copy_has_answered_ok_is_published_once_by_either_id() {
    part_adopt_and_compare(&Twins::local());
}

#[test]
fn two_copies_of_a_log_into_real_hdfs_publish_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let target = format!("{}/adopt/{}", hdfs::shared().uri, std::process::id());
    part_adopt_and_compare(&Twins::new(dir, target));
}

fn part_adopt_and_compare(twins: &Twins) {
    let answered = parted(twins);
    // At its next start the refused one accepts nothing at all, and says the same again.
    let again = twins.start("a").wait().expect(3);
    assert!(!again.log.contains("listening"), "{}", again.log);
    assert!(again.log.contains("forebay wal adopt"), "{}", again.log);
    let not_refused = twins.adopt("b", &[]);
    assert_eq!(not_refused.status.code(), Some(2));
    let said = text(&not_refused.stderr);
    assert!(said.contains("no store has refused this log"), "{said}");
    let done = twins.adopt("a", &["--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["first"], 51);
    assert_eq!(report["lost"], serde_json::json!([]));
    let kept = report["kept"][0].as_str().unwrap();
    assert!(Path::new(kept).is_dir(), "{kept}");
    let same = twins.adopt("a", &["--json"]);
    assert_eq!(text(&same.stdout), text(&done.stdout), "given again");
    twins.publish_the_rest("a");
    twins.publish_the_rest("b");
    assert_all_once(twins, &answered);
}

#[test]
fn an_adoption_killed_again_and_again_loses_and_doubles_nothing() {
    let twins = Twins::local();
    let answered = parted(&twins);
    let mut killed = 0;
    for pause in 0.. {
        let mut command = forebay();
        command.args(["wal", "adopt"]).arg(twins.log("a"));
        let mut adopt = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        support::pause(Duration::from_millis(2 * pause));
        adopt.kill().ok();
        let status = adopt.wait().unwrap();
        if let Some(code) = status.code() {
            assert_eq!(code, 0);
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "killed at least once");
    twins.publish_the_rest("a");
    twins.publish_the_rest("b");
    assert_all_once(&twins, &answered);
}

/// N8: what a copy answers with OK it must be able to publish; until its store has said so it
/// does not even listen, also when it was stopped and started again meanwhile.
#[test]
fn n8_a_copy_that_cannot_reach_its_store_answers_nobody_at_any_start() {
    let twins = Twins::local();
    let original = twins.start("a");
    let mut answered = twins.send("a", 0..5);
    original.stop().expect(0);
    twins.copy_log();
    let away = twins.dir.path().join("out.away");
    fs::rename(twins.out(), &away).unwrap();
    fs::write(twins.out(), "no directory").unwrap();
    for _start in 0..2 {
        let mut copy = twins.start("b");
        copy.wait_for_log("sources wait for the stores");
        copy.wait_for_log("trying again");
        assert!(TcpStream::connect(("127.0.0.1", twins.port("b"))).is_err());
        let ended = copy.kill();
        assert!(!ended.log.contains("listening"), "{}", ended.log);
    }
    fs::remove_file(twins.out()).unwrap();
    fs::rename(&away, twins.out()).unwrap();
    let copy = twins.start("b");
    answered.extend(twins.send("b", 0..5));
    twins.wait_until_taken("b");
    copy.stop().expect(0);
    assert_all_once(&twins, &answered);
}
