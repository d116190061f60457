//! A look at a log beside its writer: whatever the writer does between two accesses of the look,
//! nothing that is whole is called lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::super::examine::examine;
use super::super::layout::owner;
use super::super::peek::standing;
use super::super::recovery::read_log;
use super::super::simulation::SteppedChannel;
use super::super::{OpenError, still};
use super::findings::options;
use super::planted::{drive, put_stepped, roll};
use crate::channel::{Channel, TakeMode, TakeTransaction};
use crate::env::clock;
use crate::env::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};
use crate::env::disk_sim::SimDisk;

const PAGE: usize = 4096;

/// A disk that goes on to the next of its moments each time so many accesses are over; the last one
/// stays.
#[derive(Clone, Debug)]
struct Moving {
    moments: Vec<SimDisk>,
    every: usize,
    accesses: Arc<AtomicUsize>,
}

impl Moving {
    fn new(moments: &[&SimDisk], every: usize) -> Self {
        Self {
            moments: moments.iter().copied().cloned().collect(),
            every,
            accesses: Arc::default(),
        }
    }

    fn has_moved(&self) -> bool {
        self.accesses.load(Ordering::Relaxed) >= self.every
    }

    fn access(&self) -> &SimDisk {
        let now = self.accesses.fetch_add(1, Ordering::Relaxed) / self.every;
        &self.moments[now.min(self.moments.len() - 1)]
    }
}

/// An open file, which shows the bytes of the moment, also when its name is gone.
#[derive(Debug)]
struct MovingFile {
    disk: Moving,
    path: PathBuf,
    len: u64,
}

impl DiskFile for MovingFile {
    fn len(&self) -> u64 {
        self.len
    }

    /// Page by page, as a kernel copies them: it may move in the middle.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        for page in buf.chunks_mut(PAGE) {
            let now = self.disk.access();
            match now.open(&self.path, false, WriteBackend::Pwrite) {
                Ok(file) => file.read_at(at, page)?,
                // It may be one that is erased and used again.
                Err(_) => page.fill(0),
            }
            at += page.len() as u64;
        }
        Ok(())
    }

    fn store_at(&self, _: u64, _: &[&[u8]]) -> io::Result<()> {
        panic!("a look stores nothing")
    }

    fn sync(&self) -> io::Result<()> {
        panic!("a look syncs nothing")
    }

    fn slice(&self, _: u64, _: usize) -> Option<Bytes> {
        None
    }

    fn map(&self, _: u64) -> io::Result<()> {
        panic!("a look maps nothing")
    }

    fn unmap(&self) {}

    fn truncate(&self, _: u64) -> io::Result<()> {
        panic!("a look cuts nothing")
    }

    fn forget_cached(&self) {}
}

impl Disk for Moving {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        panic!("a look makes nothing")
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.access().list(dir)
    }

    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn DirLock>> {
        panic!("a look locks nothing")
    }

    fn lock_existing(&self, _: &Path, _: &str) -> io::Result<Option<Box<dyn DirLock>>> {
        panic!("a look locks nothing")
    }

    fn create_zeroed(&self, _: &Path, _: u64, _: WriteBackend) -> io::Result<Arc<dyn DiskFile>> {
        panic!("a look makes nothing")
    }

    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let opened = self.access().open(path, writable, backend)?;
        Ok(Arc::new(MovingFile {
            disk: self.clone(),
            path: path.to_owned(),
            len: opened.len(),
        }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        panic!("a look renames nothing")
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        panic!("a look removes nothing")
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        panic!("a look syncs nothing")
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.moments[0].space(dir)
    }

    fn identity(&self, dir: &Path) -> io::Result<DirectoryIdentity> {
        self.moments[0].identity(dir)
    }

    fn caution(&self, dir: &Path) -> Option<String> {
        self.moments[0].caution(dir)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.moments[0].absolute(path)
    }
}

/// A writer whose operations are recorded, a moment before each of them.
struct Writer {
    disk: SimDisk,
    channel: SteppedChannel,
    given: u64,
}

impl Writer {
    fn new() -> Self {
        let disk = SimDisk::default();
        let clock = clock::system();
        let channel = SteppedChannel::open("c1", options(), Arc::new(disk.clone()), clock).unwrap();
        let mut writer = Self {
            disk,
            channel,
            given: 0,
        };
        (0..4).for_each(|_| writer.put(10));
        writer.disk.record();
        writer
    }

    fn put(&mut self, count: u64) {
        while self.channel.prepare().is_some() {}
        put_stepped(&self.channel, self.given, count);
        self.given += count;
    }

    /// Takes and acknowledges everything.
    fn drain(&self) {
        let dynamic: Arc<dyn Channel> = Arc::clone(self.channel.channel()) as _;
        let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
        while !take.take(1000, usize::MAX).unwrap().events.is_empty() {}
        drive(&self.channel, take.commit()).unwrap();
    }
}

/// A writer that puts events, rolls and goes on in the next segment.
fn moments() -> Vec<SimDisk> {
    let mut writer = Writer::new();
    [3, 9, 9].iter().for_each(|count| writer.put(*count));
    roll(&writer.channel);
    writer.put(5);
    writer.disk.recorded()
}

/// A writer all of whose events are taken, so that its dead segments are erased and used again.
fn moments_of_a_reuse() -> Vec<SimDisk> {
    let mut writer = Writer::new();
    for _ in 0..4 {
        writer.put(2);
        writer.drain();
        roll(&writer.channel);
    }
    writer.put(2);
    writer.disk.recorded()
}

/// A writer that puts one event after the other, which fill several segments.
fn many_moments() -> Vec<SimDisk> {
    let mut writer = Writer::new();
    (0..200).for_each(|_| writer.put(1));
    writer.disk.recorded()
}

/// Looks at a disk that is at first one moment and then one of the `near` next ones or the last,
/// for every access at which it may move.
fn each_look(moments: &[SimDisk], near: usize, look: impl Fn(&Moving, usize, usize, &str)) {
    let mut looks = 0;
    let last = moments.len() - 1;
    for (i, before) in moments.iter().enumerate() {
        let later = moments.iter().enumerate().skip(i + 1);
        for (j, after) in later.filter(|(j, _)| *j <= i + near || *j == last) {
            for accesses in 1.. {
                let disk = Moving::new(&[before, after], accesses);
                look(&disk, i, j, &format!("from {i} to {j} after {accesses}"));
                looks += 1;
                if !disk.has_moved() {
                    break;
                }
            }
        }
    }
    println!("{looks} looks at {} moments", moments.len());
    assert!(looks > 1000, "{looks}");
}

/// INV-21: what `forebay status` and `forebay audit --log` call lost.
#[test]
fn whatever_a_writer_does_during_a_look_nothing_whole_is_called_lost() {
    let dirs = options().data_dirs;
    let next = |disk: &SimDisk| standing(disk, &dirs).unwrap().next_sequence;
    for (moments, near) in [(moments(), 1), (moments_of_a_reuse(), 0)] {
        let numbers: Vec<_> = moments.iter().map(next).collect();
        assert!(numbers.first() < numbers.last(), "{numbers:?}");
        each_look(&moments, near, |disk, i, j, context| {
            let seen = standing(disk, &dirs).unwrap_or_else(|error| panic!("{context}: {error}"));
            let lost = (&seen.lost[..], seen.control_lost);
            assert_eq!(lost, (&[][..], false), "{context}");
            let between = numbers[i]..=numbers[j];
            assert!(between.contains(&seen.next_sequence), "{context}: {seen:?}");
        });
    }
}

/// INV-21: what `forebay wal verify` calls damage.
#[test]
fn whatever_a_writer_does_while_its_log_is_examined_no_damage_is_found() {
    let dirs = options().data_dirs;
    for (moments, near) in [(moments(), 1), (moments_of_a_reuse(), 0)] {
        each_look(&moments, near, |disk, _, _, context| {
            let report = examine(disk, &dirs, |_, _| {});
            let report = report.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(report.damage, [], "{context}");
        });
    }
}

/// INV-21: the writer is at work all the time, and so fast against the reader that it would find
/// the end of the log torn at every look that it takes again.
#[test]
fn a_writer_that_never_rests_does_not_make_its_log_look_damaged() {
    let (moments, dirs) = (many_moments(), options().data_dirs);
    let moments: Vec<_> = moments.iter().collect();
    let mut looks = 0;
    for from in (0..moments.len() - 1).step_by(5) {
        for every in [1, 2, 4, 8, 16, 32] {
            let context = format!("from {from}, one step in {every} accesses");
            let disk = Moving::new(&moments[from..], every);
            let listing = still::list(&disk, &dirs).unwrap();
            let seen = read_log(&disk, &listing, owner(&disk, &dirs).unwrap());
            match seen {
                Ok(seen) => assert_eq!(seen.damage, [], "{context}"),
                Err(OpenError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::NotFound, "{context}");
                }
                Err(error) => panic!("{context}: {error}"),
            }
            looks += 1;
        }
    }
    println!("{looks} looks at {} moments", moments.len());
    assert!(looks > 400, "{looks}");
}

/// INV-21: the same while segments are used again one after the other.
#[test]
fn segments_that_are_used_again_all_the_time_are_no_damage() {
    let (moments, dirs) = (moments_of_a_reuse(), options().data_dirs);
    let moments: Vec<_> = moments.iter().collect();
    for from in 0..moments.len() - 1 {
        for every in [1, 2, 3, 5, 8, 13, 21, 34] {
            let context = format!("from {from}, one step in {every} accesses");
            let disk = Moving::new(&moments[from..], every);
            let report = examine(&disk, &dirs, |_, _| {});
            let report = report.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(report.damage, [], "{context}");
        }
    }
}
