//! The directories that a log was opened in, and nothing that has come to their place since.
//!
//! The log works by names, and a name may come to mean another directory under a running agent:
//! a file system that is mounted late hides the directory in which the agent has begun a log, and
//! under the same names may lie the segments of another log. The lock is on the hidden directory
//! and protects nothing there. So every change of names is preceded by a look at the directory;
//! where it is another one the change is an error, and the log instance ends at its next roll.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};

/// A disk that makes, renames and removes files only in the directories it has been shown.
#[derive(Debug)]
pub(super) struct Home {
    disk: Arc<dyn Disk>,
    dirs: Vec<(PathBuf, DirectoryIdentity)>,
}

impl Home {
    /// The same disk, bound to what `dirs` are now.
    pub(super) fn bind(disk: Arc<dyn Disk>, dirs: &[PathBuf]) -> io::Result<Arc<dyn Disk>> {
        let looked_at = dirs
            .iter()
            .map(|dir| Ok((dir.clone(), disk.identity(dir)?)));
        let dirs = looked_at.collect::<io::Result<_>>()?;
        Ok(Arc::new(Self { disk, dirs }))
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(path);
        let known = self.dirs.iter().find(|(dir, _)| dir == parent);
        let Some((dir, before)) = known else {
            return Ok(());
        };
        if self.disk.identity(dir)? == *before {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} is no longer the directory that was opened: something was mounted over it, or it \
             was moved",
            dir.display()
        )))
    }
}

impl Disk for Home {
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
        self.check(path)?;
        self.disk.create_zeroed(path, len, backend)
    }

    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, writable, backend)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(to)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
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
