//! What a frame changes: applied to the state once proven, copied forward when it is a suspect.

use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, PutBody, Record};

use super::Suspect;
use super::base::is_opening;
use crate::channel::file::state::{LogState, Op, is_numbered};
use crate::planted::{Bug, planted};

/// Where damage has taken the beginning of the tail and an open that was cut short has left copies
/// that reach beyond the hole, the tail begins with them.
pub(super) fn begin_with_what_is_whole(suspects: &mut [Suspect], state: &LogState) {
    let Some(first) = suspects.first().map(|s| s.header.clone()) else {
        return;
    };
    let gap = first.sequence > state.next_sequence || first.control > state.next_control;
    if !gap || planted(Bug::CopiesUnused) {
        return;
    }
    let reaches = |at: &usize| {
        let mut turned = suspects.to_vec();
        turned.rotate_left(*at);
        copies_reach(turned, state.clone(), &first)
    };
    if let Some(at) = (1..suspects.len()).find(|at| begins_a_copy(&suspects[*at]) && reaches(at)) {
        suspects.rotate_left(at);
    }
}

/// Whether nothing is missing between the opening snapshot that the suspects begin with and this
/// frame.
fn copies_reach(suspects: Vec<Suspect>, mut state: LogState, wanted: &FrameHeader) -> bool {
    pass_hole(&mut state, &suspects[0].header);
    let (mut sequence, mut control) = (state.next_sequence, state.next_control);
    let below = (sequence, control) < (wanted.sequence, wanted.control);
    for frame in whole_transactions(suspects, &state) {
        sequence += u64::from(frame.header.count);
        control += u64::from(frame.header.kind != FrameKind::Put);
    }
    below && sequence >= wanted.sequence && control >= wanted.control
}

/// INV-13: what of the suspects has to be copied: whole transactions in sequence, without repeats
/// (an earlier open may have copied them already) and without records that only prove or describe.
/// Behind a gap only a copy goes on, one that an open wrote before what is missing was damaged.
pub(super) fn whole_transactions(suspects: Vec<Suspect>, state: &LogState) -> Vec<Suspect> {
    let (mut sequence, mut control) = (state.next_sequence, state.next_control);
    let (mut whole, mut open) = (Vec::new(), Vec::new());
    let (mut copying, mut behind_gap) = (false, false);
    for suspect in suspects {
        let header = &suspect.header;
        if begins_a_copy(&suspect) {
            copying = true;
            behind_gap &= planted(Bug::CopiesUnused);
        }
        if behind_gap {
            continue;
        }
        if header.kind == FrameKind::Put {
            if header.sequence < sequence && !planted(Bug::NoRepeatCheck) {
                continue;
            }
            if copying && is_among(&whole, &suspect) {
                continue;
            }
            let gap = header.sequence != sequence && !planted(Bug::NoSequenceCheck);
            let control_gap = header.control != control && !planted(Bug::NoControlCheck);
            if gap || control_gap {
                behind_gap = true;
                continue;
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
        let gap = header.control > control && !planted(Bug::NoControlCheck);
        if gap || !open.is_empty() {
            behind_gap = true;
            continue;
        }
        control += 1;
        whole.push(suspect);
    }
    if planted(Bug::HalfTransactions) {
        whole.append(&mut open);
    }
    whole
}

/// The snapshot of an open: the frames behind it are copies, and that it is here among the unproven
/// ones says that the open was cut short.
fn begins_a_copy(suspect: &Suspect) -> bool {
    let snapshot = suspect.header.kind == FrameKind::Snapshot && !planted(Bug::EmptyPutAgain);
    let decoded = snapshot.then(|| Record::decode(FrameKind::Snapshot, &suspect.body));
    matches!(decoded, Some(Ok(Record::Snapshot(snapshot))) if is_opening(&snapshot))
}

/// INV-15: a transaction without events has no number of its own that would tell its copy from it;
/// were the copy of an earlier one applied behind a later one, its positions would go back.
fn is_among(whole: &[Suspect], copy: &Suspect) -> bool {
    let same = |original: &Suspect| {
        original.header.kind == FrameKind::Put
            && original.header.sequence == copy.header.sequence
            && original.header.control == copy.header.control
            && original.body == copy.body
    };
    copy.header.count == 0 && whole.iter().any(same)
}

fn is_numbered_kind(kind: FrameKind) -> bool {
    !matches!(
        kind,
        FrameKind::Watermark | FrameKind::Snapshot | FrameKind::SegmentSeal
    )
}

/// Numbers are dense: those missing in front of a frame were lost to damage, and stay given.
pub(super) fn pass_hole(state: &mut LogState, header: &FrameHeader) {
    if header.control > state.next_control {
        state.control_lost |= !planted(Bug::ControlHoleSilent);
        state.next_control = header.control;
    }
    if header.sequence > state.next_sequence {
        if !planted(Bug::HoleSilent) {
            state.lost.insert(state.next_sequence, header.sequence - 1);
        }
        state.next_sequence = header.sequence;
    }
}

/// Applies a proven frame; a repeat (copied forward by an earlier open) changes nothing.
pub(super) fn apply(state: &mut LogState, frame: &Suspect) -> Result<(), String> {
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
pub(in crate::channel::file) fn put_op(frame: &Suspect) -> Result<Op, String> {
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
pub(in crate::channel::file) fn rebuild(frame: &Suspect) -> wal_format::EncodedPut {
    let mut buffer = vec![0; wal_format::frame_bytes(frame.body.len())];
    buffer[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + frame.body.len()].copy_from_slice(&frame.body);
    wal_format::EncodedPut {
        buffer,
        body_len: frame.header.body_len,
        body_crc: frame.header.body_crc,
        count: frame.header.count,
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
