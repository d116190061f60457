//! The repository's own rules, as a test: what a reviewer would otherwise have to look for.
//!
//! Each rule is a pure function from a file's text to findings, tried on a bad example first, so
//! that a rule that has gone blind fails here too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

const LINE_COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 800;
/// The only file that may contain `unsafe` code.
const UNSAFE_FILE: &str = "src/env/region.rs";

/// A text file of the repository.
struct Text {
    /// Path relative to the root, with `/`.
    path: String,
    text: String,
}

impl Text {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|e| e == extension)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file that belongs to the repository: build output, data and hidden directories
/// (except `.ci`) are left out, binary files too.
fn texts() -> Vec<Text> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().unwrap();
            let skipped = matches!(name.as_str(), "target" | "forebay-data" | "__pycache__")
                || (name.starts_with('.') && kind.is_dir() && name != ".ci");
            if skipped {
                continue;
            }
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                let path = entry.path();
                let path = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push(Text { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn check(findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

/// Rows of tables in documentation and raw strings are left out: they cannot be broken.
fn long_lines(file: &Text) -> Vec<String> {
    let is_row = |line: &str| {
        let line = line.trim_start();
        line.starts_with("//! |") || line.starts_with("/// |") || line.contains("r#\"")
    };
    let lines = file
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| !is_row(line));
    lines
        .filter(|(_, line)| line.chars().count() > LINE_COLUMNS_MAX)
        .map(|(i, line)| format!("{}:{}: {} columns", file.path, i + 1, line.chars().count()))
        .collect()
}

fn long_file(file: &Text) -> Option<String> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
}

/// Lines of code with their numbers; comments are cut off.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or("")))
}

fn unsafe_code(file: &Text) -> Vec<String> {
    let unsafe_code = Regex::new(r"\bunsafe\b\s*(\{|fn\b|impl\b|extern\b|trait\b)").unwrap();
    if file.path == UNSAFE_FILE {
        return Vec::new();
    }
    code(&file.text)
        .filter(|(_, line)| unsafe_code.is_match(line))
        .map(|(i, _)| format!("{}:{i}: unsafe code belongs into {UNSAFE_FILE}", file.path))
        .collect()
}

/// Words that mean "not finished"; spelt in two halves so that this file does not find itself.
fn leftovers(file: &Text) -> Vec<String> {
    let words = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X:"),
    ];
    let mut found = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        if let Some(word) = words.iter().find(|word| line.contains(**word)) {
            found.push(format!("{}:{}: leftover {word}", file.path, i + 1));
        }
    }
    found
}

/// Paths that only exist on the machine of whoever wrote the line.
fn machine_paths(file: &Text) -> Vec<String> {
    let pattern = concat!(
        r#"(^|[\s"'`(=:])/(wo"#,
        r"rk|ro",
        r"ot|ho",
        r"me|tm",
        r"p/fb)/"
    );
    let machine = Regex::new(pattern).unwrap();
    let lines = file
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| machine.is_match(line));
    lines
        .map(|(i, line)| format!("{}:{}: machine path: {line}", file.path, i + 1))
        .collect()
}

/// Relative links of a markdown file that lead nowhere, anchors included.
fn dead_links(file: &Text, root: &Path) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut found = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        for target in link.captures_iter(line).map(|c| c.get(1).unwrap().as_str()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let base = root.join(&file.path);
            let full = match path {
                "" => base,
                path => base.parent().unwrap().join(path),
            };
            let place = format!("{}:{}", file.path, i + 1);
            if !full.exists() {
                found.push(format!("{place}: {target} is not there"));
            } else if !anchor.is_empty() && full.extension().is_some_and(|e| e == "md") {
                let text = fs::read_to_string(&full).unwrap();
                if !anchors(&text).contains(anchor) {
                    found.push(format!("{place}: {target} has no such heading"));
                }
            }
        }
    }
    found
}

/// Anchors that a markdown renderer makes of the headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// `INV-n` numbers that a text names.
fn invariants(text: &str) -> BTreeSet<u32> {
    let number = Regex::new(r"\bINV-(\d+)\b").unwrap();
    number
        .captures_iter(text)
        .map(|c| c[1].parse().unwrap())
        .collect()
}

#[test]
fn rules_find_what_they_look_for() {
    let bad = |path: &str, text: String| Text {
        path: path.to_owned(),
        text,
    };
    assert_eq!(
        long_lines(&bad("a.rs", format!("{}\nshort", "x".repeat(101)))).len(),
        1
    );
    assert!(long_file(&bad("a.rs", "x\n".repeat(801))).is_some());
    let text = format!(
        "{} {{ }}\n// {} {{ in a comment }}",
        concat!("uns", "afe"),
        "unsafe"
    );
    assert_eq!(unsafe_code(&bad("src/a.rs", text.clone())).len(), 1);
    assert_eq!(unsafe_code(&bad(UNSAFE_FILE, text)).len(), 0);
    assert_eq!(
        leftovers(&bad("a.md", format!("// {}: later", concat!("TO", "DO")))).len(),
        1
    );
    assert_eq!(
        machine_paths(&bad("a.md", format!("see `{}/x`", concat!("/wo", "rk")))).len(),
        1
    );
    assert_eq!(
        machine_paths(&bad("a.md", "var/log and /var/log/x".to_owned())).len(),
        0
    );
    let links = "[a](no/such/file.md) [b](Cargo.toml) [c](https://example.org) [d](#gone)\n# Here";
    assert_eq!(
        dead_links(&bad("README.md", links.to_owned()), &root()).len(),
        2
    );
    assert_eq!(
        anchors("## Exit codes (for scripts)").first().unwrap(),
        "exit-codes-for-scripts"
    );
    assert_eq!(
        invariants("INV-7, INV-12 and INVENTORY"),
        BTreeSet::from([7, 12])
    );
}

#[test]
fn rust_lines_fit_in_100_columns() {
    check(
        &texts()
            .iter()
            .filter(|f| f.is("rs"))
            .flat_map(long_lines)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn rust_files_have_at_most_800_lines() {
    check(
        &texts()
            .iter()
            .filter(|f| f.is("rs"))
            .filter_map(long_file)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn unsafe_code_is_in_one_file() {
    check(
        &texts()
            .iter()
            .filter(|f| f.is("rs"))
            .flat_map(unsafe_code)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    check(&texts().iter().flat_map(leftovers).collect::<Vec<_>>());
}

#[test]
fn no_path_of_a_single_machine_is_committed() {
    check(&texts().iter().flat_map(machine_paths).collect::<Vec<_>>());
}

#[test]
fn relative_links_in_documents_lead_somewhere() {
    let root = root();
    let files = texts();
    let documents = files.iter().filter(|f| f.is("md"));
    check(
        &documents
            .flat_map(|f| dead_links(f, &root))
            .collect::<Vec<_>>(),
    );
}

/// Every number of docs/INVARIANTS.md stands in the code where it is kept and in a test that
/// shows it; a number in the code that the document does not know is an error as well.
#[test]
fn invariants_are_documented_kept_and_tested() {
    let files = texts();
    let Some(document) = files.iter().find(|f| f.path == "docs/INVARIANTS.md") else {
        return;
    };
    let documented = invariants(&document.text);
    let mut kept = BTreeSet::new();
    let mut tested = BTreeSet::new();
    for file in files
        .iter()
        .filter(|f| f.is("rs") && f.path != "tests/tidy.rs")
    {
        let is_test_file = file.path.contains("tests/") || file.path.ends_with("tests.rs");
        let (code, test) = match file.text.split_once("#[cfg(test)]\nmod ") {
            Some((code, test)) => (code, test),
            None if is_test_file => ("", file.text.as_str()),
            None => (file.text.as_str(), ""),
        };
        kept.extend(invariants(code));
        tested.extend(invariants(test));
    }
    let mut findings = Vec::new();
    for number in &documented {
        if !kept.contains(number) {
            findings.push(format!(
                "INV-{number} is documented but not named in the code"
            ));
        }
        if !tested.contains(number) {
            findings.push(format!("INV-{number} is documented but no test names it"));
        }
    }
    for number in kept.union(&tested).filter(|n| !documented.contains(n)) {
        findings.push(format!(
            "INV-{number} is used but not in docs/INVARIANTS.md"
        ));
    }
    check(&findings);
}
