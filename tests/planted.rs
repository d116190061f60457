//! No build that ships holds a planted bug, and a build that holds them runs nothing.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Whoever can be told which bug to plant knows this name.
const VARIABLE: &str = "FOREBAY_PLANTED";

fn run(binary: &Path) -> Output {
    Command::new(binary)
        .arg("version")
        .env(VARIABLE, "no-sync")
        .output()
        .unwrap()
}

fn knows_of_bugs(binary: &Path) -> bool {
    let bytes = fs::read(binary).unwrap();
    bytes
        .windows(VARIABLE.len())
        .any(|w| w == VARIABLE.as_bytes())
}

fn assert_sound(binary: &Path) {
    let output = run(binary);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}: {said}",
        binary.display()
    );
    assert!(!knows_of_bugs(binary), "{}", binary.display());
}

/// Both sides: `cargo test --features planted --test planted` asks a build with the feature.
#[test]
fn a_build_with_planted_bugs_runs_nothing_and_any_other_holds_none() {
    let binary = Path::new(env!("CARGO_BIN_EXE_forebay"));
    if !cfg!(feature = "planted") {
        return assert_sound(binary);
    }
    let output = run(binary);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("planted for its tests"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn the_release_build_holds_no_planted_bug() {
    let built = Command::new(env!("CARGO"))
        .args(["build", "-q", "--release", "--locked", "--bin", "forebay"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    let text = String::from_utf8(built.stdout).unwrap();
    let messages = text.lines().map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        message
    });
    let executables: Vec<String> = messages
        .filter_map(|m| Some(m.get("executable")?.as_str()?.to_owned()))
        .collect();
    assert_eq!(executables.len(), 1, "{executables:?}");
    assert_sound(Path::new(&executables[0]));
}

/// Lines of a manifest that name the feature, comments cut off.
fn naming(manifest: &str) -> Vec<&str> {
    let code = manifest.lines().map(|line| line.split('#').next().unwrap());
    code.map(str::trim)
        .filter(|line| line.contains("planted") || line.starts_with("default ="))
        .collect()
}

/// Nothing but the feature itself names it, and nothing is on by default.
#[test]
fn no_manifest_switches_planted_bugs_on() {
    let example =
        "default = [\"planted\"] # yes\nwal-format = { features = [\"planted\"] }\n# planted";
    assert_eq!(naming(example).len(), 2, "the rule finds what it looks for");
    for (manifest, expected) in [
        (
            "Cargo.toml",
            &["planted = [\"simulation\", \"wal-format/planted\"]"][..],
        ),
        ("wal-format/Cargo.toml", &["planted = []"]),
        ("fuzz/Cargo.toml", &[]),
    ] {
        let text = fs::read_to_string(Path::new(ROOT).join(manifest)).unwrap();
        assert_eq!(naming(&text), expected, "{manifest}");
    }
}

/// Names in a list of bugs: the first string of a line that begins with a name in code.
fn listed(source: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join(source)).unwrap();
    let (_, list) = text.split_once("planted_bugs! {\n").unwrap();
    let (list, _) = list.split_once("\n}\n").unwrap();
    let lines = list.lines().map(str::trim);
    let lines = lines.filter(|line| line.starts_with(|first: char| first.is_uppercase()));
    lines
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .collect()
}

/// The table of the last run has a row for every bug, in order, and somebody has caught each.
#[test]
fn every_planted_bug_has_a_row_with_who_caught_it() {
    let mut bugs = listed("src/planted.rs");
    bugs.extend(listed("wal-format/src/planted.rs"));
    assert!(bugs.len() >= 24, "{bugs:?}");
    let table = fs::read_to_string(Path::new(ROOT).join("docs/PLANTED.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(names, bugs, "run tests/long/planted-bugs.sh --write");
    for row in &rows {
        let caught = row[2] != "-" || row[3] != "-";
        assert!(
            row.len() == 5 && caught && !row[2].contains("escaped"),
            "{row:?}"
        );
    }
}
