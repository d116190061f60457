//! The simulated disk behind the port. Answers and kinds of errors are those of the real disk;
//! `tests::conformance` holds the two side by side.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::content::Node;
use super::crash::Random;
use super::faults::{Call, Failure};
use super::names::{NameOp, NodeId};
use super::{SimDisk, World};
use crate::env::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};

const TOTAL: u64 = 1 << 40;
const EBADF: i32 = 9;

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    len: AtomicU64,
    backend: WriteBackend,
    writable: bool,
    mapped: AtomicBool,
}

impl SimFile {
    fn new(disk: &SimDisk, node: NodeId, len: u64, backend: WriteBackend, writable: bool) -> Self {
        Self {
            disk: disk.clone(),
            node,
            len: AtomicU64::new(len),
            backend,
            writable,
            mapped: AtomicBool::new(false),
        }
    }

    fn step(&self, world: &mut World, call: Call) -> Result<(), Failure> {
        let name = world.names.name_of(self.node);
        world.step(call, name.as_deref())
    }

    fn look(&self, world: &mut World, call: Call) -> Result<(), Failure> {
        let name = world.names.name_of(self.node);
        world.look(call, name.as_deref())
    }

    /// What the kernel says of a store before it moves a byte.
    fn may_store(&self, world: &mut World) -> io::Result<()> {
        match (self.backend, self.writable) {
            (WriteBackend::Pwrite, true) => Ok(()),
            (WriteBackend::Pwrite, false) => Err(io::Error::from_raw_os_error(EBADF)),
            (WriteBackend::Map, writable) => {
                if !self.mapped.load(Ordering::Acquire) {
                    self.look(world, Call::Map)?;
                    self.mapped.store(true, Ordering::Release);
                }
                match writable {
                    true => Ok(()),
                    false => Err(io::ErrorKind::PermissionDenied.into()),
                }
            }
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        self.look(&mut world, Call::Read)?;
        world.nodes[self.node].read(offset, buf)
    }

    fn store_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let total: usize = pieces.iter().map(|p| p.len()).sum();
        let end = offset.checked_add(total as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "store past the end",
            ));
        }
        let mut world = self.disk.world();
        self.may_store(&mut world)?;
        let (mut left, error) = match self.step(&mut world, Call::Store) {
            Ok(()) => (total, None),
            Err(failure) => (failure.kept.min(total), Some(failure.error)),
        };
        let mut at = usize::try_from(offset).map_err(io::Error::other)?;
        for piece in pieces {
            let stored = piece.len().min(left);
            world.nodes[self.node].store(at, &piece[..stored]);
            at += stored;
            left -= stored;
        }
        error.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let result = self.step(&mut world, Call::Sync);
        world.syncs += 1;
        let off = world.power_is_off();
        let node = &mut world.nodes[self.node];
        match result {
            Ok(()) => node.sync(),
            Err(failure) if off => return Err(failure.error),
            Err(failure) => {
                let mut random = failure.in_part.map(Random::new);
                node.lose(|| random.as_mut().is_some_and(|r| r.below(2) == 1));
                return Err(failure.error);
            }
        }
        Ok(())
    }

    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        if !self.mapped.load(Ordering::Acquire) {
            return None;
        }
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        let world = self.disk.world();
        let node = &world.nodes[self.node];
        (end as u64 <= self.len()).then(|| Bytes::from(node.slice(start, len)))
    }

    fn map(&self, _populate: u64) -> io::Result<()> {
        if !self.mapped.load(Ordering::Acquire) {
            self.look(&mut self.disk.world(), Call::Map)?;
            self.mapped.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn unmap(&self) {
        self.mapped.store(false, Ordering::Release);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut world = self.disk.world();
        self.step(&mut world, Call::Truncate)?;
        let new = usize::try_from(len).map_err(io::Error::other)?;
        let old = world.nodes[self.node].len();
        world.give_back(old.saturating_sub(new) as u64);
        world.nodes[self.node].set_len(new);
        self.len.store(len, Ordering::Release);
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

impl World {
    /// Makes an empty file.
    fn link(&mut self, path: &Path) -> io::Result<NodeId> {
        self.step(Call::Create, Some(path))?;
        let node = self.nodes.len();
        self.nodes.push(Node::default());
        self.names.change(NameOp::Link(path.into(), node));
        Ok(node)
    }

    /// Gives a new file its zeros and syncs it.
    fn fill(&mut self, path: &Path, node: NodeId, len: usize) -> io::Result<()> {
        self.step(Call::Fill, Some(path))?;
        self.allocate(len as u64)?;
        // The zeros are written in pieces; a crash may find some of them.
        self.nodes[node].set_len(len / 2);
        self.nodes[node].set_len(len);
        if let Err(failure) = self.step(Call::Sync, Some(path)) {
            if !self.power_is_off() {
                self.give_back(len as u64);
            }
            return Err(failure.error);
        }
        self.nodes[node].sync();
        Ok(())
    }

    fn taken(&self, path: &Path) -> bool {
        self.names.cache.files.contains_key(path) || self.names.cache.is_dir(path)
    }

    fn sync_names(&mut self, dir: &Path) -> io::Result<()> {
        self.step(Call::SyncDir, Some(dir))?;
        self.names.sync_dir(dir);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else {
            return Ok(());
        };
        if !self.world().names.cache.is_dir(dir) {
            self.create_dir_all(parent)?;
            let mut world = self.world();
            if world.taken(dir) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            world.step(Call::MakeDir, Some(dir))?;
            world.names.change(NameOp::MakeDir(dir.into()));
        }
        let mut world = self.world();
        // A sync that changes nothing is no place for a crash.
        match world.names.is_pending_in(parent) {
            true => world.sync_names(parent),
            false => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut world = self.world();
        world.look(Call::List, Some(dir))?;
        world.names.check_parent(&dir.join("x"))?;
        let tree = &world.names.cache;
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let files = tree.files.iter();
        let files = files.filter(|(path, _)| path.parent() == Some(dir));
        let files = files.map(|(path, node)| DirEntry {
            name: name(path),
            len: world.nodes[*node].len() as u64,
            is_file: true,
        });
        let dirs = tree.dirs_in(dir).map(|path| DirEntry {
            name: name(path),
            len: 0,
            is_file: false,
        });
        Ok(files.chain(dirs).collect())
    }

    fn lock(&self, dir: &Path, name: &str) -> io::Result<Box<dyn DirLock>> {
        let path = dir.join(name);
        let mut world = self.world();
        world.look(Call::Lock, Some(&path))?;
        world.names.check_parent(&path)?;
        if !world.names.cache.files.contains_key(path.as_path()) {
            world.link(&path)?;
        }
        if !world.locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path,
        }))
    }

    fn lock_existing(&self, dir: &Path, name: &str) -> io::Result<Option<Box<dyn DirLock>>> {
        let there = {
            let world = self.world();
            let path = dir.join(name);
            world.names.cache.files.contains_key(path.as_path())
        };
        match there {
            true => self.lock(dir, name).map(Some),
            false => Ok(None),
        }
    }

    fn create_zeroed(
        &self,
        path: &Path,
        len: u64,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.names.check_parent(path)?;
        if world.taken(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = world.link(path)?;
        let size = usize::try_from(len).map_err(io::Error::other)?;
        if let Err(error) = world.fill(path, node, size) {
            if !world.power_is_off() {
                world.names.change(NameOp::Remove(path.into(), node));
            }
            return Err(error);
        }
        Ok(Arc::new(SimFile::new(self, node, len, backend, true)))
    }

    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        world.look(Call::Open, Some(path))?;
        world.names.check_parent(path)?;
        let node = world.names.node(path)?;
        let len = world.nodes[node].len() as u64;
        Ok(Arc::new(SimFile::new(self, node, len, backend, writable)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.names.check_parent(from)?;
        world.names.check_parent(to)?;
        let node = world.names.node(from)?;
        if world.taken(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.step(Call::Rename, Some(to))?;
        let op = NameOp::Rename(from.into(), to.into(), node);
        world.names.change(op);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.names.check_parent(path)?;
        if world.names.cache.is_dir(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let node = world.names.node(path)?;
        world.step(Call::Remove, Some(path))?;
        let len = world.nodes[node].len() as u64;
        world.give_back(len);
        world.names.change(NameOp::Remove(path.into(), node));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.names.check_parent(&dir.join("x"))?;
        world.sync_names(dir)
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let free = self.world().free.unwrap_or(TOTAL);
        Ok(Space { free, total: TOTAL })
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
