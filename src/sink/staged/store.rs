//! The file-store port: the few namespace operations the publisher needs, with errors sorted by
//! what they allow the caller to conclude.

use async_trait::async_trait;
use bytes::Bytes;

/// What a store's answer means.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The source or the file itself is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// The parent directory is not there.
    #[error("parent directory not found: {0}")]
    ParentNotFound(String),
    /// The target exists; nothing was changed.
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The directory is not empty; nothing was changed.
    #[error("directory not empty: {0}")]
    NotEmpty(String),
    /// The answer was lost or late: the call may have happened, may yet happen, or may not.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The call did not happen and may succeed later (safe mode, standby, unreachable).
    #[error("not now: {0}")]
    Unavailable(String),
    /// The store refuses: permission, quota, encryption zone, bad path. Repeating will not help
    /// until somebody changes something.
    #[error("refused: {0}")]
    Refused(String),
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Absolute path in the store.
    pub path: String,
    /// Length in bytes; 0 for directories.
    pub length: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Checks the one form of path every store takes: absolute, no empty, `.` or `..` component, no
/// NUL; a trailing slash is cut.
pub(crate) fn check_path(path: &str) -> Result<&str, StoreError> {
    let bad = |why: &str| Err(StoreError::Refused(format!("path {path:?} {why}")));
    let Some(relative) = path.strip_prefix('/') else {
        return bad("is not absolute");
    };
    if path == "/" {
        return Ok(path);
    }
    let relative = relative.strip_suffix('/').unwrap_or(relative);
    if path.contains('\0') {
        return bad("holds a NUL");
    }
    if relative.split('/').any(|c| matches!(c, "" | "." | "..")) {
        return bad("has an empty, `.` or `..` component");
    }
    Ok(path.strip_suffix('/').unwrap_or(path))
}

/// The directory that holds a checked path; the root is its own parent.
pub(crate) fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

/// An open file of an attempt.
#[async_trait]
pub trait StoreWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;
    /// Closes the file; on `Ok` its bytes are durable in the store. Never call again.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// A store of files with atomic rename.
///
/// Only `Ok` is definite. Every call is bounded by a time-out.
#[async_trait]
pub trait FileStore: Send + Sync {
    /// The URI under which SEAL records the store.
    fn uri(&self) -> &str;
    /// Makes a directory; `Ok` where it exists. Without `create_parent` a missing parent is
    /// [`StoreError::ParentNotFound`].
    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError>;
    /// Creates a file; never overwrites and never makes a parent.
    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError>;
    /// Renames a file or directory; never overwrites, not even an empty directory.
    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError>;
    /// Deletes; `false` where there was nothing. Without `recursive` a directory with entries is
    /// [`StoreError::NotEmpty`].
    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError>;
    /// Looks a path up.
    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError>;
    /// Entries of a directory; empty where it is missing.
    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError>;
    /// Reads a whole file: for audits and tests, not for large data.
    async fn read(&self, path: &str) -> Result<Bytes, StoreError>;
    /// Makes renames and deletes in these directories durable (a local file system needs it, a
    /// NameNode journals by itself).
    async fn sync_dirs(&self, paths: &[&str]) -> Result<(), StoreError>;
}
