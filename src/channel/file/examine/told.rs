//! What the segments of a log tell of each other: where the frames of an older one end, and how
//! far the log was durable. Read in front of everything else, so that an end without a seal can
//! be judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wal_format::{
    FrameHeader, Lsn, Record, SEGMENT_HEADER_BYTES, Scanner, SegmentHeader, SegmentRef, Step,
};

use crate::channel::file::layout::{Found, Listing};
use crate::channel::file::reader::Salvage;
use crate::channel::file::recovery::{broken_by, is_opening};
use crate::channel::file::segment::read_header;
use crate::channel::file::still;
use crate::env::disk::{Disk, DiskFile};
use crate::planted::{Bug, planted};

/// What is told of all segments.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Where they end, as the last snapshot or open behind them says.
    ends: BTreeMap<u32, SegmentRef>,
    /// The newest segment that begins with a snapshot, and the segments that this one names.
    newest: Option<(u32, BTreeSet<u32>)>,
    /// The highest watermark.
    durable: Lsn,
    /// The highest watermark that lies in each segment.
    marks: BTreeMap<u32, Lsn>,
    /// Segments that begin with the snapshot of a roll.
    rolled: BTreeSet<u32>,
}

impl Told {
    /// From the newest one on: it tells how one without a header is read, and what it says of older
    /// ones counts.
    pub(super) fn read(disk: &dyn Disk, listing: &Listing) -> Self {
        let mut told = Self::default();
        for found in listing.segments.iter().rev() {
            let known = told.end_of(found.number);
            if let Ok((file, salt, end)) = open_told(disk, found, known) {
                told.segment(file.as_ref(), found.number, salt, end);
            }
        }
        told
    }

    fn segment(&mut self, file: &dyn DiskFile, number: u32, salt: u64, end: u32) {
        let mut ends = BTreeMap::new();
        let mut scanner = scanner(file, number, salt, end, Lsn(0));
        while let Some((lsn, header, record)) = next_record(&mut scanner) {
            let believed = broken_by(&header, record.as_ref()).is_none();
            let mark = self.marks.entry(header.watermark.segment()).or_default();
            *mark = header.watermark.max(*mark);
            let references = match record {
                Some(Record::Snapshot(snapshot)) => {
                    if lsn.offset() == SEGMENT_HEADER_BYTES && believed {
                        let named = snapshot.segments.iter().map(|named| named.segment);
                        self.newest.get_or_insert_with(|| (number, named.collect()));
                        if !is_opening(&snapshot) {
                            self.rolled.insert(number);
                        }
                    }
                    snapshot.segments
                }
                Some(Record::Incarnation(open)) => open.previous.into_iter().collect(),
                _ => Vec::new(),
            };
            let references = references.into_iter().map(|told| (told.segment, told));
            ends.extend(references);
        }
        for (segment, told) in ends {
            self.ends.entry(segment).or_insert(told);
        }
        self.durable = self.durable.max(scanner.proven());
    }

    /// Whether an open may lie behind this segment whose records are damaged: as an open judges it.
    pub(super) fn may_end_by_an_open(&self, number: u32) -> bool {
        let next = number.checked_add(1);
        self.end_is_missing(number, u32::MAX)
            && !next.is_some_and(|next| self.rolled.contains(&next))
    }

    /// How far a segment was durable of which nothing tells the end.
    pub(super) fn durable_in(&self, number: u32) -> Lsn {
        if !self.may_end_by_an_open(number) {
            return self.durable;
        }
        let below = self.marks.range(..=number).next_back();
        below.map_or(Lsn(0), |(_, mark)| *mark)
    }

    pub(super) fn end_of(&self, number: u32) -> Option<SegmentRef> {
        self.ends.get(&number).copied()
    }

    /// Whether a later segment's snapshot knows nothing of this one: an open gave it up for another
    /// one, or it was deleted, and a power cut has brought its name back. The next open removes it.
    pub(super) fn is_left_over(&self, number: u32) -> bool {
        let newest = self.newest.as_ref();
        newest.is_some_and(|(of, named)| number < *of && !named.contains(&number))
    }

    /// Whether the log went on durably behind the end of this segment, which has no seal, and still
    /// nothing tells where its frames end. The first record of the next segment names every one
    /// before it that belongs to the log: where that record is missing and the seal as well, the
    /// file may have been cut between two frames.
    pub(super) fn end_is_missing(&self, number: u32, end: u32) -> bool {
        let told = self.ends.contains_key(&number) || planted(Bug::EndUnasked);
        !told && self.durable > Lsn::new(number, end)
    }
}

/// The highest numbers, of events and of control records, that were given before or with any whole
/// frame behind this segment, also one behind a torn frame, which nobody believes.
pub(super) fn numbers_behind(disk: &dyn Disk, listing: &Listing, segment: u32) -> (u64, u64) {
    let mut told = (0, 0);
    for found in listing.segments.iter().filter(|f| f.number > segment) {
        let Ok((file, header)) = open(disk, found) else {
            continue;
        };
        let end = frames_end(found, &header);
        let all = Lsn(u64::MAX);
        let mut scanner = scanner(file.as_ref(), found.number, header.salt, end, all);
        while let Some((_, header, _)) = next_record(&mut scanner) {
            if broken_by(&header, None).is_none() {
                let behind = header.sequence + u64::from(header.count);
                told = (told.0.max(behind), told.1.max(header.control));
            }
        }
    }
    told
}

/// A file that was cut has no second header; its frames may reach its end.
fn frames_end(found: &Found, header: &SegmentHeader) -> u32 {
    let len = u32::try_from(found.len).unwrap_or(u32::MAX);
    header.frames_end().min(len).max(SEGMENT_HEADER_BYTES)
}

type Opened = (Arc<dyn DiskFile>, SegmentHeader);

fn open(disk: &dyn Disk, found: &Found) -> Result<Opened, String> {
    let file = still::open(disk, found).map_err(|e| e.to_string())?;
    let header = read_header(file.as_ref())?;
    Ok((file, header))
}

/// A segment's file, its salt, and where its frames may end; where both copies of its header are
/// bad, by what a later segment tells.
pub(super) fn open_told(
    disk: &dyn Disk,
    found: &Found,
    told: Option<SegmentRef>,
) -> Result<(Arc<dyn DiskFile>, u64, u32), String> {
    match (open(disk, found), told) {
        (Ok((file, header)), _) => Ok((file, header.salt, frames_end(found, &header))),
        (Err(_), Some(told)) => {
            let file = still::open(disk, found);
            let end = u32::try_from(found.len).unwrap_or(u32::MAX);
            file.map(|file| (file, told.salt, end.max(SEGMENT_HEADER_BYTES)))
                .map_err(|e| e.to_string())
        }
        (Err(why), None) => Err(why),
    }
}

/// Reads frames of a segment from its beginning.
pub(super) fn scanner(
    file: &dyn DiskFile,
    segment: u32,
    salt: u64,
    end: u32,
    known: Lsn,
) -> Scanner<Salvage<'_>> {
    Scanner::new(
        Salvage(file),
        segment,
        salt,
        SEGMENT_HEADER_BYTES,
        end,
        known,
    )
}

/// The next good frame, with its record when it is a control frame.
fn next_record(scanner: &mut Scanner<Salvage<'_>>) -> Option<(Lsn, FrameHeader, Option<Record>)> {
    loop {
        let Ok(step) = scanner.step();
        match step {
            Step::Frame { lsn, header, body } => {
                let record = Record::decode(header.kind, body).ok();
                return Some((lsn, header, record));
            }
            Step::Corrupt {
                resume: Some(_), ..
            } => {}
            Step::Corrupt { .. } | Step::End { .. } | Step::Torn { .. } => return None,
        }
    }
}
