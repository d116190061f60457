//! Rules that recovery does not need, so that no bit of a log rots unseen: both copies of a
//! segment's header, the `channel` file, padding, the zeros behind a seal, what a seal counts.
//!
//! A file that is broken here loses no event by it, but a disk that damages what nobody reads
//! damages more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use wal_format::{
    FRAME_HEADER_BYTES, FrameHeader, Lsn, Record, SEGMENT_HEADER_BYTES, SegmentHeader, frame_bytes,
};

use super::{DamageReport, LogReport};
use crate::channel::file::layout::{self, Found};
use crate::env::disk::{Disk, DiskFile};

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// Damage that costs nothing that was written.
pub(super) fn harmless(found: &Found, offset: u32, why: String) -> DamageReport {
    DamageReport {
        segment: found.number,
        path: found.path.clone(),
        offset,
        why,
        resume: Some(offset),
        lost: None,
        control_lost: false,
    }
}

/// Each directory's `channel` file must name the channel of the segments, and a place among the
/// directories that no other one has: an agent opens nothing else.
pub(super) fn markers(disk: &dyn Disk, dirs: &[PathBuf], report: &mut LogReport) {
    let mut places = BTreeSet::new();
    for dir in dirs {
        let ours = |id: &[u8; 16]| {
            let channel = report.channel_id.as_ref();
            channel.is_none_or(|channel| *channel == layout::hex(id))
        };
        let why = match layout::marked(disk, dir) {
            Ok(Some((id, ..))) if !ours(&id) => format!(
                "the `channel` file names channel {}, the segments another one",
                layout::hex(&id)
            ),
            Ok(Some((_, index, of))) if index >= of || of != dirs.len() => format!(
                "the `channel` file says directory {} of {of}, and {} were given",
                index.saturating_add(1),
                dirs.len()
            ),
            Ok(Some((_, index, _))) if !places.insert(index) => format!(
                "the `channel` file says directory {}, as another one does",
                index.saturating_add(1)
            ),
            Ok(Some(_)) => continue,
            Ok(None) => "the `channel` file is missing".to_owned(),
            Err(error) => error.to_string(),
        };
        report.damage.push(DamageReport {
            segment: 0,
            path: dir.join(layout::MARKER),
            offset: 0,
            why,
            resume: Some(0),
            lost: None,
            control_lost: false,
        });
    }
}

/// One good copy of the header is enough to read on, but a bad copy is damage all the same.
pub(super) fn headers(file: &dyn DiskFile, found: &Found, report: &mut LogReport) {
    let read = |at: u64| {
        let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(at, &mut block).map_err(|e| e.to_string())?;
        SegmentHeader::decode(&block).map_err(|e| e.to_string())
    };
    let last = found.len.saturating_sub(u64::from(SEGMENT_HEADER_BYTES));
    let (first, second) = (read(0), read(last));
    let whole = |h: &SegmentHeader| u64::from(h.size) == found.len;
    // A file whose unused end was cut off has only the first copy.
    let two = first.as_ref().map_or(true, whole);
    if let Ok(header) = first.as_ref().or(second.as_ref()) {
        let id = layout::hex(&header.channel_id);
        let channel = report.channel_id.get_or_insert_with(|| id.clone());
        let why = match (*channel == id, header.segment == found.number) {
            (false, _) => Some(format!("belongs to channel {id}, others to {channel}")),
            (_, false) => Some(format!(
                "holds segment {}, not {}",
                header.segment, found.number
            )),
            _ => None,
        };
        report.damage.extend(why.map(|why| harmless(found, 0, why)));
    }
    let at = u32::try_from(last).unwrap_or(u32::MAX);
    let other = "(its other copy is good, nothing is lost)";
    let (place, why) = match (&first, &second) {
        // A cut file never had a second copy, and without the first nothing tells whether it was.
        (Err(why), Err(_)) => (
            0,
            format!(
                "segment header: {why} (no other copy is readable or there; its frames are read \
                 by what later segments say of it)"
            ),
        ),
        (Err(why), Ok(_)) => (0, format!("segment header: {why} {other}")),
        (Ok(_), Err(why)) if two => (at, format!("second segment header: {why} {other}")),
        (Ok(first), Ok(second)) if first != second && two => {
            (at, "the two copies of the segment header differ".to_owned())
        }
        _ => return,
    };
    let resume = (place == 0).then_some(SEGMENT_HEADER_BYTES);
    report.damage.push(DamageReport {
        resume: resume.or(Some(place)),
        ..harmless(found, place, why)
    });
}

/// A part of a file, read ahead.
pub(super) struct Ahead<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Ahead<'a> {
    pub(super) fn of(file: &'a dyn DiskFile) -> Self {
        Self {
            file,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// Offset of the first byte in [from, to) that is not zero; those beyond the file's end and
    /// those that cannot be read count as zeros: the scan has judged them.
    fn nonzero(&mut self, from: u64, to: u64) -> Option<u64> {
        let to = to.min(self.file.len());
        let mut at = from;
        while at < to {
            let end = self.at + self.bytes.len() as u64;
            if at < self.at || at >= end {
                self.load(at);
                continue;
            }
            let skip = usize::try_from(at - self.at).unwrap_or(usize::MAX);
            let stop = usize::try_from(to.min(end) - self.at).unwrap_or(0);
            let part = self.bytes.get(skip..stop).unwrap_or_default();
            if let Some(place) = part.iter().position(|byte| *byte != 0) {
                return Some(at + place as u64);
            }
            at = to.min(end);
        }
        None
    }

    fn load(&mut self, at: u64) {
        let left = usize::try_from(self.file.len() - at).unwrap_or(PIECE);
        self.at = at;
        for size in [PIECE, FRAME_HEADER_BYTES] {
            self.bytes.resize(size.min(left), 0);
            if self.file.read_at(at, &mut self.bytes).is_ok() {
                return;
            }
        }
        self.bytes.fill(0);
    }

    /// Padding of a frame that is not zero.
    pub(super) fn padding(&mut self, lsn: Lsn, body: usize) -> Option<String> {
        let begin = u64::from(lsn.offset()) + (FRAME_HEADER_BYTES + body) as u64;
        let end = u64::from(lsn.offset()) + frame_bytes(body) as u64;
        let at = self.nonzero(begin, end)?;
        Some(format!(
            "the padding of a frame is not zero at {at} (nothing is lost)"
        ))
    }

    /// Bytes behind a seal that are not zero.
    pub(super) fn behind_seal(&mut self, from: u32, to: u32) -> Option<(u32, String)> {
        let at = self.nonzero(u64::from(from), u64::from(to))?;
        let why = "bytes behind the segment's seal are not zero (nothing is lost)".to_owned();
        Some((u32::try_from(at).unwrap_or(u32::MAX), why))
    }
}

/// What a good frame says that cannot be; `frames` and `next` as counted so far in a segment
/// without damage.
pub(super) fn broken_rule(
    header: &FrameHeader,
    record: Option<&Record>,
    lsn: Lsn,
    frames: Option<u64>,
    next: Option<u64>,
) -> Option<String> {
    if header.watermark > lsn {
        return Some(format!(
            "a watermark ({}) beyond its own frame",
            header.watermark
        ));
    }
    let Some(Record::SegmentSeal {
        frames: counted,
        next_sequence,
    }) = record
    else {
        return None;
    };
    let wrong = frames.is_some_and(|frames| frames != u64::from(*counted))
        || next.is_some_and(|next| next != *next_sequence);
    wrong.then(|| {
        format!("the seal counts {counted} frames and event {next_sequence} next, which is not so")
    })
}
