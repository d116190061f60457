//! The tables of docs/DURABILITY.md, docs/EXACTLY-ONCE.md and docs/TESTING.md: every row names a
//! test that exists, and every row of the code's own decision tables stands in the document.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Names of all test functions of the repository.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open: Vec<PathBuf> = ["src", "tests", "wal-format"]
        .iter()
        .map(|d| root().join(d))
        .collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let functions = text
                    .lines()
                    .filter_map(|line| line.trim().split("fn ").nth(1));
                names.extend(
                    functions
                        .filter_map(|f| f.split('(').next())
                        .map(str::to_owned),
                );
            }
        }
    }
    names
}

/// Rows of the tables whose header begins with a crash point or a finding and ends with the test.
fn rows(document: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        let cells: Vec<String> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(|c| c.trim().to_owned())
            .collect();
        if !line.trim_start().starts_with('|') {
            inside = false;
        } else if ["crash point", "finding"].contains(&cells[0].to_lowercase().as_str()) {
            inside = true;
        } else if inside && !cells[0].starts_with("--") {
            rows.push(cells);
        }
    }
    rows
}

fn every_row_names_a_test(path: &str) -> Vec<Vec<String>> {
    let rows = rows(&read(path));
    assert!(rows.len() >= 8, "{path}: only {} rows", rows.len());
    let tests = tests();
    for row in &rows {
        let cell = row.last().unwrap();
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(
            !named.is_empty(),
            "{path}: the row {:?} names no test",
            row[0]
        );
        for name in named {
            // A module path may stand before the name.
            let name = name.rsplit("::").next().unwrap();
            assert!(tests.contains(name), "{path}: no test is called {name}");
        }
    }
    rows
}

#[test]
fn every_row_of_the_durability_table_names_a_test_and_every_recovery_row_is_there() {
    let rows = every_row_names_a_test("docs/DURABILITY.md");
    let recovery = read("src/channel/file/recovery/mod.rs");
    let labels = recovery
        .lines()
        .filter_map(|l| l.strip_prefix("//! | R")?.split(' ').next());
    let labels: Vec<String> = labels.map(|n| format!("(R{n})")).collect();
    assert!(labels.len() >= 8);
    for label in labels {
        let found = rows.iter().any(|row| row[0].contains(&label));
        assert!(found, "docs/DURABILITY.md has no row {label}");
    }
}

#[test]
fn every_row_of_the_exactly_once_table_names_a_test() {
    every_row_names_a_test("docs/EXACTLY-ONCE.md");
}

#[test]
fn every_finding_of_the_design_reviews_names_a_test() {
    every_row_names_a_test("docs/TESTING.md");
}
