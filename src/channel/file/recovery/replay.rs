//! The frames behind the base in order: applied when something proves them, else held back.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use wal_format::{FrameHeader, FrameKind, Lsn, Record, SEGMENT_HEADER_BYTES, SegmentRef, Step};

use super::base::{Base, begins_by_roll, incarnation_of};
use super::frames::{apply, pass_hole, pass_hole_to};
use super::rules::broken_by;
use super::scanned::{File, for_each_frame, for_each_header, step};
use super::tail::Tail;
use super::{Damage, Recovered, Suspect, TornTail};
use crate::channel::file::layout::Found;
use crate::channel::file::options::OpenError;
use crate::channel::file::segment::Segment;
use crate::channel::file::state::LogState;
use crate::planted::{Bug, planted};

/// Applies frames in order, the unproven ones held back.
pub(super) struct Replay {
    state: LogState,
    proven: Lsn,
    suspects: Vec<Suspect>,
    damage: Vec<Damage>,
    torn: Option<TornTail>,
    seen: Vec<Seen>,
    last_nonzero: u32,
    /// Control records that are missing were written before this event.
    hidden_below: u64,
    /// Bad bytes that no frame follows so far.
    open_end: bool,
    /// What was durable up to here has lost its end so far: which numbers it had given, no frame
    /// that counts tells.
    lost_end: Option<Lsn>,
    /// What the headers of all frames tell, see [`Marks`].
    told: (u64, u64),
}

/// A segment that was scanned.
struct Seen {
    number: u32,
    first_sequence: u64,
    /// Where its frames end.
    end: u32,
}

impl Replay {
    pub(super) fn new(base: &Base) -> Self {
        Self {
            state: LogState::from_snapshot(
                base.header.sequence,
                base.header.control,
                &base.snapshot,
            ),
            proven: base.header.watermark,
            suspects: Vec::new(),
            damage: Vec::new(),
            torn: None,
            seen: Vec::new(),
            last_nonzero: SEGMENT_HEADER_BYTES,
            hidden_below: match base.snapshot.control_lost {
                true => base.header.sequence,
                false => 0,
            },
            open_end: false,
            lost_end: None,
            told: (0, 0),
        }
    }

    pub(super) fn scan(&mut self, files: &[File], base: &Base) -> Result<(), OpenError> {
        let marks = Marks::of(files);
        self.told = marks.told;
        let ends = ends_by_later_openings(files);
        let end_of = |number: u32| ends.iter().find(|(n, _)| *n == number).map(|(_, end)| *end);
        let mut unknown_open = false;
        for (index, file) in files.iter().enumerate() {
            let first = if index == 0 {
                base.behind
            } else {
                SEGMENT_HEADER_BYTES
            };
            let number = file.found.number;
            let proven = marks.highest().segment() >= number;
            if unknown_open && proven && !planted(Bug::TailNotSettled) {
                self.settle();
            }
            let bound = end_of(number);
            unknown_open = bound.is_none() && may_end_by_an_open(files, index);
            let file_end = file.frames_end();
            let end = bound.map_or(file_end, |end| end.min(file_end)).max(first);
            let durable = match bound {
                // Behind a known end there is nothing to miss.
                Some(end) => Lsn::new(number, end),
                None if unknown_open => marks.highest_in(number),
                None => marks.highest(),
            };
            let first_sequence = self.next_expected();
            let went_on = unknown_open && marks.highest().segment() > number;
            let end = self.scan_segment(file, first..end, durable, went_on)?;
            self.seen.push(Seen {
                number,
                first_sequence,
                end,
            });
        }
        if let (Some(durable), Some(last)) = (self.lost_end, files.last()) {
            // No frame that counts says so.
            self.proven = self.proven.max(durable);
            self.promote(last)?;
        }
        Ok(())
    }

    /// Before an open whose records are damaged: of the tail in front of it that open has believed
    /// the whole transactions, once each, whatever of its own frames proves now.
    fn settle(&mut self) {
        let ends = |suspects: &[Suspect], number: u32| {
            let ends = suspects.iter().map(|s| s.end);
            ends.filter(|end| end.segment() == number).max()
        };
        let before = std::mem::take(&mut self.suspects);
        let lasts: Vec<_> = self.seen.iter().map(|s| ends(&before, s.number)).collect();
        self.suspects = Tail::new(before, &self.state).whole_transactions();
        for (seen, last) in self.seen.iter_mut().zip(lasts) {
            let kept = ends(&self.suspects, seen.number);
            if kept != last {
                let begin = Lsn::new(seen.number, SEGMENT_HEADER_BYTES);
                let end = kept.unwrap_or(begin).max(begin);
                let proven = self.proven.min(Lsn::new(seen.number, seen.end));
                seen.end = end.max(proven).offset();
            }
        }
    }

    /// Next sequence number with the suspects counted in. It never falls, also where the snapshot
    /// behind a tail was written before that tail was copied.
    fn next_expected(&self) -> u64 {
        let behind = |s: &Suspect| s.header.sequence + u64::from(s.header.count);
        let suspects = self.suspects.iter().map(behind);
        suspects.fold(self.state.next_sequence, u64::max)
    }

    /// `went_on`: durably, behind an end of this segment that nothing tells; bad bytes there may be
    /// rot as well.
    fn scan_segment(
        &mut self,
        file: &File,
        Range { start: first, end }: Range<u32>,
        durable: Lsn,
        went_on: bool,
    ) -> Result<u32, OpenError> {
        let mut scanner = file.scanner(first, end, durable);
        self.last_nonzero = first;
        loop {
            match step(&mut scanner) {
                Step::Frame { lsn, header, body } => {
                    let whole = wal_format::frame_bytes(body.len());
                    let behind = lsn.offset() + u32::try_from(whole).unwrap_or(0);
                    self.last_nonzero = behind;
                    let frame = Suspect {
                        header,
                        body: body.to_vec(),
                        end: Lsn::new(lsn.segment(), behind),
                    };
                    let sealed = frame.header.kind == FrameKind::SegmentSeal;
                    if self.is_believable(&frame, lsn, file)? {
                        self.frame(frame, file)?;
                    }
                    if sealed {
                        return Ok(behind);
                    }
                }
                Step::Corrupt {
                    offset,
                    why,
                    resume,
                } => {
                    let go_on = resume.is_some() && !planted(Bug::CutAtFirstBad);
                    self.bad(file, offset, &why, resume);
                    if resume.is_none() {
                        self.lost_end = Some(durable).max(self.lost_end);
                    }
                    if !go_on {
                        return Ok(end);
                    }
                }
                Step::End { offset } => {
                    self.last_nonzero = offset;
                    let lost = durable > Lsn::new(file.found.number, offset);
                    if lost && !went_on && !planted(Bug::CutEndSilent) {
                        let why =
                            format_args!("its frames end here, and were durable to {durable}");
                        self.bad(file, offset, &why, None);
                        self.lost_end = Some(durable).max(self.lost_end);
                        return Ok(offset);
                    }
                    self.lost_end = went_on.then_some(durable).max(self.lost_end);
                    return Ok(offset);
                }
                Step::Torn { offset, .. } if went_on => {
                    let why = "torn, or damaged like the records of the open behind it";
                    self.bad(file, offset, &why, None);
                    self.lost_end = Some(durable).max(self.lost_end);
                    return Ok(offset);
                }
                Step::Torn {
                    offset,
                    nonzero_end,
                } => {
                    self.last_nonzero = nonzero_end;
                    self.open_end = true;
                    self.torn = Some(TornTail {
                        segment: file.found.number,
                        offset,
                        nonzero_end,
                    });
                    return Ok(offset);
                }
            }
        }
    }

    fn bad(&mut self, file: &File, offset: u32, why: &dyn Display, resume: Option<u32>) {
        self.open_end = resume.is_none();
        self.damage.push(Damage {
            segment: file.found.number,
            offset,
            why: why.to_string(),
            resume,
        });
    }

    /// A frame that no channel writes: a snapshot is named as damage and passed over with all that
    /// its header says, as it has no number of its own; anything else refuses.
    fn is_believable(&mut self, frame: &Suspect, lsn: Lsn, file: &File) -> Result<bool, OpenError> {
        let header = &frame.header;
        let record = match header.kind {
            FrameKind::Put => None,
            kind => Record::decode(kind, &frame.body).ok(),
        };
        let Some(why) = broken_by(header, record.as_ref()) else {
            return Ok(true);
        };
        if header.kind == FrameKind::Snapshot && header.sequence < self.next_expected() + 1 {
            self.damage.push(Damage {
                segment: file.found.number,
                offset: lsn.offset(),
                why: format!("a snapshot whose sums are right, but {why}"),
                resume: Some(frame.end.offset()),
            });
            return Ok(false);
        }
        Err(OpenError::Directory {
            dir: file.found.path.clone(),
            reason: format!(
                "a {:?} record at {} has right sums, but {why}; nothing was touched",
                header.kind,
                lsn.offset()
            ),
        })
    }

    fn frame(&mut self, frame: Suspect, file: &File) -> Result<(), OpenError> {
        // Its control number tells whether records are missing in front of it.
        (self.open_end, self.lost_end) = (false, None);
        self.proven = self.proven.max(frame.header.watermark);
        if planted(Bug::BelieveSuspects) {
            self.suspects.push(frame);
            self.proven = self.suspects.last().map_or(self.proven, |s| s.end);
            return self.promote(file);
        }
        self.promote(file)?;
        self.suspects.push(frame);
        Ok(())
    }

    /// Applies the suspects that the watermark has passed.
    fn promote(&mut self, file: &File) -> Result<(), OpenError> {
        let proven = self.proven;
        let count = self.suspects.iter().take_while(|s| s.end <= proven).count();
        for frame in self.suspects.drain(..count).collect::<Vec<_>>() {
            self.note_hidden(&frame.header);
            apply(&mut self.state, &frame).map_err(|reason| OpenError::Directory {
                dir: file.found.path.clone(),
                reason: format!("{reason}; nothing was touched"),
            })?;
        }
        Ok(())
    }

    /// To be told of each frame before it is applied.
    fn note_hidden(&mut self, header: &FrameHeader) {
        if header.control > self.state.next_control {
            self.hidden_below = self.hidden_below.max(header.sequence);
        }
    }

    pub(super) fn finish(mut self, files: &[File], older: &[Found], base: &Base) -> Recovered {
        if self.lost_end.is_some() && self.suspects.is_empty() && !planted(Bug::LostEndSilent) {
            if self.told.1 > self.state.next_control {
                self.hidden_below = self.hidden_below.max(self.told.0);
            }
            pass_hole_to(&mut self.state, self.told.0, self.told.1);
        }
        let next_expected = self.next_expected();
        let tail = Tail::new(std::mem::take(&mut self.suspects), &self.state);
        if let Some(header) = tail.first()
            && !planted(Bug::NoHoleBeforeTail)
        {
            // Whatever is missing in front of the tail lay below the proof, or has left no copy.
            self.note_hidden(header);
            pass_hole(&mut self.state, header);
        }
        if self.open_end {
            self.hidden_below = next_expected;
        }
        if planted(Bug::SequenceAgain) && next_expected == self.state.cursor {
            (self.state.next_sequence, self.state.cursor) = (1, 1);
        }
        let mut segments = Vec::new();
        let mut leftovers = Vec::new();
        for found in older {
            match base
                .snapshot
                .segments
                .iter()
                .find(|r| r.segment == found.number)
            {
                Some(reference) => segments.push(old_segment(found, reference)),
                None => leftovers.push(found.clone()),
            }
        }
        if self.proven >= Lsn::new(files[0].found.number, base.behind) {
            count_coverage(&mut segments, base);
        }
        for (file, seen) in files.iter().zip(&self.seen) {
            segments.push(self.scanned_segment(file, seen));
        }
        Recovered {
            suspects: tail.whole_transactions(),
            state: self.state,
            proven: self.proven,
            segments,
            leftovers,
            damage: self.damage,
            torn: self.torn,
            hidden_below: self.hidden_below,
            cut: files.last().map(|f| (f.found.clone(), self.last_nonzero)),
        }
    }

    /// A segment from the base on: it ends where its frames end, or where the proof does.
    fn scanned_segment(&self, file: &File, seen: &Seen) -> Segment {
        let end = if self.proven >= Lsn::new(seen.number, seen.end) {
            seen.end
        } else if self.proven.segment() == seen.number {
            self.proven.offset()
        } else {
            SEGMENT_HEADER_BYTES
        };
        let reference = SegmentRef {
            segment: seen.number,
            salt: file.salt.unwrap_or(0),
            // Events that are only suspects will stand in the segment they are copied to.
            first_sequence: seen.first_sequence.min(self.state.next_sequence),
            end,
        };
        old_segment(&file.found, &reference)
    }
}

/// How many durable snapshots up to that of the base saw each segment before it without live
/// events. One that never held an event is seen so by all of them.
fn count_coverage(segments: &mut [Segment], base: &Base) {
    let state = LogState::from_snapshot(base.header.sequence, base.header.control, &base.snapshot);
    let count = segments.len();
    let mut end = base.header.sequence;
    for (index, segment) in segments.iter_mut().enumerate().rev() {
        let first = segment.first_sequence;
        if end <= first {
            segment.covered = u8::try_from(count - index).unwrap_or(u8::MAX);
        } else if state.is_dead(first, end, false) {
            segment.covered = 1;
        }
        end = first;
    }
}

fn old_segment(found: &Found, reference: &SegmentRef) -> Segment {
    Segment {
        number: reference.segment,
        salt: reference.salt,
        path: found.path.clone(),
        len: found.len,
        first_sequence: reference.first_sequence,
        // What a snapshot says of a file that was cut meanwhile.
        end: reference
            .end
            .min(u32::try_from(found.len).unwrap_or(u32::MAX)),
        hot: None,
        was_mapped: false,
        covered: 0,
        dead_since: None,
    }
}

/// The highest watermarks of all valid frames behind the base segment, also of those behind a torn
/// one, by the segment they lie in: their writer knew that much to be durable, whatever became of
/// the frame itself.
struct Marks {
    marks: BTreeMap<u32, Lsn>,
    /// The highest numbers, of events and of control records, that were given before such a frame
    /// or with it.
    told: (u64, u64),
}

impl Marks {
    fn of(files: &[File]) -> Self {
        let (mut marks, mut told) = (BTreeMap::new(), (0, 0));
        if !planted(Bug::RotAsTorn) {
            for file in files.iter().skip(1) {
                for_each_header(file, |header| {
                    let mark = header.watermark;
                    let highest: &mut Lsn = marks.entry(mark.segment()).or_default();
                    *highest = mark.max(*highest);
                    if broken_by(header, None).is_none() {
                        let behind = header.sequence + u64::from(header.count);
                        told = (told.0.max(behind), told.1.max(header.control));
                    }
                });
            }
        }
        Self { marks, told }
    }

    fn highest(&self) -> Lsn {
        self.highest_in(u32::MAX)
    }

    /// The highest one that lies in a segment up to this one.
    fn highest_in(&self, number: u32) -> Lsn {
        let last = self.marks.range(..=number).next_back();
        last.map_or(Lsn(0), |(_, mark)| *mark)
    }
}

/// Whether an open may lie behind a segment whose end nothing tells, because the records of that
/// open are damaged. What the log wrote behind it proves of the segment only what that open has
/// believed: frames behind a tear were left behind for ever, and their numbers were given again.
/// The frame that seals it says nothing: it may stand behind the tear.
fn may_end_by_an_open(files: &[File], index: usize) -> bool {
    let (file, Some(next)) = (&files[index], files.get(index + 1)) else {
        return false;
    };
    let rolled = next.found.number == file.found.number + 1 && begins_by_roll(next);
    !rolled && !planted(Bug::UnknownOpenUnseen)
}

/// Where later opens have said that the log before them ends; segments between the one they name
/// and their own hold nothing that they believed. Records of earlier opens that were copied with
/// the tail say nothing: the segments before the copy are not those before that open.
fn ends_by_later_openings(files: &[File]) -> Vec<(u32, u32)> {
    let mut ends = Vec::new();
    if planted(Bug::NoKnownEnds) {
        return ends;
    }
    for file in files.iter().skip(1) {
        let mut opens: Vec<(u32, SegmentRef)> = Vec::new();
        for_each_frame(file, |header, body| {
            if header.kind == FrameKind::Incarnation
                && let Ok(Record::Incarnation(open)) = Record::decode(header.kind, body)
                && let Some(previous) = open.previous
            {
                opens.push((open.incarnation, previous));
            }
        });
        let own = incarnation_of(file).or_else(|| opens.iter().map(|(number, _)| *number).max());
        let own_only = !planted(Bug::CopiedEndBelieved);
        for (_, previous) in opens.iter().filter(|o| Some(o.0) == own || !own_only) {
            ends.push((previous.segment, previous.end));
            let skipped = previous.segment.saturating_add(1)..file.found.number;
            let files = files.iter().map(|file| file.found.number);
            let there = files.filter(|number| skipped.contains(number));
            ends.extend(there.map(|number| (number, SEGMENT_HEADER_BYTES)));
        }
    }
    ends
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
