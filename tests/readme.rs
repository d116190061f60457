//! The README's first command, taken from the README and run: real files that grow and rotate,
//! a real port, a real stop, a second start. The lines that come out are compared with those
//! that went in.
//!
//! Only two things differ from what a reader types: the command runs in a directory of its own
//! (so the manifest is named), and the port is a free one.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/agent.rs"]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::{Agent, Netcat, assert_published_once, free_port, published, published_lines, until};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PORT: &str = "44444";

/// The one line of the README's code blocks that begins with `start`.
fn command(start: &str) -> String {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let blocks = readme.split("```").skip(1).step_by(2);
    let lines: Vec<&str> = blocks
        .flat_map(str::lines)
        .filter(|line| line.starts_with(start))
        .collect();
    assert_eq!(lines.len(), 1, "lines that begin with '{start}': {lines:?}");
    lines[0].to_owned()
}

/// Builds first, so that starting the command takes no longer than starting the agent.
fn build(command: &str) {
    let (cargo, _) = command.split_once(" -- ").unwrap();
    let build = cargo.replacen("cargo run", "cargo build", 1);
    let built = Command::new("bash")
        .args(["-c", &build])
        .current_dir(ROOT)
        .status()
        .unwrap();
    assert!(built.success(), "{build}");
}

fn start(command: &str, dir: &Path) -> Agent {
    let named = format!("cargo run --manifest-path {ROOT}/Cargo.toml");
    let mut bash = Command::new("bash");
    bash.args(["-c", &command.replacen("cargo run", &named, 1)])
        .current_dir(dir);
    bash.process_group(0);
    Agent::spawn(bash)
}

fn append(file: &Path, lines: &[String]) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    for line in lines {
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Writes a hundred lines a round; after each round the file is renamed and a new one begun.
fn grow_and_rotate(logs: &Path, name: &str, rounds: std::ops::Range<usize>) -> Vec<String> {
    let mut written = Vec::new();
    for round in rounds {
        let lines: Vec<String> = (0..100)
            .map(|n| format!("{name} round {round} line {n}"))
            .collect();
        let (first, rest) = lines.split_at(50);
        append(&logs.join(name), first);
        append(&logs.join(name), rest);
        fs::rename(logs.join(name), logs.join(format!("{name}.{}", round + 1))).unwrap();
        written.extend(lines);
    }
    written
}

#[test]
fn the_first_command_of_the_readme_moves_every_line_once_over_two_starts() {
    let command = command("cargo run");
    let (_, config) = command.rsplit_once(" -f ").unwrap();
    build(&command);
    let dir = tempfile::tempdir().unwrap();
    let (logs, out) = (
        dir.path().join("forebay-data/logs"),
        dir.path().join("forebay-data/out"),
    );
    let port = free_port();
    let text = fs::read_to_string(Path::new(ROOT).join(config)).unwrap();
    let place = dir.path().join(config);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::create_dir_all(&logs).unwrap();
    fs::write(&place, text.replace(PORT, &port.to_string())).unwrap();

    let agent = start(&command, dir.path());
    let mut client = Netcat::connect(port);
    let mut expected = grow_and_rotate(&logs, "app.log", 0..5);
    let sent: Vec<String> = (0..200).map(|n| format!("sent {n}")).collect();
    client.send(&sent);
    expected.extend(sent);
    expected.extend(grow_and_rotate(&logs, "other.log", 0..3));
    let ended = agent.stop().expect(0);
    assert_eq!(ended.out, "", "stdout belongs to nobody");
    let report = format!("{} lines in", published_lines(&out).len());
    assert!(
        ended.log.contains(&report),
        "no '{report}' in:\n{}",
        ended.log
    );
    assert!(ended.log.contains("no gap, no overlap"), "{}", ended.log);
    let before = published(&out);

    // While it is stopped the files grow and rotate on.
    expected.extend(grow_and_rotate(&logs, "app.log", 5..8));
    let agent = start(&command, dir.path());
    Netcat::connect(port).send(&["last".to_owned()]);
    expected.push("last".to_owned());
    until("all lines are published", || {
        published_lines(&out).len() >= expected.len()
    });
    agent.stop().expect(0);
    assert_published_once(&out, &expected);
    let after = published(&out);
    assert!(
        before.iter().all(|file| after.contains(file)),
        "a published file has vanished"
    );
}

#[test]
fn the_second_command_of_the_readme_is_there_and_can_be_run() {
    let run = Path::new(ROOT).join(command("tests/run"));
    assert_eq!(
        fs::metadata(run).unwrap().permissions().mode() & 0o111,
        0o111
    );
}

/// Every guarantee links to the file of a test that exists under the name it gives.
#[test]
fn every_guarantee_of_the_readme_names_a_test_that_exists() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, rest) = readme.split_once("## What is guaranteed").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 10, "{section}");
    for row in rows {
        let (_, link) = row
            .split_once("[`")
            .unwrap_or_else(|| panic!("no test: {row}"));
        let (name, file) = link.split_once("`](").unwrap();
        let file = file.split(')').next().unwrap();
        let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        assert!(
            text.contains(&format!("fn {name}(")),
            "{file} has no test {name}"
        );
    }
}
