//! Which files the groups match now.
//!
//! *Place in the flow*: the tailer lists all groups at every poll. Directories are listed each
//! time, so that no file is seen late; symbolic links to files are followed, everything that is
//! not a regular file is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::FileGroup;

/// What tells one file of this machine from another while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId {
    pub(super) inode: u64,
    pub(super) device: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// Size and time of the last change: when both are the same there is nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// A file that a group matches.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    /// Index of the first group that matches.
    pub(super) group: usize,
    pub(super) stamp: Stamp,
}

/// All matching files: groups in their order, the files of each from the oldest to the newest.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<Found>,
    /// Directories that could not be listed: nothing is known about their files.
    pub(super) failed: BTreeMap<PathBuf, io::Error>,
}

/// Lists all groups.
pub(super) fn list(groups: &[FileGroup]) -> Listing {
    let mut listing = Listing::default();
    let mut seen = BTreeSet::new();
    for (index, group) in groups.iter().enumerate() {
        match matching(index, group) {
            Ok(mut files) => {
                files.sort_by(|a, b| (a.stamp.modified, &a.path).cmp(&(b.stamp.modified, &b.path)));
                files.retain(|file| seen.insert(file.id));
                listing.files.append(&mut files);
            }
            Err(error) => {
                listing.failed.insert(group.directory.clone(), error);
            }
        }
    }
    listing
}

fn matching(index: usize, group: &FileGroup) -> io::Result<Vec<Found>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&group.directory)? {
        let entry = entry?;
        if !group.pattern.is_match(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        // A file that vanishes between the listing and here is simply not there.
        if let Ok(metadata) = std::fs::metadata(&path)
            && metadata.is_file()
        {
            let (id, stamp) = (FileId::of(&metadata), Stamp::of(&metadata));
            files.push(Found {
                id,
                path,
                group: index,
                stamp,
            });
        }
    }
    Ok(files)
}

/// Opens the file with `inode` in `directory`, whatever its name is now. The device is not
/// compared: the caller verifies the content.
pub(super) fn open_by_inode(directory: &Path, inode: u64) -> io::Result<Option<(PathBuf, File)>> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_file() && metadata.ino() == inode {
            let file = File::open(&path)?;
            if file.metadata()?.ino() == inode {
                return Ok(Some((path, file)));
            }
        }
    }
    Ok(None)
}
