//! What one small commit costs at the device, counted by the kernel at the block layer: a store
//! into a large folio of the page cache would send the whole folio (1 MiB) with each sync, and no
//! counter of the process would tell. Real ext4 and XFS on a loop device of their own.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]
#![allow(clippy::print_stdout, reason = "a figure is what it is for")]

#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/loopfs.rs"]
mod loopfs;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, PutBatch, PutEvent};
use forebay::env::clock;
use forebay::env::disk::WriteBackend;
use forebay::env::disk_real::RealDisk;
use forebay::event::Event;
use loopfs::{Kind, LoopFs};

const IMAGE: u64 = 256 << 20;
const COMMITS: u64 = 200;
/// A frame lies in one or two blocks of 4 KiB, and now and then the file system writes its own.
const MOST_PER_COMMIT: u64 = 24 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes written to the block device behind a mount point so far.
fn written(mount: &Path) -> u64 {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let device = lines
        .find_map(|mut words| {
            let device = words.next()?;
            (words.next()? == mount.to_str()?).then_some(device)
        })
        .unwrap();
    let name = device.rsplit('/').next().unwrap();
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    // The seventh number counts sectors of 512 bytes, whatever the device's own are.
    let sectors: u64 = stat.split_whitespace().nth(6).unwrap().parse().unwrap();
    sectors * 512
}

/// The preparer writes zeros beside the commits until its segments are ready.
fn wait_until_prepared(dir: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let ready = || {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        names
            .filter(|n| n.starts_with("spare-") && !n.ends_with(".new"))
            .count()
    };
    while ready() < 6 {
        assert!(Instant::now() < deadline, "{} of 6 segments", ready());
        std::thread::yield_now();
    }
}

fn bytes_of_a_commit(kind: Kind, backend: WriteBackend) -> u64 {
    let fs = LoopFs::new(kind, IMAGE);
    let dir = fs.path().join("log");
    let options = FileChannelOptions {
        data_dirs: vec![dir.clone()],
        max_file_size: 4 << 20,
        minimum_required_space: 1 << 20,
        backend,
        ..FileChannelOptions::default()
    };
    let channel = FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap();
    let put = || {
        let put = PutEvent {
            event: Event::from_body(vec![b'x'; 500]),
            position: None,
        };
        let batch = PutBatch {
            events: vec![put],
            positions: Vec::new(),
        };
        channel.commit_put_blocking(batch).unwrap();
    };
    put();
    wait_until_prepared(&dir);
    rustix::fs::syncfs(std::fs::File::open(fs.path()).unwrap()).unwrap();
    let before = written(fs.path());
    for _ in 0..COMMITS {
        put();
    }
    let bytes = (written(fs.path()) - before) / COMMITS;
    println!("{kind:?} {backend:?}: {bytes} bytes at the device for a commit of 500");
    channel.close().unwrap();
    bytes
}

fn a_small_commit_stays_small(kind: Kind) {
    for backend in [WriteBackend::Pwrite, WriteBackend::Map] {
        let bytes = bytes_of_a_commit(kind, backend);
        // Less than the frame itself would mean that nothing was counted.
        assert!(
            (500..MOST_PER_COMMIT).contains(&bytes),
            "{kind:?} {backend:?}: {bytes} bytes"
        );
    }
}

#[test]
fn a_small_commit_sends_some_kilobytes_to_an_ext4_and_no_folio() {
    a_small_commit_stays_small(Kind::Ext4);
}

#[test]
fn a_small_commit_sends_some_kilobytes_to_an_xfs_and_no_folio() {
    a_small_commit_stays_small(Kind::Xfs);
}
