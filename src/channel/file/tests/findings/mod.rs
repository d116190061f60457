//! Ways in which earlier versions of the design lost or doubled an event of the log. Each test
//! carries the number of its finding; docs/TESTING.md lists them together with the findings
//! whose tests stand elsewhere.

mod belief;
mod limits;
mod openings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use super::{batch, runtime, take_all};
use crate::channel::{EpochRecord, TakeTransaction};
use crate::env::clock;
use crate::env::disk::Disk;
use crate::env::disk_sim::SimDisk;

pub(super) const SEGMENT: u64 = 64 << 10;

pub(super) fn options() -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: vec![PathBuf::from("/data")],
        max_file_size: SEGMENT,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_secs(10),
        keep_dead: Duration::ZERO,
        ..FileChannelOptions::default()
    }
}

fn open_with(disk: &SimDisk, options: FileChannelOptions) -> Arc<FileChannel> {
    FileChannel::open("c1", options, Arc::new(disk.clone()), clock::system()).unwrap()
}

fn open(disk: &SimDisk) -> Arc<FileChannel> {
    open_with(disk, options())
}

fn lazy(sync: SyncMode) -> FileChannelOptions {
    FileChannelOptions { sync, ..options() }
}

fn put(channel: &FileChannel, first: u64, count: u64) -> Option<SeqRange> {
    channel
        .commit_put_blocking(batch(first, count, 700))
        .unwrap()
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter();
    files.filter(|p| super::crash::is_segment(p)).collect()
}

fn content(disk: &SimDisk, path: &std::path::Path) -> Vec<u8> {
    let backend = crate::env::disk::WriteBackend::Pwrite;
    let file = disk.open(path, false, backend).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Rolls the log by hand.
fn roll(channel: &FileChannel) {
    while !channel.core.roll(&mut channel.core.writer()).unwrap() {
        std::thread::yield_now();
    }
    channel.core.reclaim();
}

/// Seals the next `events` as an epoch.
fn seal(channel: &Arc<FileChannel>, events: usize) -> EpochRecord {
    let dynamic: Arc<dyn Channel> = Arc::clone(channel) as _;
    let mode = TakeMode::Staged { block_events: 1000 };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    take.take(events, usize::MAX).unwrap();
    let last = take.held().unwrap().last;
    runtime().block_on(take.seal(request(last))).unwrap()
}

fn request(last: Seq) -> SealRequest {
    SealRequest {
        last,
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: format!("/out/_staging/c/i1/a{last}"),
        parts: Vec::new(),
    }
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange {
        first: Seq(first),
        last: Seq(last),
    }
}

fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}
