//! Opening: what the log says, read without writing a byte into what is there.
//!
//! *Algorithm*
//! 1. The newest segment with a good snapshot is the base. A snapshot written at an open counts
//!    only when its Incarnation record follows in an unbroken run of frames: until then the
//!    frames between them are still being copied, and the originals are the truth.
//! 2. Frames behind the snapshot are applied once a later frame's watermark proves them durable.
//!    What is left over when the log ends are the *suspects*, `[W, X)`: valid in the page cache,
//!    perhaps not on the medium (after a failed sync the cache shows what the disk lacks).
//! 3. The caller writes the state at W, the suspects and a new Incarnation into a prepared
//!    segment, syncs, and only then believes them. The old segment ends at W for ever.
//!
//! | row | base snapshot | bad bytes at X | proof behind X | verdict |
//! |---|---|---|---|---|
//! | R1 | newest segment | none (zeros) | - | clean end |
//! | R2 | newest segment | yes | none | torn tail: reported, never cut |
//! | R3 | newest segment | yes | later frame | damage: reported, read on behind it |
//! | R4 | opening snapshot, no Incarnation behind it | - | - | recovery was cut short: older base |
//! | R5 | bad | - | later frame in the segment | damage: older base, replay on through |
//! | R6 | bad | - | none | roll was cut short: older base, segment contributes nothing |
//! | R7 | none good, one segment, no proof | - | - | first open was cut short: fresh channel |
//! | R8 | none good | - | - | refused, nothing touched |
//!
//! *Crash* in recovery: the old segments are untouched, so the next open sees what this one saw.

use std::sync::Arc;

use wal_format::{
    FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind, Identity, Lsn, PutBody, Record,
    SEGMENT_HEADER_BYTES, Scanner, SegmentError, SegmentHeader, SegmentRef, Snapshot, Step,
};

use super::layout::{Found, Listing};
use super::options::OpenError;
use super::reader::Salvage;
use super::segment::Segment;
use super::state::{LogState, Op, is_numbered};
use crate::env::disk::{Disk, DiskFile, WriteBackend};

/// A valid frame that nothing proves durable.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) header: FrameHeader,
    pub(super) body: Vec<u8>,
    end: Lsn,
}

/// A stretch of bad bytes below what was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) why: String,
    pub(super) resume: Option<u32>,
}

/// What lies behind the end of the log, if it is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) nonzero_end: u32,
}

/// The outcome of reading the log.
#[derive(Debug)]
pub(super) struct Recovered {
    /// State at W.
    pub(super) state: LogState,
    /// W itself.
    pub(super) proven: Lsn,
    /// Whole transactions of `[W, X)`.
    pub(super) suspects: Vec<Suspect>,
    /// Segments that stay, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Segment files that nothing refers to any more.
    pub(super) leftovers: Vec<Found>,
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornTail>,
    /// The last segment, and where its last non-zero byte ends.
    pub(super) cut: Option<(Found, u32)>,
}

impl Recovered {
    /// The segment in which the proof ends. Those behind it (recoveries that were cut short) hold
    /// nothing that is believed.
    pub(super) fn last_believed(&self) -> Option<SegmentRef> {
        let number = self.proven.segment();
        let proven = self.segments.iter().find(|s| s.number == number);
        proven
            .or_else(|| self.segments.last())
            .map(Segment::reference)
    }

    /// The directory in which the log lay last, also where only the unproven tail says so.
    pub(super) fn last_identity(&self) -> Identity {
        let identity = |suspect: &Suspect| match Record::decode(suspect.header.kind, &suspect.body)
        {
            Ok(Record::Incarnation(open)) => Some(open.identity),
            _ => None,
        };
        let told = self.suspects.iter().rev().find_map(identity);
        told.unwrap_or(self.state.identity)
    }
}

/// One segment file under examination.
struct File {
    found: Found,
    file: Arc<dyn DiskFile>,
    header: Option<SegmentHeader>,
    salt: Option<u64>,
}

impl File {
    fn frames_end(&self) -> u32 {
        let len = u32::try_from(self.found.len).unwrap_or(u32::MAX);
        match &self.header {
            Some(header) => header.frames_end().min(len),
            None => len,
        }
    }

    fn scanner(&self, begin: u32, end: u32, known: Lsn) -> Scanner<Salvage<'_>> {
        let salt = self.salt.unwrap_or(0);
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

fn step<'a>(scanner: &'a mut Scanner<Salvage<'_>>) -> Step<'a> {
    let Ok(step) = scanner.step();
    step
}

/// A good snapshot frame and where the frames behind it begin.
struct Base {
    header: FrameHeader,
    snapshot: Snapshot,
    behind: u32,
}

/// Reads the log from its newest good snapshot on. Writes nothing.
pub(super) fn read_log(
    disk: &dyn Disk,
    listing: &Listing,
    channel_id: [u8; 16],
) -> Result<Recovered, OpenError> {
    let mut files: Vec<File> = Vec::new();
    let mut older = listing.segments.as_slice();
    while let Some((found, rest)) = older.split_last() {
        older = rest;
        files.insert(0, open_file(disk, found, channel_id)?);
        if let Some(base) = try_base(&files[0]) {
            let mut replay = Replay::new(&base);
            replay.scan(&files, &base)?;
            return Ok(replay.finish(&files, older, &base));
        }
    }
    without_base(files)
}

fn open_file(disk: &dyn Disk, found: &Found, channel_id: [u8; 16]) -> Result<File, OpenError> {
    let file = disk
        .open(&found.path, false, WriteBackend::Pwrite)
        .map_err(|e| OpenError::io("open", &found.path, e))?;
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
        .and_then(|l| u32::try_from(l).ok());
    [Some(0), second].into_iter().flatten().collect()
}

impl Salvage<'_> {
    fn read(&mut self, offset: u32, buf: &mut [u8]) {
        let Ok(()) = wal_format::ReadAt::read_at(self, offset, buf);
    }
}

/// Rows R1 to R6: whether this segment's snapshot may be believed.
fn try_base(file: &File) -> Option<Base> {
    let (header, snapshot, behind) = read_snapshot(file)?;
    if is_opening(&snapshot) && !opening_is_complete(file, &snapshot) {
        tracing::info!(
            segment = file.found.number,
            "an earlier recovery was cut short here; going back to what it read"
        );
        return None;
    }
    Some(Base {
        header,
        snapshot,
        behind,
    })
}

/// A snapshot written at an open names its incarnation before that incarnation is in the list.
pub(super) fn is_opening(snapshot: &Snapshot) -> bool {
    snapshot.incarnations.last().map(|(number, _)| *number) != Some(snapshot.incarnation)
}

fn read_snapshot(file: &File) -> Option<(FrameHeader, Snapshot, u32)> {
    file.salt?;
    let end = file.frames_end();
    if end <= SEGMENT_HEADER_BYTES {
        return None;
    }
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES, end, Lsn(0));
    let Step::Frame { header, body, lsn } = step(&mut scanner) else {
        return None;
    };
    if header.kind != FrameKind::Snapshot || lsn.offset() != SEGMENT_HEADER_BYTES {
        return None;
    }
    let Ok(Record::Snapshot(snapshot)) = Record::decode(header.kind, body) else {
        return None;
    };
    let behind = scanner.offset();
    Some((header, *snapshot, behind))
}

/// Whether an unbroken run of frames leads from the snapshot to the Incarnation record of the open
/// that wrote it. Among the frames between them may be an earlier one, copied.
fn opening_is_complete(file: &File, snapshot: &Snapshot) -> bool {
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES, file.frames_end(), Lsn(0));
    while let Step::Frame { header, body, .. } = step(&mut scanner) {
        if let FrameKind::Incarnation = header.kind
            && let Ok(Record::Incarnation(open)) = Record::decode(header.kind, body)
            && open.incarnation == snapshot.incarnation
        {
            return true;
        }
    }
    false
}

/// Rows R7 and R8.
fn without_base(files: Vec<File>) -> Result<Recovered, OpenError> {
    let proof = files.iter().any(|f| {
        let mut scanner = f.scanner(SEGMENT_HEADER_BYTES, f.frames_end(), Lsn(0));
        f.salt.is_none() || matches!(step(&mut scanner), Step::Corrupt { .. })
    });
    if let Some(file) = files.first()
        && (files.len() > 1 || proof)
    {
        return Err(OpenError::Directory {
            dir: file.found.path.clone(),
            reason: "no segment has a readable snapshot; nothing was touched. `forebay wal \
                     verify` names the damage"
                .into(),
        });
    }
    Ok(Recovered {
        state: LogState::fresh(),
        proven: Lsn(0),
        suspects: Vec::new(),
        segments: Vec::new(),
        leftovers: files.into_iter().map(|f| f.found).collect(),
        damage: Vec::new(),
        torn: None,
        cut: None,
    })
}

/// Applies frames in order, the unproven ones held back.
struct Replay {
    state: LogState,
    proven: Lsn,
    suspects: Vec<Suspect>,
    damage: Vec<Damage>,
    torn: Option<TornTail>,
    seen: Vec<Seen>,
    last_nonzero: u32,
}

/// A segment that was scanned.
struct Seen {
    number: u32,
    first_sequence: u64,
    /// Where its frames end.
    end: u32,
}

impl Replay {
    fn new(base: &Base) -> Self {
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
        }
    }

    fn scan(&mut self, files: &[File], base: &Base) -> Result<(), OpenError> {
        let known = known_durable(files);
        let ends = ends_by_later_openings(files);
        for (index, file) in files.iter().enumerate() {
            let first = if index == 0 {
                base.behind
            } else {
                SEGMENT_HEADER_BYTES
            };
            let number = file.found.number;
            let bound = ends.iter().find(|(n, _)| *n == number).map(|(_, end)| *end);
            let end = bound.unwrap_or_else(|| file.frames_end()).max(first);
            // Behind a known end there is nothing to miss.
            let durable = bound.map_or(known, |end| Lsn::new(number, end));
            let first_sequence = self.next_expected();
            let end = self.scan_segment(file, first, end, durable)?;
            self.seen.push(Seen {
                number,
                first_sequence,
                end,
            });
        }
        Ok(())
    }

    /// Next sequence number with the suspects counted in.
    fn next_expected(&self) -> u64 {
        let behind = |s: &Suspect| s.header.sequence + u64::from(s.header.count);
        self.suspects
            .last()
            .map_or(self.state.next_sequence, behind)
    }

    fn scan_segment(
        &mut self,
        file: &File,
        first: u32,
        end: u32,
        durable: Lsn,
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
                    self.frame(frame, file)?;
                    if sealed {
                        return Ok(behind);
                    }
                }
                Step::Corrupt {
                    offset,
                    why,
                    resume,
                } => {
                    let go_on = resume.is_some();
                    self.bad(file, offset, &why, resume);
                    if !go_on {
                        return Ok(end);
                    }
                }
                Step::End { offset } => {
                    self.last_nonzero = offset;
                    return Ok(offset);
                }
                Step::Torn {
                    offset,
                    nonzero_end,
                } => {
                    self.last_nonzero = nonzero_end;
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

    fn bad(&mut self, file: &File, offset: u32, why: &FrameError, resume: Option<u32>) {
        self.damage.push(Damage {
            segment: file.found.number,
            offset,
            why: why.to_string(),
            resume,
        });
    }

    fn frame(&mut self, frame: Suspect, file: &File) -> Result<(), OpenError> {
        self.proven = self.proven.max(frame.header.watermark);
        self.promote(file)?;
        self.suspects.push(frame);
        Ok(())
    }

    /// Applies the suspects that the watermark has passed.
    fn promote(&mut self, file: &File) -> Result<(), OpenError> {
        let proven = self.proven;
        let count = self.suspects.iter().take_while(|s| s.end <= proven).count();
        for frame in self.suspects.drain(..count).collect::<Vec<_>>() {
            apply(&mut self.state, &frame).map_err(|reason| OpenError::Directory {
                dir: file.found.path.clone(),
                reason: format!("{reason}; nothing was touched"),
            })?;
        }
        Ok(())
    }

    fn finish(mut self, files: &[File], older: &[Found], base: &Base) -> Recovered {
        if let Some(first) = self.suspects.first() {
            // Whatever is missing in front of the first suspect lay below the proof.
            pass_hole(&mut self.state, &first.header);
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
            suspects: whole_transactions(self.suspects, &self.state),
            state: self.state,
            proven: self.proven,
            segments,
            leftovers,
            damage: self.damage,
            torn: self.torn,
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
        end: reference.end,
        hot: None,
        covered: 0,
        dead_since: None,
    }
}

/// The highest watermark of any valid frame behind the base segment.
fn known_durable(files: &[File]) -> Lsn {
    let mut known = Lsn(0);
    for file in files.iter().skip(1) {
        for_each_frame(file, |header, _| known = known.max(header.watermark));
    }
    known
}

/// Where later opens have said that the log before them ends; segments between the one they name
/// and their own hold nothing that they believed.
fn ends_by_later_openings(files: &[File]) -> Vec<(u32, u32)> {
    let mut ends = Vec::new();
    for file in files.iter().skip(1) {
        for_each_frame(file, |header, body| {
            if header.kind == FrameKind::Incarnation
                && let Ok(Record::Incarnation(open)) = Record::decode(header.kind, body)
                && let Some(previous) = open.previous
            {
                ends.push((previous.segment, previous.end));
                let skipped = previous.segment.saturating_add(1)..file.found.number;
                ends.extend(skipped.map(|number| (number, SEGMENT_HEADER_BYTES)));
            }
        });
    }
    ends
}

fn for_each_frame(file: &File, mut see: impl FnMut(&FrameHeader, &[u8])) {
    if file.salt.is_none() {
        return;
    }
    let end = file.frames_end();
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES.min(end), end, Lsn(0));
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

/// What of the suspects has to be copied: whole transactions in sequence, without repeats (an
/// earlier open may have copied them already) and without records that only prove or describe.
fn whole_transactions(suspects: Vec<Suspect>, state: &LogState) -> Vec<Suspect> {
    let (mut sequence, mut control) = (state.next_sequence, state.next_control);
    let (mut whole, mut open) = (Vec::new(), Vec::new());
    for suspect in suspects {
        let header = &suspect.header;
        if header.kind == FrameKind::Put {
            if header.sequence < sequence {
                continue;
            }
            if header.sequence != sequence || header.control != control {
                break;
            }
            sequence += u64::from(header.count);
            let last = header.last_of_transaction;
            open.push(suspect);
            if last {
                whole.append(&mut open);
            }
            continue;
        }
        if !is_numbered_kind(header.kind) || header.control < control {
            continue;
        }
        if header.control > control || !open.is_empty() {
            break;
        }
        control += 1;
        whole.push(suspect);
    }
    whole
}

fn is_numbered_kind(kind: FrameKind) -> bool {
    !matches!(
        kind,
        FrameKind::Watermark | FrameKind::Snapshot | FrameKind::SegmentSeal
    )
}

/// Numbers are dense: those missing in front of a frame were lost to damage, and stay given.
fn pass_hole(state: &mut LogState, header: &FrameHeader) {
    if header.control > state.next_control {
        state.control_lost = true;
        state.next_control = header.control;
    }
    if header.sequence > state.next_sequence {
        state.lost.insert(state.next_sequence, header.sequence - 1);
        state.next_sequence = header.sequence;
    }
}

/// Applies a proven frame; a repeat (copied forward by an earlier open) changes nothing.
fn apply(state: &mut LogState, frame: &Suspect) -> Result<(), String> {
    let header = &frame.header;
    pass_hole(state, header);
    if header.kind == FrameKind::Put {
        let repeated = header.sequence < state.next_sequence;
        if !repeated {
            state.apply(put_op(frame)?);
        }
        return Ok(());
    }
    let record = Record::decode(header.kind, &frame.body)
        .map_err(|e| format!("a {:?} record is not readable ({e})", header.kind))?;
    let repeated = is_numbered(&record) && header.control < state.next_control;
    if !repeated {
        state.apply(Op::Record(record));
    }
    Ok(())
}

/// The operation of a put frame.
pub(super) fn put_op(frame: &Suspect) -> Result<Op, String> {
    let bad = |e: wal_format::BodyError| format!("a put frame is not readable ({e})");
    let body = PutBody::parse(&frame.body, frame.header.count).map_err(bad)?;
    let mut positions = Vec::new();
    for position in body.positions() {
        let (key, value) = position.map_err(bad)?;
        positions.push((key.to_vec(), value.to_vec()));
    }
    let (first, count) = (frame.header.sequence, u64::from(frame.header.count));
    Ok(Op::Put {
        first,
        count,
        positions,
    })
}

/// Header room, body and padding, ready to be written again.
pub(super) fn rebuild(frame: &Suspect) -> wal_format::EncodedPut {
    let mut buffer = vec![0; wal_format::frame_bytes(frame.body.len())];
    buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + frame.body.len()].copy_from_slice(&frame.body);
    wal_format::EncodedPut {
        buffer,
        body_len: frame.header.body_len,
        body_crc: frame.header.body_crc,
        count: frame.header.count,
    }
}
