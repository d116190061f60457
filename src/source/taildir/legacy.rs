//! Flume's position file, read once as the starting point of a new channel.
//!
//! *Invariant*: nothing is ever written to it. A marker among the channel's positions says that
//! it was taken over, so that old numbers never come back after the entries have expired.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::position::Mark;
use super::scan::FileId;

/// An entry as Flume writes it.
#[derive(Debug, serde::Deserialize)]
struct Entry {
    inode: u64,
    pos: u64,
    file: PathBuf,
}

/// A file that Flume has read up to the mark.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) id: FileId,
    pub(super) path: PathBuf,
    pub(super) mark: Mark,
}

/// What a position file says.
#[derive(Debug, Default)]
pub(super) struct PositionFile {
    pub(super) taken: Vec<TakenOver>,
    /// Entries that do not hold any more, and why.
    pub(super) refused: Vec<String>,
}

/// The entries that still hold, and for each other one why it does not. `None` if there is no
/// position file.
pub(super) fn read(path: &Path) -> Result<Option<PositionFile>, String> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    if text.iter().all(u8::is_ascii_whitespace) {
        let refused = vec!["the file is empty".to_owned()];
        return Ok(Some(PositionFile {
            refused,
            ..PositionFile::default()
        }));
    }
    let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|error| {
        format!(
            "{} is not a position file of Flume: {error}",
            path.display()
        )
    })?;
    let mut out = PositionFile::default();
    for entry in entries {
        match take_over(&entry) {
            Ok(found) => out.taken.push(found),
            Err(why) => out.refused.push(format!("{}: {why}", entry.file.display())),
        }
    }
    Ok(Some(out))
}

/// Flume's own rule: the file has the inode and the path of the entry.
fn take_over(entry: &Entry) -> Result<TakenOver, String> {
    let file = File::open(&entry.file).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.ino() != entry.inode {
        return Err(format!(
            "its inode is {}, not {}",
            metadata.ino(),
            entry.inode
        ));
    }
    let mark = Mark::compute(&file, entry.pos).map_err(|error| error.to_string())?;
    let short = || {
        format!(
            "it has {} bytes, the position is {}",
            metadata.len(),
            entry.pos
        )
    };
    let mark = mark.ok_or_else(short)?;
    Ok(TakenOver {
        id: FileId::of(&metadata),
        path: entry.file.clone(),
        mark,
    })
}
