//! A log that no agent opens any more: the agent refuses it, `forebay wal salvage` makes a new
//! channel of what is left, and an agent on that one publishes exactly what the report said, goes
//! on reading where the old one had stopped, and sends nothing twice.
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rig::{Rig, tail_into_file_channel, text_sink};
use workload::{Agent, LineWriter, line, pause};

fn forebay(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(args).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(120), "never: {what}");
        pause(Duration::from_millis(50));
    }
}

/// Every name, byte and time below a directory.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>, i64, i64)> {
    let mut seen = Vec::new();
    let mut note = |path: PathBuf, bytes: Vec<u8>| {
        let meta = fs::metadata(&path).unwrap();
        seen.push((path, bytes, meta.mtime(), meta.mtime_nsec()));
    };
    note(dir.to_owned(), Vec::new());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = match path.is_file() {
            true => fs::read(&path).unwrap(),
            false => Vec::new(),
        };
        note(path, bytes);
    }
    seen.sort();
    seen
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let is_segment = |p: &PathBuf| p.to_string_lossy().contains("/segment-");
    let mut segments: Vec<PathBuf> = entries.filter(is_segment).collect();
    segments.sort();
    segments
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// 590 lines in the log: 500 published in five files, then 50, 20 and 20 that wait.
fn fill(rig: &Rig) -> LineWriter {
    let log = rig.dir.path().join("c1");
    let mut lines = LineWriter::new(&rig.dir.path().join("logs"), 100_000);
    lines.write(550);
    let mut agent = rig.agent();
    let wait_for = |held: u64, next: u64| {
        until(&format!("{held} events wait"), || {
            let status = forebay(&["status", "--json", log.to_str().unwrap()]);
            let Ok(status) = serde_json::from_slice::<serde_json::Value>(&status.stdout) else {
                return false;
            };
            let count = |name: &str| status[name].as_u64().unwrap();
            let report = forebay(&["wal", "inspect", "--json", log.to_str().unwrap()]);
            count("waiting") + count("leased") == held
                && count("sealed_unpublished") == 0
                && json(&report)["next_sequence"] == next
        });
    };
    wait_for(50, 551);
    for more in [1, 2] {
        lines.write(20);
        wait_for(50 + 20 * more, 551 + 20 * more);
    }
    agent.kill();
    lines
}

/// Every snapshot rots, and one frame of the newest segment.
fn ruin(old: &Path) {
    for segment in segments(old) {
        flip(&segment, 4096 + 70);
    }
    let newest = segments(old).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    let wanted = line(555).into_bytes();
    let at = bytes
        .windows(wanted.len())
        .position(|w| w == wanted)
        .unwrap();
    flip(&newest, at as u64 + 20);
}

#[test]
fn what_is_left_of_a_log_that_no_agent_opens_is_published_once_as_the_report_says() {
    let rig = Rig::new(
        |dir| format!("file://{}/out", dir.display()),
        |dir, target| tail_into_file_channel(dir, "k1", "") + &text_sink("k1", target, (0, 100)),
    );
    let mut lines = fill(&rig);
    let (old, new) = (rig.dir.path().join("c1"), rig.dir.path().join("c1-new"));
    let (old_name, new_name) = (old.to_str().unwrap(), new.to_str().unwrap());
    ruin(&old);

    let mut agent = rig.agent();
    until("the agent refuses the log", || {
        agent
            .log_tail()
            .contains("no segment has a readable snapshot")
    });
    let busy = forebay(&["wal", "salvage", old_name, "--to", new_name]);
    agent.kill();
    // An agent that retries holds no lock in between; where it did, the code is 3.
    assert!([Some(3), Some(5)].contains(&busy.status.code()), "{busy:?}");
    if busy.status.code() == Some(5) {
        fs::remove_dir_all(&new).unwrap();
    }
    assert_eq!(forebay(&["wal", "verify", old_name]).status.code(), Some(5));

    let before = everything(&old);
    let output = forebay(&["wal", "salvage", old_name, "--to", new_name, "--json"]);
    assert!(everything(&old) == before, "the damaged log was changed");
    let report = json(&output);
    assert_eq!(output.status.code(), Some(5), "{report:#}");
    let span = |first: u64, last: u64| serde_json::json!([{"first": first, "last": last}]);
    assert_eq!(report["delivered"], span(1, 500), "{report:#}");
    assert_eq!(report["lost"], span(551, 570), "{report:#}");
    assert_eq!(
        report["possibly_delivered"],
        serde_json::json!([]),
        "{report:#}"
    );
    let kept: Vec<(u64, u64)> = report["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["first"].as_u64().unwrap(),
                run["last"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(kept, [(501, 550), (571, 590)]);
    let again = forebay(&["wal", "salvage", old_name, "--to", new_name, "--json"]);
    assert_eq!(json(&again), report, "a repeated call tells what was done");
    assert_eq!(forebay(&["wal", "verify", new_name]).status.code(), Some(0));

    go_on_in(&rig, &old, &new, &mut lines);
}

/// An agent on the salvaged log publishes what is left and what is new, once.
fn go_on_in(rig: &Rig, old: &Path, new: &Path, lines: &mut LineWriter) {
    let (old_name, new_name) = (old.to_str().unwrap(), new.to_str().unwrap());
    let config = fs::read_to_string(rig.config_path()).unwrap();
    let config = config.replace(
        &format!("dataDirs = {old_name}"),
        &format!("dataDirs = {new_name}"),
    );
    fs::write(rig.config_path(), config).unwrap();
    lines.write(100);
    let more = ["--until-drained", "--drain-timeout", "60"];
    let mut agent = Agent::start_with(rig.dir.path(), &rig.config_path(), &more);
    let code = agent.wait(Duration::from_secs(120));
    assert_eq!(code, 0, "{}", agent.log_tail());
    let mut published = rig.lines();
    published.sort_unstable();
    // Event n is line n - 1.
    let expected: Vec<u64> = (0..550).chain(570..lines.written()).collect();
    assert_eq!(published, expected);
    rig.assert_audit_agrees();
    let audit = forebay(&[
        "audit",
        &format!("{}{}", rig.store.uri(), rig.out),
        "--log",
        new_name,
    ]);
    let text = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert_eq!(audit.status.code(), Some(0), "{text}");
}

/// A medium that may only be read, and a report for eyes.
#[test]
fn a_log_is_salvaged_from_a_directory_that_cannot_be_written() {
    let rig = Rig::new(
        |dir| format!("file://{}/out", dir.display()),
        |dir, target| tail_into_file_channel(dir, "k1", "") + &text_sink("k1", target, (0, 100)),
    );
    fill(&rig);
    let (old, new) = (rig.dir.path().join("c1"), rig.dir.path().join("c1-new"));
    fs::remove_file(old.join("lock")).unwrap();
    for entry in fs::read_dir(&old).unwrap() {
        let path = entry.unwrap().path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(&old, fs::Permissions::from_mode(0o500)).unwrap();
    let before = everything(&old);
    let output = forebay(&[
        "wal",
        "salvage",
        old.to_str().unwrap(),
        "--to",
        new.to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(everything(&old) == before, "not even a lock file is made");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o700)).unwrap();
    for said in [
        "kept      events 501 to 590 (new numbers 1 to 90)",
        "delivered events 1 to 500",
        "positions 1 read positions came along",
        "next      set dataDirs to",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
}

#[test]
fn wrong_directories_are_named_with_advice_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, new) = (dir.path().join("empty"), dir.path().join("new"));
    fs::create_dir(&empty).unwrap();
    let refused = forebay(&[
        "wal",
        "salvage",
        empty.to_str().unwrap(),
        "--to",
        new.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("holds no segment"), "{text}");
    assert!(!new.exists() && fs::read_dir(&empty).unwrap().next().is_none());
    let absent = forebay(&[
        "wal",
        "salvage",
        new.to_str().unwrap(),
        "--to",
        empty.to_str().unwrap(),
    ]);
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
    let usage = forebay(&["wal", "salvage", empty.to_str().unwrap()]);
    assert_eq!(usage.status.code(), Some(2), "--to is needed");
}
