//! What a proven frame changes, and how it is written again.

use wal_format::{Lsn, PutEncoder, Range};

use super::*;
use crate::channel::file::range_set::RangeSet;

pub(in super::super) fn put(
    sequence: u64,
    count: u32,
    control: u64,
    (first, last): (bool, bool),
) -> Suspect {
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

pub(in super::super) fn record(record: &Record, sequence: u64, control: u64) -> Suspect {
    let body = record.encode();
    suspect(record.kind(), sequence, 0, control, (true, true), body)
}

pub(in super::super) fn suspect(
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

pub(in super::super) const WHOLE: (bool, bool) = (true, true);

pub(in super::super) fn ack(sequence: u64, control: u64) -> Suspect {
    let range = Range { first: 1, last: 1 };
    record(&Record::Ack(vec![range]), sequence, control)
}

/// At sequence number 5 and control number 3.
pub(in super::super) fn state() -> LogState {
    LogState {
        next_sequence: 5,
        next_control: 3,
        ..LogState::fresh()
    }
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
