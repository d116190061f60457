//! Where reading begins: which snapshot may be believed, and which open was cut short.

use wal_format::{FrameHeader, FrameKind, Lsn, Record, SEGMENT_HEADER_BYTES, Snapshot, Step};

use super::rules::broken_by;
use super::scanned::{File, for_each_header, step};
use crate::planted::{Bug, planted};

/// A good snapshot frame and where the frames behind it begin.
pub(super) struct Base {
    pub(super) header: FrameHeader,
    pub(super) snapshot: Snapshot,
    pub(super) behind: u32,
}

/// Rows R1 to R6 and R9: whether the snapshot of the first of these segments may be believed. The
/// others are those behind it.
pub(super) fn try_base(files: &[File]) -> Option<Base> {
    let file = files.first()?;
    let base = unbroken_or_not(file)?;
    let unchecked = planted(Bug::OpeningUnchecked);
    let complete = || opening_is_complete(file, &base.snapshot) || is_proven_opening(files);
    if is_opening(&base.snapshot) && !unchecked && !complete() {
        tracing::info!(
            segment = file.found.number,
            "an earlier recovery was cut short here; going back to what it read"
        );
        return None;
    }
    Some(base)
}

/// A snapshot that keeps the rules, whether or not what it opens is complete.
fn unbroken_or_not(file: &File) -> Option<Base> {
    let (header, snapshot, behind) = read_snapshot(file)?;
    let record = Record::Snapshot(Box::new(snapshot));
    if let Some(why) = broken_by(&header, Some(&record)) {
        tracing::error!(
            segment = file.found.number,
            "the sums of its snapshot are right, but {why}; going back to an earlier one"
        );
        return None;
    }
    let Record::Snapshot(snapshot) = record else {
        return None;
    };
    Some(Base {
        header,
        snapshot: *snapshot,
        behind,
    })
}

/// Row R9: a watermark that lies in the first of these segments, in a frame of any of them, tells
/// that the sync of its first group had returned. So a hole in front of the Incarnation record is
/// damage and no recovery that was cut short. To go back to an older base would be wrong: what
/// that group has left behind for ever as torn might be believed.
fn is_proven_opening(files: &[File]) -> bool {
    let Some(first) = files.first() else {
        return false;
    };
    let begin = Lsn::new(first.found.number, SEGMENT_HEADER_BYTES);
    let inside = |mark: Lsn| mark.segment() == begin.segment() && mark > begin;
    let mut proven = false;
    for file in files {
        for_each_header(file, |header| proven |= inside(header.watermark));
    }
    proven && !planted(Bug::ProofOfOpeningUnseen)
}

/// A good frame stands where the snapshot does, and is none that can be believed: not what an
/// open that was cut short leaves.
pub(super) fn has_other_snapshot(file: &File) -> bool {
    let end = file.frames_end();
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES.min(end), end, Lsn(0));
    matches!(step(&mut scanner), Step::Frame { .. }) && unbroken_or_not(file).is_none()
}

/// A snapshot written at an open names its incarnation before that incarnation is in the list.
pub(in crate::channel::file) fn is_opening(snapshot: &Snapshot) -> bool {
    snapshot.incarnations.last().map(|(number, _)| *number) != Some(snapshot.incarnation)
}

/// Whether a segment begins with the snapshot of a roll: the one before it was durable then.
pub(super) fn begins_by_roll(file: &File) -> bool {
    unbroken_or_not(file).is_some_and(|base| !is_opening(&base.snapshot))
}

/// The incarnation that wrote a segment, where its snapshot can be read.
pub(super) fn incarnation_of(file: &File) -> Option<u32> {
    read_snapshot(file).map(|(_, snapshot, _)| snapshot.incarnation)
}

fn read_snapshot(file: &File) -> Option<(FrameHeader, Snapshot, u32)> {
    file.salt?;
    let end = file.frames_end();
    if end <= SEGMENT_HEADER_BYTES {
        return None;
    }
    let mut scanner = file.scanner(SEGMENT_HEADER_BYTES, end, Lsn(0));
    // Anything but a good frame at this very place is another step.
    let Step::Frame { header, body, .. } = step(&mut scanner) else {
        return None;
    };
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
            && (open.incarnation == snapshot.incarnation || planted(Bug::AnyIncarnation))
        {
            return true;
        }
    }
    false
}
