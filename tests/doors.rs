//! Bad input at the doors of a running system: a log of a newer format, foreign files among the
//! segments, directories without permission. Clear words, and nothing is lost or touched.
//! (Configuration: `config.rs`; lines and sockets: the sources' own tests; a second agent and an
//! unreachable NameNode: `agent.rs`.)

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/agent.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Agent, Netcat, assert_published_once, forebay, free_port, until_taken};
use wal_format::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// Whoever owns nothing: root reads and writes everywhere, so permissions are tried as somebody
/// else.
const NOBODY: u32 = 65_534;

struct Place {
    dir: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
        };
        let port = place.port;
        let text = format!(
            "a1.sources = r1\na1.channels = c1\na1.sinks = k1\n\
             a1.sources.r1.type = netcat\na1.sources.r1.channels = c1\n\
             a1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
             a1.channels.c1.type = file\na1.channels.c1.dataDirs = data/c1\n\
             a1.channels.c1.maxFileSize = 4194304\n\
             a1.channels.c1.minimumRequiredSpace = 1048576\n\
             a1.sinks.k1.type = file_roll\na1.sinks.k1.channel = c1\n\
             a1.sinks.k1.sink.directory = out/lines\na1.sinks.k1.sink.rollInterval = 0\n"
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("flume.properties")
    }

    fn start(&self) -> Agent {
        Agent::start(&self.config(), &[])
    }

    /// Starts the agent as somebody whom permissions hold back. The binary is copied: the
    /// directory it was built in may be closed to them.
    fn start_without_power(&self) -> Agent {
        let root = rustix::process::geteuid().is_root();
        let binary = self.path("forebay");
        fs::copy(forebay().get_program(), &binary).unwrap();
        let mut command = Command::new(&binary);
        command
            .args(["agent", "-n", "a1", "-f"])
            .arg(self.config())
            .current_dir(self.dir.path());
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Agent::spawn(command)
    }

    fn give_to_nobody(&self, name: &str) {
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(self.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn send(&self, range: std::ops::Range<u32>) {
        Netcat::connect(self.port).send(&lines(range));
    }
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every file of a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

fn newest_segment(dir: &Path) -> PathBuf {
    let files = contents(dir).into_keys();
    let is_segment = |p: &PathBuf| p.to_string_lossy().contains("/segment-");
    files.filter(is_segment).max().unwrap()
}

/// Writes both copies of a segment's header anew, as a later version with a feature that this one
/// does not know would have written them.
fn make_newer(path: &Path) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    file.read_exact_at(&mut block, 0).unwrap();
    let mut header = SegmentHeader::decode(&block).unwrap();
    header.incompatible |= 1 << 31;
    let block = header.encode();
    let second = u64::from(header.size) - u64::from(SEGMENT_HEADER_BYTES);
    file.write_all_at(&block, 0).unwrap();
    if file.metadata().unwrap().len() > second {
        file.write_all_at(&block, second).unwrap();
    }
}

#[test]
fn a_log_of_a_newer_format_is_refused_untouched_and_read_by_the_version_that_knows_it() {
    let place = Place::new();
    let agent = place.start();
    place.send(0..50);
    agent.kill();
    let data = place.path("data/c1");
    let newest = newest_segment(&data);
    let known = fs::read(&newest).unwrap();
    make_newer(&newest);
    let before = contents(&data);
    let ended = place.start().wait().expect(2);
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    for word in [name.as_str(), "newer Forebay", "nothing was touched"] {
        assert!(ended.log.contains(word), "no '{word}' in:\n{}", ended.log);
    }
    assert!(
        before == contents(&data),
        "the refused log was written into"
    );
    fs::write(&newest, known).unwrap();
    let agent = place.start();
    place.send(50..60);
    until_taken(&data);
    agent.stop().expect(0);
    assert_published_once(&place.path("out"), &lines(0..60));
}

#[test]
fn foreign_files_among_the_segments_are_named_and_left_alone() {
    let place = Place::new();
    let data = place.path("data/c1");
    let agent = place.start();
    place.send(0..20);
    agent.kill();
    let foreign = [
        "notes.txt",
        "segment-",
        "segment-12x",
        "spare-abc",
        "segment-0000000001.bak",
    ];
    for name in foreign {
        fs::write(data.join(name), name).unwrap();
    }
    fs::create_dir(data.join("lost+found")).unwrap();
    let agent = place.start();
    place.send(20..40);
    until_taken(&data);
    let log = agent.log();
    for name in foreign {
        assert!(log.contains(name), "{name} is not named in:\n{log}");
    }
    agent.stop().expect(0);
    assert_published_once(&place.path("out"), &lines(0..40));
    for name in foreign {
        assert_eq!(fs::read_to_string(data.join(name)).unwrap(), name);
    }
    assert!(data.join("lost+found").is_dir());
}

#[test]
fn a_log_directory_without_permission_is_named_and_taken_when_it_is_given() {
    let place = Place::new();
    set_mode(place.dir.path(), 0o755);
    for name in ["data", "out"] {
        fs::create_dir(place.path(name)).unwrap();
        place.give_to_nobody(name);
    }
    set_mode(&place.path("data"), 0o500);
    let mut agent = place.start_without_power();
    agent.wait_for_log("data/c1");
    agent.wait_for_log("ermission denied");
    assert!(agent.is_running(), "it tries again:\n{}", agent.log());
    set_mode(&place.path("data"), 0o700);
    place.send(0..30);
    until_taken(&place.path("data/c1"));
    agent.stop().expect(0);
    assert_published_once(&place.path("out"), &lines(0..30));
}

#[test]
fn a_target_directory_without_permission_holds_its_events_until_it_is_given() {
    let place = Place::new();
    set_mode(place.dir.path(), 0o755);
    for name in ["data", "out"] {
        fs::create_dir(place.path(name)).unwrap();
        place.give_to_nobody(name);
    }
    set_mode(&place.path("out"), 0o500);
    let mut agent = place.start_without_power();
    place.send(0..30);
    agent.wait_for_log("ermission denied");
    let log = agent.log();
    assert!(log.contains("/out"), "which directory?\n{log}");
    assert!(agent.is_running(), "it tries again:\n{log}");
    set_mode(&place.path("out"), 0o700);
    until_taken(&place.path("data/c1"));
    agent.stop().expect(0);
    assert_published_once(&place.path("out"), &lines(0..30));
}
