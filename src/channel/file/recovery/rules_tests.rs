//! Each rule on both sides of its limit.

use wal_format::{Epoch, FrameKind, Identity, Open};

use super::super::accepted;
use super::*;

const ACKED: &str = "it acknowledges events that were never put";
const LOST: &str = "it has lost events that were never put";
const SEALS: &str = "it seals events that were never put";
const SEALED: &str = "it has sealed events that were never put";
const NUMBERS: &str = "its numbers are beyond all that can have been given";
const NUMBER: &str = "its number is beyond all that can have been given";
const OPENS: &str = "its incarnations are not in order";
const SEGMENTS: &str = "it names segments that cannot be there";

fn header(sequence: u64, control: u64) -> FrameHeader {
    accepted::header(FrameKind::Watermark, sequence, control)
}

/// What is broken by a record in front of which nine events were put.
fn broken(record: &Record) -> Option<&'static str> {
    broken_by(&header(10, 0), Some(record))
}

fn range(first: u64, last: u64) -> Range {
    Range { first, last }
}

fn epoch(epoch: u64, last: u64) -> Epoch {
    Epoch {
        epoch,
        range: range(1, last),
        claimed: false,
        sink: String::new(),
        store: String::new(),
        base: String::new(),
        attempt: String::new(),
        parts: Vec::new(),
    }
}

fn open(incarnation: u32) -> Record {
    Record::Incarnation(Open {
        incarnation,
        nonce: 0,
        identity: Identity::default(),
        opened_at_ms: 0,
        previous: None,
    })
}

fn segment(segment: u32, first_sequence: u64) -> SegmentRef {
    SegmentRef {
        segment,
        salt: 0,
        first_sequence,
        end: 4096,
    }
}

/// What is broken by a snapshot that would be whole without this change.
fn snapshot(change: impl FnOnce(&mut Snapshot)) -> Option<&'static str> {
    let mut whole = Snapshot {
        acked_below: 2,
        acked: vec![range(2, 3), range(5, 6)],
        lost: vec![range(3, 4), range(7, 8)],
        incarnation: 4,
        incarnations: vec![(2, 0), (3, 0)],
        next_epoch: 7,
        epochs: vec![epoch(4, 5), epoch(5, 6)],
        segments: vec![segment(1, 1), segment(3, 8)],
        ..Snapshot::default()
    };
    change(&mut whole);
    broken(&Record::Snapshot(Box::new(whole)))
}

#[test]
fn numbers_of_a_frame_end_where_none_is_given() {
    let frame = |sequence, control| broken_by(&header(sequence, control), None);
    assert_eq!(frame(1, 0), None);
    assert_eq!(frame(NUMBERS_END - 1, NUMBERS_END - 1), None);
    assert_eq!(frame(0, 0), Some(NUMBERS));
    assert_eq!(frame(NUMBERS_END, 0), Some(NUMBERS));
    assert_eq!(frame(1, NUMBERS_END), Some(NUMBERS));
}

#[test]
fn a_record_speaks_of_events_that_were_put() {
    assert_eq!(broken(&Record::Ack(vec![range(1, 2), range(8, 9)])), None);
    let ack = Record::Ack(vec![range(1, 10), range(2, 3)]);
    assert_eq!(broken(&ack), Some(ACKED));
    for record in [Record::Seal, Record::Claimed] {
        assert_eq!(broken(&record(epoch(NUMBERS_END - 1, 9))), None);
        assert_eq!(broken(&record(epoch(1, 10))), Some(SEALS));
        assert_eq!(broken(&record(epoch(NUMBERS_END, 9))), Some(SEALS));
    }
    assert_eq!(broken(&open(u32::MAX - 1)), None);
    assert_eq!(broken(&open(u32::MAX)), Some(NUMBER));
}

#[test]
fn a_snapshot_acknowledges_and_has_lost_what_was_put_in_order() {
    assert_eq!(snapshot(|_| ()), None);
    assert_eq!(snapshot(|s| s.acked_below = 0), Some(ACKED));
    assert_eq!(snapshot(|s| s.acked_below = 1), None);
    assert_eq!(snapshot(|s| s.acked_below = 3), Some(ACKED), "inside a run");
    let all = |below: u64| {
        move |s: &mut Snapshot| {
            s.acked_below = below;
            s.acked.clear();
        }
    };
    assert_eq!(snapshot(all(10)), None);
    assert_eq!(snapshot(all(11)), Some(ACKED));
    assert_eq!(snapshot(|s| s.acked[1].last = 9), None);
    assert_eq!(snapshot(|s| s.acked[1].last = 10), Some(ACKED));
    assert_eq!(
        snapshot(|s| s.acked[1].first = 3),
        Some(ACKED),
        "they overlap"
    );
    assert_eq!(snapshot(|s| s.acked.swap(0, 1)), Some(ACKED));
    assert_eq!(snapshot(|s| s.lost[1].last = 9), None);
    assert_eq!(snapshot(|s| s.lost[1].last = 10), Some(LOST));
    assert_eq!(snapshot(|s| s.lost.swap(0, 1)), Some(LOST));
}

#[test]
fn a_snapshot_has_epochs_in_order_of_events_that_were_put() {
    assert_eq!(snapshot(|s| s.epochs[1].range.last = 9), None);
    assert_eq!(snapshot(|s| s.epochs[1].range.last = 10), Some(SEALED));
    assert_eq!(snapshot(|s| s.epochs[1].epoch = 6), None);
    assert_eq!(snapshot(|s| s.epochs[1].epoch = 7), Some(SEALED));
    assert_eq!(snapshot(|s| s.epochs[1].epoch = 4), Some(SEALED), "twice");
    assert_eq!(snapshot(|s| s.epochs.swap(0, 1)), Some(SEALED));
    assert_eq!(snapshot(|s| s.next_epoch = NUMBERS_END - 1), None);
    assert_eq!(snapshot(|s| s.next_epoch = NUMBERS_END), Some(SEALED));
}

#[test]
fn a_snapshot_names_incarnations_in_order() {
    assert_eq!(snapshot(|s| s.incarnations[1].0 = 4), None);
    assert_eq!(snapshot(|s| s.incarnations[1].0 = 5), Some(OPENS));
    assert_eq!(snapshot(|s| s.incarnations[1].0 = 2), Some(OPENS), "twice");
    assert_eq!(snapshot(|s| s.incarnation = u32::MAX - 1), None);
    assert_eq!(snapshot(|s| s.incarnation = u32::MAX), Some(OPENS));
}

#[test]
fn a_snapshot_names_segments_whose_numbers_and_events_rise() {
    assert_eq!(snapshot(|s| s.segments[1].end = SEGMENT_BYTES_MAX), None);
    let long = snapshot(|s| s.segments[1].end = SEGMENT_BYTES_MAX + 1);
    assert_eq!(long, Some(SEGMENTS));
    assert_eq!(snapshot(|s| s.segments[1].first_sequence = 10), None);
    let ahead = snapshot(|s| s.segments[1].first_sequence = 11);
    assert_eq!(ahead, Some(SEGMENTS));
    let empty = snapshot(|s| s.segments[1].first_sequence = 1);
    assert_eq!(empty, None, "the first one holds no event");
    let twice = snapshot(|s| s.segments[1].segment = 1);
    assert_eq!(twice, Some(SEGMENTS));
    let backwards = snapshot(|s| s.segments[0].first_sequence = 9);
    assert_eq!(backwards, Some(SEGMENTS));
}
