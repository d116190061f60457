//! What no writer of this channel writes, though the sums are right: a record that contradicts its
//! own frame, or numbers beyond all that can have been given.
//!
//! *Place in the flow*: a snapshot that breaks a rule is not believed, so that an older one is the
//! base; any other record that does refuses the log. Nothing here looks at other frames.

use wal_format::{FrameHeader, Range, Record, SEGMENT_BYTES_MAX, SegmentRef, Snapshot};

/// No channel gives as many numbers; sums of two of them stay below `u64::MAX`.
const NUMBERS_END: u64 = 1 << 62;

/// Why this frame cannot have been written by a channel.
pub(in crate::channel::file) fn broken_by(
    header: &FrameHeader,
    record: Option<&Record>,
) -> Option<&'static str> {
    let next = header.sequence;
    if next == 0 || next >= NUMBERS_END || header.control >= NUMBERS_END {
        return Some("its numbers are beyond all that can have been given");
    }
    match record {
        Some(Record::Ack(ranges)) if ranges.iter().any(|range| range.last >= next) => {
            Some("it acknowledges events that were never put")
        }
        Some(Record::Seal(epoch) | Record::Claimed(epoch))
            if epoch.range.last >= next || epoch.epoch >= NUMBERS_END =>
        {
            Some("it seals events that were never put")
        }
        Some(Record::Incarnation(open)) if open.incarnation == u32::MAX => {
            Some("its number is beyond all that can have been given")
        }
        Some(Record::Snapshot(snapshot)) => contradiction(header, snapshot),
        _ => None,
    }
}

fn contradiction(header: &FrameHeader, snapshot: &Snapshot) -> Option<&'static str> {
    let (cursor, next) = (snapshot.acked_below, header.sequence);
    let acked = &snapshot.acked;
    if cursor == 0 || cursor > next || !in_order(acked, cursor, next) {
        return Some("it acknowledges events that were never put");
    }
    if !in_order(&snapshot.lost, 0, next) {
        return Some("it has lost events that were never put");
    }
    let epochs = &snapshot.epochs;
    let unknown = epochs
        .iter()
        .any(|e| e.range.last >= next || e.epoch >= snapshot.next_epoch);
    let ascending = epochs.is_sorted_by(|a, b| a.epoch < b.epoch);
    if unknown || !ascending || snapshot.next_epoch >= NUMBERS_END {
        return Some("it has sealed events that were never put");
    }
    let opens = &snapshot.incarnations;
    let last = opens.last().map_or(0, |(number, _)| *number);
    let in_turn = opens.is_sorted_by(|a, b| a.0 < b.0) && last <= snapshot.incarnation;
    if !in_turn || snapshot.incarnation == u32::MAX {
        return Some("its incarnations are not in order");
    }
    let segments = &snapshot.segments;
    let lie = segments
        .iter()
        .any(|s| s.end > SEGMENT_BYTES_MAX || s.first_sequence > next);
    // Events are found by halving the list, which has an answer only where both rise.
    let rise = |a: &SegmentRef, b: &SegmentRef| {
        a.segment < b.segment && a.first_sequence <= b.first_sequence
    };
    if lie || !segments.is_sorted_by(rise) {
        return Some("it names segments that cannot be there");
    }
    None
}

/// Disjoint runs in order inside `[from, end)`.
fn in_order(runs: &[Range], from: u64, end: u64) -> bool {
    let inside = runs.iter().all(|r| from <= r.first && r.last < end);
    inside && runs.is_sorted_by(|a, b| a.last < b.first)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
