//! `forebay resolve` on a real log: a sealed epoch is acknowledged or given back, and nothing else
//! changes.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{
    Channel, EpochPart, PutBatch, PutEvent, SealRequest, TakeMode, TakeTransaction,
};
use forebay::env::{clock, disk_real::RealDisk};
use forebay::event::{Event, Seq};

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap()
}

/// Ten events, the first four sealed as epoch 1.
async fn sealed(dir: &Path) {
    let channel = open(dir);
    let put = PutEvent {
        event: Event::from_body("body"),
        position: None,
    };
    let batch = PutBatch {
        events: vec![put; 10],
        positions: Vec::new(),
    };
    channel.commit_put(batch).await.unwrap();
    let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
    let mode = TakeMode::Staged { block_events: 100 };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    take.take(10, 1 << 20).unwrap();
    let part = EpochPart {
        staged_name: "x".into(),
        final_path: "/out/x-{epoch}".into(),
        count: 4,
        length: 20,
        crc32: 0,
    };
    let request = SealRequest {
        last: Seq(4),
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: "/out/_staging/c/i1/a1".into(),
        parts: vec![part],
    };
    assert_eq!(take.seal(request).await.unwrap().epoch, 1);
    drop(take);
    channel.close().unwrap();
}

fn resolve(dir: &Path, words: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_forebay");
    Command::new(binary)
        .arg("resolve")
        .args(words)
        .arg(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn waiting(dir: &Path) -> (u64, u64) {
    let status = open(dir).status();
    (status.waiting, status.sealed_unpublished)
}

#[tokio::test]
async fn done_acknowledges_the_range_and_prints_the_facts_first() {
    let dir = tempfile::tempdir().unwrap();
    sealed(dir.path()).await;
    assert_eq!(waiting(dir.path()), (6, 4));
    let output = resolve(dir.path(), &["1", "--done"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let facts = text(&output.stdout);
    assert!(
        facts.contains("epoch 1: events 1 to 4 of sink k1, sealed, not claimed"),
        "{facts}"
    );
    assert!(
        facts.contains("file:///out/x-0000000000000001 (4 events, 20 bytes)"),
        "{facts}"
    );
    assert_eq!(waiting(dir.path()), (6, 0));
}

#[tokio::test]
async fn again_gives_the_range_back_to_the_head() {
    let dir = tempfile::tempdir().unwrap();
    sealed(dir.path()).await;
    let output = resolve(dir.path(), &["1", "--again"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(waiting(dir.path()), (10, 0));
}

#[tokio::test]
async fn an_epoch_that_is_not_open_and_a_running_agent_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    sealed(dir.path()).await;
    let output = resolve(dir.path(), &["7", "--done"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("open epochs: 1"),
        "{}",
        text(&output.stderr)
    );
    let channel = open(dir.path());
    let output = resolve(dir.path(), &["1", "--done"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    drop(channel);
    assert_eq!(waiting(dir.path()), (6, 4), "nothing has changed");
}
