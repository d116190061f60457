//! The disk as the log sees it: a port in the words of prepared files, stores, syncs and names.
//!
//! Two implementations: [`super::disk_real`] and the simulated disk (`simulation` feature).
//!
//! *Rules every implementation keeps*: an `Ok` of [`DiskFile::sync`] means that every earlier
//! store into the file is on the medium; an `Ok` of [`Disk::sync_dir`] means that every earlier
//! create, rename and remove in that directory is. Nothing else is durable, and anything may
//! become durable earlier, in any order and in part.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// How stores reach a prepared file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteBackend {
    /// `pwrite` into the file; the map is only read. Zero-filled through the page cache.
    Pwrite,
    /// Stores through the shared map. Zero-filled past the page cache, because a store into a
    /// large folio would make the kernel write the whole folio.
    Map,
}

/// What a directory is, so that a copy of it can be told from the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DirectoryIdentity {
    /// Inode number.
    pub inode: u64,
    /// File system id (from statfs).
    pub filesystem: u64,
    /// First half of a hash of the machine id.
    pub machine: u64,
}

/// A file of a log directory.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buf` from `offset`. A short file is `UnexpectedEof`; a bad sector is an error, not
    /// a signal.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Stores the pieces one behind the other from `offset`, by the file's backend. Never
    /// lengthens the file.
    fn store_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()>;
    /// Waits until every earlier store is on the medium (data and what is needed to find it).
    /// After an error the state of the medium is unknown and the call must not be repeated.
    fn sync(&self) -> io::Result<()>;
    /// Zero-copy view of a range that will never be stored to again. `None` where the file is
    /// not mapped (see [`DiskFile::map`]).
    fn slice(&self, offset: u64, len: usize) -> Option<Bytes>;
    /// Maps the file for [`DiskFile::slice`]; reads its pages ahead in `[0, populate)`.
    fn map(&self, populate: u64) -> io::Result<()>;
    /// Drops the file's own hold on the map; slices that were given out keep it alive.
    fn unmap(&self);
    /// Cuts the file to `len`. Only for zeros behind the end of a log that no one maps or reads.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Advises the kernel that `[0, len)` will not be read again soon.
    fn forget_cached(&self);
}

/// An exclusive hold on a directory, released on drop.
pub trait DirLock: Send + Sync + std::fmt::Debug {}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name without directory.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// Space of the file system that holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes an unprivileged process may still use.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

/// A file system, as far as the log needs one.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Makes a directory and its missing ancestors (mode 0700), each synced into its parent.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Entries of a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Takes the exclusive lock `dir/name`; `WouldBlock` where another process or channel has it.
    fn lock(&self, dir: &Path, name: &str) -> io::Result<Box<dyn DirLock>>;
    /// Takes the lock `dir/name` if that file is there and changes nothing; `None` where it is not:
    /// then nobody holds it.
    fn lock_existing(&self, dir: &Path, name: &str) -> io::Result<Option<Box<dyn DirLock>>>;
    /// Makes a file of `len` zero bytes whose blocks are written, and syncs it (not its name).
    /// Existing files are not replaced. On an error (`StorageFull`, ..) nothing is left behind.
    fn create_zeroed(
        &self,
        path: &Path,
        len: u64,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file; read-only unless `writable`.
    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames without replacing.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Free and total space.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// What the directory is.
    fn identity(&self, dir: &Path) -> io::Result<DirectoryIdentity>;
    /// A warning to print when the file system keeps weaker promises than the log needs
    /// (tmpfs, overlay, NFS, btrfs), or `None`.
    fn caution(&self, dir: &Path) -> Option<String>;
    /// Absolute form of a path, for messages and locks.
    fn absolute(&self, path: &Path) -> PathBuf;
}
