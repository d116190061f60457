//! The cost of a backlog: opening a channel reads at most the newest segments, and memory does
//! not grow with what waits. Each measurement runs in a process of its own (this binary again).
//!
//! `FOREBAY_LONG=1` adds ten million events.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use forebay::channel::file::{FileChannel, FileChannelOptions, SyncMode};
use forebay::channel::{Channel, PutBatch, PutEvent, TakeMode};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::event::Event;

const BATCH: u64 = 5_000;
const BODY: usize = 500;
const SEGMENT: u64 = 16 << 20;
const CHILD: &str = "FOREBAY_FLAT_COST_CHILD";
const MIB: u64 = 1 << 20;

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        capacity: 100_000_000,
        max_file_size: SEGMENT,
        minimum_required_space: MIB,
        keep_alive: std::time::Duration::from_secs(60),
        sync: SyncMode::Os,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap()
}

fn fill(channel: &FileChannel, count: u64) {
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap()) {
        let events = (first..(first + BATCH).min(count)).map(|n| {
            let mut body = format!("{n:012} ").into_bytes();
            body.resize(BODY, b'x');
            PutEvent {
                event: Event::from_body(body),
                position: None,
            }
        });
        let batch = PutBatch {
            events: events.collect(),
            positions: Vec::new(),
        };
        channel.commit_put_blocking(batch).unwrap();
    }
}

/// What the kernel says of this process, in bytes.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Bytes that this process has asked the system to read.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|l| l.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

/// Runs in a child process when told to; a test without work otherwise.
#[test]
fn child_of_the_measurement() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let (task, rest) = task.split_once(' ').unwrap();
    let (count, dir) = rest.split_once(' ').unwrap();
    let (count, dir) = (count.parse().unwrap(), PathBuf::from(dir));
    let mut report = std::fs::File::create(dir.join("../report")).unwrap();
    if task == "fill" {
        let channel = open(&dir);
        fill(&channel, count);
        let filled = (memory("RssAnon"), memory("RssFile"));
        writeln!(report, "{} {}", filled.0, filled.1).unwrap();
        // As a crash: nothing is sealed.
        return;
    }
    let (before, start) = (bytes_read(), Instant::now());
    let channel = open(&dir);
    let (millis, read) = (start.elapsed().as_millis(), bytes_read() - before);
    assert_eq!(channel.status().waiting, count);
    let opened = (memory("RssAnon"), memory("RssFile"));
    let lease = channel.open_lease(TakeMode::Batch).unwrap();
    let (mut taken, mut anon, mut file) = (0, 0, 0);
    while taken < count.min(200_000) {
        let batch = channel.lease_take(lease, 1_000, usize::MAX).unwrap();
        taken += batch.events.len() as u64;
        anon = anon.max(memory("RssAnon"));
        file = file.max(memory("RssFile"));
    }
    let (a, f) = opened;
    writeln!(report, "{millis} {read} {a} {f} {anon} {file}").unwrap();
}

fn child(task: &str, count: u64, dir: &Path) -> Vec<u64> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_of_the_measurement"])
        .env(CHILD, format!("{task} {count} {}", dir.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let report = std::fs::read_to_string(dir.join("../report")).unwrap();
    let words = report.split_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

#[test]
fn memory_and_what_opening_reads_do_not_grow_with_the_backlog() {
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    let mut counts = vec![1_000, 100_000, 1_000_000];
    if std::env::var_os("FOREBAY_LONG").is_some() {
        counts.push(10_000_000);
    }
    let mut table = String::from(
        "    waiting  fill anon/file MiB   open ms  read MiB  open anon/file  taking anon/file\n",
    );
    let mut files = Vec::new();
    for count in counts {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::create_dir(&log).unwrap();
        let filled = child("fill", count, &log);
        let opened = child("open", count, &log);
        let [fill_anon, fill_file] = filled[..] else {
            panic!("{filled:?}")
        };
        let [millis, read, anon, file, take_anon, take_file] = opened[..] else {
            panic!("{opened:?}")
        };
        let mib = |bytes: u64| bytes / MIB;
        table += &format!(
            "{count:>11} {:>9} / {:<6} {millis:>9} {:>9} {:>9} / {:<4} {:>10} / {:<4}\n",
            mib(fill_anon),
            mib(fill_file),
            mib(read),
            mib(anon),
            mib(file),
            mib(take_anon),
            mib(take_file),
        );
        for anon in [fill_anon, anon, take_anon] {
            assert!(anon < 64 * MIB, "RssAnon is not flat\n{table}");
        }
        // The scan, a look for its end, and the headers of prepared segments.
        assert!(
            read < 3 * SEGMENT,
            "opening read more than a segment\n{table}"
        );
        files.push((fill_file, file, take_file));
    }
    // One hot segment and the one before it may be in memory, whatever waits.
    let least = files[0];
    for file in &files {
        let flat = |more: u64, less: u64| more < less + 4 * SEGMENT;
        let all = flat(file.0, least.0) && flat(file.1, least.1) && flat(file.2, least.2);
        assert!(all, "RssFile is not flat\n{table}");
    }
    let shown = std::io::stderr().write_all(table.as_bytes());
    shown.unwrap();
}
