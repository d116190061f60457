//! The segments of a channel in memory: where each begins and ends, and which are mapped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use wal_format::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentRef};

use crate::env::disk::{Disk, DiskFile, WriteBackend};

/// One segment of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) salt: u64,
    pub(super) path: PathBuf,
    /// Length of the file on disk.
    pub(super) len: u64,
    /// Sequence number of the first event in it, or of the next event where it holds none.
    pub(super) first_sequence: u64,
    /// Where its believed and durable frames end. Grows only in the active segment.
    pub(super) end: u32,
    /// Open and mapped: the active segment and the one before.
    pub(super) hot: Option<Arc<dyn DiskFile>>,
    /// Written by this process: slices of its map may still be with sinks.
    pub(super) was_mapped: bool,
    /// How many durable snapshots of later segments saw it without live events.
    pub(super) covered: u8,
    /// Since when it holds no live event.
    pub(super) dead_since: Option<Instant>,
}

impl Segment {
    pub(super) fn reference(&self) -> SegmentRef {
        SegmentRef {
            segment: self.number,
            salt: self.salt,
            first_sequence: self.first_sequence,
            end: self.end,
        }
    }
}

/// All segments, by number; the last is the active one.
#[derive(Debug, Default)]
pub(super) struct SegmentTable {
    pub(super) segments: Vec<Segment>,
}

impl SegmentTable {
    /// The segment that holds `sequence`, if its events are still there.
    pub(super) fn holding(&self, sequence: u64) -> Option<Segment> {
        let after = self
            .segments
            .partition_point(|s| s.first_sequence <= sequence);
        // Segments without events share their first sequence with the next one: take the last.
        self.segments.get(after.checked_sub(1)?).cloned()
    }

    pub(super) fn by_number(&self, number: u32) -> Option<Segment> {
        let at = self
            .segments
            .binary_search_by_key(&number, |s| s.number)
            .ok()?;
        self.segments.get(at).cloned()
    }

    /// The first segment behind `number`.
    pub(super) fn after(&self, number: u32) -> Option<Segment> {
        let at = self.segments.partition_point(|s| s.number <= number);
        self.segments.get(at).cloned()
    }

    /// First sequence number behind the segment at `index` (`next` for the last).
    pub(super) fn end_sequence(&self, index: usize, next: u64) -> u64 {
        self.segments
            .get(index + 1)
            .map_or(next, |s| s.first_sequence)
    }

    pub(super) fn active_mut(&mut self) -> Option<&mut Segment> {
        self.segments.last_mut()
    }

    /// Adds the new active segment and cools down all but the one before it.
    pub(super) fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
        let hot_from = self.segments.len().saturating_sub(2);
        for cold in &mut self.segments[..hot_from] {
            if let Some(file) = cold.hot.take() {
                file.unmap();
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }
}

/// Reads the header of a segment, or its second copy where the first is bad.
pub(super) fn read_header(file: &dyn DiskFile) -> Result<SegmentHeader, String> {
    let mut block = vec![0; SEGMENT_HEADER_BYTES as usize];
    let first = match file.read_at(0, &mut block) {
        Ok(()) => SegmentHeader::decode(&block).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    let first = match first {
        Ok(header) => return Ok(header),
        Err(why) => why,
    };
    let Some(at) = file.len().checked_sub(u64::from(SEGMENT_HEADER_BYTES)) else {
        return Err(first);
    };
    match file.read_at(at, &mut block) {
        Ok(()) => SegmentHeader::decode(&block).map_err(|_| first),
        Err(_) => Err(first),
    }
}

/// Opens a segment for reading only.
pub(super) fn open_cold(disk: &dyn Disk, segment: &Segment) -> std::io::Result<Arc<dyn DiskFile>> {
    disk.open(&segment.path, false, WriteBackend::Pwrite)
}
