//! The real disk: Linux file systems by way of the standard library, rustix and memmap2.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{Advice, CWD, OFlags, RenameFlags};

use super::disk::{DirEntry, DirLock, DirectoryIdentity, Disk, DiskFile, Space, WriteBackend};
use super::region::Region;

/// Zeros are written in pieces of this size.
const FILL_BYTES: usize = 1 << 20;
/// What O_DIRECT wants addresses, lengths and offsets to be multiples of.
const DIRECT_ALIGN: usize = 4096;

/// See the module head.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    len: AtomicU64,
    backend: WriteBackend,
    writable: bool,
    map: Mutex<Option<Arc<Region>>>,
}

impl RealFile {
    fn new(file: File, len: u64, backend: WriteBackend, writable: bool) -> Self {
        Self {
            file,
            len: AtomicU64::new(len),
            backend,
            writable,
            map: Mutex::new(None),
        }
    }

    fn region(&self) -> Option<Arc<Region>> {
        self.map
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn map_region(&self) -> io::Result<Arc<Region>> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(region) = &*map {
            return Ok(Arc::clone(region));
        }
        let len = usize::try_from(self.len()).map_err(io::Error::other)?;
        let writable = self.writable && self.backend == WriteBackend::Map;
        let region = Arc::new(Region::map(&self.file, len, writable)?);
        *map = Some(Arc::clone(&region));
        Ok(region)
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn store_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let total: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        if offset.checked_add(total).is_none_or(|end| end > self.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "store past the end",
            ));
        }
        match self.backend {
            WriteBackend::Pwrite => write_all_vectored(&self.file, offset, pieces),
            WriteBackend::Map => {
                let region = self.map_region()?;
                let mut at = usize::try_from(offset).map_err(io::Error::other)?;
                for piece in pieces {
                    region.store(at, piece)?;
                    at += piece.len();
                }
                Ok(())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.region()?.slice(usize::try_from(offset).ok()?, len)
    }

    fn map(&self, populate: u64) -> io::Result<()> {
        let region = self.map_region()?;
        region.populate(usize::try_from(populate).unwrap_or(usize::MAX));
        Ok(())
    }

    fn unmap(&self) {
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn forget_cached(&self) {
        // Advice only; a refusal changes nothing.
        let _advice = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

/// `pwritev` until everything is stored; one call holds at most 1,024 pieces.
fn write_all_vectored(file: &File, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
    if let [piece] = pieces {
        return file.write_all_at(piece, offset);
    }
    let mut at = offset;
    for chunk in pieces.chunks(1024) {
        let slices: Vec<io::IoSlice<'_>> = chunk.iter().map(|p| io::IoSlice::new(p)).collect();
        let want: usize = chunk.iter().map(|p| p.len()).sum();
        let mut done = rustix::io::retry_on_intr(|| rustix::io::pwritev(file, &slices, at))?;
        if done < want {
            // A short write: the rest piece by piece.
            for piece in chunk {
                if done < piece.len() {
                    file.write_all_at(&piece[done..], at + done as u64)?;
                }
                at += piece.len() as u64;
                done = done.saturating_sub(piece.len());
            }
        } else {
            at += want as u64;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DirLock for RealLock {}

fn locked(file: File) -> io::Result<Box<dyn DirLock>> {
    match file.try_lock() {
        Ok(()) => Ok(Box::new(RealLock { _file: file })),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = self.absolute(dir);
        // A directory that exists may have been made by a process that died before it synced the
        // name, so names are synced on every path; that costs a few syncs per open.
        let Some(parent) = dir.parent() else {
            return Ok(());
        };
        if !dir.is_dir() {
            self.create_dir_all(parent)?;
            match DirBuilder::new().mode(0o700).create(&dir) {
                // Somebody else was faster: a directory is fine, anything else is not.
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => {
                    return Err(e);
                }
                _ => {}
            }
        }
        match self.sync_dir(parent) {
            // An ancestor that we may pass but not open is not ours to sync.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Gone between the listing and the look. Any other error might hide a segment.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(DirEntry {
                name,
                len: meta.len(),
                is_file: meta.is_file(),
            });
        }
        Ok(entries)
    }

    fn lock(&self, dir: &Path, name: &str) -> io::Result<Box<dyn DirLock>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        locked(options.open(dir.join(name))?)
    }

    fn lock_existing(&self, dir: &Path, name: &str) -> io::Result<Option<Box<dyn DirLock>>> {
        // Read-only, so that a log on a file system that is mounted so can be locked too.
        match File::open(dir.join(name)) {
            Ok(file) => locked(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_zeroed(
        &self,
        path: &Path,
        len: u64,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(path)?;
        let filled = match backend {
            WriteBackend::Pwrite => fill_buffered(&file, len),
            WriteBackend::Map => fill_direct(path, len).or_else(|_| {
                fill_buffered(&file, len)?;
                // Dirty pages would stay where they are.
                file.sync_data()?;
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(io::Error::from)
            }),
        };
        if let Err(error) = filled.and_then(|()| file.sync_all()) {
            // Space first: a full disk must not keep a half-made file.
            let _best_effort = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(RealFile::new(file, len, backend, true)))
    }

    fn open(
        &self,
        path: &Path,
        writable: bool,
        backend: WriteBackend,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(writable).open(path)?;
        let len = file.metadata()?.len();
        Ok(Arc::new(RealFile::new(file, len, backend, writable)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(
            CWD,
            from,
            CWD,
            to,
            RenameFlags::NOREPLACE,
        )?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free: stat.f_bavail * stat.f_frsize,
            total: stat.f_blocks * stat.f_frsize,
        })
    }

    fn identity(&self, dir: &Path) -> io::Result<DirectoryIdentity> {
        let inode = std::fs::metadata(dir)?.ino();
        let filesystem = rustix::fs::statvfs(dir)?.f_fsid;
        let machine_id = std::fs::read("/etc/machine-id").unwrap_or_default();
        let machine = u64::from(crc32fast::hash(&machine_id));
        Ok(DirectoryIdentity {
            inode,
            filesystem,
            machine,
        })
    }

    fn caution(&self, dir: &Path) -> Option<String> {
        let kind = rustix::fs::statfs(dir).ok()?.f_type;
        let what = match kind {
            0x0102_1994 => "tmpfs: everything is lost when the machine stops",
            0x794c_7630 => "overlay: durability is that of the upper layer, often a container's",
            0x6969 => "NFS: locks and syncs are only as good as the server and mount options",
            0x9123_683e => {
                "btrfs: copy on write; prepared segments do not protect against a full disk"
            }
            _ => return None,
        };
        Some(format!(
            "{} is on {what}; ext4 or XFS is advised",
            dir.display()
        ))
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }
}

fn fill_buffered(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < len {
        let piece = zeros
            .len()
            .min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// Zeros past the page cache, so that no large folio is left for a store to dirty whole.
fn fill_direct(path: &Path, len: u64) -> io::Result<()> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)?;
    let buffer = vec![0_u8; FILL_BYTES + DIRECT_ALIGN];
    let skip = buffer.as_ptr().align_offset(DIRECT_ALIGN);
    let zeros = &buffer[skip..skip + FILL_BYTES];
    let mut at = 0;
    while at < len {
        let piece = zeros
            .len()
            .min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::write(&path, b"").unwrap();
        assert!(RealDisk.create_dir_all(&path).is_err());
        assert!(RealDisk.create_dir_all(&path.join("below")).is_err());
        RealDisk.create_dir_all(&dir.path().join("a/b/c")).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
    }

    #[test]
    fn a_read_only_file_refuses_stores_with_either_backend() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        RealDisk
            .create_zeroed(&path, 8192, WriteBackend::Pwrite)
            .unwrap();
        for backend in [WriteBackend::Pwrite, WriteBackend::Map] {
            let file = RealDisk.open(&path, false, backend).unwrap();
            assert!(file.store_at(0, &[b"x"]).is_err(), "{backend:?}");
        }
    }

    #[test]
    fn stores_of_many_pieces_are_read_back_by_pread_and_through_the_map() {
        let dir = tempfile::tempdir().unwrap();
        for backend in [WriteBackend::Pwrite, WriteBackend::Map] {
            let path = dir.path().join(format!("{backend:?}"));
            let file = RealDisk.create_zeroed(&path, 1 << 20, backend).unwrap();
            let pieces: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            file.store_at(4096, &slices).unwrap();
            file.sync().unwrap();
            file.map(0).unwrap();
            let mut read = vec![0; 12_000];
            file.read_at(4096, &mut read).unwrap();
            assert_eq!(read, pieces.concat());
            assert_eq!(file.slice(4096, 12_000).unwrap(), read);
            assert!(
                file.store_at((1 << 20) - 1, &[b"xy"]).is_err(),
                "never lengthens"
            );
        }
    }

    #[test]
    fn a_lock_is_held_against_this_process_too_and_a_rename_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RealDisk.lock(dir.path(), "lock").unwrap();
        let second = RealDisk.lock(dir.path(), "lock").unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        RealDisk.lock(dir.path(), "lock").unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), b"a").unwrap();
        std::fs::write(path("b"), b"b").unwrap();
        assert!(RealDisk.rename(&path("a"), &path("b")).is_err());
        assert_eq!(std::fs::read(path("b")).unwrap(), b"b");
    }
}
