//! What a frame changes once it is proven, and how it is written again.

use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, PutBody, Record};

use super::Suspect;
use crate::channel::file::state::{LogState, Op, is_numbered};
use crate::planted::{Bug, planted};

/// Numbers are dense: those missing in front of a frame were lost to damage, and stay given.
pub(super) fn pass_hole(state: &mut LogState, header: &FrameHeader) {
    pass_hole_to(state, header.sequence, header.control);
}

/// The same up to these numbers.
pub(super) fn pass_hole_to(state: &mut LogState, sequence: u64, control: u64) {
    if control > state.next_control {
        state.control_lost |= !planted(Bug::ControlHoleSilent);
        state.next_control = control;
    }
    if sequence > state.next_sequence {
        if !planted(Bug::HoleSilent) {
            state.lost.insert(state.next_sequence, sequence - 1);
        }
        state.next_sequence = sequence;
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
pub(super) mod tests;
