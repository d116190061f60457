//! What the file channel makes of a log that may be damaged: one open, everything taken, and the
//! claims that hold of every open, whatever was done to the bytes. Used by the oracles of
//! `damaged_channel` and `snapshot`.
//!
//! *Claims*: reads are bounded by the size of the files; every number below the next one to be
//! given is acknowledged, in an open epoch, delivered or named as lost, and in no two of them;
//! events come in order, each once; the next open shows the same; a new event gets the next number
//! and is delivered; an open that refuses has changed no segment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use forebay::channel::file::examine::{LogReport, examine};
use forebay::channel::file::simulation::{Found, LogView, SteppedChannel};
use forebay::channel::{Channel, ChannelError, PutBatch, PutEvent, TakeMode, TakeTransaction};
use forebay::env::disk::{
    DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend,
};
use forebay::env::disk_sim::SimDisk;
use forebay::event::{Event, SeqRange};

use super::written_log::{CAPACITY, Content, SEGMENT_BYTES, Still, open, prepare};

/// Times that each byte may be read in an open and a take of everything.
const READS_OF_A_BYTE: u64 = 24;

/// What an open has shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) view: LogView,
    pub(crate) found: Found,
    pub(crate) events: BTreeMap<u64, Content>,
    /// Runs lost to damage, by the open or by a take.
    pub(crate) lost: Vec<(u64, u64)>,
    /// A take that was refused: a frame with right sums and a body that is none.
    pub(crate) error: Option<String>,
}

impl Shown {
    /// Whether it was said to be lost to damage.
    pub(crate) fn is_lost(&self, number: u64) -> bool {
        let mut runs = self.lost.iter();
        runs.any(|&(first, last)| (first..=last).contains(&number))
    }
}

/// Opens the log twice and puts an event; panics where a claim does not hold. `None` where it
/// was refused.
pub(crate) fn check(disk: &SimDisk, dirs: &[PathBuf], lies: bool) -> Option<Shown> {
    let before = segments(disk);
    let image = disk.kill();
    let Some(channel) = open_metered(&image, dirs, &before) else {
        let untouched = files_of(&image.kill(), "wal") == files_of(disk, "wal");
        assert!(untouched, "refused, and touched");
        return None;
    };
    let shown = take_all(&channel);
    account(&shown, lies);
    drop(channel);
    let image = image.kill();
    let files = segments(&image);
    let channel = open_metered(&image, dirs, &files).expect("refused what an open has left behind");
    let again = take_all(&channel);
    explain("opened", &shown);
    explain("opened again", &again);
    same(&shown, &again);
    if again.error.is_none() {
        put_one(&channel, &again, lies);
    }
    Some(shown)
}

/// For whoever looks at one input: `FOREBAY_EXPLAIN=1 TARGET FILE`.
fn explain(what: &str, shown: &Shown) {
    if std::env::var_os("FOREBAY_EXPLAIN").is_some() {
        eprintln!("{what}: {shown:#?}");
    }
}

fn segments(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    files_of(disk, "segment-")
}

/// Content of the files with this in their name.
fn files_of(disk: &SimDisk, part: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter();
    let wanted = files.filter(|path| path.to_string_lossy().contains(part));
    wanted
        .map(|path| {
            let content = disk.content(&path).expect("a file");
            (path, content)
        })
        .collect()
}

fn open_metered(
    disk: &SimDisk,
    dirs: &[PathBuf],
    files: &BTreeMap<PathBuf, Vec<u8>>,
) -> Option<SteppedChannel> {
    let metered = Metered::new(disk);
    let channel = open(Arc::new(metered.clone()), dirs, &Still::new()).ok();
    metered.check(files);
    channel
}

fn take_all(channel: &SteppedChannel) -> Shown {
    let view = channel.log();
    let dynamic: Arc<dyn Channel> = Arc::clone(channel.channel()) as _;
    let mut shown = Shown {
        lost: runs(&view.lost).collect(),
        found: channel.found(),
        view,
        events: BTreeMap::new(),
        error: None,
    };
    // A lease is a run without a gap; the next one goes on behind what is acknowledged or sealed.
    let mut leases = Vec::new();
    while take_run(&dynamic, &mut shown, &mut leases) {}
    shown.lost = merged(shown.lost);
    shown
}

/// Takes the next run; false when there is none.
fn take_run(
    channel: &Arc<dyn Channel>,
    shown: &mut Shown,
    leases: &mut Vec<TakeTransaction>,
) -> bool {
    let mut lease = TakeTransaction::begin(Arc::clone(channel), TakeMode::Batch).expect("a lease");
    let mut last = 0;
    loop {
        let batch = match lease.take(100, 1 << 20) {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => batch,
            Err(error) => {
                shown.error = Some(error.to_string());
                return false;
            }
        };
        for taken in batch.events {
            let number = taken.seq.0;
            assert!(last < number, "event {number} behind {last}");
            last = number;
            let headers = taken.event.headers.iter();
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let content = (headers.collect(), taken.event.body.to_vec());
            let other = shown.events.insert(number, content);
            assert!(other.is_none(), "event {number} comes twice");
        }
        shown.lost.extend(runs(&batch.lost));
    }
    let more = lease.held().is_some();
    leases.push(lease);
    more
}

/// Disjoint runs in order, neighbours merged.
fn merged(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    runs.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (first, last) in runs {
        match all.last_mut() {
            Some(run) if first <= run.1.saturating_add(1) => run.1 = run.1.max(last),
            _ => all.push((first, last)),
        }
    }
    all
}

fn runs(ranges: &[SeqRange]) -> impl Iterator<Item = (u64, u64)> {
    ranges.iter().map(|range| (range.first.0, range.last.0))
}

/// Each number below the next one in exactly one place.
fn account(shown: &Shown, lies: bool) {
    let view = &shown.view;
    let (cursor, next) = (view.cursor, view.next_sequence);
    assert!(cursor <= next, "the cursor {cursor} is beyond {next}");
    let acked = runs(&view.acked).map(|(f, l)| (f, l, "acknowledged"));
    let delivered = shown
        .events
        .keys()
        .map(|&number| (number, number, "delivered"));
    let mut places: Vec<_> = acked.chain(delivered).collect();
    places.sort_unstable();
    for &(first, last, place) in &places {
        let inside = cursor <= first && first <= last && last < next;
        assert!(
            inside,
            "{place} {first} to {last} beyond {cursor} to {next}"
        );
    }
    for pair in places.windows(2) {
        assert!(pair[0].1 < pair[1].0, "in two places: {pair:?}");
    }
    let mut sealed = Vec::new();
    for epoch in &view.epochs {
        // Where a decision was lost, events may be acknowledged and in an epoch; they stay so.
        let (first, last) = (epoch.range.first.0, epoch.range.last.0);
        assert!(epoch.epoch < view.next_epoch, "an epoch beyond the next");
        assert!(
            first <= last && last < next,
            "sealed {first} to {last} beyond {next}"
        );
        sealed.push((first, last));
    }
    for number in shown.events.keys() {
        // A wrong writer may name too high a number in a control frame and give the numbers below
        // it later. Recovery has called them lost by then, and goes on: it takes the later frame
        // for a copy made by an earlier open, which changes nothing. Whoever reads finds the frame
        // and delivers it. So the log says too much of a loss and nothing of it is missing; bytes
        // that rot break a sum and cannot lead here, which is asked without exception.
        assert!(
            lies || !shown.is_lost(*number),
            "{number} delivered and lost"
        );
        let mut sealed = sealed.iter();
        let held = sealed.any(|(first, last)| (first..=last).contains(&number));
        assert!(!held, "{number} delivered and sealed");
    }
    if shown.error.is_none() && cursor < next {
        let all = places.iter().map(|&(first, last, _)| (first, last));
        let all = all.chain(shown.lost.iter().copied()).chain(sealed);
        let all = merged(all.collect());
        let covered = all.iter().any(|&(f, l)| f <= cursor && l >= next - 1);
        assert!(
            covered,
            "of {cursor} to {next} have vanished all but {all:?}"
        );
    }
}

/// The second open goes on from what the first one has made durable.
fn same(first: &Shown, second: &Shown) {
    let (a, b) = (&first.view, &second.view);
    assert_eq!(a.next_sequence, b.next_sequence, "next number");
    assert_eq!((a.cursor, &a.acked), (b.cursor, &b.acked), "acknowledged");
    assert_eq!(a.positions, b.positions, "positions");
    assert_eq!(
        (a.next_epoch, &a.epochs),
        (b.next_epoch, &b.epochs),
        "epochs"
    );
    assert_eq!(a.control_lost, b.control_lost, "control lost");
    assert_eq!(a.fenced_through, b.fenced_through, "fence");
    let incarnations = &b.incarnations[..b.incarnations.len().saturating_sub(1)];
    assert!(a.incarnations.ends_with(incarnations), "incarnations");
    let numbers = |shown: &Shown| shown.events.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(first), numbers(second), "other events");
    assert!(first.events == second.events, "events of other content");
    assert_eq!(first.lost, second.lost, "lost");
    assert_eq!(first.error, second.error, "refused takes");
}

fn put_one(channel: &SteppedChannel, shown: &Shown, lies: bool) {
    prepare(channel);
    let event = Event::from_body("new");
    let events = vec![PutEvent {
        event,
        position: None,
    }];
    let batch = PutBatch {
        events,
        positions: Vec::new(),
    };
    let next = shown.view.next_sequence;
    let put = channel.channel().commit_put_blocking(batch);
    // A wrong writer may jump over as many numbers as the channel holds; they count as in use.
    if lies && next - shown.view.cursor >= CAPACITY && matches!(put, Err(ChannelError::Full { .. }))
    {
        return;
    }
    let range = put.expect("a put");
    assert_eq!(range.map(|r| (r.first.0, r.last.0)), Some((next, next)));
    let after = take_all(channel);
    explain("with a new event", &after);
    let content = (Vec::new(), b"new".to_vec());
    assert_eq!(after.events.get(&next), Some(&content), "the new event");
    assert_eq!(after.events.len(), shown.events.len() + 1, "and the others");
}

/// A disk that counts the bytes that are read.
#[derive(Clone, Debug)]
struct Metered {
    disk: SimDisk,
    read: Arc<AtomicU64>,
}

#[derive(Debug)]
struct MeteredFile {
    file: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl DiskFile for MeteredFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = u64::try_from(buf.len()).expect("64 bits");
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.file.read_at(offset, buf)
    }

    fn store_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        self.file.store_at(offset, pieces)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.file.slice(offset, len)
    }

    fn map(&self, populate: u64) -> io::Result<()> {
        self.file.map(populate)
    }

    fn unmap(&self) {
        self.file.unmap();
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }
}

impl Metered {
    fn new(disk: &SimDisk) -> Self {
        Self {
            disk: disk.clone(),
            read: Arc::default(),
        }
    }

    /// Time is bounded by the size of the files. Segments are read through windows, and prepared
    /// ones are looked at too.
    fn check(&self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        let bytes: usize = files.values().map(Vec::len).sum();
        let bytes = u64::try_from(bytes).expect("64 bits");
        let read = self.read.load(Ordering::Relaxed);
        let bound = READS_OF_A_BYTE * (bytes + 16 * SEGMENT_BYTES);
        assert!(read <= bound, "{read} bytes read of a log of {bytes}");
    }

    fn around(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let read = Arc::clone(&self.read);
        Arc::new(MeteredFile { file, read })
    }
}

impl Disk for Metered {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn lock(&self, dir: &Path, name: &str) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock(dir, name)
    }

    fn lock_existing(&self, dir: &Path, name: &str) -> io::Result<Option<Box<dyn DirLock>>> {
        self.disk.lock_existing(dir, name)
    }

    fn create_zeroed(
        &self,
        path: &Path,
        len: u64,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create_zeroed(path, len, backend)?;
        Ok(self.around(file))
    }

    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, writable, backend)?;
        Ok(self.around(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn identity(&self, dir: &Path) -> io::Result<DirectoryIdentity> {
        self.disk.identity(dir)
    }

    fn caution(&self, dir: &Path) -> Option<String> {
        self.disk.caution(dir)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.disk.absolute(path)
    }
}

/// What `forebay wal verify` says; `None` where there is nothing to examine.
pub(crate) fn verify(disk: &SimDisk, dirs: &[PathBuf]) -> Option<LogReport> {
    let files = segments(disk);
    let metered = Metered::new(disk);
    let report = examine(&metered, dirs, |_, _| {}).ok();
    metered.check(&files);
    report
}
