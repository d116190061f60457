//! A look at a log beside its writer: whatever the writer does between two accesses of the look,
//! nothing that is whole is called lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;

use super::super::examine::examine;
use super::super::peek::standing;
use super::super::simulation::SteppedChannel;
use super::batch;
use super::findings::options;
use crate::channel::Channel;
use crate::env::clock;
use crate::env::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};
use crate::env::disk_sim::SimDisk;

const PAGE: usize = 4096;

/// A disk that is `before` up to one of its accesses and `after` from there on.
#[derive(Clone, Debug)]
struct Moving {
    before: SimDisk,
    after: SimDisk,
    /// Accesses that are left until it moves.
    left: Arc<Mutex<u32>>,
}

impl Moving {
    fn new(before: &SimDisk, after: &SimDisk, accesses: u32) -> Self {
        Self {
            before: before.clone(),
            after: after.clone(),
            left: Arc::new(Mutex::new(accesses)),
        }
    }

    fn has_moved(&self) -> bool {
        *self.left.lock().unwrap() == 0
    }

    fn access(&self) -> &SimDisk {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            return &self.after;
        }
        *left -= 1;
        &self.before
    }
}

/// An open file, which shows the bytes of the moment, also when its name is gone.
#[derive(Debug)]
struct MovingFile {
    disk: Moving,
    path: PathBuf,
    len: u64,
    opened: Arc<dyn DiskFile>,
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
                Err(_) => self.opened.read_at(at, page)?,
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
            opened,
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
        self.before.space(dir)
    }

    fn identity(&self, dir: &Path) -> io::Result<DirectoryIdentity> {
        self.before.identity(dir)
    }

    fn caution(&self, dir: &Path) -> Option<String> {
        self.before.caution(dir)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.before.absolute(path)
    }
}

/// The disk before each operation of a writer that puts events, rolls and goes on in the next
/// segment.
fn moments() -> Vec<SimDisk> {
    let disk = SimDisk::default();
    let clock = clock::system();
    let channel = SteppedChannel::open("c1", options(), Arc::new(disk.clone()), clock).unwrap();
    let prepare = || while channel.prepare().is_some() {};
    let mut given = 0;
    let mut put = |count: u64| {
        channel
            .channel()
            .commit_put_blocking(batch(given, count, 700))
            .unwrap();
        given += count;
    };
    prepare();
    (0..4).for_each(|_| put(10));
    disk.record();
    for count in [3, 9, 9] {
        put(count);
    }
    channel.roll();
    channel.end_round(true);
    put(5);
    prepare();
    disk.recorded()
}

/// Looks at a disk that is at first one moment and then one of the next few or the last, for every
/// access at which it may move.
fn each_look(moments: &[SimDisk], look: impl Fn(&Moving, usize, usize, &str)) {
    let mut looks = 0;
    let last = moments.len() - 1;
    for (i, before) in moments.iter().enumerate() {
        let later = moments.iter().enumerate().skip(i + 1);
        for (j, after) in later.filter(|(j, _)| *j <= i + 3 || *j == last) {
            for accesses in 1.. {
                let disk = Moving::new(before, after, accesses);
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
    let moments = moments();
    let dirs = options().data_dirs;
    let next = |disk: &SimDisk| standing(disk, &dirs).unwrap().next_sequence;
    let numbers: Vec<_> = moments.iter().map(next).collect();
    assert!(numbers.first() < numbers.last(), "{numbers:?}");
    each_look(&moments, |disk, i, j, context| {
        let seen = standing(disk, &dirs).unwrap_or_else(|error| panic!("{context}: {error}"));
        let lost = (&seen.lost[..], seen.control_lost);
        assert_eq!(lost, (&[][..], false), "{context}");
        let between = numbers[i]..=numbers[j];
        assert!(between.contains(&seen.next_sequence), "{context}: {seen:?}");
    });
}

/// INV-21: what `forebay wal verify` calls damage.
#[test]
fn whatever_a_writer_does_while_its_log_is_examined_no_damage_is_found() {
    let dirs = options().data_dirs;
    each_look(&moments(), |disk, _, _, context| {
        let report = examine(disk, &dirs, |_, _| {}).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(report.damage, [], "{context}");
    });
}
