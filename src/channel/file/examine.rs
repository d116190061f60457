//! Reads a log for people: what is in it, and whether every rule holds. Takes no lock and writes
//! nothing, so it works beside a running agent.
//!
//! A frame that a running agent is writing at this moment may look torn; that is never damage,
//! because damage needs a later frame as proof.

mod check;
mod told;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use wal_format::{
    FrameHeader, FrameKind, Lsn, PutBody, Record, SEGMENT_HEADER_BYTES, Scanner, Step,
};

use self::told::{Told, numbers_behind, open_told, scanner};
use super::layout::Found;
use super::range_set::RangeSet;
use super::reader::Salvage;
use super::state::is_numbered;
use super::still;
use crate::env::disk::Disk;

/// What one segment holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SegmentReport {
    /// Segment number.
    pub segment: u32,
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// Sequence number of the first event in it, or the next one where it holds none.
    pub first_sequence: Option<u64>,
    /// Events in its believed frames.
    pub events: u64,
    /// Frames by kind.
    pub frames: BTreeMap<String, u64>,
    /// Offset at which its frames end.
    pub end: u32,
    /// `sealed`, `open`, `empty`, `unreadable`, or `left over`: no part of the log any more.
    pub state: String,
    /// Bytes behind the end that are not zero (a torn tail).
    pub torn_bytes: u32,
}

/// One stretch of damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamageReport {
    /// Segment number.
    pub segment: u32,
    /// Its file.
    pub path: PathBuf,
    /// Offset of the first bad frame.
    pub offset: u32,
    /// What is wrong.
    pub why: String,
    /// Offset of the next good frame in the segment.
    pub resume: Option<u32>,
    /// First and last sequence number lost, if any were.
    pub lost: Option<(u64, u64)>,
    /// Whether control records may be lost.
    pub control_lost: bool,
}

/// What a log holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LogReport {
    /// Id of the channel, hexadecimal.
    pub channel_id: Option<String>,
    /// Segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Prepared segments.
    pub spares: usize,
    /// Files that are not the channel's.
    pub foreign: Vec<PathBuf>,
    /// Damage, in order.
    pub damage: Vec<DamageReport>,
    /// Next sequence number.
    pub next_sequence: u64,
    /// Newest incarnation seen.
    pub incarnation: u32,
    /// Epochs sealed and not done: number, first, last, claimed.
    pub open_epochs: Vec<(u64, u64, u64, bool)>,
    /// All events below are acknowledged.
    pub acknowledged_below: u64,
    /// Events that sinks without files have acknowledged, as far as the log still names them.
    pub taken: Vec<(u64, u64)>,
}

impl LogReport {
    /// Whether every checksum and rule holds.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

#[derive(Default)]
struct Seen {
    next_sequence: Option<u64>,
    next_control: Option<u64>,
    pending: Option<DamageReport>,
    taken: RangeSet,
    /// Acknowledged, or in the closed files of a claimed epoch: what a deleted segment may hold.
    gone: RangeSet,
    /// First event of a transaction whose end has not come yet, and its last frame so far.
    unfinished: Option<(u64, Lsn)>,
    /// Number of the last segment that held a frame, or of the first of all.
    segment: Option<u32>,
    /// Numbers that jump where a segment is not there; damage only where what is missing in
    /// between does not turn out to be acknowledged.
    jumps: Vec<DamageReport>,
    /// The first number that any frame tells, and that segment.
    first: Option<(u64, Found)>,
}

/// Reads the whole log in `dirs`. `progress` is told the bytes read so far and in all.
///
/// # Errors
/// Only for a directory that cannot be listed; damage is in the report.
pub fn examine(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    mut progress: impl FnMut(u64, u64),
) -> Result<LogReport, String> {
    for dir in dirs {
        disk.list(dir)
            .map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    let listing = still::list(disk, dirs).map_err(|e| e.to_string())?;
    if listing.segments.is_empty() {
        return Err(format!("{}: holds no segment of a Forebay log", show(dirs)));
    }
    let mut report = LogReport {
        spares: listing.spares.len(),
        foreign: listing.foreign.clone(),
        ..LogReport::default()
    };
    let told = Told::read(disk, &listing);
    let total = listing.segments.iter().map(|f| f.len).sum();
    let mut seen = Seen::default();
    let mut read = 0;
    for found in &listing.segments {
        match told.is_left_over(found.number) {
            true => report.segments.push(unread(found, LEFT_OVER)),
            false => one_segment(disk, found, &told, &mut seen, &mut report),
        }
        read += found.len;
        progress(read, total);
    }
    if let Some(mut end) = seen.pending.take() {
        // No frame that counts follows.
        let (sequence, control) = numbers_behind(disk, &listing, end.segment);
        if let Some(next) = seen.next_sequence.filter(|next| *next < sequence) {
            end.lost = Some((next, sequence - 1));
            seen.next_sequence = Some(sequence);
        }
        end.control_lost |= seen.next_control.is_some_and(|next| next < control);
        report.damage.push(end);
    }
    report.damage.extend(lost_before(&seen, &report));
    report.damage.extend(real_jumps(&mut seen));
    report.damage.sort_by_key(|d| (d.segment, d.offset));
    check::markers(disk, dirs, &mut report);
    report.next_sequence = seen.next_sequence.unwrap_or(0);
    report.taken = seen.taken.iter().collect();
    Ok(report)
}

fn show(dirs: &[PathBuf]) -> String {
    dirs.iter()
        .map(|d| d.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// State of a segment that is no part of the log any more.
const LEFT_OVER: &str = "left over";

fn unread(found: &Found, state: &str) -> SegmentReport {
    SegmentReport {
        segment: found.number,
        path: found.path.clone(),
        bytes: found.len,
        state: state.into(),
        end: SEGMENT_HEADER_BYTES,
        ..SegmentReport::default()
    }
}

fn one_segment(
    disk: &dyn Disk,
    found: &Found,
    all: &Told,
    seen: &mut Seen,
    report: &mut LogReport,
) {
    let mut segment = unread(found, "open");
    let damage_before = (report.damage.len(), seen.pending.clone());
    let told = all.end_of(found.number);
    if report.segments.iter().all(|s| s.state == LEFT_OVER) {
        // Where the log begins is known: damage of its first frames has numbers too.
        seen.next_sequence = match found.number {
            0 => Some(1),
            _ => told.map(|told| told.first_sequence),
        };
        seen.next_control = (found.number == 0).then_some(0);
        seen.segment = Some(found.number);
    }
    if let Some(before) = seen
        .segment
        .filter(|before| all.may_end_by_an_open(*before))
    {
        // That open has believed whole transactions only, of what was not proven.
        let unproven = |(_, last): &(u64, Lsn)| *last >= all.durable_in(before);
        let unfinished = seen.unfinished.take().filter(unproven);
        seen.next_sequence = unfinished.map(|(first, _)| first).or(seen.next_sequence);
    }
    match open_told(disk, found, told) {
        Ok((file, salt, file_end)) => {
            check::headers(file.as_ref(), found, report);
            let end = told.map(|told| told.end);
            // Where the end is known, that much was durable; behind it there is nothing to miss.
            let known = match end {
                Some(end) => Lsn::new(found.number, end),
                None => all.durable_in(found.number),
            };
            let end = end
                .map_or(file_end, |end| end.min(file_end))
                .max(SEGMENT_HEADER_BYTES);
            let scanner = scanner(file.as_ref(), found.number, salt, end, known);
            let mut ahead = check::Ahead::of(file.as_ref());
            scan(scanner, found, &mut ahead, &mut segment, seen, report);
            note_cut(all, file_end, found, &segment, seen, report);
            if segment.state == "sealed" {
                let behind = ahead.behind_seal(segment.end, file_end);
                let behind = behind.map(|(at, why)| check::harmless(found, at, why));
                report.damage.extend(behind);
            }
        }
        Err(_) if found.has_gone(disk) => return,
        Err(why) => {
            segment.state = "unreadable".into();
            note(seen, report, found, 0, why, None);
        }
    }
    let found_damage = (report.damage.len(), &seen.pending) != (damage_before.0, &damage_before.1);
    if found_damage && found.has_gone(disk) {
        // INV-21: a running agent has made a prepared segment of it while it was read.
        report.damage.truncate(damage_before.0);
        seen.pending = damage_before.1;
        return;
    }
    report.segments.push(segment);
}

/// A file that was cut between two frames holds no bad byte: a later segment knows where it ended,
/// or nothing does. What follows may be gone; the numbers of the next frame tell whether it is.
fn note_cut(
    all: &Told,
    file_end: u32,
    found: &Found,
    segment: &SegmentReport,
    seen: &mut Seen,
    report: &mut LogReport,
) {
    let (at, why) = match all.end_of(found.number) {
        Some(told) if told.end > file_end.max(SEGMENT_HEADER_BYTES) => {
            // Of the frame in which it was cut, zeros may be left.
            let why = format!("the file ends here, its frames went on to {}", told.end);
            (segment.end.min(file_end), why)
        }
        None if segment.state != "sealed" && all.end_is_missing(found.number, segment.end) => {
            let why =
                "its frames end here, and neither a seal nor a later record says that they do";
            (segment.end, why.to_owned())
        }
        _ => return,
    };
    let noted = |damage: &DamageReport| damage.segment == found.number && damage.resume.is_none();
    if !seen.pending.as_ref().is_some_and(noted) {
        note(seen, report, found, at, why, None);
    }
}

fn scan(
    mut scanner: Scanner<Salvage<'_>>,
    found: &Found,
    ahead: &mut check::Ahead<'_>,
    segment: &mut SegmentReport,
    seen: &mut Seen,
    report: &mut LogReport,
) {
    loop {
        let Ok(step) = scanner.step();
        match step {
            Step::Frame { lsn, header, body } => {
                let length = u32::try_from(wal_format::frame_bytes(body.len())).unwrap_or(0);
                segment.end = lsn.offset() + length;
                let padding = ahead.padding(lsn, body.len());
                let padding = padding.map(|why| check::harmless(found, lsn.offset(), why));
                good_frame(&header, body, lsn, found, segment, seen, report);
                report.damage.extend(padding);
                *segment
                    .frames
                    .entry(format!("{:?}", header.kind))
                    .or_default() += 1;
                if header.kind == FrameKind::SegmentSeal {
                    break;
                }
            }
            Step::Corrupt {
                offset,
                why,
                resume,
            } => {
                note(seen, report, found, offset, why.to_string(), resume);
                if resume.is_none() {
                    return;
                }
            }
            Step::End { .. } => break,
            Step::Torn {
                offset,
                nonzero_end,
            } => {
                segment.torn_bytes = nonzero_end.saturating_sub(offset);
                break;
            }
        }
    }
    if segment.frames.is_empty() {
        segment.state = "empty".into();
    } else if segment.frames.contains_key("SegmentSeal") {
        segment.state = "sealed".into();
    }
}

fn note(
    seen: &mut Seen,
    report: &mut LogReport,
    found: &Found,
    offset: u32,
    why: String,
    resume: Option<u32>,
) {
    if let Some(earlier) = seen.pending.take() {
        report.damage.push(earlier);
    }
    seen.pending = Some(DamageReport {
        segment: found.number,
        path: found.path.clone(),
        offset,
        why,
        resume,
        lost: None,
        control_lost: false,
    });
}

fn good_frame(
    header: &FrameHeader,
    body: &[u8],
    lsn: Lsn,
    found: &Found,
    segment: &mut SegmentReport,
    seen: &mut Seen,
    report: &mut LogReport,
) {
    segment.first_sequence.get_or_insert(header.sequence);
    let record = match header.kind {
        FrameKind::Put => {
            if let Err(why) = put_is_whole(header, body) {
                note(seen, report, found, lsn.offset(), why, None);
            }
            None
        }
        kind => match Record::decode(kind, body) {
            Ok(record) => Some(record),
            Err(why) => {
                note(seen, report, found, lsn.offset(), why.to_string(), None);
                None
            }
        },
    };
    if seen.first.is_none() {
        seen.first = Some((header.sequence, found.clone()));
    }
    close_gap(header, lsn, found, seen, report);
    check_rules(header, record.as_ref(), lsn, found, segment, seen, report);
    seen.segment = Some(found.number);
    if header.kind == FrameKind::Put {
        let begun = seen.unfinished.filter(|_| !header.first_of_transaction);
        let first = begun.map_or(header.sequence, |(first, _)| first);
        seen.unfinished = Some((first, lsn)).filter(|_| !header.last_of_transaction);
    }
    let end = header.sequence.saturating_add(u64::from(header.count));
    let counted = seen
        .next_sequence
        .map_or(header.sequence, |n| n.max(header.sequence));
    segment.events += end.saturating_sub(counted);
    seen.next_sequence = Some(seen.next_sequence.map_or(end, |n| n.max(end)));
    let numbered = record.as_ref().is_some_and(is_numbered);
    let control = header.control.saturating_add(u64::from(numbered));
    seen.next_control = Some(seen.next_control.map_or(control, |n| n.max(control)));
    if let Some(record) = record {
        note_gone(&record, seen, report);
        follow(&record, report);
    }
}

fn check_rules(
    header: &FrameHeader,
    record: Option<&Record>,
    lsn: Lsn,
    found: &Found,
    segment: &SegmentReport,
    seen: &Seen,
    report: &mut LogReport,
) {
    let bad = |d: &DamageReport| d.segment == found.number && d.offset >= SEGMENT_HEADER_BYTES;
    let whole = !report.damage.iter().any(bad);
    let frames = whole.then(|| segment.frames.values().sum());
    let next = seen.next_sequence.filter(|_| whole);
    if let Some(why) = check::broken_rule(header, record, lsn, frames, next) {
        report
            .damage
            .push(check::harmless(found, lsn.offset(), why));
    }
}

/// Remembers which events a deleted segment may have held.
fn note_gone(record: &Record, seen: &mut Seen, report: &LogReport) {
    match record {
        Record::Ack(ranges) => {
            for range in ranges {
                seen.taken.insert(range.first, range.last);
                seen.gone.insert(range.first, range.last);
            }
        }
        Record::Snapshot(snapshot) => {
            if snapshot.acked_below > 1 {
                seen.gone.insert(1, snapshot.acked_below - 1);
            }
            let claimed = snapshot.epochs.iter().filter(|e| e.claimed);
            let gone = snapshot.acked.iter().chain(claimed.map(|e| &e.range));
            gone.for_each(|range| seen.gone.insert(range.first, range.last));
        }
        Record::Claimed(epoch) => seen.gone.insert(epoch.range.first, epoch.range.last),
        Record::Done { epoch } => {
            let open = report.open_epochs.iter().find(|(n, ..)| n == epoch);
            if let Some((_, first, last, _)) = open {
                seen.gone.insert(*first, *last);
            }
        }
        _ => {}
    }
}

/// Events in front of everything that can be read, which no record says are done with.
fn lost_before(seen: &Seen, report: &LogReport) -> Option<DamageReport> {
    let (first, found) = seen.first.as_ref()?;
    let begin = report.acknowledged_below.max(1);
    let last = first.checked_sub(1).filter(|last| *last >= begin)?;
    (!seen.gone.covers(begin, last)).then(|| DamageReport {
        lost: Some((begin, last)),
        ..check::harmless(
            found,
            SEGMENT_HEADER_BYTES,
            "the events before this one are in no segment that can be read".into(),
        )
    })
}

/// The jumps that no deletion of acknowledged events explains.
fn real_jumps(seen: &mut Seen) -> Vec<DamageReport> {
    let gone = std::mem::take(&mut seen.gone);
    let jumps = std::mem::take(&mut seen.jumps);
    jumps
        .into_iter()
        .filter(|jump| match jump.lost {
            Some((first, last)) => jump.control_lost || !gone.covers(first, last),
            None => jump.control_lost,
        })
        .collect()
}

fn put_is_whole(header: &FrameHeader, body: &[u8]) -> Result<(), String> {
    let parsed = PutBody::parse(body, header.count).map_err(|e| e.to_string())?;
    for event in parsed.events() {
        event.map_err(|e| e.to_string())?;
    }
    for position in parsed.positions() {
        position.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Numbers are dense: what is missing in front of this frame belongs to the damage noted before,
/// or is damage of its own.
fn close_gap(
    header: &FrameHeader,
    lsn: Lsn,
    found: &Found,
    seen: &mut Seen,
    report: &mut LogReport,
) {
    let lost = seen.next_sequence.filter(|next| header.sequence > *next);
    let lost = lost.map(|next| (next, header.sequence - 1));
    let control_lost = seen.next_control.is_some_and(|next| header.control > next);
    // Behind a segment that is not there. If it was deleted, a snapshot says all that it said.
    let behind = seen
        .segment
        .is_some_and(|n| n.saturating_add(1) < found.number);
    if behind && seen.pending.is_none() && (lost.is_some() || control_lost) {
        seen.jumps.push(DamageReport {
            why: "numbers jump here, where segments are missing".into(),
            lost,
            control_lost: control_lost && header.kind != FrameKind::Snapshot,
            ..check::harmless(found, lsn.offset(), String::new())
        });
        return;
    }
    if (lost.is_some() || control_lost) && seen.pending.is_none() {
        note(
            seen,
            report,
            found,
            lsn.offset(),
            "numbers jump here".into(),
            Some(lsn.offset()),
        );
    }
    if let Some(mut damage) = seen.pending.take() {
        damage.lost = lost;
        damage.control_lost = control_lost;
        report.damage.push(damage);
    }
}

fn follow(record: &Record, report: &mut LogReport) {
    match record {
        Record::Snapshot(s) => {
            report.acknowledged_below = report.acknowledged_below.max(s.acked_below);
            report.open_epochs = s
                .epochs
                .iter()
                .map(|e| (e.epoch, e.range.first, e.range.last, e.claimed))
                .collect();
        }
        Record::Seal(e) | Record::Claimed(e) => {
            report.open_epochs.retain(|(n, ..)| *n != e.epoch);
            report
                .open_epochs
                .push((e.epoch, e.range.first, e.range.last, e.claimed));
        }
        Record::Done { epoch } | Record::Abandon { epoch } => {
            report.open_epochs.retain(|(n, ..)| n != epoch);
        }
        Record::Incarnation(open) => report.incarnation = open.incarnation,
        Record::Ack(_)
        | Record::Routes(_)
        | Record::Fence { .. }
        | Record::Watermark
        | Record::SegmentSeal { .. } => {}
    }
}
