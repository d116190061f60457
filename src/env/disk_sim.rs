//! The simulated disk: cache view and disk view kept apart, crashes by seed.
//!
//! *Model*. A store is pending from its instant: at a crash each 512-byte sector of it holds, by
//! seed, what was last synced or any version stored since. Names and removals are pending until
//! their directory is synced; at a crash a prefix of the pending name operations of each
//! directory survives, as on a journaling file system. File sizes go with the name.
//!
//! *Faults*. A sync that fails once: the cache keeps the new bytes, later syncs say Ok, the disk
//! never gets them. Reads of a range that fail. A budget of bytes. A power cut before the n-th
//! operation: that and every later one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};

/// What a torn write may leave whole.
const SECTOR: usize = 512;
/// Versions of a sector that are remembered between syncs.
const VERSIONS: usize = 8;

type Sector = [u8; SECTOR];

#[derive(Clone, Debug, Default)]
struct Node {
    cache: Vec<u8>,
    disk: Vec<u8>,
    /// Versions stored since the last sync, oldest first.
    dirty: BTreeMap<usize, Vec<Sector>>,
    bad_reads: Vec<std::ops::Range<u64>>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameOp {
    fn dir(&self) -> &Path {
        let (Self::Link(path, _) | Self::Rename(path, _) | Self::Remove(path)) = self;
        path.parent().unwrap_or(path)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Debug, Default)]
struct World {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameOp>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    cut_at: Option<u64>,
    fail_syncs: u32,
    free: Option<u64>,
    syncs: u64,
}

/// See the module head. Clones are handles on the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

/// xorshift64*: enough for choosing what a crash keeps.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(value % (bound as u64).max(1)).unwrap_or(0)
    }
}

impl World {
    /// Counts an operation that changes something; the power may be gone.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.cut_at {
            Some(at) if self.operations >= at => Err(io::Error::other("simulated power cut")),
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }

    fn node(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it is found after a power loss now; `seed` decides what of the pending
    /// stores and names has reached it.
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.world();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let nodes = world
            .nodes
            .iter()
            .map(|node| crashed(node, &mut random))
            .collect();
        let mut names = world.names_on_disk.clone();
        for dir in &world.dirs {
            let ops: Vec<_> = world
                .pending_names
                .iter()
                .filter(|op| op.dir() == dir)
                .collect();
            for op in &ops[..random.below(ops.len() + 1)] {
                op.apply(&mut names);
            }
        }
        Self(Arc::new(Mutex::new(World {
            nodes,
            names_on_disk: names.clone(),
            names,
            dirs: world.dirs.clone(),
            free: world.free,
            ..World::default()
        })))
    }

    /// What a process crash leaves: the cache stays, locks are free, faults are over.
    pub fn kill(&self) -> Self {
        let world = self.world();
        Self(Arc::new(Mutex::new(World {
            nodes: world.nodes.clone(),
            names: world.names.clone(),
            names_on_disk: world.names_on_disk.clone(),
            pending_names: world.pending_names.clone(),
            dirs: world.dirs.clone(),
            free: world.free,
            ..World::default()
        })))
    }

    /// Operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// The power goes before the `count`-th operation from now.
    pub fn cut_power_after(&self, count: u64) {
        let mut world = self.world();
        world.cut_at = Some(world.operations + count);
    }

    /// The next `count` syncs of files named `segment-*` fail as a kernel fails them: once, and
    /// the pages count as clean.
    pub fn fail_syncs(&self, count: u32) {
        self.world().fail_syncs = count;
    }

    /// Bytes that new files may still take.
    pub fn set_free(&self, bytes: u64) {
        self.world().free = Some(bytes);
    }

    /// Changes one bit of a file, on the medium and in the cache.
    pub fn flip(&self, path: &Path, offset: usize, bit: u8) -> io::Result<()> {
        let mut world = self.world();
        let node = world.node(path)?;
        let node = &mut world.nodes[node];
        for view in [&mut node.cache, &mut node.disk] {
            if let Some(byte) = view.get_mut(offset) {
                *byte ^= 1 << (bit & 7);
            }
        }
        Ok(())
    }

    /// Reads of this range of a file fail from now on.
    pub fn fail_reads(&self, path: &Path, range: std::ops::Range<u64>) -> io::Result<()> {
        let mut world = self.world();
        let node = world.node(path)?;
        world.nodes[node].bad_reads.push(range);
        Ok(())
    }

    /// Paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }
}

fn crashed(node: &Node, random: &mut Random) -> Node {
    let mut disk = node.disk.clone();
    for (sector, versions) in &node.dirty {
        let choice = random.below(versions.len() + 1);
        if let Some(version) = choice.checked_sub(1).and_then(|i| versions.get(i)) {
            write_sector(&mut disk, *sector, version);
        }
    }
    Node {
        cache: disk.clone(),
        disk,
        dirty: BTreeMap::new(),
        bad_reads: node.bad_reads.clone(),
    }
}

fn write_sector(image: &mut [u8], sector: usize, bytes: &Sector) {
    let start = sector * SECTOR;
    let end = image.len().min(start + SECTOR);
    if start < end {
        image[start..end].copy_from_slice(&bytes[..end - start]);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: usize,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Node) -> T) -> T {
        act(&mut self.disk.world().nodes[self.node])
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> u64 {
        self.with(|node| node.cache.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.with(|node| {
            let end = offset + buf.len() as u64;
            if node
                .bad_reads
                .iter()
                .any(|bad| bad.start < end && offset < bad.end)
            {
                return Err(io::Error::other("simulated read error"));
            }
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let from = node.cache.get(start..start + buf.len());
            buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn store_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        self.disk.world().step()?;
        self.with(|node| {
            let mut at = usize::try_from(offset).map_err(io::Error::other)?;
            for piece in pieces {
                let target = node.cache.get_mut(at..at + piece.len());
                target
                    .ok_or(io::ErrorKind::InvalidInput)?
                    .copy_from_slice(piece);
                for sector in at / SECTOR..(at + piece.len()).div_ceil(SECTOR) {
                    let mut bytes = [0; SECTOR];
                    let end = node.cache.len().min((sector + 1) * SECTOR);
                    bytes[..end - sector * SECTOR]
                        .copy_from_slice(&node.cache[sector * SECTOR..end]);
                    let versions = node.dirty.entry(sector).or_default();
                    if versions.len() == VERSIONS {
                        versions.remove(0);
                    }
                    versions.push(bytes);
                }
                at += piece.len();
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.step()?;
        world.syncs += 1;
        // Only segments of the log: the preparer's own syncs would take the failure away.
        let is_segment = |path: &Path| path.to_string_lossy().contains("segment-");
        let named = world
            .names
            .iter()
            .any(|(path, n)| *n == self.node && is_segment(path));
        let fails = named && world.fail_syncs > 0;
        world.fail_syncs -= u32::from(fails);
        let node = &mut world.nodes[self.node];
        let dirty = std::mem::take(&mut node.dirty);
        if fails {
            return Err(io::Error::other("simulated I/O error on sync"));
        }
        for (sector, versions) in dirty {
            if let Some(newest) = versions.last() {
                write_sector(&mut node.disk, sector, newest);
            }
        }
        Ok(())
    }

    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        let start = usize::try_from(offset).ok()?;
        self.with(|node| {
            node.cache
                .get(start..start + len)
                .map(Bytes::copy_from_slice)
        })
    }

    fn map(&self, _populate: u64) -> io::Result<()> {
        Ok(())
    }

    fn unmap(&self) {}

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.world().step()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|node| {
            node.cache.truncate(len);
            node.disk.truncate(len);
            node.dirty.retain(|sector, _| sector * SECTOR < len);
        });
        Ok(())
    }

    fn forget_cached(&self) {}
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.world().locks.remove(&self.path);
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.world().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let world = self.world();
        let here = world
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir));
        Ok(here
            .map(|(path, node)| DirEntry {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                len: world.nodes[*node].cache.len() as u64,
                is_file: true,
            })
            .collect())
    }

    fn lock(&self, dir: &Path, name: &str) -> io::Result<Box<dyn DirLock>> {
        let path = dir.join(name);
        if !self.world().locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path,
        }))
    }

    fn create_zeroed(
        &self,
        path: &Path,
        len: u64,
        _backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.step()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(free) = &mut world.free {
            *free = free.checked_sub(len).ok_or(io::ErrorKind::StorageFull)?;
        }
        let zeros = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        let node = world.nodes.len();
        world.nodes.push(Node {
            cache: zeros.clone(),
            disk: zeros,
            ..Node::default()
        });
        world.change_names(NameOp::Link(path.to_owned(), node));
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            node,
        }))
    }

    fn open(
        &self,
        path: &Path,
        _writable: bool,
        _backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.world().node(path)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            node,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.node(from)?;
        if world.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.change_names(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let node = world.node(path)?;
        let len = world.nodes[node].cache.len() as u64;
        if let Some(free) = &mut world.free {
            *free += len;
        }
        world.change_names(NameOp::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let pending = std::mem::take(&mut world.pending_names);
        for op in pending {
            if op.dir() == dir {
                op.apply(&mut world.names_on_disk);
            } else {
                world.pending_names.push(op);
            }
        }
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let free = self.world().free.unwrap_or(1 << 40);
        Ok(Space {
            free,
            total: 1 << 40,
        })
    }

    fn identity(&self, _dir: &Path) -> io::Result<DirectoryIdentity> {
        Ok(DirectoryIdentity {
            inode: 1,
            filesystem: 1,
            machine: 1,
        })
    }

    fn caution(&self, _dir: &Path) -> Option<String> {
        None
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(disk: &SimDisk) -> Arc<dyn DiskFile> {
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.create_zeroed(Path::new("/d/segment-f"), 2048, WriteBackend::Pwrite)
            .unwrap()
    }

    fn content(disk: &SimDisk) -> Option<Vec<u8>> {
        let file = disk
            .open(Path::new("/d/segment-f"), false, WriteBackend::Pwrite)
            .ok()?;
        let mut bytes = vec![0; 2048];
        file.read_at(0, &mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn unsynced_sectors_are_kept_or_dropped_one_by_one() {
        let disk = SimDisk::default();
        let f = file(&disk);
        disk.sync_dir(Path::new("/d")).unwrap();
        f.store_at(0, &[&[1; 512], &[2; 512]]).unwrap();
        let images: BTreeSet<_> = (0..64).map(|s| content(&disk.crash(s)).unwrap()).collect();
        assert_eq!(images.len(), 4, "every subset of two sectors");
        f.sync().unwrap();
        let both = [[1; 512], [2; 512]].concat();
        assert!((0..64).all(|s| content(&disk.crash(s)).unwrap()[..1024] == *both));
        assert_eq!(content(&disk.crash(7)), content(&disk.crash(7)));
    }

    #[test]
    fn a_name_without_a_directory_sync_may_vanish() {
        let disk = SimDisk::default();
        file(&disk);
        let found: BTreeSet<bool> = (0..64).map(|s| content(&disk.crash(s)).is_some()).collect();
        assert_eq!(found.len(), 2);
        disk.sync_dir(Path::new("/d")).unwrap();
        assert!((0..64).all(|s| content(&disk.crash(s)).is_some()));
    }

    #[test]
    fn after_a_failed_sync_the_cache_shows_what_the_disk_never_gets() {
        let disk = SimDisk::default();
        let f = file(&disk);
        disk.sync_dir(Path::new("/d")).unwrap();
        f.store_at(0, &[&[9; 512]]).unwrap();
        disk.fail_syncs(1);
        assert!(f.sync().is_err());
        assert_eq!(content(&disk).unwrap()[0], 9);
        f.sync().unwrap();
        assert!((0..64).all(|s| content(&disk.crash(s)).unwrap()[0] == 0));
    }
}
