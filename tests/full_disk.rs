//! A disk filled to the brim, once by the channel itself, once by a foreign file: puts are held
//! back with a clear message, takes and acknowledgements go on, the channel opens on the full
//! disk, and when there is room puts go on. Real ext4 and XFS on a loop device, on blocks of 4 KiB
//! and of 1 KiB.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/loopfs.rs"]
mod loopfs;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{
    Channel, ChannelError, EpochPart, PutBatch, PutEvent, SealRequest, TakeMode, TakeTransaction,
};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::event::{Event, Seq};
use loopfs::{Kind, LoopFs};

const IMAGE: u64 = 256 << 20;
const BATCH: u64 = 100;
const BODY: usize = 5_000;
/// No step takes this long; past it something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(fs: &LoopFs) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![fs.path().join("log")],
        max_file_size: 8 << 20,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_millis(400),
        ..FileChannelOptions::default()
    };
    let opened = FileChannel::open("c1", options, Arc::new(RealDisk), clock::system());
    opened.unwrap_or_else(|error| panic!("{error}\n{}", listing(fs)))
}

/// A channel on a small disk, what it has acknowledged and what it has delivered.
struct Run {
    channel: Option<Arc<FileChannel>>,
    runtime: tokio::runtime::Runtime,
    next: u64,
    acknowledged: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Unmounted last.
    fs: LoopFs,
}

impl Run {
    fn new(kind: Kind) -> Self {
        let fs = LoopFs::new(kind, IMAGE);
        let channel = open(&fs);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            fs,
            channel: Some(channel),
            runtime,
            next: 0,
            acknowledged: BTreeSet::new(),
            delivered: BTreeSet::new(),
        }
    }

    fn channel(&self) -> &Arc<FileChannel> {
        self.channel.as_ref().unwrap()
    }

    fn put(&mut self) -> Result<(), ChannelError> {
        let numbers = self.next..self.next + BATCH;
        let events = numbers.clone().map(|n| {
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
        self.channel().commit_put_blocking(batch)?;
        self.next += BATCH;
        self.acknowledged.extend(numbers);
        Ok(())
    }

    /// Puts until there is no room; returns what the channel says then.
    fn put_until_full(&mut self) -> String {
        loop {
            match self.put() {
                Ok(()) => {}
                // Only the preparer of segments is behind.
                Err(ChannelError::Full { reason, .. }) if reason.contains("prepared") => {}
                Err(ChannelError::Full { reason, .. }) => return reason,
                Err(error) => panic!("a full disk is nothing but a full disk: {error}"),
            }
        }
    }

    /// Puts until it is taken again.
    fn put_goes_on(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.put() {
            assert!(matches!(error, ChannelError::Full { .. }), "{error}");
            assert!(
                Instant::now() < deadline,
                "no room came back: {error}\n{}",
                self.show()
            );
        }
    }

    /// Takes and acknowledges up to `events`; returns how many there were.
    fn drain(&mut self, events: usize) -> usize {
        let mut count = 0;
        while count < events {
            let mut take = self.begin(TakeMode::Batch);
            let batch = take.take(500.min(events - count), usize::MAX).unwrap();
            assert!(batch.lost.is_empty());
            if batch.events.is_empty() {
                break;
            }
            let numbers: Vec<u64> = batch.events.iter().map(|e| number(&e.event)).collect();
            self.bounded(take.commit()).unwrap();
            count += numbers.len();
            self.deliver(numbers);
        }
        count
    }

    fn deliver(&mut self, numbers: Vec<u64>) {
        for n in numbers {
            assert!(self.delivered.insert(n), "event {n} is delivered twice");
        }
    }

    /// Takes a run of events through an epoch: SEAL, CLAIMED and, if asked, DONE.
    fn publish(&mut self, events: usize, done: bool) -> u64 {
        let mut take = self.begin(TakeMode::Staged {
            block_events: 1_000_000,
        });
        let batch = take.take(events, usize::MAX).unwrap();
        let last = batch.events.last().expect("events wait").seq;
        let numbers: Vec<u64> = batch.events.iter().map(|e| number(&e.event)).collect();
        let record = self.bounded(take.seal(request(last))).unwrap();
        let journal = self.channel().journal();
        self.bounded(journal.claimed(record.epoch)).unwrap();
        if done {
            self.bounded(journal.done(record.epoch)).unwrap();
        }
        self.deliver(numbers);
        record.epoch
    }

    /// The store of the one open epoch has answered at last.
    fn finish(&self, epoch: u64) {
        let journal = self.channel().journal();
        assert_eq!(journal.open_epochs().len(), 1);
        self.bounded(journal.done(epoch)).unwrap();
    }

    fn begin(&self, mode: TakeMode) -> TakeTransaction {
        TakeTransaction::begin(Arc::clone(self.channel()) as _, mode).unwrap()
    }

    fn bounded<T>(&self, work: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, work).await };
        let show = |_| panic!("hangs\n{}", self.show());
        self.runtime.block_on(limited).unwrap_or_else(show)
    }

    /// The process dies and another one opens the channel.
    fn reopen(&mut self) {
        self.channel = None;
        self.channel = Some(open(&self.fs));
    }

    fn show(&self) -> String {
        format!("{:#?}\n{}", self.channel().status(), listing(&self.fs))
    }

    /// Everything acknowledged was delivered, once.
    fn check(mut self) {
        while self.drain(usize::MAX) > 0 {}
        assert_eq!(self.delivered.len(), self.acknowledged.len());
        assert_eq!(self.delivered, self.acknowledged);
        let status = self.channel().status();
        assert_eq!((status.waiting, status.corrupt), (0, 0));
        assert_eq!(status.poisoned, None);
    }
}

fn listing(fs: &LoopFs) -> String {
    let names = std::fs::read_dir(fs.path().join("log")).unwrap();
    let mut names: Vec<String> = names
        .map(|e| {
            let e = e.unwrap();
            let len = e.metadata().unwrap().len();
            format!("{} {len}", e.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    names.join("\n")
}

fn number(event: &Event) -> u64 {
    std::str::from_utf8(&event.body[..12])
        .unwrap()
        .parse()
        .unwrap()
}

fn request(last: Seq) -> SealRequest {
    SealRequest {
        last,
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: "/out/_staging/c/i1/a1".into(),
        parts: vec![EpochPart {
            staged_name: "p1".into(),
            final_path: "/out/{epoch}".into(),
            count: 1,
            length: 1,
            crc32: 1,
        }],
    }
}

/// A file that takes all the space there is, to the last block.
fn hog(dir: &Path) -> PathBuf {
    let path = dir.join("hog");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut piece = 1 << 20;
    while piece > 0 {
        match file
            .write_all(&vec![b'h'; piece])
            .and_then(|()| file.sync_all())
        {
            Ok(()) => {}
            Err(_) => piece /= 4,
        }
    }
    path
}

fn filled_by_the_channel(kind: Kind) {
    let mut run = Run::new(kind);
    let said = run.put_until_full();
    assert!(said.contains("bytes free"), "{said}");
    let put = run.acknowledged.len();
    assert!(
        put > 30_000,
        "only {put} events of 5,000 bytes on {IMAGE} bytes"
    );
    assert!(run.channel().status().held_back.is_some());

    // Opens on the full disk, as often as somebody tries.
    for _ in 0..5 {
        run.reopen();
        run.put_until_full();
    }
    // Acknowledged one batch at a time, then by an epoch.
    assert_eq!(run.drain(20), 20);
    run.publish(2_000, true);
    assert_eq!(run.drain(12_000), 12_000);
    run.put_goes_on();
    assert!(run.put_until_full().contains("bytes free"));

    // An epoch whose store does not answer holds back nobody.
    let halted = run.publish(12_000, false);
    run.put_goes_on();
    run.put_until_full();
    run.reopen();
    run.finish(halted);

    // Full, drained and full again.
    for _ in 0..3 {
        run.put_until_full();
        while run.drain(usize::MAX) > 0 {}
        for _ in 0..50 {
            run.put_goes_on();
        }
    }
    run.check();
}

fn filled_by_a_foreign_file(kind: Kind) {
    let mut run = Run::new(kind);
    for _ in 0..100 {
        run.put_goes_on();
    }
    let hog_file = hog(run.fs.path());
    let said = run.put_until_full();
    assert!(said.contains("bytes free"), "{said}");
    for _ in 0..5 {
        run.reopen();
        run.put_until_full();
    }
    assert_eq!(run.drain(20), 20);
    run.publish(2_000, true);
    let halted = run.publish(1_000, false);
    run.reopen();
    assert_eq!(run.drain(3_000), 3_000);
    run.finish(halted);
    while run.drain(usize::MAX) > 0 {}
    std::fs::remove_file(hog_file).unwrap();
    for _ in 0..100 {
        run.put_goes_on();
    }
    run.check();
}

#[test]
fn ext4_filled_by_the_channel_drains_and_goes_on() {
    filled_by_the_channel(Kind::Ext4);
}

#[test]
fn xfs_filled_by_the_channel_drains_and_goes_on() {
    filled_by_the_channel(Kind::Xfs);
}

#[test]
fn ext4_filled_by_a_foreign_file_drains_and_goes_on() {
    filled_by_a_foreign_file(Kind::Ext4);
}

#[test]
fn xfs_filled_by_a_foreign_file_drains_and_goes_on() {
    filled_by_a_foreign_file(Kind::Xfs);
}

#[test]
fn ext4_on_small_blocks_filled_by_the_channel_drains_and_goes_on() {
    filled_by_the_channel(Kind::Ext4SmallBlocks);
}

#[test]
fn xfs_on_small_blocks_filled_by_the_channel_drains_and_goes_on() {
    filled_by_the_channel(Kind::XfsSmallBlocks);
}

#[test]
fn ext4_on_small_blocks_filled_by_a_foreign_file_drains_and_goes_on() {
    filled_by_a_foreign_file(Kind::Ext4SmallBlocks);
}

#[test]
fn xfs_on_small_blocks_filled_by_a_foreign_file_drains_and_goes_on() {
    filled_by_a_foreign_file(Kind::XfsSmallBlocks);
}
