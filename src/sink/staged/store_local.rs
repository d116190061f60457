//! The file store on a local directory tree.
//!
//! Place in the flow: the publisher's port [`FileStore`] for `file://` targets. Paths are absolute
//! paths of the local file system. Calls run on tokio's blocking threads, each under a time-out: a
//! hung mount gives [`StoreError::Unknown`], and the call may still happen later.
//!
//! *Invariants*
//! - Nothing is ever overwritten: files are created with `O_EXCL`, names move by
//!   `renameat2(RENAME_NOREPLACE)` (a plain rename replaces an empty directory, which is what a
//!   tombstone is). A file system without it is refused.
//! - An open writer holds its file and its directory, not their names: a rename above it is
//!   harmless, and a file that was deleted is an error at close, as in HDFS.
//! - A recursive delete takes the whole tree out of its name by one rename before anything inside
//!   is touched, so that no part of a half-deleted attempt can be claimed.
//!
//! *Durability*: `close` syncs the file and its directory; `mkdirs` syncs the parents of what it
//! made; renames and deletes need [`FileStore::sync_dirs`]. A crash inside a recursive delete
//! leaves `.deleted-<crc>` beside the old name; listings hide it and the next delete of the same
//! name removes it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::store::{FileInfo, FileStore, StoreError, StoreWriter, check_path, parent_of};

/// Time allowed to a namespace call.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time allowed to a write or a close: a sync of a large file on a slow disk takes its time.
const DATA_TIMEOUT: Duration = Duration::from_secs(600);
/// What a tree is called from the start of its recursive delete until it is gone.
const DELETED_PREFIX: &str = ".deleted-";

/// The local file system as a [`FileStore`].
#[derive(Debug, Clone)]
pub struct LocalStore {
    call_timeout: Duration,
}

impl Default for LocalStore {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalStore {
    /// A store over the whole local tree.
    pub fn new() -> Self {
        Self {
            call_timeout: CALL_TIMEOUT,
        }
    }

    /// Replaces the time-out of namespace calls (60 s).
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Runs a call with one checked path on a blocking thread.
    async fn call<T, F>(&self, what: &'static str, path: &str, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&str) -> Result<T, StoreError> + Send + 'static,
    {
        let path = check_path(path)?.to_owned();
        blocking(what, self.call_timeout, move || call(&path)).await
    }
}

/// Runs `call` on a blocking thread for at most `limit`.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    limit: Duration,
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(lost)) => Err(StoreError::Unknown(format!("{what}: {lost}"))),
        Err(_) => Err(StoreError::Unknown(format!(
            "{what}: no answer from the file system within {} s",
            limit.as_secs()
        ))),
    }
}

/// Sorts an error by what it lets the caller conclude. `NotFound` is narrowed by the callers.
fn sort(what: &str, path: &str, error: &io::Error) -> StoreError {
    let text = format!("{what} {path}: {error}");
    let Some(errno) = Errno::from_io_error(error) else {
        return StoreError::Unknown(text);
    };
    match errno {
        Errno::NOENT => StoreError::NotFound(text),
        Errno::EXIST => StoreError::AlreadyExists(text),
        Errno::NOTEMPTY => StoreError::NotEmpty(text),
        Errno::NOSPC => StoreError::Unavailable(format!("{text}; free some space")),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::BUSY | Errno::AGAIN | Errno::INTR => {
            StoreError::Unavailable(text)
        }
        Errno::XDEV => StoreError::Refused(format!(
            "{text}; source and target must lie on one file system, see hdfs.stagingPath"
        )),
        Errno::ACCESS
        | Errno::PERM
        | Errno::ROFS
        | Errno::DQUOT
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::MLINK
        | Errno::INVAL => StoreError::Refused(text),
        // EIO, ESTALE and the like: the call may have happened in part.
        _ => StoreError::Unknown(text),
    }
}

fn is_missing(path: &str) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(sort("looking up", path, &e)),
    }
}

fn sync_dir(path: &str) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| sort("syncing", path, &e))
}

fn mkdirs(path: &str, create_parent: bool) -> Result<(), StoreError> {
    if path == "/" {
        return Ok(());
    }
    let parent = parent_of(path);
    if create_parent {
        match fs::metadata(parent) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => mkdirs(parent, true)?,
            Err(e) => return Err(sort("looking up", parent, &e)),
        }
    }
    let existed = match fs::DirBuilder::new().mode(0o777).create(path) {
        Ok(()) => false,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(StoreError::ParentNotFound(format!(
                "making {path}: {parent} is missing"
            )));
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists && Path::new(path).is_dir() => true,
        Err(e) => return Err(sort("making", path, &e)),
    };
    // Also where it existed: whoever made it may not have come to its sync. A parent that we may
    // not even open is not one that we ever made something in.
    match sync_dir(parent) {
        Err(StoreError::Refused(_)) if existed => Ok(()),
        answer => answer,
    }
}

/// Opens parent and file so that the parent's later renames do not matter.
fn create(path: &str) -> Result<(File, File), StoreError> {
    let parent = parent_of(path);
    let name = Path::new(path)
        .file_name()
        .unwrap_or_else(|| OsStr::new(""));
    let missing = || StoreError::ParentNotFound(format!("creating {path}: {parent} is missing"));
    let dir = match File::open(parent) {
        Ok(dir) => dir,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(e) => return Err(sort("opening", parent, &e)),
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok((File::from(file), dir)),
        // The directory we hold was removed after it was opened.
        Err(Errno::NOENT) => Err(missing()),
        Err(e) => Err(sort("creating", path, &e.into())),
    }
}

fn rename(from: &str, to: &str) -> Result<(), StoreError> {
    let errno = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        Err(errno) => errno,
    };
    let text = |why: &str| format!("renaming {from} to {to}: {why}");
    if errno == Errno::NOENT {
        // A target that leads through a file is refused first, as HDFS does.
        is_missing(to)?;
        if is_missing(from)? {
            return Err(StoreError::NotFound(text("the source is missing")));
        }
    }
    let inside = to.starts_with(&format!("{from}/"));
    match errno {
        Errno::NOENT | Errno::INVAL | Errno::EXIST if inside => Err(StoreError::Refused(text(
            "the target lies inside the source",
        ))),
        Errno::NOENT if is_missing(parent_of(to))? => Err(StoreError::ParentNotFound(text(
            "the target's parent is missing",
        ))),
        Errno::NOENT => Err(StoreError::Unavailable(text("names moved meanwhile"))),
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => Err(StoreError::Refused(text(
            "this file system cannot rename without overwriting (renameat2 with \
             RENAME_NOREPLACE), which publishing once needs; use ext4, XFS, btrfs or tmpfs",
        ))),
        errno => Err(sort("renaming", &format!("{from} to {to}"), &errno.into())),
    }
}

fn delete(path: &str, recursive: bool) -> Result<bool, StoreError> {
    let is_dir = match fs::symlink_metadata(path) {
        Ok(meta) => meta.is_dir(),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if recursive {
                remove_aside(&aside(path))?;
            }
            return Ok(false);
        }
        Err(e) => return Err(sort("deleting", path, &e)),
    };
    let done = match (is_dir, recursive) {
        (false, _) => fs::remove_file(path),
        (true, false) => fs::remove_dir(path),
        (true, true) => return delete_tree(path),
    };
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(sort("deleting", path, &e)),
    }
}

/// The name a tree has while it is being deleted. Equal names of two trees do no harm: what lies
/// there is to be deleted anyway.
fn aside(path: &str) -> String {
    let parent = parent_of(path).trim_end_matches('/');
    format!(
        "{parent}/{DELETED_PREFIX}{:08x}",
        crc32fast::hash(path.as_bytes())
    )
}

fn remove_aside(aside: &str) -> Result<(), StoreError> {
    match fs::remove_dir_all(aside) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::Unknown(format!(
            "a deleted tree lies at {aside} and cannot be removed: {e}; remove it by hand"
        ))),
    }
}

fn delete_tree(path: &str) -> Result<bool, StoreError> {
    let aside = aside(path);
    remove_aside(&aside)?;
    match rename(path, &aside) {
        Ok(()) => {}
        Err(StoreError::NotFound(_)) => return Ok(false),
        Err(e) => return Err(e),
    }
    // The fence must hold after a power cut too.
    sync_dir(parent_of(path))?;
    remove_aside(&aside)?;
    Ok(true)
}

fn info(path: &str, meta: &fs::Metadata) -> FileInfo {
    let is_dir = meta.is_dir();
    FileInfo {
        path: path.to_owned(),
        length: if is_dir { 0 } else { meta.len() },
        is_dir,
    }
}

fn list(path: &str) -> Result<Vec<FileInfo>, StoreError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(sort("listing", path, &e)),
    };
    let prefix = path.trim_end_matches('/');
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| sort("listing", path, &e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(DELETED_PREFIX) {
            continue;
        }
        match entry.metadata() {
            Ok(meta) => found.push(info(&format!("{prefix}/{name}"), &meta)),
            // Moved on while we looked.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(sort("listing", path, &e)),
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[async_trait]
impl FileStore for LocalStore {
    fn uri(&self) -> &str {
        "file://"
    }

    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError> {
        self.call("mkdirs", path, move |path| mkdirs(path, create_parent))
            .await
    }

    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        let (file, dir) = self.call("create", path, create).await?;
        let file = Arc::new(file);
        Ok(Box::new(LocalWriter {
            path: path.to_owned(),
            file,
            dir,
            spoilt: false,
        }))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let to = check_path(to)?.to_owned();
        self.call("rename", from, move |from| rename(from, &to))
            .await
    }

    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        self.call("delete", path, move |path| delete(path, recursive))
            .await
    }

    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError> {
        let stat = |path: &str| match fs::metadata(path) {
            Ok(meta) => Ok(Some(info(path, &meta))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(sort("looking up", path, &e)),
        };
        self.call("stat", path, stat).await
    }

    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        self.call("list", path, list).await
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let path = check_path(path)?.to_owned();
        let read = move || {
            fs::read(&path)
                .map(Bytes::from)
                .map_err(|e| sort("reading", &path, &e))
        };
        blocking("read", DATA_TIMEOUT, read).await
    }

    async fn sync_dirs(&self, paths: &[&str]) -> Result<(), StoreError> {
        for path in paths {
            self.call("sync_dirs", path, sync_dir).await?;
        }
        Ok(())
    }
}

/// A file of an attempt on the local file system.
#[derive(Debug)]
struct LocalWriter {
    path: String,
    file: Arc<File>,
    dir: File,
    /// A write failed, timed out or was given up half-way: the file's contents are unknown.
    spoilt: bool,
}

impl LocalWriter {
    fn refuse_if_spoilt(&self) -> Result<(), StoreError> {
        if self.spoilt {
            let path = &self.path;
            return Err(StoreError::Unknown(format!(
                "{path}: an earlier write failed"
            )));
        }
        Ok(())
    }
}

#[async_trait]
impl StoreWriter for LocalWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.refuse_if_spoilt()?;
        self.spoilt = true;
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let write = move || {
            (&*file)
                .write_all(&bytes)
                .map_err(|e| sort("writing", &path, &e))
        };
        blocking("write", DATA_TIMEOUT, write).await?;
        self.spoilt = false;
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.refuse_if_spoilt()?;
        let close = move || {
            let Self {
                path, file, dir, ..
            } = *self;
            let failed = |e| sort("closing", &path, &e);
            file.sync_all().map_err(failed)?;
            if file.metadata().map_err(failed)?.nlink() == 0 {
                let gone = format!("closing {path}: the file was deleted while it was open");
                return Err(StoreError::NotFound(gone));
            }
            dir.sync_all().map_err(failed)
        };
        blocking("close", DATA_TIMEOUT, close).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &tempfile::TempDir) -> (String, LocalStore) {
        (dir.path().to_str().unwrap().to_owned(), LocalStore::new())
    }

    #[tokio::test]
    async fn an_empty_tombstone_is_never_replaced_by_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (root, store) = paths(&dir);
        let (from, to) = (format!("{root}/from"), format!("{root}/to"));
        store.mkdirs(&from, false).await.unwrap();
        store.mkdirs(&to, false).await.unwrap();
        let answer = store.rename(&from, &to).await;
        assert!(
            matches!(answer, Err(StoreError::AlreadyExists(_))),
            "{answer:?}"
        );
        assert!(store.stat(&from).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_tree_left_aside_by_a_crash_is_hidden_and_removed_by_the_next_delete() {
        let dir = tempfile::tempdir().unwrap();
        let (root, store) = paths(&dir);
        let tree = format!("{root}/i7");
        store
            .mkdirs(&format!("{tree}/a1/parts"), true)
            .await
            .unwrap();
        fs::rename(&tree, aside(&tree)).unwrap();
        assert_eq!(store.list(&root).await.unwrap(), vec![]);
        assert!(!store.delete(&tree, true).await.unwrap());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_whose_directory_moved_is_closed_in_its_new_place() {
        let dir = tempfile::tempdir().unwrap();
        let (root, store) = paths(&dir);
        store.mkdirs(&format!("{root}/a"), false).await.unwrap();
        let mut writer = store.create(&format!("{root}/a/p")).await.unwrap();
        store
            .rename(&format!("{root}/a"), &format!("{root}/b"))
            .await
            .unwrap();
        writer.write(Bytes::from_static(b"x")).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(store.read(&format!("{root}/b/p")).await.unwrap(), &b"x"[..]);
    }

    #[tokio::test]
    async fn bad_paths_are_refused_before_the_file_system_is_asked() {
        let store = LocalStore::new();
        for path in ["relative", "/a/../b", "/a//b", "/a/./b", "", "/a\0b"] {
            let answer = store.stat(path).await;
            assert!(
                matches!(answer, Err(StoreError::Refused(_))),
                "{path:?}: {answer:?}"
            );
        }
    }

    #[test]
    fn errors_are_sorted_by_what_the_caller_may_conclude() {
        let sorted = |errno: Errno| sort("x", "/p", &errno.into());
        assert!(matches!(sorted(Errno::NOSPC), StoreError::Unavailable(_)));
        assert!(matches!(sorted(Errno::ACCESS), StoreError::Refused(_)));
        assert!(matches!(sorted(Errno::ROFS), StoreError::Refused(_)));
        assert!(matches!(sorted(Errno::NOTEMPTY), StoreError::NotEmpty(_)));
        assert!(matches!(sorted(Errno::IO), StoreError::Unknown(_)));
    }
}
