//! The file channel on a real directory: what a process crash leaves is simulated by dropping the
//! channel without a seal, damage by changing bytes of its segments.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::examine::examine;
use super::*;
use crate::channel::{PutEvent, TakeTransaction};
use crate::env::clock;
use crate::env::disk::WriteBackend;
use crate::env::disk_real::RealDisk;
use crate::event::Event;

mod adopt;
mod crash;
mod findings;
mod forged;
mod home;
mod ownership;
mod peek;
mod planted;
mod reuse;
mod review;
mod salvage;
mod verify;

const SEGMENT: u64 = 1 << 20;

fn options(dir: &Path) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: vec![dir.join("data")],
        capacity: 1_000_000,
        max_file_size: SEGMENT,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_secs(10),
        ..FileChannelOptions::default()
    }
}

fn open(options: &FileChannelOptions) -> Arc<FileChannel> {
    FileChannel::open("c1", options.clone(), Arc::new(RealDisk), clock::system()).unwrap()
}

fn batch(first: u64, count: u64, size: usize) -> PutBatch {
    let events = (first..first + count).map(|n| {
        let mut body = format!("{n:08} ").into_bytes();
        body.resize(size.max(9), b'x');
        PutEvent {
            event: Event::from_body(body),
            position: Some((0, n)),
        }
    });
    let position = Position {
        key: "r1/file".into(),
        value: (first + count).to_string().into(),
    };
    PutBatch {
        events: events.collect(),
        positions: vec![position],
    }
}

fn put(channel: &FileChannel, first: u64, count: u64) {
    channel
        .commit_put_blocking(batch(first, count, 100))
        .unwrap();
}

fn number(event: &crate::channel::TakenEvent) -> u64 {
    std::str::from_utf8(&event.event.body[..8])
        .unwrap()
        .parse()
        .unwrap()
}

/// Takes everything there is; returns the numbers in the bodies and what was lost.
fn take_all(channel: &Arc<FileChannel>) -> (Vec<u64>, Vec<SeqRange>) {
    let dynamic: Arc<dyn Channel> = Arc::clone(channel) as _;
    let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
    let (mut numbers, mut lost) = (Vec::new(), Vec::new());
    loop {
        let batch = take.take(777, 1 << 20).unwrap();
        if batch.is_empty() {
            return (numbers, lost);
        }
        for event in &batch.events {
            numbers.push(number(event));
        }
        lost.extend(batch.lost);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn ack(channel: &Arc<FileChannel>, events: usize) -> Vec<u64> {
    let dynamic: Arc<dyn Channel> = Arc::clone(channel) as _;
    runtime().block_on(async {
        let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
        let batch = take.take(events, usize::MAX).unwrap();
        take.commit().await.unwrap();
        batch.events.iter().map(number).collect()
    })
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir.join("data"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("segment-")
        })
        .collect();
    paths.sort();
    paths
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn all(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn what_was_put_is_taken_in_order_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let channel = open(&options(dir.path()));
        put(&channel, round * 100, 100);
        assert_eq!(take_all(&channel).0, all(0..(round + 1) * 100));
    }
}

#[test]
fn acknowledged_events_and_positions_are_remembered_over_crashes_and_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    for n in 0..100 {
        put(&channel, n * 500, 500);
    }
    assert_eq!(ack(&channel, 1234), all(0..1234));
    assert!(segments(dir.path()).len() > 4, "the log has rolled");
    drop(channel);
    let channel = open(&options(dir.path()));
    assert_eq!(take_all(&channel).0, all(1234..50_000));
    assert_eq!(channel.positions("r1/")[0].value, "50000");
    assert_eq!(channel.journal().incarnation().number, 2);
}

#[test]
fn both_backends_write_the_same_log() {
    for backend in [WriteBackend::Pwrite, WriteBackend::Map] {
        let dir = tempfile::tempdir().unwrap();
        let options = FileChannelOptions {
            backend,
            ..options(dir.path())
        };
        let channel = open(&options);
        put(&channel, 0, 1000);
        drop(channel);
        let channel = open(&options);
        put(&channel, 1000, 1000);
        assert_eq!(take_all(&channel).0, all(0..2000), "{backend:?}");
    }
}

#[test]
fn newest_snapshot_rotten_opens_from_the_one_before_with_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    for n in 0..30 {
        put(&channel, n * 500, 500);
    }
    ack(&channel, 700);
    channel.close().unwrap();
    drop(channel);
    let newest = segments(dir.path()).pop().unwrap();
    flip(&newest, 4096 + 100);
    let report = examine(&RealDisk, &options(dir.path()).data_dirs, |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let channel = open(&options(dir.path()));
    let state = channel.core.state().clone();
    assert_eq!(take_all(&channel).0, all(700..15_000));
    assert_eq!(channel.positions("")[0].value, "15000");
    assert!(!state.control_lost, "a lost snapshot hides no decision");
    assert_eq!(state.next_sequence, 15_001);
}

#[test]
fn a_flipped_byte_below_the_watermark_is_named_and_the_rest_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    for n in 0..20 {
        put(&channel, n * 10, 10);
    }
    drop(channel);
    let path = segments(dir.path()).pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|w| w == b"00000055 ").unwrap();
    flip(&path, at as u64 + 20);
    let report = examine(&RealDisk, &options(dir.path()).data_dirs, |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.damage[0].lost, Some((51, 60)));
    let channel = open(&options(dir.path()));
    let (numbers, lost) = take_all(&channel);
    assert_eq!(numbers, [all(0..50), all(60..200)].concat());
    assert_eq!(
        lost,
        [SeqRange {
            first: Seq(51),
            last: Seq(60)
        }]
    );
    assert_eq!(channel.status().corrupt, 10);
}

#[test]
fn a_torn_tail_needs_no_operator_and_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    put(&channel, 0, 10);
    put(&channel, 10, 10);
    let end = channel.core.durable_end();
    drop(channel);
    let path = segments(dir.path()).pop().unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[7; 300], u64::from(end.offset()))
        .unwrap();
    let report = examine(&RealDisk, &options(dir.path()).data_dirs, |_, _| {}).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.segments.last().unwrap().torn_bytes, 300);
    let channel = open(&options(dir.path()));
    put(&channel, 20, 10);
    assert_eq!(take_all(&channel).0, all(0..30));
}

#[test]
fn a_header_sector_of_any_segment_may_rot() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    for n in 0..30 {
        put(&channel, n * 500, 500);
    }
    drop(channel);
    for path in segments(dir.path()) {
        flip(&path, 40);
    }
    let channel = open(&options(dir.path()));
    assert_eq!(take_all(&channel), (all(0..15_000), Vec::new()));
}

#[test]
fn a_second_opener_is_refused_and_a_foreign_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    let open_again = |o: &FileChannelOptions| {
        FileChannel::open("c2", o.clone(), Arc::new(RealDisk), clock::system()).unwrap_err()
    };
    assert!(matches!(
        open_again(&options(dir.path())),
        OpenError::InUse { .. }
    ));
    drop(channel);
    let flume = dir.path().join("flume");
    std::fs::create_dir(&flume).unwrap();
    std::fs::write(flume.join("log-1"), b"").unwrap();
    let foreign = FileChannelOptions {
        data_dirs: vec![flume],
        ..options(dir.path())
    };
    assert!(
        open_again(&foreign)
            .to_string()
            .contains("Apache Flume file channel")
    );
    let mut two = options(dir.path());
    two.data_dirs.push(dir.path().join("second"));
    assert!(open_again(&two).to_string().contains("is directory 1 of 1"));
}

#[test]
fn several_data_dirs_hold_one_log_and_a_missing_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.data_dirs.push(dir.path().join("second"));
    let channel = open(&options);
    for n in 0..30 {
        put(&channel, n * 500, 500);
    }
    drop(channel);
    let channel = open(&options);
    assert_eq!(take_all(&channel).0, all(0..15_000));
    drop(channel);
    let in_second = std::fs::read_dir(&options.data_dirs[1]).unwrap().count();
    assert!(in_second > 3, "segments are laid out over both");
    std::fs::rename(&options.data_dirs[1], dir.path().join("elsewhere")).unwrap();
    let error = FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap_err();
    assert!(error.to_string().contains("not mounted"), "{error}");
}

#[test]
fn dead_segments_are_deleted_after_two_later_snapshots_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileChannelOptions {
        keep_dead: Duration::ZERO,
        ..options(dir.path())
    };
    let channel = open(&options);
    for n in 0..60 {
        put(&channel, n * 500, 500);
    }
    let before = segments(dir.path()).len();
    ack(&channel, 20_000);
    for n in 60..90 {
        put(&channel, n * 500, 500);
    }
    let after = segments(dir.path()).len();
    assert!(after < before + 2, "{before} segments became {after}");
    drop(channel);
    let channel = open(&options);
    assert_eq!(take_all(&channel), (all(20_000..45_000), Vec::new()));
}

#[test]
fn sync_mode_os_delivers_what_is_put() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileChannelOptions {
        sync: SyncMode::Os,
        ..options(dir.path())
    };
    let channel = open(&options);
    put(&channel, 0, 10);
    runtime().block_on(channel.wait_ready(Duration::from_secs(10)));
    assert_eq!(take_all(&channel).0, all(0..10));
}

#[test]
fn a_crash_loop_with_a_trickle_gives_its_segments_back() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let channel = open(&options(dir.path()));
        put(&channel, round, 1);
    }
    let bytes: u64 = segments(dir.path())
        .iter()
        .map(|p| p.metadata().unwrap().len())
        .sum();
    assert!(
        bytes < 2 * SEGMENT,
        "{bytes} bytes in segments after 12 starts"
    );
    assert_eq!(take_all(&open(&options(dir.path()))).0, all(0..12));
}
