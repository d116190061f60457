//! `forebay audit --log` as a person runs it after an incident: the real binary on real names and
//! a real log, with files taken away, an old copy of the log, damage, and beside a writer.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{
    Channel, EpochPart, EpochRecord, PutBatch, PutEvent, SealRequest, TakeMode, TakeTransaction,
};
use forebay::env::{clock, disk_real::RealDisk};
use forebay::event::{Event, Seq};

/// A log, and a directory in which its epochs are "published" as empty files with right names.
struct Site {
    dir: tempfile::TempDir,
    channel: Arc<FileChannel>,
    given: u64,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let channel = open(&dir.path().join("c1"));
        Self {
            dir,
            channel,
            given: 0,
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("c1")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    async fn put(&mut self, events: u64) {
        let put = |n| PutEvent {
            event: Event::from_body(format!("event {n:05}")),
            position: None,
        };
        let batch = PutBatch {
            events: (self.given..self.given + events).map(put).collect(),
            positions: Vec::new(),
        };
        self.channel.commit_put(batch).await.unwrap();
        self.given += events;
    }

    /// Seals the events up to `last`; the epoch's name on success.
    async fn seal(&self, last: u64) -> EpochRecord {
        let dynamic: Arc<dyn Channel> = Arc::clone(&self.channel) as _;
        let mode = TakeMode::Staged {
            block_events: 1 << 20,
        };
        let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
        let mut taken = 0;
        while taken < last {
            let batch = take.take(10_000, 1 << 20).unwrap();
            taken = batch.events.last().map_or(taken, |e| e.seq.0);
            tokio::task::yield_now().await;
        }
        let part = EpochPart {
            staged_name: "x".into(),
            final_path: format!("{}/x-{{epoch}}", self.out().display()),
            count: 1,
            length: 0,
            crc32: 0,
        };
        let request = SealRequest {
            last: Seq(last),
            sink: "k1".into(),
            store: "file://".into(),
            base: "/out".into(),
            attempt: "/out/_staging/c/i1/a1".into(),
            parts: vec![part],
        };
        take.seal(request).await.unwrap()
    }

    fn file_of(&self, epoch: &EpochRecord) -> PathBuf {
        let (first, last) = (epoch.range.first.0, epoch.range.last.0);
        let id = self.channel.journal().channel_id();
        let (epoch, count) = (epoch.epoch, last - first + 1);
        self.out().join(format!(
            "x-k1-{id}-e{epoch:016}-p1of1-{first:020}-{last:020}-{count}"
        ))
    }

    /// Seals and publishes the events up to `last`.
    async fn publish(&self, last: u64) -> EpochRecord {
        let epoch = self.seal(last).await;
        let journal = self.channel.journal();
        journal.claimed(epoch.epoch).await.unwrap();
        std::fs::write(self.file_of(&epoch), "").unwrap();
        journal.done(epoch.epoch).await.unwrap();
        epoch
    }

    fn audit(&self, more: &[&str]) -> Output {
        audit(&self.out(), &self.log(), more)
    }
}

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap()
}

fn audit(out: &Path, log: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .arg("audit")
        .arg(out)
        .arg("--log")
        .arg(log)
        .args(more)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

fn findings(output: &Output) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["log"]["findings"].clone()
}

/// Names and bytes of every file. A file that a writer renames meanwhile (a spare segment) is met
/// under its new name.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    loop {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let read = entries.map(|path| std::fs::read(&path).map(|bytes| (path, bytes)));
        match read.collect::<std::io::Result<Vec<_>>>() {
            Ok(mut files) => {
                files.sort();
                return files;
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
}

/// The log as it is now, under another name.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for (path, bytes) in tree(from) {
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

#[tokio::test]
async fn sealed_and_waiting_events_are_accounted_for_and_a_removed_file_is_missing() {
    let mut site = Site::new();
    site.put(30).await;
    let first = site.publish(10).await;
    let second = site.seal(20).await;
    site.channel.journal().claimed(2).await.unwrap();
    std::fs::write(site.file_of(&second), "").unwrap();
    site.channel.close().unwrap();
    let before = tree(&site.log());

    let output = site.audit(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for words in [
        "next event 31: 10 events done and published, 10 sealed, 10 waiting",
        "epoch 2, events 11 to 20, sealed and claimed by k1 in file:///out: 1 of 1 files published",
        "log and files agree",
    ] {
        assert!(text(&output).contains(words), "{}", text(&output));
    }
    // Without the log epoch 2 says nothing about itself; with its file gone it is on its way.
    std::fs::remove_file(site.file_of(&second)).unwrap();
    assert_eq!(site.audit(&[]).status.code(), Some(0));

    std::fs::remove_file(site.file_of(&first)).unwrap();
    let output = site.audit(&[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output).contains("missing: events 1 to 10 are done"),
        "{}",
        text(&output)
    );
    let found = findings(&site.audit(&["--json"]));
    let expected = serde_json::json!([{"finding": "missing", "first": 1, "last": 10}]);
    assert_eq!(found, expected);
    assert!(before == tree(&site.log()), "an audit writes nothing");
}

#[tokio::test]
async fn an_old_copy_of_the_log_would_publish_again_and_is_told_so() {
    let mut site = Site::new();
    site.put(20).await;
    site.publish(10).await;
    let old = site.dir.path().join("old");
    copy(&site.log(), &old);
    site.publish(20).await;
    let double = serde_json::json!({
        "finding": "double", "first": 11, "last": 20, "epoch": 2, "sealed_as": null
    });
    let ahead = serde_json::json!({"finding": "ahead", "epoch": 2, "first": 11, "last": 20});
    let output = audit(&site.out(), &old, &["--json"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(findings(&output), serde_json::json!([ahead, double]));
    assert_eq!(site.audit(&[]).status.code(), Some(0));

    // A log of another channel has nothing to do with these files.
    let other = Site::new();
    let output = audit(&site.out(), &other.log(), &[]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output).contains("no file is of this log's channel"),
        "{}",
        text(&output)
    );
}

#[tokio::test]
async fn events_damaged_before_they_were_published_are_lost_and_others_are_not() {
    let mut site = Site::new();
    for _ in 0..4 {
        site.put(10).await;
    }
    site.publish(10).await;
    site.channel.close().unwrap();
    let (path, bytes) = tree(&site.log())
        .into_iter()
        .find(|(path, _)| path.to_string_lossy().contains("/segment-"))
        .unwrap();
    for number in [5, 25] {
        let wanted = format!("event {number:05}");
        let at = bytes
            .windows(wanted.len())
            .position(|w| w == wanted.as_bytes())
            .unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"X", at as u64).unwrap();
    }
    let output = site.audit(&["--json"]);
    assert_eq!(output.status.code(), Some(5));
    let expected = serde_json::json!([{"finding": "lost", "first": 21, "last": 30}]);
    assert_eq!(findings(&output), expected, "1 to 10 are published");
}

/// The order of the looks: a single look at the log would call epochs missing or double.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn beside_a_writer_that_seals_and_publishes_nothing_is_found() {
    let mut site = Site::new();
    let (out, log) = (site.out(), site.log());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let audits = std::thread::spawn(move || {
        for _ in 0..6 {
            let output = audit(&out, &log, &[]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        }
        stopped.store(true, Ordering::Release);
    });
    while !stop.load(Ordering::Acquire) && !audits.is_finished() {
        site.put(5).await;
        site.publish(site.given).await;
    }
    audits.join().unwrap();
    assert!(site.given > 50, "the writer was at work: {}", site.given);
}

#[test]
fn a_directory_without_a_log_is_a_failure_and_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let output = audit(dir.path(), dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("--log: "), "{}", text(&output));
    assert!(output.stdout.is_empty(), "nothing for a script to misread");
}
