//! One file that is followed: where it is, what was delivered of it, and its open reader.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::lines::LineReader;
use super::position::{FilePosition, Mark, Mismatch, read_at};
use super::scan::{FileId, Stamp};
use crate::channel::Position;
use crate::event::Headers;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) id: FileId,
    /// Key of its position in the channel.
    pub(super) key: String,
    /// Whether the channel holds a position under the key.
    pub(super) stored: bool,
    /// Path under which it was first found.
    pub(super) origin: PathBuf,
    /// Path under which it was last seen.
    pub(super) current: PathBuf,
    /// Group of its present path; `None` until it was found in this run.
    pub(super) group: Option<usize>,
    /// Headers of all its events.
    pub(super) headers: Headers,
    /// Behind the last acknowledged line.
    pub(super) mark: Mark,
    pub(super) written_ms: u64,
    pub(super) reader: Option<LineReader>,
    /// State of the file when its end was last reached.
    pub(super) seen: Option<Stamp>,
    /// When it last brought something, or was opened.
    pub(super) grown: Instant,
    /// Open, but no group matches it any more: renamed or deleted since then.
    pub(super) away: Option<Instant>,
    /// Neither open nor in the listing since then.
    pub(super) missing: Option<Instant>,
    /// The last error, so that it is logged once.
    pub(super) failing: Option<String>,
}

/// Why a file could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Io(io::Error),
    /// Another file has its name now; the next listing tells where it went.
    Moved,
    Replaced(Mismatch),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Tracked {
    pub(super) fn new(id: FileId, key: String, path: PathBuf, now: Instant) -> Self {
        Self {
            id,
            key,
            stored: false,
            origin: path.clone(),
            current: path,
            group: None,
            headers: Headers::new(),
            mark: Mark::default(),
            written_ms: 0,
            reader: None,
            seen: None,
            grown: now,
            away: None,
            missing: None,
            failing: None,
        }
    }

    /// The file of a stored position, not looked for yet.
    pub(super) fn stored(key: String, position: FilePosition, now: Instant) -> Self {
        let id = FileId {
            inode: position.inode,
            device: position.device,
        };
        let mut file = Self::new(id, key, position.path, now);
        file.stored = true;
        file.mark = position.mark;
        file.written_ms = position.written_ms;
        file
    }

    /// The position to store for `mark`.
    pub(super) fn position(&self, mark: Mark, wall_ms: u64) -> Position {
        let value = FilePosition {
            path: self.origin.clone(),
            inode: self.id.inode,
            device: self.id.device,
            written_ms: wall_ms,
            mark,
        };
        Position {
            key: self.key.clone(),
            value: value.encode(),
        }
    }

    /// The channel has acknowledged everything up to `mark`.
    pub(super) fn acknowledged(&mut self, mark: Mark, wall_ms: u64) {
        self.mark = mark;
        self.written_ms = wall_ms;
        self.stored = true;
    }

    pub(super) fn directory(&self) -> &Path {
        self.current.parent().unwrap_or_else(|| Path::new("/"))
    }

    /// Size and time of change of the open file, or of the path if it is still this file.
    pub(super) fn stamp(&self) -> io::Result<Option<Stamp>> {
        let metadata = match &self.reader {
            Some(reader) => reader.file().metadata()?,
            None => std::fs::metadata(&self.current)?,
        };
        Ok((FileId::of(&metadata) == self.id).then(|| Stamp::of(&metadata)))
    }

    /// Opens the file if it is not open, and verifies that it is the one that was read.
    pub(super) fn open(&mut self, now: Instant) -> Result<&mut LineReader, OpenError> {
        if self.reader.is_none() {
            let file = File::open(&self.current)?;
            if FileId::of(&file.metadata()?) != self.id {
                return Err(OpenError::Moved);
            }
            self.adopt(file, now)?;
        }
        self.reader.as_mut().ok_or(OpenError::Moved)
    }

    /// Makes `file` the open file if it is the one that was read.
    pub(super) fn adopt(&mut self, file: File, now: Instant) -> Result<(), OpenError> {
        let reader = LineReader::open(file, &self.mark)?.map_err(OpenError::Replaced)?;
        self.reader = Some(reader);
        self.grown = now;
        Ok(())
    }

    /// Goes back to the last acknowledged line: what was read since is read again.
    pub(super) fn rewind(&mut self) -> Result<(), OpenError> {
        if let Some(reader) = self.reader.take() {
            self.reader = Some(
                LineReader::open(reader.into_file(), &self.mark)?.map_err(OpenError::Replaced)?,
            );
        }
        Ok(())
    }

    /// The content is another one: everything starts over.
    pub(super) fn start_over(&mut self) {
        self.mark = Mark::default();
        self.seen = None;
        self.origin = self.current.clone();
        if let Some(reader) = self.reader.take() {
            // Nothing is verified at offset 0, so this cannot fail; if it did, the file would be
            // opened by its path.
            self.reader = LineReader::open(reader.into_file(), &self.mark)
                .ok()
                .and_then(Result::ok);
        }
    }

    /// Whether the open file was deleted.
    pub(super) fn is_unlinked(&self) -> bool {
        let metadata = self.reader.as_ref().map(|reader| reader.file().metadata());
        metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| metadata.nlink() == 0))
    }

    /// Whether no later run could find the open file in its directory.
    pub(super) fn is_unreachable(&self) -> bool {
        let elsewhere = |path: PathBuf| path.parent() != self.origin.parent();
        self.is_unlinked() || self.real_path().is_some_and(elsewhere)
    }

    /// Where the open file is now.
    pub(super) fn real_path(&self) -> Option<PathBuf> {
        let descriptor = self.reader.as_ref()?.file().as_raw_fd();
        std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
    }
}

/// The mark behind the last line end of a file: where `skipToEnd` starts.
pub(super) fn end_mark(file: &File) -> io::Result<Mark> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).unwrap_or(0), 0);
        let read = read_at(file, &mut block, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', &block[..read]) {
            let offset = start + newline as u64 + 1;
            return Ok(Mark::compute(file, offset)?.unwrap_or_default());
        }
        end = start;
    }
    Ok(Mark::default())
}
