//! A still picture of a log that an agent may be writing: how much of it is shown is fixed before
//! the first frame is read.
//!
//! *Place in the flow*: between the listing and the readers of `peek` and `examine`, which meet the
//! end of the log page by page while the writer goes on, and would take the place between a page
//! from before and one from after for damage.
//!
//! *Algorithm*: a writer stores frames in the order of their places, and names a segment when the
//! one before is complete. So whatever stands before the last byte that is not zero in the newest
//! segment was stored before that byte, and is there for every later read. What comes behind it is
//! shown as zeros. *Invariant*: INV-21. The end is looked for from behind, so that the place where
//! it is found is not older than what was read before.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use wal_format::{ReadAt, SEGMENT_HEADER_BYTES};

use super::layout::{self, Found, Listing};
use super::options::OpenError;
use super::reader::Salvage;
use crate::env::disk::{Disk, DiskFile, WriteBackend};
use crate::planted::{Bug, planted};

/// Bytes read at once.
const PIECE: u32 = 256 << 10;

/// The files of a log in which nothing new is shown from here on.
pub(super) fn list(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<Listing, OpenError> {
    let mut listing = layout::list(disk, dirs)?;
    if let Some(newest) = listing.segments.last_mut() {
        // What is wrong with the file, whoever reads it says.
        let file = disk.open(&newest.path, false, WriteBackend::Pwrite);
        let shown = file.ok().map(|file| nonzero_end(file.as_ref()));
        newest.shown = shown.filter(|_| !planted(Bug::EndNotFixed));
    }
    Ok(listing)
}

/// Whether a running agent has taken the name of a segment away since the listing: what was read of
/// it may have been erased.
pub(super) fn has_moved(disk: &dyn Disk, listing: &Listing) -> bool {
    let mut segments = listing.segments.iter();
    segments.any(|found| found.has_gone(disk)) && !planted(Bug::FirstLookBelieved)
}

/// Opens a file of the listing for reading.
pub(super) fn open(disk: &dyn Disk, found: &Found) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open(&found.path, false, WriteBackend::Pwrite)?;
    Ok(match found.shown {
        Some(shown) => Arc::new(StillFile { file, shown }),
        None => file,
    })
}

/// Where frames may stand in a file of this length: a segment ends with a copy of its header.
fn frames_end(len: u64) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    len.saturating_sub(SEGMENT_HEADER_BYTES)
        .max(SEGMENT_HEADER_BYTES)
}

/// Behind the last byte of the frames that is not zero.
fn nonzero_end(file: &dyn DiskFile) -> u32 {
    let mut piece = Vec::new();
    let mut to = frames_end(file.len());
    while to > SEGMENT_HEADER_BYTES {
        let from = to.saturating_sub(PIECE).max(SEGMENT_HEADER_BYTES);
        piece.resize((to - from) as usize, 0);
        let Ok(()) = Salvage(file).read_at(from, &mut piece);
        let last = piece.iter().rposition(|byte| *byte != 0);
        if let Some(last) = last.and_then(|last| u32::try_from(last).ok()) {
            return from + last + 1;
        }
        to = from;
    }
    SEGMENT_HEADER_BYTES
}

/// A file whose frames from `shown` on are zeros.
#[derive(Debug)]
struct StillFile {
    file: Arc<dyn DiskFile>,
    shown: u32,
}

impl DiskFile for StillFile {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)?;
        let within = |at: u32| {
            let at = u64::from(at).saturating_sub(offset);
            usize::try_from(at).unwrap_or(usize::MAX).min(buf.len())
        };
        let (from, to) = (within(self.shown), within(frames_end(self.file.len())));
        buf[from..to.max(from)].fill(0);
        Ok(())
    }

    fn store_at(&self, _: u64, _: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn slice(&self, _: u64, _: usize) -> Option<Bytes> {
        None
    }

    fn map(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unmap(&self) {}

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }
}
