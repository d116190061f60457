//! One segment file under examination: its header from either copy, its frames. Only read.

use std::sync::Arc;

use wal_format::{
    FrameHeader, Lsn, SEGMENT_HEADER_BYTES, Scanner, SegmentError, SegmentHeader, Step,
};

use crate::channel::file::layout::Found;
use crate::channel::file::options::OpenError;
use crate::channel::file::reader::Salvage;
use crate::channel::file::still;
use crate::env::disk::{Disk, DiskFile};
use crate::planted::{Bug, planted};

/// One segment file under examination.
pub(super) struct File {
    pub(super) found: Found,
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
    pub(super) salt: Option<u64>,
}

impl File {
    pub(super) fn frames_end(&self) -> u32 {
        let len = u32::try_from(self.found.len).unwrap_or(u32::MAX);
        match &self.header {
            Some(header) => header.frames_end().min(len),
            None => len,
        }
    }

    /// The segment that its header names, where that is not the one of its name.
    pub(super) fn holds_other(&self) -> Option<u32> {
        let named = self.header.as_ref().map(|header| header.segment);
        named.filter(|number| *number != self.found.number)
    }

    /// Whether the file is shorter than its header says. A segment gets its name with its whole
    /// length; only an open that was complete gives the unused end of the one before back, and not
    /// every one does.
    pub(super) fn is_cut(&self) -> bool {
        let size = self.header.as_ref().map(|header| u64::from(header.size));
        size.is_some_and(|size| self.found.len < size)
    }

    /// Whether every byte can be read.
    pub(super) fn is_readable(&self) -> bool {
        let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
        let mut at = 0;
        while at < self.found.len {
            let left = usize::try_from(self.found.len - at).unwrap_or(usize::MAX);
            let length = block.len().min(left);
            if self.file.read_at(at, &mut block[..length]).is_err() {
                return false;
            }
            at += length as u64;
        }
        true
    }

    pub(super) fn scanner(&self, begin: u32, end: u32, known: Lsn) -> Scanner<Salvage<'_>> {
        self.scanner_with(self.salt.unwrap_or(0), begin, end, known)
    }

    pub(super) fn scanner_with(
        &self,
        salt: u64,
        begin: u32,
        end: u32,
        known: Lsn,
    ) -> Scanner<Salvage<'_>> {
        Scanner::new(
            Salvage(self.file.as_ref()),
            self.found.number,
            salt,
            begin,
            end,
            known,
        )
    }
}

impl File {
    /// The whole file; what cannot be read is filled with bytes that no frame holds.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.frames_end() as usize];
        Salvage(self.file.as_ref()).read(0, &mut bytes);
        bytes
    }
}

pub(super) fn step<'a>(scanner: &'a mut Scanner<Salvage<'_>>) -> Step<'a> {
    let Ok(step) = scanner.step();
    step
}

pub(super) fn open_file(
    disk: &dyn Disk,
    found: &Found,
    channel_id: [u8; 16],
) -> Result<File, OpenError> {
    let file = still::open(disk, found).map_err(|e| OpenError::io("open", &found.path, e))?;
    let refuse = |reason: String| OpenError::Directory {
        dir: found.path.clone(),
        reason,
    };
    let mut header = None;
    for at in header_places(found.len) {
        let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
        Salvage(file.as_ref()).read(at, &mut block);
        match SegmentHeader::decode(&block) {
            Ok(decoded) => {
                header = Some(decoded);
                break;
            }
            Err(
                e @ (SegmentError::UnknownVersion(_)
                | SegmentError::UnknownIncompatible(_)
                | SegmentError::UnknownCipher(_)
                | SegmentError::UnknownCompression(_)),
            ) => {
                return Err(refuse(format!(
                    "{e}; written by a newer Forebay? nothing was touched"
                )));
            }
            Err(error) => tracing::warn!(path = %found.path.display(), at, "header: {error}"),
        }
    }
    if let Some(h) = &header
        && h.channel_id != channel_id
    {
        return Err(refuse(
            "belongs to another channel; move it away".to_owned(),
        ));
    }
    let salt = header.as_ref().map(|h| h.salt);
    Ok(File {
        found: found.clone(),
        file,
        header,
        salt,
    })
}

fn header_places(len: u64) -> Vec<u32> {
    let second = len
        .checked_sub(u64::from(SEGMENT_HEADER_BYTES))
        .and_then(|l| u32::try_from(l).ok())
        .filter(|_| !planted(Bug::OneHeader));
    [Some(0), second].into_iter().flatten().collect()
}

impl Salvage<'_> {
    fn read(&mut self, offset: u32, buf: &mut [u8]) {
        let Ok(()) = wal_format::ReadAt::read_at(self, offset, buf);
    }
}

/// Shows every good frame of a file, also those behind damage; what stands behind a torn one was
/// never believed.
pub(super) fn for_each_frame(file: &File, see: impl FnMut(&FrameHeader, &[u8])) {
    walk(file, Lsn(0), see);
}

/// The same with those behind a torn frame: nobody believes them, but their headers tell how far
/// the log was durable, and which numbers it had given, when they were written.
pub(super) fn for_each_header(file: &File, mut see: impl FnMut(&FrameHeader)) {
    let known = match planted(Bug::WatermarkBehindTornUnseen) {
        true => Lsn(0),
        false => Lsn(u64::MAX),
    };
    walk(file, known, |header, _| see(header));
}

fn walk(file: &File, known: Lsn, mut see: impl FnMut(&FrameHeader, &[u8])) {
    if file.salt.is_none() {
        return;
    }
    let end = file.frames_end();
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES.min(end), end, known);
    loop {
        match step(&mut scanner) {
            Step::Frame { header, body, .. } => see(&header, body),
            Step::Corrupt {
                resume: Some(_), ..
            } => {}
            Step::Corrupt { .. } | Step::End { .. } | Step::Torn { .. } => return,
        }
    }
}

/// Whether something that was durable is bad.
pub(super) fn has_damage(file: &File) -> bool {
    let end = file.frames_end();
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES.min(end), end, Lsn(0));
    loop {
        match step(&mut scanner) {
            Step::Frame { .. } => {}
            Step::Corrupt { .. } => return true,
            Step::End { .. } | Step::Torn { .. } => return false,
        }
    }
}
