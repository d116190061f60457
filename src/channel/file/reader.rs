//! Reads events back: hot segments through the map without a copy, cold ones by pread.
//!
//! *Invariants*: only bytes below the durable end are read; every frame's sums are checked again
//! at take. A bad frame is reported and skipped to the next good one, its events are lost by
//! name (INV-9); a sector that cannot be read counts as bad bytes, not as a signal.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use wal_format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, PutBody, ReadAt, Scanner, Step, frame_bytes,
};

use super::Core;
use super::segment::{Segment, open_cold};
use crate::channel::{ChannelError, TakenBatch, TakenEvent, queue::ReadHint};
use crate::env::disk::DiskFile;
use crate::event::{Event, Headers, Seq, SeqRange};
use crate::planted::{Bug, planted};

/// Bytes read at once from a cold segment.
const WINDOW_BYTES: usize = 256 << 10;

/// A piece of a segment in memory, kept with a lease from take to take.
#[derive(Clone, Debug)]
pub(super) struct Window {
    segment: u32,
    offset: u32,
    bytes: Bytes,
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset: u32,
    /// Sequence number wanted next.
    want: u64,
}

/// What a read brought, and where the next one goes on.
#[derive(Debug)]
pub(super) struct ReadResult {
    pub(super) batch: TakenBatch,
    pub(super) through: Option<Seq>,
    pub(super) hint: Option<ReadHint>,
}

/// One take's worth of reading.
struct Reading<'a> {
    core: &'a Core,
    window: &'a mut Option<Window>,
    cold: Option<(u32, Arc<dyn DiskFile>)>,
    batch: TakenBatch,
    bytes: usize,
    /// How often a frame was bad at first and good at the second look.
    passing: u32,
}

/// Passing errors of reading in one take; a medium that has more is not to be asked again at once.
const PASSING_MAX: u32 = 8;

impl Core {
    /// Reads the events of `range` from `hint` on, until about `max_bytes` of bodies.
    pub(super) fn read(
        &self,
        range: SeqRange,
        hint: Option<ReadHint>,
        max_bytes: usize,
        window: &mut Option<Window>,
    ) -> Result<ReadResult, ChannelError> {
        let mut place = match hint {
            Some(h) => Place {
                segment: h.segment,
                offset: h.offset,
                want: range.first.0,
            },
            None => self.find(range.first.0)?,
        };
        let mut reading = Reading {
            core: self,
            window,
            cold: None,
            batch: TakenBatch::default(),
            bytes: 0,
            passing: 0,
        };
        while place.want <= range.last.0
            && (reading.bytes < max_bytes || place.want == range.first.0)
        {
            let next = reading.step(place, range, max_bytes)?;
            if next == place {
                reading.stands_still(place)?;
            }
            place = next;
        }
        let through = (place.want > range.first.0).then(|| Seq(place.want - 1));
        let hint = ReadHint {
            segment: place.segment,
            offset: place.offset,
            skip: 0,
        };
        Ok(ReadResult {
            batch: reading.batch,
            through,
            hint: Some(hint),
        })
    }

    /// Where to look for an event. Where its segment is missing at the front of the log, that is
    /// the first one there is: what stood before it was lost.
    fn find(&self, sequence: u64) -> Result<Place, ChannelError> {
        let table = self.table();
        let holding = table.holding(sequence);
        let segment = holding.or_else(|| table.segments.first().cloned());
        let segment = segment.ok_or_else(|| ChannelError::Refused {
            channel: self.name.clone(),
            reason: format!("event {sequence} is in no segment"),
        })?;
        Ok(Place {
            segment: segment.number,
            offset: wal_format::SEGMENT_HEADER_BYTES,
            want: sequence,
        })
    }
}

impl Core {
    /// Whether no segment that held events of `range` has been deleted. Damage does not count.
    pub(super) fn holds(&self, range: SeqRange) -> bool {
        let segments = self.table().segments.clone();
        let from = segments.partition_point(|s| s.first_sequence <= range.first.0);
        let Some(from) = from.checked_sub(1) else {
            return false;
        };
        // A number that is missing was a segment with events, or a prepared one that was dropped:
        // the segment before tells which.
        segments[from..]
            .windows(2)
            .take_while(|pair| pair[0].first_sequence <= range.last.0)
            .filter(|pair| pair[1].number != pair[0].number + 1)
            .all(|pair| self.end_sequence(&pair[0]) >= pair[1].first_sequence)
    }

    /// First sequence number behind the frames of a segment, by reading it.
    fn end_sequence(&self, segment: &Segment) -> u64 {
        let mut end = segment.first_sequence;
        let Ok(file) = open_cold(self.disk.as_ref(), segment) else {
            return end;
        };
        let mut scanner = Scanner::new(
            Salvage(file.as_ref()),
            segment.number,
            segment.salt,
            wal_format::SEGMENT_HEADER_BYTES,
            segment.end,
            Lsn::new(segment.number, segment.end),
        );
        loop {
            let Ok(step) = scanner.step();
            match step {
                Step::Frame { header, .. } => {
                    end = end.max(header.sequence.saturating_add(header.count.into()));
                }
                Step::Corrupt {
                    resume: Some(_), ..
                } => {}
                Step::Corrupt { .. } | Step::End { .. } | Step::Torn { .. } => return end,
            }
        }
    }
}

impl Reading<'_> {
    /// Handles one frame; returns where to go on.
    fn step(
        &mut self,
        place: Place,
        range: SeqRange,
        max_bytes: usize,
    ) -> Result<Place, ChannelError> {
        let (segment, after) = {
            // At one moment: a segment that another one follows grows no more.
            let table = self.core.table();
            (table.by_number(place.segment), table.after(place.segment))
        };
        let Some(segment) = segment.filter(|segment| place.offset < segment.end) else {
            return Ok(self.continue_behind(after, place, range));
        };
        let found = self.frame(&segment, place.offset)?;
        let Some((header, body)) = found else {
            return self.damaged(place, &segment);
        };
        let next = place.offset + aligned(header.body_len);
        // Numbers of a later segment, by a writer that was wrong, are neither events nor a hole.
        let bound = after.map_or(u64::MAX, |after| after.first_sequence);
        let end = header.sequence.saturating_add(header.count.into());
        let end = end.min(bound);
        if header.kind != FrameKind::Put || end <= place.want || bound <= header.sequence {
            return Ok(Place {
                offset: next,
                ..place
            });
        }
        let mut want = place.want;
        if header.sequence > want {
            // A hole in front of this frame: what is missing was lost.
            self.lost(want, header.sequence - 1, range);
            want = header.sequence;
            if want > range.last.0 {
                return Ok(Place {
                    want: range.last.0 + 1,
                    ..place
                });
            }
        }
        let want = self.deliver(
            &segment,
            place.offset,
            &header,
            &body,
            want..end.min(range.last.0 + 1),
            max_bytes,
        )?;
        let offset = if want >= end { next } else { place.offset };
        Ok(Place {
            segment: place.segment,
            offset,
            want,
        })
    }

    fn deliver(
        &mut self,
        segment: &Segment,
        offset: u32,
        header: &FrameHeader,
        body: &Bytes,
        wanted: Range<u64>,
        max_bytes: usize,
    ) -> Result<u64, ChannelError> {
        let bad = |why: wal_format::BodyError| ChannelError::Read {
            channel: self.core.name.clone(),
            segment: segment.number,
            offset,
            reason: format!("the frame's sums are right but its body is not: {why}"),
        };
        let parsed = PutBody::parse(body, header.count).map_err(bad)?;
        let mut next = wanted.start;
        let end = header.sequence.saturating_add(header.count.into());
        let mut events = parsed.events();
        for sequence in header.sequence..end {
            if sequence >= wanted.end || (self.bytes >= max_bytes && !self.batch.is_empty()) {
                break;
            }
            // Also of an event that is not wanted: nothing behind a bad one can be told apart.
            let Some(event) = events.next().transpose().map_err(bad)? else {
                break;
            };
            if sequence + 1 == end {
                // Bytes that are left over come as an error behind the last event. The frame is
                // bad, whether or not more than it holds is wanted.
                events.next().transpose().map_err(bad)?;
            }
            if sequence < wanted.start {
                continue;
            }
            let mut headers = Headers::new();
            for (name, value) in event.headers() {
                headers.set(name, value);
            }
            let at = event.body_offset;
            self.bytes += event.body.len() + 1;
            self.batch.events.push(TakenEvent {
                seq: Seq(sequence),
                event: Event {
                    headers,
                    body: body.slice(at..at + event.body.len()),
                    put_time_ms: header.put_time_ms,
                },
            });
            next = sequence + 1;
        }
        Ok(next)
    }

    /// The frame at `offset`, or `None` where its sums are wrong.
    fn frame(
        &mut self,
        segment: &Segment,
        offset: u32,
    ) -> Result<Option<(FrameHeader, Bytes)>, ChannelError> {
        let head = self.bytes_at(segment, offset, FRAME_HEADER_BYTES)?;
        let Some(head) = head else { return Ok(None) };
        let max = segment.end - offset;
        let lsn = Lsn::new(segment.number, offset);
        let Ok(header) = FrameHeader::decode(&head, segment.salt, lsn, max) else {
            return Ok(None);
        };
        let whole = FRAME_HEADER_BYTES + header.body_len as usize;
        let Some(bytes) = self.bytes_at(segment, offset, whole)? else {
            return Ok(None);
        };
        let body = bytes.slice(FRAME_HEADER_BYTES..whole);
        let right = header.check_body(&body).is_ok() || planted(Bug::NoSumsAtTake);
        Ok(right.then_some((header, body)))
    }

    /// `len` bytes at `offset`, from the window or by moving it; `None` where they lie beyond
    /// the believed end or cannot be read.
    fn bytes_at(
        &mut self,
        segment: &Segment,
        offset: u32,
        len: usize,
    ) -> Result<Option<Bytes>, ChannelError> {
        if offset as usize + len > segment.end as usize {
            return Ok(None);
        }
        if let Some(w) = self.window.as_ref()
            && w.segment == segment.number
            && w.offset <= offset
            && (offset - w.offset) as usize + len <= w.bytes.len()
        {
            let at = (offset - w.offset) as usize;
            return Ok(Some(w.bytes.slice(at..at + len)));
        }
        let want = len.max(WINDOW_BYTES).min((segment.end - offset) as usize);
        let Some(bytes) = self.load(segment, offset, want, len)? else {
            return Ok(None);
        };
        let part = bytes.slice(..len);
        *self.window = Some(Window {
            segment: segment.number,
            offset,
            bytes,
        });
        Ok(Some(part))
    }

    fn load(
        &mut self,
        segment: &Segment,
        offset: u32,
        want: usize,
        need: usize,
    ) -> Result<Option<Bytes>, ChannelError> {
        if let Some(hot) = &segment.hot
            && let Some(slice) = hot.slice(u64::from(offset), want)
        {
            return Ok(Some(slice));
        }
        let file = self.open(segment)?;
        for size in [want, need] {
            let mut buffer = vec![0; size];
            match file.read_at(u64::from(offset), &mut buffer) {
                Ok(()) => return Ok(Some(Bytes::from(buffer))),
                Err(error) => tracing::warn!(
                    channel = %self.core.name, segment = segment.number, offset,
                    "cannot read {size} bytes: {error}"
                ),
            }
        }
        Ok(None)
    }

    fn open(&mut self, segment: &Segment) -> Result<Arc<dyn DiskFile>, ChannelError> {
        if let Some((number, file)) = &self.cold
            && *number == segment.number
        {
            return Ok(Arc::clone(file));
        }
        if let Some(hot) = &segment.hot {
            return Ok(Arc::clone(hot));
        }
        let file = open_cold(self.core.disk.as_ref(), segment).map_err(|e| ChannelError::Read {
            channel: self.core.name.clone(),
            segment: segment.number,
            offset: 0,
            reason: e.to_string(),
        })?;
        self.cold = Some((segment.number, Arc::clone(&file)));
        Ok(file)
    }

    /// A hole of the numbers, which begins in `range` and may end behind it: the queue hears of
    /// all of it, so that the takes to come step over it at once, however long it is.
    fn lost(&mut self, first: u64, last: u64, range: SeqRange) {
        if planted(Bug::ReaderHoleSilent) {
            return;
        }
        let Some(hole) = SeqRange::new(Seq(first), Seq(last)) else {
            return;
        };
        tracing::error!(
            channel = %self.core.name,
            "events {first} to {last} are lost to damage of the log; `forebay wal verify` names it"
        );
        self.core.queue().add_lost(hole);
        let part = SeqRange::new(hole.first, hole.last.min(range.last));
        self.batch.lost.extend(part);
    }

    /// Goes on in the segment that follows; what is missing between the two was lost.
    fn continue_behind(&mut self, after: Option<Segment>, place: Place, range: SeqRange) -> Place {
        // Nothing follows although the events are durable: damage has reached the end.
        let first = after
            .as_ref()
            .map_or(range.last.0 + 1, |a| a.first_sequence);
        let mut want = place.want;
        if first > want {
            self.lost(want, first - 1, range);
            want = first.min(range.last.0 + 1);
        }
        match after {
            Some(after) => Place {
                segment: after.number,
                offset: wal_format::SEGMENT_HEADER_BYTES,
                want,
            },
            None => Place { want, ..place },
        }
    }

    /// A bad frame below the durable end: finds the next good one and names the damage.
    fn damaged(&mut self, place: Place, segment: &Segment) -> Result<Place, ChannelError> {
        let file = self.open(segment)?;
        let durable = Lsn::new(segment.number, segment.end);
        let mut scanner = Scanner::new(
            Salvage(file.as_ref()),
            segment.number,
            segment.salt,
            place.offset,
            segment.end,
            durable,
        );
        let Ok(step) = scanner.step();
        // It holds what was read wrong.
        *self.window = None;
        let (why, resume) = match step {
            Step::Frame { .. } => return Ok(place),
            Step::Corrupt { why, resume, .. } => (why.to_string(), resume),
            Step::End { .. } | Step::Torn { .. } => ("no frame".to_owned(), None),
        };
        tracing::error!(
            channel = %self.core.name, segment = segment.number, offset = place.offset,
            resume = resume.unwrap_or(segment.end),
            "damaged frame ({why}), at or behind event {}", place.want
        );
        Ok(Place {
            offset: resume.unwrap_or(segment.end),
            ..place
        })
    }

    /// A step that led nowhere: a passing error at most. Not to be repeated for ever.
    fn stands_still(&mut self, place: Place) -> Result<(), ChannelError> {
        self.passing += 1;
        if self.passing <= PASSING_MAX {
            return Ok(());
        }
        Err(ChannelError::Read {
            channel: self.core.name.clone(),
            segment: place.segment,
            offset: place.offset,
            reason: format!(
                "{} reads of one take brought bad bytes at first and good ones at the second look; \
                 nothing is lost, the take is to be repeated. Look after the disk and the memory",
                self.passing
            ),
        })
    }
}

/// Length of a frame on disk.
fn aligned(body_len: u32) -> u32 {
    u32::try_from(frame_bytes(body_len as usize)).unwrap_or(u32::MAX)
}

/// Reads that never fail: a sector that cannot be read is filled with bytes that no frame holds,
/// so that the scan goes on behind it.
pub(super) struct Salvage<'a>(pub(super) &'a dyn DiskFile);

/// The smallest unit of a medium; where the system reads by pages, its neighbours fail with it.
const SECTOR: usize = 512;

impl ReadAt for Salvage<'_> {
    type Error = std::convert::Infallible;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Self::Error> {
        if self.0.read_at(u64::from(offset), buf).is_ok() {
            return Ok(());
        }
        // By the blocks of the file, so that a bad one costs no byte beside it.
        let (mut at, mut rest) = (u64::from(offset), buf);
        while !rest.is_empty() {
            let left = SECTOR - usize::try_from(at).unwrap_or(0) % SECTOR;
            let (sector, behind) = rest.split_at_mut(left.min(rest.len()));
            self.read_sector(at, sector);
            at += sector.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

impl Salvage<'_> {
    fn read_sector(&self, at: u64, sector: &mut [u8]) {
        // The unused end of a segment may be cut off.
        let have = usize::try_from(self.0.len().saturating_sub(at)).unwrap_or(usize::MAX);
        let (there, cut) = sector.split_at_mut(have.min(sector.len()));
        cut.fill(0);
        if !there.is_empty() && self.0.read_at(at, there).is_err() {
            there.fill(match planted(Bug::UnreadableAsZeros) {
                true => 0,
                false => 0xff,
            });
        }
    }
}
