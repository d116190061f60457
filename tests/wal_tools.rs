//! `forebay wal inspect` and `forebay wal verify` as a person runs them: the real binary on a
//! real log, with one byte changed, with a torn tail, and beside a channel that is open.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, PutBatch, PutEvent};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::event::Event;

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap()
}

/// Puts `groups` transactions of ten events; event n (from 1) has the body "event n ".
fn put(channel: &FileChannel, groups: u64) {
    for group in 0..groups {
        let events = (1..=10).map(|n| PutEvent {
            event: Event::from_body(format!("event {:05} {}", group * 10 + n, "x".repeat(80))),
            position: None,
        });
        let batch = PutBatch {
            events: events.collect(),
            positions: Vec::new(),
        };
        channel.commit_put_blocking(batch).unwrap();
    }
}

fn newest_segment(dir: &Path) -> PathBuf {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut segments: Vec<PathBuf> = names
        .filter(|p| p.to_string_lossy().contains("/segment-"))
        .collect();
    segments.sort();
    segments.pop().unwrap()
}

fn wal(command: &str, dir: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["wal", command])
        .args(more)
        .arg(dir)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("the output is one JSON document")
}

/// Changes one byte of the transaction that holds event `number`; returns its file and offset.
fn damage(dir: &Path, number: u64) -> (PathBuf, u64) {
    let path = newest_segment(dir);
    let bytes = std::fs::read(&path).unwrap();
    let text = format!("event {number:05} ");
    let at = bytes
        .windows(text.len())
        .position(|w| w == text.as_bytes())
        .unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    (path, at as u64)
}

#[test]
fn verify_names_segment_offset_and_sequence_numbers_of_a_flipped_byte() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(dir.path());
    put(&channel, 20);
    drop(channel);
    assert_eq!(wal("verify", dir.path(), &[]).status.code(), Some(0));
    let (path, at) = damage(dir.path(), 57);

    let found = wal("verify", dir.path(), &[]);
    assert_eq!(found.status.code(), Some(5), "{}", stdout(&found));
    let text = stdout(&found);
    assert!(text.contains("DAMAGE segment 0 offset "), "{text}");
    assert!(text.contains("events 51 to 60 are lost"), "{text}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(text.contains("190 events: DAMAGED"), "{text}");

    let found = wal("verify", dir.path(), &["--json"]);
    assert_eq!(found.status.code(), Some(5));
    let report = json(&found);
    let damage = &report["damage"][0];
    assert_eq!(damage["segment"], 0);
    assert_eq!(damage["lost"], serde_json::json!([51, 60]));
    let (from, to) = (&damage["offset"], &damage["resume"]);
    let frame = from.as_u64().unwrap()..to.as_u64().unwrap();
    assert!(frame.contains(&at), "{at} lies in {frame:?}");

    // The channel opens, says so, and goes on; the damage stays on record.
    put(&open(dir.path()), 1);
    let again = wal("verify", dir.path(), &["--json"]);
    assert_eq!(again.status.code(), Some(5));
    assert_eq!(
        json(&again)["damage"][0]["lost"],
        serde_json::json!([51, 60])
    );
}

#[test]
fn verify_finds_rot_in_the_last_transaction_of_a_log_that_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(dir.path());
    put(&channel, 3);
    channel.close().unwrap();
    damage(dir.path(), 30);
    let found = wal("verify", dir.path(), &[]);
    assert_eq!(found.status.code(), Some(5), "{}", stdout(&found));
    assert!(stdout(&found).contains("events 21 to 30 are lost"));
}

#[test]
fn verify_takes_a_torn_tail_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(dir.path());
    put(&channel, 5);
    drop(channel);
    let report = json(&wal("inspect", dir.path(), &["--json"]));
    let end = report["segments"][0]["end"].as_u64().unwrap();
    let path = newest_segment(dir.path());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 300], end).unwrap();

    let found = wal("verify", dir.path(), &[]);
    assert_eq!(found.status.code(), Some(0), "{}", stdout(&found));
    let text = stdout(&found);
    assert!(
        text.contains(&format!("torn tail of 300 bytes at {end}")),
        "{text}"
    );
    assert!(text.contains("50 events: sound"), "{text}");
}

#[test]
fn inspect_shows_a_log_while_its_channel_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(dir.path());
    put(&channel, 1200);
    let shown = wal("inspect", dir.path(), &[]);
    assert_eq!(shown.status.code(), Some(0));
    let text = stdout(&shown);
    assert!(text.contains("incarnation 1"), "{text}");
    assert!(text.contains("next sequence number 12001"), "{text}");
    assert!(text.contains("sealed") && text.contains("open"), "{text}");

    let report = json(&wal("inspect", dir.path(), &["--json"]));
    assert_eq!(report["next_sequence"], 12_001);
    let segments = report["segments"].as_array().unwrap();
    let events: u64 = segments.iter().map(|s| s["events"].as_u64().unwrap()).sum();
    assert_eq!(events, 12_000);
    assert!(segments.len() > 1, "the log has rolled");
    // Nobody was disturbed.
    put(&channel, 1);
    assert_eq!(channel.status().next_sequence, 12_011);
}

#[test]
fn a_directory_without_a_log_is_named_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    for (command, place) in [
        ("inspect", dir.path().to_owned()),
        ("verify", dir.path().to_owned()),
        ("verify", dir.path().join("absent")),
    ] {
        let refused = wal(command, &place, &[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stdout.is_empty(), "nothing for a script to misread");
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(&place.display().to_string()), "{text}");
        assert!(text.contains("dataDirs"), "{text}");
    }
}
