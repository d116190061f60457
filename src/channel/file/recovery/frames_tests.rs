//! Which of the unproven frames are copied, and what a proven one changes, case by case: most of
//! these tails no crash of our own writer leaves, but damage can.

use wal_format::{Lsn, PutEncoder, Range};

use super::*;
use crate::channel::file::range_set::RangeSet;

fn put(sequence: u64, count: u32, control: u64, (first, last): (bool, bool)) -> Suspect {
    let mut encoder = PutEncoder::with_capacity(100);
    for n in 0..count {
        encoder.event(std::iter::empty(), format!("event {n}").as_bytes(), None);
    }
    encoder.position(
        b"key",
        format!("{}", sequence + u64::from(count)).as_bytes(),
    );
    let frame = encoder.finish();
    let body = frame.buffer[FRAME_HEADER_BYTES..][..frame.body_len as usize].to_vec();
    suspect(
        FrameKind::Put,
        sequence,
        count,
        control,
        (first, last),
        body,
    )
}

fn record(record: &Record, sequence: u64, control: u64) -> Suspect {
    let body = record.encode();
    suspect(record.kind(), sequence, 0, control, (true, true), body)
}

fn suspect(
    kind: FrameKind,
    sequence: u64,
    count: u32,
    control: u64,
    (first_of_transaction, last_of_transaction): (bool, bool),
    body: Vec<u8>,
) -> Suspect {
    let header = FrameHeader {
        kind,
        first_of_transaction,
        last_of_transaction,
        compression_id: 0,
        body_len: u32::try_from(body.len()).unwrap(),
        body_crc: 0,
        sequence,
        count,
        control,
        put_time_ms: 0,
        watermark: Lsn(0),
    };
    Suspect {
        header,
        body,
        end: Lsn(0),
    }
}

const WHOLE: (bool, bool) = (true, true);

fn ack(sequence: u64, control: u64) -> Suspect {
    let range = Range { first: 1, last: 1 };
    record(&Record::Ack(vec![range]), sequence, control)
}

/// At sequence number 5 and control number 3.
fn state() -> LogState {
    LogState {
        next_sequence: 5,
        next_control: 3,
        ..LogState::fresh()
    }
}

/// Sequence and control number of what is copied.
fn copied(suspects: Vec<Suspect>) -> Vec<(FrameKind, u64, u64)> {
    let whole = whole_transactions(suspects, &state());
    let number = |s: &Suspect| (s.header.kind, s.header.sequence, s.header.control);
    whole.iter().map(number).collect()
}

#[test]
fn a_tail_without_gaps_is_copied_whole_and_in_order() {
    let tail = vec![
        put(5, 2, 3, WHOLE),
        ack(7, 3),
        put(7, 1, 4, (true, false)),
        put(8, 1, 4, (false, true)),
    ];
    let expected = [
        (FrameKind::Put, 5, 3),
        (FrameKind::Ack, 7, 3),
        (FrameKind::Put, 7, 4),
        (FrameKind::Put, 8, 4),
    ];
    assert_eq!(copied(tail), expected);
}

#[test]
fn what_has_been_copied_before_is_left_out_and_what_follows_it_is_not() {
    let tail = vec![
        put(3, 2, 3, WHOLE),
        ack(5, 2),
        put(5, 1, 3, WHOLE),
        put(5, 1, 3, WHOLE),
        ack(6, 3),
        ack(6, 3),
        put(6, 1, 4, WHOLE),
    ];
    let expected = [
        (FrameKind::Put, 5, 3),
        (FrameKind::Ack, 6, 3),
        (FrameKind::Put, 6, 4),
    ];
    assert_eq!(copied(tail), expected);
}

#[test]
fn a_gap_of_sequence_numbers_ends_the_tail() {
    let tail = vec![put(5, 1, 3, WHOLE), put(7, 1, 3, WHOLE), ack(8, 3)];
    assert_eq!(copied(tail), [(FrameKind::Put, 5, 3)]);
}

#[test]
fn a_gap_of_control_numbers_ends_the_tail() {
    let events = vec![put(5, 1, 3, WHOLE), put(6, 1, 4, WHOLE)];
    assert_eq!(copied(events), [(FrameKind::Put, 5, 3)]);
    let records = vec![put(5, 1, 3, WHOLE), ack(6, 4), put(6, 1, 5, WHOLE)];
    assert_eq!(copied(records), [(FrameKind::Put, 5, 3)]);
}

#[test]
fn a_transaction_that_was_cut_short_is_not_copied_nor_what_stands_behind_it() {
    let end = vec![put(5, 1, 3, WHOLE), put(6, 1, 3, (true, false))];
    assert_eq!(copied(end), [(FrameKind::Put, 5, 3)]);
    let middle = vec![
        put(5, 1, 3, (true, false)),
        ack(6, 3),
        put(6, 1, 4, (false, true)),
    ];
    assert_eq!(copied(middle), []);
}

#[test]
fn records_that_only_prove_or_describe_are_not_copied_and_cost_no_number() {
    let seal = Record::SegmentSeal {
        frames: 1,
        next_sequence: 5,
    };
    let tail = vec![
        record(&Record::Watermark, 5, 3),
        record(&seal, 5, 3),
        ack(5, 3),
    ];
    assert_eq!(copied(tail), [(FrameKind::Ack, 5, 3)]);
}

#[test]
fn a_hole_is_passed_with_its_events_lost_by_name() {
    let mut state = state();
    pass_hole(&mut state, &put(5, 1, 3, WHOLE).header);
    assert_eq!(state, self::state(), "no hole");
    pass_hole(&mut state, &put(9, 1, 3, WHOLE).header);
    let mut lost = RangeSet::default();
    lost.insert(5, 8);
    assert_eq!((state.next_sequence, &state.lost), (9, &lost));
    assert!(!state.control_lost, "only events are missing");
    pass_hole(&mut state, &ack(9, 4).header);
    assert!(state.control_lost);
    assert_eq!((state.next_sequence, state.next_control), (9, 4));
}

#[test]
fn a_proven_frame_changes_the_state_once() {
    let mut state = state();
    let frames = [
        put(5, 2, 3, WHOLE),
        put(5, 2, 3, WHOLE),
        ack(7, 3),
        ack(7, 3),
        record(&Record::Fence { through: 4 }, 7, 4),
        record(&Record::Watermark, 7, 5),
    ];
    for frame in &frames {
        apply(&mut state, frame).unwrap();
    }
    assert_eq!((state.next_sequence, state.next_control), (7, 5));
    assert_eq!((state.cursor, state.fenced_through), (2, 4));
    assert_eq!(state.positions.get(b"key".as_slice()), Some(&b"7".to_vec()));
    assert!(!state.control_lost);
    let older = record(&Record::Fence { through: 9 }, 7, 4);
    apply(&mut state, &older).unwrap();
    assert_eq!(state.fenced_through, 4, "it was there before");
}

#[test]
fn a_frame_whose_body_is_not_what_its_kind_says_is_refused() {
    let mut bad = ack(5, 3);
    bad.body = vec![0xff; 3];
    assert!(apply(&mut state(), &bad).is_err());
    let mut bad = put(5, 2, 3, WHOLE);
    bad.body = vec![0xff; 3];
    assert!(apply(&mut state(), &bad).is_err());
}

#[test]
fn a_frame_is_written_again_with_the_body_and_the_numbers_it_had() {
    let frame = put(5, 2, 3, WHOLE);
    let again = rebuild(&frame);
    let header = [0; FRAME_HEADER_BYTES];
    assert_eq!(again.buffer[..FRAME_HEADER_BYTES], header);
    assert_eq!(again.buffer.len() % 8, 0);
    let (body, padding) = again.buffer[FRAME_HEADER_BYTES..].split_at(frame.body.len());
    assert_eq!(body, frame.body);
    assert!(padding.len() < 8 && padding.iter().all(|b| *b == 0));
    let numbers = (again.body_len, again.body_crc, again.count);
    assert_eq!(numbers, (frame.header.body_len, frame.header.body_crc, 2));
}

/// The snapshot that an open begins with, at these numbers.
fn opening(sequence: u64, control: u64) -> Suspect {
    let snapshot = wal_format::Snapshot {
        incarnation: 2,
        ..wal_format::Snapshot::default()
    };
    record(&Record::Snapshot(Box::new(snapshot)), sequence, control)
}

/// INV-9: an open that was cut short has copied what has become unreadable since.
#[test]
fn copies_fill_a_gap_of_their_originals() {
    let events = vec![
        put(5, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
        opening(5, 3),
        put(5, 1, 3, WHOLE),
        put(6, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
    ];
    let expected = [5, 6, 7].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(events), expected);
    let records = vec![ack(5, 4), opening(5, 3), ack(5, 3), ack(5, 4)];
    let expected = [(FrameKind::Ack, 5, 3), (FrameKind::Ack, 5, 4)];
    assert_eq!(copied(records), expected);
    // Of one transaction a part is left here and a part there.
    let parts = vec![
        put(5, 1, 3, (true, false)),
        put(7, 1, 3, (false, true)),
        opening(5, 3),
        put(6, 1, 3, (false, false)),
        put(7, 1, 3, (false, true)),
    ];
    let expected = [5, 6, 7].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(parts), expected);
}

/// Numbers of the suspects in the order in which they are looked at.
fn order(mut suspects: Vec<Suspect>) -> Vec<(u64, u64)> {
    begin_with_what_is_whole(&mut suspects, &state());
    let number = |s: &Suspect| (s.header.sequence, s.header.control);
    suspects.iter().map(number).collect()
}

#[test]
fn the_tail_begins_with_the_copies_where_the_first_originals_are_gone() {
    let left = [put(7, 1, 3, WHOLE), put(8, 1, 3, WHOLE)];
    let copies = [
        opening(5, 3),
        put(5, 1, 3, WHOLE),
        put(6, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
    ];
    let tail = [&left[..], &copies[..]].concat();
    let turned = [(5, 3), (5, 3), (6, 3), (7, 3), (7, 3), (8, 3)];
    assert_eq!(order(tail), turned);
    // Only control records are missing.
    let records = vec![ack(5, 4), opening(5, 3), ack(5, 3), ack(5, 4)];
    assert_eq!(order(records), [(5, 3), (5, 3), (5, 4), (5, 4)]);
    // The second of two recoveries goes on where the first one ended.
    let short = [opening(5, 3), put(5, 1, 3, WHOLE)];
    let mut tail = [&left[..], &short[..], &copies[..]].concat();
    begin_with_what_is_whole(&mut tail, &state());
    let expected = [5, 6, 7, 8].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(tail), expected);
}

#[test]
fn the_tail_begins_with_its_first_frame_where_copies_would_not_reach_it() {
    let stay = |tail: Vec<Suspect>| {
        let number = |s: &Suspect| (s.header.sequence, s.header.control);
        let before: Vec<_> = tail.iter().map(number).collect();
        assert_eq!(order(tail), before);
    };
    let (first, copy) = (put(7, 1, 3, WHOLE), put(5, 1, 3, WHOLE));
    stay(vec![]);
    // Too few copies, none at all, or none of what is missing.
    stay(vec![first.clone(), opening(5, 3), copy.clone()]);
    stay(vec![first.clone(), copy.clone(), put(6, 1, 3, WHOLE)]);
    stay(vec![first.clone(), opening(7, 3), first.clone()]);
    stay(vec![first, opening(9, 3), put(9, 1, 3, WHOLE)]);
    stay(vec![ack(5, 4), opening(5, 4), ack(5, 4)]);
    stay(vec![ack(6, 4), opening(5, 3), put(5, 1, 3, WHOLE)]);
    // Nothing is missing.
    stay(vec![copy.clone(), opening(4, 2), put(4, 1, 3, WHOLE), copy]);
}

/// INV-8: an incarnation that only the unproven tail names has been given its number.
#[test]
fn the_next_incarnation_comes_behind_those_that_only_the_tail_names() {
    let opened = |incarnation| {
        let open = wal_format::Open {
            incarnation,
            nonce: 1,
            identity: wal_format::Identity::default(),
            opened_at_ms: 0,
            previous: None,
        };
        record(&Record::Incarnation(open), 5, 3)
    };
    let recovered = |suspects| super::super::Recovered {
        state: LogState {
            incarnation: 4,
            ..state()
        },
        proven: Lsn(0),
        suspects,
        segments: Vec::new(),
        leftovers: Vec::new(),
        damage: Vec::new(),
        torn: None,
        cut: None,
        hidden_below: 0,
    };
    assert_eq!(recovered(vec![]).last_incarnation(), 4);
    assert_eq!(recovered(vec![opened(3)]).last_incarnation(), 4);
    let tail = vec![opened(6), put(5, 1, 4, WHOLE), opened(5)];
    assert_eq!(recovered(tail).last_incarnation(), 6);
}

/// INV-15: an open that was cut short has left the copy of the first of two puts without events.
#[test]
fn the_copy_of_a_put_without_events_does_not_count_behind_a_later_one() {
    let at = |value: &str| {
        let mut encoder = PutEncoder::with_capacity(100);
        encoder.position(b"key", value.as_bytes());
        let frame = encoder.finish();
        let body = frame.buffer[FRAME_HEADER_BYTES..][..frame.body_len as usize].to_vec();
        suspect(FrameKind::Put, 1, 0, 0, (true, true), body)
    };
    let opening = wal_format::Snapshot {
        incarnation: 2,
        ..wal_format::Snapshot::default()
    };
    let rolled = wal_format::Snapshot {
        incarnations: vec![(2, 0)],
        ..opening.clone()
    };
    let snapshot = |snapshot: &wal_format::Snapshot| {
        record(&Record::Snapshot(Box::new(snapshot.clone())), 1, 0)
    };
    let last = |suspects: Vec<Suspect>| {
        let whole = whole_transactions(suspects, &LogState::fresh());
        match put_op(whole.last().unwrap()).unwrap() {
            Op::Put { positions, .. } => String::from_utf8(positions[0].1.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let copied = vec![at("2"), at("3"), snapshot(&opening), at("2")];
    assert_eq!(last(copied), "3");
    // What is not there as an original counts.
    let torn = vec![at("2"), snapshot(&opening), at("2"), at("3")];
    assert_eq!(last(torn), "3");
    // Behind a roll, and without any, nothing is a copy: a source may go back.
    let back = vec![at("2"), at("3"), snapshot(&rolled), at("2")];
    assert_eq!(last(back), "2");
    assert_eq!(last(vec![at("2"), at("3"), at("2")]), "2");
}
